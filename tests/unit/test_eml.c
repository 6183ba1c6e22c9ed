#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/archives.h"

static void read_eml(struct got *g, struct str content)
{
        struct err e;

        scratch_begin();
        write_file("m.eml", content);
        get(g, open_source("m.eml", &e));
}

TEST(one_message)
{
        static const struct { const char *in, *text, *from; int64_t time; } rows[] = {
                { "Subject: x\n\nbody\n", "Subject: x\n\nbody\n", "", 0 },
                { "Subject: x\r\n\r\nbo\rdy\r\n\r\n", "Subject: x\n\nbo\rdy\n\n", "", 0 },
                { "\xef\xbb\xbfSubject: x\n\nb", "Subject: x\n\nb", "", 0 },
                { "Subject: x\n\nb\nFrom a@x Mon Nov 23 05:41:00 2026\n>From y\n", "Subject: x\n\nb\nFrom a@x Mon Nov 23 05:41:00 2026\n>From y\n", "", 0 },
                { "", "", "", 0 },
                { "\r", "\r", "", 0 },
                { "Subject: x\r", "Subject: x\r", "", 0 },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct got g;

                read_eml(&g, str_of(rows[i].in));
                CHECK(g.ok && g.finished && g.n == 1 && warnings == 0);
                CHECK_STR(text_of(&g, 0), rows[i].text);
                NEED(g.n == 1);
                CHECK_STR(message_origin(g.m[0])->envelope_from, rows[i].from);
                CHECK_STR(message_origin(g.m[0])->source, at("m.eml"));
                CHECK(message_origin(g.m[0])->number == 1 && message_origin(g.m[0])->time > 1700000000);
                CHECK(g.total_messages == 1 && g.done_bytes <= g.total_bytes);
                got_free(&g);
        }
}

static void read_in_folder(struct got *g, struct str content)
{
        struct err e;

        scratch_begin();
        write_file("d/m.eml", content);
        get(g, open_source("d", &e));
}

TEST(from_line_in_front)
{
        struct got g;

        read_in_folder(&g, STR("From joe@x.org Mon Nov 23 05:41:00 2026\r\nSubject: x\r\n\r\nFrom b@x Mon Nov 23 05:41:00 2026\r\n"));
        CHECK(g.ok && g.n == 1);
        CHECK_STR(text_of(&g, 0), "Subject: x\n\nFrom b@x Mon Nov 23 05:41:00 2026\n");
        NEED(g.n == 1);
        CHECK_STR(message_origin(g.m[0])->envelope_from, "joe@x.org");
        CHECK(message_origin(g.m[0])->time == 1795412460);
        CHECK_STR(message_origin(g.m[0])->uid, "m.eml");
        got_free(&g);
        read_in_folder(&g, STR("From here on there is no header\n"));
        CHECK_STR(text_of(&g, 0), "From here on there is no header\n");
        got_free(&g);
}

TEST(B07_anything_is_a_message)
{
        static const struct str rows[] = {
                { "<html>\n<body>x</body></html>", 29 }, { "PK\3\4\24\0\0\0\b\0", 10 }, { "\xff\xff\xff\xff\xff", 5 }, { "\0\0\0\n\n", 5 },
                { "\n\nSubject: x\n\n", 14 },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct got g;

                read_eml(&g, rows[i]);
                CHECK(g.ok && g.n == 1);
                CHECK_BYTES(text_of(&g, 0), rows[i]);
                CHECK_STR(subject_of(&g, 0), "");
                got_free(&g);
        }
}

TEST(B07_files_that_are_no_mail_by_other_names)
{
        static const struct { const char *name; struct str text; const char *why; bool loud; } rows[] = {
                { "x.msg", { "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", 10 }, "Outlook message", true },
                { "x.doc", { "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", 10 }, "OLE file", false },
                { "x.pst", { "!BDN\0\0", 6 }, "readpst", true },
                { "x.dbx", { "\xcf\xad\x12\xfe\0\0", 6 }, "undbx", true },
                { "x.7z", { "7z\xbc\xaf\x27\x1c", 6 }, "7-Zip", true },
                { "x.pdf", { "%PDF-1.4\n", 9 }, "PDF", false },
                { "u.txt", { "\xff\xfeS\0u\0b\0j\0", 10 }, "UTF-16", false },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                char path[40];
                struct got g;
                struct err e = { 0 };
                struct source *s;

                scratch_begin();
                snprintf(path, sizeof path, "d/%s", rows[i].name);
                write_file(path, rows[i].text);
                s = open_source(path, &e);
                get(&g, s); /* refused when it is opened, or when it is read */
                CHECK(!g.ok && g.n == 0);
                CHECK(strstr(s ? g.e.text : e.text, rows[i].why) && strstr(s ? g.e.text : e.text, rows[i].name));
                write_file("d/a.eml", STR("Subject: 1\n\n"));
                get(&g, open_source("d", &e));
                CHECK(g.ok && g.n == 1 && g.skipped == 1 && g.finished == !rows[i].loud && (warnings > 0) == rows[i].loud);
                got_free(&g);
        }
}

