/* Sparse tensors through the client library and a real daemon: rows that are pushed and
 * pulled, alone and beside dense tensors, in every dtype, over connections that break.
 *
 * Gradients are small whole numbers, so that sums are exact and the weights tell what
 * took effect.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/proxy.h"

enum { USERS = 20000, USER_WIDTH = 8, WORDS = 500, WORD_WIDTH = 3, BIAS = 10 };
enum { USER, BIASES, WORD, TENSORS };

static const uint64_t user_shape[] = { USERS, 2, 4 };
static const uint64_t bias_shape[] = { BIAS };
static const uint64_t word_shape[] = { WORDS, WORD_WIDTH };
static const struct optclient_tensor tensors[TENSORS] = {
    { .name = "user", .shape = user_shape, .rank = 3, .sparse = 1 },
    { .name = "bias", .shape = bias_shape, .rank = 1 },
    { .name = "word", .shape = word_shape, .rank = 2, .sparse = 1 },
};

static struct daemon_process server;

static void expect_refused(enum optclient_status status, const char *words)
{
    expect_status(status, OPTCLIENT_INVALID_ARGUMENT);
    cr_assert(strstr(optclient_error(), words) != NULL, "\"%s\" is not in: %s", words,
              optclient_error());
}

static struct optclient *connect_to(uint16_t port, struct optclient_options options)
{
    char address[32];
    snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)port);
    return test_connect(address, &options);
}

static struct optclient_model *create(struct optclient *client,
                                      const char *specification)
{
    struct optclient_model *model;
    expect_ok(optclient_create(client, "m", specification, NULL, tensors, TENSORS, NULL,
                               &model));
    return model;
}

/* ------------------------------------------------------- what the weights should be */

/* A copy of the model of sgd(lr=1), kept by the test. */
struct copy {
    float user[USERS * USER_WIDTH];
    float bias[BIAS];
    float word[WORDS * WORD_WIDTH];
};

static void subtract_rows(float *table, size_t width,
                          const struct optclient_values *rows)
{
    for (size_t i = 0; i < rows->row_count; i++) {
        for (size_t k = 0; k < width; k++) {
            table[rows->rows[i] * width + k] -= rows->values[i * width + k];
        }
    }
}

static void expect_copy(struct optclient_model *model, const struct copy *copy)
{
    static struct copy got;
    const struct optclient_values all[] = { { .tensor = USER, .values = got.user },
                                            { .tensor = BIASES, .values = got.bias },
                                            { .tensor = WORD, .values = got.word } };
    expect_ok(optclient_pull(model, all, TENSORS, NULL, NULL));
    cr_assert_arr_eq(got.user, copy->user, sizeof(copy->user));
    cr_assert_arr_eq(got.bias, copy->bias, sizeof(copy->bias));
    cr_assert_arr_eq(got.word, copy->word, sizeof(copy->word));
}

/* Rows and values that depend on the seed; some rows come often. */
static void fill_rows(uint32_t seed, size_t rows, struct optclient_values *values,
                      uint32_t *numbers, size_t width)
{
    uint32_t state = seed * 2654435761u + 1;
    values->rows = numbers;
    for (size_t i = 0; i < values->row_count; i++) {
        state = state * 1664525u + 1013904223u;
        numbers[i] = i % 5 == 4 ? numbers[i / 2] : (state >> 8) % (uint32_t)rows;
        for (size_t k = 0; k < width; k++) {
            values->values[i * width + k] = (float)((seed + i + k) % 15) - 7.0f;
        }
    }
}

/* ------------------------------------------------------------------------- one push */

