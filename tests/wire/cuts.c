/* Cuts the connection after every byte that a POP3 server says, in every way in which a connection ends, and runs again: every message
 * must come exactly once and whole, and a run must never say that all is well while one is missing.
 *
 * usage: cuts [--sample N] [--seed N] [WORLD [WAY [WHEN [BYTE]]]]
 * --sample N tries about N of the cuts, chosen by the seed, which is printed. The names are printed with each failure. */
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "core/tls.h"
#include "tests/unit/pop3_peer.h"

#define MAIL(n, body) "From: a@example.com\r\nSubject: number " #n "\r\n\r\n" body

static const struct peer_mail mails[] = {
        { "u1", MAIL(1, "first body\r\n"), 0, false },
        { "u2", MAIL(2, ".dot\r\n..\r\n"), 0, false },
        { "u3", MAIL(3, "bare \r and \n\r\n"), 0, false },
        { "u4", MAIL(4, "last\r\n"), 0, false },
};
enum { MAILS = 4, RUNS_MAX = 4, SESSIONS_MAX = 200, STALL_MS = 150, NEVER = INT32_MAX };

/* ---- worlds, ways, times */

static const struct world {
        const char *name;
        bool no_pipelining, no_uidl, no_top, wrong_sizes;
        enum outcome_leave leave;
} worlds[] = {
        { "leave", .leave = LEAVE_ALWAYS },
        { "delete", .leave = LEAVE_NEVER },
        { "delete-slowly", .leave = LEAVE_NEVER, .no_pipelining = true },
        { "delete-wrong-sizes", .leave = LEAVE_NEVER, .wrong_sizes = true },
        { "no-uidl", .leave = LEAVE_NEVER, .no_uidl = true },
        { "no-top", .leave = LEAVE_NEVER, .no_uidl = true, .no_top = true },
};

enum way { WAY_FIN, WAY_RST, WAY_NOTIFY, WAY_BARE, WAY_STALL, WAYS };
static const char *const way_names[] = { "fin", "rst", "tls-notify", "tls-bare", "stall" };
enum when { ONCE, ALWAYS, WHENS }; /* only the first session, or every session of the first run */
static const char *const when_names[] = { "once", "always" };

/* ---- between the client and the server */

struct cutter {
        int listener;
        unsigned port, server_port;
        pthread_t thread;
        struct tls_server *tls;
        /* Set before a run; a session of the one before may still be ending. */
        _Atomic enum way way;
        atomic_uint at, sessions_left; /* cut after so many bytes, in so many sessions */
        atomic_uint longest;           /* bytes of the longest session that was not cut */
        atomic_uint sessions;          /* of this cut */
        char what[80];
};

static void end_by(int fd, struct stream *s, enum way way)
{
        char sink[4096];

        if (way == WAY_STALL) { /* until the client gives up */
                while (stream_poll(fd, POLLIN, sys_mono_ms() + 20 * STALL_MS) && recv(fd, sink, sizeof sink, 0) > 0)
                        ;
        } else if (way == WAY_RST) {
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
        } else if (way != WAY_NOTIFY) {
                shutdown(fd, SHUT_WR);
                while (stream_poll(fd, POLLIN, sys_mono_ms() + 2000) && recv(fd, sink, sizeof sink, 0) > 0)
                        ;
        }
        stream_close(s);
}

/* Both ways until one side ends; true when the cut was made. */
static bool copy(struct cutter *c, struct stream *client, int fd, int server, uint32_t at)
{
        struct err e = { 0 };
        uint32_t said = 0;
        char block[4096];

        for (;;) {
                struct pollfd p[2] = { { fd, POLLIN, 0 }, { server, POLLIN, 0 } };
                ssize_t n;

                if (said == at)
                        return true;
                if (poll(p, 2, 10000) <= 0)
                        return false;
                if (p[0].revents) {
                        n = stream_read(client, block, sizeof block, STREAM_NOW, &e);
                        if (n == 0 || (n < 0 && e.code != ERR_TIMEOUT) || (n > 0 && send(server, block, (size_t)n, MSG_NOSIGNAL) != n))
                                return false;
                }
                if (p[1].revents) {
                        n = recv(server, block, sizeof block < at - said ? sizeof block : at - said, 0);
                        if (n <= 0 || !stream_write_all(client, str_make(block, (size_t)n), sys_mono_ms() + 2000, &e))
                                break;
                        said += (uint32_t)n;
                        c->longest = said > c->longest ? said : c->longest;
                }
        }
        return false;
}

