#include "core/mime_int.h"

#include "core/buf.h"
#include "core/defects.h"
#include "core/linescan.h"
#include "core/mem.h"

/* A line matters only where it begins: as a field, as the empty line, or with "--". This much of it is looked at, beside what a
 * boundary may have; a boundary line with more than that behind the boundary is none. */
enum {
        LINE_MAX_BYTES = 2048, NAME_MAX_BYTES = 256,
        DASHED_MAX = 8, /* lines with "--" in a header that are compared with all of it */
};

struct mime_parser {
        struct limits lim;
        struct mime_defects *d;
        struct arena *a;
        struct header *keep;        /* where the outermost header is wanted, or NULL */
        struct mime *root, *open;   /* open: the innermost entity that the bytes belong to */
        enum { IN_HEADER, IN_BODY, IN_PREAMBLE, IN_EPILOGUE, STOPPED } where;
        unsigned parts, dashed;
        bool failed, other;

        struct str chunk;           /* the one being fed, and its offset */
        uint64_t chunk_at;
        struct buf head;            /* what earlier chunks had of the open header, at most header_block + 1 bytes */
        char last;                  /* the byte before the chunk */
        unsigned eol;               /* length of the line end before the current line: 0 at the start, 1 or 2 */
        uint64_t newlines;

        enum { LINE_START, LINE_HELD, LINE_SKIP } line;
        char *held;                 /* the beginning of a line that came in more than one chunk; NULL until there is one */
        size_t held_n, held_max;
        uint64_t held_at;
};

/* One line, or as much of it as matters (then it is not whole). */
struct line {
        struct str s;               /* without its LF */
        uint64_t at, next;          /* where it begins, and what follows it */
        bool whole;
};

void mime_defect(struct mime_defects *d, const char *name)
{
        for (unsigned i = 0; i < d->count; i++)
                if (strcmp(d->names[i], name) == 0)
                        return;
        if (d->count < sizeof d->names / sizeof *d->names)
                d->names[d->count++] = name;
}

/* A header begins at `at`. That may be in an earlier chunk, where a message without a header begins with the line at hand: what
 * came before this chunk is held then. */
static bool head_begins(struct mime_parser *p, uint64_t at)
{
        uint64_t n = at < p->chunk_at ? p->chunk_at - at : 0, most = p->lim.header_block + 1;

        buf_clear(&p->head);
        return n == 0 || buf_add(&p->head, p->held, n < most ? n : most);
}

static bool open_entity(struct mime_parser *p, struct mime *parent, uint64_t at)
{
        struct mime *m = arena_alloc(p->a, sizeof *m);

        if (!m)
                return false;
        m->parent = parent;
        m->depth = parent ? parent->depth + 1 : 1;
        m->index = parent && parent->last ? parent->last->index + 1 : 1;
        m->header_at = m->body_at = at;
        m->other = p->other;
        if (!parent)
                p->root = m;
        else if (parent->last)
                parent->last->next = m;
        else
                parent->child = m;
        if (parent)
                parent->last = m;
        p->parts++;
        p->dashed = 0;
        p->open = m;
        p->where = IN_HEADER;
        return head_begins(p, at);
}

struct mime_parser *mime_new(const struct limits *lim, struct mime_defects *d, struct arena *a)
{
        struct mime_parser *p = arena_alloc(a, sizeof *p);

        if (!p)
                return NULL;
        p->held_max = LINE_MAX_BYTES + (size_t)lim->boundary;
        p->lim = *lim;
        p->d = d;
        p->a = a;
        p->chunk = STR("");
        buf_init(&p->head, 0);
        return open_entity(p, NULL, 0) ? p : NULL;
}

void mime_read_other(struct mime_parser *p)
{
        p->other = p->root->other = true;
}

void mime_keep_header(struct mime_parser *p, struct header *h)
{
        p->keep = h;
}

/* Keeps what the chunk has of the open header, up to offset `end`. One byte more than the limit tells that it is too long. */
static bool keep_head(struct mime_parser *p, uint64_t end)
{
        uint64_t from = p->open->header_at > p->chunk_at ? p->open->header_at : p->chunk_at;
        uint64_t room = p->lim.header_block + 1 - p->head.n;
        uint64_t n = end > from ? end - from : 0;

        return buf_add(&p->head, p->chunk.p + (from - p->chunk_at), n < room ? n : room);
}

