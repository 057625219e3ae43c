/* hold — what a connection may hold in memory, and when it has to wait.
 *
 * Each request in flight is charged with its data, its header's memory and the letter
 * itself. A connection may hold as much as the engine has reserved for it (it has
 * joined a model, whose gradients may all be under way) or the configured allowance,
 * whichever is more; what goes beyond the reservation is counted against one budget of
 * all connections. Where there is no room the connection stops reading and TCP makes
 * the peer wait. A wait that nothing could end is refused instead. Loop thread.
 */
#ifndef OPTIMD_SERVER_NET_HOLD_H
#define OPTIMD_SERVER_NET_HOLD_H

#include <stdbool.h>
#include <stddef.h>

#include "server/net/conn.h"

/* Charge the letter, whose data_size bytes are about to arrive. Anything but
 * PAUSE_NONE: there is no room now. */
enum conn_pause hold_admit(struct conn *conn, struct letter *letter, size_t data_size);

/* Take back a part of the letter's charge, or all of it. */
void hold_release(struct conn *conn, struct letter *letter, size_t bytes);

/* The engine has reserved bytes for this connection from now on. */
void hold_grant(struct conn *conn, size_t bytes);

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
