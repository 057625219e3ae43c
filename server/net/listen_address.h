/* listen_address — where to listen, as the operator writes it.
 *
 * Called once by the settings, on the main thread.
 */
#ifndef OPTIMD_SERVER_NET_LISTEN_ADDRESS_H
#define OPTIMD_SERVER_NET_LISTEN_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "common/status.h"

enum { LISTEN_ADDRESSES_MAX = 8 };

struct listen_address {
    struct sockaddr_storage address;
    socklen_t size;
    unsigned mode; /* of a Unix socket's file; 0: for owner and group */
    bool
        six_only; /* an IPv6 one whose port an IPv4 one has as well: each has its own */
};

struct listen_addresses {
    struct listen_address at[LISTEN_ADDRESSES_MAX];
    size_t count; /* at least 1 */
};

/* "127.0.0.1:7070", "[::1]:0", "localhost:7070", "unix:/run/optimd.sock", or several of
 * them with commas between, none twice; port 0 lets the kernel choose. [::] serves IPv4
 * too, unless an IPv4 address with its port is listed. OPT_INVALID_ARGUMENT with a
 * sentence. */
enum opt_status listen_addresses_parse(const char *text, struct listen_addresses *out,
                                       struct opt_error *error);

#endif
