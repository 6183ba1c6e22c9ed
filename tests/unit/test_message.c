#include "core/message.h"

#include "tests/unit/test.h"
#include "core/buf.h"
#include "core/defects.h"
#include "core/mem.h"

static struct message *open_range(struct backing *bytes, size_t n, const struct limits *lim)
{
        struct origin o = { .source = STR("test"), .fetched = 1000 };
        struct err e;
        struct message *m = message_new((struct range){ bytes, 0, n }, &o, lim, &e);

        backing_unref(bytes);
        return m;
}

static struct message *open_with(struct str s, const struct limits *lim)
{
        return open_range(backing_memory(mem_dup(s.p, s.n), s.n), s.n, lim);
}

static struct message *open_message(struct str s)
{
        return open_with(s, &limits_default);
}
#define OPEN(text) open_message(STR(text))

static bool flagged(struct message *m, const char *name)
{
        size_t n;
        const char *const *names = message_defects(m, &n);

        for (size_t i = 0; i < n; i++)
                if (strcmp(names[i], name) == 0)
                        return true;
        return false;
}

static void check_paths(int line, struct str text, const char *want, bool opened)
{
        struct message *m = open_message(text);
        struct part **leaves;
        size_t n = opened ? message_open_leaves(m, &leaves) : message_leaves(m, &leaves);
        struct buf b = BUF_INIT;

        for (size_t i = 0; i < n; i++)
                buf_printf(&b, "%s%.*s", i ? " " : "", STR_FMT(part_path(leaves[i])));
        test_same(__FILE__, line, "paths", buf_str(&b), str_of(want));
        buf_free(&b);
        message_free(m);
}
#define CHECK_PATHS(text, want) check_paths(__LINE__, STR(text), want, false)

#define MIXED(b, parts) "Content-Type: multipart/mixed; boundary=" b "\n\n" parts "--" b "--\n"
#define PART(b, entity) "--" b "\n" entity "\n"

TEST(paths)
{
        CHECK_PATHS("A: b\n\nx", "1");
        CHECK_PATHS(MIXED("a", PART("a", "\nx") PART("a", "\ny")), "1 2");
        CHECK_PATHS(MIXED("a", PART("a", "\nx") PART("a", MIXED("b", PART("b", "\ny") PART("b", "\nz")))), "1 2.1 2.2");
        CHECK_PATHS(MIXED("a", PART("a", "Content-Type: message/rfc822\n\nA: b\n\nx")), "1.1");
        CHECK_PATHS(MIXED("a", PART("a", "\nx") PART("a", "Content-Type: message/rfc822\n\n" MIXED("b", PART("b", "\ny")))), "1 2.1");
        CHECK_PATHS("Content-Type: message/rfc822\n\nA: b\n\nx", "1.1");
        CHECK_PATHS("Content-Type: message/rfc822\n\nContent-Type: message/rfc822\n\nA: b\n\nx", "1.1.1");
        CHECK_PATHS(MIXED("a", ""), "");
}

/* "From: a\nSubject: in\n\nhidden" in base64. */
#define WRAPPED "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nRnJvbTogYQpTdWJqZWN0OiBpbgoKaGlkZGVu\n"

TEST(wrappers_open)
{
        struct message *m = OPEN(MIXED("a", PART("a", "\nx") PART("a", WRAPPED)));
        struct part **leaves;

        check_paths(__LINE__, STR(MIXED("a", PART("a", "\nx") PART("a", WRAPPED))), "1 2", false);
        NEED(message_leaves(m, &leaves) == 2);
        CHECK(part_index(leaves[1]) == 2);
        NEED(message_open_leaves(m, &leaves) == 2);
        CHECK_STR(part_path(leaves[1]), "2.1");
        CHECK_STR(part_text(leaves[1]), "hidden");
        CHECK(part_index(leaves[1]) == 3);
        CHECK(part_message(leaves[1]) == m);
        CHECK(message_leaves(m, &leaves) == 2);
        CHECK(part_size(leaves[1]) == 27);
        message_free(m);
}

