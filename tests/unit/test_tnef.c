#include "core/tnef.h"

#include "tests/unit/test.h"
#include "core/digest.h"
#include "core/mem.h"

static bool read_file(const char *name, struct buf *out)
{
        char path[256];
        FILE *f;
        size_t n;

        snprintf(path, sizeof path, "tests/regress/tnef/%s.tnef", name);
        f = fopen(path, "rb");
        if (!f)
                return false;
        do {
                buf_reserve(out, 65536);
                n = fread(out->p + out->n, 1, 65536, f);
                out->n += n;
        } while (n > 0);
        fclose(f);
        return true;
}

/* "name bytes sha256-beginning" a file, and the bodies: t, h, r. */
static struct str told(const struct tnef *t, struct arena *a)
{
        struct buf b = BUF_INIT;
        struct str s;

        for (const struct tnef_file *f = t->files; f; f = f->next) {
                uint8_t hash[DIGEST_SIZE];
                char hex[65];

                CHECK(digest_of(f->data, hash));
                digest_hex(hash, hex);
                buf_printf(&b, "%.*s %zu %.8s%s\n", STR_FMT(f->name), f->data.n, hex,
                           f->kind == TNEF_OBJECT ? " object" : f->kind == TNEF_MESSAGE ? " message" : "");
        }
        buf_printf(&b, "%s%s%s", t->text.data.p ? "t" : "", t->html.data.p ? "h" : "", t->rtf.data.p ? "r" : "");
        s = arena_str(a, b.n ? buf_str(&b) : STR(""));
        buf_free(&b);
        return s;
}

static void check_file(int line, const char *name, const char *want, bool broken)
{
        struct buf b = BUF_INIT, rtf = BUF_INIT;
        struct arena *a = arena_new(0);
        struct tnef t = { 0 };

        NEED(read_file(name, &b));
        NEED(tnef_parse(&t, buf_str(&b), 100, a));
        test_same(__FILE__, line, name, told(&t, a), str_of(want));
        if (t.broken != broken)
                printf("%s:%d: %s: broken is %d\n", __FILE__, line, name, t.broken);
        CHECK(t.broken == broken && !t.cut && !t.over && !t.bad_checksum);
        if (t.rtf.data.p) {
                CHECK(tnef_rtf(t.rtf.data, &rtf));
                CHECK(str_starts(buf_str(&rtf), STR("{\\rtf1")) && str_find(buf_str(&rtf), '}') < rtf.n);
        }
        buf_free(&rtf);
        buf_free(&b);
        arena_free(a);
}
#define FILE_SAYS(name, want) check_file(__LINE__, name, want, false)

/* Expected: what the tnef program and MimeKit say of MimeKit's own test files. */
TEST(M18_real_files)
{
        FILE_SAYS("body", "h");
        FILE_SAYS("multi-name-property", "");
        FILE_SAYS("one-file", "AUTHORS 244 36c47da7\n");
        FILE_SAYS("rtf", "r");
        FILE_SAYS("triples", "tr");
        FILE_SAYS("two-files", "AUTHORS 244 36c47da7\nREADME 893 d0f16318\n");
        FILE_SAYS("unicode-mapi-attr", "example.dat 1024 b1889604\nh");
        FILE_SAYS("winmail", "Untitled Attachment 29184 385d3d54 object\nUntitled Attachment 68608 f9586271 object\nr");
        check_file(__LINE__, "garbage-at-end", "", true);
        check_file(__LINE__, "panic", "image001.jpg 11250 ee9bec68\nimage002.jpg 9583 a497dd22\nimage003.png 7147 7c65885b\nh", true);
}

TEST_MAIN
