/* Child processes. The worker never forks: it asks the supervisor over a socket. Children get argv (no shell), the finished
 * bytes of a file as standard input (never a live network), a clean environment (PATH HOME LANG LC_ALL TZ USER LOGNAME TMPDIR, and what is
 * given), an own process group that is killed as a whole, a time limit, bounded output. */
#ifndef CORE_SPAWN_H
#define CORE_SPAWN_H

#include <stdatomic.h>

#include "core/buf.h"

struct spawn {
        const char *const *argv;   /* ends with NULL; argv[0] is looked up in PATH */
        const char *const *env;    /* "NAME=value" additions, ends with NULL; may be NULL */
        int stdin_fd;              /* -1: /dev/null */
        size_t output_max;         /* more is ERR_LIMIT and the child is killed; 0: standard output goes to /dev/null */
        double seconds;            /* time limit, ERR_TIMEOUT; 0: none */
        const atomic_bool *stop;   /* once it is set the child has 3 s to end, then it is killed: ERR_STOPPED; may be NULL */
        bool keep_env;             /* secret.command alone: the user's environment, and the terminal as its own (with stdin_fd -1
                                    * also as its standard input) */
        bool quiet;                /* standard error to /dev/null instead of ours */
};

/* Runs it and waits, from any thread. What it leaves running in its process group is killed when it ends. *status: exit status
 * 0..255, or 128 + signal. output is appended to (may be NULL). True when the child ran to its end, whatever its status; the error
 * names argv[0]. */
bool spawn_run(const struct spawn *s, struct buf *output, int *status, struct err *e) MUST_CHECK;

/* An environment variable as it was when the program started: the supervisor keeps it in locked memory, the block itself was
 * overwritten. False (ERR_ABSENT) when it was not set. The value goes into out, which the caller wipes. */
bool spawn_getenv(struct str name, struct buf *out, struct err *e) MUST_CHECK;

/* The worker's end of the socket to the supervisor (SOCK_SEQPACKET). Without one (-1, unit tests) spawn_run forks by itself. */
void spawn_connect(int fd);

/* The supervisor's side: moves the environment into locked memory and overwrites the block (keeping a copy of what is no
 * secret: PATH HOME LANG LC_* TZ USER LOGNAME TERM XDG_* and the like); call once at the very start of main, after any fork into
 * the background: a forked process sees zeros. */
bool spawn_hide_environment(struct err *e) MUST_CHECK;
struct spawn_server;
/* Owns fd, also after failure. */
struct spawn_server *spawn_server_new(int fd, struct err *e) MUST_CHECK;
/* Serves requests and waits for children, for at most timeout_ms; returns false when the other end is gone. Children of a worker that
 * died are killed by spawn_server_free. */
bool spawn_server_step(struct spawn_server *s, int timeout_ms);
void spawn_server_free(struct spawn_server *s);

#endif
