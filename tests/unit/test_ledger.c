#include "tests/unit/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/ledger.h"
#include "core/ledger_schema.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/sys.h"

static char dir[128];
static struct err e;
static struct arena *a;

static void fresh(void)
{
        snprintf(dir, sizeof dir, "%s/mm-ledger-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        if (!mkdtemp(dir))
                abort();
        arena_free(a);
        a = arena_new(0);
        e = (struct err){ 0 };
}

static void gone(void)
{
        char cmd[256];
        snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
        if (system(cmd) != 0)
                abort();
        arena_free(a);
        a = NULL;
}

static const char *in(const char *name)
{
        static char path[4][256];
        static int at;
        char *p = path[at++ % 4];
        snprintf(p, 256, "%s/%s", dir, name);
        return p;
}

static struct ledger *reopen(struct ledger *l, bool readonly)
{
        ledger_close(l);
        l = ledger_open(dir, readonly, &e);
        if (!l)
                printf("open: %s\n", e.text);
        return l;
}

static int files(void)
{
        char cmd[256];
        int n = -1;
        snprintf(cmd, sizeof cmd, "ls -A '%s' | wc -l", dir);
        FILE *f = popen(cmd, "r");
        if (!f || fscanf(f, "%d", &n) != 1)
                n = -1;
        if (f)
                pclose(f);
        return n;
}

static struct mark mark_of(int64_t account, const char *uid)
{
        struct mark m = { .account = account, .uid = str_of(uid), .state = MARK_SEEN, .size = 7, .first_seen = 100, .last_seen = 100,
                          .reason = STR(""), .spool = STR(""), .origin = STR("") };
        memset(m.content_hash, uid[0], DIGEST_SIZE);
        memset(m.header_hash, uid[0] + 1, DIGEST_SIZE);
        return m;
}

TEST(made_private)
{
        struct stat st;
        char sub[200];

        fresh();
        snprintf(sub, sizeof sub, "%s/a/b/state", dir);
        umask(0);
        struct ledger *l = ledger_open(sub, false, &e);
        umask(022);
        NEED(l);
        CHECK(stat(ledger_path(l), &st) == 0 && (st.st_mode & 0777) == 0700);
        CHECK(fstatat(ledger_dir(l), "state.db", &st, 0) == 0 && (st.st_mode & 0777) == 0600);
        CHECK(fstatat(ledger_dir(l), "state.db-wal", &st, 0) == 0 && (st.st_mode & 0777) == 0600);
        ledger_close(l);
        gone();
}

TEST(D05_state_directory_of_others)
{
        fresh();
        CHECK(chmod(dir, 0777) == 0);
        CHECK(!ledger_open(dir, false, &e));
        CHECK(e.code == ERR_USAGE && strstr(e.text, "chmod go-w"));
        CHECK(chmod(dir, 0700) == 0);
        if (geteuid() == 0) {
                CHECK(chown(dir, 12345, 12345) == 0);
                CHECK(!ledger_open(dir, false, &e));
                CHECK(e.code == ERR_USAGE && strstr(e.text, "another user"));
        }
        gone();
}

/* The ledger's question which file system this is comes here, not to libc. */
static long pretended;
int fstatfs(int fd, struct statfs *st)
{
        long r = syscall(SYS_fstatfs, fd, st);

        if (r == 0 && pretended)
                st->f_type = pretended;
        return (int)r;
}

static char logged[1024];
static void keep_line(void *ctx, enum log_level level, struct str line)
{
        size_t n = strlen(logged);

        if (level <= LOG_WARN)
                snprintf(logged + n, sizeof logged - n, "%.*s\n", STR_FMT(line));
}

/* What a state on such a file system says at its start. In memory: a run over an account does. */
static bool warned(long type, const char *words)
{
        struct ledger *l;

        logged[0] = '\0';
        pretended = type;
        log_set_sink(keep_line, NULL);
        l = reopen(NULL, false);
        log_set_sink(NULL, NULL);
        CHECK(l && ledger_in_memory(l) == (type == TMPFS_MAGIC));
        pretended = 0;
        ledger_close(l);
        return l && (words ? strstr(logged, words) != NULL : logged[0] == '\0');
}

TEST(D05_state_in_memory_or_on_NFS)
{
        fresh();
        CHECK(warned(TMPFS_MAGIC, NULL));
        CHECK(warned(NFS_SUPER_MAGIC, "lies on NFS"));
        CHECK(warned(EXT4_SUPER_MAGIC, NULL));
        gone();
}

TEST(D05_no_directory)
{
        fresh();
        FILE *f = fopen(in("file"), "w");
        NEED(f && fclose(f) == 0 && symlink("nowhere", in("dangling")) == 0);
        CHECK(!ledger_open(in("file"), false, &e) && strstr(e.text, "file"));
        CHECK(!ledger_open(in("dangling"), false, &e) && strstr(e.text, "dangling"));
        CHECK(!ledger_open(in("file/below"), false, &e) && strstr(e.text, "below"));
        gone();
}

/* Removed, or another put in its place, while a run has it open: nothing more is promised there. */
TEST(D05_taken_away_while_open)
{
        char cmd[512], aside[140];
        struct str v;
        bool found;

        fresh();
        snprintf(aside, sizeof aside, "%s.aside", dir);
        snprintf(cmd, sizeof cmd, "cp -r '%s' '%s'", aside, dir);
        for (int copied = 0; copied < 2; copied++) {
                struct ledger *l = reopen(NULL, false);
                NEED(l);
                CHECK(ledger_store_set(l, STR("s"), STR("before"), STR("1"), 0, &e));
                CHECK(rename(dir, aside) == 0 && (copied ? system(cmd) : mkdir(dir, 0700)) == 0);
                CHECK(ledger_begin(l, &e) && ledger_store_set(l, STR("s"), STR("after"), STR("1"), 0, &e) && !ledger_commit(l, &e));
                CHECK(e.code == ERR_IO && strstr(e.text, "removed or replaced"));
                snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
                CHECK(system(cmd) == 0 && rename(aside, dir) == 0);
                CHECK(ledger_begin(l, &e) && ledger_store_set(l, STR("s"), STR("again"), STR("1"), 0, &e) && ledger_commit(l, &e)); /* back in its place */
                CHECK(ledger_store_get(l, STR("s"), STR("after"), &v, &found, a, &e) && !found);
                ledger_close(l);
                snprintf(cmd, sizeof cmd, "cp -r '%s' '%s'", aside, dir);
        }
        gone();
}

TEST(accounts)
{
        struct ledger_account acc, again;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        NEED(ledger_account(l, STR("work"), STR("me@host:995"), &acc, a, &e));
        CHECK(acc.fresh && acc.last_run == 0 && !acc.sizes_differ);
        acc.fresh = false;
        acc.last_run = 5;
        acc.sizes_differ = acc.no_capa = true;
        CHECK(ledger_account_save(l, &acc, &e));
        NEED(ledger_account(l, STR("other"), STR("me@host:995"), &again, a, &e));
        CHECK(again.id != acc.id && again.fresh);
        l = reopen(l, false);
        NEED(l);
        NEED(ledger_account(l, STR("work"), STR("me@host:995"), &again, a, &e));
        CHECK(again.id == acc.id && !again.fresh && again.last_run == 5 && again.sizes_differ && again.no_capa && !again.no_pipeline);
        CHECK_STR(again.mailbox, "me@host:995");
        ledger_close(l);
        gone();
}

static bool count_marks(void *ctx, const struct mark *m)
{
        ++*(int *)ctx;
        return true;
}

TEST(marks)
{
        struct mark m, out;
        bool found;
        uint64_t n;
        int seen = 0;
        static const uint8_t zero[DIGEST_SIZE];

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        m = mark_of(1, "x");
        m.uid = str_make("a\0b\xff", 4);
        m.leave = MARK_LEAVE_AGE, m.leave_age = 99;
        m.reason = STR("why not");
        m.state = MARK_HELD, m.spool = STR("0/1"), m.attempts = 2;
        CHECK(ledger_mark_put(l, &m, &e));
        m.first_seen = 500, m.last_seen = 500;
        m.state = MARK_SEEN, m.spool = STR("");
        CHECK(ledger_mark_put(l, &m, &e));
        NEED(ledger_mark(l, 1, m.uid, 0, &out, &found, a, &e));
        NEED(found);
        CHECK(out.first_seen == 100 && out.last_seen == 500 && out.state == MARK_SEEN && out.leave == MARK_LEAVE_AGE &&
              out.leave_age == 99 && out.attempts == 2 && out.size == 7);
        CHECK_BYTES(out.uid, m.uid);
        CHECK_STR(out.reason, "why not");
        CHECK(memcmp(out.content_hash, m.content_hash, DIGEST_SIZE) == 0 && memcmp(out.script_hash, zero, DIGEST_SIZE) == 0);
        CHECK(ledger_mark(l, 1, m.uid, 1, &out, &found, a, &e) && !found);
        CHECK(ledger_mark(l, 2, m.uid, 0, &out, &found, a, &e) && !found);
        CHECK(ledger_mark_by_content(l, 1, m.content_hash, &out, &found, a, &e) && found);
        CHECK(ledger_mark_by_header(l, 1, m.header_hash, &out, &found, a, &e) && found);
        CHECK(ledger_mark_by_header(l, 1, m.content_hash, &out, &found, a, &e) && !found);
        CHECK(ledger_mark_by_content(l, 1, zero, &out, &found, a, &e) && !found);
        int64_t id = 1;
        CHECK(ledger_mark_deleted(l, &id, 1, &e) && ledger_mark_seen_now(l, &id, 1, 900, &e));
        CHECK(ledger_mark(l, 1, m.uid, 0, &out, &found, a, &e) && out.deleted && out.last_seen == 900);
        m = mark_of(1, "held");
        m.state = MARK_HELD;
        CHECK(ledger_mark_put(l, &m, &e));
        CHECK(ledger_marks_age(l, 1, 901, &e));
        CHECK(ledger_marks(l, 0, ~0u, count_marks, &seen, &e) && seen == 1);
        CHECK(ledger_marks_count(l, 1, 1u << MARK_HELD, &n, &e) && n == 1);
        CHECK(ledger_mark(l, 1, m.uid, m.occurrence, &out, &found, a, &e) && found);
        id = out.id;
        CHECK(ledger_mark_id(l, id, &out, &found, a, &e) && found && out.id == id && str_eq(out.uid, m.uid));
        CHECK(ledger_mark_id(l, id + 1, &out, &found, a, &e) && !found);
        CHECK(ledger_marks_count(l, 1, 1u << MARK_SEEN, &n, &e) && n == 0);
        CHECK(ledger_marks_count(l, 2, ~0u, &n, &e) && n == 0);
        ledger_close(l);
        gone();
}

struct walk {
        struct ledger *l;
        int n;
        int64_t last;
        int stop;
};

/* Changes what it walks over. */
static bool forget_some(void *ctx, const struct mark *m)
{
        struct walk *w = ctx;
        CHECK(m->id > w->last);
        w->last = m->id;
        if (m->id % 2)
                CHECK(ledger_mark_forget(w->l, m->id, &e));
        return ++w->n != w->stop;
}

TEST(listing_while_changing)
{
        char uid[32];
        uint64_t n;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        NEED(ledger_begin(l, &e));
        for (int i = 0; i < 1000; i++) {
                snprintf(uid, sizeof uid, "%d", i);
                struct mark m = mark_of(1 + i % 2, uid);
                m.state = i % 3 ? MARK_SEEN : MARK_HELD;
                m.first_seen = 5000 - i; /* the clock went back */
                NEED(ledger_mark_put(l, &m, &e));
        }
        NEED(ledger_commit(l, &e));
        struct walk w = { l, 0, 0, 0 };
        CHECK(ledger_marks(l, 1, 1u << MARK_HELD, forget_some, &w, &e));
        CHECK(w.n == 167);
        w = (struct walk){ l, 0, 0, 300 };
        CHECK(ledger_marks(l, 0, ~0u, forget_some, &w, &e) && w.n == 300);
        w = (struct walk){ l, 0, 0, 0 };
        CHECK(ledger_marks(l, 0, ~0u, forget_some, &w, &e));
        CHECK(ledger_marks_count(l, 0, ~0u, &n, &e) && n == 500);
        ledger_close(l);
        gone();
}

TEST(rollback_takes_everything_back)
{
        struct mark m = mark_of(1, "u"), out;
        struct rename_job j = { .run = STR("r"), .staged = STR("s") };
        bool found;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        NEED(ledger_begin(l, &e));
        CHECK(!ledger_begin(l, &e) && e.code == ERR_USAGE);
        CHECK(ledger_mark_put(l, &m, &e) && ledger_rename_add(l, &j, &e) && ledger_store_set(l, STR("s"), STR("k"), STR("v"), 0, &e));
        ledger_rollback(l);
        CHECK(ledger_mark(l, 1, m.uid, 0, &out, &found, a, &e) && !found);
        NEED(ledger_begin(l, &e));
        CHECK(ledger_mark_put(l, &m, &e));
        CHECK(ledger_commit(l, &e));
        l = reopen(l, false);
        CHECK(ledger_mark(l, 1, m.uid, 0, &out, &found, a, &e) && found);
        ledger_close(l);
        gone();
}

/* A failure inside spoils the whole, whatever the caller made of it. */
TEST(a_failed_part_spoils_the_transaction)
{
        struct mark m = mark_of(1, "u"), out;
        bool found;
        struct str huge = { "x", (size_t)3 << 30 };

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        NEED(ledger_begin(l, &e));
        CHECK(ledger_mark_put(l, &m, &e));
        CHECK(!ledger_store_set(l, STR("s"), STR("k"), huge, 0, NULL));
        CHECK(!ledger_mark_put(l, &m, &e) && e.code == ERR_LIMIT);
        CHECK(!ledger_commit(l, &e) && e.code == ERR_LIMIT);
        CHECK(ledger_mark(l, 1, m.uid, 0, &out, &found, a, &e) && !found);
        CHECK(ledger_mark_put(l, &m, &e));
        ledger_close(l);
        gone();
}

static bool count_renames(void *ctx, const struct rename_job *j)
{
        *(int *)ctx += (int)j->id;
        return true;
}

static bool same_append(void *ctx, const struct append_job *j)
{
        const struct append_job *want = ctx;
        CHECK(j->id == want->id && j->from.offset == want->from.offset && j->length == want->length && j->from.dev == want->from.dev);
        CHECK_BYTES(j->path, want->path);
        return true;
}

TEST(journal)
{
        struct rename_job j = { .run = STR("a"), .staged_dir = STR("/x/tmp"), .staged = STR("s"), .target_dir = STR("/x/new"),
                                .target = STR("t"), .dev = UINT64_MAX, .ino = 3, .numbered = true };
        struct append_job p = { .run = STR("b"), .path = STR("/m"), .staged = STR("b/1"), .from = { .dev = 1, .offset = 1ull << 40 }, .length = 9 };
        int sum = 0;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        CHECK(ledger_rename_add(l, &j, &e) && j.id == 1 && ledger_rename_add(l, &j, &e) && j.id == 2);
        j.run = STR("b");
        CHECK(ledger_rename_add(l, &j, &e) && ledger_append_add(l, &p, &e));
        CHECK(ledger_renames(l, STR("a"), count_renames, &sum, &e) && sum == 3);
        sum = 0;
        CHECK(ledger_renames(l, STR_NONE, count_renames, &sum, &e) && sum == 6);
        int64_t ids[2] = { 1, 3 };
        CHECK(ledger_rename_done(l, ids, 2, &e));
        sum = 0;
        CHECK(ledger_renames(l, STR_NONE, count_renames, &sum, &e) && sum == 2);
        CHECK(ledger_appends(l, STR("b"), same_append, &p, &e));
        CHECK(ledger_append_done(l, p.id, &p.from, &e));
        ledger_close(l);
        gone();
}

/* Of the same mbox, what came later in the run, and what has the same bytes, is behind one that is done. */
TEST(W6_appends_behind_the_finished)
{
        static const struct { const char *run, *path; uint8_t hash; struct append_place from; uint64_t want; } others[] = {
                { "a", "/m", 1, { 1, 7, 10 }, 50 }, /* older, the same bytes */
                { "a", "/m", 2, { 1, 7, 10 }, 10 }, /* older, others: it may stand before */
                { "b", "/m", 2, { 1, 7, 10 }, 10 }, /* another run's */
                { "b", "/m", 1, { 1, 7, 10 }, 50 },
                { "a", "/n", 1, { 1, 7, 10 }, 10 }, /* another mbox */
                { "a", "/m", 2, { 1, 7, 10 }, 50 },
                { "a", "/m", 2, { 1, 7, 60 }, 60 },
                { "a", "/m", 2, { 1, 8, 60 }, 50 }, /* the mbox has been written anew */
        };
        enum { N = sizeof others / sizeof *others };
        struct append_place end = { 1, 7, 50 }, from;
        struct append_job done, j[N];

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        for (size_t i = 0; i < N; i++) {
                j[i] = (struct append_job){ .run = str_of(others[i].run), .path = str_of(others[i].path), .staged = STR("a/1"), .from = others[i].from,
                                            .length = 5, .hash = { others[i].hash } };
                if (i == 2) {
                        done = j[0];
                        done.staged = STR("a/9");
                        NEED(ledger_append_add(l, &done, &e));
                }
                NEED(ledger_append_add(l, &j[i], &e));
        }
        CHECK(ledger_append_done(l, done.id, &end, &e));
        for (size_t i = 0; i < N; i++) {
                CHECK(ledger_append_from(l, j[i].id, &from, &e) && from.offset == others[i].want);
                CHECK(from.ino == (i == 7 ? 7 : others[i].from.ino));
        }
        from.offset = 3;
        CHECK(ledger_append_from(l, done.id, &from, &e) && from.offset == 3);
        ledger_close(l);
        gone();
}

static bool same_recipient(void *ctx, struct str who, int state, struct str answer)
{
        char line[64];
        snprintf(line, sizeof line, "%.*s %d %.*s;", STR_FMT(who), state, STR_FMT(answer));
        strcat(ctx, line);
        return true;
}

static bool sum_items(void *ctx, const struct outbox_item *i)
{
        *(int *)ctx += (int)i->id * 100 + (int)i->recipient_count;
        return true;
}

static void put_file(int at, const char *name)
{
        int fd = openat(at, name, O_CREAT | O_WRONLY, 0600);
        CHECK(fd >= 0);
        close(fd);
}

TEST(outbox)
{
        struct str to[] = { STR("a@x"), STR("b@x"), STR("c@x") }, argv[] = { STR("cmd"), STR(""), STR("-x y") };
        struct outbox_item mail = { .action = STR("00ff"), .kind = OUTBOX_MAIL, .state = OUTBOX_WAITING, .created = 9, .next_try = 9,
                                    .recipients = to, .recipient_count = 3, .spool = STR("1/1"), .sender = STR("") };
        struct outbox_item cmd = { .kind = OUTBOX_COMMAND, .state = OUTBOX_READY, .argv = argv, .argc = 3, .spool = STR("1/1") }, out;
        char seen[256] = "";
        bool found;
        uint64_t n;
        int sum = 0;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        CHECK(mkdirat(ledger_dir(l), "spool", 0700) == 0 && mkdirat(ledger_dir(l), "spool/1", 0700) == 0);
        put_file(ledger_dir(l), "spool/1/1");
        NEED(ledger_outbox_add(l, &mail, &e) && ledger_outbox_add(l, &cmd, &e));
        CHECK(ledger_outbox(l, ~0u, sum_items, &sum, &e) && sum == 303);
        NEED(ledger_outbox_get(l, cmd.id, &out, &found, a, &e) && found);
        NEED(out.argc == 3);
        CHECK_STR(out.argv[0], "cmd");
        CHECK_STR(out.argv[1], "");
        CHECK_STR(out.argv[2], "-x y");
        CHECK(ledger_outbox_recipient(l, mail.id, to[0], RECIPIENT_ACCEPTED, STR("250 ok"), &e));
        CHECK(ledger_outbox_recipient(l, mail.id, to[1], RECIPIENT_REFUSED, STR("550 no"), &e));
        CHECK(ledger_outbox_recipient(l, mail.id, to[2], RECIPIENT_OPEN, STR("451 later"), &e));
        CHECK(ledger_outbox_retry(l, mail.id, OUTBOX_WAITING, 77, STR("451"), &e));
        NEED(ledger_outbox_get(l, mail.id, &out, &found, a, &e) && found);
        CHECK(out.recipient_count == 1 && out.tries == 1 && out.next_try == 77);
        CHECK_STR(out.recipients[0], "c@x");
        CHECK(ledger_outbox_recipients(l, mail.id, same_recipient, seen, &e));
        CHECK_STR(str_of(seen), "a@x 1 250 ok;b@x 2 550 no;c@x 0 451 later;");
        CHECK(ledger_outbox_release(l, cmd.id, &n, &e) && n == 0);
        CHECK(ledger_outbox_release(l, 0, &n, &e) && n == 1);
        CHECK(ledger_outbox_get(l, mail.id, &out, &found, a, &e) && out.state == OUTBOX_READY);
        /* the spool file stays while the other needs it, and until the transaction has committed */
        CHECK(ledger_outbox_remove(l, mail.id, &e) && faccessat(ledger_dir(l), "spool/1/1", F_OK, 0) == 0);
        NEED(ledger_begin(l, &e));
        CHECK(ledger_outbox_remove(l, cmd.id, &e));
        ledger_rollback(l);
        CHECK(faccessat(ledger_dir(l), "spool/1/1", F_OK, 0) == 0);
        NEED(ledger_begin(l, &e));
        CHECK(ledger_outbox_remove(l, cmd.id, &e) && faccessat(ledger_dir(l), "spool/1/1", F_OK, 0) == 0);
        NEED(ledger_commit(l, &e));
        CHECK(faccessat(ledger_dir(l), "spool/1/1", F_OK, 0) != 0);
        CHECK(ledger_outbox_get(l, cmd.id, &out, &found, a, &e) && !found);
        sum = 0;
        CHECK(ledger_outbox(l, ~0u, sum_items, &sum, &e) && sum == 0);
        ledger_close(l);
        gone();
}

static bool join_pairs(void *ctx, struct str key, struct str value)
{
        char line[64];
        snprintf(line, sizeof line, "%.*s=%.*s;", STR_FMT(key), STR_FMT(value));
        strcat(ctx, line);
        return true;
}

TEST(stores)
{
        struct str v;
        char all[256] = "";
        bool found;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        CHECK(ledger_store_set(l, STR("s"), STR("k"), STR("1"), 0, &e) && ledger_store_set(l, STR("s"), STR("k"), STR("2"), 0, &e));
        CHECK(ledger_store_set(l, STR("s"), STR(""), str_make("\0x", 2), sys_now() + 100, &e));
        CHECK(ledger_store_set(l, STR("s"), STR("old"), STR("2"), sys_now() - 1, &e));
        CHECK(ledger_store_set(l, STR("t"), STR("k"), STR("other"), 0, &e));
        CHECK(ledger_store_get(l, STR("s"), STR("k"), &v, &found, a, &e) && found);
        CHECK_STR(v, "2");
        CHECK(ledger_store_get(l, STR("s"), STR(""), &v, &found, a, &e) && found);
        CHECK_BYTES(v, str_make("\0x", 2));
        CHECK(ledger_store_get(l, STR("s"), STR("old"), &v, &found, a, &e) && !found);
        CHECK(ledger_store_set(l, STR("s"), STR(""), STR("e"), 0, &e));
        CHECK(ledger_store_each(l, STR("s"), join_pairs, all, &e));
        CHECK_STR(str_of(all), "=e;k=2;");
        CHECK(ledger_store_remove(l, STR("s"), STR("k"), &e) && ledger_store_get(l, STR("s"), STR("k"), &v, &found, a, &e) && !found);
        ledger_close(l);
        gone();
}

TEST(readonly_makes_no_files)
{
        struct ledger_account acc;
        struct str v;
        bool found;

        fresh();
        CHECK(rmdir(dir) == 0);
        struct ledger *l = reopen(NULL, true);
        NEED(l);
        CHECK(ledger_dir(l) == -1 && access(dir, F_OK) != 0);
        CHECK(ledger_account(l, STR("w"), STR("m"), &acc, a, &e) && acc.id == -1 && acc.fresh);
        CHECK(!ledger_store_set(l, STR("s"), STR("k"), STR("1"), 0, &e) && e.code == ERR_USAGE);
        CHECK(!ledger_begin(l, &e) && e.code == ERR_USAGE);
        int fd = ledger_lock(l, STR("m"), &e);
        CHECK(fd >= 0);
        close(fd);
        CHECK(access(dir, F_OK) != 0);
        struct ledger *w = reopen(NULL, false);
        NEED(w);
        CHECK(ledger_store_set(w, STR("s"), STR("k"), STR("1"), 0, &e));
        l = reopen(l, true); /* beside a writer */
        NEED(l);
        CHECK(ledger_store_get(l, STR("s"), STR("k"), &v, &found, a, &e) && found);
        ledger_close(w);
        ledger_close(l);
        CHECK(files() <= 3);
        w = reopen(NULL, false); /* without one, the writer left last */
        ledger_close(w);
        CHECK(files() == 1);
        l = reopen(NULL, true);
        NEED(l);
        CHECK(ledger_store_get(l, STR("s"), STR("k"), &v, &found, a, &e) && found);
        CHECK(files() == 1);
        /* and sees what a writer that comes later does */
        w = reopen(NULL, false);
        NEED(w);
        CHECK(ledger_store_set(w, STR("s"), STR("k"), STR("2"), 0, &e));
        CHECK(ledger_store_get(l, STR("s"), STR("k"), &v, &found, a, &e) && found);
        CHECK_STR(v, "2");
        ledger_close(l);
        ledger_close(w);
        gone();
}

TEST(D06_newer_schema_is_refused)
{
        sqlite3 *db;

        fresh();
        struct ledger *l = reopen(NULL, false);
        ledger_close(l);
        CHECK(sqlite3_open(in("state.db"), &db) == SQLITE_OK && sqlite3_exec(db, "PRAGMA user_version = 99", 0, 0, 0) == SQLITE_OK);
        sqlite3_close(db);
        CHECK(!ledger_open(dir, false, &e) && e.code == ERR_USAGE && strstr(e.text, "newer"));
        CHECK(!ledger_open(dir, true, &e) && e.code == ERR_USAGE && strstr(e.text, "newer"));
        gone();
}

TEST(D06_older_schema_is_brought_up_to_date)
{
        struct resume r;
        struct ledger_account acc;
        struct mark k = { .account = 1, .uid = STR("new"), .state = MARK_REFUSED, .attempts = 2, .reason = STR("why"), .next_try = 77 };
        struct ledger *l;
        bool found;
        sqlite3 *db;

        fresh();
        CHECK(sqlite3_open(in("state.db"), &db) == SQLITE_OK && sqlite3_exec(db, ledger_schema[0], 0, 0, 0) == SQLITE_OK);
        CHECK(sqlite3_exec(db, "PRAGMA user_version = 1; INSERT INTO mark VALUES (1, 1, x'6f6c64', 0, 1, NULL, NULL, 5, 6, 7, 0, 0, 0, 0,"
                               " NULL, x'', x'', x''); INSERT INTO resume VALUES (1, 7, x'75', 0)", 0, 0, 0) == SQLITE_OK);
        sqlite3_close(db);
        CHECK(!ledger_open(dir, true, &e) && e.code == ERR_USAGE && strstr(e.text, "older"));
        l = reopen(NULL, false);
        NEED(l);
        CHECK(ledger_mark_put(l, &k, &e));
        CHECK(ledger_mark(l, 1, STR("new"), 0, &k, &found, a, &e) && found && k.next_try == 77 && k.state == MARK_REFUSED);
        CHECK(ledger_mark(l, 1, STR("old"), 0, &k, &found, a, &e) && found && k.next_try == 0 && k.size == 5);
        CHECK(ledger_resume_get(l, 1, &r, &found, a, &e) && found && r.number == 7 && r.names == 0);
        CHECK(ledger_account(l, STR("w"), STR("m"), &acc, a, &e) && acc.paced_until == 0);
        acc.last_run = 5;
        CHECK(ledger_account_paced(l, acc.id, 99, &e) && ledger_account_save(l, &acc, &e));
        CHECK(ledger_account(l, STR("w"), STR("m"), &acc, a, &e) && acc.paced_until == 99 && acc.last_run == 5);
        ledger_close(l);
        gone();
}

/* Each version that ever was, with something in it, is taken over; twice opened as once. */
TEST(D06_state_without_names_of_saved_files)
{
        struct saved_file f = { .dir = STR("/d"), .name = STR("x"), .number = 2, .hash = { 1 }, .ino = 7, .size = 8, .written = 9 };
        struct str value;
        bool found;
        sqlite3 *db;

        for (int version = 1; version < LEDGER_SCHEMA; version++) {
                char set[128];

                fresh();
                CHECK(sqlite3_open(in("state.db"), &db) == SQLITE_OK);
                for (int v = 0; v < version; v++)
                        CHECK(sqlite3_exec(db, ledger_schema[v], 0, 0, 0) == SQLITE_OK);
                snprintf(set, sizeof set, "PRAGMA user_version = %d; INSERT INTO store VALUES (x'61', x'62', x'63', 0)", version);
                CHECK(sqlite3_exec(db, set, 0, 0, 0) == SQLITE_OK);
                sqlite3_close(db);
                for (int again = 0; again < 2; again++) {
                        struct ledger *l = reopen(NULL, false);

                        NEED(l);
                        CHECK(ledger_store_get(l, STR("a"), STR("b"), &value, &found, a, &e) && found && str_eq(value, STR("c")));
                        CHECK(ledger_saved(l, &f, &found, &e) && found == again);
                        CHECK(ledger_saved_put(l, &f, &e));
                        ledger_close(l);
                }
                gone();
        }
}

TEST(saved_files)
{
        struct saved_file f = { .dir = STR("/d"), .name = STR("x") }, g;
        struct ledger *l;
        bool found;

        fresh();
        l = reopen(NULL, false);
        NEED(l);
        for (unsigned i = 1; i <= 5; i++) {
                f.number = i;
                f.ino = UINT64_MAX - i; /* any bits */
                f.hash[0] = (uint8_t)(i == 4 ? 2 : i);
                CHECK(ledger_saved_put(l, &f, &e));
        }
        g = (struct saved_file){ .dir = STR("/d"), .name = STR("x"), .number = 3 };
        CHECK(ledger_saved(l, &g, &found, &e) && found && g.ino == UINT64_MAX - 3 && g.hash[0] == 3);
        g.number = 1000;
        CHECK(ledger_saved_last(l, &g, &found, &e) && found && g.number == 5);
        CHECK(ledger_saved_last(l, &g, &found, &e) && found && g.number == 4);
        g.number = 0;
        g.hash[0] = 2;
        CHECK(ledger_saved_by_hash(l, &g, &found, &e) && found && g.number == 2);
        CHECK(ledger_saved_by_hash(l, &g, &found, &e) && found && g.number == 4);
        CHECK(ledger_saved_by_hash(l, &g, &found, &e) && !found);
        g.name = STR("X");
        CHECK(ledger_saved(l, &g, &found, &e) && !found);
        f.number = 3;
        CHECK(ledger_saved_drop(l, &f, &e));
        f.number = 9;
        CHECK(ledger_saved_last(l, &f, &found, &e) && found && f.number == 2);
        CHECK(ledger_saved_age(l, sys_now() - 10, &e)); /* used just now */
        CHECK(ledger_saved(l, &f, &found, &e) && found);
        CHECK(ledger_saved_age(l, sys_now() + 10, &e));
        CHECK(ledger_saved(l, &f, &found, &e) && !found);
        ledger_close(l);
        gone();
}

TEST(D06_damaged_state)
{
        char junk[4096];
        struct stat st;
        int fd;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        for (int i = 0; i < 200; i++) {
                snprintf(junk, sizeof junk, "%d-%0*d", i, 500, i);
                CHECK(ledger_store_set(l, STR("s"), str_of(junk), STR("v"), 0, &e));
        }
        ledger_close(l);
        memset(junk, 0x55, sizeof junk);
        fd = open(in("state.db"), O_WRONLY);
        CHECK(fstat(fd, &st) == 0 && pwrite(fd, junk, sizeof junk, st.st_size / 2 / 4096 * 4096) == sizeof junk);
        CHECK(!ledger_open(dir, false, &e) && e.code == ERR_IO && strstr(e.text, "damaged") && strstr(e.text, ".recover"));
        CHECK(!ledger_open(dir, true, &e) && e.code == ERR_IO && strstr(e.text, "damaged"));
        CHECK(pwrite(fd, junk, sizeof junk, 0) == sizeof junk);
        CHECK(!ledger_open(dir, false, &e) && e.code == ERR_IO && strstr(e.text, "damaged"));
        CHECK(ftruncate(fd, 0) == 0 && mkdir(in("spool"), 0700) == 0);
        CHECK(!ledger_open(dir, false, &e) && e.code == ERR_IO && strstr(e.text, "empty"));
        CHECK(rmdir(in("spool")) == 0);
        l = reopen(NULL, false);
        CHECK(l);
        ledger_close(l);
        close(fd);
        gone();
}

/* ---- D06: what a crash or a bad disk makes of the journal -------------------------------------------------------- */

enum { STEPS = 12 };

static char *slurp_file(const char *path, size_t *n)
{
        FILE *f = fopen(path, "r");
        char *p = malloc(4 << 20);

        *n = f && p ? fread(p, 1, 4 << 20, f) : 0;
        if (f)
                fclose(f);
        return p;
}

static bool put_whole(const char *path, const char *p, size_t n)
{
        FILE *f = fopen(path, "w");
        bool ok = f && fwrite(p, 1, n, f) == n;

        return f && fclose(f) == 0 && ok;
}

/* A run that committed STEPS times and died: its database and its journal as they are on the disk. */
static bool dead_run(char **db, size_t *db_n, char **wal, size_t *wal_n)
{
        char n[16];
        int status;
        pid_t child = fork();

        if (child == 0) {
                struct ledger *l = ledger_open(dir, false, &e);
                bool ok = l != NULL;

                for (int i = 1; ok && i <= STEPS; i++) {
                        snprintf(n, sizeof n, "%d", i);
                        ok = ledger_store_set(l, STR("s"), str_of(n), STR("v"), 0, &e);
                }
                _exit(!ok);
        }
        if (waitpid(child, &status, 0) != child || status != 0)
                return false;
        *db = slurp_file(in("state.db"), db_n);
        *wal = slurp_file(in("state.db-wal"), wal_n);
        return *db_n > 0 && *wal_n > 0;
}

/* How many steps a state remembers: -1 it does not open, -2 it opens and what it says is no beginning of what was done. */
static int remembered(const char *db, size_t db_n, const char *wal, size_t wal_n)
{
        struct ledger *l;
        struct str v;
        char n[16];
        bool found = true;
        int steps = 0;

        unlink(in("state.db-shm"));
        if (!put_whole(in("state.db"), db, db_n) || !put_whole(in("state.db-wal"), wal, wal_n))
                return -2;
        l = ledger_open(dir, false, &e);
        if (!l)
                return -1;
        for (int i = 1; i <= STEPS + 1; i++) {
                snprintf(n, sizeof n, "%d", i);
                bool before = found;
                if (!ledger_store_get(l, STR("s"), str_of(n), &v, &found, a, &e) || (found && !before)) {
                        steps = -2;
                        break;
                }
                steps += found;
        }
        ledger_close(l);
        return steps;
}

TEST(D06_torn_last_record)
{
        size_t db_n, wal_n;
        char *db, *wal;
        int last = 0, whole = 0;

        fresh();
        NEED(dead_run(&db, &db_n, &wal, &wal_n));
        for (size_t n = 0; n <= wal_n; n += n + 4391 > wal_n && n < wal_n ? wal_n - n : 4391) {
                int steps = remembered(db, db_n, wal, n);

                CHECK(steps >= last); /* what was whole before the cut is all there */
                last = steps;
                whole += steps == STEPS;
        }
        CHECK(last == STEPS && whole >= 1 && whole < 5);
        free(db);
        free(wal);
        gone();
}

/* A checksum that does not fit ends the journal there, as SQLite does it: some mail is fetched again (W18). */
TEST(D06_bit_flip_in_the_journal)
{
        size_t db_n, wal_n;
        int less = 0;
        char *db, *wal;

        fresh();
        NEED(dead_run(&db, &db_n, &wal, &wal_n));
        for (size_t at = 5; at < wal_n; at += 5119) {
                wal[at] ^= (char)(1 << at % 8);
                int steps = remembered(db, db_n, wal, wal_n);
                wal[at] ^= (char)(1 << at % 8);
                CHECK(steps >= 0);
                less += steps < STEPS;
        }
        CHECK(less > 10);
        free(db);
        free(wal);
        gone();
}

/* Found at the start, or when the page is read; or it hit what nothing depends on. */
TEST(D06_bit_flip_in_the_state)
{
        size_t db_n, wal_n;
        int refused = 0;
        char *db, *wal;

        fresh();
        NEED(dead_run(&db, &db_n, &wal, &wal_n));
        CHECK(remembered(db, db_n, wal, wal_n) == STEPS); /* and now all of it is in the database */
        free(db);
        db = slurp_file(in("state.db"), &db_n);
        for (size_t at = 3; at < db_n; at += at % 4096 < 40 ? 5 : 743) { /* mostly where a page says what it is */
                db[at] ^= (char)(1 << at % 8);
                if (remembered(db, db_n, "", 0) == -1) {
                        refused++;
                        CHECK(e.code == ERR_IO || e.code == ERR_USAGE);
                        CHECK(strstr(e.text, in("state.db")) || strstr(e.text, dir));
                }
                db[at] ^= (char)(1 << at % 8);
        }
        CHECK(refused > 10);
        CHECK(remembered(db, db_n, "", 0) == STEPS);
        free(db);
        free(wal);
        gone();
}

TEST(D06_journal_of_a_gigabyte)
{
        size_t db_n, wal_n;
        int64_t began;
        char *db, *wal;

        fresh();
        NEED(dead_run(&db, &db_n, &wal, &wal_n));
        CHECK(truncate(in("state.db-wal"), 1 << 30) == 0 && truncate(in("state.db"), 1 << 30) == 0);
        began = sys_mono_ms();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        CHECK(ledger_store_set(l, STR("s"), STR("after"), STR("v"), 0, &e));
        ledger_close(l);
        CHECK(sys_mono_ms() - began < 20000);
        free(db);
        free(wal);
        gone();
}

TEST(D07_the_lock_dies_with_its_holder)
{
        int ready[2], status;
        char c;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        CHECK(pipe(ready) == 0);
        pid_t child = fork();
        if (child == 0) {
                struct ledger *mine = ledger_open(dir, false, &e);
                int fd = mine ? ledger_lock(mine, STR("me@host:995"), &e) : -1;
                if (write(ready[1], fd >= 0 ? "+" : "-", 1) == 1)
                        pause();
                _exit(0);
        }
        CHECK(read(ready[0], &c, 1) == 1 && c == '+');
        CHECK(ledger_lock(l, STR("me@host:995"), &e) == -1 && e.code == ERR_BUSY && strstr(e.text, "me@host:995"));
        int other = ledger_lock(l, STR("you@host:995"), &e);
        CHECK(other >= 0);
        close(other);
        CHECK(kill(child, 9) == 0 && waitpid(child, &status, 0) == child);
        int fd = ledger_lock(l, STR("me@host:995"), &e);
        CHECK(fd >= 0);
        close(fd);
        close(ready[0]), close(ready[1]);
        ledger_close(l);
        gone();
}

/* What was committed survives a kill; what was not is gone. */
TEST(killed_between)
{
        struct str v;
        bool found;
        int status;

        fresh();
        pid_t child = fork();
        if (child == 0) {
                struct ledger *mine = ledger_open(dir, false, &e);
                bool ok = mine && ledger_store_set(mine, STR("s"), STR("done"), STR("1"), 0, &e) && ledger_begin(mine, &e) &&
                          ledger_store_set(mine, STR("s"), STR("half"), STR("1"), 0, &e);
                _exit(ok ? 0 : 1);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        struct ledger *l = reopen(NULL, true); /* first only looked at: the WAL of the dead is read and stays */
        NEED(l);
        CHECK(ledger_store_get(l, STR("s"), STR("done"), &v, &found, a, &e) && found);
        l = reopen(l, false);
        NEED(l);
        CHECK(ledger_store_get(l, STR("s"), STR("done"), &v, &found, a, &e) && found);
        CHECK(ledger_store_get(l, STR("s"), STR("half"), &v, &found, a, &e) && !found);
        ledger_close(l);
        gone();
}

static atomic_int trouble;
static void *work(void *arg)
{
        struct ledger *l = arg;
        struct arena *mine = arena_new(0);
        struct err why;
        struct str v, key = STR("n");
        bool found;
        char n[16];

        for (int i = 0; i < 50; i++) {
                if (!ledger_begin(l, &why) || !ledger_store_get(l, STR("s"), key, &v, &found, mine, &why)) {
                        trouble++;
                        break;
                }
                snprintf(n, sizeof n, "%d", (found ? atoi(v.p) : 0) + 1);
                if (!ledger_store_set(l, STR("s"), key, str_of(n), 0, &why) || !ledger_commit(l, &why))
                        trouble++;
                if (!ledger_store_get(l, STR("s"), key, &v, &found, mine, &why))
                        trouble++;
        }
        arena_free(mine);
        return NULL;
}

/* Threads of one process, and another process: each transaction is alone. */
TEST(transactions_are_alone)
{
        pthread_t t[4];
        struct str v;
        bool found;
        int status;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        pid_t child = fork();
        if (child == 0) {
                struct ledger *mine = ledger_open(dir, false, &e);
                if (mine)
                        work(mine);
                _exit(!mine || trouble);
        }
        for (int i = 0; i < 4; i++)
                NEED(pthread_create(&t[i], NULL, work, l) == 0);
        for (int i = 0; i < 4; i++)
                pthread_join(t[i], NULL);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(trouble == 0);
        CHECK(ledger_store_get(l, STR("s"), STR("n"), &v, &found, a, &e) && found);
        CHECK_STR(v, "250");
        ledger_close(l);
        gone();
}

TEST(D11_allocations_fail)
{
        struct str to[] = { STR("a@x") };
        struct outbox_item mail = { .kind = OUTBOX_MAIL, .state = OUTBOX_READY, .recipients = to, .recipient_count = 1 }, out;
        struct mark m = mark_of(1, "u");
        bool found, ok = false;

        fresh();
        struct ledger *l = reopen(NULL, false);
        NEED(l);
        CHECK(ledger_outbox_add(l, &mail, &e) && ledger_mark_put(l, &m, &e));
        for (size_t n = 1; !ok; n++) {
                struct arena *mine = arena_new(0);
                int seen = 0;
                NEED(mine);
                mem_fail_at(n);
                ok = ledger_outbox_get(l, mail.id, &out, &found, mine, &e) && ledger_marks(l, 0, ~0u, count_marks, &seen, &e) &&
                     ledger_outbox(l, ~0u, sum_items, &seen, &e);
                mem_fail_at(0);
                CHECK(ok || e.code == ERR_NOMEM);
                arena_free(mine);
                NEED(n < 1000);
        }
        ledger_close(l);
        gone();
}

TEST_MAIN
