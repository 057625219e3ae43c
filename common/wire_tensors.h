/* wire_tensors — the tensors of a table, one entry at a time.
 *
 * A table can have more entries than may be read in one go by who has others to serve.
 * The engine reads some at a time with this; who reads a whole table does it with the
 * functions of wire.h, which are made of this. Any thread.
 */
#ifndef OPTIMD_COMMON_WIRE_TENSORS_H
#define OPTIMD_COMMON_WIRE_TENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

enum {
    OPT_TABLE_TENSORS = 1,      /* number of the field in a TensorTable */
    OPT_TENSOR_ENTRY = 64 << 10 /* bytes of one entry, at most */
};

/* Where the reading is. All of it may be copied: that is a place to come back to. */
struct opt_tensor_reader {
    const uint8_t *data; /* borrowed */
    size_t size, at;
    uint32_t number;   /* of the field that is an entry */
    size_t count;      /* entries that have been read */
    uint64_t elements; /* of these together */
    char name[OPT_NAME_MAX + 1];
    uint64_t shape[OPT_RANK_MAX];
    struct opt_arena scratch;
};
void opt_tensors_begin(struct opt_tensor_reader *reader, const uint8_t *data,
                       size_t size, uint32_t number);
/* The next entry; its name and shape are the reader's until the one after it. At the
 * end of the table out->name is NULL. OPT_INVALID_ARGUMENT: it is no entry, or longer
 * than OPT_TENSOR_ENTRY; or the elements are more than a model may have.
 * OPT_RESOURCE_EXHAUSTED: no memory. It takes time with the bytes that at grows by. */
enum opt_status opt_tensors_next(struct opt_tensor_reader *reader,
                                 struct opt_tensor_entry *out, struct opt_error *error);
void opt_tensors_end(struct opt_tensor_reader *reader);

/* Whether a table may have so many entries: OPT_INVALID_ARGUMENT, none;
 * OPT_RESOURCE_EXHAUSTED, more than max. */
enum opt_status opt_tensors_check_count(size_t count, size_t max,
                                        struct opt_error *error);

/* Names that have been seen. Hashed with a number that nobody outside the process
 * knows, so that nobody can choose names that collide. */
struct opt_name_set {
    uint32_t *slots; /* the owner's; zeros at first */
    size_t slot_count;
};
/* How many slots a set of so many names has. */
size_t opt_name_set_slots(size_t names);
/* Add the name of that index. OPT_INVALID_ARGUMENT: it is there already. */
enum opt_status opt_name_set_add(struct opt_name_set *set,
                                 const char *(*name)(const void *of, size_t index),
                                 const void *of, size_t index, struct opt_error *error);

#endif
