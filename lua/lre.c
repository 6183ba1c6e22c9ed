/* Regular expressions: PCRE2, compiled once, with limits that hostile text cannot wear out. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "lua/open.h"

#define FACE_RE "mailmill.re"

enum {
        CACHE_MAX = 200,           /* compiled patterns kept for re.match(s, "pattern"); a script has dozens */
        PATTERN_MAX = 64 * 1024,   /* a pattern is written by a person, or made from a list of words */
        MATCH_LIMIT = 1000000,     /* steps: about 20 ms; an honest match takes thousands */
        DEPTH_LIMIT = 100000,
        HEAP_LIMIT = 8 * 1024,     /* KiB that one match may use for backtracking */
        JIT_STACK_MIN = 32 * 1024,
        JIT_STACK_MAX = 1024 * 1024,
};

struct regex {
        pcre2_code *code;
        pcre2_match_data *data;
};

/* Of one state: limits, the JIT's stack. */
struct setup {
        pcre2_match_context *limits;
        pcre2_jit_stack *stack;
};

static const char key_cache, key_setup;

static struct setup *setup_of(lua_State *L)
{
        struct setup *s;
        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_setup);
        s = lua_touserdata(L, -1);
        lua_pop(L, 1);
        return s;
}

static int setup_gc(lua_State *L)
{
        struct setup *s = lua_touserdata(L, 1);
        pcre2_match_context_free(s->limits);
        pcre2_jit_stack_free(s->stack);
        *s = (struct setup){ 0 };
        return 0;
}

static int regex_gc(lua_State *L)
{
        struct regex *r = luaL_checkudata(L, 1, FACE_RE);
        pcre2_match_data_free(r->data);
        pcre2_code_free(r->code);
        *r = (struct regex){ 0 };
        return 0;
}

static int pattern_error(lua_State *L, struct str pattern, int code, size_t at)
{
        PCRE2_UCHAR text[256];
        pcre2_get_error_message(code, text, sizeof text);
        return luaL_error(L, "the pattern \"%s\" is wrong at character %d: %s", lua_pushlstring(L, pattern.p, pattern.n < 200 ? pattern.n : 200),
                          (int)at + 1, (char *)text);
}

/* Text from mail is UTF-8, and where it is not, the valid stretches are searched. Without the JIT (its memory refused) the interpreter does it. */
static struct regex *compile(lua_State *L, struct str pattern)
{
        struct regex *r = lua_newuserdatauv(L, sizeof *r, 1);
        size_t at = 0;
        int code = 0;

        *r = (struct regex){ 0 };
        luaL_setmetatable(L, FACE_RE);
        lua_pushlstring(L, pattern.p, pattern.n);
        lua_setiuservalue(L, -2, 1);
        if (pattern.n > PATTERN_MAX)
                luaL_error(L, "a pattern of %d bytes is too long (at most %d)", (int)pattern.n, PATTERN_MAX);
        r->code = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C,
                                &code, &at, NULL);
        if (!r->code)
                pattern_error(L, pattern, code, at);
        r->data = pcre2_match_data_create_from_pattern(r->code, NULL);
        if (!r->data)
                luaL_error(L, "out of memory");
        pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
        return r;
}

/* The regex at idx: an object, or a pattern that is compiled once. Anchored by the stack or the cache. */
static struct regex *to_regex(lua_State *L, int idx)
{
        struct regex *r = luaL_testudata(L, idx, FACE_RE);
        if (r)
                return r;
        if (lua_type(L, idx) != LUA_TSTRING)
                luaL_typeerror(L, idx, "pattern or re object");
        idx = lua_absindex(L, idx);
        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_cache);
        lua_pushvalue(L, idx);
        if (lua_rawget(L, -2) == LUA_TUSERDATA) {
                lua_replace(L, -2);
                return lua_touserdata(L, -1);
        }
        lua_pop(L, 1);
        lua_rawgeti(L, -1, 1); /* how many: patterns are strings, so a number is free */
        lua_Integer count = lua_tointeger(L, -1);
        lua_pop(L, 1);
        if (count >= CACHE_MAX) {
                lua_pop(L, 1);
                lua_newtable(L);
                lua_pushvalue(L, -1);
                lua_rawsetp(L, LUA_REGISTRYINDEX, &key_cache);
                count = 0;
        }
        r = compile(L, face_check_str(L, idx));
        lua_pushvalue(L, idx);
        lua_pushvalue(L, -2);
        lua_rawset(L, -4);
        lua_pushinteger(L, count + 1);
        lua_rawseti(L, -3, 1);
        lua_replace(L, -2);
        return r;
}

static int match_error(lua_State *L, int code)
{
        PCRE2_UCHAR text[256];
        if (code == PCRE2_ERROR_MATCHLIMIT || code == PCRE2_ERROR_DEPTHLIMIT || code == PCRE2_ERROR_HEAPLIMIT || code == PCRE2_ERROR_JIT_STACKLIMIT)
                return luaL_error(L, "the pattern takes too many steps on this text (write it without nested repetitions)");
        pcre2_get_error_message(code, text, sizeof text);
        return luaL_error(L, "matching a pattern: %s", (char *)text);
}

