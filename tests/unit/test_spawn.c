/* Children, each case twice: forked by ourselves, and asked of a supervisor in a process of its own. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/pool.h"
#include "core/spawn.h"
#include "core/sys.h"
#include "tests/unit/test.h"

static struct err e;
static pid_t supervisor;
static int worker_end = -1;

static _Noreturn void supervise_until_gone(int fd, bool hide)
{
        struct spawn_server *s;

        if (hide && !spawn_hide_environment(&e))
                _exit(2);
        s = spawn_server_new(fd, &e);
        while (s && spawn_server_step(s, 1000))
                ;
        spawn_server_free(s);
        exit(s ? 0 : 1);
}

static void connect_supervisor(bool hide)
{
        int fd[2];

        NEED(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) == 0);
        fflush(stdout);
        supervisor = fork();
        if (supervisor == 0) {
                close(fd[0]);
                supervise_until_gone(fd[1], hide);
        }
        close(fd[1]);
        worker_end = fd[0];
        spawn_connect(worker_end);
}

static void disconnect(void)
{
        int status = -1;

        spawn_connect(-1);
        close(worker_end);
        CHECK(waitpid(supervisor, &status, 0) == supervisor && status == 0);
        worker_end = -1;
}

#define BOTH(name)                                                                                                    \
        static void both_##name(void);                                                                                \
        TEST(name##_forked) { both_##name(); }                                                                        \
        TEST(name##_asked) { connect_supervisor(true); both_##name(); disconnect(); }                                 \
        static void both_##name(void)

#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })

static bool run(const char *const *argv, struct buf *out, int *status)
{
        struct spawn s = { .argv = argv, .stdin_fd = -1, .output_max = 1 << 20, .seconds = 20 };

        return spawn_run(&s, out, status, &e);
}

BOTH(output_and_status)
{
        struct buf out = BUF_INIT;
        int status;

        CHECK(run(ARGV("echo", "a b", "$HOME;`id`"), &out, &status) && status == 0);
        CHECK_STR(buf_str(&out), "a b $HOME;`id`\n"); /* no shell */
        CHECK(run(ARGV("sh", "-c", "echo more; exit 7"), &out, &status) && status == 7);
        CHECK_STR(buf_str(&out), "a b $HOME;`id`\nmore\n"); /* appended */
        CHECK(run(ARGV("sh", "-c", "kill -TERM $$"), &out, &status) && status == 128 + SIGTERM);
        CHECK(run(ARGV("true"), NULL, &status) && status == 0);
        buf_free(&out);
}

BOTH(much_output_exactly_at_the_cap)
{
        struct buf out = BUF_INIT;
        struct spawn s = { .argv = ARGV("head", "-c", "1000000", "/dev/zero"), .stdin_fd = -1, .output_max = 1000000, .seconds = 20 };
        int status;

        CHECK(spawn_run(&s, &out, &status, &e) && status == 0 && out.n == 1000000);
        buf_clear(&out);
        s.output_max = 999999;
        CHECK(!spawn_run(&s, &out, &status, &e) && e.code == ERR_LIMIT && strstr(e.text, "head"));
        s.argv = ARGV("sh", "-c", "yes & yes");
        s.output_max = 100000;
        buf_clear(&out);
        CHECK(!spawn_run(&s, &out, &status, &e) && e.code == ERR_LIMIT);
        CHECK(!spawn_run(&s, NULL, &status, &e) && e.code == ERR_LIMIT);
        s.output_max = 0;
        s.argv = ARGV("sh", "-c", "echo x; test -c /dev/stdout");
        buf_clear(&out);
        CHECK(spawn_run(&s, &out, &status, &e) && status == 0 && out.n == 0);
        buf_free(&out);
}

/* The pid that a command wrote into a file. */
static pid_t pid_in(const char *path)
{
        FILE *f = fopen(path, "r");
        int pid = 0;

        if (f) {
                if (fscanf(f, "%d", &pid) != 1)
                        pid = 0;
                fclose(f);
        }
        unlink(path);
        return pid;
}

static bool is_gone(pid_t pid)
{
        char path[64], state = 0;

        for (int i = 0; i < 200; i++) { /* an orphan stays a zombie until somebody else reaps it */
                FILE *f;
                snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
                f = fopen(path, "r");
                if (!f)
                        return true;
                if (fscanf(f, "%*d (%*[^)]) %c", &state) == 1 && state == 'Z')
                        i = 200;
                fclose(f);
                if (i == 200)
                        return true;
                usleep(10000);
        }
        return false;
}

