/* What an archive is, by its first bytes. */
#include "core/unpack.h"

enum { TAR_BLOCK = UNPACK_HEAD, TAR_SUM = 148, TAR_SUM_BYTES = 8 };

/* The header of a tar holds the sum of its own bytes, with blanks for the sum. */
static bool is_tar(struct str head)
{
        unsigned long sum = 0, said = 0;
        bool digits = false;

        if (head.n < TAR_BLOCK || *head.p == '\0')
                return false;
        for (size_t i = TAR_SUM; i < TAR_SUM + TAR_SUM_BYTES; i++) {
                if (head.p[i] >= '0' && head.p[i] <= '7') {
                        said = said * 8 + (unsigned long)(head.p[i] - '0');
                        digits = true;
                } else if (digits || head.p[i] != ' ')
                        break;
        }
        for (size_t i = 0; digits && i < TAR_BLOCK; i++) /* text mostly has none there */
                sum += i >= TAR_SUM && i < TAR_SUM + TAR_SUM_BYTES ? ' ' : (unsigned char)head.p[i];
        return digits && sum == said;
}

static bool is_zip(struct str head)
{
        return str_starts(head, STR("PK\3\4")) || str_starts(head, STR("PK\5\6")) || str_starts(head, STR("PK\7\10PK\3\4"));
}

static bool is_zstd(struct str head)
{
        bool skippable = head.n >= 4 && (head.p[0] & 0xf0) == 0x50 && str_starts(str_from(head, 1), STR("\x2a\x4d\x18"));

        return skippable || str_starts(head, STR("\x28\xb5\x2f\xfd"));
}

static bool is_bzip2(struct str head)
{
        struct str first = str_from(head, 4);

        return str_starts(head, STR("BZh")) && head.n >= 10 &&
               (str_starts(first, STR("1AY&SY")) || str_starts(first, STR("\x17\x72\x45\x38\x50\x90")));
}

enum unpack_kind unpack_kind_of(struct str head)
{
        if (str_starts(head, STR("\x1f\x8b\x08")))
                return UNPACK_GZIP;
        if (str_starts(head, STR("\xfd" "7zXZ\0")))
                return UNPACK_XZ;
        if (is_zstd(head))
                return UNPACK_ZSTD;
        if (is_bzip2(head))
                return UNPACK_BZIP2;
        if (is_zip(head))
                return UNPACK_ZIP;
        if (str_starts(head, STR("7z\xbc\xaf\x27\x1c")))
                return UNPACK_7Z;
        return is_tar(head) ? UNPACK_TAR : UNPACK_NONE;
}

bool unpack_is_compressed(enum unpack_kind kind)
{
        return kind >= UNPACK_GZIP && kind <= UNPACK_BZIP2;
}
