/* ctl_print — models and counters as tables for people and as JSON; see ctl.h. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/ctl.h"

bool ctl_print_json(json_t *value)
{
    char *text = value == NULL ? NULL : json_dumps(value, JSON_INDENT(2));
    json_decref(value);
    if (text != NULL) {
        puts(text);
    }
    free(text);
    return text != NULL;
}

static json_int_t integer(uint64_t value)
{
    return value > INT64_MAX ? INT64_MAX : (json_int_t)value;
}

/* ---------------------------------------------------------------- lists */

bool ctl_print_models(const struct optclient_model_info *models, size_t count,
                      bool json)
{
    if (json) {
        json_t *all = json_array();
        for (size_t i = 0; i < count; i++) {
            const struct optclient_model_info *m = &models[i];
            json_array_append_new(
                all, json_pack("{s:s, s:I, s:I, s:I, s:i, s:s}", "name", m->name,
                               "step", integer(m->step), "tensors", integer(m->tensors),
                               "parameters", integer(m->parameters), "workers",
                               (int)m->workers, "specification", m->specification));
        }
        return ctl_print_json(all);
    }
    printf("%-24s %12s %8s %14s %7s  %s\n", "MODEL", "STEP", "TENSORS", "PARAMETERS",
           "WORKERS", "SPECIFICATION");
    for (size_t i = 0; i < count; i++) {
        const struct optclient_model_info *m = &models[i];
        printf("%-24s %12" PRIu64 " %8" PRIu64 " %14" PRIu64 " %7" PRIu32 "  %s\n",
               m->name, m->step, m->tensors, m->parameters, m->workers,
               m->specification);
    }
    return true;
}

bool ctl_print_counters(const struct optclient_counter *counters, size_t count,
                        bool json)
{
    json_t *all = json ? json_object() : NULL;
    for (size_t i = 0; i < count; i++) {
        if (json) {
            json_object_set_new(all, counters[i].name,
                                json_integer(integer(counters[i].value)));
        } else {
            printf("%-28s %" PRIu64 "\n", counters[i].name, counters[i].value);
        }
    }
    return json ? ctl_print_json(all) : true;
}

/* ---------------------------------------------------------------- one model */

static json_t *json_tensors(const struct optclient_description *model)
{
    json_t *all = json_array();
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct optclient_tensor *tensor = &model->tensors[i];
        json_t *shape = json_array();
        for (size_t k = 0; k < tensor->rank; k++) {
            json_array_append_new(shape, json_integer(integer(tensor->shape[k])));
        }
        json_array_append_new(all, json_pack("{s:s, s:o, s:I}", "name", tensor->name,
                                             "shape", shape, "step",
                                             integer(model->tensor_steps[i])));
    }
    return all;
}

static json_t *json_staleness(const struct optclient_worker_info *worker)
{
    enum { BUCKETS = sizeof(worker->staleness) / sizeof(worker->staleness[0]) };
    json_t *all = json_array();
    for (size_t i = 0; i < BUCKETS; i++) {
        json_array_append_new(all, json_integer(integer(worker->staleness[i])));
    }
    return all;
}

static json_t *json_workers(const struct optclient_description *model)
{
    json_t *all = json_array();
    for (size_t i = 0; i < model->worker_count; i++) {
        const struct optclient_worker_info *w = &model->workers[i];
        json_array_append_new(
            all,
            json_pack(
                "{s:s, s:b, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
                "s:I, s:I, s:f, s:o}",
                "name", w->name, "connected", w->connected, "pushed", w->pushed,
                "resting", w->resting, "away", w->away, "incarnation",
                integer(w->incarnation), "last_sequence", integer(w->last_sequence),
                "last_step", integer(w->last_step), "applied", integer(w->applied),
                "duplicates", integer(w->duplicates), "refused", integer(w->refused),
                "resends", integer(w->resends), "reconnects", integer(w->reconnects),
                "dropped", integer(w->dropped), "waits", integer(w->waits), "waited_s",
                (double)w->waited_us / 1e6, "staleness", json_staleness(w)));
    }
    return all;
}

static json_t *json_changes(const struct optclient_description *model)
{
    json_t *all = json_array();
    for (size_t i = 0; i < model->change_count; i++) {
        const struct optclient_change *c = &model->changes[i];
        json_array_append_new(all,
                              json_pack("{s:I, s:s, s:s}", "step", integer(c->step),
                                        "before", c->before, "after", c->after));
    }
    return all;
}

static json_t *json_slots(const struct optclient_description *model)
{
    json_t *all = json_array();
    for (size_t i = 0; i < model->slot_count; i++) {
        json_array_append_new(all, json_string(model->slots[i]));
    }
    return all;
}

