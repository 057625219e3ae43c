/* push — see push.h. */
#include "server/rounds/push.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/region.h"
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/shard_schedule.h"
#include "server/update/rows.h"
#include "server/update/written.h"
#include "server/weights/segment.h"

enum {
    PUSHES_WAITING = 16,           /* of one worker, at most */
    SAMPLE_PUSHES = 64,            /* the same where a round may have several of it, */
    SAMPLE_PUSHES_LEAST = 2,       /* unless they take too much memory, */
    SAMPLE_PUSHES_BYTES = 64 << 20 /* which is this */
};

enum { SEGMENT_BYTES = 288, SPARSE_RESERVED = 1 << 20 };

/* In the measure of work_done: */
enum {
    SEGMENT_COST = 32, /* of a segment that has come, */
    TENSOR_COST = 16,  /* of a tensor that is forgotten or found to be whole, */
    BYTES_CLEARED = 16 /* and bytes of tables that are forgotten in one unit */
};

size_t push_frames_bytes(const struct model *model)
{
    return (size_t)model->parameters * sizeof(float) +
           model->tensor_count * SEGMENT_BYTES;
}

static size_t sparse_bytes(const struct model *model)
{
    return (size_t)model->sparse_parameters * sizeof(float);
}

bool push_is_reserved_whole(const struct model *model)
{
    return sparse_bytes(model) <= SPARSE_RESERVED;
}

size_t push_frames_reserved(const struct model *model)
{
    size_t whole = push_frames_bytes(model);
    return push_is_reserved_whole(model)
               ? whole
               : whole - sparse_bytes(model) + SPARSE_RESERVED;
}

static size_t tables_bytes(const struct model *model)
{
    size_t shards = shard_schedule_is_policy(model) ? model->shard_count : 0;
    return sizeof(struct push) + model->shard_count * sizeof(uint8_t) +
           (model->tensor_count * 2 + shards) * sizeof(uint32_t) +
           model->blocks * sizeof(uint8_t *);
}

size_t push_bytes(const struct model *model)
{
    return push_frames_reserved(model) + tables_bytes(model);
}

size_t push_limit(const struct model *model)
{
    return model->consistency.samples > 0 ? push_reserved(model) : PUSHES_WAITING;
}

size_t push_reserved(const struct model *model)
{
    if (model->consistency.samples == 0) {
        return 1;
    }
    size_t most = SAMPLE_PUSHES_BYTES / push_bytes(model);
    return most < SAMPLE_PUSHES_LEAST ? SAMPLE_PUSHES_LEAST
           : most < SAMPLE_PUSHES     ? most
                                      : SAMPLE_PUSHES;
}

void push_free(struct push *push)
{
    if (push == NULL) {
        return;
    }
    free(push->gradient.tensors);
    free(push->gradient.covered);
    free(push->here);
    free(push->left);
    free(push->gradient.blocks);
    free(push);
}

static struct push *make(struct model *model)
{
    struct push *push = calloc(1, sizeof *push);
    if (push == NULL) {
        return NULL;
    }
    push->model = model;
    push->gradient.tensors =
        calloc(model->tensor_count, sizeof *push->gradient.tensors);
    push->gradient.covered =
        calloc(model->tensor_count, sizeof *push->gradient.covered);
    push->gradient.blocks = calloc(model->blocks, sizeof *push->gradient.blocks);
    push->left = calloc(model->shard_count, sizeof *push->left);
    if (shard_schedule_is_policy(model)) {
        push->here = calloc(model->shard_count, sizeof *push->here);
    }
    if (push->gradient.tensors == NULL || push->gradient.covered == NULL ||
        push->gradient.blocks == NULL || push->left == NULL ||
        (shard_schedule_is_policy(model) && push->here == NULL)) {
        push_free(push);
        return NULL;
    }
    return push;
}

struct push *push_new(struct engine *engine, struct model *model)
{
    struct push *push = model->spare_pushes;
    if (push != NULL) {
        model->spare_pushes = push->next;
        push->next = NULL;
        return push;
    }
    size_t reserved = model->joined * push_reserved(model);
    size_t price = model->push_count < reserved ? 0 : tables_bytes(model);
    if (price > 0 && !budget_take(&engine->budget, price)) {
        return NULL;
    }
    push = make(model);
    if (push == NULL) {
        budget_give(&engine->budget, price);
        return NULL;
    }
    model->push_count++;
    model->pushes_paid += price > 0;
    return push;
}

