/* The library sizes its tables by the numbers that stand in a 7z's list of members, up to 10^8 each: 1,922 bytes made it ask for 9 GB. So the
 * list is walked before, as far as the number of members. It goes by the description of the format that comes with 7-Zip (7zFormat.txt). */
#include "core/unpack_int.h"

#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#include "core/mem.h"

/* The head of the file: signature and version (8), the sum of the rest (4), place, length (8 each) and sum of the list (4). */
enum { HEAD = 32, HEAD_SUM = 8, HEAD_REST = 12, LIST_AT = 12, LIST_LENGTH = 20, LIST_SUM = 28 };

enum {
        ID_END, ID_HEADER, ID_STREAMS = 4, ID_FILES, ID_PACKED, ID_FOLDERS, ID_SUBSTREAMS, ID_SIZE, ID_DIGESTS, ID_FOLDER, ID_UNPACKED_SIZE,
        ID_SUBSTREAM_COUNT, ID_NAMES = 0x11, ID_ENCODED_HEADER = 0x17,
};

enum {
        CODER_ID = 15, CODER_STREAMS = 16, CODER_PROPERTIES = 32, /* of a coder's first byte */
        FOLDER_STREAMS_MAX = 64,  /* as 7-Zip has it */
        ENCODED_MAX = 64 * 1024,  /* what says how the list is packed; mostly some 30 bytes */
};

/* ---- the list, byte by byte ---- */

struct list {
        const unsigned char *p, *end;
        enum { GOING, ODD, MANY } why; /* odd: something else stands there than must, or nothing; many: beyond a limit */
};

static bool stopped(const struct list *l)
{
        return l->why != GOING;
}

/* The first reason counts. Nothing is left then. */
static void stop(struct list *l, int why, bool yes)
{
        if (stopped(l) || !yes)
                return;
        l->why = why;
        l->p = l->end;
}

static unsigned byte(struct list *l)
{
        stop(l, ODD, l->p == l->end);
        return stopped(l) ? 0 : *l->p++;
}

static void skip(struct list *l, uint64_t n)
{
        stop(l, ODD, n > (uint64_t)(l->end - l->p));
        l->p += stopped(l) ? 0 : n;
}

static void expect(struct list *l, unsigned id)
{
        stop(l, ODD, byte(l) != id && !stopped(l));
}

/* As many bytes follow as the first has leading ones; what is left of the first are the highest bits. */
static uint64_t number(struct list *l)
{
        unsigned first = byte(l);
        uint64_t v = 0;

        for (unsigned i = 0; i < 8; i++) {
                unsigned bit = 0x80u >> i;

                if (!(first & bit))
                        return v | (uint64_t)(first & (bit - 1)) << 8 * i;
                v |= (uint64_t)byte(l) << 8 * i;
        }
        return v;
}

static size_t count(struct list *l, size_t most)
{
        uint64_t n = number(l);

        stop(l, MANY, n > most);
        return stopped(l) ? 0 : (size_t)n;
}

static void numbers(struct list *l, size_t n)
{
        for (size_t i = 0; i < n && !stopped(l); i++)
                number(l);
}

/* ---- its parts ---- */

/* Which of n things have a sum. */
struct known {
        bool all;
        const unsigned char *bits; /* NULL: none */
};

static bool is_known(const struct known *k, size_t i)
{
        return k->all || (k->bits && k->bits[i / 8] & 0x80u >> i % 8);
}

static struct known digests(struct list *l, size_t n)
{
        struct known k = { .all = byte(l) != 0 };
        size_t sums = k.all ? n : 0;

        if (!k.all) {
                const unsigned char *bits = l->p;

                skip(l, n / 8 + (n % 8 != 0));
                if (!stopped(l))
                        k.bits = bits;
                for (size_t i = 0; k.bits && i < n; i++)
                        sums += is_known(&k, i);
        }
        skip(l, (uint64_t)sums * 4);
        return k;
}

