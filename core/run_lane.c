/* Lanes: one thread a source, a budget of bytes in flight, and the way outcomes come back to the source. */
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/run_int.h"
#include "core/supervise.h"

enum {
        FILE_COST = 64 << 10, /* what a message in a file counts: buffers and parsed pieces */
        AHEAD_MIN = 40,       /* messages that wait to be decided, more than a group: there is time to look into the next */
        BEHIND_MAX = 24,      /* as many or fewer wait: the main thread would soon have nothing to do */
        OVERHEAD = 12 << 10,  /* what any message costs beside its bytes: its facts, its plan, its job */
        GROUP_MAX = 32,       /* messages that are handed over together, where the next one need not be waited for */
        SETTLE_MAX = 64,      /* outcomes that a source hears at once */
};

/* ---- lists of jobs ---- */

static void put_first(struct jobs *q, struct job *j)
{
        j->prev = NULL;
        j->next = q->first;
        q->first = j;
        if (!q->last)
                q->last = j;
}

static void put_last(struct jobs *q, struct job *j)
{
        j->next = j->prev = NULL;
        if (q->last)
                q->last->next = j;
        else
                q->first = j;
        q->last = j;
}

static struct job *take_first(struct jobs *q)
{
        struct job *j = q->first;

        if (j)
                q->first = j->next;
        if (!q->first)
                q->last = NULL;
        return j;
}

/* All of `from` behind what is in q. */
static void move_jobs(struct jobs *q, struct jobs *from)
{
        if (!from->first)
                return;
        if (q->last)
                q->last->next = from->first;
        else
                q->first = from->first;
        q->last = from->last;
        *from = (struct jobs){ NULL, NULL };
}

static void free_job(struct job *j)
{
        message_free(j->message);
        mem_free(j);
}

static void free_jobs(struct jobs *q)
{
        for (struct job *j; (j = take_first(q));)
                free_job(j);
}

/* ---- the source's thread ---- */

static size_t cost_of(const struct message *m)
{
        struct str bytes;

        return (range_in_memory(message_range(m), &bytes) ? bytes.n : FILE_COST) + OVERHEAD;
}

/* What has been gathered goes to the main thread; over: and nothing comes until what came is settled. */
static void hand_over(struct lane *l, bool over)
{
        struct run *r = l->run;
        bool posted;

        atomic_fetch_add_explicit(&r->waiting, l->group_n, memory_order_relaxed);
        pthread_mutex_lock(&r->mutex);
        move_jobs(&l->input, &l->group);
        l->input_over = over;
        posted = l->posted;
        l->posted = true;
        pthread_mutex_unlock(&r->mutex);
        l->group_n = 0;
        if (!posted)
                queue_post(r->events, &l->input_event.link);
}

/* One of each source always fits, so nothing is too large and no source is starved by another whose message waits for a child. */
static bool fits(const struct lane *l, size_t cost)
{
        return l->run->in_flight + cost <= l->run->config.limits.queue || l->in_flight == 0;
}

/* Waits until the message fits beside what is in flight. */
static void take_room(struct lane *l, size_t cost)
{
        struct run *r = l->run;

        pthread_mutex_lock(&r->mutex);
        if (!fits(l, cost) && l->group_n > 0) {
                pthread_mutex_unlock(&r->mutex);
                hand_over(l, false);
                pthread_mutex_lock(&r->mutex);
        }
        while (!fits(l, cost))
                pthread_cond_wait(&r->room, &r->mutex);
        r->in_flight += cost;
        l->in_flight += cost;
        l->outstanding++;
        pthread_mutex_unlock(&r->mutex);
}

static void settle(struct source *s, struct jobs *over)
{
        struct outcome o[SETTLE_MAX];
        size_t n = 0;

        for (struct job *j; (j = take_first(over));) {
                o[n++] = j->item.outcome;
                free_job(j);
                if (n == SETTLE_MAX || !over->first) {
                        s->ops->settle(s, o, n);
                        n = 0;
                }
        }
}

static void settle_what_came(struct lane *l, struct source *s)
{
        struct jobs over = { NULL, NULL };

        pthread_mutex_lock(&l->run->mutex);
        move_jobs(&over, &l->over);
        pthread_mutex_unlock(&l->run->mutex);
        settle(s, &over);
}

