/* Held messages come back from the spool by themselves, as the first source of their account. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/run_int.h"

struct held {
        struct source source;
        struct ledger *ledger;
        struct arena *arena;
        struct limits limits;
        int64_t *ids;             /* of their marks, which are looked at one after the other: there may be many */
        size_t n, cap, at;
        const uint8_t *script_hash;
        bool quarantined_too, failed;
        uint64_t left;            /* quarantined ones that are not due */
        uint64_t unread;     /* files of the spool that could not be opened */
        struct err first;    /* why, of the first of them */
};

static struct held *held_of(struct source *s)
{
        return (struct held *)s;
}

/* A quarantined message waits until the script has changed, or somebody asks. */
static bool is_due(const struct held *h, const struct mark *m)
{
        return m->state == MARK_HELD || h->quarantined_too || memcmp(m->script_hash, h->script_hash, DIGEST_SIZE) != 0;
}

static bool collect(void *ctx, const struct mark *m)
{
        struct held *h = ctx;
        if (!is_due(h, m)) {
                h->left++;
                return true;
        }
        if (h->n == h->cap) {
                size_t cap = h->cap ? h->cap * 2 : 16;
                int64_t *p = mem_resize(h->ids, cap * sizeof *p);

                if (!p)
                        return !(h->failed = true);
                h->ids = p;
                h->cap = cap;
        }
        h->ids[h->n++] = m->id;
        return true;
}

static bool open_one(struct held *h, const struct mark *m, uint64_t number, struct message **out, struct arena *a, struct err *e)
{
        struct origin o = { 0 };
        struct backing *b;
        struct stat st;
        int fd = staging_spool_open(h->ledger, m->spool, e);

        if (fd < 0)
                return false;
        if (fstat(fd, &st) < 0) {
                err_sys(e, ERR_IO, errno, "looking at a file of the spool");
                close(fd);
                return false;
        }
        if (!(b = backing_fd(fd)))
                return err_nomem(e);
        origin_read(m->origin, &o, a);
        o.uid = m->uid;
        o.occurrence = m->occurrence;
        o.number = number;
        *out = message_new((struct range){ b, 0, (uint64_t)st.st_size }, &o, &h->limits, e);
        backing_unref(b);
        return *out != NULL;
}

/* One that cannot be read must not keep the others back: the end tells of it. */
static void note_unread(struct held *h, const struct mark *m, struct err *e)
{
        err_in(e, "held message %.*s of %.*s", STR_FMT(m->uid), STR_FMT(h->source.name));
        log_error("%s", e->text);
        if (h->unread++ == 0)
                h->first = *e;
}

/* *out NULL: this one is passed by. False: the source ends. */
static bool take_one(struct held *h, size_t at, struct message **out, struct arena *a, struct err *e)
{
        struct mark m;
        bool found;

        if (!ledger_mark_id(h->ledger, h->ids[at], &m, &found, a, e))
                return false;
        if (!found || open_one(h, &m, at + 1, out, a, e)) /* forgotten meanwhile, or here it is */
                return true;
        if (e->code == ERR_NOMEM || e->sys == EMFILE || e->sys == ENFILE)
                return false;
        note_unread(h, &m, e);
        return true;
}

static bool next(struct source *s, struct message **out, struct err *e)
{
        struct held *h = held_of(s);
        bool ok = true;

        *out = NULL;
        while (ok && !*out && h->at < h->n && !atomic_load(&s->stop)) {
                struct arena *a = arena_new(0);

                ok = a ? take_one(h, h->at++, out, a, e) : err_nomem(e);
                arena_free(a);
        }
        if (ok && *out)
                atomic_fetch_add(&s->done_messages, 1);
        return ok;
}

static void settle(struct source *s, const struct outcome *o, size_t n) {}

static bool finish(struct source *s, struct err *e)
{
        const struct held *h = held_of(s);

        if (h->unread)
                *e = h->first;
        return h->unread == 0;
}

static void free_held(struct source *s)
{
        struct held *h = held_of(s);

        mem_free(h->ids);
        arena_free(h->arena);
        mem_free(h);
}

struct source *held_open(struct ledger *l, int64_t account, struct str name, struct account *acc, const uint8_t script_hash[DIGEST_SIZE],
                         bool quarantined_too, const struct limits *lim, struct err *e)
{
        static const struct source_ops ops = { next, settle, finish, free_held };
        struct held *h = mem_zero(sizeof *h);

        if (!h || !(h->arena = arena_new(0))) {
                mem_free(h);
                err_nomem(e);
                return NULL;
        }
        h->source.ops = &ops;
        h->source.name = arena_str(h->arena, name);
        h->source.account = acc;
        h->source.archive = !acc;
        h->ledger = l;
        h->limits = *lim;
        h->script_hash = script_hash;
        h->quarantined_too = quarantined_too;
        if (!ledger_marks(l, account, 1u << MARK_HELD | 1u << MARK_QUARANTINED, collect, h, e) || (h->failed && !err_nomem(e))) {
                free_held(&h->source);
                return NULL;
        }
        atomic_store(&h->source.total_messages, h->n);
        return &h->source;
}

bool held_mark(struct source *s, uint64_t number, struct mark *out, bool *found, struct arena *a, struct err *e)
{
        struct held *h = held_of(s);

        *found = false;
        return number < 1 || number > h->n || ledger_mark_id(h->ledger, h->ids[number - 1], out, found, a, e);
}

uint64_t held_left(const struct source *s)
{
        return ((const struct held *)s)->left;
}