static bool print_description_json(const struct optclient_description *m)
{
    json_t *all = ctl_json_policy(&m->policy);
    json_t *rest = json_pack(
        "{s:s, s:s, s:b, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:o, "
        "s:o}",
        "name", m->name, "specification", m->specification, "ready", m->ready, "step",
        integer(m->step), "epoch", integer(m->epoch), "lr", m->lr, "parameters",
        integer(m->parameters), "bytes", integer(m->bytes), "rounds",
        integer(m->rounds), "rounds_skipped", integer(m->rounds_skipped), "dropped",
        integer(m->dropped), "mean_staleness", m->mean_staleness, "slots",
        json_slots(m), "tensors", json_tensors(m), "workers", json_workers(m),
        "changes", json_changes(m));
    bool well = all != NULL && rest != NULL && json_object_update(all, rest) == 0;
    json_decref(rest);
    if (!well) {
        json_decref(all);
        return false;
    }
    return ctl_print_json(all);
}

static void print_shape(const struct optclient_tensor *tensor)
{
    for (size_t k = 0; k < tensor->rank; k++) {
        printf("%s%" PRIu64, k > 0 ? "x" : "", tensor->shape[k]);
    }
}

/* Staleness as "0:12 1:3 2-3:1". */
static void print_staleness(const struct optclient_worker_info *w)
{
    enum { BUCKETS = sizeof(w->staleness) / sizeof(w->staleness[0]) };
    for (size_t i = 0; i < BUCKETS; i++) {
        uint64_t low = i == 0 ? 0 : UINT64_C(1) << (i - 1);
        uint64_t high = i == 0 ? 0 : 2 * low - 1;
        if (w->staleness[i] == 0) {
            continue;
        }
        printf(" %" PRIu64, low);
        if (i == BUCKETS - 1) {
            putchar('+');
        } else if (high > low) {
            printf("-%" PRIu64, high);
        }
        printf(":%" PRIu64, w->staleness[i]);
    }
}

static void print_worker(const struct optclient_worker_info *w)
{
    printf("worker         %s (%s%s%s), %" PRIu64 " applied, last at step %" PRIu64
           ", %" PRIu64 " duplicates, %" PRIu64 " refused, %" PRIu64 " dropped\n",
           w->name, w->connected ? "connected" : "away", w->resting ? ", resting" : "",
           w->pushed ? ", has pushed" : "", w->applied, w->last_step, w->duplicates,
           w->refused, w->dropped);
    printf("                 incarnation %" PRIu64 ", connected again %" PRIu64
           " times, %" PRIu64 " pushes sent again\n",
           w->incarnation, w->reconnects, w->resends);
    if (w->waits > 0) {
        printf("                 waited for %" PRIu64 " times, %.3g s in all\n",
               w->waits, (double)w->waited_us / 1e6);
    }
    if (w->applied > 0) {
        fputs("                 staleness", stdout);
        print_staleness(w);
        putchar('\n');
    }
}

bool ctl_print_description(const struct optclient_description *m, bool json)
{
    if (json) {
        return print_description_json(m);
    }
    printf("model          %s\nspecification  %s\n", m->name, m->specification);
    fputs("policy         ", stdout);
    ctl_print_policy(&m->policy);
    printf("\nstate          %s, step %" PRIu64 ", epoch %" PRIu64 "\n",
           m->ready ? "ready" : "waits for its weights", m->step, m->epoch);
    printf("rounds         %" PRIu64 ", %" PRIu64 " of them skipped; %" PRIu64
           " pushes dropped, mean staleness %.3g\n",
           m->rounds, m->rounds_skipped, m->dropped, m->mean_staleness);
    printf("next update    lr %g\n", m->lr);
    printf("size           %" PRIu64 " parameters, %" PRIu64 " bytes\n", m->parameters,
           m->bytes);
    printf("slots         ");
    for (size_t i = 0; i < m->slot_count; i++) {
        printf(" %s", m->slots[i]);
    }
    printf("%s\n", m->slot_count == 0 ? " none" : "");
    for (size_t i = 0; i < m->change_count; i++) {
        const struct optclient_change *c = &m->changes[i];
        printf("%-14s update %" PRIu64 ": %s\n",
               c->step <= m->step + 1 ? "changed at" : "will change at", c->step,
               c->after);
    }
    for (size_t i = 0; i < m->tensor_count; i++) {
        printf("tensor         %s:", m->tensors[i].name);
        print_shape(&m->tensors[i]);
        printf(" step %" PRIu64 "\n", m->tensor_steps[i]);
    }
    for (size_t i = 0; i < m->worker_count; i++) {
        const struct optclient_worker_info *w = &m->workers[i];
        print_worker(w);
    }
    return true;
}
