/* Compressed and packed archives. They are made here with libarchive's writer. */
#include <archive.h>
#include <archive_entry.h>

#include "core/unbundle.h"
#include "tests/unit/archives.h"

#define DATE " Mon Nov 23 05:41:00 2026\n"

static const char box[] = "From a@x" DATE "Subject: 1\nStatus: R\n\nb\n>From q\n\nFrom b@x" DATE "Subject: 2\n\nc\n";

struct member { const char *name; struct str text; int type; const char *linked; };
#define FILE_MEMBER(name, text) { (name), { (text), sizeof(text) - 1 }, AE_IFREG, NULL }

static const char *const filters[] = { "gzip", "xz", "zstd", "bzip2" };
static const char *const formats[] = { "zip", "ustar", "gnutar", "pax" };

static struct archive *writer(const char *filter, const char *format, const char *path)
{
        struct archive *w = archive_write_new();

        if ((filter && archive_write_add_filter_by_name(w, filter) != ARCHIVE_OK) ||
            (strcmp(format, "zip") == 0 ? archive_write_set_format_zip(w) : archive_write_set_format_by_name(w, format)) != ARCHIVE_OK ||
            archive_write_open_filename(w, at(path)) != ARCHIVE_OK)
                abort();
        return w;
}

static void put(struct archive *w, const struct member *m)
{
        struct archive_entry *e = archive_entry_new();

        archive_entry_set_pathname(e, m->name);
        archive_entry_set_filetype(e, (unsigned)m->type);
        archive_entry_set_perm(e, 0600);
        archive_entry_set_mtime(e, 1795412460, 0);
        if (m->linked)
                archive_entry_set_hardlink(e, m->linked);
        if (m->type == AE_IFLNK)
                archive_entry_set_symlink(e, "/etc/passwd");
        archive_entry_set_size(e, (la_int64_t)m->text.n);
        if (archive_write_header(w, e) < ARCHIVE_WARN || (m->text.n && archive_write_data(w, m->text.p, m->text.n) < 0))
                abort();
        archive_entry_free(e);
}

static void pack(const char *path, const char *filter, const char *format, const struct member *m, size_t n)
{
        struct archive *w = writer(filter, format, path);

        for (size_t i = 0; i < n; i++)
                put(w, &m[i]);
        if (archive_write_close(w) != ARCHIVE_OK)
                abort();
        archive_write_free(w);
}
#define PACK(path, filter, format, members) pack((path), (filter), (format), (members), sizeof (members) / sizeof *(members))

static void compress(const char *path, const char *filter, struct str text)
{
        const struct member m = { "data", text, AE_IFREG, NULL };

        pack(path, filter, "raw", &m, 1);
}

static struct buf content_of(const char *path)
{
        struct buf b = BUF_INIT;
        FILE *f = fopen(at(path), "rb");
        char block[4096];
        size_t n;

        if (!f)
                abort();
        while ((n = fread(block, 1, sizeof block, f)) > 0)
                buf_add(&b, block, n);
        fclose(f);
        return b;
}

/* The same bytes through a pipe, which cannot be sought in. */
static void get_piped(struct got *g, const char *path)
{
        struct buf b = content_of(path);
        int saved = dup(0), fd = pipe_with(buf_str(&b));
        struct err e;

        dup2(fd, 0);
        close(fd);
        get(g, source_open(STR("-"), &limits_default, scratch, &e));
        dup2(saved, 0);
        close(saved);
        buf_free(&b);
}

static void check_box(const struct got *g, const char *what)
{
        if (!g->ok || g->n != 2)
                printf("%s: %zu messages, %s\n", what, g->n, g->ok ? "" : g->e.text);
        CHECK(g->ok && g->finished && g->n == 2 && g->done_messages == 2);
        CHECK_STR(text_of(g, 0), "Subject: 1\nStatus: R\n\nb\nFrom q\n");
        CHECK_STR(text_of(g, 1), "Subject: 2\n\nc\n");
}

