#include "core/commit.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/mboxout.h"
#include "core/mem.h"
#include "core/sys.h"

/* ---- staging ---- */

/* The From_ line says who sent it and when it came, as far as its source knew. */
static bool stage_mbox(struct committer *c, struct plan *p, struct effect *f, struct mail_stream *s, struct err *e)
{
        const struct origin *o = p->message ? message_origin(p->message) : NULL;
        int64_t when = o && o->time ? o->time : o && o->fetched ? o->fetched : c->now;

        if (!mboxout_stage(c->staging, f->root, f->path, mail_stream_feed(s), o ? o->envelope_from : STR_NONE, when, &f->append,
                           &f->spool_fd, p->arena, e))
                return false;
        f->spool = f->append.staged;
        return true;
}

static bool stage_stream(struct committer *c, struct plan *p, struct effect *f, struct mail_stream *s, struct err *e)
{
        struct str flags = f->flags;
        bool ok;

        if (!s)
                return false;
        switch (f->kind) {
        case EFFECT_DELIVER:
                ok = f->mbox ? stage_mbox(c, p, f, s, e)
                             : staging_maildir(c->staging, f->root, f->path, flags, mail_stream_feed(s), &f->staged, p->arena, e);
                f->is_staged = ok && !f->mbox;
                break;
        case EFFECT_SAVE:
                ok = staging_file(c->staging, f->root, f->path, mail_stream_feed(s), &f->staged, p->arena, e);
                f->is_staged = ok;
                f->staged.replace = f->conflict == CONFLICT_REPLACE;
                f->staged.numbered = !f->staged.replace;
                break;
        default:
                ok = staging_spool(c->staging, mail_stream_feed(s), &f->spool, &f->spool_fd, p->arena, e);
        }
        mail_stream_close(s);
        return ok;
}

static struct mail_stream *effect_stream(struct plan *p, struct effect *f, struct err *e)
{
        switch (f->kind) {
        case EFFECT_DELIVER:
                if (f->fields || f->stubs)
                        return compose_copy(p->message, f->fields, f->stubs, p->arena, e);
                return compose_as_is(p->message, p->arena, e);
        case EFFECT_SAVE:
                if (part_is_root(f->part))
                        return compose_as_is(part_message(f->part), p->arena, e);
                return compose_part(f->part, p->arena, e);
        case EFFECT_MAIL:
                return compose(f->compose, p->arena, e);
        case EFFECT_COMMAND:
                return compose_as_is(p->message, p->arena, e);
        }
        return NULL;
}

static bool stage_effect(struct committer *c, struct plan *p, struct effect *f, struct err *e)
{
        if (f->kind == EFFECT_SAVE && f->same)
                return true;
        if (f->kind == EFFECT_COMMAND && !p->message)
                return true; /* on_finish has no message to give */
        if (stage_stream(c, p, f, effect_stream(p, f, e), e))
                return true;
        return err_in(e, "%.*s", STR_FMT(effect_words(f, p->arena)));
}

static bool stage_hold(struct committer *c, struct item *it, struct err *e)
{
        struct mail_stream *s;
        bool ok;

        if (it->mark.spool.n && !it->spool.n) { /* it lies in the spool already */
                it->spool = it->mark.spool;
                return true;
        }
        s = compose_as_is(it->plan->message, it->plan->arena, e);
        ok = s && staging_spool(c->staging, mail_stream_feed(s), &it->spool, &it->spool_fd, it->plan->arena, e);
        mail_stream_close(s);
        return ok || err_in(e, "keeping the message in the spool");
}

/* The hashes cost a pass over the bytes: an archive's message has no mark unless it is held. The header of one that kills the parser
 * stays unknown, and so it is never deleted from a server either. */
static bool stage_hashes(struct item *it, struct err *e)
{
        struct message *m = it->plan->message;

        if (!m || (it->guard->archive && !it->hold))
                return true;
        return (it->crashed || message_identity(m, it->header_hash, e)) && message_hash(m, it->content_hash, e);
}

bool commit_stage(struct committer *c, struct item *it, struct err *e)
{
        bool ok = stage_hashes(it, e);

        if (ok && it->hold)
                ok = stage_hold(c, it, e);
        if (ok && !it->hold) {
                ok = plan_actions(it->plan, e);
                for (struct effect *f = it->plan->first; f && ok; f = f->next)
                        ok = stage_effect(c, it->plan, f, e);
        }
        if (!ok)
                commit_drop(c, it);
        return ok;
}

