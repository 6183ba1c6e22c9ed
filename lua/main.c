/* mailmill: the command line. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "core/confine.h"
#include "core/log.h"
#include "core/map.h"
#include "core/spawn.h"
#include "core/sys.h"
#include "lua/cli.h"

static int cmd_help(struct options *o)
{
        const struct command *c = NULL;
        size_t n;
        struct str *words = options_operands(o, &n);

        for (const struct command *k = commands; n > 0 && k->name; k++)
                if (str_eq(words[0], str_of(k->name)))
                        c = k;
        if (n > 0 && !c)
                return cli_usage("help %.*s: there is no such command (mailmill %.*s --help is for scripts)", STR_FMT(words[0]), STR_FMT(words[0]));
        options_print_help(c);
        return EX_OK;
}

static int cmd_version(struct options *o)
{
        puts("mailmill " MAILMILL_VERSION);
        return EX_OK;
}

const struct command commands[] = {
        { "run", "[OPTION…] SCRIPT [SOURCE…]\n-e CODE SOURCE…", "decides about messages with a script, or with CODE, the body of a handler of m", cmd_run },
        { "check", "SCRIPT…", "finds unknown fields, options and names, all at once; nothing is connected to or decided", cmd_check },
        { "serve", "SOURCE [--port N] [--user NAME] [--cert FILE --key FILE]", "a POP3 server on the loopback interface, over any source", cmd_serve },
        { "outbox", "[list]\nrelease [ID]\nflush [SCRIPT]\ndrop ID", "mail and commands that wait to leave; release: past the flood guard, flush: try now, drop: give up", cmd_outbox },
        { "state", "[accounts]\nheld\nshow ID\nforget ID\nrequeue ID\n--mark-all-seen SCRIPT [ACCOUNT…]", "accounts and held messages; show: print one, forget: hold it no more, requeue: try it in the next run", cmd_state },
        { "help", "[COMMAND]", "this text, or that of one command", cmd_help },
        { "version", "", "the version", cmd_version },
        { NULL, NULL, NULL, NULL },
};

int cli_fail(const struct err *e)
{
        log_error("%s", e->text);
        return err_exit_code(e->code);
}

int cli_usage(const char *fmt, ...)
{
        struct err e;
        char text[ERR_TEXT_MAX / 2];
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        err_set(&e, ERR_USAGE, "%s", text);
        return cli_fail(&e);
}

void cli_print(FILE *f, struct str s)
{
        char text[2048];

        fwrite(text, 1, log_escape(s, text, sizeof text), f);
}

int cli_end_output(int code)
{
        struct pollfd p = { .fd = STDOUT_FILENO };
        bool ok = fflush(stdout) == 0 && !ferror(stdout);

        if (ok || (poll(&p, 1, 0) == 1 && (p.revents & POLLERR)))
                return code;
        log_error("standard output can't be written%s%s", errno ? ": " : "", errno ? strerror(errno) : "");
        return code == EX_OK ? EX_IOERR : code;
}

const char *cli_date(int64_t when, char out[32])
{
        time_t t = (time_t)when;
        struct tm tm;

        if (when <= 0 || !localtime_r(&t, &tm) || strftime(out, 32, "%Y-%m-%d %H:%M", &tm) == 0)
                snprintf(out, 32, "-");
        return out;
}

struct ledger *cli_ledger(const struct options *o, bool readonly, struct err *e)
{
        const char *dir = options_state_dir(o, e);

        return dir ? ledger_open(dir, readonly, e) : NULL;
}

bool cli_number(struct str s, int64_t *id, struct err *e)
{
        uint64_t n;

        if (!str_to_u64(s, INT64_MAX, &n) || n == 0)
                return err_set(e, ERR_USAGE, "'%.*s' is no number of an entry", STR_FMT(s));
        *id = (int64_t)n;
        return true;
}

static void on_term(int sig)
{
        run_stop();
}

bool cli_listen(struct err *e)
{
        struct sigaction sa = { .sa_handler = on_term };

        return sigaction(SIGTERM, &sa, NULL) == 0 || err_sys(e, ERR_IO, errno, "setting up signals");
}

/* Descriptors 0 to 2 exist, whatever the caller closed: a file of ours must never become standard output. */
static void open_standard(void)
{
        int fd;

        do
                fd = open("/dev/null", O_RDWR);
        while (fd >= 0 && fd <= 2);
        if (fd > 2)
                close(fd);
}

static int perform(struct options *o, int argc, char **argv)
{
        struct err e = { 0 };

        if (!options_parse(o, argc, argv, &e))
                return cli_fail(&e);
        log_set_level(o->verbose ? LOG_INFO : o->quiet ? LOG_ERROR : LOG_WARN);
        if (o->help && !o->script) {
                options_print_help(o->command);
                return EX_OK;
        }
        if (!o->command)
                return cli_usage("what is to be done? mailmill SCRIPT [SOURCE…], or mailmill --help");
        return o->command->run(o);
}

int main(int argc, char **argv)
{
        struct options o = { 0 };
        struct err e = { 0 };
        uint8_t seed[16];
        int code;

        confine_memory();
        open_standard();
        if (!spawn_hide_environment(&e))
                return cli_fail(&e);
        tzset();
        signal(SIGPIPE, SIG_IGN);
        signal(SIGXFSZ, SIG_IGN); /* a file-size limit is an error like a full disk, not a death */
        sys_random(seed, sizeof seed);
        map_seed(seed);
        code = cli_end_output(perform(&o, argc, argv));
        arena_free(o.arena);
        return code;
}
