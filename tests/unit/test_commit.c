/* The commit protocol on a real ledger and a scratch directory: staging, the batch as a prefix, holds, the flood guard, a failing machine. */
#include "core/commit.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "core/sys.h"
#include "tests/unit/archives.h"

enum { ITEMS = 8 };

/* One state and root, one committer, and items that are made as they are needed. */
struct desk {
        struct ledger *l;
        struct staging *s;
        struct root *r;
        struct arena *a;
        struct committer c;
        struct ledger_account account;
        struct guard guard;
        struct item items[ITEMS], *list[ITEMS];
        struct message *messages[ITEMS];
        size_t n;
        bool retry;
        struct err e;
        unsigned named;
};

static void note_named(void *ctx, struct plan *p, struct str from, struct str to)
{
        ((struct desk *)ctx)->named++;
}

static bool desk_open(struct desk *d, bool again)
{
        unsigned recovered;

        signal(SIGXFSZ, SIG_IGN);
        if (!again)
                scratch_begin();
        memset(d, 0, sizeof *d);
        d->a = arena_new(0);
        d->l = ledger_open(at("state"), false, &d->e);
        d->s = d->l ? staging_open(d->l, &recovered, &d->e) : NULL;
        d->r = d->s ? root_open(str_of(at("root")), &d->e) : NULL;
        d->c = (struct committer){ .ledger = d->l, .staging = d->s, .now = 1800000000, .named = note_named, .ctx = d, .script_hash = { 1 } };
        if (!d->r || !ledger_account(d->l, STR("work"), STR("me@x:995"), &d->account, d->a, &d->e))
                printf("%s\n", d->e.text);
        return d->r && d->account.id;
}

static void drop_items(struct desk *d)
{
        for (size_t i = 0; i < d->n; i++) {
                plan_free(d->items[i].plan);
                message_free(d->messages[i]);
        }
        d->n = 0;
}

static void desk_close(struct desk *d)
{
        drop_items(d);
        CHECK(commit_close(&d->c, &d->e));
        staging_close(d->s);
        ledger_close(d->l);
        root_close(d->r);
        buf_free(&d->guard.reached_uid);
        arena_free(d->a);
}

static struct item *item(struct desk *d, const char *uid)
{
        struct origin o = { .source = STR("work"), .account = STR("work"), .uid = str_of(uid), .number = d->n + 1 };
        struct item *it = &d->items[d->n];
        struct buf b = BUF_INIT;
        struct backing *in;
        size_t n;

        buf_printf(&b, "From: a@x\nSubject: %s\n\nbody of %s\n", uid, uid);
        n = b.n;
        in = backing_memory(b.p, n);
        d->messages[d->n] = message_new((struct range){ in, 0, n }, &o, &limits_default, &d->e);
        backing_unref(in);
        *it = (struct item){ .plan = plan_new(d->messages[d->n], NULL), .guard = &d->guard, .account = d->account.id, .spool_fd = -1 };
        d->list[d->n++] = it;
        return it;
}

static struct effect *save(struct desk *d, struct item *it, const char *path)
{
        struct effect *f = plan_add(it->plan, EFFECT_SAVE, &limits_default, &d->e);

        f->root = d->r;
        f->path = str_of(path);
        f->part = message_root(it->plan->message);
        it->plan->saved_whole = true;
        return f;
}

static struct effect *deliver(struct desk *d, struct item *it, const char *folder)
{
        struct effect *f = plan_add(it->plan, EFFECT_DELIVER, &limits_default, &d->e);

        f->root = d->r;
        f->path = str_of(folder);
        it->plan->delivered = true;
        return f;
}

static void command(struct desk *d, struct item *it)
{
        static const struct str argv[] = { { "true", 4 } };
        struct effect *f = plan_add(it->plan, EFFECT_COMMAND, &limits_default, &d->e);

        f->argv = argv;
        f->argc = 1;
}

static void hold(struct item *it, bool attempt)
{
        it->hold = true;
        it->attempt = attempt;
        err_set(&it->why, ERR_SCRIPT, "rule.lua:1: no\nstack traceback:\n\t…");
}

