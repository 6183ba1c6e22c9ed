/* Unicode beyond UTF-8 itself: the canonical composed form (NFC), and what is equal but for case. Folding one character to one is utf8_fold
 * in core/charset.h. */
#ifndef CORE_UNICODE_H
#define CORE_UNICODE_H

#include "core/buf.h"

/* Appends s in Normalization Form C. s is valid UTF-8. Of the marks on one character only the first 32 are kept
 * (Unicode's own stream-safe form allows 30), so a heap of accents costs no more than its length. */
bool unicode_nfc(struct str s, struct buf *out);
/* Appends what is the same for all texts that differ in case only (full case folding: the ligature fi is "fi", a sharp s "ss"), in NFC. s is
 * valid UTF-8. At most three times as many characters. */
bool unicode_caseless(struct str s, struct buf *out);

#endif
