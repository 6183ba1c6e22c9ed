#include "core/unpack_int.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"

enum { TAR_BLOCK = UNPACK_HEAD, TAR_SUM = 148, TAR_SUM_BYTES = 8 };

struct unpack {
        struct archive *lib;
        struct unpack_input in;
        uint64_t at;           /* what is read next */
        struct str block;      /* what was read last */
        enum unpack_kind kind;
        bool broken;
        struct err failed;     /* of reading the input; the library only says that it failed */
        locale_t locale;       /* names in UTF-8, whatever the locale of the process */
};

/* ---- what it is, by its first bytes ---- */

/* The header of a tar holds the sum of its own bytes, with blanks for the sum. */
static bool is_tar(struct str head)
{
        unsigned long sum = 0, said = 0;
        bool digits = false;

        if (head.n < TAR_BLOCK || *head.p == '\0')
                return false;
        for (size_t i = TAR_SUM; i < TAR_SUM + TAR_SUM_BYTES; i++) {
                if (head.p[i] >= '0' && head.p[i] <= '7') {
                        said = said * 8 + (unsigned long)(head.p[i] - '0');
                        digits = true;
                } else if (digits || head.p[i] != ' ')
                        break;
        }
        for (size_t i = 0; digits && i < TAR_BLOCK; i++) /* text mostly has none there */
                sum += i >= TAR_SUM && i < TAR_SUM + TAR_SUM_BYTES ? ' ' : (unsigned char)head.p[i];
        return digits && sum == said;
}

static bool is_zip(struct str head)
{
        return str_starts(head, STR("PK\3\4")) || str_starts(head, STR("PK\5\6")) || str_starts(head, STR("PK\7\10PK\3\4"));
}

static bool is_zstd(struct str head)
{
        bool skippable = head.n >= 4 && (head.p[0] & 0xf0) == 0x50 && str_starts(str_from(head, 1), STR("\x2a\x4d\x18"));

        return skippable || str_starts(head, STR("\x28\xb5\x2f\xfd"));
}

static bool is_bzip2(struct str head)
{
        struct str first = str_from(head, 4);

        return str_starts(head, STR("BZh")) && head.n >= 10 &&
               (str_starts(first, STR("1AY&SY")) || str_starts(first, STR("\x17\x72\x45\x38\x50\x90")));
}

enum unpack_kind unpack_kind_of(struct str head)
{
        if (str_starts(head, STR("\x1f\x8b\x08")))
                return UNPACK_GZIP;
        if (str_starts(head, STR("\xfd" "7zXZ\0")))
                return UNPACK_XZ;
        if (is_zstd(head))
                return UNPACK_ZSTD;
        if (is_bzip2(head))
                return UNPACK_BZIP2;
        if (is_zip(head))
                return UNPACK_ZIP;
        if (str_starts(head, STR("7z\xbc\xaf\x27\x1c")))
                return UNPACK_7Z;
        return is_tar(head) ? UNPACK_TAR : UNPACK_NONE;
}

bool unpack_is_compressed(enum unpack_kind kind)
{
        return kind >= UNPACK_GZIP && kind <= UNPACK_BZIP2;
}

/* ---- the input, as the library asks for it ---- */

static la_ssize_t on_read(struct archive *lib, void *ctx, const void **block)
{
        struct unpack *u = ctx;
        const char *p = NULL;
        ssize_t got = u->in.read(u->in.ctx, &p, &u->failed);

        *block = p;
        if (got < 0) {
                archive_set_error(lib, EIO, "%s", u->failed.text);
                return ARCHIVE_FATAL;
        }
        u->at += (uint64_t)got;
        if (got > 0)
                u->block = str_make(p, (size_t)got);
        return (la_ssize_t)got;
}

static la_int64_t on_skip(struct archive *lib, void *ctx, la_int64_t n)
{
        struct unpack *u = ctx;
        uint64_t left = u->at < u->in.size ? u->in.size - u->at : 0;

        (void)lib;
        if (n < 0)
                return 0;
        if ((uint64_t)n > left)
                n = (la_int64_t)left;
        u->at += (uint64_t)n;
        u->in.seek(u->in.ctx, u->at);
        return n;
}

