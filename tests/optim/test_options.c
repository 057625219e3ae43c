/* test_options — which rule has which option, as the definition of the optimizers says
 * it, and not as the registry does: every pair of them, in every way to say it.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "common/optim/options.h"
#include "common/optim/rule.h"
#include "common/optim/spec.h"
#include "common/optim/spec_yaml.h"

enum { TEXT = OPT_EXPRESSION_BYTES + 1, MOST = 4 };

#define ADAMS "adam adamax nadam amsgrad radam adabound amsbound"
#define EPS_MODES "adagrad rmsprop adam nadam amsgrad radam"

static const struct {
    const char *option;
    const char *rules; /* that use it; NULL: all */
    const char *value; /* none of them has it by default */
    const char *with;  /* what else must be said for it to have an effect, or "" */
} uses[] = {
    { "lr", NULL, "0.25", "" },
    { "momentum", "momentum nag rmsprop", "0.75", "" },
    { "momentum_form", "momentum rmsprop", "heavy_ball", "momentum=0.5" },
    { "momentum_form", "momentum rmsprop", "ema", "momentum=0.5" },
    { "momentum_form", "nag", "heavy_ball", "nesterov_form=reformulated" },
    { "nesterov_form", "nag", "reformulated", "" },
    { "rho", "rmsprop adadelta", "0.75", "" },
    { "centered", "rmsprop", "true", "" },
    { "initial_accumulator", "adagrad", "0.5", "" },
    { "beta1", ADAMS, "0.75", "" },
    { "beta2", ADAMS, "0.75", "" },
    { "eps", EPS_MODES " adadelta adabound amsbound", "0.5", "" },
    { "eps", "adamax", "0.5", "eps_mode=in_max" },
    { "eps_mode", EPS_MODES, "epsilon_hat", "" },
    { "eps_mode", "adagrad rmsprop", "outside_sqrt", "" },
    { "eps_mode", "adam nadam amsgrad radam", "inside_sqrt", "" },
    { "eps_mode", "adamax", "in_max", "" },
    { "eps_mode", "adamax", "outside", "" },
    { "bias_correction", "adam", "false", "" },
    { "bias_correction", "amsgrad", "true", "" },
    { "max_of", "amsgrad", "corrected", "" },
    { "nadam_form", "nadam", "next_step", "" },
    { "nadam_form", "nadam", "scheduled", "" },
    { "momentum_decay", "nadam", "1", "nadam_form=scheduled" },
    { "rectify_threshold", "radam", "4.5", "" },
    { "rectify_fallback", "radam", "skip", "" },
    { "final_lr", "adabound amsbound", "0.5", "" },
    { "gamma", "adabound amsbound", "0.5", "" },
    { "weight_decay", NULL, "0.5", "" },
    { "decay", NULL, "decoupled", "" },
    { "decay", NULL, "update", "" },
    { "decay_lr", NULL, "schedule", "decay=decoupled" },
    { "schedule", NULL, "step", "" },
    { "schedule", NULL, "exponential", "" },
    { "schedule", NULL, "polynomial", "" },
    { "schedule", NULL, "cosine", "" },
    { "schedule_steps", NULL, "9", "schedule=cosine" },
    { "schedule_gamma", NULL, "0.5", "schedule=exponential" },
    { "schedule_power", NULL, "2", "schedule=polynomial" },
    { "lr_end", NULL, "0.125", "schedule=polynomial" },
    { "warmup_steps", NULL, "9", "" },
    { "clip", NULL, "value", "" },
    { "clip", NULL, "tensor_norm", "" },
    { "clip", NULL, "global_norm", "" },
    { "clip_max", NULL, "0.5", "clip=tensor_norm" },
    { "layerwise", NULL, "gradient", "" },
    { "layerwise", "sgd adagrad rmsprop adadelta " ADAMS, "update", "" },
    { "layerwise", "momentum", "update", "momentum_form=ema" },
    { "layerwise_phi", NULL, "clip", "layerwise=gradient" },
    { "phi_min", NULL, "0.5", "layerwise=gradient layerwise_phi=clip" },
    { "phi_max", NULL, "0.5", "layerwise=gradient layerwise_phi=clip" },
    { "trust_coefficient", NULL, "0.5", "layerwise=gradient" },
    { "trust_max", NULL, "0.5", "layerwise=gradient" },
    { "layerwise_eps", NULL, "0.5", "layerwise=gradient" },
    { "layerwise_min_ndim", NULL, "2", "layerwise=gradient" },
    { "lookahead_k", NULL, "5", "" },
    { "lookahead_alpha", NULL, "0.75", "lookahead_k=5" },
    { "lookahead_momentum", NULL, "reset", "lookahead_k=5" },
    { "lookahead_momentum", NULL, "pullback", "lookahead_k=5" },
    { "aggregate", NULL, "mean", "" },
    { "aggregate", NULL, "sum", "" },
    { "nonfinite", NULL, "skip", "" },
    { "nonfinite", NULL, "propagate", "" },
};
enum { USES = sizeof uses / sizeof uses[0] };