/* The bytes of the open header, which ends at `end`: in place when the chunk has them all. */
static bool head_block(struct mime_parser *p, uint64_t end, struct str *block)
{
        uint64_t n = end - p->open->header_at;

        if (p->head.n == 0 && p->open->header_at >= p->chunk_at) {
                *block = str_make(p->chunk.p + (p->open->header_at - p->chunk_at), n);
                return true;
        }
        if (end > p->chunk_at && !keep_head(p, end))
                return false;
        *block = str_first(buf_str(&p->head), n);
        return true;
}

/* The open entity's header ends at `end`, and its body begins at `body`. */
static bool end_header(struct mime_parser *p, uint64_t end, uint64_t body)
{
        struct mime *m = p->open;
        struct header *keep = m == p->root && p->head.n == 0 ? p->keep : NULL;
        struct str block;
        bool cut;

        if (!head_block(p, end, &block))
                return false;
        cut = block.n > p->lim.header_block;
        m->header_n = end - m->header_at;
        m->body_at = body;
        m->lines = p->newlines + (body > end); /* where the count stood, until the body ends */
        if (!mime_entity_read(m, str_first(block, p->lim.header_block), cut, &p->lim, p->d, keep, p->a))
                return false;
        if (m->kind == MIME_MESSAGE && p->parts >= p->lim.parts) {
                mime_defect(p->d, "limit.parts");
                m->kind = MIME_LEAF;
        }
        if (m->kind == MIME_MESSAGE)
                return open_entity(p, m, body);
        p->where = m->kind == MIME_MULTIPART ? IN_PREAMBLE : IN_BODY;
        return true;
}

/* Ends the open entity at `end`; its parent is open then. Where its header took a line end that belongs to the boundary, it gives it
 * back: it has to lie inside of its parent. */
static void close_entity(struct mime_parser *p, uint64_t end)
{
        struct mime *m = p->open;

        if (m->header_at > end)
                m->header_at = end;
        if (m->header_n > end - m->header_at)
                m->header_n = end - m->header_at;
        if (m->body_at > end)
                m->body_at = end;
        m->body_n = end - m->body_at;
        m->lines = p->newlines > m->lines ? p->newlines - m->lines : 0; /* an empty line may have been CR, and then the end */
        if (m->kind == MIME_MULTIPART) {
                if (p->where != IN_EPILOGUE && p->where != STOPPED)
                        mime_defect(p->d, "truncated.multipart");
                if (!m->child)
                        mime_defect(p->d, "boundary.empty");
        }
        p->open = m->parent;
        p->where = IN_BODY;
}

/* Ends every entity below `until` (NULL: all) at a line that begins at `at`, or at the end of the bytes. `eol` bytes before it
 * belong to the boundary line. */
static bool close_below(struct mime_parser *p, const struct mime *until, uint64_t at, unsigned eol)
{
        const struct mime *top;

        while (p->where == IN_HEADER) {
                if (at > p->open->header_at)
                        mime_defect(p->d, "header.unended");
                if (!end_header(p, at, at)) /* of a message/rfc822: opens the empty message inside */
                        return false;
        }
        if (p->open == until)
                return true;
        for (top = p->open; top->parent != until;)
                top = top->parent;
        at = at - eol > top->body_at ? at - eol : top->body_at;
        while (p->open != until)
                close_entity(p, at);
        return true;
}

/* Does line (without its "--") begin with the boundary b, and does the boundary end there? RFC 2046 5.1.1 says that "an exact
 * match of the entire candidate line is not required", but a reader that took "--x-" or "--xy" for "--x" would be alone with it. */
static bool is_boundary(struct str line, struct str b)
{
        struct str rest = str_from(line, b.n);

        return str_starts(line, b) &&
               (!rest.n || ascii_is_space(rest.p[0]) || rest.p[0] == '\0' || str_starts(rest, STR("--")));
}

/* The open multipart that a line (without its "--") is meant for: of several the one with the longest boundary ("--x--" ends x, or
 * opens a part of "x--"), of equal ones the innermost. */
