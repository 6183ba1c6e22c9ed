/* What the engine's own files share. */
#ifndef LUA_STATE_H
#define LUA_STATE_H

#include "core/digest.h"
#include "core/log.h"
#include "core/template.h"
#include "lua/engine.h"
#include "lua/face.h"

enum {
        SCRIPT_BYTES_MAX = 4 << 20,
        ACCOUNTS_MAX = 256, HOSTS_MAX = 64, SOURCES_MAX = 4096, PROBLEMS_MAX = 100, ROOTS_MAX = 256,
        SPARES_MAX = 8,   /* coroutines kept for the next message: as many as accounts wait at once */
};

struct host {             /* a smarthost, and what the SMTP floor need not know */
        struct smarthost smtp;
        struct str from;  /* the sender of new mail through it */
};

struct engine {
        lua_State *L;
        struct arena *arena;
        struct engine_options options;
        struct limits limits;
        size_t heap;                       /* bytes the state holds */
        bool heap_over;                    /* limits.heap was met since this was cleared */
        bool finalizers;                   /* the script made objects with __gc since this was cleared */
        struct digest *texts;
        struct str dir;                    /* where names that a script reads start; empty: the working directory */
        struct str script;                 /* the path of the script being loaded; empty for -e */
        bool loading;
        char where[256];                   /* "invoices.lua:3: " of the declaration in hand */
        struct str problems[PROBLEMS_MAX];
        size_t problem_n;
        /* declared */
        struct account *accounts[ACCOUNTS_MAX];
        bool own_inbox[ACCOUNTS_MAX];      /* the account says its own inbox */
        size_t account_n;
        struct host hosts[HOSTS_MAX];
        struct smarthost *host_list[HOSTS_MAX];
        size_t host_n;
        struct str sources[SOURCES_MAX];
        size_t source_n;
        struct str more_roots[ROOTS_MAX];  /* that effects may name */
        size_t more_root_n;
        bool caseless;
        struct str root, inbox;            /* root empty: the working directory; inbox {NULL,0}: false */
        const char *timezone;              /* NULL: local time */
        /* coroutines */
        struct { lua_State *co; int ref; } spare[SPARES_MAX];
        size_t spare_n;
        /* what on_finish is told */
        lua_Integer messages, failed, delivered, saved, mails, commands;
};

/* What a plan's handler needs: plan->script. In the plan's arena. */
struct handler {
        lua_State *co;
        int ref;
        bool stopped;                      /* m:stop() */
        bool waiting;                      /* it yielded for plan->wait */
        unsigned ticks;                    /* of CPU used before it waited */
        struct detach *detaches;           /* deliveries whose saved attachments become stubs */
        struct str traceback;
};
struct detach {
        struct effect *delivery;
        struct detach *next;
};

/* Registry: the function that runs the rules, and the one that runs what on_finish left. */
#define REGISTRY_RUN "mailmill.run"
#define REGISTRY_FINISH "mailmill.finish"

static inline struct engine *engine_of(lua_State *L)
{
        return *(struct engine **)lua_getextraspace(L);
}

/* The plan that is being decided; raises "WHAT: only while a message is decided" at the top level of a script. */
struct plan *state_plan(lua_State *L, const char *what);
const struct run_config *state_config(const struct plan *p);

/* In the arena, NUL-terminated; raises when out of memory. */
struct str state_keep(lua_State *L, struct arena *a, struct str s);
void *state_alloc(lua_State *L, struct arena *a, size_t n);
/* ~ and names relative to the script become a path that opens from anywhere. Pushes it. */
const char *state_path(lua_State *L, struct str name);
/* A problem of the declaration in hand; loading goes on and fails at its end. */
void state_complain(lua_State *L, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool state_problem(struct engine *en, struct str text);
void state_log_lines(enum log_level level, struct str text);

/* lsandbox.c: Lua's libraries, without what a script has no use for; require. */
int luaopen_sandbox(lua_State *L);
/* A script's text: a regular file of at most 4 MiB. mem_free it. */
char *sandbox_read(const char *path, size_t *n, struct err *e) MUST_CHECK;
void sandbox_require(lua_State *L, const char *name); /* pushes a module of the library, whatever the script has made of its globals */
bool sandbox_compile(lua_State *L, struct str text, const char *chunk); /* compiles text only; pushes the function or the message */

/* lmail.c, lsecret.c, leffects.c, lforward.c, lpipe.c, lstore.c */
int luaopen_mail(lua_State *L);
int luaopen_secret(lua_State *L);
int luaopen_effects(lua_State *L);
int luaopen_forward(lua_State *L);
int luaopen_pipe(lua_State *L);
int luaopen_verify(lua_State *L);
int luaopen_store(lua_State *L);
struct secret *secret_test(lua_State *L, int idx);

/* leffects.c: a new effect at the end of the plan, with the rule's name; raises at a limit. */
struct effect *effects_add(lua_State *L, struct plan *p, enum effect_kind kind);
/* option headers of the table at idx, in the plan's arena; a value {NULL,0} removes. Raises. */
struct compose_field *effects_headers(lua_State *L, struct plan *p, int options);
/* What must be known when the handler is over. Raises. */
void effects_finish(lua_State *L, struct plan *p);

/* ltemplate.c: text expanded for the plan's message, and for part when it is not NULL; in the plan's arena. Raises. */
struct str template_expand(lua_State *L, struct plan *p, struct part *part, struct str text);

/* loptions.c: tables of options. Unknown keys raise, naming the nearest. */
void options_check(lua_State *L, int idx, const char *what, const char *const *names, size_t n);
#define OPTIONS_CHECK(L, idx, what, names) options_check(L, idx, what, names, sizeof(names) / sizeof *(names))
/* Option `name` of the table at idx (which may be none or nil): {NULL,0} when absent; raises when it is no string. In a. */
struct str options_str(lua_State *L, int idx, const char *name, struct arena *a);
bool options_bool(lua_State *L, int idx, const char *name, bool otherwise);
/* The strings of the sequence at idx (numbers count as strings), or the one string that stands there. */
const struct str *options_list(lua_State *L, int idx, const char *what, size_t max, struct arena *a, size_t *n);
/* Raises when s has CR, LF or NUL. */
void options_plain(lua_State *L, const char *what, struct str s);

/* Modules that are built into the program: lua/mail/NAME.lua as "mail.NAME". */
struct embedded {
        const char *name;
        const char *text;
        size_t n;
};
extern const struct embedded embedded_modules[];
extern const size_t embedded_n;

#endif
