/* test_spec_yaml — specifications in YAML: what is taken, what is refused with which
 * words and on which line, and that expression, YAML and message say the same.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "common/optim/options.h"
#include "common/optim/rule.h"
#include "common/optim/spec.h"
#include "common/optim/spec_yaml.h"

enum { TEXT = OPT_EXPRESSION_BYTES + 1 };

static enum opt_status read_text(const char *text, struct opt_spec *out,
                                 struct opt_error *error)
{
    return opt_spec_read_yaml(text, strlen(text), "x.yaml", out, error);
}

static const struct {
    const char *text, *canonical;
} taken[] = {
    { "rule: adam", "adam" },
    { "{rule: adam, lr: 0.5}", "adam(lr=0.5)" },
    { "{\"rule\": \"adam\", \"lr\": \"5e-1\"}", "adam(lr=0.5)" },
    { "lr: 1e+1\nrule: adam\n", "adam(lr=10)" },
    { "--- # the usual\nrule: lamb\nlr: 2e-3\n...\n",
      "adam(lr=0.002, eps=1e-06) + decay(0.01, update) + layerwise(update)" },
    { "rule: torch.rmsprop\nmomentum: 0.9\n",
      "rmsprop(lr=0.01, rho=0.99, eps_mode=outside_sqrt, momentum=0.9, "
      "momentum_form=heavy_ball)" },
    { "rule: rmsprop\ncentered: true\n", "rmsprop(centered=true)" },
    { "rule: adam\nweight_decay: 0.01\ndecay: decoupled\n",
      "adam + decay(0.01, decoupled)" },
    { "rule: adam\ndecay: [0.01, decoupled]\n", "adam + decay(0.01, decoupled)" },
    { "rule: adam\ndecay: {weight_decay: 0.01, mode: decoupled, lr: schedule}\n",
      "adam + decay(0.01, decoupled, lr=schedule)" },
    { "rule: adam\nclip: global_norm\nclip_max: 2\n", "adam + clip(global_norm, 2)" },
    { "rule: adam\nclip: [global_norm, 2]\n", "adam + clip(global_norm, 2)" },
    { "rule: adam\nclip:\n  mode: global_norm\n  max: 2\n",
      "adam + clip(global_norm, 2)" },
    { "rule: adam\nlayerwise: update\n", "adam + layerwise(update)" },
    { "rule: adam\nlayerwise:\n", "adam + layerwise(update)" },
    { "rule: adam\nlayerwise: {}\n", "adam + layerwise(update)" },
    { "rule: adam\nlayerwise: {phi_max: 3}\n",
      "adam + layerwise(update, phi=clip, phi_max=3)" },
    { "rule: radam\nlookahead: {k: 6, alpha: 0.8}\n",
      "radam + lookahead(6, alpha=0.8)" },
    { "rule: sgd\nwarmup: 500\ncosine: {steps: 20000, end: 1e-5}\n",
      "sgd + warmup(500) + cosine(20000, end=1e-05)" },
    { "rule: sgd\ncosine: 100\n", "sgd + cosine(100)" },
    { "rule: sgd\naggregate: sum\nnonfinite: skip\n",
      "sgd + aggregate(sum) + nonfinite(skip)" },
    { "rule: adamw\ntensors:\n  - pattern: \"*.bias\"\n    weight_decay: 0\n"
      "  - {lr_scale: 2, pattern: 'n?\"\\', layerwise: none}\n",
      "adam + decay(0.01, decoupled) + tensors(\"*.bias\", weight_decay=0) + "
      "tensors(\"n?\\\"\\\\\", lr_scale=2, layerwise=none)" },
};

Test(spec_yaml, says_what_an_expression_says)
{
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        struct opt_spec spec;
        struct opt_error error = { .text = "" };
        char text[TEXT];

        cr_assert_eq(read_text(taken[i].text, &spec, &error), OPT_OK, "%s: %s",
                     taken[i].text, error.text);
        opt_spec_print(&spec, text, sizeof text);
        cr_expect_str_eq(text, taken[i].canonical, "%s gave %s", taken[i].text, text);
    }
}

/* The whole sentence, or what it begins with. */
static const struct {
    const char *text, *sentence;
} refused[] = {
    { "", "x.yaml:1: a specification is a mapping: rule: adam" },
    { "# nothing\n", "x.yaml:1: a specification is a mapping" },
    { "adam", "x.yaml:1: a specification is a mapping" },
    { "\n- adam\n", "x.yaml:2: a specification is a mapping" },
    { "lr: 1\n", "x.yaml:1: a specification needs a rule, such as rule: adam" },
    { "rule: adan\n", "x.yaml:1: unknown optimizer 'adan': did you mean 'adam'?" },
    { "lr: 1\nrule: [adam]\n", "x.yaml:2: rule must be a single word or number" },
    { "rule: adam\nrule: adam\n", "x.yaml:2: rule is given twice" },
    { "rule: adam\nlr: 1\nlr: 1\n", "x.yaml:3: lr is given twice" },
    { "rule: adam\n\nbetta1: 1\n",
      "x.yaml:3: unknown key 'betta1': did you mean 'beta1'?" },
    { "rule: adam\nlookahed: {k: 6}\n",
      "x.yaml:2: unknown key 'lookahed': did you mean 'lookahead'?" },
    { "rule: adam\ntensor: []\n",
      "x.yaml:2: unknown key 'tensor': did you mean 'tensors'?" },
    { "preset: adam\nrule: adam\n",
      "x.yaml:1: unknown key 'preset': it is no option, and there are decay, clip" },
    { "rule: adam\nrho: 0.9\n",
      "x.yaml:2: adam has no option 'rho': it has lr, beta1" },
    { "rule: adam\nbeta1: 1\n",
      "x.yaml:2: beta1=1 is out of range: it must be in [0, 1)" },
    { "rule: adam\nlr: 0x10\n", "x.yaml:2: '0x10' is not a finite decimal number" },
    { "rule: adam\nlr: 1e999\n", "x.yaml:2: '1e999' is not a finite decimal number" },
    { "rule: adam\nlr: .inf\n", "x.yaml:2: '.inf' is not a finite decimal number" },
    { "rule: adam\nlr:\n", "x.yaml:2: lr must be a number" },
    { "rule: adam\nlr: {}\n",
      "x.yaml:2: lr must be a single word or number, not a mapp" },
    { "rule: rmsprop\ncentered: yes\n",
      "x.yaml:2: centered must be one of false, true, not 'yes'" },
    { "rule: adam\nbias_correction: maybe\n", "x.yaml:2: bias_correction must be one" },
    { "rule: adam\ncosine: {}\n", "x.yaml:2: cosine needs steps, an integer" },
    { "rule: adam\ncosine:\n  stepps: 1\n",
      "x.yaml:3: cosine has no option 'stepps': did you mean 'steps'?" },
    { "rule: adam\ncosine: [1, 2]\n", "x.yaml:2: '2' in cosine needs a name" },
    { "rule: adam\ncosine: 5\nstep: 3\n", "x.yaml:3: step is a second schedule" },
    { "rule: adam\nwarmup: [[1]]\n",
      "x.yaml:2: an argument must be a single word or number, not a list" },
    { "rule: adam\nlayerwise: {\"\": 1}\n", "x.yaml:2: a key must not be empty" },
    { "rule: adam\ndecay: 0.1\n",
      "x.yaml:2: decay must be one of coupled, decoupled, update" },
    { "rule: adam\nlookahead_alpha: 0.7\n",
      "x.yaml: lookahead_alpha has no effect here: it needs lookahead_k" },
    { "rule: adam\ntensors: 5\n", "x.yaml:2: tensors must be a list of mappings" },
    { "rule: adam\ntensors:\n  - {lr_scale: 2}\n",
      "x.yaml:3: an entry of tensors is a mapping with a pattern" },
    { "rule: adam\ntensors:\n  - {pattern: a, lr_scal: 2}\n",
      "x.yaml:3: a group of tensors has no option 'lr_scal'" },
    { "rule: adam\ntensors:\n  - {pattern: a, pattern: b}\n",
      "x.yaml:3: a group of tensors has no option 'pattern'" },
    { "rule: adam\ntensors: []\ntensors: []\n", "x.yaml:3: tensors is given twice" },
    { "rule: \"ad\\0am\"\n", "x.yaml:1: rule" },
    { "rule: \"ad\\eam\"\n", "x.yaml:1: rule" },
    { "? [a]\n: b\nrule: adam\n",
      "x.yaml:1: a key must be a single word or number, not a list" },
    { "rule: adam\n\tlr: 1\n", "x.yaml:2: not YAML: " },
    { "rule: [adam\n", "x.yaml:2: not YAML: " },
    { "rule: *x\n", "x.yaml:1: not YAML: found undefined alias" },
    { "rule: adam\n---\nrule: adam\n", "x.yaml:3: a second document" },
    { "rule: adam\n--- [\n", "x.yaml:3: not YAML: " },
    { "rule: adam\xff\n", "x.yaml:1: not YAML: " },
};