static void serve(struct cutter *c, int fd)
{
        bool tls = c->way == WAY_NOTIFY || c->way == WAY_BARE, cut;
        struct err e = { 0 };
        int server = net_connect(STR("127.0.0.1"), c->server_port, sys_mono_ms() + 2000, NULL, &e);
        struct stream *s;

        if (++c->sessions > SESSIONS_MAX) {
                printf("FAIL %s: it connects without end\n0 passed, 1 failed\n", c->what);
                exit(1);
        }
        s = server < 0 ? (close(fd), NULL) : tls ? tls_accept(c->tls, fd, sys_mono_ms() + 2000, &e) : stream_fd(fd, &e);

        if (s) {
                uint32_t at = c->sessions_left > 0 ? c->at : NEVER;

                c->sessions_left -= c->sessions_left > 0;
                cut = copy(c, s, fd, server, at);
                end_by(fd, s, cut ? c->way : tls ? WAY_NOTIFY : WAY_FIN);
        }
        if (server >= 0)
                close(server);
}

static void *cutter_run(void *arg)
{
        struct cutter *c = arg;
        int fd;

        while ((fd = accept(c->listener, NULL, NULL)) >= 0)
                serve(c, fd);
        return NULL;
}

/* ---- one cut */

struct bench {
        struct peer peer;
        struct cutter cutter;
        struct state state;
        char dir[64], ca[96];
        unsigned cases, failed, seed;
        unsigned odd_exits;
};

static void fill(struct bench *b, const struct world *w)
{
        struct peer *p = &b->peer;

        memcpy(p->mail, mails, sizeof mails);
        p->n = MAILS;
        p->no_uidl = w->no_uidl;
        p->no_top = w->no_top;
        p->no_pipelining = w->no_pipelining;
        for (unsigned i = 0; w->wrong_sizes && i < MAILS; i++)
                p->mail[i].size = strlen(mails[i].text) + 7;
        p->mailbox++;
        pthread_mutex_lock(&p->lock);
        buf_clear(&p->log);
        pthread_mutex_unlock(&p->lock);
}

static const char *wrong(struct bench *b, const struct world *w, unsigned given[MAILS], const struct got *g, bool last)
{
        unsigned known = 0;
        bool all = true;

        for (unsigned i = 0; i < MAILS; i++) {
                unsigned n = got_text(g, mails[i].text);

                known += n;
                given[i] += n;
                all = all && given[i] >= 1;
                if (given[i] > 1)
                        return "a message was handed out twice";
                if (b->peer.mail[i].gone && given[i] == 0)
                        return "a message was deleted that nobody has seen";
        }
        if (known != g->n)
                return "a message was not as it was sent";
        if (g->ok && !all)
                return "a run said that all was well, and a message is missing";
        if (last && !(g->ok && all))
                return "an undisturbed run did not bring the rest";
        for (unsigned i = 0; last && i < MAILS; i++)
                if (b->peer.mail[i].gone != (w->leave == LEAVE_NEVER))
                        return w->leave == LEAVE_NEVER ? "a message is still on the server" : "a message is gone from the server";
        return NULL;
}

/* Disturbed once, and again undisturbed until a run has nothing left to do. */
static const char *try_cut(struct bench *b, const struct world *w, enum way way, enum when when, uint32_t at)
{
        struct run_options r = { .leave = w->leave, .timeout_ms = way == WAY_STALL ? STALL_MS : 5000 };
        unsigned given[MAILS] = { 0 };
        const char *why = NULL;
        char name[64];

        snprintf(name, sizeof name, "account-%u", b->cases); /* of which the ledger knows nothing */
        r.name = name;
        r.ca_file = way == WAY_NOTIFY || way == WAY_BARE ? b->ca : NULL;
        fill(b, w);
        b->cutter.way = way;
        b->cutter.at = at;
        b->cutter.sessions = 0;
        snprintf(b->cutter.what, sizeof b->cutter.what, "%s %s %s %u", w->name, way_names[way], when_names[when], at);
        b->cutter.sessions_left = when == ONCE ? 1 : NEVER;
        for (int run = 0; run < RUNS_MAX && !why; run++) {
                struct got g = run_over(b->cutter.port, &b->state, &r);
                bool done = g.ok && g.n == 0 && run > 0;

                b->cutter.sessions_left = 0;
                if (way == WAY_STALL && w->wrong_sizes && g.suspects > 0) { /* silence behind a dot: taken for the end, flagged, left on the server */
                        bool left = b->peer.mail[1].gone == false;

                        give_back(&g);
                        return left ? NULL : "a message was deleted whose end is in doubt";
                }
                why = wrong(b, w, given, &g, done || run == RUNS_MAX - 1);
                give_back(&g);
                if (done)
                        break;
                for (unsigned i = 0, left = 0; i < MAILS; i++) /* an empty mailbox has nothing more to tell */
                        if ((left += !b->peer.mail[i].gone) == 0 && i == MAILS - 1)
                                return why;
        }
        return why;
}

