#include "core/mime.h"

#include "tests/unit/test.h"
#include "core/buf.h"
#include "core/mem.h"

/* Bytes that a tree may need, whatever is sent: 64 levels; 10,000 parts. */
enum { PEAK_DEPTH = 64 << 10, PEAK_PARTS = 4 << 20 };

/* The tree as text: one line an entity, "depth kind type header body". */
static void print_tree(const struct mime *root, struct buf *out)
{
        static const char *const kinds[] = { "leaf", "multipart", "message" };
        const struct mime *e = root;

        while (e) {
                buf_printf(out, "%u %s %.*s %llu+%llu %llu+%llu enc%d lines%llu\n", e->depth, kinds[e->kind], STR_FMT(e->type),
                           (unsigned long long)e->header_at, (unsigned long long)e->header_n, (unsigned long long)e->body_at,
                           (unsigned long long)e->body_n, (int)e->encoding, (unsigned long long)e->lines);
                if (e->child) {
                        e = e->child;
                        continue;
                }
                while (e && !e->next)
                        e = e->parent;
                e = e ? e->next : NULL;
        }
}

struct parsed {
        struct arena *a;
        struct mime_defects d;
        struct mime *root;
        struct buf tree;
};

static struct parsed parse(struct str s, size_t first, size_t step, const struct limits *lim)
{
        struct parsed r = { .a = arena_new(0), .tree = BUF_INIT };
        struct mime_parser *p = mime_new(lim, &r.d, r.a);
        bool ok = true;

        for (size_t at = 0; at < s.n && ok;) {
                size_t n = at == 0 && first ? first : step;

                ok = mime_feed(p, str_first(str_from(s, at), n));
                at += n;
        }
        r.root = mime_end(p);
        if (!ok || !r.root) {
                printf("out of memory?\n");
                exit(1);
        }
        print_tree(r.root, &r.tree);
        for (unsigned i = 0; i < r.d.count; i++)
                buf_printf(&r.tree, "%s\n", r.d.names[i]);
        return r;
}

static void drop(struct parsed *r)
{
        buf_free(&r->tree);
        arena_free(r->a);
}

/* Whole, cut at every byte, and a byte at a time. */
static void check_tree_with(int line, struct str s, const char *want, const struct limits *lim)
{
        struct parsed whole = parse(s, 0, s.n ? s.n : 1, lim), bytes = parse(s, 0, 1, lim);

        if (want && !str_eq(buf_str(&whole.tree), str_of(want))) {
                test_bad++;
                printf("%s:%d: tree is\n%.*s", __FILE__, line, STR_FMT(buf_str(&whole.tree)));
        }
        CHECK(str_eq(buf_str(&whole.tree), buf_str(&bytes.tree)));
        for (size_t cut = 1; cut < s.n && s.n < 5000; cut++) {
                struct parsed two = parse(s, cut, s.n, lim), start = parse(str_first(s, cut), 0, s.n, lim);
                struct parsed start_bytes = parse(str_first(s, cut), 0, 1, lim);

                CHECK(str_eq(buf_str(&whole.tree), buf_str(&two.tree)));
                CHECK(str_eq(buf_str(&start.tree), buf_str(&start_bytes.tree)));
                drop(&two);
                drop(&start);
                drop(&start_bytes);
        }
        drop(&whole);
        drop(&bytes);
}
#define CHECK_TREE(text, want) check_tree_with(__LINE__, STR(text), want, &limits_default)

static bool has(const struct parsed *r, const char *name)
{
        for (unsigned i = 0; i < r->d.count; i++)
                if (strcmp(r->d.names[i], name) == 0)
                        return true;
        return false;
}

TEST(M21_nothing)
{
        CHECK_TREE("", "1 leaf text/plain 0+0 0+0 enc0 lines0\n");
        CHECK_TREE("\n", "1 leaf text/plain 0+0 1+0 enc0 lines0\n");
        CHECK_TREE("\r\n", "1 leaf text/plain 0+0 2+0 enc0 lines0\n");
        CHECK_TREE("A: b\n\n", "1 leaf text/plain 0+5 6+0 enc0 lines0\n");
        CHECK_TREE("x", "1 leaf text/plain 0+0 0+1 enc0 lines0\nheader.missing\n");
        CHECK_TREE("\nbody\n", "1 leaf text/plain 0+0 1+5 enc0 lines1\n");
        CHECK_TREE("A: b", "1 leaf text/plain 0+4 4+0 enc0 lines0\nheader.unended\n");
}

