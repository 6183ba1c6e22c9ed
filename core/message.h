/* A message: a range of bytes, and everything it says, found when first asked for. The root part is the message itself.
 *
 * A message belongs to one thread at a time. Nothing here fails because mail is broken: what cannot be decoded comes back as best it
 * can and message_defects says so. {NULL,0} as a str means "there is none"; failures left are out of memory and reading a file,
 * which make the answer empty and set message_trouble, so that the caller can hold the message. */
#ifndef CORE_MESSAGE_H
#define CORE_MESSAGE_H

#include "core/addr.h"
#include "core/header.h"
#include "core/limits.h"
#include "core/range.h"

struct message;
struct part;

/* Where a message came from and what its source knows about it. Strings are copied into the message. */
struct origin {
        struct str source;       /* as a person names it: "work" or "old.mbox" or "dir/cur/123:2,S" */
        struct str account;      /* {NULL,0} for an archive */
        struct str uid;          /* POP3 UID; {NULL,0} when there is none */
        struct str folder;       /* Maildir folder below the source ("Archive/2024"); empty for INBOX or none */
        struct str flags;        /* Maildir letters, "FS"; from Status/X-Status in an mbox */
        struct str envelope_to;  /* Delivered-To / X-Original-To / Envelope-To are read from the header when empty */
        struct str envelope_from;/* the From_ line's sender; may be empty */
        int64_t time;            /* the source's own time (From_ line, file time), 0: unknown */
        int64_t fetched;         /* when it was read, sys_now() */
        uint64_t number;         /* its place in the source, 1.. */
        uint64_t offset;         /* in the archive's file */
        unsigned occurrence;     /* among equal UIDs, 0.. */
        bool suspect;            /* perhaps cut off: shorter than its server said, twice; or its file ends within it */
        bool longer;             /* ten times longer than its server said, and more */
        bool ambiguous;          /* of an mbox: where it begins or ends, or what was quoted, can be read two ways */
};

/* The bytes are those of r; the message takes its own reference of r.in. LF form (CRLF has become LF) is the source's duty.
 * lim is copied. NULL when out of memory. */
struct message *message_new(struct range r, const struct origin *o, const struct limits *lim, struct err *e) MUST_CHECK;

/* The structure of a message, found while its bytes are read for the first time: it spares message_parse a pass over a file. */
struct sketch;
struct sketch *sketch_new(const struct limits *lim) MUST_CHECK;  /* NULL when out of memory */
bool sketch_feed(struct sketch *s, struct str bytes) MUST_CHECK; /* in order, all of them; false: out of memory, and it is of no use */
bool sketch_end(struct sketch *s) MUST_CHECK;                    /* that was all; false as above */
void sketch_free(struct sketch *s);                              /* may be NULL */
/* m, made with the same limits and not parsed yet, owns it from now on. s was ended; it may be NULL. */
void message_take_sketch(struct message *m, struct sketch *s);
void message_free(struct message *m);
/* Finds the structure now (the reading thread calls it, so that the script need not wait); asked for anyway when needed. */
bool message_parse(struct message *m, struct err *e) MUST_CHECK;
/* What has been asked of a message so far, as bits; and the same found for another before it is asked there, by the thread that it
 * belongs to. Answers and defects are those that there would be without. */
unsigned message_asked(const struct message *m);
void message_look_ahead(struct message *m, unsigned asked);
const struct origin *message_origin(const struct message *m);
struct range message_range(const struct message *m);
uint64_t message_size(const struct message *m);
/* SHA-256 of all its bytes; header_identity of its header. False on read failure. */
bool message_hash(struct message *m, uint8_t out[32], struct err *e) MUST_CHECK;
bool message_identity(struct message *m, uint8_t out[32], struct err *e) MUST_CHECK;
/* Sets the hash when a source has computed it while streaming. */
void message_set_hash(struct message *m, const uint8_t hash[32]);
/* The first failure that made an answer empty (err_code ERR_NONE when all is well). */
const struct err *message_trouble(const struct message *m);
const struct limits *message_limits(const struct message *m);

/* Fields of the message itself, UTF-8, in the message's arena. */
struct str message_field(struct message *m, struct str name);      /* decoded first field of that name; {NULL,0} absent */
size_t message_fields(struct message *m, struct str name, struct str **out); /* all of them, decoded, in order */
struct str message_subject(struct message *m);                     /* never {NULL,0} */
const struct addr *message_addresses(struct message *m, struct str field); /* parsed list over all fields of that name; NULL: none */
int64_t message_date(struct message *m);      /* Date, else Received, else origin.time, else fetched, with a defect */
int64_t message_received(struct message *m);  /* topmost Received, else origin.time, else fetched */
struct str message_envelope_to(struct message *m);                 /* {NULL,0} when nothing says it */
struct str message_id(struct message *m);                          /* without <>; {NULL,0} */
size_t message_ids(struct message *m, struct str field, struct str **out); /* of References, In-Reply-To, without <> */
struct str message_list_id(struct message *m);                     /* what stands in <>, lower case; {NULL,0} */
/* UTF-8 of the best text part: text/plain preferred unless it only follows html, format=flowed unwrapped, html made readable; never {NULL,0}. */
struct str message_text(struct message *m);
struct str message_html(struct message *m);   /* UTF-8 of the best html part; {NULL,0} when none */
unsigned message_received_count(struct message *m);                /* Received fields */
/* Names such as "ambiguous.boundary", in the order found; grows as more is asked for. */
const char *const *message_defects(struct message *m, size_t *n);
void message_add_defect(struct message *m, const char *name /* static */);
/* True when a parsing limit was reached: there may be more than the answers show. */
bool message_over_limit(struct message *m);

