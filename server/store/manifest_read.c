/* manifest_read — JSON to a manifest, checked (manifest.h). */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/name.h"
#include "server/store/manifest.h"
#include "server/store/window_text.h"

/* A manifest that was read, and what it points into. */
struct read_manifest {
    struct manifest manifest;
    json_t *root;
    struct manifest_tensor *tensors;
    uint64_t *shapes;
    const char **texts; /* of slots and of lost workers */
    struct manifest_change *changes;
    struct manifest_member *members;
    struct window *windows;
};

/* Where in the text the reading is, for sentences. */
struct context {
    const char *path;
    const char *part; /* "tensor"; "" at the top */
    size_t index;     /* of it */
    struct opt_error *error;
};

static enum opt_status bad(const struct context *c, const char *key, const char *wanted)
{
    if (c->part[0] == '\0') {
        return opt_fail(c->error, OPT_DATA_LOSS, "%s: \"%s\" is not %s", c->path, key,
                        wanted);
    }
    return opt_fail(c->error, OPT_DATA_LOSS, "%s: \"%s\" of %s %zu is not %s", c->path,
                    key, c->part, c->index, wanted);
}

/* ---------------------------------------------------------------- single values */

static bool read_digits(const char *digits, int base, size_t length, uint64_t *out)
{
    static const char all[] = "0123456789abcdef";
    uint64_t value = 0;
    if (strlen(digits) > length || digits[0] == '\0') {
        return false;
    }
    for (; *digits != '\0'; digits++) {
        const char *digit = strchr(all, *digits);
        if (digit == NULL || digit - all >= base ||
            __builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)(digit - all), &value)) {
            return false;
        }
    }
    *out = value;
    return true;
}

static enum opt_status get_whole(const struct context *c, const json_t *object,
                                 const char *key, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *out = (uint64_t)json_integer_value(value);
        return OPT_OK;
    }
    return json_is_string(value) && read_digits(json_string_value(value), 10, 20, out)
               ? OPT_OK
               : bad(c, key, "a whole number from 0 to 2^64 - 1");
}

/* A number that is at most so much. */
static enum opt_status get_small(const struct context *c, const json_t *object,
                                 const char *key, uint64_t most, uint64_t *out)
{
    enum opt_status status = get_whole(c, object, key, out);
    return status == OPT_OK && *out > most ? bad(c, key, "as small as it must be")
                                           : status;
}

static enum opt_status get_identity(const struct context *c, const json_t *object,
                                    const char *key, uint64_t *out)
{
    const char *digits = json_string_value(json_object_get(object, key));
    return digits != NULL && strlen(digits) == 16 && read_digits(digits, 16, 16, out)
               ? OPT_OK
               : bad(c, key, "16 hexadecimal digits");
}

static enum opt_status get_text(const struct context *c, const json_t *object,
                                const char *key, const char **out)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL || opt_text_good(text, strlen(text)) != strlen(text)) {
        return bad(c, key, "a text without control characters");
    }
    *out = text;
    return OPT_OK;
}

static enum opt_status get_name(const struct context *c, const json_t *object,
                                const char *key, const char **out)
{
    enum opt_status status = get_text(c, object, key, out);
    if (status == OPT_OK && opt_name_check(*out, strlen(*out), key, NULL) != OPT_OK) {
        status = bad(c, key, "a name of 1 to 255 bytes");
    }
    return status;
}

static enum opt_status get_flag(const struct context *c, const json_t *object,
                                const char *key, bool *out)
{
    const json_t *value = json_object_get(object, key);
    *out = json_is_true(value);
    return json_is_boolean(value) ? OPT_OK : bad(c, key, "true or false");
}

static enum opt_status get_real(const struct context *c, const json_t *object,
                                const char *key, double *out)
{
    const json_t *value = json_object_get(object, key);
    *out = json_number_value(value);
    return json_is_number(value) && isfinite(*out) ? OPT_OK : bad(c, key, "a number");
}

/* A list of at most so many. */
static enum opt_status get_list(const struct context *c, const json_t *object,
                                const char *key, size_t most, const json_t **list,
                                size_t *count)
{
    *list = json_object_get(object, key);
    *count = json_array_size(*list);
    return json_is_array(*list) && *count <= most
               ? OPT_OK
               : bad(c, key, "a list that is no longer than it may be");
}

