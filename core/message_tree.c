/* The parts of a message: from the tree of offsets to parts with paths and ranges, and the leaves in order; message_open.c opens
 * wrappers. */
#include "core/message_int.h"

#include "core/mem.h"

bool part_is_leaf(const struct part *p)
{
        return p->mime && p->mime->kind == MIME_LEAF && !p->transparent;
}

static struct part *children_of(const struct part *p, bool members)
{
        return p->packed >= PACKED_PARTLY && !members ? NULL : p->child;
}

struct part *part_next(const struct part *p, const struct part *within, bool members)
{
        struct part *child = children_of(p, members);

        if (child)
                return child;
        while (p != within && !p->next)
                p = p->parent;
        return p == within ? NULL : p->next;
}

struct part *part_after(const struct part *p, const struct part *within)
{
        return part_next(p, within, false);
}

/* What the numbers of p's children stand behind: RFC 3501 6.4.5 gives a multipart that is the body of a message no number. */
static struct str number_base(const struct part *p)
{
        struct str s = p->path;

        if (str_ends(s, STR(".TEXT")))
                return str_first(s, s.n - 5);
        return str_eq(s, STR("TEXT")) ? STR("") : s;
}

static bool is_multipart(const struct part *p)
{
        return p->mime && p->mime->kind == MIME_MULTIPART;
}

/* The path of p, which is number n among the children of its parent. */
static bool set_path(struct part *p, unsigned n, struct arena *a)
{
        struct str base = number_base(p->parent);
        const char *dot = base.n ? "." : "";

        if (is_multipart(p->parent) || !is_multipart(p))
                p->path = arena_printf(a, "%.*s%s%u", STR_FMT(base), dot, n);
        else
                p->path = arena_printf(a, "%.*s%sTEXT", STR_FMT(base), dot);
        return p->path.p;
}

struct part *part_add(struct part *parent, const struct mime *e, struct range in)
{
        struct message *m = parent->m;
        struct part *p = arena_alloc(m->a, sizeof *p);

        if (!p)
                return NULL;
        p->m = m;
        p->parent = parent;
        p->mime = e;
        p->depth = parent->depth + 1;
        p->other = parent->other;
        p->level = parent->level + (parent->mime && parent->mime->kind == MIME_LEAF);
        p->header = range_sub(in, e->header_at, e->header_n);
        p->body = range_sub(in, e->body_at, e->body_n);
        if (!set_path(p, e->index, m->a))
                return NULL;
        if (parent->last)
                parent->last->next = p;
        else
                parent->child = p;
        parent->last = p;
        m->parts++;
        return p;
}

/* Walks both trees at once, without recursion. */
bool part_graft(struct part *top, const struct mime *root, struct range in)
{
        const struct mime *e = root;
        struct part *parent = top;

        for (;;) {
                struct part *p = part_add(parent, e, in);

                if (!p)
                        return false;
                if (e->child) {
                        e = e->child;
                        parent = p;
                        continue;
                }
                while (e != root && !e->next) {
                        e = e->parent;
                        parent = parent->parent;
                }
                if (e == root)
                        return true;
                e = e->next;
        }
}

static bool feed_file(struct mime_parser *p, struct range r, struct err *e)
{
        char *block = mem_alloc(BLOCK_BYTES);
        bool ok = block || err_nomem(e);
        ssize_t n;

        for (uint64_t at = 0; ok && at < r.n; at += (uint64_t)n) {
                n = range_read(r, at, block, BLOCK_BYTES, e);
                ok = n > 0 && (mime_feed(p, str_make(block, (size_t)n)) || err_nomem(e));
        }
        mem_free(block);
        return ok;
}

/* header: where the outermost one is wanted, or NULL. */
static struct mime *structure(struct message *m, struct range r, const struct limits *lim, struct mime_defects *d, bool other, struct header *header,
                              struct err *e)
{
        struct mime_parser *p = mime_new(lim, d, m->a);
        struct str bytes;
        struct mime *root;
        bool ok;

        if (!p) {
                err_nomem(e);
                return NULL;
        }
        if (other)
                mime_read_other(p);
        if (range_in_memory(r, &bytes)) {
                mime_keep_header(p, header);
                ok = mime_feed(p, bytes) || err_nomem(e);
        } else {
                ok = feed_file(p, r, e);
        }
        root = mime_end(p);
        if (ok && !root)
                err_nomem(e);
        return ok ? root : NULL;
}

