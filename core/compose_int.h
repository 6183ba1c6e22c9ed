/* Segments, shared by compose.c (new mail), compose_copy.c (changed copies) and mail_stream.c (reading them). */
#ifndef CORE_COMPOSE_INT_H
#define CORE_COMPOSE_INT_H

#include "core/compose.h"

/* One of text, range (when range.in is set), part (decoded bytes); as it is, or base64 in lines. */
struct segment {
        struct segment *next;
        struct str text;
        struct range range;
        struct part *part;
        bool base64;
};

/* A list under construction. The first failure sticks. */
struct segments {
        struct arena *arena;
        struct segment *first, *last;
        bool failed;
};

struct segment *segments_add(struct segments *s);  /* an empty one; never NULL (a spare one after a failure) */
void segments_text(struct segments *s, struct str text); /* the arena's or older */
void segments_printf(struct segments *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What the header encoders wrote: their CRLF before a folded line becomes LF. */
void segments_folded(struct segments *s, struct str text);
void segments_range(struct segments *s, struct range r);
/* "Name: value\n", encoded and folded. Refuses CR, LF, NUL and names that are no field names. */
bool segments_field(struct segments *s, struct str name, struct str utf8, struct err *e);

/* s on one line and at most max bytes of it, cut between characters: names from a message, for text of ours. */
struct str segments_one_line(struct segments *s, struct str text, size_t max);
/* A media type that can be written as it is, else application/octet-stream. */
struct str segments_type(struct str type);

struct mail_stream *mail_stream_new(struct segment *first, struct arena *a, struct err *e) MUST_CHECK;

#endif
