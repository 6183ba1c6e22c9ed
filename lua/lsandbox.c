/* What a script finds of Lua's own libraries, and `require`.
 *
 * Left out: bytecode, C modules, debug (but traceback), the parts of os and io that change something. This keeps accidents small; it is no
 * wall against the script's author. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"
#include "lua/state.h"

static const struct {
        const char *name;
        unsigned bit;
} allows[] = {
        { "io", ENGINE_ALLOW_IO }, { "os", ENGINE_ALLOW_OS }, { "bytecode", ENGINE_ALLOW_BYTECODE }, { "modules", ENGINE_ALLOW_MODULES },
};
enum { ALLOWS = sizeof allows / sizeof *allows };

unsigned engine_allow_word(struct str word)
{
        for (size_t i = 0; i < ALLOWS; i++)
                if (str_eq(word, str_of(allows[i].name)))
                        return allows[i].bit;
        return 0;
}

void engine_allow_words(unsigned allow, char *out, size_t n)
{
        size_t at = 0;

        out[0] = '\0';
        for (size_t i = 0; i < ALLOWS && at < n; i++)
                if (allow & allows[i].bit)
                        at += (size_t)snprintf(out + at, n - at, "%s%s", at ? ", " : "", allows[i].name);
}

/* Not a FIFO, which would be waited for, nor a device without end. */
char *sandbox_read(const char *path, size_t *n, struct err *e)
{
        int fd = sys_open(path, O_RDONLY | O_NONBLOCK, 0, e);
        struct stat st;
        char *text;

        if (fd < 0)
                return NULL;
        if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
                err_set(e, ERR_ABSENT, "%s is no regular file", path);
                close(fd);
                return NULL;
        }
        text = sys_read_file(fd, SCRIPT_BYTES_MAX, n, e);
        close(fd);
        if (!text)
                err_in(e, "%s", path);
        return text;
}

bool sandbox_compile(lua_State *L, struct str text, const char *chunk)
{
        if (str_starts(text, STR("\xef\xbb\xbf")))
                text = str_from(text, 3);
        if (text.n > 0 && text.p[0] == '#') /* "#!/usr/bin/mailmill"; its line end stays, for the line numbers */
                text = str_from(text, str_find(text, '\n'));
        return luaL_loadbufferx(L, text.p ? text.p : "", text.n, chunk, "t") == LUA_OK;
}

/* load(chunk, name, mode, env) without bytecode. */
static int load_text(lua_State *L)
{
        int n = lua_gettop(L);

        luaL_checkany(L, 1);
        if (n < 3)
                lua_settop(L, 3);
        lua_pushliteral(L, "t");
        lua_replace(L, 3);
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_insert(L, 1);
        lua_call(L, n < 3 ? 3 : n, LUA_MULTRET);
        return lua_gettop(L);
}

/* Closed doors: what is asked for most gets a sentence of its own, the rest is nil. */

static int refuse(lua_State *L)
{
        return luaL_error(L, "%s", lua_tostring(L, lua_upvalueindex(1)));
}

static void close_door(lua_State *L, const char *table, const char *name, const char *why)
{
        if (table)
                lua_getglobal(L, table);
        else
                lua_pushglobaltable(L);
        lua_pushstring(L, why);
        lua_pushcclosure(L, refuse, 1);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, name);
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE); /* mail.closed: for `check`, which says it before anything runs */
        luaL_getsubtable(L, -1, "mail.closed");
        lua_rotate(L, -3, -1);
        lua_pushstring(L, why);
        lua_rawset(L, -3);
        lua_pop(L, 3);
}

/* A script that stops the collector, or makes it lazy, would only meet its limit of memory earlier; and the next message with it. */
static int collect(lua_State *L)
{
        static const char *const possible[] = { "collect", "count", "isrunning", "step", NULL };
        const char *what = luaL_optstring(L, 1, "collect");

        for (size_t i = 0; possible[i]; i++)
                if (strcmp(what, possible[i]) == 0) {
                        lua_pushvalue(L, lua_upvalueindex(1));
                        lua_insert(L, 1);
                        lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
                        return lua_gettop(L);
                }
        return luaL_error(L, "collectgarbage: '%s' is not for scripts; possible are collect, step, count and isrunning", what);
}

/* As Lua's own; and it is noted when an object has a finalizer (only the __gc that stands there now makes it one). */
static int set_metatable(lua_State *L)
{
        int type = lua_type(L, 2);

        luaL_checktype(L, 1, LUA_TTABLE);
        luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
        if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
                return luaL_error(L, "cannot change a protected metatable");
        lua_settop(L, 2);
        if (type == LUA_TTABLE) {
                lua_pushliteral(L, "__gc");
                if (lua_rawget(L, 2) != LUA_TNIL)
                        engine_of(L)->finalizers = true;
                lua_settop(L, 2);
        }
        lua_setmetatable(L, 1);
        return 1;
}

