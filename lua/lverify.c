/* part:verify: an S/MIME signature, checked against certificates that the script names. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"
#include "lua/class.h"
#include "lua/state.h"

enum { CA_MAX = 16 << 20 }; /* all of the system's roots are 200 KiB */

/* The content of the file named at idx, on top of the stack. */
static struct str push_ca(lua_State *L, int idx)
{
        const char *path = state_path(L, face_check_str(L, idx));
        struct str s = STR_NONE;
        struct err e;
        int fd = sys_open(path, O_RDONLY | O_NONBLOCK, 0, &e); /* a FIFO would be waited for */
        struct stat st;
        char *p = NULL;

        if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)))
                err_set(&e, ERR_ABSENT, "it is no regular file");
        else if (fd >= 0)
                p = sys_read_file(fd, CA_MAX, &s.n, &e);
        if (fd >= 0)
                close(fd);
        if (!p) {
                err_in(&e, "verify: option ca, %s", path);
                face_raise(L, &e);
        }
        s.p = lua_pushlstring(L, p, s.n);
        mem_free(p);
        return s;
}

static int verify(lua_State *L)
{
        static const char *const names[] = { "ca", "at" };
        struct part *p = face_check_part(L, 1, NULL);
        int64_t at = sys_now();
        struct str ca = STR_NONE;
        struct err e;

        lua_settop(L, 2);
        OPTIONS_CHECK(L, 2, "verify", names);
        if (!lua_isnil(L, 2) && lua_getfield(L, 2, "at") != LUA_TNIL)
                at = luaL_checkinteger(L, -1);
        if (!lua_isnil(L, 2) && lua_getfield(L, 2, "ca") != LUA_TNIL)
                ca = push_ca(L, lua_gettop(L));
        return signature_push(L, p, ca, at, &e) ? 1 : face_raise(L, &e);
}

static const luaL_Reg methods[] = {
        /*** part:verify(options) -> table or nil
         * The signature, as part.signature gives it, by other certificates or at another time; nil when it is not signed.
         * option ca: a file of certificates to trust instead of the system's, PEM; relative to the script.
         * option at: the time at which certificates must hold, seconds since 1970: m.received for old mail. Now by default. */
        { "verify", verify },
        { NULL, NULL },
};

int luaopen_verify(lua_State *L)
{
        face_add_methods(L, FACE_MESSAGE, methods);
        face_add_methods(L, FACE_PART, methods);
        return 0;
}
