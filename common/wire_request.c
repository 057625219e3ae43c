/* wire_request — what a client says: a Request that is read. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/wire_parts.h"

/* What the readers of the bodies need. */
struct context {
    size_t data_size;
    struct opt_arena *arena;
    struct opt_error *error;
};

static enum opt_status read_hello(const struct context *c,
                                  const Optimd__V1__Hello *from, struct opt_hello *to)
{
    enum opt_status status =
        opt_wire_optional_name(from->worker, "Hello.worker", c->error);
    if (status == OPT_OK) {
        status = opt_wire_optional_name(from->client, "Hello.client", c->error);
    }
    for (size_t i = 0; status == OPT_OK && i < from->n_require; i++) {
        status = opt_wire_name(from->require[i], "Hello.require", c->error);
    }
    if (status != OPT_OK) {
        return status;
    }
    if (from->session == 0) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "Hello.session is 0; it must be a random number");
    }
    if (from->incarnation > INT64_MAX) { /* it is counted on from there */
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "Hello.incarnation is %" PRIu64
                        "; it must be one that HelloReply granted, at most 2^63 - 1",
                        from->incarnation);
    }
    if (from->max_frame_bytes != 0 && from->max_frame_bytes < OPT_ANSWER_BYTES) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "Hello.max_frame_bytes is %" PRIu64
                        "; it must be at least %d, or 0, which is %d",
                        from->max_frame_bytes, (int)OPT_ANSWER_BYTES,
                        (int)OPT_FRAME_BYTES);
    }
    if (from->token.len > OPT_TOKEN_MAX) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "Hello.token has %zu bytes; at most %d are allowed",
                        from->token.len, (int)OPT_TOKEN_MAX);
    }
    *to = (struct opt_hello){ .protocol = from->protocol,
                              .worker = from->worker,
                              .session = from->session,
                              .client = from->client,
                              .require = (const char *const *)from->require,
                              .require_count = from->n_require,
                              .lease_ms = from->lease_ms,
                              .incarnation = from->incarnation,
                              .token = from->token.len > 0 ? from->token.data : NULL,
                              .token_size = from->token.len,
                              .max_frame_bytes = from->max_frame_bytes > 0
                                                     ? from->max_frame_bytes
                                                     : OPT_FRAME_BYTES };
    return OPT_OK;
}

static enum opt_status read_option(const struct context *c,
                                   const Optimd__V1__Option *from,
                                   struct opt_wire_option *to)
{
    enum opt_status status = opt_wire_name(from->name, "Option.name", c->error);
    if (status != OPT_OK) {
        return status;
    }
    *to = (struct opt_wire_option){ .name = from->name, .word = "" };
    switch (from->value_case) {
    case OPTIMD__V1__OPTION__VALUE_NUMBER:
        if (isnan(from->number)) {
            return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                            "option %s is not a number (NaN)", from->name);
        }
        to->kind = OPT_VALUE_NUMBER;
        to->number = from->number;
        return OPT_OK;
    case OPTIMD__V1__OPTION__VALUE_WORD:
        to->kind = OPT_VALUE_WORD;
        to->word = from->word;
        return opt_wire_name(from->word, "Option.word", c->error);
    case OPTIMD__V1__OPTION__VALUE_FLAG:
        to->kind = OPT_VALUE_FLAG;
        to->flag = from->flag;
        return OPT_OK;
    default:
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "option %s has no value; it must be a number, a word or a flag",
                        from->name);
    }
}

static enum opt_status read_options(const struct context *c,
                                    Optimd__V1__Option *const *from, size_t count,
                                    const struct opt_wire_option **to)
{
    if (count > OPT_OPTIONS_MAX) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "a specification has %zu options; at most %d are allowed",
                        count, OPT_OPTIONS_MAX);
    }
    struct opt_wire_option *options =
        opt_wire_array(c->arena, count, sizeof(*options), c->error);
    if (options == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    for (size_t i = 0; i < count; i++) {
        enum opt_status status = read_option(c, from[i], &options[i]);
        if (status != OPT_OK) {
            return status;
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(options[j].name, options[i].name) == 0) {
                return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                                "option %s is given twice", options[i].name);
            }
        }
    }
    *to = options;
    return OPT_OK;
}

