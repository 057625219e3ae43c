# The Python package. Debian's python3 is meant, which Debian's packages are for.
PYTHON ?= /usr/bin/python3
WHEELS := $(BUILD)/wheels
PYTHON_SOURCES := client/python/pyproject.toml $(wildcard client/python/src/optimd/*)

# A wheel is built in a copy, since building leaves files behind. $(1): what else to do there.
define build-wheel
	@deploy/deps python
	@rm -rf $(BUILD)/wheel-source && mkdir -p $(WHEELS) $(BUILD)/wheel-source
	@cp -R client/python/pyproject.toml client/python/src $(BUILD)/wheel-source
	@rm -rf $(BUILD)/wheel-source/src/optimd/__pycache__
	@$(1)
	$(Q)cd $(BUILD)/wheel-source && $(PYTHON) -m build --no-isolation --wheel \
		--outdir $(abspath $(WHEELS)) . >$(abspath $(BUILD))/wheel.log 2>&1 || \
		{ cat $(abspath $(BUILD))/wheel.log; false; }
	@ls $(WHEELS)/*.whl
endef

.PHONY: python
python: ## the Python package as a wheel for any machine that has liboptclient
	@rm -rf $(WHEELS)
	$(call build-wheel,:)

.PHONY: wheel
wheel: all ## the Python package with liboptclient in it, for machines like this one
	@rm -rf $(WHEELS)
	$(call build-wheel,cp $(CLIENT_SHARED) $(BUILD)/wheel-source/src/optimd/liboptclient.so.$(ABI) && \
		$(STRIP) --strip-unneeded $(BUILD)/wheel-source/src/optimd/liboptclient.so.$(ABI) && \
		printf '[bdist_wheel]\nplat_name = linux_%s\n' $$(uname -m) >$(BUILD)/wheel-source/setup.cfg)

.PHONY: bench-python
bench-python: all ## what the Python package costs over the C calls, by turns in one process
	@deploy/deps python
	@OPTIMD_BUILD=$(BUILD) $(PYTHON) client/python/tests/bench.py

.PHONY: test-python
test-python: ## the tests of the Python package alone
	@deploy/deps build run python
	+@$(submake) all
	@tests/run --build $(BUILD) $(patsubst client/python/tests/test_%.py,python_%,\
		$(wildcard client/python/tests/test_*.py)) python_is_tidy python_wheels_import
