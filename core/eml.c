/* One message in a file, or as the whole of standard input; and folders of such files. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/fromline.h"
#include "core/mem.h"

/* Offset at which the message begins in the first block: behind a byte order mark, and behind a From_ line that an mbox has left
 * there. ">From " as first line is what some systems make of a second one; it is a message without header then, and stays. */
static size_t skip_front(struct archive *a, struct origin *o)
{
        struct str head = str_make(a->in.p, a->in.n), rest, line;
        struct fromline from;

        if (str_starts(head, STR("\xef\xbb\xbf")))
                head = str_from(head, 3);
        rest = head;
        line = str_take_line(&rest);
        if (line.n > FROMLINE_MAX || !fromline_parse(line, &from) || !(from.dated || from.bare))
                return a->in.n - head.n;
        o->envelope_from = from.sender;
        if (from.time)
                o->time = from.time;
        return a->in.n - rest.n;
}

bool eml_read(struct archive *a, struct origin *o, struct message **out, struct err *e)
{
        char sender[FROMLINE_MAX];
        size_t at = 0;
        struct range r;

        while (a->in.n < slurp_block && !a->in.eof)
                if (!slurp_more(&a->in, 0, e))
                        return false;
        at = skip_front(a, o);
        memcpy(sender, o->envelope_from.n ? o->envelope_from.p : "", o->envelope_from.n); /* the buffer slides on */
        o->envelope_from.p = sender;
        gather_begin(&a->gather, a->in.base + at);
        for (;;) {
                if (!gather_add(&a->gather, a->in.p + at, a->in.n - at, e))
                        return false;
                if (a->in.eof)
                        break;
                if (archive_stopped(a))
                        return err_set(e, ERR_STOPPED, "stopped");
                atomic_fetch_add(&a->base.done_bytes, a->in.n - at);
                at = 0;
                if (!slurp_more(&a->in, a->in.n, e))
                        return false;
        }
        atomic_fetch_add(&a->base.done_bytes, a->in.n - at);
        o->suspect = a->in.cut;
        return gather_end(&a->gather, &r, e) && archive_give(a, r, o, out, e);
}

static bool next_single(struct source *s, struct message **out, struct err *e)
{
        struct archive *a = (struct archive *)s;
        struct origin o = { .source = s->name, .offset = a->in.base };
        struct stat st;

        *out = NULL;
        if (a->number > 0 || archive_stopped(a))
                return true;
        if (a->in.seekable && fstat(a->in.fd, &st) == 0)
                o.time = (int64_t)st.st_mtime;
        if (eml_read(a, &o, out, e))
                return true;
        return e->code == ERR_STOPPED || err_in(e, "%.*s", STR_FMT(s->name));
}

static void free_single(struct source *s)
{
        archive_close((struct archive *)s);
        mem_free(s);
}

static const struct source_ops single_ops = { next_single, archive_settle, archive_finish, free_single };

struct source *eml_from(struct slurp *in, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct archive *a = mem_zero(sizeof *a);

        if (!a) {
                slurp_close(in);
                err_nomem(e);
                return NULL;
        }
        if (!archive_init(a, &single_ops, name, lim, tmp_dir, e)) {
                slurp_close(in);
                free_single(&a->base);
                return NULL;
        }
        a->in = *in;
        *in = SLURP_NONE;
        atomic_store(&a->base.total_messages, 1);
        atomic_store(&a->base.total_bytes, a->in.size);
        return &a->base;
}

struct source *eml_open(int fd, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct slurp in = SLURP_NONE;

        if (!slurp_open(&in, fd, e)) {
                slurp_close(&in);
                err_in(e, "%.*s", STR_FMT(name));
                return NULL;
        }
        return eml_from(&in, name, lim, tmp_dir, e);
}
