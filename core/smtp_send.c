/* One mail: MAIL, RCPT, DATA. What is known of each recipient is written down as soon as it is known, since the connection may end anywhere. */
#include "core/smtp_int.h"

#include <stdio.h>

#include "core/addr.h"
#include "core/dot.h"
#include "core/mem.h"

enum {
        BLOCK = 16 << 10,
        TEXT_LINE_MAX = 998, /* RFC 5321 4.5.3.1.6, without CRLF */
        STOP_PATIENCE = 5,   /* silences of 3 s after the final dot that a stop waits for, rather than leave it in doubt who has the mail */
};

struct sending {
        struct smtp *s;
        struct str sender;
        struct smtp_recipient *to;
        size_t n;
        struct range mail;
        struct arena *a;
        struct err *e;
        bool *taken;           /* by RCPT, of each recipient */
        size_t taken_n;
        bool eight_bit, utf8;  /* the mail's bytes; an address */
        uint64_t size;         /* on the wire, without stuffing and the final dot: RFC 1870 */
        char *in, *out;        /* a block, and it stuffed */
};

/* ---- before anything is said ---- */

static bool is_ascii(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] >= 0x80)
                        return false;
        return true;
}

static bool address_fits(struct sending *w, struct str address, struct err *e)
{
        if (!addr_check(address, e))
                return false;
        if (is_ascii(address))
                return true;
        if (!w->s->can.utf8)
                return err_set(e, ERR_REFUSED, "%.*s is not ASCII, and the server has no SMTPUTF8", STR_FMT(address));
        w->utf8 = true;
        return true;
}

static void settle(struct sending *w, size_t i, int result, struct str answer)
{
        w->to[i].result = result;
        w->to[i].answer = arena_str(w->a, answer);
        if (!w->to[i].answer.p) /* a yes must stay a yes, and a no a no, also without memory for its words */
                w->to[i].answer = result == SMTP_ACCEPTED ? STR("250") : STR("no memory for the answer");
}

static bool envelope_fits(struct sending *w)
{
        struct err why;

        if (w->sender.n && !address_fits(w, w->sender, &why))
                return err_set(w->e, ERR_REFUSED, "the sender: %s", why.text);
        for (size_t i = 0; i < w->n; i++)
                if (!address_fits(w, w->to[i].address, &why))
                        settle(w, i, SMTP_REFUSED, str_of(why.text));
        return true;
}

struct look {
        uint64_t size;
        size_t column;
        bool cr, eight_bit, nul, long_line;
};

/* Counts as dot_stuff will send: CR, LF and CRLF are one line end each. */
static void look_at(struct look *l, const char *p, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                bool end = p[i] == '\r' || p[i] == '\n', second = p[i] == '\n' && l->cr;

                l->size += second ? 0 : end ? 2 : 1;
                l->column = end ? 0 : l->column + 1;
                l->long_line |= l->column > TEXT_LINE_MAX;
                l->eight_bit |= (unsigned char)p[i] >= 0x80;
                l->nul |= p[i] == 0;
                l->cr = p[i] == '\r';
        }
}

static bool mail_fits(struct sending *w)
{
        struct look l = { 0 };
        ssize_t n;

        for (uint64_t at = 0; at < w->mail.n; at += (uint64_t)n) {
                n = range_read(w->mail, at, w->in, BLOCK, w->e);
                if (n <= 0)
                        return n < 0 ? false : err_set(w->e, ERR_IO, "the mail ends before its end");
                look_at(&l, w->in, (size_t)n);
        }
        w->eight_bit = l.eight_bit;
        w->size = l.size + (l.column ? 2 : 0);
        if (l.nul)
                return err_set(w->e, ERR_REFUSED, "the mail holds a NUL byte, which SMTP cannot carry");
        if (l.long_line)
                return err_set(w->e, ERR_REFUSED, "the mail holds a line of more than %d bytes, which SMTP cannot carry", TEXT_LINE_MAX);
        if (l.eight_bit && !w->s->can.eight_bit)
                return err_set(w->e, ERR_REFUSED, "the mail has 8-bit bytes, and the server has no 8BITMIME");
        if (w->s->can.size && w->size > w->s->can.size)
                return err_set(w->e, ERR_REFUSED, "the mail has %llu bytes, and the server takes at most %llu", (unsigned long long)w->size,
                               (unsigned long long)w->s->can.size);
        return true;
}

