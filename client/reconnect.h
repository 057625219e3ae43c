/* reconnect — what a lost connection leaves to be done on the next one: calls that were
 * sent are sent again, and models are opened again first. Called by connection.h and
 * requests.h, with the client's lock held.
 */
#ifndef OPTCLIENT_RECONNECT_H
#define OPTCLIENT_RECONNECT_H

#include <stdbool.h>

struct optclient;
struct optclient_model;

/* The connection is gone: what was sent on it is to be sent again. */
void reconnect_begin(struct optclient *client);

/* Whether a model has to be opened again on this connection and is not yet asked for.
 */
bool reconnect_is_due(const struct optclient_model *model);

/* Whether no model is left to be opened again. */
bool reconnect_is_over(const struct optclient *client);

#endif