void push_refund(struct engine *engine, struct model *model)
{
    budget_give(&engine->budget, model->pushes_paid * tables_bytes(model));
    model->pushes_paid = 0;
}

void push_trim(struct engine *engine, struct model *model)
{
    size_t reserved = model->joined * push_reserved(model);
    while (model->spare_pushes != NULL && model->push_count > reserved) {
        struct push *push = model->spare_pushes;
        model->spare_pushes = push->next;
        push_free(push);
        model->push_count--;
        if (model->pushes_paid > 0) {
            model->pushes_paid--;
            budget_give(&engine->budget, tables_bytes(model));
        }
    }
}

/* What the gradient had. Of many tensors all tables are cleared: they are short, and
 * what each tensor has of them is not looked up. */
static void forget_blocks(struct engine *engine, struct push *push)
{
    enum { MANY = 16 }; /* one in so many */
    struct model *model = push->model;
    struct gradient *gradient = &push->gradient;
    if (gradient->tensor_count > model->tensor_count / MANY) {
        size_t blocks = model->blocks * sizeof *gradient->blocks;
        size_t covered = model->tensor_count * sizeof *gradient->covered;
        memset(gradient->blocks, 0, blocks);
        memset(gradient->covered, 0, covered);
        work_done(engine, (blocks + covered) / BYTES_CLEARED);
        return;
    }
    for (size_t i = 0; i < gradient->tensor_count; i++) {
        const struct tensor *tensor = &model->tensors[gradient->tensors[i]];
        memset(gradient->blocks + tensor->first_block, 0,
               tensor->blocks * sizeof *gradient->blocks);
        gradient->covered[gradient->tensors[i]] = 0;
    }
    work_done(engine, TENSOR_COST * (uint64_t)gradient->tensor_count);
}

void push_recycle(struct engine *engine, struct push *push)
{
    struct model *model = push->model;
    alarm_cancel(&engine->alarms, &push->deadline);
    while (push->frames != NULL) {
        struct letter *letter = push->frames;
        push->frames = letter->next;
        if (letter != push->answer) {
            answer_nothing(engine, letter);
        }
    }
    forget_blocks(engine, push);
    if (push->here != NULL) {
        memset(push->here, 0, model->shard_count * sizeof *push->here);
    }
    push_forget_left(push);
    model->rows_held -= push->gradient.row_count;
    model->row_elements_held -= push->gradient.row_elements;
    struct push empty = {
        .model = model,
        .gradient = { .tensors = push->gradient.tensors,
                      .covered = push->gradient.covered,
                      .blocks = push->gradient.blocks },
        .here = push->here,
        .left = push->left,
        .next = model->spare_pushes,
    };
    *push = empty;
    model->spare_pushes = push;
    push_trim(engine, model);
}

/* Whether everything that a frame brought has been published. */
static bool is_spent(const struct model *model, const struct letter *letter)
{
    const struct opt_push *head = letter_push(letter);
    for (size_t i = 0; i < head->segment_count; i++) {
        const struct opt_segment *segment = &head->segments[i];
        const struct tensor *tensor = &model->tensors[segment->tensor];
        uint64_t end =
            segment->count == 0 ? tensor->n : segment->offset + segment->count;
        for (uint64_t shard = segment->offset / OPT_SHARD; shard * OPT_SHARD < end;
             shard++) {
            if (!model->shards[tensor->shard + shard].published) {
                return false;
            }
        }
    }
    return true;
}

void push_release(struct engine *engine, struct push *push)
{
    const struct letter *first = push_first_frame(push);
    struct letter **link = &push->frames;
    while (*link != NULL) {
        struct letter *letter = *link;
        if (letter == first || letter == push->answer ||
            !is_spent(push->model, letter)) {
            link = &letter->next;
            continue;
        }
        *link = letter->next;
        answer_nothing(engine, letter);
    }
}

void push_forget_left(struct push *push)
{
    memset(push->left, 0, push->model->shard_count * sizeof *push->left);
}

/* ---------------------------------------------------------------- frames */

static bool is_same(const struct opt_push *first, const struct opt_push *head)
{
    return head->sequence == first->sequence && head->basis == first->basis &&
           head->samples == first->samples && head->form == first->form &&
           head->dtype == first->dtype;
}

