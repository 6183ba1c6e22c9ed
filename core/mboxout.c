#include "core/mboxout.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/staging_int.h"
#include "core/sys.h"

enum {
        BLOCK = 128 * 1024,
        LOCK_MS = 30000,      /* how long another program may hold the mbox */
        STEP_MS = 50,
        STALE_SECONDS = 300,  /* a dot lock this old that names no process is nobody's, as liblockfile has it */
        SENDER_MAX = 320,
};

/* ---- what is appended ------------------------------------------------------------------------------------------ */

/* A feed around a feed. Of each line, only whether it is ">>>From " needs to be known, and one ">" more may stand anywhere among
 * the others, so nothing is held back but the beginning of "From ". */
struct wrapping {
        struct feed in;
        struct digest *digest;
        char *block;
        struct buf out;
        size_t given;
        unsigned matched;    /* bytes of "From " seen at the beginning of the line, behind its '>' */
        bool line_start;     /* only '>' so far */
        bool newline;        /* the last byte was one */
        bool ended;
        uint64_t length;
};

static const char from_word[] = "From ";

static void quote(struct wrapping *w, struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];
                if (w->line_start && c == from_word[w->matched]) {
                        if (++w->matched < 5)
                                continue;
                        buf_add(&w->out, ">From ", 6);
                        w->matched = 0;
                        w->line_start = false;
                } else {
                        buf_add(&w->out, from_word, w->matched);
                        buf_add_char(&w->out, c);
                        w->line_start = c == '\n' || (w->line_start && w->matched == 0 && c == '>');
                        w->matched = 0;
                }
                w->newline = c == '\n';
        }
}

static bool refill(struct wrapping *w, struct err *e)
{
        ssize_t got = w->in.fill(w->in.ctx, w->block, BLOCK, e);

        if (got < 0)
                return false;
        buf_clear(&w->out);
        w->given = 0;
        quote(w, str_make(w->block, (size_t)got));
        if (got == 0) {
                buf_add(&w->out, from_word, w->matched);
                buf_add(&w->out, "\n\n", w->newline ? 1 : 2);
                w->ended = true;
        }
        return buf_ok(&w->out, e);
}

static ssize_t fill(void *ctx, char *p, size_t n, struct err *e)
{
        struct wrapping *w = ctx;

        while (w->given == w->out.n) {
                if (w->ended)
                        return 0;
                if (!refill(w, e))
                        return -1;
        }
        if (n > w->out.n - w->given)
                n = w->out.n - w->given;
        memcpy(p, w->out.p + w->given, n);
        digest_add(w->digest, p, n);
        w->given += n;
        w->length += n;
        return (ssize_t)n;
}

/* "From a@b Mon Nov 23 05:41:00 2026", in UTC (RFC 4155). What could end the line or the word is left out of the sender. */
static void from_line(struct buf *out, struct str sender, int64_t when)
{
        static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        size_t before;
        time_t t = (time_t)when;
        struct tm tm;

        buf_add(out, "From ", 5);
        before = out->n;
        for (size_t i = 0; i < sender.n && i < SENDER_MAX; i++) {
                if ((unsigned char)sender.p[i] > ' ' && sender.p[i] != 0x7f)
                        buf_add_char(out, sender.p[i]);
        }
        if (out->n == before)
                buf_add_str(out, STR("MAILER-DAEMON"));
        if (!gmtime_r(&t, &tm) || tm.tm_year < -1900 || tm.tm_year > 8099)
                gmtime_r(&(time_t){ 0 }, &tm);
        buf_printf(out, " %.3s %.3s %2d %02d:%02d:%02d %04d\n", days + 3 * tm.tm_wday, months + 3 * tm.tm_mon, tm.tm_mday, tm.tm_hour,
                   tm.tm_min, tm.tm_sec, 1900 + tm.tm_year);
}

static bool spool_wrapped(struct staging *s, struct wrapping *w, struct append_job *out, int *fd, struct arena *a, struct err *e)
{
        bool ok = w->block && w->digest && buf_ok(&w->out, e) ? staging_spool(s, (struct feed){ fill, w }, &out->staged, fd, a, e)
                                                              : err_nomem(e);

        if (ok) {
                digest_peek(w->digest, out->hash);
                out->length = w->length;
        }
        digest_free(w->digest);
        mem_free(w->block);
        buf_free(&w->out);
        return ok;
}

