#include "tests/unit/test.h"

#include "core/charset.h"
#include "core/header.h"
#include "core/mem.h"
#include "core/words.h"

static struct arena *a;
static unsigned defects;

static struct str decode_in(struct str in, const char *fallback)
{
        arena_free(a);
        a = arena_new(0);
        defects = 0;
        return words_decode(in, str_of(fallback), &limits_default, &defects, a);
}

static struct str decode(const char *in)
{
        return decode_in(str_of(in), "");
}

TEST(rfc2047_section_8)
{
        CHECK_STR(decode("=?ISO-8859-1?Q?a?="), "a");
        CHECK_STR(decode("=?ISO-8859-1?Q?a?= b"), "a b");
        CHECK_STR(decode("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?="), "ab");
        CHECK_STR(decode("=?ISO-8859-1?Q?a?=  \t=?ISO-8859-1?Q?b?="), "ab");
        CHECK_STR(decode("=?ISO-8859-1?Q?a_b?="), "a b");
        CHECK_STR(decode("=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?="), "a b");
        CHECK_STR(decode("=?US-ASCII*EN?Q?Keith_Moore?= <x>"), "Keith Moore <x>");
        CHECK_STR(decode("=?utf-8?b?w6Q=?="), "\xc3\xa4");
        CHECK(defects == 0);
}

TEST(as_real_mail_has_it)
{
        CHECK_STR(decode("[SPAM]=?utf-8?B?VGhpcw==?=!"), "[SPAM]This!");
        CHECK_STR(decode("=?iso-8859-1?q?this is some text?="), "this is some text");
        CHECK_STR(decode("=?ISO-8859-1?Q?a?==?ISO-8859-1?Q?b?="), "ab");
        CHECK_STR(decode("Some =?utf-8?Q?" "?=here"), "Some here");
        CHECK_STR(decode("\"=?utf-8?q?J=C3=B6rn?= x\""), "\"J\xc3\xb6rn x\"");
        CHECK_STR(decode("=?utf-8?B?VGhpcyBpcyB0aGUgb 3JpZ2luYWw=?="), "This is the original");
        CHECK_STR(decode("=?iso-2022-jp?B?GyRCJDMbKEI=?= =?iso-2022-jp?B?GyRCJHMbKEI=?="), "\xe3\x81\x93\xe3\x82\x93");
}

TEST(literal)
{
        CHECK_STR(decode(""), "");
        CHECK_STR(decode("="), "=");
        CHECK_STR(decode("=? "), "=? ");
        CHECK_STR(decode("=?utf-8?x?abc?="), "=?utf-8?x?abc?=");
        CHECK_STR(decode("=?UTF-8? Q?abc?="), "=?UTF-8? Q?abc?=");
        CHECK_STR(decode("let's = try =?iso-8859-1? to break =? the"), "let's = try =?iso-8859-1? to break =? the");
        CHECK(defects == 0);
}

TEST(raw_eight_bit)
{
        CHECK_STR(decode("J\xc3\xb6rn"), "J\xc3\xb6rn");
        CHECK(defects == 0);
        CHECK_STR(decode("J\xf6rn \x93"), "J\xc3\xb6rn \xe2\x80\x9c");
        CHECK(defects == WORDS_BAD);
        CHECK_STR(decode_in(STR("\xd0\xd2"), "koi8-r"), "\xd0\xbf\xd1\x80");
        CHECK_STR(decode_in(STR("\xe4"), "utf-8"), "\xc3\xa4");
        CHECK_STR(decode("\xc3\xb6 =?utf-8?q?=C3=B6?= \xf6"), "\xc3\xb6 \xc3\xb6 \xc3\xb6");
}

TEST(H07_many_words)
{
        enum { N = 8000 };
        static char p[N * 16];
        struct str s;

        for (int i = 0; i < N; i++)
                memcpy(p + i * 2, "=?", 2);
        s = decode_in(str_make(p, N * 2), "");
        CHECK_BYTES(s, str_make(p, N * 2));
        for (int i = 0; i < N; i++)
                memcpy(p + i * 8, "=?x?q?y ", 8);
        s = decode_in(str_make(p, N * 8), ""); /* no end anywhere: linear, and literal */
        CHECK_BYTES(s, str_make(p, N * 8));
        for (int i = 0; i < N; i++)
                memcpy(p + i * 16, "=?utf-8?q?ab?=  ", 16);
        s = decode_in(str_make(p, N * 16), "");
        CHECK(defects & WORDS_LIMIT);
        CHECK(str_starts(s, STR("abab")) && s.n > 4096);
        CHECK_STR(decode("=?utf-8?q?"), "=?utf-8?q?");
        CHECK_STR(decode("=?utf-8?q?=?utf-8?q?x?=?="), "=?utf-8?q?x?="); /* nested: the outer ends first */
}

TEST(H07_two_megabytes)
{
        enum { N = 2 << 20 };
        char *p = malloc(N);
        struct str s;

        NEED(p);
        memset(p, 0xe4, N);
        memcpy(p, "=?koi8-r?q?", 11);
        memcpy(p + N - 2, "?=", 2);
        s = decode_in(str_make(p, N), "");
        CHECK(s.p && s.n <= 4 * limits_default.header_field + 1024 && (defects & WORDS_LIMIT));
        memset(p, 0x80, N); /* each byte of TSCII's becomes up to four characters */
        memcpy(p, "=?tscii?q?", 10);
        memcpy(p + 99998, "?=", 2);
        s = decode_in(str_make(p, 100000), "");
        CHECK(s.p && s.n <= 4 * 100000 + 1024 && utf8_valid(s));
        free(p);
}