TEST(header_fields)
{
        struct message *m = OPEN("Subject: =?utf-8?q?=C3=A4?= x\nX-A: 1\nX-A: 2\nTo: Ann <a@B.org>\nTo: c@d.e\n"
                                 "References: <a@b> <c@d>\nMessage-ID: <m@id>\nList-Id: A list <The.List.ORG>\n"
                                 "Date: Mon, 23 Nov 2026 05:41:00 +0000\nDelivered-To: me@here.org\n\n");
        struct str *list;
        const struct addr *a;

        CHECK_STR(message_subject(m), "\xc3\xa4 x");
        CHECK(message_fields(m, STR("x-a"), &list) == 2);
        CHECK_STR(list[1], "2");
        a = message_addresses(m, STR("to"));
        NEED(a && a->next && !a->next->next);
        CHECK_STR(a->addr, "a@b.org");
        CHECK_STR(a->next->addr, "c@d.e");
        CHECK(message_addresses(m, STR("To")) == a);
        CHECK(message_ids(m, STR("references"), &list) == 2);
        CHECK_STR(list[0], "a@b");
        CHECK_STR(message_id(m), "m@id");
        CHECK_STR(message_list_id(m), "the.list.org");
        CHECK_STR(message_envelope_to(m), "me@here.org");
        CHECK(message_date(m) == 1795412460);
        CHECK(!message_field(m, STR("none")).p);
        CHECK(message_fields(m, STR("none"), &list) == 0);
        message_free(m);
}

TEST(dates_fall_back)
{
        struct message *m = OPEN("Date: yesterday\nReceived: by x; Mon, 23 Nov 2026 05:41:00 +0000\n\n");

        CHECK(message_date(m) == 1795412460);
        CHECK(flagged(m, "date.from.received"));
        message_free(m);
        m = OPEN("Subject: x\n\n");
        CHECK(message_date(m) == 1000);
        CHECK(message_received(m) == 1000);
        CHECK(flagged(m, "date.from.fetch"));
        message_free(m);
}

TEST(M21_nothing)
{
        static const struct str empties[] = { { "", 0 }, { "\n", 1 }, { "\r\n", 2 }, { "x", 1 }, { "A: b", 4 }, { "\n\nbody", 6 } };

        for (size_t i = 0; i < sizeof empties / sizeof *empties; i++) {
                struct message *m = open_message(empties[i]);
                struct part **list;

                CHECK_STR(message_subject(m), "");
                CHECK(message_leaves(m, &list) == 1);
                CHECK(message_text(m).p != NULL);
                CHECK(!message_html(m).p);
                CHECK(message_attachments(m, &list) == 0);
                CHECK(message_trouble(m)->code == ERR_NONE);
                message_free(m);
        }
}

#define ALTERNATIVE(plain, html) \
        "Content-Type: multipart/alternative; boundary=alt\n\n--alt\n\n" plain "\n--alt\nContent-Type: text/html\n\n" html "\n--alt--\n"

TEST(text_of_the_best_part)
{
        static const struct {
                const char *mail, *text;
        } table[] = {
                { ALTERNATIVE("plain", "<p>html</p>"), "plain" },
                { ALTERNATIVE("  ", "<p>html</p>"), "html\n" },
                { "Content-Type: text/html\n\n<p>only <b>html</b>", "only html\n" },
                { MIXED("a", PART("a", "Content-Type: text/html\n\n<p>said") PART("a", "\na list's footer")), "said\n" },
                { MIXED("a", PART("a", "Content-Type: text/html\n\n<p>") PART("a", "\nsaid")), "said" },
                { MIXED("a", PART("a", "\nsaid") PART("a", "Content-Type: text/html\n\n<p>footer")), "said" },
                { MIXED("a", PART("a", "Content-Type: multipart/alternative; boundary=b\n\n" PART("b", "Content-Type: text/html\n\n<p>html")
                                       PART("b", "\nplain"))), "plain\n" },
                { MIXED("a", PART("a", "Content-Disposition: attachment\n\nfile") PART("a", "\nbody")), "body" },
                { MIXED("a", PART("a", "Content-Type: text/plain; name=x.txt\n\nnamed")), "named" },
                { MIXED("a", PART("a", "Content-Type: message/rfc822\n\nA: b\n\nforwarded")), "forwarded" },
                { MIXED("a", PART("a", "Content-Type: image/png\n\nx")), "" },
                { "Content-Type: text/plain; charset=windows-1252\n\n\xe4\r\n\x80", "\xc3\xa4\n\xe2\x82\xac" },
                { "Content-Type: text/plain\n\n\xc3\xa4", "\xc3\xa4" },
                { "Content-Type: text/plain; format=Flowed\n\none \ntwo\n", "one two\n" },
                { "Content-Type: text/plain; format=flowed\n\n", "" },
                { "Content-Type: text/plain\n\n\xe4", "\xc3\xa4" },
                { "Content-Type: text/html\n\n<meta charset=iso-8859-2>\xb1", "\xc4\x85\n" },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct message *m = open_message(str_of(table[i].mail));

                CHECK_STR(message_text(m), table[i].text);
                message_free(m);
        }
}

