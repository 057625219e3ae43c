/* withdraw — pushes that go before a round has applied them: at their deadline, with
 * their worker, because their round has closed without them, or because it failed.
 *
 * What has been applied of one, where rounds are applied shard by shard, stays, and its
 * sequence counts as used. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_WITHDRAW_H
#define OPTIMD_SERVER_ROUNDS_WITHDRAW_H

#include <stdbool.h>

#include "common/status.h"

struct engine;
struct letter;
struct member;
struct model;
struct push;

/* Take a push away and answer it with the error. If shards of it have been applied they
 * stay, and the error is ABORTED and says how many; if all have, it is APPLIED. */
void withdraw_push(struct engine *engine, struct push *push, enum opt_status status,
                   enum opt_detail detail, const char *text);
/* The frames of an unfinished push are dropped without an answer; one that a round is
 * being made of is taken out of it. */
void withdraw_unfinished(struct engine *engine, struct member *member);
/* The round of the push, which is in no queue, has closed without it. */
void withdraw_late(struct engine *engine, struct push *push);

/* The push is to be answered by the deadline of this letter. False: no memory. */
bool withdraw_at_deadline(struct engine *engine, struct push *push,
                          const struct letter *letter);
/* The push's deadline has passed: take it away. */
void withdraw_overdue(struct engine *engine, struct push *push);

/* All who take part in an open round are answered ABORTED with the sentence, or
 * APPLIED; the round ends as an update of what has been applied. */
void withdraw_round(struct engine *engine, struct model *model, enum opt_detail detail,
                    const char *why);
/* The same where no other round follows: the model is deleted, or the daemon stops. */
void withdraw_last_round(struct engine *engine, struct model *model,
                         enum opt_detail detail, const char *why);

#endif
