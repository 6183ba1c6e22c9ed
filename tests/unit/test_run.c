/* The run, driven by rules that are C functions, over archives and a small POP3 account. */
#include <errno.h>
#include <stdarg.h>
#include <sys/resource.h>

#include "core/supervise.h"
#include "tests/unit/play.h"

static enum verdict save_each(struct play *g, struct plan *p, int number, struct err *e)
{
        return play_save_as(p, "msg/", number, e) ? RUN_DONE : RUN_FAIL;
}

static enum verdict deliver_each(struct play *g, struct plan *p, int number, struct err *e)
{
        return play_deliver(p, "Box", e) ? RUN_DONE : RUN_FAIL;
}

static enum verdict nothing(struct play *g, struct plan *p, int number, struct err *e)
{
        return RUN_DONE;
}

static enum verdict third_fails(struct play *g, struct plan *p, int number, struct err *e)
{
        enum verdict v = save_each(g, p, number, e);

        if (number == 3)
                err_set(e, ERR_SCRIPT, "rule.lua:3: no third\nstack traceback: …");
        return number == 3 ? RUN_FAIL : v;
}

static void other_script(struct play *g)
{
        g->config.script_hash[0]++;
}

#define CLEAN(g) CHECK((g)->ok); if (!(g)->ok) printf("%s\n", (g)->e.text)

TEST(all_of_an_archive)
{
        struct play g = play_new(deliver_each);

        write_mbox("a.mbox", 1, 5, 100);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 5 && g.result.delivered == 5 && g.result.held == 0 && g.result.undone == 0);
        CHECK(g.decided == 5 && g.released == 6 && g.settled == 5 && g.ends == 1);
        CHECK(entries("root/Box/new") == 5);
        for (int i = 1; i <= 5; i++)
                CHECK(times_in("root/Box/new", i) == 1);
        CHECK(spool_is_empty());
        CHECK_STR(str_of(g.order), "decide 1 of a.mbox|decide 2 of a.mbox|decide 3 of a.mbox|decide 4 of a.mbox|decide 5 of a.mbox|");
}

/* A finished run leaves no mark: the next reads all of it. */
TEST(archive_again)
{
        struct play g = play_new(save_each);

        write_mbox("a.mbox", 1, 3, 100);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 3 && g.result.saved == 0); /* the very files are there */
        CHECK(entries("root/msg") == 3);
}

TEST(third_of_five_is_held)
{
        struct play g = play_new(third_fails);

        write_mbox("a.mbox", 1, 5, 100);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 4 && g.result.held == 1 && g.result.quarantined == 0 && g.held == 1);
        CHECK(strstr(g.why, "no third"));
        CHECK(!exists("root/msg/3") && exists("root/msg/2") && exists("root/msg/4"));
        CHECK(marks(1u << MARK_HELD) == 1);
        g.rule = save_each;
        other_script(&g);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 5 && g.result.held == 0 && g.result.saved == 1);
        CHECK(exists("root/msg/3"));
        CHECK(marks(1u << MARK_HELD) == 0 && spool_is_empty());
}

static enum verdict hold_all(struct play *g, struct plan *p, int number, struct err *e)
{
        return third_fails(g, p, 3, e);
}

/* As `mailmill state forget` does while a run is about: the last one, when the first is decided. */
static enum verdict save_and_forget(struct play *g, struct plan *p, int number, struct err *e)
{
        struct ledger *l = number == 1 ? ledger_open(at("state"), false, e) : NULL;
        bool ok = number != 1 || (l && ledger_mark_forget(l, 40, e));

        ledger_close(l);
        return ok ? save_each(g, p, number, e) : RUN_FAIL;
}

TEST(forgotten_while_it_waits)
{
        struct play g = play_new(hold_all);

        write_mbox("a.mbox", 1, 40, 100);
        play_run(&g, "a.mbox", NULL);
        CHECK(g.result.held == 40 && marks(1u << MARK_HELD) == 40);
        g.rule = save_and_forget;
        g.config.failed = true;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 39 && g.result.held == 0 && g.result.quarantined == 0 && !exists("root/msg/40"));
        CHECK(marks(1u << MARK_HELD) == 0);
}

/* Only the held one, out of the spool: its archive is not there any more. */
TEST(failed_decides_what_is_held)
{
        struct play g = play_new(third_fails);

        write_mbox("a.mbox", 1, 5, 100);
        play_run(&g, "a.mbox", NULL);
        g.rule = save_each;
        g.config.failed = true;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.decided == 1 && g.result.messages == 1 && exists("root/msg/3"));
        CHECK(marks(1u << MARK_HELD) == 0 && spool_is_empty());
}

TEST(quarantined_after_three)
{
        struct play g = play_new(third_fails);

        write_mbox("a.mbox", 1, 3, 100);
        for (int i = 1; i <= 3; i++) {
                play_run(&g, "a.mbox", NULL);
                CLEAN(&g);
                CHECK(g.result.held == 1 && g.result.quarantined == (i == 3));
        }
        play_run(&g, "a.mbox", NULL);
        CHECK(g.decided == 2 && g.result.messages == 2 && g.result.quarantined == 1 && g.result.held == 0);
        other_script(&g);
        play_run(&g, "a.mbox", NULL);
        CHECK(g.decided == 3 && g.result.held == 1 && g.result.quarantined == 0);
}

static enum verdict first_and_fifth_fail(struct play *g, struct plan *p, int number, struct err *e)
{
        return number == 1 || number == 5 ? hold_all(g, p, number, e) : save_each(g, p, number, e);
}

static enum verdict first_as_well(struct play *g, struct plan *p, int number, struct err *e)
{
        return number == 5 ? hold_all(g, p, number, e) : save_each(g, p, number, e);
}

