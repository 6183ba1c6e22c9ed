#include "core/str.h"

int ascii_hex(char c)
{
        if (ascii_is_digit(c))
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

bool str_eq_nocase(struct str a, struct str b)
{
        if (a.n != b.n)
                return false;
        for (size_t i = 0; i < a.n; i++)
                if (a.p[i] != b.p[i] && ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
                        return false;
        return true;
}

int str_cmp(struct str a, struct str b)
{
        size_t n = a.n < b.n ? a.n : b.n;
        int c = n ? memcmp(a.p, b.p, n) : 0;

        return c ? c : (a.n > b.n) - (a.n < b.n);
}

bool str_starts_nocase(struct str s, struct str prefix)
{
        return s.n >= prefix.n && str_eq_nocase(str_first(s, prefix.n), prefix);
}

bool str_ends(struct str s, struct str suffix)
{
        return s.n >= suffix.n && str_eq(str_from(s, s.n - suffix.n), suffix);
}

bool str_ends_nocase(struct str s, struct str suffix)
{
        return s.n >= suffix.n && str_eq_nocase(str_from(s, s.n - suffix.n), suffix);
}

struct str str_trim_right(struct str s)
{
        while (s.n > 0 && ascii_is_space(s.p[s.n - 1]))
                s.n--;
        return s;
}

struct str str_trim(struct str s)
{
        while (s.n > 0 && ascii_is_space(s.p[0]))
                s = str_from(s, 1);
        return str_trim_right(s);
}

size_t str_find_str(struct str s, struct str needle)
{
        const char *at;

        if (needle.n == 0)
                return 0;
        at = s.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;
        return at ? (size_t)(at - s.p) : s.n;
}

/* Plain trial at every place: the needle is the script's or a literal, never the sender's. */
size_t str_find_str_nocase(struct str s, struct str needle)
{
        for (size_t at = 0; needle.n <= s.n && at <= s.n - needle.n; at++)
                if (str_eq_nocase(str_make(s.p + at, needle.n), needle))
                        return at;
        return s.n;
}

size_t str_rfind(struct str s, char c)
{
        const char *at = s.n ? memrchr(s.p, c, s.n) : NULL;

        return at ? (size_t)(at - s.p) : s.n;
}

struct str str_take(struct str *rest, char c)
{
        struct str taken = str_first(*rest, str_find(*rest, c));

        *rest = str_from(*rest, taken.n + 1);
        return taken;
}

struct str str_take_line(struct str *rest)
{
        size_t end = str_find(*rest, '\n');
        struct str line = str_first(*rest, end);
        bool ended = end < rest->n;

        *rest = str_from(*rest, end + 1);
        if (ended && line.n > 0 && line.p[line.n - 1] == '\r')
                line.n--;
        return line;
}

bool str_to_u64(struct str s, uint64_t max, uint64_t *out)
{
        uint64_t value = 0;

        if (s.n == 0)
                return false;
        for (size_t i = 0; i < s.n; i++) {
                uint64_t digit = (uint64_t)(s.p[i] - '0');
                if (!ascii_is_digit(s.p[i]) || value > (max - (digit < max ? digit : max)) / 10)
                        return false;
                value = value * 10 + digit;
                if (value > max)
                        return false;
        }
        *out = value;
        return true;
}

/* How many bytes follow the lead byte c; -1 when no character begins with it. *low is the least value such a length
 * may have, so that overlong forms are refused. */
static int utf8_follow(unsigned char c, uint32_t *bits, uint32_t *low)
{
        if (c < 0x80)
                return *bits = c, *low = 0, 0;
        if (c >= 0xc2 && c < 0xe0)
                return *bits = c & 0x1f, *low = 0x80, 1;
        if (c >= 0xe0 && c < 0xf0)
                return *bits = c & 0x0f, *low = 0x800, 2;
        if (c >= 0xf0 && c < 0xf5)
                return *bits = c & 0x07, *low = 0x10000, 3;
        return -1;
}

size_t str_utf8(struct str s, uint32_t *code)
{
        uint32_t bits = 0, low = 0;
        int follow = s.n ? utf8_follow((unsigned char)s.p[0], &bits, &low) : -1;

        if (follow < 0 || (size_t)follow >= s.n)
                return 0;
        for (int i = 1; i <= follow; i++) {
                unsigned char c = (unsigned char)s.p[i];
                if ((c & 0xc0) != 0x80)
                        return 0;
                bits = bits << 6 | (c & 0x3f);
        }
        if (bits < low || bits > 0x10ffff || (bits >= 0xd800 && bits < 0xe000))
                return 0;
        *code = bits;
        return (size_t)follow + 1;
}
