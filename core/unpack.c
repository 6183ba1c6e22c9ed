#include "core/unpack_int.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"

/* What is compressed is unpacked by one archive of the library, as one file, and where that is a tar or zip it is what another one reads.
 * (One for both would do, but what the formats take of it, to hold it in memory, could not be counted.) */
struct unpack {
        struct archive *filter; /* of what is compressed */
        struct archive *lib;    /* of the members; the same where there is one file; NULL until that is known */
        struct unpack_input in;
        uint64_t at;            /* what is read next */
        struct str block;       /* what was read last */
        char head[UNPACK_HEAD]; /* of what comes out of the filter */
        size_t head_n, head_at; /* how much of it there is, and was given on */
        struct str plain;       /* what came out last, and was not given on yet */
        uint64_t unread;        /* of what a tar says that its member has */
        uint64_t taken, most;   /* bytes that lib got for what it does now; how many it may */
        uint64_t lost;          /* bytes in which it looked for the next header, where there is none */
        enum unpack_kind kind;
        bool inside;            /* a member of lib, or what came out of the filter */
        bool crowded;           /* lib wanted more */
        bool broken;
        struct err failed;      /* of reading the input; the library only says that it failed */
        locale_t locale;        /* names in UTF-8, whatever the locale of the process */
};

static bool all_zero(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i])
                        return false;
        return true;
}

static const char *why(struct archive *lib)
{
        const char *text = archive_error_string(lib);

        return text ? text : "no reason is known";
}

/* ---- the input, as the library asks for it ---- */

static void expects(struct unpack *u, uint64_t most)
{
        u->taken = 0;
        u->most = most;
}

/* It asks again, after so much: what it has is not enough. */
static bool may_take(struct unpack *u, struct archive *lib)
{
        if (u->taken <= u->most)
                return true;
        u->crowded = true;
        archive_set_error(lib, E2BIG, "too much is said of its members");
        return false;
}

static la_ssize_t on_read(struct archive *lib, void *ctx, const void **block)
{
        struct unpack *u = ctx;
        const char *p = NULL;
        ssize_t got;

        *block = NULL;
        if (lib == u->lib && !may_take(u, lib))
                return ARCHIVE_FATAL;
        got = u->in.read(u->in.ctx, &p, &u->failed);
        *block = p;
        if (got < 0) {
                archive_set_error(lib, EIO, "%s", u->failed.text);
                return ARCHIVE_FATAL;
        }
        u->at += (uint64_t)got;
        u->taken += (uint64_t)got;
        if (got > 0)
                u->block = str_make(p, (size_t)got);
        return (la_ssize_t)got;
}

/* What came out of the filter and was not given on, or what comes next; nothing at the end. By the block: the library's read into a buffer,
 * when it meets damage, loses what it has put there. */
static int peek_plain(struct unpack *u, struct str *out)
{
        int status = ARCHIVE_OK;

        *out = str_make(u->head + u->head_at, u->head_n - u->head_at);
        if (out->n > 0)
                return ARCHIVE_OK;
        while (u->plain.n == 0 && status == ARCHIVE_OK) {
                la_int64_t where;
                const void *p;
                size_t n;

                if ((status = archive_read_data_block(u->filter, &p, &n, &where)) == ARCHIVE_OK)
                        u->plain = str_make(p, n);
        }
        *out = u->plain;
        return status == ARCHIVE_EOF ? ARCHIVE_OK : status;
}

static void take_plain(struct unpack *u, size_t n)
{
        if (u->head_at < u->head_n)
                u->head_at += n;
        else
                u->plain = str_from(u->plain, n);
}

