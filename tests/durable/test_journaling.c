/* journaling — answers leave when what they tell is on disk, one sync serves many, and
 * a disk that fails or is full is said and survived.
 */
#include "server/durable/journaling.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "tests/support/kept.h"

enum { N = 8, WORKERS = 12 };

static struct kept kept;
static const uint64_t shape[] = { N };
static const struct opt_tensor_entry tensor = {
    .name = "w", .shape = shape, .rank = 1, .elements = N
};

static void open_kept(enum opt_durability durability)
{
    struct durable_settings settings = kept_settings();
    settings.durability = durability;
    kept_open(&kept, settings);
}

static void tear_down(void)
{
    kept_close(&kept);
}

TestSuite(journaling, .fini = tear_down);

static const struct opt_consistency async = { .mode = OPT_ASYNC, .min_workers = 1 };

static struct caller worker(const char *name, uint64_t session)
{
    return caller_new(&kept.harness, name, session);
}

static uint32_t create(const struct caller *caller, const char *name)
{
    return model_create(caller, name, "sgd(lr=1)", async, &tensor, 1, NULL);
}

static struct letter *start_push(const struct caller *caller, uint32_t model,
                                 uint64_t sequence)
{
    struct letter *letter = push_constant(caller, model, sequence, N, 1);
    letter_send(caller, letter);
    return letter;
}

static const struct opt_error_reply *error_of(const struct letter *letter)
{
    cr_assert_eq(letter->reply.message, OPT_MESSAGE_ERROR);
    return &letter->reply.body.error;
}

static void expect_push(const struct letter *letter, enum opt_fate fate, uint64_t step,
                        bool durable)
{
    cr_assert_eq(letter->reply.message, OPT_MESSAGE_PUSH, "%s", reply_text(letter));
    const struct opt_push_reply *reply = &letter->reply.body.push;
    cr_assert_eq(reply->fate, fate);
    cr_assert_eq(reply->step, step);
    cr_assert_eq(reply->durable, durable);
}

static struct letter *wait_durable(const struct caller *caller, uint32_t model,
                                   uint64_t step)
{
    struct letter *letter = letter_start(caller, OPT_MESSAGE_WAIT);
    letter->request.body.wait =
        (struct opt_wait){ .model = model, .step = step, .durable = true };
    return letter;
}

/* ---------------------------------------------------------------- when answers leave
 */

Test(journaling, of_always_a_push_is_answered_when_it_is_durable)
{
    open_kept(OPT_DURABILITY_ALWAYS);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    disk_hold();
    struct letter *push = start_push(&a, model, 1);
    disk_await_held();
    cr_assert_not(letter_is_back(&kept.harness, push));
    disk_go_on();
    push = letter_await(&kept.harness, push);
    expect_push(push, OPT_FATE_APPLIED, 1, true);
    harness_free(push);
    caller_gone(&a, false);
}

Test(journaling, of_always_one_sync_serves_all_who_came_meanwhile)
{
    open_kept(OPT_DURABILITY_ALWAYS);
    struct caller workers[WORKERS];
    struct letter *pushes[WORKERS];
    uint32_t model = 0;
    for (uint64_t i = 0; i < WORKERS; i++) {
        char name[] = { (char)('a' + i), '\0' };
        workers[i] = worker(name, i + 1);
        model = i == 0 ? create(&workers[i], "m") : model_join(&workers[i], "m");
    }
    unsigned before = disk_syncs();
    disk_hold();
    pushes[0] = start_push(&workers[0], model, 1);
    disk_await_held();
    for (size_t i = 1; i < WORKERS; i++) {
        pushes[i] = start_push(&workers[i], model, 1);
    }
    cr_assert_not(letter_is_back(&kept.harness, pushes[WORKERS - 1]));
    disk_go_on();
    for (size_t i = 0; i < WORKERS; i++) {
        pushes[i] = letter_await(&kept.harness, pushes[i]);
        expect_push(pushes[i], OPT_FATE_APPLIED, i + 1, true);
        cr_assert(i == 0 || pushes[i]->arrived_ns > pushes[i - 1]->arrived_ns,
                  "they leave in their order");
    }
    cr_assert_leq(disk_syncs(), before + 3);
    for (size_t i = 0; i < WORKERS; i++) {
        harness_free(pushes[i]);
        caller_gone(&workers[i], false);
    }
    kept_stop(&kept);
    cr_assert_eq(kept_count(&kept, RECORD_PUSH), (size_t)WORKERS);
    cr_assert_eq(kept_count(&kept, RECORD_BATCH), (size_t)WORKERS);
    cr_assert_eq(kept_count(&kept, RECORD_STEP), (size_t)WORKERS);
}

