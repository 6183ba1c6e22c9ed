/* S/MIME that wraps a message in a signature or compressed (RFC 8551 3.5.2, 3.6): opened with OpenSSL's CMS. No trust is decided here. */
#ifndef CORE_SMIME_H
#define CORE_SMIME_H

#include "core/buf.h"

enum smime_kind {
        SMIME_BROKEN,    /* no CMS, or damaged */
        SMIME_SIGNED,    /* signed data with its content inside */
        SMIME_ENCRYPTED, /* enveloped or authenticated-enveloped data */
        SMIME_COMPRESSED, /* RFC 3274; zlib is the only algorithm there is */
        SMIME_OTHER,     /* certificates only, detached */
};

/* in: the decoded bytes of an application/pkcs7-mime part. For SMIME_SIGNED the content, a MIME entity, is appended to out,
 * for SMIME_COMPRESSED what zlib made of it; false only when out is full or out of memory. */
bool smime_open(struct str in, struct buf *out, enum smime_kind *kind) MUST_CHECK;

#endif
