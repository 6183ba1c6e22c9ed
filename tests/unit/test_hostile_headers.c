/* Hostile headers, asked as a script asks: through the message. A test is named by the row of hostile inputs that it holds. */
#include "core/message.h"

#include "tests/unit/test.h"
#include "core/buf.h"
#include "core/charset.h"
#include "core/mem.h"

#include <time.h>

static struct message *m;
static clock_t began;

/* Of n bytes (mem_alloc), which the message takes. */
static void open_bytes(char *p, size_t n)
{
        struct origin o = { .source = STR("test"), .fetched = 1000 };
        struct backing *b = backing_memory(p, n);
        struct err e;

        message_free(m);
        began = clock();
        m = message_new((struct range){ b, 0, n }, &o, &limits_default, &e);
        backing_unref(b);
        if (!m)
                abort();
}

static void open_str(struct str s)
{
        open_bytes(mem_dup(s.p, s.n), s.n);
}
#define OPEN(text) open_str(STR(text))

static bool flagged(const char *name)
{
        size_t n;
        const char *const *names = message_defects(m, &n);

        for (size_t i = 0; i < n; i++)
                if (strcmp(names[i], name) == 0)
                        return true;
        return false;
}

/* One second of CPU a megabyte is promised; sanitizers and a busy machine get as much again. */
static bool in_time(void)
{
        double seconds = (double)(clock() - began) / CLOCKS_PER_SEC, megabytes = (double)message_size(m) / 1e6;

        return seconds < 2 * (megabytes < 1 ? 1 : megabytes);
}

/* head, then n times unit, then tail. */
static void open_many(const char *head, const char *unit, size_t n, const char *tail)
{
        size_t head_n = strlen(head), unit_n = strlen(unit), tail_n = strlen(tail), all = head_n + n * unit_n + tail_n;
        char *p = mem_alloc(all);

        if (!p)
                abort();
        memcpy(p, head, head_n);
        for (size_t i = 0; i < n; i++)
                memcpy(p + head_n + i * unit_n, unit, unit_n);
        memcpy(p + head_n + n * unit_n, tail, tail_n);
        open_bytes(p, all);
}

static size_t addresses(const char *field, size_t *valid)
{
        size_t n = 0;

        *valid = 0;
        for (const struct addr *a = message_addresses(m, str_of(field)); a; a = a->next, n++)
                *valid += a->valid;
        return n;
}

static struct part *leaf(void)
{
        struct part **leaves;

        if (message_leaves(m, &leaves) == 0)
                abort();
        return leaves[0];
}

static void end(void)
{
        message_free(m);
        m = NULL;
}

TEST(H01_ten_million_header_lines)
{
        struct str *all;

        open_many("Subject: s\n", "A: b\n", 10000000, "\nbody\n");
        CHECK_STR(message_subject(m), "s");
        CHECK(message_fields(m, STR("A"), &all) == 9999);
        CHECK(flagged("limit.header"));
        CHECK(message_over_limit(m));
        CHECK_STR(message_text(m), "body\n");
        CHECK(in_time());
        end();
}

TEST(H02_one_field_of_100_megabytes)
{
        static char fold[101];

        memset(fold, 'x', 100);
        memcpy(fold, "\n ", 2);
        open_many("Subject: s", fold, 1000000, "\n\nbody\n");
        CHECK(message_subject(m).n > 100000 && message_subject(m).n <= limits_default.header_field);
        CHECK(flagged("limit.header"));
        CHECK(message_size(m) == 100000000 + 10 + 7);
        CHECK(in_time());
        open_many("Subject: =?utf-8?q?", "a\n ", 1000000, "?=\n\nbody\n");
        CHECK(message_subject(m).n > 0 && message_subject(m).n <= limits_default.header_field);
        CHECK(in_time());
        end();
}

