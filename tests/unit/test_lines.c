/* Streams, lines over them, and connecting. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/lines.h"
#include "core/log.h"
#include "core/net.h"
#include "core/pool.h"
#include "core/sys.h"
#include "tests/unit/test.h"

static struct err e;

static struct lines *over(struct str in, size_t drip, struct buf *out)
{
        struct stream *s = stream_memory(in, out, &e);

        return lines_new(drip ? stream_drip(s, drip, &e) : s, 1000, &e);
}

/* Whole, and n bytes a call. */
TEST(lines_in_any_pieces)
{
        struct str in = STR("one\r\ntwo\n\r\nfour \r\r\n\0five\r\nrest");

        for (size_t drip = 0; drip <= in.n; drip++) {
                struct lines *l = over(in, drip, NULL);
                struct str line, have;
                size_t rest = 0;
                bool bare;
                NEED(l);
                CHECK(lines_read(l, 100, &line, &bare, &e) && !bare);
                CHECK_STR(line, "one");
                CHECK(lines_read(l, 100, &line, &bare, &e) && bare);
                CHECK_STR(line, "two");
                CHECK(lines_read(l, 100, &line, &bare, &e) && line.n == 0 && !bare);
                CHECK(lines_read(l, 100, &line, NULL, &e));
                CHECK_STR(line, "four \r");
                CHECK(lines_read(l, 100, &line, NULL, &e));
                CHECK_BYTES(line, STR("\0five"));
                while (lines_fill(l, &have, &e)) {
                        rest += have.n;
                        CHECK(lines_buffered(l) == have.n);
                        lines_take(l, have.n);
                }
                CHECK(rest == 4 && e.code == ERR_NET);
                CHECK(lines_bytes_in(l) == in.n);
                lines_free(l);
        }
}

/* Cut at every byte: the whole lines come, then the error, never half a line. */
TEST(P19_cut_at_every_byte)
{
        struct str in = STR("+OK a\r\n+OK bb\r\n");

        for (size_t at = 0; at <= in.n; at++) {
                struct lines *l = lines_new(stream_cut(stream_memory(in, NULL, &e), at, STREAM_EOF, &e), 1000, &e);
                struct str line;
                int n = 0;
                NEED(l);
                while (lines_read(l, 100, &line, NULL, &e))
                        n++;
                CHECK(n == (at >= in.n) + (at >= 7) && e.code == ERR_NET);
                CHECK(strstr(e.text, "closed the connection"));
                lines_free(l);
        }
}

TEST(reset_is_net)
{
        struct lines *l = lines_new(stream_cut(stream_memory(STR("abc"), NULL, &e), 2, STREAM_RESET, &e), 1000, &e);
        struct str line;

        CHECK(!lines_read(l, 100, &line, NULL, &e) && e.code == ERR_NET && e.sys == ECONNRESET);
        lines_free(l);
}

/* P03, P20: an endless line stops at its maximum, and memory with it. */
TEST(P03_line_maximum)
{
        static char in[100000];
        struct str line;

        memset(in, 'x', sizeof in);
        for (size_t drip = 0; drip < 2; drip++) {
                struct lines *l = over(str_make(in, sizeof in), drip * 7, NULL);
                CHECK(!lines_read(l, 8192, &line, NULL, &e) && e.code == ERR_PROTO);
                CHECK(lines_buffered(l) <= 8192 + 64 * 1024);
                lines_free(l);
        }
        for (size_t max = 3; max < 6; max++) {
                struct lines *l = over(STR("1234\r\n"), 1, NULL);
                CHECK(lines_read(l, max, &line, NULL, &e) == (max >= 4));
                lines_free(l);
                l = over(STR("1234\n"), 0, NULL);
                CHECK(lines_read(l, max, &line, NULL, &e) == (max >= 4));
                lines_free(l);
        }
}

/* P01: silence ends at the idle time. */
TEST(P01_stall)
{
        struct lines *l = lines_new(stream_cut(stream_memory(STR("+OK"), NULL, &e), 3, STREAM_STALL, &e), 60, &e);
        int64_t before = sys_mono_ms();
        struct str line, have;

        CHECK(lines_poll(l, &have, &e) && have.n == 3);
        CHECK(!lines_read(l, 100, &line, NULL, &e) && e.code == ERR_TIMEOUT);
        CHECK(sys_mono_ms() - before >= 60 && sys_mono_ms() - before < 1000);
        lines_free(l);
}

