/* mbox: messages one behind the other, each after its From_ line and before an empty line.
 *
 * The rule. A line "From …" begins a message when
 *   - it is the first of the file (behind a byte order mark and empty lines), or
 *   - an empty line stands before it, and it ends in a date (see fromline.h), or
 *   - an empty line stands before it, the file's first From_ line has no date but one word at most ("From -", "From 1844@xxx", "From ":
 *     exporters that know no date) or an odd one ("2026-11-23T05:41:00"), it is of that shape, too, and a header field stands on the
 *     next line, or
 *   - it has the shape of one of these, and the line end before it is the one byte that the message's Content-Length leaves, or
 *   - the file's first From_ line is Mozilla's ("From -", with or without a date), it is, too, and a header field stands on the
 *     next line (Netscape wrote no empty line, and quotes every other "From ").
 * Unless the message's Content-Length says that it stands inside the body (mboxcl2), which is believed when the file's first message
 * has such a field and what stands behind that length is the end of the file, or an empty line and a line of the shapes above.
 * Any other is text; the number of those that come near (some of this holds, not all) is logged at the end with both counts, so that
 * nobody takes a wrong one for a right one, and their messages have the defect ambiguous.from. The empty line before a From_ line, and at the end of the file, belongs to the mbox, not
 * to the message. A line of the body that matches />+From / loses one '>', as mboxrd has it (in an mboxo, where ">From " may be what
 * somebody wrote, this is the lesser evil), until a file has shown itself to be an mboxcl2, in which nothing is quoted.
 * What Thunderbird has marked as deleted is left out and counted. */
#include <stdio.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/fromline.h"
#include "core/log.h"
#include "core/mboxhead.h"
#include "core/mem.h"
#include "core/sys.h"

enum {
        QUOTES_MAX = 256,              /* '>' before "From " that are looked at; more is text (nobody quotes that deep) */
        FIELD_MAX = 256,               /* how far the next line is searched for a field's colon */
        AHEAD = FROMLINE_MAX + FIELD_MAX, /* what must be in the buffer behind a From_ line to judge it */
        BEHIND = 4,                    /* and before: LF CR LF, to see the empty line */
        SENDER_MAX = FROMLINE_MAX,
        HEAD_MAX = 64 << 10,           /* of a header that is searched for what concerns the mbox */
        LENGTH_PEEK = AHEAD + 4,       /* what is looked at behind a Content-Length: CR LF and a From_ line */
};

struct mbox {
        struct archive a;
        bool started, ended, told; /* told: of a failure at the end */
        bool bare;              /* the first From_ line has no date */
        bool odd;               /* … or an odd one */
        bool mozilla;           /* the first From_ line is "From -" */
        bool lengths;           /* the first message has a Content-Length */
        bool unquoted;          /* an mboxcl2: a From_ line stood inside a body as it is */
        size_t at;              /* in the buffer: the first byte not yet given to the message */
        size_t scan;            /* where the search for "From " goes on; >= at */
        uint64_t doubtful;      /* lines that come near a From_ line */
        uint64_t headless;      /* From_ lines with no header behind them */
        bool ambiguous;         /* one of these is in this message, or begins it */
        uint64_t deleted;       /* messages left out */
        struct fromline from;   /* the next message's From_ line, at `scan` */
        uint64_t offset;        /* of the message's From_ line */
        char uid[24];
        struct mboxhead head;   /* of the message */
        enum { LENGTH_NONE, LENGTH_CLAIMED, LENGTH_TRUE } length; /* true: what stands behind it has been seen */
        uint64_t body_end;      /* as its Content-Length says */
        int64_t time;
        char sender[SENDER_MAX];
        size_t sender_n;
};

enum verdict { TEXT, QUOTED, SEPARATOR };

static struct str line_at(const struct slurp *in, size_t at)
{
        struct str rest = str_first(str_make(in->p + at, in->n - at), FROMLINE_MAX);
        size_t n = str_find(rest, '\n');

        return n == rest.n && !(in->eof && at + n == in->n) ? STR_NONE : str_take_line(&rest);
}

