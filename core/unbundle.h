/* Looks into what is compressed (gzip, xz, zstd, bzip2) or packed (zip, tar, also compressed), with unpack.h: its members one after the
 * other, as streams; nothing is unpacked to disk. Private to the archives. */
#ifndef CORE_UNBUNDLE_H
#define CORE_UNBUNDLE_H

#include "core/slurp.h"
#include "core/unpack.h"

enum {
        UNBUNDLE_RATIO = 100,          /* it may expand to so many times its size … */
        UNBUNDLE_FREE_MIB = 1024,      /* … once it has given so much: what does not end must not go on for ever */
        UNBUNDLE_MEMBERS = 1000000,    /* as large as the largest Maildir that anybody has */
};

struct unbundle;

/* Whether an input that begins so is one of these; whether it is compressed (it may be packed inside of that). */
bool unbundle_is(struct str head);
bool unbundle_is_compressed(struct str head);
/* Takes over *in, whose beginning has been read, also when it fails. */
struct unbundle *unbundle_open(struct slurp *in, struct err *e) MUST_CHECK;
/* What u reads is a member of outer: what both give counts against the limit of outer. */
void unbundle_within(struct unbundle *u, struct unbundle *outer);
/* Another one, from the beginning of the same file; NULL and e->code ERR_ABSENT when it is none that can be read twice. */
struct unbundle *unbundle_again(const struct unbundle *u, struct err *e) MUST_CHECK;
bool unbundle_next(struct unbundle *u, struct unpack_member *out, struct err *e) MUST_CHECK;
/* Of the current member; for slurp_open_reader, with the unbundle as context. */
ssize_t unbundle_read(void *unbundle, void *p, size_t n, struct err *e);
/* After a failure to read: nothing can be read any more. Otherwise the member alone is damaged. */
bool unbundle_broken(const struct unbundle *u);
uint64_t unbundle_size(const struct unbundle *u); /* compressed; 0: unknown */
uint64_t unbundle_done(const struct unbundle *u);
void unbundle_close(struct unbundle *u); /* may be NULL */

#endif
