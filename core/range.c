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
        int fd; /* -1: in memory */
};

static struct backing *backing_new(char *p, size_t n, int fd)
{
        struct backing *b = mem_alloc(sizeof *b);

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
        mem_free(b->p);
        mem_free(b);
}

bool range_in_memory(struct range r, struct str *out)
{
        const struct backing *b = r.in;

        if (!b || b->fd >= 0 || r.at > b->n || r.n > b->n - r.at)
                return false;
        *out = str_make(b->p ? b->p + r.at : "", r.n);
        return true;
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
        if (!r.in || r.in->fd < 0) {
                err_set(e, ERR_IO, "reading bytes beyond the end of what is in memory");
                return -1;
        }
        got = sys_pread_full(r.in->fd, p, n, r.at + at, e);
        if (got >= 0 && (size_t)got < n) {
                err_set(e, ERR_IO, "the file has become shorter while it was read");
                return -1;
        }
        return got;
}
