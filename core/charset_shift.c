#include "core/charset_shift.h"

#include "core/charset.h"

struct escape {
        const char *bytes;
        enum shift_set set;
};

/* RFC 1468, and what mail has beside: half-width katakana (CP50221), JIS X 0212 (RFC 2237). */
static const struct escape japanese[] = {
        { "\x1b(B", SHIFT_ASCII },   { "\x1b$B", SHIFT_DOUBLE }, { "\x1b(J", SHIFT_ROMAN }, { "\x1b$@", SHIFT_DOUBLE },
        { "\x1b(I", SHIFT_KANA },    { "\x1b$(D", SHIFT_THREE }, { "\x1b(H", SHIFT_ROMAN }, { "\x1b$(B", SHIFT_DOUBLE },
        { "\x1b$(@", SHIFT_DOUBLE },
};
static const struct escape chinese[] = { { "~{", SHIFT_DOUBLE }, { "~}", SHIFT_ASCII } };

/* Takes an escape off in, or does not (*more: it may be the beginning of one). */
static bool take_escape(struct shift *s, struct str *in, bool *more)
{
        const struct escape *all = s->hz ? chinese : japanese;
        size_t count = s->hz ? sizeof chinese / sizeof *chinese : sizeof japanese / sizeof *japanese;

        *more = false;
        for (size_t i = 0; i < count; i++) {
                struct str e = str_of(all[i].bytes);

                if (str_starts(*in, e)) {
                        s->set = all[i].set;
                        *in = str_from(*in, e.n);
                        return true;
                }
                *more |= in->n < e.n && str_starts(e, *in);
        }
        return false;
}

static bool is_graphic(char c)
{
        return c > 32 && c < 127;
}

/* Whole characters of two bytes (or, behind 0x8f, of three) with their high bits set. */
static size_t take_double(struct shift *s, struct str *in, char *run)
{
        size_t n = 0;

        while (n + 3 <= SHIFT_RUN && in->n >= 2 && is_graphic(in->p[0]) && is_graphic(in->p[1])) {
                if (s->hz && in->p[0] == '~')
                        break;
                if (s->set == SHIFT_THREE)
                        run[n++] = '\x8f';
                run[n++] = (char)(in->p[0] | 0x80);
                run[n++] = (char)(in->p[1] | 0x80);
                *in = str_from(*in, 2);
        }
        return n;
}

/* One byte of a set of single bytes. RFC 1468: of JIS X 0201 only backslash and tilde differ from ASCII. */
static size_t put_single(const struct shift *s, unsigned char c, char *run)
{
        if (s->set == SHIFT_KANA)
                return utf8_put(0xff61u + (c - 0x21u), run);
        if (s->set == SHIFT_ROMAN && (c == '\\' || c == '~'))
                return utf8_put(c == '~' ? 0x203e : 0xa5, run);
        run[0] = (char)c;
        return 1;
}

static bool is_single(const struct shift *s, char c)
{
        if (s->set == SHIFT_KANA)
                return c > 32 && c < 0x60;
        return s->set < SHIFT_KANA && is_graphic(c);
}

/* Singles, and what is the same in every set: blanks and control characters. A line begins in ASCII. */
static size_t take_singles(struct shift *s, struct str *in, char *run)
{
        size_t n = 0;

        while (n + 3 <= SHIFT_RUN && in->n > 0) {
                unsigned char c = (unsigned char)in->p[0];

                if (c == 0x1b || c >= 0x80 || (s->hz && c == '~') || (is_graphic((char)c) && !is_single(s, (char)c)))
                        break;
                if (c == '\n')
                        s->set = SHIFT_ASCII;
                n += is_graphic((char)c) ? put_single(s, c, run + n) : (run[n] = (char)c, 1u);
                *in = str_from(*in, 1);
        }
        return n;
}

/* "~~" is a tilde, and "~" at the end of a line is nothing. */
static bool take_tilde(struct str *in, char *run, size_t *n)
{
        if (in->n < 2 || in->p[0] != '~' || (in->p[1] != '~' && in->p[1] != '\n'))
                return false;
        *n = in->p[1] == '~';
        run[0] = '~';
        *in = str_from(*in, 2);
        return true;
}

enum shift_kind shift_next(struct shift *s, struct str *in, char run[SHIFT_RUN], size_t *n)
{
        bool more;

        while (take_escape(s, in, &more))
                ;
        *n = 0;
        if (more || in->n == 0)
                return SHIFT_MORE;
        if (s->hz && s->set == SHIFT_ASCII && take_tilde(in, run, n))
                return SHIFT_UTF8;
        if (s->set >= SHIFT_DOUBLE && (*n = take_double(s, in, run)) > 0)
                return SHIFT_TWIN;
        if ((*n = take_singles(s, in, run)) > 0)
                return SHIFT_UTF8;
        if (s->set >= SHIFT_DOUBLE && in->n == 1 && is_graphic(in->p[0]))
                return SHIFT_MORE;
        *in = str_from(*in, 1);
        return SHIFT_INVALID;
}

bool shift_to_sjis(struct str pair, char out[2])
{
        unsigned row = (unsigned char)pair.p[0] - 0xa0u, cell = (unsigned char)pair.p[1] - 0xa0u;

        if (row < 1 || row > 94 || cell < 1 || cell > 94)
                return false;
        out[0] = (char)((row - 1) / 2 + (row > 62 ? 0xc1 : 0x81));
        out[1] = (char)(row % 2 == 0 ? cell + 0x9e : cell + 0x3f + (cell >= 64));
        return true;
}
