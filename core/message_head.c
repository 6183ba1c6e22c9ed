/* What a message's own header says. Only its header block is read for this. */
#include "core/message_int.h"

#include "core/charset.h"
#include "core/date.h"
#include "core/mem.h"
#include "core/words.h"

enum { HEAD_STEP = 16 * 1024, IDS_MAX = 1000 /* longer threads exist only in attacks */ };

bool message_block(struct message *m, struct range header, struct str *out)
{
        struct err e;
        ssize_t n;

        if (header.n > m->lim.header_block)
                header.n = m->lim.header_block;
        if (range_in_memory(header, out))
                return true;
        buf_clear(&m->head);
        *out = STR("");
        if (!buf_reserve(&m->head, header.n)) {
                message_nomem(m);
                return false;
        }
        n = range_read(header, 0, m->head.p, header.n, &e);
        if (n < 0) {
                message_fail(m, &e);
                return false;
        }
        m->head.n = (size_t)n;
        *out = buf_str(&m->head);
        return true;
}

/* Finds the header at the beginning of the file, reading more and more of it. The bytes go into the arena. */
static bool block_of_file(struct message *m, struct str *out)
{
        uint64_t most = m->lim.header_block + 1, size = HEAD_STEP;
        struct buf b = BUF_INIT;
        bool ended = false, ok = true;
        struct err e;

        err_nomem(&e);
        for (; ok && !ended && b.n < most && b.n < m->r.n; size *= 2) {
                uint64_t want = (size < most ? size : most) - b.n;
                ssize_t n;

                ok = buf_reserve(&b, want);
                n = ok ? range_read(m->r, b.n, b.p + b.n, want, &e) : 0;
                ok = ok && n >= 0;
                b.n += ok ? (size_t)n : 0;
                out->n = mime_header_size(buf_str(&b), &ended);
        }
        if (ok)
                *out = arena_str(m->a, str_make(b.p, out->n));
        ok = ok && out->p;
        buf_free(&b);
        if (!ok)
                message_fail(m, &e);
        return ok;
}

static bool find_block(struct message *m, struct str *out)
{
        struct str bytes;
        bool ended;

        out->n = 0;
        if (!range_in_memory(m->r, &bytes))
                return block_of_file(m, out);
        bytes = str_first(bytes, m->lim.header_block + 1);
        *out = str_first(bytes, mime_header_size(bytes, &ended));
        return true;
}

/* Once m->h is there. */
static bool make_slots(struct message *m)
{
        m->decoded = arena_alloc(m->a, (m->h.count + 1) * sizeof *m->decoded);
        if (!m->decoded) {
                memset(&m->h, 0, sizeof m->h);
                message_nomem(m);
        }
        return m->decoded;
}

void message_take_header(struct message *m, const struct header *h)
{
        if (m->header_read || !h->block.p)
                return;
        m->header_read = true;
        m->h = *h;
        make_slots(m);
}

bool message_need_header(struct message *m)
{
        struct str block;

        if (m->header_read)
                return m->h.block.p != NULL;
        m->header_read = true;
        if (!find_block(m, &block)) {
                memset(&m->h, 0, sizeof m->h);
                return false;
        }
        if (block.n > m->lim.header_block) {
                message_add_defect(m, "limit.header");
                block.n = m->lim.header_block;
        }
        if (header_split(&m->h, block, &m->lim, m->a))
                return make_slots(m);
        memset(&m->h, 0, sizeof m->h);
        message_nomem(m);
        return false;
}

/* The charset of the first text that names one. */
static struct str text_charset(struct message *m)
{
        enum { LOOKED_AT = 8 };
        struct part **leaves;
        size_t n = message_leaves(m, &leaves);

        for (size_t i = 0; i < n && i < LOOKED_AT; i++)
                if (str_starts(part_type(leaves[i]), STR("text/")) && !str_eq(part_charset(leaves[i]), STR("us-ascii")))
                        return part_charset(leaves[i]);
        return STR_NONE;
}

