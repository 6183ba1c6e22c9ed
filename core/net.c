#include "core/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/pool.h"
#include "core/sys.h"

enum {
        HOST_MAX = 255, /* the longest name DNS has */
        LOOK_MS = 200,  /* between two looks whether to stop */
};

/* ---- names ----------------------------------------------------------------------------------------------------- */

/* getaddrinfo knows no deadline and may sit on a dead resolver for a minute, so it runs on a thread of its own, and whoever of the
 * two is last frees this. */
struct lookup {
        pthread_mutex_t lock;
        pthread_cond_t finished;
        bool done, abandoned;
        int result, error;
        struct addrinfo *list;
        char host[HOST_MAX + 1], port[8];
};

static struct addrinfo hints(int flags)
{
        return (struct addrinfo){ .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV };
}

static void lookup_free(struct lookup *l)
{
        pthread_cond_destroy(&l->finished);
        pthread_mutex_destroy(&l->lock);
        mem_free(l);
}

static void lookup_main(void *arg)
{
        struct lookup *l = arg;
        struct addrinfo want = hints(AI_ADDRCONFIG), *list = NULL;
        int result = getaddrinfo(l->host, l->port, &want, &list), error = errno;
        bool abandoned;

        pthread_mutex_lock(&l->lock);
        l->result = result;
        l->error = error;
        l->list = list;
        l->done = true;
        abandoned = l->abandoned;
        pthread_cond_signal(&l->finished);
        pthread_mutex_unlock(&l->lock);
        if (abandoned) {
                if (result == 0)
                        freeaddrinfo(list);
                lookup_free(l);
        }
}

static struct lookup *lookup_start(const char *host, const char *port, struct err *e)
{
        struct lookup *l = mem_zero(sizeof *l);
        pthread_condattr_t monotonic;

        if (!l) {
                err_nomem(e);
                return NULL;
        }
        snprintf(l->host, sizeof l->host, "%s", host);
        snprintf(l->port, sizeof l->port, "%s", port);
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_mutex_init(&l->lock, NULL);
        pthread_cond_init(&l->finished, &monotonic);
        pthread_condattr_destroy(&monotonic);
        if (thread_detach(lookup_main, l, "mailmill-names", e))
                return l;
        lookup_free(l);
        return NULL;
}

static struct timespec at_mono(int64_t deadline)
{
        return (struct timespec){ .tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000 };
}

/* Waits for the answer. After it the lookup belongs to the other thread, or is gone. */
static bool lookup_finish(struct lookup *l, int64_t deadline, const atomic_bool *stop, struct addrinfo **list, struct err *e)
{
        bool stopped = false;
        int result, error;

        pthread_mutex_lock(&l->lock);
        while (!l->done && !stopped && sys_mono_ms() < deadline) {
                int64_t look = sys_mono_ms() + LOOK_MS;
                struct timespec end = at_mono(stop && look < deadline ? look : deadline);

                (void)pthread_cond_timedwait(&l->finished, &l->lock, &end);
                stopped = stop && atomic_load(stop);
        }
        l->abandoned = !l->done;
        result = l->done ? l->result : 0;
        error = l->error;
        *list = l->list;
        if (l->abandoned) {
                pthread_mutex_unlock(&l->lock);
                return stopped ? err_set(e, ERR_STOPPED, "stopped while looking up the name")
                               : err_set(e, ERR_TIMEOUT, "the name was not found in time");
        }
        pthread_mutex_unlock(&l->lock);
        lookup_free(l);
        if (result == EAI_SYSTEM)
                return err_sys(e, ERR_NET, error, "looking up the name");
        return result == 0 ? true : err_set(e, ERR_NET, "looking up the name: %s", gai_strerror(result));
}

static bool resolve(const char *host, const char *port, int64_t deadline, const atomic_bool *stop, struct addrinfo **list,
                    struct err *e)
{
        struct addrinfo want = hints(AI_NUMERICHOST);
        struct lookup *l;

        if (getaddrinfo(host, port, &want, list) == 0)
                return true;
        l = lookup_start(host, port, e);
        return l && lookup_finish(l, deadline, stop, list, e);
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

static bool finish_connect(int fd, int64_t deadline, const atomic_bool *stop, struct err *e)
{
        int why = 0;
        socklen_t n = sizeof why;

        if (!stream_poll_or_stop(fd, POLLOUT, deadline, stop, e))
                return false;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &n) != 0)
                why = errno;
        return why == 0 ? true : err_sys(e, ERR_NET, why, "connecting");
}

static int try_address(const struct addrinfo *a, int64_t deadline, const atomic_bool *stop, struct err *e)
{
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

        if (fd < 0) {
                err_sys(e, ERR_NET, errno, "making a socket");
                return -1;
        }
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS && errno != EINTR)
                err_sys(e, ERR_NET, errno, "connecting");
        else if (finish_connect(fd, deadline, stop, e)) {
                /* Commands leave when they are flushed; a session that waits for a script notices a dead peer. */
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
                return fd;
        }
        close(fd);
        return -1;
}

/* Each address gets an equal share of the time that is left, so a dead first one leaves some for the others. */
static int try_all(const struct addrinfo *list, int64_t deadline, const atomic_bool *stop, struct err *e)
{
        int count = 0, fd = -1;

        for (const struct addrinfo *a = list; a; a = a->ai_next)
                count++;
        for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next, count--) {
                int64_t now = sys_mono_ms(), left = deadline > now ? deadline - now : 0;
                fd = try_address(a, now + left / count, stop, e);
        }
        return fd;
}

int net_connect(struct str host, unsigned port, int64_t deadline, const atomic_bool *stop, struct err *e)
{
        char name[HOST_MAX + 1], number[8];
        struct addrinfo *list = NULL;
        int fd = -1;

        if (host.n == 0 || host.n > HOST_MAX || memchr(host.p, '\0', host.n) || port == 0 || port > 65535) {
                err_set(e, ERR_USAGE, "connecting to \"%.*s\" port %u: not a host and a port", STR_FMT(host), port);
                return -1;
        }
        memcpy(name, host.p, host.n);
        name[host.n] = '\0';
        snprintf(number, sizeof number, "%u", port);
        if (resolve(name, number, deadline, stop, &list, e)) {
                fd = try_all(list, deadline, stop, e);
                freeaddrinfo(list);
        }
        if (fd < 0)
                err_in(e, "%s port %u", name, port);
        return fd;
}

int net_listen_loopback(unsigned *port, struct err *e)
{
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t n = sizeof a;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

        a.sin_port = htons((uint16_t)*port);
        if (fd >= 0 && *port <= 65535 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
            bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 128) == 0 &&
            getsockname(fd, (struct sockaddr *)&a, &n) == 0) {
                *port = ntohs(a.sin_port);
                return fd;
        }
        err_sys(e, ERR_NET, *port > 65535 ? EINVAL : errno, "listening on 127.0.0.1 port %u", *port);
        if (fd >= 0)
                close(fd);
        return -1;
}