/* The number of groups that were set plus one; 0: no match. */
static int run(lua_State *L, struct regex *r, struct str s, size_t from)
{
        int n = pcre2_match(r->code, (PCRE2_SPTR)(s.p ? s.p : ""), s.n, from, 0, r->data, setup_of(L)->limits);
        if (n == PCRE2_ERROR_NOMATCH)
                return 0;
        return n < 0 ? match_error(L, n) : n;
}

static void push_group(lua_State *L, struct regex *r, struct str s, size_t group)
{
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(r->data) + 2 * group;
        if (at[0] == PCRE2_UNSET || at[1] < at[0]) /* \K in a lookahead can turn them round */
                lua_pushnil(L);
        else
                lua_pushlstring(L, s.p + at[0], at[1] - at[0]);
}

static int push_match(lua_State *L, struct regex *r, struct str s)
{
        uint32_t groups = 0;
        if (run(L, r, s, 0) == 0) {
                lua_pushnil(L);
                return 1;
        }
        pcre2_pattern_info(r->code, PCRE2_INFO_CAPTURECOUNT, &groups);
        if (groups == 0) {
                push_group(L, r, s, 0);
                return 1;
        }
        luaL_checkstack(L, (int)groups, "too many groups");
        for (uint32_t i = 1; i <= groups; i++)
                push_group(L, r, s, i);
        return (int)groups;
}

static int re_match(lua_State *L)
{
        struct str s = face_check_str(L, 1);
        return push_match(L, to_regex(L, 2), s);
}

static int method_match(lua_State *L)
{
        struct regex *r = luaL_checkudata(L, 1, FACE_RE);
        return push_match(L, r, face_check_str(L, 2));
}

static int method_test(lua_State *L)
{
        struct regex *r = luaL_checkudata(L, 1, FACE_RE);
        lua_pushboolean(L, run(L, r, face_check_str(L, 2), 0) != 0);
        return 1;
}

/* re "pattern": the callable table comes first. */
static int re_call(lua_State *L)
{
        lua_remove(L, 1);
        face_check_str(L, 1);
        to_regex(L, 1);
        return 1;
}

static int to_string(lua_State *L)
{
        luaL_checkudata(L, 1, FACE_RE);
        lua_pushliteral(L, "re \"");
        lua_getiuservalue(L, 1, 1);
        lua_pushliteral(L, "\"");
        lua_concat(L, 3);
        return 1;
}

static const luaL_Reg functions[] = {
        /*** re.match(s, pattern) -> captures, or the whole match, or nil
         * Searches s for a PCRE2 pattern (Unicode; (?i) for caseless) or an `re` object. Like string.match: the captures, the whole match where the pattern
         * has none, nil where nothing matches; a group that took no part is nil. Raises when the pattern is wrong, or when matching takes
         * too many steps. Patterns are compiled once. */
        { "match", re_match },
        { NULL, NULL },
};

static const luaL_Reg methods[] = {
        /*** r:match(s) -> captures, or the whole match, or nil
         * The same with a compiled pattern. */
        { "match", method_match },
        /*** r:test(s) -> boolean
         * Whether the pattern is found in s. */
        { "test", method_test },
        { NULL, NULL },
};

static const luaL_Reg meta[] = {
        /*** (collected)
         * A compiled pattern that nobody holds any more is freed. */
        { "__gc", regex_gc },
        /*** tostring(r) -> string
         * The pattern, as it was written. */
        { "__tostring", to_string },
        { NULL, NULL },
};

static const luaL_Reg call[] = {
        /*** re "pattern" -> re object
         * Compiles a PCRE2 pattern, for tests ({ subject = re "order\\s+\\d+" }) and matching. Raises when the pattern is wrong. */
        { "__call", re_call },
        { NULL, NULL },
};

static void make_setup(lua_State *L)
{
        struct setup *s = lua_newuserdatauv(L, sizeof *s, 0);
        *s = (struct setup){ 0 };
        lua_newtable(L);
        lua_pushcfunction(L, setup_gc);
        lua_setfield(L, -2, "__gc");
        lua_setmetatable(L, -2);
        s->limits = pcre2_match_context_create(NULL);
        if (!s->limits)
                luaL_error(L, "out of memory");
        pcre2_set_match_limit(s->limits, MATCH_LIMIT);
        pcre2_set_depth_limit(s->limits, DEPTH_LIMIT);
        pcre2_set_heap_limit(s->limits, HEAP_LIMIT);
        s->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL); /* NULL: the JIT uses 32 KiB of the machine's */
        pcre2_jit_stack_assign(s->limits, NULL, s->stack);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_setup);
}

int luaopen_re(lua_State *L)
{
        make_setup(L);
        lua_newtable(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_cache);
        luaL_newmetatable(L, FACE_RE);
        luaL_setfuncs(L, meta, 0);
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
        lua_pushliteral(L, "re");
        lua_setfield(L, -2, "__name");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_pop(L, 1);
        luaL_newlib(L, functions);
        luaL_newlib(L, call);
        lua_setmetatable(L, -2);
        return 1;
}
