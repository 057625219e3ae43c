# What is measured, against which peers.

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
