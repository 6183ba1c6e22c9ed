/* The directories that outputs are staged into: opened once, noted before anything lies in them, new ones remembered for syncing. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/staging_int.h"
#include "core/sys.h"

int places_fd_max(void)
{
        struct rlimit r;

        return getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur / 4 * 3 < FDS_MAX ? (int)(r.rlim_cur / 4 * 3) : FDS_MAX;
}

bool places_init(struct staging *s, struct err *e)
{
        s->fd_max = places_fd_max();
        pthread_mutex_init(&s->lock, NULL);
        pthread_mutex_init(&s->sync_lock, NULL);
        s->places = map_new();
        s->noted = map_new();
        s->kept = arena_new(0);
        return s->places && s->noted && s->kept ? true : err_nomem(e);
}

static void free_place(void *value)
{
        struct place *p = value;

        if (p->fd >= 0)
                close(p->fd);
        mem_free(p);
}

void places_free(struct staging *s)
{
        for (size_t i = 0; i < s->pending_n; i++)
                close(s->pending[i].fd);
        map_free(s->places, free_place);
        map_free(s->noted, NULL);
        arena_free(s->kept);
        pthread_mutex_destroy(&s->lock);
        pthread_mutex_destroy(&s->sync_lock);
}

/* ---- those that nobody needs now, by last use ------------------------------------------------------------------ */

static void leave_idle(struct staging *s, struct place *p)
{
        *(p->newer ? &p->newer->older : &s->newest) = p->older;
        *(p->older ? &p->older->newer : &s->oldest) = p->newer;
        p->newer = p->older = NULL;
        s->idle--;
}

static void enter_idle(struct staging *s, struct place *p)
{
        p->older = s->newest;
        *(s->newest ? &s->newest->newer : &s->oldest) = p;
        s->newest = p;
        s->idle++;
}

static void hold(struct staging *s, struct place *p)
{
        if (p->refs++ == 0)
                leave_idle(s, p);
}

