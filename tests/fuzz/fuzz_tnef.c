/* TNEF and what it packs: files are ranges of the input that do not overlap more than the format lets them, names are UTF-8, a message
 * inside is one again, and the files found by a smaller limit are the first of those found by a larger one. */
#include "core/tnef.h"
#include "core/smime.h"
#include "tests/fuzz/fuzz.h"

enum { FILES = 200, RTF_MOST = 1 << 20 };

static void inside(struct str data, struct str in)
{
        if (data.p)
                MUST(data.p >= in.p && data.n <= in.n && (size_t)(data.p - in.p) <= in.n - data.n);
}

static void check_text(struct str s)
{
        MUST(utf8_valid(s) && (!s.p || s.n));
}

static void check_body(const struct tnef_body *b, struct str in)
{
        inside(b->data, in);
        MUST(memchr(b->charset, 0, sizeof b->charset));
}

static void check_rtf(struct str in)
{
        struct buf out;

        buf_init(&out, RTF_MOST);
        if (!tnef_rtf(in, &out))
                MUST(!out.failed || out.over);
        MUST(out.n <= RTF_MOST && out.n / 18 <= in.n); /* two bytes say 17 at most */
        buf_free(&out);
}

static unsigned check(struct str in)
{
        struct arena *a = fuzz_arena();
        struct tnef t = { 0 }, few = { 0 };
        const struct tnef_file *other;
        unsigned n = 0;

        MUST(tnef_parse(&t, in, FILES, a) && tnef_parse(&few, in, 1, a));
        MUST(tnef_is(in) || (t.broken && t.cut && t.count == 0));
        MUST(!t.cut || t.broken);
        other = few.files;
        for (const struct tnef_file *f = t.files; f; f = f->next, n++) {
                MUST(f->data.p);
                inside(f->data, in);
                check_text(f->name);
                check_text(f->type);
                check_text(f->id);
                MUST((f->kind == TNEF_MESSAGE) == (f->kind != TNEF_FILE && tnef_is(f->data)));
                if (n == 0 && other)
                        MUST(other->data.p == f->data.p && other->data.n == f->data.n);
        }
        MUST(n <= FILES && n <= t.count);
        check_body(&t.text, in);
        check_body(&t.html, in);
        check_body(&t.rtf, in);
        if (t.rtf.data.p)
                check_rtf(t.rtf.data);
        arena_free(a);
        return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        char *copy = fuzz_copy(in);
        struct dice d = dice_of(in);
        struct buf out = BUF_INIT;
        enum smime_kind kind;
        size_t cut = dice_roll(&d, size + 1);

        check(str_make(copy, size));
        mem_free(copy);
        copy = fuzz_copy(str_first(in, cut));
        check(str_make(copy, cut));
        check_rtf(str_make(copy, cut));
        mem_free(copy);
        MUST(smime_open(in, &out, &kind) && (out.n == 0 || kind == SMIME_SIGNED) && out.n <= in.n);
        buf_free(&out);
        return 0;
}
