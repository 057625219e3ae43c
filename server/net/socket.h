/* socket — the congestion control of sockets that listen, and of what they accept.
 *
 * Called by settings, listener and loops. Any thread but for socket_prepare.
 */
#ifndef OPTIMD_SERVER_NET_SOCKET_H
#define OPTIMD_SERVER_NET_SOCKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/socket.h"
#include "common/status.h"

/* For a TCP socket bound to an address, before it listens: connections of this machine
 * are to have that congestion control from their beginning, where the kernel has it
 * ("": leave it). Given to them later, what bbr has switched on would stay: its pacing,
 * which halves what loopback carries whatever comes after. Main thread, before there
 * are loops. */
void socket_prepare(int socket, const struct sockaddr *address, const char *congestion);

/* Whether the kernel lets this process have that congestion control. False with a
 * sentence that lists those it has. */
bool socket_knows_congestion(const char *name, struct opt_error *error);

/* What connections are given: user_timeout_ms, and for peers on this machine the
 * congestion control (borrowed), for others the usual one, if socket_prepare has
 * changed it. */
struct opt_socket_tuning socket_tuning(uint32_t user_timeout_ms,
                                       const char *congestion);

#endif
