/* Batches: staging on the pool, commitment on the carrier's thread, and what happens when one of them fails. */
#include <errno.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/run_int.h"
#include "core/supervise.h"
#include "core/sys.h"

/* Messages of archives that were only looked at: there is nothing to sync for more of them together, and the memory of fewer is still in
 * the processor's cache when the next ones get it. */
enum { LOOKED_AT_MAX = 64 };

static void batch_put(struct batch *b, struct job *j)
{
        j->batch = b;
        j->next = NULL;
        j->prev = b->last;
        if (b->last)
                b->last->next = j;
        else
                b->first = j;
        b->last = j;
        b->n++;
        b->bytes += j->cost;
}

static struct batch *batch_new(struct run *r)
{
        struct batch *b = mem_zero(sizeof *b);

        if (b) {
                b->run = r;
                b->event = (struct event){ .kind = GOT_CARRIED, .what = b };
        }
        return b;
}

/* ---- staging, on the pool ---- */

static void stage(void *arg)
{
        struct job *j = arg;
        const struct origin *o = message_origin(j->message);
        unsigned slot = hand_slot();

        hand_take(slot, j->lane->la.name, o->uid, o->occurrence, "writing");
        j->failed = !commit_stage(&j->run->committer, &j->item, &j->error);
        hand_drop(slot);
        j->event = (struct event){ .kind = GOT_STAGED, .what = j };
        queue_post(j->run->events, &j->event.link);
}

/* An archive's message that a script only looked at: no thread need hear of it. */
static bool nothing_to_stage(const struct job *j)
{
        return j->item.guard->archive && !j->item.hold && !j->item.plan->first;
}

void job_stage(struct run *r, struct job *j)
{
        if (!r->open && !(r->open = batch_new(r))) {
                struct err e = { 0 };

                err_nomem(&e);
                run_end(r, &e);
                job_over(r, j, OUTCOME_UNDONE);
                return;
        }
        batch_put(r->open, j);
        j->staged = nothing_to_stage(j);
        r->open->writes |= !j->staged || j->item.plan->changes;
        if (j->staged)
                return;
        r->open->unstaged++;
        if (!pool_submit(r->pool, stage, j)) {
                err_nomem(&j->error);
                j->staged = j->failed = r->open->closed = true;
                r->open->unstaged--;
        }
}

/* ---- carrying out, on the carrier's thread ---- */

static void carry(void *arg)
{
        struct batch *b = arg;
        struct item **items = mem_array(b->n ? b->n : 1, sizeof *items);
        size_t i = 0;

        if (!items)
                err_nomem(&b->error);
        for (struct job *j = items ? b->first : NULL; j; j = j->next)
                items[i++] = &j->item;
        if (items)
                b->committed = commit_batch(&b->run->committer, items, b->n, &b->retry, &b->error);
        mem_free(items);
        queue_post(b->run->events, &b->event.link);
}

static void redo_put(struct run *r, struct job *j)
{
        j->batch = NULL;
        j->next = NULL;
        j->prev = r->redo_last;
        if (r->redo_last)
                r->redo_last->next = j;
        else
                r->redo_first = j;
        r->redo_last = j;
}

/* Takes the jobs from j on out of the batch, to be decided again. */
static void cut_batch(struct run *r, struct batch *b, struct job *j)
{
        if (!j)
                return;
        b->last = j->prev;
        if (j->prev)
                j->prev->next = NULL;
        else
                b->first = NULL;
        for (struct job *next; j; j = next) {
                next = j->next;
                b->n--;
                redo_put(r, j);
        }
}

/* Something decided is undone. Whatever was decided after it may rely on it (a name, a value in a store): also what waits half
 * decided, and a batch that has been opened since. Nothing is decided until all of it is back in its lanes. */
static void distrust(struct run *r)
{
        r->draining = true;
        for (size_t i = 0; i < r->lane_n; i++) {
                struct job *j = r->lanes[i].waiting;

                if (j && !j->stale) {
                        j->stale = true;
                        r->stale_n++;
                }
        }
}

/* The disk is full or broken: nothing of the message counts, and nothing more is fetched. */
bool ends_fetching(const struct err *e)
{
        return e->code == ERR_FULL || e->code == ERR_NOMEM ||
               (e->code == ERR_IO && (e->sys == EIO || e->sys == EROFS || e->sys == EMFILE || e->sys == ENFILE));
}

