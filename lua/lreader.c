/* Readers and lines: a part's bytes in pieces, never all at once. A reader belongs to its message, and is closed with it. */
#include <string.h>

#include "core/buf.h"
#include "core/charset.h"
#include "lua/class.h"
#include "lua/open.h"

#define FACE_READER "mailmill.reader"

enum {
        READ_DEFAULT = 64 * 1024,
        READ_MAX = 1024 * 1024,   /* one read: big bytes don't travel into Lua */
        BLOCK = 16 * 1024,
        OPEN_MAX = 256,           /* readers at once; each has a block of its own, which Lua does not see */
        OPEN_KIB = 80,            /* so the collector is told */
};

static unsigned open_n;

/* User value 1: the message's box, so that it outlives us. */
struct reader_box {
        struct message_box *of;
        struct reader *reader;             /* NULL: closed, or everything was read */
        struct charset_stream *charset;    /* lines of a text part */
        struct buf text;                   /* lines: read and not yet given */
        size_t at, seen;                   /* of text: given so far, and known to hold no line end so far */
        size_t line_max;
        struct reader_box *prev, *next;
};

static void reader_release(struct reader_box *b)
{
        bool bad;
        struct buf rest = BUF_INIT;
        if (b->reader) {
                reader_close(b->reader);
                open_n--;
        }
        if (b->charset)
                charset_end(b->charset, &rest, &bad);
        buf_free(&rest);
        buf_free(&b->text);
        b->reader = NULL;
        b->charset = NULL;
        if (b->prev)
                b->prev->next = b->next;
        else if (b->of && b->of->readers == b)
                b->of->readers = b->next;
        if (b->next)
                b->next->prev = b->prev;
        b->of = NULL;
        b->prev = b->next = NULL;
}

void readers_close(struct message_box *b)
{
        while (b->readers)
                reader_release(b->readers);
}

/* Those that nobody holds any more are closed first. */
static void make_room(lua_State *L)
{
        if (open_n < OPEN_MAX)
                lua_gc(L, LUA_GCSTEP, OPEN_KIB);
        else
                lua_gc(L, LUA_GCCOLLECT);
        if (open_n >= OPEN_MAX)
                luaL_error(L, "more than %d readers are open at once (close those that you have read: r:close())", OPEN_MAX);
}

/* An open reader of the message or part at 1 on top of the stack, or false with e. */
static bool reader_push(lua_State *L, struct reader_box **out, struct err *e)
{
        struct part *p = face_check_part(L, 1, NULL);
        struct reader_box *b;

        make_room(L);
        b = lua_newuserdatauv(L, sizeof *b, 1);
        memset(b, 0, sizeof *b);
        luaL_setmetatable(L, FACE_READER);
        b->of = message_box_push(L, 1);
        lua_setiuservalue(L, -2, 1);
        b->next = b->of->readers;
        if (b->next)
                b->next->prev = b;
        b->of->readers = b;
        b->reader = part_open(p, e);
        open_n += b->reader != NULL;
        *out = b;
        return b->reader != NULL;
}

static struct reader_box *check_reader(lua_State *L, int idx)
{
        struct reader_box *b = luaL_checkudata(L, idx, FACE_READER);
        lua_getiuservalue(L, idx, 1);
        message_box_check(L, lua_gettop(L));
        lua_pop(L, 1);
        if (!b->of)
                luaL_error(L, "the reader is closed");
        return b;
}

int part_method_reader(lua_State *L)
{
        struct reader_box *b;
        struct err e;
        lua_settop(L, 1);
        return reader_push(L, &b, &e) ? 1 : face_fail(L, &e);
}

static int method_read(lua_State *L)
{
        struct reader_box *b = check_reader(L, 1);
        lua_Integer n = luaL_optinteger(L, 2, READ_DEFAULT);
        size_t want, used = 0;
        ssize_t got = 1;
        struct err e;
        luaL_Buffer out;
        char *p;

        luaL_argcheck(L, n > 0, 2, "a number of bytes, 1 or more, is expected");
        if (!b->reader) /* m:lines() has come to the end of it */
                return 0;
        want = n < READ_MAX ? (size_t)n : READ_MAX;
        p = luaL_buffinitsize(L, &out, want);
        while (used < want && (got = reader_read(b->reader, p + used, want - used, &e)) > 0)
                used += (size_t)got;
        if (got < 0)
                return face_fail(L, &e);
        luaL_pushresultsize(&out, used);
        if (used == 0)
                lua_pushnil(L);
        return 1;
}

