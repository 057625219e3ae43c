/* wire_cases — one of every message with every field set, and what must be true of any.
 *
 * Used by the tests of the wire and by the fuzzer and its corpus.
 */
#ifndef OPTIMD_TESTS_SUPPORT_WIRE_CASES_H
#define OPTIMD_TESTS_SUPPORT_WIRE_CASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

enum wire_kind {
    WIRE_REQUEST,
    WIRE_REPLY,
    WIRE_TENSORS,
    WIRE_MODELS,
    WIRE_DESCRIPTION,
    WIRE_KINDS
};

struct wire_any {
    enum wire_kind kind;
    union {
        struct opt_request request;
        struct opt_reply reply;
        struct {
            struct opt_tensor_entry *entries;
            size_t count;
        } tensors;
        struct {
            struct opt_model_entry *entries;
            size_t count;
        } models;
        struct opt_description description;
    } as;
};

struct wire_case {
    const char *name;
    size_t data_size; /* of a request or reply */
    struct wire_any any;
};
extern const struct wire_case wire_cases[];
extern const size_t wire_case_count;

size_t wire_any_pack(const struct wire_any *any, uint8_t *out, size_t capacity);

/* out->kind says what to read. */
enum opt_status wire_any_read(const uint8_t *bytes, size_t size, size_t data_size,
                              struct opt_arena *arena, struct wire_any *out,
                              struct opt_error *error);

bool wire_any_equal(const struct wire_any *a, const struct wire_any *b);

/* The documented limit that something which was accepted violates, or NULL. */
const char *wire_any_violation(const struct wire_any *any, size_t data_size);

#endif
