/* The run's inside, shared by run*.c and held.c. */
#ifndef CORE_RUN_INT_H
#define CORE_RUN_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/commit.h"
#include "core/run.h"

enum event_kind { GOT_INPUT, GOT_WAKE, GOT_STAGED, GOT_CARRIED, GOT_LANE_END };
struct event {
        struct link link; /* first */
        enum event_kind kind;
        void *what; /* lane, job, job, batch, lane */
};

/* A message that killed a worker of this run. */
struct crash {
        const char *text;
        bool counted;            /* it has been held because of that already */
};

/* One message from arrival to its outcome. */
struct job {
        struct event event;
        struct job *next, *prev; /* in its lane, then in its batch, then on its way back */
        struct run *run;
        struct lane *lane;
        struct source *source;   /* the lane's archive or account, or its spool */
        struct message *message;
        size_t cost;             /* bytes of the budget */
        struct item item;
        struct batch *batch;
        bool staged, failed;     /* staging has ended; and how */
        struct err error;        /* staging's */
        unsigned redone;         /* times it was decided again */
        const struct crash *crash;
        bool unparsed;           /* the main thread parses it: its source's had enough to do */
        bool stale;              /* it waits for a child, and what it has seen was undone: to be decided again */
};

/* A list of them, by next. */
struct jobs {
        struct job *first, *last;
};

/* Decided jobs in order; at most one batch is open and one is being carried out. */
struct batch {
        struct event event;
        struct run *run;
        struct job *first, *last;
        size_t n, bytes, unstaged;
        bool closed;
        bool writes;             /* something is to be staged, or stored */
        bool undone;             /* decided on what is undone: all of it is to be decided again */
        size_t committed;        /* set by the carrying thread */
        bool retry;
        struct err error;
};

/* One source on its thread, and what the main thread holds of it. */
struct lane {
        struct event event, input_event;
        struct run *run;
        struct account *account;
        struct ledger_account la;
        struct source *spool, *source; /* held messages first; either may be NULL. An archive's is there while the lane runs */
        struct str path;         /* of an archive that is still to be opened */
        size_t slot;             /* of source in run.sources */
        struct guard guard;
        int lock;                /* the mailbox's; -1: none */
        struct thread *thread;
        struct root *root;
        uint64_t left;           /* quarantined messages that this run leaves alone */
        bool has_held;           /* an archive with held messages: look each one up */
        bool resumable;          /* an archive that can be read again */
        struct resume resume;    /* its messages up to this one were settled before; number 0: none */
        bool cut_off;            /* a run over it was, and nobody says how to go on */
        atomic_uint asked;       /* of the message decided last; the main thread writes it */
        /* the lane's thread, until it has ended */
        struct jobs group;       /* messages that it gets together: to wake it for each costs as much as to decide one */
        size_t group_n;
        struct err error;        /* of the source; ERR_NONE when it went well */
        bool reached_end;        /* all of the source was read; or as much as --limit says: */
        bool limited;
        uint64_t read;           /* number of the archive's message read last */
        uint64_t names;          /* of all up to it (struct resume) */
        /* main thread */
        struct jobs arrived;     /* not decided */
        struct job *waiting;     /* its message in hand waits for a child */
        struct job *stale;       /* it did, and is to be decided again: behind all others of the lane */
        bool input_ended;        /* nothing comes until what came is settled */
        bool started, ended;
        bool counted;            /* among run.reading */
        uint64_t undone;         /* messages of which nothing came */
        /* shared, under run->mutex */
        struct jobs input;       /* on their way to the main thread … */
        bool input_over, posted; /* … which is told once, until it has taken them */
        pthread_cond_t came;     /* outcomes have; one for each lane, or thousands would wake for one */
        struct jobs over;        /* with their outcomes, on their way back */
        uint64_t outstanding;    /* given to the main thread, not on their way back yet */
        size_t in_flight;        /* bytes */
};

struct overlay;

