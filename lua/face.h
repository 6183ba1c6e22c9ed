/* What the bindings share. One file a class, each exporting one luaopen_*; everything Lua sees of a message goes through here.
 *
 * Documentation: above each entry of a binding's table stands a block that begins with three stars; its first line is the signature,
 * further lines say arguments with units, what comes back, errors, the RFC; a line "option NAME: …" documents an option key. lua/doc.lua makes
 * the API reference and the name tables of `mailmill check` from these blocks, and lint fails where one is missing:
 *
 *         / *** m.subject -> string
 *          * The Subject decoded to UTF-8 (RFC 5322 3.6.5, RFC 2047); empty when absent, never nil. * /
 *         { "subject", get_subject },
 */
#ifndef LUA_FACE_H
#define LUA_FACE_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "core/plan.h"

#define FACE_MESSAGE "mailmill.message"
#define FACE_PART "mailmill.part"
#define FACE_LIST "mailmill.list"
#define FACE_LIST_NAMED FACE_LIST ".named" /* its items are also keys */

/* The box of a message: closed (plan NULL) once its handler is over, and then it answers "the message is closed". */
struct face_message {
        struct plan *plan;
};

/* Pushes the box of this plan's message: the same box every time while the handler runs. */
void face_push_message(lua_State *L, struct plan *p);
/* Closes it: every message, part, reader and list item of it answers "the message is closed" from now on. Never raises. */
void face_close_message(lua_State *L, struct plan *p);
/* The plan behind argument idx; raises when it is no message or closed. A part's is that of its message. */
struct plan *face_check_plan(lua_State *L, int idx);
/* A message or a part at idx as a part (the message: its root part). *plan may be NULL. */
struct part *face_check_part(lua_State *L, int idx, struct plan **plan);
void face_push_part(lua_State *L, int message_idx, struct part *p); /* the same box for the same part */
/* Turns the table (a sequence) on top of the stack into a list: #, [i], ipairs, for x in list, nested, after break, equal elements. */
void face_make_list(lua_State *L);
/* Adds methods to a class, for files that add a subject to it (effects to messages). */
void face_add_methods(lua_State *L, const char *class_name, const luaL_Reg *methods);

void face_push_str(lua_State *L, struct str s);          /* {NULL,0}: nil */
struct str face_check_str(lua_State *L, int idx);
struct str face_opt_str(lua_State *L, int idx);          /* none or nil: {NULL,0} */
int face_fail(lua_State *L, const struct err *e);        /* nil, sentence, code: misfortune. Returns 3 */
int face_raise(lua_State *L, const struct err *e);       /* misuse */
/* Raises "unknown WHAT 'name' (did you mean 'near'?)" */
int face_unknown(lua_State *L, const char *what, struct str name, const char *const *names, size_t n);
/* A size at idx: bytes as a number, or "5 MB", "5 MiB", "20 kB"; raises otherwise. A time span: seconds, or "30 days". */
uint64_t face_check_size(lua_State *L, int idx);
int64_t face_check_span(lua_State *L, int idx);

/* The plan being decided on this state right now (for mail.store, mail.seen, part:pipe), or NULL at top level. */
struct plan *face_current(lua_State *L);
void face_set_current(lua_State *L, struct plan *p);
/* The name of the rule whose action runs, for effects; empty outside. */
struct str face_rule(lua_State *L);

#endif
