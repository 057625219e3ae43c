/* portion — see portion.h. */
#include "server/engine/portion.h"

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "server/engine/delay.h"
#include "server/engine/gradient.h"
#include "server/engine/inside.h"
#include "server/engine/model.h"
#include "server/engine/published.h"
#include "server/engine/team.h"
#include "server/engine/work.h"

enum { CHECK_ELEMENTS = 1024 };

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
        &model->shards[tensor->shard + (size_t)work->block / (OPT_SHARD / OPT_BLOCK)];
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
        memory.slots[i] = model->slots[i] + flat;
    }
    if (pass != OPT_PASS_LOOKAHEAD) {
        memory.contributions = seat->contributions;
        memory.contribution_count = gather(model, work, seat);
    }
    if (scalars->two_passes && scalars->first_pass == OPT_PASS_DIRECTION &&
        pass != OPT_PASS_LOOKAHEAD) {
        memory.direction = direction_of(model, work, seat);
    }
    /* A step that reads its direction has no gradient any more. */
    bool reads_direction = memory.direction != NULL && pass == OPT_PASS_STEP;
    if (pass != OPT_PASS_LOOKAHEAD && !reads_direction) {
        delay_compensate(model, work, &memory, seat);
    }
    struct opt_block_sums *sums = &update->sums[tensor->first_block + work->block];
    sums->held = false;
    opt_block_run(scalars, pass, &memory, sums);
    update_note_held(update, sums);
}

/* Both passes of a tensor that is small enough for one thread: nobody waits for
 * anybody, and the second pass, which goes backwards, finds much of it in cache. */
static void run_whole(struct model *model, uint32_t number, struct seat *seat)
{
    const struct tensor *tensor = &model->tensors[number];
    struct update *update = &model->update;
    struct work work = { .tensor = number };
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
    size_t count = gather(model, work, seat);
    return portion_first_overflow(
        seat->contributions, count,
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
        run_whole(model, work->tensor, seat);
    } else if (update->phase == UPDATE_FIRST) {
        run_block(model, update->tensors[work->tensor].first_pass, work, seat);
    } else {
        run_block(model, passes[update->phase], work, seat);
    }
}

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

size_t portion_run(struct engine *engine, struct model *model,
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
