/* What the header of a message in an mbox says about its place there: flags, length, and whether Thunderbird has deleted it. */
#ifndef CORE_MBOXHEAD_H
#define CORE_MBOXHEAD_H

#include "core/str.h"

struct mboxhead {
        char flags[8];     /* Maildir letters, sorted, from Status, X-Status and X-Mozilla-Status */
        size_t flags_n;
        bool expunged;     /* X-Mozilla-Status 0008: deleted, and there only until the folder is compacted */
        bool has_length;   /* a Content-Length that is a number */
        uint64_t length;
        bool ended;        /* the empty line behind the header is in sight */
        size_t body;       /* where the body begins, when it is */
};

/* text: the message from its first field on, as far as it is at hand. mozilla: written by that family, whose field counts then
 * (anybody's mail could have it). */
void mboxhead_read(struct str text, bool mozilla, struct mboxhead *out);

#endif
