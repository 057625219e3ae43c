/* gallery_trails — a worker whose model is a point on a surface.
 *
 * Called by gallery.c and by tests.
 */
#include "gallery_trails.h"

#include <assert.h>
#include <stdint.h>

/* The answer so far, which is what a trail shows: for Lookahead the slow weights. */
static enum optclient_status note(struct optclient_model *model,
                                  const struct gallery_surface *surface, size_t step,
                                  struct gallery_trail *trail)
{
    const struct optclient_values answer = { .values = trail->point[step] };
    const struct optclient_pull_options eval = { .view = OPTCLIENT_EVAL };
    enum optclient_status status = optclient_pull(model, &answer, 1, &eval, NULL);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    trail->steps = step;
    trail->value[step] =
        surface->value((double)trail->point[step][0], (double)trail->point[step][1]);
    if (trail->reached > step && trail->value[step] - surface->least < surface->near) {
        trail->reached = step;
    }
    return OPTCLIENT_OK;
}

static enum optclient_status walk(struct optclient_model *model,
                                  const struct gallery_surface *surface,
                                  struct gallery_trail *trail)
{
    float point[2], gradient[2];
    const struct optclient_values weights = { .values = point },
                                  gradients = { .values = gradient };
    enum optclient_status status = note(model, surface, 0, trail);
    if (status == OPTCLIENT_OK) {
        status = optclient_pull(model, &weights, 1, NULL, NULL);
    }
    for (size_t step = 1; status == OPTCLIENT_OK && step <= surface->steps; step++) {
        double exact[2];
        surface->gradient((double)point[0], (double)point[1], exact);
        gradient[0] = (float)exact[0];
        gradient[1] = (float)exact[1];
        status =
            optclient_push_pull(model, &gradients, 1, NULL, &weights, 1, NULL, NULL);
        if (status == OPTCLIENT_OK) {
            status = note(model, surface, step, trail);
        }
    }
    return status;
}

enum optclient_status gallery_walk(struct optclient *client, const char *model,
                                   const char *specification,
                                   const struct gallery_surface *surface,
                                   struct gallery_trail *trail)
{
    const struct optclient_tensor point = { .name = "x",
                                            .shape = (const uint64_t[]){ 2 },
                                            .rank = 1 };
    assert(surface->steps <= GALLERY_STEPS_MAX);
    const float *start = surface->start;
    struct optclient_model *opened;
    *trail = (struct gallery_trail){ .reached = SIZE_MAX };
    enum optclient_status status = optclient_create(client, model, specification, NULL,
                                                    &point, 1, &start, &opened);
    if (status != OPTCLIENT_OK) {
        return status;
    }
    status = walk(opened, surface, trail);
    if (status == OPTCLIENT_OK) {
        optclient_model_close(opened);
        return optclient_delete(client, model);
    }
    /* Closing would take the place of the sentence that matters; the client does it. */
    return status;
}
