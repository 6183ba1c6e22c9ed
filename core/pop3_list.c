/* The listing: STAT (a hint), LIST and UIDL, matched by number. Complete or not at all. */
#include "core/pop3_int.h"

#include <stdlib.h>

#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/sasl.h"

enum {
        ENTRIES_MAX = 1 << 20,          /* messages of one listing */
        LISTING_BYTES_MAX = 128 << 20,  /* of one answer */
        LISTING_LINE_MAX = 64 << 10,
        UID_MAX = 512,                  /* a longer one is not used: that message goes by its content */
        NUMBER_MAX = 0x7fffffff,
};

/* What LIST says, while UIDL is not yet there. */
struct sized {
        uint32_t number;
        uint64_t size;
};
struct listing {
        struct sized *list;
        size_t n, room;
        bool in_order;
};

/* "A message number that is not 1 to 2^31-1, a number given twice" makes the whole listing worthless. */
static bool take_number(struct str *rest, uint32_t *number, struct err *e)
{
        struct str line = *rest, word = str_take(rest, ' ');
        uint64_t n;

        if (!str_to_u64(word, NUMBER_MAX, &n) || n == 0)
                return err_set(e, ERR_PROTO, "a line without a message number: \"%.*s\"", STR_FMT(str_first(line, SAID_MAX)));
        *number = (uint32_t)n;
        return true;
}


static bool list_add(struct listing *l, uint32_t number, uint64_t size, struct err *e)
{
        if (l->n == l->room) {
                size_t room = l->room ? l->room * 2 : 256;
                struct sized *grown = mem_resize(l->list, room * sizeof *grown);

                if (!grown)
                        return err_nomem(e);
                l->list = grown;
                l->room = room;
        }
        if (l->n > 0 && l->list[l->n - 1].number >= number)
                l->in_order = false;
        l->list[l->n++] = (struct sized){ number, size };
        return true;
}

/* Calls f for each line of a multi-line answer. */
static bool each_line(struct pop3 *p, bool (*f)(void *ctx, struct str line, struct err *e), void *ctx, struct err *e)
{
        uint64_t bytes = 0;

        for (size_t n = 0;; n++) {
                struct str line;

                if (!lines_read(p->l, LISTING_LINE_MAX, &line, NULL, e))
                        return false;
                if (str_eq(line, STR(".")))
                        return true;
                bytes += line.n + 2;
                if (n == ENTRIES_MAX || bytes > LISTING_BYTES_MAX)
                        return err_set(e, ERR_LIMIT, "a listing of more than %d messages or %d MiB", ENTRIES_MAX, LISTING_BYTES_MAX >> 20);
                if (!f(ctx, str_trim(line), e))
                        return false;
        }
}

static bool list_line(void *ctx, struct str line, struct err *e)
{
        struct listing *l = ctx;
        uint64_t size = 0;
        uint32_t number;
        struct str word;

        if (!take_number(&line, &number, e))
                return false;
        line = str_trim(line);
        word = str_take(&line, ' ');
        if (!str_to_u64(word, INT64_MAX, &size))
                size = 0; /* a bad size spoils only this entry's hint */
        return list_add(l, number, size, e);
}

static int by_number(const void *a, const void *b)
{
        uint32_t x = ((const struct sized *)a)->number, y = ((const struct sized *)b)->number;

        return x < y ? -1 : x > y;
}

static bool list_sort(struct listing *l, struct err *e)
{
        if (!l->in_order && l->n > 1)
                qsort(l->list, l->n, sizeof *l->list, by_number);
        for (size_t i = 1; i < l->n; i++)
                if (l->list[i].number == l->list[i - 1].number)
                        return err_set(e, ERR_PROTO, "LIST gives message %u twice", l->list[i].number);
        return true;
}

/* UIDL's side of the match. */
struct uidl {
        struct pop3_item *items;
        bool *listed;
        size_t n, next; /* next: where the last line was found, plus one */
        size_t found, too_long;
        struct arena *a;
};

static struct pop3_item *find_item(struct uidl *u, uint32_t number)
{
        size_t low = 0, high = u->n;

        if (u->next < u->n && u->items[u->next].number == number)
                return &u->items[u->next];
        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if (u->items[mid].number < number)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low < u->n && u->items[low].number == number ? &u->items[low] : NULL;
}

static bool uidl_line(void *ctx, struct str line, struct err *e)
{
        struct uidl *u = ctx;
        struct pop3_item *item;
        uint32_t number;
        size_t i;

        if (!take_number(&line, &number, e))
                return false;
        line = str_trim(line);
        item = find_item(u, number);
        if (!item)
                return true; /* it came between LIST and UIDL: the next time */
        i = (size_t)(item - u->items);
        if (u->listed[i])
                return err_set(e, ERR_PROTO, "UIDL gives message %u twice", number);
        u->listed[i] = true;
        u->next = i + 1;
        u->found++;
        if (line.n > UID_MAX)
                u->too_long++;
        else if (line.n > 0 && !(item->uid = arena_str(u->a, line)).p)
                return err_nomem(e);
        return true;
}

/* Messages that LIST has and UIDL has not are left for the next time. */
static void drop_unlisted(struct uidl *u)
{
        size_t kept = 0;

        for (size_t i = 0; i < u->n; i++)
                if (u->listed[i])
                        u->items[kept++] = u->items[i];
        u->n = kept;
}

