/* Supervisor and worker: each test runs supervise() in a process of its own and looks at its exit code, and at what the workers have
 * written into shared memory. */
#include "tests/unit/test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/log.h"
#include "core/supervise.h"
#include "core/sys.h"

static struct shared {
        atomic_uint lives, dead, others, terms, counted;
        atomic_int pid;
        char account[64], uid[64], doing[64], why[128];
        unsigned occurrence;
} *sh;

static void quiet(void *ctx, enum log_level level, struct str line) {}

static pid_t begin(int (*worker)(void *ctx))
{
        pid_t pid;

        if (!sh)
                sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        memset(sh, 0, sizeof *sh);
        fflush(stdout);
        pid = fork();
        if (pid == 0) {
                log_set_sink(quiet, NULL);
                setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
                _exit(supervise(worker, NULL));
        }
        return pid;
}

/* The exit code; 1000 + signal; -1: it did not end in time. */
static int end_of(pid_t pid)
{
        int64_t until = sys_mono_ms() + 20000;
        int status;

        while (waitpid(pid, &status, WNOHANG) == 0) {
                if (sys_mono_ms() > until) {
                        kill(pid, SIGKILL);
                        waitpid(pid, &status, 0);
                        return -1;
                }
                usleep(2000);
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static bool wait_for(atomic_uint *what, unsigned n)
{
        for (int64_t until = sys_mono_ms() + 10000; atomic_load(what) < n;) {
                if (sys_mono_ms() > until)
                        return false;
                usleep(1000);
        }
        return true;
}

static bool note(void *ctx, const struct hand_death *d)
{
        sh->dead++;
        sh->counted += d->counted;
        sh->occurrence = d->occurrence;
        snprintf(sh->account, sizeof sh->account, "%.*s", STR_FMT(d->account));
        snprintf(sh->uid, sizeof sh->uid, "%.*s", STR_FMT(d->uid));
        snprintf(sh->doing, sizeof sh->doing, "%s", d->doing);
        snprintf(sh->why, sizeof sh->why, "%s", d->why);
        return true;
}

static int exits(void *ctx)
{
        sh->lives++;
        return hand_restarted() ? 1 : 42;
}

TEST(worker_exits)
{
        CHECK(end_of(begin(exits)) == 42);
        CHECK(sh->lives == 1);
}

static int dies_with_a_message(void *ctx)
{
        if (sh->lives++ == 0) {
                hand_take(0, STR("work"), STR("uid-1"), 0, "reading"); /* over and done with */
                hand_drop(0);
                hand_take(0, STR("work"), STR("uid\n7"), 3, "deciding");
                kill(getpid(), SIGKILL);
        }
        if (!hand_restarted())
                return 1;
        hand_dead(note, NULL);
        return 7;
}

TEST(restarted_with_what_it_had_in_hand)
{
        CHECK(end_of(begin(dies_with_a_message)) == 7);
        CHECK(sh->lives == 2 && sh->dead == 1 && sh->occurrence == 3);
        CHECK_STR(str_of(sh->account), "work");
        CHECK_STR(str_of(sh->uid), "uid\n7");
        CHECK_STR(str_of(sh->doing), "deciding");
        CHECK(strstr(sh->why, "signal 9"));
}

static int dies_empty_handed(void *ctx)
{
        sh->lives++;
        hand_take(0, STR("work"), STR("u"), 0, "deciding");
        hand_drop(0);
        kill(getpid(), SIGKILL);
        return 1;
}

TEST(no_message_in_hand)
{
        CHECK(end_of(begin(dies_empty_handed)) == EX_SOFTWARE);
        CHECK(sh->lives == 1);
}

static int always_dies(void *ctx)
{
        sh->lives++;
        hand_take(0, STR("work"), STR("u"), 0, "deciding");
        kill(getpid(), SIGKILL);
        return 1;
}

TEST(not_for_ever)
{
        CHECK(end_of(begin(always_dies)) == EX_SOFTWARE);
        CHECK(sh->lives == 65);
}

/* Three threads have a message in hand; it is known which of them called abort. */
static void *holds(void *arg)
{
        unsigned slot = hand_slot();

        hand_take(slot, STR("work"), str_of(arg), 0, "writing");
        sh->others++;
        if (strcmp(arg, "guilty") == 0) {
                while (sh->others < 3)
                        usleep(100);
                abort();
        }
        for (;;)
                pause();
        return NULL;
}

static int one_thread_aborts(void *ctx)
{
        static char names[3][16] = { "innocent", "guilty", "innocent too" };
        pthread_t t[3];

        if (sh->lives++ == 0) {
                for (int i = 0; i < 3; i++)
                        pthread_create(&t[i], NULL, holds, names[i]);
                for (;;)
                        pause();
        }
        hand_dead(note, NULL);
        return 0;
}

TEST(only_the_thread_that_died)
{
        CHECK(end_of(begin(one_thread_aborts)) == 0);
        CHECK(sh->lives == 2 && sh->dead == 1);
        CHECK_STR(str_of(sh->uid), "guilty");
}

static int counts(void *ctx)
{
        static char longer[3000];
        struct str account = str_make(longer, sizeof longer); /* cut on both sides alike */

        memset(longer, 'x', sizeof longer);
        switch (sh->lives++) {
        case 0:
                hand_take(0, account, STR("u"), 1, "deciding");
                kill(getpid(), SIGKILL);
                return 1;
        case 1:
                hand_counted(account, STR("u"), 0); /* another */
                hand_dead(note, NULL);
                if (sh->counted)
                        return 1;
                hand_counted(account, STR("u"), 1);
                hand_take(0, STR("work"), STR("v"), 0, "deciding");
                kill(getpid(), SIGKILL);
                return 1;
        default:
                hand_dead(note, NULL);
                return 0;
        }
}

TEST(counted_once)
{
        CHECK(end_of(begin(counts)) == 0);
        CHECK(sh->lives == 3 && sh->dead == 3 && sh->counted == 1);
}

static void spin(double seconds)
{
        struct timespec t;

        do {
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        } while ((double)t.tv_sec + (double)t.tv_nsec / 1e9 < seconds);
}

static int over_its_limit(void *ctx)
{
        if (sh->lives++ == 0) {
                hand_handler_begins(0.05);
                hand_handler_ends();
                spin(0.4); /* nobody's handler */
                hand_take(0, STR("work"), STR("endless"), 0, "deciding");
                hand_handler_begins(0.1);
                spin(1e9);
        }
        hand_dead(note, NULL);
        return 3;
}

TEST(handler_over_its_limit)
{
        CHECK(end_of(begin(over_its_limit)) == 3);
        CHECK(sh->lives == 2 && sh->dead == 1);
        CHECK_STR(str_of(sh->uid), "endless");
        CHECK(strstr(sh->why, "CPU limit"));
}

static int gives_up(void *ctx)
{
        if (sh->lives++ == 0) {
                hand_take(hand_slot() + 1, STR("work"), STR("innocent"), 0, "reading");
                hand_take(0, STR("work"), STR("deaf"), 0, "deciding");
                hand_die("it would not hear");
        }
        hand_dead(note, NULL);
        return 4;
}

/* A worker that ends itself: its main thread's message alone counts, and the reason is its own; a second death has not the first one's. */
TEST(worker_gives_up)
{
        CHECK(end_of(begin(gives_up)) == 4);
        CHECK(sh->lives == 2 && sh->dead == 1);
        CHECK_STR(str_of(sh->uid), "deaf");
        CHECK_STR(str_of(sh->why), "it would not hear");
}

static int sleeps(void *ctx)
{
        sh->pid = getpid();
        sh->lives++;
        for (;;)
                pause();
        return 0;
}

TEST(supervisor_killed)
{
        pid_t pid = begin(sleeps);
        int left = 500;

        CHECK(wait_for(&sh->lives, 1));
        kill(pid, SIGKILL);
        CHECK(end_of(pid) == 1000 + SIGKILL);
        while (left > 0 && kill(sh->pid, 0) == 0) { /* a zombie counts until init has it */
                char path[64], text[512] = "";
                FILE *f;

                snprintf(path, sizeof path, "/proc/%d/stat", sh->pid);
                f = fopen(path, "r");
                if (f && fgets(text, sizeof text, f) && strstr(text, ") Z"))
                        left = -1;
                if (f)
                        fclose(f);
                usleep(10000);
                left--;
        }
        CHECK(left != 0);
}

static void on_term(int sig)
{
        sh->terms++;
}

static int obeys(void *ctx)
{
        signal(SIGTERM, on_term);
        sh->lives++;
        while (sh->terms == 0)
                usleep(1000);
        return 9;
}

TEST(SIGTERM_is_passed_on)
{
        pid_t pid = begin(obeys);

        CHECK(wait_for(&sh->lives, 1));
        kill(pid, SIGTERM);
        CHECK(end_of(pid) == 9);
        CHECK(sh->terms == 1);
        pid = begin(obeys);
        CHECK(wait_for(&sh->lives, 1));
        kill(pid, SIGINT);
        CHECK(end_of(pid) == 9);
}

/* One that has no handler yet is ended by it, and not started again. */
TEST(SIGTERM_early)
{
        pid_t pid = begin(sleeps);

        CHECK(wait_for(&sh->lives, 1));
        kill(pid, SIGTERM);
        CHECK(end_of(pid) == EX_TEMPFAIL);
        CHECK(sh->lives == 1);
}

static int stubborn(void *ctx)
{
        signal(SIGTERM, on_term);
        hand_take(0, STR("work"), STR("u"), 0, "deciding");
        sh->lives++;
        for (;;)
                pause();
        return 0;
}

TEST(second_signal_kills)
{
        pid_t pid = begin(stubborn);

        CHECK(wait_for(&sh->lives, 1));
        kill(pid, SIGTERM);
        CHECK(wait_for(&sh->terms, 1));
        kill(pid, SIGTERM);
        CHECK(end_of(pid) == EX_TEMPFAIL);
        CHECK(sh->lives == 1);
}

/* Without a supervisor nothing of this does anything. */
TEST(alone)
{
        hand_take(0, STR("a"), STR("u"), 0, "deciding");
        hand_handler_begins(1);
        hand_handler_ends();
        hand_counted(STR("a"), STR("u"), 0);
        CHECK(!hand_restarted() && hand_slot() == 0);
}

TEST_MAIN
