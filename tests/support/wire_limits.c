/* wire_limits — what must be true of everything that the wire accepts, judged without
 * the code that accepted it. */
#include <math.h>
#include <string.h>

#include "tests/support/wire_cases.h"

/* The decoder that everybody knows, written independently of the one under test. */
static bool is_text(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p != '\0') {
        uint32_t code;
        int more = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : 3;
        static const uint32_t lowest[] = { 0, 0x80, 0x800, 0x10000 };
        if (more == 3 && *p >> 3 != 30) {
            return false;
        }
        code = more == 0 ? *p : *p & (0x3Fu >> more);
        p++;
        for (int i = 0; i < more; i++, p++) {
            if (*p >> 6 != 2) {
                return false;
            }
            code = code << 6 | (*p & 0x3Fu);
        }
        if (code < lowest[more] || code > 0x10FFFF || code >> 11 == 0xD800 >> 11 ||
            code < 0x20 || (code >= 0x7F && code < 0xA0)) {
            return false;
        }
    }
    return true;
}

static bool is_name(const char *text)
{
    return text != NULL && text[0] != '\0' && strlen(text) <= 255 && is_text(text);
}

static bool is_name_or_empty(const char *text)
{
    return text != NULL && (text[0] == '\0' || is_name(text));
}

static const char *violation_of_segments(const struct opt_segment *list, size_t count,
                                         enum opt_dtype dtype, bool values, bool whole,
                                         size_t data_size)
{
    if (count > 4096) {
        return "more than 4,096 segments";
    }
    if ((unsigned)dtype > OPT_FP16) {
        return "dtype";
    }
    long double bytes = 0;
    bool open = false, empty = false;
    for (size_t i = 0; i < count; i++) {
        if (list[i].offset % 16384 != 0) {
            return "offset inside a block";
        }
        if ((long double)list[i].offset + (long double)list[i].count > 0x1p40L) {
            return "elements past 2^40";
        }
        if (list[i].row_count > 0 && (list[i].offset > 0 || list[i].count > 0)) {
            return "rows and elements in one segment";
        }
        open |= list[i].count == 0; /* with rows: depends on the tensor */
        empty |= list[i].count == 0 && list[i].row_count == 0;
        bytes += (long double)list[i].count * (dtype == OPT_FP32 ? 4 : 2);
    }
    if (empty && whole) {
        return "a segment without a count";
    }
    if (values &&
        (open ? bytes > (long double)data_size : bytes != (long double)data_size)) {
        return "segments that do not fit data";
    }
    return NULL;
}

/* Values of segments that come in data, or by place. */
static const char *violation_of_values(const struct opt_segment *list, size_t count,
                                       enum opt_dtype dtype, const uint64_t *places,
                                       bool whole, size_t data_size)
{
    for (size_t i = 0; places != NULL && i < count; i++) {
        if (places[i] % 64 != 0 || list[i].count == 0 || list[i].row_count > 0) {
            return "a place";
        }
    }
    return places != NULL && data_size > 0
               ? "places and data"
               : violation_of_segments(list, count, dtype, places == NULL, whole,
                                       data_size);
}

static const char *violation_of_options(const struct opt_wire_option *list,
                                        size_t count)
{
    if (count > OPT_OPTIONS_MAX) {
        return "too many options";
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_name(list[i].name) ||
            (list[i].kind == OPT_VALUE_WORD && !is_name(list[i].word)) ||
            isnan(list[i].number)) {
            return "an option";
        }
    }
    return NULL;
}

static const char *violation_of_groups(const struct opt_wire_group *groups,
                                       size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_name(groups[i].pattern)) {
            return "a pattern";
        }
        if (violation_of_options(groups[i].options, groups[i].option_count) != NULL) {
            return "an option of a group";
        }
    }
    return NULL;
}

