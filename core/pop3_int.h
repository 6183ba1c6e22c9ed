/* What the files of the POP3 client share: the session's inside, and the account as a source (a table of the mails of this run, a queue
 * of commands to send, a ring of commands whose answers are due). Private to core/pop3*.c. */
#ifndef CORE_POP3_INT_H
#define CORE_POP3_INT_H

#include "core/map.h"
#include "core/pop3.h"

enum {
        REPLY_MAX = 8 << 10,        /* a status line; RFC 2449 says 512 */
        SAID_MAX = 300,             /* bytes of a server's sentence that are quoted */
        LOGIN_MS = 30000,           /* connect, TLS, greeting, login: each */
};

/* The session. */
struct pop3 {
        struct lines *l;
        struct pop3_capa capa;
        bool seen_status, bare_lf;  /* every status line so far ended in a bare LF */
        bool odd_noted;
        char stamp[256];            /* "<...>" of the greeting, for APOP; empty: none */
        const struct account *who;  /* logged in; NULL: not yet */
        char said[SAID_MAX];        /* of a refusal, without the password */
};

struct reply {
        bool ok;
        struct str text;            /* after the status, trimmed; good until the next line is read. Of a refusal SAID_MAX bytes */
};

/* One status line. ERR_PROTO when it is none. */
bool pop3_status(struct pop3 *p, struct reply *r, struct err *e) MUST_CHECK;
/* True when text begins with "+OK" or "-ERR" as a word (blanks before it allowed). */
bool pop3_is_status(struct str line);
bool pop3_send(struct pop3 *p, struct err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4))) MUST_CHECK;
/* Sends one command, waits for its status line. False only when the conversation fails; r->ok tells the answer. */
bool pop3_ask(struct pop3 *p, struct reply *r, struct err *e, const char *fmt, ...) __attribute__((format(printf, 4, 5))) MUST_CHECK;
/* The error for a -ERR: its code from the response code or a few well-known words, else `otherwise`. Returns false. */
bool pop3_refused(const struct reply *r, enum err_code otherwise, struct err *e, const char *what);
/* The handshake that an account asks for; takes fd over. Fits lines_upgrade. */
struct stream *pop3_tls(void *account, int fd, struct err *e) MUST_CHECK;
enum err_code pop3_refusal_code(struct str text, enum err_code otherwise);

/* pop3_listing.c: a listing while it comes. */
enum { LISTING_BYTES_MAX = 128 << 20 }; /* of one answer */
struct pop3_listing *listing_new(struct err *e) MUST_CHECK;
bool listing_add(struct pop3_listing *l, uint32_t number, uint64_t size, struct err *e) MUST_CHECK; /* a line of LIST */
bool listing_sort(struct pop3_listing *l, struct err *e) MUST_CHECK;                                /* LIST is over; ERR_PROTO: a number twice */
bool listing_uid(struct pop3_listing *l, uint32_t number, struct str uid, struct err *e) MUST_CHECK; /* a line of UIDL; ERR_PROTO: a number twice */
size_t listing_found(const struct pop3_listing *l, size_t *too_long); /* lines of UIDL that were of LIST's messages; UIDs that were not kept */
bool listing_end(struct pop3_listing *l, bool uids, struct err *e) MUST_CHECK; /* UIDL is over; uids: it was answered */

/* The account as a source. */
enum mail_state {
        MAIL_UNSURE,   /* its UID is missing or not its own: the header (or the content) tells which it is */
        MAIL_WANT,     /* to be RETRieved */
        MAIL_GIVEN,    /* handed out, no outcome yet */
        MAIL_UNDONE,   /* handed out, nothing came of it */
        MAIL_KNOWN,    /* settled, or seen before; stays on the server */
        MAIL_HELD,     /* its bytes are in the spool */
        MAIL_CHECK,    /* settled and due: DELE once its header proves to be the one we know */
        MAIL_DOOMED,   /* DELE is to be sent: it was RETRieved or checked in this session */
        MAIL_GONE,     /* DELE was answered +OK; true only after QUIT */
        MAIL_LEFT,     /* not this time: refused, too large, given up */
        MAIL_ALIAS,    /* turned out to be another row of the table */
};

struct hashes {
        uint8_t header[DIGEST_SIZE], content[DIGEST_SIZE];
};

/* One row of the table. Its index + 1 is origin.number, good until the message has its outcome; the server's number changes with each session. */
struct mail {
        struct str uid;             /* the server's, or the one made of the header ("header-sha256:…"); {NULL,0}: not yet known */
        uint64_t size;              /* the server's hint */
        uint32_t number;            /* in this session; 0: not in its list */
        uint32_t occurrence;
        uint32_t touched, retrieved;/* the session in which it was last TOPped or RETRieved, RETRieved; 0: never */
        int64_t mark;               /* id; 0: none known */
        int64_t first_seen, leave_age;
        struct hashes *hashes;      /* of the mark, or as found; NULL: not needed */
        uint8_t state, leave;       /* enum mail_state, enum outcome_leave */
        uint8_t cuts;               /* sessions lost while its answer was due, up to CUTS_MAX */
        bool troubled;              /* was left once in this run */
        bool named;                 /* uid was made of the header */
        bool unsure, keyed;         /* began as MAIL_UNSURE; stands in `keyed`: such a row stays for the whole run */
        bool verify;                /* once RETRieved, its content is compared with the mark before it is handed out */
        bool deled;                 /* DELE was answered, and it is there still (refused, or +OK and QUIT as well): not asked again in this run */
        bool again, suspect;        /* fetched once more, as it was short; short twice */
        bool doubted;               /* handed out in a session whose answers were miscounted: perhaps another message's */
};

