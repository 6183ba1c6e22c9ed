#include "core/namelist.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"

static bool make_room(struct namelist *l, struct err *e)
{
        size_t cap = l->cap ? l->cap * 2 : 64;
        size_t *ends;

        if (l->n < l->cap)
                return true;
        if (!(ends = mem_resize(l->ends, cap * sizeof *ends)))
                return err_nomem(e);
        l->ends = ends;
        l->cap = cap;
        return true;
}

bool namelist_add_one(struct namelist *l, struct str name, struct err *e)
{
        if (!make_room(l, e))
                return false;
        buf_add_str(&l->text, name);
        if (!buf_ok(&l->text, e))
                return false;
        l->ends[l->n++] = l->text.n;
        return true;
}

bool namelist_add(struct namelist *l, struct str a, char between, struct str b, struct err *e)
{
        buf_add_str(&l->text, a);
        buf_add_char(&l->text, between);
        return namelist_add_one(l, b, e);
}

static struct str in_text(const struct namelist *l, size_t i)
{
        size_t from = i ? l->ends[i - 1] : 0;

        return str_make(l->text.p + from, l->ends[i] - from);
}

struct str namelist_get(const struct namelist *l, size_t i)
{
        return l->list ? l->list[i] : in_text(l, i);
}

void namelist_remove(struct namelist *l, size_t i)
{
        size_t from = i ? l->ends[i - 1] : 0, n = l->ends[i] - from;

        memmove(l->text.p + from, l->text.p + from + n, l->text.n - from - n);
        l->text.n -= n;
        l->n--;
        for (; i < l->n; i++)
                l->ends[i] = l->ends[i + 1] - n;
}

static int compare(const void *a, const void *b)
{
        return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

bool namelist_sort(struct namelist *l, struct err *e)
{
        if (l->n == 0)
                return true;
        if (!(l->list = mem_array(l->n, sizeof *l->list)))
                return err_nomem(e);
        for (size_t i = 0; i < l->n; i++)
                l->list[i] = in_text(l, i);
        qsort(l->list, l->n, sizeof *l->list, compare);
        return true;
}

void namelist_free(struct namelist *l)
{
        buf_free(&l->text);
        mem_free(l->ends);
        mem_free(l->list);
        *l = (struct namelist)NAMELIST_INIT;
}

/* Some file systems do not say the type in the directory. */
static unsigned char type_of(int dir, const struct dirent *d)
{
        struct stat st;

        if (d->d_type != DT_UNKNOWN)
                return d->d_type;
        return fstatat(dir, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? DT_REG : IFTODT(st.st_mode);
}

static bool each_entry(DIR *d, bool (*f)(void *ctx, struct str name, unsigned char type, struct err *e), void *ctx, struct err *e)
{
        const struct dirent *entry;

        while (errno = 0, (entry = readdir(d))) {
                struct str name = str_of(entry->d_name);

                if (str_eq(name, STR(".")) || str_eq(name, STR("..")))
                        continue;
                if (!f(ctx, name, type_of(dirfd(d), entry), e))
                        return false;
        }
        return errno == 0 || err_sys(e, ERR_IO, errno, "reading a directory");
}

bool namelist_each(int root, struct str path, bool (*f)(void *ctx, struct str name, unsigned char type, struct err *e), void *ctx,
                struct err *e)
{
        int fd = sys_open_beneath(root, path.n ? path : STR("."), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, e);
        DIR *d;
        bool ok;

        if (fd < 0)
                return false;
        if (!(d = fdopendir(fd))) {
                close(fd);
                return err_nomem(e);
        }
        ok = each_entry(d, f, ctx, e);
        closedir(d);
        return ok;
}
