/* The outbox: mail and commands that are durable and not yet done. */
#include "core/ledger_int.h"
#include "core/sys.h"

#define OUTBOX_COLUMNS \
        "id, action, kind, state, created, next_try, tries, account, source, subject, smarthost, sender, argv, spool, " \
        "at_most_once, answer"

/* ---- adding ---------------------------------------------------------------------------------------------------- */

/* Arguments hold no NUL (they become C strings), so each is ended by one. */
static bool pack_argv(const struct outbox_item *i, struct buf *out, struct err *e)
{
        for (size_t k = 0; k < i->argc; k++) {
                if (i->argv[k].n && memchr(i->argv[k].p, '\0', i->argv[k].n))
                        return err_set(e, ERR_USAGE, "argument %zu of the command holds a NUL", k + 1);
                if (i->argv[k].n)
                        buf_add_str(out, i->argv[k]);
                buf_add_char(out, '\0');
        }
        return buf_ok(out, e);
}

static bool add_item(struct ledger *l, struct outbox_item *i, struct str argv, struct err *e)
{
        struct query q;

        query_open(&q, l, "putting something into the outbox",
                   "INSERT INTO outbox (action, kind, state, created, next_try, tries, account, source, subject, smarthost, sender,"
                   " argv, spool, at_most_once, answer) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id", e);
        query_bytes(&q, i->action);
        query_int(&q, i->kind);
        query_int(&q, i->state);
        query_int(&q, i->created);
        query_int(&q, i->next_try);
        query_int(&q, i->tries);
        query_bytes(&q, i->account);
        query_bytes(&q, i->source);
        query_bytes(&q, i->subject);
        query_bytes(&q, i->smarthost);
        query_bytes(&q, i->sender);
        query_bytes(&q, argv);
        query_bytes(&q, i->spool);
        query_int(&q, i->at_most_once);
        query_bytes(&q, i->answer);
        if (query_row(&q))
                i->id = query_get_int(&q);
        return query_run(&q);
}

static bool add_recipient(struct ledger *l, int64_t item, struct str who, struct err *e)
{
        struct query q;

        query_open(&q, l, "adding a recipient", "INSERT INTO recipient (item, who, state, answer) VALUES (?, ?, 0, x'')", e);
        query_int(&q, item);
        query_bytes(&q, who);
        return query_run(&q);
}