Test(journaling, of_interval_a_push_is_answered_when_it_is_written)
{
    open_kept(OPT_DURABILITY_INTERVAL);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    struct letter *push = letter_ask(&a, push_constant(&a, model, 1, N, 1));
    expect_push(push, OPT_FATE_APPLIED, 1, false);
    harness_free(push);
    cr_assert_eq(disk_syncs(), 0u);
    cr_assert_eq(statistic(&a, "records_durable"), 0u);
    cr_assert_eq(statistic(&a, "journal_records"), statistic(&a, "records_made"));
    struct letter *wait = letter_ask(&a, wait_durable(&a, model, 1));
    cr_assert_eq(wait->reply.message, OPT_MESSAGE_WAIT, "%s", reply_text(wait));
    cr_assert_eq(wait->reply.body.wait.step, 1u);
    cr_assert(wait->reply.body.wait.durable);
    harness_free(wait);
    cr_assert_eq(disk_syncs(), 1u);
    cr_assert_eq(statistic(&a, "records_durable"), statistic(&a, "records_made"));
    push = letter_ask(&a, push_constant(&a, model, 1, N, 1));
    expect_push(push, OPT_FATE_DUPLICATE, 1, true);
    harness_free(push);
    caller_gone(&a, false);
}

Test(journaling, of_interval_nobody_waits_for_a_sync)
{
    open_kept(OPT_DURABILITY_INTERVAL);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    disk_hold();
    struct letter *wait = wait_durable(&a, model, 0);
    letter_send(&a, wait);
    disk_await_held();
    for (uint64_t i = 1; i <= 5; i++) {
        struct letter *push = letter_ask(&a, push_constant(&a, model, i, N, 1));
        expect_push(push, OPT_FATE_APPLIED, i, false);
        harness_free(push);
    }
    cr_assert_not(letter_is_back(&kept.harness, wait));
    disk_go_on();
    wait = letter_await(&kept.harness, wait);
    cr_assert_eq(wait->reply.body.wait.step, 0u);
    cr_assert(wait->reply.body.wait.durable);
    harness_free(wait);
    caller_gone(&a, false);
}

Test(journaling, of_interval_everything_is_synced_when_its_time_has_come)
{
    struct durable_settings settings = kept_settings();
    settings.durability = OPT_DURABILITY_INTERVAL;
    settings.interval_ms = 1;
    kept_open(&kept, settings);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    struct letter *push = letter_ask(&a, push_constant(&a, model, 1, N, 1));
    harness_free(push);
    while (statistic(&a, "records_durable") < statistic(&a, "records_made")) {
    }
    cr_assert_gt(disk_syncs(), 0u);
    caller_gone(&a, false);
}

Test(journaling, of_checkpoint_nothing_is_recorded)
{
    open_kept(OPT_DURABILITY_CHECKPOINT);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    for (uint64_t i = 1; i <= 5; i++) {
        struct letter *push = letter_ask(&a, push_constant(&a, model, i, N, 1));
        expect_push(push, OPT_FATE_APPLIED, i, false);
        harness_free(push);
    }
    struct letter *wait = letter_ask(&a, wait_durable(&a, model, 5));
    cr_assert_eq(wait->reply.message, OPT_MESSAGE_WAIT, "%s", reply_text(wait));
    cr_assert_eq(wait->reply.body.wait.step, 5u);
    cr_assert(wait->reply.body.wait.durable, "a checkpoint has it");
    harness_free(wait);
    caller_gone(&a, false);
    kept_stop(&kept);
    cr_assert_eq(kept_count(&kept, RECORD_MODEL), 0u);
    cr_assert_eq(kept_count(&kept, RECORD_PUSH), 0u);
    cr_assert_eq(kept_count(&kept, RECORD_STEP), 0u);
    cr_assert_gt(kept_count(&kept, RECORD_WORKER), 0u);
}

