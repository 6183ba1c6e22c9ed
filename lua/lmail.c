/* mail: what a script declares about a run, and the rules. Mistakes are collected, so that a user sees all of them at once. */
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/date.h"
#include "core/glob.h"
#include "core/log.h"
#include "core/secret.h"
#include "lua/open.h"
#include "lua/state.h"

/* Declarations */

/* Runs the body (an upvalue) protected: what it raises is one problem more, and the script goes on. */
static int declare(lua_State *L)
{
        struct engine *en = engine_of(L);
        int n = lua_gettop(L);

        if (!en->loading)
                return luaL_error(L, "mail.%s belongs to the top of a script, not into a handler", lua_tostring(L, lua_upvalueindex(2)));
        luaL_where(L, 1);
        snprintf(en->where, sizeof en->where, "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_insert(L, 1);
        if (lua_pcall(L, n, 0, 0) != LUA_OK) {
                const char *text = luaL_tolstring(L, -1, NULL);
                size_t at = strlen(en->where);
                state_complain(L, "%s", at && strncmp(text, en->where, at) == 0 ? text + at : text);
        }
        return 0;
}

static void complain_keys(lua_State *L, int idx, const char *what, const char *const *names, size_t n)
{
        for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
                struct str key;
                size_t i = 0;
                const char *near;

                if (lua_type(L, -2) != LUA_TSTRING) {
                        state_complain(L, "%s: a value without a name", what);
                        continue;
                }
                key.p = lua_tolstring(L, -2, &key.n);
                while (i < n && !str_eq(key, str_of(names[i])))
                        i++;
                if (i < n)
                        continue;
                near = glob_nearest(key, names, n);
                if (near)
                        state_complain(L, "%s: unknown option '%.*s' (did you mean '%s'?)", what, STR_FMT(key), near);
                else
                        state_complain(L, "%s: unknown option '%.*s'", what, STR_FMT(key));
        }
}

/* One value of a declaration's table. Complains and answers as if it were absent when its type is wrong. */
static struct str text_of(lua_State *L, const char *what, const char *name)
{
        struct str s = STR_NONE;
        int type = lua_getfield(L, 1, name);

        if (type == LUA_TSTRING) {
                s.p = lua_tolstring(L, -1, &s.n);
                s = state_keep(L, engine_of(L)->arena, s);
                for (size_t i = 0; i < s.n; i++)
                        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f) {
                                state_complain(L, "%s: option %s has a control character in it", what, name);
                                s = STR_NONE;
                        }
                if (s.p && s.n == 0)
                        state_complain(L, "%s: option %s is empty", what, name);
        } else if (type != LUA_TNIL) {
                state_complain(L, "%s: option %s is a %s, not a string", what, name, lua_typename(L, type));
        }
        lua_pop(L, 1);
        return s;
}

static struct str required(lua_State *L, const char *what, const char *name)
{
        struct str s = text_of(L, what, name);

        lua_getfield(L, 1, name);
        if (lua_isnil(L, -1))
                state_complain(L, "%s: option %s is missing", what, name);
        lua_pop(L, 1);
        return s.p ? s : STR("");
}

static bool flag_of(lua_State *L, const char *what, const char *name)
{
        int type = lua_getfield(L, 1, name);
        bool on = lua_toboolean(L, -1);

        if (type != LUA_TNIL && type != LUA_TBOOLEAN)
                state_complain(L, "%s: option %s is a %s, not true or false", what, name, lua_typename(L, type));
        lua_pop(L, 1);
        return on;
}

static int64_t integer_of(lua_State *L, const char *what, const char *name, int64_t min, int64_t max, int64_t otherwise)
{
        int type = lua_getfield(L, 1, name), whole = 0;
        int64_t n = lua_tointegerx(L, -1, &whole);

        if (type == LUA_TNIL) {
                n = otherwise;
        } else if (type != LUA_TNUMBER || !whole) {
                state_complain(L, "%s: option %s is not a whole number", what, name);
                n = otherwise;
        } else if (n < min || n > max) {
                state_complain(L, "%s: option %s is %lld, outside %lld to %lld", what, name, (long long)n, (long long)min, (long long)max);
                n = otherwise;
        }
        lua_pop(L, 1);
        return n;
}

