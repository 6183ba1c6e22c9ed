#include "core/sasl.h"

#include <gsasl.h>

#include "core/base64.h"
#include "core/mem.h"
#include "tests/unit/test.h"

TEST(choice)
{
        struct str all = STR("LOGIN PLAIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256 XOAUTH2");

        CHECK_STR(str_of(sasl_choose(all, STR_NONE, false, false)), "SCRAM-SHA-256");
        CHECK_STR(str_of(sasl_choose(STR("LOGIN PLAIN CRAM-MD5 SCRAM-SHA-1"), STR_NONE, true, false)), "SCRAM-SHA-1");
        CHECK_STR(str_of(sasl_choose(STR("LOGIN PLAIN CRAM-MD5"), STR_NONE, false, true)), "CRAM-MD5");
        CHECK_STR(str_of(sasl_choose(STR("LOGIN PLAIN CRAM-MD5"), STR_NONE, true, false)), "PLAIN");
        CHECK_STR(str_of(sasl_choose(STR("LOGIN"), STR_NONE, true, false)), "LOGIN");
        CHECK(!sasl_choose(STR("LOGIN PLAIN"), STR_NONE, false, false));
        CHECK_STR(str_of(sasl_choose(STR("LOGIN PLAIN"), STR_NONE, false, true)), "PLAIN");
        CHECK_STR(str_of(sasl_choose(all, STR("login"), true, false)), "LOGIN");
        CHECK(!sasl_choose(all, STR("login"), false, false));
        CHECK(!sasl_choose(STR("PLAIN"), STR("login"), true, true));
        CHECK(!sasl_choose(STR(""), STR_NONE, true, true));
        CHECK(!sasl_choose(STR("XPLAIN PLAINX"), STR_NONE, true, true));
        CHECK(!sasl_choose(all, STR("gssapi"), true, true));
}

static bool step(struct sasl *s, const char *challenge, struct buf *b, bool *proof, struct err *e)
{
        buf_clear(b);
        return sasl_step(s, str_of(challenge), b, proof, e);
}

