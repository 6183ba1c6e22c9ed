/* What of a message is signed, by S/MIME, and whether the signature is good: nearest to a part is the signed thing that counts for it. */
#include "core/message_int.h"

#include "core/signature.h"

enum { SIGNATURE_BYTES = 1 << 20 }; /* of a signature beside what it signs: certificates, no content */

static bool is_signature_type(struct str type)
{
        return str_eq(type, STR("application/pkcs7-signature")) || str_eq(type, STR("application/x-pkcs7-signature"));
}

/* multipart/signed with S/MIME's signature as its second part (RFC 1847 2.1). */
static bool is_clear_signed(const struct part *p)
{
        const struct part *content = p->child;

        return p->mime && str_eq(p->mime->type, STR("multipart/signed")) && content && content->next &&
               is_signature_type(content->next->mime->type);
}

static struct part *signed_around(struct part *p)
{
        if (!p->mime)
                p = p->child;
        for (; p && p->mime; p = p->parent)
                if (p->cms.in || is_clear_signed(p))
                        return p;
        return NULL;
}

/* The signed entity with every line end as CRLF: sources keep LF only. */
struct crlf {
        struct range r;
        uint64_t at;
        char block[16 * 1024];
        struct str rest;
        bool cr;                        /* the last byte given was CR */
};

static ssize_t read_crlf(void *ctx, char *p, size_t n, struct err *e)
{
        struct crlf *c = ctx;
        size_t used = 0;

        if (!c->rest.n) {
                ssize_t got = range_read(c->r, c->at, c->block, sizeof c->block, e);

                if (got <= 0)
                        return got;
                c->at += (uint64_t)got;
                c->rest = str_make(c->block, (size_t)got);
        }
        while (used < n && c->rest.n) {
                if (*c->rest.p == '\n' && !c->cr) {
                        p[used++] = '\r';
                        c->cr = true;
                        continue;
                }
                c->cr = *c->rest.p == '\r';
                p[used++] = *c->rest.p;
                c->rest = str_from(c->rest, 1);
        }
        return (ssize_t)used;
}

static bool read_signature(struct part *p, struct buf *out, struct err *e)
{
        struct reader *r = part_open(p, e);
        ssize_t n = r ? 1 : -1;

        buf_init(out, SIGNATURE_BYTES);
        while (n > 0 && out->n < SIGNATURE_BYTES) {
                size_t room = SIGNATURE_BYTES - out->n < 8192 ? SIGNATURE_BYTES - out->n : 8192;

                if (!buf_reserve(out, room)) {
                        err_nomem(e);
                        n = -1;
                        break;
                }
                n = reader_read(r, out->p + out->n, room, e);
                out->n += n > 0 ? (size_t)n : 0;
        }
        reader_close(r);
        return n >= 0;
}

static bool check_clear(struct part *p, struct signature_check *c, struct signature *out, struct err *e)
{
        struct crlf *content = arena_alloc(p->m->a, sizeof *content);
        struct buf cms = BUF_INIT;
        bool ok;

        if (!content)
                return err_nomem(e);
        content->r = part_entity(p->child);
        c->read = read_crlf;
        c->ctx = content;
        ok = read_signature(p->child->next, &cms, e);
        c->cms = buf_str(&cms);
        ok = ok && signature_check(c, p->m->a, out, e);
        buf_free(&cms);
        return ok;
}

bool part_signature(struct part *p, struct str ca, int64_t at, bool *found, struct signature *out, struct err *e)
{
        struct signature_check c = { .ca = ca, .at = at };
        struct part *by;

        message_open_leaves(p->m, &(struct part **){ NULL });
        by = signed_around(p);
        *found = by != NULL;
        if (!by)
                return true;
        if (!by->cms.in)
                return check_clear(by, &c, out, e);
        return range_in_memory(by->cms, &c.cms) ? signature_check(&c, p->m->a, out, e) : err_set(e, ERR_IO, "a signature is not in memory");
}
