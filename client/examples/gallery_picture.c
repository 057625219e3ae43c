/* gallery_picture — numbers for gnuplot, and what is made of them.
 *
 * Called by gallery.c.
 */
#include "gallery_picture.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "drawing.h"
#include "folder.h"

enum { FRAMES = 32, DRAWING_MS = 300000, PATH = FOLDER_PATH_MAX + 64 };

/* Of a GIF, in hundredths of a second. */
#define FRAME_TIME "11"
#define HOLD_TIME "300"

const char gallery_overview[] = "saddle-overview";

/* Those of the well-known picture, and adam. */
static const char overview_members[] = "sgd momentum nag adagrad adadelta rmsprop adam";

void gallery_picture_name(enum gallery_surface_name surface, size_t family,
                          char out[GALLERY_NAME_MAX])
{
    snprintf(out, GALLERY_NAME_MAX, "%s-%zu", gallery_surfaces[surface].name,
             family + 1);
}

/* ---------------------------------------------------------------- numbers */

/* Finishes a file that was written: whether all of it is there. */
static bool close_written(FILE *file, const char *path)
{
    bool ok = !ferror(file);
    ok = fclose(file) == 0 && ok;
    return ok || console_fail("cannot write %s: %s", path, strerror(errno));
}

static FILE *create(const char *work, const char *name, const char *more,
                    char path[PATH])
{
    snprintf(path, PATH, "%s/%s%s", work, name, more);
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        console_fail("cannot write %s: %s", path, strerror(errno));
    }
    return file;
}

static bool write_trail(const char *work, const struct gallery_surface *surface,
                        const char *preset, const struct gallery_trail *trail)
{
    char more[64], path[PATH];
    snprintf(more, sizeof more, "-%s.dat", preset);
    FILE *file = create(work, surface->name, more, path);
    if (file == NULL) {
        return false;
    }
    for (size_t step = 0; step <= trail->steps; step++) {
        fprintf(file, "%zu %.9g %.9g %.9g\n", step, (double)trail->point[step][0],
                (double)trail->point[step][1], trail->value[step]);
    }
    return close_written(file, path);
}

/* x y f, and how dark: the logarithm, which is not to be infinite at the minimum. */
static bool write_grid(const char *work, const struct gallery_surface *surface)
{
    char path[PATH];
    FILE *file = create(work, surface->name, ".grid", path);
    if (file == NULL) {
        return false;
    }
    for (size_t row = 0; row <= surface->grid; row++) {
        for (size_t column = 0; column <= surface->grid; column++) {
            double part[2] = { (double)column / (double)surface->grid,
                               (double)row / (double)surface->grid };
            double x = surface->from[0] + (surface->to[0] - surface->from[0]) * part[0];
            double y = surface->from[1] + (surface->to[1] - surface->from[1]) * part[1];
            double f = surface->value(x, y);
            fprintf(file, "%.6g %.6g %.6g %.6g\n", x, y, f,
                    log10(f - surface->least + 1e-9));
        }
        fputc('\n', file);
    }
    return close_written(file, path);
}

/* What the script has to know of the tables. */
static bool write_definitions(const char *work)
{
    char path[PATH];
    FILE *file = create(work, "gallery-data.gp", "", path);
    if (file == NULL) {
        return false;
    }
    size_t families;
    const struct gallery_family *family = gallery_families(&families);
    fprintf(file,
            "frames = %d\nfamilies = %zu\noverview = \"%s\"\n"
            "overview_members = \"%s\"\n"
            "array family[%zu]\narray members[%zu]\n",
            FRAMES, families, gallery_overview, overview_members, families, families);
    for (size_t f = 0; f < families; f++) {
        fprintf(file, "family[%zu] = \"%s\"\nmembers[%zu] = \"", f + 1, family[f].title,
                f + 1);
        for (size_t m = 0; m < GALLERY_MEMBERS_MAX && family[f].members[m].name != NULL;
             m++) {
            fprintf(file, "%s%s", m > 0 ? " " : "", family[f].members[m].name);
        }
        fputs("\"\n", file);
    }
    for (size_t s = 0; s < GALLERY_SURFACES; s++) {
        const struct gallery_surface *surface = &gallery_surfaces[s];
        const char *name = surface->name;
        fprintf(file,
                "%s_title = \"%s\"\n%s_formula = \"%s\"\n%s_steps = %zu\n"
                "%s_x0 = %.9g\n%s_x1 = %.9g\n%s_y0 = %.9g\n%s_y1 = %.9g\n"
                "%s_minimum_x = %.9g\n%s_minimum_y = %.9g\n",
                name, surface->title, name, surface->formula, name, surface->steps,
                name, surface->from[0], name, surface->to[0], name, surface->from[1],
                name, surface->to[1], name, surface->minimum[0], name,
                surface->minimum[1]);
    }
    return close_written(file, path);
}

