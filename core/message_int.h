/* Private to message*.c and reader.c: what a message and a part are made of. */
#ifndef CORE_MESSAGE_INT_H
#define CORE_MESSAGE_INT_H

#include "core/arena.h"
#include "core/buf.h"
#include "core/map.h"
#include "core/message.h"
#include "core/mime.h"
#include "core/spill.h"

enum {
        BLOCK_BYTES = 256 * 1024,       /* read at once from a file: larger gains nothing */
        OPENED_FREE = 1 << 20,          /* opened bytes that the ratio does not count: honest small files go beyond any */
        ARENA_MAX = 256 << 20,          /* what all facts about one message may need; the limits keep honest mail far below */
        ARENA_EXPECTED = 4000,          /* what nine in ten need when a script lists them */
        NAME_MAX_KEPT = 4096,           /* of a part's name, identifier, charset: ten thousand parts must not add up */
};

struct part {
        struct message *m;
        struct part *parent, *child, *last, *next;
        const struct mime *mime;        /* NULL for the whole message */
        struct range header, body;
        struct str path;
        unsigned depth;                 /* 0: the whole message; opened wrappers included */
        unsigned level;                 /* wrappers and archives around it */
        unsigned index;                 /* among the leaves, 0 for containers; contents of wrappers get theirs when opened */
        bool facts_read, opened, size_known, hashed;
        bool transparent;               /* a wrapper that was opened: its contents stand for it */
        bool other;                     /* in another reading: of two fields the last, of base64 what stands before padding */
        bool alternative_known;
        struct part *alternative;
        bool made;                      /* found inside a wrapper that is not MIME: it has no header, its facts came with it */
        enum { PACKED_UNKNOWN, PACKED_NOT, PACKED_PARTLY, PACKED_WHOLE } packed; /* an archive whose children are its members */
        bool locked;                    /* an encrypted member, or an archive with one, or S/MIME that is encrypted */
        struct range cms;               /* S/MIME signed data that was opened: all of it */
        struct str member;              /* its name in its archive; {NULL,0}: it is no member */
        struct str charset, disposition, name, id; /* from the header, once facts_read */
        struct str *names;              /* all that it was given; name is the first */
        size_t names_n;
        bool charset_given, flowed, delsp;
        struct str detected;
        uint64_t size;
        uint8_t hash[32];
};

struct reader *reader_aside(const struct part *p, struct err *e) MUST_CHECK; /* notes no defects in the message */
bool reader_padded(const struct reader *r);      /* base64 went on behind padding, as far as it was read */

/* What a message remembers to have been asked for: what listing scripts ask for, and what it costs something to answer. */
enum asked {
        ASKED_FROM = 1, ASKED_TO = 2, ASKED_CC = 4, ASKED_SUBJECT = 8, ASKED_DATE = 16, ASKED_ID = 32,
        ASKED_FACTS = 64,               /* of parts */
        ASKED_SIZES = 128,
};

/* Answers that need a list, kept under what was asked. */
struct memo {
        struct memo *next;
        char kind;                      /* 'f' fields, 'a' addresses, 'i' ids */
        struct str name;
        void *list;
        size_t n;
        unsigned asked;                 /* the bit of those addresses, or 0 */
};

struct sketch {
        struct arena *a;                /* of the tree */
        struct mime_parser *parser;     /* NULL once ended */
        struct mime_defects defects;
        struct mime *root;
};

struct message {
        struct range r;
        struct sketch *sketch;          /* NULL: none was made */
        struct origin o;
        struct limits lim;
        struct arena *a;
        struct err trouble;
        struct mime_defects defects;
        uint8_t hash[32];
        bool hashed;

        bool header_read;
        struct header h;
        struct str *decoded;            /* one a field; {NULL,0} until asked for */
        struct memo *memos;
        int64_t date;
        bool date_known, list_id_known;
        struct str list_id;

