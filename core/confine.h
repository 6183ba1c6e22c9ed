/* A process that gives up what it will never need, so that a mistake in a parser is not the whole account: where it writes and connects
 * (Landlock, where the kernel has it) and system calls that no mail needs (seccomp). Nothing of it can be taken back, threads that exist
 * already stay free, children inherit it. */
#ifndef CORE_CONFINE_H
#define CORE_CONFINE_H

#include "core/err.h"
#include "core/str.h"

struct confinement {
        const char *const *dirs;   /* written below; what is missing is passed over, and so can't be made either */
        size_t dir_n;
        const unsigned *ports;     /* of TCP, to connect to; none: no connection at all */
        size_t port_n;
};

enum {
        CONFINED_FILES = 1,        /* Landlock 2 (Linux 5.19): 1 forbids every rename between directories, a Maildir needs them */
        CONFINED_PORTS = 2,        /* Landlock 4 (Linux 6.7) */
        CONFINED_CALLS = 4,
};

/* Before the first thread. *got: what of it this kernel can do; what it can't is no failure. False: it could, and refused. Reading stays
 * free, and so do descriptors that are open. */
bool confine(const struct confinement *c, unsigned *got, struct err *e) MUST_CHECK;
/* Says in the log what of it the kernel could not do. */
void confine_tell(unsigned got);
/* No core file, no debugger of the same user, /proc/PID closed to others: memory holds passwords. */
void confine_memory(void);

#endif
