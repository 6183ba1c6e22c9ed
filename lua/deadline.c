#include "lua/deadline.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "core/supervise.h"

/* The timer ticks by itself, so a message costs no system call: a handler may use TICKS whole intervals, and the first may be a short one.
 * What has not stopped after twice as many is inside C and will not hear. */
enum { TICKS = 20, TICKS_DEAF = 2 * TICKS };

static struct {
        lua_State *volatile running;  /* NULL: no handler */
        volatile sig_atomic_t ticks;
        volatile sig_atomic_t passed;
        unsigned closing;             /* coroutines that are being closed: nothing resumed them, so nothing in them can yield */
        volatile sig_atomic_t last;   /* deadline_last's code, or 0 */
        double seconds;
        char where[80];               /* "rules.lua:7: ", of the instruction that was stopped */
        pid_t thread;
        timer_t timer;
} deadline;

static void note_where(lua_State *L)
{
        if (deadline.where[0])
                return;
        luaL_where(L, 0);
        snprintf(deadline.where, sizeof deadline.where, "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
}

/* Ends what runs on L. Where it can, by a yield: that leaves every pcall on the way where it is, while an error is caught and raised again by
 * each, and Lua walks the whole stack each time (200,000 nested pcalls: minutes). From a hook the yield comes when the hook returns. */
static void stop(lua_State *L)
{
        char text[sizeof deadline.where + DEADLINE_TEXT_MAX];

        note_where(L);
        if (lua_isyieldable(L) && !deadline.closing) {
                lua_yield(L, 0);
                return;
        }
        deadline_text(text, sizeof text);
        luaL_checkstack(L, 1, NULL);
        lua_pushstring(L, text);
        lua_error(L);
}

static void trip(lua_State *L, lua_Debug *ar)
{
        (void)ar;
        if (deadline.running && deadline.passed)
                stop(L);
        else
                lua_sethook(L, NULL, 0, 0);
}

/* Nothing is in hand, and the state is closed: no death that somebody would have to count. */
_Noreturn static void end_program(void)
{
        static const char said[] = "mailmill: error: everything was done, but a finalizer of the script used twice its CPU limit as the script ended\n";

        if (write(STDERR_FILENO, said, sizeof said - 1) < 0)
                _exit(EX_IOERR);
        _exit(deadline.last);
}

/* In the signal handler. lua_sethook is made to be called from there. */
static void tick(int sig)
{
        lua_State *L = deadline.running;

        (void)sig;
        if (!L || ++deadline.ticks <= TICKS)
                return;
        deadline.passed = 1;
        lua_sethook(L, trip, LUA_MASKCOUNT, 1);
        if (deadline.ticks > TICKS_DEAF && deadline.last)
                end_program();
        if (deadline.ticks > TICKS_DEAF)
                hand_die("the worker was ended, the script used twice its CPU limit inside one call (a pattern, a finalizer)");
}

static bool set_timer(double seconds, struct err *e)
{
        long long ns = (long long)(seconds * 1e9 / TICKS);
        struct itimerspec every;

        if (ns < 1000000)
                ns = 1000000;
        every.it_interval.tv_sec = every.it_value.tv_sec = (time_t)(ns / 1000000000);
        every.it_interval.tv_nsec = every.it_value.tv_nsec = (long)(ns % 1000000000);
        if (timer_settime(deadline.timer, 0, &every, NULL) != 0)
                return err_set(e, ERR_IO, "the CPU timer can't be set");
        deadline.seconds = seconds;
        return true;
}

static bool make_timer(struct err *e)
{
        struct sigevent ev;
        struct sigaction act;

        memset(&act, 0, sizeof act);
        act.sa_handler = tick;
        act.sa_flags = SA_RESTART;
        sigaction(SIGRTMIN + 3, &act, NULL);
        memset(&ev, 0, sizeof ev);
        ev.sigev_notify = SIGEV_THREAD_ID;
        ev.sigev_signo = SIGRTMIN + 3;
        ev._sigev_un._tid = gettid();
        if (timer_create(CLOCK_THREAD_CPUTIME_ID, &ev, &deadline.timer) != 0)
                return err_set(e, ERR_IO, "no CPU timer can be made");
        deadline.thread = gettid();
        deadline.seconds = 0;
        return true;
}

bool deadline_begin(lua_State *L, double seconds, unsigned ticks, struct err *e)
{
        if (deadline.thread == 0 && !make_timer(e))
                return false;
        if (deadline.seconds != seconds && !set_timer(seconds, e))
                return false;
        deadline.ticks = (sig_atomic_t)ticks;
        deadline.passed = 0;
        deadline.where[0] = '\0';
        deadline.running = L;
        return true;
}

void deadline_last(int code)
{
        deadline.last = code ? code : err_exit_code(ERR_SCRIPT);
}

bool deadline_running(void)
{
        return deadline.running != NULL;
}

bool deadline_change(double seconds, struct err *e)
{
        return !deadline.running || set_timer(seconds, e);
}

void deadline_text(char *out, size_t n)
{
        snprintf(out, n, "%sthe script used more than %g s of CPU (mail.limits { cpu = \xe2\x80\xa6 })", deadline.where, deadline.seconds);
}

unsigned deadline_end(void)
{
        lua_State *L = deadline.running;

        deadline.running = NULL;
        if (L)
                lua_sethook(L, NULL, 0, 0);
        return (unsigned)deadline.ticks;
}

void deadline_forget(void)
{
        deadline.running = NULL;
}

bool deadline_passed(void)
{
        return deadline.passed;
}

lua_State *deadline_enter(lua_State *co)
{
        lua_State *before = deadline.running;

        if (!before)
                return NULL;
        deadline.running = co;
        if (deadline.passed)
                lua_sethook(co, trip, LUA_MASKCOUNT, 1);
        return before;
}

void deadline_leave(lua_State *before)
{
        if (!before)
                return;
        deadline.running = before;
        if (deadline.passed)
                lua_sethook(before, trip, LUA_MASKCOUNT, 1);
}

void deadline_check(lua_State *L)
{
        if (deadline.running && deadline.passed)
                stop(L);
}

int deadline_close(lua_State *co)
{
        lua_State *before = deadline_enter(co);
        int status;

        deadline.closing++;
        status = lua_resetthread(co);
        deadline.closing--;
        deadline_leave(before);
        return status;
}

/* Coroutines. As in Lua's own library, with the running state followed. */

static const char key_handlers; /* registry: the coroutines of handlers, weak */

void deadline_own(lua_State *L)
{
        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_handlers);
        lua_pushvalue(L, -2);
        lua_pushboolean(L, 1);
        lua_rawset(L, -3);
        lua_pop(L, 1);
}

