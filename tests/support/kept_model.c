/* kept_model — see kept_model.h. */
#include "tests/support/kept_model.h"

#include <criterion/criterion.h>
#include <string.h>

static const uint64_t matrix[] = { 100, 300 }, table[] = { 40, 3 }, one[] = { 1 };
static struct manifest_tensor tensors[KEPT_TENSORS] = {
    { { .name = "layer.weight", .shape = matrix, .rank = 2, .elements = 30000 },
      { .t = 3, .mu_product = 1 } },
    { { .name = "scale", .elements = 1 }, { .t = 2, .mu_product = 0.1 } },
    { { .name = "a \"quoted\" \\ \xc3\xbc", .shape = one, .rank = 1, .elements = 1 },
      { .mu_product = 1 / 3.0 } },
    { { .name = "words", .shape = table, .rank = 2, .elements = 120, .sparse = true },
      { .t = UINT64_MAX, .mu_product = 1e-300 } },
    { { .name = "end", .shape = one, .rank = 1, .elements = 1 }, { .mu_product = 1 } },
};
static const char *const slots[] = { "exp_avg", "exp_avg_sq" };
static const char *const lost[] = { "w-2", "w-1" };
static const struct manifest_change changes[] = {
    { .step = 2,
      .before = "sgd(lr=1)",
      .after = "sgd(lr=2)",
      .change = "",
      .done = true },
    { .step = 900, .before = "sgd(lr=2)", .after = "sgd(lr=3)", .change = "lr=3" },
};
static struct window windows[KEPT_MEMBERS];

/* As training makes them: steadily, with everything that can happen, and not at all. */
static void fill_windows(void)
{
    struct window *steady = &windows[0], *eventful = &windows[1];
    memset(windows, 0, sizeof windows);
    for (uint64_t i = 1; i <= 10000; i++) {
        window_settle(steady, &(struct opt_settled){
                                  .sequence = i, .fate = OPT_FATE_APPLIED, .step = i });
    }
    for (uint64_t i = 1; i <= 600; i++) {
        struct opt_settled settled = { .sequence = i * 3,
                                       .fate = OPT_FATE_APPLIED,
                                       .step = i * i };
        if (i % 7 == 0) {
            settled.fate = OPT_FATE_REFUSED;
            settled.status = OPT_DEADLINE_EXCEEDED;
        } else if (i % 11 == 0) {
            settled.fate = OPT_FATE_IN_PART;
            settled.status = OPT_ABORTED;
            settled.shards_applied = i;
        } else if (i % 13 == 0) {
            settled.fate = OPT_FATE_SKIPPED;
        }
        window_settle(eventful, &settled);
    }
}

static struct manifest_member members[KEPT_MEMBERS] = {
    { .name = "w-1",
      .worker = { .session = UINT64_MAX, .incarnation = 2, .lost_why = "" },
      .member = { .joined = true,
                  .last_step = 3,
                  .clock = 10000,
                  .since = 1,
                  .barrier_session = 0xFEDCBA9876543210,
                  .barrier_passed = UINT64_MAX },
      .applied = 10000,
      .duplicates = 1,
      .window = &windows[0] },
    { .name = "w-2",
      .worker = { .session = 5,
                  .incarnation = 9,
                  .lost = true,
                  .lost_why = "after 5.0 s of silence" },
      .member = { .joined = true, .resting = true, .lost = true, .lost_step = 2 },
      .refused = 3,
      .resends = 4,
      .dropped = 5,
      .window = &windows[1] },
    { .name = "\xc3\xbc", .worker = { .lost_why = "" }, .window = &windows[2] },
};

const struct manifest *kept_manifest(uint64_t step)
{
    static struct manifest manifest;
    fill_windows();
    manifest = (struct manifest){
        .directory = 0x1111222233334444,
        .record = 99,
        .identity = 0x00AABBCCDDEEFF00,
        .name = "model \"x\"",
        .created = "sgd(lr=1)",
        .specification = "sgd(lr=2)",
        .consistency = { .mode = OPT_BOUNDED,
                         .loss = OPT_LOSS_WAIT,
                         .min_workers = UINT32_MAX,
                         .samples = UINT64_MAX,
                         .backup = 1,
                         .staleness = UINT32_MAX,
                         .damping = true,
                         .delay_compensation = 0.1,
                         .atomic = OPT_ATOMIC_SHARD },
        .step = step,
        .changed = 1,
        .epochs_before = 7,
        .epochs_from = 8,
        .rounds_skipped = 9,
        .pushes_applied = 10,
        .dropped = 11,
        .staleness_sum = 12.5,
        .durability = OPT_DURABILITY_CHECKPOINT,
        .checkpoint_steps = 500,
        .gathered = true,
        .tensors = tensors,
        .tensor_count = KEPT_TENSORS,
        .slots = slots,
        .slot_count = KEPT_ARRAYS - 1,
        .changes = changes,
        .change_count = 2,
        .members = members,
        .member_count = KEPT_MEMBERS,
        .lost = lost,
        .lost_count = 2,
        .losses = 40,
        .files = { { .name = "weights.safetensors" },
                   { .name = "slot.exp_avg.safetensors" },
                   { .name = "slot.exp_avg_sq.safetensors" } },
    };
    return &manifest;
}

float kept_value(uint64_t step, size_t array, size_t tensor, uint64_t element)
{
    return (float)step + (float)(array * 10 + tensor) / 64 + (float)element * 3;
}

