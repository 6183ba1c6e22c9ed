/* What a handler may decide about its own message. Each call checks everything it can and records an effect in the plan; nothing happens yet. */
#include <stdlib.h>

#include "core/sys.h"
#include "lua/open.h"
#include "lua/state.h"

enum {
        ARGV_MAX = 256,     /* words of a command */
        HEADERS_MAX = 100,  /* fields that one copy sets or removes */
};

static struct run *run_of(struct plan *p) { return p->run; }

/* The last thing that can fail: a script may catch an error and go on, and then no half effect may stand in the plan. */
struct effect *effects_add(lua_State *L, struct plan *p, enum effect_kind kind)
{
        struct err e;
        struct str rule = state_keep(L, p->arena, face_rule(L));
        struct effect *f = plan_add(p, kind, &state_config(p)->limits, &e);

        if (!f)
                face_raise(L, &e);
        f->rule = rule;
        return f;
}

/* option root: a directory of its own for this effect; the account's or the run's otherwise. */
static struct root *root_for(lua_State *L, struct plan *p, int options)
{
        struct err e;
        struct str name = options_str(L, options, "root", p->arena);
        struct root *r = name.n ? run_root_named(run_of(p), str_of(state_path(L, name)), &e) : run_root(run_of(p), p->source, &e);

        if (!r)
                face_raise(L, &e);
        return r;
}

/* Saving */

static bool part_bytes_hash(void *ctx, uint8_t out[DIGEST_SIZE], struct err *e)
{
        return part_sha256_aside(ctx, out, e);
}

static enum on_conflict check_conflict(lua_State *L, int idx, struct arena *a)
{
        static const char *const words[] = { "number", "keep", "replace", "fail" }; /* as in enum on_conflict */
        struct str how = options_str(L, idx, "on_conflict", a);

        if (!how.p)
                return CONFLICT_NUMBER;
        for (int i = 0; i < 4; i++)
                if (str_eq(how, str_of(words[i])))
                        return (enum on_conflict)i;
        face_unknown(L, "value of on_conflict", how, words, 4);
        return CONFLICT_FAIL;
}

static void push_full_path(lua_State *L, struct root *r, struct str path)
{
        struct str dir = root_path(r);

        lua_pushlstring(L, dir.p, dir.n);
        if (dir.n == 0 || dir.p[dir.n - 1] != '/')
                lua_pushliteral(L, "/");
        else
                lua_pushliteral(L, "");
        lua_pushlstring(L, path.p, path.n);
        lua_concat(L, 3);
}

static int save(lua_State *L)
{
        static const char *const names[] = { "on_conflict", "root" };
        struct plan *p;
        struct part *part = face_check_part(L, 1, &p);
        struct str text = face_check_str(L, 2), path, final, rule;
        enum on_conflict how;
        struct root *root;
        struct effect *f;
        bool same = false;
        struct err e;

        lua_settop(L, 3);
        OPTIONS_CHECK(L, 3, "save", names);
        if (!part_readable(part, &e))
                return face_raise(L, &e);
        how = check_conflict(L, 3, p->arena);
        root = root_for(L, p, 3);
        path = template_expand(L, p, part, text);
        rule = state_keep(L, p->arena, face_rule(L));
        if (!names_take(run_names(run_of(p)), root, path, how, part_bytes_hash, part, &final, &same, p->arena, &e))
                return face_raise(L, &e);
        f = plan_add(p, EFFECT_SAVE, &state_config(p)->limits, &e);
        if (!f) {
                names_release(run_names(run_of(p)), root, final);
                return face_raise(L, &e);
        }
        f->rule = rule;
        f->root = root;
        f->path = final;
        f->part = part;
        f->conflict = how;
        f->same = same;
        p->saved_whole |= part_is_root(part);
        push_full_path(L, root, final);
        return 1;
}

/* Delivering */

/* Maildir letters, sorted and each once. A list of letters or of words. */
static struct str check_flags(lua_State *L, struct plan *p, int options)
{
        static const char *const words[] = { "draft", "flagged", "passed", "replied", "seen", "trashed" };
        static const char letters[] = "DFPRST";
        bool on[sizeof letters] = { false };
        const struct str *list;
        struct str from = message_origin(p->message)->flags;
        char out[sizeof letters];
        size_t n = 0, used = 0;

        if (!lua_isnoneornil(L, options) && lua_getfield(L, options, "flags") != LUA_TNIL)
                list = options_list(L, -1, "option flags", 16, p->arena, &n);
        else
                list = &from, n = 1;
        for (size_t i = 0; i < n; i++) {
                size_t word = 0;
                while (word < 6 && !str_eq_nocase(list[i], str_of(words[word])))
                        word++;
                if (word < 6) {
                        on[word] = true;
                        continue;
                }
                for (size_t k = 0; k < list[i].n; k++) {
                        const char *at = strchr(letters, list[i].p[k]);
                        if (at && *at)
                                on[at - letters] = true;
                        else if (list != &from) /* keywords of the source's own are left behind */
                                face_unknown(L, "flag", list[i], words, 6);
                }
        }
        for (size_t i = 0; i < sizeof letters - 1; i++)
                if (on[i])
                        out[used++] = letters[i];
        return state_keep(L, p->arena, str_make(out, used));
}

