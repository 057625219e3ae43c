/* receive — frames in: from the socket's bytes to letters for the engine. Called by
 * service. Loop thread.
 */
#ifndef OPTIMD_SERVER_NET_RECEIVE_H
#define OPTIMD_SERVER_NET_RECEIVE_H

#include "server/net/conn.h"

/* Go through what has been received as far as possible: until more bytes are needed,
 * there is no room (conn->pause says why), or the connection ends. */
void receive_advance(struct conn *conn);

/* Drop the half-received request, if there is one. The reader must not be used again.
 */
void receive_abandon(struct conn *conn);

#endif