/* None of these lines ends the header or hides what follows it. */
TEST(H03_lines_that_are_no_field)
{
        static const struct {
                const char *line, *defect;
        } rows[] = {
                { "no colon here\n", "header.junk" },
                { "From boss@example.org Mon Nov 23 05:41:00 2026\n", "header.junk" },
                { ">From boss@example.org Mon Nov 23 05:41:00 2026\n", NULL },
                { "\x80\x81: eight bits\n", "header.names" },
                { "N\xc3\xa4me: eight bits\n", "header.names" },
                { "two words: x\n", "header.names" },
                { "Blank : x\n", "header.names" },
                { ": no name\n", "header.junk" },
                { "--\n", "header.junk" },
                { "X:\n \n\t\n", NULL },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "To: a@b.org\n%sSubject: seen\n\nbody\n", rows[i].line);
                open_str(buf_str(&b));
                CHECK_STR(message_subject(m), "seen");
                CHECK_STR(message_text(m), "body\n");
                CHECK(!rows[i].defect || flagged(rows[i].defect));
                buf_free(&b);
        }
        OPEN(" leading fold\nSubject: seen\n\nbody\n");
        CHECK_STR(message_subject(m), "seen");
        CHECK_STR(message_text(m), "body\n");
        CHECK(flagged("header.junk"));
        OPEN("From a@b Mon Nov 23 05:41:00 2026\nSubject: seen\n\nbody\n");
        CHECK_STR(message_subject(m), "seen");
        OPEN("this is all text\nSubject: not seen\n\nmore\n"); /* the documented case: text where the header should be */
        CHECK_STR(message_subject(m), "");
        CHECK_STR(message_text(m), "this is all text\nSubject: not seen\n\nmore\n");
        CHECK(flagged("header.missing"));
        end();
}

TEST(H04_half_a_million_addresses)
{
        size_t n, valid;

        open_many("", "To: a@b.org\n", 500000, "\nbody\n");
        n = addresses("To", &valid);
        CHECK(n == 10000 && valid == n);
        CHECK(flagged("limit.header"));
        CHECK(in_time());
        open_many("To: x@y.org", ",a@b.org", 500000, "\n\nbody\n");
        n = addresses("To", &valid);
        CHECK(n == 10000 && valid == n);
        CHECK(flagged("limit.addresses"));
        CHECK(in_time());
        open_many("To: x@y.org", ", \"a longer name than that\" <a@b.org>", 500000, "\n\nbody\n");
        n = addresses("To", &valid);
        CHECK(n > 3000 && valid == n);
        CHECK(flagged("limit.addresses"));
        CHECK(in_time());
        end();
}

/* A field that is cut at its limit does not end with half an address, which would be another one. */
TEST(H04_never_half_an_address)
{
        for (size_t pad = 0; pad < 24; pad++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "To: ");
                while (b.n < limits_default.header_field - pad)
                        buf_add_char(&b, ' ');
                buf_printf(&b, "a@b.org,boss@bank.example.com\n\nx\n");
                open_str(buf_str(&b));
                for (const struct addr *a = message_addresses(m, STR("To")); a; a = a->next)
                        CHECK(str_eq(a->addr, STR("a@b.org")) || str_eq(a->addr, STR("boss@bank.example.com")));
                buf_free(&b);
        }
        end();
}

TEST(H05_addresses_that_are_none)
{
        static const char *const units[] = { "(", "\"", "\\", "<", "@", ",", ">", "[", "\"\\", "<@", "()" };
        static const char *const none[] = {
                "((((", "\"unclosed <a@b.org>", "a@b.org\\", "<<<<", "a@b@c", "@", ",,,,", "<a@b@c>", "a b@c.org", "<a@b.org", "a@b.org>",
                "a@[1 2]", "a@b_.", ".@.", "\"a\"b@c.org", "a@b.org <", "<>", "a\x01@b.org", "a@b\xff.org", "=?utf-8?q?a@b.org?=",
        };
        size_t n, valid;

        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
                open_many("From: ", units[i], 100000, "\n\nbody\n");
                addresses("From", &valid);
                CHECK(valid == 0);
                CHECK(in_time());
                CHECK_STR(message_text(m), "body\n");
        }
        for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "From: %s\n\nx\n", none[i]);
                open_str(buf_str(&b));
                n = addresses("From", &valid);
                for (const struct addr *a = message_addresses(m, STR("From")); a; a = a->next)
                        if (a->valid && !str_eq(a->addr, STR("a@b.org"))) {
                                printf("%s became %.*s\n", none[i], STR_FMT(a->addr));
                                CHECK(!"no address");
                        }
                CHECK(n == valid || flagged("syntax.address"));
                buf_free(&b);
        }
        end();
}

