# From sources to objects, libraries, the daemon and the tool.

# A change of compiler or flags is a reason to compile again.
quote = '$(subst ','\'',$(1))'
FLAGS := $(call quote,$(CC) $(CPPFLAGS) $(OUR_CPPFLAGS) $(filter-out -Werror,$(OUR_CFLAGS)) $(CFLAGS) \
	$(KERNEL_CFLAGS) $(OPENMP) $(LDFLAGS))
$(BUILD)/flags: force
	@mkdir -p $(@D)
	@echo $(FLAGS) | cmp -s - $@ || echo $(FLAGS) >$@
.PHONY: force
force:

$(BUILD)/proto/%.pb-c.c $(BUILD)/proto/%.pb-c.h: proto/%.proto
	@mkdir -p $(@D)
	@command -v protoc-c >/dev/null || { echo 'protoc-c is missing: make deps' >&2; false; }
	$(call say,PROTO)
	$(Q)protoc-c --proto_path=proto --c_out=$(BUILD)/proto $<
# It includes the other one's.
$(BUILD)/proto/store.pb-c.h: $(BUILD)/proto/optimd.pb-c.h

$(PROTO_OBJECTS) $(STORE_PROTO_OBJECTS): $(BUILD)/proto/%.pb-c.o: $(BUILD)/proto/%.pb-c.c \
		$(BUILD)/proto/optimd.pb-c.h $(BUILD)/flags
	$(call say,CC)
	$(Q)$(CC) $(OUR_CPPFLAGS) $(filter-out $(WARNINGS),$(OUR_CFLAGS)) $(CFLAGS) \
		-c -o $@ $<

# Only wire*.c read the generated header, and the test of the order of its fields; and of
# the store, record*.c.
$(call object,$(wildcard common/wire*.c) tests/common/test_wire_order.c): $(BUILD)/proto/optimd.pb-c.h
$(call object,$(wildcard server/store/record*.c)): $(BUILD)/proto/store.pb-c.h

define kernel_rule
$(BUILD)/%.$(1).o: %.c $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(call say,CC)
	$$(Q)$$(CC) $$(OUR_CPPFLAGS) -DOPT_KERNEL_ISA=$(1) $$(CPPFLAGS) $$(OUR_CFLAGS) \
		$$(CFLAGS) $$(KERNEL_CFLAGS) $$(ISA_FLAGS_$(1)) $$(OPENMP) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS) native,$(eval $(call kernel_rule,$(isa))))

$(BUILD)/server/%.o: private OUR_CFLAGS += $(OPENMP)
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

$(CTL): $(call object,$(CTL_SOURCES) $(YAML_SOURCES)) $(STORE_OBJECTS) $(LOGIN_OBJECTS) $(CLIENT_OBJECTS) \
		$(COMMON_LIBRARY)
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
