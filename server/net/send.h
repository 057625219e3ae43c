/* send — answers out: from letters to the transport. Called by service, and by whoever
 * has to refuse something. Loop thread.
 *
 * Answers are sent in the order in which they come, in batches (answer_frames.h). Only
 * AHEAD_BATCHES batches are made ahead of the transport: a peer that reads slowly costs
 * references, not memory. What a batch holds while it waits for the peer is charged to
 * the connection (charge.h).
 */
#ifndef OPTIMD_SERVER_NET_SEND_H
#define OPTIMD_SERVER_NET_SEND_H

#include <stdbool.h>

#include "server/net/conn.h"

struct letter;

/* Queue an answer (takes it). It goes out when the connection is next served. */
void send_answer(struct conn *conn, struct letter *letter);

/* Write what can be written. */
void send_pump(struct conn *conn);

/* Whether nothing is left to write. */
bool send_is_idle(const struct conn *conn);

/* Drop what has not been written. */
void send_abandon(struct conn *conn);

/* Tell the peer status and sentence (id 0), then end. reason is for the log. */
void send_refusal(struct conn *conn, enum opt_status status, enum opt_detail detail,
                  const char *reason, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

#endif
