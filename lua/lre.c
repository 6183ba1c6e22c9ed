/* Regular expressions: PCRE2, compiled once, with limits that hostile text cannot wear out. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/sys.h"
#include "lua/open.h"

#define FACE_RE "mailmill.re"

enum {
        CACHE_MAX = 200,           /* compiled patterns kept for re.match(s, "pattern"); a script has dozens */
        PATTERN_MAX = 64 * 1024,   /* a pattern is written by a person, or made from a list of words */
        COMPILED_MAX = 16 << 20,   /* bytes of all compiled patterns that are held: Lua's own count does not see them */
        MATCH_LIMIT = 1000000,     /* steps from one starting point: about 30 ms; an honest match takes thousands */
        TIME_LIMIT = 1000,         /* ms from all starting points together */
        WINDOW = 32,               /* starting points tried before the clock is looked at */
        DEPTH_LIMIT = 1000000,
        HEAP_LIMIT = 16 * 1024,    /* KiB that one match may use for backtracking */
        JIT_TEXT_MAX = 1024,       /* a.*b.*c takes compiled code n * n steps that it does not count (20 s at 400 kB): longer
                                    * texts go to the interpreter, which counts them all */
        JIT_STACK_MIN = 32 * 1024,
        JIT_STACK_MAX = 1024 * 1024,
};

struct regex {
        pcre2_code *code;
        pcre2_match_data *data;
        size_t size;               /* of both, roughly */
        bool whole;                /* \\G means the first starting point: no windows */
};

/* Of one state: limits, the JIT's stack. */
struct setup {
        pcre2_match_context *limits;
        pcre2_jit_stack *stack;
};

static const char key_cache, key_setup;
static size_t compiled; /* bytes */

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
        compiled -= r->size;
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

static void forget_cached(lua_State *L)
{
        lua_newtable(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_cache);
}

/* The collector is told of what it does not see; where too much is held it takes what nobody needs, the cache with it. */
static void count_size(lua_State *L, struct regex *r)
{
        size_t code = 0, jit = 0;

        pcre2_pattern_info(r->code, PCRE2_INFO_SIZE, &code);
        pcre2_pattern_info(r->code, PCRE2_INFO_JITSIZE, &jit);
        r->size = code + jit + 512;
        compiled += r->size;
        lua_gc(L, LUA_GCSTEP, (int)(r->size / 1024 + 1));
        if (compiled <= COMPILED_MAX)
                return;
        forget_cached(L);
        lua_gc(L, LUA_GCCOLLECT);
        if (compiled > COMPILED_MAX)
                luaL_error(L, "all the patterns that are held take more than %d MiB, compiled", COMPILED_MAX >> 20);
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
        r->code = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C
                                | PCRE2_USE_OFFSET_LIMIT,
                                &code, &at, NULL);
        if (!r->code)
                pattern_error(L, pattern, code, at);
        r->data = pcre2_match_data_create_from_pattern(r->code, NULL);
        if (!r->data)
                luaL_error(L, "out of memory");
        r->whole = str_find_str(pattern, STR("\\G")) < pattern.n;
        pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
        count_size(L, r);
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
                forget_cached(L);
                lua_rawgetp(L, LUA_REGISTRYINDEX, &key_cache);
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

/* Where the window of starting points from `from` ends: between characters. */
static size_t window_end(struct str s, size_t from, size_t width)
{
        size_t end = from + width;
        if (end >= s.n)
                return s.n;
        for (int i = 0; i < 3 && end < s.n && ((unsigned char)s.p[end] & 0xc0) == 0x80; i++)
                end++;
        return end;
}

/* Searches s: false when nothing matches. PCRE2's limits hold for one starting point, and a pattern that takes n steps from each of n points
 * is slow as well: the points are tried in windows, with a look at the clock between them. */
static bool run(lua_State *L, struct regex *r, struct str s)
{
        pcre2_match_context *limits = setup_of(L)->limits;
        uint32_t how = s.n > JIT_TEXT_MAX ? PCRE2_NO_JIT : 0;
        int64_t begun = sys_mono_ms(), last = begun, now;
        size_t from = 0, width = WINDOW;
        for (;;) {
                size_t end = r->whole ? s.n : window_end(s, from, width);
                int n;
                pcre2_set_offset_limit(limits, end < s.n ? end - 1 : PCRE2_UNSET);
                n = pcre2_match(r->code, (PCRE2_SPTR)(s.p ? s.p : ""), s.n, from, how, r->data, limits);
                if (n < 0 && n != PCRE2_ERROR_NOMATCH)
                        match_error(L, n);
                if (n >= 0 || end >= s.n)
                        return n >= 0;
                now = sys_mono_ms();
                if (now - begun > TIME_LIMIT)
                        match_error(L, PCRE2_ERROR_MATCHLIMIT);
                width = now - last < 5 ? width * 2 : WINDOW;
                last = now;
                from = end;
        }
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
        if (!run(L, r, s)) {
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
        lua_pushboolean(L, run(L, r, face_check_str(L, 2)));
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
