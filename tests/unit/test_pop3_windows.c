/* A large mailbox comes some rows at a time, over many sessions: nothing is lost, handed out twice or deleted unread where a row goes, and no
 * server is asked for ever. Each server here hangs up on every greeting after SESSIONS_MAX sessions, so that no test can. */
#include "tests/unit/pop3_peer.h"

#include "tests/unit/test.h"

#define MAIL(n) "From: a@example.com\r\nSubject: number " #n "\r\nMessage-ID: <" #n "@x>\r\n\r\nbody of " #n "\r\n"

enum { SESSIONS_MAX = 60 };

static const char *const texts[PEER_MAIL] = {
        MAIL(1), MAIL(2), MAIL(3), MAIL(4), MAIL(5), MAIL(6), MAIL(7), MAIL(8), MAIL(9), MAIL(10), MAIL(11), MAIL(12), MAIL(13), MAIL(14),
        MAIL(15), MAIL(16),
};
static const char *const uids[PEER_MAIL] = { "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p" };

static void fill(struct peer *p)
{
        for (p->n = 0; p->n < PEER_MAIL; p->n++)
                p->mail[p->n] = (struct peer_mail){ .uid = uids[p->n], .text = texts[p->n] };
}

static bool enough(struct peer *p, const char *verb) { return strcmp(verb, "greeting") == 0 && p->sessions > SESSIONS_MAX; }

static bool each_once(const struct got *g, unsigned n)
{
        bool ok = g->n == n;

        for (unsigned i = 0; i < n; i++)
                ok = ok && got_text(g, texts[i]) == 1;
        return ok;
}

static int quit_hangs_up(struct peer *p, const char *verb, unsigned a)
{
        return strcmp(verb, "QUIT") == 0 || enough(p, verb) ? CUT : 0;
}

/* +OK, and the next session lists all of it again. */
static int deletes_nothing(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "QUIT") == 0)
                memset(p->deleted, 0, sizeof p->deleted);
        return enough(p, verb) ? CUT : 0;
}

static int refuses_dele(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "DELE") == 0 && a % 2 == 0) {
                peer_say(p, "-ERR no\r\n");
                return 1;
        }
        return enough(p, verb) ? CUT : 0;
}

/* A full session is ended so that its DELEs last; where they never do, that is not tried again and again. */
TEST(P29_W10_deletes_that_never_last)
{
        static int (*const odd[])(struct peer *p, const char *verb, unsigned a) = { quit_hangs_up, deletes_nothing, refuses_dele };
        static const size_t rows[] = { 0, 1, 3, 5 };

        for (unsigned i = 0; i < 24; i++) {
                struct peer p = { .odd = odd[i % 3], .no_pipelining = i < 12 };
                struct run_options r = { .leave = LEAVE_NEVER, .session_messages = 2, .o.rows = rows[i / 3 % 4] };
                struct state s;
                struct got g;

                fill(&p);
                NEED(state_open(&s) && peer_start(&p));
                g = run_over(p.port, &s, &r);
                if (!g.ok || !each_once(&g, PEER_MAIL) || p.sessions > 20)
                        printf("%u: %u messages, %u sessions, %u RETR, %u DELE: %s\n", i, g.n, p.sessions, peer_count(&p, "RETR"),
                               peer_count(&p, "DELE"), g.e.text), test_bad++;
                give_back(&g);
                peer_stop(&p);
                state_close(&s);
        }
}

static int cut_in_top(struct peer *p, const char *verb, unsigned a)
{
        if (enough(p, verb))
                return CUT;
        return strcmp(verb, "TOP") == 0 && a == 4 && p->count++ == 0 ? CUT : 0;
}

/* Every UID has changed, and the session is lost while the headers are looked at. */
TEST(W12_all_uids_change_and_the_session_is_lost)
{
        for (int i = 0; i < 4; i++) {
                struct peer p = { .no_pipelining = i % 2, .count = 1, .odd = cut_in_top };
                struct run_options r = { .leave = LEAVE_ALWAYS, .o.rows = i / 2 * 3 };
                struct state s;
                struct got g;

                fill(&p);
                p.n = 8;
                NEED(state_open(&s) && peer_start(&p));
                g = run_over(p.port, &s, &r);
                CHECK(g.ok && each_once(&g, 8));
                give_back(&g);
                for (unsigned k = 0; k < p.n; k++)
                        p.mail[k].uid = uids[15 - k];
                p.mail[6].text = texts[9];
                p.count = 0;
                g = run_over(p.port, &s, &r);
                if (!g.ok || g.n != 1 || got_text(&g, texts[9]) != 1)
                        printf("%d: %u messages: %s\n", i, g.n, g.e.text), test_bad++;
                give_back(&g);
                g = run_over(p.port, &s, &r);
                if (!g.ok || g.n != 0)
                        printf("%d: %u messages in the next run: %s\n", i, g.n, g.e.text), test_bad++;
                give_back(&g);
                peer_stop(&p);
                state_close(&s);
        }
}

