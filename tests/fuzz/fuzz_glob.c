/* The pattern up to the first LF, the text behind it. Where only * and ? are in it, a slow matcher that is plainly right agrees. */
#include "core/glob.h"
#include "tests/fuzz/fuzz.h"

enum { SMALL = 64 };

static bool plain(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((uint8_t)s.p[i] >= 0x80 || s.p[i] == '[' || s.p[i] == '\\')
                        return false;
        return s.n < SMALL;
}

static bool matches(struct str pattern, struct str text)
{
        bool row[SMALL + 1] = { true }; /* row[j]: the pattern so far matches j bytes of the text */

        for (size_t i = 0; i < pattern.n; i++) {
                bool next[SMALL + 1] = { pattern.p[i] == '*' && row[0] };

                for (size_t j = 1; j <= text.n; j++)
                        next[j] = pattern.p[i] == '*' ? next[j - 1] || row[j]
                                  : row[j - 1] && (pattern.p[i] == '?' || ascii_lower(pattern.p[i]) == ascii_lower(text.p[j - 1]));
                memcpy(row, next, sizeof row);
        }
        return row[text.n];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char *const names[] = { "subject", "attachment", "larger", "newer", "header" };
        struct str text = fuzz_str(data, size), pattern = str_take(&text, '\n');
        bool yes = glob_match(pattern, text);

        if (plain(pattern) && plain(text))
                MUST(yes == matches(pattern, text));
        MUST(glob_match(STR("*"), text));
        (void)glob_nearest(str_first(pattern, 200), names, 5);
        return 0;
}
