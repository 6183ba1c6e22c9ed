#include "core/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"

ssize_t stream_read(struct stream *s, char *p, size_t n, int64_t deadline, struct err *e)
{
        return s->ops->read(s, p, n, deadline, e);
}

bool stream_write_all(struct stream *s, struct str p, int64_t deadline, struct err *e)
{
        while (p.n > 0) {
                ssize_t put = s->ops->write(s, p.p, p.n, deadline, e);
                if (put < 0)
                        return false;
                p = str_from(p, (size_t)put);
        }
        return true;
}

void stream_close(struct stream *s)
{
        if (s)
                s->ops->close(s);
}

/* ---- a descriptor ---------------------------------------------------------------------------------------------- */

struct fd_stream {
        struct stream base;
        int fd;
        bool socket; /* where MSG_NOSIGNAL works */
};

static int poll_ms(int64_t deadline)
{
        int64_t left = deadline == STREAM_NOW ? 0 : deadline - sys_mono_ms();

        return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

bool stream_poll(int fd, short events, int64_t deadline)
{
        for (;;) {
                struct pollfd p = { .fd = fd, .events = events };
                int r = poll(&p, 1, poll_ms(deadline));
                if (r > 0)
                        return true;
                if (r == 0 || errno != EINTR)
                        return r < 0;
        }
}

/* Cut in short pieces: a stop is set by another thread, and no signal may come to this one. */
bool stream_poll_or_stop(int fd, short events, int64_t deadline, const atomic_bool *stop, struct err *e)
{
        enum { LOOK_MS = 200 };

        for (;;) {
                int64_t now = sys_mono_ms(), look = now + LOOK_MS;

                if (stop && atomic_load(stop))
                        return err_set(e, ERR_STOPPED, "stopped while waiting for an answer");
                if (stream_poll(fd, events, stop && look < deadline ? look : deadline))
                        return true;
                if (sys_mono_ms() >= deadline)
                        return err_set(e, ERR_TIMEOUT, "no answer in time");
        }
}

static struct fd_stream *fd_of(struct stream *s) { return (struct fd_stream *)s; }

/* After a call that failed: true to try it again, false with e filled. */
static bool again(struct fd_stream *s, short events, int64_t deadline, const char *doing, struct err *e)
{
        if (errno == EINTR)
                return true;
        if (errno != EAGAIN)
                return err_sys(e, ERR_NET, errno, "%s", doing);
        if (deadline != STREAM_NOW && stream_poll(s->fd, events, deadline))
                return true;
        return err_set(e, ERR_TIMEOUT, "%s: no progress in time", doing);
}

static ssize_t fd_read(struct stream *s, char *p, size_t n, int64_t deadline, struct err *e)
{
        struct fd_stream *f = fd_of(s);

        for (;;) {
                ssize_t got = read(f->fd, p, n);
                if (got >= 0)
                        return got;
                if (!again(f, POLLIN, deadline, "receiving", e))
                        return -1;
        }
}

static ssize_t fd_write(struct stream *s, const char *p, size_t n, int64_t deadline, struct err *e)
{
        struct fd_stream *f = fd_of(s);

        for (;;) {
                ssize_t put = f->socket ? send(f->fd, p, n, MSG_NOSIGNAL) : write(f->fd, p, n);
                if (put > 0)
                        return put;
                if (put == 0)
                        errno = EIO;
                if (!again(f, POLLOUT, deadline, "sending", e))
                        return -1;
        }
}

static bool fd_ready(struct stream *s) { return stream_poll(fd_of(s)->fd, POLLIN, STREAM_NOW); }

static void fd_wait(struct stream *s, bool writing, int64_t deadline)
{
        (void)stream_poll(fd_of(s)->fd, writing ? POLLIN | POLLOUT : POLLIN, deadline);
}

static void fd_close(struct stream *s)
{
        close(fd_of(s)->fd);
        mem_free(s);
}

static const struct stream_ops fd_ops = { fd_read, fd_write, fd_ready, fd_close, fd_wait };

struct stream *stream_fd(int fd, struct err *e)
{
        struct fd_stream *f = mem_zero(sizeof *f);
        int flags = fcntl(fd, F_GETFL);
        struct stat st;

        if (!f) {
                err_nomem(e);
                close(fd);
                return NULL;
        }
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fstat(fd, &st) != 0) {
                err_sys(e, ERR_NET, errno, "using a descriptor");
                close(fd);
                mem_free(f);
                return NULL;
        }
        f->base.ops = &fd_ops;
        f->fd = fd;
        f->socket = S_ISSOCK(st.st_mode);
        return &f->base;
}

