#include "core/mime_int.h"

#include "core/header.h"
#include "core/params.h"
#include "core/words.h"

enum {
        TYPE_MAX = 255,     /* RFC 6838 4.2 allows 127 characters on each side of the slash */
        ENCODING_MAX = 80,  /* more than the longest that is known, also as an encoded-word */
};

static bool has_bare_cr(struct str s)
{
        for (size_t at = str_find(s, '\r'); at < s.n; at += 1 + str_find(str_from(s, at + 1), '\r'))
                if (at + 1 < s.n && s.p[at + 1] != '\n')
                        return true;
        return false;
}

static void note_header(const struct header *h, bool cut, struct mime_defects *d)
{
        if (h->odd_names)
                mime_defect(d, "header.names");
        if (h->junk)
                mime_defect(d, "header.junk");
        if (h->overflow || cut)
                mime_defect(d, "limit.header");
        if (str_find(h->block, '\0') < h->block.n)
                mime_defect(d, "header.nul");
        if (has_bare_cr(h->block))
                mime_defect(d, "header.cr");
}

/* The first field of a name, or the last in the other reading; a second one is a defect (mail that two readers understand in two
 * ways). *doubt: they differ. */
static const struct field *only(const struct header *h, struct str name, bool other, const char *defect, bool *doubt, struct mime_defects *d)
{
        const struct field *f = header_find(h, name), *last = f;

        for (const struct field *next = f; next; next = header_find_after(h, name, next))
                last = next;
        if (last != f)
                mime_defect(d, defect);
        *doubt = f && !str_eq_nocase(str_trim(f->raw), str_trim(last->raw));
        return other ? last : f;
}

/* The word of a Content-Transfer-Encoding: comments, blanks and what follows a ';' (*more: there is one) are dropped, quotes are
 * not. At most out_n bytes; a longer word is no encoding that anybody knows. */
static struct str encoding_word(struct str raw, char *out, size_t out_n, bool *more)
{
        size_t n = 0;
        int comment = 0;

        *more = false;
        for (size_t i = 0; i < raw.n && n < out_n && !*more; i++) {
                char c = raw.p[i];

                if (c == '(')
                        comment++;
                else if (c == ')' && comment)
                        comment--;
                else if (c == ';' && !comment)
                        *more = true;
                else if (!comment && (n || !ascii_is_space(c)))
                        out[n++] = ascii_lower(c);
        }
        return str_trim(str_make(out, n));
}

static enum mime_encoding encoding_called(struct str word)
{
        static const struct {
                struct str word;
                enum mime_encoding is;
        } table[] = {
                { { "7bit", 4 }, MIME_IDENTITY },
                { { "8bit", 4 }, MIME_IDENTITY },
                { { "binary", 6 }, MIME_IDENTITY },
                { { "", 0 }, MIME_IDENTITY },
                { { "base64", 6 }, MIME_BASE64 },
                { { "quoted-printable", 16 }, MIME_QP },
                { { "x-uuencode", 10 }, MIME_UU },
                { { "uuencode", 8 }, MIME_UU },
                { { "x-uue", 5 }, MIME_UU },
                { { "uue", 3 }, MIME_UU },
        };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++)
                if (str_eq(word, table[i].word))
                        return table[i].is;
        return MIME_UNKNOWN;
}

/* In quotes or an encoded-word it is unknown to the RFC, and known to readers that are kinder than that. */
static enum mime_encoding kind_encoding(struct str word, const struct limits *lim, struct arena *a)
{
        char space[ENCODING_MAX];
        unsigned found = 0;
        bool more;

        if (word.n > 1 && word.p[0] == '"' && word.p[word.n - 1] == '"')
                return encoding_called(encoding_word(str_make(word.p + 1, word.n - 2), space, sizeof space, &more));
        if (str_starts(word, STR("=?")) && word.n <= ENCODING_MAX)
                return encoding_called(encoding_word(words_decode(word, STR_NONE, lim, &found, a), space, sizeof space, &more));
        return MIME_UNKNOWN;
}

/* RFC 2045 6.1 has no parameters here; mail has a ';' and more. */
static enum mime_encoding encoding_of(struct mime *m, struct str raw, const struct limits *lim, struct mime_defects *d,
                                      struct arena *scratch)
{
        char space[ENCODING_MAX];
        bool more;
        enum mime_encoding is = encoding_called(encoding_word(raw, space, sizeof space, &more)), kind;

        if (more && is != MIME_UNKNOWN)
                mime_defect(d, "syntax.encoding");
        if (is != MIME_UNKNOWN)
                return is;
        kind = kind_encoding(str_trim(raw), lim, scratch);
        if (kind != MIME_UNKNOWN)
                m->doubts |= MIME_DOUBT_ENCODING;
        return m->other ? kind : is;
}

static bool type_shaped(struct str s)
{
        size_t slash = str_find(s, '/');

        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 127)
                        return false;
        return s.n <= TYPE_MAX && slash > 0 && slash + 1 < s.n && str_find(str_from(s, slash + 1), '/') == s.n - slash - 1;
}

/* RFC 2046 5.1.5: in a digest the default is message/rfc822. */
static struct str default_type(const struct mime *m)
{
        if (m->parent && str_eq(m->parent->type, STR("multipart/digest")))
                return STR("message/rfc822");
        return STR("text/plain");
}

