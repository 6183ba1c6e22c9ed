/* A list of names of a directory, however large: the bytes in one buffer, sorted when all are there. Private to the archives. */
#ifndef CORE_NAMES_H
#define CORE_NAMES_H

#include "core/buf.h"

struct names {
        struct buf text;
        size_t *ends;    /* of each name in text, until it is sorted */
        struct str *list; /* filled in by names_sort */
        size_t n, cap;
};

#define NAMES_INIT { BUF_INIT, NULL, NULL, 0, 0 }

bool names_add(struct names *l, struct str a, char between, struct str b, struct err *e) MUST_CHECK; /* a, between, b: one name */
bool names_add_one(struct names *l, struct str name, struct err *e) MUST_CHECK;
struct str names_get(const struct names *l, size_t i); /* good until the next is added; afterwards, in the order of names_sort */
bool names_sort(struct names *l, struct err *e) MUST_CHECK; /* byte order */
void names_free(struct names *l); /* back to empty */

/* Calls f for each entry of root/path ("" is root itself) but "." and "..", in the directory's order. type: DT_REG, DT_DIR, DT_LNK
 * …, never DT_UNKNOWN. Symbolic links are not followed. */
bool names_each(int root, struct str path, bool (*f)(void *ctx, struct str name, unsigned char type, struct err *e), void *ctx,
                struct err *e) MUST_CHECK;

#endif
