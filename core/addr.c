#include "core/addr.h"

#include "core/buf.h"
#include "core/charset.h"
#include "core/mem.h"
#include "core/words.h"

enum {
        COMMENT_DEPTH_MAX = 32,
        LITERAL_MAX = 128,  /* an IPv6 address with its tag has 46; searching further would be quadratic */
        ADDRESS_MAX = 254,  /* RFC 5321 4.5.3.1.3: a path of 256 bytes, with its brackets */
};

/* One mailbox as it is read. The same bytes go into two buffers: `phrase`, where quotes are gone and blanks are kept (it
 * may turn out to be a display name), and `spec`, where quotes are kept and blanks are gone (it may turn out an address). */
struct reader {
        struct arena *a;
        const struct limits *lim;
        unsigned *defects;
        struct str rest;
        struct str group;        /* {NULL,0} outside of one */
        struct buf phrase, spec, comment;
        const char *start;       /* of this mailbox */
        struct str inside;       /* what stood between < and > */
        bool angle;              /* there was one */
        size_t before;           /* of the phrase stood before it */
        bool apart;              /* two words in spec with only blanks between them */
        bool blank;              /* blanks since the last byte in spec */
        bool open;               /* a '<' somewhere before had no '>': one that comes later may be its */
        bool junk;
        struct addr *first, **last;
        unsigned count;
        bool nomem;
};

static void reset(struct reader *r)
{
        buf_clear(&r->phrase);
        buf_clear(&r->spec);
        buf_clear(&r->comment);
        r->start = r->rest.p;
        r->inside = STR_NONE;
        r->angle = r->apart = r->blank = r->junk = false;
}

/* Around '.' and '@' blanks mean nothing (RFC 5322 4.4); elsewhere they part two words. */
static void add_spec(struct reader *r, char c)
{
        char before = r->spec.n ? r->spec.p[r->spec.n - 1] : '.';

        if (r->blank && before != '.' && before != '@' && c != '.' && c != '@')
                r->apart = true;
        r->blank = false;
        buf_add_char(&r->spec, c);
}

static void add_blank(struct reader *r)
{
        r->blank = true;
        if (r->phrase.n > 0 && r->phrase.p[r->phrase.n - 1] != ' ')
                buf_add_char(&r->phrase, ' ');
}

static void add_char(struct reader *r, char c)
{
        if (ascii_is_space(c)) {
                add_blank(r);
                return;
        }
        add_spec(r, c);
        buf_add_char(&r->phrase, c);
}

/* What read_piece has a rule for. */
static bool is_special(char c)
{
        return c == ',' || c == ';' || c == ':' || c == '(' || c == '"' || c == '[' || c == '<';
}

/* The pieces below begin with these bytes, which r->rest begins with. Each takes its piece off the rest. */

/* A comment, nested ones and all. The last one is kept: it may be the name. */
static void read_comment(struct reader *r)
{
        size_t depth = 0, i = 0;

        buf_clear(&r->comment);
        for (; i < r->rest.n; i++) {
                char c = r->rest.p[i];

                if (c == '(' && depth++ == 0)
                        continue;
                if (c == ')' && --depth == 0)
                        break;
                if (c == '\\' && i + 1 < r->rest.n)
                        c = r->rest.p[++i];
                if (depth > COMMENT_DEPTH_MAX)
                        *r->defects |= ADDR_LIMIT;
                else
                        buf_add_char(&r->comment, c);
        }
        if (i >= r->rest.n)
                *r->defects |= ADDR_SYNTAX;
        r->rest = str_from(r->rest, i + 1);
        add_blank(r);
}

static void read_quoted(struct reader *r)
{
        size_t i = 1;

        add_spec(r, '"');
        for (; i < r->rest.n && r->rest.p[i] != '"'; i++) {
                char c = r->rest.p[i];

                if (c == '\n' || (c == '\r' && i + 1 < r->rest.n && r->rest.p[i + 1] == '\n'))
                        continue;
                if (c == '\\' && i + 1 < r->rest.n) {
                        buf_add_char(&r->spec, c);
                        c = r->rest.p[++i];
                }
                buf_add_char(&r->spec, c);
                buf_add_char(&r->phrase, c);
        }
        add_spec(r, '"');
        if (i >= r->rest.n)
                r->junk = true;
        r->rest = str_from(r->rest, i + 1);
}

