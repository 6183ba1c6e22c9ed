/* Wrappers: parts whose contents are what was sent. Encoded messages, TNEF, S/MIME signed data, and files uuencoded in text.
 *
 * What is opened counts against the limits of the message as if it had been there from the start; a wrapper beyond them, or one that
 * cannot be read, stays a leaf. Contents are ranges: of the message where nothing had to be decoded, else of bytes it keeps. */
#include "core/message_int.h"

#include "core/charset.h"
#include "core/mem.h"
#include "core/smime.h"
#include "core/tnef.h"
#include "core/unpack.h"
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

        if (n < 0)
                message_fail(p->m, &e);
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

uint64_t budget_bytes(const struct message *m)
{
        uint64_t ratio = m->lim.opened_ratio, most = m->lim.opened_bytes;
        uint64_t times = ratio && m->r.n > UINT64_MAX / ratio ? UINT64_MAX : m->r.n * ratio;

        if (times < OPENED_FREE)
                times = OPENED_FREE;
        if (most > times)
                most = times;
        return most > m->opened_bytes ? most - m->opened_bytes : 0;
}

unsigned budget_parts(const struct message *m)
{
        unsigned used = m->parts - m->own_parts;

        return m->lim.opened_parts > used ? m->lim.opened_parts - used : 0;
}

bool budget_allows(const struct part *p)
{
        struct message *m = p->m;

        if (p->level < m->lim.opened_depth && p->depth < m->lim.depth && budget_parts(m) && budget_bytes(m))
                return true;
        message_add_defect(m, "limit.opened");
        return false;
}

/* What may come in one piece. */
static uint64_t whole_left(const struct message *m)
{
        uint64_t left = m->lim.opened_whole > m->whole_bytes ? m->lim.opened_whole - m->whole_bytes : 0, budget = budget_bytes(m);

        return left < budget ? left : budget;
}

/* All decoded bytes of p into w, or up to `most` of them and *over. */
static bool decode_into(struct part *p, uint64_t most, struct spilling *w, bool *over, struct err *e)
{
        struct reader *r = part_open(p, e);
        char *block = r ? mem_alloc(STEP) : NULL;
        ssize_t n = -1;

        *over = false;
        if (r && !block)
                err_nomem(e);
        while (block && (n = reader_read(r, block, STEP, e)) > 0 && !*over) {
                *over = w->n + (uint64_t)n > most;
                if (!*over && !spilling_add(w, str_make(block, (size_t)n), e)) {
                        n = -1;
                        break;
                }
        }
        mem_free(block);
        reader_close(r);
        return n >= 0;
}

/* The decoded bytes of p, kept by the message. *out is empty, and a defect is noted, when they are too many. */
static bool keep_decoded(struct part *p, bool whole, struct range *out, struct err *e)
{
        struct message *m = p->m;
        struct spill *s = &m->spill;
        uint64_t memory = s->memory;
        struct spilling w;
        bool over, ok;

        *out = (struct range){ 0 };
        if (whole) /* in one piece: in memory, whatever lies there already */
                s->memory = UINT64_MAX;
        spilling_begin(&w, s);
        ok = decode_into(p, whole ? whole_left(m) : budget_bytes(m), &w, &over, e);
        s->memory = memory;
        if (ok && over)
                message_add_defect(m, "limit.opened");
        else if (ok)
                ok = spilling_end(&w, out, e);
        if (ok && !over) {
                m->opened_bytes += out->n;
                m->whole_bytes += whole ? out->n : 0;
        }
        spilling_drop(&w);
        return ok;
}

/* Gives the message a piece of memory to keep for its lifetime; b is empty afterwards. */
static bool keep_bytes(struct message *m, struct buf *b, struct range *out, struct err *e)
{
        m->opened_bytes += b->n;
        m->whole_bytes += b->n;
        return spill_take(&m->spill, b, out, e);
}

/* ---- messages and signed data: MIME inside ---- */

static bool open_mime(struct part *p, struct range in, struct err *e)
{
        struct message *m = p->m;
        struct limits lim = m->lim;
        struct mime_defects unsaid = { .count = 0 };
        struct mime *root;

        lim.depth -= p->depth;
        lim.parts = budget_parts(m);
        root = message_structure(m, in, &lim, p->other ? &unsaid : &m->defects, p->other, e);
        if (!root)
                return false;
        p->transparent = true;
        return part_graft(p, root, in) || err_nomem(e);
}

