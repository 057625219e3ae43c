/* resend — what becomes of pushes whose answers were lost with a connection.
 *
 * When a model is opened again on the next connection, the daemon says what became of
 * the pushes it was asked about: they are settled, or wait, or are not there. What is
 * settled ends; what is not is sent again. If the worker was taken for dead meanwhile,
 * it has a new incarnation and its former pushes are stale: those that are not there
 * end with OPT_ABORTED. What follows for their numbers is decided by fate.h. Called by
 * handshake.h with the client's lock held.
 */
#ifndef OPTCLIENT_RESEND_H
#define OPTCLIENT_RESEND_H

struct optclient;
struct optclient_model;
struct opt_model_reply;

void resend_pushes(struct optclient *client, struct optclient_model *model,
                   const struct opt_model_reply *found);

#endif
