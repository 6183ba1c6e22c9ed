#include "core/linescan.h"

#include <string.h>

size_t linescan_dash_portable(const char *p, size_t n, uint64_t *lines)
{
        const char *at = p, *end = p + n;

        while ((at = memchr(at, '\n', (size_t)(end - at)))) {
                ++*lines;
                if (at + 1 == end || at[1] == '-')
                        return (size_t)(at - p);
                at++;
        }
        return n;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

enum { STEP = 64 };

__attribute__((target("avx2"))) static inline uint64_t equal(const char *p, char c)
{
        __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)p), second = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
        __m256i wanted = _mm256_set1_epi8(c);
        uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(first, wanted));
        uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(second, wanted));

        return low | (uint64_t)high << 32;
}

/* As linescan_dash, as far as there are 64 bytes and one more; *at is where it stopped without a hit. */
__attribute__((target("avx2,popcnt"))) static int scan_vectors(const char *p, size_t n, size_t *at, uint64_t *lines)
{
        uint64_t count = 0, ends, hits;
        size_t i = 0;

        for (; n - i > STEP; i += STEP) {
                ends = equal(p + i, '\n');
                hits = ends ? ends & equal(p + i + 1, '-') : 0;
                if (hits) {
                        ends &= hits ^ (hits - 1); /* up to the first */
                        *lines += count + (uint64_t)__builtin_popcountll(ends);
                        *at = i + (size_t)__builtin_ctzll(hits);
                        return 1;
                }
                count += (uint64_t)__builtin_popcountll(ends);
        }
        *lines += count;
        *at = i;
        return 0;
}

size_t linescan_dash(const char *p, size_t n, uint64_t *lines)
{
        size_t at = 0;

        if (n > STEP && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && scan_vectors(p, n, &at, lines))
                return at;
        return at + linescan_dash_portable(p + at, n - at, lines);
}
#else
size_t linescan_dash(const char *p, size_t n, uint64_t *lines)
{
        return linescan_dash_portable(p, n, lines);
}
#endif
