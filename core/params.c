#include "core/params.h"

#include "core/buf.h"
#include "core/charset.h"
#include "core/mem.h"
#include "core/words.h"

/* Reading goes in two steps: every `name=value` becomes a piece, then the pieces of one name are put together. */

enum form { FORM_PLAIN, FORM_WHOLE, FORM_SECTION }; /* name=, name*=, name*0= or name*0*= */

struct piece {
        struct str base;    /* the name without RFC 2231's marks, lower case */
        enum form form;
        bool encoded;       /* percent-encoded */
        unsigned section;
        struct str value;   /* bytes; quotes and folds resolved */
        struct str written; /* the same, with a stray quote that the value has lost */
        struct piece *next; /* of all; then of one name */
};

struct reader {
        struct params *out;
        const struct limits *lim;
        struct arena *a;
        struct str rest;
        struct piece *first, **last;
        unsigned count;
        bool nomem;
};

static void defect(struct reader *r, unsigned bit)
{
        r->out->defects |= bit;
}

static char peek(const struct reader *r)
{
        return r->rest.n > 0 ? r->rest.p[0] : 0;
}

static void skip(struct reader *r, size_t n)
{
        r->rest = str_from(r->rest, n);
}

/* Past a comment, nested ones and all; one that never ends takes the rest. */
static void skip_comment(struct reader *r)
{
        size_t depth = 0, i = 0;

        for (; i < r->rest.n; i++) {
                char c = r->rest.p[i];

                if (c == '\\')
                        i++;
                else if (c == '(')
                        depth++;
                else if (c == ')' && --depth == 0)
                        break;
        }
        if (i >= r->rest.n)
                defect(r, PARAMS_SYNTAX);
        skip(r, i + 1);
}

static void skip_spaces(struct reader *r)
{
        size_t n = 0;

        while (n < r->rest.n && ascii_is_space(r->rest.p[n]))
                n++;
        skip(r, n);
}

static void skip_blanks(struct reader *r)
{
        for (;;) {
                skip_spaces(r);
                if (peek(r) != '(')
                        return;
                skip_comment(r);
        }
}

/* Lower case, and valid UTF-8: a type, a disposition and names go to scripts. */
static struct str lower(struct reader *r, struct str s)
{
        struct buf clean = BUF_INIT;
        struct str out;
        char *p;

        if (!utf8_valid(s)) {
                defect(r, PARAMS_SYNTAX);
                r->nomem |= !utf8_clean(s, &clean);
                s = buf_str(&clean);
        }
        out = arena_str(r->a, s);
        buf_free(&clean);
        p = (char *)(uintptr_t)out.p;
        if (!p)
                r->nomem = true;
        for (size_t i = 0; i < out.n; i++)
                p[i] = ascii_lower(p[i]);
        return out;
}

/* The value: words and slashes, until a ';' or ',', or until a word that begins a parameter (the ';' is forgotten in real mail). */

static bool is_word_char(char c)
{
        return !ascii_is_space(c) && c != ';' && c != '(';
}

static size_t word_length(struct str s)
{
        size_t n = 0;

        while (n < s.n && is_word_char(s.p[n]))
                n++;
        return n;
}

/* A name followed by '='. */
static bool starts_param(struct str s)
{
        size_t n = 0;

        while (n < s.n && (ascii_is_alnum(s.p[n]) || memchr("-_.*", s.p[n], 4)))
                n++;
        if (n == 0 || !ascii_is_alpha(s.p[0]))
                return false;
        while (n < s.n && ascii_is_blank(s.p[n]))
                n++;
        return n < s.n && s.p[n] == '=';
}

/* RFC 2045 5.1 has no quotes around a type or a disposition; mail has. */
static struct str unquoted(struct reader *r, struct str v)
{
        if (v.n < 3 || v.p[0] != '"' || v.p[v.n - 1] != '"')
                return v;
        defect(r, PARAMS_SYNTAX);
        return str_make(v.p + 1, v.n - 2);
}

