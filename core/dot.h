/* Dot-stuffing, RFC 1939 section 3 and RFC 5321 section 4.5.2. */
#ifndef CORE_DOT_H
#define CORE_DOT_H

#include "core/str.h"

/* Undoes stuffing of a multi-line answer, a chunk at a time, CRLF becoming LF. All zero is the start. */
struct dot {
        enum { DOT_LINE_START, DOT_IN_LINE, DOT_CR, DOT_DOT, DOT_DOT_CR, DOT_DONE } state;
        bool bare_lf;   /* set by the caller for a session whose lines end in bare LF: then "\n.\n" ends the answer too */
        bool saw_bare_lf; /* a line of the answer ended in a bare LF */
        uint64_t wire;  /* bytes taken so far, the final ".CRLF" included */
        uint64_t dots;  /* of them, dots that began a line and were dropped, the final one included */
};

/* Takes bytes from in until the final dot; out has room for in.n + 2 bytes. Returns the bytes taken from in, and sets
 * *wrote. When d->state is DOT_DONE the answer is complete and the rest of in is the next answer. The last line always
 * ends in LF. Bare CR, bare LF, NUL are kept. */
size_t dot_unstuff(struct dot *d, struct str in, char *out, size_t *wrote);

/* Does the reverse for sending: any of LF, CRLF, bare CR becomes CRLF, a line that begins with a dot gets another.
 * All zero is the start. out has room for 3 * in.n + 1. dot_stuff_end writes what is missing of a last line end, and
 * ".CRLF" (room for 5). */
struct stuff {
        bool cr, mid_line;
};
size_t dot_stuff(struct stuff *d, struct str in, char *out);
size_t dot_stuff_end(struct stuff *d, char *out);

#endif
