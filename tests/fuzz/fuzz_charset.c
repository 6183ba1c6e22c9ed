/* The first line is a charset's name, the rest is written in it. What comes out is UTF-8, and in chunks the same. */
#include "tests/fuzz/fuzz.h"

static void check_stream(struct str charset, struct str in, struct str want, struct dice *d)
{
        bool unknown = false, bad = false;
        struct charset_stream *s = charset_open(charset, &unknown);
        struct buf out = BUF_INIT;

        MUST(s);
        for (size_t at = 0, n; at < in.n; at += n) {
                char *copy;

                n = dice_chunk(d, in.n - at);
                copy = fuzz_copy(str_make(in.p + at, n));
                MUST(charset_feed(s, str_make(copy, n), &out));
                mem_free(copy);
        }
        MUST(charset_end(s, &out, &bad));
        MUST(utf8_valid(buf_str(&out)));
        if (!unknown && charset.n > 0 && !str_eq_nocase(charset, STR("us-ascii"))) /* those are guessed from all of the bytes */
                MUST_SAME(buf_str(&out), want);
        buf_free(&out);
}

static void check_utf8(struct str in)
{
        struct buf clean = BUF_INIT;

        MUST(utf8_clean(in, &clean) && utf8_valid(buf_str(&clean)));
        if (utf8_valid(in))
                MUST_SAME(buf_str(&clean), in);
        for (size_t n = 0; n < clean.n && n < 40; n++)
                MUST(utf8_valid(utf8_cut(buf_str(&clean), n)));
        for (struct str rest = in; rest.n > 0;) {
                uint32_t cp;
                char out[4];
                size_t n = utf8_next(rest, &cp);

                MUST(n >= 1 && n <= 4 && n <= rest.n && cp <= 0x10ffff);
                MUST(utf8_put(cp, out) >= 1 && utf8_put(utf8_fold(cp), out) <= 4);
                rest = str_from(rest, n);
        }
        buf_free(&clean);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size), charset = str_take(&in, '\n');
        struct dice d = dice_of(in);
        struct buf out = BUF_INIT, small = { .max = 10 };
        bool bad = false, unknown = false;

        MUST(charset_to_utf8(charset, in, &out, &bad, &unknown));
        MUST(utf8_valid(buf_str(&out)));
        MUST(out.n <= 16 * in.n + 64);
        check_stream(charset, in, buf_str(&out), &d);
        if (charset_to_utf8(charset, in, &small, NULL, NULL))
                MUST_SAME(buf_str(&small), buf_str(&out));
        MUST(small.n <= 10);
        check_utf8(in);
        buf_free(&out);
        buf_free(&small);
        return 0;
}
