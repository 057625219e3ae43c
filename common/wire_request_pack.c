/* wire_request_pack — what a client says: a Request that is packed. */
#include "common/wire_parts.h"

/* Numbers of the fields that are written by hand. */
enum {
    CREATE_SPECIFICATION = 2,
    CREATE_CONSISTENCY = 3,
    SPECIFICATION_OPTIONS = 3,
    SPECIFICATION_GROUPS = 4,
    GROUP_OPTIONS = 2,
    SET_OPTIONS = 3,
    SET_GROUPS = 4,
    ASSIGN_SEGMENTS = 3,
    REQUEST_ID = 1,
    REQUEST_TIMEOUT_MS = 2,
    PUSH_MODEL = 1,
    PUSH_SEQUENCE = 2,
    PUSH_BASIS = 3,
    PUSH_SAMPLES = 4,
    PUSH_FORM = 5,
    PUSH_DTYPE = 6,
    PUSH_SEGMENTS = 7,
    PUSH_FRAME = 8,
    PUSH_LAST = 9,
    PUSH_INCARNATION = 15,
    PULL_MODEL = 1,
    PULL_VIEW = 2,
    PULL_SLOT = 3,
    PULL_DTYPE = 4,
    PULL_SEGMENTS = 5,
    PULL_MIN_STEP = 6,
    PULL_SINCE = 7,
    PULL_SHARED = 8,
    PUSH_PULL_PUSH = 1,
    PUSH_PULL_PULL = 2
};

static void write_hello(struct opt_writer *writer, const void *what)
{
    const struct opt_hello *hello = what;
    Optimd__V1__Hello message = OPTIMD__V1__HELLO__INIT;
    message.protocol = hello->protocol;
    message.worker = opt_wire_text(hello->worker);
    message.session = hello->session;
    message.client = opt_wire_text(hello->client);
    message.n_require = hello->require_count;
    message.require = (char **)(uintptr_t)hello->require;
    message.lease_ms = hello->lease_ms;
    message.incarnation = hello->incarnation;
    message.max_frame_bytes = hello->max_frame_bytes;
    message.token.len = hello->token_size;
    message.token.data = (uint8_t *)(uintptr_t)hello->token;
    opt_write_fields(writer, &message.base);
}

static void write_option(struct opt_writer *writer, const void *what)
{
    const struct opt_wire_option *option = what;
    Optimd__V1__Option message = OPTIMD__V1__OPTION__INIT;
    message.name = opt_wire_text(option->name);
    switch (option->kind) {
    case OPT_VALUE_NUMBER:
        message.value_case = OPTIMD__V1__OPTION__VALUE_NUMBER;
        message.number = option->number;
        break;
    case OPT_VALUE_WORD:
        message.value_case = OPTIMD__V1__OPTION__VALUE_WORD;
        message.word = opt_wire_text(option->word);
        break;
    case OPT_VALUE_FLAG:
        message.value_case = OPTIMD__V1__OPTION__VALUE_FLAG;
        message.flag = option->flag;
        break;
    }
    opt_write_fields(writer, &message.base);
}

static void write_group(struct opt_writer *writer, const void *what)
{
    const struct opt_wire_group *group = what;
    Optimd__V1__TensorGroup message = OPTIMD__V1__TENSOR_GROUP__INIT;
    message.pattern = opt_wire_text(group->pattern);
    opt_write_fields(writer, &message.base);
    for (size_t i = 0; i < group->option_count; i++) {
        opt_write_nested(writer, GROUP_OPTIONS, write_option, &group->options[i]);
    }
}

static void write_specification(struct opt_writer *writer, const void *what)
{
    const struct opt_wire_spec *specification = what;
    Optimd__V1__Specification message = OPTIMD__V1__SPECIFICATION__INIT;
    message.expression = opt_wire_text(specification->expression);
    message.rule = opt_wire_text(specification->rule);
    opt_write_fields(writer, &message.base);
    for (size_t i = 0; i < specification->option_count; i++) {
        opt_write_nested(writer, SPECIFICATION_OPTIONS, write_option,
                         &specification->options[i]);
    }
    for (size_t i = 0; i < specification->group_count; i++) {
        opt_write_nested(writer, SPECIFICATION_GROUPS, write_group,
                         &specification->groups[i]);
    }
}

static void write_create(struct opt_writer *writer, const void *what)
{
    const struct opt_create *create = what;
    Optimd__V1__CreateModel message = OPTIMD__V1__CREATE_MODEL__INIT;
    message.model = opt_wire_text(create->model);
    opt_write_fields(writer, &message.base);
    opt_write_nested(writer, CREATE_SPECIFICATION, write_specification,
                     &create->specification);
    opt_write_nested(writer, CREATE_CONSISTENCY, opt_write_consistency,
                     &create->consistency);
    message.model = opt_wire_text("");
    message.initial = create->assigned ? OPTIMD__V1__CREATE_MODEL__INITIAL__ASSIGNED
                                       : OPTIMD__V1__CREATE_MODEL__INITIAL__ZEROS;
    message.join = create->join;
    message.durability = (Optimd__V1__Durability)create->durability;
    message.checkpoint_steps = create->checkpoint_steps;
    opt_write_fields(writer, &message.base);
}