/* Parts. Leaves in document order as RFC 2045 sees them, into message/rfc822 that is not itself encoded. */
struct part *message_root(struct message *m);
size_t message_leaves(struct message *m, struct part ***out);
/* The same with wrappers opened, their contents in their place: message/rfc822 that is encoded, TNEF (winmail.dat), S/MIME signed data;
 * and behind each text/plain the files uuencoded in it. A wrapper that cannot be read is a leaf, with a defect. */
size_t message_open_leaves(struct message *m, struct part ***out);
/* Those for which part_attached holds. */
size_t message_attachments(struct message *m, struct part ***out);
/* The same with archives (zip, tar, 7z, gzip, xz, zstd, bzip2) opened, and those in them. One that was read whole stands aside for its
 * members; one that is damaged, holds encrypted members or links, or is beyond the limits stands before those that could be had. */
size_t message_unpacked(struct message *m, struct part ***out);
/* The members of p, whole files and encrypted ones, when its bytes are those of an archive; none otherwise. */
size_t part_members(struct part *p, struct part ***out);
/* The same with what is in them. */
size_t part_unpacked(struct part *p, struct part ***out);
/* Where a member lies in its archive, UTF-8; {NULL,0} for what is none. Only a name, as part_name. */
struct str part_member(struct part *p);
/* Its content cannot be had without a key: an encrypted member, an archive that has one (opens it), S/MIME, PGP/MIME. */
bool part_encrypted(struct part *p);
/* False, saying why, for an encrypted member: it has no content here. */
bool part_readable(const struct part *p, struct err *e) MUST_CHECK;
/* The S/MIME signature that p (of the root: the whole body) lies under, checked against the certificates in ca, PEM ({NULL,0}: those that the
 * system trusts), as of the time `at`. *found false: there is none. False on failures of this machine, and ERR_SYNTAX for ca. */
struct signature;
bool part_signature(struct part *p, struct str ca, int64_t at, bool *found, struct signature *out, struct err *e) MUST_CHECK;
/* Children of a container, or the contents of a wrapper (none for any other leaf). */
size_t part_children(struct part *p, struct part ***out);
struct message *part_message(struct part *p);
struct str part_path(struct part *p);         /* IMAP numbering: "1", "2.1" */
unsigned part_index(struct part *p);          /* its number among the leaves, 1..; 0 for a container */
struct str part_type(struct part *p);         /* declared, lower case; the RFC's default when absent */
struct str part_detected(struct part *p);     /* libmagic's on the decoded bytes, looked at when first asked; empty for a container */
struct str part_charset(struct part *p);      /* declared, lower case; us-ascii default for text, else {NULL,0} */
struct str part_disposition(struct part *p);  /* "attachment", "inline"; {NULL,0} */
struct str part_name(struct part *p);         /* filename*, filename, name, decoded; raw, never a path to trust; {NULL,0} */
struct str part_id(struct part *p);           /* Content-ID without <>; {NULL,0} */
struct str part_field(struct part *p, struct str name);
uint64_t part_size(struct part *p);           /* decoded bytes; decodes once to know */
uint64_t part_encoded_size(struct part *p);
bool part_sha256(struct part *p, uint8_t out[32], struct err *e) MUST_CHECK; /* of the decoded bytes; computed once */
/* The same, of the root part the message's; changes nothing in the message, which may be on another thread meanwhile, where only its
 * bytes are read. */
bool part_sha256_aside(const struct part *p, uint8_t out[32], struct err *e) MUST_CHECK;
/* Good until the same is asked of another part of the message: ten thousand texts must not add up. */
struct str part_text(struct part *p);         /* decoded, UTF-8, LF, up to limits.text; of what is not readable nothing */
struct str part_content(struct part *p);      /* decoded bytes, up to limits.text */
bool part_is_container(struct part *p);
bool part_is_root(struct part *p);
bool part_is_wrapped(const struct part *p);   /* in a wrapper, or in another reading: no range of the message itself is this part alone */
bool part_attached(struct part *p, struct str *reason); /* would a person call it a file that someone sent? reason: static words */
/* Every file name it was given, each once, the first being part_name: filename*, filename, name, then what later fields say. */
size_t part_names(struct part *p, struct str **out);
/* The other reading, where there are two and one had to be chosen; NULL where there is one. Of a leaf: its fields, encoding, or base64
 * behind padding taken the other way. Of the root: the whole message, everything doubtful in it taken the other way at once; its leaves are
 * below it. Parts of another reading have none. Looks through base64 once to know. */
struct part *part_alternative(struct part *p);
struct range part_raw(struct part *p);        /* the encoded body, as it stands in the message */
struct range part_entity(struct part *p);     /* header and body */

/* Decoded bytes in blocks, from range to wherever; for the root part the whole message, as it is. Several readers may be open;
 * they belong to the thread that the message belongs to. */
struct reader;
struct reader *part_open(struct part *p, struct err *e) MUST_CHECK;
ssize_t reader_read(struct reader *r, char *p, size_t n, struct err *e) MUST_CHECK; /* 0: end; -1 */
void reader_close(struct reader *r);

#endif