/* Another archive under the same name (a log rotated, standard input): what stands where the held one stood is another message. */
TEST(held_where_another_stands_now)
{
        struct play g = play_new(first_and_fifth_fail);

        write_mbox("a.mbox", 1, 1, 100);
        play_run(&g, "a.mbox", NULL);
        CHECK(g.result.held == 1 && marks(1u << MARK_HELD) == 1);
        write_mbox("a.mbox", 2, 2, 100);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 2 && exists("root/msg/2") && marks(1u << MARK_HELD) == 1); /* the only copy of message 1 */
        for (int i = 0; i < 3; i++) {
                write_mbox("a.mbox", 5, 1, 100);
                play_run(&g, "a.mbox", NULL);
                CHECK(g.result.held == 1 && marks(1u << MARK_HELD | 1u << MARK_QUARANTINED) == 2);
        }
        CHECK(marks(1u << MARK_QUARANTINED) == 1); /* message 5, by its own failures alone */
        write_mbox("a.mbox", 6, 1, 100);
        play_run(&g, "a.mbox", NULL);
        CHECK(g.result.messages == 1 && exists("root/msg/6")); /* where a quarantined one stood */
        g.rule = first_as_well;
        write_mbox("a.mbox", 1, 1, 100);
        play_run(&g, "a.mbox", NULL);
        CHECK(g.result.messages == 1 && exists("root/msg/1"));
        write_mbox("a.mbox", 5, 1, 100);
        play_run(&g, "a.mbox", NULL);
        CHECK(g.result.quarantined == 1 && g.result.held == 0 && g.decided == 0); /* it is known, though the one before it has gone */
        g.rule = save_each;
        g.config.failed = true;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 1 && exists("root/msg/5"));
        CHECK(marks(1u << MARK_HELD | 1u << MARK_QUARANTINED) == 0 && spool_is_empty());
}

/* ---- what cannot be carried out ---- */

static enum verdict third_into_a_file(struct play *g, struct plan *p, int number, struct err *e)
{
        bool ok = play_save_as(p, "msg/", number, e) && (number != 3 || play_deliver(p, "file/Box", e));

        return ok ? RUN_DONE : RUN_FAIL;
}

/* What was decided before it commits, it is held, what was decided after it is decided again. */
TEST(unstageable_is_held)
{
        struct play g = play_new(third_into_a_file);

        write_mbox("a.mbox", 1, 6, 100);
        write_file("root/file", STR("in the way"));
        for (int run = 1; run <= 4; run++) { /* a failure of this machine is no attempt */
                play_run(&g, "a.mbox", NULL);
                CLEAN(&g);
                CHECK(g.result.messages == 5 && g.result.held == 1 && g.result.quarantined == 0);
                CHECK(!exists("root/msg/3") && exists("root/msg/6"));
        }
        CHECK(unlink(at("root/file")) == 0);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 6 && exists("root/msg/3") && entries("root/file/Box/new") == 1);
}

/* A file that appears between deciding and committing: the message is decided again, and gets another name. */
static enum verdict taken_meanwhile(struct play *g, struct plan *p, int number, struct err *e)
{
        if (number == 2 && g->calls++ == 0) {
                bool ok = play_save_as(p, "msg/", number, e);

                write_file("root/msg/2", STR("somebody else's"));
                return ok ? RUN_DONE : RUN_FAIL;
        }
        return save_each(g, p, number, e);
}

TEST(taken_meanwhile)
{
        struct play g = play_new(taken_meanwhile);
        char text[256];

        write_mbox("a.mbox", 1, 4, 100);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 4 && g.result.held == 0 && g.decided > 4);
        read_whole(at("root/msg/2"), text, sizeof text);
        CHECK_STR(str_of(text), "somebody else's");
        CHECK(exists("root/msg/2 (2)") && exists("root/msg/1") && exists("root/msg/3") && exists("root/msg/4"));
        CHECK(entries("root/msg") == 5);
}

/* Somebody takes every name at the last moment: held in the end, not tried for ever. */
static enum verdict always_taken(struct play *g, struct plan *p, int number, struct err *e)
{
        char path[64];

        if (number != 2)
                return save_each(g, p, number, e);
        snprintf(path, sizeof path, "root/msg/2%c", 'a' + (char)g->calls++);
        if (!play_save(p, arena_str(p->arena, str_of(path + 5)), CONFLICT_NUMBER, e))
                return RUN_FAIL;
        write_file(path, STR("taken"));
        return RUN_DONE;
}

TEST(always_taken)
{
        struct play g = play_new(always_taken);

        write_mbox("a.mbox", 1, 4, 100);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 3 && g.result.held == 1 && g.calls <= 4);
        CHECK(strstr(g.why, "taken meanwhile"));
}

static enum verdict file_removed(struct play *g, struct plan *p, int number, struct err *e)
{
        bool ok = play_save_as(p, "msg/", number, e);

        if (number == 2 && g->calls++ == 0 && unlink(at("root/msg/2")) != 0)
                return RUN_FAIL;
        return ok ? RUN_DONE : RUN_FAIL;
}

/* The same content stood there, so nothing was to be written; and then somebody removed it. */
TEST(same_removed_meanwhile)
{
        struct play g = play_new(save_each);

        write_mbox("a.mbox", 1, 3, 100);
        play_run(&g, "a.mbox", NULL);
        g.rule = file_removed;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 3 && g.result.held == 0);
        CHECK(times_in("root/msg", 2) == 1);
}

static enum verdict file_changed(struct play *g, struct plan *p, int number, struct err *e)
{
        bool ok = play_save_as(p, "msg/", number, e);

