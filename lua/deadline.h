/* CPU time of handlers. No hook stands while a handler runs: a timer on the thread's CPU clock asks for one when the time is up.
 *
 * It stops Lua code, also in loops over pcall, xpcall and coroutines. What it can't stop (pattern matching inside C, finalizers) the
 * supervisor does, at three times the limit. */
#ifndef LUA_DEADLINE_H
#define LUA_DEADLINE_H

#include <lua.h>

#include "core/err.h"

/* Lua code runs on L from now on, for at most `seconds` of this thread's CPU; ticks: what it had used before (0 at first). */
bool deadline_begin(lua_State *L, double seconds, unsigned ticks, struct err *e) MUST_CHECK;
unsigned deadline_end(void);          /* ticks used so far */
bool deadline_passed(void);
/* The running state changes: a coroutine is entered or left. Returns the one before. Both are cheap. */
lua_State *deadline_enter(lua_State *co);
void deadline_leave(lua_State *before);
/* Raises when the time is up. */
void deadline_check(lua_State *L);

/* coroutine.resume, wrap and close that know about it; and xpcall, whose handler would otherwise run where no hook does. */
int luaopen_deadline(lua_State *L);   /* changes the globals */

#endif