/* "[192.0.2.1]" */
static void read_literal(struct reader *r)
{
        struct str near = str_first(r->rest, LITERAL_MAX), inside;
        size_t n = str_find(near, ']');

        if (n == near.n || r->spec.n == 0 || r->spec.p[r->spec.n - 1] != '@') {
                add_char(r, '[');
                r->rest = str_from(r->rest, 1);
                return;
        }
        inside = str_trim(str_make(near.p + 1, n - 1)); /* blanks further in stay, and spoil it */
        add_char(r, '[');
        buf_add_str(&r->spec, inside);
        buf_add_str(&r->phrase, inside);
        add_char(r, ']');
        r->rest = str_from(r->rest, n + 1);
}

/* Where `<` finds its `>`: before a comma (but for RFC 5322's obsolete route "<@a,@b:user@c>") and before another '<'. */
static size_t angle_end(struct str s, bool *closed)
{
        bool route = s.n > 1 && s.p[1] == '@', quoted = false;

        for (size_t i = 1; i < s.n; i++) {
                char c = s.p[i];

                *closed = c == '>' && !quoted;
                if (*closed || (!quoted && (c == '<' || (c == ',' && !route))))
                        return i;
                if (c == '\\')
                        i++;
                else if (c == '"')
                        quoted = !quoted;
                else if (c == ':')
                        route = false;
        }
        *closed = false;
        return s.n;
}

/* "<<joe@x.org>>" is what it looks like; without its '>' it is nothing. */
static bool is_doubled(struct str s)
{
        bool closed = false;

        if (str_starts(s, STR("<<")) && !str_starts(s, STR("<<<")))
                angle_end(str_from(s, 1), &closed);
        return closed;
}

static void read_angle(struct reader *r)
{
        bool twice = is_doubled(r->rest), closed = false;
        size_t end;

        r->rest = str_from(r->rest, twice);
        end = angle_end(r->rest, &closed);
        r->junk |= r->angle;
        r->angle = true;
        r->before = r->phrase.n;
        r->inside = str_make(r->rest.p + 1, (end < r->rest.n ? end : r->rest.n) - 1);
        r->open |= !closed;
        if (!closed || twice)
                *r->defects |= ADDR_SYNTAX;
        r->rest = str_from(r->rest, end + closed);
        if (twice && str_starts(r->rest, STR(">")))
                r->rest = str_from(r->rest, 1);
        add_blank(r);
}

/* Bytes that mean nothing but themselves, as many as there are. */
static void read_plain(struct reader *r)
{
        size_t n = 1;

        while (n < r->rest.n && !ascii_is_space(r->rest.p[n]) && !is_special(r->rest.p[n]))
                n++;
        add_spec(r, r->rest.p[0]);
        buf_add(&r->spec, r->rest.p + 1, n - 1);
        buf_add(&r->phrase, r->rest.p, n);
        r->rest = str_from(r->rest, n);
}

/* One step inside a mailbox; false at a byte that ends it. */
static bool read_piece(struct reader *r)
{
        char c = r->rest.p[0];

        switch (c) {
        case ',': case ';': case ':':
                return false;
        case '<':
                if (r->angle && !r->junk && str_trim(r->inside).n > 0)
                        return false;
                read_angle(r);
                break;
        case '(':
                read_comment(r);
                break;
        case '"':
                read_quoted(r);
                break;
        case '[':
                read_literal(r);
                break;
        default:
                if (!ascii_is_space(c)) {
                        read_plain(r);
                        break;
                }
                add_blank(r);
                r->rest = str_from(r->rest, 1);
        }
        return true;
}

/* From a mailbox to an address. */

static struct str decoded(struct reader *r, struct str s)
{
        unsigned words = 0;
        struct str out = words_decode(str_trim(s), STR_NONE, r->lim, &words, r->a);

        if (words & (WORDS_BAD | WORDS_CHARSET))
                *r->defects |= ADDR_CHARSET;
        if (words & WORDS_LIMIT)
                *r->defects |= ADDR_LIMIT;
        out = out.p ? str_trim(out) : out;
        if (out.n > 0)
                out = arena_str(r->a, out); /* it may be the buffer's bytes */
        r->nomem |= !out.p;
        return out;
}

static bool is_atext(char c)
{
        return (unsigned char)c >= 0x80 || ascii_is_alnum(c) || memchr("!#$%&'*+-/=?^_`{|}~", c, 19) != NULL;
}

static bool is_dot_atom(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!is_atext(s.p[i]) && s.p[i] != '.')
                        return false;
        return s.n > 0;
}

