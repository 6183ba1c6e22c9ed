#include "core/buf.h"
#include "core/dot.h"
#include "core/mem.h"
#include "tests/unit/test.h"

static size_t feed(struct dot *d, struct str chunk, struct buf *out)
{
        char *in = mem_alloc(chunk.n), *to = mem_alloc(chunk.n + 2);
        size_t taken, wrote;

        if (chunk.n)
                memcpy(in, chunk.p, chunk.n);
        taken = dot_unstuff(d, str_make(in, chunk.n), to, &wrote);
        buf_add(out, to, wrote);
        mem_free(in);
        mem_free(to);
        return taken;
}

/* Feeds up to cut, then step bytes at a time; returns the bytes taken in all. */
static size_t unstuff(struct dot *d, struct str in, size_t step, size_t cut, struct buf *out)
{
        size_t taken;

        buf_clear(out);
        taken = feed(d, str_first(in, cut), out);
        while (taken < in.n && d->state != DOT_DONE)
                taken += feed(d, str_first(taken < cut ? str_make(in.p + taken, cut - taken) : str_from(in, taken), step), out);
        return taken;
}

static void check_at(int line, struct str in, struct str want, size_t rest, bool lf_session, bool bare)
{
        struct buf out = BUF_INIT;

        for (size_t cut = 0; cut <= in.n + 1; cut++) { /* the last round: a byte at a time */
                struct dot d = { .bare_lf = lf_session };
                size_t taken = unstuff(&d, in, cut > in.n ? 1 : SIZE_MAX, cut > in.n ? 0 : cut, &out);
                test_same(__FILE__, line, "unstuffed", buf_str(&out), want);
                if (d.state != DOT_DONE || taken != in.n - rest || d.wire != taken || d.saw_bare_lf != bare) {
                        test_bad++;
                        printf("%s:%d: cut at %zu: state %d, %zu taken, bare LF %d\n", __FILE__, line, cut,
                               (int)d.state, taken, d.saw_bare_lf);
                }
        }
        buf_free(&out);
}
#define ANSWER(in, want) check_at(__LINE__, STR(in), STR(want), 0, false, false)
#define ANSWER_BARE(in, want) check_at(__LINE__, STR(in), STR(want), 0, false, true)

TEST(P21_unstuff)
{
        ANSWER(".\r\n", "");
        ANSWER("a\r\n.\r\n", "a\n");
        ANSWER("..\r\n.\r\n", ".\n");
        ANSWER("...\r\n.x\r\na.\r\n.\r\n", "..\nx\na.\n");
        ANSWER("\r\n\r\n.\r\n", "\n\n");
        ANSWER("a\r\n..\r\nb\r\n.\r\n", "a\n.\nb\n");
}

TEST(P23_bytes_are_kept)
{
        ANSWER("a\0b\xff\r\n.\r\n", "a\0b\xff\n");
        ANSWER("a\rb\r\r\n\r\r\r\n.\r\n", "a\rb\r\n\r\r\n");
        ANSWER("\r.\r\n.\r\n", "\r.\n"); /* a bare CR begins no line */
        ANSWER(".\rx\r\n.\r\n", "\rx\n");
        ANSWER(".\r\r\n.\r\n", "\r\n");
        ANSWER_BARE("a\nb\r\n.\r\n", "a\nb\n");
}

/* In a session whose lines end in CRLF a mail that holds "\n.\n" must not be able to end the answer. */
TEST(S01_bare_lf_does_not_end)
{
        ANSWER_BARE("a\n.\nb\r\n.\r\n", "a\n.\nb\n");
        ANSWER_BARE("a\n.\r\nb\r\n.\r\n", "a\n.\nb\n");
        ANSWER_BARE("a\r\n.\nb\r\n.\r\n", "a\n\nb\n");
        ANSWER_BARE("a\n..\r\n.\r\n", "a\n..\n");
}

TEST(bare_lf_session)
{
        check_at(__LINE__, STR("a\n..b\n.\n"), STR("a\n.b\n"), 0, true, true);
        check_at(__LINE__, STR("a\r\n.\r\n"), STR("a\n"), 0, true, false);
        check_at(__LINE__, STR(".\n+OK"), STR(""), 3, true, false);
        check_at(__LINE__, STR("a\n.\r\n"), STR("a\n"), 0, true, true);
}

TEST(the_next_answer_is_left)
{
        check_at(__LINE__, STR("a\r\n.\r\n+OK next\r\n.\r\n"), STR("a\n"), 13, false, false);
        check_at(__LINE__, STR(".\r\n.\r\n"), STR(""), 3, false, false);
}

