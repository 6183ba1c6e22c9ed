#include "tests/unit/test.h"

#include <time.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/template.h"

static struct arena *a;
static struct err e;

static bool value(void *ctx, struct str field, struct str format, struct str *out, struct arena *ar, struct err *err)
{
        static const struct {
                const char *name, *value;
        } fields[] = { { "name", "report.pdf" }, { "from.domain", "x.org" }, { "folder", "Archive/2026//../.x" }, { "vars.x", "a/b" },
                       { "vars.dots", ".." }, { "vars.none", NULL }, { "vars.empty", "" }, { "subject", "../../etc/passwd" }, { "vars.dash", "-rf" } };

        (void)ctx;
        if (str_eq(field, STR("date"))) {
                *out = template_date(1795412460, format.n ? format : STR("%F"), "UTC", ar, err);
                return out->p != NULL;
        }
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
                if (str_eq(field, str_of(fields[i].name))) {
                        *out = str_of(fields[i].value);
                        return true;
                }
        return err_set(err, ERR_USAGE, "unknown field \"%.*s\"", STR_FMT(field));
}

static const struct template_source source = { value, NULL };

static struct str expand(const char *text)
{
        arena_free(a);
        a = arena_new(0);
        memset(&e, 0, sizeof e);
        return template_path(str_of(text), &source, a, &e);
}

TEST(expansion)
{
        CHECK_STR(expand("plain"), "plain");
        CHECK_STR(expand("invoices/{date:%Y-%m}/{from.domain}/7 {name}"), "invoices/2026-11/x.org/7 report.pdf");
        CHECK_STR(expand("{vars.none|fallback}"), "fallback");
        CHECK_STR(expand("{vars.empty|fall/back}"), "fall_back");
        CHECK_STR(expand("x{vars.none}y"), "xy");
        CHECK_STR(expand("{date:%d|never}"), "23");
        CHECK_STR(expand("{{{name}}}"), "{report.pdf}");
        CHECK_STR(expand("{folder}/{name}"), "Archive/2026/_x/report.pdf");
        CHECK_STR(expand("a{folder}b"), "aArchive/2026/_xb");
        CHECK_STR(expand("{date:%H:%M}"), "05_41");
}

TEST(values_cannot_escape)
{
        CHECK_STR(expand("{vars.x}"), "a_b");
        CHECK_STR(expand("{subject}"), "_._.._etc_passwd");
        CHECK_STR(expand("x/{vars.dots}{vars.dots}/y") , "x/y");
        CHECK_STR(expand("{vars.dash}"), "_-rf");
        CHECK_STR(expand(".{vars.empty}./x"), NULL);
        CHECK_STR(expand("a\\b"), "a_b");
        CHECK_STR(expand("nul"), "_nul");
}

TEST(empty_values)
{
        CHECK_STR(expand("{vars.none}/{name}"), "report.pdf");
        CHECK_STR(expand("a/{vars.none}{vars.empty}/{vars.none}/{name}"), "a/report.pdf");
        CHECK_STR(expand("a/{vars.empty} /b"), NULL);
        CHECK(!expand("a/{vars.none}").p && e.code == ERR_USAGE);
        CHECK(strstr(e.text, "{vars.none} is empty") && strstr(e.text, "\"a/\"") && strstr(e.text, "{vars.none|something}"));
        CHECK(!expand("{vars.none}").p && strstr(e.text, "{vars.none} is empty"));
}

TEST(F25_own_paths)
{
        CHECK(!expand("/etc/passwd").p && e.code == ERR_USAGE);
        CHECK(!expand("../x").p && e.code == ERR_USAGE);
        CHECK(!expand("a/../x").p);
        CHECK(!expand("a/./x").p);
        CHECK(!expand("").p && !expand("a//b").p && !expand("a/").p && !expand("{vars.none}").p);
}

