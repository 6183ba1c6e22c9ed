/* Maildir: a folder is a directory with cur or new in it. Below the first one lie others, as Maildir++ has them (".Archive.2024" is
 * the folder Archive/2024; names in modified UTF-7 are read so) or as plain directories (Archive/2024/cur); the top need not be a folder itself. Folders come in the order
 * of their names, INBOX first, and messages in that of theirs, which is by time. Names with a leading dot are no messages; what else
 * is no regular file in cur or new is left out with a warning. Another program may rename a message while we read (new to cur, other
 * flags): those that are gone when their turn comes are looked for once more behind the others of their folder. A listing during which
 * that happens may have a message under both names, or under none: a directory that has changed since is listed again. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/filelist.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/mutf7.h"

enum {
        DEPTH_MAX = 32,    /* nested folders; honest trees have 8 */
        PATH_BYTES = 4095, /* Linux opens no longer one */
        LOOKS_MAX = 8,     /* times a folder is listed because messages were renamed meanwhile */
        PASSES_MAX = 4,    /* times its directories are read each time, because they change meanwhile */
        FRESH_S = 2,       /* a file system's clock may tick no faster, and ours is another */
};

struct maildir {
        struct archive a;
        int root;
        struct namelist dirs;     /* directories seen while looking for folders */
        struct namelist links;    /* and symbolic links to some */
        struct namelist folders;  /* "name\0path", sorted */
        size_t folder;         /* the current one, +1; 0 before the first */
        struct filelist files;    /* "file\0n" or "file\0c" of the current folder, sorted */
        struct namelist gone;     /* the base names of those that had been renamed when their turn came */
        struct buf given;         /* the entry of files whose turn it was last */
        struct buf last;          /* the base name of the one that was read last, */
        struct stat last_file;    /* and its file */
        unsigned looks;        /* times the folder was listed */
        uint64_t count;
};

/* While a directory is looked at. */
struct look {
        struct maildir *m;
        struct str path;
        bool descend, is_folder;
};

static size_t depth_of(struct str path)
{
        size_t n = path.n > 0;

        for (size_t i = 0; i < path.n; i++)
                n += path.p[i] == '/';
        return n;
}

static bool add_path(struct namelist *l, struct str dir, struct str name, struct err *e)
{
        return dir.n ? namelist_add(l, dir, '/', name, e) : namelist_add(l, str_first(name, 0), '/', name, e);
}

static bool note_link(struct maildir *m, struct str dir, struct str name, struct err *e)
{
        char path[PATH_BYTES + 1];
        struct stat st;
        int n = snprintf(path, sizeof path, "%.*s%s%.*s", STR_FMT(dir), dir.n ? "/" : "", STR_FMT(name));

        if (n < 0 || (size_t)n >= sizeof path || fstatat(m->root, path, &st, 0) < 0 || !S_ISDIR(st.st_mode))
                return true;
        return namelist_add_one(&m->links, str_make(path, (size_t)n), e);
}

/* A folder that is a link would be missed: links are never followed, so that they cannot lead out, or round in circles. */
static void tell_links(struct maildir *m)
{
        for (size_t i = 0; i < m->links.n; i++)
                log_warn("%.*s: %.*s is left out: a symbolic link to a directory; name that directory as a source of its own",
                         STR_FMT(m->a.base.name), STR_FMT(namelist_get(&m->links, i)));
        m->a.unread += m->links.n;
        atomic_fetch_add(&m->a.base.skipped, m->links.n);
        namelist_free(&m->links);
}

static bool look_at(void *ctx, struct str name, unsigned char type, struct err *e)
{
        struct look *k = ctx;

        if (type != DT_DIR)
                return type != DT_LNK || note_link(k->m, k->path, name, e);
        if (str_eq(name, STR("cur")) || str_eq(name, STR("new"))) {
                k->is_folder = true;
                return true;
        }
        if (!k->descend || str_eq(name, STR("tmp")))
                return true;
        if (k->path.n + name.n + 1 > PATH_BYTES || depth_of(k->path) >= DEPTH_MAX) {
                log_warn("%.*s: %.*s/%.*s is left out: folders nest too deep", STR_FMT(k->m->a.base.name), STR_FMT(k->path),
                         STR_FMT(name));
                k->m->a.unread++;
                return true;
        }
        return add_path(&k->m->dirs, k->path, name, e);
}

bool maildir_folder(struct str path, struct buf *out, struct err *e)
{
        while (path.n > 0) {
                struct str part = str_take(&path, '/');
                bool dotted = part.n > 0 && *part.p == '.';

                while (part.n > 0) {
                        struct str word = dotted ? str_take(&part, '.') : part;

                        if (!dotted)
                                part.n = 0;
                        if (word.n > 0 && out->n > 0)
                                buf_add_char(out, '/');
                        mutf7_decode(word, out);
                }
        }
        return buf_ok(out, e);
}

