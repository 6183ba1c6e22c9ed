/* Archives in a message: members are files of UTF-8 names without separators, no longer than the budget allows all together; cleaning a
 * name again changes nothing; a member in small reads is the member at once, and its size and hash are those of its bytes; sent in base64
 * the archive has the same members; broken archives are no failure of the machine. */
#include "core/digest.h"
#include "core/filename.h"
#include "core/message.h"
#include "tests/fuzz/fuzz.h"

enum { DEPTH = 3, PARTS = 100, BYTES = 2 << 20, RATIO = 1000 };

static struct limits limits(void)
{
        struct limits lim = limits_default;

        lim.opened_depth = DEPTH;
        lim.opened_parts = PARTS;
        lim.opened_bytes = BYTES;
        lim.opened_ratio = RATIO;
        lim.memory_message = 16 * 1024; /* some lie in memory, some in the file */
        return lim;
}

static struct message *message_of(const char *header, struct str body)
{
        struct limits lim = limits();
        struct origin o = { .source = STR("fuzz") };
        struct buf b = BUF_INIT;
        struct message *m;
        struct backing *in;
        struct err e;
        size_t n;

        buf_add_str(&b, str_of(header));
        buf_add_str(&b, body);
        n = b.n;
        in = backing_memory(b.p, b.n);
        m = in ? message_new((struct range){ in, 0, n }, &o, &lim, &e) : NULL;
        backing_unref(in);
        MUST(m);
        return m;
}

static void add_base64(struct buf *out, struct str in)
{
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

        for (size_t i = 0; i < in.n; i += 3) {
                uint32_t v = (uint32_t)(uint8_t)in.p[i] << 16;
                size_t n = in.n - i < 3 ? in.n - i : 3;

                v |= n > 1 ? (uint32_t)(uint8_t)in.p[i + 1] << 8 : 0;
                v |= n > 2 ? (uint32_t)(uint8_t)in.p[i + 2] : 0;
                for (size_t k = 0; k < 4; k++)
                        buf_add_char(out, k <= n ? digits[v >> (18 - 6 * k) & 63] : '=');
                if (i % 57 == 54)
                        buf_add_char(out, '\n');
        }
}

static void check_name(struct part *p)
{
        struct str name = part_name(p), member = part_member(p), once, again;
        struct arena *a = fuzz_arena();

        MUST(utf8_valid(name.p ? name : STR("")) && utf8_valid(member.p ? member : STR("")));
        if (member.p)
                MUST(str_find(name, '/') == name.n && str_find(name, '\\') == name.n);
        once = filename_clean(name.p ? name : STR(""), NULL, a);
        again = filename_clean(once, NULL, a);
        MUST_SAME(once, again);
        MUST(str_find(once, '/') == once.n && !str_eq(once, STR("..")) && !str_eq(once, STR(".")));
        arena_free(a);
}

/* All bytes, in reads of these sizes; their hash. */
static uint64_t read_all(struct part *p, struct dice *d, uint8_t hash[32])
{
        struct digest *sum = digest_new();
        struct err e;
        struct reader *r = part_open(p, &e);
        static char block[64 << 10];
        uint64_t count = 0;
        ssize_t n;

        MUST(sum && r);
        while ((n = reader_read(r, block, d ? dice_chunk(d, sizeof block) : sizeof block, &e)) > 0) {
                digest_add(sum, block, (size_t)n);
                count += (uint64_t)n;
        }
        MUST(n == 0);
        reader_close(r);
        digest_end(sum, hash);
        return count;
}

static uint64_t check_member(struct part *p, struct dice *d)
{
        uint8_t whole[32], pieces[32], said[32];
        struct err e;
        uint64_t n;

        check_name(p);
        if (!part_readable(p, &e)) {
                MUST(part_encrypted(p) && part_member(p).p && !part_open(p, &e) && part_content(p).n == 0);
                return 0;
        }
        n = read_all(p, NULL, whole);
        MUST(read_all(p, d, pieces) == n && memcmp(whole, pieces, 32) == 0);
        MUST(part_size(p) == n && part_sha256(p, said, &e) && memcmp(whole, said, 32) == 0);
        MUST(part_sha256_aside(p, said, &e) && memcmp(whole, said, 32) == 0);
        return part_member(p).p ? n : 0;
}

static size_t check_all(struct message *m, struct part ***out, struct dice *d)
{
        struct part **leaves, **again, **members;
        uint64_t bytes = 0;
        size_t n;

        MUST(message_leaves(m, &leaves) == 1);
        n = part_unpacked(leaves[0], out);
        MUST(n <= 2 * PARTS); /* wrappers in archives count for themselves once more */
        for (size_t i = 0; i < n; i++) {
                bytes += check_member((*out)[i], d);
                MUST(part_is_wrapped((*out)[i]) && part_index((*out)[i]) > 1);
        }
        MUST(bytes <= BYTES);
        MUST(part_unpacked(leaves[0], &again) == n && (n == 0 || memcmp(again, *out, n * sizeof *again) == 0));
        MUST(part_members(leaves[0], &members) <= PARTS);
        message_unpacked(m, &again);
        MUST(message_leaves(m, &leaves) == 1 && message_attachments(m, &members) <= 1);
        MUST(message_trouble(m)->code == ERR_NONE);
        return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct dice d = dice_of(in);
        struct message *plain = message_of("Content-Type: application/octet-stream; name=x.zip\n\n", in), *base64;
        struct part **one, **other;
        struct buf b = BUF_INIT;
        size_t n = check_all(plain, &one, &d);

        add_base64(&b, in);
        base64 = message_of("Content-Type: application/octet-stream; name=x.zip\nContent-Transfer-Encoding: base64\n\n", buf_str(&b));
        MUST(check_all(base64, &other, &d) == n);
        for (size_t i = 0; i < n; i++) {
                MUST_SAME(part_member(one[i]), part_member(other[i]));
                MUST_SAME(part_path(one[i]), part_path(other[i]));
                MUST(part_size(one[i]) == part_size(other[i]));
        }
        buf_free(&b);
        message_free(plain);
        message_free(base64);
        return 0;
}