static const char *violation_of_specification(const struct opt_wire_spec *spec)
{
    bool expression = spec->expression[0] != '\0';
    bool parts = spec->rule[0] != '\0';
    if (expression == parts) {
        return "an expression and a rule";
    }
    if (expression && (spec->option_count > 0 || spec->group_count > 0)) {
        return "an expression and parts";
    }
    if (!is_text(spec->expression) || !is_name_or_empty(spec->rule)) {
        return "text of a specification";
    }
    const char *why = violation_of_groups(spec->groups, spec->group_count);
    return why != NULL ? why : violation_of_options(spec->options, spec->option_count);
}

static const char *violation_of_push(const struct opt_push *push, size_t data_size)
{
    if (push->sequence == 0 || push->samples == 0 || (unsigned)push->form > 1) {
        return "a push's numbers";
    }
    return violation_of_values(push->segments, push->segment_count, push->dtype,
                               push->places, false, data_size);
}

static const char *violation_of_pull(const struct opt_pull *pull)
{
    if ((unsigned)pull->view > 2 ||
        (pull->view == OPT_VIEW_SLOT ? !is_name(pull->slot) : pull->slot[0] != '\0')) {
        return "a pull's view";
    }
    return violation_of_segments(pull->segments, pull->segment_count, pull->dtype,
                                 false, false, 0);
}

static const char *violation_of_consistency(const struct opt_consistency *consistency)
{
    return (unsigned)consistency->mode > 2 || (unsigned)consistency->loss > 2 ||
                   (unsigned)consistency->atomic > 2 || consistency->min_workers == 0 ||
                   !isfinite(consistency->delay_compensation) ||
                   consistency->delay_compensation < 0
               ? "consistency"
               : NULL;
}

static const char *violation_of_hello(const struct opt_hello *hello)
{
    for (size_t i = 0; i < hello->require_count; i++) {
        if (!is_name(hello->require[i])) {
            return "a feature";
        }
    }
    return hello->session != 0 && hello->incarnation <= INT64_MAX &&
                   hello->token_size <= OPT_TOKEN_MAX &&
                   hello->max_frame_bytes >= OPT_ANSWER_BYTES &&
                   is_name_or_empty(hello->worker) && is_name_or_empty(hello->client)
               ? NULL
               : "hello";
}

static const char *violation_of_create(const struct opt_create *create)
{
    const char *why = violation_of_consistency(&create->consistency);
    if (why == NULL) {
        why = violation_of_specification(&create->specification);
    }
    if (why == NULL && (unsigned)create->durability > 3) {
        why = "a durability";
    }
    return is_name(create->model) ? why : "a model's name";
}

static const char *violation_of_push_pull(const struct opt_push_pull *both,
                                          size_t data_size)
{
    if (both->has_pull ? both->pull.model != both->push.model : both->push.last) {
        return "push_pull";
    }
    const char *why = both->has_pull ? violation_of_pull(&both->pull) : NULL;
    return why != NULL ? why : violation_of_push(&both->push, data_size);
}

static const char *violation_of_set(const struct opt_set *set)
{
    const char *why = violation_of_groups(set->groups, set->group_count);
    if (why == NULL) {
        why = violation_of_options(set->options, set->option_count);
    }
    if (set->change[0] == '\0' && set->option_count + set->group_count == 0) {
        return "a change of nothing";
    }
    return is_name(set->model) && is_text(set->change) ? why : "text of a change";
}

