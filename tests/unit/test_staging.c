#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/staging.h"
#include "core/sys.h"

static char dir[128], state[160], rootdir[160];
static struct err e;
static struct arena *a;
static struct ledger *l;
static struct root *r;
static struct staging *s;
static unsigned recovered;

static void quiet(void *ctx, enum log_level level, struct str line) {}

static void shell(const char *where, const char *what)
{
        char cmd[512];
        snprintf(cmd, sizeof cmd, "cd '%s' && %s", where, what);
        if (system(cmd) != 0)
                abort();
}

static void fresh(void)
{
        signal(SIGXFSZ, SIG_IGN);
        log_set_sink(quiet, NULL);
        snprintf(dir, sizeof dir, "%s/mm-staging-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        if (!mkdtemp(dir))
                abort();
        snprintf(state, sizeof state, "%s/state", dir);
        snprintf(rootdir, sizeof rootdir, "%s/root", dir);
        a = arena_new(0);
        e = (struct err){ 0 };
}

static bool begin(void)
{
        l = ledger_open(state, false, &e);
        s = l ? staging_open(l, &recovered, &e) : NULL;
        r = s ? root_open(str_of(rootdir), &e) : NULL;
        if (!r)
                printf("begin: %s\n", e.text);
        return r != NULL;
}

static void end(void)
{
        staging_close(s);
        ledger_close(l);
        root_close(r);
        s = NULL, l = NULL, r = NULL;
}

static void gone(void)
{
        shell(dir, "rm -rf root state && cd / && rmdir \"$OLDPWD\"");
        arena_free(a);
}

/* ---- feeds */

struct text {
        struct str rest;
        size_t step;
        bool fail;
};

static ssize_t fill(void *ctx, char *p, size_t n, struct err *why)
{
        struct text *t = ctx;
        if (t->rest.n == 0 && t->fail)
                return err_set(why, ERR_NET, "the source broke") - 1;
        if (t->step && n > t->step)
                n = t->step;
        if (n > t->rest.n)
                n = t->rest.n;
        memcpy(p, t->rest.p, n);
        t->rest = str_from(t->rest, n);
        return (ssize_t)n;
}

static bool file(const char *path, const char *text, struct staged *o)
{
        struct text t = { .rest = str_of(text) };
        return staging_file(s, r, str_of(path), (struct feed){ fill, &t }, o, a, &e);
}

static bool mail(const char *folder, const char *flags, const char *text, struct staged *o)
{
        struct text t = { .rest = str_of(text) };
        return staging_maildir(s, r, str_of(folder), str_of(flags), (struct feed){ fill, &t }, o, a, &e);
}

/* ---- looking */

static struct str content(const char *path)
{
        char whole[512];
        size_t n;
        snprintf(whole, sizeof whole, "%s/%s", rootdir, path);
        int fd = open(whole, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return STR_NONE;
        char *p = sys_read_file(fd, 1 << 24, &n, NULL);
        close(fd);
        struct str c = arena_str(a, str_make(p, n));
        mem_free(p);
        return c;
}

/* Names below a directory; those that hold `with`. *one: the last of them. */
static int count(const char *base, const char *sub, const char *with, char one[256])
{
        char whole[512];
        int n = 0;
        snprintf(whole, sizeof whole, "%s/%s", base, sub);
        DIR *d = opendir(whole);
        if (!d)
                return -1;
        for (struct dirent *x; (x = readdir(d));) {
                if (strcmp(x->d_name, ".") == 0 || strcmp(x->d_name, "..") == 0 || !strstr(x->d_name, with))
                        continue;
                n++;
                if (one)
                        snprintf(one, 256, "%s", x->d_name);
        }
        closedir(d);
        return n;
}

static int fds(void) { return count("/proc/self", "fd", "", NULL); }

static bool journal(struct staged *o)
{
        struct rename_job j = { .run = staging_id(s), .staged_dir = o->dir_path, .staged = o->name, .target_dir = o->target_path,
                                .target = o->target, .dev = o->dev, .ino = o->ino, .replace = o->replace, .numbered = o->numbered };
        bool ok = ledger_rename_add(l, &j, &e);
        o->journal = j.id;
        return ok;
}

/* ---- the straight way */

TEST(file_is_hidden_until_published)
{
        struct staged o, *list[] = { &o };
        struct stat st;

        fresh();
        NEED(begin());
        NEED(file("a//./b/c.txt", "hello", &o));
        CHECK(o.size == 5 && o.numbered && !o.replace && o.fd >= 0);
        CHECK_STR(o.target, "c.txt");
        CHECK(!content("a/b/c.txt").p && count(rootdir, "a/b", ".mailmill-", NULL) == 1);
        NEED(staging_sync(s, list, 1, NULL, 0, &e));
        CHECK(o.fd == -1 && o.synced && !o.published);
        CHECK(!staging_taken(&o));
        NEED(staging_publish(s, list, 1, NULL, NULL, &e));
        CHECK(o.published);
        CHECK_STR(content("a/b/c.txt"), "hello");
        CHECK(fstatat(root_fd(r), "a/b/c.txt", &st, 0) == 0 && (st.st_mode & 07777) == 0600 && st.st_ino == o.ino);
        CHECK(fstatat(root_fd(r), "a/b", &st, 0) == 0 && (st.st_mode & 07777) == 0700);
        CHECK(count(rootdir, "a/b", "", NULL) == 1);
        end();
        CHECK(count(state, "spool", "", NULL) == 1); /* its lock */
        gone();
}

TEST(maildir)
{
        struct staged o[2], *list[] = { &o[0], &o[1] };
        char name[256];

        fresh();
        NEED(begin());
        NEED(mail("Archive/Billing", "", "one\n", &o[0]) && mail("Archive/Billing", "SFS", "two\n", &o[1]));
        CHECK(count(rootdir, "Archive/Billing/tmp", "mailmill-", NULL) == 2 && count(rootdir, "Archive/Billing/new", "", NULL) == 0);
        NEED(staging_sync(s, list, 2, NULL, 0, &e) && staging_publish(s, list, 2, NULL, NULL, &e));
        CHECK(count(rootdir, "Archive/Billing/tmp", "", NULL) == 0 && count(rootdir, "Archive/Billing/new", ",S=4", NULL) == 1);
        CHECK(count(rootdir, "Archive/Billing/cur", ",S=4", name) == 1 && str_ends(str_of(name), STR(",S=4:2,FS")));
        CHECK(!mail("x", "S/../y", "z", &o[0]) && e.code == ERR_USAGE);
        end();
        gone();
}

TEST(dropped_leaves_nothing)
{
        struct staged o, p;
        int before;

        fresh();
        NEED(begin());
        before = fds();
        NEED(file("x/a", "1", &o) && mail("m", "S", "2", &p));
        staging_drop(s, &o);
        staging_drop(s, &p);
        staging_drop(s, &p);
        CHECK(count(rootdir, "x", "", NULL) == 0 && count(rootdir, "m/tmp", "", NULL) == 0);
        CHECK(fds() <= before + 8); /* directories kept open, and new ones to be synced */
        end();
        gone();
}

TEST(F25_paths_that_leave_the_root)
{
        struct staged o;
        static const char *const bad[] = { "../x", "a/../../x", "/etc/x", "", "a/..", "." };

        fresh();
        NEED(begin());
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                CHECK(!file(bad[i], "x", &o) && e.code == ERR_USAGE);
                CHECK(i > 2 || (!mail(bad[i], "", "x", &o) && e.code == ERR_USAGE));
        }
        CHECK(symlinkat("/tmp", root_fd(r), "link") == 0);
        CHECK(!file("link/x", "x", &o) && e.code == ERR_IO);
        CHECK(!mail("link", "", "x", &o));
        end();
        gone();
}

TEST(world_writable_root_is_refused)
{
        fresh();
        CHECK(mkdir(rootdir, 0700) == 0 && chmod(rootdir, 0777) == 0);
        CHECK(!root_open(str_of(rootdir), &e) && e.code == ERR_USAGE && strstr(e.text, "chmod o-w"));
        CHECK(chmod(rootdir, 01777) == 0);
        r = root_open(str_of(rootdir), &e);
        CHECK(r);
        root_close(r);
        r = NULL;
        gone();
}

static void note_name(void *ctx, struct staged *o, struct str name)
{
        CHECK(!str_eq(o->target, name)); /* still the promised one */
        *(struct str *)ctx = name;
}

TEST(taken_names)
{
        struct staged o[4], *list[] = { &o[0], &o[1], &o[2], &o[3] };
        struct str name = STR_NONE;
        char found[256];

        fresh();
        NEED(begin());
        NEED(file("a.txt", "1", &o[0]) && file("a.txt", "2", &o[1]) && file("a.txt", "3", &o[2]) && mail("m", "S", "4", &o[3]));
        CHECK(symlinkat("/etc/passwd", root_fd(r), "a (2).txt") == 0);
        int fd = openat(root_fd(r), "m/cur/x", O_CREAT | O_WRONLY, 0600);
        CHECK(fd >= 0);
        close(fd);
        o[3].target = STR("x:2,S");
        CHECK(renameat(root_fd(r), "m/cur/x", root_fd(r), "m/cur/x:2,S") == 0);
        o[2].replace = true;
        CHECK(staging_taken(&o[3]) && !staging_taken(&o[2]));
        NEED(staging_sync(s, list, 4, NULL, 0, &e) && staging_publish(s, list, 2, note_name, &name, &e));
        CHECK_STR(name, "a (3).txt");
        CHECK_STR(o[1].target, "a (3).txt");
        CHECK_STR(content("a.txt"), "1");
        CHECK_STR(content("a (3).txt"), "2");
        NEED(staging_publish(s, list + 2, 2, note_name, &name, &e));
        CHECK_STR(content("a.txt"), "3");
        CHECK(count(rootdir, "m/cur", "", NULL) == 2 && count(rootdir, "m/cur", ".M", found) == 1 && str_ends(str_of(found), STR(":2,S")));
        end();
        gone();
}

TEST(D03_short_writes_and_big_files)
{
        size_t n = 700001;
        char *big = mem_alloc(n + 1);
        struct staged o, *list[] = { &o };

        fresh();
        NEED(begin() && big);
        for (size_t i = 0; i < n; i++)
                big[i] = (char)('a' + i % 23);
        for (size_t step = 0; step < 3; step++) {
                struct text t = { .rest = { big, n }, .step = step == 0 ? 0 : step == 1 ? 100003 : 262144 };
                char path[16];
                snprintf(path, sizeof path, "f%zu", step);
                NEED(staging_file(s, r, str_of(path), (struct feed){ fill, &t }, &o, a, &e));
                CHECK(o.size == n);
                NEED(staging_sync(s, list, 1, NULL, 0, &e) && staging_publish(s, list, 1, NULL, NULL, &e));
                CHECK_BYTES(content(path), str_make(big, n));
        }
        sys_pretend(SYS_SHORT_WRITES | SYS_EINTR_STORM);
        NEED(file("short", "some bytes", &o));
        CHECK(staging_sync(s, list, 1, NULL, 0, &e) && staging_publish(s, list, 1, NULL, NULL, &e));
        sys_pretend(0);
        CHECK_STR(content("short"), "some bytes");
        mem_free(big);
        end();
        gone();
}

TEST(a_broken_feed_leaves_nothing)
{
        struct text t = { .rest = STR("half"), .fail = true };
        struct str name;
        struct staged o;
        int fd;

        fresh();
        NEED(begin());
        CHECK(!staging_file(s, r, STR("x"), (struct feed){ fill, &t }, &o, a, &e) && e.code == ERR_NET);
        t.rest = STR("half");
        CHECK(!staging_maildir(s, r, STR("m"), STR(""), (struct feed){ fill, &t }, &o, a, &e) && e.code == ERR_NET);
        t.rest = STR("half");
        CHECK(!staging_spool(s, (struct feed){ fill, &t }, &name, &fd, a, &e) && e.code == ERR_NET && fd == -1);
        CHECK(count(rootdir, "", "mailmill-", NULL) == 0 && count(rootdir, "m/tmp", "", NULL) == 0);
        end();
        CHECK(count(state, "spool", "", NULL) == 1);
        gone();
}

TEST(F24_file_size_limit)
{
        struct rlimit old, small;
        static char big[200000];
        struct text t = { .rest = { big, sizeof big } };
        struct staged o;

        fresh();
        NEED(begin());
        getrlimit(RLIMIT_FSIZE, &old);
        small = old;
        small.rlim_cur = 150000;
        setrlimit(RLIMIT_FSIZE, &small);
        CHECK(!staging_file(s, r, STR("d/x"), (struct feed){ fill, &t }, &o, a, &e) && e.code == ERR_FULL);
        setrlimit(RLIMIT_FSIZE, &old);
        CHECK(count(rootdir, "d", "", NULL) == 0);
        CHECK(file("d/y", "fits", &o));
        staging_drop(s, &o);
        end();
        gone();
}

/* A file system without room below the root: an error that names the file, and nothing left of it. */
static void no_room(const char *options, unsigned long flags, enum err_code want)
{
        static char big[400000];
        struct text t = { .rest = { big, sizeof big } };
        struct staged o;
        char where[200];

        fresh();
        NEED(begin());
        CHECK(mkdirat(root_fd(r), "small", 0700) == 0);
        snprintf(where, sizeof where, "%s/small", rootdir);
        if (mount("none", where, "tmpfs", flags, options) != 0) {
                printf("# no right to mount: not tried\n");
        } else {
                CHECK(!staging_file(s, r, STR("small/x"), (struct feed){ fill, &t }, &o, a, &e) && e.code == want);
                CHECK(strstr(e.text, "small/x") != NULL);
                CHECK(count(rootdir, "small", "", NULL) == 0);
                staging_close(s);
                s = NULL;
                CHECK(umount2(where, MNT_DETACH) == 0);
        }
        end();
        gone();
}

TEST(F24_disk_full) { no_room("size=200k", 0, ERR_FULL); }
TEST(F24_no_inodes) { no_room("nr_inodes=1", 0, ERR_FULL); }
TEST(F24_read_only) { no_room("size=200k", MS_RDONLY, ERR_IO); }

/* Over quota at the n-th call, for each n. */
TEST(F24_quota)
{
        struct staged o;
        size_t n = 0, calls;
        bool ok = false;

        fresh();
        NEED(begin());
        CHECK(file("q/before", "x", &o)); /* its directory is there and noted */
        sys_fail_at(0, 0, false);
        CHECK(file("q/calls", "hello", &o));
        calls = sys_fail_at(0, 0, false);
        for (n = 1; n <= calls && !ok; n++) {
                int there = count(rootdir, "q", "", NULL);

                sys_fail_at(n, EDQUOT, false);
                ok = file("q/x", "hello", &o);
                sys_fail_at(0, 0, false);
                CHECK(ok || e.code == ERR_FULL || e.code == ERR_IO);
                CHECK(ok || count(rootdir, "q", "", NULL) == there);
        }
        CHECK(n > 2);
        end();
        gone();
}

TEST(many_files_many_directories)
{
        enum { N = 300 };
        static struct staged o[N];
        struct staged *list[N];
        struct rlimit old, small;
        char path[64];

        fresh();
        getrlimit(RLIMIT_NOFILE, &old);
        small = old;
        small.rlim_cur = 128; /* D09 */
        NEED(begin());
        end();
        setrlimit(RLIMIT_NOFILE, &small);
        NEED(begin());
        for (int i = 0; i < N; i++) {
                snprintf(path, sizeof path, "d%d/e/f", i % 250);
                list[i] = &o[i];
                NEED(file(path, path, &o[i]));
        }
        CHECK(staging_sync(s, list, N, NULL, 0, &e));
        CHECK(staging_publish(s, list, N, NULL, NULL, &e));
        for (int i = 0; i < N; i++) {
                snprintf(path, sizeof path, "d%d/e/f%s", i % 250, i < 250 ? "" : " (2)");
                CHECK(content(path).n > 0);
        }
        CHECK(file("d0/e/g", "x", &o[0]));
        staging_drop(s, &o[0]);
        end();
        setrlimit(RLIMIT_NOFILE, &old);
        gone();
}

/* Where syncfs does not reach the disk (FUSE) each file is synced itself, and each directory. */
TEST(many_files_where_syncfs_is_weak)
{
        enum { N = 100, DIRS = 50 };
        static struct staged o[N];
        struct staged *list[N];
        size_t calls;
        char path[64];

        fresh();
        NEED(begin());
        for (int i = 0; i < N; i++) {
                snprintf(path, sizeof path, "d%d/f%d", i % DIRS, i);
                list[i] = &o[i];
                NEED(file(path, path, &o[i]));
        }
        sys_pretend(SYS_WEAK_SYNCFS);
        CHECK(!sys_syncfs_reaches(root_fd(r)));
        sys_fail_at(0, 0, false);
        CHECK(staging_sync(s, list, N, NULL, 0, &e));
        calls = sys_fail_at(0, 0, false);
        CHECK(calls >= N + DIRS);
        CHECK(staging_publish(s, list, N, NULL, NULL, &e));
        CHECK(sys_fail_at(0, 0, false) >= N + DIRS); /* the names, and their directories */
        sys_pretend(0);
        CHECK_STR(content("d49/f99"), "d49/f99");
        end();
        gone();
}

TEST(a_directory_removed_meanwhile)
{
        struct staged o, *list[] = { &o };

        fresh();
        NEED(begin());
        NEED(file("d/x", "1", &o));
        staging_drop(s, &o);
        CHECK(unlinkat(root_fd(r), "d", AT_REMOVEDIR) == 0);
        NEED(file("d/x", "1", &o));
        CHECK(staging_sync(s, list, 1, NULL, 0, &e) && staging_publish(s, list, 1, NULL, NULL, &e));
        CHECK_STR(content("d/x"), "1");
        end();
        gone();
}

/* What is saved after that goes where its path says, not along with the directory that was moved. */
TEST(F23_a_directory_renamed_meanwhile)
{
        struct staged o, *list[] = { &o };

        fresh();
        NEED(begin());
        NEED(file("d/x", "1", &o));
        CHECK(staging_sync(s, list, 1, NULL, 0, &e) && staging_publish(s, list, 1, NULL, NULL, &e));
        CHECK(renameat(root_fd(r), "d", root_fd(r), "old") == 0);
        NEED(file("d/y", "2", &o));
        CHECK(staging_sync(s, list, 1, NULL, 0, &e) && staging_publish(s, list, 1, NULL, NULL, &e));
        CHECK_STR(content("d/y"), "2");
        CHECK_STR(content("old/x"), "1");
        CHECK(renameat(root_fd(r), "d", root_fd(r), "older") == 0 && symlinkat("old", root_fd(r), "d") == 0);
        CHECK(!file("d/z", "3", &o));
        end();
        gone();
}

/* D02: after a failed sync nothing is trusted, and it is not tried again. */
TEST(D02_failed_sync)
{
        struct staged o, p, *list[] = { &o }, *list2[] = { &p };

        fresh();
        NEED(begin());
        NEED(file("x", "1", &o) && file("y", "1", &p));
        sys_fail_at(1, EIO, false);
        CHECK(!staging_sync(s, list, 1, NULL, 0, &e) && e.code == ERR_IO && !o.synced);
        sys_fail_at(0, 0, false);
        CHECK(!staging_sync(s, list, 1, NULL, 0, &e) && !staging_sync(s, list2, 1, NULL, 0, &e));
        staging_drop(s, &o);
        staging_drop(s, &p);
        CHECK(count(rootdir, "", "", NULL) == 0);
        end();
        gone();
}

/* ---- the spool */

TEST(spool)
{
        struct text t = { .rest = STR("held bytes") };
        struct str name, name2;
        struct mark m = { .account = 1, .uid = STR("u"), .state = MARK_HELD };
        int fd, fd2;
        char got[32];

        fresh();
        NEED(begin());
        NEED(staging_spool(s, (struct feed){ fill, &t }, &name, &fd, a, &e));
        t.rest = STR("never promised");
        NEED(staging_spool(s, (struct feed){ fill, &t }, &name2, &fd2, a, &e));
        CHECK(staging_sync(s, NULL, 0, (int[]){ fd, -1, fd2 }, 3, &e));
        close(fd), close(fd2);
        m.spool = name;
        CHECK(ledger_mark_put(l, &m, &e));
        int tmp = staging_tmpfile(s, &e);
        CHECK(tmp >= 0 && sys_write_all(tmp, "x", 1, &e));
        close(tmp);
        end();
        NEED(begin());
        fd = staging_spool_open(l, name, &e);
        CHECK(fd >= 0 && read(fd, got, sizeof got) == 10 && memcmp(got, "held bytes", 10) == 0);
        close(fd);
        CHECK(staging_spool_open(l, name2, &e) == -1 && e.code == ERR_ABSENT);
        CHECK(staging_spool_open(l, STR("../state.db"), &e) == -1);
        staging_spool_remove(l, name); /* it is needed */
        fd = staging_spool_open(l, name, &e);
        CHECK(fd >= 0);
        close(fd);
        m.state = MARK_SEEN, m.spool = STR("");
        CHECK(ledger_begin(l, &e) && ledger_mark_put(l, &m, &e));
        staging_spool_remove(l, name);
        CHECK(ledger_commit(l, &e));
        CHECK(staging_spool_open(l, name, &e) == -1);
        end();
        NEED(begin());
        end();
        CHECK(count(state, "spool", "", NULL) == 1);
        gone();
}

/* A spool whose state was lost is nobody's to clean. */
TEST(D06_spool_of_another_state)
{
        struct text t = { .rest = STR("held bytes") };
        struct str name;
        struct mark m = { .account = 1, .uid = STR("u"), .state = MARK_HELD };
        int fd;

        fresh();
        NEED(begin());
        NEED(staging_spool(s, (struct feed){ fill, &t }, &name, &fd, a, &e));
        close(fd);
        m.spool = name;
        CHECK(ledger_mark_put(l, &m, &e));
        end();
        shell(state, "rm state.db*");
        NEED(begin());
        fd = staging_spool_open(l, name, &e);
        CHECK(fd >= 0);
        close(fd);
        end();
        gone();
}

/* ---- dying */

/* The child stages, syncs, commits some rows, and dies. */
static void die_after(void (*what)(void), int signal_too)
{
        int status;
        pid_t child = fork();

        if (child == 0) {
                if (!begin())
                        _exit(1);
                what();
                if (signal_too)
                        kill(getpid(), SIGKILL);
                _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(signal_too ? WIFSIGNALED(status) : status == 0);
}

static void child_need(bool x)
{
        if (!x) {
                printf("child: %s\n", e.text);
                _exit(1);
        }
}

static void commit_two_of_four(void)
{
        static struct staged o[4];
        struct staged *list[] = { &o[0], &o[1], &o[2], &o[3] };

        child_need(file("in/a.txt", "promised", &o[0]) && mail("M", "S", "promised mail", &o[1]));
        child_need(file("in/b.txt", "not promised", &o[2]) && mail("M", "", "not promised", &o[3]));
        child_need(staging_sync(s, list, 4, NULL, 0, &e));
        child_need(ledger_begin(l, &e) && journal(&o[0]) && journal(&o[1]) && ledger_commit(l, &e));
}

TEST(W6_committed_and_killed)
{
        char name[256];

        fresh();
        die_after(commit_two_of_four, 1);
        CHECK(count(rootdir, "in", ".mailmill-", NULL) == 2 && count(rootdir, "M/tmp", "", NULL) == 2);
        NEED(begin());
        CHECK(recovered == 2);
        CHECK_STR(content("in/a.txt"), "promised");
        CHECK(count(rootdir, "in", "", NULL) == 1 && count(rootdir, "M/tmp", "", NULL) == 0);
        CHECK(count(rootdir, "M/new", "", NULL) == 0 && count(rootdir, "M/cur", ":2,S", name) == 1);
        end();
        CHECK(count(state, "spool", "", NULL) == 1);
        NEED(begin());
        CHECK(recovered == 0);
        end();
        gone();
}

static void stage_only(void)
{
        static struct staged o[2];
        child_need(file("in/a.txt", "x", &o[0]) && mail("M", "S", "y", &o[1]));
}

TEST(W5_staged_and_killed)
{
        fresh();
        die_after(stage_only, 1);
        NEED(begin());
        CHECK(recovered == 0 && count(rootdir, "in", "", NULL) == 0 && count(rootdir, "M/tmp", "", NULL) == 0);
        end();
        CHECK(count(state, "spool", "", NULL) == 1);
        gone();
}

static void publish_and_stay_in_the_journal(void)
{
        static struct staged o;
        struct staged *list[] = { &o };

        child_need(file("in/a.txt", "x", &o) && staging_sync(s, list, 1, NULL, 0, &e));
        child_need(ledger_begin(l, &e) && journal(&o) && ledger_commit(l, &e));
        child_need(staging_publish(s, list, 1, NULL, NULL, &e));
}

/* A mail reader has moved it since: it is not made again. */
TEST(renamed_and_moved_away)
{
        fresh();
        die_after(publish_and_stay_in_the_journal, 1);
        shell(rootdir, "mv in/a.txt in/moved");
        NEED(begin());
        CHECK(recovered == 0 && count(rootdir, "in", "", NULL) == 1);
        CHECK_STR(content("in/moved"), "x");
        end();
        gone();
}

TEST(target_taken_while_dead)
{
        fresh();
        die_after(commit_two_of_four, 0);
        shell(rootdir, "echo mine > in/a.txt");
        NEED(begin());
        CHECK(recovered == 2);
        CHECK_STR(content("in/a.txt"), "mine\n");
        CHECK_STR(content("in/a (2).txt"), "promised");
        end();
        gone();
}

/* Linked and not yet unlinked, as where RENAME_NOREPLACE is missing. */
TEST(died_between_link_and_unlink)
{
        fresh();
        die_after(commit_two_of_four, 0);
        shell(rootdir, "for f in in/.mailmill-*; do grep -q not $f || ln $f in/a.txt; done");
        NEED(begin());
        CHECK_STR(content("in/a.txt"), "promised");
        CHECK(count(rootdir, "in", "", NULL) == 1);
        end();
        gone();
}

TEST(target_directory_removed_while_dead)
{
        fresh();
        die_after(commit_two_of_four, 0);
        shell(rootdir, "rmdir M/cur");
        NEED(begin());
        CHECK(recovered == 2 && count(rootdir, "M/cur", ":2,S", NULL) == 1);
        end();
        gone();
}

/* What can't be finished now stays promised, and whole. */
TEST(a_rename_that_cannot_be_done_waits)
{
        fresh();
        die_after(commit_two_of_four, 0);
        shell(rootdir, "mv in away && ln -s away in"); /* a link stands in the way */
        NEED(begin());
        CHECK(recovered == 1);
        CHECK(count(rootdir, "away", ".mailmill-", NULL) == 2);
        end();
        shell(rootdir, "rm in && mv away in");
        NEED(begin());
        CHECK(recovered == 1 && count(rootdir, "in", "", NULL) == 1);
        CHECK_STR(content("in/a.txt"), "promised");
        end();
        CHECK(count(state, "spool", "", NULL) == 1);
        gone();
}

/* T1b: killed in the midst of recovering, at each call. */
TEST(recovery_fails_at_each_call_and_is_tried_again)
{
        fresh();
        for (size_t n = 1; n < 400; n += n < 60 ? 1 : 7) {
                die_after(commit_two_of_four, 0);
                l = ledger_open(state, false, &e);
                NEED(l);
                sys_fail_at(n, EIO, true);
                s = staging_open(l, &recovered, &e);
                size_t calls = sys_fail_at(0, 0, false);
                staging_close(s);
                ledger_close(l);
                if (calls < n)
                        n = 1000;
                NEED(begin());
                end();
                CHECK(count(rootdir, "in", ".mailmill-", NULL) == 0 && count(rootdir, "M/tmp", "", NULL) == 0);
                CHECK(count(rootdir, "M/cur", ":2,S", NULL) == 1 && count(rootdir, "in", "", NULL) == 1);
                CHECK(count(state, "spool", "", NULL) == 1);
                shell(dir, "rm -rf root");
        }
        gone();
}

/* A live run's work is left alone. */
TEST(live_runs_are_left_alone)
{
        struct staged o, *list[] = { &o };
        int status;

        fresh();
        NEED(begin());
        NEED(file("in/live", "x", &o) && journal(&o));
        pid_t child = fork();
        if (child == 0) {
                /* the fork shares the lock, but not the knowledge of it: as another program would */
                l = NULL, s = NULL, r = NULL;
                _exit(begin() && recovered == 0 && (end(), true) ? 0 : 1);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(count(rootdir, "in", ".mailmill-", NULL) == 1);
        NEED(staging_sync(s, list, 1, NULL, 0, &e) && staging_publish(s, list, 1, NULL, NULL, &e));
        end();
        CHECK_STR(content("in/live"), "x");
        CHECK(count(state, "spool", "", NULL) == 1);
        gone();
}

/* ---- threads */

static atomic_int trouble;
static void *stage_some(void *arg)
{
        int me = (int)(intptr_t)arg;
        struct arena *mine = arena_new(0);
        struct err why;

        for (int i = 0; i < 60; i++) {
                struct staged o, *list[] = { &o };
                char path[64];
                snprintf(path, sizeof path, "d%d/%d/f", i % 7, (i * me) % 5);
                struct text t = { .rest = str_of(path) };
                if (!staging_file(s, r, str_of(path), (struct feed){ fill, &t }, &o, mine, &why))
                        trouble++;
                else if (i % 3 == 0)
                        staging_drop(s, &o);
                else if (!staging_sync(s, list, 1, NULL, 0, &why) || !staging_publish(s, list, 1, NULL, NULL, &why))
                        trouble++;
        }
        arena_free(mine);
        return NULL;
}

TEST(several_threads)
{
        pthread_t t[4];

        fresh();
        NEED(begin());
        for (int i = 0; i < 4; i++)
                NEED(pthread_create(&t[i], NULL, stage_some, (void *)(intptr_t)(i + 1)) == 0);
        for (int i = 0; i < 4; i++)
                pthread_join(t[i], NULL);
        CHECK(trouble == 0);
        end();
        CHECK(count(state, "spool", "", NULL) == 1);
        gone();
}

TEST_MAIN
