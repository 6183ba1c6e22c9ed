/* mailmill state: what is known of accounts, and the messages that are held. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/commit.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/supervise.h"
#include "core/sys.h"
#include "lua/cli.h"
#include "lua/report.h"

enum {
        SEEN = 1u << MARK_SEEN,
        KEPT = 1u << MARK_HELD | 1u << MARK_QUARANTINED | 1u << MARK_REFUSED,
};

struct listing {
        struct ledger *ledger;
        bool json;
        uint64_t n;
        int64_t id;             /* of the mark looked for */
        struct mark mark;
        struct ledger_account *accounts;
        size_t account_n;
        struct arena *arena;
        struct err e;
};

/* ---- accounts ---- */

static bool keep_account(void *ctx, const struct ledger_account *a)
{
        struct listing *l = ctx;
        struct ledger_account *grown = mem_resize(l->accounts, (l->account_n + 1) * sizeof *grown);

        if (!grown)
                return err_nomem(&l->e);
        l->accounts = grown;
        grown[l->account_n] = *a;
        grown[l->account_n].name = arena_str(l->arena, a->name);
        grown[l->account_n].mailbox = arena_str(l->arena, a->mailbox);
        l->account_n++;
        return true;
}

static struct str account_name(const struct listing *l, int64_t id)
{
        for (size_t i = 0; i < l->account_n; i++)
                if (l->accounts[i].id == id)
                        return l->accounts[i].name;
        return STR("?");
}

static bool load_accounts(struct listing *l, struct err *e)
{
        if (!ledger_accounts(l->ledger, keep_account, l, e))
                return false;
        if (l->e.code != ERR_NONE) {
                *e = l->e;
                return false;
        }
        return true;
}

static bool print_account(struct listing *l, const struct ledger_account *a, struct err *e)
{
        struct buf b = BUF_INIT;
        uint64_t seen, held;
        char when[32];

        if (!ledger_marks_count(l->ledger, a->id, SEEN, &seen, e) || !ledger_marks_count(l->ledger, a->id, KEPT, &held, e))
                return false;
        if (l->json) {
                buf_add_str(&b, STR("{\"account\":"));
                json_string(&b, a->name);
                buf_add_str(&b, STR(",\"mailbox\":"));
                json_string(&b, a->mailbox);
                buf_printf(&b, ",\"seen\":%" PRIu64 ",\"held\":%" PRIu64 ",\"last_run\":%" PRId64 "}\n", seen, held, a->last_run);
                if (buf_ok(&b, NULL))
                        fwrite(b.p, 1, b.n, stdout);
                buf_free(&b);
                return true;
        }
        cli_print(stdout, a->name);
        if (a->mailbox.n) {
                fputs("  (", stdout);
                cli_print(stdout, a->mailbox);
                fputs(")", stdout);
        }
        printf("  %" PRIu64 " seen, %" PRIu64 " held, last run %s\n", seen, held, cli_date(a->last_run, when));
        return true;
}

static bool list_accounts(struct listing *l, struct err *e)
{
        for (size_t i = 0; i < l->account_n; i++)
                if (!print_account(l, &l->accounts[i], e))
                        return false;
        if (l->account_n == 0 && !l->json)
                puts("No run has left anything here yet.");
        return true;
}

/* ---- held messages ---- */

static const char *state_word(const struct mark *m)
{
        switch (m->state) {
        case MARK_HELD: return "held";
        case MARK_QUARANTINED: return "quarantined";
        case MARK_REFUSED: return m->next_try == INT64_MAX ? "given up" : "refused";
        default: return "seen";
        }
}

static void print_mark(const struct listing *l, const struct mark *m)
{
        char when[32];

        printf("%5" PRId64 "  %-11s  %s  ", m->id, state_word(m), cli_date(m->first_seen, when));
        cli_print(stdout, account_name(l, m->account));
        fputs("  ", stdout);
        cli_print(stdout, m->uid);
        printf("  %u attempt%s\n         ", m->attempts, m->attempts == 1 ? "" : "s");
        cli_print(stdout, m->reason);
        putchar('\n');
}

