/* A header block split into fields, RFC 5322 section 2.2: names and raw values as ranges of the block, nothing copied. */
#ifndef CORE_HEADER_H
#define CORE_HEADER_H

#include "core/arena.h"
#include "core/limits.h"

struct field {
        struct str name;  /* as written, without blanks before the colon */
        struct str raw;   /* what follows the colon, folds and all, without the last line end */
        unsigned order;
};

struct header {
        struct str block;
        struct field *fields;
        size_t count;
        bool odd_names;   /* a name with blanks, NUL or 8-bit bytes, or a blank before the colon */
        bool junk;        /* lines that are no field and no fold (kept in no field) */
        bool overflow;    /* more fields or bytes than the limits say: the rest is not in fields */
};

/* Splits block (up to and without the empty line). Lines end in LF or CRLF. False when out of memory. */
bool header_split(struct header *h, struct str block, const struct limits *lim, struct arena *a);
/* The first field of that name (ASCII caseless), or NULL; the next after `after`. */
const struct field *header_find(const struct header *h, struct str name);
const struct field *header_find_after(const struct header *h, struct str name, const struct field *after);
/* The raw value on one line: leading and trailing blanks trimmed, a fold and the blanks around it one blank, and none inside an
 * encoded-word. raw itself when there is nothing to unfold. */
struct str header_unfold(struct str raw, struct arena *a);
/* The identity of a header (the server may add some fields while mail lies there): SHA-256 over the fields without Status,
 * X-Status, X-UID, X-UIDL, Content-Length, Lines, with folding normalised. */
void header_identity(const struct header *h, uint8_t out[32]);

#endif
