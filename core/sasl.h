/* SASL (RFC 4422): PLAIN and LOGIN are ours; CRAM-MD5 and SCRAM-SHA-1/-256 come from libgsasl. Used by POP3 and SMTP. */
#ifndef CORE_SASL_H
#define CORE_SASL_H

#include "core/secret.h"

enum { SASL_STEPS_MAX = 10 }; /* challenges of one exchange; no mechanism here has more than three */

struct sasl;
/* The best of what the server offers (space separated, upper case) that may be used: strongest proof first; PLAIN and LOGIN only
 * when `encrypted` or allowed in so many words. (Inside TLS CRAM-MD5 comes after PLAIN: it protects nothing there, and servers
 * announce it for users whose password they keep only hashed.) NULL when none fits. `only`: that one or none (lower or upper
 * case; may be empty). */
const char *sasl_choose(struct str offered, struct str only, bool encrypted, bool plain_allowed);
/* Takes a mechanism that has been tried out of the list of what is offered. */
void sasl_strike(char *offered, const char *mechanism);
struct sasl *sasl_new(const char *mechanism, struct str user, struct str password, struct err *e) MUST_CHECK;
/* True when the client speaks first (initial response). */
bool sasl_client_first(const struct sasl *s);
/* One step: the server's challenge, base64 as received (empty at first), gives our answer in base64. A challenge that is no base64 or
 * over 64 KiB is ERR_PROTO; a server that fails to prove itself is ERR_AUTH. *proof tells whether the secret (or a proof made from
 * it) is in the answer. */
bool sasl_step(struct sasl *s, struct str challenge, struct buf *answer, bool *proof, struct err *e) MUST_CHECK;
/* False while the server still owes a proof of its own (SCRAM): its "+OK" must not be believed before. */
bool sasl_complete(const struct sasl *s);
void sasl_free(struct sasl *s); /* wipes; may be NULL */
/* Puts stars for a password that is known in what a server says, for it may repeat what it was sent: as it is, and as PLAIN and LOGIN send
 * it. password may be NULL. */
void sasl_star(char *text, size_t n, struct str user, const struct secret *password);
void sasl_hide(struct err *e, struct str user, const struct secret *password);

#endif
