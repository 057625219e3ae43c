/* update — see update.h. */
#include "server/engine/update.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/engine/ahead.h"
#include "server/engine/gradient.h"
#include "server/engine/inside.h"
#include "server/engine/model.h"
#include "server/engine/portion.h"
#include "server/engine/published.h"
#include "server/engine/segment.h"
#include "server/engine/team.h"
#include "server/engine/work.h"

enum {
    PIECE_LEAST = 1 << 20, /* elements per thread and piece: about a millisecond */
    PIECE_MOST = 16 << 20, /* while nobody has sent a letter */
    PIECE_TENSORS = 8192,  /* prepared at a time, per thread */
    PIECE_TENSOR = PIECE_LEAST / PIECE_TENSORS,
    TEAM_TENSORS = 256, /* fewer are prepared before a second thread is awake */
    ROW_ELEMENTS = 64,  /* to find a row takes as long as to update so many, */
    WORK_ELEMENTS = 256 /* and a tensor or block of one, however small, so many */
};

/* ---------------------------------------------------------------- memory */

size_t update_scratch(const struct opt_spec *spec, size_t largest)
{
    bool two_passes = spec->options.layerwise == OPT_LAYERWISE_UPDATE;
    return two_passes && largest > TEAM_DIRECTION ? largest : 0;
}

size_t update_bytes(size_t tensors, size_t shards, size_t blocks, size_t scratch_floats)
{
    size_t per_tensor =
        sizeof(struct opt_tensor_update) + sizeof(struct span) + 2 * sizeof(uint8_t);
    size_t total, more;
    if (size_multiply(tensors, per_tensor, &total) &&
        size_multiply(shards, sizeof(struct span), &more) &&
        size_add(total, more, &total) &&
        size_multiply(blocks, sizeof(struct opt_block_sums), &more) &&
        size_add(total, more, &total) &&
        size_multiply(scratch_floats, sizeof(float), &more) &&
        size_add(total, more, &total)) {
        return total;
    }
    return SIZE_MAX;
}

static size_t largest_tensor(const struct model *model)
{
    size_t largest = 0;
    for (size_t i = 0; i < model->tensor_count; i++) {
        if (model->tensors[i].n > largest) {
            largest = model->tensors[i].n;
        }
    }
    return largest;
}

bool update_init(struct model *model)
{
    struct update *update = &model->update;
    size_t scratch = update_scratch(&model->spec, largest_tensor(model));
    update->tensors = calloc(model->tensor_count + 1, sizeof *update->tensors);
    update->sums = calloc(model->blocks + 1, sizeof *update->sums);
    update->spans =
        calloc(model->tensor_count + model->shard_count + 1, sizeof *update->spans);
    update->is_touched = calloc(model->tensor_count + 1, sizeof *update->is_touched);
    update->is_bound = calloc(model->tensor_count + 1, sizeof *update->is_bound);
    if (update->tensors == NULL || update->sums == NULL || update->spans == NULL ||
        update->is_touched == NULL || update->is_bound == NULL) {
        return false;
    }
    update->scratch_bytes = scratch * sizeof(float);
    update->scratch = memory_new(update->scratch_bytes);
    return scratch == 0 || update->scratch != NULL;
}

bool update_reserve(struct engine *engine, struct model *model,
                    const struct opt_spec *spec)
{
    struct update *update = &model->update;
    size_t bytes = update_scratch(spec, largest_tensor(model)) * sizeof(float);
    if (bytes <= update->scratch_bytes) {
        return true;
    }
    size_t more = bytes - update->scratch_bytes;
    if (!budget_take(&engine->budget, more)) {
        return false;
    }
    float *scratch = memory_new(bytes);
    if (scratch == NULL) {
        budget_give(&engine->budget, more);
        return false;
    }
    memory_free(update->scratch, update->scratch_bytes);
    update->scratch = scratch;
    update->scratch_bytes = bytes;
    model->reserved += more;
    return true;
}

