/* Templates: `{field}`, `{field:format}`, `{field|fallback}`, literal braces doubled. See lua/README.md for the language. */
#ifndef CORE_TEMPLATE_H
#define CORE_TEMPLATE_H

#include "core/arena.h"

/* Answers one field. format is empty when there is none. Returns false and fills e when the field is unknown; a value that is
 * missing is {NULL,0}. The answer may live in a. */
struct template_source {
        bool (*value)(void *ctx, struct str field, struct str format, struct str *out, struct arena *a, struct err *e);
        void *ctx;
};

/* Expands text as a path relative to some root: components joined by '/', each value cleaned (filename_clean_value) before it
 * goes in, and each finished component again (filename_clean); `{folder}` keeps its separators. A fallback is used for a
 * missing or empty value; without one it is empty: a folder on the way that comes out empty is left out, an empty last component is
 * an error that names the field. "." and ".." in the template's own text and absolute paths are errors. {NULL,0} on failure. */
struct str template_path(struct str text, const struct template_source *src, struct arena *a, struct err *e);
/* Only the syntax, calling value for each field with *out ignored: for `check`. */
bool template_check(struct str text, const struct template_source *src, struct err *e);
/* A date in a strftime format limited to %Y %m %d %H %M %S %y %b %a %j %V %G %F %T %%: local time, or tz when it is not NULL. */
struct str template_date(int64_t seconds, struct str format, const char *tz, struct arena *a, struct err *e);

#endif
