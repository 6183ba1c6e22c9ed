/* Between names*.c only: one question for a name, and what is known of the files that have it. */
#ifndef CORE_NAMES_INT_H
#define CORE_NAMES_INT_H

#include <pthread.h>
#include <sys/stat.h>

#include "core/staging_int.h"

struct learned;

struct names {
        pthread_mutex_t lock;
        bool keep;
        struct map *promised, *series, *facts; /* by absolute path */
        struct ledger *ledger;                 /* may be NULL */
        struct learned *learned;               /* for the next transaction; NULL: nothing yet */
        struct map *spelled, *listed;          /* names_caseless: by key, how it is spelled; directories read. NULL: case counts */
};

struct asking {
        struct names *n;
        struct root *r;
        names_hash *hash;
        void *ctx;
        bool hashed;
        uint8_t mine[DIGEST_SIZE];
        struct str base;       /* key of the name that is numbered */
        struct arena *a;
        struct err *e;
};

enum there { THERE_NOTHING, THERE_PROMISE, THERE_FILE, THERE_OTHER, THERE_FAILED };
/* What stands at a path; nothing is opened for reading, and no link followed. */
enum there look_on_disk(struct root *r, struct str path, struct stat *st, struct err *e);

/* What a path is known by: the absolute path, or, where case does not count, one that is equal for all spellings. {NULL,0}: no memory. */
struct str names_key(const struct names *n, const struct root *r, struct str path, struct arena *a);
/* *out: the name that stands or is promised there, perhaps in another spelling. *own: the name asked for, in its directory as that is spelled. */
bool names_spelling(struct asking *q, struct str path, struct str *own, struct str *out);
bool names_spelled(struct names *n, struct str key, struct str path); /* it was promised so; false: no memory */

/* What the state says of number `number` of q->base, when the file at hand may be trusted to be that one still: unchanged since it was read,
 * or, where its content is not what is asked for, only probably so (a wrong guess then costs a second copy, never a lost one). */
bool known_hash(const struct asking *q, unsigned number, const struct stat *st, uint8_t out[DIGEST_SIZE]);
/* The number of a file of q->base that had this content, above *number and below `below`. */
bool known_number(const struct asking *q, unsigned below, unsigned *number);
/* The highest number that is known, below `below`; 0: none. */
unsigned known_last(const struct asking *q, unsigned below);
/* Was read; are not there any more (that number and all above). Both are written with the next batch. */
void known_read(const struct asking *q, unsigned number, const struct stat *st, const uint8_t hash[DIGEST_SIZE]);
void known_gone(const struct asking *q, unsigned number);
/* Is about to be written under the name promised. */
void known_promised(struct names *n, struct str base, unsigned number, const uint8_t hash[DIGEST_SIZE], const struct staged *o);

#endif
