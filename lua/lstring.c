/* What every string answers: Lua's own methods, .user .detail .domain, and :contains. Addresses are strings. */
#include <string.h>

#include "core/charset.h"
#include "core/glob.h"
#include "lua/open.h"

static int get_user(lua_State *L)
{
        struct str s = addr_user_of(face_check_str(L, 1));
        lua_pushlstring(L, s.p ? s.p : "", s.p ? s.n : 0);
        return 1;
}

static int get_detail(lua_State *L)
{
        struct str s = addr_detail_of(face_check_str(L, 1));
        lua_pushlstring(L, s.p ? s.p : "", s.p ? s.n : 0);
        return 1;
}

static int get_domain(lua_State *L)
{
        struct str s = addr_domain_of(face_check_str(L, 1));
        lua_pushlstring(L, s.p ? s.p : "", s.p ? s.n : 0);
        return 1;
}

static bool is_ascii(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] >= 0x80)
                        return false;
        return true;
}

/* The needle folded as globs fold is the pattern *needle* with what globs give a meaning taken literally. */
static bool contains_folded(lua_State *L, struct str text, struct str needle)
{
        luaL_Buffer b;
        struct str pattern;
        luaL_buffinit(L, &b);
        luaL_addchar(&b, '*');
        for (size_t i = 0; i < needle.n; i++) {
                if (memchr("*?[]\\", needle.p[i], 5))
                        luaL_addchar(&b, '\\');
                luaL_addchar(&b, needle.p[i]);
        }
        luaL_addchar(&b, '*');
        luaL_pushresult(&b);
        pattern.p = lua_tolstring(L, -1, &pattern.n);
        return glob_match(pattern, text);
}

static struct str push_lower(lua_State *L, struct str s)
{
        luaL_Buffer b;
        char *p = luaL_buffinitsize(L, &b, s.n);
        struct str out;

        for (size_t i = 0; i < s.n; i++)
                p[i] = ascii_lower(s.p[i]);
        luaL_pushresultsize(&b, s.n);
        out.p = lua_tolstring(L, -1, &out.n);
        return out;
}

/* A long needle of one letter in a long text of the same would take the product of both: memmem takes their sum. */
static bool contains_long(lua_State *L, struct str text, struct str needle)
{
        struct str t = push_lower(L, text), n = push_lower(L, needle);

        return memmem(t.p, t.n, n.p, n.n) != NULL;
}

static int method_contains(lua_State *L)
{
        enum { LONG = 64 };
        struct str text = face_check_str(L, 1), needle = face_check_str(L, 2);
        bool found;
        if (needle.n == 0)
                found = true;
        else if (is_ascii(needle) && needle.n > LONG && needle.n <= text.n)
                found = contains_long(L, text, needle);
        else if (is_ascii(needle))
                found = str_find_str_nocase(text, needle) < text.n;
        else
                found = contains_folded(L, text, needle);
        lua_pushboolean(L, found);
        return 1;
}

static const luaL_Reg fields[] = {
        /*** s.user -> string
         * Of an address: what stands before the @, without +detail. Empty when there is no @. */
        { "user", get_user },
        /*** s.detail -> string
         * Of an address: what stands between the first + and the @ ("lead" in me+lead@example.org); empty when there is none. */
        { "detail", get_detail },
        /*** s.domain -> string
         * Of an address: what stands behind the @. Empty when there is no @. */
        { "domain", get_domain },
        { NULL, NULL },
};

static const luaL_Reg methods[] = {
        /*** s:contains(text) -> boolean
         * Whether text stands anywhere in s: plain, no pattern, capital and small letters alike. */
        { "contains", method_contains },
        { NULL, NULL },
};

enum { UP_STRING = 1, UP_FIELDS };

static size_t add_names(lua_State *L, int table, const char **names, size_t n)
{
        for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
                if (lua_type(L, -2) == LUA_TSTRING) {
                        if (names)
                                names[n] = lua_tostring(L, -2);
                        n++;
                }
        return n;
}

static int unknown(lua_State *L)
{
        size_t n = add_names(L, lua_upvalueindex(UP_FIELDS), NULL, add_names(L, lua_upvalueindex(UP_STRING), NULL, 0));
        const char **names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
        add_names(L, lua_upvalueindex(UP_FIELDS), names, add_names(L, lua_upvalueindex(UP_STRING), names, 0));
        return face_unknown(L, "field of a string", face_check_str(L, 2), names, n);
}

/* Through the table `string`, so that what a script adds there is a method as ever. */
static int string_index(lua_State *L)
{
        lua_settop(L, 2);
        lua_pushvalue(L, 2);
        if (lua_rawget(L, lua_upvalueindex(UP_STRING)) != LUA_TNIL)
                return 1;
        lua_pushvalue(L, 2);
        if (lua_rawget(L, lua_upvalueindex(UP_FIELDS)) != LUA_TNIL)
                return lua_tocfunction(L, -1)(L);
        if (lua_type(L, 2) == LUA_TSTRING)
                return unknown(L);
        lua_pushnil(L);
        return 1;
}

int luaopen_text(lua_State *L)
{
        lua_pushliteral(L, "");
        if (!lua_getmetatable(L, -1))
                return luaL_error(L, "the string library is not open");
        lua_getglobal(L, LUA_STRLIBNAME);
        luaL_setfuncs(L, methods, 0);
        luaL_newlib(L, fields);
        lua_pushcclosure(L, string_index, 2);
        lua_setfield(L, -2, "__index");
        lua_pop(L, 2);
        return 0;
}
