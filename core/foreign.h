/* Files that hold mail, or are often taken for some, in a form that nothing here reads: known by their first bytes, so that a person
 * learns what to do instead of getting one message without a header. */
#ifndef CORE_FOREIGN_H
#define CORE_FOREIGN_H

#include <stdbool.h>

#include "core/str.h"

/* What a file that begins so is, and what to do with it: what follows "it is". NULL: nothing foreign is known of it. */
const char *foreign_why(struct str head);
/* Whether such a file, of that name among others, may well hold mail, so that passing it over in silence would lose some. */
bool foreign_holds_mail(struct str head, struct str name);
/* Text in UTF-16, which Windows calls Unicode, by its byte order mark. */
bool foreign_is_utf16(struct str head);

#endif
