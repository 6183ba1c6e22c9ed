/* Lists: plain tables (#, [i], ipairs, table.concat simply work) that `for x in list do` walks as well.
 *
 * Lua calls the list itself for each step, with nothing but the last element to tell where the loop stands. So that loops over one list nest, and
 * equal elements do not turn them round, each loop has a cursor, found by who asks: the coroutine, the frame of the function that holds the loop,
 * and how many local variables are alive there: in a loop inside a loop there are more. One loop at a time has such a key, and a loop that
 * begins (its control value is nil) sets the cursor anew, so what a break left behind does no harm. The caller's caller is looked at as well, for
 * a loop that goes through a function: `for x in function(s, c) return list(s, c) end do`. */
#include <string.h>

#include "lua/class.h"
#include "lua/open.h"

enum { LOCALS_MAX = 256 };  /* Lua's own limit is 200 */

struct cursor {
        const void *frame;
        const void *list;
        int locals;
        lua_Integer at;     /* of the element given last */
};
struct cursors {            /* of one coroutine, most recently used last */
        size_t n, cap;
        int own, above;     /* locals that were counted last, in the caller and in its caller */
        struct cursor c[];
};

static const char key_cursors;

/* lua_getlocal numbers the active locals first and the temporaries after them. */
static bool is_local(lua_State *L, lua_Debug *ar, int n)
{
        const char *name = lua_getlocal(L, ar, n);
        if (name)
                lua_pop(L, 1);
        return name && strcmp(name, "(temporary)") != 0 && strcmp(name, "(C temporary)") != 0;
}

/* A loop's calls all find as many: the guess is what was found last, and two probes confirm it. */
static int count_locals(lua_State *L, lua_Debug *ar, int guess)
{
        int low = 0, high = LOCALS_MAX, probe = guess; /* low are active, high are not */
        while (low + 1 < high) {
                if (probe > 0 && is_local(L, ar, probe))
                        low = probe;
                else if (probe > 0)
                        high = probe;
                probe = low == guess && high > guess + 1 ? guess + 1 : low + (high - low) / 2;
        }
        return low;
}

/* The cursors of the running coroutine, with room for one more; left on the stack. */
static struct cursors *push_cursors(lua_State *L)
{
        struct cursors *cs, *more;
        size_t cap;
        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_cursors);
        lua_pushthread(L);
        lua_rawget(L, -2);
        cs = lua_touserdata(L, -1);
        if (cs && cs->n < cs->cap)
                return cs;
        cap = cs ? cs->cap * 2 : 4;
        more = lua_newuserdatauv(L, sizeof *more + cap * sizeof *more->c, 0);
        more->n = cs ? cs->n : 0;
        more->own = cs ? cs->own : 0;
        more->above = cs ? cs->above : 0;
        more->cap = cap;
        if (cs)
                memcpy(more->c, cs->c, cs->n * sizeof *cs->c);
        lua_pushthread(L);
        lua_pushvalue(L, -2);
        lua_rawset(L, -5);
        return more;
}

static void cursor_drop(struct cursors *cs, size_t i)
{
        memmove(cs->c + i, cs->c + i + 1, (cs->n - i - 1) * sizeof *cs->c);
        cs->n--;
}

/* A loop begins: the cursors of this frame at its depth and deeper belong to loops that are over. */
static void cursor_begin(struct cursors *cs, const struct cursor *c)
{
        for (size_t i = cs->n; i-- > 0;)
                if (cs->c[i].frame == c->frame && cs->c[i].locals >= c->locals)
                        cursor_drop(cs, i);
        cs->c[cs->n++] = *c;
}

static struct cursor *cursor_find(struct cursors *cs, const struct cursor *c)
{
        for (size_t i = cs->n; i-- > 0;) {
                if (cs->c[i].frame != c->frame || cs->c[i].locals != c->locals)
                        continue;
                struct cursor found = cs->c[i];
                cursor_drop(cs, i);
                if (found.list != c->list)
                        return NULL;
                cs->c[cs->n++] = found;
                return &cs->c[cs->n - 1];
        }
        return NULL;
}