static enum opt_status no_memory(const struct context *c)
{
    return opt_fail(c->error, OPT_RESOURCE_EXHAUSTED, "no memory to read %s", c->path);
}

/* A sequence of readings that ends with the first that fails. */
struct field {
    enum { WHOLE, IDENTITY, TEXT, NAME, FLAG, REAL } kind;
    const char *key;
    void *out;
};

static enum opt_status get_fields(const struct context *c, const json_t *object,
                                  const struct field *fields, size_t count)
{
    enum opt_status status = OPT_OK;
    for (size_t i = 0; status == OPT_OK && i < count; i++) {
        const struct field *f = &fields[i];
        switch (f->kind) {
        case WHOLE:
            status = get_whole(c, object, f->key, f->out);
            break;
        case IDENTITY:
            status = get_identity(c, object, f->key, f->out);
            break;
        case TEXT:
            status = get_text(c, object, f->key, f->out);
            break;
        case NAME:
            status = get_name(c, object, f->key, f->out);
            break;
        case FLAG:
            status = get_flag(c, object, f->key, f->out);
            break;
        case REAL:
            status = get_real(c, object, f->key, f->out);
            break;
        }
    }
    return status;
}

/* ---------------------------------------------------------------- parts */

static enum opt_status read_consistency(const struct context *c, const json_t *root,
                                        struct opt_consistency *out)
{
    const json_t *object = json_object_get(root, "consistency");
    uint64_t mode = 0, loss = 0, atomic = 0, workers = 0, backup = 0, staleness = 0;
    const struct context inside = { c->path, "consistency", 0, c->error };
    enum opt_status status = get_small(&inside, object, "mode", OPT_BOUNDED, &mode);
    if (status == OPT_OK) {
        status = get_small(&inside, object, "loss", OPT_LOSS_FAIL, &loss);
    }
    if (status == OPT_OK) {
        status = get_small(&inside, object, "atomic", OPT_ATOMIC_SHARD, &atomic);
    }
    if (status == OPT_OK) {
        status = get_small(&inside, object, "min_workers", UINT32_MAX, &workers);
    }
    if (status == OPT_OK) {
        status = get_small(&inside, object, "backup", UINT32_MAX, &backup);
    }
    if (status == OPT_OK) {
        status = get_small(&inside, object, "staleness", UINT32_MAX, &staleness);
    }
    const struct field fields[] = {
        { WHOLE, "samples", &out->samples },
        { FLAG, "damping", &out->damping },
        { REAL, "delay_compensation", &out->delay_compensation },
    };
    if (status == OPT_OK) {
        status = get_fields(&inside, object, fields, sizeof fields / sizeof fields[0]);
    }
    if (status == OPT_OK && (workers == 0 || out->delay_compensation < 0)) {
        status = bad(&inside, "min_workers", "at least 1");
    }
    if (status == OPT_OK) {
        out->mode = (enum opt_mode)mode;
        out->loss = (enum opt_loss)loss;
        out->atomic = (enum opt_atomic)atomic;
        out->min_workers = (uint32_t)workers;
        out->backup = (uint32_t)backup;
        out->staleness = (uint32_t)staleness;
    }
    return status;
}

static enum opt_status read_shape(const struct context *c, const json_t *object,
                                  uint64_t *shape, struct opt_tensor_entry *entry)
{
    const json_t *list = json_object_get(object, "shape");
    entry->rank = json_array_size(list);
    entry->elements = 1;
    entry->shape = shape;
    if (!json_is_array(list) || entry->rank > OPT_RANK_MAX ||
        (entry->sparse && entry->rank == 0)) {
        return bad(c, "shape", "a list of at most 8 sizes");
    }
    for (size_t i = 0; i < entry->rank; i++) {
        json_int_t size = json_integer_value(json_array_get(list, i));
        if (size <= 0 ||
            __builtin_mul_overflow(entry->elements, (uint64_t)size, &entry->elements) ||
            entry->elements > OPT_ELEMENTS_MAX) {
            return bad(c, "shape", "sizes of at least 1 with a product that may be");
        }
        shape[i] = (uint64_t)size;
    }
    return OPT_OK;
}