static la_int64_t on_seek(struct archive *lib, void *ctx, la_int64_t to, int whence)
{
        struct unpack *u = ctx;
        la_int64_t size = (la_int64_t)u->in.size, from = 0;

        (void)lib;
        if (whence != SEEK_SET)
                from = whence == SEEK_CUR ? (la_int64_t)u->at : size;
        if (to < -from || to > size - from)
                return ARCHIVE_FATAL;
        u->at = (uint64_t)(from + to);
        u->in.seek(u->in.ctx, u->at);
        return from + to;
}

/* ---- */

static bool failed(struct unpack *u, int status, struct err *e)
{
        const char *why = archive_error_string(u->lib);

        u->broken |= status == ARCHIVE_FATAL;
        if (archive_errno(u->lib) == ENOMEM)
                return err_set(e, ERR_LIMIT, "it needs more memory to unpack than it can have"); /* its own demand: a dictionary */
        if (u->failed.code != ERR_NONE) {
                *e = u->failed;
                return false;
        }
        return err_set(e, ERR_IO, "it is damaged or cut off: %s", why ? why : "no reason is known");
}

/* A format that looks whether the input is its own takes a failure to read for a no: nothing that is found after one can be relied on. */
static bool went_well(const struct unpack *u, int status)
{
        return status >= ARCHIVE_WARN && u->failed.code == ERR_NONE;
}

/* Only the filter that the first bytes show, and only where the library decodes it itself (it warns when it would start a program). An
 * appended one (archive_read_append_filter) would not do: damage in its first block is then taken for emptiness. */
static bool choose_filter(struct unpack *u)
{
        static int (*const filters[])(struct archive *) = {
                [UNPACK_GZIP] = archive_read_support_filter_gzip, [UNPACK_XZ] = archive_read_support_filter_xz,
                [UNPACK_ZSTD] = archive_read_support_filter_zstd, [UNPACK_BZIP2] = archive_read_support_filter_bzip2,
        };

        return filters[u->kind](u->lib) == ARCHIVE_OK && archive_read_support_format_raw(u->lib) == ARCHIVE_OK &&
               archive_read_support_format_empty(u->lib) == ARCHIVE_OK &&
               (u->in.single || (archive_read_support_format_tar(u->lib) == ARCHIVE_OK &&
                                 archive_read_support_format_zip(u->lib) == ARCHIVE_OK));
}

/* Here the first block is known to be good. */
static bool choose_one_filter(struct unpack *u)
{
        static const int filters[] = {
                [UNPACK_GZIP] = ARCHIVE_FILTER_GZIP, [UNPACK_XZ] = ARCHIVE_FILTER_XZ, [UNPACK_ZSTD] = ARCHIVE_FILTER_ZSTD,
                [UNPACK_BZIP2] = ARCHIVE_FILTER_BZIP2,
        };

        return archive_read_append_filter(u->lib, filters[u->kind]) == ARCHIVE_OK &&
               archive_read_support_format_raw(u->lib) == ARCHIVE_OK && archive_read_support_format_empty(u->lib) == ARCHIVE_OK;
}

static bool choose_format(struct unpack *u)
{
        if (unpack_is_compressed(u->kind) && u->in.once)
                return choose_one_filter(u);
        if (unpack_is_compressed(u->kind))
                return choose_filter(u);
        if (u->kind == UNPACK_ZIP)
                return archive_read_support_format_zip(u->lib) == ARCHIVE_OK;
        if (u->kind == UNPACK_7Z)
                return archive_read_support_format_7zip(u->lib) == ARCHIVE_OK;
        return archive_read_support_format_tar(u->lib) == ARCHIVE_OK;
}

static bool nested(struct err *e)
{
        return err_set(e, ERR_LIMIT, "it is compressed more than once; unpack it first");
}

