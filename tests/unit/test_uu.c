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
        CHECK(begins(STR("begin 644 "), "")); /* some leave the name out */
        CHECK(begins(STR("begin 644"), ""));
        CHECK(!uu_begin(STR("begin the day"), &name));
        CHECK(!uu_begin(STR("Begin 644 x"), &name));
        CHECK(!uu_begin(STR(" begin 644 x"), &name));
        CHECK(!uu_begin(STR("begin-base64 644 x"), &name));
        CHECK(!uu_begin(STR_NONE, &name));
}

/* "at+n:name" a file, "!" before one without end; fed in chunks of `most`. */
static void check_found(int line, struct str text, const char *want)
{
        for (size_t most = 1; most <= text.n; most = most < 9 ? most + 1 : text.n > most ? text.n : most + 1) {
                struct uu_finder f = { 0 };
                struct buf b = BUF_INIT;
                bool more = true;

                for (size_t at = 0; at < text.n || more; at += most) {
                        char *copy = mem_dup(str_from(text, at).p, str_first(str_from(text, at), most).n);
                        struct str rest = str_make(copy, str_first(str_from(text, at), most).n);

                        more = at < text.n;
                        while (more ? uu_find(&f, &rest) : uu_find_end(&f))
                                buf_printf(&b, "%s%d+%d:%.*s ", f.ended ? "" : "!", (int)f.at, (int)f.n, STR_FMT(f.name));
                        mem_free(copy);
                }
                test_same(__FILE__, line, "found", b.n ? buf_str(&b) : STR(""), str_of(want));
                buf_free(&b);
        }
}
#define FOUND(text, want) check_found(__LINE__, STR(text), want)
#define FULL "M````````````````````````````````````````````````````````````\n" /* 62 bytes */

TEST(M19_files_in_text)
{
        FOUND("begin 644 x\n#0V%T\n`\nend\n", "0+24:x ");
        FOUND("begin 644 x\n#0V%T\n`\nend", "0+23:x ");
        FOUND("hi\r\nbegin 644 x\r\n#0V%T\r\n`\r\nend\r\nbye", "4+28:x ");
        FOUND("hi\nbegin 644 x\n#0V%T\nend\nbegin 644 ../../y\n#0V%T\n`\nend\n", "3+22:x 25+30:../../y ");
        FOUND("begin 644 \n#0V%T\n`\nend\n", "0+23: ");
        FOUND("begin 644 empty\n`\nend\n", "0+22:empty ");
        FOUND(" begin 644 x\n#0V%T\n`\nend\n", "");
        FOUND("begin 100 things\nand end\nend\n", "");
        FOUND("begin 644 x\nbegin 644 y\n#0V%T\n`\nend\n", "12+24:y ");
        FOUND("begin 644 x\n" FULL "so much for that\nend\n", "0+95:x ");
        FOUND("begin 644 x\n" FULL, "!0+74:x ");
        FOUND("begin 644 x\n" FULL "\nthat was it\n", "!0+74:x ");
        FOUND("begin 644 x\n" FULL "one\ntwo\nthree\nfour\nend\n", "!0+74:x ");
        FOUND("begin 644 x\n" FULL "begin 644 y\n#0V%T\n`\nend\n", "!0+74:x 74+24:y ");
        FOUND("begin 644 x\n#0V%T\n", "");
        FOUND("=ybegin line=128 size=3 name=x\nabc\n=yend size=3\n", "");
        FOUND("begin 644 x\n", "");
        FOUND("begin 644", "");
}

TEST(strip)
{
        struct buf b = BUF_INIT;

        CHECK(uu_strip(STR("a\nbegin 644 x\n#0V%T\n`\nend\nb\nbegin 644 y\n#0V%T\n`\nend\nc\n"), &b));
        CHECK_STR(buf_str(&b), "a\nb\nc\n");
        buf_clear(&b);
        CHECK(uu_strip(STR("a\nbegin 644 x\n" FULL "M```"), &b));
        CHECK_STR(buf_str(&b), "a\n");
        buf_free(&b);
}

TEST_MAIN
