/* mailmill outbox: mail and commands that are durable and not yet done. */
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "core/confine.h"
#include "core/log.h"
#include "core/outbox.h"
#include "core/supervise.h"
#include "core/sys.h"
#include "lua/cli.h"
#include "lua/options.h"

enum { ALL_STATES = 1u << OUTBOX_READY | 1u << OUTBOX_WAITING | 1u << OUTBOX_DEAD };

static const char *state_word(const struct outbox_item *i)
{
        return i->state == OUTBOX_WAITING ? "waiting" : i->state == OUTBOX_DEAD ? "dead" : "ready";
}

static void print_words(const struct str *list, size_t n, const char *between)
{
        for (size_t i = 0; i < n; i++) {
                fputs(i ? between : "", stdout);
                cli_print(stdout, list[i]);
        }
}

static void print_item(const struct outbox_item *i)
{
        char when[32];

        printf("%5" PRId64 "  %-7s  %s  ", i->id, state_word(i), cli_date(i->created, when));
        if (i->kind == OUTBOX_MAIL) {
                fputs("to ", stdout);
                print_words(i->recipients, i->recipient_count, ", ");
        } else {
                fputs("run ", stdout);
                print_words(i->argv, i->argc, " ");
        }
        fputs("  ", stdout);
        cli_print(stdout, i->subject);
        if (i->source.n) {
                fputs("  (from ", stdout);
                cli_print(stdout, i->source);
                fputs(")", stdout);
        }
        putchar('\n');
        if (i->tries || i->state == OUTBOX_DEAD) {
                printf("                 %u tr%s", i->tries, i->tries == 1 ? "y" : "ies");
                if (i->state == OUTBOX_READY)
                        printf(", again at %s", cli_date(i->next_try, when));
                fputs(i->answer.n ? ": " : "", stdout);
                cli_print(stdout, i->answer);
                putchar('\n');
        }
}

static void json_text(struct buf *b, const char *key, struct str s)
{
        buf_printf(b, ",\"%s\":", key);
        json_string(b, s);
}

static void json_texts(struct buf *b, const char *key, const struct str *list, size_t n)
{
        buf_printf(b, ",\"%s\":[", key);
        for (size_t i = 0; i < n; i++) {
                if (i)
                        buf_add_char(b, ',');
                json_string(b, list[i]);
        }
        buf_add_char(b, ']');
}

static void json_item(const struct outbox_item *i, bool dropped)
{
        struct buf b = BUF_INIT;

        buf_printf(&b, "{\"id\":%" PRId64 ",\"state\":\"%s\",\"created\":%" PRId64 ",\"next_try\":%" PRId64 ",\"tries\":%u", i->id, state_word(i),
                   i->created, i->next_try, i->tries);
        json_text(&b, "action", i->action);
        if (i->kind == OUTBOX_MAIL) {
                json_text(&b, "sender", i->sender);
                json_texts(&b, "to", i->recipients, i->recipient_count);
                json_text(&b, "smarthost", i->smarthost);
        } else {
                json_texts(&b, "argv", i->argv, i->argc);
        }
        json_text(&b, "subject", i->subject);
        json_text(&b, "source", i->source);
        json_text(&b, "answer", i->answer);
        if (dropped)
                buf_add_str(&b, STR(",\"dropped\":true"));
        buf_add_str(&b, STR("}\n"));
        if (buf_ok(&b, NULL))
                fwrite(b.p, 1, b.n, stdout);
        buf_free(&b);
}

struct listing {
        bool json;
        uint64_t n;
};

static bool list_one(void *ctx, const struct outbox_item *i)
{
        struct listing *l = ctx;

        l->n++;
        if (l->json)
                json_item(i, false);
        else
                print_item(i);
        return true;
}

static bool list(const struct options *o, struct ledger *l, struct err *e)
{
        struct listing how = { o->json, 0 };

        if (!ledger_outbox(l, ALL_STATES, list_one, &how, e))
                return false;
        if (how.n == 0 && !o->json)
                puts("The outbox is empty.");
        return true;
}

static bool release_some(const struct options *o, struct ledger *l, const struct str *id, struct err *e)
{
        int64_t number = 0;
        uint64_t n = 0;

        if (id && !cli_number(*id, &number, e))
                return false;
        if (!ledger_outbox_release(l, number, &n, e))
                return false;
        if (id && n == 0)
                return err_set(e, ERR_ABSENT, "outbox %.*s: there is nothing of that number that waits", STR_FMT(*id));
        if (o->json)
                printf("{\"released\":%" PRIu64 "}\n", n);
        else
                printf("%" PRIu64 " released; `mailmill outbox flush SCRIPT` sends now, else the script's next run does\n", n);
        return true;
}

static bool drop(const struct options *o, struct ledger *l, struct str id, struct err *e)
{
        struct outbox_item item;
        bool found;
        int64_t number;

        if (!cli_number(id, &number, e) || !ledger_outbox_get(l, number, &item, &found, o->arena, e))
                return false;
        if (!found)
                return err_set(e, ERR_ABSENT, "outbox %.*s: there is nothing of that number", STR_FMT(id));
        if (!ledger_outbox_remove(l, number, e))
                return false;
        if (o->json) {
                json_item(&item, true);
        } else {
                print_item(&item);
                puts("dropped");
        }
        return true;
}

