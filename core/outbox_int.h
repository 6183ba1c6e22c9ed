/* Shared by outbox.c (which items, their outcomes, commands) and outbox_mail.c (sessions, mail). */
#ifndef CORE_OUTBOX_INT_H
#define CORE_OUTBOX_INT_H

#include "core/outbox.h"

/* A smarthost and the session with it. */
struct link {
        struct smarthost host; /* with our stop */
        struct smtp *s;
        bool used;           /* by a mail before: it may have been closed for being idle */
        unsigned lost;       /* sessions, one after the other */
        bool shut, fatal;    /* no more tries in this run; and not the mail's fault, so that nothing is counted against it */
        uint64_t waiting;    /* mails that could not be tried for that; one line speaks for them all */
        struct err why;
};

/* An item that is due. */
struct due {
        int64_t id;
        unsigned tries;
};

struct sender {
        struct ledger *l;
        struct link *links;
        size_t n;
        bool all;
        const atomic_bool *stop;
        int64_t now;
        struct due *due;
        size_t due_n, due_room;
        bool nomem;
        struct err unread;        /* the first item's whose bytes could not be read */
        struct outbox_result *out;
};

/* One item in hand. */
struct job {
        struct sender *o;
        struct outbox_item item;
        struct arena *a;
        size_t accepted, refused, later, unknown; /* recipients, in this try */
        size_t open;                              /* of `later`, those of whom nothing was learnt */
        struct link *unreached;                   /* why so */
        bool unread;                              /* the mail's bytes, in this try */
        struct str answer;                        /* the one that speaks for the item */
};

bool outbox_stopped(const struct sender *o);
void outbox_worst(struct sender *o, enum err_code c);
/* What becomes of an item, with j->answer as the reason; each writes it down and says it. */
bool outbox_done(struct job *j, struct err *e) MUST_CHECK;
bool outbox_later(struct job *j, struct err *e) MUST_CHECK; /* or a dead letter, when it is too old */
bool outbox_bury(struct job *j, struct err *e) MUST_CHECK;
bool outbox_leave(struct job *j, struct err *e) MUST_CHECK; /* as it was, because of a stop */
/* Its bytes could not be opened (e): gone, it is a dead letter; else as outbox_unread. */
bool outbox_lost_spool(struct job *j, struct err *e) MUST_CHECK;
/* They could not be read (e), and nothing was sent: it stays as it was. False where others would fare no better. */
bool outbox_unread(struct job *j, struct err *e) MUST_CHECK;
/* A try that may not be repeated counts as failed until it is known how it went; a crash then leaves a dead letter, not a second try. */
bool outbox_begin_only_try(struct job *j, struct err *e) MUST_CHECK;

bool outbox_mail(struct job *j, struct link *k, struct err *e) MUST_CHECK; /* one mail, over the smarthost's session */
void outbox_hang_up(struct link *k);

#endif
