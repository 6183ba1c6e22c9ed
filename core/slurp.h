/* Reads an archive in large blocks through one buffer that slides over it. Private to the archives.
 *
 * Blocks, not mmap: page faults cost more than the copy, and mapped pages count as memory. What is compressed comes in here
 * too, as another way to fill the buffer. */
#ifndef CORE_SLURP_H
#define CORE_SLURP_H

#include <stdatomic.h>
#include <sys/types.h>

#include "core/err.h"
#include "core/str.h"

/* 256 KiB stays in the second-level cache while it is searched and copied; larger blocks were slower. */
enum { SLURP_BLOCK = 256 << 10, SLURP_BLOCK_MIN = 2 << 10 };

/* Tests only: a smaller block (at least SLURP_BLOCK_MIN, at most SLURP_BLOCK) for inputs opened from now on. */
extern size_t slurp_block;

/* When it becomes true, waiting for a pipe or a terminal ends, with ERR_STOPPED; NULL: nobody asks. Set before the first input is opened. */
extern const atomic_bool *slurp_stop;

/* Up to n bytes into p: 0 at the end, -1 on failure. */
typedef ssize_t slurp_read_fn(void *ctx, void *p, size_t n, struct err *e);

struct slurp {
        int fd;          /* owned; -1: none */
        slurp_read_fn *read; /* instead of fd: what is unpacked while it is read */
        void *ctx;
        const char *tmp_dir; /* borrowed; where slurp_peek may keep what it has read ahead of a stream, or NULL */
        int ahead;       /* that file, or -1 */
        bool ahead_eof;  /* behind it there is nothing */
        uint64_t ahead_from, ahead_end; /* the part of the input that it holds */
        bool seekable;   /* a regular file: read by offset, and its bytes can be read again */
        bool eof;        /* nothing comes after p[n-1] */
        bool cut;        /* the file has become shorter while it was read */
        uint64_t size;   /* of a regular file when it was opened: what grows later belongs to the next run */
        uint64_t base;   /* offset of p[0] in the input */
        char *p;
        size_t n;
};

#define SLURP_NONE (struct slurp){ .fd = -1, .ahead = -1 }

/* Starts on fd at its current offset, which it owns from now on also when it fails. The buffer of an earlier input is used again. */
bool slurp_open(struct slurp *s, int fd, struct err *e) MUST_CHECK;
/* The same on a regular file of that size at its beginning: spares two calls for each file of a Maildir. */
bool slurp_open_file(struct slurp *s, int fd, uint64_t size, struct err *e) MUST_CHECK;
/* The same on a stream that `read` gives; nothing of it is owned. */
bool slurp_open_reader(struct slurp *s, slurp_read_fn *read, void *ctx, struct err *e) MUST_CHECK;
/* Drops the bytes before `keep` and reads more behind the others, so that something new is there or eof is set. keep > 0, or room
 * left, is the caller's duty: a full buffer of which nothing may go is an error in the program. */
bool slurp_more(struct slurp *s, size_t keep, struct err *e) MUST_CHECK;
/* Copies up to n bytes of the input from offset `at` (not before p[0]) without moving on; fewer only at its end. From a stream that
 * has not come so far they are read ahead into a temporary file; 0 where that would become too large, or there is no place for it. */
ssize_t slurp_peek(struct slurp *s, uint64_t at, void *p, size_t n, struct err *e) MUST_CHECK;
void slurp_close(struct slurp *s); /* the buffer goes too */

#endif