void update_fini(struct model *model)
{
    struct update *update = &model->update;
    memory_free(update->scratch, update->scratch_bytes);
    rows_fini(model);
    free(update->is_bound);
    free(update->is_touched);
    free(update->spans);
    free(update->sums);
    free(update->tensors);
}

/* ---------------------------------------------------------------- pieces */

/* The span at a place of the phase's order. */
static struct span span_at(const struct model *model, size_t place)
{
    if (model->update.phase == UPDATE_LOOKAHEAD) {
        return (struct span){ .tensor = (uint32_t)place,
                              .end = (uint32_t)model->tensors[place].blocks };
    }
    return model->update.spans[place];
}

/* What the update writes, or has written, of the shard beside one of a large tensor, or
 * NULL. */
static const struct version *neighbour(const struct model *model,
                                       const struct shard *shard)
{
    const struct tensor *tensor = &model->tensors[shard->first_tensor];
    const struct shard *first = &model->shards[tensor->shard];
    const struct shard *end = first + (tensor->n + OPT_SHARD - 1) / OPT_SHARD;
    if (shard > first && shard[-1].next != NULL) {
        return shard[-1].next;
    }
    if (shard + 1 < end && shard[1].next != NULL) {
        return shard[1].next;
    }
    bool applied = shard > first && shard[-1].stage == SHARD_APPLIED;
    return model->stream.open && applied ? shard[-1].current : NULL;
}

/* Whether the update had better not write in place though nobody reads the shard: to
 * bring it to where workers of this machine can read it, and all of a tensor into one
 * plane, so that they find it in one piece. */
static bool had_better_move(const struct model *model, const struct shard *shard)
{
    if (version_pool_region(model->pool) == NULL) {
        return false;
    }
    const struct version *beside = neighbour(model, shard);
    return model_outgrew(model, shard->current) ||
           (beside != NULL && version_plane(beside) != version_plane(shard->current));
}

/* See that the update may write the shard: in place if nobody reads it, else into a
 * fresh version, with what the update does not write carried over. */
static bool open_shard(struct engine *engine, struct model *model, struct shard *shard)
{
    if (shard->next != NULL) {
        return true;
    }
    bool held = version_held(shard->current);
    bool moves = held || had_better_move(model, shard);
    if (moves && !model_back(engine, model, shard)) {
        if (held) {
            return false;
        }
        moves = false;
    }
    shard->opened = model->update.opened;
    model->update.opened = shard;
    if (!moves) {
        shard->next = shard->current;
        model_spare_idle(shard);
        return true;
    }
    shard->next = shard->spare;
    shard->spare = NULL;
    engine->counters.versions_fresh++;
    /* What has been stepped is open when the look ahead begins. */
    bool all = model->update.phase == UPDATE_LOOKAHEAD;
    for (size_t i = 0; i < shard->tensor_count; i++) {
        const struct tensor *tensor = &model->tensors[shard->first_tensor + i];
        if (all || model->update.is_touched[shard->first_tensor + i] == 0 ||
            tensor->width > 0) {
            /* A tensor of several shards is in each of them alone. */
            size_t from = tensor->at > shard->at ? tensor->at - shard->at : 0;
            size_t n = tensor->n < shard->n ? tensor->n : shard->n;
            memcpy(version_values(shard->next) + from,
                   version_values(shard->current) + from, n * sizeof(float));
            model->update.copied += n;
        }
    }
    return true;
}

/* Whether one thread does both passes of the tensor. */
static bool is_whole(const struct model *model, uint32_t tensor)
{
    return model->update.tensors[tensor].two_passes &&
           model->tensors[tensor].n <= TEAM_DIRECTION;
}

/* The second of two passes goes backwards: what the first has read last is still in
 * cache. */
