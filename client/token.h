/* token — what a client logs in with, from the file that has it.
 *
 * Read anew for each connection, so that a token can be replaced while programs run.
 * Called when a client is made, and by handshake.h with the client's lock held.
 */
#ifndef OPTCLIENT_TOKEN_H
#define OPTCLIENT_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

/* The first line of a regular file, without blanks around it. The bytes are to be
 * overwritten when they have served. OPT_NOT_FOUND, OPT_INVALID_ARGUMENT, with a
 * sentence that has nothing of them. */
enum opt_status token_read(const char *path, uint8_t out[OPT_TOKEN_MAX], size_t *size,
                           struct opt_error *error);

#endif
