#include "core/buf.h"
#include "core/mem.h"
#include "core/qp.h"
#include "tests/unit/test.h"

static void feed(struct qp *d, struct str chunk, struct buf *out)
{
        char *in = mem_dup(chunk.p, chunk.n), *to = mem_alloc(qp_room(chunk.n));
        char *exact = chunk.n ? mem_resize(in, chunk.n) : in;

        buf_add(out, to, qp_decode(d, str_make(exact, chunk.n), to));
        mem_free(exact);
        mem_free(to);
}

static bool decode(struct str in, size_t step, size_t cut, struct buf *out)
{
        struct qp d = { .held = 0 };
        char *rest = mem_alloc(260);

        buf_clear(out);
        feed(&d, str_first(in, cut), out);
        for (in = str_from(in, cut); in.n > 0; in = str_from(in, step))
                feed(&d, str_first(in, step), out);
        buf_add(out, rest, qp_end(&d, rest));
        mem_free(rest);
        return d.bad;
}

/* Whole, cut at every byte, a byte at a time. */
static void check_at(int line, struct str in, struct str want, bool bad)
{
        struct buf out = BUF_INIT;

        for (size_t cut = 0; cut <= in.n; cut++) {
                CHECK(decode(in, SIZE_MAX, cut, &out) == bad);
                test_same(__FILE__, line, "decoded in two", buf_str(&out), want);
        }
        CHECK(decode(in, 1, 0, &out) == bad);
        test_same(__FILE__, line, "decoded by bytes", buf_str(&out), want);
        buf_free(&out);
}
#define DECODED(in, want) check_at(__LINE__, STR(in), STR(want), false)
#define BAD(in, want) check_at(__LINE__, STR(in), STR(want), true)

TEST(text)
{
        DECODED("", "");
        DECODED("a b  c\nd\r\n\r\ne", "a b  c\nd\r\n\r\ne");
        DECODED("=C3=A9=e2=82=ac=00", "\xc3\xa9\xe2\x82\xac\0");
        DECODED("caf=E9 1+1=3D2", "caf\xe9 1+1=2");
        DECODED("raw \xc3\xa9 bytes\0too", "raw \xc3\xa9 bytes\0too");
}

TEST(soft_line_breaks)
{
        DECODED("one=\ntwo=\r\nthree", "onetwothree");
        DECODED("one =\r\n two", "one  two");
        DECODED("one= \t\r\ntwo=  \nthree", "onetwothree"); /* blanks that transport added */
        DECODED("=\n=\n=\r\n", "");
        DECODED("a=\n\nb", "a\nb");
}

TEST(blanks_at_the_end_of_a_line)
{
        DECODED("a  \r\nb\t\nc \t", "a\r\nb\nc");
        DECODED("a=20\r\nb=20 \n", "a \r\nb \n");
        DECODED(" \n \r\n ", "\n\r\n");
        DECODED("a \rb \r", "a \rb \r"); /* a bare CR ends no line */
        DECODED("\r\r\n\r", "\r\r\n\r");
}

TEST(bad_sequences_stay)
{
        BAD("=ZZ", "=ZZ");
        BAD("=4", "=4");
        BAD("=4Z=41", "=4ZA");
        BAD("a==41", "a=A");
        BAD("= x", "= x");
        BAD("=  =41", "=  A");
        BAD("=\rx", "=\rx");
        BAD("= \r\r\n", "= \r\r\n");
        BAD("=4=\nx", "=4x");
        BAD("=4 \n", "=4\n");
        BAD("= a \n", "= a\n");
}

TEST(M10_kind_to_what_is_broken)
{
        DECODED("x=", "x");
        BAD("=G1", "=G1");
        BAD("=3=3D", "=3=");
        DECODED("x=\n", "x");
        DECODED("x=\r\n", "x");
        DECODED("=3d=3D", "==");
}

TEST(the_end_ends_a_line)
{
        DECODED("a=", "a");
        DECODED("a= ", "a");
        DECODED("a=\r", "a");
        DECODED("a   ", "a");
}

TEST(long_runs_of_blanks)
{
        struct buf in = BUF_INIT, out = BUF_INIT;

        for (size_t n = 250; n < 260; n++) {
                buf_clear(&in);
                buf_add_char(&in, 'a');
                for (size_t i = 0; i < n; i++)
                        buf_add_char(&in, ' ');
                buf_add_char(&in, 'b');
                check_at(__LINE__, buf_str(&in), buf_str(&in), false);
                in.p[0] = '=';
                check_at(__LINE__, buf_str(&in), buf_str(&in), true);
        }
        in.p[0] = 'a';
        in.p[in.n - 1] = '\n';
        CHECK(!decode(buf_str(&in), 1, 0, &out));
        CHECK(out.n == 2 + sizeof ((struct qp *)0)->blanks); /* what did not fit was text */
        buf_free(&in);
        buf_free(&out);
}

TEST(random_text_in_chunks)
{
        static const char some[] = "ab49=== \t\r\n\n";
        struct buf whole = BUF_INIT, out = BUF_INIT;
        char in[100];
        unsigned seed = 1;

        for (int round = 0; round < 500; round++) {
                for (size_t i = 0; i < sizeof in; i++) {
                        seed = seed * 1103515245 + 12345;
                        in[i] = some[(seed >> 16) % (sizeof some - 1)];
                }
                bool bad = decode(str_make(in, sizeof in), SIZE_MAX, 0, &whole);
                for (size_t step = 1; step < 9; step++) {
                        CHECK(decode(str_make(in, sizeof in), step, 3, &out) == bad);
                        CHECK_BYTES(buf_str(&out), buf_str(&whole));
                }
        }
        buf_free(&whole);
        buf_free(&out);
}

TEST(words)
{
        char out[32];

        CHECK_STR(str_make(out, qp_decode_word(STR("a_b=5F=e9"), out)), "a b_\xe9");
        CHECK_STR(str_make(out, qp_decode_word(STR("=4"), out)), "=4");
        CHECK_STR(str_make(out, qp_decode_word(STR("==41=G1="), out)), "=A=G1=");
        CHECK(qp_decode_word(STR_NONE, out) == 0);
}

TEST_MAIN
