#include "tests/unit/test.h"

#include "core/charset.h"
#include "core/mem.h"
#include "core/unicode.h"

static struct buf out;
static bool bad, unknown;

static struct str convert(const char *charset, struct str in)
{
        buf_clear(&out);
        bad = unknown = false;
        CHECK(charset_to_utf8(str_of(charset), in, &out, &bad, &unknown));
        return buf_str(&out);
}

/* The same cut in two at every byte, and a byte at a time. */
static void check_chunks(const char *charset, struct str in, struct str want)
{
        for (size_t cut = 0; cut <= in.n + 1; cut++) {
                struct buf b = BUF_INIT;
                struct charset_stream *s = charset_open(str_of(charset), NULL);

                NEED(s);
                if (cut <= in.n) {
                        CHECK(charset_feed(s, str_first(in, cut), &b));
                        CHECK(charset_feed(s, str_from(in, cut), &b));
                } else {
                        for (size_t i = 0; i < in.n; i++)
                                CHECK(charset_feed(s, str_make(in.p + i, 1), &b));
                }
                CHECK(charset_end(s, &b, NULL));
                if (!str_eq(buf_str(&b), want))
                        printf("%s cut at %zu\n", charset, cut);
                CHECK_BYTES(buf_str(&b), want);
                buf_free(&b);
        }
}

static void check(const char *charset, struct str in, const char *want, bool want_bad, bool want_unknown)
{
        CHECK_STR(convert(charset, in), want);
        CHECK(bad == want_bad);
        CHECK(unknown == want_unknown);
        check_chunks(charset, in, str_of(want));
}

TEST(common)
{
        check("utf-8", STR("J\xc3\xb6rn \xf0\x9f\x8e\x89"), "J\xc3\xb6rn \xf0\x9f\x8e\x89", false, false);
        check("ISO-8859-1", STR("J\xf6rn"), "J\xc3\xb6rn", false, false);
        check("iso-8859-2", STR("\xb3\xf3\xbf"), "\xc5\x82\xc3\xb3\xc5\xbc", false, false);
        check("koi8-r", STR("\xd0\xd2"), "\xd0\xbf\xd1\x80", false, false);
        check("utf-16le", STR("a\0\x35\x04"), "a\xd0\xb5", false, false);
        check("utf-16be", STR("\0a\xd8\x3c\xdf\x89"), "a\xf0\x9f\x8e\x89", false, false);
        check("utf-7", STR("Hi +AOQ-"), "Hi \xc3\xa4", false, false);
        check("iso-2022-jp", STR("\x1b$B$3$s\x1b(B!"), "\xe3\x81\x93\xe3\x82\x93!", false, false);
        check("euc-kr", STR("\xc7\xd1"), "\xed\x95\x9c", false, false);
}

TEST(aliases_and_widening)
{
        check("windows-1252", STR("\x93x\x94 \x80"), "\xe2\x80\x9cx\xe2\x80\x9d \xe2\x82\xac", false, false);
        check("iso-8859-1", STR("\x93x"), "\xc2\x93x", false, false);
        check("cp-850", STR("\x84"), "\xc3\xa4", false, false);
        check("x-sjis", STR("\x82\xa0\x87\x40"), "\xe3\x81\x82\xe2\x91\xa0", false, false);
        check("ks_c_5601-1987", STR("\x8c\x63"), "\xeb\x98\xa0", false, false);
        check("iso-8859-8-i", STR("\xe0"), "\xd7\x90", false, false);
        check("unicode-1-1-utf-7", STR("+AOQ-"), "\xc3\xa4", false, false);
        check("ansi_x3.110", STR("a"), "a", false, false);
        check(" \"utf-8\" ", STR("\xc3\xa4"), "\xc3\xa4", false, false);
        check("US-ASCII*EN", STR("a"), "a", false, false);
        check("", STR("\xc3\xa4\xe4"), "\xc3\xa4\xc3\xa4", false, false);
        check("us-ascii", STR("\x93\xc3\xa4"), "\xe2\x80\x9c\xc3\xa4", false, false);
}

