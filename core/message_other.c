/* The other reading of what can be read in two ways. Where readers of mail disagree, something may be hidden from one of them: a scanner that
 * looks at both readings cannot be passed by. Doubtful points are not combined with each other: one reading takes all of them as the rest of
 * core/ does, the other takes all of them the other way. */
#include "core/message_int.h"

enum { STEP = 16 * 1024 };

/* The tree of the bytes of r in the other reading, below top; its parts count for themselves, so that both readings see the same
 * limits. */
static bool grow(struct part *top, struct range r, unsigned index, struct err *e)
{
        struct message *m = top->m;
        struct mime_defects unsaid = { .count = 0 };
        struct mime *root = message_structure(m, r, &m->lim, &unsaid, true, e);
        unsigned parts = m->parts, own = m->own_parts;
        bool ok;

        if (!root)
                return false;
        root->index = index;
        m->parts = m->own_parts = 0;
        ok = part_graft(top, root, r) || err_nomem(e);
        m->own_parts = m->parts;
        for (struct part *p = top; ok && p; p = part_after(p, top))
                part_unwrap(p);
        m->parts = parts;
        m->own_parts = own;
        return ok;
}

/* Is there data behind the padding of its base64? */
static bool goes_on_behind_padding(struct part *p)
{
        char block[STEP];
        struct reader *r;
        struct err e;
        ssize_t n = 1;
        bool padded = false;

        if (p->mime->kind != MIME_LEAF || p->mime->encoding != MIME_BASE64)
                return false;
        r = part_open(p, &e);
        while (r && !padded && (n = reader_read(r, block, sizeof block, &e)) > 0)
                padded = reader_padded(r);
        padded = padded || (r && reader_padded(r));
        reader_close(r);
        if (!r || n < 0)
                message_fail(p->m, &e);
        return padded;
}

/* A part that was found in a wrapper and has no header has nothing to doubt. */
static bool is_doubtful(struct part *p)
{
        return p->mime && !p->made && (p->mime->doubts || goes_on_behind_padding(p));
}

/* Below a copy of its parent, so that it has its place, and the list of the parent's children stays as it is. */
static struct part *leaf_alternative(struct part *p, struct err *e)
{
        struct part *top;

        if (!is_doubtful(p))
                return NULL;
        top = arena_alloc(p->m->a, sizeof *top);
        if (!top) {
                err_nomem(e);
                return NULL;
        }
        *top = *p->parent;
        top->child = top->last = top->next = NULL;
        top->other = true;
        if (!grow(top, part_entity(p), p->mime->index, e))
                return NULL;
        top->child->index = p->index;
        return top->child;
}

static void number_leaves(struct part *top)
{
        unsigned n = 0;

        for (struct part *p = top; p; p = part_after(p, top))
                if (part_is_leaf(p))
                        p->index = ++n;
}

static struct part *whole_alternative(struct message *m, struct err *e)
{
        struct part **leaves, *top, *p = &m->whole;

        message_open_leaves(m, &leaves); /* what is inside wrappers is part of the message, too */
        while (p && !is_doubtful(p))
                p = part_after(p, &m->whole);
        if (!p)
                return NULL;
        top = arena_alloc(m->a, sizeof *top);
        if (!top) {
                err_nomem(e);
                return NULL;
        }
        *top = (struct part){ .m = m, .header = m->whole.header, .body = m->whole.body, .path = STR(""), .other = true };
        if (!grow(top, m->r, 1, e))
                return NULL;
        number_leaves(top);
        return top;
}

struct part *part_alternative(struct part *p)
{
        struct err e = { .code = ERR_NONE };

        message_need_tree(p->m);
        if (!p->alternative_known && !p->other)
                p->alternative = p->mime ? leaf_alternative(p, &e) : whole_alternative(p->m, &e);
        p->alternative_known = true;
        if (e.code != ERR_NONE)
                message_fail(p->m, &e);
        return p->alternative;
}
