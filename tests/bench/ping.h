/* ping — small pushes to a daemon, one at a time and many.
 *
 * What the groups that time small messages have in common. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_PING_H
#define OPTIMD_TESTS_BENCH_PING_H

#include <stdbool.h>
#include <stddef.h>

#include "client/optclient.h"

enum {
    PING_ELEMENTS_MAX = 16385, /* floats in a push */
    PING_MAX = 4000,           /* round trips in a run */
    PING_IN_FLIGHT = 64
};

struct ping {
    size_t elements;        /* floats in a push */
    size_t pings, messages; /* of a run, one at a time and many */
    struct optclient_model *model;
    float gradient[PING_ELEMENTS_MAX];
    double seconds[PING_MAX]; /* of the round trips of the last run */
};

/* Create a model of one tensor of that many elements, updated by sgd. False with a
 * sentence. */
bool ping_open(struct ping *ping, struct optclient *client, const char *name,
               size_t elements, char problem[256]);
void ping_close(struct ping *ping);

/* p50 and p99 of round trips, in us. Sorts them. */
void ping_percentiles(double *seconds, size_t count, double *values);

/* A compare_side each: p50 and p99 in us of pushes that are waited for; pushes a second
 * with PING_IN_FLIGHT of them in flight. */
bool ping_pushes(void *ping, double *values, char problem[256]);
bool ping_pushes_many(void *ping, double *values, char problem[256]);

#endif
