/* Making durable what is staged, and giving it its name. The order is the meaning: files, new directories, directories of the staged
 * names | commitment | renames, directories of both names. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/filename.h"
#include "core/mem.h"
#include "core/staging_int.h"
#include "core/sys.h"

enum {
        SYNCFS_FROM = 33,      /* files of one file system; fewer are synced one by one */
        SYNCFS_FREE_US = 30000,/* slower than this and than its files: others write to that disk too */
        FILE_US = 400,         /* what a file costs by threads, until it has been measured */
        SYNCFS_REST = 20,      /* groups without syncfs before it is tried again */
        THREADS = 8, THREADS_FROM = 4,
        NUMBERS_MAX = 100000,
};

/* ---- many descriptors by threads ------------------------------------------------------------------------------- */

struct group {
        const int *fds;
        size_t n;
        bool (*sync)(int fd, struct err *e);
        atomic_size_t next;
        pthread_mutex_t lock;
        pthread_cond_t done;
        unsigned running;
        bool failed;
        struct err why;
};

static void sync_share(struct group *g)
{
        struct err why;
        size_t i;

        while ((i = g->next++) < g->n) {
                if (g->sync(g->fds[i], &why))
                        continue;
                pthread_mutex_lock(&g->lock);
                if (!g->failed)
                        g->why = why;
                g->failed = true;
                pthread_mutex_unlock(&g->lock);
        }
}

static void sync_thread(void *arg)
{
        struct group *g = arg;

        sync_share(g);
        pthread_mutex_lock(&g->lock);
        if (--g->running == 0)
                pthread_cond_signal(&g->done);
        pthread_mutex_unlock(&g->lock);
}

/* Threads that can't be had are done without. */
static void send_threads(struct staging *s, struct group *g)
{
        if (!s->pool)
                s->pool = pool_new(THREADS, NULL);
        for (size_t i = 0; s->pool && i < THREADS && i + 1 < g->n; i++) {
                pthread_mutex_lock(&g->lock);
                g->running++;
                pthread_mutex_unlock(&g->lock);
                if (pool_submit(s->pool, sync_thread, g))
                        continue;
                pthread_mutex_lock(&g->lock);
                g->running--;
                pthread_mutex_unlock(&g->lock);
                break;
        }
}

static bool sync_fds(struct staging *s, const int *fds, size_t n, bool (*sync)(int, struct err *), struct err *e)
{
        struct group g = { .fds = fds, .n = n, .sync = sync, .lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER };

        if (n >= THREADS_FROM)
                send_threads(s, &g);
        sync_share(&g);
        pthread_mutex_lock(&g.lock);
        while (g.running)
                pthread_cond_wait(&g.done, &g.lock);
        pthread_mutex_unlock(&g.lock);
        if (g.failed && e)
                *e = g.why;
        return !g.failed;
}

static bool data_sync(int fd, struct err *e) { return sys_fdatasync(fd, e); }
static bool full_sync(int fd, struct err *e) { return sys_fsync(fd, e); }

/* Is it cheaper to sync the whole file system than n of its files? By what each took of late; on a busy disk both are slow, and syncfs waits
 * for what others write as well. */
static bool whole_is_cheaper(struct sync_cost *c, size_t n)
{
        int64_t each = c->each_us ? c->each_us : FILE_US;

        if (n < SYNCFS_FROM)
                return false;
        if (c->whole_us <= SYNCFS_FREE_US || c->whole_us <= (int64_t)n * each)
                return true;
        if (c->rest == 0)
                c->rest = SYNCFS_REST;
        return --c->rest == 0;
}

static void learn(int64_t *us, int64_t took)
{
        *us = *us ? (*us + took) / 2 : took;
}

