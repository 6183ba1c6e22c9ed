/* New mail made from old: forwards, redirects, replies, copies with changed headers. Composing builds a list of segments (text of
 * ours, ranges of the message as they are, bodies to be encoded); reading it streams them, so nothing large is held in memory. */
#ifndef CORE_COMPOSE_H
#define CORE_COMPOSE_H

#include "core/message.h"
#include "core/staging.h"

struct compose_field {
        struct str name, value;          /* value: UTF-8; {NULL,0} removes fields of that name */
        struct compose_field *next;
};
struct compose_file {                    /* an attachment */
        struct part *part;               /* its decoded bytes, or NULL: */
        struct str bytes;
        struct str name, type;           /* type empty: the part's, or application/octet-stream */
        struct compose_file *next;
};
struct compose {
        enum { COMPOSE_NEW, COMPOSE_ATTACH, COMPOSE_INLINE, COMPOSE_REDIRECT } how; /* the last three need original */
        struct message *original;
        struct str from;                 /* header From: "Name <a@b>" or an address */
        const struct str *to, *cc, *bcc; /* header To and so on; for COMPOSE_REDIRECT Resent-To */
        size_t to_n, cc_n, bcc_n;
        struct str subject, text, reply_to, in_reply_to, references; /* UTF-8; empty: none, or what the kind of mail implies ("Fwd: …") */
        struct compose_field *fields;    /* further ones */
        struct compose_file *files;
        struct str action;               /* the action id: X-Mailmill-Action, and our loop header's value */
        struct str hostname;             /* for Message-ID */
        int64_t date;
};

struct mail_stream;                      /* segments being read; lives in the arena given */
/* Checks (no CR LF NUL in any value, addresses as addr_check says) and builds. Bytes come out in LF form, 7-bit unless the original's own
 * bytes are 8-bit. The errors name the field. */
struct mail_stream *compose(const struct compose *c, struct arena *a, struct err *e) MUST_CHECK;
/* The message with header fields set or removed, and saved parts replaced by stubs naming their path (detach). */
struct compose_stub {
        struct part *part;
        struct str path;
        struct compose_stub *next;
};
struct mail_stream *compose_copy(struct message *m, const struct compose_field *fields, const struct compose_stub *stubs,
                                 struct arena *a, struct err *e) MUST_CHECK;
/* The message itself, unchanged; a part's decoded bytes. */
struct mail_stream *compose_as_is(struct message *m, struct arena *a, struct err *e) MUST_CHECK;
struct mail_stream *compose_part(struct part *p, struct arena *a, struct err *e) MUST_CHECK;
/* The subject that mail has: the one given, or what the kind of mail implies. {NULL,0} when there is no memory. */
struct str compose_subject(const struct compose *c, struct arena *a);
struct feed mail_stream_feed(struct mail_stream *s); /* from the beginning */
void mail_stream_close(struct mail_stream *s);       /* closes readers; may be NULL */

#endif
