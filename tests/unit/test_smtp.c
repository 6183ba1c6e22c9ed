#include "tests/unit/smtp_peer.h"

#include "tests/unit/test.h"

#include "core/log.h"

static struct err e;
static struct arena *a;

static struct range bytes_of(struct str s)
{
        char *p = mem_dup(s.p ? s.p : "", s.n);
        struct backing *b = p ? backing_memory(p, s.n) : NULL;

        if (!b)
                abort();
        return (struct range){ b, 0, s.n };
}

static struct smarthost host_of(const struct peer *p)
{
        return (struct smarthost){ .name = STR("default"), .host = STR("127.0.0.1"), .port = p->port, .tls = TLS_NONE, .helo = STR("me.example"),
                                   .timeout_ms = 5000 };
}

struct sent {
        bool connected, ok, usable;
        struct smtp_recipient to[4];
        struct err e;
};

/* One mail to n recipients a@x.org, b@x.org … over a new session. */
static struct sent send_to(struct peer *p, const struct smarthost *h, struct str mail, size_t n)
{
        static const char *const who[] = { "a@x.org", "b@x.org", "c@x.org", "d@x.org" };
        struct sent r = { 0 };
        struct range m = bytes_of(mail);
        struct smtp *s;

        if (!a)
                a = arena_new(0);
        for (size_t i = 0; i < n; i++)
                r.to[i].address = str_of(who[i]);
        s = smtp_connect(h, &r.e);
        r.connected = s;
        r.ok = s && smtp_send(s, STR("me@example.com"), r.to, n, m, a, &r.e);
        r.usable = smtp_usable(s);
        smtp_close(s);
        backing_unref(m.in);
        return r;
}

static struct sent over(struct peer *p, struct str mail, size_t n)
{
        struct smarthost h;
        struct sent r = { 0 };

        if (!peer_start(p))
                abort();
        h = host_of(p);
        r = send_to(p, &h, mail, n);
        peer_stop(p);
        return r;
}

#define HELLO STR("Subject: x\n\nhello\n")

TEST(one_mail)
{
        struct peer p = { 0 };
        struct sent r = over(&p, HELLO, 2);

        CHECK(r.ok && r.usable);
        CHECK(r.to[0].result == SMTP_ACCEPTED && r.to[1].result == SMTP_ACCEPTED);
        CHECK_STR(r.to[1].answer, "250 2.0.0 queued as 1");
        CHECK(p.n == 1 && !p.unread);
        CHECK_STR(str_of(p.mail[0].from), "FROM:<me@example.com> SIZE=21");
        CHECK_STR(str_of(p.mail[0].to), "TO:<a@x.org>\nTO:<b@x.org>\n");
        CHECK_STR(buf_str(&p.mail[0].wire), "Subject: x\r\n\r\nhello\r\n");
        CHECK_STR(buf_str(&p.log), "EHLO me.example\nMAIL FROM:<me@example.com> SIZE=21\nRCPT TO:<a@x.org>\nRCPT TO:<b@x.org>\nDATA\nQUIT\n");
        peer_free(&p);
}

TEST(no_extensions)
{
        struct peer p = { .extensions = "" };
        struct sent r = over(&p, HELLO, 3);

        CHECK(r.ok && r.to[2].result == SMTP_ACCEPTED);
        CHECK_STR(str_of(p.mail[0].from), "FROM:<me@example.com>");
        CHECK(peer_count(&p, "RCPT") == 3);
        peer_free(&p);
}

TEST(null_sender_and_several_mails_in_one_session)
{
        struct peer p = { 0 };
        struct smtp_recipient to = { .address = STR("a@x.org") };
        struct range m = bytes_of(HELLO);
        struct smarthost h;
        struct smtp *s;

        NEED(peer_start(&p));
        a = a ? a : arena_new(0);
        h = host_of(&p);
        s = smtp_connect(&h, &e);
        NEED(s);
        for (int i = 0; i < 3; i++)
                CHECK(smtp_send(s, STR_NONE, &to, 1, m, a, &e) && to.result == SMTP_ACCEPTED && smtp_usable(s));
        smtp_close(s);
        peer_stop(&p);
        CHECK(p.n == 3 && p.sessions == 1 && peer_count(&p, "QUIT") == 1 && peer_count(&p, "RSET") == 0);
        CHECK_STR(str_of(p.mail[0].from), "FROM:<> SIZE=21");
        backing_unref(m.in);
        peer_free(&p);
}

/* ---- S01, S02: what arrives ---- */

/* Line ends normalised the slow way. */
static struct str expected(struct str mail, struct buf *out)
{
        for (size_t i = 0; i < mail.n; i++) {
                if (mail.p[i] != '\r' && mail.p[i] != '\n') {
                        if (mail.p[i] == '.' && (out->n == 0 || out->p[out->n - 1] == '\n'))
                                buf_add_char(out, '.');
                        buf_add_char(out, mail.p[i]);
                        continue;
                }
                if (mail.p[i] == '\r' && i + 1 < mail.n && mail.p[i + 1] == '\n')
                        i++;
                buf_add_str(out, STR("\r\n"));
        }
        if (out->n && out->p[out->n - 1] != '\n')
                buf_add_str(out, STR("\r\n"));
        return buf_str(out);
}

static bool only_crlf(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((s.p[i] == '\n' && (i == 0 || s.p[i - 1] != '\r')) || (s.p[i] == '\r' && (i + 1 == s.n || s.p[i + 1] != '\n')))
                        return false;
        return true;
}