/* How its bytes are coded. How many streams come out. */
static size_t folder(struct list *l)
{
        size_t coders = count(l, FOLDER_STREAMS_MAX), in = 0, out = 0;

        for (size_t i = 0; i < coders && !stopped(l); i++) {
                unsigned how = byte(l);

                skip(l, how & CODER_ID);
                in += how & CODER_STREAMS ? count(l, FOLDER_STREAMS_MAX) : 1;
                out += how & CODER_STREAMS ? count(l, FOLDER_STREAMS_MAX) : 1;
                if (how & CODER_PROPERTIES)
                        skip(l, number(l));
        }
        stop(l, MANY, in > FOLDER_STREAMS_MAX || out > FOLDER_STREAMS_MAX);
        stop(l, ODD, out == 0 || in + 1 < out);
        if (stopped(l))
                return 0;
        numbers(l, 2 * (out - 1)); /* which stream goes into which */
        if (in - (out - 1) != 1)
                numbers(l, in - (out - 1));
        return out;
}

struct streams {
        size_t folders;
        struct known known;         /* of the folders */
        uint64_t biggest;           /* of what comes out of them */
        const unsigned char *ended; /* behind the folders, and what is said of files in them */
        bool split;                 /* something is */
};

static void packed(struct list *l)
{
        size_t n;
        unsigned id;

        number(l); /* where */
        n = count(l, UNPACK_LIST_MEMBERS);
        if ((id = byte(l)) == ID_SIZE) {
                numbers(l, n);
                id = byte(l);
        }
        if (id == ID_DIGESTS) {
                digests(l, n);
                id = byte(l);
        }
        stop(l, ODD, id != ID_END);
}

static void folders(struct list *l, struct streams *s)
{
        struct list again;
        unsigned id;

        expect(l, ID_FOLDER);
        s->folders = count(l, UNPACK_LIST_MEMBERS);
        expect(l, 0); /* here, and not in a stream of its own */
        again = *l;
        for (size_t i = 0; i < s->folders && !stopped(l); i++)
                folder(l);
        expect(l, ID_UNPACKED_SIZE);
        for (size_t i = 0; i < s->folders && !stopped(l); i++)
                for (size_t out = folder(&again); out > 0 && !stopped(l); out--) {
                        uint64_t size = number(l);

                        s->biggest = size > s->biggest ? size : s->biggest;
                }
        if ((id = byte(l)) == ID_DIGESTS) {
                s->known = digests(l, s->folders);
                id = byte(l);
        }
        stop(l, ODD, id != ID_END);
}

/* How many files lie in each folder, how long they are, their sums. */
static void substreams(struct list *l, const struct streams *s)
{
        unsigned id = byte(l);
        bool counted = id == ID_SUBSTREAM_COUNT;
        struct list counts = *l, sums = *l;
        size_t files = 0, unknown = 0;

        for (size_t i = 0; counted && i < s->folders && !stopped(l); i++) {
                files += count(l, UNPACK_LIST_MEMBERS);
                stop(l, MANY, files > UNPACK_LIST_MEMBERS);
        }
        if (counted)
                id = byte(l);
        if (id == ID_SIZE) {
                for (size_t i = 0; i < s->folders && !stopped(l); i++) {
                        size_t n = counted ? count(&counts, UNPACK_LIST_MEMBERS) : 1;

                        numbers(l, n > 0 ? n - 1 : 0); /* the last has the rest */
                }
                id = byte(l);
        }
        for (size_t i = 0; i < s->folders && !stopped(l); i++) {
                size_t n = counted ? count(&sums, UNPACK_LIST_MEMBERS) : 1;

                unknown += n != 1 || !is_known(&s->known, i) ? n : 0;
        }
        if (id == ID_DIGESTS) {
                digests(l, unknown);
                id = byte(l);
        }
        stop(l, ODD, id != ID_END);
}

static struct streams streams(struct list *l)
{
        struct streams s = { 0 };
        unsigned id = byte(l);

        if (id == ID_PACKED) {
                packed(l);
                id = byte(l);
        }
        if (id == ID_FOLDERS && !stopped(l)) {
                folders(l, &s);
                id = byte(l);
        }
        if (id == ID_SUBSTREAMS && !stopped(l)) {
                s.split = true;
                substreams(l, &s);
                id = byte(l);
        }
        stop(l, ODD, id != ID_END);
        s.ended = stopped(l) ? NULL : l->p - 1;
        return s;
}

/* Up to the number of members; what is said of them takes at least its bytes. ArchiveProperties, which nobody writes, are refused: readers
 * differ about their length. */
