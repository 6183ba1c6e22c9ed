#include "tests/unit/smtp_peer.h"

#include "tests/unit/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/log.h"
#include "core/outbox.h"

static char dir[128];
static struct ledger *l;
static struct arena *a;
static struct err e;
static struct outbox_result out;
static struct buf said; /* the log */

static void sink(void *ctx, enum log_level level, struct str line)
{
        buf_printf(&said, "%d %.*s\n", level, STR_FMT(line));
}

static bool begin(void)
{
        char path[200];

        snprintf(dir, sizeof dir, "/tmp/mailmill-outbox-XXXXXX");
        if (!mkdtemp(dir))
                return false;
        log_set_sink(sink, NULL);
        log_set_level(LOG_INFO);
        buf_clear(&said);
        a = arena_new(0);
        l = ledger_open(dir, false, &e);
        snprintf(path, sizeof path, "%s/spool", dir);
        (void)!mkdir(path, 0700);
        snprintf(path, sizeof path, "%s/spool/t", dir);
        return l && mkdir(path, 0700) == 0;
}

static void end(void)
{
        char cmd[200];

        ledger_close(l);
        arena_free(a);
        snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
        if (system(cmd) != 0)
                abort();
        buf_free(&said);
        log_set_sink(NULL, NULL);
}

static bool has_spool(const char *name)
{
        char path[200];

        snprintf(path, sizeof path, "%s/spool/%s", dir, name);
        return access(path, F_OK) == 0;
}

static void spool(const char *name, const char *text)
{
        char path[200];
        FILE *f;

        snprintf(path, sizeof path, "%s/spool/%s", dir, name);
        f = fopen(path, "w");
        if (!f || fputs(text, f) < 0 || fclose(f) != 0)
                abort();
}

/* A mail to n of a@x.org, b@x.org, c@x.org. */
static int64_t add_mail(const char *name, const char *host, size_t n, bool once, int64_t created, int64_t next)
{
        static const struct str who[] = { { "a@x.org", 7 }, { "b@x.org", 7 }, { "c@x.org", 7 } };
        struct outbox_item i = {
                .action = STR("00112233445566778899aabbccddeeff"), .kind = OUTBOX_MAIL, .state = OUTBOX_READY, .created = created, .next_try = next,
                .smarthost = str_of(host), .sender = STR("me@example.com"), .recipients = who, .recipient_count = n, .spool = str_of(name),
                .at_most_once = once, .subject = STR("s"), .answer = STR(""), .account = STR("x"), .source = STR("x"),
        };

        spool(name, "Subject: s\n\nhello\n");
        return ledger_outbox_add(l, &i, &e) ? i.id : -1;
}

static int64_t add_command(const struct str *argv, size_t n, const char *stdin_text, bool once)
{
        struct outbox_item i = {
                .action = STR("00112233445566778899aabbccddeeff"), .kind = OUTBOX_COMMAND, .state = OUTBOX_READY, .created = sys_now(),
                .next_try = sys_now(), .argv = argv, .argc = n, .spool = stdin_text ? STR("t/c") : STR(""), .at_most_once = once,
                .smarthost = STR(""), .sender = STR(""), .subject = STR("s"), .answer = STR(""), .account = STR("x"), .source = STR("x"),
        };

        if (stdin_text)
                spool("t/c", stdin_text);
        return ledger_outbox_add(l, &i, &e) ? i.id : -1;
}

static struct smarthost host_of(const struct peer *p, const char *name)
{
        return (struct smarthost){ .name = str_of(name), .host = STR("127.0.0.1"), .port = p->port, .tls = TLS_NONE, .helo = STR("me.example"),
                                   .timeout_ms = 3000 };
}

static atomic_bool stop;
static bool run_until_stopped(const struct peer *p)
{
        struct smarthost h = host_of(p, "default"), *list = &h;

        h.timeout_ms = 60000;
        return outbox_send(l, &list, 1, false, &stop, &out, &e);
}

static bool run(const struct peer *p, bool all)
{
        struct smarthost h = host_of(p, "default"), *list = &h;

        return outbox_send(l, &list, 1, all, NULL, &out, &e);
}

static bool item(int64_t id, struct outbox_item *i)
{
        bool found = false;

        return ledger_outbox_get(l, id, i, &found, a, &e) && found;
}

static bool collect_answer(void *ctx, struct str who, int state, struct str answer)
{
        buf_printf(ctx, "%.*s %d %.*s\n", STR_FMT(who), state, STR_FMT(answer));
        return true;
}

static struct str recipients(int64_t id)
{
        struct buf b = BUF_INIT;
        struct str s;

        CHECK(ledger_outbox_recipients(l, id, collect_answer, &b, &e));
        s = arena_str(a, buf_str(&b));
        buf_free(&b);
        return s;
}

