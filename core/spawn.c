/* The caller's side: asks the supervisor (or forks, without one), reads the output, waits for the end. */
#include "core/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/spawn_in.h"
#include "core/sys.h"

enum {
        STOP_MS = 3000,         /* that a child has to end by itself, once a stop was asked for */
        STOP_LOOK_MS = 200,     /* between looks whether it was */
        GRACE_MS = 10000,       /* after which we stop waiting for the end of what was killed */
        OUTPUT_BLOCK = 64 * 1024,
};

static atomic_int supervisor = -1;

void spawn_connect(int fd) { supervisor = fd; }

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static bool put_strings(struct buf *b, const char *const *list, unsigned *count)
{
        for (; list && *list; list++, ++*count) {
                if (!buf_add(b, *list, strlen(*list) + 1))
                        return false;
        }
        return true;
}

/* A memory file: a packet would bound the arguments. */
static int payload(struct str text, struct err *e)
{
        int fd;

        if (text.n > PAYLOAD_MAX) {
                err_sys(e, ERR_LIMIT, E2BIG, "its arguments and environment are %zu bytes", text.n);
                return -1;
        }
        fd = memfd_create("mailmill request", MFD_CLOEXEC);
        if (fd >= 0 && sys_write_all(fd, text.p, text.n, e))
                return fd;
        if (fd >= 0)
                close(fd);
        else
                err_sys(e, ERR_IO, errno, "asking the supervisor");
        return -1;
}

/* The kernel closes a dead supervisor's sockets some moments before it kills us with it. What we did meanwhile, thinking that only this request
 * has failed (an attempt counted, a command put off), would be wrong. */
static bool supervisor_gone(struct err *e)
{
        enum { DEATH_MS = 500 };

        sys_sleep_until(sys_mono_ms() + DEATH_MS);
        return err_set(e, ERR_IO, "the supervisor has gone");
}

static bool send_packet(const struct request *r, const int *fds, size_t count, struct err *e)
{
        union {
                char bytes[CMSG_SPACE(sizeof(int) * REQUEST_FDS)];
                struct cmsghdr align;
        } control;
        struct iovec v = { (void *)r, sizeof *r };
        struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes,
                            .msg_controllen = CMSG_SPACE(sizeof(int) * count) };
        struct cmsghdr *c;

        memset(&control, 0, sizeof control);
        c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
        while (sendmsg(supervisor, &m, MSG_NOSIGNAL) < 0) {
                if (errno == EAGAIN)
                        (void)!poll(&(struct pollfd){ .fd = supervisor, .events = POLLOUT }, 1, -1);
                else if (errno == EPIPE || errno == ECONNRESET)
                        return supervisor_gone(e);
                else if (errno != EINTR)
                        return err_sys(e, ERR_IO, errno, "asking the supervisor");
        }
        return true;
}

/* Sends the request with a fresh socket for its reply, so that no thread can hear another's. That socket, or -1. */
static int ask(const struct request *r, struct str text, int in, int out, struct err *e)
{
        int reply[2], fds[REQUEST_FDS], n = 0, memory;
        bool ok;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, reply) != 0) {
                err_sys(e, ERR_IO, errno, "asking the supervisor");
                return -1;
        }
        memory = payload(text, e);
        ok = memory >= 0;
        fds[n++] = reply[1];
        fds[n++] = memory;
        if (r->flags & REQUEST_STDIN)
                fds[n++] = in;
        if (r->flags & REQUEST_STDOUT)
                fds[n++] = out;
        ok = ok && send_packet(r, fds, (size_t)n, e);
        close(reply[1]);
        if (memory >= 0)
                close(memory);
        if (ok)
                return reply[0];
        close(reply[0]);
        return -1;
}

static bool hear(int fd, void *p, size_t n, struct err *e)
{
        ssize_t got;

        do
                got = recv(fd, p, n, 0);
        while (got < 0 && errno == EINTR);
        if (got == (ssize_t)n)
                return true;
        if (got < 0 && errno != ECONNRESET)
                return err_sys(e, ERR_IO, errno, "hearing the supervisor");
        return supervisor_gone(e);
}

/* ---- environment ----------------------------------------------------------------------------------------------- */

