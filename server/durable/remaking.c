/* remaking — see remaking.h. */
#include "server/durable/remaking.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/optim/spec.h"
#include "server/base/letter.h"
#include "server/base/version.h"
#include "server/engine/answer.h"
#include "server/engine/registry.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/making.h"
#include "server/model/model.h"
#include "server/rounds/consistency.h"
#include "server/rounds/lost_workers.h"
#include "server/store/manifest.h"
#include "server/workers/membership.h"

enum {
    TENSORS = 16384,  /* whose counters are set at a time, */
    TENSOR_COST = 16, /* each of which costs that */
    LETTER_ARENA = 1 << 20
};

/* ---------------------------------------------------------------- tables */

bool remaking_table(const struct opt_tensor_entry *tensors, size_t count,
                    struct remake_table *out)
{
    size_t size = opt_tensor_table_pack(tensors, count, NULL, 0);
    out->data = malloc(size + 1);
    out->size = size;
    if (out->data == NULL) {
        return false;
    }
    opt_tensor_table_pack(tensors, count, out->data, size);
    return true;
}

bool remaking_table_of(const struct manifest *manifest, struct remake_table *out)
{
    struct opt_tensor_entry *tensors =
        calloc(manifest->tensor_count + 1, sizeof *tensors);
    if (tensors == NULL) {
        return false;
    }
    for (size_t i = 0; i < manifest->tensor_count; i++) {
        tensors[i] = manifest->tensors[i].entry;
    }
    bool packed = remaking_table(tensors, manifest->tensor_count, out);
    free(tensors);
    return packed;
}

/* ---------------------------------------------------------------- letters */

static enum opt_status no_memory(struct opt_error *error)
{
    return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                       "the system has no memory for it");
}

static struct letter *letter_of(const struct remaking *remaking,
                                enum opt_message message)
{
    struct letter *letter =
        letter_new(remaking->home, NULL, remaking->peer, LETTER_ARENA);
    if (letter != NULL) {
        letter->request.message = message;
        letter->arrived_ns = uv_hrtime();
        remaking->peer->letters++;
    }
    return letter;
}

/* ---------------------------------------------------------------- making */

static struct remaking *remaking_of(const struct letter *letter);

static void on_made(struct engine *engine, struct model *model, struct letter *letter,
                    const struct made *made)
{
    struct remaking *remaking = remaking_of(letter);
    remaking->status = made->status;
    remaking->model = model;
    if (made->status != OPT_OK) {
        remaking->error = *made->error;
        remaking->model = NULL;
        remaking_undo(engine, model);
    }
    remaking->peer->letters--;
    remaking->letter = NULL;
    letter_free(letter);
}

/* Letters that this room makes have no connection, but what they are made for. */
static struct remaking *remaking_of(const struct letter *letter)
{
    return (struct remaking *)(void *)letter->conn;
}

static enum opt_status check(const struct engine *engine, const struct remake *what,
                             const struct opt_spec *spec, struct opt_error *error)
{
    if (names_find(&engine->models, what->name) != NULL) {
        return opt_fail(error, OPT_DATA_LOSS, "another model has its name");
    }
    if (engine->model_count >= engine->settings.max_models) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
                           "there are %zu models already, as many as --max-models "
                           "allows",
                           engine->model_count);
    }
    return consistency_check(&what->consistency, spec, error);
}

static enum opt_status ask(struct remaking *remaking, struct opt_error *error)
{
    const struct remake *what = remaking->what;
    struct engine *engine = remaking->engine;
    struct letter *letter = letter_of(remaking, OPT_MESSAGE_CREATE);
    struct opt_spec spec = { .rule = NULL };
    if (letter == NULL || !letter_data(letter, what->table->size)) {
        remaking->peer->letters -= letter != NULL;
        letter_free(letter);
        return no_memory(error);
    }
    memcpy(letter->data, what->table->data, what->table->size);
    letter->conn = (struct conn *)(void *)remaking;
    letter->request.body.create = (struct opt_create){
        .model = what->name,
        .specification = { .expression = what->specification, .rule = "" },
        .consistency = what->consistency,
        .durability = what->durability,
        .checkpoint_steps = what->checkpoint_steps,
    };
    enum opt_status status = opt_spec_parse(what->specification, &spec, error);
    if (status == OPT_OK) {
        status = check(engine, what, &spec, error);
    }
    if (status == OPT_OK) {
        remaking->letter = letter;
        status = making_begin(engine, letter, &spec, on_made, error);
    }
    opt_spec_fini(&spec);
    if (status != OPT_OK) {
        remaking->letter = NULL;
        remaking->peer->letters--;
        letter_free(letter);
    }
    return status;
}

