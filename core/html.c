#include "core/html_int.h"

#include "core/arena.h"
#include "core/charset.h"
#include <gumbo.h>
#include <setjmp.h>
#include <stdio.h>

enum { TREE_BYTES = 24 << 20, META_BYTES = 1024 /* where the HTML standard looks for a charset */ };

/* ---- the writer ---- */

static void put(struct writer *w, struct str s)
{
        size_t used = w->out->n - w->start;

        if (s.n > w->max - used) {
                s = utf8_cut(s, w->max - used);
                w->full = true;
        }
        buf_add_str(w->out, s);
}

static void begin_line(struct writer *w)
{
        for (unsigned i = 0; i < w->quote && i < QUOTE_MAX; i++)
                put(w, STR("> "));
        for (unsigned i = 1; i < w->lists && i < LIST_MAX; i++)
                put(w, STR("  "));
        if (w->marker[0])
                put(w, str_of(w->marker));
        else if (w->lists)
                put(w, STR("  "));
        w->marker[0] = '\0';
}

/* Pays what is owed before the next visible bytes. */
static void settle(struct writer *w)
{
        if (w->out->n > w->start)
                for (; w->breaks; w->breaks--)
                        put(w, STR("\n"));
        if (w->breaks || w->out->n == w->start || w->out->p[w->out->n - 1] == '\n')
                w->in_line = false;
        if (!w->in_line)
                begin_line(w);
        else if (w->gap || w->space)
                put(w, w->gap ? STR("  ") : STR(" "));
        w->breaks = 0;
        w->gap = w->space = false;
        w->in_line = true;
}

void writer_break(struct writer *w, unsigned lines)
{
        if (w->breaks < lines)
                w->breaks = lines;
        w->space = w->gap = false;
}

void writer_newline(struct writer *w)
{
        writer_break(w, w->breaks < 2 ? w->breaks + 1 : 2);
}

static void preformatted(struct writer *w, struct str s)
{
        while (s.n && !w->full) {
                struct str line = str_first(s, str_find(s, '\n'));

                if (line.n) {
                        settle(w);
                        put(w, line);
                }
                if (line.n < s.n) {
                        if (w->breaks == 0)
                                w->breaks = 1;
                        else if (w->out->n > w->start)
                                put(w, STR("\n"));
                }
                s = str_from(s, line.n + 1);
        }
}

/* Blanks that collapse (with the no-break one, which pads layouts), and characters that only padding is made of. */
static bool is_gap(uint32_t c)
{
        return c == ' ' || (c >= '\t' && c <= '\r') || c == 0xa0 || c == 0x2007;
}

static bool is_invisible(uint32_t c)
{
        return c == 0xad || c == 0x34f || c == 0x200b || c == 0xfeff;
}

void writer_text(struct writer *w, struct str s)
{
        if (w->pre) {
                preformatted(w, s);
                return;
        }
        while (s.n && !w->full) {
                uint32_t c = 0;
                size_t n = 0, step = 0;

                while (n < s.n) {
                        step = utf8_next(str_from(s, n), &c);
                        if (is_gap(c) || is_invisible(c))
                                break;
                        n += step;
                }
                if (n) {
                        settle(w);
                        put(w, str_first(s, n));
                }
                if (n < s.n && is_gap(c))
                        w->space = true;
                s = str_from(s, n < s.n ? n + step : n);
                while (w->space && str_starts(s, STR("\xe2\x80\x8c"))) /* joins nothing behind a blank: padding of previews */
                        s = str_from(s, 3);
        }
}

static bool worth_showing(struct str href)
{
        return str_starts_nocase(href, STR("http://")) || str_starts_nocase(href, STR("https://")) ||
               str_starts_nocase(href, STR("mailto:")) || str_starts_nocase(href, STR("ftp://"));
}

/* An address without what is not read aloud. */
static struct str bare_url(struct str s)
{
        size_t scheme = str_find_str(s, STR("://"));

        if (scheme < s.n)
                s = str_from(s, scheme + 3);
        else if (str_starts_nocase(s, STR("mailto:")))
                s = str_from(s, 7);
        return str_ends(s, STR("/")) ? str_first(s, s.n - 1) : s;
}

