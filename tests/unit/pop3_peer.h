/* A scripted POP3 server on a loopback port: well-behaved, until a hook answers a command in its own way. And a run over an
 * account on it, with the ledger kept as the run keeps it. */
#ifndef TESTS_UNIT_POP3_PEER_H
#define TESTS_UNIT_POP3_PEER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/ledger.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/net.h"
#include "core/pop3.h"
#include "core/sys.h"
#include "core/tls.h"

enum { PEER_MAIL = 16, CUT = -1, PEER_PATIENCE_MS = 20000 /* no test may wait for ever */ };

struct peer_mail {
        const char *uid;   /* NULL: none */
        const char *text;  /* CRLF form, not stuffed */
        uint64_t size;     /* what LIST says; 0: the truth */
        bool gone;
};
struct peer {
        struct peer_mail mail[PEER_MAIL];
        unsigned n;
        bool no_uidl, no_top, no_pipelining, expire_zero;
        /* Answers a command itself: 1; leaves it to the server: 0; CUT: closes the connection. a: its first number. */
        int (*odd)(struct peer *p, const char *verb, unsigned a);
        int listener;
        unsigned port;
        atomic_uint sessions, quits, count; /* count: for hooks */
        pthread_t thread;
        pthread_mutex_t lock;
        struct buf log;    /* commands of all sessions, a line each */
        struct buf out;
        bool deleted[PEER_MAIL], logged_in;
        atomic_uint mailbox;   /* which one: another number means other mail, and a session of the old one deletes nothing in it */
        unsigned opened;
        struct stream *s;      /* of the session */
        int fd;                /* its descriptor */
        struct tls_server *tls; /* for STLS; NULL: none */
};

__attribute__((format(printf, 2, 3))) static inline void peer_say(struct peer *p, const char *fmt, ...)
{
        char line[8192];
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(line, sizeof line, fmt, ap);
        va_end(ap);
        buf_add_str(&p->out, str_of(line));
}

static inline void peer_stuffed(struct peer *p, struct str s)
{
        while (s.n > 0) {
                struct str line = str_first(s, str_find(s, '\n') + 1);

                if (line.p[0] == '.')
                        buf_add_char(&p->out, '.');
                buf_add_str(&p->out, line);
                s = str_from(s, line.n);
        }
        buf_add_str(&p->out, STR(".\r\n"));
}

static inline struct str peer_header(const char *text)
{
        struct str s = str_of(text);

        return str_first(s, str_find_str(s, STR("\r\n\r\n")) + 4);
}

static inline uint64_t peer_size(const struct peer_mail *m) { return m->size ? m->size : strlen(m->text); }

static inline void peer_list(struct peer *p, bool uids)
{
        peer_say(p, "+OK\r\n");
        for (unsigned i = 0; i < p->n; i++)
                if (!p->mail[i].gone && uids)
                        peer_say(p, "%u %s\r\n", i + 1, p->mail[i].uid ? p->mail[i].uid : "");
                else if (!p->mail[i].gone)
                        peer_say(p, "%u %llu\r\n", i + 1, (unsigned long long)peer_size(&p->mail[i]));
        peer_say(p, ".\r\n");
}

static inline unsigned peer_left(const struct peer *p)
{
        unsigned n = 0;

        for (unsigned i = 0; i < p->n; i++)
                n += !p->mail[i].gone;
        return n;
}

static inline void peer_flush(struct peer *p)
{
        struct err e;

        (void)!stream_write_all(p->s, buf_str(&p->out), sys_mono_ms() + PEER_PATIENCE_MS, &e);
        buf_clear(&p->out);
}

static inline ssize_t peer_read(struct peer *p, char *to, size_t n)
{
        struct err e = { 0 };
        ssize_t got = stream_read(p->s, to, n, sys_mono_ms() + PEER_PATIENCE_MS, &e);

        if (got < 0 && e.code == ERR_TIMEOUT)
                printf("# the server has heard nothing for %d s: it ends the session\n", PEER_PATIENCE_MS / 1000);
        return got;
}

