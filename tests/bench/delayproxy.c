/* A TCP proxy on 127.0.0.1 that delays each direction by a fixed time and does not limit throughput: what a distant server feels like.
 * usage: delayproxy MS LISTEN:TARGET [LISTEN:TARGET ...]
 *
 * Every chunk read gets a due time (now + MS) and is written when due. The queue is unbounded, so the sender sees a fat pipe. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LISTENERS_MAX = 16, READ_BYTES = 256 * 1024, READS_IN_A_ROW = 4 };

struct chunk {
        struct chunk *next;
        int64_t due;
        size_t n, sent;
        char bytes[];
};
struct side {
        int fd;
        struct pair *pair;
        struct chunk *first, *last; /* to be written into this side */
        int eof, waiting, shut;     /* nothing more to read; its buffer is full; we said that no more comes */
};
struct pair {
        struct side side[2];
        struct pair *next, *prev;
};
struct listener {
        int fd, target;
};

static struct pair *pairs;
static int64_t delay;
static int ep;

static int64_t now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what)
{
        perror(what);
        exit(1);
}

static struct sockaddr_in loopback(int port)
{
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return a;
}

static struct side *other(struct side *s)
{
        return &s->pair->side[s == &s->pair->side[0]];
}

static void watch(struct side *s, int op)
{
        struct epoll_event ev = { .events = (s->eof ? 0u : EPOLLIN) | (s->waiting ? EPOLLOUT : 0u), .data.ptr = s };

        epoll_ctl(ep, op, s->fd, &ev);
}

static void drop(struct pair *p)
{
        for (int i = 0; i < 2; i++) {
                close(p->side[i].fd);
                for (struct chunk *c = p->side[i].first, *next; c; c = next) {
                        next = c->next;
                        free(c);
                }
        }
        *(p->prev ? &p->prev->next : &pairs) = p->next;
        if (p->next)
                p->next->prev = p->prev;
        free(p);
}

/* Writes what is due into s; -1 when the pair has to go. */
static int write_due(struct side *s, int64_t t)
{
        int waiting = 0;

        while (s->first && s->first->due <= t) {
                struct chunk *c = s->first;
                ssize_t n = send(s->fd, c->bytes + c->sent, c->n - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno != EAGAIN)
                        return -1;
                if (n < 0) {
                        waiting = 1;
                        break;
                }
                c->sent += (size_t)n;
                if (c->sent < c->n)
                        continue;
                s->first = c->next;
                if (!s->first)
                        s->last = NULL;
                free(c);
        }
        if (waiting != s->waiting) {
                s->waiting = waiting;
                watch(s, EPOLL_CTL_MOD);
        }
        if (!s->first && other(s)->eof && !s->shut) {
                shutdown(s->fd, SHUT_WR);
                s->shut = 1;
        }
        return s->shut && other(s)->shut ? -1 : 0;
}

/* Reads what has come on s and queues it for the other side; -1 when the pair has to go. */
static int read_some(struct side *s)
{
        struct side *to = other(s);

        for (int i = 0; i < READS_IN_A_ROW; i++) {
                struct chunk *c = malloc(sizeof *c + READ_BYTES);
                ssize_t n = c ? recv(s->fd, c->bytes, READ_BYTES, MSG_DONTWAIT) : -1;
                if (n <= 0) {
                        free(c);
                        if (n < 0)
                                return errno == EAGAIN ? 0 : -1;
                        s->eof = 1;
                        watch(s, EPOLL_CTL_MOD);
                        return 0;
                }
                c = realloc(c, sizeof *c + (size_t)n);
                c->n = (size_t)n;
                c->sent = 0;
                c->next = NULL;
                c->due = now() + delay;
                *(to->last ? &to->last->next : &to->first) = c;
                to->last = c;
                if (n < READ_BYTES / 4)
                        break;
        }
        return 0;
}

static void side_event(struct side *s, uint32_t events)
{
        /* an error ends the pair: both ends are marked, and write_due drops it on the next turn */
        if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !s->eof && read_some(s) < 0)
                s->eof = s->shut = other(s)->shut = 1;
        else if ((events & EPOLLHUP) && s->eof)
                s->shut = other(s)->shut = 1;
}

static void accept_one(const struct listener *l)
{
        int one = 1;
        int fds[2] = { accept4(l->fd, NULL, NULL, SOCK_NONBLOCK), socket(AF_INET, SOCK_STREAM, 0) };
        struct sockaddr_in a = loopback(l->target);
        struct pair *p;

        if (fds[0] < 0 || connect(fds[1], (struct sockaddr *)&a, sizeof a) != 0) {
                close(fds[0]);
                close(fds[1]);
                return;
        }
        p = calloc(1, sizeof *p);
        p->next = pairs;
        if (pairs)
                pairs->prev = p;
        pairs = p;
        for (int i = 0; i < 2; i++) {
                setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                p->side[i].fd = fds[i];
                p->side[i].pair = p;
                watch(&p->side[i], EPOLL_CTL_ADD);
        }
}

static void listen_on(struct listener *l, const char *ports)
{
        struct sockaddr_in a = loopback(atoi(ports));
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = l };
        const char *colon = strchr(ports, ':');
        int one = 1;

        l->target = colon ? atoi(colon + 1) : 0;
        l->fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(l->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(l->fd, 64) != 0)
                die(ports);
        epoll_ctl(ep, EPOLL_CTL_ADD, l->fd, &ev);
}

/* Writes all that is due and answers when the next will be, or -1. */
static int64_t turn(int64_t t)
{
        int64_t soonest = -1;

        for (struct pair *p = pairs, *next; p; p = next) {
                next = p->next;
                if (write_due(&p->side[0], t) < 0 || write_due(&p->side[1], t) < 0) {
                        drop(p);
                        continue;
                }
                for (int i = 0; i < 2; i++) {
                        const struct side *s = &p->side[i];
                        if (s->first && !s->waiting && (soonest < 0 || s->first->due < soonest))
                                soonest = s->first->due;
                }
        }
        return soonest;
}

int main(int argc, char **argv)
{
        struct listener listeners[LISTENERS_MAX];

        if (argc < 3 || argc - 2 > LISTENERS_MAX) {
                fprintf(stderr, "usage: %s MS LISTEN:TARGET...\n", argv[0]);
                return 2;
        }
        delay = (int64_t)(atof(argv[1]) * 1e6);
        signal(SIGPIPE, SIG_IGN);
        ep = epoll_create1(0);
        for (int i = 2; i < argc; i++)
                listen_on(&listeners[i - 2], argv[i]);
        for (;;) {
                struct epoll_event ev[64];
                int64_t due = turn(now()), rest = due < 0 ? 0 : due - now();
                struct timespec wait = { .tv_sec = rest > 0 ? rest / 1000000000 : 0, .tv_nsec = rest > 0 ? rest % 1000000000 : 0 };
                int n = epoll_pwait2(ep, ev, 64, due < 0 ? NULL : &wait, NULL);
                for (int i = 0; i < n; i++) {
                        struct listener *l = ev[i].data.ptr;
                        if (l >= listeners && l < listeners + LISTENERS_MAX)
                                accept_one(l);
                        else
                                side_event(ev[i].data.ptr, ev[i].events);
                }
        }
}
