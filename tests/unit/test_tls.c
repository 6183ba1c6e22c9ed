/* TLS against servers with certificates of every kind, made by the openssl command in a temporary directory. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/lines.h"
#include "core/pool.h"
#include "core/sys.h"
#include "core/tls.h"
#include "tests/unit/test.h"

static struct err e;
static char dir[64];

static bool run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool run(const char *fmt, ...)
{
        char command[2048];
        va_list ap;
        int n = snprintf(command, sizeof command, "cd %s && exec 2>>log >>log; ", dir);

        va_start(ap, fmt);
        vsnprintf(command + n, sizeof command - (size_t)n, fmt, ap);
        va_end(ap);
        return system(command) == 0;
}

/* NAME.pem and NAME.key, signed by the authority CA. Not before and not after as openssl ca wants them. */
static bool make(const char *name, const char *ca, const char *cn, const char *san, const char *from, const char *to)
{
        return run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %s.key -out %s.csr -subj '/CN=%s'",
                   name, name, cn) &&
               run("printf 'subjectAltName=%s\\n' > ext && touch index.txt && printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index.txt\\n"
                   "new_certs_dir=.\\nrand_serial=yes\\ndefault_md=sha256\\npolicy=p\\nunique_subject=no\\n[p]\\ncommonName=supplied\\n' > conf",
                   san) &&
               run("openssl ca -batch -config conf -cert %s.pem -keyfile %s.key -in %s.csr -out %s.pem -notext "
                   "-startdate %s -enddate %s -extfile ext", ca, ca, name, name, from, to);
}

static bool make_ca(const char *name)
{
        return run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %s.key -out %s.pem "
                   "-days 3650 -subj '/CN=%s'", name, name, name);
}

/* crl.pem: the authority and its list, on which "revoked" stands. */
static bool make_crl(void)
{
        return run("openssl ca -config conf -cert ca.pem -keyfile ca.key -revoke revoked.pem && "
                   "openssl ca -config conf -cert ca.pem -keyfile ca.key -gencrl -crldays 30 -out list.pem && cat ca.pem list.pem >crl.pem");
}

/* long.pem: a server's certificate below 100 authorities. */
static bool make_chain(void)
{
        return run("cp ca.key long.key; prev=ca; for i in $(seq 100); do openssl req -x509 -new -key ca.key -CA $prev.pem -CAkey ca.key "
                   "-subj /CN=i$i -days 30 -addext basicConstraints=critical,CA:TRUE -out i$i.pem || exit 1; prev=i$i; "
                   "cat i$i.pem chain >chain2; mv chain2 chain; done; openssl req -x509 -new -key ca.key -CA $prev.pem -CAkey ca.key "
                   "-subj /CN=mail.example.com -days 30 -addext subjectAltName=DNS:mail.example.com -out leaf.pem && cat leaf.pem chain >long.pem");
}

static void remove_dir(void)
{
        char command[100];

        snprintf(command, sizeof command, "rm -rf %s", dir);
        if (system(command) != 0)
                puts("could not clean up");
}

/* Once. */
static bool certificates(void)
{
        static int made;
        const char *ago = "20200101000000Z", *soon = "20491231000000Z";

        if (made)
                return made > 0;
        snprintf(dir, sizeof dir, "/tmp/mailmill-tls-XXXXXX");
        made = mkdtemp(dir) && make_ca("ca") && make_ca("other") &&
                               make("good", "ca", "mail.example.com", "DNS:mail.example.com,IP:127.0.0.1", ago, soon) &&
                               make("expired", "ca", "mail.example.com", "DNS:mail.example.com", ago, "20210101000000Z") &&
                               make("early", "ca", "mail.example.com", "DNS:mail.example.com", "20480101000000Z", soon) &&
                               make("wrong", "ca", "mail.example.com", "DNS:other.example.com", ago, soon) &&
                               make("star", "ca", "star", "DNS:*.com,DNS:mail.*.com,DNS:ma*.example.com", ago, soon) &&
                               make("wild", "ca", "wild", "DNS:*.example.com", ago, soon) &&
                               make("ipname", "ca", "ipname", "DNS:127.0.0.1", ago, soon) &&
                               make("revoked", "ca", "mail.example.com", "DNS:mail.example.com", ago, soon) && make_crl() && make_chain() &&
                               make("unknown", "other", "mail.example.com", "DNS:mail.example.com", ago, soon)
                       ? 1 : -1;
        atexit(remove_dir);
        return made > 0;
}