static bool was_said(const char *what) { return str_find_str(buf_str(&said), str_of(what)) < said.n; }

static unsigned warnings(void)
{
        struct str rest = buf_str(&said);
        unsigned n = 0;

        while (rest.n > 0) {
                struct str line = str_take(&rest, '\n');
                n += line.n && (line.p[0] == '0' || line.p[0] == '1');
        }
        return n;
}

TEST(sent_in_one_session_and_gone)
{
        struct peer p = { 0 };
        struct outbox_item i;
        int64_t now = sys_now(), first, later;

        NEED(begin() && peer_start(&p));
        first = add_mail("t/1", "", 2, false, now, now);
        add_mail("t/2", "default", 1, false, now, now);
        later = add_mail("t/3", "", 1, false, now, now + 1000);
        CHECK(run(&p, false) && out.sent == 2 && out.later == 0 && out.dead == 0 && out.worst == ERR_NONE);
        CHECK(p.n == 2 && p.sessions == 1);
        CHECK_STR(buf_str(&p.mail[0].wire), "Subject: s\r\n\r\nhello\r\n");
        CHECK(!item(first, &i) && item(later, &i) && i.tries == 0);
        CHECK(!has_spool("t/1") && !has_spool("t/2") && has_spool("t/3"));
        CHECK(was_said("a@x.org: 250 2.0.0 queued as 1"));
        CHECK(run(&p, true) && out.sent == 1 && p.n == 3);
        CHECK(run(&p, true) && out.sent == 0 && p.sessions == 2);
        peer_stop(&p);
        peer_free(&p);
        end();
}

TEST(which_smarthost)
{
        struct peer p = { 0 }, q = { 0 };
        struct smarthost one, two, *list[2] = { &one, &two };
        int64_t now = sys_now();

        NEED(begin() && peer_start(&p) && peer_start(&q));
        one = host_of(&p, "one"), two = host_of(&q, "two");
        add_mail("t/1", "two", 1, false, now, now);
        add_mail("t/2", "", 1, false, now, now);
        add_mail("t/3", "three", 1, false, now, now);
        CHECK(outbox_send(l, list, 2, false, NULL, &out, &e) && out.sent == 1 && out.unknown_host == 2 && q.n == 1 && p.n == 0);
        one.name = STR("default");
        CHECK(outbox_send(l, list, 2, false, NULL, &out, &e) && out.sent == 1 && out.unknown_host == 1 && p.n == 1);
        CHECK(outbox_send(l, list, 0, false, NULL, &out, &e) && out.sent == 0 && out.unknown_host == 1);
        peer_stop(&p), peer_stop(&q);
        peer_free(&p), peer_free(&q);
        end();
}

static const char *rcpt_answers[3], *dot_answer;
static int answers(struct peer *p, const char *verb, const char *arg)
{
        const char *text = strcmp(verb, "RCPT") == 0 ? rcpt_answers[arg[4] - 'a'] : strcmp(verb, ".") == 0 ? dot_answer : NULL;

        if (!text)
                return 0;
        peer_say(p, "%s\r\n", text);
        return strncmp(text, "421", 3) == 0 ? CUT : 1;
}

TEST(S08_each_recipient_settles_alone)
{
        struct peer p = { .odd = answers };
        struct outbox_item i;
        int64_t now = sys_now(), id;

        NEED(begin() && peer_start(&p));
        rcpt_answers[0] = "550 5.1.1 nobody", rcpt_answers[1] = "450 4.2.0 later", rcpt_answers[2] = dot_answer = NULL;
        id = add_mail("t/1", "", 3, false, now, now);
        CHECK(run(&p, false) && out.sent == 0 && out.later == 1 && out.dead == 0 && out.worst == ERR_REFUSED);
        NEED(item(id, &i));
        CHECK(i.state == OUTBOX_READY && i.tries == 1 && i.next_try >= now + 60 && i.next_try < now + 70 && i.recipient_count == 1);
        CHECK_STR(i.recipients[0], "b@x.org");
        CHECK_STR(recipients(id), "a@x.org 2 550 5.1.1 nobody\nb@x.org 0 450 4.2.0 later\nc@x.org 1 250 2.0.0 queued as 1\n");
        CHECK(was_said("0 outbox") && was_said("a@x.org: refused: 550 5.1.1 nobody"));
        CHECK(run(&p, false) && out.later == 0 && p.n == 1); /* not due */
        CHECK(run(&p, true) && out.later == 1 && item(id, &i) && i.tries == 2 && i.next_try >= now + 120);
        rcpt_answers[1] = NULL;
        CHECK(run(&p, true) && out.dead == 1 && p.n == 2); /* the last one is accepted; the refused one keeps it as a dead letter */
        CHECK_STR(str_of(p.mail[1].to), "TO:<b@x.org>\n");
        NEED(item(id, &i));
        CHECK(i.state == OUTBOX_DEAD && i.recipient_count == 0 && has_spool("t/1"));
        CHECK_STR(i.answer, "550 5.1.1 nobody");
        CHECK(run(&p, true) && out.sent + out.later + out.dead == 0);
        peer_stop(&p);
        peer_free(&p);
        end();
}

