/* Reading the tables of declarations, mail.account { … } and its like: the table stands at 1. What is wrong is a problem more
 * (state_complain), and the value counts as absent; nothing here raises but for lack of memory. */
#ifndef LUA_DECLARE_H
#define LUA_DECLARE_H

#include "lua/state.h"

/* Complains of keys that are none of the names. what: "mail.account". */
void declare_keys(lua_State *L, int idx, const char *what, const char *const *names, size_t n);
struct str declare_text(lua_State *L, const char *what, const char *name);     /* in the engine's arena; {NULL,0} when absent */
struct str declare_required(lua_State *L, const char *what, const char *name);
bool declare_flag(lua_State *L, const char *what, const char *name);
int64_t declare_integer(lua_State *L, const char *what, const char *name, int64_t min, int64_t max, int64_t otherwise);
int64_t declare_span(lua_State *L, const char *what, const char *name, int64_t otherwise);
/* The value on top of the stack read by declare_as_span or declare_as_size; leaves the table alone on the stack. */
int64_t declare_measured(lua_State *L, lua_CFunction f, const char *what, const char *name, int64_t otherwise);
int declare_as_span(lua_State *L);
int declare_as_size(lua_State *L);
/* A folder's name, or false: {NULL,0}. *own: it was said. */
struct str declare_inbox(lua_State *L, int idx, const char *what, bool *own);

/* laccount.c: the bodies of mail.account and mail.smarthost. */
int declare_account(lua_State *L);
int declare_smarthost(lua_State *L);

#endif