/* Where it will go: today's file and its end are where a later search begins. */
static bool find_mbox(struct staging *s, struct root *r, struct str path, struct append_job *out, struct arena *a, struct err *e)
{
        struct str tidy = path_tidy(path, a, e), name, dir;
        struct place *p;
        struct stat st;
        bool own, ok = true;
        int at;

        if (!tidy.p)
                return false;
        dir = path_dir(tidy, &name);
        if (name.n == 0)
                return err_set(e, ERR_USAGE, "\"%.*s\" names no file", STR_FMT(path));
        p = places_get(s, r, dir, true, a, e);
        if (!p)
                return false;
        out->path = path_join(p->path, name, a);
        at = out->path.p ? places_fd(p->fd, p->path, &own, e) : -1;
        if (at < 0)
                ok = out->path.p ? false : err_nomem(e);
        else if (fstatat(at, name.p, &st, AT_SYMLINK_NOFOLLOW) != 0)
                ok = errno == ENOENT || err_sys(e, ERR_IO, errno, "looking at it");
        else if (!S_ISREG(st.st_mode))
                ok = err_set(e, ERR_EXISTS, "what is there is no plain file");
        else
                out->from = (struct append_place){ st.st_dev, st.st_ino, (uint64_t)st.st_size };
        if (at >= 0 && own)
                close(at);
        places_put(s, p->path);
        return ok;
}

bool mboxout_stage(struct staging *s, struct root *r, struct str path, struct feed feed, struct str sender, int64_t time,
                   struct append_job *out, int *fd, struct arena *a, struct err *e)
{
        struct wrapping w = { .in = feed, .line_start = true, .newline = true };

        *fd = -1;
        *out = (struct append_job){ .run = staging_id(s) };
        if (!find_mbox(s, r, path, out, a, e))
                return err_in(e, "appending to \"%.*s\" below %.*s", STR_FMT(path), STR_FMT(root_path(r)));
        w.digest = digest_new();
        w.block = mem_alloc(BLOCK);
        from_line(&w.out, sender, time);
        return spool_wrapped(s, &w, out, fd, a, e) || err_in(e, "appending to \"%.*s\"", STR_FMT(path));
}

/* ---- the dot lock ---------------------------------------------------------------------------------------------- */

/* It names its process (as liblockfile reads it) and its run. A lock of a process that is gone, or of the run whose work is being done or finished (it
 * could not be removed: a run appends to one mbox at a time), is nobody's. */