static void drop_spool(struct committer *c, struct str *name, int *fd)
{
        if (*fd >= 0)
                close(*fd);
        *fd = -1;
        if (name->n)
                staging_spool_remove(c->ledger, *name);
        *name = STR_NONE;
}

void commit_drop(struct committer *c, struct item *it)
{
        for (struct effect *f = it->plan->first; f; f = f->next) {
                if (f->is_staged)
                        staging_drop(c->staging, &f->staged);
                f->is_staged = false;
                drop_spool(c, &f->spool, &f->spool_fd);
        }
        if (!str_eq(it->spool, it->mark.spool))
                drop_spool(c, &it->spool, &it->spool_fd);
        it->spool = STR_NONE;
}

/* ---- lists of what a batch has staged ---- */

struct lists {
        struct staged **staged;
        struct plan **owner; /* of each staged */
        int *fds;
        size_t staged_n, fd_n;
};

static void lists_free(struct lists *l)
{
        mem_free(l->staged);
        mem_free(l->owner);
        mem_free(l->fds);
}

static bool lists_room(struct lists *l, struct item *const *items, size_t n, struct err *e)
{
        size_t effects = 0;

        for (size_t i = 0; i < n; i++)
                effects += items[i]->plan->count;
        l->staged = mem_array(effects + 1, sizeof *l->staged);
        l->owner = mem_array(effects + 1, sizeof *l->owner);
        l->fds = mem_array(effects + n + 1, sizeof *l->fds);
        return (l->staged && l->owner && l->fds) || err_nomem(e);
}

static void lists_add(struct lists *l, struct item *it)
{
        if (it->hold) {
                if (it->spool_fd >= 0)
                        l->fds[l->fd_n++] = it->spool_fd;
                return;
        }
        for (struct effect *f = it->plan->first; f; f = f->next) {
                if (f->is_staged) {
                        l->owner[l->staged_n] = it->plan;
                        l->staged[l->staged_n++] = &f->staged;
                }
                if (f->spool_fd >= 0)
                        l->fds[l->fd_n++] = f->spool_fd;
        }
}

static void close_spools(struct item *it)
{
        if (it->spool_fd >= 0)
                close(it->spool_fd);
        it->spool_fd = -1;
        for (struct effect *f = it->plan->first; f; f = f->next) {
                if (f->spool_fd >= 0)
                        close(f->spool_fd);
                f->spool_fd = -1;
        }
}

/* ---- the transaction ---- */

static bool record_rename(struct committer *c, struct effect *f, struct err *e)
{
        struct rename_job j = {
                .run = staging_id(c->staging), .staged_dir = f->staged.dir_path, .staged = f->staged.name,
                .target_dir = f->staged.target_path, .target = f->staged.target, .dev = f->staged.dev, .ino = f->staged.ino,
                .replace = f->staged.replace, .numbered = f->staged.numbered,
        };

        if (!ledger_rename_add(c->ledger, &j, e))
                return false;
        f->staged.journal = j.id;
        return true;
}

enum {
        GUARD_FRESH = 20, GUARD_LATER = 100, /* outward effects of an account's first run, and of a later one */
        PACE = 3600,                         /* and of all its runs: GUARD_LATER in so many seconds, */
        PACE_EACH = PACE / GUARD_LATER,      /* of which each takes its part */
};

/* A run every minute would otherwise send a hundred a minute. A clock that went back makes nobody wait for more than PACE. */
static bool in_pace(struct guard *g, int64_t now)
{
        int64_t from = g->paced_until < now ? now : g->paced_until > now + PACE ? now + PACE : g->paced_until;
        bool goes = from + PACE_EACH <= now + PACE;

        from += goes ? PACE_EACH : 0;
        g->paced |= from != g->paced_until;
        g->paced_until = from;
        return goes;
}

static enum outbox_state guarded(struct guard *g, int64_t now)
{
        unsigned limit = g->archive ? 0 : g->fresh ? GUARD_FRESH : GUARD_LATER;

        if (g->send || (g->used < limit && in_pace(g, now))) {
                g->used++;
                return OUTBOX_READY;
        }
        g->waiting++;
        return OUTBOX_WAITING;
}

static bool record_pace(struct committer *c, struct item *it, struct err *e)
{
        if (!it->guard->paced || it->account <= 0)
                return true;
        it->guard->paced = false;
        return ledger_account_paced(c->ledger, it->account, it->guard->paced_until, e);
}

