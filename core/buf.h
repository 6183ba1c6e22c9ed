/* A growing buffer of bytes with an optional limit. The first failure sticks: later calls fail as well, so a caller may
 * add a lot and check once with buf_ok. */
#ifndef CORE_BUF_H
#define CORE_BUF_H

#include "core/err.h"
#include "core/str.h"

struct buf {
        char *p;
        size_t n, cap;
        size_t max;  /* 0: no limit */
        bool failed; /* out of memory, or over max */
        bool over;   /* it was max */
};

#define BUF_INIT { NULL, 0, 0, 0, false, false }

void buf_init(struct buf *b, size_t max);
void buf_free(struct buf *b);                /* back to empty, memory given back */
void buf_clear(struct buf *b);               /* empty, memory kept, failure forgotten */
bool buf_reserve(struct buf *b, size_t more); /* room for `more` bytes at b->p + b->n */
bool buf_add(struct buf *b, const char *p, size_t n);
bool buf_add_str(struct buf *b, struct str s);
static inline bool buf_add_char(struct buf *b, char c)
{
        if (b->failed || b->n + 1 >= b->cap || (b->max && b->n >= b->max))
                return buf_add(b, &c, 1);
        b->p[b->n++] = c;
        return true;
}
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_drop(struct buf *b, size_t n);      /* the first n bytes go */
bool buf_ok(const struct buf *b, struct err *e); /* false, with e filled, after a failure */
static inline struct str buf_str(const struct buf *b) { return (struct str){ b->p, b->n }; }

#endif
