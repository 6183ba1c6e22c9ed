/* Names of mail folders as IMAP servers write them (RFC 3501 5.1.3: modified UTF-7): "Entw&APw-rfe" is "Entwürfe". */
#ifndef CORE_MUTF7_H
#define CORE_MUTF7_H

#include "core/buf.h"

/* Adds the name as UTF-8, or as it is where it is not in that form. False when out of memory. */
bool mutf7_decode(struct str name, struct buf *out);

#endif
