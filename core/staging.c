/* Writing outputs under hidden names: files, Maildir messages, the spool. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/staging_int.h"
#include "core/sys.h"

enum {
        BLOCK = 256 * 1024, /* a small message is one write */
        BLOCKS_KEPT = 16,
        NAME_BYTES_MAX = 255,
};

struct str staging_id(const struct staging *s) { return str_make(s->id, RUN_ID); }

/* ---- writing --------------------------------------------------------------------------------------------------- */

struct block {
        struct block *next;
        unsigned behind; /* how many hang behind it */
        char bytes[BLOCK];
};

static struct block *block_get(struct staging *s)
{
        struct block *b;

        pthread_mutex_lock(&s->lock);
        b = s->blocks;
        if (b)
                s->blocks = b->next;
        pthread_mutex_unlock(&s->lock);
        return b ? b : mem_alloc(sizeof *b);
}

static void block_put(struct staging *s, struct block *b)
{
        pthread_mutex_lock(&s->lock);
        b->next = s->blocks;
        b->behind = b->next ? b->next->behind + 1 : 0;
        if (b->behind < BLOCKS_KEPT) {
                s->blocks = b;
                b = NULL;
        }
        pthread_mutex_unlock(&s->lock);
        mem_free(b);
}

void staging_free_blocks(struct staging *s)
{
        for (struct block *b = s->blocks, *next; b; b = next) {
                next = b->next;
                mem_free(b);
        }
        s->blocks = NULL;
}

/* A limit on file sizes is, for the caller, a disk that is full. */
static bool put(int fd, const char *p, size_t n, struct err *e)
{
        struct err why;

        if (n == 0 || sys_write_all(fd, p, n, &why))
                return true;
        if (why.sys == EFBIG)
                why.code = ERR_FULL;
        if (e)
                *e = why;
        return false;
}

static bool pour(int fd, struct feed feed, char *p, struct err *e)
{
        size_t have = 0;
        ssize_t got;

        do {
                got = feed.fill(feed.ctx, p + have, BLOCK - have, e);
                if (got < 0)
                        return false;
                have += (size_t)got;
                if (got > 0 && have < BLOCK)
                        continue;
                if (!put(fd, p, have, e))
                        return false;
                have = 0;
        } while (got > 0);
        return true;
}

static bool write_feed(struct staging *s, int fd, struct feed feed, struct err *e)
{
        struct block *b = block_get(s);
        bool ok;

        if (!b)
                return err_nomem(e);
        ok = pour(fd, feed, b->bytes, e);
        block_put(s, b);
        return ok;
}

/* ---- one output ------------------------------------------------------------------------------------------------ */

static int create(int dir, struct str path, const char *name, struct err *e)
{
        bool own;
        int at = places_fd(dir, path, &own, e), fd;

        if (at < 0)
                return -1;
        fd = sys_open_beneath(at, str_of(name), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, e);
        if (own)
                close(at);
        return fd;
}

/* False: it is there still, and the run's end has to look for it. */
static bool remove_name(int dir, struct str path, const char *name)
{
        bool own, gone;
        int at = places_fd(dir, path, &own, NULL);

        gone = at >= 0 && sys_unlink(at, name, NULL);
        if (own && at >= 0)
                close(at);
        return gone;
}

static bool describe(struct staging *s, int fd, struct staged *o, struct err *e)
{
        struct stat st;

        if (fstat(fd, &st) != 0)
                return err_sys(e, ERR_IO, errno, "looking at a file just written");
        o->dev = st.st_dev;
        o->ino = st.st_ino;
        o->size = (uint64_t)st.st_size;
        o->written = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
        o->fd = fd;
        if (fd >= s->fd_max) { /* opened again for its sync */
                close(fd);
                o->fd = -1;
        }
        return true;
}

/* Into place p, which is given back when it fails; on success o holds it. */
static bool stage_into(struct staging *s, struct place *p, const char *prefix, struct feed feed, struct staged *o, struct arena *a,
                       struct err *e)
{
        int fd;

