#include "core/template.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "core/buf.h"
#include "core/filename.h"
#include "core/mem.h"

enum { PATH_BYTES_MAX = 3800, DATE_BYTES_MAX = 200 }; /* PATH_MAX is 4096, and a root stands in front */

/* One `{field:format|fallback}`. */
struct slot {
        struct str field, format, fallback;
};

struct writer {
        const struct template_source *src; /* NULL parts: only checking */
        struct arena *a;
        struct err *e;
        struct buf path;      /* finished components, joined */
        struct buf component; /* the one being written */
        struct str empty;     /* the field in it that came out empty, if any did */
        bool expand;
};

static bool is_field_char(char c)
{
        return ascii_is_alnum(c) || c == '_' || c == '.' || c == '-';
}

/* Reads a slot whose '{' is at text[at]; *next is the offset behind its '}'. */
static bool read_slot(struct str text, size_t at, struct slot *s, size_t *next, struct err *e)
{
        struct str rest = str_from(text, at + 1);
        size_t end = str_find(rest, '}'), n = 0;

        if (end == rest.n)
                return err_set(e, ERR_SYNTAX, "template \"%.*s\": the \"{\" at %zu is never closed (a literal brace is \"{{\")",
                               STR_FMT(text), at + 1);
        rest = str_first(rest, end);
        *next = at + 1 + end + 1;
        while (n < rest.n && is_field_char(rest.p[n]))
                n++;
        s->field = str_first(rest, n);
        rest = str_from(rest, n);
        s->format = s->fallback = STR("");
        if (rest.n > 0 && rest.p[0] == ':') {
                n = str_find(rest, '|');
                s->format = str_make(rest.p + 1, n - 1);
                rest = str_from(rest, n);
        }
        if (rest.n > 0 && rest.p[0] == '|') {
                s->fallback = str_from(rest, 1);
                rest = STR("");
        }
        if (s->field.n == 0 || rest.n > 0)
                return err_set(e, ERR_SYNTAX, "template \"%.*s\": \"{%.*s}\" is not {field}, {field:format} or {field|fallback}",
                               STR_FMT(text), (int)(end < 200 ? end : 200), text.p + at + 1);
        return true;
}

static bool say_empty(struct writer *w)
{
        struct str done = buf_str(&w->path);

        if (w->empty.n)
                return err_set(w->e, ERR_USAGE, "{%.*s} is empty, so nothing names the end of the path \"%.*s%s\" (write {%.*s|something})",
                               STR_FMT(w->empty), STR_FMT(done), done.n ? "/" : "", STR_FMT(w->empty));
        return err_set(w->e, ERR_USAGE, "the path \"%.*s%s…\" has an empty component", STR_FMT(done), done.n ? "/" : "");
}

/* The end of a component: cleaned as a whole, joined to those before it. A folder on the way that no value names is no folder, as
 * "a//b" is "a/b" for the kernel: mail that lacks a field must not be held for it. What names the file must name it. */
static bool end_component(struct writer *w, bool last)
{
        struct str c;

        if (!w->expand)
                return true;
        if (w->component.failed)
                return err_nomem(w->e);
        if (w->component.n == 0 && w->empty.n && !last) {
                w->empty = STR_NONE;
                return true;
        }
        c = filename_clean(buf_str(&w->component), NULL, w->a);
        if (!c.p)
                return err_nomem(w->e);
        if (c.n == 0)
                return say_empty(w);
        w->empty = STR_NONE;
        if (w->path.n > 0)
                buf_add_char(&w->path, '/');
        buf_add_str(&w->path, c);
        buf_clear(&w->component);
        return true;
}

static bool add_value(struct writer *w, struct str value)
{
        struct str v = filename_clean_value(value, w->a);

        if (!v.p)
                return err_nomem(w->e);
        buf_add_str(&w->component, v);
        return true;
}

/* A value that keeps its separators: each component cleaned, empty ones left out, the last one left open. */
static bool add_folder(struct writer *w, struct str value)
{
        bool any = false;

        while (value.n > 0) {
                struct str part = filename_clean_value(str_take(&value, '/'), w->a);

                if (!part.p)
                        return err_nomem(w->e);
                if (part.n == 0)
                        continue;
                if (any && !end_component(w, false))
                        return false;
                buf_add_str(&w->component, part);
                any = true;
        }
        return true;
}

