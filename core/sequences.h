/* What .mh_sequences says of an MH folder's messages: lines such as "unseen: 3 7-12". */
#ifndef CORE_SEQUENCES_H
#define CORE_SEQUENCES_H

#include "core/err.h"
#include "core/str.h"

enum { SEQUENCE_KINDS = 6 };

struct sequences {
        struct sequence {
                struct sequence_range { uint64_t first, last; } *list; /* sorted, apart from each other */
                size_t n, cap;
        } of[SEQUENCE_KINDS];
};

/* Takes the place of what was there. A range that cannot be read is passed over. False when out of memory. */
bool sequences_read(struct sequences *s, struct str text, struct err *e) MUST_CHECK;
/* Maildir letters of a message: S unless it is unseen; F flagged, R replied or answered, P forwarded, T deleted, D draft. */
struct str sequences_flags(const struct sequences *s, uint64_t number, char out[8]);
void sequences_free(struct sequences *s); /* back to empty */

#endif