/* What nobody declared, or declared wrongly: marks, meta elements, the bytes themselves. */
TEST(text_in_charsets_undeclared)
{
        static const struct {
                struct str mail;
                const char *text, *part, *defect; /* part: where part.text is another */
        } table[] = {
#define M(s) { s, sizeof s - 1 }
#define PLAIN "Content-Type: text/plain"
#define HTML "Content-Type: text/html"
                { M("\nGr\xc3\xbc"), "Gr\xc3\xbc", NULL, "charset.guessed" },
                { M("\nGr\xfc \x93x\x94"), "Gr\xc3\xbc \xe2\x80\x9cx\xe2\x80\x9d", NULL, "charset.guessed" },
                { M(PLAIN "; charset=us-ascii\n\nGr\xc3\xbc"), "Gr\xc3\xbc", NULL, "charset.guessed" },
                { M(PLAIN "; charset=unknown-8bit\n\nGr\xc3\xbc"), "Gr\xc3\xbc", NULL, "charset.unknown" },
                { M(PLAIN "; charset=x-unknown\n\nGr\xfc"), "Gr\xc3\xbc", NULL, "charset.unknown" },
                { M(PLAIN "\n\n\xef\xbb\xbfGr\xc3\xbc"), "Gr\xc3\xbc", NULL, "charset.guessed" },
                { M(PLAIN "\n\n\xff\xfeG\0r\0\xfc\0"), "Gr\xc3\xbc", NULL, "charset.guessed" },
                { M(PLAIN "\n\n\xfe\xff\0G\0r\0\xfc"), "Gr\xc3\xbc", NULL, "charset.guessed" },
                { M(PLAIN "; charset=utf-8\n\n\xef\xbb\xbf" "bom"), "bom", "\xef\xbb\xbf" "bom", NULL },
                { M(PLAIN "; charset=utf-16\n\n\0G\0r\0\xfc"), "Gr\xc3\xbc", NULL, NULL },
                { M(PLAIN "; charset=utf-16\n\nG\0r\0\xfc\0"), "Gr\xc3\xbc", NULL, NULL },
                { M(PLAIN "; charset=utf-16\n\n\xff\xfeG\0r\0\xfc\0"), "Gr\xc3\xbc", NULL, NULL },
                { M(PLAIN "\n\n\x1b$BF|K\\\x1b(B!"), "\xe6\x97\xa5\xe6\x9c\xac!", NULL, "charset.guessed" },
                { M(PLAIN "; charset=iso-8859-1\n\n\x93q\x94 \x80 \xe4"), "\xe2\x80\x9cq\xe2\x80\x9d \xe2\x82\xac \xc3\xa4",
                  "\xc2\x93q\xc2\x94 \xc2\x80 \xc3\xa4", NULL },
                { M(HTML "; charset=ISO-8859-1\n\n\x93q\x94"), "\xe2\x80\x9cq\xe2\x80\x9d\n", "\xc2\x93q\xc2\x94", NULL },
                { M(PLAIN "; charset=utf-8\n\ncaf\xe9"), "caf\xef\xbf\xbd", NULL, "charset.bad" },
                { M(HTML "\n\n<meta charset=koi8-r>\xf0\xd2"), "\xd0\x9f\xd1\x80\n", "<meta charset=koi8-r>\xd0\x9f\xd1\x80", NULL },
                { M(HTML "; charset=us-ascii\n\n<meta charset=koi8-r>\xf0"), "\xd0\x9f\n", "<meta charset=koi8-r>\xd0\x9f", NULL },
                { M(HTML "; charset=utf-8\n\n<meta charset=koi8-r>\xd0\x9f"), "\xd0\x9f\n", "<meta charset=koi8-r>\xd0\x9f", NULL },
                { M(HTML "\n\n<meta charset=utf-16>\xc3\xbc"), "\xc3\xbc\n", "<meta charset=utf-16>\xc3\xbc", NULL },
                { M(HTML "\n\n\xef\xbb\xbf<meta charset=koi8-r>\xc3\xbc"), "\xc3\xbc\n", "<meta charset=koi8-r>\xc3\xbc", "charset.guessed" },
                { M(HTML "\n\n\xe4"), "\xc3\xa4\n", "\xc3\xa4", "charset.guessed" },
#undef M
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct message *m = open_message(table[i].mail);
                struct part **leaves;
                int bad = test_bad;

                CHECK_STR(message_text(m), table[i].text);
                NEED(message_leaves(m, &leaves) == 1);
                CHECK_STR(part_text(leaves[0]), table[i].part ? table[i].part : table[i].text);
                CHECK(!table[i].defect || flagged(m, table[i].defect));
                if (!table[i].defect)
                        CHECK(!flagged(m, "charset.guessed") && !flagged(m, "charset.bad") && !flagged(m, "charset.unknown"));
                if (test_bad != bad)
                        printf("text %zu\n", i);
                message_free(m);
        }
}

