/* log.info/warn/error, and print: what a script says to people. */
#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/sys.h"
#include "lua/open.h"

/* A script in a loop must not fill the disk: so many lines at once, then so many a second. */
enum { BURST = 1000, PER_SECOND = 100 };

static struct {
        int64_t at;      /* when `left` was counted */
        int64_t left;
        uint64_t dropped;
} bucket = { 0, BURST, 0 };

void log_end(void)
{
        if (bucket.dropped > 0)
                log_warn("%llu lines of the script's log were dropped: too many at once", (unsigned long long)bucket.dropped);
        bucket.dropped = 0;
}

static bool bucket_take(void)
{
        int64_t now = sys_mono_ms(), more = (now - bucket.at) * PER_SECOND / 1000;
        if (more > 0) {
                bucket.left = bucket.left + more < BURST ? bucket.left + more : BURST;
                bucket.at = now;
        }
        if (bucket.left <= 0) {
                bucket.dropped++;
                return false;
        }
        bucket.left--;
        log_end();
        return true;
}

static int write_line(lua_State *L, enum log_level level)
{
        struct str line;
        int n = lua_gettop(L);
        luaL_Buffer b;
        if (level > log_get_level() || !bucket_take())
                return 0;
        luaL_buffinit(L, &b);
        for (int i = 1; i <= n; i++) {
                if (i > 1)
                        luaL_addchar(&b, ' ');
                luaL_tolstring(L, i, NULL);
                luaL_addvalue(&b);
        }
        luaL_pushresult(&b);
        line.p = lua_tolstring(L, -1, &line.n);
        log_line(level, line);
        return 0;
}

static int log_info_call(lua_State *L) { return write_line(L, LOG_INFO); }
static int log_warn_call(lua_State *L) { return write_line(L, LOG_WARN); }
static int log_error_call(lua_State *L) { return write_line(L, LOG_ERROR); }

/* A piece that ends between characters, so that the escaper sees them whole. */
static struct str take_piece(struct str *rest)
{
        enum { PIECE = 1024 };
        size_t n = rest->n < PIECE ? rest->n : PIECE;
        struct str piece;
        if (n < rest->n)
                for (int back = 0; back < 3 && n > 1 && ((unsigned char)rest->p[n] & 0xc0) == 0x80; back++)
                        n--;
        piece = str_first(*rest, n);
        *rest = str_from(*rest, n);
        return piece;
}

/* Newlines and tabs are the script's layout; everything else that moves a cursor or changes a colour may be the message's. */
static void write_safely(struct str s)
{
        char out[1024 * 16];
        while (s.n > 0) {
                size_t plain = 0;
                while (plain < s.n && s.p[plain] != '\n' && s.p[plain] != '\t')
                        plain++;
                struct str run = str_first(s, plain);
                while (run.n > 0)
                        fwrite(out, 1, log_escape(take_piece(&run), out, sizeof out), stdout);
                if (plain < s.n)
                        fputc(s.p[plain++], stdout);
                s = str_from(s, plain);
        }
}

static int print(lua_State *L)
{
        int n = lua_gettop(L);
        static int terminal = -1; /* asked once: standard output stays what it is */

        if (terminal < 0)
                terminal = isatty(STDOUT_FILENO);
        for (int i = 1; i <= n; i++) {
                struct str s;
                if (i > 1)
                        putc_unlocked('\t', stdout);
                if (lua_isinteger(L, i)) {
                        fprintf(stdout, LUA_INTEGER_FMT, (LUAI_UACINT)lua_tointeger(L, i));
                        continue;
                }
                s.p = lua_type(L, i) == LUA_TSTRING ? lua_tolstring(L, i, &s.n) : luaL_tolstring(L, i, &s.n);
                if (terminal)
                        write_safely(s);
                else
                        fwrite_unlocked(s.p, 1, s.n, stdout);
                lua_settop(L, n);
        }
        putc_unlocked('\n', stdout);
        if (terminal)
                fflush(stdout);
        return 0;
}

static const luaL_Reg functions[] = {
        /*** log.info(…)
         * A line in the log, its arguments with blanks between them; shown with --verbose. Control characters are escaped, a line is cut at
         * 8 KiB, and of very many lines at once some are dropped (the log says how many). */
        { "info", log_info_call },
        /*** log.warn(…)
         * The same as a warning: shown unless the run is quiet. */
        { "warn", log_warn_call },
        /*** log.error(…)
         * The same as an error. It says so and nothing else: error(…) holds the message. */
        { "error", log_error_call },
        { NULL, NULL },
};

static const luaL_Reg globals[] = {
        /*** print(…)
         * To standard output, as in Lua; on a terminal control characters are escaped, so that no message can touch it. */
        { "print", print },
        { NULL, NULL },
};

int luaopen_log(lua_State *L)
{
        lua_pushglobaltable(L);
        luaL_setfuncs(L, globals, 0);
        lua_pop(L, 1);
        luaL_newlib(L, functions);
        return 1;
}
