#include "core/fromline.h"

#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "core/date.h"

enum { TOKENS_MAX = 8 }; /* weekday, month, day, time, zone, year, and a second zone */

static const char days[] = "SunMonTueWedThuFriSat";
static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

static int name_in(const char *names, struct str s)
{
        for (int i = 0; s.n == 3 && names[3 * i]; i++)
                if (memcmp(names + 3 * i, s.p, 3) == 0)
                        return i;
        return -1;
}

static struct str take_word(struct str *rest)
{
        struct str word;
        size_t n = 0;

        while (rest->n > 0 && ascii_is_blank(*rest->p))
                *rest = str_from(*rest, 1);
        while (n < rest->n && !ascii_is_blank(rest->p[n]))
                n++;
        word = str_first(*rest, n);
        *rest = str_from(*rest, n);
        return word;
}

static bool is_time(struct str s)
{
        uint64_t n;
        unsigned part = 0;

        while (s.n > 0) {
                struct str digits = str_take(&s, ':');

                if (digits.n < 1 || digits.n > 2 || !str_to_u64(digits, part == 0 ? 23 : 60, &n))
                        return false;
                part++;
        }
        return part == 2 || part == 3;
}

static bool is_zone(struct str s)
{
        if (s.n == 5 && (*s.p == '+' || *s.p == '-')) {
                uint64_t n;

                return str_to_u64(str_from(s, 1), 9999, &n);
        }
        for (size_t i = 0; i < s.n; i++)
                if (!ascii_is_alpha(s.p[i]))
                        return false;
        return s.n > 0 && s.n <= 5;
}

static bool is_year(struct str s)
{
        uint64_t n;

        return (s.n == 4 || s.n == 2) && str_to_u64(s, 9999, &n);
}

static int64_t seconds_of(struct str day, struct str month, struct str year, struct str time, struct str zone)
{
        struct str words[] = { day, month, year, time, zone.n ? zone : STR("+0000") };
        char text[128];
        size_t n = 0;
        int64_t t;

        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
                if (words[i].n >= sizeof text - n)
                        return 0;
                memcpy(text + n, words[i].p, words[i].n);
                n += words[i].n;
                text[n++] = ' ';
        }
        return date_parse(str_make(text, n), &t, NULL) ? t : 0;
}

/* "Mon Nov 23 05:41:00 2026", a zone before or behind the year; "Mon, 23 Nov 2026 05:41:00 +0000". What follows the date ("remote
 * from host") does not matter. */
static bool take_date(struct str s, int64_t *t)
{
        struct str w[TOKENS_MAX], day, month, time, year = STR_NONE, zone = STR_NONE;
        size_t n = 0, at;
        uint64_t number;

        while (n < TOKENS_MAX && (w[n] = take_word(&s)).n > 0)
                n++;
        if (n < 5)
                return false;
        if (name_in(months, w[1]) >= 0)
                month = w[1], day = w[2], time = w[3], at = 4;
        else
                day = w[1], month = w[2], year = w[3], time = w[4], at = 5;
        for (; at < n; at++)
                if (year.n == 0 && is_year(w[at]))
                        year = w[at];
                else if (zone.n == 0 && is_zone(w[at]))
                        zone = w[at];
                else
                        break;
        if (day.n > 2 || !str_to_u64(day, 31, &number) || number == 0 || name_in(months, month) < 0 || !is_time(time) ||
            !is_year(year))
                return false;
        *t = seconds_of(day, month, year, time, zone);
        if (*t == 0 && zone.n > 0) /* "remote", or a zone nobody knows */
                *t = seconds_of(day, month, year, time, STR_NONE);
        return true;
}

static bool is_weekday(struct str s)
{
        if (s.n == 4 && s.p[3] == ',')
                s.n = 3;
        return name_in(days, s) >= 0;
}

/* "5:41" or "05.41" somewhere, and "2026" or "1999". */
static bool has_time_and_year(struct str s)
{
        bool time = false, year = false;

        while (s.n > 0) {
                size_t n = 0;

                while (n < s.n && ascii_is_digit(s.p[n]))
                        n++;
                year |= n == 4 && (str_starts(s, STR("19")) || str_starts(s, STR("20")));
                time |= (n == 1 || n == 2) && n + 2 < s.n && (s.p[n] == ':' || s.p[n] == '.') && ascii_is_digit(s.p[n + 1]) &&
                        ascii_is_digit(s.p[n + 2]);
                s = str_from(s, n ? n : 1);
        }
        return time && year;
}

bool fromline_parse(struct str line, struct fromline *out)
{
        struct str rest, before, word;

        *out = (struct fromline){ .sender = STR("") };
        if (!str_starts(line, STR("From ")))
                return false;
        rest = str_from(str_trim_right(line), 4);
        for (before = rest; (word = take_word(&rest)).n > 0; before = rest) {
                size_t blanks = (size_t)(word.p - before.p);

                if (!is_weekday(word) || !take_date(str_from(before, blanks), &out->time))
                        continue;
                out->dated = true;
                out->sender = str_trim(str_make(line.p + 4, (size_t)(word.p - line.p) - 4));
                break;
        }
        if (!out->dated) {
                rest = str_from(str_trim_right(line), 4);
                out->sender = take_word(&rest);
                out->bare = rest.n == 0;
                out->odd = has_time_and_year(rest);
                if (out->odd && !date_parse(rest, &out->time, NULL))
                        out->time = 0;
        }
        if (str_eq(out->sender, STR("-")))
                out->sender = STR("");
        return true;
}

#if defined(__SSE2__)
enum { STEP = 64 };

/* The places among 16 where 'F' is followed by 'r': in base64 one in 4096. */
static unsigned pairs_at(const char *p)
{
        __m128i first = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), _mm_set1_epi8('F'));
        __m128i second = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 1)), _mm_set1_epi8('r'));

        return (unsigned)_mm_movemask_epi8(_mm_and_si128(first, second));
}

const char *fromline_find(const char *p, size_t n)
{
        const char *end = p + n;

        for (; end - p >= STEP + 5; p += STEP) {
                uint64_t hits = pairs_at(p) | (uint64_t)pairs_at(p + 16) << 16 | (uint64_t)pairs_at(p + 32) << 32 | (uint64_t)pairs_at(p + 48) << 48;

                for (; hits; hits &= hits - 1) {
                        const char *at = p + __builtin_ctzll(hits);
                        if (memcmp(at, "From ", 5) == 0)
                                return at;
                }
        }
        return memmem(p, (size_t)(end - p), "From ", 5);
}
#else
const char *fromline_find(const char *p, size_t n)
{
        return memmem(p, n, "From ", 5);
}
#endif
