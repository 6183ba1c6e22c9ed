/* Random programs over the public API, run on sample mail in a dry run: bytes choose the words, and are the text in between.
 *
 * Whatever the program does: no crash and nothing kept (address sanitizer); each message is decided or held with a reason; every plan is
 * well-formed; afterwards the state is as large as before. */
#include <sys/stat.h>
#include <unistd.h>

#include "core/ledger.h"
#include "core/log.h"
#include "lua/engine.h"
#include "tests/fuzz/fuzz.h"

enum { DEEP = 5, PROGRAM_MAX = 6000, MAILS = 4, RUNS = 2, KEPT_MAX = 512 << 10 };

/* Where a word is chosen by a letter after $: S text, N number, M message, P part, X anything, L list, F filter, T template, A address,
 * R pattern, K a field's name, G a global, B statements. */
static const char *const statements[] = {
        "$G = $X", "$G = $X", "$G = $M.$K", "$G = $P.$K", "pcall(function() $B end)", "pcall(function() $B end)", "$B $B", "if $X then $B else $B end",
        "for _, x in ipairs($L) do $G = x $B end", "for x in $L do $G = x $B break end", "for i = 1, 3 do $G = $L[i] $B end",
        "for k, v in pairs($X) do $G = v $B break end", "coroutine.wrap(function() $B end)()", "$G = coroutine.wrap(function() $B coroutine.yield($X) $B end) $G()",
        "$M:deliver($T)", "$M:deliver($T, { flags = $S, detach = $X })", "$M:deliver($T, { headers = { [$S] = $S, ['X-A'] = false } })", "$M:deliver($T, { format = 'mbox' })",
        "$G = $P:save($T)", "$G = $P:save($T, { on_conflict = $S })", "$M:save($T, { on_conflict = 'replace' })", "$M:discard()", "$M:stop()", "$M:leave_on_server($X)",
        "$M:forward($A)", "$M:forward($A, { as = $S, subject = $S, text = $S })", "$P:forward($A)", "$M:redirect($A)", "$M:reply { text = $S, subject = $S, all = $X }",
        "mail.send { to = $A, subject = $S, text = $S }", "mail.send { to = { $A, $A }, text = $S, attach = { $P } }", "$M:run_after { $S, $S }", "$M.vars.$K = $X", "$M.vars = { a = $X }",
        "$M.vars[$X] = $X", "mail.store($S)[$S] = $X", "mail.store 's'.$K = $X", "for k, v in pairs(mail.store($S)) do $G = k end", "$G = mail.seen($X, $S)", "error($X)", "error($X, 2)",
        "collectgarbage()", "collectgarbage 'step'", "for l in $P:lines() do $G = l $B break end", "for l in $P:lines() do $G = l end", "local r <close> = $P:reader() $G = r:read($N) $B",
        "$G = $P:reader() $G = $G:read($N)", "$X:close()", "$G = $X:read($N)", "$G = setmetatable({ $X }, { __gc = function(o) $G = o[1] $B end })",
        "local c <close> = setmetatable({}, { __close = function() $B end }) $B", "table.sort($X, function(a, b) $B return $X end)", "$X.$K = $X", "$X[$X] = $X", "$G = $X($X)",
        "$G = $X:$K($X)", "xpcall(function() $B end, function(e) $G = e $B end)", "log.info($X, $X)", "rawset($X, $X, $X)", "setmetatable($X, { __index = $X, __len = $X })",
        "string.$K = nil", "$G = ('x'):rep($N)", "m = $X", "do local m = $M $B end", "part = $P", "do return end", "do return $X end",
};
static const char *const anything[] = {
        "$S", "$N", "$M", "$P", "$L", "$A", "$G", "$G", "$G", "nil", "true", "false", "{}", "{ $X, $X }", "{ $K = $X }", "$M.$K", "$P.$K", "$X.$K", "$X[$X]", "#$X", "$X == $X", "$X < $X", "$X .. $X",
        "-$X", "$X + $X", "not $X", "tostring($X)", "function(...) $B return ... end", "$M:header($S)", "$M:header($S, $X)", "$M:matches($F)", "$A.user", "$A.domain", "($S):contains($S)",
        "json.encode($X)", "json.decode($S)", "json.array($X)", "re.match($S, $R)", "re($R)", "re($R):test($S)", "csv.parse($S)", "csv.read($S)", "secret.env($S)", "mail.has($S)", "mail.version", "os.date($S, $N)", "os.time()",
        "type($X)", "next($X)", "getmetatable($X)", "select('#', $X)", "tonumber($X)", "mail.store($S)", "mail.store($S)[$S]", "mail.any { $F }", "mail.none { $F, $X }", "io.open($S)",
        "utf8.len($S)", "table.concat($L, $S)", "table.unpack($L)", "load($S)", "require($S)", "coroutine.running()", "$P:verify()", "$P:pipe { 'true' }", "m", "part", "arg", "_G", "math.huge", "($S):upper()", "($S):format($X)", "($S):rep($N)",
};
static const char *const messages[] = { "m", "m", "m", "$P.message", "$G", "$P" };
static const char *const parts[] = { "m:parts()[1]", "m:parts()[2]", "m:parts()[#m:parts()]", "m:attachments()[1]", "m:attachments { unpack = true }[1]", "$G", "m", "part", "m.alternative", "$L[$N]" };
static const char *const lists[] = { "m:parts()", "m:parts($F)", "m:attachments()", "m:attachments($F)", "m:attachments { unpack = true }", "m.to", "m.cc", "m.references", "m.defects", "m:headers($S)",
                                     "m:addresses 'to'", "m:addresses($S)", "$P:parts($F)", "$P.names", "$G", "{ $X, $X, $X }" };