TEST(one_mbox_in_every_filter)
{
        struct got g;
        struct err e;

        for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
                scratch_begin();
                compress("holiday.jpg", filters[i], str_of(box)); /* by content, not by name */
                get(&g, open_source("holiday.jpg", &e));
                check_box(&g, filters[i]);
                NEED(g.n == 2);
                CHECK_STR(message_origin(g.m[0])->source, at("holiday.jpg"));
                CHECK_STR(message_origin(g.m[0])->flags, "S");
                CHECK_STR(message_origin(g.m[1])->uid, "67");
                CHECK(message_origin(g.m[1])->number == 2 && g.total_bytes > 0 && g.done_bytes == g.total_bytes);
                got_free(&g);
                get_piped(&g, "holiday.jpg");
                check_box(&g, filters[i]);
                got_free(&g);
        }
}

TEST(one_message_and_nothing)
{
        struct got g;
        struct err e;

        scratch_begin();
        compress("m", "gzip", STR("Subject: one\r\n\r\nFrom here\r\n"));
        get(&g, open_source("m", &e));
        CHECK(g.ok && g.n == 1);
        CHECK_STR(text_of(&g, 0), "Subject: one\n\nFrom here\n");
        got_free(&g);
        for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
                compress("empty", filters[i], STR(""));
                get(&g, open_source("empty", &e));
                CHECK(g.ok && g.finished && g.n == 0);
        }
}

static const struct member export[] = {
        { "2024/", { "", 0 }, AE_IFDIR, NULL },
        FILE_MEMBER("2024/inbox.mbox", "From a@x" DATE "Subject: 1\n\nb\n\nFrom b@x" DATE "Subject: 2\n\nc\n"),
        FILE_MEMBER("2024/notes.txt", "nothing to see\n"),
        FILE_MEMBER("2024/empty", ""),
        FILE_MEMBER("2024/.hidden", "Subject: no\n\n"),
        FILE_MEMBER("2024/a.eml", "Subject: 3\r\n\r\nd\r\n"),
        FILE_MEMBER("b.eml", "From a@x" DATE "Subject: 4\n\ne\n"),
        FILE_MEMBER("c", "Received: x\nSubject: 5\n\n"),
};

TEST(members_in_every_format)
{
        struct got g;
        struct err e;

        for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
                for (size_t k = 0; k <= sizeof filters / sizeof *filters; k++)
                        for (int piped = 0; piped < 2; piped++) {
                                char want[200];

                                scratch_begin();
                                PACK("export", k ? filters[k - 1] : NULL, formats[i], export);
                                if (piped)
                                        get_piped(&g, "export");
                                else
                                        get(&g, open_source("export", &e));
                                if (!g.ok || g.n != 5)
                                        printf("%s %s: %zu, %s\n", formats[i], k ? filters[k - 1] : "", g.n, g.ok ? "" : g.e.text);
                                CHECK(g.ok && g.finished && g.n == 5 && g.skipped == 2);
                                for (size_t n = 0; n < g.n; n++) {
                                        CHECK(*subject_of(&g, n).p == (char)('1' + n));
                                        CHECK(message_origin(g.m[n])->number == n + 1);
                                }
                                NEED(g.n == 5);
                                snprintf(want, sizeof want, "%s: 2024/inbox.mbox", piped ? "standard input" : at("export"));
                                CHECK_STR(message_origin(g.m[1])->source, want);
                                CHECK_STR(message_origin(g.m[1])->uid, "2024/inbox.mbox:49");
                                CHECK_STR(message_origin(g.m[2])->uid, "2024/a.eml");
                                CHECK(message_origin(g.m[2])->time == 1795412460);
                                CHECK(g.done_bytes > 0 && (piped ? g.total_bytes == 0 : g.done_bytes <= g.total_bytes));
                                got_free(&g);
                        }
}

