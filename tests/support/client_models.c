#include "tests/support/client_models.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NAME_SIZE = 32 };

struct shapes shapes_new(size_t count, uint64_t large)
{
    struct shapes shapes = { .count = count };
    shapes.tensors = calloc(count, sizeof(*shapes.tensors));
    shapes.sizes = calloc(count, sizeof(*shapes.sizes));
    char *names = calloc(count, NAME_SIZE);
    cr_assert(shapes.tensors != NULL && shapes.sizes != NULL && names != NULL);
    for (size_t i = 0; i < count; i++) {
        char *name = names + i * NAME_SIZE;
        snprintf(name, NAME_SIZE, "tensor.%zu", i);
        shapes.sizes[i] = i + 1 == count ? large : i + 1;
        shapes.tensors[i] = (struct optclient_tensor){ .name = name,
                                                       .shape = &shapes.sizes[i],
                                                       .rank = 1 };
    }
    return shapes;
}

void shapes_free(struct shapes *shapes)
{
    free((char *)shapes->tensors[0].name); /* one block for all names */
    free(shapes->tensors);
    free(shapes->sizes);
}

struct optclient_values *values_new(const struct shapes *shapes)
{
    struct optclient_values *values = calloc(shapes->count, sizeof(*values));
    cr_assert(values != NULL);
    for (size_t i = 0; i < shapes->count; i++) {
        values[i].tensor = i;
        values[i].values = calloc((size_t)shapes->sizes[i], sizeof(float));
        cr_assert(values[i].values != NULL);
    }
    return values;
}

void values_free(struct optclient_values *values, const struct shapes *shapes)
{
    for (size_t i = 0; i < shapes->count; i++) {
        free(values[i].values);
    }
    free(values);
}

float pattern(size_t tensor, size_t element)
{
    return (float)((tensor * 7 + element) % 127) - 63.0f;
}

void fill_pattern(struct optclient_values *values, const struct shapes *shapes)
{
    for (size_t i = 0; i < shapes->count; i++) {
        for (size_t e = 0; e < shapes->sizes[i]; e++) {
            values[i].values[e] = pattern(i, e);
        }
    }
}

void expect_pattern(const struct optclient_values *values, const struct shapes *shapes,
                    float factor)
{
    for (size_t i = 0; i < shapes->count; i++) {
        for (size_t e = 0; e < shapes->sizes[i]; e++) {
            float expected = factor * pattern(i, e);
            if (values[i].values[e] != expected) {
                cr_assert_fail("tensor %zu, element %zu: %g instead of %g", i, e,
                               (double)values[i].values[e], (double)expected);
            }
        }
    }
}

struct optclient_options test_options(void)
{
    struct optclient_options options = optclient_options_default();
    options.timeout_ms = 10000;
    options.connect_timeout_ms = 10000;
    options.backoff_min_ms = 5;
    options.backoff_max_ms = 50;
    return options;
}

struct optclient *test_connect(const char *address,
                               const struct optclient_options *options)
{
    struct optclient_options defaults = test_options();
    struct optclient *client = NULL;
    expect_ok(
        optclient_connect(address, options == NULL ? &defaults : options, &client));
    return client;
}

struct optclient_model *test_create(struct optclient *client, const char *name,
                                    const struct shapes *shapes)
{
    struct optclient_model *model = NULL;
    expect_ok(optclient_create(client, name, "sgd(lr=1)", NULL, shapes->tensors,
                               shapes->count, NULL, &model));
    return model;
}

uint64_t test_counter(struct optclient *client, const char *name)
{
    struct optclient_counter *counters;
    size_t count;
    size_t found = SIZE_MAX;
    expect_ok(optclient_statistics(client, &counters, &count));
    for (size_t i = 0; i < count; i++) {
        if (strcmp(counters[i].name, name) == 0) {
            found = i;
        }
    }
    cr_assert_neq(found, SIZE_MAX, "there is no counter %s", name);
    uint64_t value = counters[found].value;
    optclient_statistics_free(counters);
    return value;
}

uint64_t test_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
