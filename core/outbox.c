/* Carrying out what was promised: one item after the other, its outcome committed before the next is begun. */
#include "core/outbox.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/spawn.h"
#include "core/staging.h"
#include "core/sys.h"

enum {
        RETRY_FIRST = 60, RETRY_MOST = 4 * 3600, /* seconds */
        GIVE_UP = 5 * 24 * 3600,
        RECIPIENTS_MAX = 100,                    /* in one transaction: RFC 5321 4.5.3.1.8 promises that many */
        LOST_MAX = 3,                            /* sessions lost in a row before a smarthost is left alone for this run */
        COMMAND_SECONDS = 600,
};

#define UNKNOWN_SO_FAR STR("unknown: it was begun, and nothing was heard of its end")

/* A smarthost and the session with it. */
struct link {
        const struct smarthost *host;
        struct smtp *s;
        bool used;           /* by a mail before: it may have been closed for being idle */
        unsigned lost;       /* sessions, one after the other */
        bool stopped, fatal; /* no more tries in this run; and not the mail's fault, so that nothing is counted against it */
        struct err why;
};

struct sender {
        struct ledger *l;
        struct link *links;
        size_t n;
        bool all;
        int64_t now;
        int64_t *ids;
        size_t id_n, id_room;
        bool nomem;
        struct outbox_result *out;
};

/* One item in hand. */
struct job {
        struct sender *o;
        struct outbox_item item;
        struct arena *a;
        size_t accepted, refused, later, unknown; /* recipients, in this try */
        struct str answer;                        /* the one that speaks for the item */
};

/* ---- what went wrong ---- */

static int rank(enum err_code c)
{
        switch (c) {
        case ERR_NONE: return 0;
        case ERR_TEMP: return 1;
        case ERR_NET:
        case ERR_TIMEOUT:
        case ERR_PROTO: return 2;
        case ERR_REFUSED: return 3;
        case ERR_TLS: return 4;
        case ERR_AUTH: return 5;
        default: return 6;
        }
}

static void note_worst(struct sender *o, enum err_code c)
{
        if (rank(c) > rank(o->out->worst))
                o->out->worst = c;
}

/* ---- what becomes of an item ---- */

static int64_t delay(unsigned tries)
{
        int64_t d = RETRY_FIRST;

        while (tries-- > 0 && d < RETRY_MOST)
                d *= 2;
        return d < RETRY_MOST ? d : RETRY_MOST;
}

static bool bury(struct job *j, struct err *e)
{
        j->o->out->dead++;
        log_error("outbox %lld: given up, kept as a dead letter (%.*s): %.*s", (long long)j->item.id, STR_FMT(j->item.subject), STR_FMT(j->answer));
        return ledger_outbox_retry(j->o->l, j->item.id, OUTBOX_DEAD, j->o->now, j->answer, e);
}

static bool try_later(struct job *j, struct err *e)
{
        int64_t next = j->o->now + delay(j->item.tries);

        if (j->o->now - j->item.created >= GIVE_UP)
                return bury(j, e);
        j->o->out->later++;
        log_warn("outbox %lld: again in %lld min: %.*s", (long long)j->item.id, (long long)(next - j->o->now) / 60, STR_FMT(j->answer));
        return ledger_outbox_retry(j->o->l, j->item.id, OUTBOX_READY, next, j->answer, e);
}

static bool done(struct job *j, struct err *e)
{
        if (j->item.kind == OUTBOX_MAIL)
                j->o->out->sent++;
        else
                j->o->out->commands++;
        return ledger_outbox_remove(j->o->l, j->item.id, e);
}

/* A try that may not be repeated counts as failed until it is known how it went; a crash then leaves a dead letter, not a second try. */
static bool begin_only_try(struct job *j, struct err *e)
{
        return !j->item.at_most_once || ledger_outbox_state(j->o->l, j->item.id, OUTBOX_DEAD, UNKNOWN_SO_FAR, e);
}

/* ---- mail ---- */

/* A wrong password, certificate or setting: no time will mend it. */
static bool is_ours(enum err_code c)
{
        return c != ERR_NET && c != ERR_TIMEOUT && c != ERR_TEMP && c != ERR_PROTO;
}

static void stop(struct sender *o, struct link *k, const struct err *why)
{
        k->stopped = true;
        k->fatal = is_ours(why->code);
        k->why = *why;
        note_worst(o, why->code);
        if (k->fatal)
                log_error("smarthost %.*s: %s; its mail stays in the outbox", STR_FMT(k->host->name), why->text);
        else
                log_warn("smarthost %.*s: %s", STR_FMT(k->host->name), why->text);
}

