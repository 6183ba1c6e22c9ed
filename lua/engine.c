#include "lua/engine.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/sys.h"
#include "lua/deadline.h"
#include "lua/open.h"
#include "lua/state.h"

enum { ENGINE_ARENA_MAX = 64 << 20 };

/* Registry: the function that runs the rules, and the one that runs what on_finish left. */
static const char key_run, key_finish;

/* Memory */

/* The cap holds for what a script makes grow; giving back always works. */
static void *allocate(void *ud, void *p, size_t old, size_t want)
{
        struct engine *en = ud;
        void *q;

        if (!p)
                old = 0;
        if (want == 0) {
                mem_free(p);
                en->heap -= old;
                return NULL;
        }
        if (want > old && en->limits.heap && en->heap - old + want > en->limits.heap) {
                en->heap_over = true;
                return NULL;
        }
        q = mem_resize(p, want);
        if (!q && want <= old)
                q = p; /* Lua counts on shrinking */
        if (q)
                en->heap += want - old;
        return q;
}

/* The gate */

struct call {
        lua_CFunction f;
        void *arg;
};

static int with_traceback(lua_State *L)
{
        if (lua_type(L, 1) != LUA_TSTRING)
                luaL_tolstring(L, 1, NULL);
        luaL_traceback(L, L, NULL, 1);
        lua_setfield(L, LUA_REGISTRYINDEX, "mailmill.traceback");
        return 1;
}

static bool gate(struct engine *en, lua_CFunction f, void *arg, lua_CFunction handler, struct err *e)
{
        lua_State *L = en->L;
        int top = lua_gettop(L), status;
        size_t n;
        const char *text;

        en->heap_over = false;
        if (!lua_checkstack(L, 8))
                return err_nomem(e);
        if (handler)
                lua_pushcfunction(L, handler);
        lua_pushcfunction(L, f);
        lua_pushlightuserdata(L, arg);
        status = lua_pcall(L, 1, 0, handler ? top + 1 : 0);
        if (status == LUA_OK) {
                lua_settop(L, top);
                return true;
        }
        text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
        if (status == LUA_ERRMEM)
                err_set(e, en->heap_over ? ERR_LIMIT : ERR_NOMEM, en->heap_over ? "the script needs more than %llu bytes of memory (mail.limits { heap = … })"
                        : "out of memory (the script holds %llu bytes)", (unsigned long long)(en->heap_over ? en->limits.heap : en->heap));
        else
                err_set(e, ERR_SCRIPT, "%.*s", STR_FMT(text ? str_make(text, n) : STR("an error that is no text")));
        lua_settop(L, top);
        return false;
}

bool engine_call(struct engine *en, lua_CFunction f, void *arg, struct err *e)
{
        return gate(en, f, arg, NULL, e);
}

/* What the files share */

struct plan *state_plan(lua_State *L, const char *what)
{
        struct plan *p = face_current(L);

        if (!p)
                luaL_error(L, "%s: only while a message is decided, not at the top of a script", what);
        return p;
}

const struct run_config *state_config(const struct plan *p)
{
        return run_config_of(p->run);
}

void *state_alloc(lua_State *L, struct arena *a, size_t n)
{
        void *p = arena_alloc(a, n);

        if (!p)
                luaL_error(L, "out of memory, or the plan of this message has become too large");
        return p;
}

struct str state_keep(lua_State *L, struct arena *a, struct str s)
{
        struct str kept = s.n ? arena_str(a, s) : STR("");

        if (!kept.p)
                luaL_error(L, "out of memory, or the plan of this message has become too large");
        return kept;
}

const char *state_path(lua_State *L, struct str name)
{
        struct engine *en = engine_of(L);
        const char *home = getenv("HOME");

        options_plain(L, "the path", name);
        if (name.n > 0 && name.p[0] == '~' && (name.n == 1 || name.p[1] == '/')) {
                if (!home || !*home)
                        luaL_error(L, "\"~\" has no meaning here: HOME is not set");
                lua_pushstring(L, home);
                lua_pushlstring(L, name.p + 1, name.n - 1);
                lua_concat(L, 2);
        } else if (name.n > 0 && name.p[0] != '/' && en->dir.n) {
                lua_pushlstring(L, en->dir.p, en->dir.n);
                lua_pushliteral(L, "/");
                lua_pushlstring(L, name.p, name.n);
                lua_concat(L, 3);
        } else {
                lua_pushlstring(L, name.p, name.n);
        }
        return lua_tostring(L, -1);
}

