/* gallery — every optimizer on a few surfaces, as moving pictures: `make gallery`.
 *
 * One daemon, one client, and for each optimizer and surface a model of two weights
 * that is walked downhill (gallery_trails.h); then pictures (gallery_picture.h) and a
 * page (gallery_page.h). One thread besides the client's; what it starts ends with it.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "client/optclient.h"
#include "cluster.h"
#include "console.h"
#include "folder.h"
#include "gallery_page.h"
#include "gallery_picture.h"
#include "gallery_presets.h"
#include "gallery_surfaces.h"
#include "gallery_trails.h"
#include "options.h"

enum { TIMEOUT_MS = 10000 };

static struct gallery_trails trails;

/* ---------------------------------------------------------------- walking */

static bool walk_on_surfaces(struct optclient *client, struct cluster *cluster,
                             const struct gallery_preset *preset,
                             struct gallery_trail of[GALLERY_SURFACES])
{
    printf("  %-10s", preset->name);
    for (size_t s = 0; s < GALLERY_SURFACES; s++) {
        const struct gallery_surface *surface = &gallery_surfaces[s];
        char specification[GALLERY_SPECIFICATION_MAX], reached[24] = "";
        gallery_preset_print(preset, (enum gallery_surface_name)s, specification);
        if (cluster_interrupted(cluster)) {
            return false;
        }
        if (gallery_walk(client, surface->name, specification, surface, &of[s]) !=
            OPTCLIENT_OK) {
            return console_fail("%s on %s: %s", specification, surface->title,
                                optclient_error());
        }
        if (of[s].reached <= of[s].steps) {
            snprintf(reached, sizeof reached, "%zu", of[s].reached);
        }
        printf("  %8.1e %7s", of[s].value[of[s].steps] - surface->least, reached);
    }
    printf("\n");
    fflush(stdout);
    return true;
}

static bool walk_all(struct cluster *cluster)
{
    struct optclient_options options = optclient_options_default();
    options.worker = "gallery";
    options.timeout_ms = TIMEOUT_MS;
    options.connect_timeout_ms = TIMEOUT_MS;
    struct optclient *client;
    if (optclient_connect(cluster->address, &options, &client) != OPTCLIENT_OK) {
        return console_fail("cannot connect: %s", optclient_error());
    }
    bool ok = true;
    size_t families;
    const struct gallery_family *family = gallery_families(&families);
    for (size_t f = 0; ok && f < families; f++) {
        const struct gallery_preset *members = family[f].members;
        for (size_t m = 0; ok && m < GALLERY_MEMBERS_MAX && members[m].name != NULL;
             m++) {
            ok = walk_on_surfaces(client, cluster, &members[m], trails.of[f][m]);
        }
    }
    optclient_close(client);
    return ok;
}

static void print_heading(void)
{
    printf("optimd gallery: what is left of the loss at the end, and the steps to that "
           "much\n  %-10s",
           "");
    for (size_t s = 0; s < GALLERY_SURFACES; s++) {
        printf("  %8s %7g", gallery_surfaces[s].name, gallery_surfaces[s].near);
    }
    printf("\n");
    fflush(stdout);
}

static bool walk(const struct cluster_settings *settings)
{
    static struct cluster cluster;
    print_heading();
    bool ok = cluster_start(&cluster, settings) && walk_all(&cluster);
    return cluster_stop(&cluster, ok);
}

/* ---------------------------------------------------------------- showing */

static bool show(const char *script, const char *out)
{
    char work[FOLDER_PATH_MAX];
    printf("\n  drawing\n");
    fflush(stdout);
    bool ok = folder_make_temporary(out, "work", work) &&
              gallery_draw(&trails, script, work, out) &&
              gallery_write_page(&trails, out);
    folder_remove(work);
    if (ok) {
        printf("  page        %s/gallery.html\n"
               "  pictures    %s/*.gif, their last ones *.png\n",
               out, out);
    }
    return ok;
}

int main(int argc, char **argv)
{
    struct cluster_settings settings = { .daemon = "build/optimd",
                                         .out = "build/gallery" };
    const char *script = "client/examples/gallery.gp";
    const struct option_row rows[] = {
        { "daemon", "FILE", "optimd (build/optimd)", .text = &settings.daemon },
        { "out", "DIR", "where pictures and page go (build/gallery)",
          .text = &settings.out },
        { "script", "FILE", "how to draw (client/examples/gallery.gp)",
          .text = &script },
    };
    console_open("gallery");
    enum options_outcome outcome =
        options_parse("gallery", rows, sizeof rows / sizeof rows[0], argc, argv);
    if (outcome != OPTIONS_OK) {
        return outcome == OPTIONS_HELP ? EXIT_SUCCESS : EX_USAGE;
    }
    /* A reader that goes must not keep us from stopping everything. */
    signal(SIGPIPE, SIG_IGN);
    bool ok =
        folder_make(settings.out) && walk(&settings) && show(script, settings.out);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
