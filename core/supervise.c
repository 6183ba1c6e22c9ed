#include "core/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/spawn.h"

enum {
        RESTARTS_MAX = 64, /* each costs one message an attempt; a run that needs more has another trouble */
        STEP_MS = 100,     /* how often the supervisor looks at the worker */
        OVERTIME = 3,      /* times its limit of CPU that a handler gets before the worker is ended */
        DEAD_MAX = 256,    /* messages in hand of dead workers that are remembered; each restart adds one, or a few */
};

/* One thread's message in hand. */
struct hand {
        atomic_bool taken;
        bool counted; /* of the dead */
        unsigned occurrence;
        uint32_t account_n, uid_n;
        char account[HAND_NAME_MAX], uid[HAND_NAME_MAX], doing[32], why[160];
};

/* Shared by supervisor and worker, and it outlives each worker. */
struct watch {
        struct hand hands[HANDS];
        struct hand dead[DEAD_MAX];
        unsigned dead_n, restarts;
        atomic_uint killer;                   /* slot + 1 of the thread that died; 0: not known */
        char last_words[160];                 /* of a worker that ended itself */
        atomic_int_fast32_t handler_tid;      /* 0: no handler runs */
        atomic_int_fast64_t handler_limit_us;
        atomic_uint_fast64_t handlers;        /* begun so far */
};

static struct watch *watch;
static atomic_uint next_slot = 1;
static _Thread_local unsigned my_slot;

unsigned hand_slot(void)
{
        if (!my_slot && watch && (pid_t)syscall(SYS_gettid) != getpid())
                my_slot = 1 + (atomic_fetch_add(&next_slot, 1) - 1) % (HANDS - 1);
        return my_slot;
}

static uint32_t put(char *to, size_t room, struct str s)
{
        size_t n = s.n < room ? s.n : room;

        if (n)
                memcpy(to, s.p, n);
        return (uint32_t)n;
}

void hand_take(unsigned slot, struct str account, struct str uid, unsigned occurrence, const char *doing)
{
        struct hand *h;

        if (!watch || slot >= HANDS)
                return;
        h = &watch->hands[slot];
        atomic_store(&h->taken, false);
        h->account_n = put(h->account, sizeof h->account, account);
        h->uid_n = put(h->uid, sizeof h->uid, uid);
        h->occurrence = occurrence;
        h->doing[put(h->doing, sizeof h->doing - 1, str_of(doing))] = '\0';
        atomic_store(&h->taken, true);
}

void hand_drop(unsigned slot)
{
        if (watch && slot < HANDS)
                atomic_store(&watch->hands[slot].taken, false);
}

void hand_handler_begins(double cpu_limit)
{
        static _Thread_local int my_tid;

        if (!watch)
                return;
        if (!my_tid)
                my_tid = (int)syscall(SYS_gettid);
        atomic_fetch_add(&watch->handlers, 1);
        atomic_store(&watch->handler_limit_us, (int64_t)(cpu_limit * 1e6));
        atomic_store(&watch->handler_tid, my_tid);
}

void hand_handler_ends(void)
{
        if (watch)
                atomic_store(&watch->handler_tid, 0);
}

bool hand_restarted(void)
{
        return watch && watch->restarts > 0;
}

void hand_dead(bool (*f)(void *ctx, const struct hand_death *d), void *ctx)
{
        for (unsigned i = 0; watch && i < watch->dead_n; i++) {
                const struct hand *h = &watch->dead[i];
                struct hand_death d = { str_make(h->account, h->account_n), str_make(h->uid, h->uid_n), h->occurrence, h->doing, h->why,
                                        h->counted };

                if (!f(ctx, &d))
                        return;
        }
}

void hand_counted(struct str account, struct str uid, unsigned occurrence)
{
        for (unsigned i = 0; watch && i < watch->dead_n; i++) {
                struct hand *h = &watch->dead[i];

                if (h->occurrence == occurrence && str_eq(str_make(h->account, h->account_n), str_first(account, HAND_NAME_MAX)) &&
                    str_eq(str_make(h->uid, h->uid_n), str_first(uid, HAND_NAME_MAX)))
                        h->counted = true;
        }
}