static bool goes_backwards(const struct update *update, const struct span *span)
{
    return update->phase == UPDATE_STEPS && update->tensors[span->tensor].two_passes;
}

/* The index-th block of a span in the order of the phase, and the other way round. */
static size_t block_at(const struct update *update, const struct span *span,
                       size_t index)
{
    return goes_backwards(update, span) ? span->end - 1 - index : span->first + index;
}

static size_t index_of(const struct update *update, const struct span *span,
                       size_t block)
{
    return goes_backwards(update, span) ? span->end - 1 - block : block - span->first;
}

/* The first of what an update does with a tensor. */
static void bind_tensor(struct model *model, size_t number)
{
    struct update *update = &model->update;
    struct tensor *tensor = &model->tensors[number];
    if (update->is_bound[number] == 0) {
        update->is_bound[number] = 1;
        model_tensor_options(model, number, &tensor->options);
        opt_update_bind(&update->tensors[number], &update->scalars, &tensor->options,
                        &tensor->counters);
        tensor->changed = model->step + 1;
    }
}

/* Choose the next work of the phase, up to the span at place end. False if a shard
 * cannot be written now. */
static bool choose_work(struct engine *engine, struct model *model, size_t end,
                        struct portion *portion)
{
    struct update *update = &model->update;
    uint64_t threads = (uint64_t)team_size(engine->team);
    uint64_t least = PIECE_LEAST * threads;
    uint64_t most =
        engine->busy_first == NULL && update->ahead == 0 ? PIECE_MOST * threads : least;
    bool writes = update->phase == UPDATE_STEPS || update->phase == UPDATE_LOOKAHEAD;
    update->copied = 0;
    while (update->cursor < end && portion->count < TEAM_WORK &&
           portion->elements < most && update->copied < PIECE_LEAST) {
        const struct span span = span_at(model, update->cursor);
        const uint32_t number = span.tensor;
        const struct tensor *tensor = &model->tensors[number];
        if (update->cursor_block == span.end - span.first) {
            update->cursor++;
            update->cursor_block = 0;
            continue;
        }
        if (update->phase == UPDATE_LOOKAHEAD) {
            bind_tensor(model, number);
        }
        size_t block = block_at(update, &span, update->cursor_block);
        struct shard *shard =
            &model->shards[tensor->shard + block / (OPT_SHARD / OPT_BLOCK)];
        if (writes && !open_shard(engine, model, shard)) {
            return false;
        }
        struct work *work = &engine->team->work[portion->count++];
        *work = (struct work){ .tensor = number,
                               .block = (uint32_t)block,
                               .place = (uint32_t)update->cursor };
        if (update->phase == UPDATE_STEPS && is_whole(model, number)) {
            work->block = WORK_WHOLE;
            portion->elements += WORK_ELEMENTS + 2 * tensor->n;
            update->cursor_block = tensor->blocks;
        } else {
            portion->elements += WORK_ELEMENTS + portion_block_elements(tensor, block);
            update->cursor_block++;
        }
        if (portion->elements <= least) {
            portion->least = portion->count;
            portion->at_least = portion->elements;
        }
    }
    return true;
}

/* Do the next work of the phase. False if a shard cannot be written now. */
static bool run_piece(struct engine *engine, struct model *model, size_t end)
{
    struct update *update = &model->update;
    struct portion portion = { 0 };
    bool open = choose_work(engine, model, end, &portion);
    work_done(engine, update->copied);
    size_t done = portion_run(engine, model, &portion);
    if (update->ahead > 0 && update->phase == UPDATE_STEPS) {
        ahead_stepped(engine, model, engine->team->work, done);
    }
    if (done < portion.count) {
        const struct work *first = &engine->team->work[done];
        const struct span span = span_at(model, first->place);
        update->cursor = first->place;
        update->cursor_block =
            first->block == WORK_WHOLE ? 0 : index_of(update, &span, first->block);
    }
    return open || portion.count > 0;
}

