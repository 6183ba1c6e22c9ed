/* uuencode, line by line. */
#ifndef CORE_UU_H
#define CORE_UU_H

#include "core/buf.h"

/* Decodes one line (without its line end) into out (room for 63 bytes). Returns the bytes, 0 at the end line ("end", or a
 * line of length 0), or -1 for a line that is not uuencoded data. Where the length byte is larger than the line, what is
 * missing was spaces, which gateways take off: they count 0. */
int uu_decode_line(struct str line, char *out);
/* True for "begin 644 name"; sets *name, which may be empty: some leave it out. */
bool uu_begin(struct str line, struct str *name);

enum { UU_LINE_MAX = 256 }; /* an encoder's line has at most 63 bytes, a begin line little more than a file name */

/* Looks for uuencoded files in text, in one pass; all zero is the start. A begin line counts only when data follows it. A file
 * without its end line goes as far as its lines make sense, and counts only when it began with a full one: prose may say "begin". */
struct uu_finder {
        uint64_t at, n;    /* the file found: from its begin line through its end line */
        bool ended;        /* its end line is there */
        struct str name;   /* raw bytes, in the finder, good until it is fed again */

        uint64_t fed, line_at, begin, good;
        char line[UU_LINE_MAX], kept[UU_LINE_MAX], next[UU_LINE_MAX];
        size_t line_n, kept_n, next_n;
        bool full, line_long;
        unsigned bad;
        enum { UU_TEXT, UU_FIRST, UU_DATA, UU_LAST } state;
};
/* Takes bytes off the front of *rest, which continues the text in chunks of any size. True when a file ended; call again while *rest
 * has bytes. */
bool uu_find(struct uu_finder *f, struct str *rest);
/* The end of the text: true when a file was still open. */
bool uu_find_end(struct uu_finder *f);
/* Appends text without the files in it. False when out is full or out of memory. */
bool uu_strip(struct str text, struct buf *out);

#endif
