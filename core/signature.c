#include "core/signature.h"

#include <limits.h>
#include <openssl/cms.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "core/charset.h"
#include "core/mem.h"

enum {
        EMAILS_MAX = 32,        /* of one certificate */
        CHAIN_DEPTH = 8,        /* the longest honest chain has four */
        AUTH_LEVEL = 1,         /* OpenSSL's: no certificate signed with SHA-1, no RSA key below 1,024 bits */
        STEP = 16 * 1024,
        TEXT_MAX = 1024,        /* of a name in a certificate */
};

struct checking {
        const struct signature_check *c;
        struct arena *a;
        struct err *e;
        bool read_failed;
        X509_STORE *store;
        CMS_ContentInfo *cms;
        STACK_OF(X509) *certs;  /* that came with it: not trusted, to build chains from */
        BIO *content;           /* the digests of what was signed */
        bool nomem;
};

/* ---- text out of certificates: hostile ---- */

static struct str text(struct checking *k, const char *p, size_t n)
{
        struct buf b = BUF_INIT;
        struct str s = STR_NONE;

        if (utf8_clean(str_make(p, n < TEXT_MAX ? n : TEXT_MAX), &b))
                s = arena_str(k->a, buf_str(&b));
        buf_free(&b);
        k->nomem |= !s.p;
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
                        ((char *)s.p)[i] = ' '; /* our own copy */
        return s;
}

static struct str words(struct checking *k, const char *s)
{
        return text(k, s, strlen(s));
}

static struct str name_text(struct checking *k, const X509_NAME *name)
{
        unsigned long flags = (XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) | ASN1_STRFLGS_UTF8_CONVERT;
        BIO *b = BIO_new(BIO_s_mem());
        struct str s = STR_NONE;
        char *p = NULL;
        long n;

        if (b && X509_NAME_print_ex(b, name, 0, flags) >= 0 && (n = BIO_get_mem_data(b, &p)) >= 0)
                s = text(k, p ? p : "", (size_t)n);
        BIO_free(b);
        return s;
}

static struct str common_name(struct checking *k, const X509_NAME *name)
{
        int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
        const X509_NAME_ENTRY *entry = at < 0 ? NULL : X509_NAME_get_entry(name, at);
        unsigned char *p = NULL;
        int n = entry ? ASN1_STRING_to_UTF8(&p, X509_NAME_ENTRY_get_data(entry)) : -1;
        struct str s = n >= 0 ? text(k, (char *)p, (size_t)n) : STR_NONE;

        OPENSSL_free(p);
        return s;
}

static void note_emails(struct checking *k, X509 *cert, struct signer *out)
{
        STACK_OF(OPENSSL_STRING) *list = X509_get1_email(cert);
        int n = list ? sk_OPENSSL_STRING_num(list) : 0;

        out->emails_n = n < EMAILS_MAX ? (size_t)n : EMAILS_MAX;
        out->emails = arena_alloc(k->a, (out->emails_n + 1) * sizeof *out->emails);
        if (!out->emails) {
                out->emails_n = 0;
                k->nomem = true;
        }
        for (size_t i = 0; i < out->emails_n; i++)
                out->emails[i] = words(k, sk_OPENSSL_STRING_value(list, (int)i));
        X509_email_free(list);
}

static int64_t seconds(const ASN1_TIME *t)
{
        struct tm tm;

        return t && ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) : 0;
}

static int64_t signing_time(CMS_SignerInfo *si)
{
        static const int types[] = { V_ASN1_UTCTIME, V_ASN1_GENERALIZEDTIME };

        for (size_t i = 0; i < 2; i++) {
                const ASN1_TIME *t = CMS_signed_get0_data_by_OBJ(si, OBJ_nid2obj(NID_pkcs9_signingTime), -3, types[i]);

                if (t)
                        return seconds(t);
        }
        return 0;
}

/* ---- the content, as OpenSSL asks for it ---- */

static int bio_read(BIO *b, char *p, int n)
{
        struct checking *k = BIO_get_data(b);
        ssize_t got = n > 0 ? k->c->read(k->c->ctx, p, (size_t)n, k->e) : 0;

        k->read_failed |= got < 0;
        return got < 0 ? -1 : (int)got;
}

static long bio_ctrl(BIO *b, int command, long n, void *p)
{
        (void)b, (void)n, (void)p;
        return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *b)
{
        BIO_set_init(b, 1);
        return 1;
}

static BIO_METHOD *content_method(void)
{
        BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "content");

        if (m && BIO_meth_set_read(m, bio_read) && BIO_meth_set_ctrl(m, bio_ctrl) && BIO_meth_set_create(m, bio_create))
                return m;
        BIO_meth_free(m);
        return NULL;
}

/* Reads all that was signed through the digests. */
static bool read_content(struct checking *k, BIO_METHOD *method)
{
        BIO *in = method ? BIO_new(method) : NULL;
        char *block = mem_alloc(STEP);
        int n = -1;

        if (in)
                BIO_set_data(in, k);
        if ((method && !in) || !block)
                k->nomem = true;
        else
                k->content = CMS_dataInit(k->cms, in);
        if (!k->content)
                BIO_free(in);
        while (k->content && (n = BIO_read(k->content, block, STEP)) > 0)
                ;
        mem_free(block);
        return n == 0 && !k->read_failed;
}

/* ---- one signer ---- */

static bool is_weak(int nid)
{
        return nid == NID_md2 || nid == NID_md4 || nid == NID_md5 || nid == NID_sha1 || nid == NID_sha || nid == NID_ripemd160;
}

static struct str chain_flaw(struct checking *k, X509 *cert)
{
        X509_STORE_CTX *ctx = X509_STORE_CTX_new();
        struct str why = STR_NONE;
        int code;