static void read_value(struct reader *r)
{
        struct buf v = BUF_INIT;

        skip_blanks(r);
        while (r->rest.n > 0 && peek(r) != ';') {
                size_t n = word_length(r->rest), comma = str_find(str_first(r->rest, n), ',');
                bool ends = comma < n && v.n + comma > 0;

                if (ends)
                        n = comma;

                if (v.n > 0 && v.p[v.n - 1] != '/' && peek(r) != '/') {
                        defect(r, PARAMS_SYNTAX);
                        if (starts_param(r->rest))
                                break;
                } else {
                        buf_add(&v, r->rest.p, n);
                }
                skip(r, n);
                if (ends) {
                        defect(r, PARAMS_SYNTAX);
                        skip(r, 1);
                        break;
                }
                skip_blanks(r);
        }
        r->nomem |= v.failed;
        r->out->value = v.n ? lower(r, unquoted(r, buf_str(&v))) : STR("");
        buf_free(&v);
}

/* One parameter's value. */

static bool is_name_of_file(struct str base)
{
        return str_eq(base, STR("filename")) || str_eq(base, STR("name"));
}

/* A quoted string: folds out, quoted pairs resolved. In a file name a backslash before anything but a quote or a backslash
 * is one: "C:\new.txt" is what mailers of Windows write, and no mailer escapes another character. */
static void read_quoted(struct reader *r, struct piece *p)
{
        struct buf v = BUF_INIT;
        size_t i = 1;
        bool file = is_name_of_file(p->base);

        for (; i < r->rest.n && r->rest.p[i] != '"'; i++) {
                char c = r->rest.p[i], after = i + 1 < r->rest.n ? r->rest.p[i + 1] : 0;

                if (c == '\n' || (c == '\r' && after == '\n'))
                        continue;
                if (c == '\\' && i + 1 < r->rest.n && (!file || after == '"' || after == '\\'))
                        c = r->rest.p[++i];
                buf_add_char(&v, c);
        }
        p->value = v.n ? arena_str(r->a, buf_str(&v)) : STR("");
        p->written = p->value;
        if (i >= r->rest.n) {
                defect(r, PARAMS_SYNTAX);
                p->written = arena_printf(r->a, "\"%.*s", (int)(v.n < INT32_MAX ? v.n : 0), v.p ? v.p : "");
        }
        r->nomem |= v.failed || !p->value.p || !p->written.p;
        skip(r, i + 1);
        buf_free(&v);
}

/* The end of an unquoted value at s.p[i], a line end: the next line goes on, unless it begins a parameter. */
static bool line_ends_value(struct str s, size_t i)
{
        if (s.p[i] != '\n')
                return false;
        while (i < s.n && ascii_is_space(s.p[i]))
                i++;
        return i == s.n || starts_param(str_from(s, i));
}

/* Unquoted, up to the ';': "filename=annual report.pdf" means what it says. A comment ends it where a blank stands before. */
static void read_bare(struct reader *r, struct piece *p)
{
        struct str s = r->rest, v;
        size_t i = 0, n = 0;
        char *out;

        for (; i < s.n && s.p[i] != ';'; i++)
                if (line_ends_value(s, i) || (s.p[i] == '(' && i > 0 && ascii_is_space(s.p[i - 1])))
                        break;
        v = str_trim(str_first(s, i));
        skip(r, i);
        out = arena_alloc(r->a, v.n + 1);
        if (!out) {
                r->nomem = true;
                return;
        }
        for (i = 0; i < v.n; i++)
                if (v.p[i] != '\n' && !(v.p[i] == '\r' && i + 1 < v.n && v.p[i + 1] == '\n'))
                        out[n++] = v.p[i];
        p->value = p->written = str_make(out, n);
}

/* "filename*10*" -> filename, section 10, encoded. */
static bool read_marks(struct piece *p)
{
        size_t star = str_find(p->base, '*');
        struct str marks = str_from(p->base, star + 1);
        uint64_t section;

        if (star == p->base.n)
                return true;
        p->base = str_trim_right(str_first(p->base, star));
        p->encoded = marks.n == 0 || marks.p[marks.n - 1] == '*';
        if (p->encoded && marks.n > 0)
                marks.n--;
        p->form = marks.n == 0 ? FORM_WHOLE : FORM_SECTION;
        if (p->form == FORM_SECTION && !str_to_u64(str_trim(marks), INT32_MAX, &section))
                return false;
        p->section = p->form == FORM_SECTION ? (unsigned)section : 0;
        return p->base.n > 0;
}

static struct str read_name(struct reader *r)
{
        size_t n = 0;
        struct str name;

