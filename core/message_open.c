/* Wrappers: parts whose contents are what was sent. Encoded messages, TNEF, S/MIME signed data, and files uuencoded in text.
 *
 * What is opened counts against the limits of the message as if it had been there from the start; a wrapper beyond them, or one that
 * cannot be read, stays a leaf. Contents are ranges: of the message where nothing had to be decoded, else of bytes it keeps. */
#include "core/message_int.h"

#include "core/charset.h"
#include "core/mem.h"
#include "core/smime.h"
#include "core/tnef.h"
#include "core/uu.h"

enum { STEP = 64 * 1024 };

static bool is_any(struct str s, const char *const *words)
{
        for (; *words; words++)
                if (str_eq_nocase(s, str_of(*words)))
                        return true;
        return false;
}

/* A message that the parser of the tree could not look into: encoded, or out of something that is not MIME. */
static bool wraps_message(const struct part *p)
{
        static const char *const types[] = { "message/rfc822", "message/global", "message/news", NULL };
        enum mime_encoding e = p->mime->encoding;

        return (e == MIME_BASE64 || e == MIME_QP || e == MIME_UU || p->made) && is_any(p->mime->type, types);
}

static bool is_generic(struct str type)
{
        return str_eq(type, STR("application/octet-stream")) || str_eq(type, STR("application/x-unknown")) ||
               str_eq(type, STR("application/binary"));
}

/* The signature of TNEF in front of the body as it stands, in two encodings; enough to decode what is not called so. */
static bool looks_like_tnef(const struct part *p)
{
        char first[8];
        struct err e;
        ssize_t n = range_read(p->body, 0, first, sizeof first, &e);
        struct str s = str_make(first, n > 0 ? (size_t)n : 0);

        if (p->mime->encoding == MIME_BASE64)
                return str_starts(str_trim(s), STR("eJ8+I"));
        return p->mime->encoding == MIME_IDENTITY && tnef_is(s);
}

static bool wraps_tnef(struct part *p)
{
        static const char *const types[] = { "application/ms-tnef", "application/vnd.ms-tnef", "application/x-ms-tnef", NULL };
        struct str type = p->mime->type;

        if (is_any(type, types))
                return true;
        if (!str_starts(type, STR("application/")) && !str_starts(type, STR("text/plain")))
                return false;
        return str_eq_nocase(part_name(p), STR("winmail.dat")) || (is_generic(type) && looks_like_tnef(p));
}

static bool wraps_smime(struct part *p)
{
        static const char *const types[] = { "application/pkcs7-mime", "application/x-pkcs7-mime", NULL };

        return is_any(p->mime->type, types) ||
               (is_generic(p->mime->type) && str_eq_nocase(part_name(p), STR("smime.p7m")));
}

bool part_holds_files(struct part *p)
{
        return p->mime && p->mime->kind == MIME_LEAF && str_eq(p->mime->type, STR("text/plain")) && !part_attached(p, NULL);
}

/* All decoded bytes of p, in memory, with one byte more than `most` when there are too many. */
static bool decode_whole(struct part *p, uint64_t most, struct buf *out, struct err *e)
{
        struct reader *r = part_open(p, e);
        ssize_t n = 1;

        if (!r)
                return false;
        while (n > 0 && out->n <= most) {
                if (!buf_reserve(out, STEP)) {
                        err_nomem(e);
                        n = -1;
                        break;
                }
                n = reader_read(r, out->p + out->n, STEP, e);
                out->n += n > 0 ? (size_t)n : 0;
        }
        reader_close(r);
        return n >= 0;
}

/* Gives the message a piece of memory to keep for its lifetime; b is empty afterwards. */
static bool keep_bytes(struct message *m, struct buf *b, struct range *out, struct err *e)
{
        struct opened *o = arena_alloc(m->a, sizeof *o);

        if (!o)
                return err_nomem(e);
        *out = (struct range){ NULL, 0, b->n };
        m->opened_bytes += b->n;
        o->bytes = out->in = backing_memory(b->p, b->n);
        buf_init(b, 0);
        if (!o->bytes)
                return err_nomem(e);
        o->next = m->opened;
        m->opened = o;
        return true;
}

static bool full(const struct message *m)
{
        return m->parts >= m->lim.parts;
}

/* ---- messages and signed data: MIME inside ---- */

static bool open_mime(struct part *p, struct buf *b, struct err *e)
{
        struct message *m = p->m;
        struct limits lim = m->lim;
        struct mime_defects unsaid = { .count = 0 };
        struct range in;
        struct mime *root;

        if (!keep_bytes(m, b, &in, e))
                return false;
        lim.depth -= p->depth;
        lim.parts -= m->parts;
        root = message_structure(m, in, &lim, p->other ? &unsaid : &m->defects, p->other, e);
        if (!root)
                return false;
        p->transparent = true;
        return part_graft(p, root, in) || err_nomem(e);
}

