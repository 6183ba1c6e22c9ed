#include "core/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"

/* ---- threads --------------------------------------------------------------------------------------------------- */

/* Signals are the main thread's: a thread that handled SIGTERM could be any, in the middle of anything. */
static int create(pthread_t *id, void *(*f)(void *), void *arg)
{
        sigset_t all, before;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(id, NULL, f, arg);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return r;
}

struct thread {
        pthread_t id;
        void (*f)(void *arg);
        void *arg;
        char name[16]; /* what Linux keeps */
        bool detached;
};

static void *thread_main(void *arg)
{
        struct thread *t = arg;

        pthread_setname_np(pthread_self(), t->name);
        t->f(t->arg);
        if (t->detached) {
                pthread_detach(pthread_self());
                mem_free(t);
        }
        return NULL;
}

static struct thread *start(void (*f)(void *arg), void *arg, const char *name, bool detached, struct err *e)
{
        struct thread *t = mem_zero(sizeof *t);
        int r;

        if (!t) {
                err_nomem(e);
                return NULL;
        }
        t->f = f;
        t->arg = arg;
        t->detached = detached;
        snprintf(t->name, sizeof t->name, "%s", name);
        r = create(&t->id, thread_main, t);
        if (r == 0)
                return t;
        err_sys(e, ERR_IO, r, "starting a thread for %s", name);
        mem_free(t);
        return NULL;
}

struct thread *thread_start(void (*f)(void *arg), void *arg, const char *name, struct err *e)
{
        return start(f, arg, name, false, e);
}

bool thread_detach(void (*f)(void *arg), void *arg, const char *name, struct err *e)
{
        return start(f, arg, name, true, e) != NULL;
}

void thread_join(struct thread *t)
{
        if (!t)
                return;
        pthread_join(t->id, NULL);
        mem_free(t);
}

/* ---- the pool -------------------------------------------------------------------------------------------------- */

struct job {
        void (*f)(void *arg);
        void *arg;
        struct job *next;
};

struct pool {
        pthread_mutex_t lock;
        pthread_cond_t work;
        struct job *first, **last;
        bool closing;
        unsigned count;
        pthread_t threads[];
};

static struct job *next_job(struct pool *p)
{
        struct job *j;

        pthread_mutex_lock(&p->lock);
        while (!p->first && !p->closing)
                pthread_cond_wait(&p->work, &p->lock);
        j = p->first;
        if (j) {
                p->first = j->next;
                if (!p->first)
                        p->last = &p->first;
        }
        pthread_mutex_unlock(&p->lock);
        return j;
}

static void *pool_main(void *arg)
{
        struct pool *p = arg;
        struct job *j;

        pthread_setname_np(pthread_self(), "mailmill-pool");
        while ((j = next_job(p)) != NULL) {
                j->f(j->arg);
                mem_free(j);
        }
        return NULL;
}

struct pool *pool_new(unsigned threads, struct err *e)
{
        struct pool *p = mem_zero(sizeof *p + threads * sizeof p->threads[0]);
        int r;

        if (!p) {
                err_nomem(e);
                return NULL;
        }
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->work, NULL);
        p->last = &p->first;
        for (; p->count < threads; p->count++) {
                r = create(&p->threads[p->count], pool_main, p);
                if (r != 0 && p->count == 0) {
                        err_sys(e, ERR_IO, r, "starting a thread");
                        pool_free(p);
                        return NULL;
                }
                if (r != 0)
                        break; /* fewer threads do the same work */
        }
        return p;
}

bool pool_submit(struct pool *p, void (*f)(void *arg), void *arg)
{
        struct job *j = mem_alloc(sizeof *j);

        if (!j)
                return false;
        *j = (struct job){ f, arg, NULL };
        pthread_mutex_lock(&p->lock);
        *p->last = j;
        p->last = &j->next;
        pthread_cond_signal(&p->work);
        pthread_mutex_unlock(&p->lock);
        return true;
}

void pool_free(struct pool *p)
{
        if (!p)
                return;
        pthread_mutex_lock(&p->lock);
        p->closing = true;
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
        for (unsigned i = 0; i < p->count; i++)
                pthread_join(p->threads[i], NULL);
        pthread_cond_destroy(&p->work);
        pthread_mutex_destroy(&p->lock);
        mem_free(p);
}

unsigned pool_cpus(void)
{
        cpu_set_t set;
        long n = 0;

        if (sched_getaffinity(0, sizeof set, &set) == 0)
                n = CPU_COUNT(&set);
        if (n < 1)
                n = sysconf(_SC_NPROCESSORS_ONLN);
        return n < 1 ? 1 : (unsigned)n;
}

/* ---- the queue ------------------------------------------------------------------------------------------------- */

struct queue {
        pthread_mutex_t lock;
        pthread_cond_t filled;
        struct link *first, **last;
};

struct queue *queue_new(void)
{
        struct queue *q = mem_zero(sizeof *q);
        pthread_condattr_t monotonic;

        if (!q)
                return NULL;
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_mutex_init(&q->lock, NULL);
        pthread_cond_init(&q->filled, &monotonic);
        pthread_condattr_destroy(&monotonic);
        q->last = &q->first;
        return q;
}

void queue_free(struct queue *q)
{
        if (!q)
                return;
        pthread_cond_destroy(&q->filled);
        pthread_mutex_destroy(&q->lock);
        mem_free(q);
}

void queue_post(struct queue *q, struct link *item)
{
        item->next = NULL;
        pthread_mutex_lock(&q->lock);
        *q->last = item;
        q->last = &item->next;
        pthread_mutex_unlock(&q->lock);
        pthread_cond_signal(&q->filled);
}

static struct timespec from_now(int ms)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_sec += ms / 1000;
        t.tv_nsec += ms % 1000 * 1000000L;
        if (t.tv_nsec >= 1000000000L) {
                t.tv_sec++;
                t.tv_nsec -= 1000000000L;
        }
        return t;
}

/* Under the lock: waits until something is there, or time has passed. */
static void wait_filled(struct queue *q, int timeout_ms)
{
        struct timespec end = from_now(timeout_ms < 0 ? 0 : timeout_ms);
        int r = 0;

        while (!q->first && r != ETIMEDOUT)
                r = timeout_ms < 0 ? pthread_cond_wait(&q->filled, &q->lock) : pthread_cond_timedwait(&q->filled, &q->lock, &end);
}

struct link *queue_take(struct queue *q, int timeout_ms)
{
        struct link *all;

        pthread_mutex_lock(&q->lock);
        if (!q->first && timeout_ms != 0)
                wait_filled(q, timeout_ms);
        all = q->first;
        q->first = NULL;
        q->last = &q->first;
        pthread_mutex_unlock(&q->lock);
        return all;
}
