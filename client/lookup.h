/* lookup — a host name to addresses, without ever holding up the client's thread.
 *
 * The system's resolver may block for many seconds and cannot be interrupted. Each
 * look-up therefore has a thread of its own, which reports by waking the client's;
 * a client that no longer wants the answer abandons the look-up and goes on. Numeric
 * addresses and Unix sockets are answered at once, without a thread. Called by
 * connection.h, on the client's thread.
 */
#ifndef OPTCLIENT_LOOKUP_H
#define OPTCLIENT_LOOKUP_H

#include <stdbool.h>
#include <sys/socket.h>

#include "client/address.h"
#include "common/status.h"

struct lookup;

/* One of the addresses that a name has, in the order in which to try them. */
struct route {
    struct route *next;
    struct sockaddr_storage address;
    socklen_t size;
};
void routes_free(struct route *routes);

/* Begin. wake, an eventfd, is written to once the answer is there (perhaps before this
 * returns); it is borrowed until lookup_take gives an answer or lookup_abandon is
 * called. OPT_UNAVAILABLE with a sentence if no thread can be had. */
enum opt_status lookup_start(const struct address *address, int wake,
                             struct lookup **out, struct opt_error *error);

/* The answer. False: not there yet. True: the lookup is freed, and either *out is a
 * list for routes_free, or *out is NULL and error has the sentence. */
bool lookup_take(struct lookup *lookup, struct route **out, struct opt_error *error);

/* No longer wanted. NULL is allowed. */
void lookup_abandon(struct lookup *lookup);

#endif
