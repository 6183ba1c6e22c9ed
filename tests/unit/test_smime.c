#include "core/smime.h"

#include "tests/unit/test.h"
#include "core/mem.h"
#include <openssl/cms.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

static EVP_PKEY *key;
static X509 *certificate;

/* One key for all tests, signed by itself. */
static bool prepare(void)
{
        X509_NAME *name;

        if (certificate)
                return true;
        key = EVP_EC_gen("P-256");
        certificate = X509_new();
        if (!key || !certificate)
                return false;
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
        X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
        X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
        X509_set_pubkey(certificate, key);
        name = X509_get_subject_name(certificate);
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"Signer", -1, -1, 0);
        X509_set_issuer_name(certificate, name);
        return X509_sign(certificate, key, EVP_sha256()) > 0;
}

static struct buf der_of(CMS_ContentInfo *cms)
{
        struct buf b = BUF_INIT;
        unsigned char *der = NULL;
        int n = cms ? i2d_CMS_ContentInfo(cms, &der) : 0;

        buf_add(&b, (const char *)der, n > 0 ? (size_t)n : 0);
        OPENSSL_free(der);
        CMS_ContentInfo_free(cms);
        return b;
}

static struct buf signed_mail(struct str content, unsigned flags)
{
        BIO *in = BIO_new_mem_buf(content.p, (int)content.n);
        struct buf b = der_of(CMS_sign(certificate, key, NULL, in, flags | CMS_BINARY));

        BIO_free(in);
        return b;
}

static enum smime_kind open_as(struct str der, struct buf *out)
{
        enum smime_kind kind = SMIME_OTHER;
        char *copy = mem_dup(der.p, der.n);

        buf_clear(out);
        CHECK(smime_open(str_make(copy, der.n), out, &kind));
        mem_free(copy);
        return kind;
}

TEST(signed_data)
{
        struct str mail = STR("Content-Type: text/plain\r\n\r\nsigned\0\r\n");
        struct buf der, out = BUF_INIT;

        NEED(prepare());
        der = signed_mail(mail, 0);
        CHECK(open_as(buf_str(&der), &out) == SMIME_SIGNED);
        CHECK_BYTES(buf_str(&out), mail);
        for (size_t n = 0; n < der.n; n++) {
                CHECK(open_as(str_first(buf_str(&der), n), &out) == SMIME_BROKEN);
                CHECK(out.n == 0);
        }
        buf_add_str(&der, STR("\r\n")); /* a line end of the mail behind it */
        CHECK(open_as(buf_str(&der), &out) == SMIME_SIGNED);
        buf_free(&der);
        buf_free(&out);
}

/* Outlook writes BER: lengths left open, the content in pieces. */
TEST(pieces)
{
        struct str head = STR("\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80\x30\x80\x02\x01\x01\x31\0"
                              "\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\xa0\x80\x24\x80\x04\x03" "one\x04\x03" "two\0\0\0\0\0\0"
                              "\x31\0\0\0\0\0\0\0");
        struct buf out = BUF_INIT;

        CHECK(open_as(head, &out) == SMIME_SIGNED);
        CHECK_STR(buf_str(&out), "onetwo");
        buf_free(&out);
}

TEST(others)
{
        struct buf der, out = BUF_INIT;
        STACK_OF(X509) *to = sk_X509_new_null();
        BIO *in = BIO_new_mem_buf("secret", 6);

        NEED(prepare() && to && in);
        der = signed_mail(STR("x"), CMS_DETACHED);
        CHECK(open_as(buf_str(&der), &out) == SMIME_OTHER);
        buf_free(&der);
        sk_X509_push(to, certificate);
        der = der_of(CMS_encrypt(to, in, EVP_aes_128_cbc(), 0));
        NEED(der.n);
        CHECK(open_as(buf_str(&der), &out) == SMIME_ENCRYPTED);
        buf_free(&der);
        CHECK(open_as(STR("no CMS"), &out) == SMIME_BROKEN);
        CHECK(open_as(STR(""), &out) == SMIME_BROKEN);
        CHECK(out.n == 0);
        sk_X509_free(to);
        BIO_free(in);
        buf_free(&out);
}

TEST(no_room)
{
        struct buf der, out;
        enum smime_kind kind;

        NEED(prepare());
        der = signed_mail(STR("four"), 0);
        buf_init(&out, 3);
        CHECK(!smime_open(buf_str(&der), &out, &kind));
        buf_free(&out);
        buf_free(&der);
}

TEST_MAIN