/* os */

static int os_time(lua_State *L)
{
        if (lua_isnoneornil(L, 1)) {
                lua_pushinteger(L, (lua_Integer)engine_of(L)->options.now);
                return 1;
        }
        lua_settop(L, 1);
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_insert(L, 1);
        lua_call(L, 1, 1);
        return 1;
}

static int os_date(lua_State *L)
{
        if (lua_isnoneornil(L, 1)) {
                lua_settop(L, 2);
                lua_pushliteral(L, "%c");
                lua_replace(L, 1);
        }
        lua_settop(L, 2);
        if (lua_isnil(L, 2)) {
                lua_pushinteger(L, (lua_Integer)engine_of(L)->options.now);
                lua_replace(L, 2);
        }
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_insert(L, 1);
        lua_call(L, 2, 1);
        return 1;
}

/* io: reading files, named from the script's directory. */

/* A FIFO or a terminal would keep the whole run waiting for someone to write. */
static bool is_odd(const char *path)
{
        struct stat st;

        return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

static int io_open(lua_State *L)
{
        struct str name = face_check_str(L, 1);
        const char *mode = luaL_optstring(L, 2, "r");

        if (strcmp(mode, "r") != 0 && strcmp(mode, "rb") != 0)
                return luaL_error(L, "io.open: files are only read here, not opened with \"%s\" (the run may say --allow io)", mode);
        lua_settop(L, 2);
        lua_pushvalue(L, lua_upvalueindex(1));
        if (is_odd(state_path(L, name))) {
                lua_pushnil(L);
                lua_pushfstring(L, "%s: no regular file (with --allow io others are opened, too)", lua_tostring(L, -2));
                return 2;
        }
        lua_pushstring(L, mode);
        lua_call(L, 2, LUA_MULTRET);
        return lua_gettop(L) - 2;
}

static int io_lines(lua_State *L)
{
        struct str name = face_check_str(L, 1);

        if (is_odd(state_path(L, name)))
                return luaL_error(L, "%s: no regular file (with --allow io others are opened, too)", lua_tostring(L, -1));
        lua_replace(L, 1);
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_insert(L, 1);
        lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
        return lua_gettop(L);
}

/* require: files beside the script, then the library's modules. */

static bool good_module_name(struct str name)
{
        if (name.n == 0 || name.n > 200 || name.p[0] == '.' || name.p[name.n - 1] == '.')
                return false;
        for (size_t i = 0; i < name.n; i++) {
                char c = name.p[i];
                if (!ascii_is_alnum(c) && c != '_' && c != '-' && (c != '.' || name.p[i - 1] == '.'))
                        return false;
        }
        return true;
}

/* The library's modules have globals of their own: what a script does to print, pairs or string does not reach them. */
#define OWN_GLOBALS "mailmill.globals"

/* A copy of the table on top, and of the tables in it as far as deep says. */
static void push_copy(lua_State *L, int deep)
{
        luaL_checkstack(L, 8, NULL);
        lua_newtable(L);
        for (lua_pushnil(L); lua_next(L, -3);) {
                if (deep > 0 && lua_istable(L, -1) && !lua_rawequal(L, -1, -4) && !luaL_getmetafield(L, -1, "__index")) {
                        push_copy(L, deep - 1);
                        lua_remove(L, -2);
                }
                lua_pushvalue(L, -2);
                lua_insert(L, -2);
                lua_rawset(L, -4);
        }
}

static void keep_globals(lua_State *L)
{
        lua_pushglobaltable(L);
        push_copy(L, 1);
        lua_createtable(L, 0, 1); /* what comes later (mail, log, json) is found in _G */
        lua_pushglobaltable(L);
        lua_setfield(L, -2, "__index");
        lua_setmetatable(L, -2);
        lua_setfield(L, LUA_REGISTRYINDEX, OWN_GLOBALS);
        lua_pop(L, 1);
        lua_getglobal(L, "require");
        lua_setfield(L, LUA_REGISTRYINDEX, "mailmill.require");
}

void sandbox_require(lua_State *L, const char *name)
{
        lua_getfield(L, LUA_REGISTRYINDEX, "mailmill.require");
        lua_pushstring(L, name);
        lua_call(L, 1, 1);
}

static bool load_embedded(lua_State *L, struct str name)
{
        struct str bare = str_starts(name, STR("mail.")) ? str_from(name, 5) : name;

        for (size_t i = 0; i < embedded_n; i++) {
                const struct embedded *m = &embedded_modules[i];
                if (!str_eq(bare, str_of(m->name)))
                        continue;
                if (!sandbox_compile(L, str_make(m->text, m->n), lua_pushfstring(L, "=(mail.%s)", m->name)))
                        lua_error(L);
                lua_remove(L, -2);
                lua_getfield(L, LUA_REGISTRYINDEX, OWN_GLOBALS);
                lua_setupvalue(L, -2, 1);
                return true;
        }
        return false;
}

/* The text of a module beside the script goes into the script's hash: when it changes, the script has changed. */
static bool load_beside(lua_State *L, struct str name)
{
        struct engine *en = engine_of(L);
        const char *path, *chunk;
        char *text;
        size_t n;
        struct err e;
        bool ok;

        lua_pushlstring(L, name.p, name.n);
        luaL_gsub(L, lua_tostring(L, -1), ".", "/");
        lua_pushfstring(L, "%s.lua", lua_tostring(L, -1));
        path = state_path(L, face_check_str(L, -1));
        chunk = lua_pushfstring(L, "@%s", path); /* before there is anything to free */
        if (access(path, R_OK) != 0) {
                lua_pop(L, 5);
                return false;
        }
        text = sandbox_read(path, &n, &e);
        if (!text)
                luaL_error(L, "module %s", e.text);
        digest_add(en->texts, text, n);
        ok = sandbox_compile(L, str_make(text, n), chunk);
        mem_free(text);
        if (!ok)
                lua_error(L);
        lua_insert(L, -6);
        lua_pop(L, 5);
        return true;
}

static bool preloaded(lua_State *L, const char *name)
{
        bool found;

        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
        found = lua_getfield(L, -1, name) == LUA_TFUNCTION;
        lua_remove(L, -2);
        if (!found)
                lua_pop(L, 1);
        return found;
}

/* "options" and "mail.options" are one module. */
static const char *canonical(lua_State *L, struct str name)
{
        for (size_t i = 0; i < embedded_n; i++)
                if (str_eq(name, str_of(embedded_modules[i].name)) && engine_of(L)->dir.p) {
                        struct str path;
                        path.p = lua_pushfstring(L, "%s.lua", embedded_modules[i].name);
                        path.n = strlen(path.p);
                        if (access(state_path(L, path), R_OK) != 0)
                                return lua_pushfstring(L, "mail.%s", embedded_modules[i].name);
                }
        lua_pushlstring(L, name.p, name.n);
        return lua_tostring(L, -1);
}

/* With --allow modules: where Lua itself would look, C modules too. */
static int elsewhere(lua_State *L, const char *key)
{
        if (lua_isnil(L, lua_upvalueindex(1)))
                return luaL_error(L, "module '%s' is neither beside the script nor in the library (C modules and those of the system: --allow modules)", key);
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_pushstring(L, key);
        lua_call(L, 1, 1);
        return 1;
}

static int require_module(lua_State *L)
{
        struct str name = face_check_str(L, 1);
        const char *key;

        if (!good_module_name(name))
                return luaL_error(L, "require: '%s' is no module's name (letters, digits, _ and -, with dots between)", name.p);
        key = canonical(L, name);
        name = str_of(key);
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        lua_insert(L, 2);
        if (lua_getfield(L, 2, key) != LUA_TNIL)
                return 1;
        lua_pop(L, 1);
        if (!preloaded(L, key) && !(str_starts(name, STR("mail.")) && load_embedded(L, name)) && !load_beside(L, name) && !load_embedded(L, name))
                return elsewhere(L, key);
        lua_pushstring(L, key);
        lua_call(L, 1, 1);
        if (lua_isnil(L, -1)) {
                lua_pop(L, 1);
                lua_pushboolean(L, 1);
        }
        lua_pushvalue(L, -1);
        lua_setfield(L, 2, key);
        return 1;
}

/* Pruning */

/* The global table `name` with only the entries listed; lua_pushvalue'd originals stay where closures hold them. */
static void keep_only(lua_State *L, const char *name, const char *const *keep)
{
        lua_getglobal(L, name);
        lua_newtable(L);
        for (; *keep; keep++) {
                lua_getfield(L, -2, *keep);
                lua_setfield(L, -2, *keep);
        }
        lua_pushvalue(L, -1);
        lua_setglobal(L, name);
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        lua_pushvalue(L, -2);
        lua_setfield(L, -2, name);
        lua_pop(L, 3);
}

/* table.name = closure of f over the old table.name */
static void wrap(lua_State *L, const char *table, const char *name, lua_CFunction f)
{
        if (table)
                lua_getglobal(L, table);
        else
                lua_pushglobaltable(L);
        lua_getfield(L, -1, name);
        lua_pushcclosure(L, f, 1);
        lua_setfield(L, -2, name);
        lua_pop(L, 1);
}

/* package.loaded = a window on the real one, so that package.loaded["mine"] = nil works; what the library stands on stays. */
static int set_loaded(lua_State *L)
{
        static const char *const own[] = { "mail.", "_G", "string", "table", "math", "os", "io", "debug", "coroutine", "utf8" };

        for (size_t i = 0; lua_type(L, 2) == LUA_TSTRING && i < sizeof own / sizeof *own; i++)
                if (i ? str_eq(face_check_str(L, 2), str_of(own[i])) : str_starts(face_check_str(L, 2), str_of(own[i])))
                        return luaL_error(L, "package.loaded: '%s' is the library's own", lua_tostring(L, 2));
        lua_settop(L, 3);
        lua_rawset(L, lua_upvalueindex(1));
        return 0;
}

static int next_loaded(lua_State *L)
{
        lua_settop(L, 2);
        return lua_next(L, lua_upvalueindex(1)) ? 2 : 0;
}

static int pairs_loaded(lua_State *L)
{
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_pushcclosure(L, next_loaded, 1);
        return 1;
}

static void push_loaded(lua_State *L)
{
        static const luaL_Reg meta[] = { { "__newindex", set_loaded }, { "__pairs", pairs_loaded }, { NULL, NULL } };

        lua_newtable(L);
        lua_createtable(L, 0, 4);
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, "__index");
        luaL_setfuncs(L, meta, 1);
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_setmetatable(L, -2);
}