/* A server says goodbye to an idle session unasked; a mail sent after that would be lost in doubt. */
static bool is_quiet(struct sending *w)
{
        struct str have = STR_NONE;

        if (lines_poll(w->s->l, &have, w->e) && have.n == 0)
                return true;
        if (have.n && smtp_hear(w->s, WAIT_COMMAND, NULL, w->e))
                err_set(w->e, w->s->over ? ERR_NET : ERR_PROTO, "the server said unasked \"%.*s\"", STR_FMT(buf_str(&w->s->text)));
        w->s->over = true;
        return false;
}

/* ---- the envelope ---- */

static bool say_mail(struct sending *w)
{
        char size[40] = "";

        if (w->s->can.has_size)
                snprintf(size, sizeof size, " SIZE=%llu", (unsigned long long)w->size);
        return smtp_say(w->s, w->e, "MAIL FROM:<%.*s>%s%s%s", STR_FMT(w->sender), size,
                        w->s->can.eight_bit && (w->eight_bit || w->utf8) ? " BODY=8BITMIME" : "", w->utf8 ? " SMTPUTF8" : "");
}

static bool say_rcpt(struct sending *w, size_t i)
{
        return smtp_say(w->s, w->e, "RCPT TO:<%.*s>", STR_FMT(w->to[i].address));
}

static bool is_open(const struct sending *w, size_t i) { return w->to[i].result == SMTP_OPEN; }

/* The last reply decides for recipient i. */
static void refuse(struct sending *w, size_t i, bool later)
{
        settle(w, i, later ? SMTP_LATER : SMTP_REFUSED, buf_str(&w->s->text));
}

/* MAIL, DATA or the final dot was answered with no: all that are still open (only_taken: and were taken by RCPT). */
static void refuse_open(struct sending *w, bool only_taken)
{
        for (size_t i = 0; i < w->n; i++)
                if (is_open(w, i) && (!only_taken || w->taken[i]))
                        refuse(w, i, smtp_class(w->s) == 4);
}

/* A reply that is neither yes nor no, or a 421, ends the session. */
static bool in_step(struct sending *w, const char *to)
{
        if (w->s->code == 421 || smtp_class(w->s) == 3)
                return smtp_said_no(w->s, ERR_REFUSED, w->e, to);
        return true;
}

static bool hear_rcpt(struct sending *w, size_t i, bool counts)
{
        struct smtp *s = w->s;

        if (!smtp_hear(s, WAIT_COMMAND, NULL, w->e))
                return false;
        if (counts && smtp_class(s) == 2) {
                w->taken[i] = true;
                w->taken_n++;
        } else if (counts && smtp_class(s) != 3) {
                /* RFC 5321 4.5.3.1.10: "treat a 552 code in this case as a temporary, rather than permanent, failure" */
                refuse(w, i, smtp_class(s) == 4 || s->code == 552);
        }
        return in_step(w, "RCPT");
}

static bool hear_mail(struct sending *w, bool *ok)
{
        if (!smtp_hear(w->s, WAIT_COMMAND, NULL, w->e))
                return false;
        *ok = smtp_class(w->s) == 2;
        if (*ok)
                w->s->reset_due = true;
        else if (smtp_class(w->s) >= 4)
                refuse_open(w, false);
        return in_step(w, "MAIL");
}

