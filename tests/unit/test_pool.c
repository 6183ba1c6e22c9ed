#include <stdatomic.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/pool.h"
#include "core/sys.h"
#include "tests/unit/test.h"

static struct err e;
static atomic_int done, order_bad, last;

static void job(void *arg)
{
        (void)arg;
        done++;
}

TEST(pool_runs_everything)
{
        struct pool *p = pool_new(4, &e);

        NEED(p);
        done = 0;
        for (int i = 0; i < 10000; i++)
                CHECK(pool_submit(p, job, NULL));
        pool_free(p);
        CHECK(done == 10000);
        pool_free(NULL);
}

static void in_order(void *arg)
{
        int me = (int)(intptr_t)arg;

        if (last + 1 != me)
                order_bad++;
        last = me;
}

TEST(jobs_start_in_order)
{
        struct pool *p = pool_new(1, &e);

        NEED(p);
        last = order_bad = 0;
        for (int i = 1; i <= 1000; i++)
                CHECK(pool_submit(p, in_order, (void *)(intptr_t)i));
        pool_free(p);
        CHECK(last == 1000 && order_bad == 0);
}

TEST(cpus) { CHECK(pool_cpus() >= 1 && pool_cpus() < 100000); }

struct item {
        struct link link;
        int n;
};

struct producer {
        struct queue *q;
        struct item items[5000];
};

static void produce(void *arg)
{
        struct producer *p = arg;

        for (int i = 0; i < 5000; i++) {
                p->items[i].n = i;
                queue_post(p->q, &p->items[i].link);
        }
}

TEST(queue_many_producers)
{
        static struct producer p[4];
        struct thread *t[4];
        struct queue *q = queue_new();
        int next[4] = { 0 }, got = 0, disorder = 0;

        NEED(q);
        for (int i = 0; i < 4; i++) {
                p[i].q = q;
                t[i] = thread_start(produce, &p[i], "producer", &e);
                NEED(t[i]);
        }
        while (got < 20000) {
                for (struct link *l = queue_take(q, -1); l; l = l->next, got++) {
                        const struct item *item = (struct item *)l;

                        for (int i = 0; i < 4; i++)
                                if (item >= p[i].items && item < p[i].items + 5000)
                                        disorder += item->n != next[i]++;
                }
        }
        CHECK(got == 20000 && disorder == 0);
        for (int i = 0; i < 4; i++)
                CHECK(next[i] == 5000);
        for (int i = 0; i < 4; i++)
                thread_join(t[i]);
        CHECK(queue_take(q, 0) == NULL);
        queue_free(q);
}

TEST(queue_gives_all_that_is_there)
{
        struct queue *q = queue_new();
        struct item a, b, c;
        struct link *l;

        NEED(q);
        queue_post(q, &a.link);
        queue_post(q, &b.link);
        l = queue_take(q, 0);
        CHECK(l == &a.link && l->next == &b.link && l->next->next == NULL);
        queue_post(q, &c.link);
        l = queue_take(q, -1);
        CHECK(l == &c.link && l->next == NULL);
        queue_free(q);
        queue_free(NULL);
}

static void post_later(void *arg)
{
        struct producer *p = arg;

        usleep(20000);
        queue_post(p->q, &p->items[0].link);
}

TEST(queue_post_wakes)
{
        static struct producer p;
        struct thread *t;

        p.q = queue_new();
        NEED(p.q);
        t = thread_start(post_later, &p, "producer", &e);
        NEED(t);
        CHECK(queue_take(p.q, 60000) == &p.items[0].link);
        thread_join(t);
        queue_free(p.q);
}

TEST(queue_take_times_out)
{
        struct queue *q = queue_new();
        int64_t before = sys_mono_ms();

        NEED(q);
        CHECK(queue_take(q, 1030) == NULL);
        CHECK(sys_mono_ms() - before >= 1029 && sys_mono_ms() - before < 3000);
        queue_free(q);
}

static atomic_bool stop;
static atomic_size_t asked, not_had;

static void ask_for_memory(void *arg)
{
        while (!stop) {
                void *p = mem_alloc(16);

                not_had += !p;
                asked++;
                mem_free(p);
        }
}

TEST(memory_that_fails_here_fails_for_no_other_thread)
{
        struct pool *p = pool_new(2, &e);

        NEED(p);
        stop = false;
        CHECK(pool_submit(p, ask_for_memory, NULL));
        for (int i = 0; i < 100000 || (asked < 100000 && not_had == 0); i++) {
                mem_fail_here(1, SIZE_MAX);
                CHECK(!mem_alloc(1));
                CHECK(!mem_alloc(1));
                CHECK(mem_fail_here(0, 0) == 2);
        }
        stop = true;
        pool_free(p);
        CHECK(not_had == 0);
}

TEST_MAIN
