/* connection — one connection after another: look the address up, connect, greet, have
 * models opened again, watch for silence, back off, and begin anew (client.h has the
 * states).
 *
 * All of it runs on the client's own thread. optclient_connect starts that, and it ends
 * with optclient_close.
 */
#ifndef OPTCLIENT_CONNECTION_H
#define OPTCLIENT_CONNECTION_H

#include "common/status.h"

struct optclient;

/* Start the thread. The client's settings, address, peer and session are filled in.
 * OPT_UNAVAILABLE with a sentence if there are no resources; then nothing is left. */
enum opt_status connection_start(struct optclient *client, struct opt_error *error);

/* Give back what it was started with. The thread has ended, and nobody will wake it. */
void connection_stop(struct optclient *client);

#endif
