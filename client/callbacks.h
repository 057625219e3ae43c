/* callbacks — the thread that runs the callbacks of asynchronous calls.
 *
 * It is a thread of its own, so that a callback which takes long holds up other
 * callbacks, but neither the connection nor the heartbeats that keep the worker's
 * lease. It is started with the first call that has a callback.
 */
#ifndef OPTCLIENT_CALLBACKS_H
#define OPTCLIENT_CALLBACKS_H

#include <stdbool.h>

struct optclient;
struct optclient_call;

/* Lock held. Have the thread. False if there are no resources. */
bool callbacks_start(struct optclient *client);

/* Lock held. A call has ended: its callback is to run. */
void callbacks_post(struct optclient *client, struct optclient_call *call);

/* Run what is left and end the thread. The client's own thread has ended. */
void callbacks_stop(struct optclient *client);

/* Whether the caller is in a callback of this client. */
bool callbacks_inside(const struct optclient *client);

#endif
