/* What a client can ask the daemon about itself and its models. The answers are blocks
 * that own an arena with everything they point to. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/api.h"
#include "client/client.h"

struct description {
    struct optclient_description public;
    struct opt_arena arena;
};
struct model_list {
    struct opt_arena arena;
    struct optclient_model_info models[];
};
struct counter_list {
    struct opt_arena arena; /* of the reply's names */
    struct optclient_counter counters[];
};

/* Run a call about the model of this name; NULL: about none. */
static enum optclient_status run_about(struct optclient_call *call, const char *name)
{
    enum optclient_status status = api_check(call->client);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    struct opt_error error;
    if (name != NULL &&
        opt_name_check(name, strlen(name), "model name", &error) != OPT_OK) {
        return api_report(&error);
    }
    return api_run(call);
}

/* Ask about a model, or about the daemon (name NULL). After OPTCLIENT_OK the answer is
 * in the call; call_fini is due in any case. */
static enum optclient_status ask(struct optclient_call *call, struct optclient *client,
                                 enum opt_message message, const char *name)
{
    call_init(call, client, NULL, message, 0);
    if (message == OPT_MESSAGE_DELETE) {
        call->request.body.delete_ = name;
    } else if (message == OPT_MESSAGE_DESCRIBE) {
        call->request.body.describe = name;
    }
    return run_about(call, name);
}

static enum optclient_status no_memory(void)
{
    return api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for the daemon's answer");
}

static enum optclient_status unreadable(const struct opt_error *error)
{
    return api_fail(OPT_INTERNAL, "the daemon's answer cannot be read: %s",
                    error->text);
}

/* --------------------------------------------------------------------- descriptions */

static struct optclient_policy policy_of(const struct opt_description *of)
{
    const struct opt_consistency *from = &of->consistency;
    return (struct optclient_policy){
        .mode = (enum optclient_mode)from->mode,
        .loss = (enum optclient_loss)from->loss,
        .min_workers = from->min_workers,
        .samples = from->samples,
        .backup = from->backup,
        .staleness = from->staleness,
        .damping = from->damping,
        .delay_compensation = from->delay_compensation,
        .atomic = (enum optclient_atomic)from->atomic,
        .checkpoint_steps = of->checkpoint_steps,
        .durability = (enum optclient_durability)of->summary.durability,
    };
}

_Static_assert(sizeof(((struct optclient_worker_info *)NULL)->staleness) ==
                   OPT_STALENESS_BUCKETS * sizeof(uint64_t),
               "as many buckets");

/* The wire's structs as public ones, in the same arena. */
static bool publish(const struct opt_description *from, struct description *to)
{
    struct opt_arena *arena = &to->arena;
    struct optclient_tensor *tensors =
        opt_arena_alloc(arena, (from->tensor_count + 1) * sizeof(*tensors));
    uint64_t *steps = opt_arena_alloc(arena, (from->tensor_count + 1) * sizeof(*steps));
    struct optclient_worker_info *workers =
        opt_arena_alloc(arena, (from->worker_count + 1) * sizeof(*workers));
    struct optclient_change *changes =
        opt_arena_alloc(arena, (from->change_count + 1) * sizeof(*changes));
    if (tensors == NULL || steps == NULL || workers == NULL || changes == NULL) {
        return false;
    }
    for (size_t i = 0; i < from->tensor_count; i++) {
        const struct opt_tensor_entry *entry = &from->tensors[i];
        tensors[i] = (struct optclient_tensor){ .name = entry->name,
                                                .shape = entry->shape,
                                                .rank = entry->rank,
                                                .sparse = entry->sparse };
        steps[i] = entry->step;
    }
    for (size_t i = 0; i < from->worker_count; i++) {
        const struct opt_worker_entry *entry = &from->workers[i];
        workers[i] = (struct optclient_worker_info){
            .name = entry->name,
            .incarnation = entry->incarnation,
            .last_sequence = entry->last_sequence,
            .last_step = entry->last_step,
            .applied = entry->applied,
            .duplicates = entry->duplicates,
            .refused = entry->refused,
            .resends = entry->resends,
            .reconnects = entry->reconnects,
            .connected = entry->connected,
            .pushed = entry->pushed,
            .resting = entry->resting,
            .away = entry->away,
            .dropped = entry->dropped,
            .waits = entry->waits,
            .waited_us = entry->waited_us,
        };
        memcpy(workers[i].staleness, entry->staleness, sizeof(entry->staleness));
    }
    for (size_t i = 0; i < from->change_count; i++) {
        const struct opt_change_entry *entry = &from->changes[i];
        changes[i] = (struct optclient_change){ .step = entry->step,
                                                .before = entry->before,
                                                .after = entry->after };
    }
    to->public = (struct optclient_description){
        .name = from->summary.name,
        .specification = from->summary.specification,
        .policy = policy_of(from),
        .ready = from->ready,
        .step = from->summary.step,
        .epoch = from->epoch,
        .parameters = from->summary.parameters,
        .bytes = from->bytes,
        .rounds_skipped = from->rounds_skipped,
        .rounds = from->rounds,
        .dropped = from->dropped,
        .mean_staleness = from->mean_staleness,
        .lr = from->lr,
        .slot_count = from->slot_count,
        .tensor_count = from->tensor_count,
        .worker_count = from->worker_count,
        .slots = from->slots,
        .tensors = tensors,
        .tensor_steps = steps,
        .workers = workers,
        .change_count = from->change_count,
        .changes = changes,
    };
    return true;
}

