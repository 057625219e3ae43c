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

include mk/flags.mk
include mk/files.mk
include mk/compile.mk
include mk/demo.mk
include mk/test.mk
include mk/bench.mk
include mk/check.mk
include mk/install.mk
include mk/python.mk

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
