/* exchange — what travels on a connection: requests out (outgoing.c), replies in
 * (incoming.c), and which belongs to which (exchange.c).
 *
 * Called by the session with the client's lock held.
 */
#ifndef OPTCLIENT_EXCHANGE_H
#define OPTCLIENT_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>

struct optclient;
struct optclient_call;
struct optclient_model;

enum { EXCHANGE_HEADER_FIXED = 1024 /* room in a header part for all but segments */ };

/* Send what goes without waiting, but leave off after some megabytes so that others
 * have their turn. */
void exchange_send(struct optclient *client);

/* Whether there is more to send. */
bool exchange_has_more(const struct optclient *client);

/* Take in replies, as far as they have come: to be called after each receive. False if
 * the connection has been given up. */
bool exchange_receive(struct optclient *client);

/* Ask to be let in. */
void exchange_greet(struct optclient *client);

/* In state RESTORING: if no model is left to be opened again, go on to READY. */
void exchange_restored(struct optclient *client);

/* The connection is gone: what was sent on it is to be sent again. */
void exchange_reset(struct optclient *client);

/* A call is taken away: nothing may touch its memory any more. */
void exchange_forget(struct optclient *client, struct optclient_call *call);

/* The call to which a reply with this id belongs, or NULL. */
struct optclient_call *exchange_id_find(struct optclient *client, uint64_t id);
void exchange_id_insert(struct optclient *client, struct optclient_call *call);
/* The call has no id from then on. */
void exchange_id_remove(struct optclient *client, struct optclient_call *call);

/* Whether a model has to be opened again on this connection and is not yet asked for.
 */
bool exchange_needs_restoring(const struct optclient_model *model);

#endif