/* "[192.0.2.1]", "[IPv6:2001:db8::1]" (RFC 5321 4.1.3) */
static bool is_literal(struct str s)
{
        for (size_t i = 1; i < s.n - 1; i++)
                if (!ascii_is_alnum(s.p[i]) && !memchr(".:-", s.p[i], 3))
                        return false;
        return s.p[s.n - 1] == ']';
}

static bool is_domain(struct str s)
{
        if (s.n > 2 && s.p[0] == '[')
                return is_literal(s);
        return is_dot_atom(s) && s.p[0] != '.' && s.p[s.n - 1] != '.' && str_find_str(s, STR("..")) == s.n;
}

/* The quoted local part's text: {NULL,0} when it is no quoted string as a whole. */
static struct str unquoted(struct reader *r, struct str s)
{
        char *out;
        size_t n = 0, i;

        if (s.n < 2 || s.p[0] != '"')
                return STR_NONE;
        out = arena_alloc(r->a, s.n);
        if (!out) {
                r->nomem = true;
                return STR_NONE;
        }
        for (i = 1; i < s.n && s.p[i] != '"'; i++) {
                unsigned char c = (unsigned char)(s.p[i] == '\\' && i + 1 < s.n ? s.p[++i] : s.p[i]);

                if (c < 32 || c == 127)
                        return STR_NONE;
                out[n++] = (char)c;
        }
        return i == s.n - 1 ? str_make(out, n) : STR_NONE;
}

/* RFC 2047 5: "an 'encoded-word' MUST NOT appear in any portion of an 'addr-spec'". Its characters could be one's, but a reader that
 * decoded it would see another address. */
static bool has_word(struct str spec)
{
        size_t start = str_find_str(spec, STR("=?"));

        return start < spec.n && str_find_str(str_from(spec, start + 2), STR("?=")) < spec.n - start - 2;
}

/* Where the local part ends: the last '@', for one may stand in quotes. */
static bool split_spec(struct reader *r, struct addr *o, struct str spec)
{
        size_t at = str_rfind(spec, '@');
        struct str local = str_first(spec, at), bare;

        if (at == spec.n || !is_domain(str_from(spec, at + 1)) || !utf8_valid(spec) || has_word(spec))
                return false;
        bare = is_dot_atom(local) ? local : unquoted(r, local);
        if (!bare.p)
                return false;
        o->user = bare;
        o->domain = str_from(spec, at + 1);
        return true;
}

static bool has_capitals(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (ascii_lower(s.p[i]) != s.p[i])
                        return true;
        return false;
}

static struct str put_parts(struct reader *r, struct str local, struct str domain)
{
        size_t n = local.n + 1 + domain.n;
        char *p = arena_alloc(r->a, n + 1);

        if (!p) {
                r->nomem = true;
                return STR_NONE;
        }
        memcpy(p, local.p, local.n);
        p[local.n] = '@';
        memcpy(p + local.n + 1, domain.p, domain.n);
        return str_make(p, n);
}

/* addr = local@domain; quotes stay only where the local part needs them: "joe"@x.org is joe@x.org. */
static void put_address(struct reader *r, struct addr *o, struct str spec)
{
        struct str local = str_first(spec, str_rfind(spec, '@'));
        bool bare = is_dot_atom(o->user);
        char *p;

        if (bare)
                local = o->user;
        o->written = o->addr = put_parts(r, local, o->domain);
        if (has_capitals(o->domain))
                o->addr = put_parts(r, local, o->domain);
        if (r->nomem)
                return;
        p = (char *)(uintptr_t)o->addr.p;
        for (size_t i = local.n + 1; o->addr.p != o->written.p && i < o->addr.n; i++)
                p[i] = ascii_lower(p[i]);
        if (bare) /* not in the buffer any more */
                o->user = str_first(o->addr, local.n);
        o->domain = str_from(o->addr, local.n + 1);
        o->valid = true;
}

/* What is no address stands as it was written, bytes that could hurt apart: U+FFFD, so that nothing becomes another address. */
static struct str displayed(struct reader *r, struct str s)
{
        struct buf b = BUF_INIT, out = BUF_INIT;
        struct str text = STR("");

