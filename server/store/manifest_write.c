/* manifest_write — a manifest to JSON (manifest.h). */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/store/manifest.h"
#include "server/store/window_text.h"

/* JSON's numbers end at 2^63 - 1 for who reads them as whole numbers; what is larger is
 * written as a string of its digits. */
static json_t *whole(uint64_t value)
{
    char digits[24];
    if (value <= INT64_MAX) {
        return json_integer((json_int_t)value);
    }
    snprintf(digits, sizeof digits, "%" PRIu64, value);
    return json_string(digits);
}

/* 16 hexadecimal digits. */
static json_t *identity(uint64_t value)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%016" PRIx64, value);
    return json_string(digits);
}

static json_t *text(const char *string)
{
    return json_string(string != NULL ? string : "");
}

static json_t *texts(const char *const *strings, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        if (json_array_append_new(list, text(strings[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *print_consistency(const struct opt_consistency *c)
{
    return json_pack("{s:i, s:i, s:o, s:o, s:o, s:o, s:b, s:f, s:i}", "mode",
                     (int)c->mode, "loss", (int)c->loss, "min_workers",
                     whole(c->min_workers), "samples", whole(c->samples), "backup",
                     whole(c->backup), "staleness", whole(c->staleness), "damping",
                     c->damping, "delay_compensation", c->delay_compensation, "atomic",
                     (int)c->atomic);
}

static json_t *print_tensor(const struct manifest_tensor *tensor)
{
    const struct opt_tensor_entry *entry = &tensor->entry;
    json_t *shape = json_array();
    for (size_t i = 0; i < entry->rank; i++) {
        if (json_array_append_new(shape, whole(entry->shape[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    }
    return json_pack("{s:o, s:o, s:b, s:o, s:o, s:f}", "name", text(entry->name),
                     "shape", shape, "sparse", entry->sparse, "changed",
                     whole(entry->step), "updates", whole(tensor->counters.t),
                     "mu_product", tensor->counters.mu_product);
}

static json_t *print_change(const struct manifest_change *change)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:b}", "step", whole(change->step), "before",
                     text(change->before), "after", text(change->after), "change",
                     text(change->change), "done", change->done);
}

static json_t *print_window(const struct window *window)
{
    char *pushes = window_text_print(window);
    json_t *printed =
        pushes == NULL ? NULL
                       : json_pack("{s:o, s:o, s:s}", "last", whole(window->last),
                                   "newest", whole(window->newest), "pushes", pushes);
    free(pushes);
    return printed;
}

static json_t *print_member(const struct manifest_member *member)
{
    const struct record_member *state = &member->member;
    json_t *worker =
        json_pack("{s:o, s:o, s:b, s:o}", "session", identity(member->worker.session),
                  "incarnation", whole(member->worker.incarnation), "lost",
                  member->worker.lost, "lost_why", text(member->worker.lost_why));
    json_t *counted = json_pack(
        "{s:o, s:o, s:o, s:o, s:o}", "applied", whole(member->applied), "duplicates",
        whole(member->duplicates), "refused", whole(member->refused), "resends",
        whole(member->resends), "dropped", whole(member->dropped));
    return json_pack(
        "{s:o, s:o, s:o, s:b, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
        text(member->name), "worker", worker, "counted", counted, "joined",
        state->joined, "resting", state->resting, "lost", state->lost, "lost_step",
        whole(state->lost_step), "last_step", whole(state->last_step), "clock",
        whole(state->clock), "since", whole(state->since), "barrier_session",
        identity(state->barrier_session), "barrier_passed",
        whole(state->barrier_passed), "window", print_window(member->window));
}

static json_t *print_file(const struct manifest_file *file)
{
    return json_pack("{s:o, s:o, s:o}", "name", text(file->name), "bytes",
                     whole(file->size), "xxh3", identity(file->xxh3));
}

/* Lists of those; NULL: no memory, or a text that is not UTF-8. */
enum list { TENSORS, CHANGES, MEMBERS, FILES };

static json_t *print_one(const struct manifest *manifest, enum list what, size_t i)
{
    switch (what) {
    case TENSORS:
        return print_tensor(&manifest->tensors[i]);
    case CHANGES:
        return print_change(&manifest->changes[i]);
    case MEMBERS:
        return print_member(&manifest->members[i]);
    default:
        return print_file(&manifest->files[i]);
    }
}

static json_t *print_list(const struct manifest *manifest, enum list what, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        if (json_array_append_new(list, print_one(manifest, what, i)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* Add what there is a value for. */
static bool add(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

static bool add_all(json_t *root, const struct manifest *m)
{
    return add(root, "format", json_integer(MANIFEST_FORMAT)) &&
           add(root, "written_by", text(OPTIMD_VERSION)) &&
           add(root, "directory", identity(m->directory)) &&
           add(root, "record", whole(m->record)) &&
           add(root, "identity", identity(m->identity)) &&
           add(root, "name", text(m->name)) && add(root, "created", text(m->created)) &&
           add(root, "specification", text(m->specification)) &&
           add(root, "consistency", print_consistency(&m->consistency)) &&
           add(root, "durability", json_integer((int)m->durability)) &&
           add(root, "checkpoint_steps", whole(m->checkpoint_steps)) &&
           add(root, "step", whole(m->step)) &&
           add(root, "changed", whole(m->changed)) &&
           add(root, "epochs_before", whole(m->epochs_before)) &&
           add(root, "epochs_from", whole(m->epochs_from)) &&
           add(root, "rounds_skipped", whole(m->rounds_skipped)) &&
           add(root, "pushes_applied", whole(m->pushes_applied)) &&
           add(root, "dropped", whole(m->dropped)) &&
           add(root, "staleness_sum", json_real(m->staleness_sum)) &&
           add(root, "gathered", json_boolean(m->gathered)) &&
           add(root, "slots", texts(m->slots, m->slot_count)) &&
           add(root, "files", print_list(m, FILES, 1 + m->slot_count)) &&
           add(root, "changes", print_list(m, CHANGES, m->change_count)) &&
           add(root, "losses", whole(m->losses)) &&
           add(root, "lost", texts(m->lost, m->lost_count)) &&
           add(root, "members", print_list(m, MEMBERS, m->member_count)) &&
           add(root, "tensors", print_list(m, TENSORS, m->tensor_count));
}

enum opt_status manifest_print(const struct manifest *manifest, char **out,
                               size_t *size, struct opt_error *error)
{
    json_t *root = json_object();
    char *printed = root != NULL && add_all(root, manifest)
                        ? json_dumps(root, JSON_INDENT(1))
                        : NULL;
    json_decref(root);
    if (printed == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "no memory for the manifest of model \"%s\", or a text in it "
                        "that is not UTF-8",
                        manifest->name);
    }
    *out = printed;
    *size = strlen(printed);
    return OPT_OK;
}
