/* Members of an archive, one after the other, as streams: zip, tar and 7z, and what is compressed by gzip, xz, zstd or bzip2 (a tar or
 * zip in it counts as packed once). libarchive, its formats and filters narrowed to the one that the first bytes show; no program is ever
 * started. What a member is called is only a name: nothing here opens, writes or links a file. */
#ifndef CORE_UNPACK_H
#define CORE_UNPACK_H

#include <sys/types.h>

#include "core/buf.h"

enum unpack_kind {
        UNPACK_NONE, UNPACK_GZIP, UNPACK_XZ, UNPACK_ZSTD, UNPACK_BZIP2, UNPACK_ZIP, UNPACK_TAR, UNPACK_7Z,
};

enum { UNPACK_HEAD = 512 }; /* so many first bytes show the kind: a tar's header has no less */

/* What the library has to hold in memory, and takes up to twelve times as much for. */
enum {
        UNPACK_LIST_MEMBERS = 100000,
        UNPACK_LIST_BYTES = 8 << 20,    /* the list of members of a 7z, and of a zip that was sent */
        UNPACK_HEADER_BYTES = 1 << 20,  /* the header of one member of a tar */
        UNPACK_PASSED_BYTES = 1 << 30,  /* of what was sent: what must be unpacked to get past it: a member that is not wanted, or damage */
};

enum unpack_kind unpack_kind_of(struct str head);
/* Compressed, and perhaps packed below that: read from the front to the end. The others are read by offset. */
bool unpack_is_compressed(enum unpack_kind kind);

/* The bytes of the archive, as the caller has them. */
struct unpack_input {
        /* The next block, good until the next call; its length, 0 at the end, -1 on failure. */
        ssize_t (*read)(void *ctx, const char **block, struct err *e);
        /* What is read next comes from this offset; NULL where only reading forward is possible. */
        void (*seek)(void *ctx, uint64_t to);
        uint64_t size; /* with seek */
        bool sent;     /* it came in a message: who made it may not cost what he likes (UNPACK_LIST_BYTES, UNPACK_PASSED_BYTES) */
        bool single;   /* what is compressed is one file, and not looked at as a tar or zip */
        bool once;     /* the same, and may be compressed again; only for what has been found to be so (unpack_is_nested) */
        void *ctx;
};

struct unpack;

struct unpack_member {
        struct str name;     /* the bytes that stand there, in UTF-8 only where the archive says so; {NULL,0} for what is compressed and
                              * not packed. Good until the next */
        struct str linked;   /* a hard link to the member of that name; empty: none. Good until the next */
        int64_t time;        /* 0: unknown */
        enum { MEMBER_FILE, MEMBER_DIRECTORY, MEMBER_OTHER } kind; /* other: links, devices */
        bool encrypted;
        bool end;            /* there is none any more, and the rest says nothing */
};

/* ERR_LIMIT: compressed more than once; of a 7z or zip, its list of members is beyond UNPACK_LIST_*. */
struct unpack *unpack_open(const struct unpack_input *in, enum unpack_kind kind, struct err *e) MUST_CHECK;
/* False when the archive can't be read on, or has been read and parts of it were no members: ERR_IO (damaged), ERR_LIMIT (compressed more
 * than once, or beyond a limit above), ERR_NOMEM, or what reading the input said. */
bool unpack_next(struct unpack *u, struct unpack_member *out, struct err *e) MUST_CHECK;
/* Decoded bytes of the current member; 0 at its end; -1 when it is damaged. */
ssize_t unpack_read(struct unpack *u, void *p, size_t n, struct err *e) MUST_CHECK;
/* At the end of what is compressed and not packed (the name was {NULL,0}): nothing but zeros follows it. gzip and bzip2 end at what is not
 * theirs as if it were the end of the file. Nothing may be read from u afterwards. */
bool unpack_rest_is_empty(struct unpack *u, struct err *e) MUST_CHECK;
/* After a failure to read: nothing more can be. Otherwise the member alone is damaged. */
bool unpack_broken(const struct unpack *u);
/* It failed because reading the input failed: no fault of the archive. */
bool unpack_input_failed(const struct unpack *u);
/* It was the ERR_LIMIT of what is compressed more than once. */
bool unpack_is_nested(const struct unpack *u);
/* The list of members itself is encrypted. */
bool unpack_is_locked(const struct unpack *u);
void unpack_close(struct unpack *u); /* may be NULL */

/* Appends what zlib packed (RFC 1950) to out, its check sum looked at. *good: it is whole. False only when out is full or out of memory. */
bool unpack_zlib(struct str in, struct buf *out, bool *good) MUST_CHECK;

#endif
