/* The one sanitiser of names from outside: whatever comes in, what goes out is one safe component of a path. */
#ifndef CORE_FILENAME_H
#define CORE_FILENAME_H

#include "core/arena.h"

enum { FILENAME_MAX_BYTES = 200, FILENAME_EXT_MAX = 16 };

/* Which defects the name showed. */
enum filename_flag {
        FILENAME_BIDI = 1, FILENAME_SPACES = 2, FILENAME_CLSID = 4, FILENAME_MIXED = 8, FILENAME_CHANGED = 16,
};

/* One component: what follows the last / or \ (of an attachment's name); controls, DEL, C1, bidi and zero-width characters,
 * : * ? " < > | ` $ ; & out or '_'; no leading dot or dash, no trailing dot or blank, no Windows device name; valid UTF-8
 * in NFC as far as the input is; at most 200 bytes cut at a character with the extension kept. Empty when nothing is left.
 * Idempotent. {NULL,0} only when out of memory. */
struct str filename_clean(struct str name, unsigned *flags, struct arena *a);
/* The same for one expanded value inside a component: separators become '_' instead of cutting, no length limit. */
struct str filename_clean_value(struct str value, struct arena *a);
/* "report.tar.gz" -> ext "gz" (at most 16 bytes, letters and digits), stem "report.tar"; ext empty when there is none. */
void filename_split(struct str name, struct str *stem, struct str *ext);
/* "name (2).ext", shortened so that it stays within the limit. n >= 2. */
struct str filename_number(struct str name, unsigned n, struct arena *a);

#endif
