/* The binary interface of liboptclient.so.0: where every field of every public
 * structure is, and that what an older library does not know is refused. A line here
 * never changes; a new field takes reserved words and gets a line of its own.
 */
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "client/api.h"
#include "client/optclient.h"

#define SIZE(structure, bytes)                                                         \
    {                                                                                  \
#structure, sizeof(struct optclient_##structure), bytes                        \
    }
#define FIELD(structure, field, place)                                                 \
    {                                                                                  \
#structure "." #field, offsetof(struct optclient_##structure, field), place    \
    }

/* On machines of 64 bits; elsewhere pointers and size_t are smaller. */
static const struct {
    const char *what;
    size_t is, was;
} layout[] = {
    /* clang-format off */
    SIZE(options, 176),
    FIELD(options, worker, 0),
    FIELD(options, timeout_ms, 8),
    FIELD(options, connect_timeout_ms, 12),
    FIELD(options, backoff_min_ms, 16),
    FIELD(options, backoff_max_ms, 20),
    FIELD(options, push_dtype, 24),
    FIELD(options, pull_dtype, 28),
    FIELD(options, checksum, 32),
    FIELD(options, no_shared_memory, 36),
    FIELD(options, spin_us, 40),
    FIELD(options, ca, 48),
    FIELD(options, cert, 56),
    FIELD(options, key, 64),
    FIELD(options, token_file, 72),
    SIZE(tensor, 48),
    FIELD(tensor, name, 0),
    FIELD(tensor, shape, 8),
    FIELD(tensor, rank, 16),
    FIELD(tensor, sparse, 24),
    SIZE(policy, 88),
    FIELD(policy, mode, 0),
    FIELD(policy, loss, 4),
    FIELD(policy, min_workers, 8),
    FIELD(policy, samples, 16),
    FIELD(policy, backup, 24),
    FIELD(policy, staleness, 28),
    FIELD(policy, damping, 32),
    FIELD(policy, delay_compensation, 40),
    FIELD(policy, atomic, 48),
    FIELD(policy, checkpoint_steps, 56),
    FIELD(policy, durability, 64),
    SIZE(values, 32),
    FIELD(values, tensor, 0),
    FIELD(values, values, 8),
    FIELD(values, rows, 16),
    FIELD(values, row_count, 24),
    SIZE(result, 96),
    FIELD(result, fate, 0),
    FIELD(result, step, 8),
    FIELD(result, staleness, 16),
    FIELD(result, epoch, 24),
    FIELD(result, lost, 32),
    FIELD(result, unchanged, 40),
    FIELD(result, shards_applied, 48),
    FIELD(result, shards, 56),
    FIELD(result, detail, 64),
    FIELD(result, held, 72),
    FIELD(result, durable, 80),
    SIZE(push_options, 64),
    FIELD(push_options, samples, 0),
    FIELD(push_options, form, 8),
    FIELD(push_options, basis, 16),
    FIELD(push_options, timeout_ms, 24),
    SIZE(pull_options, 72),
    FIELD(pull_options, view, 0),
    FIELD(pull_options, slot, 8),
    FIELD(pull_options, min_step, 16),
    FIELD(pull_options, timeout_ms, 24),
    FIELD(pull_options, since, 32),
    SIZE(local_options, 64),
    FIELD(local_options, momentum, 0),
    FIELD(local_options, alpha, 8),
    FIELD(local_options, steps, 16),
    FIELD(local_options, timeout_ms, 24),
    SIZE(local_result, 136),
    FIELD(local_result, steps, 0),
    FIELD(local_result, epochs, 8),
    FIELD(local_result, stepped, 16),
    FIELD(local_result, synced, 20),
    FIELD(local_result, sync, 24),
    SIZE(worker_info, 296),
    FIELD(worker_info, name, 0),
    FIELD(worker_info, incarnation, 8),
    FIELD(worker_info, last_sequence, 16),
    FIELD(worker_info, last_step, 24),
    FIELD(worker_info, applied, 32),
    FIELD(worker_info, duplicates, 40),
    FIELD(worker_info, refused, 48),
    FIELD(worker_info, resends, 56),
    FIELD(worker_info, reconnects, 64),
    FIELD(worker_info, connected, 72),
    FIELD(worker_info, pushed, 76),
    FIELD(worker_info, resting, 80),
    FIELD(worker_info, away, 84),
    FIELD(worker_info, dropped, 88),
    FIELD(worker_info, waits, 96),
    FIELD(worker_info, waited_us, 104),
    FIELD(worker_info, staleness, 112),
    SIZE(change, 40),
    FIELD(change, step, 0),
    FIELD(change, before, 8),
    FIELD(change, after, 16),
    SIZE(description, 320),
    FIELD(description, name, 0),
    FIELD(description, specification, 8),
    FIELD(description, policy, 16),
    FIELD(description, ready, 104),
    FIELD(description, step, 112),
    FIELD(description, epoch, 120),
    FIELD(description, parameters, 128),
    FIELD(description, bytes, 136),
    FIELD(description, rounds_skipped, 144),
    FIELD(description, rounds, 152),
    FIELD(description, dropped, 160),
    FIELD(description, mean_staleness, 168),
    FIELD(description, lr, 176),
    FIELD(description, slot_count, 184),
    FIELD(description, tensor_count, 192),
    FIELD(description, worker_count, 200),
    FIELD(description, slots, 208),
    FIELD(description, tensors, 216),
    FIELD(description, tensor_steps, 224),
    FIELD(description, workers, 232),
    FIELD(description, change_count, 240),
    FIELD(description, changes, 248),
    SIZE(model_info, 80),
    FIELD(model_info, name, 0),
    FIELD(model_info, specification, 8),
    FIELD(model_info, step, 16),
    FIELD(model_info, tensors, 24),
    FIELD(model_info, parameters, 32),
    FIELD(model_info, workers, 40),
    FIELD(model_info, recovering, 44),
    FIELD(model_info, durability, 48),
    SIZE(counter, 32),
    FIELD(counter, name, 0),
    FIELD(counter, value, 8),
    SIZE(usage, 120),
    FIELD(usage, bytes_sent, 0),
    FIELD(usage, bytes_received, 8),
    FIELD(usage, pushes, 16),
    FIELD(usage, pulls, 24),
    FIELD(usage, reconnects, 32),
    FIELD(usage, resends, 40),
    FIELD(usage, bytes_shared, 48),
    SIZE(export_options, 48),
    FIELD(export_options, view, 0),
    FIELD(export_options, dtype, 4),
    FIELD(export_options, slots, 8),
    FIELD(export_options, timeout_ms, 12),
    SIZE(import_options, 48),
    FIELD(import_options, sparse, 0),
    FIELD(import_options, sparse_count, 8),
    /* clang-format on */
};

