/* The outbox's mail: one session a smarthost, each recipient's answer written down before the next mail is begun. */
#include "core/outbox_int.h"

#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/staging.h"

enum {
        RECIPIENTS_MAX = 100, /* in one transaction: RFC 5321 4.5.3.1.8 promises that many */
        LOST_MAX = 3,         /* sessions lost in a row before a smarthost is left alone for this run */
};

/* A wrong password, certificate or setting: no time will mend it. */
static bool is_ours(enum err_code c)
{
        return c != ERR_NET && c != ERR_TIMEOUT && c != ERR_TEMP && c != ERR_PROTO;
}

static void shut(struct sender *o, struct link *k, const struct err *why)
{
        k->shut = true;
        k->fatal = is_ours(why->code);
        k->why = *why;
        outbox_worst(o, why->code);
        if (k->fatal)
                log_error("smarthost %.*s: %s; its mail stays in the outbox", STR_FMT(k->host.name), why->text);
        else
                log_info("smarthost %.*s: %s", STR_FMT(k->host.name), why->text);
}

void outbox_hang_up(struct link *k)
{
        smtp_close(k->s);
        k->s = NULL;
}

static bool have_session(struct sender *o, struct link *k)
{
        struct err why;

        if (k->s && !smtp_usable(k->s))
                outbox_hang_up(k);
        if (outbox_stopped(o))
                return false;
        if (k->s || k->shut)
                return k->s && !k->shut;
        k->s = smtp_connect(&k->host, &why);
        k->used = false;
        if (!k->s && why.code != ERR_STOPPED)
                shut(o, k, &why);
        return k->s;
}

/* The session, for this mail; without one its answer is why. */
static bool reach(struct job *j, struct link *k)
{
        if (have_session(j->o, k))
                return true;
        if (k->shut) {
                j->answer = arena_str(j->a, str_of(k->why.text));
                j->unreached = k->fatal ? NULL : k;
        }
        return false;
}

static bool any_known(const struct smtp_recipient *to, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (to[i].result != SMTP_OPEN)
                        return true;
        return false;
}

static bool in_doubt(const struct smtp_recipient *to, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (to[i].result == SMTP_UNKNOWN)
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
                if (!reach(j, k))
                        return true;
                ok = smtp_send(k->s, j->item.sender, to, n, mail, j->a, &why);
        }
        k->used = true;
        if (!ok && (why.code == ERR_IO || why.code == ERR_NOMEM || why.code == ERR_FULL)) {
                j->unread = !in_doubt(to, n);
                if (e)
                        *e = why;
                return false;
        }
        if (!ok && why.code == ERR_STOPPED)
                return true;
        if (!ok) {
                outbox_worst(j->o, why.code);
                j->answer = arena_str(j->a, str_of(why.text));
        }
        k->lost = is_lost(k, ok) ? k->lost + 1 : 0;
        if (k->lost >= LOST_MAX)
                shut(j->o, k, &why);
        return true;
}

/* What may have arrived is not tried again where that is forbidden. */
static enum recipient_state state_of(const struct job *j, const struct smtp_recipient *to)
{
        if (to->result == SMTP_ACCEPTED)
                return RECIPIENT_ACCEPTED;
        return to->result == SMTP_REFUSED || (to->result == SMTP_UNKNOWN && j->item.at_most_once) ? RECIPIENT_REFUSED : RECIPIENT_OPEN;
}

