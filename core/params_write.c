/* A parameter as it is written: as it stands, quoted, or by RFC 2231. */
#include "core/params.h"

#include "core/buf.h"

/* Text that a reader takes as it stands: ASCII, and nothing like an encoded-word. */
static bool is_ascii_text(struct str s)
{
        if (str_find_str(s, STR("=?")) < s.n)
                return false;
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] < 32 || s.p[i] >= 127)
                        return false;
        return true;
}

static bool is_token(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] <= 32 || s.p[i] >= 127 || memchr("()<>@,;:\\\"/[]?=*'%", s.p[i], 18))
                        return false;
        return s.n > 0;
}

static void add_quoted(struct buf *b, struct str s)
{
        buf_add_char(b, '"');
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] == '"' || s.p[i] == '\\')
                        buf_add_char(b, '\\');
                buf_add_char(b, s.p[i]);
        }
        buf_add_char(b, '"');
}

/* RFC 2231 in sections: a line stays below 78 columns. */
static void add_extended(struct buf *b, struct str name, struct str s)
{
        enum { SECTION_MAX = 50 };
        static const char hex[] = "0123456789ABCDEF";
        unsigned section = 0;
        size_t width = 0;

        buf_printf(b, "*0*=utf-8''");
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];

                if (width > SECTION_MAX && (c & 0xc0) != 0x80) {
                        buf_printf(b, ";\r\n %.*s*%u*=", STR_FMT(name), ++section);
                        width = 0;
                }
                if (ascii_is_alnum((char)c) || c == '.' || c == '-' || c == '_') {
                        buf_add_char(b, (char)c);
                        width++;
                        continue;
                }
                buf_add_char(b, '%');
                buf_add_char(b, hex[c >> 4]);
                buf_add_char(b, hex[c & 15]);
                width += 3;
        }
}

struct str params_encode(struct str name, struct str utf8, struct arena *a)
{
        struct buf b = BUF_INIT;
        struct str out = STR_NONE;

        buf_printf(&b, ";\r\n %.*s", STR_FMT(name));
        if (is_token(utf8) && utf8.n < 60) {
                buf_printf(&b, "=%.*s", STR_FMT(utf8));
        } else if (is_ascii_text(utf8) && utf8.n < 60) {
                buf_add_char(&b, '=');
                add_quoted(&b, utf8);
        } else {
                size_t at = b.n;

                add_extended(&b, name, utf8);
                if (b.n > at + 2 && !memchr(b.p + at, ';', b.n - at)) { /* one section needs no number */
                        memmove(b.p + at, b.p + at + 2, b.n - at - 2);
                        b.n -= 2;
                }
        }
        if (!b.failed)
                out = arena_str(a, buf_str(&b));
        buf_free(&b);
        return out;
}
