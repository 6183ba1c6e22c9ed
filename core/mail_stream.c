/* Segments and how they are read: text of ours, ranges of a message as they are, bodies decoded or encoded again. */
#include "core/compose_int.h"

#include "core/base64.h"
#include "core/mem.h"

enum {
        LINE_IN = 57, LINE_OUT = 77, /* RFC 2045 6.8: at most 76 characters a line */
        LINES = 256,
};

struct mail_stream {
        struct segment *first, *at;
        uint64_t done;               /* bytes of the segment given out */
        struct reader *reader;
        bool reader_ended;
        char *raw, *coded;           /* base64: one block of lines */
        size_t coded_n, coded_at;
};

struct mail_stream *mail_stream_new(struct segment *first, struct arena *a, struct err *e)
{
        struct mail_stream *s = arena_alloc(a, sizeof *s);

        if (!s) {
                err_nomem(e);
                return NULL;
        }
        s->first = s->at = first;
        return s;
}

static void rewind_segment(struct mail_stream *s)
{
        if (s->reader)
                reader_close(s->reader);
        s->reader = NULL;
        s->reader_ended = false;
        s->done = 0;
        s->coded_n = s->coded_at = 0;
}

void mail_stream_close(struct mail_stream *s)
{
        if (!s)
                return;
        rewind_segment(s);
        mem_free(s->raw);
        mem_free(s->coded);
        s->raw = s->coded = NULL;
}

static ssize_t fill_text(struct mail_stream *s, char *p, size_t n)
{
        struct str rest = str_first(str_from(s->at->text, (size_t)s->done), n);

        if (rest.n)
                memcpy(p, rest.p, rest.n);
        s->done += rest.n;
        return (ssize_t)rest.n;
}

static ssize_t fill_range(struct mail_stream *s, char *p, size_t n, struct err *e)
{
        ssize_t got = range_read(s->at->range, s->done, p, n, e);

        if (got > 0)
                s->done += (uint64_t)got;
        return got;
}

static ssize_t read_part(struct mail_stream *s, char *p, size_t n, struct err *e)
{
        ssize_t got;

        if (s->reader_ended)
                return 0;
        if (!s->reader && !(s->reader = part_open(s->at->part, e)))
                return -1;
        got = reader_read(s->reader, p, n, e);
        if (got == 0)
                s->reader_ended = true;
        return got;
}

static ssize_t read_source(struct mail_stream *s, char *p, size_t n, struct err *e)
{
        if (s->at->part)
                return read_part(s, p, n, e);
        return s->at->range.in ? fill_range(s, p, n, e) : fill_text(s, p, n);
}

/* The next block of whole lines; the last one may be short. */
static bool encode_block(struct mail_stream *s, struct err *e)
{
        size_t have = 0;
        ssize_t got;

        if (!s->raw)
                s->raw = mem_alloc(LINE_IN * LINES);
        if (!s->coded)
                s->coded = mem_alloc(LINE_OUT * LINES);
        if (!s->raw || !s->coded)
                return err_nomem(e);
        while (have < LINE_IN * LINES) {
                got = read_source(s, s->raw + have, LINE_IN * LINES - have, e);
                if (got < 0)
                        return false;
                if (got == 0)
                        break;
                have += (size_t)got;
        }
        s->coded_n = s->coded_at = 0;
        for (size_t i = 0; i < have; i += LINE_IN) {
                size_t n = have - i < LINE_IN ? have - i : LINE_IN;

                s->coded_n += base64_encode(str_make(s->raw + i, n), s->coded + s->coded_n);
                s->coded[s->coded_n++] = '\n';
        }
        return true;
}

static ssize_t fill_base64(struct mail_stream *s, char *p, size_t n, struct err *e)
{
        size_t take;

        if (s->coded_at == s->coded_n && !encode_block(s, e))
                return -1;
        take = s->coded_n - s->coded_at < n ? s->coded_n - s->coded_at : n;
        memcpy(p, s->coded + s->coded_at, take);
        s->coded_at += take;
        return (ssize_t)take;
}

static ssize_t fill(void *ctx, char *p, size_t n, struct err *e)
{
        struct mail_stream *s = ctx;

        while (s->at) {
                ssize_t got = s->at->base64 ? fill_base64(s, p, n, e) : read_source(s, p, n, e);

                if (got != 0)
                        return got;
                rewind_segment(s);
                s->at = s->at->next;
        }
        return 0;
}

struct feed mail_stream_feed(struct mail_stream *s)
{
        rewind_segment(s);
        s->at = s->first;
        return (struct feed){ fill, s };
}
