/* redis — a Redis server of our own, its SET and GET.
 *
 * Debian's redis-server on a free loopback port, with nothing written to disk and all
 * else as it comes. Values are sent from, and received into, places that move through
 * the regions of an exchange, without a copy in between. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_REDIS_H
#define OPTIMD_TESTS_BENCH_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "tests/bench/exchange.h"

enum { REDIS_CONNECTIONS = 4, REDIS_FORMS = 2 };

struct redis {
    pid_t pid;
    int sockets[REDIS_CONNECTIONS];
    char version[32];
    const struct exchange *exchange; /* what is moved; push: SET, pull: GET */
    unsigned form;                   /* 0: over one connection; 1: over all of them */
    size_t at;                       /* as the exchange's */
};

/* False with a sentence, or without one if it is not installed. */
bool redis_start(struct redis *redis, const char *congestion, char problem[256]);
/* Takes one that did not start. */
void redis_stop(struct redis *redis);

/* What the form is: "SET, 8 in flight over 4 connections". */
void redis_describe(const struct redis *redis, char text[64]);

/* As exchange_run. A compare_side. */
bool redis_exchange(void *redis, double *values, char problem[256]);

/* One SET of so many bytes, waited for. */
bool redis_set(struct redis *redis, const void *value, size_t bytes);
/* SETs a second of so many bytes, in_flight at a time over one connection, and as many
 * in one write as there are places for. 0 if the connection is lost. */
double redis_sets(struct redis *redis, size_t bytes, size_t count, size_t in_flight);

#endif
