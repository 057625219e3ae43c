/* portion — see portion.h. */
#include "server/update/portion.h"

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "server/base/team.h"
#include "server/base/version.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/update/delay_compensation.h"
#include "server/update/gradient.h"
#include "server/update/written.h"
#include "server/weights/segment.h"
#include "server/weights/shards.h"
#include "server/weights/snapshot.h"

enum {
    PIECE_LEAST = 1 << 20, /* elements per thread and piece: about a millisecond */
    PIECE_MOST = 16 << 20, /* while nobody has sent a letter */
    CHECK_ELEMENTS = 1024
};

/* ---------------------------------------------------------------- one block */

size_t portion_block_elements(const struct tensor *tensor, size_t index)
{
    size_t rest = tensor->n - index * OPT_BLOCK;
    return rest < OPT_BLOCK ? rest : OPT_BLOCK;
}

/* The contributions to one block, in rank order, with their factors. */
static size_t gather(const struct model *model, const struct work *work,
                     struct seat *seat)
{
    const struct update *update = &model->update;
    const struct tensor *tensor = &model->tensors[work->tensor];
    size_t place = tensor->first_block + work->block;
    size_t count = 0;
    seat->writable = false;
    for (size_t i = 0; i < update->gradient_count; i++) {
        const struct gradient *gradient = update->gradients[i];
        if (gradient->blocks[place] == NULL) {
            continue;
        }
        bool own = gradient->memory == GRADIENT_OWN && gradient->dtype == OPT_FP32;
        seat->writable = count == 0 ? own : seat->writable;
        seat->contributions[count].values = gradient->blocks[place];
        seat->contributions[count].dtype = gradient->dtype;
        seat->contributions[count].shared = gradient->memory == GRADIENT_SHARED;
        seat->samples[count] = gradient->samples;
        seat->forms[count] = gradient->form;
        count++;
    }
    opt_aggregate_factors((enum opt_aggregate)model->spec.options.aggregate,
                          seat->samples, seat->forms, count, seat->factors);
    for (size_t i = 0; i < count; i++) {
        seat->contributions[i].factor = seat->factors[i] * update->damping;
    }
    return count;
}

/* Whether the pass is the first of the update that reads the tensor's gradient. */
static bool reads_first(const struct opt_tensor_update *tensor, enum opt_pass pass)
{
    if (opt_update_needs_norms(tensor->update)) {
        return pass == OPT_PASS_NORM;
    }
    return pass == (tensor->two_passes ? tensor->first_pass : OPT_PASS_STEP);
}

/* What is read of a block: the contributions to it, or what has been written of them.
 */
static void find_gradient(const struct model *model, enum opt_pass pass,
                          const struct work *work, struct seat *seat,
                          struct opt_block_memory *memory)
{
    struct opt_contribution written;
    bool is_written = written_block(model, work, &written);
    memory->contributions = seat->contributions;
    if (is_written && !reads_first(&model->update.tensors[work->tensor], pass)) {
        seat->contributions[0] = written;
        memory->contribution_count = 1;
    } else {
        memory->contribution_count = gather(model, work, seat);
    }
    seat->writable = seat->writable && !is_written;
}

/* Write down what the contributions to a block come to, if that is wanted; they are
 * what has been written from now on. */
static void write_gradient(const struct model *model, enum opt_pass pass,
                           const struct work *work, struct seat *seat,
                           struct opt_block_memory *memory)
{
    const struct opt_tensor_update *tensor = &model->update.tensors[work->tensor];
    struct opt_contribution written;
    if (reads_first(tensor, pass) && written_block(model, work, &written)) {
        opt_block_aggregate(tensor, memory, written.dtype,
                            (void *)(uintptr_t)written.values);
        seat->contributions[0] = written;
        memory->contribution_count = 1;
    }
}

/* Where the directions of a block are kept between its two passes: in its gradient,
 * which nobody needs after the first, if the update may write there. */
static float *direction_of(const struct model *model, const struct work *work,
                           const struct seat *seat)
{
    const struct tensor *tensor = &model->tensors[work->tensor];
    if (seat->writable) {
        return (float *)(uintptr_t)seat->contributions[0].values;
    }
    float *all = tensor->n <= TEAM_DIRECTION ? seat->direction : model->update.scratch;
    return all + (size_t)work->block * OPT_BLOCK;
}

