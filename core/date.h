/* Dates, RFC 5322 section 3.3 with the obsolete zones, two-digit years, missing seconds, asctime, ISO 8601 as seen in mail. */
#ifndef CORE_DATE_H
#define CORE_DATE_H

#include "core/str.h"

/* Seconds since 1970 UTC; *zone (may be NULL) is minutes east of UTC. False when it is no date or its year is outside 0..9999.
 * Days that do not exist (Feb 31), zones beyond 24 h: no date. A second of 60 is taken. */
bool date_parse(struct str raw, int64_t *seconds, int *zone);
/* "Mon, 23 Nov 2026 05:41:00 +0000" into out. */
void date_format(int64_t seconds, int zone, char out[64]);
/* Calendar, without the C library's time zone: days since 1970-01-01. */
int64_t date_days(int year, int month, int day);
/* "20 min", "30 days", "2 weeks", "1 year", "14d", "36 h" in seconds; false when it is no duration. */
bool date_duration(struct str s, int64_t *seconds);

#endif
