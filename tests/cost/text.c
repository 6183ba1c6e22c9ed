/* Patterns of bodies: HTML, flowed text, charsets, compressed rich text, names of folders. */
#include "tests/cost/cost.h"

#include "core/charset.h"
#include "core/flowed.h"
#include "core/html.h"
#include "core/mutf7.h"
#include "core/tnef.h"
#include "core/unicode.h"
#include "core/uu.h"

static void read_html(struct str in)
{
        struct buf out = BUF_INIT;
        struct err e;

        html_charset(in);
        MUST(html_text(in, 1 << 20, &out, &e));
        buf_free(&out);
}

static void read_flowed(struct str in)
{
        struct buf out = BUF_INIT;

        MUST(flowed_unwrap(in, false, &out) && flowed_unwrap(in, true, &out));
        MUST(uu_strip(in, &out));
        buf_free(&out);
}

/* The first line names the charset. */
static void read_charset(struct str in)
{
        struct str charset = str_take(&in, '\n');
        struct buf out = BUF_INIT;
        bool bad = false, unknown = false;
        struct charset_stream *s = charset_open(charset, &unknown);

        MUST(s && charset_to_utf8(charset, in, &out, &bad, &unknown));
        for (size_t at = 0; at < in.n; at += 3)
                MUST(charset_feed(s, str_first(str_from(in, at), 3), &out));
        MUST(charset_end(s, &out, &bad));
        buf_free(&out);
}

static void read_folder(struct str in)
{
        struct buf out = BUF_INIT;

        MUST(mutf7_decode(in, &out));
        buf_free(&out);
}

static void read_nfc(struct str in)
{
        struct buf out = BUF_INIT;

        MUST(unicode_nfc(in, &out));
        buf_free(&out);
}

static void read_rtf(struct str in)
{
        struct buf out;

        buf_init(&out, 64 << 20);
        (void)tnef_rtf(in, &out);
        buf_free(&out);
}

/* References only, each of the longest run: 16 bytes of input become 136. */
static void rtf(struct buf *out, unsigned n)
{
        uint32_t raw = 136 * n, size = 17 * n + 12;

        for (unsigned i = 0; i < 4; i++)
                MUST(buf_add_char(out, (char)(size >> 8 * i & 255)));
        for (unsigned i = 0; i < 4; i++)
                MUST(buf_add_char(out, (char)(raw >> 8 * i & 255)));
        MUST(buf_add_str(out, STR("LZFu\0\0\0\0")));
        cost_repeat(out, STR("\xff\0\x0f\0\x0f\0\x0f\0\x0f\0\x0f\0\x0f\0\x0f\0\x0f"), n);
}

/* A tree builder searches what is open for each tag: what this costs at the depth that is allowed is a constant. */
static void nests(struct buf *out, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                cost_repeat(out, STR("<div>"), 180);
                MUST(buf_add_str(out, STR("x")));
                cost_repeat(out, STR("</div>"), 180);
        }
}

static void formats(struct buf *out, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                cost_repeat(out, STR("<font size=\1>"), 4);
                cost_repeat(out, STR("<p>x</p>"), 40);
                cost_repeat(out, STR("</font>"), 4);
        }
}

#define ROW(read, name, n, head, unit, tail) { name, read, n, { head, sizeof head - 1 }, { unit, sizeof unit - 1 }, { tail, sizeof tail - 1 }, NULL }
#define HTML(...) ROW(read_html, __VA_ARGS__)
#define FLOWED(...) ROW(read_flowed, __VA_ARGS__)
#define CHARSET(...) ROW(read_charset, __VA_ARGS__)
#define FOLDER(...) ROW(read_folder, __VA_ARGS__)
#define NFC(...) ROW(read_nfc, __VA_ARGS__)

