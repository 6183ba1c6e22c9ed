/* Globs over whole values: * any run, ? one character, [a-z] a set, [!a-z] its complement, \ escapes. Caseless (Unicode
 * simple folding). Linear in practice: at most pattern * text steps. */
#ifndef CORE_GLOB_H
#define CORE_GLOB_H

#include "core/str.h"

bool glob_match(struct str pattern, struct str text);
/* The nearest of n names to `name`, within a third of its length; NULL when none is near. For "did you mean".
 * Levenshtein's distance, ASCII without case; two letters exchanged count once. */
const char *glob_nearest(struct str name, const char *const *names, size_t n);

#endif
