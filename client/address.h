/* address — "HOST:PORT" as people write it, taken apart.
 *
 * Called once per client, by the thread that connects. No look-up happens here.
 */
#ifndef OPTCLIENT_ADDRESS_H
#define OPTCLIENT_ADDRESS_H

#include "common/status.h"

enum { ADDRESS_HOST_MAX = 253 }; /* bytes of a host name */

struct address {
    char host[ADDRESS_HOST_MAX + 1]; /* without brackets */
    char port[6];                    /* "1" to "65535" */
};

/* Read "127.0.0.1:7070", "[::1]:7070" or "ps.internal:7070". OPT_INVALID_ARGUMENT with
 * a sentence; *out is written only on success. */
enum opt_status address_parse(const char *text, struct address *out,
                              struct opt_error *error);

#endif