static bool record_outward(struct committer *c, struct item *it, struct effect *f, struct err *e)
{
        struct message *m = it->plan->message;
        struct outbox_item o = {
                .action = f->action, .kind = f->kind == EFFECT_MAIL ? OUTBOX_MAIL : OUTBOX_COMMAND, .state = guarded(it->guard, c->now),
                .created = c->now, .next_try = c->now, .smarthost = f->smarthost, .sender = f->sender, .recipients = f->recipients,
                .recipient_count = f->recipient_n, .argv = f->argv, .argc = f->argc, .spool = f->spool,
                .at_most_once = f->at_most_once, .source = m ? message_origin(m)->source : STR("on_finish"),
                .account = m ? message_origin(m)->account : STR_NONE,
        };

        if (f->compose)
                o.subject = compose_subject(f->compose, it->plan->arena);
        if (!o.subject.n && m)
                o.subject = message_subject(m);
        return ledger_outbox_add(c->ledger, &o, e);
}

static bool record_effects(struct committer *c, struct item *it, struct err *e)
{
        for (struct effect *f = it->plan->first; f; f = f->next) {
                if (f->is_staged && !record_rename(c, f, e))
                        return false;
                if (f->kind == EFFECT_DELIVER && f->mbox && !ledger_append_add(c->ledger, &f->append, e))
                        return false;
                if ((f->kind == EFFECT_MAIL || f->kind == EFFECT_COMMAND) && !record_outward(c, it, f, e))
                        return false;
        }
        return record_pace(c, it, e);
}

/* Oldest first, so that the last word stands. */
static bool record_stores(struct committer *c, const struct store_change *oldest, struct err *e)
{
        for (const struct store_change *s = oldest; s; s = s->newer) {
                bool ok = s->value.p ? ledger_store_set(c->ledger, s->store, s->key, s->value, s->expires, e)
                                     : ledger_store_remove(c->ledger, s->store, s->key, e);

                if (!ok)
                        return false;
        }
        return true;
}

static struct mark new_mark(struct committer *c, struct item *it)
{
        const struct origin *o = message_origin(it->plan->message);
        struct mark m = it->mark;

        m.account = it->account;
        m.uid = o->uid;
        m.occurrence = o->occurrence + it->twin;
        m.size = message_size(it->plan->message);
        m.last_seen = c->now;
        if (!m.first_seen)
                m.first_seen = c->now;
        memcpy(m.header_hash, it->header_hash, DIGEST_SIZE);
        memcpy(m.content_hash, it->content_hash, DIGEST_SIZE);
        return m;
}

/* What the script and an inbox of false say about the server's copy: it stays when nothing of ours is the message itself, and when
 * ours is perhaps cut off, whatever the script wants. */
static enum outcome_leave leave_of(const struct plan *p)
{
        return !plan_keeps(p) || message_origin(p->message)->suspect ? LEAVE_ALWAYS : p->leave_set ? p->leave : LEAVE_DEFAULT;
}

static int mark_leave(enum outcome_leave leave)
{
        switch (leave) {
        case LEAVE_ALWAYS: return MARK_LEAVE_ALWAYS;
        case LEAVE_NEVER: return MARK_LEAVE_NEVER;
        case LEAVE_AGE: return MARK_LEAVE_AGE;
        case LEAVE_DEFAULT: break;
        }
        return MARK_LEAVE_DEFAULT;
}

static bool record_settled(struct committer *c, struct item *it, struct err *e)
{
        struct mark m;

        if (it->guard->archive) /* an archive's marks are only those of held messages */
                return !it->mark.id || ledger_mark_forget(c->ledger, it->mark.id, e);
        m = new_mark(c, it);
        m.state = MARK_SEEN;
        m.attempts = 0;
        m.reason = m.spool = m.origin = STR_NONE;
        m.leave = mark_leave(leave_of(it->plan));
        m.leave_age = it->plan->leave_age;
        return ledger_mark_put(c->ledger, &m, e);
}

