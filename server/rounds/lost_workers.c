/* lost_workers — see lost_workers.h. */
#include "server/rounds/lost_workers.h"

#include <stdlib.h>
#include <string.h>

#include "server/base/letter.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/workers/worker.h"

void lost_workers_note(struct model *model, const char *name)
{
    char **place = &model->losses.names[model->losses.count % LOSSES_KEPT];
    free(*place);
    *place = strdup(name);
    model->losses.count++;
}

void lost_workers_free(struct model *model)
{
    for (size_t i = 0; i < LOSSES_KEPT; i++) {
        free(model->losses.names[i]);
    }
}

struct opt_lost lost_workers_tell(const struct model *model, struct member *member,
                                  struct letter *letter)
{
    const struct lost_workers *losses = &model->losses;
    struct opt_lost none = { 0 };
    if (member == NULL || member->told == losses->count) {
        return none;
    }
    const char **names = opt_arena_alloc(&letter->arena, OPT_LOST_MAX * sizeof *names);
    if (names == NULL) {
        return none;
    }
    if (losses->count - member->told > LOSSES_KEPT) {
        member->told = losses->count - LOSSES_KEPT;
    }
    size_t count = 0;
    while (member->told < losses->count && count < OPT_LOST_MAX) {
        const char *name = losses->names[member->told % LOSSES_KEPT];
        if (name != NULL && strcmp(name, member->worker->name) != 0) {
            names[count++] = letter_text(letter, name);
        }
        member->told++;
    }
    return (struct opt_lost){ .names = names, .count = count };
}
