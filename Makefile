# mailmill: `make demo` shows it at work, `make test` proves it; both install what is missing on a Debian 12.

PREFIX  ?= /usr/local
DESTDIR ?=
BUILD   ?= build
CC      ?= gcc
PKG     := lua5.4 openssl sqlite3 libarchive libpcre2-8 libgsasl gumbo

SANITIZE ?=
OPT      ?= -O2 -g
VERSION  := 0.1.0

WARN   := -std=c11 -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
          -Wvla -Wformat=2 -Wundef -Wwrite-strings -Wno-unused-parameter
HARDEN := -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE -fno-plt -fno-strict-aliasing
ifeq ($(SANITIZE),)
HARDEN += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
else
HARDEN += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=undefined
endif
CPPFLAGS += -I. -I$(BUILD) -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DMAILMILL_VERSION='"$(VERSION)"' \
            -DMAILMILL_SHARE='"$(PREFIX)/share/mailmill"'
PKGFLAGS  = $(shell pkg-config --cflags $(PKG) 2>/dev/null)
PKGLIBS   = $(shell pkg-config --libs $(PKG) 2>/dev/null) -lmagic
CFLAGS   += $(OPT) $(WARN) $(HARDEN)
LDFLAGS  += -pie -Wl,-z,relro,-z,now,-z,noexecstack $(if $(SANITIZE),-fsanitize=$(SANITIZE))
LIBS      = $(PKGLIBS) -lpthread -lm

