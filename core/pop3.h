/* POP3: RFC 1939, 2449 (CAPA), 2595 (STLS), 5034 (AUTH), 6856 left out. The session, and an account as a source. */
#ifndef CORE_POP3_H
#define CORE_POP3_H

#include "core/account.h"
#include "core/ledger.h"
#include "core/lines.h"
#include "core/staging.h"

/* A session over an open conversation; the source below is made of it, and tests drive it with scripted streams. */
struct pop3;
struct pop3_capa {
        bool known, top, uidl, user, stls, pipelining, resp_codes, expire_zero;
        unsigned login_delay;
        char sasl[256];   /* mechanisms, upper case, space separated */
        char implementation[128];
};
struct pop3_item {
        uint32_t number;       /* 1.. */
        uint64_t size;         /* the server's; a hint */
        struct str uid;        /* {NULL,0}: none usable */
        bool twin;             /* another message of this listing has the same UID */
};
struct pop3_listing;           /* by number, ascending */
/* Reads the greeting. Owns l. -ERR [IN-USE] and the like are ERR_BUSY or ERR_TEMP, [AUTH] ERR_AUTH. */
struct pop3 *pop3_new(struct lines *l, struct err *e) MUST_CHECK;
void pop3_free(struct pop3 *p);               /* closes without QUIT */
bool pop3_capabilities(struct pop3 *p, struct pop3_capa *out, struct err *e) MUST_CHECK;
bool pop3_stls(struct pop3 *p, const struct account *acc, struct err *e) MUST_CHECK;
bool pop3_login(struct pop3 *p, const struct account *acc, struct err *e) MUST_CHECK;
/* LIST and UIDL matched by number. Complete or not at all; a million messages take some 8 MiB of memory, and their UIDs a file without a name. */
struct pop3_listing *pop3_list(struct pop3 *p, struct err *e) MUST_CHECK;
size_t pop3_listing_count(const struct pop3_listing *l);
bool pop3_listing_item(struct pop3_listing *l, size_t i, struct pop3_item *out, struct err *e) MUST_CHECK; /* uid is good until the next call */
void pop3_listing_free(struct pop3_listing *l); /* may be NULL */
bool pop3_quit(struct pop3 *p, struct err *e) MUST_CHECK; /* true only when the server answered +OK */

/* An account as a source: connects at the first next(), fetches what the ledger does not know, pipelined by bytes expected, goes on
 * in a new session when one is cut (after a while, where one was cut that gave nothing), deletes what is settled and due (the header's identity checked by TOP before a DELE without RETR in the same
 * session), QUITs only when every message RETRieved is settled or spooled. Reads marks; writes only what it learns itself (last seen, deleted,
 * what the server can't do). dry: no DELE, no QUIT, nothing written. */
struct pop3_options {
        bool dry, again;           /* again: also what was seen */
        bool mark;                 /* what is new is marked as seen by its UID, unread, and never deleted; read is only what has none of its own */
        uint64_t limit;            /* messages; 0: all */
        int64_t now;               /* the run's clock */
        bool no_age;               /* the clock jumped: no DELE by age, no mark forgotten */
        size_t rows;               /* messages in hand at a time, of a large mailbox; 0: 16,384 */
        int back_off_ms;           /* before the second try to connect, then twice as long each; 0: a second */
};
struct source *pop3_source(struct account *acc, const struct ledger_account *la, struct ledger *l, const struct limits *lim,
                           const char *tmp_dir, const struct pop3_options *o, struct err *e) MUST_CHECK;

#endif
