/* The command line: mailmill's own options, known before and after the script's name; what is left belongs to the script. */
#ifndef LUA_OPTIONS_H
#define LUA_OPTIONS_H

#include "core/arena.h"

struct engine;
struct options;

/* A command is found by its name; it returns the program's exit code. */
struct command {
        const char *name;
        const char *usage;       /* behind the name; several lines for several forms */
        const char *help;
        int (*run)(struct options *o);
};

struct options {
        const struct command *command;
        const char *self;        /* how we were called, for usage lines */
        struct arena *arena;
        const char *script;      /* path of the script; NULL with -e */
        const char *script_name; /* what the user typed: "extract" */
        const char *code;        /* -e */
        const char *root, *state, *cert, *key, *user;
        uint64_t limit, port;
        bool dry, json, again, failed, resume, from_start, send, verbose, quiet, help, mark_all_seen;
        const char **accounts;
        size_t account_n;
        unsigned allow;          /* of enum engine_allow */
        unsigned long used;      /* bit i: option i was given */
        /* What follows the command's name (or the script's) and is none of ours, in order. Options that nobody knows are among them, and "--". */
        struct str *args;
        size_t arg_n;
};

extern const struct command commands[];  /* ends with a NULL name; main.c */

/* Reads argv. False: the error is one line about what is wrong, with the nearest name (ERR_USAGE). */
bool options_parse(struct options *o, int argc, char **argv, struct err *e) MUST_CHECK;
/* The first of args that looks like an option, or NULL: for commands (and scripts) that have none of their own. */
bool options_refuse_unknown(const struct options *o, struct err *e) MUST_CHECK;
/* args without "--": the operands of a command whose options are all known. */
struct str *options_operands(const struct options *o, size_t *n);
/* The whole help, or that of one command. */
void options_print_help(const struct command *c);
/* The names (without dashes) that a script's own options may not take, NULL at the end; and the letter of the i-th. */
const char *options_name(size_t i);
const char *options_short(size_t i); /* "n", or "" */
/* Where the state lies: --state, $XDG_STATE_HOME/mailmill, ~/.local/state/mailmill. NULL with an error when none is known. */
const char *options_state_dir(const struct options *o, struct err *e) MUST_CHECK;
/* An existing ready-made script of that name, or NULL. */
const char *options_find_script(struct options *o, const char *name);

#endif
