/* in_flight — the requests that are on the present connection, by their ids.
 *
 * An id is given to a call when a frame of it leaves, and taken away when its answer
 * has come or the call ends. Called by the rooms that send, receive and end calls, with
 * the client's lock held.
 */
#ifndef OPTCLIENT_IN_FLIGHT_H
#define OPTCLIENT_IN_FLIGHT_H

#include <stdint.h>

struct optclient;
struct optclient_call;

/* The call to which a reply with this id belongs, or NULL. */
struct optclient_call *in_flight_find(struct optclient *client, uint64_t id);

/* The call's request has got the id that stands in it. */
void in_flight_add(struct optclient *client, struct optclient_call *call);
/* The call has no id from then on. */
void in_flight_remove(struct optclient *client, struct optclient_call *call);

/* A call is taken away: nothing may touch its memory any more. */
void in_flight_forget(struct optclient *client, struct optclient_call *call);

#endif