static bool is_stale(int dir, const char *name, const struct append_job *j)
{
        int fd = sys_open_beneath(dir, str_of(name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, NULL);
        char text[128] = "";
        struct stat st;
        ssize_t n = -1;
        long pid;

        if (fd < 0)
                return false;
        if (fstat(fd, &st) == 0)
                n = sys_pread_full(fd, text, sizeof text - 1, 0, NULL);
        close(fd);
        if (n < 0)
                return false;
        if (str_find_str(str_of(text), j->run) < strlen(text))
                return true;
        pid = strtol(text, NULL, 10);
        if (pid > 0)
                return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
        return sys_now() - st.st_mtim.tv_sec > STALE_SECONDS;
}

/* It gets its name when it says whose it is, on the disk too: an empty lock, of a process that died or of a power cut, could only be waited
 * for. The hidden name is cleaned as staged files are. */
static bool make_lock(int dir, const char *name, const struct append_job *j, struct err *e)
{
        char hidden[96], text[128];
        int fd;
        bool ok;

        snprintf(hidden, sizeof hidden, ".mailmill-%.*s-lock%lld", (int)RUN_ID, j->run.p, (long long)j->id);
        snprintf(text, sizeof text, "%ld\nmailmill %.*s\n", (long)getpid(), (int)RUN_ID, j->run.p);
        sys_unlink(dir, hidden, NULL);
        fd = sys_open_beneath(dir, str_of(hidden), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, e);
        if (fd < 0)
                return false;
        ok = sys_write_all(fd, text, strlen(text), e) && sys_fdatasync(fd, e);
        close(fd);
        ok = ok && sys_rename_new(dir, hidden, dir, name, e);
        if (!ok)
                sys_unlink(dir, hidden, NULL);
        return ok;
}

/* *made: it is to be removed again. Where no lock can be made beside the mbox (/var/mail), the fcntl lock has to do. */
static bool dot_lock(int dir, const char *name, const struct append_job *j, bool *made, struct err *e)
{
        int64_t end = sys_mono_ms() + LOCK_MS;
        struct err why;

        for (*made = false;;) {
                *made = make_lock(dir, name, j, &why);
                if (*made || why.sys == EACCES || why.sys == EPERM || why.sys == EROFS || why.sys == ENAMETOOLONG)
                        return true;
                if (why.code != ERR_EXISTS)
                        break;
                if (is_stale(dir, name, j)) {
                        if (!sys_unlink(dir, name, &why))
                                break;
                        continue;
                }
                if (sys_mono_ms() >= end)
                        return err_set(e, ERR_BUSY, "another program holds the lock %s", name);
                sys_sleep_until(sys_mono_ms() + STEP_MS);
        }
        if (e)
                *e = why;
        return false;
}

/* ---- looking for what is there already ------------------------------------------------------------------------- */

struct mbox {
        int fd, spool;
        uint64_t size;
        uint64_t found;      /* where it was */
        char *mine, *theirs; /* blocks */
};

/* How many bytes of ours stand at `at`. */
static bool compare_at(struct mbox *m, uint64_t at, uint64_t length, uint64_t *same, struct err *e)
{
        *same = 0;
        while (*same < length) {
                ssize_t a = sys_pread_full(m->spool, m->mine, BLOCK, *same, e);
                ssize_t b = a < 0 ? -1 : sys_pread_full(m->fd, m->theirs, (size_t)a, at + *same, e);
                ssize_t i = 0;
                if (a < 0 || b < 0)
                        return false;
                while (i < b && m->mine[i] == m->theirs[i])
                        i++;
                *same += (uint64_t)i;
                if (i < a || a == 0)
                        return true;
        }
        return true;
}

/* One line's beginning: *have is set when ours stands there, whole, or cut off by the end of the file. */
static bool try_line(struct mbox *m, uint64_t at, uint64_t length, uint64_t *have, struct err *e)
{
        uint64_t same;

        if (!compare_at(m, at, length, &same, e))
                return false;
        if (same == length || (same > 0 && at + same == m->size))
                *have = same, m->found = at;
        return true;
}

/* Ours begins at the beginning of a line with "From ". */
static bool search_block(struct mbox *m, const char *block, size_t n, uint64_t at, bool *line_start, uint64_t length, uint64_t *have,
                         struct err *e)
{
        size_t i = 0;

        while (i < n) {
                const char *nl;
                size_t look = n - i < 5 ? n - i : 5;
                if (*line_start && memcmp(block + i, from_word, look) == 0) {
                        if (!try_line(m, at + i, length, have, e))
                                return false;
                        if (*have == length)
                                return true;
                }
                nl = memchr(block + i, '\n', n - i);
                *line_start = nl != NULL;
                if (!nl)
                        return true;
                i = (size_t)(nl - block) + 1;
        }
        return true;
}

/* *have: how much of ours is there: all, a prefix that the file ends with, or nothing. In the file that was, from the end it had
 * then, or of what was appended before; in another (a mail reader has written it anew), everywhere. */
static bool search(struct mbox *m, const struct append_job *j, const struct stat *st, uint64_t *have, struct err *e)
{
        uint64_t at = j->from.ino == st->st_ino && j->from.offset <= m->size ? j->from.offset : 0;
        char *block = mem_alloc(BLOCK), before = '\n';
        bool ok = block ? true : err_nomem(e), line_start;
        ssize_t n = 1;

        *have = 0;
        if (ok && at > 0)
                ok = sys_pread_full(m->fd, &before, 1, at - 1, e) >= 0;
        line_start = before == '\n';
        for (; ok && n > 0 && *have < j->length; at += (uint64_t)n) {
                n = sys_pread_full(m->fd, block, BLOCK, at, e);
                ok = n >= 0 && search_block(m, block, (size_t)n, at, &line_start, j->length, have, e);
        }
        mem_free(block);
        return ok;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* A From_ line is one only behind a blank line. */
static bool separate(struct mbox *m, struct err *e)
{
        char tail[2] = "\n\n";
        size_t n = m->size < 2 ? (size_t)m->size : 2;

        if (n == 0)
                return true;
        if (sys_pread_full(m->fd, tail + 2 - n, n, m->size - n, e) < 0)
                return false;
        if (tail[1] != '\n')
                return sys_write_all(m->fd, "\n\n", 2, e);
        return tail[0] == '\n' ? true : sys_write_all(m->fd, "\n", 1, e);
}

/* Room first: half a message in somebody's mailbox is seen by every reader until there is room again. */
static bool reserve(struct mbox *m, uint64_t more, struct err *e)
{
        struct rlimit limit;

        more += 2; /* for the blank line before it */
        if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && (m->size > limit.rlim_cur || more > limit.rlim_cur - m->size))
                return err_set(e, ERR_FULL, "it would be larger than the limit for files (ulimit -f)");
        if (fallocate(m->fd, FALLOC_FL_KEEP_SIZE, (off_t)m->size, (off_t)more) == 0 || (errno != ENOSPC && errno != EDQUOT))
                return true;
        return err_sys(e, ERR_FULL, errno, "making room");
}

static bool copy_from(struct mbox *m, uint64_t have, uint64_t length, struct err *e)
{
        while (have < length) {
                ssize_t n = sys_pread_full(m->spool, m->mine, BLOCK, have, e);
                if (n < 0)
                        return false;
                if (n == 0)
                        return err_set(e, ERR_IO, "its spool file has become shorter");
                if (!sys_write_all(m->fd, m->mine, (size_t)n, e))
                        return false;
                have += (uint64_t)n;
        }
        return true;
}

static bool spool_is_whole(struct mbox *m, const struct append_job *j, struct err *e)
{
        struct digest *d = digest_new();
        uint8_t hash[DIGEST_SIZE];
        uint64_t at = 0;
        ssize_t n;

        if (!d)
                return err_nomem(e);
        while ((n = sys_pread_full(m->spool, m->mine, BLOCK, at, e)) > 0) {
                digest_add(d, m->mine, (size_t)n);
                at += (uint64_t)n;
        }
        digest_end(d, hash);
        if (n < 0)
                return false;
        return at == j->length && memcmp(hash, j->hash, DIGEST_SIZE) == 0 ? true : err_set(e, ERR_IO, "its spool file is damaged");
}

static bool append_locked(struct mbox *m, const struct append_job *j, bool again, struct append_place *end, struct err *e)
{
        struct stat st;
        uint64_t have = 0;

        if (fstat(m->fd, &st) != 0)
                return err_sys(e, ERR_IO, errno, "looking at it");
        m->size = (uint64_t)st.st_size;
        if (again && !(spool_is_whole(m, j, e) && search(m, j, &st, &have, e)))
                return false;
        *end = (struct append_place){ st.st_dev, st.st_ino, m->found + j->length };
        if (have == j->length)
                return sys_fsync(m->fd, e);
        if (!(reserve(m, j->length - have, e) && (have > 0 || separate(m, e)) && copy_from(m, have, j->length, e)))
                return false;
        end->offset = (uint64_t)lseek(m->fd, 0, SEEK_CUR); /* O_APPEND sets it, wherever the end was */
        return sys_fsync(m->fd, e);
}

/* ---- one append ------------------------------------------------------------------------------------------------ */

/* Opened and locked, and still the file of that name (a reader may have put another in its place while we waited). */
static int open_locked(int dir, struct str name, struct err *e)
{
        struct stat here, there;
        int fd;

        for (int tries = 0; tries < 16; tries++) {
                fd = sys_open_beneath(dir, name, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0600, e);
                if (fd < 0)
                        return -1;
                if (fstat(fd, &here) != 0 || !S_ISREG(here.st_mode)) {
                        err_set(e, ERR_EXISTS, "what is there is no plain file");
                        close(fd);
                        return -1;
                }
                if (!sys_lock_wait(fd, LOCK_MS, e)) {
                        close(fd);
                        return -1;
                }
                if (fstatat(dir, name.p, &there, AT_SYMLINK_NOFOLLOW) == 0 && here.st_ino == there.st_ino && here.st_dev == there.st_dev)
                        return fd;
                close(fd);
        }
        err_set(e, ERR_BUSY, "another program keeps replacing it");
        return -1;
}

static bool append_into(struct ledger *l, const struct append_job *j, int dir, struct str name, bool again, struct append_place *end, struct err *e)
{
        struct mbox m = { .fd = open_locked(dir, name, e), .spool = -1 };
        bool ok = m.fd >= 0;

        if (ok)
                m.spool = staging_spool_open(l, j->staged, e);
        m.mine = mem_alloc(BLOCK);
        m.theirs = mem_alloc(BLOCK);
        ok = ok && m.spool >= 0 && (m.mine && m.theirs ? append_locked(&m, j, again, end, e) : err_nomem(e)) && sys_fsync(dir, e);
        mem_free(m.mine);
        mem_free(m.theirs);
        if (m.spool >= 0)
                close(m.spool);
        if (m.fd >= 0)
                close(m.fd);
        return ok;
}

bool mboxout_append(struct ledger *l, const struct append_job *j, bool again, struct append_place *end, struct err *e)
{
        struct arena *a = arena_new(0);
        struct str name, path = a ? arena_str(a, j->path) : STR_NONE, dir_path = path_dir(path, &name);
        struct str lock = a ? arena_printf(a, "%.*s.lock", STR_FMT(name)) : STR_NONE;
        bool ok, made = false;
        int dir = -1;

        ok = path.p && lock.p ? true : err_nomem(e);
        if (ok && j->run.n != RUN_ID)
                ok = err_set(e, ERR_USAGE, "\"%.*s\" is no run", STR_FMT(j->run));
        if (ok)
                dir = path_make(dir_path, e);
        ok = dir >= 0 && dot_lock(dir, lock.p, j, &made, e);
        ok = ok && append_into(l, j, dir, name, again, end, e);
        /* A lock that stays stands in everybody's way: the row stays too, and the next try removes it. */
        if (made && !sys_unlink(dir, lock.p, ok ? e : NULL))
                ok = false;
        if (dir >= 0)
                close(dir);
        if (!ok)
                err_in(e, "appending to %.*s", STR_FMT(j->path));
        arena_free(a);
        return ok;
}
