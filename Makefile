# optimd — see `make help`.

VERSION := 0.1.0
ABI := 0

# The user's.
PREFIX ?= /usr/local
DESTDIR ?=
CFLAGS ?= -O2 -g
LDFLAGS ?=
JOBS ?= $(shell nproc)
# V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $@)

# SANITIZE=address,undefined or SANITIZE=thread builds everything beside the plain build.
SANITIZE ?=
comma := ,
BUILD := build$(if $(SANITIZE),/sanitize-$(subst $(comma),-,$(SANITIZE)))

# Sanitizers are clang's: only its OpenMP runtime tells ThreadSanitizer what it does, only
# its UndefinedBehaviorSanitizer writes to the log beside AddressSanitizer, and only it has
# a fuzzer. Every other build is the user's choice.
ifeq ($(origin CC),default)
CC := $(if $(SANITIZE),clang,cc)
endif
ifeq ($(origin CXX),default)
CXX := $(if $(SANITIZE),clang++,c++)
endif

.PHONY: all
all: ## build the daemon and both forms of the client library (the default)

# ---------------------------------------------------------------- what the code needs

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wvla \
	-Wmissing-prototypes
WERROR ?=
PACKAGES := libuv libprotobuf-c libxxhash
DAEMON_PACKAGES := libcyaml
CTL_PACKAGES := jansson yaml-0.1
TEST_PACKAGES := criterion jansson yaml-0.1

# pkg-config is asked when something is compiled, not when this file is read: it may only
# be installed by the target that is being made.
once = $(eval $(1) := $(2))$($(1))
PACKAGE_CFLAGS = $(call once,PACKAGE_CFLAGS,$(shell pkg-config --cflags \
	$(PACKAGES) $(DAEMON_PACKAGES)))
OUR_LIBS = $(call once,OUR_LIBS,$(shell pkg-config --libs $(PACKAGES)) -lm)
DAEMON_LIBS = $(call once,DAEMON_LIBS,$(shell pkg-config --libs $(DAEMON_PACKAGES)))
CTL_LIBS = $(call once,CTL_LIBS,$(shell pkg-config --libs $(CTL_PACKAGES)))
TEST_LIBS = $(call once,TEST_LIBS,$(shell pkg-config --libs $(TEST_PACKAGES)) -lz)

OUR_CPPFLAGS := -I. -I$(BUILD) -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE \
	-DOPTIMD_VERSION='"$(VERSION)"'
OUR_CFLAGS := -std=c17 $(WARNINGS) $(if $(WERROR),-Werror) -ffp-contract=off \
	-fno-math-errno -fPIC -fvisibility=hidden -fstack-protector-strong -pthread
