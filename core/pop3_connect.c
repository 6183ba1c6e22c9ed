/* From nothing to a session whose list is matched with the table: connect, TLS, greeting, CAPA, login, list. */
#include "core/pop3_int.h"

#include <time.h>

#include "core/log.h"
#include "core/net.h"
#include "core/sys.h"

enum { BUSY_TRIES = 5 }; /* of a lost session's lock: 1 + 2 + 4 + 8 s */

static struct pop3 *greet(struct fetch *f, struct err *e)
{
        struct account *acc = f->acc;
        int fd = net_connect(acc->host, acc->port, sys_mono_ms() + LOGIN_MS, e);
        struct stream *s;
        struct lines *l;

        if (fd < 0)
                return NULL;
        s = acc->tls == TLS_IMPLICIT ? pop3_tls(acc, fd, e) : stream_fd(fd, e);
        if (!s)
                return err_in(e, "connecting to %.*s, port %u", STR_FMT(acc->host), acc->port), NULL;
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
        if (ask && !pop3_capabilities(f->p, NULL, e))
                return false;
        if (f->acc->tls == TLS_STARTTLS && (!pop3_stls(f->p, f->acc, e) || !pop3_capabilities(f->p, NULL, e)))
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

/* Servers that hang up on CAPA, or never answer it, are not asked again, once a login without it has gone through. */
static bool open_session(struct fetch *f, struct err *e)
{
        bool ask = !f->la.no_capa || f->acc->tls == TLS_STARTTLS, asked;

        f->p = greet(f, e);
        if (!f->p || log_in(f, ask, e))
                return f->p;
        asked = f->p->capa.known || f->acc->tls == TLS_STARTTLS || !ask;
        fetch_drop_session(f);
        if (asked || !lost(e->code))
                return false;
        log_info("%.*s: %s; connecting again without CAPA", STR_FMT(f->s.name), e->text);
        f->p = greet(f, e);
        if (f->p && log_in(f, false, e)) {
                fetch_learn(f, no_capa_flag);
                return true;
        }
        fetch_drop_session(f);
        return false;
}

/* A server may hold the lock of a session it has lost for a while. */
static bool open_patiently(struct fetch *f, struct err *e)
{
        for (int tries = 1; !open_session(f, e); tries++) {
                if (e->code != ERR_BUSY || f->session == 0 || tries == BUSY_TRIES || f->s.stop)
                        return false;
                for (int i = 0; i < 10 << (tries - 1) && !f->s.stop; i++)
                        nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
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
        struct arena *a = f->listed ? arena_new(0) : f->arena;
        struct pop3_item *items;
        size_t n = 0;
        bool ok;

        if (!a)
                return err_nomem(e);
        ok = open_patiently(f, e);
        if (ok) {
                f->session++;
                f->progress = false;
                if (f->single || f->la.no_pipeline)
                        f->p->capa.pipelining = false;
                f->single = !f->p->capa.pipelining;
                say_expire(f);
                ok = pop3_list(f->p, &items, &n, a, e) && fetch_match(f, items, n, e);
        }
        if (a != f->arena)
                arena_free(a);
        f->listed |= ok;
        if (!ok)
                fetch_drop_session(f);
        return ok;
}