static enum opt_status read_tensors(struct context *c, struct read_manifest *to)
{
    const json_t *list;
    size_t count;
    enum opt_status status =
        get_list(c, to->root, "tensors", OPT_TENSORS_MAX, &list, &count);
    if (status == OPT_OK &&
        (to->tensors = calloc(count + 1, sizeof *to->tensors)) == NULL) {
        status = no_memory(c);
    }
    uint64_t elements = 0;
    if (status == OPT_OK &&
        (to->shapes = calloc(count * OPT_RANK_MAX + 1, sizeof *to->shapes)) == NULL) {
        return no_memory(c);
    }
    for (size_t i = 0; status == OPT_OK && i < count; i++) {
        const struct context inside = { c->path, "tensor", i, c->error };
        const json_t *object = json_array_get(list, i);
        struct manifest_tensor *tensor = &to->tensors[i];
        const struct field fields[] = {
            { NAME, "name", &tensor->entry.name },
            { FLAG, "sparse", &tensor->entry.sparse },
            { WHOLE, "changed", &tensor->entry.step },
            { WHOLE, "updates", &tensor->counters.t },
            { REAL, "mu_product", &tensor->counters.mu_product },
        };
        status = get_fields(&inside, object, fields, sizeof fields / sizeof fields[0]);
        if (status == OPT_OK) {
            status = read_shape(&inside, object, to->shapes + i * OPT_RANK_MAX,
                                &tensor->entry);
            elements += tensor->entry.elements;
        }
        if (status == OPT_OK && elements > OPT_ELEMENTS_MAX) {
            status = bad(&inside, "shape", "small enough beside the tensors before it");
        }
    }
    to->manifest.tensors = to->tensors;
    to->manifest.tensor_count = count;
    return status == OPT_OK && count == 0 ? bad(c, "tensors", "a list of at least one")
                                          : status;
}

static enum opt_status read_changes(struct context *c, struct read_manifest *to)
{
    const json_t *list;
    size_t count;
    enum opt_status status =
        get_list(c, to->root, "changes", MANIFEST_CHANGES, &list, &count);
    if (status == OPT_OK &&
        (to->changes = calloc(count + 1, sizeof *to->changes)) == NULL) {
        status = no_memory(c);
    }
    for (size_t i = 0; status == OPT_OK && i < count; i++) {
        const struct context inside = { c->path, "change", i, c->error };
        struct manifest_change *change = &to->changes[i];
        const struct field fields[] = {
            { WHOLE, "step", &change->step },  { TEXT, "before", &change->before },
            { TEXT, "after", &change->after }, { TEXT, "change", &change->change },
            { FLAG, "done", &change->done },
        };
        status = get_fields(&inside, json_array_get(list, i), fields,
                            sizeof fields / sizeof fields[0]);
    }
    to->manifest.changes = to->changes;
    to->manifest.change_count = count;
    return status;
}

static enum opt_status read_window(const struct context *c, const json_t *object,
                                   struct window *window)
{
    const json_t *inside = json_object_get(object, "window");
    const char *pushes = NULL;
    const struct field fields[] = {
        { WHOLE, "last", &window->last },
        { WHOLE, "newest", &window->newest },
        { TEXT, "pushes", &pushes },
    };
    enum opt_status status =
        get_fields(c, inside, fields, sizeof fields / sizeof fields[0]);
    return status == OPT_OK && !window_text_parse(pushes, window)
               ? bad(c, "pushes", "what a window says of its pushes")
               : status;
}

