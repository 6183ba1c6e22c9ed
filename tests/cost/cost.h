/* What hostile input costs: patterns that can be made of any size, and what reads them. A pattern is head, n times unit, tail; the byte
 * \1 in a unit stands for the number of the repetition. cost.c counts the instructions that reading takes, run.py compares. */
#ifndef TESTS_COST_COST_H
#define TESTS_COST_COST_H

#include "core/buf.h"
#include "core/str.h"

struct pattern {
        const char *name;              /* the row of hostile inputs that it belongs to comes first */
        void (*read)(struct str in);   /* what is counted */
        unsigned n;                    /* repetitions in the smallest of the three sizes */
        struct str head, unit, tail;
        void (*make)(struct buf *out, unsigned n); /* instead of these three */
};

/* Tables, each ending with an entry without name. */
extern const struct pattern cost_fields[], cost_mail[], cost_text[], cost_wires[];

/* What every table may need; a failure ends the program. */
#define MUST(x) ((x) ? (void)0 : cost_broken(__FILE__, __LINE__, #x))
_Noreturn void cost_broken(const char *file, int line, const char *what);
/* unit n times, \1 in it as the number. */
void cost_repeat(struct buf *out, struct str unit, unsigned n);

#endif
