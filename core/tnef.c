/* The attribute stream of TNEF, and the property lists inside two of its attributes. */
#include "core/tnef.h"

#include "core/charset.h"
#include "core/mem.h"

#include <stdio.h>

enum {
        SIGNATURE = 0x223e9f78,
        STREAM_HEADER = 6,      /* signature, key */
        NAME_BYTES_MAX = 4096,  /* of a name, a type, an identifier */
        DEFAULT_CODEPAGE = 1252,
};

/* The lower half of an attribute's number; the upper half says how its data is coded, and writers disagree there. */
enum attribute_id {
        ATTACH_START = 0x9002,
        ATTACH_DATA = 0x800f,
        ATTACH_TITLE = 0x8010,
        ATTACH_TRANSPORT_NAME = 0x9001,
        ATTACH_PROPERTIES = 0x9005,
        MESSAGE_PROPERTIES = 0x9003,
        MESSAGE_BODY = 0x800c,
        MESSAGE_CODEPAGE = 0x9007,
};

enum property_id {
        PR_BODY = 0x1000,
        PR_RTF_COMPRESSED = 0x1009,
        PR_HTML = 0x1013,
        PR_DISPLAY_NAME = 0x3001,
        PR_ATTACH_DATA = 0x3701,
        PR_ATTACH_FILENAME = 0x3704,
        PR_ATTACH_LONG_FILENAME = 0x3707,
        PR_ATTACH_MIME_TAG = 0x370e,
        PR_ATTACH_CONTENT_ID = 0x3712,
        PR_INTERNET_CODEPAGE = 0x3fde,
};

enum property_type {
        PT_NONE = 0x00,
        PT_NULL = 0x01,
        PT_LONG = 0x03,
        PT_DOUBLE = 0x05,
        PT_CURRENCY = 0x06,
        PT_APPTIME = 0x07,
        PT_OBJECT = 0x0d,
        PT_I8 = 0x14,
        PT_STRING8 = 0x1e,
        PT_UNICODE = 0x1f,
        PT_SYSTIME = 0x40,
        PT_CLSID = 0x48,
        PT_BINARY = 0x102,
        PT_MANY = 0x1000,       /* a flag: several values */
        NAMED = 0x8000,         /* an identifier from here on is followed by a name */
        GUID_BYTES = 16,
};

struct attribute {
        unsigned level, id;
        struct str data;
};

struct property {
        unsigned id, type;      /* without PT_MANY */
        struct str value;       /* the first one */
};

/* Where names of the file in hand came from: the better replaces the worse. */
enum rank { NO_NAME, BY_DISPLAY, BY_TRANSPORT, BY_TITLE, BY_SHORT, BY_LONG };

struct parser {
        struct tnef *t;
        struct arena *a;
        struct tnef_file **tail, *file;
        enum rank named;
        bool from_object;       /* file->data is a property's object, which attAttachData does not replace */
        unsigned files_max, codepage, html_codepage;
        bool nomem;
};

