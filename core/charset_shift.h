/* Charsets of seven bits that change their set on the way: ISO-2022-JP (RFC 1468) and HZ (RFC 1843), as runs of their twins in eight bits.
 * Internal to charset.c: glibc has no HZ, and its ISO-2022-JP lacks the half-width katakana that mail has. */
#ifndef CORE_CHARSET_SHIFT_H
#define CORE_CHARSET_SHIFT_H

#include "core/str.h"

enum { SHIFT_RUN = 64 };

enum shift_set { SHIFT_ASCII, SHIFT_ROMAN, SHIFT_KANA, SHIFT_DOUBLE, SHIFT_THREE };

struct shift {
        enum shift_set set;
        bool hz;
};

enum shift_kind {
        SHIFT_MORE,    /* in is empty, or an escape or a character that more bytes would complete */
        SHIFT_UTF8,    /* text as it is */
        SHIFT_TWIN,    /* whole characters of EUC-JP (of two bytes, or of three), or of GB 2312 */
        SHIFT_INVALID, /* a byte that means nothing */
};

/* Takes the next run off in; its bytes are run[0..*n). */
enum shift_kind shift_next(struct shift *s, struct str *in, char run[SHIFT_RUN], size_t *n);

/* Two bytes of EUC-JP as the same place of JIS X 0208 in Shift_JIS, whose code page 932 has more rows of it. False where they are none. */
bool shift_to_sjis(struct str pair, char out[2]);

#endif
