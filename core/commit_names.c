/* Before commitment the names are looked at once more. A name that was free may be taken by now; and a save that found its very
 * content under its name ("same": nothing to write) relies on a file that must be there: on the disk, or of an item before it in the batch.
 * The plan that promised it may have failed meanwhile, or somebody has removed the file, or changed it. */
#include <fcntl.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/commit.h"
#include "core/map.h"
#include "core/sys.h"

struct look {
        struct names *names;  /* may be NULL: that something is there is enough then */
        struct item *const *items;
        size_t n;             /* of those before the one that is looked at */
        struct map *promised; /* paths that they save; made when first needed, behind `mapped` */
        size_t mapped;
        struct err *e;
};

static struct str whole_path(const struct effect *f, struct buf *b)
{
        buf_add_str(b, root_path(f->root));
        buf_add_char(b, '/');
        buf_add_str(b, f->path);
        return buf_str(b);
}

static bool promise(struct look *k, struct effect *f)
{
        struct buf b = BUF_INIT;
        bool ok = map_set(k->promised, whole_path(f, &b), f, NULL);

        buf_free(&b);
        return ok || err_nomem(k->e);
}

/* Each item is put into the map once: whatever a batch holds, the cost is linear. */
static bool map_those_before(struct look *k)
{
        if (!k->promised && !(k->promised = map_new()))
                return err_nomem(k->e);
        for (; k->mapped < k->n; k->mapped++) {
                struct item *it = k->items[k->mapped];

                for (struct effect *f = it->hold ? NULL : it->plan->first; f; f = f->next)
                        if (f->kind == EFFECT_SAVE && !f->same && !promise(k, f))
                                return false;
        }
        return true;
}

/* One root may lie in another. */
static bool one_path(const struct effect *f, const struct effect *g)
{
        struct buf a = BUF_INIT, b = BUF_INIT;
        bool one = f->root == g->root ? str_eq(f->path, g->path) : str_eq(whole_path(f, &a), whole_path(g, &b));

        buf_free(&a);
        buf_free(&b);
        return one;
}

static bool own_promise(const struct look *k, const struct effect *same)
{
        for (const struct effect *f = k->items[k->n]->plan->first; f != same; f = f->next)
                if (f->kind == EFFECT_SAVE && !f->same && one_path(f, same))
                        return true;
        return false;
}

static bool is_on_disk(const struct look *k, const struct effect *f)
{
        int fd;

        if (k->names && f->conflict != CONFLICT_KEEP)
                return names_hold(k->names, f->root, f->path, k->items[k->n]->plan->arena);
        fd = sys_open_beneath(root_fd(f->root), f->path, O_PATH | O_NOFOLLOW, 0, NULL);
        if (fd >= 0)
                close(fd);
        return fd >= 0;
}

static bool is_promised(struct look *k, const struct effect *f)
{
        struct buf b = BUF_INIT;
        bool found;

        if (own_promise(k, f))
                return true;
        if (!map_those_before(k))
                return false;
        found = map_get(k->promised, whole_path(f, &b)) != NULL;
        buf_free(&b);
        return found || err_set(k->e, ERR_ABSENT, "%.*s is not there any more", STR_FMT(f->path));
}

static bool still_holds(struct look *k, const struct effect *f)
{
        if (f->kind != EFFECT_SAVE)
                return true;
        if (f->same)
                return is_on_disk(k, f) || is_promised(k, f);
        return !f->is_staged || !staging_taken(&f->staged) || err_set(k->e, ERR_EXISTS, "%.*s was taken meanwhile", STR_FMT(f->path));
}

static bool item_holds(struct look *k)
{
        const struct item *it = k->items[k->n];

        for (const struct effect *f = it->hold ? NULL : it->plan->first; f; f = f->next)
                if (!still_holds(k, f))
                        return false;
        return true;
}

size_t commit_names(struct names *names, struct item *const *items, size_t n, bool *retry, struct err *e)
{
        struct look k = { .names = names, .items = items, .e = e };

        while (k.n < n && item_holds(&k))
                k.n++;
        *retry = k.n < n && e->code != ERR_NOMEM;
        map_free(k.promised, NULL);
        return k.n;
}
