/* Models to files and back. */
#define _GNU_SOURCE /* memmem */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "client/api.h"
#include "client/client.h"
#include "client/open_model.h"
#include "client/weights_file.h"

enum { NS_PER_MS = 1000000, STEP_TEXT = 24 };

static const char *const view_names[] = {
    [OPTCLIENT_TRAIN] = "train", [OPTCLIENT_EVAL] = "eval"
};
static const char slots_key[] = "slots"; /* in a file's metadata: their names */

/* ------------------------------------------------------------------------- exporting
 */

/* What goes into the file: slots first, which are fp32, then weights. */
struct exporting {
    struct optclient_model *model;
    const struct optclient_export_options *options;
    const struct optclient_description *description;
    struct opt_safetensors_entry *entries;
    size_t entry_count, slot_count, tensors;
    char *names, *slots; /* memory of the entries' names; those of slots */
    struct weights_writer writer;
    struct weights_room room; /* weights that are not fp32 in the file */
    struct optclient_values *values;
    uint64_t deadline_ns;
};

static enum optclient_status no_memory(void)
{
    return api_fail(OPT_RESOURCE_EXHAUSTED, "no memory to write a model to a file");
}

static enum opt_safetensors_type type_of(enum optclient_dtype dtype)
{
    return dtype == OPTCLIENT_BF16   ? OPT_SAFETENSORS_BF16
           : dtype == OPTCLIENT_FP16 ? OPT_SAFETENSORS_F16
                                     : OPT_SAFETENSORS_F32;
}

static void set_entry(struct opt_safetensors_entry *entry, const char *name,
                      enum opt_safetensors_type type,
                      const struct optclient_tensor *tensor)
{
    *entry = (struct opt_safetensors_entry){ .name = name,
                                             .type = type,
                                             .rank = tensor->rank };
    for (size_t i = 0; i < tensor->rank; i++) {
        entry->shape[i] = tensor->shape[i];
    }
}

/* The entries of all slots, named TENSOR.SLOT, and of the weights. */
static bool list_entries(struct exporting *exporting)
{
    size_t bytes = 1, slots_bytes = 1, count = exporting->tensors;
    const char *const *slots = exporting->description->slots;
    for (size_t s = 0; s < exporting->slot_count; s++) {
        slots_bytes += strlen(slots[s]) + 1;
        for (size_t i = 0; i < count; i++) {
            bytes += strlen(optclient_model_tensor(exporting->model, i)->name) +
                     strlen(slots[s]) + 2;
        }
    }
    exporting->entry_count = (exporting->slot_count + 1) * count;
    exporting->entries = calloc(exporting->entry_count, sizeof *exporting->entries);
    exporting->names = malloc(bytes);
    exporting->slots = calloc(1, slots_bytes);
    exporting->values = calloc(count, sizeof *exporting->values);
    if (exporting->entries == NULL || exporting->names == NULL ||
        exporting->slots == NULL || exporting->values == NULL) {
        return false;
    }
    struct opt_safetensors_entry *entry = exporting->entries;
    char *name = exporting->names;
    for (size_t s = 0; s < exporting->slot_count; s++) {
        snprintf(exporting->slots + strlen(exporting->slots),
                 slots_bytes - strlen(exporting->slots), "%s%s", s > 0 ? " " : "",
                 slots[s]);
        for (size_t i = 0; i < count; i++) {
            const struct optclient_tensor *tensor =
                optclient_model_tensor(exporting->model, i);
            size_t left = bytes - (size_t)(name - exporting->names);
            int size = snprintf(name, left, "%s.%s", tensor->name, slots[s]);
            set_entry(entry++, name, OPT_SAFETENSORS_F32, tensor);
            name += size + 1;
        }
    }
    for (size_t i = 0; i < count; i++) {
        const struct optclient_tensor *tensor =
            optclient_model_tensor(exporting->model, i);
        set_entry(entry++, tensor->name, type_of(exporting->options->dtype), tensor);
    }
    return true;
}

/* Pull all tensors to where their entries are, from the first on; memory NULL: in the
 * file. */