OUR_LDFLAGS := -pthread -Wl,-z,relro,-z,now
ifeq ($(SANITIZE),)
OUR_CFLAGS += -fstack-clash-protection
OUR_CPPFLAGS += $(if $(findstring -O,$(CFLAGS)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
ifeq ($(shell uname -m),x86_64)
OUR_CFLAGS += -fcf-protection
endif
else
OUR_CFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all \
	-Wno-gnu-empty-initializer -Wno-string-conversion -Wno-pass-failed
OUR_LDFLAGS += -fsanitize=$(SANITIZE)
endif
KERNEL_CFLAGS := -O3 -fno-trapping-math -fopenmp-simd
OPENMP := -fopenmp

# The kernels are compiled once per instruction set and chosen at run time.
ifeq ($(shell uname -m),x86_64)
ISAS := baseline v3 v4
ISA_FLAGS_baseline := -march=x86-64
ISA_FLAGS_v3 := -march=x86-64-v3
ISA_FLAGS_v4 := -march=x86-64-v4 -mprefer-vector-width=512
ISA_FLAGS_native := -march=native -mprefer-vector-width=512
else
ISAS := baseline
ISA_FLAGS_native := -mcpu=native
endif

# ---------------------------------------------------------------- files

PROTO_OBJECTS := $(BUILD)/proto/optimd.pb-c.o
KERNEL_SOURCES := $(wildcard common/optim/kernels*.c)
# Only what reads files needs a reader of YAML: tools and tests, not the library.
YAML_SOURCES := common/optim/spec_yaml.c
COMMON_SOURCES := $(wildcard common/*.c) \
	$(filter-out $(KERNEL_SOURCES) $(YAML_SOURCES),$(wildcard common/optim/*.c))
SERVER_SOURCES := $(wildcard server/*.c server/net/*.c server/messages/*.c \
	server/engine/*.c)
CLIENT_SOURCES := $(wildcard client/*.c)
# A test_*.c is a program of Criterion tests; the files beside them are shared by them all.
TEST_FOLDERS := tests tests/end_to_end tests/faults
TEST_SOURCES := $(wildcard $(TEST_FOLDERS:=/test_*.c))
TEST_SHARED_SOURCES := $(filter-out $(TEST_SOURCES),$(wildcard $(TEST_FOLDERS:=/*.c)))
# One program has a world of its own in place of the system's threads, clock and sockets.
FATES_SOURCES := $(wildcard tests/fates/*.c)
FATES_WRAPS := letter_data clock_gettime getrandom poll read close ioctl socket connect \
	getsockopt setsockopt getpeername sendmsg recvmsg epoll_create1 epoll_ctl eventfd \
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
GOLDEN_SOURCES := $(wildcard tests/golden/*.c) tests/golden_cases.c tests/bench/process.c \
	tests/bench/clock.c
SOAK_SOURCES := $(wildcard tests/soak/*.c) $(addprefix tests/,history.c lane.c proxy.c) \
	tests/bench/process.c tests/bench/clock.c
FUZZ_SHARED_SOURCES := $(wildcard tests/wire_*.c)

object = $(patsubst %.c,$(BUILD)/%.o,$(1))
KERNEL_OBJECTS := $(foreach isa,$(ISAS),\
	$(patsubst %.c,$(BUILD)/%.$(isa).o,$(KERNEL_SOURCES)))
# What the kernels are measured against: this very machine's, and loops by hand.
BENCH_KERNEL_OBJECTS := $(KERNEL_SOURCES:%.c=$(BUILD)/%.native.o) $(foreach isa,$(ISAS),\
	$(patsubst %.c,$(BUILD)/%.$(isa).o,$(BENCH_KERNEL_SOURCES)))
COMMON_OBJECTS := $(call object,$(COMMON_SOURCES)) $(KERNEL_OBJECTS) $(PROTO_OBJECTS)
SERVER_OBJECTS := $(call object,$(filter-out server/main.c,$(SERVER_SOURCES)))
CTL_SOURCES := $(wildcard tools/optctl/*.c)
CLIENT_OBJECTS := $(call object,$(CLIENT_SOURCES))

COMMON_LIBRARY := $(BUILD)/libcommon.a
SERVER_LIBRARY := $(BUILD)/libserver.a
CLIENT_ARCHIVE := $(BUILD)/liboptclient.a
CLIENT_SHARED := $(BUILD)/liboptclient.so.$(VERSION)
CLIENT_LINKS := $(BUILD)/liboptclient.so.$(ABI) $(BUILD)/liboptclient.so
DAEMON := $(BUILD)/optimd
CTL := $(BUILD)/optctl
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

# ---------------------------------------------------------------- compiling

# A change of compiler or flags is a reason to compile again.
quote = '$(subst ','\'',$(1))'
FLAGS := $(call quote,$(CC) $(CPPFLAGS) $(OUR_CPPFLAGS) $(filter-out -Werror,$(OUR_CFLAGS)) $(CFLAGS) \
	$(KERNEL_CFLAGS) $(OPENMP) $(LDFLAGS))
$(BUILD)/flags: force
	@mkdir -p $(@D)
	@echo $(FLAGS) | cmp -s - $@ || echo $(FLAGS) >$@
.PHONY: force
force:

$(BUILD)/proto/optimd.pb-c.c $(BUILD)/proto/optimd.pb-c.h &: proto/optimd.proto
	@mkdir -p $(@D)
	@command -v protoc-c >/dev/null || { echo 'protoc-c is missing: make deps' >&2; false; }
	$(call say,PROTO)
	$(Q)protoc-c --proto_path=proto --c_out=$(BUILD)/proto $<

$(PROTO_OBJECTS): $(BUILD)/proto/optimd.pb-c.c $(BUILD)/flags
	$(call say,CC)
	$(Q)$(CC) $(OUR_CPPFLAGS) $(filter-out $(WARNINGS),$(OUR_CFLAGS)) $(CFLAGS) \
		-c -o $@ $<

# Only wire*.c read the generated header, and the test of the order of its fields.
$(call object,$(wildcard common/wire*.c) tests/test_wire_order.c): $(BUILD)/proto/optimd.pb-c.h

define kernel_rule
$(BUILD)/%.$(1).o: %.c $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(call say,CC)
	$$(Q)$$(CC) $$(OUR_CPPFLAGS) -DOPT_KERNEL_ISA=$(1) $$(CPPFLAGS) $$(OUR_CFLAGS) \
		$$(CFLAGS) $$(KERNEL_CFLAGS) $$(ISA_FLAGS_$(1)) $$(OPENMP) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS) native,$(eval $(call kernel_rule,$(isa))))

$(BUILD)/server/engine/%.o: private OUR_CFLAGS += $(OPENMP)
$(BUILD)/tests/%.o: private OUR_CFLAGS += $(OPENMP)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(OUR_CPPFLAGS) $(CPPFLAGS) $(OUR_CFLAGS) $(PACKAGE_CFLAGS) $(CFLAGS) \
		-MMD -MP -c -o $@ $<

$(COMMON_LIBRARY): $(COMMON_OBJECTS)
$(SERVER_LIBRARY): $(SERVER_OBJECTS)
$(COMMON_LIBRARY) $(SERVER_LIBRARY):
	@rm -f $@
	$(call say,AR)
	$(Q)$(AR) rcs $@ $^

$(DAEMON): $(BUILD)/server/main.o $(SERVER_LIBRARY) $(COMMON_LIBRARY)
	$(call say,LD)
	$(Q)$(CC) $(OUR_LDFLAGS) $(OPENMP) -pie $(LDFLAGS) -o $@ $^ $(DAEMON_LIBS) $(OUR_LIBS)

$(CTL): $(call object,$(CTL_SOURCES) $(YAML_SOURCES)) $(CLIENT_OBJECTS) $(COMMON_LIBRARY)
	$(call say,LD)
	$(Q)$(CC) $(OUR_LDFLAGS) -pie $(LDFLAGS) -o $@ $^ $(CTL_LIBS) $(OUR_LIBS)

# One object with everything but the public functions made local, so that neither form of
# the library lends its insides to the programs it is linked into.
$(BUILD)/liboptclient.o: $(CLIENT_OBJECTS) $(COMMON_LIBRARY)
	$(call say,LD)
	$(Q)$(LD) -r -o $@ $^
	$(if $(SANITIZE),,$(Q)objcopy --localize-hidden $@)
$(CLIENT_ARCHIVE): $(BUILD)/liboptclient.o
	@rm -f $@
	$(call say,AR)
	$(Q)$(AR) rcs $@ $^
# Nobody unloads it: a thread that looks up a name for a client that has been closed may
# still be in it.
$(CLIENT_SHARED): $(CLIENT_OBJECTS) $(COMMON_LIBRARY)
	$(call say,LD)
	$(Q)$(CC) -shared -Wl,-soname,liboptclient.so.$(ABI) -Wl,-z,nodelete $(OUR_LDFLAGS) \
		$(LDFLAGS) -o $@ $^ $(OUR_LIBS)
$(CLIENT_LINKS): $(CLIENT_SHARED)
	@ln -sf $(<F) $@

# ---------------------------------------------------------------- examples and demo

EXAMPLES := $(BUILD)/client/examples
$(EXAMPLES)/%.o: private OUR_CPPFLAGS += -Iclient
# Its tiles fit the registers only if their loops are unrolled.
$(EXAMPLES)/mlp.o: private CFLAGS += -O3

# Small workers, each one file that needs nothing but the library.
$(BUILD)/examples/%.o: private OUR_CPPFLAGS += -Iclient
$(BUILD)/examples/%.o: examples/%.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX)
	$(Q)$(CXX) -std=c++17 -Wall -Wextra $(if $(WERROR),-Werror) -Iclient \
		$(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(CXXFLAGS) -MMD -MP -c -o $@ $<
$(SMALL_WORKERS): $(BUILD)/%: $(BUILD)/%.o $(CLIENT_ARCHIVE)
	$(call say,LD)
	$(Q)$(CXX) $(OUR_LDFLAGS) $(LDFLAGS) -o $@ $^ $(OUR_LIBS)

# The digits are part of the program, so that it alone is enough.
$(EXAMPLES)/data/digits.o: client/examples/data/digits.csv.gz
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(LD) -r -b binary -z noexecstack -o $@ $<
	$(Q)objcopy --rename-section .data=.rodata,alloc,load,readonly,data,contents $@

$(EXAMPLES)/worker: $(addprefix $(EXAMPLES)/,worker.o worker_local.o worker_task.o data.o \
		data/digits.o mlp.o options.o report.o) $(CLIENT_ARCHIVE)
TRAINING := $(addprefix $(EXAMPLES)/,training.o children.o cluster.o console.o curve.o \
		drawing.o folder.o options.o report.o)
$(EXAMPLES)/demo: $(EXAMPLES)/demo.o $(TRAINING)
$(EXAMPLES)/demo-local: $(EXAMPLES)/demo_local.o $(TRAINING)
# These show all rules that there are.
$(EXAMPLES)/demo-all: $(addprefix $(EXAMPLES)/,demo_all.o demo_presets.o optimizers.o) \
		$(TRAINING) $(COMMON_LIBRARY)
GALLERY := $(addprefix $(EXAMPLES)/,gallery_presets.o gallery_surfaces.o gallery_trails.o \
		optimizers.o)
$(EXAMPLES)/gallery: $(addprefix $(EXAMPLES)/,gallery.o gallery_page.o gallery_picture.o \
		children.o cluster.o console.o drawing.o folder.o options.o) $(GALLERY) \
		$(CLIENT_ARCHIVE) $(COMMON_LIBRARY)
$(addprefix $(EXAMPLES)/,worker demo demo-all demo-local gallery):
	$(call say,LD)
	$(Q)$(CC) $(OUR_LDFLAGS) $(LDFLAGS) -o $@ $^ $(OUR_LIBS) -lz

$(BUILD)/tests/test_mlp: $(addprefix $(EXAMPLES)/,mlp.o data.o data/digits.o)
$(BUILD)/tests/test_data: $(addprefix $(EXAMPLES)/,data.o data/digits.o)
$(BUILD)/tests/test_report: $(EXAMPLES)/report.o
$(BUILD)/tests/test_console: $(EXAMPLES)/console.o
$(BUILD)/tests/test_curve: $(addprefix $(EXAMPLES)/,curve.o drawing.o children.o)
$(BUILD)/tests/test_bench: $(addprefix $(BUILD)/tests/bench/,compare.o report.o page.o clock.o)
$(BUILD)/tests/end_to_end/test_demo: $(addprefix $(EXAMPLES)/,demo_presets.o optimizers.o) | $(DAEMON) \
		$(addprefix $(EXAMPLES)/,worker demo demo-all demo-local)
$(BUILD)/tests/end_to_end/test_optctl_line: $(call object,$(filter-out %/main.c,$(CTL_SOURCES)))
$(BUILD)/tests/end_to_end/test_gallery: $(GALLERY) | $(DAEMON) $(EXAMPLES)/gallery

.PHONY: examples demo-programs
examples: $(SMALL_WORKERS) $(addprefix $(EXAMPLES)/,worker demo demo-all demo-local gallery)
demo-programs: $(DAEMON) $(addprefix $(EXAMPLES)/,worker demo demo-all demo-local)
	@:

WORKERS ?= 4
DATA ?= digits
K ?= 8
demo_program_sync := demo
demo_program_local := demo-local
.PHONY: demo
demo: ## train with WORKERS=4 processes; MODE=local K=8 OUTER=... DATA=fashion OPTIMIZER=... SEED= EPOCHS= FLOOR=
	$(if $(demo_program_$(or $(MODE),sync)),,$(error MODE=$(MODE): sync and local are known))
	@deploy/deps build run demo $(filter fashion,$(DATA))
	+@$(submake) demo-programs
	@$(EXAMPLES)/$(demo_program_$(or $(MODE),sync)) --daemon $(DAEMON) \
		--worker $(EXAMPLES)/worker --out $(BUILD)/demo --workers $(WORKERS) --data $(DATA) \
		$(if $(OPTIMIZER),--optimizer $(call quote,$(OPTIMIZER))) \
		$(if $(SEED),--seed $(SEED)) $(if $(EPOCHS),--epochs $(EPOCHS)) \
		$(if $(BATCH),--batch $(BATCH)) $(if $(FLOOR),--floor $(FLOOR)) \
		$(if $(filter local,$(MODE)),--local $(K) $(if $(OUTER),--outer $(call quote,$(OUTER))))

.PHONY: demo-all
demo-all: ## the digits with every optimizer, as one table; SEED= FLOOR=
	@deploy/deps build run
	@$(submake) demo-programs
	@$(EXAMPLES)/demo-all --daemon $(DAEMON) --worker $(EXAMPLES)/worker --out $(BUILD)/demo \
		$(if $(SEED),--seed $(SEED)) $(if $(FLOOR),--floor $(FLOOR))

.PHONY: gallery
gallery: ## every optimizer on three surfaces: moving pictures in build/gallery
	@deploy/deps build run demo
	@$(submake) $(DAEMON) $(EXAMPLES)/gallery
	@$(EXAMPLES)/gallery --daemon $(DAEMON) --script client/examples/gallery.gp \
		--out $(BUILD)/gallery

.PHONY: readme-picture
readme-picture: gallery ## draw the picture at the top of README.md anew: docs/gallery.gif and docs/gallery.png
	cp $(BUILD)/gallery/saddle-overview.gif docs/gallery.gif
	cp $(BUILD)/gallery/saddle-overview.png docs/gallery.png

# ---------------------------------------------------------------- tests

# Criterion does not start under ThreadSanitizer: a header of the same name stands in.
ifneq ($(findstring thread,$(SANITIZE)),)
$(BUILD)/tests/%.o: private OUR_CFLAGS += -isystem tests/tsan
TEST_PACKAGES := jansson yaml-0.1
endif

# A program may be made of everything of ours, besides its own sources.
PARTS := $(call object,$(YAML_SOURCES)) $(SERVER_LIBRARY) $(CLIENT_OBJECTS) \
	$(COMMON_LIBRARY)
define link
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(OUR_LDFLAGS) $(OPENMP) $(LDFLAGS) -o $@ $(filter %.o,$^) \
		$(filter-out %.o,$^) $(DAEMON_LIBS) $(TEST_LIBS) $(OUR_LIBS)
endef

$(TEST_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $(call object,$(TEST_SHARED_SOURCES)) $(PARTS)
	$(link)
$(BUILD)/tests/fates/test_fates: private OUR_LDFLAGS += $(FATES_WRAPS:%=-Wl,--wrap=%)
$(BUILD)/tests/fates/test_fates: $(call object,$(FATES_SOURCES)) $(PARTS)
	$(link)
$(BUILD)/golden: $(call object,$(GOLDEN_SOURCES)) $(PARTS)
	$(link)
$(SOAK_PROGRAM): $(call object,$(SOAK_SOURCES)) $(PARTS)
	$(link)
$(BENCH_PROGRAMS): $(BUILD)/bench/%: $(BUILD)/tests/bench/%.o \
		$(call object,$(BENCH_SHARED_SOURCES)) $(BENCH_KERNEL_OBJECTS) $(PARTS)
	$(link)
$(FUZZ_PROGRAMS): OUR_LDFLAGS += -fsanitize=fuzzer
CORPUS_PROGRAMS := $(BUILD)/fuzz/make_corpus $(BUILD)/fuzz/make_spec_corpus
$(FUZZ_PROGRAMS) $(CORPUS_PROGRAMS): $(BUILD)/fuzz/%: $(BUILD)/tests/fuzz/%.o \
		$(call object,$(FUZZ_SHARED_SOURCES) $(YAML_SOURCES)) $(COMMON_LIBRARY)
	$(link)

# Writes the tables of rules and options into the files that have them.
$(BUILD)/tables: $(BUILD)/deploy/tables.o $(COMMON_LIBRARY)
	$(call say,LD)
	$(Q)$(CC) $(OUR_LDFLAGS) $(LDFLAGS) -o $@ $^ $(OUR_LIBS)

$(PYTHON_PROTO): proto/optimd.proto
	@mkdir -p $(@D)
	$(call say,PROTO)
	$(Q)protoc --proto_path=proto --python_out=$(@D) $<

# A make below this one, with as many jobs as there are cores unless told otherwise.
submake = $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: test
test: ## build and run every test; TESTS="frame wire": only these; SANITIZE=...: under it
	@deploy/deps build run test $(if $(SANITIZE),check)
	+@$(submake) test-programs
	@tests/run --build $(BUILD) --sanitize '$(SANITIZE)' $(TESTS)

.PHONY: test-programs
test-programs: all $(TEST_PROGRAMS) $(FATES_PROGRAM) $(GOLDEN_PROGRAM) $(SOAK_PROGRAM) $(BUILD)/tables $(SMALL_WORKERS) $(PYTHON_PROTO)

.PHONY: tables
tables: ## write the tables of rules and options into docs/optimizers.md and the manual
	+@$(submake) $(BUILD)/tables
	$(BUILD)/tables docs/optimizers.md server/optimd-optimizers.7

.PHONY: golden
golden: ## meet the golden trajectories; GOLDEN=DIR: those of another folder
	@deploy/deps build run test
	+@$(submake) $(DAEMON) $(BUILD)/golden
	$(BUILD)/golden $(or $(GOLDEN),--every-rule)

.PHONY: soak
soak: ## workers that are killed and cut off for SECONDS=120; SEED=N: what is random
	@deploy/deps build run test
	@$(submake) $(DAEMON) $(SOAK_PROGRAM)
	$(SOAK_PROGRAM) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

# Peers that Debian does not have are made of our drivers and a checkout that the user
# names; what is compiled of theirs goes to the build folder and nowhere else.
PS_LITE ?=
DEEPSPEED ?=
CXX_PEER := $(CXX) -O3 -march=native -fopenmp -w -pthread -I. -I$(BUILD)
checkout_version = $(shell git -C $(1) rev-parse --short=12 HEAD 2>/dev/null || echo of unknown commit)
ifneq ($(DEEPSPEED),)
PEER_PROGRAMS += $(BUILD)/bench/deepspeed
PEER_OPTIONS += --deepspeed $(BUILD)/bench/deepspeed
endif
ifneq ($(PS_LITE),)
PEER_PROGRAMS += $(BUILD)/bench/ps_lite
PEER_OPTIONS += --ps-lite $(BUILD)/bench/ps_lite
endif

# Other checkouts are a reason to compile again.
CHECKOUTS = $(foreach checkout,$(PS_LITE) $(DEEPSPEED),$(checkout) \
	$(call checkout_version,$(checkout)))
$(BUILD)/bench/checkouts: force
	@mkdir -p $(@D)
	@echo $(CHECKOUTS) | cmp -s - $@ || echo $(CHECKOUTS) >$@

# With the widest vectors there are, as its own build chooses them.
$(BUILD)/bench/deepspeed: tests/bench/peers/deepspeed.cpp \
		tests/bench/peers/torch/extension.h $(BUILD)/bench/checkouts
	$(call say,CXX)
	$(Q)$(CXX_PEER) -std=c++17 -D$$($(CXX) -march=native -dM -E -x c++ /dev/null | \
		grep -q __AVX512F__ && echo __AVX512__ || echo __AVX256__) \
		-DDEEPSPEED_VERSION='"$(shell cat $(DEEPSPEED)/version.txt), commit $(call checkout_version,$(DEEPSPEED))"' \
		-Itests/bench/peers -I$(DEEPSPEED)/csrc/includes -I$(DEEPSPEED)/csrc -o $@ $<

# Its library with the flags of its own Makefile.
PS_LITE_BUILD := $(BUILD)/bench/ps_lite_objects
$(BUILD)/bench/ps_lite: tests/bench/peers/ps_lite.cpp tests/bench/peers/adam.h \
		$(call object,$(BENCH_PEER_SOURCES) tests/bench/memory.c tests/bench/clock.c) \
		$(COMMON_LIBRARY) $(BUILD)/bench/checkouts
	$(call say,CXX)
	$(Q)mkdir -p $(PS_LITE_BUILD)
	$(Q)protoc --proto_path=$(PS_LITE)/src --cpp_out=$(PS_LITE_BUILD) $(PS_LITE)/src/meta.proto
	$(Q)for source in $(addprefix $(PS_LITE)/src/,customer.cc postoffice.cc van.cc) \
			$(PS_LITE_BUILD)/meta.pb.cc; do \
		$(CXX) -std=c++11 -msse2 -O3 -finline-functions -fPIC -w -pthread \
			-I$(PS_LITE_BUILD) -I$(PS_LITE)/src -I$(PS_LITE)/include -c $$source \
			-o $(PS_LITE_BUILD)/$$(basename $$source .cc).o || exit; \
	done
	$(Q)$(CXX_PEER) -std=c++17 -isystem $(PS_LITE)/include \
		-DPS_LITE_VERSION='"commit $(call checkout_version,$(PS_LITE))"' \
		-o $@ $< $(addprefix $(PS_LITE_BUILD)/,customer.o postoffice.o van.o meta.pb.o) \
		$(filter %.o %.a,$^) -lzmq -lprotobuf $(OUR_LIBS)

.PHONY: bench
bench: ## measure, against the machine's limits and peers, and write tests/bench/RESULTS.md; QUICK=1: in a minute; ONLY="scale latency"; PS_LITE=DIR DEEPSPEED=DIR: their checkouts
	@deploy/deps build run test
	+@$(submake) $(DAEMON) $(BENCH_PROGRAMS) $(PEER_PROGRAMS)
	@$(BUILD)/bench/bench_optimd --daemon $(DAEMON) $(if $(QUICK),--quick) \
		$(PEER_OPTIONS) \
		$(addprefix --only ,$(ONLY)) --json $(BUILD)/bench/results.json \
		$(if $(QUICK)$(ONLY),,--page tests/bench/RESULTS.md) --curves $(BUILD)/bench
	@$(if $(QUICK)$(ONLY),,command -v gnuplot >/dev/null || exit 0; gnuplot -e \
		"data='$(BUILD)/bench'; picture='tests/bench/results.svg'" tests/bench/results.gp)

.PHONY: profile
profile: ## where a step's time goes in the daemon, with one worker and with two
	@deploy/deps build run test
	+@$(submake) $(DAEMON) $(BUILD)/bench/bench_profile
	@$(BUILD)/bench/bench_profile --daemon $(DAEMON)

FUZZ_SECONDS ?= 60
.PHONY: fuzz fuzz-programs
fuzz: ## fuzz each parser of hostile bytes for FUZZ_SECONDS=60
	@deploy/deps build run check
	+@$(submake) SANITIZE=address,undefined,fuzzer-no-link fuzz-programs
	@tests/fuzz/run build/sanitize-address-undefined-fuzzer-no-link/fuzz $(FUZZ_SECONDS)
fuzz-programs: $(FUZZ_PROGRAMS)

.PHONY: fuzz-corpus
fuzz-corpus: $(CORPUS_PROGRAMS) ## write the inputs that fuzzing starts from anew
	@mkdir -p tests/fuzz/corpus/frame tests/fuzz/corpus/spec
	$(BUILD)/fuzz/make_corpus tests/fuzz/corpus/frame
	$(BUILD)/fuzz/make_spec_corpus tests/fuzz/corpus/spec tests/fuzz/spec.dict

# ---------------------------------------------------------------- checks

.PHONY: check
check: ## everything that must hold before a change lands: lint, tests, sanitizers
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory sanitize
	@$(MAKE) --no-print-directory sanitize-thread
	@$(MAKE) --no-print-directory test WERROR=1

.PHONY: sanitize sanitize-thread
sanitize: ## every test under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory SANITIZE=address,undefined test
sanitize-thread: ## every test under ThreadSanitizer
	@$(MAKE) --no-print-directory SANITIZE=thread test

C_FILES = $(shell find client common deploy examples server tests tools -name '*.[ch]' | sort)
SHELL_FILES = $(shell grep -rlE --exclude='*.[ch]' '^\#!/(usr/)?bin/(env )?(ba)?sh' .ci deploy \
	tests client | sort)
MANUALS = $(wildcard tools/optctl/*.1 client/*.3 server/*.7 server/*.8)

.PHONY: lint lint-format lint-cppcheck lint-tidy lint-shell lint-manuals lint-circles
lint: ## formatting, static analysis, shell scripts, manuals
	@deploy/deps build test check
	+@$(submake) --keep-going --output-sync lint-format lint-cppcheck lint-tidy lint-shell \
		lint-manuals lint-circles

lint-format:
	@echo 'clang-format'
	@clang-format --dry-run -Werror $(C_FILES)

lint-cppcheck: $(BUILD)/proto/optimd.pb-c.h
	@echo 'cppcheck'
	@cppcheck --quiet --error-exitcode=1 -j $(JOBS) --std=c11 --enable=warning,performance,portability \
		--suppressions-list=.cppcheck \
		$(OUR_CPPFLAGS) -Iclient -DOPT_KERNEL_ISA=baseline --library=posix \
		$(filter-out tests/%,$(filter %.c,$(C_FILES)))

# Which checks, and why not others, is said in .clang-tidy.
lint-tidy: $(patsubst %,$(BUILD)/tidy/%,$(filter %.c,$(C_FILES)))
$(BUILD)/tidy/%: % .clang-tidy $(filter %.h,$(C_FILES)) | $(BUILD)/proto/optimd.pb-c.h
	@mkdir -p $(@D)
	@echo 'clang-tidy $<'
	@clang-tidy --quiet $< -- $(OUR_CPPFLAGS) -Iclient -DOPT_KERNEL_ISA=baseline -std=c17 -fopenmp \
		2>$@.log || { cat $@.log; false; }
	@touch $@

lint-shell:
	@echo 'shellcheck'
	@shellcheck $(SHELL_FILES)

# No room may be read only from a room that is read from it.
lint-circles: $(DAEMON) $(CTL) $(CLIENT_ARCHIVE)
	@echo 'circles'
	@tests/lint/circles --build $(BUILD)

lint-manuals:
	@echo 'mandoc'
	@$(if $(MANUALS),mandoc -T lint -W warning $(MANUALS))

.PHONY: format
format: ## lay out all C files as .clang-format says
	@deploy/deps check
	clang-format -i $(C_FILES)

# ---------------------------------------------------------------- installing

BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
SYSCONFDIR ?= $(if $(filter /usr,$(PREFIX)),/etc,$(PREFIX)/etc)
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
INSTALL ?= install
STRIP ?= strip

# What static linking takes. Debian's archive of libuv has a package of its own.
STATIC_PACKAGES = $(call once,STATIC_PACKAGES,$(shell pkg-config --exists libuv-static && \
	echo $(PACKAGES:libuv=libuv-static) || echo $(PACKAGES)))

# Where the files with @NAMES@ in them say things are.
substitute = sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@ABI@|$(ABI)|g' \
	-e 's|@PREFIX@|$(PREFIX)|g' -e 's|@BINDIR@|$(BINDIR)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' \
	-e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' -e 's|@DATADIR@|$(DATADIR)|g' \
	-e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' -e 's|@STATIC_PACKAGES@|$(STATIC_PACKAGES)|g' \
	-e "s|@STATIC_LIBS@|$$(pkg-config --static --libs $(STATIC_PACKAGES) | xargs | tr ' ' ';')|g" \
	-e "s|@INCLUDE_FROM_LIB@|$$(realpath -m --relative-to=$(LIBDIR) $(INCLUDEDIR))|g"

# What goes where: mode,from,to as it is; from,to with its @NAMES@ filled in; and what
# optctl says of itself, shell,to.
AS_IT_IS = 755,$(DAEMON),$(BINDIR)/optimd 755,$(CTL),$(BINDIR)/optctl \
	644,$(CLIENT_ARCHIVE),$(LIBDIR)/$(notdir $(CLIENT_ARCHIVE)) \
	644,$(CLIENT_SHARED),$(LIBDIR)/$(notdir $(CLIENT_SHARED)) \
	644,client/optclient.h,$(INCLUDEDIR)/optclient.h \
	644,proto/optimd.proto,$(DATADIR)/optimd/optimd.proto \
	644,deploy/optimd.sysusers,$(SYSUSERSDIR)/optimd.conf \
	$(foreach page,$(MANUALS),644,$(page),$(MANDIR)/man$(patsubst .%,%,$(suffix $(page)))/$(notdir $(page)))
FILLED_IN = client/optclient.pc.in,$(LIBDIR)/pkgconfig/optclient.pc \
	client/optclient-config.cmake.in,$(LIBDIR)/cmake/optclient/optclient-config.cmake \
	client/optclient-config-version.cmake.in,$(LIBDIR)/cmake/optclient/optclient-config-version.cmake \
	deploy/optimd.service,$(UNITDIR)/optimd.service
COMPLETIONS = bash,$(DATADIR)/bash-completion/completions/optctl \
	zsh,$(DATADIR)/zsh/site-functions/_optctl
CONFIGURATION = $(SYSCONFDIR)/optimd/optimd.yaml
# Each public function has a page: optclient(3) by its name.
FUNCTION_PAGES = $(call once,FUNCTION_PAGES,$(shell sed -n '/^OPTCLIENT_API/,/;/p' client/optclient.h | \
	grep -oP 'optclient_\w+(?=\x28)' | sort -u))

part = $(word $(1),$(subst $(comma), ,$(2)))
put = $(INSTALL) -D -m $(1) $(2) $(DESTDIR)$(3)

.PHONY: install
install: all ## install under PREFIX=/usr/local, staged under DESTDIR
	$(foreach f,$(AS_IT_IS),$(call put,$(call part,1,$f),$(call part,2,$f),$(call part,3,$f)) &&) :
	$(foreach f,$(FILLED_IN),$(substitute) $(call part,1,$f) | \
		$(call put,644,/dev/stdin,$(call part,2,$f)) &&) :
	$(foreach f,$(COMPLETIONS),$(CTL) completion $(call part,1,$f) | \
		$(call put,644,/dev/stdin,$(call part,2,$f)) &&) :
	@echo 'the pages of $(words $(FUNCTION_PAGES)) functions to $(DESTDIR)$(MANDIR)/man3'
	@$(foreach f,$(FUNCTION_PAGES),echo .so man3/optclient.3 | \
		$(call put,644,/dev/stdin,$(MANDIR)/man3/$f.3) &&) :
	cp -P $(CLIENT_LINKS) $(DESTDIR)$(LIBDIR)
	test -e $(DESTDIR)$(CONFIGURATION) || $(call put,644,deploy/optimd.yaml,$(CONFIGURATION))
	@$(if $(DESTDIR),,deploy/after-install $(LIBDIR) $(UNITDIR))

.PHONY: install-strip
install-strip: install ## the same, without the symbols that debuggers want
	$(STRIP) $(addprefix $(DESTDIR)$(BINDIR)/,optimd optctl)
	$(STRIP) --strip-unneeded $(DESTDIR)$(LIBDIR)/$(notdir $(CLIENT_SHARED))
	$(STRIP) --strip-debug $(DESTDIR)$(LIBDIR)/$(notdir $(CLIENT_ARCHIVE))

.PHONY: uninstall
uninstall: ## remove what install put there, but not a configuration that was changed
	@echo 'what was installed under $(DESTDIR)$(PREFIX) is removed'
	@rm -f $(foreach f,$(AS_IT_IS),$(DESTDIR)$(call part,3,$f)) \
		$(foreach f,$(FILLED_IN) $(COMPLETIONS),$(DESTDIR)$(call part,2,$f)) \
		$(addprefix $(DESTDIR)$(LIBDIR)/,$(notdir $(CLIENT_LINKS))) \
		$(FUNCTION_PAGES:%=$(DESTDIR)$(MANDIR)/man3/%.3)
	@if cmp -s deploy/optimd.yaml $(DESTDIR)$(CONFIGURATION); then rm $(DESTDIR)$(CONFIGURATION); fi
	@rmdir $(addprefix $(DESTDIR),$(SYSCONFDIR)/optimd $(DATADIR)/optimd \
		$(LIBDIR)/cmake/optclient) 2>/dev/null || :

# ---------------------------------------------------------------- all the rest

GROUPS ?= build run demo test check
.PHONY: deps
deps: ## install what is missing of the Debian packages needed; GROUPS="build test"
	@deploy/deps $(GROUPS)

.PHONY: compose-demo
compose-demo: ## the demo in containers: one daemon, three workers, nothing published
	@deploy/compose-demo

.PHONY: clean
clean: ## remove everything that was built
	rm -rf build

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | sort | \
		while IFS='	' read -r target text; do printf '%-16s %s\n' "$$target" "$$text"; done

-include $(shell find $(BUILD) -path '$(BUILD)/sanitize-*' -prune -o -name '*.d' -print \
	2>/dev/null)
