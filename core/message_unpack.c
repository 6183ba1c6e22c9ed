/* Archives that were sent: a file each, until someone asks for what is in it.
 *
 * One pass reads an archive from its front to its end, when it is first asked for, and keeps what its members hold; from then on they are
 * ranges as other parts are. So the cost is linear in whatever order a script looks at them, nothing is unpacked twice, and damage, keys
 * and limits are known before anything is decided. Whoever made the archive chose names, sizes and kinds: names are only names, sizes are
 * counted and not believed, what is no file is left out. */
#include "core/message_int.h"

#include "core/charset.h"
#include "core/filename.h"
#include "core/mem.h"
#include "core/unpack.h"

enum { STEP = 64 * 1024, ZIP_END = 22, ZIP_TAIL = 65536 + ZIP_END };

/* ---- the archive's bytes ---- */

struct input {
        struct reader *r;       /* read forward */
        struct range range;     /* or by offset */
        uint64_t at;
        bool failed;            /* the machine, not the archive */
        char block[STEP];
};

static ssize_t on_read(void *ctx, const char **block, struct err *e)
{
        struct input *in = ctx;
        ssize_t got = in->r ? reader_read(in->r, in->block, STEP, e) : range_read(in->range, in->at, in->block, STEP, e);

        *block = in->block;
        in->failed |= got < 0;
        in->at += got > 0 ? (uint64_t)got : 0;
        return got;
}

static void on_seek(void *ctx, uint64_t to)
{
        struct input *in = ctx;

        in->at = to;
}

/* All decoded bytes where they can be read by offset: they are no larger than they are encoded, so they don't count as opened. */
static bool decode(struct part *p, struct input *in, struct err *e)
{
        struct spilling w;
        ssize_t n = -1;
        bool ok = true;

        spilling_begin(&w, &p->m->spill);
        while (ok && (n = reader_read(in->r, in->block, STEP, e)) > 0)
                ok = spilling_add(&w, str_make(in->block, (size_t)n), e);
        ok = ok && n == 0 && spilling_end(&w, &in->range, e);
        spilling_drop(&w);
        return ok;
}

static bool is_plain(const struct part *p)
{
        return p->mime->encoding == MIME_IDENTITY || p->mime->encoding == MIME_UNKNOWN;
}

/* The first bytes of p. */
static bool look(struct part *p, char head[UNPACK_HEAD], enum unpack_kind *kind, struct err *e)
{
        struct reader *r = part_open(p, e);
        size_t used = 0;
        ssize_t n = r ? 1 : -1;

        while (n > 0 && used < UNPACK_HEAD) {
                n = reader_read(r, head + used, UNPACK_HEAD - used, e);
                used += n > 0 ? (size_t)n : 0;
        }
        reader_close(r);
        *kind = unpack_kind_of(str_make(head, used));
        return n >= 0;
}

static bool input_open(struct input *in, struct part *p, enum unpack_kind kind, struct err *e)
{
        in->r = NULL;
        in->failed = false;
        in->at = 0;
        in->range = p->body;
        if (!unpack_is_compressed(kind) && is_plain(p))
                return true;
        in->r = part_open(p, e);
        if (!in->r || unpack_is_compressed(kind))
                return in->r != NULL;
        if (!decode(p, in, e))
                return false;
        reader_close(in->r);
        in->r = NULL;
        return true;
}

/* A zip ends with its directory. What is cut off before it is still readable from the front, and seems whole to the library. */
static bool zip_ends(struct range r, bool *found, struct err *e)
{
        uint64_t n = r.n < ZIP_TAIL ? r.n : ZIP_TAIL;
        char *tail = mem_alloc(ZIP_TAIL);
        ssize_t got = tail ? range_read(r, r.n - n, tail, (size_t)n, e) : -1;

        if (!tail)
                err_nomem(e);
        *found = got >= ZIP_END && str_find_str(str_make(tail, (size_t)got), STR("PK\5\6")) <= (size_t)got - ZIP_END;

        mem_free(tail);
        return got >= 0;
}

/* ---- names ---- */

static bool speaks(struct str charset, const char *const *names)
{
        for (; *names; names++)
                if (str_starts(charset, str_of(*names)))
                        return true;
        return false;
}

