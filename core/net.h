/* Connecting and listening over TCP. */
#ifndef CORE_NET_H
#define CORE_NET_H

#include "core/stream.h"

/* Connects to host:port, trying each address (Happy-Eyeballs is not attempted); the error names host, port and the last reason.
 * ERR_STOPPED soon after *stop (may be NULL) is set. */
int net_connect(struct str host, unsigned port, int64_t deadline, const atomic_bool *stop, struct err *e) MUST_CHECK; /* descriptor or -1 */
/* Listens on the loopback address only; *port 0 takes a free one and is set. */
int net_listen_loopback(unsigned *port, struct err *e) MUST_CHECK;

#endif
