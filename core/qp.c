#include "core/qp.h"

/* What is undecided at the end of a chunk is one of: blanks; blanks and CR; '='; '=' and blanks; '=', blanks and CR;
 * '=' and a hex digit. Blanks before a '=' are not: it shows that the line goes on. */

static size_t put(char *out, const char *p, size_t n)
{
        memcpy(out, p, n);
        return n;
}

/* What was undecided turns out to be text. */
static size_t give_up(struct qp *d, char *out)
{
        size_t n = 0;

        if (d->held > 0 && d->hold[0] == '=') {
                d->bad = true;
                out[n++] = '=';
        }
        n += put(out + n, d->blanks, d->blanks_n);
        if (d->held > 0 && d->hold[d->held - 1] != '=')
                out[n++] = d->hold[d->held - 1];
        d->held = 0;
        d->blanks_n = 0;
        return n;
}

static void hold(struct qp *d, char c)
{
        d->hold[d->held++] = c;
}

/* A byte with nothing but blanks undecided. */
static size_t take_text(struct qp *d, char c, char *out)
{
        size_t n = 0;

        if (c == '\n') {
                d->blanks_n = 0;
                out[0] = c;
                return 1;
        }
        if (c == '\r' && d->blanks_n > 0) {
                hold(d, c);
                return 0;
        }
        if (ascii_is_blank(c)) {
                if (d->blanks_n == sizeof d->blanks)
                        n = give_up(d, out);
                d->blanks[d->blanks_n++] = c;
                return n;
        }
        n = give_up(d, out);
        if (c == '=')
                hold(d, c);
        else
                out[n++] = c;
        return n;
}

/* A byte after '=' alone, or with blanks between, when it is part of the sequence. */
static bool take_after_equals(struct qp *d, char c)
{
        if (c == '\n') { /* a soft line break */
                d->held = 0;
                d->blanks_n = 0;
                return true;
        }
        if (c == '\r' || (d->blanks_n == 0 && ascii_hex(c) >= 0)) {
                hold(d, c);
                return true;
        }
        if (ascii_is_blank(c) && d->blanks_n < sizeof d->blanks) {
                d->blanks[d->blanks_n++] = c;
                return true;
        }
        return false;
}

static size_t take_held(struct qp *d, char c, char *out)
{
        char last = d->hold[d->held - 1];
        size_t n;

        if (last == '=' && take_after_equals(d, c))
                return 0;
        if (last == '\r' && c == '\n') {
                n = d->hold[0] == '=' ? 0 : put(out, "\r\n", 2);
                d->held = 0;
                d->blanks_n = 0;
                return n;
        }
        if (ascii_hex(last) >= 0 && ascii_hex(c) >= 0) {
                out[0] = (char)(ascii_hex(last) << 4 | ascii_hex(c));
                d->held = 0;
                return 1;
        }
        n = give_up(d, out);
        return n + take_text(d, c, out + n);
}

static bool is_plain(char c)
{
        return c != '=' && c != ' ' && c != '\t';
}

/* Text that needs no decision: a blank is one only when nothing but another byte of the line follows. */
static size_t plain_run(struct str s)
{
        size_t n = 0;

        for (;;) {
                while (n < s.n && is_plain(s.p[n]))
                        n++;
                if (s.n - n < 2 || s.p[n] == '=' || s.p[n + 1] == '\r' || s.p[n + 1] == '\n' || !is_plain(s.p[n + 1]))
                        return n;
                n += 2;
        }
}

size_t qp_decode(struct qp *d, struct str in, char *out)
{
        size_t n = 0, run;

        while (in.n > 0) {
                if (d->held == 0 && d->blanks_n == 0 && (run = plain_run(in)) > 0) {
                        n += put(out + n, in.p, run);
                        in = str_from(in, run);
                        continue;
                }
                n += d->held ? take_held(d, in.p[0], out + n) : take_text(d, in.p[0], out + n);
                in = str_from(in, 1);
        }
        return n;
}

/* The line end of a body's last line belongs to the boundary behind it, so the end of the input ends a line: blanks go,
 * and '=' is a soft line break. */
size_t qp_end(struct qp *d, char *out)
{
        bool ends_line = d->held == 0 || d->hold[d->held - 1] == '=' || (d->hold[0] == '=' && d->hold[1] == '\r');

        if (!ends_line)
                return give_up(d, out);
        d->held = 0;
        d->blanks_n = 0;
        return 0;
}

size_t qp_decode_word(struct str in, char *out)
{
        size_t n = 0;

        for (size_t i = 0; i < in.n; i++) {
                char c = in.p[i];
                if (c == '=' && in.n - i > 2 && ascii_hex(in.p[i + 1]) >= 0 && ascii_hex(in.p[i + 2]) >= 0) {
                        c = (char)(ascii_hex(in.p[i + 1]) << 4 | ascii_hex(in.p[i + 2]));
                        i += 2;
                } else if (c == '_') {
                        c = ' ';
                }
                out[n++] = c;
        }
        return n;
}
