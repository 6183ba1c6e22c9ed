/* The unit tests' whole framework. A test program is:  TEST(name) { CHECK(x); ... }  ...  TEST_MAIN
 * It prints one line a failure with file and line, then "N passed, N failed", and exits 1 when any failed.
 * Run one test of a program by giving its name as argument. */
#ifndef TESTS_UNIT_TEST_H
#define TESTS_UNIT_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/str.h"

struct test_case {
        const char *name;
        void (*run)(void);
        struct test_case *next;
};
static struct test_case *test_first, **test_last = &test_first;
static int test_bad;

#define TEST(id)                                                                                                      \
        static void test_##id(void);                                                                                  \
        static struct test_case case_##id = { #id, test_##id, NULL };                                                 \
        __attribute__((constructor)) static void add_##id(void) { *test_last = &case_##id; test_last = &case_##id.next; } \
        static void test_##id(void)

#define CHECK(x) ((x) ? (void)0 : (test_bad++, (void)printf("%s:%d: %s\n", __FILE__, __LINE__, #x)))
/* The test cannot go on without it. */
#define NEED(x) do { if (!(x)) { test_bad++; printf("%s:%d: %s\n", __FILE__, __LINE__, #x); return; } } while (0)

static inline int test_same(const char *file, int line, const char *what, struct str got, struct str want)
{
        if (got.n == want.n && (want.n == 0 || memcmp(got.p, want.p, want.n) == 0))
                return 1;
        test_bad++;
        printf("%s:%d: %s is \"%.*s\" (%zu bytes), not \"%.*s\" (%zu)\n", file, line, what, STR_FMT(got), got.n,
               STR_FMT(want), want.n);
        return 0;
}
#define CHECK_STR(got, want) test_same(__FILE__, __LINE__, #got, (got), str_of(want)) /* want: a C string */
#define CHECK_BYTES(got, want) test_same(__FILE__, __LINE__, #got, (got), (want))

#define TEST_MAIN                                                                                                     \
        int main(int argc, char **argv)                                                                               \
        {                                                                                                             \
                int passed = 0, failed = 0;                                                                           \
                setvbuf(stdout, NULL, _IOLBF, 0);                                                                     \
                for (struct test_case *t = test_first; t; t = t->next) {                                              \
                        if (argc > 1 && strcmp(argv[1], t->name) != 0)                                                \
                                continue;                                                                             \
                        test_bad = 0;                                                                                 \
                        t->run();                                                                                     \
                        if (test_bad)                                                                                 \
                                printf("FAIL %s\n", t->name);                                                         \
                        test_bad ? failed++ : passed++;                                                               \
                }                                                                                                     \
                printf("%d passed, %d failed\n", passed, failed);                                                     \
                return failed || !passed;                                                                             \
        }

#endif
