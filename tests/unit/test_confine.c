/* T13: what a worker that was taken over would try. Each attempt is made by a process of its own that has confined itself as the worker does;
 * it answers 0 when the kernel refused as it should. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/confine.h"
#include "core/net.h"

static struct {
        char top[64], in[80], out[80], kept[96], inner[96]; /* in: allowed; kept, inner: a file that exists outside, and one inside */
        unsigned open_port, other_port;
} w;

static void put(const char *path)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        CHECK(fd >= 0 && write(fd, "kept\n", 5) == 5);
        close(fd);
}

static void make_world(void)
{
        struct err e;

        if (w.top[0])
                return;
        w.open_port = w.other_port = 0;
        strcpy(w.top, "/tmp/mailmill-confine-XXXXXX");
        CHECK(mkdtemp(w.top) != NULL);
        snprintf(w.in, sizeof w.in, "%s/in", w.top);
        snprintf(w.out, sizeof w.out, "%s/out", w.top);
        snprintf(w.kept, sizeof w.kept, "%s/kept", w.out);
        snprintf(w.inner, sizeof w.inner, "%s/inner", w.in);
        CHECK(mkdir(w.in, 0700) == 0 && mkdir(w.out, 0700) == 0);
        put(w.kept);
        put(w.inner);
        CHECK(net_listen_loopback(&w.open_port, &e) >= 0 && net_listen_loopback(&w.other_port, &e) >= 0);
}

static unsigned confined(void)
{
        const char *dirs[] = { w.in, "/tmp/mailmill-confine-missing" };
        struct confinement c = { dirs, 2, &w.open_port, 1 };
        unsigned got = 0;
        struct err e;

        confine_memory();
        if (!confine(&c, &got, &e)) {
                printf("%s\n", e.text);
                _exit(99);
        }
        return got;
}

enum { NOT_HERE = 77 };