/* A handler that waits for a command goes on when the command has ended, not when another handler says so. */
static bool is_handler(lua_State *L, int idx)
{
        bool yes;

        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_handlers);
        lua_pushvalue(L, idx);
        yes = lua_rawget(L, -2) != LUA_TNIL;
        lua_pop(L, 2);
        return yes;
}

static lua_State *check_co(lua_State *L)
{
        lua_State *co = lua_tothread(L, 1);
        luaL_argexpected(L, co, 1, "coroutine");
        return co;
}

/* Results or the error object land on L; -1 is an error. */
static int resume(lua_State *L, lua_State *co, int narg)
{
        int status, nres;
        lua_State *before;

        if (!lua_checkstack(co, narg)) {
                lua_pushliteral(L, "too many arguments to resume");
                return -1;
        }
        lua_xmove(L, co, narg);
        before = deadline_enter(co);
        status = lua_resume(co, L, narg, &nres);
        deadline_leave(before);
        if (status != LUA_OK && status != LUA_YIELD) {
                lua_xmove(co, L, 1);
                return -1;
        }
        if (!lua_checkstack(L, nres + 1)) {
                lua_pop(co, nres);
                lua_pushliteral(L, "too many results to resume");
                return -1;
        }
        lua_xmove(co, L, nres);
        return nres;
}

