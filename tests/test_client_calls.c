/* What a client does when all goes well, against a server of the test's own. */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/fake_server.h"

static struct optclient *connect_to(const struct fake_server *server,
                                    const struct optclient_options *options)
{
    struct optclient *client = NULL;
    enum optclient_status status =
        optclient_connect(fake_server_address(server), options, &client);
    cr_assert_eq(status, OPTCLIENT_OK, "%s", optclient_error());
    return client;
}

/* count tensors, of 1, 2, 3, ... elements but for the last, which has large. */
struct shapes {
    struct optclient_tensor tensors[100];
    uint64_t sizes[100];
    char names[100][16];
    size_t count;
};

static void shapes_init(struct shapes *shapes, size_t count, uint64_t large)
{
    shapes->count = count;
    for (size_t i = 0; i < count; i++) {
        shapes->sizes[i] = i + 1 == count ? large : i + 1;
        snprintf(shapes->names[i], sizeof(shapes->names[i]), "tensor.%zu", i);
        shapes->tensors[i] =
            (struct optclient_tensor){ shapes->names[i], &shapes->sizes[i], 1 };
    }
}

static struct optclient_values *values_new(const struct shapes *shapes)
{
    struct optclient_values *values = calloc(shapes->count, sizeof(*values));
    for (size_t i = 0; i < shapes->count; i++) {
        values[i].tensor = i;
        values[i].values = calloc((size_t)shapes->sizes[i], sizeof(float));
    }
    return values;
}

static void values_free(struct optclient_values *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(values[i].values);
    }
    free(values);
}

/* A value that tells where it belongs and is exact in every dtype. */
static float pattern(size_t tensor, size_t element)
{
    return (float)((tensor * 7 + element) % 127) - 63.0f;
}

static struct optclient_model *create(struct optclient *client,
                                      const struct shapes *shapes)
{
    struct optclient_model *model = NULL;
    enum optclient_status status =
        optclient_create(client, "m", "sgd(lr=1)", NULL, shapes->tensors, shapes->count,
                         NULL, &model);
    cr_assert_eq(status, OPTCLIENT_OK, "%s", optclient_error());
    return model;
}

static void push_and_pull(const struct optclient_options *options,
                          const struct fake_options *server_options, size_t count,
                          uint64_t large)
{
    struct fake_server *server = fake_server_start(server_options);
    struct optclient *client = connect_to(server, options);
    struct shapes *shapes = malloc(sizeof(*shapes));
    shapes_init(shapes, count, large);
    struct optclient_model *model = create(client, shapes);
    struct optclient_values *gradients = values_new(shapes);
    struct optclient_values *weights = values_new(shapes);
    for (size_t i = 0; i < count; i++) {
        for (size_t e = 0; e < shapes->sizes[i]; e++) {
            gradients[i].values[e] = pattern(i, e);
        }
    }
    struct optclient_result result;
    cr_assert_eq(optclient_push(model, gradients, count, NULL, &result), OPTCLIENT_OK,
                 "%s", optclient_error());
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(result.step, 1);
    cr_assert_eq(optclient_pull(model, weights, count, NULL, &result), OPTCLIENT_OK,
                 "%s", optclient_error());
    cr_assert_eq(result.step, 1);
    for (size_t i = 0; i < count; i++) {
        for (size_t e = 0; e < shapes->sizes[i]; e++) {
            cr_assert_eq(weights[i].values[e], -pattern(i, e), "tensor %zu, %zu", i, e);
        }
    }
    cr_assert_eq(optclient_push_pull(model, gradients, count, NULL, weights, count,
                                     NULL, &result),
                 OPTCLIENT_OK, "%s", optclient_error());
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(result.step, 2);
    cr_assert_eq(result.staleness, 0);
    for (size_t i = 0; i < count; i++) {
        for (size_t e = 0; e < shapes->sizes[i]; e++) {
            cr_assert_eq(weights[i].values[e], -2 * pattern(i, e));
        }
    }
    optclient_model_close(model);
    optclient_close(client);
    values_free(gradients, count);
    values_free(weights, count);
    free(shapes);
    fake_server_stop(server);
}

Test(client, pushes_and_pulls_many_small_tensors_and_a_large_one, .timeout = 30)
{
    push_and_pull(NULL, &(struct fake_options){ 0 }, 100, 3000001);
}

Test(client, carries_bf16_both_ways, .timeout = 30)
{
    struct optclient_options options = optclient_options_default();
    options.push_dtype = OPTCLIENT_BF16;
    options.pull_dtype = OPTCLIENT_BF16;
    push_and_pull(&options, &(struct fake_options){ 0 }, 20, 3000001);
}

Test(client, carries_fp16_both_ways, .timeout = 30)
{
    struct optclient_options options = optclient_options_default();
    options.push_dtype = OPTCLIENT_FP16;
    options.pull_dtype = OPTCLIENT_FP16;
    push_and_pull(&options, &(struct fake_options){ 0 }, 20, 3000001);
}

Test(client, checks_sums_both_ways, .timeout = 30)
{
    struct optclient_options options = optclient_options_default();
    options.checksum = 1;
    push_and_pull(&options, &(struct fake_options){ 0 }, 20, 200001);
}

Test(client, obeys_the_daemons_chunk, .timeout = 30)
{
    push_and_pull(NULL, &(struct fake_options){ .chunk_bytes = 64 << 10 }, 5, 300001);
}