/* The two that share a UID are refused, and the session is lost behind them. */
static int twins_refused_then_cut(struct peer *p, const char *verb, unsigned a)
{
        bool about = strcmp(verb, "RETR") == 0 || strcmp(verb, "TOP") == 0;

        if (strcmp(verb, "greeting") == 0)
                p->count = 0;
        if (enough(p, verb) || (about && a > 2) || (strcmp(verb, "NOOP") == 0 && p->count > 0))
                return CUT;
        p->count += strcmp(verb, "RETR") == 0;
        if (!about)
                return 0;
        peer_say(p, "-ERR no\r\n");
        return 1;
}

TEST(P10_twins_that_are_refused_each_time)
{
        for (unsigned i = 0; i < 4; i++) {
                struct peer p = { .no_pipelining = i % 2, .odd = twins_refused_then_cut };
                struct run_options r = { .leave = LEAVE_NEVER };
                struct state s;
                struct got g;

                fill(&p);
                p.n = i < 2 ? 2 : 3;
                p.mail[1].uid = p.mail[0].uid;
                NEED(state_open(&s) && peer_start(&p));
                g = run_over(p.port, &s, &r);
                if (g.ok || p.sessions > 12)
                        printf("%u: %u sessions: %s\n", i, p.sessions, g.e.text), test_bad++;
                give_back(&g);
                peer_stop(&p);
                state_close(&s);
        }
}

static unsigned twice_at;
static int says_one_twice(struct peer *p, const char *verb, unsigned a)
{
        if (enough(p, verb))
                return CUT;
        if (strcmp(verb, "RETR") != 0 || a != twice_at || p->count++ > 0)
                return 0;
        for (int i = 0; i < 2; i++) {
                peer_say(p, "+OK\r\n");
                peer_stuffed(p, str_of(p->mail[a - 1].text));
        }
        return 1;
}

/* Sizes that prove nothing, and one answer too many: it shows only when a window of rows is over. */
TEST(P27_an_answer_too_many_in_a_window)
{
        for (unsigned i = 0; i < 48; i += 1 + i % 4 / 3 * 4) { /* every second of the twelve */
                struct peer p = { .odd = says_one_twice };
                struct run_options r = { .leave = i % 2 ? LEAVE_NEVER : LEAVE_ALWAYS, .o.rows = 4, .late = i / 2 % 2 };
                struct state s;
                struct got g, more;

                fill(&p);
                p.n = 12;
                for (unsigned k = 0; k < p.n; k++)
                        p.mail[k].size = 100;
                twice_at = i / 4 + 1;
                NEED(state_open(&s) && peer_start(&p));
                g = run_over(p.port, &s, &r);
                more = run_over(p.port, &s, &r);
                for (unsigned k = 0; k < p.n; k++)
                        if (got_text(&g, texts[k]) + got_text(&more, texts[k]) == 0)
                                printf("message %u said twice (%u): %u never came%s\n", twice_at, i % 4, k + 1,
                                       p.mail[k].gone ? " and is deleted" : ""), test_bad++;
                give_back(&g);
                give_back(&more);
                peer_stop(&p);
                state_close(&s);
        }
}

static int refuses_some(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") != 0 || a % 5 != 0)
                return enough(p, verb) ? CUT : 0;
        peer_say(p, "-ERR no\r\n");
        return 1;
}

/* What an earlier run was refused is told once, and not asked for again, however many sessions and windows there are. */
TEST(P24_refused_before_is_told_once)
{
        for (unsigned i = 0; i < 4; i++) {
                struct peer p = { .odd = refuses_some, .no_pipelining = i % 2 };
                struct run_options r = { .leave = LEAVE_ALWAYS, .o.rows = i / 2 * 2, .o.limit = 5 };
                struct state s;
                struct got g;
                unsigned retr;

                fill(&p);
                NEED(state_open(&s) && peer_start(&p));
                g = run_over(p.port, &s, &r);
                give_back(&g);
                retr = peer_count(&p, "RETR 5");
                r.leave = LEAVE_NEVER;
                r.session_messages = 2;
                r.o.limit = 0;
                g = run_over(p.port, &s, &r);
                CHECK(!g.ok && peer_count(&p, "RETR 5\n") <= 1 && retr >= 1);
                if (!strstr(g.e.text, "3 messages"))
                        printf("%u: %s\n", i, g.e.text), test_bad++;
                CHECK(peer_left(&p) == 3);
                give_back(&g);
                peer_stop(&p);
                state_close(&s);
        }
}