static struct mime *find_boundary(struct mime_parser *p, struct str line)
{
        struct mime *best = NULL;

        for (struct mime *m = p->where == IN_EPILOGUE ? p->open->parent : p->open; m; m = m->parent)
                if (m->kind == MIME_MULTIPART && (!best || m->boundary.n > best->boundary.n) && is_boundary(line, m->boundary))
                        best = m;
        return best;
}

/* The multipart whose boundary line this is. What stands behind the boundary does not count, except "--", but somebody else may
 * think that it does. */
static struct mime *boundary_at(struct mime_parser *p, const struct line *l, bool *closing)
{
        struct str rest = str_from(l->s, 2);
        struct mime *m = find_boundary(p, rest);

        if (!m)
                return NULL;
        if (str_find(rest, '\0') < rest.n) {
                mime_defect(p->d, "boundary.nul");
                return NULL;
        }
        rest = str_from(rest, m->boundary.n);
        *closing = str_starts(rest, STR("--"));
        if (str_trim(*closing ? str_from(rest, 2) : rest).n)
                mime_defect(p->d, "boundary.suffix");
        return m;
}

/* Two boundary lines in a row have no part between them: the second stands for the first. */
static bool restart_part(struct mime_parser *p, const struct mime *m, const struct line *l)
{
        if (p->where != IN_HEADER || p->open->parent != m || p->open->header_at != l->at || p->parts >= p->lim.parts)
                return false;
        p->open->header_at = p->open->body_at = l->next;
        buf_clear(&p->head);
        p->parts++; /* each counts, or there would be no end of them */
        return true;
}

static bool cross_boundary(struct mime_parser *p, struct mime *m, bool closing, const struct line *l)
{
        if (!closing && restart_part(p, m, l))
                return true;
        if (!close_below(p, m, l->at, p->eol))
                return false;
        if (closing) {
                p->where = IN_EPILOGUE;
                return true;
        }
        if (p->parts >= p->lim.parts) {
                mime_defect(p->d, "limit.parts");
                p->where = STOPPED;
                return true;
        }
        return open_entity(p, m, l->next);
}

/* Could this be the first line of a header? A name and a colon, or the From_ line of an mbox before a message; blanks before and
 * after the name are forgiven (header_split flags them), and a message may begin with the rest of a field that was cut off. Anything
 * else there means that somebody forgot the header. */
static bool begins_header(struct str line, bool message)
{
        size_t i = 0;

        if (message && (str_starts(line, STR("From ")) || str_starts(line, STR(">From "))))
                return true;
        while (i < line.n && ascii_is_blank(line.p[i]))
                i++;
        if (i == line.n || line.p[i] == ':' || (message && i > 0))
                return i < line.n || i > 0;
        for (size_t end = i + NAME_MAX_BYTES; i < line.n && i < end; i++)
                if (line.p[i] == ':' || ascii_is_blank(line.p[i]) || (line.p[i] < ' ' && line.p[i] > 0))
                        break;
        while (i < line.n && ascii_is_blank(line.p[i]))
                i++;
        return i < line.n && line.p[i] == ':';
}

static struct str without_cr(struct str s)
{
        return s.n && s.p[s.n - 1] == '\r' ? str_first(s, s.n - 1) : s;
}

static bool is_message(const struct mime *m)
{
        return !m->parent || m->parent->kind == MIME_MESSAGE;
}

/* The empty line. Where it ends otherwise than the line before it, a carriage return is one too many, and some take it for a line end of
 * its own. */
static bool empty_line(struct mime_parser *p, const struct line *l)
{
        if (p->eol && l->next - l->at != p->eol)
                mime_defect(p->d, "header.cr");
        return end_header(p, l->at, l->next);
}

/* A line of the open header. *again: the header had ended before it, so it is the first of the body. */
static bool header_line(struct mime_parser *p, const struct line *l, bool *again)
{
        if (l->whole && without_cr(l->s).n == 0)
                return empty_line(p, l);
        if (l->at != p->open->header_at || begins_header(without_cr(l->s), is_message(p->open)))
                return true;
        mime_defect(p->d, "header.missing");
        *again = true;
        return end_header(p, l->at, l->at);
}

