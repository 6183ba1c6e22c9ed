/* Decoded bytes of a part, a block at a time. In-memory messages are decoded from where they lie; of a file one block is read at a
 * time, so that a part of any size needs the same memory. */
#include "core/message_int.h"

#include "core/base64.h"
#include "core/mem.h"
#include "core/qp.h"
#include "core/uu.h"

enum {
        READ_BYTES = 64 * 1024,
        OUT_BYTES = 8192,
        DIRECT_MIN = 4096,      /* a caller's buffer of this size is decoded into, without a copy */
        UU_LINE = 256,          /* a line of uuencode holds at most 61 characters; longer ones are damage */
        UU_ROOM = 64,
};

struct reader {
        struct message *m;      /* NULL: defects are not noted */
        struct range r;
        uint64_t at;            /* in r */
        enum mime_encoding encoding;
        struct str input;       /* read and not yet decoded */
        char *block;            /* READ_BYTES, for a range in a file */
        struct base64 base64;
        struct qp qp;
        char line[UU_LINE];
        size_t line_n;
        bool line_long;
        enum { UU_BEFORE, UU_INSIDE, UU_AFTER } uu;
        bool ended;             /* the decoder's end was written to out */
        size_t out_at, out_n;
        char out[OUT_BYTES];    /* last: it need not be cleared */
};

static void note(struct reader *r, const char *defect)
{
        if (r->m)
                message_add_defect(r->m, defect);
}

struct reader *reader_aside(const struct part *p, struct err *e)
{
        struct reader *r;
        struct str bytes;

        if (!part_readable(p, e))
                return NULL;
        r = mem_alloc(sizeof *r);
        if (!r) {
                err_nomem(e);
                return NULL;
        }
        memset(r, 0, offsetof(struct reader, out));
        r->r = p->body;
        r->base64.first_run = p->other;
        r->encoding = p->mime && p->mime->kind == MIME_LEAF ? p->mime->encoding : MIME_IDENTITY;
        if (r->encoding == MIME_IDENTITY || r->encoding == MIME_UNKNOWN || range_in_memory(r->r, &bytes))
                return r;
        r->block = mem_alloc(READ_BYTES);
        if (!r->block) {
                err_nomem(e);
                reader_close(r);
                return NULL;
        }
        return r;
}

struct reader *part_open(struct part *p, struct err *e)
{
        struct reader *r = reader_aside(p, e);

        if (r)
                r->m = p->m;
        return r;
}

bool reader_padded(const struct reader *r)
{
        return r->base64.padded;
}

void reader_close(struct reader *r)
{
        if (!r)
                return;
        mem_free(r->block);
        mem_free(r);
}

/* Makes sure that input has bytes, unless the range is at its end. */
static bool need_input(struct reader *r, struct err *e)
{
        struct str bytes;
        ssize_t n;

        if (r->input.n || r->at >= r->r.n)
                return true;
        if (range_in_memory(r->r, &bytes)) {
                r->input = str_from(bytes, r->at);
                r->at = r->r.n;
                return true;
        }
        n = range_read(r->r, r->at, r->block, READ_BYTES, e);
        if (n < 0)
                return false;
        r->input = str_make(r->block, (size_t)n);
        r->at += (uint64_t)n;
        return true;
}

static struct str take_input(struct reader *r, size_t most)
{
        struct str s = str_first(r->input, most);

        r->input = str_from(r->input, s.n);
        return s;
}

static void uu_line(struct reader *r, char *out, size_t *n)
{
        struct str line = str_make(r->line, r->line_n), name;
        int got;

        r->line_n = 0;
        if (line.n && line.p[line.n - 1] == '\r')
                line.n--;
        if (r->uu == UU_BEFORE) {
                if (uu_begin(line, &name))
                        r->uu = UU_INSIDE;
        } else if (r->uu == UU_INSIDE) {
                got = r->line_long ? -1 : uu_decode_line(line, out + *n);
                if (got < 0)
                        note(r, "encoding.uu");
                else if (got == 0)
                        r->uu = UU_AFTER;
                else
                        *n += (size_t)got;
        }
        r->line_long = false;
}

/* Decodes as many lines as leave no more than `room` bytes. */
static size_t uu_decode(struct reader *r, char *out, size_t room)
{
        size_t n = 0;

        while (r->input.n && room - n >= UU_ROOM) {
                size_t at = str_find(r->input, '\n');
                bool whole = at < r->input.n;
                struct str piece = take_input(r, at + whole);

                piece.n -= whole;
                if (piece.n > UU_LINE - r->line_n) {
                        r->line_long = true;
                        piece.n = UU_LINE - r->line_n;
                }
                memcpy(r->line + r->line_n, piece.p, piece.n);
                r->line_n += piece.n;
                if (whole)
                        uu_line(r, out, &n);
        }
        return n;
}

static size_t uu_end(struct reader *r, char *out)
{
        size_t n = 0;

        if (r->line_n)
                uu_line(r, out, &n);
        return n;
}

/* Decodes some input into out, which has room for at least DIRECT_MIN bytes. */
static size_t decode(struct reader *r, char *out, size_t room)
{
        if (r->encoding == MIME_BASE64)
                return base64_decode(&r->base64, take_input(r, (room - 6) / 3 * 4), out);
        if (r->encoding == MIME_QP)
                return qp_decode(&r->qp, take_input(r, room - 264), out);
        return uu_decode(r, out, room);
}

static void finish(struct reader *r)
{
        r->ended = true;
        r->out_at = 0;
        if (r->encoding == MIME_BASE64) {
                r->out_n = base64_end(&r->base64, r->out);
                if (r->base64.garbage)
                        note(r, "encoding.base64");
                if (r->base64.padded)
                        note(r, "encoding.padding");
                if (r->base64.truncated)
                        note(r, "encoding.truncated");
        } else if (r->encoding == MIME_QP) {
                r->out_n = qp_end(&r->qp, r->out);
                if (r->qp.bad)
                        note(r, "encoding.qp");
        } else {
                r->out_n = uu_end(r, r->out);
        }
}

static size_t give(struct reader *r, char *p, size_t n)
{
        if (n > r->out_n - r->out_at)
                n = r->out_n - r->out_at;
        memcpy(p, r->out + r->out_at, n);
        r->out_at += n;
        return n;
}

/* One step: bytes into p, or into r->out, or neither when a decoder held back what it got. */
static ssize_t step(struct reader *r, char *p, size_t n, struct err *e)
{
        if (!need_input(r, e))
                return -1;
        if (r->input.n == 0) {
                finish(r);
                return 0;
        }
        if (n >= DIRECT_MIN)
                return (ssize_t)decode(r, p, n);
        r->out_at = 0;
        r->out_n = decode(r, r->out, sizeof r->out);
        return 0;
}

ssize_t reader_read(struct reader *r, char *p, size_t n, struct err *e)
{
        ssize_t got = 0;

        if (n == 0)
                return 0;
        if (r->encoding == MIME_IDENTITY || r->encoding == MIME_UNKNOWN) {
                got = range_read(r->r, r->at, p, n, e);
                r->at += got > 0 ? (uint64_t)got : 0;
                return got;
        }
        while (r->out_at == r->out_n) {
                if (r->ended)
                        return 0;
                got = step(r, p, n, e);
                if (got != 0)
                        return got;
        }
        return (ssize_t)give(r, p, n);
}
