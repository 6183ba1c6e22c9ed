/* One multi-line answer: undone of its dots while it streams, into memory or, when large, into an unnamed file; and the framing guard. */
#include <fcntl.h>
#include <unistd.h>

#include "core/dot.h"
#include "core/header.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/pop3_int.h"
#include "core/sys.h"

enum {
        BLOCK = 64 << 10,
        SMALL_BLOCK = 4 << 10,   /* taken at a time when the size is not known */
        SPARE_MIN = 128,
        STALL_MS = 3000,         /* after ".CRLF" in the middle of a line, where an end is plausible */
};

void body_free(struct body *b)
{
        buf_free(&b->mem);
        if (b->fd >= 0)
                close(b->fd);
        b->fd = -1;
}

static bool open_tmp(struct fetch *f, int *fd, struct err *e)
{
        if (f->tmp_fd < 0)
                f->tmp_fd = sys_open(f->tmp_dir, O_RDONLY | O_DIRECTORY, 0, e);
        *fd = f->tmp_fd < 0 ? -1 : sys_tmpfile(f->tmp_fd, e);
        return *fd >= 0;
}

/* Memory holds no more than its limit: what has come goes to a file, and so does the rest. */
static bool spill(struct fetch *f, struct body *b, struct digest **d, struct err *e)
{
        if (b->fd < 0 && (!open_tmp(f, &b->fd, e) || (!(*d = digest_new()) && !err_nomem(e))))
                return false;
        digest_add(*d, b->mem.p, b->mem.n);
        if (!sys_write_all(b->fd, b->mem.p, b->mem.n, e))
                return err_in(e, "keeping a large message in %s", f->tmp_dir);
        b->mem.n = 0;
        return true;
}

/* Exchange: the final dot without a line end before it, then silence. Not where the listed size says that this dot belongs to the message, whose end
 * was merely lost; and whatever it is, a message that ends so stays on the server. */
static bool stalled_end(struct fetch *f, struct body *b, const struct dot *d, uint64_t size, bool tail, struct err *e)
{
        if (e->code != ERR_TIMEOUT || !tail || b->fd >= 0 || b->mem.n < 2 || d->wire < size - size / 4 ||
            d->wire - d->dots == size)
                return false;
        b->mem.n -= 2;
        b->mem.p[b->mem.n++] = '\n';
        b->n = b->mem.n;
        b->odd_end = true;
        lines_set_idle(f->p->l, f->acc->timeout_ms > 0 ? f->acc->timeout_ms : 300000);
        return true;
}

/* A lone dot that was not stuffed: more of the message follows where a status line would be due. Told apart only while commands go out
 * one at a time, and from unsolicited lines by the size that is still missing. */
static bool goes_on(struct fetch *f, struct body *b, struct dot *d, uint64_t size, struct err *e)
{
        struct str have;

        if (!f->single || d->wire + 3 >= size || !lines_poll(f->p->l, &have, e) || have.n == 0 || have.p[0] == '+' || have.p[0] == '-')
                return false;
        if (!buf_add(&b->mem, ".\n", 2))
                return false;
        b->n += 2;
        d->state = DOT_LINE_START;
        return true;
}

/* Servers announce a size without the dots they stuff: room for those, so that no buffer doubles for them. */
static uint64_t spare(uint64_t size)
{
        return size > 0 ? size / 32 + SPARE_MIN : 0;
}

/* How much of what has come to look at: as much as the message still needs, so that a small one takes a small block of memory. */
static size_t take_size(uint64_t size, const struct dot *d, size_t have)
{
        uint64_t want = size > d->wire ? size - d->wire + 5 : d->wire < size + spare(size) ? SPARE_MIN : SMALL_BLOCK;

        if (want > BLOCK)
                want = BLOCK;
        return have < want ? have : (size_t)want;
}

static bool too_large(struct fetch *f, const struct body *b, struct err *e)
{
        if (f->lim.message > 0 && b->n > f->lim.message)
                return !err_set(e, ERR_LIMIT, "larger than the limit of %llu bytes", (unsigned long long)f->lim.message);
        return false;
}

static bool take_block(struct fetch *f, struct body *b, struct dot *d, uint64_t size, struct digest **digest, bool *tail, struct err *e)
{
        struct str have;
        size_t n, wrote;

        if (f->s.stop && !f->finishing)
                return err_set(e, ERR_STOPPED, "stopped in the middle of a message");
        if (f->single)
                lines_set_idle(f->p->l, *tail ? STALL_MS : f->acc->timeout_ms > 0 ? f->acc->timeout_ms : 300000);
        if (!lines_fill(f->p->l, &have, e))
                return stalled_end(f, b, d, size, *tail, e) && (d->state = DOT_DONE, true);
        n = take_size(size, d, have.n);
        if ((b->fd >= 0 || b->mem.n + n > f->lim.memory_message) && !spill(f, b, digest, e))
                return false;
        if (!buf_reserve(&b->mem, n + 2))
                return err_nomem(e);
        n = dot_unstuff(d, str_first(have, n), b->mem.p + b->mem.n, &wrote);
        *tail = f->single && d->state == DOT_LINE_START && n == have.n && n >= 3 && memcmp(have.p + n - 3, ".\r\n", 3) == 0;
        lines_take(f->p->l, n);
        b->mem.n += wrote;
        b->n += wrote;
        return !too_large(f, b, e);
}

