#include "core/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/tls_why.h"

enum { SECURITY_LEVEL = 2 }; /* keys of 112 bits (RSA of 2048), no signatures by MD5 or SHA-1: Debian's default, and the least anywhere */

struct tls_stream {
        struct stream base;
        SSL *ssl;
        bool broken; /* nothing may follow on this connection, not even our close_notify */
        struct err why;
        X509 *refused; /* the certificate that verification stumbled over, for the sentence about it */
};

static struct tls_stream *tls_of(struct stream *s) { return (struct tls_stream *)s; }

/* ---- the socket below ------------------------------------------------------------------------------------------ */

/* OpenSSL's own, but a peer that has gone gives EPIPE, not a signal that kills the program. */
static int quiet_write(BIO *b, const char *p, int n)
{
        ssize_t put;
        int fd = -1;

        BIO_get_fd(b, &fd);
        put = send(fd, p, (size_t)n, MSG_NOSIGNAL);
        BIO_clear_retry_flags(b);
        if (put < 0 && BIO_sock_should_retry(-1))
                BIO_set_retry_write(b);
        return (int)put;
}

static BIO_METHOD *quiet_socket;

static void make_quiet_socket(void)
{
        const BIO_METHOD *own = BIO_s_socket();
        BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOCKET, "socket without signals");

        if (m && BIO_meth_set_write(m, quiet_write) && BIO_meth_set_read(m, BIO_meth_get_read(own)) &&
            BIO_meth_set_ctrl(m, BIO_meth_get_ctrl(own)) && BIO_meth_set_create(m, BIO_meth_get_create(own)) &&
            BIO_meth_set_destroy(m, BIO_meth_get_destroy(own)))
                quiet_socket = m;
        else
                BIO_meth_free(m);
}

/* The BIO owns fd. */
static bool attach(SSL *ssl, int fd)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        BIO *b;

        pthread_once(&once, make_quiet_socket);
        b = quiet_socket ? BIO_new(quiet_socket) : NULL;
        if (!b)
                return false;
        BIO_set_fd(b, fd, BIO_CLOSE);
        SSL_set_bio(ssl, b, b);
        return true;
}

/* ---- the stream ------------------------------------------------------------------------------------------------ */

/* After a call on ssl answered r: true to try it again, having waited; false with e filled. */
static bool tls_again(struct tls_stream *t, int r, int64_t deadline, const char *doing, struct err *e)
{
        int sys = errno, what = SSL_get_error(t->ssl, r);
        short events = what == SSL_ERROR_WANT_READ ? POLLIN : what == SSL_ERROR_WANT_WRITE ? POLLOUT : 0;

        if (events != 0) {
                if (deadline != STREAM_NOW && stream_poll(SSL_get_fd(t->ssl), events, deadline))
                        return true;
                return err_set(e, ERR_TIMEOUT, "%s: no progress in time", doing);
        }
        t->broken = true;
        tls_why_io(what, sys, doing, &t->why);
        if (e)
                *e = t->why;
        return false;
}

static bool usable(struct tls_stream *t, struct err *e)
{
        if (t->broken && e)
                *e = t->why;
        ERR_clear_error(); /* the queue is the thread's: another session may have left something in it */
        errno = 0;
        return !t->broken;
}

static ssize_t tls_read(struct stream *s, char *p, size_t n, int64_t deadline, struct err *e)
{
        struct tls_stream *t = tls_of(s);
        size_t got;
        int r;

        while (usable(t, e)) {
                r = SSL_read_ex(t->ssl, p, n, &got);
                if (r > 0)
                        return (ssize_t)got;
                if (SSL_get_error(t->ssl, r) == SSL_ERROR_ZERO_RETURN)
                        return 0;
                if (!tls_again(t, r, deadline, "receiving", e))
                        break;
        }
        return -1;
}

static ssize_t tls_write(struct stream *s, const char *p, size_t n, int64_t deadline, struct err *e)
{
        struct tls_stream *t = tls_of(s);
        size_t put;
        int r;

        while (usable(t, e)) {
                r = SSL_write_ex(t->ssl, p, n, &put);
                if (r > 0)
                        return (ssize_t)put;
                if (!tls_again(t, r, deadline, "sending", e))
                        break;
        }
        return -1;
}

