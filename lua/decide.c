/* Deciding: a coroutine a message, its failures, its end. */
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "lua/deadline.h"
#include "lua/open.h"
#include "lua/state.h"

/* May allocate, so it is done behind the gate; taking it back does not. */
static int set_current(lua_State *L)
{
        face_set_current(L, lua_touserdata(L, 1));
        return 0;
}

static int take_coroutine(lua_State *L)
{
        struct plan *p = lua_touserdata(L, 1);
        struct handler *h = p->script;
        struct engine *en = engine_of(L);

        face_set_current(L, p);
        if (en->spare_n > 0) {
                h->co = en->spare[--en->spare_n].co;
                h->ref = en->spare[en->spare_n].ref;
                return 0;
        }
        h->co = lua_newthread(L);
        deadline_own(L);
        h->ref = luaL_ref(L, LUA_REGISTRYINDEX);
        return 0;
}

static void give_coroutine(struct engine *en, struct handler *h)
{
        if (!h->co)
                return;
        if (deadline_close(h->co) == LUA_OK && en->spare_n < SPARES_MAX) {
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
                lua_getfield(L, LUA_REGISTRYINDEX, REGISTRY_RUN);
                face_push_message(L, p);
        } else {
                lua_getfield(L, LUA_REGISTRYINDEX, REGISTRY_FINISH);
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

/* What stands between quotes behind a lead, "" without it. */
static struct str quoted(const char *text, const char *lead)
{
        const char *at = strstr(text, lead);

        return at ? str_make(at + strlen(lead), strcspn(at + strlen(lead), "'")) : STR("");
}

/* m.attachments for m:attachments(), m.deliver("X") for m:deliver "X". */
static void method_hint(const char *text, char *out, size_t n)
{
        static const char *const lists[] = { "attachments", "parts", "lines", "headers", "addresses" };
        struct str field = quoted(text, "(field '"), f = quoted(text, "bad argument #1 to '");

        for (size_t i = 0; strstr(text, "a function value") && i < sizeof lists / sizeof *lists; i++)
                if (str_eq(field, str_of(lists[i])))
                        snprintf(out, n, " (%s is a method: write m:%s())", lists[i], lists[i]);
        if (f.n == 0 || !strstr(text, "' (message or part expected, got"))
                return;
        if (str_eq(f, STR("for iterator")))
                snprintf(out, n, " (a method must be called: for part in m:attachments() do)");
        else
                snprintf(out, n, " (a method is called with a colon: m:%.*s(…))", STR_FMT(f));
}

/* A nil error is nearly always a field that this message lacks: the text says how to write it. Empty when it says nothing of the kind. */
static void hint(const char *text, char *out, size_t n)
{
        static const char *const maybe[] = { "list_id", "in_reply_to", "message_id", "sender", "html", "envelope_to", "account", "uid", "name" };
        struct str field = quoted(text, "(field '");

        out[0] = '\0';
        method_hint(text, out, n);
        if (out[0] || (!strstr(text, "nil value") && !strstr(text, "got nil")))
                return;
        for (size_t i = 0; i < sizeof maybe / sizeof *maybe; i++)
                if (str_eq(field, str_of(maybe[i])))
                        snprintf(out, n, " (what a message may lack is nil: write %s.%s or \"\")", i < 8 ? "m" : "part", maybe[i]);
        if (!field.n && !strstr(text, "(global '") && !strstr(text, "(method '") && !strstr(text, "(local '") && !strstr(text, "(upvalue '"))
                snprintf(out, n, " (a header field that is absent is nil: write m:header(\"X-Spam\", \"\"))");
}

enum { CALLS_DEEP = 10000 };

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

/* The handler failed because the machine did (face_raise): then it is no attempt of the script's. */
static void recognise_machine(lua_State *L, struct str text, struct err *e)
{
        struct str why;

        if (lua_getfield(L, LUA_REGISTRYINDEX, "mailmill.machine.text") == LUA_TSTRING) {
                why = face_check_str(L, -1);
                lua_getfield(L, LUA_REGISTRYINDEX, "mailmill.machine");
                if (str_find_str(text, why) < text.n)
                        e->code = (enum err_code)lua_tointeger(L, -1);
                lua_pop(L, 1);
                lua_pushnil(L);
                lua_setfield(L, LUA_REGISTRYINDEX, "mailmill.machine.text");
        }
        lua_pop(L, 1);
}

/* Stopped by a yield: there is no error object. */
static void push_error(lua_State *L, const struct failure *f)
{
        char text[80 + DEADLINE_TEXT_MAX];

        if (f->status != LUA_YIELD) {
                lua_xmove(f->h->co, L, 1);
                return;
        }
        deadline_text(text, sizeof text);
        lua_pushstring(L, text);
}

static int describe(lua_State *L)
{
        struct failure *f = lua_touserdata(L, 1);
        lua_State *co = f->h->co;
        const char *text;
        char more[256];
        size_t n;

        push_error(L, f);
        if (lua_type(L, -1) == LUA_TTABLE && luaL_getmetafield(L, -1, "__tostring") == LUA_TNIL)
                lua_pushliteral(L, "error() was called with a table that is no text");
        else
                lua_settop(L, 2);
        text = luaL_tolstring(L, -1, &n);
        hint(text, more, sizeof more);
        err_set(f->e, ERR_SCRIPT, "%.*s%s", STR_FMT(n ? str_first(str_make(text, n), 700) : STR("error() was called with an empty text")), more);
        recognise_machine(L, str_make(text, n), f->e);
        luaL_traceback(L, co, NULL, 0);
        text = lua_tolstring(L, -1, &n);
        keep_traceback(f, str_make(text, n));
        return 0;
}

/* A function that calls itself for ever meets the heap's limit before Lua's own. */
static void out_of_memory(struct failure *f, bool over)
{
        struct engine *en = f->en;
        lua_Debug ar;
        bool deep = lua_getstack(f->h->co, CALLS_DEEP, &ar);

        if (over)
                err_set(f->e, ERR_LIMIT, "the script needs more than %llu bytes of memory%s (mail.limits { heap = … })",
                        (unsigned long long)en->limits.heap, deep ? ", in calls nested deeper than 10,000: a function calls itself for ever?" : "");
        else
                err_set(f->e, ERR_NOMEM, "out of memory (the script holds %zu bytes)", en->heap);
        lua_gc(en->L, LUA_GCCOLLECT, 0);
}

static void fail(struct failure *f)
{
        struct engine *en = f->en;
        bool over = en->heap_over;
        lua_State *before;
        struct err ignored;

        if (f->status == LUA_ERRMEM) {
                out_of_memory(f, over);
                return;
        }
        err_set(f->e, ERR_SCRIPT, "the handler failed");
        before = deadline_enter(en->L); /* an error object's __tostring is the script's code too */
        if (!engine_call(en, describe, f, &ignored))
                err_set(f->e, ERR_SCRIPT, "the handler failed, and describing its error failed too: %s", ignored.text);
        deadline_leave(before);
        lua_sethook(en->L, NULL, 0, 0);
        if (deadline_passed())
                f->e->code = ERR_TIMEOUT;
        if (!f->plan->message) /* on_finish: no event will carry it */
                state_log_lines(LOG_ERROR, f->h->traceback);
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

        if (p->message && !engine_call(en, close_message, p, &e))
                log_error("closing a message: %s", e.text);
}

/* The message is closed, and then the finalizers of what its handler left behind run: in its time and at its cost, not in that of a later one. */
static void handler_over(struct engine *en, struct plan *p, struct handler *h)
{
        give_coroutine(en, h);
        deadline_enter(en->L); /* the coroutine may be collected */
        face_set_current(en->L, NULL);
        close_plan(en, p);
        if (!en->finalizers)
                return;
        en->finalizers = false;
        lua_gc(en->L, LUA_GCCOLLECT, 0);
}

static enum verdict go_on(struct engine *en, struct plan *p, struct handler *h, int nargs, struct err *e)
{
        struct failure f = { en, p, h, LUA_OK, e };
        enum verdict v;
        int nres;

        if (!deadline_begin(h->co, en->limits.cpu, h->ticks, e))
                return RUN_FAIL;
        en->heap_over = false;
        h->waiting = false;
        f.status = lua_resume(h->co, en->L, nargs, &nres);
        if (f.status == LUA_YIELD && h->waiting) {
                v = RUN_WAIT;
        } else if (f.status == LUA_YIELD && !deadline_passed()) {
                err_set(e, ERR_SCRIPT, "the handler yielded outside of a coroutine of its own");
                v = RUN_FAIL;
        } else if (f.status != LUA_OK) {
                fail(&f);
                v = RUN_FAIL;
        } else {
                count(en, p);
                v = RUN_DONE;
        }
        en->failed += v == RUN_FAIL;
        if (v == RUN_WAIT)
                face_set_current(en->L, NULL);
        else
                handler_over(en, p, h);
        h->ticks = deadline_end();
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
        if (!engine_call(en, take_coroutine, p, e))
                return RUN_FAIL;
        lua_pushcfunction(h->co, handler_begin);
        lua_pushlightuserdata(h->co, p);
        return go_on(en, p, h, 1, e);
}

static enum verdict resume(void *ctx, struct plan *p, struct err *e)
{
        if (!engine_call(ctx, set_current, p, e))
                return RUN_FAIL;
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
