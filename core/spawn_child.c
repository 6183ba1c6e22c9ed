#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/spawn_in.h"

/* ---- finding the program --------------------------------------------------------------------------------------- */

static int executable(const char *path)
{
        struct stat st;

        if (stat(path, &st) != 0)
                return errno;
        if (!S_ISREG(st.st_mode))
                return EACCES;
        return access(path, X_OK) == 0 ? 0 : errno;
}

static const char *path_of(char *const *env)
{
        for (; *env; env++) {
                if (strncmp(*env, "PATH=", 5) == 0)
                        return *env + 5;
        }
        return "/usr/local/bin:/usr/bin:/bin";
}

/* execvp would give a file that no kernel can run to a shell, and look in the working directory for an empty PATH entry.
 * Neither is wanted here. Answers an errno. */
static int find_program(const char *name, char *const *env, char out[PATH_MAX])
{
        struct str rest = str_of(path_of(env));
        int why = ENOENT;

        if (strchr(name, '/'))
                return snprintf(out, PATH_MAX, "%s", name) < PATH_MAX ? executable(out) : ENAMETOOLONG;
        while (rest.n > 0) {
                struct str dir = str_take(&rest, ':');
                int got;
                if (dir.n == 0 || dir.p[0] != '/' || snprintf(out, PATH_MAX, "%.*s/%s", (int)dir.n, dir.p, name) >= PATH_MAX)
                        continue;
                got = executable(out);
                if (got == 0)
                        return 0;
                if (got != ENOENT && got != ENOTDIR)
                        why = got; /* there is one, and it may not be run: says more than "not found" */
        }
        return why;
}

/* ---- between fork and exec: only calls that are safe in a signal handler ---------------------------------------- */

struct start {
        const char *program;
        char *const *argv, *const *env;
        int in, out, report, tty;
        bool own_group_only, quiet;
        pid_t parent;
};

static void default_signals(void)
{
        static const char zeros[64]; /* the kernel's struct: SIG_DFL, no flags, no mask */
        sigset_t none;

        /* Past glibc, which keeps two signals to itself and leaves them ignored where it spawned us. */
        for (int i = 1; i < NSIG; i++)
                syscall(SYS_rt_sigaction, i, zeros, NULL, (size_t)8);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Above 2, so that putting one in its place does not overwrite another. */
static int lift(int fd) { return fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 10); }

static bool place(int fd, int target)
{
        if (fd < 0)
                fd = open("/dev/null", O_RDWR);
        return fd >= 0 && (fd == target || dup2(fd, target) == target);
}

static void close_from(int first)
{
        if (syscall(SYS_close_range, first, ~0U, 0) == 0)
                return;
        for (long i = first, end = sysconf(_SC_OPEN_MAX); i < end; i++)
                close((int)i);
}

static bool arrange(struct start *s)
{
        int in = lift(s->in >= 0 ? s->in : s->tty), out = lift(s->out), report = lift(s->report);

        if ((s->in >= 0 && in < 0) || (s->out >= 0 && out < 0) || report < 0)
                return false;
        if (!place(in, 0) || !place(out, 1) || (s->quiet && !place(-1, 2)))
                return false;
        if (dup3(report, 3, O_CLOEXEC) != 3)
                return false;
        s->report = 3;
        close_from(4);
        return true;
}

static _Noreturn void become(struct start *s)
{
        int why;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != s->parent)
                _exit(127); /* it died before we asked */
        if (s->own_group_only)
                setpgid(0, 0);
        else
                setsid();
        if (s->tty >= 0)
                tcsetpgrp(s->tty, getpid()); /* SIGTTOU is blocked here */
        if (arrange(s)) {
                default_signals();
                execve(s->program, s->argv, s->env);
        }
        why = errno;
        (void)!write(s->report, &why, sizeof why);
        _exit(127);
}

/* ---- the parent's side ----------------------------------------------------------------------------------------- */

/* The terminal, if it is ours to give: we are its foreground group. */
static int take_terminal(void)
{
        int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

        if (tty >= 0 && tcgetpgrp(tty) != getpgrp()) {
                close(tty);
                return -1;
        }
        return tty;
}

static void block_all(sigset_t *before)
{
        sigset_t all;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, before);
}

static void give_terminal_back(int tty)
{
        sigset_t before;

        block_all(&before);
        tcsetpgrp(tty, getpgrp());
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        close(tty);
}

/* With signals blocked, so that no handler of ours runs in the child. */
static pid_t fork_into(struct start *s)
{
        sigset_t before;
        pid_t pid;
        int why;

        block_all(&before);
        pid = fork();
        if (pid == 0)
                become(s);
        why = errno;
        if (pid > 0 && s->own_group_only)
                setpgid(pid, pid); /* whoever is first */
        if (pid > 0 && s->tty >= 0)
                tcsetpgrp(s->tty, pid);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        errno = why;
        return pid;
}

static bool launch(struct child *c, struct start *s, struct err *e)
{
        int report[2];

        if (pipe2(report, O_CLOEXEC | O_NONBLOCK) != 0)
                return err_sys(e, ERR_IO, errno, "running %s", s->argv[0]);
        s->report = report[1];
        c->pid = fork_into(s);
        close(report[1]);
        if (c->pid < 0) {
                err_sys(e, ERR_IO, errno, "running %s: fork", s->argv[0]);
                close(report[0]);
                return false;
        }
        c->exec_fd = report[0];
        c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0); /* close-on-exec by itself */
        return true;
}

bool child_start(struct child *c, const char *const *argv, const char *const *more_env, int in, int out, bool keep_env, bool quiet,
                 struct err *e)
{
        char program[PATH_MAX];
        char **env = env_for_child(more_env, keep_env, e);
        struct start s = { .program = program, .argv = (char *const *)argv, .env = env, .in = in, .out = out,
                           .own_group_only = keep_env, .quiet = quiet, .parent = getpid(), .tty = -1 };
        bool ok;
        int why;

        if (!env)
                return false;
        why = find_program(argv[0], env, program);
        if (why != 0) {
                env_free(env);
                return err_sys(e, ERR_IO, why, "running %s", argv[0]);
        }
        if (keep_env)
                s.tty = take_terminal();
        ok = launch(c, &s, e);
        c->tty = s.tty;
        if (!ok && s.tty >= 0)
                give_terminal_back(s.tty);
        env_free(env);
        return ok;
}

void child_kill(const struct child *c)
{
        if (kill(-c->pid, SIGKILL) != 0)
                kill(c->pid, SIGKILL); /* it has no group of its own yet */
}

/* The group is killed while the dead leader still holds its number: later it might be another's. */
bool child_reap(struct child *c, int *status, int *error)
{
        siginfo_t info = { .si_pid = 0 };
        bool stolen = waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 && errno == ECHILD;
        int s = 0;

        if (info.si_pid == 0 && !stolen)
                return false;
        if (!stolen)
                child_kill(c);
        while (!stolen && waitpid(c->pid, &s, 0) < 0 && errno == EINTR)
                ;
        *status = WIFSIGNALED(s) ? 128 + WTERMSIG(s) : WEXITSTATUS(s);
        if (read(c->exec_fd, error, sizeof *error) != sizeof *error)
                *error = stolen ? ECHILD : 0; /* somebody else waited for it: how it ended is not known */
        close(c->exec_fd);
        if (c->pidfd >= 0)
                close(c->pidfd);
        if (c->tty >= 0)
                give_terminal_back(c->tty);
        return true;
}
