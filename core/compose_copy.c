/* Copies of a message: as it is, with header fields changed, with saved parts replaced by stubs. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/compose_int.h"
#include "core/mem.h"
#include "core/words.h"

enum { STUB_NAME_MAX = 255, PATH_MAX_BYTES = 4096 };

/* ---- segments ---- */

struct segment *segments_add(struct segments *s)
{
        static _Thread_local struct segment spare;
        struct segment *g = arena_alloc(s->arena, sizeof *g);

        if (!g) {
                s->failed = true;
                return &spare;
        }
        if (s->last)
                s->last->next = g;
        else
                s->first = g;
        s->last = g;
        return g;
}

void segments_text(struct segments *s, struct str text)
{
        if (!text.p)
                s->failed = true;
        else if (text.n)
                segments_add(s)->text = text;
}

void segments_printf(struct segments *s, const char *fmt, ...)
{
        char small[512];
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(small, sizeof small, fmt, ap);
        va_end(ap);
        if (n < 0 || (size_t)n >= sizeof small)
                s->failed = true;
        else
                segments_text(s, arena_str(s->arena, str_make(small, (size_t)n)));
}

void segments_folded(struct segments *s, struct str text)
{
        char *p = arena_dup(s->arena, text.p ? text.p : "", text.n);
        size_t n = 0;

        s->failed = s->failed || !p || !text.p;
        for (size_t i = 0; p && i < text.n; i++)
                if (p[i] != '\r')
                        p[n++] = p[i];
        if (p && n)
                segments_text(s, str_make(p, n));
}

struct str segments_one_line(struct segments *s, struct str text, size_t max)
{
        char *p = arena_dup(s->arena, text.p ? text.p : "", text.n < max ? text.n : max);
        size_t n = text.n < max ? text.n : max;

        while (n < text.n && n > 0 && ((unsigned char)text.p[n] & 0xc0) == 0x80)
                n--;
        s->failed = s->failed || !p;
        for (size_t i = 0; p && i < n; i++)
                if ((unsigned char)p[i] < ' ' || p[i] == 0x7f)
                        p[i] = ' ';
        return p ? str_make(p, n) : STR_NONE;
}

/* RFC 2045 5.1: token "/" token. */
struct str segments_type(struct str type)
{
        size_t slash = str_find(type, '/');

        for (size_t i = 0; i < type.n; i++)
                if (type.p[i] <= ' ' || type.p[i] >= 0x7f || memchr("()<>@,;:\\\"[]?=", type.p[i], 15) || (type.p[i] == '/' && i != slash))
                        return STR("application/octet-stream");
        return slash > 0 && slash + 1 < type.n && type.n < 200 ? type : STR("application/octet-stream");
}

void segments_range(struct segments *s, struct range r)
{
        if (r.n)
                segments_add(s)->range = r;
}

static bool is_field_name(struct str name)
{
        for (size_t i = 0; i < name.n; i++)
                if (name.p[i] <= ' ' || name.p[i] == ':' || name.p[i] >= 0x7f) /* RFC 5322 2.2 */
                        return false;
        return name.n > 0 && name.n <= 76;
}

bool segments_field(struct segments *s, struct str name, struct str utf8, struct err *e)
{
        if (!is_field_name(name))
                return err_set(e, ERR_USAGE, "\"%.*s\" is no header field name (RFC 5322 2.2)", STR_FMT(name));
        for (size_t i = 0; i < utf8.n; i++)
                if (utf8.p[i] == '\r' || utf8.p[i] == '\n' || utf8.p[i] == 0)
                        return err_set(e, ERR_USAGE, "the value of the header field %.*s holds a line end or NUL", STR_FMT(name));
        segments_text(s, name);
        segments_text(s, STR(": "));
        segments_folded(s, words_encode(utf8, false, name.n + 2, s->arena));
        segments_text(s, STR("\n"));
        return !s->failed || err_nomem(e);
}

/* ---- copies ---- */

struct mail_stream *compose_as_is(struct message *m, struct arena *a, struct err *e)
{
        struct segments s = { .arena = a };

        segments_range(&s, message_range(m));
        if (s.failed) {
                err_nomem(e);
                return NULL;
        }
        return mail_stream_new(s.first, a, e);
}

struct mail_stream *compose_part(struct part *p, struct arena *a, struct err *e)
{
        struct segments s = { .arena = a };

        segments_add(&s)->part = p;
        if (s.failed) {
                err_nomem(e);
                return NULL;
        }
        return mail_stream_new(s.first, a, e);
}

static bool is_changed(struct str name, const struct compose_field *fields)
{
        for (; fields; fields = fields->next)
                if (str_eq_nocase(name, fields->name))
                        return true;
        return false;
}

/* The header block of the message, read whole: it is bounded by what a message's header may be. */
static struct str read_block(struct message *m, struct range header, struct arena *a, struct err *e)
{
        struct str s;
        char *p;
        ssize_t n;
        uint64_t done = 0;

        if (range_in_memory(header, &s))
                return s;
        p = arena_alloc(a, (size_t)header.n + 1);
        if (!p) {
                err_nomem(e);
                return STR_NONE;
        }
        while (done < header.n) {
                n = range_read(header, done, p + done, (size_t)(header.n - done), e);
                if (n <= 0) {
                        if (n == 0)
                                err_set(e, ERR_IO, "the message became shorter while it was read");
                        return STR_NONE;
                }
                done += (uint64_t)n;
        }
        return str_make(p, (size_t)done);
}