static enum optclient_status pull_all(struct exporting *exporting, size_t first,
                                      const char *slot, float *memory,
                                      struct optclient_result *result)
{
    struct optclient_pull_options pull = {
        .view = slot != NULL ? OPTCLIENT_SLOT : exporting->options->view, .slot = slot
    };
    uint64_t now = uv_hrtime();
    pull.timeout_ms = now < exporting->deadline_ns
                          ? (uint32_t)((exporting->deadline_ns - now) / NS_PER_MS) + 1
                          : 1;
    for (size_t i = 0; i < exporting->tensors; i++) {
        const struct opt_safetensors_entry *entry = &exporting->entries[first + i];
        float *values = memory;
        if (memory != NULL) {
            memory += entry->count;
        } else {
            values = (float *)(void *)(exporting->writer.values + entry->offset);
        }
        exporting->values[i] =
            (struct optclient_values){ .tensor = i, .values = values };
    }
    return optclient_pull(exporting->model, exporting->values, exporting->tensors,
                          &pull, result);
}

/* Pull everything once. *same: it is of one step. */
static enum optclient_status pull_once(struct exporting *exporting, bool *same,
                                       struct optclient_result *result)
{
    size_t weights = exporting->slot_count * exporting->tensors;
    enum optclient_status status =
        pull_all(exporting, weights, NULL, exporting->room.floats, result);
    *same = true;
    for (size_t s = 0; s < exporting->slot_count && status == OPTCLIENT_OK; s++) {
        struct optclient_result of_slot;
        status = pull_all(exporting, s * exporting->tensors,
                          exporting->description->slots[s], NULL, &of_slot);
        *same = *same && of_slot.step == result->step;
    }
    return status;
}

/* Everything of one step: while the model is updated, slots are those of another step
 * than the weights, and are asked for again. */
static enum optclient_status pull_consistent(struct exporting *exporting,
                                             struct optclient_result *result)
{
    for (;;) {
        bool same;
        enum optclient_status status = pull_once(exporting, &same, result);
        if (status != OPTCLIENT_OK || same) {
            return status;
        }
        if (uv_hrtime() >= exporting->deadline_ns) {
            return api_fail(OPT_DEADLINE_EXCEEDED,
                            "model \"%s\" is updated faster than its weights and slots "
                            "can be read one after another: export it while nobody "
                            "pushes, or take a checkpoint of it",
                            exporting->model->name);
        }
    }
}

/* Weights that are not fp32 in the file go there now. */
static void narrow(struct exporting *exporting)
{
    const float *from = exporting->room.floats;
    for (size_t i = 0; from != NULL && i < exporting->tensors; i++) {
        const struct opt_safetensors_entry *entry =
            &exporting->entries[exporting->slot_count * exporting->tensors + i];
        opt_dtype_narrow((enum opt_dtype)exporting->options->dtype, from,
                         exporting->writer.values + entry->offset,
                         (size_t)entry->count);
        from += entry->count;
    }
}

static uint64_t count_beyond(const struct exporting *exporting)
{
    const float *from = exporting->room.floats;
    uint64_t held = 0;
    for (size_t i = 0; from != NULL && i < exporting->tensors; i++) {
        size_t n =
            (size_t)exporting->entries[exporting->slot_count * exporting->tensors + i]
                .count;
        held +=
            opt_dtype_count_beyond((enum opt_dtype)exporting->options->dtype, from, n);
        from += n;
    }
    return held;
}

/* The step stands in the header, which is written before it is known: in a field of a
 * fixed width. */
static void write_step(struct exporting *exporting, uint64_t step)
{
    char text[STEP_TEXT + 1];
    static const char key[] = "\"step\":\"";
    size_t size = (size_t)(exporting->writer.values - exporting->writer.mapped);
    char *at = memmem(exporting->writer.mapped, size, key, sizeof key - 1);
    snprintf(text, sizeof text, "%-*" PRIu64, STEP_TEXT, step);
    if (at != NULL) {
        memcpy(at + sizeof key - 1, text, STEP_TEXT);
    }
}

