/* mail.account and mail.smarthost. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/secret.h"
#include "lua/declare.h"

/* Where the call stands: in the script, or in a module beside it. */
static struct str file_of_caller(lua_State *L)
{
        lua_Debug ar;

        for (int level = 1; lua_getstack(L, level, &ar); level++)
                if (lua_getinfo(L, "S", &ar) && ar.source[0] == '@')
                        return str_of(ar.source + 1);
        return engine_of(L)->script;
}

/* A password that stands in the script itself: only where nobody else can read it. */
static struct secret *literal_password(lua_State *L, const char *what, struct str text)
{
        struct engine *en = engine_of(L);
        struct str file = file_of_caller(L);
        struct stat st;
        struct secret *s;

        if (en->script.n == 0) {
                state_complain(L, "%s: a password in the command line can be read by others: use secret.command, secret.env, secret.file …", what);
                return NULL;
        }
        if (stat(file.p, &st) != 0 || !S_ISREG(st.st_mode)) {
                state_complain(L, "%s: a password stands in the script, which is no regular file: use secret.command, secret.env, secret.file …", what);
                return NULL;
        }
        if (st.st_uid != geteuid()) {
                state_complain(L, "%s: a password stands in the script, which belongs to another user (%d): chown %d %.*s", what, (int)st.st_uid,
                               (int)geteuid(), STR_FMT(file));
                return NULL;
        }
        if ((st.st_mode & 077) != 0) {
                state_complain(L, "%s: a password stands in the script, and others may read the script: use secret.command, secret.env, "
                               "secret.file …, or chmod 600 %.*s", what, STR_FMT(file));
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
        bool plain = declare_flag(L, what, "plaintext_password");
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
        struct str s = declare_text(L, what, name);

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
                a->leave_age = declare_measured(L, declare_as_span, what, "leave_on_server", 0);
                return;
        } else if (type != LUA_TBOOLEAN && type != LUA_TNIL) {
                state_complain(L, "%s: option leave_on_server is a %s; possible are true, false and an age such as \"14 days\"", what,
                               lua_typename(L, type));
        }
        lua_pop(L, 1);
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

/* The table of option session, by itself; the account is the upvalue. */
static int read_session(lua_State *L)
{
        static const char what[] = "mail.account: session", *const names[] = { "messages", "bytes" };
        struct account *a = lua_touserdata(L, lua_upvalueindex(1));

        if (lua_isnil(L, 1))
                return 0;
        if (!lua_istable(L, 1)) {
                state_complain(L, "mail.account: option session is a %s; write session = { messages = 1000, bytes = \"100 MB\" }", luaL_typename(L, 1));
                return 0;
        }
        declare_keys(L, 1, what, names, sizeof names / sizeof *names);
        a->session_messages = (uint64_t)declare_integer(L, what, "messages", 1, INT64_MAX, 0);
        if (lua_getfield(L, 1, "bytes") != LUA_TNIL)
                a->session_bytes = (uint64_t)declare_measured(L, declare_as_size, what, "bytes", 0);
        return 0;
}

static void session_of(lua_State *L, struct account *a)
{
        lua_pushlightuserdata(L, a);
        lua_pushcclosure(L, read_session, 1);
        lua_getfield(L, 1, "session");
        lua_call(L, 1, 0);
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

int declare_account(lua_State *L)
{
        static const char what[] = "mail.account";
        static const char *const names[] = {
                "name", "host", "port", "user", "password", "tls", "ca_file", "verify_as", "pin", "insecure", "plaintext_password",
                "leave_on_server", "root", "inbox", "auth", "first", "limit", "timeout", "session",
        };
        struct engine *en = engine_of(L);
        struct account *a = state_alloc(L, en->arena, sizeof *a);
        struct str first;
        int64_t timeout;
        bool own;

        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        declare_keys(L, 1, what, names, sizeof names / sizeof *names);
        a->host = declare_required(L, what, "host");
        a->user = declare_required(L, what, "user");
        a->name = declare_text(L, what, "name");
        if (!a->name.n)
                a->name = arena_printf(en->arena, "%.*s@%.*s", STR_FMT(str_first(a->user, str_find(a->user, '@'))), STR_FMT(a->host));
        a->tls = tls_of(L, what, TLS_IMPLICIT, true);
        a->port = (unsigned)declare_integer(L, what, "port", 1, 65535, a->tls == TLS_IMPLICIT ? 995 : 110);
        a->ca_file = directory_of(L, what, "ca_file");
        a->verify_as = declare_text(L, what, "verify_as");
        a->pin = declare_text(L, what, "pin");
        a->insecure = declare_flag(L, what, "insecure");
        leave_of(L, what, a);
        a->root = directory_of(L, what, "root");
        lua_getfield(L, 1, "inbox");
        a->inbox = declare_inbox(L, -1, what, &own);
        lua_settop(L, 1);
        a->auth = declare_text(L, what, "auth");
        check_auth(L, what, a->auth);
        first = declare_text(L, what, "first");
        if (first.n && !str_eq(first, STR("new")) && !str_eq(first, STR("all")))
                state_complain(L, "%s: option first is '%.*s'; possible are \"all\" and \"new\"", what, STR_FMT(first));
        a->first_new = str_eq(first, STR("new"));
        a->limit = (uint64_t)declare_integer(L, what, "limit", 0, INT64_MAX, 0);
        session_of(L, a);
        timeout = declare_span(L, what, "timeout", 300);
        if (timeout <= 0 || timeout > 3600)
                state_complain(L, "%s: option timeout is outside 1 s to 1 hour", what);
        else
                a->timeout_ms = (int)timeout * 1000;
        check_unique(L, a);
        if (en->account_n == ACCOUNTS_MAX)
                return luaL_error(L, "mail.account: more than %d accounts", ACCOUNTS_MAX);
        a->password = password_of(L, what, !str_eq_nocase(a->auth, STR("external")));
        en->own_inbox[en->account_n] = own;
        en->accounts[en->account_n++] = a;
        return 0;
}

int declare_smarthost(lua_State *L)
{
        static const char what[] = "mail.smarthost";
        static const char *const names[] = {
                "name", "host", "port", "user", "password", "tls", "ca_file", "verify_as", "pin", "insecure", "plaintext_password",
                "auth", "helo", "from", "timeout",
        };
        struct engine *en = engine_of(L);
        int64_t timeout;
        struct smarthost h = { 0 };
        struct str from;

        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        declare_keys(L, 1, what, names, sizeof names / sizeof *names);
        h.name = declare_text(L, what, "name");
        if (!h.name.n)
                h.name = STR("default");
        h.host = declare_required(L, what, "host");
        h.user = declare_text(L, what, "user");
        h.user = h.user.p ? h.user : STR("");
        h.tls = tls_of(L, what, TLS_STARTTLS, h.user.n > 0);
        if (h.tls == TLS_STARTTLS && declare_integer(L, what, "port", 1, 65535, 587) == 465) {
                lua_getfield(L, 1, "tls");
                if (lua_isnil(L, -1))
                        h.tls = TLS_IMPLICIT; /* what that port is for */
                lua_settop(L, 1);
        }
        h.port = (unsigned)declare_integer(L, what, "port", 1, 65535, h.tls == TLS_IMPLICIT ? 465 : 587);
        h.ca_file = directory_of(L, what, "ca_file");
        h.verify_as = declare_text(L, what, "verify_as");
        h.pin = declare_text(L, what, "pin");
        h.insecure = declare_flag(L, what, "insecure");
        h.auth = declare_text(L, what, "auth");
        check_auth(L, what, h.auth);
        h.helo = declare_text(L, what, "helo");
        timeout = declare_span(L, what, "timeout", 0); /* RFC 5321's, which differ from command to command */
        if (timeout < 0 || timeout > 3600)
                state_complain(L, "%s: option timeout is outside 1 s to 1 hour", what);
        else
                h.timeout_ms = (int)timeout * 1000;
        from = declare_text(L, what, "from");
        for (size_t i = 0; i < en->host_n; i++)
                if (str_eq(en->hosts[i].smtp.name, h.name))
                        state_complain(L, "%s: there is already a smarthost '%.*s'", what, STR_FMT(h.name));
        if (en->host_n == HOSTS_MAX)
                return luaL_error(L, "%s: more than %d smarthosts", what, HOSTS_MAX);
        h.password = password_of(L, what, h.user.n > 0 && !str_eq_nocase(h.auth, STR("external")));
        en->hosts[en->host_n++] = (struct host){ h, from };
        return 0;
}
