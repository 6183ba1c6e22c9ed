/* The session, over transcripts: whole, cut at every byte, and a byte at a time. */
#include "core/pop3.h"

#include "tests/unit/test.h"

#include "core/mem.h"

static struct pop3 *session(struct str in, struct buf *out, size_t drip, uint64_t cut, struct err *e)
{
        struct stream *s = stream_memory(in, out, e);
        struct lines *l;

        if (s && drip)
                s = stream_drip(s, drip, e);
        if (s && cut)
                s = stream_cut(s, cut, STREAM_EOF, e);
        l = s ? lines_new(s, 1000, e) : NULL;
        return l ? pop3_new(l, e) : NULL;
}

static struct account account(struct str auth)
{
        return (struct account){ .name = STR("a"), .host = STR("h"), .user = STR("mrose"), .password = secret_literal(STR("secret")),
                                 .tls = TLS_NONE, .auth = auth };
}

#define CAPA_ANSWER                                                                                                       \
        "+OK list follows\r\nTOP\r\nuidl\r\nUSER\r\nSTLS\r\nPIPELINING\r\nRESP-CODES\r\nEXPIRE 0\r\nLOGIN-DELAY 900\r\n"      \
        "SASL plain LOGIN cram-md5\r\nIMPLEMENTATION Test server 1.0\r\nX-UNKNOWN y\r\n.\r\n"

TEST(capabilities)
{
        struct err e = { 0 };
        struct buf out = BUF_INIT;
        struct pop3 *p = session(STR("+OK hello\r\n" CAPA_ANSWER "-ERR no\r\n"), &out, 0, 0, &e);
        struct pop3_capa c;

        NEED(p);
        CHECK(pop3_capabilities(p, &c, &e));
        CHECK(c.known && c.top && c.uidl && c.user && c.stls && c.pipelining && c.resp_codes && c.expire_zero);
        CHECK(c.login_delay == 900);
        CHECK_STR(str_of(c.sasl), "PLAIN LOGIN CRAM-MD5");
        CHECK_STR(str_of(c.implementation), "Test server 1.0");
        CHECK(pop3_capabilities(p, &c, &e)); /* T10: what was said before is forgotten */
        CHECK(!c.known && !c.top && !c.sasl[0]);
        CHECK_STR(buf_str(&out), "CAPA\r\nCAPA\r\n");
        pop3_free(p);
        buf_free(&out);
}

TEST(P31_endless_capa)
{
        struct buf in = BUF_INIT;
        struct err e = { 0 };
        struct pop3 *p;

        buf_add_str(&in, STR("+OK\r\n+OK\r\n"));
        for (int i = 0; i < 2000; i++)
                buf_add_str(&in, STR("X\r\n"));
        p = session(buf_str(&in), NULL, 0, 0, &e);
        NEED(p);
        CHECK(!pop3_capabilities(p, NULL, &e) && e.code == ERR_PROTO);
        pop3_free(p);
        buf_free(&in);
}

static enum err_code greeting(struct str in, struct err *e)
{
        struct pop3 *p = session(in, NULL, 0, 0, e);

        if (!p)
                return e->code;
        pop3_free(p);
        return ERR_NONE;
}

TEST(greetings)
{
        struct err e;

        CHECK(greeting(STR("+OK\r\n"), &e) == ERR_NONE);
        CHECK(greeting(STR("+ok dovecot\r\n"), &e) == ERR_NONE);
        CHECK(greeting(STR(" +OK\n"), &e) == ERR_NONE);                       /* P05 */
        CHECK(greeting(STR("+DK\r\n"), &e) == ERR_PROTO);
        CHECK(greeting(STR("OK\r\n"), &e) == ERR_PROTO);
        CHECK(greeting(STR("\r\n"), &e) == ERR_PROTO);
        CHECK(greeting(STR("+OKAY\r\n"), &e) == ERR_PROTO);
        CHECK(greeting(STR("-ERR [IN-USE] locked\r\n"), &e) == ERR_BUSY);     /* P02 */
        CHECK(greeting(STR("-ERR [SYS/PERM] gone\r\n"), &e) == ERR_REFUSED);
        CHECK(greeting(STR("-ERR\r\n"), &e) == ERR_TEMP);
        CHECK(greeting(STR(""), &e) == ERR_NET);
        CHECK(greeting(STR("-ERR \x1b[2J\a evil\r\n"), &e) == ERR_TEMP);      /* P04 */
        CHECK(!strchr(e.text, '\x1b') && !strchr(e.text, '\a') && strstr(e.text, "\\x1b[2J"));
}

