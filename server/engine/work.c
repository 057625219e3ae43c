/* work — see work.h. */
#include "server/engine/work.h"

#include <stddef.h>

#include "server/engine/state.h"
#include "server/model/model.h"

enum {
    AT_ONCE_COST = 1 << 18, /* of work that is done before the next letter */
    VISIT_COST = 32768      /* and while a loop works for the engine */
};

bool work_may_do(const struct engine *engine, uint64_t cost)
{
    return cost <= (engine->visited ? VISIT_COST : AT_ONCE_COST);
}

void work_done(struct engine *engine, uint64_t cost)
{
    engine->turn_cost += cost;
}

void work_settle(struct engine *engine, struct model *model)
{
    if (model->changing) {
        return;
    }
    model->changing = true;
    model->next_changed = NULL;
    if (engine->changed_first == NULL) {
        engine->changed_first = model;
    } else {
        engine->changed_last->next_changed = model;
    }
    engine->changed_last = model;
}

struct model *work_changed(struct engine *engine)
{
    struct model *model = engine->changed_first;
    if (model != NULL) {
        engine->changed_first = model->next_changed;
        model->changing = false;
    }
    return model;
}

void work_serve(struct engine *engine, struct letter *letter)
{
    letters_append(&engine->again, letter);
}

struct letter *work_letter(struct engine *engine)
{
    return letters_take(&engine->again);
}

void work_go_on(struct engine *engine, struct model *model)
{
    if (model->listed) {
        return;
    }
    model->listed = true;
    model->next_busy = NULL;
    if (engine->busy_first == NULL) {
        engine->busy_first = model;
    } else {
        engine->busy_last->next_busy = model;
    }
    engine->busy_last = model;
}

struct model *work_busy(struct engine *engine)
{
    struct model *model = engine->busy_first;
    if (model != NULL) {
        engine->busy_first = model->next_busy;
        model->listed = false;
    }
    return model;
}
