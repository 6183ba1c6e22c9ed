/* Charsets to UTF-8, through iconv. */
#ifndef CORE_CHARSET_H
#define CORE_CHARSET_H

#include "core/buf.h"

/* Appends `in`, written in `charset`, to out as valid UTF-8. What cannot be converted becomes U+FFFD, and *bad (may be
 * NULL) is set. An unknown or absurd charset (longer than 64 bytes, or with bytes that no charset name has): bytes that
 * are valid UTF-8 are taken as such, all others as Windows-1252 would have them, and *unknown is set. Common aliases that
 * iconv does not know (cp-850, x-sjis, ks_c_5601-1987, iso-8859-8-i, unicode-1-1-utf-7, ansi_x3.110 …) are mapped, and what the
 * web's encoding standard widens is widened (gb2312 to gb18030,
 * shift_jis to cp932, euc-kr to cp949, iso-2022-jp and euc-jp by what NEC and Microsoft added). An empty charset is us-ascii, and that is UTF-8 where valid, else Windows-1252. iso-8859-1 is
 * taken at its word: other readers agree on that.
 * False only when out is full or out of memory. Converters are cached per thread. */
bool charset_to_utf8(struct str charset, struct str in, struct buf *out, bool *bad, bool *unknown);

/* A conversion that can be stopped at any byte (a character may be split between chunks). */
struct charset_stream;
struct charset_stream *charset_open(struct str charset, bool *unknown) MUST_CHECK;
bool charset_feed(struct charset_stream *s, struct str in, struct buf *out);
bool charset_end(struct charset_stream *s, struct buf *out, bool *bad); /* frees s */

bool utf8_valid(struct str s);
/* Decodes one character at s (s.n > 0): its length, and *cp; an invalid byte is length 1 and U+FFFD. */
size_t utf8_next(struct str s, uint32_t *cp);
/* Writes cp (1..4 bytes); returns the length. */
size_t utf8_put(uint32_t cp, char out[4]);
/* Appends s to out with every invalid byte as U+FFFD. */
bool utf8_clean(struct str s, struct buf *out);
/* The longest prefix of s of at most n bytes that does not end inside a character. */
struct str utf8_cut(struct str s, size_t n);
/* Simple case folding of one character (Unicode's common and simple mappings; towlower of the C.UTF-8 locale is not it). */
uint32_t utf8_fold(uint32_t cp);

#endif