static bool add_slot(struct writer *w, const struct slot *s)
{
        struct str value = STR_NONE;
        size_t at;
        bool ok;

        if (!w->src->value(w->src->ctx, s->field, s->format, &value, w->a, w->e))
                return false;
        if (!w->expand)
                return true;
        at = w->component.n;
        if (value.n == 0)
                ok = add_value(w, s->fallback);
        else
                ok = str_eq(s->field, STR("folder")) ? add_folder(w, value) : add_value(w, value);
        if (w->component.n == at)
                w->empty = s->field;
        return ok;
}

/* "." and ".." of the template's own; values can't make them. */
static bool check_own(struct str text, struct err *e)
{
        struct str rest = text;

        if (text.n == 0)
                return err_set(e, ERR_USAGE, "the template is empty");
        if (text.p[0] == '/')
                return err_set(e, ERR_USAGE, "template \"%.*s\" is an absolute path: all paths lie below the root", STR_FMT(text));
        while (rest.n > 0) {
                struct str c = str_take(&rest, '/');

                if (str_eq(c, STR(".")) || str_eq(c, STR("..")))
                        return err_set(e, ERR_USAGE, "template \"%.*s\" has the component \"%.*s\"", STR_FMT(text), STR_FMT(c));
        }
        return true;
}

static bool read_brace(struct writer *w, struct str text, size_t *at)
{
        struct slot s;
        char c = text.p[*at];

        if (*at + 1 < text.n && text.p[*at + 1] == c) {
                buf_add_char(&w->component, c);
                *at += 2;
                return true;
        }
        if (c == '}')
                return err_set(w->e, ERR_SYNTAX, "template \"%.*s\": a lone \"}\" at %zu (a literal brace is \"}}\")", STR_FMT(text), *at + 1);
        return read_slot(text, *at, &s, at, w->e) && add_slot(w, &s);
}

static bool run(struct writer *w, struct str text)
{
        size_t at = 0;

        if (!check_own(text, w->e))
                return false;
        while (at < text.n) {
                char c = text.p[at];

                if (c == '{' || c == '}') {
                        if (!read_brace(w, text, &at))
                                return false;
                        continue;
                }
                at++;
                if (c == '/') {
                        if (!end_component(w, false))
                                return false;
                } else {
                        buf_add_char(&w->component, c == '\\' ? '_' : c);
                }
        }
        return end_component(w, true);
}

struct str template_path(struct str text, const struct template_source *src, struct arena *a, struct err *e)
{
        struct writer w = { .src = src, .a = a, .e = e, .expand = true };
        struct str out = STR_NONE;

        if (run(&w, text)) {
                if (w.path.failed || arena_ran_out(a)) /* a value that could not be had would look like one that is missing */
                        err_nomem(e);
                else if (w.path.n > PATH_BYTES_MAX)
                        err_set(e, ERR_LIMIT, "the path is %zu bytes long, %d are possible", w.path.n, PATH_BYTES_MAX);
                else if (!(out = arena_str(a, buf_str(&w.path))).p)
                        err_nomem(e);
        }
        buf_free(&w.path);
        buf_free(&w.component);
        return out;
}

bool template_check(struct str text, const struct template_source *src, struct err *e)
{
        struct writer w = { .src = src, .a = arena_new(0), .e = e };
        bool ok;

        if (!w.a)
                return err_nomem(e);
        ok = run(&w, text);
        buf_free(&w.path);
        buf_free(&w.component);
        arena_free(w.a);
        return ok;
}

/* Dates. */

/* "UTC", "+02:00", "-0330": minutes east. */
static bool fixed_zone(const char *tz, int *minutes)
{
        struct str s = str_of(tz);
        int v = 0;
        unsigned digits = 0;

        *minutes = 0;
        if (str_eq(s, STR("UTC")) || str_eq(s, STR("GMT")) || str_eq(s, STR("Z")))
                return true;
        if (s.n < 5 || s.n > 6 || (s.p[0] != '+' && s.p[0] != '-'))
                return false;
        for (size_t i = 1; i < s.n; i++) {
                if (s.p[i] == ':' && i == 3)
                        continue;
                if (!ascii_is_digit(s.p[i]))
                        return false;
                v = v * 10 + (s.p[i] - '0');
                digits++;
        }
        *minutes = (s.p[0] == '-' ? -1 : 1) * (v / 100 * 60 + v % 100);
        return digits == 4 && v % 100 < 60 && v < 2400;
}

