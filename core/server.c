#include "core/server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/net.h"
#include "core/server_int.h"
#include "core/sys.h"

enum {
        CONNECTIONS_MAX = 64,
        ACCEPT_MS = 200,        /* between looks at stopped() */
};

struct server {
        struct server_options o;
        struct mailbox box;
        int listener;
        unsigned port;
        struct arena *arena;
        pthread_mutex_t lock;   /* of what follows, and of box.locked */
        pthread_cond_t idle;
        int open[CONNECTIONS_MAX]; /* descriptors of live connections, -1: free */
        unsigned count;
};

struct visit {
        struct server *s;
        unsigned place;
        int fd;
};

/* Octets as they go over the wire, without stuffing: each LF and each bare CR becomes CRLF. */
static bool measure(struct served *m, struct err *e)
{
        char block[16384];
        uint64_t at = 0;
        bool cr = false, mid_line = false;
        ssize_t n;

        while ((n = range_read(m->range, at, block, sizeof block, e)) > 0) {
                for (ssize_t i = 0; i < n; i++) {
                        m->octets += block[i] == '\r' || (block[i] == '\n' && !cr) ? 2 : block[i] != '\n';
                        cr = block[i] == '\r';
                        mid_line = !cr && block[i] != '\n';
                }
                at += (uint64_t)n;
        }
        m->octets += mid_line ? 2 : 0; /* the last line gets an end on its way */
        return n == 0;
}

static bool grow(struct mailbox *b, struct err *e)
{
        size_t room = b->room ? b->room * 2 : 64;
        struct served *grown;

        if (b->n < b->room)
                return true;
        grown = mem_resize(b->mail, room * sizeof *grown);
        if (!grown)
                return err_nomem(e);
        b->mail = grown;
        b->room = room;
        return true;
}

/* A UID is the hash of the content, with a number for a repeat: the same archive served again has the same UIDs. */
static bool name_it(struct served *m, struct message *msg, struct map *seen, struct err *e)
{
        uint8_t hash[32];
        uintptr_t times;
        char hex[65];

        if (!message_hash(msg, hash, e))
                return false;
        digest_hex(hash, hex);
        hex[40] = 0; /* 160 bits are enough to tell messages apart, and a UID may have 70 characters */
        times = (uintptr_t)map_get(seen, str_of(hex)) + 1;
        if (!map_set(seen, str_of(hex), (void *)times, NULL))
                return err_nomem(e);
        snprintf(m->uid, sizeof m->uid, times > 1 ? "%s-%lu" : "%s", hex, (unsigned long)times);
        return true;
}

static bool take_in(struct server *s, struct message *msg, struct map *seen, struct err *e)
{
        struct served m = { .range = message_range(msg) };

        if (!grow(&s->box, e) || !name_it(&m, msg, seen, e) || !measure(&m, e))
                return false;
        backing_ref(m.range.in);
        s->box.mail[s->box.n++] = m;
        return true;
}

static bool load(struct server *s, struct source *src, struct err *e)
{
        struct map *seen = map_new();
        bool ok = seen || err_nomem(e);

        while (ok) {
                struct message *msg = NULL;

                ok = src->ops->next(src, &msg, e);
                if (!ok || !msg)
                        break;
                ok = take_in(s, msg, seen, e);
                message_free(msg);
        }
        if (seen)
                map_free(seen, NULL);
        return ok;
}

struct server *server_new(struct source *src, const struct server_options *o, struct err *e)
{
        struct server *s = mem_zero(sizeof *s);

        if (!s)
                return err_nomem(e), NULL;
        s->o = *o;
        s->port = o->port;
        s->listener = -1;
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->idle, NULL);
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
                s->open[i] = -1;
        s->arena = arena_new(0);
        if (!s->arena) {
                err_nomem(e);
        } else {
                s->o.user = arena_str(s->arena, o->user);
                s->o.password = arena_str(s->arena, o->password);
                if (load(s, src, e) && (s->listener = net_listen_loopback(&s->port, e)) >= 0)
                        return s;
        }
        server_free(s);
        return NULL;
}

unsigned server_port(const struct server *s) { return s->port; }
size_t server_count(const struct server *s) { return s->box.n; }