static void let_go(struct staging *s, struct place *p)
{
        if (p->refs && --p->refs == 0)
                enter_idle(s, p);
        while (s->idle > DIRS_KEPT) {
                p = s->oldest;
                leave_idle(s, p);
                map_remove(s->places, p->path);
                free_place(p);
        }
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

struct making {
        struct staging *s;
        bool ok;
        struct err *e;
};

static bool is_pending(struct staging *s, const struct stat *st)
{
        for (size_t i = 0; i < s->pending_n; i++) {
                if (s->pending[i].dev == st->st_dev && s->pending[i].ino == st->st_ino)
                        return true;
        }
        return false;
}

/* A directory was made in this one: it is synced with the next batch, or now when too many wait. */
static void made_dir(void *ctx, int parent)
{
        struct making *m = ctx;
        struct staging *s = m->s;
        struct stat st = { 0 };
        int fd = -1;

        pthread_mutex_lock(&s->lock);
        if (fstat(parent, &st) != 0 || !is_pending(s, &st)) {
                if (s->pending_n < PENDING_MAX)
                        fd = fcntl(parent, F_DUPFD_CLOEXEC, 0);
                if (fd >= s->fd_max) {
                        close(fd);
                        fd = -1;
                }
                if (fd >= 0) {
                        s->pending[s->pending_n].fd = fd;
                        s->pending[s->pending_n].dev = st.st_dev;
                        s->pending[s->pending_n++].ino = st.st_ino;
                } else if (!sys_fsync(parent, m->e)) {
                        m->ok = false;
                }
        }
        pthread_mutex_unlock(&s->lock);
}

/* The next start cleans the directories in this list, so it is written before anything can lie there. Each begins with a NUL, too: a full
 * disk may have cut the one before short. */
static bool note(struct staging *s, struct place *p, struct err *e)
{
        if (!p->noted && !map_get(s->noted, p->path)) {
                if (!sys_write_all(s->notes, "", 1, e) || !sys_write_all(s->notes, p->path.p, p->path.n + 1, e) ||
                     !(map_set(s->noted, p->path, s, NULL) || err_nomem(e)))
                        return err_in(e, "noting the directory %.*s", STR_FMT(p->path));
                s->notes_dirty = true;
        }
        p->noted = true;
        return true;
}

static struct place *add_place(struct staging *s, struct str path, int fd, struct err *e)
{
        struct place *p = mem_zero(sizeof *p + path.n + 1);
        char *copy;

        if (!p) {
                err_nomem(e);
                return NULL;
        }
        copy = (char *)(p + 1);
        memcpy(copy, path.p, path.n);
        p->path = str_make(copy, path.n);
        p->fd = fd;
        if (!map_set(s->places, p->path, p, NULL)) {
                mem_free(p);
                err_nomem(e);
                return NULL;
        }
        enter_idle(s, p);
        return p;
}

/* Somebody removed the directory, and what is written into it would have no name; or moved it, and it would have another than was promised, by
 * which no later start could finish it. */
static bool vanished(const struct place *p)
{
        struct stat open, named;

        if (p->refs > 0 || p->fd < 0 || fstat(p->fd, &open) != 0)
                return false;
        if (stat(p->path.p, &named) != 0)
                return errno == ENOENT || errno == ENOTDIR;
        return open.st_dev != named.st_dev || open.st_ino != named.st_ino;
}

static struct place *look_up(struct staging *s, struct str path)
{
        struct place *p = map_get(s->places, path);

        if (!p || !vanished(p))
                return p;
        leave_idle(s, p);
        map_remove(s->places, p->path);
        free_place(p);
        return NULL;
}

/* Under the lock: finds it, or makes it of fd (-1: it is only looked for); fd is then used up. Counts it. */
static struct place *take(struct staging *s, struct str path, int fd, bool noted, struct err *e)
{
        struct place *p = look_up(s, path);
        bool keep = !p && fd >= 0 && fd < s->fd_max;

        if (!p && fd >= 0) /* near the limit it stays without a descriptor, and is opened by its path each time */
                p = add_place(s, path, keep ? fd : -1, e);
        if (fd >= 0 && !(p && keep))
                close(fd);
        if (!p || (noted && !note(s, p, e)))
                return NULL;
        hold(s, p);
        return p;
}

struct place *places_get(struct staging *s, struct root *r, struct str rel, bool noted, struct arena *a, struct err *e)
{
        struct str path = path_join(root_path(r), rel, a);
        struct making making = { s, true, e };
        struct err why = { 0 };
        struct place *p;
        int fd;

        if (!path.p) {
                err_nomem(e);
                return NULL;
        }
        pthread_mutex_lock(&s->lock);
        p = take(s, path, -1, noted, &why);
        pthread_mutex_unlock(&s->lock);
        if (p || why.code != ERR_NONE) {
                if (!p && e)
                        *e = why;
                return p;
        }
        fd = sys_mkdirs_beneath(root_fd(r), rel, made_dir, &making, e);
        if (fd < 0 || !making.ok) {
                if (fd >= 0)
                        close(fd);
                err_in(e, "below %.*s", STR_FMT(root_path(r)));
                return NULL;
        }
        pthread_mutex_lock(&s->lock);
        p = take(s, path, fd, noted, e);
        pthread_mutex_unlock(&s->lock);
        return p;
}

void places_put(struct staging *s, struct str path)
{
        struct place *p;

        pthread_mutex_lock(&s->lock);
        p = map_get(s->places, path);
        if (p)
                let_go(s, p);
        pthread_mutex_unlock(&s->lock);
}

int places_fd(int fd, struct str path, bool *own, struct err *e)
{
        *own = fd < 0;
        return fd >= 0 ? fd : path_open(path, O_RDONLY | O_DIRECTORY, e);
}

bool places_sync(struct staging *s, struct err *e)
{
        int fds[PENDING_MAX];
        size_t n;
        bool notes, ok = true;

        pthread_mutex_lock(&s->lock);
        n = s->pending_n;
        for (size_t i = 0; i < n; i++)
                fds[i] = s->pending[i].fd;
        s->pending_n = 0;
        notes = s->notes_dirty;
        s->notes_dirty = false;
        pthread_mutex_unlock(&s->lock);
        if (notes)
                ok = sys_fdatasync(s->notes, e);
        for (size_t i = 0; i < n; i++) {
                ok = ok && sys_fsync(fds[i], e);
                close(fds[i]);
        }
        return ok;
}