struct run {
        struct run_config config;
        const struct script *script;
        const struct run_hooks *hooks;
        struct ledger *ledger;
        struct staging *staging; /* NULL: dry */
        struct committer committer;
        struct arena *arena;
        struct names *names;
        struct root *root;
        struct { struct named_root { struct str name; struct root *root; } *list; size_t n, cap; } roots; /* by the name they were asked for */
        struct str *may;         /* the roots of a confined run, links resolved */
        size_t may_n;
        struct lane *lanes;
        size_t lane_n;
        atomic_size_t waiting;   /* messages that the main thread has before it, of all lanes */
        size_t next_lane, live, reading; /* the first lane not begun; of archives, those begun and not ended, and still read */
        struct source **sources; /* for progress */
        size_t source_n;
        struct queue *events;
        struct pool *pool, *waits, *carrier;
        char *tmp_dir;
        struct map *crashed;     /* what killed workers of this run: key -> struct crash. Not changed once lanes run */
        /* budget of bytes in flight */
        pthread_mutex_t mutex;
        pthread_cond_t room;
        size_t in_flight;
        /* main thread */
        struct batch *open, *carrying;
        struct job *redo_first, *redo_last; /* to be decided again once nothing is on its way */
        struct event *events_taken; /* not handled yet */
        struct jobs over;        /* with their outcomes, to be sent back to their lanes together */
        size_t over_n;
        bool draining;           /* no deciding until that has happened */
        bool ending;             /* the machine failed, or a stop: nothing more is decided */
        struct map *dry_changes; /* a dry run's stores */
        int64_t last_input_ms, last_progress_ms;
        size_t waiting_n, stale_n; /* lanes whose message waits; of them, those with a stale one */
        size_t turn;             /* the lane that is next */
        struct err error;        /* why the run ends early */
        struct run_result result;
};

/* run_open.c */
bool lanes_open(struct run *r, struct err *e) MUST_CHECK;
/* At the end: archives that were read to theirs lose their mark; the others have theirs. */
bool lanes_leave_marks(struct run *r, struct err *e) MUST_CHECK;

/* run_lane.c */
bool lane_start(struct lane *l, struct err *e);
/* Opens an archive's source; false when that has failed, which has been told. lane_retire closes it when the lane has ended. */
bool lane_open_source(struct lane *l) MUST_CHECK;
void lane_retire(struct lane *l);
void lane_close(struct lane *l);
/* Main thread: what has arrived goes to l->arrived; jobs that are over go to r->over, and from there all at once to their lanes. */
void lane_take_input(struct lane *l);
void lane_outcome(struct run *r, struct job *j);
bool lane_parse(const struct lane *l, struct message *m, bool ahead, struct err *e) MUST_CHECK; /* by either thread */
void lanes_send_outcomes(struct run *r);
void lane_decided(struct lane *l, const struct message *m); /* main thread: the handler is done with it */
void lanes_stop(struct run *r);
struct job *lane_take(struct lane *l);
void lane_put_back(struct job *j); /* to be the next that lane_take gives */

/* run_decide.c */
void job_decide(struct run *r, struct job *j);
void job_resume(struct run *r, struct job *j);
void job_hold(struct job *j, const struct err *why, bool attempt); /* marks it as to be held */
void job_settled(struct run *r, struct job *j);      /* committed: told, counted, over */
void job_over(struct run *r, struct job *j, enum outcome_kind kind); /* its source hears, it is freed */
void job_forget_plan(struct run *r, struct job *j);  /* the plan goes, the message stays */
const struct crash *run_crash(const struct run *r, struct str account, const struct origin *o); /* any thread */
void run_finish(struct run *r);                      /* on_finish */

/* run_carry.c */
void job_stage(struct run *r, struct job *j);        /* into the open batch, and to the pool */
void run_advance(struct run *r);                     /* closes and sends the open batch when it is due */
void batch_carried(struct run *r, struct batch *b);
void run_redo(struct run *r);
bool ends_fetching(const struct err *e);              /* the disk is full or broken: the run ends */
bool is_of_machine(const struct err *e);              /* no attempt: the script is not to blame */

/* run.c */
void run_end(struct run *r, const struct err *e);    /* nothing more is decided; e may be NULL (a stop) */
void run_tell(struct run *r, const struct run_event *ev);
struct str run_crash_key(struct str account, struct str uid, unsigned occurrence, struct buf *b); /* of run->crashed */
int64_t run_ms_left(int64_t since, int64_t span);

/* run_store.c */
void run_keep_changes(struct run *r, struct plan *p); /* a dry run's plan is over: its changes stay visible */

/* held.c: what lies in the spool of an account or archive, as a source. */
struct source *held_open(struct ledger *l, int64_t account, struct str name, struct account *acc, const uint8_t script_hash[DIGEST_SIZE],
                         bool quarantined_too, const struct limits *lim, struct err *e) MUST_CHECK;
/* The mark behind a message that a held source gave; not found: somebody has forgotten it. */
bool held_mark(struct source *s, uint64_t number, struct mark *out, bool *found, struct arena *a, struct err *e) MUST_CHECK;
/* Quarantined messages that it does not give. */
uint64_t held_left(const struct source *s);

/* run_confine.c. Before the first thread, after staging_open, which finishes what lies below the roots of runs before this one. */
bool run_confine(struct run *r, struct err *e) MUST_CHECK;
bool run_may_write(const struct run *r, struct str path);

#endif
