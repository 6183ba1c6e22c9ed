/* Every system call that touches disk, clock or randomness: the seam for fault tests, and the place where EINTR, short writes
 * and missing kernel features are dealt with once. Paths here come from us, never from a message: what a message names is opened
 * beneath a directory (sys_open_beneath). All descriptors are close-on-exec. */
#ifndef CORE_SYS_H
#define CORE_SYS_H

#include <sys/stat.h>
#include <sys/types.h>

#include "core/err.h"
#include "core/str.h"

int64_t sys_now(void);            /* seconds since 1970 UTC */
int64_t sys_mono_ms(void);        /* milliseconds of the monotonic clock */
void sys_sleep_until(int64_t mono_ms);
void sys_random(void *p, size_t n);
/* "1795412345.M123456P77R1a2b3c4dQ9": unique on this host, fit for a Maildir name (no '/', ':' or leading dot). */
void sys_unique(char out[96]);
const char *sys_hostname(void);   /* cleaned as the Maildir specification says: '/' and ':' escaped */

int sys_open(const char *path, int flags, mode_t mode, struct err *e) MUST_CHECK;         /* -1 on failure */
/* Opens path (relative, no "..") beneath the directory dir: openat2 with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
 * RESOLVE_NO_MAGICLINKS; component by component with O_NOFOLLOW where the kernel lacks it. */
int sys_open_beneath(int dir, struct str path, int flags, mode_t mode, struct err *e) MUST_CHECK;
/* Makes every directory of path that is missing beneath dir (mode 0700), opens the last one. Each directory created is put into
 * *made by calling it (may be NULL), with a descriptor of the parent, so that the caller can sync it. */
int sys_mkdirs_beneath(int dir, struct str path, void (*made)(void *ctx, int parent), void *ctx, struct err *e) MUST_CHECK;
/* The same for a path of ours, absolute or relative to the working directory. */
bool sys_mkdirs(const char *path, mode_t mode, struct err *e) MUST_CHECK;
bool sys_write_all(int fd, const void *p, size_t n, struct err *e) MUST_CHECK;
/* Bytes read (0: end), or -1; never EINTR. sys_pread_full reads until n or the end. */
ssize_t sys_read(int fd, void *p, size_t n, struct err *e) MUST_CHECK;
ssize_t sys_pread_full(int fd, void *p, size_t n, uint64_t off, struct err *e) MUST_CHECK;
/* A whole file of at most max bytes (ERR_LIMIT beyond), NUL-terminated; mem_free it. */
char *sys_read_file(int fd, size_t max, size_t *n, struct err *e) MUST_CHECK;
bool sys_fsync(int fd, struct err *e) MUST_CHECK;
bool sys_fdatasync(int fd, struct err *e) MUST_CHECK;
bool sys_syncfs(int fd, struct err *e) MUST_CHECK;
/* Does syncfs make all that is on fd's file system durable, and say so when it could not? */
bool sys_syncfs_reaches(int fd);
/* Renames without replacing (RENAME_NOREPLACE; link and unlink where the file system refuses it). ERR_EXISTS when taken.
 * "Done but reported as failed" (NFS) is recognised by the inode. */
bool sys_rename_new(int from_dir, const char *from, int to_dir, const char *to, struct err *e) MUST_CHECK;
bool sys_rename(int from_dir, const char *from, int to_dir, const char *to, struct err *e) MUST_CHECK;
bool sys_unlink(int dir, const char *name, struct err *e); /* an absent file is no error */
/* An unnamed file in dir (O_TMPFILE, or a created and unlinked one). */
int sys_tmpfile(int dir, struct err *e) MUST_CHECK;
/* An exclusive lock (OFD or flock) on fd, without waiting: ERR_BUSY when another holds it. Gone with the descriptor. */
bool sys_lock(int fd, struct err *e) MUST_CHECK;
bool sys_lock_wait(int fd, int timeout_ms, struct err *e) MUST_CHECK;

/* Memory for secrets: cleared, locked where the limits allow, left out of core dumps, read as zeros after a fork. */
void *sys_locked_new(size_t n) MUST_CHECK;
void sys_locked_free(void *p, size_t n); /* wipes; p may be NULL */

/* Tests only. The n-th call from now on (counting from 1) fails with `error`, and, if `lasting`, all after it; n 0 ends it.
 * Returns the number of calls since the last time. */
size_t sys_fail_at(size_t n, int error, bool lasting);
/* Tests only: a kernel or a file system that lacks something, and a disk that misbehaves. */
enum {
        SYS_NO_OPENAT2 = 1,
        SYS_NO_NOREPLACE = 2,
        SYS_NO_TMPFILE = 4,
        SYS_RENAME_LIES = 8,  /* renames and links are done, and reported as failed (NFS) */
        SYS_SHORT_WRITES = 16, /* a byte a call */
        SYS_EINTR_STORM = 32,  /* every other call is interrupted */
        SYS_NO_OFD_LOCKS = 64,
        SYS_WEAK_SYNCFS = 128, /* it does not reach the disk (FUSE) */
};
void sys_pretend(unsigned what);

#endif
