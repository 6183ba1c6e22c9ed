/* One conversation of the POP3 server. Answers are sent when no whole command waits, so a pipelining client gets them in few writes. */
#include <openssl/crypto.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/base64.h"
#include "core/dot.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/server_int.h"
#include "core/sys.h"

enum {
        COMMAND_MAX = 8 << 10,   /* a SASL answer may be long; RFC 2449 has 255 for the rest */
        WRONG_MS = 500,          /* before a wrong password is answered */
        WRONG_MAX = 3,
        ERRORS_MAX = 100,        /* unknown commands in one session */
        BLOCK = 64 << 10,
};

struct talk {
        struct server *s;
        const struct server_options *o;
        struct lines *l;
        struct mailbox *box;      /* NULL before login */
        uint32_t *index;          /* of message number - 1 in the mailbox */
        bool *deleted;
        size_t n;
        char user[256];
        unsigned wrong, errors;
        bool over;
};

__attribute__((format(printf, 2, 3))) static bool say(struct talk *t, const char *fmt, ...)
{
        char line[512];
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(line, sizeof line - 2, fmt, ap);
        va_end(ap);
        if (n < 0)
                return false;
        if ((size_t)n > sizeof line - 3)
                n = sizeof line - 3;
        memcpy(line + n, "\r\n", 2);
        return lines_write(t->l, str_make(line, (size_t)n + 2), NULL);
}

static bool end_list(struct talk *t)
{
        return lines_write(t->l, STR(".\r\n"), NULL);
}

static bool guarded(const struct talk *t) { return t->o->tls && t->o->stls && !lines_is_tls(t->l); }

static bool do_capa(struct talk *t, struct str arg)
{
        bool stls = guarded(t) && !t->box, login = !guarded(t);

        return say(t, "+OK") && say(t, "TOP") && say(t, "UIDL") && say(t, "RESP-CODES") && say(t, "PIPELINING") &&
               say(t, "EXPIRE NEVER") &&
               (!login || (say(t, "USER") && say(t, "SASL PLAIN"))) && (!stls || say(t, "STLS")) &&
               say(t, "IMPLEMENTATION mailmill " MAILMILL_VERSION) && end_list(t);
}

static bool equal(struct str a, struct str b)
{
        return a.n == b.n && CRYPTO_memcmp(a.p, b.p, a.n) == 0;
}

static bool number_mail(struct talk *t)
{
        t->index = mem_array(t->box->n ? t->box->n : 1, sizeof *t->index);
        t->deleted = mem_array(t->box->n ? t->box->n : 1, sizeof *t->deleted);
        if (!t->index || !t->deleted)
                return false;
        for (size_t i = 0; i < t->box->n; i++)
                if (!t->box->mail[i].gone)
                        t->index[t->n++] = (uint32_t)i;
        return true;
}

static bool log_in(struct talk *t, struct str user, struct str password)
{
        bool name = equal(user, t->o->user), word = equal(password, t->o->password);
        struct mailbox *box;

        if (!name || !word) {
                if (!lines_flush(t->l, NULL))
                        return false;
                poll(NULL, 0, WRONG_MS);
                t->over = ++t->wrong >= WRONG_MAX;
                return say(t, "-ERR [AUTH] wrong user name or password");
        }
        if (!mailbox_lock(t->s, &box))
                return say(t, "-ERR [IN-USE] another session has the mailbox");
        t->box = box;
        if (!number_mail(t))
                return false;
        return say(t, "+OK %zu messages", t->n);
}

/* False, with the -ERR said. */
static bool may_log_in(struct talk *t)
{
        bool yes = !t->box && !guarded(t);

        if (!yes)
                t->over |= !say(t, "-ERR %s", t->box ? "already logged in" : "STLS comes first");
        return yes;
}

static bool do_user(struct talk *t, struct str arg)
{
        if (!may_log_in(t))
                return true;
        if (arg.n == 0 || arg.n >= sizeof t->user)
                return say(t, "-ERR a user name is missing or too long");
        memcpy(t->user, arg.p, arg.n);
        t->user[arg.n] = 0;
        return say(t, "+OK");
}

static bool do_pass(struct talk *t, struct str arg)
{
        if (!may_log_in(t))
                return true;
        if (!t->user[0])
                return say(t, "-ERR USER comes first");
        return log_in(t, str_of(t->user), arg);
}