/* A span as face_check_span reads it, with a complaint instead of an error. */
static int try_span(lua_State *L)
{
        lua_pushinteger(L, (lua_Integer)face_check_span(L, 1));
        return 1;
}

static int try_size(lua_State *L)
{
        lua_pushinteger(L, (lua_Integer)face_check_size(L, 1));
        return 1;
}

/* The value on top of the stack, taken off it. */
static int64_t measured(lua_State *L, lua_CFunction f, const char *what, const char *name, int64_t otherwise)
{
        lua_pushcfunction(L, f);
        lua_insert(L, -2);
        if (lua_pcall(L, 1, 1, 0) == LUA_OK)
                otherwise = lua_tointeger(L, -1);
        else
                state_complain(L, "%s: option %s: %s", what, name, luaL_tolstring(L, -1, NULL));
        lua_settop(L, 1);
        return otherwise;
}

static int64_t span_of(lua_State *L, const char *what, const char *name, int64_t otherwise)
{
        if (lua_getfield(L, 1, name) == LUA_TNIL) {
                lua_pop(L, 1);
                return otherwise;
        }
        return measured(L, try_span, what, name, otherwise);
}

/* A password that stands in the script itself: only where nobody else can read it. */
static struct secret *literal_password(lua_State *L, const char *what, struct str text)
{
        struct engine *en = engine_of(L);
        struct stat st;
        struct secret *s;

        if (en->script.n == 0) {
                state_complain(L, "%s: a password in the command line can be read by others: use secret.command, secret.env, secret.file …", what);
                return NULL;
        }
        if (stat(en->script.p, &st) != 0 || (st.st_mode & 077) != 0) {
                state_complain(L, "%s: a password stands in the script, and others may read the script: use secret.command, secret.env, "
                               "secret.file …, or chmod 600 %.*s", what, STR_FMT(en->script));
                return NULL;
        }
        log_warn("%s%s: the password stands in the script; secret.command, secret.env or secret.file keep it out", en->where, what);
        s = secret_literal(text);
        if (!s)
                luaL_error(L, "out of memory");
        return s;
}

static struct secret *password_of(lua_State *L, const char *what, bool needed)
{
        struct secret *s = NULL;
        int type = lua_getfield(L, 1, "password");

        if (type == LUA_TNIL) {
                if (needed)
                        state_complain(L, "%s: option password is missing", what);
        } else if (type == LUA_TSTRING) {
                s = literal_password(L, what, face_check_str(L, -1));
        } else if (secret_test(L, -1)) {
                s = secret_ref(secret_test(L, -1));
        } else {
                state_complain(L, "%s: option password is a %s, not a secret", what, lua_typename(L, type));
        }
        lua_pop(L, 1);
        return s;
}

static enum tls_mode tls_of(lua_State *L, const char *what, enum tls_mode otherwise, bool secret)
{
        enum tls_mode mode = otherwise;
        bool plain = flag_of(L, what, "plaintext_password");
        int type = lua_getfield(L, 1, "tls");

        if (type == LUA_TBOOLEAN) {
                mode = lua_toboolean(L, -1) ? TLS_IMPLICIT : TLS_NONE;
        } else if (type == LUA_TSTRING) {
                struct str s = face_check_str(L, -1);
                if (str_eq(s, STR("implicit")))
                        mode = TLS_IMPLICIT;
                else if (str_eq(s, STR("starttls")) || str_eq(s, STR("stls")))
                        mode = TLS_STARTTLS;
                else if (str_eq(s, STR("none")))
                        mode = TLS_NONE;
                else
                        state_complain(L, "%s: option tls is '%.*s'; possible are true, \"starttls\" and false", what, STR_FMT(s));
        } else if (type != LUA_TNIL) {
                state_complain(L, "%s: option tls is a %s; possible are true, \"starttls\" and false", what, lua_typename(L, type));
        }
        lua_pop(L, 1);
        if (mode == TLS_NONE && secret && !plain)
                state_complain(L, "%s: without TLS the password and all mail can be read on the way; if that is meant, say also "
                               "plaintext_password = true", what);
        return mode;
}

