/* gallery — what is behind `make gallery`: its tables, its trails against the golden
 * ones, and that it leaves nothing behind when it is stopped. That it draws is found
 * out by tests/checks. */
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "client/examples/gallery_presets.h"
#include "client/examples/gallery_surfaces.h"
#include "client/examples/gallery_trails.h"
#include "client/optclient.h"
#include "common/optim/rule.h"
#include "tests/support/daemon.h"
#include "tests/support/example.h"
#include "tests/support/golden_cases.h"

/* ---------------------------------------------------------------- tables */

/* In how many places of the pictures. */
static size_t is_shown(const char *name)
{
    size_t families, times = 0;
    const struct gallery_family *family = gallery_families(&families);
    for (size_t f = 0; f < families; f++) {
        const struct gallery_preset *members = family[f].members;
        for (size_t m = 0; m < GALLERY_MEMBERS_MAX && members[m].name != NULL; m++) {
            times += strcmp(members[m].name, name) == 0;
        }
    }
    return times;
}

Test(gallery, shows_every_rule_and_preset_once)
{
    size_t rules, presets;
    const struct opt_rule *const *rule = opt_rules(&rules);
    const struct opt_preset *preset = opt_presets(&presets);
    for (size_t i = 0; i < rules; i++) {
        cr_assert_eq(is_shown(rule[i]->name), 1, "%s", rule[i]->name);
    }
    for (size_t i = 0; i < presets; i++) {
        cr_assert_eq(is_shown(preset[i].name), 1, "%s", preset[i].name);
    }
}

Test(gallery, shows_nothing_that_there_is_not)
{
    size_t families;
    const struct gallery_family *family = gallery_families(&families);
    for (size_t i = 0; i < families * GALLERY_MEMBERS_MAX; i++) {
        const char *name =
            family[i / GALLERY_MEMBERS_MAX].members[i % GALLERY_MEMBERS_MAX].name;
        cr_assert(name == NULL || opt_rule_find(name) != NULL ||
                      opt_preset_find(name) != NULL,
                  "%s", name);
    }
}

Test(gallery, has_gradients_that_are_the_slopes_of_its_surfaces)
{
    const double h = 1e-5, at[][2] = { { 0.3, -0.7 }, { -1.1, 0.9 }, { 2.5, 0.4 } };
    for (size_t s = 0; s < GALLERY_SURFACES; s++) {
        const struct gallery_surface *surface = &gallery_surfaces[s];
        for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
            double x = at[i][0], y = at[i][1], gradient[2];
            double slope[2] = {
                (surface->value(x + h, y) - surface->value(x - h, y)) / (2 * h),
                (surface->value(x, y + h) - surface->value(x, y - h)) / (2 * h)
            };
            surface->gradient(x, y, gradient);
            for (size_t d = 0; d < 2; d++) {
                cr_assert_lt(fabs(gradient[d] - slope[d]), 1e-6 * (1 + fabs(slope[d])),
                             "%s at (%g, %g)", surface->name, x, y);
            }
        }
    }
}

Test(gallery, knows_its_minima)
{
    for (size_t s = 0; s < GALLERY_SURFACES; s++) {
        const struct gallery_surface *surface = &gallery_surfaces[s];
        double x = surface->minimum[0], y = surface->minimum[1], gradient[2];
        surface->gradient(x, y, gradient);
        cr_assert_lt(fabs(surface->value(x, y) - surface->least), 1e-12, "%s",
                     surface->name);
        cr_assert_lt(fabs(gradient[0]) + fabs(gradient[1]), 1e-12, "%s", surface->name);
    }
}

/* ---------------------------------------------------------------- trails */

static struct daemon_process daemon_process;
static struct optclient *client;

static void connect_to_daemon(void)
{
    daemon_start(&daemon_process, NULL);
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", (unsigned)daemon_process.port);
    cr_assert_eq(optclient_connect(address, NULL, &client), OPTCLIENT_OK, "%s",
                 optclient_error());
}

static void disconnect(void)
{
    optclient_close(client);
    daemon_stop(&daemon_process);
}

TestSuite(gallery_trails, .init = connect_to_daemon, .fini = disconnect, .timeout = 60);

/* The trail of a golden case's specification, from its start. */
static void walk_golden(const struct golden_case *golden,
                        enum gallery_surface_name surface, struct gallery_trail *trail)
{
    char specification[4096];
    opt_spec_print(&golden->spec, specification, sizeof specification);
    struct gallery_surface walked = gallery_surfaces[surface];
    walked.steps = golden->steps;
    memcpy(walked.start, golden->tensors[0].initial, sizeof walked.start);
    cr_assert_eq(gallery_walk(client, golden->name, specification, &walked, trail),
                 OPTCLIENT_OK, "%s", optclient_error());
    cr_assert_eq(trail->steps, golden->steps);
}

