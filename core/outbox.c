/* Carrying out what was promised: one item after the other, its outcome committed before the next is begun. */
#include "core/outbox_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/spawn.h"
#include "core/staging.h"
#include "core/sys.h"

enum {
        RETRY_FIRST = 60, RETRY_MOST = 4 * 3600, /* seconds */
        GIVE_UP = 5 * 24 * 3600,
        COMMAND_SECONDS = 600,
};

#define UNKNOWN_SO_FAR STR("unknown: it was begun, and nothing was heard of its end")
#define UNKNOWN_AND_SAID STR("unknown: it was begun by a run that died before it heard of its end; at_most_once forbids another try")

bool outbox_stopped(const struct sender *o) { return o->stop && atomic_load(o->stop); }

void outbox_worst(struct sender *o, enum err_code c)
{
        o->out->worst = err_worse(o->out->worst, c);
}

/* ---- what becomes of an item ---- */

static int64_t delay(unsigned tries)
{
        int64_t d = RETRY_FIRST;

        while (tries-- > 0 && d < RETRY_MOST)
                d *= 2;
        return d < RETRY_MOST ? d : RETRY_MOST;
}

bool outbox_bury(struct job *j, struct err *e)
{
        j->o->out->dead++;
        log_error("outbox %lld: given up, kept as a dead letter (%.*s): %.*s", (long long)j->item.id, STR_FMT(j->item.subject), STR_FMT(j->answer));
        return ledger_outbox_retry(j->o->l, j->item.id, OUTBOX_DEAD, j->o->now, j->answer, e);
}

bool outbox_later(struct job *j, struct err *e)
{
        int64_t next = j->o->now + delay(j->item.tries);

        if (j->o->now - j->item.created >= GIVE_UP)
                return outbox_bury(j, e);
        j->o->out->later++;
        if (j->unreached)
                j->unreached->waiting++;
        else
                log_warn("outbox %lld: again in %lld min: %.*s", (long long)j->item.id, (long long)(next - j->o->now) / 60, STR_FMT(j->answer));
        return ledger_outbox_retry(j->o->l, j->item.id, OUTBOX_READY, next, j->answer, e);
}

bool outbox_done(struct job *j, struct err *e)
{
        if (j->item.kind == OUTBOX_MAIL)
                j->o->out->sent++;
        else
                j->o->out->commands++;
        return ledger_outbox_remove(j->o->l, j->item.id, e);
}

bool outbox_leave(struct job *j, struct err *e)
{
        j->o->out->stopped = true;
        j->o->out->left++;
        return !j->item.at_most_once || ledger_outbox_state(j->o->l, j->item.id, OUTBOX_READY, j->item.answer, e);
}

bool outbox_begin_only_try(struct job *j, struct err *e)
{
        return !j->item.at_most_once || ledger_outbox_state(j->o->l, j->item.id, OUTBOX_DEAD, UNKNOWN_SO_FAR, e);
}

/* One bad place of the disk keeps no other item back; the end tells of it. */
bool outbox_unread(struct job *j, struct err *e)
{
        struct err why;

        err_in(e, "outbox %lld", (long long)j->item.id);
        if (j->item.at_most_once && !ledger_outbox_state(j->o->l, j->item.id, OUTBOX_READY, j->item.answer, &why))
                return false;
        if (e->code != ERR_IO || e->sys == EMFILE || e->sys == ENFILE)
                return false;
        log_error("%s", e->text);
        if (j->o->unread.code == ERR_NONE)
                j->o->unread = *e;
        return true;
}

/* Its bytes are gone: there is nothing to try again. */
bool outbox_lost_spool(struct job *j, struct err *e)
{
        if (e->code != ERR_ABSENT)
                return outbox_unread(j, e);
        outbox_worst(j->o, ERR_IO);
        j->answer = arena_str(j->a, str_of(e->text));
        return outbox_bury(j, e);
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
                return outbox_done(j, e);
        }
        if (!ran && why->code == ERR_STOPPED && !j->item.at_most_once)
                return outbox_leave(j, e);
        outbox_worst(j->o, ran || why->code == ERR_STOPPED ? ERR_TEMP : why->code);
        if (ran)
                j->answer = arena_printf(j->a, "%.200s ended with status %d", name, status);
        else
                j->answer = arena_str(j->a, str_of(why->text));
        return j->item.at_most_once ? outbox_bury(j, e) : outbox_later(j, e);
}

