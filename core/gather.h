/* Gathers the bytes of one message out of an archive into a range: in memory when it is small, in the archive's own file, as pieces,
 * when it is large and few bytes are left out of it, else in an unnamed temporary file. CRLF becomes LF on the way. Private to the archives.
 * Memory stays below limits.memory_message plus a block, whatever the size of the message. */
#ifndef CORE_GATHER_H
#define CORE_GATHER_H

#include "core/message.h"
#include "core/slurp.h"

enum gather_where { GATHER_MEMORY, GATHER_IN_PLACE, GATHER_TEMP, GATHER_NOWHERE };

struct gather {
        const struct slurp *in;
        const char *tmp_dir;
        const struct limits *lim;
        bool (*may_parse)(void *ctx); /* asked once for each large message: may its structure be found on the way? */
        void *ctx;
        struct backing *place;    /* the archive's file, shared by its large messages; NULL until one needs it */
        enum gather_where where;
        bool scattered;           /* too many bytes have been left out to tell of the pieces between them */
        bool cr;                  /* a CR withheld until the next byte is known */
        uint64_t next;            /* offset in the input of the byte that comes next */
        uint64_t n;               /* its bytes so far, as they will be */
        char *p;                  /* the whole message, or what is not yet written to temp */
        size_t used, cap;
        struct piece *pieces;     /* where it stands in the input: PIECES_MAX of them */
        size_t pieces_n;
        struct sketch *sketch;    /* of a large one; NULL: none */
        int temp;                 /* -1: none */
};

/* All is borrowed. */
void gather_init(struct gather *g, const struct slurp *in, const char *tmp_dir, const struct limits *lim, bool (*may_parse)(void *ctx), void *ctx);
/* The input is another file now. */
void gather_rewind(struct gather *g);
/* A message begins at this offset of the input. */
void gather_begin(struct gather *g, uint64_t start);
/* Its next n bytes, raw. They follow the last ones, apart from what gather_skip says. */
bool gather_add(struct gather *g, const char *p, size_t n, struct err *e) MUST_CHECK;
/* One byte of the input is left out here. */
bool gather_skip(struct gather *g, struct err *e) MUST_CHECK;
/* Whether it has become longer than limits.message: of such a one no byte is kept, n says by how much, and gather_end is not due. */
bool gather_over(const struct gather *g);
/* The message is complete: *out holds a reference of its backing, which the caller drops. */
bool gather_end(struct gather *g, struct range *out, struct err *e) MUST_CHECK;
/* Of the message that ended last; the caller frees it. NULL: there is none. */
struct sketch *gather_sketch(struct gather *g);
void gather_close(struct gather *g);

#endif
