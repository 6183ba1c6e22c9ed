/* Archives in messages, where memory or the machine fails, and cut at every byte. What honest and hostile ones look like to a script is in
 * tests/opened. */
#include "core/message.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/sys.h"
#include "core/unpack.h"
#include "tests/unit/test.h"

#define SEEDS "tests/fuzz/seeds/unpack"

static struct message *archive_mail(struct str archive, const struct limits *lim)
{
        static const char header[] = "Content-Type: application/zip; name=a.zip\n\n";
        struct origin o = { .source = STR("test") };
        size_t n = sizeof header - 1 + archive.n;
        char *p = mem_alloc(n);
        struct backing *in;
        struct message *m;
        struct err e;

        if (!p)
                return NULL;
        memcpy(p, header, sizeof header - 1);
        memcpy(p + sizeof header - 1, archive.p, archive.n);
        in = backing_memory(p, n);
        m = in ? message_new((struct range){ in, 0, n }, &o, lim, &e) : NULL;
        backing_unref(in);
        return m;
}

static enum err_code failed_with;

/* Every member read; how many, or none when something failed. */
static size_t read_members(struct message *m, uint64_t *bytes)
{
        struct part **all;
        size_t n = message_unpacked(m, &all);
        uint8_t hash[32];
        struct err e;

        *bytes = 0;
        for (size_t i = 0; i < n; i++) {
                *bytes += part_size(all[i]);
                if (part_readable(all[i], NULL) && !part_sha256(all[i], hash, &e)) {
                        failed_with = e.code;
                        return 0;
                }
        }
        failed_with = message_trouble(m)->code;
        return message_trouble(m)->code == ERR_NONE ? n : 0;
}

/* Calls f for each seed. */
static void each_seed(void (*f)(const char *name, struct str archive))
{
        DIR *d = opendir(SEEDS);
        struct dirent *entry;
        unsigned count = 0;

        NEED(d);
        while ((entry = readdir(d))) {
                char path[300];
                struct err e;
                size_t n = 0;
                char *p;
                int fd;

                if (*entry->d_name == '.')
                        continue;
                snprintf(path, sizeof path, SEEDS "/%.200s", entry->d_name);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                p = fd < 0 ? NULL : sys_read_file(fd, 1 << 20, &n, &e);
                if (fd >= 0)
                        close(fd);
                CHECK(p);
                if (p)
                        f(entry->d_name, str_make(p, n));
                mem_free(p);
                count++;
        }
        closedir(d);
        CHECK(count > 20);
}

static void fail_memory(const char *name, struct str archive)
{
        uint64_t bytes, want_bytes;
        struct message *m = archive_mail(archive, &limits_default);
        size_t want = read_members(m, &want_bytes), n = 0;

        message_free(m);
        CHECK(want > 0);
        for (bool ok = false; !ok; n++) {
                mem_fail_at(n + 1);
                m = archive_mail(archive, &limits_default);
                ok = m && read_members(m, &bytes) > 0;
                mem_fail_at(0);
                if (ok && (bytes != want_bytes || read_members(m, &bytes) != want))
                        printf("%s: failure %zu changes what is found\n", name, n), CHECK(false);
                message_free(m);
                NEED(n < 2000);
        }
}

TEST(no_memory)
{
        each_seed(fail_memory);
}

static void fail_calls(const char *name, struct str archive)
{
        struct limits lim = limits_default;
        size_t n = 0;

        lim.memory_message = 0; /* everything goes to the file */
        for (bool ok = false; !ok; n++) {
                struct message *m = archive_mail(archive, &lim);
                struct part **all;
                uint64_t bytes;

                NEED(m && message_open_leaves(m, &all) == 1);
                sys_fail_at(n + 1, n % 2 ? EIO : ENOSPC, n % 3 == 0);
                ok = read_members(m, &bytes) > 0;
                if (sys_fail_at(0, 0, false) <= n)
                        ok = true; /* it was not reached */
                else if (ok)
                        printf("%s: failed call %zu goes unnoticed\n", name, n), CHECK(false);
                else
                        CHECK(failed_with == ERR_IO || failed_with == ERR_FULL);
                message_free(m);
                NEED(n < 500);
        }
}

TEST(calls_fail)
{
        each_seed(fail_calls);
}

/* The archive is there with its bytes, or its members are; nothing is a failure of the machine. */
static void cut(const char *name, struct str archive)
{
        struct part **all, **plain;

        for (size_t n = 0; n < archive.n; n += n < 700 ? 1 : 97) {
                struct message *m = archive_mail(str_first(archive, n), &limits_default);
                uint64_t bytes;

                NEED(m);
                read_members(m, &bytes);
                if (message_trouble(m)->code != ERR_NONE)
                        printf("%s cut at %zu: %s\n", name, n, message_trouble(m)->text), CHECK(false);
                NEED(message_attachments(m, &plain) == 1 && part_size(plain[0]) == n);
                CHECK(message_unpacked(m, &all) > 0);
                message_free(m);
        }
}

