/* models — all models, and what shall become of one; see commands.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/quantity.h"
#include "tools/optctl/commands.h"
#include "tools/optctl/policy.h"

/* ---------------------------------------------------------------- list */

static json_t *json_models(const struct optclient_model_info *models, size_t count,
                           bool names)
{
    json_t *all = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct optclient_model_info *m = &models[i];
        json_t *one =
            names
                ? json_string(m->name)
                : json_pack(
                      "{s:s, s:s, s:o, s:o, s:o, s:o, s:s, s:s}", "name", m->name,
                      "state", m->recovering > 0 ? "recovering" : "ready", "step",
                      ctl_count(m->step), "tensors", ctl_count(m->tensors),
                      "parameters", ctl_count(m->parameters), "workers",
                      ctl_count(m->workers), "durability",
                      policy_durability_name((enum optclient_durability)m->durability),
                      "specification", m->specification);
        if (!names && m->recovering > 0) {
            json_object_set_new(one, "percent", ctl_count(m->recovering - 1));
        }
        json_array_append_new(all, one);
    }
    return all;
}

static int print_models(const struct ctl *ctl,
                        const struct optclient_model_info *models, size_t count)
{
    /* Either all models are coming back, or none. */
    bool recovering = count > 0 && models[0].recovering > 0;
    struct table *table = table_new(recovering ? "lrrrrrll" : "lrrrrll");
    static const char *const titles[] = { "MODEL",        "STEP",    "TENSORS",
                                          "PARAMETERS",   "WORKERS", "DURABILITY",
                                          "SPECIFICATION" };
    for (size_t i = 0; i < sizeof(titles) / sizeof(titles[0]); i++) {
        table_add(table, "%s", titles[i]);
        if (i == 0 && recovering) {
            table_add(table, "RECOVERING");
        }
    }
    for (size_t i = 0; i < count; i++) {
        const struct optclient_model_info *m = &models[i];
        table_add(table, "%s", m->name);
        if (recovering) {
            table_add(table, "%" PRIu32 "%%", m->recovering - 1);
        }
        table_add(table, "%" PRIu64, m->step);
        table_add(table, "%" PRIu64, m->tensors);
        table_add(table, "%" PRIu64, m->parameters);
        table_add(table, "%" PRIu32, m->workers);
        table_add(table, "%s",
                  policy_durability_name((enum optclient_durability)m->durability));
        table_add(table, "%s", m->specification);
    }
    return table_print(ctl, table);
}

/* A disk that fails is said where models are looked at. */
static void note_disk(const struct ctl *ctl)
{
    struct optclient_counter *counters;
    size_t count;
    if (optclient_statistics(ctl->client, &counters, &count) != OPTCLIENT_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(counters[i].name, "degraded") == 0 && counters[i].value > 0) {
            fputs("optctl: degraded: the daemon's disk is full or fails, and its log "
                  "says "
                  "why; models with durability always take no pushes until it works\n",
                  stderr);
        }
    }
    optclient_statistics_free(counters);
}

int run_list(struct ctl *ctl)
{
    struct optclient_model_info *models;
    size_t count;
    bool names = ctl_value(ctl, "names") != NULL;
    int result = ctl_connect(ctl, "");
    if (result != EXIT_SUCCESS) {
        return result;
    }
    enum optclient_status status = optclient_list(ctl->client, &models, &count);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    if (ctl->json) {
        result = ctl_answer(ctl, json_models(models, count, names));
    } else if (names) {
        for (size_t i = 0; i < count; i++) {
            puts(models[i].name);
        }
        result = ctl_done(ctl);
    } else {
        result = print_models(ctl, models, count);
        note_disk(ctl);
    }
    optclient_list_free(models);
    return result;
}

/* ---------------------------------------------------------------- set and delete */

/* Arguments joined by commas; to be freed. */
static char *join(char *const *arguments, int count)
{
    size_t size = 1;
    for (int i = 0; i < count; i++) {
        size += strlen(arguments[i]) + 2;
    }
    char *text = malloc(size), *to = text;
    for (int i = 0; text != NULL && i < count; i++) {
        to += snprintf(to, size - (size_t)(to - text), "%s%s", i > 0 ? ", " : "",
                       arguments[i]);
    }
    return text;
}

int run_set(struct ctl *ctl)
{
    const char *at = ctl_value(ctl, "at-step");
    uint64_t at_step = 0, step;
    struct opt_error error;
    if (at != NULL &&
        (opt_quantity_count(at, &at_step, &error) != OPT_OK || at_step == 0)) {
        return ctl_wrong(ctl, "--at-step is the number of an update, not '%s'", at);
    }
    int result = ctl_connect(ctl, "");
    char *change = join(ctl->arguments + 1, ctl->count - 1);
    if (change == NULL || result != EXIT_SUCCESS) {
        free(change);
        return result == EXIT_SUCCESS ? ctl_answer(ctl, NULL) : result;
    }
    enum optclient_status status =
        optclient_set(ctl->client, ctl->arguments[0], change, at_step, &step);
    free(change);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    if (ctl->json) {
        return ctl_answer(ctl, json_pack("{s:s, s:o}", "name", ctl->arguments[0],
                                         "step", ctl_count(step)));
    }
    printf("from update %" PRIu64 " on\n", step);
    return ctl_done(ctl);
}

int run_checkpoint(struct ctl *ctl)
{
    struct optclient_checkpoint_info info;
    int result = ctl_connect(ctl, "");
    if (result != EXIT_SUCCESS) {
        return result;
    }
    enum optclient_status status =
        optclient_checkpoint(ctl->client, ctl->arguments[0], &info);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    if (ctl->json) {
        return ctl_answer(ctl,
                          json_pack("{s:s, s:o, s:o, s:s}", "name", ctl->arguments[0],
                                    "step", ctl_count(info.step), "record",
                                    ctl_count(info.record), "folder", info.folder));
    }
    printf("step %" PRIu64 " is in %s\n", info.step, info.folder);
    return ctl_done(ctl);
}

int run_delete(struct ctl *ctl)
{
    int result = ctl_connect(ctl, "");
    if (result != EXIT_SUCCESS) {
        return result;
    }
    enum optclient_status status = optclient_delete(ctl->client, ctl->arguments[0]);
    if (status != OPTCLIENT_OK) {
        return ctl_failed(ctl, status);
    }
    return ctl->json ? ctl_answer(ctl, json_pack("{s:s, s:b}", "name",
                                                 ctl->arguments[0], "deleted", 1))
                     : EXIT_SUCCESS;
}
