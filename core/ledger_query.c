/* Asking the state: prepared statements, transactions, pages of rows. */
#include <errno.h>

#include "core/ledger_int.h"
#include "core/mem.h"

/* ---- failures -------------------------------------------------------------------------------------------------- */

static enum err_code code_of(struct ledger *l, int rc)
{
        int sys = l->db ? sqlite3_system_errno(l->db) : 0;

        switch (rc & 0xff) {
        case SQLITE_FULL: return ERR_FULL;
        case SQLITE_NOMEM: return ERR_NOMEM;
        case SQLITE_BUSY:
        case SQLITE_LOCKED: return ERR_BUSY;
        case SQLITE_TOOBIG: return ERR_LIMIT;
        case SQLITE_IOERR: return sys == ENOSPC || sys == EDQUOT || sys == EFBIG ? ERR_FULL : ERR_IO;
        default: return ERR_IO;
        }
}

bool ledger_failed(struct ledger *l, int rc, const char *doing, struct err *e)
{
        if ((rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB)
                return err_set(e, ERR_IO,
                               "the state %s is damaged (found while %s). Nothing was changed. To repair it: sqlite3 %s .recover "
                               "| sqlite3 new.db, then put new.db in its place; or move it away: every message is then new again",
                               l->file, doing, l->file);
        return err_set(e, code_of(l, rc), "the state %s: %s: %s", l->file, doing, l->db ? sqlite3_errmsg(l->db) : sqlite3_errstr(rc));
}

/* After a failure SQLite may have rolled the transaction back by itself; what followed would then be committed alone. So the
 * first failure spoils the whole transaction. */
static void spoil(struct ledger *l, const struct err *why)
{
        if (l->in_tx && l->tx_failure.code == ERR_NONE)
                l->tx_failure = *why;
}

static void fail(struct query *q, int rc)
{
        struct err why;

        if (q->failed)
                return;
        q->failed = true;
        ledger_failed(q->l, rc, q->doing, &why);
        if ((rc & 0xff) == SQLITE_PROTOCOL) { /* a lock that is not given back: SQLite has tried for 10 s, and would again at each call */
                q->l->doubtful = true;
                q->l->tx_failure = why;
        }
        spoil(q->l, &why);
        if (q->e)
                *q->e = why;
}

static void fail_with(struct query *q, const struct err *why)
{
        q->failed = true;
        spoil(q->l, why);
        if (q->e)
                *q->e = *why;
}

void query_nomem(struct query *q)
{
        struct err why;

        err_nomem(&why);
        if (!q->failed)
                fail_with(q, &why);
}

/* ---- statements ------------------------------------------------------------------------------------------------ */

static void prepare(struct query *q, const char *sql)
{
        struct ledger *l = q->l;
        size_t at = ((uintptr_t)sql >> 3) * 0x9e3779b9u % STATEMENTS_MAX, tries = 0;
        int rc;

        while (l->cache[at].sql && l->cache[at].sql != sql && ++tries < STATEMENTS_MAX)
                at = (at + 1) % STATEMENTS_MAX;
        if (l->cache[at].sql != sql) {
                sqlite3_finalize(l->cache[at].stmt);
                l->cache[at].sql = NULL;
                rc = sqlite3_prepare_v3(l->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &l->cache[at].stmt, NULL);
                if (rc != SQLITE_OK) {
                        l->cache[at].stmt = NULL;
                        fail(q, rc);
                        return;
                }
                l->cache[at].sql = sql;
        }
        q->stmt = l->cache[at].stmt;
}

void query_open(struct query *q, struct ledger *l, const char *doing, const char *sql, struct err *e)
{
        struct err why;

        *q = (struct query){ .l = l, .doing = doing, .e = e };
        pthread_mutex_lock(&l->lock);
        if (l->doubtful || l->tx_failure.code != ERR_NONE) {
                why = l->tx_failure;
                fail_with(q, &why);
                return;
        }
        if (l->immutable && !ledger_again(l, &why)) {
                fail_with(q, &why);
                return;
        }
        prepare(q, sql);
        if (!q->failed && l->readonly && !sqlite3_stmt_readonly(q->stmt)) {
                err_set(&why, ERR_USAGE, "%s: the state %s is open for reading only", doing, l->path);
                fail_with(q, &why);
        }
}

static void bound(struct query *q, int rc)
{
        if (rc != SQLITE_OK)
                fail(q, rc);
}

void query_int(struct query *q, int64_t v)
{
        if (!q->failed)
                bound(q, sqlite3_bind_int64(q->stmt, ++q->bound, v));
}

/* Copied: the caller's bytes need not outlive the call. */
void query_bytes(struct query *q, struct str s)
{
        if (!q->failed)
                bound(q, sqlite3_bind_blob64(q->stmt, ++q->bound, s.n ? s.p : "", s.n, SQLITE_TRANSIENT));
}

void query_hash(struct query *q, const uint8_t h[DIGEST_SIZE])
{
        static const uint8_t zero[DIGEST_SIZE];

        if (q->failed)
                return;
        if (memcmp(h, zero, DIGEST_SIZE) == 0)
                bound(q, sqlite3_bind_null(q->stmt, ++q->bound));
        else
                query_bytes(q, str_make((const char *)h, DIGEST_SIZE));
}

bool query_row(struct query *q)
{
        int rc;

        if (q->failed)
                return false;
        q->column = 0;
        rc = sqlite3_step(q->stmt);
        if (rc != SQLITE_ROW && rc != SQLITE_DONE)
                fail(q, rc);
        return rc == SQLITE_ROW;
}

int64_t query_get_int(struct query *q) { return sqlite3_column_int64(q->stmt, q->column++); }

struct str query_get(struct query *q, struct arena *a)
{
        int column = q->column++;
        const char *p = sqlite3_column_blob(q->stmt, column);
        size_t n = (size_t)sqlite3_column_bytes(q->stmt, column);
        struct str s = arena_str(a, str_make(n ? p : "", n));

        if (!s.p)
                query_nomem(q);
        return s;
}

void query_get_hash(struct query *q, uint8_t out[DIGEST_SIZE])
{
        int column = q->column++;
        const void *p = sqlite3_column_blob(q->stmt, column);

        if (p && sqlite3_column_bytes(q->stmt, column) == DIGEST_SIZE)
                memcpy(out, p, DIGEST_SIZE);
        else
                memset(out, 0, DIGEST_SIZE);
}

bool query_end(struct query *q)
{
        if (q->stmt) {
                sqlite3_reset(q->stmt); /* its answer repeats what step said */
                sqlite3_clear_bindings(q->stmt);
        }
        pthread_mutex_unlock(&q->l->lock);
        return !q->failed;
}

bool query_run(struct query *q)
{
        while (query_row(q))
                ;
        return query_end(q);
}

/* ---- transactions ---------------------------------------------------------------------------------------------- */

static bool run(struct ledger *l, const char *doing, const char *sql, struct err *e)
{
        struct query q;

        query_open(&q, l, doing, sql, e);
        return query_run(&q);
}

static void tx_over(struct ledger *l)
{
        l->in_tx = false;
        buf_free(&l->leftovers);
        if (!l->doubtful)
                l->tx_failure.code = ERR_NONE;
        pthread_mutex_unlock(&l->lock);
}

bool ledger_begin(struct ledger *l, struct err *e)
{
        pthread_mutex_lock(&l->lock);
        if (l->in_tx)
                err_set(e, ERR_USAGE, "the state %s: a transaction inside a transaction", l->file);
        else if (l->readonly)
                err_set(e, ERR_USAGE, "the state %s is open for reading only", l->path);
        else if (run(l, "beginning a transaction", "BEGIN IMMEDIATE", e)) {
                l->in_tx = true;
                return true; /* and keep the lock */
        }
        pthread_mutex_unlock(&l->lock);
        return false;
}

static void roll_back(struct ledger *l)
{
        if (!sqlite3_get_autocommit(l->db))
                sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
}

void ledger_rollback(struct ledger *l)
{
        roll_back(l);
        tx_over(l);
}

static void remove_leftovers(struct ledger *l)
{
        struct buf names = l->leftovers;
        struct str rest = buf_str(&names);

        l->leftovers = (struct buf)BUF_INIT;
        l->in_tx = false;
        while (rest.n > 0)
                ledger_leftover(l, str_take(&rest, '\0'), NULL);
        buf_free(&names);
}

/* When writing the commit itself fails (other than for want of room, which is known before), it may or may not be on the disk. Nothing
 * more is done then, and nothing staged is removed: the next start reads what is there and decides. */
static void commit_failed(struct ledger *l, int rc, struct err *e)
{
        struct err why;

        ledger_failed(l, rc, "committing", &why);
        if ((rc & 0xff) != SQLITE_BUSY && rc != SQLITE_FULL) {
                l->doubtful = true;
                l->tx_failure = why;
        }
        if (e)
                *e = why;
        ledger_rollback(l);
}

/* A directory that was removed or put elsewhere meanwhile: SQLite would go on in a file that has no name, and the next start find nothing
 * of it. */
static bool still_there(struct ledger *l, struct err *e)
{
        int moved = 0;

        if (sqlite3_file_control(l->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) != SQLITE_OK || !moved)
                return true;
        return err_set(e, ERR_IO, "the state %s was removed or replaced while it was open", l->file);
}

bool ledger_commit(struct ledger *l, struct err *e)
{
        int rc;

        if (l->tx_failure.code != ERR_NONE || sqlite3_get_autocommit(l->db)) {
                if (e && l->tx_failure.code != ERR_NONE)
                        *e = l->tx_failure;
                else
                        err_set(e, ERR_IO, "the state %s: the transaction was lost", l->file);
                ledger_rollback(l);
                return false;
        }
        if (!still_there(l, e)) {
                ledger_rollback(l);
                return false;
        }
        rc = sqlite3_exec(l->db, "COMMIT", NULL, NULL, NULL);
        if (rc != SQLITE_OK) {
                commit_failed(l, sqlite3_extended_errcode(l->db), e);
                return false;
        }
        remove_leftovers(l);
        tx_over(l);
        return true;
}

bool tx_enter(struct ledger *l, bool *own, struct err *e)
{
        pthread_mutex_lock(&l->lock);
        *own = !l->in_tx;
        if (*own && !ledger_begin(l, e)) {
                pthread_mutex_unlock(&l->lock);
                return false;
        }
        return true;
}

bool tx_leave(struct ledger *l, bool own, bool ok, struct err *e)
{
        if (own && ok)
                ok = ledger_commit(l, e);
        else if (own)
                ledger_rollback(l);
        pthread_mutex_unlock(&l->lock);
        return ok;
}

/* ---- pages of rows --------------------------------------------------------------------------------------------- */

/* *last: the item the page begins behind, then its own last one. */
static bool read_page(struct ledger *l, const struct listing *how, const void *args, const void *last, char *items, size_t *n,
                      struct arena *a, struct err *e)
{
        struct query q;

        *n = 0;
        query_open(&q, l, how->doing, how->sql, e);
        if (!q.failed)
                how->bind(&q, args, last);
        while (*n < PAGE_ROWS && query_row(&q))
                how->read(&q, items + (*n)++ * how->size, a);
        return query_end(&q);
}

bool ledger_list(struct ledger *l, const struct listing *how, const void *args, const void *to, struct err *e)
{
        struct arena *a = NULL, *before = NULL;
        const char *last = NULL;
        bool ok = true, more = true;
        size_t n = PAGE_ROWS;

        while (ok && more && n == PAGE_ROWS) {
                char *items;
                before = a;
                a = arena_new(0);
                items = a ? arena_alloc(a, how->size * PAGE_ROWS) : NULL;
                ok = items ? read_page(l, how, args, last, items, &n, a, e) : err_nomem(e);
                arena_free(before); /* last lay in it */
                for (size_t i = 0; ok && more && i < n; i++)
                        more = how->give(to, last = items + i * how->size);
        }
        arena_free(a);
        return ok;
}
