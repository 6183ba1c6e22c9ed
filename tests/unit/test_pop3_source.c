#include "tests/unit/pop3_peer.h"

#include "tests/unit/test.h"

#include "core/server.h"

#define MAIL(n, body) "From: a@example.com\r\nSubject: number " #n "\r\nMessage-ID: <" #n "@x>\r\n\r\n" body

static const struct peer_mail four[] = {
        { "u1", MAIL(1, "first body\r\nsecond line\r\n"), 0, false },
        { "u2", MAIL(2, ".dot\r\n..\r\n...\r\nafter the dots\r\n"), 0, false },
        { "u3", MAIL(3, "a bare \r and a \n here\r\n"), 0, false },
        { "u4", MAIL(4, "last\r\n"), 0, false },
};

static void fill(struct peer *p)
{
        memcpy(p->mail, four, sizeof four);
        p->n = 4;
}

static bool all_four(const struct got *g)
{
        bool ok = g->n == 4;

        for (unsigned i = 0; i < 4; i++)
                ok = ok && got_text(g, four[i].text) == 1;
        return ok;
}

/* The measure of every server: 4 messages, left on the server, two runs: 4 after the first, 4 after the second. */
static void twice(struct peer *p, const struct run_options *r, const char *what, bool clean)
{
        struct state s;
        struct got g;

        NEED(state_open(&s));
        NEED(peer_start(p));
        g = run_over(p->port, &s, r);
        if (!all_four(&g) || g.ok != clean)
                printf("%s: first run: %u messages, %s: %s\n", what, g.n, g.ok ? "ok" : "failed", g.e.text), test_bad++;
        give_back(&g);
        g = run_over(p->port, &s, r);
        if (g.n != 0 || g.ok != clean)
                printf("%s: second run: %u messages, %s: %s\n", what, g.n, g.ok ? "ok" : "failed", g.e.text), test_bad++;
        give_back(&g);
        peer_stop(p);
        state_close(&s);
}

TEST(well_behaved)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_ALWAYS };

        fill(&p);
        twice(&p, &r, "well-behaved", true);
        CHECK(p.quits == 2);
        CHECK(p.sessions == 2);
}

TEST(no_pipelining)
{
        struct peer p = { .no_pipelining = true };
        struct run_options r = { .leave = LEAVE_ALWAYS };

        fill(&p);
        twice(&p, &r, "no pipelining", true);
        CHECK(p.sessions == 2);
}

TEST(P14_no_uidl)
{
        struct peer p = { .no_uidl = true }, q = { .no_uidl = true, .no_top = true };
        struct run_options r = { .leave = LEAVE_ALWAYS };

        fill(&p);
        twice(&p, &r, "no UIDL", true);
        fill(&q);
        twice(&q, &r, "neither UIDL nor TOP", true);
}

TEST(P10_W13_one_uid_for_two)
{
        struct peer p = { 0 }, q = { .no_top = true };
        struct run_options r = { .leave = LEAVE_ALWAYS };

        fill(&p);
        p.mail[2].uid = "u2";
        twice(&p, &r, "one UID for two", true);
        fill(&q);
        q.mail[2].uid = q.mail[0].uid = "u2";
        twice(&q, &r, "one UID for three, no TOP", true);
}

TEST(P11_W13_equal_twins)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_NEVER };
        struct state s;
        struct got g;

        fill(&p);
        p.mail[1] = p.mail[0];
        NEED(state_open(&s) && peer_start(&p));
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && g.n == 4);
        CHECK(got_text(&g, four[0].text) == 2);
        CHECK(peer_count(&p, "DELE") == 4);
        CHECK(p.mail[0].gone && p.mail[1].gone && p.mail[2].gone && p.mail[3].gone);
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

TEST(blank_uid)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_ALWAYS };

        fill(&p);
        p.mail[1].uid = p.mail[3].uid = "";
        twice(&p, &r, "blank UID", true);
}

