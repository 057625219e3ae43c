/* shard_schedule — see shard_schedule.h. */
#include "server/rounds/shard_schedule.h"

#include <string.h>

#include "common/optim/update.h"
#include "server/base/letter.h"
#include "server/base/version.h"
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/push.h"
#include "server/update/written.h"
#include "server/weights/segment.h"
#include "server/weights/view.h"
#include "server/workers/membership.h"

bool shard_schedule_is_policy(const struct model *model)
{
    return model->consistency.atomic == OPT_ATOMIC_SHARD;
}

/* The gradients of the pushes of the round, in their order. */
static const struct gradient *const *gradients_of(struct model *model)
{
    for (size_t i = 0; i < model->round_count; i++) {
        model->gradients[i] = &model->round[i]->gradient;
    }
    return model->gradients;
}

/* ---------------------------------------------------------------- units */

/* Shards that are updated at once, from this one on: one, or those of a tensor whose
 * norms the update needs. */
static size_t unit_shards(const struct model *model, size_t shard)
{
    size_t first = model->shards[shard].first_tensor;
    const struct tensor *tensor = &model->tensors[first];
    struct opt_tensor_options options;
    model_tensor_options(model, first, &options);
    bool whole = options.layerwise || model->spec.options.clip == OPT_CLIP_TENSOR_NORM;
    return whole && tensor->n > OPT_SHARD ? (tensor->n + OPT_SHARD - 1) / OPT_SHARD : 1;
}

static bool is_complete(const struct push *push)
{
    return push->member->gathering != push;
}

static bool all_complete(const struct model *model)
{
    for (size_t i = 0; i < model->round_count; i++) {
        if (!is_complete(model->round[i])) {
            return false;
        }
    }
    return true;
}

enum {
    TENSOR_COST = 128,   /* to put a tensor into a batch (work_done), */
    TENSORS_ADDED = 2048 /* of which there are about so many in one, but for the rest */
};

/* Whether everybody has sent the unit of this shard. What a push that is complete does
 * not name will not come. */
static bool is_ready(const struct model *model, size_t shard)
{
    const struct shard *first = &model->shards[shard];
    const struct tensor *tensor = &model->tensors[first->first_tensor];
    bool several = unit_shards(model, shard) > 1;
    for (size_t i = 0; i < model->round_count; i++) {
        const struct push *push = model->round[i];
        if (!is_complete(push) &&
            (several ? push->gradient.covered[first->first_tensor] != tensor->blocks
                     : push->here[shard] != first->blocks)) {
            return false;
        }
    }
    return true;
}

/* Put a shard into the batch; all of its blocks are there. */
static void add_shard(struct model *model, size_t index)
{
    const struct shard *shard = &model->shards[index];
    for (size_t i = 0; i < shard->tensor_count; i++) {
        uint32_t number = (uint32_t)(shard->first_tensor + i);
        const struct tensor *tensor = &model->tensors[number];
        size_t first = (index - tensor->shard) * SHARD_BLOCKS;
        size_t end = first + SHARD_BLOCKS;
        update_add(model, number, first, end < tensor->blocks ? end : tensor->blocks);
    }
}

/* From this shard on somebody has sent nothing, so nothing is ready. */
static size_t reached_by_all(const struct model *model)
{
    size_t reached = model->shard_count;
    for (size_t i = 0; i < model->round_count; i++) {
        const struct push *push = model->round[i];
        if (!is_complete(push) && push->reached < reached) {
            reached = push->reached;
        }
    }
    return reached;
}

/* Whether a unit is updated before the rest. A shard of very many tensors comes with
 * it, which is begun in pieces. */
static bool can_be_early(const struct shard *first)
{
    return first->blocks > 0 && first->tensor_count <= TENSORS_ADDED;
}

/* The first unit from a shard on that is not done and is ready; shard_count: none. Most
 * pushes come in the order of the shards, and then few are looked at. */
static size_t find_ready(struct engine *engine, const struct model *model, size_t from)
{
    size_t shard = from, end = reached_by_all(model), looks = 0;
    while (shard < end &&
           !(can_be_early(&model->shards[shard]) && !model->shards[shard].published &&
             is_ready(model, shard))) {
        shard += unit_shards(model, shard);
        looks += model->round_count;
    }
    work_done(engine, looks);
    return shard < end ? shard : model->shard_count;
}

/* The same from the beginning. No batch is under way: units are published as a whole.
 */
static size_t find_first_ready(struct engine *engine, struct model *model)
{
    size_t *done = &model->schedule.done;
    while (*done < model->shard_count &&
           (model->shards[*done].published || !can_be_early(&model->shards[*done]))) {
        (*done)++;
    }
    return find_ready(engine, model, *done);
}

/* ---------------------------------------------------------------- batches */

