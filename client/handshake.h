/* handshake — what comes before calls on a new connection: hello, and each model opened
 * again, with what the daemon answers.
 *
 * Called by connection.h, requests.h and replies.h with the client's lock held.
 */
#ifndef OPTCLIENT_HANDSHAKE_H
#define OPTCLIENT_HANDSHAKE_H

#include <stdbool.h>

struct opt_error;
struct opt_error_reply;
struct opt_reply;
struct optclient;
struct optclient_model;

/* Ask to be let in. */
void handshake_greet(struct optclient *client);

/* Ask for a model to be opened again, and what became of its unanswered pushes. */
void handshake_reopen(struct optclient *client, struct optclient_model *model);

/* The answer to hello. */
void handshake_on_hello(struct optclient *client, const struct opt_reply *reply);

/* If the reply answers a model's reopening, take it. False: it does not. */
bool handshake_on_reopened(struct optclient *client, const struct opt_reply *reply);

/* The daemon does not want this connection, or (final) this client. */
void handshake_on_error(struct optclient *client, const struct opt_error_reply *reply,
                        bool final);

/* The connection has broken; error says how. A daemon that does not believe this
 * client, as far as its transport tells, will not the next time either. */
void handshake_on_broken(struct optclient *client, const struct opt_error *error);

#endif