TEST(M20_cut_at_every_byte)
{
        each_seed(cut);
}

struct whole { struct str rest, all; };

static ssize_t read_whole(void *ctx, const char **block, struct err *e)
{
        struct whole *w = ctx;
        size_t n = w->rest.n;

        (void)e;
        *block = w->rest.p;
        w->rest = str_from(w->rest, n);
        return (ssize_t)n;
}

static void seek_whole(void *ctx, uint64_t to)
{
        struct whole *w = ctx;

        w->rest = str_from(w->all, (size_t)to);
}

static bool regress_opens(const char *path, struct err *e)
{
        char text[4096];
        FILE *f = fopen(path, "rb");
        size_t n = f ? fread(text, 1, sizeof text, f) : 0;
        struct whole w = { str_make(text, n), str_make(text, n) };
        struct unpack_input in = { .read = read_whole, .seek = seek_whole, .size = n, .ctx = &w };
        struct unpack *u;

        if (!f)
                return err_set(e, ERR_ABSENT, "%s is not there", path);
        fclose(f);
        u = unpack_open(&in, UNPACK_7Z, e);
        unpack_close(u);
        return u != NULL;
}

/* Made by the fuzzer: the library asked for 6 GB. (The list's length is that of more bytes than there are.) */
TEST(M20_7z_whose_list_lies_behind_its_end)
{
        struct err e = { 0 };

        CHECK(!regress_opens("tests/regress/unpack/7z-list-behind-its-end", &e) && e.code == ERR_IO && strstr(e.text, "behind its end"));
}

/* A 7z that is nothing but this list of members. */
static bool list_opens(struct str list, struct err *e)
{
        char text[32 + 256] = "7z\xbc\xaf\x27\x1c\0\4";
        struct whole w;
        struct unpack_input in = { .read = read_whole, .seek = seek_whole, .size = 32 + list.n, .ctx = &w };
        struct unpack *u;

        text[20] = (char)list.n;
        memcpy(text + 32, list.p, list.n);
        w.all = w.rest = str_make(text, 32 + list.n);
        u = unpack_open(&in, UNPACK_7Z, e);
        unpack_close(u);
        return u != NULL;
}

#define MANY "\xc1\xa1\x86" /* 100,001; MOST: 100,000 */
#define MOST "\xc1\xa0\x86"
#define ONE_FOLDER "\1\4\7\x0b\1\0" "\1\1\0" "\x0c\5\0"
#define TWO_FOLDERS "\1\4\7\x0b\2\0" "\1\1\0\1\1\0" "\x0c\5\5\0"

/* Each of these numbers is one by which the library sizes a table, or goes through one for each of another. */
TEST(M20_7z_whose_list_claims_too_much)
{
        const struct { const char *what; struct str list; enum err_code code; } cases[] = {
                { "members", STR("\1\5" MANY "\0\0"), ERR_LIMIT },
                { "members, as many as can be", STR("\1\5" MOST "\0\0"), ERR_NONE },
                { "a number of 2^64 - 1", STR("\1\5\xff\xff\xff\xff\xff\xff\xff\xff\xff"), ERR_LIMIT },
                { "packed streams", STR("\1\4\6\0" MANY "\0"), ERR_LIMIT },
                { "folders", STR("\1\4\7\x0b" MANY "\0"), ERR_LIMIT },
                { "coders", STR("\1\4\7\x0b\1\0\x41\1\0"), ERR_LIMIT },
                { "streams into a coder", STR("\1\4\7\x0b\1\0\1\x11\0" MANY "\1"), ERR_LIMIT },
                { "streams out of a coder", STR("\1\4\7\x0b\1\0\1\x11\0\1" MANY), ERR_LIMIT },
                { "streams of all coders", STR("\1\4\7\x0b\1\0\2\x11\0\x40\x40\x11\0\1\1"), ERR_LIMIT },
                { "files in a folder", STR(ONE_FOLDER "\x08\x0d" MANY), ERR_LIMIT },
                { "files in all folders", STR(TWO_FOLDERS "\x08\x0d" MOST "\1"), ERR_LIMIT },
                { "members behind files in folders", STR(ONE_FOLDER "\x08\x0d\2\x09\3\x0a\1\1\2\3\4\1\2\3\4\0\0\5" MANY), ERR_LIMIT },
                { "members behind some sums", STR(TWO_FOLDERS "\x08\x0a\0\x40\1\2\3\4\0\0\5" MANY), ERR_LIMIT },
                { "members behind sums of folders", STR("\1\4\7\x0b\1\0\1\1\0\x0c\5\x0a\1\1\2\3\4\0" "\x08\0\0\5" MANY), ERR_LIMIT },
                { "members behind packed streams", STR("\1\4\6\0\2\x09\1\1\x0a\0\x80\1\2\3\4\0\0\5" MANY), ERR_LIMIT },
                { "members behind coders bound together",
                  STR("\1\4\7\x0b\1\0\2\x31\0\2\1\1\7\1\0\1\0\0\1\x0c\5\5\0\0\5" MANY), ERR_LIMIT },
                { "a packed list of more than 8 MiB", STR("\x17\6\0\1\x09\1\0\7\x0b\1\0\1\1\0\x0c\xe0\1\0\x80\0\0"), ERR_LIMIT },
                { "a packed list in two folders", STR("\x17" "\7\x0b\2\0" "\1\1\0\1\1\0" "\x0c\5\5\0\0"), ERR_IO },
                { "properties of the archive", STR("\1\2\0\5" MANY), ERR_IO },
                { "folders that lie elsewhere", STR("\1\4\7\x0b\1\1\0"), ERR_IO },
                { "a folder without streams", STR("\1\4\7\x0b\1\0\0\x0c\0"), ERR_IO },
                { "no list", STR("\7"), ERR_IO },
                { "an archive of nothing", STR(""), ERR_NONE },
                { "its end within", STR("\1\4\7\x0b\1"), ERR_IO },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                struct err e = { 0 };
                bool opened = list_opens(cases[i].list, &e);

                CHECK(opened == (cases[i].code == ERR_NONE));
                if (e.code != cases[i].code) {
                        CHECK(!"another answer");
                        printf("  %s: %d, %s\n", cases[i].what, (int)e.code, e.text);
                }
        }
}

