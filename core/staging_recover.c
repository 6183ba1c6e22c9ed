/* Beginning and ending a run; finishing what a dead one had promised, and cleaning what it had not. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mboxout.h"
#include "core/mem.h"
#include "core/staging_int.h"
#include "core/sys.h"

enum {
        GATE_MS = 60000,               /* how long another start may take to roll forward */
        NOTES_MAX = 64 * 1024 * 1024,  /* the list of directories: some 600,000 */
        DONE_MAX = 256,                /* finished rows that leave the journal together */
};

/* ---- rolling forward ------------------------------------------------------------------------------------------- */

struct forward {
        struct ledger *l;
        struct map *dirs;  /* to be synced before the rows go */
        struct map *kept;  /* staged names that must stay: their rows could not be finished */
        int64_t done[DONE_MAX];
        size_t done_n;
        unsigned renamed;
        struct err *e;
        bool ok;
};

/* Rows go only when the renames are durable. */
static bool flush(struct forward *w)
{
        if (w->done_n == 0)
                return true;
        if (!staging_sync_dirs(NULL, w->dirs, w->e) || !ledger_rename_done(w->l, w->done, w->done_n, w->e))
                return false;
        w->done_n = 0;
        map_free(w->dirs, NULL);
        w->dirs = map_new();
        return w->dirs || err_nomem(w->e);
}

/* Is the file system that held the staged file there, though the directory is not? Then somebody removed the directory; else
 * it may come back (an unmounted disk). */
static bool mounted(const struct rename_job *j)
{
        struct str path = j->staged_dir;
        struct stat st;
        int fd = -1;

        while (fd < 0 && path.n > 1) {
                path = str_first(path, str_rfind(path, '/'));
                fd = path_open(path.n ? path : STR("/"), O_PATH | O_DIRECTORY, NULL);
        }
        if (fd < 0)
                return false;
        bool same = fstat(fd, &st) == 0 && st.st_dev == j->dev;
        close(fd);
        return same;
}

enum step { STEP_DONE, STEP_RENAMED, STEP_KEEP };

static enum step keep(const struct rename_job *j, const struct err *why)
{
        log_warn("could not finish saving %.*s/%.*s (it waits as %.*s, and is tried again at each start): %s", STR_FMT(j->target_dir),
                 STR_FMT(j->target), STR_FMT(j->staged), why->text);
        return STEP_KEEP;
}

static enum step rename_staged(const struct rename_job *j, int from, int to, struct arena *a)
{
        struct str target = j->target;
        struct err why;
        bool taken;

        if (!place_name(from, j->staged, to, &target, j->replace, j->numbered, &taken, a, &why))
                return keep(j, &why);
        if (taken)
                log_warn("%.*s/%.*s was taken meanwhile: what was promised under that name is %.*s", STR_FMT(j->target_dir),
                         STR_FMT(j->target), STR_FMT(target));
        return STEP_RENAMED;
}

/* Absent: it was renamed, whatever the target looks like now (a mail reader may have moved it). */
static enum step forward_from(const struct rename_job *j, int from, struct arena *a)
{
        struct str staged = arena_str(a, j->staged);
        struct err why;
        struct stat st;
        enum step step;
        int to;

        if (!staged.p) {
                err_nomem(&why);
                return keep(j, &why);
        }
        if (fstatat(from, staged.p, &st, AT_SYMLINK_NOFOLLOW) != 0) {
                if (errno == ENOENT)
                        return STEP_DONE;
                err_sys(&why, ERR_IO, errno, "looking at it");
                return keep(j, &why);
        }
        to = path_make(j->target_dir, &why); /* it was empty, and somebody removed it */
        if (to < 0)
                return keep(j, &why);
        step = rename_staged(j, from, to, a);
        close(to);
        return step;
}

static enum step forward_one(const struct rename_job *j)
{
        struct arena *a = arena_new(0);
        struct err why;
        enum step step;
        int from = path_open(j->staged_dir, O_RDONLY | O_DIRECTORY, &why);

        if (!a)
                err_nomem(&why);
        if (from >= 0 && a)
                step = forward_from(j, from, a);
        else if (from < 0 && why.code == ERR_ABSENT && mounted(j))
                step = STEP_DONE;
        else
                step = keep(j, &why);
        if (from >= 0)
                close(from);
        arena_free(a);
        return step;
}

