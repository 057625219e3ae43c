/* wire_equal — whether two messages say the same. */
#include <string.h>

#include "tests/support/wire_cases.h"

static bool same_text(const char *a, const char *b)
{
    return strcmp(a == NULL ? "" : a, b == NULL ? "" : b) == 0;
}

/* NaN is the same as NaN here, and 0 is not -0. */
static bool same_double(double a, double b)
{
    uint64_t a_bits;
    uint64_t b_bits;
    memcpy(&a_bits, &a, sizeof(a));
    memcpy(&b_bits, &b, sizeof(b));
    return a_bits == b_bits;
}

static bool same_segments(const struct opt_segment *a, size_t a_count,
                          const struct opt_segment *b, size_t b_count)
{
    if (a_count != b_count) {
        return false;
    }
    for (size_t i = 0; i < a_count; i++) {
        if (a[i].tensor != b[i].tensor || a[i].offset != b[i].offset ||
            a[i].count != b[i].count || a[i].row_count != b[i].row_count) {
            return false;
        }
        for (size_t k = 0; k < a[i].row_count; k++) {
            if (a[i].rows[k] != b[i].rows[k]) {
                return false;
            }
        }
    }
    return true;
}

static bool same_texts(const char *const *a, size_t a_count, const char *const *b,
                       size_t b_count)
{
    bool same = a_count == b_count;
    for (size_t i = 0; same && i < a_count; i++) {
        same = same_text(a[i], b[i]);
    }
    return same;
}

static bool same_options(const struct opt_wire_option *a, size_t a_count,
                         const struct opt_wire_option *b, size_t b_count)
{
    bool same = a_count == b_count;
    for (size_t i = 0; same && i < a_count; i++) {
        same = same_text(a[i].name, b[i].name) && a[i].kind == b[i].kind &&
               same_double(a[i].number, b[i].number) &&
               same_text(a[i].word, b[i].word) && a[i].flag == b[i].flag;
    }
    return same;
}

static bool same_groups(const struct opt_wire_group *a, size_t a_count,
                        const struct opt_wire_group *b, size_t b_count)
{
    bool same = a_count == b_count;
    for (size_t i = 0; same && i < a_count; i++) {
        same = same_text(a[i].pattern, b[i].pattern) &&
               same_options(a[i].options, a[i].option_count, b[i].options,
                            b[i].option_count);
    }
    return same;
}

static bool same_specification(const struct opt_wire_spec *a,
                               const struct opt_wire_spec *b)
{
    return same_text(a->expression, b->expression) && same_text(a->rule, b->rule) &&
           same_options(a->options, a->option_count, b->options, b->option_count) &&
           same_groups(a->groups, a->group_count, b->groups, b->group_count);
}

static bool same_consistency(const struct opt_consistency *a,
                             const struct opt_consistency *b)
{
    return a->mode == b->mode && a->loss == b->loss &&
           a->min_workers == b->min_workers && a->samples == b->samples &&
           a->backup == b->backup && a->staleness == b->staleness &&
           a->damping == b->damping &&
           same_double(a->delay_compensation, b->delay_compensation) &&
           a->atomic == b->atomic;
}

static bool same_numbers(const uint64_t *a, size_t a_count, const uint64_t *b,
                         size_t b_count)
{
    bool same = a_count == b_count;
    for (size_t i = 0; same && i < a_count; i++) {
        same = a[i] == b[i];
    }
    return same;
}

/* Of segments, of which there are as many. */
static bool same_places(const uint64_t *a, const uint64_t *b, size_t count)
{
    return (a == NULL) == (b == NULL) &&
           (a == NULL || same_numbers(a, count, b, count));
}

static bool same_push(const struct opt_push *a, const struct opt_push *b)
{
    return a->model == b->model && a->sequence == b->sequence && a->basis == b->basis &&
           a->samples == b->samples && a->form == b->form && a->dtype == b->dtype &&
           a->frame == b->frame && a->last == b->last &&
           a->incarnation == b->incarnation &&
           same_segments(a->segments, a->segment_count, b->segments,
                         b->segment_count) &&
           same_places(a->places, b->places, a->segment_count);
}

static bool same_pull(const struct opt_pull *a, const struct opt_pull *b)
{
    return a->model == b->model && a->view == b->view && same_text(a->slot, b->slot) &&
           a->dtype == b->dtype && a->min_step == b->min_step && a->since == b->since &&
           a->shared == b->shared &&
           same_segments(a->segments, a->segment_count, b->segments, b->segment_count);
}

