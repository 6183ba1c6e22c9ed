#include "core/sasl.h"

#include <gsasl.h>

#include "core/base64.h"
#include "core/mem.h"

enum { CHALLENGE_MAX = 64 << 10 }; /* a SCRAM challenge is some 100 bytes */

enum kind { KIND_PLAIN, KIND_LOGIN, KIND_GSASL };

struct sasl {
        enum kind kind;
        const char *name;
        unsigned steps;          /* answers given */
        bool complete;
        char *user, *password;   /* NUL-terminated: neither may hold one */
        size_t user_n, password_n;
        Gsasl *ctx;
        Gsasl_session *session;
};

static const struct mechanism {
        const char *name;
        enum kind kind;
        bool clear;  /* the secret itself goes over the wire */
} mechanisms[] = {
        { "SCRAM-SHA-256", KIND_GSASL, false }, { "SCRAM-SHA-1", KIND_GSASL, false }, { "CRAM-MD5", KIND_GSASL, false },
        { "PLAIN", KIND_PLAIN, true },          { "LOGIN", KIND_LOGIN, true },
};
enum { MECHANISMS = sizeof mechanisms / sizeof *mechanisms };

/* Positions in the table above, best first. */
static const unsigned best_plain[MECHANISMS] = { 0, 1, 2, 3, 4 }, best_encrypted[MECHANISMS] = { 0, 1, 3, 4, 2 };

static bool offers(struct str offered, struct str name)
{
        while (offered.n > 0)
                if (str_eq_nocase(str_take(&offered, ' '), name))
                        return true;
        return false;
}

const char *sasl_choose(struct str offered, struct str only, bool encrypted, bool plain_allowed)
{
        for (unsigned i = 0; i < MECHANISMS; i++) {
                const struct mechanism *m = &mechanisms[encrypted ? best_encrypted[i] : best_plain[i]];
                struct str name = str_of(m->name);

                if (m->clear && !encrypted && !plain_allowed)
                        continue;
                if ((only.n == 0 || str_eq_nocase(only, name)) && offers(offered, name))
                        return m->name;
        }
        return NULL;
}

void sasl_strike(char *offered, const char *mechanism)
{
        struct str rest = str_of(offered);

        while (rest.n > 0) {
                char *at = offered + (rest.p - offered);
                struct str each = str_take(&rest, ' ');

                if (str_eq_nocase(each, str_of(mechanism)))
                        memset(at, ' ', each.n);
        }
}

static bool start_gsasl(struct sasl *s, struct err *e)
{
        int rc = gsasl_init(&s->ctx);

        if (rc == GSASL_OK)
                rc = gsasl_client_start(s->ctx, s->name, &s->session);
        if (rc == GSASL_OK)
                rc = gsasl_property_set(s->session, GSASL_AUTHID, s->user);
        if (rc == GSASL_OK)
                rc = gsasl_property_set(s->session, GSASL_PASSWORD, s->password);
        return rc == GSASL_OK || err_set(e, rc == GSASL_MALLOC_ERROR ? ERR_NOMEM : ERR_USAGE, "%s: %s", s->name, gsasl_strerror(rc));
}

static bool set_up(struct sasl *s, struct str user, struct str password, struct err *e)
{
        if (memchr(user.p ? user.p : "", 0, user.n) || memchr(password.p ? password.p : "", 0, password.n))
                return err_set(e, ERR_USAGE, "a user name or password with a NUL byte in it");
        s->user = mem_dup(user.n ? user.p : "", user.n);
        s->password = mem_dup(password.n ? password.p : "", password.n);
        s->user_n = user.n, s->password_n = password.n;
        if (!s->user || !s->password)
                return err_nomem(e);
        return s->kind != KIND_GSASL || start_gsasl(s, e);
}

struct sasl *sasl_new(const char *mechanism, struct str user, struct str password, struct err *e)
{
        const struct mechanism *m = mechanisms, *end = mechanisms + MECHANISMS;
        struct sasl *s;

        while (m < end && !str_eq_nocase(str_of(m->name), str_of(mechanism)))
                m++;
        if (m == end)
                return err_set(e, ERR_USAGE, "unknown authentication mechanism %s", mechanism), NULL;
        s = mem_zero(sizeof *s);
        if (!s)
                return err_nomem(e), NULL;
        s->kind = m->kind;
        s->name = m->name;
        if (!set_up(s, user, password, e)) {
                sasl_free(s);
                return NULL;
        }
        return s;
}

bool sasl_client_first(const struct sasl *s)
{
        return s->kind == KIND_PLAIN || str_starts(str_of(s->name), STR("SCRAM-"));
}

/* Strict, unlike mail's base64: RFC 4422 leaves no room for anything else, and rows T12 want it refused. */
static bool is_base64(struct str s)
{
        size_t n = s.n;

        if (n % 4 != 0)
                return false;
        for (int pads = 0; pads < 2 && n > 0 && s.p[n - 1] == '='; pads++)
                n--;
        for (size_t i = 0; i < n; i++)
                if (!ascii_is_alnum(s.p[i]) && s.p[i] != '+' && s.p[i] != '/')
                        return false;
        return true;
}

static bool decode(struct str in, struct buf *out, struct err *e)
{
        struct base64 d = { 0 };

        if (in.n > CHALLENGE_MAX)
                return err_set(e, ERR_PROTO, "a challenge of %zu bytes", in.n);
        if (!is_base64(in))
                return err_set(e, ERR_PROTO, "a challenge that is no base64");
        if (!buf_reserve(out, base64_room(in.n) + 3))
                return err_nomem(e);
        out->n = base64_decode(&d, in, out->p);
        out->n += base64_end(&d, out->p + out->n);
        return true;
}