static const char *const filters[] = { "{}", "nil", "$S", "{ name = $S }", "{ from = $A }", "{ subject = $S, to = $A }", "{ subject = re($R) }", "{ type = $S, larger = $N }", "{ header = { [$S] = $S, Subject = '*' } }",
                                       "{ attachment = $F }", "{ newer = $S, older = $N }", "mail.any { $F, $F }", "mail.none { $F }", "{ mail.any { $F } }", "function(x) $B return $X end", "{ $K = $X }", "{ size = $X }", "{ date = $S }", "$G",
                                       "{ unpack = true, name = $S }", "{ flags = $S }", "{ list_id = false, defect = $S }" };
static const char *const templates[] = { "'A'", "'{from.domain}/{date:%Y}/{subject|none}'", "'{vars.x} {name}'", "'{vars.$K}/{$K}'", "'{index}.{ext} {stem} {detected.ext}'", "'{$K:%d}'", "'{folder}/x'", "'{{}}{'", "'../{name}'", "$S", "$X" };
static const char *const addresses[] = { "'a@b.example'", "'*@x.example'", "m.from", "m.to[1]", "'Ann <ann@x.example>'", "m.reply_to", "$S", "{ $A, $A }", "$G" };
static const char *const patterns[] = { "'a+'", "'(?i)(\\\\w+)\\\\s*(x)?'", "'^x?\\\\z'", "'\\\\bfirst|second'", "'(?<n>.)(?=.)'", "'\\\\G.'", "'(a|b)*c'", "$S" };
static const char *const numbers[] = { "0", "1", "2", "3", "-1", "100", "65536", "1.5", "1e300", "math.maxinteger", "math.mininteger", "0/0", "7" };
static const char *const keys[] = { "subject", "from", "from_name", "to", "cc", "date", "received", "size", "uid", "account", "source", "folder", "flags", "text", "html", "defects", "vars", "raw", "sha256", "signature", "encrypted",
                                    "references", "message_id", "list_id", "envelope_to", "parts", "attachments", "headers", "deliver", "save", "reader", "lines", "path", "type", "detected", "charset", "disposition", "name", "names",
                                    "alternative", "id", "encoded_size", "content", "attached", "reason", "member", "message", "pipe", "verify", "user", "detail", "domain", "addr", "group", "x", "n", "sub", "find", "gsub", "len", "__index",
                                    "__gc", "__close", "nosuch" };

struct program {
        const uint8_t *at, *end;
        struct buf out;
        int deep;
};

static unsigned take(struct program *p)
{
        return p->at < p->end ? *p->at++ : 0;
}

/* Text from the input itself, as a Lua literal. */
static void text(struct program *p)
{
        unsigned n = take(p) % 24;

        buf_add_char(&p->out, '"');
        for (; n > 0 && p->at < p->end; n--)
                buf_printf(&p->out, "\\%03u", take(p));
        buf_add_char(&p->out, '"');
}

static void expand(struct program *p, const char *form);

#define ONE_OF(p, table) expand((p), (table)[take(p) % (sizeof(table) / sizeof *(table))])

static void hole(struct program *p, char what)
{
        switch (what) {
        case 'S': text(p); break;
        case 'N': ONE_OF(p, numbers); break;
        case 'M': ONE_OF(p, messages); break;
        case 'P': ONE_OF(p, parts); break;
        case 'X': ONE_OF(p, anything); break;
        case 'L': ONE_OF(p, lists); break;
        case 'F': ONE_OF(p, filters); break;
        case 'T': ONE_OF(p, templates); break;
        case 'A': ONE_OF(p, addresses); break;
        case 'R': ONE_OF(p, patterns); break;
        case 'K': ONE_OF(p, keys); break;
        case 'G': buf_printf(&p->out, "g%u", take(p) % 4); break;
        case 'B': buf_add_str(&p->out, STR("; ")), ONE_OF(p, statements), buf_add_str(&p->out, STR("; ")); break;
        default: abort();
        }
}

