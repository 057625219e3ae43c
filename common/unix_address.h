/* unix_address — "unix:/run/optimd.sock": the address of a socket in the file system.
 *
 * Read by whoever takes addresses from people, in the daemon and in the client. Any
 * thread.
 */
#ifndef OPTIMD_COMMON_UNIX_ADDRESS_H
#define OPTIMD_COMMON_UNIX_ADDRESS_H

#include <stdbool.h>
#include <sys/un.h>

#include "common/status.h"

/* Whether the text is meant to be such an address. */
bool opt_unix_meant(const char *text);

/* Read it. OPT_INVALID_ARGUMENT with a sentence; *out is written only on success. */
enum opt_status opt_unix_address(const char *text, struct sockaddr_un *out,
                                 struct opt_error *error);

#endif
