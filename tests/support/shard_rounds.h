/* shard_rounds — two workers of a model whose rounds are applied shard by shard, and
 * their pushes, part by part.
 *
 * Gradients are integers and the rule is sgd(lr=1), so weights tell which shards were
 * applied and from whom.
 */
#ifndef OPTIMD_TESTS_SUPPORT_SHARD_ROUNDS_H
#define OPTIMD_TESTS_SUPPORT_SHARD_ROUNDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"
#include "tests/support/engine_harness.h"

/* Shards: "first" alone, three of "large", "last" alone. */
enum {
    STREAM_LARGE = 2 * OPT_SHARD + OPT_BLOCK + 3,
    STREAM_PARTS = 5,
    STREAM_ELEMENTS = 4 + STREAM_LARGE + 3
};
extern const struct opt_tensor_entry stream_tensors[3];
/* One frame each, */
extern const struct opt_segment stream_parts[STREAM_PARTS];
/* and where each begins in a pull of everything. */
extern const size_t stream_begins[STREAM_PARTS];

/* A worker's push under way. */
struct pushing {
    const struct caller *caller;
    uint32_t model;
    uint64_t sequence, id;
    uint32_t frames;
};

/* Two workers of a model, and b's push. */
struct two {
    struct harness harness;
    struct caller a, b, reader;
    uint32_t model;
    struct pushing from_a, from_b;
    struct letter *frames_a[STREAM_PARTS], *frames_b[STREAM_PARTS];
};

struct opt_consistency stream_policy(enum opt_loss loss);
struct pushing pushing_new(const struct caller *caller, uint32_t model,
                           uint64_t sequence);
/* The next frame: one part, all of one value. */
struct letter *pushing_make(struct pushing *pushing, size_t part, float value,
                            bool last);
struct letter *pushing_send(struct pushing *pushing, size_t part, float value,
                            bool last);
/* Parts from first to the last one; returns the letter that will be answered. The
 * others are put into frames for their test to free. */
struct letter *pushing_send_rest(struct pushing *pushing, size_t first, float value,
                                 struct letter *frames[STREAM_PARTS]);
void pushing_take_back(struct harness *harness, struct letter *frames[STREAM_PARTS]);
/* The weights of the parts, and that each is one number. */
void stream_expect_weights(const struct caller *caller, uint32_t model, uint64_t step,
                           const float expected[STREAM_PARTS]);
void stream_expect_applied(struct harness *harness, struct letter *letter,
                           uint64_t step);
void stream_expect_error(struct harness *harness, struct letter *letter,
                         enum opt_status status, const char *says);
void two_open(struct two *two, enum opt_loss loss, const char *spec);
/* Everything that was sent has been looked at, and what can be applied is. */
void two_settle(const struct two *two);
/* A connection ends after that. */
void two_gone(const struct two *two, struct caller *caller, bool lease_expired);
/* Both have sent the first two parts: 2 and 4, whose mean is 3. */
void two_begin(struct two *two);
void two_close(struct two *two, bool a, bool b);

#endif
