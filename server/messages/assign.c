/* assign — a new model's initial weights, by its creator. */
#include <inttypes.h>

#include "server/engine/answer.h"
#include "server/engine/commit.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/messages/serve.h"
#include "server/model/model.h"
#include "server/rounds/waiting.h"
#include "server/weights/segment.h"

static enum opt_status check(const struct model *model, struct letter *letter,
                             struct opt_segment **out, struct opt_error *error)
{
    const struct opt_assign *assign = &letter->request.body.assign;
    if (model->ready) {
        return opt_fail_as(
            error, OPT_FAILED_PRECONDITION, OPT_DETAIL_PASSED,
            "model \"%s\" has its weights; they cannot be assigned again", model->name);
    }
    if (model->creator != letter->peer) {
        return opt_fail_as(
            error, OPT_FAILED_PRECONDITION, OPT_DETAIL_NOT_CREATOR,
            "the weights of model \"%s\" are assigned by the connection that "
            "created it",
            model->name);
    }
    struct opt_segment *segments =
        opt_arena_alloc(&letter->arena, (assign->segment_count + 1) * sizeof *segments);
    if (segments == NULL) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for the %zu segments of a frame",
                           assign->segment_count);
    }
    enum opt_status status =
        segments_check(model, SEGMENT_ASSIGN, assign->dtype, assign->segments,
                       assign->segment_count, letter->data_size, segments, error);
    if (status != OPT_OK) {
        return status;
    }
    size_t count = letter->data_size / opt_dtype_size(assign->dtype);
    size_t index = opt_dtype_first_nonfinite(assign->dtype, letter->data, count);
    if (index < count) {
        uint32_t tensor;
        uint64_t element;
        char as[OPT_DTYPE_ENDS_MAX];
        segments_locate(segments, assign->segment_count, index, &tensor, &element);
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the weights of tensor \"%s\" are not finite at element "
                        "%" PRIu64 "%s",
                        model->tensors[tensor].name, element,
                        opt_dtype_ends(assign->dtype, as));
    }
    *out = segments;
    return OPT_OK;
}

void serve_assign(struct engine *engine, struct letter *letter)
{
    const struct opt_assign *assign = &letter->request.body.assign;
    struct model *model = registry_model(engine, letter, assign->model);
    if (model == NULL || waiting_postponed(engine, model, letter, false)) {
        return;
    }
    struct opt_segment *segments = NULL;
    struct opt_error error;
    enum opt_status status = check(model, letter, &segments, &error);
    if (status != OPT_OK) {
        answer_refuse(engine, letter, &error);
        return;
    }
    const uint8_t *values = letter->data;
    for (size_t i = 0; i < assign->segment_count; i++) {
        model_assign(model, &segments[i], assign->dtype, values);
        commit_weights(engine, model, &segments[i], assign->dtype, values);
        values += segments[i].count * opt_dtype_size(assign->dtype);
    }
    bool last = assign->last;
    answer_start(letter, OPT_MESSAGE_ASSIGN);
    answer_send(engine, letter);
    if (last) {
        model_ready(engine, model);
        work_settle(engine, model);
    }
}
