#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"
#include "tests/unit/test.h"

static struct err e;
static char where[64];

/* A fresh directory; its descriptor. */
static int fresh(void)
{
        snprintf(where, sizeof where, "/tmp/mailmill-sys-XXXXXX");
        if (!mkdtemp(where))
                return -1;
        return open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void gone(int dir)
{
        char command[100];

        close(dir);
        sys_pretend(0);
        sys_fail_at(0, 0, false);
        snprintf(command, sizeof command, "rm -rf %s", where);
        CHECK(system(command) == 0);
}

static bool put(int dir, const char *name, const char *text)
{
        int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
        bool ok = fd >= 0 && sys_write_all(fd, text, strlen(text), &e);

        close(fd);
        return ok;
}

static bool holds(int dir, const char *name, const char *text)
{
        int fd = openat(dir, name, O_RDONLY);
        size_t n = 0;
        char *got = fd < 0 ? NULL : sys_read_file(fd, 1 << 20, &n, &e);
        bool ok = got && n == strlen(text) && memcmp(got, text, n) == 0;

        if (fd >= 0)
                close(fd);
        mem_free(got);
        return ok;
}

TEST(clock_and_names)
{
        char a[96], b[96];

        CHECK(sys_now() > 1700000000);
        CHECK(sys_mono_ms() > 0);
        sys_unique(a);
        sys_unique(b);
        CHECK(strcmp(a, b) != 0);
        CHECK(!strpbrk(a, "/: ") && a[0] != '.');
        CHECK(sys_hostname()[0] && !strpbrk(sys_hostname(), "/: "));
}

static void beneath(unsigned pretend)
{
        int dir = fresh(), fd;
        size_t n;
        char *text;

        sys_pretend(pretend);
        NEED(dir >= 0);
        NEED(mkdirat(dir, "a", 0700) == 0 && mkdirat(dir, "a/b", 0700) == 0 && put(dir, "a/b/f", "hello"));
        NEED(symlinkat("/etc", dir, "out") == 0 && symlinkat("a", dir, "in") == 0 && symlinkat("f", dir, "a/b/l") == 0);
        fd = sys_open_beneath(dir, STR("a/b/f"), O_RDONLY, 0, &e);
        NEED(fd >= 0);
        CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        text = sys_read_file(fd, 5, &n, &e);
        CHECK(text && n == 5 && strcmp(text, "hello") == 0);
        mem_free(text);
        close(fd);
        fd = sys_open_beneath(dir, STR("a//b/./f"), O_RDONLY, 0, &e);
        CHECK(fd >= 0);
        close(fd);
        fd = sys_open_beneath(dir, STR("a/b/"), O_RDONLY | O_DIRECTORY, 0, &e);
        CHECK(fd >= 0);
        close(fd);
        fd = sys_open_beneath(dir, STR("a/new"), O_WRONLY | O_CREAT | O_EXCL, 0600, &e);
        CHECK(fd >= 0);
        close(fd);
        CHECK(sys_open_beneath(dir, STR("a/new"), O_WRONLY | O_CREAT | O_EXCL, 0600, &e) < 0 && e.code == ERR_EXISTS);
        CHECK(sys_open_beneath(dir, STR("a/none/x"), O_RDONLY, 0, &e) < 0 && e.code == ERR_ABSENT);
        CHECK(sys_open_beneath(dir, STR("out/passwd"), O_RDONLY, 0, &e) < 0);
        CHECK(sys_open_beneath(dir, STR("in/b/f"), O_RDONLY, 0, &e) < 0);
        CHECK(sys_open_beneath(dir, STR("a/b/l"), O_RDONLY, 0, &e) < 0);
        CHECK(sys_open_beneath(dir, STR("a/b/l"), O_PATH, 0, &e) < 0);
        CHECK(sys_open_beneath(dir, STR("a/b/f/"), O_RDONLY, 0, &e) < 0);
        CHECK(sys_open_beneath(dir, STR("a/../../x"), O_RDONLY, 0, &e) < 0 && e.code == ERR_USAGE);
        CHECK(sys_open_beneath(dir, STR(".."), O_RDONLY, 0, &e) < 0 && e.code == ERR_USAGE);
        CHECK(sys_open_beneath(dir, STR("/etc/passwd"), O_RDONLY, 0, &e) < 0 && e.code == ERR_USAGE);
        CHECK(sys_open_beneath(dir, STR("a/b/f\0g"), O_RDONLY, 0, &e) < 0 && e.code == ERR_USAGE);
        CHECK(sys_open_beneath(dir, STR(""), O_RDONLY, 0, &e) < 0);
        gone(dir);
}

TEST(open_beneath) { beneath(0); }
TEST(open_beneath_by_steps) { beneath(SYS_NO_OPENAT2); }
TEST(open_beneath_interrupted) { beneath(SYS_EINTR_STORM | SYS_SHORT_WRITES); }

/* A directory that becomes a link to elsewhere and back, all the time. */
enum { RACES = 50000 }; /* for each of the two ways to open */

struct flipper {
        int dir;
        atomic_bool stop;
        atomic_ulong flips;
};

static void *flip(void *ctx)
{
        struct flipper *f = ctx;

        while (!atomic_load(&f->stop)) {
                if (renameat2(f->dir, "a/d", f->dir, "a/l", RENAME_EXCHANGE) == 0)
                        atomic_fetch_add(&f->flips, 1);
        }
        return NULL;
}

static void race(unsigned pretend)
{
        int dir = fresh(), made = 0, refused = 0;
        char command[200];
        struct flipper f = { .dir = dir };
        pthread_t thread;

        sys_pretend(pretend);
        NEED(dir >= 0 && mkdirat(dir, "a", 0700) == 0 && mkdirat(dir, "a/d", 0700) == 0 && mkdirat(dir, "outside", 0700) == 0 &&
             symlinkat("../outside", dir, "a/l") == 0 && pthread_create(&thread, NULL, flip, &f) == 0);
        while (atomic_load(&f.flips) == 0)
                sched_yield();
        for (int i = 0; i < RACES; i++) {
                int fd = sys_open_beneath(dir, STR("a/d/x"), O_WRONLY | O_CREAT, 0600, &e);

                made += fd >= 0;
                refused += fd < 0;
                if (fd >= 0)
                        close(fd);
        }
        atomic_store(&f.stop, true);
        pthread_join(thread, NULL);
        CHECK(made > 0 && refused > 0 && atomic_load(&f.flips) > 100);
        snprintf(command, sizeof command, "test -d %s/outside && test -z \"$(ls -A %s/outside)\"", where, where);
        CHECK(system(command) == 0);
        gone(dir);
}

TEST(F23_directory_becomes_a_link) { race(0); }
TEST(F23_directory_becomes_a_link_by_steps) { race(SYS_NO_OPENAT2); }

TEST(open_beneath_leaks_no_descriptor)
{
        int dir = fresh(), before, after;

        sys_pretend(SYS_NO_OPENAT2);
        NEED(mkdirat(dir, "a", 0700) == 0 && mkdirat(dir, "a/b", 0700) == 0 && put(dir, "a/b/f", "x"));
        before = dup(0);
        close(before);
        for (int i = 0; i < 20; i++) {
                int fd = sys_open_beneath(dir, STR("a/b/f"), O_RDONLY, 0, &e);
                CHECK(fd >= 0);
                close(fd);
                CHECK(sys_open_beneath(dir, STR("a/b/none"), O_RDONLY, 0, &e) < 0);
                CHECK(sys_open_beneath(dir, STR("a/none/f"), O_RDONLY, 0, &e) < 0);
                fd = sys_mkdirs_beneath(dir, STR("a/b/c/d"), NULL, NULL, &e);
                CHECK(fd >= 0);
                close(fd);
                CHECK(sys_mkdirs_beneath(dir, STR("a/b/f/d"), NULL, NULL, &e) < 0);
        }
        after = dup(0);
        close(after);
        CHECK(before == after);
        gone(dir);
}

static void count_made(void *ctx, int parent)
{
        ++*(int *)ctx;
        CHECK(sys_fsync(parent, &e));
}

TEST(mkdirs_beneath)
{
        int dir = fresh(), made = 0, fd = sys_mkdirs_beneath(dir, STR("x/y/z"), count_made, &made, &e);
        struct stat st;

        NEED(fd >= 0);
        CHECK(made == 3);
        CHECK(fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0700);
        close(fd);
        fd = sys_mkdirs_beneath(dir, STR("x/y//z/."), count_made, &made, &e);
        CHECK(fd >= 0 && made == 3);
        close(fd);
        fd = sys_mkdirs_beneath(dir, STR(""), count_made, &made, &e);
        CHECK(fd >= 0 && made == 3);
        close(fd);
        NEED(symlinkat("x", dir, "link") == 0 && put(dir, "file", ""));
        CHECK(sys_mkdirs_beneath(dir, STR("link/y"), NULL, NULL, &e) < 0);
        CHECK(sys_mkdirs_beneath(dir, STR("file/y"), NULL, NULL, &e) < 0);
        CHECK(sys_mkdirs_beneath(dir, STR("x/../../y"), NULL, NULL, &e) < 0 && e.code == ERR_USAGE);
        gone(dir);
}

TEST(mkdirs)
{
        char path[128];
        int dir = fresh();
        struct stat st;

        snprintf(path, sizeof path, "%s/one/two//three/", where);
        CHECK(sys_mkdirs(path, 0700, &e));
        CHECK(sys_mkdirs(path, 0700, &e));
        CHECK(stat(path, &st) == 0 && S_ISDIR(st.st_mode));
        NEED(put(dir, "file", ""));
        snprintf(path, sizeof path, "%s/file", where);
        CHECK(!sys_mkdirs(path, 0700, &e));
        snprintf(path, sizeof path, "%s/file/x", where);
        CHECK(!sys_mkdirs(path, 0700, &e));
        CHECK(!sys_mkdirs("", 0700, &e));
        gone(dir);
}

/* D03: short writes of one byte, a storm of EINTR: the bytes are right. */
TEST(D03_short_and_interrupted)
{
        char text[2000], back[2000];
        int dir = fresh(), fd = openat(dir, "f", O_RDWR | O_CREAT, 0600);

        for (size_t i = 0; i < sizeof text; i++)
                text[i] = (char)(i * 7);
        sys_pretend(SYS_SHORT_WRITES | SYS_EINTR_STORM);
        CHECK(sys_write_all(fd, text, sizeof text, &e));
        CHECK(sys_fsync(fd, &e) && sys_fdatasync(fd, &e) && sys_syncfs(fd, &e));
        CHECK(sys_pread_full(fd, back, sizeof back, 0, &e) == sizeof back);
        CHECK(memcmp(text, back, sizeof text) == 0);
        CHECK(sys_pread_full(fd, back, 100, 1950, &e) == 50);
        close(fd);
        gone(dir);
}

/* D03: EAGAIN from somebody's non-blocking pipe. */
TEST(D03_again)
{
        char block[4096];
        int p[2], status;
        pid_t reader;
        bool ok = true;

        memset(block, 'x', sizeof block);
        NEED(pipe2(p, O_NONBLOCK) == 0);
        reader = fork();
        if (reader == 0) {
                size_t total = 0;
                ssize_t n;
                close(p[1]);
                while ((n = sys_read(p[0], block, sizeof block, &e)) > 0)
                        total += (size_t)n;
                _exit(total == 64 * sizeof block ? 0 : 1);
        }
        close(p[0]);
        for (int i = 0; i < 64; i++)
                ok = ok && sys_write_all(p[1], block, sizeof block, &e);
        close(p[1]);
        CHECK(ok);
        CHECK(waitpid(reader, &status, 0) == reader && status == 0);
}

/* D02: a failed fsync is not tried again on the same file. */
TEST(D02_fsync_fails_once)
{
        int dir = fresh(), fd = openat(dir, "f", O_RDWR | O_CREAT, 0600);

        sys_fail_at(1, EIO, false);
        CHECK(!sys_fsync(fd, &e) && e.code == ERR_IO && e.sys == EIO);
        CHECK(sys_fail_at(0, 0, false) == 1);
        close(fd);
        gone(dir);
}

TEST(D01_full_disk)
{
        int dir = fresh(), fd = openat(dir, "f", O_RDWR | O_CREAT, 0600);

        sys_fail_at(1, ENOSPC, true);
        CHECK(!sys_write_all(fd, "x", 1, &e) && e.code == ERR_FULL);
        sys_fail_at(1, EDQUOT, true);
        CHECK(!sys_fsync(fd, &e) && e.code == ERR_FULL);
        close(fd);
        gone(dir);
}

TEST(read_file_limit)
{
        int dir = fresh(), fd;
        size_t n;
        char *p;

        NEED(put(dir, "f", "12345"));
        fd = openat(dir, "f", O_RDONLY);
        CHECK(sys_read_file(fd, 4, &n, &e) == NULL && e.code == ERR_LIMIT);
        lseek(fd, 0, SEEK_SET);
        p = sys_read_file(fd, 5, &n, &e);
        CHECK(p && n == 5);
        mem_free(p);
        p = sys_read_file(fd, 5, &n, &e); /* at the end already */
        CHECK(p && n == 0 && p[0] == '\0');
        mem_free(p);
        close(fd);
        fd = open("/proc/self/status", O_RDONLY); /* says size 0 */
        p = sys_read_file(fd, 1 << 20, &n, &e);
        CHECK(p && n > 100);
        mem_free(p);
        close(fd);
        gone(dir);
}

static void rename_new(unsigned pretend)
{
        int dir = fresh();

        NEED(mkdirat(dir, "t", 0700) == 0 && put(dir, "a", "A") && put(dir, "b", "B"));
        sys_pretend(pretend);
        CHECK(!sys_rename_new(dir, "a", dir, "b", &e) && e.code == ERR_EXISTS);
        CHECK(holds(dir, "a", "A") && holds(dir, "b", "B"));
        CHECK(sys_rename_new(dir, "a", dir, "t/c", &e));
        CHECK(holds(dir, "t/c", "A") && faccessat(dir, "a", F_OK, 0) != 0);
        CHECK(!sys_rename_new(dir, "none", dir, "d", &e) && e.code == ERR_ABSENT);
        CHECK(sys_rename(dir, "b", dir, "t/c", &e));
        CHECK(holds(dir, "t/c", "B") && faccessat(dir, "b", F_OK, 0) != 0);
        CHECK(sys_unlink(dir, "t/c", &e) && sys_unlink(dir, "t/c", &e));
        CHECK(!sys_unlink(dir, "t", &e));
        gone(dir);
}

TEST(rename) { rename_new(0); }
TEST(rename_by_link) { rename_new(SYS_NO_NOREPLACE); }
TEST(rename_interrupted) { rename_new(SYS_EINTR_STORM); }
/* D04: done, and reported as failed. */
TEST(D04_rename_lies) { rename_new(SYS_RENAME_LIES); }
TEST(D04_link_lies) { rename_new(SYS_RENAME_LIES | SYS_NO_NOREPLACE); }

/* A crash between link and unlink leaves two names: the next start finishes it. */
TEST(rename_after_half_a_rename)
{
        int dir = fresh();

        NEED(put(dir, "a", "A") && linkat(dir, "a", dir, "b", 0) == 0);
        CHECK(sys_rename_new(dir, "a", dir, "b", &e));
        CHECK(holds(dir, "b", "A") && faccessat(dir, "a", F_OK, 0) != 0);
        gone(dir);
}

/* F21: a name taken by a symbolic link is taken, and the link stays what it is. */
TEST(F21_rename_onto_link)
{
        int dir = fresh();
        char target[32] = "";

        NEED(put(dir, "a", "A") && symlinkat("/etc/passwd", dir, "b") == 0);
        CHECK(!sys_rename_new(dir, "a", dir, "b", &e) && e.code == ERR_EXISTS);
        CHECK(readlinkat(dir, "b", target, sizeof target - 1) == 11 && strcmp(target, "/etc/passwd") == 0);
        gone(dir);
}

/* Whatever call fails, the file stays under one of its names. */
TEST(T3_rename_each_call_fails)
{
        for (int pretend = 0; pretend <= SYS_NO_NOREPLACE; pretend += SYS_NO_NOREPLACE) {
                for (size_t n = 1; n < 8; n++) {
                        int dir = fresh();
                        bool ok;
                        NEED(put(dir, "a", "A"));
                        sys_pretend((unsigned)pretend);
                        sys_fail_at(n, EIO, true);
                        ok = sys_rename_new(dir, "a", dir, "b", &e);
                        CHECK(ok || e.code == ERR_IO);
                        sys_fail_at(0, 0, false);
                        CHECK(holds(dir, "b", "A") || (!ok && holds(dir, "a", "A")));
                        gone(dir);
                }
        }
}

static void unnamed(unsigned pretend)
{
        int dir = fresh(), fd;
        struct stat st;

        sys_pretend(pretend);
        fd = sys_tmpfile(dir, &e);
        NEED(fd >= 0);
        CHECK(sys_write_all(fd, "x", 1, &e));
        CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0 && (st.st_mode & 0777) == 0600);
        close(fd);
        CHECK(unlinkat(AT_FDCWD, where, AT_REMOVEDIR) == 0); /* nothing was left in it */
        gone(dir);
}

