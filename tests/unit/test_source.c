#include "tests/unit/archives.h"

static const char box[] = "From a@x Mon Nov 23 05:41:00 2026\nSubject: 1\n\nb\n\nFrom a@x Mon Nov 23 05:41:00 2026\nSubject: 2\n\nc\n";

/* source_open("-") with this as standard input */
static void read_standard_input(struct got *g, int fd)
{
        int saved = dup(0);
        struct err e;

        dup2(fd, 0);
        close(fd);
        get(g, source_open(STR("-"), &limits_default, scratch, &e));
        dup2(saved, 0);
        close(saved);
}

TEST(standard_input)
{
        struct got g;
        int fd;

        scratch_begin();
        read_standard_input(&g, pipe_with(str_of(box)));
        CHECK(g.ok && g.n == 2);
        CHECK_STR(subject_of(&g, 1), "2");
        NEED(g.n == 2);
        CHECK_STR(message_origin(g.m[0])->source, "standard input");
        got_free(&g);

        read_standard_input(&g, pipe_with(STR("Subject: one\r\n\r\nFrom a@x Mon Nov 23 05:41:00 2026\r\n")));
        CHECK(g.ok && g.n == 1);
        CHECK_STR(text_of(&g, 0), "Subject: one\n\nFrom a@x Mon Nov 23 05:41:00 2026\n");
        got_free(&g);

        read_standard_input(&g, pipe_with(STR("")));
        CHECK(g.ok && g.n == 0);

        write_file("m", str_of(box)); /* a file, and what was read of it before is not ours */
        fd = open(at("m"), O_RDONLY);
        CHECK(lseek(fd, strstr(box, "\n\nFrom") + 2 - box, SEEK_SET) > 0);
        read_standard_input(&g, fd);
        CHECK(g.ok && g.n == 1);
        CHECK_STR(text_of(&g, 0), "Subject: 2\n\nc\n");
        got_free(&g);
}

TEST(kinds_by_content)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("x.eml", str_of(box)); /* an mbox, whatever its name */
        get(&g, open_source("x.eml", &e));
        CHECK(g.n == 2);
        got_free(&g);
        write_file("x.mbox", STR("Subject: one\n\n"));
        get(&g, open_source("x.mbox", &e));
        CHECK(g.n == 1);
        got_free(&g);
        write_file("empty", STR(""));
        get(&g, open_source("empty", &e));
        CHECK(g.ok && g.n == 0);
        mkdir(at("dir"), 0700);
        get(&g, open_source("dir", &e));
        CHECK(g.ok && g.finished && g.n == 0);
        mkdir(at("dir/cur"), 0700);
        get(&g, open_source("dir", &e));
        CHECK(g.ok && g.finished && g.n == 0);
}

TEST(missing_and_impossible)
{
        struct err e;

        scratch_begin();
        CHECK(!open_source("none", &e) && e.code == ERR_ABSENT && strstr(e.text, "/none"));
        CHECK(!source_open(STR("a\0b"), &limits_default, scratch, &e) && e.code == ERR_USAGE);
        CHECK(!source_open(STR(""), &limits_default, scratch, &e));
        source_free(NULL);
}

/* The same messages as mbox, Maildir and folder give the same bytes. */
TEST(same_bytes_from_every_kind)
{
        struct got a, b, c;
        struct err e;

        scratch_begin();
        write_file("m", str_of(box));
        write_file("M/cur/1:2,S", STR("Subject: 1\r\n\r\nb\r\n"));
        write_file("M/new/2", STR("Subject: 2\n\nc\n"));
        write_file("E/1.eml", STR("Subject: 1\n\nb\n"));
        write_file("E/2.eml", STR("Subject: 2\r\n\r\nc\r\n"));
        get(&a, open_source("m", &e));
        get(&b, open_source("M", &e));
        get(&c, open_source("E", &e));
        CHECK(a.n == 2 && b.n == 2 && c.n == 2);
        for (size_t i = 0; i < 2; i++) {
                CHECK_BYTES(text_of(&b, i), text_of(&a, i));
                CHECK_BYTES(text_of(&c, i), text_of(&a, i));
        }
        got_free(&a);
        got_free(&b);
        got_free(&c);
}

static bool note_path(void *ctx, struct str path, struct err *e)
{
        struct buf *b = ctx;

        (void)e;
        buf_add_str(b, str_from(path, str_rfind(path, '/') < path.n ? str_rfind(path, '/') + 1 : 0));
        return buf_add_char(b, ' ');
}

static void globs(const char *pattern, const char *want)
{
        struct buf b = BUF_INIT;
        struct err e;

        CHECK(source_glob(str_of(pattern), note_path, &b, &e));
        CHECK_BYTES(buf_str(&b), str_of(want));
        buf_free(&b);
}

static bool refuse(void *ctx, struct str path, struct err *e)
{
        (void)path;
        (*(int *)ctx)++;
        return err_set(e, ERR_IO, "enough");
}

TEST(glob)
{
        struct err e;
        int calls = 0;

        scratch_begin();
        write_file("b.mbox", STR("x"));
        write_file("a.mbox", STR("x"));
        write_file("B.mbox", STR("x"));
        write_file("[c].mbox", STR("x"));
        write_file("c.mbox", STR("x"));
        globs(at("*.mbox"), "B.mbox [c].mbox a.mbox b.mbox c.mbox ");
        globs(at("[ab].mbox"), "a.mbox b.mbox ");
        globs(at("[c].mbox"), "[c].mbox "); /* a name that is there is that file */
        globs("-", "- ");
        setenv("HOME", scratch, 1);
        globs("~/a*", "a.mbox ");
        CHECK(!source_glob(str_of(at("*.eml")), note_path, NULL, &e) && e.code == ERR_ABSENT && strstr(e.text, "*.eml"));
        CHECK(!source_glob(STR(""), note_path, NULL, &e) && !source_glob(STR("a\0b"), note_path, NULL, &e));
        CHECK(!source_glob(str_of(at("*")), refuse, &calls, &e) && calls == 1 && strcmp(e.text, "enough") == 0);
}

TEST_MAIN