static bool record_held(struct committer *c, struct item *it, struct err *e)
{
        struct mark m = new_mark(c, it);
        bool same_script = memcmp(m.script_hash, c->script_hash, DIGEST_SIZE) == 0;

        m.attempts = (same_script ? m.attempts : 0) + (it->attempt ? 1 : 0);
        memcpy(m.script_hash, c->script_hash, DIGEST_SIZE);
        it->quarantined = m.attempts >= ATTEMPTS_MAX;
        m.state = it->quarantined ? MARK_QUARANTINED : MARK_HELD;
        m.reason = str_first(str_of(it->why.text), 4000);
        m.spool = it->spool;
        m.origin = origin_write(message_origin(it->plan->message), it->plan->arena);
        return ledger_mark_put(c->ledger, &m, e);
}

struct appended {
        int64_t id;
        struct append_place end;
};

/* From the last on: one that moves what comes after it is enough for each mbox. */
static bool appends_done(struct committer *c, struct err *e)
{
        for (size_t i = c->appended_n; i > 0; i--)
                if (!ledger_append_done(c->ledger, c->appended[i - 1].id, &c->appended[i - 1].end, e))
                        return false;
        return true;
}

enum { MARKS_MS = 1000 };

/* Messages that were only looked at: a transaction that writes nothing else costs more than to look at them again. */
static bool may_mark_late(const struct committer *c, struct item *const *items, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (items[i]->hold || items[i]->plan->first || items[i]->plan->oldest || items[i]->mark.id || !items[i]->number)
                        return false;
        return sys_mono_ms() - c->marked_ms < MARKS_MS;
}

static bool mark_later(struct guard *g, const struct resume *mark, struct err *e)
{
        buf_clear(&g->reached_uid);
        g->late = true;
        g->reached_names = mark->names;
        return buf_add_str(&g->reached_uid, mark->uid) || err_nomem(e);
}

/* One mark for each archive, behind its last message of the batch: a run that is cut off goes on there. */
static bool record_reached(struct committer *c, struct item *const *items, size_t n, struct err *e)
{
        bool late = may_mark_late(c, items, n), ok = true;

        for (size_t i = 0; i < n; i++)
                if (items[i]->number)
                        items[i]->guard->reached = items[i]->number;
        for (size_t i = 0; ok && i < n; i++) {
                struct guard *g = items[i]->guard;
                struct resume mark = { .number = g->reached, .names = items[i]->names };

                if (!items[i]->number || g->reached != items[i]->number)
                        continue;
                mark.uid = message_origin(items[i]->plan->message)->uid;
                g->late = false;
                ok = late ? mark_later(g, &mark, e) : ledger_resume_set(c->ledger, items[i]->account, &mark, e);
        }
        if (!late)
                c->marked_ms = sys_mono_ms();
        return ok;
}

bool commit_reached(struct committer *c, int64_t account, struct guard *g, struct err *e)
{
        struct resume mark = { .number = g->reached, .uid = buf_str(&g->reached_uid), .names = g->reached_names };

        return !g->late || ledger_resume_set(c->ledger, account, &mark, e);
}

/* The last batch's appends come behind those that this one promises: these were staged before those were done, and are moved behind them. */
static bool record(struct committer *c, struct item *const *items, size_t n, struct err *e)
{
        if (!ledger_rename_done(c->ledger, c->finished, c->finished_n, e))
                return false;
        for (size_t i = 0; i < n; i++) {
                struct item *it = items[i];

                if (it->hold) {
                        if (!record_held(c, it, e))
                                return false;
                        continue;
                }
                if (!record_effects(c, it, e) || !record_stores(c, it->plan->oldest, e))
                        return false;
                if (it->plan->message && !record_settled(c, it, e))
                        return false;
        }
        return appends_done(c, e) && record_reached(c, items, n, e);
}

/* Asked for before the transaction begins: whoever takes a name may ask the ledger. */
static struct learned *learn(struct committer *c, struct item *const *items, size_t n)
{
        for (size_t i = 0; c->names && i < n; i++)
                for (struct effect *f = items[i]->hold ? NULL : items[i]->plan->first; f; f = f->next)
                        if (f->kind == EFFECT_SAVE && f->is_staged)
                                names_staged(c->names, f->root, f->path, &f->staged);
        return c->names ? names_take_learned(c->names) : NULL;
}

static bool transact(struct committer *c, struct item *const *items, size_t n, struct err *e)
{
        struct learned *k = learn(c, items, n);
        bool ok = ledger_begin(c->ledger, e);

        if (ok && !(record(c, items, n, e) && learned_write(k, c->ledger, e))) {
                ledger_rollback(c->ledger);
                ok = false;
        }
        learned_free(k);
        return ok && ledger_commit(c->ledger, e);
}

