#include "lua/face.h"

#include <math.h>

#include "core/date.h"
#include "core/glob.h"
#include "core/log.h"
#include "lua/class.h"
#include "lua/open.h"

/* Registry keys: their addresses. */
static const char key_current, key_rules;

void face_push_str(lua_State *L, struct str s)
{
        if (s.p)
                lua_pushlstring(L, s.p, s.n);
        else
                lua_pushnil(L);
}

/* A number is no text here: where a script writes 5 for "5" it has mixed something up. */
struct str face_check_str(lua_State *L, int idx)
{
        struct str s;
        luaL_checktype(L, idx, LUA_TSTRING);
        s.p = lua_tolstring(L, idx, &s.n);
        return s;
}

struct str face_opt_str(lua_State *L, int idx)
{
        return lua_isnoneornil(L, idx) ? STR_NONE : face_check_str(L, idx);
}

int face_fail(lua_State *L, const struct err *e)
{
        lua_pushnil(L);
        lua_pushstring(L, e->text);
        lua_pushstring(L, err_code_name(e->code));
        return 3;
}

/* A failure of this machine goes through the script as an error like any other; whoever catches the error at its end finds here what it was. */
int face_raise(lua_State *L, const struct err *e)
{
        if (e->sys || e->code == ERR_IO || e->code == ERR_FULL || e->code == ERR_NOMEM) {
                lua_pushinteger(L, e->code == ERR_FULL || e->code == ERR_NOMEM ? e->code : ERR_IO);
                lua_setfield(L, LUA_REGISTRYINDEX, "mailmill.machine");
                lua_pushstring(L, e->text);
                lua_setfield(L, LUA_REGISTRYINDEX, "mailmill.machine.text");
        }
        return luaL_error(L, "%s", e->text);
}

/* `what` may go on after its noun ("field of a message"): the name stands behind the noun. */
int face_unknown(lua_State *L, const char *what, struct str name, const char *const *names, size_t n)
{
        size_t noun = strcspn(what, " ");
        const char *near = glob_nearest(name, names, n);
        char shown[128];
        log_escape(str_first(name, 40), shown, sizeof shown);
        lua_pushlstring(L, what, noun);
        if (near)
                return luaL_error(L, "unknown %s '%s'%s (did you mean '%s'?)", lua_tostring(L, -1), shown, what + noun, near);
        return luaL_error(L, "unknown %s '%s'%s", lua_tostring(L, -1), shown, what + noun);
}

static const struct unit {
        const char *name;
        double bytes;
} units[] = {
        { "b", 1 },           { "byte", 1 },        { "bytes", 1 },      { "kb", 1e3 },           { "mb", 1e6 },
        { "gb", 1e9 },        { "tb", 1e12 },       { "kib", 1024 },     { "mib", 1048576 },      { "gib", 1073741824 },
        { "tib", 1099511627776 },
};

/* "20 kB", "1.5 MiB": a plain decimal, blanks, a unit. Not strtod: that reads hex, "inf" and the locale's comma. */
static bool size_parse(struct str s, uint64_t *out)
{
        double value = 0, scale = 1;
        size_t at = 0;
        s = str_trim(s);
        if (s.n == 0 || s.n > 40 || !ascii_is_digit(s.p[0]))
                return false;
        for (; at < s.n && ascii_is_digit(s.p[at]); at++)
                value = value * 10 + (s.p[at] - '0');
        if (at + 1 < s.n && s.p[at] == '.' && ascii_is_digit(s.p[at + 1]))
                for (at++; at < s.n && ascii_is_digit(s.p[at]); at++)
                        value += (s.p[at] - '0') * (scale /= 10);
        s = str_trim(str_from(s, at));
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
                if (!str_eq_nocase(s, str_of(units[i].name)))
                        continue;
                value = round(value * units[i].bytes);
                if (value >= 9e18)
                        return false;
                *out = (uint64_t)value;
                return true;
        }
        return false;
}