static const char *violation_of_request(const struct opt_request *request,
                                        size_t data_size)
{
    if (request->id == 0) {
        return "id 0";
    }
    if (request->released_count > 64) {
        return "more than 64 released";
    }
    switch (request->message) {
    case OPT_MESSAGE_HELLO:
        return violation_of_hello(&request->body.hello);
    case OPT_MESSAGE_CREATE:
        return violation_of_create(&request->body.create);
    case OPT_MESSAGE_OPEN:
        return is_name(request->body.open.model) &&
                       request->body.open.unanswered_count <= OPT_UNANSWERED_MAX
                   ? NULL
                   : "open";
    case OPT_MESSAGE_DESCRIBE:
        return is_name(request->body.describe) ? NULL : "a model's name";
    case OPT_MESSAGE_DELETE:
        return is_name(request->body.delete_) ? NULL : "a model's name";
    case OPT_MESSAGE_ASSIGN:
        return violation_of_segments(
            request->body.assign.segments, request->body.assign.segment_count,
            request->body.assign.dtype, true, false, data_size);
    case OPT_MESSAGE_PUSH:
        return violation_of_push(&request->body.push, data_size);
    case OPT_MESSAGE_PULL:
        return violation_of_pull(&request->body.pull);
    case OPT_MESSAGE_PUSH_PULL:
        return violation_of_push_pull(&request->body.push_pull, data_size);
    case OPT_MESSAGE_SET:
        return violation_of_set(&request->body.set);
    case OPT_MESSAGE_CHECKPOINT:
        return is_name(request->body.checkpoint.model) ? NULL : "a model's name";
    case OPT_MESSAGE_BARRIER:
        return request->body.barrier.sequence > 0 ? NULL : "a barrier's number";
    case OPT_MESSAGE_LIST:
    case OPT_MESSAGE_WAIT:
    case OPT_MESSAGE_REST:
    case OPT_MESSAGE_SHARE:
    case OPT_MESSAGE_STATISTICS:
    case OPT_MESSAGE_LEAVE:
    case OPT_MESSAGE_RELOAD:
    case OPT_MESSAGE_HEARTBEAT:
    case OPT_MESSAGE_GOODBYE:
        return NULL;
    default:
        return "a body that no request has";
    }
}

static const char *violation_of_pull_reply(const struct opt_pull_reply *pull,
                                           size_t data_size)
{
    for (size_t i = 0; i < pull->unchanged_count; i++) {
        if (pull->unchanged[i].row_count > 0) {
            return "rows that are unchanged";
        }
    }
    const char *why = violation_of_segments(pull->unchanged, pull->unchanged_count,
                                            pull->dtype, false, true, 0);
    return why != NULL
               ? why
               : violation_of_values(pull->segments, pull->segment_count, pull->dtype,
                                     pull->places, true, data_size);
}

static const char *violation_of_lost(const struct opt_lost *lost)
{
    for (size_t i = 0; i < lost->count; i++) {
        if (!is_name(lost->names[i])) {
            return "a lost worker's name";
        }
    }
    return NULL;
}

static const char *violation_of_push_reply(const struct opt_push_reply *push)
{
    return (unsigned)push->fate > OPT_FATE_SKIPPED || !is_text(push->reason)
               ? "a push's fate"
               : violation_of_lost(&push->lost);
}

static const char *violation_of_reply(const struct opt_reply *reply, size_t data_size)
{
    const char *why = NULL;
    if (reply->id == 0 && reply->message != OPT_MESSAGE_ERROR &&
        reply->message != OPT_MESSAGE_HEARTBEAT) {
        return "id 0";
    }
    bool data = false;
    switch (reply->message) {
    case OPT_MESSAGE_ERROR:
        if (reply->body.error.status <= OPT_OK ||
            reply->body.error.status >= OPT_STATUS_COUNT ||
            !is_text(reply->body.error.text)) {
            why = "an error";
        }
        break;
    case OPT_MESSAGE_HELLO:
        why = is_name_or_empty(reply->body.hello.server) &&
                      is_text(reply->body.hello.lost)
                  ? NULL
                  : "a hello reply";
        break;
    case OPT_MESSAGE_CREATE:
        why = is_text(reply->body.model.specification) ? NULL : "a specification";
        break;
    case OPT_MESSAGE_PUSH:
        why = violation_of_push_reply(&reply->body.push);
        break;
    case OPT_MESSAGE_PULL:
        data = true;
        why = violation_of_pull_reply(&reply->body.pull, data_size);
        break;
    case OPT_MESSAGE_PUSH_PULL:
        data = true;
        why = violation_of_pull_reply(&reply->body.push_pull.pull, data_size);
        if (why == NULL) {
            why = violation_of_push_reply(&reply->body.push_pull.push);
        }
        break;
    case OPT_MESSAGE_STATISTICS:
        for (size_t i = 0; i < reply->body.statistics.count; i++) {
            if (!is_name(reply->body.statistics.counters[i].name)) {
                why = "a counter";
            }
        }
        break;
    case OPT_MESSAGE_SET:
        why = is_text(reply->body.set.specification) ? NULL : "a specification";
        break;
    case OPT_MESSAGE_RELOAD:
        why = is_text(reply->body.reload.unchanged) ? NULL : "names of settings";
        break;
    case OPT_MESSAGE_CHECKPOINT:
        why = is_text(reply->body.checkpoint.folder) ? NULL : "a folder";
        break;
    case OPT_MESSAGE_LIST:
    case OPT_MESSAGE_DESCRIBE:
        data = true;
        break;
    case OPT_MESSAGE_WAIT:
        why = violation_of_lost(&reply->body.wait.lost);
        break;
    case OPT_MESSAGE_BARRIER:
        why = violation_of_lost(&reply->body.barrier.lost);
        break;
    case OPT_MESSAGE_ASSIGN:
    case OPT_MESSAGE_LEAVE:
    case OPT_MESSAGE_REST:
    case OPT_MESSAGE_SHARE:
    case OPT_MESSAGE_HEARTBEAT:
    case OPT_MESSAGE_GOODBYE:
    case OPT_MESSAGE_DELETE:
        break;
    default:
        return "a body that no reply has";
    }
    return why == NULL && data_size > 0 && !data ? "data without a meaning" : why;
}

