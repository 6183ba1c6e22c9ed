/* Between the spawn_*.c only: one child, its environment, and the packets between worker and supervisor. */
#ifndef CORE_SPAWN_IN_H
#define CORE_SPAWN_IN_H

#include <sys/types.h>

#include "core/spawn.h"

/* ---- environment (spawn_env.c) ---- */

/* The environment of a child: one block, ends with NULL. Everything (keep), or only what is harmless; then the additions. */
char **env_for_child(const char *const *more, bool keep, struct err *e) MUST_CHECK;
void env_free(char **env); /* wipes */
/* As it was when the program started. */
bool env_find(struct str name, struct str *value);

/* ---- a child (spawn_child.c) ---- */

struct child {
        pid_t pid;
        int pidfd;   /* readable at its end; -1 where the kernel has none: ask child_reap now and then */
        int exec_fd; /* an errno comes out of it when exec failed */
        int tty;     /* it has the terminal, which goes back to us; or -1 */
};

enum { CHILD_LOOK_MS = 20 }; /* how often to ask without a pidfd */

/* in: -1 for /dev/null; out: -1 for /dev/null. Descriptors stay the caller's. */
bool child_start(struct child *c, const char *const *argv, const char *const *more_env, int in, int out, bool keep_env, bool quiet,
                 struct err *e) MUST_CHECK;
void child_kill(const struct child *c); /* the whole group */
/* True when it has ended: the rest of its group is killed, its descriptors are closed. *status as in spawn_run; *error is the errno
 * of an exec that failed, or 0. */
bool child_reap(struct child *c, int *status, int *error);

/* ---- packets ---- */

enum request_kind { REQUEST_RUN = 1, REQUEST_GETENV };
enum { REQUEST_STDIN = 1, REQUEST_STDOUT = 2, REQUEST_KEEP_ENV = 4, REQUEST_QUIET = 8 };
enum {
        REQUEST_FDS = 4,                   /* reply socket, payload, standard input, standard output: those that there are */
        PAYLOAD_MAX = 8 * 1024 * 1024,     /* arguments and environment; the kernel's own limit is 6 MiB at most */
};

/* With it come the descriptors: first the socket for the reply, then a memory file with argc + envc strings, each ended by NUL. The
 * worker shuts its end of the reply socket down to have the child killed. */
struct request {
        enum request_kind kind;
        unsigned flags, argc, envc;
        double seconds;
};

struct reply {
        bool ok;
        int status;
        size_t n;     /* REQUEST_GETENV: the length of the value, which is the next packet */
        struct err e; /* when not ok */
};

#endif
