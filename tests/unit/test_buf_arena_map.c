#include "core/arena.h"
#include "core/buf.h"
#include "core/map.h"
#include "core/mem.h"
#include "tests/unit/test.h"

TEST(mem_basics)
{
        char *p = mem_dup("a\0b", 3);

        NEED(p);
        CHECK(memcmp(p, "a\0b", 4) == 0); /* and the NUL it adds */
        p = mem_resize(p, 100);
        NEED(p);
        CHECK(memcmp(p, "a\0b", 4) == 0);
        mem_wipe(p, 4);
        CHECK(memcmp(p, "\0\0\0\0", 4) == 0);
        mem_free(p);
        mem_free(NULL);
        p = mem_alloc(0);
        CHECK(p);
        mem_free(p);
        CHECK(mem_array(SIZE_MAX / 2, 3) == NULL);
        CHECK(mem_dup("x", SIZE_MAX) == NULL);
}

TEST(mem_nth_fails)
{
        void *a, *b, *c;

        mem_fail_at(2);
        a = mem_alloc(1);
        b = mem_alloc(1);
        c = mem_zero(1);
        CHECK(a && !b && !c);
        CHECK(mem_fail_at(0) == 3);
        b = mem_resize(NULL, 1);
        CHECK(b);
        CHECK(mem_fail_at(0) == 0);
        mem_free(a);
        mem_free(b);
}

TEST(buf_grows)
{
        struct buf b = BUF_INIT;
        struct err e = { 0 };

        for (int i = 0; i < 1000; i++)
                CHECK(buf_add_char(&b, (char)i));
        CHECK(b.n == 1000 && b.p[999] == (char)999);
        buf_drop(&b, 990);
        CHECK(b.n == 10 && b.p[0] == (char)990);
        buf_drop(&b, 11);
        CHECK(b.n == 0);
        CHECK(buf_printf(&b, "%d-%s", 42, "x"));
        CHECK(buf_add_str(&b, STR("y")));
        CHECK(buf_add(&b, NULL, 0));
        CHECK_STR(buf_str(&b), "42-xy");
        CHECK(buf_reserve(&b, 5000));
        CHECK(b.cap >= b.n + 5000);
        CHECK_STR(buf_str(&b), "42-xy");
        CHECK(buf_ok(&b, &e));
        buf_free(&b);
        CHECK(b.p == NULL && b.n == 0);
}

TEST(buf_limit_sticks)
{
        struct buf b;
        struct err e = { 0 };

        buf_init(&b, 5);
        CHECK(buf_add(&b, "12345", 5));
        CHECK(!buf_add(&b, "6", 1));
        CHECK(!buf_add(&b, NULL, 0));
        CHECK(!buf_printf(&b, "x"));
        CHECK_STR(buf_str(&b), "12345");
        CHECK(!buf_ok(&b, &e));
        CHECK(e.code == ERR_LIMIT);
        buf_clear(&b);
        CHECK(buf_printf(&b, "%s", "abcde"));
        CHECK(!buf_printf(&b, "%s", "f"));
        CHECK(!buf_reserve(&b, SIZE_MAX));
        buf_free(&b);
        CHECK(b.max == 5);
}

TEST(buf_without_memory)
{
        struct buf b = BUF_INIT;
        struct err e = { 0 };

        mem_fail_at(1);
        CHECK(!buf_add(&b, "x", 1));
        mem_fail_at(0);
        CHECK(!buf_add(&b, "x", 1)); /* it sticks */
        CHECK(!buf_ok(&b, &e));
        CHECK(e.code == ERR_NOMEM);
        buf_free(&b);
        CHECK(!buf_reserve(&(struct buf)BUF_INIT, SIZE_MAX));
}

TEST(arena_pieces)
{
        struct arena *a = arena_new(0);
        char *p[500];

        NEED(a);
        for (size_t i = 0; i < 500; i++) {
                p[i] = arena_alloc(a, i);
                NEED(p[i]);
                CHECK((uintptr_t)p[i] % 16 == 0);
                for (size_t k = 0; k < i; k++)
                        CHECK(p[i][k] == 0);
                memset(p[i], (int)i, i);
                if (i % 50 == 0)
                        CHECK(arena_alloc(a, 100000)); /* one of its own */
        }
        for (size_t i = 0; i < 500; i++)
                for (size_t k = 0; k < i; k++)
                        CHECK(p[i][k] == (char)i); /* nothing overlapped, nothing moved */
        arena_free(a);
        arena_free(NULL);
}

TEST(arena_strings)
{
        struct arena *a = arena_new(0);
        struct str s;

        NEED(a);
        CHECK(strcmp(arena_dup(a, "abc", 2), "ab") == 0);
        s = arena_str(a, STR("a\0b"));
        CHECK_BYTES(s, STR("a\0b"));
        s = arena_str(a, STR_NONE);
        CHECK(s.p && s.n == 0 && s.p[0] == '\0');
        s = arena_printf(a, "%05d %s", 42, "x");
        CHECK_STR(s, "00042 x");
        CHECK(s.p[s.n] == '\0');
        arena_free(a);
}

