#include "core/packedmh.h"

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"

enum {
        NUMBER_DIGITS = 18,       /* of a message's name */
        BYTES_MAX = 8 << 20,      /* of all .mh_sequences: twice what the largest folder known to be has */
        FOLDERS_MAX = 10000,
};

static struct str last_of(struct str path)
{
        size_t slash = str_rfind(path, '/');

        return slash == path.n ? path : str_from(path, slash + 1);
}

bool packedmh_is_number(struct str file, uint64_t *number)
{
        return file.n > 0 && file.n <= NUMBER_DIGITS && *file.p != '0' && str_to_u64(file, UINT64_MAX, number);
}

bool packedmh_is_sequences(struct str file)
{
        return str_eq(file, STR(".mh_sequences"));
}

/* "./inbox/", "/inbox/" and "inbox/" are one. */
static struct str plain(struct str dir)
{
        while (str_starts(dir, STR("./")) || str_starts(dir, STR("/")))
                dir = str_from(dir, *dir.p == '/' ? 1 : 2);
        return dir;
}

static bool read_all(struct unbundle *u, uint64_t room, struct buf *text, struct err *e)
{
        char block[4096];
        ssize_t got;

        while ((got = unbundle_read(u, block, sizeof block, e)) > 0) {
                if (text->n + (size_t)got > room)
                        return err_set(e, ERR_LIMIT, "larger than %d bytes", BYTES_MAX);
                if (!buf_add(text, block, (size_t)got))
                        return err_nomem(e);
        }
        return got == 0;
}

static void free_sequences(void *s)
{
        sequences_free(s);
        mem_free(s);
}

static bool keep(struct packedmh *p, struct str dir, struct str text, struct err *e)
{
        struct sequences *s = mem_zero(sizeof *s);
        void *old = NULL;
        bool ok = s && (p->folders || (p->folders = map_new()));

        if (ok && (!sequences_read(s, text, e) || !map_set(p->folders, plain(dir), s, &old)))
                ok = false;
        if (!ok) {
                if (s)
                        free_sequences(s);
                return err_nomem(e);
        }
        if (old)
                free_sequences(old);
        return true;
}

bool packedmh_take(struct packedmh *p, struct unbundle *u, struct str dir, struct err *e)
{
        struct err why = { 0 };
        struct buf text = BUF_INIT;
        bool ok = true;

        if (p->folders && map_count(p->folders) >= FOLDERS_MAX)
                err_set(&why, ERR_LIMIT, "more than %d folders", FOLDERS_MAX);
        else if (read_all(u, BYTES_MAX - p->bytes, &text, &why))
                ok = keep(p, dir, buf_str(&text), &why);
        p->bytes += text.n < BYTES_MAX - p->bytes ? text.n : BYTES_MAX - p->bytes;
        buf_free(&text);
        if (why.code == ERR_NONE)
                return ok;
        if (!ok || why.code == ERR_NOMEM || unbundle_broken(u)) {
                *e = why;
                return false;
        }
        log_warn("%.*s.mh_sequences: %s; which messages are new there is not known", STR_FMT(plain(dir)), why.text);
        return true;
}

/* Damage ends the look, and shows again where the messages are read. */
static bool look_through(struct packedmh *p, struct unbundle *u, bool (*stopped)(const void *), const void *ctx, struct err *e)
{
        struct unpack_member m;
        struct err why = { 0 };

        while (!stopped(ctx) && unbundle_next(u, &m, &why) && !m.end) {
                struct str file = m.name.p ? last_of(m.name) : STR("");

                if (m.kind != MEMBER_FILE || m.encrypted || !packedmh_is_sequences(file))
                        continue;
                if (!packedmh_take(p, u, str_first(m.name, m.name.n - file.n), &why))
                        break;
        }
        if (why.code != ERR_NOMEM)
                return true;
        *e = why;
        return false;
}

bool packedmh_look(struct packedmh *p, const struct unbundle *u, bool (*stopped)(const void *), const void *ctx, struct err *e)
{
        struct unbundle *again;
        bool ok;

        if (p->looked)
                return true;
        p->looked = true;
        if (!(again = unbundle_again(u, e)))
                return e->code == ERR_ABSENT; /* a stream */
        ok = look_through(p, again, stopped, ctx, e);
        unbundle_close(again);
        return ok;
}

const struct sequences *packedmh_find(const struct packedmh *p, struct str dir)
{
        return p->folders ? map_get(p->folders, plain(dir)) : NULL;
}

void packedmh_free(struct packedmh *p)
{
        if (p->folders)
                map_free(p->folders, free_sequences);
        *p = (struct packedmh){ .folders = NULL };
}
