/* An arena: memory that is freed all at once. One a message, with a limit: mail is hostile. Nothing in it moves. */
#ifndef CORE_ARENA_H
#define CORE_ARENA_H

#include "core/err.h"
#include "core/str.h"

struct arena;

/* max: the bytes it may hold in all (0: no limit). NULL when out of memory. */
struct arena *arena_new(size_t max) MUST_CHECK;
/* The same with room for the bytes that it will probably need, taken at once. */
struct arena *arena_new_of(size_t max, size_t expected) MUST_CHECK;
void arena_free(struct arena *a);
void arena_allow(struct arena *a, size_t more); /* raises its limit */
/* n bytes, cleared, aligned for any type; NULL when out of memory or over the limit. */
void *arena_alloc(struct arena *a, size_t n) MUST_CHECK;
/* A NUL-terminated copy; NULL as above. arena_str is the same as a str: {NULL,0} on failure, never for success. */
char *arena_dup(struct arena *a, const char *p, size_t n) MUST_CHECK;
struct str arena_str(struct arena *a, struct str s) MUST_CHECK;
/* printf into the arena; {NULL,0} on failure. */
struct str arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3))) MUST_CHECK;
size_t arena_used(const struct arena *a);
/* Memory (not the limit) ran out for it at some time, or for what should have gone into it: what lies in it may lack something. */
bool arena_ran_out(const struct arena *a);
void arena_note_out(struct arena *a);

#endif
