#include "core/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>

#include "core/mem.h"

struct digest {
        EVP_MD_CTX *now, *peek;
};

/* Fetched once: OpenSSL 3 looks an algorithm up by name at every use of EVP_sha256(), which costs more than hashing a
 * small part. */
static EVP_MD *sha256;

/* An OpenSSL that lacked memory when it began would crash at this. */
static void fetch(void)
{
        if (OSSL_LIB_CTX_get0_global_default())
                sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

static const EVP_MD *algorithm(void)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;

        pthread_once(&once, fetch);
        return sha256; /* NULL: each use of it fails */
}

struct digest *digest_new(void)
{
        struct digest *d = mem_zero(sizeof *d);

        if (!d)
                return NULL;
        d->now = EVP_MD_CTX_new();
        d->peek = EVP_MD_CTX_new();
        if (d->now && d->peek && EVP_DigestInit_ex(d->now, algorithm(), NULL))
                return d;
        digest_free(d);
        return NULL;
}

void digest_add(struct digest *d, const void *p, size_t n)
{
        if (n)
                EVP_DigestUpdate(d->now, p, n);
}

bool digest_peek(struct digest *d, uint8_t out[32])
{
        return EVP_MD_CTX_copy_ex(d->peek, d->now) && EVP_DigestFinal_ex(d->peek, out, NULL);
}

void digest_end(struct digest *d, uint8_t out[32])
{
        EVP_DigestFinal_ex(d->now, out, NULL);
        digest_free(d);
}

void digest_free(struct digest *d)
{
        if (!d)
                return;
        EVP_MD_CTX_free(d->now);
        EVP_MD_CTX_free(d->peek);
        mem_free(d);
}

bool digest_of(struct str s, uint8_t out[32])
{
        return EVP_Digest(s.n ? s.p : "", s.n, out, NULL, algorithm(), NULL);
}

void digest_hex(const uint8_t in[32], char out[65])
{
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < DIGEST_SIZE; i++) {
                out[2 * i] = digits[in[i] >> 4];
                out[2 * i + 1] = digits[in[i] & 15];
        }
        out[2 * DIGEST_SIZE] = '\0';
}