static struct str directory_of(lua_State *L, const char *what, const char *name)
{
        struct str s = text_of(L, what, name);

        if (s.n == 0)
                return STR("");
        s = state_keep(L, engine_of(L)->arena, str_of(state_path(L, s)));
        lua_pop(L, 1);
        return s;
}

/* option leave_on_server: true, false, or an age. */
static void leave_of(lua_State *L, const char *what, struct account *a)
{
        int type = lua_getfield(L, 1, "leave_on_server");

        a->leave = LEAVE_ALWAYS;
        if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1)) {
                a->leave = LEAVE_NEVER;
        } else if (type == LUA_TSTRING || type == LUA_TNUMBER) {
                a->leave = LEAVE_AGE;
                a->leave_age = measured(L, try_span, what, "leave_on_server", 0);
                return;
        } else if (type != LUA_TBOOLEAN && type != LUA_TNIL) {
                state_complain(L, "%s: option leave_on_server is a %s; possible are true, false and an age such as \"14 days\"", what,
                               lua_typename(L, type));
        }
        lua_pop(L, 1);
}

/* A folder's name, or false. *own: it was said. */
static struct str inbox_of(lua_State *L, int idx, const char *what, bool *own)
{
        struct str s = STR_NONE;

        *own = true;
        if (lua_type(L, idx) == LUA_TSTRING) {
                s = state_keep(L, engine_of(L)->arena, face_check_str(L, idx));
                if (s.n == 0)
                        state_complain(L, "%s: the inbox folder has an empty name (false: no inbox)", what);
        } else if (lua_type(L, idx) == LUA_TNIL) {
                *own = false;
        } else if (lua_type(L, idx) != LUA_TBOOLEAN || lua_toboolean(L, idx)) {
                state_complain(L, "%s: the inbox is a folder's name, or false", what);
        }
        return s;
}

static void check_auth(lua_State *L, const char *what, struct str auth)
{
        static const char *const words[] = { "plain", "login", "user", "apop", "cram-md5", "scram-sha-1", "scram-sha-256", "external", "oauthbearer", "xoauth2" };

        for (size_t i = 0; auth.n && i < sizeof words / sizeof *words; i++)
                if (str_eq_nocase(auth, str_of(words[i])))
                        return;
        if (auth.n)
                state_complain(L, "%s: option auth is '%.*s'; possible are plain, login, user, apop and the names of SASL mechanisms", what, STR_FMT(auth));
}

static void check_unique(lua_State *L, const struct account *a)
{
        struct engine *en = engine_of(L);

        for (size_t i = 0; i < en->account_n; i++) {
                const struct account *b = en->accounts[i];
                if (str_eq(a->name, b->name))
                        state_complain(L, "mail.account: there is already an account '%.*s'", STR_FMT(a->name));
                else if (str_eq_nocase(a->host, b->host) && str_eq(a->user, b->user) && a->port == b->port)
                        state_complain(L, "mail.account: '%.*s' is the mailbox of account '%.*s' already", STR_FMT(a->name), STR_FMT(b->name));
        }
}

