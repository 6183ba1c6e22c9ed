#include "core/sequences.h"

#include <stdlib.h>

#include "core/mem.h"

/* In the order of their letters. */
static const struct kind { char letter; const char *names[3]; } kinds[SEQUENCE_KINDS] = {
        { 'D', { "draft", "drafts" } }, { 'F', { "flagged", "marked" } }, { 'P', { "forwarded", "passed" } },
        { 'R', { "replied", "answered" } }, { 'S', { "unseen" } }, { 'T', { "deleted", "trashed" } },
};

static int kind_of(struct str name)
{
        for (int k = 0; k < SEQUENCE_KINDS; k++)
                for (int i = 0; i < 3 && kinds[k].names[i]; i++)
                        if (str_eq_nocase(name, str_of(kinds[k].names[i])))
                                return k;
        return -1;
}

static bool add(struct sequence *q, struct sequence_range r, struct err *e)
{
        size_t cap = q->cap ? q->cap * 2 : 16;
        struct sequence_range *list = q->list;

        if (q->n == q->cap) {
                if (!(list = mem_resize(list, cap * sizeof *list)))
                        return err_nomem(e);
                q->list = list;
                q->cap = cap;
        }
        q->list[q->n++] = r;
        return true;
}

static bool read_line(struct sequence *q, struct str rest, struct err *e)
{
        while (rest.n > 0) {
                struct str last = str_take(&rest, ' '), first = str_take(&last, '-');
                struct sequence_range r;

                if (!str_to_u64(first, UINT64_MAX, &r.first))
                        continue;
                r.last = r.first;
                if ((last.n > 0 && !str_to_u64(last, UINT64_MAX, &r.last)) || r.last < r.first)
                        continue;
                if (!add(q, r, e))
                        return false;
        }
        return true;
}

static int compare(const void *a, const void *b)
{
        const struct sequence_range *x = a, *y = b;

        return x->first < y->first ? -1 : x->first > y->first;
}

/* Sorted, and what overlaps made one. */
static void settle(struct sequence *q)
{
        size_t kept = 0;

        if (q->n == 0)
                return;
        qsort(q->list, q->n, sizeof *q->list, compare);
        for (size_t i = 1; i < q->n; i++)
                if (q->list[i].first > q->list[kept].last)
                        q->list[++kept] = q->list[i];
                else if (q->list[i].last > q->list[kept].last)
                        q->list[kept].last = q->list[i].last;
        q->n = kept + 1;
}

bool sequences_read(struct sequences *s, struct str text, struct err *e)
{
        for (int k = 0; k < SEQUENCE_KINDS; k++)
                s->of[k].n = 0;
        while (text.n > 0) {
                struct str line = str_take_line(&text), name = str_trim(str_take(&line, ':'));
                int k = kind_of(name);

                if (k >= 0 && !read_line(&s->of[k], line, e))
                        return false;
        }
        for (int k = 0; k < SEQUENCE_KINDS; k++)
                settle(&s->of[k]);
        return true;
}

static bool holds(const struct sequence *q, uint64_t number)
{
        size_t low = 0, high = q->n;

        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if (q->list[mid].last < number)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low < q->n && q->list[low].first <= number;
}

struct str sequences_flags(const struct sequences *s, uint64_t number, char out[8])
{
        size_t n = 0;

        for (int k = 0; k < SEQUENCE_KINDS; k++)
                if (holds(&s->of[k], number) != (kinds[k].letter == 'S'))
                        out[n++] = kinds[k].letter;
        return str_make(out, n);
}

void sequences_free(struct sequences *s)
{
        for (int k = 0; k < SEQUENCE_KINDS; k++)
                mem_free(s->of[k].list);
        *s = (struct sequences){ .of = { { .n = 0 } } };
}
