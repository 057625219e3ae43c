/* charge — what a connection may hold in memory, and when it has to wait.
 *
 * Everything that a peer makes a loop keep is charged before it is taken: each request
 * with its data, its header's memory and the letter itself, and again with its answer
 * when that comes; a long header while it arrives; batches of frames that the peer does
 * not take, with what was converted for them. A connection may hold as much as the
 * engine has reserved for it (it has joined a model, whose gradients may all be under
 * way) or the configured allowance, whichever is more; what goes beyond the reservation
 * is counted against one budget of all connections. Where there is no room the
 * connection stops reading, or sending, and TCP makes the peer wait. A wait that
 * nothing could end is refused instead (open_pushes.h). Called by receive, send and
 * service. Loop thread.
 *
 * What a peer can make the daemon hold, and who counts it when:
 *  - a connection (conn, reader, peer, farewell, SMALL_CHANGE of what follows): nobody
 *    by bytes; --max-connections is its budget, 40 KiB each
 *  - a header longer than the reader's stage: receive, charge_take before it grows
 *  - data, wherever it stands in the frame: receive, charge_letter before it arrives
 *  - a request's letter, arena, short data: receive, charge_letter before it is used
 *  - answers, pieces and tables: engine, letter_pay before they are made
 *  - answers, what is in the letter's arena: charge_update when the letter is back; a
 *    connection whose answers are not read is not served (OUTBOX_LETTERS)
 *  - batches of frames, values in 16 bits: send, charge_take before they are made
 *  - buffers kept for the next frame: buffer_keep, within the same budget
 *  - weights, state, tables of a model: the engine, in model/making.c, before it is
 * made
 *  - a member, its gradient in an open round: the engine, in workers/membership.c, when
 * it joins
 *  - pushes beyond that: frames as above; rounds/push.c counts the rest
 *  - versions held by readers, copies of rows, views, files in shared memory: the
 * engine, in base/version.c, from --memory
 */
#ifndef OPTIMD_SERVER_NET_CHARGE_H
#define OPTIMD_SERVER_NET_CHARGE_H

#include <stdbool.h>
#include <stddef.h>

#include "server/net/conn.h"

/* Charge the letter, whose data_size bytes are about to arrive. Anything but
 * PAUSE_NONE: there is no room now. */
enum conn_pause charge_letter(struct conn *conn, struct letter *letter,
                              size_t data_size);

/* The letter holds more or less than it did: charge it with what it holds now. */
void charge_update(struct conn *conn, struct letter *letter);

/* Take back all of the letter's charge. */
void charge_release(struct conn *conn, struct letter *letter);

/* Charge the connection with other bytes. False: there is no room now; the loop looks
 * again when there is. */
bool charge_take(struct conn *conn, size_t bytes);
/* Charge it even where there is no room: for little that cannot wait. */
void charge_force(struct conn *conn, size_t bytes);
/* These bytes are no longer held. */
void charge_give(struct conn *conn, size_t bytes);

/* Charge the connection with what its reader has taken for a header. */
void charge_header(struct conn *conn);

/* From now on the connection may hold allowance bytes, of which the engine has reserved
 * memory for granted. */
void charge_grant(struct conn *conn, size_t allowance, size_t granted);

/* Whether it is a guest of the budget (quota.h). */
bool charge_is_guest(const struct conn *conn);

/* Whether the connection has as many requests in flight as it may. */
bool charge_letters_full(const struct conn *conn);

/* Bytes the connection may hold. */
size_t charge_allowance(const struct conn *conn);

#endif
