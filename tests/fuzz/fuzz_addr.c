/* A list of addresses. One that is called valid stands in the input, letter for letter: comments, blanks and quoting apart, nothing
 * is put together from pieces. */
#include "core/addr.h"
#include "tests/fuzz/fuzz.h"

/* Without blanks, quotes and backslashes; in lower case. */
static struct str squeezed(struct str s, struct arena *a)
{
        char *p = arena_alloc(a, s.n + 1);
        size_t n = 0;

        MUST(p);
        for (size_t i = 0; i < s.n; i++)
                if (!ascii_is_space(s.p[i]) && s.p[i] != '"' && s.p[i] != '\\')
                        p[n++] = ascii_lower(s.p[i]);
        return str_make(p, n);
}

static bool in_order(struct str all, struct str some) /* some is all with bytes left out */
{
        size_t i = 0;

        for (size_t k = 0; k < all.n && i < some.n; k++)
                i += all.p[k] == some.p[i];
        return i == some.n;
}

static void check_valid(const struct addr *x, struct str in, struct arena *a)
{
        struct str want = squeezed(x->addr, a), have = squeezed(in, a);

        MUST((x->user.n > 0 || str_starts(x->addr, STR("\"\"@"))) && x->domain.n > 0 && x->addr.n > 2);
        MUST(str_ends(x->addr, x->domain) && str_eq_nocase(x->addr, x->written));
        MUST(without_controls(x->addr, ""));
        MUST(in_order(have, want));
        if (!memchr(in.p, '(', in.n)) /* a comment may stand inside of an address */
                MUST(str_find_str(have, want) < have.n);
        MUST_SAME(addr_domain_of(x->addr), x->domain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct dice d = dice_of(in);
        struct limits lim = limits_default;
        struct arena *a = fuzz_arena();
        unsigned defects = 0, n = 0;
        struct err e;

        if (dice_roll(&d, 4) == 0)
                lim.addresses = 3;
        for (struct addr *x = addr_parse(in, &lim, &defects, a); x; x = x->next, n++) {
                MUST(utf8_valid(x->addr) && utf8_valid(x->written) && utf8_valid(x->name) && utf8_valid(x->user));
                MUST(utf8_valid(x->domain) && utf8_valid(x->group));
                MUST(without_controls(x->name, "\t") && without_controls(x->group, "\t"));
                if (x->valid)
                        check_valid(x, in, a);
        }
        MUST(n <= lim.addresses);
        if (addr_check(in, &e)) {
                MUST(in.n <= 254 && in.p[0] != '-' && without_controls(in, ""));
                MUST(!memchr(in.p, ' ', in.n) && memchr(in.p, '@', in.n));
                MUST(addr_user_of(in).n + addr_detail_of(in).n + addr_domain_of(in).n < in.n);
        }
        arena_free(a);
        return 0;
}
