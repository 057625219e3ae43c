/* answer_frames — answers into frames.
 *
 * Small answers are put together into one batch; weights are cut into frames of at most
 * OPT_CHUNK_BYTES, sent from the memory where they are published, or converted to 16
 * bits, or only named where the peer shares their memory. Called by send.h. Loop
 * thread.
 */
#ifndef OPTIMD_SERVER_NET_ANSWER_FRAMES_H
#define OPTIMD_SERVER_NET_ANSWER_FRAMES_H

#include <stdbool.h>

#include "server/net/conn.h"

struct batch;

/* As many frames of the queued answers as belong into one write. NULL: no memory, or
 * *waits: no room now. */
struct batch *answer_frames_batch(struct conn *conn, bool *waits);

#endif
