/* The state: one SQLite database (WAL, synchronous=FULL) with marks, journal, outbox, stores; and the spool of files beside it.
 *
 * One transaction of it is the point of commitment. Every function may be called from any thread; a transaction holds the ledger
 * for its thread from ledger_begin to ledger_commit or ledger_rollback. Writing functions outside a transaction make their own.
 * The first failure inside a transaction spoils it: ledger_commit then rolls back, releases the ledger and repeats that failure.
 * A commit whose fate is unknown (the disk failed while it was written) closes the ledger for good: everything after it is the same
 * failure, and nothing staged is removed; the next start finds out and finishes or cleans.
 * Strings given out live in the arena given in. Whoever is called for each row may ask and change the ledger; its false ends the
 * listing, which is no failure. */
#ifndef CORE_LEDGER_H
#define CORE_LEDGER_H

#include "core/arena.h"
#include "core/digest.h"

struct ledger;

/* dir is made (0700) when missing, but never when readonly: then an absent state is an empty one. A newer schema is refused, an older one
 * migrated; a damaged file is ERR_IO with a hint how to repair it, and nothing is deleted anywhere. */
struct ledger *ledger_open(const char *dir, bool readonly, struct err *e) MUST_CHECK;
void ledger_close(struct ledger *l);
int ledger_dir(const struct ledger *l);             /* descriptor of the state directory; -1: readonly and absent */
const char *ledger_path(const struct ledger *l);
bool ledger_in_memory(const struct ledger *l);      /* on tmpfs: gone when the machine starts again */
bool ledger_begin(struct ledger *l, struct err *e) MUST_CHECK;
bool ledger_commit(struct ledger *l, struct err *e) MUST_CHECK;
void ledger_rollback(struct ledger *l);

/* Accounts. mailbox is "user@host:port", or empty for an archive (then name is its path). */
struct ledger_account {
        int64_t id;
        struct str name, mailbox;
        bool fresh;            /* no run of it has ended yet */
        int64_t last_run;      /* wall clock of the last run's start; 0: never */
        bool no_pipeline, no_capa; /* learnt about its server */
        int64_t paced_until;   /* until then what it has sent outward counts against its rate */
        bool sizes_differ;     /* the server's sizes habitually differ from the bytes: they prove no cut */
};
bool ledger_account(struct ledger *l, struct str name, struct str mailbox, struct ledger_account *out, struct arena *a,
                    struct err *e) MUST_CHECK; /* made when missing; readonly: id -1, which nothing has */
bool ledger_account_save(struct ledger *l, const struct ledger_account *acc, struct err *e) MUST_CHECK;
bool ledger_account_paced(struct ledger *l, int64_t account, int64_t until, struct err *e) MUST_CHECK; /* sets paced_until alone; saving leaves it */
bool ledger_accounts(struct ledger *l, bool (*f)(void *ctx, const struct ledger_account *acc), void *ctx, struct err *e);
/* The lock of the account's mailbox, released by the kernel on death; ERR_BUSY when another run has it. Returns a descriptor. */
int ledger_lock(struct ledger *l, struct str mailbox, struct err *e) MUST_CHECK;

/* Marks: what is known of a message of an account. */
enum mark_state {
        MARK_SEEN = 1,    /* settled */
        MARK_HELD,        /* its bytes lie in the spool; to be tried again */
        MARK_QUARANTINED, /* held, and not tried again until the script changes or --failed asks */
        MARK_REFUSED,     /* its server does not give it; attempts counts how often it said so */
};
struct mark {
        int64_t id, account;
        struct str uid;                 /* any bytes; for an archive's message "offset" or file name */
        unsigned occurrence;            /* among equal UIDs */
        enum mark_state state;
        uint8_t header_hash[DIGEST_SIZE], content_hash[DIGEST_SIZE];
        uint64_t size;
        int64_t first_seen, last_seen;
        bool deleted;                   /* a DELE was sent and a QUIT answered */
        enum { MARK_LEAVE_DEFAULT, MARK_LEAVE_ALWAYS, MARK_LEAVE_NEVER, MARK_LEAVE_AGE } leave; /* m:leave_on_server */
        int64_t leave_age;
        unsigned attempts;              /* failed ones, of script_hash */
        uint8_t script_hash[DIGEST_SIZE];
        struct str reason;              /* why it is held: one sentence */
        struct str spool;               /* file below the spool; empty when settled */
        int64_t next_try;               /* refused: not asked for before; INT64_MAX: never again, unless somebody requeues it */
        struct str origin;              /* what a held message needs to come back as it was: key=value lines */
};
/* *found tells. By UID; by content within the account. */
bool ledger_mark(struct ledger *l, int64_t account, struct str uid, unsigned occurrence, struct mark *out, bool *found,
                 struct arena *a, struct err *e) MUST_CHECK;
