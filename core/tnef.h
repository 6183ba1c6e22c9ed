/* TNEF (winmail.dat): what Outlook wraps its messages in. MS-OXTNEF: a stream of attributes, in which attachments and bodies stand as
 * ranges of the input. Bytes in, facts out; nothing is copied but names. No recursion: a message inside is a range too. */
#ifndef CORE_TNEF_H
#define CORE_TNEF_H

#include "core/arena.h"
#include "core/buf.h"

enum tnef_kind {
        TNEF_FILE,
        TNEF_OBJECT,  /* an OLE object, as its compound file */
        TNEF_MESSAGE, /* data is a TNEF stream of its own */
};

struct tnef_file {
        struct tnef_file *next;
        enum tnef_kind kind;
        struct str name;    /* UTF-8, raw: never a path to trust; {NULL,0} */
        struct str type;    /* its media type, lower case; {NULL,0} */
        struct str id;      /* Content-ID; {NULL,0} */
        struct str data;    /* a range of the input */
};

/* A body of the message; data is {NULL,0} where there is none. */
struct tnef_body {
        struct str data;
        char charset[24];   /* empty: unknown */
};

struct tnef {
        struct tnef_file *files; /* in order */
        unsigned count;          /* files and bodies */
        struct tnef_body text, html, rtf; /* rtf: compressed, for tnef_rtf */
        bool bad_checksum;       /* the data is taken all the same */
        bool broken;             /* something could not be read as the format says; what could be is here */
        bool cut;                /* broken so that bytes of the input are in nothing that is here */
        bool over;               /* more files than files_max */
};

/* Begins with TNEF's signature. */
bool tnef_is(struct str in);
/* False only when out of memory. */
bool tnef_parse(struct tnef *t, struct str in, unsigned files_max, struct arena *a) MUST_CHECK;

/* MS-OXRTFCP: unpacks a compressed RTF body; at most out->max bytes. False when it is broken (what was read is in out), or out is
 * full or out of memory (out->failed). */
bool tnef_rtf(struct str in, struct buf *out);

#endif