static void header(struct list *l)
{
        unsigned id;

        expect(l, ID_HEADER);
        if ((id = byte(l)) == ID_STREAMS) {
                streams(l);
                id = byte(l);
        }
        if (id == ID_FILES)
                count(l, UNPACK_LIST_MEMBERS);
        else
                stop(l, ODD, id != ID_END);
}

static struct list list_of(const void *p, size_t n)
{
        return (struct list){ .p = p, .end = (const unsigned char *)p + n };
}

static bool judge(const struct list *l, struct err *e)
{
        if (l->why == MANY)
                return err_set(e, ERR_LIMIT, "the list of its members goes beyond %d members or %d bytes", UNPACK_LIST_MEMBERS, UNPACK_LIST_BYTES);
        if (l->why == ODD)
                return err_set(e, ERR_IO, "it is damaged or cut off: the list of its members cannot be read");
        return true;
}

/* ---- a list that is packed itself ---- */

/* The library unpacks it, as the one member of an archive whose list says nothing else: the same file with another head, and that list where
 * the file's own begins. */
struct view {
        const struct unpack_input *in;
        struct err *e;
        uint64_t at, list; /* next; where the list begins */
        struct str head, tail;
        bool failed;
};

static la_ssize_t on_read(struct archive *lib, void *ctx, const void **block)
{
        struct view *v = ctx;
        struct str got;
        const char *p;
        ssize_t n;

        if (v->at < HEAD)
                got = str_from(v->head, (size_t)v->at);
        else if (v->at >= v->list)
                got = str_from(v->tail, (size_t)(v->at - v->list));
        else {
                v->in->seek(v->in->ctx, v->at);
                if ((n = v->in->read(v->in->ctx, &p, v->e)) < 0) {
                        v->failed = true;
                        return ARCHIVE_FATAL;
                }
                got = str_make(p, (uint64_t)n < v->list - v->at ? (size_t)n : (size_t)(v->list - v->at));
        }
        v->at += got.n;
        *block = got.p;
        return (la_ssize_t)got.n;
}

static la_int64_t on_seek(struct archive *lib, void *ctx, la_int64_t to, int whence)
{
        struct view *v = ctx;
        la_int64_t end = (la_int64_t)(v->list + v->tail.n), from = 0;

        if (whence != SEEK_SET)
                from = whence == SEEK_CUR ? (la_int64_t)v->at : end;
        if (to < -from || to > end - from)
                return ARCHIVE_FATAL;
        v->at = (uint64_t)(from + to);
        return from + to;
}

