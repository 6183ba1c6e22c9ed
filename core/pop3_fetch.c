/* Commands out, as many as the window holds; answers in, in their order; and a new session when one is lost. */
#include "core/log.h"
#include "core/pop3_int.h"

enum {
        BARREN_MAX = 3,        /* sessions in a row that were lost before they gave anything */
        TOP_EXPECTED = 2 << 10,
        LINE_EXPECTED = 64,
};

static bool full(const struct fetch *f)
{
        return f->single ? f->fly_n > 0 : f->fly_n >= WINDOW_COMMANDS || f->expected >= WINDOW_BYTES;
}

/* Half a window at a time, so that commands go out many to a write. */
static bool low(const struct fetch *f)
{
        return f->single ? f->fly_n == 0 : f->fly_n <= WINDOW_COMMANDS / 2 && f->expected <= WINDOW_BYTES / 2;
}

static bool fetching(const struct fetch *f)
{
        return !f->finishing && !fetch_full(f) && (f->limit == 0 || f->asked < f->limit);
}

static bool take(struct row_queue *q, uint32_t *mail)
{
        if (q->head == q->n)
                return false;
        *mail = q->p[q->head++];
        return true;
}

static bool next_mail(struct fetch *f, uint32_t *mail)
{
        return take(&f->dele, mail) || (fetching(f) && take(&f->todo, mail));
}

static bool anything_to_send(const struct fetch *f)
{
        return f->dele.head < f->dele.n || (fetching(f) && f->todo.head < f->todo.n);
}

static void fly(struct fetch *f, uint32_t mail, enum flight_kind kind, uint64_t expected)
{
        f->ring[(f->fly_head + f->fly_n++) % (WINDOW_COMMANDS + 1)] = (struct flight){ mail, kind, expected };
        f->expected += expected;
}

/* What the row's state asks for; false in *sent when that has become nothing since it was queued. */
static bool send_for(struct fetch *f, uint32_t i, struct err *e)
{
        struct mail *m = &f->mails[i];
        bool top = !f->no_top && !m->verify;

        if (m->number == 0)
                return true;
        if (m->state == MAIL_DOOMED && !f->o.dry) {
                fly(f, i, FLY_DELE, LINE_EXPECTED);
                return pop3_send(f->p, e, "DELE %u", m->number);
        }
        if ((m->state == MAIL_UNSURE || m->state == MAIL_CHECK) && top) {
                m->touched = f->session;
                fly(f, i, FLY_TOP, TOP_EXPECTED);
                return pop3_send(f->p, e, "TOP %u 0", m->number);
        }
        if (m->state != MAIL_WANT && m->state != MAIL_UNSURE && m->state != MAIL_CHECK)
                return true;
        if (f->lim.message > 0 && m->size > f->lim.message) {
                fetch_trouble(f, m, ERR_LIMIT, "its %llu bytes are more than the limit of %llu", (unsigned long long)m->size,
                              (unsigned long long)f->lim.message);
                return true;
        }
        m->verify |= m->state != MAIL_WANT;
        m->touched = m->retrieved = f->session;
        f->asked++;
        fly(f, i, FLY_RETR, m->size < WINDOW_BYTES ? m->size + LINE_EXPECTED : WINDOW_BYTES);
        return pop3_send(f->p, e, "RETR %u", m->number);
}

/* Bytes that nobody asked for. One at a time they are thrown away; else answers can no longer be told apart. */
static bool unsolicited(struct fetch *f, bool *doubtful, struct err *e)
{
        struct str have;

        if (f->fly_n > 0)
                return true;
        if (!lines_poll(f->p->l, &have, e))
                return false;
        if (have.n > 0 && !f->single) {
                *doubtful = true;
        } else if (have.n > 0) {
                log_info("%.*s: %zu bytes that were not asked for", STR_FMT(f->s.name), have.n);
                lines_take(f->p->l, have.n);
        }
        return true;
}

static enum flight_kind last_kind(const struct fetch *f)
{
        return f->ring[(f->fly_head + f->fly_n - 1) % (WINDOW_COMMANDS + 1)].kind;
}

