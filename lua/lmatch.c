/* mail.primitives: what mail/match.lua cannot say in Lua. */
#include <string.h>

#include "core/date.h"
#include "core/glob.h"
#include "lua/open.h"

static int prim_glob(lua_State *L)
{
        struct str pattern = face_check_str(L, 1);
        lua_pushboolean(L, glob_match(pattern, face_check_str(L, 2)));
        return 1;
}

static int prim_nearest(lua_State *L)
{
        struct str name = face_check_str(L, 1);
        size_t n;
        const char **names;
        luaL_checktype(L, 2, LUA_TTABLE);
        n = lua_rawlen(L, 2);
        names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
        for (size_t i = 0; i < n; i++) {
                lua_rawgeti(L, 2, (lua_Integer)i + 1);
                luaL_checktype(L, -1, LUA_TSTRING);
                names[i] = lua_tostring(L, -1); /* the list keeps it */
                lua_pop(L, 1);
        }
        lua_pushstring(L, glob_nearest(name, names, n)); /* NULL: nil */
        return 1;
}

static int prim_size(lua_State *L)
{
        lua_pushinteger(L, (lua_Integer)face_check_size(L, 1));
        return 1;
}

static int prim_span(lua_State *L)
{
        int64_t n;
        if (!date_duration(face_check_str(L, 1), &n))
                return 0;
        lua_pushinteger(L, (lua_Integer)n);
        return 1;
}

static int prim_kind(lua_State *L)
{
        if (luaL_testudata(L, 1, FACE_MESSAGE))
                lua_pushliteral(L, "message");
        else if (luaL_testudata(L, 1, FACE_PART))
                lua_pushliteral(L, "part");
        else if (luaL_testudata(L, 1, "mailmill.re"))
                lua_pushliteral(L, "re");
        else
                lua_pushnil(L);
        return 1;
}

static int prim_declared(lua_State *L)
{
        lua_pushboolean(L, part_field(face_check_part(L, 1, NULL), STR("Content-Type")).p != NULL);
        return 1;
}

/* An error of the person who called the library: with the place in their script, not in the module's. Frames of C and of the chunk that
 * calls this are passed over. */
static int prim_blame(lua_State *L)
{
        lua_Debug ar;
        char own[LUA_IDSIZE] = "";
        luaL_checkstring(L, 1);
        for (int level = 1; lua_getstack(L, level, &ar); level++) {
                lua_getinfo(L, "Sl", &ar);
                if (level == 1)
                        memcpy(own, ar.short_src, sizeof own);
                if (ar.currentline > 0 && strcmp(ar.short_src, own) != 0) {
                        lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
                        lua_insert(L, 1);
                        lua_concat(L, 2);
                        break;
                }
        }
        lua_settop(L, 1);
        return lua_error(L);
}

static const luaL_Reg functions[] = {
        /*** primitives.glob(pattern, text) -> boolean
         * The caseless glob over the whole of text. */
        { "glob", prim_glob },
        /*** primitives.nearest(name, names) -> string or nil
         * The one of names that was probably meant. */
        { "nearest", prim_nearest },
        /*** primitives.size(value) -> integer
         * Bytes of a number or "5 MB"; raises otherwise. */
        { "size", prim_size },
        /*** primitives.span(text) -> integer or nil
         * Seconds of "30 days"; nil when it is no time span. */
        { "span", prim_span },
        /*** primitives.kind(value) -> "message", "part", "re" or nil
         * What of ours a value is. */
        { "kind", prim_kind },
        /*** primitives.declared(part) -> boolean
         * Whether the part has a Content-Type of its own. */
        { "declared", prim_declared },
        /*** primitives.blame(sentence)
         * Raises it with the place in the script that called the library. */
        { "blame", prim_blame },
        { NULL, NULL },
};

int luaopen_match(lua_State *L)
{
        luaL_newlib(L, functions);
        return 1;
}
