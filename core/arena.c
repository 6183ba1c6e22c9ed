#include "core/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/mem.h"

enum {
        ALIGN = alignof(max_align_t),
        SMALL = 1024,        /* an arena with its first block: a plan fits; malloc keeps pieces up to about this size at hand */
        BLOCK_LAST = 65536,  /* blocks double up to here */
        PRINTED_NEAR = 256,  /* most of what is printed is shorter, and then printed once */
        ALONE_MIN = 960,     /* larger pieces get a block of their own */
};

struct block {
        struct block *next;
        size_t used, size;
        alignas(max_align_t) char bytes[];
};

struct arena {
        alignas(max_align_t) struct block *now; /* the one being filled; full ones and large ones hang behind it */
        size_t next_size;
        size_t used, max;
        bool out;
};

/* The first block lies behind the arena itself. */
static struct block *first_of(struct arena *a)
{
        return (struct block *)(void *)(a + 1);
}

struct arena *arena_new_of(size_t max, size_t expected)
{
        size_t size = sizeof(struct arena) + sizeof(struct block) + expected;
        struct arena *a = mem_alloc(size < SMALL ? SMALL : size);

        if (!a)
                return NULL;
        *a = (struct arena){ .now = first_of(a), .max = max };
        *a->now = (struct block){ .size = (size < SMALL ? SMALL : size) - sizeof(struct arena) - sizeof(struct block) };
        a->next_size = a->now->size * 2;
        return a;
}

struct arena *arena_new(size_t max)
{
        return arena_new_of(max, 0);
}

void arena_free(struct arena *a)
{
        struct block *next;

        for (struct block *b = a ? a->now : NULL; b; b = next) {
                next = b->next;
                if (b != first_of(a))
                        mem_free(b);
        }
        mem_free(a);
}

/* Under the address sanitizer every piece is a block of its own, so that it sees a write past the end of one. */
static bool always_alone(void)
{
#if defined(__SANITIZE_ADDRESS__)
        return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
        return true;
#endif
#endif
        return false;
}

static struct block *block_new(size_t size)
{
        struct block *b = size < SIZE_MAX - sizeof *b ? mem_alloc(sizeof *b + size) : NULL;

        if (b)
                *b = (struct block){ .size = size };
        return b;
}

/* A piece too large to share a block. It goes behind the block being filled, which stays in use. */
static void *take_alone(struct arena *a, size_t n)
{
        struct block *b = block_new(n);

        if (!b)
                return NULL;
        b->used = n;
        b->next = a->now->next;
        a->now->next = b;
        return b->bytes;
}

static bool more(struct arena *a)
{
        struct block *b = block_new(a->next_size);

        if (!b)
                return false;
        b->next = a->now;
        a->now = b;
        if (a->next_size < BLOCK_LAST)
                a->next_size *= 2;
        return true;
}

/* The offset in the block being filled where n bytes of that alignment fit; its size when they do not. */
static size_t place(const struct arena *a, size_t n, size_t align)
{
        const struct block *b = a->now;
        size_t at = (b->used + align - 1) / align * align;
        return at <= b->size && n <= b->size - at ? at : b->size;
}

static void *take(struct arena *a, size_t n, size_t align)
{
        void *p = NULL;
        size_t at;

        if (n == 0)
                n = 1;
        if (a->max && n > a->max - a->used)
                return NULL;
        if (n > ALONE_MIN || always_alone()) {
                p = take_alone(a, n);
        } else {
                if (place(a, n, align) == a->now->size && !more(a)) {
                        a->out = true;
                        return NULL;
                }
                at = place(a, n, align);
                p = a->now->bytes + at;
                a->now->used = at + n;
        }
        if (p)
                a->used += n;
        a->out |= !p;
        return p;
}

void *arena_alloc(struct arena *a, size_t n)
{
        void *p = take(a, n, ALIGN);

        if (p)
                memset(p, 0, n ? n : 1);
        return p;
}

char *arena_dup(struct arena *a, const char *p, size_t n)
{
        char *copy = n < SIZE_MAX ? take(a, n + 1, 1) : NULL;

        if (!copy)
                return NULL;
        if (n)
                memcpy(copy, p, n);
        copy[n] = '\0';
        return copy;
}

struct str arena_str(struct arena *a, struct str s)
{
        char *copy = arena_dup(a, s.p, s.n);

        return copy ? str_make(copy, s.n) : STR_NONE;
}

struct str arena_printf(struct arena *a, const char *fmt, ...)
{
        va_list ap;
        char *text, near[PRINTED_NEAR];
        int n;

        va_start(ap, fmt);
        n = vsnprintf(near, sizeof near, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < sizeof near)
                return arena_str(a, str_make(near, (size_t)n));
        text = n >= 0 ? take(a, (size_t)n + 1, 1) : NULL;
        if (!text)
                return STR_NONE;
        va_start(ap, fmt);
        vsnprintf(text, (size_t)n + 1, fmt, ap);
        va_end(ap);
        return str_make(text, (size_t)n);
}

size_t arena_used(const struct arena *a)
{
        return a->used;
}

bool arena_ran_out(const struct arena *a) { return a->out; }
void arena_note_out(struct arena *a) { a->out = true; }

void arena_allow(struct arena *a, size_t more)
{
        if (a->max)
                a->max += more;
}
