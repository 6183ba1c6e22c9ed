/* A read-only range of bytes: in memory, or in a file. What a message is made of. */
#ifndef CORE_RANGE_H
#define CORE_RANGE_H

#include "core/err.h"
#include "core/str.h"
#include <sys/types.h>

/* The bytes behind ranges, counted: parts of one archive share it. */
struct backing;
struct backing *backing_memory(char *p, size_t n) MUST_CHECK; /* owns p (mem_free); NULL when out of memory (p is freed) */
struct backing *backing_fd(int fd) MUST_CHECK;                /* owns fd; NULL when out of memory (fd is closed) */
/* Bytes of a file that are not all in one place: piece i is the range's bytes from `at` on, up to the next piece, and lies at `from`
 * in the file; pieces[0].at is 0. Takes a reference of file, owns pieces (mem_free). NULL when out of memory (pieces are freed). */
struct piece { uint64_t at, from; };
struct backing *backing_pieces(struct backing *file, struct piece *pieces, size_t n) MUST_CHECK;
struct backing *backing_ref(struct backing *b);
void backing_unref(struct backing *b);

struct range {
        struct backing *in; /* borrowed unless the owner says otherwise */
        uint64_t at, n;
};

/* The bytes when they are in memory, else false. */
bool range_in_memory(struct range r, struct str *out);
/* Reads up to n bytes at offset `at` of the range; 0 at its end, -1 on failure (the file has become shorter: ERR_IO). */
ssize_t range_read(struct range r, uint64_t at, void *p, size_t n, struct err *e) MUST_CHECK;
static inline struct range range_sub(struct range r, uint64_t at, uint64_t n)
{
        if (at > r.n)
                at = r.n;
        return (struct range){ r.in, r.at + at, n < r.n - at ? n : r.n - at };
}

#endif
