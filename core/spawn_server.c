/* The supervisor's side: one thread, one poll over the worker's socket, the children, and the sockets on which their callers wait. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/spawn_in.h"
#include "core/sys.h"

struct running {
        struct child child;
        int reply;
        int64_t deadline; /* INT64_MAX: none */
        double seconds;
        bool killed, late;
        char name[64]; /* for messages */
};

struct spawn_server {
        int fd;
        struct running *run;
        struct pollfd *polls;
        size_t count, cap;
};

static bool make_room(struct spawn_server *s)
{
        size_t cap = s->cap ? s->cap * 2 : 8;
        void *run, *polls;

        if (s->count < s->cap)
                return true;
        run = mem_resize(s->run, cap * sizeof *s->run);
        if (run)
                s->run = run;
        polls = mem_resize(s->polls, (2 * cap + 1) * sizeof *s->polls);
        if (polls)
                s->polls = polls;
        if (run && polls)
                s->cap = cap;
        return run && polls;
}

/* With room for some children from the start: a supervisor without memory still waits for what it has, and does not run in circles. */
struct spawn_server *spawn_server_new(int fd, struct err *e)
{
        struct spawn_server *s = mem_zero(sizeof *s);

        if (!s || !make_room(s)) {
                close(fd);
                if (s) {
                        mem_free(s->run);
                        mem_free(s->polls);
                }
                mem_free(s);
                err_nomem(e);
                return NULL;
        }
        s->fd = fd;
        return s;
}

/* A worker that has died hears nothing: that is no error. */
static void answer(int fd, const struct reply *r) { (void)!send(fd, r, sizeof *r, MSG_NOSIGNAL | MSG_DONTWAIT); }

static void answer_error(int fd, const struct err *e)
{
        struct reply r = { .e = *e };

        answer(fd, &r);
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

struct parcel {
        struct request r;
        int fds[REQUEST_FDS], count;
        char *text; /* the payload, NUL-terminated */
        size_t n;
        const char **strings; /* argv, NULL, env, NULL */
};

static void parcel_free(struct parcel *p)
{
        for (int i = 0; i < p->count; i++)
                close(p->fds[i]);
        if (p->text)
                mem_wipe(p->text, p->n);
        mem_free(p->text);
        mem_free(p->strings);
}

/* 1: a request; 0: nothing there; -1: the worker has gone. */
static int receive(int fd, struct parcel *p)
{
        union {
                char bytes[CMSG_SPACE(sizeof(int) * REQUEST_FDS)];
                struct cmsghdr align;
        } control;
        struct iovec v = { &p->r, sizeof p->r };
        struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control };
        ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -1;
        if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
                p->count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                memcpy(p->fds, CMSG_DATA(c), (size_t)p->count * sizeof(int));
        }
        if (n == 0)
                return -1;
        return n == sizeof p->r && p->count >= 2 ? 1 : 0;
}

static bool read_payload(struct parcel *p, struct err *e)
{
        size_t want = (size_t)p->r.argc + p->r.envc, at = 0;
        const char **out;

        if (lseek(p->fds[1], 0, SEEK_SET) != 0)
                return err_sys(e, ERR_IO, errno, "reading a request");
        p->text = sys_read_file(p->fds[1], PAYLOAD_MAX, &p->n, e);
        if (!p->text)
                return false;
        if (want > p->n)
                return err_set(e, ERR_USAGE, "a request is too short");
        p->strings = out = mem_array(want + 2, sizeof *out);
        if (!out)
                return err_nomem(e);
        for (size_t i = 0; i < want && at < p->n; i++) {
                if (i == p->r.argc)
                        out++; /* over the NULL between */
                *out++ = p->text + at;
                at += strlen(p->text + at) + 1;
        }
        return at == p->n ? true : err_set(e, ERR_USAGE, "a request is garbled");
}

static void log_name(struct running *r, const char *argv0) { strncat(r->name, argv0, sizeof r->name - 1); }

static bool start(struct spawn_server *s, struct parcel *p, struct err *e)
{
        unsigned flags = p->r.flags;
        int next = 2, wanted = 2 + !!(flags & REQUEST_STDIN) + !!(flags & REQUEST_STDOUT);
        int in = -1, out = -1;
        struct running r = { .seconds = p->r.seconds, .deadline = INT64_MAX };

        if (p->count != wanted || p->r.argc == 0)
                return err_set(e, ERR_USAGE, "a request lacks something");
        if (flags & REQUEST_STDIN)
                in = p->fds[next++];
        if (flags & REQUEST_STDOUT)
                out = p->fds[next++];
        if (!make_room(s))
                return err_nomem(e);
        if (!child_start(&r.child, p->strings, p->strings + p->r.argc + 1, in, out, flags & REQUEST_KEEP_ENV, flags & REQUEST_QUIET, e))
                return false;
        if (r.seconds > 0 && r.seconds < 1e9)
                r.deadline = sys_mono_ms() + (int64_t)ceil(r.seconds * 1000);
        log_name(&r, p->strings[0]);
        r.reply = p->fds[0];
        p->fds[0] = p->fds[--p->count]; /* ours now */
        s->run[s->count++] = r;
        return true;
}