TEST(H06_groups)
{
        static const char *const units[] = { "a:", ":;", "a:;", "a:;;;;", "a:b@c.org;", "a:b:", ";" };
        size_t valid;

        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
                open_many("To: ", units[i], 100000, "\n\nbody\n");
                CHECK(addresses("To", &valid) <= limits_default.addresses);
                CHECK(in_time());
        }
        OPEN("To: undisclosed-recipients:;, Friends: a@b.org, c@d.org; e@f.org\n\nx\n");
        CHECK(addresses("To", &valid) == 3 && valid == 3);
        CHECK_STR(message_addresses(m, STR("To"))->group, "Friends");
        CHECK(!message_addresses(m, STR("To"))->next->next->group.p);
        end();
}

TEST(H07_words_without_end)
{
        static const char *const heads[] = { "Subject: ", "Subject: =?utf-8?q?", "Subject: =?utf-8?b?", "Subject: =?tscii?q?", "Subject: =?koi8-r?q?" };
        static const char *const units[] = { "=?", "=?utf-8?q?", "=?utf-8?q?a", "=?utf-8?q?=?utf-8?q?x?=?=", "?=", "=?=", "=80", "=?x?q?y ", "=?utf-8?q?" "?=" };

        for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
                for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
                        open_many(heads[h], units[i], 8000, "?=\n\nbody\n");
                        CHECK(message_subject(m).p && message_subject(m).n <= 4 * message_size(m) + 1024);
                        CHECK(utf8_valid(message_subject(m)));
                        CHECK(in_time());
                }
        open_many("Subject: =?utf-8?q?", "x", 2 << 20, "?=\n\nbody\n");
        CHECK(message_subject(m).n > 0 && message_subject(m).n <= 4 * limits_default.header_field + 1024);
        CHECK(flagged("limit.header"));
        OPEN("Subject: hello =?utf-8?q?unterminated\n\nx\n");
        CHECK_STR(message_subject(m), "hello =?utf-8?q?unterminated");
        CHECK(flagged("syntax.words"));
        OPEN("Subject: a =?utf-8?x?b?= c =?utf-8?q?d?= =?\n\nx\n");
        CHECK_STR(message_subject(m), "a =?utf-8?x?b?= c d =?");
        open_many("Subject:", " =?utf-8?q?ab?=", 8000, "\n\nx\n");
        CHECK(str_starts(message_subject(m), STR("abab")));
        CHECK(flagged("limit.words"));
        end();
}

TEST(H08_charsets)
{
        static const struct {
                const char *subject, *want, *defect;
        } rows[] = {
                { "=?utf-8?q?=E2=82?= =?utf-8?q?=AC?=", "\xe2\x82\xac", NULL },
                { "=?utf-8?b?4oI=?= =?utf-8?b?rA==?=", "\xe2\x82\xac", NULL },
                { "=?iso-2022-jp?b?GyRCRnw=?= =?iso-2022-jp?b?S1wbKEI=?=", "\xe6\x97\xa5\xe6\x9c\xac", NULL },
                { "=?utf-8?q?=C0=AF?=", "\xef\xbf\xbd\xef\xbf\xbd", "syntax.words" },
                { "=?utf-8?q?=ED=A0=80?=", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "syntax.words" },
                { "=?utf-8?q?=F4=90=80=80?=", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "syntax.words" },
                { "=?utf-7?q?+AOQ-?=", "\xc3\xa4", NULL },
                { "=?../../x?q?=E4?=", "\xc3\xa4", "charset.unknown" },
                { "=?/etc/passwd?q?=E4?=", "\xc3\xa4", "charset.unknown" },
                { "=?utf-8//TRANSLIT?q?a?=", "a", NULL },
                { "=?x-nobody-knows?q?=C3=A4?=", "\xc3\xa4", "charset.unknown" },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "Subject: %s\n\nx\n", rows[i].subject);
                open_str(buf_str(&b));
                CHECK_STR(message_subject(m), rows[i].want);
                CHECK(!rows[i].defect || flagged(rows[i].defect));
                buf_free(&b);
        }
        open_many("Subject: =?", "x", 1000, "?q?=E4?=\n\nx\n");
        CHECK_STR(message_subject(m), "\xc3\xa4");
        CHECK(flagged("charset.unknown"));
        open_many("Subject: =?iso-2022-jp?q?", "=1B$B=1B(B", 10000, "?=\n\nx\n");
        CHECK(message_subject(m).p && in_time());
        open_many("Subject: =?utf-16?q?", "=D8=00", 10000, "?=\n\nx\n");
        CHECK(utf8_valid(message_subject(m)) && in_time());
        end();
}