TEST(arena_limit)
{
        struct arena *a = arena_new(100);

        NEED(a);
        CHECK(arena_alloc(a, 60));
        CHECK(!arena_alloc(a, 41));
        CHECK(!arena_alloc(a, SIZE_MAX));
        CHECK(!arena_dup(a, "x", SIZE_MAX));
        CHECK(arena_printf(a, "%050d", 1).p == NULL);
        CHECK(arena_str(a, str_make("0123456789012345678901234567890123456789", 40)).p == NULL);
        CHECK(arena_alloc(a, 40));
        CHECK(arena_used(a) == 100);
        CHECK(!arena_alloc(a, 1));
        arena_free(a);
}

TEST(arena_without_memory)
{
        struct arena *a;
        size_t n = 0;

        for (bool whole = false; !whole; ) {
                mem_fail_at(++n);
                a = arena_new(0);
                whole = a && arena_alloc(a, 10) && arena_alloc(a, 1 << 20) && arena_dup(a, "x", 1);
                mem_fail_at(0);
                arena_free(a);
        }
        CHECK(n >= 3); /* the arena with its first block, and the large piece */
}

static int freed;
static void count_free(void *p)
{
        freed += p != NULL;
}

static bool sum(void *ctx, struct str key, void *value)
{
        *(size_t *)ctx += (size_t)(uintptr_t)value;
        return true;
}

static bool once(void *ctx, struct str key, void *value)
{
        ++*(int *)ctx;
        return false;
}

TEST(map_many)
{
        struct map *m = map_new();
        char key[16];
        void *old = &freed;
        size_t total = 0;
        int calls = 0;

        NEED(m);
        CHECK(!map_get(m, STR("1")) && !map_remove(m, STR("1")));
        for (uintptr_t i = 1; i <= 5000; i++) {
                int n = snprintf(key, sizeof key, "%d", (int)i);
                CHECK(map_set(m, str_make(key, (size_t)n), (void *)i, &old));
                CHECK(old == NULL);
        }
        CHECK(map_count(m) == 5000);
        for (uintptr_t i = 1; i <= 5000; i += 2) {
                int n = snprintf(key, sizeof key, "%d", (int)i);
                CHECK(map_remove(m, str_make(key, (size_t)n)) == (void *)i);
        }
        CHECK(map_count(m) == 2500);
        for (uintptr_t i = 1; i <= 5000; i++) {
                int n = snprintf(key, sizeof key, "%d", (int)i);
                CHECK(map_get(m, str_make(key, (size_t)n)) == (i % 2 ? NULL : (void *)i));
        }
        map_each(m, sum, &total);
        CHECK(total == 2500 * 2501);
        map_each(m, once, &calls);
        CHECK(calls == 1);
        CHECK(map_set(m, STR("2"), &calls, &old) && old == (void *)2 && map_count(m) == 2500);
        freed = 0;
        map_free(m, count_free);
        CHECK(freed == 2500);
        map_free(NULL, NULL);
}

TEST(map_keys_are_bytes)
{
        struct map *m = map_new();
        int a, b, c;

        NEED(m);
        CHECK(map_set(m, STR("k"), &a, NULL) && map_set(m, STR("k\0"), &b, NULL) && map_set(m, STR_NONE, &c, NULL));
        CHECK(map_get(m, STR("k")) == &a && map_get(m, STR("k\0")) == &b && map_get(m, STR("")) == &c);
        map_free(m, NULL);
}

TEST(map_without_memory)
{
        struct map *m = map_new();
        int value;

        NEED(m);
        for (size_t n = 1; n <= 2; n++) {
                mem_fail_at(n);
                CHECK(!map_set(m, STR("k"), &value, NULL));
                mem_fail_at(0);
                CHECK(map_count(m) == 0);
                CHECK(map_get(m, STR("k")) == NULL);
                if (n == 1)
                        continue;
                CHECK(map_set(m, STR("k"), &value, NULL));
        }
        map_free(m, NULL);
}

/* The reference vectors of SipHash-2-4: key 00..0f, input 00..n-1. */
TEST(map_hash_vectors)
{
        static const struct {
                size_t n;
                uint64_t want;
        } rows[] = { { 0, 0x726fdb47dd0e0e31 }, { 1, 0x74f839c593dc67fd }, { 7, 0xab0200f58b01d137 },
                     { 8, 0x93f5f5799a932462 }, { 15, 0xa129ca6149be45e5 } };
        uint8_t key[16];
        char in[16];

        for (int i = 0; i < 16; i++) {
                key[i] = (uint8_t)i;
                in[i] = (char)i;
        }
        map_seed(key);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                CHECK(map_hash(str_make(in, rows[i].n)) == rows[i].want);
        memset(key, 1, sizeof key);
        map_seed(key);
        CHECK(map_hash(STR_NONE) != rows[0].want); /* H15: who does not know the key cannot choose collisions */
}

TEST_MAIN
