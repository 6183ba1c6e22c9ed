#include "tests/unit/test.h"

#include "core/header.h"
#include "core/mem.h"

static struct header h;
static struct arena *a;

static void split(struct str block)
{
        arena_free(a);
        a = arena_new(0);
        CHECK(a && header_split(&h, block, &limits_default, a));
}

TEST(fields_and_folds)
{
        split(STR("From: a@b\r\nSubject: one\r\n two\r\n\tthree\r\nTo:c@d\nX:\n"));
        NEED(h.count == 4);
        CHECK_STR(h.fields[0].raw, " a@b");
        CHECK_STR(h.fields[1].raw, " one\r\n two\r\n\tthree");
        CHECK_STR(header_unfold(h.fields[1].raw, a), "one two three");
        CHECK_STR(h.fields[2].raw, "c@d");
        CHECK_STR(h.fields[3].raw, "");
        CHECK_STR(header_unfold(h.fields[3].raw, a), "");
        CHECK(h.fields[3].order == 3);
        CHECK(!h.odd_names && !h.junk && !h.overflow);
}

static void unfolds(const char *raw, const char *want)
{
        struct arena *own = arena_new(0);

        NEED(own);
        CHECK_STR(header_unfold(str_of(raw), own), want);
        arena_free(own);
}

TEST(a_fold_is_one_blank)
{
        unfolds(" a \r\n\t  b\n \n c ", "a b c");
        unfolds("a\nb", "a b");
        unfolds("a  b\n c\td", "a  b c\td");
        unfolds("\n\n a", "a");
}

TEST(a_fold_inside_an_encoded_word_is_nothing)
{
        unfolds("=?utf-8?Q?Hello\r\n   _there!?= x\n y", "=?utf-8?Q?Hello_there!?= x y");
        unfolds("=?utf-8?b?YWJj\n ZGVm\n\tZ2hp?=\n z", "=?utf-8?b?YWJjZGVmZ2hp?= z");
        unfolds("=?utf-8?q?a?= =?utf-8?q?b\n c?= =?utf-8?q?d\n e?=", "=?utf-8?q?a?= =?utf-8?q?bc?= =?utf-8?q?de?=");
        unfolds("=?utf-8?q?never\n ended", "=?utf-8?q?never ended");
        unfolds("=? to break\n =?x?\n y?=", "=? to break =?x? y?=");
}

TEST(finding)
{
        const struct field *f;

        split(STR("Received: 1\nReceived: 2\nSUBJECT: s\nreceived: 3"));
        f = header_find(&h, STR("Received"));
        NEED(f);
        CHECK_STR(f->raw, " 1");
        f = header_find_after(&h, STR("Received"), f);
        NEED(f);
        f = header_find_after(&h, STR("Received"), f);
        NEED(f);
        CHECK_STR(f->raw, " 3");
        CHECK(!header_find_after(&h, STR("Received"), f));
        CHECK(header_find(&h, STR("subject")));
        CHECK(!header_find(&h, STR("subjec")));
}

TEST(H03_what_is_no_field)
{
        split(STR(" leading fold\nFrom x@y Mon Nov 23 05:41:00 2026\nno colon here\nSubject: s\n\x80\x81: eight bits\n: empty\nA: b"));
        CHECK(h.count == 3 && h.junk && h.odd_names);
        CHECK(header_find(&h, STR("subject")) && header_find(&h, STR("A")));
        CHECK(!header_find(&h, STR("From")));
        split(STR("From : a@b\n"));
        CHECK(header_find(&h, STR("From")) && h.odd_names);
}

TEST(M06_names)
{
        split(STR("Content-Transfer-Encoding : base64\n"));
        CHECK(header_find(&h, STR("content-transfer-encoding")) && h.odd_names && !h.junk);
        split(STR("Content\0-Type: x\nSubject: y\n"));
        CHECK(h.odd_names && h.count == 2);
}

TEST(M15_bare_cr_and_nul_end_no_line)
{
        split(STR("Subject: a\rTo: b\nX: c\0Y: d\n"));
        CHECK(h.count == 2);
        CHECK_STR(h.fields[0].raw, " a\rTo: b");
}

TEST(every_cut)
{
        struct str whole = STR("From: a@b\r\nSubject: one\r\n two\r\nTo: c\n");

        for (size_t n = 0; n <= whole.n; n++) {
                char *copy = malloc(n ? n : 1); /* its own block, so that a sanitizer sees a step too far */

                memcpy(copy, whole.p, n);
                split(str_make(copy, n));
                CHECK(h.count <= 3);
                if (h.count > 1)
                        CHECK_STR(h.fields[0].raw, " a@b");
                free(copy);
        }
}

TEST(H01_ten_million_lines)
{
        enum { N = 1000000 };
        char *p = malloc(N * 5);
        struct limits lim = limits_default;

        NEED(p);
        for (int i = 0; i < N; i++)
                memcpy(p + i * 5, "A: b\n", 5);
        split(str_make(p, N * 5));
        CHECK(h.count == 10000 && h.overflow);
        CHECK_STR(h.fields[9999].raw, " b");
        lim.header_block = UINT64_MAX;
        CHECK(header_split(&h, str_make(p, N * 5), &lim, a));
        CHECK(h.count == 10000 && h.overflow);
        free(p);
}

TEST(H02_a_million_folds)
{
        enum { N = 500000 };
        char *p = malloc(N * 2 + 3);

        NEED(p);
        memcpy(p, "A:b", 3);
        for (int i = 0; i < N; i++)
                memcpy(p + 3 + i * 2, "\n ", 2);
        split(str_make(p, N * 2 + 3));
        CHECK(h.count == 1);
        CHECK_STR(header_unfold(h.fields[0].raw, a), "b");
        free(p);
}

TEST(identity)
{
        uint8_t one[32], two[32];

        split(STR("From: a@b\r\nSubject: one\r\n two\r\nStatus: RO\r\nX-UIDL: 77\r\n"));
        header_identity(&h, one);
        split(STR("From: a@b\nSubject: one\n\t two\nX-Status: A\nX-UID: 9\nContent-Length: 5\nLines: 2\n"));
        header_identity(&h, two);
        CHECK(memcmp(one, two, 32) == 0);
        split(STR("From: a@b\nSubject: onetwo\n"));
        header_identity(&h, two);
        CHECK(memcmp(one, two, 32) != 0);
}

TEST(out_of_memory)
{
        struct arena *small = arena_new(64);

        NEED(small);
        CHECK(!header_split(&h, STR("A: b\nC: d\nE: f\n"), &limits_default, small));
        arena_free(small);
        arena_free(a);
        a = NULL;
}

TEST_MAIN
