/* client_models — models, values and clients for the client's tests. A failure here
 * fails the test with the client's own sentence.
 */
#ifndef OPTIMD_TESTS_SUPPORT_CLIENT_MODELS_H
#define OPTIMD_TESTS_SUPPORT_CLIENT_MODELS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/optclient.h"

/* count vectors of 1, 2, 3, ... elements, but for the last, which has `large`. */
struct shapes {
    struct optclient_tensor *tensors;
    uint64_t *sizes;
    size_t count;
};
struct shapes shapes_new(size_t count, uint64_t large);
void shapes_free(struct shapes *shapes);

/* Values of all tensors, zero. */
struct optclient_values *values_new(const struct shapes *shapes);
void values_free(struct optclient_values *values, const struct shapes *shapes);

/* An integer that tells where it belongs and is exact in every dtype, also doubled. */
float pattern(size_t tensor, size_t element);
void fill_pattern(struct optclient_values *values, const struct shapes *shapes);
/* Assert that all values are factor times the pattern. */
void expect_pattern(const struct optclient_values *values, const struct shapes *shapes,
                    float factor);

/* Status as expected, else fail with the sentence. */
#define expect_status(call, expected)                                                  \
    do {                                                                               \
        enum optclient_status status_ = (call);                                        \
        cr_assert_eq(status_, (expected), "%s is %s: %s", #call,                       \
                     optclient_status_name(status_), optclient_error());               \
    } while (0)
#define expect_ok(call) expect_status(call, OPTCLIENT_OK)

/* The same for threads other than the test's own, where Criterion's assertions do not
 * belong: a failure crashes the test. */
#define require(condition)                                                             \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition,         \
                    optclient_error());                                                \
            abort();                                                                   \
        }                                                                              \
    } while (0)

/* options NULL: short back-off, time limits of 10 s. */
struct optclient_options test_options(void);
struct optclient *test_connect(const char *address,
                               const struct optclient_options *options);
/* Create (or join) a model of these tensors, zeros. */
struct optclient_model *test_create(struct optclient *client, const char *name,
                                    const struct shapes *shapes);

/* A counter of the daemon, by name. */
uint64_t test_counter(struct optclient *client, const char *name);

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t test_now_ms(void);

#endif