enum ending { SAY_BYE, CUT };
struct server {
        int fd;
        const char *cert;
        int max_version; /* of TLS; 0: the newest */
        enum ending ending;
        char got[64]; /* what came after the handshake */
        bool shaken;
};

static SSL_CTX *server_context(const struct server *v)
{
        SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
        char cert[128], key[128];

        snprintf(cert, sizeof cert, "%s/%s.pem", dir, v->cert);
        snprintf(key, sizeof key, "%s/%s.key", dir, v->cert);
        if (!SSL_CTX_use_certificate_chain_file(ctx, cert) ||
            !SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM))
                printf("cannot use %s\n", cert);
        if (v->max_version) {
                SSL_CTX_set_cipher_list(ctx, "ALL:@SECLEVEL=0");
                SSL_CTX_set_min_proto_version(ctx, 0);
                SSL_CTX_set_max_proto_version(ctx, v->max_version);
        }
        return ctx;
}

/* A server of its own making, that can end without close_notify. */
static void serve(void *arg)
{
        struct server *v = arg;
        SSL_CTX *ctx = server_context(v);
        SSL *ssl = SSL_new(ctx);

        SSL_set_fd(ssl, v->fd);
        if (SSL_accept(ssl) == 1) {
                v->shaken = true;
                if (SSL_write(ssl, "+OK hello\r\n", 11) == 11)
                        SSL_read(ssl, v->got, sizeof v->got - 1);
                if (v->ending == SAY_BYE)
                        SSL_shutdown(ssl);
        }
        close(v->fd);
        SSL_free(ssl);
        SSL_CTX_free(ctx);
}

static struct tls_options options(const char *host)
{
        static char ca[128];

        certificates();
        snprintf(ca, sizeof ca, "%s/ca.pem", dir);
        return (struct tls_options){ .host = str_of(host), .ca_file = str_of(ca) };
}

static struct thread *start(struct server *v, int *fd)
{
        int pair[2];