static bool tell_variable(const struct parcel *p, struct err *e)
{
        struct reply r = { .ok = true };
        struct str value;

        if (p->r.argc != 1 || !env_find(str_of(p->strings[0]), &value))
                return err_set(e, ERR_ABSENT, "the environment variable is not set");
        r.n = value.n;
        answer(p->fds[0], &r);
        if (value.n > 0)
                (void)!send(p->fds[0], value.p, value.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        return true;
}

static void serve(struct spawn_server *s, struct parcel *p)
{
        struct err e;
        bool ok = read_payload(p, &e);

        if (ok && p->r.kind == REQUEST_RUN)
                ok = start(s, p, &e);
        else if (ok && p->r.kind == REQUEST_GETENV)
                ok = tell_variable(p, &e);
        if (!ok)
                answer_error(p->fds[0], &e);
}

static bool serve_all(struct spawn_server *s)
{
        enum { AT_ONCE = 32 }; /* then children get their turn */

        for (int i = 0; i < AT_ONCE; i++) {
                struct parcel p = { .count = 0 };
                int got = receive(s->fd, &p);
                if (got > 0)
                        serve(s, &p);
                parcel_free(&p);
                if (got <= 0)
                        return got == 0;
        }
        return true;
}

/* ---- children -------------------------------------------------------------------------------------------------- */

static void finish(struct running *r, int status, int error)
{
        struct reply reply = { .ok = true, .status = status };

        if (r->late)
                reply.ok = err_set(&reply.e, ERR_TIMEOUT, "%s: still running after %g seconds, killed", r->name, r->seconds);
        else if (error != 0)
                reply.ok = err_sys(&reply.e, ERR_IO, error, "running %s", r->name);
        answer(r->reply, &reply);
        close(r->reply);
}

static void reap(struct spawn_server *s)
{
        int status, error;

        for (size_t i = 0; i < s->count;) {
                if (child_reap(&s->run[i].child, &status, &error)) {
                        finish(&s->run[i], status, error);
                        s->run[i] = s->run[--s->count];
                } else {
                        i++;
                }
        }
}

static void kill_once(struct running *r)
{
        if (!r->killed)
                child_kill(&r->child);
        r->killed = true;
}

static void kill_late(struct spawn_server *s)
{
        int64_t now = sys_mono_ms();

        for (struct running *r = s->run; r < s->run + s->count; r++) {
                if (!r->killed && now >= r->deadline)
                        r->late = true;
                if (r->late)
                        kill_once(r);
        }
}

static int wait_time(const struct spawn_server *s, int timeout_ms)
{
        int64_t now = sys_mono_ms(), most = timeout_ms < 0 ? INT32_MAX : timeout_ms;

        for (const struct running *r = s->run; r < s->run + s->count; r++) {
                if (!r->killed && r->deadline - now < most)
                        most = r->deadline > now ? r->deadline - now : 0;
                if (r->child.pidfd < 0 && most > CHILD_LOOK_MS)
                        most = CHILD_LOOK_MS;
        }
        return (int)most;
}

/* The caller shut its end down, or died. */
static void kill_unwanted(struct spawn_server *s)
{
        for (size_t i = 0; i < s->count; i++) {
                if (s->polls[2 + 2 * i].revents != 0)
                        kill_once(&s->run[i]);
        }
}

bool spawn_server_step(struct spawn_server *s, int timeout_ms)
{
        struct pollfd *p = s->polls;

        p[0] = (struct pollfd){ .fd = s->fd, .events = POLLIN };
        for (size_t i = 0; i < s->count; i++) {
                p[1 + 2 * i] = (struct pollfd){ .fd = s->run[i].child.pidfd, .events = POLLIN };
                p[2 + 2 * i] = (struct pollfd){ .fd = s->run[i].killed ? -1 : s->run[i].reply, .events = POLLIN };
        }
        if (poll(p, 1 + 2 * s->count, wait_time(s, timeout_ms)) < 0)
                return true; /* a signal: the supervisor looks what it was */
        kill_unwanted(s);
        reap(s); /* first: what ended just in time is not late */
        kill_late(s);
        return p[0].revents == 0 || serve_all(s);
}

void spawn_server_free(struct spawn_server *s)
{
        if (!s)
                return;
        for (struct running *r = s->run; r < s->run + s->count; r++)
                kill_once(r);
        while (s->count > 0) {
                reap(s);
                if (s->count > 0)
                        sys_sleep_until(sys_mono_ms() + 1);
        }
        close(s->fd);
        mem_free(s->run);
        mem_free(s->polls);
        mem_free(s);
}