        if (!ctx || !X509_STORE_CTX_init(ctx, k->store, cert, k->certs) || !X509_STORE_CTX_set_default(ctx, "smime_sign")) {
                k->nomem = true;
        } else {
                X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);

                X509_VERIFY_PARAM_set_time(param, (time_t)k->c->at);
                X509_VERIFY_PARAM_set_depth(param, CHAIN_DEPTH);
                X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
                if (X509_verify_cert(ctx) <= 0) {
                        code = X509_STORE_CTX_get_error(ctx);
                        why = arena_printf(k->a, "its certificate is not trusted: %s", X509_verify_cert_error_string(code));
                        k->nomem |= !why.p;
                }
        }
        X509_STORE_CTX_free(ctx);
        return why;
}

/* What is wrong with it, the worst first. */
static struct str flaw_of(struct checking *k, CMS_SignerInfo *si, X509 *cert, int digest, bool content)
{
        struct str why;

        if (!cert)
                return STR("the signer's certificate did not come with it");
        if (CMS_signed_get_attr_count(si) >= 0 && CMS_SignerInfo_verify(si) <= 0)
                return STR("the signature was not made with the key of its certificate, or was changed");
        if (!content || CMS_SignerInfo_verify_content(si, k->content) <= 0)
                return STR("what was signed has been changed since");
        why = chain_flaw(k, cert);
        if (why.p)
                return why;
        return is_weak(digest) ? STR("it was made with a digest that can be forged") : STR_NONE;
}

static void describe(struct checking *k, CMS_SignerInfo *si, struct signer *out, bool content)
{
        X509_ALGOR *digest = NULL;
        X509 *cert = NULL;
        const ASN1_OBJECT *obj;
        int nid;

        CMS_SignerInfo_get0_algs(si, NULL, &cert, &digest, NULL);
        X509_ALGOR_get0(&obj, NULL, NULL, digest);
        nid = OBJ_obj2nid(obj);
        out->digest = nid == NID_undef ? STR("unknown") : str_of(OBJ_nid2sn(nid));
        out->signed_at = signing_time(si);
        if (cert) {
                out->subject = name_text(k, X509_get_subject_name(cert));
                out->name = common_name(k, X509_get_subject_name(cert));
                out->issuer = name_text(k, X509_get_issuer_name(cert));
                out->expires = seconds(X509_get0_notAfter(cert));
                note_emails(k, cert, out);
        }
        out->why = flaw_of(k, si, cert, nid, content);
}

/* ---- all of it ---- */

static void judge(struct checking *k, struct signature *out, bool content)
{
        STACK_OF(CMS_SignerInfo) *list = CMS_get0_SignerInfos(k->cms);
        int n = list ? sk_CMS_SignerInfo_num(list) : 0;

        CMS_set1_signers_certs(k->cms, NULL, 0);
        k->certs = CMS_get1_certs(k->cms);
        out->n = n > SIGNATURE_SIGNERS ? SIGNATURE_SIGNERS : n > 0 ? (size_t)n : 0;
        out->signers = arena_alloc(k->a, (out->n + 1) * sizeof *out->signers);
        if (!out->signers) {
                k->nomem = true;
                out->n = 0;
        }
        for (size_t i = 0; i < out->n; i++) {
                describe(k, sk_CMS_SignerInfo_value(list, (int)i), &out->signers[i], content);
                if (!out->why.p)
                        out->why = out->signers[i].why;
        }
        if (out->n == 0)
                out->why = STR("nobody signed it: there are certificates only");
        else if (n > SIGNATURE_SIGNERS)
                out->why = STR("more signers than are looked at");
}

static bool add_ca(X509_STORE *store, struct str ca, struct err *e)
{
        BIO *b = ca.n <= INT_MAX ? BIO_new_mem_buf(ca.p, (int)ca.n) : NULL;
        bool any = false;
        X509 *cert;

        while (b && (cert = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
                any |= X509_STORE_add_cert(store, cert) == 1;
                X509_free(cert);
        }
        BIO_free(b);
        return any || err_set(e, ERR_SYNTAX, "there is no certificate in it (PEM: -----BEGIN CERTIFICATE-----)");
}

static bool check(struct checking *k, struct signature *out)
{
        const unsigned char *p = (const unsigned char *)k->c->cms.p;
        BIO_METHOD *method = k->c->read ? content_method() : NULL;
        size_t n = k->c->cms.n;
        bool content;

        if (k->c->read && !method)
                return err_nomem(k->e);
        k->cms = n && n <= LONG_MAX ? d2i_CMS_ContentInfo(NULL, &p, (long)n) : NULL;
        if (!k->cms || OBJ_obj2nid(CMS_get0_type(k->cms)) != NID_pkcs7_signed) {
                out->why = STR("the signature itself cannot be read");
        } else {
                content = read_content(k, method);
                if (!k->read_failed && !k->nomem)
                        judge(k, out, content);
        }
        BIO_free_all(k->content);
        sk_X509_pop_free(k->certs, X509_free);
        CMS_ContentInfo_free(k->cms);
        BIO_meth_free(method);
        return k->nomem ? err_nomem(k->e) : !k->read_failed;
}

bool signature_check(const struct signature_check *c, struct arena *a, struct signature *out, struct err *e)
{
        struct checking k = { .c = c, .a = a, .e = e };
        bool ok;

        *out = (struct signature){ 0 };
        k.store = X509_STORE_new();
        if (!k.store)
                return err_nomem(e);
        ok = c->ca.p ? add_ca(k.store, c->ca, e) : X509_STORE_set_default_paths(k.store) == 1 || err_nomem(e);
        ok = ok && check(&k, out);
        X509_STORE_free(k.store);
        ERR_clear_error();
        return ok;
}