bool mailbox_lock(struct server *s, struct mailbox **box)
{
        bool got;

        pthread_mutex_lock(&s->lock);
        got = !s->box.locked;
        s->box.locked = true;
        pthread_mutex_unlock(&s->lock);
        *box = &s->box;
        return got;
}

void mailbox_unlock(struct server *s)
{
        pthread_mutex_lock(&s->lock);
        s->box.locked = false;
        pthread_mutex_unlock(&s->lock);
}

const struct server_options *server_options(const struct server *s) { return &s->o; }

static void *serve(void *arg)
{
        struct visit v = *(struct visit *)arg;
        struct err e = { 0 };
        struct stream *st;
        struct lines *l = NULL;

        mem_free(arg);
        st = v.s->o.tls && !v.s->o.stls ? tls_accept(v.s->o.tls, v.fd, sys_mono_ms() + 30000, &e) : stream_fd(v.fd, &e);
        if (st)
                l = lines_new(st, SERVER_IDLE_MS, &e);
        if (l)
                server_talk(v.s, l);
        else
                log_info("serve: %s", e.text);
        pthread_mutex_lock(&v.s->lock);
        v.s->open[v.place] = -1; /* before it is closed, so that a stopping server shuts down no one else's */
        pthread_mutex_unlock(&v.s->lock);
        lines_free(l);
        pthread_mutex_lock(&v.s->lock);
        v.s->count--;
        pthread_cond_signal(&v.s->idle);
        pthread_mutex_unlock(&v.s->lock);
        return NULL;
}

static bool start(struct server *s, unsigned place, int fd)
{
        struct visit *v = mem_alloc(sizeof *v);
        pthread_attr_t attr;
        pthread_t t;
        int rc;

        if (!v)
                return false;
        *v = (struct visit){ s, place, fd };
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        rc = pthread_create(&t, &attr, serve, v);
        pthread_attr_destroy(&attr);
        if (rc != 0)
                mem_free(v);
        return rc == 0;
}

static void admit(struct server *s, int fd)
{
        unsigned place = 0;
        bool ok;

        pthread_mutex_lock(&s->lock);
        while (place < CONNECTIONS_MAX && s->open[place] >= 0)
                place++;
        ok = place < CONNECTIONS_MAX && s->count < CONNECTIONS_MAX;
        if (ok) {
                s->open[place] = fd;
                s->count++;
        }
        pthread_mutex_unlock(&s->lock);
        if (ok && start(s, place, fd))
                return;
        log_warn("serve: a connection is refused: %d are open", CONNECTIONS_MAX);
        if (ok) {
                pthread_mutex_lock(&s->lock);
                s->open[place] = -1;
                s->count--;
                pthread_mutex_unlock(&s->lock);
        }
        close(fd);
}

/* Wakes every connection and waits until its thread is gone. */
static void send_home(struct server *s)
{
        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
                if (s->open[i] >= 0)
                        shutdown(s->open[i], SHUT_RDWR);
        while (s->count > 0)
                pthread_cond_wait(&s->idle, &s->lock);
        pthread_mutex_unlock(&s->lock);
}

bool server_run(struct server *s, struct err *e)
{
        struct pollfd p = { .fd = s->listener, .events = POLLIN };
        bool ok = true;

        while (ok && !(s->o.stopped && s->o.stopped())) {
                int n = poll(&p, 1, ACCEPT_MS), fd;

                if (n < 0 && errno != EINTR)
                        ok = err_sys(e, ERR_NET, errno, "waiting for connections");
                if (n <= 0)
                        continue;
                fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
                if (fd >= 0)
                        admit(s, fd);
                else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
                        poll(NULL, 0, ACCEPT_MS);
        }
        send_home(s);
        return ok;
}

void server_free(struct server *s)
{
        if (!s)
                return;
        if (s->listener >= 0)
                close(s->listener);
        for (size_t i = 0; i < s->box.n; i++)
                backing_unref(s->box.mail[i].range.in);
        mem_free(s->box.mail);
        arena_free(s->arena);
        pthread_mutex_destroy(&s->lock);
        pthread_cond_destroy(&s->idle);
        mem_free(s);
}