BOTH(time_limit_kills_the_group)
{
        char path[] = "/tmp/mailmill-spawn-XXXXXX";
        const char *env[] = { path, NULL };
        struct spawn s = { .stdin_fd = -1, .output_max = 100, .seconds = 0.3 };
        int64_t before = sys_mono_ms();
        char name[64];
        int status, fd = mkstemp(path);
        pid_t grandchild;

        NEED(fd >= 0);
        close(fd);
        snprintf(name, sizeof name, "F=%s", path);
        env[0] = name;
        s.env = env;
        s.argv = ARGV("sh", "-c", "sleep 60 & echo $! >\"$F\"; wait");
        CHECK(!spawn_run(&s, NULL, &status, &e) && e.code == ERR_TIMEOUT && strstr(e.text, "sh"));
        CHECK(sys_mono_ms() - before < 5000);
        grandchild = pid_in(path);
        CHECK(grandchild > 0 && is_gone(grandchild));
}

/* A command that ends and leaves something behind with its output open neither hangs us nor lives on. */
BOTH(what_is_left_running_is_killed)
{
        struct buf out = BUF_INIT;
        int64_t before = sys_mono_ms();
        int status;
        pid_t left;

        CHECK(run(ARGV("sh", "-c", "sleep 60 & echo $!"), &out, &status) && status == 0);
        CHECK(sys_mono_ms() - before < 5000);
        NEED(buf_add_char(&out, '\0'));
        left = atoi(out.p);
        CHECK(left > 0 && is_gone(left));
        buf_free(&out);
}

BOTH(standard_input)
{
        struct spawn s = { .argv = ARGV("sh", "-c", "cat; echo end"), .output_max = 10000, .seconds = 20 };
        struct buf out = BUF_INIT;
        int status;

        s.stdin_fd = memfd_create("in", MFD_CLOEXEC);
        NEED(s.stdin_fd >= 0 && write(s.stdin_fd, "some\0text\n", 10) == 10);
        lseek(s.stdin_fd, 0, SEEK_SET);
        CHECK(spawn_run(&s, &out, &status, &e));
        CHECK_BYTES(buf_str(&out), STR("some\0text\nend\n"));
        close(s.stdin_fd);
        buf_clear(&out);
        s.stdin_fd = -1;
        CHECK(spawn_run(&s, &out, &status, &e));
        CHECK_STR(buf_str(&out), "end\n");
        buf_free(&out);
}

/* A clean environment and what is given; nothing else, and no descriptor above 2. */
BOTH(clean_environment)
{
        struct spawn s = { .argv = ARGV("env"), .env = ARGV("MAILMILL_ID=7", "HOME=/elsewhere"), .stdin_fd = -1,
                           .output_max = 100000, .seconds = 20 };
        struct buf out = BUF_INIT;
        int status;

        NEED(setenv("CANARY", "secret", 1) == 0);
        CHECK(spawn_run(&s, &out, &status, &e) && status == 0);
        CHECK(str_find_str(buf_str(&out), STR("MAILMILL_ID=7\n")) < out.n);
        CHECK(str_find_str(buf_str(&out), STR("HOME=/elsewhere\n")) < out.n);
        CHECK(str_find_str(str_from(buf_str(&out), str_find_str(buf_str(&out), STR("HOME=")) + 1), STR("HOME=")) + 1 +
                      str_find_str(buf_str(&out), STR("HOME=")) == out.n); /* once */
        CHECK(str_find_str(buf_str(&out), STR("PATH=")) < out.n);
        CHECK(str_find_str(buf_str(&out), STR("CANARY")) == out.n);
        buf_clear(&out);
        NEED(open("/dev/null", O_RDONLY) >= 3); /* inheritable */
        CHECK(run(ARGV("sh", "-c", "ls /proc/$$/fd"), &out, &status));
        CHECK(str_starts(buf_str(&out), STR("0\n1\n2\n")));
        CHECK(str_find_str(buf_str(&out), STR("3\n")) == out.n);
        buf_free(&out);
}