static void expect_members(const struct manifest_member *a,
                           const struct manifest_member *b)
{
    cr_assert_str_eq(a->name, b->name);
    cr_assert_eq(a->worker.session, b->worker.session);
    cr_assert_eq(a->worker.incarnation, b->worker.incarnation);
    cr_assert_eq(a->worker.lost, b->worker.lost);
    cr_assert_str_eq(a->worker.lost_why, b->worker.lost_why);
    cr_assert_eq(a->member.joined, b->member.joined);
    cr_assert_eq(a->member.resting, b->member.resting);
    cr_assert_eq(a->member.lost, b->member.lost);
    cr_assert_eq(a->member.lost_step, b->member.lost_step);
    cr_assert_eq(a->member.last_step, b->member.last_step);
    cr_assert_eq(a->member.clock, b->member.clock);
    cr_assert_eq(a->member.since, b->member.since);
    cr_assert_eq(a->member.barrier_session, b->member.barrier_session);
    cr_assert_eq(a->member.barrier_passed, b->member.barrier_passed);
    cr_assert_eq(a->applied, b->applied);
    cr_assert_eq(a->duplicates, b->duplicates);
    cr_assert_eq(a->refused, b->refused);
    cr_assert_eq(a->resends, b->resends);
    cr_assert_eq(a->dropped, b->dropped);
    cr_assert_eq(memcmp(a->window, b->window, sizeof *a->window), 0);
}

static void expect_tensors(const struct manifest_tensor *a,
                           const struct manifest_tensor *b)
{
    cr_assert_str_eq(a->entry.name, b->entry.name);
    cr_assert_eq(a->entry.rank, b->entry.rank);
    for (size_t i = 0; i < a->entry.rank; i++) {
        cr_assert_eq(a->entry.shape[i], b->entry.shape[i]);
    }
    cr_assert_eq(a->entry.elements, b->entry.elements);
    cr_assert_eq(a->entry.sparse, b->entry.sparse);
    cr_assert_eq(a->entry.step, b->entry.step);
    cr_assert_eq(a->counters.t, b->counters.t);
    cr_assert_eq(a->counters.mu_product, b->counters.mu_product);
}

static void expect_lists(const struct manifest *a, const struct manifest *b)
{
    cr_assert_eq(a->tensor_count, b->tensor_count);
    for (size_t i = 0; i < a->tensor_count; i++) {
        expect_tensors(&a->tensors[i], &b->tensors[i]);
    }
    cr_assert_eq(a->slot_count, b->slot_count);
    for (size_t i = 0; i < a->slot_count; i++) {
        cr_assert_str_eq(a->slots[i], b->slots[i]);
    }
    cr_assert_eq(a->change_count, b->change_count);
    for (size_t i = 0; i < a->change_count; i++) {
        cr_assert_eq(a->changes[i].step, b->changes[i].step);
        cr_assert_str_eq(a->changes[i].before, b->changes[i].before);
        cr_assert_str_eq(a->changes[i].after, b->changes[i].after);
        cr_assert_str_eq(a->changes[i].change, b->changes[i].change);
        cr_assert_eq(a->changes[i].done, b->changes[i].done);
    }
    cr_assert_eq(a->member_count, b->member_count);
    for (size_t i = 0; i < a->member_count; i++) {
        expect_members(&a->members[i], &b->members[i]);
    }
    cr_assert_eq(a->lost_count, b->lost_count);
    for (size_t i = 0; i < a->lost_count; i++) {
        cr_assert_str_eq(a->lost[i], b->lost[i]);
    }
    cr_assert_eq(a->losses, b->losses);
}

void kept_expect_same(const struct manifest *a, const struct manifest *b)
{
    const struct opt_consistency *of_a = &a->consistency, *of_b = &b->consistency;
    cr_assert_eq(a->directory, b->directory);
    cr_assert_eq(a->record, b->record);
    cr_assert_eq(a->identity, b->identity);
    cr_assert_str_eq(a->name, b->name);
    cr_assert_str_eq(a->created, b->created);
    cr_assert_str_eq(a->specification, b->specification);
    cr_assert_eq(of_a->mode, of_b->mode);
    cr_assert_eq(of_a->loss, of_b->loss);
    cr_assert_eq(of_a->min_workers, of_b->min_workers);
    cr_assert_eq(of_a->samples, of_b->samples);
    cr_assert_eq(of_a->backup, of_b->backup);
    cr_assert_eq(of_a->staleness, of_b->staleness);
    cr_assert_eq(of_a->damping, of_b->damping);
    cr_assert_eq(of_a->delay_compensation, of_b->delay_compensation);
    cr_assert_eq(of_a->atomic, of_b->atomic);
    cr_assert_eq(a->step, b->step);
    cr_assert_eq(a->changed, b->changed);
    cr_assert_eq(a->epochs_before, b->epochs_before);
    cr_assert_eq(a->epochs_from, b->epochs_from);
    cr_assert_eq(a->rounds_skipped, b->rounds_skipped);
    cr_assert_eq(a->pushes_applied, b->pushes_applied);
    cr_assert_eq(a->dropped, b->dropped);
    cr_assert_eq(a->staleness_sum, b->staleness_sum);
    cr_assert_eq(a->gathered, b->gathered);
    cr_assert_eq(a->durability, b->durability);
    cr_assert_eq(a->checkpoint_steps, b->checkpoint_steps);
    expect_lists(a, b);
}
