/* What the tests of archives share: a scratch directory, and a source read to its end. */
#ifndef TESTS_UNIT_ARCHIVES_H
#define TESTS_UNIT_ARCHIVES_H

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/slurp.h"
#include "core/source.h"
#include "tests/unit/test.h"

static char scratch[64];
static unsigned warnings;
static char warned[1024];

static inline void note_line(void *ctx, enum log_level level, struct str line)
{
        (void)ctx, (void)level;
        warnings++;
        snprintf(warned, sizeof warned, "%.*s", STR_FMT(line));
}

static inline int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
        (void)st, (void)flag, (void)ftw;
        return remove(path);
}

static inline void scratch_end(void)
{
        if (*scratch)
                nftw(scratch, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        *scratch = '\0';
}

static inline void scratch_begin(void)
{
        const char *tmp = getenv("TMPDIR");

        scratch_end();
        snprintf(scratch, sizeof scratch, "%s/mailmill-test-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(scratch))
                abort();
        log_set_sink(note_line, NULL);
        warnings = 0;
        *warned = '\0';
        atexit(scratch_end);
}

/* scratch/path, in a buffer that the second call after overwrites */
static inline const char *at(const char *path)
{
        static char p[2][4400];
        static int i;

        i = !i;
        snprintf(p[i], sizeof p[i], "%s/%s", scratch, path);
        return p[i];
}

static inline void write_file(const char *path, struct str content)
{
        char dir[4400];
        int fd;

        for (const char *s = path; (s = strchr(s, '/')); s++) {
                snprintf(dir, sizeof dir, "%s/%.*s", scratch, (int)(s - path), path);
                mkdir(dir, 0700);
        }
        fd = open(at(path), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || write(fd, content.p, content.n) != (ssize_t)content.n)
                abort();
        close(fd);
}

/* A pipe that holds all of content. */
static inline int pipe_with(struct str content)
{
        int fd[2];

        if (pipe(fd) < 0 || fcntl(fd[1], F_SETPIPE_SZ, 1 << 20) < 0 ||
            (content.n && write(fd[1], content.p, content.n) != (ssize_t)content.n))
                abort();
        close(fd[1]);
        return fd[0];
}

enum { GOT_MAX = 64 };
struct got {
        size_t n;
        struct message *m[GOT_MAX];
        char *text[GOT_MAX];
        bool in_file[GOT_MAX]; /* it was not in memory */
        bool ok, finished;
        struct err e, finish_e;
        uint64_t total_bytes, done_bytes, total_messages, done_messages, skipped;
};

static inline char *bytes_of(struct message *m, bool *in_file)
{
        struct range r = message_range(m);
        struct str s;
        struct err e;
        char *p = mem_alloc((size_t)r.n + 1);

        *in_file = !range_in_memory(r, &s);
        for (uint64_t n = 0; n < r.n;) {
                ssize_t got = range_read(r, n, p + n, (size_t)(r.n - n), &e);

                if (got <= 0)
                        abort();
                n += (uint64_t)got;
        }
        p[r.n] = '\0';
        return p;
}

/* Reads all of s and frees it. */
static inline void get(struct got *g, struct source *s)
{
        struct message *m = NULL;

        memset(g, 0, sizeof *g);
        if (!s)
                return;
        while ((g->ok = s->ops->next(s, &m, &g->e)) && m && g->n < GOT_MAX) {
                g->m[g->n] = m;
                g->text[g->n] = bytes_of(m, &g->in_file[g->n]);
                g->n++;
        }
        g->finished = s->ops->finish(s, &g->finish_e);
        g->total_bytes = s->total_bytes;
        g->done_bytes = s->done_bytes;
        g->total_messages = s->total_messages;
        g->done_messages = s->done_messages;
        g->skipped = s->skipped;
        source_free(s); /* messages outlive their source */
}

static inline void got_free(struct got *g)
{
        for (size_t i = 0; i < g->n; i++) {
                message_free(g->m[i]);
                mem_free(g->text[i]);
        }
        g->n = 0;
}

static inline struct str text_of(const struct got *g, size_t i)
{
        return i < g->n ? str_make(g->text[i], (size_t)message_size(g->m[i])) : STR("(no such message)");
}

static inline struct str subject_of(const struct got *g, size_t i)
{
        return i < g->n ? message_subject(g->m[i]) : STR("(no such message)");
}

/* Opens scratch/path as a user would. */
static inline struct source *open_source(const char *path, struct err *e)
{
        return source_open(str_of(at(path)), &limits_default, scratch, e);
}

#endif