static int cut_in_retr(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0 || a != 3 || p->count++)
                return 0;
        peer_say(p, "+OK\r\nFrom: a@exa");
        return CUT;
}
static int cut_each_message(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "greeting") == 0)
                p->count = 0;
        return strcmp(verb, "RETR") == 0 && p->count++ == 1 ? CUT : 0;
}
static int extra_ok(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") == 0 && a == 2)
                peer_say(p, "+OK\r\n");
        return 0;
}
static int text_before_status(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") == 0 && a == 3)
                peer_say(p, "please wait\r\n");
        return 0;
}
static int no_crlf_before_dot(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0 || a != 2)
                return 0;
        peer_say(p, "+OK\r\n" MAIL(2, "..dot\r\n...\r\n....\r\nafter the dots") ".\r\n");
        return 1;
}
static int unstuffed(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0 || a != 1)
                return 0;
        peer_say(p, "+OK\r\n%s.\r\n", p->mail[0].text);
        return 1;
}
static int top_refused(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "TOP") != 0)
                return 0;
        peer_say(p, "-ERR no\r\n");
        return 1;
}
static int top_of_one_line(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "TOP") != 0)
                return 0;
        peer_say(p, "+OK\r\nFrom: a@example.com\r\n.\r\n");
        return 1;
}
static int top_twice_ok(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "TOP") == 0)
                peer_say(p, "+OK\r\n");
        return 0;
}
static int no_capa(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "CAPA") != 0)
                return 0;
        peer_say(p, "-ERR\r\n");
        return 1;
}
static int capa_hangs_up(struct peer *p, const char *verb, unsigned a)
{
        return strcmp(verb, "CAPA") == 0 ? CUT : 0;
}
static int quit_hangs_up(struct peer *p, const char *verb, unsigned a)
{
        return strcmp(verb, "QUIT") == 0 ? CUT : 0;
}
static int odd_lists(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "UIDL") == 0)
                peer_say(p, "+OK\r\n 9 u9\r\n4   u4 \r\n2 u2\r\n1 u1\r\n3 u3\r\n.\r\n");
        else if (strcmp(verb, "LIST") == 0)
                peer_say(p, "+OK\r\n3 -7\r\n1 0\r\n2 99999999999999999999\r\n4 10 x\r\n5 100\r\n.\r\n");
        else if (strcmp(verb, "STAT") == 0)
                peer_say(p, "+OK 1000000000 -5\r\n");
        else
                return 0;
        return 1;
}
static int bare_lf(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") == 0 || strcmp(verb, "LIST") == 0 || strcmp(verb, "UIDL") == 0 || strcmp(verb, "CAPA") == 0)
                return 0;
        peer_say(p, strcmp(verb, "STAT") == 0 ? "+OK 4 100\n" : "  +OK\n");
        return strcmp(verb, "QUIT") == 0 ? 2 : 1;
}

TEST(servers_that_misbehave)
{
        static const struct {
                const char *what;
                int (*odd)(struct peer *p, const char *verb, unsigned a);
                bool no_uidl, no_pipelining;
        } rows[] = {
                { "P19 cut inside RETR", cut_in_retr, false, false },
                { "cut inside RETR, one at a time", cut_in_retr, false, true },
                { "P30 cut after each message", cut_each_message, false, false },
                { "cut after each message, one at a time", cut_each_message, false, true },
                { "cut after each message, no UIDL", cut_each_message, true, false },
                { "P26 extra +OK before RETR", extra_ok, false, false },
                { "extra +OK before RETR, one at a time", extra_ok, false, true },
                { "P26 text before the status", text_before_status, false, false },
                { "text before the status, one at a time", text_before_status, false, true },
                { "no CRLF before the final dot", no_crlf_before_dot, false, false },
                { "no CRLF before the final dot, one at a time", no_crlf_before_dot, false, true },
                { "TOP refused, no UIDL", top_refused, true, false },
                { "TOP of one line, no UIDL", top_of_one_line, true, false },
                { "TOP answers +OK twice, no UIDL", top_twice_ok, true, false },
                { "P31 CAPA refused", no_capa, false, false },
                { "CAPA hangs up", capa_hangs_up, false, false },
                { "P29 QUIT hangs up", quit_hangs_up, false, false },
                { "P15 lists in other order, bad sizes", odd_lists, false, false },
                { "P05 blanks and bare LF", bare_lf, false, false },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct peer p = { .odd = rows[i].odd, .no_uidl = rows[i].no_uidl, .no_pipelining = rows[i].no_pipelining };
                struct run_options r = { .leave = LEAVE_ALWAYS };

                fill(&p);
                twice(&p, &r, rows[i].what, true);
        }
}

/* A lone dot that was not stuffed, told apart from an end by what follows, one command at a time. */
TEST(unstuffed_dot)
{
        static const char text[] = MAIL(1, "before\r\n.\r\nand after, quite a few more bytes of it\r\nto the end\r\n");
        struct peer p = { .odd = unstuffed };
        struct run_options r = { .leave = LEAVE_ALWAYS };
        struct state s;
        struct got g;

        fill(&p);
        p.mail[0].text = text;
        NEED(state_open(&s) && peer_start(&p));
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && g.n == 4);
        CHECK(got_text(&g, text) == 1);
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

static int retr_refused(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0 || a != 2)
                return 0;
        peer_say(p, "-ERR can't \x1b[2J read it\r\n");
        return 1;
}
static int retr_empty(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0 || a != 2)
                return 0;
        peer_say(p, "+OK\r\n.\r\n");
        return 1;
}
static int poison(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0 || a != 2)
                return 0;
        peer_say(p, "+OK\r\nFrom: ");
        return CUT;
}

/* One message can't be had: the others are, and the end says so. */
TEST(P24_one_message_fails)
{
        int (*const odd[])(struct peer *, const char *, unsigned) = { retr_refused, retr_empty, poison };

        for (int i = 0; i < 6; i++) {
                struct peer p = { .odd = odd[i / 2], .no_pipelining = i % 2 };
                struct run_options r = { .leave = LEAVE_NEVER };
                struct state s;
                struct got g;

                fill(&p);
                NEED(state_open(&s) && peer_start(&p));
                g = run_over(p.port, &s, &r);
                CHECK(!g.ok && g.n == 3);
                CHECK(strstr(g.e.text, "acc: message 2, UID u2") != NULL);
                CHECK(!strchr(g.e.text, '\x1b'));
                CHECK(!p.mail[1].gone && p.mail[0].gone && p.mail[2].gone && p.mail[3].gone);
                give_back(&g);
                peer_stop(&p);
                state_close(&s);
        }
}

