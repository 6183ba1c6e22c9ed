/* New mail: forwards, redirects, replies, and mail from nothing. */
#include "core/compose.h"

#include <stdio.h>

#include "core/buf.h"
#include "core/compose_int.h"
#include "core/date.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/params.h"
#include "core/sys.h"
#include "core/words.h"

enum {
        LINE_MAX_BYTES = 998, /* RFC 5322 2.1.1: what SMTP must carry */
        SUBJECT_MAX = 4096,   /* of a subject taken from the original */
        PERSON_MAX = 500,     /* of the name beside an address */
        NAME_MAX_BYTES = 255, /* of a file: what a file system takes */
};

struct composing {
        const struct compose *c;
        struct segments out;
        char boundary[64];
        bool eight_bit, encode; /* the original, inside: its bytes; it must be sent in base64 */
        struct err *e;
};

static bool field(struct composing *w, const char *name, struct str value)
{
        return value.n == 0 || segments_field(&w->out, str_of(name), value, w->e);
}

/* ---- addresses ---- */

/* One address, read so that what goes out is well-formed whatever came in. */
static const struct addr *read_mailbox(struct composing *w, const char *name, struct str text)
{
        unsigned defects = 0;
        const struct addr *a;

        for (size_t i = 0; i < text.n; i++)
                if (text.p[i] == '\r' || text.p[i] == '\n' || text.p[i] == 0)
                        return err_set(w->e, ERR_USAGE, "%s: \"%.*s\" holds a line end or NUL", name, STR_FMT(text)), NULL;
        a = addr_parse(text, &limits_default, &defects, w->out.arena);
        if (!a || !a->valid || a->next)
                return err_set(w->e, ERR_USAGE, "%s: \"%.*s\" is not one address", name, STR_FMT(text)), NULL;
        if (a->name.n > PERSON_MAX)
                return err_set(w->e, ERR_USAGE, "%s: a name of %zu bytes; %d are allowed", name, a->name.n, PERSON_MAX), NULL;
        if (!addr_check(a->addr, w->e))
                return err_in(w->e, "%s", name), NULL;
        return a;
}

/* "Name <user@host>", as it is written from this column on. */
static struct str mailbox_text(struct composing *w, const struct addr *a, size_t column)
{
        struct str phrase = a->name.n ? words_encode(a->name, true, column, w->out.arena) : STR_NONE;

        if (!a->name.n)
                return a->addr;
        w->out.failed = w->out.failed || !phrase.p;
        return arena_printf(w->out.arena, "%.*s <%.*s>", STR_FMT(phrase), STR_FMT(a->addr));
}

/* Columns of the longest line of text that begins at `column`; of its last line. */
static size_t widest(struct str text, size_t column, size_t *last)
{
        size_t most = 0;

        while (text.n > 0) {
                struct str line = str_take_line(&text);

                *last = column + line.n;
                most = *last > most ? *last : most;
                column = 0;
        }
        return most;
}

static bool add_mailbox(struct composing *w, const char *name, struct str text, bool first, size_t *column)
{
        const struct addr *a = read_mailbox(w, name, text);
        size_t at = first ? *column : *column + 1; /* behind the blank */
        struct str written;

        if (!a)
                return false;
        written = mailbox_text(w, a, at);
        if (!first && widest(written, at, column) >= 76) { /* a comma may follow */
                segments_text(&w->out, STR("\n"));
                at = 1;
                written = mailbox_text(w, a, at);
        }
        if (!first)
                segments_text(&w->out, STR(" "));
        widest(written, at, column);
        segments_folded(&w->out, written);
        return true;
}

static bool mailboxes(struct composing *w, const char *name, const struct str *list, size_t n)
{
        size_t column = strlen(name) + 2;

        if (n == 0)
                return true;
        segments_printf(&w->out, "%s: ", name);
        for (size_t i = 0; i < n; i++) {
                if (i)
                        segments_text(&w->out, STR(","));
                if (!add_mailbox(w, name, list[i], i == 0, &column))
                        return false;
                column++; /* the comma */
        }
        segments_text(&w->out, STR("\n"));
        return true;
}

