/* Proving who we are: SASL, USER and PASS, APOP. A refused proof ends it; a mechanism refused before any proof was sent does not. */
#include "core/pop3_int.h"

#include <openssl/evp.h>
#include <stdio.h>

#include "core/mem.h"
#include "core/sasl.h"

/* The answer that ends an attempt which did not go through. */
enum verdict { LOGIN_DONE, LOGIN_NEXT /* refused, nothing was proved: another way may do */, LOGIN_FAILED };

/* The server's side of a SASL exchange: "+ challenge", or the end. */
static bool read_turn(struct pop3 *p, bool *more, bool *ok, struct str *text, struct err *e)
{
        enum { TURN_MAX = 128 << 10 }; /* sasl_step refuses challenges over 64 KiB by itself */
        struct str line;

        if (!lines_flush(p->l, e))
                return false;
        lines_answer_begins(p->l);
        if (!lines_read(p->l, TURN_MAX, &line, NULL, e))
                return false;
        if (pop3_is_status(line)) {
                line = str_trim(line);
                *more = false;
                *ok = line.p[0] == '+';
                *text = str_trim(str_from(line, *ok ? 3 : 4));
                return true;
        }
        if (!str_starts(line, STR("+")))
                return err_set(e, ERR_PROTO, "expected a challenge, the server said \"%.*s\"", STR_FMT(str_first(line, SAID_MAX)));
        *more = true;
        *text = str_trim(str_from(line, 1));
        return true;
}

static bool send_answer(struct pop3 *p, const struct buf *answer, struct err *e)
{
        bool ok;

        lines_mask(p->l, true);
        ok = lines_write(p->l, buf_str(answer), e) && lines_write(p->l, STR("\r\n"), e) && lines_flush(p->l, e);
        lines_mask(p->l, false);
        return ok;
}

/* sent: our last answer, which the server's words may repeat. */
static enum verdict end_of_sasl(const struct sasl *s, const char *name, bool ok, bool proved, struct str text, struct str sent, struct err *e)
{
        struct reply r = { ok, text };

        if (ok && !sasl_complete(s))
                return err_set(e, ERR_AUTH, "%s: the server did not prove that it knows the password", name), LOGIN_FAILED;
        if (ok)
                return LOGIN_DONE;
        pop3_refused(&r, ERR_AUTH, e, name);
        secret_hide(e, sent);
        return proved || pop3_refusal_code(text, ERR_AUTH) != ERR_AUTH ? LOGIN_FAILED : LOGIN_NEXT;
}

/* Our answer to one challenge. */
static bool answer_turn(struct pop3 *p, struct sasl *s, struct str challenge, struct buf *answer, bool *proved, struct err *e)
{
        bool proof = false, ok;

        if (answer->p)
                mem_wipe(answer->p, answer->cap);
        buf_clear(answer);
        ok = sasl_step(s, challenge, answer, &proof, e) && send_answer(p, answer, e);
        *proved |= proof;
        return ok;
}

/* The initial response is never sent along with AUTH: a server that announces a mechanism and then refuses it has not seen the secret, so
 * the next one may be tried. */
static enum verdict run_sasl(struct pop3 *p, const char *name, struct sasl *s, struct buf *answer, struct err *e)
{
        bool proved = false, more = false, ok = false;
        struct str text = STR_NONE;

        if (!pop3_send(p, e, "AUTH %s", name))
                return LOGIN_FAILED;
        for (int i = 0; i < SASL_STEPS_MAX; i++) {
                if (!read_turn(p, &more, &ok, &text, e))
                        return LOGIN_FAILED;
                if (!more && !(i == 0 && ok)) /* "+OK" where the first "+" is due is accepted */
                        return end_of_sasl(s, name, ok, proved, text, buf_str(answer), e);
                if (!more || (i == 0 && sasl_client_first(s)))
                        text = STR_NONE;
                if (!answer_turn(p, s, text, answer, &proved, e)) {
                        err_in(e, "%s", name);
                        return LOGIN_FAILED;
                }
        }
        err_set(e, ERR_PROTO, "%s: more than %d challenges", name, SASL_STEPS_MAX);
        return LOGIN_FAILED;
}

static enum verdict try_sasl(struct pop3 *p, const char *name, const struct account *acc, struct str password, struct err *e)
{
        struct sasl *s = sasl_new(name, acc->user, password, e);
        struct buf answer = BUF_INIT;
        enum verdict v;

        if (!s)
                return LOGIN_FAILED;
        v = run_sasl(p, name, s, &answer, e);
        if (answer.p)
                mem_wipe(answer.p, answer.cap);
        buf_free(&answer);
        sasl_free(s);
        return v;
}