static bool same_request(const struct opt_request *a, const struct opt_request *b)
{
    if (a->id != b->id || a->timeout_ms != b->timeout_ms ||
        a->has_checksum != b->has_checksum || a->checksum != b->checksum ||
        a->message != b->message ||
        !same_numbers(a->released, a->released_count, b->released, b->released_count)) {
        return false;
    }
    switch (a->message) {
    case OPT_MESSAGE_HELLO: {
        const struct opt_hello *x = &a->body.hello;
        const struct opt_hello *y = &b->body.hello;
        return x->protocol == y->protocol && same_text(x->worker, y->worker) &&
               x->session == y->session && same_text(x->client, y->client) &&
               same_texts(x->require, x->require_count, y->require, y->require_count) &&
               x->lease_ms == y->lease_ms && x->incarnation == y->incarnation &&
               x->token_size == y->token_size &&
               (x->token_size == 0 || memcmp(x->token, y->token, x->token_size) == 0) &&
               x->max_frame_bytes == y->max_frame_bytes;
    }
    case OPT_MESSAGE_CREATE: {
        const struct opt_create *x = &a->body.create;
        const struct opt_create *y = &b->body.create;
        return same_text(x->model, y->model) && x->assigned == y->assigned &&
               x->join == y->join && x->durability == y->durability &&
               x->checkpoint_steps == y->checkpoint_steps &&
               same_consistency(&x->consistency, &y->consistency) &&
               same_specification(&x->specification, &y->specification);
    }
    case OPT_MESSAGE_OPEN:
        return same_text(a->body.open.model, b->body.open.model) &&
               a->body.open.join == b->body.open.join &&
               same_numbers(a->body.open.unanswered, a->body.open.unanswered_count,
                            b->body.open.unanswered, b->body.open.unanswered_count);
    case OPT_MESSAGE_ASSIGN: {
        const struct opt_assign *x = &a->body.assign;
        const struct opt_assign *y = &b->body.assign;
        return x->model == y->model && x->dtype == y->dtype && x->last == y->last &&
               same_segments(x->segments, x->segment_count, y->segments,
                             y->segment_count);
    }
    case OPT_MESSAGE_DESCRIBE:
        return same_text(a->body.describe, b->body.describe);
    case OPT_MESSAGE_DELETE:
        return same_text(a->body.delete_, b->body.delete_);
    case OPT_MESSAGE_PUSH:
        return same_push(&a->body.push, &b->body.push);
    case OPT_MESSAGE_PULL:
        return same_pull(&a->body.pull, &b->body.pull);
    case OPT_MESSAGE_PUSH_PULL:
        return same_push(&a->body.push_pull.push, &b->body.push_pull.push) &&
               a->body.push_pull.has_pull == b->body.push_pull.has_pull &&
               same_pull(&a->body.push_pull.pull, &b->body.push_pull.pull);
    case OPT_MESSAGE_WAIT:
        return a->body.wait.model == b->body.wait.model &&
               a->body.wait.step == b->body.wait.step &&
               a->body.wait.epoch == b->body.wait.epoch &&
               a->body.wait.durable == b->body.wait.durable;
    case OPT_MESSAGE_SET: {
        const struct opt_set *x = &a->body.set;
        const struct opt_set *y = &b->body.set;
        return same_text(x->model, y->model) && same_text(x->change, y->change) &&
               x->at_step == y->at_step &&
               same_options(x->options, x->option_count, y->options, y->option_count) &&
               same_groups(x->groups, x->group_count, y->groups, y->group_count);
    }
    case OPT_MESSAGE_CHECKPOINT:
        return same_text(a->body.checkpoint.model, b->body.checkpoint.model) &&
               a->body.checkpoint.wait == b->body.checkpoint.wait;
    case OPT_MESSAGE_LEAVE:
        return a->body.leave == b->body.leave;
    case OPT_MESSAGE_REST:
        return a->body.rest == b->body.rest;
    case OPT_MESSAGE_SHARE:
        return a->body.share == b->body.share;
    case OPT_MESSAGE_BARRIER:
        return a->body.barrier.model == b->body.barrier.model &&
               a->body.barrier.sequence == b->body.barrier.sequence;
    default:
        return true;
    }
}

static bool same_settled(const struct opt_model_reply *a,
                         const struct opt_model_reply *b)
{
    bool same = a->settled_count == b->settled_count;
    for (size_t i = 0; same && i < a->settled_count; i++) {
        const struct opt_settled *x = &a->settled[i];
        const struct opt_settled *y = &b->settled[i];
        same = x->sequence == y->sequence && x->fate == y->fate && x->step == y->step &&
               x->status == y->status && x->durable == y->durable;
    }
    return same;
}

