/* base64, quoted-printable, uuencode: in chunks as at once, within the room that was asked for, and back again. */
#include "core/base64.h"
#include "core/qp.h"
#include "core/uu.h"
#include "tests/fuzz/fuzz.h"

struct coder {
        union { struct base64 b; struct qp q; } u;
        bool qp;
};

static void feed(struct coder *c, struct str chunk, struct buf *out)
{
        size_t room = c->qp ? qp_room(chunk.n) : base64_room(chunk.n), n;
        char *in = fuzz_copy(chunk), *to = mem_alloc(room);

        n = c->qp ? qp_decode(&c->u.q, str_make(in, chunk.n), to) : base64_decode(&c->u.b, str_make(in, chunk.n), to);
        MUST(n <= room);
        buf_add(out, to, n);
        mem_free(in);
        mem_free(to);
}

static void end(struct coder *c, struct buf *out)
{
        char *to = mem_alloc(c->qp ? 260 : 3);
        size_t n = c->qp ? qp_end(&c->u.q, to) : base64_end(&c->u.b, to);

        buf_add(out, to, n);
        mem_free(to);
}

static void check_chunks(struct str in, bool qp, struct dice d)
{
        struct coder one = { .qp = qp }, two = { .qp = qp };
        struct buf whole = BUF_INIT, cut = BUF_INIT;

        feed(&one, in, &whole);
        end(&one, &whole);
        for (size_t at = 0, n; at < in.n; at += n) {
                n = dice_chunk(&d, in.n - at);
                feed(&two, str_first(str_from(in, at), n), &cut);
        }
        end(&two, &cut);
        MUST_SAME(buf_str(&whole), buf_str(&cut));
        MUST(whole.n <= (qp ? in.n : in.n / 4 * 3 + 3));
        if (qp)
                MUST(one.u.q.bad == two.u.q.bad);
        else
                MUST(one.u.b.garbage == two.u.b.garbage && one.u.b.padded == two.u.b.padded && one.u.b.truncated == two.u.b.truncated);
        buf_free(&whole);
        buf_free(&cut);
}

static void check_back(struct str in)
{
        char *coded = mem_alloc((in.n + 2) / 3 * 4 + 1), *back = mem_alloc(base64_room((in.n + 2) / 3 * 4) + 3);
        struct base64 d = { 0 };
        size_t n = base64_encode(in, coded), m;

        MUST(n == (in.n + 2) / 3 * 4);
        m = base64_decode(&d, str_make(coded, n), back);
        m += base64_end(&d, back + m);
        MUST_SAME(str_make(back, m), in);
        MUST(!d.garbage && !d.padded && !d.truncated);
        mem_free(coded);
        mem_free(back);
}

static void check_uu(struct str in)
{
        while (in.n > 0) {
                struct str line = str_take_line(&in), name = STR_NONE;
                char *copy = fuzz_copy(line), *out = mem_alloc(63);
                int n = uu_decode_line(str_make(copy, line.n), out);

                MUST(n >= -1 && n <= 63);
                MUST(!uu_begin(str_make(copy, line.n), &name) || (name.p >= copy && name.p + name.n <= copy + line.n));
                mem_free(copy);
                mem_free(out);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct dice d = dice_of(in);
        char *word = mem_alloc(size + 1);

        check_chunks(in, false, d);
        check_chunks(in, true, d);
        check_back(in);
        check_uu(in);
        MUST(qp_decode_word(in, word) <= in.n);
        mem_free(word);
        return 0;
}
