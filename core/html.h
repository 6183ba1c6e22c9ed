/* Readable text from HTML: what a person sees, as lines. */
#ifndef CORE_HTML_H
#define CORE_HTML_H

#include "core/buf.h"

/* Appends the text of html (UTF-8) to out, at most `max` bytes: blocks as lines, paragraphs apart by an empty line, list items
 * with "- " or their number, table rows as lines with cells apart by two blanks, links as "text <url>" where the text is not the
 * url, images as their alt text; script, style, head and what a style or `hidden` takes off the page left out. Any HTML will do; what is too deep or too rich for a tree is
 * read without one. False only when out of memory. */
bool html_text(struct str html, size_t max, struct buf *out, struct err *e);
/* The charset that a meta element at the beginning of the bytes declares, borrowed from them; empty when none does. */
struct str html_charset(struct str bytes);

#endif