/* The answer of attempt() in a confined child; NOT_HERE when this kernel can't do what it needs. */
static int in_child(int (*attempt)(void), unsigned needs)
{
        int status = -1;
        pid_t pid;

        make_world();
        fflush(stdout);
        pid = fork();
        if (pid == 0) {
                unsigned got = confined();

                _exit((got & needs) == needs ? attempt() : NOT_HERE);
        }
        waitpid(pid, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void try(const char *name, int (*attempt)(void), unsigned needs)
{
        int answer = in_child(attempt, needs);

        if (answer == NOT_HERE)
                printf("skipped: %s: this kernel has no %s\n", name, needs & CONFINED_PORTS ? "Landlock for ports" : needs & CONFINED_FILES ? "Landlock of version 2" : "seccomp");
        else if (answer != 0)
                printf("%s: answered %d (%s)\n", name, answer, answer < 77 ? strerror(answer) : "");
        CHECK(answer == 0 || answer == NOT_HERE);
}

/* 0 when the call failed as it should; else what it did: 76 it worked. */
static int refused(long result, int error)
{
        return result != -1 ? 76 : errno == error ? 0 : errno;
}

static const char *under(const char *dir, const char *name)
{
        static char path[4][160];
        static int turn;
        char *p = path[turn++ % 4];

        snprintf(p, sizeof path[0], "%s/%s", dir, name);
        return p;
}

static int connect_to(unsigned port)
{
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&a, sizeof a);
}

#define ATTEMPT(id, needs)                                             \
        static int attempt_##id(void);                                 \
        TEST(T13_##id) { try(#id, attempt_##id, (needs)); }            \
        static int attempt_##id(void)

/* ---- files ---- */

ATTEMPT(write_to_a_file_outside, CONFINED_FILES) { return refused(open(w.kept, O_WRONLY), EACCES); }
ATTEMPT(append_to_a_file_outside, CONFINED_FILES) { return refused(open(w.kept, O_RDWR | O_APPEND), EACCES); }
ATTEMPT(create_a_file_outside, CONFINED_FILES) { return refused(open(under(w.out, "new"), O_WRONLY | O_CREAT, 0600), EACCES); }
ATTEMPT(create_by_dots, CONFINED_FILES) { return refused(open(under(w.in, "../out/new"), O_WRONLY | O_CREAT, 0600), EACCES); }
ATTEMPT(create_without_a_name_outside, CONFINED_FILES) { return refused(open(w.out, O_TMPFILE | O_RDWR, 0600), EACCES); }
ATTEMPT(create_from_another_directory, CONFINED_FILES)
{
        if (chdir(w.in) != 0 || chdir("../out") != 0)
                return errno;
        return refused(open("new", O_WRONLY | O_CREAT, 0600), EACCES);
}
ATTEMPT(create_below_a_missing_root, CONFINED_FILES) { return refused(mkdir("/tmp/mailmill-confine-missing", 0700), EACCES); }
ATTEMPT(rename_out, CONFINED_FILES) { return refused(rename(w.inner, under(w.out, "taken")), EXDEV) && refused(rename(w.inner, under(w.out, "taken")), EACCES); }
ATTEMPT(rename_in, CONFINED_FILES) { return refused(rename(w.kept, under(w.in, "taken")), EXDEV) && refused(rename(w.kept, under(w.in, "taken")), EACCES); }
ATTEMPT(rename_outside, CONFINED_FILES) { return refused(rename(w.kept, under(w.out, "other")), EACCES); }
ATTEMPT(link_out, CONFINED_FILES) { return refused(link(w.inner, under(w.out, "linked")), EXDEV) && refused(link(w.inner, under(w.out, "linked")), EACCES); }
/* Then it would lie where writing is allowed. */
ATTEMPT(link_in, CONFINED_FILES) { return refused(link(w.kept, under(w.in, "linked")), EXDEV) && refused(link(w.kept, under(w.in, "linked")), EACCES); }
ATTEMPT(symlink_outside, CONFINED_FILES) { return refused(symlink("/etc", under(w.out, "link")), EACCES); }
ATTEMPT(symlink_inside, CONFINED_FILES) { return refused(symlink("/etc", under(w.in, "link")), EACCES); }
ATTEMPT(mkdir_outside, CONFINED_FILES) { return refused(mkdir(under(w.out, "dir"), 0700), EACCES); }
ATTEMPT(rmdir_outside, CONFINED_FILES) { return refused(rmdir(w.out), EACCES); }
ATTEMPT(unlink_outside, CONFINED_FILES) { return refused(unlink(w.kept), EACCES); }
ATTEMPT(mknod_inside, CONFINED_FILES) { return refused(mknod(under(w.in, "fifo"), S_IFIFO | 0600, 0), EACCES); }
ATTEMPT(truncate_outside, CONFINED_FILES)
{
        if (syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, 1) < 3)
                return NOT_HERE;
        return refused(truncate(w.kept, 0), EACCES) | refused(open(w.kept, O_RDONLY | O_TRUNC), EACCES);
}
/* A file opened for reading is opened again through its magic link. */
ATTEMPT(reopen_for_writing, CONFINED_FILES)
{
        char path[40];
        int fd = open(w.kept, O_RDONLY);

        if (fd < 0)
                return errno;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        return refused(open(path, O_WRONLY), EACCES);
}
ATTEMPT(write_to_memory_by_proc, CONFINED_FILES) { return refused(open("/proc/self/mem", O_RDWR), EACCES); }

/* ---- the network ---- */

ATTEMPT(connect_to_another_port, CONFINED_PORTS) { return refused(connect_to(w.other_port), EACCES); }
ATTEMPT(packet_socket, CONFINED_CALLS) { return refused(socket(AF_PACKET, SOCK_RAW, 0), EPERM); }

/* ---- calls ---- */

static char *const nobody[] = { NULL };

ATTEMPT(execve, CONFINED_CALLS) { return refused(syscall(SYS_execve, "/bin/true", nobody, nobody), EPERM); }
ATTEMPT(execveat, CONFINED_CALLS) { return refused(syscall(SYS_execveat, AT_FDCWD, "/bin/true", nobody, nobody, 0), EPERM); }
#ifndef __SANITIZE_ADDRESS__
ATTEMPT(ptrace, CONFINED_CALLS) { return refused(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL), EPERM) | refused(ptrace(PTRACE_TRACEME, 0, NULL, NULL), EPERM); }
#endif
ATTEMPT(process_vm_writev, CONFINED_CALLS)
{
        struct iovec v = { w.top, sizeof w.top };

        return refused(syscall(SYS_process_vm_writev, getppid(), &v, 1L, &v, 1L, 0L), EPERM) |
               refused(syscall(SYS_process_vm_readv, getppid(), &v, 1L, &v, 1L, 0L), EPERM);
}
ATTEMPT(mount, CONFINED_CALLS) { return refused(mount("none", w.in, "tmpfs", 0, NULL), EPERM) | refused(umount2(w.in, MNT_DETACH), EPERM); }
ATTEMPT(bpf, CONFINED_CALLS) { return refused(syscall(SYS_bpf, 0, NULL, 0), EPERM); }
ATTEMPT(io_uring_setup, CONFINED_CALLS) { return refused(syscall(SYS_io_uring_setup, 1, NULL), EPERM); }
ATTEMPT(keyctl, CONFINED_CALLS) { return refused(syscall(SYS_keyctl, 0, -3L, 0L), EPERM); }
ATTEMPT(userfaultfd, CONFINED_CALLS) { return refused(syscall(SYS_userfaultfd, 0), EPERM); }
ATTEMPT(perf_event_open, CONFINED_CALLS) { return refused(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0), EPERM); }
ATTEMPT(open_by_handle_at, CONFINED_CALLS) { return refused(syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, 0), EPERM); }
ATTEMPT(setuid, CONFINED_CALLS) { return refused(syscall(SYS_setuid, getuid()), EPERM) | refused(syscall(SYS_setresgid, -1, -1, -1), EPERM); }
ATTEMPT(chroot, CONFINED_CALLS) { return refused(chroot(w.in), EPERM); }
ATTEMPT(unshare, CONFINED_CALLS) { return refused(unshare(CLONE_NEWUSER), EPERM) | refused(unshare(0), EPERM); }
ATTEMPT(clone_with_a_namespace, CONFINED_CALLS) { return refused(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0L, 0L, 0L, 0L), EPERM); }
ATTEMPT(clone3, CONFINED_CALLS) { return refused(syscall(SYS_clone3, NULL, 0L), ENOSYS); }
ATTEMPT(type_into_the_terminal, CONFINED_CALLS) { return refused(ioctl(0, TIOCSTI, "x"), EPERM); }
ATTEMPT(reboot, CONFINED_CALLS) { return refused(syscall(SYS_reboot, 0, 0, 0, NULL), EPERM); }
#ifdef __x86_64__
ATTEMPT(x32_getpid, CONFINED_CALLS) { return refused(syscall(0x40000000 | SYS_getpid), EPERM); }
/* The same numbers mean other calls there: 20 is getpid, and the filter knows only those of 64 bits. */
ATTEMPT(calls_of_32_bits, CONFINED_CALLS)
{
        long r;

        __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
        return (int)r == -EPERM ? 0 : (int)r == -ENOSYS ? 0 : 76;
}
#endif
/* Rulesets only stack: what a second one allows the first still forbids. */
static void *in_thread(void *arg)
{
        *(int *)arg = refused(open(w.kept, O_WRONLY), EACCES);
        return NULL;
}
ATTEMPT(threads_and_children_inherit, CONFINED_FILES | CONFINED_CALLS)
{
        int answer = 75, status = -1;
        pthread_t t;

        if (pthread_create(&t, NULL, in_thread, &answer) != 0)
                return 74;
        pthread_join(t, NULL);
        if (fork() == 0)
                _exit(refused(open(w.kept, O_WRONLY), EACCES) | refused(syscall(SYS_execve, "/bin/true", nobody, nobody), EPERM));
        wait(&status);
        return answer ? answer : WEXITSTATUS(status);
}
ATTEMPT(a_second_confinement_gives_nothing_back, CONFINED_FILES)
{
        const char *dirs[] = { w.out };
        struct confinement c = { dirs, 1, &w.other_port, 1 };
        unsigned got;
        struct err e;

        if (!confine(&c, &got, &e))
                return 75;
        return refused(open(w.kept, O_WRONLY), EACCES);
}

