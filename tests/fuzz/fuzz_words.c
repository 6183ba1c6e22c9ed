/* Decoded words are UTF-8 without controls and not much longer than what came in; what is encoded decodes to itself, is ASCII, and
 * starts no line that is not a fold. */
#include "core/header.h"
#include "core/words.h"
#include "tests/fuzz/fuzz.h"

static void check_wire(struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                MUST(s.p[i] == '\r' || s.p[i] == '\n' || s.p[i] == '\t' || (s.p[i] >= ' ' && s.p[i] <= '~'));
                MUST((s.p[i] == '\n') == (i > 0 && s.p[i - 1] == '\r'));
                MUST(s.p[i] != '\n' || (i + 1 < s.n && s.p[i + 1] == ' '));
        }
        while (s.n > 0) { /* a line of blanks alone would end the header for some */
                struct str line = str_take_line(&s);

                MUST(str_trim(line).n > 0 && line.n <= 900);
        }
}

static void there_and_back(struct str utf8, bool phrase, struct arena *a)
{
        struct str wire = words_encode(utf8, phrase, 9, a), back;
        unsigned defects = 0;

        MUST(wire.p || utf8.n == 0);
        check_wire(wire);
        if (phrase)
                return; /* quoted pairs: addr reads them */
        back = words_decode(header_unfold(wire, a), STR_NONE, &limits_default, &defects, a);
        MUST_SAME(back, utf8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size), out;
        struct dice d = dice_of(in);
        struct limits lim = limits_default;
        struct arena *a = fuzz_arena();
        unsigned defects = 0;

        if (dice_roll(&d, 4) == 0)
                lim.words = 3;
        out = words_decode(in, dice_roll(&d, 2) ? STR("iso-2022-jp") : STR_NONE, &lim, &defects, a);
        MUST(out.p || in.n == 0);
        MUST(utf8_valid(out) && without_controls(out, "\t"));
        MUST(out.n <= 4 * in.n + 1024);
        if (out.n < 2000) { /* limits.words */
                there_and_back(str_trim(out), false, a);
                there_and_back(str_trim(out), true, a);
        }
        arena_free(a);
        return 0;
}