static void arrives(struct str mail, const char *what)
{
        struct peer p = { 0 };
        struct buf want = BUF_INIT;
        struct sent r = over(&p, mail, 1);
        bool good = r.ok && r.to[0].result == SMTP_ACCEPTED && p.n == 1 && !p.unread && only_crlf(buf_str(&p.mail[0].wire)) &&
                    str_eq(buf_str(&p.mail[0].wire), expected(mail, &want));

        if (!good)
                printf("%s: %s (%zu bytes arrived, %zu expected, %u mails)\n", what, r.e.text, p.mail[0].wire.n, want.n, p.n), test_bad++;
        buf_free(&want);
        peer_free(&p);
}

TEST(S01_nine_sequences)
{
        static const char *const ends[] = { "\r", "\n", "\r\n" };
        static const size_t places[] = { 0, 100, 4090, 4096, 16379, 16380, 16381, 16382, 16383, 16384, 32766 };

        for (size_t i = 0; i < 9; i++)
                for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
                        struct buf b = BUF_INIT;
                        char what[64];

                        while (b.n < places[k])
                                buf_add_char(&b, b.n % 70 == 69 && b.n + 1 < places[k] ? '\n' : 'x');
                        buf_printf(&b, "%s.%sMAIL FROM:<evil@x>%s.%s", ends[i / 3], ends[i % 3], ends[i / 3], ends[i % 3]);
                        snprintf(what, sizeof what, "sequence %zu at %zu", i, places[k]);
                        arrives(buf_str(&b), what);
                        buf_add_str(&b, STR("tail"));
                        arrives(buf_str(&b), what);
                        buf_free(&b);
                }
}

TEST(S02_dots_and_ends)
{
        static const char *const mails[] = { "", ".", "..", "\n", "\n.", "\n.\n", ".\n", ".\n.\n.\n", ".header: x\n\nbody", "a: b\n\n.\n..\n...\nno end",
                                             "a: b\n\n\n\n\n", "\r", "\r\n", "\n\r" };

        for (size_t i = 0; i < sizeof mails / sizeof *mails; i++)
                arrives(str_of(mails[i]), mails[i]);
}

/* ---- S03, S04: envelopes ---- */

TEST(S03_S04_bad_addresses)
{
        static const char bad[][20] = { "-oQ/tmp", "a b@c.org", "<a>@b.org", "a@b.org\r\nDATA", "a@b.org>", "a\n@b.org", "", "\xc3\xa9@x.org", "a@\x01.org" };
        char longest[401];
        struct peer p = { 0 };
        struct range m = bytes_of(HELLO);
        struct smarthost h;
        struct smtp *s;

        NEED(peer_start(&p));
        a = a ? a : arena_new(0);
        h = host_of(&p);
        s = smtp_connect(&h, &e);
        NEED(s);
        memset(longest, 'a', 400);
        memcpy(longest + 390, "@x.org", 7);
        for (size_t i = 0; i <= sizeof bad / sizeof *bad; i++) {
                struct str who = i < sizeof bad / sizeof *bad ? str_of(bad[i]) : str_of(longest);
                struct smtp_recipient to = { .address = who };

                CHECK(smtp_send(s, STR("me@example.com"), &to, 1, m, a, &e) && to.result == SMTP_REFUSED && to.answer.n > 0);
                to.address = STR("a@x.org");
                if (who.n)
                        CHECK(!smtp_send(s, who, &to, 1, m, a, &e) && e.code == ERR_REFUSED && to.result == SMTP_REFUSED);
        }
        CHECK(!smtp_send(s, str_make("a\0@x.org", 8), &(struct smtp_recipient){ .address = STR("a@x.org") }, 1, m, a, &e));
        CHECK(smtp_usable(s));
        { /* the good one among bad ones is served */
                struct smtp_recipient to[2] = { { .address = STR("<a>@b") }, { .address = STR("ok@x.org") } };
                CHECK(smtp_send(s, STR("me@example.com"), to, 2, m, a, &e) && to[0].result == SMTP_REFUSED && to[1].result == SMTP_ACCEPTED);
        }
        smtp_close(s);
        peer_stop(&p);
        CHECK(peer_count(&p, "MAIL") == 1 && peer_count(&p, "RCPT") == 1);
        backing_unref(m.in);
        peer_free(&p);
}

TEST(S03_bad_helo)
{
        static const char *const bad[] = { "x\r\nMAIL FROM:<>", "a b", "\xc3\xa9", "<x>" };

        for (size_t i = 0; i < 4; i++) {
                struct peer p = { 0 };
                struct smarthost h;
                struct sent r;

                NEED(peer_start(&p));
                h = host_of(&p);
                h.helo = str_of(bad[i]);
                r = send_to(&p, &h, HELLO, 1);
                peer_stop(&p);
                CHECK(!r.connected && r.e.code == ERR_USAGE && peer_count(&p, "MAIL") == 0);
                peer_free(&p);
        }
}

TEST(S04_smtputf8)
{
        struct peer p = { .extensions = "250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n" };
        struct smtp_recipient to = { .address = STR("\xc3\xa9@x.org") };
        struct range m = bytes_of(HELLO);
        struct smarthost h;
        struct smtp *s;

        NEED(peer_start(&p));
        a = a ? a : arena_new(0);
        h = host_of(&p);
        s = smtp_connect(&h, &e);
        NEED(s);
        CHECK(smtp_send(s, STR("me@example.com"), &to, 1, m, a, &e) && to.result == SMTP_ACCEPTED);
        smtp_close(s);
        peer_stop(&p);
        CHECK_STR(str_of(p.mail[0].from), "FROM:<me@example.com> BODY=8BITMIME SMTPUTF8");
        backing_unref(m.in);
        peer_free(&p);
}

