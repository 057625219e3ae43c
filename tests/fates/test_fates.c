/* Every order of what can happen to a push on its way, and whether all that is told of
 * it is true (play.h).
 *
 *   FATE=sync/tcp/cut,whole,...   plays that order alone, and tells what happened
 *   FATES=4                       orders of up to so many events; 2 without it
 *   BARRIER=tcp/A-comes,...       the same of orders around a barrier
 *   FATES_SEED=7 FATES_COUNT=1000 others at random, and more of them
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/fates/barriers.h"
#include "tests/fates/play.h"

enum { USUAL = 3, PIECED = 60, TOLD_MOST = 5 };

static const char *const words[EVENTS] = {
    "whole",    "half",      "damaged",    "refused",    "no-room",    "cut",
    "deadline", "cancelled", "taken-over", "restarted",  "lease-lost", "full",
    "round",    "half-of-b", "stopped",    "answer-cut", "pull-cut"
};

static void write_order(const struct order *order, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "%s/%s/%s", policy_names[order->policy],
                                   transport_names[order->transport],
                                   order->pulls ? "pull," : "");
    if (order->blocks && used < size) {
        used += (size_t)snprintf(out + used, size - used, "block,");
    }
    if (order->in_place && used < size) {
        used += (size_t)snprintf(out + used, size - used, "place,");
    }
    for (size_t i = 0; i < order->count && used < size; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? "," : "",
                                 words[order->events[i]]);
    }
}

static size_t find(const char *const names[], size_t count, const char *name)
{
    size_t i = 0;
    while (i < count && strcmp(names[i], name) != 0) {
        i++;
    }
    cr_assert(i < count, "\"%s\" is not known", name);
    return i;
}

static struct order read_order(const char *text)
{
    char copy[400];
    snprintf(copy, sizeof(copy), "%s", text);
    struct order order = { 0 };
    order.policy = (enum policy)find(policy_names, POLICIES, strtok(copy, "/"));
    order.transport =
        (enum transport)find(transport_names, TRANSPORTS, strtok(NULL, "/"));
    for (char *word; (word = strtok(NULL, ",")) != NULL && order.count < EVENTS_MOST;) {
        if (strcmp(word, "pull") == 0) {
            order.pulls = true;
        } else if (strcmp(word, "block") == 0) {
            order.blocks = true;
        } else if (strcmp(word, "place") == 0) {
            order.in_place = true;
        } else {
            order.events[order.count++] = (enum event)find(words, EVENTS, word);
        }
    }
    return order;
}

/* Play one order; false after it was told what is wrong. */
static bool hold(const struct order *order, bool tell)
{
    char why[1000] = "", trace[2000] = "", sentence[1000], name[300];
    if (order_play(order, why, sizeof(why), trace, sizeof(trace))) {
        return true;
    }
    if (tell) {
        order_sentence(order, sentence, sizeof(sentence));
        write_order(order, name, sizeof(name));
        fprintf(stderr, "%s: %s\n    (FATE=%s)\n", sentence, why, name);
    }
    return false;
}

static uint64_t number_from(const char *variable, uint64_t usual)
{
    const char *text = getenv(variable);
    return text != NULL ? strtoull(text, NULL, 10) : usual;
}

struct tally {
    size_t played, wrong;
};

/* Events that are much like others; orders with one of them are one event shorter, or
 * the usual run would take twice as long. */
static bool has_rare(const struct order *order)
{
    for (size_t i = 0; i < order->count; i++) {
        if (order->events[i] == NO_ROOM || order->events[i] == FULL ||
            order->events[i] >= STOPPED) {
            return true;
        }
    }
    return false;
}

/* All orders of up to so many more events, every other one with gradients in place. */
static void play_all(struct order *order, size_t more, struct tally *tally)
{
    order->in_place = tally->played++ % 2 == 1;
    if (!hold(order, tally->wrong < TOLD_MOST)) {
        tally->wrong++;
    }
    if (more == 0) {
        return;
    }
    order->count++;
    for (int event = 0; event < EVENTS; event++) {
        order->events[order->count - 1] = (enum event)event;
        if (order_is_possible(order) && (more > 1 || !has_rare(order))) {
            play_all(order, more - 1, tally);
        }
    }
    order->count--;
}

/* Nothing is logged, and memory is not given back between two orders: that would take
 * longer than the orders. */