static bool ask_variable(struct str name, struct buf *out, struct err *e)
{
        struct request r = { .kind = REQUEST_GETENV, .argc = 1 };
        struct buf text = BUF_INIT;
        struct reply reply;
        int fd = -1;
        bool ok;

        ok = buf_add_str(&text, name) && buf_add_char(&text, '\0');
        if (ok)
                fd = ask(&r, buf_str(&text), -1, -1, e);
        else
                err_nomem(e);
        buf_free(&text);
        if (fd < 0)
                return false;
        ok = hear(fd, &reply, sizeof reply, e);
        if (ok && !reply.ok) {
                if (e)
                        *e = reply.e;
                ok = false;
        } else if (ok && !buf_reserve(out, reply.n)) {
                ok = buf_ok(out, e);
        } else if (ok && reply.n > 0) {
                ok = hear(fd, out->p + out->n, reply.n, e);
                out->n += ok ? reply.n : 0;
        }
        close(fd);
        return ok;
}

bool spawn_getenv(struct str name, struct buf *out, struct err *e)
{
        struct str value;

        if (name.n == 0 || memchr(name.p, '\0', name.n))
                return err_set(e, ERR_ABSENT, "the environment variable is not set");
        if (supervisor >= 0)
                return ask_variable(name, out, e);
        if (!env_find(name, &value))
                return err_set(e, ERR_ABSENT, "the environment variable is not set");
        return buf_add_str(out, value) ? true : buf_ok(out, e);
}

/* ---- running --------------------------------------------------------------------------------------------------- */

struct run {
        const struct spawn *s;
        struct child child; /* without a supervisor */
        int reply;          /* with one; else -1 */
        int out;            /* the child's output; -1: none, or no more */
        size_t got;
        int64_t deadline;
        int64_t stop_at; /* 0: nobody has asked to stop */
        bool over;   /* the child has ended, and its number may be another's */
        bool killed;
        struct err why; /* why it was killed */
};

static bool start_by_supervisor(struct run *r, int out, struct err *e)
{
        const struct spawn *s = r->s;
        struct request q = { .kind = REQUEST_RUN, .seconds = s->seconds };
        struct buf text = BUF_INIT;

        q.flags = (s->stdin_fd >= 0 ? REQUEST_STDIN : 0) | (out >= 0 ? REQUEST_STDOUT : 0) |
                  (s->keep_env ? REQUEST_KEEP_ENV : 0) | (s->quiet ? REQUEST_QUIET : 0);
        if (put_strings(&text, s->argv, &q.argc) && put_strings(&text, s->env, &q.envc))
                r->reply = ask(&q, buf_str(&text), s->stdin_fd, out, e);
        else
                err_nomem(e);
        buf_free(&text);
        return r->reply >= 0 ? true : err_in(e, "running %s", s->argv[0]);
}

static bool start(struct run *r, struct err *e)
{
        const struct spawn *s = r->s;
        int pipes[2] = { -1, -1 };
        bool ok;

        if (s->output_max > 0 && pipe2(pipes, O_CLOEXEC) != 0)
                return err_sys(e, ERR_IO, errno, "running %s: making a pipe", s->argv[0]);
        if (pipes[0] >= 0)
                fcntl(pipes[0], F_SETFL, O_NONBLOCK);
        r->out = pipes[0];
        if (supervisor >= 0)
                ok = start_by_supervisor(r, pipes[1], e);
        else
                ok = child_start(&r->child, s->argv, s->env, s->stdin_fd, pipes[1], s->keep_env, s->quiet, e);
        if (pipes[1] >= 0)
                close(pipes[1]);
        if (!ok && pipes[0] >= 0)
                close(pipes[0]);
        return ok;
}

static void stop_output(struct run *r)
{
        if (r->out >= 0)
                close(r->out);
        r->out = -1;
}

/* Once: the first reason counts. The end of the child is waited for a little longer. */
static void kill_it(struct run *r)
{
        if (r->reply >= 0)
                shutdown(r->reply, SHUT_WR);
        else if (!r->over)
                child_kill(&r->child);
        r->killed = true;
        r->deadline = sys_mono_ms() + GRACE_MS;
        stop_output(r);
}

static void kill_for_output(struct run *r, const struct buf *output)
{
        if (output && output->failed && r->got <= r->s->output_max)
                (void)buf_ok(output, &r->why);
        else
                err_set(&r->why, ERR_LIMIT, "%s: more than %zu bytes of output, killed", r->s->argv[0], r->s->output_max);
        kill_it(r);
}

