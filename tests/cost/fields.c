/* Patterns that are the value of one field, or a path, or a pattern: read by the function that knows it. */
#include "tests/cost/cost.h"

#include "core/addr.h"
#include "core/date.h"
#include "core/filename.h"
#include "core/fromline.h"
#include "core/glob.h"
#include "core/header.h"
#include "core/map.h"
#include "core/params.h"
#include "core/template.h"
#include "core/words.h"

/* Limits so high that what is counted is the algorithm, not the limit. */
static struct limits unlimited(void)
{
        struct limits lim = limits_default;

        lim.header_block = lim.header_field = UINT32_MAX;
        lim.header_fields = lim.addresses = lim.parameters = lim.sections = lim.words = UINT32_MAX / 2;
        return lim;
}

static struct arena *new_arena(void)
{
        struct arena *a = arena_new(0);

        MUST(a);
        return a;
}

static void read_addresses(struct str in)
{
        struct limits lim = unlimited();
        struct arena *a = new_arena();
        unsigned defects = 0;

        for (struct addr *x = addr_parse(in, &lim, &defects, a); x; x = x->next)
                addr_user_of(x->addr), addr_detail_of(x->addr), addr_domain_of(x->addr);
        addr_parse(in, &limits_default, &defects, a);
        arena_free(a);
}

static void read_words(struct str in)
{
        struct limits lim = unlimited();
        struct arena *a = new_arena();
        unsigned defects = 0;

        MUST(words_decode(in, STR("iso-2022-jp"), &lim, &defects, a).p);
        MUST(words_decode(header_unfold(in, a), STR_NONE, &limits_default, &defects, a).p);
        arena_free(a);
}

static void write_words(struct str in)
{
        struct arena *a = new_arena();

        MUST(words_encode(in, false, 9, a).p && words_encode(in, true, 9, a).p);
        MUST(params_encode(STR("filename"), in, a).p);
        arena_free(a);
}

static void read_params(struct str in)
{
        struct limits lim = unlimited();
        struct arena *a = new_arena();
        struct params p = { 0 }, q = { 0 };

        MUST(params_parse(&p, in, &lim, a) && params_parse(&q, in, &limits_default, a));
        params_find(&p, STR("filename"));
        arena_free(a);
}

/* As the fields of a part ask for them: the limit of parameters holds. */
static void read_params_limited(struct str in)
{
        struct arena *a = new_arena();
        struct params p = { 0 };

        MUST(params_parse(&p, in, &limits_default, a));
        arena_free(a);
}

static void read_date(struct str in)
{
        struct fromline f;
        int64_t t;

        (void)date_parse(in, &t, NULL);
        (void)date_duration(in, &t);
        (void)fromline_parse(in, &f);
}

static void read_header(struct str in)
{
        struct limits lim = unlimited();
        struct arena *a = new_arena();
        struct header h = { 0 };
        uint8_t hash[32];

        MUST(header_split(&h, in, &lim, a));
        header_identity(&h, hash);
        header_find(&h, STR("x-none"));
        arena_free(a);
}

static void read_filename(struct str in)
{
        struct arena *a = new_arena();
        unsigned flags = 0;
        struct str clean = filename_clean(in, &flags, a), stem, ext;

        filename_clean_value(in, a);
        if (clean.n)
                filename_number(clean, 7, a);
        filename_split(in, &stem, &ext);
        arena_free(a);
}

static bool value(void *ctx, struct str field, struct str format, struct str *out, struct arena *a, struct err *e)
{
        (void)ctx, (void)format, (void)a, (void)e;
        *out = str_eq(field, STR("none")) ? STR_NONE : STR("a value/..");
        return true;
}

static bool input_is_value(void *ctx, struct str field, struct str format, struct str *out, struct arena *a, struct err *e)
{
        (void)field, (void)format, (void)a, (void)e;
        *out = *(struct str *)ctx;
        return true;
}

static void read_template(struct str in)
{
        struct template_source src = { value, NULL };
        struct arena *a = new_arena();
        struct err e;

        template_path(in, &src, a, &e);
        (void)template_check(in, &src, &e);
        arena_free(a);
}

static void fill_template(struct str in)
{
        struct template_source src = { input_is_value, &in };
        struct arena *a = new_arena();
        struct err e;

        template_path(STR("{folder}/{name} {x|y}.txt"), &src, a, &e);
        arena_free(a);
}

/* The text is the sender's, the pattern the user's. */
static void read_glob(struct str in)
{
        glob_match(STR("*a*a*b*a*?[!a-x]*c"), in);
        glob_match(STR("*@*.example.com"), in);
}

static void read_name(struct str in)
{
        static const char *const names[] = { "subject", "attachment", "larger" };

        (void)glob_nearest(in, names, 3);
}

static void fill_map(struct str in)
{
        struct map *m = map_new();
        static int here;

        MUST(m);
        while (in.n > 0) {
                struct str key = str_take_line(&in);

                MUST(map_set(m, key, &here, NULL) && map_get(m, key));
        }
        map_free(m, NULL);
}

