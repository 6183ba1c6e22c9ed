/* The n-th allocation of a handler fails, Lua's or the core's, for n = 1 until it succeeds: once that one alone, once all after it, too.
 * No crash, nothing leaks (the sanitizer looks); the message is held or done; and the run after it, with memory, ends with every message
 * delivered once, every file there, and the store's counter right. usage: test_nomem [all]: every n, not a sample. */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/sys.h"
#include "lua/engine.h"
#include "tests/unit/test.h"

static const char script_text[] =
        "local kept = {}\n"
        "mail.smarthost { host = 'localhost', from = 'me@y.example' }\n"
        "mail.rule('first', { from = '*@x.example', attachment = false, subject = mail.any { re '^f', '*' } }, function(m) m.vars.number = re.match(m.subject, '(\\\\w+)') end)\n"
        "mail.on_message(function(m)\n"
        "  m.vars.key = m.sha256:sub(1, 8)\n"
        "  local out = {}\n"
        "  for x in m.to do for y in m.to do out[#out + 1] = x .. y .. x.domain end end\n"
        "  for part in m:parts() do for line in part:lines() do out[#out + 1] = line end end\n"
        "  for part in m:attachments '*.pdf' do\n"
        "    local r <close> = part:reader()\n"
        "    out[#out + 1] = r:read(4)\n"
        "    part:save '{vars.key}/{from.domain}/{date:%Y-%m} {name}'\n"
        "    out[#out + 1] = part.detected .. part.sha256 .. part.reason\n"
        "  end\n"
        "  out[#out + 1] = json.encode(json.decode '{\"a\":[1,2,{\"b\":\"\\\\u00e9\"}]}')\n"
        "  out[#out + 1] = tostring(m:matches { from = '*@b.org', attachment = { name = '*.pdf', larger = '1 kB' }, newer = '30 days' })\n"
        "  out[#out + 1] = m.raw .. m.text .. (m.html or '') .. #m.defects .. m:addresses 'to'[1].addr .. #csv.parse 'a,b\\n1,2\\n'\n"
        "  pcall(function() out[#out + 1] = ('gr\\u{fc}n'):contains '\\u{dc}N' and 'y' error 'caught' end)\n"
        "  out[#out + 1] = coroutine.wrap(function() coroutine.yield(m.subject) end)()\n"
        "  kept.m, kept.part = m, m:parts()[1]\n"
        "  setmetatable({}, { __gc = function() kept.gone = true end })\n"
        "  local s = mail.store 'count'\n"
        "  s.n = (s.n or 0) + 1\n"
        "  s[m.subject] = mail.seen(m)\n"
        "  m:forward('oncall@example.com', { subject = 'Fwd: ' .. m.subject, text = table.concat(out) })\n"
        "  m:save('all/{subject}.eml')\n"
        "  m:deliver('A', { flags = 'S', headers = { ['X-Label'] = 'x', ['X-Spam'] = false }, detach = true })\n"
        "end)\n"
        "mail.on_finish(function(run) if run.messages == 0 then error 'nothing' end end)\n";

static const char mail[] =
        "From a@x.example Mon Nov 23 05:41:00 2026\n"
        "From: Ann <ann@x.example>\nTo: me@y.example, you@y.example\nSubject: first\nMessage-ID: <1@x.example>\nDate: Mon, 23 Nov 2026 05:41:00 +0000\n\none\n\n"
        "From b@x.example Mon Nov 23 05:42:00 2026\n"
        "From: \"Bob; B\" <bob@Bank.Example>\nTo: me@y.example, =?utf-8?q?J=C3=B6?= <jo@y.example>\nSubject: =?utf-8?q?sec=C3=B6nd?=\nDate: Tue, 24 Nov 2026 05:41:00 +0000\n"
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        "--b\nContent-Type: text/html; charset=iso-8859-1\n\n<p>tw\xf6</p>\n"
        "--b\nContent-Type: application/pdf; name=\"../bill.pdf\"\nContent-Disposition: attachment; filename=\"../bill.pdf\"\n"
        "Content-Transfer-Encoding: base64\n\nJVBERi0xLjQK\n--b--\n\n"
        "From c@x.example Mon Nov 23 05:43:00 2026\n"
        "From: carol@x.example\nTo: me@y.example\nSubject: third\nDate: Wed, 25 Nov 2026 05:41:00 +0000\n\nthree\n\n";

enum { MAILS = 3 };

static struct {
        char dir[64], box[128], root[128], state[128];
        struct script inner;
        size_t fail_at, many, made; /* made: allocations of the handler */
        unsigned calls;
        bool failing;
        char error[ERR_TEXT_MAX + 16];
} world;

/* Memory is short while the second message is decided, and at no other time. */
static enum verdict decide(void *ctx, struct plan *p, struct err *e)
{
        bool now = world.failing && p->message && ++world.calls == 2;
        enum verdict v;

        if (now)
                mem_fail_here(world.fail_at, world.many);
        v = world.inner.decide(world.inner.ctx, p, e);
        if (now) {
                world.made = mem_fail_here(0, 0);
                snprintf(world.error, sizeof world.error, "%d: %s", (int)v, v == RUN_FAIL ? e->text : "");
        }
        return v;
}

static void silent(void *ctx, enum log_level level, struct str line)
{
}

