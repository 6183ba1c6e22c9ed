#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/pool.h"
#include "core/secret.h"
#include "core/spawn.h"
#include "core/sys.h"
#include "tests/unit/test.h"

static struct err e;
static char dir[64];

static void fresh(void)
{
        snprintf(dir, sizeof dir, "/tmp/mailmill-secret-XXXXXX");
        if (!mkdtemp(dir))
                test_bad++;
}

static void gone(void)
{
        char command[200];

        snprintf(command, sizeof command, "chmod 700 %s; rm -rf %s", dir, dir);
        CHECK(system(command) == 0);
}

static const char *in_dir(const char *name)
{
        static char path[128];

        snprintf(path, sizeof path, "%s/%s", dir, name);
        return path;
}

static bool put(const char *name, struct str text, mode_t mode)
{
        int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        bool ok = fd >= 0 && sys_write_all(fd, text.p, text.n, &e) && fchmod(fd, mode) == 0;

        close(fd);
        return ok;
}

/* Takes over the handle. */
static bool gives(struct secret *s, struct str want)
{
        struct str got;
        bool ok = s && secret_get(s, &got, &e) && str_eq(got, want);

        if (!ok)
                printf("%.*s: %s\n", STR_FMT(secret_describe(s)), e.text);
        secret_unref(s);
        return ok;
}

static bool fails(struct secret *s, enum err_code code, const char *says)
{
        struct str got = STR_NONE;
        bool ok = s && !secret_get(s, &got, &e) && e.code == code && strstr(e.text, says) && got.n == 0;

        if (!ok)
                printf("code %d, \"%s\", not \"%s\"\n", e.code, e.text, says);
        secret_unref(s);
        return ok;
}

#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define SH(script) secret_command(ARGV("sh", "-c", script))

TEST(file)
{
        fresh();
        CHECK(put("pw", STR("open sesame \n"), 0600));
        CHECK(gives(secret_file(str_of(in_dir("pw"))), STR("open sesame ")));
        CHECK(put("pw", STR("x\r\n"), 0400));
        CHECK(gives(secret_file(str_of(in_dir("pw"))), STR("x")));
        gone();
}

/* C01: the mode, the owner, the kind of file, the directory. */
TEST(C01_file_modes)
{
        fresh();
        for (mode_t mode = 0; mode < 0100; mode++) {
                CHECK(put("pw", STR("canary"), 0600 | mode));
                if (mode == 0)
                        CHECK(gives(secret_file(str_of(in_dir("pw"))), STR("canary")));
                else
                        CHECK(fails(secret_file(str_of(in_dir("pw"))), ERR_USAGE, "chmod 600 '/tmp/mailmill-secret-"));
                CHECK(!strstr(e.text, "canary"));
        }
        gone();
}

TEST(C01_symlink)
{
        char target[128];

        fresh();
        CHECK(put("pw", STR("canary"), 0600));
        snprintf(target, sizeof target, "%s", in_dir("pw"));
        CHECK(symlink(target, in_dir("link")) == 0);
        CHECK(fails(secret_file(str_of(in_dir("link"))), ERR_USAGE, "symbolic link"));
        gone();
}

TEST(C01_fifo_device_directory)
{
        fresh();
        CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
        CHECK(fails(secret_file(str_of(in_dir("fifo"))), ERR_USAGE, "not a regular file"));
        CHECK(mkdir(in_dir("d"), 0700) == 0);
        CHECK(fails(secret_file(str_of(in_dir("d"))), ERR_USAGE, "not a regular file"));
        CHECK(fails(secret_file(STR("/dev/null")), ERR_USAGE, "not a regular file"));
        CHECK(fails(secret_file(str_of(in_dir("none"))), ERR_ABSENT, in_dir("none")));
        gone();
}

TEST(C01_other_owner)
{
        fresh();
        if (geteuid() == 0) {
                CHECK(put("pw", STR("canary"), 0600) && chown(in_dir("pw"), 12345, 12345) == 0);
                CHECK(fails(secret_file(str_of(in_dir("pw"))), ERR_USAGE, "belongs to another user"));
        } else {
                CHECK(fails(secret_file(STR("/etc/passwd")), ERR_USAGE, "belongs to another user"));
        }
        gone();
}

TEST(C01_directory_of_everybody)
{
        fresh();
        CHECK(put("pw", STR("canary"), 0600));
        CHECK(chmod(dir, 01777) == 0);
        CHECK(fails(secret_file(str_of(in_dir("pw"))), ERR_USAGE, "chmod o-w '/tmp/mailmill-secret-"));
        gone();
}