        utf8_clean(str_trim(s), &b);
        for (size_t i = 0; i < b.n; i++) {
                unsigned char c = (unsigned char)b.p[i];

                if (ascii_is_space((char)c))
                        buf_add_char(&out, ' ');
                else if (c < 32 || c == 127)
                        buf_add(&out, "\xef\xbf\xbd", 3);
                else
                        buf_add_char(&out, (char)c);
        }
        if (out.n > 0)
                text = arena_str(r->a, buf_str(&out));
        r->nomem |= b.failed || out.failed || !text.p;
        buf_free(&b);
        buf_free(&out);
        return text;
}

/* The obsolete route of "<@a,@b:user@c>" is not part of the address. */
static struct str without_route(struct str inside)
{
        struct str s = str_trim(inside);
        size_t colon = str_find(s, ':');

        return s.n > 0 && s.p[0] == '@' && colon < s.n ? str_from(s, colon + 1) : inside;
}

/* Reads the inside of the brackets as an address of its own: comments and blanks go, quotes stay. */
static void respec(struct reader *r)
{
        struct str rest = r->rest;

        buf_clear(&r->spec);
        r->apart = r->blank = false;
        r->rest = without_route(r->inside);
        while (r->rest.n > 0) {
                size_t phrase = r->phrase.n;
                bool read = read_piece(r);

                r->phrase.n = phrase;
                if (!read && !str_trim(str_from(r->rest, 1)).n) { /* "<joe@x.org;>" */
                        *r->defects |= ADDR_SYNTAX;
                        break;
                }
                if (!read) { /* a separator, which no address has: it will be none */
                        add_spec(r, r->rest.p[0]);
                        r->rest = str_from(r->rest, 1);
                }
        }
        r->rest = rest;
}

/* What may be an address: "joe@x.org>" has lost its '<', which is as clear as "<joe@x.org". */
static struct str likely_spec(struct reader *r)
{
        struct str s = buf_str(&r->spec);

        if (r->angle || r->open || !str_ends(s, STR(">")))
                return s;
        *r->defects |= ADDR_SYNTAX;
        return str_first(s, s.n - 1);
}

static void fill(struct reader *r, struct addr *o, struct str all)
{
        struct str name = STR(""), spec;

        if (r->angle) { /* "Joe <joe@x.org> and more": what stands behind is the name only where nothing does before */
                struct str before = str_first(buf_str(&r->phrase), r->before);

                name = decoded(r, str_trim(before).n ? before : buf_str(&r->phrase));
        }
        if (name.n == 0 && r->comment.n > 0)
                name = decoded(r, buf_str(&r->comment));
        if (r->angle)
                respec(r);
        if (name.n == 0 && r->comment.n > 0)
                name = decoded(r, buf_str(&r->comment));
        o->name = name.n ? name : STR("");
        o->group = r->group;
        o->user = o->domain = STR("");
        spec = likely_spec(r);
        if (!r->apart && !r->junk && split_spec(r, o, spec)) {
                put_address(r, o, spec);
                return;
        }
        *r->defects |= ADDR_SYNTAX;
        if (r->apart || r->junk)
                o->addr = displayed(r, r->angle && !r->junk ? r->inside : all);
        else
                o->addr = displayed(r, buf_str(&r->spec));
        o->written = o->addr;
}

/* The end of a mailbox, at r->rest. Nothing but blanks and comments is none. */
static void end_mailbox(struct reader *r)
{
        struct str all = str_make(r->start, (size_t)(r->rest.p - r->start));
        struct addr *o;

        if (!r->angle && r->spec.n == 0)
                return;
        if (r->angle && !r->junk && str_trim(r->inside).n == 0 && str_trim(buf_str(&r->phrase)).n == 0) /* "<>": nobody */
                return;
        if (r->count == r->lim->addresses) {
                *r->defects |= ADDR_LIMIT;
                r->rest = STR_NONE;
                return;
        }
        o = arena_alloc(r->a, sizeof *o);
        if (!o) {
                r->nomem = true;
                return;
        }
        fill(r, o, all);
        *r->last = o;
        r->last = &o->next;
        r->count++;
}

/* At a second '<': the comma before it is missing, and the words between belong to it. */
static void end_without_comma(struct reader *r)
{
        struct buf words = BUF_INIT;

        buf_add_str(&words, str_from(buf_str(&r->phrase), r->before));
        r->phrase.n = r->before;
        *r->defects |= ADDR_SYNTAX;
        end_mailbox(r);
        reset(r);
        buf_add_str(&r->phrase, buf_str(&words));
        r->nomem |= words.failed;
        buf_free(&words);
}

