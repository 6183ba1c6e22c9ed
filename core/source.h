/* A source of messages: a POP3 account, an archive, the spool of held messages. One thread reads it; the run's main thread
 * answers what became of each message. */
#ifndef CORE_SOURCE_H
#define CORE_SOURCE_H

#include <stdatomic.h>

#include "core/message.h"

/* What became of a message, told to its source. */
struct outcome {
        uint64_t number;  /* origin.number of the message */
        enum outcome_kind {
                OUTCOME_SETTLED, /* carried out and durable: DELE is allowed */
                OUTCOME_HELD,    /* its bytes are durable in the spool, but it must stay on the server */
                OUTCOME_UNDONE,  /* nothing happened: it was not decided, or not committed */
        } kind;
        enum outcome_leave { LEAVE_DEFAULT, LEAVE_ALWAYS, LEAVE_NEVER, LEAVE_AGE } leave; /* m:leave_on_server */
        int64_t leave_age; /* seconds since first seen, for LEAVE_AGE */
};

struct source;
struct source_ops {
        /* The next message (the caller frees it), or *out NULL at the end. False: the source has failed; the messages it gave before
         * stand. Called on the source's own thread, as are all of these. */
        bool (*next)(struct source *s, struct message **out, struct err *e);
        /* Outcomes that have come in since the last call; may send DELE. A failure here shows at next or finish. */
        void (*settle)(struct source *s, const struct outcome *o, size_t n);
        /* Every message has its outcome: delete what is due, QUIT where that is safe. Also called after next has failed. */
        bool (*finish)(struct source *s, struct err *e);
        void (*free)(struct source *s);
};

struct source {
        const struct source_ops *ops;
        struct str name;          /* for people: the account's name, the path as given */
        bool archive;
        bool prompt;              /* all of it lies on a disk: next waits for no server and no other program */
        struct account *account;  /* NULL for an archive */
        /* Progress, read by other threads. Totals of 0 are unknown. */
        atomic_uint_fast64_t total_messages, total_bytes, done_messages, done_bytes;
        atomic_uint_fast64_t skipped; /* messages left out because they were seen before, or are no mail */
        atomic_uint_fast64_t marked;  /* of those, messages that were marked as seen without a look, because somebody asked for that */
        atomic_bool stop;         /* set by the run: next ends soon */
        /* Set by next together with *out NULL: not the end. It is called again once every message that it gave has its outcome. */
        bool rests;
        /* Asked by an archive that would parse a large message while it reads it: may it? Parsing may kill the process, so somebody has to
         * know over which message, and one that has done so is not parsed again. NULL: no. */
        bool (*may_parse)(void *ctx, struct str uid);
        void *may_parse_ctx;
};

void source_free(struct source *s); /* may be NULL */

/* Opens an archive by what it is: a Maildir, an MH folder, a folder of .eml files, an mbox, a single message, any of them compressed or
 * packed; "-" is standard input. Kind by content and shape, not by name (but a file named .eml is one message unless it is an mbox). The
 * error names path as it is given. tmp_dir: where a large message that is not in LF form as it lies, or comes from a pipe or out of
 * something compressed, is kept while it is read. */
struct source *source_open(struct str path, const struct limits *lim, const char *tmp_dir, struct err *e) MUST_CHECK;
/* Expands globs and ~ in path and calls f for each name, sorted; a pattern that matches nothing is ERR_ABSENT. */
bool source_glob(struct str pattern, bool (*f)(void *ctx, struct str path, struct err *e), void *ctx, struct err *e);

/* Each kind's own door (source_open chooses). */
struct source *mbox_open(int fd, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e) MUST_CHECK;
struct source *maildir_open(int dir, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e) MUST_CHECK;
struct source *mh_open(int dir, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e) MUST_CHECK; /* ERR_ABSENT: it is none */
struct source *eml_open(int fd, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e) MUST_CHECK;
struct source *eml_folder_open(int dir, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e) MUST_CHECK;

#endif