static enum optclient_status read_description(const struct optclient_call *call,
                                              struct optclient_description **out)
{
    struct description *description = calloc(1, sizeof(*description));
    if (description == NULL) {
        return no_memory();
    }
    /* The public structs are about as large as the wire's. */
    opt_arena_init(&description->arena, 2 * opt_table_budget(call->data_size));
    struct opt_description found;
    struct opt_error error;
    enum optclient_status status = OPTCLIENT_OK;
    if (opt_description_read(call->data, call->data_size, &description->arena, &found,
                             &error) != OPT_OK) {
        status = unreadable(&error);
    } else if (!publish(&found, description)) {
        status = no_memory();
    }
    if (status != OPTCLIENT_OK) {
        optclient_description_free(&description->public);
        return status;
    }
    *out = &description->public;
    return OPTCLIENT_OK;
}

enum optclient_status optclient_describe(struct optclient *client, const char *name,
                                         struct optclient_description **out)
{
    struct optclient_call call;
    enum optclient_status status =
        ask(&call, client, OPT_MESSAGE_DESCRIBE, name == NULL ? "" : name);
    if (status == OPTCLIENT_OK) {
        status = read_description(&call, out);
    }
    call_fini(&call);
    return status;
}

void optclient_description_free(struct optclient_description *description)
{
    if (description != NULL) {
        struct description *whole = (struct description *)description;
        opt_arena_fini(&whole->arena);
        free(whole);
    }
}

/* ---------------------------------------------------------------------------- lists */

static enum optclient_status read_models(const struct optclient_call *call,
                                         struct optclient_model_info **out,
                                         size_t *count)
{
    struct opt_arena arena;
    opt_arena_init(&arena, opt_table_budget(call->data_size));
    struct opt_model_entry *entries;
    size_t found;
    struct opt_error error;
    if (opt_model_table_read(call->data, call->data_size, &arena, &entries, &found,
                             &error) != OPT_OK) {
        opt_arena_fini(&arena);
        return unreadable(&error);
    }
    struct model_list *list = malloc(sizeof(*list) + found * sizeof(list->models[0]));
    if (list == NULL) {
        opt_arena_fini(&arena);
        return no_memory();
    }
    list->arena = arena;
    for (size_t i = 0; i < found; i++) {
        list->models[i] = (struct optclient_model_info){
            .name = entries[i].name,
            .specification = entries[i].specification,
            .step = entries[i].step,
            .tensors = entries[i].tensors,
            .parameters = entries[i].parameters,
            .workers = entries[i].workers,
            .durability = (uint64_t)entries[i].durability,
            .recovering = entries[i].recovering ? 1 + entries[i].percent : 0,
        };
    }
    *out = list->models;
    *count = found;
    return OPTCLIENT_OK;
}