/* ---- S05: what SMTP cannot carry ---- */

static void refused(struct str mail, const char *extensions, const char *why)
{
        struct peer p = { .extensions = extensions };
        struct sent r = over(&p, mail, 2);

        CHECK(!r.ok && r.e.code == ERR_REFUSED && r.usable && strstr(r.e.text, why));
        CHECK(r.to[0].result == SMTP_REFUSED && r.to[1].result == SMTP_REFUSED && r.to[0].answer.n > 0);
        CHECK(peer_count(&p, "MAIL") == 0 && peer_count(&p, "QUIT") == 1);
        peer_free(&p);
}

TEST(S05_refused_before_data)
{
        struct buf b = BUF_INIT;

        refused(STR("a: b\n\nna\xc3\xafve\n"), "250-PIPELINING\r\n", "8BITMIME");
        refused(str_make("a: b\n\nx\0y\n", 10), NULL, "NUL");
        for (int i = 0; i < 998; i++)
                buf_add_char(&b, 'x');
        arrives(buf_str(&b), "998 bytes");
        buf_add_char(&b, 'x');
        refused(buf_str(&b), NULL, "998");
        buf_add_char(&b, '\n');
        refused(buf_str(&b), NULL, "998");
        refused(STR("12345678\n"), "250-SIZE 9\r\n", "at most 9");
        buf_free(&b);
        { /* the same with what it takes */
                struct peer p = { 0 }, q = { .extensions = "250-SIZE 10\r\n" };
                struct sent r = over(&p, STR("a: b\n\nna\xc3\xafve\n"), 1), o = over(&q, STR("12345678\n"), 1);

                CHECK(r.ok && strstr(p.mail[0].from, "BODY=8BITMIME") && o.ok && q.n == 1);
                peer_free(&p);
                peer_free(&q);
        }
}

/* ---- S06: replies ---- */

static const char *reply_text;
static const char *reply_to;
static int say_text(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, reply_to) != 0)
                return 0;
        if (strcmp(reply_text, "endless") == 0) {
                while (peer_flush(p) && p->out.n == 0)
                        for (int i = 0; i < 100; i++)
                                peer_say(p, "250-more\r\n");
                return CUT;
        }
        if (strcmp(reply_text, "1 MB") == 0) {
                for (int i = 0; i < 1 << 20; i++)
                        buf_add_char(&p->out, 'x');
                return CUT;
        }
        peer_say(p, "%s", reply_text);
        p->begun |= strcmp(verb, "MAIL") == 0;
        return 1;
}

TEST(S06_replies_out_of_order)
{
        static const char *const texts[] = { "endless", "999 x\r\n", "25\r\n", "2500 x\r\n", "-250 x\r\n", "hello\r\n", "1 MB", "250 \x1b[2J\r\n", "\r\n",
                                             "150 x\r\n", "250?x\r\n", "+OK\r\n" };
        static const char *const at[] = { "greeting", "EHLO", "MAIL", "RCPT", "DATA", "." };

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
                for (size_t k = 0; k < sizeof at / sizeof *at; k++) {
                        struct peer p = { .odd = say_text };
                        struct sent r;

                        reply_text = texts[i], reply_to = at[k];
                        r = over(&p, HELLO, 1);
                        if (r.ok || r.usable || (r.e.code != ERR_PROTO && r.e.code != ERR_NET) || r.to[0].result == SMTP_ACCEPTED ||
                            r.to[0].result == SMTP_REFUSED)
                                printf("%s to %s: %d %s\n", texts[i], at[k], r.e.code, r.e.text), test_bad++;
                        CHECK(r.to[0].result == (k == 5 ? SMTP_UNKNOWN : SMTP_OPEN));
                        CHECK(!strchr(r.e.text, '\x1b'));
                        peer_free(&p);
                }
}

TEST(S06_lenient_replies)
{
        static const char *const texts[] = { "250\r\n", "250 \r\n", "250-a\r\n250-b\r\n250 c\r\n", "250 bare\n", "251 will forward\r\n", "250-\r\n250\r\n" };

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                struct peer p = { .odd = say_text };
                struct sent r;

                reply_text = texts[i], reply_to = i % 2 ? "." : "MAIL";
                r = over(&p, HELLO, 1);
                CHECK(r.ok && r.to[0].result == SMTP_ACCEPTED);
                if (i == 1)
                        CHECK_STR(r.to[0].answer, "250");
                peer_free(&p);
        }
        reply_text = "250-a\r\n250-b\r\n250 c\r\n", reply_to = ".";
        {
                struct peer p = { .odd = say_text };
                struct sent r = over(&p, HELLO, 1);

                CHECK_STR(r.to[0].answer, "250 a b c");
                peer_free(&p);
        }
}

/* ---- S07: a drop at every stage ---- */

