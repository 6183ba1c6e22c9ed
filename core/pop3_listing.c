/* A listing as it is kept: a million messages in some 8 MiB. Numbers are kept only where they are not 1 to n, UIDs lie one behind the other in
 * a spill (a file, when they are many), in the order in which UIDL gave them, and what is known of a message is one number: where its UID
 * lies, and its size. */
#include "core/pop3_int.h"

#include <stdlib.h>

#include "core/map.h"
#include "core/mem.h"
#include "core/spill.h"

enum {
        UID_MAX = 512,           /* a longer one is not used: that message goes by its content */
        AT_BITS = 27,            /* of a fact: where the UID lies, below LISTING_BYTES_MAX; the rest is the size */
        AT_UNLISTED = (1 << AT_BITS) - 1, /* UIDL has not said */
        AT_NONE = AT_UNLISTED - 1,
        IN_MEMORY = 1 << 20,
        BLOCK = 64 << 10,
        HASHES_AT_ONCE = 1 << 18,
};
#define SIZE_LARGEST ((UINT64_C(1) << (64 - AT_BITS)) - 1) /* 128 GiB; a hint, and larger is as large */

struct pop3_listing {
        size_t n, room;
        uint32_t *numbers;       /* NULL: 1 to n */
        uint64_t *facts;
        size_t next;             /* behind the one that UIDL spoke of last */
        size_t found, too_long;
        struct spill spill;
        struct spilling spilling;
        struct buf block;        /* on its way there */
        uint64_t end;
        struct range uids;       /* each a length of two bytes and the bytes */
        char *window;            /* what was read of them last, */
        uint64_t from, after;    /* from there on; and where the record begins that comes behind the last one asked for */
        size_t have;
        uint64_t *twins;         /* hashes of UIDs that stand for more than one message; sorted */
        size_t twin_n, twin_room;
};

struct pop3_listing *listing_new(struct err *e)
{
        struct pop3_listing *l = mem_zero(sizeof *l);

        if (!l)
                return err_nomem(e), NULL;
        spill_init(&l->spill, IN_MEMORY);
        spilling_begin(&l->spilling, &l->spill);
        return l;
}

void pop3_listing_free(struct pop3_listing *l)
{
        if (!l)
                return;
        spilling_drop(&l->spilling);
        spill_free(&l->spill);
        buf_free(&l->block);
        mem_free(l->numbers);
        mem_free(l->facts);
        mem_free(l->window);
        mem_free(l->twins);
        mem_free(l);
}

size_t pop3_listing_count(const struct pop3_listing *l)
{
        return l->n;
}

static uint32_t number_of(const struct pop3_listing *l, size_t i)
{
        return l->numbers ? l->numbers[i] : (uint32_t)i + 1;
}

static uint64_t at_of(const struct pop3_listing *l, size_t i)
{
        return l->facts[i] & AT_UNLISTED;
}

static void set_at(struct pop3_listing *l, size_t i, uint64_t at)
{
        l->facts[i] = (l->facts[i] & ~(uint64_t)AT_UNLISTED) | at;
}

/* ---- LIST ---- */

static bool write_numbers(struct pop3_listing *l, struct err *e)
{
        if (l->numbers)
                return true;
        if (!(l->numbers = mem_array(l->room, sizeof *l->numbers)))
                return err_nomem(e);
        for (size_t i = 0; i < l->n; i++)
                l->numbers[i] = (uint32_t)i + 1;
        return true;
}

static bool make_room(struct pop3_listing *l, struct err *e)
{
        size_t room = l->room ? l->room * 2 : 256;
        uint64_t *facts;
        uint32_t *numbers = NULL;

        if (l->n < l->room)
                return true;
        if (l->numbers && !(numbers = mem_resize(l->numbers, room * sizeof *numbers)))
                return err_nomem(e);
        l->numbers = numbers;
        if (!(facts = mem_resize(l->facts, room * sizeof *facts)))
                return err_nomem(e);
        l->facts = facts;
        l->room = room;
        return true;
}

bool listing_add(struct pop3_listing *l, uint32_t number, uint64_t size, struct err *e)
{
        if (!make_room(l, e) || (number != l->n + 1 && !write_numbers(l, e)))
                return false;
        if (l->numbers)
                l->numbers[l->n] = number;
        l->facts[l->n++] = (size < SIZE_LARGEST ? size : SIZE_LARGEST) << AT_BITS | AT_UNLISTED;
        return true;
}

