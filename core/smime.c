#include "core/smime.h"

#include <limits.h>
#include <openssl/cms.h>
#include <openssl/err.h>

static enum smime_kind kind_of(CMS_ContentInfo *cms)
{
        ASN1_OCTET_STRING **content;

        switch (OBJ_obj2nid(CMS_get0_type(cms))) {
        case NID_pkcs7_signed:
                content = CMS_get0_content(cms);
                return content && *content ? SMIME_SIGNED : SMIME_OTHER;
        case NID_id_smime_ct_compressedData:
                content = CMS_get0_content(cms);
                return content && *content ? SMIME_COMPRESSED : SMIME_BROKEN;
        case NID_pkcs7_enveloped:
        case NID_id_smime_ct_authEnvelopedData:
                return SMIME_ENCRYPTED;
        default:
                return SMIME_OTHER;
        }
}

bool smime_open(struct str in, struct buf *out, enum smime_kind *kind)
{
        const unsigned char *p = (const unsigned char *)in.p;
        CMS_ContentInfo *cms = in.n && in.n <= LONG_MAX ? d2i_CMS_ContentInfo(NULL, &p, (long)in.n) : NULL;
        bool ok = true;

        *kind = cms ? kind_of(cms) : SMIME_BROKEN;
        if (*kind == SMIME_SIGNED || *kind == SMIME_COMPRESSED) {
                const ASN1_OCTET_STRING *content = *CMS_get0_content(cms);

                ok = buf_add(out, (const char *)ASN1_STRING_get0_data(content), (size_t)ASN1_STRING_length(content));
        }
        CMS_ContentInfo_free(cms);
        ERR_clear_error();
        return ok;
}
