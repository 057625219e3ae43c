# What a change must pass besides its tests.

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

lint-cppcheck: $(BUILD)/proto/store.pb-c.h
	@echo 'cppcheck'
	@cppcheck --quiet --error-exitcode=1 -j $(JOBS) --std=c11 --enable=warning,performance,portability \
		--suppressions-list=.cppcheck \
		$(OUR_CPPFLAGS) -Iclient -DOPT_KERNEL_ISA=baseline --library=posix \
		$(filter-out tests/%,$(filter %.c,$(C_FILES)))

# Which checks, and why not others, is said in .clang-tidy.
lint-tidy: $(patsubst %,$(BUILD)/tidy/%,$(filter %.c,$(C_FILES)))
$(BUILD)/tidy/%: % .clang-tidy $(filter %.h,$(C_FILES)) | $(BUILD)/proto/store.pb-c.h
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