        while (n < r->rest.n && r->rest.p[n] != '=' && is_word_char(r->rest.p[n]))
                n++;
        name = str_first(r->rest, n);
        skip(r, n);
        skip_blanks(r);
        return name;
}

static void skip_to_semicolon(struct reader *r)
{
        size_t n = str_find(r->rest, ';');

        if (str_trim(str_first(r->rest, n)).n > 0)
                defect(r, PARAMS_SYNTAX);
        skip(r, n);
}

static void append(struct reader *r, struct piece *p)
{
        struct str marked = p->base;

        if (!read_marks(p)) {
                defect(r, PARAMS_SYNTAX);
                p->base = marked;
                p->form = FORM_PLAIN;
        }
        if (p->base.n == 0 || p->base.p[0] == '*') /* marks without a name; or out of memory */
                return;
        *r->last = p;
        r->last = &p->next;
        r->count++;
}

/* "charset=(ours) utf-8" has a comment before its value; "name=(1).pdf" is a name, and "(x)" may be a boundary. Only this near is looked:
 * further would be quadratic. */
static void skip_comment_before(struct reader *r, struct str base)
{
        enum { NEAR = 128 };
        struct str near = str_first(r->rest, NEAR);
        size_t n = str_find(near, ')') + 1, m = n;

        if (peek(r) != '(' || str_starts(base, STR("name")) || str_starts(base, STR("filename")))
                return;
        while (m < near.n && ascii_is_space(near.p[m]))
                m++;
        if (m > n && m < near.n && near.p[m] != ';')
                skip(r, m);
}

static void read_param(struct reader *r)
{
        struct str name = read_name(r);
        struct piece *p;

        if (peek(r) != '=' || name.n == 0) {
                if (name.n > 0 || peek(r) == '=')
                        defect(r, PARAMS_SYNTAX);
                skip_to_semicolon(r);
                return;
        }
        skip(r, 1);
        skip_spaces(r);
        p = arena_alloc(r->a, sizeof *p);
        if (!p) {
                r->nomem = true;
                return;
        }
        p->base = lower(r, name);
        skip_comment_before(r, p->base);
        if (peek(r) == '"')
                read_quoted(r, p);
        else
                read_bare(r, p);
        append(r, p);
        skip_blanks(r);
        if (!starts_param(r->rest))
                skip_to_semicolon(r);
        else
                defect(r, PARAMS_SYNTAX);
}

static void read_params(struct reader *r)
{
        while (r->rest.n > 0 && !r->nomem) {
                skip_blanks(r);
                if (peek(r) == ';') {
                        skip(r, 1);
                        continue;
                }
                if (r->rest.n == 0)
                        return;
                if (r->count == r->lim->parameters + r->lim->sections) {
                        defect(r, PARAMS_LIMIT);
                        return;
                }
                read_param(r);
        }
}

/* Putting together. */

static bool is_printable(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] < ' ' || s.p[i] > '~')
                        return false;
        return true;
}

/* 8-bit bytes in a plain value: UTF-8 where valid, else Windows-1252. */
static struct str raw_text(struct reader *r, struct str bytes, struct str charset)
{
        struct buf b = BUF_INIT;
        bool bad = false, unknown = false;
        struct str out = STR("");

        if (charset.n == 0 && is_printable(bytes)) /* nearly always */
                out = bytes.n ? arena_str(r->a, bytes) : out;
        else if (!charset_to_utf8(charset, bytes, &b, &bad, &unknown))
                r->nomem = true;
        else if (b.n > 0)
                out = arena_str(r->a, buf_str(&b));
        if (bad || unknown)
                defect(r, PARAMS_CHARSET);
        buf_free(&b);
        r->nomem |= !out.p;
        return out;
}

static struct str plain_text(struct reader *r, struct str base, struct str bytes)
{
        unsigned words = 0;
        struct str out;

        if (!is_name_of_file(base) || str_find_str(bytes, STR("=?")) == bytes.n)
                return raw_text(r, bytes, STR_NONE);
        out = words_decode(bytes, STR_NONE, r->lim, &words, r->a);
        if (words & (WORDS_BAD | WORDS_CHARSET))
                defect(r, PARAMS_CHARSET);
        if (words & WORDS_LIMIT)
                defect(r, PARAMS_LIMIT);
        r->nomem |= !out.p;
        return out;
}

