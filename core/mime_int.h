/* Private to mime.c and mime_entity.c: from the header of an entity to what kind of thing it is. */
#ifndef CORE_MIME_INT_H
#define CORE_MIME_INT_H

#include "core/mime.h"

/* Fills kind, encoding, type and boundary of m from its header block; m->parent and m->depth are set. `cut`: the block was longer
 * than the limit and this is its beginning. A multipart or message too deep comes out as a leaf. keep (may be NULL) gets the split
 * header, in a. False when out of memory. */
bool mime_entity_read(struct mime *m, struct str block, bool cut, const struct limits *lim, struct mime_defects *d,
                      struct header *keep, struct arena *a) MUST_CHECK;

#endif