static bool ask_masked(struct pop3 *p, struct reply *r, struct err *e, const char *verb, struct str rest)
{
        bool ok;

        lines_mask(p->l, true);
        ok = pop3_ask(p, r, e, "%s%.*s", verb, STR_FMT(rest));
        lines_mask(p->l, false);
        return ok;
}

static bool login_user(struct pop3 *p, const struct account *acc, struct str password, struct err *e)
{
        struct reply r;

        if (!pop3_ask(p, &r, e, "USER %.*s", STR_FMT(acc->user)))
                return false;
        if (!r.ok)
                return pop3_refused(&r, ERR_AUTH, e, "USER");
        if (!ask_masked(p, &r, e, "PASS ", password))
                return false;
        return r.ok || pop3_refused(&r, ERR_AUTH, e, "PASS");
}

/* RFC 1939: MD5 over the greeting's time stamp followed by the secret, as lower-case hex. */
static bool apop_digest(const char *stamp, struct str password, char hex[33])
{
        unsigned char md[EVP_MAX_MD_SIZE];
        EVP_MD_CTX *c = EVP_MD_CTX_new();
        unsigned n = 0;
        bool ok = c && EVP_DigestInit_ex(c, EVP_md5(), NULL) && EVP_DigestUpdate(c, stamp, strlen(stamp)) &&
                  EVP_DigestUpdate(c, password.p, password.n) && EVP_DigestFinal_ex(c, md, &n) && n == 16;

        EVP_MD_CTX_free(c);
        for (unsigned i = 0; ok && i < 16; i++) {
                hex[2 * i] = "0123456789abcdef"[md[i] >> 4];
                hex[2 * i + 1] = "0123456789abcdef"[md[i] & 15];
        }
        hex[32] = 0;
        return ok;
}

static bool login_apop(struct pop3 *p, const struct account *acc, struct str password, struct err *e)
{
        struct reply r;
        char hex[33];

        if (!p->stamp[0])
                return err_set(e, ERR_REFUSED, "auth = \"apop\", but the server's greeting has no time stamp for it");
        if (!apop_digest(p->stamp, password, hex))
                return err_set(e, ERR_REFUSED, "auth = \"apop\", but MD5 is not available here");
        lines_mask(p->l, true);
        if (!pop3_ask(p, &r, e, "APOP %.*s %s", STR_FMT(acc->user), hex))
                return lines_mask(p->l, false), false;
        lines_mask(p->l, false);
        return r.ok || pop3_refused(&r, ERR_AUTH, e, "APOP");
}

static bool login(struct pop3 *p, const struct account *acc, bool encrypted, struct str password, struct err *e)
{
        bool plain = acc->tls == TLS_NONE;
        char offered[sizeof p->capa.sasl];
        const char *name;

        if (str_eq_nocase(acc->auth, STR("apop")))
                return login_apop(p, acc, password, e);
        if (str_eq_nocase(acc->auth, STR("user")))
                return login_user(p, acc, password, e);
        memcpy(offered, p->capa.sasl, sizeof offered);
        if (acc->auth.n > 0 && !p->capa.known) /* the user knows what the server won't say */
                snprintf(offered, sizeof offered, "%.*s", STR_FMT(acc->auth));
        while ((name = sasl_choose(str_of(offered), acc->auth, encrypted, plain))) {
                enum verdict v = try_sasl(p, name, acc, password, e);

                if (v != LOGIN_NEXT)
                        return v == LOGIN_DONE;
                sasl_strike(offered, name);
        }
        if (acc->auth.n > 0)
                return err_set(e, ERR_REFUSED, "the server does not offer auth = \"%.*s\" (it offers: %s)", STR_FMT(acc->auth),
                               p->capa.sasl[0] ? p->capa.sasl : "nothing");
        return login_user(p, acc, password, e);
}

bool pop3_login(struct pop3 *p, const struct account *acc, struct err *e)
{
        bool encrypted = lines_is_tls(p->l);
        struct str password;

        if (!encrypted && acc->tls != TLS_NONE)
                return err_set(e, ERR_TLS, "the connection is not encrypted, so no password was sent");
        if (acc->user.n == 0 || memchr(acc->user.p, 0, acc->user.n))
                return err_set(e, ERR_USAGE, "a user name that is empty or holds a NUL byte");
        if (!acc->password)
                return err_set(e, ERR_USAGE, "the account has no password");
        if (!secret_get(acc->password, &password, e))
                return err_in(e, "the password");
        if (!login(p, acc, encrypted, password, e)) {
                sasl_hide(e, acc->user, acc->password);
                return err_in(e, "logging in as %.*s", STR_FMT(str_first(acc->user, SAID_MAX)));
        }
        p->who = acc;
        return true;
}
