/* What the two files of the POP3 server share: server.c has the mailbox and the threads, server_talk.c one conversation. */
#ifndef CORE_SERVER_INT_H
#define CORE_SERVER_INT_H

#include "core/digest.h"
#include "core/lines.h"
#include "core/range.h"
#include "core/server.h"

enum { SERVER_IDLE_MS = 600000 }; /* RFC 1939: "MUST be of at least 10 minutes' duration" */

struct served {
        struct range range;
        uint64_t octets;    /* on the wire */
        char uid[64];
        bool gone;          /* deleted by a session that ended with QUIT */
};
struct mailbox {
        struct served *mail;
        size_t n, room;
        bool locked;
};

/* The mailbox belongs to one session at a time: false when another has it. */
bool mailbox_lock(struct server *s, struct mailbox **box);
void mailbox_unlock(struct server *s);
const struct server_options *server_options(const struct server *s);
void server_talk(struct server *s, struct lines *l);

#endif