static bool mailbox(struct composing *w, const char *name, struct str one)
{
        return mailboxes(w, name, &one, one.n ? 1 : 0);
}

static bool from_field(struct composing *w, const char *name)
{
        return w->c->from.n ? mailbox(w, name, w->c->from) : err_set(w->e, ERR_USAGE, "%s: nobody is named", name);
}

/* ---- headers ---- */

static void unique(char out[33])
{
        uint8_t bytes[DIGEST_SIZE];
        char hex[65];

        sys_random(bytes, sizeof bytes);
        digest_hex(bytes, hex);
        snprintf(out, 33, "%.32s", hex);
}

static void message_id_field(struct composing *w, const char *name)
{
        struct str host = w->c->hostname.n ? w->c->hostname : STR("localhost");
        char id[33];

        unique(id);
        segments_printf(&w->out, "%s: <%s@%.*s>\n", name, id, STR_FMT(str_first(host, 200)));
}

static void date_field(struct composing *w, const char *name)
{
        char date[64];

        date_format(w->c->date, 0, date);
        segments_printf(&w->out, "%s: %s\n", name, date);
}

struct str compose_subject(const struct compose *c, struct arena *a)
{
        struct str s;

        if (c->subject.n || !c->original)
                return c->subject;
        s = message_subject(c->original);
        if (c->how == COMPOSE_REDIRECT || str_starts_nocase(s, STR("Fwd:")))
                return s;
        return arena_printf(a, "Fwd: %.*s", STR_FMT(str_first(s, SUBJECT_MAX)));
}

static bool action_field(struct composing *w)
{
        return field(w, "X-Mailmill-Action", w->c->action);
}

static bool header(struct composing *w)
{
        const struct compose *c = w->c;

        date_field(w, "Date");
        if (!from_field(w, "From") || !mailboxes(w, "To", c->to, c->to_n) || !mailboxes(w, "Cc", c->cc, c->cc_n) ||
            !mailbox(w, "Reply-To", c->reply_to))
                return false;
        if (!field(w, "Subject", c->subject.n ? c->subject : segments_one_line(&w->out, compose_subject(c, w->out.arena), SUBJECT_MAX)))
                return false;
        message_id_field(w, "Message-ID");
        if (!field(w, "In-Reply-To", c->in_reply_to) || !field(w, "References", c->references) || !action_field(w))
                return false;
        segments_text(&w->out, STR("MIME-Version: 1.0\n"));
        for (const struct compose_field *f = c->fields; f; f = f->next)
                if (f->value.p && !segments_field(&w->out, f->name, f->value, w->e))
                        return false;
        return true;
}

/* ---- bodies ---- */

struct look {
        bool eight_bit, long_line, nul;
        size_t column;
};

static void look_at(struct look *l, const char *p, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                unsigned char ch = (unsigned char)p[i];

                l->eight_bit |= ch >= 0x80;
                l->nul |= ch == 0 || ch == '\r'; /* a bare CR cannot be sent either: it would become a line end */
                l->column = ch == '\n' ? 0 : l->column + 1;
                l->long_line |= l->column > LINE_MAX_BYTES;
        }
}

static bool look_at_range(struct look *l, struct range r, struct err *e)
{
        enum { BLOCK = 128 << 10 };
        char *block = mem_alloc(BLOCK);
        uint64_t at = 0;
        ssize_t n = 1;

        if (!block)
                return err_nomem(e);
        while (at < r.n && (n = range_read(r, at, block, BLOCK, e)) > 0) {
                look_at(l, block, (size_t)n);
                at += (uint64_t)n;
        }
        mem_free(block);
        return n >= 0;
}

/* RFC 2045 6.8: "any line break in the text must be converted to CRLF before base64". */
static struct str with_crlf(struct composing *w, struct str text)
{
        char *p = arena_alloc(w->out.arena, 2 * text.n + 1);
        size_t n = 0;

        for (size_t i = 0; p && i < text.n; i++) {
                if (text.p[i] == '\n' && (i == 0 || text.p[i - 1] != '\r'))
                        p[n++] = '\r';
                p[n++] = text.p[i];
        }
        w->out.failed = w->out.failed || !p;
        return str_make(p, n);
}