TEST(refused_is_dead_at_once)
{
        struct peer p = { .odd = answers };
        struct outbox_item i;
        int64_t now = sys_now(), id;

        NEED(begin() && peer_start(&p));
        rcpt_answers[0] = rcpt_answers[1] = NULL, dot_answer = "554 5.6.0 spam";
        id = add_mail("t/1", "", 2, false, now, now);
        CHECK(run(&p, false) && out.dead == 1 && out.sent == 0 && out.worst == ERR_REFUSED);
        CHECK(item(id, &i) && i.state == OUTBOX_DEAD);
        CHECK(was_said("554 5.6.0 spam"));
        peer_stop(&p);
        peer_free(&p);
        end();
}

/* Refused by ourselves, in words that begin as a yes does: "2\u00f6@x.org is not ASCII, and the server has no SMTPUTF8". */
TEST(S04_a_refusal_that_begins_with_a_digit)
{
        struct peer p = { 0 };
        struct str who[] = { STR("2\xc3\xb6@x.org"), STR("a@x.org") };
        struct outbox_item i = { .action = STR("aa"), .kind = OUTBOX_MAIL, .state = OUTBOX_READY, .created = sys_now(), .smarthost = STR(""),
                                 .sender = STR(""), .recipients = who, .recipient_count = 2, .spool = STR("t/1"), .subject = STR(""),
                                 .answer = STR(""), .account = STR(""), .source = STR("") };
        int64_t id;

        NEED(begin() && peer_start(&p));
        spool("t/1", "x: y\n\nz\n");
        NEED(ledger_outbox_add(l, &i, &e));
        id = i.id;
        CHECK(run(&p, false) && out.sent == 0 && out.dead == 1 && out.worst == ERR_REFUSED && p.n == 1);
        NEED(item(id, &i));
        CHECK(i.state == OUTBOX_DEAD && i.recipient_count == 0 && has_spool("t/1"));
        CHECK(str_find_str(recipients(id), STR("2\xc3\xb6@x.org 2 2\xc3\xb6@x.org is not ASCII")) == 0);
        peer_stop(&p);
        peer_free(&p);
        end();
}

TEST(backs_off_for_five_days)
{
        struct peer p = { .odd = answers };
        struct outbox_item i;
        int64_t now = sys_now(), id, old, want = 60;

        NEED(begin() && peer_start(&p));
        rcpt_answers[0] = "451 not now", dot_answer = NULL;
        id = add_mail("t/1", "", 1, false, now, now);
        old = add_mail("t/2", "", 1, false, now - 5 * 86400, now);
        for (int k = 0; k < 12; k++) {
                CHECK(run(&p, true) && out.later == 1 && out.dead == (k == 0));
                NEED(item(id, &i));
                CHECK(i.next_try - sys_now() <= want && i.next_try - sys_now() >= want - 2);
                want = want * 2 < 14400 ? want * 2 : 14400;
        }
        CHECK(item(old, &i) && i.state == OUTBOX_DEAD && was_said("given up"));
        peer_stop(&p);
        peer_free(&p);
        end();
}

/* A clock that was years ahead, and has been set right, must not leave mail waiting for those years. */
TEST(D10_a_next_try_that_nobody_planned)
{
        struct peer p = { 0 };
        int64_t now = sys_now();

        NEED(begin() && peer_start(&p));
        add_mail("t/1", "", 1, false, now, now + 10 * 365 * 86400);
        add_mail("t/2", "", 1, false, now, now + 4 * 3600 - 60);
        CHECK(run(&p, false) && out.sent == 1 && p.n == 1 && !has_spool("t/1") && has_spool("t/2"));
        peer_stop(&p);
        peer_free(&p);
        end();
}

TEST(S07_unknown)
{
        struct outbox_item i;

        for (int once = 0; once < 2; once++) {
                struct peer p = { .cut_at = 6, .max_sessions = 1 }; /* greeting EHLO MAIL RCPT DATA . */
                int64_t now = sys_now(), id;

                NEED(begin() && peer_start(&p));
                id = add_mail("t/1", "", 1, once, now, now);
                CHECK(run(&p, false) && p.n == 1);
                NEED(item(id, &i));
                CHECK(once ? i.state == OUTBOX_DEAD && out.dead == 1 && str_starts(i.answer, STR("unknown")) : i.state == OUTBOX_READY && out.later == 1);
                CHECK(once || str_eq(i.action, STR("00112233445566778899aabbccddeeff")));
                peer_stop(&p);
                peer_free(&p);
                end();
        }
}

