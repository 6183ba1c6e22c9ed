/* From nothing to a session that takes mail: connect, TLS, greeting, EHLO, STARTTLS, AUTH. */
#include "core/smtp_int.h"

#include "core/mem.h"
#include "core/net.h"
#include "core/sasl.h"
#include "core/sys.h"
#include "core/tls.h"

/* ---- EHLO ---- */

static void add_mechanisms(struct smtp *s, struct str names)
{
        size_t at = strlen(s->can.auth);

        if (names.n && names.n < sizeof s->can.auth - at - 1) {
                memcpy(s->can.auth + at, names.p, names.n);
                s->can.auth[at + names.n] = ' ';
        }
}

static void note_extension(struct smtp *s, struct str text)
{
        struct str rest = text, word = str_take(&rest, ' ');

        if (str_eq_nocase(word, STR("STARTTLS"))) {
                s->can.starttls = true;
        } else if (str_eq_nocase(word, STR("PIPELINING"))) {
                s->can.pipelining = true;
        } else if (str_eq_nocase(word, STR("8BITMIME"))) {
                s->can.eight_bit = true;
        } else if (str_eq_nocase(word, STR("SMTPUTF8"))) {
                s->can.utf8 = true;
        } else if (str_eq_nocase(word, STR("SIZE"))) {
                s->can.has_size = true;
                if (!str_to_u64(str_trim(rest), UINT64_MAX, &s->can.size))
                        s->can.size = 0;
        } else if (str_eq_nocase(word, STR("AUTH"))) {
                add_mechanisms(s, str_trim(rest));
        } else if (str_starts_nocase(text, STR("AUTH="))) { /* as written before RFC 2554 */
                add_mechanisms(s, str_trim(str_from(text, 5)));
        }
}

static struct str own_name(const struct smarthost *h)
{
        struct str name = h->helo.n ? h->helo : str_of(sys_hostname());

        if (h->helo.n == 0 && (!smtp_is_word(name) || name.n > 255))
                name = STR("localhost");
        return name;
}

static bool wants_login(const struct smarthost *h) { return h->user.n > 0; }

/* HELO offers nothing, so it will do only where nothing is needed. */
static bool hello(struct smtp *s, struct err *e)
{
        struct str name = own_name(s->h);

        memset(&s->can, 0, sizeof s->can);
        if (!smtp_say(s, e, "EHLO %.*s", STR_FMT(name)) || !smtp_hear(s, WAIT_COMMAND, note_extension, e))
                return false;
        if (smtp_class(s) == 2)
                return true;
        memset(&s->can, 0, sizeof s->can);
        if (smtp_class(s) != 5 || s->h->tls == TLS_STARTTLS || wants_login(s->h))
                return smtp_said_no(s, ERR_REFUSED, e, "EHLO");
        if (!smtp_say(s, e, "HELO %.*s", STR_FMT(name)) || !smtp_hear(s, WAIT_COMMAND, NULL, e))
                return false;
        return smtp_class(s) == 2 || smtp_said_no(s, ERR_REFUSED, e, "HELO");
}

/* ---- TLS ---- */

static struct tls_options tls_wish(const struct smarthost *h)
{
        return (struct tls_options){
                .host = h->host, .verify_as = h->verify_as, .ca_file = h->ca_file, .pin = h->pin, .insecure = h->insecure,
                .stop = h->stop,
        };
}

static struct stream *wrap(void *ctx, int fd, struct err *e)
{
        struct tls_options o = tls_wish(ctx);

        return tls_connect(fd, &o, sys_mono_ms() + WAIT_HANDSHAKE, e);
}

static bool start_tls(struct smtp *s, struct err *e)
{
        struct smarthost h = *s->h;

        if (!s->can.starttls)
                return err_set(e, ERR_TLS, "the server does not offer STARTTLS, and nothing is sent without TLS");
        if (!smtp_say(s, e, "STARTTLS") || !smtp_hear(s, WAIT_COMMAND, NULL, e))
                return false;
        if (s->code != 220)
                return smtp_said_no(s, ERR_TLS, e, "STARTTLS");
        if (lines_upgrade(s->l, wrap, &h, e))
                return hello(s, e); /* RFC 3207 4.2: what was said before TLS is forgotten */
        s->over = true;
        return err_in(e, "STARTTLS");
}

/* ---- AUTH, RFC 4954 ---- */

enum verdict { LOGIN_DONE, LOGIN_NEXT /* refused, nothing was proved: another mechanism may do */, LOGIN_FAILED };

static enum verdict end_of_sasl(struct smtp *s, const struct sasl *sasl, const char *name, bool proved, struct err *e)
{
        if (smtp_class(s) == 2 && !sasl_complete(sasl))
                return err_set(e, ERR_AUTH, "%s: the server did not prove that it knows the password", name), LOGIN_FAILED;
        if (smtp_class(s) == 2)
                return LOGIN_DONE;
        smtp_said_no(s, ERR_AUTH, e, name);
        return proved || s->over || e->code != ERR_AUTH ? LOGIN_FAILED : LOGIN_NEXT;
}

static bool answer(struct smtp *s, struct sasl *sasl, struct str challenge, struct buf *b, bool *proved, struct err *e)
{
        bool proof = false, ok;

        if (b->p)
                mem_wipe(b->p, b->cap);
        buf_clear(b);
        if (!sasl_step(sasl, challenge, b, &proof, e))
                return false;
        *proved |= proof;
        lines_mask(s->l, true);
        ok = lines_write(s->l, buf_str(b), e) && lines_write(s->l, STR("\r\n"), e) && lines_flush(s->l, e);
        lines_mask(s->l, false);
        return ok;
}

