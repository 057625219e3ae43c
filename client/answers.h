/* answers — what the daemon's answer means for the call that it belongs to: its result,
 * its end, or that it is asked again later.
 *
 * Called by replies.h, which has found the call and the place for the data, with the
 * client's lock held.
 */
#ifndef OPTCLIENT_ANSWERS_H
#define OPTCLIENT_ANSWERS_H

#include "common/status.h"

struct opt_reply;
struct optclient;
struct optclient_call;

/* A whole frame of the answer has come, its data where it belongs. */
void answers_take(struct optclient *client, struct optclient_call *call,
                  const struct opt_reply *reply);

/* The answer is wrong: end the call with this status and sentence. */
void answers_fail(struct optclient *client, struct optclient_call *call,
                  enum opt_status status, const char *what);

#endif
