/* A buffered conversation over a stream: lines and blocks in, lines out, deadlines that measure progress. */
#ifndef CORE_LINES_H
#define CORE_LINES_H

#include <stdatomic.h>

#include "core/buf.h"
#include "core/stream.h"

struct lines;

/* Owns s, also after failure (s NULL, because it could not be opened, fails with what stands in e). idle_ms: no byte for that long
 * ends it with ERR_TIMEOUT; so does less than 1 KiB in idle_ms inside one answer (lines_answer_begins starts the count). */
struct lines *lines_new(struct stream *s, int idle_ms, struct err *e) MUST_CHECK;
void lines_free(struct lines *l);          /* closes the stream */
void lines_set_idle(struct lines *l, int idle_ms);
void lines_answer_begins(struct lines *l);
/* Once *stop is set, 3 s in which nothing comes (or, while we send, nothing is taken) end it with ERR_STOPPED, whatever the idle time.
 * stop may be NULL. */
void lines_set_stop(struct lines *l, const atomic_bool *stop);
/* One line without its line end, good until the next call; longer than max: ERR_PROTO. *bare_lf (may be NULL) tells how it ended.
 * The end of the stream is ERR_NET "the server closed the connection". */
bool lines_read(struct lines *l, size_t max, struct str *line, bool *bare_lf, struct err *e) MUST_CHECK;
/* What is buffered, after reading more if nothing is; take some of it with lines_take. */
bool lines_fill(struct lines *l, struct str *have, struct err *e) MUST_CHECK;
/* The same, but only what has come already (buffered or readable without waiting); empty when nothing has. */
bool lines_poll(struct lines *l, struct str *have, struct err *e) MUST_CHECK;
void lines_take(struct lines *l, size_t n);
size_t lines_buffered(const struct lines *l);
/* Queues bytes to be sent; sends when much is queued, and before a read waits. While it sends it also reads what comes (bounded), so two pipelining
 * sides cannot block each other. */
bool lines_write(struct lines *l, struct str s, struct err *e) MUST_CHECK;
bool lines_flush(struct lines *l, struct err *e) MUST_CHECK;
/* Hands the descriptor over for a TLS handshake: fails with ERR_PROTO when bytes are buffered or waiting (STARTTLS injection).
 * The lines object then continues on the new stream. */
bool lines_upgrade(struct lines *l, struct stream *(*wrap)(void *ctx, int fd, struct err *e), void *ctx, struct err *e) MUST_CHECK;
bool lines_is_tls(const struct lines *l);
/* Every line sent or received goes to the debug log with secrets masked: between these two calls sent lines are "***", and of the answers
 * to them, which may repeat them, there is only the first word. */
void lines_mask(struct lines *l, bool on);
uint64_t lines_bytes_in(const struct lines *l);

#endif