TEST(S07_drop_at_every_stage)
{
        for (int pipelining = 0; pipelining < 2; pipelining++)
                for (int k = 1;; k++) { /* greeting EHLO MAIL RCPT RCPT DATA . */
                        struct peer p = { .cut_at = k, .extensions = pipelining ? NULL : "250-8BITMIME\r\n" };
                        struct sent r = over(&p, HELLO, 2);

                        peer_free(&p);
                        if (k == 8) { /* QUIT: nobody minds */
                                CHECK(r.ok && r.to[0].result == SMTP_ACCEPTED && r.to[1].result == SMTP_ACCEPTED);
                                break;
                        }
                        CHECK(!r.ok && !r.usable && r.e.code == ERR_NET);
                        CHECK(r.connected == (k > 2));
                        CHECK(r.to[0].result == (k == 7 ? SMTP_UNKNOWN : SMTP_OPEN) && r.to[1].result == r.to[0].result);
                        CHECK(k != 7 || str_starts(r.to[0].answer, STR("unknown")));
                }
}

static int cut_in_mail(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, "DATA") != 0)
                return 0;
        peer_say(p, "354 go\r\n");
        peer_more(p);
        if (p->count == 1)
                peer_say(p, "552 5.3.4 enough\r\n");
        if (p->count == 2)
                peer_say(p, "421 4.3.2 shutting down\r\n");
        return CUT;
}

TEST(S08_cut_inside_the_mail)
{
        struct buf b = BUF_INIT;

        while (b.n < 8 << 20) /* more than two socket buffers hold: the final dot must never be sent */
                buf_add_str(&b, STR("a line that fills the space between here and the end of the mail\n"));
        for (int i = 0; i < 3; i++) {
                struct peer p = { .odd = cut_in_mail, .count = i, .extensions = "250-PIPELINING\r\n250-8BITMIME\r\n" };
                struct sent r = over(&p, buf_str(&b), 2);

                /* A refusal that was heard ends the transaction; else it is the connection that failed. */
                CHECK(!r.ok ? !r.usable && r.e.code == ERR_NET : i > 0 && r.to[0].result == (i == 1 ? SMTP_REFUSED : SMTP_LATER));
                /* The words may be lost with the connection; never is it a yes, and never unknown. */
                CHECK(r.to[0].result == SMTP_OPEN || r.to[0].result == (i == 1 ? SMTP_REFUSED : i == 2 ? SMTP_LATER : SMTP_OPEN));
                peer_free(&p);
        }
        buf_free(&b);
}

/* ---- S08: each recipient ---- */

static const char *rcpt_answers[4];
static const char *mail_answer, *data_answer, *dot_answer;
static int answers(struct peer *p, const char *verb, const char *arg)
{
        const char *said = NULL;

        if (strcmp(verb, "RCPT") == 0)
                said = rcpt_answers[arg[4] - 'a'];
        else if (strcmp(verb, "MAIL") == 0)
                said = mail_answer, p->taken = p->begun = false;
        else if (strcmp(verb, "DATA") == 0)
                said = data_answer;
        else if (strcmp(verb, ".") == 0)
                said = dot_answer;
        if (!said)
                return 0;
        peer_say(p, "%s\r\n", said);
        if (strncmp(said, "354", 3) == 0)
                return peer_mail_ends(p);
        return strncmp(said, "421", 3) == 0 ? CUT : 1;
}

static void set_answers(const char *mail, const char *r0, const char *r1, const char *r2, const char *data, const char *dot)
{
        mail_answer = mail, data_answer = data, dot_answer = dot;
        rcpt_answers[0] = r0, rcpt_answers[1] = r1, rcpt_answers[2] = r2;
}

TEST(S08_mixed_recipients)
{
        for (int pipelining = 0; pipelining < 2; pipelining++) {
                const char *ext = pipelining ? NULL : "";
                struct peer p = { .odd = answers, .extensions = ext };
                struct sent r;

                set_answers(NULL, "550 5.1.1 nobody", NULL, "451 4.3.0 later", NULL, NULL);
                r = over(&p, HELLO, 4);
                CHECK(r.ok && r.usable && p.n == 1);
                CHECK(r.to[0].result == SMTP_REFUSED && r.to[1].result == SMTP_ACCEPTED && r.to[2].result == SMTP_LATER &&
                      r.to[3].result == SMTP_ACCEPTED);
                CHECK_STR(r.to[0].answer, "550 5.1.1 nobody");
                CHECK_STR(r.to[2].answer, "451 4.3.0 later");
                peer_free(&p);

                memset(&p, 0, sizeof p), p.odd = answers, p.extensions = ext;
                set_answers(NULL, "552 too many recipients", "452 too many", NULL, NULL, NULL);
                r = over(&p, HELLO, 3);
                CHECK(r.ok && r.to[0].result == SMTP_LATER && r.to[1].result == SMTP_LATER && r.to[2].result == SMTP_ACCEPTED);
                peer_free(&p);

                memset(&p, 0, sizeof p), p.odd = answers, p.extensions = ext;
                set_answers("550 not from you", NULL, NULL, NULL, NULL, NULL);
                r = over(&p, HELLO, 2);
                CHECK(r.ok && r.usable && p.n == 0 && r.to[0].result == SMTP_REFUSED && r.to[1].result == SMTP_REFUSED);
                CHECK_STR(r.to[1].answer, "550 not from you");
                peer_free(&p);

                memset(&p, 0, sizeof p), p.odd = answers, p.extensions = ext;
                set_answers(NULL, "550 no", "450 no", NULL, "354 go all the same", NULL);
                r = over(&p, HELLO, 2);
                CHECK(r.ok && r.usable && r.to[0].result == SMTP_REFUSED && r.to[1].result == SMTP_LATER);
                CHECK(p.n == (pipelining ? 1 : 0) && p.mail[0].wire.n == 0 && !p.unread); /* a lone dot */
                CHECK(peer_count(&p, "QUIT") == 1);
                peer_free(&p);

                memset(&p, 0, sizeof p), p.odd = answers, p.extensions = ext;
                set_answers(NULL, NULL, "550 no", NULL, "451 busy", NULL);
                r = over(&p, HELLO, 2);
                CHECK(r.ok && r.usable && r.to[0].result == SMTP_LATER && r.to[1].result == SMTP_REFUSED && p.n == 0);
                peer_free(&p);

                memset(&p, 0, sizeof p), p.odd = answers, p.extensions = ext;
                set_answers(NULL, NULL, "550 no", NULL, NULL, "554 5.6.0 spam");
                r = over(&p, HELLO, 3);
                CHECK(r.ok && r.usable && r.to[0].result == SMTP_REFUSED && r.to[2].result == SMTP_REFUSED);
                CHECK_STR(r.to[0].answer, "554 5.6.0 spam");
                CHECK_STR(r.to[1].answer, "550 no");
                peer_free(&p);
        }
}

