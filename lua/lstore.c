/* mail.store and mail.seen: what a script remembers, committed with the message that changed it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/mem.h"
#include "lua/state.h"

#define STORE "mailmill.store"
enum {
        KEY_MAX = 1024, NAME_MAX_BYTES = 100,
        VALUE_MAX = 1 << 20,
        DEPTH_MAX = 32,       /* of tables in a value; a table that holds itself ends here */
};

#define SEEN_STORE STR("seen") /* its values are no values of a script's */

/* Values as bytes: n nil (removed), T, F, i12; d0x1p3; s5:hello {key value … }. Exact for every Lua string and number. */

static void encode(lua_State *L, int idx, struct buf *b, int depth);

static void encode_table(lua_State *L, int idx, struct buf *b, int depth)
{
        if (depth == DEPTH_MAX || !lua_checkstack(L, 4)) {
                buf_free(b);
                luaL_error(L, "a stored table is nested deeper than %d (does it hold itself?)", DEPTH_MAX);
        }
        buf_add_char(b, '{');
        for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
                encode(L, lua_gettop(L) - 1, b, depth + 1);
                encode(L, lua_gettop(L), b, depth + 1);
        }
        buf_add_char(b, '}');
}

static void encode(lua_State *L, int idx, struct buf *b, int depth)
{
        struct str s;

        if (b->failed) /* a table that stands in many places is not walked in each */
                return;
        switch (lua_type(L, idx)) {
        case LUA_TBOOLEAN:
                buf_add_char(b, lua_toboolean(L, idx) ? 'T' : 'F');
                return;
        case LUA_TNUMBER:
                if (lua_isinteger(L, idx))
                        buf_printf(b, "i%lld;", (long long)lua_tointeger(L, idx));
                else
                        buf_printf(b, "d%a;", lua_tonumber(L, idx));
                return;
        case LUA_TSTRING:
                s.p = lua_tolstring(L, idx, &s.n);
                buf_printf(b, "s%zu:", s.n);
                buf_add_str(b, s);
                return;
        case LUA_TTABLE:
                encode_table(L, idx, b, depth);
                return;
        default:
                buf_free(b);
                luaL_error(L, "a store keeps strings, numbers, booleans and tables of them, not a %s", luaL_typename(L, idx));
        }
}

/* Pushes the value at the front of *rest. What is no value raises: the state is ours, but a hand may have been in it. */
static void decode(lua_State *L, struct str *rest, int depth)
{
        struct str text = *rest, digits;
        uint64_t n;
        char kind = text.n ? text.p[0] : 0, number[64];

        if (depth > DEPTH_MAX || !lua_checkstack(L, 4))
                luaL_error(L, "a stored value is damaged (too deep)");
        *rest = str_from(text, 1);
        switch (kind) {
        case 'T':
        case 'F':
                lua_pushboolean(L, kind == 'T');
                return;
        case 'i':
        case 'd':
                digits = str_take(rest, ';');
                if (digits.n == 0 || digits.n >= sizeof number)
                        break;
                memcpy(number, digits.p, digits.n);
                number[digits.n] = '\0';
                if (kind == 'i')
                        lua_pushinteger(L, (lua_Integer)strtoll(number, NULL, 10));
                else
                        lua_pushnumber(L, strtod(number, NULL));
                return;
        case 's':
                if (!str_to_u64(str_take(rest, ':'), VALUE_MAX, &n) || n > rest->n)
                        break;
                lua_pushlstring(L, rest->p, n);
                *rest = str_from(*rest, n);
                return;
        case '{':
                lua_newtable(L);
                while (rest->n && rest->p[0] != '}') {
                        decode(L, rest, depth + 1);
                        decode(L, rest, depth + 1);
                        if (lua_isnil(L, -2) || (lua_type(L, -2) == LUA_TNUMBER && isnan(lua_tonumber(L, -2))))
                                luaL_error(L, "a stored value is damaged (a key that is none)");
                        lua_rawset(L, -3);
                }
                *rest = str_from(*rest, 1);
                return;
        }
        luaL_error(L, "a stored value is damaged");
}

/* A store */

static struct str check_name(lua_State *L, int idx)
{
        struct str s = face_check_str(L, idx);

        options_plain(L, "the name of a store", s);
        if (s.n == 0 || s.n > NAME_MAX_BYTES)
                luaL_error(L, "the name of a store has 1 to %d bytes", NAME_MAX_BYTES);
        if (str_eq(s, SEEN_STORE))
                luaL_error(L, "mail.store: \"seen\" is where mail.seen keeps what it records; take another name");
        return s;
}

