/* gallery_presets — with which learning rate each optimizer goes on each surface.
 *
 * One table of rates, for `make gallery`. The main thread only.
 */
#ifndef OPTIMD_EXAMPLES_GALLERY_PRESETS_H
#define OPTIMD_EXAMPLES_GALLERY_PRESETS_H

#include <stddef.h>

#include "gallery_surfaces.h"

enum {
    GALLERY_FAMILIES_MAX = 16,
    GALLERY_MEMBERS_MAX = 4,
    GALLERY_SPECIFICATION_MAX = 96
};

/* What the rule needs besides. */
enum gallery_addition {
    GALLERY_NOTHING,
    GALLERY_COSINE, /* its steps would not get shorter by themselves */
    GALLERY_CLIP    /* its first steps would be as long as the gradient */
};

struct gallery_preset {
    const char *name;            /* of a rule or preset; NULL: the family has no more */
    double lr[GALLERY_SURFACES]; /* on each surface */
    enum gallery_addition addition;
};

/* Those that are shown in one panel. */
struct gallery_family {
    const char *title;
    struct gallery_preset members[GALLERY_MEMBERS_MAX];
};

/* All rules and presets (optimizers.h), each in one family; *count. Those that the
 * table has no rates for come last, with rates that suit most. */
const struct gallery_family *gallery_families(size_t *count);

/* "adam(lr=0.1)", "lars(lr=0.1) + cosine(300)". */
void gallery_preset_print(const struct gallery_preset *preset,
                          enum gallery_surface_name surface,
                          char out[GALLERY_SPECIFICATION_MAX]);

#endif
