/* gallery_page — HTML by hand: a heading, a picture and tables for each.
 *
 * Called by gallery.c. The texts are the program's own and hold nothing that HTML would
 * take for its own.
 */
#include "gallery_page.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "console.h"
#include "folder.h"
#include "optimizers.h"

enum { PATH = FOLDER_PATH_MAX + 64 };

static const char style[] =
    "<style>\n"
    ":root { color-scheme: light dark; --ink: #222b33; --soft: #5b6975;\n"
    "  --paper: #ffffff; --line: #d5dce3; --mark: #0072b2 }\n"
    "@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9dabb8;\n"
    "  --paper: #14191e; --line: #333d47; --mark: #56b4e9 } }\n"
    "body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink);\n"
    "  background: var(--paper); max-width: 1140px; margin: 2em auto; padding: 0 1em "
    "}\n"
    "h1, h2 { line-height: 1.2 }\n"
    "h1 { border-left: 6px solid var(--mark); padding-left: 0.5em }\n"
    "h2 { margin-top: 2em }\n"
    "p { color: var(--soft); max-width: 50em }\n"
    "p b { color: var(--ink) }\n"
    "figure { margin: 0 }\n"
    "img { display: block; width: 100%; height: auto; background: #ffffff;\n"
    "  border-radius: 6px; border: 1px solid var(--line); box-sizing: border-box }\n"
    ".lead { display: flex; flex-wrap: wrap; gap: 0 2em; align-items: center }\n"
    ".lead figure { flex: 1 1 480px; max-width: 640px }\n"
    ".lead div { flex: 1 1 300px }\n"
    ".panels { display: grid; gap: 1em; margin: 1em 0;\n"
    "  grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)) }\n"
    ".table { overflow-x: auto; max-width: 44em }\n"
    "table { border-collapse: collapse; width: 100%; font-size: 14px }\n"
    "th, td { text-align: left; padding: 0.2em 0.8em 0.2em 0;\n"
    "  border-bottom: 1px solid var(--line) }\n"
    "th { color: var(--soft); font-weight: 600 }\n"
    "td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }\n"
    "tr.first td { border-top: 2px solid var(--soft) }\n"
    "code { font-size: 13px }\n"
    "</style>\n";

static const char introduction[] =
    "<p>Each trail is a model of two weights in a live optimd: a worker pulls them,\n"
    "computes the gradient of the surface there and pushes it, and the daemon takes\n"
    "the step. A trail shows the answer so far, which is the slow weights where there\n"
    "are any. The asterisk is the minimum; the learning rates were chosen so that\n"
    "there is something to see, not to win.</p>\n";

static const char saddle_story[] =
    "<div><p>All start on the ridge, a millionth beside its line.</p>\n"
    "<p><b>sgd</b> follows the slope down to the saddle and stays: across the ridge\n"
    "there is next to none.</p>\n"
    "<p><b>momentum</b> and <b>nag</b> swing along the ridge, gather speed across it\n"
    "meanwhile, and leave.</p>\n"
    "<p><b>Rules with a rate for each weight</b> divide by how large the slope is in\n"
    "each direction, and leave at once. So do those that are made of them; lars, "
    "which\n"
    "has one rate for the whole layer, stays with sgd.</p></div>\n";

/* ---------------------------------------------------------------- pictures */

/* RFC 4648. */
static void write_base64(FILE *to, FILE *from)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char in[3];
    for (size_t n; (n = fread(in, 1, sizeof in, from)) > 0;) {
        uint32_t bits = (uint32_t)in[0] << 16 | (n > 1 ? (uint32_t)in[1] << 8 : 0) |
                        (n > 2 ? in[2] : 0);
        fputc(digits[bits >> 18], to);
        fputc(digits[bits >> 12 & 63], to);
        fputc(n > 1 ? digits[bits >> 6 & 63] : '=', to);
        fputc(n > 2 ? digits[bits & 63] : '=', to);
    }
}

static bool write_file(FILE *page, const char *out, const char *name,
                       const char *ending)
{
    char path[PATH];
    snprintf(path, sizeof path, "%s/%s.%s", out, name, ending);
    FILE *picture = fopen(path, "rb");
    if (picture == NULL) {
        return console_fail("cannot read %s: %s", path, strerror(errno));
    }
    write_base64(page, picture);
    bool ok = !ferror(picture);
    fclose(picture);
    return ok || console_fail("cannot read %s", path);
}

/* Who wants no motion gets the last picture. */
static bool write_picture(FILE *page, const char *out, const char *name,
                          const char *description)
{
    fputs("<figure><picture><source media=\"(prefers-reduced-motion: reduce)\" "
          "srcset=\"data:image/png;base64,",
          page);
    bool ok = write_file(page, out, name, "png");
    fprintf(page, "\"><img alt=\"%s\" src=\"data:image/gif;base64,", description);
    ok = ok && write_file(page, out, name, "gif");
    fputs("\"></picture></figure>\n", page);
    return ok;
}

