/* Creating and opening models. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "client/api.h"
#include "client/client.h"
#include "client/open_model.h"
#include "client/shm.h"

enum {
    NS_PER_MS = 1000000,
    RETRY_FIRST_MS = 10, /* after somebody else's failure to create */
    RETRY_MOST_MS = 1000,
    SHARE_MS = 2000 /* it goes without */
};

/* ------------------------------------------------------------------------- checking */

static enum optclient_status check_tensors(const struct optclient_tensor *tensors,
                                           size_t count)
{
    if (count == 0 || tensors == NULL) {
        return api_fail(OPT_INVALID_ARGUMENT, "a model needs at least one tensor");
    }
    if (count > OPT_TENSORS_MAX) {
        return api_fail(OPT_INVALID_ARGUMENT, "%zu tensors; a model has at most %d",
                        count, (int)OPT_TENSORS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        const struct optclient_tensor *tensor = &tensors[i];
        struct opt_error error;
        if (api_reserved(tensor->reserved, RESERVED(tensor), "tensors") !=
            OPTCLIENT_OK) {
            return OPTCLIENT_UNIMPLEMENTED;
        }
        if (tensor->name == NULL || (tensor->rank > 0 && tensor->shape == NULL)) {
            return api_fail(OPT_INVALID_ARGUMENT, "tensors[%zu] has no %s", i,
                            tensor->name == NULL ? "name" : "shape");
        }
        if (opt_name_check(tensor->name, strlen(tensor->name), "tensor name", &error) !=
            OPT_OK) {
            return api_report(&error);
        }
        if (tensor->rank > OPT_RANK_MAX) {
            return api_fail(OPT_INVALID_ARGUMENT,
                            "tensor \"%s\" has rank %zu; the limit is %d", tensor->name,
                            tensor->rank, (int)OPT_RANK_MAX);
        }
        if (open_model_count_elements(tensor->shape, tensor->rank) == 0) {
            return api_fail(OPT_INVALID_ARGUMENT,
                            "tensor \"%s\": each dimension must be at least 1 and "
                            "their product at most 2^40",
                            tensor->name);
        }
        if (tensor->sparse != 0 &&
            (tensor->rank < 2 || tensor->shape[0] > UINT32_MAX ||
             open_model_count_elements(tensor->shape + 1, tensor->rank - 1) >
                 OPT_SHARD)) {
            return api_fail(OPT_INVALID_ARGUMENT,
                            "tensor \"%s\" cannot be sparse: that takes at least 2 "
                            "dimensions, at most 2^32 - 1 rows and at most %d elements "
                            "a row",
                            tensor->name, (int)OPT_SHARD);
        }
    }
    return OPTCLIENT_OK;
}

static enum optclient_status check_name(const char *name)
{
    struct opt_error error;
    if (name == NULL) {
        return api_fail(OPT_INVALID_ARGUMENT, "a model needs a name");
    }
    return opt_name_check(name, strlen(name), "model name", &error) == OPT_OK
               ? OPTCLIENT_OK
               : api_report(&error);
}

/* ------------------------------------------------------------------------- creating */

/* One attempt, which may fail because of somebody else (OPTCLIENT_ABORTED). */
struct creation {
    struct optclient_model *model;
    const char *specification;
    struct optclient_policy policy;
    uint8_t *table;
    size_t table_size;
    struct optclient_values *initial; /* NULL: zeros */
    uint64_t deadline_ns;
    uint64_t not_before_ns;
};

static void creation_call(const struct creation *creation, struct optclient_call *call,
                          enum opt_message message)
{
    call_init(call, creation->model->client, creation->model, message, 0);
    call->deadline_ns = creation->deadline_ns;
}

static enum optclient_status upload(const struct creation *creation)
{
    struct optclient_model *model = creation->model;
    struct optclient_call call;
    creation_call(creation, &call, OPT_MESSAGE_ASSIGN);
    call.request.body.assign.dtype = OPT_FP32;
    cutter_init(&call.cutter, creation->initial, model->tensor_count, model->elements,
                NULL, OPT_FP32);
    enum optclient_status status = api_run(&call);
    call_fini(&call);
    return status;
}

static enum optclient_status wait_ready(const struct creation *creation)
{
    struct optclient_call call;
    creation_call(creation, &call, OPT_MESSAGE_WAIT);
    enum optclient_status status = api_run(&call);
    call_fini(&call);
    return status;
}

static bool keep_specification(struct optclient_model *model, const char *text)
{
    free(model->specification);
    model->specification = strdup(text);
    return model->specification != NULL;
}

/* Others wait for a model that will not be finished: it vanishes with the connection on
 * which it was begun. */
static void withdraw(struct optclient_model *model)
{
    struct optclient *client = model->client;
    client_lock(client);
    if (model->loss.status == OPT_OK) {
        client_disconnect(client,
                          "the initial weights of model \"%s\" were not uploaded",
                          model->name);
    }
    client_unlock(client);
}

static struct opt_consistency consistency_of(const struct optclient_policy *policy)
{
    return (struct opt_consistency){
        .mode = (enum opt_mode)policy->mode,
        .loss = (enum opt_loss)policy->loss,
        .min_workers = policy->min_workers == 0 ? 1 : policy->min_workers,
        .samples = policy->samples,
        .backup = policy->backup,
        .staleness = policy->staleness,
        .damping = policy->damping != 0,
        .delay_compensation = policy->delay_compensation,
        .atomic = (enum opt_atomic)policy->atomic,
    };
}

static enum optclient_status create_once(const struct creation *creation)
{
    struct optclient_model *model = creation->model;
    struct optclient_call call;
    creation_call(creation, &call, OPT_MESSAGE_CREATE);
    call.not_before_ns = creation->not_before_ns;
    call.table = creation->table;
    call.table_size = creation->table_size;
    call.request.body.create = (struct opt_create){
        .model = model->name,
        .specification = { .expression = creation->specification, .rule = "" },
        .consistency = consistency_of(&creation->policy),
        .assigned = creation->initial != NULL,
        .join = true,
        .durability = (enum opt_durability)creation->policy.durability,
        .checkpoint_steps = creation->policy.checkpoint_steps,
    };
    enum optclient_status status = api_run(&call);
    struct opt_model_reply reply = call.reply.body.model;
    if (status == OPTCLIENT_OK && reply.created) {
        model->made = reply.identity;
    }
    if (status == OPTCLIENT_OK && !keep_specification(model, reply.specification)) {
        status = api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for a model");
    }
    call_fini(&call);
    if (status == OPTCLIENT_OK && reply.tensors != model->tensor_count) {
        status = api_fail(OPT_INTERNAL,
                          "the daemon says that model \"%s\" has %" PRIu64
                          " tensors; it was created with %zu",
                          model->name, reply.tensors, model->tensor_count);
    }
    if (status == OPTCLIENT_OK && !reply.ready) {
        status = reply.created && creation->initial != NULL ? upload(creation)
                                                            : wait_ready(creation);
    }
    if (status != OPTCLIENT_OK && reply.created && !reply.ready) {
        withdraw(model);
    }
    return status;
}

/* Have memory in common with the daemon, if it is on this machine and wants that. */
static void share(struct optclient_model *model)
{
    struct optclient *client = model->client;
    client_lock(client);
    bool mine = shm_possible(client) && shm_claim(model);
    client_unlock(client);
    if (mine) {
        struct optclient_call call;
        call_init(&call, client, model, OPT_MESSAGE_SHARE, SHARE_MS);
        (void)api_run(&call); /* without, everything is sent */
        call_fini(&call);
    }
}

/* The model is usable, unless the connection was lost this very moment. */
static enum optclient_status finish_opening(struct optclient_model *model)
{
    struct optclient *client = model->client;
    client_lock(client);
    struct opt_error loss = model->loss;
    if (loss.status == OPT_OK) {
        model->stage = OPEN_READY;
        model->reopen_id = REOPEN_DONE;
    }
    client_unlock(client);
    if (loss.status == OPT_OK) {
        share(model);
    }
    return api_report(&loss);
}

/* Forget a lost connection, or somebody else's failure, and start anew. */
static void start_over(struct optclient_model *model)
{
    client_lock(model->client);
    model->loss = (struct opt_error){ .status = OPT_OK };
    model->stage = OPEN_WANTED;
    client_unlock(model->client);
}

static enum optclient_status create_until_deadline(struct creation *creation)
{
    uint64_t wait_ms = RETRY_FIRST_MS;
    for (;;) {
        enum optclient_status status = create_once(creation);
        if (status == OPTCLIENT_OK) {
            status = finish_opening(creation->model);
        }
        uint64_t now = uv_hrtime();
        uint64_t next = now + wait_ms * NS_PER_MS;
        if (status != OPTCLIENT_ABORTED || next >= creation->deadline_ns) {
            return status;
        }
        start_over(creation->model);
        creation->not_before_ns = next;
        wait_ms = wait_ms < RETRY_MOST_MS / 2 ? 2 * wait_ms : RETRY_MOST_MS;
    }
}

static uint8_t *pack_table(const struct optclient_tensor *tensors, size_t count,
                           size_t *size)
{
    struct opt_tensor_entry *entries = calloc(count, sizeof(*entries));
    uint8_t *table = NULL;
    if (entries != NULL) {
        for (size_t i = 0; i < count; i++) {
            entries[i].name = tensors[i].name;
            entries[i].shape = tensors[i].shape;
            entries[i].rank = tensors[i].rank;
            entries[i].sparse = tensors[i].sparse != 0;
        }
        *size = opt_tensor_table_pack(entries, count, NULL, 0);
        table = malloc(*size);
        if (table != NULL) {
            opt_tensor_table_pack(entries, count, table, *size);
        }
        free(entries);
    }
    return table;
}

/* The caller's pointers as values to send; they are only read. */
static struct optclient_values *initial_values(const float *const *initial,
                                               size_t count)
{
    struct optclient_values *values = malloc(count * sizeof(*values));
    for (size_t i = 0; values != NULL && i < count; i++) {
        values[i] =
            (struct optclient_values){ .tensor = i, .values = (float *)initial[i] };
    }
    return values;
}

static void discard(struct optclient_model *model)
{
    struct optclient *client = model->client;
    client_lock(client);
    open_model_drop(model);
    client_unlock(client);
}

enum optclient_status optclient_create(struct optclient *client, const char *name,
                                       const char *specification,
                                       const struct optclient_policy *policy,
                                       const struct optclient_tensor *tensors,
                                       size_t count, const float *const *initial,
                                       struct optclient_model **out)
{
    enum optclient_status status = api_check(client);
    if (status == OPTCLIENT_OK) {
        status = check_name(name);
    }
    if (status == OPTCLIENT_OK) {
        status = check_tensors(tensors, count);
    }
    if (status == OPTCLIENT_OK && policy != NULL) {
        status = api_reserved(policy->reserved, RESERVED(policy), "policy");
    }
    if (status != OPTCLIENT_OK) {
        return status;
    }
    if (specification == NULL || specification[0] == '\0') {
        return api_fail(OPT_INVALID_ARGUMENT,
                        "model \"%s\" needs a specification, such as adam(lr=1e-3)",
                        name);
    }
    for (size_t i = 0; initial != NULL && i < count; i++) {
        if (initial[i] == NULL) {
            return api_fail(OPT_INVALID_ARGUMENT,
                            "tensor \"%s\" has no initial values (initial[%zu] is "
                            "NULL)",
                            tensors[i].name, i);
        }
    }
    static const struct optclient_policy defaults;
    struct creation creation = {
        .specification = specification,
        .policy = policy == NULL ? defaults : *policy,
        .deadline_ns = uv_hrtime() + (uint64_t)client->settings.timeout_ms * NS_PER_MS,
    };
    creation.model = open_model_new(client, name, true);
    if (creation.model != NULL) {
        creation.model->by_shards = creation.policy.atomic == OPTCLIENT_ATOMIC_SHARD;
    }
    creation.table = pack_table(tensors, count, &creation.table_size);
    if (initial != NULL) {
        creation.initial = initial_values(initial, count);
    }
    if (creation.model == NULL || creation.table == NULL ||
        (initial != NULL && creation.initial == NULL) ||
        !open_model_keep_tensors(creation.model, tensors, count)) {
        status = api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for a model");
    } else {
        status = create_until_deadline(&creation);
    }
    free(creation.table);
    free(creation.initial);
    if (status == OPTCLIENT_OK) {
        *out = creation.model;
    } else if (creation.model != NULL) {
        discard(creation.model);
    }
    return status;
}

/* -------------------------------------------------------------------------- opening */

static enum optclient_status take_description(struct optclient_model *model,
                                              const struct optclient_call *call)
{
    struct opt_arena arena;
    opt_arena_init(&arena, opt_table_budget(call->data_size));
    struct opt_description description;
    struct opt_error error;
    enum optclient_status status = OPTCLIENT_OK;
    struct optclient_tensor *tensors = NULL;
    if (opt_description_read(call->data, call->data_size, &arena, &description,
                             &error) != OPT_OK) {
        status = api_fail(OPT_INTERNAL,
                          "the daemon's description of \"%s\" cannot be read: %s",
                          model->name, error.text);
    } else if (description.summary.identity != model->identity) {
        status = api_fail(OPT_ABORTED,
                          "model \"%s\" was deleted and made anew while it was opened",
                          model->name);
    } else {
        size_t count = description.tensor_count;
        model->by_shards = description.consistency.atomic == OPT_ATOMIC_SHARD;
        tensors = malloc((count + 1) * sizeof(*tensors));
        for (size_t i = 0; tensors != NULL && i < count; i++) {
            tensors[i] =
                (struct optclient_tensor){ .name = description.tensors[i].name,
                                           .shape = description.tensors[i].shape,
                                           .rank = description.tensors[i].rank,
                                           .sparse = description.tensors[i].sparse };
        }
        if (tensors == NULL || !open_model_keep_tensors(model, tensors, count)) {
            status = api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for a model");
        }
    }
    free(tensors);
    opt_arena_fini(&arena);
    return status;
}

static enum optclient_status open_model(struct optclient_model *model,
                                        uint64_t deadline_ns)
{
    struct optclient_call call;
    call_init(&call, model->client, model, OPT_MESSAGE_OPEN, 0);
    call.deadline_ns = deadline_ns;
    call.request.body.open =
        (struct opt_open){ .model = model->name, .join = model->joined };
    enum optclient_status status = api_run(&call);
    if (status == OPTCLIENT_OK &&
        !keep_specification(model, call.reply.body.model.specification)) {
        status = api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for a model");
    }
    call_fini(&call);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    call_init(&call, model->client, model, OPT_MESSAGE_DESCRIBE, 0);
    call.deadline_ns = deadline_ns;
    call.request.body.describe = model->name;
    status = api_run(&call);
    if (status == OPTCLIENT_OK) {
        status = take_description(model, &call);
    }
    call_fini(&call);
    return status == OPTCLIENT_OK ? finish_opening(model) : status;
}

enum optclient_status optclient_open(struct optclient *client, const char *name,
                                     int join, struct optclient_model **out)
{
    enum optclient_status status = api_check(client);
    if (status == OPTCLIENT_OK) {
        status = check_name(name);
    }
    if (status != OPTCLIENT_OK) {
        return status;
    }
    struct optclient_model *model = open_model_new(client, name, join != 0);
    if (model == NULL) {
        return api_fail(OPT_RESOURCE_EXHAUSTED, "no memory for a model");
    }
    uint64_t deadline_ns =
        uv_hrtime() + (uint64_t)client->settings.timeout_ms * NS_PER_MS;
    status = open_model(model, deadline_ns);
    while (status == OPTCLIENT_ABORTED && uv_hrtime() < deadline_ns) {
        /* The connection was lost in between: the next call waits for a new one. */
        start_over(model);
        status = open_model(model, deadline_ns);
    }
    if (status == OPTCLIENT_OK) {
        *out = model;
    } else {
        discard(model);
    }
    return status;
}
