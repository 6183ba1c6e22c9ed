/* Preloaded into mailmill by tests/crash/run.py: counts each system call by name, in the supervisor and in the worker, and at the one that
 * it is told, kills or lies. All it knows stands in a file shared with the harness (MAILMILL_SHIM names it), so the counts go on in a worker
 * that is started again, and are there to read when everybody is dead.
 *
 * It sees what goes through the dynamic symbols of libc: mailmill's own calls, and those of SQLite, OpenSSL and the other libraries.
 * Not: calls that libc makes for itself (stdio's writes to standard error, getaddrinfo, opendir).
 * "alloc" is no system call: every piece of memory that anything in the process asks for, libc and the libraries too; counted only when
 * the harness is after it. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The names as run.py knows them: the same list, in the same order (run.py reads it from here). */
enum call {
        /*calls*/
        C_open, C_read, C_pread, C_write, C_pwrite, C_fsync, C_fdatasync, C_syncfs, C_rename, C_link, C_unlink, C_mkdir, C_rmdir,
        C_ftruncate, C_fallocate, C_lock, C_unlock, C_fcntl, C_stat, C_close, C_mmap, C_munmap, C_socket, C_connect, C_send, C_recv, C_sendmsg,
        C_recvmsg, C_poll, C_socketpair, C_pipe, C_fork, C_wait, C_sockopt, C_chmod, C_access, C_memfd, C_statfs, C_getrandom, C_thread,
        C_lseek, C_readlink, C_prctl, C_alloc,
        /*end*/
        CALLS
};

enum role { SUPERVISOR, WORKER, CHILD, ROLES };
enum action { NOTHING, KILL_BEFORE, KILL_AFTER, FAIL, LIE, SHORT };
enum victim { SELF = 1, OTHER = 2 };
enum { EVENTS = 16384, FRAMES = 24, SITES = 1 << 18, DEPTH = 12 };

/* run.py packs and reads it: keep the two alike. */
struct shared {
        /* told */
        uint32_t roles;       /* bits of enum role */
        uint32_t action, error, victim;
        uint64_t calls;       /* bits of enum call */
        uint64_t nth, span;   /* from the nth hit on (1: the first), so many; span 0: for ever */
        uint32_t alternate;   /* every other hit only */
        uint32_t pad;
        /* answered */
        _Atomic uint64_t hits;
        _Atomic uint32_t fired;
        int32_t pid[2];       /* supervisor, worker */
        uint32_t fired_role, fired_call, frames_n;
        int64_t fired_ns;     /* CLOCK_MONOTONIC */
        uint64_t frames[FRAMES];
        uint64_t base;        /* where the program is loaded */
        _Atomic uint32_t counts[2][64];
        _Atomic uint32_t events_n;
        uint32_t refused;     /* errno of a kill that a confinement forbade */
        struct event { uint8_t role, call; int16_t error; int32_t tid; int32_t fd; } events[EVENTS];
        uint32_t sites[2][SITES]; /* of each allocation: who asked (a hash of the functions), when only counting */
};

static struct shared *shared;
static enum role role;
static _Thread_local int inside;

static long (*raw)(long, ...);

static int find_base(struct dl_phdr_info *info, size_t n, void *ctx)
{
        *(uint64_t *)ctx = info->dlpi_addr;
        return 1; /* the program itself comes first */
}

