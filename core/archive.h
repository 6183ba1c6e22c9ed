/* What the sources that are archives share. Private to them. */
#ifndef CORE_ARCHIVE_H
#define CORE_ARCHIVE_H

#include "core/buf.h"
#include "core/gather.h"
#include "core/source.h"
#include "core/unbundle.h"

struct archive {
        struct source base;
        struct limits lim;
        char *name;          /* owns base.name */
        char *tmp_dir;
        struct slurp in;
        struct gather gather;
        struct str taking;   /* UID of the message that is being gathered */
        struct unbundle *layer; /* between `in` and its file: a message that is compressed by itself */
        bool exact;          /* a mail program wrote its files: a byte order mark in one belongs to the message */
        uint64_t number;     /* messages given so far */
        uint64_t unread;     /* entries that could not be read: finish fails because of them */
        struct archive *within; /* a file or a member that is itself an archive, while it is read */
        struct archive *outer;  /* of what is within: the other one */
        char *place;         /* where it lies in the outer one: stands before every uid, since uids are told apart in all of it */
};

/* a lies in cleared memory. False when out of memory; archive_close is due in any case. */
bool archive_init(struct archive *a, const struct source_ops *ops, struct str name, const struct limits *lim, const char *tmp_dir,
                  struct err *e) MUST_CHECK;
void archive_close(struct archive *a);
/* Makes the message of what has been gathered, and counts it. Whoever reads the source parses it. *out NULL: it is larger than
 * limits.message, and has been left out with a warning. */
bool archive_give(struct archive *a, struct origin *o, struct message **out, struct err *e) MUST_CHECK;
/* Fills the first block of the input, as far as it can be read: it fails when nothing of it can. */
bool archive_fill(struct archive *a, struct err *e) MUST_CHECK;
/* What is compressed as a whole becomes what it is without: so Dovecot's zlib plugin keeps the messages of a Maildir. */
bool archive_uncompress(struct archive *a, struct err *e) MUST_CHECK;
/* The regular file dir/path becomes the archive's input, its time goes into *time. Passed over: it cannot be read, or is no regular
 * file, which has been logged and counted. Gone: it is not there any more. False: nothing can be read any more. */
enum archive_opened { FILE_OPEN, FILE_PASSED_OVER, FILE_GONE };
bool archive_open_file(struct archive *a, int dir, struct str path, int64_t *time, enum archive_opened *how, struct err *e) MUST_CHECK;
/* Reading dir/path has failed: true when that is the file's own misfortune, which has been logged and counted. */
bool archive_pass_over(struct archive *a, struct str path, const struct err *e) MUST_CHECK;
/* "archive/path", for origin.source; the caller frees it. NULL when out of memory. */
char *archive_path(const struct archive *a, struct str path) MUST_CHECK;
/* s, which lies at `place` in a ({NULL,0}: it is all of it), is read from now on, and numbers go on in it. s NULL: opening it has
 * failed, and so does this. next gives its messages, and leaves it at its end; after a failure archive_leave is the caller's. */
bool archive_enter(struct archive *a, struct source *s, struct str place, struct err *e) MUST_CHECK;
bool archive_within_next(struct archive *a, struct message **out, struct err *e) MUST_CHECK;
void archive_leave(struct archive *a);
/* A message with this UID, which stays where it is until the message is given, begins at this offset of the input: gather_begin. */
void archive_begin(struct archive *a, uint64_t start, struct str uid);
bool archive_stopped(const struct archive *a);
/* For source_ops: an archive is only read. */
void archive_settle(struct source *s, const struct outcome *o, size_t n);
bool archive_finish(struct source *s, struct err *e);
/* The same for what consists of files: says so when all that is in it is no mail. */
bool archive_finish_files(struct source *s, struct err *e);

/* Doors for an input whose beginning has been looked at. They own what is in *in, also when they fail. */
struct source *mbox_from(struct slurp *in, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e) MUST_CHECK;
struct source *eml_from(struct slurp *in, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e) MUST_CHECK;
struct source *bundle_from(struct slurp *in, struct str name, const struct limits *lim, const char *tmp_dir, struct err *e) MUST_CHECK;
/* Whether a file that begins so is an mbox, or a message: by a From_ line that has a right shape, by a field that mail has. */
bool archive_is_mbox(struct str head);
bool archive_is_mail(struct str head);
/* Apple Mail's .emlx: a line with the length of the message stands before it, and a property list behind. The bytes of that line, and
 * the length; 0 when it begins otherwise. */
size_t archive_emlx_line(struct str head, uint64_t *length);
/* The letters behind ":2," in a Maildir file's name, sorted, each once. */
struct str maildir_flags(struct str file, char out[27]);
/* The name of the folder at path: ".Archive.2024" and "Archive/2024" are both Archive/2024. */
bool maildir_folder(struct str path, struct buf *out, struct err *e) MUST_CHECK;
/* Where the text begins behind a byte order mark and, for an mbox, blank lines; true when it begins with "From ". */
bool archive_begins_mbox(struct str head, size_t *at);
/* One message: a byte order mark and a From_ line in front of it are left out. */
bool eml_read(struct archive *a, struct origin *o, struct message **out, struct err *e) MUST_CHECK;

#endif