static void run_block(struct model *model, enum opt_pass pass, const struct work *work,
                      struct seat *seat)
{
    struct update *update = &model->update;
    const struct tensor *tensor = &model->tensors[work->tensor];
    size_t flat = tensor->at + (size_t)work->block * OPT_BLOCK;
    const struct shard *shard =
        &model->shards[tensor->shard + (size_t)work->block / SHARD_BLOCKS];
    const struct opt_tensor_update *scalars = &update->tensors[work->tensor];
    struct opt_block_memory memory = {
        .n = portion_block_elements(tensor, work->block),
        .w = version_values(shard->current) + (flat - shard->at),
    };
    if (pass == OPT_PASS_STEP || pass == OPT_PASS_LOOKAHEAD) {
        memory.w_out = version_values(shard->next) + (flat - shard->at);
    }
    if (pass == OPT_PASS_LOOKAHEAD) {
        memory.w = memory.w_out; /* what the steps have written */
    }
    for (size_t i = 0; i < model->slot_count; i++) {
        memory.slots[i] = shard->slots[i] + (flat - shard->at);
    }
    if (pass != OPT_PASS_LOOKAHEAD) {
        find_gradient(model, pass, work, seat, &memory);
    }
    if (scalars->two_passes && scalars->first_pass == OPT_PASS_DIRECTION &&
        pass != OPT_PASS_LOOKAHEAD) {
        memory.direction = direction_of(model, work, seat);
    }
    /* A step that reads its direction has no gradient any more. */
    bool reads_direction = memory.direction != NULL && pass == OPT_PASS_STEP;
    if (pass != OPT_PASS_LOOKAHEAD && !reads_direction) {
        delay_compensation_run(model, work, &memory, seat);
        write_gradient(model, pass, work, seat, &memory);
    }
    struct opt_block_sums *sums = &update->sums[tensor->first_block + work->block];
    sums->held = false;
    opt_block_run(scalars, pass, &memory, sums);
    update_note_held(update, sums);
}

/* Both passes of a tensor that is small enough for one thread: nobody waits for
 * anybody, and the second pass, which goes backwards, finds much of it in cache. */
static void run_whole(struct model *model, const struct work *whole, struct seat *seat)
{
    const uint32_t number = whole->tensor;
    const struct tensor *tensor = &model->tensors[number];
    struct update *update = &model->update;
    struct work work = *whole;
    for (size_t i = 0; i < tensor->blocks; i++) {
        work.block = (uint32_t)i;
        run_block(model, update->tensors[number].first_pass, &work, seat);
    }
    opt_update_end_first(&update->tensors[number], update->sums + tensor->first_block,
                         tensor->blocks);
    for (size_t i = tensor->blocks; i-- > 0;) {
        work.block = (uint32_t)i;
        run_block(model, OPT_PASS_STEP, &work, seat);
    }
}

size_t portion_first_overflow(const struct opt_contribution *contributions,
                              size_t count, size_t n)
{
    float values[CHECK_ELEMENTS];
    double sums[CHECK_ELEMENTS];
    for (size_t at = 0; at < n; at += CHECK_ELEMENTS) {
        size_t run = n - at < CHECK_ELEMENTS ? n - at : CHECK_ELEMENTS;
        memset(sums, 0, run * sizeof *sums);
        for (size_t i = 0; i < count; i++) {
            const struct opt_contribution *from = &contributions[i];
            opt_dtype_widen(from->dtype,
                            (const uint8_t *)from->values +
                                at * opt_dtype_size(from->dtype),
                            values, run);
            for (size_t k = 0; k < run; k++) {
                bool counts = !from->shared || isfinite(values[k]);
                sums[k] += counts ? from->factor * (double)values[k] : 0;
            }
        }
        for (size_t k = 0; k < run; k++) {
            if (!isfinite((float)sums[k])) {
                return at + k;
            }
        }
    }
    return n;
}

size_t portion_block_overflow(const struct model *model, const struct work *work,
                              struct seat *seat)
{
    struct opt_contribution written;
    bool is_written = written_block(model, work, &written);
    size_t count = is_written ? 1 : gather(model, work, seat);
    return portion_first_overflow(
        is_written ? &written : seat->contributions, count,
        portion_block_elements(&model->tensors[work->tensor], work->block));
}