/* Logs in; what was sent, and the error. */
static bool login(struct str in, struct str auth, struct buf *out, struct err *e)
{
        struct account a = account(auth);
        struct pop3 *p = session(in, out, 0, 0, e);
        struct pop3_capa c;
        bool ok = p && pop3_capabilities(p, &c, e) && pop3_login(p, &a, e);

        pop3_free(p);
        secret_unref(a.password);
        return ok;
}

#define OFFERS(sasl) "+OK hi <1.2@x>\r\n+OK\r\nUSER\r\nSASL " sasl "\r\n.\r\n"

static const struct {
        const char *what, *in, *auth, *sent;
        enum err_code code; /* ERR_NONE: logged in */
} logins[] = {
        { "USER and PASS", "+OK\r\n-ERR\r\n+OK\r\n+OK\r\n", "", "CAPA\r\nUSER mrose\r\nPASS secret\r\n", ERR_NONE },
        { "PLAIN in two steps", OFFERS("PLAIN") "+ \r\n+OK\r\n", "", "CAPA\r\nAUTH PLAIN\r\nAG1yb3NlAHNlY3JldA==\r\n", ERR_NONE },
        { "+OK where + is due", OFFERS("PLAIN") "+OK\r\n+OK\r\n", "", "CAPA\r\nAUTH PLAIN\r\nAG1yb3NlAHNlY3JldA==\r\n", ERR_NONE },
        { "a refused mechanism, then the next", OFFERS("PLAIN LOGIN") "-ERR no\r\n+ VXNlcjo=\r\n+ UGFzczo=\r\n+OK\r\n", "",
          "CAPA\r\nAUTH PLAIN\r\nAUTH LOGIN\r\nbXJvc2U=\r\nc2VjcmV0\r\n", ERR_NONE },
        { "all refused, then USER", OFFERS("PLAIN") "-ERR no\r\n+OK\r\n+OK\r\n", "", "CAPA\r\nAUTH PLAIN\r\nUSER mrose\r\nPASS secret\r\n",
          ERR_NONE },
        { "a refused proof ends it", OFFERS("PLAIN LOGIN") "+ \r\n-ERR no\r\n+OK\r\n+OK\r\n", "",
          "CAPA\r\nAUTH PLAIN\r\nAG1yb3NlAHNlY3JldA==\r\n", ERR_AUTH },
        { "the lock is busy", OFFERS("PLAIN LOGIN") "+ \r\n-ERR [IN-USE] x\r\n", "", "CAPA\r\nAUTH PLAIN\r\nAG1yb3NlAHNlY3JldA==\r\n", ERR_BUSY },
        { "[SYS/TEMP] before a proof", OFFERS("PLAIN LOGIN") "-ERR [SYS/TEMP] x\r\n", "", "CAPA\r\nAUTH PLAIN\r\n", ERR_TEMP },
        { "only what was asked for", OFFERS("PLAIN LOGIN") "+OK\r\n+OK\r\n", "user", "CAPA\r\nUSER mrose\r\nPASS secret\r\n", ERR_NONE },
        { "not offered", OFFERS("PLAIN") "", "login", "CAPA\r\n", ERR_REFUSED },
        { "offer not known", "+OK\r\n-ERR\r\n+ \r\n+OK\r\n", "plain", "CAPA\r\nAUTH PLAIN\r\nAG1yb3NlAHNlY3JldA==\r\n", ERR_NONE },
        { "APOP", "+OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>\r\n-ERR\r\n+OK\r\n", "apop",
          "CAPA\r\nAPOP mrose 3f18b52881e44c0cc6067f46e0ced7bc\r\n", ERR_NONE },
        { "APOP without a stamp", "+OK\r\n-ERR\r\n+OK\r\n", "apop", "CAPA\r\n", ERR_REFUSED },
        { "APOP is not volunteered", OFFERS("") "+OK\r\n+OK\r\n", "", "CAPA\r\nUSER mrose\r\nPASS secret\r\n", ERR_NONE },
        { "a challenge that is none", OFFERS("CRAM-MD5") "+ ***\r\n", "", "CAPA\r\nAUTH CRAM-MD5\r\n", ERR_PROTO },
        { "SCRAM without the server's proof", OFFERS("SCRAM-SHA-1") "+ \r\n+OK\r\n", "", NULL, ERR_AUTH },
        { "garbage for a challenge", OFFERS("PLAIN") "hello\r\n", "", "CAPA\r\nAUTH PLAIN\r\n", ERR_PROTO },
        { "wrong password", "+OK\r\n-ERR\r\n+OK\r\n-ERR [AUTH] no\r\n", "", "CAPA\r\nUSER mrose\r\nPASS secret\r\n", ERR_AUTH },
        { "the password repeated", "+OK\r\n-ERR\r\n+OK\r\n-ERR secret is not it, secret\r\n", "", "CAPA\r\nUSER mrose\r\nPASS secret\r\n", ERR_AUTH },
        { "the proof taken for a command", OFFERS("PLAIN") "+OK\r\n-ERR what is AG1yb3NlAHNlY3JldA==\r\n", "",
          "CAPA\r\nAUTH PLAIN\r\nAG1yb3NlAHNlY3JldA==\r\n", ERR_AUTH },
};

