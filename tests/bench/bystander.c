/* bystander — small pushes of one worker while another sends the largest messages that
 * are allowed.
 *
 * A push of 16 floats waits for what the daemon is at. Its reference is the same push
 * to a daemon that has nothing else to do. Beside the longest wait stand the longest
 * turns that the daemon has counted: what its engine, and what a loop, did before it
 * looked for others. About a millisecond of each is meant to be the most; what the
 * machine takes from the daemon's threads meanwhile is in it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/optclient.h"
#include "tests/bench/bench.h"
#include "tests/bench/clock.h"
#include "tests/bench/ping.h"
#include "tests/bench/process.h"

enum { TENSORS = 131072, ELEMENTS = 16, NAME = 32, TEXT = 250 << 10, PINGS = 200 };

/* What the other worker does, again and again, until it is killed. */
struct load {
    char address[96];
    const char *specification;
    size_t tensors;
    uint64_t elements; /* of each */
    struct optclient_tensor *list;
    struct optclient_values *values;
    bool (*once)(const struct load *load, struct optclient *client,
                 struct optclient_model *model);
};

static bool is_ok(enum optclient_status status)
{
    return status == OPTCLIENT_OK;
}

static bool make(const struct load *load, struct optclient *client, const char *name,
                 struct optclient_model **model)
{
    return is_ok(optclient_create(client, name, load->specification, NULL, load->list,
                                  load->tensors, NULL, model));
}

static bool make_and_delete(const struct load *load, struct optclient *client,
                            struct optclient_model *model)
{
    struct optclient_description *description = NULL;
    struct optclient_model *other;
    (void)model;
    if (!make(load, client, "other", &other)) {
        return false;
    }
    bool done = is_ok(optclient_describe(client, "other", &description)) &&
                is_ok(optclient_delete(client, "other"));
    optclient_description_free(description);
    optclient_model_close(other);
    return done;
}

static bool push(const struct load *load, struct optclient *client,
                 struct optclient_model *model)
{
    (void)client;
    return is_ok(optclient_push(model, load->values, load->tensors, NULL, NULL));
}

static bool pull(const struct load *load, struct optclient *client,
                 struct optclient_model *model)
{
    (void)client;
    return is_ok(optclient_pull(model, load->values, load->tensors, NULL, NULL));
}

/* Options as long as may be, which are other ones each time. */
static bool set(const struct load *load, struct optclient *client,
                struct optclient_model *model)
{
    static char text[TEXT];
    static unsigned times;
    size_t used = (size_t)snprintf(text, TEXT, "lr=0.%u", ++times);
    (void)load, (void)model;
    for (unsigned i = 0; i < 1000; i++) {
        used += (size_t)snprintf(text + used, TEXT - used,
                                 ", tensors(\"*%0200u\", lr_scale=2, missing=ok)", i);
    }
    return is_ok(optclient_set(client, "load", text, 0, NULL));
}

/* The other worker, a process of its own. */
static int work(void *context)
{
    const struct load *load = context;
    struct optclient *client;
    struct optclient_model *model;
    bool works = is_ok(optclient_connect(load->address, NULL, &client)) &&
                 make(load, client, "load", &model);
    while (works) {
        works = load->once(load, client, model);
    }
    fprintf(stderr, "bystander: %s\n", optclient_error());
    return 1;
}

static bool load_init(struct load *load)
{
    static uint64_t shape;
    char *names = calloc(load->tensors, NAME);
    float *values = calloc(load->tensors * load->elements, sizeof *values);
    load->list = calloc(load->tensors, sizeof *load->list);
    load->values = calloc(load->tensors, sizeof *load->values);
    if (names == NULL || values == NULL || load->list == NULL || load->values == NULL) {
        free(names);
        free(values);
        return false;
    }
    shape = load->elements;
    for (size_t i = 0; i < load->tensors; i++) {
        snprintf(names + i * NAME, NAME, "layer.%zu.weight", i);
        load->list[i] = (struct optclient_tensor){ .name = names + i * NAME,
                                                   .shape = &shape,
                                                   .rank = 1 };
        load->values[i] =
            (struct optclient_values){ .tensor = i,
                                       .values = values + i * load->elements };
    }
    return true;
}