/* C02: sent exactly, or refused. */
TEST(C02_values)
{
        static char big[SECRET_MAX + 10];
        struct str fine[] = { STR(" leading"), STR("trailing "), STR("\"'\\$`"), STR("p\xc3\xa4ss"), STR("\xff\x01\x1b"), STR("x"),
                              { big, SECRET_MAX } };
        struct str bad[] = { STR("a\nb"), STR("a\rb"), STR("a\0b"), STR("\n\n"), STR("\0"), STR("a\r"), { big, SECRET_MAX + 1 },
                             { big, SECRET_MAX + 9 }, STR("") };

        fresh();
        memset(big, 'b', sizeof big);
        for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
                CHECK(put("pw", fine[i], 0600));
                CHECK(gives(secret_file(str_of(in_dir("pw"))), fine[i]));
                CHECK(gives(secret_literal(fine[i]), fine[i]));
                CHECK(gives(secret_command(ARGV("cat", in_dir("pw"))), fine[i]));
        }
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
                CHECK(put("pw", bad[i], 0600));
                CHECK(fails(secret_file(str_of(in_dir("pw"))), ERR_USAGE, "file /tmp/"));
                CHECK(fails(secret_literal(bad[i]), ERR_USAGE, "password in the script: it "));
                CHECK(fails(secret_command(ARGV("cat", in_dir("pw"))), bad[i].n > SECRET_MAX + 3 ? ERR_LIMIT : ERR_USAGE, "command cat"));
        }
        gone();
}

/* C03. */
TEST(C03_command)
{
        CHECK(gives(SH("echo pw; echo noise >&2"), STR("pw")));
        CHECK(gives(SH("printf pw"), STR("pw")));
        CHECK(gives(SH("printf 'pw\\r\\n'"), STR("pw")));
        CHECK(fails(SH("printf 'pw\\n\\n'"), ERR_USAGE, "line end"));
        CHECK(fails(SH("echo canary; exit 3"), ERR_TEMP, "command sh: it ended with status 3"));
        CHECK(!strstr(e.text, "canary"));
        CHECK(fails(SH("kill -9 $$"), ERR_TEMP, "signal 9"));
        CHECK(fails(SH("head -c 1000000 /dev/zero"), ERR_LIMIT, "command sh"));
        CHECK(fails(SH(":"), ERR_USAGE, "empty"));
        CHECK(fails(secret_command(ARGV("no-such-command")), ERR_ABSENT, "no-such-command"));
}

TEST(C03_command_hangs)
{
        int64_t before = sys_mono_ms();

        secret_set_limits(0.2, 0.2);
        CHECK(fails(SH("sleep 60"), ERR_TIMEOUT, "command sh"));
        CHECK(sys_mono_ms() - before < 3000);
        secret_set_limits(30, 300);
}

TEST(environment)
{
        struct secret *s = secret_env(STR("MAILMILL_TEST_PW"));

        NEED(s && setenv("MAILMILL_TEST_PW", "from env", 1) == 0);
        CHECK_STR(secret_describe(s), "environment variable MAILMILL_TEST_PW");
        CHECK(gives(s, STR("from env")));
        CHECK(fails(secret_env(STR("MAILMILL_TEST_NONE")), ERR_ABSENT, "environment variable MAILMILL_TEST_NONE"));
        CHECK(gives(SH("echo \"$MAILMILL_TEST_PW\""), STR("from env"))); /* a secret's command keeps the environment */
        unsetenv("MAILMILL_TEST_PW");
}

TEST(credential)
{
        fresh();
        unsetenv("CREDENTIALS_DIRECTORY");
        CHECK(fails(secret_credential(STR("pw")), ERR_USAGE, "CREDENTIALS_DIRECTORY"));
        CHECK(put("pw", STR("cred\n"), 0440)); /* as systemd leaves it */
        NEED(setenv("CREDENTIALS_DIRECTORY", dir, 1) == 0);
        CHECK(gives(secret_credential(STR("pw")), STR("cred")));
        CHECK(fails(secret_credential(STR("../pw")), ERR_USAGE, "not a credential's name"));
        CHECK(fails(secret_credential(STR("..")), ERR_USAGE, "not a credential's name"));
        CHECK(fails(secret_credential(STR("none")), ERR_ABSENT, "systemd credential none"));
        unsetenv("CREDENTIALS_DIRECTORY");
        gone();
}

TEST(keyring)
{
        char path[1024], *before = strdup(getenv("PATH"));

        fresh();
        CHECK(put("secret-tool", STR("#!/bin/sh\necho \"$*\"\n"), 0700));
        snprintf(path, sizeof path, "%s:%s", dir, before);
        setenv("PATH", path, 1);
        CHECK(gives(secret_keyring(ARGV("service", "mail", "user", "me")), STR("lookup service mail user me")));
        setenv("PATH", before, 1);
        free(before);
        gone();
}

/* Asked once, whoever comes; a failure is asked again by whoever comes later. */
TEST(asked_once)
{
        struct secret *s;
        struct str a, b;
        char script[256];
        struct stat st;

        fresh();
        snprintf(script, sizeof script, "echo x >>%s; echo pw", in_dir("count"));
        s = SH(script);
        CHECK(secret_get(s, &a, &e) && secret_get(s, &b, &e) && a.p == b.p);
        CHECK(stat(in_dir("count"), &st) == 0 && st.st_size == 2);
        secret_unref(s);
        snprintf(script, sizeof script, "test -e %s && echo pw", in_dir("unlocked"));
        s = SH(script);
        CHECK(!secret_get(s, &a, &e) && put("unlocked", STR(""), 0600) && secret_get(s, &a, &e));
        secret_unref(s);
        gone();
}

