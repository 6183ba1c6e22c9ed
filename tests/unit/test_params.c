#include "tests/unit/test.h"

#include "core/buf.h"
#include "core/mem.h"
#include "core/params.h"

static struct arena *a;
static struct params p;

static void parse_bytes(struct str raw)
{
        arena_free(a);
        a = arena_new(0);
        CHECK(params_parse(&p, raw, &limits_default, a));
}

static void parse(const char *raw)
{
        parse_bytes(str_of(raw));
}

static struct str get(const char *name)
{
        return params_value(&p, str_of(name));
}

TEST(values)
{
        parse(" text/plain; charset=us-ascii (Plain text)");
        CHECK_STR(p.value, "text/plain");
        CHECK_STR(get("Charset"), "us-ascii");
        CHECK(p.defects == 0 && !get("name").p);
        parse("(hello) TEXT (plain) / (world) Plain (eod);charset = \"us-ascii\" ; format=flowed");
        CHECK_STR(p.value, "text/plain");
        CHECK_STR(get("charset"), "us-ascii");
        CHECK_STR(get("format"), "flowed");
        parse("inline");
        CHECK_STR(p.value, "inline");
        parse("text/plain; charset = (ours) utf-8; boundary=(x); id=(c)\"i\"; name=(1) a.pdf");
        CHECK_STR(get("charset"), "utf-8");
        CHECK_STR(get("boundary"), "(x)");
        CHECK_STR(get("name"), "(1) a.pdf");
        parse("");
        CHECK_STR(p.value, "");
        parse(";charset=x");
        CHECK_STR(p.value, "");
        CHECK_STR(get("charset"), "x");
        parse("text/plain ;;;;; = ;; name=\"value\"");
        CHECK_STR(get("name"), "value");
        parse("multipart/mixed boundary=\"x y\"");
        CHECK_STR(p.value, "multipart/mixed");
        CHECK_STR(get("boundary"), "x y");
        CHECK(p.defects & PARAMS_SYNTAX);
}

TEST(quoting)
{
        parse("a/b; boundary=\"foo\r\n bar\"; x=\"a\\\"b\\\\c\\d\"; filename=\"C:\\new\\\"q\\\".txt\"");
        CHECK_STR(get("boundary"), "foo bar");
        CHECK_STR(get("x"), "a\"b\\cd");
        CHECK_STR(get("filename"), "C:\\new\"q\".txt");
        parse("a/b; filename=annual report (2).pdf; size=1");
        CHECK_STR(get("filename"), "annual report");
        parse("a/b; filename=report(2).pdf");
        CHECK_STR(get("filename"), "report(2).pdf");
        parse("a/b; filename=my report.pdf\r\n size=1");
        CHECK_STR(get("filename"), "my report.pdf");
        CHECK_STR(get("size"), "1");
        parse("a/b; name=\"never closed; x=y");
        CHECK_STR(get("name"), "never closed; x=y");
        CHECK(p.defects & PARAMS_SYNTAX);
        parse("a/b; charset=\"never closed");
        CHECK_STR(get("charset"), "\"never closed");
}

TEST(encoded_words_in_names)
{
        parse("a/b; name=\"=?utf-8?q?=E3=83=8F?=.png\"");
        CHECK_STR(get("name"), "\xe3\x83\x8f.png");
        parse("attachment; filename==?iso-8859-6?b?5dHNyMc=?=.gif");
        CHECK_STR(get("filename"), "\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7.gif");
        parse("attachment;\r\n\tfilename=\"=?utf-8?Q?Best=C3=A4tigung=2EPD?=\r\n =?utf-8?Q?F?=\"");
        CHECK_STR(get("filename"), "Best\xc3\xa4tigung.PDF");
        parse("a/b; boundary=\"=?utf-8?q?x?=\"; name=\"caf\xe9\"");
        CHECK_STR(get("boundary"), "=?utf-8?q?x?=");
        CHECK_STR(get("name"), "caf\xc3\xa9");
        parse("a/b; filename*0=\"=?utf-8?q?=C3\"; filename*1=\"=A4?=.txt\"");
        CHECK_STR(get("filename"), "\xc3\xa4.txt");
}