static void hang_up(struct link *k)
{
        smtp_close(k->s);
        k->s = NULL;
}

static bool have_session(struct sender *o, struct link *k)
{
        struct err why;

        if (k->s && !smtp_usable(k->s))
                hang_up(k);
        if (k->s || k->stopped)
                return k->s && !k->stopped;
        k->s = smtp_connect(k->host, &why);
        k->used = false;
        if (!k->s)
                stop(o, k, &why);
        return k->s;
}

static bool any_known(const struct smtp_recipient *to, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (to[i].result != SMTP_OPEN)
                        return true;
        return false;
}

static bool is_lost(const struct link *k, bool ok) { return !ok && !smtp_usable(k->s); }

/* Recipients to[0..n) of the job's mail. A server may have closed an idle session; that is no failure of this mail. False: this machine failed. */
static bool send_some(struct job *j, struct link *k, struct smtp_recipient *to, size_t n, struct range mail, struct err *e)
{
        struct err why = { 0 };
        bool used = k->used, ok;

        ok = smtp_send(k->s, j->item.sender, to, n, mail, j->a, &why);
        if (used && is_lost(k, ok) && why.code == ERR_NET && !any_known(to, n)) {
                log_debug("outbox %lld: %s; connecting again", (long long)j->item.id, why.text);
                if (!have_session(j->o, k)) {
                        j->answer = arena_str(j->a, str_of(k->why.text));
                        return true;
                }
                ok = smtp_send(k->s, j->item.sender, to, n, mail, j->a, &why);
        }
        k->used = true;
        if (!ok && (why.code == ERR_IO || why.code == ERR_NOMEM || why.code == ERR_FULL)) {
                if (e)
                        *e = why;
                return false;
        }
        if (!ok) {
                note_worst(j->o, why.code);
                j->answer = arena_str(j->a, str_of(why.text));
        }
        k->lost = is_lost(k, ok) ? k->lost + 1 : 0;
        if (k->lost >= LOST_MAX)
                stop(j->o, k, &why);
        return true;
}

/* One recipient's answer, counted, said, and written down. */
static bool record(struct job *j, const struct smtp_recipient *to, struct err *e)
{
        bool final = to->result == SMTP_ACCEPTED || to->result == SMTP_REFUSED || (to->result == SMTP_UNKNOWN && j->item.at_most_once);
        struct str answer = to->answer;

        switch (to->result) {
        case SMTP_OPEN:
                j->later++;
                return true;
        case SMTP_ACCEPTED:
                j->accepted++;
                log_info("outbox %lld: %.*s: %.*s", (long long)j->item.id, STR_FMT(to->address), STR_FMT(answer));
                break;
        case SMTP_REFUSED:
                j->refused++;
                log_error("outbox %lld: %.*s: refused: %.*s", (long long)j->item.id, STR_FMT(to->address), STR_FMT(answer));
                break;
        case SMTP_LATER:
                j->later++;
                log_warn("outbox %lld: %.*s: not now: %.*s", (long long)j->item.id, STR_FMT(to->address), STR_FMT(answer));
                break;
        case SMTP_UNKNOWN:
                j->unknown++;
                log_warn("outbox %lld: %.*s: %.*s", (long long)j->item.id, STR_FMT(to->address), STR_FMT(answer));
                break;
        }
        if (to->result == SMTP_REFUSED || !j->answer.n || (to->result != SMTP_ACCEPTED && !j->refused))
                j->answer = answer;
        note_worst(j->o, to->result == SMTP_REFUSED ? ERR_REFUSED : to->result == SMTP_ACCEPTED ? ERR_NONE : ERR_TEMP);
        return ledger_outbox_recipient(j->o->l, j->item.id, to->address, final, answer, e);
}

struct refused_before {
        bool any;
        struct str answer;
        struct arena *a;
};

static bool look_refused(void *ctx, struct str who, int state, struct str answer)
{
        struct refused_before *r = ctx;

        if (state != 2)
                return true;
        r->any = true;
        r->answer = arena_str(r->a, answer);
        return false;
}

/* No recipient is open any more: gone, unless somebody (now or in an earlier try) was refused. */
static bool finish_mail(struct job *j, struct err *e)
{
        struct refused_before r = { .a = j->a };

        if (!ledger_outbox_recipients(j->o->l, j->item.id, look_refused, &r, e))
                return false;
        if (!r.any)
                return done(j, e);
        j->answer = r.answer;
        return bury(j, e);
}