TEST(logging_in)
{
        for (size_t i = 0; i < sizeof logins / sizeof *logins; i++) {
                struct buf out = BUF_INIT;
                struct err e = { 0 };
                bool ok = login(str_of(logins[i].in), str_of(logins[i].auth), &out, &e);

                if (ok != (logins[i].code == ERR_NONE) || (!ok && e.code != logins[i].code))
                        printf("%s: %s\n", logins[i].what, ok ? "logged in" : e.text), test_bad++;
                if (logins[i].sent && !CHECK_STR(buf_str(&out), logins[i].sent))
                        printf("%s\n", logins[i].what);
                CHECK(strstr(e.text, "secret") == NULL && strstr(e.text, "AG1yb3NlAHNlY3JldA") == NULL);
                buf_free(&out);
        }
}

TEST(no_password_in_the_clear)
{
        struct account a = account(STR_NONE);
        struct buf out = BUF_INIT;
        struct err e = { 0 };
        struct pop3 *p = session(STR("+OK\r\n+OK\r\n+OK\r\n"), &out, 0, 0, &e);

        NEED(p);
        a.tls = TLS_STARTTLS;
        CHECK(!pop3_stls(p, &a, &e) && e.code == ERR_TLS); /* T05: not offered */
        CHECK(!pop3_login(p, &a, &e) && e.code == ERR_TLS);
        CHECK(out.n == 0);
        pop3_free(p);
        secret_unref(a.password);
        buf_free(&out);
}

/* Through the whole conversation; true when a list of the right two messages came out. */
/* The whole listing, in the arena. */
static bool listed(struct pop3 *p, struct pop3_item **items, size_t *n, struct arena *a, struct err *e)
{
        struct pop3_listing *l = pop3_list(p, e);
        bool ok = l;

        *n = ok ? pop3_listing_count(l) : 0;
        if (ok && !(*items = arena_alloc(a, (*n + 1) * sizeof **items)))
                ok = err_nomem(e);
        for (size_t i = 0; ok && i < *n; i++) {
                ok = pop3_listing_item(l, i, &(*items)[i], e);
                if (ok && (*items)[i].uid.n > 0 && !((*items)[i].uid = arena_str(a, (*items)[i].uid)).p)
                        ok = err_nomem(e);
        }
        pop3_listing_free(l);
        return ok;
}