static bool field_follows(const struct slurp *in, size_t at)
{
        struct str rest = str_make(in->p + at, in->n - at), name;

        str_take_line(&rest);
        rest = str_first(rest, FIELD_MAX);
        name = str_first(rest, str_find(rest, ':'));
        for (size_t i = 0; i < name.n; i++)
                if (name.p[i] <= ' ' || name.p[i] == 0x7f)
                        return false;
        return name.n > 0 && name.n < rest.n;
}

/* The length of the empty line that ends before at (1, or 2 with CR); 0 when there is none. */
static size_t empty_line_before(const char *p, size_t at)
{
        if (at >= 2 && p[at - 1] == '\n' && p[at - 2] == '\n')
                return 1;
        return at >= 3 && p[at - 1] == '\n' && p[at - 2] == '\r' && p[at - 3] == '\n' ? 2 : 0;
}

/* No date, or an odd one, as in the first From_ line of this file. */
static bool has_habit(const struct mbox *m, const struct fromline *from)
{
        return (m->bare && from->bare) || (m->odd && from->odd);
}

/* Whether `from`, the line at `at`, has the shape of a From_ line of this file. */
static bool has_shape(const struct mbox *m, const struct fromline *from, const struct slurp *in, size_t at)
{
        return from->dated || (has_habit(m, from) && field_follows(in, at));
}

/* The end of the input, or an empty line and a From_ line. text begins one byte before the end of the body. */
static bool ends_message(const struct mbox *m, char *text, size_t n)
{
        const struct slurp behind = { .p = text, .n = n, .eof = n < LENGTH_PEEK };
        struct fromline from;
        size_t at = 1;

        if (n <= 1)
                return n == 1;
        if (n - at >= 2 && text[at] == '\r')
                at++;
        if (text[at++] != '\n')
                return false;
        return at == n || (fromline_parse(line_at(&behind, at), &from) && has_shape(m, &from, &behind, at));
}

/* Whether the Content-Length is right, which is looked up only once a From_ line inside of it makes it matter. */
static bool length_holds(struct mbox *m, bool *holds, struct err *e)
{
        char text[LENGTH_PEEK];
        ssize_t got;

        if (m->length == LENGTH_CLAIMED) {
                if ((got = slurp_peek(&m->a.in, m->body_end - 1, text, sizeof text, e)) < 0)
                        return false;
                m->length = ends_message(m, text, (size_t)got) ? LENGTH_TRUE : LENGTH_NONE;
        }
        *holds = m->length == LENGTH_TRUE;
        return true;
}

/* The line end before `at` is all that the Content-Length leaves before the next message. */
static bool length_ends_before(const struct mbox *m, size_t at)
{
        uint64_t end = m->a.in.base + at - 1;

        if (at >= 2 && m->a.in.p[at - 2] == '\r')
                end--;
        return m->length != LENGTH_NONE && (end == m->body_end || m->a.in.base + at - 1 == m->body_end);
}

static bool judge_line(struct mbox *m, size_t at, enum verdict *v, struct err *e)
{
        const struct slurp *in = &m->a.in;
        struct str line = line_at(in, at);
        struct fromline from;
        bool empty = empty_line_before(in->p, at) > 0, holds = false, dash, shape;

        *v = TEXT;
        if (!fromline_parse(line, &from))
                return true;
        shape = has_shape(m, &from, in, at);
        dash = m->mozilla && shape && str_starts(line, STR("From -")) && from.sender.n == 0 && field_follows(in, at);
        if (shape && in->base + at < m->body_end && !length_holds(m, &holds, e))
                return false;
        if (holds)
                m->unquoted = true;
        else if (dash || (shape && (empty || length_ends_before(m, at)))) {
                *v = SEPARATOR;
                m->from = from;
        } else if (empty || shape || from.dated || has_habit(m, &from)) {
                m->doubtful++;
                m->ambiguous = true;
        }
        return true;
}

/* ">From ", a date and a header behind an empty line: an mboxrd has quoted a whole message so that it stays text; in an mboxo somebody
 * may have written the '>'. */
static bool forges_message(const struct mbox *m, size_t at)
{
        const struct slurp *in = &m->a.in;
        struct fromline from;

        return empty_line_before(in->p, at - 1) > 0 && fromline_parse(line_at(in, at), &from) && from.dated && field_follows(in, at);
}