static int account(lua_State *L)
{
        static const char what[] = "mail.account";
        static const char *const names[] = {
                "name", "host", "port", "user", "password", "tls", "ca_file", "verify_as", "pin", "insecure", "plaintext_password",
                "leave_on_server", "root", "inbox", "auth", "first", "limit", "timeout",
        };
        struct engine *en = engine_of(L);
        struct account *a = state_alloc(L, en->arena, sizeof *a);
        struct str first;
        bool own;

        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        complain_keys(L, 1, what, names, sizeof names / sizeof *names);
        a->host = required(L, what, "host");
        a->user = required(L, what, "user");
        a->name = text_of(L, what, "name");
        if (!a->name.n)
                a->name = arena_printf(en->arena, "%.*s@%.*s", STR_FMT(str_first(a->user, str_find(a->user, '@'))), STR_FMT(a->host));
        a->tls = tls_of(L, what, TLS_IMPLICIT, true);
        a->port = (unsigned)integer_of(L, what, "port", 1, 65535, a->tls == TLS_IMPLICIT ? 995 : 110);
        a->ca_file = directory_of(L, what, "ca_file");
        a->verify_as = text_of(L, what, "verify_as");
        a->pin = text_of(L, what, "pin");
        a->insecure = flag_of(L, what, "insecure");
        leave_of(L, what, a);
        a->root = directory_of(L, what, "root");
        lua_getfield(L, 1, "inbox");
        a->inbox = inbox_of(L, -1, what, &own);
        lua_settop(L, 1);
        a->auth = text_of(L, what, "auth");
        check_auth(L, what, a->auth);
        first = text_of(L, what, "first");
        if (first.n && !str_eq(first, STR("new")) && !str_eq(first, STR("all")))
                state_complain(L, "%s: option first is '%.*s'; possible are \"all\" and \"new\"", what, STR_FMT(first));
        a->first_new = str_eq(first, STR("new"));
        a->limit = (uint64_t)integer_of(L, what, "limit", 0, INT64_MAX, 0);
        a->timeout_ms = (int)(span_of(L, what, "timeout", 300) * 1000);
        if (a->timeout_ms <= 0 || a->timeout_ms > 3600 * 1000)
                state_complain(L, "%s: option timeout is outside 1 s to 1 hour", what);
        check_unique(L, a);
        if (en->account_n == ACCOUNTS_MAX)
                return luaL_error(L, "mail.account: more than %d accounts", ACCOUNTS_MAX);
        a->password = password_of(L, what, !str_eq_nocase(a->auth, STR("external")));
        en->own_inbox[en->account_n] = own;
        en->accounts[en->account_n++] = a;
        return 0;
}

static int smarthost(lua_State *L)
{
        static const char what[] = "mail.smarthost";
        static const char *const names[] = {
                "name", "host", "port", "user", "password", "tls", "ca_file", "verify_as", "pin", "insecure", "plaintext_password",
                "auth", "helo", "from", "timeout",
        };
        struct engine *en = engine_of(L);
        struct smarthost h = { 0 };
        struct str from;

        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        complain_keys(L, 1, what, names, sizeof names / sizeof *names);
        h.name = text_of(L, what, "name");
        if (!h.name.n)
                h.name = STR("default");
        h.host = required(L, what, "host");
        h.user = text_of(L, what, "user");
        h.user = h.user.p ? h.user : STR("");
        h.tls = tls_of(L, what, TLS_STARTTLS, h.user.n > 0);
        if (h.tls == TLS_STARTTLS && integer_of(L, what, "port", 1, 65535, 587) == 465) {
                lua_getfield(L, 1, "tls");
                if (lua_isnil(L, -1))
                        h.tls = TLS_IMPLICIT; /* what that port is for */
                lua_settop(L, 1);
        }
        h.port = (unsigned)integer_of(L, what, "port", 1, 65535, h.tls == TLS_IMPLICIT ? 465 : 587);
        h.ca_file = directory_of(L, what, "ca_file");
        h.verify_as = text_of(L, what, "verify_as");
        h.pin = text_of(L, what, "pin");
        h.insecure = flag_of(L, what, "insecure");
        h.auth = text_of(L, what, "auth");
        check_auth(L, what, h.auth);
        h.helo = text_of(L, what, "helo");
        h.timeout_ms = (int)(span_of(L, what, "timeout", 300) * 1000);
        from = text_of(L, what, "from");
        for (size_t i = 0; i < en->host_n; i++)
                if (str_eq(en->hosts[i].smtp.name, h.name))
                        state_complain(L, "%s: there is already a smarthost '%.*s'", what, STR_FMT(h.name));
        if (en->host_n == HOSTS_MAX)
                return luaL_error(L, "%s: more than %d smarthosts", what, HOSTS_MAX);
        h.password = password_of(L, what, h.user.n > 0 && !str_eq_nocase(h.auth, STR("external")));
        en->hosts[en->host_n++] = (struct host){ h, from };
        return 0;
}

