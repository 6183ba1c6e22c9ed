/* The .mh_sequences of the MH folders in a zip or tar, which say what is known of their messages. In a file they are looked up before
 * the first message, for they may stand behind the messages; from a stream they are taken as they come. Private to the archives. */
#ifndef CORE_PACKEDMH_H
#define CORE_PACKEDMH_H

#include "core/map.h"
#include "core/sequences.h"
#include "core/unbundle.h"

struct packedmh {
        struct map *folders;   /* struct sequences by directory */
        uint64_t bytes;        /* of .mh_sequences read so far */
        bool looked;
};

/* The last component of a member's path is the number of an MH message; or .mh_sequences. */
bool packedmh_is_number(struct str file, uint64_t *number);
bool packedmh_is_sequences(struct str file);
/* Goes once through the archive that u reads, if it can be read again. stopped is asked between members. */
bool packedmh_look(struct packedmh *p, const struct unbundle *u, bool (*stopped)(const void *), const void *ctx, struct err *e) MUST_CHECK;
/* The current member of u is the .mh_sequences of dir. What is damaged or too large is passed over. */
bool packedmh_take(struct packedmh *p, struct unbundle *u, struct str dir, struct err *e) MUST_CHECK;
/* What is known of dir; NULL: nothing. */
const struct sequences *packedmh_find(const struct packedmh *p, struct str dir);
void packedmh_free(struct packedmh *p);

#endif
