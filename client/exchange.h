/* exchange — what travels on a connection: requests out (outgoing.c), replies in
 * (incoming.c), and which belongs to which (exchange.c).
 *
 * Called with the client's lock held.
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

/* Take in what has come from the daemon, though not all if it is much. */
void exchange_take_in(struct optclient *client);

/* Have the client's thread watch the connection for what nobody else does. */
void exchange_watch(struct optclient *client);

/* The same, but in SESSION_PATIENCE_US, or SESSION_CALM_US if no answer is due: whoever
 * is likely to look sooner need not be crossed by another thread, nor pay for the
 * change of hands before and after each call. */
void exchange_watch_later(struct optclient *client);

/* Ask to be let in. */
void exchange_greet(struct optclient *client);

/* A call is taken away: nothing may touch its memory any more. */
void exchange_forget(struct optclient *client, struct optclient_call *call);

/* The call to which a reply with this id belongs, or NULL. */
struct optclient_call *exchange_id_find(struct optclient *client, uint64_t id);
void exchange_id_insert(struct optclient *client, struct optclient_call *call);
/* The call has no id from then on. */
void exchange_id_remove(struct optclient *client, struct optclient_call *call);

#endif
