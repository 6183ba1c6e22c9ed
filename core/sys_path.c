/* The calls that take a path: opening (beneath a directory), making directories, renaming, removing. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/sys.h"
#include "core/sys_seam.h"

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
        for (;;) {
                int fd = seam_fails() ? -1 : openat(dir, path, flags | O_CLOEXEC, mode);
                if (fd >= 0 || errno != EINTR)
                        return fd;
        }
}

int sys_open(const char *path, int flags, mode_t mode, struct err *e)
{
        int fd = open_at(AT_FDCWD, path, flags, mode);

        if (fd < 0)
                err_sys(e, ERR_IO, errno, "opening %s", path);
        return fd;
}

/* ---- beneath a directory --------------------------------------------------------------------------------------- */

static bool is(struct str s, const char *word) { return str_eq(s, str_of(word)); }

/* What no path beneath a directory may hold: copied with a NUL into out. */
static bool checked_copy(struct str path, char out[PATH_MAX], struct err *e)
{
        struct str rest = path;

        if (path.n == 0 || path.n >= PATH_MAX)
                return err_sys(e, ERR_USAGE, path.n ? ENAMETOOLONG : EINVAL, "opening \"%.*s\"", STR_FMT(path));
        if (path.p[0] == '/' || memchr(path.p, '\0', path.n))
                return err_set(e, ERR_USAGE, "opening \"%.*s\": not a path beneath a directory", STR_FMT(path));
        while (rest.n > 0) {
                if (is(str_take(&rest, '/'), ".."))
                        return err_set(e, ERR_USAGE, "opening \"%.*s\": \"..\" leaves its directory", STR_FMT(path));
        }
        memcpy(out, path.p, path.n);
        out[path.n] = '\0';
        return true;
}

static int open_resolved(int dir, const char *path, int flags, mode_t mode)
{
        enum { RACES_MAX = 64 }; /* EAGAIN: somebody renamed a directory meanwhile */
        struct open_how how = {
                .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                .mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? mode & 07777 : 0,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
        };

        if (seam_pretends(SYS_NO_OPENAT2)) {
                errno = ENOSYS;
                return -1;
        }
        for (int race = 0;;) {
                long fd = seam_fails() ? -1 : syscall(SYS_openat2, dir, path, &how, sizeof how);
                if (fd >= 0)
                        return (int)fd;
                if (errno != EINTR && (errno != EAGAIN || ++race > RACES_MAX))
                        return -1;
        }
}

/* O_PATH opens even a symbolic link, as a link. */
static int refuse_link(int fd, int flags)
{
        struct stat st;

        if (fd < 0 || !(flags & O_PATH) || flags & O_NOFOLLOW || fstat(fd, &st) != 0 || !S_ISLNK(st.st_mode))
                return fd;
        close(fd);
        errno = ELOOP;
        return -1;
}

static int open_last(int dir, const char *name, int flags, mode_t mode)
{
        return refuse_link(open_at(dir, name, flags | O_NOFOLLOW, mode), flags);
}