enum optclient_status optclient_list(struct optclient *client,
                                     struct optclient_model_info **out, size_t *count)
{
    struct optclient_call call;
    enum optclient_status status = ask(&call, client, OPT_MESSAGE_LIST, NULL);
    if (status == OPTCLIENT_OK) {
        status = read_models(&call, out, count);
    }
    call_fini(&call);
    return status;
}

void optclient_list_free(struct optclient_model_info *models)
{
    if (models != NULL) {
        struct model_list *list =
            (void *)((char *)models - offsetof(struct model_list, models));
        opt_arena_fini(&list->arena);
        free(list);
    }
}

enum optclient_status optclient_statistics(struct optclient *client,
                                           struct optclient_counter **out,
                                           size_t *count)
{
    struct optclient_call call;
    enum optclient_status status = ask(&call, client, OPT_MESSAGE_STATISTICS, NULL);
    if (status == OPTCLIENT_OK) {
        const struct opt_statistics_reply *reply = &call.reply.body.statistics;
        struct counter_list *list =
            malloc(sizeof(*list) + reply->count * sizeof(list->counters[0]));
        if (list == NULL) {
            status = no_memory();
        } else {
            for (size_t i = 0; i < reply->count; i++) {
                list->counters[i] =
                    (struct optclient_counter){ .name = reply->counters[i].name,
                                                .value = reply->counters[i].value };
            }
            /* The names stay where they are. */
            list->arena = call.arena;
            opt_arena_init(&call.arena, 0);
            *out = list->counters;
            *count = reply->count;
        }
    }
    call_fini(&call);
    return status;
}

void optclient_statistics_free(struct optclient_counter *counters)
{
    if (counters != NULL) {
        struct counter_list *list =
            (void *)((char *)counters - offsetof(struct counter_list, counters));
        opt_arena_fini(&list->arena);
        free(list);
    }
}

enum optclient_status optclient_delete(struct optclient *client, const char *name)
{
    struct optclient_call call;
    enum optclient_status status =
        ask(&call, client, OPT_MESSAGE_DELETE, name == NULL ? "" : name);
    call_fini(&call);
    return status;
}

enum optclient_status optclient_set(struct optclient *client, const char *name,
                                    const char *change, uint64_t at_step,
                                    uint64_t *step)
{
    struct optclient_call call;
    if (name == NULL || change == NULL || change[0] == '\0') {
        return api_fail(OPT_INVALID_ARGUMENT,
                        "what is to be changed, and of which model? Give a name and "
                        "options such as lr=5e-4");
    }
    call_init(&call, client, NULL, OPT_MESSAGE_SET, 0);
    call.request.body.set =
        (struct opt_set){ .model = name, .change = change, .at_step = at_step };
    enum optclient_status status = run_about(&call, name);
    if (status == OPTCLIENT_OK && step != NULL) {
        *step = call.reply.body.set.step;
    }
    call_fini(&call);
    return status;
}

enum optclient_status optclient_checkpoint(struct optclient *client, const char *name,
                                           struct optclient_checkpoint_info *out)
{
    struct optclient_call call;
    if (name == NULL) {
        return api_fail(OPT_INVALID_ARGUMENT, "which model? Give a name");
    }
    call_init(&call, client, NULL, OPT_MESSAGE_CHECKPOINT, 0);
    call.request.body.checkpoint =
        (struct opt_checkpoint){ .model = name, .wait = true };
    enum optclient_status status = run_about(&call, name);
    if (status == OPTCLIENT_OK && out != NULL) {
        const struct opt_checkpoint_reply *reply = &call.reply.body.checkpoint;
        *out = (struct optclient_checkpoint_info){ .step = reply->step,
                                                   .record = reply->record };
        (void)snprintf(out->folder, sizeof out->folder, "%s", reply->folder);
    }
    call_fini(&call);
    return status;
}

enum optclient_status optclient_reload(struct optclient *client, char *unchanged,
                                       size_t capacity)
{
    struct optclient_call call;
    enum optclient_status status = ask(&call, client, OPT_MESSAGE_RELOAD, NULL);
    if (status == OPTCLIENT_OK && unchanged != NULL && capacity > 0) {
        snprintf(unchanged, capacity, "%s", call.reply.body.reload.unchanged);
    }
    call_fini(&call);
    return status;
}
