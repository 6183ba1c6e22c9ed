/* What is compressed or packed (see unbundle.h), as a source. A single compressed file is what it would be without: an mbox, or one
 * message. Of a zip or tar each member is an mbox, a message, a file of a Maildir (in cur or new) or of an MH folder (named by a number):
 * flags and folder as there; or it is compressed or packed in its turn, and opened, NEST_MAX deep. Anything else is counted as
 * skipped. Members come in their order. One that cannot be read (encrypted, damaged) or is no regular file is left out with a
 * warning, and the others go on. */
#include <stdio.h>

#include "core/archive.h"
#include "core/foreign.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/packedmh.h"
#include "core/unbundle.h"

enum {
        NAME_MAX_BYTES = 4095, /* of a member's path; Linux makes no longer one */
        NEST_MAX = 3,          /* an mbox.gz in a zip in a tar; nobody keeps mail deeper */
};

struct bundle {
        struct archive a;
        struct unbundle *u;
        struct packedmh mh;
        bool any, ended;
        char *root;            /* the directory that the first member is, or lies in: a Maildir's folders are named below it */
        size_t root_n;
};

static bool leave_out(struct bundle *b, struct str name, const char *why)
{
        b->a.unread++;
        atomic_fetch_add(&b->a.base.skipped, 1);
        log_warn("%.*s: %.*s is left out: %s", STR_FMT(b->a.base.name), STR_FMT(name), why);
        return true;
}

static bool skip(struct bundle *b, struct str name, const char *why)
{
        atomic_fetch_add(&b->a.base.skipped, 1);
        log_info("%.*s: %.*s %s", STR_FMT(b->a.base.name), STR_FMT(name), why);
        return true;
}

static struct str without_dot(struct str path)
{
        while (str_starts(path, STR("./")) || str_starts(path, STR("/")))
                path = str_from(path, *path.p == '/' ? 1 : 2);
        return path;
}

/* "Maildir/cur/1": the packed thing is Maildir. "cur/1", ".Sent/cur/1", "a.eml": it lies in no directory. */
static bool note_root(struct bundle *b, struct str path, struct err *e)
{
        size_t n = str_find(path, '/');
        struct str top = str_first(path, n);

        if (b->any || path.n == 0 || str_eq(path, STR(".")))
                return true;
        b->any = true;
        if (n == path.n || *top.p == '.' || str_eq(top, STR("cur")) || str_eq(top, STR("new")) || str_eq(top, STR("tmp")))
                return true;
        if (!(b->root = mem_dup(top.p, top.n)))
                return err_nomem(e);
        b->root_n = top.n;
        return true;
}

static struct str below_root(const struct bundle *b, struct str dir)
{
        if (b->root_n && str_starts(dir, str_make(b->root, b->root_n)) && (dir.n == b->root_n || dir.p[b->root_n] == '/'))
                return str_from(dir, b->root_n + (dir.n > b->root_n));
        return dir;
}

static struct str file_of(struct str path)
{
        size_t slash = str_rfind(path, '/');

        return slash == path.n ? path : str_from(path, slash + 1);
}

/* The directory that cur or new lies in, below the root; false when the path is none of a Maildir. */
static bool maildir_path(const struct bundle *b, struct str path, struct str *folder)
{
        size_t slash = str_rfind(path, '/'), up;
        struct str dir = str_first(path, slash == path.n ? 0 : slash), last;

        up = str_rfind(dir, '/');
        last = up == dir.n ? dir : str_from(dir, up + 1);
        if (!str_eq(last, STR("cur")) && !str_eq(last, STR("new")))
                return false;
        dir = str_first(dir, up == dir.n ? 0 : up);
        *folder = below_root(b, dir);
        return true;
}

/* "export.zip: 2024/inbox.mbox"; the caller frees it */
static char *member_name(const struct bundle *b, struct str path)
{
        struct str name = b->a.base.name, between = path.p ? STR(": ") : STR("");
        char *p = mem_alloc(name.n + between.n + path.n + 1);

        if (!p)
                return NULL;
        memcpy(p, name.p, name.n);
        memcpy(p + name.n, between.p, between.n);
        memcpy(p + name.n + between.n, path.p ? path.p : "", path.n);
        p[name.n + between.n + path.n] = '\0';
        return p;
}

