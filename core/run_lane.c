/* Lanes: one thread a source, a budget of bytes in flight, and the way outcomes come back to the source. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/pop3.h"
#include "core/run_int.h"
#include "core/supervise.h"
#include "core/sys.h"

enum {
        FILE_COST = 64 << 10,              /* what a message in a file counts: buffers and parsed pieces */
        OVERHEAD = 12 << 10,               /* what any message costs beside its bytes: its facts, its plan, its job */
        CLOCK_LEAP = 90 * 24 * 60 * 60,    /* W20: seconds forward since the last run that are not believed */
};

/* ---- the source's thread ---- */

static size_t cost_of(struct run *r, const struct message *m)
{
        uint64_t n = message_size(m);

        return (n > r->config.limits.memory_message ? FILE_COST : (size_t)n) + OVERHEAD;
}

/* Waits until the message fits beside what is in flight. One of each source always does, so nothing is too large and no source is
 * starved by another whose message waits for a child. */
static void take_room(struct lane *l, size_t cost)
{
        struct run *r = l->run;

        pthread_mutex_lock(&r->mutex);
        while (r->in_flight + cost > r->config.limits.queue && l->in_flight > 0)
                pthread_cond_wait(&r->room, &r->mutex);
        r->in_flight += cost;
        l->in_flight += cost;
        l->outstanding++;
        pthread_mutex_unlock(&r->mutex);
}

static void settle_what_came(struct lane *l, struct source *s)
{
        struct outcome *list;
        size_t n;

        pthread_mutex_lock(&l->run->mutex);
        list = l->outcomes;
        n = l->outcome_n;
        l->outcomes = NULL;
        l->outcome_n = l->outcome_cap = 0;
        pthread_mutex_unlock(&l->run->mutex);
        if (n)
                s->ops->settle(s, list, n);
        mem_free(list);
}

static void wait_for_outcomes(struct lane *l, struct source *s)
{
        for (;;) {
                bool more;

                pthread_mutex_lock(&l->run->mutex);
                while (l->outstanding > 0 && l->outcome_n == 0)
                        pthread_cond_wait(&l->run->room, &l->run->mutex);
                more = l->outstanding > 0;
                pthread_mutex_unlock(&l->run->mutex);
                settle_what_came(l, s);
                if (!more)
                        return;
        }
}

/* A parser that dies takes the worker with it: the supervisor must know over which message. */
static bool parse(struct lane *l, struct message *m, struct err *e)
{
        const struct origin *o = message_origin(m);
        unsigned slot = hand_slot();
        bool ok;

        hand_take(slot, l->la.name, o->uid, o->occurrence, "reading");
        ok = message_parse(m, e);
        hand_drop(slot);
        return ok || err_in(e, "message %llu of %.*s", (unsigned long long)o->number, STR_FMT(o->source));
}

static bool give(struct lane *l, struct source *s, struct message *m, struct err *e)
{
        struct job *j = mem_zero(sizeof *j);

        if (!j) {
                message_free(m);
                return err_nomem(e);
        }
        j->event = (struct event){ GOT_MESSAGE, j };
        j->run = l->run;
        j->lane = l;
        j->source = s;
        j->message = m;
        j->cost = cost_of(l->run, m);
        j->item.guard = &l->guard;
        j->item.account = l->la.id;
        j->item.spool_fd = -1;
        take_room(l, j->cost);
        if (queue_post(l->run->events, &j->event))
                return true;
        lane_outcome(l, &(struct outcome){ .number = message_origin(m)->number, .kind = OUTCOME_UNDONE }, j->cost);
        message_free(m);
        mem_free(j);
        return err_nomem(e);
}

static bool read_source(struct lane *l, struct source *s, struct err *e)
{
        uint64_t given = 0, limit = l->run->config.limit;

        while (!limit || given < limit) {
                struct message *m;

                settle_what_came(l, s);
                if (!s->ops->next(s, &m, e))
                        return false;
                if (!m)
                        return true;
                if (message_origin(m)->number <= l->resume_number && s == l->source && s->archive) {
                        message_free(m);
                        continue;
                }
                if (!parse(l, m, e)) {
                        message_free(m);
                        return false;
                }
                if (!give(l, s, m, e))
                        return false;
                given++;
        }
        return true;
}