/* Too deep, or the input is used up: a word that ends it. */
static void leaf(struct program *p, char what)
{
        static const char ends[][2][8] = { { "S", "'s'" }, { "N", "1" }, { "M", "m" }, { "P", "m" }, { "X", "g1" }, { "L", "{}" }, { "F", "{}" },
                                           { "T", "'A'" }, { "A", "'a@b.c'" }, { "R", "'a'" }, { "K", "x" }, { "G", "g1" }, { "B", "" } };

        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
                if (ends[i][0][0] == what)
                        buf_add_str(&p->out, str_of(ends[i][1]));
}

static bool is_expression(char what)
{
        return strchr("MPXLFA", what) != NULL;
}

static void expand(struct program *p, const char *form)
{
        p->deep++;
        for (; *form; form++) {
                if (*form != '$') {
                        buf_add_char(&p->out, *form);
                        continue;
                }
                form++;
                if (is_expression(*form))
                        buf_add_char(&p->out, '(');
                if (p->deep > DEEP || p->at >= p->end || p->out.n > PROGRAM_MAX)
                        leaf(p, *form);
                else
                        hole(p, *form);
                if (is_expression(*form))
                        buf_add_char(&p->out, ')');
        }
        p->deep--;
}

static void write_handler(struct program *p, const char *head)
{
        buf_add_str(&p->out, str_of(head));
        for (unsigned n = 1 + take(p) % 6; n > 0; n--) {
                buf_add_str(&p->out, STR("\n  do "));
                ONE_OF(p, statements);
                buf_add_str(&p->out, STR(" end;"));
        }
        buf_add_str(&p->out, STR("\nend)\n"));
}

static struct buf write_program(struct str in)
{
        struct program p = { (const uint8_t *)in.p, (const uint8_t *)in.p + in.n, BUF_INIT, 0 };

        buf_add_str(&p.out, STR("mail.limits { cpu = 1, heap = '16 MiB' }\nmail.smarthost { host = 'localhost', from = 'me@y.example' }\n"));
        if (take(&p) % 2) {
                buf_add_str(&p.out, STR("mail.rule('r', function(m) return m:matches("));
                ONE_OF(&p, filters);
                write_handler(&p, ") end, function(m)");
        }
        write_handler(&p, "mail.on_message(function(m)");
        if (take(&p) % 2)
                write_handler(&p, "mail.on_finish(function(m)");
        if (p.out.failed)
                abort();
        return p.out;
}

/* The world, made once: an mbox of MAILS messages. */
static char dir[] = "/tmp/mailmill-fuzz-XXXXXX", box[64], root[64], state[64];

static const char sample[] =
        "From a@x.example Mon Nov 23 05:41:00 2026\n"
        "From: Ann <ann+tag@x.example>\nTo: me@y.example, \"B; B\" <b@y.example>\nCc: undisclosed: c@z.example;\nSubject: first\nMessage-ID: <1@x.example>\n"
        "Date: Mon, 23 Nov 2026 05:41:00 +0000\nReferences: <a@b> <c@d>\nList-Id: <l.x.example>\n\none\ntwo\n\n"
        "From b@x.example Mon Nov 23 05:42:00 2026\n"
        "From: =?utf-8?q?B=C3=B6b?= <bob@Bank.Example>\nTo: me@y.example\nSubject: second\nDate: Tue, 24 Nov 2026 05:41:00 +0000\n"
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        "--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\nContent-Type: text/plain; charset=iso-8859-1\n\ntw\xf6\n"
        "--c\nContent-Type: text/html\n\n<p>two <img src=\"cid:i\"></p>\n--c--\n"
        "--b\nContent-Type: application/pdf; name=\"../bill.pdf\"\nContent-Disposition: attachment; filename=\"../bill.pdf\"\n"
        "Content-Transfer-Encoding: base64\n\nJVBERi0xLjQK\n"
        "--b\nContent-Type: message/rfc822\n\nSubject: inner\nFrom: i@x.example\n\ninner text\n--b--\n\n"
        "From c@x.example Mon Nov 23 05:43:00 2026\n"
        "From: carol@x.example\nSubject: third\nX-Mailmill-Action: 00\n\nbegin 644 a.txt\n#86)C\n`\nend\nthree\n\n"
        "From d@x.example Mon Nov 23 05:44:00 2026\nContent-Type: multipart/mixed; boundary=d\n\n"
        "--d\nContent-Type: application/octet-stream; name=x.gz\nContent-Transfer-Encoding: base64\n\nH4sIAAAAAAAAA0tMSk4BAMJBJDUEAAAA\n";

