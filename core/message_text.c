/* What a person would read: a part's text as UTF-8, and the message's from its best part. */
#include "core/message_int.h"

#include "core/charset.h"
#include "core/flowed.h"
#include "core/html.h"
#include "core/uu.h"

enum { STEP = 64 * 1024, STEP_MIN = 4096, HTML_PARTS_MAX = 16 /* html parts searched for the images they show */ };

/* How much room the next read is given: a mail of ten thousand small parts must not move 64 KiB for each. */
static size_t step(const struct part *p, size_t have, uint64_t left)
{
        uint64_t coming = STEP_MIN + (p->body.n > have ? p->body.n - have : 0);

        if (coming > STEP)
                coming = STEP;
        return left < coming ? (size_t)left : (size_t)coming;
}

/* Decoded bytes of p, at most `most` of them; *cut when there are more. */
static bool take_decoded(struct part *p, uint64_t most, struct buf *out, bool *cut, struct err *e)
{
        struct reader *r = part_open(p, e);
        ssize_t n = r ? 1 : -1;

        buf_clear(out);
        while (n > 0 && out->n <= most) {
                size_t want = step(p, out->n, most + 1 - out->n);

                if (!buf_reserve(out, want)) {
                        err_nomem(e);
                        n = -1;
                        break;
                }
                n = reader_read(r, out->p + out->n, want, e);
                out->n += n > 0 ? (size_t)n : 0;
        }
        reader_close(r);
        *cut = out->n > most;
        if (*cut)
                out->n = most;
        return n >= 0;
}

static bool names_ascii(struct str charset)
{
        return str_eq_nocase(charset, STR("us-ascii")) || str_eq_nocase(charset, STR("ascii"));
}

static bool has_8bit(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] >= 0x80)
                        return true;
        return false;
}

/* A charset that says nothing: UTF-8 where the bytes are, else what the web would guess. A cut may have split the last character. */
static bool guess_utf8(struct message *m, struct str in, bool cut, struct buf *out)
{
        if (!has_8bit(in))
                return buf_add_str(out, in);
        message_add_defect(m, "charset.guessed");
        if (utf8_valid(cut ? utf8_cut(in, in.n - 1) : in))
                return buf_add_str(out, cut ? utf8_cut(in, in.n - 1) : in);
        return charset_to_utf8(STR("windows-1252"), in, out, NULL, NULL);
}

/* The mark that text in Unicode may begin with tells its charset; empty when there is none. */
static struct str marked_charset(struct str in)
{
        if (str_starts(in, STR("\xef\xbb\xbf")))
                return STR("utf-8");
        if (str_starts(in, STR("\xff\xfe")))
                return STR("utf-16le");
        return str_starts(in, STR("\xfe\xff")) ? STR("utf-16be") : STR("");
}

/* Without a mark UTF-16 is big-endian (RFC 2781 4.3), says the RFC; text in it is full of zeros, which tell. */
static struct str utf16_of(struct str in)
{
        size_t zeros[2] = { 0, 0 };

        for (size_t i = 0; i < in.n; i++)
                zeros[i & 1] += in.p[i] == '\0';
        return zeros[1] > zeros[0] ? STR("utf-16le") : STR("utf-16be");
}

bool message_has_shifts(struct str in)
{
        return str_find_str(in, STR("\x1b$B")) < in.n || str_find_str(in, STR("\x1b$@")) < in.n;
}

/* What the bytes say of themselves, where nobody said it for them. Empty: nothing. */
static struct str guess_charset(struct part *p, struct str in)
{
        struct str charset = marked_charset(in);

        if (!charset.n && str_eq(p->mime->type, STR("text/html")))
                return html_charset(in);
        if (!charset.n && message_has_shifts(in))
                charset = STR("iso-2022-jp");
        if (charset.n)
                message_add_defect(p->m, "charset.guessed");
        return charset;
}