/* 1,922 bytes, the list packed: the library took 9 GB. And damaged, behind what the library needs to ask for that. */
TEST(M20_7z_whose_packed_list_claims_1e8_members)
{
        struct err e = { 0 };

        CHECK(!regress_opens("tests/regress/unpack/7z-list-of-1e8-members", &e) && e.code == ERR_LIMIT && strstr(e.text, "100000 members"));
        CHECK(!regress_opens("tests/regress/unpack/7z-damaged-list-of-6e7-members", &e) && e.code == ERR_IO && strstr(e.text, "cannot be read"));
}

TEST(kinds)
{
        CHECK(unpack_kind_of(STR("\x1f\x8b\x08")) == UNPACK_GZIP && unpack_is_compressed(UNPACK_GZIP));
        CHECK(unpack_kind_of(STR("PK\3\4")) == UNPACK_ZIP && !unpack_is_compressed(UNPACK_ZIP));
        CHECK(unpack_kind_of(STR("7z\xbc\xaf\x27\x1c")) == UNPACK_7Z);
        CHECK(unpack_kind_of(STR("Rar!\x1a\7\0")) == UNPACK_NONE);
        CHECK(unpack_kind_of(STR("!<arch>\n")) == UNPACK_NONE);
        CHECK(unpack_kind_of(STR("")) == UNPACK_NONE);
}

/* The text by Python's zlib; nothing; 200,000 times x. */
static const char packed_text[] = "\170\332\113\124\050\316\115\314\311\121\050\111\255\050\321\121\110\304\311\003\000\034\227\016\026";
static const char packed_nothing[] = "\170\234\003\000\000\000\000\001";
static const char packed_much[] = "\170\332\355\301\061\001\000\000\000\302\240\332\213\157\006\177\240\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\200\327\000\305\221\113\163";
#define OF(array) str_make(array, sizeof array - 1)

static bool good_zlib(struct str in, struct buf *out)
{
        bool good;

        buf_clear(out);
        CHECK(unpack_zlib(in, out, &good));
        return good;
}

TEST(zlib)
{
        struct buf out = BUF_INIT;
        bool good;

        CHECK(good_zlib(OF(packed_text), &out));
        CHECK_STR(buf_str(&out), "a small text, a small text, a small text");
        for (size_t n = 0; n < sizeof packed_text - 1; n++)
                CHECK(!good_zlib(str_first(OF(packed_text), n), &out));
        for (size_t i = 0; i < sizeof packed_text - 1; i++) {
                char copy[sizeof packed_text];

                memcpy(copy, packed_text, sizeof copy);
                copy[i] ^= 4;
                CHECK(!good_zlib(str_make(copy, sizeof copy - 1), &out) || str_eq(buf_str(&out), STR("a small text, a small text, a small text")));
        }
        CHECK(good_zlib(OF(packed_nothing), &out) && out.n == 0);
        CHECK(good_zlib(OF(packed_much), &out) && out.n == 200000 && out.p[199999] == 'x');
        CHECK(!good_zlib(STR("no such thing"), &out) && !good_zlib(STR("\x78\xbb" "12345"), &out));
        buf_free(&out);
        buf_init(&out, 200000); /* exactly */
        CHECK(unpack_zlib(OF(packed_much), &out, &good) && good);
        buf_free(&out);
        buf_init(&out, 199999);
        CHECK(!unpack_zlib(OF(packed_much), &out, &good) && out.over && !good);
        buf_free(&out);
        buf_add_str(&out, STR("before "));
        CHECK(unpack_zlib(OF(packed_text), &out, &good) && good);
        CHECK_STR(buf_str(&out), "before a small text, a small text, a small text");
        buf_free(&out);
}

TEST_MAIN
