/* wire_reply — what the daemon answers: Reply, both ways. */
#include <string.h>

#include "common/name.h"
#include "common/wire_parts.h"

/* ---------------------------------------------------------------- reading */

/* What the readers of the bodies need. */
struct context {
    size_t data_size;
    struct opt_arena *arena;
    struct opt_error *error;
};

static void read_error(const Optimd__V1__Error *from, struct opt_error_reply *to)
{
    /* What this version does not know is an error all the same. */
    bool known = from->code > OPT_OK && from->code < OPT_STATUS_COUNT;
    unsigned detail = (unsigned)from->detail, fate = (unsigned)from->fate;
    *to = (struct opt_error_reply){
        .status = known ? (enum opt_status)from->code : OPT_UNKNOWN,
        .text = from->message,
        .retry_after_ms = from->retry_after_ms,
        .fate = fate < OPT_FATE_COUNT ? (enum opt_fate)fate : OPT_FATE_UNKNOWN,
        .shards_applied = from->shards_applied,
        .shards = from->shards,
        .detail = detail < OPT_DETAIL_COUNT ? (enum opt_detail)detail : OPT_DETAIL_NONE,
        .step = from->step,
    };
}

static enum opt_status read_hello(const struct context *c,
                                  const Optimd__V1__HelloReply *from,
                                  struct opt_hello_reply *to)
{
    *to = (struct opt_hello_reply){ .protocol = from->protocol,
                                    .server = from->server,
                                    .incarnation = from->incarnation,
                                    .lease_ms = from->lease_ms,
                                    .heartbeat_ms = from->heartbeat_ms,
                                    .max_frame_bytes = from->max_frame_bytes,
                                    .max_header_bytes = from->max_header_bytes,
                                    .chunk_bytes = from->chunk_bytes,
                                    .block_elements = from->block_elements,
                                    .features = (const char *const *)from->features,
                                    .feature_count = from->n_features,
                                    .lost = from->lost,
                                    .inflight_bytes = from->inflight_bytes };
    return opt_wire_optional_name(from->server, "HelloReply.server", c->error);
}

static enum opt_status read_settled(const struct context *c,
                                    const Optimd__V1__ModelReply *from,
                                    struct opt_model_reply *to)
{
    struct opt_settled *settled =
        opt_wire_array(c->arena, from->n_settled, sizeof(*settled), c->error);
    if (settled == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    for (size_t i = 0; i < from->n_settled; i++) {
        const Optimd__V1__Settled *one = from->settled[i];
        enum opt_status status = opt_wire_enum((int)one->fate, OPT_FATE_IN_PART + 1,
                                               "Settled.fate", c->error);
        if (status != OPT_OK) {
            return status;
        }
        settled[i] = (struct opt_settled){
            .sequence = one->sequence,
            .fate = (enum opt_fate)one->fate,
            .step = one->step,
            .status =
                one->code < OPT_STATUS_COUNT ? (enum opt_status)one->code : OPT_UNKNOWN,
            .shards_applied = one->shards_applied,
            .durable = one->durable,
        };
    }
    to->settled = settled;
    to->settled_count = from->n_settled;
    return OPT_OK;
}

static enum opt_status read_model(const struct context *c,
                                  const Optimd__V1__ModelReply *from,
                                  struct opt_model_reply *to)
{
    *to = (struct opt_model_reply){ .model = from->model,
                                    .created = from->created,
                                    .ready = from->ready,
                                    .step = from->step,
                                    .last_sequence = from->last_sequence,
                                    .tensors = from->tensors,
                                    .parameters = from->parameters,
                                    .workers = from->workers,
                                    .specification = from->specification,
                                    .lost_step = from->lost_step,
                                    .identity = from->identity,
                                    .inflight_bytes = from->inflight_bytes,
                                    .waiting = from->waiting,
                                    .waiting_count = from->n_waiting,
                                    .remembered_since = from->remembered_since };
    return read_settled(c, from, to);
}

static enum opt_status read_lost(const struct context *c, char *const *names,
                                 size_t count, struct opt_lost *to)
{
    for (size_t i = 0; i < count; i++) {
        enum opt_status status =
            opt_wire_name(names[i], "the name of a lost worker", c->error);
        if (status != OPT_OK) {
            return status;
        }
    }
    *to = (struct opt_lost){ .names = (const char *const *)names, .count = count };
    return OPT_OK;
}

static enum opt_status read_push(const struct context *c,
                                 const Optimd__V1__PushReply *from,
                                 struct opt_push_reply *to)
{
    *to = (struct opt_push_reply){ .fate = (enum opt_fate)from->fate,
                                   .step = from->step,
                                   .staleness = from->staleness,
                                   .reason = from->reason,
                                   .epoch = from->epoch,
                                   .durable = from->durable };
    enum opt_status status = opt_wire_enum((int)from->fate, OPT_FATE_SKIPPED + 1,
                                           "PushReply.fate", c->error);
    return status == OPT_OK ? read_lost(c, from->lost, from->n_lost, &to->lost)
                            : status;
}

static enum opt_status read_unchanged(const struct context *c,
                                      const Optimd__V1__PullReply *from,
                                      struct opt_pull_reply *to)
{
    for (size_t i = 0; i < from->n_unchanged; i++) {
        if (from->unchanged[i]->n_rows > 0) {
            return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                            "pull: segment %zu of those unchanged names rows", i);
        }
    }
    to->unchanged_count = from->n_unchanged;
    return opt_wire_segments_read(
        &(struct opt_wire_segments){ .what = "pull",
                                     .dtype = to->dtype,
                                     .data_size = OPT_WIRE_NO_VALUES,
                                     .whole = true },
        from->unchanged, from->n_unchanged, c->arena, &to->unchanged, c->error);
}

