/* What the files of the POP3 client share: the session's inside, and the account as a source (a table of the mails of this run, a queue
 * of commands to send, a ring of commands whose answers are due). Private to core/pop3*.c. */
#ifndef CORE_POP3_INT_H
#define CORE_POP3_INT_H

#include "core/pop3.h"

enum {
        REPLY_MAX = 8 << 10,        /* a status line; RFC 2449 says 512 */
        SAID_MAX = 300,             /* bytes of a server's sentence that are quoted */
        LOGIN_MS = 30000,           /* connect, TLS, greeting, login: each */
};

/* The session. */
struct pop3 {
        struct lines *l;
        struct pop3_capa capa;
        bool seen_status, bare_lf;  /* every status line so far ended in a bare LF */
        bool odd_noted;
        bool no_uidl;               /* refused: no item of the listing has a UID */
        char stamp[256];            /* "<...>" of the greeting, for APOP; empty: none */
};

struct reply {
        bool ok;
        struct str text;            /* after the status, trimmed; good until the next line is read */
};

/* One status line. ERR_PROTO when it is none. */
bool pop3_status(struct pop3 *p, struct reply *r, struct err *e) MUST_CHECK;
/* True when text begins with "+OK" or "-ERR" as a word (blanks before it allowed). */
bool pop3_is_status(struct str line);
bool pop3_send(struct pop3 *p, struct err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4))) MUST_CHECK;
/* Sends one command, waits for its status line. False only when the conversation fails; r->ok tells the answer. */
bool pop3_ask(struct pop3 *p, struct reply *r, struct err *e, const char *fmt, ...) __attribute__((format(printf, 4, 5))) MUST_CHECK;
/* The error for a -ERR: its code from the response code or a few well-known words, else `otherwise`. Returns false. */
bool pop3_refused(const struct reply *r, enum err_code otherwise, struct err *e, const char *what);
enum err_code pop3_refusal_code(struct str text, enum err_code otherwise);

#endif
