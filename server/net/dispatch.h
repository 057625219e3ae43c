/* dispatch — what is known about a request from its header: whether it may be one, and
 * how its data is to be received. Called by receive. Loop thread.
 */
#ifndef OPTIMD_SERVER_NET_DISPATCH_H
#define OPTIMD_SERVER_NET_DISPATCH_H

#include <stddef.h>
#include <stdint.h>

#include "server/net/conn.h"

struct letter;
struct message_row;

/* Read the header into the letter. Returns the row of the request, or NULL after
 * letter_fail: then the request goes no further, and if its id is 0 even the id could
 * not be read. */
const struct message_row *dispatch(const struct conn *conn, struct letter *letter,
                                   const uint8_t *header, size_t size,
                                   size_t data_size);

/* Storage type of the values in the request's data, if its row says they are values. */
enum opt_dtype dispatch_dtype(const struct letter *letter);

/* Whether the request is one frame of a push of several. */
bool dispatch_is_part(const struct letter *letter);

#endif
