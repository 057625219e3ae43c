/* hold — what a connection may hold in memory, and when it has to wait.
 *
 * Everything that a peer makes a loop keep is charged before it is taken: each request
 * with its data, its header's memory and the letter itself, and again with its answer
 * when that comes; a long header while it arrives; batches of frames that the peer does
 * not take, with what was converted for them. A connection may hold as much as the
 * engine has reserved for it (it has joined a model, whose gradients may all be under
 * way) or the configured allowance, whichever is more; what goes beyond the reservation
 * is counted against one budget of all connections. Where there is no room the
 * connection stops reading, or sending, and TCP makes the peer wait. A wait that
 * nothing could end is refused instead. Loop thread.
 *
 * What a peer can make the daemon hold, and who counts it when:
 *  - a connection (conn, reader, peer, farewell, SMALL_CHANGE of what follows): nobody
 *    by bytes; --max-connections is its budget, 40 KiB each
 *  - a header longer than the reader's stage: receive, hold_take before it grows
 *  - data, wherever it stands in the frame: receive, hold_admit before it arrives
 *  - a request's letter, arena, short data: receive, hold_admit before it is used
 *  - answers, pieces and tables: engine, letter_pay before they are made
 *  - answers, what is in the letter's arena: hold_sync when the letter is back; a
 *    connection whose answers are not read is not served (OUTBOX_LETTERS)
 *  - batches of frames, values in 16 bits: send, hold_take before they are made
 *  - buffers kept for the next frame: buffer_keep, within the same budget
 *  - weights, state, tables of a model: engine, making.c before it is made
 *  - a member, its gradient in an open round: engine, lease.c when it joins
 *  - pushes beyond that: frames as above; push.c for the rest
 *  - versions held by readers, copies of rows, views, files in shared memory: engine,
 *    published.c, from --memory
 */
#ifndef OPTIMD_SERVER_NET_HOLD_H
#define OPTIMD_SERVER_NET_HOLD_H

#include <stdbool.h>
#include <stddef.h>

#include "server/net/conn.h"

/* Charge the letter, whose data_size bytes are about to arrive. Anything but
 * PAUSE_NONE: there is no room now. */
enum conn_pause hold_admit(struct conn *conn, struct letter *letter, size_t data_size);

/* The letter holds more or less than it did: charge it with what it holds now. */
void hold_sync(struct conn *conn, struct letter *letter);

/* Take back all of the letter's charge. */
void hold_release(struct conn *conn, struct letter *letter);

/* Charge the connection with other bytes. False: there is no room now; the loop looks
 * again when there is. */
bool hold_take(struct conn *conn, size_t bytes);
/* The same for what cannot wait, and is little. */
void hold_force(struct conn *conn, size_t bytes);
void hold_give(struct conn *conn, size_t bytes);

/* Charge the connection with what its reader has taken for a header. */
void hold_header(struct conn *conn);

/* From now on the connection may hold allowance bytes, of which the engine has reserved
 * memory for granted. */
void hold_grant(struct conn *conn, size_t allowance, size_t granted);

/* Whether it is a guest of the budget (quota.h). */
bool hold_is_guest(const struct conn *conn);

/* Whether the connection has as many requests in flight as it may. */
bool hold_letters_full(const struct conn *conn);

/* A frame of a push goes to the engine. False: too many pushes are begun and not
 * finished. */
bool hold_push_posted(struct conn *conn, const struct letter *letter);

/* Whether a push of this id is begun and not finished. */
bool hold_push_begun(struct conn *conn, uint64_t id);

/* A letter came back. */
void hold_push_returned(struct conn *conn, const struct letter *letter);

/* Whether everything in flight belongs to pushes that wait for frames which the
 * connection would have to read first: then waiting for room would last for ever. */
bool hold_is_hopeless(const struct conn *conn);

/* Bytes the connection may hold. */
size_t hold_allowance(const struct conn *conn);

#endif
