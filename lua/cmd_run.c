/* mailmill [run]: a script over its sources, then what may leave leaves. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/log.h"
#include "core/outbox.h"
#include "core/supervise.h"
#include "lua/cli.h"
#include "lua/deadline.h"
#include "lua/report.h"

struct running {
        const struct options *o;
        struct engine *engine;
        struct script inner;      /* the engine's callbacks */
        struct report *report;
        struct run_config config;
        struct ledger *ledger;
        bool unread;              /* standard output is closed: nobody listens any more */
};

/* As a program that dies of SIGPIPE, but what was decided is carried out. */
static void notice_closed_output(struct running *r)
{
        if (!r->unread && report_unread(r->report)) {
                r->unread = true;
                run_stop();
        }
}

/* A handler may print: the progress lines leave the screen first. */
static enum verdict decide(void *ctx, struct plan *p, struct err *e)
{
        struct running *r = ctx;

        report_clear(r->report);
        notice_closed_output(r);
        return r->inner.decide(r->inner.ctx, p, e);
}

static enum verdict resume(void *ctx, struct plan *p, struct err *e)
{
        struct running *r = ctx;

        report_clear(r->report);
        return r->inner.resume(r->inner.ctx, p, e);
}

static enum verdict finish(void *ctx, struct plan *p, struct err *e)
{
        struct running *r = ctx;

        report_clear(r->report);
        return r->inner.finish(r->inner.ctx, p, e);
}

static void release(void *ctx, struct plan *p)
{
        struct running *r = ctx;

        r->inner.release(r->inner.ctx, p);
}

static bool note_ready(void *ctx, const struct outbox_item *i)
{
        bool *command = ctx;

        *command = i->kind == OUTBOX_COMMAND;
        return !*command;
}

/* What is ready leaves: mail where a smarthost is known, commands always. */
static bool send_ready(struct running *r, struct outbox_result *sent, struct err *e)
{
        bool command = false;

        if (!ledger_outbox(r->ledger, 1u << OUTBOX_READY, note_ready, &command, e))
                return false;
        if (!command && r->config.host_n == 0)
                return true;
        if (outbox_send(r->ledger, r->config.hosts, r->config.host_n, false, run_stop_flag(), sent, e))
                return true;
        if (e->code != ERR_BUSY)
                return false;
        log_info("the outbox is being sent by another process");
        return true;
}

static int code_of(const struct run_result *res, const struct outbox_result *sent)
{
        if (res->sources_failed || res->worst != ERR_NONE)
                return err_exit_code(res->worst == ERR_NONE ? ERR_IO : res->worst);
        if (sent->stopped || res->held || res->quarantined || res->undone || res->stopped)
                return EX_TEMPFAIL;
        if (res->limited)
                return EX_DATAERR;
        return sent->dead ? EX_UNAVAILABLE : sent->untried ? err_exit_code(sent->worst) : EX_OK;
}

/* The last thing done: until then this run counts as cut off. */
static bool forget_marks(struct running *r, struct run_result *res, bool whole)
{
        struct err e = { 0 };

        if (run_over(r->ledger, res, whole, &e))
                return true;
        log_error("%s", e.text);
        return false;
}

static int run_and_send(struct running *r)
{
        struct run_result res = { 0 };
        struct outbox_result sent = { 0 };
        struct err e = { 0 };
        struct run_hooks hooks = report_hooks(r->report);
        struct script script = { r, decide, resume, release, finish };
        bool ok = run_all(&r->config, &script, &hooks, r->ledger, &res, &e), outgoing, whole = ok;
        int code = ok ? EX_OK : err_exit_code(e.code);

        report_clear(r->report);
        outgoing = ok && !r->config.dry && !run_stopped();
        if (outgoing && !send_ready(r, &sent, &e)) {
                code = err_exit_code(e.code);
                log_error("sending the outbox: %s", e.text);
                whole = false;
        }
        if (!forget_marks(r, &res, whole && !run_stopped()) && code == EX_OK)
                code = EX_IOERR;
        report_end(r->report, &res, outgoing ? &sent : NULL);
        if (!ok && !res.sources_failed && res.worst == ERR_NONE)
                return code; /* the run has said why */
        return code != EX_OK ? code : code_of(&res, &sent);
}

static int with_script(struct running *r)
{
        struct err e = { 0 };
        int code;

        if (!cli_config(r->o, r->engine, &r->config, &e) || !cli_sources(r->o, r->engine, &r->config, &e))
                return cli_fail(&e);
        if (engine_rule_count(r->engine) == 0 && r->config.account_n == 0)
                return cli_usage("%s has neither mail.rule nor mail.on_message: there is nothing to decide", r->o->script);
        r->config.confine = !(r->o->allow & CLI_UNCONFINED);
        r->ledger = cli_ledger(r->o, r->o->dry, &e);
        code = r->ledger ? run_and_send(r) : cli_fail(&e);
        ledger_close(r->ledger);
        return code;
}

static void say_allowed(const struct options *o)
{
        char words[64];

        engine_allow_words(o->allow, words, sizeof words);
        if (words[0])
                log_info("--allow %s: the script has what is kept from others", words);
        if (o->allow & CLI_UNCONFINED)
                log_info("the worker is not confined: the script may write and start programs itself");
}

static int worker(void *ctx)
{
        const struct options *o = ctx;
        struct report_options ro = { .dry = o->dry, .json = o->json, .verbose = o->verbose, .quiet = o->quiet };
        struct running r = { .o = o };
        struct err e = { 0 };
        int code = EX_OSERR;

        if (!cli_listen(&e))
                return cli_fail(&e);
        say_allowed(o);
        r.report = report_new(&ro);
        if (!r.report)
                return cli_usage("there is no memory, or no standard output");
        r.engine = cli_script(o, false, &code);
        if (r.engine) {
                r.inner = engine_script(r.engine);
                if (hand_restarted())
                        log_warn("the script begins afresh: its global variables are as at the start");
                code = with_script(&r);
        }
        code = cli_end_output(code); /* before the finalizers: one that does not end takes none of it away */
        deadline_last(code);
        engine_free(r.engine);
        code = cli_end_output(code);
        report_free(r.report);
        return code;
}

int cmd_run(struct options *o)
{
        if (!o->script && !o->code)
                return cli_usage("which script? mailmill [run] SCRIPT [SOURCE…]");
        if (o->again && o->failed)
                return cli_usage("--again and --failed ask for different messages");
        if (o->resume && o->from_start)
                return cli_usage("--resume and --from-start ask for different messages");
        return supervise(worker, o);
}