/* The same of what comes out of the filter. */
static la_ssize_t on_read_plain(struct archive *lib, void *ctx, const void **block)
{
        struct unpack *u = ctx;
        struct str got;

        *block = u->head;
        if (!may_take(u, lib))
                return ARCHIVE_FATAL;
        if (peek_plain(u, &got) != ARCHIVE_OK) {
                archive_set_error(lib, archive_errno(u->filter), "%s", why(u->filter));
                return ARCHIVE_FATAL;
        }
        *block = got.n ? got.p : u->head;
        take_plain(u, got.n);
        u->taken += got.n;
        return (la_ssize_t)got.n;
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
        struct archive *lib = u->lib ? u->lib : u->filter;

        u->broken |= status == ARCHIVE_FATAL;
        if (u->crowded)
                return err_set(e, ERR_LIMIT, "what must be read to get at its next member goes beyond %d MiB", (int)(u->most >> 20));
        if (archive_errno(lib) == ENOMEM)
                return err_set(e, ERR_LIMIT, "it needs more memory to unpack than it can have"); /* its own demand: a dictionary */
        if (u->failed.code != ERR_NONE) {
                *e = u->failed;
                return false;
        }
        return err_set(e, ERR_IO, "it is damaged or cut off: %s", why(lib));
}

/* A format that looks whether the input is its own takes a failure to read for a no: nothing that is found after one can be relied on. */
static bool went_well(const struct unpack *u, int status)
{
        return status >= ARCHIVE_WARN && u->failed.code == ERR_NONE && !u->crowded;
}

/* Only the filter that the first bytes show, and only where the library decodes it itself (it warns when it would start a program). An
 * appended one (archive_read_append_filter) would not do: damage in its first block is then taken for emptiness. */
static bool choose_filter(struct unpack *u)
{
        static int (*const filters[])(struct archive *) = {
                [UNPACK_GZIP] = archive_read_support_filter_gzip, [UNPACK_XZ] = archive_read_support_filter_xz,
                [UNPACK_ZSTD] = archive_read_support_filter_zstd, [UNPACK_BZIP2] = archive_read_support_filter_bzip2,
        };

        return filters[u->kind](u->filter) == ARCHIVE_OK;
}

/* Here the first block is known to be good. */
static bool choose_one_filter(struct unpack *u)
{
        static const int filters[] = {
                [UNPACK_GZIP] = ARCHIVE_FILTER_GZIP, [UNPACK_XZ] = ARCHIVE_FILTER_XZ, [UNPACK_ZSTD] = ARCHIVE_FILTER_ZSTD,
                [UNPACK_BZIP2] = ARCHIVE_FILTER_BZIP2,
        };

        return archive_read_append_filter(u->filter, filters[u->kind]) == ARCHIVE_OK;
}

static bool choose_format(struct archive *lib, enum unpack_kind kind)
{
        if (unpack_is_compressed(kind))
                return archive_read_support_format_raw(lib) == ARCHIVE_OK && archive_read_support_format_empty(lib) == ARCHIVE_OK;
        if (kind == UNPACK_ZIP)
                return archive_read_support_format_zip(lib) == ARCHIVE_OK;
        if (kind == UNPACK_7Z)
                return archive_read_support_format_7zip(lib) == ARCHIVE_OK;
        return archive_read_support_format_tar(lib) == ARCHIVE_OK;
}

static bool nested(struct err *e)
{
        return err_set(e, ERR_LIMIT, "it is compressed more than once; unpack it first");
}

/* What the library must have in memory at once. Of a tar it asks for more only where the header of a member is that long: a map of the
 * holes in a file, which takes twelve times as much in memory. */
static uint64_t most_of_header(const struct unpack *u)
{
        if (u->lib == u->filter)
                return UINT64_MAX;
        if (u->filter || u->kind == UNPACK_TAR)
                return UNPACK_HEADER_BYTES;
        return u->in.sent ? UNPACK_LIST_BYTES : UINT64_MAX;
}

static bool may_open(struct unpack *u, struct err *e)
{
        if (u->kind != UNPACK_7Z)
                return true;
        if (!u->in.seek)
                return err_set(e, ERR_IO, "a 7z cannot be read from the front to the end");
        return unpack_7z_fits(&u->in, e);
}

static bool start(struct unpack *u, struct err *e)
{
        bool compressed = unpack_is_compressed(u->kind);
        struct archive *lib = archive_read_new();
        int status;

        *(compressed ? &u->filter : &u->lib) = lib;
        if (!lib || !(u->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0)))
                return err_nomem(e);
        if ((compressed && !(u->in.once ? choose_one_filter(u) : choose_filter(u))) || !choose_format(lib, u->kind))
                return failed(u, ARCHIVE_FATAL, e);
        if (!may_open(u, e))
                return false;
        expects(u, most_of_header(u));
        archive_read_set_callback_data(lib, u);
        archive_read_set_read_callback(lib, on_read);
        if (u->in.seek) {
                archive_read_set_skip_callback(lib, on_skip);
                archive_read_set_seek_callback(lib, on_seek);
        }
        status = archive_read_open1(lib);
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
        if (u->lib != u->filter)
                archive_read_free(u->lib);
        archive_read_free(u->filter);
        if (u->locale)
                freelocale(u->locale);
        mem_free(u);
}

