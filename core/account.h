/* What a script's mail.account{} says, checked: plain data for the POP3 source and the run. */
#ifndef CORE_ACCOUNT_H
#define CORE_ACCOUNT_H

#include "core/secret.h"
#include "core/source.h"

enum tls_mode { TLS_IMPLICIT, TLS_STARTTLS, TLS_NONE /* plain text: only when the account says so */ };

struct account {
        struct str name, host, user;
        unsigned port;
        struct secret *password;
        enum tls_mode tls;
        struct str ca_file, verify_as, pin;
        bool insecure;
        enum outcome_leave leave;   /* LEAVE_ALWAYS, LEAVE_NEVER, LEAVE_AGE */
        int64_t leave_age;
        struct str root;            /* empty: the run's */
        struct str inbox;           /* folder; {NULL,0}: false, nothing is delivered unasked */
        struct str auth;            /* "plain", "login", "user", "apop": only that one; empty: the strongest that is safe */
        bool first_new;             /* first = "new": an old mailbox starts with what comes from now on */
        uint64_t limit;             /* messages a run; 0: no limit */
        uint64_t session_messages, session_bytes; /* deleted in one session before it ends with QUIT and another begins; 0: 5,000 and 1 GiB */
        int timeout_ms;             /* idle, 5 min; connect, TLS and login have 30 s each */
        const atomic_bool *stop;    /* once it is set connecting ends soon, with ERR_STOPPED; may be NULL */
};

#endif
