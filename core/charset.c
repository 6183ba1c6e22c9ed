#include "core/charset.h"

#include <errno.h>
#include <iconv.h>
#include <pthread.h>

#include "core/charset_shift.h"
#include "core/mem.h"

enum {
        NAME_MAX_BYTES = 64, /* the longest name iconv knows has 32 */
        CARRY_MAX = 16,      /* bytes of an unfinished character: 4, or an ISO 2022 escape */
        STEP_MAX = 64,       /* bytes of UTF-8 that one step of a converter writes at most */
        CACHE_MAX = 8,       /* converters a thread keeps; a message rarely has three charsets */
};

/* How bytes are read. MIXED: UTF-8 where it is valid, each other byte as Windows-1252. */
enum kind { KIND_UTF8, KIND_LATIN1, KIND_WINDOWS, KIND_MIXED, KIND_ICONV };

struct charset_stream {
        enum kind kind;
        bool bad;
        unsigned unit;      /* bytes to skip after an invalid sequence */
        bool by_bytes;      /* UTF-7: glibc finds an invalid character behind its first bytes, and which of them it gives back depends
                             * on how many it was given */
        bool shifts;        /* cd reads the runs of shift_next */
        struct shift shift;
        iconv_t cd;
        char name[NAME_MAX_BYTES + 1];
        size_t held;
        char carry[CARRY_MAX];
};

/* UTF-8. */

