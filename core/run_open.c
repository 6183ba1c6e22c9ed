/* Opening the lanes: the account's lock and row, what it holds, its source; an archive's, and where a run that was cut off goes on. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/pop3.h"
#include "core/run_int.h"
#include "core/supervise.h"

enum { CLOCK_LEAP = 90 * 24 * 60 * 60 }; /* seconds forward since the last run that are not believed */

static struct str mailbox_of(struct run *r, const struct account *a)
{
        return arena_printf(r->arena, "%.*s@%.*s:%u", STR_FMT(a->user), STR_FMT(a->host), a->port);
}

/* Ages are measured by the wall clock, so a clock that jumped must not delete or forget anything. */
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
        l->left = l->spool ? held_left(l->spool) : 0;
        return l->spool != NULL;
}

static bool open_account(struct run *r, struct lane *l, struct account *a, struct err *e)
{
        struct pop3_options o = { .dry = r->config.dry, .again = r->config.again, .limit = r->config.limit, .now = r->config.now,
                                  .mark = r->config.mark_seen };
        struct str mailbox = mailbox_of(r, a);

        l->account = a;
        if (!mailbox.p)
                return err_nomem(e);
        if (!r->config.dry && (l->lock = ledger_lock(r->ledger, mailbox, e)) < 0)
                return false;
        if (!ledger_account(r->ledger, a->name, mailbox, &l->la, r->arena, e))
                return false;
        l->la.name = a->name;
        l->guard = (struct guard){ .fresh = l->la.fresh, .send = r->config.send, .paced_until = l->la.paced_until };
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

/* A pipe can be read once only, whatever its name: the next "/dev/fd/63" is another. */
static bool can_read_again(struct run *r, struct str path)
{
        char *name = arena_dup(r->arena, path.p, path.n);
        struct stat st;

        return !str_eq(path, STR("-")) && !(name && stat(name, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode));
}

/* An archive is known to the state by its absolute path; standard input by "-". */
static struct str archive_key(struct run *r, struct str path)
{
        char *name = arena_dup(r->arena, path.p, path.n), *full = name && strcmp(name, "-") != 0 ? realpath(name, NULL) : NULL;
        struct str out = full ? arena_str(r->arena, str_of(full)) : arena_str(r->arena, path);

        free(full);
        return out;
}

static bool was_cut_off(struct lane *l, struct str path, uint64_t number, struct err *e)
{
        l->cut_off = true;
        return err_set(e, ERR_USAGE, "a run over %.*s was cut off after message %llu: --resume goes on behind it, --from-start begins again",
                       STR_FMT(path), (unsigned long long)number);
}

/* The mark of a run that did not reach the end. One that ended at its limit forbids nothing. A worker that was started again within a run goes on behind it, whatever that run was told. */
static bool find_resume(struct run *r, struct lane *l, struct str path, struct err *e)
{
        struct resume mark;
        bool found;

        if (!ledger_resume_get(r->ledger, l->la.id, &mark, &found, r->arena, e))
                return false;
        if (!found)
                return true;
        if (r->config.resume || hand_restarted()) {
                l->resume = mark;
                return true;
        }
        if (r->config.dry)
                return true; /* a rehearsal of all of it */
        return r->config.from_start || mark.limited ? ledger_resume_clear(r->ledger, l->la.id, e) : was_cut_off(l, path, mark.number, e);
}

static bool open_archive(struct run *r, struct lane *l, struct str path, struct err *e)
{
        struct str key = archive_key(r, path);
        uint64_t held = 0;

        if (!key.p)
                return err_nomem(e);
        l->resumable = can_read_again(r, path);
        if (!l->resumable && r->config.resume) {
                l->cut_off = true;
                return err_set(e, ERR_USAGE, "--resume: %.*s leaves no mark, for nobody can read it again from where a run was cut off",
                               STR_FMT(str_eq(path, STR("-")) ? STR("standard input") : path));
        }
        if (!l->resumable && hand_restarted())
                return err_set(e, ERR_IO, "what the worker that died had read of it is lost to this run: give it again");
        if (!ledger_account(r->ledger, key, STR(""), &l->la, r->arena, e) ||
            !ledger_marks_count(r->ledger, l->la.id, 1u << MARK_HELD | 1u << MARK_QUARANTINED, &held, e))
                return false;
        l->la.name = key;
        l->guard = (struct guard){ .archive = true, .send = r->config.send };
        l->has_held = held > 0;
        if (r->config.failed)
                return open_spool(r, l, e);
        if (l->resumable && !find_resume(r, l, path, e))
                return false;
        l->path = path; /* opened when its turn comes: a shell's *.eml may be more than there are descriptors */
        l->slot = r->source_n++;
        r->sources[l->slot] = NULL;
        return true;
}

/* A source that cannot be opened fails alone: the others run. */
static void opened(struct run *r, struct lane *l, bool ok, struct str name, struct err *e)
{
        if (!ok) {
                struct run_event ev = { .kind = EVENT_SOURCE_END, .error = e };

                if (!str_starts(str_of(e->text), name))
                        err_in(e, "%.*s", STR_FMT(name));
                l->ended = true;
                r->result.sources_failed++;
                r->result.worst = err_worse(r->result.worst, e->code);
                log_error("%s", e->text);
                r->hooks->event(r->hooks->ctx, &ev);
        }
        add_source(r, l->spool);
        add_source(r, l->source);
}

bool lane_open_source(struct lane *l)
{
        struct run *r = l->run;
        struct err why = { 0 };

        if (!l->path.p)
                return true;
        l->source = source_open(l->path, &r->config.limits, r->tmp_dir, &why);
        if (!l->source && why.code == ERR_STOPPED) {
                l->ended = r->result.stopped = true;
                return false;
        }
        if (!l->source) {
                opened(r, l, false, l->path, &why);
                return false;
        }
        r->sources[l->slot] = l->source;
        return true;
}

static bool open_lane(struct run *r, size_t i, struct err *e)
{
        const struct run_config *c = &r->config;
        struct lane *l = &r->lanes[i];
        struct err why = { 0 };
        bool ok;

        l->run = r;
        l->lock = -1;
        pthread_cond_init(&l->came, NULL);
        if (i < c->account_n) {
                opened(r, l, open_account(r, l, c->accounts[i], &why), c->accounts[i]->name, &why);
                return true;
        }
        i -= c->account_n;
        ok = open_archive(r, l, c->archives[i], &why);
        if (l->cut_off)
                *e = why;
        else
                opened(r, l, ok, c->archives[i], &why);
        return !l->cut_off;
}

/* Archives that the state has not met get their rows in one transaction: a shell's *.eml is thousands of them, each worth a sync. */
static bool meet_archives(struct run *r, struct err *e)
{
        struct ledger_account la;

        if (r->config.dry || r->config.archive_n < 2)
                return true;
        if (!ledger_begin(r->ledger, e))
                return false;
        for (size_t i = 0; i < r->config.archive_n; i++) {
                struct str key = archive_key(r, r->config.archives[i]);

                if (key.p ? ledger_account(r->ledger, key, STR(""), &la, r->arena, e) : err_nomem(e))
                        continue;
                ledger_rollback(r->ledger);
                return false;
        }
        return ledger_commit(r->ledger, e);
}

bool lanes_open(struct run *r, struct err *e)
{
        size_t n = r->config.account_n + r->config.archive_n;

        if (r->config.account_n && !r->config.dry && ledger_in_memory(r->ledger))
                log_warn("the state directory %s lies in memory (tmpfs): what is held, or waits in the outbox, is gone when this machine starts again",
                         ledger_path(r->ledger));
        r->lanes = mem_array(n ? n : 1, sizeof *r->lanes);
        r->sources = mem_array(2 * n + 1, sizeof(struct source *));
        if (!r->lanes || !r->sources)
                return err_nomem(e);
        if (!meet_archives(r, e))
                return false;
        for (; r->lane_n < n; r->lane_n++)
                if (!open_lane(r, r->lane_n, e)) {
                        r->lane_n++; /* what it has opened is closed with the others */
                        return false;
                }
        return true;
}

static bool note_ready(void *ctx, const struct outbox_item *i)
{
        *(bool *)ctx = true;
        return false;
}

/* An archive read to its end loses its mark when the run is over; not as each ends: a worker that dies while others go on would begin anew with
 * those that were done. Nor when the run fails: whoever starts it again does not want all of it twice. */
static bool leave_mark(struct run *r, struct lane *l, bool sends, struct err *e)
{
        if (!l->resumable || l->la.id < 0)
                return true;
        if (l->reached_end && !l->undone && r->error.code == ERR_NONE) {
                r->result.ended[r->result.ended_n++] = l->la.id;
                return !sends || commit_reached(&r->committer, l->la.id, &l->guard, e);
        }
        if (!commit_reached(&r->committer, l->la.id, &l->guard, e))
                return false;
        return !l->limited || l->undone || r->error.code != ERR_NONE || ledger_resume_limited(r->ledger, l->la.id, e);
}

bool lanes_leave_marks(struct run *r, struct err *e)
{
        bool sends = false;

        if (r->config.archive_n == 0 || r->config.failed)
                return true;
        r->result.ended = mem_array(r->lane_n + 1, sizeof *r->result.ended);
        if (!r->result.ended)
                return err_nomem(e);
        if (!ledger_outbox(r->ledger, 1u << OUTBOX_READY, note_ready, &sends, e) || !ledger_begin(r->ledger, e))
                return false;
        for (size_t i = 0; i < r->lane_n; i++)
                if (!leave_mark(r, &r->lanes[i], sends, e)) {
                        ledger_rollback(r->ledger);
                        return false;
                }
        return ledger_commit(r->ledger, e);
}

bool run_over(struct ledger *l, struct run_result *res, bool whole, struct err *e)
{
        bool ok = true;

        if (whole && res->ended_n > 0 && (ok = ledger_begin(l, e))) {
                for (size_t i = 0; ok && i < res->ended_n; i++)
                        ok = ledger_resume_clear(l, res->ended[i], e);
                if (ok)
                        ok = ledger_commit(l, e);
                else
                        ledger_rollback(l);
        }
        mem_free(res->ended);
        res->ended = NULL;
        res->ended_n = 0;
        return ok;
}