/* *whole: they were synced with all that is on their file system. */
static bool sync_group(struct staging *s, const int *fds, size_t n, bool dirs, bool *whole, struct err *e)
{
        struct sync_cost *c = dirs ? &s->dirs : &s->files;
        int64_t begun = sys_mono_ms(), took;
        bool ok;

        *whole = whole_is_cheaper(c, n) && sys_syncfs_reaches(fds[0]);
        ok = *whole ? sys_syncfs(fds[0], e) : sync_fds(s, fds, n, dirs ? full_sync : data_sync, e);
        took = (sys_mono_ms() - begun) * 1000;
        if (*whole)
                learn(&c->whole_us, took);
        else if (n >= SYNCFS_FROM)
                learn(&c->each_us, took / (int64_t)n + 1);
        return ok;
}

/* ---- descriptors, by file system ------------------------------------------------------------------------------- */

struct item {
        uint64_t dev;
        int fd;
        bool own; /* to be closed again */
};

static int by_dev(const void *x, const void *y)
{
        const struct item *a = x, *b = y;

        return (a->dev > b->dev) - (a->dev < b->dev);
}

/* File systems that were synced as a whole. */
struct wholes {
        uint64_t dev[8];
        size_t n;
};

static bool is_whole(const struct wholes *w, uint64_t dev)
{
        for (size_t i = 0; i < w->n; i++)
                if (w->dev[i] == dev)
                        return true;
        return false;
}

static bool sync_items(struct staging *s, struct item *items, size_t n, bool dirs, struct wholes *w, struct err *e)
{
        int *fds = mem_array(n + 1, sizeof *fds);
        bool ok = fds ? true : err_nomem(e), whole;

        qsort(items, n, sizeof *items, by_dev);
        for (size_t i = 0, j; ok && i < n; i = j) {
                for (j = i; j < n && items[j].dev == items[i].dev; j++)
                        fds[j - i] = items[j].fd;
                ok = sync_group(s, fds, j - i, dirs, &whole, e);
                if (ok && whole && w->n < sizeof w->dev / sizeof *w->dev)
                        w->dev[w->n++] = items[i].dev;
        }
        mem_free(fds);
        return ok;
}

static void close_items(struct item *items, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                if (items[i].own && items[i].fd >= 0)
                        close(items[i].fd);
        }
        mem_free(items);
}

/* ---- directories ----------------------------------------------------------------------------------------------- */

struct collecting {
        struct item *items;
        size_t n;
        bool ok;
        struct err *e;
        int fd_max;
};

/* The value is the descriptor of the cache plus two, so that -1 is not NULL. With many open already, it is synced at once. */
static bool collect_dir(void *ctx, struct str path, void *value)
{
        struct collecting *c = ctx;
        struct item *i = &c->items[c->n];
        struct stat st;

        i->fd = places_fd((int)(intptr_t)value - 2, path, &i->own, c->e);
        c->ok = i->fd >= 0;
        if (c->ok && i->own && i->fd >= c->fd_max) {
                c->ok = sys_fsync(i->fd, c->e);
                close(i->fd);
                return c->ok;
        }
        if (!c->ok)
                return false;
        i->dev = fstat(i->fd, &st) == 0 ? st.st_dev : 0;
        c->n++;
        return true;
}

static bool add_dir(struct map *paths, struct str path, int fd, struct err *e)
{
        return map_set(paths, path, (void *)(intptr_t)(fd + 2), NULL) || err_nomem(e);
}

/* s may be NULL (recovery): one after the other then. */
bool staging_sync_dirs(struct staging *s, struct map *paths, struct err *e)
{
        size_t n = map_count(paths);
        struct collecting c = { mem_array(n + 1, sizeof(struct item)), 0, true, e, places_fd_max() };
        struct wholes w = { .n = 0 };
        bool ok;

        if (!c.items)
                return err_nomem(e);
        map_each(paths, collect_dir, &c);
        ok = c.ok;
        if (s)
                ok = ok && sync_items(s, c.items, c.n, true, &w, e);
        for (size_t i = 0; !s && ok && i < c.n; i++)
                ok = sys_fsync(c.items[i].fd, e);
        close_items(c.items, c.n);
        return ok;
}

/* ---- before the commitment ------------------------------------------------------------------------------------- */

