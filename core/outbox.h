/* Sends what waits in the outbox: mail by SMTP, commands through the supervisor. Each recipient's answer is kept; 4xx and lost
 * connections are tried again after 1 min growing to 4 h for 5 days, 5xx is a dead letter at once. */
#ifndef CORE_OUTBOX_H
#define CORE_OUTBOX_H

#include "core/ledger.h"
#include "core/smtp.h"

struct outbox_result {
        uint64_t sent, commands, later, dead, unknown_host;
        enum err_code worst;
};
/* Tries everything that is ready and due (all: also what is not due yet). hosts by name; an item whose smarthost is not among them stays and is
 * counted in unknown_host. One session a smarthost, reused. Holds the outbox lock: another process sending is ERR_BUSY. */
bool outbox_send(struct ledger *l, struct smarthost *const *hosts, size_t n, bool all, struct outbox_result *out, struct err *e) MUST_CHECK;

#endif
