/* A pool of C threads, and a queue between threads that is bounded in bytes. */
#ifndef CORE_POOL_H
#define CORE_POOL_H

#include <stddef.h>

#include "core/err.h"

struct pool;
struct pool *pool_new(unsigned threads, struct err *e) MUST_CHECK;
/* Runs f(arg) on some thread. False when out of memory. Jobs start in order. */
bool pool_submit(struct pool *p, void (*f)(void *arg), void *arg) MUST_CHECK;
void pool_free(struct pool *p); /* waits for what was submitted */
unsigned pool_cpus(void);       /* processors this process may use */

/* A thread of its own, for what waits a lot (a POP3 session). */
struct thread;
struct thread *thread_start(void (*f)(void *arg), void *arg, const char *name, struct err *e) MUST_CHECK;
void thread_join(struct thread *t); /* and frees */
/* A thread nobody waits for: what it touches must outlive it. */
bool thread_detach(void (*f)(void *arg), void *arg, const char *name, struct err *e) MUST_CHECK;

/* A queue with one consumer: items of a given cost in bytes; queue_put waits while more than `max` bytes are inside (one item
 * always fits, so nothing is too large). */
struct queue;
struct queue *queue_new(size_t max) MUST_CHECK;
void queue_free(struct queue *q);
/* Waits for room. False when the queue was closed meanwhile: the item stays the caller's. out of memory counts as closed. */
bool queue_put(struct queue *q, void *item, size_t cost) MUST_CHECK;
/* Like queue_put but never waits and ignores the bound: for events. */
bool queue_post(struct queue *q, void *item) MUST_CHECK;
/* The next item; waits at most timeout_ms (-1: for ever). NULL: time passed, or closed and empty (*closed, may be NULL, tells). */
void *queue_get(struct queue *q, int timeout_ms, bool *closed);
void queue_close(struct queue *q);

#endif
