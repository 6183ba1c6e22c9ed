#include "core/linescan.h"

#include "test.h"

static unsigned seed;

static unsigned draw(unsigned below)
{
        seed = seed * 1103515245 + 12345;
        return (seed >> 16) % below;
}

static void same(const char *p, size_t n)
{
        uint64_t lines = 7, twin_lines = 7;
        size_t at = linescan_dash(p, n, &lines), twin = linescan_dash_portable(p, n, &twin_lines);

        CHECK(at == twin);
        CHECK(lines == twin_lines);
}

TEST(says_where_and_how_many)
{
        uint64_t lines = 0;

        CHECK(linescan_dash("ab\ncd\n--x\n-", 12, &lines) == 5 && lines == 2);
        CHECK(linescan_dash("--x\nab", 6, &lines) == 6 && lines == 3);
        CHECK(linescan_dash("a\n\n", 3, &lines) == 2 && lines == 5);
        CHECK(linescan_dash("", 0, &lines) == 0 && lines == 5);
}

/* A hit at every place of blocks of every size. */
TEST(twins_at_every_place)
{
        static char p[300];

        for (size_t n = 0; n < sizeof p && test_bad == 0; n++)
                for (size_t at = 0; at < n; at++) {
                        memset(p, 'x', sizeof p);
                        for (size_t i = n % 5; i < n; i += 1 + n % 70)
                                p[i] = '\n';
                        p[at] = '\n';
                        same(p, n);
                        p[at + 1 < sizeof p ? at + 1 : at] = '-'; /* also just behind the end: no part of it */
                        same(p, n);
                }
}

TEST(twins_on_random_bytes)
{
        static const char some[] = "\n\n-\r\nabcdefghijklmnop";
        static char p[1000];

        seed = 1;
        for (int round = 0; round < 3000 && test_bad == 0; round++) {
                size_t n = draw(sizeof p), from = draw(64);

                for (size_t i = 0; i < sizeof p; i++)
                        p[i] = round % 2 ? some[draw(sizeof some - 1)] : draw(200) ? 'a' : some[draw(4)];
                from = from < n ? from : n;
                same(p + from, n - from);
        }
}

TEST_MAIN