static bool write_trails(const struct gallery_trails *trails, const char *work,
                         enum gallery_surface_name s)
{
    size_t families;
    const struct gallery_family *family = gallery_families(&families);
    for (size_t f = 0; f < families; f++) {
        const struct gallery_preset *members = family[f].members;
        for (size_t m = 0; m < GALLERY_MEMBERS_MAX && members[m].name != NULL; m++) {
            if (!write_trail(work, &gallery_surfaces[s], members[m].name,
                             &trails->of[f][m][s])) {
                return false;
            }
        }
    }
    return true;
}

static bool write_numbers(const struct gallery_trails *trails, const char *work)
{
    for (size_t s = 0; s < GALLERY_SURFACES; s++) {
        if (!write_grid(work, &gallery_surfaces[s]) ||
            !write_trails(trails, work, (enum gallery_surface_name)s)) {
            return false;
        }
    }
    return write_definitions(work);
}

/* ---------------------------------------------------------------- pictures */

/* Frames to a film that repeats and stays with its last picture for a while, which is
 * kept besides. All have the last one's colours, so that what does not move is the same
 * in all and takes no room. */
static bool make_film(const char *work, const char *name)
{
    char frames[64], last[64], still[64], film[64], why[PATH + 64];
    snprintf(frames, sizeof frames, "%s-[0-9][0-9][0-9].png", name);
    snprintf(last, sizeof last, "%s-%03d.png", name, FRAMES);
    snprintf(still, sizeof still, "PNG8:%s.png", name);
    snprintf(film, sizeof film, "%s.gif", name);
    /* clang-format off */
    const char *const argv[] = {
        "convert", "+dither", last, "-colors", "64", "-write", "mpr:colours",
        "-write", still, "+delete", "-loop", "0", "-delay", FRAME_TIME, frames, "-delay", HOLD_TIME, last,
        "-remap", "mpr:colours", "-layers", "OptimizeTransparency", film, NULL
    };
    /* clang-format on */
    return drawing_run(work, argv, "imagemagick", DRAWING_MS, why, sizeof why) ||
           console_fail("%s is not drawn: %s", film, why);
}

/* Let film and still appear where they are looked for. */
static bool publish(const char *work, const char *out, const char *name)
{
    static const char *const endings[] = { "gif", "png" };
    for (size_t i = 0; i < 2; i++) {
        char from[PATH], to[PATH];
        snprintf(from, sizeof from, "%s/%s.%s", work, name, endings[i]);
        snprintf(to, sizeof to, "%s/%s.%s", out, name, endings[i]);
        if (rename(from, to) != 0) {
            return console_fail("cannot write %s: %s", to, strerror(errno));
        }
    }
    return true;
}

/* Number i of the pictures; false if there are not so many. */
static bool name_picture(size_t i, char name[GALLERY_NAME_MAX])
{
    size_t families;
    gallery_families(&families);
    if (i == 0) {
        snprintf(name, GALLERY_NAME_MAX, "%s", gallery_overview);
    } else if (i <= families * GALLERY_SURFACES) {
        gallery_picture_name((enum gallery_surface_name)((i - 1) / families),
                             (i - 1) % families, name);
    }
    return i <= families * GALLERY_SURFACES;
}

bool gallery_draw(const struct gallery_trails *trails, const char *script,
                  const char *work, const char *out)
{
    /* gnuplot runs in another folder. */
    char *path = realpath(script, NULL), why[PATH + 64];
    if (path == NULL) {
        return console_fail("cannot read %s: %s", script, strerror(errno));
    }
    const char *const gnuplot[] = { "gnuplot", path, NULL };
    bool ok = write_numbers(trails, work) &&
              (drawing_run(work, gnuplot, "gnuplot-nox", DRAWING_MS, why, sizeof why) ||
               console_fail("the frames are not drawn: %s", why));
    free(path);
    char name[GALLERY_NAME_MAX];
    for (size_t i = 0; ok && name_picture(i, name); i++) {
        ok = make_film(work, name);
    }
    for (size_t i = 0; ok && name_picture(i, name); i++) {
        ok = publish(work, out, name);
    }
    return ok;
}