/* The text since out->n == from is a link. */
static void add_link(struct writer *w, size_t from, struct str href)
{
        struct str text = from < w->out->n ? str_trim(str_from(buf_str(w->out), from)) : STR(""), bare = str_trim(href);
        bool space = w->space;

        if (!text.n || !worth_showing(bare) || str_eq_nocase(bare_url(text), bare_url(bare)))
                return;
        put(w, STR(" <"));
        while (bare.n && !w->full) { /* a url has no blanks or controls; ours has none either */
                uint32_t c;
                size_t n = utf8_next(bare, &c);

                if (c > ' ' && c != '>')
                        put(w, str_first(bare, n));
                bare = str_from(bare, n);
        }
        put(w, STR(">"));
        w->space = space;
}

/* ---- the tree ---- */

struct walk {
        struct writer w;
        size_t link_from;
};

static struct str attribute(const GumboElement *e, const char *name)
{
        const GumboAttribute *a = gumbo_get_attribute(&e->attributes, name);

        return a ? str_of(a->value) : STR("");
}

/* The declaration of a style sheet that takes an element off the page. Not font-size:0, which layouts have around what is seen. */
static bool hides(struct str declaration)
{
        static const struct {
                struct str name, value;
        } all[] = { { { "display", 7 }, { "none", 4 } }, { { "visibility", 10 }, { "hidden", 6 } }, { { "max-height", 10 }, { "0", 1 } } };
        size_t colon = str_find(declaration, ':');
        struct str name = str_trim(str_first(declaration, colon)), value = str_trim(str_from(declaration, colon + 1));
        size_t word = 0;

        while (word < value.n && !ascii_is_space(value.p[word]) && value.p[word] != '!')
                word++;
        value = str_first(value, word);
        if (value.n > 2 && str_ends(value, STR("px")))
                value.n -= 2;
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
                if (str_eq_nocase(name, all[i].name) && str_eq_nocase(value, all[i].value))
                        return true;
        return false;
}

static bool is_hidden(const GumboElement *e)
{
        struct str style = attribute(e, "style");

        if (gumbo_get_attribute(&e->attributes, "hidden"))
                return true;
        while (style.n) {
                size_t end = str_find(style, ';');

                if (hides(str_first(style, end)))
                        return true;
                style = str_from(style, end + 1);
        }
        return false;
}

static bool is_dropped(const GumboElement *e)
{
        switch (e->tag) {
        case GUMBO_TAG_HEAD: case GUMBO_TAG_SCRIPT: case GUMBO_TAG_STYLE: case GUMBO_TAG_TITLE: case GUMBO_TAG_TEMPLATE:
        case GUMBO_TAG_NOFRAMES: case GUMBO_TAG_IFRAME: case GUMBO_TAG_SVG: case GUMBO_TAG_MATH: case GUMBO_TAG_SELECT:
                return true;
        default:
                return is_hidden(e);
        }
}

/* Line ends around an element: 0 for what stands in the line. */
static unsigned breaks_of(GumboTag tag, unsigned lists)
{
        switch (tag) {
        case GUMBO_TAG_P: case GUMBO_TAG_H1: case GUMBO_TAG_H2: case GUMBO_TAG_H3: case GUMBO_TAG_H4: case GUMBO_TAG_H5:
        case GUMBO_TAG_H6: case GUMBO_TAG_BLOCKQUOTE: case GUMBO_TAG_PRE: case GUMBO_TAG_TABLE: case GUMBO_TAG_DL:
                return 2;
        case GUMBO_TAG_UL: case GUMBO_TAG_OL:
                return lists ? 1 : 2;
        case GUMBO_TAG_DIV: case GUMBO_TAG_LI: case GUMBO_TAG_TR: case GUMBO_TAG_DT: case GUMBO_TAG_DD: case GUMBO_TAG_HR:
        case GUMBO_TAG_CENTER: case GUMBO_TAG_SECTION: case GUMBO_TAG_ARTICLE: case GUMBO_TAG_HEADER: case GUMBO_TAG_FOOTER:
        case GUMBO_TAG_MAIN: case GUMBO_TAG_NAV: case GUMBO_TAG_ASIDE: case GUMBO_TAG_ADDRESS: case GUMBO_TAG_FIELDSET:
        case GUMBO_TAG_FORM: case GUMBO_TAG_CAPTION: case GUMBO_TAG_FIGURE: case GUMBO_TAG_FIGCAPTION: case GUMBO_TAG_BODY:
        case GUMBO_TAG_SUMMARY: case GUMBO_TAG_DETAILS: case GUMBO_TAG_LEGEND: case GUMBO_TAG_OPTGROUP:
                return 1;
        default:
                return 0;
        }
}

