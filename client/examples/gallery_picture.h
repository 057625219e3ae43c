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
    struct gallery_trail of[GALLERY_FAMILIES][GALLERY_MEMBERS_MAX][GALLERY_SURFACES];
};

/* Draw them.
 *
 * script  gallery.gp, wherever it is
 * work    a folder for what is needed meanwhile
 * out     the folder where the pictures appear, whole, if all went well
 * False has been told to the console. */
bool gallery_draw(const struct gallery_trails *trails, const char *script,
                  const char *work, const char *out);

#endif
