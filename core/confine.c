#include "core/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/log.h"

/* ---- Landlock ---- */

/* linux/landlock.h of Debian 12 ends with version 2. */
enum {
        LL_WRITE_FILE = 1 << 1,
        LL_REMOVE_DIR = 1 << 4,
        LL_REMOVE_FILE = 1 << 5,
        LL_MAKE_CHAR = 1 << 6,
        LL_MAKE_DIR = 1 << 7,
        LL_MAKE_REG = 1 << 8,
        LL_MAKE_SOCK = 1 << 9,
        LL_MAKE_FIFO = 1 << 10,
        LL_MAKE_BLOCK = 1 << 11,
        LL_MAKE_SYM = 1 << 12,
        LL_REFER = 1 << 13,
        LL_TRUNCATE = 1 << 14,     /* version 3 */

        LL_BELOW = LL_WRITE_FILE | LL_REMOVE_DIR | LL_REMOVE_FILE | LL_MAKE_DIR | LL_MAKE_REG | LL_REFER | LL_TRUNCATE,
        LL_NEVER = LL_MAKE_CHAR | LL_MAKE_SOCK | LL_MAKE_FIFO | LL_MAKE_BLOCK | LL_MAKE_SYM,
        LL_FILE = LL_WRITE_FILE | LL_TRUNCATE,

        LL_CONNECT_TCP = 1 << 1,   /* version 4 */
        LL_VERSION = 1,            /* flag of landlock_create_ruleset */
        LL_RULE_PATH = 1,
        LL_RULE_PORT = 2,
        LL_FILES_SINCE = 2, LL_TRUNCATE_SINCE = 3, LL_PORTS_SINCE = 4,
};

struct ll_ruleset { uint64_t files, net; };
struct ll_path { uint64_t allowed; int32_t parent; } __attribute__((packed));
struct ll_port { uint64_t allowed, port; };

/* A path that is missing, or not ours to open, is passed over: then nothing is allowed there. */
static bool allow_path(int rules, const char *path, uint64_t rights, struct err *e)
{
        struct ll_path p = { .allowed = rights };
        bool ok;

        p.parent = open(path, O_PATH | O_CLOEXEC);
        if (p.parent < 0)
                return true;
        ok = syscall(SYS_landlock_add_rule, rules, LL_RULE_PATH, &p, 0) == 0 || err_sys(e, ERR_IO, errno, "confining writes to %s", path);
        close(p.parent);
        return ok;
}

static bool allow_port(int rules, unsigned port, struct err *e)
{
        struct ll_port p = { LL_CONNECT_TCP, port };

        return syscall(SYS_landlock_add_rule, rules, LL_RULE_PORT, &p, 0) == 0 || err_sys(e, ERR_IO, errno, "confining connections to port %u", port);
}

static bool add_rules(int rules, const struct confinement *c, uint64_t files, bool ports, struct err *e)
{
        enum { DNS = 53 }; /* an answer that is too long for UDP comes by TCP */

        for (size_t i = 0; i < c->dir_n; i++)
                if (!allow_path(rules, c->dirs[i], files & LL_BELOW, e))
                        return false;
        if (!allow_path(rules, "/dev/null", files & LL_FILE, e) || !allow_path(rules, "/dev/tty", files & LL_FILE, e))
                return false;
        for (size_t i = 0; ports && i < c->port_n; i++)
                if (!allow_port(rules, c->ports[i], e))
                        return false;
        return !ports || c->port_n == 0 || allow_port(rules, DNS, e);
}

/* What a kernel answers that was built, or started, without it; and a sandbox around us that forbids it: then we have that one at least. */
static bool is_lacking(int error) { return error == ENOSYS || error == EOPNOTSUPP || error == EPERM || error == EACCES; }

static bool confine_files(const struct confinement *c, unsigned *got, struct err *e)
{
        struct ll_ruleset r = { .files = LL_BELOW | LL_NEVER };
        long version = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LL_VERSION);
        bool ports = version >= LL_PORTS_SINCE, ok;
        int rules;

        if (version < LL_FILES_SINCE)
                return true;
        if (version < LL_TRUNCATE_SINCE)
                r.files &= ~(uint64_t)LL_TRUNCATE;
        r.net = ports ? LL_CONNECT_TCP : 0;
        rules = (int)syscall(SYS_landlock_create_ruleset, &r, ports ? sizeof r : offsetof(struct ll_ruleset, net), 0);
        if (rules < 0)
                return is_lacking(errno) || err_sys(e, ERR_IO, errno, "confining the process");
        ok = add_rules(rules, c, r.files, ports, e) &&
             (syscall(SYS_landlock_restrict_self, rules, 0) == 0 || err_sys(e, ERR_IO, errno, "confining the process"));
        close(rules);
        if (ok)
                *got |= CONFINED_FILES | (ports ? CONFINED_PORTS : 0);
        return ok;
}

/* ---- seccomp ---- */

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef THIS_ARCH

