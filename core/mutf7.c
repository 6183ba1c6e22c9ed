#include "core/mutf7.h"

#include "core/charset.h"

static int sextet(char c)
{
        if (c >= 'A' && c <= 'Z')
                return c - 'A';
        if (c >= 'a' && c <= 'z')
                return c - 'a' + 26;
        if (ascii_is_digit(c))
                return c - '0' + 52;
        return c == '+' ? 62 : c == ',' ? 63 : -1;
}

/* One UTF-16 unit behind the other. What may stand for itself (RFC: "MUST NOT be used to represent any printing US-ASCII") and
 * control characters make the name none of that form: no '/' comes in that way. */
static bool add_unit(uint32_t unit, uint32_t *high, struct buf *out)
{
        char utf8[4];

        if (*high) {
                if (unit < 0xdc00 || unit > 0xdfff)
                        return false;
                unit = 0x10000 + ((*high - 0xd800) << 10) + (unit - 0xdc00);
                *high = 0;
        } else if (unit >= 0xd800 && unit <= 0xdbff) {
                *high = unit;
                return true;
        }
        if (unit < 0xa0 || (unit >= 0xdc00 && unit <= 0xdfff))
                return false;
        buf_add(out, utf8, utf8_put(unit, utf8));
        return true;
}

static bool decode_shift(struct str s, struct buf *out)
{
        uint32_t bits = 0, high = 0;
        unsigned n = 0;

        for (size_t i = 0; i < s.n; i++) {
                int six = sextet(s.p[i]);

                if (six < 0)
                        return false;
                bits = (bits << 6 | (uint32_t)six) & 0x3fffff;
                n += 6;
                if (n < 16)
                        continue;
                n -= 16;
                if (!add_unit(bits >> n & 0xffff, &high, out))
                        return false;
        }
        return n < 6 && (bits & ((1u << n) - 1)) == 0 && !high;
}

static bool decode(struct str name, struct buf *out)
{
        while (name.n > 0) {
                size_t at = str_find(name, '&');
                struct str shift;

                buf_add_str(out, str_first(name, at));
                if (at == name.n)
                        return true;
                name = str_from(name, at + 1);
                at = str_find(name, '-');
                if (at == name.n)
                        return false;
                shift = str_first(name, at);
                name = str_from(name, at + 1);
                if (at == 0)
                        buf_add_char(out, '&');
                else if (!decode_shift(shift, out))
                        return false;
        }
        return true;
}

bool mutf7_decode(struct str name, struct buf *out)
{
        size_t before = out->n;

        if (!decode(name, out)) {
                out->n = before;
                buf_add_str(out, name);
        }
        return buf_ok(out, NULL);
}