Test(spec_yaml, refuses_with_the_line_and_what_would_be_right)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct opt_spec spec = { .group_count = 77 };
        struct opt_error error = { .text = "" };

        cr_expect_eq(read_text(refused[i].text, &spec, &error), OPT_INVALID_ARGUMENT,
                     "%s was taken", refused[i].text);
        cr_expect(
            strncmp(error.text, refused[i].sentence, strlen(refused[i].sentence)) == 0,
            "%s: \"%s\"", refused[i].text, error.text);
        cr_expect_eq(spec.group_count, 77, "%s left something", refused[i].text);
    }
}

Test(spec_yaml, refuses_a_text_past_the_limit)
{
    static char text[OPT_YAML_BYTES + 1];
    struct opt_spec spec;
    struct opt_error error = { .text = "" };

    memset(text, '\n', sizeof text);
    memcpy(text, "rule: sgd", 9);
    cr_assert_eq(opt_spec_read_yaml(text, sizeof text - 1, "x", &spec, &error), OPT_OK,
                 "%s", error.text);
    cr_assert_eq(opt_spec_read_yaml(text, sizeof text, "x", &spec, &error),
                 OPT_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(error.text, "1048576"));
}

/* ---------------------------------------------------------------- three forms */

static void come_back_the_same(const char *expression)
{
    static struct opt_spec spec, again;
    static struct opt_spec_parts parts;
    struct opt_error error = { .text = "" };
    char canonical[TEXT], back[TEXT], yaml[OPT_YAML_BYTES];

    cr_assert_eq(opt_spec_parse(expression, &spec, &error), OPT_OK, "%s: %s",
                 expression, error.text);
    opt_spec_print(&spec, canonical, sizeof canonical);

    size_t size = opt_spec_print_yaml(&spec, yaml, sizeof yaml);
    cr_assert_eq(size, strlen(yaml));
    cr_assert_eq(read_text(yaml, &again, &error), OPT_OK, "%s: %s", yaml, error.text);
    opt_spec_print(&again, back, sizeof back);
    cr_assert_str_eq(back, canonical);
    opt_spec_fini(&again);

    opt_spec_to_wire(&spec, &parts);
    cr_assert_leq(parts.wire.option_count, OPT_OPTIONS_MAX);
    cr_assert_eq(opt_spec_from_wire(&parts.wire, &again, &error), OPT_OK, "%s: %s",
                 canonical, error.text);
    opt_spec_print(&again, back, sizeof back);
    cr_assert_str_eq(back, canonical);
    opt_spec_fini(&again);
    opt_spec_fini(&spec);
}

