/* Compressed RTF, MS-OXRTFCP: a window of 4 KiB that begins filled with what RTF usually says. */
#include "core/tnef.h"

enum {
        WINDOW = 4096,
        HEADER = 16,    /* sizes, kind, checksum */
        PACKED = 0x75465a4c, /* "LZFu" */
        STORED = 0x414c454d, /* "MELA" */
};

static const char preset[] =
        "{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \\fdecor MS Sans "
        "SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx";

struct window {
        char bytes[WINDOW];
        unsigned at;
};

static uint32_t u32(struct str s, size_t at)
{
        const unsigned char *p = (const unsigned char *)s.p + at;

        return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool put(struct window *w, char c, struct buf *out)
{
        w->bytes[w->at] = c;
        w->at = (w->at + 1) % WINDOW;
        return buf_add_char(out, c);
}

/* Two bytes: 12 bits of place, 4 of length. A place that is where the next byte goes ends it all. */
static bool copy(struct window *w, struct str *in, bool *end, struct buf *out)
{
        unsigned word = (unsigned)(unsigned char)in->p[0] << 8 | (unsigned char)in->p[1];
        unsigned from = word >> 4, n = (word & 15) + 2;

        *in = str_from(*in, 2);
        *end = from == w->at;
        for (; !*end && n > 0; n--, from = (from + 1) % WINDOW)
                if (!put(w, w->bytes[from], out))
                        return false;
        return true;
}

static bool unpack(struct str in, struct buf *out)
{
        struct window w = { .at = sizeof preset - 1 };
        bool end = false;

        memcpy(w.bytes, preset, sizeof preset - 1);
        while (in.n > 0) {
                unsigned flags = (unsigned char)in.p[0];

                in = str_from(in, 1);
                for (int i = 0; i < 8; i++, flags >>= 1) {
                        if (in.n < (flags & 1 ? 2 : 1))
                                return false;
                        if (flags & 1) {
                                if (!copy(&w, &in, &end, out) || end)
                                        return end;
                        } else {
                                if (!put(&w, in.p[0], out))
                                        return false;
                                in = str_from(in, 1);
                        }
                }
        }
        return false; /* without its end mark */
}

bool tnef_rtf(struct str in, struct buf *out)
{
        uint32_t kind;

        if (in.n < HEADER)
                return false;
        kind = u32(in, 8);
        if (kind == STORED)
                return buf_add_str(out, str_first(str_from(in, HEADER), u32(in, 4)));
        return kind == PACKED && unpack(str_from(in, HEADER), out);
}