struct dripper {
        int fd, every_ms, count;
};

static void drip_bytes(void *arg)
{
        struct dripper *d = arg;

        for (int i = 0; i < d->count && send(d->fd, "x", 1, MSG_NOSIGNAL) == 1; i++)
                usleep((unsigned)d->every_ms * 1000);
        shutdown(d->fd, SHUT_WR);
}

static int pair(int fd[2]) { return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd); }

/* P34: a byte now and then keeps nothing alive inside an answer; outside of one it does. */
static enum err_code dripped(bool in_answer, int64_t *took)
{
        struct dripper d = { .every_ms = 20, .count = 25 };
        struct lines *l;
        struct thread *t;
        struct str line;
        int fd[2];

        if (pair(fd) != 0)
                return ERR_NONE;
        d.fd = fd[1];
        l = lines_new(stream_fd(fd[0], &e), 150, &e);
        t = thread_start(drip_bytes, &d, "drip", &e);
        if (in_answer)
                lines_answer_begins(l);
        *took = sys_mono_ms();
        CHECK(!lines_read(l, 100, &line, NULL, &e));
        *took = sys_mono_ms() - *took;
        lines_free(l);
        thread_join(t);
        close(fd[1]);
        return e.code;
}

TEST(P34_a_byte_now_and_then)
{
        int64_t took;

        CHECK(dripped(true, &took) == ERR_TIMEOUT);
        CHECK(took >= 150 && took < 400);
        CHECK(dripped(false, &took) == ERR_NET);
        CHECK(took >= 400);
}

struct flooder {
        int fd;
        size_t bytes;
        bool ok;
};

/* A server that reads a command only after it has sent all it has to say. */
static void flood(void *arg)
{
        struct flooder *f = arg;
        char block[8192];
        struct pollfd p = { .fd = f->fd, .events = POLLOUT };
        size_t got = 0;

        memset(block, 'y', sizeof block);
        for (size_t put = 0; put < f->bytes;) {
                ssize_t n = poll(&p, 1, 5000) == 1 ? send(f->fd, block, sizeof block, MSG_NOSIGNAL) : -1;
                if (n <= 0)
                        return;
                put += (size_t)n;
        }
        while (got < f->bytes) {
                ssize_t n = read(f->fd, block, sizeof block);
                if (n <= 0)
                        return;
                got += (size_t)n;
        }
        f->ok = true;
}

TEST(two_pipelining_sides_do_not_block)
{
        static char block[1024 * 1024];
        struct flooder f = { .bytes = 2 * 1024 * 1024 };
        struct lines *l;
        struct thread *t;
        struct str have;
        size_t got = 0;
        int fd[2];

        memset(block, 'z', sizeof block);
        NEED(pair(fd) == 0);
        f.fd = fd[1];
        l = lines_new(stream_fd(fd[0], &e), 5000, &e);
        t = thread_start(flood, &f, "flood", &e);
        NEED(l && t);
        CHECK(lines_write(l, str_make(block, sizeof block), &e));
        CHECK(lines_write(l, str_make(block, sizeof block), &e));
        CHECK(lines_flush(l, &e));
        while (got < f.bytes && lines_fill(l, &have, &e)) {
                got += have.n;
                lines_take(l, have.n);
        }
        thread_join(t);
        CHECK(got == f.bytes && f.ok);
        lines_free(l);
        close(fd[1]);
}

/* Nobody reads and nobody writes: the idle time ends it, and what waits stays bounded. */
TEST(write_times_out)
{
        static char block[1024 * 1024];
        struct lines *l;
        int64_t before = sys_mono_ms();
        int fd[2];

        NEED(pair(fd) == 0);
        l = lines_new(stream_fd(fd[0], &e), 80, &e);
        CHECK(!lines_write(l, str_make(block, sizeof block), &e) && e.code == ERR_TIMEOUT);
        CHECK(sys_mono_ms() - before >= 80 && sys_mono_ms() - before < 2000);
        lines_free(l);
        close(fd[1]);
}