bool ledger_outbox_add(struct ledger *l, struct outbox_item *i, struct err *e)
{
        struct buf argv = BUF_INIT;
        bool own, ok;

        ok = pack_argv(i, &argv, e) && tx_enter(l, &own, e);
        if (ok) {
                ok = add_item(l, i, buf_str(&argv), e);
                for (size_t k = 0; ok && k < i->recipient_count; k++)
                        ok = add_recipient(l, i->id, i->recipients[k], e);
                ok = tx_leave(l, own, ok, e);
        }
        buf_free(&argv);
        return ok;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void unpack_argv(struct query *q, struct outbox_item *i, struct arena *a)
{
        struct str packed = query_get(q, a), rest = packed;
        struct str *argv;

        while (rest.n > 0) {
                str_take(&rest, '\0');
                i->argc++;
        }
        argv = i->argc ? arena_alloc(a, i->argc * sizeof *argv) : NULL;
        if (i->argc && !argv) {
                i->argc = 0;
                query_nomem(q);
                return;
        }
        for (size_t k = 0; k < i->argc; k++)
                argv[k] = str_take(&packed, '\0');
        i->argv = argv;
}

static void read_item(struct query *q, void *item, struct arena *a)
{
        struct outbox_item *i = item;

        i->id = query_get_int(q);
        i->action = query_get(q, a);
        i->kind = (enum outbox_kind)query_get_int(q);
        i->state = (enum outbox_state)query_get_int(q);
        i->created = query_get_int(q);
        i->next_try = query_get_int(q);
        i->tries = (unsigned)query_get_int(q);
        i->account = query_get(q, a);
        i->source = query_get(q, a);
        i->subject = query_get(q, a);
        i->smarthost = query_get(q, a);
        i->sender = query_get(q, a);
        unpack_argv(q, i, a);
        i->spool = query_get(q, a);
        i->at_most_once = query_get_int(q) != 0;
        i->answer = query_get(q, a);
}

static bool count_recipients(struct ledger *l, int64_t id, size_t *n, struct err *e)
{
        struct query q;

        query_open(&q, l, "counting recipients", "SELECT count(*) FROM recipient WHERE item = ? AND state = 0", e);
        query_int(&q, id);
        *n = query_row(&q) ? (size_t)query_get_int(&q) : 0;
        return query_end(&q);
}

static bool read_recipients(struct ledger *l, struct outbox_item *i, struct arena *a, struct err *e)
{
        struct str *list;
        struct query q;
        size_t max;

        if (!count_recipients(l, i->id, &max, e))
                return false;
        list = arena_alloc(a, (max + 1) * sizeof *list);
        if (!list)
                return err_nomem(e);
        query_open(&q, l, "reading recipients", "SELECT who FROM recipient WHERE item = ? AND state = 0 ORDER BY id", e);
        query_int(&q, i->id);
        i->recipient_count = 0;
        while (i->recipient_count < max && query_row(&q))
                list[i->recipient_count++] = query_get(&q, a);
        i->recipients = list;
        return query_end(&q);
}

bool ledger_outbox_get(struct ledger *l, int64_t id, struct outbox_item *out, bool *found, struct arena *a, struct err *e)
{
        struct query q;

        *out = (struct outbox_item){ .id = id };
        query_open(&q, l, "reading the outbox", "SELECT " OUTBOX_COLUMNS " FROM outbox WHERE id = ?", e);
        query_int(&q, id);
        *found = query_row(&q);
        if (*found)
                read_item(&q, out, a);
        return query_end(&q) && (!*found || read_recipients(l, out, a, e));
}

/* What a listing gives on: each item with its recipients, read when its turn comes. */
struct outbox_to {
        struct ledger *l;
        bool (*f)(void *ctx, const struct outbox_item *i);
        void *ctx;
        bool *ok;
        struct err *e;
};

static bool give_item(const void *to, const void *item)
{
        const struct outbox_to *t = to;
        struct outbox_item i = *(const struct outbox_item *)item;
        struct arena *a = arena_new(0);
        bool more;

        *t->ok = a ? read_recipients(t->l, &i, a, t->e) : err_nomem(t->e);
        more = *t->ok && t->f(t->ctx, &i);
        arena_free(a);
        return more;
}

static void bind_outbox(struct query *q, const void *args, const void *last)
{
        query_int(q, *(const int64_t *)args);
        query_int(q, last ? ((const struct outbox_item *)last)->id : INT64_MIN);
}

bool ledger_outbox(struct ledger *l, unsigned states, bool (*f)(void *ctx, const struct outbox_item *i), void *ctx, struct err *e)
{
        static const struct listing how = { "listing the outbox",
                                            "SELECT " OUTBOX_COLUMNS " FROM outbox WHERE (?1 >> state) & 1 AND id > ?2 ORDER BY id LIMIT 128",
                                            sizeof(struct outbox_item), bind_outbox, read_item, give_item };
        int64_t which = states;
        bool ok = true;

        return ledger_list(l, &how, &which, &(struct outbox_to){ l, f, ctx, &ok, e }, e) && ok;
}

/* ---- what became of it ----------------------------------------------------------------------------------------- */

bool ledger_outbox_retry(struct ledger *l, int64_t id, enum outbox_state state, int64_t next_try, struct str answer, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting a try", "UPDATE outbox SET state = ?, next_try = ?, answer = ?, tries = tries + 1 WHERE id = ?", e);
        query_int(&q, state);
        query_int(&q, next_try);
        query_bytes(&q, answer);
        query_int(&q, id);
        return query_run(&q);
}

bool ledger_outbox_state(struct ledger *l, int64_t id, enum outbox_state state, struct str answer, struct err *e)
{
        struct query q;

        query_open(&q, l, "changing the outbox", "UPDATE outbox SET state = ?, answer = ? WHERE id = ?", e);
        query_int(&q, state);
        query_bytes(&q, answer);
        query_int(&q, id);
        return query_run(&q);
}

bool ledger_outbox_recipient(struct ledger *l, int64_t id, struct str recipient, enum recipient_state state, struct str answer, struct err *e)
{
        struct query q;

        query_open(&q, l, "noting a recipient's answer", "UPDATE recipient SET state = ?, answer = ? WHERE item = ? AND who = ?", e);
        query_int(&q, state);
        query_bytes(&q, answer);
        query_int(&q, id);
        query_bytes(&q, recipient);
        return query_run(&q);
}

struct recipient {
        int64_t id;
        struct str who, answer;
        int state;
};
struct recipient_to {
        bool (*f)(void *ctx, struct str who, int state, struct str answer);
        void *ctx;
};

static void bind_recipients(struct query *q, const void *args, const void *last)
{
        query_int(q, *(const int64_t *)args);
        query_int(q, last ? ((const struct recipient *)last)->id : INT64_MIN);
}

static void read_recipient(struct query *q, void *item, struct arena *a)
{
        struct recipient *r = item;

        r->id = query_get_int(q);
        r->who = query_get(q, a);
        r->state = (int)query_get_int(q);
        r->answer = query_get(q, a);
}

static bool give_recipient(const void *to, const void *item)
{
        const struct recipient_to *t = to;
        const struct recipient *r = item;

        return t->f(t->ctx, r->who, r->state, r->answer);
}

bool ledger_outbox_recipients(struct ledger *l, int64_t id, bool (*f)(void *ctx, struct str who, int state, struct str answer), void *ctx,
                              struct err *e)
{
        static const struct listing how = { "listing recipients",
                                            "SELECT id, who, state, answer FROM recipient WHERE item = ?1 AND id > ?2 ORDER BY id LIMIT 128",
                                            sizeof(struct recipient), bind_recipients, read_recipient, give_recipient };

        return ledger_list(l, &how, &id, &(struct recipient_to){ f, ctx }, e);
}

static bool remove_item(struct ledger *l, int64_t id, struct str *spool, struct arena *a, struct err *e)
{
        struct query q;

        query_open(&q, l, "removing from the outbox", "DELETE FROM outbox WHERE id = ? RETURNING spool", e);
        query_int(&q, id);
        if (query_row(&q))
                *spool = query_get(&q, a);
        return query_run(&q);
}

static bool remove_recipients(struct ledger *l, int64_t id, struct err *e)
{
        struct query q;

        query_open(&q, l, "removing recipients", "DELETE FROM recipient WHERE item = ?", e);
        query_int(&q, id);
        return query_run(&q);
}

bool ledger_outbox_remove(struct ledger *l, int64_t id, struct err *e)
{
        struct arena *a = arena_new(0);
        struct str spool = STR_NONE;
        bool own, ok = false;

        if (!a)
                return err_nomem(e);
        if (tx_enter(l, &own, e)) {
                ok = remove_item(l, id, &spool, a, e) && remove_recipients(l, id, e) && ledger_leftover(l, spool, e);
                ok = tx_leave(l, own, ok, e);
        }
        arena_free(a);
        return ok;
}

bool ledger_outbox_release(struct ledger *l, int64_t id, uint64_t *n, struct err *e)
{
        struct query q;

        *n = 0;
        query_open(&q, l, "releasing from the outbox",
                   "UPDATE outbox SET state = 1, next_try = 0, created = ?2 WHERE state = 2 AND (?1 = 0 OR id = ?1) RETURNING id", e);
        query_int(&q, id);
        query_int(&q, sys_now());
        while (query_row(&q))
                ++*n;
        return query_end(&q);
}