/* What a Maildir, or else an MH folder, says of the message by its place. */
static bool note_place(const struct bundle *b, struct str path, struct origin *o, char flags[27], struct buf *folder, struct err *e)
{
        struct str file = file_of(path), dir = str_first(path, path.n - file.n);
        const struct sequences *known = packedmh_find(&b->mh, dir);
        uint64_t number;

        if (maildir_path(b, path, &dir)) {
                o->flags = maildir_flags(file, flags);
                if (!maildir_folder(dir, folder, e))
                        return false;
                o->folder = buf_str(folder);
        } else if (packedmh_is_number(file, &number)) {
                if (known)
                        o->flags = sequences_flags(known, number, flags);
                o->folder = below_root(b, str_first(dir, dir.n - (dir.n > 0)));
        }
        return true;
}

static bool give_message(struct bundle *b, struct str name, struct str path, int64_t time, struct message **out, struct err *e)
{
        struct origin o = { .source = name, .folder = STR(""), .uid = path, .time = time };
        struct buf folder = BUF_INIT;
        char flags[27];
        bool ok = (!path.p || note_place(b, path, &o, flags, &folder, e)) && eml_read(&b->a, &o, out, e);

        buf_free(&folder);
        return ok;
}

static bool enter_packed(struct bundle *b, struct str name, struct str path, struct err *e)
{
        struct source *s = bundle_from(&b->a.in, name, &b->a.lim, b->a.tmp_dir, e);

        if (s)
                unbundle_within(((struct bundle *)s)->u, b->u);
        return archive_enter(&b->a, s, path, e);
}

static unsigned nesting(const struct archive *a)
{
        unsigned n = 0;

        for (; a; a = a->outer)
                n++;
        return n;
}

static bool in_mh_folder(const struct bundle *b, struct str path)
{
        struct str file = file_of(path);
        uint64_t number;

        return packedmh_is_number(file, &number) && packedmh_find(&b->mh, str_first(path, path.n - file.n));
}

/* A member whose first block is there. path {NULL,0}: a single compressed file, which is something in any case. */
static bool read_open(struct bundle *b, struct str name, struct str path, int64_t time, struct message **out, struct err *e)
{
        struct str head = str_make(b->a.in.p, b->a.in.n), dir;
        size_t at;

        b->a.exact = path.p && (maildir_path(b, path, &dir) || in_mh_folder(b, path));
        if (path.p && maildir_path(b, path, &dir))
                return archive_uncompress(&b->a, e) && give_message(b, name, path, time, out, e);
        if (!path.p && unbundle_is(head))
                return err_set(e, ERR_LIMIT, "it is packed or compressed more than once; unpack it first");
        if (path.p && unbundle_is(head) && !str_ends_nocase(path, STR(".eml")))
                return nesting(&b->a) < NEST_MAX ? enter_packed(b, name, path, e)
                                                 : err_set(e, ERR_LIMIT, "archives nest too deep; unpack it first");
        if (path.p ? archive_is_mbox(head) : archive_begins_mbox(head, &at) || head.n == 0)
                return archive_enter(&b->a, mbox_from(&b->a.in, name, &b->a.lim, b->a.tmp_dir, e), path, e);
        if (!path.p || str_ends_nocase(path, STR(".eml")) || archive_is_mail(head) || in_mh_folder(b, path))
                return give_message(b, name, path, time, out, e);
        if (foreign_holds_mail(head, path))
                return err_set(e, ERR_SYNTAX, "it is %s", foreign_why(head));
        return skip(b, path, "is no message");
}

static bool read_member(struct bundle *b, const struct unpack_member *m, struct str path, struct message **out, struct err *e)
{
        struct err why = { 0 };
        char *name = member_name(b, path);
        bool ok;

        if (!name)
                return err_nomem(e);
        gather_rewind(&b->a.gather);
        ok = slurp_open_reader(&b->a.in, unbundle_read, b->u, &why) && archive_fill(&b->a, &why) &&
             read_open(b, str_of(name), path, m->time, out, &why);
        mem_free(name);
        if (ok)
                return true;
        if ((why.code == ERR_IO || why.code == ERR_SYNTAX || why.code == ERR_LIMIT) && path.p && !unbundle_broken(b->u))
                return leave_out(b, path, why.text);
        *e = why;
        return !path.p ? false : err_in(e, "%.*s", STR_FMT(path));
}

