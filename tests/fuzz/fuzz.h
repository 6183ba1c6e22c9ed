/* What the fuzz targets share. A target is one fuzz_NAME.c with LLVMFuzzerTestOneInput: libFuzzer drives it (`make fuzz`), or replay.c,
 * which runs files through it as ordinary tests.
 *
 * Inputs are plain files, mail as it is: how an input is cut into chunks is rolled by dice whose seed is the input itself. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/charset.h"
#include "core/limits.h"
#include "core/mem.h"
#include "core/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The invariant; what breaks it ends the process, so that the fuzzer keeps the input. */
#define MUST(x) ((x) ? (void)0 : fuzz_broken(__FILE__, __LINE__, #x))
#define MUST_SAME(a, b) (str_eq((a), (b)) ? (void)0 : fuzz_differ(__FILE__, __LINE__, #a, (a), #b, (b)))

_Noreturn static inline void fuzz_broken(const char *file, int line, const char *what)
{
        fprintf(stderr, "%s:%d: not true: %s\n", file, line, what);
        abort();
}

_Noreturn static inline void fuzz_differ(const char *file, int line, const char *an, struct str a, const char *bn, struct str b)
{
        fprintf(stderr, "%s:%d: %s (%zu bytes)\n%.*s\nis not %s (%zu bytes)\n%.*s\n", file, line, an, a.n, STR_FMT(a), bn, b.n,
                STR_FMT(b));
        abort();
}

static inline struct str fuzz_str(const uint8_t *data, size_t size) { return str_make((const char *)data, size); }

struct dice { uint64_t state; };

static inline struct dice dice_of(struct str in)
{
        uint64_t h = 0xcbf29ce484222325; /* FNV-1a */

        for (size_t i = 0; i < in.n; i++)
                h = (h ^ (uint8_t)in.p[i]) * 0x100000001b3;
        return (struct dice){ h };
}

static inline size_t dice_roll(struct dice *d, size_t n) /* 0 .. n-1 */
{
        d->state = d->state * 6364136223846793005 + 1442695040888963407;
        return (size_t)(d->state >> 33) % n;
}

/* How long the next chunk is: often a few bytes, now and then many. */
static inline size_t dice_chunk(struct dice *d, size_t left)
{
        static const size_t most[] = { 1, 3, 17, 90, 400, 5000 };
        size_t n = 1 + dice_roll(d, most[dice_roll(d, 6)]);

        return n < left ? n : left;
}

/* A copy that ends where its allocation ends, so that a look behind it is seen; mem_free it. */
static inline char *fuzz_copy(struct str s)
{
        char *p = mem_alloc(s.n ? s.n : 1);

        if (!p)
                abort();
        if (s.n)
                memcpy(p, s.p, s.n);
        return p;
}

static inline struct arena *fuzz_arena(void)
{
        struct arena *a = arena_new(0);

        if (!a)
                abort();
        return a;
}

/* No C0 control but those in `but`, and no DEL. */
static inline bool without_controls(struct str s, const char *but)
{
        for (size_t i = 0; i < s.n; i++)
                if (((uint8_t)s.p[i] < 0x20 && !(s.p[i] && strchr(but, s.p[i]))) || s.p[i] == 0x7f)
                        return false;
        return true;
}

#endif