/* What the trail shows: Lookahead's slow weights, or the weights. */
static const double *expected_at(const struct golden_case *golden, size_t step)
{
    char name[256];
    size_t n = 0;
    snprintf(name, sizeof name, "eval/%zu/%s", step, golden->tensors[0].name);
    const double *expected = golden_expected(golden, name, &n);
    if (expected == NULL) {
        snprintf(name, sizeof name, "params/%zu/%s", step, golden->tensors[0].name);
        expected = golden_expected(golden, name, &n);
    }
    cr_assert(expected != NULL && n == 2, "%s has no %s", golden->name, name);
    return expected;
}

static void expect_golden(const char *name, enum gallery_surface_name surface)
{
    struct golden_case *golden;
    struct opt_error error = { .text = "" };
    cr_assert_eq(golden_case_load("tests/golden/cases", name, &golden, &error), OPT_OK,
                 "%s", error.text);
    static struct gallery_trail trail;
    walk_golden(golden, surface, &trail);
    for (size_t c = 0; c < golden->checkpoint_count; c++) {
        size_t step = golden->checkpoints[c];
        const double *expected = expected_at(golden, step);
        for (size_t d = 0; d < 2; d++) {
            cr_assert_leq(fabs((double)trail.point[step][d] - expected[d]),
                          golden->atol_params + golden->rtol * fabs(expected[d]),
                          "%s after %zu steps: %.9g instead of %.9g", name, step,
                          (double)trail.point[step][d], expected[d]);
        }
    }
    golden_case_free(golden);
}

Test(gallery_trails, are_the_golden_ones)
{
    expect_golden("beale_adam", GALLERY_BEALE);
    expect_golden("beale_nag", GALLERY_BEALE);
    expect_golden("beale_lookahead_momentum", GALLERY_BEALE);
    expect_golden("saddle_sgd", GALLERY_SADDLE);
    expect_golden("saddle_nag", GALLERY_SADDLE);
    expect_golden("saddle_rmsprop", GALLERY_SADDLE);
    expect_golden("saddle_lookahead_adam", GALLERY_SADDLE);
}

/* What is asked of each trail of a surface. */
static void each_trail(enum gallery_surface_name s,
                       void (*judge)(const struct gallery_surface *surface,
                                     const char *name,
                                     const struct gallery_trail *trail))
{
    static struct gallery_trail trail;
    const struct gallery_surface *surface = &gallery_surfaces[s];
    size_t families;
    const struct gallery_family *family = gallery_families(&families);
    for (size_t i = 0; i < families * GALLERY_MEMBERS_MAX; i++) {
        const struct gallery_preset *preset =
            &family[i / GALLERY_MEMBERS_MAX].members[i % GALLERY_MEMBERS_MAX];
        if (preset->name == NULL) {
            continue;
        }
        char specification[GALLERY_SPECIFICATION_MAX];
        gallery_preset_print(preset, s, specification);
        cr_assert_eq(
            gallery_walk(client, surface->name, specification, surface, &trail),
            OPTCLIENT_OK, "%s: %s", specification, optclient_error());
        judge(surface, preset->name, &trail);
    }
}

/* On the picture, lower at its end than at its start, and with `reached` where it says.
 */
static void expect_on_picture(const struct gallery_surface *surface, const char *name,
                              const struct gallery_trail *trail)
{
    for (size_t step = 0; step <= trail->steps; step++) {
        for (size_t d = 0; d < 2; d++) {
            double at = (double)trail->point[step][d];
            cr_assert(at >= surface->from[d] && at <= surface->to[d],
                      "%s leaves %s at step %zu", name, surface->name, step);
        }
        cr_assert(step >= trail->reached ||
                  trail->value[step] - surface->least >= surface->near);
    }
    cr_assert_lt(trail->value[trail->steps], trail->value[0] / 2, "%s on %s", name,
                 surface->name);
}

Test(gallery_trails, stay_on_the_picture_and_go_down)
{
    for (enum gallery_surface_name s = 0; s < GALLERY_SURFACES; s++) {
        each_trail(s, expect_on_picture);
    }
}

static bool is_one_of(const char *name, const char *const *names)
{
    while (*names != NULL && strcmp(*names, name) != 0) {
        names++;
    }
    return *names != NULL;
}

