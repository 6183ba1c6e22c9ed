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

void state_log_lines(enum log_level level, struct str text)
{
        while (text.n)
                log_line(level, str_take_line(&text));
}

static int with_traceback(lua_State *L)
{
        struct str trace;

        if (lua_type(L, 1) != LUA_TSTRING)
                luaL_tolstring(L, 1, NULL);
        luaL_traceback(L, L, NULL, 1);
        trace.p = lua_tolstring(L, -1, &trace.n);
        state_log_lines(LOG_DEBUG, trace);
        lua_pop(L, 1);
        return 1;
}

static bool pass(struct engine *en, lua_CFunction f, void *arg, lua_CFunction handler, struct err *e)
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

/* Wherever Lua runs its time is counted: also at the top of a script, and where a collection between two messages calls a finalizer. */
static bool gate(struct engine *en, lua_CFunction f, void *arg, lua_CFunction handler, struct err *e)
{
        bool ok;

        if (deadline_running())
                return pass(en, f, arg, handler, e);
        if (!deadline_begin(en->L, en->limits.cpu, 0, e))
                return false;
        ok = pass(en, f, arg, handler, e);
        deadline_end();
        return ok;
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
        static const lua_CFunction open[] = { luaopen_mail, luaopen_secret, luaopen_effects, luaopen_forward, luaopen_pipe, luaopen_verify, luaopen_store };

        luaL_openlibs(L);
        luaopen_deadline(L);
        face_open(L);
        luaopen_sandbox(L);
        for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
                lua_pushcfunction(L, open[i]);
                lua_call(L, 0, 0);
        }
        /* The rules: the functions that run them stay out of a script's reach. */
        sandbox_require(L, "mail.rules");
        lua_getfield(L, -1, "run");
        lua_setfield(L, LUA_REGISTRYINDEX, REGISTRY_RUN);
        lua_getfield(L, -1, "finish");
        lua_setfield(L, LUA_REGISTRYINDEX, REGISTRY_FINISH);
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

static void close_state(struct engine *en)
{
        struct err ignored;
        bool timed = deadline_begin(en->L, en->limits.cpu, 0, &ignored); /* the script's finalizers run, too */

        en->limits.heap = 0; /* which may need a little */
        lua_close(en->L);
        if (timed)
                deadline_forget();
        log_end();
}

void engine_free(struct engine *en)
{
        if (!en)
                return;
        if (en->L)
                close_state(en);
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
        lua_settop(L, 0);
        if (engine_of(L)->finalizers) /* of what the top of a script left behind: no message pays for it */
                lua_gc(L, LUA_GCCOLLECT, 0);
        engine_of(L)->finalizers = false;
        return 0;
}

static bool load(struct engine *en, struct load *l, struct err *e)
{
        size_t before = en->problem_n;

        digest_add(en->texts, l->text.p, l->text.n);
        digest_add(en->texts, "\n", 1);
        en->loading = true;
        if (!gate(en, run_chunk, l, with_traceback, e))
                state_problem(en, str_of(e->text));
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
        char *text = sandbox_read(path, &n, e);

        if (!text)
                return false;
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

        sandbox_require(L, "mail.rules");
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
        for (size_t i = 0; i < en->more_root_n; i++)
                if (!(en->more_roots[i] = absolute(en, en->more_roots[i], e)).p)
                        return false;
        for (size_t i = 0; i < en->host_n; i++)
                en->host_list[i] = &en->hosts[i].smtp;
        c->accounts = en->accounts;
        c->account_n = en->account_n;
        c->hosts = en->host_list;
        c->host_n = en->host_n;
        c->more_roots = en->more_roots;
        c->more_root_n = en->more_root_n;
        c->caseless = en->caseless;
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
