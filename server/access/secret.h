/* secret — memory for what nobody else is to see: it is not part of a core dump, not
 * inherited by a forked process, and overwritten before it is given back. Any thread.
 */
#ifndef OPTIMD_SERVER_ACCESS_SECRET_H
#define OPTIMD_SERVER_ACCESS_SECRET_H

#include <stddef.h>

/* Whole pages with room for size bytes, all zero; NULL if there is no memory. */
void *secret_new(size_t size);
/* With the size that it was made with; NULL is allowed. */
void secret_free(void *memory, size_t size);

#endif