/* As in POP3 the initial response is never sent along with AUTH: a server that announces a mechanism and then refuses it has not seen the
 * secret, so the next one may be tried. */
static enum verdict run_sasl(struct smtp *s, const char *name, struct sasl *sasl, struct buf *b, struct err *e)
{
        bool proved = false;

        if (!smtp_say(s, e, "AUTH %s", name))
                return LOGIN_FAILED;
        for (int i = 0; i <= SASL_STEPS_MAX; i++) {
                struct str challenge;

                if (!smtp_hear(s, WAIT_COMMAND, NULL, e))
                        return LOGIN_FAILED;
                if (s->code != 334)
                        return end_of_sasl(s, sasl, name, proved, e);
                challenge = i == 0 && sasl_client_first(sasl) ? STR_NONE : str_trim(str_from(buf_str(&s->text), 3));
                if (!answer(s, sasl, challenge, b, &proved, e)) {
                        s->over = true; /* in the middle of an exchange: no command would be understood */
                        return LOGIN_FAILED;
                }
        }
        s->over = true;
        return err_set(e, ERR_PROTO, "%s: more than %d challenges", name, SASL_STEPS_MAX), LOGIN_FAILED;
}

static enum verdict try_sasl(struct smtp *s, const char *name, struct str password, struct err *e)
{
        struct sasl *sasl = sasl_new(name, s->h->user, password, e);
        struct buf b = BUF_INIT;
        enum verdict v;

        if (!sasl)
                return LOGIN_FAILED;
        v = run_sasl(s, name, sasl, &b, e);
        if (v != LOGIN_DONE)
                secret_hide(e, buf_str(&b)); /* our last answer, which the server's words may repeat */
        if (b.p)
                mem_wipe(b.p, b.cap);
        buf_free(&b);
        sasl_free(sasl);
        return v;
}

static bool login(struct smtp *s, struct err *e)
{
        const struct smarthost *h = s->h;
        char offered[sizeof s->can.auth];
        struct str password;
        const char *name;
        bool tried = false;

        if (!lines_is_tls(s->l) && h->tls != TLS_NONE)
                return err_set(e, ERR_TLS, "the connection is not encrypted, so no password was sent");
        if (!h->password)
                return err_set(e, ERR_USAGE, "the smarthost has a user and no password");
        if (!secret_get(h->password, &password, e))
                return err_in(e, "the password");
        memcpy(offered, s->can.auth, sizeof offered);
        while ((name = sasl_choose(str_of(offered), h->auth, lines_is_tls(s->l), h->tls == TLS_NONE))) {
                enum verdict v = try_sasl(s, name, password, e);

                if (v != LOGIN_DONE)
                        secret_hide(e, password);
                if (v != LOGIN_NEXT)
                        return v == LOGIN_DONE;
                tried = true;
                sasl_strike(offered, name);
        }
        if (tried)
                return false; /* with the last refusal */
        return err_set(e, ERR_REFUSED, "the server offers no way to log in that may be used here (it offers: %s)",
                       s->can.auth[0] ? s->can.auth : "none");
}

/* ---- sessions ---- */

static bool begin(struct smtp *s, struct err *e)
{
        const struct smarthost *h = s->h;

        if (h->helo.n && (!smtp_is_word(h->helo) || h->helo.n > 255))
                return err_set(e, ERR_USAGE, "helo = \"%.*s\" is no host name", STR_FMT(str_first(h->helo, 100)));
        if (!smtp_hear(s, WAIT_GREETING, NULL, e))
                return false;
        if (s->code != 220)
                return smtp_said_no(s, ERR_REFUSED, e, "greeting");
        if (!hello(s, e) || (h->tls == TLS_STARTTLS && !start_tls(s, e)))
                return false;
        if (wants_login(h) && !login(s, e))
                return err_in(e, "logging in as %.*s", STR_FMT(str_first(h->user, 200)));
        return true;
}

struct smtp *smtp_new(struct lines *l, const struct smarthost *h, struct err *e)
{
        struct smtp *s = l ? mem_zero(sizeof *s) : NULL;
        struct err unseen;

        e = e ? e : &unseen;
        if (!s) {
                if (l)
                        err_nomem(e);
                lines_free(l);
                return NULL;
        }
        s->l = l;
        s->h = h;
        lines_set_stop(l, h->stop);
        if (begin(s, e))
                return s;
        smtp_close(s);
        return NULL;
}

struct smtp *smtp_connect(const struct smarthost *h, struct err *e)
{
        unsigned port = h->port ? h->port : h->tls == TLS_IMPLICIT ? 465 : 587;
        struct tls_options o = tls_wish(h);
        struct smtp *s = NULL;
        struct stream *st = NULL;
        int fd = net_connect(h->host, port, sys_mono_ms() + WAIT_HANDSHAKE, h->stop, e);

        if (fd < 0)
                return NULL;
        st = h->tls == TLS_IMPLICIT ? tls_connect(fd, &o, sys_mono_ms() + WAIT_HANDSHAKE, e) : stream_fd(fd, e);
        if (st)
                s = smtp_new(lines_new(st, WAIT_GREETING, e), h, e);
        if (!s)
                err_in(e, "%.*s, port %u", STR_FMT(str_first(h->host, 255)), port);
        return s;
}

bool smtp_usable(const struct smtp *s) { return s && !s->over; }

/* Nothing depends on how it ends: what was accepted has been answered. */
void smtp_close(struct smtp *s)
{
        struct err ignored;

        if (!s)
                return;
        if (!s->over && smtp_say(s, &ignored, "QUIT"))
                (void)!smtp_hear(s, WAIT_QUIT, NULL, &ignored);
        lines_free(s->l);
        buf_free(&s->text);
        mem_free(s);
}
