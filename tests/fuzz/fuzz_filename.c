/* Whatever comes in, one safe component goes out; cleaning it again changes nothing. */
#include "core/filename.h"
#include "tests/fuzz/fuzz.h"

static void check_safe(struct str s)
{
        MUST(utf8_valid(s) && without_controls(s, ""));
        MUST(!memchr(s.p, '/', s.n) && !memchr(s.p, '\\', s.n) && s.p[0] != '.' && s.p[0] != '-');
        MUST(s.p[s.n - 1] != '.' && s.p[s.n - 1] != ' ');
        for (size_t i = 0; i < s.n; i++)
                MUST(!strchr(":*?\"<>|`$;&", s.p[i]));
        for (struct str rest = s; rest.n > 0;) {
                uint32_t cp;

                rest = str_from(rest, utf8_next(rest, &cp));
                MUST(!(cp >= 0x80 && cp < 0xa0) && !(cp >= 0x200b && cp <= 0x200f) && !(cp >= 0x202a && cp <= 0x202e));
                MUST(!(cp >= 0x2066 && cp <= 0x2069) && cp != 0xfeff);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size), one, two, value, stem, ext;
        struct arena *a = fuzz_arena();
        unsigned flags = 0, again = 0;

        one = filename_clean(in, &flags, a);
        MUST(one.p || in.n == 0 || one.n == 0);
        if (one.n > 0) {
                check_safe(one);
                MUST(one.n <= FILENAME_MAX_BYTES);
                two = filename_clean(one, &again, a);
                MUST_SAME(two, one);
                MUST(!(again & FILENAME_CHANGED));
                two = filename_number(one, 2 + (unsigned)size, a);
                check_safe(two);
                MUST(two.n <= 255 && !str_eq(one, two));
        }
        filename_split(one, &stem, &ext);
        MUST(ext.n <= FILENAME_EXT_MAX && stem.n + ext.n <= one.n);
        value = filename_clean_value(in, a);
        MUST(utf8_valid(value) && without_controls(value, "") && !memchr(value.p ? value.p : "", '/', value.n));
        arena_free(a);
        return 0;
}