/* Does a header that ends in s go on with the value of a boundary? */
static bool awaits_boundary(struct str s)
{
        if (str_ends(s, STR("\"")))
                s.n--;
        s = str_trim_right(s);
        return str_ends(s, STR("=")) && str_ends_nocase(str_trim_right(str_first(s, s.n - 1)), STR("boundary"));
}

/* Is the line ("--" and more) a boundary that the header before it has announced? */
static bool is_announced(struct str header, struct str line)
{
        struct str b = str_trim_right(str_from(line, 2)), rest = header;

        if (line.n > LINE_MAX_BYTES || b.n == 0 || b.n > NAME_MAX_BYTES)
                return false;
        while (rest.n > 0) {
                size_t at = header.n - rest.n + str_find_str(rest, b), after = at + b.n;

                if (at == header.n)
                        break;
                if (awaits_boundary(str_first(header, at)) &&
                    (after == header.n || ascii_is_space(header.p[after]) || header.p[after] == '"' || header.p[after] == ';'))
                        return true;
                rest = str_from(header, at + 1);
        }
        return false;
}

/* The empty line is forgotten before the first boundary: the header ends there, or all of its parts would be fields of it. */
static bool end_at_announced(struct mime_parser *p, const struct line *l)
{
        size_t kept = p->head.n;
        struct str block;
        bool found;

        if (p->where != IN_HEADER || l->at <= p->open->header_at || p->dashed++ >= DASHED_MAX)
                return true;
        if (!head_block(p, l->at, &block))
                return false;
        found = is_announced(str_first(block, p->lim.header_block), l->s); /* what is kept of it, however it came */
        p->head.n = kept;
        if (!found)
                return true;
        mime_defect(p->d, "header.unended");
        return end_header(p, l->at, l->at);
}

/* Outside of all parts: what looks like a part there is shown by some readers and not by others. */
static void outside_line(struct mime_parser *p, const struct line *l)
{
        const char *defect = p->where == IN_PREAMBLE ? "hidden.preamble" : "hidden.epilogue";
        struct str rest = str_from(l->s, 2);

        if (str_starts_nocase(l->s, STR("content-")))
                mime_defect(p->d, defect);
        if (p->where == IN_EPILOGUE && str_starts(l->s, STR("--")) && is_boundary(rest, p->open->boundary))
                mime_defect(p->d, defect);
}

static bool take_line(struct mime_parser *p, const struct line *l)
{
        bool closing, again = true;
        struct mime *m;

        if (p->where == STOPPED)
                return true;
        if (l->whole && str_starts(l->s, STR("--"))) {
                m = boundary_at(p, l, &closing);
                if (!m && !end_at_announced(p, l))
                        return false;
                m = m ? m : boundary_at(p, l, &closing);
                if (m)
                        return cross_boundary(p, m, closing, l);
        }
        while (p->where == IN_HEADER && again) { /* again: at most once a level of nesting */
                again = false;
                if (!header_line(p, l, &again))
                        return false;
        }
        if (p->where == IN_PREAMBLE || p->where == IN_EPILOGUE)
                outside_line(p, l);
        return true;
}

/* The line that begins at chunk offset i matters; looks at it when it is complete, else keeps its beginning. Returns the offset to
 * go on from; *ok is false when out of memory. */
static size_t line_begins(struct mime_parser *p, size_t i, bool *ok)
{
        struct str rest = str_from(p->chunk, i);
        size_t n = str_find(rest, '\n');
        struct line l = { str_first(rest, n), p->chunk_at + i, p->chunk_at + i + n + 1, n <= p->held_max };

        if (n == rest.n && n <= p->held_max) {
                if (!p->held && !(p->held = mem_alloc(p->held_max))) {
                        *ok = false;
                        return p->chunk.n;
                }
                memcpy(p->held, rest.p, n);
                p->held_n = n;
                p->held_at = l.at;
                p->line = LINE_HELD;
                return p->chunk.n;
        }
        l.s = str_first(l.s, p->held_max);
        *ok = take_line(p, &l);
        p->line = LINE_SKIP;
        return i + n;
}

