/* SHA-256, through OpenSSL. */
#ifndef CORE_DIGEST_H
#define CORE_DIGEST_H

#include "core/str.h"

enum { DIGEST_SIZE = 32 };

struct digest;
struct digest *digest_new(void);                       /* NULL when out of memory */
void digest_add(struct digest *d, const void *p, size_t n);
/* The hash of what was added so far; more may follow. False when out of memory. */
bool digest_peek(struct digest *d, uint8_t out[32]);
void digest_end(struct digest *d, uint8_t out[32]);    /* and frees d */
void digest_free(struct digest *d);                    /* may be NULL */
bool digest_of(struct str s, uint8_t out[32]);
void digest_hex(const uint8_t in[32], char out[65]);

#endif