/* done: what became of it, or NULL. */
static void json_mark(const struct listing *l, const struct mark *m, const char *done)
{
        struct buf b = BUF_INIT;

        buf_printf(&b, "{\"id\":%" PRId64 ",\"state\":\"%s\",\"account\":", m->id, state_word(m));
        json_string(&b, account_name(l, m->account));
        buf_add_str(&b, STR(",\"uid\":"));
        json_string(&b, m->uid);
        buf_printf(&b, ",\"size\":%" PRIu64 ",\"attempts\":%u,\"first_seen\":%" PRId64 ",\"reason\":", m->size, m->attempts, m->first_seen);
        json_string(&b, m->reason);
        if (done)
                buf_printf(&b, ",\"%s\":true", done);
        buf_add_str(&b, STR("}\n"));
        if (buf_ok(&b, NULL))
                fwrite(b.p, 1, b.n, stdout);
        buf_free(&b);
}

static bool list_mark(void *ctx, const struct mark *m)
{
        struct listing *l = ctx;

        l->n++;
        if (l->json)
                json_mark(l, m, NULL);
        else
                print_mark(l, m);
        return true;
}

static bool list_held(struct listing *l, bool say_none, struct err *e)
{
        if (!ledger_marks(l->ledger, 0, KEPT, list_mark, l, e))
                return false;
        if (l->n == 0 && !l->json && say_none)
                puts("Nothing is held.");
        return true;
}

/* ---- one held message ---- */

static bool match_mark(void *ctx, const struct mark *m)
{
        struct listing *l = ctx;

        if (m->id != l->id)
                return true;
        l->n = 1;
        l->mark = *m;
        l->mark.uid = arena_str(l->arena, m->uid);
        l->mark.reason = arena_str(l->arena, m->reason);
        l->mark.spool = arena_str(l->arena, m->spool);
        l->mark.origin = arena_str(l->arena, m->origin);
        return false;
}

static bool find(struct listing *l, struct str word, struct err *e)
{
        if (!cli_number(word, &l->id, e) || !ledger_marks(l->ledger, 0, KEPT, match_mark, l, e))
                return false;
        return l->n || err_set(e, ERR_ABSENT, "state %.*s: no held message has that number", STR_FMT(word));
}

/* What is known of it, and the message itself as it lies in the spool. */
static bool show(struct listing *l, struct err *e)
{
        char block[65536];
        ssize_t n;
        int fd;

        if (l->mark.state == MARK_REFUSED)
                return err_set(e, ERR_ABSENT, "the server did not give this message: %.*s", STR_FMT(l->mark.reason));
        fd = staging_spool_open(l->ledger, l->mark.spool, e);
        if (fd < 0)
                return err_in(e, "the message's bytes");
        fprintf(stderr, "mailmill: ");
        cli_print(stderr, l->mark.reason);
        fputc('\n', stderr);
        while ((n = sys_read(fd, block, sizeof block, e)) > 0)
                fwrite(block, 1, (size_t)n, stdout);
        close(fd);
        return n == 0;
}

static void tell(const struct listing *l, const char *done, const char *words)
{
        if (l->json) {
                json_mark(l, &l->mark, done);
        } else {
                print_mark(l, &l->mark);
                puts(words);
        }
}

/* Not held any more: an account's next run fetches it again if the server still has it. */
static bool forget(struct listing *l, struct err *e)
{
        return ledger_mark_forget(l->ledger, l->mark.id, e);
}

/* The next run tries it again as if it had never failed. */
static bool requeue(struct listing *l, struct err *e)
{
        if (l->mark.state == MARK_QUARANTINED)
                l->mark.state = MARK_HELD;
        l->mark.attempts = 0;
        l->mark.next_try = 0;
        return ledger_mark_put(l->ledger, &l->mark, e);
}

/* Looked for and changed in one transaction: a run may settle it in between, and its mark is not to come back without its bytes. */
static bool change(struct listing *l, bool forgets, struct str operand, struct err *e)
{
        if (!ledger_begin(l->ledger, e))
                return false;
        if (!find(l, operand, e) || !(forgets ? forget(l, e) : requeue(l, e))) {
                ledger_rollback(l->ledger);
                return false;
        }
        if (!ledger_commit(l->ledger, e))
                return false;
        tell(l, forgets ? "forgotten" : "requeued", forgets ? "forgotten" : "the next run tries it again");
        return true;
}

/* ---- the commands ---- */

static bool perform(struct listing *l, struct str verb, const struct str *operand, struct err *e)
{
        if (str_eq(verb, STR("accounts")))
                return list_accounts(l, e);
        if (str_eq(verb, STR("held")))
                return list_held(l, true, e);
        if (str_eq(verb, STR("all")))
                return list_accounts(l, e) && list_held(l, false, e);
        if (!operand)
                return err_set(e, ERR_USAGE, "state %.*s: which one? The numbers stand in `mailmill state held`", STR_FMT(verb));
        if (str_eq(verb, STR("show")))
                return find(l, *operand, e) && show(l, e);
        return change(l, str_eq(verb, STR("forget")), *operand, e);
}

