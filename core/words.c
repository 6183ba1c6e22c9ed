#include "core/words.h"

#include "core/base64.h"
#include "core/buf.h"
#include "core/charset.h"
#include "core/mem.h"
#include "core/qp.h"

enum {
        EXPANSION = 4, EXPANSION_MORE = 1024, /* the output is at most 4 * in + 1 KiB */
        LINE_WIDTH = 76,                      /* RFC 2047 2: "no more than 76 characters" a line with encoded-words */
        WORD_BYTES = 42,                      /* UTF-8 bytes in one word: 56 in base64, with "=?utf-8?b?" and "?=" 68 */
};

/* Decoding. */

struct word {
        struct str charset, text;
        char encoding; /* 'b' or 'q' */
        size_t size;   /* of the whole word */
};

struct decoder {
        struct buf out;      /* UTF-8 */
        struct buf pending;  /* bytes of words in `charset`, not yet converted */
        struct base64 group; /* of a word in base64 that ended in the middle of one: the next word may have the rest */
        struct str charset;
        struct str fallback;
        unsigned words, words_max;
        unsigned defects;
        bool no_end;         /* no "?=" in the rest: searching again would be quadratic */
};

static bool is_charset_char(char c)
{
        return c > 32 && c < 127 && !memchr("?<>()[]\",;@", c, 11);
}

/* The start of an encoded-word at the start of s: "=?" charset "?" encoding "?". Returns its length, or 0. */
static size_t match_start(struct str s, struct word *w)
{
        size_t at = 2;

        if (!str_starts(s, STR("=?")))
                return 0;
        while (at < s.n && is_charset_char(s.p[at]))
                at++;
        if (at == 2 || at + 3 > s.n || s.p[at] != '?' || s.p[at + 2] != '?')
                return 0;
        w->charset = str_make(s.p + 2, at - 2);
        w->charset = str_first(w->charset, str_find(w->charset, '*')); /* a language: RFC 2231 5 */
        w->encoding = ascii_lower(s.p[at + 1]);
        return w->encoding == 'b' || w->encoding == 'q' ? at + 3 : 0;
}

/* A whole one, with "?=" at its end. Blanks inside the text are real mail's. */
static bool match_word(struct decoder *d, struct str s, struct word *w)
{
        size_t start = d->no_end ? 0 : match_start(s, w), end;

        if (start == 0)
                return false;
        s = str_from(s, start);
        end = str_find_str(s, STR("?="));
        if (end == s.n) {
                d->no_end = true;
                d->defects |= WORDS_BAD;
                return false;
        }
        w->text = str_first(s, end);
        w->size = start + end + 2;
        return true;
}

bool words_unended(struct str line)
{
        struct word w;

        while (line.n > 0) {
                size_t start;

                line = str_from(line, str_find_str(line, STR("=?")));
                start = match_start(line, &w);
                if (start > 0) {
                        line = str_from(line, start);
                        if (str_find_str(line, STR("?=")) == line.n)
                                return true;
                        line = str_from(line, str_find_str(line, STR("?=")));
                }
                line = str_from(line, 2);
        }
        return false;
}

/* What calls itself ISO 8859-1 or ASCII and has what are control characters there is Windows-1252. */
static bool is_windows(struct str charset, struct str bytes)
{
        if (!str_eq_nocase(charset, STR("iso-8859-1")) && !str_eq_nocase(charset, STR("us-ascii")))
                return false;
        for (size_t i = 0; i < bytes.n; i++)
                if ((unsigned char)bytes.p[i] >= 0x80 && (unsigned char)bytes.p[i] < 0xa0)
                        return true;
        return false;
}

static void flush(struct decoder *d)
{
        bool bad = false, unknown = false;

        if (d->group.held > 0)
                d->defects |= WORDS_BAD;
        d->group = (struct base64){ 0 };
        if (d->pending.n == 0)
                return;
        if (is_windows(d->charset, buf_str(&d->pending)))
                d->charset = STR("windows-1252");
        charset_to_utf8(d->charset, buf_str(&d->pending), &d->out, &bad, &unknown);
        d->defects |= (bad ? WORDS_BAD : 0) | (unknown ? WORDS_CHARSET : 0);
        buf_clear(&d->pending);
}

static void add_base64(struct decoder *d, struct str text)
{
        struct base64 *b = &d->group;
        char *to = d->pending.p + d->pending.n;
        size_t n = base64_decode(b, text, to);

        if (b->garbage)
                d->defects |= WORDS_BAD;
        b->garbage = false;
        if (base64_could_end(b)) {
                n += base64_end(b, to + n);
                *b = (struct base64){ 0 };
        }
        d->pending.n += n;
}