/* What the sender's mail is written in tells which code page its machine has. */
static struct str page_of_mail(struct message *m)
{
        static const char *const japanese[] = { "iso-2022-jp", "shift_jis", "x-sjis", "euc-jp", "cp932", "windows-31j", NULL };
        static const char *const chinese[] = { "gb", "hz-gb", NULL }, *const taiwanese[] = { "big5", NULL };
        static const char *const korean[] = { "euc-kr", "ks_c", "iso-2022-kr", NULL };
        static const char *const russian[] = { "koi8-r", "windows-1251", "iso-8859-5", "cp866", NULL };

        for (size_t i = 0; i < m->leaves_n && i < 8; i++) {
                struct str charset = part_charset(m->leaves[i]);

                if (speaks(charset, japanese))
                        return STR("cp932");
                if (speaks(charset, chinese))
                        return STR("gb18030");
                if (speaks(charset, taiwanese))
                        return STR("big5");
                if (speaks(charset, korean))
                        return STR("cp949");
                if (speaks(charset, russian))
                        return STR("cp866");
        }
        return STR_NONE;
}

static bool is_lead(unsigned char c)
{
        return (c >= 0x81 && c <= 0x9f) || (c >= 0xe0 && c <= 0xfc);
}

static bool is_kana(unsigned char lead, unsigned char trail)
{
        return (lead == 0x82 && trail >= 0x9f && trail <= 0xf1) || (lead == 0x83 && trail >= 0x40 && trail <= 0x96);
}

/* Shift-JIS throughout, and with two characters of two bytes side by side of which one is a kana or has no letter as its second byte:
 * what code page 437 has there are single accented letters between plain ones. */
static bool looks_japanese(struct str s)
{
        bool found = false, after = false;

        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i], next = i + 1 < s.n ? (unsigned char)s.p[i + 1] : 0;

                if (c < 0x80 || (c >= 0xa1 && c <= 0xdf)) {
                        after = false;
                        continue;
                }
                if (!is_lead(c) || next < 0x40 || next == 0x7f || next > 0xfc)
                        return false;
                found |= after && (is_kana(c, next) || next >= 0x80);
                after = true;
                i++;
        }
        return found;
}

/* Neither zip nor tar says what names are in. UTF-8 is never anything else by chance; else it is as the mail, and else as DOS had it. */
static struct str name_of(struct message *m, struct str raw)
{
        struct buf b = BUF_INIT;
        struct str page, s;

        if (utf8_valid(raw))
                return raw.n ? arena_str(m->a, utf8_cut(raw, NAME_MAX_KEPT)) : STR("");
        page = page_of_mail(m);
        if (!page.p)
                page = looks_japanese(raw) ? STR("cp932") : STR("cp437");
        s = charset_to_utf8(page, raw, &b, NULL, NULL) ? arena_str(m->a, utf8_cut(buf_str(&b), NAME_MAX_KEPT)) : STR_NONE;
        buf_free(&b);
        return s;
}

static struct str last_component(struct str path)
{
        size_t at = path.n;

        while (at > 0 && path.p[at - 1] != '/' && path.p[at - 1] != '\\')
                at--;
        return str_from(path, at);
}

static const struct { const char *end, *instead; } endings[] = {
        { ".tgz", ".tar" }, { ".tbz", ".tar" }, { ".tbz2", ".tar" }, { ".txz", ".tar" }, { ".tzst", ".tar" },
        { ".gz", "" }, { ".xz", "" }, { ".zst", "" }, { ".bz2", "" }, { ".zip", NULL }, { ".tar", NULL }, { ".7z", NULL },
};
enum { ENDINGS = sizeof endings / sizeof *endings };

/* What was only compressed has the name of the file without the ending, as gunzip would call it. */
static struct str name_without(struct part *p)
{
        struct str name = part_name(p);

        for (size_t i = 0; i < ENDINGS; i++)
                if (endings[i].instead && str_ends_nocase(name, str_of(endings[i].end)))
                        return arena_printf(p->m->a, "%.*s%s", (int)(name.n - strlen(endings[i].end)), name.p, endings[i].instead);
        return name;
}