static void colliding_keys(struct buf *out, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                for (unsigned bit = 0; bit < 16; bit++)
                        MUST(buf_add_str(out, i >> bit & 1 ? STR("Ez") : STR("FY")));
                MUST(buf_add_char(out, '\n'));
        }
}

#define ROW(read, name, n, head, unit, tail) { name, read, n, { head, sizeof head - 1 }, { unit, sizeof unit - 1 }, { tail, sizeof tail - 1 }, NULL }
#define ADDR(...) ROW(read_addresses, __VA_ARGS__)
#define WORDS(...) ROW(read_words, __VA_ARGS__)
#define WRITE(...) ROW(write_words, __VA_ARGS__)
#define PARAMS(...) ROW(read_params, __VA_ARGS__)
#define LIMITED(...) ROW(read_params_limited, __VA_ARGS__)
#define DATE(...) ROW(read_date, __VA_ARGS__)
#define HEADER(...) ROW(read_header, __VA_ARGS__)
#define NAME(...) ROW(read_filename, __VA_ARGS__)
#define TEMPLATE(...) ROW(read_template, __VA_ARGS__)
#define FILL(...) ROW(fill_template, __VA_ARGS__)
#define GLOB(...) ROW(read_glob, __VA_ARGS__)
#define NEAREST(...) ROW(read_name, __VA_ARGS__)

