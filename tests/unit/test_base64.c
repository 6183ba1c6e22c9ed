#include "core/base64.h"
#include "core/buf.h"
#include "core/mem.h"
#include "tests/unit/test.h"

/* Each chunk from memory of its own size into memory of its own size, so that the address sanitizer sees a step too far. */
static void feed(struct base64 *d, struct str chunk, struct buf *out)
{
        char *in = mem_dup(chunk.p, chunk.n), *to = mem_alloc(base64_room(chunk.n));
        char *exact = chunk.n ? mem_resize(in, chunk.n) : in;

        buf_add(out, to, base64_decode(d, str_make(exact, chunk.n), to));
        mem_free(exact);
        mem_free(to);
}

static struct base64 decode(struct str in, size_t step, size_t cut, struct buf *out)
{
        struct base64 d = { 0 };
        char rest[3];

        buf_clear(out);
        feed(&d, str_first(in, cut), out);
        for (in = str_from(in, cut); in.n > 0; in = str_from(in, step))
                feed(&d, str_first(in, step), out);
        buf_add(out, rest, base64_end(&d, rest));
        return d;
}

static bool same_flags(const struct base64 *a, const struct base64 *b)
{
        return a->garbage == b->garbage && a->padded == b->padded && a->truncated == b->truncated;
}

/* Decodes whole, cut at every byte, and a byte at a time; the result is the same, and is `want`. */
static struct base64 check_at(int line, struct str in, struct str want)
{
        struct buf out = BUF_INIT;
        struct base64 whole = decode(in, SIZE_MAX, 0, &out), d;

        test_same(__FILE__, line, "decoded", buf_str(&out), want);
        for (size_t cut = 0; cut <= in.n; cut++) {
                d = decode(in, SIZE_MAX, cut, &out);
                CHECK(same_flags(&d, &whole));
                test_same(__FILE__, line, "decoded in two", buf_str(&out), want);
        }
        d = decode(in, 1, 0, &out);
        CHECK(same_flags(&d, &whole));
        test_same(__FILE__, line, "decoded by bytes", buf_str(&out), want);
        buf_free(&out);
        return whole;
}
#define DECODED(in, want, g, p, t)                                                                                    \
        do {                                                                                                          \
                struct base64 got = check_at(__LINE__, STR(in), STR(want));                                           \
                CHECK(got.garbage == (g));                                                                            \
                CHECK(got.padded == (p));                                                                             \
                CHECK(got.truncated == (t));                                                                          \
        } while (0)

TEST(rfc4648_vectors)
{
        DECODED("", "", 0, 0, 0);
        DECODED("Zg==", "f", 0, 0, 0);
        DECODED("Zm8=", "fo", 0, 0, 0);
        DECODED("Zm9v", "foo", 0, 0, 0);
        DECODED("Zm9vYg==", "foob", 0, 0, 0);
        DECODED("Zm9vYmE=", "fooba", 0, 0, 0);
        DECODED("Zm9vYmFy", "foobar", 0, 0, 0);
        DECODED("AP+/", "\0\xff\xbf", 0, 0, 0);
        DECODED("////++++", "\xff\xff\xff\xfb\xef\xbe", 0, 0, 0);
}

TEST(line_ends_and_blanks)
{
        DECODED("Zm9v\r\nYmFy\r\n", "foobar", 0, 0, 0);
        DECODED("Z\nm 9\tvYm\r\n\r\n\nFy", "foobar", 0, 0, 0);
        DECODED("Zm9vY\nmFyZm9vY\nmE=\n", "foobarfooba", 0, 0, 0);
        DECODED("Zg=\r\n=\r\n", "f", 0, 0, 0);
}

TEST(M08_garbage)
{
        DECODED("Zm9v!Ym\0Fy\xff", "foobar", 1, 0, 0);
        DECODED("Zm9vYg-_Fy", "foob\x01r", 1, 0, 0);
        DECODED("Zm9vYmFy\n-- \nno", "foobar", 1, 0, 1); /* a list's footer */
}

TEST(M08_data_after_padding)
{
        DECODED("Zg==Zm8=Zm9v", "ffofoo", 0, 1, 0);
        DECODED("Zg=Zm9v", "ffoo", 0, 1, 0);
        DECODED("Zm9v=Zm9v", "foofoo", 1, 1, 0);
        DECODED("Z=g==", "f", 1, 0, 0);
        DECODED("Zm9vYmE=====", "fooba", 1, 0, 0);
        DECODED("Zg======Zm9v", "ffoo", 1, 1, 0);
        DECODED("====", "", 1, 0, 0);
        DECODED("Zg==\n-- \nlist footer\nZm9v\n", "f", 1, 0, 0);
        DECODED("Zg==\n_______\nlist Zm9v", "f", 1, 0, 0);
        DECODED("Zg==\nZm8=\n*Zm9v", "ffo", 1, 1, 0);
}