static const char *violation_of_tensors(const struct opt_tensor_entry *list,
                                        size_t count)
{
    long double total = 0;
    for (size_t i = 0; i < count; i++) {
        if (!is_name(list[i].name)) {
            return "a tensor's name";
        }
        if (list[i].rank > 8) {
            return "rank";
        }
        long double elements = 1;
        for (size_t j = 0; j < list[i].rank; j++) {
            elements *= (long double)list[i].shape[j];
        }
        if (elements < 1 || elements > 0x1p40L ||
            elements != (long double)list[i].elements) {
            return "elements";
        }
        total += elements;
        for (size_t j = 0; j < i; j++) {
            if (strcmp(list[i].name, list[j].name) == 0) {
                return "two tensors of one name";
            }
        }
    }
    return total > 0x1p40L ? "elements of all tensors" : NULL;
}

static const char *violation_of_model(const struct opt_model_entry *model)
{
    return is_name(model->name) && is_text(model->specification) ? NULL : "a model";
}

static const char *violation_of_description(const struct opt_description *description)
{
    const char *why = violation_of_model(&description->summary);
    if (why == NULL) {
        why = violation_of_consistency(&description->consistency);
    }
    for (size_t i = 0; why == NULL && i < description->slot_count; i++) {
        why = is_name(description->slots[i]) ? NULL : "a slot";
    }
    for (size_t i = 0; why == NULL && i < description->worker_count; i++) {
        why = is_name(description->workers[i].name) ? NULL : "a worker";
    }
    for (size_t i = 0; why == NULL && i < description->change_count; i++) {
        const struct opt_change_entry *change = &description->changes[i];
        why = is_text(change->before) && is_text(change->after) ? NULL : "a change";
    }
    return why != NULL
               ? why
               : violation_of_tensors(description->tensors, description->tensor_count);
}

const char *wire_any_violation(const struct wire_any *any, size_t data_size)
{
    const char *why = NULL;
    switch (any->kind) {
    case WIRE_REQUEST:
        return violation_of_request(&any->as.request, data_size);
    case WIRE_REPLY:
        return violation_of_reply(&any->as.reply, data_size);
    case WIRE_TENSORS:
        return any->as.tensors.count == 0
                   ? "no tensors"
                   : violation_of_tensors(any->as.tensors.entries,
                                          any->as.tensors.count);
    case WIRE_MODELS:
        for (size_t i = 0; why == NULL && i < any->as.models.count; i++) {
            why = violation_of_model(&any->as.models.entries[i]);
        }
        return why;
    case WIRE_DESCRIPTION:
        return violation_of_description(&any->as.description);
    case WIRE_KINDS:
        break;
    }
    return "no kind";
}