/* Does the charset leave ASCII alone, which parts and quotes a field? */
static bool keeps_ascii(struct message *m, struct str charset)
{
        static const char ascii[] = "\"(),:;<=>?@[\\]_a0";
        struct buf b = BUF_INIT;
        bool same = charset_to_utf8(charset, str_of(ascii), &b, NULL, NULL) && str_eq(buf_str(&b), str_of(ascii));

        if (b.failed)
                message_nomem(m);
        buf_free(&b);
        return same;
}

/* Only where the charset fits; else the bytes are the reader's to guess. */
struct str message_from_8bit(struct message *m, struct str raw, struct str charset, struct arena *a)
{
        struct buf b = BUF_INIT;
        struct str out = raw;
        bool bad = false, unknown = false;

        if (message_has_shifts(raw) && str_find_str(raw, STR("=?")) == raw.n)
                charset = STR("iso-2022-jp"); /* mail before encoded-words; quotes and backslashes may be halves of characters */
        else if (utf8_valid(raw))
                return raw;
        if (charset.n == 0 || str_eq(charset, STR("us-ascii")))
                charset = text_charset(m);
        if (charset.n == 0 || str_starts(charset, STR("utf")) || str_eq(charset, STR("iso-8859-1")))
                return raw; /* not UTF-8, as we know; and words.c takes the other for what it mostly is */
        if (keeps_ascii(m, charset) && charset_to_utf8(charset, raw, &b, &bad, &unknown) && !bad && !unknown) {
                message_add_defect(m, "charset.guessed");
                out = arena_str(a, buf_str(&b));
        }
        if (b.failed || !out.p)
                message_nomem(m);
        buf_free(&b);
        return out.p ? out : raw;
}

struct str message_decode(struct message *m, struct str raw, struct arena *a)
{
        unsigned defects = 0;
        struct str s;

        if (raw.n > m->lim.header_field) {
                message_add_defect(m, "limit.header");
                raw.n = m->lim.header_field;
        }
        s = header_unfold(message_from_8bit(m, raw, STR_NONE, a), a);
        s = s.p ? words_decode(s, STR(""), &m->lim, &defects, a) : s;
        if (!s.p)
                message_nomem(m);
        if (defects & WORDS_BAD)
                message_add_defect(m, "syntax.words");
        if (defects & WORDS_CHARSET)
                message_add_defect(m, "charset.unknown");
        if (defects & WORDS_LIMIT)
                message_add_defect(m, "limit.words");
        return s;
}

static struct str decoded(struct message *m, const struct field *f)
{
        struct str *slot = &m->decoded[f - m->h.fields];

        if (!slot->p)
                *slot = message_decode(m, f->raw, m->a);
        return *slot;
}

static const struct field *find(struct message *m, struct str name)
{
        return message_need_header(m) ? header_find(&m->h, name) : NULL;
}

static size_t count(struct message *m, struct str name)
{
        size_t n = 0;

        for (const struct field *f = find(m, name); f; f = header_find_after(&m->h, name, f))
                n++;
        return n;
}

struct str message_field(struct message *m, struct str name)
{
        const struct field *f = find(m, name);

        return f ? decoded(m, f) : STR_NONE;
}

struct str message_subject(struct message *m)
{
        struct str s = message_field(m, STR("subject"));

        m->asked |= ASKED_SUBJECT;
        return s.p ? s : STR("");
}

/* The memo of (kind, name), made when it is new (*fresh). NULL when out of memory. */
static struct memo *recall(struct message *m, char kind, struct str name, bool *fresh)
{
        struct memo *o;

        *fresh = false;
        for (o = m->memos; o; o = o->next)
                if (o->kind == kind && str_eq_nocase(o->name, name))
                        return o;
        o = arena_alloc(m->a, sizeof *o);
        if (o)
                o->name = arena_str(m->a, name);
        if (!o || !o->name.p) {
                message_nomem(m);
                return NULL;
        }
        o->kind = kind;
        o->next = m->memos;
        m->memos = o;
        *fresh = true;
        return o;
}

