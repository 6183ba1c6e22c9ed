/* A folder of messages, one a file, with the folders below it. Which files are messages: those named *.eml whatever is in them, and
 * of the others those that begin with a header that mail has (something between "From:" and "MIME-Version:" in the first block). A
 * file that begins with a From_ line is read as the mbox it is, what is compressed or packed is opened, unless it is named *.eml.
 * Anything else is counted as skipped. Names with a leading dot are not looked at; symbolic links and whatever is no regular file are
 * left out with a warning. */
#include <dirent.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/filelist.h"
#include "core/foreign.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/unbundle.h"

enum {
        DEPTH_MAX = 64,    /* nested folders */
        PATH_BYTES = 4095, /* Linux opens no longer one */
};

struct folder {
        struct archive a;
        int root;
        struct namelist dirs;   /* directories to look through; every path here begins with '/' */
        struct filelist files;
};

struct look {
        struct folder *f;
        struct str path;
};

static bool too_deep(struct str path, struct str name)
{
        size_t depth = 0;

        for (size_t i = 0; i < path.n; i++)
                depth += path.p[i] == '/';
        return depth >= DEPTH_MAX || path.n + name.n + 1 > PATH_BYTES;
}

static bool leave_out(struct look *k, struct str name, const char *why)
{
        k->f->a.unread++;
        atomic_fetch_add(&k->f->a.base.skipped, 1);
        log_warn("%.*s%.*s/%.*s is left out: %s", STR_FMT(k->f->a.base.name), STR_FMT(k->path), STR_FMT(name), why);
        return true;
}

static bool look_at(void *ctx, struct str name, unsigned char type, struct err *e)
{
        struct look *k = ctx;

        if (*name.p == '.')
                return true;
        if (type != DT_DIR && type != DT_REG)
                return leave_out(k, name, type == DT_LNK ? "a symbolic link" : "not a regular file");
        if (too_deep(k->path, name))
                return leave_out(k, name, "folders nest too deep");
        return type == DT_DIR ? namelist_add(&k->f->dirs, k->path, '/', name, e) : filelist_add(&k->f->files, k->path, '/', name, e);
}

static bool look_through(struct folder *f, struct str path, struct err *e)
{
        struct look k = { f, path };
        struct err why = { 0 };

        if (namelist_each(f->root, str_from(path, 1), look_at, &k, &why) || archive_pass_over(&f->a, path, &why))
                return true;
        *e = why;
        return false;
}

/* No recursion: the list of directories grows behind the one that is looked at. */
static bool find_files(struct folder *f, struct err *e)
{
        if (!look_through(f, STR(""), e))
                return false;
        for (size_t i = 0; i < f->dirs.n; i++) {
                struct str path = namelist_get(&f->dirs, i);
                char *copy = mem_dup(path.p, path.n); /* the list moves when it grows */
                bool ok = copy ? look_through(f, str_make(copy, path.n), e) : err_nomem(e);

                mem_free(copy);
                if (!ok)
                        return false;
        }
        namelist_free(&f->dirs);
        atomic_store(&f->a.base.total_messages, f->files.n);
        return filelist_sort(&f->files, e);
}

static bool begin_archive(struct folder *f, struct str path, struct str name, bool bundle, struct err *e)
{
        struct source *s = bundle ? bundle_from(&f->a.in, name, &f->a.lim, f->a.tmp_dir, e)
                                  : mbox_from(&f->a.in, name, &f->a.lim, f->a.tmp_dir, e);

        return archive_enter(&f->a, s, path, e);
}

static bool next_within(struct folder *f, struct message **out, struct err *e)
{
        struct source *s = &f->a.within->base;
        struct err why = { 0 };
        uint64_t done = atomic_load(&s->done_bytes);

        if (!archive_within_next(&f->a, out, &why)) {
                if (!archive_pass_over(&f->a, s->name, &why)) {
                        *e = why;
                        return false;
                }
                archive_leave(&f->a);
        }
        if (f->a.within)
                atomic_fetch_add(&f->a.base.done_bytes, atomic_load(&s->done_bytes) - done);
        return true;
}

static bool read_open(struct folder *f, struct str path, struct str name, struct origin *o, struct message **out, struct err *e)
{
        bool eml = str_ends_nocase(path, STR(".eml"));
        struct str head;

        if (!archive_fill(&f->a, e))
                return false;
        head = str_make(f->a.in.p, f->a.in.n);
        if (!eml && (archive_is_mbox(head) || unbundle_is(head)))
                return begin_archive(f, path, name, unbundle_is(head), e);
        if (!eml && foreign_holds_mail(head, path))
                return err_set(e, ERR_SYNTAX, "it is %s", foreign_why(head));
        if (!eml && !archive_is_mail(head)) {
                atomic_fetch_add(&f->a.base.skipped, 1);
                log_info("%.*s is no message", STR_FMT(name));
                return true;
        }
        o->source = name;
        o->uid = path;
        return eml_read(&f->a, o, out, e);
}

static bool read_file(struct folder *f, struct str path, struct message **out, struct err *e)
{
        struct origin o = { .folder = STR("") };
        struct err why = { 0 };
        enum archive_opened how;
        char *name;
        bool ok;

        if (!archive_open_file(&f->a, f->root, path, &o.time, &how, e))
                return false;
        if (how == FILE_GONE)
                err_set(&why, ERR_ABSENT, "it is not there any more");
        if (how != FILE_OPEN)
                return how == FILE_PASSED_OVER || archive_pass_over(&f->a, path, &why);
        if (!(name = archive_path(&f->a, path)))
                return err_nomem(e);
        ok = read_open(f, path, str_of(name), &o, out, &why);
        mem_free(name);
        if (ok || archive_pass_over(&f->a, path, &why))
                return true;
        *e = why;
        return err_in(e, "%.*s", STR_FMT(path));
}

static bool folder_next(struct source *s, struct message **out, struct err *e)
{
        struct folder *f = (struct folder *)s;
        struct str file;
        bool ok = true;

        *out = NULL;
        while (ok && !*out && !archive_stopped(&f->a)) {
                if (f->a.within)
                        ok = next_within(f, out, e);
                else if (!(ok = filelist_next(&f->files, &file, e)))
                        break;
                else if (!file.p)
                        return true;
                else
                        ok = read_file(f, str_from(file, 1), out, e);
        }
        return ok || e->code == ERR_STOPPED || err_in(e, "%.*s", STR_FMT(s->name));
}

static void folder_free(struct source *s)
{
        struct folder *f = (struct folder *)s;

        archive_leave(&f->a);
        namelist_free(&f->dirs);
        filelist_free(&f->files);
        if (f->root >= 0)
                close(f->root);
        archive_close(&f->a);
        mem_free(f);
}

static const struct source_ops folder_ops = { folder_next, archive_settle, archive_finish_files, folder_free };

struct source *eml_folder_open(int dir, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct folder *f = mem_zero(sizeof *f);

        if (!f) {
                close(dir);
                err_nomem(e);
                return NULL;
        }
        f->root = dir;
        if (archive_init(&f->a, &folder_ops, name, lim, tmp_dir, e) && find_files(f, e))
                return &f->a.base;
        err_in(e, "%.*s", STR_FMT(name));
        folder_free(&f->a.base);
        return NULL;
}