        if (number == 2 && g->calls++ == 0)
                write_file("root/msg/2", STR("edited"));
        return ok ? RUN_DONE : RUN_FAIL;
}

/* The same, but somebody edited it. */
TEST(same_edited_meanwhile)
{
        struct play g = play_new(save_each);

        write_mbox("a.mbox", 1, 3, 100);
        play_run(&g, "a.mbox", NULL);
        g.rule = file_changed;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 3 && g.result.held == 0);
        CHECK(times_in("root/msg", 2) == 1 && entries("root/msg") == 4);
}

/* A held message's promise is nobody's: the next one with that content writes the file. */
static enum verdict first_promises(struct play *g, struct plan *p, int number, struct err *e)
{
        if (!play_save(p, STR("same"), CONFLICT_NUMBER, e))
                return RUN_FAIL;
        return g->calls++ == 0 ? (err_set(e, ERR_SCRIPT, "after the promise"), RUN_FAIL) : RUN_DONE;
}

TEST(promise_of_a_held_message)
{
        struct play g = play_new(first_promises);

        write_mbox("a.mbox", 7, 1, 100);
        write_mbox("b.mbox", 7, 1, 100);
        play_run(&g, "a.mbox", "b.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 1 && g.result.held == 1);
        CHECK(times_in("root", 7) == 1 && exists("root/same"));
}

/* ---- waiting ---- */

static void nap(void *arg)
{
        usleep(30000);
}

static enum verdict wait_in_a(struct play *g, struct plan *p, int number, struct err *e)
{
        if (number > 100) /* of b */
                return save_each(g, p, number, e);
        p->wait = nap;
        return RUN_WAIT;
}

static const char *at_order(const struct play *g, const char *what)
{
        const char *p = strstr(g->order, what);

        if (!p)
                printf("no \"%s\" in %s\n", what, g->order), test_bad++;
        return p ? p : "";
}

TEST(waiting_keeps_order_in_its_lane)
{
        struct play g = play_new(wait_in_a);

        g.resume = save_each;
        write_mbox("a.mbox", 1, 3, 100);
        write_mbox("b.mbox", 101, 3, 100);
        play_run(&g, "a.mbox", "b.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 6 && entries("root/msg") == 6);
        CHECK(at_order(&g, "resume 1 of a") < at_order(&g, "decide 2 of a"));
        CHECK(at_order(&g, "resume 2 of a") < at_order(&g, "decide 3 of a"));
        CHECK(at_order(&g, "decide 101 of b") < at_order(&g, "decide 102 of b"));
        CHECK(at_order(&g, "decide 103 of b") < at_order(&g, "resume 3 of a"));
}

/* a promises a file and waits; b finds the same content promised; a fails. The file must be there all the same. */
static enum verdict promise_and_wait(struct play *g, struct plan *p, int number, struct err *e)
{
        if (!play_save(p, STR("same"), CONFLICT_NUMBER, e))
                return RUN_FAIL;
        if (str_find_str(p->source->name, STR("a.mbox")) == p->source->name.n)
                return RUN_DONE;
        p->wait = nap;
        return RUN_WAIT;
}

static enum verdict fails(struct play *g, struct plan *p, int number, struct err *e)
{
        err_set(e, ERR_SCRIPT, "after the wait");
        return RUN_FAIL;
}

TEST(promise_of_a_waiting_message)
{
        struct play g = play_new(promise_and_wait);

        g.resume = fails;
        write_mbox("a.mbox", 7, 1, 100);
        write_mbox("b.mbox", 7, 1, 100);
        play_run(&g, "a.mbox", "b.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 1 && g.result.held == 1);
        CHECK(times_in("root", 7) == 1);
}

/* The same where another file stands there, which a wants to replace: that it is there says nothing. */
static enum verdict replace_and_wait(struct play *g, struct plan *p, int number, struct err *e)
{
        bool first = str_find_str(p->source->name, STR("a.mbox")) < p->source->name.n;

        if (!play_save(p, STR("same"), first ? CONFLICT_REPLACE : CONFLICT_NUMBER, e))
                return RUN_FAIL;
        p->wait = nap;
        return first ? RUN_WAIT : RUN_DONE;
}

TEST(replacement_of_a_waiting_message)
{
        struct play g = play_new(replace_and_wait);

        g.resume = fails;
        write_file("root/same", STR("another"));
        write_mbox("a.mbox", 7, 1, 100);
        write_mbox("b.mbox", 7, 1, 100);
        play_run(&g, "a.mbox", "b.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 1 && g.result.held == 1);
        CHECK(times_in("root", 7) == 1 && entries("root") == 2);
}

/* a waits while something it may have seen is undone: it is decided again, and each message still has one outcome. */
static enum verdict wait_and_undo(struct play *g, struct plan *p, int number, struct err *e)
{
        if (number > 100)
                return taken_meanwhile(g, p, number - 100, e);
        p->wait = nap;
        return play_save_as(p, "wait/", number, e) ? RUN_WAIT : RUN_FAIL;
}

TEST(waiting_while_others_are_undone)
{
        struct play g = play_new(wait_and_undo);

        g.resume = nothing;
        g.config.limits.batch_ms = 1;
        write_mbox("a.mbox", 1, 3, 100);
        write_mbox("b.mbox", 101, 4, 100);
        play_run(&g, "a.mbox", "b.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 7 && g.result.held == 0 && g.result.undone == 0);
        CHECK(entries("root/wait") == 3 && entries("root/msg") == 5);
}

/* b fills a batch whose last message is undone. While it is carried out a has one message being written, long, and the next waits
 * and comes back first: they keep their order all the same. */
enum { OF_B = 60, LONG = 400 };
static atomic_bool b_decided, b_settled;

static void nap_until(void *flag)
{
        for (int i = 0; i < 2000 && !atomic_load((atomic_bool *)flag); i++)
                usleep(1000);
        usleep(3000);
}

static enum verdict wait_behind_the_long(struct play *g, struct plan *p, int number, struct err *e)
{
        bool ok = true;

        if (number > 100) {
                atomic_store(&b_decided, number == 100 + OF_B);
                ok = play_save_as(p, "b/", number, e);
                if (number == 100 + OF_B && g->calls++ == 0)
                        write_file("root/b/160", STR("somebody else's"));
        } else if (number == 2) {
                for (int i = 0; ok && i < LONG; i++)
                        ok = play_save_as(p, "long/", i, e);
        } else {
                p->wait = nap_until;
                p->wait_arg = number == 1 ? &b_decided : &b_settled;
        }
        return !ok ? RUN_FAIL : p->wait ? RUN_WAIT : RUN_DONE;
}

static void settled_b(void *ctx, const struct run_event *ev)
{
        play_event(ctx, ev);
        if (ev->kind == EVENT_DECIDED && ev->plan->message && play_number((struct plan *)ev->plan) > 100)
                atomic_store(&b_settled, true);
}

static const char *last_order(const struct play *g, const char *what)
{
        const char *p = at_order(g, what), *next;

        while ((next = strstr(p + 1, what)))
                p = next;
        return p;
}

TEST(what_waits_stays_behind_what_is_written)
{
        struct play g = play_new(wait_behind_the_long);

        g.resume = nothing;
        g.heard = settled_b;
        g.config.limits.batch_messages = OF_B;
        g.config.limits.batch_ms = 60000;
        write_mbox("a.mbox", 1, 3, 100000);
        write_mbox("b.mbox", 101, OF_B, 100);
        play_run(&g, "a.mbox", "b.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 3 + OF_B && g.result.held == 0 && entries("root/b") == OF_B + 1);
        CHECK(last_order(&g, "decide 1 of a") < last_order(&g, "decide 2 of a"));
        CHECK(last_order(&g, "decide 2 of a") < last_order(&g, "decide 3 of a"));
        if (strstr(at_order(&g, "decide 2 of a") + 1, "decide 2 of a") == NULL)
                printf("what_waits_stays_behind_what_is_written: not reached this time\n");
}

/* ---- stores ---- */

static enum verdict count_up(struct play *g, struct plan *p, int number, struct err *e)
{
        struct str value;
        bool found;
        char text[16];

        if (!run_store_get(p, STR("s"), STR("n"), &value, &found, e))
                return RUN_FAIL;
        if (found != (number > 1) || (found && atoi(value.p) != number - 1))
                g->calls++;
        snprintf(text, sizeof text, "%d", number);
        if (!plan_store(p, STR("s"), STR("n"), str_make(text, strlen(text) + 1), 0, e))
                return RUN_FAIL;
        if (!run_store_get(p, STR("s"), STR("n"), &value, &found, e) || !found || atoi(value.p) != number)
                g->calls++; /* its own */
        return RUN_DONE;
}

TEST(stores_see_what_went_before)
{
        struct play g = play_new(count_up);

        g.config.limits.batch_messages = 7; /* own, in the open batch, in the one being carried out, in the state */
        write_mbox("a.mbox", 1, 100, 20);
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 100 && g.calls == 0);
}

static bool note_key(void *ctx, struct str key, struct str value)
{
        buf_printf(ctx, "%.*s=%.*s ", STR_FMT(key), STR_FMT(value));
        return true;
}

static enum verdict store_cases(struct play *g, struct plan *p, int number, struct err *e)
{
        struct buf *b = g->ctx;
        struct str value;
        bool found, ok = true;

        switch (number) {
        case 1:
                return plan_store(p, STR("s"), STR("keep"), STR("1"), 0, e) && plan_store(p, STR("s"), STR("gone"), STR("1"), 0, e) &&
                       plan_store(p, STR("s"), STR("old"), STR("1"), 1000, e) ? RUN_DONE : RUN_FAIL;
        case 2:
                return plan_store(p, STR("s"), STR("gone"), STR_NONE, 0, e) ? RUN_DONE : RUN_FAIL;
        case 3: /* what a failed message stored was never stored */
                if (!plan_store(p, STR("s"), STR("keep"), STR("of the failed"), 0, e))
                        return RUN_FAIL;
                err_set(e, ERR_SCRIPT, "held");
                return RUN_FAIL;
        default:
                ok = run_store_get(p, STR("s"), STR("gone"), &value, &found, e);
                buf_printf(b, "gone:%d ", found);
                ok = ok && run_store_get(p, STR("s"), STR("old"), &value, &found, e);
                buf_printf(b, "old:%d ", found);
                ok = ok && run_store_get(p, STR("s"), STR("keep"), &value, &found, e);
                buf_printf(b, "keep:%.*s ", STR_FMT(value));
                return ok && run_store_each(p, STR("s"), note_key, b, e) ? RUN_DONE : RUN_FAIL;
        }
}

TEST(stores_removed_expired_failed)
{
        for (int dry = 0; dry < 2; dry++)
                for (unsigned batch = 1; batch < 10; batch += 8) {
                        struct play g = play_new(store_cases);
                        struct buf b = BUF_INIT;

                        g.ctx = &b;
                        g.config.dry = dry;
                        g.config.limits.batch_messages = batch;
                        write_mbox("a.mbox", 1, 4, 20);
                        play_run(&g, "a.mbox", NULL);
                        CLEAN(&g);
                        CHECK(g.result.held == 1);
                        CHECK_STR(buf_str(&b), "gone:0 old:0 keep:1 keep=1 ");
                        buf_free(&b);
                }
}

/* ---- dry ---- */

TEST(dry_run_writes_nothing)
{
        struct play g = play_new(save_each);

        write_mbox("a.mbox", 1, 3, 100);
        write_mbox("b.mbox", 1, 3, 100);
        g.config.dry = true;
        play_run(&g, "a.mbox", "b.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 6 && g.result.saved == 3); /* b's are what a's would have been */
        CHECK(!exists("root") && !exists("state"));
        g.rule = third_fails;
        play_run(&g, "a.mbox", "b.mbox", NULL);
        CHECK(g.result.messages == 4 && g.result.held == 2 && !exists("state"));
}

TEST(dry_account_changes_nothing)
{
        struct play g = play_new(nothing);
        struct postbox m;

        write_mbox("a.mbox", 1, 3, 100);
        NEED(postbox_open(&m, &g, "a.mbox"));
        g.account.leave = LEAVE_NEVER;
        g.config.dry = true;
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 3 && g.result.delivered == 3 && !exists("root") && !exists("state"));
        CHECK(postbox_close(&m, &g) == 3);
}

/* ---- an account ---- */

TEST(implicit_keep)
{
        struct play g = play_new(nothing);
        struct postbox m;

        write_mbox("a.mbox", 1, 5, 100);
        NEED(postbox_open(&m, &g, "a.mbox"));
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 5 && g.result.delivered == 5 && entries("root/Inbox/new") == 5);
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.decided == 0 && g.result.skipped == 5);
        g.account.leave = LEAVE_NEVER;
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.decided == 0 && entries("root/Inbox/new") == 5);
        CHECK(postbox_close(&m, &g) == 0);
}

static enum verdict by_number(struct play *g, struct plan *p, int number, struct err *e)
{
        if (number == 1)
                return play_deliver(p, "Box", e) ? RUN_DONE : RUN_FAIL;
        if (number == 2)
                return save_each(g, p, number, e);
        p->discarded = number == 3;
        if (number == 4) { /* asked for, and yet nothing is kept */
                p->leave_set = true;
                p->leave = LEAVE_NEVER;
        }
        return RUN_DONE;
}

/* A clock that went back, or far forward, since the last run: that run deletes nothing by age; the next, on a clock that agrees, does. */
TEST(W20_D10_the_clock_jumps)
{
        enum { DAY = 86400 };
        static const struct {
                int64_t first, jump; /* the first run's clock; the second's, from there */
        } rows[] = { { 1800000000, -10LL * 365 * DAY }, { 1800000000, 91LL * DAY }, { 1800000000, 4291747200 - 1800000000 /* 2106 */ }, { 0, 0 } };

        for (int i = 0; rows[i].first; i++) {
                struct play g = play_new(nothing);
                struct postbox m;

                write_mbox("a.mbox", 1, 3, 100);
                NEED(postbox_open(&m, &g, "a.mbox"));
                g.account.leave = LEAVE_AGE;
                g.account.leave_age = 14 * DAY;
                g.config.now = rows[i].first;
                play_run(&g, NULL);
                CLEAN(&g);
                CHECK(g.result.delivered == 3 && postbox_left(&m) == 3);
                g.config.now += rows[i].jump;
                play_run(&g, NULL);
                CLEAN(&g);
                CHECK(g.decided == 0 && postbox_left(&m) == 3);
                g.config.now += 15 * DAY;
                play_run(&g, NULL);
                CLEAN(&g);
                CHECK(g.decided == 0 && postbox_left(&m) == (rows[i].jump > 0 ? 0 : 3)); /* back: not yet old by that clock */
                CHECK(postbox_close(&m, &g) == (rows[i].jump > 0 ? 0 : 3));
        }
}

/* inbox = false: a message leaves the server only after deliver, a save of the whole message, or discard. */
TEST(without_an_inbox)
{
        struct play g = play_new(by_number);
        struct postbox m;

        write_mbox("a.mbox", 1, 5, 100);
        NEED(postbox_open(&m, &g, "a.mbox"));
        g.account.leave = LEAVE_NEVER;
        g.account.inbox = STR_NONE;
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 5 && !exists("root/Inbox"));
        CHECK(postbox_left(&m) == 2);
        play_run(&g, NULL); /* nor in a later run */
        CLEAN(&g);
        CHECK(g.decided == 0);
        CHECK(postbox_close(&m, &g) == 2);
}

/* Over a parsing limit: of an account held until it is kept whole, of an archive carried out and told. */
TEST(over_a_limit)
{
        struct play g = play_new(nothing);
        struct postbox m;

        write_mbox("a.mbox", 1, 3, 100);
        NEED(postbox_open(&m, &g, "a.mbox"));
        g.account.leave = LEAVE_NEVER;
        g.account.inbox = STR_NONE;
        g.config.limits.header_fields = 1;
        play_run(&g, NULL);
        CHECK(g.ok && g.result.held == 3 && g.result.messages == 0 && postbox_left(&m) == 3);
        CHECK(strstr(g.why, "limit.header"));
        g.account.inbox = STR("Inbox");
        play_run(&g, NULL);
        CHECK(g.ok && g.result.held == 0 && g.result.messages == 3 && g.result.delivered == 3);
        postbox_close(&m, &g);
        g.config.account_n = 0;
        play_run(&g, "a.mbox", NULL);
        CHECK(g.ok && g.result.messages == 3 && g.result.limited == 3 && g.result.held == 0);
}

TEST(held_of_an_account)
{
        struct play g = play_new(third_fails);
        struct postbox m;

        write_mbox("a.mbox", 1, 5, 100);
        NEED(postbox_open(&m, &g, "a.mbox"));
        g.account.leave = LEAVE_NEVER;
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 4 && g.result.held == 1 && postbox_left(&m) == 1);
        play_run(&g, NULL); /* out of the spool, and held again */
        CLEAN(&g);
        CHECK(g.decided == 1 && g.result.held == 1 && postbox_left(&m) == 1 && marks(1u << MARK_HELD) == 1);
        g.rule = save_each;
        other_script(&g);
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.decided == 1 && g.result.messages == 1 && exists("root/msg/3"));
        CHECK(marks(1u << MARK_SEEN) == 5 && marks(1u << MARK_HELD) == 0 && spool_is_empty());
        CHECK(postbox_close(&m, &g) == 0);
}