Test(journaling, of_a_daemon_that_stops_all_is_durable)
{
    open_kept(OPT_DURABILITY_INTERVAL);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    for (uint64_t i = 1; i <= 5; i++) {
        harness_free(letter_ask(&a, push_constant(&a, model, i, N, 1)));
    }
    cr_assert_eq(disk_syncs(), 0u);
    caller_gone(&a, false);
    kept_stop(&kept);
    cr_assert_gt(disk_syncs(), 0u);
    cr_assert_eq(kept_count(&kept, RECORD_PUSH), 5u);
    cr_assert_eq(kept_count(&kept, RECORD_GONE), 0u);
}

Test(journaling, of_a_push_whose_time_passes_says_that_it_was_applied)
{
    open_kept(OPT_DURABILITY_ALWAYS);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    disk_hold();
    struct letter *push = push_constant(&a, model, 1, N, 1);
    push->request.timeout_ms = 50;
    letter_send(&a, push);
    push = letter_await(&kept.harness, push);
    cr_assert_eq(error_of(push)->status, OPT_DEADLINE_EXCEEDED);
    cr_assert_eq(error_of(push)->detail, OPT_DETAIL_NOT_DURABLE);
    cr_assert_eq(error_of(push)->fate, OPT_FATE_APPLIED);
    cr_assert_not_null(strstr(reply_text(push), "was applied at step 1"));
    harness_free(push);
    push = start_push(&a, model, 1);
    cr_assert_not(letter_is_back(&kept.harness, push));
    disk_go_on();
    push = letter_await(&kept.harness, push);
    expect_push(push, OPT_FATE_DUPLICATE, 1, true);
    harness_free(push);
    caller_gone(&a, false);
}

/* ---------------------------------------------------------------- disks that fail */

Test(journaling, of_a_failure_nothing_is_lost_and_nobody_hears)
{
    open_kept(OPT_DURABILITY_ALWAYS);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    for (uint64_t i = 1; i <= 6; i++) {
        disk_fail(i % 2 == 0 ? EIO : ENOSPC, 1);
        struct letter *push = letter_ask(&a, push_constant(&a, model, i, N, 1));
        expect_push(push, OPT_FATE_APPLIED, i, true);
        harness_free(push);
    }
    cr_assert_eq(statistic(&a, "journal_failures"), 6u);
    cr_assert_eq(statistic(&a, "degraded"), 0u);
    caller_gone(&a, false);
    disk_fail_saving(EIO, 1); /* a last checkpoint would have all that is there */
    kept_stop(&kept);
    cr_assert_eq(kept_count(&kept, RECORD_PUSH), 6u);
}

Test(journaling, of_always_pushes_are_refused_while_the_disk_is_full)
{
    open_kept(OPT_DURABILITY_ALWAYS);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    disk_fail(ENOSPC, UINT_MAX);
    struct letter *push = letter_ask(&a, push_constant(&a, model, 1, N, 1));
    cr_assert_eq(error_of(push)->status, OPT_RESOURCE_EXHAUSTED);
    cr_assert_eq(error_of(push)->detail, OPT_DETAIL_NOT_DURABLE);
    cr_assert_eq(error_of(push)->fate, OPT_FATE_APPLIED);
    cr_assert_gt(error_of(push)->retry_after_ms, 0u);
    cr_assert_not_null(strstr(reply_text(push), "No space left"), "%s",
                       reply_text(push));
    harness_free(push);
    cr_assert_eq(statistic(&a, "degraded"), 1u);
    push = letter_ask(&a, push_constant(&a, model, 2, N, 1));
    cr_assert_eq(error_of(push)->status, OPT_RESOURCE_EXHAUSTED);
    cr_assert_eq(error_of(push)->fate, OPT_FATE_NOT_TAKEN);
    cr_assert_gt(error_of(push)->retry_after_ms, 0u);
    harness_free(push);
    float weights[N];
    cr_assert_eq(model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, N), 1u);
    disk_mend();
    while (statistic(&a, "degraded") > 0) {
    }
    push = letter_ask(&a, push_constant(&a, model, 1, N, 1));
    expect_push(push, OPT_FATE_DUPLICATE, 1, true);
    harness_free(push);
    push = letter_ask(&a, push_constant(&a, model, 2, N, 1));
    expect_push(push, OPT_FATE_APPLIED, 2, true);
    harness_free(push);
    caller_gone(&a, false);
    kept_stop(&kept);
    cr_assert_eq(kept_count(&kept, RECORD_PUSH), 2u);
}

