/* What a server says, whatever is asked: the account's source comes to its end, and hands out no message whose end was not sent.
 * A NUL, "--" and a NUL end a session; what follows is said in the next. Connections are made here, in place of core/net.c. */
#include <ftw.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/net.h"
#include "core/pop3.h"
#include "tests/fuzz/fuzz.h"

enum { SESSIONS = 8, GIVEN = 3000 };

static struct str left;          /* what was not yet said */
static int peers[SESSIONS];
static unsigned sessions;

int net_connect(struct str host, unsigned port, int64_t deadline, const atomic_bool *stop, struct err *e)
{
        struct str said = str_first(left, str_find_str(left, STR("\0--\0")));
        int fd[2];

        if (sessions == SESSIONS || (left.n == 0 && sessions > 0)) {
                err_set(e, ERR_NET, "nobody is there");
                return -1;
        }
        left = str_from(left, said.n + 4);
        MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
        MUST(send(fd[1], said.p ? said.p : "", said.n, MSG_DONTWAIT) == (ssize_t)said.n);
        shutdown(fd[1], SHUT_WR);
        peers[sessions++] = fd[1]; /* open, so that what the client says has somewhere to go */
        return fd[0];
}

/* Patience costs nothing here. */
int nanosleep(const struct timespec *want, struct timespec *rest)
{
        (void)want, (void)rest;
        return 0;
}

static struct ledger *ledger;
static char dir[64];

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
        (void)st, (void)flag, (void)ftw;
        return remove(path);
}

static void clean(void)
{
        ledger_close(ledger);
        nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void silent(void *ctx, enum log_level level, struct str line)
{
        (void)ctx, (void)level;
        MUST(without_controls(line, ""));
}

static void start(void)
{
        struct err e;

        snprintf(dir, sizeof dir, "%s/mailmill-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        MUST(mkdtemp(dir));
        ledger = ledger_open(dir, false, &e);
        MUST(ledger);
        atexit(clean);
        log_set_sink(silent, NULL);
}

static struct buf lf_form(struct str in)
{
        struct buf out = BUF_INIT;

        for (size_t i = 0; i < in.n; i++)
                if (in.p[i] != '\r' || i + 1 == in.n || in.p[i + 1] != '\n')
                        MUST(buf_add_char(&out, in.p[i]));
        return out;
}

/* Its last line stands in the input (perhaps with its stuffing), and a line of one dot behind it. */
static void check_ended(struct message *m, struct str input)
{
        struct buf lf = lf_form(input), want = BUF_INIT;
        struct str text, last;

        MUST(range_in_memory(message_range(m), &text) && text.n > 0 && text.p[text.n - 1] == '\n');
        text.n--;
        last = str_find(text, '\n') < text.n ? str_from(text, str_rfind(text, '\n') + 1) : text;
        MUST(buf_add_char(&want, '\n') && buf_add_str(&want, last) && buf_add_str(&want, STR("\n.\n")));
        if (str_find_str(buf_str(&lf), buf_str(&want)) == lf.n) {
                buf_clear(&want);
                MUST(buf_add_str(&want, STR("\n.")) && buf_add_str(&want, last) && buf_add_str(&want, STR("\n.\n")));
                MUST(str_find_str(buf_str(&lf), buf_str(&want)) < lf.n);
        }
        buf_free(&lf);
        buf_free(&want);
}

static void run(struct source *s, struct str input, struct dice *d)
{
        struct err e = { 0 };
        struct message *m = NULL;
        unsigned n = 0;

        while (s->ops->next(s, &m, &e) && m) {
                struct outcome o = { .number = message_origin(m)->number, .kind = (enum outcome_kind)dice_roll(d, 3) };

                MUST(++n < GIVEN);
                check_ended(m, input);
                message_free(m);
                s->ops->settle(s, &o, 1);
        }
        MUST(m == NULL);
        (void)!s->ops->finish(s, &e);
        source_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char *const mechanisms[] = { "", "", "user", "plain", "login", "apop" };
        struct str in = fuzz_str(data, size);
        struct dice d = dice_of(in);
        struct account acc = {
                .name = STR("fuzz"), .host = STR("pop.example.com"), .user = STR("me"), .port = 110, .tls = TLS_NONE,
                .leave = dice_roll(&d, 2) ? LEAVE_NEVER : LEAVE_ALWAYS, .auth = str_of(mechanisms[dice_roll(&d, 6)]), .timeout_ms = 5000,
        };
        struct pop3_options o = { .dry = dice_roll(&d, 4) > 0, .now = 1800000000 };
        struct ledger_account la = { .id = 7, .name = STR("fuzz"), .mailbox = STR("me@pop.example.com"), .no_pipeline = dice_roll(&d, 3) == 0 };
        struct source *s;
        struct err e;

        if (!ledger)
                start();
        left = in;
        acc.password = secret_literal(STR("pw"));
        s = pop3_source(&acc, &la, ledger, &limits_default, dir, &o, &e);
        MUST(s);
        run(s, in, &d);
        secret_unref(acc.password);
        while (sessions > 0)
                close(peers[--sessions]);
        return 0;
}