/* "Trails of adam, adamw, adamax, nadam over Beale's function" */
static bool write_panel(FILE *page, const char *out, enum gallery_surface_name surface,
                        const struct gallery_family *family, size_t number)
{
    char name[GALLERY_NAME_MAX], description[256] = "Trails of ";
    size_t length = strlen(description);
    for (size_t m = 0; m < GALLERY_MEMBERS_MAX && family->members[m].name != NULL;
         m++) {
        length += (size_t)snprintf(description + length, sizeof description - length,
                                   "%s%s", m > 0 ? ", " : "", family->members[m].name);
    }
    snprintf(description + length, sizeof description - length, " over %s",
             gallery_surfaces[surface].name);
    gallery_picture_name(surface, number, name);
    return write_picture(page, out, name, description);
}

/* ---------------------------------------------------------------- tables */

static void write_row(FILE *page, const struct gallery_preset *preset,
                      enum gallery_surface_name name, bool first,
                      const struct gallery_trail *trail)
{
    const struct gallery_surface *surface = &gallery_surfaces[name];
    char specification[GALLERY_SPECIFICATION_MAX], reached[24] = "–";
    gallery_preset_print(preset, name, specification);
    if (trail->reached <= trail->steps) {
        snprintf(reached, sizeof reached, "%zu", trail->reached);
    }
    fprintf(page,
            "<tr%s><td>%s<td><code>%s</code><td class=\"number\">%.1e"
            "<td class=\"number\">%s\n",
            first ? " class=\"first\"" : "", preset->name, specification,
            trail->value[trail->steps] - surface->least, reached);
}

static void write_table(FILE *page, const struct gallery_trails *trails,
                        enum gallery_surface_name name)
{
    size_t families;
    const struct gallery_family *family = gallery_families(&families);
    fprintf(page,
            "<div class=\"table\"><table>\n<tr><th>optimizer<th>specification"
            "<th class=\"number\">above the minimum"
            "<th class=\"number\">steps to %g\n",
            gallery_surfaces[name].near);
    for (size_t f = 0; f < families; f++) {
        const struct gallery_preset *members = family[f].members;
        for (size_t m = 0; m < GALLERY_MEMBERS_MAX && members[m].name != NULL; m++) {
            write_row(page, &members[m], name, m == 0, &trails->of[f][m][name]);
        }
    }
    fputs("</table></div>\n", page);
}

/* ---------------------------------------------------------------- the page */

static bool write_surface(FILE *page, const struct gallery_trails *trails,
                          const char *out, enum gallery_surface_name name)
{
    const struct gallery_surface *surface = &gallery_surfaces[name];
    size_t families;
    const struct gallery_family *family = gallery_families(&families);
    fprintf(page, "<h2>%s</h2>\n<p>%s; %zu steps from (%.3g, %.3g)</p>\n",
            surface->title, surface->formula, surface->steps, (double)surface->start[0],
            (double)surface->start[1]);
    bool ok = true;
    if (name == GALLERY_SADDLE) {
        fputs("<div class=\"lead\">", page);
        ok = write_picture(page, out, gallery_overview,
                           "On a saddle: sgd ends on the ridge, momentum and nag swing "
                           "and then leave, adagrad, adadelta, rmsprop and adam leave "
                           "at once");
        fprintf(page, "%s</div>\n", saddle_story);
    }
    fputs("<div class=\"panels\">\n", page);
    for (size_t f = 0; ok && f < families; f++) {
        ok = write_panel(page, out, name, &family[f], f);
    }
    fputs("</div>\n", page);
    write_table(page, trails, name);
    return ok;
}

static bool write_all(FILE *page, const struct gallery_trails *trails, const char *out)
{
    static const enum gallery_surface_name order[] = { GALLERY_SADDLE, GALLERY_BEALE,
                                                       GALLERY_VALLEY };
    static_assert(sizeof order / sizeof order[0] == GALLERY_SURFACES, "all surfaces");
    fprintf(page,
            "<!DOCTYPE html>\n"
            "<html lang=\"en\">\n"
            "<meta charset=\"utf-8\">\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
            "<title>optimd: %zu optimizers at work</title>\n"
            "%s<h1>%zu optimizers at work</h1>\n%s",
            optimizers_count(), style, optimizers_count(), introduction);
    bool ok = true;
    for (size_t i = 0; ok && i < GALLERY_SURFACES; i++) {
        ok = write_surface(page, trails, out, order[i]);
    }
    return ok;
}

bool gallery_write_page(const struct gallery_trails *trails, const char *out)
{
    char path[PATH];
    snprintf(path, sizeof path, "%s/gallery.html", out);
    FILE *page = fopen(path, "w");
    if (page == NULL) {
        return console_fail("cannot write %s: %s", path, strerror(errno));
    }
    bool ok = write_all(page, trails, out);
    bool whole = !ferror(page);
    whole = fclose(page) == 0 && whole;
    if (!whole) {
        console_fail("cannot write %s: %s", path, strerror(errno));
    }
    if (!ok || !whole) {
        remove(path);
    }
    return ok && whole;
}