static void list_fields(struct message *m, struct memo *o)
{
        struct str *list = arena_alloc(m->a, (count(m, o->name) + 1) * sizeof *list);

        if (!list) {
                message_nomem(m);
                return;
        }
        for (const struct field *f = find(m, o->name); f; f = header_find_after(&m->h, o->name, f)) {
                struct str s = decoded(m, f);

                list[o->n++] = s.p ? s : STR("");
        }
        o->list = list;
}

size_t message_fields(struct message *m, struct str name, struct str **out)
{
        bool fresh;
        struct memo *o = recall(m, 'f', name, &fresh);

        if (o && fresh)
                list_fields(m, o);
        *out = o ? o->list : NULL;
        return o && o->list ? o->n : 0;
}

static struct addr *parse_addresses(struct message *m, struct str raw)
{
        unsigned defects = 0;
        struct addr *first;

        if (raw.n > m->lim.header_field) /* addr_parse cuts it, where an address ends */
                message_add_defect(m, "limit.header");
        first = addr_parse(message_from_8bit(m, raw, STR_NONE, m->a), &m->lim, &defects, m->a);
        if (defects & ADDR_SYNTAX)
                message_add_defect(m, "syntax.address");
        if (defects & ADDR_LIMIT)
                message_add_defect(m, "limit.addresses");
        if (defects & ADDR_CHARSET)
                message_add_defect(m, "charset.unknown");
        return first;
}

static unsigned asked_bit(struct str field)
{
        return str_eq_nocase(field, STR("From")) ? ASKED_FROM
             : str_eq_nocase(field, STR("To"))   ? ASKED_TO
             : str_eq_nocase(field, STR("Cc"))   ? ASKED_CC
                                                 : 0;
}

/* All fields of the name in one list; the limit holds for all of them together. */
static void list_addresses(struct message *m, struct memo *o)
{
        struct addr *first = NULL, **end = &first;
        size_t n = 0;

        for (const struct field *f = find(m, o->name); f; f = header_find_after(&m->h, o->name, f)) {
                if (n >= m->lim.addresses) {
                        message_add_defect(m, "limit.addresses");
                        break;
                }
                for (*end = parse_addresses(m, f->raw); *end; end = &(*end)->next)
                        n++;
        }
        o->list = first;
        o->asked = asked_bit(o->name);
}

const struct addr *message_addresses(struct message *m, struct str field)
{
        bool fresh;
        struct memo *o = recall(m, 'a', field, &fresh);

        if (o && fresh)
                list_addresses(m, o);
        if (o)
                m->asked |= o->asked;
        return o ? o->list : NULL;
}

/* Of a Received field: its date stands behind the last ';'. */
static bool received_date(struct message *m, int64_t *t)
{
        const struct field *f = find(m, STR("received"));
        size_t at = f ? str_rfind(f->raw, ';') : 0;

        return f && at < f->raw.n && date_parse(str_from(f->raw, at + 1), t, NULL);
}

static int64_t find_date(struct message *m)
{
        const struct field *f = find(m, STR("date"));
        int64_t t;

        if (f && date_parse(f->raw, &t, NULL))
                return t;
        if (received_date(m, &t)) {
                message_add_defect(m, "date.from.received");
                return t;
        }
        message_add_defect(m, m->o.time ? "date.from.source" : "date.from.fetch");
        return m->o.time ? m->o.time : m->o.fetched;
}

int64_t message_date(struct message *m)
{
        m->asked |= ASKED_DATE;
        if (!m->date_known)
                m->date = find_date(m);
        m->date_known = true;
        return m->date;
}

int64_t message_received(struct message *m)
{
        int64_t t;

        if (received_date(m, &t))
                return t;
        return m->o.time ? m->o.time : m->o.fetched;
}

unsigned message_received_count(struct message *m)
{
        size_t n = count(m, STR("received"));

        if (n > m->lim.received)
                message_add_defect(m, "received.loop");
        return (unsigned)n;
}