TEST(H08_split_and_unknown)
{
        CHECK_STR(decode("=?utf-8?q?=C3?= =?UTF-8?b?pA==?="), "\xc3\xa4");
        CHECK(defects == 0);
        CHECK_STR(decode("=?utf-8?q?=C3?= x =?utf-8?q?=A4?="), "\xef\xbf\xbd x \xef\xbf\xbd");
        CHECK(defects == WORDS_BAD);
        CHECK_STR(decode("=?utf-8?q?=C0=AF?="), "\xef\xbf\xbd\xef\xbf\xbd");
        CHECK_STR(decode("=?../../x?q?=E4?="), "\xc3\xa4");
        CHECK(defects == WORDS_CHARSET);
        CHECK_STR(decode("=?utf-7?q?+AOQ-?="), "\xc3\xa4");
}

TEST(base64_groups_over_two_words)
{
        CHECK_STR(decode("=?utf-8?b?VGhpc?= =?utf-8?b?yBpcw==?="), "This is");
        CHECK_STR(decode("=?utf-8?b?w6?= =?utf-8?b?Q=?="), "\xc3\xa4");
        CHECK(defects == 0);
        CHECK_STR(decode("=?utf-8?b?aGVsbG8?= =?utf-8?b?IHdvcmxk?="), "hello world"); /* only their padding is forgotten */
        CHECK_STR(decode("=?utf-8?b?VGhpc?= =?utf-8?q?yBpcw?="), "ThiyBpcw");
        CHECK(defects == WORDS_BAD);
        CHECK(str_starts(decode("=?utf-8?b?VGhpc?= and =?utf-8?b?yBpcw==?="), STR("Thi and ")));
        CHECK(defects == WORDS_BAD);
}

TEST(windows_1252_under_another_name)
{
        CHECK_STR(decode("=?iso-8859-1?q?=93hi=94_=E9?="), "\xe2\x80\x9chi\xe2\x80\x9d \xc3\xa9");
        CHECK_STR(decode("=?iso-8859-1?q?caf=E9?="), "caf\xc3\xa9");
        CHECK_STR(decode("=?iso-8859-2?q?=B1?="), "\xc4\x85");
}

TEST(H09_controls)
{
        CHECK_STR(decode("=?utf-8?q?a=0D=0ABcc:_x=00=1B[2J=7F=C2=9B?="), "a Bcc: x[2J");
        CHECK(defects & WORDS_BAD);
        CHECK_STR(decode("a\rb\nc"), "a b c");
        CHECK_STR(decode_in(STR("a\0b"), ""), "ab");
        CHECK_STR(decode("a\tb"), "a\tb");
}

TEST(every_cut)
{
        struct str whole = STR("x =?utf-8?q?=C3=A4_b?= =?iso-8859-1?b?5A==?= \xe4\xc3\xa4 =?x");

        for (size_t n = 0; n <= whole.n; n++) {
                char *copy = malloc(n ? n : 1);
                struct str s;

                memcpy(copy, whole.p, n);
                s = decode_in(str_make(copy, n), "");
                CHECK(s.p && utf8_valid(s));
                free(copy);
        }
}

TEST(out_of_memory)
{
        size_t n;

        for (n = 1; n < 50; n++) {
                struct arena *one = arena_new(0);
                struct str s;
                unsigned d = 0;

                mem_fail_at(n);
                s = words_decode(STR("x =?utf-8?q?=C3=A4?= y"), STR_NONE, &limits_default, &d, one);
                mem_fail_at(0);
                if (s.p)
                        CHECK_STR(s, "x \xc3\xa4 y");
                arena_free(one);
                if (s.p)
                        break;
        }
        CHECK(n > 1 && n < 50);
}

static struct str encode(const char *text, bool phrase)
{
        arena_free(a);
        a = arena_new(0);
        return words_encode(str_of(text), phrase, 9, a);
}

TEST(encoding)
{
        CHECK_STR(encode("plain text, as it is: (x)", false), "plain text, as it is: (x)");
        CHECK_STR(encode("\xc3\xa4", false), "=?utf-8?b?w6Q=?=");
        CHECK_STR(encode("a \xc3\xa4 b", false), "a =?utf-8?b?w6Q=?= b");
        CHECK_STR(encode("=?utf-8?q?x?=", false), "=?utf-8?b?PT91dGYtOD9xP3g/PQ==?=");
        CHECK_STR(encode("Joe Public", true), "Joe Public");
        CHECK_STR(encode("Joe \"Q.\" Public", true), "\"Joe \\\"Q.\\\" Public\"");
        CHECK_STR(encode("J\xc3\xb6, x", true), "=?utf-8?b?SsO2LCB4?=");
        CHECK_STR(encode("a\r\nBcc: x", false), "=?utf-8?b?YQ0KQmNjOg==?= x");
}

TEST(encoded_comes_back)
{
        static const char *const texts[] = {
                "", "a", "\xc3\xa4", "a  b", "\xc3\xa4 \xc3\xa4", "one \xc3\xa4 two \xc3\xb6 three", "\xf0\x9f\x8e\x89 x",
                "\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf"
                "\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf",
                "words and words and words and words and words and words and words and words and words and words and w\xc3\xb6rds",
        };

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                struct str e = encode(texts[i], false), rest = e;

                while (rest.n > 0) {
                        struct str line = str_take_line(&rest);

                        CHECK(line.n <= 76);
                        for (size_t k = 0; k < line.n; k++)
                                CHECK(line.p[k] >= 32 && line.p[k] < 127);
                }
                e = header_unfold(e, a);
                CHECK_STR(words_decode(e, STR_NONE, &limits_default, &defects, a), texts[i]);
        }
        arena_free(a);
        a = NULL;
}

TEST_MAIN
