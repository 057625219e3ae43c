/* The clocks of a step's stages among the daemon's counters, which `make profile`
 * shows.
 */
#include <criterion/criterion.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"

enum { TENSORS = 3, LARGE = 3000000, STAGES = 6 };

static const char *const clocks[STAGES] = { "receive_ns", "mailbox_ns", "serve_ns",
                                            "round_ns",   "update_ns",  "send_ns" };

Test(stages, every_clock_moves_in_a_step_and_none_runs_ahead_of_time)
{
    struct daemon_process daemon;
    daemon_start(&daemon, NULL);
    struct optclient *client = test_connect(daemon.address, NULL);
    struct shapes shapes = shapes_new(TENSORS, LARGE);
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_values *values = values_new(&shapes);
    uint64_t before[STAGES];
    for (size_t i = 0; i < STAGES; i++) {
        before[i] = test_counter(client, clocks[i]);
    }
    expect_ok(
        optclient_push_pull(model, values, TENSORS, NULL, values, TENSORS, NULL, NULL));
    for (size_t i = 0; i < STAGES; i++) {
        uint64_t moved = test_counter(client, clocks[i]) - before[i];
        cr_assert_gt(moved, 0, "%s stands still", clocks[i]);
        cr_assert_lt(moved, UINT64_C(3600) * 1000000000, "%s has wrapped", clocks[i]);
    }
    optclient_model_close(model);
    optclient_close(client);
    daemon_stop(&daemon);
    values_free(values, &shapes);
    shapes_free(&shapes);
}
