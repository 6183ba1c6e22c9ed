/* A message that its server lists and does not give (RETR -ERR): a broken mailbox, a scanner that fails on it, a limit on downloads. The others
 * are fetched all the same. It is asked for again after longer and longer times, for some servers lock out clients that insist, and after
 * some refusals only when somebody says so. */
#include "core/log.h"
#include "core/pop3_int.h"

enum {
        REFUSALS_MAX = 5,
        FIRST_WAIT = 5 * 60, /* s; then four times as long each: 20 min, 80 min, over 5 hours */
};

static int64_t next_try(int64_t now, unsigned attempts)
{
        return attempts >= REFUSALS_MAX ? INT64_MAX : now + ((int64_t)FIRST_WAIT << 2 * (attempts - 1));
}

/* A message without a UID of its own has no name to remember it by before it is read; one that came all the same, in another session, is not
 * refused. */
static bool remember(struct fetch *f, struct mail *m, struct str said, struct err *e)
{
        struct mark k = { .first_seen = f->o.now };
        struct arena *a = fetch_scratch(f, e);
        bool found = false;

        if (f->o.dry || m->uid.n == 0 || m->state != MAIL_LEFT)
                return true;
        if (!a || !ledger_mark(f->ledger, f->la.id, m->uid, m->occurrence, &k, &found, a, e))
                return false;
        if (found && k.state != MARK_REFUSED)
                return true; /* seen or held once: that is known better */
        k.account = f->la.id;
        k.uid = m->uid;
        k.occurrence = m->occurrence;
        k.state = MARK_REFUSED;
        k.size = m->size;
        k.last_seen = f->o.now;
        k.attempts++;
        k.next_try = next_try(f->o.now, k.attempts);
        k.reason = arena_printf(a, "RETR: the server said \"%.*s\"", STR_FMT(said));
        return k.reason.p ? ledger_mark_put(f->ledger, &k, e) : err_nomem(e);
}

void fetch_refused(struct fetch *f, struct mail *m, struct str said)
{
        if (f->refusals < REFUSALS_KEPT)
                f->refused[f->refusals] = (struct refusal){ (uint32_t)(m - f->mails), arena_str(f->arena, str_first(said, SAID_MAX)) };
        f->refusals++;
        fetch_trouble(f, m, pop3_refusal_code(said, ERR_TEMP), "RETR: the server said \"%.*s\"", STR_FMT(str_first(said, SAID_MAX)));
}

/* A server that gives nothing at all, or refuses many, has a trouble of its own: that is not held against the messages. */
void fetch_note_refusals(struct fetch *f)
{
        bool own = f->refusals <= REFUSALS_KEPT && (f->given > 0 || f->refusals == 1);
        struct err e = { 0 };

        for (size_t i = 0; own && i < f->refusals; i++)
                if (f->refused[i].mail < f->n && !remember(f, &f->mails[f->refused[i].mail], f->refused[i].said, &e)) {
                        log_warn("%.*s: %s", STR_FMT(f->s.name), e.text);
                        return;
                }
}

void fetch_refused_before(struct fetch *f, struct mail *m, const struct mark *k)
{
        m->mark = k->id;
        m->first_seen = k->first_seen;
        if (f->o.again || f->o.now >= k->next_try)
                m->state = MAIL_WANT;
        else if (k->attempts >= REFUSALS_MAX)
                fetch_trouble(f, m, ERR_TEMP, "refused %u times and given up (%.*s); `mailmill state requeue %lld` asks again", k->attempts,
                              STR_FMT(k->reason), (long long)k->id);
        else
                fetch_trouble(f, m, ERR_TEMP, "refused %u time%s (%.*s); asked again in %lld min", k->attempts, k->attempts == 1 ? "" : "s",
                              STR_FMT(k->reason), (long long)((k->next_try - f->o.now + 59) / 60));
}
