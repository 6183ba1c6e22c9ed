/* Bodies of messages, line by line, for the one thing in them that matters to a parser of structure: a line that begins with '-'. */
#ifndef CORE_LINESCAN_H
#define CORE_LINESCAN_H

#include <stddef.h>
#include <stdint.h>

/* Offset of the first line end (LF) in p[0..n) behind which a '-' or the end stands; n when there is none. The line ends up to it, with
 * it, are added to *lines. Vector code where the processor has it. */
size_t linescan_dash(const char *p, size_t n, uint64_t *lines);
/* The same a line at a time, anywhere: the vector code's twin. */
size_t linescan_dash_portable(const char *p, size_t n, uint64_t *lines);

#endif
