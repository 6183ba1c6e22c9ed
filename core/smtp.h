/* SMTP submission: RFC 5321, 3207 (STARTTLS), 4954 (AUTH), 2920 (PIPELINING), 6152 (8BITMIME), 1870 (SIZE). */
#ifndef CORE_SMTP_H
#define CORE_SMTP_H

#include "core/account.h"
#include "core/lines.h"
#include "core/range.h"

struct smarthost {
        struct str name;       /* how scripts call it; "default" */
        struct str host, user;
        unsigned port;         /* 587 with STARTTLS, 465 with implicit TLS */
        struct secret *password;
        enum tls_mode tls;     /* TLS_STARTTLS unless said */
        struct str ca_file, verify_as, pin;
        bool insecure;
        struct str auth;       /* only this mechanism; empty: best */
        struct str helo;       /* empty: the host's name */
        int timeout_ms;        /* for any answer; 0: what RFC 5321 4.5.3.2 says, 5 min for most and 10 for the final dot's */
        const atomic_bool *stop; /* once it is set sessions end soon, with ERR_STOPPED. May be NULL */
};

struct smtp_recipient {
        struct str address;
        enum { SMTP_OPEN, SMTP_ACCEPTED, SMTP_REFUSED, SMTP_LATER, SMTP_UNKNOWN /* final dot sent, no answer */ } result;
        struct str answer;     /* the server's words, in the arena */
};

struct smtp;
/* Connected, TLS, EHLO, logged in. The smarthost must outlive the session. ERR_AUTH is final: the password was refused; ERR_TLS: nothing secret was
 * sent. */
struct smtp *smtp_connect(const struct smarthost *h, struct err *e) MUST_CHECK;
/* Over an open conversation (tests): greeting, EHLO, STARTTLS, AUTH as the smarthost says. Owns l, also after failure. */
struct smtp *smtp_new(struct lines *l, const struct smarthost *h, struct err *e) MUST_CHECK;
/* Sends one mail: bytes in LF form become CRLF (bare CR and bare LF normalised), dot-stuffed. sender empty: <>. Fills each recipient's
 * result; SMTP_OPEN is one of whom nothing was learnt: try again. True when the transaction came to its end, whatever the results.
 * False with ERR_REFUSED: refused here before DATA, for all (8-bit to a server without 8BITMIME, a line over 998 bytes, NUL, larger
 * than the server takes, a bad sender). False otherwise: the mail could not be read, or the session is lost. */
bool smtp_send(struct smtp *s, struct str sender, struct smtp_recipient *to, size_t n, struct range mail, struct arena *a,
               struct err *e) MUST_CHECK;
bool smtp_usable(const struct smtp *s); /* another mail may follow */
void smtp_close(struct smtp *s); /* QUIT, whatever the answer; may be NULL */

#endif
