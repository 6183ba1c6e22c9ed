#include "core/gather.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"

enum {
        TEMP_BLOCK = 256 << 10, /* writes to the temporary file are of this size */
        PIECES_MAX = 2048,      /* a ">From " line leaves a byte out; a file with CRLF has more than any table should hold */
        PIECE_MIN = 1024,       /* bytes, on average: smaller ones cost more to collect than to keep in memory */
        IN_PLACE_MIN = 128 << 10, /* reading again costs no more than memory from here on, and a thousand messages are in flight */
};

void gather_init(struct gather *g, const struct slurp *in, const char *tmp_dir, const struct limits *lim, bool (*may_parse)(void *ctx), void *ctx)
{
        *g = (struct gather){ .in = in, .tmp_dir = tmp_dir, .lim = lim, .may_parse = may_parse, .ctx = ctx, .temp = -1 };
}

static void drop_sketch(struct gather *g)
{
        sketch_free(g->sketch);
        g->sketch = NULL;
}

/* Without it the message is parsed later, from its file. */
static void sketch(struct gather *g, const char *p, size_t n)
{
        if (g->sketch && n > 0 && !sketch_feed(g->sketch, str_make(p, n)))
                drop_sketch(g);
}

static void drop_temp(struct gather *g)
{
        if (g->temp >= 0)
                close(g->temp);
        g->temp = -1;
}

void gather_begin(struct gather *g, uint64_t start)
{
        drop_temp(g); /* of a message that was given up half way */
        drop_sketch(g);
        g->where = GATHER_MEMORY;
        g->scattered = g->cr = false;
        g->next = start;
        g->pieces_n = 0;
        g->n = 0;
        g->used = 0;
}

static bool reserve(struct gather *g, size_t want, struct err *e)
{
        char *p;

        if (want <= g->cap)
                return true;
        if (!(p = mem_resize(g->p, want)))
                return err_nomem(e);
        g->p = p;
        g->cap = want;
        return true;
}

static bool flush(struct gather *g, struct err *e)
{
        if (!sys_write_all(g->temp, g->p, g->used, e))
                return err_in(e, "copying a large message into %s", g->tmp_dir);
        g->used = 0;
        return true;
}

static bool open_temp(struct gather *g, struct err *e)
{
        int dir = sys_open(g->tmp_dir, O_RDONLY | O_DIRECTORY, 0, e);

        if (dir < 0)
                return err_in(e, "a place for a large message");
        g->temp = sys_tmpfile(dir, e);
        close(dir);
        if (g->temp < 0)
                return err_in(e, "a place for a large message in %s", g->tmp_dir);
        g->where = GATHER_TEMP;
        return reserve(g, TEMP_BLOCK, e);
}

static bool copy_piece(struct gather *g, uint64_t from, uint64_t n, struct err *e)
{
        while (n > 0) {
                size_t want = n < TEMP_BLOCK - g->used ? (size_t)n : TEMP_BLOCK - g->used;
                ssize_t got = sys_pread_full(g->in->fd, g->p + g->used, want, from, e);

                if (got <= 0)
                        return got < 0 ? false : err_set(e, ERR_IO, "the file became shorter while it was read");
                g->used += (size_t)got;
                if (g->used == TEMP_BLOCK && !flush(g, e))
                        return false;
                from += (uint64_t)got;
                n -= (uint64_t)got;
        }
        return true;
}

/* What was counted in place so far becomes the beginning of a temporary file. */
static bool move_to_temp(struct gather *g, struct err *e)
{
        if (!open_temp(g, e))
                return false;
        for (size_t i = 0; i < g->pieces_n; i++) {
                uint64_t end = i + 1 < g->pieces_n ? g->pieces[i + 1].at : g->n;

                if (!copy_piece(g, g->pieces[i].from, end - g->pieces[i].at, e))
                        return false;
        }
        return true;
}

/* What comes next begins a piece. */
static bool new_piece(struct gather *g, struct err *e)
{
        if (!g->pieces && !(g->pieces = mem_array(PIECES_MAX, sizeof *g->pieces)))
                return err_nomem(e);
        if (g->pieces_n > 0 && g->pieces[g->pieces_n - 1].at == g->n)
                g->pieces_n--; /* nothing came of it */
        g->scattered = g->pieces_n == PIECES_MAX ||
                       (g->where == GATHER_MEMORY && g->n >= IN_PLACE_MIN / 2 && g->pieces_n > 0 && g->n / g->pieces_n < PIECE_MIN);
        if (g->scattered)
                return g->where != GATHER_IN_PLACE || move_to_temp(g, e);
        g->pieces[g->pieces_n++] = (struct piece){ g->n, g->next };
        return true;
}

bool gather_skip(struct gather *g, struct err *e)
{
        g->next++;
        return g->scattered || !g->in->seekable || new_piece(g, e);
}

/* The size that a message in memory may have. */
static uint64_t room(const struct gather *g)
{
        return g->in->seekable && !g->scattered && g->lim->memory_message > IN_PLACE_MIN ? IN_PLACE_MIN : g->lim->memory_message;
}

static bool outgrow_memory(struct gather *g, struct err *e)
{
        g->sketch = g->may_parse(g->ctx) ? sketch_new(g->lim) : NULL;
        sketch(g, g->p, g->used);
        if (g->scattered || !g->in->seekable)
                return open_temp(g, e) && flush(g, e);
        g->where = GATHER_IN_PLACE;
        mem_free(g->p);
        g->p = NULL;
        g->cap = g->used = 0;
        return true;
}