/* A mail that may go once only and did not go at all is tried again. */
TEST(once_only_is_tried_again_when_it_never_left)
{
        struct outbox_item i;

        for (int k = 1; k < 6; k++) {
                struct peer p = { .cut_at = k };
                int64_t now = sys_now(), id;

                NEED(begin() && peer_start(&p));
                id = add_mail("t/1", "", 1, true, now, now);
                CHECK(run(&p, false) && out.later == 1 && p.n == 0);
                CHECK(item(id, &i) && i.state == OUTBOX_READY && i.tries == 1);
                p.cut_at = 0;
                CHECK(run(&p, true) && out.sent == 1 && p.n == 1 && !item(id, &i));
                peer_stop(&p);
                peer_free(&p);
                end();
        }
}

static int die_at_dot(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, ".") != 0 || p->count++)
                return 0;
        kill((pid_t)p->max_sessions, SIGKILL);
        return CUT;
}

TEST(S12_killed_before_the_answer)
{
        struct outbox_item i;

        for (int once = 0; once < 2; once++) {
                struct peer p = { .odd = die_at_dot };
                int64_t now = sys_now(), id;
                int go[2], status;
                pid_t child;

                NEED(begin() && pipe(go) == 0);
                id = add_mail("t/1", "", 1, once, now, now);
                ledger_close(l);
                p.listener = net_listen_loopback(&p.port, &e);
                child = fork();
                if (child == 0) {
                        char c;
                        if (read(go[0], &c, 1) == 1 && (l = ledger_open(dir, false, &e)))
                                run(&p, false);
                        _exit(0);
                }
                p.max_sessions = (int)child; /* a process id is more sessions than there will be */
                NEED(pthread_create(&p.thread, NULL, peer_main, &p) == 0);
                CHECK(write(go[1], "x", 1) == 1 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
                l = ledger_open(dir, false, &e);
                NEED(l && item(id, &i));
                CHECK(p.n == 1 && i.state == (once ? OUTBOX_DEAD : OUTBOX_READY));
                CHECK(run(&p, true) && out.sent == (once ? 0 : 1) && p.n == (once ? 1 : 2));
                close(go[0]), close(go[1]);
                peer_stop(&p);
                peer_free(&p);
                end();
        }
}

static int bad_login(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, "334") != 0)
                return 0;
        peer_say(p, "535 5.7.8 no\r\n");
        return 1;
}

TEST(a_refused_password_leaves_the_mail_alone)
{
        struct peer p = { .odd = bad_login, .extensions = "250-AUTH PLAIN\r\n" }, q = { 0 };
        struct secret *pw = secret_literal(STR("secret"));
        struct smarthost h, other, *list[2] = { &h, &other };
        struct outbox_item i;
        int64_t now = sys_now(), id;

        NEED(begin() && peer_start(&p) && peer_start(&q) && pw);
        h = host_of(&p, "default"), other = host_of(&q, "other");
        h.user = STR("me"), h.password = pw;
        id = add_mail("t/1", "", 1, false, now - 9 * 86400, now);
        add_mail("t/2", "", 1, false, now, now);
        add_mail("t/3", "other", 1, false, now, now);
        CHECK(outbox_send(l, list, 2, false, NULL, &out, &e) && out.sent == 1 && out.later == 0 && out.dead == 0 && out.untried == 2);
        CHECK(out.worst == ERR_AUTH && p.sessions == 1 && q.n == 1);
        CHECK(item(id, &i) && i.tries == 0 && i.state == OUTBOX_READY && i.next_try == now);
        CHECK(was_said("535 5.7.8 no") && was_said("smarthost default"));
        secret_unref(pw);
        peer_stop(&p), peer_stop(&q);
        peer_free(&p), peer_free(&q);
        end();
}

TEST(nobody_listens)
{
        struct peer p = { 0 };
        struct outbox_item i;
        int64_t now = sys_now(), id;

        NEED(begin() && peer_start(&p));
        peer_stop(&p);
        id = add_mail("t/1", "", 1, false, now, now);
        add_mail("t/2", "", 1, false, now, now);
        CHECK(run(&p, false) && out.later == 2 && out.worst == ERR_NET && item(id, &i) && i.tries == 1);
        CHECK(str_find_str(i.answer, STR("127.0.0.1")) < i.answer.n && i.next_try >= now + 60);
        CHECK(was_said("1 smarthost default: ") && was_said("mail that waits for it: 2") && warnings() == 1);
        peer_free(&p);
        end();
}

static int bye_after_each(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, ".") != 0)
                return 0;
        peer_say(p, "250 ok\r\n");
        return CUT;
}

static int drop_all(struct peer *p, const char *verb, const char *arg) { return strcmp(verb, "MAIL") == 0 ? CUT : 0; }

