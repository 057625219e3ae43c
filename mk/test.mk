# Programs of tests, golden runs, soak, fuzzing.

# Criterion does not start under ThreadSanitizer: a header of the same name stands in.
ifneq ($(findstring thread,$(SANITIZE)),)
$(BUILD)/tests/%.o: private OUR_CFLAGS += -isystem tests/tsan
TEST_PACKAGES := yaml-0.1
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
$(FAILING_DAEMON): $(BUILD)/server/main.o $(BUILD)/tests/failing/failing.o \
		$(SERVER_LIBRARY) $(COMMON_LIBRARY)
	$(link)
$(BUILD)/golden: $(call object,$(GOLDEN_SOURCES)) $(PARTS)
	$(link)
$(SOAK_PROGRAM): $(call object,$(SOAK_SOURCES)) $(PARTS)
	$(link)
$(BENCH_PROGRAMS): $(BUILD)/bench/%: $(BUILD)/tests/bench/%.o \
		$(call object,$(BENCH_SHARED_SOURCES)) $(BENCH_KERNEL_OBJECTS) $(PARTS)
	$(link)
$(FUZZ_PROGRAMS): OUR_LDFLAGS += -fsanitize=fuzzer
CORPUS_PROGRAMS := $(addprefix $(BUILD)/fuzz/make_,corpus spec_corpus store_corpus)
$(FUZZ_PROGRAMS) $(CORPUS_PROGRAMS): $(BUILD)/fuzz/%: $(BUILD)/tests/fuzz/%.o \
		$(call object,$(FUZZ_SHARED_SOURCES) $(YAML_SOURCES)) $(SERVER_LIBRARY) $(COMMON_LIBRARY)
	$(link)
$(BUILD)/fuzz/make_store_corpus: $(call object,tests/support/kept_model.c)

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
test-programs: all $(TEST_PROGRAMS) $(FAILING_DAEMON) $(FATES_PROGRAM) $(GOLDEN_PROGRAM) $(SOAK_PROGRAM) $(BUILD)/tables $(SMALL_WORKERS) $(PYTHON_PROTO)

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
soak: ## workers that are killed, stopped, cut off, replaced, and a daemon that is killed: SECONDS=120; SEED=N: what is random; KILL=60
	@deploy/deps build run test
	@$(submake) $(DAEMON) $(SOAK_PROGRAM)
	$(SOAK_PROGRAM) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(KILL),--kill $(KILL))

FUZZ_SECONDS ?= 60
.PHONY: fuzz fuzz-programs
fuzz: ## fuzz each parser of hostile bytes for FUZZ_SECONDS=60
	@deploy/deps build run check
	+@$(submake) SANITIZE=address,undefined,fuzzer-no-link fuzz-programs
	@tests/fuzz/run build/sanitize-address-undefined-fuzzer-no-link/fuzz $(FUZZ_SECONDS)
fuzz-programs: $(FUZZ_PROGRAMS)

.PHONY: fuzz-corpus
fuzz-corpus: $(CORPUS_PROGRAMS) ## write the inputs that fuzzing starts from anew
	@mkdir -p $(addprefix tests/fuzz/corpus/,frame spec store)
	$(BUILD)/fuzz/make_corpus tests/fuzz/corpus/frame
	$(BUILD)/fuzz/make_store_corpus tests/fuzz/corpus/store
	$(BUILD)/fuzz/make_spec_corpus tests/fuzz/corpus/spec tests/fuzz/spec.dict