static void encoded_text(struct composing *w, struct str text)
{
        struct segment *g;

        segments_text(&w->out, STR("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n"));
        g = segments_add(&w->out);
        g->text = with_crlf(w, text);
        g->base64 = true;
}

/* A text part of ours: as it is while that can be sent as it is, else base64. */
static void text_part(struct composing *w, struct str text)
{
        struct look l = { 0 };

        look_at(&l, text.p ? text.p : "", text.n);
        if (l.eight_bit || l.long_line || l.nul) {
                encoded_text(w, text);
                return;
        }
        segments_text(&w->out, STR("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\n"));
        segments_text(&w->out, text.p ? text : STR(""));
        if (!text.n || text.p[text.n - 1] != '\n')
                segments_text(&w->out, STR("\n"));
}

static bool is_plain(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] < ' ' || s.p[i] >= 0x7f)
                        return false;
        return s.n < 200;
}

/* A part's type as it can be written again. What is encoded may not claim to be composite: RFC 2045 6.4. */
static struct str file_type(const struct compose_file *f)
{
        struct str given = f->type.n ? f->type : f->part ? part_type(f->part) : STR_NONE;
        struct str type = segments_type(str_trim_right(str_first(given, str_find(given, ';'))));

        if (str_starts_nocase(type, STR("text/")) && f->type.n && is_plain(given))
                return given; /* with its charset */
        if (str_starts_nocase(type, STR("multipart/")) || str_starts_nocase(type, STR("message/")))
                return STR("application/octet-stream");
        return type;
}

static void file_part(struct composing *w, const struct compose_file *f)
{
        struct str type = file_type(f), charset = f->part && !f->type.n && str_starts(type, STR("text/")) ? part_charset(f->part) : STR_NONE;
        struct str name = f->name.n ? f->name : f->part ? part_name(f->part) : STR_NONE;
        struct segment *g;

        segments_printf(&w->out, "Content-Type: %.*s", STR_FMT(type));
        if (charset.n && charset.n < 64 && !str_eq(charset, STR("us-ascii"))) /* which may be only the default */
                segments_folded(&w->out, params_encode(STR("charset"), charset, w->out.arena));
        segments_text(&w->out, STR("\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment"));
        if (name.n)
                segments_folded(&w->out, params_encode(STR("filename"), segments_one_line(&w->out, name, NAME_MAX_BYTES), w->out.arena));
        segments_text(&w->out, STR("\n\n"));
        g = segments_add(&w->out);
        g->part = f->part;
        g->text = f->bytes;
        g->base64 = true;
}

/* The message itself as message/rfc822. RFC 2046 5.2.1 knows only 7bit, 8bit and binary for it; what those cannot carry through SMTP (lines over 998,
 * NUL, bare CR) is sent in base64 all the same, as other mailers do: better a departure from the RFC than a byte lost. */
static bool look_at_original(struct composing *w)
{
        struct look l = { 0 };

        if (!look_at_range(&l, message_range(w->c->original), w->e))
                return false;
        w->encode = l.long_line || l.nul;
        w->eight_bit = l.eight_bit && !w->encode;
        return true;
}

static void original_part(struct composing *w)
{
        struct segment *g;

        segments_printf(&w->out, "Content-Type: message/rfc822\nContent-Disposition: attachment; filename=\"message.eml\"\n"
                        "Content-Transfer-Encoding: %s\n\n", w->encode ? "base64" : w->eight_bit ? "8bit" : "7bit");
        g = segments_add(&w->out);
        g->range = message_range(w->c->original);
        g->base64 = w->encode;
}

static void next_part(struct composing *w, bool last)
{
        segments_printf(&w->out, "\n--%s%s\n", w->boundary, last ? "--" : "");
}

static void begin_multipart(struct composing *w)
{
        char id[33];

        unique(id);
        snprintf(w->boundary, sizeof w->boundary, "=_mailmill_%s", id);
        segments_printf(&w->out, "Content-Type: multipart/mixed;\n boundary=\"%s\"\n%s", w->boundary,
                        w->eight_bit ? "Content-Transfer-Encoding: 8bit\n" : "");
}

