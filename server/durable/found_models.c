/* found_models — see found_models.h. */
#include "server/durable/found_models.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "server/store/data_dir.h"
#include "server/store/manifest.h"

enum { READERS_KEPT = 64 /* between finding and reading */ };

static enum opt_status no_memory(struct opt_error *error)
{
    return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                       "no memory to read what is in the data directory");
}

static struct checkpoint_place place_of(const struct found_model *model)
{
    return (struct checkpoint_place){ .folder = model->folder, .path = model->path };
}

/* ---------------------------------------------------------------- finding */

static uint64_t bytes_of(const struct manifest *manifest)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i <= manifest->slot_count; i++) {
        bytes += manifest->files[i].size;
    }
    return bytes;
}

/* What is to be known of the checkpoint before it is read. */
static enum opt_status look_at(struct found_model *model, struct opt_error *error)
{
    enum opt_status status = found_model_open(model, error);
    if (status != OPT_OK) {
        return status;
    }
    const struct manifest *manifest = checkpoint_manifest(model->reader);
    free(model->name);
    model->name = strdup(manifest->name);
    model->step = manifest->step;
    model->record = manifest->record;
    model->bytes = bytes_of(manifest);
    model->checkpoints_only = manifest->durability == OPT_DURABILITY_CHECKPOINT;
    if (model->name == NULL) {
        return no_memory(error);
    }
    if (manifest->identity != model->identity) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "%s/%s is a checkpoint of model %016" PRIx64
                        ", not of %016" PRIx64 ": put it where it came from",
                        model->path, model->checkpoints[model->at].name,
                        manifest->identity, model->identity);
    }
    return OPT_OK;
}

bool found_model_fall_back(const struct found_models *found, struct found_model *model,
                           const struct opt_error *error)
{
    bool damaged = error->status == OPT_DATA_LOSS || error->status == OPT_UNIMPLEMENTED;
    if (!found->previous || !damaged) {
        return false;
    }
    found_model_close(model);
    opt_log(OPT_LOG_WARN, "checkpoint_damaged", "checkpoint=%s/%s why=%s", model->path,
            model->checkpoints[model->at].name, error->text);
    model->at++;
    return true;
}

/* Take the newest checkpoint that can be opened; true: there is one. */
static bool choose(const struct found_models *found, struct found_model *model,
                   enum opt_status *status, struct opt_error *error)
{
    while (model->at < model->count) {
        const struct checkpoint_entry *entry = &model->checkpoints[model->at];
        *status = entry->error.status;
        if (*status != OPT_OK) {
            *error = entry->error;
        } else {
            *status = look_at(model, error);
        }
        if (*status == OPT_OK) {
            return true;
        }
        if (!found_model_fall_back(found, model, error)) {
            return false;
        }
    }
    *status = OPT_OK;
    return false;
}

static enum opt_status find_one(struct found_models *found, uint64_t identity,
                                struct opt_error *error)
{
    struct found_model *model = &found->list[found->count++];
    *model = (struct found_model){ .identity = identity, .folder = -1 };
    enum opt_status status = data_dir_model(found->dir, identity, false, &model->folder,
                                            &model->path, error);
    if (status != OPT_OK) {
        model->folder = -1;
        return status;
    }
    const struct checkpoint_place place = place_of(model);
    status = checkpoint_list(&place, &model->checkpoints, &model->count, error);
    if (status != OPT_OK) {
        model->checkpoints = NULL;
        return status;
    }
    if (choose(found, model, &status, error)) {
        found->bytes += model->bytes;
        if (found->count > READERS_KEPT) {
            found_model_close(model);
        }
    } else if (status == OPT_OK) {
        model->absent = true;
    }
    return status;
}

static int by_record(const void *a, const void *b)
{
    const struct found_model *one = a, *other = b;
    if (one->record != other->record) {
        return one->record < other->record ? -1 : 1;
    }
    return one->identity < other->identity ? -1 : one->identity > other->identity;
}