TEST(maildir_in_a_tar)
{
        static const struct member maildir[] = {
                { "Maildir/", { "", 0 }, AE_IFDIR, NULL }, { "Maildir/cur/", { "", 0 }, AE_IFDIR, NULL },
                FILE_MEMBER("Maildir/cur/1:2,FS", "no header at all"), FILE_MEMBER("Maildir/new/2", "Subject: 2\n\n"),
                FILE_MEMBER("Maildir/.Archive.2024/cur/3:2,RS", "Subject: 3\n\n"), FILE_MEMBER("Maildir/Plain/cur/4:2,", "Subject: 4\n\n"),
                FILE_MEMBER("Maildir/dovecot-uidlist", "3 V1\n"),
        };
        struct got g;
        struct err e;

        scratch_begin();
        PACK("m", "zstd", "pax", maildir);
        get(&g, open_source("m", &e));
        CHECK(g.ok && g.n == 4 && g.skipped == 1);
        NEED(g.n == 4);
        CHECK_STR(message_origin(g.m[0])->flags, "FS");
        CHECK_STR(message_origin(g.m[0])->folder, "");
        CHECK_STR(message_origin(g.m[2])->folder, "Archive/2024");
        CHECK_STR(message_origin(g.m[2])->flags, "RS");
        CHECK_STR(message_origin(g.m[3])->folder, "Plain");
        got_free(&g);
}

/* As Dovecot's zlib plugin keeps them; in the Maildir itself, and packed. */
TEST(compressed_messages_of_a_maildir)
{
        struct got g;
        struct err e;
        struct buf z[4];
        struct member packed[4];
        char name[4][80];

        scratch_begin();
        write_file("M/cur/9", STR("Subject: plain\n\n"));
        for (size_t i = 0; i < 4; i++) {
                snprintf(name[i], sizeof name[i], "M/cur/%zu.M1P2.host,S=20,W=22:2,%s", i, i ? "S" : "FS");
                compress("z", filters[i], STR("Subject: packed\r\n\r\nb\r\n"));
                z[i] = content_of("z");
                write_file(name[i], buf_str(&z[i]));
                packed[i] = (struct member){ name[i], buf_str(&z[i]), AE_IFREG, NULL };
        }
        write_file("M/cur/8", str_first(buf_str(&z[0]), z[0].n / 2)); /* cut off: left out, by name */
        get(&g, open_source("M", &e));
        CHECK(g.ok && !g.finished && g.n == 5 && g.skipped == 1 && warnings == 1 && strstr(warned, "M: cur/8 is left out: "));
        for (size_t i = 0; i < 4; i++)
                CHECK_STR(text_of(&g, i), "Subject: packed\n\nb\n");
        CHECK_STR(text_of(&g, 4), "Subject: plain\n\n");
        NEED(g.n == 5);
        CHECK_STR(message_origin(g.m[0])->flags, "FS");
        got_free(&g);
        PACK("m.tar", NULL, "pax", packed);
        get(&g, open_source("m.tar", &e));
        CHECK(g.ok && g.finished && g.n == 4);
        for (size_t i = 0; i < 4; i++) {
                CHECK_STR(text_of(&g, i), "Subject: packed\n\nb\n");
                buf_free(&z[i]);
        }
        got_free(&g);
}

/* The sequences stand behind the messages that they speak of; from a stream they come too late. */
TEST(mh_in_an_archive)
{
        static const struct member mh[] = {
                FILE_MEMBER("./mh/inbox/1", "Subject: 1\n\n"), FILE_MEMBER("./mh/inbox/2", "no header, but MH says it is one"),
                FILE_MEMBER("./mh/inbox/.mh_sequences", "unseen: 2\nflagged: 1\n"), FILE_MEMBER("./mh/inbox/sub/7", "Subject: 7\n\n"),
                FILE_MEMBER("./mh/inbox/,3", "deleted"),
        };
        struct got g;
        struct err e;

        for (size_t i = 0; i < 3; i++) {
                scratch_begin();
                PACK("m", i == 1 ? "gzip" : NULL, i == 2 ? "zip" : "pax", mh);
                get(&g, open_source("m", &e));
                CHECK(g.ok && g.finished && g.n == 3 && g.skipped == 1);
                NEED(g.n == 3);
                CHECK_STR(message_origin(g.m[0])->folder, "inbox");
                CHECK_STR(message_origin(g.m[0])->flags, "FS");
                CHECK_STR(message_origin(g.m[1])->flags, "");
                CHECK_STR(message_origin(g.m[2])->folder, "inbox/sub");
                CHECK_STR(message_origin(g.m[2])->flags, "");
                got_free(&g);
        }
        get_piped(&g, "m");
        CHECK(g.ok && g.n >= 2);
        CHECK_STR(message_origin(g.m[0])->flags, "");
        got_free(&g);
}