uint64_t face_check_size(lua_State *L, int idx)
{
        uint64_t n;
        if (lua_type(L, idx) == LUA_TNUMBER) {
                lua_Number v = lua_tonumber(L, idx);
                luaL_argcheck(L, v >= 0 && v < 9e18, idx, "a size is a number of bytes, 0 or more");
                return lua_isinteger(L, idx) ? (uint64_t)lua_tointeger(L, idx) : (uint64_t)v;
        }
        if (lua_type(L, idx) != LUA_TSTRING || !size_parse(face_check_str(L, idx), &n)) {
                luaL_tolstring(L, idx, NULL);
                luaL_error(L, "'%s' is no size (write bytes as a number, or \"5 MB\", \"5 MiB\", \"20 kB\")", lua_tostring(L, -1));
                return 0;
        }
        return n;
}

int64_t face_check_span(lua_State *L, int idx)
{
        int64_t n;
        if (lua_type(L, idx) == LUA_TNUMBER) {
                lua_Number v = lua_tonumber(L, idx);
                luaL_argcheck(L, v >= 0 && v < 9e18, idx, "a time span is a number of seconds, 0 or more");
                return lua_isinteger(L, idx) ? (int64_t)lua_tointeger(L, idx) : (int64_t)v;
        }
        if (lua_type(L, idx) != LUA_TSTRING || !date_duration(face_check_str(L, idx), &n)) {
                luaL_tolstring(L, idx, NULL);
                luaL_error(L, "'%s' is no time span (write seconds as a number, or \"30 days\", \"36 h\")", lua_tostring(L, -1));
                return 0;
        }
        return n;
}

struct plan *face_current(lua_State *L)
{
        struct plan *p;
        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_current);
        p = lua_touserdata(L, -1);
        lua_pop(L, 1);
        return p;
}

void face_set_current(lua_State *L, struct plan *p)
{
        if (p)
                lua_pushlightuserdata(L, p);
        else
                lua_pushnil(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_current);
}

/* Rules by plan: while one handler waits, the action of another rule runs for another message. */
void face_set_rule(lua_State *L, int idx)
{
        struct plan *p = face_current(L);
        if (!p)
                return;
        idx = lua_absindex(L, idx);
        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_rules);
        lua_pushvalue(L, idx);
        lua_rawsetp(L, -2, p);
        lua_pop(L, 1);
}

struct str face_rule(lua_State *L)
{
        struct str s = STR("");
        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_rules);
        if (lua_rawgetp(L, -1, face_current(L)) == LUA_TSTRING)
                s.p = lua_tolstring(L, -1, &s.n); /* the registry keeps it */
        lua_pop(L, 2);
        return s;
}

void face_forget_rule(lua_State *L, struct plan *p)
{
        if (lua_rawgetp(L, LUA_REGISTRYINDEX, &key_rules) == LUA_TTABLE) {
                lua_pushnil(L);
                lua_rawsetp(L, -2, p);
        }
        lua_pop(L, 1);
}

/* Classes */

enum { CLASS_SPEC = 1, CLASS_MEMBERS };  /* upvalues of __index: the class, and by name its methods and (as pointers) its fields */
enum { KEPT_LONGER = 40 };               /* Lua looks shorter strings up before it makes them */

/* The metatable of io's files is open to a script; a pointer of ours it can't write there. */
const struct class_spec *class_of(lua_State *L, int idx)
{
        const struct class_spec *spec;
        if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx))
                return NULL;
        lua_rawgeti(L, -1, CLASS_SPEC);
        spec = lua_islightuserdata(L, -1) ? lua_touserdata(L, -1) : NULL;
        lua_pop(L, 2);
        return spec;
}

static size_t names_add(lua_State *L, int table, const char **names, size_t n)
{
        for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
                if (names)
                        names[n] = lua_tostring(L, -2);
                n++;
        }
        return n;
}

static int unknown_member(lua_State *L, const struct class_spec *spec)
{
        size_t n;
        const char **names;
        if (lua_type(L, 2) != LUA_TSTRING)
                return luaL_error(L, "a %s has no field [%s]", spec->noun, luaL_tolstring(L, 2, NULL));
        n = names_add(L, lua_upvalueindex(CLASS_MEMBERS), NULL, 0);
        names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
        names_add(L, lua_upvalueindex(CLASS_MEMBERS), names, 0);
        return face_unknown(L, lua_pushfstring(L, "field of a %s", spec->noun), face_check_str(L, 2), names, n);
}

static bool is_live(const struct class_spec *spec, const luaL_Reg *field)
{
        for (const luaL_Reg *l = spec->live; l && l->name; l++)
                if (l == field)
                        return true;
        return false;
}

