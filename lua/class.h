/* Classes: a userdata whose fields are computed when first read and kept in its first user value. Shared by the files of the face. */
#ifndef LUA_CLASS_H
#define LUA_CLASS_H

#include "lua/face.h"

enum class_kind { CLASS_MESSAGE, CLASS_PART };

struct class_spec {
        enum class_kind kind;
        const char *name;         /* FACE_MESSAGE */
        const char *noun;         /* "message", for error texts */
        void (*open)(lua_State *L); /* raises when the box at 1 is closed; everything read of a box asks it first */
        const luaL_Reg *fields;   /* get(box) pushes one value; what is large or an object is kept */
        const luaL_Reg *live;     /* the same, asked anew each time; may be NULL */
        const luaL_Reg *methods;
        const luaL_Reg *meta;
};
/* Makes the class known to luaL_checkudata and face_add_methods. */
void face_forget_rule(lua_State *L, struct plan *p); /* never raises */

void class_new(lua_State *L, const struct class_spec *spec);

/* The class of the value at idx; NULL: none of ours. */
const struct class_spec *class_of(lua_State *L, int idx);
/* The table in which the box at idx keeps its fields. */
void class_push_kept(lua_State *L, int idx);

struct reader_box;
struct message_box {
        struct face_message face;      /* first: what other files see */
        struct reader_box *readers;    /* open ones, closed with the message */
};
/* User values: 1 kept fields, 2 (message) parts by pointer, 2 (part) the message's box. */
enum { UV_KEPT = 1, UV_PARTS = 2, UV_MESSAGE = 2 };

/* The open box at idx, or an error. */
struct message_box *message_box_check(lua_State *L, int idx);
/* The box of the message that the value at idx (a message or a part) belongs to, pushed. */
struct message_box *message_box_push(lua_State *L, int idx);
void readers_close(struct message_box *b);
/* Pushes the list of those of n parts that pass the filter at idx (none, nil: all of them). message_idx: the message's box. */
int parts_push(lua_State *L, int message_idx, struct part *const *parts, size_t n, int filter_idx);
/* Whether the filter at idx says unpack = true. */
bool filter_unpacks(lua_State *L, int idx);
/* What a message and a part share, over face_check_part. */
int part_get_sha256(lua_State *L);
int part_get_signature(lua_State *L);
int part_get_encrypted(lua_State *L);
/* Pushes the signature of p or nil, 1; 0 with *e on failure. */
int signature_push(lua_State *L, struct part *p, struct str ca, int64_t at, struct err *e);
int part_get_alternative(lua_State *L);
int part_method_lines(lua_State *L);
int part_method_reader(lua_State *L);

/* A list that also answers names: the metatable of m.defects, for the table on top of the stack. */
void list_make_named(lua_State *L);

#endif