static void swap(struct pop3_listing *l, size_t a, size_t b)
{
        uint32_t number = l->numbers[a];
        uint64_t fact = l->facts[a];

        l->numbers[a] = l->numbers[b];
        l->facts[a] = l->facts[b];
        l->numbers[b] = number;
        l->facts[b] = fact;
}

static void sink(struct pop3_listing *l, size_t i, size_t n)
{
        for (size_t child; (child = 2 * i + 1) < n; i = child) {
                if (child + 1 < n && l->numbers[child + 1] > l->numbers[child])
                        child++;
                if (l->numbers[i] >= l->numbers[child])
                        return;
                swap(l, i, child);
        }
}

/* Two arrays, and no room for a third: a heap. */
static void sort(struct pop3_listing *l)
{
        for (size_t i = l->n / 2; i-- > 0;)
                sink(l, i, l->n);
        for (size_t n = l->n; n-- > 1;) {
                swap(l, 0, n);
                sink(l, 0, n);
        }
}

bool listing_sort(struct pop3_listing *l, struct err *e)
{
        bool sorted = true;

        if (!l->numbers)
                return true;
        for (size_t i = 1; i < l->n; i++)
                sorted &= l->numbers[i - 1] < l->numbers[i];
        if (!sorted)
                sort(l);
        for (size_t i = 1; i < l->n; i++)
                if (l->numbers[i] == l->numbers[i - 1])
                        return err_set(e, ERR_PROTO, "LIST gives message %u twice", l->numbers[i]);
        return true;
}

/* ---- UIDL ---- */

/* n: it is not there. */
static size_t find(const struct pop3_listing *l, uint32_t number)
{
        size_t low = 0, high = l->n;

        if (l->next < l->n && number_of(l, l->next) == number)
                return l->next;
        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if (number_of(l, mid) < number)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low < l->n && number_of(l, low) == number ? low : l->n;
}

static bool flush(struct pop3_listing *l, struct err *e)
{
        bool ok = buf_ok(&l->block, e) && spilling_add(&l->spilling, buf_str(&l->block), e);

        buf_clear(&l->block);
        return ok;
}

static bool keep_uid(struct pop3_listing *l, size_t i, struct str uid, struct err *e)
{
        set_at(l, i, l->end);
        buf_add_char(&l->block, (char)(uid.n >> 8));
        buf_add_char(&l->block, (char)(uid.n & 0xff));
        buf_add_str(&l->block, uid);
        l->end += uid.n + 2;
        return l->block.n < BLOCK ? buf_ok(&l->block, e) : flush(l, e);
}

bool listing_uid(struct pop3_listing *l, uint32_t number, struct str uid, struct err *e)
{
        size_t i = find(l, number);

        if (i == l->n)
                return true; /* it came between LIST and UIDL: the next time */
        if (at_of(l, i) != AT_UNLISTED)
                return err_set(e, ERR_PROTO, "UIDL gives message %u twice", number);
        l->next = i + 1;
        l->found++;
        l->too_long += uid.n > UID_MAX;
        if (uid.n > 0 && uid.n <= UID_MAX && l->end < AT_NONE)
                return keep_uid(l, i, uid, e);
        set_at(l, i, AT_NONE);
        return true;
}

size_t listing_found(const struct pop3_listing *l, size_t *too_long)
{
        *too_long = l->too_long;
        return l->found;
}

/* Messages that LIST has and UIDL has not are left for the next time. */
static bool drop_unlisted(struct pop3_listing *l, struct err *e)
{
        size_t kept = 0;

        if (l->found == l->n)
                return true;
        if (!write_numbers(l, e))
                return false;
        for (size_t i = 0; i < l->n; i++)
                if (at_of(l, i) != AT_UNLISTED) {
                        l->numbers[kept] = l->numbers[i];
                        l->facts[kept++] = l->facts[i];
                }
        l->n = kept;
        return true;
}

/* ---- UIDs, read again ---- */

static struct str record(struct str bytes)
{
        size_t n = (size_t)(uint8_t)bytes.p[0] << 8 | (uint8_t)bytes.p[1];

