/* What the analysers of analyse.py can't see in a single file; included before each but core/mem.c. */
#include <stddef.h>

#if defined __GNUC__ && !defined __clang__ /* use after free, freed twice, NULL that was not looked for */
#define FREED_BY_MEM_FREE __attribute__((malloc(mem_free, 1)))

void mem_free(void *p);
void *mem_alloc(size_t n) FREED_BY_MEM_FREE;
void *mem_zero(size_t n) FREED_BY_MEM_FREE;
void *mem_array(size_t n, size_t size) FREED_BY_MEM_FREE;
char *mem_dup(const char *p, size_t n) FREED_BY_MEM_FREE;
#endif

#ifdef WITH_LUA /* these never return */
#include <lauxlib.h>
#include <lua.h>

__attribute__((noreturn)) int lua_error(lua_State *L);
__attribute__((noreturn)) int luaL_error(lua_State *L, const char *fmt, ...);
__attribute__((noreturn)) int luaL_argerror(lua_State *L, int arg, const char *what);
__attribute__((noreturn)) int luaL_typeerror(lua_State *L, int arg, const char *name);
#endif
