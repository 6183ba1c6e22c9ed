/* Quoted-printable (RFC 2045 6.7) and the Q encoding of header words (RFC 2047 4.2). */
#ifndef CORE_QP_H
#define CORE_QP_H

#include "core/str.h"

/* A decoder that can be stopped at any byte. All zero is the start. Bad sequences stay as they are and set `bad`;
 * white space at the end of a line is dropped, as the RFC says. Line ends are kept as they are (LF or CRLF). The end of
 * the input ends a line. */
struct qp {
        char hold[3];      /* '=' and what followed, not yet decided */
        unsigned held;
        size_t blanks_n;   /* blanks that may be the end of a line; more than fit are given out */
        char blanks[256];
        bool bad;
};

/* out has room for qp_room(in.n) bytes. */
size_t qp_decode(struct qp *d, struct str in, char *out);
size_t qp_end(struct qp *d, char *out);   /* room for 260 bytes */
static inline size_t qp_room(size_t n) { return n + 264; }

/* The Q encoding of an encoded-word: '_' is a space, =XX a byte, everything else itself. Returns bytes written (<= in.n). */
size_t qp_decode_word(struct str in, char *out);

#endif