TEST(two_parts)
{
        CHECK_TREE("Content-Type: multipart/mixed; boundary=b\n\npreamble\n--b\n\none\n--b\nContent-Type: text/html\n"
                   "Content-Transfer-Encoding: BASE64 (c)\n\ntwo\n\n--b--\nepilogue\n",
                   "1 multipart multipart/mixed 0+42 43+105 enc0 lines12\n"
                   "2 leaf text/plain 56+0 57+3 enc0 lines1\n"
                   "2 leaf text/html 65+62 128+4 enc1 lines2\n");
}

TEST(two_parts_crlf)
{
        CHECK_TREE("Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\n\r\none\r\n--b\r\nA: b\r\n\r\ntwo\r\n\r\n--b--\r\n",
                   "1 multipart multipart/mixed 0+45 47+39 enc0 lines9\n"
                   "2 leaf text/plain 52+0 54+3 enc0 lines1\n"
                   "2 leaf text/plain 64+6 72+5 enc0 lines2\n");
}

TEST(boundary_lines_in_a_row)
{
        CHECK_TREE("Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\n--b\nA: b\n\none\n--b\n--b--\n", NULL);
        CHECK_TREE("Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\nA: b\n\none\n--b--\n",
                   "1 multipart multipart/mixed 0+42 43+24 enc0 lines6\n2 leaf text/plain 51+5 57+3 enc0 lines1\n");
}

/* No empty line before the first boundary. */
TEST(boundary_in_its_own_header)
{
        CHECK_TREE("Content-Type: multipart/mixed;\n boundary=\"b\"\nA: c\n--b\nContent-Type: text/html\n\none\n--b\n\ntwo\n--b--\n",
                   "1 multipart multipart/mixed 0+50 50+48 enc0 lines8\n2 leaf text/html 54+24 79+3 enc0 lines1\n"
                   "2 leaf text/plain 87+0 88+3 enc0 lines1\nheader.unended\n");
        CHECK_TREE("Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/alternative; boundary=i\r\n--i\r\n\r\nx\r\n--i--\n--o--\n",
                   "1 multipart multipart/mixed 0+42 43+75 enc0 lines7\n2 multipart multipart/alternative 47+49 96+15 enc0 lines4\n"
                   "3 leaf text/plain 101+0 103+1 enc0 lines1\nheader.unended\n");
        CHECK_TREE("A: bc\n--b\nContent-Type: text/html\n\nbody\n", "1 leaf text/html 0+34 35+5 enc0 lines1\nheader.junk\n");
        CHECK_TREE("Content-Type: message/rfc822; x=b\n--b\nA: b\n\nbody\n",
                   "1 message message/rfc822 0+43 44+5 enc0 lines1\n2 leaf text/plain 44+0 44+5 enc0 lines1\nheader.junk\nheader.missing\n");
}

TEST(message_inside)
{
        CHECK_TREE("Content-Type: multipart/digest; boundary=b\n\n--b\n\nFrom: x\nContent-Type: multipart/mixed; boundary=c\n\n"
                   "--c\n\nin\n--c--\n--b\nContent-Type: text/plain\n\nlast\n--b--\n",
                   NULL);
        CHECK_TREE("Content-Type: message/rfc822\n\nFrom me Mon Jan  1 10:00:00 2024\nSubject: x\n\nbody",
                   "1 message message/rfc822 0+29 30+49 enc0 lines3\n"
                   "2 leaf text/plain 30+44 75+4 enc0 lines0\nheader.junk\n");
        CHECK_TREE("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nRnJvbQ==\n",
                   "1 leaf message/rfc822 0+63 64+9 enc1 lines1\n");
}