static bool converse(struct str in, size_t drip, uint64_t cut, struct err *e)
{
        struct account a = account(STR_NONE);
        struct pop3 *p = session(in, NULL, drip, cut, e);
        struct arena *arena = arena_new(0);
        struct pop3_item *items;
        struct pop3_capa c;
        size_t n = 0;
        bool ok = p && pop3_capabilities(p, &c, e) && pop3_login(p, &a, e) && listed(p, &items, &n, arena, e) && pop3_quit(p, e);

        if (ok)
                ok = n == 2 && items[0].number == 1 && items[0].size == 120 && str_eq(items[0].uid, STR("whqtswO00WBw418f9t5JxYwZ")) &&
                     items[1].number == 2 && items[1].size == 200 && str_eq(items[1].uid, STR("QhdPYR:00WBw1Ph7x7"));
        pop3_free(p);
        arena_free(arena);
        secret_unref(a.password);
        return ok;
}

TEST(whole_cut_and_dripped)
{
        struct str in = STR("+OK hi\r\n+OK\r\nUIDL\r\nPIPELINING\r\nSASL PLAIN\r\n.\r\n+ \r\n+OK\r\n+OK 2 320\r\n+OK 2 messages\r\n1 120\r\n2 200\r\n.\r\n"
                            "+OK\r\n1 whqtswO00WBw418f9t5JxYwZ\r\n2 QhdPYR:00WBw1Ph7x7\r\n.\r\n+OK bye\r\n");
        struct err e = { 0 };

        CHECK(converse(in, 0, 0, &e));
        CHECK(converse(in, 1, 0, &e));
        for (uint64_t k = 1; k < in.n; k++) {
                e = (struct err){ 0 };
                CHECK(!converse(in, 0, k, &e) && e.code == ERR_NET);
        }
}

TEST(every_allocation_fails_once)
{
        struct str in = STR("+OK hi\r\n+OK\r\nUIDL\r\nPIPELINING\r\nSASL PLAIN\r\n.\r\n+ \r\n+OK\r\n+OK 2 320\r\n+OK 2 messages\r\n1 120\r\n2 200\r\n.\r\n"
                            "+OK\r\n1 whqtswO00WBw418f9t5JxYwZ\r\n2 QhdPYR:00WBw1Ph7x7\r\n.\r\n+OK bye\r\n");
        struct account a = account(STR_NONE);
        bool ok = false;

        for (size_t n = 1; !ok && n < 1000; n++) {
                struct arena *arena = arena_new(0);
                struct pop3_item *items;
                struct err e = { 0 };
                struct pop3 *p;
                size_t count;

                mem_fail_at(n);
                p = session(in, NULL, 0, 0, &e);
                ok = p && pop3_capabilities(p, NULL, &e) && pop3_login(p, &a, &e) && listed(p, &items, &count, arena, &e);
                mem_fail_at(0);
                CHECK(ok || e.code == ERR_NOMEM);
                pop3_free(p);
                arena_free(arena);
        }
        CHECK(ok);
        secret_unref(a.password);
}

static bool list(struct str answers, struct pop3_item **items, size_t *n, struct arena *a, struct err *e)
{
        struct buf in = BUF_INIT;
        struct pop3 *p;
        bool ok;

        buf_add_str(&in, STR("+OK\r\n"));
        buf_add_str(&in, answers);
        p = session(buf_str(&in), NULL, 0, 0, e);
        ok = p && listed(p, items, n, a, e);
        pop3_free(p);
        buf_free(&in);
        return ok;
}

TEST(P13_uids)
{
        static const char answers[] = "+OK 5 1\r\n+OK\r\n1 1\r\n2 1\r\n3 1\r\n4 1\r\n5 1\r\n.\r\n+OK\r\n1 ../../../tmp/x\r\n2 a\0\xff %s%n\r\n3\r\n4 a\r\n5 a\r\n.\r\n";
        struct arena *a = arena_new(0);
        struct pop3_item *items;
        struct err e = { 0 };
        size_t n;

        NEED(list(str_make(answers, sizeof answers - 1), &items, &n, a, &e) && n == 5);
        CHECK_STR(items[0].uid, "../../../tmp/x");
        CHECK(items[1].uid.n == 8 && memcmp(items[1].uid.p, "a\0\xff %s%n", 8) == 0);
        CHECK(items[2].uid.n == 0);
        CHECK(!items[0].twin && items[3].twin && items[4].twin);
        arena_free(a);
}

