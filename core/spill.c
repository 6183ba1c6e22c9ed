#include "core/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"

static char place[PATH_MAX] = "/tmp";

void spill_place(const char *dir)
{
        size_t n = strlen(dir);

        if (n < sizeof place)
                memcpy(place, dir, n + 1);
}

void spill_init(struct spill *s, uint64_t memory)
{
        *s = (struct spill){ .memory = memory, .fd = -1 };
}

void spill_free(struct spill *s)
{
        for (size_t i = 0; i < s->n; i++)
                backing_unref(s->kept[i]);
        mem_free(s->kept);
        spill_init(s, s->memory);
}

/* Takes over the reference, also when it fails; NULL: making it has failed already. */
static bool keep(struct spill *s, struct backing *b, struct err *e)
{
        if (b && s->n == s->cap) {
                size_t cap = s->cap ? s->cap * 2 : 8;
                struct backing **more = mem_resize(s->kept, cap * sizeof *more);

                if (!more) {
                        backing_unref(b);
                        return err_nomem(e);
                }
                s->kept = more;
                s->cap = cap;
        }
        if (!b)
                return err_nomem(e);
        s->kept[s->n++] = b;
        return true;
}

bool spill_take(struct spill *s, struct buf *b, struct range *out, struct err *e)
{
        struct backing *bytes = backing_memory(b->p, b->n);

        *out = (struct range){ bytes, 0, b->n };
        s->used += b->n;
        buf_init(b, 0);
        return keep(s, bytes, e);
}

/* ---- in a file ---- */

static bool make_file(struct spill *s, struct err *e)
{
        int dir, fd;

        if (s->file)
                return true;
        dir = sys_open(place, O_RDONLY | O_DIRECTORY, 0, e);
        fd = dir < 0 ? -1 : sys_tmpfile(dir, e);
        if (dir >= 0)
                close(dir);
        if (fd < 0)
                return err_in(e, "a place for what does not fit in memory, in %s", place);
        s->fd = fd;
        s->end = 0;
        if (!keep(s, backing_fd(fd), e))
                return false;
        s->file = s->kept[s->n - 1];
        return true;
}

static bool write_file(struct spilling *w, struct str block, struct err *e)
{
        return sys_write_all(w->s->fd, block.p, block.n, e) || err_in(e, "putting aside what does not fit in memory, in %s", place);
}

/* What was gathered in memory goes first. */
static bool to_file(struct spilling *w, struct err *e)
{
        if (!make_file(w->s, e))
                return false;
        if (lseek(w->s->fd, (off_t)w->s->end, SEEK_SET) < 0)
                return err_sys(e, ERR_IO, errno, "putting aside what does not fit in memory, in %s", place);
        if (!write_file(w, buf_str(&w->b), e))
                return false;
        buf_free(&w->b);
        return w->in_file = true;
}

/* ---- */

void spilling_begin(struct spilling *w, struct spill *s)
{
        *w = (struct spilling){ .s = s, .b = BUF_INIT };
}

bool spilling_add(struct spilling *w, struct str block, struct err *e)
{
        uint64_t n = w->n + block.n;

        if (!w->in_file && w->s->used + n > w->s->memory && !to_file(w, e))
                return false;
        if (w->in_file ? !write_file(w, block, e) : !buf_add_str(&w->b, block) && !err_nomem(e))
                return false;
        w->n = n;
        return true;
}

bool spilling_end(struct spilling *w, struct range *out, struct err *e)
{
        if (!w->in_file)
                return spill_take(w->s, &w->b, out, e);
        *out = (struct range){ w->s->file, w->s->end, w->n };
        w->s->end += w->n;
        w->in_file = false;
        return true;
}

void spilling_drop(struct spilling *w)
{
        buf_free(&w->b);
}