TEST(S08_421_anywhere)
{
        for (int pipelining = 0; pipelining < 2; pipelining++)
                for (int k = 0; k < 4; k++) {
                        struct peer p = { .odd = answers, .extensions = pipelining ? NULL : "" };
                        const char *bye = "421 4.3.2 closing";
                        struct sent r;

                        set_answers(k == 0 ? bye : NULL, NULL, k == 1 ? bye : NULL, NULL, k == 2 ? bye : NULL, k == 3 ? bye : NULL);
                        r = over(&p, HELLO, 2);
                        CHECK(!r.usable && r.ok == (k == 3));
                        CHECK(k == 3 || r.e.code == ERR_TEMP || r.e.code == ERR_NET);
                        CHECK(r.to[0].result == (k == 1 ? SMTP_OPEN : SMTP_LATER) && r.to[1].result == SMTP_LATER);
                        peer_free(&p);
                }
}

TEST(a_transaction_left_open_is_reset)
{
        struct peer p = { .odd = answers };
        struct smtp_recipient to = { .address = STR("a@x.org") };
        struct range m = bytes_of(HELLO);
        struct smarthost h;
        struct smtp *s;

        a = a ? a : arena_new(0);
        for (int pipelining = 0; pipelining < 2; pipelining++) {
                memset(&p, 0, sizeof p), p.odd = answers, p.extensions = pipelining ? NULL : "";
                NEED(peer_start(&p));
                h = host_of(&p);
                s = smtp_connect(&h, &e);
                NEED(s);
                set_answers(NULL, "550 no", NULL, NULL, NULL, NULL);
                CHECK(smtp_send(s, STR_NONE, &to, 1, m, a, &e) && to.result == SMTP_REFUSED);
                set_answers(NULL, NULL, NULL, NULL, NULL, NULL);
                CHECK(smtp_send(s, STR_NONE, &to, 1, m, a, &e) && to.result == SMTP_ACCEPTED);
                CHECK(smtp_send(s, STR_NONE, &to, 1, m, a, &e) && to.result == SMTP_ACCEPTED);
                smtp_close(s);
                peer_stop(&p);
                CHECK(p.n == 2 && peer_count(&p, "RSET") == 1);
                peer_free(&p);
        }
        backing_unref(m.in);
}

static int goodbye(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, ".") != 0)
                return 0;
        peer_say(p, "250 ok\r\n421 4.4.2 idle for too long\r\n");
        return 1;
}

TEST(S08_goodbye_between_mails)
{
        struct peer p = { .odd = goodbye };
        struct smtp_recipient to = { .address = STR("a@x.org") };
        struct range m = bytes_of(HELLO);
        struct smarthost h;
        struct smtp *s;

        NEED(peer_start(&p));
        h = host_of(&p);
        s = smtp_connect(&h, &e);
        NEED(s);
        CHECK(smtp_send(s, STR_NONE, &to, 1, m, a, &e) && to.result == SMTP_ACCEPTED);
        sys_sleep_until(sys_mono_ms() + 50);
        CHECK(!smtp_send(s, STR_NONE, &to, 1, m, a, &e) && to.result == SMTP_OPEN && e.code == ERR_NET && !smtp_usable(s));
        CHECK(strstr(e.text, "idle for too long"));
        smtp_close(s);
        peer_stop(&p);
        backing_unref(m.in);
        peer_free(&p);
}

static int stall(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, reply_to) != 0)
                return 0;
        peer_flush(p);
        sys_sleep_until(sys_mono_ms() + 400);
        return CUT;
}

TEST(T5_stall_at_every_stage)
{
        static const char *const at[] = { "greeting", "EHLO", "MAIL", "RCPT", "DATA", "." };

        for (size_t k = 0; k < 6; k++) {
                struct peer p = { .odd = stall };
                struct smarthost h;
                struct sent r;

                reply_to = at[k];
                NEED(peer_start(&p));
                h = host_of(&p);
                h.timeout_ms = 150;
                r = send_to(&p, &h, HELLO, 1);
                peer_stop(&p);
                CHECK(!r.ok && !r.usable && r.e.code == ERR_TIMEOUT);
                CHECK(r.to[0].result == (k == 5 ? SMTP_UNKNOWN : SMTP_OPEN));
                peer_free(&p);
        }
}