static enum verdict cut_short(struct play *g, struct plan *p, int number, struct err *e)
{
        if (number == 2 || number == 3) /* as the account would say of an answer that was short twice */
                ((struct origin *)message_origin(p->message))->suspect = true;
        return third_fails(g, p, number, e);
}

/* W19: what is perhaps cut off stays on the server for good, also when it has been in the spool. */
TEST(W19_suspect_of_an_account)
{
        struct play g = play_new(cut_short);
        struct postbox m;

        write_mbox("a.mbox", 1, 5, 100);
        NEED(postbox_open(&m, &g, "a.mbox"));
        g.account.leave = LEAVE_NEVER;
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.result.held == 1 && postbox_left(&m) == 2);
        g.rule = save_each;
        other_script(&g);
        for (int i = 0; i < 2; i++) {
                play_run(&g, NULL);
                CLEAN(&g);
                CHECK(postbox_left(&m) == 2);
        }
        CHECK(marks(1u << MARK_SEEN) == 5);
        CHECK(postbox_close(&m, &g) == 2);
}

/* ---- on_finish, the guard ---- */

static enum verdict command_each(struct play *g, struct plan *p, int number, struct err *e)
{
        return play_command(p, e) ? RUN_DONE : RUN_FAIL;
}

static enum verdict finish_command(struct play *g, struct plan *p, struct err *e)
{
        return !p->message && play_command(p, e) ? RUN_DONE : RUN_FAIL;
}