/* The first with that UID and this occurrence or a later one. */
bool ledger_mark_from(struct ledger *l, int64_t account, struct str uid, unsigned occurrence, struct mark *out, bool *found,
                      struct arena *a, struct err *e) MUST_CHECK;
bool ledger_mark_id(struct ledger *l, int64_t id, struct mark *out, bool *found, struct arena *a, struct err *e) MUST_CHECK;
bool ledger_mark_by_content(struct ledger *l, int64_t account, const uint8_t hash[DIGEST_SIZE], struct mark *out, bool *found,
                            struct arena *a, struct err *e) MUST_CHECK;
bool ledger_mark_by_header(struct ledger *l, int64_t account, const uint8_t hash[DIGEST_SIZE], struct mark *out, bool *found,
                           struct arena *a, struct err *e) MUST_CHECK;
bool ledger_mark_put(struct ledger *l, const struct mark *m, struct err *e) MUST_CHECK; /* by account, uid, occurrence; keeps first_seen */
bool ledger_mark_seen_now(struct ledger *l, const int64_t *ids, size_t n, int64_t now, struct err *e) MUST_CHECK; /* last_seen */
bool ledger_mark_deleted(struct ledger *l, const int64_t *ids, size_t n, struct err *e) MUST_CHECK;
bool ledger_mark_forget(struct ledger *l, int64_t id, struct err *e) MUST_CHECK;
/* Forgets marks without bytes in the spool (settled, refused) not seen since `before`. */
bool ledger_marks_age(struct ledger *l, int64_t account, int64_t before, struct err *e) MUST_CHECK;
/* account 0: all. states: bit (1 << mark_state). Called for each in the order they were first seen; f returns false to end. */
bool ledger_marks(struct ledger *l, int64_t account, unsigned states, bool (*f)(void *ctx, const struct mark *m), void *ctx,
                  struct err *e);
bool ledger_marks_count(struct ledger *l, int64_t account, unsigned states, uint64_t *n, struct err *e) MUST_CHECK;

/* How far a run over an archive came that did not reach its end: the last message it settled or held. */
struct resume {
        uint64_t number;
        struct str uid;
        bool limited;          /* it was told to end there: it was not cut off */
        uint64_t names;        /* a sum over the names of all of them, in any order; 0: not known */
};
bool ledger_resume_get(struct ledger *l, int64_t account, struct resume *out, bool *found, struct arena *a, struct err *e) MUST_CHECK;
bool ledger_resume_set(struct ledger *l, int64_t account, const struct resume *r, struct err *e) MUST_CHECK;
bool ledger_resume_limited(struct ledger *l, int64_t account, struct err *e) MUST_CHECK; /* sets limited */
bool ledger_resume_clear(struct ledger *l, int64_t account, struct err *e) MUST_CHECK;

/* The journal: renames committed and not known to be finished, appends likewise. run: the staging's id; empty in a listing: all. */
struct rename_job {
        int64_t id;
        struct str run;
        struct str staged_dir, staged;   /* absolute directory and name */
        struct str target_dir, target;
        uint64_t dev, ino;
        bool replace;                    /* on_conflict = "replace" */
        bool numbered;                   /* a taken target may be numbered " (2)" (saves); else a new unique name is made (Maildir) */
};
struct append_place {
        uint64_t dev, ino, offset;       /* the file, and how far into it */
};
struct append_job {
        int64_t id;
        struct str run;
        struct str path;                 /* the mbox, absolute */
        struct str staged;               /* spool file with the bytes to append */
        struct append_place from;        /* ours is not before it */
        uint64_t length;
        uint8_t hash[DIGEST_SIZE];
};
bool ledger_rename_add(struct ledger *l, struct rename_job *j, struct err *e) MUST_CHECK;  /* sets id */
bool ledger_rename_done(struct ledger *l, const int64_t *ids, size_t n, struct err *e) MUST_CHECK;
bool ledger_renames(struct ledger *l, struct str run, bool (*f)(void *ctx, const struct rename_job *j), void *ctx, struct err *e);
bool ledger_append_add(struct ledger *l, struct append_job *j, struct err *e) MUST_CHECK;
/* Ours ends at `end`: those of the same path that came later, and those with the same bytes, are behind it. Its spool file goes, once committed. */
bool ledger_append_done(struct ledger *l, int64_t id, const struct append_place *end, struct err *e) MUST_CHECK;
bool ledger_append_from(struct ledger *l, int64_t id, struct append_place *from, struct err *e) MUST_CHECK; /* as it is now; gone: as it was */
bool ledger_appends(struct ledger *l, struct str run, bool (*f)(void *ctx, const struct append_job *j), void *ctx, struct err *e);

