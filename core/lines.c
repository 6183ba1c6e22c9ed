#include "core/lines.h"

#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/sys.h"
#include "core/tls.h"

enum {
        READ_BLOCK = 64 * 1024,
        SEND_AT = 32 * 1024,           /* queued bytes that are worth a call */
        READ_AHEAD = 4 * 1024 * 1024,  /* what a sender takes in while it cannot send: a pipelining server's answers */
        PROGRESS = 1024,               /* bytes that an answer must bring in the idle time */
        LOG_MAX = 4096,                /* longer writes are a message's body: the log gets their size */
        LOOK_MS = 20,                  /* between looks at a stream that cannot wait for both directions */
        STOP_MS = 3000,                /* the silence that we bear with once asked to stop */
        STOP_LOOK_MS = 200,            /* between looks whether it was asked */
};

struct lines {
        struct stream *s; /* NULL after an upgrade that failed */
        int idle;
        const atomic_bool *stop; /* NULL: nobody asks */
        struct buf in;
        size_t taken;   /* of in: given away already */
        size_t scanned; /* of what follows: known to hold no line end */
        struct buf out;
        size_t sent;
        bool masked, secret_queued;
        bool secret_sent; /* last: the answer may repeat it */
        bool ended; /* nothing more will come: after what is buffered, `why` is said */
        struct err why;
        bool in_answer;
        int64_t waited; /* ms spent waiting since `window` began to count */
        uint64_t window, bytes;
};

struct lines *lines_new(struct stream *s, int idle_ms, struct err *e)
{
        struct lines *l = s ? mem_zero(sizeof *l) : NULL;

        if (!l) {
                if (s)
                        err_nomem(e);
                stream_close(s);
                return NULL;
        }
        l->s = s;
        l->idle = idle_ms;
        return l;
}

void lines_free(struct lines *l)
{
        if (!l)
                return;
        stream_close(l->s);
        if (l->secret_queued)
                mem_wipe(l->out.p, l->out.cap);
        buf_free(&l->in);
        buf_free(&l->out);
        mem_free(l);
}

void lines_set_idle(struct lines *l, int idle_ms) { l->idle = idle_ms; }
void lines_set_stop(struct lines *l, const atomic_bool *stop) { l->stop = stop; }
bool lines_is_tls(const struct lines *l) { return l->s && tls_version(l->s); }
void lines_mask(struct lines *l, bool on) { l->masked = on; }
uint64_t lines_bytes_in(const struct lines *l) { return l->bytes; }
size_t lines_buffered(const struct lines *l) { return l->in.n - l->taken; }

static struct str buffered(const struct lines *l) { return str_from(buf_str(&l->in), l->taken); }

static bool lost(struct err *e) { return err_set(e, ERR_NET, "the server closed the connection"); }

/* ---- time ------------------------------------------------------------------------------------------------------ */

void lines_answer_begins(struct lines *l)
{
        l->in_answer = true;
        l->waited = 0;
        l->window = 0;
}

/* Only time spent waiting counts: a slow disk of ours is not the server's fault. */
static int64_t read_deadline(const struct lines *l, int64_t now)
{
        int64_t left = l->in_answer ? l->idle - l->waited : l->idle;

        return now + (left > 0 ? left : 0);
}

