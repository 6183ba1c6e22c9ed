/* A two-way stream of bytes with deadlines, behind a four-function table: a socket, TLS, memory, and for tests drip (n bytes
 * a call), cut (ends at byte k) and stall. */
#ifndef CORE_STREAM_H
#define CORE_STREAM_H

#include <stdatomic.h>
#include <sys/types.h>

#include "core/buf.h"
#include "core/err.h"
#include "core/str.h"

struct stream;
struct stream_ops {
        /* At least one byte, 0 at the end, -1 on failure. deadline: sys_mono_ms() value after which it fails with ERR_TIMEOUT;
         * a truncated TLS stream (no close_notify) is an error with code ERR_NET, not an end. */
        ssize_t (*read)(struct stream *s, char *p, size_t n, int64_t deadline, struct err *e);
        /* How many of n bytes were taken (at least one), or -1. */
        ssize_t (*write)(struct stream *s, const char *p, size_t n, int64_t deadline, struct err *e);
        /* True when a read would not wait (bytes are there, or the end). For a pipelining writer that must not deadlock. */
        bool (*ready)(struct stream *s);
        void (*close)(struct stream *s); /* and frees */
        /* Waits until a read may make progress (or a write, when `writing`), or the deadline. May be NULL: a writer that also
         * reads then looks now and then. */
        void (*wait)(struct stream *s, bool writing, int64_t deadline);
};
struct stream {
        const struct stream_ops *ops;
};

/* Deadlines: a value of sys_mono_ms(). What can be done without waiting is done even when it has passed. */
enum { STREAM_NOW = 0 };                  /* tries once: ERR_TIMEOUT when it would wait */

struct stream *stream_fd(int fd, struct err *e) MUST_CHECK; /* owns fd, also after failure; makes it non-blocking */
/* Tests: reads from `in` (borrowed), writes are collected in *out (may be NULL). */
struct stream *stream_memory(struct str in, struct buf *out, struct err *e) MUST_CHECK;
enum stream_end { STREAM_EOF, STREAM_RESET, STREAM_STALL };
struct stream *stream_drip(struct stream *inner, size_t n, struct err *e) MUST_CHECK;                     /* n bytes a call */
struct stream *stream_cut(struct stream *inner, uint64_t at, enum stream_end how, struct err *e) MUST_CHECK;

ssize_t stream_read(struct stream *s, char *p, size_t n, int64_t deadline, struct err *e) MUST_CHECK;
bool stream_write_all(struct stream *s, struct str p, int64_t deadline, struct err *e) MUST_CHECK;
void stream_close(struct stream *s); /* may be NULL */
/* Takes the descriptor out of a stream made by stream_fd, and frees the stream; -1 (and nothing happened) for any other. */
int stream_release_fd(struct stream *s);

/* For streams over a descriptor: polls it; true when one of `events` (or an error, or the end) is there before the deadline. */
bool stream_poll(int fd, short events, int64_t deadline);
/* The same, and fails: ERR_TIMEOUT at the deadline, ERR_STOPPED soon after *stop (may be NULL) is set. */
bool stream_poll_or_stop(int fd, short events, int64_t deadline, const atomic_bool *stop, struct err *e) MUST_CHECK;

#endif
