/* Scripts on their way from a file to an engine: checked, init.lua in front, their options and sources understood. */
#include "lua/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/glob.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/source.h"
#include "core/sys.h"
#include "lua/face.h"
#include "lua/state.h"


static const char *init_file(const struct options *o)
{
        const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
        struct str s = STR_NONE;

        if (xdg && *xdg == '/')
                s = arena_printf(o->arena, "%s/mailmill/init.lua", xdg);
        else if (home && *home)
                s = arena_printf(o->arena, "%s/.config/mailmill/init.lua", home);
        return s.p && access(s.p, F_OK) == 0 ? s.p : NULL;
}

/* ---- the check ---- */

enum { CHECK_HEAP = 512 << 20 }; /* the names and tokens of a script of 4 MiB take 200 */

struct check {
        const struct options *o;
        const char *files[2];     /* init.lua and the script; NULL: none */
        size_t problems;
};

static void push_text(lua_State *L, const char *path)
{
        struct err e;
        size_t n = 0;
        char *text = sandbox_read(path, &n, &e);

        if (!text)
                luaL_error(L, "%s", e.text);
        lua_pushlstring(L, text, n);
        mem_free(text);
}

/* { name =, text =, dir =, action = } */
static void push_unit(lua_State *L, const char *path, const char *code)
{
        lua_createtable(L, 0, 4);
        lua_pushstring(L, path ? path : "-e");
        lua_setfield(L, -2, "name");
        if (path) {
                size_t slash = str_rfind(str_of(path), '/');
                push_text(L, path);
                lua_setfield(L, -2, "text");
                if (path[slash])
                        lua_pushlstring(L, path, slash + 1);
                else
                        lua_pushliteral(L, "");
                lua_setfield(L, -2, "dir");
        } else {
                lua_pushstring(L, code);
                lua_setfield(L, -2, "text");
                lua_pushboolean(L, 1);
                lua_setfield(L, -2, "action");
        }
}

static int check_texts(lua_State *L)
{
        struct check *c = lua_touserdata(L, 1);
        lua_Integer n = 0;

        sandbox_require(L, "mail.check");
        lua_getfield(L, -1, "run");
        lua_newtable(L);
        for (size_t i = 0; i < 2; i++)
                if (c->files[i]) {
                        push_unit(L, c->files[i], NULL);
                        lua_rawseti(L, -2, ++n);
                }
        if (c->o->code) {
                push_unit(L, NULL, c->o->code);
                lua_rawseti(L, -2, ++n);
        }
        lua_call(L, 1, 1);
        c->problems = (size_t)luaL_len(L, -1);
        for (size_t i = 0; i < c->problems; i++) {
                lua_rawgeti(L, -1, (lua_Integer)i + 1);
                log_line(LOG_ERROR, face_check_str(L, -1));
                lua_pop(L, 1);
        }
        return 0;
}

/* In an engine of its own, so that what it needs is gone before the script begins. */
static bool check(const struct options *o, const char *init, struct err *e)
{
        struct engine_options eo = { .allow = o->allow, .limits = limits_default };
        struct check c = { o, { init, o->script }, 0 };
        struct engine *en;
        struct stat st;
        bool ok;

        if (o->script && (stat(o->script, &st) != 0 || access(o->script, R_OK) != 0))
                return err_sys(e, ERR_ABSENT, errno, "opening %s", o->script);
        if (o->script && S_ISDIR(st.st_mode))
                return err_set(e, ERR_ABSENT, "%s is a directory, not a script", o->script);
        if (o->script && !S_ISREG(st.st_mode))
                return err_set(e, ERR_ABSENT, "%s is no regular file (a FIFO, or a device), so no script", o->script);
        if (o->script && st.st_size > SCRIPT_BYTES_MAX)
                return err_set(e, ERR_LIMIT, "%s is larger than %d MiB, which no script is", o->script, SCRIPT_BYTES_MAX >> 20);
        eo.limits.heap = CHECK_HEAP;
        en = engine_new(&eo, e);
        ok = en && engine_call(en, check_texts, &c, e);

        engine_free(en);
        if (ok && c.problems)
                return err_set(e, ERR_SYNTAX, "%zu mistake%s in %s; nothing was run", c.problems, c.problems == 1 ? "" : "s",
                               o->script ? o->script : "-e");
        return ok;
}

/* ---- mail.options ---- */

struct answer {
        const struct options *o;
        bool dry_check;
        bool declared;            /* the script called mail.options */
        bool ended;               /* and that ended it: help, a usage error, or a check */
        int code;
        struct arena *arena;
        struct str text;
        struct str *sources;
        size_t n;
};

static void push_options_module(lua_State *L)
{
        sandbox_require(L, "mail.options");
}