TEST(sessions_that_end)
{
        struct peer p = { .odd = bye_after_each }, q = { .odd = drop_all };
        int64_t now = sys_now();
        char name[16];

        NEED(begin() && peer_start(&p) && peer_start(&q));
        for (int k = 0; k < 5; k++)
                snprintf(name, sizeof name, "t/%d", k), add_mail(name, "", 1, false, now, now);
        CHECK(run(&p, false) && out.sent == 5 && out.later == 0 && p.n == 5);
        for (int k = 0; k < 9; k++)
                snprintf(name, sizeof name, "t/%d", k), add_mail(name, "", 1, false, now, now);
        CHECK(run(&q, false) && out.sent == 0 && out.later == 9 && q.sessions <= 6); /* and not 9 times */
        peer_stop(&p), peer_stop(&q);
        peer_free(&p), peer_free(&q);
        end();
}

static int drop_a(struct peer *p, const char *verb, const char *arg) { return strcmp(verb, "RCPT") == 0 && arg[4] == 'a' ? CUT : 0; }

static int64_t add_mail_to(const char *name, const struct str *who)
{
        struct outbox_item i = { .action = STR("aa"), .kind = OUTBOX_MAIL, .state = OUTBOX_READY, .created = sys_now(), .next_try = sys_now(),
                                 .smarthost = STR(""), .sender = STR(""), .recipients = who, .recipient_count = 1, .spool = str_of(name),
                                 .subject = STR(""), .answer = STR(""), .account = STR(""), .source = STR("") };

        spool(name, "x: y\n\nz\n");
        return ledger_outbox_add(l, &i, &e) ? i.id : -1;
}

/* Some mails at which the server hangs up do not keep those behind them back for ever. */
TEST(S12_mails_that_end_the_session)
{
        struct peer p = { .odd = drop_a };
        struct outbox_item i;
        char name[16];
        int64_t id;

        NEED(begin() && peer_start(&p));
        for (int k = 0; k < 4; k++)
                snprintf(name, sizeof name, "t/%d", k), add_mail_to(name, &STR("a@x.org"));
        id = add_mail_to("t/9", &STR("b@x.org"));
        CHECK(run(&p, false) && out.sent == 0 && out.later == 5 && p.n == 0);
        CHECK(item(id, &i) && i.state == OUTBOX_READY && i.tries == 0 && i.next_try <= sys_now()); /* it has not been tried */
        CHECK(run(&p, true) && out.sent == 1 && p.n == 1 && !item(id, &i)); /* all are due, and those that have failed come last */
        peer_stop(&p);
        peer_free(&p);
        end();
}

TEST(more_recipients_than_a_transaction_takes)
{
        struct peer p = { 0 };
        struct str who[250];
        struct outbox_item i = { .action = STR("aa"), .kind = OUTBOX_MAIL, .state = OUTBOX_READY, .created = sys_now(), .smarthost = STR(""),
                                 .sender = STR(""), .recipients = who, .recipient_count = 250, .spool = STR("t/1"), .subject = STR(""),
                                 .answer = STR(""), .account = STR(""), .source = STR("") };

        NEED(begin() && peer_start(&p));
        spool("t/1", "x: y\n\nz\n");
        for (int k = 0; k < 250; k++)
                who[k] = arena_printf(a, "u%d@x.org", k);
        NEED(ledger_outbox_add(l, &i, &e));
        CHECK(run(&p, false) && out.sent == 1 && p.n == 3 && peer_count(&p, "RCPT") == 250);
        peer_stop(&p);
        peer_free(&p);
        end();
}

static int die_at_second_dot(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, ".") != 0 || ++p->count != 2)
                return 0;
        kill((pid_t)p->max_sessions, SIGKILL);
        return CUT;
}

static void send_when_told(int fd, const struct peer *p)
{
        char c;

        if (read(fd, &c, 1) == 1 && (l = ledger_open(dir, false, &e)))
                run(p, false);
        _exit(0);
}

