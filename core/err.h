/* Errors: one value on the caller's stack, passed as the last parameter.
 *
 * A function that can fail returns bool or a pointer; on failure it has filled in `e`, which says what the caller can do
 * about it (code), what the system said (sys, an errno or 0) and one sentence for a person. There is no other convention.
 * The sentence never holds control characters: bytes from outside are escaped when they are put into it. */
#ifndef CORE_ERR_H
#define CORE_ERR_H

#include <stdbool.h>

enum err_code {
        ERR_NONE,
        ERR_IO,      /* a file, a directory, the disk */
        ERR_NET,     /* the connection could not be made, or was lost: try again later */
        ERR_TLS,     /* handshake or certificate refused: nothing secret has been sent */
        ERR_TIMEOUT, /* a deadline passed */
        ERR_AUTH,    /* the proof was refused: never try the same secret again in this run */
        ERR_PROTO,   /* the other side broke the protocol */
        ERR_REFUSED, /* a permanent no from the other side */
        ERR_TEMP,    /* a temporary no: try again later */
        ERR_BUSY,    /* somebody else holds the lock */
        ERR_SYNTAX,  /* input that cannot be read: a script, a template, an option */
        ERR_USAGE,   /* the caller's request makes no sense: arguments, configuration */
        ERR_LIMIT,   /* a named limit was reached */
        ERR_NOMEM,   /* out of memory */
        ERR_EXISTS,  /* the name is taken */
        ERR_ABSENT,  /* there is no such thing */
        ERR_FULL,    /* no space, quota, inodes: stop fetching, keep everything */
        ERR_STOPPED, /* the run was asked to stop */
        ERR_SCRIPT,  /* the script raised an error */
};

enum { ERR_TEXT_MAX = 1024 };

struct err {
        enum err_code code;
        int sys;
        char text[ERR_TEXT_MAX];
};

/* Fills e (which may be NULL) and returns false, so that a failing path is one line. */
bool err_set(struct err *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));

/* The same from errno: appends ": " and the system's message. ENOSPC, EDQUOT become ERR_FULL, ENOENT ERR_ABSENT,
 * EEXIST ERR_EXISTS, ENOMEM ERR_NOMEM; everything else is `code`. */
bool err_sys(struct err *e, enum err_code code, int sys, const char *fmt, ...)
        __attribute__((format(printf, 4, 5), cold));

/* Puts context in front ("message 7: …") on the way up; returns false. */
bool err_in(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/* The out-of-memory error; returns false. */
bool err_nomem(struct err *e) __attribute__((cold));

/* "net", "auth" …: the word scripts and logs see. */
const char *err_code_name(enum err_code code);

/* Of two, the one that a person must act on first: a password that is refused before a server that is out of reach. a where they are equal. */
enum err_code err_worse(enum err_code a, enum err_code b);

/* The sysexits.h code a program ends with for it (EX_TEMPFAIL for ERR_NET, EX_NOPERM for ERR_AUTH …). */
int err_exit_code(enum err_code code);

#define MUST_CHECK __attribute__((warn_unused_result))

#endif