/* One block of what has come. False when there is no more, now or at all. */
static bool read_output(struct run *r, struct buf *output)
{
        size_t room = r->s->output_max - r->got, want = room < OUTPUT_BLOCK ? room + 1 : OUTPUT_BLOCK;
        char scratch[4096], *to = scratch;
        ssize_t got;

        if (output && !buf_reserve(output, want)) {
                kill_for_output(r, output);
                return false;
        }
        if (output)
                to = output->p + output->n;
        else if (want > sizeof scratch)
                want = sizeof scratch;
        got = read(r->out, to, want);
        if (got < 0)
                return errno == EINTR;
        if (got == 0) {
                stop_output(r);
                return false;
        }
        if ((size_t)got > room) {
                r->got += (size_t)got;
                kill_for_output(r, NULL);
                return false;
        }
        r->got += (size_t)got;
        if (output)
                output->n += (size_t)got;
        return true;
}

/* True when the child has ended: *ok tells whether by itself. */
static bool ended(struct run *r, bool *ok, int *status, struct err *e)
{
        struct reply reply;
        int error = 0;

        if (r->reply < 0) {
                if (!child_reap(&r->child, status, &error))
                        return false;
                *ok = error == 0 ? true : err_sys(e, ERR_IO, error, "running %s", r->s->argv[0]);
                return true;
        }
        *ok = hear(r->reply, &reply, sizeof reply, e) ? true : err_in(e, "running %s", r->s->argv[0]);
        if (*ok && !reply.ok) {
                if (e)
                        *e = reply.e;
                *ok = false;
        } else if (*ok) {
                *status = reply.status;
        }
        return true;
}

static int wait_time(const struct run *r)
{
        int64_t left = r->deadline - sys_mono_ms();

        if (r->s->stop && left > STOP_LOOK_MS)
                left = STOP_LOOK_MS;
        if (r->reply < 0 && r->child.pidfd < 0 && left > CHILD_LOOK_MS)
                left = CHILD_LOOK_MS;
        return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

/* The supervisor keeps the time as well; ours is for the case that there is none, or that it does not answer. */
static bool out_of_time(struct run *r)
{
        if (sys_mono_ms() < r->deadline)
                return false;
        if (r->killed)
                return true;
        err_set(&r->why, ERR_TIMEOUT, "%s: still running after %g seconds, killed", r->s->argv[0], r->s->seconds);
        kill_it(r);
        return false;
}

static void mind_stop(struct run *r)
{
        if (!r->s->stop || r->killed || !atomic_load(r->s->stop))
                return;
        if (!r->stop_at)
                r->stop_at = sys_mono_ms() + STOP_MS;
        if (sys_mono_ms() < r->stop_at)
                return;
        err_set(&r->why, ERR_STOPPED, "%s: killed, because of a stop", r->s->argv[0]);
        kill_it(r);
}

static bool attend(struct run *r, struct buf *output, int *status, struct err *e)
{
        bool ok = true;

        for (;;) {
                struct pollfd p[2] = { { .fd = r->reply >= 0 ? r->reply : r->child.pidfd, .events = POLLIN },
                                       { .fd = r->out, .events = POLLIN } };
                (void)!poll(p, 2, wait_time(r));
                if (p[1].revents != 0)
                        (void)read_output(r, output);
                if ((p[0].revents != 0 || p[0].fd < 0) && ended(r, &ok, status, e)) {
                        r->over = true;
                        break;
                }
                mind_stop(r);
                if (out_of_time(r))
                        break;
        }
        /* All that it wrote is in the pipe by now; what escaped from its group may hold the other end for ever. */
        while (ok && r->out >= 0 && read_output(r, output))
                ;
        if (r->killed && e)
                *e = r->why;
        return ok && !r->killed;
}

bool spawn_run(const struct spawn *s, struct buf *output, int *status, struct err *e)
{
        struct run r = { .s = s, .reply = -1, .out = -1, .deadline = INT64_MAX };
        bool ok;

        *status = -1;
        if (!s->argv || !s->argv[0] || !s->argv[0][0])
                return err_set(e, ERR_USAGE, "running a command: it has no name");
        if (s->seconds > 0 && s->seconds < 1e9)
                r.deadline = sys_mono_ms() + (int64_t)ceil(s->seconds * 1000) + (supervisor >= 0 ? GRACE_MS : 0);
        if (!start(&r, e))
                return false;
        ok = attend(&r, output, status, e);
        stop_output(&r);
        if (r.reply >= 0)
                close(r.reply);
        return ok;
}