static bool count_item(void *ctx, const struct outbox_item *i)
{
        ++*(unsigned *)ctx;
        return true;
}

static unsigned outbox(unsigned states)
{
        struct err e = { 0 };
        struct ledger *l = ledger_open(at("state"), true, &e);
        unsigned n = 0;

        if (!l || !ledger_outbox(l, states, count_item, &n, &e))
                test_bad++;
        if (l)
                ledger_close(l);
        return n;
}

TEST(guard_of_an_archive)
{
        struct play g = play_new(command_each);

        write_mbox("a.mbox", 1, 3, 100);
        g.finish = finish_command;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.commands == 4 && g.result.waiting == 4 && outbox(1u << OUTBOX_WAITING) == 4);
        g.config.send = true;
        play_run(&g, "a.mbox", NULL);
        CHECK(g.result.waiting == 0 && outbox(1u << OUTBOX_READY) == 4);
}

TEST(guard_of_an_account)
{
        struct play g = play_new(command_each);
        struct postbox m;

        write_mbox("a.mbox", 1, 25, 100);
        NEED(postbox_open(&m, &g, "a.mbox"));
        g.finish = finish_command;
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 25 && g.result.waiting == 5 && outbox(1u << OUTBOX_READY) == 21);
        g.config.again = true; /* not its first run any more */
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 25 && g.result.waiting == 0);
        (void)postbox_close(&m, &g);
}