enum opt_status push_continues(const struct push *push, const struct opt_push *head,
                               struct opt_error *error)
{
    if (head->frame != push->frame_count) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "frame %" PRIu32 " of a push came where frame %" PRIu32
                        " was due",
                        head->frame, push->frame_count);
    }
    if (!is_same(&push->head, head)) {
        return opt_fail(
            error, OPT_INVALID_ARGUMENT,
            "frame %" PRIu32
            " of a push differs from the first in sequence, basis, samples, "
            "form or dtype",
            head->frame);
    }
    return OPT_OK;
}

/* Rows are not used before the push is complete: forget those that have come. */
static void forget_rows(struct push *push)
{
    struct model *model = push->model;
    size_t kept = 0;
    for (size_t i = 0; i < push->gradient.tensor_count; i++) {
        uint32_t tensor = push->gradient.tensors[i];
        if (model->tensors[tensor].width > 0) {
            push->gradient.covered[tensor] = 0;
            push->whole--;
        } else {
            push->gradient.tensors[kept++] = tensor;
        }
    }
    push->gradient.tensor_count = kept;
    model->rows_held -= push->gradient.row_count;
    model->row_elements_held -= push->gradient.row_elements;
    push->gradient.row_count = 0;
    push->gradient.row_elements = 0;
    push->gradient.rows_first = NULL;
    push->gradient.rows_last = NULL;
}

enum opt_status push_resume(struct push *push, const struct letter *letter,
                            const struct opt_push *head, struct opt_error *error)
{
    if (!is_same(&push->head, head)) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the push of sequence %" PRIu64
                        " is sent again with another basis, samples, form or dtype",
                        head->sequence);
    }
    forget_rows(push);
    push_forget_left(push);
    push->again = true;
    push->frame_count = 0;
    push->peer = letter->peer;
    push->request_id = letter->request.id;
    return OPT_OK;
}

/* Note where the values of a segment are. What has come before, in a copy of the push
 * that was cut off, stays as it is: it may have been applied. */
static enum opt_status cover(struct push *push, const struct opt_segment *segment,
                             const uint8_t *values, bool *used, struct opt_error *error)
{
    const struct tensor *tensor = &push->model->tensors[segment->tensor];
    size_t first = (size_t)segment->offset / OPT_BLOCK;
    size_t count = ((size_t)segment->count + OPT_BLOCK - 1) / OPT_BLOCK;
    size_t step = OPT_BLOCK * opt_dtype_size(push->head.dtype);
    for (size_t i = 0; i < count; i++) {
        const uint8_t **block = &push->gradient.blocks[tensor->first_block + first + i];
        if (*block != NULL && push->again) {
            continue;
        }
        if (*block != NULL) {
            return opt_fail(error, OPT_INVALID_ARGUMENT,
                            "the push has element %zu of tensor \"%s\" twice",
                            (first + i) * OPT_BLOCK, tensor->name);
        }
        *block = values + i * step;
        *used = true;
        if (push->here != NULL) {
            size_t shard = tensor->shard + (first + i) / SHARD_BLOCKS;
            push->here[shard]++;
            push->reached = shard < push->reached ? push->reached : shard + 1;
        }
        if (push->gradient.covered[segment->tensor]++ == 0) {
            push->gradient.tensors[push->gradient.tensor_count++] = segment->tensor;
            push->gradient.elements += tensor->n;
        }
        push->whole += push->gradient.covered[segment->tensor] == tensor->blocks;
    }
    return OPT_OK;
}

/* Note the rows of a segment of a sparse tensor, and see that the update that they will
 * be in has room for them. */
static enum opt_status add_rows(struct engine *engine, struct push *push,
                                struct letter *letter,
                                const struct opt_segment *segment,
                                const uint8_t *values, struct opt_error *error)
{
    struct model *model = push->model;
    struct row_run *run = opt_arena_alloc(&letter->arena, sizeof *run);
    size_t elements = segment->row_count * model->tensors[segment->tensor].width;
    if (run == NULL ||
        !rows_reserve(engine, model, model->rows_held + segment->row_count) ||
        !written_reserve_rows(model, model->rows_held + segment->row_count,
                              model->row_elements_held + elements)) {
        return opt_fail_as(
            error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
            "no memory for an update with %zu more rows of tensor \"%s\"",
            segment->row_count, model->tensors[segment->tensor].name);
    }
    *run = (struct row_run){
        .tensor = segment->tensor,
        .rows = segment->rows,
        .count = segment->row_count,
        .values = values,
    };
    if (push->gradient.rows_last == NULL) {
        push->gradient.rows_first = run;
    } else {
        push->gradient.rows_last->next = run;
    }
    push->gradient.rows_last = run;
    push->gradient.row_count += run->count;
    push->gradient.row_elements += elements;
    model->rows_held += run->count;
    model->row_elements_held += elements;
    if (push->gradient.covered[segment->tensor]++ == 0) {
        push->gradient.tensors[push->gradient.tensor_count++] = segment->tensor;
        push->whole++;
    }
    return OPT_OK;
}