        o->fd = -1;
        o->name = arena_printf(a, "%s%s-%llu", prefix, s->id, (unsigned long long)++s->count);
        o->dir = p->fd;
        o->dir_path = arena_str(a, p->path);
        if (!o->name.p || !o->dir_path.p)
                return err_nomem(e);
        fd = create(o->dir, o->dir_path, o->name.p, e);
        if (fd < 0)
                return false;
        if (!write_feed(s, fd, feed, e) || !describe(s, fd, o, e)) {
                close(fd);
                s->outstanding += !remove_name(o->dir, o->dir_path, o->name.p);
                return false;
        }
        s->outstanding++;
        return true;
}

static bool check_name(struct str name, struct str path, struct err *e)
{
        if (name.n == 0)
                return err_set(e, ERR_USAGE, "\"%.*s\" names no file", STR_FMT(path));
        if (name.n > NAME_BYTES_MAX)
                return err_set(e, ERR_USAGE, "a name of %zu bytes: \"%.*s\"", name.n, STR_FMT(path));
        return true;
}

bool staging_file(struct staging *s, struct root *r, struct str path, struct feed feed, struct staged *out, struct arena *a,
                  struct err *e)
{
        struct str tidy = path_tidy(path, a, e), dir, name;
        struct place *p;

        *out = (struct staged){ .dir = -1, .target_dir = -1, .fd = -1, .numbered = true };
        if (!tidy.p)
                return false;
        dir = path_dir(tidy, &name);
        if (!check_name(name, path, e))
                return false;
        p = places_get(s, r, dir, true, a, e);
        if (!p)
                return err_in(e, "saving \"%.*s\"", STR_FMT(path));
        out->target = arena_str(a, name);
        if (!(out->target.p || err_nomem(e)) || !stage_into(s, p, ".mailmill-", feed, out, a, e)) {
                places_put(s, p->path);
                return err_in(e, "saving \"%.*s\" below %.*s", STR_FMT(path), STR_FMT(root_path(r)));
        }
        out->target_dir = out->dir;
        out->target_path = out->dir_path;
        return true;
}

/* ---- Maildir --------------------------------------------------------------------------------------------------- */

/* Letters in order, each once, as the Maildir specification wants them. */
static bool tidy_flags(struct str flags, char out[64], struct err *e)
{
        size_t n = 0;

        for (size_t i = 0; i < flags.n; i++) {
                if (!ascii_is_alpha(flags.p[i]))
                        return err_set(e, ERR_USAGE, "\"%.*s\" are no Maildir flags: letters only", STR_FMT(flags));
        }
        for (int c = 'A'; c <= 'z'; c++) {
                if (str_find(flags, (char)c) < flags.n)
                        out[n++] = (char)c;
        }
        out[n] = '\0';
        return true;
}

/* S= spares an IMAP server the look at each file's size. */
static struct str maildir_name(const struct staged *o, const char *flags, struct arena *a)
{
        char unique[96];

        sys_unique(unique);
        return arena_printf(a, "%s.%s,S=%llu%s%s", unique, sys_hostname(), (unsigned long long)o->size, *flags ? ":2," : "", flags);
}

/* tmp, new and cur of the folder; on failure none is held. */
static bool get_folder(struct staging *s, struct root *r, struct str folder, struct place *got[3], struct arena *a, struct err *e)
{
        static const char *const names[3] = { "tmp", "new", "cur" };

        for (int i = 0; i < 3; i++) {
                struct str path = path_join(folder, str_of(names[i]), a);
                got[i] = path.p ? places_get(s, r, path, i == 0, a, e) : NULL;
                if (!path.p)
                        err_nomem(e);
                if (got[i])
                        continue;
                while (i-- > 0)
                        places_put(s, got[i]->path);
                return false;
        }
        return true;
}

static void close_fd(struct staged *o)
{
        if (o->fd >= 0)
                close(o->fd);
        o->fd = -1;
}

static bool stage_message(struct staging *s, struct place *got[3], const char *flags, struct feed feed, struct staged *o,
                          struct arena *a, struct err *e)
{
        struct place *target = got[*flags ? 2 : 1];

        o->target_dir = target->fd;
        o->target_path = arena_str(a, target->path);
        if (!o->target_path.p)
                return err_nomem(e);
        if (!stage_into(s, got[0], "mailmill-", feed, o, a, e))
                return false;
        o->target = maildir_name(o, flags, a);
        if (o->target.p)
                return true;
        close_fd(o);
        s->outstanding -= remove_name(o->dir, o->dir_path, o->name.p);
        return err_nomem(e);
}

