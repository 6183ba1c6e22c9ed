/* The names of everything that can be wrong with a message, each with its meaning: what m.defects lists. One table, so that the
 * documents and the code cannot disagree. Names are static strings; a name that begins with "limit." says that a parsing limit was
 * reached, so a part of the message was not looked at. */
#ifndef CORE_DEFECTS_H
#define CORE_DEFECTS_H

#include <stdbool.h>
#include <stddef.h>

struct defect_word {
        const char *name, *meaning;
};

extern const struct defect_word defect_words[];
extern const size_t defect_words_count;

#endif
