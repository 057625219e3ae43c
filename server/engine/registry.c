/* registry — see registry.h. */
#include "server/engine/registry.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/access/access.h"
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"

/* Where in the ascending numbers this one is or would be. */
static size_t place_of(const struct engine *engine, uint32_t number)
{
    size_t low = 0, high = engine->model_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (engine->numbered[middle]->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct model *registry_numbered(const struct engine *engine, uint32_t number)
{
    size_t place = place_of(engine, number);
    return place < engine->model_count && engine->numbered[place]->number == number
               ? engine->numbered[place]
               : NULL;
}

bool registry_allows(struct engine *engine, struct letter *letter, const char *name)
{
    struct opt_error error;
    if (access_model_check(&letter->peer->visitor, name, &error) == OPT_OK) {
        return true;
    }
    answer_refuse(engine, letter, &error);
    return false;
}

struct model *registry_model(struct engine *engine, struct letter *letter,
                             uint32_t number)
{
    struct model *model = registry_numbered(engine, number);
    if (model != NULL) {
        return registry_allows(engine, letter, model->name) ? model : NULL;
    }
    answer_fail(engine, letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                "there is no model with the number %" PRIu32
                "; numbers come with the answer to create and open, and end with the "
                "model or the daemon",
                number);
    return NULL;
}

struct model *registry_named(struct engine *engine, struct letter *letter,
                             const char *name)
{
    if (!registry_allows(engine, letter, name)) {
        return NULL;
    }
    struct model *model = names_find(&engine->models, name);
    if (model != NULL) {
        return model;
    }
    size_t steps;
    const char *nearest = names_nearest(&engine->models, name, &steps);
    work_done(engine, steps);
    if (!access_all_models(&letter->peer->visitor)) {
        /* What else there is, and how much of it, is not for everybody. */
        answer_fail(engine, letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                    "there is no model \"%s\"", name);
    } else if (engine->model_count == 0) {
        answer_fail(engine, letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                    "there is no model \"%s\", nor any other", name);
    } else if (nearest == NULL) {
        answer_fail(engine, letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                    "there is no model \"%s\", nor one of the %zu with a name like it",
                    name, engine->model_count);
    } else {
        answer_fail(engine, letter, OPT_NOT_FOUND, OPT_DETAIL_NO_MODEL,
                    "there is no model \"%s\"; the nearest of %zu is \"%s\"", name,
                    engine->model_count, nearest);
    }
    return NULL;
}

bool registry_add(struct engine *engine, struct model *model)
{
    if (engine->model_count == engine->model_capacity) {
        size_t capacity = engine->model_capacity == 0 ? 16 : engine->model_capacity * 2;
        struct model **numbered =
            realloc(engine->numbered, capacity * sizeof(struct model *));
        if (numbered == NULL) {
            return false;
        }
        engine->numbered = numbered;
        engine->model_capacity = capacity;
    }
    if (engine->last_number == UINT32_MAX ||
        !names_add(&engine->models, model->name, model)) {
        return false;
    }
    model->number = ++engine->last_number;
    engine->numbered[engine->model_count++] = model;
    return true;
}

void registry_remove(struct engine *engine, struct model *model)
{
    size_t place = place_of(engine, model->number);
    engine->model_count--;
    memmove(engine->numbered + place, engine->numbered + place + 1,
            (engine->model_count - place) * sizeof(struct model *));
    names_remove(&engine->models, model->name);
}