static void write_open(struct opt_writer *writer, const void *what)
{
    const struct opt_open *open = what;
    Optimd__V1__OpenModel message = OPTIMD__V1__OPEN_MODEL__INIT;
    message.model = opt_wire_text(open->model);
    message.join = open->join;
    message.n_unanswered = open->unanswered_count;
    message.unanswered = (uint64_t *)(uintptr_t)open->unanswered;
    opt_write_fields(writer, &message.base);
}

static void write_assign(struct opt_writer *writer, const void *what)
{
    const struct opt_assign *assign = what;
    Optimd__V1__Assign message = OPTIMD__V1__ASSIGN__INIT;
    message.model = assign->model;
    message.dtype = (Optimd__V1__Dtype)assign->dtype;
    opt_write_fields(writer, &message.base);
    opt_write_segments(writer, ASSIGN_SEGMENTS, assign->segments,
                       assign->segment_count);
    Optimd__V1__Assign tail = OPTIMD__V1__ASSIGN__INIT;
    tail.last = assign->last;
    opt_write_fields(writer, &tail.base);
}

static void write_describe(struct opt_writer *writer, const void *what)
{
    Optimd__V1__DescribeModel message = OPTIMD__V1__DESCRIBE_MODEL__INIT;
    message.model = opt_wire_text(what);
    opt_write_fields(writer, &message.base);
}

static void write_delete(struct opt_writer *writer, const void *what)
{
    Optimd__V1__DeleteModel message = OPTIMD__V1__DELETE_MODEL__INIT;
    message.model = opt_wire_text(what);
    opt_write_fields(writer, &message.base);
}

static void write_push(struct opt_writer *writer, const void *what)
{
    const struct opt_push *push = what;
    opt_write_number(writer, PUSH_MODEL, push->model);
    opt_write_number(writer, PUSH_SEQUENCE, push->sequence);
    opt_write_number(writer, PUSH_BASIS, push->basis);
    opt_write_number(writer, PUSH_SAMPLES, push->samples);
    opt_write_number(writer, PUSH_FORM, push->form);
    opt_write_number(writer, PUSH_DTYPE, push->dtype);
    opt_write_segments(writer, PUSH_SEGMENTS, push->segments, push->segment_count);
    opt_write_number(writer, PUSH_FRAME, push->frame);
    opt_write_number(writer, PUSH_LAST, push->last);
    opt_write_number(writer, PUSH_INCARNATION, push->incarnation);
    if (push->places != NULL) {
        Optimd__V1__Push places = OPTIMD__V1__PUSH__INIT;
        places.places = (uint64_t *)(uintptr_t)push->places;
        places.n_places = push->segment_count;
        opt_write_fields(writer, &places.base);
    }
}

static void write_pull(struct opt_writer *writer, const void *what)
{
    const struct opt_pull *pull = what;
    opt_write_number(writer, PULL_MODEL, pull->model);
    opt_write_number(writer, PULL_VIEW, pull->view);
    opt_write_text(writer, PULL_SLOT, pull->slot);
    opt_write_number(writer, PULL_DTYPE, pull->dtype);
    opt_write_segments(writer, PULL_SEGMENTS, pull->segments, pull->segment_count);
    opt_write_number(writer, PULL_MIN_STEP, pull->min_step);
    opt_write_number(writer, PULL_SINCE, pull->since);
    opt_write_number(writer, PULL_SHARED, pull->shared);
}

static void write_push_pull(struct opt_writer *writer, const void *what)
{
    const struct opt_push_pull *push_pull = what;
    opt_write_nested(writer, PUSH_PULL_PUSH, write_push, &push_pull->push);
    if (push_pull->has_pull) {
        opt_write_nested(writer, PUSH_PULL_PULL, write_pull, &push_pull->pull);
    }
}

static void write_wait(struct opt_writer *writer, const void *what)
{
    const struct opt_wait *wait = what;
    Optimd__V1__Wait message = OPTIMD__V1__WAIT__INIT;
    message.model = wait->model;
    message.step = wait->step;
    message.epoch = wait->epoch;
    message.durable = wait->durable;
    opt_write_fields(writer, &message.base);
}

static void write_leave(struct opt_writer *writer, const void *what)
{
    const uint32_t *model = what;
    Optimd__V1__Leave message = OPTIMD__V1__LEAVE__INIT;
    message.model = *model;
    opt_write_fields(writer, &message.base);
}

static void write_rest(struct opt_writer *writer, const void *what)
{
    const uint32_t *model = what;
    Optimd__V1__Rest message = OPTIMD__V1__REST__INIT;
    message.model = *model;
    opt_write_fields(writer, &message.base);
}

