#include "core/mboxhead.h"

/* Bits of X-Mozilla-Status. */
enum { MOZILLA_READ = 1, MOZILLA_REPLIED = 2, MOZILLA_MARKED = 4, MOZILLA_EXPUNGED = 8, MOZILLA_FORWARDED = 0x1000 };

struct status { bool answered, draft, flagged, passed, seen, deleted, mozilla; };

static void read_letters(struct status *st, bool x, struct str value)
{
        for (size_t i = 0; i < value.n; i++)
                switch (value.p[i]) {
                case 'R': st->seen |= !x; break;
                case 'A': st->answered |= x; break;
                case 'F': st->flagged |= x; break;
                case 'T': st->draft |= x; break;
                case 'D': st->deleted |= x; break;
                }
}

/* The first one counts: Thunderbird writes it in front of what came from outside. */
static void read_mozilla(struct status *st, struct str value, struct mboxhead *out)
{
        unsigned bits = 0;

        value = str_trim(value);
        if (st->mozilla || value.n == 0 || value.n > 8)
                return;
        for (size_t i = 0; i < value.n; i++) {
                int digit = ascii_hex(value.p[i]);

                if (digit < 0)
                        return;
                bits = bits << 4 | (unsigned)digit;
        }
        st->mozilla = true;
        st->seen |= (bits & MOZILLA_READ) != 0;
        st->answered |= (bits & MOZILLA_REPLIED) != 0;
        st->flagged |= (bits & MOZILLA_MARKED) != 0;
        st->passed |= (bits & MOZILLA_FORWARDED) != 0;
        out->expunged = (bits & MOZILLA_EXPUNGED) != 0;
}

static void read_field(struct status *st, struct str name, struct str value, bool mozilla, struct mboxhead *out)
{
        if (str_eq_nocase(name, STR("Status")))
                read_letters(st, false, value);
        else if (str_eq_nocase(name, STR("X-Status")))
                read_letters(st, true, value);
        else if (mozilla && str_eq_nocase(name, STR("X-Mozilla-Status")))
                read_mozilla(st, value, out);
        else if (!out->has_length && str_eq_nocase(name, STR("Content-Length")))
                out->has_length = str_to_u64(str_trim(value), UINT64_MAX / 4, &out->length);
}

void mboxhead_read(struct str text, bool mozilla, struct mboxhead *out)
{
        struct status st = { 0 };
        struct str rest = text;

        *out = (struct mboxhead){ .ended = false };
        while (rest.n > 0) {
                struct str value = str_take_line(&rest);

                if (value.n == 0) {
                        out->ended = true;
                        out->body = text.n - rest.n;
                        break;
                }
                switch (*value.p) {
                case 'S': case 's': case 'X': case 'x': case 'C': case 'c': {
                        struct str name = str_take(&value, ':');

                        read_field(&st, name, value, mozilla, out);
                }
                }
        }
        const struct { bool set; char letter; } letters[] = { { st.draft, 'D' }, { st.flagged, 'F' }, { st.passed, 'P' },
                                                              { st.answered, 'R' }, { st.seen, 'S' }, { st.deleted, 'T' } };

        for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
                if (letters[i].set)
                        out->flags[out->flags_n++] = letters[i].letter;
}
