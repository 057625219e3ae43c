/* gallery_picture — the trails as moving pictures: contours.gif and saddle.gif.
 *
 * gnuplot draws the frames, as gallery.gp says, and ImageMagick makes films of them.
 * The main thread only, as drawing.h.
 */
#ifndef OPTIMD_EXAMPLES_GALLERY_PICTURE_H
#define OPTIMD_EXAMPLES_GALLERY_PICTURE_H

#include <stdbool.h>

#include "gallery_presets.h"
#include "gallery_trails.h"

/* A trail for each preset on each surface, in the order of the table. */
struct gallery_trails {
    struct gallery_trail of[GALLERY_FAMILIES_MAX][GALLERY_MEMBERS_MAX]
                           [GALLERY_SURFACES];
};

/* A picture is of one family on one surface; besides there is an overview of the saddle
 * with those that everybody knows. */
enum { GALLERY_NAME_MAX = 32 };
extern const char gallery_overview[]; /* "saddle-overview" */

/* "beale-1": the name of a picture without its ending. */
void gallery_picture_name(enum gallery_surface_name surface, size_t family,
                          char out[GALLERY_NAME_MAX]);

/* Draw them: of each picture a film, NAME.gif, and the film's last picture, NAME.png.
 *
 * script  gallery.gp, wherever it is
 * work    a folder for what is needed meanwhile
 * out     the folder where the pictures appear, if all of them were made
 * False has been told to the console. */
bool gallery_draw(const struct gallery_trails *trails, const char *script,
                  const char *work, const char *out);

#endif