static const int never[] = {
        SYS_execve, SYS_execveat, /* the supervisor starts commands */
#ifndef __SANITIZE_ADDRESS__      /* its search for leaks stops the process so */
        SYS_ptrace,
#endif
        SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd, SYS_perf_event_open, SYS_bpf, SYS_userfaultfd,
        SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick,
        SYS_mount_setattr, SYS_unshare, SYS_setns, SYS_open_by_handle_at,
        SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl,
        SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname, SYS_syslog, SYS_vhangup,
        SYS_keyctl, SYS_add_key, SYS_request_key,
        SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups, SYS_capset,
        SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, /* it would do calls that no filter sees */
#ifdef SYS_kexec_file_load
        SYS_kexec_file_load,
#endif
#ifdef SYS_iopl
        SYS_iopl, SYS_ioperm,
#endif
};

enum {
        NEVER_N = sizeof never / sizeof *never,
        PROGRAM_MAX = 2 * NEVER_N + 40,
        X32_BIT = 0x40000000,
        NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET,
};

struct program {
        struct sock_filter code[PROGRAM_MAX];
        unsigned short n;
};

static void put(struct program *p, unsigned code, unsigned k, unsigned yes, unsigned no)
{
        p->code[p->n++] = (struct sock_filter){ (unsigned short)code, (unsigned char)yes, (unsigned char)no, k };
}

static void answer(struct program *p, int error)
{
        put(p, BPF_RET | BPF_K, error ? SECCOMP_RET_ERRNO | (unsigned)error : SECCOMP_RET_ALLOW, 0, 0);
}

static void load(struct program *p, size_t offset) { put(p, BPF_LD | BPF_W | BPF_ABS, (unsigned)offset, 0, 0); }

/* The low half of an argument: both machines are little-endian. */
static void load_arg(struct program *p, unsigned i) { load(p, offsetof(struct seccomp_data, args) + 8 * i); }

static void refuse(struct program *p, int call, int error)
{
        put(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1);
        answer(p, error);
}

/* Another machine's numbers mean other calls. */
static void check_arch(struct program *p)
{
        load(p, offsetof(struct seccomp_data, arch));
        put(p, BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0);
        answer(p, EPERM);
        load(p, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
        put(p, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
        answer(p, EPERM);
#endif
}

/* Each of these ends with an answer, so that what follows finds the number still loaded. */
static void check_clone(struct program *p)
{
        put(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4);
        load_arg(p, 0);
        put(p, BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1);
        answer(p, EPERM);
        answer(p, 0);
        refuse(p, SYS_clone3, ENOSYS); /* its flags lie in memory, out of sight; libc then takes clone */
}

/* Terminals whose input could be typed. */
static void check_ioctl(struct program *p)
{
        enum { PASTE = 0x541C /* TIOCLINUX */ };

        put(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 5);
        load_arg(p, 1);
        put(p, BPF_JMP | BPF_JEQ | BPF_K, TIOCSTI, 1, 0);
        put(p, BPF_JMP | BPF_JEQ | BPF_K, PASTE, 0, 1);
        answer(p, EPERM);
        answer(p, 0);
}

/* The kernel's rarer families are where its mistakes are. UNIX and NETLINK: names are looked up so. */
static void check_socket(struct program *p)
{
        put(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 7);
        load_arg(p, 0);
        put(p, BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 4, 0);
        put(p, BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 3, 0);
        put(p, BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 2, 0);
        put(p, BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 1, 0);
        answer(p, EPERM);
        answer(p, 0);
}

static bool confine_calls(unsigned *got, struct err *e)
{
        struct program p = { .n = 0 };
        struct sock_fprog f = { .filter = p.code };

        check_arch(&p);
        for (size_t i = 0; i < NEVER_N; i++)
                refuse(&p, never[i], EPERM);
        check_clone(&p);
        check_ioctl(&p);
        check_socket(&p);
        answer(&p, 0);
        f.len = p.n;
        /* Without the flag older kernels slow every branch of ours down, for fear of code that we compile: Lua compiles none. */
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &f) == 0)
                *got |= CONFINED_CALLS;
        else if (!is_lacking(errno) && errno != EINVAL)
                return err_sys(e, ERR_IO, errno, "confining the process's system calls");
        return true;
}

#else

static bool confine_calls(unsigned *got, struct err *e) { return true; } /* no table of calls for this machine */

#endif

bool confine(const struct confinement *c, unsigned *got, struct err *e)
{
        *got = 0;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
                return err_sys(e, ERR_IO, errno, "giving up new privileges");
        return confine_files(c, got, e) && confine_calls(got, e);
}

void confine_tell(unsigned got)
{
        if (!(got & CONFINED_FILES))
                log_info("this kernel has no Landlock, or one too old for us: the worker can write wherever its user can, and connect everywhere");
        else if (!(got & CONFINED_PORTS))
                log_info("this kernel's Landlock knows no ports: the worker can connect everywhere");
        if (!(got & CONFINED_CALLS))
                log_info("no seccomp filter here: the worker keeps all system calls");
}

void confine_memory(void)
{
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
}
