/* TLS through OpenSSL 3: verified by default, SNI always, 1.2 and up. A host is named by a subjectAltName (RFC 9525), not by the subject. */
#ifndef CORE_TLS_H
#define CORE_TLS_H

#include "core/stream.h"

struct tls_options {
        struct str host;      /* for SNI and verification (a name or an address) */
        struct str verify_as; /* another name the certificate must carry; empty: host */
        struct str ca_file;   /* a private CA instead of the system's (PEM; a CRL in it is obeyed); empty: the system's */
        struct str pin;       /* "sha256:…" hex or base64 of the certificate: replaces chain verification; empty: none */
        bool insecure;        /* no verification: only when the account says so in so many words */
        const atomic_bool *stop; /* once it is set the handshake ends soon, with ERR_STOPPED; may be NULL */
};

/* Client handshake over fd, which the stream owns from now on, also after failure. The error tells certificate trouble
 * (expired, wrong name, unknown CA: ERR_TLS, with the name of what was wrong) from network trouble, and says so when the other
 * side does not speak TLS at all. */
struct stream *tls_connect(int fd, const struct tls_options *o, int64_t deadline, struct err *e) MUST_CHECK;

/* Server side, for `mailmill serve`: certificate chain and key in PEM. */
struct tls_server;
struct tls_server *tls_server_new(const char *cert, const char *key, struct err *e) MUST_CHECK;
void tls_server_free(struct tls_server *t);
struct stream *tls_accept(struct tls_server *t, int fd, int64_t deadline, struct err *e) MUST_CHECK;

/* "TLSv1.3", or NULL for a stream that is not TLS. */
const char *tls_version(struct stream *s);

#endif