static void add_word(struct decoder *d, const struct word *w)
{
        d->words++;
        if (!str_eq_nocase(w->charset, d->charset) || (d->group.held > 0 && w->encoding != 'b'))
                flush(d);
        d->charset = w->charset;
        if (!buf_reserve(&d->pending, base64_room(w->text.n) + w->text.n))
                return;
        if (w->encoding == 'b')
                add_base64(d, w->text);
        else
                d->pending.n += qp_decode_word(w->text, d->pending.p + d->pending.n);
}

/* Text outside of words: 8-bit bytes in it are somebody's mistake, mostly in UTF-8. A fallback that is UTF-8 is already
 * refuted when we ask it. */
static void add_raw(struct decoder *d, struct str s)
{
        bool bad = false, unknown = false;

        if (s.n == 0)
                return;
        flush(d);
        d->charset = STR_NONE;
        if (utf8_valid(s)) {
                buf_add_str(&d->out, s);
                return;
        }
        d->defects |= WORDS_BAD;
        if (d->fallback.n == 0 || str_starts_nocase(d->fallback, STR("utf")))
                charset_to_utf8(STR("windows-1252"), s, &d->out, &bad, &unknown);
        else
                charset_to_utf8(d->fallback, s, &d->out, &bad, &unknown);
}

static bool is_all_blank(struct str s)
{
        return str_trim(s).n == 0;
}

static void decode(struct decoder *d, struct str in)
{
        bool after_word = false;
        size_t at = 0, start = 0; /* of text not yet given out */
        struct word w;

        while (at < in.n) {
                at += str_find(str_from(in, at), '=');
                if (at == in.n)
                        break;
                if (!match_word(d, str_from(in, at), &w)) {
                        at++;
                        continue;
                }
                if (d->words == d->words_max) {
                        d->defects |= WORDS_LIMIT;
                        break;
                }
                if (!after_word || !is_all_blank(str_make(in.p + start, at - start)))
                        add_raw(d, str_make(in.p + start, at - start));
                add_word(d, &w);
                after_word = true;
                start = at += w.size;
        }
        add_raw(d, str_from(in, start));
        flush(d);
}

/* What a decoded value never holds: line ends become blanks, all other control characters but TAB go. */
static size_t drop_controls(char *p, size_t n)
{
        size_t kept = 0;

        for (size_t i = 0; i < n; i++) {
                unsigned char c = (unsigned char)p[i];

                if (c == '\n' || (c == '\r' && !(i + 1 < n && p[i + 1] == '\n')))
                        p[kept++] = ' ';
                else if (c == 0xc2 && i + 1 < n && (unsigned char)p[i + 1] < 0xa0) /* U+0080 to U+009F */
                        i++;
                else if (c == '\t' || (c >= 32 && c != 127))
                        p[kept++] = (char)c;
        }
        return kept;
}

/* The buffer's limit is a limit of the message; being out of memory is not. */
static struct str finish(struct decoder *d, struct arena *a)
{
        struct str s = STR_NONE;

        if (d->out.over)
                d->defects |= WORDS_LIMIT;
        if ((!d->out.failed || d->out.over) && !d->pending.failed) {
                size_t n = d->out.n ? drop_controls(d->out.p, d->out.n) : 0;

                if (n != d->out.n)
                        d->defects |= WORDS_BAD;
                s = n ? arena_str(a, str_make(d->out.p, n)) : STR("");
        }
        buf_free(&d->out);
        buf_free(&d->pending);
        return s;
}

static bool is_plain(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((s.p[i] < 32 && s.p[i] != '\t') || s.p[i] == 127)
                        return false;
        return true;
}

struct str words_decode(struct str in, struct str fallback, const struct limits *lim, unsigned *defects, struct arena *a)
{
        struct decoder d = { .fallback = fallback, .words_max = lim->words };
        struct str out;

        if (in.n == 0)
                return STR("");
        if (in.n > lim->header_field) {
                in = utf8_cut(in, lim->header_field);
                d.defects |= WORDS_LIMIT;
        }
        if (str_find_str(in, STR("=?")) == in.n && is_plain(in)) {
                *defects |= d.defects;
                return in;
        }
        buf_init(&d.out, EXPANSION * in.n + EXPANSION_MORE);
        buf_init(&d.pending, 0);
        decode(&d, in);
        out = finish(&d, a);
        *defects |= d.defects;
        return out;
}

/* Encoding. */

/* A word that cannot stand as it is: not ASCII, a control character, or what a reader would take for an encoded-word. */
static bool needs_encoding(struct str word)
{
        if (str_find_str(word, STR("=?")) < word.n || word.n > 200)
                return true;
        for (size_t i = 0; i < word.n; i++)
                if (word.p[i] < 32 || word.p[i] >= 127)
                        return true;
        return false;
}