static bool plain(struct talk *t, struct str response)
{
        struct base64 d = { 0 };
        char raw[COMMAND_MAX];
        struct str rest, user;
        size_t n;
        bool ok;

        if (base64_room(response.n) + 3 > sizeof raw)
                return say(t, "-ERR too long");
        n = base64_decode(&d, response, raw);
        n += base64_end(&d, raw + n);
        rest = str_make(raw, n);
        str_take(&rest, 0);
        user = str_take(&rest, 0);
        ok = log_in(t, user, rest);
        mem_wipe(raw, n);
        return ok;
}

static bool do_auth(struct talk *t, struct str arg)
{
        struct str mechanism = str_take(&arg, ' '), line;

        if (mechanism.n == 0)
                return say(t, "+OK") && say(t, "PLAIN") && end_list(t);
        if (!may_log_in(t))
                return true;
        if (!str_eq_nocase(mechanism, STR("PLAIN")))
                return say(t, "-ERR only PLAIN is known here");
        if (arg.n > 0)
                return plain(t, str_eq(arg, STR("=")) ? STR_NONE : arg);
        if (!say(t, "+ ") || !lines_flush(t->l, NULL) || !lines_read(t->l, COMMAND_MAX, &line, NULL, NULL))
                return false;
        return str_eq(line, STR("*")) ? say(t, "-ERR cancelled") : plain(t, line);
}

static struct stream *wrap(void *ctx, int fd, struct err *e)
{
        struct talk *t = ctx;

        return tls_accept(t->o->tls, fd, sys_mono_ms() + 30000, e);
}

/* RFC 2595: "the client MUST discard prior knowledge"; so do we. */
static bool do_stls(struct talk *t, struct str arg)
{
        struct err e = { 0 };

        if (!guarded(t) || t->box)
                return say(t, "-ERR not now");
        t->user[0] = 0;
        if (!say(t, "+OK begin TLS"))
                return false;
        if (lines_upgrade(t->l, wrap, t, &e))
                return true;
        log_info("serve: %s", e.text);
        return false;
}

/* ---- logged in */

static struct served *mail(struct talk *t, size_t i) { return &t->box->mail[t->index[i]]; }

static void totals(struct talk *t, size_t *n, uint64_t *octets)
{
        *n = 0;
        *octets = 0;
        for (size_t i = 0; i < t->n; i++)
                if (!t->deleted[i])
                        ++*n, *octets += mail(t, i)->octets;
}

/* False, with the -ERR said, when arg names no message that is there. */
static bool pick(struct talk *t, struct str arg, size_t *i)
{
        uint64_t n;

        if (str_to_u64(arg, UINT32_MAX, &n) && n >= 1 && n <= t->n && !t->deleted[n - 1]) {
                *i = (size_t)n - 1;
                return true;
        }
        t->over |= !say(t, "-ERR no such message");
        return false;
}

static bool do_stat(struct talk *t, struct str arg)
{
        uint64_t octets;
        size_t n;

        totals(t, &n, &octets);
        return say(t, "+OK %zu %llu", n, (unsigned long long)octets);
}

static bool list_one(struct talk *t, const char *before, size_t i, bool uids)
{
        if (uids)
                return say(t, "%s%zu %s", before, i + 1, mail(t, i)->uid);
        return say(t, "%s%zu %llu", before, i + 1, (unsigned long long)mail(t, i)->octets);
}

static bool listing(struct talk *t, struct str arg, bool uids)
{
        size_t i;
        bool ok;

        if (arg.n > 0)
                return !pick(t, arg, &i) || list_one(t, "+OK ", i, uids);
        ok = say(t, "+OK");
        for (i = 0; ok && i < t->n; i++)
                if (!t->deleted[i])
                        ok = list_one(t, "", i, uids);
        return ok && end_list(t);
}

static bool do_list(struct talk *t, struct str arg) { return listing(t, arg, false); }
static bool do_uidl(struct talk *t, struct str arg) { return listing(t, arg, true); }

static bool send_range(struct talk *t, struct range r)
{
        char *in = mem_alloc(BLOCK), *out = mem_alloc(3 * BLOCK + 8);
        struct stuff d = { 0 };
        uint64_t at = 0;
        struct err e = { 0 };
        bool ok = in && out;

        while (ok && at < r.n) {
                ssize_t n = range_read(r, at, in, BLOCK, &e);

                if (n <= 0)
                        log_error("serve: %s", e.text);
                ok = n > 0 && lines_write(t->l, str_make(out, dot_stuff(&d, str_make(in, (size_t)n), out)), NULL);
                at += ok ? (uint64_t)n : 0;
        }
        ok = ok && lines_write(t->l, str_make(out, dot_stuff_end(&d, out)), NULL);
        mem_free(in);
        mem_free(out);
        return ok;
}