/* What the picture of the saddle is there to show. The ridge is y = 0. */
static void expect_message(const struct gallery_surface *surface, const char *name,
                           const struct gallery_trail *trail)
{
    static const char *const stuck[] = { "sgd", "lars", "lars2017", NULL };
    static const char *const swinging[] = { "momentum", "nag", NULL };
    size_t left = 0, turns = 0;
    for (; left <= trail->steps && fabs((double)trail->point[left][1]) < 0.5; left++) {
        turns += left > 0 && trail->point[left][0] * trail->point[left - 1][0] < 0;
    }
    if (is_one_of(name, stuck)) {
        cr_assert_lt(fabs((double)trail->point[trail->steps][1]), 0.05, "%s has left",
                     name);
    } else if (is_one_of(name, swinging)) {
        cr_assert(turns >= 2 && left > surface->steps / 4 && left < surface->steps,
                  "%s leaves at step %zu after %zu turns", name, left, turns);
        cr_assert_lt(trail->reached, trail->steps, "%s", name);
    } else {
        cr_assert_leq(left, surface->steps / 4, "%s leaves at step %zu", name, left);
        cr_assert_lt(trail->reached, trail->steps, "%s", name);
    }
}

Test(gallery_trails, on_the_saddle_sgd_sticks_momentum_swings_and_the_others_leave)
{
    each_trail(GALLERY_SADDLE, expect_message);
}

Test(gallery_trails, end_with_the_daemons_sentence_where_they_fail)
{
    static struct gallery_trail trail;
    cr_assert_eq(gallery_walk(client, "wrong", "adamm(lr=1)",
                              &gallery_surfaces[GALLERY_BEALE], &trail),
                 OPTCLIENT_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(optclient_error(), "adamm"), "%s", optclient_error());

    cr_assert_eq(gallery_walk(client, "far", "sgd(lr=1)",
                              &gallery_surfaces[GALLERY_BEALE], &trail),
                 OPTCLIENT_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(optclient_error(), "not finite"), "%s",
                       optclient_error());
    cr_assert_lt(trail.steps, gallery_surfaces[GALLERY_BEALE].steps);
}

/* ---------------------------------------------------------------- the program */

TestSuite(gallery_program, .init = example_make_folder, .fini = example_remove_folder,
          .timeout = 120);

static void expect_end_after(const char *words)
{
    example_start("gallery", (const char *const[]){ NULL });
    example_read_until(words);
    cr_assert_eq(kill(example.pid, SIGINT), 0);
    int status = example_finish();
    if (strstr(example.text, "gnuplot is not installed") != NULL) {
        cr_skip_test("gnuplot is not installed: make deps GROUPS=demo");
    }
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1 &&
                  strstr(example.text, "interrupted") != NULL,
              "%s", example.text);
    example_expect_no_process();
    cr_assert_eq(example_count_files("data-"), 0);
    cr_assert_eq(example_count_files("work-"), 0);
    cr_assert_eq(example_count_files("saddle"), 0);
}

Test(gallery_program, stops_everything_on_control_c)
{
    expect_end_after("momentum");
}

Test(gallery_program, stops_drawing_on_control_c)
{
    expect_end_after("drawing");
}

Test(gallery_program, says_what_a_program_that_draws_has_said)
{
    char script[96];
    snprintf(script, sizeof script, "%s/broken.gp", example.out);
    FILE *file = fopen(script, "w");
    cr_assert(file != NULL && fputs("print nothing_of_this_name\n", file) >= 0 &&
              fclose(file) == 0);
    example_start("gallery", (const char *const[]){ "--script", script, NULL });
    int status = example_finish();
    if (strstr(example.text, "gnuplot is not installed") != NULL) {
        cr_skip_test("gnuplot is not installed: make deps GROUPS=demo");
    }
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1 &&
                  strstr(example.text, "gnuplot failed: ") != NULL &&
                  strstr(example.text, "nothing_of_this_name") != NULL,
              "%s", example.text);
}

Test(gallery_program, says_what_it_cannot_read_or_start)
{
    example_start("gallery", (const char *const[]){ "--script", "/nowhere.gp", NULL });
    example_expect(1, "cannot read /nowhere.gp");
    example_expect_no_process();
    cr_assert_eq(example_count_files("work-"), 0);

    example_start("gallery",
                  (const char *const[]){ "--daemon", "/nowhere/optimd", NULL });
    example_expect(1, "optimd ended with status 127");
    example_expect_no_process();
}
