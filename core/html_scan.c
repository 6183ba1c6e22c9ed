#include "core/html_int.h"

#include "core/charset.h"

/* Beyond these a tree builder's own algorithms cost more than the bytes deserve: it searches the open elements for every tag, and
 * the attributes of a tag for every attribute. Honest mail stays below a tenth of each. */
enum { DEPTH_MAX = 400, ATTRIBUTES_MAX = 200, TAGS_MAX = 100000, TAG_NAME_MAX = 15 };
/* What the builder's searches and repetitions may come to: so much for each tag, and something to begin with, so that twice the tags are
 * twice the work. An open element is looked at (1), an open <b> or <font> is made again in each paragraph (16). */
enum { WORK_A_TAG = 100, WORK_FREE = 10000, WORK_FORMAT = 16 };

struct token {
        enum { TOKEN_TEXT, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_OTHER } is;
        struct str text;        /* of TOKEN_TEXT */
        char name[TAG_NAME_MAX + 1];/* lower case, cut */
        unsigned attributes;
};

static bool is_one_of(const char *name, const char *const *words)
{
        for (; *words; words++)
                if (strcmp(name, *words) == 0)
                        return true;
        return false;
}

static void take_name(struct str *rest, struct token *t)
{
        size_t n = 0;

        for (; rest->n && (ascii_is_alnum(rest->p[0]) || rest->p[0] == '-' || rest->p[0] == ':'); *rest = str_from(*rest, 1))
                if (n < TAG_NAME_MAX)
                        t->name[n++] = ascii_lower(rest->p[0]);
        t->name[n] = '\0';
}

/* To behind the '>' of a tag, over quoted values. Attributes are counted by what separates them, rather too many. */
static void take_attributes(struct str *rest, struct token *t)
{
        bool value = false;

        while (rest->n) {
                char c = rest->p[0];

                *rest = str_from(*rest, 1);
                if (c == '>')
                        return;
                if ((c == '"' || c == '\'') && value) {
                        *rest = str_from(*rest, str_find(*rest, c) + 1);
                        t->attributes++;
                }
                if (c == '/' || ascii_is_space(c))
                        t->attributes += !value;
                if (!ascii_is_space(c))
                        value = c == '=';
        }
}

static void skip_past(struct str *rest, struct str what)
{
        *rest = str_from(*rest, str_find_str(*rest, what) + what.n);
}

/* Scripts and styles hold no tags: on to their end tag. */
static void skip_raw(struct str *rest, const char *name)
{
        static const char *const raw[] = { "script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", NULL };
        struct str end = str_of(name);

        if (!is_one_of(name, raw))
                return;
        for (;;) {
                *rest = str_from(*rest, str_find_str(*rest, STR("</")));
                if (!rest->n || str_starts_nocase(str_from(*rest, 2), end))
                        return;
                *rest = str_from(*rest, 2);
        }
}

/* The next token off the front; rest.n > 0. */
static struct token next_token(struct str *rest)
{
        struct token t = { .is = TOKEN_TEXT };
        size_t at = str_find(*rest, '<');

        if (at > 0) {
                t.text = str_first(*rest, at);
                *rest = str_from(*rest, at);
                return t;
        }
        if (rest->n > 1 && ascii_is_alpha(rest->p[1])) {
                t.is = TOKEN_OPEN;
                *rest = str_from(*rest, 1);
                take_name(rest, &t);
                take_attributes(rest, &t);
                skip_raw(rest, t.name);
        } else if (rest->n > 2 && rest->p[1] == '/' && ascii_is_alpha(rest->p[2])) {
                t.is = TOKEN_CLOSE;
                *rest = str_from(*rest, 2);
                take_name(rest, &t);
                take_attributes(rest, &t);
        } else if (str_starts(*rest, STR("<!--"))) {
                t.is = TOKEN_OTHER;
                *rest = str_from(*rest, 4);
                skip_past(rest, STR("-->"));
        } else if (rest->n > 1 && (rest->p[1] == '!' || rest->p[1] == '?' || rest->p[1] == '/')) {
                t.is = TOKEN_OTHER;
                skip_past(rest, STR(">"));
        } else {
                t.text = str_first(*rest, 1);
                *rest = str_from(*rest, 1);
        }
        return t;
}

/* ---- is it tame? ---- */

struct nest {
        uint32_t open[DEPTH_MAX];
        unsigned n;
        uint32_t again[DEPTH_MAX]; /* elements that are made again where a block has ended them, and the cells that keep them in */
        unsigned again_n, formats;
        bool foreign;              /* SVG and the like, in which a cell is no cell */
};