static bool has_stopped(const void *archive)
{
        return archive_stopped(archive);
}

/* The bytes stand under a name that was read long ago, as a stream: nothing keeps all of them, as it would have to. */
static bool leave_out_link(struct bundle *b, struct str name, struct str to)
{
        char why[NAME_MAX_BYTES + 160];

        to = str_first(without_dot(to), NAME_MAX_BYTES);
        snprintf(why, sizeof why, "a hard link to %.*s, and a tar has no bytes of its own for one: unpack the tar and give the folder", STR_FMT(to));
        return leave_out(b, name, why);
}

static bool take_member(struct bundle *b, const struct unpack_member *m, struct message **out, struct err *e)
{
        struct str path = m->name.p ? str_first(without_dot(m->name), NAME_MAX_BYTES) : STR_NONE, file;
        uint64_t number;

        if (!path.p)
                return read_member(b, m, path, out, e);
        if (!note_root(b, path, e))
                return false;
        file = file_of(path);
        if ((packedmh_is_number(file, &number) || packedmh_is_sequences(file)) && !packedmh_look(&b->mh, b->u, has_stopped, &b->a, e))
                return false;
        if (m->kind == MEMBER_FILE && packedmh_is_sequences(file) && !m->encrypted)
                return packedmh_take(&b->mh, b->u, str_first(path, path.n - file.n), e);
        if (m->kind == MEMBER_DIRECTORY || str_starts(file, STR(".")))
                return true;
        if (m->linked.n > 0)
                return leave_out_link(b, path, m->linked);
        if (m->kind == MEMBER_OTHER)
                return leave_out(b, path, "a link, or not a regular file");
        if (m->encrypted)
                return leave_out(b, path, "it is encrypted");
        return read_member(b, m, path, out, e);
}

static bool next_within(struct bundle *b, struct message **out, struct err *e)
{
        struct err why = { 0 };

        if (archive_within_next(&b->a, out, &why))
                return true;
        if ((why.code == ERR_IO || why.code == ERR_SYNTAX || why.code == ERR_LIMIT) && !unbundle_broken(b->u)) {
                archive_leave(&b->a);
                b->a.unread++;
                atomic_fetch_add(&b->a.base.skipped, 1);
                log_warn("%s; what follows in it is left out", why.text);
                return true;
        }
        *e = why;
        return false;
}

static bool next_message(struct bundle *b, struct message **out, struct err *e)
{
        struct unpack_member m;

        while (!*out && !b->ended && !archive_stopped(&b->a)) {
                if (b->a.within) {
                        if (!next_within(b, out, e))
                                return false;
                } else if (!unbundle_next(b->u, &m, e))
                        return false;
                else if (m.end)
                        b->ended = true;
                else if (!take_member(b, &m, out, e))
                        return false;
                atomic_store(&b->a.base.done_bytes, unbundle_done(b->u));
        }
        return true;
}

static bool bundle_next(struct source *s, struct message **out, struct err *e)
{
        struct bundle *b = (struct bundle *)s;

        *out = NULL;
        if (next_message(b, out, e))
                return true;
        b->ended = true;
        if (e->code == ERR_STOPPED)
                return true;
        if (!str_starts(str_of(e->text), s->name)) /* as that of an mbox in it does */
                err_in(e, "%.*s", STR_FMT(s->name));
        return false;
}

static void bundle_free(struct source *s)
{
        struct bundle *b = (struct bundle *)s;

        archive_leave(&b->a);
        archive_close(&b->a);
        unbundle_close(b->u);
        packedmh_free(&b->mh);
        mem_free(b->root);
        mem_free(b);
}

static const struct source_ops bundle_ops = { bundle_next, archive_settle, archive_finish_files, bundle_free };

struct source *bundle_from(struct slurp *in, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e)
{
        struct bundle *b = mem_zero(sizeof *b);

        if (!b || !archive_init(&b->a, &bundle_ops, name, lim, tmp_dir, e)) {
                slurp_close(in);
                if (b)
                        bundle_free(&b->a.base);
                else
                        err_nomem(e);
                return NULL;
        }
        if (!(b->u = unbundle_open(in, e))) {
                err_in(e, "%.*s", STR_FMT(name));
                bundle_free(&b->a.base);
                return NULL;
        }
        atomic_store(&b->a.base.total_bytes, unbundle_size(b->u));
        return &b->a.base;
}
