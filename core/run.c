#include "core/run.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/run_int.h"
#include "core/supervise.h"
#include "core/spill.h"
#include "core/slurp.h"
#include "core/sys.h"

enum {
        PROGRESS_MS = 200,
        WAITS = 8,          /* children of handlers that may run at the same time */
        READING_MAX = 8,    /* archives read at the same time */
        LIVE_MAX = 128,     /* and with those that wait for their last messages to be settled */
};

static atomic_bool stop_asked; /* without a lock, so a signal handler may set it */

void run_stop(void)
{
        atomic_store(&stop_asked, true);
}

bool run_stopped(void)
{
        return atomic_load(&stop_asked);
}

const atomic_bool *run_stop_flag(void) { return &stop_asked; }

int64_t run_ms_left(int64_t since, int64_t span)
{
        int64_t left = since + span - sys_mono_ms();

        return left > 0 ? left : 0;
}

void run_end(struct run *r, const struct err *e)
{
        if (!r->ending && e) {
                r->error = *e;
                log_error("%s", e->text);
        }
        r->ending = true;
        lanes_stop(r);
}

void run_tell(struct run *r, const struct run_event *ev)
{
        r->hooks->event(r->hooks->ctx, ev);
}

/* Long names are cut as the supervisor's shared memory cuts them. */
struct str run_crash_key(struct str account, struct str uid, unsigned occurrence, struct buf *b)
{
        account = str_first(account, HAND_NAME_MAX);
        uid = str_first(uid, HAND_NAME_MAX);
        buf_printf(b, "%zu:", account.n);
        buf_add_str(b, account);
        buf_printf(b, "/%u:", occurrence);
        buf_add_str(b, uid);
        return buf_str(b);
}

const struct crash *run_crash(const struct run *r, struct str account, const struct origin *o)
{
        struct buf b = BUF_INIT;
        const struct crash *c = map_count(r->crashed) ? map_get(r->crashed, run_crash_key(account, o->uid, o->occurrence, &b)) : NULL;

        buf_free(&b);
        return c;
}

/* ---- the loop ---- */

/* Its row is read again: the source has learnt about its server meanwhile. */
static void no_longer_fresh(struct run *r, struct lane *l)
{
        struct ledger_account now;
        struct err e = { 0 };

        if (!ledger_account(r->ledger, l->la.name, l->la.mailbox, &now, r->arena, &e)) {
                log_error("%s", e.text);
                return;
        }
        now.fresh = false;
        if (!ledger_account_save(r->ledger, &now, &e))
                log_error("%s", e.text);
}

/* They are not settled, and the exit code says so: somebody has to look. */
static void tell_left(struct run *r, struct lane *l)
{
        if (l->left == 0)
                return;
        log_warn("%.*s: %llu quarantined message%s left alone until the script changes (`mailmill state held` shows why, --failed tries again)",
                 STR_FMT(l->la.name), (unsigned long long)l->left, l->left == 1 ? "" : "s");
        r->result.quarantined += l->left;
}

static void count_read(struct run *r, struct lane *l)
{
        r->reading -= l->counted;
        l->counted = false;
}

static void lane_ended(struct run *r, struct lane *l)
{
        struct run_event ev = { .kind = EVENT_SOURCE_END, .source = l->source ? l->source : l->spool,
                                .error = l->error.code == ERR_NONE ? NULL : &l->error };

        l->ended = true;
        if (ev.error) {
                r->result.sources_failed++;
                r->result.worst = err_worse(r->result.worst, l->error.code);
                log_error("%s", l->error.text);
        } else if (!r->config.dry && !r->ending && !r->config.failed && l->account && l->la.fresh) {
                no_longer_fresh(r, l);
        }
        if (l->source)
                r->result.skipped += atomic_load(&l->source->skipped), r->result.marked += atomic_load(&l->source->marked);
        tell_left(r, l);
        run_tell(r, &ev);
        count_read(r, l);
        r->live -= l->path.p != NULL;
        lane_retire(l);
}