/* Whether the row of a group can be written. */
static bool open_row(struct engine *engine, struct model *model, size_t group)
{
    const struct row_group *row = &model->update.rows.groups[group];
    size_t width = rows_width(model, group), run;
    for (size_t at = 0; at < width; at += run) {
        struct shard *shard =
            segment_shard(model, row->tensor, row->row * width + at, width - at, &run);
        if (!open_shard(engine, model, shard)) {
            return false;
        }
    }
    return true;
}

static void norm_row(size_t group, void *model)
{
    rows_run(model, OPT_PASS_NORM, group);
}

static void step_row(size_t group, void *model)
{
    rows_run(model, OPT_PASS_STEP, group);
}

/* The same for rows: norms or steps of the next groups, dealt to the team. */
static bool run_row_piece(struct engine *engine, struct model *model)
{
    struct update *update = &model->update;
    bool writes = update->phase == UPDATE_ROWS, open = true;
    uint64_t limit = PIECE_LEAST * (uint64_t)team_size(engine->team);
    uint64_t elements = 0;
    size_t begin = update->cursor, end = begin;
    update->copied = 0;
    while (end < update->rows.group_count && elements < limit &&
           update->copied < PIECE_LEAST) {
        open = !writes || open_row(engine, model, end);
        if (!open) {
            break;
        }
        elements += ROW_ELEMENTS +
                    rows_width(model, end) * rows_contributions(&update->rows, end);
        end++;
    }
    work_done(engine, update->copied + elements / (uint64_t)team_size(engine->team));
    team_each(engine->team, elements >= TEAM_ELEMENTS, begin, end, 64,
              writes ? step_row : norm_row, model);
    update->cursor = end;
    return open || end > begin;
}

static void begin_phase(struct update *update, enum update_phase phase, size_t place)
{
    update->phase = phase;
    update->cursor = place;
    update->cursor_block = 0;
}

static bool piece_done(const struct model *model, size_t end)
{
    const struct update *update = &model->update;
    if (update->cursor == end || update->phase == UPDATE_ROWS ||
        update->phase == UPDATE_ROW_NORMS) {
        return update->cursor == end;
    }
    const struct span span = span_at(model, update->cursor);
    return update->cursor == end - 1 && update->cursor_block == span.end - span.first;
}

/* ---------------------------------------------------------------- phases */

void update_begin(struct engine *engine, struct model *model)
{
    struct update *update = &model->update;
    update->ahead = 0;
    opt_update_begin(&update->scalars, &model->spec, model->step + 1);
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
                       .prepares = update->is_bound[tensor] == 0 };
    update->is_touched[tensor] = 1;
    bind_tensor(model, tensor);
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

void update_batch_start(struct engine *engine, struct model *model, bool last)
{
    struct update *update = &model->update;
    update->last = last;
    update->started_ns = uv_hrtime();
    team_gather(engine->team, came_through_no_loop(update));
    if (last) {
        rows_begin(model, &engine->team->seats[0]);
    }
    begin_phase(
        update,
        opt_update_needs_norms(&update->scalars) ? UPDATE_NORMS : UPDATE_PREPARE, 0);
}

/* Whether all gradients name the tensors of the first, in ascending order. */
static bool name_the_same(const struct update *update)
{
    const struct gradient *first = update->gradients[0];
    for (size_t i = 1; i < first->tensor_count; i++) {
        if (first->tensors[i] <= first->tensors[i - 1]) {
            return false;
        }
    }
    for (size_t i = 1; i < update->gradient_count; i++) {
        const struct gradient *gradient = update->gradients[i];
        if (gradient->tensor_count != first->tensor_count ||
            memcmp(gradient->tensors, first->tensors,
                   first->tensor_count * sizeof *first->tensors) != 0) {
            return false;
        }
    }
    return true;
}

/* Mark the tensors that the gradients name, unless all of them name those of the first
 * in ascending order. Workers usually do, and then nothing is done for all the others.
 */
