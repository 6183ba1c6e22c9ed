#include <dirent.h>
#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "tests/unit/archives.h"

static void put(const char *path, const char *subject)
{
        char text[128];

        snprintf(text, sizeof text, "Subject: %s\r\n\r\n", subject);
        write_file(path, str_of(text));
}

/* Another program that renames while a directory is listed: when the listing comes upon `from`, the file gets its next name, and
 * the listing has neither, as a file system does where the old entry lay ahead of it and the new one comes to lie behind. */
static struct { const char *from[6]; size_t n; bool keep_time; unsigned listed; } meanwhile;

static void rename_it(size_t i)
{
        struct timespec t[2][2] = { 0 };
        const char *dirs[] = { "M/new", "M/cur" };
        struct stat st;

        for (int d = 0; d < 2; d++) {
                CHECK(stat(at(dirs[d]), &st) == 0);
                t[d][0] = st.st_atim, t[d][1] = st.st_mtim;
        }
        CHECK(rename(at(meanwhile.from[i]), at(meanwhile.from[i + 1])) == 0);
        for (int d = 0; meanwhile.keep_time && d < 2; d++) /* a clock that has not ticked */
                CHECK(utimensat(AT_FDCWD, at(dirs[d]), t[d], 0) == 0);
}

struct dirent *readdir(DIR *d)
{
        static struct dirent *(*next)(DIR *);
        struct dirent *entry;

        if (!next)
                *(void **)&next = dlsym(RTLD_NEXT, "readdir64");
        while ((entry = next(d))) {
                const char *from = meanwhile.n ? meanwhile.from[0] : NULL;

                meanwhile.listed += !strcmp(entry->d_name, ".");
                if (!from || strcmp(strrchr(from, '/') + 1, entry->d_name))
                        return entry;
                rename_it(0);
                memmove(meanwhile.from, meanwhile.from + 1, sizeof meanwhile.from - sizeof *meanwhile.from);
                meanwhile.n--;
        }
        return NULL;
}

/* Opened before, since that lists the folder, too. seconds: how long ago its directories changed last. */
static void get_while_renamed(struct got *g, int seconds, const char *const *from, size_t n, bool keep_time)
{
        struct timespec t[2] = { { .tv_sec = time(NULL) - seconds }, { .tv_sec = time(NULL) - seconds } };
        struct source *s;
        struct err e;

        put("M/new/1", "1");
        put("M/cur/3:2,", "3");
        put(from[0], "2");
        s = open_source("M", &e);
        CHECK(utimensat(AT_FDCWD, at("M/new"), t, 0) == 0 && utimensat(AT_FDCWD, at("M/cur"), t, 0) == 0);
        memset(&meanwhile, 0, sizeof meanwhile);
        memcpy(meanwhile.from, from, n * sizeof *from);
        meanwhile.n = n - 1;
        meanwhile.keep_time = keep_time;
        get(g, s);
        CHECK(meanwhile.n == 0);
}

TEST(B06_renamed_while_listed)
{
        static const struct { int seconds; bool keep_time; unsigned listed; const char *names[6]; size_t n; } cases[] = {
                { 60, false, 2, { "M/cur/2:2,S" }, 1 },                               /* nothing happens */
                { 60, false, 8, { "M/cur/2:2,S", "M/cur/2:2,RS" }, 2 },               /* its flags change */
                { 60, false, 8, { "M/new/2", "M/cur/2:2," }, 2 },                     /* it is looked at, */
                { 60, false, 8, { "M/new/2", "M/cur/2:2,", "M/cur/2:2,S" }, 3 },      /* and read at once */
                { 60, false, 8, { "M/cur/2:2,S", "M/new/2" }, 2 },                    /* and is new again */
                { 60, false, 8, { "M/new/2", "M/new/2:2,F" }, 2 },
                { 60, false, 8, { "M/cur/2:2,", "M/cur/2:2,S", "M/cur/2:2,RS", "M/cur/2:2,FRS" }, 4 },
                { 60, false, 8, { "M/cur/2:2,", "M/cur/2:2,S", "M/cur/2:2," }, 3 },   /* back to what it was */
                { 0, true, 8, { "M/cur/2:2,S", "M/cur/2:2,RS" }, 2 },
                { -3600, true, 8, { "M/new/2", "M/cur/2:2,", "M/cur/2:2,S" }, 3 },    /* its clock goes ahead of ours */
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                struct got g;

                scratch_begin();
                get_while_renamed(&g, cases[i].seconds, cases[i].names, cases[i].n, cases[i].keep_time);
                CHECK(g.ok && g.finished && g.n == 3 && warnings == 0);
                for (size_t k = 0; k < g.n; k++)
                        CHECK_STR(subject_of(&g, k), ((const char *const[]){ "1", "2", "3" })[k]);
                if (g.n == 3)
                        CHECK_STR(message_origin(g.m[1])->uid, cases[i].names[cases[i].n - 1] + 2);
                CHECK(meanwhile.listed <= cases[i].listed);
                got_free(&g);
        }
}

