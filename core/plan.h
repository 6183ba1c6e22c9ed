/* A plan: what a handler decided for one message, recorded before anything is done, so that it can be shown, tested, dropped or
 * carried out as one unit. */
#ifndef CORE_PLAN_H
#define CORE_PLAN_H

#include "core/buf.h"
#include "core/compose.h"
#include "core/source.h"
#include "core/staging.h"

enum effect_kind { EFFECT_DELIVER, EFFECT_SAVE, EFFECT_MAIL, EFFECT_COMMAND };

struct effect {
        enum effect_kind kind;
        struct effect *next;
        unsigned place;                  /* its number in the plan, 1.. */
        struct str rule;                 /* name of the rule that asked; may be empty */
        struct root *root;               /* deliver, save */
        struct str path;                 /* deliver: the folder; save: the path relative to root, final */
        /* deliver */
        bool mbox, implicit;             /* implicit: the inbox, nobody asked */
        struct str flags;                /* Maildir letters */
        struct compose_field *fields;
        struct compose_stub *stubs;
        /* save */
        struct part *part;               /* the root part: the whole message */
        enum on_conflict conflict;
        bool same;                       /* the very content stands there already: nothing to write */
        /* mail */
        struct compose *compose;
        const char *verb;                /* "forward", "redirect", "send", "reply" */
        struct str sender;               /* envelope */
        const struct str *recipients;
        size_t recipient_n;
        struct str smarthost;
        bool at_most_once;
        /* command */
        const struct str *argv;
        size_t argc;
        /* staging fills in */
        struct staged staged;
        bool is_staged;
        struct append_job append;        /* deliver, mbox */
        struct str spool;
        int spool_fd;                    /* -1: none */
        struct str action;               /* hex */
};

struct store_change {
        struct store_change *next, *newer;
        struct str store, key, value;    /* value {NULL,0}: removed */
        int64_t expires;
        uint64_t hash;                   /* of store and key */
};

struct plan {
        struct arena *arena;
        struct message *message;         /* NULL: on_finish's plan */
        struct source *source;
        struct effect *first, *last;
        unsigned count, saves, outward, forwards;
        struct store_change *changes, *oldest; /* newest first by next, oldest first by newer */
        bool delivered, saved_whole, discarded;
        bool stopped;                    /* a stop cut off what the handler asked for: whatever it decided then does not count */
        bool leave_set;
        enum outcome_leave leave;
        int64_t leave_age;
        struct run *run;
        void *script;                    /* the script side's own (a coroutine) */
        /* A verdict of RUN_WAIT: this runs on a pool thread, then the run resumes the script. */
        void (*wait)(void *arg);
        void *wait_arg;
};

struct plan *plan_new(struct message *m, struct source *s) MUST_CHECK;
void plan_free(struct plan *p);          /* neither the message nor what is staged (staging_drop) */
/* A new effect at the end; ERR_LIMIT when the message's limits for it are used up. */
struct effect *plan_add(struct plan *p, enum effect_kind kind, const struct limits *lim, struct err *e) MUST_CHECK;
bool plan_store(struct plan *p, struct str store, struct str key, struct str value, int64_t expires, struct err *e) MUST_CHECK;
/* The newest change the plan itself holds for a key, or NULL. */
const struct store_change *plan_changed(const struct plan *p, struct str store, struct str key);
uint64_t plan_store_hash(struct str store, struct str key);
/* Does it keep the message itself (or say that nobody wants it)? Only then may the server forget it. */
bool plan_keeps(const struct plan *p);
/* Sets every mail's and command's action id: from account, message hash and place. */
bool plan_actions(struct plan *p, struct err *e) MUST_CHECK;
/* "deliver Archive/Billing", "save invoices/7 a.pdf (34 kB)", "forward to a@b": one effect in words. */
struct str effect_words(const struct effect *f, struct arena *a);
/* One effect as a JSON object. */
bool effect_json(const struct effect *f, struct buf *out);
/* Appends s as a JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
bool json_string(struct buf *out, struct str s);

#endif