static enum verdict finish_fails(struct play *g, struct plan *p, struct err *e)
{
        err_set(e, ERR_SCRIPT, "at the end");
        return RUN_FAIL;
}

TEST(finish_fails)
{
        struct play g = play_new(save_each);

        write_mbox("a.mbox", 1, 2, 100);
        g.finish = finish_fails;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 2 && g.result.worst == ERR_SCRIPT);
}

/* ---- bytes in flight ---- */

TEST(larger_than_the_queue)
{
        struct play g = play_new(save_each);

        g.config.limits.queue = 10000;
        g.config.limits.batch_bytes = 5000;
        write_mbox("a.mbox", 1, 3, 30000);
        write_mbox("b.mbox", 11, 50, 2000);
        play_run(&g, "a.mbox", "b.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 53 && entries("root/msg") == 53);
}

/* A batch that never fills and a queue that is full: the batch closes at once, not after batch_ms. */
TEST(full_queue_closes_the_batch)
{
        struct play g = play_new(save_each);
        int64_t begun;

        g.config.limits.queue = 10000;
        g.config.limits.batch_ms = 2000;
        write_mbox("a.mbox", 1, 60, 1000);
        begun = sys_mono_ms();
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 60);
        CHECK(sys_mono_ms() - begun < 25000); /* else 20 times 2 s */
}

/* ---- limit, stop, resume ---- */

TEST(limit_and_resume)
{
        struct play g = play_new(deliver_each);

        write_mbox("a.mbox", 1, 5, 100);
        g.config.limit = 2;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 2);
        play_run(&g, "a.mbox", NULL); /* not cut off: another run may begin at the beginning */
        CLEAN(&g);
        CHECK_STR(str_of(g.order), "decide 1 of a.mbox|decide 2 of a.mbox|");
        g.config.resume = true;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 2);
        CHECK_STR(str_of(g.order), "decide 3 of a.mbox|decide 4 of a.mbox|");
        play_run(&g, "a.mbox", NULL); /* ends just where the archive ends */
        CLEAN(&g);
        CHECK_STR(str_of(g.order), "decide 5 of a.mbox|");
        CHECK(entries("root/Box/new") == 7);
        g.config.resume = false;
        g.config.limit = 0;
        play_run(&g, "a.mbox", NULL); /* finished: no mark */
        CLEAN(&g);
        CHECK(g.result.messages == 5);
}

