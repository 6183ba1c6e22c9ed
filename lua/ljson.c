/* JSON (RFC 8259), strict both ways: what is decoded is encoded again as the same document. */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/buf.h"
#include "core/charset.h"
#include "lua/open.h"

enum {
        DEPTH_MAX = 128,              /* arrays and objects inside each other; also bounds our recursion */
        ENCODED_MAX = 64 * 1024 * 1024,
};

#define FACE_JSON_ARRAY "mailmill.json.array"
#define FACE_JSON_BUF "mailmill.json.buf"

static char null_at; /* json.null is the light userdata of this address */

/* Encoding. The text grows in a box of its own, so that an error on the way leaks nothing. */

static int buf_gc(lua_State *L)
{
        buf_free(lua_touserdata(L, 1));
        return 0;
}

static struct buf *push_buf(lua_State *L)
{
        struct buf *b = lua_newuserdatauv(L, sizeof *b, 0);
        buf_init(b, ENCODED_MAX);
        luaL_setmetatable(L, FACE_JSON_BUF);
        return b;
}

static void encode_string(lua_State *L, struct buf *out, struct str s)
{
        if (!utf8_valid(s))
                luaL_error(L, "json.encode: a string is not UTF-8 (%d bytes)", (int)s.n);
        buf_add_char(out, '"');
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                static const char names[] = "btn?fr"; /* 8, 9, 10, 12, 13 */
                if (c == '"' || c == '\\')
                        buf_printf(out, "\\%c", c);
                else if (c >= 8 && c <= 13 && c != 11)
                        buf_printf(out, "\\%c", names[c - 8]);
                else if (c < 0x20 || c == 0x7f)
                        buf_printf(out, "\\u%04x", c);
                else
                        buf_add_char(out, (char)c);
        }
        buf_add_char(out, '"');
}

/* A short form that reads back as the same double; always one that reads back as a double, not an integer. */
static void encode_double(lua_State *L, struct buf *out, double v)
{
        char text[40];
        if (!isfinite(v))
                luaL_error(L, "json.encode: JSON has no way to write %s", isnan(v) ? "NaN" : "an infinite number");
        for (int digits = 15; digits <= 17; digits++) {
                snprintf(text, sizeof text, "%.*g", digits, v);
                if (strtod(text, NULL) == v)
                        break;
        }
        for (char *p = text; *p; p++)
                if (*p == ',')
                        *p = '.'; /* a locale's */
        buf_add_str(out, str_of(text));
        if (!strpbrk(text, ".e"))
                buf_add_str(out, STR(".0"));
}

static void encode_value(lua_State *L, struct buf *out, int idx, int depth);

static bool is_array(lua_State *L, int idx, lua_Integer *n)
{
        lua_Integer keys = 0;
        bool marked = false, named = false;
        *n = (lua_Integer)lua_rawlen(L, idx);
        if (lua_getmetatable(L, idx)) {
                luaL_getmetatable(L, FACE_JSON_ARRAY);
                luaL_getmetatable(L, FACE_LIST);
                luaL_getmetatable(L, FACE_LIST_NAMED);
                named = lua_rawequal(L, -1, -4);
                marked = lua_rawequal(L, -2, -4) || lua_rawequal(L, -3, -4);
                lua_pop(L, 4);
        }
        if (named) /* m.defects: the keys say no more than the items */
                return true;
        for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
                if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1 || lua_tointeger(L, -2) > *n) {
                        bool text = lua_type(L, -2) == LUA_TSTRING;
                        if (!text || *n > 0 || marked)
                                luaL_error(L, "json.encode: a table with the key %s is neither an array (1, 2, 3 …) nor an object (strings only)",
                                           luaL_tolstring(L, -2, NULL));
                        lua_pop(L, 2);
                        return false;
                }
                keys++;
        }
        if (keys != *n)
                luaL_error(L, "json.encode: an array has holes");
        return *n > 0 || marked;
}

static void encode_array(lua_State *L, struct buf *out, int idx, lua_Integer n, int depth)
{
        buf_add_char(out, '[');
        for (lua_Integer i = 1; i <= n; i++) {
                if (i > 1)
                        buf_add_char(out, ',');
                lua_rawgeti(L, idx, i);
                encode_value(L, out, lua_gettop(L), depth);
                lua_pop(L, 1);
        }
        buf_add_char(out, ']');
}