/* The empty line before the first boundary is forgotten: the parts are not lost, and their fields are not the message's, whichever is asked
 * for first. */
TEST(boundary_in_its_own_header)
{
        for (int tree_first = 0; tree_first < 2; tree_first++) {
                struct message *m = open_message(STR("Content-Type: multipart/mixed; boundary=b\nSubject: s\n--b\nContent-Type: text/html\nX-Of: part\n\n<p>x\n--b--\n"));
                struct part **leaves;

                if (tree_first)
                        NEED(message_leaves(m, &leaves) == 1);
                CHECK(!message_field(m, STR("x-of")).p);
                CHECK_STR(message_subject(m), "s");
                NEED(message_leaves(m, &leaves) == 1);
                CHECK_STR(part_type(leaves[0]), "text/html");
                CHECK_STR(message_text(m), "x\n");
                CHECK(flagged(m, "header.unended"));
                message_free(m);
        }
}

/* Headers in Japanese as mail was before encoded-words: a quote or a backslash may be half a character. */
TEST(japanese_shifts_in_headers)
{
        struct message *m = open_message(STR("Subject: Re: \x1b$BF|K\\\x1b(B!\nFrom: \x1b$B\"\"F|\x1b(B <a@b.org>\nContent-Type: application/pdf;\n"
                                             "\tname=\"\x1b$BF|K\\\x1b(B.pdf\"\n\nx\n"));
        struct message *words = open_message(STR("Subject: =?utf-8?q?a?= \x1b$BF|\x1b(B\n\nx\n"));
        struct part **leaves;

        CHECK_STR(message_subject(m), "Re: \xe6\x97\xa5\xe6\x9c\xac!");
        CHECK_STR(message_addresses(m, STR("from"))->name, "\xe2\x96\xa1\xe6\x97\xa5");
        CHECK_STR(message_addresses(m, STR("from"))->addr, "a@b.org");
        NEED(message_leaves(m, &leaves) == 1);
        CHECK_STR(part_name(leaves[0]), "\xe6\x97\xa5\xe6\x9c\xac.pdf");
        CHECK(flagged(m, "charset.guessed"));
        CHECK_STR(message_subject(words), "a $BF|(B");
        message_free(m);
        message_free(words);
}

TEST(flowed_text)
{
        static const struct {
                const char *mail, *text;
        } table[] = {
                { PLAIN "; format=flowed\n\none \ntwo \nthree\nfour\n", "one two three\nfour\n" },
                { PLAIN "; format=flowed; delsp=yes\n\nlong- \nword and \n more\n", "long-word andmore\n" },
                { PLAIN "; format=flowed; DelSp=YES; charset=utf-8\n\n\xe6\xbc\xa2 \n\xe5\xad\x97\n", "\xe6\xbc\xa2\xe5\xad\x97\n" },
                { PLAIN "; format=flowed\n\n> a \n> b\n>> c\n> d\n", "> a b\n>> c\n> d\n" },
                { PLAIN "; format=flowed\n\n From x\n >no quote\n", "From x\n>no quote\n" },
                { PLAIN "; format=flowed\n\ntext\n-- \nAnn\n", "text\n-- \nAnn\n" },
                { PLAIN "; format=fixed\n\none \ntwo\n", "one \ntwo\n" },
                { PLAIN "; format=flowed\nContent-Transfer-Encoding: quoted-printable\n\none=20\ntwo\n", "one two\n" },
                { HTML "; format=flowed\n\n<pre>one \ntwo</pre>", "one \ntwo\n" },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct message *m = open_message(str_of(table[i].mail));

                CHECK_STR(message_text(m), table[i].text);
                message_free(m);
        }
}

TEST(text_stops_at_its_limit)
{
        struct limits lim = limits_default;
        struct part **leaves;
        struct message *m;

        lim.text = 4;
        m = open_with(STR("Content-Type: text/plain; charset=utf-8\n\nab\xc3\xa4\xc3\xa4"), &lim);
        CHECK_STR(message_text(m), "ab\xc3\xa4");
        CHECK(flagged(m, "text.cut"));
        CHECK(!message_over_limit(m));
        NEED(message_leaves(m, &leaves) == 1);
        CHECK(part_content(leaves[0]).n == 4);
        CHECK(part_size(leaves[0]) == 6);
        message_free(m);
}