/* Disk, quota, permission: no attempt of the script's. */
bool is_of_machine(const struct err *e)
{
        return e->code == ERR_IO || e->code == ERR_FULL || e->code == ERR_NOMEM || e->code == ERR_BUSY;
}

/* A plan that cannot be staged: what was decided before it commits, it is held, what was decided after it is decided again. */
static void cut_at_failure(struct run *r, struct batch *b)
{
        struct job *j = b->first;

        while (j && !j->failed)
                j = j->next;
        if (!j)
                return;
        distrust(r);
        if (ends_fetching(&j->error) || j->item.hold) {
                run_end(r, &j->error);
                cut_batch(r, b, j);
                return;
        }
        cut_batch(r, b, j->next);
        job_hold(j, &j->error, !is_of_machine(&j->error) && j->error.code != ERR_EXISTS && j->error.code != ERR_ABSENT);
        j->failed = j->staged = false;
        b->unstaged++;
        if (!pool_submit(r->pool, stage, j)) {
                b->unstaged--;
                cut_batch(r, b, j);
                run_end(r, &j->error);
        }
}

/* Every source waits for its outcomes. */
static bool input_is_over(const struct run *r)
{
        for (size_t i = 0; i < r->lane_n; i++) /* one that has not begun waits for others to end */
                if (r->lanes[i].arrived.first || (r->lanes[i].started && !r->lanes[i].ended && !r->lanes[i].input_ended))
                        return false;
        return true;
}

/* At half the queue: a batch that fills it would wait for its time with nothing more coming in, and reading would stand still while it is
 * carried out. */
static bool batch_is_due(const struct run *r, const struct batch *b)
{
        const struct limits *lim = &r->config.limits;

        return b->closed || b->n >= (b->writes ? lim->batch_messages : LOOKED_AT_MAX) || b->bytes >= lim->batch_bytes || b->bytes >= lim->queue / 2 ||
               r->draining || r->ending || input_is_over(r) ||
               run_ms_left(r->last_input_ms, lim->batch_ms) == 0;
}

void run_advance(struct run *r)
{
        struct batch *b = r->open;

        if (!b || !batch_is_due(r, b))
                return;
        b->closed = true;
        if (b->unstaged > 0 || r->carrying)
                return;
        if (b->undone)
                cut_batch(r, b, b->first);
        else
                cut_at_failure(r, b);
        if (b->unstaged > 0)
                return; /* the failed one's bytes are on their way to the spool */
        r->open = NULL;
        if (b->n == 0) {
                mem_free(b);
                return;
        }
        r->carrying = b;
        if (!pool_submit(r->carrier, carry, b))
                carry(b); /* no memory for a job: here and now */
}

static void settle_committed(struct run *r, struct batch *b)
{
        for (size_t i = 0; i < b->committed; i++) {
                struct job *j = b->first;

                b->first = j->next;
                if (b->first)
                        b->first->prev = NULL;
                else
                        b->last = NULL;
                job_settled(r, j);
        }
}

void batch_carried(struct run *r, struct batch *b)
{
        r->carrying = NULL;
        settle_committed(r, b);
        if (b->first && b->retry) {
                b->first->redone++;
                b->first->error = b->error;
        }
        if (b->first) {
                distrust(r);
                cut_batch(r, b, b->first);
                if (r->open)
                        r->open->closed = r->open->undone = true;
        }
        if (b->error.code != ERR_NONE && !b->retry)
                run_end(r, &b->error);
        mem_free(b);
}

static void redo_one(struct run *r, struct job *j)
{
        commit_drop(&r->committer, &j->item);
        job_forget_plan(r, j);
        j->item.hold = j->item.attempt = j->failed = j->staged = false;
        lane_put_back(j);
}

/* Nothing is on its way any more: what is to be decided again goes back to the front of its lane, last one first. */
void run_redo(struct run *r)
{
        for (size_t i = 0; i < r->lane_n; i++) {
                if (r->lanes[i].stale)
                        redo_one(r, r->lanes[i].stale);
                r->lanes[i].stale = NULL;
        }
        for (struct job *j = r->redo_last, *before; j; j = before) {
                before = j->prev;
                redo_one(r, j);
        }
        r->redo_first = r->redo_last = NULL;
        r->draining = false;
}