/* RFC 5322 3.2.3, atext, and the blanks between words. */
static bool needs_quotes(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!ascii_is_alnum(s.p[i]) && !memchr(" !#$%&'*+-/=?^_`{|}~", s.p[i], 20))
                        return true;
        return false;
}

struct writer {
        struct buf out;
        size_t column;
        bool inked; /* the line has more than blanks: it may end (RFC 5322 3.2.2) */
};

/* Puts a piece on the line with a blank before it, or on a new one. */
static void put_piece(struct writer *w, struct str piece, bool blank)
{
        if (blank && w->column + 1 + piece.n > LINE_WIDTH && w->inked && piece.n > 0) {
                buf_add(&w->out, "\r\n ", 3);
                w->column = 1;
                w->inked = false;
        } else if (blank) {
                buf_add_char(&w->out, ' ');
                w->column++;
        }
        buf_add_str(&w->out, piece);
        w->column += piece.n;
        w->inked |= piece.n > 0;
}

/* Words as they are, of which two blanks in a row have an empty one between them. */
static void put_words(struct writer *w, struct str s, bool blank)
{
        for (size_t at = 0; at <= s.n; blank = true) {
                struct str word = str_from(s, at);

                word = str_first(word, str_find(word, ' '));
                put_piece(w, word, blank);
                at += word.n + 1;
        }
}

/* What an encoded-word may hold that has to stand on this line: there is no blank before it to fold at. */
static size_t bytes_left(const struct writer *w)
{
        enum { AROUND = 12, LEAST = 8 }; /* "=?utf-8?b?" and "?="; a character */
        size_t room = w->column + AROUND + LEAST < LINE_WIDTH ? LINE_WIDTH - w->column - AROUND : LEAST;

        room = room / 4 * 3;
        return room < WORD_BYTES ? room : WORD_BYTES;
}

/* Encoded-words of whole characters, base64 (it is the shorter one for every script but Latin's, and never wrong). */
static void put_encoded(struct writer *w, struct str text, bool blank)
{
        while (text.n > 0) {
                char word[WORD_BYTES * 2 + 16] = "=?utf-8?b?";
                struct str part = utf8_cut(text, blank ? WORD_BYTES : bytes_left(w));
                size_t n = 10;

                n += base64_encode(part, word + n);
                memcpy(word + n, "?=", 2);
                put_piece(w, str_make(word, n + 2), blank);
                text = str_from(text, part.n);
                blank = true;
        }
}

static void put_quoted(struct writer *w, struct str s)
{
        struct buf q = BUF_INIT;

        buf_add_char(&q, '"');
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] == '"' || s.p[i] == '\\')
                        buf_add_char(&q, '\\');
                buf_add_char(&q, s.p[i]);
        }
        buf_add_char(&q, '"');
        put_piece(w, buf_str(&q), false);
        w->out.failed |= q.failed;
        buf_free(&q);
}

/* A fold is read as one blank, whatever stands around it: where several stand in a row, text that takes more than a line, or that has
 * words to be encoded, would lose some. */
static bool has_gap_to_lose(const struct writer *w, struct str s, bool encoded)
{
        return (encoded || w->column + s.n > LINE_WIDTH) && str_find_str(s, STR("  ")) < s.n;
}

/* The first and the last word that need encoding, and all between them, go into one run: blanks between two
 * encoded-words are not shown, so those of the text must stand inside. */
static void put_text(struct writer *w, struct str s)
{
        size_t first = s.n, last = 0;
        struct str rest = s, word;

        while (rest.n > 0) {
                size_t at = s.n - rest.n;

                word = str_take(&rest, ' ');
                if (!needs_encoding(word))
                        continue;
                first = first < at ? first : at;
                last = at + word.n;
        }
        if (has_gap_to_lose(w, s, first < s.n))
                first = 0, last = s.n;
        if (first > 0)
                put_words(w, first < s.n ? str_first(s, first - 1) : s, false);
        if (first == s.n)
                return;
        put_encoded(w, str_make(s.p + first, last - first), first > 0);
        if (last < s.n)
                put_words(w, str_from(s, last + 1), true);
}

struct str words_encode(struct str utf8, bool phrase, size_t column, struct arena *a)
{
        struct writer w = { BUF_INIT, column, column > 0 };
        struct buf clean = BUF_INIT;
        struct str s, out = STR_NONE;

        utf8_clean(str_trim(utf8), &clean);
        s = buf_str(&clean);
        if (phrase && !needs_encoding(s) && needs_quotes(s))
                put_quoted(&w, s);
        else if (phrase && needs_quotes(s))
                put_encoded(&w, s, false);
        else
                put_text(&w, s);
        if (!clean.failed && !w.out.failed)
                out = w.out.n ? arena_str(a, buf_str(&w.out)) : STR("");
        buf_free(&clean);
        buf_free(&w.out);
        return out;
}