static void handle(struct run *r, struct event *ev)
{
        struct job *j = ev->what;

        switch (ev->kind) {
        case GOT_INPUT:
                r->last_input_ms = sys_mono_ms();
                lane_take_input(ev->what);
                if (((struct lane *)ev->what)->input_ended)
                        count_read(r, ev->what);
                break;
        case GOT_WAKE:
                job_resume(r, j);
                break;
        case GOT_STAGED:
                j->staged = true;
                j->batch->unstaged--;
                if (j->failed)
                        j->batch->closed = true;
                break;
        case GOT_CARRIED:
                batch_carried(r, ev->what);
                break;
        case GOT_LANE_END:
                lane_ended(r, ev->what);
                break;
        }
}

static void undo_arrived(struct run *r)
{
        for (size_t i = 0; i < r->lane_n; i++)
                while (r->lanes[i].arrived.first)
                        job_over(r, lane_take(&r->lanes[i]), OUTCOME_UNDONE);
}

/* May another message be decided? Not while something is to be undone, nor while a closed batch waits for its turn: so at most two batches are
 * about. */
static bool may_decide(const struct run *r)
{
        return !r->draining && !r->ending && !(r->open && r->open->closed);
}

static bool is_contested(const struct run *r)
{
        for (size_t i = 0; i < r->lane_n; i++)
                if (r->lanes[i].arrived.first && r->lanes[i].arrived.first->redone)
                        return true;
        return false;
}

/* Lanes take turns. A message whose name was contested comes before all others, and while none waits half decided: what waits
 * might have promised that name, and be carried out after it. */
static bool decide_one(struct run *r)
{
        bool contested = is_contested(r);

        if (contested && r->waiting_n > 0)
                return false;
        for (size_t i = 0; i < r->lane_n; i++) {
                struct lane *l = &r->lanes[(r->turn + i) % r->lane_n];
                const struct job *first = l->arrived.first;

                if (first && !l->waiting && (!contested || first->redone)) {
                        r->turn = (r->turn + i + 1) % r->lane_n;
                        job_decide(r, lane_take(l));
                        return true;
                }
        }
        return false;
}

static bool is_over(const struct run *r)
{
        if (r->open || r->carrying || r->waiting_n || r->redo_first)
                return false;
        for (size_t i = 0; i < r->lane_n; i++)
                if (!r->lanes[i].ended || r->lanes[i].arrived.first)
                        return false;
        return true;
}

static void progress(struct run *r)
{
        if (run_ms_left(r->last_progress_ms, PROGRESS_MS) > 0)
                return;
        r->last_progress_ms = sys_mono_ms();
        if (r->hooks->progress)
                r->hooks->progress(r->hooks->ctx, r->sources, r->source_n);
}

static int timeout(const struct run *r)
{
        int64_t ms = PROGRESS_MS;

        if (r->open && !r->open->closed) {
                int64_t left = run_ms_left(r->last_input_ms, r->config.limits.batch_ms);

                ms = left < ms ? left : ms;
        }
        return (int)ms;
}

static void start_lane(struct run *r, struct lane *l)
{
        struct err e = { 0 };

        if (!lane_open_source(l))
                return;
        if (!lane_start(l, &e)) {
                l->ended = true;
                r->result.sources_failed++;
                run_end(r, &e);
                return;
        }
        l->started = true;
        l->counted = l->path.p != NULL;
        r->live += l->counted;
        r->reading += l->counted;
}

/* Accounts all at once; of archives as many as do any good. Nothing begins any more in a run that is ending. */
static void start_lanes(struct run *r)
{
        while (r->next_lane < r->lane_n) {
                struct lane *l = &r->lanes[r->next_lane];

                if (!r->ending && l->path.p && (r->live == LIVE_MAX || r->reading == READING_MAX))
                        return;
                r->next_lane++;
                if (r->ending)
                        l->ended = true;
                else if (!l->ended)
                        start_lane(r, l);
        }
}

