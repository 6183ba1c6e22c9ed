#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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
        n = names_new();
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
        CHECK_STR(take("x", "5", CONFLICT_REPLACE), "x=");
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

/* Constant time for the ten-thousandth equal name, promised or there. */
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

TEST(F15_ten_thousand_equal_names)
{
        for (int publish = 0; publish < 2; publish++) {
                fresh();
                size_t early = takes(3, publish), late;
                gone();
                fresh();
                late = takes(10000, publish);
                CHECK(late > 0 && late <= early);
                CHECK_STR(take("image.png", "content 7000", CONFLICT_NUMBER), "image (7001).png=");
                CHECK_STR(take("image.png", "new", CONFLICT_NUMBER), "image (10001).png");
                gone();
        }
}

TEST_MAIN
