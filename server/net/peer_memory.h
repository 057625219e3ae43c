/* peer_memory — memory in common with a peer on a Unix socket: gradients that are
 * pushed by place, weights that are given by place.
 *
 * What a place names is checked when it comes: it must lie in the file of this very
 * connection. Versions of weights that were given by place are lent: they stay as they
 * are until the peer says that it does not read them any more (Request.released). When
 * a connection ends they are taken back only after its socket has been closed, so that
 * a peer that finds its socket still open after reading knows that what it read was
 * whole. Loop thread.
 *
 *   share answered -> peer_memory_note                    the connection knows the
 * files push by place:    peer_memory_locate -> peer_memory_examine pull by place:
 * peer_memory_lend -> peer_memory_place (per piece) -> peer_memory_keep
 *                     -> peer_memory_release, or peer_memory_close
 */
#ifndef OPTIMD_SERVER_NET_PEER_MEMORY_H
#define OPTIMD_SERVER_NET_PEER_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/net/conn.h"

struct letter;
struct piece;

/* For a connection that may share memory. NULL: no memory, so none is shared. */
struct peer_memory *peer_memory_new(void);

/* Whether the connection, which may share memory, may do so for one model more. */
bool peer_memory_has_room(const struct conn *conn, uint32_t model);

/* An answer has come back: if it offers files, or the peer has left a model, remember
 * that. */
void peer_memory_note(struct conn *conn, const struct letter *letter);

/* Send a frame and the letter's files in one message. 0, EAGAIN, ETOOMANYREFS if the
 * system lets no more files be on their way, or another errno. */
int peer_memory_send(struct conn *conn, struct letter *letter, const uint8_t *frame,
                     size_t size);
/* The files cannot be sent: nothing is shared. */
void peer_memory_forget(struct conn *conn, const struct letter *letter);

/* If the request is a push by place: see that its places are good, and whose they are.
 * False: the letter has been given its error. */
bool peer_memory_locate(struct conn *conn, struct letter *letter);
/* Look for values that are not finite, and add to the checksum if there is one, as is
 * done for data when it arrives. */
void peer_memory_examine(struct conn *conn, struct letter *letter);

/* An answer is queued: decide whether what it has may be given by place. */
void peer_memory_lend(struct conn *conn, struct letter *letter);
/* Where a piece, from one of its elements on, is in the file of the peer. False: it has
 * to be sent. */
bool peer_memory_place(const struct letter *letter, const struct piece *piece,
                       uint64_t from, uint64_t *place);
/* The whole answer is about to go: keep what it lends until it is given back. False: no
 * memory; the peer would go on to read what nobody keeps for it. */
bool peer_memory_keep(struct conn *conn, struct letter *letter);
/* Take back what the request says is not read any more. */
void peer_memory_release(struct conn *conn, const struct letter *letter);

/* The socket is closed: take back everything. */
void peer_memory_close(struct conn *conn);

#endif