void remaking_undo(struct engine *engine, struct model *model)
{
    registry_remove(engine, model);
    model->deleted = true;
    model->next_dead = engine->dead;
    engine->dead = model;
    while (model->member_count > 0) {
        membership_forget(engine, model->members[model->member_count - 1]);
    }
}

void remaking_begin(struct remaking *remaking, const struct remake *what)
{
    remaking->what = what;
    remaking->model = NULL;
    remaking->made = false;
    remaking->changes = 0;
    remaking->stated = false;
    remaking->tensors = 0;
    remaking->rest = false;
    remaking->status = OPT_OK;
    struct opt_error error;
    enum opt_status status = ask(remaking, &error);
    if (status != OPT_OK) {
        remaking->status = status;
        remaking->error = error;
    }
}

/* ---------------------------------------------------------------- changes */

static void on_stated(struct engine *engine, struct letter *letter,
                      const struct stated *stated)
{
    answer_start(letter, OPT_MESSAGE_SET)->body.set.step = stated->step;
    answer_send(engine, letter);
}

void remaking_state(struct remaking *remaking, struct model *model, const char *asked,
                    uint64_t step)
{
    struct letter *letter = letter_of(remaking, OPT_MESSAGE_SET);
    remaking->model = model;
    remaking->status = letter == NULL ? no_memory(&remaking->error) : OPT_OK;
    remaking->letter = letter;
    if (letter != NULL) {
        letter->request.body.set =
            (struct opt_set){ .model = model->name, .change = asked, .at_step = step };
        change_state(remaking->engine, model, letter, on_stated);
    }
}

enum remade remaking_stated(struct remaking *remaking, struct opt_error *error)
{
    if (remaking->letter != NULL) {
        struct letter *back = mailbox_take(remaking->home);
        if (back == NULL) {
            return REMAKING_BUSY;
        }
        if (back->reply.message == OPT_MESSAGE_ERROR) {
            const struct opt_error_reply *reply = &back->reply.body.error;
            remaking->status = opt_fail_as(&remaking->error, reply->status,
                                           reply->detail, "%s", reply->text);
        }
        letter_free(back);
        remaking->letter = NULL;
    }
    if (remaking->status != OPT_OK) {
        *error = remaking->error;
        return REMAKING_FAILED;
    }
    return REMAKING_OVER;
}

/* The next of the changes of a manifest, those that have been come first. */
static enum remade next_change(struct remaking *remaking, struct opt_error *error)
{
    const struct manifest *manifest = remaking->what->manifest;
    struct model *model = remaking->model;
    const struct manifest_change *change = &manifest->changes[remaking->changes];
    if (remaking->stated) {
        enum remade stated = remaking_stated(remaking, error);
        remaking->stated = stated != REMAKING_OVER;
        remaking->changes += stated == REMAKING_OVER;
        return stated == REMAKING_OVER ? REMAKING_MORE : stated;
    }
    if (!change->done) {
        remaking_state(remaking, model, change->change, change->step);
        remaking->stated = true;
        return REMAKING_MORE;
    }
    if (!change_restore(remaking->engine, model, change->step, change->before,
                        change->after)) {
        no_memory(error);
        return REMAKING_FAILED;
    }
    remaking->changes++;
    return REMAKING_MORE;
}

/* ---------------------------------------------------------------- what it came to */

/* What the checkpoint is of is what has been made. */
static enum opt_status check_made(const struct remaking *remaking,
                                  struct opt_error *error)
{
    const struct manifest *manifest = remaking->what->manifest;
    const struct model *model = remaking->model;
    if (model->slot_count != manifest->slot_count) {
        return opt_fail(error, OPT_DATA_LOSS,
                        "its optimizer has %zu state arrays, and the checkpoint %zu",
                        model->slot_count, manifest->slot_count);
    }
    for (size_t i = 0; i < model->slot_count; i++) {
        if (strcmp(model->slot_names[i], manifest->slots[i]) != 0) {
            return opt_fail(error, OPT_DATA_LOSS,
                            "state array %zu of its optimizer is %s, and %.64s in the "
                            "checkpoint",
                            i, model->slot_names[i], manifest->slots[i]);
        }
    }
    return OPT_OK;
}

