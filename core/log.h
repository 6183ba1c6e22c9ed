/* The log: one line an event, to standard error. Control and bidirectional characters are escaped (\x1b), a line is cut
 * at 8 KiB, so nothing a message or a server says can touch the terminal. Safe to call from any thread. */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include "core/str.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines of a level above this one are dropped. LOG_WARN until it is set. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* Where lines go instead of standard error (progress lines, --json, tests); NULL: standard error again.
 * Called under the log's lock. line has no line end and is already escaped. */
void log_set_sink(void (*sink)(void *ctx, enum log_level level, struct str line), void *ctx);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_line(enum log_level level, struct str text);

/* Writes s into out (of size n, always terminated), control characters, DEL, C1, bidi controls and invalid UTF-8 as \xNN
 * or \u{…}; returns the bytes written. The one escaper for terminals, logs and error texts. */
size_t log_escape(struct str s, char *out, size_t n);

#endif