TEST(tmpfile_unnamed) { unnamed(0); }
TEST(tmpfile_by_unlink) { unnamed(SYS_NO_TMPFILE); }

/* D07: the second is told "busy"; a holder killed with SIGKILL leaves no lock. */
static void locking(unsigned pretend)
{
        int dir = fresh(), ready[2], fd, status;
        pid_t holder;
        char c;
        int64_t before;

        sys_pretend(pretend);
        NEED(pipe(ready) == 0 && put(dir, "lock", ""));
        holder = fork();
        if (holder == 0) {
                fd = openat(dir, "lock", O_RDWR);
                if (sys_lock(fd, &e) && write(ready[1], "x", 1) == 1)
                        pause();
                _exit(1);
        }
        NEED(read(ready[0], &c, 1) == 1);
        fd = openat(dir, "lock", O_RDWR);
        CHECK(!sys_lock(fd, &e) && e.code == ERR_BUSY);
        before = sys_mono_ms();
        CHECK(!sys_lock_wait(fd, 60, &e) && e.code == ERR_BUSY);
        CHECK(sys_mono_ms() - before >= 60);
        kill(holder, SIGKILL);
        CHECK(sys_lock_wait(fd, 2000, &e));
        CHECK(waitpid(holder, &status, 0) == holder);
        close(fd);
        close(ready[0]);
        close(ready[1]);
        gone(dir);
}

TEST(D07_W16_lock) { locking(0); }
TEST(D07_W16_flock) { locking(SYS_NO_OFD_LOCKS); }

TEST(locked_memory)
{
        char *p = sys_locked_new(5000);
        int status;
        pid_t child;

        NEED(p);
        CHECK(p[0] == 0 && p[4999] == 0);
        memcpy(p, "secret", 7);
        child = fork();
        if (child == 0)
                _exit(p[0] == 0 ? 0 : 1);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(strcmp(p, "secret") == 0);
        sys_locked_free(p, 5000);
        sys_locked_free(NULL, 0);
}

TEST_MAIN