/* Whatever was asked for is deleted at QUIT, also what was refused. */
static int deletes_what_it_gave(struct peer *p, const char *verb, unsigned a)
{
        if (strcmp(verb, "RETR") == 0 || strcmp(verb, "TOP") == 0)
                p->deleted[a - 1] = true;
        return refuses_some(p, verb, a);
}

TEST(P32_W15_expire_zero_and_windows)
{
        for (unsigned i = 0; i < 24; i++) {
                struct peer p = { .odd = deletes_what_it_gave, .no_pipelining = i % 2, .expire_zero = true };
                struct run_options r = { .leave = i / 2 % 2 ? LEAVE_NEVER : LEAVE_ALWAYS, .o.rows = i / 4 % 3 * 2 + 1, .late = i / 12,
                                         .session_messages = 2 };
                struct state s;
                struct got g;

                fill(&p);
                p.mail[5].uid = p.mail[12].uid = "";
                NEED(state_open(&s) && peer_start(&p));
                for (unsigned run = 0; run < 2; run++) {
                        bool undone = i % 3 == 0;

                        r.kind = run == 0 && undone ? OUTCOME_UNDONE : OUTCOME_SETTLED;
                        g = run_over(p.port, &s, &r);
                        for (unsigned k = 0; k < p.n; k++)
                                if (p.mail[k].gone && ((run == 0 && undone) || k % 5 == 4))
                                        printf("%u: run %u deleted message %u, which nobody has\n", i, run, k + 1), test_bad++;
                        CHECK(g.n == (run == 0 || undone ? 13 : 0));
                        give_back(&g);
                }
                peer_stop(&p);
                state_close(&s);
        }
}

static unsigned step;
static int cuts_now_and_then(struct peer *p, const char *verb, unsigned a)
{
        bool counts = strcmp(verb, "RETR") == 0 || strcmp(verb, "TOP") == 0 || strcmp(verb, "DELE") == 0;

        return enough(p, verb) || (counts && ++p->count % step == 0) ? CUT : 0;
}

/* Sessions lost in the middle of small windows; twins and messages without a UID among the rest; outcomes at once or late; some of them held. */
TEST(W1_W3_W14_lost_in_a_window)
{
        for (unsigned i = 0; i < 288; i += 5) { /* has no factor in common with the moduli */
                struct peer p = { .odd = cuts_now_and_then, .no_pipelining = i % 2, .expire_zero = i / 144 };
                struct run_options r = { .leave = i / 2 % 3 == 2 ? LEAVE_ALWAYS : LEAVE_NEVER, .late = i / 6 % 2, .o.rows = 1 + i / 12 % 4,
                                         .session_messages = i / 2 % 3 == 1 ? 3 : 0 };
                unsigned seen[PEER_MAIL] = { 0 };
                struct state s;

                fill(&p);
                step = 5 + i / 48 % 3 * 4;
                p.mail[4].uid = p.mail[9].uid = i % 4 < 2 ? "tw" : "";
                NEED(state_open(&s) && peer_start(&p));
                for (unsigned run = 0; run < 4; run++) {
                        struct got g;

                        p.sessions = 0;
                        p.odd = run == 3 ? NULL : cuts_now_and_then;
                        g = run_over(p.port, &s, &r);
                        for (unsigned k = 0; k < p.n; k++)
                                seen[k] += got_text(&g, texts[k]);
                        for (unsigned k = 0; k < p.n; k++)
                                if (p.mail[k].gone && !seen[k])
                                        printf("%u: %u is deleted and never came\n", i, k + 1), test_bad++;
                        if (p.sessions > SESSIONS_MAX || (run == 3 && !g.ok))
                                printf("%u: %u sessions in run %u: %s\n", i, p.sessions, run, g.e.text), test_bad++;
                        give_back(&g);
                }
                for (unsigned k = 0; k < p.n; k++)
                        if (seen[k] != 1 || p.mail[k].gone != (r.leave == LEAVE_NEVER))
                                printf("%u: %u came %u times, %s\n", i, k + 1, seen[k], p.mail[k].gone ? "deleted" : "there"), test_bad++;
                peer_stop(&p);
                state_close(&s);
        }
}

TEST_MAIN