Test(tables, are_pushed_and_pulled_by_row_beside_dense_tensors)
{
    static struct copy copy;
    enum { NAMED = 700, FEW = 4 };
    static uint32_t users[NAMED], words[FEW];
    static float user_values[NAMED * USER_WIDTH], word_values[FEW * WORD_WIDTH];
    float bias[BIAS];
    struct optclient_result result;
    daemon_start(&server, NULL);
    struct optclient *client = connect_to(server.port, test_options());
    struct optclient_model *model = create(client, "sgd(lr=1)");
    struct optclient_values gradients[] = {
        { .tensor = WORD, .values = word_values, .row_count = FEW },
        { .tensor = BIASES, .values = bias },
        { .tensor = USER, .values = user_values, .row_count = NAMED },
    };
    for (uint32_t step = 1; step <= 5; step++) {
        fill_rows(step, WORDS, &gradients[0], words, WORD_WIDTH);
        fill_rows(step, USERS, &gradients[2], users, USER_WIDTH);
        for (size_t i = 0; i < BIAS; i++) {
            bias[i] = (float)(step + i);
            copy.bias[i] -= bias[i];
        }
        subtract_rows(copy.word, WORD_WIDTH, &gradients[0]);
        subtract_rows(copy.user, USER_WIDTH, &gradients[2]);
        expect_ok(optclient_push(model, gradients, TENSORS, NULL, &result));
        cr_assert_eq(result.step, step);
    }
    expect_copy(model, &copy);

    /* Any rows in any order, one of them twice, of two tables and a dense tensor. */
    const uint32_t some[] = { 19999, 0, users[3], 19999, 7 };
    const uint32_t other[] = { words[1], 499 };
    float got[5 * USER_WIDTH], got_words[2 * WORD_WIDTH];
    const struct optclient_values pull[] = {
        { .tensor = USER, .values = got, .rows = some, .row_count = 5 },
        { .tensor = WORD, .values = got_words, .rows = other, .row_count = 2 },
        { .tensor = BIASES, .values = bias },
    };
    expect_ok(optclient_pull(model, pull, TENSORS, NULL, &result));
    for (size_t i = 0; i < 5; i++) {
        cr_assert_arr_eq(got + i * USER_WIDTH, copy.user + some[i] * USER_WIDTH,
                         USER_WIDTH * sizeof(float));
    }
    for (size_t i = 0; i < 2; i++) {
        cr_assert_arr_eq(got_words + i * WORD_WIDTH, copy.word + other[i] * WORD_WIDTH,
                         WORD_WIDTH * sizeof(float));
    }
    cr_assert_arr_eq(bias, copy.bias, sizeof(bias));
    optclient_close(client);
    daemon_stop(&server);
}

Test(tables, give_back_the_rows_that_a_push_has_moved)
{
    static struct copy copy;
    enum { NAMED = 3000 };
    static uint32_t users[NAMED];
    static float values[NAMED * USER_WIDTH], got[NAMED * USER_WIDTH];
    struct optclient_result result;
    daemon_start(&server, NULL);
    struct optclient *client = connect_to(server.port, test_options());
    struct optclient_model *model = create(client, "sgd(lr=1)");
    struct optclient_values gradient = { .tensor = USER,
                                         .values = values,
                                         .row_count = NAMED };
    for (uint32_t step = 1; step <= 3; step++) {
        fill_rows(step, USERS, &gradient, users, USER_WIDTH);
        subtract_rows(copy.user, USER_WIDTH, &gradient);
        const struct optclient_values weights = {
            .tensor = USER, .values = got, .rows = users, .row_count = NAMED
        };
        expect_ok(
            optclient_push_pull(model, &gradient, 1, NULL, &weights, 1, NULL, &result));
        cr_assert_eq(result.step, step);
        for (size_t i = 0; i < NAMED; i++) {
            cr_assert_arr_eq(got + i * USER_WIDTH, copy.user + users[i] * USER_WIDTH,
                             USER_WIDTH * sizeof(float), "row %u", (unsigned)users[i]);
        }
    }
    expect_copy(model, &copy);
    optclient_close(client);
    daemon_stop(&server);
}

Test(tables, travel_in_halves)
{
    for (int dtype = OPTCLIENT_BF16; dtype <= OPTCLIENT_FP16; dtype++) {
        static struct copy copy;
        enum { NAMED = 900 };
        static uint32_t users[NAMED];
        static float values[NAMED * USER_WIDTH], got[NAMED * USER_WIDTH];
        struct optclient_options options = test_options();
        options.push_dtype = (enum optclient_dtype)dtype;
        options.pull_dtype = (enum optclient_dtype)dtype;
        options.checksum = 1;
        memset(&copy, 0, sizeof(copy));
        daemon_start(&server, NULL);
        struct optclient *client = connect_to(server.port, options);
        struct optclient_model *model = create(client, "sgd(lr=1)");
        struct optclient_values gradient = { .tensor = USER,
                                             .values = values,
                                             .row_count = NAMED };
        fill_rows(9, USERS, &gradient, users, USER_WIDTH);
        subtract_rows(copy.user, USER_WIDTH, &gradient);
        expect_ok(optclient_push(model, &gradient, 1, NULL, NULL));
        const struct optclient_values weights = {
            .tensor = USER, .values = got, .rows = users, .row_count = NAMED
        };
        expect_ok(optclient_pull(model, &weights, 1, NULL, NULL));
        for (size_t i = 0; i < NAMED * USER_WIDTH; i++) {
            cr_assert_eq(
                got[i], copy.user[users[i / USER_WIDTH] * USER_WIDTH + i % USER_WIDTH]);
        }
        expect_copy(model, &copy);
        optclient_close(client);
        daemon_stop(&server);
    }
}