TEST(P13_long_uid)
{
        struct arena *a = arena_new(0);
        struct buf b = BUF_INIT;
        struct pop3_item *items;
        struct err e = { 0 };
        size_t n;

        buf_add_str(&b, STR("+OK 1 1\r\n+OK\r\n1 1\r\n.\r\n+OK\r\n1 "));
        for (int i = 0; i < 5000; i++)
                buf_add_char(&b, 'u');
        buf_add_str(&b, STR("\r\n.\r\n"));
        CHECK(list(buf_str(&b), &items, &n, a, &e) && n == 1 && items[0].uid.n == 0);
        buf_free(&b);
        arena_free(a);
}

/* P06, P07: what STAT says decides nothing. */
TEST(P06_stat)
{
        static const char *const stats[] = { "-1 -5", "99999999999999999999 1", "3", "0x10 9", "3 1 junk", "1000000000 1", "" };

        for (size_t i = 0; i < sizeof stats / sizeof *stats; i++) {
                struct arena *a = arena_new(0);
                struct buf b = BUF_INIT;
                struct pop3_item *items;
                struct err e = { 0 };
                size_t n;

                buf_printf(&b, "+OK %s\r\n+OK\r\n1 5\r\n2 5\r\n.\r\n+OK\r\n2 b\r\n1 a\r\n.\r\n", stats[i]);
                CHECK(list(buf_str(&b), &items, &n, a, &e) && n == 2);
                buf_free(&b);
                arena_free(a);
        }
}

/* P12: both lists stop at a named number. */
TEST(P12_endless_lists)
{
        struct arena *a = arena_new(0);
        struct buf b = BUF_INIT;
        struct pop3_item *items;
        struct err e = { 0 };
        size_t n;

        buf_add_str(&b, STR("+OK 1 1\r\n+OK\r\n1 1\r\n.\r\n+OK\r\n"));
        for (int i = 1; i < (1 << 20) + 10; i++)
                buf_printf(&b, "%d u%d\r\n", i, i);
        CHECK(!list(buf_str(&b), &items, &n, a, &e) && e.code == ERR_LIMIT);
        buf_free(&b);
        arena_free(a);
}

/* Numbers from the last to the first, UIDs in no order, some for two messages, and more of them than are kept in memory. */
TEST(P12_many_in_no_order)
{
        enum { N = 40009, STEP = 7919, TWINS = 5000 };
        struct arena *a = arena_new(0);
        struct buf b = BUF_INIT;
        struct pop3_item *items;
        struct err e = { 0 };
        size_t n, wrong = 0;
        char uid[64];

        buf_add_str(&b, STR("+OK 1 1\r\n+OK\r\n"));
        for (int i = N; i > 0; i--)
                buf_printf(&b, "%d %d\r\n", i + 7, i * 3);
        buf_add_str(&b, STR(".\r\n+OK\r\n"));
        for (int i = 0; i < N; i++) {
                int k = (int)((int64_t)i * STEP % N);

                buf_printf(&b, "%d u%045d\r\n", k + 8, k < TWINS ? k / 2 : k);
        }
        buf_add_str(&b, STR(".\r\n"));
        NEED(list(buf_str(&b), &items, &n, a, &e) && n == N);
        for (int k = 0; k < N; k++) {
                snprintf(uid, sizeof uid, "u%045d", k < TWINS ? k / 2 : k);
                wrong += items[k].number != (uint32_t)k + 8 || items[k].size != (uint64_t)(k + 1) * 3 || !str_eq(items[k].uid, str_of(uid)) ||
                         items[k].twin != (k < TWINS);
        }
        CHECK(wrong == 0);
        buf_free(&b);
        arena_free(a);
}

TEST(quit)
{
        struct err e = { 0 };
        struct pop3 *p = session(STR("+OK\r\n-ERR [SYS/TEMP] some not removed\r\n"), NULL, 0, 0, &e);

        NEED(p);
        CHECK(!pop3_quit(p, &e) && e.code == ERR_TEMP);
        pop3_free(p);
}

TEST_MAIN
