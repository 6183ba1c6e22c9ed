/* One message in a file, or as the whole of standard input; and folders of such files. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/foreign.h"
#include "core/fromline.h"
#include "core/mem.h"

/* The line with the length that stands before the message in an .emlx. A number may stand there in any mail: what it leaves must be the end,
 * or the property list. */
static bool skip_length(struct archive *a, struct str *head, uint64_t *length, struct err *e)
{
        enum { LOOK = 16 };
        char text[LOOK];
        size_t line = archive_emlx_line(*head, length);
        uint64_t begin = a->in.base + (a->in.n - head->n) + line;
        ssize_t got;

        if (line == 0)
                return true;
        a->in.tmp_dir = a->tmp_dir;
        got = slurp_peek(&a->in, begin + *length, text, LOOK, e);
        if (got < 0)
                return false;
        if (got == 0 || str_starts(str_trim(str_make(text, (size_t)got)), STR("<?xml")))
                *head = str_from(*head, line);
        else
                *length = UINT64_MAX;
        return true;
}

/* Offset at which the message begins in the first block: behind a byte order mark, and behind a From_ line that an mbox has left
 * there. ">From " as first line is what some systems make of a second one; it is a message without header then, and stays. */
static bool skip_front(struct archive *a, struct origin *o, uint64_t *length, size_t *at, struct err *e)
{
        struct str head = str_make(a->in.p, a->in.n), rest, line;
        struct fromline from;

        *length = UINT64_MAX;
        if (!a->exact && str_starts(head, STR("\xef\xbb\xbf")))
                head = str_from(head, 3);
        if (!a->exact && !skip_length(a, &head, length, e))
                return false;
        rest = head;
        line = str_take_line(&rest);
        *at = a->in.n - head.n;
        if (line.n > FROMLINE_MAX || !fromline_parse(line, &from) || !(from.dated || from.bare || from.odd))
                return true;
        o->envelope_from = from.sender;
        if (from.time)
                o->time = from.time;
        *at = a->in.n - rest.n;
        return true;
}

/* A mail header whose lines end in CR alone, as on old Macintoshes: read as it stands, all of it would be one field. */
static bool ends_in_cr(struct str head)
{
        size_t n = str_find(head, '\r');

        return n < head.n && str_find(head, '\n') == head.n && str_find(str_from(head, n + 1), '\r') + n + 1 < head.n &&
               archive_is_mail(str_first(head, n));
}

/* The message's bytes from `at` in the first block on. What follows them (behind an .emlx) is read and left. */
static bool take_all(struct archive *a, size_t at, uint64_t length, struct err *e)
{
        for (;;) {
                size_t n = a->in.n - at < length ? a->in.n - at : (size_t)length;

                if (!gather_add(&a->gather, a->in.p + at, n, e))
                        return false;
                length -= n;
                atomic_fetch_add(&a->base.done_bytes, a->in.n - at);
                if (a->in.eof)
                        return true;
                if (archive_stopped(a))
                        return err_set(e, ERR_STOPPED, "stopped");
                at = 0;
                if (!slurp_more(&a->in, a->in.n, e))
                        return false;
        }
}

bool eml_read(struct archive *a, struct origin *o, struct message **out, struct err *e)
{
        char sender[FROMLINE_MAX];
        uint64_t length;
        size_t at;

        *out = NULL;
        if (!archive_fill(a, e))
                return false;
        if (foreign_is_utf16(str_make(a->in.p, a->in.n)))
                return err_set(e, ERR_SYNTAX, "it is text in UTF-16; convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)");
        if (ends_in_cr(str_make(a->in.p, a->in.n)))
                return err_set(e, ERR_SYNTAX, "its lines end in CR alone (an old Macintosh file); convert it to LF first");
        if (!skip_front(a, o, &length, &at, e))
                return false;
        memcpy(sender, o->envelope_from.n ? o->envelope_from.p : "", o->envelope_from.n); /* the buffer slides on */
        o->envelope_from.p = sender;
        archive_begin(a, a->in.base + at, o->uid);
        if (!take_all(a, at, length, e))
                return false;
        o->suspect = a->in.cut;
        return archive_give(a, o, out, e);
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
