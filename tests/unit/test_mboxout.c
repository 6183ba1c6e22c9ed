#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mboxout.h"
#include "core/mem.h"
#include "core/sys.h"

static char dir[128], state[160], rootdir[160];
static struct err e;
static struct arena *a;
static struct ledger *l;
static struct root *r;
static struct staging *s;
static unsigned recovered;
static struct append_place end_at; /* of the last append */

static void quiet(void *ctx, enum log_level level, struct str line) {}

static void fresh(void)
{
        signal(SIGXFSZ, SIG_IGN);
        log_set_sink(quiet, NULL);
        snprintf(dir, sizeof dir, "%s/mm-mboxout-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        if (!mkdtemp(dir))
                abort();
        snprintf(state, sizeof state, "%s/state", dir);
        snprintf(rootdir, sizeof rootdir, "%s/root", dir);
        a = arena_new(0);
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
}

static void gone(void)
{
        char cmd[200];
        snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
        if (system(cmd) != 0)
                abort();
        arena_free(a);
}

struct text {
        struct str rest;
        size_t step;
};

static ssize_t fill(void *ctx, char *p, size_t n, struct err *why)
{
        struct text *t = ctx;
        if (t->step && n > t->step)
                n = t->step;
        if (n > t->rest.n)
                n = t->rest.n;
        memcpy(p, t->rest.p, n);
        t->rest = str_from(t->rest, n);
        return (ssize_t)n;
}

static bool stage(const char *path, struct str mail, size_t step, struct append_job *j, int *fd)
{
        struct text t = { mail, step };
        return mboxout_stage(s, r, str_of(path), (struct feed){ fill, &t }, STR("a b@c\n.org"), 1795412460, j, fd, a, &e);
}

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

static void put(const char *path, struct str text)
{
        char whole[512];
        snprintf(whole, sizeof whole, "%s/%s", rootdir, path);
        int fd = open(whole, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        CHECK(fd >= 0 && sys_write_all(fd, text.p, text.n, &e));
        close(fd);
}

#define FROM_LINE "From ab@c.org Mon Nov 23 05:41:00 2026\n"

TEST(B01_quoting_at_every_cut)
{
        static const char mail[] = "Subject: x\n\nFrom me\n>From you\n>>>From all\nFromage\n> From\nFrom\n>F>From x\nFrom ";
        static const char want[] = FROM_LINE "Subject: x\n\n>From me\n>>From you\n>>>>From all\nFromage\n> From\nFrom\n>F>From x\n>From \n\n";

        fresh();
        NEED(begin());
        for (size_t step = 0; step < sizeof mail; step++) {
                struct append_job j;
                char path[16];
                int fd;
                snprintf(path, sizeof path, "m%zu", step);
                NEED(stage(path, STR(mail), step, &j, &fd));
                CHECK(j.length == sizeof want - 1);
                close(fd);
                NEED(mboxout_append(l, &j, false, &end_at, &e));
                CHECK_STR(content(path), want);
        }
        end();
        gone();
}

TEST(messages_are_separated)
{
        const struct { struct str before; const char *want; } cases[] = {
                { STR(""), FROM_LINE "x\n\n" },
                { STR("old"), "old\n\n" FROM_LINE "x\n\n" },
                { STR("old\n"), "old\n\n" FROM_LINE "x\n\n" },
                { STR("old\n\n"), "old\n\n" FROM_LINE "x\n\n" },
                { STR("\n"), "\n" FROM_LINE "x\n\n" },
        };
        struct append_job j;
        struct stat st;
        int fd;

        fresh();
        NEED(begin());
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                put("m", cases[i].before);
                NEED(stage("m", STR("x\n"), 0, &j, &fd));
                close(fd);
                CHECK(j.from.offset == cases[i].before.n);
                NEED(mboxout_append(l, &j, false, &end_at, &e));
                CHECK_STR(content("m"), cases[i].want);
        }
        NEED(stage("a/b/box", STR(""), 0, &j, &fd));
        close(fd);
        NEED(mboxout_append(l, &j, false, &end_at, &e));
        CHECK_STR(content("a/b/box"), FROM_LINE "\n");
        CHECK(fstatat(root_fd(r), "a/b/box", &st, 0) == 0 && (st.st_mode & 0777) == 0600);
        CHECK(faccessat(root_fd(r), "a/b/box.lock", F_OK, 0) != 0);
        CHECK(!stage("a", STR("x"), 0, &j, &fd) && e.code == ERR_EXISTS);
        CHECK(symlinkat("m", root_fd(r), "link") == 0 && !stage("link", STR("x"), 0, &j, &fd) && e.code == ERR_EXISTS);
        CHECK(!stage("../m", STR("x"), 0, &j, &fd) && e.code == ERR_USAGE);
        end();
        gone();
}

/* Whatever part of ours was written, and whatever others appended or a reader rewrote: once, whole, nothing cut off. */
TEST(recovery_finds_any_part)
{
        static const char mail[] = "Subject: x\n\nFrom here\nto there\n";
        static const char whole[] = FROM_LINE "Subject: x\n\n>From here\nto there\n\n";
        static const char old[] = "From o Mon Nov 23 05:41:00 2026\n\nold\n\n", other[] = "From p Mon Nov 23 05:41:00 2026\n\nother\n\n";
        struct append_job j;
        char box[1024], want[2048];
        int fd;

        fresh();
        NEED(begin());
        for (size_t cut = 0; cut < sizeof whole; cut++) {
                for (int rewritten = 0; rewritten < 2; rewritten++) {
                        put("m", STR(old));
                        NEED(stage("m", STR(mail), 0, &j, &fd));
                        close(fd);
                        if (rewritten)
                                j.from.ino++;
                        snprintf(box, sizeof box, "%s%s%.*s", old, other, (int)cut, whole);
                        put("m", str_of(box));
                        NEED(mboxout_append(l, &j, true, &end_at, &e));
                        snprintf(want, sizeof want, "%s%s%s", old, other, whole);
                        CHECK_STR(content("m"), want);
                        NEED(mboxout_append(l, &j, true, &end_at, &e)); /* and once more */
                        CHECK_STR(content("m"), want);
                }
        }
        /* half of ours, and then somebody else's: not cut off, and ours stands whole behind */
        snprintf(box, sizeof box, "%s%.30s\n\n%s", old, whole, other);
        put("m", str_of(box));
        NEED(mboxout_append(l, &j, true, &end_at, &e));
        snprintf(want, sizeof want, "%s%s", box, whole);
        CHECK_STR(content("m"), want);
        /* the file has become shorter */
        put("m", STR("x\n\n"));
        NEED(mboxout_append(l, &j, true, &end_at, &e));
        snprintf(want, sizeof want, "x\n\n%s", whole);
        CHECK_STR(content("m"), want);
        end();
        gone();
}

TEST(large_messages)
{
        size_t n = 600000;
        char *big = mem_alloc(n);
        struct append_job j;
        int fd;

        fresh();
        NEED(begin() && big);
        for (size_t i = 0; i < n; i++)
                big[i] = i % 70 == 69 ? '\n' : (char)('a' + i % 26);
        NEED(stage("m", str_make(big, n), 0, &j, &fd));
        close(fd);
        NEED(mboxout_append(l, &j, false, &end_at, &e));
        struct str all = content("m");
        CHECK(all.n == j.length && all.n == n + sizeof FROM_LINE - 1 + 2);
        CHECK(memcmp(all.p + sizeof FROM_LINE - 1, big, n) == 0);
        put("m", str_first(all, 300000));
        j.from.offset = 0;
        NEED(mboxout_append(l, &j, true, &end_at, &e));
        CHECK(str_eq(content("m"), all));
        mem_free(big);
        end();
        gone();
}

TEST(stale_and_living_locks)
{
        struct append_job j;
        char text[64];
        int fd, status;

        fresh();
        NEED(begin());
        pid_t dead = fork();
        if (dead == 0)
                _exit(0);
        waitpid(dead, &status, 0);
        NEED(stage("m", STR("x\n"), 0, &j, &fd));
        close(fd);
        snprintf(text, sizeof text, "%d\n", (int)dead);
        put("m.lock", str_of(text));
        CHECK(mboxout_append(l, &j, false, &end_at, &e)); /* its process is gone */
        snprintf(text, sizeof text, "1\nmailmill %.*s\n", STR_FMT(j.run));
        put("m.lock", str_of(text));
        CHECK(mboxout_append(l, &j, true, &end_at, &e)); /* its run is the dead one */
        put("m.lock", STR("0"));
        struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
        CHECK(utimensat(root_fd(r), "m.lock", old, 0) == 0);
        CHECK(mboxout_append(l, &j, true, &end_at, &e)); /* nobody's, and old */
        CHECK_STR(content("m"), FROM_LINE "x\n\n");
        CHECK(faccessat(root_fd(r), "m.lock", F_OK, 0) != 0);
        end();
        gone();
}

/* Another program holds it for a moment. */
TEST(waits_for_the_other_program)
{
        struct append_job j;
        int fd, status, ready[2];
        char c;

        fresh();
        NEED(begin());
        put("m", STR("old\n\n"));
        NEED(stage("m", STR("x\n"), 0, &j, &fd) && pipe(ready) == 0);
        close(fd);
        pid_t child = fork();
        if (child == 0) {
                struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
                int mine = openat(root_fd(r), "m", O_RDWR | O_APPEND);
                bool ok = mine >= 0 && fcntl(mine, F_SETLK, &whole) == 0 && write(ready[1], "+", 1) == 1;
                usleep(200000);
                ok = ok && write(mine, "theirs\n\n", 8) == 8;
                _exit(!ok);
        }
        CHECK(read(ready[0], &c, 1) == 1);
        CHECK(mboxout_append(l, &j, false, &end_at, &e));
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK_STR(content("m"), "old\n\ntheirs\n\n" FROM_LINE "x\n\n");
        close(ready[0]), close(ready[1]);
        end();
        gone();
}

TEST(D01_no_room)
{
        static char big[300000];
        struct append_job j;
        struct rlimit old, small;
        int fd;

        fresh();
        NEED(begin());
        put("m", STR("old\n\n"));
        memset(big, 'x', sizeof big);
        NEED(stage("m", str_make(big, sizeof big), 0, &j, &fd));
        close(fd);
        getrlimit(RLIMIT_FSIZE, &old);
        small = old;
        small.rlim_cur = 100000;
        setrlimit(RLIMIT_FSIZE, &small);
        CHECK(!mboxout_append(l, &j, false, &end_at, &e) && e.code == ERR_FULL);
        setrlimit(RLIMIT_FSIZE, &old);
        CHECK_STR(content("m"), "old\n\n"); /* no half message */
        CHECK(mboxout_append(l, &j, true, &end_at, &e) && content("m").n == 5 + j.length);
        end();
        gone();
}

/* Killed at each write of the append, after the commitment; the next start finishes it. */
TEST(W6_committed_and_killed)
{
        static char mail[300000], want[400000];

        fresh();
        for (size_t i = 0; i < sizeof mail; i++)
                mail[i] = i % 70 == 69 ? '\n' : 'm';
        for (size_t n = 0; n < 32; n++) {
                int status;
                pid_t child = fork();
                if (child == 0) {
                        struct append_job j;
                        int fd;
                        if (!begin())
                                _exit(1);
                        put("m", STR("old\n\n"));
                        bool ok = stage("m", str_make(mail, sizeof mail), 0, &j, &fd) && staging_sync(s, NULL, 0, &fd, 1, &e) &&
                                  ledger_append_add(l, &j, &e);
                        sys_fail_at(n, EIO, true); /* from here on nothing works, then death */
                        if (ok && n > 0)
                                (void)!mboxout_append(l, &j, false, &end_at, &e);
                        _exit(!ok);
                }
                CHECK(waitpid(child, &status, 0) == child && status == 0);
                NEED(begin());
                CHECK(recovered == 1);
                int m = snprintf(want, sizeof want, "old\n\n" FROM_LINE "%.*s\n\n", (int)sizeof mail, mail);
                CHECK(str_eq(content("m"), str_make(want, (size_t)m)));
                end();
        }
        gone();
}

static struct str copies(struct str first, struct str second)
{
        return arena_printf(a, "old\n\n" FROM_LINE "%.*s\n" FROM_LINE "%.*s\n", STR_FMT(first), STR_FMT(second));
}

/* In a process of its own: all of it, or what works until the n-th call fails, and death. */
static void die_at(size_t n, void (*f)(struct str first, struct str second, size_t n), struct str first, struct str second)
{
        int status;
        pid_t child = fork();

        if (child == 0) {
                f(first, second, n);
                _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void append_both(struct str first, struct str second, size_t n)
{
        struct append_job j[2];
        int fd[2];

        if (!begin())
                _exit(1);
        put("m", STR("old\n\n"));
        if (!stage("m", first, 0, &j[0], &fd[0]) || !stage("m", second, 0, &j[1], &fd[1]) || !staging_sync(s, NULL, 0, fd, 2, &e) ||
            !ledger_append_add(l, &j[0], &e) || !ledger_append_add(l, &j[1], &e))
                _exit(1);
        sys_fail_at(n, EIO, true);
        if (mboxout_append(l, &j[0], false, &end_at, &e))
                (void)!mboxout_append(l, &j[1], false, &end_at, &e);
}

static void recover_some(struct str first, struct str second, size_t n)
{
        l = ledger_open(state, false, &e);
        sys_fail_at(n, EIO, true);
        if (l)
                s = staging_open(l, &recovered, &e);
}

/* Two of one batch, of which the second is the first again, or its beginning, or goes on behind it: killed anywhere, and the recovery too. */
TEST(W6_twins_committed_and_killed)
{
        static const struct { const char *first, *second; } pairs[] = {
                { "Subject: x\n\none\n", "Subject: x\n\none\n" },
                { "Subject: x\n\none\n\ntwo\n", "Subject: x\n\none\n" },
                { "Subject: x\n\none\n", "Subject: x\n\none\n\ntwo\n" },
        };

        fresh();
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
                struct str first = str_of(pairs[i].first), second = str_of(pairs[i].second);
                for (size_t n = 1; n < 60; n++) {
                        die_at(n, append_both, first, second);
                        die_at(1 + 7 * n % 90, recover_some, first, second);
                        NEED(begin());
                        bool whole = str_eq(content("m"), copies(first, second));
                        CHECK(whole);
                        if (!whole)
                                printf("pair %zu, killed at %zu\n", i, n);
                        end();
                }
        }
        gone();
}

TEST_MAIN