/* Of two models of one name the earlier one has been deleted, and only its folder has
 * not gone yet. */
static void pass_over_earlier(struct found_models *found)
{
    for (size_t i = 0; i < found->count; i++) {
        struct found_model *model = &found->list[i];
        for (size_t k = i + 1;
             k < found->count && !model->absent && !model->passed_over; k++) {
            const struct found_model *later = &found->list[k];
            if (!later->absent && !later->passed_over &&
                strcmp(later->name, model->name) == 0) {
                model->passed_over = true;
                found->bytes -= model->bytes;
                opt_log(OPT_LOG_WARN, "model_passed_over",
                        "model=%s identity=%016" PRIx64 " step=%" PRIu64 " why=%s",
                        model->name, model->identity, model->step,
                        "a model of the same name was made later");
            }
        }
    }
}

enum opt_status found_models_find(struct found_models *found, struct opt_error *error)
{
    uint64_t *identities;
    size_t count;
    enum opt_status status = data_dir_models(found->dir, &identities, &count, error);
    if (status != OPT_OK) {
        return status;
    }
    found->list = calloc(count + 1, sizeof *found->list);
    if (found->list == NULL) {
        status = no_memory(error);
    }
    for (size_t i = 0; i < count && status == OPT_OK; i++) {
        status = find_one(found, identities[i], error);
    }
    free(identities);
    if (status == OPT_OK) {
        qsort(found->list, found->count, sizeof *found->list, by_record);
        pass_over_earlier(found);
    }
    return status;
}

void found_models_fini(struct found_models *found)
{
    for (size_t i = 0; i < found->count; i++) {
        struct found_model *model = &found->list[i];
        found_model_close(model);
        if (model->folder >= 0) {
            close(model->folder);
        }
        free(model->path);
        free(model->checkpoints);
        free(model->name);
    }
    free(found->list);
    found->list = NULL;
    found->count = 0;
}

/* ---------------------------------------------------------------- reading */

enum opt_status found_model_open(struct found_model *model, struct opt_error *error)
{
    const struct checkpoint_place place = place_of(model);
    enum opt_status status = OPT_OK;
    if (model->reader == NULL) {
        status = checkpoint_open(&place, model->checkpoints[model->at].name,
                                 &model->reader, error);
    }
    if (status == OPT_OK && model->table.data == NULL &&
        !remaking_table_of(checkpoint_manifest(model->reader), &model->table)) {
        status = no_memory(error);
    }
    return status;
}

void found_model_close(struct found_model *model)
{
    checkpoint_close(model->reader);
    free(model->table.data);
    model->reader = NULL;
    model->table.data = NULL;
}

struct sink {
    struct found_models *found;
    struct model *model;
    size_t array;
};

static void take(void *context, size_t tensor, uint64_t element, const float *values,
                 size_t n)
{
    const struct sink *sink = context;
    if (!atomic_load_explicit(&sink->found->stopping, memory_order_relaxed)) {
        remaking_value(sink->model, sink->array, tensor, element, values, n);
    }
    atomic_fetch_add_explicit(&sink->found->read, n * sizeof *values,
                              memory_order_relaxed);
}

enum opt_status found_model_read(struct found_models *found, struct found_model *model,
                                 struct opt_error *error)
{
    struct sink sink = { .found = found, .model = model->model };
    const struct checkpoint_sink into = { .take = take, .context = &sink };
    size_t arrays = 1 + checkpoint_manifest(model->reader)->slot_count;
    enum opt_status status = OPT_OK;
    for (; sink.array < arrays && status == OPT_OK; sink.array++) {
        if (atomic_load(&found->stopping)) {
            return opt_fail(error, OPT_CANCELLED, "the daemon is stopping");
        }
        status = checkpoint_read(model->reader, sink.array, &into, error);
    }
    return status;
}
