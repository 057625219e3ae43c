/* test_profile — each row of a profile is what golden cases, computed with that library
 * too, were run with.
 *
 * The table of provenance in tests/golden/README.md says which cases were. A row, given
 * the numbers of such a case, must be the case's specification: the forms and modes,
 * which nobody thinks of when a job moves, come from the row. That the case is then met
 * is what the golden program shows.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "common/optim/options.h"
#include "common/optim/rule.h"
#include "tests/support/golden_cases.h"

enum { TEXT = OPT_EXPRESSION_BYTES + 1, ROWS = 64 };

/* How the table calls the library. Cases of optax were put together from the transforms
 * that its optimizers are made of, so any row may be meant, and what wraps the rule is
 * said by the user there. */
static const struct library {
    const char *profile, *prefix;
    bool transforms;
} libraries[] = {
    { "torch", "torch.optim 1.13.0 ", false },
    { "keras", "keras@3422977a5e ", false },
    { "optax", "optax@2edbcbe239 transforms", true },
};

/* Cases put together from a library's parts as none of its optimizers is, or with an
 * argument that says so there as an option says it here. */
static const char *const variants[] = {
    "optax adam_inside_sqrt",              /* eps_root */
    "optax amsgrad",                       /* without its corrections */
    "optax lars",                          /* a trace of its own */
    "optax lars_min_ndim",                 /* the same */
    "optax lars_no_decay",                 /* the same */
    "optax momentum_decay_coupled",        /* the rate before the trace */
    "optax momentum_ema",                  /* ema instead of trace */
    "optax momentum_lr_step",              /* the rate before the trace */
    "optax nag_reformulated_lr_step",      /* the rate before the trace */
    "optax rmsprop_centered_outside_sqrt", /* eps_in_sqrt=False */
    "optax rmsprop_momentum_heavy_ball",   /* the rate behind the trace */
    "optax rmsprop_outside_sqrt",          /* eps_in_sqrt=False */
};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

struct seen {
    size_t rows[ROWS]; /* cases that are the row's */
    bool variants[VARIANTS];
};

/* What the user says: numbers, and words that are arguments there too. */
static bool is_said(const struct opt_option *option, bool wrappers)
{
    static const char *const of_wrappers[] = { "decay", "layerwise" };

    if (option->kind == OPT_KIND_NUMBER || option->kind == OPT_KIND_COUNT ||
        strcmp(option->name, "centered") == 0) {
        return true;
    }
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(option->name, of_wrappers[i]) == 0) {
            return wrappers;
        }
    }
    return !option->of_rules;
}

/* While the rate is constant, velocity and heavy_ball are one trajectory. */
static void print(struct opt_spec spec, char text[TEXT])
{
    if (spec.options.schedule == OPT_CONSTANT && spec.options.warmup_steps == 0.0 &&
        spec.options.momentum_form == OPT_HEAVY_BALL) {
        spec.options.momentum_form = OPT_VELOCITY;
    }
    opt_spec_print(&spec, text, TEXT);
}

/* Whether the row is the case's specification once it has what the user says. */
static bool is_case(const struct opt_profile_row *row, const struct opt_spec *expected,
                    bool wrappers)
{
    static struct opt_spec_parts parts;
    struct opt_wire_option said[OPT_OPTIONS_MAX];
    struct opt_spec spec;
    char text[TEXT], expected_text[TEXT];
    size_t count, n = 0;
    const struct opt_option *table = opt_options_table(&count);

    for (size_t i = 0; i < count; i++) {
        double value = opt_option_get(&table[i], &expected->options);
        struct opt_wire_option option = { .name = table[i].name, .number = value };

        if (!opt_option_applies(&table[i], expected->rule) ||
            !is_said(&table[i], wrappers)) {
            continue;
        }
        if (table[i].kind == OPT_KIND_WORD) {
            option.kind = OPT_VALUE_WORD;
            option.word = table[i].words[(int)value];
        } else if (table[i].kind == OPT_KIND_FLAG) {
            option.kind = OPT_VALUE_FLAG;
            option.flag = value != 0.0;
        }
        said[n++] = option;
    }
    opt_spec_to_wire(expected, &parts);
    struct opt_wire_spec wire = parts.wire; /* for its groups */
    wire.rule = row->name;
    wire.options = said;
    wire.option_count = n;
    if (opt_spec_from_wire(&wire, &spec, NULL) != OPT_OK) {
        return false;
    }
    print(spec, text);
    opt_spec_fini(&spec);
    print(*expected, expected_text);
    return strcmp(text, expected_text) == 0;
}