TEST(M01_depth)
{
        static const size_t depths[] = { 10, 64, 65, 1000, 100000 };

        for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
                struct buf b = BUF_INIT;
                struct parsed r;
                unsigned deepest = 0;

                for (size_t n = 0; n < depths[i]; n++)
                        buf_printf(&b, "Content-Type: multipart/mixed; boundary=b%zu\n\n--b%zu\n", n, n);
                buf_printf(&b, "\ntext\n");
                r = parse(buf_str(&b), 0, b.n, &limits_default);
                for (const struct mime *e = r.root; e; e = e->child)
                        deepest = e->depth;
                CHECK(deepest == (depths[i] < 64 ? depths[i] + 1 : 64));
                CHECK(has(&r, "limit.depth") == (depths[i] >= 64));
                CHECK(arena_used(r.a) < PEAK_DEPTH);
                drop(&r);
                buf_clear(&b);
                for (size_t n = 0; n < depths[i]; n++)
                        buf_printf(&b, "Content-Type: message/rfc822\n\n");
                buf_printf(&b, "\nin");
                r = parse(buf_str(&b), 0, 7, &limits_default);
                for (const struct mime *e = r.root; e; e = e->child)
                        deepest = e->depth;
                CHECK(deepest == (depths[i] < 64 ? depths[i] + 1 : 64));
                CHECK(has(&r, "limit.depth") == (depths[i] >= 64));
                CHECK(arena_used(r.a) < PEAK_DEPTH);
                drop(&r);
                buf_free(&b);
        }
}

static unsigned count_children(const struct mime *m)
{
        unsigned n = 0;

        for (const struct mime *c = m->child; c; c = c->next)
                n++;
        return n;
}

TEST(M02_a_million_empty_parts)
{
        struct buf b = BUF_INIT;
        struct parsed r;

        buf_printf(&b, "Content-Type: multipart/mixed; boundary=a\n\n");
        for (int i = 0; i < 1000000; i++)
                buf_add(&b, "--a\n", 4);
        r = parse(buf_str(&b), 0, b.n, &limits_default);
        CHECK(has(&r, "limit.parts"));
        CHECK(count_children(r.root) <= limits_default.parts);
        CHECK(arena_used(r.a) < PEAK_PARTS);
        drop(&r);
        buf_clear(&b);
        buf_printf(&b, "Content-Type: multipart/mixed; boundary=a\n\n");
        for (int i = 0; i < 1000000; i++)
                buf_add(&b, "--a\n\n", 5);
        r = parse(buf_str(&b), 0, 65536, &limits_default);
        CHECK(count_children(r.root) == limits_default.parts - 1);
        CHECK(has(&r, "limit.parts"));
        CHECK(arena_used(r.a) < PEAK_PARTS);
        drop(&r);
        buf_free(&b);
}

TEST(M03_boundaries_missing_and_long)
{
        struct buf b = BUF_INIT;
        char boundary[10001];

        CHECK_TREE("Content-Type: multipart/mixed\n\n--x\n\ntext\n",
                   "1 leaf multipart/mixed 0+30 31+10 enc0 lines3\nboundary.missing\n");
        CHECK_TREE("Content-Type: multipart/mixed; boundary=\"\"\n\n--\n\ntext\n",
                   "1 leaf multipart/mixed 0+43 44+9 enc0 lines3\nboundary.missing\n");
        memset(boundary, 'x', sizeof boundary);
        for (size_t n = 70; n <= 10000; n = n == 70 ? 256 : n == 256 ? 257 : n == 257 ? 10000 : 10001) {
                struct parsed r;

                buf_clear(&b);
                buf_printf(&b, "Content-Type: multipart/mixed; boundary=%.*s\n\n--%.*s\n\ntext\n--%.*s--\n", (int)n, boundary,
                           (int)n, boundary, (int)n, boundary);
                r = parse(buf_str(&b), 0, 100, &limits_default);
                CHECK((r.root->child != NULL) == (n <= 256));
                CHECK(has(&r, "limit.boundary") == (n > 256));
                drop(&r);
        }
        buf_free(&b);
}

