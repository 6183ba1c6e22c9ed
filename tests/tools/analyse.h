/* What lua.h doesn't say and the analysers of tests/tools/analyse.py need to know: these never return. Included before every file of lua/. */
#include <lauxlib.h>
#include <lua.h>

__attribute__((noreturn)) int lua_error(lua_State *L);
__attribute__((noreturn)) int luaL_error(lua_State *L, const char *fmt, ...);
__attribute__((noreturn)) int luaL_argerror(lua_State *L, int arg, const char *what);
__attribute__((noreturn)) int luaL_typeerror(lua_State *L, int arg, const char *name);
