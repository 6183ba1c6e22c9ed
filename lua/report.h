/* What a person (or a program) is told of a run: progress on a terminal, a line a message, JSON events, one line at the end. */
#ifndef LUA_REPORT_H
#define LUA_REPORT_H

#include "core/outbox.h"
#include "core/run.h"

struct report;
struct report_options {
        bool dry;      /* per message what would happen, on standard output */
        bool json;     /* one JSON object a line on standard output, nothing else there: what scripts print goes to standard error */
        bool verbose;  /* per message what happened, on standard error */
        bool quiet;
};
/* NULL when out of memory. Takes the log over, so that lines and progress don't mix, until it is freed. */
struct report *report_new(const struct report_options *o) MUST_CHECK;
void report_free(struct report *r);
struct run_hooks report_hooks(struct report *r);
/* Takes the progress lines off the screen: something else is about to be printed. */
void report_clear(struct report *r);
/* Standard output is closed: nobody reads what is printed. */
bool report_unread(const struct report *r);
/* What the run came to, and what became of the outbox after it (NULL: it was not asked). */
void report_end(struct report *r, const struct run_result *res, const struct outbox_result *sent);

#endif
