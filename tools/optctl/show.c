/* show — one model for people and as JSON; see commands.h. */
#include <inttypes.h>
#include <stdio.h>

#include "common/optim/number.h"
#include "tools/optctl/commands.h"
#include "tools/optctl/policy.h"
#include "tools/optctl/spec.h"

/* ---------------------------------------------------------------- JSON */

static json_t *json_tensors(const struct optclient_description *model)
{
    json_t *all = json_array();
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct optclient_tensor *tensor = &model->tensors[i];
        json_t *shape = json_array();
        for (size_t k = 0; k < tensor->rank; k++) {
            json_array_append_new(shape, ctl_count(tensor->shape[k]));
        }
        json_array_append_new(all, json_pack("{s:s, s:o, s:o}", "name", tensor->name,
                                             "shape", shape, "step",
                                             ctl_count(model->tensor_steps[i])));
    }
    return all;
}

static json_t *json_staleness(const struct optclient_worker_info *worker)
{
    enum { BUCKETS = sizeof(worker->staleness) / sizeof(worker->staleness[0]) };
    json_t *all = json_array();
    for (size_t i = 0; i < BUCKETS; i++) {
        json_array_append_new(all, ctl_count(worker->staleness[i]));
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
                "{s:s, s:b, s:b, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
                "s:o, s:o, s:f, s:o}",
                "name", w->name, "connected", w->connected, "pushed", w->pushed,
                "resting", w->resting, "away", w->away, "incarnation",
                ctl_count(w->incarnation), "last_sequence", ctl_count(w->last_sequence),
                "last_step", ctl_count(w->last_step), "applied", ctl_count(w->applied),
                "duplicates", ctl_count(w->duplicates), "refused",
                ctl_count(w->refused), "resends", ctl_count(w->resends), "reconnects",
                ctl_count(w->reconnects), "dropped", ctl_count(w->dropped), "waits",
                ctl_count(w->waits), "waited_s", (double)w->waited_us / 1e6,
                "staleness", json_staleness(w)));
    }
    return all;
}

static json_t *json_changes(const struct optclient_description *model)
{
    json_t *all = json_array();
    for (size_t i = 0; i < model->change_count; i++) {
        const struct optclient_change *c = &model->changes[i];
        json_array_append_new(all,
                              json_pack("{s:o, s:s, s:s}", "step", ctl_count(c->step),
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

static json_t *json_model(const struct optclient_description *m)
{
    json_t *all = policy_json(&m->policy);
    json_t *rest = json_pack(
        "{s:s, s:s, s:b, s:o, s:o, s:f, s:o, s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:o, "
        "s:o}",
        "name", m->name, "specification", m->specification, "ready", m->ready, "step",
        ctl_count(m->step), "epoch", ctl_count(m->epoch), "lr", m->lr, "parameters",
        ctl_count(m->parameters), "bytes", ctl_count(m->bytes), "rounds",
        ctl_count(m->rounds), "rounds_skipped", ctl_count(m->rounds_skipped), "dropped",
        ctl_count(m->dropped), "mean_staleness", m->mean_staleness, "slots",
        json_slots(m), "tensors", json_tensors(m), "workers", json_workers(m),
        "changes", json_changes(m));
    bool well = all != NULL && rest != NULL && json_object_update(all, rest) == 0;
    json_decref(rest);
    if (!well) {
        json_decref(all);
        return NULL;
    }
    return all;
}

/* ---------------------------------------------------------------- people */

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

static void print_model(const struct optclient_description *m)
{
    char lr[OPT_NUMBER_TEXT];
    opt_number_print(m->lr, lr);
    printf("model          %s\nspecification  %s\n", m->name, m->specification);
    fputs("policy         ", stdout);
    policy_print(&m->policy);
    printf("\nstate          %s, step %" PRIu64 ", epoch %" PRIu64 "\n",
           m->ready ? "ready" : "waits for its weights", m->step, m->epoch);
    printf("rounds         %" PRIu64 ", %" PRIu64 " of them skipped; %" PRIu64
           " pushes dropped, mean staleness %.3g\n",
           m->rounds, m->rounds_skipped, m->dropped, m->mean_staleness);
    printf("next update    lr %s\n", lr);
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
}

int run_show(struct ctl *ctl)
{
    struct optclient_description *model;
    struct opt_error error;
    bool yaml = ctl_value(ctl, "yaml") != NULL;
    if (yaml && ctl->json) {
        return ctl_wrong(ctl, "--yaml and --json do not go together");
    }
    int result = ctl_connect(ctl, "");
    if (result != EXIT_SUCCESS) {
        return result;
    }
    enum optclient_status status =
        optclient_describe(ctl->client, ctl->arguments[0], &model);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    if (yaml && !spec_print_yaml(model->specification, &error)) {
        result = ctl_refused(ctl, &error);
    } else if (!yaml && ctl->json) {
        result = ctl_answer(ctl, json_model(model));
    } else {
        if (!yaml) {
            print_model(model);
        }
        result = ctl_done(ctl);
    }
    optclient_description_free(model);
    return result;
}
