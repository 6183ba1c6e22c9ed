#include "core/message.h"

#include "tests/unit/test.h"
#include "core/buf.h"
#include "core/digest.h"
#include "core/mem.h"
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static struct range in_memory(struct str s)
{
        return (struct range){ backing_memory(mem_dup(s.p, s.n), s.n), 0, s.n };
}

static int file_of(struct str s)
{
        int fd = memfd_create("message", MFD_CLOEXEC);

        if (fd < 0 || write(fd, s.p, s.n) != (ssize_t)s.n)
                exit(1);
        return fd;
}

static struct range in_file(struct str s)
{
        return (struct range){ backing_fd(file_of(s)), 0, s.n };
}

static struct message *message_of(struct range r)
{
        struct origin o = { .fetched = 1 };
        struct err e;
        struct message *m = message_new(r, &o, &limits_default, &e);

        backing_unref(r.in);
        return m;
}

/* The decoded bytes of the only leaf, read n at a time. */
static void read_leaf(struct message *m, size_t n, struct buf *out)
{
        struct part **leaves;
        struct err e;
        struct reader *r;
        ssize_t got;

        buf_clear(out);
        if (message_leaves(m, &leaves) != 1 || !(r = part_open(leaves[0], &e)))
                exit(1);
        do {
                buf_reserve(out, n);
                got = reader_read(r, out->p + out->n, n, &e);
                out->n += got > 0 ? (size_t)got : 0;
        } while (got > 0);
        CHECK(got == 0);
        CHECK(reader_read(r, out->p, 1, &e) == 0);
        reader_close(r);
        CHECK(part_size(leaves[0]) == out->n);
}

static bool flagged(struct message *m, const char *name)
{
        size_t n;
        const char *const *names = message_defects(m, &n);

        for (size_t i = 0; i < n; i++)
                if (strcmp(names[i], name) == 0)
                        return true;
        return false;
}

/* In memory and from a file, in reads of several sizes. */
static void check_decoded(int line, const char *encoding, struct str body, struct str want, const char *defect)
{
        static const size_t sizes[] = { 1, 2, 3, 7, 100, 4095, 4096, 5000, 65536 };

        for (int file = 0; file < 2; file++)
                for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                        struct buf b = BUF_INIT, out = BUF_INIT;
                        struct message *m;

                        buf_printf(&b, "Content-Transfer-Encoding: %s\n\n", encoding);
                        buf_add_str(&b, body);
                        m = message_of(file ? in_file(buf_str(&b)) : in_memory(buf_str(&b)));
                        read_leaf(m, sizes[i], &out);
                        test_same(__FILE__, line, encoding, buf_str(&out), want);
                        if (defect && !flagged(m, defect)) {
                                test_bad++;
                                printf("%s:%d: %s is not flagged\n", __FILE__, line, defect);
                        }
                        message_free(m);
                        buf_free(&b);
                        buf_free(&out);
                }
}
#define CHECK_DECODED(encoding, body, want, defect) check_decoded(__LINE__, encoding, STR(body), STR(want), defect)

TEST(identity)
{
        CHECK_DECODED("8bit", "as it\r\nis\0\xff", "as it\r\nis\0\xff", NULL);
        CHECK_DECODED("base9000", "as it is", "as it is", "encoding.unknown");
        CHECK_DECODED("7bit", "", "", NULL);
}

TEST(M08_base64)
{
        CHECK_DECODED("base64", "aGVsbG8gd29y\nbGQ=\n", "hello world", NULL);
        CHECK_DECODED("base64", "aGVs*bG8=\n", "hello", "encoding.base64");
        CHECK_DECODED("base64", "aGVsbG8", "hello", "encoding.truncated");
        CHECK_DECODED("base64", "", "", NULL);
}

TEST(M10_quoted_printable)
{
        CHECK_DECODED("quoted-printable", "a=3Db=\nc \n=e4", "a=bc\n\xe4", NULL);
        CHECK_DECODED("quoted-printable", "=G1 =", "=G1 ", "encoding.qp");
}

TEST(M19_uuencode)
{
        CHECK_DECODED("x-uuencode", "begin 644 ../../x\n#8V%T\n`\nend\n", "cat", NULL);
        CHECK_DECODED("x-uuencode", "no beginning\n#8V%T\n", "", NULL);
}

TEST(long_bodies)
{
        struct buf plain = BUF_INIT, coded = BUF_INIT, out = BUF_INIT;

        buf_printf(&coded, "Content-Transfer-Encoding: base64\n\n");
        for (int i = 0; i < 20000; i++) {
                buf_add(&plain, "0123456789abcdefghi01234567", 27);
                buf_add(&coded, "MDEyMzQ1Njc4OWFiY2RlZmdoaTAxMjM0NTY3\n", 37);
        }
        for (int file = 0; file < 2; file++) {
                struct message *m = message_of(file ? in_file(buf_str(&coded)) : in_memory(buf_str(&coded)));
                struct part **leaves;
                uint8_t hash[32], want[32];
                struct err e;

                read_leaf(m, 4096, &out);
                CHECK_BYTES(buf_str(&out), buf_str(&plain));
                message_leaves(m, &leaves);
                CHECK(part_sha256(leaves[0], hash, &e) && digest_of(buf_str(&plain), want) && memcmp(hash, want, 32) == 0);
                message_free(m);
        }
        buf_free(&plain);
        buf_free(&coded);
        buf_free(&out);
}

TEST(the_root_is_the_whole_message)
{
        struct message *m = message_of(in_memory(STR("Content-Transfer-Encoding: base64\n\naGVsbG8=\n")));
        struct err e;
        struct reader *r = part_open(message_root(m), &e);
        char all[100];

        NEED(r);
        CHECK(reader_read(r, all, sizeof all, &e) == (ssize_t)message_size(m));
        CHECK(part_size(message_root(m)) == message_size(m));
        reader_close(r);
        message_free(m);
}

TEST(a_file_that_shrinks_is_trouble)
{
        struct buf b = BUF_INIT;
        struct part **leaves;
        struct message *m;
        int fd;

        buf_printf(&b, "Subject: x\n\n");
        for (int i = 0; i < 100000; i++)
                buf_add(&b, "line of text\n", 13);
        fd = file_of(buf_str(&b));
        m = message_of((struct range){ backing_fd(fd), 0, b.n });
        CHECK(ftruncate(fd, 5000) == 0);
        CHECK(message_leaves(m, &leaves) == 0);
        CHECK(message_trouble(m)->code == ERR_IO);
        CHECK_STR(message_subject(m), "");
        CHECK_STR(message_text(m), "");
        message_free(m);
        buf_free(&b);
}

/* An attachment of 300 MiB in a sparse file: memory stays where it was. */
TEST(large_files_in_little_memory)
{
        struct str head = STR("Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: application/x\n"
                              "Content-Transfer-Encoding: quoted-printable\n\n");
        uint64_t size = (uint64_t)300 << 20;
        int fd = file_of(head);
        struct rusage before, after;
        struct part **leaves;
        struct message *m;

        CHECK(ftruncate(fd, (off_t)(head.n + size)) == 0);
        m = message_of((struct range){ backing_fd(fd), 0, head.n + size });
        getrusage(RUSAGE_SELF, &before);
        NEED(message_leaves(m, &leaves) == 2);
        CHECK(part_size(leaves[1]) == size);
        CHECK_STR(message_text(m), "text");
        getrusage(RUSAGE_SELF, &after);
        CHECK(after.ru_maxrss - before.ru_maxrss < 8 * 1024 || getenv("ASAN_OPTIONS"));
        message_free(m);
}

TEST_MAIN