/* Begin a batch of all units that are ready. False: none is. */
static bool begin_ready(struct engine *engine, struct model *model)
{
    size_t shard = find_first_ready(engine, model), tensors = 0;
    if (shard >= model->shard_count) {
        return false;
    }
    update_batch(model, gradients_of(model), model->round_count);
    while (shard < model->shard_count && tensors < TENSORS_ADDED) {
        size_t end = shard + unit_shards(model, shard);
        for (; shard < end; shard++) {
            tensors += model->shards[shard].tensor_count;
            add_shard(model, shard);
        }
        shard = find_ready(engine, model, shard);
    }
    model->schedule.changed = shard < model->shard_count; /* the next batch has them */
    work_done(engine, TENSOR_COST * (uint64_t)tensors);
    update_batch_start(engine, model, false);
    return true;
}

void shard_schedule_whole(struct engine *engine, struct model *model)
{
    view_outdated(model);
    update_begin(engine, model);
    update_rest(engine, model, gradients_of(model), model->round_count);
}

/* List the pushes that the next round would be made of. False if somebody who is waited
 * for has not begun one. */
static bool list_begun(struct model *model)
{
    model->round_count = 0;
    for (size_t i = 0; i < model->member_count; i++) {
        const struct member *member = model->members[i];
        struct push *push = member->first;
        if (push == NULL && member->gathering != NULL && !member->gathering->echo) {
            push = member->gathering;
        }
        if (push != NULL) {
            model->round[model->round_count++] = push;
        } else if (member->joined && !member->resting) {
            return false;
        }
    }
    return model->round_count > 0;
}

static bool open_round(struct engine *engine, struct model *model)
{
    model->schedule.done = 0;
    if (!list_begun(model) || find_first_ready(engine, model) >= model->shard_count) {
        model->round_count = 0;
        return false;
    }
    if (!written_room(engine, model, NULL, 0, true)) {
        model->schedule.changed = true; /* it will be looked at again */
        model->round_count = 0;
        return false;
    }
    model->schedule.open = true;
    view_outdated(model);
    update_begin(engine, model);
    return true;
}

enum shards_begun shard_schedule_next(struct engine *engine, struct model *model)
{
    struct shard_schedule *schedule = &model->schedule;
    bool can_open = shard_schedule_is_policy(model) && model->gathered;
    if (!schedule->changed || !(schedule->open || can_open)) {
        return SHARDS_NONE;
    }
    schedule->changed = false;
    if (!schedule->open && !open_round(engine, model)) {
        return SHARDS_NONE;
    }
    if (!all_complete(model)) {
        return begin_ready(engine, model) ? SHARDS_SOME : SHARDS_NONE;
    }
    if (!written_room_rest(engine, model, gradients_of(model), model->round_count)) {
        schedule->changed = true;
        return SHARDS_NONE;
    }
    schedule->open = false;
    update_rest(engine, model, gradients_of(model), model->round_count);
    return SHARDS_REST;
}

/* ---------------------------------------------------------------- who takes part */

bool shard_schedule_has(const struct push *push)
{
    const struct model *model = push == NULL ? NULL : push->model;
    for (size_t i = 0; model != NULL && model->schedule.open && i < model->round_count;
         i++) {
        if (model->round[i] == push) {
            return true;
        }
    }
    return false;
}

bool shard_schedule_is_using(const struct push *push)
{
    return shard_schedule_has(push) && push->model->activity == MODEL_UPDATING;
}

void shard_schedule_withdraw(struct push *push)
{
    struct model *model = push->model;
    if (!shard_schedule_has(push)) {
        return;
    }
    size_t place = 0;
    while (model->round[place] != push) {
        place++;
    }
    model->round_count--;
    memmove(model->round + place, model->round + place + 1,
            (model->round_count - place) * sizeof(struct push *));
    model->schedule.changed = true;
}

/* ---------------------------------------------------------------- what leaves */

void shard_schedule_wish(struct push *push, const struct opt_pull *pull)
{
    push->wishes = false;
    /* Delay compensation remembers what a worker has been sent, from the answer. */
    if (pull == NULL || pull->segment_count > 0 ||
        push->model->consistency.delay_compensation > 0 ||
        !view_is_weights(push->model, pull)) {
        return;
    }
    push->wishes = true;
    push->wish_dtype = pull->dtype;
    push->wish_shared = pull->shared;
    push->wish_since = pull->since;
}

enum {
    PIECE_COST = 64,    /* of a piece that leaves (work_done), */
    PIECES_LEAVE = 4096 /* of which there are so many at a time, of all pushes */
};

/* The others go with the answer, and so do shards of very many tensors. */
static size_t most_pieces(const struct model *model)
{
    return PIECES_LEAVE / model->round_count;
}

/* Whether the shard can go before the answer, in a letter that has so many pieces. */
static bool can_leave(const struct push *push, size_t shard, size_t pieces)
{
    const struct shard *of = &push->model->shards[shard];
    return of->published && push->left[shard] == 0 &&
           of->tensor_count <= most_pieces(push->model) - pieces;
}