static bool same_push_reply(const struct opt_push_reply *a,
                            const struct opt_push_reply *b)
{
    return a->fate == b->fate && a->step == b->step && a->staleness == b->staleness &&
           same_text(a->reason, b->reason) && a->epoch == b->epoch &&
           a->durable == b->durable &&
           same_texts(a->lost.names, a->lost.count, b->lost.names, b->lost.count);
}

static bool same_wait_reply(const struct opt_wait_reply *a,
                            const struct opt_wait_reply *b)
{
    return a->step == b->step && a->epoch == b->epoch && a->durable == b->durable &&
           same_texts(a->lost.names, a->lost.count, b->lost.names, b->lost.count);
}

static bool same_pull_reply(const struct opt_pull_reply *a,
                            const struct opt_pull_reply *b)
{
    return a->step == b->step && a->dtype == b->dtype && a->last == b->last &&
           a->epoch == b->epoch && a->held == b->held &&
           same_segments(a->segments, a->segment_count, b->segments,
                         b->segment_count) &&
           same_segments(a->unchanged, a->unchanged_count, b->unchanged,
                         b->unchanged_count) &&
           same_places(a->places, b->places, a->segment_count);
}

static bool same_reply(const struct opt_reply *a, const struct opt_reply *b)
{
    if (a->id != b->id || a->has_checksum != b->has_checksum ||
        a->checksum != b->checksum || a->message != b->message) {
        return false;
    }
    switch (a->message) {
    case OPT_MESSAGE_ERROR: {
        const struct opt_error_reply *x = &a->body.error;
        const struct opt_error_reply *y = &b->body.error;
        return x->status == y->status && same_text(x->text, y->text) &&
               x->retry_after_ms == y->retry_after_ms && x->fate == y->fate &&
               x->shards_applied == y->shards_applied && x->shards == y->shards &&
               x->detail == y->detail && x->step == y->step;
    }
    case OPT_MESSAGE_HELLO: {
        const struct opt_hello_reply *x = &a->body.hello;
        const struct opt_hello_reply *y = &b->body.hello;
        return x->protocol == y->protocol && same_text(x->server, y->server) &&
               x->incarnation == y->incarnation && x->lease_ms == y->lease_ms &&
               x->heartbeat_ms == y->heartbeat_ms &&
               x->max_frame_bytes == y->max_frame_bytes &&
               x->max_header_bytes == y->max_header_bytes &&
               x->chunk_bytes == y->chunk_bytes &&
               x->block_elements == y->block_elements && same_text(x->lost, y->lost) &&
               same_texts(x->features, x->feature_count, y->features,
                          y->feature_count) &&
               x->inflight_bytes == y->inflight_bytes;
    }
    case OPT_MESSAGE_CREATE: {
        const struct opt_model_reply *x = &a->body.model;
        const struct opt_model_reply *y = &b->body.model;
        return x->model == y->model && x->created == y->created &&
               x->ready == y->ready && x->step == y->step &&
               x->last_sequence == y->last_sequence && x->tensors == y->tensors &&
               x->parameters == y->parameters && x->workers == y->workers &&
               same_text(x->specification, y->specification) &&
               x->identity == y->identity && x->inflight_bytes == y->inflight_bytes &&
               x->lost_step == y->lost_step && same_settled(x, y);
    }
    case OPT_MESSAGE_PUSH:
        return same_push_reply(&a->body.push, &b->body.push);
    case OPT_MESSAGE_PULL:
        return same_pull_reply(&a->body.pull, &b->body.pull);
    case OPT_MESSAGE_PUSH_PULL:
        return a->body.push_pull.has_push == b->body.push_pull.has_push &&
               same_push_reply(&a->body.push_pull.push, &b->body.push_pull.push) &&
               same_pull_reply(&a->body.push_pull.pull, &b->body.push_pull.pull);
    case OPT_MESSAGE_WAIT:
        return same_wait_reply(&a->body.wait, &b->body.wait);
    case OPT_MESSAGE_BARRIER:
        return same_wait_reply(&a->body.barrier, &b->body.barrier);
    case OPT_MESSAGE_SET:
        return a->body.set.step == b->body.set.step &&
               same_text(a->body.set.specification, b->body.set.specification);
    case OPT_MESSAGE_CHECKPOINT:
        return a->body.checkpoint.step == b->body.checkpoint.step &&
               a->body.checkpoint.record == b->body.checkpoint.record &&
               same_text(a->body.checkpoint.folder, b->body.checkpoint.folder);
    case OPT_MESSAGE_RELOAD:
        return same_text(a->body.reload.unchanged, b->body.reload.unchanged);
    case OPT_MESSAGE_SHARE:
        return a->body.share.gradient_bytes == b->body.share.gradient_bytes &&
               a->body.share.weight_bytes == b->body.share.weight_bytes;
    case OPT_MESSAGE_STATISTICS: {
        const struct opt_statistics_reply *x = &a->body.statistics;
        const struct opt_statistics_reply *y = &b->body.statistics;
        bool same = x->count == y->count;
        for (size_t i = 0; same && i < x->count; i++) {
            same = same_text(x->counters[i].name, y->counters[i].name) &&
                   x->counters[i].value == y->counters[i].value;
        }
        return same;
    }
    default:
        return true;
    }
}

