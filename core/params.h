/* Content-Type, Content-Disposition and their parameters: RFC 2045 section 5.1, RFC 2183, RFC 2231. */
#ifndef CORE_PARAMS_H
#define CORE_PARAMS_H

#include "core/arena.h"
#include "core/limits.h"

enum params_defect {
        PARAMS_SYNTAX = 1,     /* could not be read as the RFC writes it */
        PARAMS_DUPLICATE = 2,  /* a parameter given twice: the first is used */
        PARAMS_AMBIGUOUS = 4,  /* given in two forms (plain and RFC 2231) that differ: RFC 2231's is used, but not for boundary */
        PARAMS_CHARSET = 8,    /* unknown charset, or bytes invalid in it */
        PARAMS_LIMIT = 16,
};

struct param {
        struct str name;   /* lower case */
        struct str value;  /* UTF-8: RFC 2231 joined and decoded, encoded-words decoded (in name and filename, as real mail has them) */
        struct str literal;/* as written, quotes removed, for boundary; {NULL,0} when only an RFC 2231 form exists */
        struct str other;  /* what another reader would take: a later one of the name, the form not used; {NULL,0} when none differs */
        bool ambiguous;    /* this one has PARAMS_DUPLICATE or PARAMS_AMBIGUOUS */
        struct param *next;
};

struct params {
        struct str value;  /* what stands before the first ';', lower case, comments and blanks removed: "text/plain", "attachment" */
        struct param *first;
        unsigned defects;
};

/* raw: the field's raw value. False only when out of memory. */
bool params_parse(struct params *p, struct str raw, const struct limits *lim, struct arena *a);
const struct param *params_find(const struct params *p, struct str name); /* caseless; NULL when absent */
struct str params_value(const struct params *p, struct str name);         /* {NULL,0} when absent */

/* Writes `; name=value`, RFC 2231 where it is not ASCII. */
struct str params_encode(struct str name, struct str utf8, struct arena *a);

#endif