/* Elements that hold nothing, or that the next of their kind ends: they do not nest by being left open. */
static bool never_nests(const char *name)
{
        static const char *const words[] = { "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param",
                                             "source", "track", "wbr", "p", "li", "td", "th", "tr", "tbody", "thead", "tfoot",
                                             "dt", "dd", "option", "html", "head", "body", "colgroup", "script", "style",
                                             "title", NULL };

        return is_one_of(name, words);
}

/* Elements whose end tag ends everything that is open inside. An end tag of any other leaves blocks inside open. */
static bool ends_contents(const char *name)
{
        static const char *const words[] = { "div", "table", "ul", "ol", "center", "blockquote", "section", "article", "form",
                                             NULL };

        return is_one_of(name, words);
}

static uint32_t name_hash(const char *name)
{
        uint32_t h = 2166136261u;

        for (; *name; name++)
                h = (h ^ (unsigned char)*name) * 16777619u;
        return h;
}

/* Elements that go on behind the end of the block in which they were left open. */
static bool is_format(const char *name)
{
        static const char *const words[] = { "a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong",
                                             "tt", "u", NULL };

        return is_one_of(name, words);
}

static bool is_cell(const char *name)
{
        return strcmp(name, "td") == 0 || strcmp(name, "th") == 0 || strcmp(name, "caption") == 0;
}

static bool ends_cell(const char *name)
{
        static const char *const words[] = { "tr", "tbody", "thead", "tfoot", "table", NULL };

        return is_cell(name) || is_one_of(name, words);
}

/* What is in the list is the hash of a format's name, or one of these. */
enum { AGAIN_TABLE = 1, AGAIN_CELL = 2 };

static void leave_cell(struct nest *s)
{
        unsigned i = s->again_n, formats = 0;

        while (i > 0 && s->again[i - 1] != AGAIN_TABLE && s->again[i - 1] != AGAIN_CELL)
                i--, formats++;
        if (i == 0 || s->again[i - 1] != AGAIN_CELL || s->foreign)
                return;
        s->again_n = i - 1;
        s->formats -= formats;
}

static void leave_table(struct nest *s)
{
        unsigned i = s->again_n;

        while (i > 0 && s->again[i - 1] != AGAIN_TABLE)
                i--;
        if (i == 0)
                return;
        memmove(s->again + i - 1, s->again + i, (s->again_n - i) * sizeof *s->again);
        s->again_n--;
}

static void leave_format(struct nest *s, uint32_t hash)
{
        unsigned i = s->again_n;

        while (i > 0 && s->again[i - 1] != hash)
                i--;
        if (i == 0)
                return;
        memmove(s->again + i - 1, s->again + i, (s->again_n - i) * sizeof *s->again);
        s->again_n--;
        s->formats--;
}

/* Keeps the list of what is made again, never shorter than the builder's own. False when it is too long. */
static bool follow_formats(struct nest *s, const struct token *t)
{
        static const char *const foreign[] = { "svg", "math", "select", "template", "frameset", NULL };
        bool open = t->is == TOKEN_OPEN;

        s->foreign |= open && is_one_of(t->name, foreign);
        if (ends_cell(t->name) && (!open || strcmp(t->name, "table") != 0))
                leave_cell(s);
        if (!open && strcmp(t->name, "table") == 0)
                leave_table(s);
        else if (!open && is_format(t->name))
                leave_format(s, name_hash(t->name));
        if (!open || s->again_n == DEPTH_MAX)
                return !open;
        if (strcmp(t->name, "a") == 0) /* a link ends the one before */
                leave_format(s, name_hash(t->name));
        if (strcmp(t->name, "table") == 0)
                s->again[s->again_n++] = AGAIN_TABLE;
        else if (is_cell(t->name))
                s->again[s->again_n++] = AGAIN_CELL;
        else if (is_format(t->name))
                s->again[s->again_n++] = name_hash(t->name), s->formats++;
        return true;
}

static void close_one(struct nest *s, const char *name)
{
        uint32_t h = name_hash(name), table = name_hash("table");
        unsigned i = s->n;

        while (i > 0 && s->open[i - 1] != h && s->open[i - 1] != table)
                i--;
        if (i == 0 || s->open[i - 1] != h)
                return;
        if (!ends_contents(name))
                memmove(s->open + i - 1, s->open + i, (s->n - i) * sizeof *s->open);
        s->n = ends_contents(name) ? i - 1 : s->n - 1;
}

