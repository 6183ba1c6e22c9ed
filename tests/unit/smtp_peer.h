/* A scripted SMTP server on a loopback port: well-behaved, until a hook answers in its own way. It keeps every mail's bytes as they came over
 * the wire. */
#ifndef TESTS_UNIT_SMTP_PEER_H
#define TESTS_UNIT_SMTP_PEER_H

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/net.h"
#include "core/smtp.h"
#include "core/sys.h"
#include "core/tls.h"

enum { PEER_MAIL = 16, CUT = -1 /* what is said so far is sent, then the connection closed */ };

struct peer_mail {
        char from[300], to[2048]; /* arguments of MAIL and of each taken RCPT, a line each */
        struct buf wire;          /* between 354 and the final dot, as it came, the dot's line left out */
};
struct peer {
        const char *extensions;   /* EHLO's further lines, "250-PIPELINING\r\n250-…"; NULL: pipelining, 8-bit, SIZE */
        const char *tls_extensions; /* the same once inside TLS; NULL: extensions */
        struct tls_server *tls;
        bool implicit;
        /* "greeting", a command, "334" (an answer inside AUTH), "." (a mail is complete). Answers by itself: 1; leaves it to the server: 0; CUT. */
        int (*odd)(struct peer *p, const char *verb, const char *arg);
        atomic_int cut_at;        /* the event, from 1, at which the connection closes instead; 0: never */
        atomic_int events, sessions, count; /* atomic: a test looks while the server still runs */
        int max_sessions;
        struct peer_mail mail[PEER_MAIL];
        atomic_uint n;
        struct buf log;           /* commands of all sessions, a line each */
        bool unread;              /* bytes came that belong to no command: after QUIT, say */

