/* Appending to an mbox (mboxrd), so that a message stands in it whole and once whatever dies in between.
 *
 *     mboxout_stage    the very bytes to append go to the spool; the job for the journal says what and where
 *     staging_sync     with the job's descriptor among fds
 *     ledger_append_add, in the transaction
 *     mboxout_append   after it
 *     ledger_append_done, with the next transaction, behind its own ledger_append_add (the spool file goes with it)
 *
 * What a dead run has not finished, staging_open finishes. */
#ifndef CORE_MBOXOUT_H
#define CORE_MBOXOUT_H

#include "core/staging.h"

/* Writes the From_ line (of the envelope sender, empty: MAILER-DAEMON, and the time), the feed in mboxrd quoting, and the blank line
 * behind it into the spool. Fills in all of *out but its id. The directories of root/path are made when missing; what is there and
 * is no plain file is ERR_EXISTS. *fd as staging_spool has it. To drop it: staging_spool_remove of out->staged. */
bool mboxout_stage(struct staging *s, struct root *r, struct str path, struct feed feed, struct str sender, int64_t time,
                   struct append_job *out, int *fd, struct arena *a, struct err *e) MUST_CHECK;

/* Appends under a dot lock and an fcntl lock, and syncs. ERR_BUSY when another program holds the mbox for more than 30 s. again: it may have
 * been done, or begun, before: then it is looked for first, and only what is missing is written. Nothing is ever cut off. *end: where ours ends. */
bool mboxout_append(struct ledger *l, const struct append_job *j, bool again, struct append_place *end, struct err *e) MUST_CHECK;

#endif