TEST(order_flags_and_names)
{
        static const struct { const char *file, *uid, *flags; } rows[] = {
                { "cur/100.a:2,S", "cur/100.a:2,S", "S" },
                { "new/101.b", "new/101.b", "" },
                { "cur/102.c,S=5:2,TSRSab", "cur/102.c,S=5:2,TSRSab", "RST" },
                { "cur/103.d;2,F", "cur/103.d;2,F", "F" },
                { "new/104.e!2,DP", "new/104.e!2,DP", "DP" },
                { "cur/105.f:1,S", "cur/105.f:1,S", "" },
                { "cur/106.g:2,", "cur/106.g:2,", "" },
        };
        size_t count = sizeof rows / sizeof *rows;
        struct got g;
        struct err e;

        scratch_begin();
        for (size_t i = count; i-- > 0;) {
                char path[64];

                snprintf(path, sizeof path, "M/%s", rows[i].file);
                put(path, rows[i].file);
        }
        put("M/cur/.hidden", "no");
        put("M/tmp/99.z", "no");
        put("M/dovecot.index", "no");
        get(&g, open_source("M", &e));
        CHECK(g.ok && g.finished && g.n == count && warnings == 0 && g.total_messages == count && g.done_messages == count);
        for (size_t i = 0; i < g.n; i++) {
                const struct origin *o = message_origin(g.m[i]);
                char path[64];

                CHECK_STR(subject_of(&g, i), rows[i].file);
                CHECK_STR(o->uid, rows[i].uid);
                CHECK_STR(o->flags, rows[i].flags);
                CHECK_STR(o->folder, "");
                snprintf(path, sizeof path, "M/%s", rows[i].file);
                CHECK_STR(o->source, at(path));
                CHECK(o->number == i + 1 && o->time > 1700000000 && !o->account.p);
        }
        got_free(&g);
}

TEST(folders)
{
        static const char *const rows[][2] = { /* file, folder */
                { "M/new/1", "" },
                { "M/.Archive/cur/5:2,", "Archive" },
                { "M/.Archive.2024/cur/2:2,", "Archive/2024" },
                { "M/Archive/2025/new/3", "Archive/2025" },
                { "M/.B..c./new/4", "B/c" },
                { "M/Work/.Sub.x/cur/0:2,", "Work/Sub/x" },
        };
        struct got g;
        struct err e;

        scratch_begin();
        for (size_t i = sizeof rows / sizeof *rows; i-- > 0;)
                put(rows[i][0], rows[i][1]);
        mkdir(at("M/Archive/cur"), 0700); /* empty, and no new */
        mkdir(at("M/.other"), 0700);
        get(&g, open_source("M", &e));
        CHECK(g.ok && g.finished && g.n == 6 && warnings == 0 && g.total_messages == 6);
        for (size_t i = 0; i < g.n; i++) {
                CHECK_STR(subject_of(&g, i), rows[i][1]);
                CHECK_STR(message_origin(g.m[i])->folder, rows[i][1]);
                CHECK_STR(message_origin(g.m[i])->uid, rows[i][0] + 2);
        }
        got_free(&g);
}

/* mailmill's own shape: the root is no folder itself. */
TEST(root_without_a_maildir)
{
        struct got g;
        struct err e;

        scratch_begin();
        put("R/Inbox/new/1", "i");
        put("R/Archive/Billing/cur/1:2,S", "b");
        get(&g, open_source("R", &e));
        CHECK(g.ok && g.n == 2);
        NEED(g.n == 2);
        CHECK_STR(message_origin(g.m[0])->folder, "Archive/Billing");
        CHECK_STR(message_origin(g.m[1])->folder, "Inbox");
        got_free(&g);
}