/* The finished file as standard input; the action id tells a repeat. */
static bool run_command(struct job *j, struct err *e)
{
        struct str action = arena_printf(j->a, "MAILMILL_ACTION=%.*s", STR_FMT(j->item.action));
        const char *env[] = { action.p, NULL };
        struct spawn s = { .argv = c_strings(j), .env = env, .stdin_fd = -1, .seconds = COMMAND_SECONDS, .stop = j->o->stop };
        struct err why = { 0 };
        int status = 0;
        bool ran;

        if (!s.argv || !action.p)
                return err_nomem(e);
        if (j->item.spool.n && (s.stdin_fd = staging_spool_open(j->o->l, j->item.spool, e)) < 0)
                return outbox_lost_spool(j, e);
        ran = outbox_begin_only_try(j, e);
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

static bool note_rename(void *ctx, const struct rename_job *r)
{
        *(bool *)ctx = true;
        return false;
}

static bool note_append(void *ctx, const struct append_job *m)
{
        *(bool *)ctx = true;
        return false;
}

/* Is the run whose message it is still to give files their names? It is about, or it died, and the next one finishes that. Its id begins the spool
 * file's name; without a message nothing is to be waited for. */
static bool names_are_due(struct job *j, bool *due, struct err *e)
{
        struct str run = str_first(j->item.spool, str_find(j->item.spool, '/'));

        *due = false;
        return run.n == 0 || (ledger_renames(j->o->l, run, note_rename, due, e) && (*due || ledger_appends(j->o->l, run, note_append, due, e)));
}

static bool command(struct job *j, struct err *e)
{
        bool due;

        if (!names_are_due(j, &due, e))
                return false;
        if (!due)
                return run_command(j, e);
        j->o->out->later++;
        log_info("outbox %lld: waits until the files of its run have their names", (long long)j->item.id);
        return true;
}

/* ---- the outbox ---- */

static bool collect(void *ctx, const struct outbox_item *i)
{
        struct sender *o = ctx;

        /* A time further away than any that is ever planned is a clock's that was wrong then. */
        if (!o->all && i->next_try > o->now && i->next_try <= o->now + RETRY_MOST)
                return true;
        if (o->due_n == o->due_room) {
                size_t room = o->due_room ? 2 * o->due_room : 64;
                struct due *due = mem_resize(o->due, room * sizeof *due);

                if (!due) {
                        o->nomem = true;
                        return false;
                }
                o->due = due;
                o->due_room = room;
        }
        o->due[o->due_n++] = (struct due){ i->id, i->tries };
        return true;
}

/* What has failed before comes last: mails at which a server hangs up would keep those behind them back. */
static int by_tries(const void *a, const void *b)
{
        const struct due *x = a, *y = b;

        return x->tries != y->tries ? (x->tries > y->tries) - (x->tries < y->tries) : (x->id > y->id) - (x->id < y->id);
}

static struct link *link_of(struct sender *o, struct str name)
{
        if (name.n == 0 && o->n == 1)
                return &o->links[0];
        for (size_t i = 0; i < o->n; i++)
                if (str_eq(o->links[i].host.name, name.n ? name : STR("default")))
                        return &o->links[i];
        return NULL;
}

static bool do_item(struct job *j, struct err *e)
{
        struct link *k;

        if (j->item.kind == OUTBOX_COMMAND)
                return command(j, e);
        k = link_of(j->o, j->item.smarthost);
        if (k)
                return outbox_mail(j, k, e);
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
        if (o->due_n)
                qsort(o->due, o->due_n, sizeof *o->due, by_tries);
        for (size_t i = 0; i < o->due_n; i++) {
                if (outbox_stopped(o)) {
                        o->out->stopped = true;
                        o->out->left += o->due_n - i;
                        return true;
                }
                if (!do_id(o, o->due[i].id, e))
                        return false;
        }
        return true;
}

/* The one try of a process that died in it: nobody has heard of that yet. */
static bool tell_unknown(void *ctx, const struct outbox_item *i)
{
        struct sender *o = ctx;
        struct err e = { 0 };

        if (!str_eq(i->answer, UNKNOWN_SO_FAR))
                return true;
        o->out->dead++;
        log_error("outbox %lld: a run died while it sent this, and whether it has arrived is not known: kept as a dead letter (%.*s)", (long long)i->id,
                  STR_FMT(i->subject));
        if (!ledger_outbox_state(o->l, i->id, OUTBOX_DEAD, UNKNOWN_AND_SAID, &e))
                log_warn("%s", e.text);
        return true;
}

/* What concerns more than one item is said once, when it is known how many. */
static void sum_up(const struct sender *o)
{
        for (size_t i = 0; i < o->n; i++) {
                const struct link *k = &o->links[i];
                if (k->shut && !k->fatal)
                        log_warn("smarthost %.*s: %s; mail that waits for it: %llu", STR_FMT(k->host.name), k->why.text, (unsigned long long)k->waiting);
        }
        if (o->out->stopped)
                log_warn("stopped; left in the outbox, ready to be sent: %llu", (unsigned long long)o->out->left);
}

static void begin_links(struct sender *o, struct smarthost *const *hosts)
{
        for (size_t i = 0; i < o->n; i++) {
                o->links[i].host = *hosts[i];
                o->links[i].host.stop = o->stop;
        }
}

static void end_links(struct sender *o)
{
        sum_up(o);
        for (size_t i = 0; i < o->n; i++)
                outbox_hang_up(&o->links[i]);
        mem_free(o->links);
}

bool outbox_send(struct ledger *l, struct smarthost *const *hosts, size_t n, bool all, const atomic_bool *stop, struct outbox_result *out,
                 struct err *e)
{
        struct sender o = { .l = l, .n = n, .all = all, .stop = stop, .now = sys_now(), .out = out };
        struct err unseen;
        bool ok;
        int fd;

        e = e ? e : &unseen;
        memset(out, 0, sizeof *out);
        fd = lock(l, e);
        if (fd < 0)
                return false;
        o.links = mem_array(n + 1, sizeof *o.links);
        if (o.links) {
                begin_links(&o, hosts);
                ok = ledger_outbox(l, 1u << OUTBOX_DEAD, tell_unknown, &o, e) && send_listed(&o, e);
                if (ok && o.unread.code != ERR_NONE) {
                        *e = o.unread;
                        ok = false;
                }
                end_links(&o);
        } else {
                ok = err_nomem(e);
        }
        mem_free(o.due);
        close(fd);
        return ok;
}
