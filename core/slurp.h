/* Reads an archive in large blocks through one buffer that slides over it. Private to the archives.
 *
 * Blocks, not mmap: page faults cost more than the copy, and mapped pages count as memory. What is compressed will come in here
 * too, as another way to fill the buffer. */
#ifndef CORE_SLURP_H
#define CORE_SLURP_H

#include "core/err.h"
#include "core/str.h"

/* 256 KiB stays in the second-level cache while it is searched and copied; larger blocks were slower. */
enum { SLURP_BLOCK = 256 << 10, SLURP_BLOCK_MIN = 2 << 10 };

/* Tests only: a smaller block (at least SLURP_BLOCK_MIN, at most SLURP_BLOCK) for inputs opened from now on. */
extern size_t slurp_block;

struct slurp {
        int fd;          /* owned; -1: none */
        bool seekable;   /* a regular file: read by offset, and its bytes can be read again */
        bool eof;        /* nothing comes after p[n-1] */
        bool cut;        /* the file has become shorter while it was read */
        uint64_t size;   /* of a regular file when it was opened: what grows later belongs to the next run */
        uint64_t base;   /* offset of p[0] in the input */
        char *p;
        size_t n;
};

#define SLURP_NONE (struct slurp){ .fd = -1 }

/* Starts on fd at its current offset, which it owns from now on also when it fails. The buffer of an earlier input is used again. */
bool slurp_open(struct slurp *s, int fd, struct err *e) MUST_CHECK;
/* Drops the bytes before `keep` and reads more behind the others, so that something new is there or eof is set. keep > 0, or room
 * left, is the caller's duty: a full buffer of which nothing may go is an error in the program. */
bool slurp_more(struct slurp *s, size_t keep, struct err *e) MUST_CHECK;
void slurp_close(struct slurp *s); /* the buffer goes too */

#endif