static enum opt_status check_finite(struct push *push, const struct letter *letter,
                                    const struct opt_segment *segments, size_t count,
                                    struct opt_error *error)
{
    const struct model *model = push->model;
    if (letter->nonfinite == SIZE_MAX ||
        model->spec.options.nonfinite == OPT_PROPAGATE) {
        return OPT_OK;
    }
    if (model->spec.options.nonfinite == OPT_SKIP) {
        push->skip = true;
        return OPT_OK;
    }
    uint32_t tensor;
    uint64_t element;
    segments_locate(segments, count, letter->nonfinite, &tensor, &element);
    char as[OPT_DTYPE_ENDS_MAX];
    return opt_fail_as(error, OPT_INVALID_ARGUMENT, OPT_DETAIL_NOT_FINITE,
                       "the gradient of tensor \"%s\" is not finite at element %" PRIu64
                       "%s; model \"%s\" rejects such pushes",
                       model->tensors[tensor].name, element,
                       opt_dtype_ends(push->head.dtype, as), model->name);
}

enum opt_status push_whole(struct engine *engine, const struct push *push,
                           struct opt_error *error)
{
    if (push->gradient.tensor_count == 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT, "the push names no tensor");
    }
    if (push->whole == push->gradient.tensor_count) {
        return OPT_OK;
    }
    work_done(engine, TENSOR_COST * (uint64_t)push->gradient.tensor_count);
    for (size_t i = 0; i < push->gradient.tensor_count; i++) {
        uint32_t number = push->gradient.tensors[i];
        const struct tensor *tensor = &push->model->tensors[number];
        if (tensor->width > 0 || push->gradient.covered[number] == tensor->blocks) {
            continue;
        }
        size_t block = 0;
        while (push->gradient.blocks[tensor->first_block + block] != NULL) {
            block++;
        }
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "the push has only a part of tensor \"%s\": %" PRIu32
                        " of %zu blocks, element %zu is missing",
                        tensor->name, push->gradient.covered[number], tensor->blocks,
                        block * OPT_BLOCK);
    }
    return OPT_OK;
}

enum opt_status push_take(struct engine *engine, struct push *push,
                          struct letter *letter, const struct opt_push *head,
                          bool *used, struct opt_error *error)
{
    *used = false;
    struct opt_segment *segments =
        opt_arena_alloc(&letter->arena, (head->segment_count + 1) * sizeof *segments);
    if (segments == NULL) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for the %zu segments of a frame",
                           head->segment_count);
    }
    work_done(engine, SEGMENT_COST * (uint64_t)head->segment_count);
    enum opt_status status = segments_check(
        push->model, SEGMENT_PUSH, head->dtype, head->segments, head->segment_count,
        letter->region != NULL ? letter->placed : letter->data_size, segments, error);
    if (status != OPT_OK || push->echo) {
        return status;
    }
    status = check_finite(push, letter, segments, head->segment_count, error);
    const uint8_t *values = letter->data;
    if (letter->region != NULL) {
        push->gradient.memory = GRADIENT_SHARED;
    }
    for (size_t i = 0; status == OPT_OK && i < head->segment_count; i++) {
        if (letter->region != NULL) {
            values = region_base(letter->region) + head->places[i];
        }
        bool by_rows = push->model->tensors[segments[i].tensor].width > 0;
        *used = *used || by_rows;
        status = by_rows ? add_rows(engine, push, letter, &segments[i], values, error)
                         : cover(push, &segments[i], values, used, error);
        if (segments[i].count > 0) { /* without rows there may be no data at all */
            values += segments[i].count * opt_dtype_size(head->dtype);
        }
    }
    return status;
}
