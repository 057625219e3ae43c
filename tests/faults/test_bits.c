/* The same bits: a synchronous run in which a worker is killed in every round, anywhere
 * in its push, ends with exactly the weights of a run in which nobody is killed. A push
 * that was complete is part of its round, any other never was there.
 *
 * The gradients are no round numbers, so a sum in another order, a step too many or too
 * few, or a slot that half a push has touched, shows.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/support/client_models.h"
#include "tests/support/daemon.h"
#include "tests/support/worker_processes.h"

/* Nobody comes back after its connection is gone, so nobody is waited for. */
static const char *const no_grace[] = { "--grace", "0ms", NULL };

enum { ROUNDS = 12, SURVIVORS = 2, VICTIM = 2 };

static const char *const survivor_names[SURVIVORS] = { "a", "c" };

static struct daemon_process server;

/* What the next child is to do. */
static struct {
    unsigned round;
    char name[16]; /* between those of the survivors, so the order of the sum counts */
    size_t bytes;  /* of its push, before it waits to be killed */
} plan;

/* A worker's gradient: values in (-1, 1) that follow from who, when and where. */
static void fill_gradient(float *values, unsigned who, unsigned round)
{
    uint32_t state = who * 2654435761u + round * 40503u + 1;
    for (size_t i = 0; i < CREW_ELEMENTS; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(int32_t)state / 2147483648.0f;
    }
}

static void begin_round(unsigned round, size_t bytes)
{
    plan.round = round;
    plan.bytes = bytes;
    snprintf(plan.name, sizeof(plan.name), "b-%u", round);
}

static void die_in_a_push(int events)
{
    static float values[CREW_ELEMENTS];
    fill_gradient(values, VICTIM, plan.round);
    push_in_part(events, server.port, plan.name, values, plan.bytes);
}

static struct optclient_call *push_start(struct worker *worker, unsigned who)
{
    struct optclient_values values = { .values = worker->gradient };
    struct optclient_call *call;
    fill_gradient(worker->gradient, who, plan.round);
    expect_ok(optclient_push_start(worker->model, &values, 1, NULL, NULL, NULL, &call));
    return call;
}

static void push_end(struct optclient_call *call)
{
    struct optclient_result result;
    expect_ok(optclient_call_wait(call, &result));
    cr_assert_eq(result.fate, OPTCLIENT_APPLIED);
    cr_assert_eq(result.step, plan.round + 1);
    optclient_call_free(call);
}

/* The victim of the round is a process that is killed. */
static void kill_one(const struct worker *witness, bool complete)
{
    struct process process = spawn(die_in_a_push);
    cr_assert_eq(await(&process), 1);
    if (complete) {
        expect_pushed(witness, plan.name, 1);
    }
    reap(&process, SIGKILL);
}

/* Each round: its victim, then the survivors. Returns the weights in the first one's
 * gradient. */
static void run(struct worker survivors[SURVIVORS], const char *specification,
                const size_t cuts[ROUNDS], size_t whole, bool killed)
{
    daemon_start(&server, no_grace);
    for (unsigned i = 0; i < SURVIVORS; i++) {
        cr_assert(worker_start_with(&survivors[i], server.address, survivor_names[i],
                                    specification));
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        bool complete = cuts[round] >= whole;
        struct worker spared;
        struct optclient_call *calls[SURVIVORS + 1];
        begin_round(round, cuts[round]);
        if (killed) {
            kill_one(&survivors[0], complete);
        } else if (complete) {
            cr_assert(
                worker_start_with(&spared, server.address, plan.name, specification));
            calls[VICTIM] = push_start(&spared, VICTIM);
        }
        for (unsigned i = 0; i < SURVIVORS; i++) {
            calls[i] = push_start(&survivors[i], i);
        }
        for (unsigned i = 0; i < SURVIVORS; i++) {
            push_end(calls[i]);
        }
        if (!killed && complete) {
            push_end(calls[VICTIM]);
            worker_stop(&spared);
        }
    }
    cr_assert(worker_pull(&survivors[0]), "%s", optclient_error());
}

static void end(struct worker survivors[SURVIVORS])
{
    for (unsigned i = 0; i < SURVIVORS; i++) {
        worker_stop(&survivors[i]);
    }
    daemon_stop(&server);
}

static char specifications[][64] = {
    "adam(lr=0.01)",
    "momentum(lr=0.1) + clip(global_norm, 1)",
    "lamb(lr=0.01) + lookahead(3)",
    "radam(lr=0.01) + decay(0.01) + cosine(20)",
};

ParameterizedTestParameters(bits, are_those_of_a_run_in_which_nobody_is_killed)
{
    return cr_make_param_array(char[64], specifications,
                               sizeof(specifications) / sizeof(*specifications));
}

ParameterizedTest(const char specification[64], bits,
                  are_those_of_a_run_in_which_nobody_is_killed, .timeout = 60)
{
    static float weights[CREW_ELEMENTS];
    struct worker survivors[SURVIVORS];
    size_t ends[CREW_FRAMES];
    push_ends(ends);
    const size_t whole = ends[CREW_FRAMES - 1];
    const size_t cuts[ROUNDS] = {
        0,       whole,     whole / 2, ends[0], whole,       ends[1] - 1,
        ends[1], whole - 1, whole,     3,       ends[0] / 2, whole,
    };
    run(survivors, specification, cuts, whole, false);
    memcpy(weights, survivors[0].gradient, sizeof(weights));
    end(survivors);
    run(survivors, specification, cuts, whole, true);
    for (size_t i = 0; i < CREW_ELEMENTS; i++) {
        cr_assert_eq(memcmp(&survivors[0].gradient[i], &weights[i], sizeof(float)), 0,
                     "%s: element %zu is %.9g, not %.9g", specification, i,
                     (double)survivors[0].gradient[i], (double)weights[i]);
    }
    cr_assert_neq(weights[0], 0.0f);
    end(survivors);
}
