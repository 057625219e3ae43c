/* wire_tensors — see wire_tensors.h. */
#include "common/wire_tensors.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "common/random.h"
#include "common/wire_parts.h"

enum { ENTRY_MEMORY = 256 << 10 }; /* to unpack one entry */

void opt_tensors_begin(struct opt_tensor_reader *reader, const uint8_t *data,
                       size_t size, uint32_t number)
{
    *reader =
        (struct opt_tensor_reader){ .data = data, .size = size, .number = number };
    opt_arena_init(&reader->scratch, ENTRY_MEMORY);
}

void opt_tensors_end(struct opt_tensor_reader *reader)
{
    opt_arena_fini(&reader->scratch);
}

/* Product of the dimensions. */
static enum opt_status count_elements(const Optimd__V1__Tensor *from, uint64_t *out,
                                      struct opt_error *error)
{
    *out = 1;
    if (from->n_shape > OPT_RANK_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "tensor %s has %zu dimensions; at most %d are allowed",
                        from->name, from->n_shape, OPT_RANK_MAX);
    }
    for (size_t i = 0; i < from->n_shape; i++) {
        uint64_t dimension = from->shape[i];
        if (dimension == 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "dimension %zu of tensor %s is 0; it must be at least 1", i,
                            from->name);
        }
        if (dimension > OPT_ELEMENTS_MAX / *out) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "tensor %s has more than %" PRIu64 " elements", from->name,
                            OPT_ELEMENTS_MAX);
        }
        *out *= dimension;
    }
    if (from->sparse && (from->n_shape < 2 || from->shape[0] > UINT32_MAX ||
                         *out / from->shape[0] > OPT_SHARD)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "tensor %s cannot be sparse: that takes at least 2 dimensions, "
                        "the first at most %" PRIu32
                        " rows, and at most %d elements a row",
                        from->name, UINT32_MAX, OPT_SHARD);
    }
    return OPT_OK;
}

static enum opt_status read_entry(struct opt_tensor_reader *reader,
                                  const Optimd__V1__Tensor *from,
                                  struct opt_tensor_entry *out, struct opt_error *error)
{
    char what[64];
    uint64_t elements;
    (void)snprintf(what, sizeof(what), "the name of tensor %zu", reader->count);
    enum opt_status status = opt_wire_name(from->name, what, error);
    if (status == OPT_OK) {
        status = count_elements(from, &elements, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    if (elements > OPT_ELEMENTS_MAX - reader->elements) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the tensors up to %s have more than %" PRIu64
                        " elements together",
                        from->name, OPT_ELEMENTS_MAX);
    }
    reader->elements += elements;
    memcpy(reader->name, from->name, strlen(from->name) + 1);
    if (from->n_shape > 0) {
        memcpy(reader->shape, from->shape, from->n_shape * sizeof(*reader->shape));
    }
    *out = (struct opt_tensor_entry){
        .name = reader->name,
        .shape = from->n_shape > 0 ? reader->shape : NULL,
        .rank = from->n_shape,
        .elements = elements,
        .step = from->step,
        .sparse = from->sparse,
    };
    return OPT_OK;
}

enum opt_status opt_tensors_next(struct opt_tensor_reader *reader,
                                 struct opt_tensor_entry *out, struct opt_error *error)
{
    struct opt_walk walk = { .bytes = reader->data,
                             .size = reader->size,
                             .at = reader->at };
    do {
        if (!opt_walk_next(&walk)) {
            *out = (struct opt_tensor_entry){ .name = NULL };
            if (walk.at == walk.size) {
                return OPT_OK;
            }
            /* It says what is wrong, and where. */
            return opt_wire_scan(&optimd__v1__tensor_table__descriptor,
                                 reader->data + walk.at, reader->size - walk.at, NULL,
                                 error);
        }
    } while (walk.field.number != reader->number || walk.field.type != OPT_FIELD_BYTES);
    size_t size = (size_t)walk.field.size;
    if (size > OPT_TENSOR_ENTRY) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the entry of tensor %zu has %zu bytes; it may have at most %d",
                        reader->count, size, OPT_TENSOR_ENTRY);
    }
    ProtobufCMessage *message = NULL;
    enum opt_status status =
        opt_wire_scan(&optimd__v1__tensor__descriptor, walk.value, size, NULL, error);
    if (status == OPT_OK) {
        status = opt_wire_unpack(&optimd__v1__tensor__descriptor, walk.value, size,
                                 &reader->scratch, &message, error);
    }
    if (status == OPT_OK) {
        status = read_entry(reader, (const Optimd__V1__Tensor *)message, out, error);
    }
    opt_arena_reset(&reader->scratch);
    reader->at = walk.at;
    reader->count++;
    return status;
}

enum opt_status opt_tensors_check_count(size_t count, size_t max,
                                        struct opt_error *error)
{
    if (count == 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the table of tensors is empty; a model has at least one");
    }
    if (count > max) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_LARGE,
                           "the table has %zu tensors; a model may have at most %zu",
                           count, max);
    }
    return OPT_OK;
}

/* ---------------------------------------------------------------- names */

/* The same for all sets of the process. If the kernel has no number, it is 0. */
static uint64_t seed(void)
{
    static _Atomic uint64_t kept;
    uint64_t number = atomic_load_explicit(&kept, memory_order_relaxed), none = 0;
    if (number == 0 && opt_random_identity(&number) &&
        !atomic_compare_exchange_strong(&kept, &none, number)) {
        number = none; /* another thread was first */
    }
    return number;
}

size_t opt_name_set_slots(size_t names)
{
    size_t slots = 16;
    while (slots < 2 * names) {
        slots *= 2;
    }
    return slots;
}

enum opt_status opt_name_set_add(struct opt_name_set *set,
                                 const char *(*name)(const void *of, size_t index),
                                 const void *of, size_t index, struct opt_error *error)
{
    const char *added = name(of, index);
    size_t mask = set->slot_count - 1;
    size_t slot = (size_t)XXH3_64bits_withSeed(added, strlen(added), seed()) & mask;
    for (; set->slots[slot] != 0; slot = (slot + 1) & mask) {
        if (strcmp(name(of, set->slots[slot] - 1), added) == 0) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "two tensors have the name %s; names must be unique",
                            added);
        }
    }
    set->slots[slot] = (uint32_t)(index + 1);
    return OPT_OK;
}
