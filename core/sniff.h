/* What bytes are, whatever they are called: libmagic. Costs some 70 µs a part, so only when asked. */
#ifndef CORE_SNIFF_H
#define CORE_SNIFF_H

#include "core/arena.h"

/* "application/pdf", "text/plain", "application/octet-stream" …, in the arena; {NULL,0} when the database cannot be read or out
 * of memory. Give it the beginning of the bytes. Safe from any thread. */
struct str sniff(struct str bytes, struct arena *a, struct err *e);

#endif
