/* Names for saved files: promised before they exist, numbered when taken, the same content under one name once. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/filename.h"
#include "core/mem.h"
#include "core/names_int.h"
#include "core/sys.h"

enum {
        NUMBER_LAST = 10 * 1000 * 1000, /* " (10000000)" */
        READ_BLOCK = 128 * 1024,
};

/* The names that share one: "name", "name (2)", … */
struct series {
        char *base;            /* key of the name that is numbered */
        size_t base_n;
        bool stored;           /* the state knows some of them */
        unsigned next;         /* all below it are taken */
        struct map *by_hash;   /* content -> number, of those looked at */
};

/* Most names are free, and most promises are never compared: the content is hashed when somebody else wants the name. */
struct promise {
        uint8_t hash[DIGEST_SIZE];
        bool known;            /* the hash: not when a file that is there was only kept */
        bool replaced;         /* and then, or at once, by another content, which may be dropped: nobody else relies on what will be there */
        names_hash *find;      /* how it is found, until it is known; NULL: it cannot be */
        void *ctx;
        unsigned count;
        struct series *series; /* NULL: not numbered */
        unsigned number;
};

/* A file that was read: its content, for as long as it stays the same file. */
struct facts {
        dev_t dev;
        ino_t ino;
        off_t size;
        struct timespec changed;
        uint8_t hash[DIGEST_SIZE];
};

static void free_series(void *value)
{
        struct series *s = value;

        map_free(s->by_hash, NULL);
        mem_free(s->base);
        mem_free(s);
}

struct names *names_new(struct ledger *l)
{
        struct names *n = mem_zero(sizeof *n);

        if (!n)
                return NULL;
        n->ledger = l;
        pthread_mutex_init(&n->lock, NULL);
        n->promised = map_new();
        n->series = map_new();
        n->facts = map_new();
        if (n->promised && n->series && n->facts)
                return n;
        names_free(n);
        return NULL;
}

void names_keep(struct names *n)
{
        n->keep = true;
}

void names_free(struct names *n)
{
        if (!n)
                return;
        map_free(n->promised, mem_free);
        map_free(n->series, free_series);
        map_free(n->facts, mem_free);
        map_free(n->spelled, mem_free);
        map_free(n->listed, NULL);
        learned_free(n->learned);
        pthread_mutex_destroy(&n->lock);
        mem_free(n);
}

/* ---- one question for a name ----------------------------------------------------------------------------------- */

static bool my_hash(struct asking *q)
{
        if (!q->hashed)
                q->hashed = q->hash(q->ctx, q->mine, q->e);
        return q->hashed;
}

enum there look_on_disk(struct root *r, struct str path, struct stat *st, struct err *e)
{
        struct err why;
        int fd = sys_open_beneath(root_fd(r), path, O_PATH | O_NOFOLLOW, 0, &why);
        bool told;

        if (fd < 0 && why.code == ERR_ABSENT)
                return THERE_NOTHING;
        if (fd < 0) {
                if (e)
                        *e = why;
                return THERE_FAILED;
        }
        told = fstat(fd, st) == 0;
        close(fd);
        return told && S_ISREG(st->st_mode) ? THERE_FILE : THERE_OTHER;
}

static enum there look(struct asking *q, struct str path, struct str whole, struct promise **p, struct stat *st)
{
        *p = map_get(q->n->promised, whole);
        return *p ? THERE_PROMISE : look_on_disk(q->r, path, st, q->e);
}

static bool read_hash(int fd, uint8_t out[DIGEST_SIZE])
{
        struct digest *d = digest_new();
        char *block = mem_alloc(READ_BLOCK);
        ssize_t got = -1;

        while (d && block && (got = sys_read(fd, block, READ_BLOCK, NULL)) > 0)
                digest_add(d, block, (size_t)got);
        if (d && got == 0)
                digest_end(d, out);
        else
                digest_free(d);
        mem_free(block);
        return got == 0;
}

static bool same_file(const struct facts *f, const struct stat *st)
{
        return f->dev == st->st_dev && f->ino == st->st_ino && f->size == st->st_size && f->changed.tv_sec == st->st_ctim.tv_sec &&
               f->changed.tv_nsec == st->st_ctim.tv_nsec;
}

static void remember(struct names *n, struct str whole, const struct stat *st, const uint8_t hash[DIGEST_SIZE])
{
        struct facts *f = mem_alloc(sizeof *f);
        void *old = NULL;

        if (!f)
                return;
        *f = (struct facts){ st->st_dev, st->st_ino, st->st_size, st->st_ctim, { 0 } };
        memcpy(f->hash, hash, DIGEST_SIZE);
        if (!map_set(n->facts, whole, f, &old))
                mem_free(f);
        mem_free(old);
}

