#include "core/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/fromline.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/sys.h"

enum {
        LINES_MAX = 200, /* of a header that are searched for a known field */
        EMLX_LINE = 20,  /* digits of a length and blanks */
};

/* What lies in another archive has longer UIDs than are known here. */
static bool may_parse(void *ctx)
{
        const struct archive *a = ctx, *top = a;

        while (top->outer)
                top = top->outer;
        return !a->place && top->base.may_parse && top->base.may_parse(top->base.may_parse_ctx, a->taking);
}

void archive_begin(struct archive *a, uint64_t start, struct str uid)
{
        a->taking = uid;
        gather_begin(&a->gather, start);
}

bool archive_init(struct archive *a, const struct source_ops *ops, struct str name, const struct limits *lim, const char *tmp_dir,
                  struct err *e)
{
        a->base.ops = ops;
        a->base.archive = true;
        a->lim = *lim;
        a->in = SLURP_NONE;
        a->name = mem_dup(name.n ? name.p : "", name.n);
        a->tmp_dir = mem_dup(tmp_dir, strlen(tmp_dir));
        gather_init(&a->gather, &a->in, a->tmp_dir, &a->lim, may_parse, a);
        if (!a->name || !a->tmp_dir)
                return err_nomem(e);
        a->base.name = str_make(a->name, name.n);
        return true;
}

void archive_close(struct archive *a)
{
        gather_close(&a->gather);
        slurp_close(&a->in);
        unbundle_close(a->layer);
        mem_free(a->name);
        mem_free(a->tmp_dir);
        mem_free(a->place);
}

static struct message *make(struct archive *a, struct range r, struct origin *o, struct err *e)
{
        struct buf uid = BUF_INIT;
        struct message *m = NULL;

        o->number = a->number + 1;
        o->fetched = sys_now();
        if (a->place && o->uid.p) {
                buf_printf(&uid, "%s:", a->place);
                buf_add_str(&uid, o->uid);
                o->uid = buf_str(&uid);
        } else if (a->place)
                o->uid = str_of(a->place);
        if (buf_ok(&uid, e))
                m = message_new(r, o, &a->lim, e);
        buf_free(&uid);
        backing_unref(r.in);
        return m;
}

static bool too_large(struct archive *a, const struct origin *o)
{
        a->unread++;
        atomic_fetch_add(&a->base.skipped, 1);
        log_warn("%.*s: the message at byte %llu is left out: its %llu bytes are more than the limit of %llu", STR_FMT(o->source),
                 (unsigned long long)o->offset, (unsigned long long)a->gather.n, (unsigned long long)a->lim.message);
        return true;
}

bool archive_give(struct archive *a, struct origin *o, struct message **out, struct err *e)
{
        struct sketch *s;
        struct range r;

        *out = NULL;
        if (gather_over(&a->gather))
                return too_large(a, o);
        if (!gather_end(&a->gather, &r, e))
                return false;
        s = gather_sketch(&a->gather);
        if (!(*out = make(a, r, o, e))) {
                sketch_free(s);
                return false;
        }
        message_take_sketch(*out, s);
        a->number++;
        atomic_fetch_add(&a->base.done_messages, 1);
        return true;
}

bool archive_fill(struct archive *a, struct err *e)
{
        while (a->in.n < slurp_block && !a->in.eof)
                if (!slurp_more(&a->in, 0, e))
                        return a->in.n > 0 && e->code == ERR_IO; /* what is whole in it counts; the next read fails again */
        return true;
}

static ssize_t read_nothing(void *ctx, void *p, size_t n, struct err *e)
{
        (void)ctx, (void)p, (void)n, (void)e;
        return 0;
}

bool archive_uncompress(struct archive *a, struct err *e)
{
        struct unpack_member m;

        unbundle_close(a->layer);
        a->layer = NULL;
        if (!archive_fill(a, e))
                return false;
        if (!unbundle_is_compressed(str_make(a->in.p, a->in.n)))
                return true;
        if (!(a->layer = unbundle_open(&a->in, e)) || !unbundle_next(a->layer, &m, e))
                return false;
        if (!m.end && m.name.p)
                return err_set(e, ERR_SYNTAX, "it is an archive where a message should be; unpack it first");
        return slurp_open_reader(&a->in, m.end ? read_nothing : unbundle_read, a->layer, e);
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
        return slurp_open_file(&a->in, fd, (uint64_t)st.st_size, e);
}

