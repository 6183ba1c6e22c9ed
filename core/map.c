#include "core/map.h"

#include "core/mem.h"

enum { FIRST_SLOTS = 16 };

struct entry {
        struct entry *next;
        uint64_t hash;
        void *value;
        size_t key_n;
        char key[];
};

/* Chains, as many slots as entries at least: removal needs no tombstones, and the keyed hash keeps chains short. */
struct map {
        struct entry **slots;
        size_t slots_n; /* a power of two, or 0 */
        size_t count;
};

static uint64_t seed[2];

static uint64_t load_le(const unsigned char *p, size_t n)
{
        uint64_t v = 0;

        for (size_t i = 0; i < n; i++)
                v |= (uint64_t)p[i] << (8 * i);
        return v;
}

void map_seed(const uint8_t key[16])
{
        seed[0] = load_le(key, 8);
        seed[1] = load_le(key + 8, 8);
}

static inline uint64_t turn(uint64_t x, int by)
{
        return x << by | x >> (64 - by);
}

static inline void sip_rounds(uint64_t v[4], int n)
{
        while (n-- > 0) {
                v[0] += v[1], v[1] = turn(v[1], 13) ^ v[0], v[0] = turn(v[0], 32);
                v[2] += v[3], v[3] = turn(v[3], 16) ^ v[2];
                v[0] += v[3], v[3] = turn(v[3], 21) ^ v[0];
                v[2] += v[1], v[1] = turn(v[1], 17) ^ v[2], v[2] = turn(v[2], 32);
        }
}

static inline void sip_word(uint64_t v[4], uint64_t m)
{
        v[3] ^= m;
        sip_rounds(v, 2);
        v[0] ^= m;
}

/* SipHash-2-4 (Aumasson and Bernstein, 2012). */
uint64_t map_hash(struct str s)
{
        const unsigned char *p = (const unsigned char *)s.p;
        uint64_t v[4] = { seed[0] ^ 0x736f6d6570736575, seed[1] ^ 0x646f72616e646f6d, seed[0] ^ 0x6c7967656e657261,
                          seed[1] ^ 0x7465646279746573 };
        size_t left = s.n;

        for (; left >= 8; left -= 8, p += 8)
                sip_word(v, load_le(p, 8));
        sip_word(v, (uint64_t)s.n << 56 | load_le(p, left));
        v[2] ^= 0xff;
        sip_rounds(v, 4);
        return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct map *map_new(void)
{
        return mem_zero(sizeof(struct map));
}

void map_free(struct map *m, void (*free_value)(void *))
{
        for (size_t i = 0; m && i < m->slots_n; i++) {
                for (struct entry *e = m->slots[i], *next; e; e = next) {
                        next = e->next;
                        if (free_value)
                                free_value(e->value);
                        mem_free(e);
                }
        }
        if (m)
                mem_free(m->slots);
        mem_free(m);
}

/* The link that leads to the entry of that key, or the one at the end of its chain. */
static struct entry **find(const struct map *m, struct str key, uint64_t hash)
{
        struct entry **link = &m->slots[hash & (m->slots_n - 1)];

        while (*link && ((*link)->hash != hash || !str_eq(str_make((*link)->key, (*link)->key_n), key)))
                link = &(*link)->next;
        return link;
}

void *map_get(const struct map *m, struct str key)
{
        struct entry *e = m->slots_n ? *find(m, key, map_hash(key)) : NULL;

        return e ? e->value : NULL;
}

static bool grow(struct map *m)
{
        size_t n = m->slots_n ? m->slots_n * 2 : FIRST_SLOTS;
        struct entry **slots = mem_array(n, sizeof *slots);

        if (!slots)
                return false;
        for (size_t i = 0; i < m->slots_n; i++) {
                for (struct entry *e = m->slots[i], *next; e; e = next) {
                        next = e->next;
                        e->next = slots[e->hash & (n - 1)];
                        slots[e->hash & (n - 1)] = e;
                }
        }
        mem_free(m->slots);
        m->slots = slots;
        m->slots_n = n;
        return true;
}

static bool add(struct map *m, struct str key, uint64_t hash, void *value)
{
        struct entry *e, **slot;

        if (m->count >= m->slots_n && !grow(m))
                return false;
        e = key.n < SIZE_MAX - sizeof *e ? mem_alloc(sizeof *e + key.n) : NULL;
        if (!e)
                return false;
        slot = &m->slots[hash & (m->slots_n - 1)];
        *e = (struct entry){ .next = *slot, .hash = hash, .value = value, .key_n = key.n };
        if (key.n)
                memcpy(e->key, key.p, key.n);
        *slot = e;
        m->count++;
        return true;
}

bool map_set(struct map *m, struct str key, void *value, void **old)
{
        uint64_t hash = map_hash(key);
        struct entry *e = m->slots_n ? *find(m, key, hash) : NULL;

        if (old)
                *old = e ? e->value : NULL;
        if (!e)
                return add(m, key, hash, value);
        e->value = value;
        return true;
}

void *map_remove(struct map *m, struct str key)
{
        struct entry **link = m->slots_n ? find(m, key, map_hash(key)) : NULL;
        struct entry *e = link ? *link : NULL;
        void *value;

        if (!e)
                return NULL;
        value = e->value;
        *link = e->next;
        mem_free(e);
        m->count--;
        return value;
}

size_t map_count(const struct map *m)
{
        return m->count;
}

void map_each(const struct map *m, bool (*f)(void *ctx, struct str key, void *value), void *ctx)
{
        for (size_t i = 0; i < m->slots_n; i++)
                for (struct entry *e = m->slots[i]; e; e = e->next)
                        if (!f(ctx, str_make(e->key, e->key_n), e->value))
                                return;
}
