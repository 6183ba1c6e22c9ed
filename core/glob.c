#include "core/glob.h"

#include "core/charset.h"

/* The character at the front of s, folded; its length in *n. */
static uint32_t front(struct str s, size_t *n)
{
        uint32_t code;

        if ((unsigned char)s.p[0] < 0x80) {
                *n = 1;
                return (unsigned char)ascii_lower(s.p[0]);
        }
        *n = utf8_next(s, &code);
        return utf8_fold(code);
}

static uint32_t take(struct str *s)
{
        size_t n;
        uint32_t code = front(*s, &n);

        *s = str_from(*s, n);
        return code;
}

/* One character of a set, which a backslash may precede. */
static uint32_t take_member(struct str *set)
{
        if (set->p[0] == '\\' && set->n > 1)
                *set = str_from(*set, 1);
        return take(set);
}

/* The length of the set at the front of the pattern, brackets included; 0 when the bracket is not closed and so stands
 * for itself. As in the shell, a ] that comes first is a member. */
static size_t set_length(struct str pattern)
{
        size_t at = 1;

        if (at < pattern.n && (pattern.p[at] == '!' || pattern.p[at] == '^'))
                at++;
        if (at < pattern.n && pattern.p[at] == ']')
                at++;
        for (; at < pattern.n; at++) {
                if (pattern.p[at] == '\\')
                        at++;
                else if (pattern.p[at] == ']')
                        return at + 1;
        }
        return 0;
}

/* set: without its brackets. */
static bool in_set(struct str set, uint32_t code)
{
        bool negated = set.n > 0 && (set.p[0] == '!' || set.p[0] == '^');
        bool found = false;

        set = str_from(set, negated);
        while (set.n > 0) {
                uint32_t low = take_member(&set), high = low;
                if (set.n > 1 && set.p[0] == '-') {
                        set = str_from(set, 1);
                        high = take_member(&set);
                }
                found = found || (code >= low && code <= high);
        }
        return found != negated;
}

/* Whether the first unit of the pattern, which is not a star, takes the first character of the text; both move on. */
static bool take_one(struct str *pattern, struct str *text)
{
        size_t set = pattern->p[0] == '[' ? set_length(*pattern) : 0;
        uint32_t code = take(text);

        if (set) {
                struct str members = str_make(pattern->p + 1, set - 2);
                *pattern = str_from(*pattern, set);
                return in_set(members, code);
        }
        if (pattern->p[0] == '?') {
                *pattern = str_from(*pattern, 1);
                return true;
        }
        return take_member(pattern) == code;
}

/* On a mismatch only the last star is tried again, one character further: an earlier one taking more could not help, as
 * what follows it has found its first place already. */
bool glob_match(struct str pattern, struct str text)
{
        struct str after_star = STR_NONE, tried = text;
        bool star = false;

        for (;;) {
                if (pattern.n > 0 && pattern.p[0] == '*') {
                        pattern = after_star = str_from(pattern, 1);
                        tried = text;
                        star = true;
                        if (pattern.n == 0)
                                return true;
                        continue;
                }
                if (text.n == 0)
                        return pattern.n == 0;
                if (pattern.n > 0 && take_one(&pattern, &text))
                        continue;
                if (!star)
                        return false;
                take(&tried);
                text = tried;
                pattern = after_star;
        }
}

enum { NAME_MAX_BYTES = 64 }; /* names of ours are shorter; a longer one is no misspelling of them */

static unsigned least(unsigned a, unsigned b)
{
        return a < b ? a : b;
}

/* Levenshtein's distance, with two letters changing places as one step, as that is how people mistype ("form", "from"). */
static unsigned distance(struct str a, struct str b)
{
        unsigned rows[3][NAME_MAX_BYTES + 1];

        for (unsigned k = 0; k <= b.n; k++)
                rows[0][k] = k;
        for (unsigned i = 1; i <= a.n; i++) {
                unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
                char c = ascii_lower(a.p[i - 1]);
                row[0] = i;
                for (unsigned k = 1; k <= b.n; k++) {
                        char other = ascii_lower(b.p[k - 1]);
                        row[k] = least(least(above[k], row[k - 1]) + 1, above[k - 1] + (c != other));
                        if (i > 1 && k > 1 && c == ascii_lower(b.p[k - 2]) && ascii_lower(a.p[i - 2]) == other)
                                row[k] = least(row[k], two_above[k - 2] + 1);
                }
        }
        return rows[a.n % 3][b.n];
}

const char *glob_nearest(struct str name, const char *const *names, size_t n)
{
        const char *nearest = NULL;
        unsigned best = (unsigned)(name.n / 3) + 1;

        if (name.n > NAME_MAX_BYTES)
                return NULL;
        for (size_t i = 0; i < n; i++) {
                struct str other = str_of(names[i]);
                unsigned steps = other.n <= NAME_MAX_BYTES ? distance(name, other) : best;
                if (steps < best) {
                        best = steps;
                        nearest = names[i];
                }
        }
        return nearest;
}
