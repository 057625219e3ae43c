/* models — one of each policy, and how weights tell which pushes count in them.
 *
 * Gradients are whole numbers, summed by sgd(lr=1), so the weights are minus their sum.
 * A push adds a power of 4 to an element of each part: an element's digits to the base
 * of 4 say how often each of its pushes counts. */
#include <math.h>
#include <stdio.h>

#include "tests/soak/soak.h"

static const struct {
    const char *name;
    struct optclient_policy policy;
} models[SOAK_MODELS] = {
    { "sync", { .mode = OPTCLIENT_SYNC } },
    { "async", { .mode = OPTCLIENT_ASYNC } },
    { "bounded", { .mode = OPTCLIENT_BOUNDED, .staleness = 4 } },
    { "backup", { .backup = 2 } },
    { "samples", { .samples = 4 } },
    { "shard", { .atomic = OPTCLIENT_ATOMIC_SHARD } },
};

const char *soak_name(unsigned model)
{
    return models[model].name;
}

bool soak_splits(unsigned model)
{
    return models[model].policy.atomic == OPTCLIENT_ATOMIC_SHARD;
}

size_t soak_elements(unsigned pushes)
{
    return ((size_t)pushes * SOAK_WORKERS + SOAK_DIGITS - 1) / SOAK_DIGITS;
}

/* Between two parts there is a table of one row that nobody pushes: what comes behind a
 * table begins another shard. */
size_t soak_tensor(unsigned part)
{
    return (size_t)part * 2;
}

size_t soak_element(size_t push)
{
    return push / SOAK_DIGITS;
}

float soak_digit(size_t push)
{
    return (float)(UINT32_C(1) << 2 * (push % SOAK_DIGITS));
}

float soak_times(const float *weights, size_t push)
{
    float sum = 0.0f - weights[soak_element(push)];
    if (!(sum >= 0.0f && sum < soak_digit(SOAK_DIGITS - 1) * 4) || floorf(sum) != sum) {
        return NAN;
    }
    return (float)((uint32_t)sum >> 2 * (push % SOAK_DIGITS) & 3);
}

enum optclient_status soak_open(struct optclient *client, unsigned model,
                                unsigned pushes, struct optclient_model **out)
{
    enum { TENSORS = 2 * SOAK_PARTS - 1 };
    static const uint64_t row[] = { 1, 1 };
    const uint64_t own[] = { soak_elements(pushes) };
    char names[TENSORS][16];
    struct optclient_tensor tensors[TENSORS];
    for (size_t i = 0; i < TENSORS; i++) {
        bool between = i % 2 != 0;
        snprintf(names[i], sizeof names[i], "%s.%zu", between ? "between" : "part",
                 i / 2);
        tensors[i] = (struct optclient_tensor){ .name = names[i],
                                                .shape = between ? row : own,
                                                .rank = between ? 2 : 1,
                                                .sparse = between };
    }
    return optclient_create(client, models[model].name,
                            "sgd(lr=1, aggregate=sum, nonfinite=propagate)",
                            &models[model].policy, tensors, TENSORS, NULL, out);
}
