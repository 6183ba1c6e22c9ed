#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/ledger.h"
#include "core/staging.h"
#include "core/sys.h"

static char dir[128];
static struct err e;
static struct arena *a;
static struct root *r;
static struct names *n;
static int hashed;

static void fresh(void)
{
        snprintf(dir, sizeof dir, "%s/mm-names-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        if (!mkdtemp(dir))
                abort();
        a = arena_new(0);
        n = names_new(NULL);
        r = root_open(str_of(dir), &e);
        if (!a || !n || !r)
                abort();
}

static void gone(void)
{
        char cmd[256];
        snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
        if (system(cmd) != 0)
                abort();
        names_free(n);
        root_close(r);
        arena_free(a);
}

static bool hash(void *ctx, uint8_t out[DIGEST_SIZE], struct err *why)
{
        hashed++;
        return ctx ? digest_of(str_of(ctx), out) : err_set(why, ERR_IO, "cannot be read");
}

/* The name that content gets, with "=" behind it when the same is there; "!" and the error's word. */
static struct str take(const char *path, const char *content, enum on_conflict how)
{
        struct str out;
        bool same;
        char *text = arena_dup(a, content, strlen(content)); /* kept: the hash may be asked for later */

        if (!names_take(n, r, str_of(path), how, hash, text, &out, &same, a, &e))
                return arena_printf(a, "!%s", err_code_name(e.code));
        return arena_printf(a, "%.*s%s", STR_FMT(out), same ? "=" : "");
}

static void put(const char *path, const char *content)
{
        int fd = openat(root_fd(r), path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
        CHECK(fd >= 0 && write(fd, content, strlen(content)) == (ssize_t)strlen(content));
        close(fd);
}

TEST(promised_names)
{
        fresh();
        CHECK_STR(take("a/b.txt", "1", CONFLICT_NUMBER), "a/b.txt");
        CHECK_STR(take("a//./b.txt", "1", CONFLICT_NUMBER), "a/b.txt=");
        CHECK_STR(take("a/b.txt", "2", CONFLICT_NUMBER), "a/b (2).txt");
        CHECK_STR(take("a/b.txt", "3", CONFLICT_NUMBER), "a/b (3).txt");
        CHECK_STR(take("a/b.txt", "2", CONFLICT_NUMBER), "a/b (2).txt=");
        CHECK_STR(take("a/b.txt", "9", CONFLICT_KEEP), "a/b.txt=");
        CHECK_STR(take("a/b.txt", "9", CONFLICT_FAIL), "!exists");
        CHECK_STR(take("a/b.txt", "1", CONFLICT_FAIL), "a/b.txt=");
        CHECK_STR(take("../x", "1", CONFLICT_NUMBER), "!usage");
        CHECK_STR(take("/x", "1", CONFLICT_NUMBER), "!usage");
        CHECK_STR(take("", "1", CONFLICT_NUMBER), "!usage");
        gone();
}

/* A second run over the same mail makes no third copy. */
TEST(names_on_disk)
{
        fresh();
        put("x", "1");
        put("x (2)", "2");
        put("x (3)", "3");
        CHECK_STR(take("x", "1", CONFLICT_NUMBER), "x=");
        CHECK_STR(take("x", "3", CONFLICT_NUMBER), "x (3)=");
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x (2)=");
        CHECK_STR(take("x", "4", CONFLICT_NUMBER), "x (4)");
        CHECK_STR(take("x", "5", CONFLICT_REPLACE), "x");
        CHECK_STR(take("x", "5", CONFLICT_REPLACE), "x"); /* the one before it may be dropped */
        CHECK_STR(take("x", "7", CONFLICT_KEEP), "x=");
        gone();
}

/* What was looked at once is looked at again when the file has changed or gone. */
TEST(files_change)
{
        fresh();
        put("x", "1");
        put("x (2)", "2");
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x (2)=");
        names_release(n, r, STR("x (2)"));
        put("x (2)", "other");
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x (3)");
        names_release(n, r, STR("x (3)"));
        CHECK(unlinkat(root_fd(r), "x (2)", 0) == 0 && unlinkat(root_fd(r), "x", 0) == 0);
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x");
        gone();
}

TEST(a_dropped_name_is_free_again)
{
        fresh();
        put("x", "1");
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x (2)");
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x (2)=");
        CHECK_STR(take("x", "3", CONFLICT_NUMBER), "x (3)");
        names_release(n, r, STR("x (2)"));
        CHECK_STR(take("x", "4", CONFLICT_NUMBER), "x (4)"); /* one still holds it */
        names_release(n, r, STR("x (2)"));
        CHECK_STR(take("x", "5", CONFLICT_NUMBER), "x (2)");
        names_release(n, r, STR("x (2)"));
        names_release(n, r, STR("x (2)")); /* once too often */
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x (2)");
        gone();
}

/* A name that is to hold one content and then another: which it will be nobody knows, so it is nobody's "already there". */
TEST(a_replacement_that_is_dropped)
{
        fresh();
        CHECK_STR(take("f", "1", CONFLICT_NUMBER), "f");
        CHECK_STR(take("f", "2", CONFLICT_REPLACE), "f");
        names_release(n, r, STR("f"));
        CHECK_STR(take("f", "2", CONFLICT_NUMBER), "f (2)");
        CHECK_STR(take("f", "1", CONFLICT_NUMBER), "f (3)");
        gone();
        fresh();
        CHECK_STR(take("f", "1", CONFLICT_NUMBER), "f");
        CHECK_STR(take("f", "2", CONFLICT_REPLACE), "f");
        put("f", "1"); /* the first is there, the second will take its place */
        names_release(n, r, STR("f"));
        CHECK_STR(take("f", "1", CONFLICT_NUMBER), "f (2)");
        names_release(n, r, STR("f"));
        CHECK_STR(take("f", "1", CONFLICT_NUMBER), "f=");
        CHECK(names_hold(n, r, STR("f"), a));
        CHECK_STR(take("f", "4", CONFLICT_REPLACE), "f");
        CHECK(names_hold(n, r, STR("f"), a));
        put("f", "4");
        CHECK(!names_hold(n, r, STR("f"), a));
        gone();
}

TEST(F20_F21_F22_what_is_no_plain_file)
{
        fresh();
        CHECK(symlinkat("/etc/passwd", root_fd(r), "l") == 0 && mkfifoat(root_fd(r), "f", 0600) == 0 &&
              mkdirat(root_fd(r), "d", 0700) == 0);
        CHECK_STR(take("l", "1", CONFLICT_NUMBER), "l (2)");
        CHECK_STR(take("f", "1", CONFLICT_NUMBER), "f (2)");
        CHECK_STR(take("d", "1", CONFLICT_NUMBER), "d (2)");
        CHECK_STR(take("l", "1", CONFLICT_REPLACE), "!exists");
        CHECK_STR(take("d", "1", CONFLICT_KEEP), "!exists");
        CHECK_STR(take("f", "1", CONFLICT_FAIL), "!exists");
        CHECK_STR(take("l/x", "1", CONFLICT_NUMBER), "!io"); /* beneath a link */
        struct str nul = { "a\0b", 3 }, out;
        bool same;
        CHECK(!names_take(n, r, nul, CONFLICT_NUMBER, hash, NULL, &out, &same, a, &e) && e.code == ERR_USAGE);
        gone();
}

TEST(a_hash_that_fails)
{
        struct str out;
        bool same;

        fresh();
        put("x", "1");
        CHECK(!names_take(n, r, STR("x"), CONFLICT_NUMBER, hash, NULL, &out, &same, a, &e) && e.code == ERR_IO);
        CHECK(unlinkat(root_fd(r), "x", 0) == 0);
        CHECK(names_take(n, r, STR("x"), CONFLICT_NUMBER, hash, NULL, &out, &same, a, &e)); /* free: nobody asks */
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x (2)"); /* what can't be read equals nothing */
        names_keep(n);
        CHECK(!names_take(n, r, STR("y"), CONFLICT_NUMBER, hash, NULL, &out, &same, a, &e) && e.code == ERR_IO);
        gone();
}

/* Content is hashed when a name is contested, each once. */
TEST(hashed_when_asked)
{
        char one[] = "1", other[] = "1";
        struct str out;
        bool same;

        fresh();
        hashed = 0;
        CHECK(names_take(n, r, STR("x"), CONFLICT_NUMBER, hash, one, &out, &same, a, &e) && !same);
        CHECK(hashed == 0);
        CHECK(names_take(n, r, STR("x"), CONFLICT_NUMBER, hash, other, &out, &same, a, &e) && same);
        CHECK(hashed == 2);
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x (2)");
        CHECK(hashed == 3);

        /* the first has gone when a third asks: what the second shares was hashed in time */
        CHECK(names_take(n, r, STR("y"), CONFLICT_NUMBER, hash, one, &out, &same, a, &e));
        CHECK_STR(take("y", "9", CONFLICT_KEEP), "y=");
        names_release(n, r, STR("y"));
        one[0] = '7';
        CHECK_STR(take("y", "1", CONFLICT_NUMBER), "y=");
        gone();
}

static void without_case(void)
{
        names_free(n);
        n = names_new(NULL);
        if (!n || !names_caseless(n))
                abort();
}

/* With names_caseless: promised, on the disk, numbered; the spelling that was first stays. */
TEST(F14_names_without_case)
{
        fresh();
        without_case();
        CHECK_STR(take("A.TXT", "1", CONFLICT_NUMBER), "A.TXT");
        CHECK_STR(take("a.txt", "2", CONFLICT_NUMBER), "a (2).txt");
        CHECK_STR(take("A.txt", "3", CONFLICT_NUMBER), "A (3).txt");
        CHECK_STR(take("a.TXT", "1", CONFLICT_NUMBER), "A.TXT=");
        CHECK_STR(take("a.TXT", "2", CONFLICT_NUMBER), "a (2).txt=");
        CHECK_STR(take("A.txt", "9", CONFLICT_KEEP), "A.TXT=");
        CHECK_STR(take("A.txt", "9", CONFLICT_FAIL), "!exists");
        CHECK_STR(take("\xef\xac\x81le", "1", CONFLICT_NUMBER), "\xef\xac\x81le"); /* a ligature */
        CHECK_STR(take("file", "2", CONFLICT_NUMBER), "file (2)");
        CHECK_STR(take("Stra\xc3\x9f" "e", "1", CONFLICT_NUMBER), "Stra\xc3\x9f" "e");
        CHECK_STR(take("STRASSE", "2", CONFLICT_NUMBER), "STRASSE (2)");
        CHECK_STR(take("\xc3\xa9", "1", CONFLICT_NUMBER), "\xc3\xa9");
        CHECK_STR(take("E\xcc\x81", "2", CONFLICT_NUMBER), "E\xcc\x81 (2)"); /* decomposed */
        CHECK_STR(take("a\xff", "1", CONFLICT_NUMBER), "a\xff");
        CHECK_STR(take("A\xff", "2", CONFLICT_NUMBER), "A\xff"); /* no UTF-8: equal to itself only */
        gone();
}

TEST(F14_files_and_directories_without_case)
{
        fresh();
        CHECK(mkdirat(root_fd(r), "Dir", 0700) == 0);
        put("Dir/Image.PNG", "1");
        put("Dir/IMAGE (2).png", "2");
        put("Dir/both", "1");
        put("Dir/Both", "2");
        without_case();
        CHECK_STR(take("dir/image.png", "1", CONFLICT_NUMBER), "Dir/Image.PNG=");
        CHECK_STR(take("DIR/image.png", "2", CONFLICT_NUMBER), "Dir/IMAGE (2).png=");
        CHECK_STR(take("Dir/image.png", "3", CONFLICT_NUMBER), "Dir/image (3).png");
        CHECK_STR(take("DIR/new/x", "1", CONFLICT_NUMBER), "Dir/new/x");
        CHECK_STR(take("dir/NEW/X", "2", CONFLICT_NUMBER), "Dir/new/X (2)");
        CHECK_STR(take("dir/image.PNG", "8", CONFLICT_REPLACE), "Dir/Image.PNG");
        CHECK_STR(take("Dir/both", "2", CONFLICT_KEEP), "Dir/both="); /* the very name before one like it */
        CHECK_STR(take("Dir/Both", "2", CONFLICT_NUMBER), "Dir/Both=");
        names_release(n, r, STR("Dir/image (3).png")); /* dropped: its spelling too */
        CHECK_STR(take("dir/IMAGE.png", "4", CONFLICT_NUMBER), "Dir/IMAGE (3).png");
        CHECK(unlinkat(root_fd(r), "Dir/Image.PNG", 0) == 0);
        names_release(n, r, STR("Dir/Image.PNG"));
        names_release(n, r, STR("Dir/Image.PNG"));
        CHECK_STR(take("Dir/image.PNG", "5", CONFLICT_NUMBER), "Dir/image.PNG");
        gone();
}

/* ---- what the state remembers ---------------------------------------------------------------------------------- */

static struct ledger *ledger;
static char state[160];

/* A run begins: nothing is known but what the state says. */
static void next_run(void)
{
        names_free(n);
        n = names_new(ledger);
        if (!n)
                abort();
}

static void with_state(void)
{
        fresh();
        snprintf(state, sizeof state, "%s-state", dir);
        ledger = ledger_open(state, false, &e);
        if (!ledger)
                abort();
        next_run();
}

static void state_gone(void)
{
        char cmd[256];

        ledger_close(ledger);
        snprintf(cmd, sizeof cmd, "rm -rf '%s'", state);
        if (system(cmd) != 0)
                abort();
        gone();
}

/* A batch of one save: told to the state before it has its name, as the protocol has it, if it gets it at all. */
static void commit(struct str path, const char *content, bool named)
{
        struct staged o = { 0 };
        struct learned *k;
        struct stat st;

        put("staged", content);
        CHECK(fstatat(root_fd(r), "staged", &st, 0) == 0);
        o.ino = st.st_ino;
        o.size = (uint64_t)st.st_size;
        o.written = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
        names_staged(n, r, path, &o);
        k = names_take_learned(n);
        CHECK(ledger_begin(ledger, &e) && learned_write(k, ledger, &e) && ledger_commit(ledger, &e));
        learned_free(k);
        CHECK(!named || renameat(root_fd(r), "staged", root_fd(r), path.p) == 0);
}

/* Takes, and carries out what came of it: the name, "=" behind it when nothing was written. *calls: what the taking cost. */
static struct str save(const char *path, const char *content, size_t *calls)
{
        struct str got;
        size_t cost;

        sys_fail_at(0, 0, false);
        got = take(path, content, CONFLICT_NUMBER);
        cost = sys_fail_at(0, 0, false);
        if (calls)
                *calls = cost;
        if (got.p[got.n - 1] == '=') {
                struct learned *k = names_take_learned(n);

                CHECK(ledger_begin(ledger, &e) && learned_write(k, ledger, &e) && ledger_commit(ledger, &e));
                learned_free(k);
                names_release(n, r, str_first(got, got.n - 1));
        } else {
                commit(got, content, true);
                names_release(n, r, got);
        }
        return got;
}

static struct str text_of(int i)
{
        return arena_printf(a, "content %04d", i);
}

/* A thousand contents over ten runs: what a save costs is two looks at names, in the tenth run as in the second, and nothing is read
 * but one file: the first, whose content nobody asked for when it was saved. */
TEST(F15_equal_names_over_many_runs)
{
        size_t calls, most = 0;
        int i = 0;

        with_state();
        for (int run = 0; run < 10; run++) {
                next_run();
                for (int end = i + 100; i < end; i++) {
                        struct str got = save("image.png", text_of(i).p, &calls);
                        struct str want = i ? arena_printf(a, "image (%d).png", i + 1) : STR("image.png");

                        CHECK(str_eq(got, want));
                        if (i > 1 && calls > most)
                                most = calls;
                }
        }
        CHECK(most == 3); /* the name, the last that is known (once a run), the next number */
        usleep(40000); /* what has just changed is not trusted to stay */
        next_run();
        CHECK_STR(save("image.png", "content 0500", &calls), "image (501).png=");
        CHECK(calls > 3); /* read, for it was renamed since it was noted */
        next_run();
        CHECK_STR(save("image.png", "content 0500", &calls), "image (501).png=");
        CHECK(calls == 3);
        CHECK_STR(save("image.png", "content 0000", NULL), "image.png="); /* read when it was new: once more */
        next_run();
        CHECK_STR(save("image.png", "content 0000", &calls), "image.png=");
        CHECK(calls == 1);
        state_gone();
}

static void restore_times(const char *path, const struct stat *st)
{
        CHECK(utimensat(root_fd(r), path, (struct timespec[2]){ st->st_atim, st->st_mtim }, 0) == 0);
}

/* The disk is the truth, whatever the state says. */
TEST(F15_files_that_changed_between_runs)
{
        struct stat st;

        with_state();
        for (int i = 1; i <= 6; i++)
                save("x", text_of(i).p, NULL);
        next_run();
        for (int i = 1; i <= 6; i++) /* now each has been read under its name */
                CHECK(str_eq(save("x", text_of(i).p, NULL), i > 1 ? arena_printf(a, "x (%d)=", i) : STR("x=")));
        next_run();
        CHECK(fstatat(root_fd(r), "x (3)", &st, 0) == 0);
        put("x (3)", "content 9999"); /* the same inode, size and mtime */
        restore_times("x (3)", &st);
        CHECK_STR(save("x", "content 0003", NULL), "x (7)");
        next_run();
        CHECK_STR(save("x", "content 9999", NULL), "x (3)=");
        next_run();
        put("x (4)", "longer than it was");
        CHECK_STR(save("x", "content 0004", NULL), "x (8)");
        next_run();
        CHECK(unlinkat(root_fd(r), "x (5)", 0) == 0);
        CHECK_STR(save("x", "content 0005", NULL), "x (5)"); /* its place is free again */
        next_run();
        CHECK(unlinkat(root_fd(r), "x (6)", 0) == 0 && renameat(root_fd(r), "x (5)", root_fd(r), "x (6)") == 0);
        CHECK_STR(save("x", "content 0006", NULL), "x (9)"); /* another's content under its name */
        CHECK_STR(save("x", "content 0005", NULL), "x (6)=");
        state_gone();
}

/* What was read in the very moment in which it was written may have been written on: it is read again, where seconds are all that the file
 * system keeps for seconds. */
TEST(F15_a_file_that_has_just_changed)
{
        size_t calls;

        with_state();
        put("x", "content 0001");
        CHECK_STR(save("x", "content 0001", NULL), "x=");
        next_run();
        CHECK_STR(save("x", "content 0001", &calls), "x=");
        CHECK(calls > 1);
        usleep(40000);
        next_run();
        CHECK_STR(save("x", "content 0001", NULL), "x=");
        next_run();
        CHECK_STR(save("x", "content 0001", &calls), "x=");
        CHECK(calls == 1);
        CHECK(utimensat(root_fd(r), "x", (struct timespec[2]){ { time(NULL), 0 }, { time(NULL), 0 } }, 0) == 0);
        usleep(40000);
        next_run();
        CHECK_STR(save("x", "content 0001", NULL), "x=");
        next_run();
        CHECK_STR(save("x", "content 0001", &calls), "x=");
        CHECK(calls > 1);
        state_gone();
}

/* A directory that was emptied, or moved away and made anew, begins at the beginning. */
TEST(F15_an_emptied_directory)
{
        char cmd[256];

        with_state();
        for (int i = 1; i <= 50; i++)
                save("x", text_of(i).p, NULL);
        next_run();
        snprintf(cmd, sizeof cmd, "rm -f '%s'/x*", dir);
        CHECK(system(cmd) == 0);
        CHECK_STR(save("x", "content 0007", NULL), "x");
        CHECK_STR(save("x", "content 0008", NULL), "x (2)");
        next_run();
        CHECK_STR(save("x", "content 0050", NULL), "x (3)");
        CHECK_STR(save("x", "content 0007", NULL), "x=");
        state_gone();
}

/* Killed between transaction and rename: the state knows of files that never got their name. */
TEST(F15_noted_and_never_named)
{
        struct str got;

        with_state();
        save("x", "1", NULL);
        save("x", "2", NULL);
        got = take("x", "3", CONFLICT_NUMBER);
        CHECK_STR(got, "x (3)");
        commit(got, "3", false);
        next_run();
        CHECK_STR(save("x", "3", NULL), "x (3)");
        next_run();
        CHECK_STR(save("x", "3", NULL), "x (3)=");
        CHECK_STR(save("x", "4", NULL), "x (4)");
        state_gone();
}

/* Two runs at once: each has promised the same number. */
TEST(F15_two_runs_at_once)
{
        struct names *first, *second;

        with_state();
        save("x", "1", NULL);
        first = n;
        second = names_new(ledger);
        NEED(second);
        CHECK_STR(take("x", "2", CONFLICT_NUMBER), "x (2)");
        n = second;
        CHECK_STR(take("x", "3", CONFLICT_NUMBER), "x (2)");
        n = first;
        commit(STR("x (2)"), "2", true);
        n = second;
        names_release(n, r, STR("x (2)")); /* taken meanwhile: decided again */
        CHECK_STR(save("x", "3", NULL), "x (3)");
        names_free(first);
        next_run();
        CHECK_STR(save("x", "2", NULL), "x (2)=");
        CHECK_STR(save("x", "3", NULL), "x (3)=");
        state_gone();
}

/* The system calls and the hashes that the last of so many equal names costs. */
static size_t takes(int count, bool publish)
{
        char content[32];
        struct str got;
        size_t calls = 0;

        for (int i = 0; i < count; i++) {
                snprintf(content, sizeof content, "content %d", i);
                sys_fail_at(0, 0, false);
                hashed = 0;
                got = take("image.png", content, CONFLICT_NUMBER);
                calls = sys_fail_at(0, 0, false) + (size_t)hashed;
                if (!publish)
                        continue;
                put(got.p, content);
                names_release(n, r, got);
        }
        return calls;
}

/* Names that a file system without case, or a person, takes for one another are names of their own; where the file system holds them to be
 * one, the second is taken when it comes to be made. */
TEST(F13_F14_names_that_look_alike)
{
        fresh();
        CHECK_STR(take("A.TXT", "1", CONFLICT_NUMBER), "A.TXT");
        CHECK_STR(take("a.txt", "2", CONFLICT_NUMBER), "a.txt");
        CHECK_STR(take("\xef\xac\x81le", "1", CONFLICT_NUMBER), "\xef\xac\x81le");
        CHECK_STR(take("file", "2", CONFLICT_NUMBER), "file");
        CHECK_STR(take("\xc3\xa9", "1", CONFLICT_NUMBER), "\xc3\xa9"); /* NFD has become NFC on its way here */
        CHECK_STR(take("\xc3\xa9", "2", CONFLICT_NUMBER), "\xc3\xa9 (2)");
        gone();
}

/* Constant time for the ten-thousandth equal name, promised or there, also where case does not count. */
TEST(F15_ten_thousand_equal_names)
{
        for (int round = 0; round < 4; round++) {
                bool publish = round & 1;

                fresh();
                if (round & 2)
                        without_case();
                size_t early = takes(3, publish), late;
                gone();
                fresh();
                if (round & 2)
                        without_case();
                late = takes(10000, publish);
                CHECK(late > 0 && late <= early);
                CHECK_STR(take("image.png", "content 7000", CONFLICT_NUMBER), "image (7001).png=");
                CHECK_STR(take("image.png", "new", CONFLICT_NUMBER), "image (10001).png");
                gone();
        }
}

TEST_MAIN