static enum opt_status read_member(const struct context *c, const json_t *object,
                                   struct manifest_member *to, struct window *window)
{
    struct record_member *state = &to->member;
    const struct field fields[] = {
        { NAME, "name", &to->name },
        { FLAG, "joined", &state->joined },
        { FLAG, "resting", &state->resting },
        { FLAG, "lost", &state->lost },
        { WHOLE, "lost_step", &state->lost_step },
        { WHOLE, "last_step", &state->last_step },
        { WHOLE, "clock", &state->clock },
        { WHOLE, "since", &state->since },
        { IDENTITY, "barrier_session", &state->barrier_session },
        { WHOLE, "barrier_passed", &state->barrier_passed },
    };
    const struct field of_worker[] = {
        { IDENTITY, "session", &to->worker.session },
        { WHOLE, "incarnation", &to->worker.incarnation },
        { FLAG, "lost", &to->worker.lost },
        { TEXT, "lost_why", &to->worker.lost_why },
    };
    const struct field counted[] = {
        { WHOLE, "applied", &to->applied }, { WHOLE, "duplicates", &to->duplicates },
        { WHOLE, "refused", &to->refused }, { WHOLE, "resends", &to->resends },
        { WHOLE, "dropped", &to->dropped },
    };
    enum opt_status status =
        get_fields(c, object, fields, sizeof fields / sizeof fields[0]);
    if (status == OPT_OK) {
        status = get_fields(c, json_object_get(object, "worker"), of_worker,
                            sizeof of_worker / sizeof of_worker[0]);
    }
    if (status == OPT_OK) {
        status = get_fields(c, json_object_get(object, "counted"), counted,
                            sizeof counted / sizeof counted[0]);
    }
    to->window = window;
    return status == OPT_OK ? read_window(c, object, window) : status;
}

static enum opt_status read_members(struct context *c, struct read_manifest *to)
{
    const json_t *list;
    size_t count;
    enum opt_status status =
        get_list(c, to->root, "members", MANIFEST_MEMBERS, &list, &count);
    if (status == OPT_OK &&
        (to->members = calloc(count + 1, sizeof *to->members)) == NULL) {
        status = no_memory(c);
    }
    if (status == OPT_OK &&
        (to->windows = calloc(count + 1, sizeof *to->windows)) == NULL) {
        return no_memory(c);
    }
    for (size_t i = 0; status == OPT_OK && i < count; i++) {
        const struct context inside = { c->path, "member", i, c->error };
        status = read_member(&inside, json_array_get(list, i), &to->members[i],
                             &to->windows[i]);
        if (status == OPT_OK && i > 0 &&
            strcmp(to->members[i - 1].name, to->members[i].name) >= 0) {
            status = bad(&inside, "name", "behind the one before it");
        }
    }
    to->manifest.members = to->members;
    to->manifest.member_count = count;
    return status;
}

/* Both lists of texts, in one piece of memory. */
static enum opt_status read_texts(const struct context *c, struct read_manifest *to)
{
    const char *const keys[] = { "slots", "lost" };
    const size_t most[] = { OPT_SLOTS_MAX, MANIFEST_NAMES };
    size_t count = 0;
    to->texts = calloc(OPT_SLOTS_MAX + MANIFEST_NAMES, sizeof *to->texts);
    if (to->texts == NULL) {
        return no_memory(c);
    }
    for (size_t k = 0; k < 2; k++) {
        const json_t *list;
        size_t here;
        enum opt_status status = get_list(c, to->root, keys[k], most[k], &list, &here);
        if (status != OPT_OK) {
            return status;
        }
        for (size_t i = 0; i < here; i++) {
            const char *text = json_string_value(json_array_get(list, i));
            /* A slot's name becomes that of a file. */
            if (text == NULL ||
                opt_name_check(text, strlen(text), keys[k], NULL) != OPT_OK ||
                (k == 0 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") !=
                               strlen(text))) {
                return bad(c, keys[k], "a list of names");
            }
            to->texts[count + i] = text;
        }
        if (k == 0) {
            to->manifest.slots = to->texts;
            to->manifest.slot_count = here;
        } else {
            to->manifest.lost = to->texts + count;
            to->manifest.lost_count = here;
        }
        count += here;
    }
    return OPT_OK;
}

static enum opt_status read_files(const struct context *c, struct read_manifest *to)
{
    const json_t *list = json_object_get(to->root, "files");
    if (json_array_size(list) != 1 + to->manifest.slot_count) {
        return bad(c, "files", "a list of the weights and the slots");
    }
    enum opt_status status = OPT_OK;
    for (size_t i = 0; status == OPT_OK && i < json_array_size(list); i++) {
        const struct context inside = { c->path, "file", i, c->error };
        struct manifest_file *file = &to->manifest.files[i];
        const struct field fields[] = { { NAME, "name", &file->name },
                                        { WHOLE, "bytes", &file->size },
                                        { IDENTITY, "xxh3", &file->xxh3 } };
        status = get_fields(&inside, json_array_get(list, i), fields,
                            sizeof fields / sizeof fields[0]);
    }
    return status;
}

