#include "core/dot.h"

static size_t put(char *out, const char *p, size_t n)
{
        memcpy(out, p, n);
        return n;
}

/* The rest of a line, with its end when it is there: one search and one copy. A bare CR needs no look at all: only the
 * one before the LF is special, and the one at the end of the input, which waits. Returns the bytes taken. */
static size_t take_line(struct dot *d, struct str in, char *out, size_t *wrote)
{
        size_t lf = str_find(in, '\n');

        if (lf == in.n) {
                bool waits = in.p[in.n - 1] == '\r';
                *wrote += put(out, in.p, in.n - waits);
                d->state = waits ? DOT_CR : DOT_IN_LINE;
                return in.n;
        }
        if (lf > 0 && in.p[lf - 1] == '\r') {
                *wrote += put(out, in.p, lf - 1);
                out[lf - 1] = '\n';
                ++*wrote;
                d->state = DOT_LINE_START;
                return lf + 1;
        }
        *wrote += put(out, in.p, lf + 1);
        d->saw_bare_lf = true;
        d->state = d->bare_lf ? DOT_LINE_START : DOT_IN_LINE;
        return lf + 1;
}

/* After a CR that waited: the LF makes a line end of it, anything else shows that it was bare. */
static size_t take_after_cr(struct dot *d, char c, char *out, size_t *wrote)
{
        out[0] = c == '\n' ? '\n' : '\r';
        ++*wrote;
        d->state = c == '\n' ? DOT_LINE_START : DOT_IN_LINE;
        return c == '\n';
}

/* After a dot that began a line. It is dropped whatever follows: RFC 1939, "if the line begins with the termination octet,
 * the line is byte-stuffed", and a line that is only ".LF" or ".CR" is not the end: a mail that holds one must not be able
 * to end the answer. */
static size_t take_after_dot(struct dot *d, char c)
{
        if (c == '\r')
                d->state = DOT_DOT_CR;
        else if (c == '\n' && d->bare_lf)
                d->state = DOT_DONE;
        else
                d->state = DOT_IN_LINE;
        return d->state != DOT_IN_LINE;
}

static size_t step(struct dot *d, struct str in, char *out, size_t *wrote)
{
        switch (d->state) {
        case DOT_LINE_START:
                d->state = in.p[0] == '.' ? DOT_DOT : DOT_IN_LINE;
                d->dots += d->state == DOT_DOT;
                return d->state == DOT_DOT;
        case DOT_IN_LINE:
                return take_line(d, in, out, wrote);
        case DOT_CR:
                return take_after_cr(d, in.p[0], out, wrote);
        case DOT_DOT:
                return take_after_dot(d, in.p[0]);
        case DOT_DOT_CR:
                if (in.p[0] != '\n')
                        return take_after_cr(d, in.p[0], out, wrote);
                d->state = DOT_DONE;
                return 1;
        case DOT_DONE:
                break;
        }
        return 0;
}

size_t dot_unstuff(struct dot *d, struct str in, char *out, size_t *wrote)
{
        size_t taken = 0;

        *wrote = 0;
        while (taken < in.n && d->state != DOT_DONE)
                taken += step(d, str_from(in, taken), out + *wrote, wrote);
        d->wire += taken;
        return taken;
}

/* A run of bytes without line ends, with the dot that its beginning may need. */
static size_t stuff_run(struct stuff *d, struct str run, char *out)
{
        size_t n = 0;

        if (run.n == 0)
                return 0;
        if (!d->mid_line && run.p[0] == '.')
                out[n++] = '.';
        d->mid_line = true;
        d->cr = false;
        return n + put(out + n, run.p, run.n);
}

static size_t stuff_line_end(struct stuff *d, char c, char *out)
{
        bool second = c == '\n' && d->cr; /* of a CRLF whose CR has been answered already */

        d->cr = c == '\r';
        d->mid_line = false;
        return second ? 0 : put(out, "\r\n", 2);
}

size_t dot_stuff(struct stuff *d, struct str in, char *out)
{
        size_t at = 0, n = 0, lf = 0;

        while (at < in.n) {
                size_t end;
                if (lf < at || at == 0) /* searched once for each LF, not for each CR before it: linear */
                        lf = at + str_find(str_from(in, at), '\n');
                end = at + str_find(str_make(in.p + at, lf - at), '\r');
                n += stuff_run(d, str_make(in.p + at, end - at), out + n);
                if (end < in.n)
                        n += stuff_line_end(d, in.p[end], out + n);
                at = end + 1;
        }
        return n;
}

size_t dot_stuff_end(struct stuff *d, char *out)
{
        size_t n = d->mid_line ? put(out, "\r\n", 2) : 0;

        d->mid_line = false;
        return n + put(out + n, ".\r\n", 3);
}