static bool note_dirs(struct forward *w, const struct rename_job *j)
{
        /* The value is what staging_sync_dirs takes for "not open". */
        return (map_set(w->dirs, j->staged_dir, (void *)(intptr_t)1, NULL) && map_set(w->dirs, j->target_dir, (void *)(intptr_t)1, NULL)) ||
               err_nomem(w->e);
}

static bool forward_row(void *ctx, const struct rename_job *j)
{
        struct forward *w = ctx;
        enum step step = forward_one(j);

        if (step == STEP_KEEP) {
                w->ok = map_set(w->kept, j->staged, w, NULL) || err_nomem(w->e);
                return w->ok;
        }
        if (step == STEP_RENAMED) {
                w->renamed++;
                w->ok = note_dirs(w, j);
        }
        w->done[w->done_n++] = j->id;
        if (w->ok && w->done_n == DONE_MAX)
                w->ok = flush(w);
        return w->ok;
}

static bool roll_forward(struct ledger *l, struct str id, struct map *kept, unsigned *recovered, struct err *e)
{
        struct forward w = { .l = l, .dirs = map_new(), .kept = kept, .e = e, .ok = true };
        bool ok = w.dirs ? true : err_nomem(e);

        ok = ok && ledger_renames(l, id, forward_row, &w, e) && w.ok && flush(&w);
        map_free(w.dirs, NULL);
        *recovered += w.renamed;
        return ok;
}

/* ---- cleaning -------------------------------------------------------------------------------------------------- */

/* Calls f for each name in the directory; fd stays the caller's. */
static bool each_name(int fd, bool (*f)(void *ctx, struct str name), void *ctx, struct err *e)
{
        int again = sys_open_beneath(fd, STR("."), O_RDONLY | O_DIRECTORY, 0, e);
        DIR *d = again >= 0 ? fdopendir(again) : NULL;
        struct dirent *entry;
        bool more = true;

        if (!d) {
                if (again >= 0)
                        close(again);
                return again < 0 ? false : err_nomem(e);
        }
        while (more && (errno = 0, entry = readdir(d)) != NULL)
                more = f(ctx, str_of(entry->d_name));
        if (more && errno)
                err_sys(e, ERR_IO, errno, "reading a directory");
        more = more && errno;
        closedir(d);
        return !more;
}

struct cleaning {
        int fd;
        struct str id;
        struct map *kept;
};

static bool is_staged_by(struct str name, struct str id)
{
        if (str_starts(name, STR(".")))
                name = str_from(name, 1);
        if (!str_starts(name, STR("mailmill-")))
                return false;
        name = str_from(name, 9);
        return str_starts(name, id) && name.n > id.n && name.p[id.n] == '-';
}

static bool clean_name(void *ctx, struct str name)
{
        struct cleaning *c = ctx;

        if (is_staged_by(name, c->id) && !map_get(c->kept, name))
                sys_unlink(c->fd, name.p, NULL);
        return true;
}

/* A directory that can't be opened any more keeps its garbage. */
static void clean_dir(struct str path, struct str id, struct map *kept)
{
        struct cleaning c = { path_open(path, O_RDONLY | O_DIRECTORY, NULL), id, kept };

        if (c.fd < 0)
                return;
        if (!each_name(c.fd, clean_name, &c, NULL))
                log_debug("could not look for left-over files in %.*s", STR_FMT(path));
        close(c.fd);
}

static bool clean_noted(int dir, struct str id, struct map *kept, struct err *e)
{
        int fd = sys_open_beneath(dir, STR("dirs"), O_RDONLY | O_NOFOLLOW, 0, NULL);
        struct str rest;
        char *text;
        size_t n;

        if (fd < 0)
                return true;
        text = sys_read_file(fd, NOTES_MAX, &n, e);
        close(fd);
        if (!text)
                return false;
        rest = str_make(text, n);
        while (rest.n > 0) {
                struct str path = str_take(&rest, '\0');

                if (path.n > 0)
                        clean_dir(path, id, kept);
        }
        mem_free(text);
        return true;
}

struct spooled {
        struct ledger *l;
        struct str id;
        unsigned left;
        bool ok;
        struct err *e;
        int dir;
};

/* What the ledger still needs stays. */
static bool clean_spooled(void *ctx, struct str name)
{
        struct spooled *w = ctx;
        struct buf path = BUF_INIT;
        struct stat st;

        if (name.n == 0 || !ascii_is_digit(name.p[0]))
                return true;
        buf_printf(&path, "%.*s/%.*s", STR_FMT(w->id), STR_FMT(name));
        w->ok = buf_ok(&path, w->e) && ledger_leftover(w->l, buf_str(&path), w->e);
        buf_free(&path);
        if (w->ok && fstatat(w->dir, name.p, &st, AT_SYMLINK_NOFOLLOW) == 0)
                w->left++;
        return w->ok;
}