/* *go: the server waits for the mail. RFC 2920 3.1: "If none of the RCPT TO commands were accepted, and the DATA command is accepted, the
 * client should send a single dot." */
static bool hear_data(struct sending *w, bool *go)
{
        struct smtp *s = w->s;

        if (!smtp_hear(s, WAIT_DATA, NULL, w->e))
                return false;
        *go = s->code == 354 && w->taken_n > 0;
        if (*go)
                return true;
        if (s->code == 354)
                return smtp_say(s, w->e, ".") && smtp_hear(s, WAIT_DOT, NULL, w->e);
        if (smtp_class(s) < 4)
                return smtp_said_no(s, ERR_REFUSED, w->e, "DATA");
        refuse_open(w, true);
        return in_step(w, "DATA");
}

static bool say_reset(struct sending *w)
{
        return !w->s->reset_due || smtp_say(w->s, w->e, "RSET");
}

static bool hear_reset(struct sending *w)
{
        bool due = w->s->reset_due;

        w->s->reset_due = false;
        return !due || (smtp_hear(w->s, WAIT_COMMAND, NULL, w->e) && in_step(w, "RSET"));
}

static bool envelope_at_once(struct sending *w, bool *go)
{
        bool *asked = arena_alloc(w->a, w->n + 1), mail_ok;

        if (!asked)
                return err_nomem(w->e);
        if (!say_reset(w) || !say_mail(w))
                return false;
        for (size_t i = 0; i < w->n; i++)
                if ((asked[i] = is_open(w, i)) && !say_rcpt(w, i))
                        return false;
        if (!smtp_say(w->s, w->e, "DATA") || !hear_reset(w) || !hear_mail(w, &mail_ok))
                return false;
        for (size_t i = 0; i < w->n; i++)
                if (asked[i] && !hear_rcpt(w, i, mail_ok))
                        return false;
        return hear_data(w, go);
}

static bool envelope_in_turn(struct sending *w, bool *go)
{
        bool ok;

        if (!say_reset(w) || !hear_reset(w) || !say_mail(w) || !hear_mail(w, &ok))
                return false;
        for (size_t i = 0; i < w->n && ok; i++)
                if (is_open(w, i) && !(say_rcpt(w, i) && hear_rcpt(w, i, true)))
                        return false;
        if (w->taken_n == 0)
                return true;
        return smtp_say(w->s, w->e, "DATA") && hear_data(w, go);
}

/* ---- the mail ---- */

/* A server that refuses in the middle of the mail says so and closes: what it said counts, when it is a no. */
static bool last_words(struct sending *w)
{
        struct err ignored;

        if (!smtp_hear(w->s, WAIT_QUIT, NULL, &ignored) || smtp_class(w->s) < 4)
                return false;
        refuse_open(w, true);
        return true;
}

/* One block of the mail, stuffed and queued. Bytes taken, -1 on failure. */
static ssize_t send_block(struct sending *w, struct stuff *stuff, uint64_t at)
{
        ssize_t n = smtp_goes_on(w->s, w->e) ? range_read(w->mail, at, w->in, BLOCK, w->e) : -1;
        size_t wire;

        if (n == 0)
                err_set(w->e, ERR_IO, "the mail ends before its end");
        if (n <= 0)
                return -1;
        wire = dot_stuff(stuff, str_make(w->in, (size_t)n), w->out);
        if (lines_write(w->s->l, str_make(w->out, wire), w->e))
                return n;
        if (w->e->code == ERR_NET)
                (void)last_words(w);
        return -1;
}

static void leave_in_doubt(struct sending *w)
{
        struct str why = arena_printf(w->a, "unknown: the mail was sent, and the connection lost before the answer: %s", w->e->text);

        for (size_t i = 0; i < w->n; i++)
                if (is_open(w, i) && w->taken[i])
                        settle(w, i, SMTP_UNKNOWN, why);
}

