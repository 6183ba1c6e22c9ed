/* Sends what waits in the outbox: mail by SMTP, commands through the supervisor. Each recipient's answer is kept; 4xx and lost
 * connections are tried again after 1 min growing to 4 h for 5 days, 5xx is a dead letter at once. */
#ifndef CORE_OUTBOX_H
#define CORE_OUTBOX_H

#include "core/ledger.h"
#include "core/smtp.h"

struct outbox_result {
        uint64_t sent, commands;  /* done, and out of the outbox */
        uint64_t later, dead;     /* to be tried again; given up now */
        uint64_t untried;         /* left as they are: their smarthost refused us (password, certificate) */
        uint64_t unknown_host;
        bool stopped;             /* it was asked to stop before all was tried */
        uint64_t left;            /* therefore not tried, or not to the end, and ready as before */
        enum err_code worst;      /* of what went wrong, the one a person must act on first */
};
/* Tries everything that is ready and due (all: also what is not due yet), until *stop is set (NULL: never). hosts by name; an item
 * that names none goes to the only one, or to the one called "default"; an item whose smarthost is not among them stays and is
 * counted in unknown_host. One session a smarthost, reused. Holds the outbox lock: another process sending is ERR_BUSY. False only
 * for failures of this machine (state, disk; an item whose bytes could not be read keeps no other back); what servers and commands answer is in *out and in the log. */
bool outbox_send(struct ledger *l, struct smarthost *const *hosts, size_t n, bool all, const atomic_bool *stop, struct outbox_result *out,
                 struct err *e) MUST_CHECK;

#endif