/* Where an attribute numbers a list or an item; `otherwise` where it does not, or absurdly. */
static unsigned number_of(const GumboElement *e, const char *name, unsigned otherwise)
{
        uint64_t n;

        return str_to_u64(str_trim(attribute(e, name)), 1000000, &n) && n > 0 ? (unsigned)n : otherwise;
}

static void enter_list(struct writer *w, unsigned first)
{
        if (w->lists < LIST_MAX)
                w->numbers[w->lists] = first;
        w->lists++;
}

static void enter_item(struct writer *w, const GumboElement *e)
{
        unsigned at = w->lists ? w->lists - 1 : 0;

        if (w->lists && at < LIST_MAX && w->numbers[at])
                w->numbers[at] = number_of(e, "value", w->numbers[at]);
        if (w->lists && at < LIST_MAX && w->numbers[at])
                snprintf(w->marker, sizeof w->marker, "%u. ", w->numbers[at]++);
        else
                snprintf(w->marker, sizeof w->marker, "- ");
}

static void enter(struct walk *k, const GumboElement *e)
{
        struct writer *w = &k->w;
        unsigned breaks = breaks_of(e->tag, w->lists);

        if (breaks)
                writer_break(w, breaks);
        switch (e->tag) {
        case GUMBO_TAG_BR: writer_newline(w); break;
        case GUMBO_TAG_UL: enter_list(w, 0); break;
        case GUMBO_TAG_OL: enter_list(w, number_of(e, "start", 1)); break;
        case GUMBO_TAG_LI: enter_item(w, e); break;
        case GUMBO_TAG_PRE: w->pre++; break;
        case GUMBO_TAG_BLOCKQUOTE: w->quote++; break;
        case GUMBO_TAG_TD: case GUMBO_TAG_TH: w->gap = w->in_line && !w->breaks; break;
        case GUMBO_TAG_A: k->link_from = w->out->n; break;
        case GUMBO_TAG_IMG: writer_text(w, attribute(e, "alt")); break;
        case GUMBO_TAG_HR: writer_text(w, STR("---")); break;
        default: break;
        }
}

static void leave(struct walk *k, const GumboElement *e)
{
        struct writer *w = &k->w;
        unsigned breaks;

        switch (e->tag) {
        case GUMBO_TAG_UL: case GUMBO_TAG_OL: w->lists--; break;
        case GUMBO_TAG_LI: w->marker[0] = '\0'; break;
        case GUMBO_TAG_PRE: w->pre--; break;
        case GUMBO_TAG_BLOCKQUOTE: w->quote--; break;
        case GUMBO_TAG_A: add_link(w, k->link_from, attribute(e, "href")); break;
        default: break;
        }
        breaks = breaks_of(e->tag, w->lists);
        if (breaks)
                writer_break(w, breaks);
}

static const GumboVector *children(const GumboNode *n)
{
        static const GumboVector none;

        if (n->type == GUMBO_NODE_DOCUMENT)
                return &n->v.document.children;
        if (n->type == GUMBO_NODE_ELEMENT && !is_dropped(&n->v.element))
                return &n->v.element.children;
        return &none;
}

static void arrive(struct walk *k, const GumboNode *n)
{
        if (n->type == GUMBO_NODE_TEXT || n->type == GUMBO_NODE_WHITESPACE || n->type == GUMBO_NODE_CDATA)
                writer_text(&k->w, str_of(n->v.text.text));
        else if (n->type == GUMBO_NODE_ELEMENT && !is_dropped(&n->v.element))
                enter(k, &n->v.element);
}

