/* What a message keeps beside its own bytes: contents of wrappers, members of archives. Little of it in memory, the rest one behind the
 * other in a file without a name. What is put here is a range from then on, as good as the message's own. */
#ifndef CORE_SPILL_H
#define CORE_SPILL_H

#include "core/buf.h"
#include "core/range.h"

/* Where such files are made, said once, before any thread; "/tmp" until then. */
void spill_place(const char *dir);

struct spill {
        uint64_t memory;        /* so many bytes may be kept in memory */
        uint64_t used;          /* of these */
        struct backing **kept;
        size_t n, cap;
        struct backing *file;   /* one of these, NULL until it is needed */
        int fd;
        uint64_t end;           /* of the file */
};

void spill_init(struct spill *s, uint64_t memory);
void spill_free(struct spill *s);
/* Takes the memory of b, whatever its size; b is empty afterwards. */
bool spill_take(struct spill *s, struct buf *b, struct range *out, struct err *e) MUST_CHECK;

/* One piece that comes in blocks; no other may come meanwhile. */
struct spilling {
        struct spill *s;
        struct buf b;
        uint64_t n;
        bool in_file;
};
void spilling_begin(struct spilling *w, struct spill *s);
bool spilling_add(struct spilling *w, struct str block, struct err *e) MUST_CHECK;
bool spilling_end(struct spilling *w, struct range *out, struct err *e) MUST_CHECK;
void spilling_drop(struct spilling *w); /* also after spilling_end, which leaves nothing to drop */

#endif