static bool to_utf8(struct part *p, struct str in, bool cut, struct buf *out)
{
        struct str charset = part_charset(p);
        bool bad = false, unknown = false, ok;

        if (!p->charset_given || names_ascii(charset)) {
                charset = guess_charset(p, in);
                if (marked_charset(in).n)
                        in = str_from(in, str_eq(charset, STR("utf-8")) ? 3 : 2); /* U+FEFF is said, and no text */
        }
        if (str_eq_nocase(charset, STR("utf-16")) && !marked_charset(in).n)
                charset = utf16_of(in);
        if (charset.n == 0 || names_ascii(charset))
                return guess_utf8(p->m, in, cut, out);
        ok = charset_to_utf8(charset, in, out, &bad, &unknown);
        if (bad)
                message_add_defect(p->m, "charset.bad");
        if (unknown)
                message_add_defect(p->m, "charset.unknown");
        return ok;
}

static void drop_crs(struct buf *b)
{
        size_t n = 0;

        if (!b->n || !memchr(b->p, '\r', b->n))
                return;
        for (size_t i = 0; i < b->n; i++)
                if (b->p[i] != '\r' || i + 1 == b->n || b->p[i + 1] != '\n')
                        b->p[n++] = b->p[i];
        b->n = n;
}

static void make_text(struct part *p)
{
        struct message *m = p->m;
        struct buf raw = BUF_INIT;
        struct err e;
        bool cut = false;

        buf_clear(&m->kept_text);
        err_nomem(&e);
        if (!take_decoded(p, m->lim.text, &raw, &cut, &e) || !to_utf8(p, buf_str(&raw), cut, &m->kept_text)) {
                buf_clear(&m->kept_text);
                message_fail(m, &e);
        }
        buf_free(&raw);
        drop_crs(&m->kept_text);
        if (cut || m->kept_text.n > m->lim.text)
                message_add_defect(m, "text.cut");
        if (m->kept_text.n > m->lim.text)
                m->kept_text.n = utf8_cut(buf_str(&m->kept_text), m->lim.text).n;
}

struct str part_text(struct part *p)
{
        struct message *m = p->m;

        if (!p->mime && !p->other)
                return message_text(m);
        if (part_is_container(p) || !part_readable(p, NULL))
                return STR("");
        if (m->kept_text_of != p)
                make_text(p);
        m->kept_text_of = p;
        return m->kept_text.n ? buf_str(&m->kept_text) : STR("");
}

struct str part_content(struct part *p)
{
        struct message *m = p->m;
        struct err e;
        bool cut = false;

        if (!part_readable(p, NULL))
                return STR("");
        if (m->kept_content_of != p) {
                if (!take_decoded(p, m->lim.text, &m->kept_content, &cut, &e)) {
                        buf_clear(&m->kept_content);
                        message_fail(m, &e);
                }
                if (cut)
                        message_add_defect(m, "text.cut");
        }
        m->kept_content_of = p;
        return m->kept_content.n ? buf_str(&m->kept_content) : STR("");
}

/* Inside a message that this one carries. */
static bool is_nested(const struct part *p)
{
        for (p = p->parent; p->mime; p = p->parent)
                if (p->mime->kind == MIME_MESSAGE || (p->transparent && (p->made || str_starts(p->mime->type, STR("message/")))))
                        return true;
        return false;
}

enum { OWN_BODY, OWN_FILE, NESTED_BODY, OPENED /* and from here on the three inside wrappers */, CHOICES = 2 * OPENED };

/* The first leaf of that type: of the message itself and no file; then also what is named; then what a message inside says; at last
 * the same inside wrappers, for mail that is nothing but signed data or TNEF. */
static struct part *first_of(struct message *m, struct str type, int choice)
{
        bool open = choice >= OPENED;
        struct part **leaves;
        size_t n = open ? message_open_leaves(m, &leaves) : message_leaves(m, &leaves);

        choice -= open ? OPENED : 0;
        for (size_t i = 0; i < n; i++) {
                struct part *p = leaves[i];
                struct str disposition;

                if (open && !part_is_wrapped(p))
                        continue;
                if (type.n ? !str_eq(p->mime->type, type) : !str_starts(p->mime->type, STR("text/")))
                        continue;
                disposition = part_disposition(p);
                if ((choice == NESTED_BODY) != is_nested(p) || str_eq(disposition, STR("attachment")))
                        continue;
                if (choice == OWN_FILE || !part_name(p).p)
                        return p;
        }
        return NULL;
}