static uint32_t peek32(struct str s)
{
        const unsigned char *p = (const unsigned char *)s.p;

        return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool take32(struct str *s, uint32_t *v)
{
        if (s->n < 4)
                return false;
        *v = peek32(*s);
        *s = str_from(*s, 4);
        return true;
}

static bool take_bytes(struct str *s, size_t n, struct str *out)
{
        if (s->n < n)
                return false;
        *out = str_first(*s, n);
        *s = str_from(*s, n);
        return true;
}

/* n bytes, and what fills the last four; the very last may lack its filling. */
static bool take_padded(struct str *s, size_t n, struct str *out)
{
        if (!take_bytes(s, n, out))
                return false;
        *s = str_from(*s, (4 - n % 4) % 4);
        return true;
}

bool tnef_is(struct str in)
{
        return in.n >= STREAM_HEADER && peek32(in) == SIGNATURE;
}

static bool checksum_fits(struct str data, struct str sum)
{
        unsigned n = 0;

        for (size_t i = 0; i < data.n; i++)
                n += (unsigned char)data.p[i];
        return (n & 0xffff) == ((unsigned)(unsigned char)sum.p[0] | (unsigned)(unsigned char)sum.p[1] << 8);
}

/* False at the end, and at what is no attribute. */
static bool take_attribute(struct str *rest, struct attribute *at, struct tnef *t)
{
        uint32_t id, n;
        struct str sum;

        if (rest->n == 0)
                return false;
        at->level = (unsigned char)rest->p[0];
        if (at->level != 1 && at->level != 2) {
                t->broken = true;
                return false;
        }
        *rest = str_from(*rest, 1);
        if (!take32(rest, &id) || !take32(rest, &n) || !take_bytes(rest, n, &at->data)) {
                t->broken = t->cut = true;
                return false;
        }
        at->id = id & 0xffff;
        if (!take_bytes(rest, 2, &sum)) {
                t->broken = true;
                *rest = STR_NONE;
        } else if (!checksum_fits(at->data, sum)) {
                t->bad_checksum = true;
        }
        return true;
}

/* ---- text ---- */

/* The charset behind a codepage's number; empty for none. */
static void charset_name(unsigned codepage, char out[24])
{
        static const struct { unsigned codepage; const char *name; } known[] = {
                { 932, "shift_jis" }, { 936, "gbk" }, { 949, "euc-kr" }, { 950, "big5" }, { 1200, "utf-16le" }, { 10000, "macintosh" },
                { 20127, "us-ascii" }, { 20866, "koi8-r" }, { 20932, "euc-jp" }, { 21866, "koi8-u" }, { 50220, "iso-2022-jp" },
                { 50221, "iso-2022-jp" }, { 50222, "iso-2022-jp" }, { 50225, "iso-2022-kr" }, { 51932, "euc-jp" }, { 51949, "euc-kr" },
                { 54936, "gb18030" }, { 65000, "utf-7" }, { 65001, "utf-8" },
        };

        out[0] = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                if (known[i].codepage == codepage)
                        snprintf(out, 24, "%s", known[i].name);
        if (codepage >= 28591 && codepage <= 28605)
                snprintf(out, 24, "iso-8859-%u", codepage - 28590);
        else if (codepage >= 1250 && codepage <= 1258)
                snprintf(out, 24, "windows-%u", codepage);
        else if (!out[0] && codepage > 0 && codepage < 2000)
                snprintf(out, 24, "cp%u", codepage);
}

static struct str without_nuls(struct str s, bool wide)
{
        if (wide)
                while (s.n >= 2 && s.p[s.n - 1] == 0 && s.p[s.n - 2] == 0)
                        s.n -= 2;
        else
                while (s.n > 0 && s.p[s.n - 1] == 0)
                        s.n--;
        return s;
}

/* A short text as UTF-8, in the arena; {NULL,0} when empty. */
static struct str text_of(struct parser *p, struct str raw, bool wide)
{
        struct buf b = BUF_INIT;
        struct str s = STR_NONE;
        char name[24];

        raw = without_nuls(str_first(raw, NAME_BYTES_MAX), wide && raw.n % 2 == 0);
        if (raw.n == 0)
                return s;
        charset_name(p->codepage, name);
        if (charset_to_utf8(wide ? STR("utf-16le") : str_of(name), raw, &b, NULL, NULL))
                s = arena_str(p->a, buf_str(&b));
        if (!s.p)
                p->nomem = true;
        buf_free(&b);
        return s.n ? s : STR_NONE; /* shifts or a byte order mark alone are no text */
}

static struct str text_value(struct parser *p, const struct property *v)
{
        if (v->type != PT_STRING8 && v->type != PT_UNICODE)
                return STR_NONE;
        return text_of(p, v->value, v->type == PT_UNICODE);
}

/* ---- properties ---- */

/* The bytes of a value of fixed size; 0 for none, -1 for those that say their length. */
static int fixed_size(unsigned type)
{
        switch (type) {
        case PT_NONE:
        case PT_NULL:
                return 0;
        case PT_DOUBLE:
        case PT_CURRENCY:
        case PT_APPTIME:
        case PT_I8:
        case PT_SYSTIME:
                return 8;
        case PT_CLSID:
                return GUID_BYTES;
        case PT_OBJECT:
        case PT_STRING8:
        case PT_UNICODE:
        case PT_BINARY:
                return -1;
        default:
                return 4;
        }
}

static bool take_name(struct str *s)
{
        struct str guid, name;
        uint32_t by_name, n;

        if (!take_bytes(s, GUID_BYTES, &guid) || !take32(s, &by_name) || !take32(s, &n))
                return false;
        return !by_name || take_padded(s, n, &name);
}

/* Each value takes at least a byte from s, or there are none to take: a count cannot make this long. */
static bool take_values(struct str *s, unsigned type, uint32_t count, struct str *first)
{
        int size = fixed_size(type);
        struct str value;
        uint32_t n;

        for (uint32_t i = 0; i < count && size != 0; i++) {
                n = (uint32_t)size;
                if (size < 0 && !take32(s, &n))
                        return false;
                if (!take_padded(s, n, &value))
                        return false;
                if (i == 0)
                        *first = value;
        }
        return true;
}

static bool take_property(struct str *s, struct property *v)
{
        uint32_t tag, count = 1;
        bool many;

        if (!take32(s, &tag))
                return false;
        v->id = tag >> 16;
        v->type = tag & 0xffff & ~(unsigned)PT_MANY;
        many = tag & PT_MANY;
        v->value = STR_NONE;
        if (v->id >= NAMED && !take_name(s))
                return false;
        if ((many || fixed_size(v->type) < 0) && !take32(s, &count))
                return false;
        return take_values(s, v->type, count, &v->value);
}

/* ---- attachments ---- */

static void set_name(struct parser *p, struct str name, enum rank rank)
{
        if (!p->file || !name.p || rank <= p->named)
                return;
        p->file->name = name;
        p->named = rank;
}

/* What has no data was not sent: a reference to a file elsewhere. */
static void close_file(struct parser *p)
{
        struct tnef_file *f = p->file;

        p->file = NULL;
        if (!f || !f->data.p)
                return;
        *p->tail = f;
        p->tail = &f->next;
        p->t->count++;
}

static void start_file(struct parser *p)
{
        close_file(p);
        p->named = NO_NAME;
        p->from_object = false;
        if (p->t->count >= p->files_max) {
                p->t->over = true;
                return;
        }
        p->file = arena_alloc(p->a, sizeof *p->file);
        if (!p->file)
                p->nomem = true;
}

/* An object begins with the identifier of its interface. */
static void set_object(struct parser *p, struct str value)
{
        struct str data = str_from(value, GUID_BYTES);

        if (value.n < GUID_BYTES)
                return;
        p->file->data = data;
        p->file->kind = tnef_is(data) ? TNEF_MESSAGE : TNEF_OBJECT;
        p->from_object = true;
}

static struct str lower(struct str s)
{
        char *c = (char *)s.p; /* our own copy */

        for (size_t i = 0; i < s.n; i++)
                c[i] = ascii_lower(c[i]);
        return s;
}

static void attachment_property(struct parser *p, const struct property *v)
{
        struct tnef_file *f = p->file;

        switch (v->id) {
        case PR_ATTACH_DATA:
                if (v->type == PT_OBJECT)
                        set_object(p, v->value);
                else if (v->type == PT_BINARY && !f->data.p)
                        f->data = v->value;
                break;
        case PR_ATTACH_LONG_FILENAME:
                set_name(p, text_value(p, v), BY_LONG);
                break;
        case PR_ATTACH_FILENAME:
                set_name(p, text_value(p, v), BY_SHORT);
                break;
        case PR_DISPLAY_NAME:
                set_name(p, text_value(p, v), BY_DISPLAY);
                break;
        case PR_ATTACH_MIME_TAG:
                f->type = lower(text_value(p, v));
                break;
        case PR_ATTACH_CONTENT_ID:
                f->id = text_value(p, v);
                break;
        }
}

/* ---- bodies ---- */

static void set_body(struct tnef *t, struct tnef_body *b, struct str data, bool wide, unsigned codepage)
{
        data = without_nuls(data, wide && data.n % 2 == 0);
        if (b->data.p || data.n == 0)
                return;
        b->data = data;
        charset_name(wide ? 1200 : codepage, b->charset);
        t->count++;
}

static void message_property(struct parser *p, const struct property *v)
{
        bool wide = v->type == PT_UNICODE;

        if (v->id == PR_INTERNET_CODEPAGE && v->type == PT_LONG && v->value.n == 4)
                p->html_codepage = peek32(v->value);
        else if (v->id == PR_BODY && (wide || v->type == PT_STRING8))
                set_body(p->t, &p->t->text, v->value, wide, p->codepage);
        else if (v->id == PR_HTML && (wide || v->type == PT_STRING8 || v->type == PT_BINARY))
                set_body(p->t, &p->t->html, v->value, wide, 0);
        else if (v->id == PR_RTF_COMPRESSED && v->type == PT_BINARY && v->value.n && !p->t->rtf.data.p)
                p->t->rtf.data = v->value;
}

static void read_properties(struct parser *p, struct str s, void (*use)(struct parser *, const struct property *))
{
        struct property v;
        uint32_t count;

        if (!take32(&s, &count)) {
                p->t->broken = true;
                return;
        }
        for (; count > 0 && !p->nomem; count--) {
                if (!take_property(&s, &v)) {
                        p->t->broken = p->t->cut = true;
                        return;
                }
                use(p, &v);
        }
}

static void message_attribute(struct parser *p, const struct attribute *at)
{
        switch (at->id) {
        case MESSAGE_CODEPAGE:
                if (at->data.n >= 4)
                        p->codepage = peek32(at->data);
                break;
        case MESSAGE_BODY:
                set_body(p->t, &p->t->text, at->data, false, p->codepage);
                break;
        case MESSAGE_PROPERTIES:
                read_properties(p, at->data, message_property);
                break;
        }
}

static void attachment_attribute(struct parser *p, const struct attribute *at)
{
        if (at->id == ATTACH_START)
                start_file(p);
        if (!p->file)
                return;
        switch (at->id) {
        case ATTACH_DATA:
                if (!p->from_object)
                        p->file->data = at->data;
                break;
        case ATTACH_TITLE:
                set_name(p, text_of(p, at->data, false), BY_TITLE);
                break;
        case ATTACH_TRANSPORT_NAME:
                set_name(p, text_of(p, at->data, false), BY_TRANSPORT);
                break;
        case ATTACH_PROPERTIES:
                read_properties(p, at->data, attachment_property);
                break;
        }
}

bool tnef_parse(struct tnef *t, struct str in, unsigned files_max, struct arena *a)
{
        struct parser p = { .t = t, .a = a, .tail = &t->files, .files_max = files_max, .codepage = DEFAULT_CODEPAGE };
        struct attribute at;

        if (!tnef_is(in)) {
                t->broken = t->cut = true;
                return true;
        }
        in = str_from(in, STREAM_HEADER);
        while (!p.nomem && take_attribute(&in, &at, t)) {
                if (at.level == 1)
                        message_attribute(&p, &at);
                else
                        attachment_attribute(&p, &at);
        }
        close_file(&p);
        if (t->html.data.p && !t->html.charset[0])
                charset_name(p.html_codepage, t->html.charset);
        t->count += t->rtf.data.p != NULL;
        return !p.nomem;
}