/* Is the value on top worth a place in a table? The core keeps its answers: a number or a short string is as soon made again. */
static bool is_worth_keeping(lua_State *L)
{
        switch (lua_type(L, -1)) {
        case LUA_TNIL:
        case LUA_TNUMBER:
                return false;
        case LUA_TSTRING:
                return lua_rawlen(L, -1) > KEPT_LONGER;
        default:
                return true;
        }
}

void class_push_kept(lua_State *L, int idx)
{
        idx = lua_absindex(L, idx);
        if (lua_getiuservalue(L, idx, UV_KEPT) == LUA_TTABLE)
                return;
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, idx, UV_KEPT);
}

/* The box at 1, the key at 2. A getter asks by itself whether the box is open. */
static int get_kept(lua_State *L, const struct class_spec *spec, const luaL_Reg *field)
{
        if (lua_getiuservalue(L, 1, UV_KEPT) == LUA_TTABLE) {
                spec->open(L);
                lua_pushvalue(L, 2);
                if (lua_rawget(L, -2) != LUA_TNIL)
                        return 1;
        }
        lua_settop(L, 2);
        field->func(L);
        if (is_worth_keeping(L)) {
                class_push_kept(L, 1);
                lua_pushvalue(L, 2);
                lua_pushvalue(L, -3);
                lua_rawset(L, -3);
                lua_pop(L, 1);
        }
        return 1;
}

static int class_index(lua_State *L)
{
        const struct class_spec *spec = lua_touserdata(L, lua_upvalueindex(CLASS_SPEC));
        const luaL_Reg *field;
        lua_settop(L, 2);
        lua_pushvalue(L, 2);
        switch (lua_rawget(L, lua_upvalueindex(CLASS_MEMBERS))) {
        case LUA_TNIL:
                spec->open(L);
                return unknown_member(L, spec);
        case LUA_TLIGHTUSERDATA:
                field = lua_touserdata(L, -1);
                lua_settop(L, 2);
                return is_live(spec, field) ? field->func(L) : get_kept(L, spec, field);
        default:
                spec->open(L);
                return 1;
        }
}

/* Adds the fields to the table on top, as pointers. */
static void add_fields(lua_State *L, const luaL_Reg *fields)
{
        for (; fields && fields->name; fields++) {
                lua_pushlightuserdata(L, (void *)fields);
                lua_setfield(L, -2, fields->name);
        }
}

void class_new(lua_State *L, const struct class_spec *spec)
{
        luaL_newmetatable(L, spec->name);
        luaL_setfuncs(L, spec->meta, 0);
        lua_pushstring(L, spec->noun);
        lua_setfield(L, -2, "__name");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_pushlightuserdata(L, (void *)spec);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, CLASS_SPEC);
        lua_newtable(L);
        luaL_setfuncs(L, spec->methods, 0);
        add_fields(L, spec->fields);
        add_fields(L, spec->live);
        lua_pushvalue(L, -1);
        lua_setfield(L, -4, "members");
        lua_pushcclosure(L, class_index, 2);
        lua_setfield(L, -2, "__index");
        lua_pop(L, 1);
}

void face_add_methods(lua_State *L, const char *class_name, const luaL_Reg *methods)
{
        luaL_getmetatable(L, class_name);
        lua_getfield(L, -1, "members");
        luaL_setfuncs(L, methods, 0);
        lua_pop(L, 2);
}

static void open_global(lua_State *L, lua_CFunction open, const char *global)
{
        lua_pushcfunction(L, open);
        lua_call(L, 0, 1);
        if (global)
                lua_setglobal(L, global);
        else
                lua_pop(L, 1);
}

void face_open(lua_State *L)
{
        lua_newtable(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_rules);
        open_global(L, luaopen_list, NULL);
        open_global(L, luaopen_message, NULL);
        open_global(L, luaopen_part, NULL);
        open_global(L, luaopen_text, NULL);
        open_global(L, luaopen_re, "re");
        open_global(L, luaopen_json, "json");
        open_global(L, luaopen_log, "log");
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
        lua_pushcfunction(L, luaopen_match);
        lua_setfield(L, -2, "mail.primitives");
        lua_pop(L, 1);
}
