/* Between sys.c and sys_path.c only: the place where tests make a system call fail. */
#ifndef CORE_SYS_SEAM_H
#define CORE_SYS_SEAM_H

#include <stdbool.h>

/* Counts a call; true, with errno set, when a test wants this one to fail. */
bool seam_fails(void);
/* One of the SYS_* of sys_pretend. */
bool seam_pretends(unsigned what);

#endif
