#include "core/slurp.h"

#include <errno.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"

size_t slurp_block = SLURP_BLOCK;

static void let_go(struct slurp *s)
{
        if (s->fd >= 0)
                close(s->fd);
        s->fd = -1;
}

bool slurp_open(struct slurp *s, int fd, struct err *e)
{
        struct stat st;
        off_t at = 0;

        let_go(s);
        s->fd = fd;
        s->n = 0;
        s->eof = s->cut = false;
        if (fstat(fd, &st) < 0)
                return err_sys(e, ERR_IO, errno, "looking at the file");
        s->seekable = S_ISREG(st.st_mode);
        if (s->seekable && (at = lseek(fd, 0, SEEK_CUR)) < 0)
                return err_sys(e, ERR_IO, errno, "looking at the file");
        s->base = (uint64_t)at;
        s->size = s->seekable ? (uint64_t)st.st_size : 0;
        if (!s->p && !(s->p = mem_alloc(SLURP_BLOCK)))
                return err_nomem(e);
        return true;
}

static ssize_t fill(struct slurp *s, size_t room, struct err *e)
{
        uint64_t at = s->base + s->n;

        if (!s->seekable)
                return sys_read(s->fd, s->p + s->n, room, e);
        if (at >= s->size)
                return 0;
        return sys_pread_full(s->fd, s->p + s->n, room < s->size - at ? room : (size_t)(s->size - at), at, e);
}

bool slurp_more(struct slurp *s, size_t keep, struct err *e)
{
        ssize_t got;

        if (keep > s->n)
                keep = s->n;
        memmove(s->p, s->p + keep, s->n - keep);
        s->base += keep;
        s->n -= keep;
        if (s->eof)
                return true;
        if (s->n >= slurp_block)
                return err_set(e, ERR_LIMIT, "no room in the read buffer");
        got = fill(s, slurp_block - s->n, e);
        if (got < 0)
                return err_in(e, "reading at offset %llu", (unsigned long long)(s->base + s->n));
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
