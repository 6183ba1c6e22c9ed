/* What leaves the server, and when: DELE for what is settled and due, QUIT when nothing RETRieved is still open. */
#include "core/log.h"
#include "core/mem.h"
#include "core/pop3_int.h"

enum {
        SESSION_MESSAGES = 5000,    /* a new session costs a login and a listing: some round trips, 0.1 s where 20,000 are listed */
        SESSION_BYTES = 1 << 30,
        RENEWALS_LOST_MAX = 2,
};

bool mail_due(const struct fetch *f, const struct mail *m)
{
        bool own = m->leave != LEAVE_DEFAULT;
        enum outcome_leave leave = own ? (enum outcome_leave)m->leave : f->acc->leave;
        int64_t age = own ? m->leave_age : f->acc->leave_age;

        if (m->suspect)
                return false;
        return leave == LEAVE_NEVER || (leave == LEAVE_AGE && !f->o.no_age && f->o.now - m->first_seen >= age);
}

/* RETRieved in another session: its number has changed, and its header must prove to be the one we know. */
static bool doom(struct fetch *f, struct mail *m, struct err *e)
{
        bool found;

        if (!f->p || m->number == 0) {
                m->state = MAIL_GONE; /* as if its DELE had been lost with the session: the next list brings it back */
                m->number = 0;
                return true;
        }
        if (m->retrieved == f->session && !m->doubted)
                m->state = MAIL_DOOMED;
        else if (!fetch_load_mark(f, m, &found, e))
                return false;
        return fetch_queue(f, m, e);
}

static void settled(struct fetch *f, struct mail *m, const struct outcome *o)
{
        struct err e = { 0 };

        m->state = MAIL_KNOWN;
        if (o->leave != LEAVE_DEFAULT) {
                m->leave = (uint8_t)o->leave;
                m->leave_age = o->leave_age;
        }
        if (!f->o.dry && (m->doubted || mail_due(f, m)) && !doom(f, m, &e)) {
                log_warn("%.*s: %s", STR_FMT(f->s.name), e.text);
                m->state = MAIL_KNOWN;
        }
}

void fetch_settle(struct source *s, const struct outcome *o, size_t n)
{
        struct fetch *f = (struct fetch *)s;

        for (size_t i = 0; i < n; i++) {
                struct mail *m = o[i].number >= 1 && o[i].number <= f->n ? &f->mails[o[i].number - 1] : NULL;

                if (!m || m->state != MAIL_GIVEN)
                        continue;
                if (o[i].kind == OUTCOME_SETTLED)
                        settled(f, m, &o[i]);
                else
                        m->state = o[i].kind == OUTCOME_HELD ? MAIL_HELD : MAIL_UNDONE;
        }
}

/* The server may hide or delete at QUIT whatever was RETRieved; with EXPIRE 0 even what was only TOPped. */
static bool quit_is_safe(const struct fetch *f)
{
        if (f->p->capa.expire_zero && f->left_touched == f->session)
                return false;
        for (size_t i = 0; i < f->n; i++) {
                const struct mail *m = &f->mails[i];
                bool open = m->state == MAIL_GIVEN || m->state == MAIL_UNDONE;

                if (m->retrieved == f->session && open)
                        return false;
                open |= m->state == MAIL_WANT || m->state == MAIL_UNSURE || m->state == MAIL_LEFT;
                if (f->p->capa.expire_zero && m->touched == f->session && open)
                        return false;
        }
        return true;
}

static bool note_deleted(struct fetch *f, struct err *e)
{
        int64_t *ids = mem_array(f->n ? f->n : 1, sizeof *ids);
        size_t n = 0;
        bool ok = ids || err_nomem(e);

        for (size_t i = 0; ok && i < f->n; i++) {
                struct mail *m = &f->mails[i];
                bool found = m->mark;
                struct mark k = { .id = m->mark };
                struct arena *a = NULL;

                if (m->state != MAIL_GONE || m->number == 0)
                        continue;
                if (!found)
                        ok = (a = fetch_scratch(f, e)) && ledger_mark(f->ledger, f->la.id, m->uid, m->occurrence, &k, &found, a, e);
                if (ok && found)
                        ids[n++] = k.id;
                m->state = MAIL_KNOWN;
                m->number = 0;
                m->deled = true;
        }
        ok = ok && (n == 0 || ledger_mark_deleted(f->ledger, ids, n, e));
        mem_free(ids);
        return ok;
}