/* ---- members ---- */

struct opening {
        struct part *p;
        struct unpack *u;
        char *block;
        bool whole;             /* all that is in it could be had */
        bool full;              /* no more may be opened */
        bool nested;            /* what it holds is compressed itself */
        bool single, once;      /* tried again as one file; as one that is compressed itself */
};

static void flaw(struct opening *o, const char *defect)
{
        o->whole = false;
        message_add_defect(o->p->m, defect);
}

static bool add_member(struct opening *o, const struct unpack_member *in, struct range body, struct err *e)
{
        struct message *m = o->p->m;
        struct str path = in->name.p ? name_of(m, in->name) : name_without(o->p);
        struct facts f = { .type = STR("application/octet-stream"), .name = last_component(path), .disposition = STR("attachment") };
        struct part *member;

        if (in->name.p && !path.p)
                return err_nomem(e);
        if (!f.name.n)
                f.name = STR_NONE;
        member = part_make(o->p, &f, body);
        if (!member)
                return err_nomem(e);
        member->member = path.p ? path : STR("");
        member->locked = in->encrypted;
        member->index = ++m->numbers;
        return true;
}

/* The content into w. False with *damaged: not the machine's fault. */
static bool read_content(struct opening *o, struct spilling *w, bool *damaged, struct err *e)
{
        uint64_t most = budget_bytes(o->p->m);
        ssize_t n;

        while ((n = unpack_read(o->u, o->block, STEP, e)) > 0) {
                if (w->n + (uint64_t)n > most) {
                        o->full = true;
                        return true;
                }
                if (!spilling_add(w, str_make(o->block, (size_t)n), e))
                        return false;
        }
        *damaged = n < 0 && !unpack_input_failed(o->u);
        return n == 0;
}

static bool add_file(struct opening *o, const struct unpack_member *in, struct err *e)
{
        struct message *m = o->p->m;
        bool damaged = false, ok;
        struct spilling w;
        struct range body;

        spilling_begin(&w, &m->spill);
        ok = read_content(o, &w, &damaged, e);
        m->opened_bytes += w.n; /* also of what is not kept: the work was done */
        if (ok && !o->full)
                ok = spilling_end(&w, &body, e) && add_member(o, in, body, e);
        spilling_drop(&w);
        if (!damaged)
                return ok;
        flaw(o, "archive.broken");
        return true;
}

static bool take_member(struct opening *o, const struct unpack_member *in, struct err *e)
{
        struct range nothing = { NULL, 0, 0 };

        if (in->kind == MEMBER_DIRECTORY)
                return true;
        if (in->kind == MEMBER_OTHER) {
                flaw(o, "archive.special");
                return true;
        }
        if (!in->encrypted)
                return add_file(o, in, e);
        flaw(o, "archive.encrypted");
        o->p->locked = true;
        return add_member(o, in, nothing, e);
}

/* The archive can't be read on: its own fault, or the machine's. */
static bool give_up(struct opening *o, const struct err *e)
{
        if (e->code == ERR_NOMEM || unpack_input_failed(o->u))
                return false;
        if (unpack_is_locked(o->u)) {
                o->p->locked = true;
                flaw(o, "archive.encrypted");
        } else if (e->code == ERR_LIMIT && unpack_is_nested(o->u))
                o->nested = true;
        else if (e->code == ERR_LIMIT)
                o->full = true;
        else
                flaw(o, "archive.broken");
        return true;
}

/* Directories and what is left out count as well: a million of them is as long a list. */
static bool take_members(struct opening *o, struct err *e)
{
        unsigned most = budget_parts(o->p->m);
        struct unpack_member in;

        for (unsigned n = 0; !o->full; n++) {
                if (!unpack_next(o->u, &in, e))
                        return give_up(o, e);
                if (in.end)
                        return true;
                if (n == most)
                        o->full = true;
                else if (!take_member(o, &in, e))
                        return false;
                else if (unpack_broken(o->u))
                        return true;
        }
        return true;
}