/* The outbox: mail and commands that are durable and not yet done. */
enum outbox_kind { OUTBOX_MAIL = 1, OUTBOX_COMMAND };
enum outbox_state {
        OUTBOX_READY = 1, /* to be sent when next_try has come */
        OUTBOX_WAITING,   /* by the flood guard: until `outbox release` or --send */
        OUTBOX_DEAD,      /* dead letter: given up, kept */
};
struct outbox_item {
        int64_t id;
        struct str action;     /* 32 hex digits, the same in every repeat */
        enum outbox_kind kind;
        enum outbox_state state;
        int64_t created;       /* since when it may be sent: the tries of five days count from here */
        int64_t next_try;
        unsigned tries;
        struct str account, source;  /* where the message that asked came from, for people */
        struct str subject;          /* for `outbox list` */
        struct str smarthost;        /* name; empty: the only one */
        struct str sender;           /* envelope; empty: null reverse-path */
        const struct str *recipients; /* those not yet settled */
        size_t recipient_count;
        const struct str *argv;      /* of a command */
        size_t argc;
        struct str spool;            /* the mail's bytes (LF form), or the command's standard input; empty: none */
        bool at_most_once;
        struct str answer;           /* the last one */
};
bool ledger_outbox_add(struct ledger *l, struct outbox_item *i, struct err *e) MUST_CHECK; /* sets id */
bool ledger_outbox(struct ledger *l, unsigned states, bool (*f)(void *ctx, const struct outbox_item *i), void *ctx, struct err *e);
bool ledger_outbox_get(struct ledger *l, int64_t id, struct outbox_item *out, bool *found, struct arena *a, struct err *e) MUST_CHECK;
/* Counts a try. */
bool ledger_outbox_retry(struct ledger *l, int64_t id, enum outbox_state state, int64_t next_try, struct str answer, struct err *e) MUST_CHECK;
/* The same without counting one: before a try that may happen only once, so that a crash in its middle leaves the truth. */
bool ledger_outbox_state(struct ledger *l, int64_t id, enum outbox_state state, struct str answer, struct err *e) MUST_CHECK;
enum recipient_state { RECIPIENT_OPEN, RECIPIENT_ACCEPTED, RECIPIENT_REFUSED };
/* One recipient's last word; it leaves recipients when it is not open any more. */
bool ledger_outbox_recipient(struct ledger *l, int64_t id, struct str recipient, enum recipient_state state, struct str answer,
                             struct err *e) MUST_CHECK;
/* Recipients with their last answers; state: an enum recipient_state. */
bool ledger_outbox_recipients(struct ledger *l, int64_t id, bool (*f)(void *ctx, struct str who, int state, struct str answer),
                              void *ctx, struct err *e);
bool ledger_outbox_remove(struct ledger *l, int64_t id, struct err *e) MUST_CHECK;  /* and its spool file, once committed */
bool ledger_outbox_release(struct ledger *l, int64_t id, uint64_t *n, struct err *e) MUST_CHECK; /* id 0: all that wait; created is now */

/* Saved files that share a name, and what they hold. Only a memory of what was written and read: the disk says what counts. */
struct saved_file {
        struct str dir, name;        /* absolute directory; the name without its number */
        unsigned number;             /* "name (2)" is 2, the name itself 1 */
        uint8_t hash[DIGEST_SIZE];
        uint64_t ino, size;
        int64_t written, changed;    /* mtime and ctime, ns; changed 0: not known, it had not got its name yet */
};
/* Each looks among those of dir and name, and fills in the rest: by number; the one with the highest number below that given; the first with
 * that hash and a number above that given. */
bool ledger_saved(struct ledger *l, struct saved_file *f, bool *found, struct err *e) MUST_CHECK;
bool ledger_saved_last(struct ledger *l, struct saved_file *f, bool *found, struct err *e) MUST_CHECK;
bool ledger_saved_by_hash(struct ledger *l, struct saved_file *f, bool *found, struct err *e) MUST_CHECK;
bool ledger_saved_put(struct ledger *l, const struct saved_file *f, struct err *e) MUST_CHECK;
bool ledger_saved_drop(struct ledger *l, const struct saved_file *f, struct err *e) MUST_CHECK; /* that number and all above */
bool ledger_saved_age(struct ledger *l, int64_t before, struct err *e) MUST_CHECK; /* names under which nothing was saved since */

/* Stores: mail.store, and mail.seen (store "seen"). A value is bytes; expires 0: never. */
bool ledger_store_get(struct ledger *l, struct str store, struct str key, struct str *value, bool *found, struct arena *a,
                      struct err *e) MUST_CHECK; /* an expired value is absent */
bool ledger_store_set(struct ledger *l, struct str store, struct str key, struct str value, int64_t expires, struct err *e) MUST_CHECK;
bool ledger_store_remove(struct ledger *l, struct str store, struct str key, struct err *e) MUST_CHECK;
bool ledger_store_each(struct ledger *l, struct str store, bool (*f)(void *ctx, struct str key, struct str value), void *ctx, struct err *e);

#endif
