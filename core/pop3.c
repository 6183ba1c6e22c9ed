/* The session: greeting, status lines, CAPA, STLS, QUIT. Login is in pop3_login.c, the listing in pop3_list.c. */
#include "core/pop3_int.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/sasl.h"
#include "core/sys.h"
#include "core/tls.h"

enum {
        COMMAND_MAX = 8 << 10,
        CAPA_LINES_MAX = 1000,
        CAPA_LINE_MAX = 8 << 10,
};

static bool is_word(struct str line, struct str word)
{
        return str_starts_nocase(line, word) && (line.n == word.n || !ascii_is_alnum(line.p[word.n]));
}

static struct str skip_blanks(struct str s)
{
        while (s.n > 0 && ascii_is_blank(s.p[0]))
                s = str_from(s, 1);
        return s;
}

bool pop3_is_status(struct str line)
{
        line = skip_blanks(line);
        return is_word(line, STR("+OK")) || is_word(line, STR("-ERR"));
}

static void note_odd(struct pop3 *p, const char *what)
{
        if (!p->odd_noted)
                log_debug("pop3: %s", what);
        p->odd_noted = true;
}

/* The server knows the password by now, and may repeat it. */
static struct str without_password(struct pop3 *p, struct str line)
{
        if (!p->who)
                return line;
        line = str_first(line, SAID_MAX);
        if (line.n)
                memcpy(p->said, line.p, line.n);
        sasl_star(p->said, line.n, p->who->user, p->who->password);
        return str_make(p->said, line.n);
}

/* Blanks before the status and bare LF line ends are what honest servers get wrong; anything else is garbage. */
bool pop3_status(struct pop3 *p, struct reply *r, struct err *e)
{
        struct str line, word;
        bool bare_lf;

        if (!lines_read(p->l, REPLY_MAX, &line, &bare_lf, e))
                return false;
        word = skip_blanks(line);
        if (!pop3_is_status(word))
                return err_set(e, ERR_PROTO, "expected +OK or -ERR, the server said \"%.*s\"", STR_FMT(str_first(without_password(p, line), SAID_MAX)));
        p->bare_lf = bare_lf && (p->bare_lf || !p->seen_status);
        p->seen_status = true;
        if (bare_lf)
                note_odd(p, "the server's lines end in a bare LF");
        if (word.n != line.n)
                note_odd(p, "blanks before a status");
        r->ok = word.p[0] == '+';
        r->text = str_trim(str_from(word, r->ok ? 3 : 4));
        if (!r->ok)
                r->text = without_password(p, r->text);
        return true;
}

__attribute__((format(printf, 3, 0))) static bool send_va(struct pop3 *p, struct err *e, const char *fmt, va_list ap)
{
        char line[COMMAND_MAX];
        int n = vsnprintf(line, sizeof line - 2, fmt, ap);
        bool ok;

        if (n < 0 || (size_t)n >= sizeof line - 2)
                return err_set(e, ERR_USAGE, "a command of more than %d bytes", COMMAND_MAX);
        if (memchr(line, '\r', (size_t)n) || memchr(line, '\n', (size_t)n))
                return err_set(e, ERR_USAGE, "a line end inside a command");
        memcpy(line + n, "\r\n", 2);
        ok = lines_write(p->l, str_make(line, (size_t)n + 2), e);
        mem_wipe(line, (size_t)n); /* it may be a password */
        return ok;
}

bool pop3_send(struct pop3 *p, struct err *e, const char *fmt, ...)
{
        va_list ap;
        bool ok;

        va_start(ap, fmt);
        ok = send_va(p, e, fmt, ap);
        va_end(ap);
        return ok;
}

bool pop3_ask(struct pop3 *p, struct reply *r, struct err *e, const char *fmt, ...)
{
        va_list ap;
        bool ok;

        va_start(ap, fmt);
        ok = send_va(p, e, fmt, ap);
        va_end(ap);
        if (!ok || !lines_flush(p->l, e))
                return false;
        lines_answer_begins(p->l);
        return pop3_status(p, r, e);
}

static bool has(struct str text, const char *word)
{
        return str_find_str_nocase(text, str_of(word)) < text.n;
}

/* Response codes (RFC 2449, 3206) are heeded whether announced or not; servers without them say it in words. */
enum err_code pop3_refusal_code(struct str text, enum err_code otherwise)
{
        static const struct {
                const char *word;
                enum err_code code;
        } known[] = {
                { "[IN-USE]", ERR_BUSY },      { "[LOGIN-DELAY", ERR_TEMP }, { "[SYS/TEMP", ERR_TEMP }, { "[SYS/PERM", ERR_REFUSED },
                { "[AUTH]", ERR_AUTH },        { "lock busy", ERR_BUSY },    { "mailbox lock", ERR_BUSY },
                { "mailbox is locked", ERR_BUSY }, { "maildrop lock", ERR_BUSY }, { "maildrop is locked", ERR_BUSY },
                { "maildrop already locked", ERR_BUSY }, { "mailbox in use", ERR_BUSY }, { "try again later", ERR_TEMP },
        };

        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                if (known[i].word[0] == '[' ? str_starts_nocase(text, str_of(known[i].word)) : has(text, known[i].word))
                        return known[i].code;
        return otherwise;
}

bool pop3_refused(const struct reply *r, enum err_code otherwise, struct err *e, const char *what)
{
        enum err_code code = pop3_refusal_code(r->text, otherwise);

        if (r->text.n == 0)
                return err_set(e, code, "%s: the server refused without a reason", what);
        return err_set(e, code, "%s: the server said \"%.*s\"", what, STR_FMT(str_first(r->text, SAID_MAX)));
}

