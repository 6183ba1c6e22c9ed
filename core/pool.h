/* A pool of C threads, and a queue between threads. */
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

/* A queue from many threads to one. What is posted has a link in it and is the queue's until it is taken; so a post needs no memory and cannot fail. */
struct link {
        struct link *next;
};
struct queue;
struct queue *queue_new(void) MUST_CHECK;
void queue_free(struct queue *q); /* what is still in it is its owner's */
void queue_post(struct queue *q, struct link *item);
/* All that is there, in order; waits at most timeout_ms for it to come (-1: for ever). NULL: time passed. */
struct link *queue_take(struct queue *q, int timeout_ms);

#endif