static bool start(struct unpack *u, struct err *e)
{
        int status;

        if (!(u->lib = archive_read_new()) || !(u->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0)))
                return err_nomem(e);
        if (!choose_format(u))
                return failed(u, ARCHIVE_FATAL, e);
        if (u->kind == UNPACK_7Z && !u->in.seek)
                return err_set(e, ERR_IO, "a 7z cannot be read from the front to the end");
        if (u->kind == UNPACK_7Z && !unpack_7z_fits(&u->in, e))
                return false;
        archive_read_set_callback_data(u->lib, u);
        archive_read_set_read_callback(u->lib, on_read);
        if (u->in.seek) {
                archive_read_set_skip_callback(u->lib, on_skip);
                archive_read_set_seek_callback(u->lib, on_seek);
        }
        status = archive_read_open1(u->lib);
        if (went_well(u, status))
                return true;
        return unpack_is_nested(u) ? nested(e) : failed(u, ARCHIVE_FATAL, e);
}

struct unpack *unpack_open(const struct unpack_input *in, enum unpack_kind kind, struct err *e)
{
        struct unpack *u = mem_zero(sizeof *u);

        if (!u) {
                err_nomem(e);
                return NULL;
        }
        u->in = *in;
        u->kind = kind;
        if (start(u, e))
                return u;
        unpack_close(u);
        return NULL;
}

void unpack_close(struct unpack *u)
{
        if (!u)
                return;
        if (u->lib)
                archive_read_free(u->lib);
        if (u->locale)
                freelocale(u->locale);
        mem_free(u);
}

static void describe(struct unpack *u, struct archive_entry *entry, struct unpack_member *out)
{
        const char *name = archive_entry_pathname(entry), *linked = archive_entry_hardlink(entry);

        out->name = archive_format(u->lib) == ARCHIVE_FORMAT_RAW ? STR_NONE : str_of(name ? name : "");
        out->linked = str_of(linked ? linked : "");
        out->time = archive_entry_mtime_is_set(entry) ? (int64_t)archive_entry_mtime(entry) : 0;
        out->encrypted = archive_entry_is_encrypted(entry);
        out->kind = MEMBER_OTHER;
        if (archive_entry_filetype(entry) == AE_IFDIR)
                out->kind = MEMBER_DIRECTORY;
        else if (archive_entry_filetype(entry) == AE_IFREG && !linked)
                out->kind = MEMBER_FILE;
}

bool unpack_next(struct unpack *u, struct unpack_member *out, struct err *e)
{
        struct archive_entry *entry;
        locale_t before = uselocale(u->locale);
        int status;

        *out = (struct unpack_member){ .name = STR_NONE };
        do
                status = archive_read_next_header(u->lib, &entry);
        while (status == ARCHIVE_RETRY);
        if (status == ARCHIVE_OK || status == ARCHIVE_WARN)
                describe(u, entry, out);
        uselocale(before);
        out->end = status == ARCHIVE_EOF;
        if (!went_well(u, status))
                return failed(u, ARCHIVE_FATAL, e);
        if (unpack_is_compressed(u->kind) && archive_filter_count(u->lib) < 2)
                return failed(u, ARCHIVE_FATAL, e); /* too short to be decoded: taken for what it is */
        if (!unpack_is_nested(u))
                return true;
        u->broken = true;
        return nested(e);
}

ssize_t unpack_read(struct unpack *u, void *p, size_t n, struct err *e)
{
        la_ssize_t got;

        do
                got = archive_read_data(u->lib, p, n);
        while (got == ARCHIVE_RETRY);
        if (went_well(u, got < 0 ? ARCHIVE_FATAL : ARCHIVE_OK))
                return (ssize_t)got;
        failed(u, got < 0 ? (int)got : ARCHIVE_FATAL, e);
        return -1;
}

static bool all_zero(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i])
                        return false;
        return true;
}

/* The library counts what its decoder took of the input; what it did not take of the block in hand stands at that block's end. */
bool unpack_rest_is_empty(struct unpack *u, struct err *e)
{
        la_int64_t taken = archive_filter_bytes(u->lib, -1);
        uint64_t left = taken >= 0 && (uint64_t)taken < u->at ? u->at - (uint64_t)taken : 0;
        struct str rest = left < u->block.n ? str_from(u->block, u->block.n - left) : u->block;
        const char *p;
        ssize_t got = 1;

        if (left == 0)
                rest.n = 0;
        while (all_zero(rest) && got > 0)
                if ((got = u->in.read(u->in.ctx, &p, e)) > 0)
                        rest = str_make(p, (size_t)got);
        if (got < 0)
                return false;
        return got == 0 || err_set(e, ERR_IO, "something else stands behind what is compressed, and was not read");
}

