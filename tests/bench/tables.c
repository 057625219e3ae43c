/* tables — see tables.h. */
#include "tests/bench/tables.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/optclient.h"
#include "tests/bench/process.h"

enum { MANY = 100000, QUICK_MANY = 20000, FEW = 1000, ELEMENTS = 256, NAME = 40 };

/* Models of so many tensors, made, described and deleted by one client. */
struct side {
    struct optclient *client;
    size_t tensors, repeats; /* models in one measurement */
    struct optclient_tensor *list;
    char (*names)[NAME];
};

static const uint64_t shape = ELEMENTS;

static bool side_init(struct side *side, struct optclient *client, size_t tensors,
                      size_t repeats)
{
    *side = (struct side){ .client = client, .tensors = tensors, .repeats = repeats };
    side->list = calloc(tensors, sizeof *side->list);
    side->names = calloc(tensors, sizeof *side->names);
    if (side->list == NULL || side->names == NULL) {
        return false;
    }
    for (size_t i = 0; i < tensors; i++) {
        snprintf(side->names[i], NAME, "layer.%zu.weight", i);
        side->list[i] = (struct optclient_tensor){ .name = side->names[i],
                                                   .shape = &shape,
                                                   .rank = 1 };
    }
    return true;
}

static void side_fini(struct side *side)
{
    free(side->list);
    free(side->names);
}

/* One model, from nothing to nothing; what it took is added. */
static enum optclient_status once(const struct side *side, double *creating,
                                  double *describing)
{
    struct optclient_model *model;
    struct optclient_description *description;
    double begin = seconds_now();
    enum optclient_status status =
        optclient_create(side->client, "tables", "momentum(lr=1e-3)", NULL, side->list,
                         side->tensors, NULL, &model);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    double created = seconds_now();
    status = optclient_describe(side->client, "tables", &description);
    if (status == OPTCLIENT_OK) {
        *creating += created - begin;
        *describing += seconds_now() - created;
        optclient_description_free(description);
        status = optclient_delete(side->client, "tables");
    }
    optclient_model_close(model);
    return status;
}

/* us per tensor. A compare_side. */
static bool run(void *context, double *values, char problem[256])
{
    const struct side *side = context;
    double creating = 0, describing = 0;
    for (size_t i = 0; i < side->repeats; i++) {
        if (once(side, &creating, &describing) != OPTCLIENT_OK) {
            snprintf(problem, 256, "%.250s", optclient_error());
            return false;
        }
    }
    double all = (double)(side->repeats * side->tensors);
    values[0] = creating / all * 1e6;
    values[1] = describing / all * 1e6;
    return true;
}

static void compare_sides(const struct bench *bench, struct side *many,
                          struct side *few)
{
    static const struct report_quantity quantities[] = {
        { "created", "us/tensor", REPORT_LESS, 1.2, 0 },
        { "described", "us/tensor", REPORT_LESS, 1.2, 0 },
    };
    char name[64];
    snprintf(name, sizeof name, "model of %zu tensors", many->tensors);
    const struct comparison comparison = { .name = name,
                                           .reference = "1000 tensors",
                                           .quantities = quantities,
                                           .quantity_count = 2,
                                           .ours = { run, many },
                                           .theirs = { run, few } };
    compare(bench->report, &comparison, &bench->effort);
}

void tables_measure(const struct bench *bench)
{
    struct server server;
    struct optclient *client = NULL;
    struct side many = { .tensors = 0 }, few = { .tensors = 0 };
    char problem[256];
    size_t count = bench->quick ? QUICK_MANY : MANY;
    if (!server_start(&server, bench->daemon, problem)) {
        report_failure(bench->report, "tables: %s", problem);
    } else if (optclient_connect(server.address, NULL, &client) != OPTCLIENT_OK) {
        report_failure(bench->report, "tables: %s", optclient_error());
    } else if (!side_init(&many, client, count, 1) ||
               !side_init(&few, client, FEW, count / FEW)) {
        report_failure(bench->report, "tables: no memory");
    } else {
        compare_sides(bench, &many, &few);
    }
    side_fini(&many);
    side_fini(&few);
    optclient_close(client);
    if (!server_stop(&server)) {
        report_failure(bench->report, "tables: the daemon did not stop cleanly");
    }
}
