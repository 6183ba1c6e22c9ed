/* A list of names of a directory, however large: the bytes in one buffer, sorted when all are there. Private to the archives. */
#ifndef CORE_NAMELIST_H
#define CORE_NAMELIST_H

#include "core/buf.h"

struct namelist {
        struct buf text;
        size_t *ends;    /* of each name in text, until it is sorted */
        struct str *list; /* filled in by namelist_sort */
        size_t n, cap;
};

#define NAMELIST_INIT { BUF_INIT, NULL, NULL, 0, 0 }

bool namelist_add(struct namelist *l, struct str a, char between, struct str b, struct err *e) MUST_CHECK; /* a, between, b: one name */
bool namelist_add_one(struct namelist *l, struct str name, struct err *e) MUST_CHECK;
struct str namelist_get(const struct namelist *l, size_t i); /* good until the next is added; afterwards, in the order of namelist_sort */
void namelist_remove(struct namelist *l, size_t i); /* before it is sorted; costs what lies behind it */
bool namelist_sort(struct namelist *l, struct err *e) MUST_CHECK; /* byte order */
void namelist_free(struct namelist *l); /* back to empty */

/* Calls f for each entry of root/path ("" is root itself) but "." and "..", in the directory's order. type: DT_REG, DT_DIR, DT_LNK
 * …, never DT_UNKNOWN. Symbolic links are not followed. */
bool namelist_each(int root, struct str path, bool (*f)(void *ctx, struct str name, unsigned char type, struct err *e), void *ctx,
                struct err *e) MUST_CHECK;

#endif