TEST(shifted_sets)
{
        check("iso-2022-jp", STR("\x1b$B-!-j!A\x1b(B."), "\xe2\x91\xa0\xe3\x88\xb1\xe3\x80\x9c.", false, false);
        check("ISO-2022-JP", STR("\x1b(I1\x1b(J\\~\x1b(B\\~"), "\xef\xbd\xb1\xc2\xa5\xe2\x80\xbe\\~", false, false);
        check("iso-2022-jp", STR("\x1b$BF|\nabc"), "\xe6\x97\xa5\nabc", false, false);
        check("iso-2022-jp", STR("\x1b$By!F|\x1b$(D0!\x1b(B"), "\xe7\xba\x8a\xe6\x97\xa5\xe4\xb8\x82", false, false);
        check("iso-2022-jp", STR("\x1b$BF|F"), "\xe6\x97\xa5\xef\xbf\xbd", true, false);
        check("iso-2022-jp", STR("a\x1b$B\x7e\x7e" "F|\x1b(B\xe4\x1bz"), "a\xef\xbf\xbd\xe6\x97\xa5\xef\xbf\xbd\xef\xbf\xbdz", true, false);
        check("euc-jp", STR("\xad\xa1\xc6\xfc\x8f\xb0\xa1"), "\xe2\x91\xa0\xe6\x97\xa5\xe4\xb8\x82", false, false);
        check("hz-gb-2312", STR("~{VPND~} ok ~~\n~{VP\nx~\ny"), "\xe4\xb8\xad\xe6\x96\x87 ok ~\n\xe4\xb8\xad\nxy", false, false);
        check("hz", STR("a~b~{VP~}~"), "a\xef\xbf\xbd" "b\xe4\xb8\xad\xef\xbf\xbd", true, false);
        check("mac-roman", STR("\x8a"), "\xc3\xa4", false, false);
}

TEST(H08_invalid_and_unknown)
{
        char name[1001];

        check("utf-8", STR("a\xc0\xaf" "b\xff\xed\xa0\x80"), "a\xef\xbf\xbd\xef\xbf\xbd" "b\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", true, false);
        check("utf-8", STR("a\xe2\x82"), "a\xef\xbf\xbd\xef\xbf\xbd", true, false);
        check("windows-1252", STR("\x81"), "\xef\xbf\xbd", true, false);
        check("utf-16le", STR("a\0\x00\xd8" "b\0"), "a\xef\xbf\xbd" "b", true, false);
        check("../../etc/passwd", STR("\xe4\xc3\xa4"), "\xc3\xa4\xc3\xa4", false, true);
        check("utf-8//TRANSLIT", STR("x"), "x", false, true);
        check("INTERNAL", STR("xxxx"), "xxxx", false, true);
        check("fakescii", STR("x"), "x", false, true);
        memset(name, 'a', 1000);
        name[1000] = 0;
        check(name, STR("x\xe4"), "x\xc3\xa4", false, true);
}

TEST(H08_beyond_unicode)
{
        struct str s = convert("ucs-4le", STR("\xff\xff\xff\x7f" "a\0\0\0"));

        CHECK(utf8_valid(s) && str_ends(s, STR("a")));
        CHECK(bad);
}

TEST(H08_endless_escapes)
{
        enum { N = 1 << 20 };
        char *p = malloc(N);

        NEED(p);
        for (int i = 0; i < N; i++)
                p[i] = "\x1b$B\x1b(J"[i % 6];
        convert("iso-2022-jp", str_make(p, N));
        CHECK(out.n < 16);
        memset(p, 0xff, N);
        CHECK(convert("euc-jp", str_make(p, N)).n == 3 * N);
        CHECK(bad);
        free(p);
}

TEST(every_byte_of_every_charset)
{
        static const char *const names[] = { "big5", "euc-tw", "iso-2022-kr", "iso-2022-cn", "hz-gb-2312", "utf-7", "utf-16", "utf-32",
                "shift_jis", "gb18030", "euc-jp", "cp1255", "tis-620", "macroman", "ibm1364", "iso-2022-jp-3" };
        char in[512];

        for (int i = 0; i < 512; i++)
                in[i] = (char)(i * 7 + i / 256);
        for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
                struct buf whole = BUF_INIT;

                CHECK(charset_to_utf8(str_of(names[n]), str_make(in, sizeof in), &whole, &bad, &unknown));
                CHECK(utf8_valid(buf_str(&whole)));
                check_chunks(names[n], str_make(in, sizeof in), buf_str(&whole));
                buf_free(&whole);
        }
}

TEST(limited_buffer)
{
        struct buf b;

        buf_init(&b, 10);
        CHECK(!charset_to_utf8(STR("koi8-r"), STR("\xd0\xd2\xd0\xd2\xd0\xd2\xd0\xd2\xd0\xd2"), &b, NULL, NULL));
        CHECK(b.over && b.n <= 10);
        buf_free(&b);
}