static bool is_in_tar(struct archive *lib)
{
        return (archive_format(lib) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;
}

static void describe(struct archive *lib, struct archive_entry *entry, struct unpack_member *out)
{
        const char *name = archive_entry_pathname(entry), *linked = archive_entry_hardlink(entry);

        out->name = archive_format(lib) == ARCHIVE_FORMAT_RAW ? STR_NONE : str_of(name ? name : "");
        out->linked = str_of(linked ? linked : "");
        out->time = archive_entry_mtime_is_set(entry) ? (int64_t)archive_entry_mtime(entry) : 0;
        out->encrypted = archive_entry_is_encrypted(entry);
        out->kind = MEMBER_OTHER;
        if (archive_entry_filetype(entry) == AE_IFDIR)
                out->kind = MEMBER_DIRECTORY;
        else if (archive_entry_filetype(entry) == AE_IFREG && !linked)
                out->kind = MEMBER_FILE;
}

/* The library found no header where one must be, and tries the next block: members behind the damage can still be had. */
static bool may_look_on(struct unpack *u)
{
        u->lost += u->taken + 1;
        u->taken = 0;
        u->crowded |= u->in.sent && u->lost > UNPACK_PASSED_BYTES;
        return !u->crowded;
}

/* passed: what came of passing over the rest of the member before. */
static bool next_of(struct unpack *u, struct archive *lib, int passed, struct unpack_member *out, struct err *e)
{
        struct archive_entry *entry;
        int status;

        while ((status = archive_read_next_header(lib, &entry)) == ARCHIVE_RETRY && may_look_on(u))
                ;
        u->inside = status == ARCHIVE_OK || status == ARCHIVE_WARN;
        if (u->inside)
                describe(lib, entry, out);
        u->unread = u->inside && is_in_tar(lib) && archive_entry_size(entry) > 0 ? (uint64_t)archive_entry_size(entry) : 0;
        out->end = status == ARCHIVE_EOF;
        if (out->end && u->lost > 0) {
                u->broken = true;
                return err_set(e, ERR_IO, "it is damaged: where a header of a member should be is something else");
        }
        return went_well(u, out->end || status < passed ? status : passed) || failed(u, ARCHIVE_FATAL, e);
}

/* The library takes it for something else than its first bytes show: it is a file. */
static bool as_file(struct unpack *u)
{
        archive_read_free(u->lib);
        u->lib = u->filter;
        u->head_at = 0;
        return true;
}

/* The members of the tar or zip that comes out of the filter. */
static bool open_plain(struct unpack *u, enum unpack_kind kind, struct err *e)
{
        int status;

        if (!(u->lib = archive_read_new()))
                return err_nomem(e);
        if (!choose_format(u->lib, kind))
                return failed(u, ARCHIVE_FATAL, e);
        expects(u, most_of_header(u));
        archive_read_set_callback_data(u->lib, u);
        archive_read_set_read_callback(u->lib, on_read_plain);
        status = archive_read_open1(u->lib);
        if (!went_well(u, status) && went_well(u, ARCHIVE_OK) && u->taken <= u->head_n && archive_errno(u->lib) != ENOMEM)
                return as_file(u);
        u->inside = false;
        return went_well(u, status) || failed(u, ARCHIVE_FATAL, e);
}

/* What comes out of the filter shows by its first bytes what it is. Damage within them will be met again. */
static bool look_into(struct unpack *u, struct err *e)
{
        enum unpack_kind kind;
        struct str got;

        while (u->head_n < UNPACK_HEAD && peek_plain(u, &got) == ARCHIVE_OK && got.n > 0) {
                got = str_first(got, UNPACK_HEAD - u->head_n);
                memcpy(u->head + u->head_n, got.p, got.n);
                take_plain(u, got.n);
                u->head_at = u->head_n += got.n;
        }
        u->head_at = 0;
        got = str_make(u->head, u->head_n);
        kind = unpack_kind_of(got);
        if (got.n == UNPACK_HEAD && all_zero(got) && !u->in.sent)
                kind = UNPACK_TAR; /* with nothing in it; what was sent may be a file of zeros */
        if (kind == UNPACK_TAR || kind == UNPACK_ZIP)
                return open_plain(u, kind, e);
        u->lib = u->filter;
        return true;
}

static bool begin(struct unpack *u, struct unpack_member *out, struct err *e)
{
        if (!next_of(u, u->filter, ARCHIVE_OK, out, e))
                return false;
        if (archive_filter_count(u->filter) < 2)
                return failed(u, ARCHIVE_FATAL, e); /* too short to be decoded: taken for what it is */
        if (unpack_is_nested(u)) {
                u->broken = true;
                return nested(e);
        }
        if (!out->end && !u->in.single && !u->in.once)
                return look_into(u, e);
        u->lib = u->filter;
        return true;
}

/* The rest of the member before, which has to be unpacked where it is compressed. */
static int pass_over(struct unpack *u)
{
        int status;

        if (!u->inside)
                return ARCHIVE_OK;
        expects(u, u->in.sent ? UNPACK_PASSED_BYTES : UINT64_MAX);
        status = archive_read_data_skip(u->lib);
        if (status != ARCHIVE_EOF)
                return status;
        archive_set_error(u->lib, EIO, "it ends within a member");
        return ARCHIVE_FATAL;
}

static bool next(struct unpack *u, struct unpack_member *out, struct err *e)
{
        int passed;

        if (!u->lib) {
                if (!begin(u, out, e))
                        return false;
                if (u->lib == u->filter)
                        return true;
        }
        passed = pass_over(u);
        if (passed == ARCHIVE_FATAL || !went_well(u, ARCHIVE_OK))
                return failed(u, ARCHIVE_FATAL, e);
        expects(u, most_of_header(u));
        return next_of(u, u->lib, passed, out, e);
}

bool unpack_next(struct unpack *u, struct unpack_member *out, struct err *e)
{
        locale_t before = uselocale(u->locale);
        bool ok;

        *out = (struct unpack_member){ .name = STR_NONE };
        ok = next(u, out, e);
        uselocale(before);
        return ok;
}

static la_ssize_t read_file(struct unpack *u, void *p, size_t n)
{
        struct str got;
        int status = peek_plain(u, &got);

        if (status != ARCHIVE_OK || got.n == 0)
                return status;
        n = got.n < n ? got.n : n;
        memcpy(p, got.p, n);
        take_plain(u, n);
        return (la_ssize_t)n;
}

static la_ssize_t read_data(struct unpack *u, void *p, size_t n)
{
        la_ssize_t got;

        do
                got = u->lib == u->filter ? read_file(u, p, n) : archive_read_data(u->lib, p, n);
        while (got == ARCHIVE_RETRY);
        return got;
}

ssize_t unpack_read(struct unpack *u, void *p, size_t n, struct err *e)
{
        la_ssize_t got;

        expects(u, UINT64_MAX);
        got = read_data(u, p, n);
        if (got == 0 && u->unread > 0)
                got = read_data(u, p, n); /* a file that is one hole: the first time it only takes note of it */
        if (went_well(u, got < 0 ? ARCHIVE_FATAL : ARCHIVE_OK)) {
                u->unread -= u->unread < (uint64_t)got ? u->unread : (uint64_t)got;
                return (ssize_t)got;
        }
        failed(u, got < 0 ? (int)got : ARCHIVE_FATAL, e);
        return -1;
}

/* The library counts what its decoder took of the input; what it did not take of the block in hand stands at that block's end. */
bool unpack_rest_is_empty(struct unpack *u, struct err *e)
{
        la_int64_t taken = archive_filter_bytes(u->filter, -1);
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
        return u->filter && archive_filter_count(u->filter) > 2;
}

bool unpack_is_locked(const struct unpack *u)
{
        /* of what it did not recognise the library must not be asked: it crashes */
        return u->lib && archive_format(u->lib) != 0 && archive_read_has_encrypted_entries(u->lib) == 1;
}