/* ---- what must still work ---- */

static int works(void)
{
        char dir[96];
        const char *to;
        int fd;

        snprintf(dir, sizeof dir, "%s/sub", w.in);
        if (mkdir(dir, 0700) != 0)
                return 60;
        fd = open(under(dir, "a"), O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd < 0 || write(fd, "x", 1) != 1 || ftruncate(fd, 0) != 0)
                return 61;
        to = under(w.in, "b");
        if (rename(under(dir, "a"), to) != 0 || link(to, under(dir, "c")) != 0 || unlink(under(dir, "c")) != 0 || unlink(to) != 0 || rmdir(dir) != 0)
                return 62;
        if (open(w.in, O_TMPFILE | O_RDWR, 0600) < 0 && errno != EOPNOTSUPP)
                return 63;
        if (open("/dev/null", O_RDWR) < 0 || open(w.kept, O_RDONLY) < 0)
                return 64;
        return 0;
}
TEST(T13_below_a_root_everything_works) { CHECK(in_child(works, 0) == 0); }

static int connects(void) { return connect_to(w.open_port) == 0 ? 0 : errno; }
TEST(T13_a_declared_port_answers) { CHECK(in_child(connects, 0) == 0); }

/* hand_die ends the worker so. */
static int kills(void) { return kill(getpid(), SIGKILL); }
TEST(T13_a_process_can_still_end_itself) { CHECK(in_child(kills, 0) == 1000 + SIGKILL); }

TEST(T13_nothing_outside_has_changed)
{
        char text[16] = "";
        struct stat st;
        int fd;

        make_world();
        fd = open(w.kept, O_RDONLY);
        CHECK(fd >= 0 && read(fd, text, sizeof text - 1) == 5 && strcmp(text, "kept\n") == 0);
        close(fd);
        CHECK(stat(w.kept, &st) == 0 && st.st_nlink == 1);
        CHECK(stat(w.inner, &st) == 0 && st.st_nlink == 1);
        CHECK(unlink(w.kept) == 0 && unlink(w.inner) == 0 && rmdir(w.out) == 0 && rmdir(w.in) == 0 && rmdir(w.top) == 0);
        w.top[0] = '\0';
}

static int memory_closed(void)
{
        struct rlimit r;

        return prctl(PR_GET_DUMPABLE) != 0 || getrlimit(RLIMIT_CORE, &r) != 0 || r.rlim_cur != 0 || r.rlim_max != 0 ||
               prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
}
TEST(C08_no_core_no_debugger) { CHECK(in_child(memory_closed, 0) == 0); }

TEST_MAIN
