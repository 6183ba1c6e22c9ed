/* A hash map from byte strings to pointers, keyed (SipHash) with a secret of this process, so that no sender can choose
 * colliding names. Keys are copied. */
#ifndef CORE_MAP_H
#define CORE_MAP_H

#include "core/err.h"
#include "core/str.h"

struct map;

struct map *map_new(void) MUST_CHECK;
void map_free(struct map *m, void (*free_value)(void *)); /* free_value may be NULL */
void *map_get(const struct map *m, struct str key);       /* NULL when absent */
/* Sets key to value (not NULL); *old, if wanted, gets what was there. False when out of memory. */
bool map_set(struct map *m, struct str key, void *value, void **old) MUST_CHECK;
void *map_remove(struct map *m, struct str key);          /* what was there, or NULL */
size_t map_count(const struct map *m);
/* Calls f for each entry in no order until it returns false. f must not change the map. */
void map_each(const struct map *m, bool (*f)(void *ctx, struct str key, void *value), void *ctx);
/* The keyed hash itself. map_seed is called once at start with random bytes, before any map. */
uint64_t map_hash(struct str s);
void map_seed(const uint8_t key[16]);

#endif
