/* From nothing to a session whose list is matched with the table: connect, TLS, greeting, CAPA, login, list. */
#include "core/pop3_int.h"

#include <time.h>

#include "core/log.h"
#include "core/net.h"
#include "core/sasl.h"
#include "core/sys.h"

enum {
        BACK_OFF_MS = 1000,
        NET_TRIES = 3,  /* 1 + 2 s */
        BUSY_TRIES = 5, /* 1 + 2 + 4 + 8 s */
};

/* The account, with our stop. */
static struct account heeding(struct fetch *f)
{
        struct account acc = *f->acc;

        acc.stop = &f->s.stop;
        return acc;
}

static struct pop3 *greet(struct fetch *f, struct err *e)
{
        struct account acc = heeding(f);
        int fd = net_connect(acc.host, acc.port, sys_mono_ms() + LOGIN_MS, acc.stop, e);
        struct stream *s;
        struct lines *l;

        if (fd < 0)
                return NULL;
        s = acc.tls == TLS_IMPLICIT ? pop3_tls(&acc, fd, e) : stream_fd(fd, e);
        if (!s)
                return err_in(e, "connecting to %.*s, port %u", STR_FMT(acc.host), acc.port), NULL;
        l = lines_new(s, LOGIN_MS, e);
        if (!l)
                return NULL;
        lines_set_stop(l, &f->s.stop);
        return pop3_new(l, e);
}

static bool no_capa_flag(struct ledger_account *la)
{
        bool was = la->no_capa;

        la->no_capa = true;
        return !was;
}

static bool log_in(struct fetch *f, bool ask, struct err *e)
{
        struct account acc = heeding(f);

        if (ask && !pop3_capabilities(f->p, NULL, e))
                return false;
        if (f->acc->tls == TLS_STARTTLS && (!pop3_stls(f->p, &acc, e) || !pop3_capabilities(f->p, NULL, e)))
                return false;
        ask = f->p->capa.known;
        if (!pop3_login(f->p, f->acc, e))
                return false;
        lines_set_idle(f->p->l, f->acc->timeout_ms > 0 ? f->acc->timeout_ms : 300000);
        return !ask || pop3_capabilities(f->p, NULL, e);
}

static bool lost(enum err_code code)
{
        return code == ERR_NET || code == ERR_TIMEOUT;
}

/* A server that we come back to knows the password, and may say it in its greeting. */
static bool enter(struct fetch *f, bool ask, struct err *e)
{
        f->p = greet(f, e);
        if (f->p && log_in(f, ask, e))
                return true;
        sasl_hide(e, f->acc->user, f->acc->password);
        return false;
}

/* Servers that hang up on CAPA, or never answer it, are not asked again, once a login without it has gone through. */
static bool open_session(struct fetch *f, struct err *e)
{
        bool ask = !f->la.no_capa || f->acc->tls == TLS_STARTTLS, asked;

        if (enter(f, ask, e))
                return true;
        if (!f->p)
                return false;
        asked = f->p->capa.known || f->acc->tls == TLS_STARTTLS || !ask;
        fetch_drop_session(f);
        if (asked || !lost(e->code))
                return false;
        log_info("%.*s: %s; connecting again without CAPA", STR_FMT(f->s.name), e->text);
        if (enter(f, false, e)) {
                fetch_learn(f, no_capa_flag);
                return true;
        }
        fetch_drop_session(f);
        return false;
}

/* Twice as long each time, more or less by a quarter: a thousand clients that lost one server do not come back as one. */
static void back_off(struct fetch *f, unsigned tries)
{
        int64_t ms = (int64_t)(f->o.back_off_ms > 0 ? f->o.back_off_ms : BACK_OFF_MS) << (tries - 1);
        uint16_t dice;
        int64_t until;

        sys_random(&dice, sizeof dice);
        ms += ms / 2 * dice / UINT16_MAX - ms / 4;
        log_info("%.*s: trying again in %.1f s", STR_FMT(f->s.name), (double)ms / 1000);
        until = sys_mono_ms() + ms;
        while (!f->s.stop && sys_mono_ms() < until)
                nanosleep(&(struct timespec){ .tv_nsec = (until - sys_mono_ms() > 100 ? 100 : 1) * 1000000L }, NULL);
}

/* What may have passed in a moment: a broken line; the lock of a session that this run has lost, which a server may hold for a while. A proof
 * that was refused is final, for a second try may lock the account; and a server that says "later" means the next run. */
static unsigned tries_for(const struct fetch *f, enum err_code code)
{
        if (code == ERR_BUSY)
                return f->session > 0 ? BUSY_TRIES : 1;
        return code == ERR_NET ? NET_TRIES : 1;
}

static bool open_patiently(struct fetch *f, struct err *e)
{
        for (unsigned tries = 1; !open_session(f, e); tries++) {
                if (tries >= tries_for(f, e->code) || f->s.stop)
                        return false;
                log_info("%.*s: %s", STR_FMT(f->s.name), e->text);
                back_off(f, tries);
        }
        return true;
}

static void say_expire(struct fetch *f)
{
        if (f->p->capa.expire_zero && f->session == 1 && f->acc->leave != LEAVE_NEVER)
                log_warn("%.*s: this server deletes whatever was fetched when the session ends (EXPIRE 0): leaving mail there "
                         "can't be honoured", STR_FMT(f->s.name));
}

bool fetch_connect(struct fetch *f, struct err *e)
{
        bool ok;

        if (f->barren > 0)
                back_off(f, f->barren);
        ok = open_patiently(f, e);
        if (ok) {
                f->session++;
                f->progress = false;
                if (f->single || f->la.no_pipeline)
                        f->p->capa.pipelining = false;
                f->single = !f->p->capa.pipelining;
                say_expire(f);
                ok = (f->list = pop3_list(f->p, e)) && fetch_match(f, e);
        }
        f->listed |= ok;
        if (!ok)
                fetch_drop_session(f);
        return ok;
}
