/* The From_ line, which stands before each message of an mbox: "From sender Mon Nov 23 05:41:00 2026". */
#ifndef CORE_FROMLINE_H
#define CORE_FROMLINE_H

#include "core/str.h"

/* A longer line is no From_ line: a sender has at most 320 bytes. */
enum { FROMLINE_MAX = 1024 };

struct fromline {
        struct str sender;  /* within the line; empty where it is "-" or missing */
        int64_t time;       /* seconds since 1970; 0: the date could not be read. Without a zone it is taken as UTC (RFC 4155) */
        bool dated;         /* has the shape of a date: day of the week, month, day, time, year, in the orders in use */
        bool bare;          /* one word or none, as exporters write who have no date: "From -", "From 1844@xxx", "From " */
        bool odd;           /* a time and a year, but in no order in use: "From joe@x.org 2026-11-23T05:41:00", "… 05:41:00 MET DST 2026" */
};

/* line: without its line end. False when it does not begin with "From ". */
bool fromline_parse(struct str line, struct fromline *out);

/* The first "From " in p[0..n), or NULL. As memmem, several times faster: every byte of every mbox passes here. */
const char *fromline_find(const char *p, size_t n);

#endif
