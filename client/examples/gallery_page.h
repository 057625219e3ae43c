/* gallery_page — gallery.html: both pictures and the numbers of every trail.
 *
 * One file that needs no other. No state; the main thread, for the console.
 */
#ifndef OPTIMD_EXAMPLES_GALLERY_PAGE_H
#define OPTIMD_EXAMPLES_GALLERY_PAGE_H

#include <stdbool.h>

#include "gallery_picture.h"

/* Write out/gallery.html, with out/contours.gif and out/saddle.gif inside it. False has
 * been told to the console. */
bool gallery_write_page(const struct gallery_trails *trails, const char *out);

#endif