static int source(lua_State *L)
{
        struct engine *en = engine_of(L);
        int n = lua_gettop(L);

        luaL_checkany(L, 1);
        for (int i = 1; i <= n; i++) {
                struct str s = face_check_str(L, i);
                if (s.n == 0) {
                        state_complain(L, "mail.source: the name is empty");
                        continue;
                }
                if (en->source_n == SOURCES_MAX)
                        return luaL_error(L, "mail.source: more than %d sources", SOURCES_MAX);
                if (!str_eq(s, STR("-")))
                        s = str_of(state_path(L, s));
                en->sources[en->source_n] = state_keep(L, en->arena, s);
                en->source_n++;
        }
        return 0;
}

static int root(lua_State *L)
{
        struct str s = face_check_str(L, 1);

        if (s.n == 0)
                return luaL_error(L, "mail.root: the name is empty");
        engine_of(L)->root = state_keep(L, engine_of(L)->arena, str_of(state_path(L, s)));
        return 0;
}

static int inbox(lua_State *L)
{
        bool own;

        luaL_checkany(L, 1);
        engine_of(L)->inbox = inbox_of(L, 1, "mail.inbox", &own);
        return 0;
}

static int timezone_(lua_State *L)
{
        struct engine *en = engine_of(L);
        struct str s = face_check_str(L, 1);
        bool fixed = s.n >= 5 && s.n <= 6 && (s.p[0] == '+' || s.p[0] == '-');

        options_plain(L, "mail.timezone", s);
        if (!fixed && !str_eq(s, STR("UTC"))) {
                if (s.n == 0 || s.p[0] == '/' || str_find_str(s, STR("..")) < s.n ||
                    access(lua_pushfstring(L, "/usr/share/zoneinfo/%s", s.p), R_OK) != 0)
                        return luaL_error(L, "mail.timezone: '%s' is no known time zone (\"Europe/Berlin\", \"UTC\", \"+02:00\")", s.p);
        }
        en->timezone = state_keep(L, en->arena, s).p;
        if (!fixed) { /* then os.date agrees with the templates, and no template has to change it later */
                setenv("TZ", en->timezone, 1);
                tzset();
        }
        return 0;
}

/* mail.limits */

static const struct limit {
        const char *name;
        size_t at;
        enum { LIMIT_SIZE, LIMIT_COUNT, LIMIT_SECONDS } kind;
} limits[] = {
        { "text", offsetof(struct limits, text), LIMIT_SIZE },
        { "header_block", offsetof(struct limits, header_block), LIMIT_SIZE },
        { "header_field", offsetof(struct limits, header_field), LIMIT_SIZE },
        { "header_fields", offsetof(struct limits, header_fields), LIMIT_COUNT },
        { "depth", offsetof(struct limits, depth), LIMIT_COUNT },
        { "parts", offsetof(struct limits, parts), LIMIT_COUNT },
        { "boundary", offsetof(struct limits, boundary), LIMIT_COUNT },
        { "addresses", offsetof(struct limits, addresses), LIMIT_COUNT },
        { "parameters", offsetof(struct limits, parameters), LIMIT_COUNT },
        { "sections", offsetof(struct limits, sections), LIMIT_COUNT },
        { "words", offsetof(struct limits, words), LIMIT_COUNT },
        { "message", offsetof(struct limits, message), LIMIT_SIZE },
        { "memory_message", offsetof(struct limits, memory_message), LIMIT_SIZE },
        { "saves", offsetof(struct limits, saves), LIMIT_COUNT },
        { "deliveries", offsetof(struct limits, deliveries), LIMIT_COUNT },
        { "forwards", offsetof(struct limits, forwards), LIMIT_COUNT },
        { "received", offsetof(struct limits, received), LIMIT_COUNT },
        { "cpu", offsetof(struct limits, cpu), LIMIT_SECONDS },
        { "heap", offsetof(struct limits, heap), LIMIT_SIZE },
        { "pipe_output", offsetof(struct limits, pipe_output), LIMIT_SIZE },
        { "pipe_time", offsetof(struct limits, pipe_time), LIMIT_SECONDS },
        { "queue", offsetof(struct limits, queue), LIMIT_SIZE },
};
enum { LIMITS = sizeof limits / sizeof *limits, COUNT_MAX = 10000000, HEAP_MIN = 4 << 20 };

