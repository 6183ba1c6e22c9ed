/* The engine: one Lua state that decides about messages. It loads scripts, keeps what they declare, and gives the run its callbacks.
 *
 * One engine at a time decides in a process; all of it belongs to the thread that made it. No Lua error leaves it. */
#ifndef LUA_ENGINE_H
#define LUA_ENGINE_H

#include <lua.h>

#include "core/run.h"

struct engine;

enum engine_allow {
        ENGINE_ALLOW_IO = 1, /* Lua's whole io: writing, popen */
        ENGINE_ALLOW_OS = 2, /* Lua's whole os but exit: execute, remove, rename */
        ENGINE_ALLOW_BYTECODE = 4, /* load of it, string.dump */
        ENGINE_ALLOW_MODULES = 8,  /* Lua's own package and its searches: C modules, package.path */
};

/* The bit of a word of --allow ("io", "os", …); 0: there is none such. The words in use, for a message: "io, os". */
unsigned engine_allow_word(struct str word);
void engine_allow_words(unsigned allow, char *out, size_t n);

struct engine_options {
        const struct str *args;  /* the global `arg`: arg[1] …; arg[0] is the script */
        size_t arg_n;
        unsigned allow;          /* of enum engine_allow */
        struct limits limits;    /* what mail.limits starts from; limits_default when heap is 0 */
        int64_t now;             /* the run's clock: what os.time() answers; 0: sys_now() */
};

struct engine *engine_new(const struct engine_options *o, struct err *e) MUST_CHECK;
void engine_free(struct engine *en);   /* may be NULL; accounts and smarthosts given out go with it */

/* Runs a script's top level, after which its rules and declarations are known. More than one may be loaded, one after the other (init.lua first).
 * Names the script reads start at its directory. False: a syntax error, an error at its top level, or declarations that make no
 * sense: all of them are collected, e says how many (or the only one), engine_problem tells each. */
bool engine_load_file(struct engine *en, const char *path, struct err *e) MUST_CHECK;
/* The same for text; name is how errors call it ("-e"). Names it reads start at the working directory. */
bool engine_load_code(struct engine *en, struct str code, const char *name, struct err *e) MUST_CHECK;
/* A text that becomes the action of a rule of its own, with the message in m: mailmill -e 'print(m.subject)'. */
bool engine_load_action(struct engine *en, struct str code, const char *name, struct err *e) MUST_CHECK;
size_t engine_problem_count(const struct engine *en);
struct str engine_problem(const struct engine *en, size_t i); /* "invoices.lua:3: unknown option 'hots' (did you mean 'host'?)" */
/* Whether a template can be read and names only known fields, as if it were expanded for a message: for `check`. */
bool engine_check_template(struct engine *en, struct str text, struct err *e) MUST_CHECK;
size_t engine_rule_count(struct engine *en);                  /* rules and on_message actions declared */

/* Fills what a script decides about a run: accounts, root, inbox, hosts, limits, now, script_hash (over the texts of all scripts and modules). The
 * rest of c is left alone. engine_sources adds the archives of mail.source, globs expanded; a pattern without a match is an error. What c points
 * to lives as long as the engine. */
bool engine_config(struct engine *en, struct run_config *c, struct err *e) MUST_CHECK;
bool engine_sources(struct engine *en, struct run_config *c, struct err *e) MUST_CHECK;
bool engine_declares_sources(const struct engine *en); /* mail.account or mail.source at least once */
/* The callbacks of a run. One engine may serve several runs, one after the other. */
struct script engine_script(struct engine *en);
/* Of a plan whose handler failed, while the plan lives (in the EVENT_HELD hook): several lines; empty when there is none. */
struct str engine_traceback(const struct plan *p);

/* The state, for a command line that reads what a module has put there (mail.options), or that adds globals of its own before loading. */
lua_State *engine_state(struct engine *en);
/* Calls f(L) with arg as light userdata on its stack, protected: the one gate. False: it raised, and e has the text. */
bool engine_call(struct engine *en, lua_CFunction f, void *arg, struct err *e) MUST_CHECK;

#endif
