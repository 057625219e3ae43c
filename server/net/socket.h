/* socket — options and names of sockets. Any thread. */
#ifndef OPTIMD_SERVER_NET_SOCKET_H
#define OPTIMD_SERVER_NET_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/status.h"

/* Whether only this machine can reach the address. */
bool socket_is_local(const struct sockaddr *address);

/* Of a connection that is not read from: whether its peer has closed it, or is gone. */
bool socket_has_ended(int socket);

/* For how many milliseconds the peer's machine has confirmed nothing and sent nothing;
 * 0 where that is not known, as of a peer on this machine's Unix sockets. Something
 * must be sent from time to time, or an idle peer looks silent. */
uint64_t socket_silence_ms(int socket);

/* "127.0.0.1:7070", "[::1]:7070", "unix:/run/optimd.sock"; the empty text for another
 * family. */
void socket_name(const struct sockaddr *address, char *out, size_t size);

/* The same for the other end of a connection; a Unix socket's has no name, but a
 * process: "unix:pid=4711,uid=1000". */
void socket_peer_name(int socket, const struct sockaddr *peer, char *out, size_t size);

/* For a TCP socket bound to an address, before it listens: connections of this machine
 * are to have that congestion control from their beginning, where the kernel has it
 * ("": leave it). Given to them later, what bbr has switched on would stay: its pacing,
 * which halves what loopback carries whatever comes after. Main thread, before there
 * are loops. */
void socket_prepare(int socket, const struct sockaddr *address, const char *congestion);

/* Whether the kernel lets this process have that congestion control. False with a
 * sentence that lists those it has. */
bool socket_knows_congestion(const char *name, struct opt_error *error);

/* For TCP: no delay, keepalive, user_timeout_ms; for peers on this machine also the
 * congestion control, where the kernel has it ("": leave it), and for others the usual
 * one, if socket_prepare has changed it. What the kernel refuses is left as it is:
 * these make a connection faster or sooner found dead, not right. */
void socket_tune(int socket, const struct sockaddr *peer, uint32_t user_timeout_ms,
                 const char *congestion);

#endif