/* A folder of files of which none is a message is said to be one; an empty one is fine. */
TEST(B07_no_message_in_a_folder)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("d/1.txt", STR("shopping list\n"));
        write_file("d/2.html", STR("<html>"));
        get(&g, open_source("d", &e));
        CHECK(g.ok && g.finished && g.n == 0 && g.skipped == 2 && warnings > 0 && strstr(warned, "/d: no message found: 2 files"));
}

TEST(B04_cr_alone)
{
        struct got g;

        read_eml(&g, STR("Subject: x\rFrom: a@b\r\rbody\r"));
        CHECK(!g.ok && g.n == 0 && strstr(g.e.text, "CR alone"));
        read_eml(&g, STR("body\rwithout\rheader\r"));
        CHECK(g.ok && g.n == 1);
        got_free(&g);
}

/* Apple Mail's: the length before, a property list behind. */
TEST(emlx)
{
        static const struct { const char *in, *out; } rows[] = {
                { "13        \nSubject: 1\n\nb<?xml ?><plist/>\n", "Subject: 1\n\nb" },
                { "13 \nSubject: 1\n\nb\n<?xml ?><plist/>\n", "Subject: 1\n\nb" },
                { "13 \nSubject: 1\n\nb", "Subject: 1\n\nb" }, /* cut off behind the message */
                { "12\nSubject: 1\n\nb", "12\nSubject: 1\n\nb" }, /* what stands behind is more of the message */
                { "0\nSubject: 1\n\nb", "0\nSubject: 1\n\nb" },
                { "9999\nSubject: 1\n\nb", "Subject: 1\n\nb" }, /* cut off */
                { "13\nno header\n", "13\nno header\n" },
                { "13x\nSubject: 1\n", "13x\nSubject: 1\n" },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct got g;

                read_eml(&g, str_of(rows[i].in));
                CHECK(g.ok && g.n == 1);
                CHECK_STR(text_of(&g, 0), rows[i].out);
                got_free(&g);
        }
}

TEST(cut_at_every_byte)
{
        struct str all = STR("\xef\xbb\xbf" "From a@x Mon Nov 23 05:41:00 2026\r\nSubject: x\r\n\r\nb\rc\r\n");

        for (size_t n = 0; n <= all.n; n++) {
                struct got g;

                read_in_folder(&g, str_first(all, n));
                CHECK(g.ok && g.finished && g.n == 1);
                if (n >= 40)
                        CHECK(str_starts(STR("Subject: x\n\nb\rc\n\r"), str_trim_right(text_of(&g, 0))));
                got_free(&g);
        }
}

/* A message larger than memory_message: in its own file when it can lie there, and CR at each place of a block's end. */
TEST(large_files_across_blocks)
{
        struct limits lim = limits_default;
        static char text[9000];

        lim.memory_message = 3000;
        slurp_block = SLURP_BLOCK_MIN;
        scratch_begin();
        for (size_t cr = 2030; cr < 6200 && test_bad == 0; cr += cr % 2048 > 10 && cr % 2048 < 2030 ? 61 : 1)
                for (int kind = 0; kind < 3; kind++) { /* no CR, a bare one, a CRLF */
                        struct got g;
                        struct err e;

                        memset(text, 'x', 8000);
                        memcpy(text, "Subject: s\n\n", 12);
                        if (kind > 0)
                                text[cr] = '\r';
                        if (kind == 2)
                                text[cr + 1] = '\n';
                        for (int piped = 0; piped < 2; piped++) {
                                int fd;

                                write_file("m.eml", str_make(text, 8000));
                                fd = piped ? pipe_with(str_make(text, 8000)) : open(at("m.eml"), O_RDONLY);
                                get(&g, eml_open(fd, STR("m"), &lim, scratch, &e));
                                NEED(g.ok && g.n == 1);
                                CHECK(g.in_file[0]);
                                CHECK_BYTES(text_of(&g, 0).n == 7999 ? str_first(text_of(&g, 0), cr) : str_make(text, cr),
                                            str_make(text, cr));
                                CHECK(message_size(g.m[0]) == (kind == 2 ? 7999 : 8000));
                                CHECK_BYTES(str_from(text_of(&g, 0), cr), str_make(text + cr + (kind == 2), 8000 - cr - (kind == 2)));
                                got_free(&g);
                        }
                }
        slurp_block = SLURP_BLOCK;
}

