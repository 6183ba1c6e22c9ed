/* Deciding: what the state knows of a message, the script's verdict, implicit keep; and a message's end. */
#include <stdio.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/run_int.h"
#include "core/supervise.h"

enum { REDONE_MAX = 3 }; /* times a message is decided again because a name was taken, before it is held */

/* ---- the end of a job ---- */

static void release_names(struct run *r, const struct plan *p)
{
        for (const struct effect *f = p->first; f; f = f->next)
                if (f->kind == EFFECT_SAVE)
                        names_release(r->names, f->root, f->path);
}

/* The handler's view of a message ends; names it was promised are free again (or stand on disk by now). */
void job_forget_plan(struct run *r, struct job *j)
{
        struct plan *p = j->item.plan;

        if (!p)
                return;
        if (r->script->release)
                r->script->release(r->script->ctx, p);
        if (!r->config.dry)
                release_names(r, p);
        plan_free(p);
        j->item.plan = NULL;
}

void job_over(struct run *r, struct job *j, enum outcome_kind kind)
{
        j->item.outcome.number = message_origin(j->message)->number;
        j->item.outcome.kind = kind;
        if (kind == OUTCOME_UNDONE) {
                r->result.undone++;
                j->lane->undone++;
        }
        job_forget_plan(r, j);
        lane_outcome(r, j);
}

/* "old.mbox, message 3" */
static struct str job_name(struct run *r, const struct job *j, char *out, size_t n)
{
        const struct origin *o = message_origin(j->message);

        snprintf(out, n, "%.*s, message %llu", STR_FMT(o->source), (unsigned long long)o->number);
        return str_of(out);
}

static void count_effects(struct run *r, const struct plan *p)
{
        for (const struct effect *f = p->first; f; f = f->next) {
                r->result.delivered += f->kind == EFFECT_DELIVER;
                r->result.saved += f->kind == EFFECT_SAVE && !f->same;
                r->result.mails += f->kind == EFFECT_MAIL;
                r->result.commands += f->kind == EFFECT_COMMAND;
        }
}

/* Whoever hears of it may look at more of the message than has been looked at so far. */
static void tell(struct run *r, struct job *j, const struct run_event *ev)
{
        const struct origin *o = message_origin(j->message);

        hand_take(0, j->lane->la.name, o->uid, o->occurrence, "telling of");
        run_tell(r, ev);
        hand_drop(0);
}

static void tell_held(struct run *r, struct job *j)
{
        struct run_event ev = { .kind = EVENT_HELD, .plan = j->item.plan, .source = j->source, .error = &j->item.why,
                                .quarantined = j->item.quarantined };
        char name[512];

        if (j->crash && !r->config.dry)
                hand_counted(j->lane->la.name, message_origin(j->message)->uid, message_origin(j->message)->occurrence);
        r->result.held++;
        r->result.quarantined += j->item.quarantined;
        log_error("%.*s: %s: %s", STR_FMT(job_name(r, j, name, sizeof name)), j->item.why.text,
                  j->item.quarantined ? "quarantined until the script changes or --failed asks" : "held, to be tried again");
        tell(r, j, &ev);
}

void job_settled(struct run *r, struct job *j)
{
        struct run_event ev = { .kind = EVENT_DECIDED, .plan = j->item.plan, .source = j->source };

        if (j->item.hold) {
                tell_held(r, j);
                job_over(r, j, OUTCOME_HELD);
                return;
        }
        r->result.messages++;
        count_effects(r, j->item.plan);
        tell(r, j, &ev);
        job_over(r, j, OUTCOME_SETTLED);
}

/* ---- deciding ---- */

static bool implicit_keep(struct run *r, struct job *j, struct err *e)
{
        struct plan *p = j->item.plan;
        struct account *a = j->lane->account;
        struct effect *f;

        if (!a || p->delivered || p->discarded || !a->inbox.p)
                return true;
        f = plan_add(p, EFFECT_DELIVER, &(struct limits){ .deliveries = UINT32_MAX }, e);
        if (!f)
                return false;
        f->implicit = true;
        f->path = a->inbox;
        f->flags = message_origin(j->message)->flags;
        f->root = run_root(r, j->source, e);
        p->delivered = true;
        return f->root != NULL;
}

/* Nothing that it had decided happens: its names are free at once, lest a later message take its file for one that will be there. */
void job_hold(struct job *j, const struct err *why, bool attempt)
{
        enum { TO_HOLD = 1 << 20 }; /* a handler may have filled the plan's memory; holding needs some */
        struct plan *p = j->item.plan;

        arena_allow(p->arena, TO_HOLD);
        release_names(j->run, p);
        p->first = p->last = NULL;
        j->item.hold = true;
        j->item.attempt = attempt;
        j->item.why = *why;
}

static void dry_decided(struct run *r, struct job *j)
{
        if (!j->item.hold)
                run_keep_changes(r, j->item.plan);
        job_settled(r, j);
}

/* The script may have decided on what could not be read. An archive's bytes cannot be kept either: it counts as not done. Without memory they can:
 * it is held. A broken disk ends the run here: a mark set behind later messages would let --resume pass this one by. */
