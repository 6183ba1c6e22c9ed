/* The calls on one descriptor: reading, writing, syncing, locking; the clock, randomness, names. Paths are in sys_path.c. */
#include "core/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sys_seam.h"

/* ---- the seam -------------------------------------------------------------------------------------------------- */

static atomic_size_t calls, fail_from;
static atomic_int fail_error;
static atomic_bool fail_lasting;
static atomic_uint pretended, storm;

size_t sys_fail_at(size_t n, int error, bool lasting)
{
        fail_error = error;
        fail_lasting = lasting;
        fail_from = n;
        return atomic_exchange(&calls, 0);
}

void sys_pretend(unsigned what) { pretended = what; }

bool seam_pretends(unsigned what) { return pretended & what; }

bool seam_fails(void)
{
        size_t call = ++calls, from = fail_from;

        if (seam_pretends(SYS_EINTR_STORM) && storm++ % 2 == 0) {
                errno = EINTR;
                return true;
        }
        if (from == 0 || call < from || (call > from && !fail_lasting))
                return false;
        errno = fail_error;
        return true;
}

/* ---- clock, randomness, names ---------------------------------------------------------------------------------- */

int64_t sys_now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_REALTIME, &t);
        return t.tv_sec;
}

int64_t sys_mono_ms(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void sys_sleep_until(int64_t mono_ms)
{
        struct timespec t = { .tv_sec = mono_ms / 1000, .tv_nsec = mono_ms % 1000 * 1000000 };

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
                ;
}

/* Without randomness there are no unique names and no keyed hashes: nothing that follows would be safe. */
void sys_random(void *p, size_t n)
{
        char *at = p;

        while (n > 0) {
                ssize_t got = getrandom(at, n, 0);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0) {
                        perror("mailmill: no random bytes from the kernel");
                        abort();
                }
                at += got;
                n -= (size_t)got;
        }
}

void sys_unique(char out[96])
{
        static atomic_ulong count;
        struct timespec t;
        uint32_t r;

        clock_gettime(CLOCK_REALTIME, &t);
        sys_random(&r, sizeof r);
        snprintf(out, 96, "%lld.M%06ldP%dR%08xQ%lu", (long long)t.tv_sec, t.tv_nsec / 1000, (int)getpid(), r, ++count);
}

static char hostname[HOST_NAME_MAX * 4 + 1];

/* "/" and ":" become \057 and \072, as the Maildir specification says; so does what could not stand in a file name or a log. */
static void find_hostname(void)
{
        char raw[HOST_NAME_MAX + 1] = "";
        size_t n = 0;

        if (gethostname(raw, sizeof raw - 1) != 0 || raw[0] == '\0')
                memcpy(raw, "localhost", sizeof "localhost");
        for (const char *c = raw; *c; c++) {
                if (*c == '/' || *c == ':' || *c <= ' ' || *c == 0x7f)
                        n += (size_t)snprintf(hostname + n, sizeof hostname - n, "\\%03o", (unsigned char)*c);
                else
                        hostname[n++] = *c;
        }
}

const char *sys_hostname(void)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;

        pthread_once(&once, find_hostname);
        return hostname;
}

/* ---- reading and writing --------------------------------------------------------------------------------------- */

static ssize_t write_some(int fd, const char *p, size_t n)
{
        if (seam_fails())
                return -1;
        return write(fd, p, seam_pretends(SYS_SHORT_WRITES) && n > 1 ? 1 : n);
}

/* Standard output may be somebody else's non-blocking pipe. */
static bool wait_for(int fd, short events)
{
        struct pollfd p = { .fd = fd, .events = events };

        return poll(&p, 1, -1) >= 0 || errno == EINTR;
}

bool sys_write_all(int fd, const void *p, size_t n, struct err *e)
{
        const char *at = p;

        while (n > 0) {
                ssize_t put = write_some(fd, at, n);
                if (put > 0) {
                        at += put;
                        n -= (size_t)put;
                        continue;
                }
                if (put == 0)
                        return err_set(e, ERR_IO, "writing: the file takes nothing");
                if (errno == EINTR || (errno == EAGAIN && wait_for(fd, POLLOUT)))
                        continue;
                return err_sys(e, ERR_IO, errno, "writing");
        }
        return true;
}

ssize_t sys_read(int fd, void *p, size_t n, struct err *e)
{
        for (;;) {
                ssize_t got = seam_fails() ? -1 : read(fd, p, n);
                if (got >= 0)
                        return got;
                if (errno == EINTR || (errno == EAGAIN && wait_for(fd, POLLIN)))
                        continue;
                err_sys(e, ERR_IO, errno, "reading");
                return -1;
        }
}

ssize_t sys_pread_full(int fd, void *p, size_t n, uint64_t off, struct err *e)
{
        size_t have = 0;

        while (have < n) {
                ssize_t got = seam_fails() ? -1 : pread(fd, (char *)p + have, n - have, (off_t)(off + have));
                if (got == 0)
                        break;
                if (got > 0) {
                        have += (size_t)got;
                } else if (errno != EINTR) {
                        err_sys(e, ERR_IO, errno, "reading");
                        return -1;
                }
        }
        return (ssize_t)have;
}

