/* Plans: what they may hold, action ids, and effects in words and JSON. */
#include "core/plan.h"

#include "core/mem.h"
#include "core/sys.h"
#include "tests/unit/test.h"

static struct message *message_of(const char *text, const char *account)
{
        struct origin o = { .source = STR("test"), .account = account ? str_of(account) : STR_NONE, .number = 1 };
        struct backing *b = backing_memory(mem_dup(text, strlen(text)), strlen(text));
        struct err e = { 0 };
        struct message *m = message_new((struct range){ b, 0, strlen(text) }, &o, &limits_default, &e);

        backing_unref(b);
        return m;
}

TEST(limits)
{
        struct limits lim = { .saves = 3, .deliveries = 4, .forwards = 2 };
        struct plan *p = plan_new(NULL, NULL);
        struct err e = { 0 };

        NEED(p);
        for (unsigned i = 0; i < 3; i++)
                CHECK(plan_add(p, EFFECT_SAVE, &lim, &e));
        CHECK(!plan_add(p, EFFECT_SAVE, &lim, &e) && e.code == ERR_LIMIT && strstr(e.text, "saves"));
        CHECK(plan_add(p, EFFECT_MAIL, &lim, &e) && plan_add(p, EFFECT_MAIL, &lim, &e));
        CHECK(!plan_add(p, EFFECT_MAIL, &lim, &e) && e.code == ERR_LIMIT && strstr(e.text, "forwards"));
        CHECK(plan_add(p, EFFECT_DELIVER, &lim, &e) && plan_add(p, EFFECT_COMMAND, &lim, &e));
        CHECK(!plan_add(p, EFFECT_DELIVER, &lim, &e) && e.code == ERR_LIMIT && strstr(e.text, "deliveries"));
        CHECK(!plan_add(p, EFFECT_COMMAND, &lim, &e) && e.code == ERR_LIMIT);
        CHECK(p->count == 7 && p->last->place == 7 && p->first->place == 1); /* a refused one has no place */
        plan_free(p);
}

TEST(empty)
{
        struct plan *p = plan_new(NULL, NULL);
        struct err e = { 0 };

        NEED(p);
        CHECK(plan_actions(p, &e) && !p->first && !plan_changed(p, STR("s"), STR("k")));
        plan_free(p);
        plan_free(NULL);
}

/* The ids of a mail and a command in the plan of one message; saves lie before and between them. */
static void ids(const char *text, const char *account, char mail[33], char command[33])
{
        struct message *m = message_of(text, account);
        struct plan *p = plan_new(m, NULL);
        struct compose c = { 0 };
        struct effect *one, *two;
        struct err e = { 0 };

        NEED(m && p);
        NEED(plan_add(p, EFFECT_SAVE, &limits_default, &e) && (one = plan_add(p, EFFECT_MAIL, &limits_default, &e)) &&
             plan_add(p, EFFECT_SAVE, &limits_default, &e) && (two = plan_add(p, EFFECT_COMMAND, &limits_default, &e)));
        one->compose = &c;
        CHECK(plan_actions(p, &e));
        CHECK(one->action.n == 32 && two->action.n == 32 && str_eq(c.action, one->action) && !p->first->action.n);
        snprintf(mail, 33, "%.*s", STR_FMT(one->action));
        snprintf(command, 33, "%.*s", STR_FMT(two->action));
        plan_free(p);
        message_free(m);
}

TEST(action_ids)
{
        char a[4][33], b[4][33];

        ids("Subject: x\n\nbody\n", "work", a[0], b[0]);
        ids("Subject: x\n\nbody\n", "work", a[1], b[1]);
        ids("Subject: x\n\nbody!\n", "work", a[2], b[2]);
        ids("Subject: x\n\nbody\n", "home", a[3], b[3]);
        CHECK(strcmp(a[0], a[1]) == 0 && strcmp(b[0], b[1]) == 0);
        CHECK(strcmp(a[0], b[0]) != 0 && strcmp(a[0], a[2]) != 0 && strcmp(a[0], a[3]) != 0);
}

