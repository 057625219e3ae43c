/* wire_tables — the tables that travel in `data`: TensorTable, ModelTable and
 * ModelDescription, both ways.
 *
 * A table can have a million entries, so it is not unpacked as one message, which would
 * take many times its size: its entries are unpacked one at a time into a scratch
 * arena, and only the plain structs stay.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire_parts.h"
#include "common/wire_tensors.h"

enum {
    TABLE_TENSORS = OPT_TABLE_TENSORS,
    TABLE_MODELS = 1, /* ModelTable */
    DESCRIPTION_SUMMARY = 1,
    DESCRIPTION_CONSISTENCY = 2,
    DESCRIPTION_TENSORS = 8,
    DESCRIPTION_WORKERS = 9,
    DESCRIPTION_CHANGES = 11
};

enum { ENTRY_BYTES = 256 << 10 }; /* memory to unpack one entry */

size_t opt_table_budget(size_t size)
{
    enum { MOST_PER_BYTE = 32, FIXED = 64 << 10 };
    return size > (SIZE_MAX - FIXED) / MOST_PER_BYTE ? SIZE_MAX
                                                     : size * MOST_PER_BYTE + FIXED;
}

/* ---------------------------------------------------------------- entries */

static size_t count_entries(const uint8_t *data, size_t size, uint32_t number)
{
    struct opt_walk walk = { .bytes = data, .size = size };
    size_t count = 0;
    while (opt_walk_next(&walk)) {
        count += walk.field.number == number && walk.field.type == OPT_FIELD_BYTES;
    }
    return count;
}