TEST(write_to_the_dead)
{
        struct lines *l;
        struct str line;
        int fd[2];

        NEED(pair(fd) == 0);
        l = lines_new(stream_fd(fd[0], &e), 1000, &e);
        NEED(write(fd[1], "-ERR bye\r\n", 10) == 10);
        close(fd[1]);
        CHECK(lines_write(l, STR("QUIT\r\n"), &e));
        CHECK(!lines_flush(l, &e) && e.code == ERR_NET); /* and no SIGPIPE */
        CHECK(lines_read(l, 100, &line, NULL, &e));      /* its last words */
        CHECK_STR(line, "-ERR bye");
        CHECK(!lines_read(l, 100, &line, NULL, &e) && e.code == ERR_NET);
        lines_free(l);
}

TEST(what_was_queued_leaves_before_a_read_waits)
{
        struct buf out = BUF_INIT;
        struct lines *l = over(STR("+OK\r\n"), 0, &out);
        struct str line;

        CHECK(lines_write(l, STR("NOOP\r\n"), &e));
        CHECK(out.n == 0);
        CHECK(lines_read(l, 100, &line, NULL, &e));
        CHECK_STR(buf_str(&out), "NOOP\r\n");
        lines_free(l);
        buf_free(&out);
}

static char logged[4096];
static void sink(void *ctx, enum log_level level, struct str line)
{
        strncat(logged, line.p, line.n < 1000 ? line.n : 1000);
        strcat(logged, "|");
}

/* C06: a masked line reaches no log. */
TEST(C06_mask)
{
        struct buf out = BUF_INIT;
        struct lines *l = over(STR("+OK\r\n-ERR canary\r\n"), 0, &out);
        struct str line;

        logged[0] = '\0';
        log_set_sink(sink, NULL);
        log_set_level(LOG_DEBUG);
        CHECK(lines_write(l, STR("USER me\r\n"), &e));
        lines_mask(l, true);
        CHECK(lines_write(l, STR("PASS canary\r\n"), &e));
        lines_mask(l, false);
        CHECK(lines_read(l, 100, &line, NULL, &e));
        CHECK(lines_read(l, 100, &line, NULL, &e));
        CHECK_STR(line, "-ERR canary"); /* a server that repeats it */
        log_set_level(LOG_WARN);
        log_set_sink(NULL, NULL);
        CHECK(strcmp(logged, "> USER me|> ***|< +OK|< -ERR ***|") == 0);
        CHECK_STR(buf_str(&out), "USER me\r\nPASS canary\r\n");
        lines_free(l);
        buf_free(&out);
}

static struct stream *plain_again(void *ctx, int fd, struct err *why)
{
        ++*(int *)ctx;
        return stream_fd(fd, why);
}

/* T06: what came before the handshake ends it. */
TEST(T06_bytes_before_the_handshake)
{
        for (int bytes = 0; bytes < 3; bytes++) {
                struct lines *l;
                struct str line;
                int fd[2], wrapped = 0;
                NEED(pair(fd) == 0);
                l = lines_new(stream_fd(fd[0], &e), 1000, &e);
                NEED(write(fd[1], "+OK begin\r\n+OK\r\nPLAIN\r\n.\r\n", bytes == 1 ? 16 : 11) > 0);
                CHECK(lines_read(l, 100, &line, NULL, &e));
                if (bytes == 2)
                        NEED(write(fd[1], "x", 1) == 1); /* not yet buffered */
                CHECK(lines_upgrade(l, plain_again, &wrapped, &e) == (bytes == 0));
                CHECK(bytes == 0 ? wrapped == 1 : wrapped == 0 && e.code == ERR_PROTO);
                CHECK(!lines_is_tls(l));
                if (bytes == 0) {
                        NEED(write(fd[1], "more\r\n", 6) == 6);
                        CHECK(lines_read(l, 100, &line, NULL, &e));
                        CHECK_STR(line, "more");
                }
                lines_free(l);
                close(fd[1]);
        }
}

static struct stream *refuse(void *ctx, int fd, struct err *why)
{
        close(fd);
        err_set(why, ERR_TLS, "no");
        return NULL;
}