static void note_params(const struct params *p, struct mime_defects *d)
{
        if (p->defects & PARAMS_SYNTAX)
                mime_defect(d, "syntax.parameters");
        if (p->defects & PARAMS_LIMIT)
                mime_defect(d, "limit.parameters");
        if (p->defects & (PARAMS_DUPLICATE | PARAMS_AMBIGUOUS))
                mime_defect(d, "ambiguous.parameter");
}

/* The boundary as written: RFC 2231 and encoded-words are for other parameters, and a reader that decoded them here would see
 * other parts than everybody else. */
static struct str boundary_of(struct mime *m, const struct params *p, struct mime_defects *d)
{
        const struct param *b = params_find(p, STR("boundary"));

        if (!b)
                return STR_NONE;
        if (b->ambiguous || b->other.p || (b->literal.p && !str_eq(b->literal, b->value)))
                mime_defect(d, "ambiguous.boundary");
        if (b->other.p)
                m->doubts |= MIME_DOUBT_BOUNDARY;
        if (m->other && b->other.p)
                return b->other;
        return b->literal.p ? b->literal : b->value;
}

static bool too_deep(const struct mime *m, const struct limits *lim, struct mime_defects *d)
{
        if (m->depth < lim->depth)
                return false;
        mime_defect(d, "limit.depth");
        return true;
}

static bool is_encoded(const struct mime *m)
{
        return m->encoding == MIME_BASE64 || m->encoding == MIME_QP || m->encoding == MIME_UU;
}

static bool make_multipart(struct mime *m, const struct params *p, const struct limits *lim, struct mime_defects *d,
                           struct arena *a)
{
        struct str b = boundary_of(m, p, d);

        if (is_encoded(m)) {
                mime_defect(d, "encoding.multipart");
                m->doubts |= MIME_DOUBT_ENCODING;
                if (!m->other)
                        m->encoding = MIME_IDENTITY;
        }
        if (str_trim(b).n == 0) {
                mime_defect(d, "boundary.missing");
                return true;
        }
        if (b.n > lim->boundary) {
                mime_defect(d, "limit.boundary");
                return true;
        }
        if (too_deep(m, lim, d))
                return true;
        m->boundary = arena_str(a, b);
        if (!m->boundary.p || is_encoded(m))
                return m->boundary.p; /* a leaf, whose bytes are the multipart */
        for (const struct mime *up = m->parent; up; up = up->parent)
                if (up->kind == MIME_MULTIPART && str_eq(up->boundary, m->boundary))
                        mime_defect(d, "boundary.equal");
        m->kind = MIME_MULTIPART;
        return true;
}

static bool is_message(struct str type)
{
        return str_eq(type, STR("message/rfc822")) || str_eq(type, STR("message/global")) ||
               str_eq(type, STR("message/news"));
}

static bool settle(struct mime *m, const struct params *p, const struct limits *lim, struct mime_defects *d, struct arena *a)
{
        if (str_starts(m->type, STR("multipart/")))
                return make_multipart(m, p, lim, d, a);
        if (str_eq(m->type, STR("message/partial")))
                mime_defect(d, "message.partial");
        if (str_eq(m->type, STR("message/external-body")))
                mime_defect(d, "message.external");
        if (m->encoding == MIME_UNKNOWN)
                mime_defect(d, "encoding.unknown");
        else if (m->encoding == MIME_IDENTITY && is_message(m->type) && !too_deep(m, lim, d))
                m->kind = MIME_MESSAGE;
        return true;
}

static bool read_fields(struct mime *m, const struct header *h, const struct limits *lim, struct mime_defects *d,
                        struct arena *scratch, struct arena *a)
{
        bool types, encodings;
        const struct field *type = only(h, STR("content-type"), m->other, "duplicate.type", &types, d);
        const struct field *encoding = only(h, STR("content-transfer-encoding"), m->other, "duplicate.encoding", &encodings, d);
        struct params p = { 0 };

        m->doubts = (types ? MIME_DOUBT_TYPE : 0) | (encodings ? MIME_DOUBT_ENCODING : 0);
        m->encoding = encoding ? encoding_of(m, encoding->raw, lim, d, scratch) : MIME_IDENTITY;
        if (type && !params_parse(&p, type->raw, lim, scratch))
                return false;
        note_params(&p, d);
        if (type_shaped(p.value)) {
                m->type = arena_str(a, p.value);
                if (!m->type.p)
                        return false;
        } else {
                m->type = default_type(m);
                if (type)
                        mime_defect(d, "syntax.type");
        }
        return settle(m, &p, lim, d, a);
}

/* In an arena of its own: ten thousand parts, each with a header of ten thousand fields, must not add up. */
bool mime_entity_read(struct mime *m, struct str block, bool cut, const struct limits *lim, struct mime_defects *d,
                      struct header *keep, struct arena *a)
{
        struct arena *scratch = arena_new(0);
        struct header h = { 0 };
        bool ok;

        if (!scratch)
                return false;
        ok = header_split(&h, block, lim, keep ? a : scratch);
        if (ok) {
                note_header(&h, cut, d);
                ok = read_fields(m, &h, lim, d, scratch, a);
        }
        if (ok && keep)
                *keep = h;
        arena_free(scratch);
        return ok;
}