/* Whether the deletions took place is known only from a +OK; else the next list tells. */
static bool quit(struct fetch *f, bool *lasts, struct err *e)
{
        struct err why = { 0 };
        struct str have;

        *lasts = false;
        if (f->o.dry || !quit_is_safe(f))
                return true;
        if (!lines_poll(f->p->l, &have, &why) || have.n > 0) {
                const char *colon = why.text[0] ? ": " : "";
                if (f->gone_n > 0)
                        log_warn("%.*s: the session ended before QUIT%s%s; what it was to delete is deleted in the next run", STR_FMT(f->s.name), colon,
                                 why.text);
                else
                        log_info("%.*s: the session ended before QUIT%s%s", STR_FMT(f->s.name), colon, why.text);
                return true;
        }
        *lasts = pop3_quit(f->p, &why);
        if (*lasts)
                return note_deleted(f, e);
        log_warn("%.*s: %s; what was deleted shows in the next run", STR_FMT(f->s.name), why.text);
        return true;
}

bool fetch_full(const struct fetch *f)
{
        uint64_t messages = f->acc->session_messages, bytes = f->acc->session_bytes;

        if (f->renewals_lost >= RENEWALS_LOST_MAX)
                return false; /* where no QUIT is answered, session after session would delete the same messages again */
        return f->gone_n >= (messages ? messages : SESSION_MESSAGES) || f->gone_bytes >= (bytes ? bytes : SESSION_BYTES);
}

/* A session that is lost undoes all its DELEs: now and then they are made to last. */
bool fetch_renew(struct fetch *f, struct err *e)
{
        bool ok, lasts;

        f->finishing = true; /* nothing more is fetched */
        ok = fetch_pump(f, NULL, e);
        f->finishing = false;
        if (!ok || !f->p)
                return ok;
        if (!quit_is_safe(f)) {
                f->gone_n = f->gone_bytes = 0; /* asked again after as many more */
                return true;
        }
        log_info("%.*s: %llu messages deleted; QUIT, so that it lasts, and on with a new session", STR_FMT(f->s.name),
                 (unsigned long long)f->gone_n);
        ok = quit(f, &lasts, e);
        f->renewals_lost += !lasts;
        fetch_drop_session(f);
        return ok;
}

static bool sizes_differ_flag(struct ledger_account *la)
{
        bool was = la->sizes_differ;

        la->sizes_differ = true;
        return !was;
}

/* Marks of mail that has not been listed for a long time; only a complete list counts, and there is no other. */
static bool forget_old(struct fetch *f, struct err *e)
{
        enum { UNSEEN_DAYS = 90 };

        if (f->o.dry || f->o.no_age || !f->listed)
                return true;
        return ledger_marks_age(f->ledger, f->la.id, f->o.now - (int64_t)UNSEEN_DAYS * 86400, e);
}

static bool retr_in_flight(const struct fetch *f)
{
        for (size_t i = 0; i < f->fly_n; i++)
                if (f->ring[(f->fly_head + i) % (WINDOW_COMMANDS + 1)].kind == FLY_RETR)
                        return true;
        return false;
}

static bool say_goodbye(struct fetch *f, struct err *e)
{
        bool ok = true, lasts;

        f->finishing = true;
        if (retr_in_flight(f))
                fetch_drop_session(f); /* messages on their way that nobody will take: no QUIT */
        if (f->p || (!f->failed && !f->s.stop)) /* what is settled and not deleted now is deleted in the next run */
                ok = fetch_pump(f, NULL, e);
        if (ok && f->p)
                ok = quit(f, &lasts, e);
        fetch_drop_session(f);
        if (f->moved_known > 0)
                log_warn("%.*s: the server has given its messages new UIDs; %llu were recognised and not fetched again", STR_FMT(f->s.name),
                         (unsigned long long)f->moved_known);
        fetch_note_refusals(f);
        if (f->differ >= 4 && f->differ > f->agree)
                fetch_learn(f, sizes_differ_flag);
        ok = ok && forget_old(f, e);
        if (ok && f->troubles > 0) {
                *e = f->trouble;
                ok = f->troubles > 1 && err_in(e, "%llu messages could not be fetched, the first", (unsigned long long)f->troubles);
        }
        return ok;
}

bool fetch_finish(struct source *s, struct err *e)
{
        struct err why = { 0 }; /* what to do next depends on its code; and one that was survived is nobody's business */

        if (say_goodbye((struct fetch *)s, &why))
                return true;
        if (e)
                *e = why;
        return err_in(e, "%.*s", STR_FMT(s->name));
}
