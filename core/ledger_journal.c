/* The journal: runs, renames and appends that are committed and perhaps not yet carried out; and who still needs a spool file. */
#include <fcntl.h>
#include <unistd.h>

#include "core/ledger_int.h"
#include "core/sys.h"

/* ---- runs ------------------------------------------------------------------------------------------------------ */

bool ledger_run_begin(struct ledger *l, struct str run, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting that a run begins", "INSERT OR IGNORE INTO run (id, started) VALUES (?, ?)", e);
        query_bytes(&q, run);
        query_int(&q, sys_now());
        return query_run(&q);
}

bool ledger_run_forget(struct ledger *l, struct str run, struct err *e)
{
        struct query q;

        query_open(&q, l, "forgetting a run", "DELETE FROM run WHERE id = ?", e);
        query_bytes(&q, run);
        return query_run(&q);
}

struct run_to {
        bool (*f)(void *ctx, struct str run);
        void *ctx;
};

static void bind_runs(struct query *q, const void *args, const void *last)
{
        query_bytes(q, last ? *(const struct str *)last : STR_NONE);
}

static void read_run(struct query *q, void *item, struct arena *a) { *(struct str *)item = query_get(q, a); }

static bool give_run(const void *to, const void *item)
{
        const struct run_to *t = to;

        return t->f(t->ctx, *(const struct str *)item);
}

/* A run with work in the journal is one of them, even if its own row is missing. */
bool ledger_runs(struct ledger *l, bool (*f)(void *ctx, struct str run), void *ctx, struct err *e)
{
        static const struct listing how = { "listing runs",
                                            "SELECT id FROM (SELECT id FROM run UNION SELECT run FROM rename UNION SELECT run FROM append)"
                                            " WHERE id > ? ORDER BY id LIMIT 128",
                                            sizeof(struct str), bind_runs, read_run, give_run };

        return ledger_list(l, &how, NULL, &(struct run_to){ f, ctx }, e);
}

/* ---- renames --------------------------------------------------------------------------------------------------- */

