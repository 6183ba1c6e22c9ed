/* Saved files that share a name: what each holds, so that nobody reads them all to find out whether one holds this. */
#include "core/ledger_int.h"
#include "core/sys.h"

enum { USED_STEP = 86400 }; /* the day of last use is written once a day */

#define COLUMNS "SELECT number, hash, ino, size, written, changed FROM saved "
#define OF_SERIES "WHERE series = (SELECT id FROM series WHERE dir = ?1 AND name = ?2) "

static void bind_series(struct query *q, const struct saved_file *f)
{
        query_bytes(q, f->dir);
        query_bytes(q, f->name);
}

static bool read_row(struct query *q, struct saved_file *f, bool *found)
{
        *found = query_row(q);
        if (*found) {
                f->number = (unsigned)query_get_int(q);
                query_get_hash(q, f->hash);
                f->ino = (uint64_t)query_get_int(q);
                f->size = (uint64_t)query_get_int(q);
                f->written = query_get_int(q);
                f->changed = query_get_int(q);
        }
        return query_end(q);
}

bool ledger_saved(struct ledger *l, struct saved_file *f, bool *found, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for a saved file", COLUMNS OF_SERIES "AND number = ?3", e);
        bind_series(&q, f);
        query_int(&q, f->number);
        return read_row(&q, f, found);
}

bool ledger_saved_last(struct ledger *l, struct saved_file *f, bool *found, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for saved files", COLUMNS OF_SERIES "AND number < ?3 ORDER BY number DESC LIMIT 1", e);
        bind_series(&q, f);
        query_int(&q, f->number);
        return read_row(&q, f, found);
}

bool ledger_saved_by_hash(struct ledger *l, struct saved_file *f, bool *found, struct err *e)
{
        struct query q;

        query_open(&q, l, "looking for a saved file by its content", /* left to itself SQLite goes through all of them, by number */
                   COLUMNS "INDEXED BY saved_hash " OF_SERIES "AND hash = ?4 AND number > ?3 ORDER BY number LIMIT 1", e);
        bind_series(&q, f);
        query_int(&q, f->number);
        query_hash(&q, f->hash);
        return read_row(&q, f, found);
}

static bool put_series(struct ledger *l, const struct saved_file *f, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting a saved file's name",
                   "INSERT INTO series (dir, name, used) VALUES (?1, ?2, ?3)"
                   " ON CONFLICT (dir, name) DO UPDATE SET used = ?3 WHERE used < ?3 - ?4", e);
        bind_series(&q, f);
        query_int(&q, sys_now());
        query_int(&q, USED_STEP);
        return query_run(&q);
}

static bool put_file(struct ledger *l, const struct saved_file *f, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting a saved file",
                   "INSERT INTO saved (series, number, hash, ino, size, written, changed)"
                   " VALUES ((SELECT id FROM series WHERE dir = ?1 AND name = ?2), ?3, ?4, ?5, ?6, ?7, ?8)"
                   " ON CONFLICT (series, number) DO UPDATE SET hash = ?4, ino = ?5, size = ?6, written = ?7, changed = ?8", e);
        bind_series(&q, f);
        query_int(&q, f->number);
        query_hash(&q, f->hash);
        query_int(&q, (int64_t)f->ino);
        query_int(&q, (int64_t)f->size);
        query_int(&q, f->written);
        query_int(&q, f->changed);
        return query_run(&q);
}

bool ledger_saved_put(struct ledger *l, const struct saved_file *f, struct err *e)
{
        bool own;

        if (!tx_enter(l, &own, e))
                return false;
        return tx_leave(l, own, put_series(l, f, e) && put_file(l, f, e), e);
}

bool ledger_saved_drop(struct ledger *l, const struct saved_file *f, struct err *e)
{
        struct query q;

        query_open(&q, l, "forgetting saved files",
                   "DELETE FROM saved WHERE series = (SELECT id FROM series WHERE dir = ?1 AND name = ?2) AND number >= ?3", e);
        bind_series(&q, f);
        query_int(&q, f->number);
        return query_run(&q);
}

static bool age(struct ledger *l, const char *sql, int64_t before, struct err *e)
{
        struct query q;

        query_open(&q, l, "forgetting old names of saved files", sql, e);
        query_int(&q, before);
        return query_run(&q);
}

/* A name goes whole: with some of its files forgotten the rest would pass for all. */
bool ledger_saved_age(struct ledger *l, int64_t before, struct err *e)
{
        bool own;

        if (!tx_enter(l, &own, e))
                return false;
        return tx_leave(l, own, age(l, "DELETE FROM saved WHERE series IN (SELECT id FROM series WHERE used < ?)", before, e) &&
                                age(l, "DELETE FROM series WHERE used < ?", before, e), e);
}
