/* exchange — pushes and pulls of a model of one tensor, for their goodput.
 *
 * Gradients are taken from, and weights put to, places that move through regions larger
 * than any cache. Main thread.
 */
#ifndef OPTIMD_TESTS_BENCH_EXCHANGE_H
#define OPTIMD_TESTS_BENCH_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>

#include "client/optclient.h"

enum { EXCHANGE_REGION = 200 << 20, EXCHANGE_IN_FLIGHT_MAX = 64 };

enum exchange_operation {
    EXCHANGE_PUSH,
    EXCHANGE_PULL,
    EXCHANGE_PUSH_PULL,
    EXCHANGE_OPERATIONS
};

struct exchange {
    enum exchange_operation operation;
    size_t bytes;     /* of the tensor */
    size_t messages;  /* in a run */
    size_t in_flight; /* requests at a time; 1: each is waited for by its call */
    struct optclient_model *model;
    float *gradients, *weights; /* regions of EXCHANGE_REGION bytes, borrowed */
    size_t at;                  /* byte of the next message in them */
};

/* Create a model of one tensor of that many bytes, updated by sgd. False with a
 * sentence. */
bool exchange_open(struct exchange *exchange, struct optclient *client, size_t bytes,
                   char problem[256]);
/* Delete it. */
void exchange_close(struct exchange *exchange, struct optclient *client);

/* Bytes of tensors that a run moves. */
double exchange_bytes(const struct exchange *exchange);

/* Where the next message of so many bytes is in a region, in floats. */
size_t exchange_place(size_t *at, size_t bytes);

/* A run, in GB/s. A compare_side. */
bool exchange_run(void *exchange, double *values, char problem[256]);

#endif