TEST(rfc2231)
{
        parse("a/b; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A");
        CHECK_STR(get("title"), "This is ***fun***");
        parse("a/b\n   title*0*=us-ascii'en'This%20is%20even%20more%20\n   title*1*=%2A%2A%2Afun%2A%2A%2A%20\n   title*2=\"isn't it!\"");
        CHECK_STR(get("title"), "This is even more ***fun*** isn't it!");
        CHECK(!params_find(&p, STR("title"))->literal.p);
        parse("a/b; URL*0=\"ftp://\";\n URL*1=\"cs.utk.edu/x.tar\"");
        CHECK_STR(get("url"), "ftp://cs.utk.edu/x.tar");
        parse("a/b; name*=\"iso-8859-1''HasenundFr%F6sche.txt\"");
        CHECK_STR(get("name"), "HasenundFr\xc3\xb6sche.txt");
        parse("a/b; filename*0*=utf-8''%C3; filename*1*=%A4"); /* a character split over two sections */
        CHECK_STR(get("filename"), "\xc3\xa4");
        CHECK(p.defects == 0);
}

TEST(quotes_around_a_value)
{
        static const struct {
                const char *text, *value;
                unsigned defects;
        } table[] = {
                { "\"text/plain\"; charset=utf-8", "text/plain", PARAMS_SYNTAX }, { "\"Attachment\"", "attachment", PARAMS_SYNTAX },
                { "\"text/plain", "\"text/plain", 0 }, { "\"\"", "\"\"", 0 }, { "\"", "\"", 0 }, { "text/plain", "text/plain", 0 },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                parse(table[i].text);
                CHECK_STR(p.value, table[i].value);
                CHECK(p.defects == table[i].defects);
        }
}

TEST(a_comma_for_a_semicolon_and_no_value_at_all)
{
        parse("text/plain, charset=utf-8");
        CHECK_STR(p.value, "text/plain");
        CHECK_STR(get("charset"), "utf-8");
        CHECK(p.defects & PARAMS_SYNTAX);
        parse("attachment, filename=a.txt");
        CHECK_STR(p.value, "attachment");
        CHECK_STR(get("filename"), "a.txt");
        parse("filename=\"a b.txt\"; size=3");
        CHECK_STR(get("filename"), "a b.txt");
        CHECK_STR(get("size"), "3");
        CHECK(p.defects & PARAMS_SYNTAX);
}

TEST(H10_sections)
{
        struct buf b = BUF_INIT;

        parse("a/b; f*1=b; f*0=a; f*2=c");
        CHECK_STR(get("f"), "abc");
        CHECK(p.defects == 0);
        parse("a/b; filename*1=b; filename*2=c");
        CHECK_STR(get("filename"), "bc");
        CHECK(p.defects & PARAMS_SYNTAX);
        parse("a/b; f*0=a; f*0=x; f*1=b");
        CHECK_STR(get("f"), "ab");
        CHECK(p.defects & PARAMS_DUPLICATE);
        parse("a/b; filename*=utf-8''100%; x=y");
        CHECK_STR(get("filename"), "100%");
        parse("a/b; filename*=utf-8''%zz%4");
        CHECK_STR(get("filename"), "%zz%4");
        parse("a/b; filename*=utf-8'en-US'x");
        CHECK_STR(get("filename"), "x");
        parse("a/b; filename*=utf-8''; filename=plain.txt");
        CHECK_STR(get("filename"), "plain.txt");
        parse("a/b; filename*=fakeset''%E4");
        CHECK_STR(get("filename"), "\xc3\xa4");
        CHECK(p.defects & PARAMS_CHARSET);
        parse("a/b; filename*=just%20text");
        CHECK_STR(get("filename"), "just text");
        buf_printf(&b, "a/b; filename=plain");
        for (int i = 0; i < 100000; i++)
                buf_printf(&b, "; f*%d=x", i);
        parse_bytes(buf_str(&b));
        CHECK(get("f").n == 128 && (p.defects & PARAMS_LIMIT));
        CHECK_STR(get("filename"), "plain");
        buf_free(&b);
}

