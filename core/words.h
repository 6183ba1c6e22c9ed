/* Encoded-words, RFC 2047 (and the ways real mail bends it). */
#ifndef CORE_WORDS_H
#define CORE_WORDS_H

#include "core/arena.h"
#include "core/limits.h"

enum words_defect { WORDS_BAD = 1, WORDS_CHARSET = 2, WORDS_LIMIT = 4 };

/* Decodes an unfolded value of unstructured text to UTF-8: encoded-words decoded (also without blanks around them and
 * inside quotes, as real mail has them), blanks between two of them dropped, neighbours of one charset joined before
 * conversion so that a character split between them survives; raw 8-bit as UTF-8 when valid, else in `fallback` charset
 * (empty: Windows-1252). *defects collects words_defect bits. {NULL,0} only when out of memory. Output is at most
 * 4 * in + 1 KiB, without control characters (line ends become blanks). It may be `in` itself, where nothing is to decode. */
struct str words_decode(struct str in, struct str fallback, const struct limits *lim, unsigned *defects, struct arena *a);

/* Does an encoded-word begin in this line that does not end in it? */
bool words_unended(struct str line);

/* Encodes UTF-8 text as the value of a header field, encoded-words where it needs them, folded at 76 columns, the first line
 * starting at `column`. phrase: also quotes or encodes what a display name may not hold bare. */
struct str words_encode(struct str utf8, bool phrase, size_t column, struct arena *a);

#endif