/* SERVERS: asked for again after longer and longer times, given up after 5; the others come, and so does it once the server gives it. */
TEST(P24_refused_again_and_again)
{
        static const int64_t wait[] = { 300, 1200, 4800, 19200 };
        struct peer p = { .odd = retr_refused };
        struct run_options r = { .leave = LEAVE_ALWAYS, .o.now = 1800000000 };
        struct state s;
        struct got g;
        struct mark k;
        bool found;

        fill(&p);
        NEED(state_open(&s) && peer_start(&p));
        for (unsigned i = 1; i <= 5; i++) {
                g = run_over(p.port, &s, &r);
                CHECK(!g.ok && g.n == (i == 1 ? 3 : 0) && peer_count(&p, "RETR 2") == i);
                give_back(&g);
                g = run_over(p.port, &s, &r); /* too early: not asked for, and not forgotten */
                CHECK(!g.ok && g.n == 0 && peer_count(&p, "RETR 2") == i);
                CHECK(strstr(g.e.text, i < 5 ? "asked again in" : "given up"));
                CHECK(ledger_mark(s.l, 1, STR("u2"), 0, &k, &found, s.a, &g.e) && found && k.state == MARK_REFUSED && k.attempts == i);
                CHECK(str_find_str(k.reason, STR("can't")) < k.reason.n);
                r.o.now += i < 5 ? wait[i - 1] : 86400 * 30;
        }
        g = run_over(p.port, &s, &r);
        CHECK(!g.ok && peer_count(&p, "RETR 2") == 5);
        r.o.again = true; /* asks for everything */
        p.odd = NULL;
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && all_four(&g));
        give_back(&g);
        r.o.again = false;
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && g.n == 0);
        peer_stop(&p);
        state_close(&s);
}

/* A server that gives nothing at all: that is not held against the messages. */
static int refuses_all(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0)
                return 0;
        peer_say(p, "-ERR [SYS/TEMP] disk trouble\r\n");
        return 1;
}
TEST(P24_a_server_in_trouble)
{
        struct peer p = { .odd = refuses_all };
        struct run_options r = { .leave = LEAVE_ALWAYS };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s) && peer_start(&p));
        g = run_over(p.port, &s, &r);
        CHECK(!g.ok && g.n == 0 && peer_count(&p, "RETR") == 4);
        p.odd = NULL;
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && all_four(&g));
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

static struct got once(struct peer *p, struct state *s, const struct run_options *r)
{
        struct got g = { 0 };

        if (peer_start(p)) {
                g = run_over(p->port, s, r);
                give_back(&g);
        }
        return g;
}

static int bad_number(struct peer *p, const char *verb, unsigned a)
{
        static const char *const lists[] = { "0 u", "-1 u", "+1 u", "99999999999999999999 u", "u", "1 u1\r\n1 u2", "2147483648 u" };

        if (strcmp(verb, "UIDL") != 0)
                return 0;
        peer_say(p, "+OK\r\n%s\r\n.\r\n", lists[p->count]);
        return 1;
}

TEST(P08_P09_bad_numbers)
{
        for (unsigned i = 0; i < 7; i++) {
                struct peer p = { .odd = bad_number, .count = i };
                struct run_options r = { .leave = LEAVE_NEVER };
                struct state s;
                struct got g;

                fill(&p);
                NEED(state_open(&s));
                g = once(&p, &s, &r);
                CHECK(!g.ok && g.n == 0 && g.e.code == ERR_PROTO);
                CHECK(p.quits == 0);
                peer_stop(&p);
                state_close(&s);
        }
}

static int empty_uidl(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "UIDL") != 0)
                return 0;
        peer_say(p, "+OK\r\n.\r\n");
        return 1;
}
static int empty_lists(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "UIDL") != 0 && strcmp(verb, "LIST") != 0)
                return 0;
        peer_say(p, "+OK\r\n.\r\n");
        return 1;
}

TEST(P16_W2_empty_listing)
{
        struct peer p = { .odd = empty_uidl }, q = { .odd = empty_lists };
        struct run_options r = { .leave = LEAVE_ALWAYS };
        struct state s;
        struct got g;

        fill(&p);
        fill(&q);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(!g.ok && strstr(g.e.text, "incomplete") != NULL);
        g = once(&q, &s, &r);
        CHECK(!g.ok && strstr(g.e.text, "incomplete") != NULL);
        peer_stop(&p);
        peer_stop(&q);
        state_close(&s);
}

static int in_use(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "PASS") != 0)
                return 0;
        peer_say(p, "-ERR [IN-USE] locked\r\n");
        return 1;
}
static int in_use_greeting(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "greeting") != 0)
                return 0;
        peer_say(p, "-ERR [IN-USE] locked\r\n");
        return 1;
}
static int wrong_password(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "PASS") != 0)
                return 0;
        peer_say(p, "-ERR no\r\n");
        return 1;
}
static int sys_temp(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "PASS") != 0)
                return 0;
        peer_say(p, "-ERR [SYS/TEMP] later\r\n");
        return 1;
}
static int long_greeting(struct peer *p, const char *verb, unsigned a)
{
        char line[8000];

        if (strcmp(verb, "greeting") != 0)
                return 0;
        memset(line, 'x', sizeof line);
        line[sizeof line - 1] = 0;
        for (int i = 0; i < 40; i++)
                peer_say(p, "%s", line);
        return 1;
}

