/* The structure of a message found in one streaming pass: RFC 2045, 2046. Bytes in, offsets out; nothing decoded, nothing copied
 * but headers. Fed whole or a byte at a time, the tree is the same. No recursion; depth, parts and boundary have limits. */
#ifndef CORE_MIME_H
#define CORE_MIME_H

#include "core/arena.h"
#include "core/header.h"
#include "core/limits.h"

enum mime_kind { MIME_LEAF, MIME_MULTIPART, MIME_MESSAGE /* message/rfc822 with identity encoding: one child */ };
enum mime_encoding { MIME_IDENTITY, MIME_BASE64, MIME_QP, MIME_UU, MIME_UNKNOWN /* raw bytes, flagged */ };

/* Where a header can be read in two ways. */
enum { MIME_DOUBT_TYPE = 1, MIME_DOUBT_ENCODING = 2, MIME_DOUBT_BOUNDARY = 4 };

struct mime {
        struct mime *parent, *child, *last, *next;
        enum mime_kind kind;
        enum mime_encoding encoding;
        unsigned depth, index;                /* index: 1.. among siblings */
        uint64_t header_at, header_n;         /* the header block, without the empty line */
        uint64_t body_at, body_n;             /* encoded body, without the line end that belongs to the boundary */
        uint64_t lines;                       /* lines of the body */
        struct str type;                      /* "text/plain", lower case: the RFC's default where none is given */
        struct str boundary;                  /* literal; empty unless multipart */
        unsigned doubts;
        bool other;                           /* read in the other way, see mime_read_other */
};

/* Names of defects, in the order they were found; each only once. The strings are static. */
struct mime_defects {
        const char *names[96];                /* as many as there are, and more */
        unsigned count;
};
void mime_defect(struct mime_defects *d, const char *name);

struct mime_parser;
/* a: where the tree lives. NULL when out of memory. */
struct mime_parser *mime_new(const struct limits *lim, struct mime_defects *d, struct arena *a) MUST_CHECK;
/* Before the first byte: reads what is doubtful the way that was not chosen. The last of two fields or boundaries, an encoding in quotes
 * or an encoded-word, and a multipart with an encoding is a leaf to be decoded. */
void mime_read_other(struct mime_parser *p);
/* The outermost header, split, goes into *h if it lies in one chunk, whose bytes it borrows; else h->block stays {NULL,0}. */
void mime_keep_header(struct mime_parser *p, struct header *h);
/* Chunks of any size, LF or CRLF line ends. False when out of memory. */
bool mime_feed(struct mime_parser *p, struct str chunk) MUST_CHECK;
/* The end: the root entity. The parser lives in the arena, but a header or a line cut by chunks does not: call this also for a message
 * given up half-way. NULL when out of memory. */
struct mime *mime_end(struct mime_parser *p) MUST_CHECK;

/* The bytes of the header that a message begins with, by the parser's own rules, for who wants only that. *ended: its end is in
 * s; otherwise give more. */
size_t mime_header_size(struct str s, bool *ended);

#endif
