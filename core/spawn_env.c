#include <stdlib.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/spawn_in.h"
#include "core/sys.h"

/* What children get. */
static const char *const clean[] = { "PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "TMPDIR", NULL };

/* What stays in our own environment: no secret, and libraries or scripts look at it. A final '*' matches any rest. */
static const char *const harmless[] = {
        "PATH", "HOME", "LANG", "LANGUAGE", "LC_*", "TZ", "TZDIR", "USER", "LOGNAME", "SHELL", "TMPDIR", "PWD", "TERM", "TERMINFO",
        "COLORTERM", "NO_COLOR", "CLICOLOR*", "COLUMNS", "LINES", "XDG_*", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "INVOCATION_ID",
        "JOURNAL_STREAM", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF", "MAGIC", "RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES",
        "SOURCE_DATE_EPOCH", "MALLOC_*", "GLIBC_TUNABLES", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", NULL
};

static char *hidden; /* locked: "NAME=value\0…", ended by an empty string; NULL before spawn_hide_environment */
static size_t hidden_size;

static bool listed(struct str name, const char *const *list)
{
        for (; *list; list++) {
                struct str want = str_of(*list);
                if (str_ends(want, STR("*")) ? str_starts(name, str_first(want, want.n - 1)) : str_eq(name, want))
                        return true;
        }
        return false;
}

static struct str name_of(const char *entry) { return str_first(str_of(entry), strcspn(entry, "=")); }

/* ---- the program's own ----------------------------------------------------------------------------------------- */

/* The next entry after `at` (NULL: the first) of what the program was started with. */
static const char *next_hidden(const char *at)
{
        at = at ? at + strlen(at) + 1 : hidden;
        return *at ? at : NULL;
}

static bool copy_to_locked(size_t *count, struct err *e)
{
        char *at;

        hidden_size = 1;
        for (char **v = environ; v && *v; v++, ++*count)
                hidden_size += strlen(*v) + 1;
        hidden = at = sys_locked_new(hidden_size);
        if (!hidden)
                return err_nomem(e);
        for (char **v = environ; v && *v; v++)
                at = stpcpy(at, *v) + 1;
        return true;
}

bool spawn_hide_environment(struct err *e)
{
        /* the block that was ours, and its texts: setenv makes another and puts others in their places */
        static char **own __attribute__((used)), **texts __attribute__((used));
        size_t count = 0, kept = 0;

        if (hidden)
                return true;
        if (!copy_to_locked(&count, e))
                return false;
        own = mem_array(count + 1, sizeof *own); /* live as long as the program */
        texts = mem_array(count + 1, sizeof *texts);
        if (!own || !texts)
                return err_nomem(e);
        for (size_t i = 0; i < count; i++) {
                size_t n = strlen(environ[i]);
                if (listed(name_of(environ[i]), harmless) && !(own[kept++] = mem_dup(environ[i], n)))
                        return err_nomem(e);
                mem_wipe(environ[i], n); /* the block that /proc/PID/environ shows */
        }
        memcpy(texts, own, count * sizeof *own);
        environ = own;
        return true;
}

bool env_find(struct str name, struct str *value)
{
        const char *found = NULL;

        if (name.n == 0 || memchr(name.p, '=', name.n) || memchr(name.p, '\0', name.n))
                return false;
        if (hidden) {
                for (const char *at = NULL; !found && (at = next_hidden(at)) != NULL;)
                        found = str_eq(name_of(at), name) ? at : NULL;
        } else {
                for (char **v = environ; !found && v && *v; v++)
                        found = str_eq(name_of(*v), name) ? *v : NULL;
        }
        if (!found || found[name.n] != '=')
                return false;
        *value = str_of(found + name.n + 1);
        return true;
}

/* ---- a child's ------------------------------------------------------------------------------------------------- */

struct env_builder {
        char **v;
        size_t count, max;
        char *at;
};

static bool has(const char *const *list, struct str name)
{
        for (; list && *list; list++) {
                if (str_eq(name_of(*list), name))
                        return true;
        }
        return false;
}

static void put(struct env_builder *b, const char *entry)
{
        b->v[b->count++] = b->at;
        b->at = stpcpy(b->at, entry) + 1;
}

/* Calls f for what the child inherits: of the hidden block when all is wanted, else of our own. */
static void each_inherited(const char *const *more, bool keep, void (*f)(struct env_builder *, const char *), struct env_builder *b)
{
        if (keep && hidden) {
                for (const char *at = NULL; (at = next_hidden(at)) != NULL;) {
                        if (!has(more, name_of(at)))
                                f(b, at);
                }
                return;
        }
        for (char **v = environ; v && *v; v++) {
                if ((keep || listed(name_of(*v), clean)) && !has(more, name_of(*v)))
                        f(b, *v);
        }
}

static void measure(struct env_builder *b, const char *entry)
{
        b->count++;
        b->max += strlen(entry) + 1;
}

/* The strings stand behind the pointers, and the whole size before them, so that it can be wiped. */
char **env_for_child(const char *const *more, bool keep, struct err *e)
{
        struct env_builder size = { 0 }, b = { 0 };
        size_t bytes, *head;

        each_inherited(more, keep, measure, &size);
        for (const char *const *m = more; m && *m; m++)
                measure(&size, *m);
        bytes = sizeof *head + (size.count + 1) * sizeof *b.v + size.max;
        head = mem_zero(bytes);
        if (!head) {
                err_nomem(e);
                return NULL;
        }
        *head = bytes;
        b.v = (char **)(head + 1);
        b.at = (char *)(b.v + size.count + 1);
        each_inherited(more, keep, put, &b);
        for (const char *const *m = more; m && *m; m++)
                put(&b, *m);
        return b.v;
}

void env_free(char **env)
{
        size_t *head = env ? (size_t *)(void *)env - 1 : NULL;

        if (head)
                mem_wipe(head, *head);
        mem_free(head);
}
