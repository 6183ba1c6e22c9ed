/* Address lists, RFC 5322 section 3.4, groups (RFC 6854), UTF-8 (RFC 6532), obsolete forms, and the wild. */
#ifndef CORE_ADDR_H
#define CORE_ADDR_H

#include "core/arena.h"
#include "core/limits.h"

struct addr {
        struct str addr;    /* user@domain: domain in lower case (ASCII), blanks and comments out; empty when there is none */
        struct str written; /* addr with its domain's letters as written */
        struct str name;    /* display name decoded to UTF-8, or a trailing comment where there is no name; may be empty */
        struct str user;    /* local part as written, quotes resolved */
        struct str domain;  /* lower case; a literal keeps its brackets */
        struct str group;   /* the group's name; {NULL,0} outside of one */
        bool valid;         /* false: could not be read as an address; addr holds what is there, never a different valid address */
        struct addr *next;
};

enum addr_defect { ADDR_SYNTAX = 1, ADDR_LIMIT = 2, ADDR_CHARSET = 4 };

/* Parses an unfolded or raw field value. Returns the first of a list (NULL: empty, or out of memory with *nomem). */
struct addr *addr_parse(struct str raw, const struct limits *lim, unsigned *defects, struct arena *a);
/* "me+lead@x.org": user, the detail behind the first '+' of the local part (empty: none), domain. For any string. */
struct str addr_user_of(struct str addr);   /* "me" (without detail); empty when there is no @ */
struct str addr_detail_of(struct str addr); /* "lead" */
struct str addr_domain_of(struct str addr); /* lower case only if it was */
/* An address fit for an SMTP envelope or a header that we write: one @, no CR LF NUL, blanks or controls, at most 254 bytes,
 * not starting with '-'. false with the reason. */
bool addr_check(struct str addr, struct err *e);

#endif