static uint32_t length_of(struct bench *b, const struct world *w, enum way way)
{
        b->cutter.longest = 0;
        b->cases++;
        return try_cut(b, w, way, ONCE, NEVER) ? 0 : b->cutter.longest;
}

/* ---- all of them */

static bool chosen(const char *wish, const char *name)
{
        return !wish || strcmp(wish, name) == 0;
}

static void one(struct bench *b, const struct world *w, enum way way, enum when when, uint32_t at)
{
        const char *why;

        b->cases++;
        why = try_cut(b, w, way, when, at);
        if (why) {
                b->failed++;
                printf("FAIL %s %s %s %u: %s\n", w->name, way_names[way], when_names[when], at, why);
        }
}

/* A stall costs its time-out, so it is tried at fewer places: one byte in seven. */
static void every_byte(struct bench *b, const struct world *w, enum way way, enum when when, unsigned one_in, const char *byte)
{
        uint32_t n = length_of(b, w, way);

        if (n == 0) {
                b->failed++;
                printf("FAIL %s %s: it goes wrong without a cut\n", w->name, way_names[way]);
        }
        if (way == WAY_STALL)
                one_in *= 7;
        for (uint32_t at = 0; at < n; at++) {
                bool taken = rand_r(&b->seed) % one_in == 0;

                if (byte ? (uint32_t)atoi(byte) == at : taken)
                        one(b, w, way, when, at);
        }
}

static bool certificate(struct bench *b)
{
        char cmd[512];

        snprintf(b->ca, sizeof b->ca, "%s/cert.pem", b->state.dir);
        snprintf(cmd, sizeof cmd, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
                 " -addext subjectAltName=IP:127.0.0.1 -keyout %s/key.pem -out %s 2>/dev/null", b->state.dir, b->ca);
        return system(cmd) == 0;
}

static bool set_up(struct bench *b)
{
        struct err e = { 0 };
        char key[96];

        if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
                setenv("TMPDIR", "/dev/shm", 1);
        if (!state_open(&b->state) || !certificate(b) || !peer_start(&b->peer))
                return false;
        snprintf(key, sizeof key, "%s/key.pem", b->state.dir);
        b->cutter.tls = tls_server_new(b->ca, key, &e);
        b->cutter.listener = net_listen_loopback(&b->cutter.port, &e);
        b->cutter.server_port = b->peer.port;
        return b->cutter.tls && b->cutter.listener >= 0 && pthread_create(&b->cutter.thread, NULL, cutter_run, &b->cutter) == 0;
}

static void tear_down(struct bench *b)
{
        shutdown(b->cutter.listener, SHUT_RDWR);
        pthread_join(b->cutter.thread, NULL);
        close(b->cutter.listener);
        tls_server_free(b->cutter.tls);
        peer_stop(&b->peer);
        state_close(&b->state);
}

/* About how many cuts there are: the lengths differ with the number of sessions. */
enum { CUTS_IN_ALL = 30000 };

static void all(struct bench *b, unsigned one_in, char **wish)
{
        for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++)
                for (int way = 0; way < WAYS; way++)
                        for (int when = 0; when < WHENS; when++)
                                if (chosen(wish[0], worlds[i].name) && chosen(wish[1], way_names[way]) && chosen(wish[2], when_names[when]))
                                        every_byte(b, &worlds[i], (enum way)way, (enum when)when, one_in, wish[3]);
}

int main(int argc, char **argv)
{
        static struct bench b;
        char *wish[5] = { NULL };
        unsigned sample = 0, n = 0, seed;
        struct rusage use;
        int64_t begun = sys_mono_ms();

        b.seed = (unsigned)getpid();
        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--sample") == 0 && i + 1 < argc)
                        sample = (unsigned)atoi(argv[++i]);
                else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
                        b.seed = (unsigned)atoi(argv[++i]);
                else if (n < 4)
                        wish[n++] = argv[i];
        }
        seed = b.seed;
        log_set_level(wish[3] ? LOG_DEBUG : LOG_ERROR); /* one cut: all that was said */
        if (!set_up(&b)) {
                puts("the servers could not be started\n0 passed, 1 failed");
                return 1;
        }
        all(&b, sample ? (CUTS_IN_ALL + sample - 1) / sample : 1, wish);
        getrusage(RUSAGE_SELF, &use);
        tear_down(&b);
        printf("# seed %u, %.1f s, peak memory %ld MiB\n%u passed, %u failed\n", seed, (double)(sys_mono_ms() - begun) / 1000,
               use.ru_maxrss >> 10, b.cases - b.failed, b.failed);
        return b.failed > 0;
}