static enum opt_status read_pull(const struct context *c,
                                 const Optimd__V1__PullReply *from,
                                 struct opt_pull_reply *to)
{
    enum opt_status status =
        opt_wire_enum((int)from->dtype, OPT_DTYPE_COUNT, "PullReply.dtype", c->error);
    if (status != OPT_OK) {
        return status;
    }
    *to = (struct opt_pull_reply){ .step = from->step,
                                   .dtype = (enum opt_dtype)from->dtype,
                                   .segment_count = from->n_segments,
                                   .last = from->last,
                                   .epoch = from->epoch,
                                   .held = from->held };
    bool placed = from->n_places > 0;
    status = opt_wire_segments_read(
        &(struct opt_wire_segments){ .what = "pull",
                                     .dtype = to->dtype,
                                     .data_size =
                                         placed ? OPT_WIRE_NO_VALUES : c->data_size,
                                     .whole = true },
        from->segments, from->n_segments, c->arena, &to->segments, c->error);
    if (status == OPT_OK) {
        status = opt_wire_places_read("pull", from->places, from->n_places,
                                      to->segments, to->segment_count, c->data_size,
                                      &to->places, c->error);
    }
    return status == OPT_OK ? read_unchanged(c, from, to) : status;
}

static enum opt_status read_push_pull(const struct context *c,
                                      const Optimd__V1__PushPullReply *from,
                                      struct opt_push_pull_reply *to)
{
    if (from->pull == NULL) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "push_pull: there is no pull in the reply");
    }
    to->has_push = from->push != NULL;
    to->push = (struct opt_push_reply){ .reason = "" };
    if (to->has_push) {
        enum opt_status status = read_push(c, from->push, &to->push);
        if (status != OPT_OK) {
            return status;
        }
    }
    return read_pull(c, from->pull, &to->pull);
}

static enum opt_status read_statistics(const struct context *c,
                                       const Optimd__V1__StatisticsReply *from,
                                       struct opt_statistics_reply *to)
{
    struct opt_counter *counters =
        opt_wire_array(c->arena, from->n_counters, sizeof(*counters), c->error);
    if (counters == NULL) {
        return OPT_RESOURCE_EXHAUSTED;
    }
    for (size_t i = 0; i < from->n_counters; i++) {
        enum opt_status status =
            opt_wire_name(from->counters[i]->name, "Counter.name", c->error);
        if (status != OPT_OK) {
            return status;
        }
        counters[i] = (struct opt_counter){ .name = from->counters[i]->name,
                                            .value = from->counters[i]->value };
    }
    *to = (struct opt_statistics_reply){ .counters = counters,
                                         .count = from->n_counters };
    return OPT_OK;
}