TEST(no_maildir_at_all)
{
        struct err e;
        int fd;

        scratch_begin();
        put("E/1.eml", "x");
        fd = open(at("E"), O_RDONLY | O_DIRECTORY);
        CHECK(!maildir_open(fd, STR("E"), &limits_default, scratch, &e));
        CHECK(e.code == ERR_ABSENT && strstr(e.text, "E: no Maildir in it"));
}

/* A mail program wrote the file: a byte order mark in it belongs to the message, as in an mbox. */
TEST(B04_byte_order_mark_stays)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("M/cur/1:2,S", STR("\xef\xbb\xbfSubject: 1\r\n\r\nb\n"));
        get(&g, open_source("M", &e));
        CHECK(g.ok && g.n == 1);
        CHECK_STR(text_of(&g, 0), "\xef\xbb\xbfSubject: 1\n\nb\n");
        got_free(&g);
}

/* Apple Mail's length before a message stands in no Maildir. */
TEST(T17_number_in_front_stays)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("M/cur/1:2,", STR("13\nSubject: 1\n\nb<?xml ?><plist/>\n"));
        get(&g, open_source("M", &e));
        CHECK(g.ok && g.finished && g.n == 1);
        CHECK_STR(text_of(&g, 0), "13\nSubject: 1\n\nb<?xml ?><plist/>\n");
        got_free(&g);
}

TEST(B06_what_is_no_file)
{
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        struct got g;
        struct err e;

        scratch_begin();
        put("M/cur/1:2,S", "first");
        put("M/new/3\n4", "newline");
        put("M/new/5", "last");
        snprintf(a.sun_path, sizeof a.sun_path, "%.90s", at("M/new/2"));
        CHECK(bind(s, (struct sockaddr *)&a, sizeof a) == 0);
        close(s);
        CHECK(mkdir(at("M/cur/4"), 0700) == 0 && mkfifo(at("M/cur/fifo"), 0600) == 0);
        CHECK(symlink("1:2,S", at("M/cur/0:2,S")) == 0);
        CHECK(symlink("..", at("M/loop")) == 0 && symlink(".", at("M/.Loop")) == 0); /* folders that are links: not followed */
        CHECK(symlink("nowhere", at("M/dangling")) == 0);
        get(&g, open_source("M", &e));
        CHECK(g.ok && g.n == 3 && !g.finished && g.skipped == 6 && warnings == 6);
        CHECK(strstr(g.finish_e.text, "6 entries"));
        CHECK_STR(subject_of(&g, 0), "first");
        CHECK_STR(subject_of(&g, 1), "newline");
        CHECK_STR(subject_of(&g, 2), "last");
        got_free(&g);
}

TEST(B06_many_files)
{
        struct message *m = NULL;
        struct source *s;
        struct err e;
        size_t n = 0;

        scratch_begin();
        put("M/new/0", "0");
        for (int i = 0; i < 20000; i++) {
                char path[64];
                int fd;

                snprintf(path, sizeof path, "M/new/1%08d.x", (i * 7919) % 20000);
                fd = open(at(path), O_WRONLY | O_CREAT, 0600);
                NEED(fd >= 0);
                close(fd);
        }
        s = open_source("M", &e);
        NEED(s);
        CHECK(s->total_messages == 20001);
        while (s->ops->next(s, &m, &e) && m) {
                char uid[64];

                snprintf(uid, sizeof uid, "new/1%08zu.x", n - 1);
                CHECK_STR(message_origin(m)->uid, n ? uid : "new/0");
                message_free(m);
                n++;
        }
        CHECK(n == 20001 && s->ops->finish(s, &e));
        source_free(s);
}

TEST(folders_nest_too_deep)
{
        char path[600] = "M";
        struct got g;
        struct err e;

        scratch_begin();
        put("M/new/1", "top");
        for (int i = 0; i < 40; i++)
                strcat(path, "/d");
        strcat(path, "/new/1");
        put(path, "deep");
        get(&g, open_source("M", &e));
        CHECK(g.ok && g.n == 1 && !g.finished && strstr(warned, "too deep"));
        got_free(&g);
}

