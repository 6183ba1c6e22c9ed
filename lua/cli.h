/* What the commands share: a script loaded and checked, a state opened, errors on one line. Each command is a function of lua/cmd_*.c. */
#ifndef LUA_CLI_H
#define LUA_CLI_H

#include <stdio.h>

#include "core/ledger.h"
#include "core/run.h"
#include "lua/engine.h"
#include "lua/options.h"

/* What --allow may hold: code of the script's that we can't foresee; it is meant to do what confinement forbids. */
enum { CLI_UNCONFINED = ENGINE_ALLOW_IO | ENGINE_ALLOW_OS | ENGINE_ALLOW_MODULES };

int cmd_run(struct options *o);
int cmd_check(struct options *o);
int cmd_serve(struct options *o);
int cmd_outbox(struct options *o);
int cmd_state(struct options *o);

/* Prints "mailmill: TEXT" (and, for a usage error, where help is) and answers its exit code. */
int cli_fail(const struct err *e);
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Prints what s holds, escaped for a terminal. */
void cli_print(FILE *f, struct str s);
/* What was printed has arrived, or its reader has gone away (head), which is no failure of ours; else it is said, and code 0 becomes EX_IOERR. */
int cli_end_output(int code);
/* "2026-11-23 06:37", local time; "-" for 0. */
const char *cli_date(int64_t when, char out[32]);
/* The state, made when missing unless readonly. */
struct ledger *cli_ledger(const struct options *o, bool readonly, struct err *e) MUST_CHECK;
/* "7": a row's number. */
bool cli_number(struct str s, int64_t *id, struct err *e) MUST_CHECK;

/* A script, checked and loaded behind init.lua. NULL: everything wrong with it has been said, or its --help was printed; *code is the program's.
 * dry_check: the script is not to start anything (mailmill check): arguments it misses are no mistake. */
struct engine *cli_script(const struct options *o, bool dry_check, int *code) MUST_CHECK;
/* What a script with mail.options takes its arguments for: the sources among them. False: it declared no options, o->args are sources. */
bool cli_script_sources(struct engine *en, struct arena *a, struct str **sources, size_t *n);
/* engine_config with what the command line overrules: accounts, root, which messages. */
bool cli_config(const struct options *o, struct engine *en, struct run_config *c, struct err *e) MUST_CHECK;
/* The sources: those named on the command line, else those that the script declares; none is a usage error. */
bool cli_sources(const struct options *o, struct engine *en, struct run_config *c, struct err *e) MUST_CHECK;
/* A worker's signals: SIGTERM stops the run. */
bool cli_listen(struct err *e) MUST_CHECK;

#endif
