/* Two processes. The supervisor reads no mail and has no threads: it starts the worker, starts commands for it, and starts it
 * again when it dies. Each thread's message in hand stands in shared memory, so the one that killed the worker counts a failed attempt. */
#ifndef CORE_SUPERVISE_H
#define CORE_SUPERVISE_H

#include "core/err.h"
#include "core/str.h"

/* Runs worker(ctx) in a child process and returns the exit code for the program. worker returns its exit code. Called before any thread
 * exists. SIGINT and SIGTERM are passed on; a second one within a run kills. When the worker dies of a signal it is started again as long as
 * each death is explained by a message in hand (at most 64 times). */
int supervise(int (*worker)(void *ctx), void *ctx);

/* The worker's side; without a supervisor (unit tests) these do nothing. */
enum {
        HANDS = 1024,            /* threads that can hold a message; slot 0 is the main thread */
        HAND_NAME_MAX = 1024,    /* bytes of an account and of a UID that are kept */
};
void hand_take(unsigned slot, struct str account, struct str uid, unsigned occurrence, const char *doing);
void hand_drop(unsigned slot);
unsigned hand_slot(void);        /* this thread's slot */
/* A handler runs (limit in seconds of CPU): the supervisor ends the worker when this thread uses three times that. */
void hand_handler_begins(double cpu_limit);
void hand_handler_ends(void);
/* Ends the worker, whose main thread can't go on: as a death of that thread with this reason (a string that stays). From a signal handler, too. */
_Noreturn void hand_die(const char *why);
/* True in a worker that was started again; and what its predecessors had in hand when they died: of the thread that died, where that is
 * known, else of all. counted: hand_counted was called for it. */
bool hand_restarted(void);
struct hand_death {
        struct str account, uid;
        unsigned occurrence;
        const char *doing, *why;
        bool counted;
};
void hand_dead(bool (*f)(void *ctx, const struct hand_death *d), void *ctx);
/* The failed attempt has been recorded: a worker that comes after need not do it again. */
void hand_counted(struct str account, struct str uid, unsigned occurrence);

#endif