static void print_result(const struct options *o, const struct outbox_result *r)
{
        if (o->json) {
                printf("{\"sent\":%" PRIu64 ",\"commands\":%" PRIu64 ",\"later\":%" PRIu64 ",\"dead\":%" PRIu64 ",\"untried\":%" PRIu64
                       ",\"unknown_smarthost\":%" PRIu64 "}\n", r->sent, r->commands, r->later, r->dead, r->untried, r->unknown_host);
                return;
        }
        printf("%" PRIu64 " sent, %" PRIu64 " commands run, %" PRIu64 " to be tried again later, %" PRIu64 " refused for good\n", r->sent, r->commands, r->later,
               r->dead);
        if (r->untried)
                printf("%" PRIu64 " left: their smarthost did not let us in\n", r->untried);
}

static int flush_result(const struct options *o, const struct outbox_result *r)
{
        print_result(o, r);
        if (r->unknown_host)
                log_error("%" PRIu64 " mails stay: their smarthost is not known here; `mailmill outbox flush SCRIPT` takes them from the script", r->unknown_host);
        if (r->stopped)
                return EX_TEMPFAIL;
        return r->dead ? EX_UNAVAILABLE : r->untried ? err_exit_code(r->worst) : r->later || r->unknown_host ? EX_TEMPFAIL : EX_OK;
}

/* It sends what the state holds: it writes there alone, and connects to the smarthosts alone. */
static bool confine_flush(const struct options *o, const struct run_config *c, struct ledger *l, struct err *e)
{
        const char *state = ledger_path(l);
        struct confinement to = { .dirs = &state, .dir_n = 1 };
        unsigned *ports = arena_alloc(o->arena, (c->host_n + 1) * sizeof *ports), got = 0;

        if (o->allow & CLI_UNCONFINED)
                return true;
        if (!ports)
                return err_nomem(e);
        for (size_t i = 0; i < c->host_n; i++)
                ports[to.port_n++] = c->hosts[i]->port;
        to.ports = ports;
        if (!confine(&to, &got, e))
                return false;
        confine_tell(got);
        return true;
}

/* Smarthosts come from the script named, and from init.lua; commands need the supervisor. */
static int flush(void *ctx)
{
        struct options *o = ctx;
        struct run_config c = { 0 };
        struct outbox_result r = { 0 };
        struct err e = { 0 };
        struct ledger *l = NULL;
        struct engine *en;
        int code = EX_OK;

        if (!cli_listen(&e))
                return cli_fail(&e);
        en = cli_script(o, false, &code);
        if (!en)
                return code;
        if (!cli_config(o, en, &c, &e) || !(l = cli_ledger(o, false, &e)) || !confine_flush(o, &c, l, &e) ||
            !outbox_send(l, c.hosts, c.host_n, true, run_stop_flag(), &r, &e))
                code = cli_fail(&e);
        else
                code = flush_result(o, &r);
        ledger_close(l);
        engine_free(en);
        return cli_end_output(code);
}

static int flush_with(struct options *o, struct str *script)
{
        o->arg_n = 0;
        if (script)
                o->script = o->script_name = script->p;
        else
                o->code = ""; /* init.lua alone */
        return supervise(flush, o);
}

static int act(struct options *o, struct str verb, struct str *operand)
{
        bool reads = str_eq(verb, STR("list"));
        struct err e = { 0 };
        struct ledger *l = cli_ledger(o, reads, &e);
        bool ok = l != NULL;

        if (ok && reads)
                ok = list(o, l, &e);
        else if (ok && str_eq(verb, STR("release")))
                ok = release_some(o, l, operand, &e);
        else if (ok && operand)
                ok = drop(o, l, *operand, &e);
        else if (ok)
                ok = err_set(&e, ERR_USAGE, "drop which one? mailmill outbox drop ID");
        ledger_close(l);
        return ok ? EX_OK : cli_fail(&e);
}

int cmd_outbox(struct options *o)
{
        struct err e = { 0 };
        struct str verb = STR("list"), *words;
        size_t n;

        if (!options_refuse_unknown(o, &e))
                return cli_fail(&e);
        words = options_operands(o, &n);
        if (n > 0)
                verb = words[0];
        if (n > 2)
                return cli_usage("outbox %.*s: too many words behind it", STR_FMT(verb));
        if (str_eq(verb, STR("flush")))
                return flush_with(o, n > 1 ? &words[1] : NULL);
        if (!str_eq(verb, STR("list")) && !str_eq(verb, STR("release")) && !str_eq(verb, STR("drop")))
                return cli_usage("outbox %.*s: possible are list, release, flush and drop", STR_FMT(verb));
        if (n > 1 && str_eq(verb, STR("list")))
                return cli_usage("outbox list: too many words behind it");
        return act(o, verb, n > 1 ? &words[1] : NULL);
}
