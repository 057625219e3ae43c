/* test_loop_turns — nobody holds up the others of a loop: what it does for a connection
 * before it looks at another one is bounded, whatever it is asked for.
 *
 * A client and a real daemon with one loop. Judged by what loops count (loop_done), not
 * by a clock: about a million units are a millisecond.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/raw.h"

/* What is done for a connection at a time, and what is begun before that is over. */
enum { MOST = 5 << 19 };

static struct daemon_process server;

static void expect_short_turns(struct optclient *client, const char *what)
{
    uint64_t most = test_counter(client, "loop_cost_most");
    cr_expect_gt(most, 0u, "%s: nothing was counted", what);
    cr_expect_leq(most, MOST, "%s: a turn of %llu", what, (unsigned long long)most);
}

static struct optclient *begin(void)
{
    static const char *const options[] = { "--loops", "1", NULL };
    daemon_start(&server, options);
    return test_connect(server.address, NULL);
}

static void end(struct optclient *client)
{
    cr_expect_gt(test_counter(client, "loop_ns_most"), 0u);
    optclient_close(client);
    daemon_stop(&server);
}

/* So many tensors of n elements. */
static struct shapes shapes_of(size_t count, uint64_t n)
{
    struct shapes shapes = shapes_new(count, n);
    for (size_t i = 0; i < count; i++) {
        shapes.sizes[i] = n;
    }
    return shapes;
}

static void exchange(struct optclient *client, const char *name, size_t count,
                     uint64_t n)
{
    enum { STEPS = 2 };
    struct shapes shapes = shapes_of(count, n);
    struct optclient_values *gradients = values_new(&shapes);
    struct optclient_values *weights = values_new(&shapes);
    struct optclient_model *model = test_create(client, name, &shapes);
    expect_short_turns(client, "create");
    for (int i = 0; i < STEPS; i++) {
        expect_ok(optclient_push(model, gradients, count, NULL, NULL));
        expect_short_turns(client, "push");
        expect_ok(optclient_pull(model, weights, count, NULL, NULL));
        expect_short_turns(client, "pull");
        expect_ok(optclient_push_pull(model, gradients, count, NULL, weights, count,
                                      NULL, NULL));
        expect_short_turns(client, "push_pull");
        expect_ok(optclient_pull(model, NULL, 0, NULL, NULL));
        expect_short_turns(client, "pull in place");
    }
    optclient_model_close(model);
    values_free(gradients, &shapes);
    values_free(weights, &shapes);
    shapes_free(&shapes);
}

Test(loop_turns, are_short_with_as_many_tensors_as_there_may_be, .timeout = 120)
{
    enum { MOST_TENSORS = 131072 };
    struct optclient *client = begin();
    exchange(client, "many", MOST_TENSORS, 1);
    struct optclient_description *description;
    expect_ok(optclient_describe(client, "many", &description));
    optclient_description_free(description);
    expect_short_turns(client, "describe");
    expect_ok(optclient_delete(client, "many"));
    expect_short_turns(client, "delete");
    end(client);
}

Test(loop_turns, are_short_with_large_tensors, .timeout = 120)
{
    struct optclient *client = begin();
    exchange(client, "large", 3, 8 << 20);
    end(client);
}

/* Wait until a counter of the daemon is that. */
static void await_counter(struct optclient *client, const char *name, uint64_t value)
{
    uint64_t deadline = test_now_ms() + DAEMON_WAIT_MS;
    while (test_counter(client, name) != value) {
        cr_assert_lt(test_now_ms(), deadline, "%s is not %llu", name,
                     (unsigned long long)value);
    }
}

/* Nobody takes the answers, so all of them go when the connection ends. */
Test(loop_turns, are_short_when_one_goes_that_has_not_read_its_answers, .timeout = 120)
{
    enum { MOST_TENSORS = 131072, ASKED = 8 };
    struct optclient *client = begin();
    struct shapes shapes = shapes_of(MOST_TENSORS, 1);
    struct optclient_model *model = test_create(client, "many", &shapes);
    int socket = raw_connect(server.port);
    struct raw_reply reply;
    raw_hello(socket, "");
    struct opt_request request = { .id = 2,
                                   .message = OPT_MESSAGE_OPEN,
                                   .body.open = { .model = "many" } };
    cr_assert(raw_request(socket, &request, NULL, 0) && raw_receive(socket, &reply));
    cr_assert_neq(reply.reply.message, OPT_MESSAGE_ERROR, "%s",
                  reply.reply.body.error.text);
    request = (struct opt_request){
        .message = OPT_MESSAGE_PULL,
        .body.pull = { .model = reply.reply.body.model.model, .slot = "" },
    };
    raw_reply_fini(&reply);
    for (request.id = 3; request.id < 3 + ASKED; request.id++) {
        cr_assert(raw_request(socket, &request, NULL, 0));
    }
    await_counter(client, "pulls", ASKED);
    uint64_t before = test_counter(client, "connections");
    close(socket);
    await_counter(client, "connections", before - 1);
    expect_short_turns(client, "close");
    optclient_model_close(model);
    shapes_free(&shapes);
    end(client);
}