static void check_field_name(lua_State *L, struct str name)
{
        for (size_t i = 0; i < name.n; i++)
                if (name.p[i] <= ' ' || name.p[i] == ':' || (unsigned char)name.p[i] >= 0x7f)
                        luaL_error(L, "option headers: '%s' is no name of a header field", name.p);
        if (name.n == 0 || name.n > 76)
                luaL_error(L, "option headers: the name of a header field has 1 to 76 characters");
}

static int by_name(const void *a, const void *b)
{
        const struct compose_field *x = *(struct compose_field *const *)a, *y = *(struct compose_field *const *)b;

        return str_cmp(x->name, y->name);
}

/* { ["X-Label"] = "bank", Subject = false }: sorted, so that equal decisions give equal plans. */
struct compose_field *effects_headers(lua_State *L, struct plan *p, int options)
{
        struct compose_field *list[HEADERS_MAX];
        size_t n = 0;

        if (lua_isnoneornil(L, options) || lua_getfield(L, options, "headers") == LUA_TNIL)
                return NULL;
        if (lua_type(L, -1) != LUA_TTABLE)
                luaL_error(L, "option headers: a table is expected: { [\"X-Label\"] = \"bank\", [\"X-Old\"] = false }");
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
                struct compose_field *f = state_alloc(L, p->arena, sizeof *f);
                if (n == HEADERS_MAX)
                        luaL_error(L, "option headers: more than %d fields", HEADERS_MAX);
                if (lua_type(L, -2) != LUA_TSTRING)
                        luaL_error(L, "option headers: a field's name is a %s", luaL_typename(L, -2));
                f->name = state_keep(L, p->arena, face_check_str(L, -2));
                check_field_name(L, f->name);
                if (lua_type(L, -1) == LUA_TBOOLEAN && !lua_toboolean(L, -1)) {
                        f->value = STR_NONE;
                } else if (lua_type(L, -1) == LUA_TSTRING || lua_type(L, -1) == LUA_TNUMBER) {
                        struct str v;
                        lua_pushvalue(L, -1);
                        v.p = lua_tolstring(L, -1, &v.n);
                        options_plain(L, lua_pushfstring(L, "the header field %s", f->name.p), v);
                        f->value = state_keep(L, p->arena, v);
                        lua_pop(L, 2);
                } else {
                        luaL_error(L, "option headers: %s is a %s; a string sets it, false removes it", f->name.p, luaL_typename(L, -1));
                }
                list[n++] = f;
        }
        qsort(list, n, sizeof *list, by_name);
        for (size_t i = 0; i < n; i++)
                list[i]->next = i + 1 < n ? list[i + 1] : NULL;
        return n ? list[0] : NULL;
}

static bool check_mbox(lua_State *L, struct plan *p, int options)
{
        static const char *const words[] = { "maildir", "mbox" };
        struct str format = options_str(L, options, "format", p->arena);

        if (format.p && !str_eq(format, STR("maildir")) && !str_eq(format, STR("mbox")))
                face_unknown(L, "format", format, words, 2);
        return str_eq(format, STR("mbox"));
}

/* A folder inside a Maildir's own directories would be a message there to other programs. */
static void check_folder(lua_State *L, struct str path)
{
        while (path.n) {
                struct str c = str_take(&path, '/');
                if (str_eq(c, STR("cur")) || str_eq(c, STR("new")) || str_eq(c, STR("tmp")))
                        luaL_error(L, "deliver: no folder can be called \"%s\": each has a directory of that name inside",
                                   lua_pushlstring(L, c.p, c.n));
        }
}

static int deliver(lua_State *L)
{
        static const char *const names[] = { "format", "flags", "detach", "headers", "root" };
        struct plan *p = face_check_plan(L, 1);
        struct handler *h = p->script;
        struct str text = face_check_str(L, 2);
        struct effect *f, made = { 0 };
        struct detach *d = NULL;

        lua_settop(L, 3);
        OPTIONS_CHECK(L, 3, "deliver", names);
        made.mbox = check_mbox(L, p, 3);
        made.flags = check_flags(L, p, 3);
        made.fields = effects_headers(L, p, 3);
        made.root = root_for(L, p, 3);
        made.path = template_expand(L, p, NULL, text);
        if (!made.mbox)
                check_folder(L, made.path);
        if (options_bool(L, 3, "detach", false))
                d = state_alloc(L, p->arena, sizeof *d);
        f = effects_add(L, p, EFFECT_DELIVER);
        f->mbox = made.mbox;
        f->flags = made.flags;
        f->fields = made.fields;
        f->root = made.root;
        f->path = made.path;
        if (d) {
                *d = (struct detach){ f, h->detaches };
                h->detaches = d;
        }
        p->delivered = true;
        return 0;
}

/* The rest */