TEST(P02_P03_P33_refusals)
{
        static const struct {
                int (*odd)(struct peer *p, const char *verb, unsigned a);
                enum err_code code;
        } rows[] = {
                { in_use, ERR_BUSY }, { in_use_greeting, ERR_BUSY }, { wrong_password, ERR_AUTH }, { sys_temp, ERR_TEMP },
                { long_greeting, ERR_PROTO },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct peer p = { .odd = rows[i].odd };
                struct run_options r = { .leave = LEAVE_ALWAYS };
                struct state s;
                struct got g;

                fill(&p);
                NEED(state_open(&s));
                g = once(&p, &s, &r);
                CHECK(!g.ok && g.n == 0);
                CHECK(g.e.code == rows[i].code);
                CHECK(str_starts(str_of(g.e.text), STR("acc: ")));
                CHECK(peer_count(&p, "PASS") <= 1);
                peer_stop(&p);
                state_close(&s);
        }
}

static int hangs_up_twice(struct peer *p, const char *verb, unsigned a)
{
        return strcmp(verb, "greeting") == 0 && p->count++ < 2 ? CUT : 0;
}
static int always_hangs_up(struct peer *p, const char *verb, unsigned a)
{
        return strcmp(verb, "greeting") == 0 ? CUT : 0;
}

/* A broken line is tried again after a while, a bounded number of times; a refused password never (see P33). */
TEST(W1_line_that_breaks_at_first)
{
        struct peer p = { .odd = hangs_up_twice }, q = { .odd = always_hangs_up };
        struct run_options r = { .leave = LEAVE_ALWAYS };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 4 && p.sessions == 3);
        peer_stop(&p);
        g = once(&q, &s, &r);
        CHECK(!g.ok && g.n == 0 && g.e.code == ERR_NET && q.sessions == 3 && peer_count(&q, "USER") == 0);
        peer_stop(&q);
        state_close(&s);
}

TEST(W1_waits_longer_each_time)
{
        struct peer p = { .odd = always_hangs_up };
        struct run_options r = { .leave = LEAVE_ALWAYS, .o.back_off_ms = 100 };
        struct state s;
        struct got g;
        int64_t begun = sys_mono_ms(), took;

        NEED(state_open(&s));
        g = once(&p, &s, &r);
        took = sys_mono_ms() - begun;
        CHECK(!g.ok && took >= 75 + 150); /* 100 and 200 ms, each less by a quarter at most */
        peer_stop(&p);
        state_close(&s);
}

static int refuses_the_first_quit(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "QUIT") != 0 || p->quits > 0)
                return 0;
        p->quits++;
        peer_say(p, "-ERR not now\r\n");
        return 2;
}

/* QUIT now and then, so that a lost session does not undo every DELE of the run. */
TEST(a_long_session_is_renewed)
{
        for (int i = 0; i < 3; i++) { /* pipelined, everything is on its way at once: there is nothing to go on with */
                struct peer p = { .no_pipelining = i > 0, .odd = i == 2 ? refuses_the_first_quit : NULL };
                struct run_options r = { .leave = LEAVE_NEVER, .session_messages = 2 };
                struct state s;
                struct got g;

                NEED(state_open(&s));
                for (p.n = 0; p.n < PEER_MAIL; p.n++) {
                        p.mail[p.n] = four[p.n % 4];
                        p.mail[p.n].uid = (const char *[]){ "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p" }[p.n];
                }
                g = once(&p, &s, &r);
                CHECK(g.ok && g.n == PEER_MAIL);
                CHECK(p.quits >= (i > 0 ? PEER_MAIL / 2 : 1));
                for (unsigned k = 0; k < PEER_MAIL; k++)
                        CHECK(p.mail[k].gone);
                peer_stop(&p);
                state_close(&s);
        }
}

TEST(leave_never_deletes)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_NEVER };
        struct state s;
        struct got g;
        uint64_t n = 0;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 4 && p.quits == 1 && p.sessions == 1);
        CHECK(p.mail[0].gone && p.mail[1].gone && p.mail[2].gone && p.mail[3].gone);
        CHECK(peer_count(&p, "TOP") == 0);
        CHECK(ledger_marks_count(s.l, 1, 1 << MARK_SEEN, &n, &g.e) && n == 4);
        peer_stop(&p);
        state_close(&s);
}

/* W7: settled in an earlier run that could not delete. */
TEST(W12_delete_only_what_is_the_same)
{
        struct peer p = { 0 };
        struct run_options keep = { .leave = LEAVE_ALWAYS }, drop = { .leave = LEAVE_NEVER };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &keep);
        CHECK(g.ok && g.n == 4);
        p.mail[1].text = MAIL(5, "another message under a UID that was used before\r\n");
        g = run_over(p.port, &s, &drop);
        CHECK(g.ok && g.n == 1);
        CHECK(got_text(&g, p.mail[1].text) == 1);
        CHECK(peer_count(&p, "TOP") == 4);
        CHECK(peer_count(&p, "RETR") == 5);
        CHECK(p.mail[0].gone && p.mail[1].gone && p.mail[2].gone && p.mail[3].gone);
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