/* The C library knows one zone at a time, TZ's. A run that sets TZ to its mail.timezone before its first thread never
 * gets to the second half. */
static bool local_time(time_t t, const char *tz, struct tm *tm)
{
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        const char *now = getenv("TZ");
        char *was;
        bool ok;

        if (!tz || (now && strcmp(now, tz) == 0))
                return localtime_r(&t, tm) != NULL;
        pthread_mutex_lock(&lock);
        now = getenv("TZ");
        was = now ? mem_dup(now, strlen(now)) : NULL;
        ok = !now || was;
        if (ok) {
                setenv("TZ", tz, 1);
                tzset();
                ok = localtime_r(&t, tm) != NULL;
                if (was)
                        setenv("TZ", was, 1);
                else
                        unsetenv("TZ");
                tzset();
        }
        pthread_mutex_unlock(&lock);
        mem_free(was);
        return ok;
}

static bool split_time(int64_t seconds, const char *tz, struct tm *tm)
{
        int minutes;
        time_t t = (time_t)seconds;

        memset(tm, 0, sizeof *tm);
        if (!tz || !fixed_zone(tz, &minutes))
                return local_time(t, tz, tm);
        t += (time_t)minutes * 60;
        return gmtime_r(&t, tm) != NULL;
}

/* Names in English and digits, whatever the locale: a path must not depend on who runs the script. */
static bool add_date_item(struct buf *b, char c, const struct tm *t)
{
        static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec", days[] = "SunMonTueWedThuFriSat";
        char week[8];

        switch (c) {
        case 'Y': return buf_printf(b, "%04d", t->tm_year + 1900);
        case 'm': return buf_printf(b, "%02d", t->tm_mon + 1);
        case 'd': return buf_printf(b, "%02d", t->tm_mday);
        case 'H': return buf_printf(b, "%02d", t->tm_hour);
        case 'M': return buf_printf(b, "%02d", t->tm_min);
        case 'S': return buf_printf(b, "%02d", t->tm_sec);
        case 'y': return buf_printf(b, "%02d", (t->tm_year % 100 + 100) % 100);
        case 'b': return buf_add(b, months + t->tm_mon * 3, 3);
        case 'a': return buf_add(b, days + t->tm_wday * 3, 3);
        case 'j': return buf_printf(b, "%03d", t->tm_yday + 1);
        case 'V': return buf_add(b, week, strftime(week, sizeof week, "%V", t));
        case 'G': return buf_add(b, week, strftime(week, sizeof week, "%G", t));
        case 'F': return buf_printf(b, "%04d-%02d-%02d", t->tm_year + 1900, t->tm_mon + 1, t->tm_mday);
        case 'T': return buf_printf(b, "%02d:%02d:%02d", t->tm_hour, t->tm_min, t->tm_sec);
        case '%': return buf_add_char(b, '%');
        default: return false;
        }
}

struct str template_date(int64_t seconds, struct str format, const char *tz, struct arena *a, struct err *e)
{
        struct tm tm;
        struct buf b;
        struct str out = STR_NONE;

        if (!split_time(seconds, tz, &tm)) {
                err_set(e, ERR_USAGE, "the time %lld is out of range", (long long)seconds);
                return STR_NONE;
        }
        buf_init(&b, DATE_BYTES_MAX);
        for (size_t i = 0; i < format.n; i++) {
                if (format.p[i] != '%') {
                        buf_add_char(&b, format.p[i]);
                        continue;
                }
                i++;
                if (i == format.n || (!add_date_item(&b, format.p[i], &tm) && !b.failed)) {
                        err_set(e, ERR_SYNTAX, "date format \"%.*s\": \"%%%.*s\" is none of %%Y %%m %%d %%H %%M %%S %%y %%b %%a %%j "
                                "%%V %%G %%F %%T %%%%", STR_FMT(format), i < format.n, format.p + i);
                        buf_free(&b);
                        return STR_NONE;
                }
        }
        if (buf_ok(&b, e) && !(out = b.n ? arena_str(a, buf_str(&b)) : STR("")).p)
                err_nomem(e);
        buf_free(&b);
        return out;
}