TEST(H08_bytes_in_the_charset_of_the_text)
{
        OPEN("Subject: \xf0\xd2\xc9\xd7\xc5\xd4\nTo: \"\xf0\xd2\xc9, x\" <a@b.org>\nContent-Type: text/plain; charset=koi8-r\n\nx\n");
        CHECK_STR(message_subject(m), "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82");
        CHECK_STR(message_addresses(m, STR("To"))->name, "\xd0\x9f\xd1\x80\xd0\xb8, x");
        CHECK_STR(message_addresses(m, STR("To"))->addr, "a@b.org");
        CHECK(flagged("charset.guessed"));
        OPEN("Subject: \xf0\xd2\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b\nContent-Type: text/html; charset=koi8-r\n\nx\n--b--\n");
        CHECK_STR(message_subject(m), "\xd0\x9f\xd1\x80");
        OPEN("Subject: \xa5\\\xa5\x40\nTo: \"\xa5\\\" <a@b.org>\nContent-Type: text/plain; charset=big5\n\nx\n"); /* a backslash as second byte */
        CHECK_STR(message_subject(m), "\xe5\x8a\x9f\xe4\xb8\x96");
        CHECK_STR(message_addresses(m, STR("To"))->name, "\xe5\x8a\x9f");
        OPEN("Subject: caf\xe9\nContent-Type: text/plain; charset=utf-16\n\nx\n");
        CHECK_STR(message_subject(m), "caf\xc3\xa9");
        OPEN("To: a\xff@b.org\nSubject: caf\xe9\nContent-Type: text/plain; charset=ibm037\n\nx\n"); /* EBCDIC: ASCII would change */
        CHECK_STR(message_subject(m), "caf\xc3\xa9");
        CHECK(!message_addresses(m, STR("To"))->valid);
        OPEN("Subject: \x93hi\x94\nContent-Type: text/plain; charset=iso-8859-1\n\nx\n");
        CHECK_STR(message_subject(m), "\xe2\x80\x9chi\xe2\x80\x9d");
        OPEN("Subject: \x81\xff\nContent-Type: text/plain; charset=koi8-nobody\n\nx\n");
        CHECK(utf8_valid(message_subject(m)));
        end();
}

/* KOI8-R, by what stands nearest: the part's own charset, that of another text, Windows-1252. UTF-8 where it is valid. */
TEST(H08_names_of_files_in_the_charset_of_the_text)
{
#define NAMED(own, other, name)                                                                                                \
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n" own "Content-Disposition: attachment; filename=\"" name "\"\n\nx\n--b\n" \
        "Content-Type: text/plain" other "\n\nx\n--b--\n"
        static const struct {
                struct str text;
                const char *name;
                bool guessed;
        } table[] = {
#define N(text, name, guessed) { { text, sizeof text - 1 }, name, guessed }
                N(NAMED("", "; charset=koi8-r", "\xf0\xd2.txt"), "\xd0\x9f\xd1\x80.txt", true),
                N(NAMED("Content-Type: text/plain; charset=koi8-r\n", "", "\xf0\xd2.txt"), "\xd0\x9f\xd1\x80.txt", true),
                N(NAMED("Content-Type: text/plain; name=\"\xf0\xd2.txt\"; charset=koi8-r\n", "; charset=big5", "\xf0\xd2.txt"), "\xd0\x9f\xd1\x80.txt", true),
                N(NAMED("Content-Type: text/plain; charset=us-ascii\n", "; charset=koi8-r", "\xf0\xd2.txt"), "\xd0\x9f\xd1\x80.txt", true),
                N(NAMED("Content-Type: text/plain; charset=koi8-r\n", "; charset=koi8-r", "\xc3\xa9.txt"), "\xc3\xa9.txt", false),
                N(NAMED("", "; charset=big5", "\xa5\\.txt"), "\xe5\x8a\x9f.txt", true), /* a backslash as second byte */
                N(NAMED("", "; charset=utf-8", "caf\xe9.txt"), "caf\xc3\xa9.txt", false),
                N(NAMED("", "; charset=iso-8859-1", "\x93q\x94.txt"), "\xe2\x80\x9cq\xe2\x80\x9d.txt", false),
                N(NAMED("", "; charset=ibm037", "caf\xe9.txt"), "caf\xc3\xa9.txt", false),
                N(NAMED("", "; charset=koi8-r; name=\"\xf0\"", "\xf0\xd2.txt"), "\xd0\x9f\xd1\x80.txt", true),
        };
        struct part **leaves;

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                open_str(table[i].text);
                CHECK(message_leaves(m, &leaves) == 2);
                CHECK_STR(part_name(leaves[0]), table[i].name);
                CHECK(flagged("charset.guessed") == table[i].guessed);
        }
        end();
}