/* What is left open of a try that may not be repeated and may have arrived in part stays open, but is no doubt: it is tried again. */
static bool settle_mail(struct job *j, const struct smtp_recipient *to, size_t n, struct err *e)
{
        for (size_t i = 0; i < n; i++)
                if (!record(j, &to[i], e))
                        return false;
        if (j->later > 0 || (j->unknown > 0 && !j->item.at_most_once))
                return try_later(j, e);
        return finish_mail(j, e);
}

static bool commit_settled(struct job *j, const struct smtp_recipient *to, size_t n, struct err *e)
{
        if (!ledger_begin(j->o->l, e))
                return false;
        if (settle_mail(j, to, n, e))
                return ledger_commit(j->o->l, e);
        ledger_rollback(j->o->l);
        return false;
}

/* Its smarthost can't be used now. */
static bool send_nothing(struct job *j, struct link *k, struct err *e)
{
        if (k->fatal) {
                j->o->out->untried++;
                return true;
        }
        j->answer = arena_str(j->a, str_of(k->why.text));
        return try_later(j, e);
}

static bool send_all(struct job *j, struct link *k, struct smtp_recipient *to, size_t n, struct range mail, struct err *e)
{
        for (size_t i = 0; i < n; i += RECIPIENTS_MAX) {
                size_t some = n - i < RECIPIENTS_MAX ? n - i : RECIPIENTS_MAX;

                if (!have_session(j->o, k))
                        break; /* the others stay open */
                if (!send_some(j, k, to + i, some, mail, e))
                        return false;
        }
        return true;
}

static bool open_spool(struct job *j, struct range *mail, struct err *e)
{
        int fd = staging_spool_open(j->o->l, j->item.spool, e);
        struct stat st;

        if (fd < 0)
                return false;
        if (fstat(fd, &st) != 0) {
                close(fd);
                return err_set(e, ERR_IO, "the spool file has no size");
        }
        mail->at = 0;
        mail->n = (uint64_t)st.st_size;
        mail->in = backing_fd(fd);
        return mail->in || err_nomem(e);
}

/* Its bytes are gone: there is nothing to try again. */
static bool lost_spool(struct job *j, struct err *e)
{
        if (e->code != ERR_ABSENT)
                return err_in(e, "outbox %lld", (long long)j->item.id);
        note_worst(j->o, ERR_IO);
        j->answer = arena_str(j->a, str_of(e->text));
        return bury(j, e);
}

static bool send_mail(struct job *j, struct link *k, struct err *e)
{
        size_t n = j->item.recipient_count;
        struct smtp_recipient *to = arena_alloc(j->a, (n + 1) * sizeof *to);
        struct range mail = { 0 };
        bool ok;

        if (!to)
                return err_nomem(e);
        for (size_t i = 0; i < n; i++)
                to[i].address = j->item.recipients[i];
        if (n == 0)
                return finish_mail(j, e);
        if (!have_session(j->o, k))
                return send_nothing(j, k, e);
        if (!open_spool(j, &mail, e))
                return lost_spool(j, e);
        ok = begin_only_try(j, e) && send_all(j, k, to, n, mail, e);
        backing_unref(mail.in);
        if (ok)
                return commit_settled(j, to, n, e);
        return err_in(e, "outbox %lld", (long long)j->item.id);
}

/* ---- commands ---- */

static const char **c_strings(struct job *j)
{
        const char **argv = arena_alloc(j->a, (j->item.argc + 1) * sizeof *argv);

        for (size_t i = 0; argv && i < j->item.argc; i++)
                if (!(argv[i] = arena_dup(j->a, j->item.argv[i].n ? j->item.argv[i].p : "", j->item.argv[i].n)))
                        return NULL;
        return argv;
}

static bool command_ended(struct job *j, bool ran, int status, const struct err *why, struct err *e)
{
        const char *name = j->item.argc ? j->item.argv[0].p : "";

        if (ran && status == 0) {
                log_info("outbox %lld: %s: done", (long long)j->item.id, name);
                return done(j, e);
        }
        note_worst(j->o, ran ? ERR_TEMP : why->code);
        if (ran)
                j->answer = arena_printf(j->a, "%.200s ended with status %d", name, status);
        else
                j->answer = arena_str(j->a, str_of(why->text));
        return j->item.at_most_once ? bury(j, e) : try_later(j, e);
}

