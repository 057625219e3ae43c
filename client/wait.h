/* wait — who looks after the connection: a thread that waits for a call, or else the
 * client's own.
 *
 * A reply then wakes the very thread that waits for it, not first the client's. One
 * waiting thread at a time serves the connection, and the others that wait are served
 * by it. When it has what it waited for, the client's thread watches the connection
 * again, as it does for what nobody waits for. Connecting, greeting and everything
 * timed is always the client's thread's. Called by threads that make calls and by the
 * client's, with the client's lock held.
 */
#ifndef OPTCLIENT_WAIT_H
#define OPTCLIENT_WAIT_H

#include <stdint.h>

#include "client/call.h"

/* If nobody serves the connection and it is ready, the caller does from now on: it must
 * wait for the call, which may still have to be posted. */
void wait_begin(struct optclient_call *call);

/* Wait until a posted call has ended, or it is limit_ns by uv_hrtime (UINT64_MAX:
 * never). */
void wait_until_ended(struct optclient_call *call, uint64_t limit_ns);

/* Have the client's thread watch the connection for what nobody else does. */
void wait_by_thread(struct optclient *client);

/* The same, but in CLIENT_PATIENCE_US, or CLIENT_CALM_US if no answer is due: whoever
 * is likely to look sooner need not be crossed by another thread, nor pay for the
 * change of hands before and after each call. */
void wait_by_thread_later(struct optclient *client);

#endif
