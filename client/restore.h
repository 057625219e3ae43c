/* restore — what a lost connection leaves to be done on the next one: calls that were
 * sent are sent again, and models are opened again first. Lock held in all functions.
 */
#ifndef OPTCLIENT_RESTORE_H
#define OPTCLIENT_RESTORE_H

#include <stdbool.h>

struct optclient;
struct optclient_model;

/* The connection is gone: what was sent on it is to be sent again. */
void restore_begin(struct optclient *client);

/* Whether a model has to be opened again on this connection and is not yet asked for.
 */
bool restore_is_due(const struct optclient_model *model);

/* Whether no model is left to be opened again. */
bool restore_is_over(const struct optclient *client);

#endif