static void begin(void)
{
    opt_log_set_level(OPT_LOG_ERROR);
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

static void play_policy(enum policy policy, enum transport transport)
{
    begin();
    struct order order = { .policy = policy, .transport = transport };
    struct tally tally = { 0 };
    play_all(&order, (size_t)number_from("FATES", USUAL), &tally);
    cr_assert(tally.wrong == 0, "%zu of %zu orders are not as they should be",
              tally.wrong, tally.played);
}

#define POLICY(name, policy)                                                           \
    Test(fates, name##_over_tcp)                                                       \
    {                                                                                  \
        play_policy(policy, TCP);                                                      \
    }                                                                                  \
    Test(fates, name##_in_shared_memory)                                               \
    {                                                                                  \
        play_policy(policy, SHARED);                                                   \
    }
POLICY(sync, SYNC)
POLICY(async, ASYNC)
POLICY(bounded, BOUNDED)
POLICY(backup, BACKUP)
POLICY(samples, SAMPLES)
POLICY(shard_by_shard, SHARD)

/* ------------------------------------------------------------------- barriers */

static bool hold_barrier(const struct barrier_order *order, bool tell)
{
    char why[1000] = "";
    bool right = barrier_order_play(order, why, sizeof(why));
    if (!right && tell) {
        fprintf(stderr, "%s\n    (BARRIER=%s/", why, transport_names[order->transport]);
        for (size_t i = 0; i < order->count; i++) {
            fprintf(stderr, "%s%s", i > 0 ? "," : "", barrier_words[order->events[i]]);
        }
        fprintf(stderr, ")\n");
    }
    return right;
}

static void play_barriers(struct barrier_order *order, size_t more, struct tally *tally)
{
    tally->played++;
    if (!hold_barrier(order, tally->wrong < TOLD_MOST)) {
        tally->wrong++;
    }
    if (more == 0) {
        return;
    }
    order->count++;
    for (int event = 0; event < BARRIER_EVENTS; event++) {
        order->events[order->count - 1] = (enum barrier_event)event;
        if (barrier_order_is_possible(order)) {
            play_barriers(order, more - 1, tally);
        }
    }
    order->count--;
}

static void play_barriers_over(enum transport transport)
{
    begin();
    struct barrier_order order = { .transport = transport };
    struct tally tally = { 0 };
    play_barriers(&order, (size_t)number_from("FATES", USUAL) + 1, &tally);
    cr_assert(tally.wrong == 0, "%zu of %zu orders are not as they should be",
              tally.wrong, tally.played);
}

Test(fates, nobody_passes_a_barrier_alone_over_tcp)
{
    play_barriers_over(TCP);
}

Test(fates, nobody_passes_a_barrier_alone_with_shared_memory)
{
    play_barriers_over(SHARED);
}

/* -------------------------------------------------------------- longer orders */

static uint64_t random_below(uint64_t *state, uint64_t below)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*state >> 33) % below;
}

static struct order random_order(uint64_t *state, size_t least, size_t most)
{
    struct order order = {
        .policy = (enum policy)random_below(state, POLICIES),
        .transport = (enum transport)random_below(state, TRANSPORTS),
        .pulls = random_below(state, 2) == 1,
        .blocks = random_below(state, 2) == 1,
        .in_place = random_below(state, 2) == 1,
    };
    size_t count = least + (size_t)random_below(state, most - least + 1);
    for (int tries = 0; order.count < count && tries < 64; tries++) {
        order.events[order.count++] = (enum event)random_below(state, EVENTS);
        if (!order_is_possible(&order)) {
            order.count--;
        }
    }
    return order;
}

Test(fates, longer_orders_at_random)
{
    begin();
    uint64_t state = number_from("FATES_SEED", 1);
    uint64_t count = number_from("FATES_COUNT", 400);
    struct tally tally = { 0 };
    for (; tally.played < count; tally.played++) {
        struct order order = random_order(&state, 3, 8);
        tally.wrong += !hold(&order, tally.wrong < TOLD_MOST);
    }
    cr_assert(tally.wrong == 0, "%zu of %zu orders are not as they should be",
              tally.wrong, tally.played);
}

/* How the bytes of a connection are cut into reads is nobody's business. */
Test(fates, pieces_of_any_size_change_nothing)
{
    begin();
    uint64_t state = number_from("FATES_SEED", 1);
    for (int i = 0; i < PIECED; i++) {
        struct order order = random_order(&state, 0, 5);
        char why[1000] = "", whole[2000] = "", pieces[2000] = "", sentence[1000];
        order_sentence(&order, sentence, sizeof(sentence));
        order_play(&order, why, sizeof(why), whole, sizeof(whole));
        order.chunks = 1 + random_below(&state, 1000000);
        order_play(&order, why, sizeof(why), pieces, sizeof(pieces));
        cr_assert(strcmp(whole, pieces) == 0, "%s: %s; in pieces: %s", sentence, whole,
                  pieces);
    }
}

Test(fates, a_barrier_that_is_asked_for)
{
    const char *name = getenv("BARRIER");
    if (name == NULL) {
        return;
    }
    begin();
    char copy[400];
    snprintf(copy, sizeof(copy), "%s", name);
    struct barrier_order order = { .transport =
                                       (enum transport)find(transport_names, TRANSPORTS,
                                                            strtok(copy, "/")) };
    for (char *word;
         order.count < BARRIER_EVENTS_MOST && (word = strtok(NULL, ",")) != NULL;) {
        order.events[order.count++] =
            (enum barrier_event)find(barrier_words, BARRIER_EVENTS, word);
    }
    cr_assert(hold_barrier(&order, true));
}

Test(fates, one_that_is_asked_for)
{
    const char *name = getenv("FATE");
    if (name == NULL) {
        return;
    }
    begin();
    struct order order = read_order(name);
    char why[1000] = "", trace[2000] = "", sentence[1000];
    order_sentence(&order, sentence, sizeof(sentence));
    bool right = order_play(&order, why, sizeof(why), trace, sizeof(trace));
    fprintf(stderr, "%s\n  %s\n  %s\n", sentence, trace, right ? "right" : why);
    cr_assert(right);
}
