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
        if (!ascii_is_space((char)c))
                d->garbage = true;
        return out;
}

size_t base64_decode(struct base64 *d, struct str in, char *out)
{
        const unsigned char *p = (const unsigned char *)in.p, *end = in.n ? p + in.n : p;
        char *o = out;

        while (p != end) {
                if (d->held == 0 && d->pads == 0)
                        o = decode_groups(&p, end, o);
                if (p != end)
                        o = take_byte(d, *p++, o);
        }
        return (size_t)(o - out);
}

size_t base64_end(struct base64 *d, char *out)
{
        char *o = out;

        if (d->held > 0 && d->held + d->pads < 4)
                d->truncated = true;
        if (d->pads == 0)
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
