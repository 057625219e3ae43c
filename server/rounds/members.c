/* members — see members.h. */
#include "server/rounds/members.h"

#include <stdlib.h>
#include <string.h>

#include "server/base/team.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/push.h"
#include "server/workers/worker.h"

/* Where in the model's members the name is or would be. */
static size_t place_of(const struct model *model, const char *name)
{
    size_t low = 0, high = model->member_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(model->members[middle]->worker->name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct member *members_of(const struct model *model, const struct peer *peer)
{
    if (peer->worker == NULL) {
        return NULL;
    }
    size_t place = place_of(model, peer->worker->name);
    if (place < model->member_count && model->members[place]->worker == peer->worker) {
        return model->members[place];
    }
    return NULL;
}

static bool make_room(struct model *model)
{
    if (model->member_count < model->member_capacity) {
        return true;
    }
    size_t capacity = model->member_capacity == 0 ? 8 : model->member_capacity * 2;
    struct member **members =
        realloc(model->members, capacity * sizeof(struct member *));
    if (members == NULL) {
        return false;
    }
    model->members = members;
    size_t pushes = capacity * push_reserved(model);
    struct push **round = realloc(model->round, pushes * sizeof(struct push *));
    if (round == NULL) {
        return false;
    }
    model->round = round;
    const struct gradient **gradients =
        realloc(model->gradients, pushes * sizeof(struct gradient *));
    if (gradients == NULL) {
        return false;
    }
    model->gradients = gradients;
    model->member_capacity = capacity;
    return true;
}

struct member *members_add(struct engine *engine, struct model *model,
                           struct worker *worker)
{
    size_t pushes = (model->member_count + 1) * push_reserved(model);
    if (!make_room(model) || !team_reserve(engine->team, pushes)) {
        return NULL;
    }
    struct member *member = calloc(1, sizeof *member);
    if (member == NULL) {
        return NULL;
    }
    member->model = model;
    member->worker = worker;
    member->since = worker->incarnation;
    member->next_of_worker = worker->members;
    worker->members = member;
    size_t place = place_of(model, worker->name);
    memmove(model->members + place + 1, model->members + place,
            (model->member_count - place) * sizeof(struct member *));
    model->members[place] = member;
    model->member_count++;
    return member;
}

void members_remove(struct member *member)
{
    struct model *model = member->model;
    size_t place = place_of(model, member->worker->name);
    model->member_count--;
    memmove(model->members + place, model->members + place + 1,
            (model->member_count - place) * sizeof(struct member *));
    struct member **link = &member->worker->members;
    while (*link != member) {
        link = &(*link)->next_of_worker;
    }
    *link = member->next_of_worker;
    free(member);
}