static int method_close(lua_State *L)
{
        reader_release(luaL_checkudata(L, 1, FACE_READER));
        return 0;
}

/* Lines */

static bool text_add(struct reader_box *b, struct str block)
{
        return b->charset ? charset_feed(b->charset, block, &b->text) : buf_add_str(&b->text, block);
}

/* One block more; at the end what the converter still holds. */
static bool text_fill(struct reader_box *b, struct err *e)
{
        char block[BLOCK];
        ssize_t n = reader_read(b->reader, block, sizeof block, e);
        bool bad, ok = true;
        if (n < 0)
                return false;
        buf_drop(&b->text, b->at);
        b->at = 0;
        if (n > 0) {
                ok = text_add(b, str_make(block, (size_t)n));
        } else {
                reader_close(b->reader);
                open_n--;
                b->reader = NULL;
                if (b->charset)
                        ok = charset_end(b->charset, &b->text, &bad);
                b->charset = NULL;
        }
        return ok ? true : buf_ok(&b->text, e) ? err_nomem(e) : false;
}

static void push_line(lua_State *L, struct reader_box *b, size_t n, size_t line_end)
{
        const char *p = b->text.p + b->at;
        size_t shown = line_end && n > 0 && p[n - 1] == '\r' ? n - 1 : n;
        lua_pushlstring(L, p, shown);
        b->at += n + line_end;
        b->seen = 0;
}

static int next_line(lua_State *L)
{
        struct reader_box *b = lua_touserdata(L, lua_upvalueindex(1));
        struct err e;
        lua_settop(L, 0);
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_getiuservalue(L, 1, 1);
        message_box_check(L, 2);
        while (b->of) {
                struct str rest = str_from(buf_str(&b->text), b->at);
                size_t at = b->seen + str_find(str_from(rest, b->seen), '\n');
                b->seen = at;
                if (at < rest.n) {
                        push_line(L, b, at, 1);
                        return 1;
                }
                if (rest.n >= b->line_max || (!b->reader && rest.n > 0)) {
                        struct str piece = utf8_cut(rest, b->line_max);
                        push_line(L, b, piece.n > 0 ? piece.n : rest.n, 0);
                        return 1;
                }
                if (!b->reader)
                        break;
                if (!text_fill(b, &e))
                        return face_raise(L, &e);
        }
        reader_release(b);
        lua_pushnil(L);
        return 1;
}

int part_method_lines(lua_State *L)
{
        struct plan *plan;
        struct part *p = face_check_part(L, 1, &plan);
        struct reader_box *b;
        struct err e;
        bool unknown;

        lua_settop(L, 1);
        if (!reader_push(L, &b, &e))
                return face_raise(L, &e);
        b->line_max = message_limits(plan->message)->text;
        if (b->line_max == 0) /* no text at once; but a piece of nothing would come for ever */
                b->line_max = 1;
        if (!part_is_root(p) && str_starts(part_type(p), STR("text/")))
                b->charset = charset_open(part_charset(p), &unknown);
        lua_pushvalue(L, 2);
        lua_pushcclosure(L, next_line, 1);
        lua_insert(L, 2);
        lua_pushnil(L);
        lua_insert(L, 3);
        lua_pushnil(L);
        lua_insert(L, 4);
        return 4; /* iterator, nil, nil, and the reader, which `for` closes at break */
}

static const luaL_Reg methods[] = {
        /*** reader:read(n) -> string or nil, or nil, sentence, code
         * The next n bytes (64 KiB when n is not given, at most 1 MiB), fewer at the end; nil when everything was read. */
        { "read", method_read },
        /*** reader:close()
         * Ends it early; happens by itself with `local r <close> = part:reader()`, and when the message closes. */
        { "close", method_close },
        { NULL, NULL },
};

static const luaL_Reg meta[] = {
        /*** local r <close> = part:reader()
         * Closes the reader at the end of the block. */
        { "__close", method_close },
        /*** (collected)
         * A reader that nobody holds any more is closed. */
        { "__gc", method_close },
        { NULL, NULL },
};

int luaopen_reader(lua_State *L)
{
        luaL_newmetatable(L, FACE_READER);
        luaL_setfuncs(L, meta, 0);
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_pop(L, 1);
        return 0;
}
