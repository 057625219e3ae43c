# Which sources make which program.

PROTO_OBJECTS := $(BUILD)/proto/optimd.pb-c.o
STORE_PROTO_OBJECTS := $(BUILD)/proto/store.pb-c.o
KERNEL_SOURCES := $(wildcard common/optim/kernels*.c)
# Only what reads files needs a reader of YAML: tools and tests, not the library.
YAML_SOURCES := common/optim/spec_yaml.c
COMMON_SOURCES := $(wildcard common/*.c) \
	$(filter-out $(KERNEL_SOURCES) $(YAML_SOURCES),$(wildcard common/optim/*.c))
SERVER_SOURCES := $(wildcard server/*.c server/*/*.c)
CLIENT_SOURCES := $(wildcard client/*.c)
# A test_*.c is a program of Criterion tests, in a folder named after what it tests; they all
# share what lies in tests/support.
TEST_SOURCES := $(filter-out tests/fates/%,$(wildcard tests/*/test_*.c))
TEST_SHARED_SOURCES := $(wildcard tests/support/*.c)
# One program has a world of its own in place of the system's threads, clock and sockets.
FATES_SOURCES := $(wildcard tests/fates/*.c)
FATES_WRAPS := letter_data charge_letter clock_gettime getrandom poll read close ioctl socket connect \
	getsockopt setsockopt getpeername send sendmsg recv recvmsg shutdown epoll_create1 epoll_ctl eventfd \
	eventfd_read eventfd_write timerfd_create timerfd_settime pthread_create \
	pthread_join pthread_self pthread_mutex_lock pthread_cond_wait \
	pthread_cond_timedwait pthread_cond_signal pthread_cond_broadcast
# A bench_*.c is a program too, and so is a fuzz_*.c; golden.c is one with its helpers.
BENCH_SOURCES := $(wildcard tests/bench/bench_*.c)
BENCH_KERNEL_SOURCES := tests/bench/hand_fused.c
BENCH_PEER_SOURCES := tests/bench/peers/adam.c
BENCH_SHARED_SOURCES := $(filter-out $(BENCH_SOURCES) $(BENCH_KERNEL_SOURCES),\
	$(wildcard tests/bench/*.c))
FUZZ_SOURCES := $(wildcard tests/fuzz/fuzz_*.c)
GOLDEN_SOURCES := $(wildcard tests/golden/*.c) tests/support/golden_cases.c tests/bench/process.c \
	tests/bench/clock.c
SOAK_SOURCES := $(wildcard tests/soak/*.c) $(addprefix tests/support/,history.c proxy_faults.c proxy.c) \
	tests/bench/process.c tests/bench/clock.c
FUZZ_SHARED_SOURCES := $(wildcard tests/support/wire_*.c)

object = $(patsubst %.c,$(BUILD)/%.o,$(1))
KERNEL_OBJECTS := $(foreach isa,$(ISAS),\
	$(patsubst %.c,$(BUILD)/%.$(isa).o,$(KERNEL_SOURCES)))
# What the kernels are measured against: this very machine's, and loops by hand.
BENCH_KERNEL_OBJECTS := $(KERNEL_SOURCES:%.c=$(BUILD)/%.native.o) $(foreach isa,$(ISAS),\
	$(patsubst %.c,$(BUILD)/%.$(isa).o,$(BENCH_KERNEL_SOURCES)))
COMMON_OBJECTS := $(call object,$(COMMON_SOURCES)) $(KERNEL_OBJECTS) $(PROTO_OBJECTS)
SERVER_OBJECTS := $(call object,$(filter-out server/main.c,$(SERVER_SOURCES))) \
	$(STORE_PROTO_OBJECTS)
# It looks into data directories and files of logins by itself, too.
CTL_SOURCES := $(wildcard tools/optctl/*.c)
LOGIN_OBJECTS := $(call object,$(addprefix server/access/,login_list.c patterns.c role.c secret.c))
STORE_OBJECTS := $(call object,$(wildcard server/store/*.c)) $(STORE_PROTO_OBJECTS)
CLIENT_OBJECTS := $(call object,$(CLIENT_SOURCES))

COMMON_LIBRARY := $(BUILD)/libcommon.a
SERVER_LIBRARY := $(BUILD)/libserver.a
CLIENT_ARCHIVE := $(BUILD)/liboptclient.a
CLIENT_SHARED := $(BUILD)/liboptclient.so.$(VERSION)
CLIENT_LINKS := $(BUILD)/liboptclient.so.$(ABI) $(BUILD)/liboptclient.so
DAEMON := $(BUILD)/optimd
CTL := $(BUILD)/optctl
# The daemon with something behind its failpoints.
FAILING_DAEMON := $(BUILD)/tests/failing/optimd
TEST_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(TEST_SOURCES))
# (ThreadSanitizer knows no threads but the system's.)
FATES_PROGRAM := $(if $(findstring thread,$(SANITIZE)),,$(BUILD)/tests/fates/test_fates)
BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(BENCH_SOURCES))
FUZZ_PROGRAMS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SOURCES))
GOLDEN_PROGRAM := $(if $(GOLDEN_SOURCES),$(BUILD)/golden)
SOAK_PROGRAM := $(BUILD)/soak
SMALL_WORKERS := $(patsubst %.c,$(BUILD)/%,$(wildcard examples/*.c)) \
	$(patsubst %.cpp,$(BUILD)/%,$(wildcard examples/*.cpp))
PYTHON_PROTO := $(BUILD)/python/optimd_pb2.py

all: $(DAEMON) $(CTL) $(CLIENT_ARCHIVE) $(CLIENT_LINKS)