/* ---------------------------------------------------------------- all of it */

static enum opt_status read_format(const struct context *c, const json_t *root)
{
    uint64_t format;
    const char *by = json_string_value(json_object_get(root, "written_by"));
    enum opt_status status = get_whole(c, root, "format", &format);
    if (status == OPT_OK && format > MANIFEST_FORMAT) {
        return opt_fail(c->error, OPT_UNIMPLEMENTED,
                        "%s has format %" PRIu64
                        "; this optimd knows formats up to %d: "
                        "version %.40s has written it",
                        c->path, format, (int)MANIFEST_FORMAT, by != NULL ? by : "?");
    }
    return status == OPT_OK && format == 0 ? bad(c, "format", "at least 1") : status;
}

static enum opt_status read_all(struct context *c, struct read_manifest *to)
{
    struct manifest *m = &to->manifest;
    const struct field fields[] = {
        { IDENTITY, "directory", &m->directory },
        { WHOLE, "record", &m->record },
        { IDENTITY, "identity", &m->identity },
        { NAME, "name", &m->name },
        { TEXT, "created", &m->created },
        { TEXT, "specification", &m->specification },
        { WHOLE, "checkpoint_steps", &m->checkpoint_steps },
        { WHOLE, "step", &m->step },
        { WHOLE, "changed", &m->changed },
        { WHOLE, "epochs_before", &m->epochs_before },
        { WHOLE, "epochs_from", &m->epochs_from },
        { WHOLE, "rounds_skipped", &m->rounds_skipped },
        { WHOLE, "pushes_applied", &m->pushes_applied },
        { WHOLE, "dropped", &m->dropped },
        { REAL, "staleness_sum", &m->staleness_sum },
        { FLAG, "gathered", &m->gathered },
        { WHOLE, "losses", &m->losses },
    };
    enum opt_status status = read_format(c, to->root);
    if (status == OPT_OK) {
        status = get_fields(c, to->root, fields, sizeof fields / sizeof fields[0]);
    }
    if (status == OPT_OK) {
        status = read_consistency(c, to->root, &m->consistency);
    }
    if (status == OPT_OK) {
        uint64_t durability = 0;
        status = get_small(c, to->root, "durability", OPT_DURABILITY_CHECKPOINT,
                           &durability);
        m->durability = (enum opt_durability)durability;
    }
    if (status == OPT_OK) {
        status = read_texts(c, to);
    }
    if (status == OPT_OK) {
        status = read_files(c, to);
    }
    if (status == OPT_OK) {
        status = read_tensors(c, to);
    }
    if (status == OPT_OK) {
        status = read_changes(c, to);
    }
    return status == OPT_OK ? read_members(c, to) : status;
}

enum opt_status manifest_read(const char *text, size_t size, const char *path,
                              struct manifest **out, struct opt_error *error)
{
    json_error_t problem;
    struct context c = { .path = path, .part = "", .error = error };
    struct read_manifest *read = calloc(1, sizeof *read);
    if (read == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory to read %s", path);
    }
    read->root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
    enum opt_status status =
        json_is_object(read->root)
            ? read_all(&c, read)
            : opt_fail(error, OPT_DATA_LOSS, "%s is not a JSON object: line %d: %.200s",
                       path, read->root == NULL ? problem.line : 1,
                       read->root == NULL ? problem.text : "it is something else");
    if (status != OPT_OK) {
        manifest_free(&read->manifest);
        return status;
    }
    *out = &read->manifest;
    return OPT_OK;
}

void manifest_free(struct manifest *manifest)
{
    struct read_manifest *read = (struct read_manifest *)manifest;
    if (read != NULL) {
        json_decref(read->root);
        free(read->tensors);
        free(read->shapes);
        free(read->texts);
        free(read->changes);
        free(read->members);
        free(read->windows);
        free(read);
    }
}