static bool open_with(struct opening *o, struct input *in, enum unpack_kind kind, struct err *e)
{
        struct unpack_input from = { .read = on_read, .sent = true, .single = o->single, .once = o->once, .ctx = in };
        bool ok, ends = true;

        if (!in->r) {
                from.seek = on_seek;
                from.size = in->range.n;
        }
        if (kind == UNPACK_ZIP && !zip_ends(in->range, &ends, e))
                return false;
        if (!ends)
                flaw(o, "archive.broken");
        o->u = unpack_open(&from, kind, e);
        o->nested = !o->u && e->code == ERR_LIMIT && unpack_is_compressed(kind) && !o->once;
        if (o->nested)
                return true;
        if (!o->u && e->code != ERR_NOMEM && !in->failed) {
                flaw(o, e->code == ERR_LIMIT ? "limit.opened" : "archive.broken");
                return true;
        }
        ok = o->u && take_members(o, e);
        unpack_close(o->u);
        o->u = NULL;
        if (o->full)
                flaw(o, "limit.opened");
        return ok;
}

/* The library takes 512 zeros for a tar with nothing in it; it may be a file of zeros. And a file that is compressed in one that is
 * compressed it would take for one: the inner is a file like any other, and opened in its turn. */
static bool open_again(struct opening *o, struct input *in, enum unpack_kind kind, struct err *e)
{
        o->once = o->nested;
        o->single = !o->nested;
        o->nested = false;
        reader_close(in->r);
        return input_open(in, o->p, kind, e) && open_with(o, in, kind, e);
}

static bool open_archive(struct part *p, enum unpack_kind kind, struct err *e)
{
        struct opening o = { .p = p, .whole = true, .block = mem_alloc(STEP) };
        struct input *in = mem_alloc(sizeof *in);
        bool ok = (o.block && in) || err_nomem(e);

        if (in)
                in->r = NULL;
        ok = ok && input_open(in, p, kind, e);
        p->packed = PACKED_PARTLY;
        ok = ok && open_with(&o, in, kind, e);
        if (ok && o.whole && !p->child && in->r)
                ok = open_again(&o, in, kind, e);
        if (ok && o.whole && p->child)
                p->packed = PACKED_WHOLE;
        if (in)
                reader_close(in->r);
        mem_free(in);
        mem_free(o.block);
        return ok;
}

/* Once. Whether it is an archive that was opened, if only in part. */
static bool unpack_part(struct part *p)
{
        char head[UNPACK_HEAD];
        enum unpack_kind kind;
        struct err e;

        if (p->packed != PACKED_UNKNOWN)
                return p->packed != PACKED_NOT;
        message_open_leaves(p->m, &(struct part **){ NULL }); /* numbers of wrappers' contents come before those of members */
        p->packed = PACKED_NOT;
        if (!part_is_leaf(p) || p->child || p->locked)
                return false;
        if (!look(p, head, &kind, &e) || (kind != UNPACK_NONE && budget_allows(p) && !open_archive(p, kind, &e)))
                message_fail(p->m, &e);
        return p->packed != PACKED_NOT;
}

/* ---- what is called an archive ---- */

static bool is_any(struct str s, const char *const *words)
{
        for (; *words; words++)
                if (str_eq(s, str_of(*words)))
                        return true;
        return false;
}

static bool is_archive_type(struct str type)
{
        static const char *const words[] = { "application/zip", "application/x-zip", "application/x-zip-compressed", "application/gzip",
                "application/x-gzip", "application/x-tar", "application/x-gtar", "application/x-compressed-tar", "application/x-bzip2",
                "application/x-bzip", "application/x-bzip-compressed-tar", "application/x-xz", "application/x-xz-compressed-tar",
                "application/zstd", "application/x-zstd", "application/x-7z-compressed", "application/x-gzip-compressed",
                "application/x-compressed", "application/x-tgz", NULL };

        return is_any(type, words);
}

bool part_is_archive(struct part *p)
{
        static const char *const generic[] = { "application/octet-stream", "application/x-unknown", "application/binary", NULL };
        struct str name = part_name(p), type = part_type(p), stem, ext;

        for (size_t i = 0; i < ENDINGS; i++)
                if (str_ends_nocase(name, str_of(endings[i].end)))
                        return true;
        filename_split(name.p ? name : STR(""), &stem, &ext);
        if (ext.n || (!is_archive_type(type) && !is_any(type, generic)))
                return false;
        return is_archive_type(part_detected(p));
}