/* Whether a reply's data means anything. */
static bool may_have_data(enum opt_message message)
{
    return message == OPT_MESSAGE_LIST || message == OPT_MESSAGE_DESCRIBE ||
           message == OPT_MESSAGE_PULL || message == OPT_MESSAGE_PUSH_PULL;
}

static enum opt_status read_body(const struct context *c, const Optimd__V1__Reply *from,
                                 struct opt_reply *to)
{
    if (c->data_size > 0 && !may_have_data(to->message)) {
        return opt_fail(c->error, OPT_INVALID_ARGUMENT,
                        "a reply to %s has %zu bytes of data; it must have none",
                        opt_message_name(to->message), c->data_size);
    }
    switch (to->message) {
    case OPT_MESSAGE_ERROR:
        read_error(from->error, &to->body.error);
        return OPT_OK;
    case OPT_MESSAGE_HELLO:
        return read_hello(c, from->hello, &to->body.hello);
    case OPT_MESSAGE_MODEL:
        return read_model(c, from->model, &to->body.model);
    case OPT_MESSAGE_PUSH:
        return read_push(c, from->push, &to->body.push);
    case OPT_MESSAGE_PULL:
        return read_pull(c, from->pull, &to->body.pull);
    case OPT_MESSAGE_PUSH_PULL:
        return read_push_pull(c, from->push_pull, &to->body.push_pull);
    case OPT_MESSAGE_WAIT:
        to->body.wait = (struct opt_wait_reply){ .step = from->wait->step,
                                                 .epoch = from->wait->epoch,
                                                 .durable = from->wait->durable };
        return read_lost(c, from->wait->lost, from->wait->n_lost, &to->body.wait.lost);
    case OPT_MESSAGE_BARRIER:
        to->body.barrier = (struct opt_wait_reply){ .step = from->barrier->step,
                                                    .epoch = from->barrier->epoch };
        return read_lost(c, from->barrier->lost, from->barrier->n_lost,
                         &to->body.barrier.lost);
    case OPT_MESSAGE_STATISTICS:
        return read_statistics(c, from->statistics, &to->body.statistics);
    case OPT_MESSAGE_SET:
        to->body.set =
            (struct opt_set_reply){ .step = from->set->step,
                                    .specification = from->set->specification };
        return OPT_OK;
    case OPT_MESSAGE_CHECKPOINT:
        to->body.checkpoint =
            (struct opt_checkpoint_reply){ .step = from->checkpoint->step,
                                           .record = from->checkpoint->record,
                                           .folder = from->checkpoint->folder };
        return OPT_OK;
    case OPT_MESSAGE_RELOAD:
        to->body.reload =
            (struct opt_reload_reply){ .unchanged = from->reload->unchanged };
        return OPT_OK;
    case OPT_MESSAGE_SHARE:
        to->body.share =
            (struct opt_share_reply){ .gradient_bytes = from->share->gradient_bytes,
                                      .weight_bytes = from->share->weight_bytes };
        return OPT_OK;
    case OPT_MESSAGE_ASSIGN:
    case OPT_MESSAGE_LIST:
    case OPT_MESSAGE_DESCRIBE:
    case OPT_MESSAGE_LEAVE:
    case OPT_MESSAGE_REST:
    case OPT_MESSAGE_HEARTBEAT:
    case OPT_MESSAGE_GOODBYE:
    case OPT_MESSAGE_DELETE:
        return OPT_OK;
    default:
        return opt_fail(c->error, OPT_INVALID_ARGUMENT, "a reply has no body");
    }
}

enum opt_status opt_reply_read(const uint8_t *header, size_t size, size_t data_size,
                               struct opt_arena *arena, struct opt_reply *out,
                               struct opt_error *error)
{
    struct opt_wire_seen seen;
    enum opt_status status =
        opt_wire_scan(&optimd__v1__reply__descriptor, header, size, &seen, error);
    out->id = seen.id;
    if (status != OPT_OK) {
        return status;
    }
    ProtobufCMessage *message = NULL;
    status = opt_wire_unpack(&optimd__v1__reply__descriptor, header, size, arena,
                             &message, error);
    if (status != OPT_OK) {
        return status;
    }
    const Optimd__V1__Reply *from = (const Optimd__V1__Reply *)message;
    if (seen.body == OPT_MESSAGE_NONE && seen.unknown_body != 0) {
        return opt_fail(error, OPT_UNIMPLEMENTED,
                        "a reply's body is field %u, which this version does not know",
                        seen.unknown_body);
    }
    if (from->id == 0 && seen.body != OPT_MESSAGE_ERROR &&
        seen.body != OPT_MESSAGE_HEARTBEAT) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "a reply has the id 0; only an error or a heartbeat may");
    }
    struct opt_reply reply = { .id = from->id,
                               .has_checksum = from->xxh3 != 0,
                               .checksum = from->xxh3,
                               .message = seen.body };
    status = read_body(
        &(struct context){ .data_size = data_size, .arena = arena, .error = error },
        from, &reply);
    if (status == OPT_OK) {
        *out = reply;
    }
    return status;
}