/* A multipart in an encoding, which only the other reading decodes: its boundary comes from outside. */
static bool open_multipart(struct part *p, struct buf *b, struct err *e)
{
        struct str boundary = p->mime->boundary;
        struct buf whole = BUF_INIT;
        bool ok;

        ok = buf_printf(&whole, "Content-Type: %.*s; boundary=\"", STR_FMT(p->mime->type));
        for (size_t i = 0; ok && i < boundary.n; i++)
                ok = (!memchr("\"\\", boundary.p[i], 2) || buf_add_char(&whole, '\\')) && buf_add_char(&whole, boundary.p[i]);
        ok = ok && buf_add(&whole, "\"\n\n", 3) && buf_add_str(&whole, buf_str(b)) ? open_mime(p, &whole, e) : err_nomem(e);
        buf_free(&whole);
        return ok;
}

static bool open_smime(struct part *p, struct buf *b, struct err *e)
{
        struct buf content = BUF_INIT;
        enum smime_kind kind;
        bool ok = smime_open(buf_str(b), &content, &kind) || err_nomem(e);

        if (ok && kind == SMIME_BROKEN)
                message_add_defect(p->m, "smime.broken");
        if (ok && kind == SMIME_SIGNED)
                ok = open_mime(p, &content, e);
        buf_free(&content);
        return ok;
}

/* ---- parts that were never MIME ---- */

/* What is known of a part that has no header. */
struct facts {
        struct str type, name, id, charset, disposition;
        enum mime_encoding encoding;
};

/* A copy on one line: a header could not have said more either. */
static struct str kept(struct message *m, struct str s)
{
        char *c;

        if (!s.p)
                return s;
        s = arena_str(m->a, utf8_cut(s, NAME_MAX_KEPT));
        c = (char *)s.p; /* our own copy */
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)c[i] < ' ')
                        c[i] = ' ';
        return s;
}

/* NULL when out of memory. */
static struct part *make_part(struct part *parent, const struct facts *f, struct range body)
{
        struct message *m = parent->m;
        struct mime *e = arena_alloc(m->a, sizeof *e);
        struct part *p;

        if (!e)
                return NULL;
        e->kind = MIME_LEAF;
        e->encoding = f->encoding;
        e->index = parent->last ? parent->last->mime->index + 1 : 1;
        e->body_n = body.n;
        e->type = f->type;
        p = part_add(parent, e, body);
        if (!p)
                return NULL;
        p->made = p->facts_read = true;
        p->name = kept(m, f->name);
        p->id = kept(m, f->id);
        p->charset = kept(m, f->charset);
        p->charset_given = p->charset.n > 0;
        p->disposition = f->disposition;
        return p;
}

/* ---- TNEF ---- */

static bool type_shaped(struct str s)
{
        size_t slash = str_find(s, '/');

        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] <= ' ' || s.p[i] > '~') /* 8-bit bytes are below ' ' or above '~', whatever char is */
                        return false;
        return s.n <= 255 && slash > 0 && slash + 1 < s.n;
}

static struct str type_of(const struct tnef_file *f)
{
        if (f->kind == TNEF_MESSAGE)
                return STR("application/ms-tnef");
        if (f->type.p && type_shaped(f->type) && !str_starts(f->type, STR("multipart/")))
                return f->type;
        return STR("application/octet-stream");
}

static struct str bare_id(struct str s)
{
        if (s.n && s.p[0] == '<')
                s = str_from(s, 1);
        return str_first(s, str_find(s, '>'));
}

static struct range inside(struct range all, struct str whole, struct str data)
{
        return range_sub(all, (uint64_t)(data.p - whole.p), data.n);
}

static bool add_body(struct part *p, struct range all, struct str whole, const struct tnef_body *b, struct str type)
{
        struct facts f = { .type = type, .charset = str_of(b->charset) };

        return !b->data.p || make_part(p, &f, inside(all, whole, b->data));
}

/* Compressed; what cannot be unpacked is not worth a part: a rich text is a second body. */
static bool add_rtf(struct part *p, const struct tnef_body *b, struct err *e)
{
        struct facts f = { .type = STR("text/rtf") };
        struct message *m = p->m;
        struct buf out = BUF_INIT;
        uint64_t left = OPENED_MAX - m->opened_bytes;
        struct range r;
        bool ok = true;

        if (!b->data.p)
                return true;
        buf_init(&out, left ? left : 1);
        if (!tnef_rtf(b->data, &out))
                message_add_defect(m, out.over ? "limit.opened" : "tnef.broken");
        if (out.failed && !out.over)
                ok = err_nomem(e);
        else if (out.n)
                ok = keep_bytes(m, &out, &r, e) && (make_part(p, &f, r) || err_nomem(e));
        buf_free(&out);
        return ok;
}

static bool add_files(struct part *p, const struct tnef *t, struct range all, struct str whole)
{
        for (const struct tnef_file *file = t->files; file; file = file->next) {
                struct facts f = { .type = type_of(file), .name = file->name, .id = bare_id(file->id), .disposition = STR("attachment") };

                if (!make_part(p, &f, inside(all, whole, file->data)))
                        return false;
        }
        return true;
}

