/* The engine through run_all: scripts over sample mail, and what their plans say. */
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "lua/engine.h"
#include "tests/unit/test.h"

/* One run: a directory of its own, an mbox of three messages, and what happened as text. */
struct bench {
        char dir[64];
        struct buf happened; /* "1 deliver A|2 held: …|" */
        struct buf trace, logged;
        struct run_result result;
        struct err e;
        bool loaded, ran;
        bool dry;
};

static void path_in(const struct bench *b, const char *name, char out[256])
{
        snprintf(out, 256, "%s/%s", b->dir, name);
}

static void write_file(const struct bench *b, const char *name, const char *text, mode_t mode)
{
        char path[256];
        FILE *f;

        path_in(b, name, path);
        f = fopen(path, "w");
        if (!f)
                abort();
        fputs(text, f);
        fclose(f);
        chmod(path, mode);
}

static char *read_file(const struct bench *b, const char *name)
{
        static char text[65536];
        char path[256];
        size_t n = 0;
        FILE *f;

        path_in(b, name, path);
        f = fopen(path, "r");
        if (f) {
                n = fread(text, 1, sizeof text - 1, f);
                fclose(f);
        }
        text[n] = '\0';
        return text;
}

static const char mail[] =
        "From a@x.example Mon Nov 23 05:41:00 2026\n"
        "From: Ann <ann@x.example>\nTo: me@y.example\nSubject: first\nMessage-ID: <1@x.example>\n"
        "Date: Mon, 23 Nov 2026 05:41:00 +0000\n\none\n\n"
        "From b@x.example Mon Nov 23 05:42:00 2026\n"
        "From: \"Bob; B\" <bob@Bank.Example>\nTo: me@y.example\nSubject: second\nDate: Tue, 24 Nov 2026 05:41:00 +0000\n"
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        "--b\nContent-Type: text/plain\n\ntwo\n"
        "--b\nContent-Type: application/pdf; name=\"../bill.pdf\"\nContent-Disposition: attachment; filename=\"../bill.pdf\"\n"
        "Content-Transfer-Encoding: base64\n\nJVBERi0xLjQK\n--b--\n\n"
        "From c@x.example Mon Nov 23 05:43:00 2026\n"
        "From: carol@x.example\nTo: me@y.example\nSubject: third\nDate: Wed, 25 Nov 2026 05:41:00 +0000\nX-Mailmill-Action: 00\n\nthree\n\n";

static void sink(void *ctx, enum log_level level, struct str line)
{
        struct bench *b = ctx;

        if (!b->dir[0])
                return;
        buf_add_str(&b->logged, line);
        buf_add_char(&b->logged, '\n');
}

static void heard(void *ctx, const struct run_event *ev)
{
        struct bench *b = ctx;
        struct arena *a = arena_new(0);

        if (!a || !ev->plan) {
                arena_free(a);
                return;
        }
        if (ev->plan->message)
                buf_printf(&b->happened, "%d", (int)message_origin(ev->plan->message)->number);
        else
                buf_add_str(&b->happened, STR("end"));
        if (ev->kind == EVENT_HELD) {
                buf_printf(&b->happened, " held %s: %s", err_code_name(ev->error->code), ev->error->text);
                buf_add_str(&b->trace, engine_traceback(ev->plan));
        }
        for (const struct effect *f = ev->plan->first; ev->kind == EVENT_DECIDED && f; f = f->next) {
                buf_add_char(&b->happened, ' ');
                buf_add_str(&b->happened, effect_words(f, a));
                if (f->rule.n)
                        buf_printf(&b->happened, " (%.*s)", STR_FMT(f->rule));
                buf_add_char(&b->happened, ';');
        }
        buf_add_char(&b->happened, '|');
        arena_free(a);
}

static struct bench begin(void)
{
        struct bench b = { .dir = "/tmp/mailmill-engine-XXXXXX" };

        if (!mkdtemp(b.dir))
                abort();
        write_file(&b, "in.mbox", mail, 0600);
        buf_init(&b.happened, 0);
        buf_init(&b.trace, 0);
        buf_init(&b.logged, 0);
        return b;
}

