/* What bounding a script costs an ordinary one: the same handlers in Lua as it comes, in the engine (memory counted, CPU time limited by
 * the timer, coroutines followed), and in Lua with a hook that stands and looks at the clock every 1,000 instructions, as others do it.
 * Instructions where the kernel counts them, and CPU time; the three take turns. usage: bounding [rounds] */
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

#include "lua/deadline.h"
#include "lua/engine.h"

enum { MESSAGES = 3000, WAYS = 3 };

/* About what a rule does for a message: text taken apart, a table filled and sorted, a pattern or two, something caught. */
static const char work[] =
        "local seen = {}\n"
        "function handler(n)\n"
        "  local line = string.format('From: Sender %d <s%d@example%d.net>', n, n % 97, n % 7)\n"
        "  local user, domain = string.match(line, '<([^@]+)@([^>]+)>')\n"
        "  seen[domain] = (seen[domain] or 0) + 1\n"
        "  local words = {}\n"
        "  for w in string.gmatch('invoice number 4711 from the shop of last month, please pay', '%a+') do words[#words + 1] = string.lower(w) end\n"
        "  table.sort(words, function(a, b) return a < b end)\n"
        "  local ok = pcall(function() if n % 10 == 0 then error 'tenth' end return user end)\n"
        "  local sum = 0\n"
        "  for i = 1, 200 do sum = (sum * 31 + i + #words) % 65521 end\n"
        "  local next_part = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(words[i]) end end)\n"
        "  local path = table.concat({ domain, next_part(), next_part(), tostring(sum), tostring(ok) }, '/')\n"
        "  return string.gsub(path, '[^%w/]', '_')\n"
        "end\n";

static int counter = -1;

static uint64_t instructions(void)
{
        uint64_t n = 0;

        return counter >= 0 && read(counter, &n, sizeof n) == sizeof n ? n : 0;
}

static double cpu(void)
{
        struct timespec t;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double hook_until;

static void look(lua_State *L, lua_Debug *ar)
{
        if (cpu() > hook_until)
                luaL_error(L, "time is up");
}

static void must(bool ok, const char *what)
{
        if (ok)
                return;
        fprintf(stderr, "%s\n", what);
        exit(1);
}

/* One handler in a coroutine of its own that is used again, as the engine does it. */
static void messages(lua_State *L, int way)
{
        lua_State *co = lua_newthread(L);
        struct err e;
        int got;

        for (int i = 0; i < MESSAGES; i++) {
                if (way == 1)
                        must(deadline_begin(co, 5, 0, &e), "no timer");
                if (way == 2) {
                        hook_until = cpu() + 5;
                        lua_sethook(co, look, LUA_MASKCOUNT, 1000);
                }
                lua_getglobal(co, "handler");
                lua_pushinteger(co, i);
                must(lua_resume(co, L, 1, &got) == LUA_OK, "the handler failed");
                lua_settop(co, 0);
                lua_resetthread(co);
                if (way == 1)
                        deadline_end();
        }
        lua_pop(L, 1);
}

int main(int argc, char **argv)
{
        static const char *const names[WAYS] = { "Lua as it comes", "bounded by the engine", "a hook that stands" };
        struct perf_event_attr a = { .type = PERF_TYPE_HARDWARE, .size = sizeof a, .config = PERF_COUNT_HW_INSTRUCTIONS, .exclude_kernel = 1,
                                     .exclude_hv = 1 };
        int rounds = argc > 1 ? atoi(argv[1]) : 15;
        struct engine_options o = { 0 };
        struct err e;
        struct engine *en = engine_new(&o, &e);
        lua_State *states[WAYS] = { luaL_newstate(), en ? engine_state(en) : NULL, luaL_newstate() };
        double least[WAYS] = { 0 };
        uint64_t steps[WAYS] = { 0 };

        counter = (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
        for (int w = 0; w < WAYS; w++) {
                must(states[w] != NULL, "no memory");
                if (w != 1)
                        luaL_openlibs(states[w]);
                must(luaL_loadbufferx(states[w], work, sizeof work - 1, "work", "t") == LUA_OK && lua_pcall(states[w], 0, 0, 0) == LUA_OK, "the work");
        }
        for (int r = 0; r < rounds; r++)
                for (int k = 0; k < WAYS; k++) {
                        int w = r % 2 ? WAYS - 1 - k : k;
                        double from = cpu(), took;
                        uint64_t before = instructions(), made;

                        messages(states[w], w);
                        took = cpu() - from;
                        made = instructions() - before;
                        if (r == 0 || took < least[w])
                                least[w] = took;
                        if (r == 0 || made < steps[w])
                                steps[w] = made;
                }
        printf("%d handlers a round, the least of %d rounds\n", MESSAGES, rounds);
        for (int w = 0; w < WAYS; w++) {
                printf("%-22s %7.2f us of CPU a handler, %+5.1f %%", names[w], least[w] * 1e6 / MESSAGES, (least[w] / least[0] - 1) * 100);
                if (steps[0])
                        printf("; %8.0f instructions, %+5.1f %%", (double)steps[w] / MESSAGES, ((double)steps[w] / (double)steps[0] - 1) * 100);
                putchar('\n');
        }
        lua_close(states[0]);
        lua_close(states[2]);
        engine_free(en);
        return 0;
}
