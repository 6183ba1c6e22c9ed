/* Names that differ in case only are one, where the script says so (mail.root's caseless): for places that are, or will be copied to, a
 * file system without case. Each directory is read once; what this run promises is added. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/charset.h"
#include "core/mem.h"
#include "core/names_int.h"
#include "core/sys.h"
#include "core/unicode.h"

/* Bytes that are no UTF-8 are equal to themselves only. */
static struct str folded(struct str path, struct arena *a)
{
        struct buf b = BUF_INIT;
        struct str out = path;

        if (utf8_valid(path))
                out = unicode_caseless(path, &b) ? arena_str(a, buf_str(&b)) : STR_NONE;
        buf_free(&b);
        return out;
}

struct str names_key(const struct names *n, const struct root *r, struct str path, struct arena *a)
{
        if (n->spelled)
                path = folded(path, a);
        return path.p ? path_join(root_path(r), path, a) : STR_NONE;
}

/* The value is the path as it is spelled, below its root. */
static bool spell(struct names *n, struct str key, struct str path)
{
        char *copy = mem_dup(path.p, path.n); /* ends with a NUL */
        void *old = NULL;
        bool ok = copy && map_set(n->spelled, key, copy, &old);

        mem_free(ok ? old : copy);
        return ok;
}

bool names_spelled(struct names *n, struct str key, struct str path)
{
        return !n->spelled || spell(n, key, path);
}

static bool list_name(struct asking *q, struct str dir, struct str name)
{
        struct arena *a = arena_new(0);
        struct str path = a ? path_join(dir, name, a) : STR_NONE;
        struct str key = path.p ? names_key(q->n, q->r, path, a) : STR_NONE;
        bool ok = key.p && (map_get(q->n->spelled, key) || spell(q->n, key, path));

        arena_free(a);
        return ok || err_nomem(q->e);
}

static bool list_names(struct asking *q, struct str dir, DIR *d)
{
        struct dirent *entry;

        while ((errno = 0, entry = readdir(d)) != NULL)
                if (!str_eq(str_of(entry->d_name), STR(".")) && !str_eq(str_of(entry->d_name), STR("..")) &&
                    !list_name(q, dir, str_of(entry->d_name)))
                        return false;
        return errno == 0 || err_sys(q->e, ERR_IO, errno, "reading the directory \"%.*s\"", STR_FMT(dir));
}

/* One that is not there yet is as good as empty: whatever comes into it, this run promises. */
static bool list_dir(struct asking *q, struct str dir, struct str key)
{
        struct err why;
        int fd;
        DIR *d;
        bool ok;

        if (map_get(q->n->listed, key))
                return true;
        fd = sys_open_beneath(root_fd(q->r), dir.n ? dir : STR("."), O_RDONLY | O_DIRECTORY, 0, &why);
        if (fd < 0 && why.code != ERR_ABSENT)
                return err_set(q->e, why.code, "%s", why.text);
        d = fd >= 0 ? fdopendir(fd) : NULL;
        if (fd >= 0 && !d) {
                close(fd);
                return err_nomem(q->e);
        }
        ok = !d || list_names(q, dir, d);
        if (d)
                closedir(d);
        return ok && (map_set(q->n->listed, key, q->n, NULL) || err_nomem(q->e));
}

/* How `path` is spelled when it is known, by the listing or by a promise; {NULL,0} when it is not. */
static struct str known_spelling(struct asking *q, struct str path, struct str *key)
{
        const char *known;

        *key = names_key(q->n, q->r, path, q->a);
        known = key->p ? map_get(q->n->spelled, *key) : NULL;
        if (!key->p)
                err_nomem(q->e);
        return known ? arena_str(q->a, str_of(known)) : STR_NONE;
}

/* The directory as it is spelled, component by component; its own spelling from the first on that nobody has made or promised. */
static bool spelled_dir(struct asking *q, struct str path, struct str *out)
{
        struct str rest = path, key = names_key(q->n, q->r, STR(""), q->a), found;

        *out = STR("");
        if (!key.p)
                return err_nomem(q->e);
        while (rest.n > 0) {
                struct str next;

                if (!list_dir(q, *out, key))
                        return false;
                next = path_join(*out, str_take(&rest, '/'), q->a);
                found = next.p ? known_spelling(q, next, &key) : STR_NONE;
                if (!next.p || !key.p)
                        return err_nomem(q->e);
                if (!found.p && !spell(q->n, key, next))
                        return err_nomem(q->e);
                *out = found.p ? found : next;
        }
        return list_dir(q, *out, key);
}

bool names_spelling(struct asking *q, struct str path, struct str *own, struct str *out)
{
        struct str name, dir = path_dir(path, &name), key, found;
        struct stat st;

        *own = *out = path;
        if (!q->n->spelled)
                return true;
        if (!spelled_dir(q, dir, &dir))
                return false;
        *own = *out = path_join(dir, name, q->a);
        if (!own->p)
                return err_nomem(q->e);
        found = known_spelling(q, *own, &key);
        if (!key.p)
                return false;
        if (!found.p || str_eq(found, *own) || look_on_disk(q->r, *own, &st, NULL) != THERE_NOTHING)
                return true;
        if (map_get(q->n->promised, key) || look_on_disk(q->r, found, &st, NULL) != THERE_NOTHING)
                *out = found;
        return true;
}

bool names_caseless(struct names *n)
{
        n->spelled = map_new();
        n->listed = map_new();
        return n->spelled && n->listed;
}