TEST(archives_in_archives)
{
        struct member inner[2], outer[1];
        struct buf z, t, deep;
        struct got g;
        struct err e;

        scratch_begin();
        compress("z", "xz", str_of(box));
        z = content_of("z");
        inner[0] = (struct member){ "2024/box.xz", buf_str(&z), AE_IFREG, NULL };
        inner[1] = (struct member){ "a.eml", str_of("Subject: 3\n\n"), AE_IFREG, NULL };
        PACK("t", "gzip", "pax", inner);
        t = content_of("t");
        outer[0] = (struct member){ "all.tgz", buf_str(&t), AE_IFREG, NULL };
        PACK("zip", NULL, "zip", outer);
        get(&g, open_source("zip", &e));
        CHECK(g.ok && g.finished && g.n == 3 && g.done_messages == 3);
        NEED(g.n == 3);
        CHECK_STR(text_of(&g, 1), "Subject: 2\n\nc\n");
        CHECK_STR(message_origin(g.m[1])->uid, "all.tgz:2024/box.xz:67");
        CHECK(g.m[2] && message_origin(g.m[2])->number == 3);
        got_free(&g);
        deep = content_of("zip");
        outer[0].text = buf_str(&deep);
        outer[0].name = "deeper.zip";
        PACK("zip2", NULL, "zip", outer);
        get(&g, open_source("zip2", &e));
        CHECK(g.ok && !g.finished && g.n == 1 && strstr(warned, "nest too deep")); /* a.eml is near enough */
        got_free(&g);
        buf_free(&z);
        buf_free(&t);
        buf_free(&deep);
}

TEST(within_a_folder)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("dir/1.eml", STR("Subject: 0\n\n"));
        compress("dir/2.gz", "gzip", str_of(box));
        PACK("dir/3.zip", NULL, "zip", export);
        write_file("dir/4.eml", STR("PK\3\4 is what it says")); /* B07: a message, whatever is in it */
        get(&g, open_source("dir", &e));
        CHECK(g.ok && g.finished && g.n == 9);
        NEED(g.n == 9);
        CHECK_STR(message_origin(g.m[4])->uid, "3.zip:2024/inbox.mbox:49");
        for (size_t i = 0; i < g.n; i++)
                CHECK(message_origin(g.m[i])->number == i + 1);
        got_free(&g);
        get(&g, open_source("dir/4.eml", &e));
        CHECK(g.ok && g.n == 1);
        got_free(&g);
}

/* Larger than memory_message: into a file of its own. */
TEST(large_messages)
{
        struct buf b = BUF_INIT;
        struct got g;
        struct err e;

        scratch_begin();
        buf_add_str(&b, STR("From a@x" DATE "Subject: 1\n\n"));
        for (int i = 0; i < 40000; i++)
                buf_printf(&b, "%080d\n", i * 7919);
        buf_add_str(&b, STR("\nFrom b@x" DATE "Subject: 2\n\n"));
        compress("m.gz", "gzip", buf_str(&b));
        get(&g, open_source("m.gz", &e));
        CHECK(g.ok && g.n == 2 && g.in_file[0] && !g.in_file[1]);
        CHECK(text_of(&g, 0).n == 12 + 40000 * 81);
        CHECK(str_ends(text_of(&g, 0), str_first(str_from(buf_str(&b), 46 - 12 + 12 + 39999 * 81), 81)));
        got_free(&g);
        buf_free(&b);
}