static void count_progress(struct lines *l, size_t got, int64_t waited)
{
        l->bytes += got;
        l->window += got;
        l->waited += waited;
        if (l->window >= PROGRESS)
                l->window = 0, l->waited = 0;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* The moved bytes are never more than those given away since the last move, so the cost stays linear. */
static void compact(struct lines *l)
{
        if (l->taken == l->in.n)
                buf_clear(&l->in);
        else if (l->taken >= l->in.n - l->taken)
                buf_drop(&l->in, l->taken);
        else
                return;
        l->taken = 0;
}

/* One read; what goes wrong, a time-out apart, is remembered. Bytes got, or -1. */
static ssize_t read_block(struct lines *l, int64_t deadline, struct err *e)
{
        ssize_t got;

        compact(l);
        if (!buf_reserve(&l->in, READ_BLOCK)) {
                err_nomem(e);
                return -1;
        }
        got = stream_read(l->s, l->in.p + l->in.n, READ_BLOCK, deadline, &l->why);
        if (got > 0) {
                l->in.n += (size_t)got;
                return got;
        }
        if (got == 0)
                lost(&l->why);
        l->ended = l->why.code != ERR_TIMEOUT;
        if (e)
                *e = l->why;
        return -1;
}

/* Waits are cut in short pieces, so that a stop is heard while a server says or takes nothing. */
static int64_t piece_of(const struct lines *l, int64_t deadline)
{
        int64_t look = sys_mono_ms() + STOP_LOOK_MS;

        return l->stop && look < deadline ? look : deadline;
}

static bool must_stop(const struct lines *l, int64_t quiet_since)
{
        return l->stop && atomic_load(l->stop) && sys_mono_ms() - quiet_since >= STOP_MS;
}

static ssize_t read_unless_stopped(struct lines *l, int64_t begun, int64_t deadline, struct err *e)
{
        for (;;) {
                int64_t piece = piece_of(l, deadline);
                ssize_t got = read_block(l, piece, e);
                if (got >= 0 || l->ended || l->why.code != ERR_TIMEOUT || piece == deadline)
                        return got;
                if (must_stop(l, begun)) {
                        err_set(e, ERR_STOPPED, "stopped while the server said nothing");
                        return -1;
                }
        }
}

static bool still_open(struct lines *l, struct err *e)
{
        if (l->s && !l->ended)
                return true;
        if (l->s && e)
                *e = l->why;
        return l->s ? false : lost(e);
}

static bool read_more(struct lines *l, struct err *e)
{
        int64_t now;
        ssize_t got;

        if (!still_open(l, e))
                return false;
        if (!lines_flush(l, e)) /* a server that has closed may have said why before */
                return e && e->code == ERR_NET && l->s && !l->ended && read_block(l, STREAM_NOW, NULL) > 0;
        if (!still_open(l, e))
                return false;
        now = sys_mono_ms();
        got = read_unless_stopped(l, now, read_deadline(l, now), e);
        if (got >= 0)
                count_progress(l, (size_t)got, sys_mono_ms() - now);
        else if (e && e->code == ERR_TIMEOUT)
                err_set(e, ERR_TIMEOUT, "the server sent %s for %d seconds", l->window > 0 ? "too little" : "nothing",
                        (l->idle + 999) / 1000);
        return got > 0;
}

/* Of an answer to a secret, the first word. */
static void log_heard(const struct lines *l, struct str line)
{
        size_t word = str_find(line, ' ');

        if (log_get_level() < LOG_DEBUG)
                return;
        if (l->secret_sent && word < line.n)
                log_debug("< %.*s ***", STR_FMT(str_first(line, word)));
        else
                log_debug("< %.*s", STR_FMT(line));
}

bool lines_read(struct lines *l, size_t max, struct str *line, bool *bare_lf, struct err *e)
{
        for (;;) {
                struct str have = buffered(l);
                size_t at = l->scanned + str_find(str_from(have, l->scanned), '\n');
                if (at > max + 1)
                        return err_set(e, ERR_PROTO, "a line is longer than %zu bytes", max);
                if (at < have.n) {
                        bool crlf = at > 0 && have.p[at - 1] == '\r';
                        *line = str_first(have, crlf ? at - 1 : at);
                        if (bare_lf)
                                *bare_lf = !crlf;
                        lines_take(l, at + 1);
                        break;
                }
                l->scanned = have.n;
                if (!read_more(l, e))
                        return false;
        }
        if (line->n > max)
                return err_set(e, ERR_PROTO, "a line is longer than %zu bytes", max);
        log_heard(l, *line);
        return true;
}

bool lines_fill(struct lines *l, struct str *have, struct err *e)
{
        if (lines_buffered(l) == 0 && !read_more(l, e))
                return false;
        *have = buffered(l);
        return true;
}

bool lines_poll(struct lines *l, struct str *have, struct err *e)
{
        struct err why;
        ssize_t got;

        if (lines_buffered(l) == 0) {
                if (!still_open(l, e))
                        return false;
                got = read_block(l, STREAM_NOW, &why);
                if (got > 0)
                        count_progress(l, (size_t)got, 0);
                if (got < 0 && why.code != ERR_TIMEOUT) {
                        if (e)
                                *e = why;
                        return false;
                }
        }
        *have = buffered(l);
        return true;
}

void lines_take(struct lines *l, size_t n)
{
        size_t most = lines_buffered(l);

        l->taken += n < most ? n : most;
        l->scanned = 0;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void log_sent(const struct lines *l, struct str s)
{
        if (log_get_level() < LOG_DEBUG)
                return;
        if (l->masked)
                log_debug("> ***");
        else if (s.n > LOG_MAX)
                log_debug("> (%zu bytes)", s.n);
        else
                while (s.n > 0) {
                        struct str line = str_take_line(&s);
                        log_debug("> %.*s", STR_FMT(line));
                }
}

/* Takes in what has come, so that the other side can go on sending and then hear us. False when there was nothing, no room, or no
 * more to come. */
static bool read_ahead(struct lines *l)
{
        ssize_t got;

        if (l->ended || lines_buffered(l) >= READ_AHEAD || !l->s->ops->ready(l->s))
                return false;
        got = read_block(l, STREAM_NOW, NULL);
        if (got > 0)
                count_progress(l, (size_t)got, 0);
        return got > 0;
}

static ssize_t write_some(struct lines *l, int64_t deadline, struct err *e)
{
        return l->s->ops->write(l->s, l->out.p + l->sent, l->out.n - l->sent, deadline, e);
}

/* Nothing could be sent at once: takes in what comes until something can be. Bytes sent, 0 after taking in, -1 on failure. */
static ssize_t write_waiting(struct lines *l, int64_t deadline, struct err *e)
{
        struct err why;
        ssize_t put;
        int64_t now;

        if (read_ahead(l))
                return 0;
        if (l->ended || lines_buffered(l) >= READ_AHEAD)
                return write_some(l, deadline, e); /* there is only one direction left to wait for */
        if (l->s->ops->wait) {
                l->s->ops->wait(l->s, true, deadline);
                if (sys_mono_ms() < deadline)
                        return 0;
        }
        now = sys_mono_ms();
        put = write_some(l, now + LOOK_MS < deadline ? now + LOOK_MS : deadline, &why);
        if (put < 0 && why.code == ERR_TIMEOUT && sys_mono_ms() < deadline)
                return 0;
        if (put < 0 && e)
                *e = why;
        return put;
}

static ssize_t write_unless_stopped(struct lines *l, int64_t quiet_since, int64_t deadline, struct err *e)
{
        int64_t piece = piece_of(l, deadline);
        struct err why;
        ssize_t put = write_waiting(l, piece, &why);

        if (put > 0)
                return put;
        if (put < 0 && (why.code != ERR_TIMEOUT || piece == deadline)) {
                if (e)
                        *e = why;
                return -1;
        }
        if (!must_stop(l, quiet_since))
                return 0;
        err_set(e, ERR_STOPPED, "stopped while the server took nothing");
        return -1;
}

/* The deadline moves with what the other side takes, and with what it sends while it takes nothing. */
static bool send_queued(struct lines *l, struct err *e)
{
        int64_t deadline = sys_mono_ms() + l->idle;
        uint64_t heard = l->bytes;
        struct err why;

        while (l->sent < l->out.n) {
                ssize_t put = write_some(l, STREAM_NOW, &why);
                if (put < 0 && why.code != ERR_TIMEOUT) {
                        if (e)
                                *e = why;
                        return false;
                }
                if (put < 0)
                        put = write_unless_stopped(l, deadline - l->idle, deadline, e);
                if (put < 0)
                        return false;
                l->sent += (size_t)put;
                if (put > 0 || l->bytes - heard >= PROGRESS) {
                        deadline = sys_mono_ms() + l->idle;
                        heard = l->bytes;
                }
        }
        return true;
}

bool lines_flush(struct lines *l, struct err *e)
{
        if (l->out.n == 0)
                return true;
        if (!l->s)
                return lost(e);
        if (!send_queued(l, e))
                return false;
        if (l->secret_queued)
                mem_wipe(l->out.p, l->out.cap);
        l->secret_queued = false;
        buf_clear(&l->out);
        l->sent = 0;
        return true;
}

bool lines_write(struct lines *l, struct str s, struct err *e)
{
        log_sent(l, s);
        l->secret_sent = l->masked;
        if (l->masked && s.n > 0) {
                /* No growing with a secret inside: what realloc leaves behind is not wiped. */
                if (!lines_flush(l, e))
                        return false;
                if (!buf_reserve(&l->out, s.n + SEND_AT))
                        return buf_ok(&l->out, e);
                l->secret_queued = true;
        }
        while (s.n > 0) {
                struct str some = str_first(s, SEND_AT);
                if (!buf_add_str(&l->out, some))
                        return buf_ok(&l->out, e);
                s = str_from(s, some.n);
                if (l->out.n >= SEND_AT && !lines_flush(l, e))
                        return false;
        }
        return true;
}

/* ---- STARTTLS -------------------------------------------------------------------------------------------------- */

/* Whatever came before the handshake came unprotected: somebody in between may have put it there to be taken for the first
 * answers after it. */
static bool nothing_waits(struct lines *l, struct err *e)
{
        struct str have = STR_NONE;

        if (!lines_poll(l, &have, e))
                return false;
        if (have.n > 0)
                return err_set(e, ERR_PROTO, "%zu bytes came before the TLS handshake, unprotected", have.n);
        return true;
}

bool lines_upgrade(struct lines *l, struct stream *(*wrap)(void *ctx, int fd, struct err *e), void *ctx, struct err *e)
{
        int fd;

        if (!nothing_waits(l, e) || !lines_flush(l, e)) /* in this order: a client may answer the go-ahead of ours at once */
                return false;
        fd = stream_release_fd(l->s);
        if (fd < 0)
                return err_set(e, ERR_USAGE, "this connection cannot change to TLS");
        l->s = wrap(ctx, fd, e);
        return l->s != NULL;
}