/* The model has its identity, and the text it was created with. */
static enum opt_status adopt(struct remaking *remaking, struct opt_error *error)
{
    const struct remake *what = remaking->what;
    struct model *model = remaking->model;
    model->identity = what->identity;
    remaking->made = true;
    if (what->manifest == NULL) {
        return OPT_OK;
    }
    model->step = what->manifest->step;
    enum opt_status status = check_made(remaking, error);
    if (status == OPT_OK && strcmp(model->created, what->manifest->created) != 0) {
        char *created = strdup(what->manifest->created);
        if (created == NULL) {
            return no_memory(error);
        }
        bool own = model->canonical == model->created;
        free(model->created);
        model->created = created;
        model->canonical = own ? created : model->canonical;
    }
    return status;
}

static bool set_counters(struct remaking *remaking)
{
    const struct manifest *manifest = remaking->what->manifest;
    struct model *model = remaking->model;
    size_t first = remaking->tensors, left = model->tensor_count - first;
    size_t end = first + (left < TENSORS ? left : TENSORS);
    for (size_t i = first; i < end; i++) {
        struct tensor *tensor = &model->tensors[i];
        tensor->counters = manifest->tensors[i].counters;
        tensor->changed = manifest->tensors[i].entry.step;
        size_t shards = (tensor->n - 1) / OPT_SHARD + 1;
        for (size_t k = 0; k < shards; k++) {
            struct shard *shard = &model->shards[tensor->shard + k];
            shard->changed =
                shard->changed > tensor->changed ? shard->changed : tensor->changed;
        }
    }
    remaking->tensors = end;
    work_done(remaking->engine, TENSOR_COST * (uint64_t)(end - first));
    return end == model->tensor_count;
}

static void set_losses(struct model *model, const struct manifest *manifest)
{
    size_t kept =
        manifest->lost_count < LOSSES_KEPT ? manifest->lost_count : (size_t)LOSSES_KEPT;
    model->losses.count = manifest->losses > kept ? manifest->losses - kept : 0;
    for (size_t i = manifest->lost_count - kept; i < manifest->lost_count; i++) {
        lost_workers_note(model, manifest->lost[i]);
    }
    model->losses.count =
        manifest->losses > model->losses.count ? manifest->losses : model->losses.count;
}

static void set_rest(struct remaking *remaking)
{
    const struct manifest *manifest = remaking->what->manifest;
    struct model *model = remaking->model;
    model->changed = manifest->changed;
    model->epochs_before = manifest->epochs_before;
    model->epochs_from = manifest->epochs_from;
    model->rounds_skipped = manifest->rounds_skipped;
    model->pushes_applied = manifest->pushes_applied;
    model->dropped = manifest->dropped;
    model->staleness_sum = manifest->staleness_sum;
    model->gathered = manifest->gathered;
    set_losses(model, manifest);
    remaking->rest = true;
}

enum remade remaking_go_on(struct remaking *remaking, struct opt_error *error)
{
    const struct manifest *manifest = remaking->what->manifest;
    if (remaking->status != OPT_OK) {
        *error = remaking->error;
        return REMAKING_FAILED;
    }
    if (remaking->model == NULL) {
        return REMAKING_BUSY;
    }
    if (!remaking->made) {
        return adopt(remaking, error) == OPT_OK ? REMAKING_MORE : REMAKING_FAILED;
    }
    if (manifest == NULL) {
        return REMAKING_OVER;
    }
    if (remaking->changes < manifest->change_count) {
        return next_change(remaking, error);
    }
    if (strcmp(remaking->model->canonical, manifest->specification) != 0) {
        opt_fail(error, OPT_DATA_LOSS,
                 "its specification is %.100s, and by its changes %.100s",
                 manifest->specification, remaking->model->canonical);
        return REMAKING_FAILED;
    }
    if (remaking->tensors < remaking->model->tensor_count) {
        set_counters(remaking);
        return REMAKING_MORE;
    }
    if (!remaking->rest) {
        set_rest(remaking);
    }
    return REMAKING_OVER;
}

/* ---------------------------------------------------------------- values */

void remaking_value(struct model *model, size_t array, size_t tensor, uint64_t element,
                    const float *values, size_t n)
{
    const struct tensor *of = &model->tensors[tensor];
    size_t at = of->at + (size_t)element;
    if (array > 0) {
        memcpy(model->slots[array - 1] + at, values, n * sizeof *values);
        return;
    }
    const struct shard *shard =
        &model->shards[of->shard + (size_t)(element / OPT_SHARD)];
    memcpy(version_values(shard->current) + (at - shard->at), values,
           n * sizeof *values);
}