/* ---------------------------------------------------------------- packing */

/* Numbers of the fields that are written by hand. */
enum {
    REPLY_ID = 1,
    MODEL_SETTLED = 15,
    PUSH_FATE = 1,
    PUSH_STEP = 2,
    PUSH_STALENESS = 3,
    PUSH_REASON = 4,
    PUSH_EPOCH = 5,
    PUSH_DURABLE = 7,
    PULL_STEP = 1,
    PULL_DTYPE = 2,
    PULL_SEGMENTS = 3,
    PULL_LAST = 4,
    PULL_EPOCH = 5,
    PULL_UNCHANGED = 7,
    PULL_HELD = 8,
    PUSH_PULL_PUSH = 1,
    PUSH_PULL_PULL = 2,
    STATISTICS_COUNTERS = 1
};

/* Sentences may quote what a peer sent, and a program's own text may have been cut in
 * the middle of a character: what goes out is always something that can be read. A text
 * that is not is cleaned into room, and cut to it. */
enum { SENTENCE_MAX = 1024 };

static char *sentence(const char *text, char room[SENTENCE_MAX])
{
    char *whole = opt_wire_text(text);
    size_t size = strlen(whole);
    if (opt_text_good(whole, size) == size) {
        return whole;
    }
    opt_text_clean(whole, room, SENTENCE_MAX);
    return room;
}

static void write_error(struct opt_writer *writer, const void *what)
{
    const struct opt_error_reply *error = what;
    char room[SENTENCE_MAX];
    Optimd__V1__Error message = OPTIMD__V1__ERROR__INIT;
    message.code = (uint32_t)error->status;
    message.message = sentence(error->text, room);
    message.retry_after_ms = error->retry_after_ms;
    message.fate = (Optimd__V1__PushReply__Fate)error->fate;
    message.shards_applied = error->shards_applied;
    message.shards = error->shards;
    message.detail = (Optimd__V1__Error__Detail)error->detail;
    message.step = error->step;
    opt_write_fields(writer, &message.base);
}

static void write_hello(struct opt_writer *writer, const void *what)
{
    const struct opt_hello_reply *hello = what;
    Optimd__V1__HelloReply message = OPTIMD__V1__HELLO_REPLY__INIT;
    message.protocol = hello->protocol;
    message.server = opt_wire_text(hello->server);
    message.incarnation = hello->incarnation;
    message.lease_ms = hello->lease_ms;
    message.heartbeat_ms = hello->heartbeat_ms;
    message.max_frame_bytes = hello->max_frame_bytes;
    message.max_header_bytes = hello->max_header_bytes;
    message.chunk_bytes = hello->chunk_bytes;
    message.block_elements = hello->block_elements;
    message.features = (char **)(uintptr_t)hello->features;
    message.n_features = hello->feature_count;
    message.lost = opt_wire_text(hello->lost);
    message.inflight_bytes = hello->inflight_bytes;
    opt_write_fields(writer, &message.base);
}

static void write_settled(struct opt_writer *writer, const void *what)
{
    const struct opt_settled *settled = what;
    Optimd__V1__Settled message = OPTIMD__V1__SETTLED__INIT;
    message.sequence = settled->sequence;
    message.fate = (Optimd__V1__PushReply__Fate)settled->fate;
    message.step = settled->step;
    message.code = (uint32_t)settled->status;
    message.shards_applied = settled->shards_applied;
    message.durable = settled->durable;
    opt_write_fields(writer, &message.base);
}