static int reopen(const struct staged *o, struct err *e)
{
        bool own;
        int at = places_fd(o->dir, o->dir_path, &own, e), fd;

        if (at < 0)
                return -1;
        fd = sys_open_beneath(at, o->name, O_RDONLY | O_NOFOLLOW, 0, e);
        if (own)
                close(at);
        return fd;
}

/* A file that was closed because too many were open: so it may be again, and is then synced alone. */
static bool collect_closed(const struct staged *o, struct collecting *c)
{
        int fd = reopen(o, c->e);
        bool ok;

        if (fd < 0)
                return false;
        if (fd < c->fd_max) {
                c->items[c->n++] = (struct item){ .dev = o->dev, .fd = fd, .own = true };
                return true;
        }
        ok = sys_fdatasync(fd, c->e);
        close(fd);
        return ok;
}

static bool collect_files(struct staged *const *o, size_t n, const int *fds, size_t m, struct collecting *c)
{
        struct stat st;

        for (size_t i = 0; i < n; i++) {
                if (!o[i]->synced && o[i]->fd >= 0)
                        c->items[c->n++] = (struct item){ .dev = o[i]->dev, .fd = o[i]->fd };
                else if (!o[i]->synced && !collect_closed(o[i], c))
                        return false;
        }
        for (size_t i = 0; i < m; i++) {
                if (fds[i] < 0)
                        continue;
                if (fstat(fds[i], &st) != 0)
                        return err_sys(c->e, ERR_IO, errno, "looking at a spool file");
                c->items[c->n++] = (struct item){ .dev = st.st_dev, .fd = fds[i] };
        }
        return true;
}

static bool sync_files(struct staging *s, struct staged *const *o, size_t n, const int *fds, size_t m, struct wholes *w, struct err *e)
{
        struct collecting c = { mem_array(n + m + 1, sizeof(struct item)), 0, true, e, s->fd_max };
        bool ok;

        if (!c.items)
                return err_nomem(e);
        ok = collect_files(o, n, fds, m, &c) && sync_items(s, c.items, c.n, false, w, e);
        close_items(c.items, c.n);
        return ok;
}

/* What was synced as a whole just now has its directories with it: every name stood before. */
static bool sync_staged_dirs(struct staging *s, struct staged *const *o, size_t n, const struct wholes *w, struct err *e)
{
        struct map *paths = map_new();
        bool ok = paths ? true : err_nomem(e);

        for (size_t i = 0; ok && i < n; i++)
                ok = o[i]->synced || is_whole(w, o[i]->dev) || add_dir(paths, o[i]->dir_path, o[i]->dir, e);
        ok = ok && staging_sync_dirs(s, paths, e);
        map_free(paths, NULL);
        return ok;
}

bool staging_sync(struct staging *s, struct staged *const *o, size_t n, const int *fds, size_t m, struct err *e)
{
        struct wholes w = { .n = 0 };
        bool ok;

        pthread_mutex_lock(&s->sync_lock);
        if (s->failed)
                ok = err_set(e, ERR_IO, "an earlier sync to disk failed: nothing can be trusted to be written");
        else
                ok = sync_files(s, o, n, fds, m, &w, e) && sync_staged_dirs(s, o, n, &w, e) && places_sync(s, e) &&
                     (!atomic_exchange(&s->spool_dirty, false) || sys_fsync(s->spool, e));
        s->failed = !ok;
        pthread_mutex_unlock(&s->sync_lock);
        for (size_t i = 0; i < n; i++) {
                if (o[i]->fd >= 0)
                        close(o[i]->fd);
                o[i]->fd = -1;
                o[i]->synced = ok;
        }
        return ok ? true : err_in(e, "making %zu outputs durable", n + m);
}

/* ---- after the commitment -------------------------------------------------------------------------------------- */

/* What comes when the promised name is taken. */
static struct str next_name(struct str promised, bool numbered, unsigned n, struct arena *a)
{
        struct str info = str_from(promised, str_find(promised, ':'));
        char unique[96];