/* ---- after the commitment ---- */

struct taking {
        struct committer *c;
        const struct lists *l;
};

static void took(void *ctx, struct staged *o, struct str name)
{
        struct taking *t = ctx;

        for (size_t i = 0; t->c->named && i < t->l->staged_n; i++)
                if (t->l->staged[i] == o)
                        t->c->named(t->c->ctx, t->l->owner[i], o->target, name);
}

static bool remember_finished(struct committer *c, const struct lists *l, struct err *e)
{
        if (c->finished_cap < l->staged_n) {
                int64_t *p = mem_resize(c->finished, l->staged_n * sizeof *p);

                if (!p)
                        return err_nomem(e);
                c->finished = p;
                c->finished_cap = l->staged_n;
        }
        for (size_t i = 0; i < l->staged_n; i++)
                c->finished[i] = l->staged[i]->journal;
        c->finished_n = l->staged_n;
        return true;
}

static bool append_one(struct committer *c, const struct append_job *j, struct err *e)
{
        struct appended done = { .id = j->id };

        if (!mboxout_append(c->ledger, j, false, &done.end, e))
                return false;
        if (c->appended_n == c->appended_cap) {
                size_t cap = c->appended_cap ? 2 * c->appended_cap : 16;
                struct appended *p = mem_resize(c->appended, cap * sizeof *p);

                if (!p)
                        return err_nomem(e);
                c->appended = p;
                c->appended_cap = cap;
        }
        c->appended[c->appended_n++] = done;
        return true;
}

/* What could not be appended stays in the journal: the end of the run tries again, and so does each start. */
static bool append_all(struct committer *c, struct item *const *items, size_t n, struct err *e)
{
        for (size_t i = 0; i < n; i++)
                for (struct effect *f = items[i]->hold ? NULL : items[i]->plan->first; f; f = f->next)
                        if (f->kind == EFFECT_DELIVER && f->mbox && !append_one(c, &f->append, e))
                                return false;
        return true;
}

/* What the source is told. Nothing is deleted anywhere unless every name stands. */
static void conclude(struct committer *c, struct item *it, bool named)
{
        struct plan *p = it->plan;

        if (!p->message)
                return;
        it->outcome.number = message_origin(p->message)->number;
        it->outcome.kind = it->hold ? OUTCOME_HELD : OUTCOME_SETTLED;
        it->outcome.leave = named ? leave_of(p) : LEAVE_ALWAYS;
        it->outcome.leave_age = p->leave_age;
        if (it->mark.spool.n && !it->hold)
                staging_spool_remove(c->ledger, it->mark.spool);
}

/* Before it nothing has happened; after it everything will. */
static bool commit_items(struct committer *c, struct item *const *items, size_t n, struct lists *l, struct err *e)
{
        for (size_t i = 0; i < n; i++)
                lists_add(l, items[i]);
        if (!staging_sync(c->staging, l->staged, l->staged_n, l->fds, l->fd_n, e) || !transact(c, items, n, e))
                return false;
        for (size_t i = 0; i < n; i++)
                close_spools(items[i]);
        c->finished_n = c->appended_n = 0;
        return true;
}

size_t commit_batch(struct committer *c, struct item *const *items, size_t n, bool *retry, struct err *e)
{
        struct lists l = { 0 };
        struct err later = { 0 };
        size_t good;
        bool named;

        good = commit_names(c->names, items, n, retry, e);
        if (good == 0)
                return 0;
        if (!lists_room(&l, items, good, e) || !commit_items(c, items, good, &l, e)) {
                *retry = false;
                lists_free(&l);
                return 0;
        }
        named = staging_publish(c->staging, l.staged, l.staged_n, took, &(struct taking){ c, &l }, &later) &&
                remember_finished(c, &l, &later) && append_all(c, items, good, &later);
        if (!named) {
                *e = later;
                *retry = false;
        }
        for (size_t i = 0; i < good; i++)
                conclude(c, items[i], named);
        lists_free(&l);
        return good;
}

bool commit_close(struct committer *c, struct err *e)
{
        bool ok = (c->finished_n == 0 || ledger_rename_done(c->ledger, c->finished, c->finished_n, e)) && appends_done(c, e);

        mem_free(c->appended);
        c->appended = NULL;
        c->appended_n = c->appended_cap = 0;
        mem_free(c->finished);
        c->finished = NULL;
        c->finished_n = c->finished_cap = 0;
        return ok;
}