Test(journaling, of_interval_pushes_go_on_while_the_disk_fails)
{
    open_kept(OPT_DURABILITY_INTERVAL);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    disk_fail(EIO, UINT_MAX);
    for (uint64_t i = 1; i <= 20; i++) {
        struct letter *push = letter_ask(&a, push_constant(&a, model, i, N, 1));
        expect_push(push, OPT_FATE_APPLIED, i, false);
        harness_free(push);
    }
    cr_assert_eq(statistic(&a, "degraded"), 1u);
    struct letter *wait = letter_ask(&a, wait_durable(&a, model, 20));
    cr_assert_eq(error_of(wait)->status, OPT_RESOURCE_EXHAUSTED);
    cr_assert_eq(error_of(wait)->detail, OPT_DETAIL_NOT_DURABLE);
    cr_assert_gt(error_of(wait)->retry_after_ms, 0u);
    harness_free(wait);
    disk_mend();
    while (statistic(&a, "degraded") > 0) {
    }
    wait = letter_ask(&a, wait_durable(&a, model, 20));
    cr_assert_eq(wait->reply.message, OPT_MESSAGE_WAIT, "%s", reply_text(wait));
    harness_free(wait);
    cr_assert_eq(statistic(&a, "records_lost"), 0u);
    caller_gone(&a, false);
    kept_stop(&kept);
    cr_assert_eq(kept_count(&kept, RECORD_PUSH), 20u);
}

Test(journaling, of_a_push_that_is_not_durable_open_says_that_it_waits)
{
    open_kept(OPT_DURABILITY_ALWAYS);
    struct caller a = worker("a", 1);
    uint32_t model = create(&a, "m");
    disk_fail(EIO, UINT_MAX);
    harness_free(letter_ask(&a, push_constant(&a, model, 1, N, 1)));
    cr_assert_eq(statistic(&a, "degraded"), 1u);
    static const uint64_t unanswered[] = { 1, 2 };
    struct letter *letter = letter_start(&a, OPT_MESSAGE_OPEN);
    letter->request.body.open = (struct opt_open){
        .model = "m", .join = true, .unanswered = unanswered, .unanswered_count = 2
    };
    letter = letter_ask(&a, letter);
    cr_assert_eq(letter->reply.message, OPT_MESSAGE_MODEL, "%s", reply_text(letter));
    const struct opt_model_reply *reply = &letter->reply.body.model;
    cr_assert_eq(reply->settled_count, 0u);
    cr_assert_eq(reply->waiting_count, 1u);
    cr_assert_eq(reply->waiting[0], 1u);
    harness_free(letter);
    disk_mend();
    while (statistic(&a, "degraded") > 0) {
    }
    letter = letter_start(&a, OPT_MESSAGE_OPEN);
    letter->request.body.open = (struct opt_open){
        .model = "m", .join = true, .unanswered = unanswered, .unanswered_count = 2
    };
    letter = letter_ask(&a, letter);
    reply = &letter->reply.body.model;
    cr_assert_eq(reply->settled_count, 1u);
    cr_assert_eq(reply->settled[0].fate, OPT_FATE_APPLIED);
    cr_assert(reply->settled[0].durable);
    harness_free(letter);
    caller_gone(&a, false);
}

