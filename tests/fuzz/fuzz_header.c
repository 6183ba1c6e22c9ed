/* Fields lie inside the block, one behind the other; the identity does not see how a field is folded. */
#include "core/header.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct dice d = dice_of(in);
        struct limits lim = limits_default;
        struct arena *a = fuzz_arena();
        const char *end = in.p;
        struct header h = { 0 };
        uint8_t hash[32];

        if (dice_roll(&d, 4) == 0)
                lim.header_block = 200, lim.header_field = 40, lim.header_fields = 4;
        MUST(header_split(&h, in, &lim, a));
        MUST(h.count <= lim.header_fields);
        for (size_t i = 0; i < h.count; i++) {
                const struct field *f = &h.fields[i];
                struct str value = header_unfold(f->raw, a);

                MUST(f->name.n > 0 && f->name.p >= end && f->raw.p > f->name.p + f->name.n - 1 && f->raw.p + f->raw.n <= in.p + in.n);
                MUST(!memchr(f->name.p, ':', f->name.n) && !memchr(f->name.p, '\n', f->name.n));
                MUST(value.n <= f->raw.n && !memchr(value.p ? value.p : "", '\n', value.n));
                MUST(header_find(&h, f->name) <= f && header_find(&h, f->name));
                end = f->raw.p + f->raw.n;
        }
        header_identity(&h, hash);
        arena_free(a);
        return 0;
}