static enum opt_status read_groups(const struct context *c,
                                   Optimd__V1__TensorGroup *const *from, size_t count,
                                   const struct opt_wire_group **to)
{
    struct opt_wire_group *groups =
        opt_wire_array(c->arena, count, sizeof(*groups), c->error);
    if (groups == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    for (size_t i = 0; i < count; i++) {
        enum opt_status status =
            opt_wire_name(from[i]->pattern, "TensorGroup.pattern", c->error);
        if (status == OPT_OK) {
            status = read_options(c, from[i]->options, from[i]->n_options,
                                  &groups[i].options);
        }
        if (status != OPT_OK) {
            return status;
        }
        groups[i].pattern = from[i]->pattern;
        groups[i].option_count = from[i]->n_options;
    }
    *to = groups;
    return OPT_OK;
}

static enum opt_status read_specification(const struct context *c,
                                          const Optimd__V1__Specification *from,
                                          struct opt_wire_spec *to)
{
    if (from == NULL || (from->expression[0] == '\0' && from->rule[0] == '\0')) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "create: no optimizer is specified; give an expression such as "
                        "sgd(lr=0.1), or a rule");
    }
    if (from->expression[0] != '\0' &&
        (from->rule[0] != '\0' || from->n_options > 0 || from->n_groups > 0)) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "create: an optimizer is specified by an expression and in "
                        "parts; it must be one of them");
    }
    enum opt_status status =
        opt_wire_optional_name(from->rule, "Specification.rule", c->error);
    if (status == OPT_OK) {
        status = read_options(c, from->options, from->n_options, &to->options);
    }
    if (status == OPT_OK) {
        status = read_groups(c, from->groups, from->n_groups, &to->groups);
    }
    to->expression = from->expression;
    to->rule = from->rule;
    to->option_count = from->n_options;
    to->group_count = from->n_groups;
    return status;
}

static enum opt_status read_create(const struct context *c,
                                   const Optimd__V1__CreateModel *from,
                                   struct opt_create *to)
{
    enum opt_status status = opt_wire_name(from->model, "model name", c->error);
    if (status == OPT_OK) {
        status = read_specification(c, from->specification, &to->specification);
    }
    if (status == OPT_OK) {
        status =
            opt_wire_consistency_read(from->consistency, &to->consistency, c->error);
    }
    if (status == OPT_OK) {
        status = opt_wire_enum((int)from->initial,
                               OPTIMD__V1__CREATE_MODEL__INITIAL__ASSIGNED + 1,
                               "CreateModel.initial", c->error);
    }
    if (status == OPT_OK) {
        status = opt_wire_enum((int)from->durability, OPT_DURABILITY_COUNT,
                               "CreateModel.durability", c->error);
    }
    to->model = from->model;
    to->durability = (enum opt_durability)from->durability;
    to->checkpoint_steps = from->checkpoint_steps;
    to->assigned = from->initial == OPTIMD__V1__CREATE_MODEL__INITIAL__ASSIGNED;
    to->join = from->join;
    return status;
}

static enum opt_status read_open(const struct context *c,
                                 const Optimd__V1__OpenModel *from, struct opt_open *to)
{
    if (from->n_unanswered > OPT_UNANSWERED_MAX) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "open: asks about %zu unanswered pushes; at most %d",
                        from->n_unanswered, (int)OPT_UNANSWERED_MAX);
    }
    *to = (struct opt_open){ .model = from->model,
                             .join = from->join,
                             .unanswered = from->unanswered,
                             .unanswered_count = from->n_unanswered };
    return opt_wire_name(from->model, "model name", c->error);
}

static enum opt_status read_assign(const struct context *c,
                                   const Optimd__V1__Assign *from,
                                   struct opt_assign *to)
{
    enum opt_status status =
        opt_wire_enum((int)from->dtype, OPT_DTYPE_COUNT, "Assign.dtype", c->error);
    if (status != OPT_OK) {
        return status;
    }
    *to = (struct opt_assign){ .model = from->model,
                               .dtype = (enum opt_dtype)from->dtype,
                               .segment_count = from->n_segments,
                               .last = from->last };
    return opt_wire_segments_read(
        &(struct opt_wire_segments){
            .what = "assign", .dtype = to->dtype, .data_size = c->data_size },
        from->segments, from->n_segments, c->arena, &to->segments, c->error);
}