/* The same for a line that earlier chunks began. */
static size_t line_goes_on(struct mime_parser *p, size_t i, bool *ok)
{
        struct str rest = str_from(p->chunk, i);
        size_t n = str_find(rest, '\n'), room = p->held_max - p->held_n;
        struct line l = { { p->held, 0 }, p->held_at, p->chunk_at + i + n + 1, n <= room };

        if (n > room)
                n = room;
        memcpy(p->held + p->held_n, rest.p, n);
        p->held_n += n;
        if (l.whole && n == rest.n)
                return p->chunk.n;
        l.s.n = p->held_n;
        *ok = take_line(p, &l);
        p->line = LINE_SKIP;
        return i + n;
}

/* Does a line that begins with c, at chunk offset i, matter where the parser is? */
static bool matters(const struct mime_parser *p, size_t i, char c)
{
        switch (p->where) {
        case IN_BODY:
                return c == '-';
        case IN_HEADER:
                return c == '-' || c == '\n' || c == '\r' || p->chunk_at + i == p->open->header_at;
        case STOPPED:
                return false;
        default:
                return true;
        }
}

/* Offset of the line end to stop at. Here the parser spends its time: lines of bodies, of which only those with '-' in front matter. */
static size_t line_end(struct mime_parser *p, struct str rest)
{
        size_t n;

        if (p->where == IN_BODY)
                return linescan_dash(rest.p, rest.n, &p->newlines);
        n = str_find(rest, '\n');
        p->newlines += n < rest.n;
        return n;
}

/* To a line end, and past it. */
static size_t skip_line(struct mime_parser *p, size_t i)
{
        size_t at = i + line_end(p, str_from(p->chunk, i));

        if (at == p->chunk.n) {
                p->line = LINE_SKIP;
                return at;
        }
        p->eol = (at ? p->chunk.p[at - 1] : p->last) == '\r' ? 2 : 1;
        p->line = LINE_START;
        return at + 1;
}

bool mime_feed(struct mime_parser *p, struct str chunk)
{
        bool ok = !p->failed;
        size_t i = 0;

        p->chunk = chunk;
        while (ok && i < chunk.n) {
                if (p->line == LINE_HELD)
                        i = line_goes_on(p, i, &ok);
                else if (p->line == LINE_START && matters(p, i, chunk.p[i]))
                        i = line_begins(p, i, &ok);
                if (ok && i < chunk.n && p->line != LINE_HELD)
                        i = skip_line(p, i);
        }
        if (ok && p->where == IN_HEADER)
                ok = keep_head(p, p->chunk_at + chunk.n);
        if (chunk.n)
                p->last = chunk.p[chunk.n - 1];
        p->chunk_at += chunk.n;
        p->chunk = STR("");
        if (!ok) {
                p->failed = true;
                buf_free(&p->head);
        }
        return ok;
}

size_t mime_header_size(struct str s, bool *ended)
{
        struct str rest = s, line = str_take_line(&rest);
        unsigned dashed = 0;

        *ended = true;
        if (line.n == 0 || !begins_header(str_first(line, LINE_MAX_BYTES), true))
                return 0;
        for (size_t at = str_find(s, '\n'); at < s.n; at += 1 + str_find(str_from(s, at + 1), '\n')) {
                rest = str_from(s, at + 1);
                if (str_starts(rest, STR("\n")) || str_starts(rest, STR("\r\n"))) {
                        *ended = true;
                        return at + 1;
                }
                if (str_starts(rest, STR("--")) && str_find(rest, '\n') < rest.n && dashed++ < DASHED_MAX &&
                    is_announced(str_first(s, at + 1), str_first(rest, str_find(rest, '\n')))) {
                        *ended = true;
                        return at + 1;
                }
        }
        *ended = false;
        return s.n;
}

struct mime *mime_end(struct mime_parser *p)
{
        struct line l = { { p->held, p->held_n }, p->held_at, p->chunk_at, true };
        bool ok = !p->failed;

        if (ok && p->line == LINE_HELD)
                ok = take_line(p, &l);
        ok = ok && close_below(p, NULL, p->chunk_at, 0);
        buf_free(&p->head);
        mem_free(p->held);
        p->held = NULL;
        p->failed = true; /* nothing more may be fed */
        return ok ? p->root : NULL;
}