static struct str store_name(lua_State *L)
{
        struct str s;

        luaL_checkudata(L, 1, STORE);
        lua_getiuservalue(L, 1, 1);
        s.p = lua_tolstring(L, -1, &s.n);
        lua_pop(L, 1); /* the box keeps it */
        return s;
}

/* Keys are strings; a whole number is the key that its digits spell. */
static struct str check_key(lua_State *L, int idx)
{
        struct str s;

        if (lua_type(L, idx) != LUA_TSTRING && !lua_isinteger(L, idx))
                luaL_error(L, "the key of a store is a string, not a %s", luaL_typename(L, idx));
        lua_pushvalue(L, idx);
        s.p = lua_tolstring(L, -1, &s.n);
        if (s.n == 0 || s.n > KEY_MAX)
                luaL_error(L, "the key of a store has 1 to %d bytes, not %d", KEY_MAX, (int)s.n);
        return s;
}

static int store_index(lua_State *L)
{
        struct plan *p = state_plan(L, "mail.store");
        struct str name = store_name(L), value = STR_NONE;
        bool found = false;
        struct err e;

        if (!run_store_get(p, name, check_key(L, 2), &value, &found, &e))
                return face_raise(L, &e);
        if (!found)
                return 0;
        decode(L, &value, 0);
        return 1;
}

static int store_newindex(lua_State *L)
{
        struct plan *p = state_plan(L, "mail.store");
        struct str name = store_name(L), key = check_key(L, 2);
        struct buf b;
        struct err e;
        bool ok;

        if (lua_isnil(L, 3)) {
                if (!plan_store(p, name, key, STR_NONE, 0, &e))
                        return face_raise(L, &e);
                return 0;
        }
        buf_init(&b, VALUE_MAX);
        encode(L, 3, &b, 0);
        if (!buf_ok(&b, &e)) {
                buf_free(&b);
                return luaL_error(L, "a stored value is larger than %d bytes", VALUE_MAX);
        }
        ok = plan_store(p, name, key, buf_str(&b), 0, &e);
        buf_free(&b);
        return ok ? 0 : face_raise(L, &e);
}

struct pairs {
        struct str *keys;
        size_t n, cap;
        struct arena *arena;
};

static bool add_key(void *ctx, struct str key, struct str value)
{
        struct pairs *p = ctx;

        (void)value;
        if (p->n == p->cap) {
                size_t cap = p->cap ? p->cap * 2 : 64;
                struct str *more = mem_resize(p->keys, cap * sizeof *more);
                if (!more)
                        return false;
                p->keys = more;
                p->cap = cap;
        }
        p->keys[p->n] = arena_str(p->arena, key);
        return p->keys[p->n++].p != NULL;
}