static bool add_folder(struct maildir *m, struct str path, struct err *e)
{
        struct buf name = BUF_INIT;
        bool ok = maildir_folder(path, &name, e) && namelist_add(&m->folders, buf_str(&name), '\0', path, e);

        buf_free(&name);
        return ok;
}

static bool count_file(void *ctx, struct str name, unsigned char type, struct err *e)
{
        struct maildir *m = ctx;

        (void)type, (void)e;
        m->count += *name.p != '.';
        return true;
}

/* dir/name: the caller frees it */
static char *join(struct str dir, struct str name)
{
        char *p = mem_alloc(dir.n + name.n + 2);
        size_t n = dir.n;

        if (!p)
                return NULL;
        if (n > 0) {
                memcpy(p, dir.p, n);
                p[n++] = '/';
        }
        memcpy(p + n, name.p, name.n);
        p[n + name.n] = '\0';
        return p;
}

/* f for what is in path/cur and path/new; that one of them is missing is no matter. */
static bool each_file(struct maildir *m, struct str path, bool (*f)(void *, struct str, unsigned char, struct err *), void *ctx,
                      struct str sub, struct err *e)
{
        struct err why = { 0 };
        char *dir = join(path, sub);
        bool ok;

        if (!dir)
                return err_nomem(e);
        ok = namelist_each(m->root, str_of(dir), f, ctx, &why);
        if (!ok && why.code != ERR_ABSENT) {
                if (why.code == ERR_NOMEM)
                        *e = why;
                else
                        ok = archive_pass_over(&m->a, str_of(dir), &why);
        } else
                ok = true;
        mem_free(dir);
        return ok;
}

static bool look_through(struct maildir *m, struct str path, struct err *e)
{
        struct str last = str_from(path, str_rfind(path, '/') < path.n ? str_rfind(path, '/') + 1 : 0);
        struct look k = { .m = m, .path = path, .descend = last.n == 0 || *last.p != '.' };
        struct err why = { 0 };

        if (!namelist_each(m->root, path, look_at, &k, &why) && !archive_pass_over(&m->a, path, &why)) {
                *e = why;
                return false;
        }
        return !k.is_folder || (add_folder(m, path, e) && each_file(m, path, count_file, m, STR("new"), e) &&
                                each_file(m, path, count_file, m, STR("cur"), e));
}

/* Fills in folders. No recursion: the list of directories grows behind the one that is looked at. */
static bool find_folders(struct maildir *m, struct err *e)
{
        if (!look_through(m, STR(""), e))
                return false;
        for (size_t i = 0; i < m->dirs.n; i++) {
                struct str path = str_from(namelist_get(&m->dirs, i), 0);
                char *copy; /* the list moves when it grows */
                bool ok;

                if (*path.p == '/')
                        path = str_from(path, 1);
                copy = mem_dup(path.p, path.n);
                ok = copy ? look_through(m, str_make(copy, path.n), e) : err_nomem(e);
                mem_free(copy);
                if (!ok)
                        return false;
        }
        namelist_free(&m->dirs);
        atomic_store(&m->a.base.total_messages, m->count);
        if (m->folders.n == 0)
                return err_set(e, ERR_ABSENT, "no Maildir in it");
        tell_links(m);
        return namelist_sort(&m->folders, e);
}

/* Where ":2," stands in a name, or its end; ';' and '!' stand for ':' where Windows was near. */
static size_t info_at(struct str file)
{
        for (size_t i = file.n; i-- > 0;)
                if ((file.p[i] == ':' || file.p[i] == ';' || file.p[i] == '!') && str_starts(str_from(file, i + 1), STR("2,")))
                        return i;
        return file.n;
}

