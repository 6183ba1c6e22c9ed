/* Paragraphs out of format=flowed text, RFC 3676. */
#ifndef CORE_FLOWED_H
#define CORE_FLOWED_H

#include "core/buf.h"

/* Appends text (UTF-8, LF) to out with each paragraph on one line, space-stuffing undone, quotes as "> ", "-- " left alone.
 * delsp: the blank at the end of a flowed line was added, not typed. False when out is full or out of memory. */
bool flowed_unwrap(struct str text, bool delsp, struct buf *out);

#endif