/* What a run leaves that died, or was stopped, behind its third message. */
static void cut_off(struct play *g, const char *archive, bool with_names)
{
        struct err e = { 0 };
        struct ledger *l;
        struct arena *a = arena_new(0);
        struct ledger_account la;
        struct resume mark;
        bool found;

        g->config.limit = 3;
        play_run(g, archive, NULL);
        g->config.limit = 0;
        l = ledger_open(at("state"), false, &e);
        NEED(l && ledger_account(l, g->archives[0], STR(""), &la, a, &e));
        CHECK(ledger_resume_get(l, la.id, &mark, &found, a, &e) && found && mark.number == 3 && mark.limited);
        CHECK(mark.names != 0);
        mark.limited = false;
        mark.names = with_names ? mark.names : 0;
        CHECK(ledger_resume_set(l, la.id, &mark, &e));
        ledger_close(l);
        arena_free(a);
}

TEST(from_start)
{
        struct play g = play_new(nothing);

        write_mbox("a.mbox", 1, 5, 100);
        cut_off(&g, "a.mbox", true);
        play_run(&g, "a.mbox", NULL);
        CHECK(!g.ok && g.e.code == ERR_USAGE && strstr(g.e.text, "--resume") && g.decided == 0);
        g.config.dry = true; /* a rehearsal needs neither word */
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.decided == 5);
        g.config.dry = false;
        g.config.from_start = true;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.decided == 5);
        g.config.from_start = false;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.decided == 5);
}

/* The count means nothing once something before it has gone or come. */
TEST(resume_of_a_changed_archive)
{
        struct play g = play_new(nothing);

        write_mbox("a.mbox", 1, 5, 100);
        cut_off(&g, "a.mbox", true);
        g.config.resume = true;
        write_mbox("a.mbox", 10, 6, 200);
        play_run(&g, "a.mbox", NULL);
        CHECK(g.ok && g.result.sources_failed == 1 && g.result.worst == ERR_USAGE && g.decided == 0);
        write_mbox("a.mbox", 1, 2, 100); /* shorter */
        play_run(&g, "a.mbox", NULL);
        CHECK(g.ok && g.result.sources_failed == 1 && g.result.worst == ERR_USAGE && g.decided == 0);
}

/* One gone and one come before the third message leave it the third; what is renamed or comes behind it changes nothing. */
TEST(resume_of_a_changed_folder)
{
        static const struct { bool with_names; const char *from, *to; unsigned decided; } cases[] = {
                { true, "1:2,", "1b:2,", 0 },    /* as if one had been deleted, and another had come */
                { true, "2;2,S", "0:2,", 0 },
                { true, "1:2,", "1:2,RS", 2 },
                { true, "2;2,S", "2;2,", 2 },
                { true, "3:2,", "3:2,F", 2 },
                { true, "4!2,", "9:2,", 2 },
                { false, "1:2,", "1b:2,", 2 },   /* the mark of an older version */
        };
        static const char *const files[] = { "1:2,", "2;2,S", "3:2,", "4!2,", "5:2," };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                struct play g = play_new(nothing);
                char from[64], to[64];

                for (size_t k = 0; k < 5; k++) {
                        snprintf(from, sizeof from, "md/cur/%s", files[k]);
                        write_file(from, STR("Subject: message 1\n\n"));
                }
                cut_off(&g, "md", cases[i].with_names);
                snprintf(from, sizeof from, "md/cur/%s", cases[i].from);
                snprintf(to, sizeof to, "md/cur/%s", cases[i].to);
                CHECK(rename(at(from), at(to)) == 0);
                g.config.resume = true;
                play_run(&g, "md", NULL);
                CHECK(g.ok && g.decided == cases[i].decided && g.result.sources_failed == !cases[i].decided);
                CHECK(cases[i].decided || g.result.worst == ERR_USAGE);
        }
}

TEST(standard_input_has_no_mark)
{
        struct play g = play_new(nothing);
        int in, kept = dup(0);

        write_mbox("a.mbox", 1, 5, 100);
        g.config.limit = 3;
        for (int i = 0; i < 2; i++) {
                in = open(at("a.mbox"), O_RDONLY | O_CLOEXEC);
                NEED(in >= 0 && dup2(in, 0) == 0);
                close(in);
                play_run(&g, "-", NULL);
                CLEAN(&g);
                CHECK(g.result.messages == 3);
        }
        if (kept >= 0 && dup2(kept, 0) == 0)
                close(kept);
}

static enum verdict stop_at_300(struct play *g, struct plan *p, int number, struct err *e)
{
        if (number == 300)
                run_stop();
        return deliver_each(g, p, number, e);
}

static int stopped_run(void)
{
        struct play g = { .rule = stop_at_300 };

        g.config.limits = limits_default;
        g.config.limits.batch_messages = 50;
        g.config.now = 1800000000;
        play_run(&g, "a.mbox", NULL);
        if (!g.ok || !g.result.stopped || g.result.messages < 300 || g.result.messages >= 1000 || g.result.sources_failed)
                printf("stopped run: ok %d stopped %d messages %d failed %u %s\n", g.ok, g.result.stopped, (int)g.result.messages,
                       g.result.sources_failed, g.e.text);
        else
                return 0;
        return 1;
}