static void write_share(struct opt_writer *writer, const void *what)
{
    const uint32_t *model = what;
    Optimd__V1__Share message = OPTIMD__V1__SHARE__INIT;
    message.model = *model;
    opt_write_fields(writer, &message.base);
}

static void write_barrier(struct opt_writer *writer, const void *what)
{
    const struct opt_barrier *barrier = what;
    Optimd__V1__Barrier message = OPTIMD__V1__BARRIER__INIT;
    message.model = barrier->model;
    message.sequence = barrier->sequence;
    opt_write_fields(writer, &message.base);
}

static void write_set(struct opt_writer *writer, const void *what)
{
    const struct opt_set *set = what;
    Optimd__V1__SetOptions message = OPTIMD__V1__SET_OPTIONS__INIT;
    message.model = opt_wire_text(set->model);
    message.change = opt_wire_text(set->change);
    opt_write_fields(writer, &message.base);
    for (size_t i = 0; i < set->option_count; i++) {
        opt_write_nested(writer, SET_OPTIONS, write_option, &set->options[i]);
    }
    for (size_t i = 0; i < set->group_count; i++) {
        opt_write_nested(writer, SET_GROUPS, write_group, &set->groups[i]);
    }
    Optimd__V1__SetOptions tail = OPTIMD__V1__SET_OPTIONS__INIT;
    tail.at_step = set->at_step;
    opt_write_fields(writer, &tail.base);
}

static void write_checkpoint(struct opt_writer *writer, const void *what)
{
    const struct opt_checkpoint *checkpoint = what;
    Optimd__V1__Checkpoint message = OPTIMD__V1__CHECKPOINT__INIT;
    message.model = opt_wire_text(checkpoint->model);
    message.wait = checkpoint->wait;
    opt_write_fields(writer, &message.base);
}

static void write_nothing(struct opt_writer *writer, const void *what)
{
    (void)writer, (void)what; /* an empty message */
}

static void write_request(struct opt_writer *writer, const void *what)
{
    const struct opt_request *request = what;
    opt_write_number(writer, REQUEST_ID, request->id);
    opt_write_number(writer, REQUEST_TIMEOUT_MS, request->timeout_ms);
    if (request->has_checksum) {
        Optimd__V1__Request message = OPTIMD__V1__REQUEST__INIT;
        message.xxh3 = opt_checksum(request->checksum);
        opt_write_fields(writer, &message.base);
    }
    if (request->released_count > 0) {
        Optimd__V1__Request message = OPTIMD__V1__REQUEST__INIT;
        message.n_released = request->released_count;
        message.released = (uint64_t *)(uintptr_t)request->released;
        opt_write_fields(writer, &message.base);
    }

    opt_write write = NULL;
    const void *body = &request->body;
    switch (request->message) {
    case OPT_MESSAGE_HELLO:
        write = write_hello;
        break;
    case OPT_MESSAGE_CREATE:
        write = write_create;
        break;
    case OPT_MESSAGE_OPEN:
        write = write_open;
        break;
    case OPT_MESSAGE_ASSIGN:
        write = write_assign;
        break;
    case OPT_MESSAGE_DESCRIBE:
        write = write_describe;
        body = request->body.describe;
        break;
    case OPT_MESSAGE_PUSH:
        write = write_push;
        break;
    case OPT_MESSAGE_PULL:
        write = write_pull;
        break;
    case OPT_MESSAGE_PUSH_PULL:
        write = write_push_pull;
        break;
    case OPT_MESSAGE_WAIT:
        write = write_wait;
        break;
    case OPT_MESSAGE_LEAVE:
        write = write_leave;
        break;
    case OPT_MESSAGE_REST:
        write = write_rest;
        break;
    case OPT_MESSAGE_SHARE:
        write = write_share;
        break;
    case OPT_MESSAGE_BARRIER:
        write = write_barrier;
        break;
    case OPT_MESSAGE_DELETE:
        write = write_delete;
        body = request->body.delete_;
        break;
    case OPT_MESSAGE_SET:
        write = write_set;
        break;
    case OPT_MESSAGE_CHECKPOINT:
        write = write_checkpoint;
        break;
    case OPT_MESSAGE_LIST:
    case OPT_MESSAGE_STATISTICS:
    case OPT_MESSAGE_HEARTBEAT:
    case OPT_MESSAGE_RELOAD:
    case OPT_MESSAGE_GOODBYE:
        write = write_nothing;
        break;
    case OPT_MESSAGE_NONE:
    case OPT_MESSAGE_ERROR:
    case OPT_MESSAGE_LIMIT:
        return; /* no request has such a body */
    }
    opt_write_nested(writer, (uint32_t)request->message, write, body);
}

size_t opt_request_pack(const struct opt_request *request, uint8_t *out,
                        size_t capacity)
{
    return opt_wire_pack(write_request, request, out, capacity);
}