__attribute__((constructor)) static void begin(void)
{
        const char *path = getenv("MAILMILL_SHIM");
        void *warm[2];
        int fd;

        raw = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
        if (!path || !raw)
                return;
        inside = 1;
        backtrace(warm, 2); /* loads what it needs now */
        fd = (int)raw(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        if (fd >= 0) {
                struct shared *p = (void *)raw(SYS_mmap, NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0L);

                raw(SYS_close, fd);
                if (p != MAP_FAILED) {
                        dl_iterate_phdr(find_base, &p->base);
                        p->pid[SUPERVISOR] = (int32_t)raw(SYS_getpid);
                        shared = p;
                }
        }
        inside = 0;
}

static void fire(enum call c)
{
        struct timespec t;
        void *frames[FRAMES];
        int n;

        clock_gettime(CLOCK_MONOTONIC, &t);
        inside = 1;
        n = backtrace(frames, FRAMES);
        for (int i = 0; i < n; i++)
                shared->frames[i] = (uint64_t)(uintptr_t)frames[i];
        inside = 0;
        shared->frames_n = (uint32_t)n;
        shared->fired_role = role;
        shared->fired_call = c;
        shared->fired_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(void)
{
        int other = shared->pid[role == WORKER ? SUPERVISOR : WORKER];

        if (shared->victim & OTHER && other > 0 && raw(SYS_kill, other, SIGKILL) != 0 && errno != ESRCH)
                shared->refused = (uint32_t)errno;
        if (shared->victim & SELF && raw(SYS_kill, (int)raw(SYS_getpid), SIGKILL) != 0)
                shared->refused = (uint32_t)errno;
}

/* What is to happen at this call. */
static enum action ask(enum call c, int fd)
{
        uint64_t hit;
        uint32_t e;

        if (!shared || inside || role == CHILD)
                return NOTHING;
        atomic_fetch_add(&shared->counts[role][c], 1);
        e = atomic_fetch_add(&shared->events_n, 1);
        if (e < EVENTS)
                shared->events[e] = (struct event){ (uint8_t)role, (uint8_t)c, 0, (int32_t)raw(SYS_gettid), fd };
        if (!(shared->roles >> role & 1) || !(shared->calls >> c & 1) || shared->action == NOTHING)
                return NOTHING;
        hit = atomic_fetch_add(&shared->hits, 1) + 1;
        if (hit < shared->nth || (shared->span && hit >= shared->nth + shared->span) || (shared->alternate && hit % 2 == 0))
                return NOTHING;
        if (atomic_fetch_add(&shared->fired, 1) == 0)
                fire(c);
        if (e < EVENTS)
                shared->events[e].error = (int16_t)(shared->error ? shared->error : 1);
        if (shared->action == KILL_BEFORE)
                die();
        return shared->action;
}

/* The call itself, with the fate that ask gave it. */
#define DO(call, fd, type, failed, real) \
        enum action what = ask(C_##call, (fd)); \
        type r; \
        if (what == FAIL) { \
                errno = (int)shared->error; \
                return (type)(failed); \
        } \
        r = (real); \
        if (what == KILL_AFTER) \
                die(); \
        if (what == LIE && r == (type)0) { \
                errno = (int)shared->error; \
                return (type)(failed); \
        } \
        return r

#define NEXT(name, type, ...) \
        static type (*next)(__VA_ARGS__); \
        if (!next) \
                next = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static int is_stream(int fd)
{
        static int (*get)(int, int, int, void *, socklen_t *);
        int type = 0;
        socklen_t n = sizeof type;

        if (!get)
                get = (int (*)(int, int, int, void *, socklen_t *))dlsym(RTLD_NEXT, "getsockopt");
        return get(fd, SOL_SOCKET, SO_TYPE, &type, &n) != 0 || type == SOCK_STREAM; /* no socket: a file or a pipe */
}

/* A transfer of bytes can be short; a packet can't. */
#define TRANSFER(call, fd, n, real) \
        enum action what = ask(C_##call, (fd)); \
        ssize_t r; \
        if (what == FAIL) { \
                errno = (int)shared->error; \
                return -1; \
        } \
        if (what == SHORT && (n) > 1 && is_stream(fd)) \
                (n) = 1; \
        r = (real); \
        if (what == KILL_AFTER) \
                die(); \
        return r

#define MODE(last, flags) \
        mode_t mode = 0; \
        if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
                va_list ap; \
                va_start(ap, last); \
                mode = va_arg(ap, mode_t); \
                va_end(ap); \
        }

#define OPEN(name) \
        int name(const char *path, int flags, ...) \
        { \
                NEXT(name, int, const char *, int, ...); \
                MODE(flags, flags) \
                DO(open, -1, int, -1, next(path, flags, mode)); \
        }
#define OPENAT(name) \
        int name(int dir, const char *path, int flags, ...) \
        { \
                NEXT(name, int, int, const char *, int, ...); \
                MODE(flags, flags) \
                DO(open, dir, int, -1, next(dir, path, flags, mode)); \
        }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t read(int fd, void *p, size_t n)
{
        NEXT(read, ssize_t, int, void *, size_t);
        TRANSFER(read, fd, n, next(fd, p, n));
}
ssize_t write(int fd, const void *p, size_t n)
{
        NEXT(write, ssize_t, int, const void *, size_t);
        TRANSFER(write, fd, n, next(fd, p, n));
}
#define PREAD(name, type) \
        ssize_t name(int fd, void *p, size_t n, type at) \
        { \
                NEXT(name, ssize_t, int, void *, size_t, type); \
                TRANSFER(pread, fd, n, next(fd, p, n, at)); \
        }
#define PWRITE(name, type) \
        ssize_t name(int fd, const void *p, size_t n, type at) \
        { \
                NEXT(name, ssize_t, int, const void *, size_t, type); \
                TRANSFER(pwrite, fd, n, next(fd, p, n, at)); \
        }
PREAD(pread, off_t)
PREAD(pread64, off64_t)
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t send(int fd, const void *p, size_t n, int flags)
{
        NEXT(send, ssize_t, int, const void *, size_t, int);
        TRANSFER(send, fd, n, next(fd, p, n, flags));
}
ssize_t recv(int fd, void *p, size_t n, int flags)
{
        NEXT(recv, ssize_t, int, void *, size_t, int);
        TRANSFER(recv, fd, n, next(fd, p, n, flags));
}
ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
        NEXT(sendmsg, ssize_t, int, const struct msghdr *, int);
        DO(sendmsg, fd, ssize_t, -1, next(fd, m, flags));
}
ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
        NEXT(recvmsg, ssize_t, int, struct msghdr *, int);
        DO(recvmsg, fd, ssize_t, -1, next(fd, m, flags));
}

int fsync(int fd) { NEXT(fsync, int, int); DO(fsync, fd, int, -1, next(fd)); }
int fdatasync(int fd) { NEXT(fdatasync, int, int); DO(fdatasync, fd, int, -1, next(fd)); }
int syncfs(int fd) { NEXT(syncfs, int, int); DO(syncfs, fd, int, -1, next(fd)); }

int rename(const char *a, const char *b) { NEXT(rename, int, const char *, const char *); DO(rename, -1, int, -1, next(a, b)); }
int renameat(int d, const char *a, int f, const char *b)
{
        NEXT(renameat, int, int, const char *, int, const char *);
        DO(rename, d, int, -1, next(d, a, f, b));
}
int renameat2(int d, const char *a, int f, const char *b, unsigned flags)
{
        NEXT(renameat2, int, int, const char *, int, const char *, unsigned);
        DO(rename, d, int, -1, next(d, a, f, b, flags));
}
int link(const char *a, const char *b) { NEXT(link, int, const char *, const char *); DO(link, -1, int, -1, next(a, b)); }
int linkat(int d, const char *a, int f, const char *b, int flags)
{
        NEXT(linkat, int, int, const char *, int, const char *, int);
        DO(link, d, int, -1, next(d, a, f, b, flags));
}
int unlink(const char *a) { NEXT(unlink, int, const char *); DO(unlink, -1, int, -1, next(a)); }
int unlinkat(int d, const char *a, int flags) { NEXT(unlinkat, int, int, const char *, int); DO(unlink, d, int, -1, next(d, a, flags)); }
int mkdir(const char *a, mode_t m) { NEXT(mkdir, int, const char *, mode_t); DO(mkdir, -1, int, -1, next(a, m)); }
int mkdirat(int d, const char *a, mode_t m) { NEXT(mkdirat, int, int, const char *, mode_t); DO(mkdir, d, int, -1, next(d, a, m)); }
int rmdir(const char *a) { NEXT(rmdir, int, const char *); DO(rmdir, -1, int, -1, next(a)); }
int ftruncate(int fd, off_t n) { NEXT(ftruncate, int, int, off_t); DO(ftruncate, fd, int, -1, next(fd, n)); }
int ftruncate64(int fd, off64_t n) { NEXT(ftruncate64, int, int, off64_t); DO(ftruncate, fd, int, -1, next(fd, n)); }
int fallocate(int fd, int mode, off_t a, off_t n) { NEXT(fallocate, int, int, int, off_t, off_t); DO(fallocate, fd, int, -1, next(fd, mode, a, n)); }
int fallocate64(int fd, int mode, off64_t a, off64_t n)
{
        NEXT(fallocate64, int, int, int, off64_t, off64_t);
        DO(fallocate, fd, int, -1, next(fd, mode, a, n));
}
int flock(int fd, int how)
{
        NEXT(flock, int, int, int);
        if (how & LOCK_UN) {
                DO(unlock, fd, int, -1, next(fd, how));
        }
        DO(lock, fd, int, -1, next(fd, how));
}

static int is_lock(int cmd) { return cmd == F_SETLK || cmd == F_SETLKW || cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW; }

#define FCNTL(name) \
        int name(int fd, int cmd, ...) \
        { \
                NEXT(name, int, int, int, ...); \
                va_list ap; \
                void *arg; \
                va_start(ap, cmd); \
                arg = va_arg(ap, void *); \
                va_end(ap); \
                if (is_lock(cmd) && ((struct flock *)arg)->l_type == F_UNLCK) { \
                        DO(unlock, fd, int, -1, next(fd, cmd, arg)); \
                } else if (is_lock(cmd)) { \
                        DO(lock, fd, int, -1, next(fd, cmd, arg)); \
                } else { \
                        DO(fcntl, fd, int, -1, next(fd, cmd, arg)); \
                } \
        }
FCNTL(fcntl)
FCNTL(fcntl64)

#define STAT(name, T) int name(const char *p, struct T *st) { NEXT(name, int, const char *, struct T *); DO(stat, -1, int, -1, next(p, st)); }
#define FSTAT(name, T) int name(int fd, struct T *st) { NEXT(name, int, int, struct T *); DO(stat, fd, int, -1, next(fd, st)); }
#define STATAT(name, T) \
        int name(int d, const char *p, struct T *st, int f) { NEXT(name, int, int, const char *, struct T *, int); DO(stat, d, int, -1, next(d, p, st, f)); }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)