/* May be called again: a second run on the same state. */
static void run_script(struct bench *b, const char *script)
{
        struct engine_options o = { .now = 1795412345 };
        struct run_hooks hooks = { .ctx = b, .event = heard };
        struct run_config c = { .dry = b->dry };
        struct engine *en;
        struct ledger *l;
        struct script s;
        char path[256], state[256], mbox[256], root[256];
        struct str archive;

        buf_clear(&b->happened);
        buf_clear(&b->trace);
        buf_clear(&b->logged);
        b->loaded = b->ran = false;
        b->e = (struct err){ 0 };
        write_file(b, "script.lua", script, 0600);
        path_in(b, "script.lua", path);
        path_in(b, "state", state);
        path_in(b, "in.mbox", mbox);
        path_in(b, "root", root);
        log_set_sink(sink, b);
        en = engine_new(&o, &b->e);
        b->loaded = en && engine_load_file(en, path, &b->e);
        if (b->loaded && engine_config(en, &c, &b->e)) {
                archive = str_of(mbox);
                c.archives = &archive;
                c.archive_n = 1;
                c.account_n = 0;
                c.root = str_of(root);
                s = engine_script(en);
                l = ledger_open(state, false, &b->e);
                b->ran = l && run_all(&c, &s, &hooks, l, &b->result, &b->e);
                if (l)
                        CHECK(run_over(l, &b->result, b->ran, &b->e));
                ledger_close(l);
        }
        for (size_t i = 0; en && i < engine_problem_count(en); i++)
                buf_printf(&b->happened, "%.*s\n", STR_FMT(engine_problem(en, i)));
        engine_free(en);
        log_set_sink(NULL, NULL);
        buf_add_char(&b->happened, '\0'), b->happened.n--;
        buf_add_char(&b->trace, '\0'), b->trace.n--;
        buf_add_char(&b->logged, '\0'), b->logged.n--;
}

static void end(struct bench *b)
{
        char command[128];

        snprintf(command, sizeof command, "rm -rf '%s'", b->dir);
        if (system(command) != 0)
                abort();
        buf_free(&b->happened);
        buf_free(&b->trace);
        buf_free(&b->logged);
}

#define HAS(b, text) (strstr((b).happened.p, (text)) ? 1 : (printf("%s:%d: no \"%s\" in \"%s\"\n", __FILE__, __LINE__, (text), (b).happened.p), test_bad++, 0))
#define HAS_NOT(b, text) (!strstr((b).happened.p, (text)) ? 1 : (printf("%s:%d: \"%s\" in \"%s\"\n", __FILE__, __LINE__, (text), (b).happened.p), test_bad++, 0))

TEST(subjects_through_run_all)
{
        struct bench b = begin();

        run_script(&b, "seen = ''\n"
                       "mail.on_message(function(m) seen = seen .. m.subject .. ',' end)\n"
                       "mail.on_finish(function(run) log.error(seen, run.messages) end)\n");
        CHECK(b.loaded);
        CHECK(b.ran);
        CHECK(strstr(b.logged.p, "first,second,third,") != NULL);
        CHECK(b.result.messages == 3);
        end(&b);
}

TEST(saves_and_delivers)
{
        struct bench b = begin();

        run_script(&b, "mail.rule('Bills', { from = '*@bank.example' }, function(m)\n"
                       "  m.vars.n = 'a/b'\n"
                       "  for part in m:attachments '*.pdf' do\n"
                       "    log.error(part:save '{from.domain}/{date:%Y-%m}/{vars.n} {name}')\n"
                       "    part:save '{stem}.{ext} {index} {detected.ext}'\n"
                       "  end\n"
                       "  m:deliver('Archive/{from.user}', { flags = 'S', detach = true, headers = { ['X-Label'] = 'bank' } })\n"
                       "  m:stop()\n"
                       "end)\n"
                       "mail.on_message(function(m) m:save '{subject|none}.eml' end)\n");
        CHECK(b.loaded && b.ran);
        HAS(b, "2 save bank.example/2026-11/a_b bill.pdf (Bills); save bill.pdf 2 pdf (Bills); deliver Archive/bob (Bills);|");
        HAS(b, "1 save first.eml (on_message);|");
        CHECK(strstr(b.logged.p, "/root/bank.example/2026-11/a_b bill.pdf") != NULL);
        CHECK_STR(str_of(read_file(&b, "root/bank.example/2026-11/a_b bill.pdf")), "%PDF-1.4\n");
        CHECK(b.result.saved == 4);
        end(&b);
}

TEST(failures_hold_one_message)
{
        struct bench b = begin();

        run_script(&b, "n = 0\n"
                       "local function deep(m) return m:header('X-Spam'):contains('y') end\n"
                       "mail.on_message(function(m)\n"
                       "  n = n + 1\n"
                       "  m:deliver 'A'\n"
                       "  if n == 1 then deep(m) end\n"
                       "  if n == 2 then return #m.html end\n"
                       "  m:deliver('B' .. n)\n"
                       "end)\n");
        CHECK(b.loaded && b.ran);
        HAS(b, "1 held script: ");
        HAS(b, "script.lua:2: attempt to index a nil value (a header field that is absent is nil: write m:header(\"X-Spam\", \"\"))|");
        HAS(b, "script.lua:7: attempt to get length of a nil value (field 'html') (what a message may lack is nil: write m.html or \"\")|");
        HAS(b, "3 deliver A (on_message); deliver B3 (on_message);|");
        CHECK(strstr(b.trace.p, "script.lua:6: in ") != NULL);
        CHECK(strstr(b.trace.p, "(mail.rules)") == NULL);
        CHECK(b.result.held == 2 && b.result.messages == 1 && b.result.delivered == 2);
        end(&b);
}

