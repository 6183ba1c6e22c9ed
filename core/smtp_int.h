/* Shared by smtp.c (connecting, EHLO, STARTTLS, AUTH), smtp_reply.c (what the server says) and smtp_send.c (one mail). */
#ifndef CORE_SMTP_INT_H
#define CORE_SMTP_INT_H

#include "core/smtp.h"

enum {
        /* RFC 5321 4.5.3.2, in ms; a smarthost's own timeout takes the place of them all. */
        WAIT_GREETING = 300000, WAIT_COMMAND = 300000, WAIT_DATA = 120000, WAIT_BLOCK = 180000, WAIT_DOT = 600000,
        WAIT_QUIT = 5000,       /* nothing depends on its answer */
        WAIT_HANDSHAKE = 30000, /* connecting, and TLS */
        ANSWER_MAX = 1024,      /* bytes of one reply that are kept */
};

struct smtp {
        struct lines *l;
        const struct smarthost *h;
        bool over;      /* nothing more can be said: lost, closed by a 421, or out of step */
        bool reset_due; /* a transaction was begun and not ended */
        struct {
                bool starttls, pipelining, eight_bit, utf8, has_size;
                uint64_t size; /* 0: no limit is told */
                char auth[512];
        } can;
        int code;        /* of the last reply */
        struct buf text; /* "250 2.0.0 queued": all its lines in one, good until the next */
};

/* Queues a command, CRLF added. */
bool smtp_say(struct smtp *s, struct err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4))) MUST_CHECK;
/* Sends what is queued and reads one reply, of any code. line (may be NULL) sees the text of each of its lines. A 421 is a reply like another,
 * but the session is over then, as it is after any failure. */
bool smtp_hear(struct smtp *s, int ms, void (*line)(struct smtp *s, struct str text), struct err *e) MUST_CHECK;
/* A stop was asked for: fails with it. */
bool smtp_goes_on(const struct smtp *s, struct err *e) MUST_CHECK;
static inline int smtp_class(const struct smtp *s) { return s->code / 100; }
/* The last reply as an error: 4xx is ERR_TEMP, 5xx `permanent`, anything else came out of step (ERR_PROTO, the session is over). */
bool smtp_said_no(struct smtp *s, enum err_code permanent, struct err *e, const char *to);
/* Printable ASCII without blanks or angle brackets: what may stand in a command. */
bool smtp_is_word(struct str s);

#endif