static bool unreadable(struct run *r, struct job *j)
{
        const struct err *trouble = message_trouble(j->message);
        char name[512];
        struct err why;

        if (trouble->code == ERR_NONE || trouble->code == ERR_NOMEM || !j->source->archive || j->source == j->lane->spool)
                return false;
        why = *trouble;
        (void)!err_in(&why, "%.*s: nothing was done for it", STR_FMT(job_name(r, j, name, sizeof name)));
        if (ends_fetching(&why))
                run_end(r, &why);
        else
                log_error("%s", why.text);
        job_over(r, j, OUTCOME_UNDONE);
        return true;
}

/* A parsing limit was reached: what the script saw may not be all. Such a message settles only when it is kept whole or discarded. Of an
 * account it is held; what was decided about an archive's is carried out, but the exit code tells. */
static void mind_limits(struct run *r, struct job *j)
{
        char name[512];
        struct err why;
        size_t n, i = 0;
        const char *const *defects;

        if (j->item.hold || plan_keeps(j->item.plan) || !message_over_limit(j->message))
                return;
        defects = message_defects(j->message, &n);
        while (i + 1 < n && strncmp(defects[i], "limit.", 6) != 0)
                i++;
        err_set(&why, ERR_LIMIT, "%s: it is more than mail.limits allows to be read, and was neither delivered nor saved whole nor discarded",
                defects[i]);
        if (j->lane->account) {
                job_hold(j, &why, false);
                return;
        }
        log_warn("%.*s: %s", STR_FMT(job_name(r, j, name, sizeof name)), why.text);
        r->result.limited++;
}

static void decided(struct run *r, struct job *j, enum verdict v, struct err *e)
{
        if (j->item.plan->stopped) {
                job_over(r, j, OUTCOME_UNDONE);
                return;
        }
        if (unreadable(r, j))
                return;
        if (v != RUN_FAIL && !implicit_keep(r, j, e))
                v = RUN_FAIL;
        if (v == RUN_FAIL && e->code != ERR_NOMEM && ends_fetching(e)) {
                run_end(r, e);
                job_over(r, j, OUTCOME_UNDONE);
                return;
        }
        if (message_trouble(j->message)->code != ERR_NONE)
                job_hold(j, message_trouble(j->message), false);
        else if (v == RUN_FAIL)
                job_hold(j, e, !is_of_machine(e) && e != &j->error);
        mind_limits(r, j);
        if (r->config.dry)
                dry_decided(r, j);
        else
                job_stage(r, j);
}

static void wait_job(void *arg)
{
        struct job *j = arg;
        const struct origin *o = message_origin(j->message);
        unsigned slot = hand_slot();

        hand_take(slot, j->lane->la.name, o->uid, o->occurrence, "reading");
        j->item.plan->wait(j->item.plan->wait_arg);
        hand_drop(slot);
        j->event = (struct event){ .kind = GOT_WAKE, .what = j };
        queue_post(j->run->events, &j->event.link);
}

static void verdict(struct run *r, struct job *j, enum verdict v, struct err *e)
{
        hand_handler_ends();
        hand_drop(0);
        if (v != RUN_WAIT) {
                lane_decided(j->lane, j->message);
                decided(r, j, v, e);
                return;
        }
        if (pool_submit(r->waits, wait_job, j)) {
                j->lane->waiting = j;
                r->waiting_n++;
                return;
        }
        err_nomem(e);
        decided(r, j, RUN_FAIL, e);
}

static void take_in_hand(struct run *r, struct job *j)
{
        const struct origin *o = message_origin(j->message);

        hand_take(0, j->lane->la.name, o->uid, o->occurrence, "deciding");
        hand_handler_begins(r->config.limits.cpu);
}

/* An archive's message by what it is: where it stands another may have stood when that was held (a log rotated, standard input). */
static bool look_up_held(struct run *r, struct job *j, bool *found, struct err *e)
{
        const struct origin *o = message_origin(j->message);
        struct arena *a = j->item.plan->arena;
        uint8_t hash[DIGEST_SIZE];
        struct mark m;

        j->item.twin = 0;
        for (unsigned n = 0;; n = m.occurrence + 1) {
                if (!ledger_mark_from(r->ledger, j->lane->la.id, o->uid, n, &m, found, a, e))
                        return false;
                if (!*found)
                        return true;
                if (n == 0 && !message_hash(j->message, hash, e))
                        return false;
                if (memcmp(hash, m.content_hash, DIGEST_SIZE) == 0)
                        break;
                j->item.twin += m.occurrence == j->item.twin; /* the first that is free */
        }
        j->item.mark = m;
        j->item.twin = m.occurrence;
        return true;
}

/* What the state knows of a message before it is decided, in the memory of its plan. False: it is left alone (quarantined, forgotten
 * by somebody, or held earlier in this run because it killed the worker). */
