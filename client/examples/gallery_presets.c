/* gallery_presets — the table behind `make gallery`.
 *
 * Called by the rest of the gallery and by a test, which finds out if a rule or preset
 * is missing.
 *
 * The rates are as large as gives a trail that bends, swings or creeps as its rule
 * does, stays on the picture and gets somewhere in the steps it has. Rules whose step
 * follows the gradient's length (sgd, momentum, nag) need small ones, because Beale's
 * function and the valley start where it is above 100; those that divide by it take
 * about lr a step. radam's and ranger's first steps are momentum's, so a clip stands in
 * for a rate that would be too small later. What goes layer by layer takes steps of lr
 * times the distance from the origin, however flat the place is: only a schedule brings
 * it to rest.
 */
#include "gallery_presets.h"

#include <stdio.h>

/* clang-format off */
const struct gallery_family gallery_families[GALLERY_FAMILIES] = {
    /*                    Beale   valley  saddle */
    { "Gradient and momentum", {
        { "sgd",        { 0.01,  0.002, 0.05  }, GALLERY_NOTHING },
        { "momentum",   { 0.002, 0.002, 0.02  }, GALLERY_NOTHING },
        { "nag",        { 0.002, 0.002, 0.02  }, GALLERY_NOTHING } } },
    { "A rate for each weight", {
        { "adagrad",    { 0.7,   0.5,   0.2   }, GALLERY_NOTHING },
        { "rmsprop",    { 0.02,  0.02,  0.03  }, GALLERY_NOTHING },
        { "adadelta",   { 5,     3,     10    }, GALLERY_NOTHING } } },
    { "Adam", {
        { "adam",       { 0.2,   0.2,   0.05  }, GALLERY_NOTHING },
        { "adamw",      { 0.2,   0.2,   0.05  }, GALLERY_NOTHING },
        { "adamax",     { 0.4,   0.5,   0.1   }, GALLERY_NOTHING },
        { "nadam",      { 0.2,   0.2,   0.05  }, GALLERY_NOTHING } } },
    { "Adam, held back", {
        { "amsgrad",    { 0.05,  0.1,   0.01  }, GALLERY_NOTHING },
        { "radam",      { 0.1,   0.1,   0.2   }, GALLERY_CLIP },
        { "adabound",   { 0.05,  0.05,  0.02  }, GALLERY_NOTHING },
        { "amsbound",   { 0.2,   0.3,   0.05  }, GALLERY_NOTHING } } },
    { "Layer by layer", {
        { "lars",       { 0.02,  0.2,   0.1   }, GALLERY_COSINE },
        { "lars2017",   { 10,    10,    10    }, GALLERY_COSINE },
        { "lamb",       { 0.03,  0.2,   0.05  }, GALLERY_COSINE } } },
    { "Rectified, looking ahead", {
        { "ranger",     { 0.2,   0.2,   0.3   }, GALLERY_CLIP },
        { "ralamb",     { 0.03,  0.3,   0.05  }, GALLERY_COSINE },
        { "rangerlars", { 0.1,   0.5,   0.1   }, GALLERY_COSINE } } },
};
/* clang-format on */

void gallery_preset_print(const struct gallery_preset *preset,
                          enum gallery_surface_name surface,
                          char out[GALLERY_SPECIFICATION_MAX])
{
    char addition[GALLERY_SPECIFICATION_MAX / 2] = "";
    if (preset->addition == GALLERY_COSINE) {
        snprintf(addition, sizeof addition, " + cosine(%zu)",
                 gallery_surfaces[surface].steps);
    } else if (preset->addition == GALLERY_CLIP) {
        snprintf(addition, sizeof addition, " + clip(global_norm, 1)");
    }
    snprintf(out, GALLERY_SPECIFICATION_MAX, "%s(lr=%g)%s", preset->name,
             preset->lr[surface], addition);
}
