#include "core/header.h"

#include "core/digest.h"
#include "core/words.h"

enum { FIELDS_FIRST = 24 };

/* Takes one line with its line end off the front. */
static struct str take_line(struct str *rest)
{
        const char *end = memchr(rest->p, '\n', rest->n);
        struct str line = str_first(*rest, end ? (size_t)(end - rest->p) + 1 : rest->n);

        *rest = str_from(*rest, line.n);
        return line;
}

static struct str without_line_end(struct str line)
{
        if (line.n > 0 && line.p[line.n - 1] == '\n')
                line.n--;
        if (line.n > 0 && line.p[line.n - 1] == '\r')
                line.n--;
        return line;
}

static bool is_fold(struct str line)
{
        return line.n > 0 && ascii_is_blank(line.p[0]);
}

/* RFC 5322 2.2: "printable US-ASCII characters (i.e., characters that have values between 33 and 126, inclusive), except colon".
 * Returns the length of the plain bytes at the front. */
static size_t plain_name(struct str line)
{
        size_t n = 0;

        while (n < line.n && line.p[n] > 32 && line.p[n] < 127 && line.p[n] != ':')
                n++;
        return n;
}

/* "From " at the start of a header is an mbox's, with colons in its time; a field of that name is "From:". */
static bool split_line(struct header *h, struct str line, struct field *f)
{
        size_t plain = plain_name(line), colon = plain + str_find(str_from(line, plain), ':');

        f->name = str_trim_right(str_first(line, colon));
        if (colon == line.n || f->name.n == 0 || (f->name.n > 4 && str_starts(line, STR("From ")))) {
                h->junk = true;
                return false;
        }
        if (plain < colon)
                h->odd_names = true;
        f->raw = str_from(line, colon + 1);
        return true;
}

/* Room for one more; the list doubles, so all of them together need no more than twice the largest. */
static bool reserve(struct header *h, size_t *room, struct arena *a)
{
        struct field *more;

        if (h->count < *room)
                return true;
        more = arena_alloc(a, *room * 2 * sizeof *more);
        if (!more)
                return false;
        memcpy(more, h->fields, h->count * sizeof *more);
        h->fields = more;
        *room *= 2;
        return true;
}

/* A field runs over its folds, up to the line end of the last. */
static void end_field(struct field *f, const char *end)
{
        if (f)
                f->raw = without_line_end(str_make(f->raw.p, (size_t)(end - f->raw.p)));
}

bool header_split(struct header *h, struct str block, const struct limits *lim, struct arena *a)
{
        struct str rest;
        struct field *open = NULL;
        size_t room = FIELDS_FIRST;

        memset(h, 0, sizeof *h);
        h->overflow = block.n > lim->header_block;
        h->block = rest = str_first(block, lim->header_block);
        h->fields = arena_alloc(a, room * sizeof *h->fields);
        if (!h->fields)
                return false;
        while (rest.n > 0) {
                struct str line = take_line(&rest);

                if (is_fold(line)) {
                        if (!open)
                                h->junk = true;
                        continue;
                }
                end_field(open, line.p);
                open = NULL;
                if (h->count == lim->header_fields) {
                        h->overflow = true;
                        return true;
                }
                if (without_line_end(line).n == 0)
                        continue;
                if (!reserve(h, &room, a))
                        return false;
                if (split_line(h, line, &h->fields[h->count])) {
                        open = &h->fields[h->count];
                        open->order = (unsigned)h->count++;
                }
        }
        end_field(open, h->block.p + h->block.n);
        return true;
}

const struct field *header_find_after(const struct header *h, struct str name, const struct field *after)
{
        for (size_t i = after ? (size_t)(after - h->fields) + 1 : 0; i < h->count; i++)
                if (h->fields[i].name.n == name.n && str_eq_nocase(h->fields[i].name, name))
                        return &h->fields[i];
        return NULL;
}

const struct field *header_find(const struct header *h, struct str name)
{
        return header_find_after(h, name, NULL);
}

static struct str trim_left(struct str s)
{
        while (s.n > 0 && ascii_is_blank(s.p[0]))
                s = str_from(s, 1);
        return s;
}

/* RFC 5322 2.2.3 only takes the line ends out. But a fold's blanks are a mailer's, TABs among them, and not the author's; and they
 * cannot stand inside an encoded-word at all (RFC 2047 2). */
struct str header_unfold(struct str raw, struct arena *a)
{
        const char *word_end = NULL; /* of the encoded-word that a fold stands in */
        bool no_end = false;         /* no "?=" follows: looking again would be quadratic */
        char *out;
        size_t n = 0;

        raw = str_trim(raw);
        if (raw.n == 0)
                return STR("");
        if (str_find(raw, '\n') == raw.n)
                return raw;
        out = arena_alloc(a, raw.n);
        if (!out)
                return STR_NONE;
        while (raw.n > 0) {
                struct str line = str_trim_right(trim_left(without_line_end(take_line(&raw))));
                const char *past = word_end && word_end + 2 > line.p ? word_end + 2 : line.p;

                if (line.n == 0)
                        continue;
                if (n > 0 && (!word_end || line.p > word_end))
                        out[n++] = ' ';
                memcpy(out + n, line.p, line.n);
                n += line.n;
                if (!no_end && past < line.p + line.n && words_unended(str_make(past, (size_t)(line.p + line.n - past)))) {
                        size_t end = str_find_str(raw, STR("?="));

                        no_end = end == raw.n;
                        word_end = no_end ? NULL : raw.p + end;
                }
        }
        return str_make(out, n);
}

static bool is_added_by_servers(struct str name)
{
        static const char *const names[] = { "status", "x-status", "x-uid", "x-uidl", "content-length", "lines" };

        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (str_eq_nocase(name, str_of(names[i])))
                        return true;
        return false;
}

/* Every run of white space counts as one blank, so folding and its repair by a server make no difference. */
static void add_normalised(struct digest *d, struct str s)
{
        s = str_trim(s);
        while (s.n > 0) {
                size_t word = 0;

                while (word < s.n && !ascii_is_space(s.p[word]))
                        word++;
                digest_add(d, s.p, word);
                s = str_from(s, word);
                if (s.n > 0)
                        digest_add(d, " ", 1);
                while (s.n > 0 && ascii_is_space(s.p[0]))
                        s = str_from(s, 1);
        }
}

void header_identity(const struct header *h, uint8_t out[32])
{
        struct digest *d = digest_new();

        memset(out, 0, DIGEST_SIZE);
        if (!d)
                return;
        for (size_t i = 0; i < h->count; i++) {
                const struct field *f = &h->fields[i];

                if (is_added_by_servers(f->name))
                        continue;
                digest_add(d, f->name.p, f->name.n);
                digest_add(d, ":", 1);
                add_normalised(d, f->raw);
                digest_add(d, "\n", 1);
        }
        digest_end(d, out);
}
