/* Carrying plans out, for a batch of plans that is committed as a prefix:
 *   stage    every output is written under a hidden name (commit_stage, in parallel; the rest is commit_batch)
 *   sync     what is staged becomes durable
 *   commit   one transaction with marks, journal, outbox and stores: before it nothing has happened, after it everything will
 *   publish  the outputs get their names, durably; what a run does not come to do the next start finishes
 * Then the sources learn the outcomes, and may delete. */
#ifndef CORE_COMMIT_H
#define CORE_COMMIT_H

#include "core/ledger.h"
#include "core/plan.h"

/* The flood guard of one source: how many outward effects this run of it has had, and, over all runs of an account, how fast. */
struct guard {
        bool archive, fresh, send; /* fresh: the account's first run; send: --send was given */
        unsigned used;
        int64_t paced_until;       /* as the state has it: each effect moves it on, and it may be an hour ahead */
        bool paced;                /* it has moved since it was written */
        uint64_t waiting;          /* effects made to wait */
        uint64_t reached;          /* number of the last message of the archive that was in a batch */
        struct buf reached_uid;    /* its UID, when its mark has not been written yet */
        uint64_t reached_names;    /* and that mark's sum of names */
        bool late;
};

/* One message on its way to being settled or held. */
struct item {
        struct plan *plan;
        struct guard *guard;
        int64_t account;           /* the ledger's id of the account or archive */
        struct mark mark;          /* what was known of it (id 0: nothing); mark.spool is removed once it is settled */
        unsigned twin;             /* added to its occurrence: an archive's UID is a place, where others that are held may have stood */
        uint64_t number;           /* in an archive that can be resumed: the mark set behind it; 0: none */
        uint64_t names;            /* and the sum over the names of all up to it (struct resume) */
        bool crashed;              /* it killed a worker: nothing of it is parsed any more */
        bool hold;                 /* hold it instead of carrying out the plan */
        bool attempt;              /* the script's failure, or a crash: counts; a failure of this machine does not */
        struct err why;            /* hold */
        struct str spool;          /* hold: its bytes, staged */
        int spool_fd;
        uint8_t header_hash[DIGEST_SIZE], content_hash[DIGEST_SIZE];
        bool quarantined;          /* set by the commit */
        struct outcome outcome;    /* set by the commit */
};

struct committer {
        struct ledger *ledger;
        struct staging *staging;
        struct names *names;       /* what is saved is noted by content; NULL: it is not */
        uint8_t script_hash[DIGEST_SIZE];
        int64_t now;
        /* A target that was taken between commitment and rename got another name. */
        void (*named)(void *ctx, struct plan *p, struct str from, struct str to);
        void *ctx;
        /* Renames known to be finished; they leave the journal with the next transaction. */
        int64_t *finished;
        size_t finished_n, finished_cap;
        struct appended *appended; /* appends likewise */
        size_t appended_n, appended_cap;
        int64_t marked_ms; /* when resume marks were written last */
};

enum { ATTEMPTS_MAX = 3 }; /* failures of one script before a message is quarantined */

/* On any thread, for one item: writes every output under its staged name (or, to hold it, its bytes into the spool), and
 * computes the hashes its mark needs. On failure everything of it is dropped again. */
bool commit_stage(struct committer *c, struct item *it, struct err *e) MUST_CHECK;
void commit_drop(struct committer *c, struct item *it); /* what commit_stage wrote goes */

/* Checks the names again, syncs, commits, renames, syncs. Returns how many of the n items were committed: a prefix. If it is
 * less than n, e says why, and *retry tells that the first item left over is to be decided again (its name was taken, or a file that it relied
 * on is not there) rather than that the machine failed (disk full, sync failed: nothing more should be fetched). With n returned, e may
 * still say that a rename failed: all is promised, the next start finishes it, and nothing more should be fetched. */
size_t commit_batch(struct committer *c, struct item *const *items, size_t n, bool *retry, struct err *e) MUST_CHECK;
/* Writes an archive's resume mark that a batch has left out: those of messages that were only looked at are written once a second. */
bool commit_reached(struct committer *c, int64_t account, struct guard *g, struct err *e) MUST_CHECK;
/* commit_batch's look at the names: how many of the items, from the first on, still have what they were decided on. Private to commit*.c. */
size_t commit_names(struct names *names, struct item *const *items, size_t n, bool *retry, struct err *e);
/* The last finished renames leave the journal. */
bool commit_close(struct committer *c, struct err *e) MUST_CHECK;

/* A held message's origin as text for its mark, and back (strings in the arena). */
struct str origin_write(const struct origin *o, struct arena *a);
void origin_read(struct str text, struct origin *o, struct arena *a);

#endif