/* What the first transaction brought is known, so a crash in the second does not repeat it. */
TEST(S12_killed_between_transactions)
{
        struct peer p = { .odd = die_at_second_dot };
        struct str who[250];
        struct outbox_item i = { .action = STR("aa"), .kind = OUTBOX_MAIL, .state = OUTBOX_READY, .created = sys_now(), .smarthost = STR(""),
                                 .sender = STR(""), .recipients = who, .recipient_count = 250, .spool = STR("t/1"), .subject = STR(""),
                                 .answer = STR(""), .account = STR(""), .source = STR("") };
        int go[2], status;
        pid_t child;

        NEED(begin() && pipe(go) == 0);
        spool("t/1", "x: y\n\nz\n");
        for (int k = 0; k < 250; k++)
                who[k] = arena_printf(a, "u%d@x.org", k);
        NEED(ledger_outbox_add(l, &i, &e));
        ledger_close(l);
        p.listener = net_listen_loopback(&p.port, &e);
        child = fork();
        if (child == 0)
                send_when_told(go[0], &p);
        p.max_sessions = (int)child;
        NEED(pthread_create(&p.thread, NULL, peer_main, &p) == 0);
        CHECK(write(go[1], "x", 1) == 1 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        l = ledger_open(dir, false, &e);
        NEED(l && item(i.id, &i));
        CHECK(i.state == OUTBOX_READY && i.recipient_count == 150);
        CHECK(run(&p, true) && out.sent == 1 && p.n == 4);
        CHECK(peer_count(&p, "RCPT TO:<u0@") == 1 && peer_count(&p, "RCPT TO:<u99@") == 1 && peer_count(&p, "RCPT TO:<u100@") == 2 &&
              peer_count(&p, "RCPT TO:<u249@") == 1);
        close(go[0]), close(go[1]);
        peer_stop(&p);
        peer_free(&p);
        end();
}

/* ---- a stop ---- */

static const char *stop_at;
static int stop_then; /* 0: goes on answering; 1: says nothing any more; else: ms until it answers */
static int stops(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, stop_at) != 0)
                return 0;
        atomic_store(&stop, true);
        if (stop_then == 1) {
                while (peer_more(p))
                        ;
                return CUT;
        }
        usleep((useconds_t)stop_then * 1000);
        return 0;
}

static bool is_as_before(int64_t id, int64_t due)
{
        struct outbox_item i;

        return item(id, &i) && i.state == OUTBOX_READY && i.tries == 0 && i.next_try == due && i.answer.n == 0 && i.recipient_count > 0;
}

/* A mail whose end was sent is waited for; those behind it are left as they were, and go the next time. */
TEST(stop_between_mails)
{
        for (int slow = 0; slow < 2; slow++) {
                struct peer p = { .odd = stops };
                int64_t now = sys_now(), second, third;

                NEED(begin() && peer_start(&p));
                atomic_store(&stop, false), stop_at = ".", stop_then = slow ? 4000 : 0;
                add_mail("t/1", "", 2, false, now, now);
                second = add_mail("t/2", "", 1, false, now, now);
                third = add_mail("t/3", "", 1, true, now, now);
                CHECK(run_until_stopped(&p) && out.stopped && out.sent == 1 && out.left == 2 && out.later == 0 && out.dead == 0);
                CHECK(out.worst == ERR_NONE && p.n == 1 && is_as_before(second, now) && is_as_before(third, now));
                CHECK(was_said("stopped; left in the outbox, ready to be sent: 2") && warnings() == 1);
                atomic_store(&stop, false), stop_at = "";
                CHECK(run_until_stopped(&p) && !out.stopped && out.sent == 2 && out.left == 0);
                peer_stop(&p);
                peer_free(&p);
                end();
        }
}

TEST(stop_in_a_session)
{
        static const struct {
                const char *at;
                int then;
                bool once;
        } t[] = { { "greeting", 0, false }, { "EHLO", 0, true }, { "MAIL", 0, false }, { "RCPT", 0, true }, { "DATA", 0, true },
                  { "greeting", 1, true }, { "RCPT", 1, false } };

        for (size_t k = 0; k < sizeof t / sizeof *t; k++) {
                struct peer p = { .odd = stops };
                int64_t now = sys_now(), id, once, begun = sys_mono_ms();

                NEED(begin() && peer_start(&p));
                atomic_store(&stop, false), stop_at = t[k].at, stop_then = t[k].then;
                id = add_mail("t/1", "", 2, t[k].once, now, now);
                once = add_mail("t/2", "", 1, true, now, now);
                CHECK(run_until_stopped(&p) && out.stopped && out.sent == 0 && out.left == 2 && out.worst == ERR_NONE && p.n == 0);
                CHECK(sys_mono_ms() - begun < (t[k].then ? 8000 : 2500));
                CHECK(is_as_before(id, now) && is_as_before(once, now));
                peer_stop(&p);
                peer_free(&p);
                end();
        }
}

static void *stop_soon(void *ctx)
{
        usleep(300000);
        atomic_store(&stop, true);
        return NULL;
}

TEST(stop_in_a_command)
{
        const struct str argv[] = { STR("sleep"), STR("60") };
        struct outbox_item i;
        pthread_t t;

        for (int once = 0; once < 2; once++) {
                int64_t id, begun = sys_mono_ms();

                NEED(begin());
                atomic_store(&stop, false);
                id = add_command(argv, 2, NULL, once);
                NEED(pthread_create(&t, NULL, stop_soon, NULL) == 0);
                CHECK(outbox_send(l, NULL, 0, false, &stop, &out, &e) && out.commands == 0 && out.left == (once ? 0 : 1) && out.dead == (once ? 1 : 0));
                CHECK(sys_mono_ms() - begun < 10000);
                pthread_join(t, NULL);
                CHECK(item(id, &i) && i.state == (once ? OUTBOX_DEAD : OUTBOX_READY) && i.tries == (unsigned)once);
                CHECK(!once || str_find_str(i.answer, STR("because of a stop")) < i.answer.n);
                end();
        }
}