/* Without openat2: one component at a time, each without following a link. *name walks through path, which is overwritten. */
static int open_by_steps(int dir, char *path, int flags, mode_t mode)
{
        int at = dir, next;
        char *slash;

        while ((slash = strchr(path, '/')) != NULL) {
                char *rest = slash + strspn(slash, "/");
                *slash = '\0';
                if (*rest == '\0') {
                        flags |= O_DIRECTORY; /* "name/" */
                        break;
                }
                next = open_at(at, path, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
                if (at != dir)
                        close(at);
                if (next < 0)
                        return -1;
                at = next;
                path = rest;
        }
        next = open_last(at, path, flags, mode);
        if (at != dir) {
                int why = errno;
                close(at);
                errno = why;
        }
        return next;
}

int sys_open_beneath(int dir, struct str path, int flags, mode_t mode, struct err *e)
{
        char name[PATH_MAX];
        int fd;

        if (!checked_copy(path, name, e))
                return -1;
        fd = open_resolved(dir, name, flags, mode);
        /* EPERM: seccomp filters older than the call answer so. If it was meant, the steps meet it again. */
        if (fd < 0 && (errno == ENOSYS || errno == EPERM))
                fd = open_by_steps(dir, name, flags, mode);
        if (fd < 0)
                err_sys(e, ERR_IO, errno, "opening \"%.*s\"", STR_FMT(path));
        return fd;
}

/* ---- making directories ---------------------------------------------------------------------------------------- */

static int make_dir(int dir, const char *name, mode_t mode)
{
        for (;;) {
                int r = seam_fails() ? -1 : mkdirat(dir, name, mode);
                if (r == 0 || errno != EINTR)
                        return r;
        }
}

/* Opens one directory, made if it is missing. */
static int enter(int at, const char *name, void (*made)(void *ctx, int parent), void *ctx)
{
        enum { STEP = O_RDONLY | O_DIRECTORY | O_NOFOLLOW }; /* not O_PATH: made() may sync it */
        int fd = open_at(at, name, STEP, 0);

        if (fd >= 0 || errno != ENOENT)
                return fd;
        if (make_dir(at, name, 0700) == 0) {
                if (made)
                        made(ctx, at);
        } else if (errno != EEXIST) {
                return -1;
        }
        return open_at(at, name, STEP, 0);
}

int sys_mkdirs_beneath(int dir, struct str path, void (*made)(void *ctx, int parent), void *ctx, struct err *e)
{
        char name[PATH_MAX];
        struct str rest = path;
        int at = -1, next, why;

        if (path.n > 0 && !checked_copy(path, name, e))
                return -1;
        do {
                struct str step = str_take(&rest, '/');
                if (step.n == 0 || is(step, ".")) {
                        if (rest.n > 0 || at >= 0)
                                continue;
                        step = STR(".");
                }
                memcpy(name, step.p, step.n);
                name[step.n] = '\0';
                next = enter(at >= 0 ? at : dir, name, made, ctx);
                why = errno;
                if (at >= 0)
                        close(at);
                at = next;
                if (at < 0) {
                        err_sys(e, ERR_IO, why, "making the directory \"%.*s\"", STR_FMT(path));
                        return -1;
                }
        } while (rest.n > 0);
        return at;
}

bool sys_mkdirs(const char *path, mode_t mode, struct err *e)
{
        char name[PATH_MAX];
        size_t n = strlen(path);
        struct stat st;
        int why;

        if (n == 0 || n >= sizeof name)
                return err_sys(e, ERR_USAGE, n ? ENAMETOOLONG : EINVAL, "making the directory %s", path);
        memcpy(name, path, n + 1);
        for (size_t i = 1; i <= n; i++) {
                if (name[i] != '/' && name[i] != '\0')
                        continue;
                name[i] = '\0';
                why = make_dir(AT_FDCWD, name, mode) == 0 ? 0 : errno;
                if (why != 0 && why != EEXIST && stat(name, &st) != 0) /* a read-only parent says so first */
                        return err_sys(e, ERR_IO, why, "making the directory %s", name);
                name[i] = i < n ? '/' : '\0';
        }
        if (stat(path, &st) != 0)
                return err_sys(e, ERR_IO, errno, "making the directory %s", path);
        if (!S_ISDIR(st.st_mode))
                return err_sys(e, ERR_IO, ENOTDIR, "making the directory %s", path);
        return true;
}

/* ---- renaming and removing ------------------------------------------------------------------------------------- */

/* Done, and yet reported as failed: an NFS server whose answer was lost hears the client's repetition and says no. */
static int told(int r, int error)
{
        if (r == 0 && seam_pretends(SYS_RENAME_LIES)) {
                errno = error;
                return -1;
        }
        return r;
}

static int rename_flags(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
        for (;;) {
                int r = seam_fails() ? -1 : renameat2(from_dir, from, to_dir, to, flags);
                if (r == 0 || errno != EINTR)
                        return told(r, ENOENT);
        }
}

static int unlink_at(int dir, const char *name)
{
        for (;;) {
                int r = seam_fails() ? -1 : unlinkat(dir, name, 0);
                if (r == 0 || errno != EINTR)
                        return r;
        }
}

static int link_at(int from_dir, const char *from, int to_dir, const char *to)
{
        for (;;) {
                int r = seam_fails() ? -1 : linkat(from_dir, from, to_dir, to, 0);
                if (r == 0 || errno != EINTR)
                        return told(r, EEXIST);
        }
}

static int inode_at(int dir, const char *name, struct stat *st)
{
        for (;;) {
                int r = seam_fails() ? -1 : fstatat(dir, name, st, AT_SYMLINK_NOFOLLOW);
                if (r == 0 || errno != EINTR)
                        return r;
        }
}

/* True when `to` is the file that `from` was, so the call did its work whatever it said. A second name left behind by a link
 * whose unlink never came goes now. */
static bool arrived(int from_dir, const char *from, int to_dir, const char *to, const struct stat *was)
{
        int why = errno;
        struct stat now;
        bool same = inode_at(to_dir, to, &now) == 0 && now.st_dev == was->st_dev && now.st_ino == was->st_ino;

        if (same && unlink_at(from_dir, from) != 0 && errno != ENOENT)
                return false;
        errno = why;
        return same;
}

/* What a file system that knows no RENAME_NOREPLACE answers. */
static bool lacks_noreplace(int error) { return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP; }

static int rename_noreplace(int from_dir, const char *from, int to_dir, const char *to)
{
        if (!seam_pretends(SYS_NO_NOREPLACE)) {
                if (rename_flags(from_dir, from, to_dir, to, RENAME_NOREPLACE) == 0)
                        return 0;
                if (!lacks_noreplace(errno))
                        return -1;
        }
        if (link_at(from_dir, from, to_dir, to) != 0)
                return -1;
        return unlink_at(from_dir, from);
}

bool sys_rename_new(int from_dir, const char *from, int to_dir, const char *to, struct err *e)
{
        struct stat was;

        if (inode_at(from_dir, from, &was) == 0 && (rename_noreplace(from_dir, from, to_dir, to) == 0 ||
                                                    arrived(from_dir, from, to_dir, to, &was)))
                return true;
        return err_sys(e, ERR_IO, errno, "renaming \"%s\" to \"%s\"", from, to);
}

bool sys_rename(int from_dir, const char *from, int to_dir, const char *to, struct err *e)
{
        struct stat was;

        if (inode_at(from_dir, from, &was) == 0 &&
            (rename_flags(from_dir, from, to_dir, to, 0) == 0 || arrived(from_dir, from, to_dir, to, &was)))
                return true;
        return err_sys(e, ERR_IO, errno, "renaming \"%s\" to \"%s\"", from, to);
}

bool sys_unlink(int dir, const char *name, struct err *e)
{
        if (unlink_at(dir, name) == 0 || errno == ENOENT)
                return true;
        return err_sys(e, ERR_IO, errno, "removing \"%s\"", name);
}

/* ---- unnamed files --------------------------------------------------------------------------------------------- */

static int create_and_unlink(int dir)
{
        char name[104] = ".tmp-";
        int fd;

        sys_unique(name + 5);
        fd = open_at(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
        if (fd >= 0 && unlink_at(dir, name) != 0) {
                int why = errno;
                close(fd);
                errno = why;
                return -1;
        }
        return fd;
}

int sys_tmpfile(int dir, struct err *e)
{
        int fd = -1;

        errno = EOPNOTSUPP;
        if (!seam_pretends(SYS_NO_TMPFILE))
                fd = open_at(dir, ".", O_TMPFILE | O_RDWR, 0600);
        if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
                fd = create_and_unlink(dir);
        if (fd < 0)
                err_sys(e, ERR_IO, errno, "making a temporary file");
        return fd;
}
