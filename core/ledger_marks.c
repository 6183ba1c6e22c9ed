/* Accounts, the marks of their messages, and how far a run over an archive came. */
#include "core/ledger_int.h"
#include "core/sys.h"

/* ---- accounts -------------------------------------------------------------------------------------------------- */

#define ACCOUNT_COLUMNS "id, name, mailbox, fresh, last_run, no_pipeline, no_capa, sizes_differ, paced_until"

static void read_account(struct query *q, void *item, struct arena *a)
{
        struct ledger_account *acc = item;

        acc->id = query_get_int(q);
        acc->name = query_get(q, a);
        acc->mailbox = query_get(q, a);
        acc->fresh = query_get_int(q) != 0;
        acc->last_run = query_get_int(q);
        acc->no_pipeline = query_get_int(q) != 0;
        acc->no_capa = query_get_int(q) != 0;
        acc->sizes_differ = query_get_int(q) != 0;
        acc->paced_until = query_get_int(q);
}

static bool find_account(struct ledger *l, struct str name, struct str mailbox, struct ledger_account *out, bool *found,
                         struct arena *a, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for an account", "SELECT " ACCOUNT_COLUMNS " FROM account WHERE name = ? AND mailbox = ?", e);
        query_bytes(&q, name);
        query_bytes(&q, mailbox);
        *found = query_row(&q);
        if (*found)
                read_account(&q, out, a);
        return query_end(&q);
}

static bool add_account(struct ledger *l, struct str name, struct str mailbox, struct err *e)
{
        struct query q;

        query_open(&q, l, "adding an account", "INSERT OR IGNORE INTO account (name, mailbox) VALUES (?, ?)", e);
        query_bytes(&q, name);
        query_bytes(&q, mailbox);
        return query_run(&q);
}

bool ledger_account(struct ledger *l, struct str name, struct str mailbox, struct ledger_account *out, struct arena *a,
                    struct err *e)
{
        bool found;

        if (!find_account(l, name, mailbox, out, &found, a, e) || found)
                return found;
        if (!l->readonly)
                return add_account(l, name, mailbox, e) && find_account(l, name, mailbox, out, &found, a, e) &&
                       (found || err_set(e, ERR_IO, "the state %s: an account just added is not there", l->file));
        *out = (struct ledger_account){ .id = -1, .name = arena_str(a, name), .mailbox = arena_str(a, mailbox), .fresh = true };
        return out->name.p && out->mailbox.p ? true : err_nomem(e);
}

bool ledger_account_save(struct ledger *l, const struct ledger_account *acc, struct err *e)
{
        struct query q;

        query_open(&q, l, "saving an account",
                   "UPDATE account SET fresh = ?, last_run = ?, no_pipeline = ?, no_capa = ?, sizes_differ = ? WHERE id = ?", e);
        query_int(&q, acc->fresh);
        query_int(&q, acc->last_run);
        query_int(&q, acc->no_pipeline);
        query_int(&q, acc->no_capa);
        query_int(&q, acc->sizes_differ);
        query_int(&q, acc->id);
        return query_run(&q);
}

bool ledger_account_paced(struct ledger *l, int64_t account, int64_t until, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting what an account has sent", "UPDATE account SET paced_until = ? WHERE id = ?", e);
        query_int(&q, until);
        query_int(&q, account);
        return query_run(&q);
}

struct account_to {
        bool (*f)(void *ctx, const struct ledger_account *acc);
        void *ctx;
};

static void bind_accounts(struct query *q, const void *args, const void *last)
{
        query_int(q, last ? ((const struct ledger_account *)last)->id : INT64_MIN);
}

static bool give_account(const void *to, const void *item)
{
        const struct account_to *t = to;

        return t->f(t->ctx, item);
}