/* The first html part that is no file; NULL. */
static struct part *html_part(struct message *m)
{
        struct part *p = NULL;

        for (int choice = OWN_BODY; !p && choice < CHOICES; choice++)
                p = first_of(m, STR("text/html"), choice);
        return p;
}

static struct str keep_text(struct message *m, struct str s)
{
        struct str copy = arena_str(m->a, s);

        if (!copy.p)
                message_nomem(m);
        return copy;
}

/* The text of p as a person reads it: without the mark of Unicode, and with the quotes that Windows has where ISO 8859-1 has control
 * characters (part.text is what was declared). */
static bool as_read(struct part *p, struct buf *out)
{
        static const char *const latin1[] = { "iso-8859-1", "iso8859-1", "iso_8859-1", "latin1", "latin-1" };
        struct str s = part_text(p);
        bool mend = false;

        if (str_starts(s, STR("\xef\xbb\xbf")))
                s = str_from(s, 3);
        for (size_t i = 0; i < sizeof latin1 / sizeof *latin1; i++)
                mend = mend || str_eq(part_charset(p), str_of(latin1[i]));
        while (s.n) {
                size_t at = mend ? 0 : s.n;
                char byte;

                while (at < s.n && !(s.p[at] == '\xc2' && at + 1 < s.n && (unsigned char)s.p[at + 1] < 0xa0))
                        at++;
                buf_add(out, s.p, at);
                s = str_from(s, at);
                if (!s.n)
                        break;
                byte = s.p[1];
                if (!charset_to_utf8(STR("windows-1252"), str_make(&byte, 1), out, NULL, NULL))
                        return false;
                s = str_from(s, 2);
        }
        return !out->failed;
}

static struct str readable(struct message *m, struct part *p)
{
        struct buf out = BUF_INIT, in = BUF_INIT;
        struct str s = STR("");
        struct err e;

        err_nomem(&e);
        if (as_read(p, &in) && html_text(in.n ? buf_str(&in) : STR(""), m->lim.text, &out, &e))
                s = keep_text(m, buf_str(&out));
        else
                message_fail(m, &e);
        buf_free(&in);
        buf_free(&out);
        return s.p ? s : STR("");
}

/* What was said: without uuencoded files, and flowing again. */
static struct str plain_text(struct message *m, struct part *p)
{
        struct buf read = BUF_INIT, said = BUF_INIT, flowing = BUF_INIT;
        bool ok = as_read(p, &read);
        struct str s = read.n ? buf_str(&read) : STR("");

        if (ok && part_holds_files(p)) {
                ok = uu_strip(s, &said);
                s = buf_str(&said);
        }
        if (ok && p->flowed && str_eq(p->mime->type, STR("text/plain"))) {
                ok = flowed_unwrap(s, p->delsp, &flowing);
                s = buf_str(&flowing);
        }
        if (ok)
                s = keep_text(m, s);
        else
                message_nomem(m);
        buf_free(&read);
        buf_free(&said);
        buf_free(&flowing);
        return ok ? s : STR("");
}

static bool lies_in(const struct part *p, const struct part *around)
{
        while (p && p != around)
                p = p->parent;
        return p != NULL;
}

/* Html that stands before the plain text, and is no alternative to it: what follows is a list's footer, or a signature. */
static bool leads(const struct part *html, const struct part *plain)
{
        if (html->index > plain->index)
                return false;
        for (const struct part *p = html->parent; p && p->mime; p = p->parent)
                if (str_eq(p->mime->type, STR("multipart/alternative")) && lies_in(plain, p))
                        return false;
        return true;
}

/* Plain text that says nothing (a newsletter's empty alternative) gives way to html. */
static struct str best_text(struct message *m, int choice)
{
        struct part *plain = first_of(m, STR("text/plain"), choice), *html = first_of(m, STR("text/html"), choice), *other;
        struct str s;

