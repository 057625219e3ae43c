# Where things go, and how they come away again.

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