/* A multipart in an encoding, which only the other reading decodes: its boundary comes from outside. */
static bool open_multipart(struct part *p, struct range in, struct err *e)
{
        struct str boundary = p->mime->boundary, decoded;
        struct buf whole = BUF_INIT;
        bool ok;

        ok = range_in_memory(in, &decoded) && buf_printf(&whole, "Content-Type: %.*s; boundary=\"", STR_FMT(p->mime->type));
        for (size_t i = 0; ok && i < boundary.n; i++)
                ok = (!memchr("\"\\", boundary.p[i], 2) || buf_add_char(&whole, '\\')) && buf_add_char(&whole, boundary.p[i]);
        ok = (ok && buf_add(&whole, "\"\n\n", 3) && buf_add_str(&whole, decoded)) || err_nomem(e);
        ok = ok && keep_bytes(p->m, &whole, &in, e) && open_mime(p, in, e);
        buf_free(&whole);
        return ok;
}

static bool open_content(struct part *p, struct buf *content, struct err *e)
{
        struct range in;

        return keep_bytes(p->m, content, &in, e) && open_mime(p, in, e);
}

/* OpenSSL may have been built without zlib, and mostly is. */
static bool open_compressed(struct part *p, struct str packed, struct err *e)
{
        uint64_t left = whole_left(p->m);
        struct buf content;
        bool good, ok;

        buf_init(&content, left ? left : 1);
        ok = unpack_zlib(packed, &content, &good) || content.over || err_nomem(e);
        if (content.over || !good)
                message_add_defect(p->m, content.over ? "limit.opened" : "smime.broken");
        else
                ok = ok && open_content(p, &content, e);
        buf_free(&content);
        return ok;
}

static bool open_smime(struct part *p, struct range in, struct err *e)
{
        struct buf content = BUF_INIT;
        enum smime_kind kind;
        struct str whole;
        bool ok = range_in_memory(in, &whole) && (smime_open(whole, &content, &kind) || err_nomem(e));

        if (ok && kind == SMIME_BROKEN)
                message_add_defect(p->m, "smime.broken");
        p->locked = ok && kind == SMIME_ENCRYPTED;
        if (ok && kind == SMIME_SIGNED) {
                p->cms = in;
                ok = open_content(p, &content, e);
        }
        if (ok && kind == SMIME_COMPRESSED)
                ok = open_compressed(p, buf_str(&content), e);
        buf_free(&content);
        return ok;
}

/* ---- parts that were never MIME ---- */

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

struct part *part_make(struct part *parent, const struct facts *f, struct range body)
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

        return !b->data.p || part_make(p, &f, inside(all, whole, b->data));
}

/* Compressed; what cannot be unpacked is not worth a part: a rich text is a second body. */
static bool add_rtf(struct part *p, const struct tnef_body *b, struct err *e)
{
        struct facts f = { .type = STR("text/rtf") };
        struct message *m = p->m;
        struct buf out = BUF_INIT;
        uint64_t left = whole_left(m);
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
                ok = keep_bytes(m, &out, &r, e) && (part_make(p, &f, r) || err_nomem(e));
        buf_free(&out);
        return ok;
}

static bool add_files(struct part *p, const struct tnef *t, struct range all, struct str whole)
{
        for (const struct tnef_file *file = t->files; file; file = file->next) {
                struct facts f = { .type = type_of(file), .name = file->name, .id = bare_id(file->id), .disposition = STR("attachment") };

                if (!part_make(p, &f, inside(all, whole, file->data)))
                        return false;
        }
        return true;
}

/* When bytes of it are in nothing that was found, it is a leaf beside its contents. */
static bool open_tnef(struct part *p, struct range all, struct err *e)
{
        struct message *m = p->m;
        struct tnef t = { 0 };
        struct str whole;

        if (!range_in_memory(all, &whole) || !tnef_parse(&t, whole, budget_parts(m), m->a))
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

        if (!budget_allows(p))
                return true;
        if (!f->ended)
                message_add_defect(p->m, "uu.unended");
        ok = charset_to_utf8(p->charset_given ? p->charset : STR(""), f->name, &name, NULL, NULL);
        facts.name = name.n ? buf_str(&name) : STR_NONE;
        ok = ok && part_make(p, &facts, range_sub(text, f->at, f->n));
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
        struct range text;
        unsigned count = 0;

        if (encoding == MIME_IDENTITY || encoding == MIME_UNKNOWN)
                return search_uu(p, &p->body, &count, e);
        if (!search_uu(p, NULL, &count, e))
                return false;
        return count == 0 || !budget_allows(p) || (keep_decoded(p, false, &text, e) && (!text.in || search_uu(p, &text, &count, e)));
}

/* ---- all of them ---- */

typedef bool opener(struct part *p, struct range in, struct err *e);

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
        struct range in;

        return !budget_allows(p) || (keep_decoded(p, open != open_mime, &in, e) && (!in.in || open(p, in, e)));
}

void part_unwrap(struct part *p)
{
        struct err e;
        opener *open;
        bool ok = true;

        if (p->opened || !part_is_leaf(p) || p->locked)
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