TEST(M04_two_boundaries)
{
        struct parsed r = parse(STR("Content-Type: multipart/mixed; boundary=a; boundary=b\n\n--a\n\nx\n--b\n\ny\n--a--\n"), 0, 9,
                                &limits_default);

        CHECK(has(&r, "ambiguous.boundary"));
        CHECK(count_children(r.root) == 1);
        drop(&r);
        r = parse(STR("Content-Type: multipart/mixed; boundary*0=a; boundary=b\n\n--b\n\nx\n--a\n\ny\n--b--\n"), 0, 9, &limits_default);
        CHECK(has(&r, "ambiguous.boundary"));
        CHECK_STR(r.root->boundary, "b");
        drop(&r);
        r = parse(STR("Content-Type: multipart/mixed; boundary=\"=?utf-8?q?a?=\"\n\n--=?utf-8?q?a?=\n\nx\n"), 0, 9, &limits_default);
        CHECK_STR(r.root->boundary, "=?utf-8?q?a?=");
        CHECK(count_children(r.root) == 1);
        drop(&r);
}

TEST(M05_twice)
{
        CHECK_TREE("Content-Type: text/html\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n"
                   "Content-Transfer-Encoding: 7bit\n\n",
                   "1 leaf text/html 0+115 116+0 enc1 lines0\nduplicate.type\nduplicate.encoding\n");
}

TEST(M06_odd_names)
{
        static const char *const heads[] = { "Content-Transfer-Encoding : base64\n", "Content-Transfer-Encoding\t:base64\n" };

        for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
                struct parsed r;
                struct buf b = BUF_INIT;

                buf_printf(&b, "%s\nx", heads[i]);
                r = parse(buf_str(&b), 0, 3, &limits_default);
                CHECK(r.root->encoding == MIME_BASE64);
                CHECK(has(&r, "header.names"));
                drop(&r);
                buf_free(&b);
        }
}

TEST(M07_encodings)
{
        static const struct {
                const char *word;
                enum mime_encoding is;
        } table[] = {
                { "base64 (c)", MIME_BASE64 }, { "\"base64\"", MIME_UNKNOWN }, { "BASE64", MIME_BASE64 },
                { "=?utf-8?q?base64?=", MIME_UNKNOWN }, { "base645", MIME_UNKNOWN }, { "x-uuencode", MIME_UU },
                { "quoted-printable;", MIME_QP }, { "base64; x=y", MIME_BASE64 }, { "base645;", MIME_UNKNOWN }, { "", MIME_IDENTITY }, { "8BIT", MIME_IDENTITY }, { "(x)7bit", MIME_IDENTITY },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct buf b = BUF_INIT;
                struct parsed r;

                buf_printf(&b, "Content-Transfer-Encoding: %s\n\nx", table[i].word);
                r = parse(buf_str(&b), 0, b.n, &limits_default);
                CHECK(r.root->encoding == table[i].is);
                CHECK(has(&r, "encoding.unknown") == (table[i].is == MIME_UNKNOWN));
                CHECK(has(&r, "syntax.encoding") == (strchr(table[i].word, ';') && table[i].is != MIME_UNKNOWN));
                drop(&r);
                buf_free(&b);
        }
}

TEST(M09_base64_on_a_multipart)
{
        CHECK_TREE("Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n--b\n\nx\n--b--\n",
                   "1 multipart multipart/mixed 0+76 77+13 enc0 lines4\n2 leaf text/plain 81+0 82+1 enc0 lines1\nencoding.multipart\n");
}

TEST(M11_equal_and_prefix)
{
        struct parsed r = parse(STR("Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=b\n\n"
                                    "--b\n\nx\n--b--\n--b\n\ny\n--b--\n"), 0, 1, &limits_default);

        CHECK(has(&r, "boundary.equal"));
        CHECK(count_children(r.root) == 2);
        drop(&r);
        r = parse(STR("Content-Type: multipart/mixed; boundary=b--\n\n--b--\nContent-Type: multipart/mixed; boundary=b\n\n"
                      "--b\n\nx\n--b--\n\ny\n--b----\n"), 0, 1, &limits_default);
        CHECK(count_children(r.root) == 2); /* "--b--" is a part of "b--", the longer one */
        CHECK(has(&r, "truncated.multipart"));
        drop(&r);
        r = parse(STR("Content-Type: multipart/mixed; boundary=b1\n\n--b1\nContent-Type: multipart/mixed; boundary=b\n\n"
                      "--b\n\nx\n--b1\n\ny\n--b1--\n"), 0, 1, &limits_default);
        CHECK(count_children(r.root) == 2);
        drop(&r);
}