/* ---- what a server repeats ---- */

static int repeats(struct peer *p, const char *verb, const char *arg)
{
        if (strcmp(verb, "334") != 0)
                return 0;
        peer_say(p, "454-4.7.0 %s\r\n454 no hunter2secret today\r\n", arg);
        return 1;
}

static bool state_holds(const char *what)
{
        char command[300];

        snprintf(command, sizeof command, "grep -rqaF '%s' '%s'", what, dir);
        return system(command) == 0;
}

TEST(T14_a_repeated_password_is_neither_logged_nor_kept)
{
        struct peer p = { .odd = repeats, .extensions = "250-AUTH PLAIN\r\n" };
        struct secret *pw = secret_literal(STR("hunter2secret"));
        struct smarthost h, *list[] = { &h };
        struct outbox_item i;
        int64_t now = sys_now(), id;

        NEED(begin() && peer_start(&p) && pw);
        log_set_level(LOG_DEBUG);
        h = host_of(&p, "default");
        h.user = STR("me"), h.password = pw;
        id = add_mail("t/1", "", 1, false, now, now);
        CHECK(outbox_send(l, list, 1, false, NULL, &out, &e) && out.later == 1 && out.worst == ERR_TEMP);
        NEED(item(id, &i));
        CHECK(str_find_str(i.answer, STR("454 4.7.0 ***")) < i.answer.n && str_find_str(i.answer, STR("no *** today")) == i.answer.n);
        CHECK(state_holds("454 4.7.0") && !state_holds("hunter2secret") && !state_holds("AG1lAGh1bnRlcjJzZWNyZXQ="));
        CHECK(was_said("454 4.7.0") && !was_said("hunter2secret") && !was_said("AG1lAGh1bnRlcjJzZWNyZXQ="));
        log_set_level(LOG_INFO);
        secret_unref(pw);
        peer_stop(&p);
        peer_free(&p);
        end();
}

TEST(spool_gone)
{
        struct peer p = { 0 };
        struct outbox_item i;
        int64_t now = sys_now(), id;
        char path[200];

        NEED(begin() && peer_start(&p));
        id = add_mail("t/1", "", 1, false, now, now);
        snprintf(path, sizeof path, "%s/spool/t/1", dir);
        unlink(path);
        CHECK(run(&p, false) && out.dead == 1 && item(id, &i) && i.state == OUTBOX_DEAD);
        peer_stop(&p);
        peer_free(&p);
        end();
}

/* A bad place of the disk keeps back the mail that lies there, and no other; nothing of it was sent, so it may yet be. */
TEST(D02_one_that_cannot_be_read)
{
        for (int once = 0; once < 2; once++) {
                struct peer p = { 0 };
                struct outbox_item i;
                int64_t now = sys_now(), id, other;
                char path[200];

                NEED(begin() && peer_start(&p));
                id = add_mail("t/1", "", 1, once, now, now);
                other = add_mail("t/2", "", 1, false, now, now);
                snprintf(path, sizeof path, "%s/spool/t/1", dir);
                NEED(unlink(path) == 0 && mkdir(path, 0700) == 0); /* it opens, and cannot be read */
                CHECK(!run(&p, false) && e.code == ERR_IO && out.sent == 1 && out.dead == 0 && !item(other, &i));
                CHECK(is_as_before(id, now) && was_said("outbox 1: "));
                NEED(rmdir(path) == 0);
                spool("t/1", "x: y\n\nz\n");
                CHECK(run(&p, false) && out.sent == 1 && out.dead == 0 && p.n == 2);
                peer_stop(&p);
                peer_free(&p);
                end();
        }
}

TEST(one_sender_at_a_time)
{
        struct peer p = { 0 };
        char path[200];
        int fd;

        NEED(begin());
        snprintf(path, sizeof path, "%s/outbox.lock", dir);
        fd = open(path, O_RDWR | O_CREAT, 0600);
        NEED(fd >= 0 && sys_lock(fd, &e));
        CHECK(!run(&p, false) && e.code == ERR_BUSY);
        close(fd);
        CHECK(run(&p, false));
        end();
}

/* ---- commands ---- */

static struct str slurp_file(const char *name)
{
        char path[200];
        struct str s = STR_NONE;
        size_t n;
        char *p;
        int fd;

