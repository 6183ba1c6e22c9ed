/* What a plan being decided sees of the stores: its own changes, then those of plans decided before it, then the state. */
#include "core/mem.h"
#include "core/log.h"
#include "core/map.h"
#include "core/run_int.h"

static const struct store_change *pending(const struct batch *b, const struct plan *but, struct str store, struct str key)
{
        for (const struct job *j = b ? b->last : NULL; j; j = j->prev) {
                const struct plan *p = j->item.plan;
                const struct store_change *c = p && p != but && !j->item.hold ? plan_changed(p, store, key) : NULL;

                if (c)
                        return c;
        }
        return NULL;
}

static struct str dry_key(struct str store, struct str key, struct buf *b)
{
        buf_printf(b, "%zu:", store.n);
        buf_add_str(b, store);
        buf_add_str(b, key);
        return buf_str(b);
}

static const struct store_change *dry_change(struct run *r, struct str store, struct str key)
{
        struct buf b = BUF_INIT;
        const struct store_change *c = r->dry_changes ? map_get(r->dry_changes, dry_key(store, key, &b)) : NULL;

        buf_free(&b);
        return c;
}

static const struct store_change *changed(struct run *r, struct plan *p, struct str store, struct str key)
{
        const struct store_change *c = plan_changed(p, store, key);

        if (!c)
                c = pending(r->open, p, store, key);
        if (!c)
                c = pending(r->carrying, p, store, key);
        return c ? c : dry_change(r, store, key);
}

static bool is_there(const struct run *r, const struct store_change *c)
{
        return c->value.p && (!c->expires || c->expires > r->config.now);
}

bool run_store_get(struct plan *p, struct str store, struct str key, struct str *value, bool *found, struct err *e)
{
        struct run *r = p->run;
        const struct store_change *c = changed(r, p, store, key);

        *value = STR_NONE;
        if (c) {
                *found = is_there(r, c);
                if (*found)
                        *value = c->value;
                return true;
        }
        return ledger_store_get(r->ledger, store, key, value, found, p->arena, e);
}

struct each {
        struct run *r;
        struct plan *p;
        struct map *seen;
        struct str store;
        bool (*f)(void *ctx, struct str key, struct str value);
        void *ctx;
        bool go_on, failed;
};

static void each_key(struct each *w, struct str key, struct str value)
{
        if (!w->go_on || map_get(w->seen, key))
                return;
        if (!map_set(w->seen, key, w, NULL)) {
                w->failed = true;
                w->go_on = false;
                return;
        }
        if (value.p)
                w->go_on = w->f(w->ctx, key, value);
}

static void each_plan(struct each *w, const struct plan *p)
{
        for (const struct store_change *c = p->changes; c; c = c->next)
                if (str_eq(c->store, w->store))
                        each_key(w, c->key, is_there(w->r, c) ? c->value : STR_NONE);
}

static void each_batch(struct each *w, const struct batch *b)
{
        for (const struct job *j = b ? b->last : NULL; j; j = j->prev)
                if (j->item.plan && j->item.plan != w->p && !j->item.hold)
                        each_plan(w, j->item.plan);
}

static bool each_dry(void *ctx, struct str name, void *value)
{
        struct each *w = ctx;
        const struct store_change *c = value;

        if (str_eq(c->store, w->store))
                each_key(w, c->key, is_there(w->r, c) ? c->value : STR_NONE);
        return w->go_on;
}

static bool each_state(void *ctx, struct str key, struct str value)
{
        struct each *w = ctx;

        each_key(w, key, value);
        return w->go_on;
}

bool run_store_each(struct plan *p, struct str store, bool (*f)(void *ctx, struct str key, struct str value), void *ctx, struct err *e)
{
        struct each w = { p->run, p, map_new(), store, f, ctx, true, false };
        bool ok = true;

        if (!w.seen)
                return err_nomem(e);
        each_plan(&w, p);
        each_batch(&w, p->run->open);
        each_batch(&w, p->run->carrying);
        if (p->run->dry_changes && w.go_on)
                map_each(p->run->dry_changes, each_dry, &w);
        if (w.go_on)
                ok = ledger_store_each(p->run->ledger, store, each_state, &w, e);
        map_free(w.seen, NULL);
        return ok && (!w.failed || err_nomem(e));
}

static bool keep(struct run *r, const struct store_change *c)
{
        struct buf b = BUF_INIT;
        struct store_change *copy = arena_alloc(r->arena, sizeof *copy);
        bool ok = false;

        if (copy) {
                *copy = *c;
                copy->store = arena_str(r->arena, c->store);
                copy->key = arena_str(r->arena, c->key);
                copy->value = c->value.p ? arena_str(r->arena, c->value) : STR_NONE;
                ok = map_set(r->dry_changes, dry_key(c->store, c->key, &b), copy, NULL);
        }
        buf_free(&b);
        return ok;
}

/* The plan's arena goes; the changes of a rehearsal stay. Oldest first, so that the newest stands in the end. */
void run_keep_changes(struct run *r, struct plan *p)
{
        for (const struct store_change *c = r->dry_changes ? p->oldest : NULL; c; c = c->newer)
                if (!keep(r, c))
                        log_warn("out of memory: a later message will not see what this one stored");
}