/* Two of a thousand parts whose names need each other's charset: an end, and the same answer whichever is asked first. */
TEST(H08_names_that_ask_each_other)
{
        static const char one[] = "--b\nContent-Type: text/plain; name=\"\xf0\xd2\"\n\nx\n";
        struct part **leaves;
        struct buf b = BUF_INIT;

        buf_add_str(&b, STR("Content-Type: multipart/mixed; boundary=b\n\n"));
        for (int i = 0; i < 1000; i++)
                buf_add(&b, one, sizeof one - 1);
        open_str(buf_str(&b));
        CHECK(message_leaves(m, &leaves) == 1000);
        CHECK_STR(part_name(leaves[0]), "\xc3\xb0\xc3\x92");
        CHECK_STR(part_name(leaves[999]), "\xc3\xb0\xc3\x92");
        CHECK(in_time());
        buf_free(&b);
        end();
}

/* No control character leaves a decoded value, so none can begin a new field, and none reaches a terminal. */
TEST(H09_controls_in_words)
{
        static const char *const subjects[] = {
                "=?utf-8?q?a=0D=0ABcc:_x@y.org?=", "=?utf-8?q?a=0ABcc:_x?=", "=?utf-8?q?a=0DBcc:_x?=", "=?utf-8?b?YQ0KQmNjOiB4?=", "=?utf-8?q?a=00b?=",
                "=?utf-8?q?=1B[2J=1B]0;x=07?=", "=?utf-8?q?=C2=9B2J?=", "=?utf-16be?q?=00a=00=0A=00B?=", "=?iso-8859-1?q?=9B2J?=", "=?utf-7?q?+AAo-Bcc:?=",
        };

        for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++) {
                struct buf b = BUF_INIT;
                struct str s;

                buf_printf(&b, "Subject: %s\nFrom: %s <a@b.org>\nContent-Type: text/plain; name=\"%s\"\n\nx\n", subjects[i], subjects[i], subjects[i]);
                open_str(buf_str(&b));
                for (int k = 0; k < 2; k++) {
                        s = k ? message_addresses(m, STR("From"))->name : message_subject(m);
                        CHECK(utf8_valid(s));
                        for (size_t at = 0; at < s.n; at++)
                                CHECK((unsigned char)s.p[at] >= 32 && s.p[at] != 127 &&
                                      !((unsigned char)s.p[at] == 0xc2 && (unsigned char)s.p[at + 1] < 0xa0));
                }
                CHECK(message_size(m) == b.n);
                buf_free(&b);
        }
        end();
}