/* NULL: nothing has happened. */
static struct event *next_event(struct run *r, int timeout_ms)
{
        struct event *ev;

        if (!r->events_taken)
                r->events_taken = (struct event *)queue_take(r->events, timeout_ms);
        if ((ev = r->events_taken))
                r->events_taken = (struct event *)ev->link.next;
        return ev;
}

static void loop(struct run *r)
{
        bool busy = true;

        while (!is_over(r)) {
                struct event *ev = next_event(r, busy ? 0 : timeout(r));

                if (ev)
                        handle(r, ev);
                if (run_stopped() && !r->ending) {
                        r->result.stopped = true;
                        run_end(r, NULL);
                }
                if (r->draining && !r->carrying && !r->open && r->stale_n == 0)
                        run_redo(r);
                if (r->ending && !r->draining)
                        undo_arrived(r);
                busy = ev != NULL;
                start_lanes(r);
                if (may_decide(r) && decide_one(r))
                        busy = true;
                run_advance(r);
                lanes_send_outcomes(r);
                progress(r);
        }
}

/* ---- beginning and end ---- */

static void named(void *ctx, struct plan *p, struct str from, struct str to)
{
        log_warn("%.*s was taken at the last moment: saved as %.*s", STR_FMT(from), STR_FMT(to));
}

static bool note_dead(void *ctx, const struct hand_death *d)
{
        struct run *r = ctx;
        struct buf b = BUF_INIT;
        struct str text = arena_printf(r->arena, "%s while %s it", d->why, d->doing);
        struct crash *c = arena_alloc(r->arena, sizeof *c);
        bool ok = text.p && c && map_set(r->crashed, run_crash_key(d->account, d->uid, d->occurrence, &b), c, NULL);

        if (ok)
                *c = (struct crash){ text.p, d->counted };
        buf_free(&b);
        return ok;
}

static bool make_threads(struct run *r, struct err *e)
{
        r->events = queue_new();
        if (!r->events)
                return err_nomem(e);
        r->pool = pool_new(pool_cpus(), e);
        r->waits = r->pool ? pool_new(WAITS, e) : NULL;
        r->carrier = r->waits ? pool_new(1, e) : NULL;
        return r->carrier != NULL;
}

/* Where a large message lies while it is worked on: the state's spool, on the disk that the mail goes to; a rehearsal writes nothing there. */
static bool choose_tmp(struct run *r, struct err *e)
{
        const char *env = getenv("TMPDIR");
        struct str s = r->config.dry ? str_of(env && *env ? env : "/tmp") : arena_printf(r->arena, "%s/spool", ledger_path(r->ledger));

        r->tmp_dir = s.p ? arena_dup(r->arena, s.p, s.n) : NULL;
        if (r->tmp_dir)
                spill_place(r->tmp_dir);
        return r->tmp_dir || err_nomem(e);
}

static bool open_run(struct run *r, struct err *e)
{
        unsigned recovered = 0;

        r->arena = arena_new(0);
        r->names = names_new(r->ledger);
        r->crashed = map_new();
        if (!r->arena || !r->names || !r->crashed)
                return err_nomem(e);
        if (r->config.dry)
                names_keep(r->names);
        if (r->config.caseless && !names_caseless(r->names))
                return err_nomem(e);
        if (r->config.dry && !(r->dry_changes = map_new()))
                return err_nomem(e);
        if (!r->config.dry) {
                r->staging = staging_open(r->ledger, &recovered, e);
                if (!r->staging)
                        return false;
        }
        if (recovered)
                log_warn("finished %u file%s that a run before this one had promised", recovered, recovered == 1 ? "" : "s");
        r->committer = (struct committer){ .ledger = r->ledger, .staging = r->staging, .names = r->names, .now = r->config.now, .named = named, .ctx = r };
        memcpy(r->committer.script_hash, r->config.script_hash, DIGEST_SIZE);
        hand_dead(note_dead, r);
        return choose_tmp(r, e) && run_confine(r, e) && make_threads(r, e) && lanes_open(r, e);
}