        snprintf(path, sizeof path, "%s/%s", dir, name);
        fd = open(path, O_RDONLY);
        p = fd >= 0 ? sys_read_file(fd, 1 << 20, &n, &e) : NULL;
        if (p)
                s = arena_str(a, str_make(p, n));
        mem_free(p);
        if (fd >= 0)
                close(fd);
        return s;
}

TEST(commands)
{
        struct str argv[] = { STR("sh"), STR("-c"), STR(""), STR("sh"), STR("a b"), STR("") };
        struct outbox_item i;
        int64_t id;

        NEED(begin());
        argv[2] = arena_printf(a, "{ echo \"$MAILMILL_ACTION|$1|$2|$#\"; cat; } > '%s/out'", dir);
        id = add_command(argv, 6, "the mail\n", false);
        CHECK(outbox_send(l, NULL, 0, false, NULL, &out, &e) && out.commands == 1 && out.sent == 0);
        CHECK_STR(slurp_file("out"), "00112233445566778899aabbccddeeff|a b||2\nthe mail\n");
        CHECK(!item(id, &i) && !has_spool("t/c"));
        end();
}

/* A run was killed behind its commitment, or another one is on its way to the renames: a command comes once all else is in place. */
TEST(W6_a_command_waits_for_the_names)
{
        const struct str argv[] = { STR("true") };
        struct rename_job r = { .run = STR("t"), .staged_dir = STR("/x"), .staged = STR("s"), .target_dir = STR("/x"), .target = STR("y") };
        struct append_job m = { .run = STR("t"), .path = STR("/x/m"), .staged = STR("t/9") };
        struct outbox_item i;
        int64_t id;

        NEED(begin() && (id = add_command(argv, 1, "x", false)) > 0);
        NEED(ledger_rename_add(l, &r, &e) && ledger_append_add(l, &m, &e));
        for (int k = 0; k < 2; k++) {
                CHECK(outbox_send(l, NULL, 0, true, NULL, &out, &e) && out.commands == 0 && out.later == 1 && out.dead == 0);
                CHECK(item(id, &i) && i.state == OUTBOX_READY && i.tries == 0);
                CHECK(k ? ledger_append_done(l, m.id, &m.from, &e) : ledger_rename_done(l, &r.id, 1, &e));
        }
        r.run = STR("u"); /* another run's */
        CHECK(ledger_rename_add(l, &r, &e) && outbox_send(l, NULL, 0, true, NULL, &out, &e) && out.commands == 1 && out.later == 0);
        end();
}

TEST(commands_that_fail)
{
        const struct str fails[] = { STR("sh"), STR("-c"), STR("cat >/dev/null; exit 3") }, absent[] = { STR("/nonexistent/command") };
        struct outbox_item i;
        int64_t id, other, once;

        NEED(begin());
        id = add_command(fails, 3, "x", false);
        other = add_command(absent, 1, NULL, false);
        once = add_command(fails, 3, "x", true);
        CHECK(outbox_send(l, NULL, 0, false, NULL, &out, &e) && out.commands == 0 && out.later == 2 && out.dead == 1);
        CHECK(item(id, &i) && i.tries == 1 && i.state == OUTBOX_READY && i.next_try >= sys_now() + 55);
        CHECK_STR(i.answer, "sh ended with status 3");
        CHECK(item(other, &i) && i.state == OUTBOX_READY && i.tries == 1);
        CHECK(item(once, &i) && i.state == OUTBOX_DEAD);
        CHECK(has_spool("t/c"));
        end();
}

TEST(flood_guarded_items_wait)
{
        struct peer p = { 0 };
        struct outbox_item i = { .action = STR("aa"), .kind = OUTBOX_MAIL, .state = OUTBOX_WAITING, .created = sys_now(), .smarthost = STR(""),
                                 .sender = STR(""), .recipients = &STR("a@x.org"), .recipient_count = 1, .spool = STR("t/1"), .subject = STR(""),
                                 .answer = STR(""), .account = STR(""), .source = STR("") };
        uint64_t n;

        NEED(begin() && peer_start(&p));
        spool("t/1", "x: y\n\nz\n");
        NEED(ledger_outbox_add(l, &i, &e));
        CHECK(run(&p, true) && out.sent == 0 && p.n == 0);
        CHECK(ledger_outbox_release(l, 0, &n, &e) && n == 1 && run(&p, false) && out.sent == 1);
        i.created -= 9 * 86400; /* the five days count from its release */
        spool("t/1", "x: y\n\nz\n");
        NEED(ledger_outbox_add(l, &i, &e));
        rcpt_answers[0] = "450 4.2.0 greylisted", dot_answer = NULL, p.odd = answers;
        CHECK(ledger_outbox_release(l, i.id, &n, &e) && n == 1 && run(&p, false) && out.later == 1 && out.dead == 0);
        peer_stop(&p);
        peer_free(&p);
        end();
}

TEST_MAIN
