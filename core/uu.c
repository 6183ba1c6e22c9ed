#include "core/uu.h"

enum { EXTRA_MAX = 2 }; /* some encoders end a line with a checksum */

static bool is_data(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] < ' ' || s.p[i] > '`')
                        return false;
        return true;
}

/* A space counts 0, as '`' does, and so does a space that a gateway took off the end of the line. */
static uint32_t sextet(struct str s, size_t at)
{
        return at < s.n ? (uint32_t)(s.p[at] - ' ') & 63 : 0;
}

int uu_decode_line(struct str line, char *out)
{
        struct str data;
        size_t n, done = 0;

        if (str_eq(str_trim_right(line), STR("end")))
                return 0;
        if (!is_data(line))
                return -1;
        n = sextet(line, 0);
        data = str_from(line, 1);
        if (str_trim_right(data).n > (n + 2) / 3 * 4 + EXTRA_MAX)
                return -1;
        for (size_t at = 0; done < n; at += 4) {
                uint32_t bits = sextet(data, at) << 18 | sextet(data, at + 1) << 12 | sextet(data, at + 2) << 6 |
                                sextet(data, at + 3);
                for (int shift = 16; shift >= 0 && done < n; shift -= 8)
                        out[done++] = (char)(bits >> shift);
        }
        return (int)n;
}

bool uu_begin(struct str line, struct str *name)
{
        struct str rest = line, mode;

        if (!str_eq(str_take(&rest, ' '), STR("begin")))
                return false;
        mode = str_take(&rest, ' ');
        if (mode.n < 3 || mode.n > 4)
                return false;
        for (size_t i = 0; i < mode.n; i++)
                if (mode.p[i] < '0' || mode.p[i] > '7')
                        return false;
        *name = str_trim(rest);
        return name->n > 0;
}
