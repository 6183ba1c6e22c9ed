#include "core/tls_why.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "core/str.h"

static const char *reason(unsigned long code)
{
        const char *s = ERR_reason_error_string(code);

        return s ? s : "no reason given";
}

void tls_why_file(const char *path, const char *what, struct err *e)
{
        unsigned long code = ERR_peek_error();

        if (ERR_GET_LIB(code) == ERR_LIB_SYS)
                err_sys(e, ERR_USAGE, ERR_GET_REASON(code), "%s %s", what, path);
        else
                err_set(e, ERR_USAGE, "%s %s: %s", what, path, reason(code));
        ERR_clear_error();
}

static bool cut_off(int what, int sys)
{
        return (what == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) ||
               (what == SSL_ERROR_SYSCALL && sys == 0);
}

void tls_why_io(int what, int sys, const char *doing, struct err *e)
{
        if (what == SSL_ERROR_ZERO_RETURN)
                err_set(e, ERR_NET, "%s: the other side has closed the connection", doing);
        else if (cut_off(what, sys))
                err_set(e, ERR_NET, "%s: the connection was cut off (TLS ended without saying so)", doing);
        else if (what == SSL_ERROR_SYSCALL)
                err_sys(e, ERR_NET, sys, "%s", doing);
        else
                err_set(e, ERR_NET, "%s: TLS failed: %s", doing, reason(ERR_peek_error()));
        ERR_clear_error();
}

/* ---- certificates ---------------------------------------------------------------------------------------------- */

static void text_of_time(const ASN1_TIME *t, char out[32])
{
        struct tm tm;

        if (!t || !ASN1_TIME_to_tm(t, &tm) || strftime(out, 32, "%Y-%m-%d", &tm) == 0)
                snprintf(out, 32, "an unknown day");
}

static void text_of_name(const X509_NAME *n, char *out, size_t size)
{
        char *p = n ? X509_NAME_oneline(n, NULL, 0) : NULL;

        snprintf(out, size, "%s", p ? p : "nobody");
        OPENSSL_free(p);
}

static bool text_of_general(const GENERAL_NAME *g, char *out, size_t size)
{
        unsigned char bytes[sizeof(struct in6_addr)];
        const unsigned char *p;
        int n;

        if (g->type == GEN_IPADD) {
                p = ASN1_STRING_get0_data(g->d.iPAddress);
                n = ASN1_STRING_length(g->d.iPAddress);
                return (n == 4 || n == 16) && inet_ntop(n == 4 ? AF_INET : AF_INET6, p, out, (socklen_t)size);
        }
        if (g->type != GEN_DNS)
                return false;
        snprintf(out, size, "%.*s", ASN1_STRING_length(g->d.dNSName), (const char *)ASN1_STRING_get0_data(g->d.dNSName));
        if (inet_pton(AF_INET, out, bytes) == 1) /* which is not how an address is given */
                strncat(out, " (as a name)", size - strlen(out) - 1);
        return true;
}

/* "a.example, *.b.example, 127.0.0.1": what the certificate is for. False: it names nothing that counts. */
static bool text_of_names(X509 *cert, char *out, size_t size)
{
        GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
        char one[280];
        size_t n = 0;

        out[0] = '\0';
        for (int i = 0; i < sk_GENERAL_NAME_num(names) && n < size; i++)
                if (text_of_general(sk_GENERAL_NAME_value(names, i), one, sizeof one))
                        n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", one);
        GENERAL_NAMES_free(names);
        return n > 0;
}

static void why_name(X509 *cert, const char *name, struct err *e)
{
        char text[300];

        if (!cert || text_of_names(cert, text, sizeof text)) {
                err_set(e, ERR_TLS, "the certificate is for %s, not for %s", cert ? text : "another host", name);
                return;
        }
        text_of_name(X509_get_subject_name(cert), text, sizeof text);
        err_set(e, ERR_TLS, "the certificate of %s names no host: its subject %s does not count, only a subjectAltName", name, text);
}

static void why_certificate(long verdict, X509 *cert, const char *name, struct err *e)
{
        char text[300] = "an unknown authority", day[32];

        switch (verdict) {
        case X509_V_ERR_CERT_HAS_EXPIRED:
                text_of_time(cert ? X509_get0_notAfter(cert) : NULL, day);
                err_set(e, ERR_TLS, "the certificate of %s, or one that signs it, has expired on %s", name, day);
                return;
        case X509_V_ERR_CERT_NOT_YET_VALID:
                text_of_time(cert ? X509_get0_notBefore(cert) : NULL, day);
                err_set(e, ERR_TLS, "the certificate of %s is not valid before %s; is this computer's clock right?", name, day);
                return;
        case X509_V_ERR_CERT_REVOKED:
                err_set(e, ERR_TLS, "the certificate of %s has been revoked", name);
                return;
        case X509_V_ERR_HOSTNAME_MISMATCH:
        case X509_V_ERR_IP_ADDRESS_MISMATCH:
                why_name(cert, name, e);
                return;
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
        case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
                if (cert)
                        text_of_name(X509_get_issuer_name(cert), text, sizeof text);
                err_set(e, ERR_TLS, "the certificate of %s is signed by an authority not known here: %s", name, text);
                return;
        }
        err_set(e, ERR_TLS, "the certificate of %s is refused: %s", name, X509_verify_cert_error_string(verdict));
}

/* ---- handshakes ------------------------------------------------------------------------------------------------ */

/* The first bytes were no TLS record: the port speaks something else, most often the protocol without TLS. */
static bool speaks_no_tls(int why)
{
        return why == SSL_R_WRONG_VERSION_NUMBER || why == SSL_R_HTTP_REQUEST || why == SSL_R_HTTPS_PROXY_REQUEST ||
               why == SSL_R_PACKET_LENGTH_TOO_LONG || why == SSL_R_RECORD_LENGTH_MISMATCH;
}

void tls_why_handshake(SSL *ssl, int r, int sys, X509 *refused, const char *name, struct err *e)
{
        int what = SSL_get_error(ssl, r);
        unsigned long code = ERR_peek_error();
        int why = ERR_GET_REASON(code);
        long verdict = SSL_get_verify_result(ssl);

        if (what == SSL_ERROR_SSL && why == SSL_R_CERTIFICATE_VERIFY_FAILED && verdict != X509_V_OK)
                why_certificate(verdict, refused, name, e);
        else if (what == SSL_ERROR_SSL && speaks_no_tls(why))
                err_set(e, ERR_TLS, "%s does not speak TLS on this port (%s)", name, reason(code));
        else if (cut_off(what, sys))
                err_set(e, ERR_NET, "%s closed the connection during the TLS handshake", name);
        else if (what == SSL_ERROR_SYSCALL)
                err_sys(e, ERR_NET, sys, "TLS handshake with %s", name);
        else if (why == SSL_R_UNSUPPORTED_PROTOCOL || why == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION ||
                 why == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE)
                err_set(e, ERR_TLS, "%s and mailmill have no version or cipher of TLS in common (1.2 is the least): %s", name,
                        reason(code));
        else
                err_set(e, ERR_TLS, "TLS handshake with %s: %s", name, reason(code));
        ERR_clear_error();
}
