/* What a part says about itself, and what its bytes are. */
#include "core/message_int.h"

#include "core/charset.h"
#include "core/digest.h"
#include "core/filename.h"
#include "core/params.h"
#include "core/sniff.h"
#include "core/words.h"

enum {
        COUNT_BYTES = 16 * 1024,
        NAMES_MAX = 8,                  /* of one part, that are told */
        SNIFF_BYTES = 256 * 1024,       /* libmagic finds an office document's type some way into its zip */
};

struct message *part_message(struct part *p)
{
        return p->m;
}

struct str part_path(struct part *p)
{
        return p->path.p ? p->path : STR("");
}

unsigned part_index(struct part *p)
{
        return p->index;
}

bool part_is_root(struct part *p)
{
        return !p->mime;
}

bool part_is_wrapped(const struct part *p)
{
        for (; p; p = p->parent)
                if (p->made || (p->parent ? p->parent->transparent : p->other))
                        return true;
        return false;
}

bool part_is_container(struct part *p)
{
        return !p->mime || p->mime->kind != MIME_LEAF;
}

/* The entity behind a part; for the whole message that of its outermost one. NULL only when the tree could not be had. */
static const struct mime *entity(struct part *p)
{
        if (p->mime)
                return p->mime;
        message_need_tree(p->m);
        return p->child ? p->child->mime : NULL;
}

struct str part_type(struct part *p)
{
        const struct mime *e = entity(p);

        return e ? e->type : STR("text/plain");
}

struct range part_raw(struct part *p)
{
        return p->body;
}

struct range part_entity(struct part *p)
{
        struct range r = p->header;

        if (!p->mime)
                return p->m->r;
        r.n = p->body.at + p->body.n - p->header.at;
        return r;
}

static void note_params(struct message *m, unsigned defects)
{
        if (defects & PARAMS_SYNTAX)
                message_add_defect(m, "syntax.parameters");
        if (defects & PARAMS_LIMIT)
                message_add_defect(m, "limit.parameters");
        if (defects & PARAMS_CHARSET)
                message_add_defect(m, "charset.unknown");
        if (defects & (PARAMS_DUPLICATE | PARAMS_AMBIGUOUS))
                message_add_defect(m, "ambiguous.parameter");
}

/* A copy in the arena, at most NAME_MAX_KEPT bytes of it. */
static struct str kept(struct message *m, struct str s)
{
        if (!s.p)
                return s;
        s = arena_str(m->a, utf8_cut(s, NAME_MAX_KEPT));
        if (!s.p)
                message_nomem(m);
        return s;
}

static struct str kept_lower(struct message *m, struct str s)
{
        char *p;

        s = kept(m, s);
        p = (char *)s.p; /* our own copy */
        for (size_t i = 0; i < s.n; i++)
                p[i] = ascii_lower(p[i]);
        return s;
}

/* A blank name is none, so that one field's silence does not hide what another says. */
static void add_name(struct part *p, struct str s)
{
        if (!str_trim(s).n || p->names_n == NAMES_MAX)
                return;
        s = utf8_cut(s, NAME_MAX_KEPT);
        for (size_t i = 0; i < p->names_n; i++)
                if (str_eq(p->names[i], s))
                        return;
        if (!p->names)
                p->names = arena_alloc(p->m->a, NAMES_MAX * sizeof *p->names);
        if (p->names)
                p->names[p->names_n++] = kept(p->m, s);
        else
                message_nomem(p->m);
}

/* Ordinary names, nearly all, are told by a look. */
static bool is_ordinary(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] >= 0x80 || s.p[i] == '{' || (s.p[i] == ' ' && i + 1 < s.n && s.p[i + 1] == ' '))
                        return false;
        return true;
}

/* What the names show that is meant to mislead. */
static void note_names(struct part *p, struct arena *a)
{
        static const struct {
                unsigned flag;
                const char *defect;
        } all[] = { { FILENAME_BIDI, "name.invisible" }, { FILENAME_SPACES, "name.spaces" }, { FILENAME_CLSID, "name.clsid" }, { FILENAME_MIXED, "name.mixed" } };
        unsigned flags = 0;

        for (size_t i = 0; i < p->names_n; i++)
                if (!is_ordinary(p->names[i]) && !filename_clean(p->names[i], &flags, a).p)
                        message_nomem(p->m);
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
                if (flags & all[i].flag)
                        message_add_defect(p->m, all[i].defect);
}

static void add_names(struct part *p, const struct params *of, struct str key)
{
        const struct param *q = params_find(of, key);

        if (!q)
                return;
        add_name(p, q->value);
        add_name(p, q->other);
}