/* "Adam" is in "Adam (sparse gradient)", but not in "Adam(amsgrad)". */
static bool is_called(const struct opt_profile_row *row, const struct library *library,
                      const char *called)
{
    size_t size = strlen(row->theirs);

    return row->expression != NULL && opt_profile_row_of(row, library->profile) &&
           (library->transforms ||
            (strncmp(called, row->theirs, size) == 0 &&
             (called[size] == ' ' || called[size] == ',' || called[size] == '\0')));
}

static bool is_variant(struct seen *seen, const char *profile, const char *name)
{
    char both[GOLDEN_NAME + 16];

    snprintf(both, sizeof both, "%s %s", profile, name);
    for (size_t i = 0; i < VARIANTS; i++) {
        if (strcmp(variants[i], both) == 0) {
            seen->variants[i] = true;
            return true;
        }
    }
    return false;
}

/* One line of the table: a case, and what it was compared with. */
static void judge(struct seen *seen, const struct library *library, const char *name,
                  const char *called)
{
    struct golden_case *golden;
    struct opt_error error = { .text = "" };
    size_t count, candidates = 0;
    const struct opt_profile_row *rows = opt_profile_rows(&count);
    bool found = false;

    cr_assert_leq(count, ROWS);
    cr_assert_eq(golden_case_load("tests/golden/cases", name, &golden, &error), OPT_OK,
                 "%s: %s", name, error.text);
    for (size_t i = 0; i < count; i++) {
        if (!is_called(&rows[i], library, called)) {
            continue;
        }
        candidates++;
        if (is_case(&rows[i], &golden->spec, false)) {
            seen->rows[i]++;
            found = true;
        }
        found =
            found || (library->transforms && is_case(&rows[i], &golden->spec, true));
    }
    cr_expect(found || candidates == 0 || is_variant(seen, library->profile, name),
              "%s was met with %s%s, and no row of the profile is it", name,
              library->prefix, called);
    golden_case_free(golden);
}

/* The n-th cell of a row of a Markdown table, 1 the first, without spaces around it. */
static bool cell(const char *line, int n, char *out, size_t capacity)
{
    for (; n > 0 && line != NULL; n--) {
        line = strchr(line, '|');
        line = line == NULL ? NULL : line + 1;
    }
    if (line == NULL || strchr(line, '|') == NULL) {
        return false;
    }
    line += strspn(line, " ");
    size_t size = strcspn(line, "|");
    while (size > 0 && line[size - 1] == ' ') {
        size--;
    }
    snprintf(out, capacity, "%.*s", (int)size, line);
    return true;
}

Test(profile, rows_are_what_the_cases_of_their_libraries_were_run_with)
{
    char line[1024], first[GOLDEN_NAME], name[GOLDEN_NAME] = "", called[512];
    struct seen seen = { .rows = { 0 } };
    size_t count, entries = 0;
    const struct opt_profile_row *rows = opt_profile_rows(&count);
    FILE *file = fopen("tests/golden/README.md", "r");

    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (line[0] != '|' || !cell(line, 1, first, sizeof first) ||
            !cell(line, 3, called, sizeof called)) {
            continue;
        }
        if (first[0] != '\0') {
            snprintf(name, sizeof name, "%s", first);
        }
        for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
            size_t size = strlen(libraries[i].prefix);
            /* A comparison with another view is one of another configuration. */
            if (strncmp(called, libraries[i].prefix, size) == 0 &&
                strstr(called, "view") == NULL) {
                judge(&seen, &libraries[i], name, called + size);
                entries++;
            }
        }
    }
    cr_assert_eq(fclose(file), 0);
    cr_assert_gt(entries, 100, "the table has %zu", entries);
    for (size_t i = 0; i < count; i++) {
        cr_expect(rows[i].expression == NULL || seen.rows[i] > 0,
                  "no golden case is %s", rows[i].name);
    }
    for (size_t i = 0; i < VARIANTS; i++) {
        cr_expect(seen.variants[i], "%s is no variant", variants[i]);
    }
}

