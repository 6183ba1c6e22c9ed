/* Base64 (RFC 4648, RFC 2045 6.8), decoded as mail needs it: bytes outside the alphabet are skipped and reported. */
#ifndef CORE_BASE64_H
#define CORE_BASE64_H

#include "core/str.h"

/* A decoder that can be stopped at any byte. All zero is the start. */
struct base64 {
        uint32_t bits;     /* bits not yet given out */
        unsigned held;     /* sextets in bits: 0..3 */
        unsigned pads;     /* '=' seen since the last sextet */
        bool garbage;      /* bytes outside the alphabet were skipped (white space apart) */
        bool padded;       /* padding was seen with data after it: the padding ended one encoding and another began */
        bool over;         /* a byte outside the alphabet came behind padding: a list's footer, or the like, and no base64 from there on */
        bool first_run;    /* set by who wants nothing of what stands behind padding */
        bool truncated;    /* base64_end found a lone sextet, or padding missing */
};

/* Decodes in into out, which has room for base64_room(in.n) bytes; returns the bytes written. */
size_t base64_decode(struct base64 *d, struct str in, char *out);
/* The end of the input: what is left of a group whose padding is missing, unless it was cut off in its middle; out has room for 3 bytes. */
size_t base64_end(struct base64 *d, char *out);
/* Could an encoder have ended here, padding apart? Not where spare bits are set, or where one sextet has come. */
bool base64_could_end(const struct base64 *d);
static inline size_t base64_room(size_t n) { return n / 4 * 3 + 6; }

/* Encodes without line ends; out has room for (n + 2) / 3 * 4 bytes. Returns the bytes written. */
size_t base64_encode(struct str in, char *out);

#endif
