/* Models of very many tensors: what the daemon keeps for each must fit what it allows.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"

enum { MANY = 100000 };

Test(scale, many_tensors_are_described_pushed_and_pulled_with_little_in_flight)
{
    static const char *const options[] = { "--connection-inflight", "4MiB",
                                           "--max-frame", "4MiB", NULL };
    struct daemon_process daemon;
    daemon_start(&daemon, options);
    struct optclient *client = test_connect(daemon.address, NULL);
    struct shapes shapes = shapes_new(MANY, 1);
    for (size_t i = 0; i < MANY; i++) {
        shapes.sizes[i] = 1;
    }
    struct optclient_model *model = test_create(client, "m", &shapes);
    struct optclient_description *description;
    expect_ok(optclient_describe(client, "m", &description));
    cr_assert_eq(description->tensor_count, MANY);
    cr_assert_str_eq(description->tensors[MANY - 1].name,
                     shapes.tensors[MANY - 1].name);
    optclient_description_free(description);
    struct optclient_values *values = values_new(&shapes);
    fill_pattern(values, &shapes);
    for (int step = 1; step <= 2; step++) {
        struct optclient_result result;
        expect_ok(optclient_push_pull(model, values, MANY, NULL, values, MANY, NULL,
                                      &result));
        cr_assert_eq(result.step, (uint64_t)step);
        if (step == 1) {
            expect_pattern(values, &shapes, -1);
        }
    }
    /* The second gradient was what the first pull had brought: minus the pattern. */
    expect_pattern(values, &shapes, 0);
    optclient_model_close(model);
    optclient_close(client);
    daemon_stop(&daemon);
    values_free(values, &shapes);
    shapes_free(&shapes);
}

Test(scale, a_daemon_says_how_many_tensors_a_model_may_have)
{
    static const char *const options[] = { "--max-tensors", "5", NULL };
    struct daemon_process daemon;
    daemon_start(&daemon, options);
    struct optclient *client = test_connect(daemon.address, NULL);
    struct shapes shapes = shapes_new(6, 1);
    struct optclient_model *model;
    cr_assert_eq(optclient_create(client, "m", "sgd(lr=1)", NULL, shapes.tensors, 6,
                                  NULL, &model),
                 OPTCLIENT_RESOURCE_EXHAUSTED);
    cr_assert_not_null(
        strstr(optclient_error(), "6 tensors; a model may have at most 5"), "%s",
        optclient_error());
    optclient_close(client);
    daemon_stop(&daemon);
    shapes_free(&shapes);
}