/* The first failure is the one that is told: what goes wrong in the farewell follows from it. */
static void run_source(struct lane *l, struct source *s)
{
        struct err later = { 0 }, *e = l->error.code == ERR_NONE ? &l->error : &later;

        if (!read_source(l, s, e))
                e = &later;
        /* Without memory for this word the open batch closes a little later, by its time. */
        (void)!queue_post(l->run->events, &l->input_event);
        wait_for_outcomes(l, s);
        if (!s->ops->finish(s, e) && e == &later)
                log_info("%.*s: %s", STR_FMT(s->name), later.text);
}

static void lane_main(void *arg)
{
        struct lane *l = arg;

        if (l->spool)
                run_source(l, l->spool);
        if (l->source && !atomic_load(&l->source->stop))
                run_source(l, l->source);
        l->event = (struct event){ GOT_LANE_END, l };
        if (!queue_post(l->run->events, &l->event))
                log_error("%.*s: out of memory", STR_FMT(l->la.name));
}

bool lane_start(struct lane *l, struct err *e)
{
        l->input_event = (struct event){ GOT_INPUT_END, l };
        l->thread = thread_start(lane_main, l, "source", e);
        return l->thread != NULL;
}

/* ---- the main thread's side ---- */

void lane_put_first(struct lane *l, struct job *j)
{
        j->prev = NULL;
        j->next = l->first;
        l->first = j;
        if (!l->last)
                l->last = j;
}

void lane_put_last(struct lane *l, struct job *j)
{
        j->next = j->prev = NULL;
        if (l->last)
                l->last->next = j;
        else
                l->first = j;
        l->last = j;
}

struct job *lane_take(struct lane *l)
{
        struct job *j = l->first;

        l->first = j->next;
        if (!l->first)
                l->last = NULL;
        j->next = NULL;
        return j;
}

void lane_outcome(struct lane *l, const struct outcome *o, size_t cost)
{
        struct run *r = l->run;

        pthread_mutex_lock(&r->mutex);
        if (l->outcome_n == l->outcome_cap) {
                size_t cap = l->outcome_cap ? l->outcome_cap * 2 : 64;
                struct outcome *p = mem_resize(l->outcomes, cap * sizeof *p);

                if (p) {
                        l->outcomes = p;
                        l->outcome_cap = cap;
                }
        }
        if (l->outcome_n < l->outcome_cap) /* an outcome lost to a lack of memory is one of OUTCOME_UNDONE to the source: nothing is deleted */
                l->outcomes[l->outcome_n++] = *o;
        l->outstanding--;
        l->in_flight -= cost;
        r->in_flight -= cost;
        pthread_cond_broadcast(&r->room);
        pthread_mutex_unlock(&r->mutex);
}

void lanes_stop(struct run *r)
{
        for (size_t i = 0; i < r->source_n; i++)
                atomic_store(&r->sources[i]->stop, true);
}

void lane_close(struct lane *l)
{
        if (l->thread)
                thread_join(l->thread);
        source_free(l->spool);
        source_free(l->source);
        if (l->lock >= 0)
                close(l->lock);
        mem_free(l->outcomes);
}

/* ---- opening ---- */

static struct str mailbox_of(struct run *r, const struct account *a)
{
        return arena_printf(r->arena, "%.*s@%.*s:%u", STR_FMT(a->user), STR_FMT(a->host), a->port);
}

/* W20: ages are measured by the wall clock, so a clock that jumped must not delete or forget anything. */
static bool clock_jumped(struct run *r, struct lane *l)
{
        int64_t last = l->la.last_run, now = r->config.now;

        if (!last || (now >= last && now - last <= CLOCK_LEAP))
                return false;
        log_warn("%.*s: the clock has gone %s since the last run; this run deletes nothing by age and forgets nothing",
                 STR_FMT(l->la.name), now < last ? "back" : "forward by more than 90 days");
        return true;
}

