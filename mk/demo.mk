# Small workers, the demo and the gallery.

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
$(EXAMPLES)/demo-kill: $(EXAMPLES)/demo_kill.o $(TRAINING)
# These show all rules that there are.
$(EXAMPLES)/demo-all: $(addprefix $(EXAMPLES)/,demo_all.o demo_presets.o optimizers.o) \
		$(TRAINING) $(COMMON_LIBRARY)
GALLERY := $(addprefix $(EXAMPLES)/,gallery_presets.o gallery_surfaces.o gallery_trails.o \
		optimizers.o)
$(EXAMPLES)/gallery: $(addprefix $(EXAMPLES)/,gallery.o gallery_page.o gallery_picture.o \
		children.o cluster.o console.o drawing.o folder.o options.o) $(GALLERY) \
		$(CLIENT_ARCHIVE) $(COMMON_LIBRARY)
$(addprefix $(EXAMPLES)/,worker demo demo-all demo-local demo-kill gallery):
	$(call say,LD)
	$(Q)$(CC) $(OUR_LDFLAGS) $(LDFLAGS) -o $@ $^ $(OUR_LIBS) -lz

$(BUILD)/tests/tools/test_mlp: $(addprefix $(EXAMPLES)/,mlp.o data.o data/digits.o)
$(BUILD)/tests/tools/test_data: $(addprefix $(EXAMPLES)/,data.o data/digits.o)
$(BUILD)/tests/tools/test_report: $(EXAMPLES)/report.o
$(BUILD)/tests/tools/test_console: $(EXAMPLES)/console.o
$(BUILD)/tests/tools/test_curve: $(addprefix $(EXAMPLES)/,curve.o drawing.o children.o)
$(BUILD)/tests/tools/test_bench: $(addprefix $(BUILD)/tests/bench/,compare.o report.o page.o clock.o)
$(BUILD)/tests/end_to_end/test_demo: $(addprefix $(EXAMPLES)/,demo_presets.o optimizers.o) | $(DAEMON) \
		$(addprefix $(EXAMPLES)/,worker demo demo-all demo-local demo-kill)
$(BUILD)/tests/end_to_end/test_optctl_line: $(call object,$(filter-out %/main.c,$(CTL_SOURCES)))
$(BUILD)/tests/end_to_end/test_gallery: $(GALLERY) | $(DAEMON) $(EXAMPLES)/gallery

.PHONY: examples demo-programs
examples: $(SMALL_WORKERS) $(addprefix $(EXAMPLES)/,worker demo demo-all demo-local demo-kill gallery)
demo-programs: $(DAEMON) $(addprefix $(EXAMPLES)/,worker demo demo-all demo-local demo-kill)
	@:

WORKERS ?= 4
DATA ?= digits
K ?= 8
demo_program_sync := demo
demo_program_local := demo-local
demo_program_kill := demo-kill
demo_mode := $(or $(MODE),$(if $(KILL),kill,sync))
.PHONY: demo
demo: ## train with WORKERS=4 processes; KILL=1: kill the daemon twice; MODE=local K=8 OUTER=... DATA=fashion OPTIMIZER=... SEED= EPOCHS= FLOOR=
	$(if $(demo_program_$(demo_mode)),,$(error MODE=$(MODE): sync, local and kill are known))
	@deploy/deps build run demo $(filter fashion,$(DATA))
	+@$(submake) demo-programs
	@$(EXAMPLES)/$(demo_program_$(demo_mode)) --daemon $(DAEMON) \
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