        unsigned asked;
        bool parsed, opened_all;
        unsigned parts, own_parts;      /* entities so far, wrappers' included; without them */
        unsigned numbers;               /* of leaves, given so far */
        struct part whole;
        struct part **leaves, **open_leaves, **attachments;
        size_t leaves_n, open_leaves_n, attachments_n;
        struct part **unpacked;
        size_t unpacked_n;
        struct spill spill;             /* what was opened */
        uint64_t whole_bytes;           /* of it, in one piece */
        uint64_t opened_bytes;          /* decoded so far: what the budget counts */

        struct map *cids, *srcs;        /* Content-IDs that the HTML refers to; what its src attributes say */
        struct str text, html;
        bool text_known, html_known;
        struct buf kept_text, kept_content; /* the last part's */
        const struct part *kept_text_of, *kept_content_of;
        struct buf head;                /* a part's header read from a file */
};

/* Keeps the first failure; the answer is then empty. */
void message_fail(struct message *m, const struct err *e);
void message_nomem(struct message *m);
/* The bytes of a header block, at most limits.header_block of them: in place, or in m->head until the next call. */
bool message_block(struct message *m, struct range header, struct str *out);
/* The header that finding the structure has split, if it has. */
void message_take_header(struct message *m, const struct header *h);
/* Makes sure m->h is there; false when it could not be read (then it is empty). */
bool message_need_header(struct message *m);
void message_need_tree(struct message *m);
/* A raw field value decoded to UTF-8, in arena a. */
struct str message_decode(struct message *m, struct str raw, struct arena *a);
/* Bytes in a field that are neither ASCII nor UTF-8 are most likely in the charset of the text (old Russian, Chinese and Japanese mail): in
 * the one given, or, where that says nothing, of the first text that names one. Raw ISO-2022-JP is read, too. The field as UTF-8, or as it
 * is. */
struct str message_from_8bit(struct message *m, struct str raw, struct str charset, struct arena *a);
/* RFC 1468: Japanese in seven bits, whose shifts nothing else looks like. */
bool message_has_shifts(struct str s);
/* s itself when it is UTF-8; else a copy with U+FFFD for what is not. For identifiers, which nobody may write but in ASCII. */
struct str message_utf8(struct message *m, struct str s);
/* Opens what p wraps: its contents become p's children. Once. */
void part_unwrap(struct part *p);
/* Text that may hold uuencoded files: no file itself. */
bool part_holds_files(struct part *p);
/* What may still be opened: bytes, parts; whether p may be at all. Where not, it is a defect of the message. */
uint64_t budget_bytes(const struct message *m);
unsigned budget_parts(const struct message *m);
bool budget_allows(const struct part *p);

/* What is known of a part that has no header. */
struct facts {
        struct str type, name, id, charset, disposition;
        enum mime_encoding encoding;
};
/* A part that was never MIME, as the last child of parent; NULL when out of memory. */
struct part *part_make(struct part *parent, const struct facts *f, struct range body);
/* The part behind p in document order within that subtree, members of archives left out or not; NULL at its end. */
struct part *part_next(const struct part *p, const struct part *within, bool members);
/* Is it called an archive, by its sender? Office documents are zip files as well, and nobody would call them so. */
bool part_is_archive(struct part *p);
bool part_is_lumber(const struct part *p); /* a member that a file manager left there */
/* The part of entity e of the bytes `in`, as the last child of parent; NULL when out of memory. */
struct part *part_add(struct part *parent, const struct mime *e, struct range in);
/* The parts of a whole tree of entities, below `top`. False when out of memory. */
bool part_graft(struct part *top, const struct mime *root, struct range in);
/* The structure of the bytes of r, of which defects go to d; other: the other reading. NULL on failure. */
struct mime *message_structure(struct message *m, struct range r, const struct limits *lim, struct mime_defects *d, bool other, struct err *e);
/* The part behind p in document order, within that subtree; NULL at its end. */
struct part *part_after(const struct part *p, const struct part *within);
bool part_is_leaf(const struct part *p);
/* Does the HTML of the message refer to this Content-ID, or show what has this Content-Location? */
bool message_shows(struct message *m, struct str id, struct str location);

#endif