/* Where a file says its size, one read and no copying; where it does not (a pipe, /proc), it grows. */
static size_t first_guess(int fd, size_t max)
{
        struct stat st;

        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size <= max)
                return (size_t)st.st_size + 2;
        return max < 4096 ? max + 2 : 4096;
}

char *sys_read_file(int fd, size_t max, size_t *n, struct err *e)
{
        size_t cap = first_guess(fd, max), have = 0;
        char *p = mem_alloc(cap), *more;

        while (p) {
                ssize_t got = sys_read(fd, p + have, cap - have - 1, e);
                if (got < 0)
                        break;
                have += (size_t)got;
                if (have > max) {
                        err_set(e, ERR_LIMIT, "larger than %zu bytes", max);
                        break;
                }
                if (got == 0) {
                        p[have] = '\0';
                        *n = have;
                        return p;
                }
                if (have < cap - 1)
                        continue;
                more = mem_resize(p, cap * 2);
                if (!more) {
                        err_nomem(e);
                        break;
                }
                p = more;
                cap *= 2;
        }
        if (!p)
                err_nomem(e);
        mem_free(p);
        return NULL;
}

/* ---- syncing --------------------------------------------------------------------------------------------------- */

/* Only an interruption is tried again. After any other failure the kernel has forgotten which pages were dirty, and a second
 * fsync would answer yes for bytes that are lost. */
static bool sync_by(int (*call)(int), int fd, const char *doing, struct err *e)
{
        for (;;) {
                if (!seam_fails() && call(fd) == 0)
                        return true;
                if (errno != EINTR)
                        return err_sys(e, ERR_IO, errno, "%s", doing);
        }
}

bool sys_fsync(int fd, struct err *e) { return sync_by(fsync, fd, "syncing a file to disk", e); }
bool sys_fdatasync(int fd, struct err *e) { return sync_by(fdatasync, fd, "syncing a file's data to disk", e); }
bool sys_syncfs(int fd, struct err *e) { return sync_by(syncfs, fd, "syncing the file system", e); }

/* Before Linux 5.8 syncfs says yes whatever became of what was written. */
static bool syncfs_tells(void)
{
        struct utsname u;
        char *minor;
        long major;

        if (uname(&u) != 0)
                return false;
        major = strtol(u.release, &minor, 10);
        return major > 5 || (major == 5 && *minor == '.' && strtol(minor + 1, NULL, 10) >= 8);
}

/* Those of which it is known. FUSE writes to its server then, but asks it to sync a file only when fsync does; eCryptfs, 9P and SMB leave
 * it at that, too. */
bool sys_syncfs_reaches(int fd)
{
        struct statfs fs;

        if (seam_pretends(SYS_WEAK_SYNCFS) || !syncfs_tells() || fstatfs(fd, &fs) != 0)
                return false;
        switch ((unsigned long)fs.f_type) {
        case EXT4_SUPER_MAGIC: case XFS_SUPER_MAGIC: case BTRFS_SUPER_MAGIC: case F2FS_SUPER_MAGIC:
        case TMPFS_MAGIC: case OVERLAYFS_SUPER_MAGIC:
                return true;
        default:
                return false;
        }
}

/* ---- locks ----------------------------------------------------------------------------------------------------- */

/* A lock of the open file description: it conflicts with the fcntl locks of mail programs, and threads do not lose it when
 * some other descriptor of the file is closed. It wants a descriptor open for writing; flock takes any. */
static int try_lock(int fd)
{
        struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

        if (seam_fails())
                return -1;
        if (!seam_pretends(SYS_NO_OFD_LOCKS)) {
                if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
                        return 0;
                if (errno != EINVAL && errno != EBADF)
                        return -1;
        }
        return flock(fd, LOCK_EX | LOCK_NB);
}

bool sys_lock(int fd, struct err *e)
{
        for (;;) {
                if (try_lock(fd) == 0)
                        return true;
                if (errno == EAGAIN || errno == EACCES)
                        return err_set(e, ERR_BUSY, "locked by another process");
                if (errno != EINTR)
                        return err_sys(e, ERR_IO, errno, "locking");
        }
}

bool sys_lock_wait(int fd, int timeout_ms, struct err *e)
{
        enum { STEP_MAX = 100 }; /* ms: mailboxes are locked for moments */
        int64_t now = sys_mono_ms(), end = now + timeout_ms, step = 2;
        struct err why;

        for (;;) {
                if (sys_lock(fd, &why))
                        return true;
                now = sys_mono_ms();
                if (why.code != ERR_BUSY || now >= end)
                        break;
                sys_sleep_until(now + step < end ? now + step : end);
                step = step * 2 > STEP_MAX ? STEP_MAX : step * 2;
        }
        if (e)
                *e = why;
        return false;
}

/* ---- memory for secrets ---------------------------------------------------------------------------------------- */

void *sys_locked_new(size_t n)
{
        void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
                return NULL;
        /* Each of these may be refused (RLIMIT_MEMLOCK, an old kernel); the secret is then only wiped. */
        (void)!mlock(p, n);
        (void)!madvise(p, n, MADV_DONTDUMP);
        (void)!madvise(p, n, MADV_WIPEONFORK);
        return p;
}

void sys_locked_free(void *p, size_t n)
{
        if (!p)
                return;
        mem_wipe(p, n);
        munmap(p, n);
}
