/* Between the ledger's own files only (ledger*.c, staging*.c): the open state, and one way to ask it. */
#ifndef CORE_LEDGER_INT_H
#define CORE_LEDGER_INT_H

#include <pthread.h>
#include <sqlite3.h>

#include "core/buf.h"
#include "core/ledger.h"

enum {
        STATEMENTS_MAX = 256, /* slots for prepared statements, a power of two; there are about 60 */
        PAGE_ROWS = 128,      /* rows read at a time when a caller looks at all of them */
};

struct ledger {
        pthread_mutex_t lock;  /* recursive: a transaction holds it for its thread */
        sqlite3 *db;
        char *path, *file;     /* of the directory (absolute), of the database */
        int dir;
        bool readonly;
        bool immutable;        /* readonly, and nobody had it open: read without touching anything beside it */
        bool in_tx;
        bool doubtful;         /* a COMMIT failed in a way that leaves open whether it happened */
        struct err tx_failure; /* the first failure inside the transaction */
        struct buf leftovers;  /* spool files to remove once the transaction has committed, each ended by a NUL */
        struct {
                const char *sql;
                sqlite3_stmt *stmt;
        } cache[STATEMENTS_MAX];
};

/* One question. query_open takes the ledger's lock and query_end gives it back; a failure in between sticks, so that only
 * query_end (or query_run) needs to be looked at. sql must be a literal: its address is the key of the prepared statement. */
struct query {
        struct ledger *l;
        sqlite3_stmt *stmt;
        const char *doing;
        struct err *e;
        int bound, column;
        bool failed;
};

void query_open(struct query *q, struct ledger *l, const char *doing, const char *sql, struct err *e);
void query_int(struct query *q, int64_t v);          /* binds the next parameter; so do these */
void query_bytes(struct query *q, struct str s);
void query_hash(struct query *q, const uint8_t h[DIGEST_SIZE]); /* all zero: unknown, NULL */
bool query_row(struct query *q);                     /* the next row; false at the end and on failure */
int64_t query_get_int(struct query *q);              /* reads the next column; so do these */
struct str query_get(struct query *q, struct arena *a);
void query_get_hash(struct query *q, uint8_t out[DIGEST_SIZE]);
void query_nomem(struct query *q);
bool query_end(struct query *q) MUST_CHECK;
bool query_run(struct query *q) MUST_CHECK;          /* all rows, and the end */

/* A transaction of our own, or a place in the caller's. */
bool tx_enter(struct ledger *l, bool *own, struct err *e) MUST_CHECK;
bool tx_leave(struct ledger *l, bool own, bool ok, struct err *e) MUST_CHECK;

/* All rows of a question, page by page, so that whoever looks at a row may ask and change the ledger meanwhile. bind gets the
 * last item of the page before (NULL at first) and asks for at most PAGE_ROWS rows behind it. */
struct listing {
        const char *doing, *sql;
        size_t size; /* of an item */
        void (*bind)(struct query *q, const void *args, const void *last);
        void (*read)(struct query *q, void *item, struct arena *a);
        bool (*give)(const void *to, const void *item); /* false ends it */
};
bool ledger_list(struct ledger *l, const struct listing *how, const void *args, const void *to, struct err *e) MUST_CHECK;

/* The spool file goes when nothing refers to it: now, or, inside a transaction, once that has committed. */
bool ledger_leftover(struct ledger *l, struct str spool, struct err *e);
/* The runs this state has begun and not yet forgotten. A spool of another run (the state was lost, or an older one put back) is not
 * ours to clean. */
bool ledger_run_begin(struct ledger *l, struct str run, struct err *e) MUST_CHECK;
bool ledger_run_forget(struct ledger *l, struct str run, struct err *e) MUST_CHECK;
bool ledger_runs(struct ledger *l, bool (*f)(void *ctx, struct str run), void *ctx, struct err *e) MUST_CHECK;

/* ledger.c */
bool ledger_again(struct ledger *l, struct err *e) MUST_CHECK; /* reopens an immutable state that somebody has begun to write */
bool ledger_failed(struct ledger *l, int rc, const char *doing, struct err *e); /* fills e from SQLite's answer; false */

#endif