TEST(nothing_after_the_end)
{
        struct dot d = { .state = DOT_DONE };
        size_t wrote = 9;
        char out[8];

        CHECK(dot_unstuff(&d, STR("x"), out, &wrote) == 0 && wrote == 0 && d.wire == 0);
        d.state = DOT_LINE_START;
        CHECK(dot_unstuff(&d, STR_NONE, out, &wrote) == 0 && wrote == 0);
}

static void stuff(struct str in, size_t step, size_t cut, struct buf *out)
{
        struct stuff d = { 0 };
        char end[5];

        buf_clear(out);
        for (bool first = true; first || in.n > 0; first = false) {
                struct str chunk = str_first(in, first ? cut : step);
                char *exact = mem_alloc(chunk.n), *to = mem_alloc(3 * chunk.n + 1);
                if (chunk.n)
                        memcpy(exact, chunk.p, chunk.n);
                buf_add(out, to, dot_stuff(&d, str_make(exact, chunk.n), to));
                in = str_from(in, chunk.n);
                mem_free(exact);
                mem_free(to);
        }
        buf_add(out, end, dot_stuff_end(&d, end));
}

static void check_stuffed(int line, struct str in, struct str want)
{
        struct buf out = BUF_INIT;

        for (size_t cut = 0; cut <= in.n + 1; cut++) {
                stuff(in, cut > in.n ? 1 : SIZE_MAX, cut > in.n ? 0 : cut, &out);
                test_same(__FILE__, line, "stuffed", buf_str(&out), want);
        }
        buf_free(&out);
}
#define STUFFED(in, want) check_stuffed(__LINE__, STR(in), STR(want))

TEST(stuff_lines)
{
        STUFFED("", ".\r\n");
        STUFFED("a", "a\r\n.\r\n");
        STUFFED("a\nb\r\nc\rd", "a\r\nb\r\nc\r\nd\r\n.\r\n");
        STUFFED(".", "..\r\n.\r\n");
        STUFFED(".a\n..\na.b\n", "..a\r\n...\r\na.b\r\n.\r\n");
        STUFFED("\r\r\n\n\n\r", "\r\n\r\n\r\n\r\n\r\n.\r\n");
        STUFFED("a\0b\n", "a\0b\r\n.\r\n");
}

/* S01: however a mail writes a line end around a dot, on the wire the dot is doubled and only our end ends it. */
TEST(S01_nine_sequences)
{
        static const char *const ends[] = { "\r", "\n", "\r\n" };
        char in[16];
        int n;

        for (int i = 0; i < 9; i++) {
                n = snprintf(in, sizeof in, "a%s.%sb", ends[i / 3], ends[i % 3]);
                check_stuffed(__LINE__, str_make(in, (size_t)n), STR("a\r\n..\r\nb\r\n.\r\n"));
                n = snprintf(in, sizeof in, "%s.%s", ends[i / 3], ends[i % 3]);
                check_stuffed(__LINE__, str_make(in, (size_t)n), STR("\r\n..\r\n.\r\n"));
        }
        STUFFED("a\n\0.\nb", "a\r\n\0.\r\nb\r\n.\r\n");
}

/* The same across the edges of large chunks: what was stuffed comes back, with LF line ends. */
TEST(S01_stuffed_and_back)
{
        static const char some[] = "..aab\r\n\n\0";
        struct buf wire = BUF_INIT, back = BUF_INIT, want = BUF_INIT;
        char in[300];
        unsigned seed = 7;

        for (int round = 0; round < 400; round++) {
                size_t n = (size_t)round % sizeof in;
                buf_clear(&want);
                for (size_t i = 0; i < n; i++) {
                        seed = seed * 1103515245 + 12345;
                        in[i] = some[(seed >> 16) % (sizeof some - 1)];
                        if (in[i] == '\n' && i > 0 && in[i - 1] == '\r')
                                continue;
                        buf_add_char(&want, in[i] == '\r' ? '\n' : in[i]);
                }
                if (want.n > 0 && want.p[want.n - 1] != '\n')
                        buf_add_char(&want, '\n');
                stuff(str_make(in, n), 1 + (size_t)round % 17, 2, &wire);
                struct dot d = { .state = DOT_LINE_START };
                CHECK(unstuff(&d, buf_str(&wire), 1 + (size_t)round % 13, 5, &back) == wire.n);
                CHECK(d.state == DOT_DONE && !d.saw_bare_lf);
                CHECK_BYTES(buf_str(&back), buf_str(&want));
        }
        buf_free(&wire);
        buf_free(&back);
        buf_free(&want);
}

TEST_MAIN
