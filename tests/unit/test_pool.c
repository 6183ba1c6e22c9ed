#include <stdatomic.h>
#include <unistd.h>

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

struct producer {
        struct queue *q;
        int n;
        size_t cost;
        atomic_int put;
};

static void produce(void *arg)
{
        struct producer *p = arg;

        for (int i = 1; i <= p->n; i++) {
                if (!queue_put(p->q, (void *)(intptr_t)i, p->cost))
                        return;
                p->put++;
        }
}

TEST(queue_many_producers)
{
        struct producer p[4];
        struct thread *t[4];
        struct queue *q = queue_new(1000);
        long sum = 0;

        NEED(q);
        for (int i = 0; i < 4; i++) {
                p[i] = (struct producer){ .q = q, .n = 5000, .cost = (size_t)(i * 100 + 1) };
                t[i] = thread_start(produce, &p[i], "producer", &e);
                NEED(t[i]);
        }
        for (int i = 0; i < 20000; i++)
                sum += (intptr_t)queue_get(q, -1, NULL);
        CHECK(sum == 4L * 5000 * 5001 / 2);
        for (int i = 0; i < 4; i++)
                thread_join(t[i]);
        CHECK(queue_get(q, 0, NULL) == NULL);
        queue_free(q);
}

TEST(queue_is_bounded)
{
        struct producer p = { .q = queue_new(100), .n = 10, .cost = 40 };
        struct thread *t;

        NEED(p.q);
        t = thread_start(produce, &p, "producer", &e);
        NEED(t);
        for (int i = 0; i < 200 && p.put < 2; i++)
                usleep(1000);
        usleep(20000);
        CHECK(p.put == 2);
        CHECK(queue_post(p.q, &p)); /* an event waits for nobody */
        CHECK((intptr_t)queue_get(p.q, 0, NULL) == 1);
        for (int i = 0; i < 200 && p.put < 3; i++)
                usleep(1000);
        CHECK(p.put == 3);
        queue_close(p.q);
        thread_join(t);
        queue_free(p.q);
}

TEST(queue_one_item_always_fits)
{
        struct queue *q = queue_new(10);
        bool closed = true;

        NEED(q);
        CHECK(queue_put(q, q, SIZE_MAX));
        CHECK(queue_get(q, 0, &closed) == q && !closed);
        CHECK(queue_put(q, q, 11));
        CHECK(queue_get(q, 0, NULL) == q);
        queue_free(q);
}

TEST(queue_close_wakes_both)
{
        struct producer p = { .q = queue_new(1), .n = 5, .cost = 5 };
        struct thread *t;
        bool closed = false;

        NEED(p.q);
        t = thread_start(produce, &p, "producer", &e);
        NEED(t);
        for (int i = 0; i < 200 && p.put < 1; i++)
                usleep(1000);
        queue_close(p.q);
        thread_join(t);
        CHECK(p.put == 1);
        CHECK(!queue_put(p.q, &p, 1) && !queue_post(p.q, &p));
        CHECK((intptr_t)queue_get(p.q, -1, &closed) == 1 && !closed); /* what was inside comes out */
        CHECK(queue_get(p.q, -1, &closed) == NULL && closed);
        queue_free(p.q);
}

TEST(queue_get_times_out)
{
        struct queue *q = queue_new(1);
        int64_t before = sys_mono_ms();
        bool closed = true;

        NEED(q);
        CHECK(queue_get(q, 1030, &closed) == NULL && !closed);
        CHECK(sys_mono_ms() - before >= 1029 && sys_mono_ms() - before < 3000);
        queue_free(q);
}

TEST_MAIN