size_t utf8_next(struct str s, uint32_t *cp)
{
        const unsigned char *p = (const unsigned char *)s.p;
        uint32_t c = p[0], low;
        size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;

        *cp = len == 1 ? c : 0xfffd;
        if (len < 2 || len > s.n)
                return 1;
        c &= 0x7fu >> len;
        for (size_t i = 1; i < len; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 1;
                c = c << 6 | (p[i] & 0x3fu);
        }
        low = len == 2 ? 0x80 : len == 3 ? 0x800 : 0x10000;
        if (c < low || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
                return 1;
        *cp = c;
        return len;
}

size_t utf8_put(uint32_t cp, char out[4])
{
        if (cp < 0x80) {
                out[0] = (char)cp;
                return 1;
        }
        if (cp < 0x800) {
                out[0] = (char)(0xc0 | cp >> 6);
                out[1] = (char)(0x80 | (cp & 0x3f));
                return 2;
        }
        if (cp < 0x10000) {
                out[0] = (char)(0xe0 | cp >> 12);
                out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
                out[2] = (char)(0x80 | (cp & 0x3f));
                return 3;
        }
        out[0] = (char)(0xf0 | cp >> 18);
        out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
        out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[3] = (char)(0x80 | (cp & 0x3f));
        return 4;
}

/* utf8_next answers U+FFFD with length 1 only for an invalid byte: the character itself is three bytes long. */
static bool is_invalid(uint32_t cp, size_t len)
{
        return cp == 0xfffd && len == 1;
}

/* The bytes of s, from its start, that are ASCII: most mail is. */
static size_t ascii_run(struct str s)
{
        size_t i = 0;
        uint64_t eight;

        for (; i + 8 <= s.n; i += 8) {
                memcpy(&eight, s.p + i, 8);
                if (eight & UINT64_C(0x8080808080808080))
                        break;
        }
        while (i < s.n && (unsigned char)s.p[i] < 0x80)
                i++;
        return i;
}

/* The bytes of s, from its start, that are valid UTF-8. */
static size_t valid_run(struct str s)
{
        size_t i = 0, len;
        uint32_t cp;

        while (i < s.n) {
                i += ascii_run(str_from(s, i));
                if (i == s.n)
                        break;
                len = utf8_next(str_from(s, i), &cp);
                if (is_invalid(cp, len))
                        break;
                i += len;
        }
        return i;
}

bool utf8_valid(struct str s)
{
        return valid_run(s) == s.n;
}

bool utf8_clean(struct str s, struct buf *out)
{
        while (s.n > 0) {
                size_t good = valid_run(s);

                buf_add(out, s.p, good);
                s = str_from(s, good);
                if (s.n > 0) {
                        buf_add(out, "\xef\xbf\xbd", 3);
                        s = str_from(s, 1);
                }
        }
        return !out->failed;
}

struct str utf8_cut(struct str s, size_t n)
{
        if (s.n <= n)
                return s;
        for (unsigned back = 0; back < 4 && n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80; back++)
                n--;
        return str_first(s, n);
}

/* One UTF-8 sequence at the end of s that more bytes could complete: how many bytes of it are there. */
static size_t unfinished(struct str s)
{
        for (size_t back = 1; back <= 3 && back <= s.n; back++) {
                unsigned char c = (unsigned char)s.p[s.n - back];

                if ((c & 0xc0) == 0x80)
                        continue;
                if (c >= 0xc2 && c < 0xf5 && back < (c < 0xe0 ? 2u : c < 0xf0 ? 3u : 4u))
                        return back;
                return 0;
        }
        return 0;
}

/* Names. */

struct alias {
        const char *name, *iconv;
};

/* What mail calls a charset and what glibc calls it; the lower rows widen, as the web's encoding standard does. */
static const struct alias aliases[] = {
        { "cp-850", "CP850" }, { "x-sjis", "CP932" }, { "x-ms-cp932", "CP932" }, { "ms_kanji", "CP932" },
        { "ks_c_5601-1987", "CP949" }, { "ks_c_5601-1989", "CP949" }, { "ksc5601", "CP949" }, { "ksc_5601", "CP949" },
        { "ks_c_5601", "CP949" }, { "x-windows-949", "CP949" }, { "windows-949", "CP949" },
        { "iso-8859-8-i", "ISO-8859-8" }, { "iso-8859-8-e", "ISO-8859-8" }, { "iso-8859-6-i", "ISO-8859-6" },
        { "iso-8859-6-e", "ISO-8859-6" }, { "logical", "ISO-8859-8" }, { "visual", "ISO-8859-8" },
        { "unicode-1-1-utf-7", "UTF-7" }, { "x-unicode-2-0-utf-7", "UTF-7" }, { "csunicode11utf7", "UTF-7" },
        { "unicode", "UTF-16LE" }, { "x-gbk", "GB18030" }, { "x-euc-jp", "EUC-JP" }, { "eucjp", "EUC-JP" }, { "x-euc", "EUC-JP" }, { "x-big5", "BIG5-HKSCS" },
        { "cn-big5", "BIG5-HKSCS" }, { "big5", "BIG5-HKSCS" }, { "cn-gb", "GB18030" }, { "csgb2312", "GB18030" },
        { "ansi_x3.110", "ANSI_X3.110" }, { "ansi_x3.110-1983", "ANSI_X3.110-1983" }, { "x-mac-roman", "MACINTOSH" },
        { "macroman", "MACINTOSH" }, { "x-macroman", "MACINTOSH" }, { "mac-roman", "MACINTOSH" }, { "x-mac-cyrillic", "MAC-CYRILLIC" },
        { "x-mac-ce", "MAC-CENTRALEUROPE" }, { "x-cp1250", "CP1250" }, { "x-cp1251", "CP1251" }, { "x-cp1252", "CP1252" },
        { "koi8", "KOI8-R" }, { "koi", "KOI8-R" }, { "dos-874", "CP874" }, { "windows-874", "CP874" }, { "tis-620", "CP874" },
        { "iso-8859-11", "CP874" }, { "iso-8859-9", "CP1254" }, { "latin5", "CP1254" }, { "windows-31j", "CP932" },
        { "gb2312", "GB18030" }, { "gbk", "GB18030" }, { "gb_2312-80", "GB18030" }, { "cp936", "GB18030" },
        { "windows-936", "GB18030" }, { "shift_jis", "CP932" }, { "shift-jis", "CP932" },
        { "sjis", "CP932" }, { "euc-kr", "CP949" }, { "euckr", "CP949" }, { "utf-16", "UTF-16" },
};
/* Charsets that shift, and their twins. */
static const struct alias shifting[] = {
        { "iso-2022-jp", "EUC-JP" }, { "csiso2022jp", "EUC-JP" }, { "iso2022-jp", "EUC-JP" }, { "iso2022jp", "EUC-JP" },
        { "iso-2022-jp-ms", "EUC-JP" }, { "x-iso-2022-jp", "EUC-JP" }, { "cp50220", "EUC-JP" }, { "cp50221", "EUC-JP" },
        { "jis", "EUC-JP" }, { "hz-gb-2312", "GB18030" }, { "hz", "GB18030" }, { "hz-gb2312", "GB18030" },
};
static const char *const utf8_names[] = { "utf-8", "utf8", "unicode-1-1-utf-8", "utf_8", "utf8mb4", "x-utf-8" };
static const char *const latin1_names[] = {
        "iso-8859-1", "iso8859-1", "iso_8859-1", "iso88591", "iso8859_1", "latin1", "latin-1", "l1", "iso_8859-1:1987",
        "iso-8859-1:1987", "csisolatin1", "cp819", "ibm819",
};
static const char *const windows_names[] = { "windows-1252", "cp1252", "cp-1252", "win-1252", "windows1252" };
/* No charset at all, or a word that says nothing: UTF-8 where valid is what such mail means. */
static const char *const ascii_names[] = {
        "us-ascii", "ascii", "ansi_x3.4-1968", "ansi_x3.4-1986", "iso-ir-6", "iso646-us", "us", "ibm367", "cp367", "csascii",
};
/* Names by which glibc means its own memory layouts: never what mail means. */
static const char *const internal_names[] = { "internal", "wchar_t", "char", "ucs-4-internal", "ucs-2-internal", "ucs4-internal" };

#define IN_LIST(name, list) in_list(name, list, sizeof(list) / sizeof *(list))

static bool in_list(struct str name, const char *const *list, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (str_eq_nocase(name, str_of(list[i])))
                        return true;
        return false;
}

/* "/" would let a name reach iconv's modes ("//TRANSLIT"), so nothing but what charset names are made of. */
static bool name_is_sane(struct str name)
{
        if (name.n > NAME_MAX_BYTES || IN_LIST(name, internal_names))
                return false;
        for (size_t i = 0; i < name.n; i++)
                if (!ascii_is_alnum(name.p[i]) && !memchr("-_.:()+", name.p[i], 7))
                        return false;
        return true;
}

#define LOOK_UP(name, list) look_up(name, list, sizeof(list) / sizeof *(list))

static const struct alias *look_up(struct str name, const struct alias *list, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (str_eq_nocase(name, str_of(list[i].name)))
                        return &list[i];
        return NULL;
}

/* A charset's name as senders write it: blanks and quotes around it, a language behind '*' (RFC 2231 5). */
static struct str bare_name(struct str name)
{
        name = str_first(name, str_find(name, '*'));
        for (;;) {
                struct str was = name;

                name = str_trim(name);
                if (name.n >= 2 && (name.p[0] == '"' || name.p[0] == '\'') && name.p[name.n - 1] == name.p[0])
                        name = str_make(name.p + 1, name.n - 2);
                if (name.n == was.n)
                        return name;
        }
}

/* Converters, kept by each thread: opening one costs more than converting a subject. */

struct cache {
        unsigned next;
        struct {
                char name[NAME_MAX_BYTES + 1]; /* "" where empty */
                iconv_t cd;
        } slots[CACHE_MAX];
};

static pthread_once_t cache_once = PTHREAD_ONCE_INIT;
static pthread_key_t cache_key;
static bool cache_usable;

static void cache_free(void *p)
{
        struct cache *c = p;

        for (unsigned i = 0; i < CACHE_MAX; i++)
                if (c->slots[i].name[0])
                        iconv_close(c->slots[i].cd);
        mem_free(c);
}

static void cache_init(void)
{
        cache_usable = pthread_key_create(&cache_key, cache_free) == 0;
}

static struct cache *cache_get(void)
{
        struct cache *c;

        pthread_once(&cache_once, cache_init);
        if (!cache_usable)
                return NULL;
        c = pthread_getspecific(cache_key);
        if (c)
                return c;
        c = mem_zero(sizeof *c);
        if (c && pthread_setspecific(cache_key, c) != 0) {
                mem_free(c);
                c = NULL;
        }
        return c;
}

/* Takes a converter out of the cache, or opens one: it belongs to the caller until converter_put. */
static iconv_t converter_get(const char *name)
{
        struct cache *c = cache_get();

        for (unsigned i = 0; c && i < CACHE_MAX; i++) {
                if (strcmp(c->slots[i].name, name) != 0)
                        continue;
                c->slots[i].name[0] = 0;
                return c->slots[i].cd;
        }
        return iconv_open("UTF-8", name);
}

static void converter_put(const char *name, iconv_t cd)
{
        struct cache *c = cache_get();
        unsigned i;

        if (!c) {
                iconv_close(cd);
                return;
        }
        iconv(cd, NULL, NULL, NULL, NULL);
        for (i = 0; i < CACHE_MAX && c->slots[i].name[0]; i++)
                ;
        if (i == CACHE_MAX) {
                i = c->next++ % CACHE_MAX;
                iconv_close(c->slots[i].cd);
        }
        memcpy(c->slots[i].name, name, strlen(name) + 1);
        c->slots[i].cd = cd;
}

/* Streams. */

static void open_iconv(struct charset_stream *s, struct str name, bool *unknown)
{
        const struct alias *known = LOOK_UP(name, shifting);

        s->shifts = known != NULL;
        s->shift.hz = known && ascii_lower(name.p[0]) == 'h';
        known = known ? known : LOOK_UP(name, aliases);
        name = known ? str_of(known->iconv) : name;
        memcpy(s->name, name.p, name.n);
        s->name[name.n] = 0;
        for (size_t i = 0; i < name.n; i++) /* one cache slot for one charset */
                if (s->name[i] >= 'a' && s->name[i] <= 'z')
                        s->name[i] = (char)(s->name[i] - 32);
        s->cd = converter_get(s->name);
        if (s->cd == (iconv_t)-1) {
                *unknown = true;
                return;
        }
        s->kind = KIND_ICONV;
        s->by_bytes = strncmp(s->name, "UTF-7", 5) == 0 || strcmp(s->name, "UTF7") == 0;
        s->unit = strncmp(s->name, "UTF-16", 6) == 0 || strncmp(s->name, "UCS-2", 5) == 0 ? 2
                : strncmp(s->name, "UTF-32", 6) == 0 || strncmp(s->name, "UCS-4", 5) == 0 ? 4
                : s->shifts ? 2 : 1;
}

static void stream_open(struct charset_stream *s, struct str charset, bool *unknown)
{
        struct str name = bare_name(charset);

        memset(s, 0, sizeof *s);
        s->kind = KIND_MIXED;
        if (name.n == 0 || IN_LIST(name, ascii_names))
                return;
        if (IN_LIST(name, utf8_names))
                s->kind = KIND_UTF8;
        else if (IN_LIST(name, latin1_names))
                s->kind = KIND_LATIN1;
        else if (IN_LIST(name, windows_names))
                s->kind = KIND_WINDOWS;
        else if (!name_is_sane(name))
                *unknown = true;
        else
                open_iconv(s, name, unknown);
}

static const uint16_t latin_high[32] = { /* Windows-1252, 0x80 to 0x9f; 0 where it has nothing */
        0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0, 0x017d, 0,
        0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0, 0x017e, 0x0178,
};

static void add_latin(struct charset_stream *s, unsigned char c, struct buf *out)
{
        bool wide = s->kind != KIND_LATIN1 && c >= 0x80 && c < 0xa0;
        uint32_t cp = wide ? latin_high[c - 0x80] : c;
        char u[4];

        if (cp == 0) {
                cp = 0xfffd;
                s->bad = true;
        }
        buf_add(out, u, utf8_put(cp, u));
}

static void feed_latin(struct charset_stream *s, struct str in, struct buf *out)
{
        while (in.n > 0) {
                size_t plain = ascii_run(in);

                buf_add(out, in.p, plain);
                in = str_from(in, plain);
                if (in.n > 0) {
                        add_latin(s, (unsigned char)in.p[0], out);
                        in = str_from(in, 1);
                }
        }
}

/* UTF8 and MIXED. in ends with a whole character, or is the end. */
static void feed_utf8(struct charset_stream *s, struct str in, struct buf *out)
{
        while (in.n > 0) {
                size_t good = valid_run(in);

                buf_add(out, in.p, good);
                in = str_from(in, good);
                if (in.n == 0)
                        break;
                if (s->kind == KIND_MIXED) {
                        add_latin(s, (unsigned char)in.p[0], out);
                } else {
                        buf_add(out, "\xef\xbf\xbd", 3);
                        s->bad = true;
                }
                in = str_from(in, 1);
        }
}

/* glibc writes what UCS-4 can hold beyond Unicode as the five and six bytes of old UTF-8: from `start` on, out is cleaned. */
static void keep_valid(struct charset_stream *s, struct buf *out, size_t start)
{
        struct str added = str_make(out->p + start, out->n - start);
        size_t good = valid_run(added);
        struct buf rest = BUF_INIT;

        if (good == added.n)
                return;
        s->bad = true;
        buf_add_str(&rest, str_from(added, good));
        out->n = start + good;
        utf8_clean(buf_str(&rest), out);
        out->failed |= rest.failed;
        buf_free(&rest);
}

/* What EUC-JP has no character for: NEC's and IBM's, which code page 932 has at the same place. */
static bool convert_wide(struct charset_stream *s, struct str *in, struct buf *out)
{
        char pair[2], *from = pair, *to;
        size_t left = 2, room = STEP_MAX, got;
        iconv_t cd;

        if (strcmp(s->name, "EUC-JP") != 0 || in->n < 2 || !shift_to_sjis(str_first(*in, 2), pair) || !buf_reserve(out, STEP_MAX))
                return false;
        cd = converter_get("CP932");
        if (cd == (iconv_t)-1)
                return false;
        to = out->p + out->n;
        got = iconv(cd, &from, &left, &to, &room);
        if (got != (size_t)-1)
                out->n = (size_t)(to - out->p);
        converter_put("CP932", cd);
        *in = str_from(*in, got != (size_t)-1 ? 2 : 0);
        return got != (size_t)-1;
}

/* Converts as much of in as it can; what is left is an unfinished character. */
static struct str convert(struct charset_stream *s, struct str in, struct buf *out)
{
        while (in.n > 0 && !out->failed) {
                char *from = (char *)(uintptr_t)in.p, *to;
                size_t left = in.n, room, got, start;
                int reason;

                /* With a limit on the buffer, no more room than the limit leaves; but always enough for what one character
                 * can become, so that every round gets on. */
                room = in.n * 2 + STEP_MAX;
                if (out->max && room > out->max - out->n)
                        room = out->max - out->n > STEP_MAX ? out->max - out->n : STEP_MAX;
                if (!buf_reserve(out, room))
                        break;
                to = out->p + out->n;
                got = iconv(s->cd, &from, &left, &to, &room);
                reason = errno;
                start = out->n;
                out->n = (size_t)(to - out->p);
                keep_valid(s, out, start);
                in = str_make(from, left);
                if (got != (size_t)-1 || reason == E2BIG)
                        continue;
                if (reason == EINVAL)
                        break;
                if (convert_wide(s, &in, out))
                        continue;
                s->bad = true;
                buf_add(out, "\xef\xbf\xbd", 3);
                in = str_from(in, s->unit);
        }
        return in;
}

/* Character by character: an invalid one must not take a byte of the next. */
static void convert_twins(struct charset_stream *s, struct str run, struct buf *out)
{
        while (run.n > 0) {
                size_t n = run.p[0] == '\x8f' ? 3 : 2;

                convert(s, str_first(run, n), out);
                run = str_from(run, n);
        }
}

static struct str convert_shifted(struct charset_stream *s, struct str in, struct buf *out)
{
        char run[SHIFT_RUN];
        size_t n;

        while (!out->failed) {
                switch (shift_next(&s->shift, &in, run, &n)) {
                case SHIFT_MORE:
                        return in;
                case SHIFT_UTF8:
                        buf_add(out, run, n);
                        break;
                case SHIFT_TWIN:
                        convert_twins(s, str_make(run, n), out);
                        break;
                case SHIFT_INVALID:
                        s->bad = true;
                        buf_add(out, "\xef\xbf\xbd", 3);
                }
        }
        return STR_NONE;
}

/* An unfinished character is carried over to the next chunk. */
static void carry(struct charset_stream *s, struct str rest)
{
        s->held = rest.n;
        if (rest.n > 0)
                memmove(s->carry, rest.p, rest.n);
}

static struct str feed_bytes(struct charset_stream *s, struct str in, struct buf *out)
{
        size_t open;

        if (s->kind == KIND_ICONV)
                return s->shifts ? convert_shifted(s, in, out) : convert(s, in, out);
        if (s->kind == KIND_LATIN1 || s->kind == KIND_WINDOWS) {
                feed_latin(s, in, out);
                return STR_NONE;
        }
        open = unfinished(in);
        feed_utf8(s, str_first(in, in.n - open), out);
        return str_from(in, in.n - open);
}

/* Completes the carried character with bytes from the front of in, a few at a time. */
static struct str feed_carry(struct charset_stream *s, struct str in, struct buf *out)
{
        while (s->held > 0 && in.n > 0) {
                struct str rest;

                s->carry[s->held++] = in.p[0];
                in = str_from(in, 1);
                rest = feed_bytes(s, str_make(s->carry, s->held), out);
                if (rest.n == CARRY_MAX) { /* no charset has a character that long */
                        s->bad = true;
                        buf_add(out, "\xef\xbf\xbd", 3);
                        rest = str_from(rest, s->unit ? s->unit : 1);
                }
                carry(s, rest);
        }
        return in;
}

static void feed_chunk(struct charset_stream *s, struct str in, struct buf *out)
{
        struct str rest;

        in = feed_carry(s, in, out);
        if (in.n == 0)
                return;
        rest = feed_bytes(s, in, out);
        while (rest.n >= CARRY_MAX && !out->failed) {
                s->bad = true;
                buf_add(out, "\xef\xbf\xbd", 3);
                rest = feed_bytes(s, str_from(rest, s->unit ? s->unit : 1), out);
        }
        if (!out->failed)
                carry(s, rest);
}

static void stream_feed(struct charset_stream *s, struct str in, struct buf *out)
{
        while (s->by_bytes && in.n > 1 && !out->failed) {
                feed_chunk(s, str_first(in, 1), out);
                in = str_from(in, 1);
        }
        feed_chunk(s, in, out);
}

static void stream_end(struct charset_stream *s, struct buf *out)
{
        if (s->kind == KIND_ICONV) {
                char *to;
                size_t room = STEP_MAX;

                if (s->held > 0) {
                        s->bad = true;
                        buf_add(out, "\xef\xbf\xbd", 3);
                }
                if (!out->max || out->max - out->n >= room) { /* some converters hold a character back for its accent */
                        if (buf_reserve(out, room)) {
                                to = out->p + out->n;
                                iconv(s->cd, NULL, NULL, &to, &room);
                                out->n = (size_t)(to - out->p);
                        }
                }
                converter_put(s->name, s->cd);
        } else {
                feed_utf8(s, str_make(s->carry, s->held), out);
        }
        s->held = 0;
}

struct charset_stream *charset_open(struct str charset, bool *unknown)
{
        struct charset_stream *s = mem_alloc(sizeof *s);
        bool strange = false;

        if (!s)
                return NULL;
        stream_open(s, charset, &strange);
        if (unknown)
                *unknown = strange;
        return s;
}

bool charset_feed(struct charset_stream *s, struct str in, struct buf *out)
{
        stream_feed(s, in, out);
        return !out->failed;
}

bool charset_end(struct charset_stream *s, struct buf *out, bool *bad)
{
        stream_end(s, out);
        if (bad)
                *bad = s->bad;
        mem_free(s);
        return !out->failed;
}

bool charset_to_utf8(struct str charset, struct str in, struct buf *out, bool *bad, bool *unknown)
{
        struct charset_stream s;
        bool strange = false;

        stream_open(&s, charset, &strange);
        stream_feed(&s, in, out);
        stream_end(&s, out);
        if (bad && s.bad)
                *bad = true;
        if (unknown && strange)
                *unknown = true;
        return !out->failed;
}
