#include "core/date.h"

#include <stdio.h>

enum {
        RAW_MAX = 1024,  /* a date with its comments; the longest honest one seen has 90 bytes */
        TOKENS_MAX = 32,
        DAY_SECONDS = 86400,
};

static const char month_names[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
static const char day_names[7][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };

int64_t date_days(int year, int month, int day)
{
        /* Days from civil, after Howard Hinnant: years begin in March, so the leap day is the last. */
        int64_t y = month <= 2 ? (int64_t)year - 1 : year;
        int64_t era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
        int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

        return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void civil(int64_t days, int *year, int *month, int *day)
{
        int64_t era, of_era, y, of_year, m;

        days += 719468;
        era = (days >= 0 ? days : days - 146096) / 146097;
        of_era = days - era * 146097;
        y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
        of_year = of_era - (365 * y + y / 4 - y / 100);
        m = (5 * of_year + 2) / 153;
        *day = (int)(of_year - (153 * m + 2) / 5 + 1);
        *month = (int)(m < 10 ? m + 3 : m - 9);
        *year = (int)(y + era * 400 + (*month <= 2));
}

void date_format(int64_t seconds, int zone, char out[64])
{
        int64_t local = seconds + (int64_t)zone * 60;
        int64_t days = local / DAY_SECONDS - (local % DAY_SECONDS < 0), of_day = local - days * DAY_SECONDS;
        int year, month, day, east = zone < 0 ? -zone : zone;

        civil(days, &year, &month, &day);
        snprintf(out, 64, "%s, %02d %s %04d %02d:%02d:%02d %c%02d%02d", day_names[((days + 4) % 7 + 7) % 7], day,
                 month_names[month - 1], year, (int)(of_day / 3600), (int)(of_day / 60 % 60), (int)(of_day % 60),
                 zone < 0 ? '-' : '+', east / 60, east % 60);
}

/* Reading: tokens in any order, since mail has them in any order; what a token is says what it means. -1: not seen. */
struct parts {
        int year, month, day, hour, minute, second, zone;
        bool has_zone, pm, am;
};


static bool number(struct str *s, unsigned max_digits, int *value, unsigned *digits)
{
        unsigned n = 0;
        int v = 0;

        while (n < s->n && ascii_is_digit(s->p[n])) {
                if (n == max_digits)
                        return false;
                v = v * 10 + (s->p[n++] - '0');
        }
        *s = str_from(*s, n);
        *value = v;
        *digits = n;
        return n > 0;
}

/* Past blanks, commas, quotes ("05:41:00 \"GMT\"") and comments. False when a comment does not end. */
static bool skip_filling(struct str *s)
{
        size_t i = 0, depth = 0;

        for (; i < s->n; i++) {
                char c = s->p[i];

                if (c == '\\' && depth > 0)
                        i++;
                else if (c == '(')
                        depth++;
                else if (c == ')' && depth > 0)
                        depth--;
                else if (depth == 0 && !ascii_is_space(c) && c != ',' && c != '"')
                        break;
        }
        *s = str_from(*s, i);
        return depth == 0;
}

static int month_of(struct str word)
{
        for (int i = 0; i < 12; i++)
                if (word.n >= 3 && str_starts_nocase(word, str_make(month_names[i], 3)))
                        return i + 1;
        return 0;
}

static bool is_weekday(struct str word)
{
        for (int i = 0; i < 7; i++)
                if (word.n >= 3 && str_starts_nocase(word, str_make(day_names[i], 3)))
                        return true;
        return false;
}

/* RFC 5322 4.3; other names, military ones as well, say nothing certain and count as UTC. */
static int zone_of(struct str word)
{
        static const struct {
                char name[4];
                int hours;
        } zones[] = { { "EST", -5 }, { "EDT", -4 }, { "CST", -6 }, { "CDT", -5 }, { "MST", -7 }, { "MDT", -6 },
                      { "PST", -8 }, { "PDT", -7 }, { "AST", -4 }, { "ADT", -3 } };

        for (size_t i = 0; i < sizeof zones / sizeof *zones; i++)
                if (str_starts_nocase(word, str_make(zones[i].name, 3)))
                        return zones[i].hours * 60;
        return 0;
}

/* "+0200", "-330", "+02:00", "+2"; the sign is at s->p[0]. */
static bool read_offset(struct str *s, struct parts *t)
{
        int sign = s->p[0] == '-' ? -1 : 1, hours, minutes = 0;
        unsigned digits;

        *s = str_from(*s, 1);
        if (!number(s, 4, &hours, &digits))
                return false;
        if (digits > 2) {
                minutes = hours % 100;
                hours /= 100;
        } else if (s->n > 2 && s->p[0] == ':') {
                *s = str_from(*s, 1);
                if (!number(s, 2, &minutes, &digits))
                        return false;
        }
        t->zone = sign * (hours * 60 + minutes);
        t->has_zone = true;
        return minutes < 60 && hours < 24;
}

/* RFC 5322 4.3 lets blanks and comments stand around the colons of a time; without a colon behind them they are not ours. */
static void skip_to_colon(struct str *s)
{
        struct str rest = *s;

        if (rest.n > 0 && (ascii_is_space(rest.p[0]) || rest.p[0] == '(') && skip_filling(&rest) && rest.n > 0 && rest.p[0] == ':')
                *s = rest;
}

/* Past the colon, to a digit. */
static bool skip_colon(struct str *s, char sep)
{
        struct str rest = str_from(*s, 1);

        if (s->n == 0 || s->p[0] != sep || (sep == ':' && !skip_filling(&rest)) || rest.n == 0 || !ascii_is_digit(rest.p[0]))
                return false;
        *s = rest;
        return true;
}

/* The rest of a time, after "10:" or "10." */
static bool read_time(struct str *s, struct parts *t, int hour)
{
        char sep = s->p[0];
        unsigned digits;

        t->hour = hour;
        t->second = 0;
        if (!skip_colon(s, sep) || !number(s, 2, &t->minute, &digits))
                return false;
        skip_to_colon(s);
        if (skip_colon(s, sep)) {
                if (!number(s, 2, &t->second, &digits))
                        return false;
                if (s->n > 1 && (s->p[0] == '.' || s->p[0] == ',') && ascii_is_digit(s->p[1])) { /* ISO's fraction */
                        size_t n = 1;

                        while (n < s->n && ascii_is_digit(s->p[n]))
                                n++;
                        *s = str_from(*s, n);
                }
        }
        return true;
}

/* RFC 5322 4.3: "00 to 49 … 2000", "50 to 99, or three digits … 1900". */
static int full_year(int year, unsigned digits)
{
        if (digits >= 4)
                return year;
        return year + (digits <= 2 && year < 50 ? 2000 : 1900);
}

/* "2026-11-23", after the year. */
static bool read_iso(struct str *s, struct parts *t, int year)
{
        unsigned digits;

        *s = str_from(*s, 1);
        t->year = year;
        if (!number(s, 2, &t->month, &digits) || s->n < 2 || s->p[0] != '-')
                return false;
        *s = str_from(*s, 1);
        if (!number(s, 2, &t->day, &digits))
                return false;
        if (s->n > 1 && (s->p[0] == 'T' || s->p[0] == 't') && ascii_is_digit(s->p[1]))
                *s = str_from(*s, 1);
        return true;
}

static bool read_number(struct str *s, struct parts *t)
{
        unsigned digits;
        int value;

        if (!number(s, 4, &value, &digits))
                return false;
        if (digits == 4 && t->year < 0 && t->month < 0 && s->n > 2 && s->p[0] == '-' && ascii_is_digit(s->p[1]))
                return read_iso(s, t, value);
        if (digits <= 2 && t->hour < 0)
                skip_to_colon(s);
        if (digits <= 2 && t->hour < 0 && s->n > 1 && (s->p[0] == ':' || (s->p[0] == '.' && t->day >= 0 && ascii_is_digit(s->p[1]))))
                return read_time(s, t, value);
        if (digits <= 2 && t->day < 0) {
                t->day = value;
        } else if (t->year < 0) {
                t->year = full_year(value, digits);
        } else if (!t->has_zone && digits == 4) { /* a zone that has lost its sign says nothing */
                t->has_zone = true;
        } else {
                return false;
        }
        if (s->n > 1 && s->p[0] == '-' && ascii_is_alpha(s->p[1])) /* "23-Nov-2026" */
                *s = str_from(*s, 1);
        return true;
}

static bool read_word(struct str *s, struct parts *t)
{
        struct str word;
        size_t n = 0;
        int month;

        while (n < s->n && (ascii_is_alnum(s->p[n]) || s->p[n] == '.'))
                n++;
        word = str_first(*s, n);
        *s = str_from(*s, n);
        if (t->month < 0 && (month = month_of(word)) != 0) {
                t->month = month;
                if (s->n > 1 && s->p[0] == '-' && ascii_is_digit(s->p[1]))
                        *s = str_from(*s, 1);
                return true;
        }
        if (t->hour < 0)
                return is_weekday(word);
        if (str_eq_nocase(word, STR("PM")) || str_eq_nocase(word, STR("AM"))) {
                t->pm = ascii_lower(word.p[0]) == 'p';
                t->am = !t->pm;
        } else if (!t->has_zone) {
                t->zone = zone_of(word);
                t->has_zone = true;
        }
        return true;
}

static bool read_token(struct str *s, struct parts *t)
{
        char c = s->p[0];

        if (ascii_is_digit(c))
                return read_number(s, t);
        if (ascii_is_alpha(c))
                return read_word(s, t);
        if ((c == '+' || c == '-') && t->hour >= 0)
                return read_offset(s, t);
        return false;
}

static int month_days(int year, int month)
{
        static const int days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

        return days[month - 1] + (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
}

static bool make_seconds(struct parts *t, int64_t *seconds)
{
        if (t->hour < 0)
                t->hour = t->minute = t->second = 0;
        if ((t->pm || t->am) && t->hour <= 12)
                t->hour = t->hour % 12 + (t->pm ? 12 : 0);
        if (t->day < 1 || t->month < 1 || t->month > 12 || t->year < 0 || t->year > 9999)
                return false;
        if (t->day > month_days(t->year, t->month) || t->hour > 23 || t->minute > 59 || t->second > 60)
                return false;
        *seconds = date_days(t->year, t->month, t->day) * DAY_SECONDS + t->hour * 3600 + t->minute * 60 + t->second -
                   (int64_t)t->zone * 60;
        return true;
}

/* A day, a time and a zone: what else there is may be anything, as in "… +0100 for <joe@example.org>". */
static bool is_complete(const struct parts *t)
{
        return t->year >= 0 && t->month >= 0 && t->day >= 0 && t->hour >= 0 && t->has_zone;
}

bool date_parse(struct str raw, int64_t *seconds, int *zone)
{
        struct parts t = { .year = -1, .month = -1, .day = -1, .hour = -1 };
        struct str rest = str_first(raw, RAW_MAX);
        unsigned tokens = 0;

        for (;;) {
                struct parts before = t;
                bool filled = skip_filling(&rest);

                if (filled && rest.n == 0)
                        break;
                if (filled && tokens++ < TOKENS_MAX && read_token(&rest, &t))
                        continue;
                if (!is_complete(&before))
                        return false;
                t = before;
                break;
        }
        if (!make_seconds(&t, seconds))
                return false;
        if (zone)
                *zone = t.zone;
        return true;
}

static int64_t unit_seconds(struct str unit)
{
        static const struct {
                const char *name;
                int64_t seconds;
        } units[] = {
                { "s", 1 }, { "sec", 1 }, { "second", 1 }, { "m", 60 }, { "min", 60 }, { "minute", 60 }, { "h", 3600 },
                { "hr", 3600 }, { "hour", 3600 }, { "d", DAY_SECONDS }, { "day", DAY_SECONDS }, { "w", 7 * DAY_SECONDS },
                { "week", 7 * DAY_SECONDS }, { "month", 30 * DAY_SECONDS }, { "y", 365 * DAY_SECONDS },
                { "year", 365 * DAY_SECONDS },
        };

        if (unit.n > 2 && ascii_lower(unit.p[unit.n - 1]) == 's')
                unit.n--;
        for (size_t i = 0; i < sizeof units / sizeof *units; i++)
                if (str_eq_nocase(unit, str_of(units[i].name)))
                        return units[i].seconds;
        return 0;
}

bool date_duration(struct str s, int64_t *seconds)
{
        size_t n = 0;
        uint64_t value;
        int64_t unit;

        s = str_trim(s);
        while (n < s.n && ascii_is_digit(s.p[n]))
                n++;
        unit = unit_seconds(str_trim(str_from(s, n)));
        if (!unit || !str_to_u64(str_first(s, n), (uint64_t)(INT64_MAX / unit), &value))
                return false;
        *seconds = (int64_t)value * unit;
        return true;
}