/* Whether a list of words has this one. */
static bool lists(const char *words, const char *word)
{
    size_t size = strlen(word);
    const char *at = words;

    while (at != NULL &&
           (strncmp(at, word, size) != 0 || (at[size] != ' ' && at[size] != '\0'))) {
        at = strchr(at, ' ');
        at = at != NULL ? at + 1 : NULL;
    }
    return at != NULL;
}

static bool uses_in_any_form(const char *option, const char *rule)
{
    for (size_t i = 0; i < USES; i++) {
        if (strcmp(uses[i].option, option) == 0 &&
            (uses[i].rules == NULL || lists(uses[i].rules, rule))) {
            return true;
        }
    }
    return false;
}

/* NAME=VALUE pairs as the three notations have them. */
struct said {
    char expression[256], yaml[256];
    char names[MOST][64], words[MOST][64];
    struct opt_wire_option options[MOST];
    size_t count;
};

static void say(struct said *said, const char *name, const char *value)
{
    size_t at = said->count++;
    char *expression = said->expression + strlen(said->expression);
    char *yaml = said->yaml + strlen(said->yaml);
    struct opt_wire_option *option = &said->options[at];

    cr_assert_lt(at, MOST);
    sprintf(expression, "%s%s=%s", at > 0 ? ", " : "", name, value);
    sprintf(yaml, "%s: %s\n", name, value);
    *option = (struct opt_wire_option){ .name = strcpy(said->names[at], name) };
    if (sscanf(value, "%lf", &option->number) == 1) {
        option->kind = OPT_VALUE_NUMBER;
    } else if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0) {
        option->kind = OPT_VALUE_FLAG;
        option->flag = value[0] == 't';
    } else {
        option->kind = OPT_VALUE_WORD;
        option->word = strcpy(said->words[at], value);
    }
}

static void say_all(struct said *said, const char *rule, size_t use)
{
    char pairs[128], *rest, *pair;

    memset(said, 0, sizeof *said);
    sprintf(said->yaml, "rule: %s\n", rule);
    strcpy(pairs, uses[use].with);
    for (pair = strtok_r(pairs, " ", &rest); pair != NULL;
         pair = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(pair, '=');
        *value++ = '\0';
        say(said, pair, value);
    }
    say(said, uses[use].option, uses[use].value);
}

enum { EXPRESSION, YAML, MESSAGE, NOTATIONS };

static enum opt_status read_as(int notation, const char *rule, const struct said *said,
                               struct opt_spec *out, struct opt_error *error)
{
    char text[300];
    struct opt_wire_spec wire = { .expression = "",
                                  .rule = rule,
                                  .options = said->options,
                                  .option_count = said->count };

    error->text[0] = '\0';
    if (notation == EXPRESSION) {
        sprintf(text, "%s(%s)", rule, said->expression);
        return opt_spec_parse(text, out, error);
    }
    return notation == YAML
               ? opt_spec_read_yaml(said->yaml, strlen(said->yaml), "x", out, error)
               : opt_spec_from_wire(&wire, out, error);
}

static double value_of(const char *name, const struct opt_spec *spec)
{
    return opt_option_get(opt_option_find(name, strlen(name)), &spec->options);
}

Test(options, that_a_rule_uses_are_taken_in_every_notation)
{
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);

    for (size_t r = 0; r < count; r++) {
        const char *rule = rules[r]->name;
        for (size_t i = 0; i < USES; i++) {
            struct said said;
            struct opt_spec plain, spec, again;
            struct opt_error error;
            char first[TEXT] = "", text[TEXT];

            if (uses[i].rules != NULL && !lists(uses[i].rules, rule)) {
                continue;
            }
            say_all(&said, rule, i);
            opt_spec_init(&plain, rule, NULL);
            for (int notation = EXPRESSION; notation < NOTATIONS; notation++) {
                cr_expect_eq(read_as(notation, rule, &said, &spec, &error), OPT_OK,
                             "%s, %s: %s", rule, said.expression, error.text);
                opt_spec_print(&spec, text, sizeof text);
                cr_expect(notation == EXPRESSION || strcmp(text, first) == 0,
                          "%s is not %s", text, first);
                strcpy(first, text);
                cr_expect_neq(value_of(uses[i].option, &spec),
                              value_of(uses[i].option, &plain), "%s: %s", rule,
                              said.expression);
            }
            cr_expect_eq(opt_spec_parse(text, &again, &error), OPT_OK, "%s", text);
            cr_expect_eq(value_of(uses[i].option, &spec),
                         value_of(uses[i].option, &again), "%s", text);
        }
    }
}