/* The content of a plain file, read once. False when it can't be read: it then equals nothing. */
static bool file_hash(struct asking *q, unsigned number, struct str path, struct str whole, const struct stat *st, uint8_t out[DIGEST_SIZE])
{
        const struct facts *f = map_get(q->n->facts, whole);
        struct stat now;
        bool ok;
        int fd;

        if (f && same_file(f, st)) {
                memcpy(out, f->hash, DIGEST_SIZE);
                return true;
        }
        if (known_hash(q, number, st, out)) {
                if (memcmp(out, q->mine, DIGEST_SIZE) == 0) /* the others may only probably be so */
                        remember(q->n, whole, st, out);
                return true;
        }
        fd = sys_open_beneath(root_fd(q->r), path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0, NULL);
        if (fd < 0)
                return false;
        ok = fstat(fd, &now) == 0 && S_ISREG(now.st_mode) && read_hash(fd, out);
        close(fd);
        if (ok) {
                remember(q->n, whole, &now, out);
                known_read(q, number, &now, out);
        }
        return ok;
}

/* Who promised it first may release it before those that share it: then only the file tells. */
static void know(struct promise *p)
{
        struct err e;

        if (!p->known && p->find)
                p->known = p->find(p->ctx, p->hash, &e);
        p->find = NULL;
}

/* *theirs: the content of what is there, when it has one that is known. */
static bool their_hash(struct asking *q, unsigned number, enum there what, struct promise *p, struct str path, struct str whole,
                       const struct stat *st, uint8_t theirs[DIGEST_SIZE])
{
        struct stat now;

        if (what == THERE_PROMISE && p->replaced)
                return false;
        if (what == THERE_PROMISE)
                know(p);
        if (what == THERE_PROMISE && p->known) {
                memcpy(theirs, p->hash, DIGEST_SIZE);
                return true;
        }
        if (what == THERE_PROMISE) {
                what = look_on_disk(q->r, path, &now, NULL);
                st = &now;
        }
        return what == THERE_FILE && file_hash(q, number, path, whole, st, theirs);
}

/* Also for a file that stands there already: it must not lose its name to another plan's idea of it being free. */
static bool promise_with(struct asking *q, struct str path, struct str whole, names_hash *find, struct series *series, unsigned number)
{
        struct promise *p = map_get(q->n->promised, whole);

        if (!names_spelled(q->n, whole, path))
                return err_nomem(q->e);
        if (p) {
                p->count++;
                if (!q->hashed)
                        know(p);
                p->find = NULL;
                p->known = p->known || q->hashed;
                if (q->hashed)
                        memcpy(p->hash, q->mine, DIGEST_SIZE);
                return true;
        }
        p = mem_zero(sizeof *p);
        if (!p)
                return err_nomem(q->e);
        *p = (struct promise){ .known = q->hashed, .find = find, .ctx = q->ctx, .count = 1, .series = series, .number = number };
        memcpy(p->hash, q->mine, DIGEST_SIZE);
        if (map_set(q->n->promised, whole, p, NULL))
                return true;
        mem_free(p);
        return err_nomem(q->e);
}

static bool promise(struct asking *q, struct str path, struct str whole, struct series *series, unsigned number)
{
        return promise_with(q, path, whole, NULL, series, number);
}

/* The hash stays that of what was promised first: some may rely on it. */
static bool promise_other(struct asking *q, struct str path, struct str whole)
{
        struct promise *p = map_get(q->n->promised, whole);

        if (p) {
                know(p);
                p->count++;
        } else if (promise(q, path, whole, NULL, 0)) {
                p = map_get(q->n->promised, whole);
        }
        if (p)
                p->replaced = true;
        return p != NULL;
}

/* ---- numbered names -------------------------------------------------------------------------------------------- */

static bool numbered_path(struct asking *q, struct str path, unsigned number, struct str *out, struct str *whole)
{
        struct str name, dir = path_dir(path, &name);
        struct str numbered = filename_number(name, number, q->a), own;

        own = numbered.p ? path_join(dir, numbered, q->a) : STR_NONE;
        if (!own.p)
                return err_nomem(q->e);
        if (!names_spelling(q, own, &own, out))
                return false;
        *whole = names_key(q->n, q->r, *out, q->a);
        return whole->p ? true : err_nomem(q->e);
}

