/* Roots, and the paths beneath them. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/staging_int.h"
#include "core/sys.h"

struct root {
        int fd;
        char *path; /* absolute, without symbolic links: what is recorded in the journal can be opened again by it */
};

/* ---- paths ----------------------------------------------------------------------------------------------------- */

struct str path_tidy(struct str path, struct arena *a, struct err *e)
{
        char *out = arena_alloc(a, path.n + 1);
        struct str rest = path;
        size_t n = 0;

        if (!out) {
                err_nomem(e);
                return STR_NONE;
        }
        if ((path.n && path.p[0] == '/') || (path.n && memchr(path.p, '\0', path.n))) {
                err_set(e, ERR_USAGE, "\"%.*s\" is not a path below the root", STR_FMT(path));
                return STR_NONE;
        }
        while (rest.n > 0) {
                struct str step = str_take(&rest, '/');
                if (str_eq(step, STR(".."))) {
                        err_set(e, ERR_USAGE, "\"%.*s\" leaves its root", STR_FMT(path));
                        return STR_NONE;
                }
                if (step.n == 0 || str_eq(step, STR(".")))
                        continue;
                if (n)
                        out[n++] = '/';
                memcpy(out + n, step.p, step.n);
                n += step.n;
        }
        out[n] = '\0';
        return str_make(out, n);
}

struct str path_join(struct str dir, struct str name, struct arena *a)
{
        size_t slash = dir.n && name.n && dir.p[dir.n - 1] != '/';
        char *p = arena_alloc(a, dir.n + slash + name.n + 1);

        if (!p)
                return STR_NONE;
        if (dir.n)
                memcpy(p, dir.p, dir.n);
        if (slash)
                p[dir.n] = '/';
        if (name.n)
                memcpy(p + dir.n + slash, name.p, name.n);
        return str_make(p, dir.n + slash + name.n);
}

struct str path_dir(struct str path, struct str *name)
{
        size_t at = str_rfind(path, '/');

        if (at == path.n) {
                *name = path;
                return str_make(path.p, 0);
        }
        *name = str_from(path, at + 1);
        return str_first(path, at);
}

int path_open(struct str absolute, int flags, struct err *e)
{
        int top, fd;

        if (absolute.n == 0 || absolute.p[0] != '/') {
                err_set(e, ERR_USAGE, "\"%.*s\" is not an absolute path", STR_FMT(absolute));
                return -1;
        }
        top = sys_open("/", O_PATH | O_DIRECTORY, 0, e);
        if (top < 0)
                return -1;
        fd = sys_open_beneath(top, absolute.n > 1 ? str_from(absolute, 1) : STR("."), flags, 0, e);
        close(top);
        return fd;
}

/* Best effort: what goes into the new directory is promised in the journal until it is done again. */
static void sync_parent(void *ctx, int parent) { (void)!sys_fsync(parent, NULL); }

int path_make(struct str absolute, struct err *e)
{
        struct err why;
        int fd = path_open(absolute, O_RDONLY | O_DIRECTORY, &why), top;

        if (fd >= 0 || why.code != ERR_ABSENT) {
                if (fd < 0 && e)
                        *e = why;
                return fd;
        }
        top = sys_open("/", O_PATH | O_DIRECTORY, 0, e);
        if (top < 0)
                return -1;
        fd = sys_mkdirs_beneath(top, str_from(absolute, 1), sync_parent, NULL, e);
        close(top);
        return fd;
}

/* ---- roots ----------------------------------------------------------------------------------------------------- */

static bool check_root(struct root *r, struct err *e)
{
        struct stat st;

        if (fstat(r->fd, &st) != 0)
                return err_sys(e, ERR_IO, errno, "looking at the directory %s", r->path);
        if ((st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX))
                return err_set(e, ERR_USAGE, "the directory %s can be written by everybody: chmod o-w %s", r->path, r->path);
        return true;
}

/* A directory made here is durable before anything in it is promised. */
static bool open_root(struct root *r, const char *path, struct err *e)
{
        char real[PATH_MAX];
        struct stat st;
        bool made = stat(path, &st) != 0;

        if (made && !sys_mkdirs(path, 0700, e))
                return false;
        if (!realpath(path, real))
                return err_sys(e, ERR_IO, errno, "finding the directory %s", path);
        r->path = mem_dup(real, strlen(real));
        if (!r->path)
                return err_nomem(e);
        r->fd = sys_open(r->path, O_RDONLY | O_DIRECTORY, 0, e);
        return r->fd >= 0 && check_root(r, e) && (!made || sys_syncfs(r->fd, e));
}

/* A directory without a name: it is empty and stays so. */
static int open_nowhere(struct err *e)
{
        const char *tmp = getenv("TMPDIR");
        char path[PATH_MAX];
        int fd;

        snprintf(path, sizeof path, "%s/mailmill-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!mkdtemp(path)) {
                err_sys(e, ERR_IO, errno, "making a directory like %s", path);
                return -1;
        }
        fd = sys_open(path, O_RDONLY | O_DIRECTORY, 0, e);
        rmdir(path);
        return fd;
}

static bool look_root(struct root *r, const char *path, struct err *e)
{
        struct stat st;

        if (stat(path, &st) == 0 || errno != ENOENT)
                return open_root(r, path, e);
        r->path = mem_dup(path, strlen(path));
        if (!r->path)
                return err_nomem(e);
        r->fd = open_nowhere(e);
        return r->fd >= 0;
}

static struct root *root_by(bool (*open)(struct root *r, const char *path, struct err *e), struct str path, struct err *e)
{
        struct root *r;
        char *name;
        bool ok;

        if (path.n == 0 || memchr(path.p, '\0', path.n)) {
                err_set(e, ERR_USAGE, "\"%.*s\" is not a directory's name", STR_FMT(path));
                return NULL;
        }
        r = mem_zero(sizeof *r);
        name = mem_dup(path.p, path.n);
        if (r)
                r->fd = -1;
        ok = r && name ? open(r, name, e) : err_nomem(e);
        mem_free(name);
        if (ok)
                return r;
        root_close(r);
        return NULL;
}

struct root *root_open(struct str path, struct err *e) { return root_by(open_root, path, e); }
struct root *root_look(struct str path, struct err *e) { return root_by(look_root, path, e); }

void root_close(struct root *r)
{
        if (!r)
                return;
        if (r->fd >= 0)
                close(r->fd);
        mem_free(r->path);
        mem_free(r);
}

struct str root_path(const struct root *r) { return str_of(r->path); }
int root_fd(const struct root *r) { return r->fd; }