static const char *const wrappers[] = {
    "",
    " + decay(0.01)",
    " + decay(0.1, update) + clip(value, 0.5)",
    " + decay(0.1, decoupled, lr=schedule) + warmup(7) + cosine(30, end=1e-5)",
    " + layerwise(gradient, phi_min=0.1, trust_max=2, eps=1e-9, min_ndim=2)",
    " + lookahead(3, alpha=0.25) + step(5, gamma=0.3)",
    " + exponential(9) + aggregate(sum)",
    " + polynomial(9, power=2, end=0.1) + nonfinite(skip)",
    " + tensors(\"*.b\", weight_decay=0.5, lr_scale=2, layerwise=none)",
    " + tensors(\"a: # {\", lr_scale=2) + tensors(\"\\\"\\\\\", lr_scale=0)",
    " + tensors(\"\xc3\xa4\xe2\x80\xa8\xef\xbb\xbf\xf0\x9f\x90\x8c\", lr_scale=0)",
};
enum { WRAPPERS = sizeof wrappers / sizeof wrappers[0] };

static void with_every_wrapper(const char *optimizer)
{
    char expression[600];

    for (size_t w = 0; w < WRAPPERS; w++) {
        snprintf(expression, sizeof expression, "%s%s", optimizer, wrappers[w]);
        come_back_the_same(expression);
    }
}

Test(spec_yaml, expression_yaml_and_message_come_back_as_one_text)
{
    size_t rules, presets, rows;
    const struct opt_rule *const *rule = opt_rules(&rules);
    const struct opt_preset *preset = opt_presets(&presets);
    const struct opt_profile_row *row = opt_profile_rows(&rows);

    for (size_t i = 0; i < rules; i++) {
        with_every_wrapper(rule[i]->name);
    }
    for (size_t i = 0; i < presets; i++) {
        with_every_wrapper(preset[i].name);
    }
    for (size_t i = 0; i < rows; i++) {
        if (row[i].expression != NULL) {
            with_every_wrapper(row[i].name);
        }
    }
}

/* Each option of each rule, at each of its words or a number that is not its default.
 */
Test(spec_yaml, every_option_comes_back)
{
    size_t rules, options, visited = 0;
    const struct opt_rule *const *rule = opt_rules(&rules);
    const struct opt_option *option = opt_options_table(&options);

    for (size_t r = 0; r < rules; r++) {
        for (size_t i = 0; i < options; i++) {
            size_t words = 1;
            while (option[i].words != NULL && option[i].words[words] != NULL) {
                words++;
            }
            for (size_t w = 0; w < words; w++) {
                struct opt_spec spec;
                const char *value = option[i].words != NULL ? option[i].words[w]
                                    : option[i].kind == OPT_KIND_COUNT ? "7"
                                                                       : "0.625";
                char text[200];

                snprintf(text, sizeof text, "%s(%s=%s)", rule[r]->name, option[i].name,
                         value);
                if (opt_spec_parse(text, &spec, NULL) == OPT_OK) {
                    come_back_the_same(text);
                    visited++;
                }
            }
        }
    }
    cr_assert_gt(visited, 13 * 20, "only %zu", visited);
}
