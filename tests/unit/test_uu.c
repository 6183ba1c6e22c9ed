#include "core/mem.h"
#include "core/uu.h"
#include "tests/unit/test.h"

/* From memory of the line's size into memory of 63 bytes, for the address sanitizer. */
static int decode(struct str line, char out[64])
{
        char *in = mem_alloc(line.n), *to = mem_alloc(63);
        int n;

        if (line.n)
                memcpy(in, line.p, line.n);
        n = uu_decode_line(str_make(in, line.n), to);
        if (n > 0)
                memcpy(out, to, (size_t)n);
        mem_free(in);
        mem_free(to);
        return n;
}

static void check_at(int at, struct str line, struct str want)
{
        char out[64];
        int n = decode(line, out);

        test_same(__FILE__, at, "decoded", str_make(out, n < 0 ? 0 : (size_t)n), want);
        CHECK(n == (int)want.n);
}
#define DECODED(line, want) check_at(__LINE__, STR(line), STR(want))

TEST(lines)
{
        DECODED("#0V%T", "Cat");
        DECODED("\"0V$`", "Ca");
        DECODED("!0P``", "C");
        DECODED("!0P  ", "C");
        DECODED("#____", "\xff\xff\xff");
        DECODED("#0V%TX", "Cat"); /* with a checksum */
        DECODED("#0V%T   ", "Cat");
        DECODED("M````````````````````````````````````````````````````````````",
                "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

TEST(end_lines)
{
        char out[64];

        CHECK(decode(STR("`"), out) == 0);
        CHECK(decode(STR(" "), out) == 0);
        CHECK(decode(STR(""), out) == 0);
        CHECK(decode(STR("end"), out) == 0);
        CHECK(decode(STR("end \r"), out) == 0);
}

TEST(spaces_taken_off)
{
        DECODED("#0P", "C\0\0");
        DECODED("&0V%T", "Cat\0\0\0");
        DECODED("#", "\0\0\0");
}

TEST(M19_length_too_large)
{
        char out[64];

        CHECK(decode(STR("_0V%T"), out) == 63); /* the largest there is */
        CHECK(memcmp(out, "Cat\0\0", 5) == 0);
}

TEST(not_data)
{
        char out[64];

        CHECK(decode(STR("some text"), out) == -1);
        CHECK(decode(STR("#0V%Tmore"), out) == -1);
        CHECK(decode(STR("#0V%T0000"), out) == -1); /* longer than its length byte says */
        CHECK(decode(STR("\xff" "0V%T"), out) == -1);
        CHECK(decode(STR("#0V\0T"), out) == -1);
        CHECK(decode(STR("ending"), out) == -1);
}

TEST(every_cut_is_safe)
{
        struct str line = STR("M:'1T<#HO+W=W=RYE>&%M<&QE+F-O;2\\@86YD('-O;64@;6]R92!T97AT(&AE");
        char out[64];

        for (size_t n = 1; n <= line.n; n++)
                CHECK(decode(str_first(line, n), out) == 45);
}

static bool begins(struct str line, const char *want)
{
        struct str name;

        return uu_begin(line, &name) && CHECK_STR(name, want);
}

TEST(begin)
{
        struct str name;

        CHECK(begins(STR("begin 644 a b.txt"), "a b.txt"));
        CHECK(begins(STR("begin 0644 x\r"), "x"));
        CHECK(begins(STR("begin 644 ../../x"), "../../x")); /* M19: the name is cleaned where it becomes one */
        CHECK(!uu_begin(STR("begin 64 x"), &name));
        CHECK(!uu_begin(STR("begin 648 x"), &name));
        CHECK(!uu_begin(STR("begin 644 "), &name));
        CHECK(!uu_begin(STR("begin 644"), &name));
        CHECK(!uu_begin(STR("begin the day"), &name));
        CHECK(!uu_begin(STR("Begin 644 x"), &name));
        CHECK(!uu_begin(STR(" begin 644 x"), &name));
        CHECK(!uu_begin(STR("begin-base64 644 x"), &name));
        CHECK(!uu_begin(STR_NONE, &name));
}

TEST_MAIN