TEST(H10_rfc2231)
{
        static const struct {
                const char *params, *want, *defect;
        } rows[] = {
                { "filename*0=a; filename*1=b; filename*2=c", "abc", NULL },
                { "filename*2=c; filename*1=b; filename*0=a", "abc", NULL },
                { "filename*1=b; filename*2=c", "bc", "syntax.parameters" },
                { "filename*0=a; filename*0=x; filename*1=b", "ab", "ambiguous.parameter" },
                { "filename*=utf-8''100%", "100%", "syntax.parameters" },
                { "filename*=utf-8''%zz%4", "%zz%4", "syntax.parameters" },
                { "filename*=utf-8'en-US'%C3%A4.txt", "\xc3\xa4.txt", NULL },
                { "filename*=utf-8''; filename=plain.txt", "plain.txt", NULL },
                { "filename*0*=utf-8''%C3; filename*1*=%A4", "\xc3\xa4", NULL },
                { "filename*99999=x; filename=plain.txt", "x", NULL },
                { "filename*99999999999999999999=x; filename=plain.txt", "plain.txt", "syntax.parameters" },
                { "filename*0*=../../x''%2e%2e; filename=a", "..", NULL },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "Content-Disposition: attachment; %s\n\nx\n", rows[i].params);
                open_str(buf_str(&b));
                CHECK_STR(part_name(leaf()), rows[i].want);
                if (rows[i].defect && !flagged(rows[i].defect)) {
                        printf("%s: no %s\n", rows[i].params, rows[i].defect);
                        CHECK(!"flagged");
                }
                buf_free(&b);
        }
        for (int reversed = 0; reversed < 2; reversed++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "Content-Disposition: attachment");
                for (int i = 0; i < 100000; i++)
                        buf_printf(&b, ";\n filename*%d=x", reversed ? 99999 - i : i);
                buf_printf(&b, "\n\nx\n");
                open_str(buf_str(&b));
                CHECK(part_name(leaf()).n > 0 && part_name(leaf()).n <= 128);
                CHECK(flagged("limit.parameters"));
                CHECK(in_time());
                buf_free(&b);
        }
        end();
}

TEST(H11_names_that_disagree)
{
        static const struct {
                const char *header, *want;
                bool ambiguous;
        } rows[] = {
                { "Content-Type: a/b; name=n\nContent-Disposition: attachment; filename=f; filename*=utf-8''x", "x", true },
                { "Content-Type: a/b; name=n\nContent-Disposition: attachment; filename=f", "f", true },
                { "Content-Type: a/b; name=n\nContent-Disposition: attachment", "n", false },
                { "Content-Type: a/b; name=n; name*=utf-8''x\nContent-Disposition: attachment", "x", true },
                { "Content-Type: a/b; name=f\nContent-Disposition: attachment; filename=f", "f", false },
                { "Content-Type: a/b; name=\"=?utf-8?q?=C3=A4?=\"\nContent-Disposition: attachment; filename*=utf-8''%C3%A4", "\xc3\xa4", false },
                { "Content-Disposition: attachment; filename=a; filename=b", "a", true },
                { "Content-Type: a/b; name=n\nContent-Disposition: attachment; filename=\"\"", "n", false },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct buf b = BUF_INIT;
                struct str *all;
                size_t n;

                buf_printf(&b, "%s\n\nx\n", rows[i].header);
                open_str(buf_str(&b));
                CHECK_STR(part_name(leaf()), rows[i].want);
                n = part_names(leaf(), &all);
                if (rows[i].ambiguous != (flagged("ambiguous.name") || flagged("ambiguous.parameter"))) {
                        printf("%s: flagged otherwise\n", rows[i].header);
                        CHECK(!"as the table says");
                }
                CHECK(n >= 1);
                buf_free(&b);
        }
        end();
}

TEST(H12_dates)
{
        static const char *const dates[] = {
                "", "Mon, 1 Jan 99999999999 00:00:00 +0000", "31 Feb 2003 10:00:00 +0000", "Fri, 7 Feb 2003 10:18:12 +9999", "not a date", "0",
                "Fri, 7 Feb 2003 10:18:12 +0000000000000000000000", "Fri, 7 Feb -2003 10:18:12 +0000", "99999999999999999999", "7 Feb 10000 00:00 +0000",
        };

        for (size_t i = 0; i < sizeof dates / sizeof *dates; i++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "Received: x; Fri, 7 Feb 2003 10:18:12 +0000\nDate: %s\n\nx\n", dates[i]);
                open_str(buf_str(&b));
                if (message_date(m) != 1044613092)
                        printf("read: %s\n", dates[i]);
                CHECK(message_date(m) == 1044613092);
                CHECK(flagged("date.from.received"));
                CHECK_STR(message_field(m, STR("Date")), dates[i]);
                buf_free(&b);
        }
        OPEN("Date: Fri, 7 Feb 2003\0 10:18:12 +0000\n\nx\n");
        CHECK(message_date(m) == 1000 && flagged("date.from.fetch"));
        open_many("Date: ", "(", 1 << 20, "\n\nx\n");
        CHECK(message_date(m) == 1000 && flagged("date.from.fetch") && in_time());
        open_many("Date: ", "1", 1 << 20, "\n\nx\n");
        CHECK(message_date(m) == 1000 && in_time());
        open_many("Date: ", "Mon, ", 1 << 18, "1 Jan 2003 00:00:00 +0000\n\nx\n");
        CHECK(message_date(m) == 1000 && in_time());
        end();
}

