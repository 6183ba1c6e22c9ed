/* Of tls.c only: what OpenSSL's errors mean, in a sentence for the user. */
#ifndef CORE_TLS_WHY_H
#define CORE_TLS_WHY_H

#include <openssl/ssl.h>

#include "core/err.h"

/* A read or write failed with `what` (SSL_get_error) and errno `sys`. */
void tls_why_io(int what, int sys, const char *doing, struct err *e);
/* A handshake failed with answer r and errno `sys`; `name` is who the other side should be,
 * `refused` the certificate that was (or NULL). */
void tls_why_handshake(SSL *ssl, int r, int sys, X509 *refused, const char *name, struct err *e);
/* A file of certificates or keys could not be used: ERR_USAGE "<what> FILE: reason". */
void tls_why_file(const char *path, const char *what, struct err *e);

#endif