struct keyed {
        uint64_t hash;
        uint32_t index;
};

static int by_hash(const void *a, const void *b)
{
        const struct keyed *x = a, *y = b;

        if (x->hash != y->hash)
                return x->hash < y->hash ? -1 : 1;
        return x->index < y->index ? -1 : x->index > y->index;
}

/* Equal UIDs stand together once sorted by a keyed hash, in the order of their numbers. */
static bool count_occurrences(struct pop3_item *items, size_t n, struct err *e)
{
        struct keyed *k = mem_array(n ? n : 1, sizeof *k);

        if (!k)
                return err_nomem(e);
        for (size_t i = 0; i < n; i++)
                k[i] = (struct keyed){ map_hash(items[i].uid), (uint32_t)i };
        qsort(k, n, sizeof *k, by_hash);
        for (size_t i = 1; i < n; i++) {
                struct pop3_item *it = &items[k[i].index], *before = &items[k[i - 1].index];

                if (it->uid.n > 0 && k[i].hash == k[i - 1].hash && str_eq(it->uid, before->uid))
                        it->occurrence = before->occurrence + 1;
        }
        mem_free(k);
        return true;
}

static bool make_items(const struct listing *l, struct pop3_item **items, struct arena *a, struct err *e)
{
        *items = arena_alloc(a, (l->n ? l->n : 1) * sizeof **items);
        if (!*items)
                return err_nomem(e);
        for (size_t i = 0; i < l->n; i++)
                (*items)[i] = (struct pop3_item){ .number = l->list[i].number, .size = l->list[i].size };
        return true;
}

/* UIDL is asked for whether announced or not. */
static bool read_uidl(struct pop3 *p, struct uidl *u, struct err *e)
{
        struct reply r;
        bool ok;

        if (!pop3_status(p, &r, e))
                return false;
        if (!r.ok) {
                enum err_code code = pop3_refusal_code(r.text, ERR_NONE);

                p->no_uidl = code == ERR_NONE || code == ERR_REFUSED;
                return p->no_uidl || pop3_refused(&r, ERR_TEMP, e, "UIDL");
        }
        u->listed = mem_array(u->n ? u->n : 1, sizeof *u->listed);
        if (!u->listed)
                return err_nomem(e);
        ok = each_line(p, uidl_line, u, e);
        if (ok && u->found == 0 && u->n > 0)
                ok = err_set(e, ERR_PROTO, "UIDL is empty, but LIST has %zu messages: the list is incomplete", u->n);
        if (ok && u->too_long > 0)
                log_warn("pop3: %zu messages have a UID of more than %d bytes: they are told apart by their headers", u->too_long, UID_MAX);
        if (ok)
                drop_unlisted(u);
        mem_free(u->listed);
        return ok;
}

static bool ask_stat(struct pop3 *p, uint64_t *count, bool *known, struct err *e)
{
        struct reply r;
        struct str rest;

        if (!pop3_status(p, &r, e))
                return false;
        rest = r.text;
        *known = r.ok && str_to_u64(str_take(&rest, ' '), UINT32_MAX, count);
        return true;
}

static bool read_list(struct pop3 *p, struct listing *l, struct err *e)
{
        struct reply r;

        if (!pop3_status(p, &r, e))
                return false;
        if (!r.ok)
                return pop3_refused(&r, ERR_TEMP, e, "LIST");
        return each_line(p, list_line, l, e) && list_sort(l, e);
}

/* Sends the command unless it went out with those before. */
static bool due(struct pop3 *p, const char *command, struct err *e)
{
        if (!p->capa.pipelining && (!pop3_send(p, e, "%s", command) || !lines_flush(p->l, e)))
                return false;
        lines_answer_begins(p->l);
        return true;
}

static bool list_all(struct pop3 *p, struct listing *l, struct uidl *u, struct err *e)
{
        uint64_t count = 0;
        bool known = false;

        if (p->capa.pipelining && (!lines_write(p->l, STR("STAT\r\nLIST\r\nUIDL\r\n"), e) || !lines_flush(p->l, e)))
                return false;
        if (!due(p, "STAT", e) || !ask_stat(p, &count, &known, e) || !due(p, "LIST", e) || !read_list(p, l, e))
                return false;
        if (known && count > 0 && l->n == 0)
                return err_set(e, ERR_PROTO, "LIST is empty, but STAT says %llu messages: the list is incomplete",
                               (unsigned long long)count);
        if (known && count != l->n)
                log_info("pop3: STAT says %llu messages, LIST has %zu", (unsigned long long)count, l->n);
        u->n = l->n;
        return make_items(l, &u->items, u->a, e) && due(p, "UIDL", e) && read_uidl(p, u, e) &&
               count_occurrences(u->items, u->n, e);
}

bool pop3_list(struct pop3 *p, struct pop3_item **items, size_t *n, struct arena *a, struct err *e)
{
        struct listing l = { .in_order = true };
        struct uidl u = { .a = a };
        bool ok = list_all(p, &l, &u, e);

        mem_free(l.list);
        if (!ok) {
                if (p->who)
                        sasl_hide(e, p->who->user, p->who->password);
                return err_in(e, "listing the mailbox");
        }
        *items = u.items;
        *n = u.n;
        return true;
}