static void open_package(lua_State *L, bool modules)
{
        lua_getglobal(L, "require");
        if (!modules) {
                lua_pop(L, 1);
                lua_pushnil(L);
                luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
                lua_pushnil(L);
                lua_setfield(L, -2, "package");
                lua_pop(L, 1);
                lua_createtable(L, 0, 2);
                push_loaded(L);
                lua_setfield(L, -2, "loaded");
                lua_setglobal(L, "package");
                close_door(L, "package", "loadlib", "package.loadlib: no C modules here, unless the run says --allow modules");
        }
        lua_pushcclosure(L, require_module, 1);
        lua_setglobal(L, "require");
}

static void close_doors(lua_State *L, unsigned allow)
{
        if (!(allow & ENGINE_ALLOW_OS)) {
                close_door(L, "os", "execute", "os.execute: no commands here; m:run_after{…} and part:pipe{…} run them, or the run may say --allow os");
                close_door(L, "os", "remove", "os.remove: a script removes no files, unless the run says --allow os");
                close_door(L, "os", "rename", "os.rename: a script renames no files, unless the run says --allow os");
        }
        if (!(allow & ENGINE_ALLOW_IO))
                close_door(L, "io", "popen", "io.popen: no commands here; part:pipe{…} runs one, or the run may say --allow io");
        if (!(allow & ENGINE_ALLOW_BYTECODE))
                close_door(L, "string", "dump", "string.dump: no bytecode here, unless the run says --allow bytecode");
        close_door(L, "os", "exit", "os.exit: a script does not end the run; error(…) holds its message, m:stop() ends its rules");
        close_door(L, NULL, "dofile", "dofile: only require reads code here, from beside the script");
        close_door(L, NULL, "loadfile", "loadfile: only require reads code here, from beside the script");
}

int luaopen_sandbox(lua_State *L)
{
        static const char *const os_names[] = { "date", "time", "clock", "difftime", "getenv", NULL };
        static const char *const io_names[] = { "open", "lines", "type", NULL };
        static const char *const debug_names[] = { "traceback", NULL };
        unsigned allow = engine_of(L)->options.allow;

        wrap(L, "os", "time", os_time);
        wrap(L, "os", "date", os_date);
        if (!(allow & ENGINE_ALLOW_OS))
                keep_only(L, "os", os_names);
        if (!(allow & ENGINE_ALLOW_IO)) {
                wrap(L, "io", "open", io_open);
                wrap(L, "io", "lines", io_lines);
                keep_only(L, "io", io_names);
        }
        keep_only(L, "debug", debug_names);
        wrap(L, NULL, "collectgarbage", collect);
        lua_pushcfunction(L, set_metatable);
        lua_setglobal(L, "setmetatable");
        if (!(allow & ENGINE_ALLOW_BYTECODE))
                wrap(L, NULL, "load", load_text);
        close_doors(L, allow);
        open_package(L, allow & ENGINE_ALLOW_MODULES);
        keep_globals(L);
        return 0;
}
