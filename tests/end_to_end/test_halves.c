/* Values that 16 bits do not reach, through the client library and a real daemon: a
 * gradient beyond them is refused where it is, and weights beyond them come as the
 * largest there is, counted. What is not finite stays so.
 */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"

enum { SIZE = 300000, WIDTH = 4, ROWS = 50 };
#define FP16_LARGEST 65504.0f
#define BF16_LARGEST 0x1.fep127f

static struct daemon_process server;
static float gradient[SIZE], weights[SIZE];
static const struct optclient_values push = { .values = gradient };
static const struct optclient_values pull = { .values = weights };

static void start(void)
{
    daemon_start(&server, NULL);
}

static void stop(void)
{
    daemon_stop(&server);
}

TestSuite(halves, .init = start, .fini = stop);

static struct optclient *connect_with(enum optclient_dtype dtype, int checksum)
{
    struct optclient_options options = test_options();
    options.push_dtype = dtype;
    options.pull_dtype = dtype;
    options.checksum = checksum;
    return test_connect(server.address, &options);
}

/* A dense tensor "w" of SIZE elements, and a table "rows". */
static struct optclient_model *create(struct optclient *client, const char *spec,
                                      const float *initial)
{
    static const uint64_t size = SIZE, table[] = { ROWS, WIDTH };
    static const struct optclient_tensor tensors[] = {
        { .name = "w", .shape = &size, .rank = 1 },
        { .name = "rows", .shape = table, .rank = 2, .sparse = 1 },
    };
    static const float zeros[ROWS * WIDTH];
    const float *const values[] = { initial, zeros };
    struct optclient_model *model;
    expect_ok(optclient_create(client, "m", spec, NULL, tensors, 2,
                               initial == NULL ? NULL : values, &model));
    return model;
}

static void expect_words(const char *words)
{
    cr_assert_not_null(strstr(optclient_error(), words), "no \"%s\" in: %s", words,
                       optclient_error());
}