static bool look_up(struct run *r, struct job *j, struct err *e)
{
        const struct origin *o = message_origin(j->message);
        bool found = false;

        if (j->crash && j->crash->counted)
                return false;
        if (j->source == j->lane->spool)
                return held_mark(j->source, o->number, &j->item.mark, &found, j->item.plan->arena, e) && found;
        if (!j->lane->has_held)
                return true;
        if (!look_up_held(r, j, &found, e))
                return false;
        if (!found)
                j->item.mark = (struct mark){ 0 };
        return !found || j->item.mark.state != MARK_QUARANTINED ||
               memcmp(j->item.mark.script_hash, r->config.script_hash, DIGEST_SIZE) != 0;
}

static void skip(struct run *r, struct job *j, const struct err *e)
{
        if (e->code != ERR_NONE)
                run_end(r, e);
        else if (j->crash)
                r->result.held++;
        else if (j->source != j->lane->spool) /* of the spool only what somebody has forgotten meanwhile */
                j->lane->left++;
        job_over(r, j, e->code == ERR_NONE ? OUTCOME_HELD : OUTCOME_UNDONE);
}

void job_decide(struct run *r, struct job *j)
{
        struct err e = { 0 };
        struct plan *p;

        p = j->item.plan = plan_new(j->message, j->source);
        if (!p)
                err_nomem(&e);
        else
                p->run = r;
        if (!p || !look_up(r, j, &e)) {
                skip(r, j, &e);
                return;
        }
        if (j->crash) { /* it killed the worker: it is held without another look */
                err_set(&e, ERR_SCRIPT, "%s", j->crash->text);
                decided(r, j, RUN_FAIL, &e);
                return;
        }
        if (j->redone >= REDONE_MAX) {
                decided(r, j, RUN_FAIL, &j->error);
                return;
        }
        if (j->unparsed && !lane_parse(j->lane, j->message, false, &e)) {
                skip(r, j, &e);
                return;
        }
        take_in_hand(r, j);
        verdict(r, j, r->script->decide(r->script->ctx, p, &e), &e);
}

void job_resume(struct run *r, struct job *j)
{
        struct err e = { 0 };

        j->lane->waiting = NULL;
        r->waiting_n--;
        if (j->stale) {
                j->stale = false;
                r->stale_n--;
                j->lane->stale = j;
                return;
        }
        take_in_hand(r, j);
        verdict(r, j, r->script->resume(r->script->ctx, j->item.plan, &e), &e);
}

/* ---- on_finish: a plan of its own, a batch of its own ---- */

/* on_finish speaks once a run: the guard of an account's first run, and where only archives were read it waits as their mails do. It is of no
 * account; the rate of the run's first one counts it. */
static struct guard finish_guard(const struct run *r, int64_t *account)
{
        struct guard g = { .archive = r->config.account_n == 0 && r->config.archive_n > 0, .fresh = true, .send = r->config.send };

        for (size_t i = 0; i < r->lane_n && *account == 0; i++)
                if (r->lanes[i].account) {
                        *account = r->lanes[i].la.id;
                        g.paced_until = r->lanes[i].guard.paced_until;
                }
        return g;
}

static enum verdict finish_verdict(struct run *r, struct plan *p, struct err *e)
{
        enum verdict v;

        hand_handler_begins(r->config.limits.cpu);
        v = r->script->finish(r->script->ctx, p, e);
        while (v == RUN_WAIT) { /* nothing else is going on: here and now */
                p->wait(p->wait_arg);
                v = r->script->resume(r->script->ctx, p, e);
        }
        hand_handler_ends();
        return v;
}

static bool carry_finish(struct run *r, struct item *it, struct err *e)
{
        struct item *items[1] = { it };
        bool retry, ok;

        if (!commit_stage(&r->committer, it, e))
                return false;
        ok = commit_batch(&r->committer, items, 1, &retry, e) == 1;
        if (!ok)
                commit_drop(&r->committer, it);
        return ok && e->code == ERR_NONE;
}

void run_finish(struct run *r)
{
        struct item it = { .spool_fd = -1 };
        struct guard guard = finish_guard(r, &it.account);
        struct err e = { 0 };
        enum verdict v;

        if (!r->script->finish || r->ending)
                return;
        it.guard = &guard;
        it.plan = plan_new(NULL, NULL);
        if (!it.plan) {
                err_nomem(&e);
                run_end(r, &e);
                return;
        }
        it.plan->run = r;
        v = finish_verdict(r, it.plan, &e);
        if (it.plan->stopped) {
                r->result.stopped = true;
        } else if (v == RUN_FAIL) {
                err_in(&e, "on_finish");
                r->result.worst = err_worse(r->result.worst, e.code);
                log_error("%s", e.text);
        } else if (r->config.dry || carry_finish(r, &it, &e)) {
                count_effects(r, it.plan);
                run_tell(r, &(struct run_event){ .kind = EVENT_DECIDED, .plan = it.plan });
        } else {
                err_in(&e, "carrying out what on_finish has decided");
                run_end(r, &e);
        }
        if (r->script->release)
                r->script->release(r->script->ctx, it.plan);
        plan_free(it.plan);
        r->result.waiting += guard.waiting;
}
