/* The template up to the first NUL, values behind it: the path stays below its root whatever they are. */
#include "core/template.h"
#include "tests/fuzz/fuzz.h"

static bool value(void *ctx, struct str field, struct str format, struct str *out, struct arena *a, struct err *e)
{
        struct str *rest = ctx;

        if (str_eq(field, STR("missing"))) {
                *out = STR_NONE;
                return true;
        }
        if (str_eq(field, STR("unknown")))
                return err_set(e, ERR_SYNTAX, "there is no such field");
        if (str_starts(field, STR("date"))) {
                *out = template_date((int64_t)rest->n * 1234567, format, "UTC", a, e);
                return out->p;
        }
        *out = rest->n ? str_take(rest, '\0') : STR_NONE;
        return true;
}

static void check_path(struct str path)
{
        MUST(path.n > 0 && path.p[0] != '/' && path.p[path.n - 1] != '/');
        MUST(utf8_valid(path) && without_controls(path, ""));
        while (path.n > 0) {
                struct str part = str_take(&path, '/');

                MUST(part.n > 0 && part.n <= 200 && !str_eq(part, STR(".")) && !str_eq(part, STR("..")) && part.p[0] != '-');
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str values = fuzz_str(data, size), text = str_take(&values, '\0'), left = values, path;
        struct template_source src = { value, &left };
        struct arena *a = fuzz_arena();
        struct err e = { 0 };

        path = template_path(text, &src, a, &e);
        if (path.p)
                check_path(path);
        else
                MUST(e.code != ERR_NONE && e.text[0]);
        left = values;
        if (path.p)
                MUST(template_check(text, &src, &e));
        arena_free(a);
        return 0;
}