const struct pattern cost_text[] = {
        HTML("html: paragraphs", 300, "", "<p>a", ""),
        HTML("html: open angles", 4000, "", "<", ""),
        { .name = "html: nested as deep as a tree may be, again and again", .read = read_html, .n = 4, .make = nests },
        { .name = "html: formats as many as a tree may have, again and again", .read = read_html, .n = 4, .make = formats },
        HTML("html: nested", 450, "", "<div>", "x"),
        HTML("html: nested deeper than a tree may be", 2000, "", "<div>", "x"),
        HTML("html: links in links", 300, "", "<a href=x>", "y"),
        HTML("html: crossed tags", 300, "", "<b><i></b></i>", "x"),
        HTML("html: crossed blocks", 300, "", "<b><p></b></p>", "x"),
        HTML("html: links that open again in paragraphs", 200, "", "<a href=x><p>", "x"),
        HTML("html: fonts that open again in paragraphs", 150, "", "<font size=\1><p>", "x"),
        HTML("html: fonts, then paragraphs", 8, "<font a=1><font a=2><font a=3><font a=4><font a=5><font a=6>", "<font a=\1 b><p>x</p></p><p>y</p><p>z</p>", ""),
        HTML("html: fonts left open in blocks", 150, "", "<div><font size=\1></div>x", ""),
        HTML("html: fonts left open in cells", 150, "<table>", "<tr><td><font size=\1>x</td>", ""),
        HTML("html: fonts left open before cells", 150, "<table>", "<font size=\1><tr><td>x", ""),
        HTML("html: fonts left open in cells that are none", 150, "<table><tr><td>", "<font size=\1><svg><td></svg>x<p>", ""),
        HTML("html: tables in tables", 150, "", "<table><tr><td>", "x"),
        HTML("html: text out of tables", 300, "<table>", "x<tr>y", ""),
        HTML("html: rows", 300, "<table>", "<tr><td>a<td>b", ""),
        HTML("html: comments that stay open", 2000, "", "<!--", ""),
        HTML("html: comments", 1000, "", "<!--a--->", ""),
        HTML("html: attributes of one tag", 300, "<a", " a\1=b", ">x"),
        HTML("html: the same attribute", 1000, "<a", " a=b", ">x"),
        HTML("html: an attribute that stays open", 4000, "<a href=\"", "a ", ""),
        HTML("html: entities", 200, "", "&amp;&nbsp&#65;&bogus;", ""),
        HTML("html: ampersands", 3000, "", "&", ""),
        HTML("html: half an entity", 100, "", "&CounterClockwiseContourIntegra", ""),
        HTML("html: lists", 300, "", "<ul><li>a", ""),
        HTML("html: list items", 300, "<ol>", "<li>a", ""),
        HTML("html: options", 300, "<select>", "<option>a", ""),
        HTML("html: ends without beginnings", 500, "", "</p></b></table>", ""),
        HTML("html: line breaks", 500, "", "<br>", ""),
        HTML("html: blanks", 8000, "a", " ", "b"),
        HTML("html: pre", 3000, "<pre>", "a \n", ""),
        HTML("html: quotes", 450, "", "<blockquote>a", ""),
        HTML("html: scripts", 300, "", "<script>a</script>b", ""),
        HTML("html: a script that stays open", 1000, "<script>", "</scrip ", ""),
        HTML("html: svg and math", 200, "", "<svg><math>", "x"),
        HTML("html: meta", 300, "", "<meta charset", ""),
        HTML("html: NUL and invalid bytes", 2000, "<p>", "a\0\xff", ""),
        HTML("html: processing instructions", 1000, "", "<?a", ">"),
        HTML("html: forms and headings", 200, "", "<h1><form><h2>", "x"),
        FLOWED("flowed: lines", 1500, "", "a \n", ""),
        FLOWED("flowed: quotes in one line", 20000, "", ">", "\n"),
        FLOWED("flowed: quote marks of all depths", 600, "", "> a \n>> b \n", ""),
        FLOWED("flowed: blanks", 200000, "", " ", "\n"),
        FLOWED("flowed: signatures", 1500, "", "-- \n", ""),
        FLOWED("M19 begin in text", 1500, "", "begin 644 a\n\nM\n", ""),
        CHARSET("H08 endless escapes of iso-2022-jp", 2000, "iso-2022-jp\n", "\x1b$B\x1b(B", ""),
        CHARSET("H08 endless escapes of iso-2022-kr", 2000, "iso-2022-kr\n", "\x1b$)C\x0e", ""),
        CHARSET("H08 utf-7 shifts", 2000, "utf-7\n", "+AGE-+", ""),
        CHARSET("H08 overlong UTF-8", 3000, "utf-8\n", "\xc0\x80\xed\xa0\x80", ""),
        CHARSET("H08 cut UTF-8", 3000, "utf-8\n", "\xf0\x9f\x98", ""),
        CHARSET("H08 invalid in a charset", 2000, "shift_jis\n", "\xfd\xfe\xff", ""),
        CHARSET("H08 utf-16 surrogates", 2000, "utf-16\n", "\xd8\x00", ""),
        CHARSET("H08 a charset's combining characters", 2000, "tis-620\n", "\xa1\xd1", ""),
        CHARSET("H08 windows-1258", 2000, "windows-1258\n", "a\xcc", ""),
        CHARSET("H08 big5-hkscs", 2000, "big5-hkscs\n", "\x88\x66", ""),
        CHARSET("H08 a charset of 1000 bytes and more", 100000, "", "x", "\nabc"),
        FOLDER("B06 ampersands in a folder's name", 200000, "", "&", ""),
        FOLDER("B06 shifts in a folder's name", 80000, "", "&AGE-", ""),
        NFC("F13 marks on one character", 4000, "a", "\xcc\x81", ""),
        NFC("F13 marks of falling classes", 1500, "a", "\xcd\x85\xcc\x81\xcc\xa1", ""),
        NFC("F13 letters that compose", 2000, "", "e\xcc\x81", ""),
        { .name = "M18 compressed rich text", .read = read_rtf, .n = 200, .make = rtf },
        { .name = NULL },
};