        if (!certificates() || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
                return NULL;
        v->fd = pair[1];
        *fd = pair[0];
        return thread_start(serve, v, "server", &e);
}

/* Connects, says one line, hears one; true when the handshake went well. Afterwards e is what ended it. */
static bool talk(struct server *v, struct tls_options o)
{
        struct stream *s;
        struct thread *t;
        struct lines *l;
        struct str line;
        bool ok = false;
        int fd = -1;

        t = start(v, &fd);
        if (!t)
                return false;
        s = tls_connect(fd, &o, sys_mono_ms() + 5000, &e);
        if (s) {
                CHECK(strncmp(tls_version(s), "TLSv1.", 6) == 0);
                l = lines_new(s, 5000, &e);
                CHECK(lines_is_tls(l));
                ok = lines_read(l, 100, &line, NULL, &e) && str_eq(line, STR("+OK hello"));
                ok = ok && lines_write(l, STR("hi"), &e) && lines_flush(l, &e);
                CHECK(!lines_read(l, 100, &line, NULL, &e));
                lines_free(l);
        }
        thread_join(t);
        CHECK(ok == (strcmp(v->got, "hi") == 0)); /* nothing of ours goes to a server that is refused */
        return ok;
}

TEST(good)
{
        struct server v = { .cert = "good" };

        CHECK(talk(&v, options("mail.example.com")));
        CHECK(e.code == ERR_NET && strstr(e.text, "closed the connection"));
}

TEST(good_address)
{
        struct server v = { .cert = "good" };

        CHECK(talk(&v, options("127.0.0.1")));
}

TEST(good_other_name)
{
        struct server v = { .cert = "good" };
        struct tls_options o = options("pop.elsewhere.org");

        o.verify_as = STR("mail.example.com");
        CHECK(talk(&v, o));
}

TEST(wildcard)
{
        struct server v = { .cert = "wild" };

        CHECK(talk(&v, options("mail.example.com")));
}

TEST(tls12)
{
        struct server v = { .cert = "good", .max_version = TLS1_2_VERSION };

        CHECK(talk(&v, options("mail.example.com")));
}

static void refused(const char *cert, struct tls_options o, const char *says)
{
        struct server v = { .cert = cert };

        CHECK(!talk(&v, o));
        CHECK(e.code == ERR_TLS);
        if (!strstr(e.text, says)) {
                test_bad++;
                printf("%s: \"%s\" does not say \"%s\"\n", cert, e.text, says);
        }
}

TEST(T01_expired) { NEED(certificates()); refused("expired", options("mail.example.com"), "has expired on 2021-01-01"); }
TEST(T01_not_yet) { NEED(certificates()); refused("early", options("mail.example.com"), "not valid before 2048-01-01"); }
TEST(T01_unknown_authority) { NEED(certificates()); refused("unknown", options("mail.example.com"), "not known here: /CN=other"); }
TEST(T01_self_signed) { NEED(certificates()); refused("other", options("other"), "not known here"); }
TEST(T01_system_authorities_only)
{
        struct tls_options o = { .host = STR("mail.example.com") };

        NEED(certificates());
        refused("good", o, "not known here");
}
TEST(T02_wrong_name) { NEED(certificates()); refused("wrong", options("mail.example.com"), "is for other.example.com, not for mail.example.com"); }
TEST(T02_wide_wildcards) { NEED(certificates()); refused("star", options("example.com"), "not for example.com"); }
TEST(T02_wildcard_inside) { NEED(certificates()); refused("star", options("mail.example.com"), "not for mail.example.com"); }
TEST(T02_wildcard_is_one_label) { NEED(certificates()); refused("wild", options("a.b.example.com"), "not for"); }
TEST(T02_address_as_name) { NEED(certificates()); refused("ipname", options("127.0.0.1"), "not for 127.0.0.1"); }

TEST(T03_revoked)
{
        struct tls_options o = options("mail.example.com");
        struct server good = { .cert = "good" };
        char path[128];

        NEED(certificates());
        snprintf(path, sizeof path, "%s/crl.pem", dir);
        o.ca_file = str_of(path);
        refused("revoked", o, "has been revoked");
        CHECK(talk(&good, o)); /* the list says nothing of this one */
        good.cert = "revoked";
        CHECK(talk(&good, options("mail.example.com"))); /* no list was configured */
}

/* A chain that long is verified like any other, and costs no more than its certificates. */
TEST(T09_hundred_authorities)
{
        struct server v = { .cert = "long" };

        NEED(certificates());
        CHECK(talk(&v, options("mail.example.com")));
}

/* T04: old versions. */
TEST(T04_old_tls)
{
        struct server v = { .cert = "good", .max_version = TLS1_1_VERSION };

        CHECK(!talk(&v, options("mail.example.com")));
        CHECK(e.code == ERR_TLS);
        CHECK(!v.shaken);
}

TEST(insecure_is_possible)
{
        struct server v = { .cert = "unknown" };
        struct tls_options o = options("whatever");

        o.insecure = true;
        CHECK(talk(&v, o));
}

/* The pin of a certificate file, in hex. */
static bool pin_of(const char *name, char out[80], bool colons)
{
        char path[128];
        unsigned char d[32];
        unsigned n = 0;
        FILE *f;
        X509 *x;

        snprintf(path, sizeof path, "%s/%s.pem", dir, name);
        f = fopen(path, "r");
        x = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
        if (!x || !X509_digest(x, EVP_sha256(), d, &n))
                return false;
        fclose(f);
        X509_free(x);
        strcpy(out, "sha256:");
        if (colons)
                EVP_EncodeBlock((unsigned char *)out + 7, d, 32);
        else
                for (int i = 0; i < 32; i++)
                        sprintf(out + 7 + 2 * i, "%02X", d[i]);
        return true;
}

TEST(pin)
{
        struct server v = { .cert = "unknown" }, w = { .cert = "expired" }, x = { .cert = "good" };
        struct tls_options o;
        char pin[80];

        NEED(certificates());
        o = options("any.name");
        for (int base64 = 0; base64 < 2; base64++) {
                NEED(pin_of("unknown", pin, base64));
                o.pin = str_of(pin);
                memset(v.got, 0, sizeof v.got);
                CHECK(talk(&v, o));
        }
        CHECK(!talk(&w, o) && e.code == ERR_TLS && strstr(e.text, "pinned"));
        o = options("mail.example.com");
        o.pin = str_of(pin);
        CHECK(!talk(&x, o) && e.code == ERR_TLS);
}

TEST(pin_that_is_none)
{
        static const char *const bad[] = { "sha256:", "sha256:12", "md5:00", "x", "sha256:zz",
                "sha256:00000000000000000000000000000000000000000000000000000000000000000",
                "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA!" };

        NEED(certificates());
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
                struct tls_options o = options("mail.example.com");
                int fd[2];
                NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
                o.pin = str_of(bad[i]);
                CHECK(!tls_connect(fd[0], &o, sys_mono_ms() + 1000, &e) && e.code == ERR_USAGE);
                CHECK(fcntl(fd[0], F_GETFD) < 0); /* closed, also after failure */
                close(fd[1]);
        }
}