TEST(M12_boundary_lines)
{
        static const struct {
                const char *line;
                size_t n;
                unsigned parts;
                const char *defect;
        } table[] = {
                { "--b  \t", 6, 2, "truncated.multipart" }, { "--b\r", 4, 2, "truncated.multipart" },
                { "--b\0", 4, 1, "boundary.nul" },          { "--b--", 5, 1, NULL },
                { "--b-", 4, 1, "truncated.multipart" },    { "--b--  ", 7, 1, NULL },
                { "--bx", 4, 1, "truncated.multipart" },    { "--b x", 5, 2, "boundary.suffix" },
                { "--b-->", 6, 1, "boundary.suffix" },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n");
                buf_add(&b, table[i].line, table[i].n);
                buf_printf(&b, "\n\ny\n");
                for (size_t step = 1; step < 12; step += 10) {
                        struct parsed r = parse(buf_str(&b), 0, step, &limits_default);

                        CHECK(count_children(r.root) == table[i].parts);
                        CHECK(table[i].defect ? has(&r, table[i].defect) : r.d.count == 0);
                        drop(&r);
                }
                buf_free(&b);
        }
}

TEST(M13_hidden)
{
        struct parsed r = parse(STR("Content-Type: multipart/mixed; boundary=b\n\nContent-Type: x/y\n\n--b\n\nx\n--b--\n--b\n\nz\n"), 0,
                                1, &limits_default);

        CHECK(has(&r, "hidden.preamble"));
        CHECK(has(&r, "hidden.epilogue"));
        CHECK(count_children(r.root) == 1);
        drop(&r);
}

/* Everything between a field and what may be the body. Only an empty line, LF or CRLF, ends a header; where others (Python's email takes
 * a bare CR for a line end, and a line that is no field for the body) would find a body that we don't, or another, a defect says so. */
TEST(M14_separators)
{
        static const struct {
                const char *between;
                size_t n;
                const char *body; /* NULL: all is header */
                const char *defect;
        } table[] = {
                { "", 0, NULL, "header.unended" },          { "\n", 1, NULL, "header.unended" },
                { "\r\n", 2, NULL, "header.unended" },      { "\r", 1, NULL, "header.cr" },
                { "\n\n", 2, "x: y", NULL },                { "\r\n\r\n", 4, "x: y", NULL },
                { "\n\r\n", 3, "x: y", "header.cr" },       { "\r\n\n", 3, "x: y", "header.cr" },
                { "\n\r", 2, NULL, "header.cr" },           { "\r\r", 2, NULL, "header.cr" },
                { "\r\r\n", 3, NULL, "header.cr" },         { "\r\n\r", 3, NULL, "header.cr" },
                { "\r\r\r", 3, NULL, "header.cr" },         { "\n\r\r", 3, NULL, "header.cr" },
                { "\n\r\r\n", 4, NULL, "header.cr" },       { "\r\n\r\r\n", 5, NULL, "header.cr" },
                { "\r\r\n\r\n", 5, "x: y", "header.cr" },   { "\r\r\n\r\r\n", 6, NULL, "header.cr" },
                { "\n\n\n", 3, "\nx: y", NULL },           { "\r\n\r\n\r\n", 6, "\r\nx: y", NULL },
                { "\n\r\n\n", 4, "\nx: y", "header.cr" },  { "\n\n\r", 3, "\rx: y", NULL },
                { "\n \n", 3, NULL, "header.unended" },     { "\n\t\n", 3, NULL, "header.unended" },
                { "\r\n \r\n", 5, NULL, "header.unended" }, { "\n \r\n", 4, NULL, "header.unended" },
                { "\n \n\n", 4, "x: y", NULL },             { "\n\0\n", 3, NULL, "header.nul" },
                { "\n\0\n\n", 4, "x: y", "header.junk" },   { "\n\v\n", 3, NULL, "header.junk" },
                { "\n\f\n\n", 4, "x: y", "header.junk" },   { "\n\xa0\n", 3, NULL, "header.junk" },
                { "\n.\n", 3, NULL, "header.junk" },        { "\n--\n", 4, NULL, "header.junk" },
                { "\nno field\n\n", 11, "x: y", "header.junk" },
        };

        CHECK(sizeof table / sizeof *table >= 30);
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct buf b = BUF_INIT;

                buf_printf(&b, "A: b");
                buf_add(&b, table[i].between, table[i].n);
                buf_printf(&b, "x: y");
                for (size_t step = 1; step < 40; step += 38) {
                        struct parsed r = parse(buf_str(&b), 0, step, &limits_default);
                        struct str body = str_make(b.p + r.root->body_at, r.root->body_n);
                        int bad = test_bad;

                        CHECK(table[i].defect ? has(&r, table[i].defect) : r.d.count == 0);
                        CHECK_STR(body, table[i].body ? table[i].body : "");
                        if (test_bad != bad)
                                printf("separator %zu\n", i);
                        drop(&r);
                }
                buf_free(&b);
        }
}

