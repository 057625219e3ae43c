/* gallery_trails — where an optimizer goes on a surface, step by step.
 *
 * Every step is a worker's: pull the training view, compute the gradient there in
 * double, round it to float, push it. One thread at a time per client.
 */
#ifndef OPTIMD_EXAMPLES_GALLERY_TRAILS_H
#define OPTIMD_EXAMPLES_GALLERY_TRAILS_H

#include <stddef.h>

#include "client/optclient.h"
#include "gallery_surfaces.h"

enum { GALLERY_STEPS_MAX = 300 };

struct gallery_trail {
    size_t steps;                          /* updates done */
    float point[GALLERY_STEPS_MAX + 1][2]; /* after so many updates: the eval view */
    double value[GALLERY_STEPS_MAX + 1];   /* of the surface there */
    size_t reached; /* the first of them that is near the minimum; past steps: none */
};

/* Walk: create the model, do the surface's steps, delete the model.
 *
 * client         one that may push
 * model          its name, of nobody else's
 * specification  of the optimizer
 * On failure trail holds the steps so far, and optclient_error() says why. */
enum optclient_status gallery_walk(struct optclient *client, const char *model,
                                   const char *specification,
                                   const struct gallery_surface *surface,
                                   struct gallery_trail *trail);

#endif
