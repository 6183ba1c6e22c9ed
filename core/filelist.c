#include "core/filelist.h"

#include "core/mem.h"
#include "core/spill.h"

enum {
        PART_BYTES = 4 << 20,
        BLOCK = 32 << 10,
        LENGTH = 2,             /* bytes in front of a name; none is longer than two paths */
        NAME_MAX_BYTES = 16 << 10,
};

/* Names that are sorted, in the file: the block of it in hand, and in that the name whose turn it is. */
struct part {
        struct range in;
        uint64_t at;            /* what has been read of it */
        char *block;
        size_t have, used;
        struct str name;        /* {NULL,0}: no more */
};

struct filelist_parts {
        struct spill spill;
        struct part *of;
        size_t n, cap;
        size_t *heap;           /* parts by their name, the least first */
        size_t heap_n;
        struct buf given;
};

static struct filelist_parts *parts_new(void)
{
        struct filelist_parts *p = mem_zero(sizeof *p);

        if (p)
                spill_init(&p->spill, 0);
        return p;
}

static struct part *add_part(struct filelist_parts *p, struct err *e)
{
        if (p->n == p->cap) {
                size_t cap = p->cap ? p->cap * 2 : 16;
                struct part *more = mem_resize(p->of, cap * sizeof *more);

                if (!more)
                        return err_nomem(e), NULL;
                p->of = more;
                p->cap = cap;
        }
        p->of[p->n] = (struct part){ .at = 0 };
        return &p->of[p->n];
}

static bool write_names(const struct namelist *l, struct spilling *to, struct err *e)
{
        struct buf b = BUF_INIT;
        bool ok = true;

        for (size_t i = 0; ok && i < l->n; i++) {
                struct str name = namelist_get(l, i);

                buf_add_char(&b, (char)(name.n >> 8));
                buf_add_char(&b, (char)(name.n & 0xff));
                buf_add_str(&b, name);
                if (b.n < BLOCK && i + 1 < l->n)
                        continue;
                ok = buf_ok(&b, e) && spilling_add(to, buf_str(&b), e);
                buf_clear(&b);
        }
        buf_free(&b);
        return ok;
}

static bool put_aside(struct filelist *l, struct err *e)
{
        struct spilling to;
        struct part *part;
        bool ok;

        if (!l->parts && !(l->parts = parts_new()))
                return err_nomem(e);
        if (!(part = add_part(l->parts, e)) || !namelist_sort(&l->part, e))
                return false;
        spilling_begin(&to, &l->parts->spill);
        ok = write_names(&l->part, &to, e) && spilling_end(&to, &part->in, e);
        spilling_drop(&to);
        l->parts->n += ok;
        namelist_free(&l->part);
        return ok;
}

bool filelist_add(struct filelist *l, struct str a, char between, struct str b, struct err *e)
{
        if (a.n + 1 + b.n > NAME_MAX_BYTES)
                return err_set(e, ERR_LIMIT, "a name of more than %d bytes", NAME_MAX_BYTES);
        if (l->part.text.n + a.n + 1 + b.n > PART_BYTES && !put_aside(l, e))
                return false;
        l->n++;
        return namelist_add(&l->part, a, between, b, e);
}

/* ---- merging ---- */

/* So many bytes in hand, unless the part ends before. */
static bool look_ahead(struct part *p, size_t n, struct err *e)
{
        if (p->have - p->used >= n)
                return true;
        memmove(p->block, p->block + p->used, p->have - p->used);
        p->have -= p->used;
        p->used = 0;
        while (p->have < n && p->at < p->in.n) {
                ssize_t got = range_read(p->in, p->at, p->block + p->have, BLOCK - p->have, e);

                if (got <= 0)
                        return got < 0 ? false : err_set(e, ERR_IO, "a list of files that was put aside has become shorter");
                p->at += (uint64_t)got;
                p->have += (size_t)got;
        }
        return true;
}

static bool next_of(struct part *p, struct err *e)
{
        size_t n;

        p->name = (struct str){ NULL, 0 };
        if (!look_ahead(p, LENGTH, e))
                return false;
        if (p->have == p->used)
                return true;
        n = (size_t)(uint8_t)p->block[p->used] << 8 | (uint8_t)p->block[p->used + 1];
        if (!look_ahead(p, LENGTH + n, e))
                return false;
        if (p->have - p->used < LENGTH + n)
                return err_set(e, ERR_IO, "a list of files that was put aside is damaged");
        p->name = str_make(p->block + p->used + LENGTH, n);
        p->used += LENGTH + n;
        return true;
}

/* Equal names come from the earlier part first. */
static bool before(const struct filelist_parts *p, size_t a, size_t b)
{
        int c = str_cmp(p->of[a].name, p->of[b].name);

        return c < 0 || (c == 0 && a < b);
}

static void sink(struct filelist_parts *p, size_t i)
{
        for (size_t child; (child = 2 * i + 1) < p->heap_n; i = child) {
                size_t part = p->heap[i];

                if (child + 1 < p->heap_n && before(p, p->heap[child + 1], p->heap[child]))
                        child++;
                if (before(p, part, p->heap[child]))
                        return;
                p->heap[i] = p->heap[child];
                p->heap[child] = part;
        }
}

static bool begin_merge(struct filelist_parts *p, struct err *e)
{
        if (!(p->heap = mem_array(p->n, sizeof *p->heap)))
                return err_nomem(e);
        for (size_t i = 0; i < p->n; i++) {
                if (!(p->of[i].block = mem_alloc(BLOCK)))
                        return err_nomem(e);
                if (!next_of(&p->of[i], e))
                        return false;
                p->heap[p->heap_n++] = i;
        }
        for (size_t i = p->heap_n / 2; i-- > 0;)
                sink(p, i);
        return true;
}

bool filelist_sort(struct filelist *l, struct err *e)
{
        if (!l->parts)
                return namelist_sort(&l->part, e);
        return (l->part.n == 0 || put_aside(l, e)) && begin_merge(l->parts, e);
}

static bool merged(struct filelist_parts *p, struct str *name, struct err *e)
{
        struct part *first = &p->of[p->heap[0]];

        buf_clear(&p->given);
        buf_add_str(&p->given, first->name);
        *name = buf_str(&p->given);
        if (!buf_ok(&p->given, e) || !next_of(first, e))
                return false;
        if (!first->name.p)
                p->heap[0] = p->heap[--p->heap_n];
        sink(p, 0);
        return true;
}

bool filelist_next(struct filelist *l, struct str *name, struct err *e)
{
        *name = (struct str){ NULL, 0 };
        if (l->next == l->n)
                return true;
        l->next++;
        if (l->parts)
                return merged(l->parts, name, e);
        *name = namelist_get(&l->part, l->next - 1);
        return true;
}

void filelist_free(struct filelist *l)
{
        struct filelist_parts *p = l->parts;

        namelist_free(&l->part);
        for (size_t i = 0; p && i < p->n; i++)
                mem_free(p->of[i].block);
        if (p) {
                spill_free(&p->spill);
                mem_free(p->of);
                mem_free(p->heap);
                buf_free(&p->given);
        }
        mem_free(p);
        *l = (struct filelist)FILELIST_INIT;
}