static bool known(struct str verb)
{
        static const char *const verbs[] = { "accounts", "held", "all", "show", "forget", "requeue" };

        for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
                if (str_eq(verb, str_of(verbs[i])))
                        return true;
        return false;
}

static int act(struct options *o, struct str verb, const struct str *operand)
{
        bool writes = str_eq(verb, STR("forget")) || str_eq(verb, STR("requeue"));
        struct listing l = { .json = o->json, .arena = o->arena };
        struct err e = { 0 };
        bool ok;

        l.ledger = cli_ledger(o, !writes, &e);
        ok = l.ledger && load_accounts(&l, &e) && perform(&l, verb, operand, &e);
        ledger_close(l.ledger);
        mem_free(l.accounts);
        return ok ? EX_OK : cli_fail(&e);
}

/* ---- --mark-all-seen: a run that marks by UID alone, and whose script discards what has none of its own and must be read ---- */

static enum verdict discard(void *ctx, struct plan *p, struct err *e)
{
        p->discarded = true;
        p->leave_set = true;       /* seen is not done with: nothing leaves the server because of this */
        p->leave = LEAVE_ALWAYS;
        return RUN_DONE;
}

static void release(void *ctx, struct plan *p)
{
}

static int mark_all(struct options *o, struct engine *en)
{
        struct report_options ro = { .json = o->json, .verbose = o->verbose, .quiet = o->quiet };
        struct report *report = report_new(&ro);
        struct script script = { NULL, discard, discard, release, NULL };
        struct run_config c = { 0 };
        struct run_hooks hooks;
        struct run_result res = { 0 };
        struct ledger *l = NULL;
        struct err e = { 0 };
        bool ok = report && cli_config(o, en, &c, &e) && (l = cli_ledger(o, false, &e)) != NULL;

        if (!report)
                err_nomem(&e);
        if (ok) {
                hooks = report_hooks(report);
                c.mark_seen = true;
                ok = run_all(&c, &script, &hooks, l, &res, &e);
                ok = run_over(l, &res, ok, &e) && ok;
                report_end(report, &res, NULL);
        }
        ledger_close(l);
        report_free(report);
        if (!ok)
                return cli_fail(&e);
        printf("%" PRIu64 " marked as seen\n", res.messages + res.marked);
        return cli_end_output(res.sources_failed ? err_exit_code(res.worst == ERR_NONE ? ERR_IO : res.worst) : EX_OK);
}

static int mark_worker(void *ctx)
{
        struct options *o = ctx;
        struct err e = { 0 };
        int code = EX_OK;
        struct engine *en = cli_listen(&e) ? cli_script(o, true, &code) : NULL;

        if (en)
                code = mark_all(o, en);
        else if (e.code != ERR_NONE)
                code = cli_fail(&e);
        engine_free(en);
        return code;
}

static int mark_all_seen(struct options *o, const struct str *words, size_t n)
{
        if (n == 0)
                return cli_usage("whose accounts? mailmill state --mark-all-seen SCRIPT [ACCOUNT…]");
        o->script = o->script_name = words[0].p;
        for (size_t i = 1; i < n; i++)
                o->accounts[o->account_n++] = words[i].p;
        o->arg_n = 0;
        return supervise(mark_worker, o);
}

int cmd_state(struct options *o)
{
        struct err e = { 0 };
        struct str *words, verb = STR("all");
        size_t n;

        if (!options_refuse_unknown(o, &e))
                return cli_fail(&e);
        words = options_operands(o, &n);
        if (o->mark_all_seen)
                return mark_all_seen(o, words, n);
        if (n > 0)
                verb = words[0];
        if (!known(verb))
                return cli_usage("state %.*s: possible are accounts, held, show, forget and requeue", STR_FMT(verb));
        if (n > (str_eq(verb, STR("show")) || str_eq(verb, STR("forget")) || str_eq(verb, STR("requeue")) ? 2 : 1))
                return cli_usage("state %.*s: too many words behind it", STR_FMT(verb));
        if (o->json && str_eq(verb, STR("show")))
                return cli_usage("state show prints the message as it is: --json does not go with it");
        return act(o, verb, n > 1 ? &words[1] : NULL);
}