TEST(H11_names)
{
        struct message *m = OPEN("Content-Type: application/pdf; name=\"a.pdf\"\n"
                                 "Content-Disposition: attachment; filename=\"b.pdf\"; filename*=utf-8''%c3%a4.pdf\n"
                                 "Content-ID: <x@y>\n\nx");
        struct part **leaves;

        NEED(message_leaves(m, &leaves) == 1);
        CHECK_STR(part_name(leaves[0]), "\xc3\xa4.pdf");
        CHECK_STR(part_disposition(leaves[0]), "attachment");
        CHECK_STR(part_id(leaves[0]), "x@y");
        CHECK_STR(part_type(leaves[0]), "application/pdf");
        CHECK(!part_charset(leaves[0]).p);
        CHECK(flagged(m, "ambiguous.name"));
        message_free(m);
}

static void check_attached(int line, const char *head, bool want, const char *why)
{
        struct buf b = BUF_INIT;
        struct message *m;
        struct part **leaves;
        struct str reason;

        buf_printf(&b, "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/html\n\n"
                       "<img src=\"cid:logo%%40x\">\n--a\n%s\n\nbytes\n--a--\n", head);
        m = open_message(buf_str(&b));
        if (message_leaves(m, &leaves) != 2 || part_attached(leaves[1], &reason) != want || !str_eq(reason, str_of(why))) {
                test_bad++;
                printf("%s:%d: %s: %.*s\n", __FILE__, line, head, STR_FMT(reason));
        }
        CHECK(!part_attached(leaves[0], NULL));
        CHECK(!part_attached(message_root(m), NULL));
        message_free(m);
        buf_free(&b);
}

TEST(attached)
{
        check_attached(__LINE__, "Content-Type: application/pdf; name=x.pdf\nContent-Disposition: inline", true, "named");
        check_attached(__LINE__, "Content-Type: text/plain\nContent-Disposition: attachment", true, "declared an attachment");
        check_attached(__LINE__, "Content-Type: image/png; name=logo.png\nContent-ID: <logo@x>\nContent-Disposition: attachment", false,
                       "shown by the html");
        check_attached(__LINE__, "Content-Type: image/png; name=a.png\nContent-ID: <other@x>\nContent-Disposition: attachment", true,
                       "declared an attachment");
        check_attached(__LINE__, "Content-Type: application/pgp-signature; name=signature.asc", false, "signature");
        check_attached(__LINE__, "Content-Type: message/delivery-status", false, "report");
        check_attached(__LINE__, "Content-Type: text/plain", false, "text");
        check_attached(__LINE__, "Content-Type: text/csv", true, "not text");
        check_attached(__LINE__, "Content-Type: audio/mpeg", true, "not text");
}

TEST(detected)
{
        struct message *m = OPEN("Content-Type: application/octet-stream\n\n%PDF-1.4\n%...\n");
        struct part **leaves;

        NEED(message_leaves(m, &leaves) == 1);
        CHECK_STR(part_detected(leaves[0]), "application/pdf");
        CHECK_STR(part_detected(message_root(m)), "");
        message_free(m);
}

TEST(limits_show)
{
        struct limits lim = limits_default;
        struct message *m;

        lim.parts = 3;
        m = open_with(STR(MIXED("a", PART("a", "\nx") PART("a", "\ny") PART("a", "\nz"))), &lim);
        CHECK(message_over_limit(m));
        CHECK(flagged(m, "limit.parts"));
        message_free(m);
        m = OPEN("A: b\n\nx");
        CHECK(!message_over_limit(m));
        message_free(m);
}

TEST(every_defect_has_a_meaning)
{
        for (size_t i = 1; i < defect_words_count; i++)
                CHECK(strcmp(defect_words[i - 1].name, defect_words[i].name) < 0 && defect_words[i].meaning[0]);
}

/* Ten thousand parts that each ask for everything: linear, and little memory. */
TEST(M02_many_parts)
{
        struct buf b = BUF_INIT;
        struct part **list;
        struct message *m;

        buf_printf(&b, "Content-Type: multipart/mixed; boundary=a\n\n");
        for (int i = 0; i < 20000; i++)
                buf_printf(&b, "--a\nContent-Type: application/x; name=n%d\n\nx\n", i);
        m = open_message(buf_str(&b));
        CHECK(message_attachments(m, &list) == limits_default.parts - 1);
        CHECK(message_over_limit(m));
        message_free(m);
        buf_free(&b);
}

/* Base64 inside base64 inside …: each opened once. */
TEST(M01_wrappers_in_wrappers)
{
        struct message *m = OPEN(MIXED("a", PART("a", WRAPPED) PART("a", "Content-Type: message/rfc822\n"
                                 "Content-Transfer-Encoding: quoted-printable\n\n" WRAPPED)));
        struct part **leaves;
        size_t n = message_open_leaves(m, &leaves);

        CHECK(n == 2);
        CHECK_STR(part_path(leaves[n - 1]), "2.1.1");
        message_free(m);
}