static void wait_for_outcomes(struct lane *l, struct source *s)
{
        bool more = true;

        while (more) {
                pthread_mutex_lock(&l->run->mutex);
                while (l->outstanding > 0 && !l->over.first)
                        pthread_cond_wait(&l->came, &l->run->mutex);
                more = l->outstanding > 0;
                pthread_mutex_unlock(&l->run->mutex);
                settle_what_came(l, s);
        }
}

/* Messages that the main thread has before it, from whomever. */
static size_t waiting(const struct lane *l)
{
        return atomic_load_explicit(&l->run->waiting, memory_order_relaxed);
}

/* A parser that dies takes the worker with it: the supervisor must know over which message. ahead: and finds what the script will ask. */
bool lane_parse(const struct lane *l, struct message *m, bool ahead, struct err *e)
{
        const struct origin *o = message_origin(m);
        unsigned slot = hand_slot();
        bool ok;

        hand_take(slot, l->la.name, o->uid, o->occurrence, "reading");
        ok = message_parse(m, e);
        if (ok && ahead)
                message_look_ahead(m, atomic_load_explicit(&l->asked, memory_order_relaxed));
        hand_drop(slot);
        return ok || err_in(e, "message %llu of %.*s", (unsigned long long)o->number, STR_FMT(o->source));
}

/* Reading many small files takes longer than a short script: then its thread, which waits, parses them. */
static bool leaves_parsing(const struct lane *l, const struct source *s, const struct message *m)
{
        struct str bytes;

        return s->prompt && waiting(l) <= BEHIND_MAX && range_in_memory(message_range(m), &bytes);
}

/* For an archive that parses while it reads. next_wanted drops the hand again. */
static bool may_parse(void *ctx, struct str uid)
{
        struct lane *l = ctx;
        struct origin o = { .uid = uid };

        hand_take(hand_slot(), l->la.name, uid, 0, "reading");
        return !run_crash(l->run, l->la.name, &o);
}

static bool has_number(const struct lane *l, const struct source *s)
{
        return l->resumable && s == l->source;
}

static bool give(struct lane *l, struct source *s, struct message *m, const struct crash *crash, bool unparsed, struct err *e)
{
        struct job *j = mem_zero(sizeof *j);

        if (!j)
                return err_nomem(e);
        j->run = l->run;
        j->lane = l;
        j->source = s;
        j->message = m;
        j->cost = cost_of(m);
        j->item.guard = &l->guard;
        j->item.account = l->la.id;
        j->item.spool_fd = -1;
        j->item.number = has_number(l, s) ? message_origin(m)->number : 0;
        j->item.names = l->names;
        j->crash = crash;
        j->unparsed = unparsed;
        j->item.crashed = crash != NULL;
        take_room(l, j->cost);
        put_last(&l->group, j);
        if (++l->group_n >= (s->prompt ? GROUP_MAX : 1) || j->cost >= FILE_COST)
                hand_over(l, false);
        return true;
}

/* One message to the main thread. One that killed a worker is not looked at again: it goes on its way unparsed, to be held. */
static bool pass_on(struct lane *l, struct source *s, struct message *m, struct err *e)
{
        const struct crash *crash = run_crash(l->run, l->la.name, message_origin(m));
        struct outcome o = { .number = message_origin(m)->number, .kind = OUTCOME_UNDONE };
        bool unparsed = crash || leaves_parsing(l, s, m);

        if ((unparsed || lane_parse(l, m, waiting(l) >= AHEAD_MIN, e)) && give(l, s, m, crash, unparsed, e))
                return true;
        s->ops->settle(s, &o, 1);
        message_free(m);
        return false;
}

/* What names a message while its flags change and it moves from new/ to cur/. */
static struct str lasting_name(struct str uid)
{
        size_t n = 0;

        uid = str_from(uid, str_rfind(uid, '/') == uid.n ? 0 : str_rfind(uid, '/') + 1);
        while (n < uid.n && uid.p[n] != ':' && !((uid.p[n] == ';' || uid.p[n] == '!') && str_starts(str_from(uid, n + 1), STR("2,"))))
                n++; /* as maildir.c has it */
        return str_first(uid, n);
}