static int co_resume(lua_State *L)
{
        lua_State *co = check_co(L);
        int n;

        if (is_handler(L, 1)) {
                lua_pushboolean(L, 0);
                lua_pushliteral(L, "cannot resume the coroutine of a handler");
                return 2;
        }
        n = resume(L, co, lua_gettop(L) - 1);
        deadline_check(L);
        lua_pushboolean(L, n >= 0);
        lua_insert(L, n >= 0 ? -(n + 1) : -2);
        return n >= 0 ? n + 1 : 2;
}

static int wrap_call(lua_State *L)
{
        lua_State *co = lua_tothread(L, lua_upvalueindex(1));
        int n = resume(L, co, lua_gettop(L)), status;

        deadline_check(L);
        if (n >= 0)
                return n;
        status = lua_status(co);
        if (status != LUA_OK && status != LUA_YIELD) {
                status = deadline_close(co);
                lua_xmove(co, L, 1);
        }
        if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
                luaL_where(L, 1);
                lua_insert(L, -2);
                lua_concat(L, 2);
        }
        return lua_error(L);
}

static int co_wrap(lua_State *L)
{
        lua_State *co;

        luaL_checktype(L, 1, LUA_TFUNCTION);
        co = lua_newthread(L);
        lua_pushvalue(L, 1);
        lua_xmove(L, co, 1);
        lua_pushcclosure(L, wrap_call, 1);
        return 1;
}

/* Suspended or dead: nothing runs on it, and it is not among those that wait for another to return. */
static bool can_close(lua_State *L, lua_State *co)
{
        lua_Debug ar;

        if (co == L)
                return false;
        if (lua_status(co) != LUA_OK)
                return true;
        return !lua_getstack(co, 0, &ar);
}

static int co_close(lua_State *L)
{
        lua_State *co = check_co(L);

        if (!can_close(L, co))
                return luaL_error(L, "cannot close a running coroutine");
        if (is_handler(L, 1))
                return luaL_error(L, "cannot close the coroutine of a handler");
        if (deadline_close(co) == LUA_OK) {
                lua_pushboolean(L, 1);
                return 1;
        }
        lua_pushboolean(L, 0);
        lua_xmove(co, L, 1);
        deadline_check(L);
        return 2;
}

/* A message handler called for an error that the hook raised runs with hooks off: there it is passed by. */
static int guarded_handler(lua_State *L)
{
        lua_settop(L, 1);
        if (deadline.passed)
                return 1;
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_insert(L, 1);
        lua_call(L, 1, 1);
        return 1;
}

static int xpcall_end(lua_State *L, int status, lua_KContext ctx)
{
        (void)status;
        (void)ctx;
        return lua_gettop(L);
}

static int guarded_xpcall(lua_State *L)
{
        luaL_checktype(L, 2, LUA_TFUNCTION);
        lua_pushvalue(L, 2);
        lua_pushcclosure(L, guarded_handler, 1);
        lua_replace(L, 2);
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_insert(L, 1);
        lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, xpcall_end);
        return xpcall_end(L, LUA_OK, 0);
}

int luaopen_deadline(lua_State *L)
{
        static const luaL_Reg functions[] = { { "resume", co_resume }, { "wrap", co_wrap }, { "close", co_close }, { NULL, NULL } };

        lua_newtable(L);
        lua_createtable(L, 0, 1);
        lua_pushliteral(L, "k");
        lua_setfield(L, -2, "__mode");
        lua_setmetatable(L, -2);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_handlers);
        lua_getglobal(L, "coroutine");
        luaL_setfuncs(L, functions, 0);
        lua_pop(L, 1);
        lua_getglobal(L, "xpcall");
        lua_pushcclosure(L, guarded_xpcall, 1);
        lua_setglobal(L, "xpcall");
        return 0;
}