TEST(leave_for_days)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_AGE, .leave_age = 14 * 86400, .o = { .now = 1800000000 } };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 4 && peer_count(&p, "DELE") == 0);
        r.o.now += 13 * 86400;
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && g.n == 0 && peer_count(&p, "DELE") == 0 && peer_count(&p, "TOP") == 0);
        r.o.now += 86400;
        r.o.no_age = true;
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && peer_count(&p, "DELE") == 0);
        r.o.no_age = false;
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && g.n == 0 && peer_count(&p, "DELE") == 4 && peer_count(&p, "TOP") == 4);
        CHECK(p.mail[0].gone && p.mail[3].gone);
        peer_stop(&p);
        state_close(&s);
}

/* Without TOP the content, RETRieved again, says whether it is the same. */
TEST(no_top_no_blind_delete)
{
        struct peer p = { .no_top = true };
        struct run_options keep = { .leave = LEAVE_ALWAYS }, drop = { .leave = LEAVE_NEVER };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &keep);
        CHECK(g.ok && g.n == 4);
        p.mail[1].text = MAIL(5, "another\r\n");
        g = run_over(p.port, &s, &drop);
        CHECK(g.ok && g.n == 1);
        CHECK(got_text(&g, p.mail[1].text) == 1);
        CHECK(p.mail[0].gone && p.mail[1].gone && p.mail[2].gone && p.mail[3].gone);
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

TEST(undone_and_held)
{
        struct peer p = { 0 }, q = { 0 };
        struct run_options undone = { .leave = LEAVE_NEVER, .kind = OUTCOME_UNDONE }, held = { .leave = LEAVE_NEVER, .kind = OUTCOME_HELD };
        struct state s, t;
        struct got g;

        fill(&p);
        fill(&q);
        NEED(state_open(&s) && state_open(&t));
        g = once(&p, &s, &undone);
        CHECK(g.ok && g.n == 4 && p.quits == 0 && peer_count(&p, "DELE") == 0);
        g = once(&q, &t, &held);
        CHECK(g.ok && g.n == 4 && q.quits == 1 && peer_count(&q, "DELE") == 0);
        g = run_over(q.port, &t, &held); /* their bytes lie in the spool */
        CHECK(g.ok && g.n == 0 && peer_count(&q, "RETR") == 4 && peer_count(&q, "DELE") == 0);
        peer_stop(&p);
        peer_stop(&q);
        state_close(&s);
        state_close(&t);
}

TEST(dry_run)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_NEVER, .o = { .dry = true } };
        struct state s;
        struct got g;
        uint64_t n;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 4 && p.quits == 0 && peer_count(&p, "DELE") == 0);
        CHECK(ledger_marks_count(s.l, 0, ~0u, &n, &g.e) && n == 0);
        peer_stop(&p);
        state_close(&s);
}

TEST(again_and_limit)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_ALWAYS, .o = { .limit = 3 } };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 3 && peer_count(&p, "RETR") == 3);
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && g.n == 1);
        give_back(&g);
        r.o = (struct pop3_options){ .again = true };
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && all_four(&g));
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

TEST(first_new)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_NEVER, .first_new = true };
        struct state s;
        struct got g;

        fill(&p);
        p.mail[2].uid = p.mail[1].uid;
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 0 && peer_count(&p, "RETR") == 0 && peer_count(&p, "DELE") == 0);
        p.mail[p.n++] = (struct peer_mail){ "u5", MAIL(5, "new\r\n"), 0, false };
        {
                struct ledger_account la;
                NEED(ledger_account(s.l, STR("acc"), STR("me@127.0.0.1"), &la, s.a, &g.e));
                la.fresh = false;
                CHECK(ledger_account_save(s.l, &la, &g.e));
        }
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && g.n == 1 && peer_count(&p, "RETR 5") == 1);
        CHECK(peer_count(&p, "DELE") == 1 && !p.mail[0].gone && p.mail[4].gone); /* what was never read is never deleted */
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

/* A first run that is killed after its list: what comes then is new all the same. */
TEST(first_new_cut_off)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_ALWAYS, .first_new = true };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 0);
        give_back(&g);
        p.mail[p.n++] = (struct peer_mail){ "u5", MAIL(5, "new\r\n"), 0, false };
        g = run_over(p.port, &s, &r); /* nobody has said that the first run ended */
        CHECK(g.ok && g.n == 1 && peer_count(&p, "RETR 5") == 1);
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

static int short_answer(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0 || a != 2)
                return 0;
        peer_say(p, "+OK\r\n%.*s\r\n.\r\n", 50, p->mail[1].text);
        return 1;
}

TEST(P17_W19_short_answer)
{
        struct peer p = { .odd = short_answer };
        struct run_options r = { .leave = LEAVE_NEVER };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 4 && g.suspects == 1);
        CHECK(peer_count(&p, "RETR 2") == 2);
        CHECK(p.mail[0].gone && !p.mail[1].gone);
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && g.n == 0 && !p.mail[1].gone);
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

