/* Runs the chunks of tests/lua on the face alone, without the engine. A chunk is a list of tests as a table of functions; each sees
 *
 *     message(text, origin) -> message   opens one; origin: account, uid, source, folder, flags, envelope_to, time
 *     close(message)                     what the end of a handler does
 *     check(what, got, want)  fails(f, "text that the error holds")
 *
 * Every test runs with the incremental collector, the generational one, a collector that never rests, and one that runs whole at every few
 * instructions. The chunks named alloc_*.lua run again and again with the n-th allocation failing, Lua's and then the core's, for n = 1 until success. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "lua/open.h"

enum { OPEN_MAX = 256 };

static struct {
        struct plan *plans[OPEN_MAX];
        size_t n;
        int bad, good;
        size_t allocations, fail_at; /* of Lua's allocator */
} test;

static struct str text_field(lua_State *L, int table, const char *key)
{
        struct str s = STR_NONE;
        if (lua_istable(L, table) && lua_getfield(L, table, key) == LUA_TSTRING)
                s.p = lua_tolstring(L, -1, &s.n); /* the table keeps it */
        return s;
}

static void plan_drop(struct plan *p)
{
        struct message *m = p->message;
        plan_free(p);
        message_free(m);
}

static int open_message(lua_State *L)
{
        struct str text = face_check_str(L, 1);
        struct origin o = { .source = text_field(L, 2, "source"), .account = text_field(L, 2, "account"), .uid = text_field(L, 2, "uid"),
                            .folder = text_field(L, 2, "folder"), .flags = text_field(L, 2, "flags"),
                            .envelope_to = text_field(L, 2, "envelope_to"), .number = 7, .fetched = 1700000000 };
        struct limits lim = limits_default;
        struct err e;
        char *copy = mem_dup(text.p, text.n);
        struct backing *b;
        struct message *m;
        struct plan *p;

        lim.text = 64 * 1024;
        if (!copy || !(b = backing_memory(copy, text.n)))
                return luaL_error(L, "not enough memory");
        m = message_new((struct range){ b, 0, text.n }, &o, &lim, &e);
        backing_unref(b);
        if (!m)
                return luaL_error(L, "%s", e.text);
        p = plan_new(m, NULL);
        if (!p || test.n == OPEN_MAX) {
                message_free(m);
                return luaL_error(L, "not enough memory");
        }
        test.plans[test.n++] = p;
        face_push_message(L, p);
        return 1;
}

static int close_message(lua_State *L)
{
        struct plan *p = face_check_plan(L, 1);
        face_close_message(L, p);
        for (size_t i = 0; i < test.n; i++)
                if (test.plans[i] == p)
                        test.plans[i] = test.plans[--test.n];
        plan_drop(p);
        return 0;
}

static void close_all(lua_State *L)
{
        while (test.n > 0) {
                face_close_message(L, test.plans[--test.n]);
                plan_drop(test.plans[test.n]);
        }
}

static int set_current(lua_State *L)
{
        face_set_current(L, lua_isnil(L, 1) ? NULL : face_check_plan(L, 1));
        return 0;
}

static int set_rule(lua_State *L)
{
        face_set_rule(L, 1);
        return 0;
}

static int get_rule(lua_State *L)
{
        face_push_str(L, face_rule(L));
        return 1;
}

static int size_of(lua_State *L)
{
        lua_pushinteger(L, (lua_Integer)face_check_size(L, 1));
        return 1;
}

static int span_of(lua_State *L)
{
        lua_pushinteger(L, (lua_Integer)face_check_span(L, 1));
        return 1;
}

static int make_list(lua_State *L)
{
        lua_settop(L, 1);
        face_make_list(L);
        return 1;
}

static const luaL_Reg helpers[] = {
        { "message", open_message }, { "close", close_message }, { "set_current", set_current }, { "set_rule", set_rule },
        { "get_rule", get_rule },    { "size_of", size_of },     { "span_of", span_of },         { "make_list", make_list },
        { NULL, NULL },
};

static const char prelude[] =
        "local function show(v) if type(v) ~= 'table' then return ('%q'):format(v) end\n"
        "  local t = {} for i, x in ipairs(v) do t[i] = show and tostring(x) end return '{' .. table.concat(t, ',') .. '}' end\n"
        "function check(what, got, ...)\n"
        "  local want = ...\n"
        "  if select('#', ...) == 0 then want = true end\n"
        "  if type(want) == 'table' then got, want = show(got), show(want) end\n"
        "  if got ~= want or math.type(got) ~= math.type(want) then error(('%s: got %s, not %s'):format(what, tostring(got), tostring(want)), 2) end\n"
        "end\n"
        "function fails(f, text)\n"
        "  local ok, e = pcall(f)\n"
        "  if ok then error('no error, where one with \"' .. text .. '\" is due', 2) end\n"
        "  if not tostring(e):find(text, 1, true) then error(('the error is \"%s\", not \"%s\"'):format(tostring(e), text), 2) end\n"
        "end\n"
        "package.path = 'lua/?.lua'\n"
        "package.searchers[2] = function(name)\n"
        "  local path = 'lua/' .. name:gsub('%.', '/') .. '.lua'\n"
        "  local f = loadfile(path) if not f then return path end\n"
        "  return f\n"
        "end\n"
        "local match = require 'mail.match'\n"
        "mail = { any = match.any, none = match.none }\n"
        "csv = require 'mail.csv'\n";

