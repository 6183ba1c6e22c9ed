/* What the state knows of saved files that share a name: so that a run need not read what the runs before it saved. What is learned
 * waits here until a batch's transaction writes it; it is no more than a memory, and lost without harm. */
#include <time.h>

#include "core/mem.h"
#include "core/names_int.h"

enum { LEARNED_MAX = 100 * 1000 }; /* between two batches; what comes beyond is read again by a later run */

struct lesson {
        struct saved_file file;
        bool gone;
        struct lesson *next;
};

struct learned {
        struct arena *a;
        struct lesson *first, **last;
        size_t n;
};

static int64_t ns(struct timespec t)
{
        return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* A change may follow that leaves no trace: within a tick of the kernel's clock, or, where seconds are all that is kept, within two (FAT). */
static bool just_changed(struct timespec t)
{
        enum { TICK_MS = 20, COARSE_MS = 3000 };
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        return ns(t) + (t.tv_nsec ? TICK_MS : COARSE_MS) * INT64_C(1000000) > ns(now);
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static struct saved_file file_of(struct str base, unsigned number)
{
        struct saved_file f = { .number = number };

        f.dir = path_dir(base, &f.name);
        return f;
}

/* A state that can't be read is one that knows nothing: the disk is looked at, and the transaction will say what is wrong. */
static bool ask(const struct asking *q, struct saved_file *f, bool (*how)(struct ledger *l, struct saved_file *f, bool *found, struct err *e))
{
        struct err e;
        bool found;

        return q->n->ledger && how(q->n->ledger, f, &found, &e) && found;
}

/* A change that keeps inode, size and mtime still shows in the ctime, which is known of what was read. */
bool known_hash(const struct asking *q, unsigned number, const struct stat *st, uint8_t out[DIGEST_SIZE])
{
        struct saved_file f = file_of(q->base, number);

        if (!ask(q, &f, ledger_saved) || f.ino != st->st_ino || f.size != (uint64_t)st->st_size || f.written != ns(st->st_mtim))
                return false;
        if (f.changed != ns(st->st_ctim) && memcmp(f.hash, q->mine, DIGEST_SIZE) == 0)
                return false;
        memcpy(out, f.hash, DIGEST_SIZE);
        return true;
}

bool known_number(const struct asking *q, unsigned below, unsigned *number)
{
        struct saved_file f = file_of(q->base, *number);

        memcpy(f.hash, q->mine, DIGEST_SIZE);
        if (!ask(q, &f, ledger_saved_by_hash) || f.number >= below)
                return false;
        *number = f.number;
        return true;
}

unsigned known_last(const struct asking *q, unsigned below)
{
        struct saved_file f = file_of(q->base, below);

        return ask(q, &f, ledger_saved_last) ? f.number : 0;
}

/* ---- learning -------------------------------------------------------------------------------------------------- */

static struct learned *learned_of(struct names *n)
{
        struct learned *k = n->learned;

        if (k || !n->ledger || n->ledger->readonly)
                return k;
        k = mem_zero(sizeof *k);
        if (k && !(k->a = arena_new(0))) {
                mem_free(k);
                return NULL;
        }
        if (k)
                k->last = &k->first;
        return n->learned = k;
}

static void learn(struct names *n, const struct saved_file *f, bool gone)
{
        struct learned *k = learned_of(n);
        struct lesson *l = k && k->n < LEARNED_MAX ? arena_alloc(k->a, sizeof *l) : NULL;

        if (!l)
                return;
        *l = (struct lesson){ .file = *f, .gone = gone };
        l->file.dir = arena_str(k->a, f->dir);
        l->file.name = arena_str(k->a, f->name);
        if (!l->file.dir.p || !l->file.name.p)
                return;
        *k->last = l;
        k->last = &l->next;
        k->n++;
}

void known_read(const struct asking *q, unsigned number, const struct stat *st, const uint8_t hash[DIGEST_SIZE])
{
        struct saved_file f = file_of(q->base, number);

        f.ino = st->st_ino;
        f.size = (uint64_t)st->st_size;
        f.written = ns(st->st_mtim);
        f.changed = just_changed(st->st_mtim) || just_changed(st->st_ctim) ? 0 : ns(st->st_ctim);
        memcpy(f.hash, hash, DIGEST_SIZE);
        learn(q->n, &f, false);
}

void known_gone(const struct asking *q, unsigned number)
{
        struct saved_file f = file_of(q->base, number);

        learn(q->n, &f, true);
}

void known_promised(struct names *n, struct str base, unsigned number, const uint8_t hash[DIGEST_SIZE], const struct staged *o)
{
        struct saved_file f = file_of(base, number);

        f.ino = o->ino;
        f.size = o->size;
        f.written = o->written;
        memcpy(f.hash, hash, DIGEST_SIZE);
        learn(n, &f, false);
}

/* ---- writing it down ------------------------------------------------------------------------------------------- */

struct learned *names_take_learned(struct names *n)
{
        struct learned *k;

        pthread_mutex_lock(&n->lock);
        k = n->learned;
        n->learned = NULL;
        pthread_mutex_unlock(&n->lock);
        return k;
}

bool learned_write(const struct learned *k, struct ledger *l, struct err *e)
{
        for (const struct lesson *i = k ? k->first : NULL; i; i = i->next)
                if (!(i->gone ? ledger_saved_drop(l, &i->file, e) : ledger_saved_put(l, &i->file, e)))
                        return false;
        return true;
}

void learned_free(struct learned *k)
{
        if (!k)
                return;
        arena_free(k->a);
        mem_free(k);
}
