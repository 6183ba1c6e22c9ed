/* What a script finds of Lua's own libraries, and `require`.
 *
 * Left out: bytecode, C modules, debug (but traceback), the parts of os and io that change something. This keeps accidents small; it is no
 * wall against the script's author. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"
#include "lua/state.h"

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

static int io_open(lua_State *L)
{
        struct str name = face_check_str(L, 1);
        const char *mode = luaL_optstring(L, 2, "r");

        if (strcmp(mode, "r") != 0 && strcmp(mode, "rb") != 0)
                return luaL_error(L, "io.open: files are only read here, not opened with \"%s\" (the run may say --allow io)", mode);
        lua_settop(L, 2);
        lua_pushvalue(L, lua_upvalueindex(1));
        state_path(L, name);
        lua_pushstring(L, mode);
        lua_call(L, 2, LUA_MULTRET);
        return lua_gettop(L) - 2;
}

static int io_lines(lua_State *L)
{
        struct str name = face_check_str(L, 1);

        state_path(L, name);
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
        int fd;

        lua_pushlstring(L, name.p, name.n);
        luaL_gsub(L, lua_tostring(L, -1), ".", "/");
        lua_pushfstring(L, "%s.lua", lua_tostring(L, -1));
        path = state_path(L, face_check_str(L, -1));
        chunk = lua_pushfstring(L, "@%s", path); /* before there is anything to free */
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
                lua_pop(L, 5);
                return false;
        }
        text = sys_read_file(fd, SCRIPT_BYTES_MAX, &n, &e);
        close(fd);
        if (!text)
                luaL_error(L, "module %s: %s", path, e.text);
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
                return luaL_error(L, "module '%s' is neither beside the script nor in the library", key);
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

static void drop(lua_State *L, const char *name)
{
        lua_pushnil(L);
        lua_setglobal(L, name);
}

static void open_package(lua_State *L)
{
        lua_createtable(L, 0, 2);
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        lua_pushnil(L);
        lua_setfield(L, -2, "package");
        lua_setfield(L, -2, "loaded");
        lua_setglobal(L, "package");
        lua_pushcfunction(L, require_module);
        lua_setglobal(L, "require");
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
        wrap(L, NULL, "load", load_text);
        drop(L, "loadfile");
        drop(L, "dofile");
        lua_getglobal(L, "string");
        lua_pushnil(L);
        lua_setfield(L, -2, "dump");
        open_package(L);
        return 0;
}