        return str_make(bytes.p + 2, n);
}

/* One behind the other they are read many at a time. */
static bool fill(struct pop3_listing *l, uint64_t at, struct err *e)
{
        size_t want = at == l->after ? BLOCK : UID_MAX + 2;
        ssize_t got;

        if (!l->window && !(l->window = mem_alloc(BLOCK)))
                return err_nomem(e);
        l->from = at;
        l->have = 0;
        while (l->have < want && (got = range_read(l->uids, at + l->have, l->window + l->have, want - l->have, e)) != 0) {
                if (got < 0)
                        return false;
                l->have += (size_t)got;
        }
        return l->have >= 2 || err_set(e, ERR_IO, "the listing that was put aside is damaged");
}

static bool uid_at(struct pop3_listing *l, uint64_t at, struct str *uid, struct err *e)
{
        struct str all;
        bool here = at >= l->from && at + 2 <= l->from + l->have && at + 2 + record(str_make(l->window + (at - l->from), 2)).n <= l->from + l->have;

        if (range_in_memory(l->uids, &all)) {
                *uid = record(str_from(all, at));
                return true;
        }
        if (!here && !fill(l, at, e))
                return false;
        *uid = record(str_make(l->window + (at - l->from), 2));
        l->after = at + 2 + uid->n;
        return true;
}

static int by_value(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

static bool push(uint64_t **p, size_t *n, size_t *room, uint64_t value, struct err *e)
{
        if (*n == *room) {
                size_t more = *room ? *room * 2 : 256;
                uint64_t *grown = mem_resize(*p, more * sizeof *grown);

                if (!grown)
                        return err_nomem(e);
                *p = grown;
                *room = more;
        }
        (*p)[(*n)++] = value;
        return true;
}

/* The UIDs whose hash falls into one of `parts`: which of these hashes are there more than once? (Two UIDs of one hash pass for one, which costs
 * a look at two headers; of a million, it happens once in thirty million listings.) */
static bool find_twins(struct pop3_listing *l, uint64_t parts, uint64_t part, struct err *e)
{
        uint64_t *hashes = NULL;
        size_t n = 0, room = 0;
        bool ok = true;

        for (uint64_t at = 0; ok && at < l->uids.n;) {
                struct str uid;
                uint64_t h;

                ok = uid_at(l, at, &uid, e);
                if (!ok)
                        break;
                at += uid.n + 2;
                h = map_hash(uid);
                ok = h % parts != part || push(&hashes, &n, &room, h, e);
        }
        if (ok && n > 1)
                qsort(hashes, n, sizeof *hashes, by_value);
        for (size_t i = 1; ok && i < n; i++)
                if (hashes[i] == hashes[i - 1] && (i == 1 || hashes[i - 2] != hashes[i]))
                        ok = push(&l->twins, &l->twin_n, &l->twin_room, hashes[i], e);
        mem_free(hashes);
        return ok;
}

bool listing_end(struct pop3_listing *l, bool uids, struct err *e)
{
        uint64_t parts = 1 + l->found / HASHES_AT_ONCE;

        if (uids && !drop_unlisted(l, e))
                return false;
        for (size_t i = 0; !uids && i < l->n; i++)
                set_at(l, i, AT_NONE);
        if (!flush(l, e) || !spilling_end(&l->spilling, &l->uids, e))
                return false;
        buf_free(&l->block);
        for (uint64_t part = 0; part < parts; part++)
                if (!find_twins(l, parts, part, e))
                        return false;
        if (l->twin_n > 1)
                qsort(l->twins, l->twin_n, sizeof *l->twins, by_value);
        return true;
}

bool pop3_listing_item(struct pop3_listing *l, size_t i, struct pop3_item *out, struct err *e)
{
        uint64_t at = at_of(l, i), hash;

        *out = (struct pop3_item){ .number = number_of(l, i), .size = l->facts[i] >> AT_BITS };
        if (at == AT_NONE)
                return true;
        if (!uid_at(l, at, &out->uid, e))
                return false;
        hash = map_hash(out->uid);
        out->twin = l->twin_n > 0 && bsearch(&hash, l->twins, l->twin_n, sizeof hash, by_value);
        return true;
}