/* Tells mail.options what it can't know: how the script is called, what options are taken. */
static int prepare_options(lua_State *L)
{
        struct answer *a = lua_touserdata(L, 1);

        char *cwd = getcwd(NULL, 0);

        push_options_module(L);
        lua_pushstring(L, cwd ? cwd : "");
        free(cwd);
        lua_setfield(L, -2, "cwd");
        lua_pushstring(L, a->o->script_name ? a->o->script_name : "-e");
        lua_setfield(L, -2, "command");
        lua_pushboolean(L, a->dry_check);
        lua_setfield(L, -2, "checking");
        lua_pushboolean(L, a->o->help);
        lua_setfield(L, -2, "help_asked");
        lua_newtable(L);
        for (size_t i = 0; options_name(i); i++) {
                lua_pushboolean(L, 1);
                lua_setfield(L, -2, options_name(i));
                if (*options_short(i)) {
                        lua_pushboolean(L, 1);
                        lua_setfield(L, -2, options_short(i));
                }
        }
        lua_setfield(L, -2, "taken");
        return 0;
}

static struct str kept(lua_State *L, struct arena *arena)
{
        struct str s = arena_str(arena, face_check_str(L, -1));

        lua_pop(L, 1);
        if (!s.p)
                luaL_error(L, "out of memory");
        return s;
}

static int read_options(lua_State *L)
{
        struct answer *a = lua_touserdata(L, 1);

        push_options_module(L);
        lua_getfield(L, -1, "declared");
        a->declared = lua_toboolean(L, -1);
        lua_pop(L, 1);
        if (lua_getfield(L, -1, "ended") == LUA_TSTRING) {
                a->ended = true;
                a->text = kept(L, a->arena);
                lua_getfield(L, -1, "code");
                a->code = (int)lua_tointeger(L, -1);
                return 0;
        }
        lua_pop(L, 1);
        if (lua_getfield(L, -1, "sources") != LUA_TTABLE)
                return 0;
        a->n = (size_t)luaL_len(L, -1);
        a->sources = arena_alloc(a->arena, (a->n + 1) * sizeof *a->sources);
        if (!a->sources)
                return luaL_error(L, "out of memory");
        for (size_t i = 0; i < a->n; i++) {
                lua_rawgeti(L, -1, (lua_Integer)i + 1);
                a->sources[i] = kept(L, a->arena);
        }
        return 0;
}

bool cli_script_sources(struct engine *en, struct arena *arena, struct str **sources, size_t *n)
{
        struct answer a = { .arena = arena };
        struct err e;

        if (!engine_call(en, read_options, &a, &e))
                log_error("%s", e.text);
        *sources = a.sources;
        *n = a.n;
        return a.declared;
}

/* ---- loading ---- */

/* Mistakes of a script's top level: everything that the engine has collected, then the sentence. */
static int say_problems(struct engine *en, const struct err *e)
{
        size_t n = engine_problem_count(en);

        for (size_t i = 0; i < n; i++) {
                struct str text = engine_problem(en, i);
                while (text.n)
                        log_line(LOG_ERROR, str_take_line(&text));
        }
        if (!n || e->code != ERR_SCRIPT)
                log_error("%s", e->text);
        return e->code == ERR_ABSENT || e->code == ERR_IO ? EX_NOINPUT : e->code == ERR_SYNTAX || e->code == ERR_SCRIPT ? EX_DATAERR : err_exit_code(e->code);
}

static bool load(const struct options *o, struct engine *en, const char *init, struct err *e)
{
        if (init && !engine_load_file(en, init, e))
                return false;
        return o->code ? engine_load_action(en, str_of(o->code), "-e", e) : engine_load_file(en, o->script, e);
}

static int end_of_options(const struct answer *a)
{
        if (a->code == EX_OK)
                fwrite(a->text.p, 1, a->text.n, stdout);
        else
                log_line(LOG_ERROR, a->text);
        return a->code;
}

struct engine *cli_script(const struct options *o, bool dry_check, int *code)
{
        struct engine_options eo = { .args = o->args, .arg_n = o->arg_n, .allow = o->allow };
        struct answer a = { .o = o, .dry_check = dry_check, .arena = o->arena };
        const char *init = init_file(o);
        struct engine *en;
        struct err e = { 0 };
        bool loaded;

        if (!check(o, init, &e)) {
                *code = cli_fail(&e);
                return NULL;
        }
        en = engine_new(&eo, &e);
        if (!en || !engine_call(en, prepare_options, &a, &e)) {
                *code = cli_fail(&e);
                engine_free(en);
                return NULL;
        }
        loaded = load(o, en, init, &e);
        *code = EX_OK;
        if (!engine_call(en, read_options, &a, &e)) {
                *code = cli_fail(&e);
        } else if (a.ended) {
                *code = end_of_options(&a);
        } else if (!loaded) {
                *code = say_problems(en, &e);
        } else if (!a.declared && o->help) {
                options_print_help(o->command);
        } else if (!a.declared && !dry_check && !options_refuse_unknown(o, &e)) {
                *code = cli_fail(&e);
        } else {
                return en;
        }
        engine_free(en);
        return NULL;
}

/* ---- what the command line overrules ---- */