/* What a message says its identifier is, is text; identity is made of its bytes. */
TEST(H13_message_ids)
{
        static const char *const ids[] = { "", "Message-ID:\n", "Message-ID: <same@x>\n", "Message-ID: <same@x>\nMessage-ID: <other@x>\n",
                                           "Message-ID: <../../etc/passwd>\n", "Message-ID: <a\xff@x>\n", "Message-ID: <<<>>>\n", "Message-ID: no brackets at all\n" };
        uint8_t before[32] = { 0 }, now[32];
        struct err e;

        for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "%sSubject: %zu\n\nx\n", ids[i], i);
                open_str(buf_str(&b));
                CHECK(utf8_valid(message_id(m)));
                CHECK(message_identity(m, now, &e) && memcmp(now, before, 32) != 0);
                memcpy(before, now, 32);
                buf_free(&b);
        }
        OPEN("Message-ID: <same@x>\nMessage-ID: <other@x>\n\nx\n");
        CHECK_STR(message_id(m), "same@x");
        OPEN("Message-ID: \n\nx\n");
        CHECK(!message_id(m).p && flagged("syntax.id"));
        OPEN("A: b\n\nx\n");
        CHECK(!message_id(m).p && !flagged("syntax.id"));
        open_many("Message-ID: <", "x", 1 << 20, ">\n\nx\n");
        CHECK(message_id(m).n <= limits_default.header_field && in_time());
        open_many("References:", " <a@b>", 1 << 18, "\n\nx\n");
        {
                struct str *all;

                CHECK(message_ids(m, STR("References"), &all) > 0 && in_time());
        }
        end();
}

TEST(H14_received)
{
        open_many("", "Received: from a by b; Fri, 7 Feb 2003 10:18:12 +0000\n", 1000, "\nx\n");
        CHECK(message_received_count(m) == 1000);
        CHECK(flagged("received.loop"));
        open_many("", "Received: from a by b; Fri, 7 Feb 2003 10:18:12 +0000\n", 50, "\nx\n");
        CHECK(message_received_count(m) == 50);
        CHECK(!flagged("received.loop"));
        end();
}

/* "Aa" and "B@" have one djb2 hash, and so has every row of them. */
static void open_names(bool equal)
{
        struct buf b = BUF_INIT;

        for (unsigned i = 0; i < 10000; i++) {
                for (unsigned bit = 0; bit < 14; bit++)
                        buf_add_str(&b, i >> bit & 1 ? STR("Aa") : equal ? STR("B@") : STR("Zz"));
                buf_printf(&b, ": %u\n", i);
        }
        buf_printf(&b, "\nx\n");
        open_str(buf_str(&b));
        buf_free(&b);
}

TEST(H15_names_of_one_hash)
{
        for (int equal = 0; equal < 2; equal++) {
                char name[29] = "";
                struct str *all;

                open_names(equal);
                for (unsigned i = 0; i < 200; i++) {
                        unsigned k = i * 49;

                        for (unsigned bit = 0; bit < 14; bit++)
                                memcpy(name + bit * 2, k >> bit & 1 ? "Aa" : equal ? "B@" : "Zz", 2);
                        CHECK(message_fields(m, str_of(name), &all) == 1);
                        CHECK(atoi(all[0].p) == (int)k);
                }
                CHECK(in_time());
        }
        end();
}

TEST_MAIN
