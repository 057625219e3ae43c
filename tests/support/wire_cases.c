#include "tests/support/wire_cases.h"

/* ---------------------------------------------------------------- the cases */

#define MODEL_NAME "modèle/größe.重み"

static const struct opt_segment segments[] = {
    { .tensor = 0, .offset = 0, .count = 16384 },
    { .tensor = 7, .offset = 16384, .count = 100 },
    { .tensor = 65535, .offset = UINT64_C(1) << 39, .count = 3 },
};
enum { SEGMENT_ELEMENTS = 16384 + 100 + 3 };
static const struct opt_segment open_segments[] = {
    { .tensor = 1, .offset = 16384, .count = 0 },
    { .tensor = 2, .offset = 0, .count = 5 },
};

static const uint32_t some_rows[] = { 0, 127, 128, UINT32_MAX, 0 };
static const uint32_t other_rows[] = { 16384 };
static const struct opt_segment row_segments[] = {
    { .tensor = 0, .rows = some_rows, .row_count = 5 },
    { .tensor = 3, .rows = other_rows, .row_count = 1 },
    { .tensor = 9 }, /* in a push no rows at all, in a pull the whole tensor */
};

static const uint64_t places[] = { 0, 64, UINT64_C(1) << 42 }; /* of segments */
static const uint64_t released[] = { 1, 128, UINT64_MAX };

static const char *const features[] = { "rows", "trace" };
static const char *const lost[] = { "worker-7", "été" };
static const char *const slots[] = { "exp_avg", "exp_avg_sq" };

static const struct opt_wire_option options[] = {
    { .name = "lr", .kind = OPT_VALUE_NUMBER, .number = 1e-3, .word = "" },
    { .name = "decay", .kind = OPT_VALUE_WORD, .word = "decoupled" },
    { .name = "centered", .kind = OPT_VALUE_FLAG, .flag = true, .word = "" },
    { .name = "momentum", .kind = OPT_VALUE_NUMBER, .number = 0, .word = "" },
    { .name = "bias_correction", .kind = OPT_VALUE_FLAG, .flag = false, .word = "" },
};
static const struct opt_wire_option group_options[] = {
    { .name = "weight_decay", .kind = OPT_VALUE_NUMBER, .number = -0.5, .word = "" },
};
static const struct opt_wire_group groups[] = {
    { .pattern = "*.bias", .options = group_options, .option_count = 1 },
    { .pattern = "norm?", .options = group_options, .option_count = 0 },
};

static const struct opt_counter counters[] = {
    { .name = "frames_received", .value = UINT64_MAX },
    { .name = "frames_refused", .value = 0 },
};