static bool fill(struct fetch *f, bool *doubtful, struct err *e)
{
        size_t before = f->fly_n;
        uint32_t i;

        if (!low(f))
                return true;
        if (!unsolicited(f, doubtful, e))
                return false;
        while (!*doubtful && !full(f) && next_mail(f, &i))
                if (!send_for(f, i, e))
                        return false;
        /* The framing guard needs a status line behind the last message as well. */
        if (!f->single && f->fly_n > before && !anything_to_send(f) && last_kind(f) <= FLY_TOP) {
                fly(f, 0, FLY_NOOP, LINE_EXPECTED);
                if (!pop3_send(f->p, e, "NOOP"))
                        return false;
        }
        return f->fly_n == before || lines_flush(f->p->l, e);
}

static bool no_pipeline_flag(struct ledger_account *la)
{
        bool was = la->no_pipeline;

        la->no_pipeline = true;
        return !was;
}

static void distrust(struct fetch *f)
{
        log_warn("%.*s: the server's answers to pipelined commands run into each other: from now on one command at a time",
                 STR_FMT(f->s.name));
        f->single = true;
        fetch_learn(f, no_pipeline_flag);
        fetch_doubt(f);
        fetch_drop_session(f);
}

static bool conversation_failed(enum err_code code)
{
        return code == ERR_NET || code == ERR_TIMEOUT || code == ERR_PROTO || code == ERR_TLS;
}

/* A session is lost. A message at which two (CUTS_MAX) were lost is left alone, so that it does not keep the others back. */
static bool survive(struct fetch *f, struct err *e)
{
        struct flight *due = f->fly_n > 0 ? &f->ring[f->fly_head % (WINDOW_COMMANDS + 1)] : NULL;
        bool read = due && due->kind <= FLY_TOP;

        if (e->code == ERR_STOPPED) { /* what was on its way is fetched in the next run */
                fetch_drop_session(f);
                return true;
        }
        if (e->code == ERR_LIMIT && read) {
                fetch_trouble(f, &f->mails[due->mail], ERR_LIMIT, "%s", e->text);
        } else if (!conversation_failed(e->code)) {
                return false;
        } else if (read && (f->mails[due->mail].cuts >= CUTS_MAX || ++f->mails[due->mail].cuts == CUTS_MAX)) {
                fetch_trouble(f, &f->mails[due->mail], e->code, "%s", e->text);
        }
        if (read && e->code == ERR_TIMEOUT)
                f->single = true;
        fetch_drop_session(f);
        f->barren = f->progress ? 0 : f->barren + 1;
        if (f->barren >= BARREN_MAX || f->s.stop)
                return false;
        log_info("%.*s: %s; connecting again", STR_FMT(f->s.name), e->text);
        return true;
}

/* Is there a reason to connect again? */
static bool work_left(const struct fetch *f)
{
        for (size_t i = 0; i < f->n; i++) {
                enum mail_state s = f->mails[i].state;

                if (f->mails[i].doubted && s != MAIL_LEFT && s != MAIL_ALIAS && !f->o.dry)
                        return true;
                if ((s == MAIL_WANT || s == MAIL_UNSURE) && fetching(f))
                        return true;
                if ((s == MAIL_CHECK || s == MAIL_DOOMED || s == MAIL_GONE) && !f->o.dry)
                        return true;
        }
        return !f->finishing && (!f->listed || (f->pending > 0 && fetching(f)));
}

bool fetch_waits_for_more(const struct fetch *f)
{
        return f->pending > 0 && f->list && !f->finishing && (f->limit == 0 || f->asked < f->limit);
}

static bool turn(struct fetch *f, struct message **out, bool *end, struct err *e)
{
        bool doubtful = false;

        if (!f->p && !fetch_connect(f, e))
                return e->code == ERR_STOPPED;
        if (!fill(f, &doubtful, e))
                return survive(f, e);
        *end = f->fly_n == 0 && !doubtful && !anything_to_send(f);
        if (*end)
                return true;
        if (f->fly_n > 0 && !doubtful && !fetch_answer(f, out, &doubtful, e))
                return survive(f, e);
        if (doubtful)
                distrust(f);
        return true;
}

bool fetch_pump(struct fetch *f, struct message **out, struct err *e)
{
        struct message *m = NULL;

        for (bool end = false; !m && !end && !(out && f->s.stop);) {
                if (!f->p && (f->s.stop || !work_left(f)))
                        break;
                if (!turn(f, &m, &end, e))
                        return false;
        }
        if (out)
                *out = m;
        return true;
}