/* Of the fields that count; then of others with their names, which somebody else may go by. */
static bool read_names(struct part *p, const struct header *h, const struct params *type, const struct params *disposition, struct arena *a)
{
        static const struct {
                struct str field, key;
        } all[] = { { { "content-disposition", 19 }, { "filename", 8 } }, { { "content-type", 12 }, { "name", 4 } } };

        add_names(p, disposition, all[0].key);
        add_names(p, type, all[1].key);
        for (size_t i = 0; i < 2; i++) {
                const struct field *f = header_find(h, all[i].field);

                for (unsigned n = 0; f && n < NAMES_MAX; n++, f = header_find_after(h, all[i].field, f)) {
                        struct params more = { 0 };

                        if (n > 0 && !params_parse(&more, message_from_8bit(p->m, f->raw, p->charset, a), &p->m->lim, a))
                                return false;
                        add_names(p, &more, all[i].key);
                }
        }
        if (p->names_n > 1)
                message_add_defect(p->m, "ambiguous.name");
        p->name = p->names_n ? p->names[0] : STR_NONE;
        note_names(p, a);
        return true;
}

static void read_id(struct part *p, const struct header *h, struct arena *a)
{
        const struct field *f = header_find(h, STR("content-id"));
        struct str s = f ? header_unfold(f->raw, a) : STR_NONE;

        if (s.n && s.p[0] == '<')
                s = str_from(s, 1);
        s = str_first(s, str_find(s, '>'));
        p->id = kept(p->m, s.n ? message_utf8(p->m, s) : STR_NONE);
}

static void set_charset(struct part *p, const struct params *type)
{
        struct str charset = str_trim(params_value(type, STR("charset")));

        p->charset_given = charset.n > 0;
        if (charset.n)
                p->charset = kept_lower(p->m, charset);
        else if (str_starts(p->mime->type, STR("text/")))
                p->charset = STR("us-ascii"); /* RFC 2046 4.1.2 */
}

/* Before the names beside it are read, which may be in it. */
static bool read_charset(struct part *p, struct str raw, struct arena *a)
{
        struct params type = { 0 };

        if (utf8_valid(raw))
                return true;
        if (!params_parse(&type, raw, &p->m->lim, a))
                return false;
        set_charset(p, &type);
        return true;
}

static bool read_params(struct part *p, const struct header *h, struct str name, struct params *out, struct arena *a)
{
        const struct field *f = header_find(h, name);

        for (const struct field *last = f; last && p->other; last = header_find_after(h, name, last))
                f = last;
        if (f && str_eq(name, STR("content-type")) && !read_charset(p, f->raw, a))
                return false;
        if (f && !params_parse(out, message_from_8bit(p->m, f->raw, p->charset, a), &p->m->lim, a))
                return false;
        note_params(p->m, out->defects);
        return true;
}

/* The outermost part's header is the message's, which has been split. */
static bool split(struct part *p, struct str block, struct header *h, struct arena *a)
{
        const struct header *known = &p->m->h;

        if (known->block.p != block.p || known->block.n != block.n)
                return header_split(h, block, &p->m->lim, a);
        *h = *known;
        return true;
}

static bool read_facts(struct part *p, struct str block, struct arena *a)
{
        struct params type = { 0 }, disposition = { 0 };
        struct header h = { 0 };

        if (!split(p, block, &h, a) || !read_params(p, &h, STR("content-type"), &type, a))
                return false;
        set_charset(p, &type);
        if (!read_params(p, &h, STR("content-disposition"), &disposition, a))
                return false;
        p->flowed = str_eq_nocase(params_value(&type, STR("format")), STR("flowed"));
        p->delsp = str_eq_nocase(params_value(&type, STR("delsp")), STR("yes"));
        p->disposition = kept_lower(p->m, disposition.value); /* a field that says nothing is empty, not absent */
        read_id(p, &h, a);
        return read_names(p, &h, &type, &disposition, a);
}

/* For its 8-bit bytes other parts may be asked, whose headers are read to the same place. */
static bool keep_block(struct message *m, struct str *block, struct arena *a)
{
        if (block->p != m->head.p || utf8_valid(*block))
                return true;
        *block = arena_str(a, *block);
        return block->p != NULL;
}

static bool is_half_of_apple_double(const struct part *p)
{
        return p->parent && p->parent->mime && str_eq(p->parent->mime->type, STR("multipart/appledouble"));
}

/* RFC 1740 5: the file of a Macintosh goes in two parts, and its name may stand at the other, or at both together. */
static void borrow_name(struct part *p)
{
        struct part *first = p->parent->child;

        if (first == p || !str_eq(first->mime->type, STR("application/applefile")))
                return;
        p->name = part_name(first);
        if (!p->name.p)
                p->name = part_name(p->parent);
}

/* In an arena of its own, like the structure's: only what is kept is copied. */
static void need_facts(struct part *p)
{
        struct arena *a;
        struct str block;

        p->m->asked |= ASKED_FACTS;
        if (p->facts_read || !p->mime)
                return;
        p->facts_read = true;
        a = arena_new(0);
        if (!a || (message_block(p->m, p->header, &block) && !(keep_block(p->m, &block, a) && read_facts(p, block, a))))
                message_nomem(p->m);
        arena_free(a);
        if (!p->name.p && is_half_of_apple_double(p))
                borrow_name(p);
}

