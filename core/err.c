#include "core/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "core/log.h"
#include "core/str.h"

/* Twice what is kept: escaping never shortens, so what vsnprintf cuts off could not have been shown. */
enum { RAW_MAX = 2 * ERR_TEXT_MAX };

__attribute__((format(printf, 2, 0))) static struct str format(char raw[RAW_MAX], const char *fmt, va_list ap)
{
        int n = vsnprintf(raw, RAW_MAX, fmt, ap);

        if (n < 0)
                return str_of(fmt);
        return str_make(raw, n < RAW_MAX ? (size_t)n : RAW_MAX - 1);
}

bool err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
        char raw[RAW_MAX];
        va_list ap;

        if (!e)
                return false;
        va_start(ap, fmt);
        log_escape(format(raw, fmt, ap), e->text, sizeof e->text);
        va_end(ap);
        e->code = code;
        e->sys = 0;
        return false;
}

static enum err_code code_of_errno(int sys, enum err_code otherwise)
{
        switch (sys) {
        case ENOSPC:
        case EDQUOT: return ERR_FULL;
        case ENOENT: return ERR_ABSENT;
        case EEXIST: return ERR_EXISTS;
        case ENOMEM: return ERR_NOMEM;
        default: return otherwise;
        }
}

bool err_sys(struct err *e, enum err_code code, int sys, const char *fmt, ...)
{
        char raw[RAW_MAX], why[128];
        const char *system;
        va_list ap;
        size_t n;

        if (!e)
                return false;
        system = strerror_r(sys, why, sizeof why);
        va_start(ap, fmt);
        n = log_escape(format(raw, fmt, ap), e->text, sizeof e->text - sizeof why - 2); /* the reason must fit */
        va_end(ap);
        snprintf(e->text + n, sizeof e->text - n, ": %s", system);
        e->code = code_of_errno(sys, code);
        e->sys = sys;
        return false;
}

bool err_in(struct err *e, const char *fmt, ...)
{
        char raw[RAW_MAX], old[ERR_TEXT_MAX];
        va_list ap;
        size_t n;

        if (!e)
                return false;
        memcpy(old, e->text, sizeof old);
        va_start(ap, fmt);
        n = log_escape(format(raw, fmt, ap), e->text, sizeof e->text / 2); /* what happened matters more than where */
        va_end(ap);
        n += log_escape(STR(": "), e->text + n, sizeof e->text - n);
        log_escape(str_of(old), e->text + n, sizeof e->text - n); /* changes nothing, but never cuts a character */
        return false;
}

bool err_nomem(struct err *e)
{
        return err_set(e, ERR_NOMEM, "out of memory");
}

static const struct {
        const char *name;
        int exit;
} codes[] = {
        [ERR_NONE] = { "none", EX_OK },
        [ERR_IO] = { "io", EX_IOERR },
        [ERR_NET] = { "net", EX_TEMPFAIL },
        [ERR_TLS] = { "tls", EX_PROTOCOL },
        [ERR_TIMEOUT] = { "timeout", EX_TEMPFAIL },
        [ERR_AUTH] = { "auth", EX_NOPERM },
        [ERR_PROTO] = { "proto", EX_PROTOCOL },
        [ERR_REFUSED] = { "refused", EX_UNAVAILABLE },
        [ERR_TEMP] = { "temp", EX_TEMPFAIL },
        [ERR_BUSY] = { "busy", EX_TEMPFAIL },
        [ERR_SYNTAX] = { "syntax", EX_DATAERR },
        [ERR_USAGE] = { "usage", EX_USAGE },
        [ERR_LIMIT] = { "limit", EX_DATAERR },
        [ERR_NOMEM] = { "nomem", EX_OSERR },
        [ERR_EXISTS] = { "exists", EX_CANTCREAT },
        [ERR_ABSENT] = { "absent", EX_NOINPUT },
        [ERR_FULL] = { "full", EX_IOERR },
        [ERR_STOPPED] = { "stopped", EX_TEMPFAIL },
        [ERR_SCRIPT] = { "script", EX_SOFTWARE },
};

static bool known(enum err_code code)
{
        return (size_t)code < sizeof codes / sizeof codes[0];
}

const char *err_code_name(enum err_code code)
{
        return known(code) ? codes[code].name : "unknown";
}

static int rank(enum err_code c)
{
        switch (c) {
        case ERR_NONE: return 0;
        case ERR_TEMP:
        case ERR_BUSY:
        case ERR_STOPPED: return 1;
        case ERR_NET:
        case ERR_TIMEOUT:
        case ERR_PROTO: return 2;
        case ERR_REFUSED: return 3;
        case ERR_TLS: return 4;
        case ERR_AUTH: return 5;
        default: return 6; /* this machine, or what it was told */
        }
}

enum err_code err_worse(enum err_code a, enum err_code b)
{
        return rank(b) > rank(a) ? b : a;
}

int err_exit_code(enum err_code code)
{
        return known(code) ? codes[code].exit : EX_SOFTWARE;
}
