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
all: $(BUILD)/mailmill

$(BUILD)/mailmill: $(call obj,$(LUA)) $(BUILD)/libcore.a
	$(CC) $(LDFLAGS) -Wl,-E -o $@ $^ $(LIBS)

$(BUILD)/libcore.a: $(call obj,$(CORE))
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(PKGFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $< $(BUILD)/libcore.a $(LIBS)

# One unit test by name: make unit-base64
unit-%: $(BUILD)/unit/test_%
	$<

.PHONY: unit
unit: $(UNIT)
	@for t in $(UNIT); do echo "# $$t"; $$t || exit 1; done

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