/* SAFETY.md, Children: the finished file as standard input; the action id tells a repeat. */
static bool run_command(struct job *j, struct err *e)
{
        struct str action = arena_printf(j->a, "MAILMILL_ACTION=%.*s", STR_FMT(j->item.action));
        const char *env[] = { action.p, NULL };
        struct spawn s = { .argv = c_strings(j), .env = env, .stdin_fd = -1, .seconds = COMMAND_SECONDS };
        struct err why = { 0 };
        int status = 0;
        bool ran;

        if (!s.argv || !action.p)
                return err_nomem(e);
        if (j->item.spool.n && (s.stdin_fd = staging_spool_open(j->o->l, j->item.spool, e)) < 0)
                return lost_spool(j, e);
        ran = begin_only_try(j, e);
        if (!ran) {
                if (s.stdin_fd >= 0)
                        close(s.stdin_fd);
                return false;
        }
        ran = spawn_run(&s, NULL, &status, &why);
        if (s.stdin_fd >= 0)
                close(s.stdin_fd);
        return command_ended(j, ran, status, &why, e);
}

/* ---- the outbox ---- */

static bool collect(void *ctx, const struct outbox_item *i)
{
        struct sender *o = ctx;

        if (!o->all && i->next_try > o->now)
                return true;
        if (o->id_n == o->id_room) {
                size_t room = o->id_room ? 2 * o->id_room : 64;
                int64_t *ids = mem_resize(o->ids, room * sizeof *ids);

                if (!ids) {
                        o->nomem = true;
                        return false;
                }
                o->ids = ids;
                o->id_room = room;
        }
        o->ids[o->id_n++] = i->id;
        return true;
}

static struct link *link_of(struct sender *o, struct str name)
{
        if (name.n == 0 && o->n == 1)
                return &o->links[0];
        for (size_t i = 0; i < o->n; i++)
                if (str_eq(o->links[i].host->name, name.n ? name : STR("default")))
                        return &o->links[i];
        return NULL;
}

static bool do_item(struct job *j, struct err *e)
{
        struct link *k;

        if (j->item.kind == OUTBOX_COMMAND)
                return run_command(j, e);
        k = link_of(j->o, j->item.smarthost);
        if (k)
                return send_mail(j, k, e);
        j->o->out->unknown_host++;
        log_info("outbox %lld: waits for a smarthost called \"%.*s\"", (long long)j->item.id,
                 STR_FMT(j->item.smarthost.n ? j->item.smarthost : STR("default")));
        return true;
}

/* Somebody may have dropped or changed it since it was listed. */
static bool do_id(struct sender *o, int64_t id, struct err *e)
{
        struct job j = { .o = o, .a = arena_new(0) };
        bool found, ok;

        if (!j.a)
                return err_nomem(e);
        o->now = sys_now();
        ok = ledger_outbox_get(o->l, id, &j.item, &found, j.a, e);
        if (ok && found && j.item.state == OUTBOX_READY)
                ok = do_item(&j, e);
        arena_free(j.a);
        return ok;
}

static int lock(struct ledger *l, struct err *e)
{
        int fd = sys_open_beneath(ledger_dir(l), STR("outbox.lock"), O_RDWR | O_CREAT | O_NOFOLLOW, 0600, e);

        if (fd < 0)
                return err_in(e, "locking the outbox"), -1;
        if (sys_lock(fd, e))
                return fd;
        if (e && e->code == ERR_BUSY)
                err_set(e, ERR_BUSY, "another process is sending the outbox");
        close(fd);
        return -1;
}

static bool send_listed(struct sender *o, struct err *e)
{
        if (!ledger_outbox(o->l, 1u << OUTBOX_READY, collect, o, e))
                return false;
        if (o->nomem)
                return err_nomem(e);
        for (size_t i = 0; i < o->id_n; i++)
                if (!do_id(o, o->ids[i], e))
                        return false;
        return true;
}

bool outbox_send(struct ledger *l, struct smarthost *const *hosts, size_t n, bool all, struct outbox_result *out, struct err *e)
{
        struct sender o = { .l = l, .n = n, .all = all, .now = sys_now(), .out = out };
        bool ok;
        int fd;

        memset(out, 0, sizeof *out);
        fd = lock(l, e);
        if (fd < 0)
                return false;
        o.links = mem_array(n + 1, sizeof *o.links);
        for (size_t i = 0; o.links && i < n; i++)
                o.links[i].host = hosts[i];
        ok = o.links ? send_listed(&o, e) : err_nomem(e);
        for (size_t i = 0; o.links && i < n; i++)
                hang_up(&o.links[i]);
        mem_free(o.links);
        mem_free(o.ids);
        close(fd);
        return ok;
}
