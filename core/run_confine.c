/* What a run still needs when its script is known: it writes below its roots and the state, and connects to the ports that were declared. */
#include "core/confine.h"
#include "core/run_int.h"

static bool is_below(struct str path, struct str dir)
{
        return str_starts(path, dir) && (path.n == dir.n || dir.n == 1 || path.p[dir.n] == '/');
}

bool run_may_write(const struct run *r, struct str path)
{
        for (size_t i = 0; i < r->may_n; i++)
                if (is_below(path, r->may[i]))
                        return true;
        return !r->config.confine;
}

/* Made now when it is missing: it could not be made later. What fails here fails again, with its reason, when it is used. */
static bool add_root(struct run *r, struct str path, struct err *e)
{
        struct err why;
        struct root *root = run_root_named(r, path, &why);

        r->may[r->may_n] = arena_str(r->arena, root ? root_path(root) : path);
        return r->may[r->may_n++].p || err_nomem(e);
}

static bool gather_roots(struct run *r, struct err *e)
{
        const struct run_config *c = &r->config;
        struct str *list = arena_alloc(r->arena, (1 + c->account_n + c->more_root_n) * sizeof *list);

        if (!list)
                return err_nomem(e);
        r->config.confine = false; /* while there is no list yet */
        r->may = list;
        if (!add_root(r, c->root, e))
                return false;
        for (size_t i = 0; i < c->account_n; i++)
                if (c->accounts[i]->root.n && !add_root(r, c->accounts[i]->root, e))
                        return false;
        for (size_t i = 0; i < c->more_root_n; i++)
                if (!add_root(r, c->more_roots[i], e))
                        return false;
        r->config.confine = true;
        return true;
}

/* A rehearsal writes below no root. */
static bool fill(struct run *r, struct confinement *c, struct err *e)
{
        const struct run_config *rc = &r->config;
        const char **dirs = arena_alloc(r->arena, (r->may_n + 2) * sizeof *dirs);
        unsigned *ports = arena_alloc(r->arena, (rc->account_n + rc->host_n + 1) * sizeof *ports);

        if (!dirs || !ports)
                return err_nomem(e);
        c->dirs = dirs;
        c->ports = ports;
        dirs[c->dir_n++] = ledger_path(r->ledger);
        if (rc->dry)
                dirs[c->dir_n++] = r->tmp_dir;
        for (size_t i = 0; i < r->may_n && !rc->dry; i++)
                dirs[c->dir_n++] = r->may[i].p;
        for (size_t i = 0; i < rc->account_n; i++)
                ports[c->port_n++] = rc->accounts[i]->port;
        for (size_t i = 0; i < rc->host_n; i++)
                ports[c->port_n++] = rc->hosts[i]->port;
        return true;
}

bool run_confine(struct run *r, struct err *e)
{
        struct confinement c = { 0 };
        unsigned got = 0;

        if (!r->config.confine)
                return true;
        if (!gather_roots(r, e) || !fill(r, &c, e) || !confine(&c, &got, e))
                return false;
        confine_tell(got);
        return true;
}