CORE := $(sort $(wildcard core/*.c))
LUA  := $(sort $(wildcard lua/*.c))
MODS := $(sort $(wildcard lua/mail/*.lua))
obj   = $(patsubst %.c,$(BUILD)/%.o,$(1))

# Unit tests: each tests/unit/NAME.c is one program linked with the core library alone.
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))

.PHONY: all
all: $(BUILD)/mailmill $(BUILD)/mailmill.1

# The library modules in Lua, built in.
$(BUILD)/embedded.c: lua/embed.lua $(MODS) $(BUILD)/api.lua
	@mkdir -p $(@D)
	lua5.4 lua/embed.lua $@ $(MODS) $(BUILD)/api.lua

# The names that `mailmill check` knows, from the documentation of the bindings; and the man page.
$(BUILD)/api.lua: lua/doc.lua $(LUA) $(MODS)
	@mkdir -p $(@D)
	lua5.4 lua/doc.lua api $@

$(BUILD)/mailmill.1: lua/doc.lua lua/README.md lua/options.c lua/main.c Makefile
	@mkdir -p $(@D)
	lua5.4 lua/doc.lua man $@

$(BUILD)/embedded.o: $(BUILD)/embedded.c
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/mailmill: $(call obj,$(LUA)) $(BUILD)/embedded.o $(BUILD)/libcore.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libcore.a: $(call obj,$(CORE))
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $< $(BUILD)/libcore.a $(LIBS)

$(BUILD)/tools/%: tests/tools/%.c $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $< $(BUILD)/libcore.a $(LIBS)

# One unit test by name: make unit-base64
unit-%: $(BUILD)/unit/test_%
	$<

.PHONY: unit units
units: $(UNIT)
unit: $(UNIT)
	@for t in $(UNIT); do echo "# $$t"; $$t || exit 1; done

# ---- what a user types ----

# Debian 12 packages: to build and run; and what the tests and the figures need beside that.
PACKAGES := gcc libc6-dev make pkg-config lua5.4 liblua5.4-dev libssl-dev libsqlite3-dev libmagic-dev libarchive-dev libpcre2-dev \
            libgsasl-dev libgumbo-dev ca-certificates openssl
PACKAGES_TEST  := $(PACKAGES) clang python3 dovecot-core dovecot-pop3d postfix strace procps mandoc valgrind clang-tidy cppcheck xz-utils bzip2 zstd zip xfsprogs libgmime-3.0-dev
PACKAGES_BENCH := $(PACKAGES_TEST) mpop fdm ripmime mpack mblaze time

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# $(call install,PACKAGES): only what is missing, and no package list is fetched when nothing is.
install = @missing=; for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] || { echo "installing:$$missing"; mkdir -p build; { $(SUDO) apt-get update -qq && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } >build/setup.log 2>&1 || \
	{ cat build/setup.log; echo "the packages could not be installed"; exit 1; }; }

.PHONY: setup setup-test setup-bench
setup:
	$(call install,$(PACKAGES))
setup-test:
	$(call install,$(PACKAGES_TEST))
setup-bench:
	$(call install,$(PACKAGES_BENCH))

.PHONY: demo test check check-all crash bench install uninstall lint help clean
demo: setup
	@$(MAKE) --no-print-directory -s -j$$(nproc) all
	@sh examples/demo.sh $(BUILD)/mailmill

test: setup-test
	@$(MAKE) --no-print-directory check

check:
	@python3 tests/run.py

# Everything, in full: what `make test` takes samples of. Hours.
check-all: setup-test
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory crash
	@python3 tests/cost/run.py --large
	@python3 tests/differ/run.py --count 5000 --mail
	@python3 tests/crash/power.py
	@python3 tests/memcheck/run.py --all
	@python3 tests/run.py --thread
	@python3 tests/run.py --address
	@$(MAKE) --no-print-directory wire

# mailmill killed at every system call, and every system call failed: tests/crash/run.py
crash: all
	@nice python3 tests/crash/run.py all

bench: setup-bench
	@$(MAKE) --no-print-directory -s -j$$(nproc) all
	@python3 tests/bench/bench.py

lint: all
	@python3 tests/tools/lint.py

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/mailmill/scripts $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(BUILD)/mailmill $(DESTDIR)$(PREFIX)/bin/mailmill
	install -m 644 scripts/*.lua $(DESTDIR)$(PREFIX)/share/mailmill/scripts
	install -m 644 $(BUILD)/mailmill.1 $(DESTDIR)$(PREFIX)/share/man/man1/mailmill.1

uninstall:
	rm -rf $(DESTDIR)$(PREFIX)/bin/mailmill $(DESTDIR)$(PREFIX)/share/mailmill $(DESTDIR)$(PREFIX)/share/man/man1/mailmill.1

help:
	@echo 'make demo      install what is missing, build, and show mailmill at work on sample mail'
	@echo 'make test      install what is missing, and run every test'
	@echo 'make           build $(BUILD)/mailmill'
	@echo 'make check-all the tests and, in full, the harnesses of which they run a sample; make crash: kills and errors at every system call'
	@echo 'make check     the tests, nothing installed before'
	@echo 'make unit-NAME one unit test; make lint: the rules of the house; make bench: figures against peers'
	@echo 'make bounding  what bounding a script costs it'
	@echo 'make fuzz      every fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS), or one: NAME=message'
	@echo 'make install   PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'
	@echo 'CC=clang, SANITIZE=address,undefined or thread, BUILD=dir choose the build'

clean:
	rm -rf build build-*

# The face without the engine: tests/lua/test_face.c runs tests/lua/*.lua on it, each in every mode of the collector.
FACE := $(addprefix lua/,face.c llist.c lmessage.c lpart.c lreader.c lsignature.c lstring.c lre.c ljson.c lmatch.c llog.c)

$(BUILD)/lua/test_face: tests/lua/test_face.c $(call obj,$(FACE)) $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $(filter %.c %.o %.a,$^) $(LIBS)

PROGRAM := lua/main.c lua/cli.c lua/options.c lua/report.c $(wildcard lua/cmd_*.c)
# The engine without the command line: tests/lua/test_engine.c runs scripts over sample mail, through run_all; test_nomem.c without memory.
$(BUILD)/lua/test_engine $(BUILD)/lua/test_nomem: $(BUILD)/lua/test_%: tests/lua/test_%.c $(call obj,$(filter-out $(PROGRAM),$(LUA))) $(BUILD)/embedded.o $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $(filter %.c %.o %.a,$^) $(LIBS)

# What bounding a script costs.
$(BUILD)/bench/bounding: tests/bench/bounding.c $(call obj,$(filter-out $(PROGRAM),$(LUA))) $(BUILD)/embedded.o $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $(filter %.c %.o %.a,$^) $(LIBS)

.PHONY: bounding
bounding: $(BUILD)/bench/bounding
	@$<

.PHONY: lua-tests
lua-tests: $(BUILD)/lua/test_face $(BUILD)/lua/test_engine $(BUILD)/lua/test_nomem

.PHONY: engine
engine: $(BUILD)/lua/test_engine
	$<

.PHONY: face
face: $(BUILD)/lua/test_face
	$<

# What hostile input costs, counted in instructions: tests/cost/run.py.
$(BUILD)/cost: $(wildcard tests/cost/*.c) tests/cost/cost.h $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c %.a,$^) $(LIBS)

# The connection cut after every byte of a session, in every way.
$(BUILD)/wire/%: tests/wire/%.c tests/unit/pop3_peer.h $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $(filter %.c %.a,$^) $(LIBS)

.PHONY: wire
wire: $(BUILD)/wire/cuts
	@nice $<

# Fuzz targets: replayed over their seeds by replay.c in any build; `make fuzz` drives them with clang's libFuzzer for FUZZ_SECONDS each.
FUZZ_MAIN    ?= tests/fuzz/replay.c
FUZZ_SECONDS ?= 60
FUZZ         := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

$(BUILD)/fuzz/%: tests/fuzz/fuzz_%.c $(FUZZ_MAIN) $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) $(LDFLAGS) $(FUZZ_LINK) -o $@ $(filter %.c %.a,$^) $(LIBS)

# The one that runs scripts needs the engine, too.
$(BUILD)/fuzz/script: tests/fuzz/fuzz_script.c $(FUZZ_MAIN) $(call obj,$(filter-out $(PROGRAM),$(LUA))) $(BUILD)/embedded.o $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) $(LDFLAGS) $(FUZZ_LINK) -o $@ $(filter %.c %.o %.a,$^) $(LIBS)

.PHONY: fuzz fuzz-programs setup-fuzz
$(FUZZ:%=$(BUILD)/fuzz/%): tests/fuzz/fuzz.h
fuzz-programs: $(FUZZ:%=$(BUILD)/fuzz/%)
setup-fuzz:
	$(call install,$(PACKAGES_TEST) libclang-rt-14-dev)
fuzz: setup-fuzz
	@$(MAKE) --no-print-directory -s BUILD=build-fuzz CC=clang SANITIZE=address,undefined,fuzzer-no-link OPT='-O1 -g' FUZZ_MAIN= \
		FUZZ_LINK=-fsanitize=fuzzer fuzz-programs
	@python3 tests/fuzz/run.py --fuzz $(FUZZ_SECONDS) $(NAME)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
