/* The doors of the face: what the engine opens, and the few things that the classes share among themselves. */
#ifndef LUA_OPEN_H
#define LUA_OPEN_H

#include "lua/face.h"

/* Opens everything below on a state with Lua's own libraries: classes, the string metatable, `re`, `json`, `log` and `print` as globals, and the C
 * modules in package.preload by the names that the library modules require ("mail.primitives"). The modules in Lua (mail.match, mail.csv)
 * are found by `require`, which is the engine's: m:matches and filters need mail.match to have been required before the first message. */
void face_open(lua_State *L);

int luaopen_list(lua_State *L);
int luaopen_message(lua_State *L);
int luaopen_part(lua_State *L);
int luaopen_reader(lua_State *L);
int luaopen_text(lua_State *L);   /* what every string answers */
int luaopen_re(lua_State *L);     /* the table `re`: callable, re.match */
int luaopen_json(lua_State *L);   /* the table `json` */
int luaopen_log(lua_State *L);    /* the table `log`; sets the global print */
void log_end(void);               /* says how many lines were dropped since the last that was written */
int luaopen_match(lua_State *L);  /* mail.primitives: what mail/match.lua is written with */

/* The rule whose action is about to run for the current plan: its name at idx, or nil. Forgotten when the message closes. */
void face_set_rule(lua_State *L, int idx);

#endif