static enum opt_status copy_text(struct opt_arena *arena, const char *text,
                                 const char **out, struct opt_error *error)
{
    size_t size = strlen(text) + 1;
    char *copy = opt_wire_array(arena, size, 1, error);
    if (copy == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    memcpy(copy, text, size);
    *out = copy;
    return OPT_OK;
}

/* Where the readers of entries put what they read. */
struct context {
    struct opt_arena *arena;
    struct opt_error *error;
};

/* How one kind of entry is read: message index of its kind, into element. */
struct entry_kind {
    uint32_t number;
    size_t size; /* of the plain struct */
    const ProtobufCMessageDescriptor *descriptor;
    enum opt_status (*read)(const struct context *c, const ProtobufCMessage *message,
                            size_t index, void *element);
};

/* All entries of one kind in a table that has passed the scan. */
static enum opt_status read_entries(const struct context *c,
                                    const struct entry_kind *kind, const uint8_t *data,
                                    size_t size, void **out, size_t *out_count)
{
    size_t count = count_entries(data, size, kind->number);
    uint8_t *elements = opt_wire_array(c->arena, count, kind->size, c->error);
    if (elements == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    struct opt_arena scratch;
    opt_arena_init(&scratch, ENTRY_BYTES);
    enum opt_status status = OPT_OK;
    struct opt_walk walk = { .bytes = data, .size = size };
    size_t index = 0;
    while (status == OPT_OK && opt_walk_next(&walk)) {
        if (walk.field.number != kind->number || walk.field.type != OPT_FIELD_BYTES) {
            continue;
        }
        ProtobufCMessage *message = NULL;
        status = opt_wire_unpack(kind->descriptor, walk.value, (size_t)walk.field.size,
                                 &scratch, &message, c->error);
        if (status == OPT_OK) {
            status = kind->read(c, message, index, elements + index * kind->size);
        }
        opt_arena_reset(&scratch);
        index++;
    }
    opt_arena_fini(&scratch);
    if (status == OPT_OK) {
        *out = elements;
        *out_count = count;
    }
    return status;
}

/* ---------------------------------------------------------------- tensors */

/* A copy of an entry in the arena. */
static enum opt_status keep_tensor(const struct context *c,
                                   const struct opt_tensor_entry *entry,
                                   struct opt_tensor_entry *out)
{
    *out = *entry;
    out->shape = NULL;
    if (entry->rank > 0) {
        uint64_t *shape =
            opt_wire_array(c->arena, entry->rank, sizeof(*shape), c->error);
        if (shape == NULL) {
            return OPT_RESOURCE_EXHAUSTED;
        }
        memcpy(shape, entry->shape, entry->rank * sizeof(*shape));
        out->shape = shape;
    }
    return copy_text(c->arena, entry->name, &out->name, c->error);
}

static const char *name_of(const void *tensors, size_t index)
{
    return ((const struct opt_tensor_entry *)tensors)[index].name;
}

static enum opt_status read_tensors(const struct context *c, uint32_t number,
                                    const uint8_t *data, size_t size,
                                    struct opt_tensor_entry **out, size_t *out_count)
{
    size_t count = count_entries(data, size, number), index = 0;
    struct opt_tensor_entry *tensors =
        opt_wire_array(c->arena, count, sizeof(*tensors), c->error);
    const size_t slots = opt_name_set_slots(count);
    struct opt_name_set names = { .slots = opt_wire_array(
                                      c->arena, slots, sizeof(*names.slots), c->error),
                                  .slot_count = slots };
    if (tensors == NULL || names.slots == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    memset(names.slots, 0, slots * sizeof(*names.slots));
    struct opt_tensor_reader reader;
    opt_tensors_begin(&reader, data, size, number);
    enum opt_status status = OPT_OK;
    struct opt_tensor_entry entry;
    while (status == OPT_OK && index < count) {
        status = opt_tensors_next(&reader, &entry, c->error);
        if (status == OPT_OK) {
            status = keep_tensor(c, &entry, &tensors[index]);
        }
        if (status == OPT_OK) {
            status = opt_name_set_add(&names, name_of, tensors, index++, c->error);
        }
    }
    opt_tensors_end(&reader);
    if (status == OPT_OK) {
        *out = tensors;
        *out_count = count;
    }
    return status;
}

enum opt_status opt_tensor_table_read(const uint8_t *data, size_t size,
                                      size_t max_tensors, struct opt_arena *arena,
                                      struct opt_tensor_entry **out, size_t *count,
                                      struct opt_error *error)
{
    enum opt_status status =
        opt_wire_scan(&optimd__v1__tensor_table__descriptor, data, size, NULL, error);
    if (status == OPT_OK) {
        status = opt_tensors_check_count(count_entries(data, size, TABLE_TENSORS),
                                         max_tensors, error);
    }
    if (status != OPT_OK) {
        return status;
    }
    return read_tensors(&(struct context){ .arena = arena, .error = error },
                        TABLE_TENSORS, data, size, out, count);
}

static void write_tensor(struct opt_writer *writer, const void *what)
{
    const struct opt_tensor_entry *tensor = what;
    Optimd__V1__Tensor message = OPTIMD__V1__TENSOR__INIT;
    message.name = opt_wire_text(tensor->name);
    message.n_shape = tensor->rank;
    message.shape = (uint64_t *)(uintptr_t)tensor->shape;
    message.step = tensor->step;
    message.sparse = tensor->sparse;
    opt_write_fields(writer, &message.base);
}

struct tensor_list {
    const struct opt_tensor_entry *tensors;
    size_t count;
};

static void write_tensor_table(struct opt_writer *writer, const void *what)
{
    const struct tensor_list *list = what;
    for (size_t i = 0; i < list->count; i++) {
        opt_write_nested(writer, TABLE_TENSORS, write_tensor, &list->tensors[i]);
    }
}

size_t opt_tensor_table_pack(const struct opt_tensor_entry *tensors, size_t count,
                             uint8_t *out, size_t capacity)
{
    return opt_wire_pack(write_tensor_table,
                         &(struct tensor_list){ .tensors = tensors, .count = count },
                         out, capacity);
}

/* ---------------------------------------------------------------- models */

static enum opt_status read_model(const struct context *c,
                                  const ProtobufCMessage *message, size_t index,
                                  void *element)
{
    const Optimd__V1__ModelSummary *from = (const Optimd__V1__ModelSummary *)message;
    struct opt_model_entry *to = element;
    char what[64];
    (void)snprintf(what, sizeof(what), "the name of model %zu", index);
    enum opt_status status = opt_wire_name(from->name, what, c->error);
    if (status == OPT_OK) {
        status = opt_wire_enum((int)from->durability, OPT_DURABILITY_COUNT,
                               "ModelSummary.durability", c->error);
    }
    if (status != OPT_OK) {
        return status;
    }
    *to = (struct opt_model_entry){ .model = from->model,
                                    .step = from->step,
                                    .tensors = from->tensors,
                                    .parameters = from->parameters,
                                    .workers = from->workers,
                                    .identity = from->identity,
                                    .durability = (enum opt_durability)from->durability,
                                    .recovering = from->recovering,
                                    .percent = from->percent };
    status = copy_text(c->arena, from->name, &to->name, c->error);
    if (status == OPT_OK) {
        status = copy_text(c->arena, from->specification, &to->specification, c->error);
    }
    return status;
}

enum opt_status opt_model_table_read(const uint8_t *data, size_t size,
                                     struct opt_arena *arena,
                                     struct opt_model_entry **out, size_t *count,
                                     struct opt_error *error)
{
    enum opt_status status =
        opt_wire_scan(&optimd__v1__model_table__descriptor, data, size, NULL, error);
    if (status != OPT_OK) {
        return status;
    }
    void *models = NULL;
    status = read_entries(
        &(struct context){ .arena = arena, .error = error },
        &(struct entry_kind){ .number = TABLE_MODELS,
                              .size = sizeof(struct opt_model_entry),
                              .descriptor = &optimd__v1__model_summary__descriptor,
                              .read = read_model },
        data, size, &models, count);
    if (status == OPT_OK) {
        *out = models;
    }
    return status;
}

static void write_model(struct opt_writer *writer, const void *what)
{
    const struct opt_model_entry *model = what;
    Optimd__V1__ModelSummary message = OPTIMD__V1__MODEL_SUMMARY__INIT;
    message.name = opt_wire_text(model->name);
    message.model = model->model;
    message.step = model->step;
    message.tensors = model->tensors;
    message.parameters = model->parameters;
    message.workers = model->workers;
    message.specification = opt_wire_text(model->specification);
    message.identity = model->identity;
    message.durability = (Optimd__V1__Durability)model->durability;
    message.recovering = model->recovering;
    message.percent = model->percent;
    opt_write_fields(writer, &message.base);
}

struct model_list {
    const struct opt_model_entry *models;
    size_t count;
};

static void write_model_table(struct opt_writer *writer, const void *what)
{
    const struct model_list *list = what;
    for (size_t i = 0; i < list->count; i++) {
        opt_write_nested(writer, TABLE_MODELS, write_model, &list->models[i]);
    }
}

size_t opt_model_table_pack(const struct opt_model_entry *models, size_t count,
                            uint8_t *out, size_t capacity)
{
    return opt_wire_pack(write_model_table,
                         &(struct model_list){ .models = models, .count = count }, out,
                         capacity);
}

/* ---------------------------------------------------------------- description */

static enum opt_status read_worker(const struct context *c,
                                   const ProtobufCMessage *message, size_t index,
                                   void *element)
{
    const Optimd__V1__Worker *from = (const Optimd__V1__Worker *)message;
    struct opt_worker_entry *to = element;
    char what[64];
    (void)snprintf(what, sizeof(what), "the name of worker %zu", index);
    enum opt_status status = opt_wire_name(from->name, what, c->error);
    if (status != OPT_OK) {
        return status;
    }
    *to = (struct opt_worker_entry){ .incarnation = from->incarnation,
                                     .connected = from->connected,
                                     .pushed = from->pushed,
                                     .last_sequence = from->last_sequence,
                                     .last_step = from->last_step,
                                     .applied = from->applied,
                                     .duplicates = from->duplicates,
                                     .refused = from->refused,
                                     .dropped = from->dropped,
                                     .waits = from->waits,
                                     .waited_us = from->waited_us,
                                     .resting = from->resting,
                                     .away = from->away,
                                     .resends = from->resends,
                                     .reconnects = from->reconnects };
    for (size_t i = 0; i < from->n_staleness; i++) {
        size_t last = OPT_STALENESS_BUCKETS - 1;
        to->staleness[i < last ? i : last] += from->staleness[i];
    }
    return copy_text(c->arena, from->name, &to->name, c->error);
}

static enum opt_status read_changes(const struct context *c,
                                    const Optimd__V1__ModelDescription *from,
                                    struct opt_description *to)
{
    struct opt_change_entry *changes =
        opt_wire_array(c->arena, from->n_changes, sizeof(*changes), c->error);
    if (changes == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    for (size_t i = 0; i < from->n_changes; i++) {
        changes[i] = (struct opt_change_entry){ .step = from->changes[i]->step,
                                                .before = from->changes[i]->before,
                                                .after = from->changes[i]->after };
    }
    to->changes = changes;
    to->change_count = from->n_changes;
    return OPT_OK;
}

/* Everything but tensors and workers, as one message. */
static enum opt_status read_rest(const struct context *c, const uint8_t *data,
                                 size_t size, struct opt_description *to)
{
    uint8_t *rest = opt_wire_array(c->arena, size, 1, c->error);
    if (rest == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    size_t rest_size = 0;
    struct opt_walk walk = { .bytes = data, .size = size };
    while (opt_walk_next(&walk)) {
        if (walk.field.number != DESCRIPTION_TENSORS &&
            walk.field.number != DESCRIPTION_WORKERS) {
            size_t whole = walk.field.head + (size_t)walk.field.size;
            memcpy(rest + rest_size, walk.start, whole);
            rest_size += whole;
        }
    }
    ProtobufCMessage *message = NULL;
    enum opt_status status =
        opt_wire_unpack(&optimd__v1__model_description__descriptor, rest, rest_size,
                        c->arena, &message, c->error);
    if (status != OPT_OK) {
        return status;
    }
    const Optimd__V1__ModelDescription *from =
        (const Optimd__V1__ModelDescription *)message;
    if (from->summary == NULL) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "a model's description has no summary");
    }
    status = read_model(c, &from->summary->base, 0, &to->summary);
    if (status == OPT_OK) {
        status =
            opt_wire_consistency_read(from->consistency, &to->consistency, c->error);
    }
    for (size_t i = 0; status == OPT_OK && i < from->n_slots; i++) {
        status = opt_wire_name(from->slots[i], "ModelDescription.slots", c->error);
    }
    if (status == OPT_OK) {
        status = read_changes(c, from, to);
    }
    to->ready = from->ready;
    to->epoch = from->epoch;
    to->lr = from->lr;
    to->bytes = from->bytes;
    to->rounds_skipped = from->rounds_skipped;
    to->rounds = from->rounds;
    to->dropped = from->dropped;
    to->mean_staleness = from->mean_staleness;
    to->checkpoint_steps = from->checkpoint_steps;
    to->slots = (const char *const *)from->slots;
    to->slot_count = from->n_slots;
    return status;
}

enum opt_status opt_description_read(const uint8_t *data, size_t size,
                                     struct opt_arena *arena,
                                     struct opt_description *out,
                                     struct opt_error *error)
{
    enum opt_status status = opt_wire_scan(&optimd__v1__model_description__descriptor,
                                           data, size, NULL, error);
    if (status != OPT_OK) {
        return status;
    }
    struct context c = { .arena = arena, .error = error };
    struct opt_description read = { .bytes = 0 };
    status = read_rest(&c, data, size, &read);
    if (status != OPT_OK) {
        return status;
    }
    struct opt_tensor_entry *tensors = NULL;
    status =
        read_tensors(&c, DESCRIPTION_TENSORS, data, size, &tensors, &read.tensor_count);
    if (status != OPT_OK) {
        return status;
    }
    void *workers = NULL;
    status = read_entries(
        &c,
        &(struct entry_kind){ .number = DESCRIPTION_WORKERS,
                              .size = sizeof(struct opt_worker_entry),
                              .descriptor = &optimd__v1__worker__descriptor,
                              .read = read_worker },
        data, size, &workers, &read.worker_count);
    if (status != OPT_OK) {
        return status;
    }
    read.tensors = tensors;
    read.workers = workers;
    *out = read;
    return OPT_OK;
}

static void write_worker(struct opt_writer *writer, const void *what)
{
    const struct opt_worker_entry *worker = what;
    Optimd__V1__Worker message = OPTIMD__V1__WORKER__INIT;
    message.name = opt_wire_text(worker->name);
    message.incarnation = worker->incarnation;
    message.connected = worker->connected;
    message.pushed = worker->pushed;
    message.last_sequence = worker->last_sequence;
    message.last_step = worker->last_step;
    message.applied = worker->applied;
    message.duplicates = worker->duplicates;
    message.refused = worker->refused;
    message.dropped = worker->dropped;
    message.waits = worker->waits;
    message.waited_us = worker->waited_us;
    message.staleness = (uint64_t *)(uintptr_t)worker->staleness;
    message.n_staleness = OPT_STALENESS_BUCKETS;
    while (message.n_staleness > 0 && worker->staleness[message.n_staleness - 1] == 0) {
        message.n_staleness--;
    }
    message.resting = worker->resting;
    message.away = worker->away;
    message.resends = worker->resends;
    message.reconnects = worker->reconnects;
    opt_write_fields(writer, &message.base);
}

static void write_change(struct opt_writer *writer, const void *what)
{
    const struct opt_change_entry *change = what;
    Optimd__V1__Change message = OPTIMD__V1__CHANGE__INIT;
    message.step = change->step;
    message.before = opt_wire_text(change->before);
    message.after = opt_wire_text(change->after);
    opt_write_fields(writer, &message.base);
}

/* A description is written item by item: what comes before the tensors, these, the
 * workers, the changes, and what comes in between and after. */
static void write_head(struct opt_writer *writer,
                       const struct opt_description *description)
{
    opt_write_nested(writer, DESCRIPTION_SUMMARY, write_model, &description->summary);
    opt_write_nested(writer, DESCRIPTION_CONSISTENCY, opt_write_consistency,
                     &description->consistency);
    Optimd__V1__ModelDescription message = OPTIMD__V1__MODEL_DESCRIPTION__INIT;
    message.ready = description->ready;
    message.epoch = description->epoch;
    message.lr = description->lr;
    message.bytes = description->bytes;
    message.n_slots = description->slot_count;
    message.slots = (char **)(uintptr_t)description->slots;
    opt_write_fields(writer, &message.base);
}

static void write_tail(struct opt_writer *writer,
                       const struct opt_description *description)
{
    Optimd__V1__ModelDescription message = OPTIMD__V1__MODEL_DESCRIPTION__INIT;
    message.rounds = description->rounds;
    message.dropped = description->dropped;
    message.mean_staleness = description->mean_staleness;
    message.checkpoint_steps = description->checkpoint_steps;
    opt_write_fields(writer, &message.base);
}

static struct opt_tensor_entry tensor_of(const struct opt_description *description,
                                         size_t i)
{
    return description->tensor_of != NULL ? description->tensor_of(description->of, i)
                                          : description->tensors[i];
}

static size_t count_items(const struct opt_description *description)
{
    return 1 + description->tensor_count + description->worker_count + 1 +
           description->change_count + 1;
}

static void write_item(struct opt_writer *writer,
                       const struct opt_description *description, size_t item)
{
    if (item == 0) {
        write_head(writer, description);
        return;
    }
    item -= 1;
    if (item < description->tensor_count) {
        struct opt_tensor_entry tensor = tensor_of(description, item);
        opt_write_nested(writer, DESCRIPTION_TENSORS, write_tensor, &tensor);
        return;
    }
    item -= description->tensor_count;
    if (item < description->worker_count) {
        opt_write_nested(writer, DESCRIPTION_WORKERS, write_worker,
                         &description->workers[item]);
        return;
    }
    item -= description->worker_count;
    if (item == 0) {
        Optimd__V1__ModelDescription between = OPTIMD__V1__MODEL_DESCRIPTION__INIT;
        between.rounds_skipped = description->rounds_skipped;
        opt_write_fields(writer, &between.base);
    } else if (item - 1 < description->change_count) {
        opt_write_nested(writer, DESCRIPTION_CHANGES, write_change,
                         &description->changes[item - 1]);
    } else {
        write_tail(writer, description);
    }
}

bool opt_description_pack_some(const struct opt_description *description, size_t *item,
                               size_t items, size_t bytes, uint8_t *out, size_t *size)
{
    struct opt_writer writer = { .out = out == NULL ? NULL : out + *size };
    size_t last = count_items(description);
    for (; *item < last && items > 0 && writer.size < bytes; items--) {
        write_item(&writer, description, (*item)++);
    }
    *size += writer.size;
    return *item == last;
}

static void write_description(struct opt_writer *writer, const void *what)
{
    for (size_t i = 0; i < count_items(what); i++) {
        write_item(writer, what, i);
    }
}

size_t opt_description_pack(const struct opt_description *description, uint8_t *out,
                            size_t capacity)
{
    return opt_wire_pack(write_description, description, out, capacity);
}