struct str message_envelope_to(struct message *m)
{
        static const struct str fields[] = { { "delivered-to", 12 }, { "x-original-to", 13 }, { "envelope-to", 11 } };

        if (m->o.envelope_to.n)
                return m->o.envelope_to;
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
                const struct addr *a = message_addresses(m, fields[i]);

                if (a && a->addr.n)
                        return a->addr;
        }
        return STR_NONE;
}

/* The next identifier: what stands in <>, or, where nothing does, the next word. */
static bool next_id(struct str *rest, bool angles, struct str *id)
{
        size_t at;

        if (!angles) {
                *rest = str_trim(*rest);
                for (at = 0; at < rest->n && !ascii_is_space(rest->p[at]) && rest->p[at] != ','; at++)
                        ;
                *id = str_first(*rest, at);
                *rest = str_from(*rest, at + 1);
                return rest->n || id->n;
        }
        at = str_find(*rest, '<');
        *rest = str_from(*rest, at + 1);
        at = str_find(*rest, '>');
        *id = str_trim(str_first(*rest, at));
        if (at == rest->n)
                return false;
        *rest = str_from(*rest, at + 1);
        return true;
}

struct str message_utf8(struct message *m, struct str s)
{
        struct buf clean = BUF_INIT;

        if (utf8_valid(s))
                return s;
        s = utf8_clean(s, &clean) ? arena_str(m->a, buf_str(&clean)) : STR_NONE;
        buf_free(&clean);
        if (!s.p)
                message_nomem(m);
        return s;
}

static size_t read_ids(struct message *m, struct str raw, struct str *list, size_t n)
{
        struct str rest = header_unfold(str_first(raw, m->lim.header_field), m->a), id;
        bool angles = str_find(rest, '<') < rest.n;

        while (n < IDS_MAX && next_id(&rest, angles, &id))
                if (id.n)
                        list[n++] = message_utf8(m, id);
        return n;
}

static void list_ids(struct message *m, struct memo *o)
{
        struct str found[IDS_MAX];

        for (const struct field *f = find(m, o->name); f; f = header_find_after(&m->h, o->name, f))
                o->n = read_ids(m, f->raw, found, o->n);
        o->list = arena_alloc(m->a, (o->n + 1) * sizeof *found);
        if (o->list)
                memcpy(o->list, found, o->n * sizeof *found);
        else
                message_nomem(m);
}

size_t message_ids(struct message *m, struct str field, struct str **out)
{
        bool fresh;
        struct memo *o;

        *out = NULL;
        if (!find(m, field))
                return 0;
        o = recall(m, 'i', field, &fresh);
        if (o && fresh)
                list_ids(m, o);
        *out = o ? o->list : NULL;
        return o && o->list ? o->n : 0;
}

struct str message_id(struct message *m)
{
        struct str *ids;
        size_t n = message_ids(m, STR("message-id"), &ids);

        m->asked |= ASKED_ID;
        if (n == 0 && find(m, STR("message-id")))
                message_add_defect(m, "syntax.id");
        return n ? ids[0] : STR_NONE;
}

/* RFC 2919: a phrase, then the identifier in <>; lists that write it bare exist. */
static struct str find_list_id(struct message *m)
{
        struct str s = message_field(m, STR("list-id"));
        size_t open = str_rfind(s, '<'), close;
        char *lower;

        if (!s.p)
                return STR_NONE;
        if (open < s.n) {
                s = str_from(s, open + 1);
                close = str_find(s, '>');
                s = str_first(s, close);
        }
        s = str_trim(s);
        lower = arena_dup(m->a, s.p, s.n);
        for (size_t i = 0; lower && i < s.n; i++)
                lower[i] = ascii_lower(lower[i]);
        return lower && s.n ? str_make(lower, s.n) : STR_NONE;
}

struct str message_list_id(struct message *m)
{
        if (!m->list_id_known)
                m->list_id = find_list_id(m);
        m->list_id_known = true;
        return m->list_id;
}
