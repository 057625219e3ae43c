# What the code needs: packages, warnings, flags, instruction sets.

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wvla \
	-Wmissing-prototypes
WERROR ?=
PACKAGES := libuv libprotobuf-c libxxhash jansson libssl libcrypto
DAEMON_PACKAGES := libcyaml
CTL_PACKAGES := yaml-0.1
TEST_PACKAGES := criterion yaml-0.1

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
