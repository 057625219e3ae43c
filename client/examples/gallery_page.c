/* gallery_page — HTML by hand: a heading, a picture and tables for each.
 *
 * Called by gallery.c. The texts are the program's own and hold nothing that HTML would
 * take for its own.
 */
#include "gallery_page.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "console.h"
#include "folder.h"

enum { PATH = FOLDER_PATH_MAX + 64 };

static const char beginning[] =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\">\n"
    "<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n"
    "<title>optimd: twenty optimizers at work</title>\n"
    "<style>\n"
    ":root { color-scheme: light dark; --ink: #222b33; --soft: #5b6975;\n"
    "  --paper: #ffffff; --line: #d5dce3; --mark: #0072b2 }\n"
    "@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9dabb8;\n"
    "  --paper: #14191e; --line: #333d47; --mark: #56b4e9 } }\n"
    "body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink);\n"
    "  background: var(--paper); max-width: 1140px; margin: 2em auto; padding: 0 1em "
    "}\n"
    "h1, h2, h3 { line-height: 1.2 }\n"
    "h1 { border-left: 6px solid var(--mark); padding-left: 0.5em }\n"
    "img { width: 100%; height: auto; background: #ffffff; border-radius: 6px;\n"
    "  border: 1px solid var(--line) }\n"
    ".tables { display: flex; flex-wrap: wrap; gap: 0 3em }\n"
    ".tables > div { flex: 1 1 30em; overflow-x: auto }\n"
    "table { border-collapse: collapse; width: 100%; font-size: 14px }\n"
    "th, td { text-align: left; padding: 0.2em 0.8em 0.2em 0;\n"
    "  border-bottom: 1px solid var(--line) }\n"
    "th { color: var(--soft); font-weight: 600 }\n"
    "td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }\n"
    "tr.first td { border-top: 2px solid var(--soft) }\n"
    "code { font-size: 13px }\n"
    "p, figcaption { color: var(--soft); max-width: 50em }\n"
    "figure { margin: 1em 0 }\n"
    "</style>\n"
    "<h1>Twenty optimizers at work</h1>\n"
    "<p>Each trail is a model of two weights in a live optimd: a worker pulls them,\n"
    "computes the gradient of the surface there and pushes it, and the daemon takes\n"
    "the step. A trail shows the answer so far, which is the slow weights where there\n"
    "are any. The asterisk is the minimum; the learning rates were chosen so that\n"
    "there is something to see, not to win.</p>\n";

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

static bool write_picture(FILE *page, const char *out, const char *name,
                          const char *description)
{
    char path[PATH];
    snprintf(path, sizeof path, "%s/%s", out, name);
    FILE *picture = fopen(path, "rb");
    if (picture == NULL) {
        return console_fail("cannot read %s: %s", path, strerror(errno));
    }
    fprintf(page, "<figure><img alt=\"%s\" src=\"data:image/gif;base64,", description);
    write_base64(page, picture);
    fputs("\"></figure>\n", page);
    bool ok = !ferror(picture);
    fclose(picture);
    return ok || console_fail("cannot read %s", path);
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
    const struct gallery_surface *surface = &gallery_surfaces[name];
    fprintf(page,
            "<div><h3>%s</h3>\n<p>%s; %zu steps from (%g, %g)</p>\n"
            "<table>\n<tr><th>optimizer<th>specification"
            "<th class=\"number\">above the minimum"
            "<th class=\"number\">steps to %g\n",
            surface->title, surface->formula, surface->steps, (double)surface->start[0],
            (double)surface->start[1], surface->near);
    for (size_t f = 0; f < GALLERY_FAMILIES; f++) {
        const struct gallery_preset *members = gallery_families[f].members;
        for (size_t m = 0; m < GALLERY_MEMBERS_MAX && members[m].name != NULL; m++) {
            write_row(page, &members[m], name, m == 0, &trails->of[f][m][name]);
        }
    }
    fputs("</table></div>\n", page);
}

static bool write_all(FILE *page, const struct gallery_trails *trails, const char *out)
{
    fputs(beginning, page);
    fputs("<h2>Downhill</h2>\n", page);
    if (!write_picture(page, out, "contours.gif",
                       "Trails of twenty optimizers over the contours of Beale's "
                       "function and of Rosenbrock's valley")) {
        return false;
    }
    fputs("<div class=\"tables\">\n", page);
    write_table(page, trails, GALLERY_BEALE);
    write_table(page, trails, GALLERY_VALLEY);
    fputs("</div>\n<h2>Off a saddle</h2>\n", page);
    if (!write_picture(page, out, "saddle.gif",
                       "Trails of twenty optimizers over a saddle, seen from above and "
                       "aside")) {
        return false;
    }
    fputs("<div class=\"tables\">\n", page);
    write_table(page, trails, GALLERY_SADDLE);
    fputs("</div>\n", page);
    return true;
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
