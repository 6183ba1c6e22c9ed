/* Stores: what scripts remember. */
#include "core/ledger_int.h"
#include "core/sys.h"

bool ledger_store_get(struct ledger *l, struct str store, struct str key, struct str *value, bool *found, struct arena *a,
                      struct err *e)
{
        struct query q;

        *value = STR_NONE;
        query_open(&q, l, "reading a store",
                   "SELECT value FROM store WHERE store = ? AND key = ? AND (expires = 0 OR expires > ?)", e);
        query_bytes(&q, store);
        query_bytes(&q, key);
        query_int(&q, sys_now());
        *found = query_row(&q);
        if (*found)
                *value = query_get(&q, a);
        return query_end(&q);
}

bool ledger_store_set(struct ledger *l, struct str store, struct str key, struct str value, int64_t expires, struct err *e)
{
        struct query q;

        query_open(&q, l, "writing a store",
                   "INSERT INTO store (store, key, value, expires) VALUES (?1, ?2, ?3, ?4)"
                   " ON CONFLICT (store, key) DO UPDATE SET value = ?3, expires = ?4", e);
        query_bytes(&q, store);
        query_bytes(&q, key);
        query_bytes(&q, value);
        query_int(&q, expires);
        return query_run(&q);
}

bool ledger_store_remove(struct ledger *l, struct str store, struct str key, struct err *e)
{
        struct query q;

        query_open(&q, l, "removing from a store", "DELETE FROM store WHERE store = ? AND key = ?", e);
        query_bytes(&q, store);
        query_bytes(&q, key);
        return query_run(&q);
}

struct pair {
        struct str key, value;
};
struct pair_to {
        bool (*f)(void *ctx, struct str key, struct str value);
        void *ctx;
};
struct pair_args {
        struct str store;
        int64_t now;
};

/* The empty key is a key like any other, so the first page begins at it and not behind it. */
static void bind_pairs(struct query *q, const void *args, const void *last)
{
        const struct pair_args *which = args;

        query_bytes(q, which->store);
        query_int(q, which->now);
        query_int(q, last == NULL);
        query_bytes(q, last ? ((const struct pair *)last)->key : STR_NONE);
}

static void read_pair(struct query *q, void *item, struct arena *a)
{
        struct pair *p = item;

        p->key = query_get(q, a);
        p->value = query_get(q, a);
}

static bool give_pair(const void *to, const void *item)
{
        const struct pair_to *t = to;
        const struct pair *p = item;

        return t->f(t->ctx, p->key, p->value);
}

bool ledger_store_each(struct ledger *l, struct str store, bool (*f)(void *ctx, struct str key, struct str value), void *ctx,
                       struct err *e)
{
        static const struct listing how = { "reading a store",
                                            "SELECT key, value FROM store WHERE store = ?1 AND (expires = 0 OR expires > ?2)"
                                            " AND key >= ?4 AND (?3 OR key > ?4) ORDER BY key LIMIT 128",
                                            sizeof(struct pair), bind_pairs, read_pair, give_pair };

        return ledger_list(l, &how, &(struct pair_args){ store, sys_now() }, &(struct pair_to){ f, ctx }, e);
}
