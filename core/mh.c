/* MH: a folder is a directory of messages named by numbers, with what is known of them in .mh_sequences; folders may lie below it.
 * A directory is taken for one when it, or one directly below, has .mh_sequences, or when all files in it are so named (but those
 * with a leading dot, and those that MH programs have put aside: ",12", "#12", "12~"). Folders come in the order of their names,
 * messages in that of their numbers. A file with a From_ line that is the only hint is read as the mbox that it may be. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/filelist.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/sequences.h"
#include "core/sys.h"

enum {
        DEPTH_MAX = 64,      /* nested folders */
        PATH_BYTES = 4095,   /* Linux opens no longer one */
        NUMBER_DIGITS = 18,  /* of a message's name; it fits an uint64_t */
        SEQUENCES_MAX = 4 << 20, /* bytes of .mh_sequences: a folder of a million with every second message unseen */
};

struct mh {
        struct archive a;
        int root;
        struct namelist dirs;     /* every path here begins with '/', the root is "" */
        struct filelist files;    /* "dir\0" length "number": in order when sorted as bytes */
        struct sequences sequences;
        bool sure;             /* it is MH, not only by its names */
        bool marked;           /* there are .mh_sequences */
        char *folder;          /* that they belong to; NULL before the first */
};

struct look {
        struct mh *m;
        struct str path;
};

static bool is_number(struct str name)
{
        uint64_t n;

        return name.n <= NUMBER_DIGITS && name.n > 0 && *name.p != '0' && str_to_u64(name, UINT64_MAX, &n);
}

static bool is_aside(struct str name)
{
        return *name.p == '.' || *name.p == ',' || *name.p == '#' || name.p[name.n - 1] == '~';
}

/* ---- is it one? ---- */

struct shape { int root; bool sequences, numbers, others; };

static bool has_sequences(int root, struct str dir)
{
        char path[PATH_BYTES + 1];
        struct err why;
        int fd, n = snprintf(path, sizeof path, "%.*s/.mh_sequences", STR_FMT(dir));

        if (n < 0 || (size_t)n >= sizeof path)
                return false;
        fd = sys_open_beneath(root, str_of(path), O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &why);
        if (fd >= 0)
                close(fd);
        return fd >= 0;
}

static bool note_shape(void *ctx, struct str name, unsigned char type, struct err *e)
{
        struct shape *s = ctx;

        (void)e;
        if (str_eq(name, STR(".mh_sequences")))
                s->sequences = true;
        else if (type == DT_DIR)
                s->sequences |= *name.p != '.' && has_sequences(s->root, name);
        else if (is_number(name))
                s->numbers = true;
        else
                s->others |= !is_aside(name);
        return true;
}

/* ---- what is in it ---- */

static bool leave_out(struct mh *m, struct str path, struct str name, const char *why)
{
        m->a.unread++;
        atomic_fetch_add(&m->a.base.skipped, 1);
        log_warn("%.*s%.*s/%.*s is left out: %s", STR_FMT(m->a.base.name), STR_FMT(path), STR_FMT(name), why);
        return true;
}

static bool add_file(struct mh *m, struct str dir, struct str name, struct err *e)
{
        char key[NUMBER_DIGITS + 1];

        *key = (char)('0' + name.n);
        memcpy(key + 1, name.p, name.n);
        return filelist_add(&m->files, dir, '\0', str_make(key, name.n + 1), e);
}

static bool look_at(void *ctx, struct str name, unsigned char type, struct err *e)
{
        struct look *k = ctx;
        size_t depth = 0;

        for (size_t i = 0; i < k->path.n; i++)
                depth += k->path.p[i] == '/';
        if (type == DT_DIR) {
                if (*name.p == '.')
                        return true;
                if (depth >= DEPTH_MAX || k->path.n + name.n + NUMBER_DIGITS + 2 > PATH_BYTES)
                        return leave_out(k->m, k->path, name, "folders nest too deep");
                return namelist_add(&k->m->dirs, k->path, '/', name, e);
        }
        if (!is_number(name)) {
                if (!is_aside(name))
                        atomic_fetch_add(&k->m->a.base.skipped, 1);
                return true;
        }
        return type == DT_REG ? add_file(k->m, k->path, name, e)
                              : leave_out(k->m, k->path, name, type == DT_LNK ? "a symbolic link" : "not a regular file");
}

static bool look_through(struct mh *m, struct str path, struct err *e)
{
        struct look k = { m, path };
        struct err why = { 0 };

        if (namelist_each(m->root, str_from(path, 1), look_at, &k, &why) || archive_pass_over(&m->a, path, &why))
                return true;
        *e = why;
        return false;
}

/* No recursion: the list of directories grows behind the one that is looked at. */
static bool find_files(struct mh *m, struct err *e)
{
        if (!look_through(m, STR(""), e))
                return false;
        for (size_t i = 0; i < m->dirs.n; i++) {
                struct str path = namelist_get(&m->dirs, i);
                char *copy = mem_dup(path.p, path.n); /* the list moves when it grows */
                bool ok = copy ? look_through(m, str_make(copy, path.n), e) : err_nomem(e);

                mem_free(copy);
                if (!ok)
                        return false;
        }
        namelist_free(&m->dirs);
        atomic_store(&m->a.base.total_messages, m->files.n);
        return filelist_sort(&m->files, e);
}

/* ---- reading ---- */