int stream_release_fd(struct stream *s)
{
        int fd;

        if (!s || s->ops != &fd_ops)
                return -1;
        fd = fd_of(s)->fd;
        mem_free(s);
        return fd;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

struct memory {
        struct stream base;
        struct str in;
        struct buf *out;
};

static ssize_t memory_read(struct stream *s, char *p, size_t n, int64_t deadline, struct err *e)
{
        struct memory *m = (struct memory *)s;
        struct str some = str_first(m->in, n);

        if (some.n > 0)
                memcpy(p, some.p, some.n);
        m->in = str_from(m->in, some.n);
        return (ssize_t)some.n;
}

static ssize_t memory_write(struct stream *s, const char *p, size_t n, int64_t deadline, struct err *e)
{
        struct memory *m = (struct memory *)s;

        if (m->out && !buf_add(m->out, p, n)) {
                (void)buf_ok(m->out, e);
                return -1;
        }
        return (ssize_t)n;
}

static bool memory_ready(struct stream *s) { return true; }
static void memory_close(struct stream *s) { mem_free(s); }
static void memory_wait(struct stream *s, bool writing, int64_t deadline) {}

static const struct stream_ops memory_ops = { memory_read, memory_write, memory_ready, memory_close, memory_wait };

struct stream *stream_memory(struct str in, struct buf *out, struct err *e)
{
        struct memory *m = mem_zero(sizeof *m);

        if (!m) {
                err_nomem(e);
                return NULL;
        }
        m->base.ops = &memory_ops;
        m->in = in;
        m->out = out;
        return &m->base;
}

/* ---- what goes wrong, for tests: n bytes a call; an end, a reset or silence after `left` bytes ------------------- */

struct filter {
        struct stream base;
        struct stream *inner;
        size_t step;   /* 0: no bound */
        uint64_t left; /* UINT64_MAX: never ends */
        enum stream_end how;
};

static struct filter *filter_of(struct stream *s) { return (struct filter *)s; }

static ssize_t filter_end(struct filter *f, int64_t deadline, struct err *e)
{
        switch (f->how) {
        case STREAM_EOF:
                return 0;
        case STREAM_RESET:
                err_sys(e, ERR_NET, ECONNRESET, "receiving");
                return -1;
        case STREAM_STALL:
                break;
        }
        sys_sleep_until(deadline);
        err_set(e, ERR_TIMEOUT, "receiving: no progress in time");
        return -1;
}

static ssize_t filter_read(struct stream *s, char *p, size_t n, int64_t deadline, struct err *e)
{
        struct filter *f = filter_of(s);
        ssize_t got;

        if (f->left == 0)
                return filter_end(f, deadline, e);
        if (f->step > 0 && n > f->step)
                n = f->step;
        if (n > f->left)
                n = (size_t)f->left;
        got = stream_read(f->inner, p, n, deadline, e);
        if (got > 0 && f->left != UINT64_MAX)
                f->left -= (uint64_t)got;
        return got;
}

static ssize_t filter_write(struct stream *s, const char *p, size_t n, int64_t deadline, struct err *e)
{
        struct filter *f = filter_of(s);

        return f->inner->ops->write(f->inner, p, f->step > 0 && n > f->step ? f->step : n, deadline, e);
}

static bool filter_ready(struct stream *s)
{
        struct filter *f = filter_of(s);

        return f->left == 0 ? f->how != STREAM_STALL : f->inner->ops->ready(f->inner);
}

static void filter_wait(struct stream *s, bool writing, int64_t deadline)
{
        struct filter *f = filter_of(s);

        if (f->left == 0 || !f->inner->ops->wait)
                sys_sleep_until(sys_mono_ms() + 1);
        else
                f->inner->ops->wait(f->inner, writing, deadline);
}

static void filter_close(struct stream *s)
{
        stream_close(filter_of(s)->inner);
        mem_free(s);
}

static const struct stream_ops filter_ops = { filter_read, filter_write, filter_ready, filter_close, filter_wait };

static struct stream *filter_new(struct stream *inner, size_t step, uint64_t left, enum stream_end how, struct err *e)
{
        struct filter *f = inner ? mem_zero(sizeof *f) : NULL;

        if (!f) {
                if (inner)
                        err_nomem(e); /* else the inner one's failure stands in e */
                stream_close(inner);
                return NULL;
        }
        *f = (struct filter){ { &filter_ops }, inner, step, left, how };
        return &f->base;
}

struct stream *stream_drip(struct stream *inner, size_t n, struct err *e)
{
        return filter_new(inner, n, UINT64_MAX, STREAM_EOF, e);
}

struct stream *stream_cut(struct stream *inner, uint64_t at, enum stream_end how, struct err *e)
{
        return filter_new(inner, 0, at, how, e);
}