enum flight_kind { FLY_RETR, FLY_TOP, FLY_DELE, FLY_NOOP };
struct flight {
        uint32_t mail;              /* index; of no meaning for NOOP */
        enum flight_kind kind;
        uint64_t expected;          /* bytes of its answer, as far as known */
};

/* Indices of rows, first in, first out. */
struct row_queue {
        uint32_t *p;
        size_t head, n, room;
};

struct refusal {
        uint32_t mail;
        struct str said;
};
enum { REFUSALS_KEPT = 64 };

enum {
        CUTS_MAX = 2,               /* then the message is left alone */
        ROWS_MAX = 16384,           /* 5 MiB */
        WINDOW_COMMANDS = 2048,     /* 20,000 small messages, 20 ms away: 4.3 s with 256, 2.4 with 512, 1.5 with 1,024, 1.1 with this */
        WINDOW_BYTES = 8 << 20,
};

struct fetch {
        struct source s;
        struct account *acc;
        struct ledger *ledger;
        struct ledger_account la;
        struct limits lim;
        struct pop3_options o;
        char *tmp_dir;
        int tmp_fd;

        struct arena *arena, *scratch; /* for the run; for one look-up */
        struct mail *mails;         /* those with something to do or in hand, at most ROWS_MAX at a time of a large mailbox */
        size_t n, room;
        struct arena *rows;         /* their UIDs and hashes */
        struct pop3_listing *list;  /* of this session; messages from next_item on have not been looked at, */
        size_t next_item;
        uint64_t pending;           /* and of those of the first list at most so many; what has come since then waits for the next run */
        uint64_t *done;             /* keyed hashes of UIDs whose rows have gone, and of which the ledger does not tell */
        size_t done_n, done_room;
        size_t done_sorted;         /* so many of them are in order */
        uint32_t left_touched;      /* the session of such a row whose message was touched and is left */
        bool any_mark;              /* some message of the first list is known */
        struct map *keyed;          /* "uid NUL occurrence" -> index + 1, of those that were unsure; "NUL mark id": claimed */
        struct map *doubts;         /* content hash -> how many doubted rows hold it; NULL: none */

        struct pop3 *p;             /* NULL: no session */
        uint32_t session;           /* counts them */
        bool listed;                /* a first list is there */
        bool single;                /* one command at a time */
        bool no_top;                /* refused */
        bool moved;                 /* no UID of the list is known, though mail should be there: a server's migration? */
        uint64_t moved_known;       /* so many messages were recognised all the same */
        bool progress;              /* this session has answered something */
        unsigned barren;            /* sessions in a row that have not */
        bool failed, finishing;
        unsigned renewals_lost;     /* full sessions whose QUIT was not answered by +OK */
        uint64_t gone_n, gone_bytes;/* DELEd in this session, and not yet by a QUIT */
        struct row_queue todo, dele;    /* UNSURE and WANT; CHECK and DOOMED */
        struct flight ring[WINDOW_COMMANDS + 1];
        size_t fly_head, fly_n;
        uint64_t expected;          /* bytes in flight */

        uint64_t limit, asked;      /* messages being RETRieved or handed out, of at most limit (0: no limit) */
        uint64_t given;             /* handed out */
        unsigned agree, differ;     /* sizes that the server said against bytes that came */
        uint64_t exact, inexact;    /* the same, to the byte */
        uint64_t size_before;       /* of the message whose RETR was answered last in this session */
        struct refusal refused[REFUSALS_KEPT];
        size_t refusals;            /* all of them */
        uint64_t troubles;          /* messages that could not be had */
        struct err trouble;         /* the first of them */
};

