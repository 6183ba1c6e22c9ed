#include "core/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

enum { LINE_MAX_BYTES = 8192 };

static _Atomic int shown = LOG_WARN;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void (*sink)(void *ctx, enum log_level level, struct str line);
static void *sink_ctx;

/* Shared under the lock rather than on the stack: lines come from threads with small stacks and from deep callers. */
static char raw[2 * LINE_MAX_BYTES], line[LINE_MAX_BYTES];

void log_set_level(enum log_level level)
{
        shown = (int)level;
}

enum log_level log_get_level(void)
{
        return (enum log_level)shown;
}

void log_set_sink(void (*f)(void *ctx, enum log_level level, struct str line), void *ctx)
{
        pthread_mutex_lock(&lock);
        sink = f;
        sink_ctx = ctx;
        pthread_mutex_unlock(&lock);
}

/* C0, DEL and C1 move a terminal's cursor; the line separators and the bidirectional controls make a line look like
 * another one. */
static bool is_unsafe(uint32_t code)
{
        return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x061c || code == 0x200e || code == 0x200f ||
               (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

/* Takes one character, or one bad byte, off the front of *rest; returns its shown form, which is in hold or in s. */
static struct str shown_form(struct str *rest, char hold[16])
{
        struct str front = *rest;
        uint32_t code = 0;
        size_t n = str_utf8(front, &code);

        *rest = str_from(*rest, n ? n : 1);
        if (n && !is_unsafe(code))
                return str_first(front, n);
        if (n > 1)
                return str_make(hold, (size_t)snprintf(hold, 16, "\\u{%x}", (unsigned)code));
        return str_make(hold, (size_t)snprintf(hold, 16, "\\x%02x", (unsigned)(unsigned char)front.p[0]));
}

size_t log_escape(struct str s, char *out, size_t n)
{
        size_t used = 0;
        char hold[16];

        if (n == 0)
                return 0;
        while (s.n > 0) {
                struct str form = shown_form(&s, hold);
                if (form.n > n - 1 - used)
                        break;
                memcpy(out + used, form.p, form.n);
                used += form.n;
        }
        out[used] = '\0';
        return used;
}

static void print(enum log_level level, struct str text)
{
        static const char *const names[] = { [LOG_ERROR] = "error: ", [LOG_WARN] = "warning: ", [LOG_INFO] = "",
                                             [LOG_DEBUG] = "debug: " };

        fprintf(stderr, "mailmill: %s%s\n", names[level], text.p);
}

/* With the lock held. */
static void emit(enum log_level level, struct str text)
{
        struct str safe = str_make(line, log_escape(text, line, sizeof line));

        if (sink)
                sink(sink_ctx, level, safe);
        else
                print(level, safe);
}

void log_line(enum log_level level, struct str text)
{
        if ((int)level > shown)
                return;
        pthread_mutex_lock(&lock);
        emit(level, text);
        pthread_mutex_unlock(&lock);
}

__attribute__((format(printf, 2, 0))) static void log_format(enum log_level level, const char *fmt, va_list ap)
{
        int n;

        if ((int)level > shown)
                return;
        pthread_mutex_lock(&lock);
        n = vsnprintf(raw, sizeof raw, fmt, ap);
        if (n >= 0)
                emit(level, str_make(raw, (size_t)n < sizeof raw ? (size_t)n : sizeof raw - 1));
        pthread_mutex_unlock(&lock);
}

#define LOG_BODY(level)                                                                                               \
        va_list ap;                                                                                                   \
        va_start(ap, fmt);                                                                                            \
        log_format(level, fmt, ap);                                                                                   \
        va_end(ap)

void log_error(const char *fmt, ...) { LOG_BODY(LOG_ERROR); }
void log_warn(const char *fmt, ...) { LOG_BODY(LOG_WARN); }
void log_info(const char *fmt, ...) { LOG_BODY(LOG_INFO); }
void log_debug(const char *fmt, ...) { LOG_BODY(LOG_DEBUG); }