/* Behind the +OK of STLS; false: the handshake failed. */
static inline bool peer_upgrade(struct peer *p)
{
        struct err e;
        int fd;

        peer_flush(p);
        fd = stream_release_fd(p->s);
        p->s = tls_accept(p->tls, fd, sys_mono_ms() + 5000, &e);
        return p->s;
}

/* 1: go on, CUT: close. */
static inline int peer_obey(struct peer *p, const char *line)
{
        char verb[16] = "";
        unsigned a = 0;
        int odd;

        sscanf(line, "%15s %u", verb, &a);
        odd = p->odd ? p->odd(p, verb, a) : 0;
        if (odd != 0)
                return odd;
        if (strcmp(verb, "CAPA") == 0)
                peer_say(p, "+OK\r\nUSER\r\n%s%s%s%s.\r\n", p->no_top ? "" : "TOP\r\n", p->no_uidl ? "" : "UIDL\r\n",
                         p->no_pipelining ? "" : "PIPELINING\r\n", p->expire_zero ? "EXPIRE 0\r\n" : "");
        else if (strcmp(verb, "STAT") == 0)
                peer_say(p, "+OK %u 1000\r\n", peer_left(p));
        else if (strcmp(verb, "LIST") == 0 || (strcmp(verb, "UIDL") == 0 && !p->no_uidl))
                peer_list(p, verb[0] == 'U');
        else if (strcmp(verb, "RETR") == 0 && a >= 1 && a <= p->n)
                peer_say(p, "+OK\r\n"), peer_stuffed(p, str_of(p->mail[a - 1].text));
        else if (strcmp(verb, "TOP") == 0 && !p->no_top && a >= 1 && a <= p->n)
                peer_say(p, "+OK\r\n"), peer_stuffed(p, peer_header(p->mail[a - 1].text));
        else if (strcmp(verb, "DELE") == 0 && a >= 1 && a <= p->n)
                p->deleted[a - 1] = true, peer_say(p, "+OK\r\n");
        else if (strcmp(verb, "NOOP") == 0 || strcmp(verb, "USER") == 0 || strcmp(verb, "PASS") == 0)
                peer_say(p, "+OK\r\n");
        else if (strcmp(verb, "STLS") == 0 && p->tls) {
                peer_say(p, "+OK\r\n");
                return peer_upgrade(p) ? 1 : CUT;
        } else if (strcmp(verb, "QUIT") == 0) {
                for (unsigned i = 0; i < p->n && p->mailbox == p->opened; i++)
                        p->mail[i].gone |= p->deleted[i];
                p->quits++;
                peer_say(p, "+OK\r\n");
                return 2;
        } else
                peer_say(p, "-ERR what?\r\n");
        return 1;
}

static inline void peer_session(struct peer *p)
{
        char in[65536];
        size_t have = 0;
        ssize_t n;
        int go = 1;

        memset(p->deleted, 0, sizeof p->deleted);
        p->sessions++;
        p->opened = p->mailbox;
        if (!p->odd || (go = p->odd(p, "greeting", 0)) == 0)
                peer_say(p, "+OK hello\r\n"), go = 1;
        peer_flush(p);
        while (go == 1 && (n = peer_read(p, in + have, sizeof in - 1 - have)) > 0) {
                char *at = in, *end;

                have += (size_t)n;
                in[have] = 0;
                while (go == 1 && (end = strchr(at, '\n'))) {
                        *end = 0;
                        if (end > at && end[-1] == '\r')
                                end[-1] = 0;
                        pthread_mutex_lock(&p->lock);
                        buf_printf(&p->log, "%s\n", at);
                        pthread_mutex_unlock(&p->lock);
                        go = peer_obey(p, at);
                        at = end + 1;
                }
                have -= (size_t)(at - in);
                memmove(in, at, have);
                peer_flush(p);
        }
        if (p->s && p->fd >= 0) {
                shutdown(p->fd, SHUT_WR);
                while (peer_read(p, in, sizeof in) > 0)
                        ;
        }
        stream_close(p->s);
}

