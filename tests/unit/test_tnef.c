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

/* ---- streams made here ---- */

static void le16(struct buf *b, unsigned v)
{
        buf_add_char(b, (char)v);
        buf_add_char(b, (char)(v >> 8));
}

static void le32(struct buf *b, uint32_t v)
{
        le16(b, v & 0xffff);
        le16(b, v >> 16);
}

static void begin(struct buf *b)
{
        le32(b, 0x223e9f78);
        le16(b, 1);
}

static void attribute(struct buf *b, int level, uint32_t id, struct str data)
{
        unsigned sum = 0;

        for (size_t i = 0; i < data.n; i++)
                sum += (unsigned char)data.p[i];
        buf_add_char(b, (char)level);
        le32(b, id);
        le32(b, (uint32_t)data.n);
        buf_add_str(b, data);
        le16(b, sum);
}

/* A property with one value that says its length. */
static void property(struct buf *b, uint32_t id, uint32_t type, struct str value)
{
        le32(b, id << 16 | type);
        le32(b, 1);
        le32(b, (uint32_t)value.n);
        buf_add_str(b, value);
        buf_add(b, "\0\0\0", (4 - value.n % 4) % 4);
}

static void file(struct buf *b, struct str title, struct str data, struct buf *properties)
{
        attribute(b, 2, 0x00069002, STR("\1\0\0\0\0\0\0\0\0\0\0\0\0\0"));
        if (title.p)
                attribute(b, 2, 0x00018010, title);
        if (data.p)
                attribute(b, 2, 0x0006800f, data);
        if (properties)
                attribute(b, 2, 0x00069005, buf_str(properties));
}

/* Two files, the second a message that holds one, which has every kind of name. */
static void make_stream(struct buf *b)
{
        struct buf inner = BUF_INIT, p = BUF_INIT, object = BUF_INIT;

        begin(&inner);
        le32(&p, 5);
        property(&p, 0x3001, 0x1e, STR("shown\0"));
        property(&p, 0x3704, 0x1e, STR("SHORT~1.TXT\0"));
        property(&p, 0x3707, 0x1f, STR("l\0\xe4\0n\0g\0\0\0"));
        property(&p, 0x370e, 0x1e, STR("Text/X-Log\0"));
        property(&p, 0x3712, 0x1e, STR("<a@b>\0"));
        file(&inner, STR("TITLE\0"), STR("inner"), &p);
        buf_add_str(&object, STR("\x07\x03\x02\0\0\0\0\0\xc0\0\0\0\0\0\0\x46"));
        buf_add_str(&object, buf_str(&inner));

        begin(b);
        attribute(b, 1, 0x00069007, STR("\xe4\x04\0\0\0\0\0\0"));
        file(b, STR("../\xe9\0"), STR("outer"), NULL);
        file(b, STR("by reference\0"), STR_NONE, NULL);
        buf_clear(&p);
        le32(&p, 3);
        le32(&p, 0x80010003); /* one that has a name */
        buf_add_str(&p, STR("0123456789abcdef\1\0\0\0\3\0\0\0a\0b\0\1\0\0\0"));
        le32(&p, 0x66001003); /* and one with many values */
        buf_add_str(&p, STR("\2\0\0\0\1\0\0\0\2\0\0\0"));
        property(&p, 0x3701, 0x0d, buf_str(&object));
        file(b, STR("Re: hello\0"), STR(""), &p);
        buf_clear(&p);
        le32(&p, 3);
        property(&p, 0x1000, 0x1f, STR("h\0i\0\0\0"));
        property(&p, 0x1013, 0x102, STR("<p>hi"));
        le32(&p, 0x3fde0003);
        le32(&p, 65001);
        attribute(b, 1, 0x00069003, buf_str(&p));
        buf_free(&inner);
        buf_free(&object);
        buf_free(&p);
}

TEST(names_and_messages)
{
        struct arena *a = arena_new(0);
        struct tnef t = { 0 }, in = { 0 };
        struct buf b = BUF_INIT;

        make_stream(&b);
        NEED(tnef_parse(&t, buf_str(&b), 100, a));
        CHECK(!t.broken && !t.bad_checksum && t.count == 4);
        NEED(t.files && t.files->next && !t.files->next->next);
        CHECK_STR(t.files->name, "../\xc3\xa9");
        CHECK_STR(t.files->data, "outer");
        CHECK(t.files->next->kind == TNEF_MESSAGE);
        CHECK_STR(t.files->next->name, "Re: hello");
        CHECK_BYTES(t.text.data, STR("h\0i\0"));
        CHECK_STR(str_of(t.text.charset), "utf-16le");
        CHECK_STR(t.html.data, "<p>hi");
        CHECK_STR(str_of(t.html.charset), "utf-8");
        NEED(tnef_parse(&in, t.files->next->data, 100, a) && in.files);
        CHECK_STR(in.files->name, "l\xc3\xa4ng");
        CHECK_STR(in.files->type, "text/x-log");
        CHECK_STR(in.files->id, "<a@b>");
        CHECK_STR(in.files->data, "inner");
        buf_free(&b);
        arena_free(a);
}