static enum optclient_status write_all(struct exporting *exporting, const char *path,
                                       struct optclient_result *result)
{
    struct opt_error error;
    char blank[STEP_TEXT + 1];
    snprintf(blank, sizeof blank, "%*s", STEP_TEXT, "");
    const struct opt_safetensors_pair metadata[] = {
        { "format", "pt" },
        { "step", blank },
        { "view", view_names[exporting->options->view] },
        { "specification", exporting->description->specification },
        { slots_key, exporting->slots },
    };
    if (weights_writer_open(&exporting->writer, path, exporting->entries,
                            exporting->entry_count, metadata,
                            sizeof metadata / sizeof metadata[0], &error) != OPT_OK ||
        (exporting->options->dtype != OPTCLIENT_FP32 &&
         weights_room_new(&exporting->room, exporting->description->parameters,
                          &error) != OPT_OK)) {
        return api_report(&error);
    }
    enum optclient_status status = pull_consistent(exporting, result);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    result->held += count_beyond(exporting);
    narrow(exporting);
    write_step(exporting, result->step);
    return weights_writer_finish(&exporting->writer, &error) == OPT_OK
               ? OPTCLIENT_OK
               : api_report(&error);
}

static enum optclient_status export_model(struct exporting *exporting, const char *path,
                                          struct optclient_result *result)
{
    struct optclient_description *description = NULL;
    enum optclient_status status = optclient_describe(
        exporting->model->client, exporting->model->name, &description);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    exporting->description = description;
    exporting->tensors = optclient_model_tensors(exporting->model);
    exporting->slot_count =
        exporting->options->slots != 0 ? description->slot_count : 0;
    status = list_entries(exporting) ? write_all(exporting, path, result) : no_memory();
    weights_writer_close(&exporting->writer);
    weights_room_free(&exporting->room);
    free(exporting->entries);
    free(exporting->names);
    free(exporting->slots);
    free(exporting->values);
    optclient_description_free(description);
    return status;
}

enum optclient_status optclient_export(struct optclient *client, const char *name,
                                       const char *path,
                                       const struct optclient_export_options *options,
                                       struct optclient_result *result)
{
    static const struct optclient_export_options defaults;
    struct optclient_result own;
    struct exporting exporting = { .options = options != NULL ? options : &defaults,
                                   .writer = { .file = -1 } };
    enum optclient_status status = api_check(client);
    if (status == OPTCLIENT_OK) {
        status = api_reserved(exporting.options->reserved, RESERVED(exporting.options),
                              "export options");
    }
    if (status != OPTCLIENT_OK) {
        return status;
    }
    if (path == NULL || path[0] == '\0') {
        return api_fail(OPT_INVALID_ARGUMENT, "a model is exported to a file's path");
    }
    if (exporting.options->view != OPTCLIENT_TRAIN &&
        exporting.options->view != OPTCLIENT_EVAL) {
        return api_fail(
            OPT_INVALID_ARGUMENT,
            "view %d cannot be exported; TRAIN and EVAL can, and slots with "
            "either",
            (int)exporting.options->view);
    }
    if ((unsigned)exporting.options->dtype > OPTCLIENT_FP16) {
        return api_fail(OPT_INVALID_ARGUMENT, "%d is not a dtype",
                        (int)exporting.options->dtype);
    }
    uint32_t timeout_ms = exporting.options->timeout_ms != 0
                              ? exporting.options->timeout_ms
                              : client->settings.timeout_ms;
    exporting.deadline_ns = uv_hrtime() + (uint64_t)timeout_ms * NS_PER_MS;
    status = optclient_open(client, name, 0, &exporting.model);
    if (status == OPTCLIENT_OK) {
        status = export_model(&exporting, path, result != NULL ? result : &own);
        char why[OPT_ERROR_TEXT];
        snprintf(why, sizeof why, "%s", optclient_error());
        optclient_model_close(exporting.model);
        if (status != OPTCLIENT_OK) { /* closing leaves no sentence of its own */
            status = api_fail((enum opt_status)status, "%s", why);
        }
    }
    return status;
}

/* ------------------------------------------------------------------------- importing
 */

struct importing {
    const struct optclient_import_options *options;
    struct weights_reader reader;
    struct weights_room room;
    struct optclient_tensor *tensors;
    const float **initial;
    size_t count;
};

/* Whether an entry is a slot of another entry, as an export writes it: it is not a
 * tensor of the model. */