static struct secret *shared;
static atomic_int good, bad;

static void get_shared(void *arg)
{
        struct str value;
        struct err why;

        secret_get(shared, &value, &why) ? good++ : bad++;
        secret_unref(shared);
}

static void from_many_threads(const char *script)
{
        struct thread *t[8];

        good = bad = 0;
        shared = SH(script);
        for (int i = 0; i < 8; i++)
                t[i] = (secret_ref(shared), thread_start(get_shared, NULL, "get", &e));
        for (int i = 0; i < 8; i++)
                thread_join(t[i]);
        secret_unref(shared);
}

TEST(threads_share_the_answer)
{
        char script[256];
        struct stat st;

        fresh();
        snprintf(script, sizeof script, "echo x >>%s; sleep 0.3; echo pw", in_dir("count"));
        from_many_threads(script);
        CHECK(good == 8 && stat(in_dir("count"), &st) == 0 && st.st_size == 2);
        snprintf(script, sizeof script, "echo x >>%s; sleep 0.3; false", in_dir("failed"));
        from_many_threads(script);
        CHECK(bad == 8 && stat(in_dir("failed"), &st) == 0 && st.st_size == 2);
        gone();
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CAN_LOCK 0 /* the sanitizers make mlock do nothing */
#else
#define CAN_LOCK 1
#endif

TEST(value_is_locked_and_not_dumped)
{
        struct secret *s = secret_literal(STR("canary"));
        char line[512];
        struct str v;
        bool inside = false, flags = false;
        FILE *f = fopen("/proc/self/smaps", "r");
        int status;
        pid_t child;

        NEED(s && f && secret_get(s, &v, &e));
        while (fgets(line, sizeof line, f)) {
                unsigned long from, to;
                if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
                        inside = (uintptr_t)v.p >= from && (uintptr_t)v.p < to;
                if (inside && strncmp(line, "VmFlags:", 8) == 0)
                        flags = strstr(line, " dd") && (strstr(line, " lo") || !CAN_LOCK);
        }
        fclose(f);
        CHECK(flags);
        child = fork();
        if (child == 0)
                _exit(v.p[0] == 0 ? 0 : 1);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(secret_is_literal(s));
        secret_unref(s);
        secret_unref(NULL);
}

/* ---- on a terminal of its own ---- */

static _Noreturn void answer_on(const char *tty, const char *want)
{
        struct secret *s = secret_prompt(STR("Password\x1b[2J"));
        struct str v;
        bool ok;

        setsid();
        if (open(tty, O_RDWR) < 0)
                _exit(2);
        ok = secret_get(s, &v, &e);
        if (want)
                _exit(ok && str_eq(v, str_of(want)) ? 0 : 1);
        _exit(!ok && e.code == ERR_STOPPED ? 0 : 1);
}

/* What the terminal showed. */
static int prompted(const char *typed, const char *want, char *shown, size_t size)
{
        int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), status = -1;
        size_t n = 0;
        pid_t child;

        if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0)
                return -1;
        child = fork();
        if (child == 0)
                answer_on(ptsname(master), want);
        while (n + 1 < size) {
                ssize_t got = read(master, shown + n, size - 1 - n);
                if (got <= 0)
                        break;
                n += (size_t)got;
                shown[n] = '\0';
                if (typed && strstr(shown, ": ")) {
                        if (write(master, typed, strlen(typed)) < 0)
                                break;
                        typed = NULL;
                }
        }
        waitpid(child, &status, 0);
        close(master);
        return status;
}

TEST(prompt)
{
        char shown[1000];

        CHECK(prompted("open sesame\n", "open sesame", shown, sizeof shown) == 0);
        CHECK(strcmp(shown, "Password\\x1b[2J: \r\n") == 0);
        CHECK(prompted("wrong\x15xy\xc3\xa4\x7f\x7fz\n", "xz", shown, sizeof shown) == 0);
        CHECK(prompted("half\x03", NULL, shown, sizeof shown) == 0);
}

TEST(prompt_without_a_terminal)
{
        int status;
        pid_t child = fork();

        if (child == 0) {
                setsid();
                _exit(fails(secret_prompt(STR("Password")), ERR_USAGE, "no terminal") ? 0 : 1);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* A secret's command has the terminal: it can ask, and it is given back. */
static _Noreturn void command_on(const char *tty)
{
        struct secret *s = SH("read -r x && echo \"got $x\"");
        struct str v;
        int fd;
        bool ok;

        setsid();
        fd = open(tty, O_RDWR);
        ok = secret_get(s, &v, &e) && str_eq(v, STR("got typed"));
        _exit(ok && tcgetpgrp(fd) == getpgrp() ? 0 : 1);
}

TEST(command_on_the_terminal)
{
        int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), status = -1;
        pid_t child;

        NEED(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
        child = fork();
        if (child == 0)
                command_on(ptsname(master));
        usleep(100000);
        CHECK(write(master, "typed\n", 6) == 6);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        close(master);
}

TEST_MAIN