/* ---------------------------------------------------------------- the team */

static void run_one(struct model *model, const struct work *work, struct seat *seat)
{
    static const enum opt_pass passes[] = {
        [UPDATE_NORMS] = OPT_PASS_NORM,
        [UPDATE_STEPS] = OPT_PASS_STEP,
        [UPDATE_LOOKAHEAD] = OPT_PASS_LOOKAHEAD,
    };
    const struct update *update = &model->update;
    if (work->block == WORK_WHOLE) {
        run_whole(model, work, seat);
    } else if (update->phase == UPDATE_FIRST) {
        run_block(model, update->tensors[work->tensor].first_pass, work, seat);
    } else {
        run_block(model, passes[update->phase], work, seat);
    }
}

struct portion {
    size_t count;      /* entries of the team's work */
    size_t least;      /* of them, to be done in any case */
    uint64_t elements; /* in all of them, */
    uint64_t at_least; /* and in those that are done in any case */
};

/* Work that the threads of the team share out as they go. */
struct deal {
    struct engine *engine;
    struct model *model;
    const struct portion *portion;
    size_t share;
    _Atomic size_t next;
    atomic_bool enough;
};

static void take_shares(struct seat *seat, void *argument)
{
    struct deal *deal = argument;
    const struct portion *portion = deal->portion;
    const struct team *team = deal->engine->team;
    while (!atomic_load_explicit(&deal->enough, memory_order_relaxed)) {
        size_t begin =
            atomic_fetch_add_explicit(&deal->next, deal->share, memory_order_relaxed);
        size_t end =
            begin + deal->share < portion->count ? begin + deal->share : portion->count;
        if (begin >= portion->count) {
            break;
        }
        for (size_t i = begin; i < end; i++) {
            run_one(deal->model, &team->work[i], seat);
        }
        if (end >= portion->least && mailbox_filled(&deal->engine->box)) {
            atomic_store_explicit(&deal->enough, true, memory_order_relaxed);
        }
    }
}

/* Deal the work of the portion to the team; which thread does what changes nothing but
 * the time. Returns how many entries from the start have been done: all, unless a
 * letter came after the least. The team meets only at the end of a portion, which on a
 * busy machine costs a time slice, so one is long while nobody waits. */
static size_t run(struct engine *engine, struct model *model,
                  const struct portion *portion)
{
    struct team *team = engine->team;
    /* A share is about one full block, or many small ones. */
    size_t share = 1 + portion->count * OPT_BLOCK / (size_t)(portion->elements + 1);
    if (share * (size_t)team->threads > portion->count) {
        share = 1;
    }
    struct deal deal = {
        .engine = engine, .model = model, .portion = portion, .share = share
    };
    work_done(engine, portion->at_least / (uint64_t)team_size(team));
    team_run(team, portion->elements >= TEAM_ELEMENTS, take_shares, &deal);
    size_t dealt = atomic_load_explicit(&deal.next, memory_order_relaxed);
    return dealt < portion->count ? dealt : portion->count;
}

/* ---------------------------------------------------------------- the next piece */

/* The span at a place of the phase's order. */
static struct span span_at(const struct model *model, size_t place)
{
    if (model->update.phase == UPDATE_LOOKAHEAD) {
        return (struct span){ .tensor = (uint32_t)place,
                              .end = (uint32_t)model->tensors[place].blocks };
    }
    return model->update.spans[place];
}

bool portion_is_whole(const struct model *model, uint32_t tensor)
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

void portion_bind(struct model *model, size_t number)
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

/* The door through which an update writes: see that it may write n floats of a shard
 * from `at` of the flat range on, slots and, but for a first pass, weights. False: not
 * now. */
static inline bool open_floats(struct engine *engine, struct model *model,
                               struct shard *shard, size_t at, size_t n)
{
    struct update *update = &model->update;
    if (shard->next != NULL && model->snapshot == NULL) {
        return true;
    }
    if (!snapshot_keep(model, shard, at, n, &update->copied)) {
        return false;
    }
    /* A look ahead needs all of the shard, whatever the steps have written. */
    const uint8_t *written =
        update->phase == UPDATE_LOOKAHEAD ? NULL : update->is_touched;
    return update->phase == UPDATE_FIRST || shard->next != NULL ||
           shard_open(engine, model, shard, written, &update->copied);
}