STATAT(fstatat, stat)
STATAT(fstatat64, stat64)
int statfs(const char *p, struct statfs *s) { NEXT(statfs, int, const char *, struct statfs *); DO(statfs, -1, int, -1, next(p, s)); }
int fstatfs64(int fd, struct statfs64 *s) { NEXT(fstatfs64, int, int, struct statfs64 *); DO(statfs, fd, int, -1, next(fd, s)); }
int access(const char *p, int m) { NEXT(access, int, const char *, int); DO(access, -1, int, -1, next(p, m)); }
int faccessat(int d, const char *p, int m, int f) { NEXT(faccessat, int, int, const char *, int, int); DO(access, d, int, -1, next(d, p, m, f)); }
int fchmod(int fd, mode_t m) { NEXT(fchmod, int, int, mode_t); DO(chmod, fd, int, -1, next(fd, m)); }
int close(int fd) { NEXT(close, int, int); DO(close, fd, int, -1, next(fd)); }
ssize_t readlink(const char *p, char *to, size_t n) { NEXT(readlink, ssize_t, const char *, char *, size_t); DO(readlink, -1, ssize_t, -1, next(p, to, n)); }
off64_t lseek64(int fd, off64_t at, int w) { NEXT(lseek64, off64_t, int, off64_t, int); DO(lseek, fd, off64_t, -1, next(fd, at, w)); }