/* Keys sorted: the same table is the same text in every run. */
static void encode_object(lua_State *L, struct buf *out, int idx, int depth)
{
        lua_Integer n = 0;
        int keys;
        lua_newtable(L);
        keys = lua_gettop(L);
        for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
                if (lua_type(L, -2) != LUA_TSTRING)
                        luaL_error(L, "json.encode: a table with the key %s is neither an array (1, 2, 3 …) nor an object (strings only)",
                                   luaL_tolstring(L, -2, NULL));
                lua_pushvalue(L, -2);
                lua_rawseti(L, keys, ++n);
        }
        lua_rawgetp(L, LUA_REGISTRYINDEX, &null_at); /* table.sort */
        lua_pushvalue(L, keys);
        lua_call(L, 1, 0);
        buf_add_char(out, '{');
        for (lua_Integer i = 1; i <= n; i++) {
                if (i > 1)
                        buf_add_char(out, ',');
                lua_rawgeti(L, keys, i);
                encode_string(L, out, face_check_str(L, -1));
                buf_add_char(out, ':');
                lua_rawget(L, idx);
                encode_value(L, out, lua_gettop(L), depth);
                lua_pop(L, 1);
        }
        buf_add_char(out, '}');
        lua_pop(L, 1);
}

static void encode_table(lua_State *L, struct buf *out, int idx, int depth)
{
        lua_Integer n;
        if (depth > DEPTH_MAX)
                luaL_error(L, "json.encode: tables lie deeper than %d inside each other (or in a ring)", DEPTH_MAX);
        luaL_checkstack(L, 10, "json.encode");
        if (is_array(L, idx, &n))
                encode_array(L, out, idx, n, depth);
        else
                encode_object(L, out, idx, depth);
}

/* A table that stands in many places is written in each: what has become too long ends here, not when every place was seen. */
static void encode_value(lua_State *L, struct buf *out, int idx, int depth)
{
        struct err e;

        if (!buf_ok(out, &e))
                luaL_error(L, "json.encode: %s", e.text);
        switch (lua_type(L, idx)) {
        case LUA_TSTRING:
                encode_string(L, out, face_check_str(L, idx));
                return;
        case LUA_TBOOLEAN:
                buf_add_str(out, lua_toboolean(L, idx) ? STR("true") : STR("false"));
                return;
        case LUA_TNUMBER:
                if (lua_isinteger(L, idx))
                        buf_printf(out, "%lld", (long long)lua_tointeger(L, idx));
                else
                        encode_double(L, out, lua_tonumber(L, idx));
                return;
        case LUA_TTABLE:
                encode_table(L, out, idx, depth + 1);
                return;
        case LUA_TNIL:
                buf_add_str(out, STR("null"));
                return;
        default:
                if (lua_touserdata(L, idx) != &null_at)
                        luaL_error(L, "json.encode: JSON has no way to write a %s", luaL_typename(L, idx));
                buf_add_str(out, STR("null"));
        }
}

static int json_encode(lua_State *L)
{
        struct buf *out;
        struct err e;
        luaL_checkany(L, 1);
        lua_settop(L, 1);
        out = push_buf(L);
        encode_value(L, out, 1, 0);
        if (!buf_ok(out, &e))
                return luaL_error(L, "json.encode: %s", e.text);
        lua_pushlstring(L, out->p ? out->p : "", out->n);
        buf_free(out);
        return 1;
}

/* Decoding: values are pushed; a failure says where. */

struct reading {
        struct str all, rest;
        struct buf *hold;   /* a string being unescaped */
        struct err *e;
        int depth;
};

static bool bad(struct reading *r, const char *what)
{
        size_t at = r->all.n - r->rest.n, line = 1, start = 0;
        for (size_t i = 0; i < at; i++)
                if (r->all.p[i] == '\n') {
                        line++;
                        start = i + 1;
                }
        return err_set(r->e, ERR_SYNTAX, "JSON, line %zu, column %zu: %s", line, at - start + 1, what);
}

static char peek(struct reading *r)
{
        while (r->rest.n > 0 && memchr(" \t\r\n", r->rest.p[0], 4))
                r->rest = str_from(r->rest, 1);
        return r->rest.n > 0 ? r->rest.p[0] : '\0';
}

static bool take(struct reading *r, char c)
{
        if (peek(r) != c || r->rest.n == 0)
                return false;
        r->rest = str_from(r->rest, 1);
        return true;
}

static bool read_hex4(struct reading *r, uint32_t *code)
{
        *code = 0;
        if (r->rest.n < 4)
                return bad(r, "a \\u needs four hexadecimal digits");
        for (int i = 0; i < 4; i++) {
                int digit = ascii_hex(r->rest.p[i]);
                if (digit < 0)
                        return bad(r, "a \\u needs four hexadecimal digits");
                *code = *code * 16 + (uint32_t)digit;
        }
        r->rest = str_from(r->rest, 4);
        return true;
}

