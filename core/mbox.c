/* mboxrd: messages one behind the other, each after its From_ line and before an empty line.
 *
 * The rule. A line "From …" begins a message when
 *   - it is the first of the file (behind a byte order mark and empty lines), or
 *   - an empty line stands before it, and it ends in a date (see fromline.h), or
 *   - an empty line stands before it, the file's first From_ line has no date but one word only ("From -", "From 1844@xxx":
 *     exporters that know no date), it is of that shape, too, and a header field stands on the next line.
 * Any other is text; the number of those that come near (some of this holds, not all) is logged at the end, so that
 * nobody takes a wrong count for a right one. The empty line before a From_ line, and at the end of the file, belongs to the mbox, not
 * to the message. A line of the body that matches />+From / loses one '>', as mboxrd has it (in an mboxo, where ">From " may be what
 * somebody wrote, this is the lesser evil). */
#include <stdio.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/fromline.h"
#include "core/log.h"
#include "core/mem.h"

enum {
        QUOTES_MAX = 256,              /* '>' before "From " that are looked at; more is text (nobody quotes that deep) */
        FIELD_MAX = 256,               /* how far the next line is searched for a field's colon */
        AHEAD = FROMLINE_MAX + FIELD_MAX, /* what must be in the buffer behind a From_ line to judge it */
        BEHIND = 4,                    /* and before: LF CR LF, to see the empty line */
        SENDER_MAX = FROMLINE_MAX,
        STATUS_MAX = 64 << 10,         /* of a large message's header, searched for Status fields */
};

struct mbox {
        struct archive a;
        bool started, ended;
        bool bare;              /* the first From_ line has no date */
        size_t at;              /* in the buffer: the first byte not yet given to the message */
        size_t scan;            /* where the search for "From " goes on; >= at */
        uint64_t doubtful;      /* lines that come near a From_ line */
        uint64_t offset;        /* of the message's From_ line */
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

static enum verdict judge_line(struct mbox *m, size_t at)
{
        struct fromline from;
        bool empty = empty_line_before(m->a.in.p, at) > 0;

        if (!fromline_parse(line_at(&m->a.in, at), &from))
                return TEXT;
        if (empty && (from.dated || (m->bare && from.bare && field_follows(&m->a.in, at))))
                return SEPARATOR;
        if (empty || from.dated || (m->bare && from.bare))
                m->doubtful++;
        return TEXT;
}

/* What the "From " at `at` is; *from is where its line begins. */
static enum verdict judge(struct mbox *m, size_t at, size_t *from)
{
        const char *p = m->a.in.p;
        size_t q = at;

