/* update — see update.h. */
#include "server/update/update.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/team.h"
#include "server/engine/commit.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/update/gradient.h"
#include "server/update/portion.h"
#include "server/update/written.h"
#include "server/weights/shards.h"

enum {
    PIECE_TENSORS = 8192, /* prepared at a time, per thread */
    PIECE_TENSOR = 128,   /* elements whose update takes as long */
    TEAM_TENSORS = 256,   /* fewer are prepared before a second thread is awake */
    EARLY = 1 << 18 /* elements: shards of a larger batch are published one by one */
};

/* ---------------------------------------------------------------- phases */

static void begin_phase(struct update *update, enum update_phase phase, size_t place)
{
    update->phase = phase;
    update->cursor = place;
    update->cursor_block = 0;
}

void update_begin(struct engine *engine, struct model *model)
{
    struct update *update = &model->update;
    opt_update_begin(&update->scalars, &model->spec, model->step + 1);
    update->parted = false;
    memset(update->is_bound, 0, model->tensor_count);
    engine->counters.updates++;
}

void update_batch(struct model *model, const struct gradient *const *gradients,
                  size_t count)
{
    struct update *update = &model->update;
    update->gradients = gradients;
    update->gradient_count = count;
    update->damping = 1;
    if (model->consistency.damping) { /* such updates have one */
        update->damping =
            1 / (1 + (double)gradient_staleness(gradients[0], model->step));
    }
    update->span_count = 0;
    update->elements = 0;
    update->rows.group_count = 0;
    memset(update->is_touched, 0, model->tensor_count);
}

void update_add(struct model *model, uint32_t tensor, size_t first, size_t end)
{
    struct update *update = &model->update;
    const struct tensor *of = &model->tensors[tensor];
    size_t at = update->elements;
    if (of->width == 0) {
        size_t until = end * OPT_BLOCK < of->n ? end * OPT_BLOCK : of->n;
        update->elements += until - first * OPT_BLOCK;
    }
    struct span *before =
        update->span_count > 0 ? &update->spans[update->span_count - 1] : NULL;
    if (before != NULL && before->tensor == tensor && before->end == first) {
        before->end = (uint32_t)end;
        return;
    }
    update->spans[update->span_count++] =
        (struct span){ .tensor = tensor,
                       .first = (uint32_t)first,
                       .end = (uint32_t)end,
                       .prepares = update->is_bound[tensor] == 0,
                       .at = at };
    update->is_touched[tensor] = 1;
    portion_bind(model, tensor);
}

/* Whether loops have carried no gradients and leave their cores to the team. */
static bool came_through_no_loop(const struct update *update)
{
    for (size_t i = 0; i < update->gradient_count; i++) {
        if (update->gradients[i]->memory != GRADIENT_SHARED) {
            return false;
        }
    }
    return true;
}

/* Have shards published as soon as their last block is stepped, if the batch is large,
 * and if a look ahead does not change them once more. */
static void watch_shards(struct model *model)
{
    struct update *update = &model->update;
    update->unstepped = 0;
    if (update->elements <= EARLY || opt_update_synchronises(&update->scalars)) {
        return;
    }
    for (size_t i = 0; i < model->shard_count; i++) {
        model->shards[i].unstepped = 0;
    }
    for (size_t i = 0; i < update->span_count; i++) {
        const struct span *span = &update->spans[i];
        struct shard *shards = &model->shards[model->tensors[span->tensor].shard];
        for (size_t block = span->first, end; block < span->end; block = end) {
            struct shard *shard = &shards[block / SHARD_BLOCKS];
            end = (block / SHARD_BLOCKS + 1) * SHARD_BLOCKS;
            end = end < span->end ? end : span->end;
            update->unstepped += shard->unstepped == 0;
            shard->unstepped += end - block;
        }
    }
}

void update_batch_start(struct engine *engine, struct model *model, bool last)
{
    struct update *update = &model->update;
    update->last = last;
    update->parted = !last;
    update->started_ns = uv_hrtime();
    commit_model(engine, COMMIT_BATCH, model);
    team_gather(engine->team, came_through_no_loop(update));
    watch_shards(model);
    if (last) {
        rows_begin(model, &engine->team->seats[0]);
    }
    written_start(model);
    begin_phase(
        update,
        opt_update_needs_norms(&update->scalars) ? UPDATE_NORMS : UPDATE_PREPARE, 0);
}

