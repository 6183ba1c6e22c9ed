/* A large mailbox comes some rows at a time: when all of them are done with, those that nobody asks for any more go, and the next of the list
 * come. What is unsure whose UID it has stays for the whole run: such messages are told apart by how many there are. */
#include "core/pop3_int.h"

#include <stdlib.h>

#include "core/mem.h"

size_t fetch_rows_max(const struct fetch *f)
{
        return f->o.rows > 0 ? f->o.rows : ROWS_MAX;
}

static bool was_refused(const struct fetch *f, size_t row)
{
        for (size_t i = 0; i < f->refusals && i < REFUSALS_KEPT; i++)
                if (f->refused[i].mail == row)
                        return true;
        return false;
}

static bool stays(const struct fetch *f, size_t i)
{
        const struct mail *m = &f->mails[i];

        if (m->state == MAIL_ALIAS)
                return was_refused(f, i);
        return m->unsure || m->keyed || m->doubted || was_refused(f, i) ||
               (m->state != MAIL_KNOWN && m->state != MAIL_HELD && m->state != MAIL_LEFT);
}

/* The ledger tells the next session that a message is done with; but of a rehearsal it knows nothing, nor of one that is decided again, nor of one
 * that was left, or that the server does not delete. */
bool fetch_remember_done(struct fetch *f, const struct mail *m, struct err *e)
{
        if (m->state == MAIL_LEFT && m->touched == f->session)
                f->left_touched = f->session;
        if (m->state == MAIL_ALIAS || (m->state != MAIL_LEFT && !m->deled && !f->o.dry && !f->o.again))
                return true;
        if (f->done_n == f->done_room) {
                size_t room = f->done_room ? f->done_room * 2 : 256;
                uint64_t *grown = mem_resize(f->done, room * sizeof *grown);

                if (!grown)
                        return err_nomem(e);
                f->done = grown;
                f->done_room = room;
        }
        f->done[f->done_n++] = map_hash(m->uid);
        return true;
}

static int by_value(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

static void sort_done(struct fetch *f)
{
        if (f->done_sorted < f->done_n)
                qsort(f->done, f->done_n, sizeof *f->done, by_value);
        f->done_sorted = f->done_n;
}

static bool is_done(const struct fetch *f, struct str uid)
{
        uint64_t h = map_hash(uid);

        return f->done_sorted > 0 && bsearch(&h, f->done, f->done_sorted, sizeof h, by_value);
}

/* A row moves down, and what it holds into the new arena. */
static bool move_row(struct fetch *f, size_t from, size_t to, struct arena *rows, struct err *e)
{
        struct mail *m = &f->mails[to];

        for (size_t i = 0; i < f->refusals && i < REFUSALS_KEPT; i++)
                if (f->refused[i].mail == from)
                        f->refused[i].mail = (uint32_t)to;
        *m = f->mails[from];
        if (m->uid.n > 0 && !(m->uid = arena_str(rows, m->uid)).p)
                return err_nomem(e);
        if (m->hashes && !(m->hashes = (struct hashes *)arena_dup(rows, (const char *)m->hashes, sizeof *m->hashes)))
                return err_nomem(e);
        return !m->keyed || fetch_key(f, m, e);
}

static bool drop_rows(struct fetch *f, struct err *e)
{
        struct arena *rows = arena_new(0);
        size_t kept = 0;
        bool ok = rows || err_nomem(e);

        for (size_t i = 0; ok && i < f->n; i++)
                ok = stays(f, i) ? move_row(f, i, kept++, rows, e) : fetch_remember_done(f, &f->mails[i], e);
        if (!ok) {
                arena_free(rows); /* the run ends with this: rows lie half in it, so no DELE and no QUIT can be right */
                fetch_drop_session(f);
                f->todo.n = f->dele.n = f->todo.head = f->dele.head = 0;
                f->n = 0;
                return false;
        }
        f->n = kept;
        arena_free(f->rows);
        f->rows = rows;
        f->todo.n = f->dele.n = f->todo.head = f->dele.head = 0;
        for (size_t i = 0; i < f->n; i++)
                if (!fetch_queue(f, &f->mails[i], e))
                        return false;
        return true;
}

static bool take_rows(struct fetch *f, const struct map *rows, struct err *e)
{
        size_t n = pop3_listing_count(f->list), room = f->n + fetch_rows_max(f);
        struct pop3_item it;

        sort_done(f); /* what is left from here on does not come again in this list */
        for (; f->next_item < n && f->pending > 0 && f->n < room; f->next_item++) {
                size_t before = f->n;

                if (!pop3_listing_item(f->list, f->next_item, &it, e))
                        return false;
                if (it.uid.n == 0 || it.twin || map_get(rows, it.uid) || is_done(f, it.uid))
                        continue; /* it has its row, or had it */
                if (!fetch_sure_row(f, &it, e))
                        return false;
                f->pending -= f->session == 1 || (f->n > before && f->mails[before].state != MAIL_CHECK);
        }
        if (f->next_item == n)
                f->pending = 0;
        return true;
}

bool fetch_more(struct fetch *f, struct err *e)
{
        struct map *rows;
        bool ok;

        if (!fetch_waits_for_more(f) || f->fly_n > 0 || f->todo.head < f->todo.n)
                return true;
        ok = drop_rows(f, e) && (rows = fetch_rows_by_uid(f, e));
        if (!ok)
                return false;
        ok = take_rows(f, rows, e);
        map_free(rows, NULL);
        return ok;
}
