/* losses — see losses.h. */
#include "server/engine/losses.h"

#include <stdlib.h>
#include <string.h>

#include "server/engine/members.h"
#include "server/engine/model.h"
#include "server/engine/worker.h"
#include "server/letter.h"

void losses_note(struct model *model, const char *name)
{
    char **place = &model->losses.names[model->losses.count % LOSSES_KEPT];
    free(*place);
    *place = strdup(name);
    model->losses.count++;
}

void losses_free(struct model *model)
{
    for (size_t i = 0; i < LOSSES_KEPT; i++) {
        free(model->losses.names[i]);
    }
}

struct opt_lost losses_tell(const struct model *model, struct member *member,
                            struct letter *letter)
{
    const struct losses *losses = &model->losses;
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