static void add_source(struct run *r, struct source *s)
{
        if (s)
                r->sources[r->source_n++] = s;
}

static bool open_spool(struct run *r, struct lane *l, struct err *e)
{
        l->spool = held_open(r->ledger, l->la.id, l->la.name, l->account, r->config.script_hash, r->config.failed, &r->config.limits, e);
        return l->spool != NULL;
}

static bool open_account(struct run *r, struct lane *l, struct account *a, struct err *e)
{
        struct pop3_options o = { .dry = r->config.dry, .again = r->config.again, .limit = r->config.limit, .now = r->config.now };
        struct str mailbox = mailbox_of(r, a);

        l->account = a;
        if (!mailbox.p)
                return err_nomem(e);
        if (!r->config.dry && (l->lock = ledger_lock(r->ledger, mailbox, e)) < 0)
                return false;
        if (!ledger_account(r->ledger, a->name, mailbox, &l->la, r->arena, e))
                return false;
        l->la.name = a->name;
        l->guard = (struct guard){ .fresh = l->la.fresh, .send = r->config.send };
        o.no_age = clock_jumped(r, l);
        if (!open_spool(r, l, e))
                return false;
        if (!r->config.failed) {
                l->source = pop3_source(a, &l->la, r->ledger, &r->config.limits, r->tmp_dir, &o, e);
                if (!l->source)
                        return false;
        }
        l->la.last_run = r->config.now;
        return r->config.dry || ledger_account_save(r->ledger, &l->la, e);
}

/* An archive is known to the state by its absolute path; standard input by "-". */
static struct str archive_key(struct run *r, struct str path)
{
        char *name = arena_dup(r->arena, path.p, path.n), *full = name && strcmp(name, "-") != 0 ? realpath(name, NULL) : NULL;
        struct str out = full ? arena_str(r->arena, str_of(full)) : arena_str(r->arena, path);

        free(full);
        return out;
}

static bool open_archive(struct run *r, struct lane *l, struct str path, struct err *e)
{
        struct str key = archive_key(r, path);
        uint64_t held = 0;

        if (!key.p)
                return err_nomem(e);
        if (!ledger_account(r->ledger, key, STR(""), &l->la, r->arena, e) ||
            !ledger_marks_count(r->ledger, l->la.id, 1u << MARK_HELD | 1u << MARK_QUARANTINED, &held, e))
                return false;
        l->la.name = key;
        l->guard = (struct guard){ .archive = true, .send = r->config.send };
        l->has_held = held > 0;
        if (r->config.failed)
                return open_spool(r, l, e);
        l->source = source_open(path, &r->config.limits, r->tmp_dir, e);
        return l->source != NULL;
}

/* A source that cannot be opened fails alone: the others run. */
static void opened(struct run *r, struct lane *l, bool ok, struct str name, struct err *e)
{
        if (!ok) {
                struct run_event ev = { .kind = EVENT_SOURCE_END, .error = e };

                err_in(e, "%.*s", STR_FMT(name));
                l->ended = true;
                r->result.sources_failed++;
                r->result.worst = e->code;
                log_error("%s", e->text);
                r->hooks->event(r->hooks->ctx, &ev);
        }
        add_source(r, l->spool);
        add_source(r, l->source);
}

bool lanes_open(struct run *r, struct err *e)
{
        const struct run_config *c = &r->config;
        size_t n = c->account_n + c->archive_n;

        r->lanes = mem_array(n ? n : 1, sizeof *r->lanes);
        r->sources = mem_array(2 * n + 1, sizeof(struct source *));
        if (!r->lanes || !r->sources)
                return err_nomem(e);
        r->lane_n = n;
        for (size_t i = 0; i < n; i++) {
                struct lane *l = &r->lanes[i];
                struct err why = { 0 };

                l->run = r;
                l->lock = -1;
                if (i < c->account_n)
                        opened(r, l, open_account(r, l, c->accounts[i], &why), c->accounts[i]->name, &why);
                else
                        opened(r, l, open_archive(r, l, c->archives[i - c->account_n], &why), c->archives[i - c->account_n], &why);
        }
        return true;
}