TEST(plain)
{
        struct err e = { 0 };
        struct sasl *s = sasl_new("PLAIN", STR("tim"), STR("tanstaaftanstaaf"), &e);
        struct buf b = BUF_INIT;
        bool proof;

        NEED(s);
        CHECK(sasl_client_first(s));
        CHECK(step(s, "", &b, &proof, &e) && proof);
        CHECK_STR(buf_str(&b), "AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
        CHECK(sasl_complete(s));
        CHECK(!step(s, "", &b, &proof, &e) && e.code == ERR_PROTO);
        sasl_free(s);
        buf_free(&b);
}

TEST(login)
{
        struct err e = { 0 };
        struct sasl *s = sasl_new("login", STR("tim"), STR("pass"), &e);
        struct buf b = BUF_INIT;
        bool proof;

        NEED(s);
        CHECK(!sasl_client_first(s));
        CHECK(step(s, "VXNlcm5hbWU6", &b, &proof, &e) && !proof);
        CHECK_STR(buf_str(&b), "dGlt");
        CHECK(step(s, "UGFzc3dvcmQ6", &b, &proof, &e) && proof);
        CHECK_STR(buf_str(&b), "cGFzcw==");
        CHECK(!step(s, "UGFzc3dvcmQ6", &b, &proof, &e));
        sasl_free(s);
        buf_free(&b);
}

/* RFC 2195's own example. */
TEST(cram_md5)
{
        struct err e = { 0 };
        struct sasl *s = sasl_new("CRAM-MD5", STR("tim"), STR("tanstaaftanstaaf"), &e);
        struct buf b = BUF_INIT;
        bool proof;

        NEED(s);
        CHECK(step(s, "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+", &b, &proof, &e) && proof);
        CHECK_STR(buf_str(&b), "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw");
        sasl_free(s);
        buf_free(&b);
}

static int answer_for_server(Gsasl *ctx, Gsasl_session *s, Gsasl_property p)
{
        if (p != GSASL_PASSWORD)
                return GSASL_NO_CALLBACK;
        return gsasl_property_set(s, GSASL_PASSWORD, gsasl_callback_hook_get(ctx));
}

/* A conversation with libgsasl's server, which knows `real`. forge: its last word is tampered with. Returns the codes. */
static void scram(const char *name, const char *real, bool forge, bool *server_ok, bool *client_ok, enum err_code *code)
{
        struct err e = { 0 };
        struct sasl *c = sasl_new(name, STR("user"), STR("pencil"), &e);
        struct buf b = BUF_INIT;
        Gsasl *ctx;
        Gsasl_session *s;
        bool proof = false;
        char *out = NULL;
        int rc;

        *server_ok = *client_ok = false;
        NEED(c && gsasl_init(&ctx) == GSASL_OK);
        gsasl_callback_set(ctx, answer_for_server);
        gsasl_callback_hook_set(ctx, (void *)(uintptr_t)real);
        NEED(gsasl_server_start(ctx, name, &s) == GSASL_OK);
        CHECK(step(c, "", &b, &proof, &e) && !proof && !sasl_complete(c));
        buf_add_char(&b, 0);
        rc = gsasl_step64(s, b.p, &out);
        CHECK(rc == GSASL_NEEDS_MORE);
        CHECK(step(c, out, &b, &proof, &e) && proof);
        CHECK(!sasl_complete(c)); /* the server has not proved itself yet */
        buf_add_char(&b, 0);
        gsasl_free(out);
        out = NULL;
        rc = gsasl_step64(s, b.p, &out);
        *server_ok = rc == GSASL_OK;
        if (*server_ok && forge)
                out[8] = out[8] == 'A' ? 'B' : 'A';
        if (*server_ok)
                *client_ok = step(c, out, &b, &proof, &e) && sasl_complete(c);
        *code = e.code;
        gsasl_free(out);
        gsasl_finish(s);
        gsasl_done(ctx);
        sasl_free(c);
        buf_free(&b);
}

TEST(scram_both_ways)
{
        const char *const names[] = { "SCRAM-SHA-1", "SCRAM-SHA-256" };
        bool server, client;
        enum err_code code;

        for (int i = 0; i < 2; i++) {
                scram(names[i], "pencil", false, &server, &client, &code);
                CHECK(server && client);
                scram(names[i], "crayon", false, &server, &client, &code);
                CHECK(!server);
                scram(names[i], "pencil", true, &server, &client, &code);
                CHECK(server && !client && code == ERR_AUTH);
        }
}

TEST(T12_bad_challenges)
{
        static const char *const bad[] = { "=", "====", "a", "ab=c", "****", "YQ==YQ==", "Y Q=", "YQ=" };
        const char *const names[] = { "LOGIN", "CRAM-MD5", "SCRAM-SHA-256" };
        struct buf big = BUF_INIT, b = BUF_INIT;
        struct err e;
        bool proof;

        for (int i = 0; i < 1 << 20; i++)
                buf_add_char(&big, 'A');
        for (int n = 0; n < 3; n++) {
                for (size_t i = 0; i < sizeof bad / sizeof *bad + 2; i++) {
                        struct sasl *s = sasl_new(names[n], STR("u"), STR("secret"), &e);

                        NEED(s);
                        if (sasl_client_first(s))
                                CHECK(step(s, "", &b, &proof, &e));
                        buf_clear(&b);
                        if (i < sizeof bad / sizeof *bad)
                                CHECK(!sasl_step(s, str_of(bad[i]), &b, &proof, &e));
                        else if (i == sizeof bad / sizeof *bad)
                                CHECK(!sasl_step(s, buf_str(&big), &b, &proof, &e));
                        else
                                CHECK(n == 0 || !sasl_step(s, STR_NONE, &b, &proof, &e)); /* LOGIN's questions may be empty */
                        CHECK(e.code == ERR_PROTO && b.n == 0 && !proof);
                        sasl_free(s);
                }
        }
        buf_free(&big);
        buf_free(&b);
}

TEST(misuse)
{
        struct err e;

        CHECK(!sasl_new("GSSAPI", STR("u"), STR("p"), &e) && e.code == ERR_USAGE);
        CHECK(!sasl_new("PLAIN", STR("u\0x"), STR("p"), &e) && e.code == ERR_USAGE);
        CHECK(!sasl_new("PLAIN", STR("u"), STR("p\0x"), &e) && e.code == ERR_USAGE);
        sasl_free(NULL);
}

/* C06: a server may repeat what it was sent; short secrets stay, or half of what it says would be stars. */
TEST(C06_what_a_server_repeats)
{
        struct secret *s = secret_literal(STR("op\x1b\xc3\xa4n sesame")), *shorter = secret_literal(STR("ab"));
        char text[] = "no op\x1b\xc3\xa4n sesame, no b3Abw6RuIHNlc2FtZQ==, no AG1lAG9wG8OkbiBzZXNhbWU=, cut op\x1b\xc3\xa4n", two[] = "ab and ab";
        struct str value;
        struct err e;

        NEED(s && shorter);
        sasl_star(text, sizeof text - 1, STR("me"), s);
        CHECK(strstr(text, "sesame")); /* not before it was asked for */
        CHECK(!secret_known(s, &value) && !secret_known(NULL, &value));
        NEED(secret_get(s, &value, &e) && secret_known(s, &value) && secret_get(shorter, &value, &e));
        err_set(&e, ERR_TEMP, "%s", text);
        sasl_star(text, sizeof text - 1, STR("me"), s);
        CHECK_STR(str_of(text), "no *************, no ********************, no ************************, cut ******");
        CHECK(strstr(e.text, "\\x1b"));
        sasl_hide(&e, STR("me"), s); /* what was escaped on its way in, too */
        CHECK(!strstr(e.text, "sesame") && !strstr(e.text, "op") && !strstr(e.text, "b3A") && !strstr(e.text, "AG1l"));
        sasl_star(two, sizeof two - 1, STR("me"), shorter);
        CHECK_STR(str_of(two), "ab and ab");
        sasl_star(two, sizeof two - 1, STR("me"), NULL);
        sasl_hide(NULL, STR("me"), s);
        secret_unref(s);
        secret_unref(shorter);
}

TEST_MAIN