/* ---- one run --------------------------------------------------------------------------------------------------- */

struct appending {
        struct ledger *l;
        unsigned *recovered;
        bool promised, ok;
        struct err *e;
};

/* The row may have been read before another of its mbox was done, and moved it. */
static bool append_again(struct ledger *l, const struct append_job *row, struct append_place *end, struct err *e)
{
        struct append_job j = *row;

        return ledger_append_from(l, j.id, &j.from, e) && mboxout_append(l, &j, true, end, e);
}

static bool append_row(void *ctx, const struct append_job *j)
{
        struct appending *w = ctx;
        struct append_place end;
        struct err why;

        if (!append_again(w->l, j, &end, &why)) {
                log_warn("could not finish delivering into %.*s (it is tried again at each start): %s", STR_FMT(j->path), why.text);
                w->promised = true;
                return true;
        }
        ++*w->recovered;
        w->ok = ledger_append_done(w->l, j->id, &end, w->e);
        return w->ok;
}

/* With nothing promised and nothing spooled the run is forgotten. */
static bool end_run(struct ledger *l, int spool, int dir, struct str id, bool promised, struct err *e)
{
        struct spooled w = { .l = l, .id = id, .ok = true, .e = e, .dir = dir };

        if (!each_name(dir, clean_spooled, &w, e) || !w.ok)
                return false;
        if (!promised && !sys_unlink(dir, "dirs", e))
                return false;
        if (promised || w.left)
                return true;
        if (!sys_unlink(dir, "lock", e) || (unlinkat(spool, id.p, AT_REMOVEDIR) != 0 && errno != ENOENT))
                return err_in(e, "removing the spool of an ended run");
        return ledger_run_forget(l, id, e);
}

static bool recover_locked(struct ledger *l, int spool, int dir, struct str id, bool scan, unsigned *recovered, struct err *e)
{
        struct map *kept = map_new();
        struct appending appends = { l, recovered, false, true, e };
        bool promised, ok = kept ? true : err_nomem(e);

        ok = ok && roll_forward(l, id, kept, recovered, e) && ledger_appends(l, id, append_row, &appends, e) && appends.ok;
        if (ok && dir >= 0 && scan)
                ok = clean_noted(dir, id, kept, e);
        promised = appends.promised || (kept && map_count(kept) > 0);
        map_free(kept, NULL);
        if (ok && dir >= 0)
                return end_run(l, spool, dir, id, promised, e);
        return ok && (promised || ledger_run_forget(l, id, e));
}

bool recover_run(struct ledger *l, int spool, struct str id, bool scan, unsigned *recovered, struct err *e)
{
        struct err why;
        bool ok;
        int held = -1, dir = sys_open_beneath(spool, id, O_RDONLY | O_DIRECTORY, 0, &why);

        if (dir < 0 && why.code != ERR_ABSENT) {
                if (e)
                        *e = why;
                return false;
        }
        if (dir >= 0)
                held = sys_open_beneath(dir, STR("lock"), O_RDWR | O_NOFOLLOW, 0, NULL);
        if (held >= 0 && !sys_lock(held, &why)) { /* it lives */
                close(held);
                close(dir);
                return why.code == ERR_BUSY ? true : err_set(e, why.code, "%s", why.text);
        }
        ok = recover_locked(l, spool, dir, id, scan, recovered, e);
        if (held >= 0)
                close(held);
        if (dir >= 0)
                close(dir);
        return ok ? true : err_in(e, "finishing what an earlier run left");
}

/* ---- all runs -------------------------------------------------------------------------------------------------- */

struct all {
        struct ledger *l;
        int spool;
        struct map *known;
        unsigned *recovered;
        struct err *e;
        bool ok;
};

static bool recover_known(void *ctx, struct str run)
{
        struct all *w = ctx;
        struct buf id = BUF_INIT;

        if (run.n != RUN_ID || memchr(run.p, '/', run.n) || memchr(run.p, '\0', run.n)) {
                log_warn("the journal names a run that can't be: \"%.*s\"", STR_FMT(run));
                return true;
        }
        buf_add_str(&id, run);
        buf_add_char(&id, '\0');
        w->ok = buf_ok(&id, w->e) && (map_set(w->known, run, w, NULL) || err_nomem(w->e)) &&
                recover_run(w->l, w->spool, str_of(id.p), true, w->recovered, w->e);
        buf_free(&id);
        return w->ok;
}

