/* Tables of options, checked: a typo in an option is never silent. */
#include "core/log.h"
#include "lua/state.h"

void options_check(lua_State *L, int idx, const char *what, const char *const *names, size_t n)
{
        if (lua_isnoneornil(L, idx))
                return;
        luaL_checktype(L, idx, LUA_TTABLE);
        for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
                size_t i = 0;
                struct str key;

                if (lua_type(L, -2) == LUA_TNUMBER)
                        luaL_error(L, "%s: a value without a name (item %s)", what, luaL_tolstring(L, -2, NULL));
                if (lua_type(L, -2) != LUA_TSTRING)
                        luaL_error(L, "%s: the name of an option is a %s", what, luaL_typename(L, -2));
                key.p = lua_tolstring(L, -2, &key.n);
                while (i < n && !str_eq(key, str_of(names[i])))
                        i++;
                if (i == n)
                        face_unknown(L, lua_pushfstring(L, "option of %s", what), key, names, n);
        }
}

struct str options_str(lua_State *L, int idx, const char *name, struct arena *a)
{
        struct str s = STR_NONE;

        if (lua_isnoneornil(L, idx))
                return s;
        if (lua_getfield(L, idx, name) == LUA_TSTRING) {
                s.p = lua_tolstring(L, -1, &s.n);
                s = state_keep(L, a, s);
        } else if (!lua_isnil(L, -1)) {
                luaL_error(L, "option %s: a string is expected, not a %s", name, luaL_typename(L, -1));
        }
        lua_pop(L, 1);
        return s;
}

bool options_bool(lua_State *L, int idx, const char *name, bool otherwise)
{
        if (lua_isnoneornil(L, idx))
                return otherwise;
        if (lua_getfield(L, idx, name) == LUA_TBOOLEAN)
                otherwise = lua_toboolean(L, -1);
        else if (!lua_isnil(L, -1))
                luaL_error(L, "option %s: true or false is expected, not a %s", name, luaL_typename(L, -1));
        lua_pop(L, 1);
        return otherwise;
}

const struct str *options_list(lua_State *L, int idx, const char *what, size_t max, struct arena *a, size_t *n)
{
        struct str *list;
        size_t count;

        *n = 0;
        if (lua_isnoneornil(L, idx))
                return NULL;
        idx = lua_absindex(L, idx);
        if (lua_type(L, idx) == LUA_TSTRING) {
                list = state_alloc(L, a, sizeof *list);
                list[0] = state_keep(L, a, face_check_str(L, idx));
                *n = 1;
                return list;
        }
        if (lua_type(L, idx) != LUA_TTABLE)
                luaL_error(L, "%s: a string or a list of strings is expected, not a %s", what, luaL_typename(L, idx));
        count = (size_t)luaL_len(L, idx);
        if (count > max)
                luaL_error(L, "%s: %d are too many (at most %d)", what, (int)count, (int)max);
        list = state_alloc(L, a, (count + 1) * sizeof *list);
        for (size_t i = 0; i < count; i++) {
                struct str s;
                int type = lua_geti(L, idx, (lua_Integer)i + 1);
                if (type != LUA_TSTRING && type != LUA_TNUMBER)
                        luaL_error(L, "%s: item %d is a %s, not a string", what, (int)i + 1, luaL_typename(L, -1));
                s.p = lua_tolstring(L, -1, &s.n);
                list[i] = state_keep(L, a, s);
                lua_pop(L, 1);
        }
        *n = count;
        return list;
}

void options_plain(lua_State *L, const char *what, struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] == '\r' || s.p[i] == '\n' || s.p[i] == '\0')
                        luaL_error(L, "%s has a %s in it", what, s.p[i] == '\r' ? "CR" : s.p[i] == '\n' ? "line feed" : "NUL");
}