static int push_keys(lua_State *L)
{
        struct pairs *p = lua_touserdata(L, 1);

        lua_createtable(L, (int)p->n, 0);
        for (size_t i = 0; i < p->n; i++) {
                face_push_str(L, p->keys[i]);
                lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        return 1;
}

/* store, keys, place */
static int next_pair(lua_State *L)
{
        lua_Integer i = lua_tointeger(L, lua_upvalueindex(3));

        for (;;) {
                i++;
                if (lua_rawgeti(L, lua_upvalueindex(2), i) == LUA_TNIL)
                        return 1;
                lua_pushinteger(L, i);
                lua_replace(L, lua_upvalueindex(3));
                lua_pushvalue(L, -1);
                if (lua_gettable(L, lua_upvalueindex(1)) != LUA_TNIL)
                        return 2;
                lua_pop(L, 2); /* removed meanwhile */
        }
}

/* The keys as they are now; values are read one by one. Changing the store while walking it is harmless. */
static int store_pairs(lua_State *L)
{
        struct plan *plan = state_plan(L, "mail.store");
        struct pairs p = { .arena = plan->arena };
        struct err e;
        bool ok = run_store_each(plan, store_name(L), add_key, &p, &e);

        lua_settop(L, 1);
        lua_pushcfunction(L, push_keys);
        lua_pushlightuserdata(L, &p);
        ok = lua_pcall(L, 1, 1, 0) == LUA_OK && ok;
        mem_free(p.keys);
        if (!ok)
                return lua_type(L, -1) == LUA_TSTRING ? lua_error(L) : face_raise(L, &e);
        lua_pushinteger(L, 0);
        lua_pushcclosure(L, next_pair, 3);
        return 1;
}

static int store_tostring(lua_State *L)
{
        struct str name = store_name(L);

        lua_pushfstring(L, "store %s", name.p);
        return 1;
}

static int open_store(lua_State *L)
{
        check_name(L, 1);
        lua_newuserdatauv(L, 0, 1);
        lua_pushvalue(L, 1);
        lua_setiuservalue(L, -2, 1);
        luaL_setmetatable(L, STORE);
        return 1;
}

/* mail.seen */

/* What x is known by: bytes for a message and a part, itself for a string. */
static void seen_key(lua_State *L, int idx, char out[67])
{
        uint8_t hash[DIGEST_SIZE];
        struct err e;
        bool ok;

        if (lua_type(L, idx) == LUA_TSTRING) {
                ok = digest_of(face_check_str(L, idx), hash) || err_nomem(&e);
                memcpy(out, "s:", 2);
        } else {
                struct part *part;

                if (lua_type(L, idx) != LUA_TUSERDATA)
                        luaL_typeerror(L, idx, "message, part or string");
                part = face_check_part(L, idx, NULL);
                ok = part_is_root(part) ? message_hash(part_message(part), hash, &e) : part_sha256(part, hash, &e);
                memcpy(out, "b:", 2);
        }
        if (!ok)
                face_raise(L, &e);
        digest_hex(hash, out + 2);
}

/* Who recorded it, so that a message decided again (--again) doesn't take itself for an earlier one. An archive's message has no name that
 * would stay with it. */
static struct str recorder(lua_State *L, struct plan *p)
{
        const struct origin *o = p->message ? message_origin(p->message) : NULL;
        struct str s;

        if (!o || !o->account.n || !o->uid.n)
                return STR("-");
        s = arena_printf(p->arena, "%.*s/%.*s/%u", STR_FMT(o->account), STR_FMT(o->uid), o->occurrence);
        if (!s.p)
                luaL_error(L, "out of memory");
        return s;
}

static int seen(lua_State *L)
{
        int64_t ttl = lua_isnoneornil(L, 2) ? 0 : face_check_span(L, 2);
        struct str key, by, value = STR_NONE;
        struct plan *p;
        char text[67];
        bool found = false;
        struct err e;

        luaL_checkany(L, 1);
        seen_key(L, 1, text);
        p = state_plan(L, "mail.seen");
        by = recorder(L, p);
        key = str_make(text, 66);
        lua_pushboolean(L, 0);
        if (plan_changed(p, SEEN_STORE, key))
                return 1; /* recorded by this message itself */
        if (!run_store_get(p, SEEN_STORE, key, &value, &found, &e))
                return face_raise(L, &e);
        if (found && (by.n == 1 || !str_eq(value, by))) {
                lua_pushboolean(L, 1);
                return 1;
        }
        if (!plan_store(p, SEEN_STORE, key, by, ttl > 0 ? state_config(p)->now + ttl : 0, &e))
                return face_raise(L, &e);
        return 1;
}

static const luaL_Reg functions[] = {
        /*** mail.store(name) -> store
         * A table that outlives the run: store[key] = value, store[key], pairs(store). Keys are strings (a whole number is the key its digits spell), values
         * strings, numbers, booleans and tables of them; nil removes. Changes are committed with the message, and undone with it. A table read is
         * a copy: to change it, store it again. Only in a handler. The name "seen" is mail.seen's own. */
        { "store", open_store },
        /*** mail.seen(x, ttl) -> boolean
         * Whether an earlier message recorded x: a message or a part (known by its bytes), or a string. The first to ask records it, with the message, for
         * ttl ("30 days") or for ever. */
        { "seen", seen },
        { NULL, NULL },
};

static const luaL_Reg meta[] = {
        /*** store[key] -> value or nil
         * As this message sees it: its own changes, those of messages decided before, the state. */
        { "__index", store_index },
        /*** store[key] = value
         * Recorded in the message's plan. */
        { "__newindex", store_newindex },
        /*** pairs(store)
         * Keys and values in no order. */
        { "__pairs", store_pairs },
        /*** tostring(store) -> string
         * "store counts". */
        { "__tostring", store_tostring },
        { NULL, NULL },
};

int luaopen_store(lua_State *L)
{
        luaL_newmetatable(L, STORE);
        luaL_setfuncs(L, meta, 0);
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_getglobal(L, "mail");
        luaL_setfuncs(L, functions, 0);
        return 0;
}