/* An address before a ':' is no group's name, and not to be lost: something else has run into the field. */
static bool holds_address(const struct reader *r)
{
        struct str spec = buf_str(&r->spec);

        return str_find(spec, '@') < spec.n && str_find(spec, '"') == spec.n;
}

/* At a byte that ends a mailbox. ';' ends a group; elsewhere it parts addresses, as Outlook's users think it does. */
static void end_piece(struct reader *r)
{
        char c = r->rest.p[0];

        if (c == '<') {
                end_without_comma(r);
                return;
        }
        if (c == ':' && !r->angle && !holds_address(r)) {
                r->group = decoded(r, buf_str(&r->phrase));
        } else {
                end_mailbox(r);
                if (c == ';')
                        r->group = STR_NONE;
                if (c == ':')
                        *r->defects |= ADDR_SYNTAX;
        }
        r->rest = str_from(r->rest, 1);
        reset(r);
}

/* A field beyond the limit ends at the last comma inside it: half an address may be another one. */
static struct str within_limit(struct str raw, const struct limits *lim, unsigned *defects)
{
        struct str s = str_first(raw, lim->header_field);
        size_t comma;

        if (s.n == raw.n)
                return s;
        *defects |= ADDR_LIMIT;
        comma = str_rfind(s, ',');
        return str_first(s, comma < s.n ? comma : 0);
}

struct addr *addr_parse(struct str raw, const struct limits *lim, unsigned *defects, struct arena *a)
{
        struct reader r = { .a = a, .lim = lim, .defects = defects, .rest = within_limit(raw, lim, defects) };

        r.last = &r.first;
        reset(&r);
        while (r.rest.n > 0 && !r.nomem)
                if (!read_piece(&r))
                        end_piece(&r);
        if (!r.nomem)
                end_mailbox(&r);
        r.nomem |= r.phrase.failed || r.spec.failed || r.comment.failed;
        buf_free(&r.phrase);
        buf_free(&r.spec);
        buf_free(&r.comment);
        return r.nomem ? NULL : r.first;
}

/* Of any string. A second '@' outside of quotes leaves nothing that can be trusted as a domain. */
static size_t at_of(struct str addr)
{
        size_t at = str_rfind(addr, '@');

        if (at < addr.n && addr.n > 0 && addr.p[0] != '"' && str_find(addr, '@') != at)
                return addr.n;
        return at;
}

static struct str local_of(struct str addr)
{
        size_t at = at_of(addr);

        return at < addr.n ? str_first(addr, at) : STR("");
}

struct str addr_user_of(struct str addr)
{
        struct str local = local_of(addr);
        size_t plus = str_find(local, '+');

        return plus > 0 ? str_first(local, plus) : local;
}

struct str addr_detail_of(struct str addr)
{
        struct str local = local_of(addr);
        size_t plus = str_find(local, '+');

        return plus > 0 && plus < local.n ? str_from(local, plus + 1) : STR("");
}

struct str addr_domain_of(struct str addr)
{
        size_t at = at_of(addr);

        return at < addr.n ? str_from(addr, at + 1) : STR("");
}

bool addr_check(struct str addr, struct err *e)
{
        if (addr.n == 0)
                return err_set(e, ERR_USAGE, "the address is empty");
        if (addr.n > ADDRESS_MAX)
                return err_set(e, ERR_USAGE, "the address is %zu bytes long, %d are allowed", addr.n, ADDRESS_MAX);
        for (size_t i = 0; i < addr.n; i++)
                if ((unsigned char)addr.p[i] <= 32 || addr.p[i] == 127 || memchr("<>(),;:\\\"", addr.p[i], 9))
                        return err_set(e, ERR_USAGE, "the address has the byte 0x%02x at %zu", (unsigned char)addr.p[i], i);
        if (!utf8_valid(addr))
                return err_set(e, ERR_USAGE, "the address is not valid UTF-8");
        if (addr.p[0] == '-')
                return err_set(e, ERR_USAGE, "the address begins with '-'");
        if (str_find(addr, '@') != str_rfind(addr, '@') || addr_domain_of(addr).n == 0 || local_of(addr).n == 0)
                return err_set(e, ERR_USAGE, "\"%.*s\" is not of the form user@domain", STR_FMT(addr));
        if (!is_domain(addr_domain_of(addr)))
                return err_set(e, ERR_USAGE, "\"%.*s\" has no valid domain", STR_FMT(addr));
        return true;
}
