/* Counts the instructions that each pattern takes to read, at three sizes that double. usage:
 *   cost                what the kernel can count: prints "perf", or why it cannot
 *   cost perf|marks K all|TABLE [WORD ...]   sizes times K; "NAME SIZE COUNT" a line. perf: the kernel counts; marks: valgrind's callgrind
 *                       does, and is told where a measure ends (without it the counts are 0). WORD: only patterns whose names hold one
 * Nothing here looks at a clock. */
#include "tests/cost/cost.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/log.h"
#include "core/map.h"

#if defined(__has_include)
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#endif
#endif
#ifndef CALLGRIND_DUMP_STATS_AT
#define CALLGRIND_TOGGLE_COLLECT (void)0
#define CALLGRIND_DUMP_STATS_AT(name) (void)0
#endif

static int counter = -1;

_Noreturn void cost_broken(const char *file, int line, const char *what)
{
        fprintf(stderr, "%s:%d: not true: %s\n", file, line, what);
        abort();
}

static int counter_open(void)
{
        struct perf_event_attr a = { .type = PERF_TYPE_HARDWARE, .size = sizeof a, .config = PERF_COUNT_HW_INSTRUCTIONS,
                                     .disabled = 1, .exclude_kernel = 1, .exclude_hv = 1 };

        return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
}

void cost_repeat(struct buf *out, struct str unit, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                struct str rest = unit;

                while (rest.n > 0) {
                        struct str before = str_first(rest, str_find(rest, '\1'));

                        MUST(buf_add_str(out, before));
                        if (before.n < rest.n)
                                MUST(buf_printf(out, "%u", i));
                        rest = str_from(rest, before.n + 1);
                }
        }
}

static struct buf made(const struct pattern *p, unsigned n)
{
        struct buf b = BUF_INIT;

        if (p->make) {
                p->make(&b, n);
                return b;
        }
        MUST(buf_add_str(&b, p->head));
        cost_repeat(&b, p->unit, n);
        MUST(buf_add_str(&b, p->tail));
        return b;
}

static void measure(const struct pattern *p, unsigned n)
{
        struct buf in = made(p, n);
        size_t size = in.n;
        char *exact = malloc(in.n ? in.n : 1), what[128];
        uint64_t count = 0;

        MUST(exact);
        if (in.n)
                memcpy(exact, in.p, in.n);
        buf_free(&in);
        snprintf(what, sizeof what, "%s\t%u", p->name, n);
        if (counter >= 0) {
                MUST(ioctl(counter, PERF_EVENT_IOC_RESET, 0) == 0 && ioctl(counter, PERF_EVENT_IOC_ENABLE, 0) == 0);
                p->read(str_make(exact, size));
                MUST(ioctl(counter, PERF_EVENT_IOC_DISABLE, 0) == 0);
                MUST(read(counter, &count, sizeof count) == sizeof count);
        } else {
                CALLGRIND_TOGGLE_COLLECT;
                p->read(str_make(exact, size));
                CALLGRIND_TOGGLE_COLLECT;
                CALLGRIND_DUMP_STATS_AT(what);
        }
        printf("%s\t%llu\n", what, (unsigned long long)count);
        free(exact);
}

static bool wanted(const char *name, char **names, int n)
{
        for (int i = 0; i < n; i++)
                if (strstr(name, names[i]))
                        return true;
        return n == 0;
}

static void silent(void *ctx, enum log_level level, struct str line) { (void)ctx, (void)level, (void)line; }

int main(int argc, char **argv)
{
        static const struct { const char *name; const struct pattern *list; } tables[] = {
                { "mail", cost_mail }, { "fields", cost_fields }, { "text", cost_text }, { "wires", cost_wires },
        };
        unsigned times = argc > 2 ? (unsigned)atoi(argv[2]) : 1;

        counter = counter_open();
        if (argc < 4)
                return printf("%s\n", counter >= 0 ? "perf" : strerror(errno)) < 0;
        if (str_eq(str_of(argv[1]), STR("marks")))
                counter = -1;
        setvbuf(stdout, NULL, _IOLBF, 0);
        log_set_sink(silent, NULL);
        mallopt(M_MMAP_THRESHOLD, 128 << 10); /* else it moves, and the first to grow large is cheaper than the next */
        map_seed((const uint8_t *)"0123456789abcdef"); /* so that the count is the same every time */
        for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
                for (const struct pattern *p = tables[t].list; p->name && (wanted(tables[t].name, argv + 3, 1) || wanted("all", argv + 3, 1)); p++)
                        for (unsigned k = 1; k <= 4 && wanted(p->name, argv + 4, argc - 4); k *= 2)
                                measure(p, p->n * times * k);
        return 0;
}