/* The place of the first element from `at` on that equals the control value; 0: none. */
static lua_Integer find_control(lua_State *L, lua_Integer at)
{
        for (;; at++) {
                lua_settop(L, 3);
                if (lua_rawgeti(L, 1, at) == LUA_TNIL)
                        return 0;
                if (lua_rawequal(L, 3, 4))
                        return at;
        }
}

/* Without a loop (called by hand, or from C): behind the element that equals the control value. Two such: an error, not an endless loop. */
static int next_by_value(lua_State *L)
{
        lua_Integer at = 0;
        if (!lua_isnil(L, 3)) {
                at = find_control(L, 1);
                if (at == 0)
                        return 0;
                if (find_control(L, at + 1) != 0)
                        return luaL_error(L, "a list with equal items can't be walked in this way (use ipairs)");
        }
        lua_rawgeti(L, 1, at + 1);
        return 1;
}

static int list_call(lua_State *L)
{
        lua_Debug ar, above;
        struct cursors *cs;
        struct cursor key, *c;

        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 3);
        if (!lua_getstack(L, 1, &ar) || !lua_getinfo(L, "S", &ar) || ar.what[0] == 'C')
                return next_by_value(L);
        cs = push_cursors(L);
        cs->own = count_locals(L, &ar, cs->own);
        if (lua_getstack(L, 2, &above))
                cs->above = count_locals(L, &above, cs->above);
        else
                cs->above = 0;
        key = (struct cursor){ ar.i_ci, lua_topointer(L, 1), cs->own + LOCALS_MAX * cs->above, 1 };
        if (lua_isnil(L, 3)) {
                cursor_begin(cs, &key);
                lua_rawgeti(L, 1, 1);
                return 1;
        }
        c = cursor_find(cs, &key);
        if (!c || (lua_rawgeti(L, 1, c->at), !lua_rawequal(L, -1, 3)))
                return next_by_value(L);
        if (lua_rawgeti(L, 1, ++c->at) == LUA_TNIL)
                cs->n--; /* the loop ends; find has put its cursor last */
        return 1;
}

static int list_index(lua_State *L)
{
        if (lua_type(L, 2) == LUA_TSTRING)
                return luaL_error(L, "a list has no field '%s' (its first item is [1])", lua_tostring(L, 2));
        lua_pushnil(L);
        return 1;
}

static int list_tostring(lua_State *L)
{
        luaL_Buffer b;
        lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
        luaL_buffinit(L, &b);
        for (lua_Integer i = 1; i <= n; i++) {
                if (i > 1)
                        luaL_addstring(&b, ", ");
                lua_rawgeti(L, 1, i);
                luaL_tolstring(L, -1, NULL);
                lua_remove(L, -2);
                luaL_addvalue(&b);
        }
        luaL_pushresult(&b);
        return 1;
}

void face_make_list(lua_State *L)
{
        luaL_setmetatable(L, FACE_LIST);
}


void list_make_named(lua_State *L)
{
        luaL_setmetatable(L, FACE_LIST_NAMED);
}

static const luaL_Reg list_meta[] = {
        /*** for x in list do … end
         * Walks the items in order. Loops over the same list may stand inside each other, be left by break, and meet equal items.
         * #list, list[i], ipairs(list) and table.concat(list, ", ") work as for any table. */
        { "__call", list_call },
        /*** list[i] -> item or nil
         * A name as index raises: a list has items, and fields stand at the items. */
        { "__index", list_index },
        /*** tostring(list) -> string
         * The items with ", " between them. */
        { "__tostring", list_tostring },
        { NULL, NULL },
};

static void set_meta(lua_State *L, const char *name, bool index)
{
        luaL_newmetatable(L, name);
        luaL_setfuncs(L, list_meta, 0);
        if (!index) {
                lua_pushnil(L);
                lua_setfield(L, -2, "__index");
        }
        lua_pushliteral(L, "list");
        lua_setfield(L, -2, "__name");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_pop(L, 1);
}

int luaopen_list(lua_State *L)
{
        set_meta(L, FACE_LIST, true);
        set_meta(L, FACE_LIST_NAMED, false);
        lua_newtable(L);
        lua_newtable(L);
        lua_pushliteral(L, "k");
        lua_setfield(L, -2, "__mode");
        lua_setmetatable(L, -2);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_cursors);
        return 0;
}