const struct pattern cost_fields[] = {
        HEADER("H01 fields", 4000, "", "a:b\n", ""),
        HEADER("H02 folds", 6000, "a:", "\n b", ""),
        HEADER("H03 lines of blanks", 6000, "a:b\n", " \n", ""),
        HEADER("H03 colons", 400000, "", ":", ""),
        HEADER("H03 carriage returns", 30000, "a:", "\r", "\n"),
        ADDR("H04 addresses", 250, "", "Name <a\1@example.org>, ", ""),
        ADDR("H05 open parentheses", 30000, "", "(", ""),
        ADDR("H05 comments in comments, closed", 4000, "", "(a)", ""),
        ADDR("H05 parentheses after a name", 20000, "a@b ", "(", "x"),
        ADDR("H05 comments open again and again", 2000, "", "a (, ", ""),
        ADDR("H05 a quote that stays open", 6000, "\"", "a ", ""),
        ADDR("H05 quotes", 6000, "", "\"", ""),
        ADDR("H05 quotes open again and again", 1000, "", "\"a\", \"\\", ""),
        ADDR("H05 backslashes", 6000, "", "\\", ""),
        ADDR("H05 open angles", 4000, "", "<", ""),
        ADDR("H05 open angles with addresses", 2000, "", "<a@b ", ""),
        ADDR("H05 names before angles", 2000, "", "a < ", ">"),
        ADDR("H05 a@b@c", 4000, "a", "@a", ""),
        ADDR("H05 at signs", 6000, "", "@", ""),
        ADDR("H05 commas", 6000, "", ",", ""),
        ADDR("H05 dots", 6000, "a", " . ", "@b"),
        ADDR("H05 words without an address", 3000, "", "word ", ""),
        ADDR("H05 open brackets", 6000, "a@", "[", ""),
        ADDR("H05 a source route", 3000, "<", "@a,", "b@c>"),
        ADDR("H05 8-bit names", 3000, "", "\xc3\xa4\xe4 ", "<a@b>"),
        ADDR("H05 encoded names", 500, "", "=?utf-8?q?a?= <a@b>, ", ""),
        ADDR("H06 one group of nothing", 6000, "a:", ";", ""),
        ADDR("H06 groups", 3000, "", "a:;", ""),
        ADDR("H06 groups in groups", 3000, "", "a:", ";"),
        ADDR("H06 a group that stays open", 500, "a:", "b@c,", ""),
        WORDS("H07 beginnings", 6000, "", "=?", ""),
        WORDS("H07 beginnings of words", 2000, "", "=?utf-8?q?", ""),
        WORDS("H07 words", 500, "", "=?utf-8?q?x?=", ""),
        WORDS("H07 words apart", 500, "", "=?utf-8?q?x?= ", ""),
        WORDS("H07 words beyond the limit", 2000, "", "=?utf-8?q?x?= ", ""),
        WORDS("H07 one long word", 10000, "=?utf-8?b?", "AAAA", "?="),
        WORDS("H07 ends", 6000, "", "?=", ""),
        WORDS("H07 words of blanks", 1000, "", "=?a?q? ?= \t ", ""),
        WORDS("H07 blanks between words", 30000, "=?utf-8?q?x?=", " ", "=?utf-8?q?x?="),
        WORDS("H07 question marks", 8000, "=?utf-8?q?", "?", ""),
        WORDS("H08 a character in pieces", 500, "", "=?utf-8?q?=c3?= =?utf-8?q?=a4?= ", ""),
        WORDS("H08 escapes of iso-2022-jp", 4000, "=?iso-2022-jp?b?", "GyRC", "?="),
        WORDS("H08 utf-7", 4000, "=?utf-7?q?", "+AGE-", "?="),
        WORDS("H08 charsets that nobody knows", 400, "", "=?x\1?q?a?= ", ""),
        WORDS("H08 charsets with long names", 8000, "=?", "x", "?q?a?="),
        WORDS("H08 charsets in turn", 200, "", "=?utf-8?q?a?= =?iso-8859-2?q?a?= =?koi8-r?q?a?= =?cp1251?q?a?= ", ""),
        WORDS("H08 raw 8 bits", 2000, "", "\xff\xc3", ""),
        WORDS("H09 line ends and controls in words", 500, "", "=?utf-8?q?=0d=0a=1b=00?=", ""),
        WRITE("H09 a long name", 4000, "", "a", ""),
        WRITE("H09 a long name of words", 3000, "", "\xc3\xa4 ", ""),
        WRITE("H09 quotes to be written", 4000, "", "\"\\", ""),
        PARAMS("H10 sections", 100, "attachment", "; filename*\1=a", ""),
        LIMITED("H10 sections, limited", 1000, "attachment", "; filename*\1=a", ""),
        PARAMS("H10 one section again and again", 100, "attachment", "; filename*0=a", ""),
        LIMITED("H10 one section, limited", 1000, "attachment", "; filename*0*=a", ""),
        LIMITED("H10 one section of each of many names", 500, "attachment", "; a\1*0=a", ""),
        PARAMS("H10 percent signs", 4000, "attachment; filename*=utf-8''", "%", ""),
        PARAMS("H10 percent signs with digits", 4000, "attachment; filename*=utf-8'en-US'", "%c3%a4", ""),
        LIMITED("H11 names of both kinds", 500, "attachment", "; filename=a; filename*=utf-8''b", ""),
        LIMITED("H11 parameters, all different", 500, "attachment", "; p\1=a", ""),
        PARAMS("H11 semicolons", 6000, "attachment", ";", ""),
        PARAMS("H11 a quote that stays open", 6000, "attachment; filename=\"", "\\\"", ""),
        PARAMS("H11 comments", 20000, "attachment", "(", "; filename=x"),
        PARAMS("H11 comments between", 2000, "attachment", " (a) ", "; filename=x"),
        PARAMS("H11 words for values", 3000, "attachment; filename=", "a b ", ""),
        PARAMS("H11 encoded words as a name", 500, "attachment; filename=\"", "=?utf-8?q?a?= ", "\""),
        DATE("H12 digits", 100000, "Mon, 23 Nov ", "9", " 05:41:00 +0000"),
        DATE("H12 blanks", 80000, "Mon, 23", " ", "Nov 2026 05:41:00 +0000"),
        DATE("H12 comments", 60000, "Mon, 23 Nov 2026 05:41:00 +0000 ", "(", ""),
        DATE("H12 comments in front", 30000, "", "(a)", "Mon, 23 Nov 2026 05:41:00 +0000"),
        DATE("H12 words", 3000, "From a ", "Mon ", ""),
        NAME("F01 ways up", 4000, "", "../", "x"),
        NAME("F02 dots", 2500, "", ".", ""),
        NAME("F03 NUL", 6000, "a", "\0", ".txt"),
        NAME("F04 bidirectional controls", 3000, "inv", "\xe2\x80\xae", "fdp.exe"),
        NAME("F09 trailing dots and blanks", 1200, "a", ". ", ""),
        NAME("F10 what is not portable", 1500, "a", "<|", ".b"),
        NAME("F11 a long name", 2500, "", "L", ".txt"),
        NAME("F11 a long name in two bytes", 1200, "", "\xc3\xa9", ".txt"),
        NAME("F11 a long extension", 2500, "a.", "x", ""),
        NAME("F12 invalid UTF-8", 6000, "a", "\xff", ".txt"),
        NAME("F13 a heap of accents", 4000, "e", "\xcc\x81", ".txt"),
        NAME("F13 accents in the wrong order", 2000, "e", "\xcc\x81\xcc\xa3", ".txt"),
        NAME("F13 Hangul", 600, "", "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", ".txt"),
        NAME("F16 mixed scripts", 800, "", "\xd1\x80p", ".exe"),
        NAME("F17 blanks before the extension", 8000, "invoice.pdf", " ", ".exe"),
        NAME("F18 brackets", 1500, "x.", "{6", "}"),
        TEMPLATE("F fields of a template", 300, "a", "{name}", "b"),
        TEMPLATE("F folders of a template", 200, "a", "/{name}", "b"),
        TEMPLATE("F open braces", 6000, "", "{", ""),
        TEMPLATE("F doubled braces", 3000, "", "{{}}", ""),
        TEMPLATE("F fallbacks", 2000, "{none", "|x", "}"),
        FILL("F a value with separators", 600, "", "a/", "b"),
        FILL("F a value of dots", 2000, "", ".", ""),
        GLOB("glob: a text of what the stars look for", 3000, "", "a", ""),
        GLOB("glob: almost", 2000, "", "aab", ""),
        GLOB("glob: 8 bits", 3000, "", "\xc3\xa4", ""),
        NEAREST("glob: the nearest of a long name", 20000, "", "subject", ""),
        { .name = "H15 a map of keys that collide", .read = fill_map, .n = 3000, .make = colliding_keys },
        { .name = NULL },
};
