#include "core/uu.h"

enum {
        EXTRA_MAX = 2,  /* some encoders end a line with a checksum */
        BAD_MAX = 3,    /* damaged lines in a row that a file survives */
        FULL_BYTES = 45,
};

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
        return true;
}

static bool found(struct uu_finder *f, bool ended)
{
        bool counts = (f->state == UU_DATA || f->state == UU_LAST) && (ended || f->full);

        f->state = UU_TEXT;
        f->ended = ended;
        f->at = f->begin;
        f->n = f->good - f->begin;
        f->name = str_make(f->kept, f->kept_n);
        return counts;
}

static void begin_if(struct uu_finder *f, struct str line)
{
        struct str name;

        f->state = UU_TEXT;
        if (!uu_begin(line, &name))
                return;
        f->state = UU_FIRST;
        f->begin = f->line_at;
        f->next_n = name.n;
        if (name.n)
                memcpy(f->next, name.p, name.n);
}

/* What a line can be inside a file. Blank and '`' lines count no bytes and come before the end line. */
enum kind { BAD, ZERO, DATA, END };

static enum kind kind_of(struct str line, bool too_long, int *bytes)
{
        char out[64];

        *bytes = too_long ? -1 : uu_decode_line(line, out);
        if (*bytes > 0)
                return DATA;
        if (*bytes < 0)
                return BAD;
        return str_eq(str_trim_right(line), STR("end")) ? END : ZERO;
}

/* The first line behind a begin line decides whether it was one. */
static void first_line(struct uu_finder *f, struct str line, enum kind kind, int bytes)
{
        size_t whole = (size_t)(bytes + 2) / 3 * 4;

        f->bad = 0;
        f->full = kind == DATA && bytes == FULL_BYTES && line.n > whole;
        if (kind == DATA && line.n > whole / 2)
                f->state = UU_DATA;
        else if (kind == ZERO && line.n)
                f->state = UU_LAST;
        else
                begin_if(f, line);
        if (f->state == UU_DATA || f->state == UU_LAST) {
                f->kept_n = f->next_n;
                memcpy(f->kept, f->next, f->next_n);
                f->good = f->fed;
        }
}

static bool data_line(struct uu_finder *f, struct str line, enum kind kind)
{
        struct str name;
        bool begins = uu_begin(line, &name), done;

        if (kind == END) {
                f->good = f->fed;
                return found(f, true);
        }
        if (kind == DATA && f->state == UU_DATA) {
                f->good = f->fed;
                f->bad = 0;
                return false;
        }
        if (kind == ZERO && ++f->bad <= BAD_MAX) {
                f->state = UU_LAST;
                return false;
        }
        if (kind == BAD && f->state == UU_DATA && !begins && ++f->bad <= BAD_MAX)
                return false;
        done = found(f, false);
        begin_if(f, line);
        return done;
}

/* One line is complete; f->fed stands behind it. */
static bool take_line(struct uu_finder *f)
{
        struct str line = str_make(f->line, f->line_n);
        bool done = false;
        int bytes;
        enum kind kind;

        if (line.n && line.p[line.n - 1] == '\r')
                line.n--;
        if (f->state == UU_TEXT) {
                if (!f->line_long)
                        begin_if(f, line);
        } else {
                kind = kind_of(line, f->line_long, &bytes);
                if (f->state == UU_FIRST)
                        first_line(f, line, kind, bytes);
                else
                        done = data_line(f, line, kind);
        }
        f->line_n = 0;
        f->line_long = false;
        f->line_at = f->fed;
        return done;
}

/* In text only a line that begins with a 'b' is worth a copy. */
static void keep(struct uu_finder *f, struct str piece)
{
        if (f->state == UU_TEXT && f->line_n == 0 && (f->line_long || (piece.n && piece.p[0] != 'b'))) {
                f->line_long = true;
                return;
        }
        if (piece.n > sizeof f->line - f->line_n) {
                f->line_long = true;
                piece.n = sizeof f->line - f->line_n;
        }
        if (piece.n)
                memcpy(f->line + f->line_n, piece.p, piece.n);
        f->line_n += piece.n;
}

bool uu_find(struct uu_finder *f, struct str *rest)
{
        while (rest->n > 0) {
                size_t n = str_find(*rest, '\n');
                bool whole = n < rest->n;

                keep(f, str_first(*rest, n));
                f->fed += n + whole;
                *rest = str_from(*rest, n + whole);
                if (whole && take_line(f))
                        return true;
        }
        return false;
}

/* The last line may both end one file and be the begin line of another, which has no data and is none: one answer is enough. */
bool uu_find_end(struct uu_finder *f)
{
        if (f->line_n && take_line(f))
                return true;
        return found(f, false);
}

static bool keep_until(struct str text, uint64_t *kept, const struct uu_finder *f, struct buf *out)
{
        struct str piece = str_first(str_from(text, *kept), f->at - *kept);

        *kept = f->at + f->n;
        return buf_add_str(out, piece);
}

bool uu_strip(struct str text, struct buf *out)
{
        struct uu_finder f = { 0 };
        struct str rest = text;
        uint64_t kept = 0;

        while (rest.n > 0)
                if (uu_find(&f, &rest) && !keep_until(text, &kept, &f, out))
                        return false;
        if (uu_find_end(&f) && !keep_until(text, &kept, &f, out))
                return false;
        return buf_add_str(out, str_from(text, kept));
}