/* Stages all and commits: how many. */
static size_t go(struct desk *d)
{
        d->e = (struct err){ 0 };
        for (size_t i = 0; i < d->n; i++)
                if (!commit_stage(&d->c, d->list[i], &d->e)) {
                        printf("staging %zu: %s\n", i, d->e.text);
                        return 0;
                }
        return commit_batch(&d->c, d->list, d->n, &d->retry, &d->e);
}

static bool exists(const char *path)
{
        struct stat st;

        return lstat(at(path), &st) == 0;
}

static int entries(const char *path)
{
        DIR *dir = opendir(at(path));
        int n = 0;

        if (!dir)
                return -1;
        for (struct dirent *i; (i = readdir(dir)) != NULL;)
                n += strcmp(i->d_name, ".") != 0 && strcmp(i->d_name, "..") != 0;
        closedir(dir);
        return n;
}

/* Files of this run in the spool, beside its lock and its list of directories. */
static int spooled(struct desk *d)
{
        char path[256];
        DIR *dir;
        int n = 0;

        snprintf(path, sizeof path, "state/spool/%.*s", STR_FMT(staging_id(d->s)));
        dir = opendir(at(path));
        for (struct dirent *i; dir && (i = readdir(dir)) != NULL;)
                n += i->d_name[0] >= '0' && i->d_name[0] <= '9';
        if (dir)
                closedir(dir);
        return n;
}

static struct mark mark_of(struct desk *d, const char *uid)
{
        struct mark m = { 0 };
        bool found;

        CHECK(ledger_mark(d->l, d->account.id, str_of(uid), 0, &m, &found, d->a, &d->e));
        if (!found)
                m = (struct mark){ 0 };
        return m;
}

static bool count_rename(void *ctx, const struct rename_job *j)
{
        ++*(unsigned *)ctx;
        return true;
}

static unsigned renames(struct desk *d)
{
        unsigned n = 0;

        CHECK(ledger_renames(d->l, STR(""), count_rename, &n, &d->e));
        return n;
}

static bool count_item(void *ctx, const struct outbox_item *i)
{
        ++*(unsigned *)ctx;
        return true;
}

static unsigned outbox(struct desk *d, enum outbox_state state)
{
        unsigned n = 0;

        CHECK(ledger_outbox(d->l, 1u << state, count_item, &n, &d->e));
        return n;
}

TEST(a_batch)
{
        struct desk d;

        NEED(desk_open(&d, false));
        save(&d, item(&d, "u1"), "a/one");
        deliver(&d, item(&d, "u2"), "Box");
        command(&d, item(&d, "u3"));
        CHECK(go(&d) == 3 && d.e.code == ERR_NONE && !d.retry);
        CHECK(exists("root/a/one") && entries("root/Box/new") == 1 && entries("root/Box/tmp") == 0 && entries("root/a") == 1);
        CHECK(mark_of(&d, "u1").state == MARK_SEEN && mark_of(&d, "u3").state == MARK_SEEN);
        CHECK(d.items[0].outcome.kind == OUTCOME_SETTLED && d.items[0].outcome.number == 1 && d.items[1].outcome.leave == LEAVE_DEFAULT);
        CHECK(d.items[2].outcome.leave == LEAVE_ALWAYS); /* nothing of ours is the message itself */
        CHECK(mark_of(&d, "u3").leave == MARK_LEAVE_ALWAYS && mark_of(&d, "u1").leave == MARK_LEAVE_DEFAULT);
        CHECK(outbox(&d, OUTBOX_READY) == 1 && spooled(&d) == 1);
        CHECK(renames(&d) == 2); /* they leave with the next transaction */
        drop_items(&d);
        item(&d, "u4");
        CHECK(go(&d) == 1 && renames(&d) == 0);
        desk_close(&d);
}

TEST(last_renames_leave_the_journal)
{
        struct desk d;

        NEED(desk_open(&d, false));
        save(&d, item(&d, "u1"), "one");
        CHECK(go(&d) == 1 && renames(&d) == 1);
        CHECK(commit_close(&d.c, &d.e) && renames(&d) == 0);
        desk_close(&d);
}

/* Nothing before commit_batch; and what is dropped leaves nothing. */
static bool note_append(void *ctx, const struct append_job *j)
{
        *(struct append_place *)ctx = j->from;
        return true;
}