/* The state may know of files that somebody has removed since: those at the end are forgotten. */
static void begin_series(struct asking *q, struct str path, struct series *s)
{
        unsigned last = known_last(q, NUMBER_LAST), gone = 0;
        struct str name, whole;
        struct promise *p;
        struct stat st;

        s->stored = last > 0;
        for (; last > 1; last = known_last(q, last)) {
                if (!numbered_path(q, path, last, &name, &whole) || look(q, name, whole, &p, &st) != THERE_NOTHING)
                        break;
                gone = last;
        }
        if (gone)
                known_gone(q, gone);
        s->next = last < 2 ? 2 : last + 1;
}

static struct series *series_new(struct str base)
{
        struct series *s = mem_zero(sizeof *s);

        if (!s)
                return NULL;
        s->by_hash = map_new();
        s->base = mem_dup(base.p, base.n);
        s->base_n = base.n;
        if (s->by_hash && s->base)
                return s;
        free_series(s);
        return NULL;
}

static struct series *series_of(struct asking *q, struct str path)
{
        struct series *s = map_get(q->n->series, q->base);

        if (s)
                return s;
        s = series_new(q->base);
        if (s && map_set(q->n->series, q->base, s, NULL)) {
                begin_series(q, path, s);
                return s;
        }
        if (s)
                free_series(s);
        err_nomem(q->e);
        return NULL;
}

/* What one number turns out to be: free (then promised), the same content, or another. */
static bool try_number(struct asking *q, struct str path, struct series *s, unsigned number, struct str *out, bool *same, bool *found)
{
        struct str key = str_make((const char *)q->mine, DIGEST_SIZE), whole;
        uint8_t theirs[DIGEST_SIZE];
        struct promise *p;
        struct stat st;
        enum there what;

        *found = false;
        if (!numbered_path(q, path, number, out, &whole))
                return false;
        what = look(q, *out, whole, &p, &st);
        if (what == THERE_FAILED)
                return false;
        if (what == THERE_NOTHING) {
                *found = true;
        } else if (their_hash(q, number, what, p, *out, whole, &st, theirs)) {
                *same = *found = memcmp(theirs, q->mine, DIGEST_SIZE) == 0;
                key = str_make((const char *)theirs, DIGEST_SIZE);
        } else {
                return true;
        }
        return (map_set(s->by_hash, key, (void *)(uintptr_t)number, NULL) || err_nomem(q->e)) &&
               (!*found || promise(q, *out, whole, s, number));
}

/* Of those that had this content when they were last seen. */
static bool try_stored(struct asking *q, struct str path, struct series *s, struct str *out, bool *same, bool *found)
{
        unsigned number = 1;
        bool ok = true;

        while (ok && !*found && known_number(q, s->next, &number))
                ok = try_number(q, path, s, number, out, same, found);
        return ok;
}

static bool take_numbered(struct asking *q, struct str path, struct str *out, bool *same)
{
        struct series *s = series_of(q, path);
        struct str key = str_make((const char *)q->mine, DIGEST_SIZE);
        uintptr_t known;
        bool found = false, ok = s != NULL;

        known = ok ? (uintptr_t)map_get(s->by_hash, key) : 0;
        if (known)
                ok = try_number(q, path, s, (unsigned)known, out, same, &found);
        else if (ok && s->stored)
                ok = try_stored(q, path, s, out, same, &found);
        for (; ok && !found && s->next < NUMBER_LAST; s->next++)
                ok = try_number(q, path, s, s->next, out, same, &found);
        return ok && (found || err_set(q->e, ERR_LIMIT, "too many files are called \"%.*s\"", STR_FMT(path)));
}

/* ---- taking and releasing -------------------------------------------------------------------------------------- */

static bool taken_error(struct asking *q, struct str path, enum there what)
{
        return err_set(q->e, ERR_EXISTS, what == THERE_OTHER ? "\"%.*s\" below %.*s is there, and is no plain file"
                                                             : "\"%.*s\" below %.*s is there already", STR_FMT(path),
                       STR_FMT(root_path(q->r)));
}

/* own: the name asked for; path: the one that is there. */
static bool take_taken(struct asking *q, struct str own, struct str path, struct str whole, enum on_conflict how, enum there what,
                       struct promise *p, const struct stat *st, struct str *out, bool *same)
{
        uint8_t theirs[DIGEST_SIZE];

        *out = path;
        if (how == CONFLICT_KEEP && what != THERE_OTHER) {
                *same = true;
                return promise(q, path, whole, NULL, 0);
        }
        if (!my_hash(q))
                return false;
        *same = their_hash(q, 1, what, p, path, whole, st, theirs) && memcmp(theirs, q->mine, DIGEST_SIZE) == 0;
        if (*same)
                return promise(q, path, whole, NULL, 0);
        if (how == CONFLICT_REPLACE && what != THERE_OTHER)
                return promise_other(q, path, whole);
        return how == CONFLICT_NUMBER ? take_numbered(q, own, out, same) : taken_error(q, path, what);
}

