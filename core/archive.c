#include "core/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/sys.h"

bool archive_init(struct archive *a, const struct source_ops *ops, struct str name, const struct limits *lim, const char *tmp_dir,
                  struct err *e)
{
        a->base.ops = ops;
        a->base.archive = true;
        a->lim = *lim;
        a->in = SLURP_NONE;
        a->name = mem_dup(name.n ? name.p : "", name.n);
        a->tmp_dir = mem_dup(tmp_dir, strlen(tmp_dir));
        gather_init(&a->gather, &a->in, a->tmp_dir, lim->memory_message);
        if (!a->name || !a->tmp_dir)
                return err_nomem(e);
        a->base.name = str_make(a->name, name.n);
        return true;
}

void archive_close(struct archive *a)
{
        gather_close(&a->gather);
        slurp_close(&a->in);
        mem_free(a->name);
        mem_free(a->tmp_dir);
}

bool archive_give(struct archive *a, struct range r, struct origin *o, struct message **out, struct err *e)
{
        o->number = a->number + 1;
        o->fetched = sys_now();
        *out = message_new(r, o, &a->lim, e);
        backing_unref(r.in);
        if (!*out)
                return false;
        a->number++;
        atomic_fetch_add(&a->base.done_messages, 1);
        return true;
}

static bool passed_over(struct archive *a, struct str path, const char *why)
{
        a->unread++;
        atomic_fetch_add(&a->base.skipped, 1);
        log_warn("%.*s: %.*s is left out: %s", STR_FMT(a->base.name), STR_FMT(path), why);
        return true;
}

bool archive_open_file(struct archive *a, int dir, struct str path, int64_t *time, enum archive_opened *how, struct err *e)
{
        struct err why = { 0 };
        struct stat st;
        int fd = sys_open_beneath(dir, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0, &why); /* a FIFO must not hold us */

        *how = fd < 0 && why.code == ERR_ABSENT ? FILE_GONE : FILE_PASSED_OVER;
        gather_rewind(&a->gather);
        if (*how == FILE_GONE)
                return true;
        if (fd < 0) {
                if (why.code == ERR_NOMEM || why.sys == EMFILE || why.sys == ENFILE) {
                        *e = why;
                        return false;
                }
                return passed_over(a, path, why.text);
        }
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
                close(fd);
                return passed_over(a, path, "not a regular file");
        }
        *how = FILE_OPEN;
        *time = (int64_t)st.st_mtime;
        return slurp_open(&a->in, fd, e);
}

bool archive_pass_over(struct archive *a, struct str path, const struct err *e)
{
        return (e->code == ERR_IO || e->code == ERR_ABSENT) && passed_over(a, path, e->text);
}

char *archive_path(const struct archive *a, struct str path)
{
        struct str name = a->base.name;
        size_t slash = name.n > 0 && name.p[name.n - 1] != '/';
        char *p = mem_alloc(name.n + slash + path.n + 1);

        if (!p)
                return NULL;
        memcpy(p, name.p, name.n);
        p[name.n] = '/';
        memcpy(p + name.n + slash, path.p, path.n);
        p[name.n + slash + path.n] = '\0';
        return p;
}

bool archive_stopped(const struct archive *a)
{
        return atomic_load_explicit(&a->base.stop, memory_order_relaxed);
}

void archive_settle(struct source *s, const struct outcome *o, size_t n)
{
        (void)s, (void)o, (void)n;
}

bool archive_finish(struct source *s, struct err *e)
{
        const struct archive *a = (const struct archive *)s;

        if (a->unread == 0)
                return true;
        return err_set(e, ERR_IO, "%.*s: %llu entr%s could not be read as a message and %s left out", STR_FMT(s->name),
                       (unsigned long long)a->unread, a->unread == 1 ? "y" : "ies", a->unread == 1 ? "was" : "were");
}

bool archive_begins_mbox(struct str head, size_t *at)
{
        struct str rest = head;

        if (str_starts(rest, STR("\xef\xbb\xbf")))
                rest = str_from(rest, 3);
        while (rest.n > 0 && (*rest.p == '\n' || (*rest.p == '\r' && rest.n > 1 && rest.p[1] == '\n')))
                rest = str_from(rest, *rest.p == '\n' ? 1 : 2);
        *at = head.n - rest.n;
        return str_starts(rest, STR("From "));
}