/* What the "From " at `at` is; *from is where its line begins. */
static bool judge(struct mbox *m, size_t at, size_t *from, enum verdict *v, struct err *e)
{
        const char *p = m->a.in.p;
        size_t q = at;

        while (q > 0 && p[q - 1] == '>' && at - q < QUOTES_MAX)
                q--;
        *from = q;
        *v = TEXT;
        if (q == 0 || p[q - 1] != '\n')
                return true;
        if (q == at)
                return judge_line(m, at, v, e);
        *v = m->unquoted ? TEXT : QUOTED;
        m->ambiguous |= *v == QUOTED && at - q == 1 && forges_message(m, at);
        return true;
}

static bool give_until(struct mbox *m, size_t end, struct err *e)
{
        size_t from = m->at;

        if (end <= from)
                return true;
        m->at = end;
        return gather_add(&m->a.gather, m->a.in.p + from, end - from, e);
}

static bool unquote(struct mbox *m, size_t at, struct err *e)
{
        if (!give_until(m, at, e))
                return false;
        m->at = at + 1;
        return gather_skip(&m->a.gather, e);
}

/* Slides the buffer on; m->at and m->scan with it. */
static bool more(struct mbox *m, struct err *e)
{
        struct slurp *in = &m->a.in;
        size_t keep = m->at > BEHIND ? m->at - BEHIND : 0;
        uint64_t before = in->base;

        if (!slurp_more(in, keep, e))
                return false;
        keep = (size_t)(in->base - before);
        m->at -= keep;
        m->scan -= keep;
        return true;
}

/* Goes through what is in the buffer. *found: a separator stands at m->scan, and all before it has been given. */
static bool search(struct mbox *m, bool *found, struct err *e)
{
        const struct slurp *in = &m->a.in;
        const char *hit;
        size_t from;

        *found = false;
        while ((hit = fromline_find(in->p + m->scan, in->n - m->scan))) {
                enum verdict v;

                m->scan = (size_t)(hit - in->p);
                if (in->n - m->scan < AHEAD && !in->eof)
                        return true;
                if (!judge(m, m->scan, &from, &v, e))
                        return false;
                if (v == SEPARATOR) {
                        *found = true;
                        return give_until(m, m->scan - empty_line_before(in->p, m->scan), e);
                }
                if (v == QUOTED && !unquote(m, from, e))
                        return false;
                m->scan += 5;
        }
        if (in->n - m->scan > 4)
                m->scan = in->n - 4;
        return true;
}

/* The message's bytes, up to the next From_ line or the end. */
static bool read_body(struct mbox *m, struct err *e)
{
        const struct slurp *in = &m->a.in;
        bool found;

        for (;;) {
                if (!search(m, &found, e))
                        return false;
                if (found)
                        return true;
                if (in->eof)
                        break;
                if (archive_stopped(&m->a))
                        return err_set(e, ERR_STOPPED, "stopped");
                /* what may be the empty line, or the '>'s, of a From_ line that has not come in yet stays */
                if (m->scan > QUOTES_MAX + BEHIND && !give_until(m, m->scan - QUOTES_MAX - BEHIND, e))
                        return false;
                if (!more(m, e))
                        return false;
        }
        m->ended = true;
        return give_until(m, in->n - empty_line_before(in->p, in->n), e);
}

/* Takes the From_ line at m->at, whose shape has been judged; the first one's when the file was opened. */
static void take_fromline(struct mbox *m)
{
        const struct slurp *in = &m->a.in;
        struct str rest = str_make(in->p + m->at, in->n - m->at), line = str_take_line(&rest);
        const struct fromline *from = &m->from;

        if (!m->started)
                fromline_parse(str_first(line, FROMLINE_MAX), &m->from);
        m->offset = in->base + m->at;
        snprintf(m->uid, sizeof m->uid, "%llu", (unsigned long long)m->offset);
        m->time = from->time;
        m->sender_n = from->sender.n;
        memcpy(m->sender, from->sender.p, from->sender.n);
        m->ambiguous = m->started && rest.n > 0 && !field_follows(in, m->at) && !archive_is_mail(str_first(rest, AHEAD));
        m->headless += m->ambiguous;
        m->at = m->scan = in->n - rest.n;
        if (m->started)
                return;
        m->mozilla = from->sender.n == 0 && str_starts(line, STR("From -")) && (from->dated || from->bare);
        m->bare = m->mozilla || (!from->dated && from->bare);
        m->odd = from->odd;
}