/* Two files, a message with one, and an html body; the first name is "../a\nb.txt". */
#define TNEF_BYTES \
        "eJ8+IgEAAgKQBgAOAAAAAQAAAAAAAAAAAAAAAAABAAIQgAEACwAAAC4uL2EKYi50eHQA5gICD4AG\n" \
        "AAUAAABmaXJzdCgCAgKQBgAOAAAAAQAAAAAAAAAAAAAAAAABAAIQgAEABgAAAGIuYmluAMkBAg+A\n" \
        "BgAGAAAAc2Vjb25kfAICApAGAA4AAAABAAAAAAAAAAAAAAAAAAEAAgWQBgBkAAAAAQAAAA0AATcB\n" \
        "AAAAUQAAAAcDAgAAAAAAwAAAAAAAAEZ4nz4iAQACApAGAA4AAAABAAAAAAAAAAAAAAAAAAEAAhCA\n" \
        "AQAHAAAAaW4udHh0AGUCAg+ABgAFAAAAaW5uZXIcAgAAAAgKAQOQBgAgAAAAAQAAAAIBExABAAAA\n" \
        "DwAAADxwPnNhaWQgaW4gaHRtbACOBQ==\n"

/* The paths and names of the leaves with wrappers opened, attachments marked. */
static struct str listed(struct message *m, struct buf *b)
{
        struct part **leaves;
        size_t n = message_open_leaves(m, &leaves);

        buf_clear(b);
        for (size_t i = 0; i < n; i++)
                buf_printf(b, "%s%.*s%s%.*s", i ? " " : "", STR_FMT(part_path(leaves[i])), part_attached(leaves[i], NULL) ? ":" : "",
                           STR_FMT(part_name(leaves[i])));
        return b->n ? buf_str(b) : STR("");
}

static void check_listed(int line, struct str text, const char *want, const char *defect)
{
        struct message *m = open_message(text);
        struct buf b = BUF_INIT;
        size_t n;

        test_same(__FILE__, line, "leaves", listed(m, &b), str_of(want));
        message_defects(m, &n);
        if (defect ? !flagged(m, defect) : n > 0) {
                test_bad++;
                printf("%s:%d: %zu defects, not %s\n", __FILE__, line, n, defect ? defect : "none");
        }
        CHECK(message_trouble(m)->code == ERR_NONE);
        buf_free(&b);
        message_free(m);
}
#define LISTED(text, want, defect) check_listed(__LINE__, STR(text), want, defect)
#define BASE64 "Content-Transfer-Encoding: base64\n"
#define TNEF_LEAVES "2.1 2.2:../a b.txt 2.3:b.bin 2.4.1:in.txt"

TEST(M18_tnef)
{
        struct message *m = OPEN(MIXED("a", PART("a", "\nx") PART("a", "Content-Type: application/ms-tnef\n" BASE64 "\n" TNEF_BYTES)));
        struct part **leaves, **children;

        NEED(message_leaves(m, &leaves) == 2);
        CHECK(part_index(leaves[1]) == 2);
        NEED(message_open_leaves(m, &leaves) == 5);
        CHECK_STR(part_type(leaves[1]), "text/html");
        CHECK_STR(part_text(leaves[1]), "<p>said in html");
        CHECK_STR(part_content(leaves[2]), "first");
        CHECK_STR(part_content(leaves[4]), "inner");
        CHECK(part_index(leaves[4]) == 6 && part_is_wrapped(leaves[4]) && !part_is_wrapped(leaves[0]));
        CHECK(!part_field(leaves[2], STR("content-type")).p);
        CHECK(message_leaves(m, &leaves) == 2 && part_children(leaves[1], &children) == 4);
        CHECK_STR(message_text(m), "x");
        CHECK_STR(message_html(m), "<p>said in html");
        message_free(m);
        LISTED(MIXED("a", PART("a", "\nx") PART("a", "Content-Type: application/vnd.ms-tnef; name=winmail.dat\n" BASE64 "\n" TNEF_BYTES)),
               "1 " TNEF_LEAVES, NULL);
        LISTED(MIXED("a", PART("a", "\nx") PART("a", "Content-Type: application/x-y; name=WinMail.DAT\n" BASE64 "\n" TNEF_BYTES)),
               "1 " TNEF_LEAVES, NULL);
        LISTED(MIXED("a", PART("a", "\nx") PART("a", "Content-Type: application/octet-stream; name=att00001.dat\n" BASE64 "\n" TNEF_BYTES)),
               "1 " TNEF_LEAVES, NULL);
}