static void mark_tensors(struct update *update)
{
    update->in_order = name_the_same(update);
    for (size_t i = 0; !update->in_order && i < update->gradient_count; i++) {
        const struct gradient *gradient = update->gradients[i];
        for (size_t k = 0; k < gradient->tensor_count; k++) {
            update->is_touched[gradient->tensors[k]] = 1;
        }
    }
}

/* Add the next of the tensors that the gradients name, in ascending order. The last of
 * them start the batch. */
static void add_tensors(struct engine *engine, struct model *model)
{
    struct update *update = &model->update;
    const struct gradient *first = update->gradients[0];
    size_t end = update->in_order ? first->tensor_count : model->tensor_count;
    size_t begin = update->cursor;
    size_t until = end - begin > PIECE_TENSORS ? begin + PIECE_TENSORS : end;
    for (; update->cursor < until; update->cursor++) {
        uint32_t number = update->in_order ? first->tensors[update->cursor]
                                           : (uint32_t)update->cursor;
        if (update->in_order || update->is_touched[number] != 0) {
            update_add(model, number, 0, model->tensors[number].blocks);
        }
    }
    work_done(engine, (uint64_t)PIECE_TENSOR * (until - begin));
    if (until == end) {
        update_batch_start(engine, model, true);
        ahead_begin(model);
    }
}

void update_start(struct engine *engine, struct model *model,
                  const struct gradient *const *gradients, size_t count)
{
    struct update *update = &model->update;
    update_begin(engine, model);
    update_batch(model, gradients, count);
    mark_tensors(update);
    begin_phase(update, UPDATE_ADD, 0);
    add_tensors(engine, model);
}

uint64_t update_cost(const struct model *model)
{
    const struct update *update = &model->update;
    if (update->phase == UPDATE_ADD) {
        return UINT64_MAX; /* not known yet, and much */
    }
    uint64_t all = update->last && opt_update_synchronises(&update->scalars)
                       ? model->floats + WORK_ELEMENTS * (uint64_t)model->tensor_count
                       : 0;
    return update->elements + WORK_ELEMENTS * (uint64_t)update->span_count +
           ROW_ELEMENTS * (uint64_t)update->rows.group_count + all;
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
            struct work work = { .tensor = number, .block = (uint32_t)k };
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
            size_t width = rows_width(model, i);
            size_t found =
                portion_first_overflow(rows->contributions + rows->groups[i].first,
                                       rows_contributions(rows, i), width);
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
        if (update->tensors[number].two_passes && !is_whole(model, number)) {
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
    while (model->update.opened != NULL) {
        struct shard *shard = model->update.opened;
        model->update.opened = shard->opened;
        if (shard->next != shard->current) {
            version_unref(shard->current);
            shard->current = shard->next;
        }
        shard->next = NULL;
        shard->changed = model->step + 1;
    }
    engine->counters.parameters_updated += model->update.elements;
    engine->counters.blocks_held += atomic_exchange(&model->update.held, 0);
    engine->counters.update_ns += uv_hrtime() - model->update.started_ns;
    if (!model->update.last) {
        return UPDATE_PARTLY;
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

enum update_progress update_run(struct engine *engine, struct model *model,
                                uint32_t *tensor, uint64_t *element)
{
    struct update *update = &model->update;
    switch (update->phase) { /* what goes by tensors */
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
    size_t end = update->phase == UPDATE_LOOKAHEAD ? model->tensor_count
                 : update->phase == UPDATE_FIRST || update->phase == UPDATE_STEPS
                     ? update->group_end
                 : by_rows ? update->rows.group_count
                           : update->span_count;
    if (by_rows ? !run_row_piece(engine, model) : !run_piece(engine, model, end)) {
        return UPDATE_STALLED;
    }
    if (!piece_done(model, end)) {
        return UPDATE_MORE;
    }
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