static bool keep_account(struct str name, const struct options *o)
{
        for (size_t i = 0; i < o->account_n; i++)
                if (str_eq(name, str_of(o->accounts[i])))
                        return true;
        return o->account_n == 0;
}

static bool known_account(const char *name, const struct run_config *c, struct err *e)
{
        const char *names[64], *near;
        size_t n = 0;

        for (size_t i = 0; i < c->account_n; i++) {
                if (str_eq(c->accounts[i]->name, str_of(name)))
                        return true;
                if (n < 64)
                        names[n++] = c->accounts[i]->name.p; /* text of the arena: terminated */
        }
        near = glob_nearest(str_of(name), names, n);
        if (near)
                return err_set(e, ERR_USAGE, "--account: the script has no account '%s' (did you mean '%s'?)", name, near);
        return err_set(e, ERR_USAGE, "--account: the script has no account '%s'", name);
}

static bool choose_accounts(const struct options *o, struct run_config *c, struct err *e)
{
        struct account **list = arena_alloc(o->arena, (c->account_n + 1) * sizeof *list);
        size_t n = 0;

        if (!list)
                return err_nomem(e);
        for (size_t i = 0; i < o->account_n; i++)
                if (!known_account(o->accounts[i], c, e))
                        return false;
        for (size_t i = 0; i < c->account_n; i++)
                if (keep_account(c->accounts[i]->name, o))
                        list[n++] = c->accounts[i];
        c->accounts = list;
        c->account_n = n;
        return true;
}

static bool choose_root(const struct options *o, struct run_config *c, struct err *e)
{
        char *cwd;

        if (!o->root)
                return true;
        for (size_t i = 0; i < c->account_n; i++)
                c->accounts[i]->root = STR("");
        if (o->root[0] == '/') {
                c->root = str_of(o->root);
                return true;
        }
        cwd = getcwd(NULL, 0);
        if (!cwd)
                return err_sys(e, ERR_IO, errno, "finding the working directory");
        c->root = arena_printf(o->arena, "%s/%s", cwd, o->root);
        free(cwd);
        return c->root.p || err_nomem(e);
}

struct expanded {
        struct arena *arena;
        struct str *list;
        size_t n, max;
};

static bool add_expanded(void *ctx, struct str path, struct err *e)
{
        struct expanded *x = ctx;

        if (x->n == x->max)
                return err_set(e, ERR_LIMIT, "more than %zu sources", x->max);
        x->list[x->n] = arena_str(x->arena, path);
        return x->list[x->n++].p || err_nomem(e);
}

static bool is_pattern(struct str s)
{
        return str_starts(s, STR("~")) || str_find(s, '*') < s.n || str_find(s, '?') < s.n || str_find(s, '[') < s.n;
}

/* A pattern that the shell has left as it is, in quotes. What matches nothing stands for itself, and fails alone when it is opened. */
static bool expand(struct arena *arena, struct str **list, size_t *n, struct err *e)
{
        struct expanded x = { .arena = arena, .max = *n + SOURCES_MAX };
        bool patterns = false;

        for (size_t i = 0; i < *n; i++)
                patterns |= is_pattern((*list)[i]);
        if (!patterns)
                return true;
        if (!(x.list = arena_alloc(arena, x.max * sizeof *x.list)))
                return err_nomem(e);
        for (size_t i = 0; i < *n; i++) {
                struct err why = { 0 };
                size_t before = x.n;

                if (source_glob((*list)[i], add_expanded, &x, &why))
                        continue;
                if (why.code == ERR_LIMIT || why.code == ERR_NOMEM) {
                        *e = why;
                        return false;
                }
                x.n = before;
                if (!add_expanded(&x, (*list)[i], e))
                        return false;
        }
        *list = x.list;
        *n = x.n;
        return true;
}

/* Sources named on the command line replace the script's. */
bool cli_sources(const struct options *o, struct engine *en, struct run_config *c, struct err *e)
{
        struct str *list;
        size_t n;

        if (!cli_script_sources(en, o->arena, &list, &n))
                list = options_operands(o, &n);
        if (n > 0) {
                if (o->account_n)
                        return err_set(e, ERR_USAGE, "--account chooses among the script's accounts; sources named here replace them");
                if (!expand(o->arena, &list, &n, e))
                        return false;
                c->archives = list;
                c->archive_n = n;
                c->account_n = 0;
                return true;
        }
        if (!engine_declares_sources(en))
                return err_set(e, ERR_USAGE, "there is no source: name an mbox, a Maildir or .eml files (- is standard input)%s",
                               o->code ? "" : ", or let the script declare mail.account or mail.source");
        return o->account_n || engine_sources(en, c, e);
}

bool cli_config(const struct options *o, struct engine *en, struct run_config *c, struct err *e)
{
        c->dry = o->dry;
        c->again = o->again;
        c->failed = o->failed;
        c->resume = o->resume;
        c->from_start = o->from_start;
        c->send = o->send;
        c->limit = o->limit;
        return engine_config(en, c, e) && choose_accounts(o, c, e) && choose_root(o, c, e);
}