static bool take(struct asking *q, struct str path, enum on_conflict how, struct str *out, bool *same)
{
        struct str whole, own;
        struct promise *p;
        struct stat st;
        enum there what;

        if (!names_spelling(q, path, &own, &path))
                return false;
        whole = names_key(q->n, q->r, path, q->a);
        if (!whole.p)
                return err_nomem(q->e);
        q->base = whole;
        what = look(q, path, whole, &p, &st);
        if (what == THERE_FAILED)
                return false;
        if (what != THERE_NOTHING)
                return take_taken(q, own, path, whole, how, what, p, &st, out, same);
        *out = path;
        return (!q->n->keep || my_hash(q)) && promise_with(q, path, whole, q->hash, NULL, 0);
}

bool names_take(struct names *n, struct root *r, struct str path, enum on_conflict how, names_hash *hash, void *ctx, struct str *out, bool *same,
                struct arena *a, struct err *e)
{
        struct asking q = { .n = n, .r = r, .hash = hash, .ctx = ctx, .a = a, .e = e };
        struct str tidy = path_tidy(path, a, e);
        bool ok;

        *same = false;
        if (!tidy.p)
                return false;
        if (tidy.n == 0)
                return err_set(e, ERR_USAGE, "\"%.*s\" names no file", STR_FMT(path));
        pthread_mutex_lock(&n->lock);
        ok = take(&q, tidy, how, out, same);
        pthread_mutex_unlock(&n->lock);
        return ok ? true : err_in(e, "choosing a name for \"%.*s\"", STR_FMT(path));
}

/* A name that was dropped is free again. */
static void give_back(struct names *n, struct root *r, struct str path, struct str whole)
{
        struct promise *p = map_get(n->promised, whole);
        struct stat st;

        if (!p || --p->count > 0)
                return;
        if (p->series && p->number < p->series->next && look_on_disk(r, path, &st, NULL) == THERE_NOTHING)
                p->series->next = p->number;
        map_remove(n->promised, whole);
        mem_free(p);
}

void names_release(struct names *n, struct root *r, struct str path)
{
        struct arena *a = arena_new(0);
        struct str tidy = a ? path_tidy(path, a, NULL) : STR_NONE;
        struct str whole = tidy.p ? names_key(n, r, tidy, a) : STR_NONE;

        if (whole.p) {
                pthread_mutex_lock(&n->lock);
                give_back(n, r, tidy, whole);
                pthread_mutex_unlock(&n->lock);
        }
        arena_free(a);
}

static bool holds(struct asking *q, struct str path, struct str whole)
{
        const struct promise *p = map_get(q->n->promised, whole);
        uint8_t theirs[DIGEST_SIZE];
        struct stat st;

        if (!p || !p->known || look_on_disk(q->r, path, &st, NULL) != THERE_FILE)
                return false;
        memcpy(q->mine, p->hash, DIGEST_SIZE);
        q->base = p->series ? str_make(p->series->base, p->series->base_n) : whole;
        return file_hash(q, p->series ? p->number : 1, path, whole, &st, theirs) && memcmp(theirs, q->mine, DIGEST_SIZE) == 0;
}

bool names_hold(struct names *n, struct root *r, struct str path, struct arena *a)
{
        struct asking q = { .n = n, .r = r, .hashed = true, .a = a };
        struct str whole = names_key(n, r, path, a);
        bool ok;

        pthread_mutex_lock(&n->lock);
        ok = whole.p && holds(&q, path, whole);
        pthread_mutex_unlock(&n->lock);
        return ok;
}

/* Under which name, and what, when that is known. A file that is to be replaced may be promised for several contents at once. */
static void note_staged(struct names *n, struct str whole, const struct staged *o)
{
        const struct promise *p = map_get(n->promised, whole);

        if (p && p->known && !o->replace)
                known_promised(n, p->series ? str_make(p->series->base, p->series->base_n) : whole, p->series ? p->number : 1, p->hash, o);
}

void names_staged(struct names *n, struct root *r, struct str path, const struct staged *o)
{
        struct arena *a = n->ledger ? arena_new(0) : NULL;
        struct str whole = a ? names_key(n, r, path, a) : STR_NONE;

        if (whole.p) {
                pthread_mutex_lock(&n->lock);
                note_staged(n, whole, o);
                pthread_mutex_unlock(&n->lock);
        }
        arena_free(a);
}