static void set_limit(lua_State *L, const struct limit *l)
{
        char *at = (char *)&engine_of(L)->limits + l->at;
        double seconds;
        int64_t n;

        if (lua_getfield(L, 1, l->name) == LUA_TNIL) {
                lua_pop(L, 1);
                return;
        }
        if (l->kind == LIMIT_SIZE) {
                n = measured(L, try_size, "mail.limits", l->name, *(uint64_t *)at);
                if (str_eq(str_of(l->name), STR("heap")) && n < HEAP_MIN)
                        state_complain(L, "mail.limits: option heap is less than %d MiB, which the engine itself needs", HEAP_MIN >> 20);
                else
                        *(uint64_t *)at = (uint64_t)n;
        } else if (l->kind == LIMIT_COUNT) {
                lua_pop(L, 1);
                *(unsigned *)at = (unsigned)integer_of(L, "mail.limits", l->name, 0, COUNT_MAX, *(unsigned *)at);
        } else {
                seconds = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
                if (seconds < 0 && lua_type(L, -1) == LUA_TSTRING)
                        seconds = (double)measured(L, try_span, "mail.limits", l->name, 1);
                lua_settop(L, 1);
                if (!(seconds >= 0.05 && seconds <= 86400))
                        state_complain(L, "mail.limits: option %s is outside 0.05 s to 1 day", l->name);
                else
                        *(double *)at = seconds;
        }
}

static int set_limits(lua_State *L)
{
        const char *names[LIMITS];

        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        for (size_t i = 0; i < LIMITS; i++)
                names[i] = limits[i].name;
        complain_keys(L, 1, "mail.limits", names, LIMITS);
        for (size_t i = 0; i < LIMITS; i++)
                set_limit(L, &limits[i]);
        return 0;
}

/* Rules */

static void push_rules(lua_State *L, const char *function)
{
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        lua_getfield(L, -1, "mail.rules");
        lua_getfield(L, -1, function);
}

static int rule(lua_State *L)
{
        luaL_argexpected(L, lua_type(L, 1) == LUA_TSTRING, 1, "name of the rule");
        luaL_argexpected(L, !lua_isnoneornil(L, 2), 2, "test");
        luaL_checktype(L, 3, LUA_TFUNCTION);
        lua_settop(L, 3);
        /* Compiled here, so that a mistake in the test shows before anything connects, and is blamed on the line of the rule. */
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        lua_getfield(L, -1, "mail.match");
        lua_getfield(L, -1, "compile");
        lua_pushvalue(L, 2);
        lua_call(L, 1, 1);
        lua_replace(L, 2);
        lua_settop(L, 3);
        push_rules(L, "add");
        lua_pushvalue(L, 1);
        lua_pushvalue(L, 2);
        lua_pushvalue(L, 3);
        lua_call(L, 3, 0);
        return 0;
}

static int on_message(lua_State *L)
{
        luaL_checktype(L, 1, LUA_TFUNCTION);
        lua_settop(L, 1);
        push_rules(L, "add");
        lua_pushliteral(L, "on_message");
        lua_pushnil(L);
        lua_pushvalue(L, 1);
        lua_call(L, 3, 0);
        return 0;
}

static int on_finish(lua_State *L)
{
        luaL_checktype(L, 1, LUA_TFUNCTION);
        lua_settop(L, 1);
        push_rules(L, "add_finish");
        lua_pushvalue(L, 1);
        lua_call(L, 1, 0);
        return 0;
}

