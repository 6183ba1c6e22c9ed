#include "core/base64.h"

#include <endian.h>

enum { BAD = 0x1000000 }; /* above any 24 bits, so that one comparison finds a bad byte among four */

/* The value of each byte, four times, already shifted to its place in the group: four loads and three ORs decode it. */
#define VALUE(c)                                                                                                      \
        ((c) >= 'A' && (c) <= 'Z'   ? (c) - 'A'                                                                       \
         : (c) >= 'a' && (c) <= 'z' ? (c) - 'a' + 26                                                                  \
         : (c) >= '0' && (c) <= '9' ? (c) - '0' + 52                                                                  \
         : (c) == '+'               ? 62                                                                              \
         : (c) == '/'               ? 63                                                                              \
                                    : -1)
#define ONE(c, shift) (VALUE(c) < 0 ? BAD : (VALUE(c) & 63) << (shift)),
#define FOUR(c, s) ONE(c, s) ONE((c) + 1, s) ONE((c) + 2, s) ONE((c) + 3, s)
#define SIXTEEN(c, s) FOUR(c, s) FOUR((c) + 4, s) FOUR((c) + 8, s) FOUR((c) + 12, s)
#define SIXTY_FOUR(c, s) SIXTEEN(c, s) SIXTEEN((c) + 16, s) SIXTEEN((c) + 32, s) SIXTEEN((c) + 48, s)
#define ALL(s) { SIXTY_FOUR(0, s) SIXTY_FOUR(64, s) SIXTY_FOUR(128, s) SIXTY_FOUR(192, s) }

static const uint32_t values[4][256] = { ALL(18), ALL(12), ALL(6), ALL(0) };

/* The whole groups at *in, up to the first byte that is not of the alphabet. The last store writes one byte too many;
 * base64_room has it. */
static char *decode_groups(const unsigned char **in, const unsigned char *end, char *out)
{
        const unsigned char *p = *in;

        for (; end - p >= 4; p += 4, out += 3) {
                uint32_t bits = values[0][p[0]] | values[1][p[1]] | values[2][p[2]] | values[3][p[3]];
                if (bits >= BAD)
                        break;
                bits = htobe32(bits << 8);
                memcpy(out, &bits, 4);
        }
        *in = p;
        return out;
}

#if defined(__x86_64__) && defined(__GNUC__)
/* Vector code (after W. Mula and D. Lemire, "Faster Base64 Encoding and Decoding using AVX2 Instructions"): 32 characters become 24 bytes.
 * What an alphabet has in each sixteenth is told by its high and low four bits; a table of distances turns characters into sextets. */
#include <immintrin.h>

enum { VECTOR_IN = 32, VECTOR_OUT = 32, VECTOR_MARGIN = 48 }; /* of a store 24 bytes count; so much input left means that it has room */

#define TWICE(...) __VA_ARGS__, __VA_ARGS__

/* Those of 32 characters that are none of the alphabet, as bits, and the 24 bytes of the others. */
__attribute__((target("avx2"))) static inline unsigned decode_vector(const unsigned char *p, char *out)
{
        const __m256i low_classes = _mm256_setr_epi8(TWICE(0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1a, 0x1b, 0x1b, 0x1b, 0x1a));
        const __m256i high_classes = _mm256_setr_epi8(TWICE(0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10));
        const __m256i distances = _mm256_setr_epi8(TWICE(0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0));
        const __m256i order = _mm256_setr_epi8(TWICE(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1));
        const __m256i slash = _mm256_set1_epi8('/'), nibble = _mm256_set1_epi8(0x0f);
        __m256i in = _mm256_loadu_si256((const __m256i *)(const void *)p);
        __m256i high = _mm256_and_si256(_mm256_srli_epi32(in, 4), nibble), low = _mm256_and_si256(in, nibble);
        __m256i classes = _mm256_and_si256(_mm256_shuffle_epi8(low_classes, low), _mm256_shuffle_epi8(high_classes, high));
        unsigned good = (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(classes, _mm256_setzero_si256()));
        __m256i sextets = _mm256_add_epi8(in, _mm256_shuffle_epi8(distances, _mm256_add_epi8(_mm256_cmpeq_epi8(in, slash), high)));
        __m256i twelves = _mm256_maddubs_epi16(sextets, _mm256_set1_epi32(0x01400140));
        __m256i bits = _mm256_madd_epi16(twelves, _mm256_set1_epi32(0x00011000));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(bits, order), _mm256_setr_epi32(0, 1, 2, 4, 5, 6, -1, -1));

        _mm256_storeu_si256((__m256i *)(void *)out, bytes);
        return ~good;
}

