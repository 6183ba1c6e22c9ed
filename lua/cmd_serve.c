/* mailmill serve: a POP3 server on the loopback interface, over any source. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/log.h"
#include "core/server.h"
#include "core/sys.h"
#include "lua/cli.h"

enum { PASSWORD_LETTERS = 20 };  /* of 32: 100 bits */

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
        stop = 1;
}

static bool stopped(void)
{
        return stop;
}

static void generate(char out[PASSWORD_LETTERS + 1])
{
        static const char letters[] = "abcdefghijkmnpqrstuvwxyz23456789";
        unsigned char random[PASSWORD_LETTERS];

        sys_random(random, sizeof random);
        for (size_t i = 0; i < PASSWORD_LETTERS; i++)
                out[i] = letters[random[i] % 32];
        out[PASSWORD_LETTERS] = '\0';
}

static bool listen_to_signals(struct err *e)
{
        struct sigaction sa = { .sa_handler = on_signal };

        return (sigaction(SIGINT, &sa, NULL) == 0 && sigaction(SIGTERM, &sa, NULL) == 0) || err_sys(e, ERR_IO, errno, "setting up signals");
}

static void announce(const struct options *o, const struct server *s, const struct server_options *so)
{
        if (o->json) {
                printf("{\"host\":\"127.0.0.1\",\"port\":%u,\"user\":\"%s\",\"password\":\"%s\",\"tls\":%s,\"messages\":%zu}\n", server_port(s), so->user.p,
                       so->password.p, so->tls ? "true" : "false", server_count(s));
        } else {
                printf("%zu message%s on 127.0.0.1 port %u (POP3%s)\nuser %s\npassword %s\nInterrupt (Ctrl-C) ends it; the source is never changed.\n",
                       server_count(s), server_count(s) == 1 ? "" : "s", server_port(s), so->tls ? " over TLS" : " without TLS", so->user.p,
                       so->password.p);
        }
        fflush(stdout);
}

static bool serve(const struct options *o, struct str path, struct tls_server *tls, struct err *e)
{
        char password[PASSWORD_LETTERS + 1];
        struct server_options so = { .port = (unsigned)o->port, .user = str_of(o->user ? o->user : "mailmill"), .tls = tls, .stopped = stopped };
        const char *tmp = getenv("TMPDIR");
        struct source *src = source_open(path, &limits_default, tmp && *tmp ? tmp : "/tmp", e);
        struct server *s;
        bool ok;

        if (!src)
                return false;
        generate(password);
        so.password = str_of(password);
        s = server_new(src, &so, e);
        if (s)
                announce(o, s, &so);
        ok = s && server_run(s, e);
        server_free(s);
        source_free(src);
        return ok;
}

int cmd_serve(struct options *o)
{
        struct tls_server *tls = NULL;
        struct str *words;
        struct err e = { 0 };
        size_t n;
        bool ok;

        if (!options_refuse_unknown(o, &e))
                return cli_fail(&e);
        words = options_operands(o, &n);
        if (n != 1)
                return cli_usage(n ? "serve takes one source" : "what is to be served? mailmill serve SOURCE");
        if (!o->cert != !o->key)
                return cli_usage("--cert and --key go together");
        for (const char *p = o->user; p && *p; p++)
                if (!ascii_is_alnum(*p) && !strchr(".-_@+", *p))
                        return cli_usage("--user '%s': letters, digits and . - _ @ + are possible", o->user);
        ok = listen_to_signals(&e) && (!o->cert || (tls = tls_server_new(o->cert, o->key, &e)) != NULL) && serve(o, words[0], tls, &e);
        tls_server_free(tls);
        return ok ? EX_OK : cli_fail(&e);
}
