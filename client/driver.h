/* driver — a thread that waits for a call serves the connection meanwhile.
 *
 * The reply then wakes the very thread that waits for it, not first the client's. One
 * thread at a time drives; others that wait are served by it. When it has what it
 * waited for, the client's thread watches the connection again, as it does for what
 * nobody waits for. Connecting, greeting and everything timed is always the client's
 * thread's. Lock held in all functions.
 */
#ifndef OPTCLIENT_DRIVER_H
#define OPTCLIENT_DRIVER_H

#include "client/call.h"

/* If nobody drives and there is a connection that is ready, the caller does from now
 * on: it must wait for the call, which may still have to be posted. */
void driver_begin(struct optclient_call *call);

/* Wait until a posted call has ended. */
void driver_wait(struct optclient_call *call);

#endif