/* Cut anywhere: never a crash, the messages before stand, and the run knows. */
TEST(cut_at_every_byte)
{
        for (size_t i = 0; i < 4 + 2; i++) {
                const char *filter = i < 4 ? filters[i] : NULL;
                struct buf b;
                struct got g;
                struct err e;

                scratch_begin();
                if (filter)
                        compress("m", filter, str_of(box));
                else
                        PACK("m", NULL, i == 4 ? "zip" : "ustar", export);
                b = content_of("m");
                for (size_t n = 0; n < b.n; n += i == 5 && n > 600 ? 101 : 1) {
                        write_file("cut", str_make(b.p, n));
                        e.code = ERR_NONE;
                        get(&g, open_source("cut", &e));
                        if (filter && n > 16 && g.ok && g.finished)
                                printf("%s cut at %zu of %zu looks whole\n", filter, n, b.n), CHECK(false);
                        got_free(&g);
                }
                buf_free(&b);
        }
}

TEST(damaged)
{
        struct got g;
        struct err e;
        struct buf b;

        for (size_t i = 0; i < 6; i++) {
                const char *filter = i < 4 ? filters[i] : NULL;

                scratch_begin();
                if (filter)
                        compress("m", filter, str_of(box));
                else
                        PACK("m", NULL, i == 4 ? "zip" : "ustar", export);
                b = content_of("m");
                for (size_t n = 0; n < b.n && n < 1500; n++) {
                        b.p[n] ^= 0x55;
                        write_file("bad", buf_str(&b));
                        get(&g, open_source("bad", &e));
                        got_free(&g);
                        b.p[n] ^= 0x55;
                }
                buf_free(&b);
        }
}

TEST(what_is_left_out)
{
        static const struct member odd[] = {
                { "link.eml", { "", 0 }, AE_IFLNK, NULL }, FILE_MEMBER("../../up.eml", "Subject: up\n\n"), FILE_MEMBER("/abs.eml", "Subject: abs\n\n"),
                FILE_MEMBER("a\nb.eml", "Subject: lf\n\n"), FILE_MEMBER("inner.zip", "PK\3\4 and so on"),
                FILE_MEMBER("gr\xc3\xbc\xc3\x9f.eml", "Subject: utf8\n\n"),
        };
        struct got g;
        struct err e;
        char want[200];

        for (int zip = 0; zip < 2; zip++) {
                scratch_begin();
                PACK("odd", NULL, zip ? "zip" : "gnutar", odd);
                get(&g, open_source("odd", &e));
                CHECK(g.ok && !g.finished && g.n == 4 && g.skipped == 2); /* names are only names: nothing is written under them */
                CHECK(strstr(g.finish_e.text, "2 entries") && warnings == 2); /* the link, and what is no zip after all */
                NEED(g.n == 4);
                CHECK_STR(message_origin(g.m[0])->uid, "../../up.eml");
                snprintf(want, sizeof want, "%s: gr\xc3\xbc\xc3\x9f.eml", at("odd"));
                CHECK_STR(message_origin(g.m[3])->source, want);
                got_free(&g);
        }
}

/* Dovecot copies a message as a hard link, and tar stores its bytes once: under the first name. */
TEST(hard_links_are_named_with_what_they_link_to)
{
        static const struct member copied[] = {
                FILE_MEMBER("M/cur/1:2,S", "Subject: one\n\n"), FILE_MEMBER("M/cur/2:2,", "Subject: two\n\n"),
                { "M/.Copies/cur/3:2,", { "", 0 }, AE_IFREG, "M/cur/1:2,S" },
        };
        struct got g;
        struct err e;

        for (size_t i = 1; i < sizeof formats / sizeof *formats; i++) /* a zip knows none */ {
                scratch_begin();
                PACK("box", i > 1 ? "gzip" : NULL, formats[i], copied);
                get(&g, open_source("box", &e));
                CHECK(g.ok && !g.finished && g.n == 2 && g.skipped == 1 && warnings == 1);
                CHECK(strstr(warned, "M/.Copies/cur/3:2, is left out: a hard link to M/cur/1:2,S, and a tar has no bytes of its own for one"));
                CHECK(strstr(warned, "unpack the tar"));
                got_free(&g);
        }
}