static bool is_slot(const struct opt_safetensors *header, const char *name)
{
    const char *slots = opt_safetensors_metadata(header, slots_key);
    const char *dot = strrchr(name, '.');
    if (slots == NULL || dot == NULL) {
        return false;
    }
    size_t size = strlen(dot + 1);
    for (const char *slot = slots; *slot != '\0';
         slot += strcspn(slot, " "), slot += strspn(slot, " ")) {
        if (strcspn(slot, " ") == size && strncmp(slot, dot + 1, size) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_sparse(const struct optclient_import_options *options, const char *name)
{
    for (size_t i = 0; i < options->sparse_count; i++) {
        if (strcmp(options->sparse[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static enum optclient_status take_tensors(struct importing *importing)
{
    const struct opt_safetensors *header = importing->reader.header;
    size_t count = opt_safetensors_count(header);
    struct opt_error error;
    uint64_t floats = 0;
    importing->tensors = calloc(count + 1, sizeof *importing->tensors);
    importing->initial = calloc(count + 1, sizeof *importing->initial);
    if (importing->tensors == NULL || importing->initial == NULL) {
        return api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for %zu tensors", count);
    }
    for (size_t i = 0; i < count; i++) {
        floats += opt_safetensors_entry(header, i)->count;
    }
    if (weights_room_new(&importing->room, floats, &error) != OPT_OK) {
        return api_report(&error);
    }
    float *at = importing->room.floats;
    for (size_t i = 0; i < count; i++) {
        const struct opt_safetensors_entry *entry = opt_safetensors_entry(header, i);
        if (is_slot(header, entry->name)) {
            continue;
        }
        if (weights_reader_values(&importing->reader, entry, at, &error) != OPT_OK) {
            return api_report(&error);
        }
        importing->tensors[importing->count] =
            (struct optclient_tensor){ .name = entry->name,
                                       .shape = entry->shape,
                                       .rank = entry->rank,
                                       .sparse =
                                           is_sparse(importing->options, entry->name) };
        importing->initial[importing->count++] = at;
        at += entry->count;
    }
    for (size_t i = 0; i < importing->options->sparse_count; i++) {
        if (opt_safetensors_find(header, importing->options->sparse[i]) == NULL) {
            return api_fail(OPT_INVALID_ARGUMENT,
                            "%s has no tensor \"%s\" that could be sparse",
                            importing->reader.path, importing->options->sparse[i]);
        }
    }
    return OPTCLIENT_OK;
}

static enum optclient_status import_model(struct importing *importing,
                                          struct optclient *client, const char *name,
                                          const char *specification,
                                          const struct optclient_policy *policy,
                                          struct optclient_model **out)
{
    struct optclient_model *model = NULL;
    enum optclient_status status = take_tensors(importing);
    if (status == OPTCLIENT_OK) {
        status =
            optclient_create(client, name, specification, policy, importing->tensors,
                             importing->count, importing->initial, &model);
    }
    if (status == OPTCLIENT_OK && model->made != model->identity) {
        optclient_model_close(model);
        return api_fail(OPT_ALREADY_EXISTS,
                        "model \"%s\" is there already, and has its weights: nothing "
                        "was imported; delete it first, or give another name",
                        name);
    }
    if (status == OPTCLIENT_OK) {
        *out = model;
    }
    return status;
}

enum optclient_status optclient_import(struct optclient *client, const char *name,
                                       const char *specification,
                                       const struct optclient_policy *policy,
                                       const char *path,
                                       const struct optclient_import_options *options,
                                       struct optclient_model **out)
{
    static const struct optclient_import_options defaults;
    struct importing importing = { .options = options != NULL ? options : &defaults,
                                   .reader = { .file = -1 } };
    struct opt_error error;
    enum optclient_status status = api_check(client);
    if (status == OPTCLIENT_OK) {
        status = api_reserved(importing.options->reserved, RESERVED(importing.options),
                              "import options");
    }
    if (status != OPTCLIENT_OK) {
        return status;
    }
    if (path == NULL || path[0] == '\0') {
        return api_fail(OPT_INVALID_ARGUMENT, "a model is imported from a file's path");
    }
    status = weights_reader_open(&importing.reader, path, &error) == OPT_OK
                 ? import_model(&importing, client, name, specification, policy, out)
                 : api_report(&error);
    weights_reader_close(&importing.reader);
    weights_room_free(&importing.room);
    free(importing.tensors);
    free(importing.initial);
    return status;
}