/* Add what no batch before has had of a tensor. */
static void add_rest(struct model *model, uint32_t number)
{
    const struct tensor *tensor = &model->tensors[number];
    if (!model->update.parted || tensor->blocks == 0) {
        update_add(model, number, 0, tensor->blocks);
        return;
    }
    for (size_t block = 0, end; block < tensor->blocks; block = end) {
        end = block + SHARD_BLOCKS < tensor->blocks ? block + SHARD_BLOCKS
                                                    : tensor->blocks;
        if (!model->shards[tensor->shard + block / SHARD_BLOCKS].published) {
            update_add(model, number, block, end);
        }
    }
}

/* Whether a gradient names the tensors of the first, in ascending order. */
static bool names_as_first(const struct update *update, const struct gradient *gradient)
{
    const struct gradient *first = update->gradients[0];
    for (size_t i = 1; gradient == first && i < first->tensor_count; i++) {
        if (first->tensors[i] <= first->tensors[i - 1]) {
            return false;
        }
    }
    return gradient->tensor_count == first->tensor_count &&
           memcmp(gradient->tensors, first->tensors,
                  first->tensor_count * sizeof *first->tensors) == 0;
}

/* Add the next of the tensors that the gradients name, in ascending order. The last of
 * them start the batch. */
static void add_tensors(struct engine *engine, struct model *model)
{
    struct update *update = &model->update;
    const struct gradient *first = update->in_order ? update->gradients[0] : NULL;
    size_t end = update->in_order ? first->tensor_count : model->tensor_count;
    size_t begin = update->cursor;
    size_t until = end - begin > PIECE_TENSORS ? begin + PIECE_TENSORS : end;
    for (; update->cursor < until; update->cursor++) {
        uint32_t number = update->in_order ? first->tensors[update->cursor]
                                           : (uint32_t)update->cursor;
        if (update->in_order || update->is_touched[number] != 0) {
            add_rest(model, number);
        }
    }
    work_done(engine, (uint64_t)PIECE_TENSOR * (until - begin));
    if (until == end) {
        update_batch_start(engine, model, true);
    }
}

/* Mark the tensors that the next of the gradients name, unless all of them name those
 * of the first in ascending order. Workers usually do, and then nothing is done for all
 * the others. */
static void mark_tensors(struct engine *engine, struct model *model)
{
    struct update *update = &model->update;
    for (uint64_t before = engine->turn_cost;
         update->cursor < update->gradient_count &&
         work_may_do(engine, engine->turn_cost - before);) {
        const struct gradient *gradient = update->gradients[update->cursor];
        work_done(engine, gradient->tensor_count);
        if (update->in_order && !names_as_first(update, gradient)) {
            update->in_order = false;
            update->cursor = 0; /* those before have not been marked */
            continue;
        }
        for (size_t k = 0; !update->in_order && k < gradient->tensor_count; k++) {
            update->is_touched[gradient->tensors[k]] = 1;
        }
        update->cursor++;
    }
    if (update->cursor == update->gradient_count) {
        begin_phase(update, UPDATE_ADD, 0);
        if (work_may_do(engine, engine->turn_cost)) {
            add_tensors(engine, model);
        }
    }
}

void update_rest(struct engine *engine, struct model *model,
                 const struct gradient *const *gradients, size_t count)
{
    struct update *update = &model->update;
    update_batch(model, gradients, count);
    update->in_order = count > 0;
    begin_phase(update, UPDATE_MARK, 0);
    mark_tensors(engine, model);
}

uint64_t update_cost(const struct model *model)
{
    const struct update *update = &model->update;
    if (update->phase == UPDATE_MARK || update->phase == UPDATE_ADD) {
        return UINT64_MAX; /* not known yet, and much */
    }
    uint64_t all = update->last && opt_update_synchronises(&update->scalars)
                       ? model->floats + PORTION_WORK * (uint64_t)model->tensor_count
                       : 0;
    return update->elements + PORTION_WORK * (uint64_t)update->span_count +
           PORTION_ROW * (uint64_t)update->rows.group_count + all;
}

/* The same as portion_block_overflow, of the row of a group. */
static size_t row_overflow(const struct model *model, size_t group)
{
    const struct rows *rows = &model->update.rows;
    struct opt_contribution written;
    bool is_written = written_row(model, group, &written);
    return portion_first_overflow(
        is_written ? &written : rows->contributions + rows->groups[group].first,
        is_written ? 1 : rows_contributions(rows, group), rows_width(model, group));
}

