/* Between the files of staging only: roots and paths, the cache of directories, rolling forward. */
#ifndef CORE_STAGING_INT_H
#define CORE_STAGING_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/ledger_int.h"
#include "core/map.h"
#include "core/pool.h"
#include "core/staging.h"

enum {
        DIRS_KEPT = 128,      /* directories kept open though nothing is staged in them */
        PENDING_MAX = 64,     /* directories that got a new directory, to be synced with the next batch */
        RUN_ID = 16,          /* hex digits of a run's id */
        FDS_MAX = 4096,       /* no more descriptors than this, whatever the system allows */
};

/* An open directory, found by its absolute path. */
struct place {
        struct str path;
        int fd;
        unsigned refs;        /* outputs on their way that need it */
        bool noted;           /* in the run's list of directories to clean */
        struct place *newer, *older; /* among those with no refs, by last use */
};

struct staging {
        struct ledger *l;
        char id[RUN_ID + 1];
        int spool, held, notes; /* spool/ID; its lock; its list of directories */
        int fd_max;             /* places_fd_max */
        atomic_uint_fast64_t count, outstanding;
        atomic_bool spool_dirty;

        pthread_mutex_t lock;   /* of everything down to the blank line */
        struct map *places, *noted;
        struct place *newest, *oldest;
        unsigned idle;
        struct {
                int fd;
                uint64_t dev, ino;
        } pending[PENDING_MAX];
        size_t pending_n;
        bool notes_dirty;
        struct arena *kept;     /* names given because the promised one was taken */
        struct block *blocks;   /* free buffers */

        pthread_mutex_t sync_lock; /* one batch at a time is made durable */
        bool failed;               /* a sync has failed: nothing may be trusted any more */
        struct pool *pool;
        struct sync_cost {
                int64_t whole_us, each_us; /* what syncfs took of late, and a descriptor synced by threads; 0: not known */
                unsigned rest;             /* groups for which syncfs is not tried again, for it was the slower one */
        } files, dirs;
};

/* ---- root.c */
/* Relative, without empty and "." components; ".." and absolute paths are ERR_USAGE. Empty: the root itself. {NULL,0}: failure. */
struct str path_tidy(struct str path, struct arena *a, struct err *e) MUST_CHECK;
struct str path_join(struct str dir, struct str name, struct arena *a) MUST_CHECK;
/* The part before the last '/' (empty when there is none), and the name behind it. */
struct str path_dir(struct str path, struct str *name);
/* Opens an absolute path that held no symbolic link when it was recorded, and must hold none now. */
int path_open(struct str absolute, int flags, struct err *e) MUST_CHECK;
int path_make(struct str absolute, struct err *e) MUST_CHECK; /* a directory, made again when it is missing */

/* ---- staging_dirs.c */
int places_fd_max(void); /* a descriptor above this number is not kept */
bool places_init(struct staging *s, struct err *e) MUST_CHECK;
void places_free(struct staging *s);
/* root/rel, made when missing; counted until places_put. note: something will be staged in it. p->fd may be -1: see places_fd. */
struct place *places_get(struct staging *s, struct root *r, struct str rel, bool note, struct arena *a, struct err *e) MUST_CHECK;
void places_put(struct staging *s, struct str path);
/* The descriptor, or one opened now (then *own is set, to be closed). */
int places_fd(int fd, struct str path, bool *own, struct err *e) MUST_CHECK;
/* New directories, and the list of directories, made durable. Called under sync_lock. */
bool places_sync(struct staging *s, struct err *e) MUST_CHECK;

/* ---- staging.c */
void staging_free_blocks(struct staging *s);
/* Closes what o holds open and gives its directories back. */
void staging_release(struct staging *s, struct staged *o);

/* ---- staging_sync.c */
/* Gives a staged file its name. taken (not NULL): set when it had to be another one; *target is then that one, in a. */
bool place_name(int from, struct str staged, int to, struct str *target, bool replace, bool numbered, bool *taken, struct arena *a,
                struct err *e) MUST_CHECK;
bool staging_sync_dirs(struct staging *s, struct map *paths, struct err *e) MUST_CHECK;

/* ---- staging_recover.c */
/* Finishes and cleans what the run left, unless it lives. */
bool recover_run(struct ledger *l, int spool, struct str id, bool scan, unsigned *recovered, struct err *e) MUST_CHECK;

#endif