#define S(text) { text, sizeof text - 1 }

TEST(M15_bare_cr_and_nul)
{
        static const struct {
                struct str text;
                const char *defect;
        } table[] = {
                { S("A: b\rC: d\n\nx"), "header.cr" },        { S("A: b\n\rC: d\n\nx"), "header.cr" },
                { S("A: b\r\rC: d\n\nx"), "header.cr" },      { S("A: b\nE\0: f\n\nx"), "header.nul" },
                { S("A: b\0C: d\n\nx"), "header.nul" },       { S("A: b\n\0C: d\n\nx"), "header.nul" },
                { S("A: b\n\0\n\nx"), "header.nul" },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct parsed r = parse(table[i].text, 0, 3, &limits_default);

                CHECK(has(&r, table[i].defect));
                CHECK(r.root->body_n == 1);
                drop(&r);
        }
}

TEST(M16_never_joined)
{
        CHECK_TREE("Content-Type: message/partial; id=x; number=1\n\nSubject: y\n\nz",
                   "1 leaf message/partial 0+46 47+13 enc0 lines2\nmessage.partial\n");
        CHECK_TREE("Content-Type: message/external-body; access-type=url\n\nA: b\n\n",
                   "1 leaf message/external-body 0+53 54+6 enc0 lines2\nmessage.external\n");
}

TEST(H01_header_lines)
{
        struct buf b = BUF_INIT;
        struct parsed r;

        for (int i = 0; i < 10000000; i++)
                buf_add(&b, "a:b\n", 4);
        buf_printf(&b, "\nx");
        r = parse(buf_str(&b), 0, 65536, &limits_default);
        CHECK(r.root->body_n == 1);
        CHECK(has(&r, "limit.header"));
        drop(&r);
        buf_free(&b);
}

#define LAYERS                                                                                                              \
        "Subject: x\nContent-Type: multipart/mixed; boundary=out\n\npreamble\n--out\nContent-Type: multipart/alternative;\n" \
        " boundary=\"in\"\n\n--in\nContent-Type: text/plain\n\none\n--in\nContent-Type: text/html\n\n<p>two\n--in--\n\n"      \
        "--out\nContent-Type: message/rfc822\n\nSubject: y\nContent-Type: multipart/mixed; boundary=deep\n\n--deep\n\nthree\n" \
        "--deep--\n--out\nContent-Type: a/b\nContent-Transfer-Encoding: base64\n\nZm91cg==\n--out--\nepilogue\n"

/* Every range inside of its parent's. */
static void check_ranges(const struct mime *root, uint64_t size)
{
        for (const struct mime *e = root; e;) {
                uint64_t end = e->parent ? e->parent->body_at + e->parent->body_n : size;

                CHECK(e->header_at + e->header_n <= e->body_at && e->body_at + e->body_n <= end);
                CHECK(!e->parent || e->header_at >= e->parent->body_at);
                if (e->child) {
                        e = e->child;
                        continue;
                }
                while (e && !e->next)
                        e = e->parent;
                e = e ? e->next : NULL;
        }
}

