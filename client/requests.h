/* requests — what goes out on a connection, in order: models to be opened again, memory
 * to be shared, calls, heartbeats, goodbye.
 *
 * Called by the client's thread, and by threads that make calls or wait for them, with
 * the client's lock held.
 */
#ifndef OPTCLIENT_REQUESTS_H
#define OPTCLIENT_REQUESTS_H

#include <stdbool.h>

struct optclient;

/* Send what goes without waiting, but leave off after some megabytes so that others
 * have their turn. */
void requests_send(struct optclient *client);

/* Whether there is more to send. */
bool requests_have_more(const struct optclient *client);

#endif
