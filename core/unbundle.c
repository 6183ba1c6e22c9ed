#include "core/unbundle.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys.h"

enum { TAR_BLOCK = 512, TAR_SUM = 148, TAR_SUM_BYTES = 8 };

struct unbundle {
        struct archive *lib;
        struct slurp in;       /* compressed */
        uint64_t start, at;    /* in a file: where it begins, what is read next */
        bool head_given;       /* of a stream */
        uint64_t taken, given; /* bytes, compressed and not */
        uint64_t members;
        bool single;           /* compressed, but not packed */
        bool broken;
        struct err failed;     /* of reading the input; the library only says that it failed */
        locale_t locale;       /* names in UTF-8, whatever the locale of the process */
};

/* The header of a tar holds the sum of its own bytes, with blanks for the sum. */
static bool is_tar(struct str head)
{
        unsigned long sum = 0, said = 0;
        bool digits = false;

        if (head.n < TAR_BLOCK || *head.p == '\0')
                return false;
        for (size_t i = 0; i < TAR_BLOCK; i++)
                sum += i >= TAR_SUM && i < TAR_SUM + TAR_SUM_BYTES ? ' ' : (unsigned char)head.p[i];
        for (size_t i = TAR_SUM; i < TAR_SUM + TAR_SUM_BYTES; i++) {
                if (head.p[i] >= '0' && head.p[i] <= '7') {
                        said = said * 8 + (unsigned long)(head.p[i] - '0');
                        digits = true;
                } else if (digits || head.p[i] != ' ')
                        break;
        }
        return digits && sum == said;
}

static bool is_zip(struct str head)
{
        return str_starts(head, STR("PK\3\4")) || str_starts(head, STR("PK\5\6")) || str_starts(head, STR("PK\7\10PK\3\4"));
}

static bool is_compressed(struct str head)
{
        bool zstd_skip = head.n >= 4 && (head.p[0] & 0xf0) == 0x50 && str_starts(str_from(head, 1), STR("\x2a\x4d\x18"));
        struct str bzip2 = str_from(head, 4);

        return str_starts(head, STR("\x1f\x8b\x08")) || str_starts(head, STR("\xfd" "7zXZ\0")) || zstd_skip ||
               str_starts(head, STR("\x28\xb5\x2f\xfd")) ||
               (str_starts(head, STR("BZh")) && head.n >= 10 &&
                (str_starts(bzip2, STR("1AY&SY")) || str_starts(bzip2, STR("\x17\x72\x45\x38\x50\x90"))));
}

bool unbundle_is(struct str head)
{
        return is_compressed(head) || is_zip(head) || is_tar(head);
}

/* ---- the input, as the library asks for it ---- */

static la_ssize_t give(struct unbundle *u, ssize_t got)
{
        if (got < 0) {
                archive_set_error(u->lib, EIO, "%s", u->failed.text);
                return ARCHIVE_FATAL;
        }
        u->taken += (uint64_t)got;
        return (la_ssize_t)got;
}

static la_ssize_t read_file(struct unbundle *u)
{
        size_t want = u->in.size - u->at < SLURP_BLOCK ? (size_t)(u->in.size - u->at) : SLURP_BLOCK;
        ssize_t got = want ? sys_pread_full(u->in.fd, u->in.p, want, u->at, &u->failed) : 0;

        if (got > 0)
                u->at += (uint64_t)got;
        return give(u, got);
}

static la_ssize_t read_stream(struct unbundle *u)
{
        if (u->head_given && !slurp_more(&u->in, u->in.n, &u->failed))
                return give(u, -1);
        u->head_given = true;
        return give(u, (ssize_t)u->in.n);
}

static la_ssize_t on_read(struct archive *lib, void *ctx, const void **block)
{
        struct unbundle *u = ctx;

        (void)lib;
        *block = u->in.p;
        return u->in.seekable ? read_file(u) : read_stream(u);
}

static la_int64_t on_skip(struct archive *lib, void *ctx, la_int64_t n)
{
        struct unbundle *u = ctx;
        uint64_t left = u->in.size - u->at;

        (void)lib;
        if ((uint64_t)n > left)
                n = (la_int64_t)left;
        u->at += (uint64_t)n;
        return n;
}

static la_int64_t on_seek(struct archive *lib, void *ctx, la_int64_t to, int whence)
{
        struct unbundle *u = ctx;
        la_int64_t size = (la_int64_t)(u->in.size - u->start), from = 0;

        (void)lib;
        if (whence != SEEK_SET)
                from = whence == SEEK_CUR ? (la_int64_t)(u->at - u->start) : size;
        if (to < -from || to > size - from)
                return ARCHIVE_FATAL;
        u->at = u->start + (uint64_t)(from + to);
        return from + to;
}

/* ---- */

static bool failed(struct unbundle *u, int status, struct err *e)
{
        const char *why = archive_error_string(u->lib);

        u->broken = status == ARCHIVE_FATAL;
        if (archive_errno(u->lib) == ENOMEM)
                return err_nomem(e);
        if (u->failed.code != ERR_NONE) {
                *e = u->failed;
                return false;
        }
        return err_set(e, ERR_IO, "it is damaged or cut off: %s", why ? why : "no reason is known");
}

