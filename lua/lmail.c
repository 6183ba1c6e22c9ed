/* mail: what a script declares about a run, and the rules. Mistakes are collected, so that a user sees all of them at once. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/glob.h"
#include "core/log.h"
#include "lua/deadline.h"
#include "lua/declare.h"
#include "lua/open.h"

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
                const char *name = lua_tostring(L, lua_upvalueindex(2)), *nameless;

                text = at && strncmp(text, en->where, at) == 0 ? text + at : text;
                nameless = strstr(text, "to '?' ("); /* Lua can't know the name of what pcall called */
                if (strncmp(text, "bad argument #", 14) == 0 && nameless)
                        state_complain(L, "%.*sto mail.%s (%s", (int)(nameless - text), text, name, nameless + 8);
                else
                        state_complain(L, "%s", text);
        }
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
                lua_settop(L, n);
        }
        return 0;
}

static int root(lua_State *L)
{
        static const char *const names[] = { "caseless" };
        struct engine *en = engine_of(L);
        int n = lua_gettop(L);

        en->caseless = false;
        if (n > 1 && lua_istable(L, n)) {
                OPTIONS_CHECK(L, n, "mail.root", names);
                en->caseless = options_bool(L, n, "caseless", false);
                lua_settop(L, --n);
        }
        luaL_argcheck(L, n <= ROOTS_MAX, ROOTS_MAX + 1, "too many directories");
        for (int i = 1; i <= n || i == 1; i++) {
                struct str s = face_check_str(L, i);

                if (s.n == 0)
                        return luaL_error(L, "mail.root: the name is empty");
                s = state_keep(L, en->arena, str_of(state_path(L, s)));
                lua_settop(L, n);
                if (i == 1)
                        en->root = s;
                else
                        en->more_roots[i - 2] = s;
        }
        en->more_root_n = (size_t)n - 1;
        return 0;
}

static int inbox(lua_State *L)
{
        bool own;

        luaL_checkany(L, 1);
        engine_of(L)->inbox = declare_inbox(L, 1, "mail.inbox", &own);
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
        { "opened_depth", offsetof(struct limits, opened_depth), LIMIT_COUNT },
        { "opened_parts", offsetof(struct limits, opened_parts), LIMIT_COUNT },
        { "opened_bytes", offsetof(struct limits, opened_bytes), LIMIT_SIZE },
        { "opened_ratio", offsetof(struct limits, opened_ratio), LIMIT_COUNT },
        { "opened_whole", offsetof(struct limits, opened_whole), LIMIT_SIZE },
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
                n = declare_measured(L, declare_as_size, "mail.limits", l->name, *(uint64_t *)at);
                if (str_eq(str_of(l->name), STR("heap")) && n < HEAP_MIN)
                        state_complain(L, "mail.limits: option heap is less than %d MiB, which the engine itself needs", HEAP_MIN >> 20);
                else
                        *(uint64_t *)at = (uint64_t)n;
        } else if (l->kind == LIMIT_COUNT) {
                lua_pop(L, 1);
                *(unsigned *)at = (unsigned)declare_integer(L, "mail.limits", l->name, 0, COUNT_MAX, *(unsigned *)at);
        } else {
                seconds = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
                if (seconds < 0 && lua_type(L, -1) == LUA_TSTRING)
                        seconds = (double)declare_measured(L, declare_as_span, "mail.limits", l->name, 1);
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
        struct err e;

        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        for (size_t i = 0; i < LIMITS; i++)
                names[i] = limits[i].name;
        declare_keys(L, 1, "mail.limits", names, LIMITS);
        for (size_t i = 0; i < LIMITS; i++)
                set_limit(L, &limits[i]);
        if (!deadline_change(engine_of(L)->limits.cpu, &e)) /* the rest of the top level has it, too */
                return face_raise(L, &e);
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
        static const char *const features[] = { "pop3", "smtp", "tls", "mbox", "maildir", "mh", "eml", "bundle", "regex", "magic", "html", "tnef", "smime",
                                                "uuencode", "unpack" };
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
         * option ca_file: a private CA instead of the system's, relative to the script; a list of revocations (CRL) in it is obeyed.
         * option verify_as: another name that the certificate must carry.
         * option pin: "sha256:…" of the certificate, instead of verifying its chain.
         * option insecure: true leaves the certificate unverified.
         * option leave_on_server: true (the default), false, or an age since first seen ("14 days").
         * option root: a directory of its own.
         * option inbox: the folder for what no rule delivers; false: nothing is delivered unasked.
         * option auth: only this mechanism; the strongest that is safe by default.
         * option first: "new" starts an old mailbox with what comes from now on; "all" by default.
         * option limit: messages a run; 0 for all.
         * option session: { messages = 5000, bytes = "1 GiB" }: after so many were deleted the session ends with QUIT and a new one begins.
         * option timeout: seconds of silence ("5 min") after which the connection counts as lost. */
        { "account", declare_account },
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
        { "smarthost", declare_smarthost },
        /*** mail.source(pattern, …)
         * Declares archives as sources: mbox, Maildir, MH, .eml files and folders of them, each also compressed (gz, xz, zst, bz2) or in a zip or tar; "-" is standard input. Patterns (*.mbox) and ~ are expanded;
         * names start at the script. */
        { "source", source },
        /*** mail.root(directory, …, options)
         * Where everything delivered and saved lies below. Relative to the script; --root overrules it. Directories after the first are
         * those that the option root of single effects may name, or what lies below them.
         * option caseless: true for a place that is, or is copied to, a file system without case: what is saved under names that differ in
         * case only (A.TXT, a.txt) is numbered as under equal ones. */
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
         * option opened_depth: wrappers and archives in each other that are opened (3).
         * option opened_parts: parts and members in all that is opened of one message (10,000).
         * option opened_bytes: what all of them together may hold (1 GiB).
         * option opened_ratio: as often the size of the message may they hold, beyond 1 MiB (100).
         * option opened_whole: bytes of winmail.dat and S/MIME, which are opened in memory (32 MiB). Beyond one of these five nothing more is
         * opened: what is not is a file as it was sent, and m.defects["limit.opened"] says so.
         * option message: a larger message is not fetched; 0 for no limit.
         * option memory_message: a larger message lives in a file (1 MiB).
         * option saves: saves for one message (1,000).
         * option deliveries: deliveries and outward actions for one message (32).
         * option forwards: new mails for one message (4).
         * option received: Received fields beyond which a message is not forwarded (50).
         * option cpu: seconds of CPU for one message (5); from here on also for the top of the script.
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
         * Whether this mailmill can do something: "pop3", "smtp", "tls", "mbox", "maildir", "mh", "eml", "bundle", "regex", "magic", "html", "tnef",
         * "smime", "uuencode", "unpack". */
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
                        sandbox_require(L, lua_pushfstring(L, "mail.%s", key.p));
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
        sandbox_require(L, "mail.match");
        lua_getfield(L, -1, "any");
        lua_setfield(L, -3, "any");
        lua_getfield(L, -1, "none");
        lua_setfield(L, -3, "none");
        sandbox_require(L, "mail.csv");
        lua_setglobal(L, "csv");
        sandbox_require(L, "mail.rules");
        lua_pushcfunction(L, set_rule);
        lua_setfield(L, -2, "set_rule");
        lua_pushcfunction(L, stopped);
        lua_setfield(L, -2, "stopped");
        return 0;
}