TEST(renamed_and_deleted_while_reading)
{
        struct message *m = NULL;
        struct source *s;
        struct got g;
        struct err e;

        scratch_begin();
        for (int i = 1; i <= 5; i++) {
                char path[32];

                snprintf(path, sizeof path, "M/new/%d", i);
                put(path, path + 6);
        }
        put("M/.Z/new/1", "z");
        s = open_source("M", &e);
        NEED(s && s->ops->next(s, &m, &e) && m);
        message_free(m);
        mkdir(at("M/cur"), 0700);
        CHECK(rename(at("M/new/2"), at("M/cur/2:2,FS")) == 0 && rename(at("M/new/4"), at("M/cur/4:2,S")) == 0);
        CHECK(rename(at("M/new/1"), at("M/cur/1:2,S")) == 0); /* had its turn */
        CHECK(unlink(at("M/new/5")) == 0);
        get(&g, s);
        CHECK(g.ok && g.finished && g.n == 4 && warnings == 0);
        CHECK_STR(subject_of(&g, 0), "3");
        CHECK_STR(subject_of(&g, 1), "2");
        CHECK_STR(subject_of(&g, 2), "4");
        CHECK_STR(subject_of(&g, 3), "z");
        NEED(g.n == 4);
        CHECK_STR(message_origin(g.m[1])->uid, "cur/2:2,FS");
        CHECK_STR(message_origin(g.m[1])->flags, "FS");
        got_free(&g);
}

/* Another program renames while the folder is being listed, so that a message is in the list under both names. */
TEST(B06_listed_under_two_names_is_read_once)
{
        struct message *m = NULL;
        struct source *s;
        struct got g;
        struct err e;

        scratch_begin();
        put("M/cur/1:2,", "1");
        put("M/new/2", "2");      /* to cur, after new was listed */
        put("M/cur/2:2,S", "2");
        put("M/new/2.5", "2.5");
        put("M/cur/3:2,RS", "3"); /* lost a flag: the old name comes first in the list, */
        put("M/cur/3:2,S", "3");
        put("M/cur/4:2,RS", "4"); /* won one: the new name does */
        put("M/cur/4:2,S", "4");
        put("M/new/5", "5");
        s = open_source("M", &e);
        NEED(s && s->ops->next(s, &m, &e) && m);
        message_free(m);
        CHECK(unlink(at("M/new/2")) == 0 && unlink(at("M/cur/3:2,RS")) == 0 && unlink(at("M/cur/4:2,S")) == 0);
        CHECK(rename(at("M/new/2.5"), at("M/cur/2.5:2,")) == 0 && rename(at("M/new/5"), at("M/cur/5:2,S")) == 0);
        get(&g, s);
        CHECK(g.ok && g.finished && g.n == 5 && warnings == 0);
        NEED(g.n == 5);
        for (size_t i = 0; i < 5; i++)
                CHECK_STR(subject_of(&g, i), ((const char *const[]){ "2", "3", "4", "2.5", "5" })[i]);
        got_free(&g);
}

/* Its flags change, and change again, between its names' turns: the second name opens, too. */
TEST(B06_renamed_back_while_read)
{
        struct message *m = NULL;
        struct source *s;
        struct got g;
        struct err e;

        scratch_begin();
        put("M/cur/1:2,", "1");
        put("M/cur/1:2,S", "another of that name");
        put("M/cur/2:2,", "2");
        put("M/cur/2:2,S", "gone again");
        s = open_source("M", &e);
        for (int i = 0; i < 3; i++) {
                NEED(s && s->ops->next(s, &m, &e) && m);
                message_free(m);
        }
        CHECK(rename(at("M/cur/2:2,"), at("M/cur/2:2,S")) == 0);
        get(&g, s);
        CHECK(g.ok && g.finished && g.n == 0 && warnings == 0);
        got_free(&g);
}

TEST(every_allocation_fails)
{
        struct err e;

        scratch_begin();
        put("M/new/1", "1");
        put("M/.A.b/cur/1:2,S", "1");
        for (size_t n = 1; n < 400; n++) {
                struct message *m = NULL;
                struct source *s;

                mem_fail_at(n);
                s = open_source("M", &e);
                while (s && s->ops->next(s, &m, &e) && m) {
                        message_free(m);
                        m = NULL;
                }
                source_free(s);
                mem_fail_at(0);
        }
}

TEST_MAIN