static bool do_retr(struct talk *t, struct str arg)
{
        size_t i;

        if (!pick(t, arg, &i))
                return true;
        return say(t, "+OK %llu octets", (unsigned long long)mail(t, i)->octets) && send_range(t, mail(t, i)->range);
}

/* The header, the empty line, and that many lines of the body; the number of bytes. */
static bool top_length(struct range r, uint64_t lines, uint64_t *length, struct err *e)
{
        char block[16384];
        bool body = false, line_start = true;
        ssize_t n = 0;

        *length = 0;
        while ((n = range_read(r, *length, block, sizeof block, e)) > 0) {
                for (ssize_t i = 0; i < n; i++, ++*length) {
                        if (body && line_start && lines-- == 0)
                                return true;
                        if (!body && line_start && block[i] == '\n')
                                body = true;
                        line_start = block[i] == '\n';
                }
        }
        return n == 0;
}

static bool do_top(struct talk *t, struct str arg)
{
        struct str number = str_take(&arg, ' ');
        uint64_t lines, length;
        size_t i;

        if (!str_to_u64(str_trim(arg), UINT32_MAX, &lines))
                return say(t, "-ERR TOP message lines");
        if (!pick(t, number, &i))
                return true;
        if (!top_length(mail(t, i)->range, lines, &length, NULL))
                return false;
        return say(t, "+OK") && send_range(t, range_sub(mail(t, i)->range, 0, length));
}

static bool do_dele(struct talk *t, struct str arg)
{
        size_t i;

        if (!pick(t, arg, &i))
                return true;
        t->deleted[i] = true;
        return say(t, "+OK deleted");
}

static bool do_rset(struct talk *t, struct str arg)
{
        if (t->n > 0)
                memset(t->deleted, 0, t->n * sizeof *t->deleted);
        return say(t, "+OK");
}

static bool do_noop(struct talk *t, struct str arg) { return say(t, "+OK"); }

/* Deletions take place here and only here. */
static bool do_quit(struct talk *t, struct str arg)
{
        for (size_t i = 0; t->box && i < t->n; i++)
                if (t->deleted[i])
                        mail(t, i)->gone = true;
        t->over = true;
        return say(t, "+OK bye");
}

static const struct command {
        const char *word;
        bool (*run)(struct talk *t, struct str arg);
        bool transaction;
} commands[] = {
        { "CAPA", do_capa, false }, { "USER", do_user, false }, { "PASS", do_pass, false }, { "AUTH", do_auth, false },
        { "STLS", do_stls, false }, { "QUIT", do_quit, false }, { "STAT", do_stat, true },  { "LIST", do_list, true },
        { "UIDL", do_uidl, true },  { "RETR", do_retr, true },  { "TOP", do_top, true },    { "DELE", do_dele, true },
        { "RSET", do_rset, true },  { "NOOP", do_noop, true },
};

static bool obey(struct talk *t, struct str line)
{
        struct str arg = line, word = str_take(&arg, ' ');

        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
                if (!str_eq_nocase(word, str_of(commands[i].word)))
                        continue;
                if (commands[i].transaction && !t->box)
                        return say(t, "-ERR log in first");
                return commands[i].run(t, commands[i].run == do_pass ? arg : str_trim(arg));
        }
        t->over = ++t->errors >= ERRORS_MAX;
        return say(t, "-ERR unknown command");
}

/* Sends what is queued unless a whole command is there already. */
static bool settle_output(struct talk *t)
{
        struct str have;

        if (!lines_poll(t->l, &have, NULL))
                return lines_flush(t->l, NULL); /* its end shows when the next command is read */
        return str_find(have, '\n') < have.n || lines_flush(t->l, NULL);
}

void server_talk(struct server *s, struct lines *l)
{
        struct talk t = { .s = s, .o = server_options(s), .l = l };
        bool ok = say(&t, "+OK mailmill %s ready", MAILMILL_VERSION);

        while (ok && !t.over) {
                struct str line;

                ok = settle_output(&t) && lines_read(l, COMMAND_MAX, &line, NULL, NULL) && obey(&t, line);
        }
        if (!lines_flush(l, NULL))
                log_debug("serve: the client was gone before the last answer");
        if (t.box)
                mailbox_unlock(s);
        mem_free(t.index);
        mem_free(t.deleted);
}