/* A stop lasts as long as the process. */
TEST(stop_and_resume)
{
        struct play g = play_new(deliver_each);
        int status = -1, settled;
        pid_t pid;

        write_mbox("a.mbox", 1, 1000, 500);
        fflush(stdout);
        pid = fork();
        if (pid == 0) {
                int bad = stopped_run();

                fflush(stdout);
                _exit(bad);
        }
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        settled = entries("root/Box/new");
        CHECK(settled >= 300 && settled < 1000);
        play_run(&g, "a.mbox", NULL);
        CHECK(!g.ok && g.e.code == ERR_USAGE);
        g.config.resume = true;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK((int)g.result.messages == 1000 - settled && entries("root/Box/new") == 1000);
        CHECK(times_in("root/Box/new", 300) == 1 && times_in("root/Box/new", settled) == 1 && times_in("root/Box/new", settled + 1) == 1);
}

/* ---- the worker dies ---- */

static enum verdict fourth_kills(struct play *g, struct plan *p, int number, struct err *e)
{
        if (number == 4 || number == 7)
                abort();
        return deliver_each(g, p, number, e);
}

static int deadly_run(void *ctx)
{
        struct play g = { .rule = fourth_kills };

        g.config.limits = limits_default;
        g.config.limits.batch_messages = 2;
        g.config.now = 1800000000;
        g.config.from_start = true; /* said to the first worker, not to those that go on for it */
        play_run(&g, "a.mbox", "b.mbox", NULL);
        if (!g.ok)
                printf("%s\n", g.e.text);
        fflush(stdout);
        _exit(!g.ok); /* exit() would clear the scratch directory away */
}

/* What kills is held, once; nothing else is lost or done twice; and the script is not asked about it again in this run. */
TEST(worker_dies)
{
        struct play g = play_new(deliver_each);
        int status = -1;
        pid_t pid;

        write_mbox("a.mbox", 1, 10, 500);
        write_mbox("b.mbox", 11, 5, 500);
        fflush(stdout);
        pid = fork();
        if (pid == 0) {
                setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
                status = supervise(deadly_run, NULL);
                fflush(stdout);
                _exit(status);
        }
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        for (int i = 1; i <= 15; i++)
                if (times_in("root/Box/new", i) != (i != 4 && i != 7))
                        printf("message %d: %d\n", i, times_in("root/Box/new", i)), test_bad++;
        CHECK(entries("root/Box/new") == 13 && marks(1u << MARK_HELD) == 2);
        g.config.failed = true;
        play_run(&g, "a.mbox", NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 2 && entries("root/Box/new") == 15);
        g.config.failed = false;
        play_run(&g, "a.mbox", NULL); /* it had been finished */
        CLEAN(&g);
}

/* ---- the disk fails ---- */

static bool each_once(int n)
{
        bool ok = true;

        for (int i = 1; i <= n; i++)
                ok = ok && times_in("root/Inbox/new", i) == 1;
        return ok && entries("root/Inbox/new") == n && entries("root/Inbox/tmp") == 0;
}

/* Files may not grow beyond this: the state cannot either, wherever it stands. */
TEST(disk_full)
{
        struct play g = play_new(nothing);
        struct rlimit before, small;
        struct postbox m;

        write_mbox("a.mbox", 1, 5, 20000);
        NEED(postbox_open(&m, &g, "a.mbox"));
        g.account.leave = LEAVE_NEVER;
        getrlimit(RLIMIT_FSIZE, &before);
        small = before;
        small.rlim_cur = 12000;
        setrlimit(RLIMIT_FSIZE, &small);
        play_run(&g, NULL);
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK(!g.ok);
        CHECK(postbox_left(&m) == 5);
        play_run(&g, NULL);
        CLEAN(&g);
        CHECK(g.result.messages == 5 && each_once(5));
        CHECK(postbox_close(&m, &g) == 0);
}

/* The n-th system call fails, and all after it, for each n: nothing lost, nothing twice, and the next run completes it. */
static void calls_fail(int error)
{
        bool more = true;

        for (size_t n = 1; more; n += 1 + n / 12) {
                struct play g = play_new(nothing);
                struct postbox m;

                write_mbox("a.mbox", 1, 4, 100);
                NEED(postbox_open(&m, &g, "a.mbox"));
                g.account.leave = LEAVE_NEVER;
                g.config.limits.batch_ms = 5;
                sys_fail_at(n, error, true);
                play_run(&g, NULL);
                more = sys_fail_at(0, 0, false) >= n;
                if (more && g.ok && !g.result.sources_failed && !g.result.held && g.result.messages < 4)
                        printf("call %zu: the run says it is well\n", n), test_bad++;
                play_run(&g, NULL);
                if (!g.ok || !each_once(4) || postbox_left(&m) != 0)
                        printf("call %zu: %s; %d in the inbox, %zu on the server, %d held\n", n, g.e.text, entries("root/Inbox/new"),
                               postbox_left(&m), (int)g.result.held), test_bad++;
                (void)postbox_close(&m, &g);
        }
}

TEST(T3_no_space) { calls_fail(ENOSPC); }
TEST(T3_io_error) { calls_fail(EIO); }

/* The same over an archive: what is left is taken up where the run was cut off. */
TEST(T3_archive)
{
        bool more = true;

        for (size_t n = 1; more; n += 1 + n / 12) {
                struct play g = play_new(deliver_each);

                g.config.limits.batch_messages = 2;
                g.config.limits.batch_ms = 5;
                write_mbox("a.mbox", 1, 6, 100);
                sys_fail_at(n, ENOSPC, true);
                play_run(&g, "a.mbox", NULL);
                more = sys_fail_at(0, 0, false) >= n;
                if (!g.ok || g.result.messages < 6) {
                        g.config.resume = true;
                        play_run(&g, "a.mbox", NULL);
                }
                CLEAN(&g);
                for (int i = 1; i <= 6; i++)
                        CHECK(times_in("root/Box/new", i) == 1);
                if (entries("root/Box/new") != 6)
                        printf("call %zu: %d\n", n, entries("root/Box/new")), test_bad++;
        }
}

TEST_MAIN
