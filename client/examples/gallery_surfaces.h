/* gallery_surfaces — functions of two variables that optimizers are watched on.
 *
 * One table; no state, any thread.
 */
#ifndef OPTIMD_EXAMPLES_GALLERY_SURFACES_H
#define OPTIMD_EXAMPLES_GALLERY_SURFACES_H

#include <stddef.h>

enum gallery_surface_name {
    GALLERY_BEALE,
    GALLERY_VALLEY,
    GALLERY_SADDLE,
    GALLERY_SURFACES
};

struct gallery_surface {
    const char *name;    /* "beale": of files and models */
    const char *title;   /* for people */
    const char *formula; /* likewise */
    float start[2];
    double minimum[2];     /* one of them, where f is least */
    double least;          /* f there */
    double from[2], to[2]; /* the part that is drawn: x and y */
    size_t grid;           /* into how many parts each is divided for drawing */
    size_t steps;          /* updates that each optimizer gets */
    double near;           /* "there": f - least is below this */
    double (*value)(double x, double y);
    void (*gradient)(double x, double y, double out[2]);
};

extern const struct gallery_surface gallery_surfaces[GALLERY_SURFACES];

#endif
