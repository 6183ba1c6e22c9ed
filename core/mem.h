/* Memory: the one place the core allocates, so that tests can make the n-th allocation fail. */
#ifndef CORE_MEM_H
#define CORE_MEM_H

#include <stddef.h>

/* NULL when there is none. mem_zero clears; mem_array is n*size, checked for overflow and cleared;
 * mem_resize keeps the old block when it fails. mem_free(NULL) does nothing. */
void *mem_alloc(size_t n) __attribute__((malloc, warn_unused_result));
void *mem_zero(size_t n) __attribute__((malloc, warn_unused_result));
void *mem_array(size_t n, size_t size) __attribute__((malloc, warn_unused_result));
void *mem_resize(void *p, size_t n) __attribute__((warn_unused_result));
void mem_free(void *p);
/* A NUL-terminated copy; n bytes of p. */
char *mem_dup(const char *p, size_t n) __attribute__((malloc, warn_unused_result));
/* Overwrites in a way the compiler may not drop. */
void mem_wipe(void *p, size_t n);

/* Tests only: the n-th allocation from now on (counting from 1) and all after it fail; 0 ends it. Returns the number of
 * allocations made since it was set. */
size_t mem_fail_at(size_t n);
/* The same of the calling thread's alone, and only `many` of them, from the n-th on; ended by mem_fail_here(0, 0). */
size_t mem_fail_here(size_t n, size_t many);

#endif