/* on_finish has no message: two runs' reports are two mails. */
TEST(action_ids_of_on_finish)
{
        struct plan *p = plan_new(NULL, NULL), *q = plan_new(NULL, NULL);
        struct err e = { 0 };
        struct effect *f, *g;

        NEED(p && q && (f = plan_add(p, EFFECT_COMMAND, &limits_default, &e)) && (g = plan_add(q, EFFECT_COMMAND, &limits_default, &e)));
        CHECK(plan_actions(p, &e) && plan_actions(q, &e) && f->action.n == 32 && !str_eq(f->action, g->action));
        plan_free(p);
        plan_free(q);
}

TEST(stores)
{
        struct plan *p = plan_new(NULL, NULL);
        struct err e = { 0 };
        const struct store_change *c;
        char key[] = "key";

        NEED(p);
        CHECK(plan_store(p, STR("s"), str_of(key), STR("1"), 0, &e));
        CHECK(plan_store(p, STR("other"), STR("key"), STR("x"), 7, &e));
        CHECK(plan_store(p, STR("s"), STR("key"), STR("2"), 0, &e));
        CHECK(plan_store(p, STR("s"), str_make("nul\0l", 5), STR(""), 0, &e));
        key[0] = 'K'; /* it has a copy */
        c = plan_changed(p, STR("s"), STR("key"));
        CHECK(c && str_eq(c->value, STR("2")));
        c = plan_changed(p, STR("s"), str_make("nul\0l", 5));
        CHECK(c && c->value.p && c->value.n == 0); /* empty is not removed */
        CHECK(!plan_changed(p, STR("s"), STR("nul")) && !plan_changed(p, STR("sk"), STR("ey")));
        CHECK(plan_store(p, STR("s"), STR("key"), STR_NONE, 0, &e));
        c = plan_changed(p, STR("s"), STR("key"));
        CHECK(c && !c->value.p);
        CHECK(p->oldest && str_eq(p->oldest->value, STR("1")) && str_eq(p->oldest->newer->store, STR("other")));
        plan_free(p);
}

static void json(struct str in, const char *want)
{
        struct buf b = BUF_INIT;

        CHECK(json_string(&b, in));
        CHECK_STR(buf_str(&b), want);
        buf_free(&b);
}

TEST(json_strings)
{
        json(STR(""), "\"\"");
        json(STR_NONE, "\"\"");
        json(STR("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"");
        json(str_make("\0\x01\n\t\x1f\x7f", 6), "\"\\u0000\\u0001\\u000a\\u0009\\u001f\\u007f\"");
        json(STR("gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80"), "\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\"");
        json(STR("\xff"), "\"\xef\xbf\xbd\"");
        json(STR("a\xc3"), "\"a\xef\xbf\xbd\"");
        json(STR("\xed\xa0\x80 \xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST(words_and_json)
{
        static const struct str to[] = { { "a@x", 3 }, { "b@y", 3 } }, argv[] = { { "touch", 5 }, { "a \"b\"", 5 } };
        struct arena *a = arena_new(0);
        struct effect d = { .kind = EFFECT_DELIVER, .path = STR("A/B"), .implicit = true };
        struct effect s = { .kind = EFFECT_SAVE, .path = STR("f.pdf"), .same = true, .rule = STR("R \"1\"") };
        struct effect m = { .kind = EFFECT_MAIL, .verb = "forward", .recipients = to, .recipient_n = 2 };
        struct effect c = { .kind = EFFECT_COMMAND, .argv = argv, .argc = 2 };
        struct effect *all[] = { &d, &s, &m, &c };
        static const char *const words[] = { "deliver A/B (inbox)", "save f.pdf (already there)", "forward to a@x, b@y",
                                             "run_after touch a \"b\"" };
        static const char *const jsons[] = {
                "{\"effect\":\"deliver\",\"folder\":\"A/B\",\"implicit\":true}",
                "{\"effect\":\"save\",\"path\":\"f.pdf\",\"same\":true,\"rule\":\"R \\\"1\\\"\"}",
                "{\"effect\":\"forward\",\"to\":[\"a@x\",\"b@y\"]}",
                "{\"effect\":\"run_after\",\"argv\":[\"touch\",\"a \\\"b\\\"\"]}",
        };

        for (size_t i = 0; i < 4; i++) {
                struct buf b = BUF_INIT;

                CHECK_STR(effect_words(all[i], a), words[i]);
                CHECK(effect_json(all[i], &b));
                CHECK_STR(buf_str(&b), jsons[i]);
                buf_free(&b);
        }
        arena_free(a);
}

TEST_MAIN