void *mmap(void *a, size_t n, int p, int f, int fd, off_t at)
{
        NEXT(mmap, void *, void *, size_t, int, int, int, off_t);
        DO(mmap, fd, void *, MAP_FAILED, next(a, n, p, f, fd, at));
}
void *mmap64(void *a, size_t n, int p, int f, int fd, off64_t at)
{
        NEXT(mmap64, void *, void *, size_t, int, int, int, off64_t);
        DO(mmap, fd, void *, MAP_FAILED, next(a, n, p, f, fd, at));
}
int munmap(void *a, size_t n) { NEXT(munmap, int, void *, size_t); DO(munmap, -1, int, -1, next(a, n)); }

int socket(int a, int b, int c) { NEXT(socket, int, int, int, int); DO(socket, -1, int, -1, next(a, b, c)); }
int connect(int fd, const struct sockaddr *a, socklen_t n)
{
        NEXT(connect, int, int, const struct sockaddr *, socklen_t);
        DO(connect, fd, int, -1, next(fd, a, n));
}
int setsockopt(int fd, int l, int o, const void *v, socklen_t n)
{
        NEXT(setsockopt, int, int, int, int, const void *, socklen_t);
        DO(sockopt, fd, int, -1, next(fd, l, o, v, n));
}
int getsockopt(int fd, int l, int o, void *v, socklen_t *n)
{
        NEXT(getsockopt, int, int, int, int, void *, socklen_t *);
        DO(sockopt, fd, int, -1, next(fd, l, o, v, n));
}
int poll(struct pollfd *p, nfds_t n, int ms) { NEXT(poll, int, struct pollfd *, nfds_t, int); DO(poll, n ? p->fd : -1, int, -1, next(p, n, ms)); }
int socketpair(int a, int b, int c, int v[2]) { NEXT(socketpair, int, int, int, int, int *); DO(socketpair, -1, int, -1, next(a, b, c, v)); }
int pipe2(int v[2], int f) { NEXT(pipe2, int, int *, int); DO(pipe, -1, int, -1, next(v, f)); }
pid_t waitpid(pid_t p, int *s, int o) { NEXT(waitpid, pid_t, pid_t, int *, int); DO(wait, -1, pid_t, -1, next(p, s, o)); }
int waitid(idtype_t t, id_t p, siginfo_t *s, int o) { NEXT(waitid, int, idtype_t, id_t, siginfo_t *, int); DO(wait, -1, int, -1, next(t, p, s, o)); }
int memfd_create(const char *n, unsigned f) { NEXT(memfd_create, int, const char *, unsigned); DO(memfd, -1, int, -1, next(n, f)); }
ssize_t getrandom(void *p, size_t n, unsigned f) { NEXT(getrandom, ssize_t, void *, size_t, unsigned); DO(getrandom, -1, ssize_t, -1, next(p, n, f)); }

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *ctx)
{
        NEXT(pthread_create, int, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
        enum action what = ask(C_thread, -1);
        int r;

        if (what == FAIL)
                return (int)shared->error; /* it answers the error itself */
        r = next(t, a, f, ctx);
        if (what == KILL_AFTER)
                die();
        return r;
}

int prctl(int option, ...)
{
        NEXT(prctl, int, int, ...);
        unsigned long v[4];
        va_list ap;

        va_start(ap, option);
        for (int i = 0; i < 4; i++)
                v[i] = va_arg(ap, unsigned long);
        va_end(ap);
        DO(prctl, -1, int, -1, next(option, v[0], v[1], v[2], v[3]));
}

long syscall(long number, ...)
{
        unsigned long v[6];
        va_list ap;

        va_start(ap, number);
        for (int i = 0; i < 6; i++)
                v[i] = va_arg(ap, unsigned long);
        va_end(ap);
        if (!raw)
                raw = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
        if (number == SYS_openat2) {
                DO(open, (int)v[0], long, -1, raw(number, v[0], v[1], v[2], v[3], v[4], v[5]));
        }
        return raw(number, v[0], v[1], v[2], v[3], v[4], v[5]);
}

/* ---- memory ---- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

static void note_site(uint32_t k)
{
        void *frames[DEPTH + 3];
        uint32_t h = 2166136261u;
        int n;

        inside = 1;
        n = backtrace(frames, DEPTH + 3);
        inside = 0;
        for (int i = 3; i < n; i++)
                h = (h ^ (uint32_t)((uintptr_t)frames[i] & 0xfffffff)) * 16777619u;
        if (k < SITES)
                shared->sites[role][k] = h;
}

static int no_memory(void)
{
        uint64_t hit;

        if (!shared || !(shared->calls >> C_alloc & 1) || inside || role == CHILD || !(shared->roles >> role & 1))
                return 0;
        hit = atomic_fetch_add(&shared->counts[role][C_alloc], 1);
        if (shared->action == NOTHING)
                note_site((uint32_t)hit);
        hit++;
        if (shared->action != FAIL || hit < shared->nth || (shared->span && hit >= shared->nth + shared->span))
                return 0;
        if (atomic_fetch_add(&shared->fired, 1) == 0)
                fire(C_alloc);
        errno = ENOMEM;
        return 1;
}

void *malloc(size_t n) { return no_memory() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return no_memory() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return no_memory() ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t align, size_t n) { return no_memory() ? NULL : __libc_memalign(align, n); }
int posix_memalign(void **p, size_t align, size_t n)
{
        void *got = no_memory() ? NULL : __libc_memalign(align, n);

        if (got)
                *p = got;
        return got ? 0 : ENOMEM;
}

/* A command's process is forked with every signal blocked, so that no handler runs in it; the worker is not. */
pid_t fork(void)
{
        NEXT(fork, pid_t, void);
        enum action what = ask(C_fork, -1);
        sigset_t now;
        pid_t pid;

        if (what == FAIL) {
                errno = (int)shared->error;
                return -1;
        }
        sigemptyset(&now);
        pthread_sigmask(SIG_BLOCK, NULL, &now);
        pid = next();
        if (pid == 0 && shared) {
                role = sigismember(&now, SIGTERM) ? CHILD : WORKER;
                if (role == WORKER)
                        shared->pid[WORKER] = (int32_t)raw(SYS_getpid);
        }
        if (pid > 0 && what == KILL_AFTER)
                die();
        return pid;
}