bool state_problem(struct engine *en, struct str text)
{
        struct str kept;

        if (en->problem_n == PROBLEMS_MAX)
                return false;
        kept = arena_str(en->arena, text);
        if (!kept.p)
                return false;
        en->problems[en->problem_n++] = kept;
        return true;
}

void state_complain(lua_State *L, const char *fmt, ...)
{
        struct engine *en = engine_of(L);
        char text[ERR_TEXT_MAX];
        int n = snprintf(text, sizeof text, "%s", en->where);
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
        va_end(ap);
        state_problem(en, str_of(text));
}

/* Opening */

static int open_state(lua_State *L)
{
        static const lua_CFunction open[] = { luaopen_mail, luaopen_secret, luaopen_effects, luaopen_forward, luaopen_pipe, luaopen_store };

        luaL_openlibs(L);
        luaopen_deadline(L);
        face_open(L);
        luaopen_sandbox(L);
        for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
                lua_pushcfunction(L, open[i]);
                lua_call(L, 0, 0);
        }
        /* The rules: the functions that run them stay out of a script's reach. */
        lua_getglobal(L, "require");
        lua_pushliteral(L, "mail.rules");
        lua_call(L, 1, 1);
        lua_getfield(L, -1, "run");
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_run);
        lua_getfield(L, -1, "finish");
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_finish);
        return 0;
}

