/* engine_harness — tests' way to the engine without sockets: letters posted into its
 * mailbox, and taken back from a mailbox of the test's own.
 *
 * Every letter that is sent comes back exactly once, answered or silent; harness_close
 * fails the test if one does not. Parts of an answer, which the engine makes, come too.
 */
#ifndef OPTIMD_TESTS_SUPPORT_ENGINE_HARNESS_H
#define OPTIMD_TESTS_SUPPORT_ENGINE_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"
#include "server/base/letter.h"
#include "server/turn/engine.h"

struct harness {
    struct engine *engine;
    struct mailbox box;
    struct letter *back; /* came back, not asked for yet */
    size_t out;          /* letters the engine has */
    uint64_t returned;   /* how many have come back; arrived_ns of each becomes which */
    uint64_t last_id;
};

struct caller { /* a connection */
    struct harness *harness;
    struct peer *peer;
};

struct engine_settings harness_settings(void); /* 2 threads, 1 GiB, grace 0, 20 s */
void harness_open(struct harness *harness, struct engine_settings settings);
/* Stops the engine and frees everything; all callers must have hung up. */
void harness_close(struct harness *harness);
/* The same, if the engine has been stopped already. */
void harness_close_stopped(struct harness *harness);

/* Connect; with a name also say hello (session not 0) and require success. */
struct caller caller_new(struct harness *harness, const char *name, uint64_t session);
/* Say hello as this says, as a client that calls itself "test". */
struct letter *caller_greet(const struct caller *caller, struct opt_hello hello);
/* The connection ends. */
void caller_gone(struct caller *caller, bool lease_expired);

/* A letter to fill in; id, peer and arrival are set. */
struct letter *letter_start(const struct caller *caller, enum opt_message message);
void letter_send(const struct caller *caller, struct letter *letter);
/* Wait until the letter is back; fails the test after 20 s. */
struct letter *letter_await(struct harness *harness, struct letter *letter);
/* Whether it is back, after everything sent before has been looked at. */
bool letter_is_back(struct harness *harness, const struct letter *letter);
/* Send, await. */
struct letter *letter_ask(const struct caller *caller, struct letter *letter);
void harness_free(struct letter *letter);

/* The reply's error status (OPT_OK if it is none) and text (""). */
enum opt_status reply_status(const struct letter *letter);
const char *reply_text(const struct letter *letter);

/* Models. */
struct letter *create_letter(const struct caller *caller, const char *model,
                             const char *spec, struct opt_consistency consistency,
                             const struct opt_tensor_entry *tensors, size_t count,
                             bool assigned, bool join);
/* Create and join, or fail the test; zeros if weights is NULL. Returns the number. */
uint32_t model_create(const struct caller *caller, const char *model, const char *spec,
                      struct opt_consistency consistency,
                      const struct opt_tensor_entry *tensors, size_t count,
                      const float *weights);
uint32_t model_join(const struct caller *caller, const char *model);

/* One frame with all of the given segments' values (of dtype), in one piece. */
struct letter *push_letter(const struct caller *caller, uint32_t model,
                           uint64_t sequence, enum opt_dtype dtype,
                           const struct opt_segment *segments, size_t count,
                           const void *values, size_t size);
/* A whole gradient of one fp32 tensor with n elements, all equal to value. */
struct letter *push_constant(const struct caller *caller, uint32_t model,
                             uint64_t sequence, size_t n, float value);
struct letter *pull_letter(const struct caller *caller, uint32_t model,
                           enum opt_view view, const char *slot);
/* Copy the pieces of a pull's answer one after another. Returns how many floats. */
size_t pieces_copy(const struct letter *letter, float *out, size_t capacity);
/* Pull all tensors and copy them, or fail the test. Returns the step. */
uint64_t model_pull(const struct caller *caller, uint32_t model, enum opt_view view,
                    const char *slot, float *out, size_t count);

/* Whether n floats are the same bit for bit. */
bool same_bits(const float *a, const float *b, size_t n);

/* A counter of the statistics message. */
uint64_t statistic(const struct caller *caller, const char *name);

#endif