/* Only what mail is kept in, and only what the library decodes itself: a filter that it would start a program for is refused. */
static bool choose_formats(struct unbundle *u, struct str head)
{
        struct archive *lib = u->lib;
        int worst = ARCHIVE_OK;
        int (*const filters[])(struct archive *) = { archive_read_support_filter_gzip, archive_read_support_filter_xz,
                                                     archive_read_support_filter_zstd, archive_read_support_filter_bzip2 };

        u->single = is_compressed(head);
        for (size_t i = 0; u->single && i < sizeof filters / sizeof *filters; i++) {
                int status = filters[i](lib);

                worst = status < worst ? status : worst;
        }
        if (u->single && (archive_read_support_format_raw(lib) != ARCHIVE_OK || archive_read_support_format_empty(lib) != ARCHIVE_OK))
                return false;
        return worst == ARCHIVE_OK && archive_read_support_format_zip(lib) == ARCHIVE_OK &&
               archive_read_support_format_tar(lib) == ARCHIVE_OK;
}

static bool start(struct unbundle *u, struct err *e)
{
        struct str head = str_make(u->in.p, u->in.n);
        int status;

        if (!(u->lib = archive_read_new()) || !(u->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0)))
                return err_nomem(e);
        if (!choose_formats(u, head))
                return failed(u, ARCHIVE_FATAL, e);
        u->start = u->at = u->in.base;
        archive_read_set_callback_data(u->lib, u);
        archive_read_set_read_callback(u->lib, on_read);
        if (u->in.seekable) {
                archive_read_set_skip_callback(u->lib, on_skip);
                archive_read_set_seek_callback(u->lib, on_seek);
        }
        status = archive_read_open1(u->lib);
        return status >= ARCHIVE_WARN || failed(u, status, e);
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

void unbundle_close(struct unbundle *u)
{
        if (!u)
                return;
        if (u->lib)
                archive_read_free(u->lib);
        if (u->locale)
                freelocale(u->locale);
        slurp_close(&u->in);
        mem_free(u);
}

static void describe(struct unbundle *u, struct archive_entry *entry, struct unbundle_member *out)
{
        const char *name = archive_entry_pathname(entry);

        out->name = u->single && archive_format(u->lib) == ARCHIVE_FORMAT_RAW ? STR_NONE : str_of(name ? name : "");
        out->time = archive_entry_mtime_is_set(entry) ? (int64_t)archive_entry_mtime(entry) : 0;
        out->encrypted = archive_entry_is_encrypted(entry);
        out->kind = MEMBER_OTHER;
        if (archive_entry_filetype(entry) == AE_IFDIR)
                out->kind = MEMBER_DIRECTORY;
        else if (archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry))
                out->kind = MEMBER_FILE;
}

bool unbundle_next(struct unbundle *u, struct unbundle_member *out, struct err *e)
{
        struct archive_entry *entry;
        locale_t before = uselocale(u->locale);
        int status;

        *out = (struct unbundle_member){ .name = STR_NONE };
        do
                status = archive_read_next_header(u->lib, &entry);
        while (status == ARCHIVE_RETRY);
        if (status == ARCHIVE_OK || status == ARCHIVE_WARN)
                describe(u, entry, out);
        uselocale(before);
        out->end = status == ARCHIVE_EOF;
        if (out->end)
                return true;
        if (status < ARCHIVE_WARN)
                return failed(u, ARCHIVE_FATAL, e);
        if (archive_filter_count(u->lib) > 2)
                return err_set(e, ERR_LIMIT, "it is compressed more than once; unpack it first");
        if (u->members++ == UNBUNDLE_MEMBERS)
                return err_set(e, ERR_LIMIT, "it has more than %d members; unpack it first", UNBUNDLE_MEMBERS);
        return true;
}

ssize_t unbundle_read(void *unbundle, void *p, size_t n, struct err *e)
{
        struct unbundle *u = unbundle;
        la_ssize_t got;

        do
                got = archive_read_data(u->lib, p, n);
        while (got == ARCHIVE_RETRY);
        if (got < 0) {
                failed(u, (int)got, e);
                return -1;
        }
        u->given += (uint64_t)got;
        if (u->given > (uint64_t)UNBUNDLE_FREE_MIB << 20 && u->given / UNBUNDLE_RATIO > u->taken) {
                u->broken = true;
                err_set(e, ERR_LIMIT, "it expands to more than %d times its size; if that is right, unpack it first", UNBUNDLE_RATIO);
                return -1;
        }
        return (ssize_t)got;
}

bool unbundle_broken(const struct unbundle *u)
{
        return u->broken;
}

uint64_t unbundle_size(const struct unbundle *u)
{
        return u->in.seekable ? u->in.size - u->start : 0;
}

uint64_t unbundle_done(const struct unbundle *u)
{
        return u->in.seekable ? u->at - u->start : u->taken;
}