static void load_fini(struct load *load)
{
    if (load->list != NULL && load->values != NULL) {
        free((char *)(uintptr_t)load->list[0].name);
        free(load->values[0].values);
    }
    free(load->list);
    free(load->values);
}

/* One side: a daemon, the bystander and, or not, the other worker. */
struct side {
    const struct bench *bench;
    struct load *load; /* NULL: nobody */
};

static double counter_ms(struct optclient *client, const char *name)
{
    struct optclient_counter *counters = NULL;
    size_t count = 0;
    double ms = 0;
    if (is_ok(optclient_statistics(client, &counters, &count))) {
        for (size_t i = 0; i < count; i++) {
            ms = strcmp(counters[i].name, name) == 0 ? (double)counters[i].value / 1e6
                                                     : ms;
        }
        optclient_statistics_free(counters);
    }
    return ms;
}

/* Push for some seconds; the longest wait and the longest turns. */
static bool watch(struct optclient *client, double seconds, double *values,
                  char problem[256])
{
    static struct ping ping;
    double percentiles[2], end = seconds_now() + seconds, longest = 0;
    ping.pings = PINGS;
    bool done = ping_open(&ping, client, "small", ELEMENTS, problem);
    while (done && seconds_now() < end) {
        done = ping_pushes(&ping, percentiles, problem); /* which sorts them */
        longest = ping.seconds[PINGS - 1] > longest ? ping.seconds[PINGS - 1] : longest;
    }
    values[0] = longest * 1e3;
    values[1] = counter_ms(client, "turn_ns_most");
    values[2] = counter_ms(client, "loop_ns_most");
    ping_close(&ping);
    return done;
}

/* A compare_side. */
static bool stand_by(void *context, double *values, char problem[256])
{
    const struct side *side = context;
    struct server server;
    struct optclient *client = NULL;
    pid_t other = -1;
    bool done = server_start(&server, side->bench->daemon, problem);
    if (done && side->load != NULL) {
        snprintf(side->load->address, sizeof side->load->address, "%s", server.address);
        other = process_fork(work, side->load);
    }
    if (done && !is_ok(optclient_connect(server.address, NULL, &client))) {
        snprintf(problem, 256, "%.250s", optclient_error());
        done = false;
    }
    done = done && watch(client, side->bench->quick ? 1.5 : 4, values, problem);
    process_kill(other);
    optclient_close(client);
    if (!server_stop(&server) && done) {
        snprintf(problem, 256, "the daemon did not stop cleanly");
        done = false;
    }
    return done;
}

static void measure(const struct bench *bench, const char *name, struct load load)
{
    static const struct report_quantity quantities[] = {
        { "longest wait", "ms", REPORT_LESS, 0, 0 },
        { "longest turn of the engine", "ms", REPORT_LESS, 0, 0 },
        { "longest turn of a loop", "ms", REPORT_LESS, 0, 0 },
    };
    struct side ours = { bench, &load }, theirs = { bench, NULL };
    const struct comparison comparison = { .name = name,
                                           .reference = "nothing else",
                                           .quantities = quantities,
                                           .quantity_count = 3,
                                           .ours = { stand_by, &ours },
                                           .theirs = { stand_by, &theirs } };
    if (load_init(&load)) {
        compare(bench->report, &comparison, &bench->effort);
    } else {
        report_failure(bench->report, "bystander: no memory");
    }
    load_fini(&load);
}

void bench_bystander(const struct bench *bench)
{
    static const struct {
        const char *name;
        struct load load;
    } loads[] = {
        { "push 64 B while models of 131072 tensors are made and deleted",
          { .specification = "adam",
            .tensors = TENSORS,
            .elements = 4,
            .once = make_and_delete } },
        { "push 64 B beside pushes of 131072 tensors",
          { .specification = "adam",
            .tensors = TENSORS,
            .elements = 4,
            .once = push } },
        { "push 64 B beside pulls of 131072 tensors",
          { .specification = "nag", .tensors = TENSORS, .elements = 4, .once = pull } },
        { "push 64 B beside pushes of 128 MiB",
          { .specification = "adam + lookahead(2)",
            .tensors = 32,
            .elements = 1 << 20,
            .once = push } },
        { "push 64 B while options of 245 KB are set",
          { .specification = "adam", .tensors = 1, .elements = 4, .once = set } },
    };
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        measure(bench, loads[i].name, loads[i].load);
    }
}
