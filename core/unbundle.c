#include "core/unbundle.h"

#include <errno.h>
#include <fcntl.h>

#include "core/mem.h"
#include "core/sys.h"

enum { PIECE = 32 << 10 }; /* a read that meets the place where an archive is damaged loses what it had before: not more than this */

struct unbundle {
        struct unpack *lib;
        struct unbundle *outer; /* that this one is a member of, or NULL */
        struct slurp in;       /* compressed */
        uint64_t start, at;    /* in a file: where it begins, what is read next */
        bool head_given;       /* of a stream */
        uint64_t taken, given; /* bytes, compressed and not */
        uint64_t members;
        bool broken, single;   /* single: the member is all that there is, compressed and not packed */
        struct err failed;     /* of reading the current member: it stays so */
};

bool unbundle_is(struct str head)
{
        enum unpack_kind kind = unpack_kind_of(head);

        return kind != UNPACK_NONE && kind != UNPACK_7Z;
}

bool unbundle_is_compressed(struct str head)
{
        return unpack_is_compressed(unpack_kind_of(head));
}

/* ---- the input ---- */

static ssize_t read_file(struct unbundle *u, struct err *e)
{
        size_t want = u->in.size - u->at < SLURP_BLOCK ? (size_t)(u->in.size - u->at) : SLURP_BLOCK;
        ssize_t got = want ? sys_pread_full(u->in.fd, u->in.p, want, u->at, e) : 0;

        if (got > 0)
                u->at += (uint64_t)got;
        return got;
}

static ssize_t read_stream(struct unbundle *u, struct err *e)
{
        if (u->head_given && !slurp_more(&u->in, u->in.n, e))
                return -1;
        u->head_given = true;
        return (ssize_t)u->in.n;
}

static ssize_t on_read(void *ctx, const char **block, struct err *e)
{
        struct unbundle *u = ctx;
        ssize_t got = u->in.seekable ? read_file(u, e) : read_stream(u, e);

        *block = u->in.p;
        u->taken += got > 0 ? (uint64_t)got : 0;
        return got;
}

static void on_seek(void *ctx, uint64_t to)
{
        struct unbundle *u = ctx;

        u->at = u->start + to;
}

/* ---- */

static bool start(struct unbundle *u, struct err *e)
{
        struct unpack_input in = { .read = on_read, .ctx = u };

        u->start = u->at = u->in.base;
        if (u->in.seekable) {
                in.seek = on_seek;
                in.size = u->in.size - u->start;
        }
        u->lib = unpack_open(&in, unpack_kind_of(str_make(u->in.p, u->in.n)), e);
        return u->lib != NULL;
}

struct unbundle *unbundle_open(struct slurp *in, struct err *e)
{
        struct unbundle *u = mem_zero(sizeof *u);

        if (!u) {
                slurp_close(in);
                err_nomem(e);
                return NULL;
        }
        u->in = *in;
        *in = SLURP_NONE;
        if (start(u, e))
                return u;
        unbundle_close(u);
        return NULL;
}

void unbundle_within(struct unbundle *u, struct unbundle *outer)
{
        u->outer = outer;
}

struct unbundle *unbundle_again(const struct unbundle *u, struct err *e)
{
        struct slurp in = SLURP_NONE;
        int fd;

        if (!u->in.seekable) {
                err_set(e, ERR_ABSENT, "it can be read only once");
                return NULL;
        }
        if ((fd = fcntl(u->in.fd, F_DUPFD_CLOEXEC, 3)) < 0) {
                err_sys(e, ERR_IO, errno, "reading it again");
                return NULL;
        }
        if (slurp_open(&in, fd, e) && slurp_more(&in, 0, e)) /* reading went by offset: that of fd is where it began */
                return unbundle_open(&in, e);
        slurp_close(&in);
        return NULL;
}

void unbundle_close(struct unbundle *u)
{
        if (!u)
                return;
        unpack_close(u->lib);
        slurp_close(&u->in);
        mem_free(u);
}

bool unbundle_next(struct unbundle *u, struct unpack_member *out, struct err *e)
{
        u->failed.code = ERR_NONE;
        if (!unpack_next(u->lib, out, e))
                return false;
        if (out->end && u->single && !unpack_rest_is_empty(u->lib, e)) {
                u->broken = true;
                return false;
        }
        u->single = !out->end && !out->name.p;
        if (!out->end && u->members++ == UNBUNDLE_MEMBERS)
                return err_set(e, ERR_LIMIT, "it has more than %d members; unpack it first", UNBUNDLE_MEMBERS);
        return true;
}

ssize_t unbundle_read(void *unbundle, void *p, size_t n, struct err *e)
{
        struct unbundle *u = unbundle;
        ssize_t got;

        if (u->failed.code != ERR_NONE) {
                *e = u->failed;
                return -1;
        }
        if ((got = unpack_read(u->lib, p, n < PIECE ? n : PIECE, e)) < 0) {
                u->failed = *e;
                return -1;
        }
        for (struct unbundle *v = u; v; v = v->outer) {
                v->given += (uint64_t)got;
                if (v->given > (uint64_t)UNBUNDLE_FREE_MIB << 20 && v->given / UNBUNDLE_RATIO > v->taken) {
                        v->broken = u->broken = true;
                        err_set(e, ERR_LIMIT, "it expands to more than %d times its size; if that is right, unpack it first", UNBUNDLE_RATIO);
                        return -1;
                }
        }
        return got;
}

bool unbundle_broken(const struct unbundle *u)
{
        return u->broken || unpack_broken(u->lib);
}

uint64_t unbundle_size(const struct unbundle *u)
{
        return u->in.seekable ? u->in.size - u->start : 0;
}

uint64_t unbundle_done(const struct unbundle *u)
{
        return u->in.seekable ? u->at - u->start : u->taken;
}