/* Whichever way it is pushed, and nothing of it is sent. */
static void refuse(struct optclient_model *model, float value, const char *words)
{
    struct optclient_result result = { 0 };
    struct optclient_call *call = NULL;
    gradient[SIZE - 17] = value;
    expect_status(optclient_push(model, &push, 1, NULL, &result),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words(words);
    cr_assert_eq(result.fate, OPTCLIENT_NOT_APPLIED);
    expect_status(optclient_push_pull(model, &push, 1, NULL, &pull, 1, NULL, &result),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words(words);
    expect_status(optclient_push_start(model, &push, 1, NULL, NULL, NULL, &call),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words(words);
    cr_assert_null(call);
}

Test(halves, refuse_a_gradient_beyond_them_before_it_is_sent)
{
    struct optclient *client = connect_with(OPTCLIENT_FP16, 0);
    struct optclient_model *model = create(client, "sgd(lr=1)", NULL);
    refuse(model, 70000,
           "element 299983 of the gradient of tensor \"w\" is 70000, and "
           "fp16 ends at 65504: push bf16 or fp32");
    refuse(model, -65520, "is -65520");
    float values[2 * WIDTH] = { [6] = FLT_MAX };
    const struct optclient_values rows = {
        .tensor = 1, .values = values, .rows = (uint32_t[]){ 3, 41 }, .row_count = 2
    };
    expect_status(optclient_push(model, &rows, 1, NULL, NULL),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words(
        "element 2 of row 41 of the gradient of tensor \"rows\" is 3.40282e+38");
    cr_assert_eq(test_counter(client, "pushes_refused"), 0);
    gradient[SIZE - 17] =
        65519; /* is nearer to the largest than to what would follow */
    expect_ok(optclient_push_pull(model, &push, 1, NULL, &pull, 1, NULL, NULL));
    cr_assert_eq(weights[SIZE - 17], -FP16_LARGEST);
    optclient_close(client);

    client = connect_with(OPTCLIENT_BF16, 0);
    expect_ok(optclient_open(client, "m", 1, &model));
    refuse(model, FLT_MAX, "is 3.40282e+38, and bf16 ends at 3.38953e+38: push fp32");
    optclient_close(client);
}

Test(halves, say_how_they_came_where_a_gradient_is_not_finite)
{
    struct optclient *client = connect_with(OPTCLIENT_FP16, 0);
    struct optclient_model *model = create(client, "sgd(lr=1)", NULL);
    gradient[3] = INFINITY;
    expect_status(optclient_push(model, &push, 1, NULL, NULL),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("not finite at element 3 as fp16, which ends at 65504");
    cr_assert_eq(optclient_detail(), OPTCLIENT_NOT_FINITE);
    optclient_close(client);
}

static void hold(enum optclient_dtype dtype, int checksum, float largest)
{
    static float initial[SIZE];
    initial[0] = FLT_MAX;
    initial[SIZE / 2] = -FLT_MAX;
    initial[SIZE - 1] = largest;
    struct optclient *client = connect_with(dtype, checksum);
    struct optclient_model *model = create(client, "sgd(lr=1)", initial);
    struct optclient_result result;
    uint64_t before = test_counter(client, "values_held");
    expect_ok(optclient_pull(model, &pull, 1, NULL, &result));
    cr_assert_eq(result.held, 2);
    cr_assert_eq(weights[0], largest);
    cr_assert_eq(weights[SIZE / 2], -largest);
    cr_assert_eq(weights[SIZE - 1], largest);
    expect_ok(optclient_push_pull(model, &push, 1, NULL, &pull, 1, NULL, &result));
    cr_assert_eq(result.held, 2);
    cr_assert_eq(weights[SIZE / 2], -largest);
    cr_assert_eq(test_counter(client, "values_held") - before, 4);
    optclient_model_close(model);
    expect_ok(optclient_delete(client, "m"));
    optclient_close(client);
}

Test(halves, bring_weights_beyond_them_as_the_largest_and_count_them)
{
    for (int checksum = 0; checksum < 2; checksum++) {
        hold(OPTCLIENT_FP16, checksum, FP16_LARGEST);
        hold(OPTCLIENT_BF16, checksum, BF16_LARGEST);
    }
}

Test(halves, leave_infinity_as_it_is)
{
    struct optclient *client = connect_with(OPTCLIENT_FP16, 0);
    struct optclient_model *model =
        create(client, "sgd(lr=1) + nonfinite(propagate)", NULL);
    struct optclient_result result;
    gradient[3] = INFINITY;
    gradient[4] = NAN;
    expect_ok(optclient_push_pull(model, &push, 1, NULL, &pull, 1, NULL, &result));
    cr_assert_eq(weights[3], -INFINITY);
    cr_assert(isnan(weights[4]));
    cr_assert_eq(result.held, 0);
    optclient_close(client);
}

/* How far local steps have gone is pushed as a gradient is. */
Test(halves, do_not_carry_local_steps_that_went_beyond_them)
{
    static const uint64_t size = SIZE;
    const struct optclient_tensor tensor = { .name = "w", .shape = &size, .rank = 1 };
    static float initial[SIZE];
    const float *const values[] = { initial };
    struct optclient *client = connect_with(OPTCLIENT_FP16, 0);
    struct optclient_model *model;
    struct optclient_local *local;
    struct optclient_local_result at;
    initial[7] = 1e6f;
    expect_ok(
        optclient_create(client, "m", "sgd(lr=1)", NULL, &tensor, 1, values, &model));
    expect_ok(optclient_local_open(model, "sgd(lr=1)", 1, NULL, &local));
    cr_assert_eq(optclient_local_view(local, 0)[7], FP16_LARGEST);
    gradient[5] = 70000;
    expect_status(optclient_local_step(local, &push, 1, 1, &at),
                  OPTCLIENT_INVALID_ARGUMENT);
    expect_words("element 5 of the gradient of tensor \"w\" is 70000");
    cr_assert(optclient_local_owes(local));
    expect_ok(optclient_local_restart(local, &at));
    gradient[5] = 60000;
    expect_ok(optclient_local_step(local, &push, 1, 1, &at));
    cr_assert(at.synced);
    cr_assert_eq(at.sync.held, 1);
    cr_assert_eq(optclient_local_view(local, 0)[5], -60000);
    optclient_local_close(local);
    optclient_close(client);
}
