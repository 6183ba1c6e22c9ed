#include "core/slurp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"

size_t slurp_block = SLURP_BLOCK;
const atomic_bool *slurp_stop;

/* How far a stream is read ahead for a Content-Length: more than any message that is one by mail. */
enum { AHEAD_MAX = 1 << 30 };

static void drop_ahead(struct slurp *s)
{
        if (s->ahead >= 0)
                close(s->ahead);
        s->ahead = -1;
        s->ahead_eof = false;
        s->ahead_from = s->ahead_end = 0;
}

static void let_go(struct slurp *s)
{
        if (s->fd >= 0)
                close(s->fd);
        s->fd = -1;
        s->read = NULL;
        drop_ahead(s);
}

static bool start(struct slurp *s, uint64_t at, bool seekable, uint64_t size, struct err *e)
{
        s->n = 0;
        s->eof = s->cut = false;
        s->base = at;
        s->seekable = seekable;
        s->size = size;
        return s->p || (s->p = mem_alloc(SLURP_BLOCK)) || err_nomem(e);
}

bool slurp_open(struct slurp *s, int fd, struct err *e)
{
        struct stat st;
        off_t at = 0;

        let_go(s);
        s->fd = fd;
        if (fstat(fd, &st) < 0 || (S_ISREG(st.st_mode) && (at = lseek(fd, 0, SEEK_CUR)) < 0))
                return err_sys(e, ERR_IO, errno, "looking at the file");
        return start(s, (uint64_t)at, S_ISREG(st.st_mode), S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0, e);
}

bool slurp_open_file(struct slurp *s, int fd, uint64_t size, struct err *e)
{
        let_go(s);
        s->fd = fd;
        return start(s, 0, true, size, e);
}

bool slurp_open_reader(struct slurp *s, slurp_read_fn *read, void *ctx, struct err *e)
{
        let_go(s);
        s->read = read;
        s->ctx = ctx;
        return start(s, 0, false, 0, e);
}

/* Whoever writes into it may take for ever; a file that cannot be waited for is there at once. */
static bool await(int fd, struct err *e)
{
        enum { STEP_MS = 200 };
        struct pollfd p = { .fd = fd, .events = POLLIN };

        int got;

        while ((got = poll(&p, 1, STEP_MS)) == 0 || (got < 0 && errno == EINTR))
                if (slurp_stop && atomic_load(slurp_stop))
                        return err_set(e, ERR_STOPPED, "stopped");
        return true;
}

static ssize_t read_stream(struct slurp *s, void *p, size_t n, struct err *e)
{
        if (s->read)
                return s->read(s->ctx, p, n, e);
        return await(s->fd, e) ? sys_read(s->fd, p, n, e) : -1;
}

/* What has been read ahead comes first. */
static ssize_t fill_from_stream(struct slurp *s, uint64_t at, size_t room, struct err *e)
{
        if (s->ahead >= 0 && at < s->ahead_end)
                return sys_pread_full(s->ahead, s->p + s->n, room < s->ahead_end - at ? room : (size_t)(s->ahead_end - at),
                                      at - s->ahead_from, e);
        if (s->ahead >= 0 && s->ahead_eof)
                return 0;
        drop_ahead(s);
        return read_stream(s, s->p + s->n, room, e);
}

static ssize_t fill(struct slurp *s, size_t room, struct err *e)
{
        uint64_t at = s->base + s->n;

        if (!s->seekable)
                return fill_from_stream(s, at, room, e);
        if (at >= s->size)
                return 0;
        return sys_pread_full(s->fd, s->p + s->n, room < s->size - at ? room : (size_t)(s->size - at), at, e);
}

static bool open_ahead(struct slurp *s, struct err *e)
{
        int dir;

        if (s->ahead >= 0)
                return true;
        if ((dir = sys_open(s->tmp_dir, O_RDONLY | O_DIRECTORY, 0, e)) < 0)
                return false;
        s->ahead = sys_tmpfile(dir, e);
        close(dir);
        s->ahead_from = s->ahead_end = s->base + s->n;
        return s->ahead >= 0;
}

static bool read_ahead(struct slurp *s, uint64_t until, struct err *e)
{
        enum { STEP = 64 << 10 };
        char *p;
        ssize_t got = 1;

        if (!open_ahead(s, e))
                return err_in(e, "reading ahead into %s", s->tmp_dir);
        if (s->ahead_end >= until || s->ahead_eof)
                return true;
        if (!(p = mem_alloc(STEP)))
                return err_nomem(e);
        while (got > 0 && s->ahead_end < until) {
                got = read_stream(s, p, STEP, e);
                if (got > 0 && !sys_write_all(s->ahead, p, (size_t)got, e))
                        got = -1;
                if (got > 0)
                        s->ahead_end += (uint64_t)got;
        }
        mem_free(p);
        s->ahead_eof = got == 0;
        return got >= 0;
}

static ssize_t peek_stream(struct slurp *s, uint64_t at, void *p, size_t n, struct err *e)
{
        uint64_t buffered = s->base + s->n;
        size_t first = at < buffered ? (size_t)(buffered - at) : 0;
        ssize_t got;

        memcpy(p, s->p + (s->n - first), first);
        if (s->eof)
                return (ssize_t)first;
        if (!s->tmp_dir || at + n - buffered > AHEAD_MAX)
                return 0;
        if (!read_ahead(s, at + n, e))
                return -1;
        at += first;
        if (at >= s->ahead_end)
                return (ssize_t)first;
        got = sys_pread_full(s->ahead, (char *)p + first, n - first < s->ahead_end - at ? n - first : (size_t)(s->ahead_end - at),
                             at - s->ahead_from, e);
        return got < 0 ? -1 : (ssize_t)first + got;
}

ssize_t slurp_peek(struct slurp *s, uint64_t at, void *p, size_t n, struct err *e)
{
        if (at >= s->base && at + n <= s->base + s->n) {
                memcpy(p, s->p + (at - s->base), n);
                return (ssize_t)n;
        }
        if (!s->seekable)
                return peek_stream(s, at, p, n, e);
        if (at >= s->size)
                return 0;
        return sys_pread_full(s->fd, p, n < s->size - at ? n : (size_t)(s->size - at), at, e);
}

bool slurp_more(struct slurp *s, size_t keep, struct err *e)
{
        ssize_t got;

        if (keep > s->n)
                keep = s->n;
        if (keep > 0)
                memmove(s->p, s->p + keep, s->n - keep);
        s->base += keep;
        s->n -= keep;
        if (s->eof)
                return true;
        if (s->n >= slurp_block)
                return err_set(e, ERR_LIMIT, "no room in the read buffer");
        got = fill(s, slurp_block - s->n, e);
        if (got < 0)
                return err_in(e, "reading at offset %llu", (unsigned long long)s->base + s->n);
        s->n += (size_t)got;
        if (!s->seekable)
                s->eof = got == 0;
        else if (s->base + s->n >= s->size || got == 0) {
                s->eof = true;
                s->cut = s->base + s->n < s->size;
        }
        return true;
}

void slurp_close(struct slurp *s)
{
        let_go(s);
        mem_free(s->p);
        *s = SLURP_NONE;
}
