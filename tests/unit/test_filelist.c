/* Names of files: more than are kept in memory come back sorted, each as often as it was given. */
#include "core/filelist.h"

#include <stdio.h>
#include <string.h>

#include "core/spill.h"
#include "tests/unit/test.h"

/* Fills in n names, every one different unless `same`, in an order that jumps about. */
static bool fill(struct filelist *l, size_t n, size_t length, bool same, struct err *e)
{
        char name[512];

        for (size_t i = 0; i < n; i++) {
                size_t k = same ? 7 : i * 7919 % n;

                snprintf(name, sizeof name, "%0*zu", (int)length, k);
                if (!filelist_add(l, STR("dir"), '/', str_of(name), e))
                        return false;
        }
        return filelist_sort(l, e);
}

static bool in_order(struct filelist *l, size_t n, size_t length, bool same)
{
        char want[512];
        struct str name;
        struct err e;

        for (size_t i = 0; i < n; i++) {
                snprintf(want, sizeof want, "dir/%0*zu", (int)length, same ? 7 : i);
                if (!filelist_next(l, &name, &e) || !str_eq(name, str_of(want)))
                        return false;
        }
        return filelist_next(l, &name, &e) && !name.p && filelist_next(l, &name, &e) && !name.p;
}

TEST(B06_names_in_parts)
{
        static const struct { size_t n, length; bool same; } cases[] = {
                { 0, 1, false }, { 1, 1, false }, { 1000, 20, false }, { 300007, 40, false }, { 60013, 255, false }, { 200000, 60, true },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                struct filelist l = FILELIST_INIT;
                struct err e = { 0 };

                CHECK(fill(&l, cases[i].n, cases[i].length, cases[i].same, &e) && l.n == cases[i].n);
                CHECK((l.parts != NULL) == (cases[i].n * cases[i].length > 4 << 20));
                CHECK(in_order(&l, cases[i].n, cases[i].length, cases[i].same));
                filelist_free(&l);
                CHECK(l.n == 0 && fill(&l, 10, 3, false, &e) && in_order(&l, 10, 3, false)); /* again from the start */
                filelist_free(&l);
        }
}

/* Names that are the beginning of others, with bytes of every kind, on both sides of a part's end. */
TEST(B06_names_of_any_bytes)
{
        struct filelist l = FILELIST_INIT;
        struct str name;
        struct err e = { 0 };
        char last[300] = "", b[300];
        size_t given = 0, n = 0, last_n = 0, wrong = 0;

        for (size_t i = 0; i < 60000; i++) {
                size_t length = 100 + i * 31 % 150;

                for (size_t k = 0; k < length; k++)
                        b[k] = (char)(i * 131 >> (k % 3 * 5));
                CHECK(filelist_add(&l, str_make(b, length / 2), '\0', str_make(b, length), &e));
                given++;
        }
        CHECK(filelist_sort(&l, &e) && l.parts);
        while (filelist_next(&l, &name, &e) && name.p) {
                size_t keep = name.n < sizeof last ? name.n : sizeof last;

                wrong += n++ > 0 && str_cmp(str_make(last, last_n), str_first(name, sizeof last)) > 0;
                memcpy(last, name.p, keep);
                last_n = keep;
        }
        CHECK(n == given && wrong == 0);
        filelist_free(&l);
}

TEST(B06_nowhere_to_put_names)
{
        struct filelist l = FILELIST_INIT;
        struct err e = { 0 };

        spill_place("/nowhere/at/all");
        CHECK(!fill(&l, 100000, 60, false, &e) && strstr(e.text, "/nowhere/at/all"));
        filelist_free(&l);
        spill_place("/tmp");
}

TEST_MAIN