static enum opt_status read_push(const struct context *c, const Optimd__V1__Push *from,
                                 struct opt_push *to)
{
    enum opt_status status =
        opt_wire_enum((int)from->dtype, OPT_DTYPE_COUNT, "Push.dtype", c->error);
    if (status == OPT_OK) {
        status =
            opt_wire_enum((int)from->form, OPT_FORM_SUM + 1, "Push.form", c->error);
    }
    if (status != OPT_OK) {
        return status;
    }
    if (from->sequence == 0) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "push: the sequence is 0; sequences count from 1");
    }
    *to = (struct opt_push){ .model = from->model,
                             .sequence = from->sequence,
                             .basis = from->basis,
                             .samples = from->samples == 0 ? 1 : from->samples,
                             .form = (enum opt_form)from->form,
                             .dtype = (enum opt_dtype)from->dtype,
                             .segment_count = from->n_segments,
                             .frame = from->frame,
                             .last = from->last,
                             .incarnation = from->incarnation };
    bool placed = from->n_places > 0;
    status = opt_wire_segments_read(
        &(struct opt_wire_segments){ .what = "push",
                                     .dtype = to->dtype,
                                     .data_size =
                                         placed ? OPT_WIRE_NO_VALUES : c->data_size },
        from->segments, from->n_segments, c->arena, &to->segments, c->error);
    return status != OPT_OK ? status
                            : opt_wire_places_read("push", from->places, from->n_places,
                                                   to->segments, to->segment_count,
                                                   c->data_size, &to->places, c->error);
}

static enum opt_status read_pull(const struct context *c, const Optimd__V1__Pull *from,
                                 struct opt_pull *to)
{
    enum opt_status status =
        opt_wire_enum((int)from->dtype, OPT_DTYPE_COUNT, "Pull.dtype", c->error);
    if (status == OPT_OK) {
        status =
            opt_wire_enum((int)from->view, OPT_VIEW_SLOT + 1, "Pull.view", c->error);
    }
    if (status != OPT_OK) {
        return status;
    }
    *to = (struct opt_pull){ .model = from->model,
                             .view = (enum opt_view)from->view,
                             .slot = from->slot,
                             .dtype = (enum opt_dtype)from->dtype,
                             .segment_count = from->n_segments,
                             .min_step = from->min_step,
                             .since = from->since,
                             .shared = from->shared };
    if (to->view == OPT_VIEW_SLOT) {
        status = opt_wire_name(from->slot, "pull: slot name", c->error);
    } else if (from->slot[0] != '\0') {
        status = opt_fail(c->error, OPT_INVALID_ARGUMENT,
                          "pull: a slot is named but the view is not SLOT");
    }
    if (status != OPT_OK) {
        return status;
    }
    return opt_wire_segments_read(
        &(struct opt_wire_segments){
            .what = "pull", .dtype = to->dtype, .data_size = OPT_WIRE_NO_VALUES },
        from->segments, from->n_segments, c->arena, &to->segments, c->error);
}

static enum opt_status read_push_pull(const struct context *c,
                                      const Optimd__V1__PushPull *from,
                                      struct opt_push_pull *to)
{
    if (from->push == NULL) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT, "push_pull: there is no push");
    }
    enum opt_status status = read_push(c, from->push, &to->push);
    if (status != OPT_OK) {
        return status;
    }
    to->has_pull = from->pull != NULL;
    if (!to->has_pull) {
        to->pull = (struct opt_pull){ .slot = "" };
        if (from->push->last) {
            return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                            "push_pull: there is no pull in the last frame");
        }
        return OPT_OK;
    }
    if (from->pull->model != from->push->model) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "push_pull: the push is for model %u, the pull for model %u; "
                        "they must be the same",
                        from->push->model, from->pull->model);
    }
    return read_pull(c, from->pull, &to->pull);
}

static enum opt_status read_set(const struct context *c,
                                const Optimd__V1__SetOptions *from, struct opt_set *to)
{
    enum opt_status status = opt_wire_name(from->model, "model name", c->error);
    if (status == OPT_OK) {
        status = read_options(c, from->options, from->n_options, &to->options);
    }
    if (status == OPT_OK) {
        status = read_groups(c, from->groups, from->n_groups, &to->groups);
    }
    if (status == OPT_OK && from->change[0] == '\0' && from->n_options == 0 &&
        from->n_groups == 0) {
        status =
            opt_fail(c->error, OPT_INVALID_ARGUMENT,
                     "set: nothing is to be changed; give options such as lr=5e-4");
    }
    to->model = from->model;
    to->change = from->change;
    to->option_count = from->n_options;
    to->group_count = from->n_groups;
    to->at_step = from->at_step;
    return status;
}

static enum opt_status read_barrier(const struct context *c,
                                    const Optimd__V1__Barrier *from,
                                    struct opt_barrier *to)
{
    if (from->sequence == 0) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "barrier: the sequence is 0; sequences count from 1");
    }
    *to = (struct opt_barrier){ .model = from->model, .sequence = from->sequence };
    return OPT_OK;
}