/* When bytes of it are in nothing that was found, it is a leaf beside its contents. */
static bool open_tnef(struct part *p, struct buf *b, struct err *e)
{
        struct message *m = p->m;
        struct tnef t = { 0 };
        struct range all;
        struct str whole;

        if (!keep_bytes(m, b, &all, e))
                return false;
        if (!range_in_memory(all, &whole) || !tnef_parse(&t, whole, m->lim.parts - m->parts, m->a))
                return err_nomem(e);
        if (t.broken)
                message_add_defect(m, "tnef.broken");
        if (t.bad_checksum)
                message_add_defect(m, "tnef.checksum");
        if (t.over)
                message_add_defect(m, "limit.opened");
        p->transparent = !t.cut && !t.over;
        if (!add_body(p, all, whole, &t.text, STR("text/plain")) || !add_body(p, all, whole, &t.html, STR("text/html")))
                return err_nomem(e);
        return add_rtf(p, &t.rtf, e) && (add_files(p, &t, all, whole) || err_nomem(e));
}

/* ---- uuencode ---- */

static bool add_uu(struct part *p, const struct uu_finder *f, struct range text, struct err *e)
{
        struct facts facts = { .type = STR("application/octet-stream"), .encoding = MIME_UU, .disposition = STR("attachment") };
        struct buf name = BUF_INIT;
        bool ok;

        if (full(p->m)) {
                message_add_defect(p->m, "limit.opened");
                return true;
        }
        if (!f->ended)
                message_add_defect(p->m, "uu.unended");
        ok = charset_to_utf8(p->charset_given ? p->charset : STR(""), f->name, &name, NULL, NULL);
        facts.name = name.n ? buf_str(&name) : STR_NONE;
        ok = ok && make_part(p, &facts, range_sub(text, f->at, f->n));
        buf_free(&name);
        return ok || err_nomem(e);
}

/* Where the files are in the text; they are ranges of `text`, or, when that is NULL, only counted. */
static bool find_uu(struct part *p, struct reader *r, const struct range *text, unsigned *count, struct err *e)
{
        char *block = mem_alloc(STEP);
        struct uu_finder f = { 0 };
        bool ok = block || err_nomem(e);
        ssize_t n = 1;

        while (ok && n > 0) {
                struct str rest;

                n = reader_read(r, block, STEP, e);
                ok = n >= 0;
                rest = str_make(block, n > 0 ? (size_t)n : 0);
                while (ok && (rest.n ? uu_find(&f, &rest) : n == 0 && uu_find_end(&f))) {
                        ++*count;
                        ok = !text || add_uu(p, &f, *text, e);
                }
        }
        mem_free(block);
        return ok;
}

static bool search_uu(struct part *p, const struct range *text, unsigned *count, struct err *e)
{
        struct reader *r = part_open(p, e);
        bool ok = r && find_uu(p, r, text, count, e);

        reader_close(r);
        return ok;
}

/* Encoded text is kept decoded, but only when there is a file in it. */
static bool open_uu(struct part *p, struct err *e)
{
        enum mime_encoding encoding = p->mime->encoding;
        struct message *m = p->m;
        struct buf b = BUF_INIT;
        struct range text;
        unsigned count = 0;
        uint64_t left = OPENED_MAX - m->opened_bytes;
        bool ok;

        if (encoding == MIME_IDENTITY || encoding == MIME_UNKNOWN)
                return search_uu(p, &p->body, &count, e);
        if (!search_uu(p, NULL, &count, e))
                return false;
        if (count == 0)
                return true;
        ok = decode_whole(p, left, &b, e);
        if (ok && b.n > left)
                message_add_defect(m, "limit.opened");
        else if (ok)
                ok = keep_bytes(m, &b, &text, e) && search_uu(p, &text, &count, e);
        buf_free(&b);
        return ok;
}

/* ---- all of them ---- */

typedef bool opener(struct part *p, struct buf *b, struct err *e);

static opener *opener_of(struct part *p)
{
        if (wraps_message(p))
                return open_mime;
        if (p->other && p->mime->boundary.n)
                return open_multipart;
        if (wraps_tnef(p))
                return open_tnef;
        return wraps_smime(p) ? open_smime : NULL;
}

static bool open_decoded(struct part *p, opener *open, struct err *e)
{
        struct message *m = p->m;
        struct buf b = BUF_INIT;
        uint64_t left = OPENED_MAX - m->opened_bytes;
        bool ok;

        if (p->depth >= m->lim.depth || full(m)) {
                message_add_defect(m, "limit.opened");
                return true;
        }
        ok = decode_whole(p, left, &b, e);
        if (ok && b.n > left)
                message_add_defect(m, "limit.opened");
        else if (ok)
                ok = open(p, &b, e);
        buf_free(&b);
        return ok;
}

void part_unwrap(struct part *p)
{
        struct err e;
        opener *open;
        bool ok = true;

        if (p->opened || !part_is_leaf(p))
                return;
        p->opened = true;
        open = opener_of(p);
        if (open)
                ok = open_decoded(p, open, &e);
        else if (part_holds_files(p))
                ok = open_uu(p, &e);
        if (!ok)
                message_fail(p->m, &e);
}