void hand_die(const char *why)
{
        if (watch) {
                size_t n = strnlen(why, sizeof watch->last_words - 1);

                atomic_store(&watch->killer, 1);
                memcpy(watch->last_words, why, n);
                watch->last_words[n] = '\0';
                kill(getpid(), SIGKILL);
                __builtin_trap(); /* where that is not allowed */
        }
        /* No supervisor: a command that only loads the script. */
        if (write(STDERR_FILENO, "mailmill: error: ", 17) < 0 || write(STDERR_FILENO, why, strlen(why)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
                _exit(EX_IOERR);
        _exit(EX_SOFTWARE);
}

/* ---- a worker that is dying says which thread it was ---- */

static const int deadly[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
static struct sigaction before[sizeof deadly / sizeof *deadly];

/* Then whoever handled it before (a sanitizer, or the system) has it: the instruction that failed fails again, and abort() raises
 * its signal once more; one that somebody sent is sent on. */
static void on_death(int sig, siginfo_t *info, void *context)
{
        unsigned none = 0;

        atomic_compare_exchange_strong(&watch->killer, &none, hand_slot() + 1);
        for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
                if (deadly[i] == sig)
                        sigaction(sig, &before[i], NULL);
        if (info->si_code <= 0)
                raise(sig);
}

static void tell_deaths(void)
{
        struct sigaction sa = { .sa_sigaction = on_death, .sa_flags = SA_ONSTACK | SA_SIGINFO };

        for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
                sigaction(deadly[i], &sa, &before[i]);
}

/* ---- the supervisor's side ---- */

static volatile sig_atomic_t signals_seen;

static void on_signal(int sig)
{
        signals_seen++;
}

/* utime + stime of one thread of another process, in microseconds; -1 when it is gone. */
static int64_t cpu_of(pid_t pid, int tid)
{
        char path[64], text[1024], *p;
        unsigned long user, system;
        ssize_t n;
        int fd;

        snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, tid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -1;
        n = read(fd, text, sizeof text - 1);
        close(fd);
        if (n <= 0)
                return -1;
        text[n] = 0;
        p = strrchr(text, ')'); /* the name may hold anything */
        if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
                return -1;
        return (int64_t)(user + system) * 1000000 / sysconf(_SC_CLK_TCK);
}

/* The handler's time counts from when we first see it: so a message costs the worker no look at the clock. */
static bool over_time(pid_t worker)
{
        static uint64_t seen;
        static int64_t since;
        uint64_t handler = atomic_load(&watch->handlers);
        int64_t limit = atomic_load(&watch->handler_limit_us), used;
        int tid = (int)atomic_load(&watch->handler_tid);

        if (!tid || limit <= 0 || (used = cpu_of(worker, tid)) < 0)
                return false;
        if (handler != seen) {
                seen = handler;
                since = used;
        }
        /* The handler may have ended while we looked: only a thread that is still in the same handler counts. */
        return used - since > limit * OVERTIME && atomic_load(&watch->handler_tid) == tid && handler == atomic_load(&watch->handlers);
}

static void bury_one(const struct hand *h, const char *why)
{
        struct hand *d = &watch->dead[watch->dead_n];

        if (watch->dead_n == DEAD_MAX)
                return;
        watch->dead_n++;
        memcpy(d, h, sizeof *d);
        d->counted = false;
        snprintf(d->why, sizeof d->why, "%s", why);
}

/* Keeps what the dead worker had in hand for the next one; returns how many messages that were. Where it is known which thread died, the
 * others' messages are innocent. */
static unsigned bury(const char *why)
{
        unsigned n = 0, killer = atomic_load(&watch->killer);

        for (unsigned i = 0; i < HANDS; i++) {
                struct hand *h = &watch->hands[i];

                if (atomic_load(&h->taken) && (!killer || killer == i + 1)) {
                        bury_one(h, why);
                        n++;
                }
                atomic_store(&h->taken, false);
        }
        atomic_store(&watch->killer, 0);
        atomic_store(&watch->handler_tid, 0);
        return n;
}

static void harden_worker(pid_t supervisor)
{
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != supervisor)
                _exit(EX_TEMPFAIL);
        signal(SIGINT, SIG_IGN); /* the supervisor passes a stop on, once, whatever the terminal sends to the group */
        signal(SIGHUP, SIG_IGN);
        signal(SIGTERM, SIG_DFL); /* until the worker has a handler of its own: ours would swallow it */
        tell_deaths();
}

static pid_t start_worker(int (*worker)(void *ctx), void *ctx, int fds[2])
{
        pid_t supervisor = getpid(), pid;

        fflush(NULL);
        pid = fork();
        if (pid != 0)
                return pid;
        close(fds[0]);
        harden_worker(supervisor);
        spawn_connect(fds[1]);
        exit(worker(ctx));
}

/* Waits for one worker to end. Its wait status; *why names a death that we caused. */
static int attend(pid_t pid, struct spawn_server *server, const char **why)
{
        int status, passed = 0;

        for (;;) {
                pid_t done = waitpid(pid, &status, WNOHANG);

                if (done == pid || (done < 0))
                        return done == pid ? status : EX_OSERR << 8;
                if (signals_seen > passed) {
                        kill(pid, passed == 0 ? SIGTERM : SIGKILL);
                        passed = (int)signals_seen;
                }
                if (over_time(pid)) {
                        *why = "the worker was ended, its handler used three times its CPU limit";
                        atomic_store(&watch->killer, 1);
                        kill(pid, SIGKILL);
                        waitpid(pid, &status, 0);
                        return status;
                }
                if (!spawn_server_step(server, STEP_MS))
                        usleep(1000); /* the worker has closed its end: it is about to end */
        }
}

static bool listen_to_signals(struct err *e)
{
        static const int which[] = { SIGINT, SIGTERM, SIGHUP };
        struct sigaction sa = { .sa_handler = on_signal };

        for (size_t i = 0; i < sizeof which / sizeof *which; i++)
                if (sigaction(which[i], &sa, NULL) < 0)
                        return err_sys(e, ERR_IO, errno, "setting up signals");
        return true;
}

/* Decides whether a worker that ended with status is to be started again; if not, *code is the program's. */
static bool again(int status, const char *why, int *code)
{
        char text[64], last[sizeof watch->last_words];
        unsigned n;

        if (WIFEXITED(status)) {
                *code = WEXITSTATUS(status);
                return false;
        }
        if (watch->last_words[0])
                why = memcpy(last, watch->last_words, sizeof last);
        watch->last_words[0] = '\0';
        if (!why) {
                snprintf(text, sizeof text, "the worker died of signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
                why = text;
        }
        n = bury(why);
        *code = EX_SOFTWARE;
        if (signals_seen) {
                *code = EX_TEMPFAIL;
                return false;
        }
        if (n == 0 || ++watch->restarts > RESTARTS_MAX) {
                log_error("%s%s; nothing of what was not finished is lost, the next run takes it up", why,
                          n ? ", too often" : " with no message in hand");
                return false;
        }
        log_warn("%s; starting again, with fresh globals", why);
        return true;
}

static bool make_watch(struct err *e)
{
        watch = mmap(NULL, sizeof *watch, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (watch == MAP_FAILED) {
                watch = NULL;
                return err_sys(e, ERR_NOMEM, errno, "shared memory for the supervisor");
        }
        return true;
}

/* One life of a worker. True: another one is needed. */
static bool one_life(int (*worker)(void *ctx), void *ctx, int *code, struct err *e)
{
        struct spawn_server *server;
        const char *why = NULL;
        int fds[2], status;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
                return err_sys(e, ERR_IO, errno, "a socket between supervisor and worker");
        pid = start_worker(worker, ctx, fds);
        close(fds[1]);
        if (pid < 0) {
                close(fds[0]);
                return err_sys(e, ERR_IO, errno, "starting the worker process");
        }
        server = spawn_server_new(fds[0], e);
        if (!server) {
                kill(pid, SIGKILL);
                waitpid(pid, &status, 0);
                return false;
        }
        status = attend(pid, server, &why);
        spawn_server_free(server);
        return again(status, why, code);
}

int supervise(int (*worker)(void *ctx), void *ctx)
{
        struct err e = { 0 };
        int code = EX_OSERR;

        if (make_watch(&e) && listen_to_signals(&e))
                while (one_life(worker, ctx, &code, &e))
                        ;
        if (e.code != ERR_NONE) {
                log_error("%s", e.text);
                return err_exit_code(e.code);
        }
        return code;
}
