/* service — what is done for a connection, from its beginning to its end.
 *
 * The loop calls these when something has happened to a connection; what follows from
 * it is done in service_run, once for all that has happened (conn_ready). Loop thread.
 */
#ifndef OPTIMD_SERVER_NET_SERVICE_H
#define OPTIMD_SERVER_NET_SERVICE_H

#include <stdbool.h>

#include "server/net/conn.h"

/* Serve the peer of a transport (takes it, also on failure). refuse: answer that there
 * are too many connections, nothing else. watcher is told of its events. */
void service_open(struct loop *loop, struct opt_transport *transport, bool refuse,
                  const struct watcher *watcher);

/* A connection that was dealt to the loop is not to be served. */
void service_unopened(struct loop *loop, bool refuse);

/* Its transport, which was not open, is, or error says why it never will be. */
void service_opened(struct conn *conn, const struct opt_error *error);

/* Its transport can be read: do so once. Whether there may be more to read. */
bool service_read(struct conn *conn);

/* Its transport can be written to. */
void service_unblock(struct conn *conn);

/* Its transport is closed. */
void service_closed(struct conn *conn);

/* A letter is back from the engine. */
void service_returned(struct conn *conn, struct letter *letter);

/* Do what can be done now: go on with what waited for room, send, end, vanish. */
void service_run(struct conn *conn);

/* The daemon ends: tell the peer, then end. */
void service_finish(struct conn *conn);

#endif