/* W15 */
TEST(P32_W15_expire_zero)
{
        struct peer p = { .expire_zero = true }, q = { .expire_zero = true };
        struct run_options undone = { .leave = LEAVE_ALWAYS, .kind = OUTCOME_UNDONE }, settled = { .leave = LEAVE_ALWAYS };
        struct state s;
        struct got g;

        fill(&p);
        fill(&q);
        NEED(state_open(&s));
        g = once(&p, &s, &undone);
        CHECK(g.ok && g.n == 4 && p.quits == 0);
        g = once(&q, &s, &settled);
        CHECK(g.ok && g.n == 4 && q.quits == 1);
        peer_stop(&p);
        peer_stop(&q);
        state_close(&s);
}

static int drop_at_dele(struct peer *p, const char *verb, unsigned a)
{
        return strcmp(verb, "DELE") == 0 && p->count++ == 0 ? CUT : 0;
}

/* The session is lost before DELE: a new one, and the header is compared before anything is deleted. */
TEST(W7_delete_after_reconnect)
{
        struct peer p = { .odd = drop_at_dele };
        struct run_options r = { .leave = LEAVE_NEVER, .late = true };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 4 && p.sessions == 2 && p.quits == 1);
        CHECK(peer_count(&p, "TOP") == 4);
        CHECK(p.mail[0].gone && p.mail[1].gone && p.mail[2].gone && p.mail[3].gone);
        peer_stop(&p);
        state_close(&s);
}

static int always_cut(struct peer *p, const char *verb, unsigned a)
{
        return strcmp(verb, "RETR") == 0 ? CUT : 0;
}

TEST(gives_up)
{
        struct peer p = { .odd = always_cut };
        struct run_options r = { .leave = LEAVE_ALWAYS };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(!g.ok && g.n == 0);
        CHECK(p.sessions < 12);
        peer_stop(&p);
        state_close(&s);
}

/* The first session is lost at DELE; and each later one behind the status line of a message that comes a second time, to be compared. */
static int cut_when_compared(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "greeting") == 0)
                p->count = 0;
        if (strcmp(verb, "DELE") == 0)
                return CUT;
        if (strcmp(verb, "RETR") != 0 || ++p->count <= p->n)
                return 0;
        peer_say(p, "+OK\r\n");
        return CUT;
}

/* A message without a UID is refused each time, and the session lost at the next: neither keeps a row to remember that by. */
static int refused_then_cut(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0)
                return 0;
        if (a > 1)
                return CUT;
        peer_say(p, "-ERR no\r\n");
        return 1;
}

TEST(fails_in_the_same_place_each_time)
{
        struct peer servers[] = { { .odd = cut_when_compared, .no_uidl = true, .no_top = true }, { .odd = refused_then_cut, .no_uidl = true, .no_top = true },
                                  { .odd = refused_then_cut } };

        for (unsigned i = 0; i < sizeof servers / sizeof *servers; i++) {
                struct peer *p = &servers[i];
                struct run_options r = { .leave = LEAVE_NEVER };
                struct state s;
                struct got g;

                fill(p);
                NEED(state_open(&s));
                g = once(p, &s, &r);
                CHECK(!g.ok && p->sessions < 20 && p->quits == 0);
                peer_stop(p);
                state_close(&s);
        }
}

/* Every byte of an answer that can be the last one. */
static int cut_at(struct peer *p, const char *verb, unsigned a)
{
        char head[200];

        if (strcmp(verb, "RETR") != 0 || a != 2 || p->count == 0)
                return 0;
        snprintf(head, sizeof head, "+OK\r\n%s.\r\n", "From: a@example.com\r\nSubject: number 2\r\nMessage-ID: <2@x>\r\n\r\n..dot\r\n...\r\n....\r\nafter the dots\r\n");
        peer_say(p, "%.*s", (int)p->count, head);
        p->count = 0;
        return CUT;
}

TEST(P19_W3_cut_at_every_byte)
{
        for (unsigned k = 1; k < 110; k++) {
                struct peer p = { .odd = cut_at, .count = k, .no_pipelining = k % 2 };
                struct run_options r = { .leave = LEAVE_ALWAYS };

                fill(&p);
                twice(&p, &r, "cut at a byte", true);
        }
}

TEST(large_messages_go_to_a_file)
{
        struct peer p = { 0 }, q = { .no_pipelining = true };
        struct run_options r = { .leave = LEAVE_ALWAYS, .memory = 40 };

        fill(&p);
        twice(&p, &r, "large", true);
        fill(&q);
        q.mail[0].size = 1; /* the list's sizes are no help */
        twice(&q, &r, "large, sizes wrong", true);
}

static int silent_once(struct peer *p, const char *verb, unsigned a)
{
        return strcmp(verb, "RETR") == 0 && a == 2 && p->count++ == 0; /* no answer */
}
static int silent_inside(struct peer *p, const char *verb, unsigned a)
{
        if (p->count > 0 && strcmp(verb, "greeting") != 0)
                return p->count == 1; /* nor to what follows in this session */
        if (strcmp(verb, "greeting") == 0 && p->count > 0)
                p->count = 2;
        if (strcmp(verb, "RETR") != 0 || a != 2 || p->count > 0)
                return 0;
        p->count = 1;
        peer_say(p, "+OK\r\nFrom: ");
        return 1;
}

