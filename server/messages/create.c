/* create — a new model, or the one that is there with the same definition. */
#include <stdlib.h>

#include "server/engine/answers.h"
#include "server/engine/consistency.h"
#include "server/engine/errand.h"
#include "server/engine/events.h"
#include "server/engine/inside.h"
#include "server/engine/model.h"
#include "server/engine/registry.h"
#include "server/engine/removal.h"
#include "server/engine/waiting.h"
#include "server/engine/work.h"
#include "server/messages/serve.h"

/* Read what the model shall be. The plan's memory is in the arena; its specification is
 * the caller's. */
static enum opt_status read_plan(const struct engine *engine,
                                 const struct letter *letter, struct opt_arena *arena,
                                 struct opt_spec *spec, struct model_plan *plan,
                                 struct opt_error *error)
{
    const struct opt_create *create = &letter->request.body.create;
    enum opt_status status = opt_spec_from_wire(&create->specification, spec, error);
    if (status != OPT_OK) {
        return status;
    }
    struct opt_tensor_entry *tensors;
    size_t count;
    status = opt_tensor_table_read(letter->data, letter->data_size,
                                   engine->settings.max_tensors, arena, &tensors,
                                   &count, error);
    if (status != OPT_OK) {
        return status;
    }
    if (count == 0) {
        return opt_fail(error, OPT_INVALID_ARGUMENT,
                        "model \"%s\" has no tensors; it must have at least one",
                        create->model);
    }
    status = consistency_check(&create->consistency, spec, tensors, count, error);
    if (status != OPT_OK) {
        return status;
    }
    *plan = (struct model_plan){
        .name = create->model,
        .spec = spec,
        .consistency = create->consistency,
        .tensors = tensors,
        .tensor_count = count,
    };
    return OPT_OK;
}

/* The same, in as much memory as it takes, which is paid for before. */
static enum opt_status read_paid(const struct engine *engine, struct letter *letter,
                                 struct opt_arena *arena, struct opt_spec *spec,
                                 struct model_plan *plan, struct opt_error *error)
{
    enum { USUAL = 4, FIXED = 64 << 10 }; /* times the bytes of a table, and beside */
    size_t most = opt_table_budget(letter->data_size);
    size_t limit = 0;
    enum opt_status status = OPT_RESOURCE_EXHAUSTED;
    while (status == OPT_RESOURCE_EXHAUSTED && limit < most) {
        size_t more = limit > 0 ? limit : USUAL * letter->data_size + FIXED;
        more = more < most - limit ? more : most - limit;
        if (!letter_pay(letter, more)) {
            return opt_fail_as(
                error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_ROOM,
                "no room to read a table of %zu bytes at present: requests "
                "and unread answers take what the setting inflight allows",
                letter->data_size);
        }
        limit += more;
        opt_spec_fini(spec);
        *spec = (struct opt_spec){ .rule = NULL };
        opt_arena_fini(arena);
        arena->limit = limit;
        status = read_plan(engine, letter, arena, spec, plan, error);
    }
    return status;
}

static void open_same(struct engine *engine, struct letter *letter, struct model *model,
                      const struct model_plan *plan)
{
    char difference[OPT_ERROR_TEXT];
    if (model_differs(model, plan, difference, sizeof difference)) {
        engine_fail(engine, letter, OPT_ALREADY_EXISTS, OPT_DETAIL_OTHER_DEFINITION,
                    "model \"%.60s\" exists with another definition: %s", model->name,
                    difference);
        return;
    }
    serve_model_reply(engine, letter, model, letter->request.body.create.join, false);
}

/* A model in the making. It has its name already, so that whoever asks for it waits. */
struct making {
    struct errand errand;
    struct opt_matching matching;
    bool matched;
    size_t checked, filled; /* tensors, elements of slots */
    enum opt_status status;
    struct opt_error error;
};

static bool go_on(struct engine *engine, struct model *model, struct errand *errand)
{
    enum { PIECE = 1 << 18 };
    struct making *making = (struct making *)(void *)errand;
    if (!making->matched) {
        uint64_t steps;
        making->status = opt_matching_go_on(&making->matching, PIECE, &making->matched,
                                            &steps, &making->error);
        work_done(engine, steps);
    } else if (making->checked < model->tensor_count) {
        making->status =
            model_check_sparse(engine, model, &model->spec, model->grouping,
                               &making->checked, &making->error);
    } else {
        model_fill_slots(engine, model, &making->filled);
    }
    return making->status != OPT_OK ||
           (making->matched && making->checked == model->tensor_count &&
            making->filled == model->floats);
}

static void end(struct engine *engine, struct model *model, struct errand *errand)
{
    struct making *making = (struct making *)(void *)errand;
    struct letter *letter = errand->letter;
    const struct opt_create *create = &letter->request.body.create;
    model->making = false;
    if (making->status != OPT_OK) {
        engine_refuse(engine, letter, &making->error);
        removal_delete(engine, model, "the model could not be created");
        free(making);
        return;
    }
    if (create->assigned && !letter->peer->closed) {
        model->creator = letter->peer;
    } else if (!create->assigned) {
        model_ready(model);
    }
    event_model_created(model, letter->peer);
    if (!serve_model_reply(engine, letter, model, create->join, true)) {
        removal_delete(engine, model, "the model could not be created");
    }
    free(making);
}

static void make_new(struct engine *engine, struct letter *letter,
                     const struct model_plan *plan)
{
    if (engine->model_count >= engine->settings.max_models) {
        engine_fail(engine, letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
                    "there are %zu models already, as many as the daemon may have",
                    engine->model_count);
        return;
    }
    struct opt_error error;
    struct model *model;
    enum opt_status status = model_new(engine, plan, &model, &error);
    if (status != OPT_OK) {
        engine_refuse(engine, letter, &error);
        return;
    }
    struct making *making = calloc(1, sizeof *making);
    if (making == NULL || !engine_add_model(engine, model)) {
        model_free(engine, model);
        free(making);
        engine_fail(engine, letter, OPT_UNAVAILABLE, OPT_DETAIL_NO_MEMORY,
                    "no memory for another model");
        return;
    }
    making->errand = (struct errand){ .go_on = go_on, .end = end, .letter = letter };
    opt_matching_begin(&making->matching, &model->spec, &model->named,
                       model->grouping->of);
    model->making = true;
    errand_begin(engine, model, &making->errand);
}

void serve_create(struct engine *engine, struct letter *letter)
{
    const struct opt_create *create = &letter->request.body.create;
    if (letter->peer->observer && (create->join || create->assigned)) {
        engine_fail(engine, letter, OPT_PERMISSION_DENIED, OPT_DETAIL_OBSERVER,
                    "an observer may not join a model or assign its weights; say hello "
                    "with a worker's name");
        return;
    }
    struct model *model = names_find(&engine->models, create->model);
    if (model != NULL && waiting_postponed(engine, model, letter, false)) {
        return;
    }
    struct opt_arena arena;
    struct opt_spec spec = { .rule = NULL };
    struct model_plan plan;
    struct opt_error error;
    opt_arena_init(&arena, 0);
    enum opt_status status = read_paid(engine, letter, &arena, &spec, &plan, &error);
    if (status != OPT_OK) {
        engine_refuse(engine, letter, &error);
    } else if (model != NULL) {
        open_same(engine, letter, model, &plan);
    } else {
        make_new(engine, letter, &plan);
    }
    opt_spec_fini(&spec);
    opt_arena_fini(&arena);
}