static void depart(struct walk *k, const GumboNode *n)
{
        if (n->type == GUMBO_NODE_ELEMENT && !is_dropped(&n->v.element))
                leave(k, &n->v.element);
}

/* By parent pointers, not by recursion: the sender chooses the depth. */
static void walk(struct walk *k, const GumboNode *root)
{
        const GumboNode *n = root;

        arrive(k, n);
        while (!k->w.full) {
                const GumboVector *below = children(n);

                if (below->length) {
                        n = below->data[0];
                        arrive(k, n);
                        continue;
                }
                depart(k, n);
                while (n != root && n->index_within_parent + 1 >= children(n->parent)->length) {
                        n = n->parent;
                        depart(k, n);
                }
                if (n == root)
                        return;
                n = children(n->parent)->data[n->index_within_parent + 1];
                arrive(k, n);
        }
}

/* Gumbo asks for memory and takes no refusal, and one page can ask for gigabytes (formatting elements opened again in every
 * paragraph). All of it comes from an arena with a limit; beyond that we jump out of the parser and drop the arena. */
struct tree_memory {
        struct arena *a;
        jmp_buf out;
};

static void *tree_alloc(void *ctx, size_t n)
{
        struct tree_memory *t = ctx;
        void *p = arena_alloc(t->a, n);

        if (!p)
                longjmp(t->out, 1);
        return p;
}

static void tree_free(void *ctx, void *p)
{
        (void)ctx; /* the arena goes as a whole */
        (void)p;
}

static GumboOutput *parse(struct tree_memory *t, struct str html)
{
        GumboOptions o = kGumboDefaultOptions;

        o.allocator = tree_alloc;
        o.deallocator = tree_free;
        o.userdata = t;
        o.max_errors = 0;
        if (setjmp(t->out))
                return NULL;
        return gumbo_parse_with_options(&o, html.p, html.n);
}

static bool by_tree(struct str html, struct writer *w)
{
        struct tree_memory t = { .a = arena_new(TREE_BYTES) };
        struct walk k = { .w = *w };
        GumboOutput *page = t.a ? parse(&t, html) : NULL;

        if (page)
                walk(&k, page->document);
        arena_free(t.a);
        return page;
}

bool html_text(struct str html, size_t max, struct buf *out, struct err *e)
{
        struct writer w = { .out = out, .start = out->n, .max = max };

        if (!html_is_tame(html) || !by_tree(html, &w))
                html_scan(html, &w);
        if (out->n > w.start && out->p[out->n - 1] != '\n' && out->n - w.start < max)
                buf_add_char(out, '\n');
        return buf_ok(out, e);
}

/* The charset in a meta element: charset=x, or in content="text/html; charset=x". */
static struct str meta_charset(struct str meta)
{
        size_t n = 0;

        meta = str_from(meta, str_find_str_nocase(meta, STR("charset")));
        meta = str_trim(str_from(meta, 7));
        if (!meta.n || meta.p[0] != '=')
                return STR("");
        meta = str_trim(str_from(meta, 1));
        if (meta.n && (meta.p[0] == '"' || meta.p[0] == '\''))
                meta = str_trim(str_from(meta, 1));
        while (n < meta.n && (ascii_is_alnum(meta.p[n]) || (meta.p[n] && strchr("-_.:+", meta.p[n]))))
                n++;
        return str_first(meta, n);
}

/* What can be read as far as the element is no UTF-16, whatever it says (HTML 13.2.3.2). */
struct str html_charset(struct str s)
{
        s = str_first(s, META_BYTES);
        for (;;) {
                struct str found;

                s = str_from(s, str_find_str_nocase(s, STR("<meta")));
                if (!s.n)
                        return STR("");
                s = str_from(s, 5);
                found = meta_charset(str_first(s, str_find(s, '>')));
                if (found.n)
                        return str_starts_nocase(found, STR("utf-16")) ? STR("utf-8") : found;
        }
}
