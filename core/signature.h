/* Is an S/MIME signature good, and whose is it? OpenSSL's CMS says whether the bytes are what was signed; here it is decided whom to trust:
 * every signer's certificate must lead to a root that is trusted, be meant for mail and in its time, and no digest may be one that can be
 * forged (MD5, SHA-1). */
#ifndef CORE_SIGNATURE_H
#define CORE_SIGNATURE_H

#include <sys/types.h>

#include "core/arena.h"

enum { SIGNATURE_SIGNERS = 16 }; /* looked at; each costs a chain of certificates */

struct signer {
        struct str subject, name, issuer; /* as RFC 2253 writes them, UTF-8; name: its common name. {NULL,0}: there is no certificate */
        struct str *emails;               /* that the certificate is for */
        size_t emails_n;
        struct str digest;                /* "SHA256" */
        int64_t signed_at, expires;       /* the first as the signer says; 0: unknown */
        struct str why;                   /* why it is not good; {NULL,0}: it is */
};

struct signature {
        struct signer *signers;
        size_t n;
        struct str why;                   /* why it is not good: the first signer's that is not, or there is none; {NULL,0}: it is */
};

struct signature_check {
        struct str cms;                   /* the signature, DER or BER */
        /* The content where the signature does not hold it, as the signer had it (CRLF); 0 at the end, -1 on failure. NULL: it holds it. */
        ssize_t (*read)(void *ctx, char *p, size_t n, struct err *e);
        void *ctx;
        struct str ca;                    /* certificates to trust, PEM; {NULL,0}: those of the system */
        int64_t at;                       /* certificates must hold at this time */
};

/* Into *out, in the arena. False when the machine failed (reading the content), or ca holds no certificate (ERR_SYNTAX). */
bool signature_check(const struct signature_check *c, struct arena *a, struct signature *out, struct err *e) MUST_CHECK;

#endif
