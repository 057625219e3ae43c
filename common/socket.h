/* socket — addresses of sockets, and the options of those that carry frames. Daemon and
 * client, any thread.
 */
#ifndef OPTIMD_COMMON_SOCKET_H
#define OPTIMD_COMMON_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* What a connection is given, where the kernel has it. */
struct opt_socket_tuning {
    uint32_t user_timeout_ms; /* TCP_USER_TIMEOUT; 0 leaves it */
    const char *local;        /* congestion control for peers on this machine, */
    const char *other;        /* and for others; "" leaves it */
};

/* Whether only this machine can reach the address. */
bool opt_socket_is_local(const struct sockaddr *address);

/* "127.0.0.1:7070", "[::1]:7070", "unix:/run/optimd.sock"; the empty text for another
 * family. */
void opt_socket_name(const struct sockaddr *address, char *out, size_t size);

/* For TCP: no delay, keepalive, and the tuning. What the kernel refuses is left as it
 * is: these make a connection faster or sooner found dead, not right. */
void opt_socket_tune(int socket, const struct sockaddr *peer,
                     const struct opt_socket_tuning *tuning);

#endif