TEST(out_of_memory)
{
        for (size_t n = 1; n < 20; n++) {
                struct buf b = BUF_INIT;
                bool ok;

                mem_fail_at(n);
                ok = charset_to_utf8(STR("koi8-u"), STR("\xd0\xd2"), &b, NULL, NULL);
                mem_fail_at(0);
                if (ok)
                        CHECK_STR(buf_str(&b), "\xd0\xbf\xd1\x80");
                buf_free(&b);
        }
}

TEST(utf8_steps)
{
        uint32_t cp;
        char u[4];

        for (uint32_t c = 0; c < 0x110000; c++) {
                size_t n = utf8_put(c, u);

                if (c >= 0xd800 && c < 0xe000)
                        continue;
                if (utf8_next(str_make(u, n), &cp) != n || cp != c) {
                        CHECK(!"a character does not come back");
                        break;
                }
        }
        CHECK_STR(utf8_cut(STR("a\xe2\x82\xac"), 3), "a");
        CHECK_STR(utf8_cut(STR("a\xe2\x82\xac"), 4), "a\xe2\x82\xac");
        CHECK_STR(utf8_cut(STR("abc"), 0), "");
        CHECK(!utf8_valid(STR("\xed\xa0\x80")));
        CHECK(!utf8_valid(STR("\xf4\x90\x80\x80")));
        CHECK(utf8_valid(STR("abcdefgh\xc3\xa4 abcdefghijk")));
        CHECK(!utf8_valid(STR("abcdefgh\xc3\xa4 abcdefghij\xc3")));
}

TEST(caseless)
{
        static const struct { const char *text, *want; } table[] = {
                { "", "" }, { "AbC", "abc" }, { "\xc3\x84", "\xc3\xa4" }, { "A\xcc\x88", "\xc3\xa4" }, { "\xef\xac\x81x", "fix" },
                { "\xc3\x9f", "ss" }, { "\xe1\xba\x9e", "ss" }, { "\xef\xac\x83", "ffi" }, { "\xcf\x82", "\xcf\x83" },
                { "\xc4\xb0", "i\xcc\x87" }, { "\xe1\xbf\xb7", "\xe1\xbf\xb6\xce\xb9" },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct buf b = BUF_INIT, again = BUF_INIT;

                CHECK(unicode_caseless(str_of(table[i].text), &b));
                CHECK_STR(buf_str(&b), table[i].want);
                CHECK(unicode_caseless(buf_str(&b), &again) && str_eq(buf_str(&again), buf_str(&b)));
                buf_free(&b);
                buf_free(&again);
        }
}

TEST(fold)
{
        CHECK(utf8_fold('A') == 'a' && utf8_fold('[') == '[');
        CHECK(utf8_fold(0xc4) == 0xe4);
        CHECK(utf8_fold(0x416) == 0x436);
        CHECK(utf8_fold(0x3a3) == 0x3c3 && utf8_fold(0x3c2) == 0x3c3);
        CHECK(utf8_fold(0x1e9e) == 0xdf && utf8_fold(0x130) == 0x130);
        CHECK(utf8_fold(0x10400) == 0x10428);
        CHECK(utf8_fold(0x101) == 0x101 && utf8_fold(0x100) == 0x101);
}

static struct str nfc(struct str s)
{
        buf_clear(&out);
        CHECK(unicode_nfc(s, &out));
        return buf_str(&out);
}

TEST(composed_form)
{
        CHECK_STR(nfc(STR("e\xcc\x81")), "\xc3\xa9");
        CHECK_STR(nfc(STR("\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab")), "\xed\x95\x9c"); /* Hangul */
        CHECK_STR(nfc(STR("q\xcc\x87\xcc\xa3")), "q\xcc\xa3\xcc\x87");               /* marks in their order */
        CHECK_STR(nfc(STR("\xe2\x84\xab")), "\xc3\x85");                             /* the sign Angstrom */
        CHECK_STR(nfc(STR("\xcc\x81" "e")), "\xcc\x81" "e");
}

TEST(a_heap_of_marks)
{
        enum { N = 100000 };
        char *p = malloc(N * 2 + 1);

        NEED(p);
        p[0] = 'x';
        for (int i = 0; i < N; i++)
                memcpy(p + 1 + i * 2, i % 2 ? "\xcc\x81" : "\xcc\xa3", 2);
        CHECK(nfc(str_make(p, N * 2 + 1)).n == 1 + 32 * 2);
        free(p);
        buf_free(&out);
}

TEST_MAIN