/* P01, P34: a deadline, then a new session. */
TEST(a_server_falls_silent)
{
        for (int i = 0; i < 4; i++) {
                struct peer p = { .odd = i / 2 ? silent_inside : silent_once, .no_pipelining = i % 2 };
                struct run_options r = { .leave = LEAVE_ALWAYS, .timeout_ms = 300 };
                struct state s;
                struct got g;

                fill(&p);
                NEED(state_open(&s));
                NEED(peer_start(&p));
                g = run_over(p.port, &s, &r);
                CHECK(g.ok && all_four(&g) && p.sessions == 2);
                give_back(&g);
                peer_stop(&p);
                state_close(&s);
        }
}

/* One answer is missing among many, and no size tells: each later message would pass for the one before it, and DELE would name mail that
 * nobody has read. */
TEST(P27_a_lost_answer_and_sizes_that_prove_nothing)
{
        static const enum outcome_leave leave[] = { LEAVE_ALWAYS, LEAVE_NEVER };

        for (int i = 0; i < 4; i++) {
                struct peer p = { .odd = silent_once, .no_top = i / 2 };
                struct run_options r = { .leave = leave[i % 2], .timeout_ms = 300 };
                struct state s;
                struct got g;

                fill(&p);
                for (int k = 0; k < 4; k++)
                        p.mail[k].size = strlen(four[k].text) + 3;
                NEED(state_open(&s));
                NEED(peer_start(&p));
                g = run_over(p.port, &s, &r);
                CHECK(g.ok && all_four(&g));
                give_back(&g);
                for (int k = 0; k < 4; k++)
                        CHECK(p.mail[k].gone == (r.leave == LEAVE_NEVER));
                if (r.leave == LEAVE_ALWAYS) {
                        g = run_over(p.port, &s, &r);
                        CHECK(g.ok && g.n == 0);
                        give_back(&g);
                }
                peer_stop(&p);
                state_close(&s);
        }
}

/* A server's migration: new UIDs for the same messages. */
static int half_a_message(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0 || a != 2)
                return 0;
        peer_say(p, "+OK\r\nFrom: a@exa");
        return 1;
}

static void *ask_to_stop(void *s)
{
        usleep(300000);
        atomic_store(&((struct source *)s)->stop, true);
        return NULL;
}

static void stop_soon(void *ctx, struct source *s, unsigned n)
{
        if (n == 1)
                pthread_create(ctx, NULL, ask_to_stop, s);
}

/* A server that says nothing for minutes does not keep a run that was asked to stop; what was settled is no failure. */
TEST(stopped_while_a_server_is_silent)
{
        struct peer p = { .no_pipelining = true, .odd = half_a_message };
        pthread_t thread;
        struct run_options r = { .leave = LEAVE_ALWAYS, .timeout_ms = 60000, .between = stop_soon, .ctx = &thread };
        int64_t begun = sys_mono_ms();
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s) && peer_start(&p));
        g = run_over(p.port, &s, &r);
        pthread_join(thread, NULL);
        CHECK(g.ok && g.n == 1 && p.quits == 0);
        CHECK(sys_mono_ms() - begun < 10000);
        give_back(&g);
        peer_stop(&p);
        state_close(&s);
}

TEST(all_uids_change)
{
        for (int i = 0; i < 2; i++) {
                struct peer p = { .no_top = i };
                struct run_options r = { .leave = LEAVE_ALWAYS };
                struct state s;
                struct got g;

                fill(&p);
                p.mail[p.n++] = p.mail[0]; /* a twin, with a UID of its own */
                p.mail[4].uid = "u5";
                NEED(state_open(&s));
                g = once(&p, &s, &r);
                CHECK(g.ok && g.n == 5);
                for (unsigned k = 0; k < p.n; k++)
                        p.mail[k].uid = &"n1\0n2\0n3\0n4\0n5"[3 * k];
                p.mail[1].text = MAIL(9, "new\r\n");
                g = run_over(p.port, &s, &r);
                CHECK(g.ok && got_text(&g, p.mail[1].text) == 1 && got_text(&g, four[2].text) == 0);
                give_back(&g);
                g = run_over(p.port, &s, &r);
                CHECK(g.ok && g.n == 0);
                peer_stop(&p);
                state_close(&s);
        }
}

TEST(again_without_uidl)
{
        struct peer p = { .no_uidl = true };
        struct run_options r = { .leave = LEAVE_ALWAYS };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 4);
        r.o.again = true;
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && all_four(&g));
        give_back(&g);
        r.o.again = false;
        g = run_over(p.port, &s, &r);
        CHECK(g.ok && g.n == 0);
        peer_stop(&p);
        state_close(&s);
}

static int extra_dele_answer(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "DELE") == 0 && a == 2)
                peer_say(p, "+OK\r\n");
        return 0;
}
static int dele_refused(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "DELE") != 0 || a != 2)
                return 0;
        peer_say(p, "-ERR no\r\n");
        return 1;
}

