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

enum { LINE_MAX_BYTES = 998 }; /* RFC 5322 2.1.1: what SMTP must carry */

struct composing {
        const struct compose *c;
        struct segments out;
        char boundary[64];
        struct err *e;
};

static bool field(struct composing *w, const char *name, struct str value)
{
        return value.n == 0 || segments_field(&w->out, str_of(name), value, w->e);
}

/* ---- addresses ---- */

/* "Name <user@host>" read and written again, so that what goes out is well-formed whatever came in. */
static bool add_mailbox(struct composing *w, const char *name, struct str text, size_t *column)
{
        unsigned defects = 0;
        const struct addr *a = addr_parse(text, &limits_default, &defects, w->out.arena);
        size_t need;

        if (!a || !a->valid || a->next)
                return err_set(w->e, ERR_USAGE, "%s: \"%.*s\" is not one address", name, STR_FMT(text));
        if (!addr_check(a->addr, w->e))
                return err_in(w->e, "%s", name);
        need = a->name.n + a->addr.n + 4;
        if (*column + need > 76) {
                segments_text(&w->out, STR("\n "));
                *column = 1;
        }
        if (a->name.n) {
                segments_text(&w->out, words_encode(a->name, true, *column, w->out.arena));
                segments_text(&w->out, STR(" <"));
        }
        segments_text(&w->out, a->addr);
        if (a->name.n)
                segments_text(&w->out, STR(">"));
        *column += need;
        return true;
}

static bool mailboxes(struct composing *w, const char *name, const struct str *list, size_t n)
{
        size_t column = strlen(name) + 2;

        if (n == 0)
                return true;
        segments_printf(&w->out, "%s: ", name);
        for (size_t i = 0; i < n; i++) {
                if (i) {
                        segments_text(&w->out, STR(", "));
                        column += 2;
                }
                if (!add_mailbox(w, name, list[i], &column))
                        return false;
        }
        segments_text(&w->out, STR("\n"));
        return true;
}

static bool mailbox(struct composing *w, const char *name, struct str one)
{
        return mailboxes(w, name, &one, one.n ? 1 : 0);
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
        char id[33];

        unique(id);
        segments_printf(&w->out, "%s: <%s@%.200s>\n", name, id, w->c->hostname.n ? w->c->hostname.p : "localhost");
}

static void date_field(struct composing *w, const char *name)
{
        char date[64];

        date_format(w->c->date, 0, date);
        segments_printf(&w->out, "%s: %s\n", name, date);
}

static struct str implied_subject(struct composing *w)
{
        struct str s;

        if (w->c->subject.n || !w->c->original)
                return w->c->subject;
        s = message_subject(w->c->original);
        if (str_starts_nocase(s, STR("Fwd:")))
                return s;
        return arena_printf(w->out.arena, "Fwd: %.*s", STR_FMT(s));
}

/* Values may come decoded from a message: controls are no place in a header of ours. */
static struct str one_line(struct composing *w, struct str s)
{
        char *p = arena_dup(w->out.arena, s.p ? s.p : "", s.n);

        for (size_t i = 0; p && i < s.n; i++)
                if (p[i] == '\r' || p[i] == '\n' || p[i] == 0)
                        p[i] = ' ';
        w->out.failed = w->out.failed || !p;
        return p ? str_make(p, s.n) : STR_NONE;
}

static bool action_field(struct composing *w)
{
        return field(w, "X-Mailmill-Action", w->c->action);
}

static bool header(struct composing *w)
{
        const struct compose *c = w->c;

        date_field(w, "Date");
        if (!mailbox(w, "From", c->from) || !mailboxes(w, "To", c->to, c->to_n) || !mailboxes(w, "Cc", c->cc, c->cc_n) ||
            !mailbox(w, "Reply-To", c->reply_to))
                return false;
        if (!field(w, "Subject", c->subject.n ? c->subject : one_line(w, implied_subject(w))))
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

/* A text part of ours: as it is while that can be sent as it is, else base64. */
static void text_part(struct composing *w, struct str text)
{
        struct look l = { 0 };

        look_at(&l, text.p ? text.p : "", text.n);
        if (!l.eight_bit && !l.long_line && !l.nul) {
                segments_text(&w->out, STR("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\n"));
                segments_text(&w->out, text.p ? text : STR(""));
                if (!text.n || text.p[text.n - 1] != '\n')
                        segments_text(&w->out, STR("\n"));
                return;
        }
        segments_text(&w->out, STR("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n"));
        struct segment *g = segments_add(&w->out);
        g->text = text;
        g->base64 = true;
}

static void file_part(struct composing *w, const struct compose_file *f)
{
        struct str type = f->type.n ? f->type : f->part ? part_type(f->part) : STR_NONE;
        struct str name = f->name.n ? f->name : f->part ? part_name(f->part) : STR_NONE;
        struct segment *g;

        if (!type.n || str_starts(type, STR("multipart/")) || str_starts(type, STR("message/")))
                type = STR("application/octet-stream"); /* what is encoded may not claim to be composite: RFC 2045 6.4 */
        name = one_line(w, name);
        segments_printf(&w->out, "Content-Type: %.200s\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment",
                        arena_dup(w->out.arena, type.p, type.n));
        if (name.n)
                segments_text(&w->out, params_encode(STR("filename"), name, w->out.arena));
        segments_text(&w->out, STR("\n\n"));
        g = segments_add(&w->out);
        g->part = f->part;
        g->text = f->bytes;
        g->base64 = true;
}

/* The message itself as message/rfc822. RFC 2046 5.2.1 knows only 7bit, 8bit and binary for it; what those cannot carry through SMTP (lines over 998,
 * NUL, bare CR) is sent in base64 all the same, as other mailers do: better a departure from the RFC than a byte lost. */
static bool original_part(struct composing *w)
{
        struct look l = { 0 };
        struct range r = message_range(w->c->original);
        struct segment *g;

        if (!look_at_range(&l, r, w->e))
                return false;
        segments_printf(&w->out, "Content-Type: message/rfc822\nContent-Disposition: attachment; filename=\"message.eml\"\n"
                        "Content-Transfer-Encoding: %s\n\n", l.long_line || l.nul ? "base64" : l.eight_bit ? "8bit" : "7bit");
        g = segments_add(&w->out);
        g->range = r;
        g->base64 = l.long_line || l.nul;
        return true;
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
        segments_printf(&w->out, "Content-Type: multipart/mixed; boundary=\"%s\"\n", w->boundary);
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
        begin_multipart(w);
        if (text.n) {
                next_part(w, false);
                text_part(w, text);
        }
        if (with_original) {
                next_part(w, false);
                if (!original_part(w))
                        return false;
        }
        for (; files; files = files->next) {
                next_part(w, false);
                file_part(w, files);
        }
        next_part(w, true);
        return true;
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
        if (!mailbox(w, "Resent-From", w->c->from) || !mailboxes(w, "Resent-To", w->c->to, w->c->to_n))
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
        return ok ? mail_stream_new(w.out.first, a, e) : NULL;
}