static int discard(lua_State *L)
{
        face_check_plan(L, 1)->discarded = true;
        return 0;
}

static int stop(lua_State *L)
{
        struct handler *h = face_check_plan(L, 1)->script;

        h->stopped = true;
        return 0;
}

static int leave_on_server(lua_State *L)
{
        struct plan *p = face_check_plan(L, 1);

        luaL_checkany(L, 2);
        if (lua_type(L, 2) == LUA_TBOOLEAN) {
                p->leave = lua_toboolean(L, 2) ? LEAVE_ALWAYS : LEAVE_NEVER;
        } else {
                p->leave_age = face_check_span(L, 2);
                p->leave = LEAVE_AGE;
        }
        p->leave_set = true;
        return 0;
}

static int run_after(lua_State *L)
{
        struct plan *p = face_check_plan(L, 1);
        const struct str *argv;
        struct effect *f;
        size_t n;

        if (lua_type(L, 2) == LUA_TSTRING)
                return luaL_error(L, "run_after: a command is a list of words, no shell's line: m:run_after { \"program\", \"argument\" }");
        luaL_checktype(L, 2, LUA_TTABLE);
        argv = options_list(L, 2, "run_after", ARGV_MAX, p->arena, &n);
        if (n == 0 || argv[0].n == 0)
                return luaL_error(L, "run_after: the command is empty: m:run_after { \"program\", \"argument\" }");
        for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1))
                if (lua_type(L, -2) != LUA_TNUMBER)
                        return luaL_error(L, "run_after: unknown option '%s' (it has none)", luaL_tolstring(L, -2, NULL));
        for (size_t i = 0; i < n; i++)
                if (memchr(argv[i].p, '\0', argv[i].n))
                        return luaL_error(L, "run_after: argument %d has a NUL in it", (int)i);
        f = effects_add(L, p, EFFECT_COMMAND);
        f->argv = argv;
        f->argc = n;
        return 0;
}

/* When the handler is over */

static void resolve_detach(lua_State *L, struct plan *p, struct effect *delivery)
{
        struct compose_stub **last = &delivery->stubs;

        for (struct effect *f = p->first; f; f = f->next) {
                if (f->kind != EFFECT_SAVE || part_is_root(f->part))
                        continue;
                struct compose_stub *s = state_alloc(L, p->arena, sizeof *s);
                push_full_path(L, f->root, f->path);
                *s = (struct compose_stub){ f->part, state_keep(L, p->arena, face_check_str(L, -1)), NULL };
                lua_pop(L, 1);
                *last = s;
                last = &s->next;
        }
}

void effects_finish(lua_State *L, struct plan *p)
{
        struct handler *h = p->script;

        lua_settop(L, 0);
        for (struct detach *d = h->detaches; d; d = d->next)
                resolve_detach(L, p, d->delivery);
}

static const luaL_Reg message_methods[] = {
        /*** m:deliver(folder, options)
         * A copy into a Maildir folder below the root, made when missing; folder is a template ("Archive/{date:%Y}"). The message counts as delivered.
         * option format: "maildir" (the default), or "mbox": appended to an mboxrd file under lock.
         * option flags: Maildir letters ("FS") or a list of words (seen, flagged, replied, passed, draft, trashed); without it the source's come along.
         * option detach: true replaces each attachment that this handler saves by a stub naming its path.
         * option headers: a table that sets ("text") or removes (false) header fields of this copy.
         * option root: another directory instead of the root. */
        { "deliver", deliver },
        /*** m:save(template, options) -> path
         * The whole message as an ordinary file below the root; returns the path it will have. As part:save. */
        { "save", save },
        /*** m:discard()
         * No copy of this message goes to the inbox; other effects stand. */
        { "discard", discard },
        /*** m:stop()
         * No further rule is tried for this message; the action goes on to its end. */
        { "stop", stop },
        /*** m:leave_on_server(value)
         * Overrules the account's setting for this message: true, false, or an age ("14 days", or seconds) since it was first seen. */
        { "leave_on_server", leave_on_server },
        /*** m:run_after(argv)
         * Runs a command (a list of words, no shell) once everything else of the message is in place, the message's bytes as its standard input.
         * It may run again after a crash: MAILMILL_ACTION in its environment is the same each time. No result. */
        { "run_after", run_after },
        { NULL, NULL },
};

static const luaL_Reg part_methods[] = {
        /*** part:save(template, options) -> path
         * The decoded bytes as an ordinary file below the root; template names it ("invoices/{date:%Y-%m}/{name}"). Returns the path it will have, the
         * root in front. A name that is taken by the same content stands; by other content: see on_conflict.
         * option on_conflict: "number" (" (2)" before the extension, the default), "keep" (the file there stands), "replace", or "fail" (raises).
         * option root: another directory instead of the root. */
        { "save", save },
        { NULL, NULL },
};

int luaopen_effects(lua_State *L)
{
        face_add_methods(L, FACE_MESSAGE, message_methods);
        face_add_methods(L, FACE_PART, part_methods);
        return 0;
}
