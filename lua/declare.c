/* Reading the tables of declarations. What is wrong is a problem more (state_complain), and the value counts as absent. */
#include "core/glob.h"
#include "lua/declare.h"

void declare_keys(lua_State *L, int idx, const char *what, const char *const *names, size_t n)
{
        for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
                struct str key;
                size_t i = 0;
                const char *near;

                if (lua_type(L, -2) != LUA_TSTRING) {
                        state_complain(L, "%s: a value without a name", what);
                        continue;
                }
                key.p = lua_tolstring(L, -2, &key.n);
                while (i < n && !str_eq(key, str_of(names[i])))
                        i++;
                if (i < n)
                        continue;
                near = glob_nearest(key, names, n);
                if (near)
                        state_complain(L, "%s: unknown option '%.*s' (did you mean '%s'?)", what, STR_FMT(key), near);
                else
                        state_complain(L, "%s: unknown option '%.*s'", what, STR_FMT(key));
        }
}

/* One value of a declaration's table. Complains and answers as if it were absent when its type is wrong. */
struct str declare_text(lua_State *L, const char *what, const char *name)
{
        struct str s = STR_NONE;
        int type = lua_getfield(L, 1, name);

        if (type == LUA_TSTRING) {
                s.p = lua_tolstring(L, -1, &s.n);
                s = state_keep(L, engine_of(L)->arena, s);
                for (size_t i = 0; i < s.n; i++)
                        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f) {
                                state_complain(L, "%s: option %s has a control character in it", what, name);
                                s = STR_NONE;
                        }
                if (s.p && s.n == 0)
                        state_complain(L, "%s: option %s is empty", what, name);
        } else if (type != LUA_TNIL) {
                state_complain(L, "%s: option %s is a %s, not a string", what, name, lua_typename(L, type));
        }
        lua_pop(L, 1);
        return s;
}

struct str declare_required(lua_State *L, const char *what, const char *name)
{
        struct str s = declare_text(L, what, name);

        lua_getfield(L, 1, name);
        if (lua_isnil(L, -1))
                state_complain(L, "%s: option %s is missing", what, name);
        lua_pop(L, 1);
        return s.p ? s : STR("");
}

bool declare_flag(lua_State *L, const char *what, const char *name)
{
        int type = lua_getfield(L, 1, name);
        bool on = lua_toboolean(L, -1);

        if (type != LUA_TNIL && type != LUA_TBOOLEAN)
                state_complain(L, "%s: option %s is a %s, not true or false", what, name, lua_typename(L, type));
        lua_pop(L, 1);
        return on;
}

int64_t declare_integer(lua_State *L, const char *what, const char *name, int64_t min, int64_t max, int64_t otherwise)
{
        int type = lua_getfield(L, 1, name), whole = 0;
        int64_t n = lua_tointegerx(L, -1, &whole);

        if (type == LUA_TNIL) {
                n = otherwise;
        } else if (type != LUA_TNUMBER || !whole) {
                state_complain(L, "%s: option %s is not a whole number", what, name);
                n = otherwise;
        } else if (n < min || n > max) {
                state_complain(L, "%s: option %s is %lld, outside %lld to %lld", what, name, (long long)n, (long long)min, (long long)max);
                n = otherwise;
        }
        lua_pop(L, 1);
        return n;
}

/* A span as face_check_span reads it, with a complaint instead of an error. */
int declare_as_span(lua_State *L)
{
        lua_pushinteger(L, (lua_Integer)face_check_span(L, 1));
        return 1;
}

int declare_as_size(lua_State *L)
{
        lua_pushinteger(L, (lua_Integer)face_check_size(L, 1));
        return 1;
}

/* The value on top of the stack, taken off it. */
int64_t declare_measured(lua_State *L, lua_CFunction f, const char *what, const char *name, int64_t otherwise)
{
        lua_pushcfunction(L, f);
        lua_insert(L, -2);
        if (lua_pcall(L, 1, 1, 0) == LUA_OK)
                otherwise = lua_tointeger(L, -1);
        else
                state_complain(L, "%s: option %s: %s", what, name, luaL_tolstring(L, -1, NULL));
        lua_settop(L, 1);
        return otherwise;
}

int64_t declare_span(lua_State *L, const char *what, const char *name, int64_t otherwise)
{
        if (lua_getfield(L, 1, name) == LUA_TNIL) {
                lua_pop(L, 1);
                return otherwise;
        }
        return declare_measured(L, declare_as_span, what, name, otherwise);
}

/* A folder's name, or false. *own: it was said. */
struct str declare_inbox(lua_State *L, int idx, const char *what, bool *own)
{
        struct str s = STR_NONE;

        *own = true;
        if (lua_type(L, idx) == LUA_TSTRING) {
                s = state_keep(L, engine_of(L)->arena, face_check_str(L, idx));
                if (s.n == 0)
                        state_complain(L, "%s: the inbox folder has an empty name (false: no inbox)", what);
        } else if (lua_type(L, idx) == LUA_TNIL) {
                *own = false;
        } else if (lua_type(L, idx) != LUA_TBOOLEAN || lua_toboolean(L, idx)) {
                state_complain(L, "%s: the inbox is a folder's name, or false", what);
        }
        return s;
}