static void write_model(struct opt_writer *writer, const void *what)
{
    const struct opt_model_reply *model = what;
    Optimd__V1__ModelReply message = OPTIMD__V1__MODEL_REPLY__INIT;
    message.model = model->model;
    message.created = model->created;
    message.ready = model->ready;
    message.step = model->step;
    message.last_sequence = model->last_sequence;
    message.tensors = model->tensors;
    message.parameters = model->parameters;
    message.workers = model->workers;
    message.specification = opt_wire_text(model->specification);
    opt_write_fields(writer, &message.base);
    for (size_t i = 0; i < model->settled_count; i++) {
        opt_write_nested(writer, MODEL_SETTLED, write_settled, &model->settled[i]);
    }
    Optimd__V1__ModelReply tail = OPTIMD__V1__MODEL_REPLY__INIT;
    tail.lost_step = model->lost_step;
    tail.identity = model->identity;
    tail.inflight_bytes = model->inflight_bytes;
    tail.waiting = (uint64_t *)(uintptr_t)model->waiting;
    tail.n_waiting = model->waiting_count;
    tail.remembered_since = model->remembered_since;
    opt_write_fields(writer, &tail.base);
}

static void write_push(struct opt_writer *writer, const void *what)
{
    const struct opt_push_reply *push = what;
    char room[SENTENCE_MAX];
    opt_write_number(writer, PUSH_FATE, push->fate);
    opt_write_number(writer, PUSH_STEP, push->step);
    opt_write_number(writer, PUSH_STALENESS, push->staleness);
    opt_write_text(writer, PUSH_REASON, sentence(push->reason, room));
    opt_write_number(writer, PUSH_EPOCH, push->epoch);
    if (push->lost.count > 0) {
        Optimd__V1__PushReply message = OPTIMD__V1__PUSH_REPLY__INIT;
        message.lost = (char **)(uintptr_t)push->lost.names;
        message.n_lost = push->lost.count;
        opt_write_fields(writer, &message.base);
    }
    opt_write_number(writer, PUSH_DURABLE, push->durable);
}

static void write_pull(struct opt_writer *writer, const void *what)
{
    const struct opt_pull_reply *pull = what;
    opt_write_number(writer, PULL_STEP, pull->step);
    opt_write_number(writer, PULL_DTYPE, pull->dtype);
    opt_write_segments(writer, PULL_SEGMENTS, pull->segments, pull->segment_count);
    opt_write_number(writer, PULL_LAST, pull->last);
    opt_write_number(writer, PULL_EPOCH, pull->epoch);
    if (pull->places != NULL) {
        Optimd__V1__PullReply places = OPTIMD__V1__PULL_REPLY__INIT;
        places.places = (uint64_t *)(uintptr_t)pull->places;
        places.n_places = pull->segment_count;
        opt_write_fields(writer, &places.base);
    }
    opt_write_segments(writer, PULL_UNCHANGED, pull->unchanged, pull->unchanged_count);
    opt_write_number(writer, PULL_HELD, pull->held);
}

static void write_push_pull(struct opt_writer *writer, const void *what)
{
    const struct opt_push_pull_reply *push_pull = what;
    if (push_pull->has_push) {
        opt_write_nested(writer, PUSH_PULL_PUSH, write_push, &push_pull->push);
    }
    opt_write_nested(writer, PUSH_PULL_PULL, write_pull, &push_pull->pull);
}

static void write_wait(struct opt_writer *writer, const void *what)
{
    const struct opt_wait_reply *wait = what;
    Optimd__V1__WaitReply message = OPTIMD__V1__WAIT_REPLY__INIT;
    message.step = wait->step;
    message.epoch = wait->epoch;
    message.lost = (char **)(uintptr_t)wait->lost.names;
    message.n_lost = wait->lost.count;
    message.durable = wait->durable;
    opt_write_fields(writer, &message.base);
}

static void write_barrier(struct opt_writer *writer, const void *what)
{
    const struct opt_wait_reply *barrier = what;
    Optimd__V1__BarrierReply message = OPTIMD__V1__BARRIER_REPLY__INIT;
    message.step = barrier->step;
    message.epoch = barrier->epoch;
    message.lost = (char **)(uintptr_t)barrier->lost.names;
    message.n_lost = barrier->lost.count;
    opt_write_fields(writer, &message.base);
}