Test(tables, count_a_push_without_rows)
{
    static struct copy copy;
    struct optclient_description *description;
    struct optclient_result result;
    daemon_start(&server, NULL);
    struct optclient *client = connect_to(server.port, test_options());
    struct optclient_model *model = create(client, "sgd(lr=1)");
    const struct optclient_values none = { .tensor = WORD };
    float got[WORD_WIDTH];
    const uint32_t row = 3;
    const struct optclient_values pull = {
        .tensor = WORD, .values = got, .rows = &row, .row_count = 1
    };
    expect_ok(optclient_push(model, &none, 1, NULL, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    expect_ok(optclient_push_pull(model, &none, 1, NULL, &pull, 1, NULL, &result));
    cr_assert_eq(result.step, 2);
    cr_assert_eq(got[0], 0.0f);
    expect_ok(optclient_describe(client, "m", &description));
    cr_assert_eq(description->tensors[WORD].sparse, 1);
    cr_assert_eq(description->tensor_steps[WORD], 2);
    cr_assert_eq(description->tensor_steps[USER], 0);
    optclient_description_free(description);
    expect_copy(model, &copy);
    optclient_close(client);
    daemon_stop(&server);
}

/* --------------------------------------------------------------------------- limits */

Test(tables, are_pushed_with_any_number_of_rows_and_pulled_with_as_many_as_are_allowed)
{
    static struct copy copy;
    enum { NAMED = 3 * OPTCLIENT_PULL_ROWS_MAX + 5 };
    static uint32_t users[NAMED];
    static float values[NAMED * USER_WIDTH], got[NAMED * USER_WIDTH];
    daemon_start(&server, NULL);
    struct optclient *client = connect_to(server.port, test_options());
    struct optclient_model *model = create(client, "sgd(lr=1)");
    struct optclient_values gradient = { .tensor = USER,
                                         .values = values,
                                         .row_count = NAMED };
    fill_rows(4, USERS, &gradient, users, USER_WIDTH);
    subtract_rows(copy.user, USER_WIDTH, &gradient);
    expect_ok(optclient_push(model, &gradient, 1, NULL, NULL));
    expect_copy(model, &copy);
    struct optclient_values pull = { .tensor = USER,
                                     .values = got,
                                     .rows = users,
                                     .row_count = OPTCLIENT_PULL_ROWS_MAX };
    expect_ok(optclient_pull(model, &pull, 1, NULL, NULL));
    for (size_t i = 0; i < OPTCLIENT_PULL_ROWS_MAX; i++) {
        cr_assert_eq(got[i * USER_WIDTH], copy.user[users[i] * USER_WIDTH]);
    }
    pull.row_count++;
    expect_refused(optclient_pull(model, &pull, 1, NULL, NULL),
                   "8193 rows are named; one pull can name 8192");
    optclient_close(client);
    daemon_stop(&server);
}

/* The daemon's header is smaller than such a list. */
Test(tables, say_that_a_list_of_rows_does_not_fit)
{
    const char *const options[] = { "--max-header", "8KiB", NULL };
    enum { NAMED = OPTCLIENT_PULL_ROWS_MAX };
    static uint32_t users[NAMED];
    static float values[NAMED * USER_WIDTH];
    daemon_start(&server, options);
    struct optclient *client = connect_to(server.port, test_options());
    struct optclient_model *model = create(client, "sgd(lr=1)");
    struct optclient_values rows = { .tensor = USER,
                                     .values = values,
                                     .row_count = NAMED };
    fill_rows(4, USERS, &rows, users, USER_WIDTH);
    expect_refused(optclient_pull(model, &rows, 1, NULL, NULL), "ask for fewer");
    /* A push is cut as it must be. */
    expect_ok(optclient_push(model, &rows, 1, NULL, NULL));
    rows.row_count = 1000;
    expect_ok(optclient_pull(model, &rows, 1, NULL, NULL));
    optclient_close(client);
    daemon_stop(&server);
}

Test(tables, refuse_what_cannot_be_by_name)
{
    float values[BIAS] = { 0 };
    const uint32_t rows[] = { 499, 500 };
    daemon_start(&server, NULL);
    struct optclient *client = connect_to(server.port, test_options());
    struct optclient_model *model = create(client, "sgd(lr=1)");
    struct optclient_values word = { WORD, values, rows, 2 };
    expect_refused(optclient_push(model, &word, 1, NULL, NULL),
                   "row 500 of tensor \"word\", which has 500");
    expect_refused(optclient_pull(model, &word, 1, NULL, NULL), "row 500");
    struct optclient_values bias = { BIASES, values, rows, 1 };
    expect_refused(optclient_push(model, &bias, 1, NULL, NULL),
                   "\"bias\", which is not sparse");
    const struct optclient_values twice[] = { { WORD, values, rows, 1 },
                                              { WORD, values, rows, 1 } };
    expect_refused(optclient_pull(model, twice, 2, NULL, NULL), "the same tensor, 2");
    struct optclient_values unnamed = { WORD, values, NULL, 2 };
    expect_refused(optclient_push(model, &unnamed, 1, NULL, NULL),
                   "does not say which");
    unnamed = (struct optclient_values){ WORD, values, rows, 0 };
    expect_refused(optclient_pull(model, &unnamed, 1, NULL, NULL), "at least one");
    struct optclient_result result;
    expect_ok(optclient_pull(model, &(struct optclient_values){ WORD, values, rows, 1 },
                             1, NULL, &result));
    cr_assert_eq(result.step, 0);
    optclient_close(client);
    daemon_stop(&server);
}

/* ------------------------------------------------------------- broken connections */

enum { CUT_PUSHES = 3, CUT_NAMED = 900 };

static void train_through(struct proxy *proxy)
{
    static struct copy copy;
    static uint32_t users[CUT_NAMED], words[CUT_NAMED];
    static float user_values[CUT_NAMED * USER_WIDTH],
        word_values[CUT_NAMED * WORD_WIDTH], got[CUT_NAMED * USER_WIDTH];
    struct optclient *client = test_connect(proxy_address(proxy), NULL);
    struct optclient_model *model = create(client, "sgd(lr=1)");
    memset(&copy, 0, sizeof(copy));
    for (uint32_t i = 0; i < CUT_PUSHES; i++) {
        struct optclient_values gradients[] = {
            { .tensor = USER, .values = user_values, .row_count = CUT_NAMED },
            { .tensor = WORD, .values = word_values, .row_count = CUT_NAMED },
        };
        struct optclient_result result;
        fill_rows(i, USERS, &gradients[0], users, USER_WIDTH);
        fill_rows(i, WORDS, &gradients[1], words, WORD_WIDTH);
        subtract_rows(copy.user, USER_WIDTH, &gradients[0]);
        subtract_rows(copy.word, WORD_WIDTH, &gradients[1]);
        const struct optclient_values weights = { USER, got, users, CUT_NAMED };
        expect_ok(
            optclient_push_pull(model, gradients, 2, NULL, &weights, 1, NULL, &result));
        cr_assert_eq(result.step, i + 1);
        for (size_t k = 0; k < CUT_NAMED; k++) {
            cr_assert_arr_eq(got + k * USER_WIDTH, copy.user + users[k] * USER_WIDTH,
                             USER_WIDTH * sizeof(float));
        }
    }
    expect_copy(model, &copy);
    optclient_model_close(model);
    expect_ok(optclient_delete(client, "m"));
    optclient_close(client);
}

Test(tables, get_each_push_once_wherever_the_connection_is_cut, .timeout = 120)
{
    enum { CUTS = 25 };
    daemon_start(&server, NULL);
    struct proxy *proxy = proxy_start(server.port);
    train_through(proxy);
    uint64_t up = proxy_bytes_up(proxy), down = proxy_bytes_down(proxy);
    unsigned connections = proxy_connections(proxy);
    for (uint64_t i = 1; i < CUTS; i++) {
        proxy_cut_after(proxy, up * i / CUTS + i % 13, 0);
        train_through(proxy);
        proxy_cut_after(proxy, 0, down * i / CUTS + i % 13);
        train_through(proxy);
    }
    proxy_cut_after(proxy, 0, 0);
    cr_assert_gt(proxy_connections(proxy), connections + 3 * CUTS,
                 "hardly any connection was cut");
    proxy_stop(proxy);
    daemon_stop(&server);
}
