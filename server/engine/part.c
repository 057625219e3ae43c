/* part — see part.h. */
#include "server/engine/part.h"

#include <stdlib.h>
#include <string.h>

#include "common/optim/update.h"
#include "server/engine/answers.h"
#include "server/engine/inside.h"
#include "server/engine/model.h"
#include "server/engine/published.h"
#include "server/engine/push.h"
#include "server/engine/segment.h"
#include "server/engine/view.h"

void part_wish(struct push *push, const struct opt_pull *pull)
{
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

void part_forget(struct push *push)
{
    memset(push->left, 0, push->model->shard_count * sizeof *push->left);
}

static bool can_leave(const struct push *push, size_t shard)
{
    return push->model->shards[shard].stage == SHARD_APPLIED && push->left[shard] == 0;
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

/* Give the letter the pieces of all shards that can leave. False: no memory. */
static bool fill(struct push *push, struct letter *letter)
{
    const struct model *model = push->model;
    size_t count = 0;
    for (size_t i = 0; i < model->shard_count; i++) {
        count += can_leave(push, i) ? model->shards[i].tensor_count : 0;
    }
    if (!letter_pieces(letter, count)) {
        return false;
    }
    letter->piece_count = 0;
    for (size_t i = 0; i < model->shard_count; i++) {
        const struct shard *shard = &model->shards[i];
        for (size_t k = 0; can_leave(push, i) && k < shard->tensor_count; k++) {
            letter->pieces[letter->piece_count++] =
                piece_of(push, shard, shard->first_tensor + k);
        }
    }
    for (size_t i = 0; i < model->shard_count; i++) {
        push->left[i] = push->left[i] || can_leave(push, i);
    }
    return true;
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

static bool any_can_leave(const struct push *push)
{
    for (size_t i = 0; i < push->model->shard_count; i++) {
        if (can_leave(push, i)) {
            return true;
        }
    }
    return false;
}

void part_send(struct engine *engine, struct model *model)
{
    if (opt_update_synchronises(&model->update.scalars)) {
        return;
    }
    for (size_t i = 0; i < model->round_count; i++) {
        struct push *push = model->round[i];
        struct letter *letter = push->wishes && any_can_leave(push) ? make(push) : NULL;
        if (letter == NULL) {
            continue; /* the answer will have it */
        }
        if (fill(push, letter)) {
            engine_send_part(engine, letter);
        } else {
            letter_free(letter);
        }
    }
}

void part_subtract(const struct push *push, struct letter *letter)
{
    const struct model *model = push->model;
    if (!push->wishes || memchr(push->left, 1, model->shard_count) == NULL) {
        return;
    }
    size_t kept = 0;
    for (size_t i = 0; i < letter->piece_count; i++) {
        struct piece *piece = &letter->pieces[i];
        size_t run;
        const struct shard *shard =
            segment_shard(model, piece->segment.tensor, piece->segment.offset, 1, &run);
        if (push->left[shard - model->shards] == 0) {
            letter->pieces[kept++] = *piece;
        }
    }
    letter->piece_count = kept;
}
