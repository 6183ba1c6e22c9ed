/* An mbox cut into messages: every byte of the file belongs to one message, its From_ line or the empty line behind it; size of blocks,
 * a pipe in place of a file, messages in memory or not change nothing. A file that is no mbox gets a From_ line in front. */
#include <sys/mman.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/log.h"
#include "core/slurp.h"
#include "tests/fuzz/fuzz.h"

enum { MANY = 512 };

struct got {
        size_t n;
        uint64_t offset[MANY];
        struct buf text[MANY];
        struct err e;
        bool ok;
};

static int file_of(struct str in)
{
        int fd = memfd_create("mbox", MFD_CLOEXEC);

        MUST(fd >= 0 && write(fd, in.p, in.n) == (ssize_t)in.n && lseek(fd, 0, SEEK_SET) == 0);
        return fd;
}

static int pipe_of(struct str in)
{
        int fd[2];

        MUST(in.n <= 60000 && pipe(fd) == 0 && write(fd[1], in.p, in.n) == (ssize_t)in.n);
        close(fd[1]);
        return fd[0];
}

static void keep(struct got *g, struct message *m)
{
        struct range r = message_range(m);
        struct buf *b = &g->text[g->n];
        struct err e;

        MUST(g->n < MANY);
        MUST(buf_reserve(b, (size_t)r.n + 1));
        while (b->n < r.n) {
                ssize_t n = range_read(r, b->n, b->p + b->n, (size_t)r.n - b->n, &e);

                MUST(n > 0);
                b->n += (size_t)n;
        }
        g->offset[g->n++] = message_origin(m)->offset;
        message_free(m);
}

static void get(struct got *g, int fd, const struct limits *lim)
{
        struct source *s = mbox_open(fd, STR("fuzz"), lim, "/tmp", &g->e);
        struct message *m = NULL;

        *g = (struct got){ 0 };
        MUST(s);
        while ((g->ok = s->ops->next(s, &m, &g->e)) && m && g->n < MANY)
                keep(g, m);
        if (m && g->n == MANY)
                message_free(m);
        source_free(s);
}

static void got_free(struct got *g)
{
        for (size_t i = 0; i < g->n; i++)
                buf_free(&g->text[i]);
}

/* What the message between two From_ lines should be, said in the plainest way; false where only a limit tells. quoted: a '>' comes
 * off before "From ". */
static bool plainly(struct str in, bool quoted, struct buf *out)
{
        buf_clear(out);
        while (in.n > 0) {
                struct str line = str_first(in, str_find(in, '\n') + 1), quotes = line;

                in = str_from(in, line.n);
                while (quotes.n > 0 && *quotes.p == '>')
                        quotes = str_from(quotes, 1);
                if (quoted && line.n - quotes.n > 200)
                        return false;
                if (quoted && quotes.n < line.n && str_starts(quotes, STR("From ")))
                        line = str_from(line, 1);
                if (str_ends(line, STR("\r\n")))
                        line.n -= 2, buf_add_str(out, line), buf_add_char(out, '\n');
                else
                        buf_add_str(out, line);
        }
        return true;
}

/* bare: the empty line behind it is missing. */
static bool is_message(struct str text, struct str want, bool bare)
{
        return bare && str_eq(text, want) ? true : want.n > 0 && want.p[want.n - 1] == '\n' && str_eq(text, str_first(want, want.n - 1));
}

static bool has_field(struct str in, struct str name) { return str_find_str_nocase(in, name) < in.n; }

static void check_nothing_lost(const struct got *g, struct str in)
{
        bool counted = has_field(in, STR("content-length")), bare = counted || has_field(in, STR("From -"));
        struct buf want = BUF_INIT;
        size_t first;

        if (has_field(in, STR("x-mozilla-status"))) /* what it calls deleted is left out */
                return;
        MUST(archive_begins_mbox(in, &first) && g->n > 0 && g->offset[0] == first);
        for (size_t i = 0; i < g->n; i++) {
                size_t from = (size_t)g->offset[i], to = i + 1 < g->n ? (size_t)g->offset[i + 1] : in.n;
                struct str text = buf_str(&g->text[i]), whole;
                bool last = i + 1 == g->n;

                MUST(from < to && to <= in.n);
                whole = str_make(in.p + from, to - from);
                MUST(str_starts(whole, STR("From ")));
                whole = str_from(whole, str_find(whole, '\n') + 1);
                if (!plainly(whole, true, &want) || is_message(text, buf_str(&want), last || bare))
                        continue;
                MUST(counted && plainly(whole, false, &want)); /* an mboxcl2, in which nothing is quoted */
                MUST(is_message(text, buf_str(&want), true));
        }
        buf_free(&want);
}

static void check_same(const struct got *a, const struct got *b)
{
        MUST(a->n == b->n && a->ok == b->ok);
        for (size_t i = 0; i < a->n; i++) {
                MUST(a->offset[i] == b->offset[i]);
                MUST_SAME(buf_str(&a->text[i]), buf_str(&b->text[i]));
        }
}

static void silent(void *ctx, enum log_level level, struct str line) { (void)ctx, (void)level, (void)line; }

static void check(struct str in)
{
        static struct got whole, blocks, piped; /* large for a stack */
        struct limits lim = limits_default;

        slurp_block = SLURP_BLOCK;
        get(&whole, file_of(in), &lim);
        slurp_block = SLURP_BLOCK_MIN;
        lim.memory_message = 300;
        get(&blocks, file_of(in), &lim);
        get(&piped, pipe_of(in), &lim);
        if (whole.ok && whole.n < MANY)
                check_nothing_lost(&whole, in);
        check_same(&whole, &blocks);
        check_same(&whole, &piped);
        got_free(&whole);
        got_free(&blocks);
        got_free(&piped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct buf with = BUF_INIT;
        size_t at;

        if (size > 50000)
                return 0;
        log_set_sink(silent, NULL);
        if (archive_begins_mbox(in, &at)) {
                check(in);
                return 0;
        }
        MUST(buf_add_str(&with, STR("From x Mon Nov 23 05:41:00 2026\n")) && buf_add_str(&with, in));
        check(buf_str(&with));
        buf_free(&with);
        return 0;
}