TEST(after_a_failed_upgrade_nothing_works)
{
        struct lines *l;
        struct str line;
        int fd[2];

        NEED(pair(fd) == 0);
        l = lines_new(stream_fd(fd[0], &e), 1000, &e);
        CHECK(!lines_upgrade(l, refuse, NULL, &e) && e.code == ERR_TLS);
        CHECK(!lines_read(l, 100, &line, NULL, &e) && e.code == ERR_NET);
        CHECK(!lines_poll(l, &line, &e));
        CHECK(lines_write(l, STR("x"), &e) && !lines_flush(l, &e) && e.code == ERR_NET);
        lines_free(l);
        close(fd[1]);
}

TEST(a_stop_ends_only_silence)
{
        atomic_bool stop = true;
        struct str line;
        struct lines *l;
        int fd[2];

        NEED(pair(fd) == 0);
        l = lines_new(stream_fd(fd[0], &e), 300, &e);
        NEED(l);
        lines_set_stop(l, &stop);
        NEED(write(fd[1], "one\r\n", 5) == 5);
        CHECK(lines_read(l, 100, &line, NULL, &e));
        CHECK(!lines_read(l, 100, &line, NULL, &e) && e.code == ERR_TIMEOUT); /* its own time is shorter */
        lines_set_idle(l, 60000);
        CHECK(!lines_read(l, 100, &line, NULL, &e) && e.code == ERR_STOPPED);
        NEED(write(fd[1], "two\r\n", 5) == 5);
        CHECK(lines_read(l, 100, &line, NULL, &e));
        CHECK_STR(line, "two");
        lines_free(l);
        close(fd[1]);
}

TEST(poll_takes_only_what_has_come)
{
        struct lines *l;
        struct str have;
        int fd[2];

        NEED(pair(fd) == 0);
        l = lines_new(stream_fd(fd[0], &e), 10000, &e);
        CHECK(lines_poll(l, &have, &e) && have.n == 0);
        NEED(write(fd[1], "ab", 2) == 2);
        CHECK(lines_poll(l, &have, &e));
        CHECK_STR(have, "ab");
        lines_take(l, 1);
        CHECK(lines_poll(l, &have, &e));
        CHECK_STR(have, "b");
        lines_take(l, 5);
        close(fd[1]);
        CHECK(!lines_poll(l, &have, &e) && e.code == ERR_NET);
        lines_free(l);
}

TEST(connect_and_listen)
{
        unsigned port = 0, free_port = 0;
        int fd = net_listen_loopback(&port, &e), at, other;

        NEED(fd >= 0 && port > 0);
        at = net_connect(STR("127.0.0.1"), port, sys_mono_ms() + 2000, NULL, &e);
        CHECK(at >= 0);
        CHECK(fcntl(at, F_GETFD) & FD_CLOEXEC);
        close(at);
        at = net_connect(STR("localhost"), port, sys_mono_ms() + 5000, NULL, &e);
        CHECK(at >= 0);
        close(at);
        close(fd);
        other = net_listen_loopback(&free_port, &e);
        close(other);
        CHECK(net_connect(STR("127.0.0.1"), free_port, sys_mono_ms() + 2000, NULL, &e) < 0 && e.code == ERR_NET);
        CHECK(e.sys == ECONNREFUSED && strstr(e.text, "127.0.0.1"));
        CHECK(net_connect(STR("a\0b"), 1, sys_mono_ms(), NULL, &e) < 0 && e.code == ERR_USAGE);
        CHECK(net_connect(STR("localhost"), 70000, sys_mono_ms(), NULL, &e) < 0 && e.code == ERR_USAGE);
        CHECK(net_connect(STR(""), 1, sys_mono_ms(), NULL, &e) < 0 && e.code == ERR_USAGE);
        port = 70000;
        CHECK(net_listen_loopback(&port, &e) < 0);
}

/* A server whose queue is full never answers the handshake of TCP: the deadline does. */
TEST(connect_has_a_deadline)
{
        unsigned port = 0;
        int fd = net_listen_loopback(&port, &e), many[600], n = 0;
        int64_t before;

        NEED(fd >= 0);
        listen(fd, 0);
        do
                many[n] = net_connect(STR("127.0.0.1"), port, (before = sys_mono_ms()) + 150, NULL, &e);
        while (many[n] >= 0 && ++n < 600);
        CHECK(n < 600 && e.code == ERR_TIMEOUT);
        CHECK(sys_mono_ms() - before >= 140 && sys_mono_ms() - before < 1500);
        while (n-- > 0)
                close(many[n]);
        close(fd);
}

TEST_MAIN