static uint64_t hash_on(uint64_t h, struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                h = (h ^ (uint8_t)s.p[i]) * 0x100000001b3; /* FNV-1a */
        return (h ^ 0xff) * 0x100000001b3;
}

/* One message's share of the sum in its archive's mark. A sum, since one that is renamed while it is waited for comes later in that run. */
static uint64_t name_hash(const struct origin *o)
{
        uint64_t h = hash_on(hash_on(0xcbf29ce484222325, o->folder), lasting_name(o->uid));

        h = (h ^ h >> 33) * 0xff51afd7ed558ccd; /* every bit counts in every other: MurmurHash3's end */
        h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53;
        return h ^ h >> 33;
}

static bool has_changed(const struct lane *l, struct err *e)
{
        return err_set(e, ERR_USAGE, "%.*s has changed since the run that was cut off after message %llu: only --from-start is possible",
                       STR_FMT(l->source->name), (unsigned long long)l->resume.number);
}

/* Settled by the run that was cut off? *skip tells. The last of them must be the one that it was then, or the count means nothing; and
 * all together must be those that they were: one deleted and one added before the last leave the count as it was. */
static bool was_settled(const struct lane *l, const struct source *s, const struct message *m, bool *skip, struct err *e)
{
        const struct origin *o = message_origin(m);

        *skip = has_number(l, s) && o->number <= l->resume.number;
        if (!*skip || o->number < l->resume.number)
                return true;
        if (str_eq(lasting_name(o->uid), lasting_name(l->resume.uid)) && (l->resume.names == 0 || l->names == l->resume.names))
                return true;
        return has_changed(l, e);
}

/* *m NULL: the end of what is wanted. */
static bool next_wanted(struct lane *l, struct source *s, struct message **m, struct err *e)
{
        bool skip;

        do {
                uint64_t number = 0;
                bool ok;

                settle_what_came(l, s);
                ok = s->ops->next(s, m, e);
                hand_drop(hand_slot());
                if (!ok)
                        return false;
                if (*m)
                        number = message_origin(*m)->number;
                else if (has_number(l, s) && l->read < l->resume.number && !atomic_load(&s->stop))
                        return has_changed(l, e);
                if (!*m)
                        return true;
                if (s == l->source) {
                        l->read = number;
                        l->names += name_hash(message_origin(*m));
                }
                if (!was_settled(l, s, *m, &skip, e)) {
                        message_free(*m);
                        return false;
                }
                if (skip)
                        message_free(*m);
        } while (skip);
        return true;
}

static void close_batch_and_wait(struct lane *l, struct source *s)
{
        hand_over(l, true);
        wait_for_outcomes(l, s);
}

/* What a limit leaves of an archive is what its progress is measured by. */
static void limit_totals(const struct lane *l, struct source *s, uint64_t limit)
{
        uint64_t total = atomic_load(&s->total_messages), end = (has_number(l, s) ? l->resume.number : 0) + limit;

        if (!limit || !s->archive)
                return;
        atomic_store(&s->total_messages, total && total < end ? total : end);
        atomic_store(&s->total_bytes, 0);
}

static bool read_source(struct lane *l, struct source *s, struct err *e)
{
        uint64_t limit = l->run->config.limit;
        struct message *m;

        limit_totals(l, s, limit);
        for (uint64_t given = 0;; given++) {
                if (limit && given == limit && !has_number(l, s))
                        return true; /* an account's source counts, too */
                if (!next_wanted(l, s, &m, e))
                        return false;
                if (!m && s->rests) {
                        given--;
                        close_batch_and_wait(l, s);
                        continue;
                }
                if (!m) {
                        l->reached_end = s == l->source && !atomic_load(&s->stop) && !run_stopped();
                        return true;
                }
                if (limit && given == limit) { /* an archive that ends just here has been read to its end */
                        l->limited = true;
                        message_free(m);
                        atomic_fetch_sub(&s->done_messages, 1);
                        return true;
                }
                if (!pass_on(l, s, m, e))
                        return false;
        }
}

/* The first failure is the one that is told: what goes wrong in the farewell follows from it. Asked to stop, a source may say so as a
 * failure; it is none. */
