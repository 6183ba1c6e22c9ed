/* part:pipe: a command's answer about a part, at once. It only asks: nothing of the plan waits for it or follows from it. */
#include <stdlib.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/spawn.h"
#include "core/sys.h"
#include "lua/state.h"

#define PIPE "mailmill.pipe"
enum { WORDS_MAX = 256, BLOCK = 64 << 10 };

struct pipe {
        struct plan *plan;
        char **argv;               /* in the plan's arena */
        int fd;                    /* the part's bytes */
        double seconds;
        size_t output_max;
        struct buf output;
        int status;
        bool ran;
        struct err e;
};

static void release(struct pipe *p)
{
        buf_free(&p->output);
        if (p->fd >= 0)
                close(p->fd);
        p->fd = -1;
}

static int collect(lua_State *L)
{
        release(luaL_checkudata(L, 1, PIPE));
        return 0;
}

/* On a pool thread, or at once: touches nothing but *arg and the plan that waits for it. */
static void run_it(void *arg)
{
        struct pipe *p = arg;
        struct spawn s = { .argv = (const char *const *)p->argv, .stdin_fd = p->fd, .output_max = p->output_max, .seconds = p->seconds,
                           .stop = run_stop_flag() };

        p->ran = run_stopped() ? err_set(&p->e, ERR_STOPPED, "stopped") : spawn_run(&s, &p->output, &p->status, &p->e);
        p->plan->stopped |= !p->ran && p->e.code == ERR_STOPPED;
}

static bool copy_part(struct part *part, int fd, struct err *e)
{
        struct reader *r = part_open(part, e);
        char *block = r ? mem_alloc(BLOCK) : NULL;
        ssize_t n = -1;

        if (r && !block)
                err_nomem(e);
        while (block && (n = reader_read(r, block, BLOCK, e)) > 0)
                if (!sys_write_all(fd, block, (size_t)n, e)) {
                        n = -1;
                        break;
                }
        mem_free(block);
        if (r)
                reader_close(r);
        return n == 0 && (lseek(fd, 0, SEEK_SET) == 0 || err_set(e, ERR_IO, "a temporary file can't be rewound"));
}

/* The words of the table at 2, and its options. */
static void read_words(lua_State *L, struct plan *plan, struct pipe *p)
{
        static const char *const names[] = { "ok", "timeout" };
        size_t n;
        const struct str *words;

        if (lua_type(L, 2) == LUA_TSTRING)
                luaL_error(L, "pipe: a command is a list of words, no shell's line: part:pipe { \"program\", \"argument\" }");
        luaL_checktype(L, 2, LUA_TTABLE);
        words = options_list(L, 2, "pipe", WORDS_MAX, plan->arena, &n);
        if (n == 0 || words[0].n == 0)
                luaL_error(L, "pipe: the command is empty: part:pipe { \"program\", \"argument\" }");
        p->argv = state_alloc(L, plan->arena, (n + 1) * sizeof *p->argv);
        for (size_t i = 0; i < n; i++) {
                if (memchr(words[i].p, '\0', words[i].n))
                        luaL_error(L, "pipe: argument %d has a NUL in it", (int)i);
                p->argv[i] = (char *)(uintptr_t)words[i].p;
        }
        for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1))
                if (lua_type(L, -2) == LUA_TSTRING && strcmp(lua_tostring(L, -2), "ok") != 0 && strcmp(lua_tostring(L, -2), "timeout") != 0)
                        face_unknown(L, "option of pipe", face_check_str(L, -2), names, 2);
        p->seconds = state_config(plan)->limits.pipe_time;
        if (lua_getfield(L, 2, "timeout") != LUA_TNIL)
                p->seconds = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : (double)face_check_span(L, lua_gettop(L));
        if (!(p->seconds > 0 && p->seconds <= 86400))
                luaL_error(L, "pipe: option timeout is outside 0 s to 1 day");
        lua_pop(L, 1);
        p->output_max = (size_t)state_config(plan)->limits.pipe_output;
}

