/* What the files of unpack share. */
#ifndef CORE_UNPACK_INT_H
#define CORE_UNPACK_INT_H

#include "core/unpack.h"

/* The list of members of a 7z is one that the library can read in little memory. ERR_LIMIT: it is beyond UNPACK_LIST_*; ERR_IO: it is damaged or
 * cut off; ERR_NOMEM; or what reading the input said. A locked list, which the library does not read either, passes. */
bool unpack_7z_fits(const struct unpack_input *in, struct err *e) MUST_CHECK;

#endif