/* Where the aggregate is not finite; about there, if its worker has changed it since.
 */
static void find_overflow(struct engine *engine, struct model *model, uint32_t *tensor,
                          uint64_t *element)
{
    const struct update *update = &model->update;
    for (size_t i = 0; i < update->span_count; i++) {
        uint32_t number = update->spans[i].tensor;
        const struct tensor *of = &model->tensors[number];
        for (size_t k = 0; k < of->blocks; k++) {
            if (isfinite(update->sums[of->first_block + k].first)) {
                continue;
            }
            struct work work = { .tensor = number,
                                 .block = (uint32_t)k,
                                 .place = (uint32_t)i };
            size_t found =
                portion_block_overflow(model, &work, &engine->team->seats[0]);
            *tensor = number;
            bool is_there = found < portion_block_elements(of, k);
            *element = k * OPT_BLOCK + (is_there ? found : 0);
            return;
        }
    }
    const struct rows *rows = &update->rows;
    for (size_t i = 0; i < rows->group_count; i++) {
        if (!isfinite(rows->sums[i].first)) {
            size_t width = rows_width(model, i), found = row_overflow(model, i);
            *tensor = rows->groups[i].tensor;
            *element = rows->groups[i].row * width + (found < width ? found : 0);
            return;
        }
    }
    assert(!"a block or row whose sum is not finite");
}

/* Hand the sums of the next tensors in. */
static enum update_progress add_norms(struct engine *engine, struct model *model,
                                      uint32_t *overflow_tensor,
                                      uint64_t *overflow_element)
{
    struct update *update = &model->update;
    size_t rest = update->span_count - update->cursor;
    size_t end = update->cursor + (rest < PIECE_TENSORS ? rest : PIECE_TENSORS);
    work_done(engine, (uint64_t)PIECE_TENSOR * (end - update->cursor));
    for (; update->cursor < end; update->cursor++) {
        uint32_t number = update->spans[update->cursor].tensor;
        const struct tensor *tensor = &model->tensors[number];
        if (tensor->width > 0) {
            rows_add_norm(model, number, &update->norm_group);
            continue;
        }
        opt_update_add_norm(&update->scalars, &update->tensors[number],
                            update->sums + tensor->first_block, tensor->blocks);
    }
    if (end < update->span_count) {
        return UPDATE_MORE;
    }
    opt_update_end_norms(&update->scalars);
    if (!opt_update_finite(&update->scalars)) {
        find_overflow(engine, model, overflow_tensor, overflow_element);
        written_forget(model);
        return UPDATE_OVERFLOW;
    }
    begin_phase(update, UPDATE_PREPARE, 0);
    return UPDATE_MORE;
}

/* The next group: one large tensor that takes two passes, or all up to the next such.
 */
static void begin_group(struct model *model)
{
    struct update *update = &model->update;
    size_t end = update->group_begin;
    while (end < update->span_count) {
        uint32_t number = update->spans[end].tensor;
        if (update->tensors[number].two_passes && !portion_is_whole(model, number)) {
            break;
        }
        end++;
    }
    bool large = end == update->group_begin;
    update->group_end = large ? end + 1 : end;
    begin_phase(update, large ? UPDATE_FIRST : UPDATE_STEPS, update->group_begin);
}

static void prepare_tensor(size_t place, void *argument)
{
    struct update *update = argument;
    if (update->spans[place].prepares) {
        opt_update_tensor(&update->tensors[update->spans[place].tensor]);
    }
}

/* Advance the counters and prepare the scalars of some tensors. */
static void prepare(struct engine *engine, struct model *model)
{
    struct update *update = &model->update;
    size_t begin = update->cursor;
    size_t end = update->span_count;
    size_t most = PIECE_TENSORS * (size_t)team_size(engine->team);
    if (end - begin > most) {
        end = begin + most;
    }
    work_done(engine, (uint64_t)PIECE_TENSOR * (end - begin) /
                          (uint64_t)team_size(engine->team));
    team_each(engine->team, end - begin >= TEAM_TENSORS, begin, end, TEAM_TENSORS / 8,
              prepare_tensor, update);
    update->cursor = end;
    if (end < update->span_count) {
        return;
    }
    update->group_begin = 0;
    if (end == 0) { /* nothing but the end of the update */
        begin_phase(update, UPDATE_ROWS, 0);
    } else {
        begin_group(model);
    }
}

