/* deadlines — how long a connection may take: to say hello, to send a frame, to read
 * its answers, to be silent, to wait for room. Called by loop at every tick. Loop
 * thread.
 */
#ifndef OPTIMD_SERVER_NET_DEADLINES_H
#define OPTIMD_SERVER_NET_DEADLINES_H

#include <stdint.h>

#include "server/net/conn.h"

/* Look whether a deadline has passed, and end the connection if so; tell a peer that is
 * held back that the daemon lives. */
void deadlines_check(struct conn *conn, uint64_t now_ms);

#endif