/* For mail/rules.lua. */
static int set_rule(lua_State *L)
{
        face_set_rule(L, 1);
        return 0;
}

static int stopped(lua_State *L)
{
        struct plan *p = face_current(L);

        lua_pushboolean(L, p && ((struct handler *)p->script)->stopped);
        return 1;
}

/* Facts */

static int has(lua_State *L)
{
        static const char *const features[] = { "pop3", "smtp", "tls", "mbox", "maildir", "eml", "regex", "magic", "html" };
        struct str name = face_check_str(L, 1);
        bool found = false;

        for (size_t i = 0; i < sizeof features / sizeof *features; i++)
                found |= str_eq(name, str_of(features[i]));
        lua_pushboolean(L, found);
        return 1;
}

static const luaL_Reg declarations[] = {
        /*** mail.account(options)
         * Declares a POP3 account as a source. Everything wrong with it is said before anything connects.
         * option name: how it is called in marks, logs and m.account; user@host by default.
         * option host: the server.
         * option port: 995 with implicit TLS, else 110.
         * option user: the login.
         * option password: a secret, or a literal in a script of mode 0600.
         * option tls: true (implicit, the default), "starttls", or false with plaintext_password = true.
         * option plaintext_password: true allows the password to travel without encryption.
         * option ca_file: a private CA instead of the system's, relative to the script.
         * option verify_as: another name that the certificate must carry.
         * option pin: "sha256:…" of the certificate, instead of verifying its chain.
         * option insecure: true leaves the certificate unverified.
         * option leave_on_server: true (the default), false, or an age since first seen ("14 days").
         * option root: a directory of its own.
         * option inbox: the folder for what no rule delivers; false: nothing is delivered unasked.
         * option auth: only this mechanism; the strongest that is safe by default.
         * option first: "new" starts an old mailbox with what comes from now on; "all" by default.
         * option limit: messages a session; 0 for all.
         * option timeout: seconds of silence ("5 min") after which the connection counts as lost. */
        { "account", account },
        /*** mail.smarthost(options)
         * Declares where new mail is handed in.
         * option name: how forward and send call it; "default".
         * option host: the server.
         * option port: 587 with STARTTLS, 465 with implicit TLS.
         * option user: the login; none: no login.
         * option password: a secret.
         * option tls: "starttls" (the default), true (implicit), or false with plaintext_password = true.
         * option plaintext_password: true allows the password to travel without encryption.
         * option ca_file: a private CA instead of the system's.
         * option verify_as: another name that the certificate must carry.
         * option pin: "sha256:…" of the certificate.
         * option insecure: true leaves the certificate unverified.
         * option auth: only this mechanism.
         * option helo: the name given in EHLO.
         * option from: the sender of new mail; the user by default where that is an address.
         * option timeout: seconds for each step. */
        { "smarthost", smarthost },
        /*** mail.source(pattern, …)
         * Declares archives as sources: mbox, Maildir, .eml files and folders of them; "-" is standard input. Patterns (*.mbox) and ~ are expanded;
         * names start at the script. */
        { "source", source },
        /*** mail.root(directory)
         * Where everything delivered and saved lies below. Relative to the script; --root overrules it. */
        { "root", root },
        /*** mail.inbox(folder)
         * The folder of accounts that say no inbox of their own: a name, "Inbox" by default, or false. */
        { "inbox", inbox },
        /*** mail.timezone(name)
         * The zone of dates in templates and os.date: "Europe/Berlin", "UTC", "+02:00". Local time by default. */
        { "timezone", timezone_ },
        /*** mail.limits(table)
         * Sets limits: sizes are bytes or "8 MiB", times seconds or "2 min".
         * option text: what part.text and part.content hold (1 MiB).
         * option header_block: bytes of one header that are read (1 MiB).
         * option header_field: bytes of one field that are decoded (128 KiB).
         * option header_fields: fields (10,000).
         * option depth: nesting of parts (64).
         * option parts: parts of a message (10,000).
         * option boundary: bytes of a boundary (256).
         * option addresses: addresses in one field (10,000).
         * option parameters: parameters of one field (256).
         * option sections: sections of one RFC 2231 parameter (128).
         * option words: encoded-words in one field (2,048).
         * option message: a larger message is not fetched; 0 for no limit.
         * option memory_message: a larger message lives in a file (1 MiB).
         * option saves: saves for one message (1,000).
         * option deliveries: deliveries and outward actions for one message (32).
         * option forwards: new mails for one message (4).
         * option received: Received fields beyond which a message is not forwarded (50).
         * option cpu: seconds of CPU for one message (5).
         * option heap: the script's memory (64 MiB).
         * option pipe_output: what part:pipe brings back (1 MiB).
         * option pipe_time: seconds that a command of part:pipe may take (60).
         * option queue: bytes received and not yet decided (16 MiB). */
        { "limits", set_limits },
        /*** mail.rule(name, test, action)
         * A rule: action(m) runs for each message that passes the test. Rules run in the order they were declared until m:stop(). */
        { "rule", rule },
        /*** mail.on_message(action)
         * A rule without a test. */
        { "on_message", on_message },
        /*** mail.on_finish(action)
         * action(run) runs at the end of a run, with a plan of its own: mail.send, mail.store. run has messages, failed, delivered, saved, mails, commands. */
        { "on_finish", on_finish },
        { NULL, NULL },
};