bool part_is_lumber(const struct part *p)
{
        static const char *const words[] = { ".DS_Store", "Thumbs.db", "desktop.ini", NULL };

        return p->member.p && (str_starts(p->member, STR("__MACOSX/")) || str_starts(p->name, STR("._")) || is_any(p->name, words));
}

/* ---- lists ---- */

struct part_list {
        struct part **p;
        size_t n, cap;
};

static bool list_add(struct part_list *l, struct part *p)
{
        if (l->n == l->cap) {
                size_t cap = l->cap ? l->cap * 2 : 32;
                struct part **more = mem_resize(l->p, cap * sizeof *more);

                if (!more)
                        return false;
                l->p = more;
                l->cap = cap;
        }
        l->p[l->n++] = p;
        return true;
}

/* Into the arena; 0 when out of memory. */
static size_t list_end(struct part_list *l, bool ok, struct message *m, struct part ***out)
{
        size_t n = ok ? l->n : 0;

        *out = arena_alloc(m->a, (n + 1) * sizeof **out);
        if (*out && n)
                memcpy(*out, l->p, n * sizeof **out);
        if (!*out || !ok)
                message_nomem(m);
        mem_free(l->p);
        return *out ? n : 0;
}

/* All below top, wrappers and archives opened on the way; top itself has been. */
static size_t list_unpacked(struct part *top, bool attached, struct part ***out)
{
        struct part_list l = { 0 };
        bool ok = true;

        for (struct part *p = part_next(top, top, true); ok && p; p = part_next(p, top, true)) {
                part_unwrap(p);
                if (!part_is_leaf(p))
                        continue;
                if (p->index == 0)
                        p->index = ++top->m->numbers;
                if (p->child && p->packed == PACKED_UNKNOWN) { /* a wrapper that is a leaf as well */
                        ok = !(!attached || part_attached(p, NULL)) || list_add(&l, p);
                        continue;
                }
                if (part_is_archive(p))
                        unpack_part(p);
                if (p->packed != PACKED_WHOLE && (!attached || part_attached(p, NULL)))
                        ok = list_add(&l, p);
        }
        return list_end(&l, ok, top->m, out);
}

size_t message_unpacked(struct message *m, struct part ***out)
{
        if (!m->unpacked) {
                message_open_leaves(m, out);
                m->unpacked_n = list_unpacked(&m->whole, true, &m->unpacked);
        }
        *out = m->unpacked;
        return m->unpacked_n;
}

size_t part_members(struct part *p, struct part ***out)
{
        struct part_list l = { 0 };
        bool ok = true;

        if (unpack_part(p))
                for (struct part *c = p->child; ok && c; c = c->next)
                        ok = list_add(&l, c);
        return list_end(&l, ok, p->m, out);
}

size_t part_unpacked(struct part *p, struct part ***out)
{
        unpack_part(p);
        return list_unpacked(p, false, out);
}

/* ---- what a part says ---- */

struct str part_member(struct part *p)
{
        return p->member;
}

bool part_readable(const struct part *p, struct err *e)
{
        if (!p->locked || !p->member.p || p->packed >= PACKED_PARTLY)
                return true;
        return err_set(e, ERR_REFUSED, "'%.*s' is encrypted in its archive: nothing of it can be read (part.encrypted)", STR_FMT(p->member));
}

static bool is_encrypted_type(struct str type)
{
        static const char *const words[] = { "multipart/encrypted", "application/pgp-encrypted", NULL };

        return is_any(type, words);
}

bool part_encrypted(struct part *p)
{
        struct str type = part_type(p);

        if (is_encrypted_type(type) || (p->parent && p->parent->mime && str_eq(p->parent->mime->type, STR("multipart/encrypted"))))
                return true;
        if (!part_is_leaf(p))
                return false;
        message_open_leaves(p->m, &(struct part **){ NULL });
        if (part_is_leaf(p) && !p->locked && part_is_archive(p))
                unpack_part(p);
        return p->locked;
}