/* Two batches for one mbox, and the second is staged before the first is carried out: its search begins behind that all the same. */
TEST(W6_append_staged_before_another_was_done)
{
        struct append_place from = { 0 };
        struct desk d;
        struct stat st;

        NEED(desk_open(&d, false));
        for (int i = 0; i < 2; i++)
                deliver(&d, item(&d, "a"), "box")->mbox = true;
        for (int i = 0; i < 2; i++)
                CHECK(commit_stage(&d.c, d.list[i], &d.e));
        CHECK(commit_batch(&d.c, d.list, 1, &d.retry, &d.e) == 1 && stat(at("root/box"), &st) == 0);
        CHECK(commit_batch(&d.c, d.list + 1, 1, &d.retry, &d.e) == 1);
        CHECK(ledger_appends(d.l, STR_NONE, note_append, &from, &d.e));
        CHECK(from.offset == (uint64_t)st.st_size && from.ino == st.st_ino);
        CHECK(stat(at("root/box"), &st) == 0 && (uint64_t)st.st_size == 2 * from.offset);
        desk_close(&d);
}

TEST(dropped)
{
        struct desk d;
        struct item *it;

        NEED(desk_open(&d, false));
        it = item(&d, "u1");
        save(&d, it, "one");
        deliver(&d, it, "Box");
        command(&d, it);
        NEED(commit_stage(&d.c, it, &d.e));
        CHECK(!exists("root/one") && entries("root/Box/new") == 0 && entries("root/Box/tmp") == 1 && spooled(&d) == 1);
        commit_drop(&d.c, it);
        CHECK(entries("root/Box/tmp") == 0 && entries("root") == 1 && spooled(&d) == 0 && mark_of(&d, "u1").id == 0);
        desk_close(&d);
}

/* The third effect cannot be staged: the first two go with it. */
TEST(stages_all_or_nothing)
{
        struct desk d;
        struct item *it;

        NEED(desk_open(&d, false));
        write_file("root/file", STR("in the way"));
        it = item(&d, "u1");
        save(&d, it, "one");
        command(&d, it);
        deliver(&d, it, "file/Box");
        CHECK(!commit_stage(&d.c, it, &d.e) && strstr(d.e.text, "deliver file/Box"));
        CHECK(entries("root") == 1 && spooled(&d) == 0);
        desk_close(&d);
}

TEST(prefix_before_a_taken_name)
{
        struct desk d;

        NEED(desk_open(&d, false));
        save(&d, item(&d, "u1"), "one");
        save(&d, item(&d, "u2"), "two");
        save(&d, item(&d, "u3"), "three");
        for (size_t i = 0; i < 3; i++)
                NEED(commit_stage(&d.c, d.list[i], &d.e));
        write_file("root/two", STR("somebody else's"));
        CHECK(commit_batch(&d.c, d.list, 3, &d.retry, &d.e) == 1);
        CHECK(d.retry && d.e.code == ERR_EXISTS && exists("root/one") && !exists("root/three"));
        CHECK(mark_of(&d, "u1").id && !mark_of(&d, "u2").id && !mark_of(&d, "u3").id);
        CHECK(commit_batch(&d.c, d.list + 1, 2, &d.retry, &d.e) == 0 && d.retry); /* the first: nothing at all */
        commit_drop(&d.c, d.list[1]);
        commit_drop(&d.c, d.list[2]);
        CHECK(entries("root") == 2);
        desk_close(&d);
}

/* A held message's name is not looked at; a replacing save does not mind. */
TEST(names_that_do_not_matter)
{
        struct desk d;
        struct item *it;

        NEED(desk_open(&d, false));
        write_file("root/two", STR("old"));
        save(&d, item(&d, "u1"), "two")->conflict = CONFLICT_REPLACE;
        it = item(&d, "u2");
        hold(it, true);
        CHECK(go(&d) == 2 && d.e.code == ERR_NONE);
        CHECK(entries("root") == 1 && mark_of(&d, "u2").state == MARK_HELD);
        desk_close(&d);
}