static inline void *peer_run(void *arg)
{
        struct peer *p = arg;

        struct err e;

        while ((p->fd = accept(p->listener, NULL, NULL)) >= 0)
                if ((p->s = stream_fd(p->fd, &e)))
                        peer_session(p);
        return NULL;
}

static inline bool peer_start(struct peer *p)
{
        struct err e = { 0 };

        p->port = 0;
        pthread_mutex_init(&p->lock, NULL);
        p->listener = net_listen_loopback(&p->port, &e);
        return p->listener >= 0 && pthread_create(&p->thread, NULL, peer_run, p) == 0;
}

static inline void peer_stop(struct peer *p)
{
        shutdown(p->listener, SHUT_RDWR);
        pthread_join(p->thread, NULL);
        close(p->listener);
        buf_free(&p->log);
        buf_free(&p->out);
}

static inline unsigned peer_count(struct peer *p, const char *command)
{
        struct str rest = buf_str(&p->log);
        unsigned n = 0;

        while (rest.n > 0)
                n += str_starts(str_take(&rest, '\n'), str_of(command));
        return n;
}

/* ---- one run */

struct state {
        char dir[64];
        struct ledger *l;
        struct arena *a;
};
static inline bool state_open(struct state *s)
{
        struct err e = { 0 };

        snprintf(s->dir, sizeof s->dir, "%.40s/pop3-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        if (!mkdtemp(s->dir))
                return false;
        s->a = arena_new(0);
        s->l = ledger_open(s->dir, false, &e);
        return s->l;
}
static inline void state_close(struct state *s)
{
        char cmd[128];

        ledger_close(s->l);
        arena_free(s->a);
        snprintf(cmd, sizeof cmd, "rm -rf %s", s->dir);
        if (system(cmd) != 0)
                printf("%s is left\n", s->dir);
}

struct got {
        unsigned n, suspects, longer;
        char *text[64];       /* as handed out (LF form) */
        char *uid[64];
        unsigned occurrence[64];
        bool ok;              /* next and finish both */
        struct err e;
};
struct run_options {
        struct pop3_options o;
        enum outcome_leave leave;
        int64_t leave_age;
        enum outcome_kind kind;        /* of every message */
        struct str auth;
        bool first_new, late, plain_secret;
        uint64_t memory;
        int timeout_ms;
        unsigned session_messages;
        const char *name;              /* of the account; NULL: "acc" */
        const char *ca_file;           /* NULL: no TLS */
        bool stls;
        uint64_t message;              /* limits.message */
        const char *password;
        void (*between)(void *ctx, struct source *s, unsigned n);
        void *ctx;
};

static inline char *message_bytes(struct message *m)
{
        struct range r = message_range(m);
        char *p = mem_zero((size_t)r.n + 1);
        struct err e;
        uint64_t at = 0;
        ssize_t n;

        while (p && at < r.n && (n = range_read(r, at, p + at, (size_t)(r.n - at), &e)) > 0)
                at += (uint64_t)n;
        return p;
}

static inline bool put_mark(struct state *s, const struct ledger_account *la, struct message *m, const struct run_options *r)
{
        const struct origin *o = message_origin(m);
        int64_t now = r->o.now ? r->o.now : 1800000000;
        struct mark k = {
                .account = la->id, .uid = o->uid, .occurrence = o->occurrence, .state = r->kind == OUTCOME_HELD ? MARK_HELD : MARK_SEEN,
                .size = message_size(m), .first_seen = now, .last_seen = now,
                .leave = o->suspect ? MARK_LEAVE_ALWAYS : MARK_LEAVE_DEFAULT, /* as commit_batch has it */
        };
        struct err e = { 0 };

        if (k.state == MARK_HELD)
                k.spool = STR("x/1");
        return message_hash(m, k.content_hash, &e) && message_identity(m, k.header_hash, &e) && ledger_mark_put(s->l, &k, &e);
}

static inline void give_back(struct got *g)
{
        for (unsigned i = 0; i < g->n; i++)
                mem_free(g->text[i]), mem_free(g->uid[i]);
}

static inline struct got run_over(unsigned port, struct state *s, const struct run_options *r)
{
        struct account acc = {
                .name = STR("acc"), .host = STR("127.0.0.1"), .user = STR("me"), .port = port, .tls = TLS_NONE, .leave = r->leave,
                .leave_age = r->leave_age, .auth = r->auth, .first_new = r->first_new, .timeout_ms = r->timeout_ms ? r->timeout_ms : 10000,
                .session_messages = r->session_messages,
        };
        struct pop3_options o = r->o;
        struct limits lim = limits_default;
        struct ledger_account la;
        struct outcome late[64];
        struct got g = { 0 };
        struct source *src;
        unsigned settled = 0;

        if (!o.now)
                o.now = 1800000000;
        if (!o.back_off_ms)
                o.back_off_ms = 1;
        if (r->memory)
                lim.memory_message = r->memory;
        lim.message = r->message;
        if (r->name)
                acc.name = str_of(r->name);
        if (r->ca_file)
                acc.tls = r->stls ? TLS_STARTTLS : TLS_IMPLICIT, acc.ca_file = str_of(r->ca_file);
        acc.password = secret_literal(str_of(r->password ? r->password : "pw"));
        src = NULL;
        if (ledger_account(s->l, acc.name, STR("me@127.0.0.1"), &la, s->a, &g.e))
                src = pop3_source(&acc, &la, s->l, &lim, s->dir, &o, &g.e);
        if (!src) {
                secret_unref(acc.password);
                return g;
        }
        for (;;) {
                struct message *m = NULL;
                struct outcome out;

                g.ok = src->ops->next(src, &m, &g.e);
                if (g.ok && !m && src->rests)
                        src->ops->settle(src, late + settled, r->late ? g.n - settled : 0), settled = g.n;
                else if (!g.ok || !m)
                        break;
                if (!m)
                        continue;
                out = (struct outcome){ .number = message_origin(m)->number, .kind = r->kind };
                g.uid[g.n] = mem_dup(message_origin(m)->uid.p, message_origin(m)->uid.n);
                g.occurrence[g.n] = message_origin(m)->occurrence;
                g.suspects += message_origin(m)->suspect;
                g.longer += message_origin(m)->longer;
                g.text[g.n++] = message_bytes(m);
                if (r->kind != OUTCOME_UNDONE && !o.dry && !put_mark(s, &la, m, r))
                        printf("the mark could not be put\n");
                message_free(m);
                late[g.n - 1] = out;
                if (!r->late)
                        src->ops->settle(src, &out, 1);
                if (r->between)
                        r->between(r->ctx, src, g.n);
        }
        if (r->late)
                src->ops->settle(src, late + settled, g.n - settled);
        if (g.ok)
                g.ok = src->ops->finish(src, &g.e);
        else
                (void)!src->ops->finish(src, NULL);
        g.ok = g.ok && g.e.code == ERR_NONE; /* a failure that was survived is not told */
        source_free(src);
        secret_unref(acc.password);
        return g;
}

/* How often that text was handed out (given in CRLF form). */
static inline unsigned got_text(const struct got *g, const char *crlf)
{
        char *lf = mem_dup(crlf, strlen(crlf)), *to = lf;
        unsigned n = 0;

        for (const char *p = crlf; *p; p++)
                if (!(p[0] == '\r' && p[1] == '\n'))
                        *to++ = *p;
        *to = 0;
        for (unsigned i = 0; i < g->n; i++)
                n += strcmp(g->text[i], lf) == 0;
        mem_free(lf);
        return n;
}

#endif