TEST(M18_tnef_broken)
{
        struct limits few = limits_default;
        struct message *m;
        struct buf b = BUF_INIT;

        LISTED("Content-Type: application/ms-tnef\n\nthis is none", "1:", "tnef.broken");
        LISTED("Content-Type: application/ms-tnef; name=winmail.dat\n" BASE64 "\neJ8+IgEA\n", "", NULL); /* nothing in it */
        LISTED("Content-Type: application/ms-tnef; name=winmail.dat\n" BASE64 "\neJ8+IgEAAgKQ\n", "1:winmail.dat", "tnef.broken");
        few.opened_parts = 1;
        m = open_with(STR(MIXED("a", PART("a", "\nx") PART("a", "Content-Type: application/ms-tnef\n" BASE64 "\n" TNEF_BYTES))), &few);
        CHECK_STR(listed(m, &b), "1 2: 2.1 2.2:../a b.txt"); /* bodies are not counted against it, files are */
        CHECK(flagged(m, "limit.opened"));
        message_free(m);
        few = limits_default;
        few.depth = 3; /* the message inside is not looked into */
        m = open_with(STR(MIXED("a", PART("a", "\nx") PART("a", "Content-Type: application/ms-tnef\n" BASE64 "\n" TNEF_BYTES))), &few);
        CHECK_STR(listed(m, &b), "1 2.1 2.2:../a b.txt 2.3:b.bin 2.4:");
        CHECK(flagged(m, "limit.opened"));
        message_free(m);
        buf_free(&b);
}

#define UU(name) "begin 644 " name "\n#8V%T\n`\nend\n"

TEST(M19_uuencode_in_text)
{
        struct message *m = OPEN("A: b\n\nsee\n" UU("../../x") "and\n" UU("y.txt") "bye\n");
        struct part **leaves;

        NEED(message_leaves(m, &leaves) == 1);
        CHECK_STR(message_text(m), "see\nand\nbye\n");
        CHECK(part_text(leaves[0]).n > 50);
        NEED(message_attachments(m, &leaves) == 2);
        CHECK_STR(part_name(leaves[0]), "../../x"); /* raw; cleaned where it becomes a path */
        CHECK_STR(part_path(leaves[1]), "1.2");
        CHECK(part_index(leaves[1]) == 3 && part_is_wrapped(leaves[1]));
        CHECK_STR(part_content(leaves[1]), "cat");
        CHECK(part_size(leaves[1]) == 3);
        message_free(m);
        LISTED("Content-Transfer-Encoding: quoted-printable\n\nsee\nbegin=20644 x\n#8V%T\n`\nend\n", "1 1.1:x", NULL);
        LISTED("Content-Transfer-Encoding: base64\n\nYmVnaW4gNjQ0IHgKIzhWJVQKYAplbmQK", "1 1.1:x", NULL);
        LISTED("Content-Type: text/html\n\n" UU("x"), "1", NULL);
        LISTED("Content-Type: text/plain; name=x.uue\n\n" UU("x"), "1:x.uue", NULL); /* a file that someone sent as it is */
        LISTED("A: b\n\n=ybegin line=128 size=3 name=x\nabc\n=yend size=3\n", "1", NULL);
        LISTED("A: b\n\nbegin 644 x\nM````````````````````````````````````````````````````````````\n", "1 1.1:x", "uu.unended");
        LISTED("A: b\n\n" "begin 644 winmail.dat\n&>)\\^(@$`\n`\nend\n", "1", NULL); /* a wrapper in a wrapper, with nothing in it */
}

/* Signed by nobody, in pieces; a multipart with a text and a file. */
#define SIGNED \
        "MIAGCSqGSIb3DQEHAqCAMIACAQExADCABgkqhkiG9w0BBwGggCSABGRDb250ZW50LVR5cGU6IG11\n" \
        "bHRpcGFydC9taXhlZDsgYm91bmRhcnk9cw0KDQotLXMNCg0Kc2lnbmVkIHRleHQNCi0tcw0KQ29u\n" \
        "dGVudC1EaXNwb3NpdGlvbjogYXR0YWNobWVuBCJ0OyBmaWxlbmFtZT1hLnR4dA0KDQpmaWxlDQot\n" \
        "LXMtLQ0KAAAAAAAAMQAAAAAAAAA=\n"

TEST(smime_signed_data)
{
        struct message *m = OPEN("Content-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\n" BASE64 "\n" SIGNED);
        struct part **leaves;

        CHECK(message_leaves(m, &leaves) == 1);
        CHECK_STR(message_text(m), "signed text");
        NEED(message_attachments(m, &leaves) == 1);
        CHECK_STR(part_path(leaves[0]), "1.2");
        CHECK_STR(part_name(leaves[0]), "a.txt");
        CHECK_STR(part_content(leaves[0]), "file");
        message_free(m);
        LISTED("Content-Type: application/x-pkcs7-mime\n" BASE64 "\n" SIGNED, "1.1 1.2:a.txt", NULL);
        LISTED("Content-Type: application/octet-stream; name=smime.p7m\n" BASE64 "\n" SIGNED, "1.1 1.2:a.txt", NULL);
        LISTED("Content-Type: application/pkcs7-mime; name=smime.p7m\n" BASE64 "\nMIAGCSqGSIb3\n", "1:smime.p7m", "smime.broken");
}