static int set_arg(lua_State *L)
{
        struct engine *en = engine_of(L);

        lua_newtable(L);
        for (size_t i = 0; i < en->options.arg_n; i++) {
                face_push_str(L, en->options.args[i]);
                lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        lua_setglobal(L, "arg");
        return 0;
}

struct engine *engine_new(const struct engine_options *o, struct err *e)
{
        struct engine *en = mem_zero(sizeof *en);

        if (!en || !(en->arena = arena_new(ENGINE_ARENA_MAX)) || !(en->texts = digest_new())) {
                err_nomem(e);
                engine_free(en);
                return NULL;
        }
        en->options = *o;
        if (en->options.now == 0)
                en->options.now = sys_now();
        en->limits = o->limits.heap ? o->limits : limits_default;
        en->inbox = STR("Inbox");
        en->L = lua_newstate(allocate, en);
        if (!en->L) {
                err_nomem(e);
                engine_free(en);
                return NULL;
        }
        *(struct engine **)lua_getextraspace(en->L) = en;
        if (!gate(en, open_state, NULL, NULL, e) || !gate(en, set_arg, NULL, NULL, e)) {
                err_in(e, "opening the script engine");
                engine_free(en);
                return NULL;
        }
        return en;
}

void engine_free(struct engine *en)
{
        if (!en)
                return;
        en->limits.heap = 0; /* finalizers may need a little */
        if (en->L)
                lua_close(en->L);
        for (size_t i = 0; i < en->account_n; i++)
                secret_unref(en->accounts[i]->password);
        for (size_t i = 0; i < en->host_n; i++)
                secret_unref(en->hosts[i].smtp.password);
        digest_free(en->texts);
        arena_free(en->arena);
        mem_free(en);
}

lua_State *engine_state(struct engine *en)
{
        return en->L;
}

/* Loading */

struct load {
        struct str text;
        const char *chunk;   /* "@name" or "=name" */
        bool action;
};

static int run_chunk(lua_State *L)
{
        struct load *l = lua_touserdata(L, 1);

        if (!sandbox_compile(L, l->text, l->chunk))
                return lua_error(L);
        if (l->action) {
                lua_getglobal(L, "mail");
                lua_getfield(L, -1, "on_message");
                lua_pushvalue(L, -3);
                lua_call(L, 1, 0);
        } else {
                lua_call(L, 0, 0);
        }
        return 0;
}

static void log_script_trouble(struct engine *en, struct err *e)
{
        size_t n;
        const char *trace;

        state_problem(en, str_of(e->text));
        if (lua_getfield(en->L, LUA_REGISTRYINDEX, "mailmill.traceback") == LUA_TSTRING) {
                trace = lua_tolstring(en->L, -1, &n);
                for (struct str rest = str_make(trace, n); rest.n;) {
                        struct str line = str_take_line(&rest);
                        if (line.n && line.p[0] == '\t')
                                log_debug("%.*s", STR_FMT(line));
                }
        }
        lua_pop(en->L, 1);
}

static bool load(struct engine *en, struct load *l, struct err *e)
{
        size_t before = en->problem_n;

        digest_add(en->texts, l->text.p, l->text.n);
        digest_add(en->texts, "\n", 1);
        en->loading = true;
        if (!gate(en, run_chunk, l, with_traceback, e))
                log_script_trouble(en, e);
        en->loading = false;
        if (en->problem_n == before)
                return true;
        if (en->problem_n == before + 1)
                return err_set(e, ERR_SCRIPT, "%.*s", STR_FMT(en->problems[before]));
        return err_set(e, ERR_SCRIPT, "%zu errors in %s; nothing was run", en->problem_n - before, l->chunk + 1);
}

static bool directory_of(struct engine *en, const char *path, struct err *e)
{
        struct str s = str_of(path);
        size_t slash = str_rfind(s, '/');
        char *cwd;

        if (s.p[0] == '/' || slash == s.n) {
                en->dir = slash == s.n ? STR("") : arena_str(en->arena, str_first(s, slash ? slash : 1));
                return en->dir.p || err_nomem(e);
        }
        cwd = getcwd(NULL, 0); /* a script may be found again after a change of directory */
        if (!cwd)
                return err_set(e, ERR_IO, "the working directory can't be found");
        en->dir = arena_printf(en->arena, "%s/%.*s", cwd, STR_FMT(str_first(s, slash)));
        free(cwd);
        return en->dir.p || err_nomem(e);
}

bool engine_load_file(struct engine *en, const char *path, struct err *e)
{
        struct load l = { 0 };
        size_t n;
        bool ok;
        char *text;
        int fd = sys_open(path, O_RDONLY, 0, e);

        if (fd < 0)
                return false;
        text = sys_read_file(fd, SCRIPT_BYTES_MAX, &n, e);
        close(fd);
        if (!text)
                return err_in(e, "%s", path);
        l.text = str_make(text, n);
        l.chunk = arena_printf(en->arena, "@%s", path).p;
        en->script = arena_str(en->arena, str_of(path));
        ok = (l.chunk && en->script.p) || err_nomem(e);
        ok = ok && directory_of(en, path, e) && load(en, &l, e);
        mem_free(text);
        return ok;
}

static bool load_text(struct engine *en, struct str code, const char *name, bool action, struct err *e)
{
        struct load l = { .text = code, .action = action };
        struct buf b = BUF_INIT;
        bool ok;

        if (action) {
                buf_add_str(&b, STR("local m = ... ")); /* on the first line, so that line numbers are the user's */
                buf_add_str(&b, code);
                if (!buf_ok(&b, e))
                        return false;
                l.text = buf_str(&b);
        }
        l.chunk = arena_printf(en->arena, "=%s", name).p;
        en->script = en->dir = STR("");
        ok = l.chunk ? load(en, &l, e) : err_nomem(e);
        buf_free(&b);
        return ok;
}

bool engine_load_code(struct engine *en, struct str code, const char *name, struct err *e)
{
        return load_text(en, code, name, false, e);
}

bool engine_load_action(struct engine *en, struct str code, const char *name, struct err *e)
{
        return load_text(en, code, name, true, e);
}

size_t engine_problem_count(const struct engine *en)
{
        return en->problem_n;
}

struct str engine_problem(const struct engine *en, size_t i)
{
        return i < en->problem_n ? en->problems[i] : STR("");
}

static int count_rules(lua_State *L)
{
        size_t *n = lua_touserdata(L, 1);

        lua_getglobal(L, "require");
        lua_pushliteral(L, "mail.rules");
        lua_call(L, 1, 1);
        lua_getfield(L, -1, "count");
        lua_call(L, 0, 1);
        *n = (size_t)lua_tointeger(L, -1);
        return 0;
}

size_t engine_rule_count(struct engine *en)
{
        size_t n = 0;
        struct err e;

        return gate(en, count_rules, &n, NULL, &e) ? n : 0;
}

/* What a script decides about a run */

static struct str absolute(struct engine *en, struct str path, struct err *e)
{
        struct str out;
        char *cwd;

        if (path.n && path.p[0] == '/')
                return path;
        cwd = getcwd(NULL, 0);
        if (!cwd) {
                err_set(e, ERR_IO, "the working directory can't be found");
                return STR_NONE;
        }
        out = path.n ? arena_printf(en->arena, "%s/%.*s", cwd, STR_FMT(path)) : arena_str(en->arena, str_of(cwd));
        free(cwd);
        if (!out.p)
                err_nomem(e);
        return out;
}

bool engine_config(struct engine *en, struct run_config *c, struct err *e)
{
        c->root = absolute(en, en->root, e);
        if (!c->root.p)
                return false;
        for (size_t i = 0; i < en->account_n; i++) {
                if (!en->own_inbox[i])
                        en->accounts[i]->inbox = en->inbox;
                if (en->accounts[i]->root.n && !(en->accounts[i]->root = absolute(en, en->accounts[i]->root, e)).p)
                        return false;
        }
        for (size_t i = 0; i < en->host_n; i++)
                en->host_list[i] = &en->hosts[i].smtp;
        c->accounts = en->accounts;
        c->account_n = en->account_n;
        c->hosts = en->host_list;
        c->host_n = en->host_n;
        c->inbox = en->inbox;
        c->limits = en->limits;
        c->now = en->options.now;
        return digest_peek(en->texts, c->script_hash) || err_nomem(e);
}

struct found {
        struct engine *en;
        struct str *list;
        size_t n;
};

static bool add_found(void *ctx, struct str path, struct err *e)
{
        struct found *f = ctx;

        if (f->n == SOURCES_MAX)
                return err_set(e, ERR_LIMIT, "more than %d sources", SOURCES_MAX);
        f->list[f->n] = arena_str(f->en->arena, path);
        return f->list[f->n++].p || err_nomem(e);
}

bool engine_sources(struct engine *en, struct run_config *c, struct err *e)
{
        struct found f = { en, arena_alloc(en->arena, SOURCES_MAX * sizeof *f.list), 0 };

        if (!f.list)
                return err_nomem(e);
        for (size_t i = 0; i < en->source_n; i++)
                if (!source_glob(en->sources[i], add_found, &f, e))
                        return err_in(e, "mail.source \"%.*s\"", STR_FMT(en->sources[i]));
        c->archives = f.list;
        c->archive_n = f.n;
        return true;
}

bool engine_declares_sources(const struct engine *en)
{
        return en->account_n > 0 || en->source_n > 0;
}

/* Deciding */

static int take_coroutine(lua_State *L)
{
        struct handler *h = lua_touserdata(L, 1);
        struct engine *en = engine_of(L);

        if (en->spare_n > 0) {
                h->co = en->spare[--en->spare_n].co;
                h->ref = en->spare[en->spare_n].ref;
                return 0;
        }
        h->co = lua_newthread(L);
        h->ref = luaL_ref(L, LUA_REGISTRYINDEX);
        return 0;
}

static void give_coroutine(struct engine *en, struct handler *h)
{
        if (!h->co)
                return;
        if (lua_resetthread(h->co) == LUA_OK && en->spare_n < SPARES_MAX) {
                en->spare[en->spare_n].co = h->co;
                en->spare[en->spare_n++].ref = h->ref;
        } else {
                luaL_unref(en->L, LUA_REGISTRYINDEX, h->ref);
        }
        h->co = NULL;
}

static int handler_end(lua_State *L, int status, lua_KContext plan)
{
        struct plan *p = (struct plan *)plan;

        (void)status;
        if (p->message)
                effects_finish(L, p);
        return 0;
}

/* The bottom of a handler's coroutine: what can raise happens in here. */
static int handler_begin(lua_State *L)
{
        struct plan *p = lua_touserdata(L, 1);
        struct engine *en = engine_of(L);

        lua_settop(L, 0);
        if (p->message) {
                lua_rawgetp(L, LUA_REGISTRYINDEX, &key_run);
                face_push_message(L, p);
        } else {
                lua_rawgetp(L, LUA_REGISTRYINDEX, &key_finish);
                lua_createtable(L, 0, 6);
                lua_pushinteger(L, en->messages), lua_setfield(L, -2, "messages");
                lua_pushinteger(L, en->failed), lua_setfield(L, -2, "failed");
                lua_pushinteger(L, en->delivered), lua_setfield(L, -2, "delivered");
                lua_pushinteger(L, en->saved), lua_setfield(L, -2, "saved");
                lua_pushinteger(L, en->mails), lua_setfield(L, -2, "mails");
                lua_pushinteger(L, en->commands), lua_setfield(L, -2, "commands");
        }
        lua_callk(L, 1, 0, (lua_KContext)p, handler_end);
        return handler_end(L, LUA_OK, (lua_KContext)p);
}

/* A nil error is nearly always a field that this message lacks: the text says how to write it. Empty when it says nothing of the kind. */
static void hint(const char *text, char *out, size_t n)
{
        static const char *const maybe[] = { "list_id", "in_reply_to", "message_id", "sender", "html", "envelope_to", "account", "uid", "name" };
        const char *field = strstr(text, "(field '");

        out[0] = '\0';
        if (!strstr(text, "nil value") && !strstr(text, "got nil"))
                return;
        for (size_t i = 0; field && i < sizeof maybe / sizeof *maybe; i++)
                if (str_eq(str_make(field + 8, strcspn(field + 8, "'")), str_of(maybe[i])))
                        snprintf(out, n, " (what a message may lack is nil: write %s.%s or \"\")", i < 8 ? "m" : "part", maybe[i]);
        if (!field && !strstr(text, "(global '") && !strstr(text, "(method '") && !strstr(text, "(local '") && !strstr(text, "(upvalue '"))
                snprintf(out, n, " (a header field that is absent is nil: write m:header(\"X-Spam\", \"\"))");
}

struct failure {
        struct engine *en;
        struct plan *plan;
        struct handler *h;
        int status;
        struct err *e;
};

/* Frames of ours say nothing to who wrote the script. */
static bool is_ours(struct str line)
{
        line = str_trim(line);
        return str_starts(line, STR("(mail.")) || str_starts(line, STR("[C]: in ?")) || str_starts(line, STR("(...tail calls...)"));
}

static void keep_traceback(struct failure *f, struct str text)
{
        struct buf b = BUF_INIT;

        while (text.n) {
                struct str line = str_take_line(&text);
                if (is_ours(line))
                        continue;
                buf_add_str(&b, line);
                buf_add_char(&b, '\n');
        }
        if (!b.failed && b.n)
                f->h->traceback = arena_str(f->plan->arena, str_make(b.p, b.n - 1));
        buf_free(&b);
}

static int describe(lua_State *L)
{
        struct failure *f = lua_touserdata(L, 1);
        lua_State *co = f->h->co;
        const char *text;
        char more[256];
        size_t n;

        lua_xmove(co, L, 1);
        text = luaL_tolstring(L, -1, &n);
        hint(text, more, sizeof more);
        err_set(f->e, ERR_SCRIPT, "%.*s%s", STR_FMT(str_first(str_make(text, n), 700)), more);
        luaL_traceback(L, co, NULL, 0);
        text = lua_tolstring(L, -1, &n);
        keep_traceback(f, str_make(text, n));
        return 0;
}

static void fail(struct failure *f)
{
        struct engine *en = f->en;
        bool passed = deadline_passed(), over = en->heap_over;
        lua_State *before;
        struct err ignored;

        if (f->status == LUA_ERRMEM) {
                err_set(f->e, over ? ERR_LIMIT : ERR_NOMEM, over ? "the script needs more than %llu bytes of memory (mail.limits { heap = … })"
                        : "out of memory (the script holds %llu bytes)", (unsigned long long)(over ? en->limits.heap : en->heap));
                lua_gc(en->L, LUA_GCCOLLECT, 0);
                return;
        }
        err_set(f->e, ERR_SCRIPT, "the handler failed");
        before = deadline_enter(en->L); /* an error object's __tostring is the script's code too */
        if (!gate(en, describe, f, NULL, &ignored))
                log_debug("describing an error: %s", ignored.text);
        deadline_leave(before);
        lua_sethook(en->L, NULL, 0, 0);
        if (passed)
                f->e->code = ERR_TIMEOUT;
}

static void count(struct engine *en, const struct plan *p)
{
        en->messages += p->message != NULL;
        for (const struct effect *f = p->first; f; f = f->next) {
                en->delivered += f->kind == EFFECT_DELIVER;
                en->saved += f->kind == EFFECT_SAVE;
                en->mails += f->kind == EFFECT_MAIL;
                en->commands += f->kind == EFFECT_COMMAND;
        }
}

static int close_message(lua_State *L)
{
        face_close_message(L, lua_touserdata(L, 1));
        return 0;
}

/* From here on the message is the pool's: a script that kept it finds it closed. */
static void close_plan(struct engine *en, struct plan *p)
{
        struct err e;

        if (p->message && !gate(en, close_message, p, NULL, &e))
                log_error("closing a message: %s", e.text);
}

static enum verdict go_on(struct engine *en, struct plan *p, struct handler *h, int nargs, struct err *e)
{
        struct failure f = { en, p, h, LUA_OK, e };
        enum verdict v;
        int nres;

        if (!deadline_begin(h->co, en->limits.cpu, h->ticks, e))
                return RUN_FAIL;
        en->heap_over = false;
        face_set_current(en->L, p);
        h->waiting = false;
        f.status = lua_resume(h->co, en->L, nargs, &nres);
        if (f.status == LUA_YIELD && h->waiting) {
                v = RUN_WAIT;
        } else if (f.status == LUA_YIELD) {
                err_set(e, ERR_SCRIPT, "the handler yielded outside of a coroutine of its own");
                v = RUN_FAIL;
        } else if (f.status != LUA_OK) {
                fail(&f);
                v = RUN_FAIL;
        } else {
                count(en, p);
                v = RUN_DONE;
        }
        if (v != RUN_WAIT)
                give_coroutine(en, h);
        en->failed += v == RUN_FAIL;
        h->ticks = deadline_end();
        face_set_current(en->L, NULL);
        if (v != RUN_WAIT)
                close_plan(en, p);
        return v;
}

static enum verdict decide(void *ctx, struct plan *p, struct err *e)
{
        struct engine *en = ctx;
        struct handler *h = arena_alloc(p->arena, sizeof *h);

        if (!h) {
                err_nomem(e);
                return RUN_FAIL;
        }
        p->script = h;
        if (!gate(en, take_coroutine, h, NULL, e))
                return RUN_FAIL;
        lua_pushcfunction(h->co, handler_begin);
        lua_pushlightuserdata(h->co, p);
        return go_on(en, p, h, 1, e);
}

static enum verdict resume(void *ctx, struct plan *p, struct err *e)
{
        return go_on(ctx, p, p->script, 0, e);
}

static void release(void *ctx, struct plan *p)
{
        struct engine *en = ctx;
        struct handler *h = p->script;
        struct err e;

        if (h && h->co && deadline_begin(h->co, en->limits.cpu, h->ticks, &e)) { /* __close may run */
                give_coroutine(en, h);
                deadline_end();
        }
        close_plan(en, p);
}

struct script engine_script(struct engine *en)
{
        return (struct script){ en, decide, resume, release, decide };
}

struct str engine_traceback(const struct plan *p)
{
        const struct handler *h = p->script;

        return h ? h->traceback : STR_NONE;
}
