/* judge — see judge.h. */
#include "tests/fates/judge.h"

#include <stdio.h>
#include <string.h>

#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/workers/membership.h"
#include "server/workers/worker.h"
#include "tests/fates/cast.h"
#include "tests/fates/sockets.h"
#include "tests/fates/world.h"

enum { NS_PER_MS = 1000000, LOOK_MS = 100, LEARN_MS = 1000 };

/* ------------------------------------------------------------------ NOT_KNOWN */

/* Whether a copy of a push of that worker stands at the daemon. */
static bool stands(const char *worker)
{
    for (size_t i = 0; i < cast.engine->model_count; i++) {
        const struct model *model = cast.engine->numbered[i];
        for (size_t k = 0; k < model->member_count; k++) {
            const struct member *member = model->members[k];
            if (strcmp(member->worker->name, worker) == 0 &&
                (member->first != NULL || member->gathering != NULL)) {
                return true;
            }
        }
    }
    return false;
}

static bool is_doubtful(int who)
{
    return cast.engine == NULL || cast.is_full || sockets_push_is_held(who) ||
           sockets_are_isolated(who) || (who != 1 && who != cast.living) ||
           stands(who == 1 ? "B" : "A");
}

void judge_look(void)
{
    bool ended[PUSHES_MOST];
    for (size_t i = 0; i < cast.push_count; i++) {
        ended[i] = cast.pushes[i].looked;
    }
    cast_hear();
    for (size_t i = 0; i < cast.push_count; i++) {
        struct pushed *push = &cast.pushes[i];
        push->looked = push->told.ended;
        uint64_t known_ms = (world_now() - cast.doubtful_ns[push->who]) / NS_PER_MS;
        if (push->looked && !ended[i] && push->told.wanted &&
            push->told.result.fate == OPTCLIENT_NOT_KNOWN && known_ms > LEARN_MS) {
            cast_fail("of push %zu was told that its fate is not known, which could "
                      "have been known for %d ms: %s",
                      i, (int)known_ms, push->told.sentence);
        }
    }
    for (int who = 0; who < PARTIES; who++) {
        if (cast.parties[who].client != NULL && is_doubtful(who)) {
            cast.doubtful_ns[who] = world_now();
        }
    }
}

void judge_pass(uint64_t ms)
{
    judge_look();
    for (uint64_t passed = 0; passed < ms; passed += LOOK_MS) {
        world_pass(ms - passed < LOOK_MS ? ms - passed : LOOK_MS);
        judge_look();
    }
}

/* ----------------------------------------------------------------- the weights */

static bool is_in_part(const struct optclient_result *result, int applied)
{
    return result->shards == 0 ? result->shards_applied <= SHARDS
                               : result->shards == SHARDS &&
                                     result->shards_applied == (uint64_t)applied;
}

/* Whether what was told of a push is true of the shards in which it counts. */
static bool is_true(const struct told *told, const int counts[SHARDS])
{
    int least = counts[0], most = counts[0], applied = 0;
    for (size_t i = 0; i < SHARDS; i++) {
        least = counts[i] < least ? counts[i] : least;
        most = counts[i] > most ? counts[i] : most;
        applied += counts[i];
    }
    bool whole = least == most || cast.order->policy == SHARD;
    if (least < 0 || most > 1 || !whole) {
        return false;
    }
    if (!told->wanted) {
        return true;
    }
    switch (told->result.fate) {
    case OPTCLIENT_APPLIED:
    case OPTCLIENT_DUPLICATE:
        return least == 1;
    case OPTCLIENT_DROPPED:
    case OPTCLIENT_SKIPPED:
        return told->status == OPTCLIENT_OK && most == 0;
    case OPTCLIENT_NOT_APPLIED:
        return told->status != OPTCLIENT_OK && most == 0;
    case OPTCLIENT_APPLIED_IN_PART:
        return told->status != OPTCLIENT_OK && least == 0 && most == 1 &&
               is_in_part(&told->result, applied);
    case OPTCLIENT_NOT_KNOWN:
        return told->status != OPTCLIENT_OK;
    default:
        return false; /* whoever waits for a push is told something */
    }
}

/* What may not happen to a pull unless something of this did. */
static bool may_fail(void)
{
    const struct order *order = cast.order;
    for (size_t i = 0; i < order->count; i++) {
        enum event event = order->events[i];
        if (event == CANCELLED || event == TAKEN_OVER || event == DEADLINE ||
            event == STOPPED) {
            return true;
        }
    }
    return false;
}

/* All of the weights have come to somebody, whose own push is one of them or
 * push_count. */
static void judge_weights(const float *weights, size_t own)
{
    for (size_t i = 0; i < cast.push_count; i++) {
        int seen[SHARDS];
        cast_count_in(weights, i, seen);
        const int *counts = cast.counts[i];
        bool whole = seen[0] == seen[1] && seen[1] == seen[2];
        bool later = false, missing = false;
        for (size_t k = 0; k < SHARDS; k++) {
            later = later || seen[k] < 0 || seen[k] > counts[k];
            missing = missing || seen[k] < counts[k];
        }
        if ((!whole && cast.order->policy != SHARD) || later || (i == own && missing)) {
            cast_fail("weights were pulled in which push %zu counts %d, %d, %d times, "
                      "while it counts %d, %d, %d times",
                      i, seen[0], seen[1], seen[2], counts[0], counts[1], counts[2]);
        }
    }
}

static void judge_pulls(void)
{
    const struct pulled *pull = &cast.pull;
    const struct pushed *both = &cast.pushes[0];
    if (pull->told.ended && pull->told.status == OPTCLIENT_OK) {
        judge_weights(pull->weights, cast.push_count);
    } else if (pull->told.wanted && !may_fail()) {
        cast_fail("a pull was told: %s: %s", optclient_status_name(pull->told.status),
                  pull->told.sentence);
    }
    if (both->weights != NULL && both->told.ended &&
        both->told.status == OPTCLIENT_OK) {
        judge_weights(both->weights, 0);
    }
}

void judge_pushes(char *trace, size_t size)
{
    if (!cast_count()) {
        return;
    }
    size_t used = 0;
    judge_pulls();
    for (size_t i = 0; i < cast.push_count; i++) {
        const struct told *told = &cast.pushes[i].told;
        const int *counts = cast.counts[i];
        const char *name =
            !told->wanted ? "nothing" : optclient_status_name(told->status);
        if (used < size) {
            used += (size_t)snprintf(trace + used, size - used, "%zu %s %d %d%d%d; ", i,
                                     name, (int)told->result.fate, counts[0], counts[1],
                                     counts[2]);
        }
        if (!is_true(told, counts)) {
            cast_fail("of push %zu was told: %s, fate %d, %d of %d shards: %s. It "
                      "counts %d, %d, %d times in the three shards",
                      i, name, (int)told->result.fate, (int)told->result.shards_applied,
                      (int)told->result.shards, told->sentence, counts[0], counts[1],
                      counts[2]);
        }
    }
}