static bool report_unknown(void *ctx, struct str name)
{
        struct all *w = ctx;

        if (name.n == RUN_ID && !map_get(w->known, name))
                log_warn("%s/spool/%.*s is not of this state (was it lost, or put back from a backup?): left alone", ledger_path(w->l),
                         STR_FMT(name));
        return true;
}

static bool recover_all(struct ledger *l, int spool, unsigned *recovered, struct err *e)
{
        struct all w = { l, spool, map_new(), recovered, e, true };
        bool ok = w.known ? true : err_nomem(e);

        ok = ok && ledger_runs(l, recover_known, &w, e) && w.ok && each_name(spool, report_unknown, &w, e);
        map_free(w.known, NULL);
        return ok;
}

/* ---- beginning and ending ---------------------------------------------------------------------------------------- */

/* Starts and ends go one at a time: between making its directory and locking it a run looks dead. */
static int open_gate(struct ledger *l, int *spool, struct err *e)
{
        int gate;

        *spool = sys_mkdirs_beneath(ledger_dir(l), STR("spool"), NULL, NULL, e);
        if (*spool < 0)
                return -1;
        gate = sys_open_beneath(*spool, STR("lock"), O_RDWR | O_CREAT | O_NOFOLLOW, 0600, e);
        if (gate >= 0 && sys_lock_wait(gate, GATE_MS, e))
                return gate;
        if (gate >= 0)
                close(gate);
        close(*spool);
        *spool = -1;
        return -1;
}

static bool begin_run(struct staging *s, int spool, struct err *e)
{
        uint8_t r[RUN_ID / 2];

        sys_random(r, sizeof r);
        for (size_t i = 0; i < sizeof r; i++)
                snprintf(s->id + 2 * i, 3, "%02x", r[i]);
        if (!ledger_run_begin(s->l, staging_id(s), e))
                return false;
        s->spool = sys_mkdirs_beneath(spool, staging_id(s), NULL, NULL, e);
        if (s->spool < 0)
                return false;
        s->held = sys_open_beneath(s->spool, STR("lock"), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, e);
        if (s->held < 0 || !sys_lock(s->held, e))
                return false;
        s->notes = sys_open_beneath(s->spool, STR("dirs"), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, e);
        return s->notes >= 0 && sys_fsync(s->spool, e) && sys_fsync(spool, e) && sys_fsync(ledger_dir(s->l), e);
}

static void free_staging(struct staging *s)
{
        if (s->notes >= 0)
                close(s->notes);
        if (s->held >= 0)
                close(s->held);
        if (s->spool >= 0)
                close(s->spool);
        pool_free(s->pool);
        staging_free_blocks(s);
        places_free(s);
        mem_free(s);
}

struct staging *staging_open(struct ledger *l, unsigned *recovered, struct err *e)
{
        struct staging *s;
        int spool, gate;
        bool ok;

        *recovered = 0;
        if (l->readonly) {
                err_set(e, ERR_USAGE, "the state %s is open for reading only: nothing can be staged", l->path);
                return NULL;
        }
        s = mem_zero(sizeof *s);
        if (!s) {
                err_nomem(e);
                return NULL;
        }
        s->l = l;
        s->spool = s->held = s->notes = -1;
        gate = open_gate(l, &spool, e);
        ok = places_init(s, e) && gate >= 0 && recover_all(l, spool, recovered, e) && begin_run(s, spool, e);
        if (gate >= 0) {
                close(gate);
                close(spool);
        }
        if (ok)
                return s;
        err_in(e, "opening the spool of %s", ledger_path(l));
        free_staging(s);
        return NULL;
}

void staging_close(struct staging *s)
{
        unsigned recovered = 0;
        struct err why;
        int spool, gate;

        if (!s)
                return;
        gate = open_gate(s->l, &spool, &why);
        close(s->held);
        s->held = -1;
        /* Others are looked at once more: a run that was dying when this one began held its lock still. */
        if (gate < 0 || (!s->l->doubtful && (!recover_run(s->l, spool, staging_id(s), s->outstanding > 0, &recovered, &why) ||
                                             !recover_all(s->l, spool, &recovered, &why))))
                log_warn("the spool of this run stays until the next start: %s", why.text);
        if (gate >= 0) {
                close(gate);
                close(spool);
        }
        free_staging(s);
}