static void write_counter(struct opt_writer *writer, const void *what)
{
    const struct opt_counter *counter = what;
    Optimd__V1__Counter message = OPTIMD__V1__COUNTER__INIT;
    message.name = opt_wire_text(counter->name);
    message.value = counter->value;
    opt_write_fields(writer, &message.base);
}

static void write_statistics(struct opt_writer *writer, const void *what)
{
    const struct opt_statistics_reply *statistics = what;
    for (size_t i = 0; i < statistics->count; i++) {
        opt_write_nested(writer, STATISTICS_COUNTERS, write_counter,
                         &statistics->counters[i]);
    }
}

static void write_set(struct opt_writer *writer, const void *what)
{
    const struct opt_set_reply *set = what;
    Optimd__V1__SetReply message = OPTIMD__V1__SET_REPLY__INIT;
    message.step = set->step;
    message.specification = opt_wire_text(set->specification);
    opt_write_fields(writer, &message.base);
}

static void write_checkpoint(struct opt_writer *writer, const void *what)
{
    const struct opt_checkpoint_reply *checkpoint = what;
    Optimd__V1__CheckpointReply message = OPTIMD__V1__CHECKPOINT_REPLY__INIT;
    message.step = checkpoint->step;
    message.record = checkpoint->record;
    message.folder = opt_wire_text(checkpoint->folder);
    opt_write_fields(writer, &message.base);
}

static void write_share(struct opt_writer *writer, const void *what)
{
    const struct opt_share_reply *share = what;
    Optimd__V1__ShareReply message = OPTIMD__V1__SHARE_REPLY__INIT;
    message.gradient_bytes = share->gradient_bytes;
    message.weight_bytes = share->weight_bytes;
    opt_write_fields(writer, &message.base);
}

static void write_reload(struct opt_writer *writer, const void *what)
{
    const struct opt_reload_reply *reload = what;
    Optimd__V1__ReloadReply message = OPTIMD__V1__RELOAD_REPLY__INIT;
    message.unchanged = opt_wire_text(reload->unchanged);
    opt_write_fields(writer, &message.base);
}

static void write_nothing(struct opt_writer *writer, const void *what)
{
    (void)writer, (void)what; /* an empty message */
}

static void write_reply(struct opt_writer *writer, const void *what)
{
    const struct opt_reply *reply = what;
    opt_write_number(writer, REPLY_ID, reply->id);
    if (reply->has_checksum) {
        Optimd__V1__Reply message = OPTIMD__V1__REPLY__INIT;
        message.xxh3 = opt_checksum(reply->checksum);
        opt_write_fields(writer, &message.base);
    }

    opt_write write = NULL;
    switch (reply->message) {
    case OPT_MESSAGE_ERROR:
        write = write_error;
        break;
    case OPT_MESSAGE_HELLO:
        write = write_hello;
        break;
    case OPT_MESSAGE_MODEL:
        write = write_model;
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
    case OPT_MESSAGE_BARRIER:
        write = write_barrier;
        break;
    case OPT_MESSAGE_STATISTICS:
        write = write_statistics;
        break;
    case OPT_MESSAGE_SET:
        write = write_set;
        break;
    case OPT_MESSAGE_CHECKPOINT:
        write = write_checkpoint;
        break;
    case OPT_MESSAGE_RELOAD:
        write = write_reload;
        break;
    case OPT_MESSAGE_SHARE:
        write = write_share;
        break;
    case OPT_MESSAGE_ASSIGN:
    case OPT_MESSAGE_LIST:
    case OPT_MESSAGE_DESCRIBE:
    case OPT_MESSAGE_LEAVE:
    case OPT_MESSAGE_REST:
    case OPT_MESSAGE_HEARTBEAT:
    case OPT_MESSAGE_GOODBYE:
    case OPT_MESSAGE_DELETE:
        write = write_nothing;
        break;
    case OPT_MESSAGE_NONE:
    case OPT_MESSAGE_OPEN: /* is answered as OPT_MESSAGE_MODEL */
    case OPT_MESSAGE_LIMIT:
        return; /* no reply has such a body */
    }
    opt_write_nested(writer, (uint32_t)reply->message, write, &reply->body);
}

size_t opt_reply_pack(const struct opt_reply *reply, uint8_t *out, size_t capacity)
{
    return opt_wire_pack(write_reply, reply, out, capacity);
}
