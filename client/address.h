/* address — "HOST:PORT" or "unix:/PATH" as people write it, taken apart.
 *
 * Called once per client, by the thread that calls optclient_connect. No look-up
 * happens here.
 */
#ifndef OPTCLIENT_ADDRESS_H
#define OPTCLIENT_ADDRESS_H

#include <sys/un.h>

#include "common/status.h"

enum { ADDRESS_HOST_MAX = 253 }; /* bytes of a host name */

struct address {
    char host[ADDRESS_HOST_MAX + 1]; /* without brackets */
    char port[6];                    /* "1" to "65535"; "": a Unix socket */
    struct sockaddr_un path;         /* then this one */
};

/* Read "127.0.0.1:7070", "[::1]:7070", "ps.internal:7070" or "unix:/run/optimd.sock".
 * OPT_INVALID_ARGUMENT with a sentence; *out is written only on success. */
enum opt_status address_parse(const char *text, struct address *out,
                              struct opt_error *error);

#endif
