/* A run: sources → decide → carry out → settle.
 *
 * The main thread decides, through a script it knows only as these callbacks; sources read on threads of their own; a pool stages
 * and commits. Messages of one source are decided in order, one at a time; what is received and not yet settled is bounded in bytes. */
#ifndef CORE_RUN_H
#define CORE_RUN_H

#include "core/account.h"
#include "core/plan.h"
#include "core/pool.h"
#include "core/smtp.h"

enum verdict {
        RUN_DONE, /* the plan is complete */
        RUN_WAIT, /* plan->wait is to be run on a pool thread, then resume is called */
        RUN_FAIL, /* the handler failed: e says why (ERR_SCRIPT, ERR_LIMIT, ERR_TIMEOUT …), text may have several lines (traceback) */
};
struct script {
        void *ctx;
        enum verdict (*decide)(void *ctx, struct plan *p, struct err *e);
        enum verdict (*resume)(void *ctx, struct plan *p, struct err *e);
        void (*release)(void *ctx, struct plan *p);  /* the plan's message leaves the script: its handles close */
        enum verdict (*finish)(void *ctx, struct plan *p, struct err *e); /* on_finish; may be NULL */
};

struct run_config {
        struct account *const *accounts;
        size_t account_n;
        const struct str *archives;          /* as given, globs expanded */
        size_t archive_n;
        struct str root;                     /* absolute */
        const struct str *more_roots;        /* that effects may name, absolute */
        size_t more_root_n;
        bool caseless;                       /* names of saved files that differ in case only are one */
        bool confine;                        /* the process gives up what this run does not need; for good */
        struct str inbox;                    /* default folder; {NULL,0}: false */
        struct smarthost *const *hosts;
        size_t host_n;
        struct limits limits;
        uint8_t script_hash[DIGEST_SIZE];
        bool dry, again, failed, send, resume, from_start;
        bool mark_seen;                      /* what an account has is marked as seen; only what that needs is fetched, and decided */
        uint64_t limit;                      /* messages of each source; 0: all */
        int64_t now;
};

struct run_event {
        enum { EVENT_DECIDED, EVENT_HELD, EVENT_SOURCE_END } kind;
        const struct plan *plan;             /* decided, held */
        struct source *source;
        const struct err *error;             /* held: why; source end: NULL when it went well */
        bool quarantined;
};
struct run_hooks {
        void *ctx;
        void (*event)(void *ctx, const struct run_event *ev);      /* main thread */
        void (*progress)(void *ctx, struct source *const *s, size_t n); /* main thread, about 5 times a second */
};

struct run_result {
        uint64_t marked;                     /* messages that became seen without having been decided */
        uint64_t messages, delivered, saved, mails, commands, held, skipped, undone;
        uint64_t quarantined;                /* of those held now, and those that were left alone because they were before */
        uint64_t limited;                    /* messages of archives over a parsing limit that were not kept whole */
        uint64_t waiting;                    /* outward effects that the flood guard made wait in this run */
        unsigned sources_failed;
        enum err_code worst;                 /* of the sources' and the run's errors, by err_worse */
        bool stopped;                        /* by a signal */
        int64_t *ended;                      /* archives read to their end; run_over forgets their marks */
        size_t ended_n;
};

struct run;
/* Asks it to stop: sources end soon, what is decided is finished. Async-signal-safe. */
void run_stop(void);
bool run_stopped(void);
const atomic_bool *run_stop_flag(void); /* the same, for those who look by themselves */
/* Runs to the end. False only when the run as such could not go on (state unreadable, disk full); single messages and sources that failed are in
 * the result. l: the open state. Every error has been logged when it returns. */
bool run_all(const struct run_config *c, const struct script *s, const struct run_hooks *h, struct ledger *l, struct run_result *out,
             struct err *e) MUST_CHECK;
/* After every run_all, and after the outbox has been sent. whole: the archives that were read to their end have no resume mark any more. Not
 * before: a run that dies while it sends would be begun again, and do everything twice. */
bool run_over(struct ledger *l, struct run_result *res, bool whole, struct err *e) MUST_CHECK;

/* For bindings, on the main thread while a plan is being decided. */
const struct run_config *run_config_of(const struct run *r);
struct root *run_root(struct run *r, const struct source *s, struct err *e) MUST_CHECK; /* of the source's account, or the run's */
struct root *run_root_named(struct run *r, struct str path, struct err *e) MUST_CHECK;  /* another directory, opened once */
struct names *run_names(struct run *r);
int run_tmpfile(struct run *r, struct err *e) MUST_CHECK;
/* A store's value as this plan sees it: its own changes, those of plans decided before it, the state. */
bool run_store_get(struct plan *p, struct str store, struct str key, struct str *value, bool *found, struct err *e) MUST_CHECK;
/* Keys of a store as this plan sees them. */
bool run_store_each(struct plan *p, struct str store, bool (*f)(void *ctx, struct str key, struct str value), void *ctx, struct err *e);

#endif
