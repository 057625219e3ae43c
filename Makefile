# optimd — see `make help`.

VERSION := 0.1.0
ABI := 0

# The user's.
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= cc
CFLAGS ?= -O2 -g
LDFLAGS ?=

# SANITIZE=address,undefined or SANITIZE=thread builds everything beside the plain build.
SANITIZE ?=
comma := ,
BUILD := build$(if $(SANITIZE),/sanitize-$(subst $(comma),-,$(SANITIZE)))

# ---------------------------------------------------------------- what the code needs

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wvla \
	-Wmissing-prototypes
WERROR ?=
PACKAGES := libuv libprotobuf-c libxxhash
DAEMON_PACKAGES := libcyaml
TEST_PACKAGES := criterion jansson

OUR_CPPFLAGS := -I. -I$(BUILD) -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE \
	-DOPTIMD_VERSION='"$(VERSION)"'
OUR_CFLAGS := -std=c17 $(WARNINGS) $(if $(WERROR),-Werror) -ffp-contract=off \
	-fno-math-errno -fPIC -fvisibility=hidden -fstack-protector-strong -pthread
OUR_LDFLAGS := -pthread -Wl,-z,relro,-z,now
OUR_LIBS = $(shell pkg-config --libs $(PACKAGES)) -lm
ifeq ($(SANITIZE),)
OUR_CFLAGS += -fstack-clash-protection
OUR_CPPFLAGS += $(if $(findstring -O,$(CFLAGS)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
ifeq ($(shell uname -m),x86_64)
OUR_CFLAGS += -fcf-protection
endif
else
OUR_CFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all
OUR_LDFLAGS += -fsanitize=$(SANITIZE)
endif
KERNEL_CFLAGS := -O3 -fno-trapping-math -fopenmp-simd
# ThreadSanitizer cannot see inside gcc's OpenMP runtime, so that build leaves it out.
OPENMP := $(if $(findstring thread,$(SANITIZE)),,-fopenmp)

# The kernels are compiled once per instruction set and chosen at run time.
ifeq ($(shell uname -m),x86_64)
ISAS := baseline v3 v4
ISA_FLAGS_baseline := -march=x86-64
ISA_FLAGS_v3 := -march=x86-64-v3
ISA_FLAGS_v4 := -march=x86-64-v4 -mprefer-vector-width=512
else
ISAS := baseline
endif

# ---------------------------------------------------------------- files

PROTO_OBJECTS := $(BUILD)/proto/optimd.pb-c.o
KERNEL_SOURCES := $(wildcard common/optim/kernels*.c)
COMMON_SOURCES := $(wildcard common/*.c) \
	$(filter-out $(KERNEL_SOURCES),$(wildcard common/optim/*.c))
SERVER_SOURCES := $(wildcard server/*.c server/net/*.c server/messages/*.c \
	server/engine/*.c)
CLIENT_SOURCES := $(wildcard client/*.c)
EXAMPLE_SOURCES := $(wildcard client/examples/*.c)
# A test_*.c is a program of Criterion tests; the other files of tests/ are shared by them.
TEST_SOURCES := $(wildcard tests/test_*.c tests/end_to_end/test_*.c tests/faults/test_*.c)
TEST_SHARED_SOURCES := $(filter-out tests/test_%.c,$(wildcard tests/*.c))

object = $(patsubst %.c,$(BUILD)/%.o,$(1))
KERNEL_OBJECTS := $(foreach isa,$(ISAS),\
	$(patsubst %.c,$(BUILD)/%.$(isa).o,$(KERNEL_SOURCES)))
COMMON_OBJECTS := $(call object,$(COMMON_SOURCES)) $(KERNEL_OBJECTS) $(PROTO_OBJECTS)
SERVER_OBJECTS := $(call object,$(filter-out server/main.c,$(SERVER_SOURCES)))
CLIENT_OBJECTS := $(call object,$(filter-out client/optctl.c,$(CLIENT_SOURCES)))
TEST_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(TEST_SOURCES))

COMMON_LIBRARY := $(BUILD)/libcommon.a
SERVER_LIBRARY := $(BUILD)/libserver.a
CLIENT_ARCHIVE := $(BUILD)/liboptclient.a
CLIENT_SHARED := $(BUILD)/liboptclient.so.$(VERSION)
DAEMON := $(BUILD)/optimd

.PHONY: all
all: $(DAEMON) $(CLIENT_ARCHIVE) $(CLIENT_SHARED)

# ---------------------------------------------------------------- compiling

$(BUILD)/proto/optimd.pb-c.c $(BUILD)/proto/optimd.pb-c.h &: proto/optimd.proto
	@mkdir -p $(@D)
	protoc-c --proto_path=proto --c_out=$(BUILD)/proto proto/optimd.proto

$(PROTO_OBJECTS): $(BUILD)/proto/optimd.pb-c.c
	$(CC) $(OUR_CPPFLAGS) $(filter-out $(WARNINGS),$(OUR_CFLAGS)) $(CFLAGS) -c -o $@ $<

# Only wire*.c read the generated header.
$(call object,$(wildcard common/wire*.c)): $(BUILD)/proto/optimd.pb-c.h

define kernel_rule
$(BUILD)/common/optim/%.$(1).o: common/optim/%.c
	@mkdir -p $$(@D)
	$$(CC) $$(OUR_CPPFLAGS) -DOPT_KERNEL_ISA=$(1) $$(CPPFLAGS) $$(OUR_CFLAGS) $$(CFLAGS) \
		$$(KERNEL_CFLAGS) $$(ISA_FLAGS_$(1)) $$(OPENMP) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_rule,$(isa))))

$(BUILD)/server/engine/%.o: OUR_CFLAGS += $(OPENMP)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(OUR_CPPFLAGS) $(CPPFLAGS) $(OUR_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(COMMON_LIBRARY): $(COMMON_OBJECTS)
$(SERVER_LIBRARY): $(SERVER_OBJECTS)
$(COMMON_LIBRARY) $(SERVER_LIBRARY):
	@rm -f $@
	$(AR) rcs $@ $^

$(DAEMON): $(BUILD)/server/main.o $(SERVER_LIBRARY) $(COMMON_LIBRARY)
	$(CC) $(OUR_LDFLAGS) $(OPENMP) -pie $(LDFLAGS) -o $@ $^ \
		$(shell pkg-config --libs $(DAEMON_PACKAGES)) $(OUR_LIBS)

# One object with everything but the public functions made local, so that neither form of
# the library lends its insides to the programs it is linked into.
$(BUILD)/liboptclient.o: $(CLIENT_OBJECTS) $(COMMON_LIBRARY)
	$(LD) -r -o $@ $(CLIENT_OBJECTS) $(COMMON_LIBRARY)
	$(if $(SANITIZE),,objcopy --localize-hidden $@)
$(CLIENT_ARCHIVE): $(BUILD)/liboptclient.o
	@rm -f $@
	$(AR) rcs $@ $^
$(CLIENT_SHARED): $(CLIENT_OBJECTS) $(COMMON_LIBRARY)
	$(CC) -shared -Wl,-soname,liboptclient.so.$(ABI) $(OUR_LDFLAGS) $(LDFLAGS) -o $@ $^ \
		$(OUR_LIBS)
	ln -sf $(@F) $(BUILD)/liboptclient.so.$(ABI)
	ln -sf $(@F) $(BUILD)/liboptclient.so

# ---------------------------------------------------------------- tests

$(BUILD)/tests/%.o: OUR_CFLAGS += $(OPENMP)
$(TEST_PROGRAMS): $(BUILD)/tests/%: $(BUILD)/tests/%.o \
		$(call object,$(TEST_SHARED_SOURCES)) $(SERVER_LIBRARY) $(CLIENT_OBJECTS) \
		$(COMMON_LIBRARY)
	$(CC) $(OUR_LDFLAGS) $(OPENMP) $(LDFLAGS) -o $@ $^ \
		$(shell pkg-config --libs $(DAEMON_PACKAGES) $(TEST_PACKAGES)) $(OUR_LIBS) -lz

.PHONY: clean
clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