        int listener;
        unsigned port;
        pthread_t thread;
        struct stream *s;
        struct buf in, out;
        bool secure, begun, taken;
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

static inline bool peer_flush(struct peer *p)
{
        bool ok = !p->s || stream_write_all(p->s, buf_str(&p->out), sys_mono_ms() + 10000, NULL);

        buf_clear(&p->out);
        return ok;
}

static inline bool peer_more(struct peer *p)
{
        char block[4096];
        ssize_t n;

        if (!p->s || !peer_flush(p))
                return false;
        n = stream_read(p->s, block, sizeof block, sys_mono_ms() + 10000, NULL);
        return n > 0 && buf_add(&p->in, block, (size_t)n);
}

static inline bool peer_line(struct peer *p, char *out, size_t size)
{
        size_t end;

        while ((end = str_find(buf_str(&p->in), '\n')) == p->in.n)
                if (!peer_more(p))
                        return false;
        snprintf(out, size, "%.*s", (int)(end && p->in.p[end - 1] == '\r' ? end - 1 : end), p->in.p);
        buf_drop(&p->in, end + 1);
        return true;
}

static inline int peer_event(struct peer *p, const char *verb, const char *arg)
{
        if (++p->events == p->cut_at)
                return CUT;
        return p->odd ? p->odd(p, verb, arg) : 0;
}

/* Everything up to the strict CRLF.CRLF. */
static inline bool peer_data(struct peer *p)
{
        struct peer_mail *m = &p->mail[p->n];
        size_t at = 0;

        for (;;) {
                struct str have = buf_str(&p->in);
                if (str_starts(have, STR(".\r\n"))) {
                        buf_drop(&p->in, 3);
                        return true;
                }
                at = at + str_find_str(str_from(have, at), STR("\r\n.\r\n"));
                if (at < have.n) {
                        buf_add(&m->wire, have.p, at + 2);
                        buf_drop(&p->in, at + 5);
                        return true;
                }
                at = have.n > 4 ? have.n - 4 : 0;
                if (!peer_more(p))
                        return false;
        }
}

static inline int peer_mail_ends(struct peer *p)
{
        int odd;

        if (!peer_flush(p) || !peer_data(p))
                return CUT;
        p->n++;
        odd = peer_event(p, ".", "");
        if (odd == 0)
                peer_say(p, "250 2.0.0 queued as %u\r\n", p->n);
        p->taken = p->begun = false;
        return odd == CUT ? CUT : 1;
}

static inline int peer_auth(struct peer *p)
{
        char line[4096];
        int odd;

        peer_say(p, "334 \r\n");
        if (!peer_line(p, line, sizeof line))
                return CUT;
        odd = peer_event(p, "334", line);
        if (odd == 0) /* PLAIN, user me, password secret */
                peer_say(p, strcmp(line, "AG1lAHNlY3JldA==") == 0 ? "235 2.7.0 welcome\r\n" : "535 5.7.8 wrong\r\n");
        return odd == CUT ? CUT : 1;
}

static inline int peer_starttls(struct peer *p)
{
        struct err e;
        int fd;

        peer_say(p, "220 go ahead\r\n");
        if (!peer_flush(p) || !p->tls)
                return CUT;
        fd = stream_release_fd(p->s);
        p->s = tls_accept(p->tls, fd, sys_mono_ms() + 10000, &e);
        p->secure = true;
        return p->s ? 1 : CUT;
}

static inline const char *peer_extensions(const struct peer *p)
{
        if (p->secure && p->tls_extensions)
                return p->tls_extensions;
        return p->extensions ? p->extensions : "250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 1000000\r\n";
}

/* 1: go on, CUT: close. */
static inline int peer_obey(struct peer *p, const char *line)
{
        char verb[16] = "";
        const char *arg = strchr(line, ' ');
        int odd;

        sscanf(line, "%15s", verb);
        arg = arg ? arg + 1 : "";
        odd = peer_event(p, verb, arg);
        if (odd != 0)
                return odd;
        if (strcmp(verb, "EHLO") == 0)
                peer_say(p, "250-test.example hello\r\n%s250 HELP\r\n", peer_extensions(p));
        else if (strcmp(verb, "STARTTLS") == 0)
                return peer_starttls(p);
        else if (strcmp(verb, "AUTH") == 0)
                return peer_auth(p);
        else if (strcmp(verb, "MAIL") == 0 && p->n < PEER_MAIL) {
                snprintf(p->mail[p->n].from, sizeof p->mail[p->n].from, "%s", arg);
                p->mail[p->n].to[0] = 0;
                p->taken = false, p->begun = true;
                peer_say(p, "250 2.1.0 ok\r\n");
        } else if (strcmp(verb, "RCPT") == 0 && p->begun) {
                size_t n = strlen(p->mail[p->n].to);
                snprintf(p->mail[p->n].to + n, sizeof p->mail[p->n].to - n, "%s\n", arg);
                p->taken = true;
                peer_say(p, "250 2.1.5 ok\r\n");
        } else if (strcmp(verb, "DATA") == 0 && p->taken) {
                peer_say(p, "354 go\r\n");
                return peer_mail_ends(p);
        } else if (strcmp(verb, "DATA") == 0)
                peer_say(p, "554 5.5.1 no valid recipients\r\n");
        else if (strcmp(verb, "RCPT") == 0)
                peer_say(p, "503 5.5.1 no MAIL\r\n");
        else if (strcmp(verb, "RSET") == 0 || strcmp(verb, "HELO") == 0)
                peer_say(p, "250 ok\r\n"), p->begun = p->taken = false;
        else if (strcmp(verb, "QUIT") == 0) {
                peer_say(p, "221 bye\r\n");
                return CUT;
        } else
                peer_say(p, "502 5.5.2 what?\r\n");
        return 1;
}

static inline void peer_session(struct peer *p, int fd)
{
        char line[4096];
        struct err e;
        int go;

        buf_clear(&p->in);
        buf_clear(&p->out);
        p->secure = p->implicit, p->begun = p->taken = false;
        p->s = p->implicit ? tls_accept(p->tls, fd, sys_mono_ms() + 10000, &e) : stream_fd(fd, &e);
        if (!p->s)
                return;
        p->sessions++;
        go = peer_event(p, "greeting", "");
        if (go == 0)
                peer_say(p, "220 test.example ESMTP\r\n");
        while (go != CUT && peer_line(p, line, sizeof line)) {
                buf_add_str(&p->log, str_of(line));
                buf_add_char(&p->log, '\n');
                go = peer_obey(p, line);
        }
        peer_flush(p);
        p->unread |= go == CUT && p->in.n > 0;
        stream_close(p->s);
        p->s = NULL;
}

static inline void *peer_main(void *arg)
{
        struct peer *p = arg;
        int fd;

        while ((fd = accept(p->listener, NULL, NULL)) >= 0)
                if (p->max_sessions && p->sessions >= p->max_sessions)
                        close(fd);
                else
                        peer_session(p, fd);
        return NULL;
}

static inline bool peer_start(struct peer *p)
{
        struct err e;

        p->port = 0;
        p->listener = net_listen_loopback(&p->port, &e);
        return p->listener >= 0 && pthread_create(&p->thread, NULL, peer_main, p) == 0;
}

/* No session may be open. What was received stays until peer_free. */
static inline void peer_stop(struct peer *p)
{
        shutdown(p->listener, SHUT_RDWR);
        pthread_join(p->thread, NULL);
        close(p->listener);
}

static inline void peer_free(struct peer *p)
{
        for (unsigned i = 0; i < PEER_MAIL; i++)
                buf_free(&p->mail[i].wire);
        buf_free(&p->log);
        buf_free(&p->in);
        buf_free(&p->out);
}

static inline unsigned peer_count(const struct peer *p, const char *what)
{
        struct str rest = buf_str(&p->log), w = str_of(what);
        unsigned n = 0;

        while (rest.n > 0)
                n += str_starts(str_take(&rest, '\n'), w);
        return n;
}

#endif