/* What the server says, cut after every byte: an open recipient's mail has not been taken, and a yes has been heard to its end. */
static struct sent heard_until(struct peer *p, uint64_t at, size_t step)
{
        struct smarthost h = host_of(p);
        struct smtp_recipient *to;
        struct sent r = { .to = { { .address = STR("a@x.org") }, { .address = STR("b@x.org") } } };
        struct range m = bytes_of(HELLO);
        int fd = net_connect(h.host, h.port, sys_mono_ms() + 5000, NULL, &r.e);
        struct stream *st = fd >= 0 ? stream_fd(fd, &r.e) : NULL;
        struct smtp *s;

        a = a ? a : arena_new(0);
        to = r.to;
        if (step)
                st = stream_drip(st, step, &r.e);
        else
                st = stream_cut(st, at, STREAM_EOF, &r.e);
        s = smtp_new(lines_new(st, 5000, &r.e), &h, &r.e);
        r.connected = s;
        r.ok = s && smtp_send(s, STR("me@example.com"), to, 2, m, a, &r.e);
        smtp_close(s);
        backing_unref(m.in);
        return r;
}

TEST(T5_cut_after_every_byte)
{
        static const char *const ext[] = { "250-PIPELINING\r\n", "" };

        for (int k = 0; k < 2; k++) {
                bool unknown = false, taken = false;

                for (uint64_t at = 0; !taken && at < 1000; at++) {
                        struct peer p = { .extensions = ext[k] };
                        struct sent r;

                        NEED(peer_start(&p));
                        r = heard_until(&p, at, 0);
                        peer_stop(&p);
                        CHECK(r.to[0].result == r.to[1].result);
                        taken = r.to[0].result == SMTP_ACCEPTED;
                        unknown |= r.to[0].result == SMTP_UNKNOWN;
                        CHECK(r.to[0].result == SMTP_OPEN ? p.n == 0 && !unknown : p.n == 1);
                        CHECK(taken == r.ok);
                        peer_free(&p);
                }
                CHECK(taken && unknown);
        }
}

TEST(T5_a_byte_at_a_time)
{
        for (size_t step = 1; step < 4; step++) {
                struct peer p = { 0 };
                struct sent r;

                NEED(peer_start(&p));
                r = heard_until(&p, 0, step);
                peer_stop(&p);
                CHECK(r.ok && r.to[1].result == SMTP_ACCEPTED && p.n == 1);
                CHECK_STR(buf_str(&p.mail[0].wire), "Subject: x\r\n\r\nhello\r\n");
                peer_free(&p);
        }
}

/* ---- EHLO and HELO, AUTH, TLS ---- */

TEST(helo_only_where_nothing_is_needed)
{
        reply_text = "502 what?\r\n", reply_to = "EHLO";
        for (int k = 0; k < 3; k++) {
                struct peer p = { .odd = say_text };
                struct secret *pw = secret_literal(STR("secret"));
                struct smarthost h;
                struct sent r;

                NEED(peer_start(&p));
                h = host_of(&p);
                if (k == 1)
                        h.user = STR("me"), h.password = pw;
                if (k == 2)
                        h.tls = TLS_STARTTLS;
                r = send_to(&p, &h, HELLO, 1);
                peer_stop(&p);
                CHECK(k == 0 ? r.ok && p.n == 1 && peer_count(&p, "HELO") == 1 : !r.connected && r.e.code == ERR_REFUSED);
                CHECK(k == 0 || peer_count(&p, "HELO") == 0);
                secret_unref(pw);
                peer_free(&p);
        }
}

static struct sent as_me(struct peer *p, const char *password, enum tls_mode tls, const char *ca)
{
        struct secret *pw = secret_literal(str_of(password));
        struct smarthost h;
        struct sent r = { 0 };

        if (!pw || !peer_start(p))
                abort();
        h = host_of(p);
        h.user = STR("me"), h.password = pw, h.tls = tls, h.ca_file = str_of(ca);
        r = send_to(p, &h, HELLO, 1);
        peer_stop(p);
        secret_unref(pw);
        return r;
}

TEST(auth_plain)
{
        struct peer p = { .extensions = "250-AUTH LOGIN PLAIN\r\n" };
        struct sent r = as_me(&p, "secret", TLS_NONE, NULL);

        CHECK(r.ok && p.n == 1);
        CHECK(peer_count(&p, "AUTH PLAIN") == 1);
        peer_free(&p);

        memset(&p, 0, sizeof p), p.extensions = "250-AUTH=PLAIN\r\n";
        r = as_me(&p, "wrong", TLS_NONE, NULL);
        CHECK(!r.connected && r.e.code == ERR_AUTH && strstr(r.e.text, "logging in as me") && strstr(r.e.text, "535"));
        CHECK(!strstr(r.e.text, "wrong\n") && peer_count(&p, "AUTH") == 1);
        peer_free(&p);

        memset(&p, 0, sizeof p), p.extensions = "";
        r = as_me(&p, "secret", TLS_NONE, NULL);
        CHECK(!r.connected && r.e.code == ERR_REFUSED && peer_count(&p, "MAIL") == 0);
        peer_free(&p);
}

static int auth_login(struct peer *p, const char *verb, const char *arg)
{
        char user[100], password[100];

        if (strcmp(verb, "AUTH") != 0 || strcmp(arg, "LOGIN") != 0)
                return 0;
        peer_say(p, "334 VXNlcm5hbWU6\r\n");
        if (!peer_line(p, user, sizeof user))
                return CUT;
        peer_say(p, "334 UGFzc3dvcmQ6\r\n");
        if (!peer_line(p, password, sizeof password))
                return CUT;
        peer_say(p, strcmp(user, "bWU=") == 0 && strcmp(password, "c2VjcmV0") == 0 ? "235 ok\r\n" : "535 no\r\n");
        return 1;
}

