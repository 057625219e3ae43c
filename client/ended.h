/* ended — the asynchronous calls that have ended and that nobody was told of yet, for a
 * program that waits for many things at once: a descriptor is readable while there are
 * any, and each is given once.
 *
 * Calls are entered by calls.h when they end, taken by the public functions
 * (api_calls.c), and leave when they are freed; with the client's lock held.
 */
#ifndef OPTCLIENT_ENDED_H
#define OPTCLIENT_ENDED_H

#include <stdbool.h>

struct optclient;
struct optclient_call;

/* Have the descriptor, client->told_fd. False: there are no more of them. */
bool ended_start(struct optclient *client);

/* A call without a callback has ended. Nothing is noted until there is a descriptor. */
void ended_add(struct optclient *client, struct optclient_call *call);

/* A call is taken, or about to be freed; it may have been taken before. */
void ended_remove(struct optclient *client, struct optclient_call *call);

/* The client is closed: close the descriptor, and forget what was not taken. */
void ended_stop(struct optclient *client);

#endif
