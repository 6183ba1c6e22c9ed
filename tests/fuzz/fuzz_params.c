/* Values are UTF-8, names are lower case and few; what is written reads back. */
#include "core/params.h"
#include "tests/fuzz/fuzz.h"

static void there_and_back(struct str value, struct arena *a)
{
        struct str wire = params_encode(STR("filename"), value, a), whole;
        struct params p = { 0 };

        MUST(wire.p);
        whole = arena_printf(a, "attachment%.*s", (int)wire.n, wire.p);
        MUST(whole.n == wire.n + 10); /* no NUL in it */
        MUST(params_parse(&p, whole, &limits_default, a));
        MUST_SAME(params_value(&p, STR("FileName")), value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct dice d = dice_of(in);
        struct limits lim = limits_default;
        struct arena *a = fuzz_arena();
        struct params p = { 0 };
        unsigned n = 0;

        if (dice_roll(&d, 4) == 0)
                lim.parameters = 3, lim.sections = 2, lim.words = 2;
        MUST(params_parse(&p, in, &lim, a));
        MUST(utf8_valid(p.value));
        for (const struct param *q = p.first; q; q = q->next, n++) {
                MUST(q->name.n > 0 && utf8_valid(q->name) && utf8_valid(q->value));
                for (size_t i = 0; i < q->name.n; i++)
                        MUST(q->name.p[i] == ascii_lower(q->name.p[i]));
                MUST(q->literal.n <= in.n);
                MUST(params_find(&p, q->name));
                if (q->value.n > 0 && q->value.n < 600)
                        there_and_back(q->value, a);
        }
        MUST(n <= lim.parameters);
        arena_free(a);
        return 0;
}