static void close_run(struct run *r)
{
        for (size_t i = 0; i < r->lane_n; i++)
                lane_close(&r->lanes[i]);
        pool_free(r->waits);
        pool_free(r->carrier);
        pool_free(r->pool);
        if (r->events)
                queue_free(r->events);
        if (r->staging)
                staging_close(r->staging);
        for (size_t i = 0; i < r->roots.n; i++)
                root_close(r->roots.list[i].root);
        mem_free(r->roots.list);
        mem_free(r->lanes);
        mem_free(r->sources);
        if (r->names)
                names_free(r->names);
        map_free(r->crashed, NULL);
        map_free(r->dry_changes, NULL);
        arena_free(r->arena);
        pthread_mutex_destroy(&r->mutex);
        pthread_cond_destroy(&r->room);
}


bool run_all(const struct run_config *c, const struct script *s, const struct run_hooks *h, struct ledger *l, struct run_result *out,
             struct err *e)
{
        struct run r = { .config = *c, .script = s, .hooks = h, .ledger = l };
        bool ok;

        pthread_mutex_init(&r.mutex, NULL);
        pthread_cond_init(&r.room, NULL);
        slurp_stop = &stop_asked;
        ok = open_run(&r, e);
        if (ok) {
                loop(&r);
                run_finish(&r);
                ok = r.config.dry || (commit_close(&r.committer, e) && lanes_leave_marks(&r, e));
                for (size_t i = 0; i < r.lane_n; i++)
                        r.result.waiting += r.lanes[i].guard.waiting;
        }
        if (!ok)
                log_error("%s", e->text);
        else if (r.error.code != ERR_NONE) /* it was told when it happened */
                *e = r.error;
        ok = ok && r.error.code == ERR_NONE;
        *out = r.result;
        close_run(&r);
        return ok;
}

/* ---- for bindings ---- */

const struct run_config *run_config_of(const struct run *r)
{
        return &r->config;
}

struct names *run_names(struct run *r)
{
        return r->names;
}

int run_tmpfile(struct run *r, struct err *e)
{
        int dir, fd;

        if (r->staging)
                return staging_tmpfile(r->staging, e);
        dir = sys_open(r->tmp_dir, O_RDONLY | O_DIRECTORY, 0, e);
        if (dir < 0)
                return -1;
        fd = sys_tmpfile(dir, e);
        close(dir);
        return fd;
}

static bool more_roots(struct run *r, struct err *e)
{
        size_t cap = r->roots.cap ? r->roots.cap * 2 : 8;
        struct named_root *p;

        if (r->roots.n < r->roots.cap)
                return true;
        p = mem_resize(r->roots.list, cap * sizeof *p);
        if (!p)
                return err_nomem(e);
        r->roots.list = p;
        r->roots.cap = cap;
        return true;
}

/* By the name asked for, which may differ from the path it has (a symbolic link): else each message would open it anew. */
struct root *run_root_named(struct run *r, struct str path, struct err *e)
{
        struct named_root new;

        for (size_t i = 0; i < r->roots.n; i++)
                if (str_eq(r->roots.list[i].name, path))
                        return r->roots.list[i].root;
        if (!more_roots(r, e))
                return NULL;
        new.name = arena_str(r->arena, path);
        if (!new.name.p) {
                err_nomem(e);
                return NULL;
        }
        new.root = r->config.dry ? root_look(path, e) : root_open(path, e);
        if (new.root && run_may_write(r, root_path(new.root))) {
                r->roots.list[r->roots.n++] = new;
                return new.root;
        }
        if (new.root || !run_may_write(r, path))
                err_set(e, ERR_USAGE, "%.*s is below no root of this run: mail.root(directory, more, …) names all that are written to", STR_FMT(path));
        root_close(new.root);
        return NULL;
}

struct root *run_root(struct run *r, const struct source *s, struct err *e)
{
        struct str path = s && s->account && s->account->root.n ? s->account->root : r->config.root;

        return run_root_named(r, path, e);
}