static void *allocate(void *ud, void *p, size_t old, size_t n)
{
        if (n == 0) {
                free(p);
                return NULL;
        }
        if ((!p || n > old) && test.fail_at > 0 && ++test.allocations >= test.fail_at)
                return NULL;
        return realloc(p, n);
}

static void collect_hook(lua_State *L, lua_Debug *ar)
{
        lua_gc(L, LUA_GCCOLLECT);
}

enum mode { INCREMENTAL, GENERATIONAL, RESTLESS, WHOLE, MODES };
static const char *const mode_names[] = { "incremental", "generational", "restless", "whole" };

static lua_State *open_state(enum mode mode)
{
        lua_State *L = lua_newstate(allocate, NULL);
        luaL_openlibs(L);
        face_open(L);
        lua_pushglobaltable(L);
        luaL_setfuncs(L, helpers, 0);
        lua_pop(L, 1);
        if (luaL_dostring(L, prelude)) {
                printf("prelude: %s\n", lua_tostring(L, -1));
                exit(1);
        }
        if (mode == GENERATIONAL)
                lua_gc(L, LUA_GCGEN, 5, 20);
        if (mode == RESTLESS)
                lua_gc(L, LUA_GCINC, 1, 1000, 0);
        if (mode == WHOLE)
                lua_sethook(L, collect_hook, LUA_MASKCOUNT, 7);
        return L;
}

static int traceback(lua_State *L)
{
        luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
        return 1;
}

/* The chunk's table of tests, each on a fresh state; only: the one to run. */
static void run_file(const char *path, enum mode mode, const char *only)
{
        lua_State *L = open_state(mode);
        lua_pushcfunction(L, traceback);
        if (luaL_loadfile(L, path) || lua_pcall(L, 0, 1, 1)) {
                printf("FAIL %s: %s\n", path, lua_tostring(L, -1));
                test.bad++;
                lua_close(L);
                return;
        }
        for (lua_pushnil(L); lua_next(L, 2); lua_settop(L, 3)) {
                if (only && strcmp(only, lua_tostring(L, 3)) != 0)
                        continue;
                if (lua_pcall(L, 0, 0, 1)) {
                        printf("FAIL %s, %s (%s): %s\n", path, lua_tostring(L, 3), mode_names[mode], lua_tostring(L, -1));
                        test.bad++;
                } else {
                        test.good++;
                }
                close_all(L);
        }
        lua_close(L);
}

/* One chunk with the n-th allocation and all after it failing: an error of memory each time, and nothing leaks (the sanitizer looks). */
static void run_starved(const char *path)
{
        for (size_t n = 1;; n++) {
                lua_State *L = open_state(INCREMENTAL);
                int status;
                if (luaL_loadfile(L, path)) {
                        printf("FAIL %s: %s\n", path, lua_tostring(L, -1));
                        test.bad++;
                        lua_close(L);
                        return;
                }
                test.allocations = 0;
                test.fail_at = n;
                status = lua_pcall(L, 0, 0, 0);
                test.fail_at = 0;
                if (status != LUA_OK && !strstr(lua_tostring(L, -1), "not enough memory")) {
                        printf("FAIL %s, allocation %zu: %s\n", path, n, lua_tostring(L, -1));
                        test.bad++;
                        status = LUA_OK;
                }
                close_all(L);
                lua_close(L);
                if (status == LUA_OK) {
                        printf("%s: %zu allocations of Lua failed\n", path, n - 1);
                        break;
                }
        }
        test.good++;
}

/* The same with the core's allocations failing: answers may be empty, or an error; nothing crashes or leaks. */
static void run_core_starved(const char *path)
{
        lua_State *L = open_state(INCREMENTAL);
        size_t made, n = 0;
        int status;
        if (luaL_loadfile(L, path)) {
                test.bad++;
                lua_close(L);
                return;
        }
        do {
                mem_fail_at(++n);
                lua_pushvalue(L, -1);
                status = lua_pcall(L, 0, 0, 0);
                made = mem_fail_at(0);
                if (made < n && status != LUA_OK) {
                        printf("FAIL %s, allocation %zu of the core: %s\n", path, n, lua_tostring(L, -1));
                        test.bad++;
                }
                lua_settop(L, 1);
                close_all(L);
        } while (made >= n);
        printf("%s: %zu allocations of the core failed\n", path, n - 1);
        lua_close(L);
        test.good++;
}

int main(int argc, char **argv)
{
        glob_t files;
        setvbuf(stdout, NULL, _IOLBF, 0);
        if (glob("tests/lua/*.lua", 0, NULL, &files) != 0) {
                printf("no tests/lua/*.lua below the working directory\n");
                return 1;
        }
        for (size_t i = 0; i < files.gl_pathc; i++) {
                const char *path = files.gl_pathv[i];
                if (argc > 1 && !strstr(path, argv[1]))
                        continue;
                if (strstr(path, "/alloc_")) {
                        run_starved(path);
                        run_core_starved(path);
                        continue;
                }
                for (enum mode mode = INCREMENTAL; mode < MODES; mode++)
                        run_file(path, mode, argc > 2 ? argv[2] : NULL);
        }
        globfree(&files);
        printf("%d passed, %d failed\n", test.good, test.bad);
        return test.bad > 0 || test.good == 0;
}