TEST(options_that_cannot_be)
{
        struct tls_options o = { .host = STR("a\0b") }, p = { .host = STR("a"), .ca_file = STR("/nonexistent/ca.pem") };

        CHECK(!tls_connect(dup(0), &o, 0, &e) && e.code == ERR_USAGE);
        CHECK(!tls_connect(dup(0), &p, 0, &e) && strstr(e.text, "/nonexistent/ca.pem"));
        CHECK(!tls_server_new("/nonexistent", "/nonexistent", &e) && strstr(e.text, "/nonexistent"));
}

/* What a server says that speaks something else, or nothing. */
static enum err_code greeted_by(const char *text, bool closes, int wait_ms)
{
        struct tls_options o = options("mail.example.com");
        struct stream *s;
        int fd[2];

        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) != 0 || write(fd[1], text, strlen(text)) < 0)
                return ERR_NONE;
        if (closes)
                shutdown(fd[1], SHUT_WR);
        s = tls_connect(fd[0], &o, sys_mono_ms() + wait_ms, &e);
        CHECK(s == NULL);
        close(fd[1]);
        return e.code;
}

/* T07, T11. */
TEST(T11_not_tls)
{
        NEED(certificates());
        CHECK(greeted_by("+OK POP3 ready\r\n", false, 3000) == ERR_TLS && strstr(e.text, "does not speak TLS"));
        CHECK(greeted_by("220 smtp.example.com ESMTP\r\n", false, 3000) == ERR_TLS && strstr(e.text, "does not speak TLS"));
        CHECK(greeted_by("HTTP/1.1 400 Bad Request\r\n\r\n", true, 3000) == ERR_TLS);
        CHECK(greeted_by("\x16\x03\x03\xff\xff garbage garbage garbage", true, 3000) != ERR_NONE);
}

TEST(T07_silence_and_end)
{
        int64_t before = sys_mono_ms();

        NEED(certificates());
        before = sys_mono_ms();
        CHECK(greeted_by("", false, 100) == ERR_TIMEOUT);
        CHECK(sys_mono_ms() - before < 2000);
        CHECK(greeted_by("", true, 3000) == ERR_NET && strstr(e.text, "handshake"));
}

/* T08: an end without close_notify is no end, whatever the version. */
static void *stop_soon(void *stop)
{
        usleep(100000);
        atomic_store((atomic_bool *)stop, true);
        return NULL;
}

/* The other side takes the connection and says nothing. */
TEST(T07_stop_is_heard_in_a_silent_handshake)
{
        struct tls_options o = { .host = STR("mail.example.com") };
        atomic_bool stop = false;
        pthread_t t;
        int fd[2];

        NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
        o.stop = &stop;
        NEED(pthread_create(&t, NULL, stop_soon, &stop) == 0);
        CHECK(!tls_connect(fd[0], &o, sys_mono_ms() + 60000, &e) && e.code == ERR_STOPPED);
        pthread_join(t, NULL);
        close(fd[1]);
}

TEST(T08_cut_off)
{
        for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
                struct server v = { .cert = "good", .ending = CUT, .max_version = version };
                struct tls_options o;
                struct stream *s;
                struct thread *t;
                char text[100];
                int fd = -1;
                t = start(&v, &fd);
                NEED(t);
                o = options("mail.example.com");
                s = tls_connect(fd, &o, sys_mono_ms() + 5000, &e);
                NEED(s);
                CHECK(stream_write_all(s, STR("hi"), sys_mono_ms() + 5000, &e));
                CHECK(stream_read(s, text, sizeof text, sys_mono_ms() + 5000, &e) == 11);
                CHECK(stream_read(s, text, sizeof text, sys_mono_ms() + 5000, &e) == -1);
                CHECK(e.code == ERR_NET && strstr(e.text, "cut off"));
                CHECK(s->ops->ready(s));
                CHECK(stream_read(s, text, sizeof text, sys_mono_ms() + 5000, &e) == -1); /* and it stays so */
                CHECK(e.code == ERR_NET && strstr(e.text, "cut off"));
                stream_close(s);
                thread_join(t);
        }
}