Test(journaling, of_more_than_the_queue_takes_makes_pushes_wait)
{
    enum { LARGE = 300000 }; /* elements */
    static const uint64_t large_shape[] = { LARGE };
    static const struct opt_tensor_entry large = {
        .name = "w", .shape = large_shape, .rank = 1, .elements = LARGE
    };
    struct durable_settings settings = kept_settings();
    settings.durability = OPT_DURABILITY_INTERVAL;
    settings.queue_bytes = 1 << 20;
    kept_open(&kept, settings);
    struct caller a = worker("a", 1);
    uint32_t model = model_create(&a, "m", "sgd(lr=1)", async, &large, 1, NULL);
    disk_hold();
    struct letter *push = letter_ask(&a, push_constant(&a, model, 1, LARGE, 1));
    expect_push(push, OPT_FATE_APPLIED, 1, false);
    harness_free(push);
    push = push_constant(&a, model, 2, LARGE, 1);
    letter_send(&a, push);
    disk_await_held();
    cr_assert_not(letter_is_back(&kept.harness, push));
    cr_assert_eq(statistic(&a, "updates"), 1u);
    cr_assert_gt(statistic(&a, "journal_queue_bytes"), LARGE * sizeof(float));
    disk_go_on();
    push = letter_await(&kept.harness, push);
    cr_assert_eq(push->reply.message, OPT_MESSAGE_PUSH, "%s", reply_text(push));
    cr_assert_eq(push->reply.body.push.step, 2u);
    harness_free(push);
    caller_gone(&a, false);
    kept_stop(&kept);
    cr_assert_eq(kept_count(&kept, RECORD_BATCH), 2u);
}

/* One life: a model, and pushes, of which each is answered when it is durable. Whatever
 * fails, once, nobody notices. Then all is there again. Returns how many calls there
 * were. */
static unsigned live(int code, unsigned at)
{
    enum { PUSHES = 4 };
    float weights[N];
    open_kept(OPT_DURABILITY_ALWAYS);
    struct caller a = worker("a", 1);
    disk_fail_journal(code, at);
    uint32_t model = create(&a, "m");
    for (uint64_t i = 1; i <= PUSHES; i++) {
        struct letter *push = letter_ask(&a, push_constant(&a, model, i, N, 1));
        expect_push(push, OPT_FATE_APPLIED, i, true);
        harness_free(push);
    }
    cr_assert_eq(statistic(&a, "degraded"), 0u);
    caller_gone(&a, false);
    kept_stop(&kept);
    data_dir_close(&kept.dir);
    unsigned calls = disk_journal_calls();
    disk_fail_journal(0, 0);
    kept_start(&kept, kept_settings());
    a = worker("a", 2);
    model = model_join(&a, "m");
    cr_assert_eq(model_pull(&a, model, OPT_VIEW_TRAIN, "", weights, N),
                 (uint64_t)PUSHES);
    cr_assert_eq(weights[0], -(float)PUSHES);
    caller_gone(&a, false);
    kept_stop(&kept);
    return calls;
}

Test(journaling, of_a_call_that_fails_anywhere_nobody_hears)
{
    unsigned calls = live(0, 0);
    cr_assert_gt(calls, 10u);
    for (unsigned at = 1; at <= calls; at++) {
        kept_close(&kept);
        (void)live(at % 2 == 0 ? EIO : ENOSPC, at);
    }
}

/* ---------------------------------------------------------------- definitions */

static struct letter *create_as(const struct caller *caller,
                                enum opt_durability durability, uint64_t steps)
{
    struct letter *letter =
        create_letter(caller, "m", "sgd(lr=1)", async, &tensor, 1, false, true);
    letter->request.body.create.durability = durability;
    letter->request.body.create.checkpoint_steps = steps;
    return letter_ask(caller, letter);
}

Test(journaling, of_a_model_belongs_to_its_definition)
{
    open_kept(OPT_DURABILITY_INTERVAL);
    struct caller a = worker("a", 1);
    struct letter *letter = create_as(&a, OPT_DURABILITY_ALWAYS, 100);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
    letter = create_as(&a, OPT_DURABILITY_DEFAULT, 0);
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
    letter = create_as(&a, OPT_DURABILITY_INTERVAL, 0);
    cr_assert_eq(error_of(letter)->detail, OPT_DETAIL_OTHER_DEFINITION);
    cr_assert_not_null(
        strstr(reply_text(letter), "its durability is always, not interval"));
    harness_free(letter);
    letter = create_as(&a, OPT_DURABILITY_ALWAYS, 7);
    cr_assert_eq(error_of(letter)->detail, OPT_DETAIL_OTHER_DEFINITION);
    cr_assert_not_null(
        strstr(reply_text(letter), "its checkpoint_steps is 100, not 7"));
    harness_free(letter);
    caller_gone(&a, false);
}