static void add_percent(struct reader *r, struct buf *b, struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                int high = i + 2 < s.n ? ascii_hex(s.p[i + 1]) : -1, low = high >= 0 ? ascii_hex(s.p[i + 2]) : -1;

                if (s.p[i] == '%' && low >= 0) {
                        buf_add_char(b, (char)(high << 4 | low));
                        i += 2;
                        continue;
                }
                if (s.p[i] == '%')
                        defect(r, PARAMS_SYNTAX);
                buf_add_char(b, s.p[i]);
        }
}

/* RFC 2231 4: charset'language'text. Without both quotes it is all text. */
static struct str take_charset(struct reader *r, struct str *s)
{
        size_t one = str_find(*s, '\''), two = one + 1 + str_find(str_from(*s, one + 1), '\'');
        struct str charset = str_first(*s, one);

        if (one == s->n || two >= s->n) {
                defect(r, PARAMS_SYNTAX);
                return STR_NONE;
        }
        *s = str_from(*s, two + 1);
        return charset;
}

/* The sections of one name, sorted: by number, the earlier of equals first. A merge sort of lists: the sender picks the order. */
static struct piece *merge(struct piece *a, struct piece *b)
{
        struct piece *head = NULL, **tail = &head;

        while (a && b) {
                struct piece **from = b->section < a->section ? &b : &a;

                *tail = *from;
                tail = &(*tail)->next;
                *from = (*from)->next;
        }
        *tail = a ? a : b;
        return head;
}

static struct piece *sort_sections(struct piece *list)
{
        struct piece *bins[16] = { NULL };
        struct piece *out = NULL;

        if (!list || !list->next)
                return list;
        while (list) {
                struct piece *one = list;
                size_t i = 0;

                list = list->next;
                one->next = NULL;
                for (; i < 15 && bins[i]; i++) {
                        one = merge(bins[i], one);
                        bins[i] = NULL;
                }
                bins[i] = bins[i] ? merge(bins[i], one) : one;
        }
        for (size_t i = 0; i < 16; i++)
                out = merge(bins[i], out);
        return out;
}

/* Joins sections (or the one whole form) to text. The charset stands in the first; sections without '*' are literal. */
static struct str join(struct reader *r, struct str base, struct piece *list)
{
        struct buf b = BUF_INIT;
        struct str charset = STR_NONE, out = STR("");
        bool any_encoded = false, opened = false;
        unsigned expected = 0;

        for (struct piece *p = list; p; p = p->next) {
                struct str v = p->value;

                if (p != list && p->section == expected - 1) {
                        defect(r, PARAMS_DUPLICATE);
                        continue;
                }
                if (p->section != expected)
                        defect(r, PARAMS_SYNTAX);
                if (p->encoded && !opened)
                        charset = take_charset(r, &v);
                any_encoded |= p->encoded;
                opened = true;
                if (p->encoded)
                        add_percent(r, &b, v);
                else
                        buf_add_str(&b, v);
                expected = p->section + 1;
        }
        r->nomem |= b.failed;
        if (b.n > 0)
                out = any_encoded ? raw_text(r, buf_str(&b), charset) : plain_text(r, base, buf_str(&b));
        buf_free(&b);
        return out;
}

/* All pieces of one name, taken off the list of all. */
struct forms {
        struct piece *plain, *whole, *sections, **last;
        struct piece *later; /* the last of several plain ones */
        unsigned count;
};

static void keep_first(struct reader *r, struct piece **slot, struct piece *p)
{
        p->next = NULL;
        if (*slot)
                defect(r, PARAMS_DUPLICATE);
        else
                *slot = p;
}

static void sort_out(struct reader *r, struct forms *f, struct piece *p)
{
        if (p->form == FORM_PLAIN) {
                f->later = f->plain ? p : NULL;
                keep_first(r, &f->plain, p);
        } else if (p->form == FORM_WHOLE) {
                keep_first(r, &f->whole, p);
        } else if (f->count++ < r->lim->sections) {
                p->next = NULL;
                *f->last = p;
                f->last = &p->next;
        } else {
                defect(r, PARAMS_LIMIT);
        }
}