bool ledger_accounts(struct ledger *l, bool (*f)(void *ctx, const struct ledger_account *acc), void *ctx, struct err *e)
{
        static const struct listing how = { "listing accounts", "SELECT " ACCOUNT_COLUMNS " FROM account WHERE id > ? ORDER BY id LIMIT 128",
                                            sizeof(struct ledger_account), bind_accounts, read_account, give_account };

        return ledger_list(l, &how, NULL, &(struct account_to){ f, ctx }, e);
}

/* ---- one mark -------------------------------------------------------------------------------------------------- */

#define MARK_COLUMNS \
        "id, account, uid, occurrence, state, header_hash, content_hash, size, first_seen, last_seen, deleted, leave, leave_age, " \
        "attempts, script_hash, reason, spool, origin, next_try"

static void read_mark(struct query *q, void *item, struct arena *a)
{
        struct mark *m = item;

        m->id = query_get_int(q);
        m->account = query_get_int(q);
        m->uid = query_get(q, a);
        m->occurrence = (unsigned)query_get_int(q);
        m->state = (enum mark_state)query_get_int(q);
        query_get_hash(q, m->header_hash);
        query_get_hash(q, m->content_hash);
        m->size = (uint64_t)query_get_int(q);
        m->first_seen = query_get_int(q);
        m->last_seen = query_get_int(q);
        m->deleted = query_get_int(q) != 0;
        switch (query_get_int(q)) {
        case MARK_LEAVE_ALWAYS: m->leave = MARK_LEAVE_ALWAYS; break;
        case MARK_LEAVE_NEVER: m->leave = MARK_LEAVE_NEVER; break;
        case MARK_LEAVE_AGE: m->leave = MARK_LEAVE_AGE; break;
        default: m->leave = MARK_LEAVE_DEFAULT; break;
        }
        m->leave_age = query_get_int(q);
        m->attempts = (unsigned)query_get_int(q);
        query_get_hash(q, m->script_hash);
        m->reason = query_get(q, a);
        m->spool = query_get(q, a);
        m->origin = query_get(q, a);
        m->next_try = query_get_int(q);
}

static bool one_mark(struct query *q, struct mark *out, bool *found, struct arena *a)
{
        *found = query_row(q);
        if (*found)
                read_mark(q, out, a);
        return query_end(q);
}

bool ledger_mark(struct ledger *l, int64_t account, struct str uid, unsigned occurrence, struct mark *out, bool *found,
                 struct arena *a, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for a mark", "SELECT " MARK_COLUMNS " FROM mark WHERE account = ? AND uid = ? AND occurrence = ?", e);
        query_int(&q, account);
        query_bytes(&q, uid);
        query_int(&q, occurrence);
        return one_mark(&q, out, found, a);
}

bool ledger_mark_from(struct ledger *l, int64_t account, struct str uid, unsigned occurrence, struct mark *out, bool *found,
                      struct arena *a, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for marks of a UID",
                   "SELECT " MARK_COLUMNS " FROM mark WHERE account = ? AND uid = ? AND occurrence >= ? ORDER BY occurrence LIMIT 1", e);
        query_int(&q, account);
        query_bytes(&q, uid);
        query_int(&q, occurrence);
        return one_mark(&q, out, found, a);
}

bool ledger_mark_id(struct ledger *l, int64_t id, struct mark *out, bool *found, struct arena *a, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for a mark", "SELECT " MARK_COLUMNS " FROM mark WHERE id = ?", e);
        query_int(&q, id);
        return one_mark(&q, out, found, a);
}

/* Among several the settled one first, then the oldest. An unknown (zero) hash finds nothing: it is NULL. */
bool ledger_mark_by_content(struct ledger *l, int64_t account, const uint8_t hash[DIGEST_SIZE], struct mark *out, bool *found,
                            struct arena *a, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for a mark by content",
                   "SELECT " MARK_COLUMNS " FROM mark WHERE account = ? AND content_hash = ? ORDER BY state, id LIMIT 1", e);
        query_int(&q, account);
        query_hash(&q, hash);
        return one_mark(&q, out, found, a);
}