static bool head_in_sight(struct mbox *m)
{
        const struct slurp *in = &m->a.in;
        struct str text = str_first(str_make(in->p + m->at, in->n - m->at), HEAD_MAX);

        mboxhead_read(text, m->sender_n == 0, &m->head);
        return m->head.ended || text.n == HEAD_MAX || in->eof;
}

/* A block smaller than a header, as tests have it. */
static bool peek_head(struct mbox *m, struct err *e)
{
        char *p = mem_alloc(HEAD_MAX);
        ssize_t got = p ? slurp_peek(&m->a.in, m->a.in.base + m->at, p, HEAD_MAX, e) : -1;

        if (got >= 0)
                mboxhead_read(str_make(p, (size_t)got), m->sender_n == 0, &m->head);
        mem_free(p);
        return p ? got >= 0 : err_nomem(e);
}

static bool read_head(struct mbox *m, struct err *e)
{
        const struct slurp *in = &m->a.in;

        if (!head_in_sight(m)) {
                while (!in->eof && (m->at > BEHIND || in->n < slurp_block))
                        if (!more(m, e))
                                return false;
                if (!head_in_sight(m) && !peek_head(m, e))
                        return false;
        }
        if (!m->started)
                m->lengths = m->head.has_length;
        m->started = true;
        m->length = m->lengths && m->head.has_length && m->head.ended ? LENGTH_CLAIMED : LENGTH_NONE;
        m->body_end = m->length ? in->base + m->at + m->head.body + m->head.length : 0;
        return true;
}

/* Fills the first block and finds the first From_ line. */
static bool start(struct mbox *m, struct err *e)
{
        struct slurp *in = &m->a.in;
        struct str head;

        if (!archive_fill(&m->a, e))
                return false;
        head = str_make(in->p, in->n);
        if (!archive_begins_mbox(head, &m->at)) {
                if (m->at < in->n || !in->eof)
                        return err_set(e, ERR_SYNTAX, "does not begin with a From_ line, so it is no mbox");
                m->ended = true;
                return true;
        }
        head = str_from(head, m->at);
        head = str_first(head, str_find(head, '\n'));
        if (str_find(head, '\r') + 1 < head.n)
                return err_set(e, ERR_SYNTAX, "its lines end in CR alone (an old Macintosh file); convert it to LF first");
        if (head.n > FROMLINE_MAX)
                return err_set(e, ERR_SYNTAX, "its first line is too long for a From_ line");
        return true;
}

/* The file has grown since it was opened, and not by whole messages: who wrote the last one had not come to its end. */
static bool goes_on(const struct slurp *in)
{
        char more[7];
        struct err why;
        ssize_t got = in->seekable ? sys_pread_full(in->fd, more, sizeof more, in->size, &why) : 0;
        struct str text = str_make(more, got > 0 ? (size_t)got : 0);

        if (str_starts(text, STR("\n")) || str_starts(text, STR("\r\n")))
                text = str_from(text, *text.p == '\r' ? 2 : 1);
        return text.n > 0 && !str_starts(text, STR("From ")) && !str_starts(STR("From "), text);
}

static bool finish_message(struct mbox *m, struct message **out, struct err *e)
{
        const struct slurp *in = &m->a.in;
        struct origin o = { .source = m->a.base.name, .folder = STR(""), .offset = m->offset, .time = m->time };

        o.flags = str_make(m->head.flags, m->head.flags_n);
        o.uid = str_of(m->uid);
        o.envelope_from = str_make(m->sender, m->sender_n);
        o.suspect = m->ended && (in->cut || (in->n > 0 && in->p[in->n - 1] != '\n') || goes_on(in));
        o.ambiguous = m->ambiguous;
        return archive_give(&m->a, &o, out, e);
}