Test(client_abi, keeps_every_field_where_it_was)
{
    if (sizeof(void *) != 8) {
        cr_skip_test("the table is that of 64 bits");
    }
    for (size_t i = 0; i < sizeof(layout) / sizeof(layout[0]); i++) {
        cr_expect_eq(layout[i].is, layout[i].was, "%s: %zu, was %zu", layout[i].what,
                     layout[i].is, layout[i].was);
    }
}

Test(client_abi, tells_the_version_that_runs)
{
    char text[32];
    snprintf(text, sizeof(text), "%d.%d.%d", OPTCLIENT_VERSION_MAJOR,
             OPTCLIENT_VERSION_MINOR, OPTCLIENT_VERSION_PATCH);
    cr_expect_str_eq(optclient_version_text(), text);
    cr_expect_eq(optclient_version(), (uint32_t)OPTCLIENT_VERSION);
}

Test(client_abi, refuses_an_option_that_it_is_too_old_for)
{
    struct optclient *client = NULL;
    struct optclient_options options = optclient_options_default();
    options.reserved[11] = 1;
    cr_expect_eq(optclient_connect("127.0.0.1:1", &options, &client),
                 OPTCLIENT_UNIMPLEMENTED);
    cr_expect_not_null(strstr(optclient_error(), "options: reserved[11] is not 0"),
                       "%s", optclient_error());
    cr_expect_null(client);
}