bool ledger_mark_by_header(struct ledger *l, int64_t account, const uint8_t hash[DIGEST_SIZE], struct mark *out, bool *found,
                           struct arena *a, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for a mark by header",
                   "SELECT " MARK_COLUMNS " FROM mark WHERE account = ? AND header_hash = ? ORDER BY state, id LIMIT 1", e);
        query_int(&q, account);
        query_hash(&q, hash);
        return one_mark(&q, out, found, a);
}

static void bind_mark(struct query *q, const struct mark *m)
{
        query_int(q, m->account);
        query_bytes(q, m->uid);
        query_int(q, m->occurrence);
        query_int(q, m->state);
        query_hash(q, m->header_hash);
        query_hash(q, m->content_hash);
        query_int(q, (int64_t)m->size);
        query_int(q, m->first_seen);
        query_int(q, m->last_seen);
        query_int(q, m->deleted);
        query_int(q, (int64_t)m->leave);
        query_int(q, m->leave_age);
        query_int(q, m->attempts);
        query_hash(q, m->script_hash);
        query_bytes(q, m->reason);
        query_bytes(q, m->spool);
        query_bytes(q, m->origin);
        query_int(q, m->next_try);
}

bool ledger_mark_put(struct ledger *l, const struct mark *m, struct err *e)
{
        struct query q;

        query_open(&q, l, "writing a mark",
                   "INSERT INTO mark (account, uid, occurrence, state, header_hash, content_hash, size, first_seen, last_seen, deleted,"
                   " leave, leave_age, attempts, script_hash, reason, spool, origin, next_try)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)"
                   " ON CONFLICT (account, uid, occurrence) DO UPDATE SET state = ?4, header_hash = ?5, content_hash = ?6, size = ?7,"
                   " last_seen = ?9, deleted = ?10, leave = ?11, leave_age = ?12, attempts = ?13, script_hash = ?14, reason = ?15,"
                   " spool = ?16, origin = ?17, next_try = ?18", e);
        bind_mark(&q, m);
        return query_run(&q);
}

/* ---- many marks ------------------------------------------------------------------------------------------------ */

static bool set_seen(struct ledger *l, int64_t id, int64_t now, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting that a message is still there", "UPDATE mark SET last_seen = ? WHERE id = ?", e);
        query_int(&q, now);
        query_int(&q, id);
        return query_run(&q);
}

bool ledger_mark_seen_now(struct ledger *l, const int64_t *ids, size_t n, int64_t now, struct err *e)
{
        bool own, ok = true;

        if (!tx_enter(l, &own, e))
                return false;
        for (size_t i = 0; ok && i < n; i++)
                ok = set_seen(l, ids[i], now, e);
        return tx_leave(l, own, ok, e);
}

static bool set_deleted(struct ledger *l, int64_t id, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting a deletion", "UPDATE mark SET deleted = 1 WHERE id = ?", e);
        query_int(&q, id);
        return query_run(&q);
}

bool ledger_mark_deleted(struct ledger *l, const int64_t *ids, size_t n, struct err *e)
{
        bool own, ok = true;

        if (!tx_enter(l, &own, e))
                return false;
        for (size_t i = 0; ok && i < n; i++)
                ok = set_deleted(l, ids[i], e);
        return tx_leave(l, own, ok, e);
}

bool ledger_mark_forget(struct ledger *l, int64_t id, struct err *e)
{
        struct query q;

        query_open(&q, l, "forgetting a mark", "DELETE FROM mark WHERE id = ?", e);
        query_int(&q, id);
        return query_run(&q);
}

bool ledger_marks_age(struct ledger *l, int64_t account, int64_t before, struct err *e)
{
        struct query q;

        query_open(&q, l, "forgetting old marks", "DELETE FROM mark WHERE account = ? AND state IN (1, 4) AND last_seen < ?", e);
        query_int(&q, account);
        query_int(&q, before);
        return query_run(&q);
}

struct mark_to {
        bool (*f)(void *ctx, const struct mark *m);
        void *ctx;
};
struct mark_args {
        int64_t account, states;
};