TEST(folders)
{
        static const char *const names[] = { "a.eml", "b/1.eml", "b/2.eml", "b/c/d/e.EML", "b.eml", "b/note.txt", "z" };
        static const char *const order[] = { "a.eml", "b.eml", "b/1.eml", "b/2.eml", "b/c/d/e.EML", "z" };
        struct got g;
        struct err e;

        scratch_begin();
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                char text[64], path[64];

                snprintf(text, sizeof text, "Subject: %s\n\n", names[i]);
                snprintf(path, sizeof path, "t/%s", names[i]);
                write_file(path, str_of(text));
        }
        write_file("t/b/note.txt", STR("Dear reader: this is no mail\n\nSubject: x\n"));
        write_file("t/.hidden.eml", STR("Subject: no\n\n"));
        write_file("t/b/.git/x.eml", STR("Subject: no\n\n"));
        get(&g, open_source("t", &e));
        CHECK(g.ok && g.finished && g.n == 6 && g.skipped == 1 && g.total_messages == 7 && g.done_messages == 6);
        for (size_t i = 0; i < g.n; i++) {
                char path[64];

                CHECK_STR(subject_of(&g, i), order[i]);
                CHECK_STR(message_origin(g.m[i])->uid, order[i]);
                snprintf(path, sizeof path, "t/%s", order[i]);
                CHECK_STR(message_origin(g.m[i])->source, at(path));
                CHECK(message_origin(g.m[i])->number == i + 1);
        }
        got_free(&g);
}

TEST(mbox_within_a_folder)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("t/1.eml", STR("Subject: 1\n\n"));
        write_file("t/2", STR("From a@x Mon Nov 23 05:41:00 2026\nSubject: 2\n\nb\n\nFrom a@x Mon Nov 23 05:41:00 2026\nSubject: 3\n\n"));
        write_file("t/2.msf", STR("// <!-- <mdb:mork:z v=\"1.4\"/> -->\n"));
        write_file("t/3.eml", STR("Subject: 4\n\n"));
        get(&g, open_source("t", &e));
        CHECK(g.ok && g.finished && g.n == 4 && g.done_messages == 4);
        for (size_t i = 0; i < g.n; i++) {
                CHECK(subject_of(&g, i).n == 1 && *subject_of(&g, i).p == (char)('1' + i));
                CHECK(message_origin(g.m[i])->number == i + 1);
        }
        NEED(g.n == 4);
        CHECK_STR(message_origin(g.m[2])->source, at("t/2"));
        CHECK_STR(message_origin(g.m[2])->uid, "2:49");
        got_free(&g);
}

TEST(B06_what_is_no_file)
{
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        struct got g;
        struct err e;

        scratch_begin();
        write_file("t/a.eml", STR("Subject: a\n\n"));
        write_file("t/c\nd.eml", STR("Subject: c\n\n"));
        snprintf(a.sun_path, sizeof a.sun_path, "%.90s", at("t/b.eml"));
        CHECK(bind(s, (struct sockaddr *)&a, sizeof a) == 0);
        close(s);
        CHECK(mkfifo(at("t/fifo.eml"), 0600) == 0);
        CHECK(symlink(".", at("t/loop")) == 0 && symlink("a.eml", at("t/z.eml")) == 0);
        get(&g, open_source("t", &e));
        CHECK(g.ok && g.n == 2 && !g.finished && warnings == 4 && g.skipped == 4);
        CHECK(g.finish_e.code == ERR_IO && strstr(g.finish_e.text, "4 entries could not be read"));
        CHECK_STR(subject_of(&g, 1), "c");
        got_free(&g);
}

TEST(B06_unreadable)
{
        struct got g;
        struct err e;
        struct source *s;

        scratch_begin();
        write_file("t/a.eml", STR("Subject: a\n\n"));
        write_file("t/b.eml", STR("Subject: b\n\n"));
        write_file("t/c.eml", STR("Subject: c\n\n"));
        s = open_source("t", &e);
        NEED(s);
        CHECK(unlink(at("t/b.eml")) == 0); /* gone between listing and reading; permissions do not hold root back */
        get(&g, s);
        CHECK(g.ok && g.n == 2 && !g.finished && warnings == 1 && strstr(warned, "b.eml is left out"));
        CHECK_STR(subject_of(&g, 1), "c");
        got_free(&g);
}

TEST(folders_nest_too_deep)
{
        char path[600] = "t";
        struct got g;
        struct err e;

        scratch_begin();
        for (int i = 0; i < 70; i++)
                strcat(path, "/d");
        strcat(path, "/x.eml");
        write_file(path, STR("Subject: deep\n\n"));
        write_file("t/e.eml", STR("Subject: e\n\n"));
        get(&g, open_source("t", &e));
        CHECK(g.ok && g.n == 1 && !g.finished && strstr(warned, "too deep"));
        got_free(&g);
}

TEST(every_allocation_fails)
{
        struct err e;

        scratch_begin();
        write_file("t/a.eml", STR("Subject: a\n\n"));
        write_file("t/b/c", STR("From a@x Mon Nov 23 05:41:00 2026\nSubject: 2\n\nb\n"));
        for (size_t n = 1; n < 400; n++) {
                struct message *m = NULL;
                struct source *s;

                mem_fail_at(n);
                s = open_source("t", &e);
                while (s && s->ops->next(s, &m, &e) && m) {
                        message_free(m);
                        m = NULL;
                }
                source_free(s);
                mem_fail_at(0);
        }
}

TEST_MAIN