/* A readable socket may hold half a record or a session ticket: only OpenSSL knows whether bytes come of it. */
static bool tls_ready(struct stream *s)
{
        struct tls_stream *t = tls_of(s);
        struct err e;
        size_t got;
        char c;
        int r;

        if (!usable(t, NULL))
                return true;
        r = SSL_peek_ex(t->ssl, &c, 1, &got);
        if (r > 0 || SSL_get_error(t->ssl, r) == SSL_ERROR_ZERO_RETURN)
                return true;
        return !tls_again(t, r, STREAM_NOW, "receiving", &e) && e.code != ERR_TIMEOUT;
}

static void tls_wait(struct stream *s, bool writing, int64_t deadline)
{
        (void)stream_poll(SSL_get_fd(tls_of(s)->ssl), writing ? POLLIN | POLLOUT : POLLIN, deadline);
}

static void tls_close(struct stream *s)
{
        struct tls_stream *t = tls_of(s);

        if (usable(t, NULL) && SSL_is_init_finished(t->ssl))
                SSL_shutdown(t->ssl); /* says close_notify and waits for nothing */
        ERR_clear_error();
        SSL_free(t->ssl);
        X509_free(t->refused);
        mem_free(t);
}

static const struct stream_ops tls_ops = { tls_read, tls_write, tls_ready, tls_close, tls_wait };

const char *tls_version(struct stream *s) { return s && s->ops == &tls_ops ? SSL_get_version(tls_of(s)->ssl) : NULL; }

/* Owns fd from the start, which becomes non-blocking. */
static struct tls_stream *tls_new(SSL_CTX *ctx, int fd, struct err *e)
{
        struct stream *plain = stream_fd(fd, e);
        struct tls_stream *t = plain ? mem_zero(sizeof *t) : NULL;

        if (plain)
                stream_release_fd(plain);
        else
                return NULL;
        if (t && (t->ssl = SSL_new(ctx)) != NULL && attach(t->ssl, fd)) {
                SSL_set_app_data(t->ssl, t);
                t->base.ops = &tls_ops;
                return t;
        }
        if (t)
                SSL_free(t->ssl);
        mem_free(t);
        close(fd);
        err_nomem(e);
        return NULL;
}

/* What both sides want: 1.2 and up, nothing renegotiated or compressed, ends that are said. */
static SSL_CTX *new_context(const SSL_METHOD *method)
{
        SSL_CTX *ctx;

        ERR_clear_error();
        ctx = SSL_CTX_new(method);
        if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION)) {
                SSL_CTX_free(ctx);
                return NULL;
        }
        if (SSL_CTX_get_security_level(ctx) < SECURITY_LEVEL)
                SSL_CTX_set_security_level(ctx, SECURITY_LEVEL);
        SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
        SSL_CTX_clear_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
        SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
        return ctx;
}

/* ---- the client ------------------------------------------------------------------------------------------------ */

static SSL_CTX *system_context;

/* The system's authorities take some milliseconds to load: once is enough for two thousand accounts. */
static void load_system_context(void)
{
        system_context = new_context(TLS_client_method());
        if (system_context && !SSL_CTX_set_default_verify_paths(system_context)) {
                SSL_CTX_free(system_context);
                system_context = NULL;
        }
}

static bool as_c_string(struct str s, char *out, size_t n, const char *what, struct err *e)
{
        if (s.n >= n || (s.n > 0 && memchr(s.p, '\0', s.n)))
                return err_set(e, ERR_USAGE, "%s \"%.*s\" cannot be used", what, STR_FMT(s));
        memcpy(out, s.n ? s.p : "", s.n);
        out[s.n] = '\0';
        return true;
}

/* A list of revocations beside the authorities is obeyed; without one there is nothing to ask (OpenSSL would refuse every certificate). */
static bool heed_revocations(SSL_CTX *ctx)
{
        STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(SSL_CTX_get_cert_store(ctx));

        for (int i = 0; i < sk_X509_OBJECT_num(objects); i++)
                if (X509_OBJECT_get_type(sk_X509_OBJECT_value(objects, i)) == X509_LU_CRL)
                        return X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_CRL_CHECK);
        return true;
}