TEST(syntax)
{
        static const char *const bad[] = { "{", "{name", "}", "a}b", "{}", "{na me}", "{|x}", "{:x}", "{{}", "{name}}" };

        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                CHECK(!expand(bad[i]).p && e.code == ERR_SYNTAX);
                CHECK(!template_check(str_of(bad[i]), &source, &e) && e.code == ERR_SYNTAX);
        }
        CHECK(!expand("{nmae}").p && e.code == ERR_USAGE);
        CHECK(!template_check(STR("x/{nmae}"), &source, &e) && e.code == ERR_USAGE);
        CHECK(!template_check(STR("{date:%Q}"), &source, &e) && e.code == ERR_SYNTAX);
        CHECK(template_check(STR("a/{vars.none}/{date:%Y}"), &source, &e));
}

TEST(long_paths)
{
        struct buf b = BUF_INIT;
        struct str s;

        for (int i = 0; i < 300; i++)
                buf_add_str(&b, STR("L"));
        buf_add_str(&b, STR("{name}"));
        a = a ? a : arena_new(0);
        s = template_path(buf_str(&b), &source, a, &e);
        CHECK(s.n == 200 && str_ends(s, STR(".pdf")));
        buf_clear(&b);
        for (int i = 0; i < 2500; i++)
                buf_add_str(&b, STR("x/"));
        buf_add_str(&b, STR("x"));
        CHECK(!template_path(buf_str(&b), &source, a, &e).p && e.code == ERR_LIMIT);
        buf_free(&b);
}

static struct str date(int64_t t, const char *format, const char *tz)
{
        arena_free(a);
        a = arena_new(0);
        return template_date(t, str_of(format), tz, a, &e);
}

TEST(dates)
{
        CHECK_STR(date(1795412460, "%Y %m %d %H %M %S %y %b %a %j %V %G %F %T %%", "UTC"), "2026 11 23 05 41 00 26 Nov Mon 327 48 2026 2026-11-23 05:41:00 %");
        CHECK_STR(date(1795412460, "%H:%M", "+02:00"), "07:41");
        CHECK_STR(date(1795412460, "%d %H:%M", "-0600"), "22 23:41");
        CHECK_STR(date(1795412460, "%H:%M", "CET-1CEST,M3.5.0,M10.5.0/3"), "06:41");
        CHECK_STR(date(1783000000, "%H:%M", "CET-1CEST,M3.5.0,M10.5.0/3"), "15:46");
        CHECK_STR(date(-62167219200, "%F", "UTC"), "0000-01-01");
        CHECK_STR(date(253402300799, "%F", "UTC"), "9999-12-31");
        CHECK(!date(0, "%Q", "UTC").p && e.code == ERR_SYNTAX);
        CHECK(!date(0, "%", "UTC").p && e.code == ERR_SYNTAX);
        CHECK_STR(date(0, "", "UTC"), "");
        setenv("TZ", "EST5", 1);
        tzset();
        CHECK_STR(date(0, "%F %T", NULL), "1969-12-31 19:00:00");
        CHECK_STR(date(0, "%T", "CET-1"), "01:00:00");
        CHECK_STR(date(0, "%F %T", NULL), "1969-12-31 19:00:00");
}

TEST(every_cut)
{
        const char *whole = "a/{date:%Y-%m|x}/{{b}}{folder|f} {vars.x}";

        for (size_t n = 0; n <= strlen(whole); n++) {
                char *copy = malloc(n ? n : 1);

                memcpy(copy, whole, n);
                arena_free(a);
                a = arena_new(0);
                (void)template_path(str_make(copy, n), &source, a, &e).p;
                (void)template_check(str_make(copy, n), &source, &e);
                free(copy);
        }
}

static void out_of_memory(size_t many)
{
        size_t n;
        struct str s = STR_NONE;

        for (n = 1; n < 80 && !s.p; n++) {
                struct arena *one = arena_new(0);

                memset(&e, 0, sizeof e);
                mem_fail_here(n, many);
                s = template_path(STR("a/{date:%Y}/{name}"), &source, one, &e);
                mem_fail_here(0, 0);
                if (s.p)
                        CHECK_STR(s, "a/2026/report.pdf");
                else
                        CHECK(e.code == ERR_NOMEM);
                arena_free(one);
        }
        CHECK(s.p && n > 2);
}

/* Also where only one piece lacks: the path is right, or there is none. */
TEST(T4_out_of_memory)
{
        out_of_memory(SIZE_MAX);
        out_of_memory(1);
        arena_free(a);
        a = NULL;
}

TEST_MAIN