/* One recipient's answer, counted, said, and written down. */
static bool record(struct job *j, const struct smtp_recipient *to, struct err *e)
{
        struct str answer = to->answer;

        switch (to->result) {
        case SMTP_OPEN:
                j->later++;
                j->open++;
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
        outbox_worst(j->o, to->result == SMTP_REFUSED ? ERR_REFUSED : to->result == SMTP_ACCEPTED ? ERR_NONE : ERR_TEMP);
        return ledger_outbox_recipient(j->o->l, j->item.id, to->address, state_of(j, to), answer, e);
}

struct refused_before {
        bool any;
        struct str answer;
        struct arena *a;
};

static bool look_refused(void *ctx, struct str who, int state, struct str answer)
{
        struct refused_before *r = ctx;

        if (state != RECIPIENT_REFUSED)
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
                return outbox_done(j, e);
        j->answer = r.answer;
        return outbox_bury(j, e);
}

static bool record_all(struct job *j, const struct smtp_recipient *to, size_t n, struct err *e)
{
        for (size_t i = 0; i < n; i++)
                if (!record(j, &to[i], e))
                        return false;
        return true;
}

/* What is left open of a try that may not be repeated and may have arrived in part stays open, but is no doubt: it is tried again. */
static bool settle_mail(struct job *j, const struct smtp_recipient *to, size_t n, struct err *e)
{
        if (!record_all(j, to, n, e))
                return false;
        if (j->open > 0 && outbox_stopped(j->o) && (j->unknown == 0 || j->item.at_most_once))
                return outbox_leave(j, e);
        if (j->later > 0 || (j->unknown > 0 && !j->item.at_most_once))
                return outbox_later(j, e);
        return finish_mail(j, e);
}

static bool in_transaction(bool (*f)(struct job *j, const struct smtp_recipient *to, size_t n, struct err *e), struct job *j,
                           const struct smtp_recipient *to, size_t n, struct err *e)
{
        if (!ledger_begin(j->o->l, e))
                return false;
        if (f(j, to, n, e))
                return ledger_commit(j->o->l, e);
        ledger_rollback(j->o->l);
        return false;
}

/* Its smarthost can't be used now. Where others made it hang up this one has not been tried: it stays due, and is among the first next time. */
static bool send_nothing(struct job *j, struct link *k, struct err *e)
{
        if (!k->shut)
                return outbox_leave(j, e);
        if (k->lost >= LOST_MAX) {
                j->o->out->later++;
                k->waiting++;
                return true;
        }
        if (!k->fatal)
                return outbox_later(j, e);
        j->o->out->untried++;
        return true;
}

/* The answers of one transaction are on disk before the next one is begun, so that a crash sends none of them again; those of the last are
 * written with the outcome. *done: how many recipients are written down. */
static bool send_all(struct job *j, struct link *k, struct smtp_recipient *to, size_t n, struct range mail, size_t *done, struct err *e)
{
        for (size_t i = 0; i < n; i += RECIPIENTS_MAX) {
                size_t some = n - i < RECIPIENTS_MAX ? n - i : RECIPIENTS_MAX;

                if (!reach(j, k))
                        break; /* the others stay open */
                if (!send_some(j, k, to + i, some, mail, e))
                        return false;
                if (i + some == n)
                        break;
                if (!in_transaction(record_all, j, to + i, some, e))
                        return false;
                *done = i + some;
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

bool outbox_mail(struct job *j, struct link *k, struct err *e)
{
        size_t n = j->item.recipient_count, done = 0;
        struct smtp_recipient *to = arena_alloc(j->a, (n + 1) * sizeof *to);
        struct range mail = { 0 };
        bool ok;

        if (!to)
                return err_nomem(e);
        for (size_t i = 0; i < n; i++)
                to[i].address = j->item.recipients[i];
        if (n == 0)
                return finish_mail(j, e);
        if (!reach(j, k))
                return send_nothing(j, k, e);
        if (!open_spool(j, &mail, e))
                return outbox_lost_spool(j, e);
        ok = outbox_begin_only_try(j, e) && send_all(j, k, to, n, mail, &done, e);
        backing_unref(mail.in);
        if (ok)
                return in_transaction(settle_mail, j, to + done, n - done, e);
        return j->unread ? outbox_unread(j, e) : err_in(e, "outbox %lld", (long long)j->item.id);
}