static enum opt_status read_body(const struct context *c,
                                 const Optimd__V1__Request *from,
                                 struct opt_request *to)
{
    switch (to->message) {
    case OPT_MESSAGE_HELLO:
        return read_hello(c, from->hello, &to->body.hello);
    case OPT_MESSAGE_CREATE:
        return read_create(c, from->create, &to->body.create);
    case OPT_MESSAGE_OPEN:
        return read_open(c, from->open, &to->body.open);
    case OPT_MESSAGE_ASSIGN:
        return read_assign(c, from->assign, &to->body.assign);
    case OPT_MESSAGE_DESCRIBE:
        to->body.describe = from->describe->model;
        return opt_wire_name(from->describe->model, "model name", c->error);
    case OPT_MESSAGE_PUSH:
        return read_push(c, from->push, &to->body.push);
    case OPT_MESSAGE_PULL:
        return read_pull(c, from->pull, &to->body.pull);
    case OPT_MESSAGE_PUSH_PULL:
        return read_push_pull(c, from->push_pull, &to->body.push_pull);
    case OPT_MESSAGE_WAIT:
        to->body.wait.model = from->wait->model;
        to->body.wait.step = from->wait->step;
        to->body.wait.epoch = from->wait->epoch;
        to->body.wait.durable = from->wait->durable;
        return OPT_OK;
    case OPT_MESSAGE_LEAVE:
        to->body.leave = from->leave->model;
        return OPT_OK;
    case OPT_MESSAGE_REST:
        to->body.rest = from->rest->model;
        return OPT_OK;
    case OPT_MESSAGE_SHARE:
        to->body.share = from->share->model;
        return OPT_OK;
    case OPT_MESSAGE_BARRIER:
        return read_barrier(c, from->barrier, &to->body.barrier);
    case OPT_MESSAGE_DELETE:
        to->body.delete_ = from->delete_->model;
        return opt_wire_name(from->delete_->model, "model name", c->error);
    case OPT_MESSAGE_CHECKPOINT:
        to->body.checkpoint = (struct opt_checkpoint){ .model = from->checkpoint->model,
                                                       .wait = from->checkpoint->wait };
        return opt_wire_name(from->checkpoint->model, "model name", c->error);
    case OPT_MESSAGE_SET:
        return read_set(c, from->set, &to->body.set);
    case OPT_MESSAGE_LIST:
    case OPT_MESSAGE_STATISTICS:
    case OPT_MESSAGE_HEARTBEAT:
    case OPT_MESSAGE_RELOAD:
    case OPT_MESSAGE_GOODBYE:
        return OPT_OK;
    default:
        return opt_fail(c->error, OPT_INVALID_ARGUMENT, "a request has no body");
    }
}

enum opt_status opt_request_read(const uint8_t *header, size_t size, size_t data_size,
                                 struct opt_arena *arena, struct opt_request *out,
                                 struct opt_error *error)
{
    struct opt_wire_seen seen;
    enum opt_status status =
        opt_wire_scan(&optimd__v1__request__descriptor, header, size, &seen, error);
    out->id = seen.id;
    if (status != OPT_OK) {
        return status;
    }
    ProtobufCMessage *message = NULL;
    status = opt_wire_unpack(&optimd__v1__request__descriptor, header, size, arena,
                             &message, error);
    if (status != OPT_OK) {
        return status;
    }
    const Optimd__V1__Request *from = (const Optimd__V1__Request *)message;
    if (from->id == 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "a request has the id 0; it must have another one");
    }
    if (seen.body == OPT_MESSAGE_NONE && seen.unknown_body != 0) {
        return opt_fail(
            error, OPT_UNIMPLEMENTED,
            "a request's body is field %u, which this version does not know",
            seen.unknown_body);
    }
    if (from->n_released > OPT_RELEASED_MAX) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "a request releases %zu others; at most %d", from->n_released,
                        (int)OPT_RELEASED_MAX);
    }
    struct opt_request request = { .id = from->id,
                                   .timeout_ms = from->timeout_ms,
                                   .released = from->released,
                                   .released_count = from->n_released,
                                   .has_checksum = from->xxh3 != 0,
                                   .checksum = from->xxh3,
                                   .message = seen.body };
    status = read_body(
        &(struct context){ .data_size = data_size, .arena = arena, .error = error },
        from, &request);
    if (status == OPT_OK) {
        *out = request;
    }
    return status;
}
