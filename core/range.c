#include "core/range.h"

#include "core/mem.h"
#include "core/sys.h"
#include <stdatomic.h>
#include <unistd.h>

/* Shared between the messages of one archive, which may be on different threads: the count is atomic, the rest never changes. */
struct backing {
        atomic_uint refs;
        char *p;
        size_t n;
        int fd;                 /* -1: in memory, or in pieces */
        struct backing *file;   /* of the pieces; NULL when there are none */
        struct piece *pieces;
        size_t pieces_n;
};

static struct backing *backing_new(char *p, size_t n, int fd)
{
        struct backing *b = mem_zero(sizeof *b);

        if (!b)
                return NULL;
        atomic_init(&b->refs, 1);
        b->p = p;
        b->n = n;
        b->fd = fd;
        return b;
}

struct backing *backing_memory(char *p, size_t n)
{
        struct backing *b = backing_new(p, n, -1);

        if (!b)
                mem_free(p);
        return b;
}

struct backing *backing_fd(int fd)
{
        struct backing *b = backing_new(NULL, 0, fd);

        if (!b)
                close(fd);
        return b;
}

struct backing *backing_pieces(struct backing *file, struct piece *pieces, size_t n)
{
        struct backing *b = backing_new(NULL, 0, -1);

        if (!b) {
                mem_free(pieces);
                return NULL;
        }
        b->file = backing_ref(file);
        b->pieces = pieces;
        b->pieces_n = n;
        return b;
}

struct backing *backing_ref(struct backing *b)
{
        if (b)
                atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
        return b;
}

void backing_unref(struct backing *b)
{
        if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
                return;
        if (b->fd >= 0)
                close(b->fd);
        backing_unref(b->file); /* has no pieces itself: no deep recursion */
        mem_free(b->pieces);
        mem_free(b->p);
        mem_free(b);
}

bool range_in_memory(struct range r, struct str *out)
{
        const struct backing *b = r.in;

        if (!b || b->fd >= 0 || b->file || r.at > b->n || r.n > b->n - r.at)
                return false;
        *out = str_make(b->p ? b->p + r.at : "", r.n);
        return true;
}

/* The last piece that begins at or before `at`. */
static size_t piece_at(const struct backing *b, uint64_t at)
{
        size_t low = 0, high = b->pieces_n;

        while (high - low > 1) {
                size_t middle = low + (high - low) / 2;

                if (b->pieces[middle].at <= at)
                        low = middle;
                else
                        high = middle;
        }
        return low;
}

static ssize_t read_pieces(const struct backing *b, uint64_t at, char *p, size_t n, struct err *e)
{
        size_t done = 0;

        for (size_t i = piece_at(b, at); done < n; i++) {
                const struct piece *piece = &b->pieces[i];
                size_t want = n - done;
                ssize_t got;

                if (i + 1 < b->pieces_n && piece[1].at - at - done < want)
                        want = (size_t)(piece[1].at - at - done);
                got = sys_pread_full(b->file->fd, p + done, want, piece->from + (at + done - piece->at), e);
                if (got < 0)
                        return -1;
                done += (size_t)got;
                if ((size_t)got < want)
                        break;
        }
        return (ssize_t)done;
}

ssize_t range_read(struct range r, uint64_t at, void *p, size_t n, struct err *e)
{
        struct str bytes;
        ssize_t got;

        if (at >= r.n)
                return 0;
        if (n > r.n - at)
                n = r.n - at;
        if (range_in_memory(r, &bytes)) {
                memcpy(p, bytes.p + at, n);
                return (ssize_t)n;
        }
        if (!r.in || (r.in->fd < 0 && !r.in->file)) {
                err_set(e, ERR_IO, "reading bytes beyond the end of what is in memory");
                return -1;
        }
        got = r.in->file ? read_pieces(r.in, r.at + at, p, n, e) : sys_pread_full(r.in->fd, p, n, r.at + at, e);
        if (got >= 0 && (size_t)got < n) {
                err_set(e, ERR_IO, "the file has become shorter while it was read");
                return -1;
        }
        return got;
}