bool html_is_tame(struct str html)
{
        struct nest s = { .n = 0 };
        unsigned tags = 0;
        uint64_t work = 0;

        while (html.n) {
                struct token t = next_token(&html);

                if (t.is == TOKEN_TEXT)
                        continue;
                if (++tags > TAGS_MAX || t.attributes > ATTRIBUTES_MAX)
                        return false;
                if ((t.is == TOKEN_OPEN || t.is == TOKEN_CLOSE) && !follow_formats(&s, &t))
                        return false;
                work += s.n + WORK_FORMAT * s.formats;
                if (work > WORK_FREE + (uint64_t)WORK_A_TAG * tags)
                        return false;
                if (t.is == TOKEN_CLOSE)
                        close_one(&s, t.name);
                if (t.is != TOKEN_OPEN || never_nests(t.name))
                        continue;
                if (s.n == DEPTH_MAX)
                        return false;
                s.open[s.n++] = name_hash(t.name);
        }
        return true;
}

/* ---- text without a tree ---- */

static uint32_t named(struct str name)
{
        static const struct {
                struct str name;
                uint32_t c;
        } table[] = {
                { { "amp", 3 }, '&' }, { { "lt", 2 }, '<' }, { { "gt", 2 }, '>' }, { { "quot", 4 }, '"' },
                { { "apos", 4 }, '\'' }, { { "nbsp", 4 }, 0xa0 }, { { "copy", 4 }, 0xa9 }, { { "euro", 4 }, 0x20ac },
                { { "auml", 4 }, 0xe4 }, { { "ouml", 4 }, 0xf6 }, { { "uuml", 4 }, 0xfc }, { { "szlig", 5 }, 0xdf },
                { { "eacute", 6 }, 0xe9 }, { { "egrave", 6 }, 0xe8 }, { { "ndash", 5 }, 0x2013 },
                { { "mdash", 5 }, 0x2014 }, { { "hellip", 6 }, 0x2026 }, { { "bull", 4 }, 0x2022 },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++)
                if (str_eq(name, table[i].name))
                        return table[i].c;
        return 0;
}

static uint32_t numbered(struct str s)
{
        bool hex = s.n && (s.p[0] == 'x' || s.p[0] == 'X');
        uint32_t c = 0;

        for (size_t i = hex; i < s.n; i++) {
                int digit = ascii_hex(s.p[i]);

                if (digit < 0 || digit >= (hex ? 16 : 10) || c > 0x10ffff)
                        return 0;
                c = c * (hex ? 16 : 10) + (uint32_t)digit;
        }
        return c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : c;
}

/* A reference at the front of s ("&name;"): its character, and the bytes it took; 0 when it is none. */
static uint32_t reference(struct str s, size_t *took)
{
        struct str name = str_from(str_first(s, 12), 1);
        size_t n = str_find(name, ';');

        *took = n + 2;
        if (n == name.n || n == 0)
                return 0;
        name = str_first(name, n);
        return name.p[0] == '#' ? numbered(str_from(name, 1)) : named(name);
}

static void scanned_text(struct writer *w, struct str s)
{
        while (s.n) {
                struct str plain = str_first(s, str_find(s, '&'));
                char utf8[4];
                size_t took;
                uint32_t c;

                writer_text(w, plain);
                s = str_from(s, plain.n);
                if (!s.n)
                        return;
                c = reference(s, &took);
                if (c)
                        writer_text(w, str_make(utf8, utf8_put(c, utf8)));
                else
                        writer_text(w, str_first(s, took = 1));
                s = str_from(s, took);
        }
}

void html_scan(struct str html, struct writer *w)
{
        static const char *const blocks[] = { "p", "div", "tr", "li", "table", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6",
                                              "blockquote", "pre", "hr", "dt", "dd", "center", NULL };

        while (html.n && !w->full) {
                struct token t = next_token(&html);

                if (t.is == TOKEN_TEXT)
                        scanned_text(w, t.text);
                else if (strcmp(t.name, "br") == 0)
                        writer_newline(w);
                else if (is_one_of(t.name, blocks))
                        writer_break(w, strcmp(t.name, "p") == 0 ? 2 : 1);
                else if (strcmp(t.name, "td") == 0 && t.is == TOKEN_OPEN)
                        w->gap = w->in_line && !w->breaks;
        }
}