bool unpack_broken(const struct unpack *u)
{
        return u->broken;
}

bool unpack_input_failed(const struct unpack *u)
{
        return u->failed.code != ERR_NONE;
}

/* The library itself counts as one; it would go 25 deep. */
bool unpack_is_nested(const struct unpack *u)
{
        return archive_filter_count(u->lib) > 2;
}

bool unpack_is_locked(const struct unpack *u)
{
        return archive_read_has_encrypted_entries(u->lib) == 1;
}

/* ---- zlib ------------------------------------------------------------------------------------------------------- */

/* The library knows the same data only in gzip's dress: a head before it, and a tail that is not looked at. */
struct dressed {
        struct str pieces[3];
        size_t next;
};

static ssize_t read_dressed(void *ctx, const char **block, struct err *e)
{
        struct dressed *d = ctx;

        (void)e;
        while (d->next < 3 && d->pieces[d->next].n == 0)
                d->next++;
        if (d->next == 3)
                return 0;
        *block = d->pieces[d->next].p;
        return (ssize_t)d->pieces[d->next++].n;
}

/* RFC 1950 8.2: so many bytes before the sums must be reduced. */
static uint32_t adler_of(struct str s)
{
        enum { BASE = 65521, STRETCH = 5552 };
        uint32_t a = 1, b = 0;

        while (s.n > 0) {
                struct str part = str_first(s, STRETCH);

                for (size_t i = 0; i < part.n; i++) {
                        a += (unsigned char)part.p[i];
                        b += a;
                }
                a %= BASE;
                b %= BASE;
                s = str_from(s, part.n);
        }
        return b << 16 | a;
}

static bool adler_fits(struct str content, struct str said)
{
        uint32_t sum = 0;

        for (size_t i = 0; i < said.n; i++)
                sum = sum << 8 | (unsigned char)said.p[i];
        return sum == adler_of(content);
}

static bool read_all(struct unpack *u, struct buf *out, bool *good)
{
        enum { STEP = 64 * 1024 };
        char *block = mem_alloc(STEP);
        struct unpack_member in;
        struct err e;
        ssize_t n = -1;
        bool ok = block != NULL;

        if (ok && unpack_next(u, &in, &e))
                do {
                        n = in.end ? 0 : unpack_read(u, block, STEP, &e);
                        ok = n <= 0 || buf_add(out, block, (size_t)n);
                } while (ok && n > 0);
        *good = n == 0;
        mem_free(block);
        return ok;
}

bool unpack_zlib(struct str in, struct buf *out, bool *good)
{
        enum { HEAD = 2, SUM = 4, METHOD = 8, DICTIONARY = 0x20 };
        const unsigned char *p = (const unsigned char *)in.p;
        struct dressed d = { .pieces = { { "\x1f\x8b\x08\0\0\0\0\0\0\3", 10 }, { NULL, 0 }, { "\0\0\0\0\0\0\0", 8 } } };
        struct unpack_input from = { .read = read_dressed, .once = true, .ctx = &d };
        size_t before = out->n;
        struct unpack *u;
        struct err e;
        bool ok;

        *good = false;
        if (in.n < HEAD + SUM || (p[0] & 15) != METHOD || (p[0] << 8 | p[1]) % 31 != 0 || p[1] & DICTIONARY)
                return true;
        d.pieces[1] = str_make(in.p + HEAD, in.n - HEAD - SUM);
        u = unpack_open(&from, UNPACK_GZIP, &e);
        if (!u)
                return e.code != ERR_NOMEM;
        ok = read_all(u, out, good);
        unpack_close(u);
        *good = ok && *good && adler_fits(str_from(buf_str(out), before), str_from(in, in.n - SUM));
        return ok;
}