/* As decode_groups, as long as there is input for whole vectors; passes line ends between groups. */
__attribute__((target("avx2"))) static char *decode_vectors(const unsigned char **in, const unsigned char *end, char *out)
{
        const unsigned char *p = *in;

        while (end - p >= VECTOR_MARGIN) {
                unsigned bad = decode_vector(p, out), n = bad ? (unsigned)__builtin_ctz(bad) & ~3u : VECTOR_IN;

                p += n;
                out += n / 4 * 3;
                if (!bad)
                        continue;
                if (*p == '\r')
                        p++;
                if (*p != '\n')
                        break;
                p++;
        }
        *in = p;
        return out;
}

static char *decode_many(const unsigned char **in, const unsigned char *end, char *out)
{
        if (end - *in >= VECTOR_MARGIN && __builtin_cpu_supports("avx2"))
                out = decode_vectors(in, end, out);
        return decode_groups(in, end, out);
}
#else
#define decode_many decode_groups
#endif

/* The whole bytes in the sextets held: 0, 0, 1 or 2. */
static char *put_held(const struct base64 *d, char *out)
{
        uint32_t bits = d->bits << (24 - 6 * d->held);

        if (d->held >= 2)
                *out++ = (char)(bits >> 16);
        if (d->held == 3)
                *out++ = (char)(bits >> 8);
        return out;
}

/* Padding completes what is held; a '=' where none can stand is a byte outside the alphabet. */
static char *take_pad(struct base64 *d, char *out)
{
        if (d->held < 2) {
                d->garbage = true;
                if (d->held == 0)
                        d->pads = 1;
                return out;
        }
        if (d->pads == 0)
                out = put_held(d, out);
        if (d->held + d->pads < 4)
                d->pads++;
        else
                d->garbage = true;
        return out;
}

static char *take_sextet(struct base64 *d, uint32_t value, char *out)
{
        if (d->pads > 0) {
                d->padded = true;
                if (d->first_run)
                        return out;
                d->pads = d->held = 0;
                d->bits = 0;
        }
        d->bits = d->bits << 6 | value;
        if (++d->held < 4)
                return out;
        *out++ = (char)(d->bits >> 16);
        *out++ = (char)(d->bits >> 8);
        *out++ = (char)d->bits;
        d->bits = 0;
        d->held = 0;
        return out;
}

static char *take_byte(struct base64 *d, unsigned char c, char *out)
{
        if (values[3][c] != BAD)
                return take_sextet(d, values[3][c], out);
        if (c == '=')
                return take_pad(d, out);
        if (!ascii_is_space((char)c)) {
                d->garbage = true;
                d->over = d->pads > 0;
        }
        return out;
}

size_t base64_decode(struct base64 *d, struct str in, char *out)
{
        const unsigned char *p = (const unsigned char *)in.p, *end = in.n ? p + in.n : p;
        char *o = out;

        while (p != end && !d->over) {
                if (d->held == 0 && d->pads == 0)
                        o = decode_many(&p, end, o);
                if (p != end)
                        o = take_byte(d, *p++, o);
        }
        return (size_t)(o - out);
}

/* RFC 4648 3.5: "pad bits MUST be set to zero by conforming encoders". Where they are, an encoder ended here and only the padding was
 * forgotten; where not, the group was cut off in its middle, and nobody knows what its last bytes were. */
bool base64_could_end(const struct base64 *d)
{
        return d->held == 0 || d->pads > 0 || (d->held == 2 && (d->bits & 0xf) == 0) || (d->held == 3 && (d->bits & 0x3) == 0);
}

size_t base64_end(struct base64 *d, char *out)
{
        char *o = out;

        if (d->held > 0 && d->held + d->pads < 4)
                d->truncated = true;
        if (d->pads == 0 && base64_could_end(d))
                o = put_held(d, out);
        d->bits = 0;
        d->held = d->pads = 0;
        return (size_t)(o - out);
}

size_t base64_encode(struct str in, char *out)
{
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const unsigned char *p = (const unsigned char *)in.p;
        size_t left = in.n;
        char *o = out;

        while (left > 0) {
                uint32_t bits = (uint32_t)p[0] << 16 | (left > 1 ? (uint32_t)p[1] << 8 : 0) | (left > 2 ? p[2] : 0);
                *o++ = digits[bits >> 18];
                *o++ = digits[bits >> 12 & 63];
                *o++ = left > 1 ? digits[bits >> 6 & 63] : '=';
                *o++ = left > 2 ? digits[bits & 63] : '=';
                p += left < 3 ? left : 3;
                left -= left < 3 ? left : 3;
        }
        return (size_t)(o - out);
}
