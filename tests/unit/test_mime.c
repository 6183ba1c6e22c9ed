#include "core/mime.h"

#include "tests/unit/test.h"
#include "core/buf.h"
#include "core/mem.h"
#include <time.h>

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

/* Whole, cut at every byte, and a byte at a time: M22, M23. */
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
                clock_t start = clock();

                for (size_t n = 0; n < depths[i]; n++)
                        buf_printf(&b, "Content-Type: multipart/mixed; boundary=b%zu\n\n--b%zu\n", n, n);
                buf_printf(&b, "\ntext\n");
                r = parse(buf_str(&b), 0, b.n, &limits_default);
                for (const struct mime *e = r.root; e; e = e->child)
                        deepest = e->depth;
                CHECK(deepest == (depths[i] < 64 ? depths[i] + 1 : 64));
                CHECK(has(&r, "limit.depth") == (depths[i] >= 64));
                CHECK(clock() - start < 2 * CLOCKS_PER_SEC);
                drop(&r);
                buf_clear(&b);
                for (size_t n = 0; n < depths[i]; n++)
                        buf_printf(&b, "Content-Type: message/rfc822\n\n");
                r = parse(buf_str(&b), 0, 7, &limits_default);
                CHECK(has(&r, "limit.depth") == (depths[i] >= 64));
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
        clock_t start;

        buf_printf(&b, "Content-Type: multipart/mixed; boundary=a\n\n");
        for (int i = 0; i < 1000000; i++)
                buf_add(&b, "--a\n", 4);
        start = clock();
        r = parse(buf_str(&b), 0, b.n, &limits_default);
        CHECK(has(&r, "limit.parts"));
        CHECK(arena_used(r.a) < (16 << 20));
        drop(&r);
        buf_clear(&b);
        buf_printf(&b, "Content-Type: multipart/mixed; boundary=a\n\n");
        for (int i = 0; i < 1000000; i++)
                buf_add(&b, "--a\n\n", 5);
        r = parse(buf_str(&b), 0, 65536, &limits_default);
        CHECK(count_children(r.root) == limits_default.parts - 1);
        CHECK(has(&r, "limit.parts"));
        CHECK(clock() - start < 4 * CLOCKS_PER_SEC);
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
                { "quoted-printable;", MIME_QP }, { "", MIME_IDENTITY }, { "8BIT", MIME_IDENTITY }, { "(x)7bit", MIME_IDENTITY },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct buf b = BUF_INIT;
                struct parsed r;

                buf_printf(&b, "Content-Transfer-Encoding: %s\n\nx", table[i].word);
                r = parse(buf_str(&b), 0, b.n, &limits_default);
                CHECK(r.root->encoding == table[i].is);
                CHECK(has(&r, "encoding.unknown") == (table[i].is == MIME_UNKNOWN));
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

TEST(M14_separators)
{
        CHECK_TREE("A: b\n\nx", "1 leaf text/plain 0+5 6+1 enc0 lines0\n");
        CHECK_TREE("A: b\r\n\r\nx", "1 leaf text/plain 0+6 8+1 enc0 lines0\n");
        CHECK_TREE("A: b\r\n\nx", "1 leaf text/plain 0+6 7+1 enc0 lines0\n");
        CHECK_TREE("A: b\n\r\nx", "1 leaf text/plain 0+5 7+1 enc0 lines0\n");
        CHECK_TREE("A: b\r\rx", "1 leaf text/plain 0+7 7+0 enc0 lines0\nheader.unended\nheader.cr\n");
        CHECK_TREE("A: b\nx", "1 leaf text/plain 0+6 6+0 enc0 lines0\nheader.unended\nheader.junk\n");
}

TEST(M15_bare_cr_and_nul)
{
        struct parsed r = parse(STR("A: b\rC: d\nE\0: f\n\nx"), 0, 100, &limits_default);

        CHECK(has(&r, "header.cr"));
        CHECK(has(&r, "header.nul"));
        CHECK(r.root->body_n == 1);
        drop(&r);
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
        clock_t start;

        for (int i = 0; i < 10000000; i++)
                buf_add(&b, "a:b\n", 4);
        buf_printf(&b, "\nx");
        start = clock();
        r = parse(buf_str(&b), 0, 65536, &limits_default);
        CHECK(r.root->body_n == 1);
        CHECK(has(&r, "limit.header"));
        CHECK(clock() - start < 4 * CLOCKS_PER_SEC);
        drop(&r);
        buf_free(&b);
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