/* pop3_source.c */
bool fetch_queue(struct fetch *f, const struct mail *m, struct err *e) MUST_CHECK; /* where its state says; nowhere for most */
void fetch_drop_session(struct fetch *f);
void fetch_learn(struct fetch *f, bool ledger_account_flag(struct ledger_account *la)); /* sets a flag of the account's row, unless dry */
void fetch_trouble(struct fetch *f, struct mail *m, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
struct arena *fetch_scratch(struct fetch *f, struct err *e) MUST_CHECK;

/* pop3_connect.c: a session, listed and matched with the table. */
bool fetch_connect(struct fetch *f, struct err *e) MUST_CHECK;

/* pop3_match.c: which message of the list is which. */
bool fetch_match(struct fetch *f, struct err *e) MUST_CHECK; /* f->list */
/* The next rows of a large mailbox: what is done with goes, and what the list has beyond comes. No answer and no outcome is due. */
bool fetch_more(struct fetch *f, struct err *e) MUST_CHECK;
/* For pop3_more.c: the row of a message whose UID is its own, if it has anything to do, which the totals count already unless it is known; the
 * rows by UID; and a row that moved is found again. */
bool fetch_sure_row(struct fetch *f, const struct pop3_item *it, struct err *e) MUST_CHECK;
size_t fetch_rows_max(const struct fetch *f);
bool fetch_remember_done(struct fetch *f, const struct mail *m, struct err *e) MUST_CHECK; /* its row goes, or it gets none */
struct map *fetch_rows_by_uid(struct fetch *f, struct err *e) MUST_CHECK;
bool fetch_key(struct fetch *f, struct mail *m, struct err *e) MUST_CHECK;
/* There are such rows, and nothing else is left to do in this session. */
bool fetch_waits_for_more(const struct fetch *f);
/* An unsure mail whose header hash (and content hash, or NULL) is known becomes KNOWN, CHECK, HELD, WANT, or an ALIAS. */
bool fetch_identify(struct fetch *f, struct mail *m, const uint8_t header[DIGEST_SIZE], const uint8_t *content, struct err *e) MUST_CHECK;
/* A message under a known UID that is not the one of its first mark: of twins the first is gone, and this is one that came after it? */
bool fetch_next_twin(struct fetch *f, struct mail *m, const uint8_t header[DIGEST_SIZE], bool *found, struct err *e) MUST_CHECK;
/* Loads m's mark by UID and occurrence, with its hashes. */
bool fetch_load_mark(struct fetch *f, struct mail *m, bool *found, struct err *e) MUST_CHECK;
bool fetch_forget(struct fetch *f, struct mail *m, struct err *e) MUST_CHECK;
/* Puts a mark for m, which was handed out under another UID. */
bool fetch_mark_given(struct fetch *f, struct mail *m, const uint8_t header[DIGEST_SIZE], const uint8_t content[DIGEST_SIZE],
                      struct err *e) MUST_CHECK;
bool hash_known(const uint8_t hash[DIGEST_SIZE]);
bool hash_same(const uint8_t a[DIGEST_SIZE], const uint8_t b[DIGEST_SIZE]);

/* pop3_answer.c: the answer to the command at the head of the ring. *doubtful: the framing can't be trusted. */
bool fetch_answer(struct fetch *f, struct message **out, bool *doubtful, struct err *e) MUST_CHECK;

/* pop3_fetch.c: commands out, answers in. Works until a message is there (out not NULL), or nothing is left to do. */
bool fetch_pump(struct fetch *f, struct message **out, struct err *e) MUST_CHECK;

/* pop3_doubt.c: answers were miscounted. What the session in hand gave is looked at again in the next one: a message that has been handed
 * out already, if under the UID of another, is not handed out twice, and one that has not been seen is fetched. */
void fetch_doubt(struct fetch *f);
/* A doubted row's mark is loaded: its content has been handed out. */
bool fetch_doubt_given(struct fetch *f, const uint8_t content[DIGEST_SIZE], struct err *e) MUST_CHECK;
/* The doubt about m is over: under its UID stands this content. True if that was handed out. */
bool fetch_doubt_ends(struct fetch *f, struct mail *m, const uint8_t content[DIGEST_SIZE]);

/* pop3_refusal.c: messages that the server lists and does not give. */
void fetch_refused(struct fetch *f, struct mail *m, struct str said); /* now */
void fetch_note_refusals(struct fetch *f); /* the run is over: they are counted in the ledger */
void fetch_refused_before(struct fetch *f, struct mail *m, const struct mark *k); /* by an earlier run: asked for again, or left alone */

/* pop3_body.c: one multi-line answer. */
struct body {
        struct buf mem;             /* all of it, or the block in hand once fd is open */
        int fd;
        uint64_t n, wire;           /* bytes of it; bytes on the wire */
        uint64_t octets;            /* of the message as RFC 1939 (11) counts them for LIST: with CRLF, without the stuffed dots and the end */
        uint8_t hash[DIGEST_SIZE];
        bool odd_end;               /* it ended by a stall after ".CRLF" in the middle of a line */
};
/* *doubtful: what comes after it does not read as the next status line (waited for only while more answers are due), or it seems to
 * hold two answers: then nothing of it is kept. */
bool body_read(struct fetch *f, uint64_t size, struct body *b, bool *doubtful, struct err *e) MUST_CHECK;
void body_free(struct body *b);
/* TOP n 0: the hash of its header. */
bool body_read_header(struct fetch *f, uint8_t hash[DIGEST_SIZE], bool *doubtful, struct err *e) MUST_CHECK;

/* pop3_delete.c */
bool fetch_full(const struct fetch *f); /* enough was DELEd in this session to end it with QUIT */
/* Ends a full session: sends what DELEs are due, QUITs when that is safe. Every message given has its outcome. */
bool fetch_renew(struct fetch *f, struct err *e) MUST_CHECK;
bool mail_due(const struct fetch *f, const struct mail *m); /* to be deleted, by its own or the account's rule */
void fetch_settle(struct source *s, const struct outcome *o, size_t n);
bool fetch_finish(struct source *s, struct err *e);

#endif
