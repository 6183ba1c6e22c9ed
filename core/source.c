#include "core/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/foreign.h"
#include "core/mem.h"
#include "core/sys.h"
#include "core/unbundle.h"

void source_free(struct source *s)
{
        if (s)
                s->ops->free(s);
}

/* A file by its beginning: what is compressed or packed is opened, an mbox begins with "From ", and one without a byte has no message;
 * what is known to be something else is refused; anything else is one message, and so is whatever is named *.eml and is no mbox. */
static struct source *open_file(int fd, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct slurp in = SLURP_NONE;
        bool ok = slurp_open(&in, fd, e);
        struct str head;
        size_t at;

        while (ok && in.n < slurp_block && !in.eof)
                ok = slurp_more(&in, 0, e);
        if (!ok) {
                slurp_close(&in);
                err_in(e, "%.*s", STR_FMT(name));
                return NULL;
        }
        head = str_make(in.p, in.n);
        if (foreign_why(head) && !str_ends_nocase(name, STR(".eml"))) {
                err_set(e, ERR_SYNTAX, "%.*s: it is %s", STR_FMT(name), foreign_why(head));
                slurp_close(&in);
                return NULL;
        }
        if (unbundle_is(head) && !str_ends_nocase(name, STR(".eml")))
                return bundle_from(&in, name, lim, tmp_dir, e);
        if (archive_begins_mbox(head, &at) || (head.n == 0 && !str_ends_nocase(name, STR(".eml"))))
                return mbox_from(&in, name, lim, tmp_dir, e);
        return eml_from(&in, name, lim, tmp_dir, e);
}

/* The first kind that it is; a folder of files is what anything can be. */
static struct source *open_directory(int dir, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct source *(*const kinds[])(int, struct str, const struct limits *, const char *, struct err *) = {
                maildir_open, mh_open, eml_folder_open };
        struct source *s = NULL;

        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
                int again = fcntl(dir, F_DUPFD_CLOEXEC, 3);

                if (again < 0) {
                        err_sys(e, ERR_IO, errno, "%.*s", STR_FMT(name));
                        break;
                }
                if ((s = kinds[i](again, name, lim, tmp_dir, e)) || e->code != ERR_ABSENT)
                        break;
        }
        close(dir);
        return s;
}

static int open_standard_input(struct err *e)
{
        int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);

        if (fd < 0)
                err_sys(e, ERR_IO, errno, "standard input");
        return fd;
}

/* Who opens a FIFO waits for its writer; this one waits where it reads, so that it can be told to stop. */
static int open_flags(const char *path)
{
        struct stat st;

        return O_RDONLY | O_NOCTTY | (stat(path, &st) == 0 && S_ISFIFO(st.st_mode) ? O_NONBLOCK : 0);
}

static int open_path(struct str path, struct err *e)
{
        char *p;
        int fd;

        if (memchr(path.p ? path.p : "", '\0', path.n)) {
                err_set(e, ERR_USAGE, "a path cannot hold a NUL byte");
                return -1;
        }
        if (!(p = mem_dup(path.p, path.n))) {
                err_nomem(e);
                return -1;
        }
        fd = sys_open(p, open_flags(p), 0, e);
        mem_free(p);
        return fd;
}

struct source *source_open(struct str path, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        bool standard = str_eq(path, STR("-"));
        int fd = standard ? open_standard_input(e) : open_path(path, e);
        struct source *s;
        struct stat st;

        if (fd < 0)
                return NULL;
        if (fstat(fd, &st) < 0) {
                err_sys(e, ERR_IO, errno, "%.*s", STR_FMT(path));
                close(fd);
                return NULL;
        }
        s = S_ISDIR(st.st_mode) ? open_directory(fd, path, lim, tmp_dir, e)
                                : open_file(fd, standard ? STR("standard input") : path, lim, tmp_dir, e);
        if (s)
                s->prompt = S_ISDIR(st.st_mode) || S_ISREG(st.st_mode);
        return s;
}

static bool each_match(const glob_t *g, bool (*f)(void *ctx, struct str path, struct err *e), void *ctx, struct err *e)
{
        for (size_t i = 0; i < g->gl_pathc; i++)
                if (!f(ctx, str_of(g->gl_pathv[i]), e))
                        return false;
        return true;
}

static bool expand(const char *pattern, bool (*f)(void *ctx, struct str path, struct err *e), void *ctx, struct err *e)
{
        struct stat st;
        glob_t g;
        bool ok;

        if (strcmp(pattern, "-") == 0 || lstat(pattern, &st) == 0) /* a name with brackets in it that the shell has expanded */
                return f(ctx, str_of(pattern), e);
        switch (glob(pattern, GLOB_TILDE, NULL, &g)) { /* sorted */
        case 0:
                ok = each_match(&g, f, ctx, e);
                break;
        case GLOB_NOMATCH:
                ok = err_set(e, ERR_ABSENT, "%s: there is no such file", pattern);
                break;
        case GLOB_NOSPACE:
                ok = err_nomem(e);
                break;
        default:
                ok = err_set(e, ERR_IO, "%s: cannot be read", pattern);
        }
        globfree(&g);
        return ok;
}

bool source_glob(struct str pattern, bool (*f)(void *ctx, struct str path, struct err *e), void *ctx, struct err *e)
{
        char *p;
        bool ok;

        if (pattern.n == 0 || memchr(pattern.p, '\0', pattern.n))
                return err_set(e, ERR_USAGE, "a source needs a path");
        if (!(p = mem_dup(pattern.p, pattern.n)))
                return err_nomem(e);
        ok = expand(p, f, ctx, e);
        mem_free(p);
        return ok;
}
