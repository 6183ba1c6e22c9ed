#include "core/buf.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/mem.h"

enum { FIRST_SIZE = 64 };

void buf_init(struct buf *b, size_t max)
{
        *b = (struct buf)BUF_INIT;
        b->max = max;
}

void buf_free(struct buf *b)
{
        mem_free(b->p);
        buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
        b->n = 0;
        b->failed = b->over = false;
}

static bool fail(struct buf *b, bool over)
{
        b->failed = true;
        b->over = over;
        return false;
}

/* Doubles, so that adding stays linear; one byte more than asked lets buf_printf write its NUL. */
static bool grow(struct buf *b, size_t need)
{
        size_t cap = b->cap < SIZE_MAX / 2 ? b->cap * 2 : SIZE_MAX;
        char *p;

        if (cap < FIRST_SIZE)
                cap = FIRST_SIZE;
        if (b->max && b->max < SIZE_MAX && cap > b->max + 1)
                cap = b->max + 1;
        if (cap < need + 1)
                cap = need + 1;
        p = mem_resize(b->p, cap);
        if (!p)
                return fail(b, false);
        b->p = p;
        b->cap = cap;
        return true;
}

bool buf_reserve(struct buf *b, size_t more)
{
        if (b->failed)
                return false;
        if (more > SIZE_MAX - 1 - b->n)
                return fail(b, false);
        if (b->max && b->n + more > b->max)
                return fail(b, true);
        return b->n + more < b->cap || grow(b, b->n + more);
}

bool buf_add(struct buf *b, const char *p, size_t n)
{
        if (!buf_reserve(b, n))
                return false;
        if (n)
                memcpy(b->p + b->n, p, n);
        b->n += n;
        return true;
}

bool buf_add_str(struct buf *b, struct str s)
{
        return buf_add(b, s.p, s.n);
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(NULL, 0, fmt, ap);
        va_end(ap);
        if (n < 0)
                return fail(b, false);
        if (!buf_reserve(b, (size_t)n))
                return false;
        va_start(ap, fmt);
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
        va_end(ap);
        b->n += (size_t)n;
        return true;
}

void buf_drop(struct buf *b, size_t n)
{
        if (n >= b->n) {
                b->n = 0;
                return;
        }
        memmove(b->p, b->p + n, b->n - n);
        b->n -= n;
}

bool buf_ok(const struct buf *b, struct err *e)
{
        if (!b->failed)
                return true;
        if (b->over)
                return err_set(e, ERR_LIMIT, "more than %zu bytes", b->max);
        return err_nomem(e);
}