static bool hear_end(struct sending *w)
{
        for (int i = 1; !smtp_hear(w->s, WAIT_DOT, NULL, w->e); i++) {
                if (w->e->code != ERR_STOPPED || i == STOP_PATIENCE)
                        return false;
                w->s->over = false;
        }
        return true;
}

/* From here on the server may have the mail without our hearing of it. */
static bool hear_dot(struct sending *w)
{
        struct smtp *s = w->s;

        if (!lines_flush(s->l, w->e)) {
                if (w->e->code == ERR_NET && last_words(w))
                        return false;
                leave_in_doubt(w);
                return false;
        }
        if (!hear_end(w) ||
            (smtp_class(s) == 3 && !smtp_said_no(s, ERR_REFUSED, w->e, "the end of the mail"))) {
                leave_in_doubt(w);
                return false;
        }
        if (smtp_class(s) != 2) {
                refuse_open(w, true);
                return true;
        }
        for (size_t i = 0; i < w->n; i++)
                if (is_open(w, i) && w->taken[i])
                        settle(w, i, SMTP_ACCEPTED, buf_str(&s->text));
        return true;
}

static bool transmit(struct sending *w)
{
        struct stuff stuff = { 0 };
        ssize_t n;
        bool ok;

        lines_set_idle(w->s->l, w->s->h->timeout_ms > 0 ? w->s->h->timeout_ms : WAIT_BLOCK);
        w->s->over = true; /* until the mail has ended: leaving it half sent is done by closing */
        for (uint64_t at = 0; at < w->mail.n; at += (uint64_t)n)
                if ((n = send_block(w, &stuff, at)) < 0)
                        return false;
        /* The dot is written alone, so that a failure before it leaves no doubt. */
        if (!lines_flush(w->s->l, w->e)) {
                if (w->e->code == ERR_NET)
                        (void)last_words(w);
                return false;
        }
        if (!lines_write(w->s->l, str_make(w->out, dot_stuff_end(&stuff, w->out)), w->e))
                return false;
        w->s->over = false;
        ok = hear_dot(w);
        w->s->over |= !ok;
        w->s->reset_due = !ok;
        return ok;
}

/* ---- all of it ---- */

static bool refused_here(struct sending *w)
{
        if (w->e->code == ERR_REFUSED)
                for (size_t i = 0; i < w->n; i++)
                        if (is_open(w, i))
                                settle(w, i, SMTP_REFUSED, str_of(w->e->text));
        return false;
}

static size_t open_n(const struct sending *w)
{
        size_t n = 0;

        for (size_t i = 0; i < w->n; i++)
                n += is_open(w, i);
        return n;
}

static bool carry_out(struct sending *w)
{
        bool go = false;

        if (!envelope_fits(w) || !mail_fits(w))
                return refused_here(w);
        if (open_n(w) == 0)
                return true;
        if (!is_quiet(w) || !(w->s->can.pipelining ? envelope_at_once(w, &go) : envelope_in_turn(w, &go))) {
                w->s->over = true;
                return false;
        }
        return !go || transmit(w);
}

bool smtp_send(struct smtp *s, struct str sender, struct smtp_recipient *to, size_t n, struct range mail, struct arena *a, struct err *e)
{
        struct err unseen;
        struct sending w = { .s = s, .sender = sender, .to = to, .n = n, .mail = mail, .a = a, .e = e ? e : &unseen };
        bool ok;

        for (size_t i = 0; i < n; i++)
                to[i].result = SMTP_OPEN, to[i].answer = STR_NONE;
        if (s->over)
                return err_set(w.e, ERR_NET, "the session is over");
        w.taken = arena_alloc(a, n + 1);
        w.in = mem_alloc(BLOCK);
        w.out = mem_alloc(3 * BLOCK + 8);
        ok = w.taken && w.in && w.out ? carry_out(&w) : err_nomem(w.e);
        mem_free(w.in);
        mem_free(w.out);
        return ok;
}