        if (numbered)
                return filename_number(promised, n, a);
        sys_unique(unique);
        return arena_printf(a, "%s.%s%.*s", unique, sys_hostname(), STR_FMT(info));
}

bool place_name(int from, struct str staged, int to, struct str *target, bool replace, bool numbered, bool *taken, struct arena *a,
                struct err *e)
{
        char *old = arena_dup(a, staged.p, staged.n), *new = arena_dup(a, target->p, target->n);
        struct str promised = *target;
        struct err why;

        *taken = false;
        if (!old || !new)
                return err_nomem(e);
        if (replace)
                return sys_rename(from, old, to, new, e);
        for (unsigned n = 2; !sys_rename_new(from, old, to, new, &why); n++) {
                if (why.code != ERR_EXISTS || n > NUMBERS_MAX) {
                        if (e)
                                *e = why;
                        return false;
                }
                *taken = true;
                *target = next_name(promised, numbered, n, a);
                new = target->p ? arena_dup(a, target->p, target->n) : NULL;
                if (!new)
                        return err_nomem(e);
        }
        return true;
}

/* *target: the name it got; in memory that lasts as long as the staging when it is not the promised one. */
static bool publish_one(struct staging *s, struct staged *o, struct str *target, bool *taken, struct err *e)
{
        bool own_from, own_to = false, ok;
        int from = places_fd(o->dir, o->dir_path, &own_from, e);
        int to = from < 0 ? -1 : places_fd(o->target_dir, o->target_path, &own_to, e);
        struct arena *a = arena_new(0);

        *taken = false;
        *target = o->target;
        ok = to >= 0 && (a || err_nomem(e)) && place_name(from, o->name, to, target, o->replace, o->numbered, taken, a, e);
        if (ok && *taken) {
                pthread_mutex_lock(&s->lock);
                *target = arena_str(s->kept, *target);
                pthread_mutex_unlock(&s->lock);
                ok = target->p || err_nomem(e);
        }
        arena_free(a);
        if (own_from && from >= 0)
                close(from);
        if (own_to && to >= 0)
                close(to);
        return ok;
}

static bool publish_all(struct staging *s, struct staged *const *o, size_t n, struct map *paths,
                        void (*took)(void *ctx, struct staged *o, struct str name), void *ctx, struct err *e)
{
        bool ok = true, taken;
        struct str target;
        struct err why;

        for (size_t i = 0; i < n; i++) {
                o[i]->published = publish_one(s, o[i], &target, &taken, &why) && add_dir(paths, o[i]->dir_path, o[i]->dir, &why) &&
                                  add_dir(paths, o[i]->target_path, o[i]->target_dir, &why);
                if (o[i]->published && taken && took)
                        took(ctx, o[i], target);
                if (!o[i]->published && ok) {
                        err_in(&why, "giving \"%.*s\" in %.*s its name", STR_FMT(o[i]->target), STR_FMT(o[i]->target_path));
                        if (e)
                                *e = why;
                        ok = false;
                }
                if (o[i]->published)
                        o[i]->target = target;
        }
        return ok;
}

bool staging_publish(struct staging *s, struct staged *const *o, size_t n,
                     void (*took)(void *ctx, struct staged *o, struct str name), void *ctx, struct err *e)
{
        struct map *paths = map_new();
        struct err why = { 0 };
        bool ok, durable;

        if (!paths)
                return err_nomem(e);
        ok = publish_all(s, o, n, paths, took, ctx, &why);
        pthread_mutex_lock(&s->sync_lock);
        durable = !s->failed && staging_sync_dirs(s, paths, ok ? &why : NULL);
        s->failed = !durable;
        pthread_mutex_unlock(&s->sync_lock);
        for (size_t i = 0; i < n; i++) {
                o[i]->published = o[i]->published && durable;
                s->outstanding -= o[i]->published;
                staging_release(s, o[i]);
        }
        map_free(paths, NULL);
        if (ok && !durable && why.code == ERR_NONE)
                err_set(&why, ERR_IO, "an earlier sync to disk failed");
        if (!(ok && durable) && e)
                *e = why;
        return ok && durable;
}
