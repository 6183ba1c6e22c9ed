/* The built-in server: its answers over a plain socket, and the client against it with TLS. */
#include <arpa/inet.h>
#include <stdatomic.h>

#include "core/server.h"
#include "tests/unit/pop3_peer.h"
#include "tests/unit/test.h"

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
        buf_printf(&b, "From: a@x\nSubject: %u\n\n.body %u\n.\nend", l->at, l->at);
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

struct running {
        struct server *s;
        pthread_t t;
};
static bool up(struct running *r, struct tls_server *tls, bool stls)
{
        struct listed src = { .s = { .ops = &listed_ops }, .n = 3 };
        struct server_options o = { .user = STR("me"), .password = STR("pw"), .stopped = stopped, .tls = tls, .stls = stls };
        struct err e = { 0 };

        stop = false;
        r->s = server_new(&src.s, &o, &e);
        if (!r->s)
                printf("%s\n", e.text);
        return r->s && pthread_create(&r->t, NULL, run_server, r->s) == 0;
}
static void down(struct running *r)
{
        stop = true;
        pthread_join(r->t, NULL);
        server_free(r->s);
}

/* Sends it all in one piece, reads until the server closes. */
static struct buf talk(const struct running *r, const char *send_this)
{
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)server_port(r->s)), .sin_addr = { htonl(INADDR_LOOPBACK) } };
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct buf b = BUF_INIT;
        char block[4096];
        ssize_t n;

        if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && send(fd, send_this, strlen(send_this), MSG_NOSIGNAL) > 0) {
                shutdown(fd, SHUT_WR);
                while ((n = recv(fd, block, sizeof block, 0)) > 0)
                        buf_add(&b, block, (size_t)n);
        }
        close(fd);
        return b;
}

static void same(const struct running *r, const char *in, const char *want)
{
        struct buf b = talk(r, in);
        struct str got = buf_str(&b);

        str_take(&got, '\n'); /* the greeting */
        if (!CHECK_STR(got, want))
                printf("for %s\n", in);
        buf_free(&b);
}

#define LOGIN "USER me\r\nPASS pw\r\n"
#define IN "+OK\r\n+OK 3 messages\r\n"

TEST(conversations)
{
        struct running r;

        NEED(up(&r, NULL, false));
        same(&r, "CAPA\r\nQUIT\r\n",
             "+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nEXPIRE NEVER\r\nUSER\r\nSASL PLAIN\r\nIMPLEMENTATION mailmill " MAILMILL_VERSION
             "\r\n.\r\n+OK bye\r\n");
        same(&r, "LIST\r\nNONSENSE\r\nPASS x\r\nSTLS\r\nQUIT\r\n",
             "-ERR log in first\r\n-ERR unknown command\r\n-ERR USER comes first\r\n-ERR not now\r\n+OK bye\r\n");
        same(&r, LOGIN "STAT\r\nLIST\r\nLIST 2\r\nLIST 4\r\nLIST 0\r\nLIST x\r\nQUIT\r\n",
             IN "+OK 3 126\r\n+OK\r\n1 42\r\n2 42\r\n3 42\r\n.\r\n+OK 2 42\r\n-ERR no such message\r\n-ERR no such message\r\n-ERR no such message\r\n+OK bye\r\n");
        same(&r, LOGIN "RETR 1\r\nTOP 2 0\r\nTOP 2 1\r\nTOP 2\r\nQUIT\r\n",
             IN "+OK 42 octets\r\nFrom: a@x\r\nSubject: 0\r\n\r\n..body 0\r\n..\r\nend\r\n.\r\n"
                "+OK\r\nFrom: a@x\r\nSubject: 1\r\n\r\n.\r\n+OK\r\nFrom: a@x\r\nSubject: 1\r\n\r\n..body 1\r\n.\r\n-ERR TOP message lines\r\n+OK bye\r\n");
        same(&r, "AUTH PLAIN AG1lAHB3\r\nAUTH PLAIN AG1lAHB3\r\nNOOP\r\nQUIT\r\n", "+OK 3 messages\r\n-ERR already logged in\r\n+OK\r\n+OK bye\r\n");
        same(&r, "AUTH PLAIN\r\n*\r\nAUTH PLAIN\r\nAG1lAHB3\r\nQUIT\r\n", "+ \r\n-ERR cancelled\r\n+ \r\n+OK 3 messages\r\n+OK bye\r\n");
        same(&r, "AUTH GSSAPI\r\nQUIT\r\n", "-ERR only PLAIN is known here\r\n+OK bye\r\n");
        down(&r);
}

TEST(deletion_at_quit_only)
{
        struct running r;

        NEED(up(&r, NULL, false));
        same(&r, LOGIN "DELE 1\r\nDELE 1\r\nSTAT\r\nRSET\r\nSTAT\r\nDELE 1\r\n",
             IN "+OK deleted\r\n-ERR no such message\r\n+OK 2 84\r\n+OK\r\n+OK 3 126\r\n+OK deleted\r\n");
        same(&r, LOGIN "DELE 1\r\nQUIT\r\n", IN "+OK deleted\r\n+OK bye\r\n");
        same(&r, LOGIN "STAT\r\nLIST\r\nQUIT\r\n", "+OK\r\n+OK 2 messages\r\n+OK 2 84\r\n+OK\r\n1 42\r\n2 42\r\n.\r\n+OK bye\r\n");
        down(&r);
}