static bool finish_body(struct fetch *f, struct body *b, struct digest **d, struct err *e)
{
        if (b->fd < 0)
                return digest_of(buf_str(&b->mem), b->hash) || err_nomem(e);
        if (b->mem.n > 0 && !spill(f, b, d, e))
                return false;
        digest_end(*d, b->hash);
        *d = NULL;
        return true;
}

static bool stream(struct fetch *f, uint64_t size, struct body *b, struct err *e)
{
        struct dot d = { .bare_lf = f->p->bare_lf };
        struct digest *digest = NULL;
        bool tail = false, ok = true;

        if (size > 0 && size <= f->lim.memory_message)
                buf_reserve(&b->mem, (size_t)(size + spare(size)));
        while (ok && d.state != DOT_DONE) {
                ok = take_block(f, b, &d, size, &digest, &tail, e);
                if (ok && d.state == DOT_DONE && !b->odd_end)
                        goes_on(f, b, &d, size, e);
        }
        b->wire = d.wire;
        b->octets = d.wire - d.dots - (d.wire - d.dots < 2 ? d.wire - d.dots : d.bare_lf ? 1 : 2);
        ok = ok && finish_body(f, b, &digest, e);
        digest_free(digest);
        return ok;
}

/* A session that ends right here, or falls silent, takes nothing from the message before: that is seen when the next answer is read. */
static bool doubtful_next(struct fetch *f)
{
        struct str have, word;
        struct err e;

        if (f->fly_n > 1 ? !lines_fill(f->p->l, &have, &e) : !lines_poll(f->p->l, &have, &e))
                return false;
        if (have.n == 0 || f->fly_n == 1)
                return have.n > 0 && !f->single; /* one at a time, what comes unasked is thrown away before the next command */
        for (word = have; word.n > 0 && ascii_is_blank(word.p[0]);)
                word = str_from(word, 1);
        return !str_starts_nocase(STR("+OK"), str_first(word, 3)) && !str_starts_nocase(STR("-ERR"), str_first(word, 4));
}

/* A server that leaves out the line end before the final dot makes two answers look like one. */
static bool swallowed(const struct body *b)
{
        struct str s = buf_str(&b->mem);

        return b->fd < 0 && (str_find_str(s, STR(".\n+OK")) < s.n || str_find_str(s, STR(".\n-ERR")) < s.n);
}

static bool begins_with_status(const struct body *b)
{
        struct str s = buf_str(&b->mem);

        return b->fd < 0 && pop3_is_status(str_first(s, str_find(s, '\n')));
}

/* The line that stands before the message, and is none of it. */
static bool drop_status(struct body *b, struct err *e)
{
        buf_drop(&b->mem, str_find(buf_str(&b->mem), '\n') + 1);
        b->n = b->mem.n;
        return digest_of(buf_str(&b->mem), b->hash) || err_nomem(e);
}

bool body_read(struct fetch *f, uint64_t size, struct body *b, bool *doubtful, struct err *e)
{
        *b = (struct body){ .fd = -1 };
        *doubtful = false;
        lines_answer_begins(f->p->l);
        if (!stream(f, size, b, e)) {
                if (!f->single && (b->wire == 0 || begins_with_status(b)))
                        fetch_doubt(f); /* the status line may have been for another command */
                body_free(b);
                return false;
        }
        *doubtful = !b->odd_end && doubtful_next(f);
        if (begins_with_status(b)) { /* a second one */
                if (!f->single)
                        *doubtful = true;
                else if (!drop_status(b, e)) {
                        body_free(b);
                        return false;
                }
        }
        if (!f->single && swallowed(b))
                *doubtful = true;
        if (*doubtful)
                body_free(b);
        return true;
}

/* Without the empty line that ends it, as message_identity sees it. */
static struct str header_block(struct str s)
{
        size_t end = str_find_str(s, STR("\n\n"));

        if (s.n > 0 && s.p[0] == '\n')
                return str_first(s, 0);
        return end < s.n ? str_first(s, end + 1) : s;
}

static bool hash_header(struct fetch *f, struct str s, uint8_t hash[DIGEST_SIZE], struct err *e)
{
        struct arena *a = arena_new(0);
        struct header h;
        bool ok = a && header_split(&h, header_block(s), &f->lim, a);

        if (ok)
                header_identity(&h, hash);
        arena_free(a);
        return ok || err_nomem(e);
}

bool body_read_header(struct fetch *f, uint8_t hash[DIGEST_SIZE], bool *doubtful, struct err *e)
{
        struct body b;
        bool ok;

        memset(hash, 0, DIGEST_SIZE);
        if (!body_read(f, 0, &b, doubtful, e) || *doubtful)
                return *doubtful;
        ok = b.fd >= 0 || b.n == 0 || hash_header(f, buf_str(&b.mem), hash, e); /* an enormous header has no identity */
        body_free(&b);
        return ok;
}