static bool is_content_field(struct str name)
{
        return str_starts_nocase(name, STR("Content-"));
}

/* Field by field, so that what is not changed stays to the byte. drop_content: the body is replaced as well. */
static bool copy_header(struct segments *s, struct str block, const struct compose_field *fields, bool drop_content, struct err *e)
{
        bool dropping = false;

        while (block.n > 0) {
                const char *begin = block.p;
                struct str line = str_take(&block, '\n');
                struct str whole = str_make(begin, (size_t)(block.p - begin));

                if (line.n == 0 || !ascii_is_blank(line.p[0])) {
                        struct str name = str_trim_right(str_first(line, str_find(line, ':')));

                        dropping = is_changed(name, fields) || (drop_content && is_content_field(name));
                }
                if (!dropping)
                        segments_text(s, whole);
                if (!dropping && whole.n == line.n) /* the header was cut off in its last line */
                        segments_text(s, STR("\n"));
        }
        for (const struct compose_field *f = fields; f; f = f->next)
                if (f->value.p && !segments_field(s, f->name, f->value, e))
                        return false;
        return true;
}

static void add_stub(struct segments *s, const struct compose_stub *stub)
{
        struct str name = part_name(stub->part);

        segments_text(s, STR("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n["));
        segments_text(s, name.n ? segments_one_line(s, name, STUB_NAME_MAX) : STR("attachment"));
        segments_text(s, STR(", "));
        segments_text(s, segments_type(part_type(stub->part)));
        segments_printf(s, ", %llu bytes, was saved as ", (unsigned long long)part_size(stub->part));
        segments_text(s, segments_one_line(s, stub->path, PATH_MAX_BYTES));
        segments_text(s, STR("]"));
}

static int by_place(const void *a, const void *b)
{
        const struct compose_stub *const *x = a, *const *y = b;
        uint64_t p = part_entity((*x)->part).at, q = part_entity((*y)->part).at;

        return p < q ? -1 : p > q;
}

static const struct compose_stub **sorted(const struct compose_stub *stubs, struct message *m, size_t *n, struct arena *a, struct err *e)
{
        const struct compose_stub **list;

        *n = 0;
        for (const struct compose_stub *s = stubs; s; s = s->next)
                ++*n;
        list = arena_alloc(a, (*n + 1) * sizeof *list);
        if (!list) {
                err_nomem(e);
                return NULL;
        }
        *n = 0;
        for (const struct compose_stub *s = stubs; s; s = s->next) {
                if (part_is_wrapped(s->part)) {
                        err_set(e, ERR_USAGE, "part %.*s cannot be detached: it lies inside a wrapper", STR_FMT(part_path(s->part)));
                        return NULL;
                }
                list[(*n)++] = s;
        }
        qsort(list, *n, sizeof *list, by_place);
        return list;
}

/* The body with each stubbed part's entity replaced; what lies inside a replaced one is gone with it. */
static bool copy_body(struct segments *s, struct message *m, uint64_t at, const struct compose_stub *stubs, struct err *e)
{
        struct range all = message_range(m);
        size_t n;
        const struct compose_stub **list = sorted(stubs, m, &n, s->arena, e);

        if (!list)
                return false;
        for (size_t i = 0; i < n; i++) {
                struct range entity = part_entity(list[i]->part);
                uint64_t begin = entity.at - all.at;

                if (begin < at)
                        continue;
                segments_range(s, range_sub(all, at, begin - at));
                add_stub(s, list[i]);
                at = begin + entity.n;
        }
        segments_range(s, range_sub(all, at, all.n));
        return true;
}

struct mail_stream *compose_copy(struct message *m, const struct compose_field *fields, const struct compose_stub *stubs,
                                 struct arena *a, struct err *e)
{
        struct segments s = { .arena = a };
        struct range all = message_range(m), body;
        struct part **outermost; /* the message as an entity; its root part is header and body in one */
        uint64_t body_at;
        struct str block;
        bool whole = false;

        if (!message_parse(m, e))
                return NULL;
        if (part_children(message_root(m), &outermost) == 0)
                return err_nomem(e), NULL;
        body = part_raw(outermost[0]);
        body_at = body.at - all.at;
        block = read_block(m, range_sub(all, 0, body_at), a, e);
        if (!block.p && body_at)
                return NULL;
        while (block.n && block.p[block.n - 1] == '\n' && (block.n == 1 || block.p[block.n - 2] == '\n'))
                block.n--; /* the empty line is written anew */
        for (const struct compose_stub *t = stubs; t; t = t->next)
                whole = whole || part_raw(t->part).at == body.at;
        if (!copy_header(&s, block, fields, whole, e))
                return NULL;
        if (whole) { /* the body itself was saved: the stub's own fields end the header */
                add_stub(&s, stubs);
                segments_text(&s, STR("\n"));
        } else {
                segments_text(&s, STR("\n"));
                if (!copy_body(&s, m, body_at, stubs, e))
                        return NULL;
        }
        if (s.failed) {
                err_nomem(e);
                return NULL;
        }
        return mail_stream_new(s.first, a, e);
}
