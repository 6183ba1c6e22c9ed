/* An account as a source. The table of its mails lives as long as the run; sessions come and go. */
#include "core/pop3_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

_Static_assert((int)MARK_LEAVE_ALWAYS == (int)LEAVE_ALWAYS && (int)MARK_LEAVE_NEVER == (int)LEAVE_NEVER &&
                       (int)MARK_LEAVE_AGE == (int)LEAVE_AGE && (int)MARK_LEAVE_DEFAULT == (int)LEAVE_DEFAULT,
               "a mark keeps an outcome's leave as it is");

enum { SCRATCH_MAX = 1 << 20 };

bool fetch_queue(struct fetch *f, const struct mail *m, struct err *e)
{
        struct row_queue *q = m->state == MAIL_UNSURE || m->state == MAIL_WANT ? &f->todo : &f->dele;

        if (m->state != MAIL_UNSURE && m->state != MAIL_WANT && m->state != MAIL_CHECK && m->state != MAIL_DOOMED)
                return true;
        if (q->head == q->n)
                q->head = q->n = 0;
        if (q->n == q->room) {
                size_t room = q->room ? q->room * 2 : 256;
                uint32_t *grown = mem_resize(q->p, room * sizeof *grown);

                if (!grown)
                        return err_nomem(e);
                q->p = grown;
                q->room = room;
        }
        q->p[q->n++] = (uint32_t)(m - f->mails);
        return true;
}

void fetch_drop_session(struct fetch *f)
{
        pop3_free(f->p);
        f->p = NULL;
        pop3_listing_free(f->list);
        f->list = NULL;
        f->fly_head = f->fly_n = 0;
        f->expected = 0;
        f->asked = f->given;
        f->gone_n = f->gone_bytes = f->size_before = 0;
}

/* The row is read again first: others may have written to it since. */
void fetch_learn(struct fetch *f, bool flag(struct ledger_account *la))
{
        struct ledger_account now;
        struct arena *a = fetch_scratch(f, NULL);
        struct err e = { 0 };

        if (!flag(&f->la) || f->o.dry || !a)
                return;
        if (!ledger_account(f->ledger, f->la.name, f->la.mailbox, &now, a, &e) ||
            (flag(&now) && !ledger_account_save(f->ledger, &now, &e)))
                log_warn("%.*s: %s", STR_FMT(f->s.name), e.text);
}

/* One message could not be had: the others go on, the run's end tells. That counts as progress once a message, and where it keeps its row; else
 * a server that fails in the same place each time would be asked for ever. */
void fetch_trouble(struct fetch *f, struct mail *m, enum err_code code, const char *fmt, ...)
{
        char text[ERR_TEXT_MAX];
        struct err e;
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        err_set(&e, code, "message %u%s%.*s: %s", m->number, m->uid.n ? ", UID " : "", STR_FMT(str_first(m->uid, 80)), text);
        log_warn("%.*s: %s", STR_FMT(f->s.name), e.text);
        if (f->troubles++ == 0)
                f->trouble = e;
        m->state = MAIL_LEFT;
        f->progress |= m->uid.n > 0 && (!m->unsure || m->keyed) && !m->troubled;
        m->troubled = true;
}

struct arena *fetch_scratch(struct fetch *f, struct err *e)
{
        if (f->scratch && arena_used(f->scratch) > SCRATCH_MAX) {
                arena_free(f->scratch);
                f->scratch = NULL;
        }
        if (!f->scratch && !(f->scratch = arena_new(0)))
                err_nomem(e);
        return f->scratch;
}

/* The run has waited for what the full session, or the full table, gave. */
static bool renewed(struct fetch *f, struct err *e)
{
        if (!f->s.rests)
                return true;
        f->s.rests = false;
        return (!fetch_full(f) || fetch_renew(f, e)) && fetch_more(f, e);
}

/* Whether the right message was handed out shows once it is settled, and if not, the right one is still to be fetched. */
static bool given_in_doubt(const struct fetch *f)
{
        for (size_t i = 0; i < f->n; i++)
                if (f->mails[i].doubted && f->mails[i].state == MAIL_GIVEN)
                        return true;
        return false;
}

static bool must_rest(const struct fetch *f)
{
        return !f->failed && !f->s.stop && f->p && ((fetch_full(f) && f->todo.head < f->todo.n) || fetch_waits_for_more(f) || given_in_doubt(f));
}

static bool source_next(struct source *s, struct message **out, struct err *e)
{
        struct fetch *f = (struct fetch *)s;
        struct err why = { 0 }; /* what to do next depends on its code; and one that was survived is nobody's business */

        *out = NULL;
        if (f->failed || (renewed(f, &why) && fetch_pump(f, out, &why))) {
                s->rests = !*out && must_rest(f);
                return true;
        }
        f->failed = true;
        if (e)
                *e = why;
        return err_in(e, "%.*s", STR_FMT(s->name));
}

static void fetch_free(struct source *s)
{
        struct fetch *f = (struct fetch *)s;

        fetch_drop_session(f);
        if (f->tmp_fd >= 0)
                close(f->tmp_fd);
        if (f->keyed)
                map_free(f->keyed, NULL);
        if (f->doubts)
                map_free(f->doubts, NULL);
        mem_free(f->mails);
        mem_free(f->done);
        arena_free(f->rows);
        mem_free(f->todo.p);
        mem_free(f->dele.p);
        mem_free(f->tmp_dir);
        arena_free(f->scratch);
        arena_free(f->arena);
        mem_free(f);
}

static const struct source_ops ops = { source_next, fetch_settle, fetch_finish, fetch_free };

static bool prepare(struct fetch *f, const char *tmp_dir)
{
        f->arena = arena_new(0);
        f->rows = arena_new(0);
        f->keyed = map_new();
        f->tmp_dir = mem_dup(tmp_dir, strlen(tmp_dir));
        if (!f->arena || !f->rows || !f->keyed || !f->tmp_dir)
                return false;
        f->s.name = arena_str(f->arena, f->acc->name.n ? f->acc->name : STR("account"));
        f->la.name = arena_str(f->arena, f->la.name);
        f->la.mailbox = arena_str(f->arena, f->la.mailbox);
        return f->s.name.p;
}

/* The smaller of two limits, of which 0 is none. */
static uint64_t least(uint64_t a, uint64_t b)
{
        return a == 0 || (b > 0 && b < a) ? b : a;
}

struct source *pop3_source(struct account *acc, const struct ledger_account *la, struct ledger *l, const struct limits *lim,
                           const char *tmp_dir, const struct pop3_options *o, struct err *e)
{
        struct fetch *f = mem_zero(sizeof *f);

        if (!f)
                return err_nomem(e), NULL;
        f->s.ops = &ops;
        f->s.account = acc;
        f->acc = acc;
        f->ledger = l;
        f->la = *la;
        f->lim = *lim;
        f->o = *o;
        f->tmp_fd = -1;
        f->limit = least(o->limit, acc->limit);
        if (!prepare(f, tmp_dir)) {
                fetch_free(&f->s);
                return err_nomem(e), NULL;
        }
        return &f->s;
}