static bool read_sequences(struct mh *m, struct str dir, struct err *e)
{
        char path[PATH_BYTES + 32];
        struct err why = { 0 };
        size_t n;
        char *text;
        bool ok;
        int fd;

        snprintf(path, sizeof path, "%.*s%s.mh_sequences", STR_FMT(dir), dir.n ? "/" : "");
        m->marked = false;
        fd = sys_open_beneath(m->root, str_of(path), O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &why);
        if (fd < 0) {
                if (why.code == ERR_ABSENT || archive_pass_over(&m->a, str_of(path), &why))
                        return true;
                *e = why;
                return false;
        }
        text = sys_read_file(fd, SEQUENCES_MAX, &n, &why);
        close(fd);
        if (!text) {
                if (why.code == ERR_NOMEM)
                        return err_nomem(e);
                err_set(&why, ERR_IO, "it cannot be read, so nobody knows which messages are new");
                return archive_pass_over(&m->a, str_of(path), &why);
        }
        m->marked = true;
        ok = sequences_read(&m->sequences, str_make(text, n), e);
        mem_free(text);
        return ok;
}

static bool enter_folder(struct mh *m, struct str dir, struct err *e)
{
        if (m->folder && str_eq(str_of(m->folder), dir))
                return true;
        mem_free(m->folder);
        if (!(m->folder = mem_dup(dir.p, dir.n)))
                return err_nomem(e);
        return read_sequences(m, dir, e);
}

static bool read_open(struct mh *m, struct str path, struct str name, struct origin *o, struct message **out, struct err *e)
{
        if (!m->sure && !archive_fill(&m->a, e))
                return false;
        if (!m->sure && archive_is_mbox(str_make(m->a.in.p, m->a.in.n)))
                return archive_enter(&m->a, mbox_from(&m->a.in, name, &m->a.lim, m->a.tmp_dir, e), path, e);
        return eml_read(&m->a, o, out, e);
}

static bool read_path(struct mh *m, struct str path, struct origin *o, struct message **out, struct err *e)
{
        struct err why = { 0 };
        enum archive_opened how;
        char *name;
        bool ok;

        if (!archive_open_file(&m->a, m->root, path, &o->time, &how, e))
                return false;
        if (how == FILE_GONE)
                err_set(&why, ERR_ABSENT, "it is not there any more");
        if (how != FILE_OPEN)
                return how == FILE_PASSED_OVER || archive_pass_over(&m->a, path, &why);
        if (!(name = archive_path(&m->a, path)))
                return err_nomem(e);
        o->source = str_of(name);
        o->uid = path;
        ok = read_open(m, path, o->source, o, out, &why);
        mem_free(name);
        if (ok || archive_pass_over(&m->a, path, &why))
                return true;
        *e = why;
        return err_in(e, "%.*s", STR_FMT(path));
}

static bool read_file(struct mh *m, struct str key, struct message **out, struct err *e)
{
        struct str dir = str_from(str_take(&key, '\0'), 1), number = str_from(key, 1);
        struct origin o = { .folder = dir.n ? dir : STR("") };
        char path[PATH_BYTES + 32], flags[8];
        uint64_t n;

        if (!str_to_u64(number, UINT64_MAX, &n) || !enter_folder(m, dir, e))
                return false;
        if (m->marked)
                o.flags = sequences_flags(&m->sequences, n, flags);
        snprintf(path, sizeof path, "%.*s%s%.*s", STR_FMT(dir), dir.n ? "/" : "", STR_FMT(number));
        return read_path(m, str_of(path), &o, out, e);
}

static bool next_within(struct mh *m, struct message **out, struct err *e)
{
        struct err why = { 0 };

        if (archive_within_next(&m->a, out, &why))
                return true;
        if (!archive_pass_over(&m->a, m->a.within->base.name, &why)) {
                *e = why;
                return false;
        }
        archive_leave(&m->a);
        return true;
}

static bool mh_next(struct source *s, struct message **out, struct err *e)
{
        struct mh *m = (struct mh *)s;
        struct str file;
        bool ok = true;

        *out = NULL;
        while (ok && !*out && !archive_stopped(&m->a)) {
                if (m->a.within)
                        ok = next_within(m, out, e);
                else if (!(ok = filelist_next(&m->files, &file, e)))
                        break;
                else if (!file.p)
                        return true;
                else
                        ok = read_file(m, file, out, e);
        }
        return ok || e->code == ERR_STOPPED || err_in(e, "%.*s", STR_FMT(s->name));
}

static void mh_free(struct source *s)
{
        struct mh *m = (struct mh *)s;

        archive_leave(&m->a);
        namelist_free(&m->dirs);
        filelist_free(&m->files);
        sequences_free(&m->sequences);
        mem_free(m->folder);
        if (m->root >= 0)
                close(m->root);
        archive_close(&m->a);
        mem_free(m);
}

static const struct source_ops mh_ops = { mh_next, archive_settle, archive_finish_files, mh_free };

struct source *mh_open(int dir, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct shape shape = { .root = dir };
        struct mh *m = mem_zero(sizeof *m);

        if (!m) {
                close(dir);
                err_nomem(e);
                return NULL;
        }
        m->root = dir;
        m->a.exact = true;
        if (archive_init(&m->a, &mh_ops, name, lim, tmp_dir, e) && namelist_each(dir, STR(""), note_shape, &shape, e)) {
                if (!shape.sequences && (!shape.numbers || shape.others))
                        err_set(e, ERR_ABSENT, "no MH folder");
                else if (m->sure = shape.sequences, find_files(m, e))
                        return &m->a.base;
        }
        err_in(e, "%.*s", STR_FMT(name));
        mh_free(&m->a.base);
        return NULL;
}