/* "The very content is there": on the disk, or of an item before it; else it is decided again. */
TEST(same_must_be_there)
{
        struct desk d;

        NEED(desk_open(&d, false));
        write_file("root/there", STR("x"));
        save(&d, item(&d, "u1"), "there")->same = true;
        save(&d, item(&d, "u2"), "dir/new");
        save(&d, item(&d, "u3"), "dir/new")->same = true;
        save(&d, item(&d, "u4"), "nowhere")->same = true;
        CHECK(go(&d) == 3 && d.retry && d.e.code == ERR_ABSENT);
        CHECK(exists("root/dir/new"));
        commit_drop(&d.c, d.list[3]);
        desk_close(&d);
        NEED(desk_open(&d, false)); /* the one that promised it is held */
        save(&d, item(&d, "u1"), "new");
        hold(d.list[0], true);
        save(&d, item(&d, "u2"), "new")->same = true;
        CHECK(go(&d) == 1 && d.retry && d.e.code == ERR_ABSENT);
        desk_close(&d);
}

/* A message that saves the same twice, by two roots of which one lies in the other. */
TEST(same_by_another_root)
{
        struct desk d;
        struct root *inner;
        struct effect *f;

        NEED(desk_open(&d, false));
        write_file("root/dir/other", STR("x"));
        NEED(inner = root_open(str_of(at("root/dir")), &d.e));
        save(&d, item(&d, "u1"), "dir/new");
        f = save(&d, d.list[0], "new");
        f->root = inner;
        f->same = true;
        CHECK(go(&d) == 1 && d.e.code == ERR_NONE && exists("root/dir/new"));
        desk_close(&d);
        root_close(inner);
}

TEST(held_and_settled)
{
        struct desk d;
        struct mark m;
        struct item *it;

        NEED(desk_open(&d, false));
        it = item(&d, "u1");
        hold(it, true);
        CHECK(go(&d) == 1 && it->outcome.kind == OUTCOME_HELD && spooled(&d) == 1);
        m = mark_of(&d, "u1");
        CHECK(m.state == MARK_HELD && m.attempts == 1 && m.spool.n && str_starts(m.reason, STR("rule.lua:1: no")));
        CHECK(str_find_str(m.origin, STR("account=work\n")) < m.origin.n);
        drop_items(&d);
        it = item(&d, "u1"); /* settled in the end: its bytes leave the spool */
        it->mark = m;
        save(&d, it, "one");
        CHECK(go(&d) == 1 && exists("root/one") && spooled(&d) == 0);
        m = mark_of(&d, "u1");
        CHECK(m.state == MARK_SEEN && m.attempts == 0 && !m.spool.n && !m.reason.n);
        desk_close(&d);
}

static struct mark hold_again(struct desk *d, bool attempt, bool *quarantined)
{
        struct item *it = item(d, "u1");
        bool found;

        if (!ledger_mark(d->l, d->account.id, STR("u1"), 0, &it->mark, &found, d->a, &d->e) || !found)
                it->mark = (struct mark){ 0 };
        hold(it, attempt);
        CHECK(go(d) == 1);
        *quarantined = it->quarantined;
        drop_items(d);
        return mark_of(d, "u1");
}

TEST(quarantine)
{
        struct desk d;
        bool q;

        NEED(desk_open(&d, false));
        CHECK(hold_again(&d, true, &q).attempts == 1 && !q);
        CHECK(hold_again(&d, true, &q).attempts == 2 && !q);
        CHECK(hold_again(&d, false, &q).attempts == 2 && !q); /* the machine's failure */
        CHECK(hold_again(&d, true, &q).state == MARK_QUARANTINED && q);
        d.c.script_hash[0]++;
        CHECK(hold_again(&d, true, &q).attempts == 1 && !q && mark_of(&d, "u1").state == MARK_HELD);
        CHECK(spooled(&d) == 1); /* the same bytes all the time */
        desk_close(&d);
}

TEST(guard)
{
        static const struct { struct guard g; unsigned ready; } cases[] = {
                { { .fresh = true }, 20 }, { { .fresh = false }, 100 }, { { .archive = true }, 0 }, { { .archive = true, .send = true }, 120 },
                { { .fresh = true, .send = true }, 120 },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                struct desk d;

                NEED(desk_open(&d, false));
                d.guard = cases[i].g;
                for (int k = 0; k < 6; k++) {
                        struct item *it = item(&d, "u");

                        for (int j = 0; j < 20; j++)
                                command(&d, it);
                }
                CHECK(go(&d) == 6 && outbox(&d, OUTBOX_READY) == cases[i].ready && outbox(&d, OUTBOX_WAITING) == 120 - cases[i].ready);
                CHECK(d.guard.waiting == 120 - cases[i].ready);
                desk_close(&d);
        }
}