static int compare(const void *a, const void *b)
{
        return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* The folder is listed for those only that were gone under their old name. */
static bool is_wanted(const struct maildir *m, struct str name)
{
        struct str key = str_first(name, info_at(name));

        return *name.p != '.' && (m->gone.n == 0 || bsearch(&key, m->gone.list, m->gone.n, sizeof key, compare));
}

static bool add_new(void *ctx, struct str name, unsigned char type, struct err *e)
{
        struct maildir *m = ctx;

        (void)type;
        return !is_wanted(m, name) || filelist_add(&m->files, name, '\0', STR("n"), e);
}

static bool add_cur(void *ctx, struct str name, unsigned char type, struct err *e)
{
        struct maildir *m = ctx;

        (void)type;
        return !is_wanted(m, name) || filelist_add(&m->files, name, '\0', STR("c"), e);
}

static struct str folder_path(const struct maildir *m, struct str *name)
{
        struct str entry = namelist_get(&m->folders, m->folder - 1);

        *name = str_take(&entry, '\0');
        return entry;
}

/* One of a folder's two directories while it is listed. */
struct listing {
        struct str sub;
        bool (*add)(void *, struct str, unsigned char, struct err *);
        struct timespec time; /* of its last change, before it was listed */
        bool fresh;           /* a change since may have left the same time */
        bool unreadable;      /* which has been said */
};

/* False: nothing has come, gone or been renamed in it since it was listed. */
static bool has_changed(struct maildir *m, struct str path, struct listing *l, bool *changed, struct err *e)
{
        char *dir = join(path, l->sub);
        struct timespec was = l->time, now;
        bool known = !l->fresh;
        struct stat st;

        if (!dir)
                return err_nomem(e);
        if (fstatat(m->root, dir, &st, AT_SYMLINK_NOFOLLOW) < 0)
                memset(&st, 0, sizeof st); /* not there; should it come, it has changed */
        mem_free(dir);
        clock_gettime(CLOCK_REALTIME, &now);
        l->time = st.st_mtim;
        l->fresh = st.st_mtim.tv_sec >= now.tv_sec - FRESH_S;
        *changed = !l->unreadable && (!known || was.tv_sec != l->time.tv_sec || was.tv_nsec != l->time.tv_nsec);
        return true;
}

static bool list(struct maildir *m, struct str path, struct listing *l, struct err *e)
{
        uint64_t unread = m->a.unread;
        bool ok = each_file(m, path, l->add, m, l->sub, e);

        l->unreadable = m->a.unread > unread;
        return ok;
}

/* new before cur: most messages move only that way, and whenever one does, it is seen. For other renames a pass in which nothing has
 * changed is complete. Where there is no end of changes (mail comes all the time) we go on nonetheless: what is in none of the
 * lists must have been renamed in each of the passes. Names that were there in several are in the list as often. */
static bool list_folder(struct maildir *m, struct str path, struct err *e)
{
        struct listing both[] = { { .sub = STR("new"), .add = add_new, .fresh = true }, { .sub = STR("cur"), .add = add_cur, .fresh = true } };
        bool any = true;

        for (unsigned pass = 0; any && pass < PASSES_MAX; pass++) {
                any = false;
                for (size_t i = 0; i < 2; i++) {
                        bool changed = false;

                        if (!has_changed(m, path, &both[i], &changed, e) || (changed && !list(m, path, &both[i], e)))
                                return false;
                        any |= changed;
                }
        }
        return true;
}

static bool load_folder(struct maildir *m, struct err *e)
{
        struct str name, path = folder_path(m, &name);

        filelist_free(&m->files);
        buf_clear(&m->given);
        buf_clear(&m->last);
        m->looks++;
        return list_folder(m, path, e) && filelist_sort(&m->files, e);
}

/* Lower case letters are keywords that mean something in their own folder only. */
struct str maildir_flags(struct str file, char out[27])
{
        bool have[26] = { false };
        size_t n = 0;

        for (size_t at = info_at(file) + 1; at < file.n; at++)
                if (file.p[at] >= 'A' && file.p[at] <= 'Z')
                        have[file.p[at] - 'A'] = true;
        for (int i = 0; i < 26; i++)
                if (have[i])
                        out[n++] = (char)('A' + i);
        return str_make(out, n);
}

/* Lists the folder again and takes of it what was gone under its old name. What is not found has been deleted. */
static bool look_again(struct maildir *m, struct err *e)
{
        bool ok = namelist_sort(&m->gone, e) && load_folder(m, e);

        namelist_free(&m->gone);
        return ok;
}

static struct str base_name(struct str path)
{
        struct str name = str_from(path, str_rfind(path, '/') + 1);

        return str_first(name, info_at(name));
}

/* A message that was renamed while its folder was listed may be in the list under both names: it is read once, whichever comes first. */
static bool note_read(struct maildir *m, struct str path, struct err *e)
{
        struct str name = base_name(path);

        buf_clear(&m->last);
        buf_add_str(&m->last, name);
        for (size_t i = m->gone.n; i > 0 && str_starts(namelist_get(&m->gone, i - 1), name); i--) /* what sorts between them begins so */
                if (namelist_get(&m->gone, i - 1).n == name.n)
                        namelist_remove(&m->gone, i - 1);
        return buf_ok(&m->last, e);
}

static bool note_gone(struct maildir *m, struct str path, struct err *e)
{
        struct str name = base_name(path);
        struct err why;

        if (name.n > 0 && str_eq(name, buf_str(&m->last)))
                return true;
        if (m->looks < LOOKS_MAX)
                return namelist_add_one(&m->gone, name, e);
        err_set(&why, ERR_ABSENT, "it is renamed again and again");
        return archive_pass_over(&m->a, path, &why);
}

/* Under another of its names, which it has been given again since. Another file of that base name is another message. */
static bool was_read(struct maildir *m, struct str path)
{
        struct stat st = { 0 };
        bool same = fstat(m->a.in.fd, &st) == 0 && st.st_dev == m->last_file.st_dev && st.st_ino == m->last_file.st_ino;

        m->last_file = st;
        return same && str_eq(base_name(path), buf_str(&m->last));
}

static bool read_path(struct maildir *m, struct str path, struct origin *o, struct message **out, struct err *e)
{
        struct err why = { 0 };
        enum archive_opened how;
        char *source;
        bool ok;

        if (!archive_open_file(&m->a, m->root, path, &o->time, &how, e))
                return false;
        if (how != FILE_OPEN)
                return how == FILE_PASSED_OVER || note_gone(m, path, e);
        if (was_read(m, path))
                return true;
        if (!note_read(m, path, e))
                return false;
        if (!(source = archive_path(&m->a, path)))
                return err_nomem(e);
        o->source = str_of(source);
        o->uid = path;
        ok = archive_uncompress(&m->a, &why) && eml_read(&m->a, o, out, &why);
        mem_free(source);
        if (ok || archive_pass_over(&m->a, path, &why))
                return true;
        *e = why;
        return err_in(e, "%.*s", STR_FMT(path));
}

/* The file's message, or *out NULL when it cannot be read. */
static bool read_file(struct maildir *m, struct str file, struct message **out, struct err *e)
{
        struct origin o = { 0 };
        struct str dir = folder_path(m, &o.folder), name = str_take(&file, '\0');
        char flags[27], *sub, *path;
        bool ok;

        o.flags = maildir_flags(name, flags);
        sub = join(str_eq(file, STR("n")) ? STR("new") : STR("cur"), name);
        path = sub ? join(dir, str_of(sub)) : NULL;
        ok = path ? read_path(m, str_of(path), &o, out, e) : err_nomem(e);
        mem_free(sub);
        mem_free(path);
        return ok;
}

static bool next_listing(struct maildir *m, struct err *e)
{
        if (m->gone.n > 0)
                return look_again(m, e);
        m->folder++;
        m->looks = 0;
        return load_folder(m, e);
}

/* {NULL,0}: no more in this listing. */
static bool next_file(struct maildir *m, struct str *file, struct err *e)
{
        do {
                if (!filelist_next(&m->files, file, e))
                        return false;
        } while (file->p && str_eq(*file, buf_str(&m->given)));
        buf_clear(&m->given);
        buf_add_str(&m->given, *file);
        return buf_ok(&m->given, e);
}

static bool maildir_next(struct source *s, struct message **out, struct err *e)
{
        struct maildir *m = (struct maildir *)s;

        *out = NULL;
        while (!*out && !archive_stopped(&m->a)) {
                struct str file;

                if (!next_file(m, &file, e) || (file.p && !read_file(m, file, out, e)))
                        return e->code == ERR_STOPPED || err_in(e, "%.*s", STR_FMT(s->name));
                if (file.p)
                        continue;
                if (m->gone.n == 0 && m->folder == m->folders.n)
                        return true;
                if (!next_listing(m, e))
                        return err_in(e, "%.*s", STR_FMT(s->name));
        }
        return true;
}

static void maildir_free(struct source *s)
{
        struct maildir *m = (struct maildir *)s;

        namelist_free(&m->dirs);
        namelist_free(&m->links);
        namelist_free(&m->folders);
        filelist_free(&m->files);
        namelist_free(&m->gone);
        buf_free(&m->given);
        buf_free(&m->last);
        if (m->root >= 0)
                close(m->root);
        archive_close(&m->a);
        mem_free(m);
}

static const struct source_ops maildir_ops = { maildir_next, archive_settle, archive_finish, maildir_free };

struct source *maildir_open(int dir, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct maildir *m = mem_zero(sizeof *m);

        if (!m) {
                close(dir);
                err_nomem(e);
                return NULL;
        }
        m->root = dir;
        m->a.exact = true;
        if (archive_init(&m->a, &maildir_ops, name, lim, tmp_dir, e) && find_folders(m, e))
                return &m->a.base;
        err_in(e, "%.*s", STR_FMT(name));
        maildir_free(&m->a.base);
        return NULL;
}