static void take_forms(struct reader *r, struct str base, struct forms *f)
{
        struct piece **link = &r->first;

        *f = (struct forms){ .last = &f->sections };
        while (*link) {
                struct piece *p = *link;

                if (!str_eq(p->base, base)) {
                        link = &p->next;
                        continue;
                }
                *link = p->next;
                sort_out(r, f, p);
        }
}

static struct str words_of(struct reader *r, struct str s)
{
        unsigned words = 0;
        struct str out = words_decode(s, STR_NONE, r->lim, &words, r->a);

        r->nomem |= !out.p;
        return out;
}

/* Of a boundary also the encoded-word in it, which is literal to us. */
static struct str other_reading(struct reader *r, const struct param *q, const struct forms *f, struct str extended, struct str plain)
{
        struct str all[] = { f->later ? plain_text(r, q->name, f->later->value) : STR_NONE, extended, plain, STR_NONE };

        if (str_eq(q->name, STR("boundary")) && f->plain && str_find_str(f->plain->value, STR("=?")) < f->plain->value.n)
                all[3] = words_of(r, f->plain->value);
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
                if (str_trim(all[i]).n && !str_eq(all[i], q->value))
                        return all[i];
        return STR_NONE;
}

/* The RFC 2231 form is used, but not for a boundary, and not where it is empty and another is not. */
static void choose(struct reader *r, struct param *q, struct forms *f)
{
        bool boundary = str_eq(q->name, STR("boundary"));
        struct piece *list = f->whole ? f->whole : sort_sections(f->sections);
        struct str extended = list ? join(r, q->name, list) : STR_NONE, plain = STR_NONE;

        if (f->whole && f->sections)
                defect(r, PARAMS_DUPLICATE);
        if (f->plain) {
                bool useful = boundary || is_name_of_file(q->name);

                plain = plain_text(r, q->name, useful ? f->plain->value : f->plain->written);
                q->literal = f->plain->value;
        }
        if (list && f->plain && !str_eq(extended, plain))
                defect(r, PARAMS_AMBIGUOUS);
        q->value = f->plain && (boundary || extended.n == 0) ? plain : extended;
        q->other = other_reading(r, q, f, extended, plain);
}

/* The parameter called `name`, of all its pieces; what is doubtful about it is noted with it too. */
static void put_together(struct reader *r, struct param *q)
{
        unsigned doubt = PARAMS_DUPLICATE | PARAMS_AMBIGUOUS, before = r->out->defects;
        struct forms f;

        r->out->defects &= ~doubt;
        take_forms(r, q->name, &f);
        choose(r, q, &f);
        q->ambiguous = (r->out->defects & doubt) != 0;
        r->out->defects |= before;
}

static bool assemble(struct reader *r)
{
        struct param **last = &r->out->first;
        unsigned names = 0;

        while (r->first && !r->nomem) {
                struct param *q;

                if (names++ == r->lim->parameters) {
                        defect(r, PARAMS_LIMIT);
                        break;
                }
                q = arena_alloc(r->a, sizeof *q);
                if (!q)
                        return false;
                q->name = r->first->base;
                put_together(r, q);
                *last = q;
                last = &q->next;
        }
        return !r->nomem;
}

bool params_parse(struct params *p, struct str raw, const struct limits *lim, struct arena *a)
{
        struct reader r = { .out = p, .lim = lim, .a = a, .rest = raw };

        memset(p, 0, sizeof *p);
        r.last = &r.first;
        if (raw.n > lim->header_field) {
                r.rest = str_first(raw, lim->header_field);
                defect(&r, PARAMS_LIMIT);
        }
        r.rest = str_trim_right(r.rest);
        read_value(&r);
        if (starts_param(str_trim(raw))) { /* "Content-Disposition: filename=a.txt" */
                defect(&r, PARAMS_SYNTAX);
                r.rest = str_trim(str_first(raw, lim->header_field));
        }
        read_params(&r);
        return !r.nomem && assemble(&r);
}

const struct param *params_find(const struct params *p, struct str name)
{
        for (const struct param *q = p->first; q; q = q->next)
                if (str_eq_nocase(q->name, name))
                        return q;
        return NULL;
}

struct str params_value(const struct params *p, struct str name)
{
        const struct param *q = params_find(p, name);

        return q ? q->value : STR_NONE;
}