/* A run that begins at now, of messages with up to 20 commands each; how many need not wait. */
static unsigned run_at(struct desk *d, int64_t now, unsigned commands, bool send)
{
        unsigned before = outbox(d, OUTBOX_READY);
        struct arena *a = arena_new(0);
        size_t n = 0;

        drop_items(d);
        CHECK(ledger_account(d->l, STR("work"), STR("me@x:995"), &d->account, a, &d->e));
        arena_free(a);
        d->c.now = now;
        d->guard = (struct guard){ .paced_until = d->account.paced_until, .send = send };
        for (unsigned i = 0; i < commands; i++) {
                if (i % 20 == 0)
                        item(d, "u"), n++;
                command(d, &d->items[n - 1]);
        }
        CHECK(go(d) == n);
        return outbox(d, OUTBOX_READY) - before;
}

/* A hundred an hour, however many runs there are. */
TEST(S10_rate_over_runs)
{
        const int64_t t = 1800000000;
        struct desk d;

        NEED(desk_open(&d, false));
        CHECK(run_at(&d, t, 60, false) == 60);
        CHECK(run_at(&d, t + 1, 60, false) == 40);
        CHECK(d.guard.waiting == 20);
        CHECK(run_at(&d, t + 2, 60, false) == 0);
        CHECK(run_at(&d, t + 3, 60, true) == 60); /* --send */
        CHECK(run_at(&d, t + 370, 60, false) == 10);
        desk_close(&d);
        NEED(desk_open(&d, true)); /* it is in the state */
        CHECK(run_at(&d, t + 371, 5, false) == 0);
        CHECK(run_at(&d, t + 2 * 3600, 120, false) == 100);
        CHECK(run_at(&d, t - 86400, 120, false) == 0); /* a clock that went back */
        CHECK(run_at(&d, t - 86400 + 3600, 120, false) == 100); /* waits an hour, not until it has caught up */
        desk_close(&d);
}

TEST(stores_last_word)
{
        struct desk d;
        struct str v;
        struct item *it;
        bool found;

        NEED(desk_open(&d, false));
        it = item(&d, "u1");
        CHECK(plan_store(it->plan, STR("s"), STR("k"), STR("1"), 0, &d.e) && plan_store(it->plan, STR("s"), STR("k"), STR("2"), 0, &d.e) &&
              plan_store(it->plan, STR("s"), STR("gone"), STR("1"), 0, &d.e) && plan_store(it->plan, STR("s"), STR("gone"), STR_NONE, 0, &d.e));
        it = item(&d, "u2");
        CHECK(plan_store(it->plan, STR("s"), STR("k"), STR("of a held one"), 0, &d.e));
        hold(it, true);
        CHECK(go(&d) == 2);
        CHECK(ledger_store_get(d.l, STR("s"), STR("k"), &v, &found, d.a, &d.e) && found && str_eq(v, STR("2")));
        CHECK(ledger_store_get(d.l, STR("s"), STR("gone"), &v, &found, d.a, &d.e) && !found);
        desk_close(&d);
}

TEST(resume_mark_of_the_prefix)
{
        struct desk d;
        struct resume r;
        bool found;

        NEED(desk_open(&d, false));
        d.guard.archive = true;
        for (unsigned i = 0; i < 3; i++) {
                char uid[8];

                snprintf(uid, sizeof uid, "u%u", i + 1);
                save(&d, item(&d, uid), uid)->path = arena_str(d.a, str_of(uid));
                d.items[i].number = i + 1;
                d.items[i].names = 10 + i;
        }
        for (size_t i = 0; i < 3; i++)
                NEED(commit_stage(&d.c, d.list[i], &d.e));
        write_file("root/u3", STR("taken"));
        CHECK(commit_batch(&d.c, d.list, 3, &d.retry, &d.e) == 2);
        CHECK(ledger_resume_get(d.l, d.account.id, &r, &found, d.a, &d.e) && found && r.number == 2 && r.names == 11 && str_eq(r.uid, STR("u2")));
        commit_drop(&d.c, d.list[2]);
        desk_close(&d);
}

