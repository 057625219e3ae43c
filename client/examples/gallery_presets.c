/* gallery_presets — the rates behind `make gallery`.
 *
 * Called by the rest of the gallery and by its tests.
 *
 * The rates are as large as gives a trail that bends, swings or creeps as its rule
 * does, stays on the picture and gets somewhere in the steps it has. Rules whose step
 * follows the gradient's length (sgd, momentum, nag) need small ones, because Beale's
 * function and the valley start where it is above 100; those that divide by it take
 * about lr a step. radam's and ranger's first steps are momentum's, so a clip stands in
 * for a rate that would be too small later. What goes layer by layer takes steps of lr
 * times the distance from the origin, however flat the place is: only a schedule brings
 * it to rest.
 *
 * On the saddle they start on the ridge, and the rates are those with which one sees
 * how each gets off it: sgd's is small enough to find it still there in the end, and
 * what divides by the gradient's length in each direction has left after a quarter.
 */
#include "gallery_presets.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "optimizers.h"

/* clang-format off */
static const struct gallery_family table[] = {
    /*                    Beale   valley  saddle */
    { "Gradient and momentum", {
        { "sgd",        { 0.01,  0.002, 0.02  }, GALLERY_NOTHING },
        { "momentum",   { 0.002, 0.002, 0.02  }, GALLERY_NOTHING },
        { "nag",        { 0.002, 0.002, 0.02  }, GALLERY_NOTHING } } },
    { "A rate for each weight", {
        { "adagrad",    { 0.7,   0.5,   0.2   }, GALLERY_NOTHING },
        { "rmsprop",    { 0.02,  0.02,  0.03  }, GALLERY_NOTHING },
        { "adadelta",   { 5,     3,     10    }, GALLERY_NOTHING },
        { "lion",       { 0.03,  0.03,  0.05  }, GALLERY_COSINE } } },
    { "Adam", {
        { "adam",       { 0.2,   0.2,   0.05  }, GALLERY_NOTHING },
        { "adamw",      { 0.2,   0.2,   0.05  }, GALLERY_NOTHING },
        { "adamax",     { 0.4,   0.5,   0.1   }, GALLERY_NOTHING },
        { "nadam",      { 0.2,   0.2,   0.05  }, GALLERY_NOTHING } } },
    { "Adam, held back", {
        { "amsgrad",    { 0.05,  0.1,   0.01  }, GALLERY_NOTHING },
        { "radam",      { 0.1,   0.1,   0.3   }, GALLERY_CLIP },
        { "adabound",   { 0.05,  0.05,  0.02  }, GALLERY_NOTHING },
        { "amsbound",   { 0.2,   0.3,   0.05  }, GALLERY_NOTHING } } },
    { "Layer by layer", {
        { "lars",       { 0.02,  0.2,   0.1   }, GALLERY_COSINE },
        { "lars2017",   { 10,    10,    10    }, GALLERY_COSINE },
        { "lamb",       { 0.03,  0.2,   0.05  }, GALLERY_COSINE } } },
    { "Rectified, looking ahead", {
        { "ranger",     { 0.2,   0.2,   0.6   }, GALLERY_CLIP },
        { "ralamb",     { 0.03,  0.3,   0.05  }, GALLERY_COSINE },
        { "rangerlars", { 0.1,   0.5,   0.1   }, GALLERY_COSINE } } },
};
/* clang-format on */

enum { TABLE = sizeof table / sizeof table[0] };

/* Steps of about lr that get shorter by themselves. */
static const struct gallery_preset usual = { NULL,
                                             { 0.03, 0.03, 0.03 },
                                             GALLERY_COSINE };

static bool has_rates(const char *name)
{
    for (size_t f = 0; f < TABLE; f++) {
        const struct gallery_preset *members = table[f].members;
        for (size_t m = 0; m < GALLERY_MEMBERS_MAX && members[m].name != NULL; m++) {
            if (strcmp(members[m].name, name) == 0) {
                return true;
            }
        }
    }
    return false;
}

const struct gallery_family *gallery_families(size_t *count)
{
    static struct gallery_family families[GALLERY_FAMILIES_MAX];
    static_assert((int)TABLE <= (int)GALLERY_FAMILIES_MAX, "families");
    size_t full = TABLE, members = 0;
    memcpy(families, table, sizeof table);
    for (size_t i = 0; i < optimizers_count(); i++) {
        if (has_rates(optimizers_name(i))) {
            continue;
        }
        assert(full < GALLERY_FAMILIES_MAX);
        families[full].title = "And besides";
        families[full].members[members] = usual;
        families[full].members[members++].name = optimizers_name(i);
        full += members == GALLERY_MEMBERS_MAX;
        members %= GALLERY_MEMBERS_MAX;
    }
    *count = full + (members > 0);
    return families;
}

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