static void silent(void *ctx, enum log_level level, struct str line)
{
}

static void remove_world(void)
{
        unlink(box);
        rmdir(root);
        rmdir(state);
        rmdir(dir);
}

static void make_world(void)
{
        FILE *f;

        if (box[0])
                return;
        log_set_sink(silent, NULL);
        if (!mkdtemp(dir))
                abort();
        snprintf(box, sizeof box, "%s/in.mbox", dir);
        snprintf(root, sizeof root, "%s/root", dir);
        snprintf(state, sizeof state, "%s/state", dir);
        f = fopen(box, "w");
        if (!f || fputs(sample, f) < 0 || fclose(f) != 0)
                abort();
        atexit(remove_world);
}

struct seen {
        unsigned decided, held;
};

static void check_effect(const struct effect *f, struct arena *a)
{
        struct buf json = BUF_INIT;
        struct str rest = f->path, words = effect_words(f, a);

        MUST(words.n > 0 && (f->kind == EFFECT_COMMAND || without_controls(words, ""))); /* an argv is what the script says; the report escapes */
        MUST(effect_json(f, &json) && json.n > 2 && json.p[0] == '{');
        buf_free(&json);
        if (f->kind == EFFECT_SAVE)
                MUST(f->part && rest.n > 0 && rest.p[0] != '/');
        while (rest.n > 0) {
                struct str component = str_take(&rest, '/');

                MUST(!str_eq(component, STR("..")) && !str_eq(component, STR(".")) && component.n <= 255);
                MUST(without_controls(component, ""));
        }
        MUST(f->kind != EFFECT_MAIL || f->recipient_n > 0);
        MUST(f->kind != EFFECT_COMMAND || f->argc > 0);
}

static void heard(void *ctx, const struct run_event *ev)
{
        struct seen *s = ctx;
        struct arena *a = fuzz_arena();
        unsigned n = 0;

        if (ev->kind == EVENT_HELD) {
                MUST(ev->error->code != ERR_NONE && ev->error->text[0]);
                s->held += ev->plan && ev->plan->message;
        }
        for (const struct effect *f = ev->kind == EVENT_DECIDED ? ev->plan->first : NULL; f; f = f->next) {
                MUST(f->place == ++n);
                check_effect(f, a);
        }
        s->decided += ev->kind == EVENT_DECIDED && ev->plan->message;
        arena_free(a);
}

static void decide_all(struct engine *en)
{
        struct seen seen = { 0 };
        struct run_hooks hooks = { .ctx = &seen, .event = heard };
        struct run_config c = { .dry = true };
        struct run_result res = { 0 };
        struct script s = engine_script(en);
        struct str archive = str_of(box);
        struct ledger *l;
        struct err e;

        if (!engine_config(en, &c, &e))
                abort();
        c.archives = &archive;
        c.archive_n = 1;
        c.root = str_of(root);
        l = ledger_open(state, true, &e);
        MUST(l && run_all(&c, &s, &hooks, l, &res, &e) && run_over(l, &res, true, &e));
        MUST(seen.decided + seen.held == MAILS && res.held >= seen.held && res.messages >= seen.decided);
        ledger_close(l);
}

/* What a program keeps it keeps in these; without them the state is as it was, apart from coroutines and texts that are kept for the next. */
static int forget(lua_State *L)
{
        static const char *const names[] = { "g0", "g1", "g2", "g3", "m", "part" };

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                lua_pushnil(L);
                lua_setglobal(L, names[i]);
        }
        for (int i = 0; i < 4; i++) /* finalizers may make what only the next collection takes */
                lua_gc(L, LUA_GCCOLLECT);
        *(size_t *)lua_touserdata(L, 1) = (size_t)lua_gc(L, LUA_GCCOUNT) << 10;
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct engine_options o = { .now = 1795412345 };
        struct buf program = write_program(fuzz_str(data, size));
        struct engine *en;
        struct err e;
        size_t after[RUNS];

        make_world();
        if (getenv("SHOW"))
                fprintf(stderr, "%.*s\n", STR_FMT(buf_str(&program)));
        en = engine_new(&o, &e);
        MUST(en);
        if (!engine_load_code(en, buf_str(&program), "fuzz", &e)) {
                if (getenv("SHOW"))
                        fprintf(stderr, "not loaded: %s\n", e.text);
        } else {
                for (int i = 0; i < RUNS; i++) {
                        decide_all(en);
                        if (!engine_call(en, forget, &after[i], &e))
                                after[i] = 0; /* a finalizer of the program's failed there */
                }
                MUST(!after[0] || after[RUNS - 1] <= after[0] + KEPT_MAX);
        }
        engine_free(en);
        buf_free(&program);
        return 0;
}
