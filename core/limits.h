/* Every number a sender or a script can run into, in one struct: mail.limits sets them, HOSTILE-style defaults stand here.
 * Sizes are bytes. Reaching a parsing limit is a defect of the message, never an error. */
#ifndef CORE_LIMITS_H
#define CORE_LIMITS_H

#include <stdint.h>

struct limits {
        uint64_t text;            /* what part.text and part.content hold: 1 MiB */
        uint64_t header_block;    /* bytes of one header that are parsed: 1 MiB */
        uint64_t header_field;    /* bytes of one field that are decoded: 128 KiB */
        unsigned header_fields;   /* 10,000 */
        unsigned depth;           /* nesting of parts: 64 */
        unsigned parts;           /* 10,000 */
        unsigned boundary;        /* bytes of a boundary: 256 */
        unsigned addresses;       /* in one field: 10,000 */
        unsigned parameters;      /* in one field: 256 */
        unsigned sections;        /* of one RFC 2231 parameter: 128 */
        unsigned words;           /* encoded-words in one field: 2,048 */
        unsigned opened_depth;    /* wrappers and archives in each other that are opened: 3 */
        unsigned opened_parts;    /* parts and members that all of them together may have: 10,000 */
        uint64_t opened_bytes;    /* bytes that all of them together may give: 1 GiB … */
        unsigned opened_ratio;    /* … and so many times the size of the message, once it is more than 1 MiB: 100 */
        uint64_t opened_whole;    /* bytes of TNEF and S/MIME, which are looked at in one piece, in memory; larger ones are not opened: 32 MiB */
        uint64_t message;         /* a message larger than this is not fetched; 0: no limit */
        uint64_t memory_message;  /* a message larger than this lives in a file: 1 MiB */
        unsigned saves;           /* a message: 1,000 */
        unsigned deliveries;      /* deliveries and outward actions a message: 32 */
        unsigned forwards;        /* a message: 4 */
        unsigned received;        /* Received fields beyond which a message is not forwarded: 50 */
        double cpu;               /* seconds of CPU a handler may use for one message: 5 */
        uint64_t heap;            /* the script's memory: 64 MiB */
        uint64_t pipe_output;     /* what part:pipe brings back: 1 MiB */
        double pipe_time;         /* seconds a child may take: 60 */
        uint64_t queue;           /* bytes of messages received and not yet decided: 16 MiB */
        unsigned batch_messages;  /* 512 */
        uint64_t batch_bytes;     /* 16 MiB */
        unsigned batch_ms;        /* a batch closes after this long without input: 100 */
};

extern const struct limits limits_default;

#endif