TEST(P27_P28_answers_to_dele)
{
        struct peer p = { .odd = extra_dele_answer }, q = { .odd = dele_refused };
        struct run_options r = { .leave = LEAVE_NEVER, .late = true };
        struct state s;
        struct got g;
        struct mark k;
        bool found;

        fill(&p);
        fill(&q);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 4 && p.sessions == 2 && p.quits == 1); /* the session that was miscounted ended without QUIT */
        CHECK(ledger_mark(s.l, 1, STR("u1"), 0, &k, &found, s.a, &g.e) && found && k.deleted && peer_left(&p) == 0);
        peer_stop(&p);
        q.mail[1].uid = "v2";
        g = once(&q, &s, &r);
        CHECK(g.ok && q.quits == 1 && q.mail[0].gone && !q.mail[1].gone);
        CHECK(ledger_mark(s.l, 1, STR("u1"), 0, &k, &found, s.a, &g.e) && found && k.deleted);
        CHECK(ledger_mark(s.l, 1, STR("v2"), 0, &k, &found, s.a, &g.e) && found && !k.deleted);
        peer_stop(&q);
        state_close(&s);
}

static void hang_up(void *ctx, struct source *s, unsigned n)
{
        struct peer *p = ctx;

        if (n == 4)
                shutdown(p->fd, SHUT_RDWR);
}

/* The server tired of waiting for the script. */
TEST(P30_closed_while_the_script_works)
{
        struct peer p = { 0 };
        struct run_options r = { .leave = LEAVE_NEVER, .late = true, .between = hang_up, .ctx = &p };
        struct state s;
        struct got g;

        fill(&p);
        NEED(state_open(&s));
        g = once(&p, &s, &r);
        CHECK(g.ok && g.n == 4 && p.sessions == 2 && p.quits == 1);
        CHECK(p.mail[0].gone && p.mail[1].gone && p.mail[2].gone && p.mail[3].gone);
        peer_stop(&p);
        state_close(&s);
}

static int raw_bytes(struct peer *p, const char *verb, unsigned a)
{
        static const char text[] = "+OK\r\nFrom: \xff\x80\0x\r\n\r\n..\r\n...\r\na\n.\nb\r.\rc\0\r\r\n\nlast without end\r\n.\r\n";

        if (strcmp(verb, "RETR") != 0 || a != 1)
                return 0;
        buf_add(&p->out, text, sizeof text - 1);
        return 1;
}

TEST(P21_P22_P23_bytes_are_kept)
{
        static const char want[] = "From: \xff\x80\0x\n\n.\n..\na\n.\nb\r.\rc\0\r\n\nlast without end\n";

        for (int i = 0; i < 2; i++) {
                struct peer p = { .odd = raw_bytes, .no_pipelining = i };
                struct run_options r = { .leave = LEAVE_ALWAYS };
                struct state s;
                struct got g;

                fill(&p);
                p.mail[0].size = 59;
                NEED(state_open(&s) && peer_start(&p));
                g = run_over(p.port, &s, &r);
                CHECK(g.ok && g.n == 4 && g.suspects == 0);
                CHECK(g.n == 4 && memcmp(g.text[0], want, sizeof want) == 0);
                give_back(&g);
                peer_stop(&p);
                state_close(&s);
        }
}

/* ---- against our own server */

struct listed {
        struct source s;
        unsigned n, at;
};
static bool listed_next(struct source *s, struct message **out, struct err *e)
{
        struct listed *l = (struct listed *)s;
        struct origin o = { .source = STR("test") };
        struct buf b = BUF_INIT;
        struct backing *in;

        *out = NULL;
        if (l->at == l->n)
                return true;
        buf_printf(&b, "From: a@x\nSubject: %u\n\n.body %u\n.\nend", l->at % 999, l->at % 999);
        l->at++;
        in = backing_memory(b.p, b.n);
        *out = message_new((struct range){ in, 0, b.n }, &o, &limits_default, e);
        backing_unref(in);
        return *out;
}
static const struct source_ops listed_ops = { listed_next, NULL, NULL, NULL };

static atomic_bool stop;
static bool stopped(void) { return stop; }
static void *run_server(void *arg)
{
        struct err e = { 0 };

        return server_run(arg, &e) ? arg : NULL;
}

TEST(own_server)
{
        struct listed src = { .s = { .ops = &listed_ops }, .n = 50 };
        struct server_options o = { .user = STR("me"), .password = STR("pw"), .stopped = stopped };
        struct run_options r = { .leave = LEAVE_NEVER };
        struct server *srv;
        pthread_t t;
        struct state s;
        struct got g;
        struct err e = { 0 };

        stop = false;
        NEED(state_open(&s));
        srv = server_new(&src.s, &o, &e);
        NEED(srv);
        CHECK(server_count(srv) == 50);
        NEED(pthread_create(&t, NULL, run_server, srv) == 0);
        r.password = "wrong";
        g = run_over(server_port(srv), &s, &r);
        CHECK(!g.ok && g.e.code == ERR_AUTH && g.n == 0);
        r.password = "pw";
        g = run_over(server_port(srv), &s, &r);
        CHECK(g.ok && g.n == 50);
        CHECK(g.n == 50 && strcmp(g.text[7], "From: a@x\nSubject: 7\n\n.body 7\n.\nend\n") == 0);
        give_back(&g);
        g = run_over(server_port(srv), &s, &r);
        CHECK(g.ok && g.n == 0);
        stop = true;
        pthread_join(t, NULL);
        server_free(srv);
        state_close(&s);
}

TEST_MAIN
