/* manifest_write — a manifest to JSON (manifest.h). */
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/name.h"
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
enum list { CHANGES, MEMBERS, FILES };

static json_t *print_one(const struct manifest *manifest, enum list what, size_t i)
{
    switch (what) {
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
           add(root, "members", print_list(m, MEMBERS, m->member_count));
}

/* ---------------------------------------------------------------- tensors */

/* There may be very many of them, and a tree of JSON takes a thousand bytes for each:
 * they are printed as they come. */
struct growing {
    char *bytes;
    size_t size, capacity;
};

/* Room for so many bytes more. */
static bool grow(struct growing *text, size_t more)
{
    if (text->capacity - text->size >= more) {
        return true;
    }
    size_t capacity = 2 * text->capacity + more;
    char *grown = realloc(text->bytes, capacity);
    if (grown == NULL) {
        return false;
    }
    text->bytes = grown;
    text->capacity = capacity;
    return true;
}

static bool append(struct growing *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool append(struct growing *text, const char *format, ...)
{
    enum { LONGEST = 128 };
    va_list arguments;
    if (!grow(text, LONGEST)) {
        return false;
    }
    va_start(arguments, format);
    int size = vsnprintf(text->bytes + text->size, LONGEST, format, arguments);
    va_end(arguments);
    text->size += (size_t)size;
    return true;
}

/* A string without control characters. */
static bool append_string(struct growing *text, const char *string)
{
    size_t size = strlen(string);
    if (opt_text_good(string, size) != size || !grow(text, 2 * size + 2)) {
        return false;
    }
    char *at = text->bytes + text->size;
    *at++ = '"';
    for (; *string != '\0'; string++) {
        if (*string == '"' || *string == '\\') {
            *at++ = '\\';
        }
        *at++ = *string;
    }
    *at++ = '"';
    text->size = (size_t)(at - text->bytes);
    return true;
}

/* As whole does. */
static bool append_whole(struct growing *text, const char *key, uint64_t value)
{
    return append(text,
                  value <= INT64_MAX ? ",\"%s\":%" PRIu64 : ",\"%s\":\"%" PRIu64 "\"",
                  key, value);
}

static bool append_tensor(struct growing *text, const struct manifest_tensor *tensor)
{
    const struct opt_tensor_entry *entry = &tensor->entry;
    bool done = append(text, "\n  {\"name\":") && append_string(text, entry->name) &&
                append(text, ",\"shape\":[");
    for (size_t i = 0; done && i < entry->rank; i++) {
        done = append(text, "%s%" PRIu64, i > 0 ? "," : "", entry->shape[i]);
    }
    return done && append(text, "],\"sparse\":%s", entry->sparse ? "true" : "false") &&
           append_whole(text, "changed", entry->step) &&
           append_whole(text, "updates", tensor->counters.t) &&
           append(text, ",\"mu_product\":%.17g}", tensor->counters.mu_product);
}

/* Put the tensors at the end of the object that the text is. */
static bool append_tensors(struct growing *text, const struct manifest *manifest)
{
    while (text->size > 0 && text->bytes[text->size - 1] != '}') {
        text->size--;
    }
    text->size -= text->size > 0;
    while (text->size > 0 && text->bytes[text->size - 1] == '\n') {
        text->size--;
    }
    bool done = append(text, ",\n \"tensors\": [");
    for (size_t i = 0; done && i < manifest->tensor_count; i++) {
        done =
            (i == 0 || append(text, ",")) && append_tensor(text, &manifest->tensors[i]);
    }
    return done && append(text, "\n ]\n}\n");
}

enum opt_status manifest_print(const struct manifest *manifest, char **out,
                               size_t *size, struct opt_error *error)
{
    json_t *root = json_object();
    struct growing text = { .bytes = root != NULL && add_all(root, manifest)
                                         ? json_dumps(root, JSON_INDENT(1))
                                         : NULL };
    json_decref(root);
    text.size = text.bytes != NULL ? strlen(text.bytes) : 0;
    text.capacity = text.size;
    if (text.bytes == NULL || !append_tensors(&text, manifest)) {
        free(text.bytes);
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "no memory for the manifest of model \"%s\", or a text in it "
                        "that is not UTF-8",
                        manifest->name);
    }
    *out = text.bytes;
    *size = text.size;
    return OPT_OK;
}