static struct buf said;
static void sink(void *ctx, enum log_level level, struct str line)
{
        buf_add_str(&said, line);
        buf_add_char(&said, '\n');
}

TEST(T14_the_log_never_has_the_password)
{
        static const char *const ext[] = { "250-AUTH LOGIN\r\n", "250-AUTH PLAIN\r\n" };

        log_set_sink(sink, NULL);
        log_set_level(LOG_DEBUG);
        for (int k = 0; k < 2; k++) {
                struct peer p = { .extensions = ext[k], .odd = auth_login };
                struct sent r = as_me(&p, "secret", TLS_NONE, NULL);

                CHECK(r.ok && p.n == 1);
                CHECK(str_find_str(buf_str(&said), STR("> AUTH ")) < said.n && str_find_str(buf_str(&said), STR("> ***")) < said.n);
                CHECK(str_find_str(buf_str(&said), STR("secret")) == said.n && str_find_str(buf_str(&said), STR("c2VjcmV0")) == said.n &&
                      str_find_str(buf_str(&said), STR("AG1lAHNlY3JldA")) == said.n);
                buf_clear(&said);
                peer_free(&p);
        }
        log_set_level(LOG_WARN);
        log_set_sink(NULL, NULL);
        buf_free(&said);
}

enum { FIRST_WIDTH = 800 };
#define TOKEN "secret4ea1ad31f8f0b6a1c5d2e7f80912a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70"
static int width; /* of what stands before the secret, so that the end of an error's text falls anywhere in it */
static int repeats(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, "334") != 0)
                return 0;
        if (p->count == 0)
                peer_say(p, "535-5.7.8 " TOKEN " is wrong\r\n535 so is %s\r\n", arg);
        else if (p->count == 1)
                peer_say(p, "235-welcome %s\r\n235 " TOKEN "\r\n", arg);
        else if (p->count == 2)
                peer_say(p, "no reply: %s\r\n", arg);
        else
                peer_say(p, "535 %0*d%s%s\r\n", width, 0, p->count == 4 ? TOKEN : "", arg);
        return 1;
}

/* Four bytes of it, at the end of a text that was cut, would be too much already. */
TEST(T14_a_server_that_repeats_the_password)
{
        log_set_sink(sink, NULL);
        log_set_level(LOG_DEBUG);
        for (int k = 0; k < 200; k++) {
                struct peer p = { .extensions = "250-AUTH PLAIN\r\n", .odd = repeats, .count = k < 5 ? k : 3 + k % 2 };
                struct sent r;

                width = FIRST_WIDTH + k;
                r = as_me(&p, TOKEN, TLS_NONE, NULL);
                CHECK(r.connected == (k == 1) && (k == 1 || r.e.code == (k == 2 ? ERR_PROTO : ERR_AUTH)));
                buf_add_str(&said, str_of(r.connected ? "" : r.e.text));
                CHECK(str_find_str(buf_str(&said), STR("secr")) == said.n && str_find_str(buf_str(&said), STR("AG1l")) == said.n);
                buf_clear(&said);
                peer_free(&p);
        }
        log_set_level(LOG_WARN);
        log_set_sink(NULL, NULL);
        buf_free(&said);
}

static int auth_odd(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, "AUTH") == 0 && p->count == 0 && strcmp(arg, "PLAIN") == 0)
                return peer_say(p, "504 5.5.4 not that one\r\n"), 1;
        if (strcmp(verb, "AUTH") == 0 && p->count == 0)
                return peer_say(p, "334 !!!\r\n"), 1;
        if (strcmp(verb, "334") == 0 && p->count == 1)
                return peer_say(p, "454 4.7.0 later\r\n"), 1;
        if (strcmp(verb, "334") == 0 && p->count == 2)
                return peer_say(p, "334 \r\n334 \r\n"), 1;
        return 0;
}

TEST(T12_auth_odd)
{
        struct peer p = { .extensions = "250-AUTH PLAIN LOGIN\r\n", .odd = auth_odd };
        struct sent r = as_me(&p, "secret", TLS_NONE, NULL);

        CHECK(!r.connected && r.e.code == ERR_PROTO && peer_count(&p, "AUTH") == 2); /* LOGIN was tried: no base64 */
        peer_free(&p);
        for (int k = 1; k < 3; k++) {
                memset(&p, 0, sizeof p), p.extensions = "250-AUTH PLAIN LOGIN\r\n", p.odd = auth_odd, p.count = k;
                r = as_me(&p, "secret", TLS_NONE, NULL);
                CHECK(!r.connected && r.e.code == (k == 1 ? ERR_TEMP : ERR_PROTO) && peer_count(&p, "AUTH") == 1);
                peer_free(&p);
        }
}

static char dir[64], cert[100], key[100];

static void remove_dir(void)
{
        unlink(cert);
        unlink(key);
        rmdir(dir);
}

static bool certificate(void)
{
        char command[512];

        if (dir[0])
                return true;
        snprintf(dir, sizeof dir, "/tmp/mailmill-smtp-XXXXXX");
        if (!mkdtemp(dir))
                return false;
        atexit(remove_dir);
        snprintf(cert, sizeof cert, "%s/cert.pem", dir);
        snprintf(key, sizeof key, "%s/key.pem", dir);
        snprintf(command, sizeof command, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %s -out %s "
                 "-days 3650 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 2>/dev/null", key, cert);
        return system(command) == 0;
}