/* The rules that the tables below define; another one is defined by its golden case. */
static bool is_defined(const char *rule);

Test(options, that_a_rule_does_not_use_are_refused_in_every_notation)
{
    size_t count;
    const struct opt_rule *const *rules = opt_rules(&count);

    for (size_t r = 0; r < count; r++) {
        const char *rule = rules[r]->name;
        for (size_t i = 0; i < USES; i++) {
            struct said said = { .yaml = "" };
            struct opt_spec spec;
            struct opt_error error;

            if (uses_in_any_form(uses[i].option, rule) || !is_defined(rule)) {
                continue;
            }
            sprintf(said.yaml, "rule: %s\n", rule);
            say(&said, uses[i].option, uses[i].value);
            for (int notation = EXPRESSION; notation < NOTATIONS; notation++) {
                cr_expect_eq(read_as(notation, rule, &said, &spec, &error),
                             OPT_INVALID_ARGUMENT, "%s: %s", rule, said.expression);
                cr_expect_not_null(strstr(error.text, "has no option"), "%s",
                                   error.text);
            }
        }
    }
}

Test(options, of_the_registry_are_all_in_the_definition)
{
    size_t rule_count, option_count;
    const struct opt_rule *const *rules = opt_rules(&rule_count);
    const struct opt_option *table = opt_options_table(&option_count);

    for (size_t r = 0; r < rule_count; r++) {
        for (size_t i = 0; i < option_count && is_defined(rules[r]->name); i++) {
            cr_expect_eq(opt_option_applies(&table[i], rules[r]),
                         uses_in_any_form(table[i].name, rules[r]->name), "%s of %s",
                         table[i].name, rules[r]->name);
        }
    }
}

/* Numbers and words of a rule that says nothing of them. */
static const struct {
    const char *rule, *defaults;
} rules_say[] = {
    { "sgd", "lr=0.01" },
    { "momentum", "lr=0.01, momentum=0.9, momentum_form=velocity" },
    { "nag", "lr=0.01, momentum=0.9, momentum_form=velocity, nesterov_form=classical" },
    { "adagrad", "lr=0.01, eps=1e-8, eps_mode=inside_sqrt, initial_accumulator=0" },
    { "rmsprop", "lr=0.001, rho=0.9, eps=1e-8, eps_mode=inside_sqrt, centered=false, "
                 "momentum=0" },
    { "adadelta", "lr=1, rho=0.9, eps=1e-6" },
    { "adam", "lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode=outside_sqrt, "
              "bias_correction=true" },
    { "adamax", "lr=0.002, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode=zero_safe" },
    { "nadam", "lr=0.002, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode=outside_sqrt, "
               "nadam_form=same_step, momentum_decay=0.004" },
    { "amsgrad", "lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode=outside_sqrt, "
                 "bias_correction=false, max_of=raw" },
    { "radam", "lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode=outside_sqrt, "
               "rectify_threshold=4, rectify_fallback=momentum" },
    { "adabound", "lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, final_lr=0.1, "
                  "gamma=0.001" },
    { "amsbound", "lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, final_lr=0.1, "
                  "gamma=0.001" },
};
enum { RULES_SAY = sizeof rules_say / sizeof rules_say[0] };

static const char everywhere[] =
    "weight_decay=0, decay=coupled, decay_lr=lr, schedule=constant, warmup_steps=0, "
    "schedule_steps=1, schedule_gamma=0.1, schedule_power=1, lr_end=0, clip=none, "
    "layerwise=none, layerwise_phi=identity, phi_min=0, phi_max=10, "
    "trust_coefficient=1, trust_max=0, layerwise_eps=0, layerwise_min_ndim=0, "
    "lookahead_k=0, lookahead_alpha=0.5, lookahead_momentum=keep, "
    "aggregate=weighted_mean, nonfinite=reject";

static bool is_defined(const char *rule)
{
    for (size_t i = 0; i < RULES_SAY; i++) {
        if (strcmp(rules_say[i].rule, rule) == 0) {
            return true;
        }
    }
    return false;
}

Test(options, have_the_defaults_of_the_definition)
{
    for (size_t i = 0; i < RULES_SAY; i++) {
        char text[TEXT], printed[TEXT];
        struct opt_spec spec;
        struct opt_error error = { .text = "" };

        sprintf(text, "%s(%s, %s)", rules_say[i].rule, rules_say[i].defaults,
                everywhere);
        cr_assert_eq(opt_spec_parse(text, &spec, &error), OPT_OK, "%s: %s", text,
                     error.text);
        opt_spec_print(&spec, printed, sizeof printed);
        cr_expect_str_eq(printed, rules_say[i].rule);
    }
}