Test(profile, a_row_is_an_expression_of_a_rule_and_has_a_profile)
{
    size_t count, profiles;
    const struct opt_profile_row *rows = opt_profile_rows(&count);
    const struct opt_profile *profile = opt_profiles(&profiles);

    for (size_t i = 0; i < count; i++) {
        struct opt_error error = { .text = "" };
        struct opt_spec spec;
        bool known = false;

        for (size_t k = 0; k < profiles; k++) {
            known = known || opt_profile_row_of(&rows[i], profile[k].name);
        }
        cr_expect(known, "%s", rows[i].name);
        if (rows[i].expression != NULL) {
            cr_expect_eq(opt_spec_parse(rows[i].name, &spec, &error), OPT_OK, "%s: %s",
                         rows[i].name, error.text);
        } else {
            cr_expect_eq(opt_spec_parse(rows[i].name, &spec, &error),
                         OPT_INVALID_ARGUMENT);
            cr_expect_not_null(strstr(error.text, rows[i].note), "%s", error.text);
        }
    }
}

static const struct {
    const char *text, *canonical;
} taken[] = {
    { "torch.adam", "adam" },
    { "torch.sgd(lr=0.1) + decay(5e-4)", "sgd(lr=0.1) + decay(0.0005)" },
    { "torch.rmsprop", "rmsprop(lr=0.01, rho=0.99, eps_mode=outside_sqrt)" },
    { "torch.rmsprop(momentum=0.9)",
      "rmsprop(lr=0.01, rho=0.99, eps_mode=outside_sqrt, momentum=0.9, "
      "momentum_form=heavy_ball)" },
    { "torch.adamax(eps_mode=zero_safe)", "adamax" },
    { "optax.lamb + decay(0.1)",
      "adam(eps=1e-06) + decay(0.1, update) + layerwise(update)" },
    { "keras.nadam + lookahead(5)",
      "nadam(lr=0.001, eps=1e-07, nadam_form=scheduled, momentum_decay=1) + "
      "lookahead(5)" },
};

Test(profile, prints_as_what_it_stands_for)
{
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        struct opt_error error = { .text = "" };
        struct opt_spec spec;
        char text[TEXT];

        cr_assert_eq(opt_spec_parse(taken[i].text, &spec, &error), OPT_OK, "%s: %s",
                     taken[i].text, error.text);
        opt_spec_print(&spec, text, sizeof text);
        cr_expect_str_eq(text, taken[i].canonical, "%s", text);
    }
}

static const struct {
    const char *text, *sentence;
} refused[] = {
    { "torch.adaam", "did you mean 'torch.adam'?" },
    { "torch.Adam", "did you mean 'torch.adam'?" },
    { "torch.lbfgs",
      "the profile torch has no 'torch.lbfgs': it has torch.sgd, torch." },
    { "jaxopt.whatever", "unknown optimizer 'jaxopt.whatever': there are sgd" },
    { "optax.lars", "optax.lars is not offered: it multiplies with the learning rate" },
    { "keras.adamw", "+ decay(0.004, decoupled)" },
    { "torch.adagrad(lr_decay=0.1)",
      "torch.adagrad has no option 'lr_decay': lr_decay has no counterpart here" },
};

Test(profile, refuses_what_it_cannot_say_exactly)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct opt_error error = { .text = "" };
        struct opt_spec spec;

        cr_expect_eq(opt_spec_parse(refused[i].text, &spec, &error),
                     OPT_INVALID_ARGUMENT, "%s was taken", refused[i].text);
        cr_expect_not_null(strstr(error.text, refused[i].sentence), "%s: \"%s\"",
                           refused[i].text, error.text);
    }
}