static const uint64_t matrix[] = { 128, 784 };
static const uint64_t deep[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
static struct opt_tensor_entry tensors[] = {
    { .name = "fc1.weight", .shape = matrix, .rank = 2, .elements = 128 * 784 },
    { .name = "table",
      .shape = matrix,
      .rank = 2,
      .elements = 128 * 784,
      .sparse = true },
    { .name = "scale", .shape = NULL, .rank = 0, .elements = 1, .step = 12 },
    { .name = "été", .shape = deep, .rank = 8, .elements = 40320, .step = UINT64_MAX },
};
static struct opt_model_entry models[] = {
    { .name = MODEL_NAME,
      .model = 1,
      .step = 2,
      .tensors = 3,
      .parameters = 4,
      .workers = 5,
      .specification = "sgd(lr=0.1)",
      .identity = 6,
      .durability = OPT_DURABILITY_CHECKPOINT,
      .recovering = true,
      .percent = 42 },
    { .name = "b", .model = UINT32_MAX, .specification = "" },
};
static const struct opt_worker_entry workers[] = {
    { .name = "worker-1",
      .incarnation = 1,
      .connected = true,
      .pushed = true,
      .last_sequence = 2,
      .last_step = 3,
      .applied = 4,
      .duplicates = 5,
      .refused = 6,
      .dropped = 7,
      .waits = 8,
      .waited_us = 9,
      .staleness = { 10, 0, 11, [OPT_STALENESS_BUCKETS - 1] = 12 },
      .resting = true,
      .away = true,
      .resends = 7,
      .reconnects = 8 },
    { .name = "worker-2" },
};

static const uint8_t token[] = { 0, 255, 10, 65 };
static const uint64_t sequences[] = { 1, 300, UINT64_MAX };
static const struct opt_settled settled[] = {
    { .sequence = 3, .fate = OPT_FATE_APPLIED, .step = 4 },
    { .sequence = UINT64_MAX, .fate = OPT_FATE_REFUSED, .status = OPT_ABORTED },
};

static const struct opt_change_entry changes[] = {
    { .step = 7, .before = "sgd(lr=0.1)", .after = "sgd(lr=0.01)" },
    { .step = UINT64_MAX, .before = "sgd(lr=0.01)", .after = "sgd(lr=0.001)" },
};

#define REQUEST(name_, message_, size_, ...)                                           \
    {                                                                                  \
        .name = name_, .data_size = size_, .any = {                                    \
            .kind = WIRE_REQUEST,                                                      \
            .as.request = { .id = 0x0123456789ABCDEF,                                  \
                            .timeout_ms = 30000,                                       \
                            .message = message_,                                       \
                            __VA_ARGS__ }                                              \
        }                                                                              \
    }
#define REPLY(name_, message_, size_, ...)                                             \
    {                                                                                  \
        .name = name_, .data_size = size_, .any = {                                    \
            .kind = WIRE_REPLY,                                                        \
            .as.reply = { .id = UINT64_MAX, .message = message_, __VA_ARGS__ }         \
        }                                                                              \
    }

const struct wire_case wire_cases[] = {
    REQUEST("hello", OPT_MESSAGE_HELLO, 0,
            .body.hello = { .protocol = 1,
                            .worker = "worker-1",
                            .session = 0xFEDCBA9876543210,
                            .client = "test 1.0",
                            .require = features,
                            .require_count = 2,
                            .lease_ms = 5000,
                            .incarnation = 7,
                            .token = token,
                            .token_size = sizeof token,
                            .max_frame_bytes = UINT64_C(1) << 33 }),
    REQUEST("hello of an observer", OPT_MESSAGE_HELLO, 0,
            .body.hello = { .protocol = 1,
                            .worker = "",
                            .session = 1,
                            .client = "",
                            .max_frame_bytes = OPT_FRAME_BYTES }),
    REQUEST("create from parts", OPT_MESSAGE_CREATE, 1000,
            .body.create = { .model = MODEL_NAME,
                             .specification = { .expression = "",
                                                .rule = "adam",
                                                .options = options,
                                                .option_count = 5,
                                                .groups = groups,
                                                .group_count = 2 },
                             .consistency = { .mode = OPT_ASYNC,
                                              .loss = OPT_LOSS_FAIL,
                                              .min_workers = 9,
                                              .samples = UINT64_MAX,
                                              .backup = 3,
                                              .staleness = UINT32_MAX,
                                              .damping = true,
                                              .delay_compensation = 0.04,
                                              .atomic = OPT_ATOMIC_SHARD },
                             .assigned = true,
                             .join = true,
                             .durability = OPT_DURABILITY_ALWAYS,
                             .checkpoint_steps = UINT64_MAX }),
    REQUEST("create from an expression", OPT_MESSAGE_CREATE, 10,
            .body.create = { .model = "m",
                             .specification = { .expression = "lamb(lr=0.002)",
                                                .rule = "" },
                             .consistency = { .min_workers = 1 } }),
    REQUEST("open", OPT_MESSAGE_OPEN, 0, .body.open = { .model = "m", .join = true }),
    REQUEST(
        "open after a reconnect", OPT_MESSAGE_OPEN, 0,
        .body.open = { .model = "m", .unanswered = sequences, .unanswered_count = 3 }),
    REQUEST("assign", OPT_MESSAGE_ASSIGN, SEGMENT_ELEMENTS * 4,
            .body.assign = { .model = 3,
                             .dtype = OPT_FP32,
                             .segments = segments,
                             .segment_count = 3,
                             .last = true }),
    REQUEST("list", OPT_MESSAGE_LIST, 0, .has_checksum = false),
    REQUEST("describe", OPT_MESSAGE_DESCRIBE, 0, .body.describe = MODEL_NAME),
    REQUEST("push", OPT_MESSAGE_PUSH, SEGMENT_ELEMENTS * 2, .has_checksum = true,
            .checksum = 0x8877665544332211,
            .body.push = { .model = 3,
                           .sequence = 4,
                           .basis = 5,
                           .samples = 6,
                           .form = OPT_FORM_SUM,
                           .dtype = OPT_BF16,
                           .segments = segments,
                           .segment_count = 3,
                           .frame = 7,
                           .last = true,
                           .incarnation = 8 }),
    REQUEST("push of whole tensors", OPT_MESSAGE_PUSH, 400,
            .body.push = { .sequence = 1,
                           .samples = 1,
                           .segments = open_segments,
                           .segment_count = 2 }),
    REQUEST("push by place", OPT_MESSAGE_PUSH, 0, .has_checksum = true,
            .checksum = 0x8877665544332211, .released = released, .released_count = 3,
            .body.push = { .model = 3,
                           .sequence = 4,
                           .samples = 1,
                           .dtype = OPT_BF16,
                           .segments = segments,
                           .segment_count = 3,
                           .places = places,
                           .incarnation = 8 }),
    REQUEST("push of rows", OPT_MESSAGE_PUSH, 6 * 4,
            .body.push = { .model = 3,
                           .sequence = 4,
                           .samples = 1,
                           .segments = row_segments,
                           .segment_count = 3,
                           .last = true }),
    REQUEST("pull", OPT_MESSAGE_PULL, 0,
            .body.pull = { .model = 3,
                           .view = OPT_VIEW_SLOT,
                           .slot = "exp_avg",
                           .dtype = OPT_FP16,
                           .segments = open_segments,
                           .segment_count = 2,
                           .min_step = 9,
                           .since = UINT64_MAX }),
    REQUEST("pull that may be by place", OPT_MESSAGE_PULL, 0, .released = released,
            .released_count = 1,
            .body.pull = { .model = 3, .slot = "", .shared = true }),
    REQUEST("pull of everything", OPT_MESSAGE_PULL, 0,
            .body.pull = { .view = OPT_VIEW_EVAL, .slot = "" }),
    REQUEST("pull of rows", OPT_MESSAGE_PULL, 0,
            .body.pull = { .model = 3,
                           .slot = "",
                           .segments = row_segments,
                           .segment_count = 3 }),
    REQUEST("push_pull", OPT_MESSAGE_PUSH_PULL, SEGMENT_ELEMENTS * 2,
            .body.push_pull = { .push = { .model = 3,
                                          .sequence = 4,
                                          .samples = 6,
                                          .dtype = OPT_FP16,
                                          .segments = segments,
                                          .segment_count = 3,
                                          .last = true },
                                .pull = { .model = 3,
                                          .slot = "",
                                          .dtype = OPT_BF16,
                                          .segments = segments,
                                          .segment_count = 2,
                                          .since = 1 },
                                .has_pull = true }),
    REQUEST("push_pull, a frame before the last", OPT_MESSAGE_PUSH_PULL, 32768,
            .body.push_pull = { .push = { .sequence = 4,
                                          .samples = 1,
                                          .dtype = OPT_FP16,
                                          .segments = segments,
                                          .segment_count = 1 },
                                .pull = { .slot = "" } }),
    REQUEST("push_pull by place", OPT_MESSAGE_PUSH_PULL, 0,
            .body.push_pull = { .push = { .model = 3,
                                          .sequence = 4,
                                          .samples = 6,
                                          .segments = segments,
                                          .segment_count = 2,
                                          .places = places,
                                          .last = true },
                                .pull = { .model = 3, .slot = "", .shared = true },
                                .has_pull = true }),
    REQUEST("wait", OPT_MESSAGE_WAIT, 0,
            .body.wait = { .model = 3, .step = 1000, .epoch = 12, .durable = true }),
    REQUEST("statistics", OPT_MESSAGE_STATISTICS, 0, .has_checksum = false),
    REQUEST("leave", OPT_MESSAGE_LEAVE, 0, .body.leave = 3),
    REQUEST("rest", OPT_MESSAGE_REST, 0, .body.rest = 3),
    REQUEST("share", OPT_MESSAGE_SHARE, 0, .body.share = UINT32_MAX),
    REQUEST("reload", OPT_MESSAGE_RELOAD, 0, .body = { { 0 } }),
    REQUEST("checkpoint", OPT_MESSAGE_CHECKPOINT, 0,
            .body.checkpoint = { .model = MODEL_NAME, .wait = true }),
    REQUEST("barrier", OPT_MESSAGE_BARRIER, 0,
            .body.barrier = { .model = 3, .sequence = UINT64_MAX }),
    REQUEST("heartbeat", OPT_MESSAGE_HEARTBEAT, 0, .has_checksum = false),
    REQUEST("heartbeat that releases", OPT_MESSAGE_HEARTBEAT, 0, .released = released,
            .released_count = 3),
    REQUEST("goodbye", OPT_MESSAGE_GOODBYE, 0, .has_checksum = false),
    REQUEST("delete", OPT_MESSAGE_DELETE, 0, .body.delete_ = MODEL_NAME),

    REQUEST("set", OPT_MESSAGE_SET, 0,
            .body.set = { .model = MODEL_NAME,
                          .change = "lr=5e-4, cosine(20000)",
                          .options = options,
                          .option_count = 5,
                          .groups = groups,
                          .group_count = 2,
                          .at_step = 1000 }),

    REPLY("error", OPT_MESSAGE_ERROR, 0,
          .body.error = { .status = OPT_RESOURCE_EXHAUSTED,
                          .text = "3 bytes are missing",
                          .retry_after_ms = 100 }),
    REPLY("error of a push", OPT_MESSAGE_ERROR, 0,
          .body.error = { .status = OPT_ABORTED,
                          .text = "worker \"b\" was lost",
                          .fate = OPT_FATE_IN_PART,
                          .shards_applied = 2,
                          .shards = 8,
                          .detail = OPT_DETAIL_WORKER_LOST }),
    REPLY("error with the last detail", OPT_MESSAGE_ERROR, 0,
          .body.error = { .status = OPT_UNAVAILABLE,
                          .text = "send it once more",
                          .fate = OPT_FATE_NOT_TAKEN,
                          .detail = OPT_DETAIL_COUNT - 1 }),
    REPLY("error of a push that was applied", OPT_MESSAGE_ERROR, 0,
          .body.error = { .status = OPT_DEADLINE_EXCEEDED,
                          .text = "the disk has not synced it in time",
                          .fate = OPT_FATE_APPLIED,
                          .detail = OPT_DETAIL_NOT_DURABLE,
                          .step = 1200 }),
    REPLY("hello reply", OPT_MESSAGE_HELLO, 0,
          .body.hello = { .protocol = 1,
                          .server = "optimd 0.1.0",
                          .incarnation = 2,
                          .lease_ms = 3,
                          .heartbeat_ms = 4,
                          .max_frame_bytes = UINT64_C(1) << 33,
                          .max_header_bytes = 6,
                          .chunk_bytes = 7,
                          .block_elements = 8,
                          .features = features,
                          .feature_count = 2,
                          .lost = "after 5.0 s of silence",
                          .inflight_bytes = 9 }),
    REPLY("model reply", OPT_MESSAGE_MODEL, 0,
          .body.model = { .model = 1,
                          .created = true,
                          .ready = true,
                          .step = 2,
                          .last_sequence = 3,
                          .tensors = 4,
                          .parameters = 5,
                          .workers = 6,
                          .specification = "sgd(lr=0.1)",
                          .settled = settled,
                          .settled_count = 2,
                          .lost_step = 7,
                          .identity = UINT64_MAX,
                          .inflight_bytes = 8,
                          .waiting = sequences,
                          .waiting_count = 2,
                          .remembered_since = 3 }),
    REPLY("assign reply", OPT_MESSAGE_ASSIGN, 0, .has_checksum = false),
    REPLY("list reply", OPT_MESSAGE_LIST, 50, .has_checksum = false),
    REPLY("describe reply", OPT_MESSAGE_DESCRIBE, 60, .has_checksum = true,
          .checksum = UINT64_MAX),
    REPLY("push reply", OPT_MESSAGE_PUSH, 0,
          .body.push = { .fate = OPT_FATE_DROPPED,
                         .step = 1,
                         .staleness = 2,
                         .reason = "too late",
                         .epoch = 3,
                         .lost = { lost, 2 },
                         .durable = true }),
    REPLY("pull reply", OPT_MESSAGE_PULL, SEGMENT_ELEMENTS * 4, .has_checksum = true,
          .checksum = 1,
          .body.pull = { .step = 1,
                         .segments = segments,
                         .segment_count = 3,
                         .last = true,
                         .epoch = 2 }),
    REPLY("pull reply of what has changed", OPT_MESSAGE_PULL, 16384 * 4,
          .body.pull = { .step = 1,
                         .segments = segments,
                         .segment_count = 1,
                         .unchanged = segments + 1,
                         .unchanged_count = 2 }),
    REPLY("pull reply of nothing", OPT_MESSAGE_PULL, 0,
          .body.pull = { .step = UINT64_MAX,
                         .last = true,
                         .unchanged = segments,
                         .unchanged_count = 3 }),
    REPLY("pull reply of rows", OPT_MESSAGE_PULL, 6 * 2,
          .body.pull = { .step = 1,
                         .dtype = OPT_FP16,
                         .segments = row_segments,
                         .segment_count = 2,
                         .last = true,
                         .held = 5 }),
    REPLY("pull reply by place", OPT_MESSAGE_PULL, 0,
          .body.pull = { .step = 1,
                         .segments = segments,
                         .segment_count = 3,
                         .places = places,
                         .last = true,
                         .epoch = 2 }),
    REPLY("push_pull reply", OPT_MESSAGE_PUSH_PULL, SEGMENT_ELEMENTS * 2,
          .body.push_pull = { .has_push = true,
                              .push = { .fate = OPT_FATE_APPLIED,
                                        .step = 1,
                                        .reason = "" },
                              .pull = { .step = 1,
                                        .dtype = OPT_BF16,
                                        .segments = segments,
                                        .segment_count = 3,
                                        .last = true,
                                        .unchanged = segments + 2,
                                        .unchanged_count = 1 } }),
    REPLY("push_pull reply, a frame before the last", OPT_MESSAGE_PUSH_PULL, 32768,
          .body.push_pull = { .push = { .reason = "" },
                              .pull = { .dtype = OPT_FP16,
                                        .segments = segments,
                                        .segment_count = 1 } }),
    REPLY("push_pull reply by place", OPT_MESSAGE_PUSH_PULL, 0,
          .body.push_pull = { .has_push = true,
                              .push = { .fate = OPT_FATE_APPLIED,
                                        .step = 1,
                                        .reason = "" },
                              .pull = { .step = 1,
                                        .segments = segments,
                                        .segment_count = 1,
                                        .places = places } }),
    REPLY("wait reply", OPT_MESSAGE_WAIT, 0,
          .body.wait = { .step = 1, .epoch = 2, .lost = { lost, 1 }, .durable = true }),
    REPLY("barrier reply", OPT_MESSAGE_BARRIER, 0,
          .body.barrier = { .step = 1, .epoch = 2, .lost = { lost, 2 } }),
    REPLY("rest reply", OPT_MESSAGE_REST, 0, .has_checksum = false),
    REPLY("share reply", OPT_MESSAGE_SHARE, 0,
          .body.share = { .gradient_bytes = UINT64_MAX, .weight_bytes = 128 }),
    REPLY("share reply to an observer", OPT_MESSAGE_SHARE, 0,
          .body.share = { .weight_bytes = UINT64_C(1) << 43 }),
    REPLY("reload reply", OPT_MESSAGE_RELOAD, 0,
          .body.reload = { .unchanged = "loops, max-frame" }),
    REPLY("checkpoint reply", OPT_MESSAGE_CHECKPOINT, 0,
          .body.checkpoint = { .step = UINT64_MAX,
                               .record = 12,
                               .folder = "models/00aabbccddeeff00/"
                                         "0000000012-step-1200" }),
    REPLY("statistics reply", OPT_MESSAGE_STATISTICS, 0,
          .body.statistics = { .counters = counters, .count = 2 }),
    REPLY("leave reply", OPT_MESSAGE_LEAVE, 0, .has_checksum = false),
    REPLY("heartbeat reply", OPT_MESSAGE_HEARTBEAT, 0, .has_checksum = false),
    REPLY("goodbye reply", OPT_MESSAGE_GOODBYE, 0, .has_checksum = false),
    REPLY("delete reply", OPT_MESSAGE_DELETE, 0, .has_checksum = false),
    REPLY("set reply", OPT_MESSAGE_SET, 0,
          .body.set = { .step = 1001, .specification = "sgd(lr=0.1)" }),

    { .name = "tensor table",
      .any = { .kind = WIRE_TENSORS,
               .as.tensors = { .entries = tensors, .count = 4 } } },
    { .name = "model table",
      .any = { .kind = WIRE_MODELS, .as.models = { .entries = models, .count = 2 } } },
    { .name = "description",
      .any = { .kind = WIRE_DESCRIPTION,
               .as.description = { .summary = { .name = "m",
                                                .model = 1,
                                                .step = 2,
                                                .tensors = 3,
                                                .parameters = 4,
                                                .workers = 5,
                                                .specification = "sgd(lr=0.1)" },
                                   .consistency = { .mode = OPT_ASYNC,
                                                    .loss = OPT_LOSS_WAIT,
                                                    .min_workers = 6,
                                                    .damping = true },
                                   .ready = true,
                                   .epoch = 7,
                                   .lr = 0.125,
                                   .bytes = 8,
                                   .rounds_skipped = 9,
                                   .rounds = 10,
                                   .dropped = 11,
                                   .mean_staleness = 12.5,
                                   .checkpoint_steps = 1000,
                                   .slots = slots,
                                   .slot_count = 2,
                                   .tensors = tensors,
                                   .tensor_count = 4,
                                   .workers = workers,
                                   .worker_count = 2,
                                   .changes = changes,
                                   .change_count = 2 } } },
};
const size_t wire_case_count = sizeof(wire_cases) / sizeof(wire_cases[0]);

/* ---------------------------------------------------------------- both ways */

size_t wire_any_pack(const struct wire_any *any, uint8_t *out, size_t capacity)
{
    switch (any->kind) {
    case WIRE_REQUEST:
        return opt_request_pack(&any->as.request, out, capacity);
    case WIRE_REPLY:
        return opt_reply_pack(&any->as.reply, out, capacity);
    case WIRE_TENSORS:
        return opt_tensor_table_pack(any->as.tensors.entries, any->as.tensors.count,
                                     out, capacity);
    case WIRE_MODELS:
        return opt_model_table_pack(any->as.models.entries, any->as.models.count, out,
                                    capacity);
    case WIRE_DESCRIPTION:
        return opt_description_pack(&any->as.description, out, capacity);
    case WIRE_KINDS:
        break;
    }
    return 0;
}

enum opt_status wire_any_read(const uint8_t *bytes, size_t size, size_t data_size,
                              struct opt_arena *arena, struct wire_any *out,
                              struct opt_error *error)
{
    switch (out->kind) {
    case WIRE_REQUEST:
        return opt_request_read(bytes, size, data_size, arena, &out->as.request, error);
    case WIRE_REPLY:
        return opt_reply_read(bytes, size, data_size, arena, &out->as.reply, error);
    case WIRE_TENSORS:
        return opt_tensor_table_read(bytes, size, OPT_TENSORS_MAX, arena,
                                     &out->as.tensors.entries, &out->as.tensors.count,
                                     error);
    case WIRE_MODELS:
        return opt_model_table_read(bytes, size, arena, &out->as.models.entries,
                                    &out->as.models.count, error);
    case WIRE_DESCRIPTION:
        return opt_description_read(bytes, size, arena, &out->as.description, error);
    case WIRE_KINDS:
        break;
    }
    return OPT_INTERNAL;
}