/* A status among those of option ok ({ 0 } by default); true takes any. */
static bool status_is_ok(lua_State *L, int status)
{
        bool ok = false;
        int type = lua_getfield(L, 2, "ok");

        if (type == LUA_TNIL) {
                ok = status == 0;
        } else if (type == LUA_TBOOLEAN) {
                ok = lua_toboolean(L, -1) || status == 0;
        } else if (type == LUA_TNUMBER) {
                ok = lua_tointeger(L, -1) == status;
        } else {
                if (type != LUA_TTABLE)
                        luaL_error(L, "pipe: option ok is a %s; it is a list of statuses, { 0, 1 }, or true for any", lua_typename(L, type));
                for (lua_Integer i = 1, n = luaL_len(L, -1); i <= n && !ok; i++) {
                        lua_geti(L, -1, i);
                        ok = lua_isinteger(L, -1) && lua_tointeger(L, -1) == status;
                        lua_pop(L, 1);
                }
        }
        lua_pop(L, 1);
        return ok;
}

/* Stack: part, table, the pipe. */
static int answer(lua_State *L, int status, lua_KContext ctx)
{
        struct pipe *p = luaL_checkudata(L, 3, PIPE);

        (void)status;
        (void)ctx;
        if (!p->ran)
                return luaL_error(L, "pipe: %s", p->e.text);
        if (!status_is_ok(L, p->status))
                return luaL_error(L, "pipe: %s ended with status %d (ok = { … } says which are expected)", p->argv[0], p->status);
        lua_pushlstring(L, p->output.p ? p->output.p : "", p->output.n);
        lua_pushinteger(L, p->status);
        release(p);
        return 2;
}

static int pipe_part(lua_State *L)
{
        struct plan *plan;
        struct part *part = face_check_part(L, 1, &plan);
        struct handler *h = plan->script;
        struct pipe *p;

        if (plan != face_current(L))
                return luaL_error(L, "pipe: the part is of another message than the one being decided");
        lua_settop(L, 2);
        p = lua_newuserdatauv(L, sizeof *p, 0);
        *p = (struct pipe){ .plan = plan, .fd = -1, .output = BUF_INIT };
        luaL_setmetatable(L, PIPE);
        read_words(L, plan, p);
        p->fd = run_tmpfile(plan->run, &p->e);
        if (p->fd < 0 || !copy_part(part, p->fd, &p->e))
                return face_raise(L, &p->e);
        lua_settop(L, 3);
        /* Other accounts go on meanwhile, unless we stand inside a callback or a coroutine of the script's own. */
        if (L != h->co || !lua_isyieldable(L)) {
                run_it(p);
                return answer(L, LUA_OK, 0);
        }
        plan->wait = run_it;
        plan->wait_arg = p;
        h->waiting = true;
        return lua_yieldk(L, 0, 0, answer);
}

static const luaL_Reg methods[] = {
        /*** part:pipe(argv) -> output, status
         * Runs a command (a list of words, no shell) with the decoded bytes on its standard input (of a message: all of it) and returns what it printed,
         * at most limits.pipe_output. A status that is not expected, a time-out and too much output raise, so the message is held. It must be harmless to
         * repeat: a message may be decided again. A stop of the run
         * (SIGTERM, Ctrl-C) gives the command 3 s to end; the message is then as if it had not been decided.
         * option ok: the list of statuses that are expected, { 0 } by default; true for any.
         * option timeout: seconds, or "2 min"; limits.pipe_time by default. */
        { "pipe", pipe_part },
        { NULL, NULL },
};

int luaopen_pipe(lua_State *L)
{
        luaL_newmetatable(L, PIPE);
        lua_pushcfunction(L, collect);
        lua_setfield(L, -2, "__gc");
        face_add_methods(L, FACE_MESSAGE, methods);
        face_add_methods(L, FACE_PART, methods);
        return 0;
}
