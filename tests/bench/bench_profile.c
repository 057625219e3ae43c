/* bench_profile — where the time of a step goes in the daemon.
 *
 *   bench_profile [--daemon PROGRAM]
 *
 * Trains a model of 25 million parameters with one worker and with two, and shows what
 * the daemon's own clocks say of a step. A clock is a sum over all frames and workers,
 * and stages overlap: a frame is received while the one before waits or is served. So
 * the stages add up to more than the step.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/optclient.h"
#include "tests/bench/clock.h"
#include "tests/bench/process.h"
#include "tests/bench/trainer.h"

enum { TENSORS = 160, ELEMENTS = 156288, STEPS = 32, WORKERS_MAX = 2 };

/* A clock among the daemon's counters, and what it shows. */
struct stage {
    const char *counter, *title;
};

static const struct stage stages[] = {
    { "receive_ns", "receiving frames, from header to end" },
    { "mailbox_ns", "requests waiting for the engine" },
    { "serve_ns", "engine serving requests" },
    { "round_ns", "whole pushes waiting for their round" },
    { "update_ns", "engine updating" },
    { "send_ns", "answers, until written" },
};
enum { STAGES = sizeof stages / sizeof stages[0] };

/* What a run came to, in ms of a step. */
struct profile {
    double step, processor;
    double stages[STAGES];
};

static bool read_clocks(struct optclient *client, double values[STAGES])
{
    struct optclient_counter *counters;
    size_t count;
    if (optclient_statistics(client, &counters, &count) != OPTCLIENT_OK) {
        return false;
    }
    for (size_t i = 0; i < STAGES; i++) {
        for (size_t k = 0; k < count; k++) {
            if (strcmp(counters[k].name, stages[i].counter) == 0) {
                values[i] = (double)counters[k].value / 1e6;
            }
        }
    }
    optclient_statistics_free(counters);
    return true;
}

/* Steps of all workers; ms of the slowest's median one, or a negative number. */
static double make_steps(struct trainer *trainers, unsigned workers, unsigned steps,
                         char problem[256])
{
    double slowest = 0;
    for (unsigned i = 0; i < workers; i++) {
        if (!trainer_order(&trainers[i], steps)) {
            snprintf(problem, 256, "a worker has died");
            return -1;
        }
    }
    for (unsigned i = 0; i < workers; i++) {
        double seconds = trainer_result(&trainers[i], problem);
        if (seconds < 0) {
            return -1;
        }
        slowest = seconds > slowest ? seconds : slowest;
    }
    return slowest * 1e3;
}

/* The clocks around some steps, after one for warming up. */
static bool measure(const struct server *server, struct trainer *trainers,
                    unsigned workers, struct profile *profile, char problem[256])
{
    struct optclient *client;
    double before[STAGES] = { 0 }, after[STAGES] = { 0 };
    if (make_steps(trainers, workers, 1, problem) < 0) {
        return false;
    }
    if (optclient_connect(server->address, NULL, &client) != OPTCLIENT_OK) {
        snprintf(problem, 256, "%.250s", optclient_error());
        return false;
    }
    bool read = read_clocks(client, before);
    double busy = server_processor_seconds(server);
    profile->step = make_steps(trainers, workers, STEPS, problem);
    profile->processor = (server_processor_seconds(server) - busy) * 1e3 / STEPS;
    if (profile->step >= 0 && (!read || !read_clocks(client, after))) {
        snprintf(problem, 256, "%.250s", optclient_error());
        read = false;
    }
    for (size_t i = 0; i < STAGES; i++) {
        profile->stages[i] = (after[i] - before[i]) / STEPS;
    }
    optclient_close(client);
    return read && profile->step >= 0;
}

static bool run(const char *daemon, unsigned workers, struct profile *profile,
                char problem[256])
{
    struct server server;
    struct trainer trainers[WORKERS_MAX] = { { .pid = -1 }, { .pid = -1 } };
    bool good = server_start(&server, daemon, problem);
    const struct trainer_model model = { .address = server.address,
                                         .expression = "adam(lr=1e-3)",
                                         .tensors = TENSORS,
                                         .elements = ELEMENTS,
                                         .workers = workers };
    for (unsigned i = 0; good && i < workers; i++) {
        good = trainer_start(&trainers[i], &model, i, problem);
    }
    good = good && measure(&server, trainers, workers, profile, problem);
    for (unsigned i = 0; i < workers; i++) {
        trainer_stop(&trainers[i]);
    }
    if (!server_stop(&server) && good) {
        snprintf(problem, 256, "the daemon did not stop cleanly");
        good = false;
    }
    return good;
}

static void print(const struct profile profiles[WORKERS_MAX])
{
    printf("%-40s %12s %12s\n", "ms of a step, Adam, 25 million parameters", "1 worker",
           "2 workers");
    printf("  %-38s %12.2f %12.2f\n", "step, as a worker sees it", profiles[0].step,
           profiles[1].step);
    for (size_t i = 0; i < STAGES; i++) {
        printf("  %-38s %12.2f %12.2f\n", stages[i].title, profiles[0].stages[i],
               profiles[1].stages[i]);
    }
    printf("  %-38s %12.2f %12.2f\n", "the daemon's processor time",
           profiles[0].processor, profiles[1].processor);
    puts("Stages are sums over all frames and workers, and they overlap.");
}

int main(int count, char **words)
{
    const char *daemon = "build/optimd";
    if (count == 3 && strcmp(words[1], "--daemon") == 0) {
        daemon = words[2];
    } else if (count != 1) {
        fputs("usage: bench_profile [--daemon PROGRAM]\n", stderr);
        return 64;
    }
    struct profile profiles[WORKERS_MAX];
    char problem[256] = "";
    alarm(300); /* nothing here may hang for ever */
    for (unsigned workers = 1; workers <= WORKERS_MAX; workers++) {
        if (!run(daemon, workers, &profiles[workers - 1], problem)) {
            fprintf(stderr, "bench_profile: %u worker%s: %s\n", workers,
                    workers == 1 ? "" : "s", problem);
            return 1;
        }
    }
    print(profiles);
    return 0;
}
