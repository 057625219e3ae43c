/* judge — whether what is told in a play is true.
 *
 * A push counts once at most, in every shard or in none (but with atomic=shard, where a
 * push may count in part), and its fate says which. IN_PART says in how many of how
 * many shards, if it says it at all. Weights that were pulled are of one step: they
 * have a push in all shards or in none (the same exception), only pushes that count,
 * and the push that pulled them if that was applied.
 *
 * NOT_KNOWN is true of anything, so it is judged by whether it could have been known: a
 * push is in doubt as long as a copy of it is on its way or stands unsettled at the
 * daemon, or the worker and the daemon cannot talk, for the way or the daemon is not
 * there or another process has the worker's name. NOT_KNOWN may be told within a second
 * (LEARN_MS) of that; later the library had the time to ask, and must have learnt.
 */
#ifndef OPTIMD_TESTS_FATES_JUDGE_H
#define OPTIMD_TESTS_FATES_JUDGE_H

#include <stddef.h>
#include <stdint.h>

/* Let time pass under the judge's eyes. */
void judge_pass(uint64_t ms);
/* Look at what has been told since it was last looked at. */
void judge_look(void);
/* All is over: judge what was told of every push by the weights. trace gets it all. */
void judge_pushes(char *trace, size_t size);

#endif