/* RFC 1939: the time stamp "corresponds to the `msg-id' in RFC 822", <...> with an @. */
static void keep_stamp(struct pop3 *p, struct str text)
{
        struct str s = str_from(text, str_find(text, '<'));
        size_t n = str_find(s, '>') + 1;

        if (n <= s.n && n < sizeof p->stamp && str_find(str_first(s, n), '@') < n && !memchr(s.p, 0, n)) {
                memcpy(p->stamp, s.p, n);
                p->stamp[n] = 0;
        }
}

struct pop3 *pop3_new(struct lines *l, struct err *e)
{
        struct pop3 *p = mem_zero(sizeof *p);
        struct reply r;

        if (!p) {
                lines_free(l);
                return err_nomem(e), NULL;
        }
        p->l = l;
        lines_answer_begins(l);
        if (!pop3_status(p, &r, e))
                err_in(e, "the greeting");
        else if (!r.ok)
                pop3_refused(&r, ERR_TEMP, e, "the greeting");
        else
                return keep_stamp(p, r.text), p;
        pop3_free(p);
        return NULL;
}

void pop3_free(struct pop3 *p)
{
        if (!p)
                return;
        lines_free(p->l);
        mem_free(p);
}

static void copy_upper(char *out, size_t size, struct str s)
{
        size_t n = s.n < size ? s.n : size - 1;

        for (size_t i = 0; i < n; i++)
                out[i] = s.p[i] >= 'a' && s.p[i] <= 'z' ? (char)(s.p[i] - 32) : s.p[i];
        out[n] = 0;
}

static void capa_line(struct pop3_capa *c, struct str line)
{
        struct str rest = str_trim(line), word = str_take(&rest, ' ');
        uint64_t n;

        rest = str_trim(rest);
        if (str_eq_nocase(word, STR("TOP")))
                c->top = true;
        else if (str_eq_nocase(word, STR("UIDL")))
                c->uidl = true;
        else if (str_eq_nocase(word, STR("USER")))
                c->user = true;
        else if (str_eq_nocase(word, STR("STLS")))
                c->stls = true;
        else if (str_eq_nocase(word, STR("PIPELINING")))
                c->pipelining = true;
        else if (str_eq_nocase(word, STR("RESP-CODES")))
                c->resp_codes = true;
        else if (str_eq_nocase(word, STR("EXPIRE")))
                c->expire_zero = str_eq(str_take(&rest, ' '), STR("0"));
        else if (str_eq_nocase(word, STR("LOGIN-DELAY")) && str_to_u64(str_take(&rest, ' '), 1 << 30, &n))
                c->login_delay = (unsigned)n;
        else if (str_eq_nocase(word, STR("SASL")))
                copy_upper(c->sasl, sizeof c->sasl, rest);
        else if (str_eq_nocase(word, STR("IMPLEMENTATION")))
                snprintf(c->implementation, sizeof c->implementation, "%.*s", STR_FMT(rest));
}

/* What was said before is forgotten: a -ERR leaves nothing known (RFC 2449: "clients SHOULD NOT assume"). */
bool pop3_capabilities(struct pop3 *p, struct pop3_capa *out, struct err *e)
{
        struct pop3_capa c = { 0 };
        struct reply r;

        if (!pop3_ask(p, &r, e, "CAPA"))
                return err_in(e, "asking for capabilities");
        c.known = r.ok;
        for (unsigned n = 0; r.ok; n++) {
                struct str line;

                if (!lines_read(p->l, CAPA_LINE_MAX, &line, NULL, e))
                        return err_in(e, "reading capabilities");
                if (str_eq(line, STR(".")))
                        break;
                if (n == CAPA_LINES_MAX)
                        return err_set(e, ERR_PROTO, "more than %d lines of capabilities", CAPA_LINES_MAX);
                capa_line(&c, line);
        }
        p->capa = c;
        if (out)
                *out = c;
        return true;
}

struct stream *pop3_tls(void *account, int fd, struct err *e)
{
        const struct account *acc = account;
        struct tls_options o = {
                .host = acc->host, .verify_as = acc->verify_as, .ca_file = acc->ca_file, .pin = acc->pin, .insecure = acc->insecure,
                .stop = acc->stop,
        };

        return tls_connect(fd, &o, sys_mono_ms() + LOGIN_MS, e);
}

/* Whatever came before the handshake is forgotten with the capabilities; lines_upgrade refuses what came behind the +OK. */
bool pop3_stls(struct pop3 *p, const struct account *acc, struct err *e)
{
        struct account a = *acc;
        struct reply r;

        if (!p->capa.stls)
                return err_set(e, ERR_TLS, "the server offers no STLS, so nothing secret was sent");
        if (!pop3_ask(p, &r, e, "STLS"))
                return err_in(e, "STLS");
        if (!r.ok)
                return pop3_refused(&r, ERR_TLS, e, "STLS, so nothing secret was sent");
        if (!lines_upgrade(p->l, pop3_tls, &a, e))
                return err_in(e, "STLS");
        p->capa = (struct pop3_capa){ 0 };
        p->stamp[0] = 0; /* it came unprotected */
        return true;
}

/* More bytes than the one answer due would mean that answers have been miscounted: then nothing is confirmed. */
bool pop3_quit(struct pop3 *p, struct err *e)
{
        struct reply r;

        lines_set_idle(p->l, LOGIN_MS);
        if (!pop3_ask(p, &r, e, "QUIT"))
                return err_in(e, "QUIT");
        return r.ok || pop3_refused(&r, ERR_REFUSED, e, "QUIT");
}
