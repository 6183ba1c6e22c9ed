/* A folder of messages, one a file, with the folders below it. Which files are messages: those named *.eml whatever is in them, and of
 * the others those that begin with a header that mail has (something between "From:" and "MIME-Version:" in the first block). A file
 * that begins with a From_ line is read as the mbox it is, unless it is named *.eml. Anything else is counted as skipped. Names with a
 * leading dot are not looked at; symbolic links and whatever is no regular file are left out with a warning. */
#include <dirent.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/fromline.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/namelist.h"

enum {
        DEPTH_MAX = 64,    /* nested folders */
        PATH_BYTES = 4095, /* Linux opens no longer one */
        LINES_MAX = 200,   /* of a header that are searched for a known field */
};

struct folder {
        struct archive a;
        int root;
        struct namelist dirs;   /* directories to look through; every path here begins with '/' */
        struct namelist files;
        size_t file;         /* the next one */
        struct archive *mbox; /* a file that is an mbox, while it is read */
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
        return namelist_add(type == DT_DIR ? &k->f->dirs : &k->f->files, k->path, '/', name, e);
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
        return namelist_sort(&f->files, e);
}

static bool is_known_field(struct str line)
{
        static const char *const known[] = { "From", "To", "Date", "Subject", "Message-ID", "Received", "Return-Path", "Delivered-To",
                                             "MIME-Version", "Content-Type", "Cc", "Reply-To", "Sender" };
        struct str name = str_trim_right(str_first(line, str_find(line, ':')));

        for (size_t i = 0; name.n < line.n && i < sizeof known / sizeof *known; i++)
                if (str_eq_nocase(name, str_of(known[i])))
                        return true;
        return false;
}

static bool looks_like_mail(struct str head)
{
        if (str_starts(head, STR("\xef\xbb\xbf")))
                head = str_from(head, 3);
        for (int i = 0; i < LINES_MAX && head.n > 0; i++) {
                struct str line = str_take_line(&head);

                if (line.n == 0)
                        return false;
                if (is_known_field(line))
                        return true;
                if (!ascii_is_blank(*line.p) && str_find(line, ':') == line.n && !str_starts(line, STR("From ")) &&
                    !str_starts(line, STR(">From ")))
                        return false;
        }
        return false;
}

static bool begins_mbox(struct str head)
{
        struct fromline from;
        size_t at;

        if (!archive_begins_mbox(head, &at))
                return false;
        head = str_from(head, at);
        return fromline_parse(str_first(str_take_line(&head), FROMLINE_MAX), &from) && (from.dated || from.bare);
}

/* One source within another: its numbers continue ours. */
static bool begin_mbox(struct folder *f, struct str name, struct err *e)
{
        struct source *s = mbox_from(&f->a.in, name, &f->a.lim, f->a.tmp_dir, e);

        if (!s)
                return false;
        f->mbox = (struct archive *)s;
        f->mbox->number = f->a.number;
        return true;
}

static void end_mbox(struct folder *f)
{
        f->a.number = f->mbox->number;
        f->a.unread += f->mbox->unread;
        source_free(&f->mbox->base);
        f->mbox = NULL;
}

static bool next_of_mbox(struct folder *f, struct message **out, struct err *e)
{
        struct source *s = &f->mbox->base;
        struct err why = { 0 };
        uint64_t done = atomic_load(&s->done_bytes);

        if (!s->ops->next(s, out, &why) && !archive_pass_over(&f->a, s->name, &why)) {
                *e = why;
                return false;
        }
        atomic_fetch_add(&f->a.base.done_bytes, atomic_load(&s->done_bytes) - done);
        if (*out)
                atomic_fetch_add(&f->a.base.done_messages, 1);
        else
                end_mbox(f);
        return true;
}

static bool read_open(struct folder *f, struct str path, struct str name, struct origin *o, struct message **out, struct err *e)
{
        bool eml = str_ends_nocase(path, STR(".eml"));
        struct str head;

        while (f->a.in.n < slurp_block && !f->a.in.eof)
                if (!slurp_more(&f->a.in, 0, e))
                        return false;
        head = str_make(f->a.in.p, f->a.in.n);
        if (!eml && begins_mbox(head))
                return begin_mbox(f, name, e);
        if (!eml && !looks_like_mail(head)) {
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
        bool ok = true;

        *out = NULL;
        while (ok && !*out && !archive_stopped(&f->a)) {
                if (f->mbox)
                        ok = next_of_mbox(f, out, e);
                else if (f->file == f->files.n)
                        return true;
                else
                        ok = read_file(f, str_from(namelist_get(&f->files, f->file++), 1), out, e);
        }
        return ok || e->code == ERR_STOPPED || err_in(e, "%.*s", STR_FMT(s->name));
}

static void folder_free(struct source *s)
{
        struct folder *f = (struct folder *)s;

        if (f->mbox)
                end_mbox(f);
        namelist_free(&f->dirs);
        namelist_free(&f->files);
        if (f->root >= 0)
                close(f->root);
        archive_close(&f->a);
        mem_free(f);
}

static const struct source_ops folder_ops = { folder_next, archive_settle, archive_finish, folder_free };

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
