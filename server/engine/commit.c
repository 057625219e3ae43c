/* commit — see commit.h. */
#include "server/engine/commit.h"

#include "server/engine/state.h"
#include "server/rounds/members.h"

static void note(struct engine *engine, const struct commit *commit)
{
    const struct recorder *recorder = engine->settings.recorder;
    if (recorder != NULL) {
        recorder->note(recorder->context, commit);
    }
}

void commit_model(struct engine *engine, enum commit_kind kind,
                  const struct model *model)
{
    note(engine, &(struct commit){ .kind = kind, .model = model });
}

void commit_weights(struct engine *engine, const struct model *model,
                    const struct opt_segment *segment, enum opt_dtype dtype,
                    const void *values)
{
    note(engine, &(struct commit){ .kind = COMMIT_WEIGHTS,
                                   .model = model,
                                   .segment = segment,
                                   .dtype = dtype,
                                   .values = values });
}

void commit_stated(struct engine *engine, const struct model *model,
                   const struct change *change)
{
    note(engine,
         &(struct commit){ .kind = COMMIT_STATED, .model = model, .stated = change });
}

bool commit_writes(const struct engine *engine, const struct model *model)
{
    const struct recorder *recorder = engine->settings.recorder;
    return recorder != NULL && recorder->writes != NULL &&
           recorder->writes(recorder->context, model);
}

bool commit_room(const struct engine *engine, struct model *model, size_t bytes)
{
    const struct recorder *recorder = engine->settings.recorder;
    return recorder == NULL || recorder->room == NULL ||
           recorder->room(recorder->context, model, bytes);
}

void commit_awaited(const struct engine *engine, struct model *model)
{
    const struct recorder *recorder = engine->settings.recorder;
    if (recorder != NULL && recorder->awaited != NULL) {
        recorder->awaited(recorder->context, model);
    }
}

void commit_worker(struct engine *engine, const struct worker *worker)
{
    note(engine, &(struct commit){ .kind = COMMIT_WORKER, .worker = worker });
}

void commit_member(struct engine *engine, enum commit_kind kind,
                   const struct member *member)
{
    note(engine, &(struct commit){ .kind = kind,
                                   .model = member->model,
                                   .worker = member->worker,
                                   .member = member });
}

void commit_push(struct engine *engine, const struct member *member,
                 const struct opt_settled *settled)
{
    note(engine, &(struct commit){ .kind = COMMIT_PUSH,
                                   .model = member->model,
                                   .worker = member->worker,
                                   .member = member,
                                   .settled = settled });
}

enum opt_status commit_admits(const struct engine *engine, const struct model *model,
                              uint32_t *retry_ms, struct opt_error *error)
{
    const struct recorder *recorder = engine->settings.recorder;
    return recorder == NULL || recorder->admits == NULL
               ? OPT_OK
               : recorder->admits(recorder->context, model, retry_ms, error);
}

void commit_turn(struct engine *engine)
{
    const struct recorder *recorder = engine->settings.recorder;
    if (recorder != NULL) {
        recorder->turn(recorder->context);
    }
}
