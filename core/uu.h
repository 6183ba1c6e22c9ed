/* uuencode, line by line. */
#ifndef CORE_UU_H
#define CORE_UU_H

#include "core/str.h"

/* Decodes one line (without its line end) into out (room for 63 bytes). Returns the bytes, 0 at the end line ("end", or a
 * line of length 0), or -1 for a line that is not uuencoded data. Where the length byte is larger than the line, what is
 * missing was spaces, which gateways take off: they count 0. */
int uu_decode_line(struct str line, char *out);
/* True for "begin 644 name"; sets *name. */
bool uu_begin(struct str line, struct str *name);

#endif