/* The CRC of ISO 3309, as zip has it; of a few bytes. */
static uint32_t crc32(const void *p, size_t n)
{
        const unsigned char *c = p;
        uint32_t crc = ~(uint32_t)0;

        for (size_t i = 0; i < n; i++) {
                crc ^= c[i];
                for (int bit = 0; bit < 8; bit++)
                        crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
        return ~crc;
}

static void put_le(char *p, uint64_t v, int bytes)
{
        for (int i = 0; i < bytes; i++)
                p[i] = (char)(v >> 8 * i);
}

static uint64_t get_le64(const char *p)
{
        uint64_t v = 0;

        for (int i = 7; i >= 0; i--)
                v = v << 8 | (unsigned char)p[i];
        return v;
}

/* The streams as they are said of the packed list, and one file in them. */
static bool write_view(struct view *v, char head[HEAD], struct buf *tail, struct str streams, bool split)
{
        static const char file[] = { ID_END, ID_FILES, 1, ID_NAMES, 5, 0, 'x', 0, 0, 0, ID_END, ID_END };
        static const char whole[] = { ID_SUBSTREAMS, ID_END };

        buf_add_char(tail, ID_HEADER);
        buf_add_char(tail, ID_STREAMS);
        buf_add_str(tail, streams);
        if (!split)
                buf_add_str(tail, str_make(whole, sizeof whole));
        buf_add_str(tail, str_make(file, sizeof file));
        put_le(head + LIST_LENGTH, tail->n, 8);
        put_le(head + LIST_SUM, crc32(tail->p, tail->n), 4);
        put_le(head + HEAD_SUM, crc32(head + HEAD_REST, HEAD - HEAD_REST), 4);
        v->head = str_make(head, HEAD);
        v->tail = str_make(tail->p, tail->n);
        return !tail->failed;
}

/* False when it could not be begun. A damaged one ends early: what the library makes of it itself may be more. */
static bool read_view(struct view *v, char *to, size_t room, size_t *n, bool *locked)
{
        struct archive *lib = archive_read_new();
        struct archive_entry *entry;
        la_ssize_t got;

        *n = 0;
        *locked = false;
        if (!lib || archive_read_support_format_7zip(lib) != ARCHIVE_OK) {
                archive_read_free(lib);
                return false;
        }
        archive_read_set_callback_data(lib, v);
        archive_read_set_read_callback(lib, on_read);
        archive_read_set_seek_callback(lib, on_seek);
        if (archive_read_open1(lib) >= ARCHIVE_WARN && archive_read_next_header(lib, &entry) >= ARCHIVE_WARN) {
                *locked = archive_entry_is_encrypted(entry);
                while (*n < room && (got = archive_read_data(lib, to + *n, room - *n)) > 0)
                        *n += (size_t)got;
        }
        archive_read_free(lib);
        return true;
}

static bool read_packed(struct view *v, char *p, size_t room, struct err *e)
{
        struct list inner;
        bool locked;
        size_t n;

        if (!read_view(v, p, room, &n, &locked))
                return err_nomem(e);
        inner = list_of(p, n);
        header(&inner);
        return !v->failed && (locked || judge(&inner, e)); /* a locked one the library will not read */
}

static bool unpacked_fits(struct view *v, char head[HEAD], struct list *l, struct err *e)
{
        const unsigned char *from = l->p;
        struct streams s = streams(l);
        struct buf tail = BUF_INIT;
        bool ok;
        char *p;

        stop(l, MANY, s.biggest > UNPACK_LIST_BYTES);
        stop(l, ODD, s.folders != 1);
        if (stopped(l))
                return judge(l, e);
        p = mem_alloc(s.biggest + 1);
        ok = (p && write_view(v, head, &tail, str_make((const char *)from, (size_t)(s.ended - from)), s.split)) || err_nomem(e);
        ok = ok && read_packed(v, p, (size_t)s.biggest, e);
        buf_free(&tail);
        mem_free(p);
        return ok;
}

/* ---- */

/* n bytes from there; fewer are there when it ends. */
static bool fetch(const struct unpack_input *in, uint64_t at, char *to, size_t *n, struct err *e)
{
        size_t have = 0;
        ssize_t got = 1;
        const char *p;

        in->seek(in->ctx, at);
        while (have < *n && (got = in->read(in->ctx, &p, e)) > 0) {
                size_t more = (size_t)got < *n - have ? (size_t)got : *n - have;

                memcpy(to + have, p, more);
                have += more;
        }
        *n = have;
        return got >= 0;
}

static bool list_fits(const struct unpack_input *in, char head[HEAD], uint64_t at, char *p, size_t n, struct err *e)
{
        struct view v = { .in = in, .e = e, .list = at };
        struct list l;

        if (!fetch(in, at, p, &n, e))
                return false;
        l = list_of(p, n);
        if (n > 0 && *l.p == ID_ENCODED_HEADER) {
                l.p++;
                stop(&l, MANY, n > ENCODED_MAX);
                return unpacked_fits(&v, head, &l, e);
        }
        header(&l);
        return judge(&l, e);
}

bool unpack_7z_fits(const struct unpack_input *in, struct err *e)
{
        uint64_t room = in->size > HEAD ? in->size - HEAD : 0, at, n;
        size_t have = HEAD;
        char head[HEAD];
        bool ok;
        char *p;

        if (!fetch(in, 0, head, &have, e))
                return false;
        at = have == HEAD ? get_le64(head + LIST_AT) : 0;
        n = have == HEAD ? get_le64(head + LIST_LENGTH) : 0;
        if (at > room || n > room - at)
                return err_set(e, ERR_IO, "it is damaged or cut off: the list of its members lies behind its end");
        if (n == 0) { /* an archive of nothing, or cut off: the library says so */
                in->seek(in->ctx, 0);
                return true;
        }
        if (n > UNPACK_LIST_BYTES)
                return judge(&(struct list){ .why = MANY }, e);
        if (!(p = mem_alloc((size_t)n + 1)))
                return err_nomem(e);
        ok = list_fits(in, head, HEAD + at, p, (size_t)n, e);
        mem_free(p);
        in->seek(in->ctx, 0);
        return ok;
}
