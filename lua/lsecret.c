/* secret: opaque handles. The value stays in C, and is asked for only when a connection needs it. */
#include "core/secret.h"
#include "lua/state.h"

#define SECRET "mailmill.secret"
enum { WORDS_MAX = 64 };

struct box {
        struct secret *s;
};

struct secret *secret_test(lua_State *L, int idx)
{
        struct box *b = luaL_testudata(L, idx, SECRET);

        return b ? b->s : NULL;
}

static struct box *new_box(lua_State *L)
{
        struct box *b = lua_newuserdatauv(L, sizeof *b, 0);

        b->s = NULL;
        luaL_setmetatable(L, SECRET);
        return b;
}

static int filled(lua_State *L, struct box *b)
{
        if (!b->s)
                return luaL_error(L, "out of memory");
        return 1;
}

/* The words at 1 as a NULL-ended vector that lives as a Lua userdata, strings kept by the table: read raw, what a metamethod makes up nobody keeps. */
static const char *const *words(lua_State *L, const char *what)
{
        const char **argv;
        lua_Integer n;

        luaL_checktype(L, 1, LUA_TTABLE);
        n = (lua_Integer)lua_rawlen(L, 1);
        if (n < 1 || n > WORDS_MAX)
                luaL_error(L, "%s: a list of 1 to %d words is expected", what, WORDS_MAX);
        argv = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *argv, 0);
        for (lua_Integer i = 1; i <= n; i++) {
                size_t len;
                if (lua_rawgeti(L, 1, i) != LUA_TSTRING)
                        luaL_error(L, "%s: word %d is a %s, not a string", what, (int)i, luaL_typename(L, -1));
                argv[i - 1] = lua_tolstring(L, -1, &len);
                if (strlen(argv[i - 1]) != len)
                        luaL_error(L, "%s: word %d has a NUL in it", what, (int)i);
                lua_pop(L, 1);
        }
        argv[n] = NULL;
        return argv;
}

static int command(lua_State *L)
{
        const char *const *argv = words(L, "secret.command");
        struct box *b = new_box(L);

        b->s = secret_command(argv);
        return filled(L, b);
}

/* { attribute = "value", … } or { "attribute", "value", … } */
static int keyring(lua_State *L)
{
        struct box *b;

        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        if (lua_rawlen(L, 1) == 0) {
                lua_Integer n = 0;
                lua_newtable(L);
                for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
                        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
                                return luaL_error(L, "secret.keyring: attributes and values are strings");
                        lua_pushvalue(L, -2);
                        lua_rawseti(L, 2, ++n);
                        lua_pushvalue(L, -1);
                        lua_rawseti(L, 2, ++n);
                }
                lua_replace(L, 1);
        }
        if (lua_rawlen(L, 1) % 2)
                return luaL_error(L, "secret.keyring: an attribute without a value");
        const char *const *argv = words(L, "secret.keyring");
        b = new_box(L);
        b->s = secret_keyring(argv);
        return filled(L, b);
}

static int named(lua_State *L, struct secret *(*make)(struct str), const char *what)
{
        struct str name = face_check_str(L, 1);
        struct box *b;

        options_plain(L, what, name);
        if (name.n == 0)
                return luaL_error(L, "%s is empty", what);
        b = new_box(L);
        b->s = make(name);
        return filled(L, b);
}

static int env(lua_State *L) { return named(L, secret_env, "secret.env: the name"); }
static int credential(lua_State *L) { return named(L, secret_credential, "secret.credential: the name"); }

static int prompt(lua_State *L)
{
        if (lua_isnoneornil(L, 1)) {
                lua_settop(L, 0);
                lua_pushliteral(L, "Password");
        }
        return named(L, secret_prompt, "secret.prompt: the question");
}

static int file(lua_State *L)
{
        state_path(L, face_check_str(L, 1));
        lua_replace(L, 1);
        return named(L, secret_file, "secret.file: the path");
}

/* What is said of a secret names where it comes from, never what it is. */
static int to_string(lua_State *L)
{
        struct box *b = luaL_checkudata(L, 1, SECRET);

        lua_pushliteral(L, "secret (");
        face_push_str(L, b->s ? secret_describe(b->s) : STR("gone"));
        lua_pushliteral(L, ")");
        lua_concat(L, 3);
        return 1;
}

static int refuse(lua_State *L)
{
        return luaL_error(L, "a secret can't be read, joined, measured or changed: hand it over as it is (password = secret.…)");
}

static int forget(lua_State *L)
{
        struct box *b = luaL_checkudata(L, 1, SECRET);

        secret_unref(b->s);
        b->s = NULL;
        return 0;
}

static const luaL_Reg functions[] = {
        /*** secret.command(argv) -> secret
         * The standard output of a command (a list of words, no shell) without its final line end, run when the secret is first needed. It has 30 s, and
         * 5 minutes where a terminal lets it ask: secret.command { "pass", "show", "mail/work" }. */
        { "command", command },
        /*** secret.env(name) -> secret
         * An environment variable, as it was when mailmill started; os.getenv no longer sees it. */
        { "env", env },
        /*** secret.file(path) -> secret
         * The content of a file without its final line end: a regular file of yours that others can't read (chmod 600). Relative to the script. */
        { "file", file },
        /*** secret.credential(name) -> secret
         * A systemd credential: the file of that name in $CREDENTIALS_DIRECTORY (LoadCredential=). */
        { "credential", credential },
        /*** secret.keyring(attributes) -> secret
         * From the desktop's keyring by secret-tool: secret.keyring { service = "mail", user = "me" }. */
        { "keyring", keyring },
        /*** secret.prompt(question) -> secret
         * Asked on the terminal, without echo, when first needed. */
        { "prompt", prompt },
        { NULL, NULL },
};

static const luaL_Reg meta[] = {
        /*** tostring(secret) -> string
         * "secret (command pass)": where it comes from, never the value. */
        { "__tostring", to_string },
        /*** secret .. x
         * Raises, like every other use of the value. */
        { "__concat", refuse },
        /*** #secret
         * Raises. */
        { "__len", refuse },
        /*** secret[key]
         * Raises. */
        { "__index", refuse },
        /*** secret[key] = value
         * Raises. */
        { "__newindex", refuse },
        /*** secret()
         * Raises. */
        { "__call", refuse },
        /*** secret < x
         * Raises. */
        { "__lt", refuse },
        /*** secret <= x
         * Raises. */
        { "__le", refuse },
        /*** (collected)
         * The last handle's value is wiped. */
        { "__gc", forget },
        { NULL, NULL },
};

int luaopen_secret(lua_State *L)
{
        luaL_newmetatable(L, SECRET);
        luaL_setfuncs(L, meta, 0);
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_pop(L, 1);
        luaL_newlib(L, functions);
        lua_setglobal(L, "secret");
        return 0;
}