TEST(tls)
{
        NEED(certificate());
        for (int k = 0; k < 3; k++) { /* STARTTLS, implicit, and a certificate nobody vouches for */
                struct peer p = { .extensions = "250-STARTTLS\r\n250-AUTH CRAM-MD5\r\n", .tls_extensions = "250-PIPELINING\r\n250-AUTH PLAIN\r\n",
                                  .implicit = k == 1 };
                struct sent r;

                p.tls = tls_server_new(cert, key, &e);
                NEED(p.tls);
                r = as_me(&p, "secret", k == 1 ? TLS_IMPLICIT : TLS_STARTTLS, k == 2 ? NULL : cert);
                if (k < 2)
                        CHECK(r.ok && p.n == 1 && peer_count(&p, "EHLO") == (k == 0 ? 2 : 1) && peer_count(&p, "AUTH PLAIN") == 1);
                else
                        CHECK(!r.connected && r.e.code == ERR_TLS && peer_count(&p, "AUTH") == 0 && peer_count(&p, "MAIL") == 0);
                tls_server_free(p.tls);
                peer_free(&p);
        }
}

static int injects(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, "STARTTLS") != 0)
                return 0;
        if (p->count == 0)
                peer_say(p, "220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n");
        else
                peer_say(p, p->count == 1 ? "454 4.7.0 not now\r\n" : "502 no\r\n");
        peer_flush(p);
        return 1;
}

TEST(S11_starttls)
{
        static const char *const ext[] = { "250-STARTTLS\r\n250-AUTH PLAIN\r\n", "250-STARTTLS\r\n", "250-STARTTLS\r\n", "250-AUTH PLAIN\r\n" };
        static const enum err_code codes[] = { ERR_PROTO, ERR_TEMP, ERR_TLS, ERR_TLS };

        for (int k = 0; k < 4; k++) {
                struct peer p = { .extensions = ext[k], .odd = injects, .count = k };
                struct sent r = as_me(&p, "secret", TLS_STARTTLS, NULL);

                if (r.connected || r.e.code != codes[k])
                        printf("case %d: %d %s\n", k, r.e.code, r.e.text), test_bad++;
                CHECK(peer_count(&p, "AUTH") == 0 && peer_count(&p, "MAIL") == 0);
                peer_free(&p);
        }
}

/* ---- much of everything ---- */

static atomic_bool stop, client_gone;
static int takes_nothing(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, "DATA") != 0)
                return 0;
        peer_say(p, "354 go\r\n");
        peer_flush(p);
        usleep(700000); /* until what is between us is full */
        atomic_store(&stop, true);
        while (!atomic_load(&client_gone))
                usleep(10000);
        return CUT;
}

TEST(stop_while_the_server_takes_nothing)
{
        struct peer p = { .odd = takes_nothing, .extensions = "" };
        size_t n = 32 << 20;
        char *mail = mem_alloc(n);
        int64_t begun = sys_mono_ms();
        struct smarthost h;
        struct sent r;

        NEED(mail && peer_start(&p));
        for (size_t i = 0; i < n; i++)
                mail[i] = i % 64 == 63 ? '\n' : 'x';
        h = host_of(&p);
        h.timeout_ms = 60000, h.stop = &stop;
        r = send_to(&p, &h, str_make(mail, n), 1);
        atomic_store(&client_gone, true);
        CHECK(!r.ok && !r.usable && r.e.code == ERR_STOPPED && r.to[0].result == SMTP_OPEN && sys_mono_ms() - begun < 10000);
        CHECK(strstr(r.e.text, "took nothing"));
        mem_free(mail);
        peer_stop(&p);
        peer_free(&p);
}

TEST(many_recipients_and_a_large_mail)
{
        enum { MANY = 40 };
        struct peer p = { 0 };
        struct buf b = BUF_INIT, want = BUF_INIT;
        struct smtp_recipient to[MANY];
        char who[MANY][64];
        struct range m;
        struct smarthost h;
        struct smtp *s;

        for (int i = 0; i < MANY; i++) {
                snprintf(who[i], sizeof who[i], "someone-with-a-name-%d@x.org", i);
                to[i].address = str_of(who[i]);
        }
        while (b.n < 990000)
                buf_printf(&b, ".%zu is where this line begins\n%s", b.n, b.n % 7 ? "" : "\r");
        m = bytes_of(buf_str(&b));
        NEED(peer_start(&p));
        h = host_of(&p);
        s = smtp_connect(&h, &e);
        NEED(s);
        p.extensions = "250-PIPELINING\r\n";
        CHECK(!smtp_send(s, STR_NONE, to, MANY, m, a, &e) && e.code == ERR_REFUSED); /* with its line ends it is over the server's 1,000,000 */
        smtp_close(s);
        s = smtp_connect(&h, &e);
        NEED(s);
        CHECK(smtp_send(s, STR_NONE, to, MANY, m, a, &e) && to[MANY - 1].result == SMTP_ACCEPTED);
        smtp_close(s);
        peer_stop(&p);
        CHECK_BYTES(buf_str(&p.mail[0].wire), expected(buf_str(&b), &want));
        CHECK(peer_count(&p, "RCPT") == MANY);
        backing_unref(m.in);
        buf_free(&b);
        buf_free(&want);
        peer_free(&p);
}

TEST_MAIN