static bool read_unicode(struct reading *r)
{
        uint32_t code, low;
        char utf8[4];
        if (!read_hex4(r, &code))
                return false;
        if (code >= 0xd800 && code < 0xdc00 && str_starts(r->rest, STR("\\u"))) {
                r->rest = str_from(r->rest, 2);
                if (!read_hex4(r, &low))
                        return false;
                if (low < 0xdc00 || low > 0xdfff)
                        return bad(r, "half of a surrogate pair");
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        } else if (code >= 0xd800 && code <= 0xdfff) {
                return bad(r, "half of a surrogate pair");
        }
        buf_add(r->hold, utf8, utf8_put(code, utf8));
        return true;
}

static bool read_escape(struct reading *r)
{
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        const char *at;
        char c;
        if (r->rest.n < 2)
                return bad(r, "a string without its end");
        c = r->rest.p[1];
        if (c == 'u') {
                r->rest = str_from(r->rest, 2);
                return read_unicode(r);
        }
        at = c ? strchr(from, c) : NULL;
        if (!at)
                return bad(r, "no such escape");
        r->rest = str_from(r->rest, 2);
        return buf_add_char(r->hold, to[at - from]) || err_nomem(r->e);
}

static bool read_string(lua_State *L, struct reading *r)
{
        r->rest = str_from(r->rest, 1);
        buf_clear(r->hold);
        for (;;) {
                size_t n = 0;
                while (n < r->rest.n && r->rest.p[n] != '"' && r->rest.p[n] != '\\' && (unsigned char)r->rest.p[n] >= 0x20)
                        n++;
                buf_add(r->hold, r->rest.p, n);
                r->rest = str_from(r->rest, n);
                if (r->rest.n == 0)
                        return bad(r, "a string without its end");
                if (r->rest.p[0] == '"')
                        break;
                if (r->rest.p[0] != '\\')
                        return bad(r, "a control character in a string");
                if (!read_escape(r))
                        return false;
        }
        r->rest = str_from(r->rest, 1);
        if (!buf_ok(r->hold, r->e))
                return false;
        lua_pushlstring(L, r->hold->p ? r->hold->p : "", r->hold->n);
        return true;
}

static size_t digits(struct str s, size_t at)
{
        size_t n = 0;
        while (at + n < s.n && ascii_is_digit(s.p[at + n]))
                n++;
        return n;
}

/* The extent of a number as RFC 8259 writes it; 0: it is none. */
static size_t number_extent(struct str s, bool *integer)
{
        size_t at = s.n > 0 && s.p[0] == '-', n = digits(s, at);
        *integer = true;
        if (n == 0 || (n > 1 && s.p[at] == '0'))
                return 0;
        at += n;
        if (at < s.n && s.p[at] == '.') {
                *integer = false;
                n = digits(s, at + 1);
                if (n == 0)
                        return 0;
                at += 1 + n;
        }
        if (at < s.n && (s.p[at] == 'e' || s.p[at] == 'E')) {
                *integer = false;
                at++;
                if (at < s.n && (s.p[at] == '+' || s.p[at] == '-'))
                        at++;
                n = digits(s, at);
                if (n == 0)
                        return 0;
                at += n;
        }
        return at;
}

/* Lua's own reader: integers that fit are integers, larger ones doubles. */
static bool read_number(lua_State *L, struct reading *r)
{
        bool integer;
        size_t n = number_extent(r->rest, &integer);
        if (n == 0)
                return bad(r, "no number as JSON writes it");
        lua_pushlstring(L, r->rest.p, n);
        if (lua_stringtonumber(L, lua_tostring(L, -1)) == 0)
                return bad(r, "a number with too many digits");
        lua_remove(L, -2);
        if (!isfinite(lua_tonumber(L, -1)))
                return bad(r, "a number too large");
        r->rest = str_from(r->rest, n);
        return true;
}

static bool read_value(lua_State *L, struct reading *r);

static bool read_array(lua_State *L, struct reading *r)
{
        lua_Integer n = 0;
        r->rest = str_from(r->rest, 1);
        lua_newtable(L);
        luaL_setmetatable(L, FACE_JSON_ARRAY);
        if (take(r, ']'))
                return true;
        do {
                if (!read_value(L, r))
                        return false;
                lua_rawseti(L, -2, ++n);
        } while (take(r, ','));
        return take(r, ']') || bad(r, "',' or ']' expected");
}