static void bind_marks(struct query *q, const void *args, const void *last)
{
        const struct mark_args *which = args;

        query_int(q, which->account);
        query_int(q, which->states);
        query_int(q, last ? ((const struct mark *)last)->id : INT64_MIN);
}

static bool give_mark(const void *to, const void *item)
{
        const struct mark_to *t = to;

        return t->f(t->ctx, item);
}

/* By id, which is the order in which they were first seen, whatever the clock did. The held ones are few among many and have
 * an index of their own, which the planner finds by the words "state <> 1". */
#define MARKS_BEHIND "((?1 = 0 OR account = ?1) AND (?2 >> state) & 1 AND id > ?3) ORDER BY id LIMIT 128"

bool ledger_marks(struct ledger *l, int64_t account, unsigned states, bool (*f)(void *ctx, const struct mark *m), void *ctx,
                  struct err *e)
{
        static const struct listing all = { "listing marks", "SELECT " MARK_COLUMNS " FROM mark WHERE " MARKS_BEHIND,
                                            sizeof(struct mark), bind_marks, read_mark, give_mark };
        static const struct listing open = { "listing held messages",
                                             "SELECT " MARK_COLUMNS " FROM mark INDEXED BY mark_open WHERE state <> 1 AND " MARKS_BEHIND,
                                             sizeof(struct mark), bind_marks, read_mark, give_mark };
        const struct listing *how = states & 1u << MARK_SEEN ? &all : &open;

        return ledger_list(l, how, &(struct mark_args){ account, states }, &(struct mark_to){ f, ctx }, e);
}

bool ledger_marks_count(struct ledger *l, int64_t account, unsigned states, uint64_t *n, struct err *e)
{
        struct query q;

        query_open(&q, l, "counting marks",
                   states & 1u << MARK_SEEN ? "SELECT count(*) FROM mark WHERE (?1 = 0 OR account = ?1) AND (?2 >> state) & 1"
                                            : "SELECT count(*) FROM mark INDEXED BY mark_open WHERE state <> 1"
                                              " AND (?1 = 0 OR account = ?1) AND (?2 >> state) & 1", e);
        query_int(&q, account);
        query_int(&q, states);
        *n = query_row(&q) ? (uint64_t)query_get_int(&q) : 0;
        return query_end(&q);
}

/* ---- resume marks ---------------------------------------------------------------------------------------------- */

bool ledger_resume_get(struct ledger *l, int64_t account, struct resume *out, bool *found, struct arena *a, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for a resume mark", "SELECT number, uid, limited, names FROM resume WHERE account = ?", e);
        query_int(&q, account);
        *found = query_row(&q);
        if (*found) {
                out->number = (uint64_t)query_get_int(&q);
                out->uid = query_get(&q, a);
                out->limited = query_get_int(&q) != 0;
                out->names = (uint64_t)query_get_int(&q);
        }
        return query_end(&q);
}

bool ledger_resume_set(struct ledger *l, int64_t account, const struct resume *r, struct err *e)
{
        struct query q;

        query_open(&q, l, "setting a resume mark",
                   "INSERT OR REPLACE INTO resume (account, number, uid, limited, names) VALUES (?, ?, ?, ?, ?)", e);
        query_int(&q, account);
        query_int(&q, (int64_t)r->number);
        query_bytes(&q, r->uid);
        query_int(&q, r->limited);
        query_int(&q, (int64_t)r->names);
        return query_run(&q);
}

bool ledger_resume_limited(struct ledger *l, int64_t account, struct err *e)
{
        struct query q;

        query_open(&q, l, "setting a resume mark", "UPDATE resume SET limited = 1 WHERE account = ?", e);
        query_int(&q, account);
        return query_run(&q);
}

bool ledger_resume_clear(struct ledger *l, int64_t account, struct err *e)
{
        struct query q;

        query_open(&q, l, "clearing a resume mark", "DELETE FROM resume WHERE account = ?", e);
        query_int(&q, account);
        return query_run(&q);
}