        while (q > 0 && p[q - 1] == '>' && at - q < QUOTES_MAX)
                q--;
        *from = q;
        if (q == 0 || p[q - 1] != '\n')
                return TEXT;
        return q < at ? QUOTED : judge_line(m, at);
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
                v = judge(m, m->scan, &from);
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

/* Takes the From_ line at m->at, whose shape has been judged. */
static void take_fromline(struct mbox *m)
{
        const struct slurp *in = &m->a.in;
        struct str rest = str_make(in->p + m->at, in->n - m->at), line = str_take_line(&rest);
        struct fromline from;

        fromline_parse(str_first(line, FROMLINE_MAX), &from);
        m->offset = in->base + m->at;
        m->time = from.time;
        m->sender_n = from.sender.n;
        memcpy(m->sender, from.sender.p, from.sender.n);
        m->at = m->scan = in->n - rest.n;
        if (!m->started)
                m->bare = !from.dated && from.bare;
        m->started = true;
}

/* Fills the first block and finds the first From_ line. */
static bool start(struct mbox *m, struct err *e)
{
        struct slurp *in = &m->a.in;
        struct str head;

        while (in->n < slurp_block && !in->eof)
                if (!slurp_more(in, 0, e))
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

/* Maildir letters from Status and X-Status, in their order. */
struct status { bool answered, draft, flagged, seen, deleted; };

static void read_status(struct status *st, struct str name, struct str value)
{
        bool x = str_eq_nocase(name, STR("X-Status"));

        if (!x && !str_eq_nocase(name, STR("Status")))
                return;
        for (size_t i = 0; i < value.n; i++)
                switch (value.p[i]) {
                case 'R': st->seen |= !x; break;
                case 'A': st->answered |= x; break;
                case 'F': st->flagged |= x; break;
                case 'T': st->draft |= x; break;
                case 'D': st->deleted |= x; break;
                }
}

static struct str flags_of(struct str header, char out[8])
{
        struct status st = { 0 };
        size_t n = 0;

        while (header.n > 0) {
                struct str value = str_take_line(&header), name;

                if (value.n == 0)
                        break;
                if (*value.p != 'S' && *value.p != 'X' && *value.p != 's' && *value.p != 'x')
                        continue;
                name = str_take(&value, ':');
                read_status(&st, name, value);
        }
        if (st.draft)
                out[n++] = 'D';
        if (st.flagged)
                out[n++] = 'F';
        if (st.answered)
                out[n++] = 'R';
        if (st.seen)
                out[n++] = 'S';
        if (st.deleted)
                out[n++] = 'T';
        return str_make(out, n);
}

/* The header of a large message is read once more, as far as its Status fields can be expected. */
static bool find_flags(struct range r, char out[8], struct str *flags, struct err *e)
{
        struct str head;
        ssize_t got = 0;
        char *p;

        if (range_in_memory(r, &head)) {
                *flags = flags_of(head, out);
                return true;
        }
        if (!(p = mem_alloc(STATUS_MAX)))
                return err_nomem(e);
        got = range_read(r, 0, p, STATUS_MAX, e);
        if (got >= 0)
                *flags = flags_of(str_make(p, (size_t)got), out);
        mem_free(p);
        return got >= 0;
}

static bool finish_message(struct mbox *m, struct message **out, struct err *e)
{
        const struct slurp *in = &m->a.in;
        char flags[8], uid[24];
        struct origin o = { .source = m->a.base.name, .folder = STR(""), .offset = m->offset, .time = m->time };
        struct range r;

        if (!gather_end(&m->a.gather, &r, e))
                return false;
        if (!find_flags(r, flags, &o.flags, e)) {
                backing_unref(r.in);
                return false;
        }
        snprintf(uid, sizeof uid, "%llu", (unsigned long long)m->offset);
        o.uid = str_of(uid);
        o.envelope_from = str_make(m->sender, m->sender_n);
        o.suspect = m->ended && (in->cut || (in->n > 0 && in->p[in->n - 1] != '\n'));
        return archive_give(&m->a, r, &o, out, e);
}

static void tell_doubts(const struct mbox *m)
{
        if (m->doubtful > 0)
                log_warn("%.*s: %llu messages; %llu more lines begin with \"From \" but have no empty line before them or no date, "
                         "and were taken as text", STR_FMT(m->a.base.name), (unsigned long long)m->a.number,
                         (unsigned long long)m->doubtful);
}

static bool next_message(struct mbox *m, struct message **out, struct err *e)
{
        struct slurp *in = &m->a.in;

        if (!m->started && !m->ended && !start(m, e))
                return false;
        if (m->ended)
                return true;
        take_fromline(m);
        gather_begin(&m->a.gather, in->base + m->at);
        if (!read_body(m, e))
                return false;
        if (!m->ended)
                m->at = m->scan; /* past the empty line */
        if (!finish_message(m, out, e))
                return false;
        atomic_store(&m->a.base.done_bytes, in->base + (m->ended ? in->n : m->at));
        if (m->ended)
                tell_doubts(m);
        return true;
}

static bool mbox_next(struct source *s, struct message **out, struct err *e)
{
        struct mbox *m = (struct mbox *)s;

        *out = NULL;
        if (archive_stopped(&m->a) || next_message(m, out, e))
                return true;
        m->ended = true; /* what comes behind a failure has lost its place */
        return e->code == ERR_STOPPED || err_in(e, "%.*s", STR_FMT(s->name));
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