/* Cut at every byte, in memory that ends there: never less found with more bytes, and what is missing is told. */
static void cut_everywhere(struct str all)
{
        unsigned most = 0;

        for (size_t n = 0; n <= all.n; n++) {
                struct arena *a = arena_new(0);
                char *copy = mem_dup(all.p, n);
                struct tnef t = { 0 };

                NEED(tnef_parse(&t, str_make(copy, n), 100, a));
                CHECK(t.count >= most);
                most = t.count;
                for (const struct tnef_file *f = t.files; f; f = f->next)
                        CHECK(f->data.p >= copy && f->data.p + f->data.n <= copy + n);
                if (n == all.n)
                        CHECK(!t.broken);
                mem_free(copy);
                arena_free(a);
        }
        CHECK(most > 0);
}

TEST(M18_cut)
{
        struct buf b = BUF_INIT;

        make_stream(&b);
        cut_everywhere(buf_str(&b));
        buf_clear(&b);
        NEED(read_file("two-files", &b));
        cut_everywhere(buf_str(&b));
        buf_free(&b);
}

TEST(M18_hostile)
{
        struct arena *a = arena_new(0);
        struct tnef none = { 0 }, lengths = { 0 }, many = { 0 }, sum = { 0 }, counts = { 0 };
        struct buf b = BUF_INIT, p = BUF_INIT;

        CHECK(tnef_parse(&none, STR("no TNEF"), 100, a) && none.broken && none.cut && !none.count);

        begin(&b);
        file(&b, STR("x\0"), STR("data"), NULL);
        buf_add_str(&b, STR("\2\x0f\x80\6\0\xff\xff\xff\xff" "abc"));
        CHECK(tnef_parse(&lengths, buf_str(&b), 100, a) && lengths.broken && lengths.cut && lengths.count == 1);

        buf_clear(&b);
        begin(&b);
        for (int i = 0; i < 1000; i++)
                file(&b, STR("x\0"), STR("data"), NULL);
        CHECK(tnef_parse(&many, buf_str(&b), 100, a) && many.over && many.count == 100);

        buf_clear(&b);
        begin(&b);
        file(&b, STR("x\0"), STR("data"), NULL);
        b.p[b.n - 1] ^= 1;
        CHECK(tnef_parse(&sum, buf_str(&b), 100, a) && sum.bad_checksum && !sum.broken && sum.count == 1);

        buf_clear(&b);
        begin(&b);
        le32(&p, 0xffffffff);
        le32(&p, 0x10011001); /* four thousand million values of no size */
        le32(&p, 0xffffffff);
        attribute(&b, 1, 0x00069003, buf_str(&p));
        CHECK(tnef_parse(&counts, buf_str(&b), 100, a) && counts.broken);
        buf_free(&p);
        buf_free(&b);
        arena_free(a);
}

TEST(rtf)
{
        struct str packed = STR("\x2d\0\0\0\x2b\0\0\0LZFu\xf1\xc5\xc7\xa7\x03\0\x0a\0rcpg125\x42\x32\x0a\xf3 hel\x09\0 bw\x05\xb0ld}\x0a\x80\x0f\xa0");
        struct buf b = BUF_INIT;

        CHECK(tnef_rtf(packed, &b)); /* the example of MS-OXRTFCP 4.1.1 */
        CHECK_STR(buf_str(&b), "{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n");
        for (size_t n = 0; n < packed.n; n++) {
                char *copy = mem_dup(packed.p, n);

                buf_clear(&b);
                CHECK(!tnef_rtf(str_make(copy, n), &b));
                mem_free(copy);
        }
        buf_free(&b);
        buf_init(&b, 10);
        CHECK(!tnef_rtf(packed, &b) && b.over);
        buf_free(&b);
        CHECK(tnef_rtf(STR("\0\0\0\0\3\0\0\0MELA\0\0\0\0abc"), &b));
        CHECK_STR(buf_str(&b), "abc");
        buf_free(&b);
}

TEST(no_memory)
{
        struct buf b = BUF_INIT;

        make_stream(&b);
        for (size_t n = 1;; n++) {
                struct arena *a = arena_new(0);
                struct tnef t = { 0 };
                bool ok;

                mem_fail_at(n);
                ok = tnef_parse(&t, buf_str(&b), 100, a);
                mem_fail_at(0);
                arena_free(a);
                if (ok)
                        break;
                NEED(n < 1000);
        }
        buf_free(&b);
}

TEST_MAIN
