/* The names of a folder's files, however many, in byte order: some MiB of them in memory; beyond that, sorted in parts into a file without a
 * name, and merged while they are asked for. Private to the archives. */
#ifndef CORE_FILELIST_H
#define CORE_FILELIST_H

#include "core/namelist.h"

struct filelist_parts;
struct filelist {
        struct namelist part; /* those that came last */
        size_t n;             /* all of them */
        size_t next;
        struct filelist_parts *parts;
};

#define FILELIST_INIT { NAMELIST_INIT, 0, 0, NULL }

bool filelist_add(struct filelist *l, struct str a, char between, struct str b, struct err *e) MUST_CHECK; /* a, between, b: one name */
bool filelist_sort(struct filelist *l, struct err *e) MUST_CHECK; /* all are there */
/* The next name, good until the one after it is asked for; {NULL,0} at the end. */
bool filelist_next(struct filelist *l, struct str *name, struct err *e) MUST_CHECK;
void filelist_free(struct filelist *l); /* back to empty */

#endif
