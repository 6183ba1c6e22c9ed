#include "core/sniff.h"

#include <magic.h>
#include <pthread.h>

/* One handle for all threads: it takes 8 MiB and some milliseconds to load, and sniffing is seldom. It stays for the life of the
 * process. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static magic_t handle;

static bool load(struct err *e)
{
        magic_t m;

        if (handle)
                return true;
        m = magic_open(MAGIC_MIME_TYPE | MAGIC_NO_CHECK_COMPRESS);
        if (!m)
                return err_nomem(e);
        if (magic_load(m, NULL) != 0) {
                err_set(e, ERR_IO, "reading libmagic's database: %s", magic_error(m) ? magic_error(m) : "unknown error");
                magic_close(m);
                return false;
        }
        handle = m;
        return true;
}

struct str sniff(struct str bytes, struct arena *a, struct err *e)
{
        struct str s = STR_NONE;
        const char *type;

        if (!bytes.p)
                bytes = STR("");
        pthread_mutex_lock(&lock);
        if (load(e)) {
                type = magic_buffer(handle, bytes.p, bytes.n);
                s = arena_str(a, str_of(type ? type : "application/octet-stream"));
                if (!s.p)
                        err_nomem(e);
        }
        pthread_mutex_unlock(&lock);
        return s;
}