/* ---- the four kinds ---- */

static bool compose_mixed(struct composing *w, struct str text, const struct compose_file *files, bool with_original)
{
        if (!header(w))
                return false;
        if (!files && !with_original) {
                text_part(w, text);
                return true;
        }
        if (with_original && !look_at_original(w))
                return false;
        begin_multipart(w);
        if (text.n) {
                next_part(w, false);
                text_part(w, text);
        }
        if (with_original) {
                next_part(w, false);
                original_part(w);
        }
        for (; files; files = files->next) {
                next_part(w, false);
                file_part(w, files);
        }
        next_part(w, true);
        return true;
}

static bool is_cut(struct message *m)
{
        size_t n;
        const char *const *names = message_defects(m, &n);

        for (size_t i = 0; i < n; i++)
                if (strcmp(names[i], "text.cut") == 0)
                        return true;
        return false;
}

static struct str inline_text(struct composing *w)
{
        struct message *m = w->c->original;
        struct arena *a = w->out.arena;
        static const char *const shown[] = { "From", "Date", "Subject", "To", "Cc" };
        struct buf b = BUF_INIT;
        struct str out;

        buf_add_str(&b, w->c->text);
        if (w->c->text.n)
                buf_add_str(&b, STR("\n\n"));
        buf_add_str(&b, STR("---------- Forwarded message ----------\n"));
        for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
                struct str v = message_field(m, str_of(shown[i]));

                if (v.n)
                        buf_printf(&b, "%s: %.*s\n", shown[i], STR_FMT(v));
        }
        buf_add_char(&b, '\n');
        buf_add_str(&b, message_text(m));
        if (is_cut(m))
                buf_add_str(&b, STR("\n[The text goes on; only this much of it was taken along.]\n"));
        out = buf_ok(&b, NULL) ? arena_str(a, buf_str(&b)) : STR_NONE;
        buf_free(&b);
        w->out.failed = w->out.failed || !out.p;
        return out;
}

/* Text in the body, the original's attachments as attachments. */
static bool compose_inline(struct composing *w)
{
        struct compose_file *first = NULL, **last = &first;
        struct part **parts;
        size_t n = message_attachments(w->c->original, &parts);

        for (size_t i = 0; i < n; i++) {
                struct compose_file *f = arena_alloc(w->out.arena, sizeof *f);

                if (!f)
                        return err_nomem(w->e);
                f->part = parts[i];
                *last = f;
                last = &f->next;
        }
        *last = w->c->files;
        return compose_mixed(w, inline_text(w), first, false);
}

/* RFC 5322 3.6.6: "Resent fields … SHOULD be added to any message that is reintroduced"; they go in front, the mail itself stays as it is. */
static bool compose_redirect(struct composing *w)
{
        if (!action_field(w))
                return false;
        date_field(w, "Resent-Date");
        if (!from_field(w, "Resent-From") || !mailboxes(w, "Resent-To", w->c->to, w->c->to_n))
                return false;
        message_id_field(w, "Resent-Message-ID");
        segments_range(&w->out, message_range(w->c->original));
        return true;
}

struct mail_stream *compose(const struct compose *c, struct arena *a, struct err *e)
{
        struct composing w = { .c = c, .out = { .arena = a }, .e = e };
        bool ok = false;

        switch (c->how) {
        case COMPOSE_NEW: ok = compose_mixed(&w, c->text, c->files, false); break;
        case COMPOSE_ATTACH: ok = compose_mixed(&w, c->text, c->files, true); break;
        case COMPOSE_INLINE: ok = compose_inline(&w); break;
        case COMPOSE_REDIRECT: ok = compose_redirect(&w); break;
        }
        if (ok && w.out.failed)
                ok = err_nomem(e);
        if (ok && c->original && message_trouble(c->original)->code != ERR_NONE) { /* what could not be read may be missing in it */
                if (e)
                        *e = *message_trouble(c->original);
                ok = false;
        }
        return ok ? mail_stream_new(w.out.first, a, e) : NULL;
}
