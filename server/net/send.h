/* send — frames out: from answered letters to the socket. Loop thread.
 *
 * Answers are sent in the order in which they come. Small ones are put together into
 * one write; weights are cut into frames of at most OPT_CHUNK_BYTES and written from
 * the memory where they are published. Only AHEAD_BATCHES batches are handed to libuv
 * at a time: a peer that reads slowly costs references, not memory. What a batch holds
 * while it waits for the peer is charged to the connection (hold.h).
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

/* Drop what has not been handed to libuv. */
void send_abandon(struct conn *conn);

/* Free the loop's spare batches. */
void send_free_spare(struct loop *loop);

#endif
