/* round — who has pushed what, and when that becomes an update. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/desk.h"

static const struct opt_consistency sync_shrink = { .mode = OPT_SYNC };
static const uint64_t shape4[] = { 4 };
static const struct opt_tensor_entry four = {
    .name = "w", .shape = shape4, .rank = 1, .elements = 4
};

static enum opt_fate fate_of(const struct letter *letter)
{
    cr_assert(letter->reply.message == OPT_MESSAGE_PUSH, "%s", reply_text(letter));
    return letter->reply.body.push.fate;
}

Test(round, closes_when_the_only_worker_has_pushed)
{
    struct desk desk;
    desk_open(&desk, desk_settings());
    struct caller a = caller_new(&desk, "a", 1);
    float start[4] = { 1, 2, 3, 4 };
    uint32_t model = model_create(&a, "m", "sgd(lr=0.5)", sync_shrink, &four, 1, start);
    struct letter *push = letter_ask(&a, push_constant(&a, model, 1, 4, 1.0f));
    cr_assert(fate_of(push) == OPT_FATE_APPLIED);
    cr_assert(push->reply.body.push.step == 1);
    float weights[4];
    cr_assert(model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, 4) == 1);
    for (size_t i = 0; i < 4; i++) {
        cr_assert(weights[i] == start[i] - 0.5f);
    }
    desk_free(push);
    caller_gone(&a, false);
    desk_close(&desk);
}

Test(round, waits_for_every_joined_worker)
{
    struct desk desk;
    desk_open(&desk, desk_settings());
    struct caller a = caller_new(&desk, "a", 1), b = caller_new(&desk, "b", 2);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", sync_shrink, &four, 1, NULL);
    cr_assert(model_join(&b, "m") == model);
    struct letter *first = push_constant(&a, model, 1, 4, 1.0f);
    letter_send(&a, first);
    cr_assert(!letter_is_back(&desk, first));
    struct letter *second = letter_ask(&b, push_constant(&b, model, 1, 4, 3.0f));
    first = letter_await(&desk, first);
    cr_assert(fate_of(first) == OPT_FATE_APPLIED && fate_of(second) == OPT_FATE_APPLIED);
    float weights[4];
    cr_assert(model_pull(&b, model, OPT_VIEW_TRAIN, "", weights, 4) == 1);
    cr_assert(weights[0] == -2.0f, "the mean of 1 and 3");
    desk_free(first);
    desk_free(second);
    caller_gone(&a, false);
    caller_gone(&b, false);
    desk_close(&desk);
}