static bool put_temp(struct gather *g, const char *p, size_t n, struct err *e)
{
        if (g->used + n > TEMP_BLOCK && !flush(g, e))
                return false;
        if (n > TEMP_BLOCK)
                return sys_write_all(g->temp, p, n, e) || err_in(e, "copying a large message into %s", g->tmp_dir);
        memcpy(g->p + g->used, p, n);
        g->used += n;
        return true;
}

static bool put_memory(struct gather *g, const char *p, size_t n, struct err *e)
{
        if (g->used + n > g->cap && !reserve(g, g->cap > n ? g->cap * 2 : g->cap + n, e))
                return false;
        memcpy(g->p + g->used, p, n);
        g->used += n;
        return true;
}

static bool put(struct gather *g, const char *p, size_t n, struct err *e)
{
        if (n == 0)
                return true;
        if (g->lim->message && g->n + n > g->lim->message) {
                drop_temp(g);
                drop_sketch(g);
                g->where = GATHER_NOWHERE;
        }
        if (g->where == GATHER_MEMORY && g->n + n > room(g) && !outgrow_memory(g, e))
                return false;
        if (g->pieces_n == 0 && g->in->seekable && !g->scattered && !new_piece(g, e))
                return false;
        g->n += n;
        g->next += n;
        sketch(g, p, n);
        if (g->where == GATHER_IN_PLACE || g->where == GATHER_NOWHERE)
                return true;
        return g->where == GATHER_TEMP ? put_temp(g, p, n, e) : put_memory(g, p, n, e);
}

/* The one look at every byte for CR; memchr passes a block without one at the speed of memory. */
static bool put_lines(struct gather *g, const char *p, size_t n, struct err *e)
{
        const char *from = p, *end = p + n, *at = p;

        while ((at = memchr(at, '\r', (size_t)(end - at)))) {
                if (at + 1 == end) {
                        g->cr = true;
                        return put(g, from, (size_t)(at - from), e);
                }
                at++;
                if (*at != '\n')
                        continue;
                if (!put(g, from, (size_t)(at - 1 - from), e) || !gather_skip(g, e))
                        return false;
                from = at;
        }
        return put(g, from, (size_t)(end - from), e);
}

bool gather_add(struct gather *g, const char *p, size_t n, struct err *e)
{
        if (n == 0)
                return true;
        if (g->where == GATHER_MEMORY && g->n + n <= room(g) && g->used + n + 1 > g->cap) {
                /* room for the whole piece at once; a message in several pieces grows by doubling */
                size_t want = g->used + n + 1;

                if (!reserve(g, g->used && want < g->cap * 2 ? g->cap * 2 : want, e))
                        return false;
        }
        if (g->cr) {
                g->cr = false;
                if (*p == '\n' ? !gather_skip(g, e) : !put(g, "\r", 1, e))
                        return false;
        }
        return put_lines(g, p, n, e);
}

static bool end_in_memory(struct gather *g, struct backing **in, struct err *e)
{
        char *p = g->p;

        if (g->cap - g->used > g->used / 8 + 64) {
                p = mem_resize(p, g->used ? g->used : 1);
                p = p ? p : g->p;
        }
        g->p = NULL;
        g->cap = 0;
        *in = p ? backing_memory(p, g->used) : NULL;
        return *in || err_nomem(e);
}

static bool keep_place(struct gather *g, struct err *e)
{
        int fd;

        if (g->place)
                return true;
        fd = fcntl(g->in->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return err_sys(e, ERR_IO, errno, "keeping the archive open");
        g->place = backing_fd(fd);
        return g->place || err_nomem(e);
}

static bool end_in_place(struct gather *g, struct range *out, struct err *e)
{
        struct piece *pieces;

        if (!keep_place(g, e))
                return false;
        if (g->pieces_n == 1) {
                out->at = g->pieces[0].from;
                out->in = backing_ref(g->place);
                return true;
        }
        pieces = mem_alloc(g->pieces_n * sizeof *pieces);
        if (pieces)
                memcpy(pieces, g->pieces, g->pieces_n * sizeof *pieces);
        out->in = pieces ? backing_pieces(g->place, pieces, g->pieces_n) : NULL;
        return out->in || err_nomem(e);
}

static bool end_in_temp(struct gather *g, struct backing **in, struct err *e)
{
        if (!flush(g, e))
                return false;
        *in = backing_fd(g->temp);
        g->temp = -1;
        return *in || err_nomem(e);
}

bool gather_over(const struct gather *g)
{
        return g->where == GATHER_NOWHERE || (g->lim->message && g->n + g->cr > g->lim->message);
}

bool gather_end(struct gather *g, struct range *out, struct err *e)
{
        bool ok;

        if (g->cr && !put(g, "\r", 1, e))
                return false;
        g->cr = false;
        if (g->where == GATHER_MEMORY && !reserve(g, 1, e)) /* an empty message has a backing, too */
                return false;
        if (g->sketch && !sketch_end(g->sketch))
                drop_sketch(g);
        *out = (struct range){ NULL, 0, g->n };
        ok = g->where == GATHER_MEMORY ? end_in_memory(g, &out->in, e)
           : g->where == GATHER_TEMP   ? end_in_temp(g, &out->in, e)
                                       : end_in_place(g, out, e);
        g->used = 0;
        return ok;
}

struct sketch *gather_sketch(struct gather *g)
{
        struct sketch *s = g->sketch;

        g->sketch = NULL;
        return s;
}

void gather_rewind(struct gather *g)
{
        if (g->place)
                backing_unref(g->place);
        g->place = NULL;
        drop_temp(g);
        drop_sketch(g);
}

void gather_close(struct gather *g)
{
        gather_rewind(g);
        mem_free(g->p);
        mem_free(g->pieces);
        g->pieces = NULL;
        g->p = NULL;
        g->cap = g->used = 0;
}