bool archive_pass_over(struct archive *a, struct str path, const struct err *e)
{
        return (e->code == ERR_IO || e->code == ERR_ABSENT || e->code == ERR_SYNTAX || e->code == ERR_LIMIT) && passed_over(a, path, e->text);
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

bool archive_enter(struct archive *a, struct source *s, struct str place, struct err *e)
{
        struct archive *in = (struct archive *)s;
        size_t before = a->place ? strlen(a->place) : 0, n = before + (before && place.n) + place.n;

        if (!in)
                return false;
        a->within = in;
        in->outer = a;
        in->number = a->number;
        if (n == 0)
                return true;
        if (!(in->place = mem_alloc(n + 1))) {
                archive_leave(a);
                return err_nomem(e);
        }
        memcpy(in->place, a->place ? a->place : "", before);
        in->place[before] = ':';
        memcpy(in->place + n - place.n, place.p ? place.p : "", place.n);
        in->place[n] = '\0';
        return true;
}

bool archive_within_next(struct archive *a, struct message **out, struct err *e)
{
        if (!a->within->base.ops->next(&a->within->base, out, e))
                return false;
        if (*out)
                atomic_fetch_add(&a->base.done_messages, 1);
        else
                archive_leave(a);
        return true;
}

void archive_leave(struct archive *a)
{
        struct archive *in = a->within;

        if (!in)
                return;
        a->number = in->number;
        a->unread += in->unread;
        atomic_fetch_add(&a->base.skipped, atomic_load(&in->base.skipped));
        a->within = NULL;
        source_free(&in->base);
}

bool archive_stopped(const struct archive *a)
{
        for (; a; a = a->outer)
                if (atomic_load_explicit(&a->base.stop, memory_order_relaxed))
                        return true;
        return false;
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

bool archive_finish_files(struct source *s, struct err *e)
{
        const struct archive *a = (const struct archive *)s;
        uint64_t skipped = atomic_load(&s->skipped);

        if (a->number == 0 && skipped > a->unread && !archive_stopped(a))
                log_warn("%.*s: no message found: %llu file%s in it that %s no mail", STR_FMT(s->name), (unsigned long long)(skipped - a->unread),
                         skipped - a->unread == 1 ? "" : "s", skipped - a->unread == 1 ? "is" : "are");
        return archive_finish(s, e);
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

static bool is_known_field(struct str line)
{
        static const char *const known[] = { "From", "To", "Date", "Subject", "Message-ID", "Received", "Return-Path", "Delivered-To",
                                             "MIME-Version", "Content-Type", "Cc", "Reply-To", "Sender" };
        struct str name = str_trim_right(str_first(line, str_find(line, ':')));

        for (size_t i = 0; name.n < line.n && i < sizeof known / sizeof *known; i++)
                if (str_eq_nocase(name, str_of(known[i])))
                        return true;
        return false;
}

size_t archive_emlx_line(struct str head, uint64_t *length)
{
        struct str rest = head, line = str_take_line(&rest);

        *length = UINT64_MAX;
        if (rest.n == 0 || line.n > EMLX_LINE || !str_to_u64(str_trim_right(line), UINT64_MAX / 2, length))
                return 0;
        line = str_first(rest, str_find(rest, '\n'));
        return is_known_field(line) || str_find(line, ':') < line.n ? head.n - rest.n : 0;
}

bool archive_is_mail(struct str head)
{
        uint64_t length;

        if (str_starts(head, STR("\xef\xbb\xbf")))
                head = str_from(head, 3);
        head = str_from(head, archive_emlx_line(head, &length));
        for (int i = 0; i < LINES_MAX && head.n > 0; i++) {
                struct str line = str_take_line(&head);

                if (line.n == 0)
                        return false;
                if (is_known_field(line))
                        return true;
                if (!ascii_is_blank(*line.p) && str_find(line, ':') == line.n && !str_starts(line, STR("From ")) &&
                    !str_starts(line, STR(">From ")))
                        return false;
        }
        return false;
}

bool archive_is_mbox(struct str head)
{
        struct fromline from;
        size_t at;

        if (!archive_begins_mbox(head, &at))
                return false;
        head = str_from(head, at);
        return fromline_parse(str_first(str_take_line(&head), FROMLINE_MAX), &from) && (from.dated || from.bare || from.odd);
}
