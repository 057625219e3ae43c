/* queue — complete pushes of a member that wait for a round, in ascending order of
 * their sequences, and a model's counts of who has some. In the engine's turn.
 */
#ifndef OPTIMD_SERVER_ROUNDS_QUEUE_H
#define OPTIMD_SERVER_ROUNDS_QUEUE_H

#include <stdint.h>

struct member;
struct model;
struct push;

/* Put a push that is complete now at the end of its member's queue. */
void queue_add(struct member *member, struct push *push, uint64_t now_ns);
/* Take it out, wherever it is. */
void queue_remove(struct push *push);
/* Bring the model's counts up to date after somebody has joined, left, or begun or
 * ended a rest. */
void queue_recount(struct model *model);

#endif