TEST(M22_truncated_at_every_byte)
{
        struct str s = STR(LAYERS);
        size_t body = str_find_str(s, STR("preamble")), end = str_find_str(s, STR("--out--")) + 7;

        for (size_t k = 0; k <= s.n; k++) {
                struct parsed whole = parse(str_first(s, k), 0, k ? k : 1, &limits_default);
                struct parsed bytes = parse(str_first(s, k), 0, 1, &limits_default);

                CHECK(str_eq(buf_str(&whole.tree), buf_str(&bytes.tree)));
                CHECK(k < body - 1 || has(&whole, "truncated.multipart") == (k < end));
                check_ranges(whole.root, k);
                drop(&whole);
                drop(&bytes);
        }
}

/* Line by line (half a boundary line is another line) the number of parts only grows. */
TEST(M22_parts_so_far)
{
        struct str s = STR(LAYERS);
        unsigned before = 0;

        for (size_t k = 0; k <= s.n; k++) {
                struct parsed r = parse(str_first(s, k), 0, s.n, &limits_default);
                unsigned n = 0;

                for (size_t i = 0; i < r.tree.n; i++)
                        n += r.tree.p[i] == '\n';
                n -= r.d.count;
                if (k && s.p[k - 1] == '\n') {
                        CHECK(n >= before);
                        before = n;
                }
                drop(&r);
        }
        CHECK(before == 8);
}

TEST(M23_random_chunks)
{
        struct buf text = BUF_INIT;
        struct parsed whole;
        uint32_t seed = 23;

        buf_printf(&text, "Content-Type: multipart/mixed; boundary=m\n\n");
        for (int i = 0; i < 40; i++) {
                buf_printf(&text, "--m\r\n%s", LAYERS);
                for (int k = 0; k < i * 10; k++)
                        buf_printf(&text, "--%.*s\n", k % 200, "mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm\r\n\r\n--m\r");
        }
        whole = parse(buf_str(&text), 0, text.n, &limits_default);
        CHECK(count_children(whole.root) >= 40 && text.n > 65536);
        for (int round = 0; round < 60; round++) {
                struct parsed r = { .a = arena_new(0), .tree = BUF_INIT };
                struct mime_parser *p = mime_new(&limits_default, &r.d, r.a);
                unsigned bits = round % 17;

                for (size_t at = 0, n; at < text.n; at += n) { /* from 1 byte to 64 KiB, by powers of two */
                        seed = seed * 1664525u + 1013904223u;
                        n = 1 + (seed >> 8) % (1u << bits);
                        CHECK(mime_feed(p, str_first(str_from(buf_str(&text), at), n)));
                }
                r.root = mime_end(p);
                NEED(r.root);
                print_tree(r.root, &r.tree);
                for (unsigned i = 0; i < r.d.count; i++)
                        buf_printf(&r.tree, "%s\n", r.d.names[i]);
                CHECK(str_eq(buf_str(&r.tree), buf_str(&whole.tree)));
                drop(&r);
        }
        drop(&whole);
        buf_free(&text);
}

TEST(header_size_agrees)
{
        static const char *const heads[] = { "", "\n", "A: b\n\nx", "A: b\r\n\r\nx", "x\n\ny", "From me\nA: b\n\nx", "A: b", "A: b\n" };

        for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
                struct str s = str_of(heads[i]);
                struct parsed r = parse(s, 0, s.n + 1, &limits_default);
                bool ended;

                CHECK(mime_header_size(s, &ended) == r.root->header_n);
                drop(&r);
        }
}

TEST(no_memory)
{
        struct str s = STR("Content-Type: multipart/mixed; boundary=b\n\n--b\nA: c\n\none\n--b\n\ntwo\n--b--\n");

        for (size_t n = 1;; n++) {
                struct mime_defects d = { .count = 0 };
                struct arena *a;
                struct mime_parser *p;
                bool ok;

                mem_fail_at(n);
                a = arena_new(0);
                p = a ? mime_new(&limits_default, &d, a) : NULL;
                ok = p != NULL;
                for (size_t i = 0; ok && i < s.n; i += 10)
                        ok = mime_feed(p, str_first(str_from(s, i), 10));
                ok = p && mime_end(p) && ok;
                mem_fail_at(0);
                arena_free(a);
                if (ok)
                        break;
                NEED(n < 1000);
        }
}

TEST_MAIN