/* The n-th allocation fails: no crash, and the trouble is known. */
/* What listing scripts ask for, in one line; sizes make the decoder look at every byte. */
static struct str asked_answers(struct message *m, struct buf *b)
{
        const struct addr *from = message_addresses(m, STR("from")), *to = message_addresses(m, STR("To"));
        struct part **leaves;
        size_t n = message_leaves(m, &leaves);

        buf_printf(b, "%.*s|%.*s|%.*s|%.*s|%lld", STR_FMT(from ? from->addr : STR("-")), STR_FMT(to ? to->addr : STR("-")),
                   STR_FMT(message_subject(m)), STR_FMT(message_id(m)), (long long)message_date(m));
        for (size_t i = 0; i < n; i++)
                buf_printf(b, "|%.*s %.*s %llu", STR_FMT(part_charset(leaves[i])), STR_FMT(part_name(leaves[i])),
                           (unsigned long long)part_size(leaves[i]));
        return buf_str(b);
}

static void check_ahead(int line, struct str text, const char *defect)
{
        struct message *before = open_message(text), *m = open_message(text);
        struct buf want = BUF_INIT, got = BUF_INIT;
        struct err e;
        size_t n;

        CHECK(message_parse(before, &e) && message_asked(before) == 0);
        asked_answers(before, &want);
        CHECK(message_asked(before) != 0);
        CHECK(message_parse(m, &e));
        message_look_ahead(m, message_asked(before));
        message_defects(m, &n);
        CHECK(n == 0 && message_asked(m) == 0);
        test_same(__FILE__, line, "answers", asked_answers(m, &got), buf_str(&want));
        CHECK(message_asked(m) == message_asked(before));
        CHECK(!defect || (flagged(m, defect) && flagged(before, defect)));
        buf_free(&want);
        buf_free(&got);
        message_free(before);
        message_free(m);
}

TEST(looking_ahead_changes_nothing)
{
        check_ahead(__LINE__, STR("From: =?utf-8?q?J=C3=B6?= <a@X.org>\nTo: b@x.org, c@x.org\nSubject: =?utf-8?b?w6Q=?=\nMessage-ID: <1@x>\n"
                                  "Date: Mon, 23 Nov 2026 05:41:00 +0000\nContent-Type: text/plain; charset=x; name=n\n"
                                  "Content-Transfer-Encoding: base64\n\nYWJj\n"), NULL);
        check_ahead(__LINE__, STR("From: a b@x <c@x.org\n\nx\n"), "syntax.address");
        check_ahead(__LINE__, STR("From: a@x.org\nSubject: x\n\nx\n"), "date.from.fetch");
        check_ahead(__LINE__, STR("From: a@x.org\nDate: 23 Nov 2026 05:41 +0000\nContent-Transfer-Encoding: base64\n\nYW!Jj\n"), "encoding.base64");
        check_ahead(__LINE__, STR("Subject: =?x?q?a?=\nDate: 23 Nov 2026 05:41 +0000\n\nx\n"), "charset.unknown");
}

TEST(no_memory)
{
        struct str mail = STR(MIXED("a", PART("a", "Content-Type: text/html; charset=koi8-r\n\n<p>\xc1") PART("a", WRAPPED)
                                   PART("a", "\n" UU("x")) PART("a", BASE64 "\nYmVnaW4gNjQ0IHgKIzhWJVQKYAplbmQK") PART("a", "Content-Type: application/ms-tnef\n" BASE64 "\n" TNEF_BYTES)));

        for (size_t n = 1;; n++) {
                struct backing *bytes = backing_memory(mem_dup(mail.p, mail.n), mail.n);
                struct part **leaves;
                struct message *m;
                bool ok;

                mem_fail_at(n);
                m = open_range(bytes, mail.n, &limits_default);
                ok = m != NULL;
                if (m) {
                        message_subject(m);
                        message_addresses(m, STR("to"));
                        message_attachments(m, &leaves);
                        message_text(m);
                        ok = message_trouble(m)->code == ERR_NONE;
                }
                mem_fail_at(0);
                message_free(m);
                if (ok)
                        break;
                NEED(n < 5000);
        }
}

TEST_MAIN
