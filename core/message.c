#include "core/message_int.h"

#include "core/date.h"
#include "core/digest.h"
#include "core/mem.h"

void message_fail(struct message *m, const struct err *e)
{
        if (m->trouble.code == ERR_NONE)
                m->trouble = *e;
}

void message_nomem(struct message *m)
{
        struct err e;

        err_nomem(&e);
        message_fail(m, &e);
}

static bool keep(struct message *m, struct str *s)
{
        if (s->p)
                *s = arena_str(m->a, *s);
        return s->p || !s->n;
}

/* A {NULL,0} stays one: it means that the source does not know. */
static bool keep_origin(struct message *m, const struct origin *o)
{
        static const struct origin nothing;
        struct str *all[] = { &m->o.source, &m->o.account, &m->o.uid, &m->o.folder, &m->o.flags, &m->o.envelope_to,
                              &m->o.envelope_from };

        m->o = o ? *o : nothing;
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
                bool known = all[i]->p != NULL;

                if (!keep(m, all[i]) || (known && !all[i]->p))
                        return false;
        }
        return true;
}

struct message *message_new(struct range r, const struct origin *o, const struct limits *lim, struct err *e)
{
        struct message *m = mem_zero(sizeof *m);

        if (!m)
                goto nomem;
        m->a = arena_new_of(ARENA_MAX, ARENA_EXPECTED);
        m->lim = lim ? *lim : limits_default;
        spill_init(&m->spill, m->lim.memory_message);
        if (!m->a || !keep_origin(m, o))
                goto nomem;
        m->r = r;
        backing_ref(r.in);
        m->whole.m = m;
        m->whole.header = m->whole.body = r;
        if (m->o.suspect)
                message_add_defect(m, "message.suspect");
        if (m->o.longer)
                message_add_defect(m, "message.longer");
        if (m->o.ambiguous)
                message_add_defect(m, "ambiguous.from");
        return m;
nomem:
        err_nomem(e);
        if (m)
                arena_free(m->a);
        mem_free(m);
        return NULL;
}

void message_free(struct message *m)
{
        if (!m)
                return;
        spill_free(&m->spill);
        backing_unref(m->r.in);
        sketch_free(m->sketch);
        if (m->cids)
                map_free(m->cids, NULL);
        if (m->srcs)
                map_free(m->srcs, NULL);
        buf_free(&m->kept_text);
        buf_free(&m->kept_content);
        buf_free(&m->head);
        arena_free(m->a);
        mem_free(m);
}

const struct origin *message_origin(const struct message *m)
{
        return &m->o;
}

struct range message_range(const struct message *m)
{
        return m->r;
}

uint64_t message_size(const struct message *m)
{
        return m->r.n;
}

const struct err *message_trouble(const struct message *m)
{
        return &m->trouble;
}

const struct limits *message_limits(const struct message *m)
{
        return &m->lim;
}

const char *const *message_defects(struct message *m, size_t *n)
{
        *n = m->defects.count;
        return m->defects.names;
}

void message_add_defect(struct message *m, const char *name)
{
        mime_defect(&m->defects, name);
}

/* What was not opened is there as it was sent, a leaf: nothing of it is overlooked. Needs the whole tree: the question is asked when the message settles, whether or not the script looked at its parts. */
bool message_over_limit(struct message *m)
{
        message_need_tree(m);
        for (unsigned i = 0; i < m->defects.count; i++)
                if (strncmp(m->defects.names[i], "limit.", 6) == 0 && strcmp(m->defects.names[i], "limit.opened") != 0)
                        return true;
        return false;
}

void message_set_hash(struct message *m, const uint8_t hash[32])
{
        memcpy(m->hash, hash, 32);
        m->hashed = true;
}

static bool hash_file(struct range r, struct digest *d, struct err *e)
{
        char *block = mem_alloc(BLOCK_BYTES);
        ssize_t n = -1;

        if (!block)
                return err_nomem(e);
        for (uint64_t at = 0; (n = range_read(r, at, block, BLOCK_BYTES, e)) > 0; at += (uint64_t)n)
                digest_add(d, block, (size_t)n);
        mem_free(block);
        return n == 0;
}

bool message_hash(struct message *m, uint8_t out[32], struct err *e)
{
        struct digest *d;
        struct str bytes;
        bool ok = true;

        if (!m->hashed) {
                d = digest_new();
                if (!d)
                        return err_nomem(e);
                if (range_in_memory(m->r, &bytes))
                        digest_add(d, bytes.p, bytes.n);
                else
                        ok = hash_file(m->r, d, e);
                digest_end(d, m->hash);
                m->hashed = ok;
        }
        memcpy(out, m->hash, 32);
        return ok;
}

bool message_identity(struct message *m, uint8_t out[32], struct err *e)
{
        if (!message_need_header(m)) {
                if (e)
                        *e = m->trouble;
                return false;
        }
        header_identity(&m->h, out);
        return true;
}