/* M20: what expands without end stops with a sentence. */
TEST(M20_bomb)
{
        struct archive *w;
        struct archive_entry *entry = archive_entry_new();
        struct got g;
        struct err e;
        static char zeros[1 << 20];

        scratch_begin();
        w = writer("gzip", "raw", "bomb");
        archive_entry_set_pathname(entry, "x");
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_write_header(w, entry);
        memset(zeros, 'x', sizeof zeros);
        for (int i = 0; i < UNBUNDLE_FREE_MIB + 16; i++)
                archive_write_data(w, zeros, sizeof zeros);
        archive_write_close(w);
        archive_write_free(w);
        archive_entry_free(entry);
        get(&g, open_source("bomb", &e));
        CHECK(!g.ok && g.n == 0 && g.e.code == ERR_LIMIT && strstr(g.e.text, "it expands to more than 100 times"));
        got_free(&g);
}

TEST(M20_compressed_twice)
{
        struct got g;
        struct err e;
        struct buf b;

        scratch_begin();
        compress("1", "gzip", str_of(box));
        b = content_of("1");
        compress("2", "xz", buf_str(&b));
        get(&g, open_source("2", &e));
        CHECK(!g.ok && g.e.code == ERR_LIMIT && strstr(g.e.text, "more than once"));
        buf_free(&b);
}

TEST(encrypted_members_are_named)
{
        static const struct member m = FILE_MEMBER("secret.eml", "Subject: 1\n\n");
        struct archive *w = archive_write_new();
        struct got g;
        struct err e;

        scratch_begin();
        archive_write_set_format_zip(w);
        if (archive_write_set_options(w, "zip:encryption=zipcrypt") != ARCHIVE_OK || archive_write_set_passphrase(w, "x") != ARCHIVE_OK) {
                archive_write_free(w); /* a library without cryptography */
                return;
        }
        NEED(archive_write_open_filename(w, at("z")) == ARCHIVE_OK);
        put(w, &m);
        archive_write_close(w);
        archive_write_free(w);
        get(&g, open_source("z", &e));
        CHECK(g.ok && !g.finished && g.n == 0 && strstr(warned, "secret.eml is left out: it is encrypted"));
}

TEST(stop_and_failures)
{
        struct limits lim = limits_default;
        struct message *m = NULL;
        struct source *s;
        struct got g;
        struct err e;

        scratch_begin();
        PACK("m", "gzip", "pax", export);
        s = open_source("m", &e);
        NEED(s && s->ops->next(s, &m, &e) && m);
        message_free(m);
        atomic_store(&s->stop, true);
        CHECK(s->ops->next(s, &m, &e) && !m);
        source_free(s);
        lim.memory_message = 10;
        get(&g, source_open(str_of(at("m")), &lim, "/nonexistent-dir", &e));
        CHECK(!g.ok && g.e.code == ERR_ABSENT && strstr(g.e.text, "/m: 2024/inbox.mbox: ") && strstr(g.e.text, "/nonexistent-dir"));
        got_free(&g);
        for (size_t n = 1; n < 300; n++) {
                mem_fail_at(n);
                e.code = ERR_NONE;
                s = open_source("m", &e);
                while (s && (m = NULL, s->ops->next(s, &m, &e)) && m)
                        message_free(m);
                source_free(s);
                mem_fail_at(0);
        }
}

TEST(recognised)
{
        CHECK(!unbundle_is(STR("")) && !unbundle_is(STR("PK")) && !unbundle_is(STR("BZh9 is a name\n")) && !unbundle_is(STR("From a@x" DATE)));
        CHECK(unbundle_is(STR("\x1f\x8b\x08\0\0")) && unbundle_is(STR("PK\5\6")) && unbundle_is(STR("\x28\xb5\x2f\xfd")));
}

TEST_MAIN
