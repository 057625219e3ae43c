/* open_pushes — the pushes of a connection of which some frames have come, and not yet
 * the last.
 *
 * Such a push keeps what has come of it until its last frame is there, so a connection
 * that has no room for more must not wait for room if only open pushes take it. Called
 * by receive and service. Loop thread.
 */
#ifndef OPTIMD_SERVER_NET_OPEN_PUSHES_H
#define OPTIMD_SERVER_NET_OPEN_PUSHES_H

#include <stdbool.h>
#include <stdint.h>

#include "server/net/conn.h"

struct letter;

/* A frame of a push goes to the engine. False: too many pushes are begun and not
 * finished. */
bool open_pushes_post(struct conn *conn, const struct letter *letter);

/* Whether a push of this id is begun and not finished. */
bool open_pushes_has(struct conn *conn, uint64_t id);

/* A letter has come back from the engine. */
void open_pushes_return(struct conn *conn, const struct letter *letter);

/* Whether everything in flight belongs to pushes that wait for frames which the
 * connection would have to read first: then waiting for room would last for ever. */
bool open_pushes_hold_all(const struct conn *conn);

#endif
