#include "core/filename.h"

#include "core/buf.h"
#include "core/charset.h"
#include "core/mem.h"
#include "core/unicode.h"

enum { SPACES_SUSPECT = 4 }; /* blanks in a row that hide what follows: nobody types so many */

/* What a name shows on the way in; text carries it through the steps. */
struct work {
        struct buf text, next;
        unsigned flags;
        bool out;        /* of memory, at any step */
};

static void swap(struct work *w)
{
        struct buf b = w->text;

        w->out |= w->text.failed || w->next.failed;
        w->text = w->next;
        w->next = b;
        buf_clear(&w->next);
}

/* Characters without a shape, which only mislead: directions, joiners, marks of order, tags. */
static bool is_invisible(uint32_t c)
{
        return c == 0xad || c == 0x61c || c == 0x180e || c == 0xfeff || (c >= 0x200b && c <= 0x200f) ||
               (c >= 0x202a && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || (c >= 0xfff9 && c <= 0xfffb) ||
               (c >= 0xe0000 && c <= 0xe0fff);
}

static bool is_space(uint32_t c)
{
        return c == ' ' || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* What no file system's name, no shell's word and no terminal's line should hold. */
static bool is_unsafe(uint32_t c)
{
        return c < 32 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || (c < 0x80 && memchr("/\\:*?\"<>|`$;&", (int)c, 13));
}

/* Step 1: valid UTF-8 without invisible characters. */
static void remove_invisible(struct work *w, struct str s)
{
        while (s.n > 0) {
                uint32_t c;
                size_t n = utf8_next(s, &c);

                if (is_invisible(c))
                        w->flags |= FILENAME_BIDI;
                else if (c == 0xfffd)
                        buf_add_char(&w->text, '_');
                else
                        buf_add(&w->text, s.p, n);
                s = str_from(s, n);
        }
}

/* Step 2: NFC, so that two ways to write é are one name. After step 1, which can bring a letter and its accent together. */
static void normalise(struct work *w)
{
        unicode_nfc(buf_str(&w->text), &w->next);
        swap(w);
}

/* Step 3: unsafe characters become '_', blanks of every kind one blank. After NFC, which can make ';' and '`'. */
static void replace_unsafe(struct work *w)
{
        struct str s = str_trim(buf_str(&w->text));
        unsigned blanks = 0;

        while (s.n > 0) {
                uint32_t c;
                size_t n = utf8_next(s, &c);

                if (is_space(c)) {
                        if (++blanks == SPACES_SUSPECT)
                                w->flags |= FILENAME_SPACES;
                        if (blanks == 1)
                                buf_add_char(&w->next, ' ');
                } else {
                        blanks = 0;
                        if (is_unsafe(c))
                                buf_add_char(&w->next, '_');
                        else
                                buf_add(&w->next, s.p, n);
                }
                s = str_from(s, n);
        }
        swap(w);
}

static struct str trim_end(struct str s)
{
        while (s.n > 0 && (s.p[s.n - 1] == '.' || s.p[s.n - 1] == ' '))
                s.n--;
        return s;
}

/* Names that Windows gives to devices, whatever stands behind the first dot. */
static bool is_device(struct str s)
{
        static const char *const names[] = { "con", "prn", "aux", "nul", "conin_", "conout_", "clock_" }; /* '$' is '_' by now */
        struct str stem = str_trim(str_first(s, str_find(s, '.')));

        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (str_eq_nocase(stem, str_of(names[i])))
                        return true;
        if (!str_starts_nocase(stem, STR("com")) && !str_starts_nocase(stem, STR("lpt")))
                return false;
        stem = str_from(stem, 3);
        return (stem.n == 1 && ascii_is_digit(stem.p[0])) || str_eq(stem, STR("\xc2\xb9")) || str_eq(stem, STR("\xc2\xb2")) ||
               str_eq(stem, STR("\xc2\xb3"));
}

/* Step 4: the ends. A name of dots and blanks only is none. */
static void mend_ends(struct work *w)
{
        struct str s = trim_end(str_trim(buf_str(&w->text)));

        if (s.n > 0 && s.p[0] == '.') {
                buf_add_char(&w->next, '_');
                s = str_from(s, 1);
        } else if (s.n > 0 && (s.p[0] == '-' || is_device(s))) {
                buf_add_char(&w->next, '_');
        }
        buf_add_str(&w->next, s);
        swap(w);
}

/* Step 5: the length; the extension stays, for people and programs go by it. */
static void shorten(struct work *w)
{
        struct str s = buf_str(&w->text), stem, ext;

        if (s.n <= FILENAME_MAX_BYTES)
                return;
        filename_split(s, &stem, &ext);
        if (ext.n == 0) {
                buf_add_str(&w->next, trim_end(utf8_cut(s, FILENAME_MAX_BYTES)));
        } else {
                buf_add_str(&w->next, trim_end(utf8_cut(stem, FILENAME_MAX_BYTES - 1 - ext.n)));
                buf_add_char(&w->next, '.');
                buf_add_str(&w->next, ext);
        }
        swap(w);
}

/* {645FF040-5081-101B-9F08-00AA002F954E}: Windows shows such an "extension" as something else. */
static bool has_clsid(struct str s)
{
        static const char shape[] = "{hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh}";

        for (;;) {
                size_t i = 0;

                s = str_from(s, str_find(s, '{'));
                if (s.n < sizeof shape - 1)
                        return false;
                while (shape[i] && (shape[i] == 'h' ? ascii_hex(s.p[i]) >= 0 : s.p[i] == shape[i]))
                        i++;
                if (!shape[i])
                        return true;
                s = str_from(s, 1);
        }
}

enum script { SCRIPT_NONE, SCRIPT_LATIN = 1, SCRIPT_LOOKALIKE = 2 }; /* Greek and Cyrillic have Latin's shapes */

static enum script script_of(uint32_t c)
{
        if ((c < 0x80 && ascii_is_alpha((char)c)) || (c >= 0xc0 && c < 0x250 && c != 0xd7 && c != 0xf7) || (c >= 0x1e00 && c < 0x1f00))
                return SCRIPT_LATIN;
        if ((c >= 0x370 && c < 0x530 && c != 0x37e && c != 0x387) || (c >= 0x1f00 && c < 0x2000))
                return SCRIPT_LOOKALIKE;
        return SCRIPT_NONE;
}

/* One word in two such scripts; a Cyrillic name with a Latin extension is two words. */
static bool is_mixed(struct str s)
{
        unsigned seen = 0;

        while (s.n > 0) {
                uint32_t c;
                enum script script;

                s = str_from(s, utf8_next(s, &c));
                script = script_of(c);
                seen = script == SCRIPT_NONE ? 0 : seen | script;
                if (seen == (SCRIPT_LATIN | SCRIPT_LOOKALIKE))
                        return true;
        }
        return false;
}

static struct str clean(struct str name, bool component, unsigned *flags, struct arena *a)
{
        struct work w = { BUF_INIT, BUF_INIT, 0, false };
        struct str out = STR_NONE;

        remove_invisible(&w, name);
        normalise(&w);
        replace_unsafe(&w);
        mend_ends(&w);
        if (component)
                shorten(&w);
        if (has_clsid(buf_str(&w.text)))
                w.flags |= FILENAME_CLSID;
        if (is_mixed(buf_str(&w.text)))
                w.flags |= FILENAME_MIXED;
        if (!str_eq(buf_str(&w.text), name))
                w.flags |= FILENAME_CHANGED;
        w.out |= w.text.failed || w.next.failed;
        if (w.out)
                arena_note_out(a);
        else
                out = w.text.n ? arena_str(a, buf_str(&w.text)) : STR("");
        if (flags)
                *flags |= w.flags;
        buf_free(&w.text);
        buf_free(&w.next);
        return out;
}

/* What follows the last separator of either kind. */
static struct str last_component(struct str s)
{
        size_t n = s.n;

        while (n > 0 && s.p[n - 1] != '/' && s.p[n - 1] != '\\')
                n--;
        return str_from(s, n);
}

struct str filename_clean(struct str name, unsigned *flags, struct arena *a)
{
        struct str last = last_component(name);
        struct str out = clean(last, true, flags, a);

        if (flags && last.n != name.n)
                *flags |= FILENAME_CHANGED;
        return out;
}

struct str filename_clean_value(struct str value, struct arena *a)
{
        return clean(value, false, NULL, a);
}

void filename_split(struct str name, struct str *stem, struct str *ext)
{
        size_t dot = str_rfind(name, '.');

        *stem = name;
        *ext = STR("");
        if (dot == 0 || dot >= name.n - 1 || name.n - 1 - dot > FILENAME_EXT_MAX)
                return;
        for (size_t i = dot + 1; i < name.n; i++)
                if (!ascii_is_alnum(name.p[i]))
                        return;
        *stem = str_first(name, dot);
        *ext = str_from(name, dot + 1);
}

struct str filename_number(struct str name, unsigned n, struct arena *a)
{
        struct str stem, ext, suffix = arena_printf(a, " (%u)", n);
        size_t room;

        if (!suffix.p)
                return STR_NONE;
        filename_split(name, &stem, &ext);
        room = FILENAME_MAX_BYTES - suffix.n - (ext.n ? ext.n + 1 : 0);
        stem = trim_end(utf8_cut(stem, room));
        return arena_printf(a, "%.*s%.*s%s%.*s", STR_FMT(stem), STR_FMT(suffix), ext.n ? "." : "", STR_FMT(ext));
}