static const luaL_Reg facts[] = {
        /*** mail.has(feature) -> boolean
         * Whether this mailmill can do something: "pop3", "smtp", "tls", "mbox", "maildir", "eml", "regex", "magic", "html". */
        { "has", has },
        { NULL, NULL },
};

/* mail.options, mail.csv …: a library module by its name. */
static int module_member(lua_State *L)
{
        const char *names[128];
        size_t n = 0;
        struct str key;

        if (lua_type(L, 2) != LUA_TSTRING)
                return luaL_error(L, "mail has no field [%s]", luaL_tolstring(L, 2, NULL));
        key = face_check_str(L, 2);
        for (size_t i = 0; i < embedded_n; i++)
                if (str_eq(key, str_of(embedded_modules[i].name))) {
                        lua_getglobal(L, "require");
                        lua_pushfstring(L, "mail.%s", key.p);
                        lua_call(L, 1, 1);
                        return 1;
                }
        for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1))
                if (n < 128 && lua_type(L, -2) == LUA_TSTRING)
                        names[n++] = lua_tostring(L, -2);
        return face_unknown(L, "field of mail", key, names, n);
}

static void add_declarations(lua_State *L)
{
        for (const luaL_Reg *d = declarations; d->name; d++) {
                lua_pushcfunction(L, d->func);
                lua_pushstring(L, d->name);
                lua_pushcclosure(L, declare, 2);
                lua_setfield(L, -2, d->name);
        }
}

static void require(lua_State *L, const char *name)
{
        lua_getglobal(L, "require");
        lua_pushstring(L, name);
        lua_call(L, 1, 1);
}

int luaopen_mail(lua_State *L)
{
        lua_newtable(L);
        add_declarations(L);
        luaL_setfuncs(L, facts, 0);
        lua_pushliteral(L, MAILMILL_VERSION);
        lua_setfield(L, -2, "version");
        lua_newtable(L);
        lua_pushcfunction(L, module_member);
        lua_setfield(L, -2, "__index");
        lua_setmetatable(L, -2);
        lua_pushvalue(L, -1);
        lua_setglobal(L, "mail");
        require(L, "mail.match");
        lua_getfield(L, -1, "any");
        lua_setfield(L, -3, "any");
        lua_getfield(L, -1, "none");
        lua_setfield(L, -3, "none");
        require(L, "mail.csv");
        lua_setglobal(L, "csv");
        require(L, "mail.rules");
        lua_pushcfunction(L, set_rule);
        lua_setfield(L, -2, "set_rule");
        lua_pushcfunction(L, stopped);
        lua_setfield(L, -2, "stopped");
        return 0;
}