TEST(M04_two_boundaries)
{
        parse("multipart/mixed; boundary=one; boundary=two");
        CHECK_STR(get("boundary"), "one");
        CHECK(p.defects & PARAMS_DUPLICATE);
        parse("multipart/mixed; boundary*0=two; boundary=one");
        CHECK_STR(get("boundary"), "one");
        CHECK_STR(params_find(&p, STR("boundary"))->literal, "one");
        CHECK(p.defects & PARAMS_AMBIGUOUS);
        parse("multipart/mixed; boundary(c)=two; boundary=one");
        CHECK_STR(get("boundary"), "two");
        CHECK(p.defects & PARAMS_DUPLICATE);
        parse("attachment; filename=a.txt; filename*=utf-8''b.txt");
        CHECK_STR(get("filename"), "b.txt");
        CHECK(p.defects & PARAMS_AMBIGUOUS);
        parse("attachment; filename=a.txt; filename*=utf-8''a.txt");
        CHECK(p.defects == 0);
}

TEST(many_parameters)
{
        struct buf b = BUF_INIT;
        unsigned n = 0;

        buf_printf(&b, "a/b");
        for (int i = 0; i < 20000; i++)
                buf_printf(&b, ";p%d=x", i);
        parse_bytes(buf_str(&b));
        for (struct param *q = p.first; q; q = q->next)
                n++;
        CHECK(n == 256 && (p.defects & PARAMS_LIMIT));
        buf_clear(&b);
        buf_printf(&b, "a/b;");
        while (b.n < 1 << 20)
                buf_printf(&b, "((((\"\\");
        parse_bytes(buf_str(&b));
        CHECK(p.defects & PARAMS_LIMIT);
        buf_free(&b);
}

TEST(every_cut)
{
        struct str whole = STR("text (c (d)) / plain; charset=\"ut\\\"f-8\" (x);\r\n filename*0*=utf-8''a%C3; filename*1=\"b c\"\r\n name=\"=?utf-8?q?x?=\"");

        for (size_t n = 0; n <= whole.n; n++) {
                char *copy = malloc(n ? n : 1);

                memcpy(copy, whole.p, n);
                parse_bytes(str_make(copy, n));
                for (struct param *q = p.first; q; q = q->next)
                        CHECK(q->value.p);
                free(copy);
        }
}

static struct str encode(const char *name, const char *value)
{
        arena_free(a);
        a = arena_new(0);
        return params_encode(str_of(name), str_of(value), a);
}

TEST(encoding)
{
        static const char *const values[] = {
                "x.pdf", "a b.pdf", "q\"uote\\.txt", "\xc3\xa4.txt", "", "it's", "a;b", "100%", "=?utf-8?q?x?=",
                "\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf.pdf",
                "a name of more than sixty bytes that goes on and on and on and on and on and on.pdf",
        };
        struct str e;

        CHECK_STR(encode("filename", "x.pdf"), ";\r\n filename=x.pdf");
        CHECK_STR(encode("filename", "\xc3\xa4"), ";\r\n filename*=utf-8''%C3%A4");
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
                struct buf b = BUF_INIT;
                struct params q;

                e = encode("filename", values[i]);
                buf_printf(&b, "attachment%.*s", STR_FMT(e));
                CHECK(params_parse(&q, buf_str(&b), &limits_default, a));
                CHECK_STR(params_value(&q, STR("filename")), values[i]);
                CHECK(q.defects == 0);
                buf_free(&b);
        }
}

TEST(out_of_memory)
{
        size_t n;
        bool ok = false;

        for (n = 1; n < 100 && !ok; n++) {
                struct arena *one = arena_new(0);

                mem_fail_at(n);
                ok = params_parse(&p, STR("a/b; x=\"y\"; filename*0*=koi8-r''%D0; name=\"=?utf-8?q?x?=\""), &limits_default, one);
                mem_fail_at(0);
                arena_free(one);
        }
        CHECK(ok && n > 2);
        arena_free(a);
        a = NULL;
}

TEST_MAIN
