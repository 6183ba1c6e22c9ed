/* Secrets: opaque handles, resolved only when connecting, kept in locked memory that core dumps leave out, wiped after use. */
#ifndef CORE_SECRET_H
#define CORE_SECRET_H

#include "core/buf.h"

struct secret;

enum { SECRET_MAX = 4096 };

/* What stands behind a handle: nothing is read until secret_get. Arguments are copied. */
struct secret *secret_command(const char *const *argv);  /* its standard output without one final line end */
struct secret *secret_env(struct str name);
struct secret *secret_file(struct str path);             /* regular, ours, not readable by others: checked on the descriptor */
struct secret *secret_credential(struct str name);       /* systemd: $CREDENTIALS_DIRECTORY/name */
struct secret *secret_keyring(const char *const *attributes); /* secret-tool lookup attribute value … */
struct secret *secret_prompt(struct str question);       /* asked on the terminal, echo off */
struct secret *secret_literal(struct str value);
struct secret *secret_ref(struct secret *s);             /* handles are counted, from any thread */
void secret_unref(struct secret *s);                     /* may be NULL; wipes with the last one */
/* "command pass", "environment variable SMTP_PW", "file ~/pw": for messages; never the value. */
struct str secret_describe(const struct secret *s);
bool secret_is_literal(const struct secret *s);

/* The value: kept in the handle's locked memory, asked for once in a run (one caller at a time; others wait and share the answer).
 * CR, LF, NUL in it or more than SECRET_MAX bytes is ERR_USAGE. The value stays valid while the handle lives. Errors name where it
 * should have come from and, for a file, the chmod to run. */
bool secret_get(struct secret *s, struct str *value, struct err *e) MUST_CHECK;

/* The value where it has been asked for already; asks nobody. s may be NULL. */
bool secret_known(const struct secret *s, struct str *value);

/* Puts stars for a value in an error's text, or in any: a server may repeat what it was sent. Values of less than three bytes stay: half of
 * what the server says would be stars. */
void secret_hide(struct err *e, struct str value);
void secret_star(char *text, size_t n, struct str value);

/* Tests only: the seconds a command may take without a terminal (30) and with one (300, also for an answer to a prompt). */
void secret_set_limits(double alone, double at_terminal);

#endif
