/* An engine after the power went, at every moment of a training with durability ALWAYS:
 * every push that was answered counts, none counts twice, and weights, steps and what
 * is remembered of pushes agree.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "tests/support/kept.h"
#include "tests/support/power.h"

enum { PUSHES = 30, ELEMENTS = 3, SEEDS = 2 };

/* So many pushes were answered when there had been so many changes on the disk. */
struct moment {
    size_t changes;
    uint64_t answered;
};
static struct moment moments[PUSHES + 1];

static void push_one(const struct caller *caller, uint32_t model, uint64_t sequence)
{
    static const float gradient[ELEMENTS] = { -1, -2, -3 };
    const struct opt_segment segment = { .tensor = 0 };
    struct letter *letter =
        letter_ask(caller, push_letter(caller, model, sequence, OPT_FP32, &segment, 1,
                                       gradient, sizeof gradient));
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    cr_assert(letter->reply.body.push.durable);
    harness_free(letter);
}

static void live(const struct caller *caller, struct power *power)
{
    static const uint64_t shape[] = { ELEMENTS };
    static const struct opt_tensor_entry tensor = {
        .name = "w", .shape = shape, .rank = 1, .elements = ELEMENTS
    };
    static const float start[ELEMENTS] = { 0 };
    const struct opt_consistency policy = { .mode = OPT_ASYNC };
    uint32_t model = model_create(caller, "m", "sgd(lr=1)", policy, &tensor, 1, start);
    moments[0] = (struct moment){ .changes = power_changes(power) };
    for (uint64_t i = 1; i <= PUSHES; i++) {
        push_one(caller, model, i);
        moments[i] = (struct moment){ .changes = power_changes(power), .answered = i };
    }
}

/* What came back is the model after so many pushes as were answered, or some more. */
static void expect(struct kept *kept, const struct moment *was, size_t cut)
{
    struct engine *engine = kept->harness.engine;
    cr_assert_eq(engine->model_count, 1, "after %zu changes", cut);
    const struct model *model = engine->numbered[0];
    cr_assert_geq(model->step, was->answered, "after %zu changes", cut);
    cr_assert_leq(model->step, was->answered + 1, "after %zu changes", cut);
    cr_assert_eq(model->members[0]->window.last, model->step);
    struct caller reader = caller_new(&kept->harness, "", 0);
    float weights[ELEMENTS];
    model_pull(&reader, model->number, OPT_VIEW_TRAIN, "", weights, ELEMENTS);
    for (int i = 0; i < ELEMENTS; i++) {
        cr_assert_eq(weights[i], (float)(i + 1) * (float)model->step);
    }
    caller_gone(&reader, false);
}

Test(power, keeps_every_push_that_was_answered, .timeout = 120)
{
    struct kept kept = { .durable = NULL };
    struct durable_settings settings = kept_settings();
    settings.checkpoint_ms = 3;
    files_open(&kept.files);
    struct power *power = power_record(kept.files.folder);
    kept_start(&kept, settings);
    struct caller caller = caller_new(&kept.harness, "a", 1);
    live(&caller, power);
    caller_gone(&caller, false);
    kept_stop(&kept);
    power_stop(power);
    size_t moment = 0;
    settings.checkpoint_ms = 0;
    for (size_t cut = moments[0].changes; cut <= moments[PUSHES].changes; cut++) {
        while (moment < PUSHES && moments[moment + 1].changes <= cut) {
            moment++;
        }
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct kept again = { .durable = NULL };
            files_open(&again.files);
            power_cut(power, cut, cut * SEEDS + seed, again.files.folder);
            kept_start(&again, settings);
            expect(&again, &moments[moment], cut);
            kept_stop(&again);
            data_dir_close(&again.dir);
            files_close(&again.files);
        }
    }
    data_dir_close(&kept.dir);
    power_free(power);
    files_close(&kept.files);
}