/* What a tensor has in a shard. */
static struct piece piece_of(const struct push *push, const struct shard *shard,
                             size_t number)
{
    const struct model *model = push->model;
    const struct tensor *tensor = &model->tensors[number];
    size_t from = shard->at > tensor->at ? shard->at - tensor->at : 0;
    size_t rest = tensor->n - from;
    struct piece piece = { .segment = { .tensor = (uint32_t)number,
                                        .offset = from,
                                        .count =
                                            rest < OPT_SHARD ? rest : OPT_SHARD } };
    piece.unchanged = view_is_unchanged(model, &piece.segment, push->wish_since);
    if (!piece.unchanged) {
        piece.values = version_values(shard->current) + (tensor->at + from - shard->at);
        piece.version = version_ref(shard->current);
    }
    return piece;
}

/* Pieces of all shards that can leave. */
static size_t count_leaving(const struct push *push)
{
    size_t count = 0;
    for (size_t i = 0; i < push->model->shard_count; i++) {
        count += can_leave(push, i, count) ? push->model->shards[i].tensor_count : 0;
    }
    return count;
}

/* Give the letter these pieces. */
static void fill(struct push *push, struct letter *letter)
{
    letter->piece_count = 0;
    for (size_t i = 0; i < push->model->shard_count; i++) {
        const struct shard *shard = &push->model->shards[i];
        if (!can_leave(push, i, letter->piece_count)) {
            continue;
        }
        for (size_t k = 0; k < shard->tensor_count; k++) {
            letter->pieces[letter->piece_count++] =
                piece_of(push, shard, shard->first_tensor + k);
        }
        push->left[i] = 1;
    }
}

/* A letter for the connection that the push comes from. It cannot go before the letter
 * does: frames of it are still here. NULL: there is none, or no memory. */
static struct letter *make(const struct push *push)
{
    const struct letter *frame =
        push->answer != NULL ? push->answer : push_first_frame(push);
    if (frame == NULL || frame->peer->closed) {
        return NULL;
    }
    struct letter *letter = letter_new(frame->home, frame->conn, frame->peer, 0);
    if (letter == NULL) {
        return NULL;
    }
    const struct model *model = push->model;
    letter->kind = LETTER_PART;
    letter->dtype = push->wish_dtype;
    letter->request.id = frame->request.id;
    letter->request.has_checksum = frame->request.has_checksum;
    letter->request.message = OPT_MESSAGE_PUSH_PULL;
    letter->request.body.push_pull.pull =
        (struct opt_pull){ .model = model->number, .shared = push->wish_shared };
    letter->reply = (struct opt_reply){
        .id = frame->request.id,
        .message = OPT_MESSAGE_PUSH_PULL,
        .body.push_pull.pull = { .step = model->step + 1,
                                 .dtype = push->wish_dtype,
                                 .epoch = model_epoch(model) },
    };
    return letter;
}

void shard_schedule_send(struct engine *engine, struct model *model)
{
    /* To look at very many shards for each of many pushes would take longer than what
     * is gained by it. */
    uint64_t looks = (uint64_t)model->shard_count * model->round_count;
    if (opt_update_synchronises(&model->update.scalars) ||
        !work_may_do(engine, looks)) {
        return;
    }
    work_done(engine, looks);
    for (size_t i = 0; i < model->round_count; i++) {
        struct push *push = model->round[i];
        size_t count = push->wishes ? count_leaving(push) : 0;
        struct letter *letter = count > 0 ? make(push) : NULL;
        if (letter == NULL) {
            continue; /* the answer will have it */
        }
        if (letter_pieces(letter, count)) {
            fill(push, letter);
            work_done(engine, PIECE_COST * (uint64_t)count);
            answer_part(engine, letter);
        } else {
            letter_free(letter);
        }
    }
}

/* The letter has no other pieces than those that it was to get. */
static void subtract_named(const struct push *push, struct letter *letter)
{
    const struct model *model = push->model;
    for (size_t i = 0; i < letter->piece_count; i++) {
        struct piece *piece = &letter->pieces[i];
        size_t run;
        const struct shard *shard =
            segment_shard(model, piece->segment.tensor, piece->segment.offset, 1, &run);
        piece->gone = push->left[shard - model->shards] != 0;
    }
}

void shard_schedule_subtract(struct engine *engine, const struct push *push,
                             struct letter *letter)
{
    const struct model *model = push->model;
    if (!push->wishes || memchr(push->left, 1, model->shard_count) == NULL) {
        return;
    }
    if (letter_pull(letter)->segment_count > 0) {
        subtract_named(push, letter);
        work_done(engine, letter->piece_count);
        return;
    }
    /* All pieces of all shards, one shard after the other. */
    size_t first = 0;
    for (size_t i = 0; i < model->shard_count; i++) {
        size_t count = model->shards[i].tensor_count;
        for (size_t k = 0; push->left[i] != 0 && k < count; k++) {
            letter->pieces[first + k].gone = true;
        }
        first += count;
    }
    work_done(engine, model->shard_count);
}