TEST(wrong_passwords)
{
        struct running r;

        NEED(up(&r, NULL, false));
        same(&r, "USER me\r\nPASS x\r\nUSER you\r\nPASS pw\r\nUSER me\r\nPASS \r\nNOOP\r\n",
             "+OK\r\n-ERR [AUTH] wrong user name or password\r\n+OK\r\n-ERR [AUTH] wrong user name or password\r\n+OK\r\n"
             "-ERR [AUTH] wrong user name or password\r\n");
        down(&r);
}

static int login_by_hand(const struct running *r)
{
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)server_port(r->s)), .sin_addr = { htonl(INADDR_LOOPBACK) } };
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        char block[4096];
        size_t n = 0;
        ssize_t got;

        if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0 || send(fd, LOGIN, strlen(LOGIN), 0) < 0)
                return -1;
        while ((got = recv(fd, block + n, sizeof block - 1 - n, 0)) > 0) {
                block[n += (size_t)got] = 0;
                if (strstr(block, "messages"))
                        return fd;
        }
        return -1;
}

TEST(one_session_at_a_time)
{
        struct running r;
        int fd;

        NEED(up(&r, NULL, false));
        fd = login_by_hand(&r);
        NEED(fd >= 0);
        same(&r, LOGIN "QUIT\r\n", "+OK\r\n-ERR [IN-USE] another session has the mailbox\r\n+OK bye\r\n");
        close(fd);
        for (int i = 0; i < 100; i++) { /* it notices */
                fd = login_by_hand(&r);
                if (fd >= 0)
                        break;
        }
        CHECK(fd >= 0);
        down(&r); /* with a session open: it is sent home */
        close(fd);
}

TEST(hostile_clients)
{
        struct running r;
        struct buf b = BUF_INIT, got;

        NEED(up(&r, NULL, false));
        for (int i = 0; i < 100000; i++)
                buf_add_char(&b, 'x');
        buf_add_char(&b, 0);
        got = talk(&r, b.p);
        CHECK(got.n < 100);
        buf_free(&got);
        buf_clear(&b);
        for (int i = 0; i < 500; i++)
                buf_add_str(&b, STR("FOO\r\n"));
        buf_add_char(&b, 0);
        got = talk(&r, b.p);
        CHECK(got.n < 100 + 100 * 22);
        buf_free(&got);
        buf_free(&b);
        down(&r);
}

/* ---- TLS */

static char dir[64];

static bool certificate(void)
{
        char command[1024];

        snprintf(dir, sizeof dir, "/tmp/mailmill-server-XXXXXX");
        if (!mkdtemp(dir))
                return false;
        snprintf(command, sizeof command,
                 "cd %s && exec 2>/dev/null && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem "
                 "-out cert.pem -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1", dir);
        return system(command) == 0;
}

/* One run of the POP3 source; delivered messages, or -1. */
static int fetch(const struct running *r, enum tls_mode mode, const char *ca, struct state *st, struct err *e)
{
        struct account acc = { .name = STR("a"), .host = STR("localhost"), .user = STR("me"), .port = server_port(r->s), .tls = mode,
                               .ca_file = str_of(ca), .password = secret_literal(STR("pw")), .timeout_ms = 10000, .leave = LEAVE_ALWAYS };
        struct pop3_options o = { .now = 1800000000 };
        struct ledger_account la;
        struct source *src;
        int n = 0;
        bool ok;

        if (!ledger_account(st->l, acc.name, STR("x"), &la, st->a, e))
                return -1;
        src = pop3_source(&acc, &la, st->l, &limits_default, st->dir, &o, e);
        for (;;) {
                struct message *m;
                struct outcome out = { 0 };

                ok = src->ops->next(src, &m, e);
                if (!ok || !m)
                        break;
                n++;
                out.number = message_origin(m)->number;
                message_free(m);
                src->ops->settle(src, &out, 1);
        }
        ok = ok && src->ops->finish(src, e);
        source_free(src);
        secret_unref(acc.password);
        return ok ? n : -1;
}

TEST(implicit_tls_and_stls)
{
        char cert[100], key[100];
        struct tls_server *tls;
        struct running r;
        struct state st;
        struct err e = { 0 };

        NEED(certificate() && state_open(&st));
        snprintf(cert, sizeof cert, "%s/cert.pem", dir);
        snprintf(key, sizeof key, "%s/key.pem", dir);
        tls = tls_server_new(cert, key, &e);
        NEED(tls);

        NEED(up(&r, tls, false));
        CHECK(fetch(&r, TLS_IMPLICIT, cert, &st, &e) == 3);
        CHECK(fetch(&r, TLS_IMPLICIT, "", &st, &e) == -1 && e.code == ERR_TLS); /* T01: nobody we know signed it */
        down(&r);

        NEED(up(&r, tls, true));
        CHECK(fetch(&r, TLS_STARTTLS, cert, &st, &e) == 3);
        CHECK(fetch(&r, TLS_STARTTLS, "", &st, &e) == -1 && e.code == ERR_TLS);
        CHECK(fetch(&r, TLS_IMPLICIT, cert, &st, &e) == -1 && e.code == ERR_TLS); /* T11: a plain server */
        same(&r, LOGIN "AUTH PLAIN AG1lAHB3\r\nQUIT\r\n",
             "-ERR STLS comes first\r\n-ERR STLS comes first\r\n-ERR STLS comes first\r\n+OK bye\r\n");
        down(&r);

        NEED(up(&r, NULL, false));
        CHECK(fetch(&r, TLS_STARTTLS, cert, &st, &e) == -1 && e.code == ERR_TLS); /* T05: STLS not offered */
        down(&r);

        tls_server_free(tls);
        state_close(&st);
        snprintf(cert, sizeof cert, "rm -rf %s", dir);
        CHECK(system(cert) == 0);
}

TEST_MAIN