static bool read_object(lua_State *L, struct reading *r)
{
        r->rest = str_from(r->rest, 1);
        lua_newtable(L);
        if (take(r, '}'))
                return true;
        do {
                if (peek(r) != '"')
                        return bad(r, "a key in quotes expected");
                if (!read_string(L, r))
                        return false;
                lua_pushvalue(L, -1);
                if (lua_rawget(L, -3) != LUA_TNIL)
                        return bad(r, "a key that was there already");
                lua_pop(L, 1);
                if (!take(r, ':'))
                        return bad(r, "':' expected");
                if (!read_value(L, r))
                        return false;
                lua_rawset(L, -3);
        } while (take(r, ','));
        return take(r, '}') || bad(r, "',' or '}' expected");
}

static bool read_word(lua_State *L, struct reading *r)
{
        static const struct str words[] = { { "true", 4 }, { "false", 5 }, { "null", 4 } };
        for (int i = 0; i < 3; i++) {
                if (!str_starts(r->rest, words[i]))
                        continue;
                r->rest = str_from(r->rest, words[i].n);
                if (i == 2)
                        lua_pushlightuserdata(L, &null_at);
                else
                        lua_pushboolean(L, i == 0);
                return true;
        }
        return bad(r, r->rest.n ? "a value expected" : "ends too early");
}

static bool read_nested(lua_State *L, struct reading *r, bool (*read)(lua_State *, struct reading *))
{
        bool ok;
        if (r->depth >= DEPTH_MAX)
                return bad(r, "values lie too deep inside each other");
        if (!lua_checkstack(L, 10))
                return err_nomem(r->e);
        r->depth++;
        ok = read(L, r);
        r->depth--;
        return ok;
}

static bool read_value(lua_State *L, struct reading *r)
{
        char c = peek(r);
        if (c == '{')
                return read_nested(L, r, read_object);
        if (c == '[')
                return read_nested(L, r, read_array);
        if (c == '"')
                return read_string(L, r);
        if (c == '-' || ascii_is_digit(c))
                return read_number(L, r);
        return read_word(L, r);
}

static int json_decode(lua_State *L)
{
        struct str text = face_check_str(L, 1);
        struct err e;
        struct reading r = { text, text, NULL, &e, 0 };
        bool ok;
        lua_settop(L, 1);
        r.hold = push_buf(L);
        ok = utf8_valid(text) ? read_value(L, &r) : err_set(&e, ERR_SYNTAX, "JSON: not UTF-8");
        if (ok && (peek(&r), r.rest.n > 0))
                ok = bad(&r, "something follows the value");
        buf_free(r.hold);
        return ok ? 1 : face_fail(L, &e);
}

static bool is_list(lua_State *L, int idx)
{
        bool yes;

        if (!lua_getmetatable(L, idx))
                return false;
        luaL_getmetatable(L, FACE_LIST);
        luaL_getmetatable(L, FACE_LIST_NAMED);
        yes = lua_rawequal(L, -1, -3) || lua_rawequal(L, -2, -3);
        lua_pop(L, 3);
        return yes;
}

static int json_array(lua_State *L)
{
        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        if (!is_list(L, 1)) /* m.to is written as an array as it is, and must stay what loops walk */
                luaL_setmetatable(L, FACE_JSON_ARRAY);
        return 1;
}

static const luaL_Reg functions[] = {
        /*** json.encode(value) -> string
         * A sequence becomes an array, any other table an object with its keys sorted; an empty table is {} unless json.array marks it. json.null
         * is null. Raises for what JSON cannot say: functions, NaN, strings that are not UTF-8, holes, rings, more than 128 levels. */
        { "encode", json_encode },
        /*** json.decode(text) -> value, or nil, sentence, code
         * Strict RFC 8259: no comments, no trailing commas, no key twice; at most 128 levels. null is json.null, so that nothing vanishes;
         * integers that fit stay integers. */
        { "decode", json_decode },
        /*** json.array(table) -> table
         * Marks a table as an array, so that an empty one is written []. */
        { "array", json_array },
        { NULL, NULL },
};

static const luaL_Reg buf_meta[] = {
        /*** (collected)
         * The text under construction is freed. */
        { "__gc", buf_gc },
        { NULL, NULL },
};

int luaopen_json(lua_State *L)
{
        luaL_newmetatable(L, FACE_JSON_BUF);
        luaL_setfuncs(L, buf_meta, 0);
        luaL_newmetatable(L, FACE_JSON_ARRAY);
        lua_pop(L, 2);
        lua_getglobal(L, LUA_TABLIBNAME);
        lua_getfield(L, -1, "sort");
        lua_rawsetp(L, LUA_REGISTRYINDEX, &null_at);
        lua_pop(L, 1);
        luaL_newlib(L, functions);
        lua_pushlightuserdata(L, &null_at);
        lua_setfield(L, -2, "null");
        return 1;
}
