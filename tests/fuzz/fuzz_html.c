/* Readable text from anything: UTF-8, no longer than asked for; and format=flowed. */
#include "core/flowed.h"
#include "core/html.h"
#include "tests/fuzz/fuzz.h"

static void check_text(struct str html, size_t max)
{
        struct buf out = BUF_INIT;
        struct err e;

        MUST(buf_add(&out, "before", 6));
        MUST(html_text(html, max, &out, &e));
        MUST(out.n <= 6 + max && utf8_valid(buf_str(&out)) && memcmp(out.p, "before", 6) == 0);
        buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size), charset = html_charset(in);
        struct buf clean = BUF_INIT, flowed = BUF_INIT;

        MUST(charset.n == 0 || (charset.p >= in.p && charset.p + charset.n <= in.p + in.n));
        MUST(utf8_clean(in, &clean));
        check_text(buf_str(&clean), 1 << 20);
        check_text(buf_str(&clean), dice_roll(&(struct dice){ size }, 50));
        MUST(flowed_unwrap(buf_str(&clean), size & 1, &flowed) && utf8_valid(buf_str(&flowed)));
        MUST(flowed.n <= 3 * clean.n + 16);
        buf_free(&clean);
        buf_free(&flowed);
        return 0;
}