static bool encode(struct str in, struct buf *out, struct err *e)
{
        if (!buf_reserve(out, (in.n + 2) / 3 * 4))
                return err_nomem(e);
        out->n += base64_encode(in, out->p + out->n);
        return true;
}

/* RFC 4616: [authzid] NUL authcid NUL passwd */
static bool step_plain(struct sasl *s, struct buf *answer, bool *proof, struct err *e)
{
        struct buf b = BUF_INIT;
        bool ok;

        if (s->steps > 1)
                return err_set(e, ERR_PROTO, "one more challenge after the answer to PLAIN");
        buf_reserve(&b, s->user_n + s->password_n + 2); /* at once: a buffer that grows leaves copies behind */
        buf_add_char(&b, 0);
        buf_add(&b, s->user, s->user_n);
        buf_add_char(&b, 0);
        buf_add(&b, s->password, s->password_n);
        ok = buf_ok(&b, e) && encode(buf_str(&b), answer, e);
        if (b.p)
                mem_wipe(b.p, b.cap);
        buf_free(&b);
        *proof = s->complete = true;
        return ok;
}

/* The prompts are "Username:" and "Password:" by custom only, so their order counts, not their words. */
static bool step_login(struct sasl *s, struct buf *answer, bool *proof, struct err *e)
{
        if (s->steps > 2)
                return err_set(e, ERR_PROTO, "a third question in LOGIN");
        if (s->steps == 1)
                return encode(str_make(s->user, s->user_n), answer, e);
        *proof = s->complete = true;
        return encode(str_make(s->password, s->password_n), answer, e);
}

static bool step_gsasl(struct sasl *s, struct str challenge, struct buf *answer, bool *proof, struct err *e)
{
        char *out = NULL;
        size_t n = 0;
        int rc;
        bool ok;

        if (s->complete)
                return err_set(e, ERR_PROTO, "one more challenge after the end of %s", s->name);
        if (s->steps == 1 && !sasl_client_first(s) && challenge.n == 0)
                return err_set(e, ERR_PROTO, "an empty challenge for %s", s->name);
        rc = gsasl_step(s->session, challenge.n ? challenge.p : "", challenge.n, &out, &n);
        if (rc == GSASL_MALLOC_ERROR)
                return err_nomem(e);
        if (rc != GSASL_OK && rc != GSASL_NEEDS_MORE) /* in its last step that is the server's failure to prove itself */
                return err_set(e, s->steps > 2 ? ERR_AUTH : ERR_PROTO, "%s: %s", s->name, gsasl_strerror(rc));
        s->complete = rc == GSASL_OK;
        if (s->steps > 1 || !sasl_client_first(s))
                *proof = true;
        ok = encode(str_make(out, n), answer, e);
        gsasl_free(out);
        return ok;
}

bool sasl_step(struct sasl *s, struct str challenge, struct buf *answer, bool *proof, struct err *e)
{
        struct buf raw = BUF_INIT;
        bool ok = decode(challenge, &raw, e);

        *proof = false;
        s->steps++;
        if (ok && s->kind == KIND_PLAIN)
                ok = step_plain(s, answer, proof, e);
        else if (ok && s->kind == KIND_LOGIN)
                ok = step_login(s, answer, proof, e);
        else if (ok)
                ok = step_gsasl(s, buf_str(&raw), answer, proof, e);
        buf_free(&raw);
        return ok;
}

bool sasl_complete(const struct sasl *s)
{
        return s->complete;
}

void sasl_free(struct sasl *s)
{
        if (!s)
                return;
        if (s->session)
                gsasl_finish(s->session);
        if (s->ctx)
                gsasl_done(s->ctx);
        if (s->user)
                mem_wipe(s->user, s->user_n);
        if (s->password)
                mem_wipe(s->password, s->password_n);
        mem_free(s->user);
        mem_free(s->password);
        mem_free(s);
}

/* ---- what a server repeats ---- */

/* Itself, and as LOGIN and PLAIN send it. */
static void each_form(struct str user, struct str value, void (*star)(void *text, struct str value), void *text)
{
        size_t n = user.n + value.n + 2, room = base64_room(2 * n);
        char *plain = mem_alloc(n + room), *coded = plain ? plain + n : NULL;

        star(text, value);
        if (!plain)
                return;
        memcpy(plain + 2 + user.n, value.p, value.n);
        star(text, str_make(coded, base64_encode(value, coded)));
        plain[0] = plain[1 + user.n] = 0;
        if (user.n)
                memcpy(plain + 1, user.p, user.n);
        star(text, str_make(coded, base64_encode(str_make(plain, n), coded)));
        mem_wipe(plain, n + room);
        mem_free(plain);
}

struct region {
        char *text;
        size_t n;
};

static void star_region(void *ctx, struct str value)
{
        struct region *r = ctx;

        secret_star(r->text, r->n, value);
}

static void star_error(void *e, struct str value) { secret_hide(e, value); }

void sasl_star(char *text, size_t n, struct str user, const struct secret *password)
{
        struct region r = { text, n };
        struct str value;

        if (secret_known(password, &value))
                each_form(user, value, star_region, &r);
}

void sasl_hide(struct err *e, struct str user, const struct secret *password)
{
        struct str value;

        if (e && secret_known(password, &value))
                each_form(user, value, star_error, e);
}
