/* What zlib packed, by the decoder that the library has for gzip. */
#include "core/unpack.h"

#include "core/mem.h"

/* The library knows the same data only in gzip's dress: a head before it, and a tail that is not looked at. */
struct dressed {
        struct str pieces[3];
        size_t next;
};

static ssize_t read_dressed(void *ctx, const char **block, struct err *e)
{
        struct dressed *d = ctx;

        (void)e;
        while (d->next < 3 && d->pieces[d->next].n == 0)
                d->next++;
        if (d->next == 3)
                return 0;
        *block = d->pieces[d->next].p;
        return (ssize_t)d->pieces[d->next++].n;
}

/* RFC 1950 8.2: so many bytes before the sums must be reduced. */
static uint32_t adler_of(struct str s)
{
        enum { BASE = 65521, STRETCH = 5552 };
        uint32_t a = 1, b = 0;

        while (s.n > 0) {
                struct str part = str_first(s, STRETCH);

                for (size_t i = 0; i < part.n; i++) {
                        a += (unsigned char)part.p[i];
                        b += a;
                }
                a %= BASE;
                b %= BASE;
                s = str_from(s, part.n);
        }
        return b << 16 | a;
}

static bool adler_fits(struct str content, struct str said)
{
        uint32_t sum = 0;

        for (size_t i = 0; i < said.n; i++)
                sum = sum << 8 | (unsigned char)said.p[i];
        return sum == adler_of(content);
}

static bool read_all(struct unpack *u, struct buf *out, bool *good)
{
        enum { STEP = 64 * 1024 };
        char *block = mem_alloc(STEP);
        struct unpack_member in;
        struct err e;
        ssize_t n = -1;
        bool ok = block != NULL;

        if (ok && unpack_next(u, &in, &e))
                do {
                        n = in.end ? 0 : unpack_read(u, block, STEP, &e);
                        ok = n <= 0 || buf_add(out, block, (size_t)n);
                } while (ok && n > 0);
        *good = n == 0;
        mem_free(block);
        return ok;
}

bool unpack_zlib(struct str in, struct buf *out, bool *good)
{
        enum { HEAD = 2, SUM = 4, METHOD = 8, DICTIONARY = 0x20 };
        const unsigned char *p = (const unsigned char *)in.p;
        struct dressed d = { .pieces = { { "\x1f\x8b\x08\0\0\0\0\0\0\3", 10 }, { NULL, 0 }, { "\0\0\0\0\0\0\0", 8 } } };
        struct unpack_input from = { .read = read_dressed, .once = true, .ctx = &d };
        size_t before = out->n;
        struct unpack *u;
        struct err e;
        bool ok;

        *good = false;
        if (in.n < HEAD + SUM || (p[0] & 15) != METHOD || (p[0] << 8 | p[1]) % 31 != 0 || p[1] & DICTIONARY)
                return true;
        d.pieces[1] = str_make(in.p + HEAD, in.n - HEAD - SUM);
        u = unpack_open(&from, UNPACK_GZIP, &e);
        if (!u)
                return e.code != ERR_NOMEM;
        ok = read_all(u, out, good);
        unpack_close(u);
        *good = ok && *good && adler_fits(str_from(buf_str(out), before), str_from(in, in.n - SUM));
        return ok;
}