static void tell_doubts(const struct mbox *m)
{
        unsigned long long messages = atomic_load(&m->a.base.done_messages);

        if (m->deleted > 0)
                log_info("%.*s: %llu messages that Thunderbird has marked as deleted are left out", STR_FMT(m->a.base.name),
                         (unsigned long long)m->deleted);
        if (m->doubtful > 0)
                log_warn("%.*s: %llu messages, or %llu: %llu more lines begin with \"From \" but have no empty line before them or no date, "
                         "and were taken as text", STR_FMT(m->a.base.name), messages, messages + (unsigned long long)m->doubtful,
                         (unsigned long long)m->doubtful);
        if (m->headless > 0)
                log_warn("%.*s: %llu messages, or %llu: behind %llu lines \"From …\" with a date stands no header, and they were taken for "
                         "beginnings all the same", STR_FMT(m->a.base.name), messages, messages - (unsigned long long)m->headless,
                         (unsigned long long)m->headless);
}

/* The message at m->at, or *out NULL when it is one that has been deleted. */
static bool read_message(struct mbox *m, struct message **out, struct err *e)
{
        struct slurp *in = &m->a.in;

        take_fromline(m);
        if (!read_head(m, e))
                return false;
        archive_begin(&m->a, in->base + m->at, str_of(m->uid));
        if (!read_body(m, e))
                return false;
        if (!m->ended)
                m->at = m->scan; /* past the empty line */
        if (m->head.expunged) {
                m->deleted++;
                atomic_fetch_add(&m->a.base.skipped, 1);
        } else if (!finish_message(m, out, e))
                return false;
        atomic_store(&m->a.base.done_bytes, in->base + (m->ended ? in->n : m->at));
        if (m->ended)
                tell_doubts(m);
        return true;
}

static bool next_message(struct mbox *m, struct message **out, struct err *e)
{
        if (!m->started && !m->ended && !start(m, e))
                return false;
        while (!m->ended && !*out && !archive_stopped(&m->a))
                if (!read_message(m, out, e))
                        return false;
        return true;
}

/* Another program has taken something away, so that what was read last need not be what it was. */
static bool tell_cut(struct mbox *m, struct err *e)
{
        const struct slurp *in = &m->a.in;

        m->told = true;
        return err_set(e, ERR_IO, "%.*s: it became shorter while it was read (%llu bytes, then %llu): nothing is known of what came behind "
                       "message %llu", STR_FMT(m->a.base.name), (unsigned long long)in->size, (unsigned long long)in->base + in->n,
                       (unsigned long long)atomic_load(&m->a.base.done_messages));
}

static bool mbox_next(struct source *s, struct message **out, struct err *e)
{
        struct mbox *m = (struct mbox *)s;

        *out = NULL;
        if (m->ended && m->a.in.cut && !m->told)
                return tell_cut(m, e);
        if (archive_stopped(&m->a) || next_message(m, out, e))
                return true;
        m->ended = true; /* what comes behind a failure has lost its place */
        if (e->code == ERR_STOPPED)
                return true;
        if (!m->started)
                return err_in(e, "%.*s", STR_FMT(s->name));
        return err_in(e, "%.*s: message %llu, which begins at byte %llu", STR_FMT(s->name), (unsigned long long)atomic_load(&m->a.base.done_messages) + 1,
                      (unsigned long long)m->offset);
}

static void mbox_free(struct source *s)
{
        archive_close((struct archive *)s);
        mem_free(s);
}

static const struct source_ops mbox_ops = { mbox_next, archive_settle, archive_finish, mbox_free };

struct source *mbox_from(struct slurp *in, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct mbox *m = mem_zero(sizeof *m);

        if (!m || !archive_init(&m->a, &mbox_ops, name, lim, tmp_dir, e)) {
                slurp_close(in);
                if (m)
                        mbox_free(&m->a.base);
                else
                        err_nomem(e);
                return NULL;
        }
        m->a.in = *in;
        *in = SLURP_NONE;
        m->a.in.tmp_dir = m->a.tmp_dir;
        atomic_store(&m->a.base.total_bytes, m->a.in.size);
        return &m->a.base;
}

struct source *mbox_open(int fd, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct slurp in = SLURP_NONE;

        if (slurp_open(&in, fd, e))
                return mbox_from(&in, name, lim, tmp_dir, e);
        slurp_close(&in);
        err_in(e, "%.*s", STR_FMT(name));
        return NULL;
}