BOTH(default_signals_own_group)
{
        struct buf out = BUF_INIT;
        int status;
        void (*before)(int) = signal(SIGPIPE, SIG_IGN);

        CHECK(run(ARGV("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"), &out, &status));
        CHECK_STR(buf_str(&out), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
        buf_clear(&out);
        CHECK(run(ARGV("sh", "-c", "set -- $(cat /proc/$$/stat); test $5 = $$ && test $6 = $$"), &out, &status) && status == 0);
        signal(SIGPIPE, before);
        buf_free(&out);
}

BOTH(exec_failures)
{
        char path[] = "/tmp/mailmill-spawn-XXXXXX";
        int status = 0, fd = mkstemp(path);

        CHECK(!run(ARGV("no-such-command-at-all"), NULL, &status) && e.code == ERR_ABSENT && e.sys == ENOENT);
        CHECK(strstr(e.text, "no-such-command-at-all") && status == -1);
        CHECK(!run(ARGV("/etc/passwd"), NULL, &status) && e.sys == EACCES && strstr(e.text, "/etc/passwd"));
        CHECK(!run(ARGV("/tmp"), NULL, &status) && e.sys == EACCES);
        CHECK(!run(ARGV(""), NULL, &status) && e.code == ERR_USAGE);
        NEED(fd >= 0 && write(fd, "echo hi\n", 8) == 8 && fchmod(fd, 0700) == 0);
        close(fd);
        CHECK(!run(ARGV(path), NULL, &status) && e.sys == ENOEXEC); /* no shell for what is no program */
        unlink(path);
        CHECK(run(ARGV("sh", "-c", "exit 127"), NULL, &status) && status == 127); /* a status is a status */
}

/* Arguments up to what the kernel takes: 1 MiB and more, none lost. */
BOTH(large_argv)
{
        enum { COUNT = 1100 };
        static const char *argv[COUNT + 5];
        static char big[1024];
        struct buf out = BUF_INIT;
        int status;

        memset(big, 'x', sizeof big - 1);
        argv[0] = "sh", argv[1] = "-c", argv[2] = "echo $# ${#1000}", argv[3] = "sh";
        for (int i = 0; i < COUNT; i++)
                argv[4 + i] = big;
        CHECK(run(argv, &out, &status) && status == 0);
        CHECK_STR(buf_str(&out), "1100 1023\n");
        buf_free(&out);
}

BOTH(too_large_argv_is_said)
{
        char *huge = mem_alloc(10 << 20);
        int status;

        NEED(huge);
        memset(huge, 'x', (10 << 20) - 1);
        huge[(10 << 20) - 1] = '\0';
        CHECK(!run(ARGV("echo", huge), NULL, &status) && e.sys == E2BIG && strstr(e.text, "echo"));
        mem_free(huge);
}

static atomic_int wrong;

static void many(void *arg)
{
        char word[64];
        struct buf out = BUF_INIT;
        struct err why;
        int status;

        for (int i = 0; i < 10; i++) {
                struct spawn s = { .argv = ARGV("sh", "-c", word), .stdin_fd = -1, .output_max = 100, .seconds = 20 };
                snprintf(word, sizeof word, "echo %d.%d; exit %d", (int)(intptr_t)arg, i, i);
                buf_clear(&out);
                if (!spawn_run(&s, &out, &status, &why) || status != i)
                        wrong++;
                snprintf(word, sizeof word, "%d.%d\n", (int)(intptr_t)arg, i);
                if (!str_eq(buf_str(&out), str_of(word)))
                        wrong++;
        }
        buf_free(&out);
}

BOTH(many_threads)
{
        struct thread *t[8];

        wrong = 0;
        for (int i = 0; i < 8; i++)
                t[i] = thread_start(many, (void *)(intptr_t)i, "many", &e);
        for (int i = 0; i < 8; i++)
                thread_join(t[i]);
        CHECK(wrong == 0);
}

BOTH(no_descriptor_leaks)
{
        int before = dup(0), after, status;

        close(before);
        for (int i = 0; i < 5; i++) {
                CHECK(run(ARGV("true"), NULL, &status));
                CHECK(!run(ARGV("no-such-command"), NULL, &status));
        }
        after = dup(0);
        close(after);
        CHECK(before == after);
}

BOTH(variables)
{
        struct buf out = BUF_INIT;

        NEED(setenv("SMTP_PW", "p w=1", 1) == 0);
        if (worker_end >= 0) { /* the supervisor keeps what was set when it began */
                disconnect();
                connect_supervisor(true);
                unsetenv("SMTP_PW");
        }
        CHECK(spawn_getenv(STR("SMTP_PW"), &out, &e));
        CHECK_STR(buf_str(&out), "p w=1");
        CHECK(!spawn_getenv(STR("SMTP_P"), &out, &e) && e.code == ERR_ABSENT);
        CHECK(!spawn_getenv(STR("SMTP_PW="), &out, &e) && e.code == ERR_ABSENT);
        CHECK(!spawn_getenv(STR(""), &out, &e) && e.code == ERR_ABSENT);
        buf_free(&out);
        unsetenv("SMTP_PW");
}

/* secret.command alone sees what the user set. */
TEST(keep_env)
{
        struct spawn s = { .argv = ARGV("sh", "-c", "echo $SMTP_PW"), .stdin_fd = -1, .output_max = 100, .seconds = 20,
                           .keep_env = true };
        struct buf out = BUF_INIT;
        int status;

        NEED(setenv("SMTP_PW", "visible", 1) == 0);
        CHECK(spawn_run(&s, &out, &status, &e));
        connect_supervisor(true);
        CHECK(spawn_run(&s, &out, &status, &e));
        s.keep_env = false;
        CHECK(spawn_run(&s, &out, &status, &e));
        disconnect();
        CHECK_STR(buf_str(&out), "visible\nvisible\n\n");
        buf_free(&out);
        unsetenv("SMTP_PW");
}

/* C08: /proc/PID/environ shows nothing once the environment is hidden; what is harmless is still there. */
TEST(C08_environ_is_overwritten)
{
        int status = -1, ready[2];
        pid_t child;

        setenv("HARMLESS_NOT", "canary", 1);
        NEED(pipe(ready) == 0);
        child = fork();
        if (child == 0) {
                char *path = getenv("PATH"), *before = path ? strdup(path) : NULL, *p;
                size_t n = 0;
                int fd;
                bool ok = spawn_hide_environment(&e) && spawn_hide_environment(&e) && !getenv("HARMLESS_NOT");
                struct buf out = BUF_INIT;
                ok = ok && before && getenv("PATH") && strcmp(before, getenv("PATH")) == 0;
                ok = ok && spawn_getenv(STR("HARMLESS_NOT"), &out, &e) && str_eq(buf_str(&out), STR("canary"));
                fd = open("/proc/self/environ", O_RDONLY);
                p = sys_read_file(fd, 1 << 20, &n, &e);
                for (size_t i = 0; p && i < n; i++)
                        ok = ok && p[i] == '\0';
                free(before);
                mem_free(p);
                buf_free(&out);
                _exit(ok && p && n > 0 ? 0 : 1);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        close(ready[0]);
        close(ready[1]);
        unsetenv("HARMLESS_NOT");
}

/* The worker dies: its children die with its socket. */
TEST(children_of_a_dead_worker)
{
        char path[] = "/tmp/mailmill-spawn-XXXXXX", script[200];
        int fd = mkstemp(path), status;
        pid_t worker, child = 0;

        NEED(fd >= 0);
        close(fd);
        snprintf(script, sizeof script, "echo $$ >%s.new; mv %s.new %s; sleep 60", path, path, path);
        connect_supervisor(false);
        worker = fork();
        if (worker == 0) {
                run(ARGV("sh", "-c", script), NULL, &status);
                _exit(0);
        }
        spawn_connect(-1);
        for (int i = 0; i < 500 && child == 0; i++) {
                struct stat st;
                usleep(10000);
                if (stat(path, &st) == 0 && st.st_size > 0)
                        child = pid_in(path);
        }
        CHECK(child > 0);
        kill(worker, SIGKILL);
        CHECK(waitpid(worker, &status, 0) == worker);
        CHECK(is_gone(child));
        disconnect();
}

TEST(the_supervisor_has_gone)
{
        int status;

        connect_supervisor(false);
        kill(supervisor, SIGKILL);
        CHECK(waitpid(supervisor, &status, 0) == supervisor);
        CHECK(!run(ARGV("true"), NULL, &status) && e.code == ERR_IO && strstr(e.text, "true"));
        spawn_connect(-1);
        close(worker_end);
        worker_end = -1;
}

TEST_MAIN