bool staging_maildir(struct staging *s, struct root *r, struct str folder, struct str flags, struct feed feed, struct staged *out,
                     struct arena *a, struct err *e)
{
        struct str tidy = path_tidy(folder, a, e);
        struct place *got[3];
        char letters[64];
        bool ok;

        *out = (struct staged){ .dir = -1, .target_dir = -1, .fd = -1 };
        if (!tidy.p || !tidy_flags(flags, letters, e))
                return false;
        if (!get_folder(s, r, tidy, got, a, e))
                return err_in(e, "delivering into \"%.*s\"", STR_FMT(folder));
        ok = stage_message(s, got, letters, feed, out, a, e);
        places_put(s, got[*letters ? 1 : 2]->path);
        if (ok)
                return true;
        places_put(s, got[0]->path);
        places_put(s, got[*letters ? 2 : 1]->path);
        return err_in(e, "delivering into \"%.*s\" below %.*s", STR_FMT(folder), STR_FMT(root_path(r)));
}

/* ---- not wanted ------------------------------------------------------------------------------------------------ */

void staging_release(struct staging *s, struct staged *o)
{
        close_fd(o);
        places_put(s, o->dir_path);
        if (!str_eq(o->dir_path, o->target_path))
                places_put(s, o->target_path);
        o->dir = o->target_dir = -1;
}

/* After a commit of unknown fate the file stays: if the journal has it, the next start needs it. */
void staging_drop(struct staging *s, struct staged *o)
{
        if (!o->name.p || !o->target_path.p)
                return;
        if (!s->l->doubtful && !o->published)
                s->outstanding -= remove_name(o->dir, o->dir_path, o->name.p);
        staging_release(s, o);
        o->name = STR_NONE;
}

bool staging_taken(const struct staged *o)
{
        struct stat st;
        bool own, taken;
        int at = places_fd(o->target_dir, o->target_path, &own, NULL);

        taken = at >= 0 && !o->replace && fstatat(at, o->target.p, &st, AT_SYMLINK_NOFOLLOW) == 0;
        if (own && at >= 0)
                close(at);
        return taken;
}

/* ---- the spool ------------------------------------------------------------------------------------------------- */

static bool finish_spool(struct staging *s, int *fd, struct err *e)
{
        if (*fd < s->fd_max)
                return true;
        if (!sys_fdatasync(*fd, e))
                return false;
        close(*fd);
        *fd = -1;
        return true;
}

bool staging_spool(struct staging *s, struct feed feed, struct str *name, int *fd, struct arena *a, struct err *e)
{
        char number[24];

        *fd = -1;
        snprintf(number, sizeof number, "%llu", (unsigned long long)++s->count);
        *name = arena_printf(a, "%s/%s", s->id, number);
        if (!name->p)
                return err_nomem(e);
        *fd = sys_open_beneath(s->spool, str_of(number), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, e);
        if (*fd < 0)
                return err_in(e, "writing to the spool");
        s->spool_dirty = true;
        if (write_feed(s, *fd, feed, e) && finish_spool(s, fd, e))
                return true;
        close(*fd);
        *fd = -1;
        sys_unlink(s->spool, number, NULL);
        return err_in(e, "writing to the spool");
}

int staging_spool_open(struct ledger *l, struct str name, struct err *e)
{
        struct arena *a = arena_new(0);
        struct str path = a ? path_join(STR("spool"), name, a) : STR_NONE;
        int fd = -1;

        if (!path.p)
                err_nomem(e);
        else if (ledger_dir(l) < 0)
                err_set(e, ERR_ABSENT, "there is no state at %s", ledger_path(l));
        else
                fd = sys_open_beneath(ledger_dir(l), path, O_RDONLY | O_NOFOLLOW, 0, e);
        if (fd < 0)
                err_in(e, "opening %.*s of the spool", STR_FMT(name));
        arena_free(a);
        return fd;
}

void staging_spool_remove(struct ledger *l, struct str name) { ledger_leftover(l, name, NULL); }

int staging_tmpfile(struct staging *s, struct err *e) { return sys_tmpfile(s->spool, e); }