/* ---- the machine fails ---- */

/* The n-th call fails, and all after it: either nothing is committed and nothing is left, or all of it is, and the next start names it. */
TEST(T3_each_call)
{
        bool more = true;

        for (size_t n = 1; more; n++) {
                struct desk d;
                size_t done = 0;
                bool staged = true;

                NEED(desk_open(&d, false));
                save(&d, item(&d, "u1"), "one");
                deliver(&d, item(&d, "u2"), "Box");
                hold(item(&d, "u3"), true);
                sys_fail_at(n, EIO, true);
                for (size_t i = 0; i < 3 && staged; i++)
                        staged = commit_stage(&d.c, d.list[i], &d.e);
                if (staged)
                        done = commit_batch(&d.c, d.list, 3, &d.retry, &d.e);
                more = sys_fail_at(0, 0, false) >= n;
                CHECK(done == 0 || done == 3);
                CHECK(!d.retry);
                if (more && done == 0) {
                        CHECK(d.e.code != ERR_NONE);
                        for (size_t i = 0; i < 3; i++)
                                commit_drop(&d.c, d.list[i]);
                }
                for (size_t i = 0; i < 3 && done; i++)
                        CHECK(d.items[i].outcome.kind == (i == 2 ? OUTCOME_HELD : OUTCOME_SETTLED) &&
                              (d.e.code == ERR_NONE || d.items[i].outcome.leave == LEAVE_ALWAYS));
                desk_close(&d);
                NEED(desk_open(&d, true));
                if ((mark_of(&d, "u1").id != 0) != (done == 3) || exists("root/one") != (done == 3) ||
                    (entries("root/Box/new") == 1) != (done == 3) || (done == 3) != (mark_of(&d, "u3").state == MARK_HELD))
                        printf("call %zu: committed %zu, file %d\n", n, done, exists("root/one")), test_bad++;
                if (renames(&d) != 0 || entries("root/Box/tmp") > 0)
                        printf("call %zu: %u in the journal, %d in tmp, committed %zu\n", n, renames(&d), entries("root/Box/tmp"), done), test_bad++;
                desk_close(&d);
        }
}

/* Files may not grow: neither outputs nor state. Nothing is committed. */
TEST(disk_full)
{
        struct rlimit before, small;
        struct desk d;
        bool staged;

        NEED(desk_open(&d, false));
        save(&d, item(&d, "u1"), "one");
        getrlimit(RLIMIT_FSIZE, &before);
        small = before;
        small.rlim_cur = 4;
        setrlimit(RLIMIT_FSIZE, &small);
        staged = commit_stage(&d.c, d.list[0], &d.e);
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK(!staged && (d.e.code == ERR_FULL || d.e.code == ERR_IO));
        CHECK(entries("root") == 0);
        NEED(commit_stage(&d.c, d.list[0], &d.e));
        setrlimit(RLIMIT_FSIZE, &small);
        CHECK(commit_batch(&d.c, d.list, 1, &d.retry, &d.e) == 0 && !d.retry && d.e.code != ERR_NONE);
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK(!exists("root/one"));
        commit_drop(&d.c, d.list[0]);
        desk_close(&d);
        NEED(desk_open(&d, true));
        CHECK(mark_of(&d, "u1").id == 0);
        CHECK(entries("root") == 0);
        desk_close(&d);
}

TEST(origins)
{
        struct origin o = { .source = STR("a\nb\\n=c"), .account = STR("work"), .folder = STR(""), .flags = STR("FS"), .time = 12345,
                            .fetched = 67890 }, back = { 0 };
        struct arena *a = arena_new(0);

        origin_read(origin_write(&o, a), &back, a);
        CHECK_STR(back.source, "a\nb\\n=c");
        CHECK_STR(back.account, "work");
        CHECK_STR(back.flags, "FS");
        CHECK(back.folder.p && back.folder.n == 0 && !back.envelope_to.p && back.time == 12345 && back.fetched == 67890);
        arena_free(a);
}

TEST_MAIN