        if (plain && html && leads(html, plain)) {
                s = readable(m, html);
                if (str_trim(s).n)
                        return s;
        }
        if (plain && (!html || str_trim(part_text(plain)).n)) {
                s = plain_text(m, plain);
                return s.p ? s : STR("");
        }
        if (html)
                return readable(m, html);
        other = first_of(m, STR(""), choice);
        return other ? keep_text(m, part_text(other)) : STR_NONE;
}

struct str message_text(struct message *m)
{
        for (int choice = OWN_BODY; !m->text_known && choice < CHOICES; choice++) {
                m->text = best_text(m, choice);
                m->text_known = m->text.p != NULL;
        }
        m->text_known = true;
        return m->text.p ? m->text : STR("");
}

struct str message_html(struct message *m)
{
        struct part *p;

        if (!m->html_known) {
                p = html_part(m);
                m->html = p ? keep_text(m, part_text(p)) : STR_NONE;
        }
        m->html_known = true;
        return m->html;
}

static char *percent_decoded(struct str s, char *out)
{
        for (size_t i = 0; i < s.n; i++) {
                int high = i + 2 < s.n && s.p[i] == '%' ? ascii_hex(s.p[i + 1]) : -1;
                int low = high >= 0 ? ascii_hex(s.p[i + 2]) : -1;

                *out++ = low >= 0 ? (char)(high * 16 + low) : s.p[i];
                i += low >= 0 ? 2 : 0;
        }
        return out;
}

/* RFC 2392: cid:url-encoded-identifier, ending where an attribute's or a style's value does. */
static bool note_cids(struct message *m, struct str html)
{
        static char here;
        char id[NAME_MAX_KEPT];

        for (;;) {
                size_t at = str_find_str_nocase(html, STR("cid:")), n = 0;
                struct str s;

                if (at == html.n)
                        return true;
                html = str_from(html, at + 4);
                while (n < html.n && n < sizeof id && !ascii_is_space(html.p[n]) && !strchr("\"'<>)", html.p[n]))
                        n++;
                s = str_make(id, (size_t)(percent_decoded(str_first(html, n), id) - id));
                if (s.n && !map_set(m->cids, s, &here, NULL))
                        return false;
        }
}

/* src=value, in quotes or not: pages that came with their pictures name them by Content-Location (RFC 2557). */
static bool note_srcs(struct message *m, struct str html)
{
        static char here;

        for (;;) {
                size_t at = str_find_str_nocase(html, STR("src="));
                struct str s;
                char quote;

                if (at == html.n)
                        return true;
                html = s = str_from(html, at + 4);
                quote = s.n && (s.p[0] == '"' || s.p[0] == '\'') ? s.p[0] : 0;
                s = str_first(str_from(s, quote != 0), NAME_MAX_KEPT);
                for (at = 0; at < s.n && (quote ? s.p[at] != quote : !ascii_is_space(s.p[at]) && s.p[at] != '>'); at++)
                        ;
                s = str_first(s, at);
                if (s.n && s.n < NAME_MAX_KEPT && !str_starts_nocase(s, STR("cid:")) && !map_set(m->srcs, s, &here, NULL))
                        return false;
                html = str_from(html, at);
        }
}

static void find_cids(struct message *m)
{
        struct part **leaves;
        size_t n = message_open_leaves(m, &leaves), htmls = 0;

        m->cids = map_new();
        m->srcs = map_new();
        if (!m->cids || !m->srcs) {
                message_nomem(m);
                return;
        }
        for (size_t i = 0; i < n && htmls < HTML_PARTS_MAX; i++) {
                if (!str_eq(leaves[i]->mime->type, STR("text/html")))
                        continue;
                htmls++;
                if (!note_cids(m, part_text(leaves[i])) || !note_srcs(m, part_text(leaves[i])))
                        message_nomem(m);
        }
}

bool message_shows(struct message *m, struct str id, struct str location)
{
        location = str_trim(location);
        if (!id.n && !location.n)
                return false;
        if (!m->cids)
                find_cids(m);
        return (m->cids && id.n && map_get(m->cids, id)) || (m->srcs && location.n && map_get(m->srcs, location));
}
