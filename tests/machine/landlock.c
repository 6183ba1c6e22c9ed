/* Preloaded: the kernel's Landlock as it was in version LANDLOCK_VERSION (1 to 4; 0: none), strict about what it is asked and enforcing
 * nothing. Each rule goes to the file LANDLOCK_LOG. The program asks by syscall(2) of libc, which this one stands before. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CREATE = 444, ADD = 445, RESTRICT = 446, FILE_RIGHTS = 1 | 2 | 4 | 1 << 14 };

static long version;
static char log_path[512];
static uint64_t handled_files, handled_ports;

__attribute__((constructor)) static void begin(void)
{
        const char *v = getenv("LANDLOCK_VERSION"), *path = getenv("LANDLOCK_LOG");

        version = v ? atol(v) : 0;
        snprintf(log_path, sizeof log_path, "%s", path ? path : "/dev/null");
}

static void note(const char *fmt, ...)
{
        char line[600];
        va_list ap;
        int fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

        va_start(ap, fmt);
        int n = vsnprintf(line, sizeof line, fmt, ap);
        va_end(ap);
        if (fd >= 0 && write(fd, line, (size_t)n) != n)
                abort();
        close(fd);
}

static long refuse(int error, const char *why)
{
        note("refused %s\n", why);
        errno = error;
        return -1;
}

static long create(const uint64_t *attr, size_t size, unsigned flags)
{
        static const uint64_t known[] = { 0, (1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1 };

        if (version == 0)
                return refuse(ENOSYS, "landlock_create_ruleset");
        if (flags == 1)
                return attr || size ? refuse(EINVAL, "version") : version;
        if (flags || size < 8)
                return refuse(EINVAL, "flags or size");
        handled_files = attr[0];
        handled_ports = size >= 16 ? attr[1] : 0;
        if (version < 4 && handled_ports)
                return refuse(E2BIG, "ports");
        if (handled_files & ~known[version] || handled_ports & ~(uint64_t)3)
                return refuse(EINVAL, "rights it does not know");
        return memfd_create("ruleset", MFD_CLOEXEC);
}

static long add_path(const void *rule)
{
        char link[64], path[512];
        uint64_t allowed;
        int32_t parent;
        struct stat st;
        ssize_t n;

        memcpy(&allowed, rule, 8);
        memcpy(&parent, (const char *)rule + 8, 4);
        snprintf(link, sizeof link, "/proc/self/fd/%d", parent);
        n = readlink(link, path, sizeof path - 1);
        if (n < 0 || fstat(parent, &st) != 0 || !allowed || allowed & ~handled_files)
                return refuse(EINVAL, "a path's rights");
        path[n] = '\0';
        if (!S_ISDIR(st.st_mode) && allowed & ~(uint64_t)FILE_RIGHTS)
                return refuse(EINVAL, "a directory's rights for a file");
        note("path %s\n", path);
        return 0;
}

static long add(int rules, int type, const void *rule, unsigned flags)
{
        uint64_t port[2];

        if (flags || fcntl(rules, F_GETFD) < 0)
                return refuse(EINVAL, "flags of a rule");
        if (type == 1)
                return add_path(rule);
        memcpy(port, rule, sizeof port);
        if (type != 2 || version < 4 || !port[0] || port[0] & ~handled_ports || port[1] > 65535)
                return refuse(EINVAL, "a port");
        note("port %u\n", (unsigned)port[1]);
        return 0;
}

static long restrict_self(int rules, unsigned flags)
{
        if (flags || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
                return refuse(EPERM, "without no_new_privs");
        note("restricted\n");
        return 0;
}

long syscall(long number, ...)
{
        static long (*next)(long, ...);
        long a[6];
        va_list ap;

        va_start(ap, number);
        for (int i = 0; i < 6; i++)
                a[i] = va_arg(ap, long);
        va_end(ap);
        if (number == CREATE)
                return create((const uint64_t *)a[0], (size_t)a[1], (unsigned)a[2]);
        if (number == ADD)
                return add((int)a[0], (int)a[1], (const void *)a[2], (unsigned)a[3]);
        if (number == RESTRICT)
                return restrict_self((int)a[0], (unsigned)a[1]);
        if (!next)
                *(void **)&next = dlsym(RTLD_NEXT, "syscall");
        return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
