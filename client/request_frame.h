/* request_frame — the next frame of one request: filled in, cut to what the daemon
 * accepts, narrowed, its checksum taken, and put on its way.
 *
 * Called by requests.h and handshake.h with the client's lock held.
 */
#ifndef OPTCLIENT_REQUEST_FRAME_H
#define OPTCLIENT_REQUEST_FRAME_H

#include <stdbool.h>
#include <stdint.h>

struct opt_request;
struct optclient;
struct optclient_call;

enum { REQUEST_HEADER_FIXED = 1024 /* room in a header part for all but segments */ };

/* Begin a frame that belongs to no call: hello, open, heartbeat, goodbye. Returns its
 * id. */
uint64_t request_frame_begin_own(struct optclient *client, struct opt_request *request);

/* Begin the next frame of a call, or end the call if it cannot be sent. */
void request_frame_begin(struct optclient *client, struct optclient_call *call);

/* Whether the daemon has room for the next frame of the first call in the queue. If it
 * had none it would read nothing more, and heartbeats would lie behind the frame; so
 * the frame waits here, and they go past it. A call goes on in any case if nothing else
 * of this client is held there: no answer would make room. */
bool request_frame_has_room(const struct optclient *client);

#endif
