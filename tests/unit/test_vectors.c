/* Each decoder in vector code against its portable twin: every length up to a few vectors, every alignment, over bytes that are mostly
 * what the vectors hope for and bytes that are not. Inputs end where their memory ends. (linescan has a test of its own.) */
#include "core/base64.h"
#include "core/buf.h"
#include "core/fromline.h"
#include "core/linescan.h"
#include "core/mem.h"
#include "tests/unit/test.h"

enum { LONGEST = 200, ALIGNMENTS = 64, KINDS = 6 };

static uint64_t state = 20261123;

static unsigned draw(unsigned below)
{
        state = state * 6364136223846793005 + 1442695040888963407;
        return (unsigned)(state >> 33) % below;
}

static char letter(void)
{
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[draw(64)];
}

/* Lines of base64 as mail has them; with CRLF; with odd bytes; lines of other lengths; padding everywhere; anything. */
static char byte_of(unsigned kind, size_t i)
{
        switch (kind) {
        case 0: return i % 77 == 76 ? '\n' : letter();
        case 1: return i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : letter();
        case 2: return draw(40) ? letter() : (char)draw(256);
        case 3: return draw(20) ? letter() : "\n\r\n \t"[draw(5)];
        case 4: return draw(10) ? letter() : "=\n"[draw(2)];
        default: return (char)draw(256);
        }
}

/* Fed in pieces shorter than a vector is used for: the portable code alone. */
static size_t decode_portable(struct str in, char *out, struct base64 *d)
{
        size_t n = 0;

        for (; in.n > 0; in = str_from(in, 40))
                n += base64_decode(d, str_first(in, 40), out + n);
        return n + base64_end(d, out + n);
}

static void check_base64(struct str in)
{
        char out[LONGEST * 2], twin[LONGEST * 2], *exact = mem_alloc(base64_room(in.n));
        struct base64 a = { 0 }, b = { 0 };
        size_t n = base64_decode(&a, in, exact), m;

        memcpy(out, exact, n);
        mem_free(exact);
        n += base64_end(&a, out + n);
        m = decode_portable(in, twin, &b);
        CHECK_BYTES(str_make(out, n), str_make(twin, m));
        CHECK(a.garbage == b.garbage && a.padded == b.padded && a.truncated == b.truncated);
}

TEST(base64_at_every_length_and_alignment)
{
        for (unsigned kind = 0; kind < KINDS; kind++)
                for (size_t n = 0; n <= LONGEST && test_bad == 0; n++)
                        for (size_t from = 0; from < ALIGNMENTS; from += kind == 0 ? 1 : 7) {
                                char *p = mem_alloc(from + n + 1), *exact = mem_resize(p, from + n ? from + n : 1);

                                for (size_t i = 0; i < n; i++)
                                        exact[from + i] = byte_of(kind, i);
                                check_base64(str_make(exact + from, n));
                                mem_free(exact);
                        }
}

/* One byte that is none of the alphabet, each of the 256, at each place of a vector. */
TEST(base64_every_byte_at_every_place)
{
        char p[100];

        for (int c = 0; c < 256 && test_bad == 0; c++)
                for (size_t at = 0; at < sizeof p; at++) {
                        memset(p, 'Q', sizeof p);
                        p[at] = (char)c;
                        check_base64(str_make(p, sizeof p));
                }
}

TEST(fromline_at_every_length_and_alignment)
{
        static const char some[] = "FFFrrroommm  \nFrom From ";

        for (unsigned kind = 0; kind < 3; kind++)
                for (size_t n = 0; n <= LONGEST && test_bad == 0; n++)
                        for (size_t from = 0; from < ALIGNMENTS; from++) {
                                char *p = mem_alloc(from + n + 1), *exact = mem_resize(p, from + n ? from + n : 1);

                                for (size_t i = 0; i < from + n; i++)
                                        exact[i] = kind == 0 ? "From "[i % 5] : kind == 1 ? some[draw(sizeof some - 1)] : draw(9) ? 'x' : 'F';
                                if (kind == 1 && n >= 5 && draw(2)) /* across the edge of a step, or anywhere */
                                        memcpy(exact + from + draw((unsigned)n - 4), "From ", 5);
                                CHECK(fromline_find(exact + from, n) == memmem(exact + from, n, "From ", 5));
                                mem_free(exact);
                        }
}

TEST(linescan_at_every_length_and_alignment)
{
        for (size_t n = 0; n <= LONGEST && test_bad == 0; n++)
                for (size_t from = 0; from < ALIGNMENTS; from++) {
                        char *p = mem_alloc(from + n + 1), *exact = mem_resize(p, from + n ? from + n : 1);
                        uint64_t lines = 0, twin_lines = 0;

                        for (size_t i = 0; i < from + n; i++)
                                exact[i] = draw(30) ? 'x' : "\n\n\n-"[draw(4)];
                        CHECK(linescan_dash(exact + from, n, &lines) == linescan_dash_portable(exact + from, n, &twin_lines));
                        CHECK(lines == twin_lines);
                        mem_free(exact);
                }
}

TEST_MAIN