TEST(methods_taken_for_fields)
{
        struct bench b = begin();

        run_script(&b, "mail.on_message(function(m)\n"
                       "  if m.subject == 'first' then for p in m.attachments do end end\n"
                       "  if m.subject == 'second' then return m.parts[1] end\n"
                       "  m.deliver 'X'\n"
                       "end)\n");
        HAS(b, "(a method must be called: for part in m:attachments() do)|2 held");
        HAS(b, "(parts is a method: write m:parts())|3 held");
        HAS(b, "(a method is called with a colon: m:deliver(");
        end(&b);
}

TEST(error_objects_and_yields)
{
        struct bench b = begin();

        run_script(&b, "mail.on_message(function(m)\n"
                       "  if m.subject == 'first' then error({ code = 1 }) end\n"
                       "  if m.subject == 'second' then error(setmetatable({}, { __tostring = function() return 'mine' end })) end\n"
                       "  coroutine.yield(1)\n"
                       "end)\n");
        HAS(b, "1 held script: error() was called with a table");
        HAS(b, "2 held script: mine|");
        HAS(b, "3 held script: the handler yielded outside of a coroutine of its own|");
        end(&b);
}

static void runs_out(const char *body)
{
        struct bench b = begin();
        char script[1024];
        struct timespec from, to;

        snprintf(script, sizeof script, "mail.limits { cpu = 0.1 }\nmail.on_message(function(m)\n"
                 "if m.subject ~= 'first' then m:deliver 'A' return end\n%s\nend)\n", body);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
        run_script(&b, script);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
        HAS(b, "1 held timeout: ");
        HAS(b, "s of CPU");
        HAS(b, "2 deliver A (on_message);|3 deliver A (on_message);|");
        CHECK((double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9 < 2);
        if (test_bad)
                printf("in: %s\n", body);
        end(&b);
}

TEST(cpu_time_ends)
{
#if defined __SANITIZE_THREAD__ /* which keeps a signal back until the next system call */
        return;
#endif
        runs_out("while true do end");
        runs_out("while true do pcall(function() while true do end end) end");
        runs_out("local function f() return pcall(f) end while true do f() end");
        runs_out("xpcall(function() while true do end end, function() while true do end end) while true do end");
        runs_out("while true do xpcall(error, function(e) return e end) end");
        runs_out("coroutine.wrap(function() while true do end end)()");
        runs_out("while true do local c = coroutine.wrap(function() while true do end end) pcall(c) end");
        runs_out("local a, b\n a = coroutine.wrap(function() while true do coroutine.yield() end end)\n while true do a() end");
        runs_out("while true do local c = coroutine.create(function() error 'x' end) coroutine.resume(c) coroutine.close(c) end");
        runs_out("for i = 1, 1e9 do local t = setmetatable({}, { __close = function() while true do end end }) pcall(function() local x <close> = t end) end");
        runs_out("while true do string.rep('x', 100):gsub('x', function() return 'y' end) end");
        runs_out("local t = {} for i = 1, 100 do t[i] = i end while true do table.sort(t, function(a, b) return a > b end) end");
}

TEST(cpu_time_is_each_message_s_own)
{
        struct bench b = begin();

        /* Each uses well under the limit; together they would not. */
        run_script(&b, "mail.limits { cpu = 0.3 }\n"
                       "mail.on_message(function(m) local t = os.clock() while os.clock() < t + 0.15 do end m:deliver 'A' end)\n");
        HAS(b, "1 deliver A (on_message);|2 deliver A (on_message);|3 deliver A (on_message);|");
        end(&b);
}

TEST(memory_ends)
{
        struct bench b = begin();

        run_script(&b, "mail.limits { heap = '16 MiB' }\n"
                       "mail.on_message(function(m)\n"
                       "  if m.subject == 'first' then local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end end\n"
                       "  if m.subject == 'second' then return ('x'):rep(1e9) end\n"
                       "  if m.subject == 'third' then local function f() return 1 + f() end f() end\n"
                       "end)\n");
        HAS(b, "1 held limit: the script needs more than 16777216 bytes");
        HAS(b, "2 held limit: ");
        HAS(b, "3 held limit: the script needs more than 16777216 bytes of memory, in calls nested deeper");
        run_script(&b, "mail.on_message(function(m) if m.subject == 'third' then local c = 0 while c < 3e6 do c = c + #{ {}, {} } end end m:deliver 'A' end)");
        HAS(b, "3 deliver A (on_message);|");
        end(&b);
}

TEST(sandbox)
{
        struct bench b = begin();

        write_file(&b, "beside.lua", "return { answer = 42, name = ... }\n", 0600);
        write_file(&b, "data.txt", "l1\nl2\n", 0600);
        run_script(&b, "local absent = {}\n"
                       "for _, name in ipairs { 'os.tmpname', 'os.setlocale', 'io.write',\n"
                       "  'io.output', 'io.tmpfile', 'debug.sethook', 'debug.getregistry', 'debug.setmetatable', 'debug.getinfo',\n"
                       "  'package.path', 'package.cpath', 'package.searchers', 'package.searchpath' } do\n"
                       "  local v = _G for key in name:gmatch '[^.]+' do v = v[key] end\n"
                       "  if v ~= nil then absent[#absent + 1] = name end\n"
                       "end\n"
                       "for _, name in ipairs { 'os.execute', 'os.exit', 'os.remove', 'os.rename', 'io.popen', 'package.loadlib', 'dofile', 'loadfile', 'string.dump' } do\n"
                       "  local v = _G for key in name:gmatch '[^.]+' do v = v[key] end\n"
                       "  local ok, why = pcall(v, print) assert(not ok and why:find(name, 1, true) and why:find ': ', name)\n"
                       "end\n"
                       "assert(#absent == 0, table.concat(absent, ' '))\n"
                       "for _, o in ipairs { 'stop', 'restart', 'generational', 'incremental', 'setpause', 'setstepmul' } do assert(not pcall(collectgarbage, o)) end\n"
                       "assert(collectgarbage() == 0 and collectgarbage 'count' > 0 and collectgarbage 'isrunning')\n"
                       "assert(not pcall(io.open, 'x', 'w')) assert(not pcall(io.open, 'x', 'r+')) assert(not pcall(io.open, 'x', 'a'))\n"
                       "assert(io.open('data.txt'):read 'l' == 'l1') local f, why = io.open 'no such' assert(f == nil and why)\n"
                       "local n = 0 for line in io.lines 'data.txt' do n = n + #line end assert(n == 4)\n"
                       "assert(load '\\27Lua' == nil) assert(load('return 1')() == 1) assert(load('return x', 'c', 't', { x = 3 })() == 3)\n"
                       "assert(load(function() return nil end))\n"
                       "assert(os.time() == 1795412345) assert(os.date('!%Y') == '2026') assert(os.date('!%Y', 0) == '1970')\n"
                       "assert(os.time { year = 2000, month = 1, day = 1 } < 1e9)\n"
                       "local beside = require 'beside' assert(beside.answer == 42 and beside.name == 'beside' and require 'beside' == beside)\n"
                       "assert(not pcall(require, '../beside')) assert(not pcall(require, '/etc/passwd')) assert(not pcall(require, 'nothing'))\n"
                       "assert(require 'mail.match' == require 'match') assert(mail.csv == require 'mail.csv' and csv == mail.csv)\n"
                       "assert(not pcall(function() return mail.acount end))\n"
                       "assert(xpcall(function(a) return a end, print, 5)) assert(select(2, xpcall(error, function(e) return e .. '!' end, 'x')) == 'x!')\n"
                       "local co = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) return b * 2 end) assert(co(1) == 2 and co(4) == 8)\n"
                       "local t = coroutine.create(function() coroutine.yield(1, 2, 3) error 'e' end)\n"
                       "assert(select('#', coroutine.resume(t)) == 4) local ok, e = coroutine.resume(t) assert(not ok and e:find 'e')\n"
                       "assert(coroutine.resume(t) == false) assert(coroutine.close(coroutine.create(print)))\n"
                       "assert(not pcall(coroutine.wrap(function() error 'x' end)))\n"
                       "assert(arg and #arg == 0)\n");
        CHECK(b.loaded);
        if (!b.loaded)
                printf("%s\n", b.e.text);
        end(&b);
}

TEST(declarations_complain_together)
{
        struct bench b = begin();

        run_script(&b, "mail.account { hots = 'h', user = 'u', password = secret.env 'P', port = 70000 }\n"
                       "mail.account { name = 'a', host = 'h', user = 'u', password = secret.env 'P' }\n"
                       "mail.account { name = 'a', host = 'h2', user = 'u', password = secret.env 'P', leave_on_server = 'soon' }\n"
                       "mail.account { host = 'h3', user = 'u', password = 5, tls = false }\n"
                       "mail.limits { saves = -1, txt = 5, cpu = 0, heap = 5 }\n"
                       "mail.rule('r', { form = '*' }, print)\n"
                       "mail.rule('r', { from = 'bank' }, print)\n"
                       "mail.timezone 'Mars/Base'\n"
                       "mail.smarthost { host = 'h', tls = 'startls' }\n"
                       "mail.source ''\n"
                       "mail.root(5)\n");
        CHECK(!b.loaded);
        HAS(b, "script.lua:1: mail.account: unknown option 'hots' (did you mean 'host'?)\n");
        HAS(b, "script.lua:1: mail.account: option host is missing\n");
        HAS(b, "script.lua:1: mail.account: option port is 70000, outside 1 to 65535\n");
        HAS(b, "script.lua:3: mail.account: there is already an account 'a'\n");
        HAS(b, "script.lua:3: mail.account: option leave_on_server: 'soon' is no time span");
        HAS(b, "script.lua:4: mail.account: option password is a number, not a secret\n");
        HAS(b, "script.lua:4: mail.account: without TLS the password");
        HAS(b, "script.lua:5: mail.limits: option saves is -1, outside");
        HAS(b, "script.lua:5: mail.limits: unknown option 'txt' (did you mean 'text'?)\n");
        HAS(b, "script.lua:5: mail.limits: option cpu is outside");
        HAS(b, "bad argument #1 to mail.root (string expected, got number)");
        HAS(b, "script.lua:6: ");
        HAS(b, "'from'");
        HAS(b, "script.lua:7: ");
        HAS(b, "bank@*");
        HAS(b, "script.lua:8: mail.timezone: 'Mars/Base' is no known time zone");
        HAS(b, "script.lua:9: mail.smarthost: option tls is 'startls'");
        HAS(b, "script.lua:10: mail.source: the name is empty");
        CHECK(strstr(b.e.text, "nothing was run") != NULL);
        end(&b);
}

TEST(errors_at_the_top)
{
        struct bench b = begin();

        run_script(&b, "mail.on_message(function() end\n");
        CHECK(!b.loaded);
        HAS(b, "script.lua:2: ')' expected (to close '(' at line 1)");
        run_script(&b, "m:deliver 'x'\n");
        HAS(b, "script.lua:1: attempt to index a nil value (global 'm')");
        run_script(&b, "mail.store('x').y = 1\n");
        HAS(b, "mail.store: only while a message is decided");
        run_script(&b, "mail.on_message(function(m) mail.root 'x' end)\n");
        HAS(b, "held script: ");
        HAS(b, "script.lua:1: mail.root belongs to the top of a script, not into a handler|");
        run_script(&b, "#!/usr/bin/mailmill\nmail.on_message(function(m) error('here', 1) end)\n");
        HAS(b, "script.lua:2: here|");
        end(&b);
}

TEST(secrets_stay_secret)
{
        struct bench b = begin();

        run_script(&b, "local s = secret.env 'CANARY'\n"
                       "assert(tostring(s) == 'secret (environment variable CANARY)', tostring(s))\n"
                       "for _, f in ipairs { function() return s .. '' end, function() return '' .. s end, function() return #s end, function() return s.x end,\n"
                       "  function() s.x = 1 end, function() return s() end, function() return s < s end, function() return s:sub(1) end,\n"
                       "  function() for k in pairs(s) do end end, function() return ('%d'):format(s) end, function() setmetatable(s, {}) end } do\n"
                       "  assert(not pcall(f))\n"
                       "end\n"
                       "assert(getmetatable(s) == false)\n"
                       "assert(tostring(secret.command { 'pass', 'show' }):find 'command pass')\n"
                       "assert(not pcall(secret.command, {})) assert(not pcall(secret.env, '')) assert(not pcall(secret.command, { 1 }))\n"
                       "mail.account { host = 'h', user = 'u', password = 'hunter2' }\n");
        CHECK(b.loaded);
        if (!b.loaded)
                printf("%s\n", b.e.text);
        CHECK(strstr(b.logged.p, "the password stands in the script") != NULL);
        CHECK(strstr(b.logged.p, "hunter2") == NULL);
        end(&b);
}

TEST(literal_password_needs_a_private_script)
{
        struct engine_options o = { 0 };
        struct bench b = begin();
        struct engine *en;
        char path[256];
        struct err e;

        write_file(&b, "open.lua", "mail.account { host = 'h', user = 'u', password = 'hunter2' }\n", 0644);
        path_in(&b, "open.lua", path);
        en = engine_new(&o, &e);
        NEED(en);
        CHECK(!engine_load_file(en, path, &e));
        CHECK(strstr(e.text, "chmod 600") != NULL);
        CHECK(strstr(e.text, "hunter2") == NULL);
        engine_free(en);
        end(&b);
}

TEST(misuse_raises_where_it_stands)
{
        struct bench b = begin();

        run_script(&b, "mail.smarthost { host = 'smtp.x.example', from = 'me@x.example' }\n"
                       "local function no(what, f, ...)\n"
                       "  local ok, e = pcall(f, ...)\n"
                       "  if ok or not e:find(what, 1, true) then error(('%s: %s, not %s'):format(debug.traceback(), tostring(e), what)) end\n"
                       "end\n"
                       "mail.on_message(function(m)\n"
                       "  if m.subject == 'third' then no('refused', m.forward, m, 'a@b.example') no('refused', m.redirect, m, 'a@b.example')\n"
                       "    local ok, why, code = m:reply { text = 'x' } assert(ok == nil and why and code == 'refused') return end\n"
                       "  no('line feed', m.forward, m, 'a@b.example\\nBcc: c@d.example')\n"
                       "  no('CR', m.forward, m, 'a@b.example', { subject = 'x\\r' })\n"
                       "  no('no address', m.forward, m, 'nobody') no('no address', m.forward, m, '') no('no recipient', m.forward, m, {})\n"
                       "  no(\"did you mean 'subject'\", m.forward, m, 'a@b.example', { sujbect = 'x' })\n"
                       "  no('unknown smarthost', m.forward, m, 'a@b.example', { smarthost = 'y' })\n"
                       "  no(\"unknown value 'x' of as\", m.forward, m, 'a@b.example', { as = 'x' })\n"
                       "  no('set by mailmill itself', m.forward, m, 'a@b.example', { headers = { Subject = 'x' } })\n"
                       "  no('line feed', m.deliver, m, 'A', { headers = { ['X-A'] = 'a\\nb' } })\n"
                       "  no('no name of a header field', m.deliver, m, 'A', { headers = { ['X A'] = 'a' } })\n"
                       "  no('unknown flag', m.deliver, m, 'A', { flags = 'X' }) no('unknown format', m.deliver, m, 'A', { format = 'mh' })\n"
                       "  no(\"did you mean 'flags'\", m.deliver, m, 'A', { flag = 'S' })\n"
                       "  no('\"..\"', m.deliver, m, 'A/../B') no('absolute', m.save, m, '/etc/x') no(\"did you mean 'subject'\", m.save, m, '{subjet}')\n"
                       "  no('no folder can be called \\\"new\\\"', m.deliver, m, 'A/new/B') no('{list_id} is empty', m.save, m, 'x/{list_id}')\n"
                       "  m.vars.t = {} no(\"m.vars.t: a table can't name a file\", m.save, m, '{vars.t}')\n"
                       "  no('only {date}', m.save, m, '{subject:%Y}') no('is empty', m.save, m, '')\n"
                       "  no('NUL', m.run_after, m, { 'a\\0b' }) no('empty', m.run_after, m, {}) no('a list of words', m.run_after, m, 'ls -l') no('unknown option', m.run_after, m, { 'a', ok = 1 })\n"
                       "  no(\"unknown value 'ask' of on_conflict\", m.save, m, 'x', { on_conflict = 'ask' })\n"
                       "  no(\"did you mean 'deliver'\", function() m:delivr 'A' end)\n"
                       "  no('no time span', m.leave_on_server, m, 'x') no('without a name', m.deliver, m, 'A', { 'S' })\n"
                       "  no('part or content', mail.send, { to = 'a@b.example', attachments = { {} } })\n"
                       "  no('needs a name', mail.send, { to = 'a@b.example', attachments = { { content = 'x' } } })\n"
                       "  no('text is missing', m.reply, m, {})\n"
                       "end)\n");
        HAS(b, "1|2|3|");
        end(&b);
}

TEST(new_mail)
{
        struct bench b = begin();

        run_script(&b, "mail.smarthost { host = 'smtp.x.example', from = 'Me <me@x.example>' }\n"
                       "mail.on_message(function(m)\n"
                       "  if m.subject == 'third' then return end\n"
                       "  m:forward('a@b.example', { as = 'inline', text = 'see' })\n"
                       "  m:redirect { 'a@b.example', 'C <c@d.example>' }\n"
                       "  assert(m:reply { text = 'thanks', quote = true })\n"
                       "  for part in m:attachments() do part:forward('p@q.example') end\n"
                       "  m:run_after { 'echo', 7, 'x' }\n"
                       "end)\n"
                       "mail.on_finish(function(run) mail.send { to = 'boss@x.example', subject = 'n', text = run.messages .. ' ' .. run.mails } end)\n");
        HAS(b, "1 forward to a@b.example (on_message); redirect to a@b.example, c@d.example (on_message); reply to ann@x.example (on_message); "
               "run_after echo 7 x (on_message);|");
        HAS(b, "forward to p@q.example");
        HAS(b, "end send to boss@x.example;|");
        CHECK(b.result.mails == 8);
        CHECK(b.result.waiting > 0);
        end(&b);
}

TEST(limits_and_half_effects)
{
        struct bench b = begin();

        run_script(&b, "mail.limits { deliveries = 2, saves = 1 }\n"
                       "mail.on_message(function(m)\n"
                       "  m:deliver 'A' m:deliver 'B'\n"
                       "  local ok, e = pcall(m.deliver, m, 'C') assert(not ok and e:find 'more than 2 deliveries', e)\n"
                       "  m:save '{subject}' ok, e = pcall(m.save, m, '{subject}2') assert(not ok and e:find 'more than 1 save', e)\n"
                       "  pcall(m.save, m, '{nothing}') pcall(m.deliver, m, '/x')\n"
                       "end)\n");
        HAS(b, "1 deliver A (on_message); deliver B (on_message); save first (on_message);|");
        end(&b);
}

TEST(stores_are_committed_with_the_message)
{
        struct bench b = begin();
        const char *script = "mail.on_message(function(m)\n"
                             "  local s = mail.store 'counts'\n"
                             "  s.n = (s.n or 0) + 1 s[7] = 'seven' s['a\\0b'] = { 1, 2.5, { x = true }, 'y\\255' }\n"
                             "  assert(s['7'] == 'seven' and s['a\\0b'][2] == 2.5 and s['a\\0b'][3].x == true and s['a\\0b'][4] == 'y\\255')\n"
                             "  s.gone = 1 s.gone = nil assert(s.gone == nil)\n"
                             "  assert(not pcall(function() s.f = print end)) assert(not pcall(function() local t = {} t.t = t s.t = t end))\n"
                             "  assert(not pcall(function() s[''] = 1 end)) assert(not pcall(function() s[1.5] = 1 end))\n"
                             "  local keys = {} for k in pairs(s) do keys[#keys + 1] = k end table.sort(keys)\n"
                             "  assert(#keys == 3 and keys[1] == '7', #keys)\n"
                             "  log.error('n', s.n)\n"
                             "  if m.subject == 'second' then error 'no' end\n"
                             "end)\n";

        run_script(&b, script);
        HAS(b, "1|");
        HAS(b, "2 held script: ");
        CHECK(strstr(b.logged.p, "n 2\n") || strstr(b.logged.p, "n\t2\n"));
        CHECK(!strstr(b.logged.p, "n 3\n") && !strstr(b.logged.p, "n\t3\n")); /* what a failed message changed is undone */
        end(&b);
}

TEST(seen)
{
        struct bench b = begin();
        const char *script = "mail.on_message(function(m)\n"
                             "  local function yes(x) if mail.seen(x) then m:save('seen {subject}') end end\n"
                             "  yes('same') yes('same') yes(m) for p in m:attachments() do yes(p) end\n"
                             "end)\n";

        run_script(&b, script);
        HAS(b, "1|");
        HAS(b, "2 save seen second (on_message); save seen second (already there) (on_message);|");
        end(&b);
        b = begin();
        run_script(&b, "mail.on_message(function(m) if mail.seen('k', '1 day') then m:save 'again' end assert(not pcall(mail.seen, 5)) end)\n");
        HAS(b, "1|2 save again (on_message);|3 save again");
        end(&b);
}

TEST(pipes)
{
        struct bench b = begin();

        run_script(&b, "mail.on_message(function(m)\n"
                       "  if m.subject == 'second' then\n"
                       "    local out, status = m:attachments()[1]:pipe { 'cat' } assert(out == '%PDF-1.4\\n' and status == 0)\n"
                       "    out, status = m:pipe { 'sh', '-c', 'exit 3', ok = { 0, 3 } } assert(out == '' and status == 3)\n"
                       "    assert(#m:pipe { 'cat' } == m.size)\n"
                       "    local co = coroutine.wrap(function() return (m:pipe { 'echo', 'in' }) end) assert(co() == 'in\\n')\n"
                       "    assert(('x'):gsub('x', function() return (m:pipe { 'printf', 'y' }) end) == 'y')\n"
                       "    local ok, e = pcall(m.pipe, m, { 'false' }) assert(not ok and e:find 'status 1', e)\n"
                       "    ok, e = pcall(m.pipe, m, { 'sleep', '5', timeout = 0.2 }) assert(not ok, e)\n"
                       "    ok, e = pcall(m.pipe, m, { 'no-such-program-here' }) assert(not ok, e)\n"
                       "    assert(not pcall(m.pipe, m, {})) assert(not pcall(m.pipe, m, { 'x', okk = 1 }))\n"
                       "    m:deliver 'A'\n"
                       "  elseif m.subject == 'third' then m:pipe { 'false' } end\n"
                       "end)\n");
        HAS(b, "1|2 deliver A (on_message);|");
        HAS(b, "3 held script: ");
        HAS(b, "pipe: false ended with status 1");
        end(&b);
}

TEST(handles_close)
{
        struct bench b = begin();

        run_script(&b, "mail.on_message(function(m)\n"
                       "  if old then assert(not pcall(function() return old.subject end)) assert(not pcall(function() old:deliver 'A' end))\n"
                       "    local ok, e = pcall(function() part:save 'x' end) assert(not ok and e:find 'closed', e) end\n"
                       "  old, part = m, m:parts()[1]\n"
                       "  m:deliver 'A' m:discard() m:leave_on_server '3 days'\n"
                       "end)\n");
        HAS(b, "1 deliver A (on_message);|2 deliver A (on_message);|3 deliver A (on_message);|");
        end(&b);
}

TEST(action_of_a_line)
{
        struct engine_options o = { 0 };
        struct engine *en;
        struct run_config c = { 0 };
        uint8_t hash[DIGEST_SIZE];
        struct err e;

        en = engine_new(&o, &e);
        NEED(en);
        CHECK(engine_load_action(en, STR("print(m.subject)"), "-e", &e));
        CHECK(engine_rule_count(en) == 1);
        CHECK(engine_config(en, &c, &e));
        memcpy(hash, c.script_hash, sizeof hash);
        CHECK(!engine_load_action(en, STR("print(m.subject"), "-e", &e));
        CHECK(strstr(e.text, "-e:1:") != NULL);
        CHECK(engine_config(en, &c, &e));
        CHECK(memcmp(hash, c.script_hash, sizeof hash) != 0);
        CHECK(!engine_load_code(en, STR("\x1bLua"), "-e", &e));
        engine_free(en);
}

TEST(templates_are_checked)
{
        struct engine_options o = { 0 };
        struct err e;
        struct engine *en = engine_new(&o, &e);

        NEED(en);
        CHECK(engine_check_template(en, STR("a/{date:%Y-%m}/{from.domain|none}/{vars.x} {name}.{detected.ext} {{x}}"), &e));
        CHECK(!engine_check_template(en, STR("{form.domain}"), &e));
        CHECK(strstr(e.text, "did you mean 'from.domain'?") != NULL);
        CHECK(!engine_check_template(en, STR("{date:%Q}"), &e));
        CHECK(!engine_check_template(en, STR("{name"), &e));
        engine_free(en);
}

TEST(names_that_are_missing)
{
        struct bench b = begin();

        write_file(&b, "in.mbox", "From a@x.example Mon Nov 23 05:41:00 2026\nFrom: a@x.example\nSubject: ../..\nMIME-Version: 1.0\n"
                   "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nx\n"
                   "--b\nContent-Type: application/octet-stream\nContent-Disposition: attachment\n\nx\n"
                   "--b\nContent-Type: application/pdf; name=a.pdf\nContent-Disposition: attachment; filename=a.pdf\n\n1\n"
                   "--b\nContent-Type: application/pdf; name=a.pdf\nContent-Disposition: attachment; filename=a.pdf\n\n2\n"
                   "--b\nContent-Type: application/pdf; name=a.pdf\nContent-Disposition: attachment; filename=a.pdf\n\n1\n--b--\n\n", 0600);
        run_script(&b, "mail.on_message(function(m)\n"
                       "  local p = m:attachments()\n"
                       "  p[1]:save '{name}' p[1]:save '{name|none}' p[1]:save 's/{subject}-{list_id|no list}'\n"
                       "  for i = 2, 4 do p[i]:save '{name}' end\n"
                       "  p[3]:save('{name}', { on_conflict = 'keep' })\n"
                       "  assert(not pcall(p[3].save, p[3], '{name}', { on_conflict = 'fail' }))\n"
                       "end)\n");
        HAS(b, "save attachment-2 (on_message); save none (on_message); save s/");
        HAS(b, "no list (on_message); save a.pdf (on_message); save a (2).pdf (on_message); save a.pdf (already there) (on_message);");
        end(&b);
}

TEST(sources_and_roots_start_at_the_script)
{
        struct engine_options o = { 0 };
        struct run_config c = { 0 };
        struct bench b = begin();
        char path[256], want[256];
        struct engine *en;
        struct err e;

        write_file(&b, "one.lua", "mail.root 'out' mail.source '*.mbox' mail.inbox 'In' mail.timezone 'UTC'\n"
                   "mail.account { host = 'h', user = 'u', password = secret.file 'pw' }\n"
                   "mail.account { host = 'h', user = 'v', password = secret.file 'pw', inbox = false, leave_on_server = '14 days', first = 'new', tls = 'starttls' }\n", 0600);
        path_in(&b, "one.lua", path);
        en = engine_new(&o, &e);
        NEED(en);
        CHECK(engine_load_file(en, path, &e));
        CHECK(engine_config(en, &c, &e));
        CHECK(engine_sources(en, &c, &e));
        path_in(&b, "out", want);
        CHECK_STR(c.root, want);
        path_in(&b, "in.mbox", want);
        NEED(c.archive_n == 1 && c.account_n == 2);
        CHECK_STR(c.archives[0], want);
        CHECK_STR(c.accounts[0]->inbox, "In");
        CHECK_STR(c.accounts[0]->name, "u@h");
        CHECK(c.accounts[0]->port == 995 && c.accounts[0]->leave == LEAVE_ALWAYS && !c.accounts[0]->first_new);
        CHECK(!c.accounts[1]->inbox.p && c.accounts[1]->port == 110 && c.accounts[1]->tls == TLS_STARTTLS && c.accounts[1]->first_new);
        CHECK(c.accounts[1]->leave == LEAVE_AGE && c.accounts[1]->leave_age == 14 * 86400);
        engine_free(en);
        end(&b);
}

/* The n-th allocation fails, and all after it: an error, never a crash, nothing kept. */
TEST(allocations_fail)
{
        static const char script[] = "mail.smarthost { host = 'h', from = 'a@b.example' } mail.account { host = 'h', user = 'u', password = secret.env 'X' }\n"
                                     "mail.rule('r', { from = '*@x.example' }, print) local c = coroutine.wrap(function() return require 'match' end) c()\n";
        struct engine_options o = { 0 };
        bool ok = false;

        log_set_sink(sink, &(struct bench){ 0 });
        for (size_t n = 1; !ok && n < 100000; n = n < 200 ? n + 1 : n + 13) {
                struct err e = { 0 };
                struct run_config c = { 0 };
                struct engine *en;

                mem_fail_at(n);
                en = engine_new(&o, &e);
                ok = en && engine_load_code(en, STR(script), "-e", &e) && engine_config(en, &c, &e);
                mem_fail_at(0);
                CHECK(ok || e.code != ERR_NONE);
                engine_free(en);
        }
        log_set_sink(NULL, NULL);
        CHECK(ok);
}

TEST_MAIN