bool ledger_rename_add(struct ledger *l, struct rename_job *j, struct err *e)
{
        struct query q;

        query_open(&q, l, "promising a file",
                   "INSERT INTO rename (run, staged_dir, staged, target_dir, target, dev, ino, \"replace\", numbered)"
                   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id", e);
        query_bytes(&q, j->run);
        query_bytes(&q, j->staged_dir);
        query_bytes(&q, j->staged);
        query_bytes(&q, j->target_dir);
        query_bytes(&q, j->target);
        query_int(&q, (int64_t)j->dev);
        query_int(&q, (int64_t)j->ino);
        query_int(&q, j->replace);
        query_int(&q, j->numbered);
        if (query_row(&q))
                j->id = query_get_int(&q);
        return query_run(&q);
}

static bool forget_rename(struct ledger *l, int64_t id, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting a finished file", "DELETE FROM rename WHERE id = ?", e);
        query_int(&q, id);
        return query_run(&q);
}

bool ledger_rename_done(struct ledger *l, const int64_t *ids, size_t n, struct err *e)
{
        bool own, ok = true;

        if (n == 0)
                return true;
        if (!tx_enter(l, &own, e))
                return false;
        for (size_t i = 0; ok && i < n; i++)
                ok = forget_rename(l, ids[i], e);
        return tx_leave(l, own, ok, e);
}

static void read_rename(struct query *q, void *item, struct arena *a)
{
        struct rename_job *j = item;

        j->id = query_get_int(q);
        j->run = query_get(q, a);
        j->staged_dir = query_get(q, a);
        j->staged = query_get(q, a);
        j->target_dir = query_get(q, a);
        j->target = query_get(q, a);
        j->dev = (uint64_t)query_get_int(q);
        j->ino = (uint64_t)query_get_int(q);
        j->replace = query_get_int(q) != 0;
        j->numbered = query_get_int(q) != 0;
}

struct rename_to {
        bool (*f)(void *ctx, const struct rename_job *j);
        void *ctx;
};

/* args: the run (a str); empty: all. */
static void bind_renames(struct query *q, const void *args, const void *last)
{
        query_bytes(q, *(const struct str *)args);
        query_int(q, last ? ((const struct rename_job *)last)->id : INT64_MIN);
}

static bool give_rename(const void *to, const void *item)
{
        const struct rename_to *t = to;

        return t->f(t->ctx, item);
}

bool ledger_renames(struct ledger *l, struct str run, bool (*f)(void *ctx, const struct rename_job *j), void *ctx, struct err *e)
{
        static const struct listing how = { "listing promised files",
                                            "SELECT id, run, staged_dir, staged, target_dir, target, dev, ino, \"replace\", numbered"
                                            " FROM rename WHERE (?1 = x'' OR run = ?1) AND id > ?2 ORDER BY id LIMIT 128",
                                            sizeof(struct rename_job), bind_renames, read_rename, give_rename };

        return ledger_list(l, &how, &run, &(struct rename_to){ f, ctx }, e);
}

/* ---- appends --------------------------------------------------------------------------------------------------- */

bool ledger_append_add(struct ledger *l, struct append_job *j, struct err *e)
{
        struct query q;

        query_open(&q, l, "promising an append",
                   "INSERT INTO append (run, path, staged, dev, ino, \"offset\", length, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                   " RETURNING id", e);
        query_bytes(&q, j->run);
        query_bytes(&q, j->path);
        query_bytes(&q, j->staged);
        query_int(&q, (int64_t)j->from.dev);
        query_int(&q, (int64_t)j->from.ino);
        query_int(&q, (int64_t)j->from.offset);
        query_int(&q, (int64_t)j->length);
        query_hash(&q, j->hash);
        if (query_row(&q))
                j->id = query_get_int(&q);
        return query_run(&q);
}

static struct append_place read_place(struct query *q)
{
        struct append_place p;

        p.dev = (uint64_t)query_get_int(q);
        p.ino = (uint64_t)query_get_int(q);
        p.offset = (uint64_t)query_get_int(q);
        return p;
}

static void read_append(struct query *q, void *item, struct arena *a)
{
        struct append_job *j = item;

        j->id = query_get_int(q);
        j->run = query_get(q, a);
        j->path = query_get(q, a);
        j->staged = query_get(q, a);
        j->from = read_place(q);
        j->length = (uint64_t)query_get_int(q);
        query_get_hash(q, j->hash);
}

struct append_to {
        bool (*f)(void *ctx, const struct append_job *j);
        void *ctx;
};

static void bind_appends(struct query *q, const void *args, const void *last)
{
        query_bytes(q, *(const struct str *)args);
        query_int(q, last ? ((const struct append_job *)last)->id : INT64_MIN);
}

static bool give_append(const void *to, const void *item)
{
        const struct append_to *t = to;

        return t->f(t->ctx, item);
}

bool ledger_appends(struct ledger *l, struct str run, bool (*f)(void *ctx, const struct append_job *j), void *ctx, struct err *e)
{
        static const struct listing how = { "listing promised appends",
                                            "SELECT id, run, path, staged, dev, ino, \"offset\", length, hash"
                                            " FROM append WHERE (?1 = x'' OR run = ?1) AND id > ?2 ORDER BY id LIMIT 128",
                                            sizeof(struct append_job), bind_appends, read_append, give_append };

        return ledger_list(l, &how, &run, &(struct append_to){ f, ctx }, e);
}

bool ledger_append_from(struct ledger *l, int64_t id, struct append_place *from, struct err *e)
{
        struct query q;

        query_open(&q, l, "asking where an append begins", "SELECT dev, ino, \"offset\" FROM append WHERE id = ?", e);
        query_int(&q, id);
        if (query_row(&q))
                *from = read_place(&q);
        return query_end(&q);
}

/* Else another, of the same bytes or of those this one begins with, would be found in this one's place, and be taken for done. With the same
 * bytes it does not matter which of the two stands there, so an older one, which has failed so far, is moved too; an older one of
 * other bytes may stand before this one. */
static bool move_others(struct ledger *l, int64_t id, const struct append_place *end, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting where later appends begin",
                   "UPDATE append SET dev = ?2, ino = ?3, \"offset\" = ?4 FROM append AS done"
                   " WHERE done.id = ?1 AND append.id <> ?1 AND append.path = done.path"
                   " AND ((append.run = done.run AND append.id > ?1) OR (append.hash = done.hash AND append.length = done.length))"
                   " AND (append.dev <> ?2 OR append.ino <> ?3 OR append.\"offset\" < ?4)", e);
        query_int(&q, id);
        query_int(&q, (int64_t)end->dev);
        query_int(&q, (int64_t)end->ino);
        query_int(&q, (int64_t)end->offset);
        return query_run(&q);
}

static bool forget_append(struct ledger *l, int64_t id, struct err *e)
{
        struct arena *a = arena_new(0);
        struct str spool = STR_NONE;
        struct query q;
        bool ok;

        if (!a)
                return err_nomem(e);
        query_open(&q, l, "noting a finished append", "DELETE FROM append WHERE id = ? RETURNING staged", e);
        query_int(&q, id);
        if (query_row(&q))
                spool = query_get(&q, a);
        ok = query_run(&q) && ledger_leftover(l, spool, e);
        arena_free(a);
        return ok;
}

bool ledger_append_done(struct ledger *l, int64_t id, const struct append_place *end, struct err *e)
{
        bool own;

        return tx_enter(l, &own, e) && tx_leave(l, own, move_others(l, id, end, e) && forget_append(l, id, e), e);
}

/* ---- spool files ----------------------------------------------------------------------------------------------- */

/* Does a mark, a mail or an append still need it? */
static bool spool_is_used(struct ledger *l, struct str spool, bool *used, struct err *e)
{
        struct query q;

        query_open(&q, l, "asking who needs a spool file",
                   "SELECT EXISTS (SELECT 1 FROM mark WHERE spool = ?1 AND spool <> x'')"
                   " OR EXISTS (SELECT 1 FROM outbox WHERE spool = ?1 AND spool <> x'')"
                   " OR EXISTS (SELECT 1 FROM append WHERE staged = ?1)", e);
        query_bytes(&q, spool);
        *used = query_row(&q) ? query_get_int(&q) != 0 : true;
        return query_end(&q);
}

static bool in_spool(struct str name)
{
        return name.n > 0 && !memchr(name.p, '\0', name.n) && name.p[0] != '.' && name.p[0] != '/';
}

static bool remove_spooled(struct ledger *l, struct str spool, struct err *e)
{
        struct err why;
        struct buf path = BUF_INIT;
        int dir = sys_open_beneath(l->dir, STR("spool"), O_PATH | O_DIRECTORY, 0, &why);
        bool ok;

        if (dir < 0 && why.code == ERR_ABSENT)
                return true;
        buf_printf(&path, "%.*s", STR_FMT(spool));
        ok = dir >= 0 && buf_ok(&path, &why) && sys_unlink(dir, path.p, &why);
        if (dir >= 0)
                close(dir);
        buf_free(&path);
        if (!ok && e)
                *e = why;
        return ok;
}

/* A file that stays though nobody needs it is garbage until the next start; one that goes though it is needed is lost mail. */
bool ledger_leftover(struct ledger *l, struct str spool, struct err *e)
{
        bool used = true, ok = true;

        if (!in_spool(spool) || l->dir < 0 || l->readonly)
                return true;
        pthread_mutex_lock(&l->lock);
        if (l->in_tx)
                ok = (buf_add_str(&l->leftovers, spool) && buf_add_char(&l->leftovers, '\0')) || err_nomem(e);
        else if (!l->doubtful)
                ok = spool_is_used(l, spool, &used, e) && (used || remove_spooled(l, spool, e));
        pthread_mutex_unlock(&l->lock);
        return ok;
}
