/* CPU time of the script. No hook stands while it runs: a timer on the thread's CPU clock asks for one when the time is up.
 *
 * It stops Lua code, also in loops over pcall, xpcall and coroutines. What it can't stop (pattern matching inside C, finalizers) ends the
 * worker at twice the limit, and should even that fail, the supervisor does at three times. */
#ifndef LUA_DEADLINE_H
#define LUA_DEADLINE_H

#include <lua.h>

#include "core/err.h"

/* Lua code runs on L from now on, for at most `seconds` of this thread's CPU; ticks: what it had used before (0 at first). */
bool deadline_begin(lua_State *L, double seconds, unsigned ticks, struct err *e) MUST_CHECK;
/* All is done but the script's finalizers: one that does not end ends the program, with this code (or, for 0, a script error's) and a word. */
void deadline_last(int code);
unsigned deadline_end(void);          /* ticks used so far */
void deadline_forget(void);           /* the same where the state is gone */
bool deadline_passed(void);
bool deadline_running(void);          /* between begin and end */
bool deadline_change(double seconds, struct err *e) MUST_CHECK; /* another limit for what runs; its time begins anew in part */
enum { DEADLINE_TEXT_MAX = 128 };
void deadline_text(char *out, size_t n); /* "rules.lua:7: the script used more than 5 s of CPU …", once it passed */
/* The running state changes: a coroutine is entered or left. Returns the one before. Both are cheap. */
lua_State *deadline_enter(lua_State *co);
void deadline_leave(lua_State *before);
/* Does not return when the time is up: raises, or yields for the gate to see. */
void deadline_check(lua_State *L);
void deadline_own(lua_State *L);      /* the coroutine on top of the stack is a handler's: a script can neither resume nor close it */
int deadline_close(lua_State *co);    /* lua_resetthread, whose __close run bounded, too */

/* coroutine.resume, wrap and close that know about it; and xpcall, whose handler would otherwise run where no hook does. */
int luaopen_deadline(lua_State *L);   /* changes the globals */

#endif
