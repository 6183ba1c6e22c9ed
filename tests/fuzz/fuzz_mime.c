/* The tree of a message: fed in any chunks it is the same; ranges lie inside the message, children inside their parent, siblings one
 * behind the other. */
#include "core/mime.h"
#include "tests/fuzz/fuzz.h"

static struct mime *parse(struct str in, struct dice *d, const struct limits *lim, struct mime_defects *defects, struct arena *a)
{
        struct mime_parser *p = mime_new(lim, defects, a);
        struct mime *root;

        MUST(p);
        for (size_t at = 0; at < in.n || (!d && at == 0);) {
                struct str chunk = d ? str_first(str_from(in, at), dice_chunk(d, in.n - at)) : in;
                char *copy = fuzz_copy(chunk);

                MUST(mime_feed(p, str_make(copy, chunk.n)));
                mem_free(copy);
                at += chunk.n;
                if (chunk.n == 0)
                        break;
        }
        root = mime_end(p);
        MUST(root);
        return root;
}

static struct mime *after(struct mime *m) /* in document order */
{
        if (m->child)
                return m->child;
        while (m && !m->next)
                m = m->parent;
        return m ? m->next : NULL;
}

static void check_place(const struct mime *m, uint64_t size, const struct limits *lim)
{
        const struct mime *p = m->parent;

        MUST(m->header_at <= size && m->header_n <= size - m->header_at);
        MUST(m->body_at >= m->header_at + m->header_n);
        MUST(m->body_at <= size && m->body_n <= size - m->body_at);
        MUST(m->lines <= m->body_n + 1); /* the boundary's line end ends a line, too */
        MUST(m->depth <= lim->depth);
        MUST(!m->boundary.n || m->kind == MIME_MULTIPART);
        MUST(m->kind != MIME_LEAF || !m->child);
        if (p)
                MUST(m->header_at >= p->body_at && m->body_at + m->body_n <= p->body_at + p->body_n && m->depth == p->depth + 1);
        if (m->next) {
                MUST(m->next->parent == p && m->next->index == m->index + 1);
                MUST(m->next->header_at >= m->body_at + m->body_n);
        }
}

static void check_same(struct mime *a, struct mime *b)
{
        for (; a && b; a = after(a), b = after(b)) {
                MUST(a->kind == b->kind && a->encoding == b->encoding && a->depth == b->depth && a->index == b->index);
                MUST(a->header_at == b->header_at && a->header_n == b->header_n);
                MUST(a->body_at == b->body_at && a->body_n == b->body_n && a->lines == b->lines);
                MUST_SAME(a->type, b->type);
                MUST_SAME(a->boundary, b->boundary);
        }
        MUST(!a && !b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct dice d = dice_of(in);
        struct limits lim = limits_default;
        struct mime_defects one = { 0 }, two = { 0 };
        struct arena *a = fuzz_arena();
        struct mime *whole, *cut;
        unsigned n = 0;
        bool ended;
        size_t header;

        if (dice_roll(&d, 4) == 0) { /* so that small inputs reach them */
                lim.depth = 3, lim.parts = 8, lim.boundary = 20;
                lim.header_block = 600, lim.header_field = 100, lim.header_fields = 12;
        }
        whole = parse(in, NULL, &lim, &one, a);
        cut = parse(in, &d, &lim, &two, a);
        for (struct mime *m = whole; m; m = after(m), n++)
                check_place(m, in.n, &lim);
        MUST(n <= lim.parts + 1);
        check_same(whole, cut);
        MUST(one.count == two.count);
        for (unsigned i = 0; i < one.count; i++)
                MUST(strcmp(one.names[i], two.names[i]) == 0);
        header = mime_header_size(in, &ended);
        MUST(header <= in.n);
        MUST(!ended || lim.depth == 3 || header == whole->header_n);
        arena_free(a);
        return 0;
}