struct mime *message_structure(struct message *m, struct range r, const struct limits *lim, struct mime_defects *d, bool other, struct err *e)
{
        return structure(m, r, lim, d, other, NULL, e);
}

/* Numbers the leaves as RFC 2045 sees them. */
static bool list_leaves(struct message *m)
{
        size_t n = 0;

        for (struct part *p = &m->whole; p; p = part_after(p, &m->whole))
                n += part_is_leaf(p);
        m->leaves = arena_alloc(m->a, (n + 1) * sizeof *m->leaves);
        if (!m->leaves)
                return false;
        for (struct part *p = &m->whole; p; p = part_after(p, &m->whole)) {
                if (!part_is_leaf(p))
                        continue;
                m->leaves[m->leaves_n++] = p;
                p->index = (unsigned)m->leaves_n;
        }
        return true;
}

static struct mime *sketched(struct message *m)
{
        for (unsigned i = 0; i < m->sketch->defects.count; i++)
                mime_defect(&m->defects, m->sketch->defects.names[i]);
        return m->sketch->root;
}

bool message_parse(struct message *m, struct err *e)
{
        struct header header = { 0 };
        struct mime *root;

        if (m->parsed)
                return true;
        root = m->sketch ? sketched(m) : structure(m, m->r, &m->lim, &m->defects, false, &header, e);
        if (!root)
                return false;
        message_take_header(m, &header);
        m->whole.path = STR("");
        if (!part_graft(&m->whole, root, m->r) || !list_leaves(m))
                return err_nomem(e);
        m->whole.header = m->whole.child->header;
        m->own_parts = m->parts;
        m->numbers = (unsigned)m->leaves_n;
        m->parsed = true;
        return true;
}

/* Tries once: a tree that could not be had is a trouble that holds the message. */
void message_need_tree(struct message *m)
{
        struct err e;

        if (!m->parsed && !message_parse(m, &e)) {
                message_fail(m, &e);
                m->whole.child = m->whole.last = NULL;
                m->leaves_n = 0;
                m->parsed = true;
        }
}

struct part *message_root(struct message *m)
{
        return &m->whole;
}

size_t message_leaves(struct message *m, struct part ***out)
{
        message_need_tree(m);
        *out = m->leaves;
        return m->leaves_n;
}

/* Numbers of what was inside wrappers follow those of the leaves, so that opening changes no number. */
static void open_all(struct message *m)
{
        size_t n = 0;

        for (struct part *p = &m->whole; p; p = part_after(p, &m->whole)) {
                part_unwrap(p);
                n += part_is_leaf(p);
        }
        m->open_leaves = arena_alloc(m->a, (n + 1) * sizeof *m->open_leaves);
        if (!m->open_leaves) {
                message_nomem(m);
                return;
        }
        for (struct part *p = &m->whole; p; p = part_after(p, &m->whole)) {
                if (!part_is_leaf(p))
                        continue;
                if (p->index == 0)
                        p->index = ++m->numbers;
                m->open_leaves[m->open_leaves_n++] = p;
        }
}

size_t message_open_leaves(struct message *m, struct part ***out)
{
        message_need_tree(m);
        if (!m->opened_all)
                open_all(m);
        m->opened_all = true;
        *out = m->open_leaves;
        return m->open_leaves_n;
}

size_t message_attachments(struct message *m, struct part ***out)
{
        struct part **all;
        size_t n;

        if (!m->attachments) {
                n = message_open_leaves(m, &all);
                m->attachments = arena_alloc(m->a, (n + 1) * sizeof *all);
                if (!m->attachments)
                        message_nomem(m);
                for (size_t i = 0; m->attachments && i < n; i++)
                        if (part_attached(all[i], NULL))
                                m->attachments[m->attachments_n++] = all[i];
        }
        *out = m->attachments;
        return m->attachments_n;
}

size_t part_children(struct part *p, struct part ***out)
{
        struct part **list;
        size_t n = 0;

        message_need_tree(p->m);
        if (part_is_leaf(p) && p->other)
                part_unwrap(p);
        else if (part_is_leaf(p))
                message_open_leaves(p->m, out);
        for (struct part *c = children_of(p, false); c; c = c->next)
                n++;
        *out = list = arena_alloc(p->m->a, (n + 1) * sizeof *list);
        if (!list) {
                message_nomem(p->m);
                return 0;
        }
        n = 0;
        for (struct part *c = children_of(p, false); c; c = c->next)
                list[n++] = c;
        return n;
}