/* A reference the caller frees. */
static SSL_CTX *client_context(const struct tls_options *o, struct err *e)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        char path[4096];
        SSL_CTX *ctx;

        if (o->ca_file.n == 0) {
                pthread_once(&once, load_system_context);
                if (system_context)
                        SSL_CTX_up_ref(system_context);
                else
                        err_set(e, ERR_TLS, "the system's certificate authorities could not be loaded");
                return system_context;
        }
        if (!as_c_string(o->ca_file, path, sizeof path, "the file of authorities", e))
                return NULL;
        ctx = new_context(TLS_client_method());
        if (ctx && SSL_CTX_load_verify_locations(ctx, path, NULL) && heed_revocations(ctx))
                return ctx;
        tls_why_file(path, "no certificate authority could be read from", e);
        SSL_CTX_free(ctx);
        return NULL;
}

static bool is_address(const char *name)
{
        unsigned char bytes[sizeof(struct in6_addr)];

        return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

static bool expect_name(SSL *ssl, const char *name)
{
        X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

        /* RFC 9525 6.3, 6.4: a wildcard is a whole label, and the subject's name is no name of a host. */
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
        return is_address(name) ? X509_VERIFY_PARAM_set1_ip_asc(param, name) : SSL_set1_host(ssl, name);
}

struct pin {
        bool set;
        unsigned char sha256[32];
};

static bool pin_from_hex(struct str s, unsigned char out[32])
{
        size_t nibbles = 0;

        for (size_t i = 0; i < s.n; i++) {
                int v = ascii_hex(s.p[i]);
                if (s.p[i] == ':' && nibbles % 2 == 0)
                        continue;
                if (v < 0 || nibbles == 64)
                        return false;
                out[nibbles / 2] = (unsigned char)(nibbles % 2 ? out[nibbles / 2] << 4 | v : v);
                nibbles++;
        }
        return nibbles == 64;
}

static bool pin_from_base64(struct str s, unsigned char out[32])
{
        unsigned char bytes[33]; /* 32 and what the '=' stands for */

        if (s.n != 44 || s.p[43] != '=' || EVP_DecodeBlock(bytes, (const unsigned char *)s.p, 44) != sizeof bytes)
                return false;
        memcpy(out, bytes, 32);
        return true;
}

static bool read_pin(struct str s, struct pin *pin, struct err *e)
{
        static const struct str prefix = { "sha256:", 7 };
        struct str value = str_from(s, prefix.n);

        pin->set = s.n > 0;
        if (!pin->set)
                return true;
        if (str_starts_nocase(s, prefix) && (pin_from_hex(value, pin->sha256) || pin_from_base64(value, pin->sha256)))
                return true;
        return err_set(e, ERR_USAGE, "the pin \"%.*s\" is not \"sha256:\" and 64 hexadecimal digits, or base64", STR_FMT(s));
}

static bool check_pin(SSL *ssl, const struct pin *pin, struct err *e)
{
        X509 *cert = SSL_get0_peer_certificate(ssl);
        unsigned char got[EVP_MAX_MD_SIZE];
        unsigned n = 0;
        char hex[65] = "";

        if (!pin->set)
                return true;
        if (!cert || !X509_digest(cert, EVP_sha256(), got, &n) || n != 32)
                return err_set(e, ERR_TLS, "the server showed no certificate to compare with the pin");
        for (int i = 0; i < 32; i++)
                snprintf(hex + i * 2, 3, "%02x", got[i]);
        if (CRYPTO_memcmp(got, pin->sha256, 32) != 0)
                return err_set(e, ERR_TLS, "the certificate is another than the pinned one; it is sha256:%s", hex);
        return true;
}

/* Changes no verdict: keeps the certificate it is about, which a handshake that failed no longer shows. */
static int keep_refused(int ok, X509_STORE_CTX *store)
{
        SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
        struct tls_stream *t = ssl ? SSL_get_app_data(ssl) : NULL;
        X509 *cert = X509_STORE_CTX_get_current_cert(store);

        if (!ok && t && !t->refused && cert && X509_up_ref(cert))
                t->refused = cert;
        return ok;
}

static bool prepare(SSL *ssl, const char *host, const char *verify_as, const struct tls_options *o, bool pinned)
{
        bool verify = !o->insecure && !pinned;

        SSL_set_connect_state(ssl);
        SSL_set_verify(ssl, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, verify ? keep_refused : NULL);
        if (!is_address(host) && !SSL_set_tlsext_host_name(ssl, host)) /* an address is no SNI name, RFC 6066 section 3 */
                return false;
        return !verify || expect_name(ssl, verify_as);
}

static bool would_wait(SSL *ssl, int r)
{
        int what = SSL_get_error(ssl, r);

        return what == SSL_ERROR_WANT_READ || what == SSL_ERROR_WANT_WRITE;
}

/* Until it is finished; its errors are told apart from those of later reads. */
static bool handshake(struct tls_stream *t, const char *name, int64_t deadline, const atomic_bool *stop, struct err *e)
{
        int r = -1;

        while (usable(t, e)) {
                r = SSL_do_handshake(t->ssl);
                if (r == 1)
                        return true;
                if (!would_wait(t->ssl, r)) {
                        tls_why_handshake(t->ssl, r, errno, t->refused, name, e);
                        t->broken = true;
                        return false;
                }
                if (!stream_poll_or_stop(SSL_get_fd(t->ssl), SSL_want_write(t->ssl) ? POLLOUT : POLLIN, deadline, stop, e))
                        return err_in(e, "TLS handshake");
        }
        return false;
}

struct stream *tls_connect(int fd, const struct tls_options *o, int64_t deadline, struct err *e)
{
        char host[256], verify_as[256];
        struct tls_stream *t = NULL;
        struct pin pin;
        SSL_CTX *ctx = NULL;
        bool ok = as_c_string(o->host, host, sizeof host, "the host name", e) &&
                  as_c_string(o->verify_as.n ? o->verify_as : o->host, verify_as, sizeof verify_as, "the name", e) &&
                  read_pin(o->pin, &pin, e) && (ctx = client_context(o, e)) != NULL;

        if (!ok) {
                close(fd);
                return NULL;
        }
        t = tls_new(ctx, fd, e);
        SSL_CTX_free(ctx);
        if (!t)
                return NULL;
        if (!prepare(t->ssl, host, verify_as, o, pin.set))
                ok = err_set(e, ERR_USAGE, "\"%s\" is not a name that TLS can check", verify_as);
        if (ok && handshake(t, verify_as, deadline, o->stop, e) && check_pin(t->ssl, &pin, e))
                return &t->base;
        tls_close(&t->base);
        return NULL;
}

/* ---- the server ------------------------------------------------------------------------------------------------ */

struct tls_server {
        SSL_CTX *ctx;
};

/* A key behind a passphrase must not stop a server to ask for it. */
static int no_passphrase(char *p, int n, int writing, void *ctx) { return 0; }

struct tls_server *tls_server_new(const char *cert, const char *key, struct err *e)
{
        struct tls_server *t = mem_zero(sizeof *t);

        if (!t || !(t->ctx = new_context(TLS_server_method()))) {
                mem_free(t);
                err_nomem(e);
                return NULL;
        }
        SSL_CTX_set_default_passwd_cb(t->ctx, no_passphrase);
        if (!SSL_CTX_use_certificate_chain_file(t->ctx, cert))
                tls_why_file(cert, "no certificate could be read from", e);
        else if (!SSL_CTX_use_PrivateKey_file(t->ctx, key, SSL_FILETYPE_PEM))
                tls_why_file(key, "no key for the certificate could be read from", e);
        else
                return t;
        tls_server_free(t);
        return NULL;
}

void tls_server_free(struct tls_server *t)
{
        if (t)
                SSL_CTX_free(t->ctx);
        mem_free(t);
}

struct stream *tls_accept(struct tls_server *server, int fd, int64_t deadline, struct err *e)
{
        struct tls_stream *t = tls_new(server->ctx, fd, e);

        if (!t)
                return NULL;
        SSL_set_accept_state(t->ssl);
        if (handshake(t, "the client", deadline, NULL, e))
                return &t->base;
        tls_close(&t->base);
        return NULL;
}