static void end_first(struct model *model)
{
    struct update *update = &model->update;
    uint32_t number = update->spans[update->group_begin].tensor;
    const struct tensor *tensor = &model->tensors[number];
    opt_update_end_first(&update->tensors[number], update->sums + tensor->first_block,
                         tensor->blocks);
    begin_phase(update, UPDATE_STEPS, update->group_begin);
}

/* The batch is done. */
static enum update_progress publish(struct engine *engine, struct model *model)
{
    shards_close(model);
    written_end(model);
    engine->counters.parameters_updated += model->update.elements;
    engine->counters.blocks_held += atomic_exchange(&model->update.held, 0);
    engine->counters.update_ns += uv_hrtime() - model->update.started_ns;
    if (!model->update.last) {
        return UPDATE_PARTLY;
    }
    for (size_t i = 0; i < model->shard_count; i++) {
        model->shards[i].published = false;
    }
    model->step++;
    return UPDATE_DONE;
}

static enum update_progress end_rows(struct engine *engine, struct model *model)
{
    if (!model->update.last || !opt_update_synchronises(&model->update.scalars)) {
        return publish(engine, model);
    }
    begin_phase(&model->update, UPDATE_LOOKAHEAD, 0);
    return UPDATE_MORE;
}

static enum update_progress end_steps(struct engine *engine, struct model *model)
{
    struct update *update = &model->update;
    update->group_begin = update->group_end;
    if (update->group_begin < update->span_count) {
        begin_group(model);
        return UPDATE_MORE;
    }
    if (update->rows.group_count == 0) {
        return end_rows(engine, model);
    }
    begin_phase(update, UPDATE_ROWS, 0);
    return UPDATE_MORE;
}

/* Where the phase ends: spans, tensors or groups of rows. */
static size_t phase_end(const struct model *model)
{
    const struct update *update = &model->update;
    switch (update->phase) {
    case UPDATE_LOOKAHEAD:
        return model->tensor_count;
    case UPDATE_FIRST:
    case UPDATE_STEPS:
        return update->group_end;
    case UPDATE_ROWS:
    case UPDATE_ROW_NORMS:
        return update->rows.group_count;
    default:
        return update->span_count;
    }
}

/* The phase has come to its end: begin the next one. */
static enum update_progress next_phase(struct engine *engine, struct model *model)
{
    struct update *update = &model->update;
    switch (update->phase) {
    case UPDATE_NORMS:
        begin_phase(update, UPDATE_ROW_NORMS, 0);
        return UPDATE_MORE;
    case UPDATE_ROW_NORMS:
        begin_phase(update, UPDATE_ADD_NORMS, 0);
        update->norm_group = 0;
        return UPDATE_MORE;
    case UPDATE_FIRST:
        end_first(model);
        return UPDATE_MORE;
    case UPDATE_STEPS:
        return end_steps(engine, model);
    case UPDATE_ROWS:
        return end_rows(engine, model);
    case UPDATE_LOOKAHEAD:
        return publish(engine, model);
    default:
        break;
    }
    assert(!"an update phase");
    return UPDATE_MORE;
}

enum update_progress update_run(struct engine *engine, struct model *model,
                                uint32_t *tensor, uint64_t *element)
{
    struct update *update = &model->update;
    switch (update->phase) { /* what goes by tensors */
    case UPDATE_MARK:
        mark_tensors(engine, model);
        return UPDATE_MORE;
    case UPDATE_ADD:
        add_tensors(engine, model);
        return UPDATE_MORE;
    case UPDATE_ADD_NORMS:
        return add_norms(engine, model, tensor, element);
    case UPDATE_PREPARE:
        prepare(engine, model);
        return UPDATE_MORE;
    default:
        break;
    }
    bool by_rows = update->phase == UPDATE_ROWS || update->phase == UPDATE_ROW_NORMS;
    size_t end = phase_end(model), unstepped = update->unstepped;
    if (by_rows ? !portion_rows(engine, model) : !portion_blocks(engine, model, end)) {
        return UPDATE_STALLED;
    }
    /* With the last shard of a batch its end is near. */
    bool early = update->unstepped < unstepped && update->unstepped > 0;
    enum update_progress progress =
        update->cursor < end ? UPDATE_MORE : next_phase(engine, model);
    return progress == UPDATE_MORE && early ? UPDATE_SHARDS : progress;
}
