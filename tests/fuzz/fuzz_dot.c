/* Dot-stuffing: what goes out never holds a lone dot before its end and comes back as it was, line ends apart; in chunks as at once. */
#include "core/dot.h"
#include "tests/fuzz/fuzz.h"

static size_t unstuff(struct str in, struct dice *d, bool bare_lf, struct dot *state, struct buf *out)
{
        size_t at = 0, n, wrote;

        *state = (struct dot){ .bare_lf = bare_lf };
        while (at < in.n && state->state != DOT_DONE) {
                struct str chunk = d ? str_first(str_from(in, at), dice_chunk(d, in.n - at)) : in;
                char *copy = fuzz_copy(chunk), *to = mem_alloc(chunk.n + 2);

                n = dot_unstuff(state, str_make(copy, chunk.n), to, &wrote);
                MUST(n <= chunk.n && wrote <= chunk.n + 2 && (n == chunk.n || state->state == DOT_DONE));
                buf_add(out, to, wrote);
                at += n;
                mem_free(copy);
                mem_free(to);
        }
        MUST(state->wire == at);
        return at;
}

static void check_unstuff(struct str in, struct dice d, bool bare_lf)
{
        struct buf whole = BUF_INIT, cut = BUF_INIT;
        struct dot one, two;
        size_t n = unstuff(in, NULL, bare_lf, &one, &whole), m = unstuff(in, &d, bare_lf, &two, &cut);

        MUST(n == m && one.state == two.state && one.saw_bare_lf == two.saw_bare_lf);
        MUST_SAME(buf_str(&whole), buf_str(&cut));
        if (one.state == DOT_DONE) {
                MUST(n >= 2 && in.p[n - 1] == '\n');
                MUST(bare_lf || (n >= 3 && memcmp(in.p + n - 3, ".\r\n", 3) == 0));
                MUST(bare_lf || n == 3 || (n >= 5 && memcmp(in.p + n - 5, "\r\n", 2) == 0));
                MUST(whole.n == 0 || whole.p[whole.n - 1] == '\n');
        }
        buf_free(&whole);
        buf_free(&cut);
}

static void check_stuff(struct str in, struct dice d)
{
        struct buf wire = BUF_INIT, lf = BUF_INIT, back = BUF_INIT;
        struct stuff s = { 0 };
        struct dot state;
        char end[5];

        for (size_t at = 0, n; at < in.n; at += n) {
                char *to;

                n = dice_chunk(&d, in.n - at);
                to = mem_alloc(3 * n + 1);
                buf_add(&wire, to, dot_stuff(&s, str_make(in.p + at, n), to));
                mem_free(to);
        }
        buf_add(&wire, end, dot_stuff_end(&s, end));
        for (size_t i = 0; i < in.n; i++) /* any line end is LF */
                if (in.p[i] != '\r')
                        buf_add_char(&lf, in.p[i]);
                else if (i + 1 == in.n || in.p[i + 1] != '\n')
                        buf_add_char(&lf, '\n');
        if (lf.n > 0 && lf.p[lf.n - 1] != '\n')
                buf_add_char(&lf, '\n');
        MUST(unstuff(buf_str(&wire), &d, false, &state, &back) == wire.n && state.state == DOT_DONE && !state.saw_bare_lf);
        MUST_SAME(buf_str(&back), buf_str(&lf));
        for (size_t i = 0; i < wire.n; i++) {
                MUST(wire.p[i] != '\r' || (i + 1 < wire.n && wire.p[i + 1] == '\n'));
                MUST(wire.p[i] != '\n' || (i > 0 && wire.p[i - 1] == '\r'));
        }
        buf_free(&wire);
        buf_free(&lf);
        buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct dice d = dice_of(in);

        check_unstuff(in, d, false);
        check_unstuff(in, d, true);
        check_stuff(in, d);
        return 0;
}