/* ---- our own server ---- */

struct ours {
        int fd;
        struct tls_server *tls;
        size_t echo;
        struct err e;
        bool ok;
};

/* Sends as much as it reads, but sends first: a pipelining pair over TLS. */
static void serve_ours(void *arg)
{
        struct ours *v = arg;
        struct stream *s = tls_accept(v->tls, v->fd, sys_mono_ms() + 5000, &v->e);
        static char block[65536];
        size_t got = 0;

        if (!s)
                return;
        memset(block, 'b', sizeof block);
        for (size_t put = 0; put < v->echo; put += sizeof block) {
                if (!stream_write_all(s, str_make(block, sizeof block), sys_mono_ms() + 5000, &v->e))
                        goto out;
        }
        while (got < v->echo) {
                ssize_t n = stream_read(s, block, sizeof block, sys_mono_ms() + 5000, &v->e);
                if (n <= 0)
                        goto out;
                got += (size_t)n;
        }
        v->ok = true;
out:
        stream_close(s);
}

static struct tls_server *our_server(void)
{
        char cert[128], key[128];

        snprintf(cert, sizeof cert, "%s/good.pem", dir);
        snprintf(key, sizeof key, "%s/good.key", dir);
        return tls_server_new(cert, key, &e);
}

TEST(our_server_and_much_both_ways)
{
        static char block[3 * 1024 * 1024];
        struct ours v = { .echo = sizeof block };
        struct tls_options o;
        struct lines *l;
        struct thread *t;
        struct str have = STR_NONE;
        size_t got = 0;
        int fd[2];

        NEED(certificates() && socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
        v.fd = fd[1];
        v.tls = our_server();
        NEED(v.tls);
        t = thread_start(serve_ours, &v, "ours", &e);
        o = options("mail.example.com");
        l = lines_new(tls_connect(fd[0], &o, sys_mono_ms() + 5000, &e), 5000, &e);
        NEED(t && l);
        CHECK(lines_write(l, str_make(block, sizeof block), &e) && lines_flush(l, &e));
        while (got < v.echo && lines_fill(l, &have, &e)) {
                got += have.n;
                lines_take(l, have.n);
        }
        CHECK(got == v.echo);
        CHECK(!lines_fill(l, &have, &e) && e.code == ERR_NET);
        thread_join(t);
        CHECK(v.ok);
        lines_free(l);
        tls_server_free(v.tls);
}

/* A client in the clear on the server's port. */
TEST(our_server_and_a_plain_client)
{
        struct tls_server *server;
        int fd[2];

        NEED(certificates() && socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
        server = our_server();
        NEED(server && write(fd[0], "CAPA\r\nQUIT\r\n", 12) == 12);
        CHECK(!tls_accept(server, fd[1], sys_mono_ms() + 1000, &e));
        CHECK(e.code == ERR_TLS);
        close(fd[0]);
        tls_server_free(server);
}

TEST(a_peer_that_went_is_no_signal)
{
        struct ours v = { .echo = 0 };
        struct tls_options o;
        struct stream *s;
        struct thread *t;
        static char block[65536];
        bool ok = true;
        int fd[2];

        NEED(certificates() && socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
        v.fd = fd[1];
        v.tls = our_server();
        t = thread_start(serve_ours, &v, "ours", &e);
        o = options("mail.example.com");
        s = tls_connect(fd[0], &o, sys_mono_ms() + 5000, &e);
        thread_join(t);
        NEED(s);
        for (int i = 0; i < 20 && ok; i++)
                ok = stream_write_all(s, str_make(block, sizeof block), sys_mono_ms() + 1000, &e);
        CHECK(!ok && e.code == ERR_NET);
        stream_close(s);
        tls_server_free(v.tls);
}

TEST_MAIN