static bool same_tensors(const struct opt_tensor_entry *a, size_t a_count,
                         const struct opt_tensor_entry *b, size_t b_count)
{
    bool same = a_count == b_count;
    for (size_t i = 0; same && i < a_count; i++) {
        same = same_text(a[i].name, b[i].name) && a[i].rank == b[i].rank &&
               a[i].elements == b[i].elements && a[i].step == b[i].step &&
               a[i].sparse == b[i].sparse;
        for (size_t j = 0; same && j < a[i].rank; j++) {
            same = a[i].shape[j] == b[i].shape[j];
        }
    }
    return same;
}

static bool same_model(const struct opt_model_entry *a, const struct opt_model_entry *b)
{
    return same_text(a->name, b->name) && a->model == b->model && a->step == b->step &&
           a->tensors == b->tensors && a->parameters == b->parameters &&
           a->workers == b->workers && same_text(a->specification, b->specification) &&
           a->identity == b->identity && a->durability == b->durability;
}

static bool same_worker(const struct opt_worker_entry *a,
                        const struct opt_worker_entry *b)
{
    return same_text(a->name, b->name) && a->incarnation == b->incarnation &&
           a->connected == b->connected && a->pushed == b->pushed &&
           a->last_sequence == b->last_sequence && a->last_step == b->last_step &&
           a->applied == b->applied && a->duplicates == b->duplicates &&
           a->refused == b->refused && a->dropped == b->dropped &&
           a->waits == b->waits && a->waited_us == b->waited_us &&
           a->resting == b->resting && a->away == b->away &&
           memcmp(a->staleness, b->staleness, sizeof(a->staleness)) == 0 &&
           a->resends == b->resends && a->reconnects == b->reconnects;
}

static bool same_description(const struct opt_description *a,
                             const struct opt_description *b)
{
    bool same =
        same_model(&a->summary, &b->summary) &&
        same_consistency(&a->consistency, &b->consistency) && a->ready == b->ready &&
        a->epoch == b->epoch && same_double(a->lr, b->lr) && a->bytes == b->bytes &&
        a->rounds_skipped == b->rounds_skipped && a->rounds == b->rounds &&
        a->dropped == b->dropped && same_double(a->mean_staleness, b->mean_staleness) &&
        a->checkpoint_steps == b->checkpoint_steps &&
        same_texts(a->slots, a->slot_count, b->slots, b->slot_count) &&
        same_tensors(a->tensors, a->tensor_count, b->tensors, b->tensor_count) &&
        a->worker_count == b->worker_count && a->change_count == b->change_count;
    for (size_t i = 0; same && i < a->worker_count; i++) {
        same = same_worker(&a->workers[i], &b->workers[i]);
    }
    for (size_t i = 0; same && i < a->change_count; i++) {
        same = a->changes[i].step == b->changes[i].step &&
               same_text(a->changes[i].before, b->changes[i].before) &&
               same_text(a->changes[i].after, b->changes[i].after);
    }
    return same;
}

bool wire_any_equal(const struct wire_any *a, const struct wire_any *b)
{
    if (a->kind != b->kind) {
        return false;
    }
    switch (a->kind) {
    case WIRE_REQUEST:
        return same_request(&a->as.request, &b->as.request);
    case WIRE_REPLY:
        return same_reply(&a->as.reply, &b->as.reply);
    case WIRE_TENSORS:
        return same_tensors(a->as.tensors.entries, a->as.tensors.count,
                            b->as.tensors.entries, b->as.tensors.count);
    case WIRE_MODELS: {
        bool same = a->as.models.count == b->as.models.count;
        for (size_t i = 0; same && i < a->as.models.count; i++) {
            same = same_model(&a->as.models.entries[i], &b->as.models.entries[i]);
        }
        return same;
    }
    case WIRE_DESCRIPTION:
        return same_description(&a->as.description, &b->as.description);
    case WIRE_KINDS:
        break;
    }
    return false;
}