/* The whole message has the charset, disposition and so on of nothing: they belong to its outermost part. */
struct str part_charset(struct part *p)
{
        need_facts(p);
        return p->charset;
}

struct str part_disposition(struct part *p)
{
        need_facts(p);
        return p->disposition;
}

struct str part_name(struct part *p)
{
        need_facts(p);
        return p->name;
}

size_t part_names(struct part *p, struct str **out)
{
        need_facts(p);
        *out = p->names ? p->names : &p->name; /* what was found in a wrapper has one at most */
        return p->names ? p->names_n : p->name.p != NULL;
}

struct str part_id(struct part *p)
{
        need_facts(p);
        return p->id;
}

static struct str find_field(struct part *p, struct str block, struct str name, struct arena *a)
{
        struct header h = { 0 };
        const struct field *f;
        struct str s;

        if (!split(p, block, &h, a)) {
                message_nomem(p->m);
                return STR_NONE;
        }
        f = header_find(&h, name);
        if (!f)
                return STR_NONE;
        s = message_decode(p->m, f->raw, a);
        return s.p ? arena_str(p->m->a, s) : s;
}

struct str part_field(struct part *p, struct str name)
{
        struct str block, s = STR_NONE;
        struct arena *a;

        if (!p->mime)
                return message_field(p->m, name);
        a = arena_new(0);
        if (!a)
                message_nomem(p->m);
        else if (message_block(p->m, p->header, &block))
                s = find_field(p, block, name, a);
        arena_free(a);
        return s;
}

/* Reads all decoded bytes, into d unless it is NULL; counts them; closes r, which may be NULL. */
static bool read_through(struct reader *r, struct digest *d, uint64_t *count, struct err *e)
{
        char block[COUNT_BYTES];
        ssize_t n = -1;

        *count = 0;
        while (r && (n = reader_read(r, block, sizeof block, e)) > 0) {
                *count += (uint64_t)n;
                if (d)
                        digest_add(d, block, (size_t)n);
        }
        reader_close(r);
        return n == 0;
}

static bool size_is_length(const struct part *p)
{
        return !p->mime || p->mime->kind != MIME_LEAF || p->mime->encoding == MIME_IDENTITY ||
               p->mime->encoding == MIME_UNKNOWN;
}

uint64_t part_size(struct part *p)
{
        struct err e;

        if (size_is_length(p))
                return p->body.n;
        p->m->asked |= ASKED_SIZES;
        if (!p->size_known && !read_through(part_open(p, &e), NULL, &p->size, &e)) {
                message_fail(p->m, &e);
                p->size = 0;
        }
        p->size_known = true;
        return p->size;
}

uint64_t part_encoded_size(struct part *p)
{
        return p->body.n;
}

bool part_sha256(struct part *p, uint8_t out[32], struct err *e)
{
        struct digest *d;

        if (!p->mime)
                return message_hash(p->m, out, e);
        if (!p->hashed) {
                d = digest_new();
                if (!d)
                        return err_nomem(e);
                p->hashed = p->size_known = read_through(part_open(p, e), d, &p->size, e);
                digest_end(d, p->hash);
        }
        memcpy(out, p->hash, 32);
        return p->hashed;
}

bool part_sha256_aside(const struct part *p, uint8_t out[32], struct err *e)
{
        struct digest *d;
        uint64_t count;
        bool ok;

        if (p->hashed) {
                memcpy(out, p->hash, 32);
                return true;
        }
        d = digest_new();
        if (!d)
                return err_nomem(e);
        ok = read_through(reader_aside(p, e), d, &count, e);
        digest_end(d, out);
        return ok;
}

static void detect(struct part *p)
{
        struct buf b = BUF_INIT;
        struct err e;
        struct reader *r = part_open(p, &e);
        struct str type = STR_NONE;
        ssize_t n = r ? 1 : -1;

        if (r && !buf_reserve(&b, SNIFF_BYTES)) {
                err_nomem(&e);
                n = -1;
        }
        while (n > 0 && b.n < SNIFF_BYTES) {
                n = reader_read(r, b.p + b.n, SNIFF_BYTES - b.n, &e);
                b.n += n > 0 ? (size_t)n : 0;
        }
        reader_close(r);
        if (n >= 0)
                type = sniff(buf_str(&b), p->m->a, &e);
        if (!type.p)
                message_fail(p->m, &e);
        p->detected = type.p ? type : STR("");
        buf_free(&b);
}

struct str part_detected(struct part *p)
{
        if (part_is_container(p) || !part_readable(p, NULL))
                return STR("");
        if (!p->detected.p)
                detect(p);
        return p->detected;
}