/* Choose the next work of the phase, up to the span at place end. False if a shard
 * cannot be written now. */
static bool choose_work(struct engine *engine, struct model *model, size_t end,
                        struct portion *portion)
{
    struct update *update = &model->update;
    uint64_t threads = (uint64_t)team_size(engine->team);
    uint64_t least = PIECE_LEAST * threads;
    uint64_t most = engine->busy_first == NULL && update->unstepped == 0
                        ? PIECE_MOST * threads
                        : least;
    bool writes = update->phase != UPDATE_NORMS;
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
            portion_bind(model, number);
        }
        size_t block = block_at(update, &span, update->cursor_block);
        struct shard *shard = &model->shards[tensor->shard + block / SHARD_BLOCKS];
        bool whole = update->phase == UPDATE_STEPS && portion_is_whole(model, number);
        /* The first block is the last of a tensor that is gone through backwards. */
        size_t from = tensor->at + (whole ? 0 : block * OPT_BLOCK);
        size_t n = whole ? tensor->n : portion_block_elements(tensor, block);
        if (writes && !open_floats(engine, model, shard, from, n)) {
            return false;
        }
        struct work *work = &engine->team->work[portion->count++];
        *work = (struct work){ .tensor = number,
                               .block = (uint32_t)block,
                               .place = (uint32_t)update->cursor };
        if (whole) {
            work->block = WORK_WHOLE;
            portion->elements += PORTION_WORK + 2 * tensor->n;
            update->cursor_block = tensor->blocks;
        } else {
            portion->elements += PORTION_WORK + portion_block_elements(tensor, block);
            update->cursor_block++;
        }
        if (portion->elements <= least) {
            portion->least = portion->count;
            portion->at_least = portion->elements;
        }
    }
    return true;
}

/* These blocks and tensors have been stepped: publish the shards of which they were the
 * last. */
static void count_stepped(struct model *model, const struct work *work, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        /* A tensor that is stepped whole lies in one shard. */
        const struct tensor *tensor = &model->tensors[work[i].tensor];
        bool whole = work[i].block == WORK_WHOLE;
        struct shard *shard =
            &model->shards[tensor->shard + (whole ? 0 : work[i].block / SHARD_BLOCKS)];
        shard->unstepped -= whole ? tensor->blocks : 1;
        if (shard->unstepped == 0) {
            shard_publish(model, shard);
            model->update.unstepped--;
        }
    }
}

bool portion_blocks(struct engine *engine, struct model *model, size_t end)
{
    struct update *update = &model->update;
    struct portion portion = { 0 };
    bool open = choose_work(engine, model, end, &portion);
    work_done(engine, update->copied);
    snapshot_copy(engine, model);
    size_t done = run(engine, model, &portion);
    if (update->unstepped > 0 && update->phase == UPDATE_STEPS) {
        count_stepped(model, engine->team->work, done);
    }
    if (done < portion.count) {
        const struct work *first = &engine->team->work[done];
        const struct span span = span_at(model, first->place);
        update->cursor = first->place;
        update->cursor_block =
            first->block == WORK_WHOLE ? 0 : index_of(update, &span, first->block);
    } else if (update->cursor < end) {
        const struct span span = span_at(model, update->cursor);
        if (update->cursor_block == span.end - span.first) {
            update->cursor++;
            update->cursor_block = 0;
        }
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
        size_t flat = model->tensors[row->tensor].at + row->row * width + at;
        if (!open_floats(engine, model, shard, flat, run)) {
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

bool portion_rows(struct engine *engine, struct model *model)
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
        elements += PORTION_ROW +
                    rows_width(model, end) * rows_contributions(&update->rows, end);
        end++;
    }
    work_done(engine, update->copied + elements / (uint64_t)team_size(engine->team));
    snapshot_copy(engine, model);
    team_each(engine->team, elements >= TEAM_ELEMENTS, begin, end, 64,
              writes ? step_row : norm_row, model);
    update->cursor = end;
    return open || end > begin;
}
