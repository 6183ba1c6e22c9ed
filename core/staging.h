/* Staging: outputs written beside their targets under hidden names, durable before they are promised, visible only after.
 *
 * Each run has an id and a directory `spool/ID` in the state, locked while the run lives. Whatever it stages carries the id in its
 * name, and each directory it stages into is noted in spool/ID/dirs first. So the next run can tell what a dead run left: committed renames
 * (in the journal) are rolled forward, everything else with the dead id is removed. Live runs are left alone, and so is a spool that
 * the state doesn't know (the state was lost, or a backup put in its place).
 *
 * staging_file, _maildir, _spool, _tmpfile, _drop may be called from several threads at once. SIGXFSZ must be ignored. */
#ifndef CORE_STAGING_H
#define CORE_STAGING_H

#include "core/ledger.h"
#include "core/message.h"

struct staging;

/* Rolls forward and cleans what dead runs left, then opens a place for this one. *recovered counts renames finished. */
struct staging *staging_open(struct ledger *l, unsigned *recovered, struct err *e) MUST_CHECK; /* before the process confines itself */
void staging_close(struct staging *s); /* removes the run's directory when nothing in it is promised; finishes what is in the journal */
struct str staging_id(const struct staging *s);

/* A directory that scripts write below. Opened once; world-writable ones (without sticky bit) are refused. */
struct root;
struct root *root_open(struct str path, struct err *e) MUST_CHECK;   /* made when missing (0700) */
/* For a rehearsal: nothing is made. Below a directory that is missing nothing is found. */
struct root *root_look(struct str path, struct err *e) MUST_CHECK;
void root_close(struct root *r);
struct str root_path(const struct root *r);                          /* absolute */
int root_fd(const struct root *r);

/* One output on its way. */
struct staged {
        int dir;                    /* where the staged name lies; owned by the staging (cached); -1 when too many are open */
        int target_dir;
        struct str dir_path, target_path; /* absolute directories */
        struct str name, target;    /* names in them */
        uint64_t dev, ino, size;
        int64_t written;            /* mtime, ns */
        int fd;                     /* open for syncing; -1 once synced and closed, or when too many are open */
        bool synced;                /* staging_sync is done with it */
        bool published;             /* it has its name, durably */
        bool replace, numbered;     /* a save is numbered; the caller sets replace */
        int64_t journal;            /* id of its row */
};

/* Where bytes come from: fill returns bytes written into p, 0 at the end, -1 on failure. */
struct feed {
        ssize_t (*fill)(void *ctx, char *p, size_t n, struct err *e);
        void *ctx;
};

/* Writes the feed to a hidden name beside root/path (0600, O_EXCL; directories made). Nothing is synced yet. */
bool staging_file(struct staging *s, struct root *r, struct str path, struct feed feed, struct staged *out, struct arena *a,
                  struct err *e) MUST_CHECK;
/* The same into the tmp/ of the Maildir folder root/folder (tmp, new, cur made when missing); its target is new/NAME, or
 * cur/NAME:2,FLAGS when flags are given. */
bool staging_maildir(struct staging *s, struct root *r, struct str folder, struct str flags, struct feed feed, struct staged *out,
                     struct arena *a, struct err *e) MUST_CHECK;
/* The same into the spool: for the outbox and held messages. *name is what goes into the ledger ("ID/7"). *fd is the caller's, to be given
 * to staging_sync and closed; -1 when too many are open, and the file is then durable already. */
bool staging_spool(struct staging *s, struct feed feed, struct str *name, int *fd, struct arena *a, struct err *e) MUST_CHECK;
int staging_spool_open(struct ledger *l, struct str name, struct err *e) MUST_CHECK; /* to read */
void staging_spool_remove(struct ledger *l, struct str name);        /* unless the ledger still needs it; in a transaction: after it */
int staging_tmpfile(struct staging *s, struct err *e) MUST_CHECK;    /* unnamed, in the spool */
void staging_drop(struct staging *s, struct staged *o);              /* unlinks and closes: it is not wanted */
bool staging_taken(const struct staged *o);                          /* is there a file of that name by now? asked before commitment */

/* Makes everything staged in o[0..n) durable: the files (and fds[0..m), spool files, -1 passed over) by syncfs when they are many
 * and it reaches the disk, else by fdatasync; and the directories that hold their staged names. Closes o[i].fd, not fds. After a failed
 * sync nothing of it may be trusted: every later one fails too, and the run must end. */
bool staging_sync(struct staging *s, struct staged *const *o, size_t n, const int *fds, size_t m, struct err *e) MUST_CHECK;
/* After the commitment: gives them their names without replacing (or replacing, where said), and syncs every directory touched. A
 * taken target: the next free name, reported through took (may be NULL), and then put into o->target. On failure the others have been
 * tried all the same, and o->published tells; the journal's rows of the rest stay, and the next start finishes them. */
bool staging_publish(struct staging *s, struct staged *const *o, size_t n,
                     void (*took)(void *ctx, struct staged *o, struct str name), void *ctx, struct err *e) MUST_CHECK;

/* Saving under a name that may be taken. taken: names promised by plans not yet carried out (by absolute path). */
enum on_conflict { CONFLICT_NUMBER, CONFLICT_KEEP, CONFLICT_REPLACE, CONFLICT_FAIL };
struct names; /* promised names of this run: absolute path -> content hash */
typedef bool names_hash(void *ctx, uint8_t out[DIGEST_SIZE], struct err *e);
/* What earlier runs saved is looked up in the ledger (NULL: only on the disk) before it is read. */
struct names *names_new(struct ledger *l) MUST_CHECK;
void names_free(struct names *n);
void names_keep(struct names *n); /* promises will outlive what they are made for (a dry run): content is hashed at once */
/* Names that differ in case only are one from here on (before the first is taken): the one that is there, or was promised, stands. False: no
 * memory. What others make while the run goes on is not looked for again, but under its very name. */
bool names_caseless(struct names *n) MUST_CHECK;
/* The path (relative to the root) that content with this hash gets: path itself when it is free or holds the same content (*same is
 * set: nothing needs to be written), else numbered, by on_conflict. Promises it until names_release (with the path given out; once
 * carried out, or dropped; also when *same was set). hash is asked when the name is taken; a free name is given without, and hash and
 * ctx are kept until its names_release: should another ask for the name before, hash is called then, on the thread that asks, at most
 * once (ctx must bear that while its bytes are being staged elsewhere). Constant time for the ten-thousandth equal name. What is
 * there and is no plain file is never opened: another name. Any thread. */
bool names_take(struct names *n, struct root *r, struct str path, enum on_conflict how, names_hash *hash, void *ctx, struct str *out, bool *same,
                struct arena *a, struct err *e) MUST_CHECK;
void names_release(struct names *n, struct root *r, struct str path);
/* Where *same was set, and until the release: does the file that is there hold that content still? What was read once is not read again
 * while it stays the same file. */
bool names_hold(struct names *n, struct root *r, struct str path, struct arena *a);
/* For the ledger: what is staged under a promised name, where its content is known. Then, before the transaction, everything that was
 * learned since the last (NULL: nothing), to be written in it. A transaction that fails may lose it. */
struct learned;
void names_staged(struct names *n, struct root *r, struct str path, const struct staged *o);
struct learned *names_take_learned(struct names *n);
bool learned_write(const struct learned *k, struct ledger *l, struct err *e) MUST_CHECK;
void learned_free(struct learned *k);

#endif