static void ignore(void *ctx, const struct run_event *ev)
{
}

static void make_world(void)
{
        FILE *f;

        log_set_sink(silent, NULL);
        snprintf(world.dir, sizeof world.dir, "%s/mailmill-nomem-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        if (!mkdtemp(world.dir))
                abort();
        snprintf(world.box, sizeof world.box, "%s/in.mbox", world.dir);
        snprintf(world.root, sizeof world.root, "%s/root", world.dir);
        snprintf(world.state, sizeof world.state, "%s/state", world.dir);
        f = fopen(world.box, "w");
        if (!f || fputs(mail, f) < 0 || fclose(f) != 0)
                abort();
}

static void clear(const char *what)
{
        char command[256];

        snprintf(command, sizeof command, "rm -rf '%s'", what);
        if (system(command) != 0)
                abort();
}

static unsigned files_in(const char *sub)
{
        char path[256];
        unsigned n = 0;
        DIR *d;

        snprintf(path, sizeof path, "%s/%s", world.root, sub);
        d = opendir(path);
        for (struct dirent *de; d && (de = readdir(d)) != NULL;)
                n += de->d_name[0] != '.';
        if (d)
                closedir(d);
        return n;
}

static bool run_once(bool failing, struct run_config c, struct run_result *res)
{
        struct engine_options o = { .now = 1795412345 };
        struct str archive = str_of(world.box);
        struct err e = { 0 };
        struct engine *en = engine_new(&o, &e);
        struct ledger *l;
        struct script s;
        bool ran;

        if (!en || !engine_load_code(en, STR(script_text), "nomem", &e) || !engine_config(en, &c, &e))
                abort();
        world.inner = engine_script(en);
        world.failing = failing;
        world.calls = 0;
        s = world.inner;
        s.decide = decide;
        c.archives = &archive;
        c.archive_n = 1;
        c.root = str_of(world.root);
        l = ledger_open(world.state, false, &e);
        if (!l)
                abort();
        *res = (struct run_result){ 0 };
        ran = run_all(&c, &s, &(struct run_hooks){ .event = ignore }, l, res, &e);
        if (!run_over(l, res, ran, &e))
                abort();
        ledger_close(l);
        engine_free(en);
        return ran && !res->sources_failed;
}

static bool counted(int64_t want)
{
        struct err e = { 0 };
        struct ledger *l = ledger_open(world.state, true, &e);
        struct arena *a = arena_new(0);
        struct str value = STR("");
        bool found = false, same;
        char text[32];

        if (!l || !a || !ledger_store_get(l, STR("count"), STR("n"), &value, &found, a, &e))
                abort();
        snprintf(text, sizeof text, "%lld", (long long)want);
        same = found && str_find_str(value, str_of(text)) < value.n;
        arena_free(a);
        ledger_close(l);
        return same;
}

/* False: the handler needed fewer allocations than n. */
static bool one(size_t n, size_t many)
{
        struct run_result res, first;
        uint64_t held, left;
        bool whole;

        clear(world.root);
        clear(world.state);
        world.fail_at = n;
        world.many = many;
        world.made = 0;
        whole = run_once(true, (struct run_config){ 0 }, &res);
        first = res;
        held = res.held;
        left = held + res.undone;
        CHECK(whole);
        CHECK(res.messages + left == MAILS && left <= 1 && res.quarantined == 0);
        CHECK(files_in("A/cur") + left == MAILS && files_in("all") + left == MAILS);
        CHECK(counted(MAILS - (int64_t)left));
        if (left) { /* held; or, where it could not even be read, left in its archive */
                CHECK(run_once(false, (struct run_config){ .failed = held > 0, .resume = held == 0 }, &res));
                CHECK(res.messages == 1 && res.held == 0);
        }
        CHECK(files_in("A/cur") == MAILS && files_in("all") == MAILS);
        CHECK(counted(MAILS));
        if (test_bad)
                printf("allocation %zu failed, %s; %s, then %d done and %u files; %d done, %d held, %d undone; %s\n", n, many == 1 ? "alone" : "and all after it", whole ? "whole" : "cut off",
                       (int)res.messages, files_in("A/cur"),
                       (int)first.messages, (int)first.held, (int)first.undone, world.error);
        return world.made >= n;
}

static bool all;

static void sweep(size_t many)
{
        size_t n = 1, tried = 0;

        make_world();
        for (; one(n, many) && test_bad < 10; tried++)
                n += all || n < 20 ? 1 : 17 + n % 7;
        clear(world.dir);
        log_set_sink(NULL, NULL);
        CHECK(tried > 30);
        printf("%zu of %zu allocations of a handler failed, %s\n", tried, world.made, many == 1 ? "each alone" : "each with all after it");
}

TEST(T4_each_allocation_of_a_handler_alone)
{
        sweep(1);
}

TEST(T4_each_allocation_of_a_handler_and_all_after_it)
{
        sweep(SIZE_MAX);
}

int main(int argc, char **argv)
{
        int failed = 0, passed = 0;

        all = argc > 1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        for (struct test_case *t = test_first; t; t = t->next) {
                test_bad = 0;
                t->run();
                if (test_bad)
                        printf("FAIL %s\n", t->name);
                test_bad ? failed++ : passed++;
        }
        printf("%d passed, %d failed\n", passed, failed);
        return failed || !passed;
}
