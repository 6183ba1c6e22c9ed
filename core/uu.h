/* uuencode, line by line. */
#ifndef CORE_UU_H
#define CORE_UU_H

#include "core/str.h"

/* Decodes one line (without its line end) into out (room for 63 bytes). Returns the bytes, 0 at the end line, or -1 for a
 * line that is not uuencoded data; a length byte larger than the line is a short line: what is there is decoded. */
int uu_decode_line(struct str line, char *out);
/* True for "begin 644 name"; sets *name. */
bool uu_begin(struct str line, struct str *name);

#endif
