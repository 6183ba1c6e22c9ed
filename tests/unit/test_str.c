#include "tests/unit/test.h"

TEST(equality_and_order)
{
        CHECK(str_eq(STR("a\0b"), STR("a\0b")));
        CHECK(!str_eq(STR("a\0b"), STR("a\0c")));
        CHECK(str_eq(STR_NONE, STR("")));
        CHECK(str_eq_nocase(STR("Content-TYPE"), STR("content-type")));
        CHECK(!str_eq_nocase(STR("[\\]"), STR("{|}"))); /* letters only */
        CHECK(str_cmp(STR("a"), STR("ab")) < 0);
        CHECK(str_cmp(STR("b"), STR("ab")) > 0);
        CHECK(str_cmp(STR("\xff"), STR("a")) > 0);
        CHECK(str_cmp(STR_NONE, STR_NONE) == 0);
}

TEST(starts_and_ends)
{
        CHECK(str_starts(STR("begin 644"), STR("begin ")));
        CHECK(!str_starts(STR("beg"), STR("begin ")));
        CHECK(str_starts(STR("x"), STR_NONE));
        CHECK(str_starts_nocase(STR("RE: x"), STR("re:")));
        CHECK(str_ends(STR("a.pdf"), STR(".pdf")));
        CHECK(!str_ends(STR("pdf"), STR(".pdf")));
        CHECK(str_ends_nocase(STR("A.PDF"), STR(".pdf")));
}

TEST(trim)
{
        CHECK_STR(str_trim(STR(" \t\r\n a b \f\v")), "a b");
        CHECK_STR(str_trim(STR("   ")), "");
        CHECK_STR(str_trim(STR_NONE), "");
        CHECK_STR(str_trim_right(STR(" a ")), " a");
}

TEST(find)
{
        struct str s = STR("one two Two");

        CHECK(str_find(s, 't') == 4);
        CHECK(str_find(s, 'x') == s.n);
        CHECK(str_find(STR_NONE, 'x') == 0);
        CHECK(str_rfind(s, 'o') == 10);
        CHECK(str_rfind(s, 'x') == s.n);
        CHECK(str_find_str(s, STR("two")) == 4);
        CHECK(str_find_str(s, STR("Two")) == 8);
        CHECK(str_find_str(s, STR("three, which is longer")) == s.n);
        CHECK(str_find_str(s, STR("")) == 0);
        CHECK(str_find_str_nocase(s, STR("TWO")) == 4);
        CHECK(str_find_str_nocase(s, STR("o TWO")) == 6);
        CHECK(str_find_str_nocase(s, STR("WO TWO")) == 5);
        CHECK(str_find_str_nocase(s, STR("one two two.")) == s.n);
}

TEST(take)
{
        struct str rest = STR("a,b,,c");

        CHECK_STR(str_take(&rest, ','), "a");
        CHECK_STR(str_take(&rest, ','), "b");
        CHECK_STR(str_take(&rest, ','), "");
        CHECK_STR(str_take(&rest, ','), "c");
        CHECK(rest.n == 0);
        CHECK_STR(str_take(&rest, ','), "");
}

TEST(take_line)
{
        struct str rest = STR("a\r\nb\n\r\n\nc\rd\r");

        CHECK_STR(str_take_line(&rest), "a");
        CHECK_STR(str_take_line(&rest), "b");
        CHECK_STR(str_take_line(&rest), "");
        CHECK_STR(str_take_line(&rest), "");
        CHECK_STR(str_take_line(&rest), "c\rd\r"); /* no LF: the CR is not a line end */
        CHECK(rest.n == 0);
}

TEST(numbers)
{
        uint64_t v = 7;

        CHECK(str_to_u64(STR("0"), 0, &v) && v == 0);
        CHECK(str_to_u64(STR("0042"), 100, &v) && v == 42);
        CHECK(str_to_u64(STR("18446744073709551615"), UINT64_MAX, &v) && v == UINT64_MAX);
        v = 7;
        CHECK(!str_to_u64(STR("18446744073709551616"), UINT64_MAX, &v));
        CHECK(!str_to_u64(STR("99999999999999999999999"), UINT64_MAX, &v));
        CHECK(!str_to_u64(STR("65536"), 65535, &v));
        CHECK(!str_to_u64(STR("1"), 0, &v));
        CHECK(!str_to_u64(STR(""), 9, &v));
        CHECK(!str_to_u64(STR("-1"), 9, &v));
        CHECK(!str_to_u64(STR("+1"), 9, &v));
        CHECK(!str_to_u64(STR(" 1"), 9, &v));
        CHECK(!str_to_u64(STR("1x"), 99, &v));
        CHECK(v == 7);
        for (uint64_t n = 0; n <= 120; n++) {
                char text[8];
                int len = snprintf(text, sizeof text, "%d", (int)n);
                CHECK(str_to_u64(str_make(text, (size_t)len), 105, &v) == (n <= 105));
        }
}

TEST(hex)
{
        CHECK(ascii_hex('0') == 0 && ascii_hex('9') == 9 && ascii_hex('a') == 10 && ascii_hex('F') == 15);
        CHECK(ascii_hex('g') == -1 && ascii_hex('/') == -1 && ascii_hex(':') == -1 && ascii_hex('\0') == -1);
}

static void utf8(const char *bytes, size_t length, uint32_t want)
{
        uint32_t code = 0;

        CHECK(str_utf8(str_of(bytes), &code) == length);
        CHECK(code == want);
}

TEST(utf8_characters)
{
        utf8("a", 1, 'a');
        utf8("\xc2\x80", 2, 0x80);
        utf8("\xdf\xbf", 2, 0x7ff);
        utf8("\xe0\xa0\x80", 3, 0x800);
        utf8("\xef\xbf\xbf", 3, 0xffff);
        utf8("\xf0\x90\x80\x80", 4, 0x10000);
        utf8("\xf4\x8f\xbf\xbf", 4, 0x10ffff);
}

TEST(utf8_refused)
{
        utf8("", 0, 0);
        utf8("\x80", 0, 0);
        utf8("\xc0\xaf", 0, 0);         /* overlong / */
        utf8("\xc1\xbf", 0, 0);
        utf8("\xe0\x9f\xbf", 0, 0);
        utf8("\xf0\x8f\xbf\xbf", 0, 0);
        utf8("\xed\xa0\x80", 0, 0);     /* surrogate */
        utf8("\xf4\x90\x80\x80", 0, 0); /* beyond Unicode */
        utf8("\xf5\x80\x80\x80", 0, 0);
        utf8("\xff", 0, 0);
        utf8("\xe2\x82", 0, 0);         /* cut */
        utf8("\xe2\x82z", 0, 0);
}

TEST_MAIN