TEST(M08_missing_padding)
{
        DECODED("Zg", "f", 0, 0, 1);
        DECODED("Zm8", "fo", 0, 0, 1);
        DECODED("Zg=", "f", 0, 0, 1);
        DECODED("Zm9vZ", "foo", 0, 0, 1);
        DECODED("A", "", 0, 0, 1);
}

TEST(M08_cut_in_the_middle_of_a_group)
{
        DECODED("Zm9vZh", "foo", 0, 0, 1);
        DECODED("Zm9vZm9", "foo", 0, 0, 1);
        DECODED("Zm9vZm9=", "foofo", 0, 0, 0); /* padding says that it ends here, whatever the spare bits */
        DECODED("Zm9vZh==", "foof", 0, 0, 0);
}

TEST(M08_one_line_of_a_megabyte)
{
        enum { N = 1 << 20 };
        char *in = mem_alloc(N), *text = mem_alloc((N + 2) / 3 * 4), *out = mem_alloc(base64_room((N + 2) / 3 * 4));
        struct base64 d = { 0 };
        size_t n;

        NEED(in && text && out);
        for (size_t i = 0; i < N; i++)
                in[i] = (char)(i * 2654435761u >> 13);
        n = base64_encode(str_make(in, N), text);
        CHECK(n == (N + 2) / 3 * 4);
        n = base64_decode(&d, str_make(text, n), out);
        n += base64_end(&d, out + n);
        CHECK(n == N && memcmp(in, out, N) == 0 && !d.truncated && !d.garbage);
        mem_free(in);
        mem_free(text);
        mem_free(out);
}

TEST(encode)
{
        char out[12];

        CHECK(base64_encode(STR_NONE, out) == 0);
        CHECK_STR(str_make(out, base64_encode(STR("f"), out)), "Zg==");
        CHECK_STR(str_make(out, base64_encode(STR("fo"), out)), "Zm8=");
        CHECK_STR(str_make(out, base64_encode(STR("foo"), out)), "Zm9v");
        CHECK_STR(str_make(out, base64_encode(STR("\xfb\xff\xbf\0"), out)), "+/+/AA==");
}

/* Text like a bad encoder's, cut anywhere: always what the whole gives. */
TEST(random_text_in_chunks)
{
        static const char some[] = "AAAABCDxyz019+/=\r\n !\x80";
        char in[200];
        struct buf whole = BUF_INIT, out = BUF_INIT;
        unsigned seed = 1;

        for (int round = 0; round < 300; round++) {
                size_t n = (size_t)round % sizeof in;
                for (size_t i = 0; i < n; i++) {
                        seed = seed * 1103515245 + 12345;
                        in[i] = some[(seed >> 16) % (round % 2 ? sizeof some : 14)];
                }
                struct base64 a = decode(str_make(in, n), SIZE_MAX, 0, &whole);
                for (size_t step = 1; step < 12; step++) {
                        struct base64 b = decode(str_make(in, n), step, n % 7, &out);
                        CHECK(same_flags(&a, &b));
                        CHECK_BYTES(buf_str(&out), buf_str(&whole));
                }
        }
        buf_free(&whole);
        buf_free(&out);
}

/* Every byte at every place of what vector code takes at once, with line ends before and behind. */
TEST(any_byte_anywhere)
{
        char in[120];
        struct buf whole = BUF_INIT, out = BUF_INIT;

        for (int c = 0; c < 256; c++)
                for (size_t at = 0; at < sizeof in; at++) {
                        for (size_t i = 0; i < sizeof in; i++)
                                in[i] = "Zm9vYmFy+/QUJD0123"[i % 18];
                        memcpy(in + 76, "\r\n", 2);
                        in[39] = c & 1 ? '\n' : 'x';
                        in[at] = (char)c;
                        struct base64 a = decode(str_make(in, sizeof in), SIZE_MAX, 0, &whole);
                        struct base64 b = decode(str_make(in, sizeof in), 1, 0, &out);
                        CHECK(same_flags(&a, &b));
                        CHECK_BYTES(buf_str(&whole), buf_str(&out));
                }
        buf_free(&whole);
        buf_free(&out);
}

TEST_MAIN
