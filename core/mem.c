#include "core/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Counts all threads together: a torture run has to meet the allocations of every one of them. Elsewhere nothing is counted, for a
 * number that all threads write is slower than the allocation. */
static atomic_size_t made;
static atomic_size_t fail_at; /* 0: never */

/* The calling thread's own. A shared "whose?" would be read between two writes by the other threads, whose allocations then fail. */
static _Thread_local size_t here_at, here_many, here_made;

static bool counted_and_refused(size_t limit)
{
        return atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) + 1 >= limit;
}

static bool refused(void)
{
        size_t limit = atomic_load_explicit(&fail_at, memory_order_relaxed);

        if (here_at)
                return ++here_made >= here_at && here_made - here_at < here_many;
        return limit != 0 && counted_and_refused(limit);
}

/* malloc(0) may answer NULL, which would read as a failure. */
static size_t at_least_one(size_t n)
{
        return n ? n : 1;
}

void *mem_alloc(size_t n)
{
        return refused() ? NULL : malloc(at_least_one(n));
}

void *mem_zero(size_t n)
{
        return refused() ? NULL : calloc(1, at_least_one(n));
}

void *mem_array(size_t n, size_t size)
{
        if (size != 0 && n > SIZE_MAX / size)
                return NULL;
        return mem_zero(n * size);
}

void *mem_resize(void *p, size_t n)
{
        return refused() ? NULL : realloc(p, at_least_one(n));
}

void mem_free(void *p)
{
        free(p);
}

char *mem_dup(const char *p, size_t n)
{
        char *copy = n < SIZE_MAX ? mem_alloc(n + 1) : NULL;

        if (!copy)
                return NULL;
        if (n)
                memcpy(copy, p, n);
        copy[n] = '\0';
        return copy;
}

void mem_wipe(void *p, size_t n)
{
        if (n)
                explicit_bzero(p, n);
}

size_t mem_fail_at(size_t n)
{
        atomic_store(&fail_at, n);
        return atomic_exchange(&made, 0);
}

size_t mem_fail_here(size_t n, size_t many)
{
        size_t before = here_made;

        here_at = n;
        here_many = many;
        here_made = 0;
        return before;
}