static void run_source(struct lane *l, struct source *s)
{
        struct err e = { 0 }, later = { 0 };
        bool ok = read_source(l, s, &e) || (e.code == ERR_STOPPED && atomic_load(&s->stop));

        close_batch_and_wait(l, s);
        if (!s->ops->finish(s, &later) && ok) {
                ok = false;
                e = later;
        } else if (later.code != ERR_NONE && !ok) {
                log_info("%.*s: %s", STR_FMT(s->name), later.text);
        }
        if (!ok && l->error.code == ERR_NONE)
                l->error = e;
        else if (!ok)
                log_error("%s", e.text);
}

static void lane_main(void *arg)
{
        struct lane *l = arg;

        if (l->spool)
                run_source(l, l->spool);
        if (l->source && !atomic_load(&l->source->stop))
                run_source(l, l->source);
        queue_post(l->run->events, &l->event.link);
}

bool lane_start(struct lane *l, struct err *e)
{
        l->input_event = (struct event){ .kind = GOT_INPUT, .what = l };
        l->event = (struct event){ .kind = GOT_LANE_END, .what = l };
        if (l->source && l->source->archive) {
                l->source->may_parse = may_parse;
                l->source->may_parse_ctx = l;
        }
        l->thread = thread_start(lane_main, l, "source", e);
        return l->thread != NULL;
}

/* ---- the main thread's side ---- */

void lane_take_input(struct lane *l)
{
        pthread_mutex_lock(&l->run->mutex);
        move_jobs(&l->arrived, &l->input);
        l->input_ended = l->input_over;
        l->posted = false;
        pthread_mutex_unlock(&l->run->mutex);
}

struct job *lane_take(struct lane *l)
{
        struct job *j = take_first(&l->arrived);

        j->next = NULL;
        atomic_fetch_sub_explicit(&l->run->waiting, 1, memory_order_relaxed);
        return j;
}

void lane_put_back(struct job *j)
{
        atomic_fetch_add_explicit(&j->run->waiting, 1, memory_order_relaxed);
        put_first(&j->lane->arrived, j);
}

/* An archive's thread frees the message that it has allocated, which is faster and leaves the main thread to the script. An account's may
 * wait long for its server, and would hold memory that the budget no longer counts. */
void lane_outcome(struct run *r, struct job *j)
{
        if (!j->source->archive) {
                message_free(j->message);
                j->message = NULL;
        }
        put_last(&r->over, j);
        if (++r->over_n >= GROUP_MAX)
                lanes_send_outcomes(r);
}

/* Who waits for room is woken when there is some for many: else it would be for each message. */
void lanes_send_outcomes(struct run *r)
{
        bool room = false;

        if (!r->over.first)
                return;
        pthread_mutex_lock(&r->mutex);
        for (struct job *j; (j = take_first(&r->over));) {
                struct lane *l = j->lane;

                l->outstanding--;
                l->in_flight -= j->cost;
                r->in_flight -= j->cost;
                room |= l->in_flight == 0;
                put_last(&l->over, j);
                pthread_cond_signal(&l->came);
        }
        r->over_n = 0;
        if (room || r->in_flight <= r->config.limits.queue / 4 * 3)
                pthread_cond_broadcast(&r->room);
        pthread_mutex_unlock(&r->mutex);
}

void lane_decided(struct lane *l, const struct message *m)
{
        atomic_store_explicit(&l->asked, message_asked(m), memory_order_relaxed);
}

void lanes_stop(struct run *r)
{
        for (size_t i = 0; i < r->source_n; i++)
                if (r->sources[i])
                        atomic_store(&r->sources[i]->stop, true);
}

void lane_retire(struct lane *l)
{
        if (!l->path.p)
                return;
        l->run->sources[l->slot] = NULL;
        thread_join(l->thread);
        l->thread = NULL;
        source_free(l->source);
        l->source = NULL;
}

void lane_close(struct lane *l)
{
        if (l->thread)
                thread_join(l->thread);
        free_jobs(&l->over);
        source_free(l->spool);
        source_free(l->source);
        if (l->lock >= 0)
                close(l->lock);
        pthread_cond_destroy(&l->came);
        buf_free(&l->guard.reached_uid);
}
