/* test_spec — expressions, messages and setters: what is taken, what is refused with
 * which words, and that everything prints back.
 */
#include <criterion/criterion.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/optim/number.h"
#include "common/optim/options.h"
#include "common/optim/rule.h"
#include "common/optim/spec.h"

enum { TEXT = OPT_EXPRESSION_BYTES + 1 };

static bool same_options(const struct opt_spec *a, const struct opt_spec *b)
{
    size_t count;
    const struct opt_option *table = opt_options_table(&count);
    bool same = a->rule == b->rule;

    for (size_t i = 0; same && i < count; i++) {
        same = opt_option_get(&table[i], &a->options) ==
               opt_option_get(&table[i], &b->options);
    }
    return same;
}

static const struct {
    const char *text, *canonical;
} taken[] = {
    { "sgd", "sgd" },
    { " sgd ( ) ", "sgd" },
    { "adam(lr=1e-3, beta2=0.98)", "adam(beta2=0.98)" },
    { "adam(beta2=0.98,lr=.5)", "adam(lr=0.5, beta2=0.98)" },
    { "adam(lr=1e+1)", "adam(lr=10)" },
    { "sgd(lr=+2)", "sgd(lr=2)" },
    { "sgd(lr=-0)", "sgd(lr=0)" },
    { "sgd(lr=0.1000000000000000055)", "sgd(lr=0.1)" },
    { "adam(lr=1e-3, weight_decay=0.01, decay=decoupled, lookahead_k=6)",
      "adam + decay(0.01, decoupled) + lookahead(6)" },
    { "adam + decay(0.01, decoupled)", "adam + decay(0.01, decoupled)" },
    { "adam + decay(weight_decay=0.01, decay=update)", "adam + decay(0.01, update)" },
    { "sgd + decay(0.1, decoupled, lr=schedule)",
      "sgd + decay(0.1, decoupled, lr=schedule)" },
    { "sgd + clip(global_norm, 1)", "sgd + clip(global_norm, 1)" },
    { "sgd + clip(value, max=2.5)", "sgd + clip(value, 2.5)" },
    { "adam + layerwise", "adam + layerwise(update)" },
    { "adam + layerwise()", "adam + layerwise(update)" },
    { "adam + layerwise(phi_max=10)", "adam + layerwise(update, phi=clip)" },
    { "adam + layerwise(phi=clip, phi_min=1e-3, min_ndim=2)",
      "adam + layerwise(update, phi=clip, phi_min=0.001, min_ndim=2)" },
    { "momentum + layerwise(gradient, trust_coefficient=1e-3, eps=1e-8, trust_max=1)",
      "momentum + layerwise(gradient, trust_coefficient=0.001, trust_max=1, "
      "eps=1e-08)" },
    { "momentum + lookahead(k=6, alpha=0.8, momentum=reset)",
      "momentum + lookahead(6, alpha=0.8, momentum=reset)" },
    { "sgd + cosine(20000, end=1e-5) + warmup(500)",
      "sgd + warmup(500) + cosine(20000, end=1e-05)" },
    { "sgd + step(1e3, gamma=0.5)", "sgd + step(1000, gamma=0.5)" },
    { "sgd + exponential(100)", "sgd + exponential(100)" },
    { "sgd + polynomial(100, power=2)", "sgd + polynomial(100, power=2)" },
    { "sgd + constant()", "sgd" },
    { "sgd(schedule=cosine, schedule_steps=10)", "sgd + cosine(10)" },
    { "sgd + nonfinite(skip) + aggregate(mean)",
      "sgd + aggregate(mean) + nonfinite(skip)" },
    { "rmsprop(centered=true, momentum=0.9, momentum_form=ema)",
      "rmsprop(centered=true, momentum=0.9, momentum_form=ema)" },
    { "amsgrad(bias_correction=true)", "amsgrad(bias_correction=true)" },
    { "adam(bias_correction=false)", "adam(bias_correction=false)" },
    { "adam + tensors(\"*.bias\", weight_decay=0, layerwise=none) + "
      "tensors(\"n\\\"\\\\\","
      " lr_scale=0.5)",
      "adam + tensors(\"*.bias\", weight_decay=0, layerwise=none) + "
      "tensors(\"n\\\"\\\\\", "
      "lr_scale=0.5)" },
    { "adamw", "adam + decay(0.01, decoupled)" },
    { "adamw(lr=0.1) + decay(0.2)", "adam(lr=0.1) + decay(0.2, decoupled)" },
    { "lars", "momentum(momentum_form=ema) + decay(0.0001) + layerwise(update)" },
    { "lars2017", "momentum(lr=0.1) + decay(0.0005) + layerwise(gradient, "
                  "trust_coefficient=0.001)" },
    { "lamb(lr=0.002)",
      "adam(lr=0.002, eps=1e-06) + decay(0.01, update) + layerwise(update)" },
    { "ranger", "radam + lookahead(6)" },
    { "ralamb", "radam + decay(0, update) + layerwise(update)" },
    { "rangerlars", "radam + decay(0, update) + layerwise(update) + lookahead(6)" },
};

Test(spec, expressions_have_one_canonical_text_that_reads_back)
{
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        struct opt_spec spec, again;
        struct opt_error error = { .text = "" };
        char text[TEXT], back[TEXT];

        cr_assert_eq(opt_spec_parse(taken[i].text, &spec, &error), OPT_OK, "%s: %s",
                     taken[i].text, error.text);
        size_t size = opt_spec_print(&spec, text, sizeof text);
        cr_assert_str_eq(text, taken[i].canonical);
        cr_assert_eq(size, strlen(text));
        cr_assert_eq(opt_spec_parse(text, &again, &error), OPT_OK, "%s: %s", text,
                     error.text);
        opt_spec_print(&again, back, sizeof back);
        cr_assert_str_eq(back, text);
        cr_assert(same_options(&spec, &again), "%s", text);
        opt_spec_fini(&spec);
        opt_spec_fini(&again);
    }
}

/* Part of the sentence that each must be refused with. */
static const struct {
    const char *text, *sentence;
} refused[] = {
    { "", "expected an optimizer, but the text ends" },
    { "adan", "did you mean 'adam'?" },
    { "zzzzzz", "there are sgd, momentum, nag" },
    { "ADAM", "did you mean 'adam'?" },
    { "torch.optim.Adam", "did you mean 'torch.adam'?" },
    { "torch.optim.SGD(lr=1)", "did you mean 'torch.sgd'?" },
    { "torch.AdamW", "did you mean 'torch.adamw'?" },
    { "keras.optimizers.RMSprop", "did you mean 'keras.rmsprop'?" },
    { "torch.sgd + lookahead(3, alpha=2)", "alpha=2 is out of range" },
    { "torch.sgd(momentum=0.9)",
      "torch.sgd has no option 'momentum': torch.momentum(momentum=...) is SGD with "
      "momentum" },
    { "torch.sgd(lr=0.1, momentum=0.9, nesterov=true)",
      "torch.momentum(momentum=...) is SGD with momentum" },
    { "torch.momentum(nesterov=true)", "torch.nag(momentum=...) is SGD with nesterov" },
    { "torch.adam(betas=(0.9, 0.999))",
      "at character 12: torch.adam has no option 'betas': the pair betas=(a, b) is "
      "beta1=a, beta2=b here" },
    { "torch.adam(amsgrad=true)", "torch.amsgrad is Adam with amsgrad" },
    { "torch.rmsprop(alpha=0.99)", "alpha is rho here" },
    { "keras.adam(learning_rate=0.1)", "learning_rate is lr here" },
    { "keras.adam(beta_1=0.8)", "beta_1 is beta1 here" },
    { "optax.adam(b1=0.8)", "b1 is beta1 here" },
    { "decay(1)",
      "'decay' is a term, which follows an optimizer: write adam + decay(...)" },
    { "tensors(\"a\", lr_scale=1)", "'tensors' is a term" },
    { "adam(cosine=5)", "'cosine' is no option but a term: write adam + cosine(...)" },
    { "adam + lr(5)", "'lr' is no term but an option: write lr=..." },
    { "adam + 5", "unknown term '5': there are decay, clip" },
    { "adam + clip(max=1)",
      "clip needs mode, one of none, value, tensor_norm, global" },
    { "adam + warmup(x)", "warmup_steps must be an integer in [0, 1e+15], not 'x'" },
    { "adam + constant(5)", "constant takes no options, and '5' is one" },
    { "sgd(momentum=0.9)",
      "sgd has no option 'momentum': it has lr; those with momentum "
      "are momentum, nag, rmsprop" },
    { "adam(betta1=0.9)",
      "at character 6: unknown option 'betta1' of adam: did you mean "
      "'beta1'?" },
    { "adam(rho=0.9)", "adam has no option 'rho': it has lr, beta1" },
    { "adam(beta1=1)", "beta1=1 is out of range: it must be in [0, 1)" },
    { "adam(beta1=-0.1)", "[0, 1)" },
    { "adam(lr=nan)", "lr must be a number" },
    { "adam(lr=inf)", "lr must be a number" },
    { "adam(lr=1e999)", "not a finite decimal number" },
    { "adam(lr=0x10)", "not a finite decimal number" },
    { "adam(lr=1.5x)", "not a finite decimal number" },
    { "adam(lr=1e)", "not a finite decimal number" },
    { "adam(lr=.)", "not a finite decimal number" },
    { "adam(lr=1,5)", "'5' needs a name" },
    { "adam(lr=1 2)", "expected ',' or ')', not '2'" },
    { "adam(lr)", "lr needs a value: write lr=..." },
    { "adam(1)", "'1' needs a name: write lr=1" },
    { "adam(lr=)", "expected a value" },
    { "adam(lr=1", "expected ',' or ')', but the text ends" },
    { "adam(lr=1,)", "expected a name or a value" },
    { "adam)", "expected '+' or the end, not ')'" },
    { "adam decay(1)", "expected '+' or the end" },
    { "adam +", "expected a term after '+'" },
    { "adam + + decay(1)", "at character 8: expected a term after '+', not '+'" },
    { "adam(lr=1, lr=1)", "at character 12: lr is given twice" },
    { "adam(weight_decay=1) + decay(2)", "weight_decay is given twice" },
    { "adam + cosine(2) + step(3)", "step is a second schedule, and there can be one" },
    { "adam + cosine(2) + constant", "schedule is given twice" },
    { "adam + lamb", "'lamb' must come first" },
    { "adam + cosin(3)", "did you mean 'cosine'?" },
    { "adam + cosine()", "cosine needs steps, an integer in [1, 1e+15]" },
    { "adam + cosine(0)", "an integer in [1, 1e+15]" },
    { "adam + cosine(1.5)", "an integer in [1, 1e+15]" },
    { "adam + cosine(10, gamma=2)", "cosine has no option 'gamma'" },
    { "adam + step(10, gama=2)", "did you mean 'gamma'?" },
    { "adam + clip(value)", "clip needs max, a number in (0, 1e+30]" },
    { "adam + clip(value, 0)", "clip_max=0 is out of range: it must be in (0, " },
    { "adam + clip(vale, 1)", "did you mean 'value'?" },
    { "adam + decay(coupled)", "weight_decay must be a number" },
    { "adam + decay(1, 2)", "decay must be one of coupled, decoupled, update" },
    { "adam + decay(1, coupled, lr, 3)", "needs a name" },
    { "adam + lookahead()", "lookahead needs k, an integer in [0, 1e+15]" },
    { "adam + lookahead(alpha=0.5)", "lookahead needs k, an integer in [0, 1e+15]" },
    { "adam + lookahead(5, alpha=0)", "(0, 1]" },
    { "adam(lookahead_alpha=0.7)", "lookahead_alpha has no effect here: it needs "
                                   "lookahead_k to be above 0" },
    { "adam(clip_max=3)",
      "it needs clip to be one of value, tensor_norm, global_norm" },
    { "sgd + decay(1, lr=schedule)", "it needs decay to be decoupled" },
    { "sgd(lr=0) + decay(1, decoupled, lr=schedule)", "needs lr above 0" },
    { "adam(phi_max=3, layerwise=update)", "it needs layerwise_phi to be clip" },
    { "adam + layerwise(phi_min=5, phi_max=4)", "phi_min=5 is above phi_max=4" },
    { "momentum + layerwise()", "momentum_form=velocity includes it" },
    { "nag + layerwise(update)", "momentum_form=velocity includes it" },
    { "rmsprop(momentum=0.9) + layerwise()", "momentum_form=velocity includes it" },
    { "nag(momentum_form=ema)", "not one of velocity, heavy_ball" },
    { "nag(momentum_form=heavy_ball)", "nesterov_form=reformulated" },
    { "adam(eps_mode=zero_safe)", "not one of inside_sqrt, outside_sqrt, epsilon_hat" },
    { "adamax(eps_mode=inside_sqrt)", "not one of zero_safe, in_max, outside" },
    { "adamax(eps=1e-3)", "it needs eps_mode to be one of in_max, outside" },
    { "adadelta(eps_mode=inside_sqrt)", "adadelta has no option 'eps_mode'" },
    { "nadam(momentum_decay=1)", "it needs nadam_form to be scheduled" },
    { "radam(rectify_threshold=3.9)", "[4, " },
    { "adabound(lr=0)", "give lr > 0" },
    { "adabound(gamma=0)", "(0, " },
    { "rmsprop(momentum_form=ema)",
      "momentum_form has no effect here: it needs momentum to be above 0" },
    { "rmsprop(centered=1)", "one of false, true, not the number 1" },
    { "rmsprop(centered=yes)", "one of false, true, not 'yes'" },
    { "sgd + tensors(x)", "a pattern in double quotes" },
    { "sgd + tensors(\"x)", "no closing quote" },
    { "sgd + tensors(\"x\")", "sets nothing" },
    { "sgd + tensors(\"\", lr_scale=1)", "tensor pattern" },
    { "sgd + tensors(\"x\", lr_scal=1)", "did you mean 'lr_scale'?" },
    { "sgd + tensors(\"x\", lr_scale=-1)", "[0, 1e+30]" },
    { "sgd + tensors(\"x\", lr_scale=1, lr_scale=1)", "given twice" },
    { "sgd + tensors(\"x\", layerwise=update)", "can only be none" },
    { "sgd + tensors(\"x\", missing=ok)", "sets nothing" },
    { "sgd + tensors(\"x\", lr_scale=1, missing=no)", "can only be ok" },
    { "sgd + tensors(\"x\", lr_scale=1) + tensors(\"x\", lr_scale=2)",
      "two groups have the pattern" },
    { "sgd(a2345678901234567890123456789012345678901234567890123456789012345=1)",
      "too long" },
};

Test(spec, refuses_with_a_sentence_that_names_the_word_and_what_would_be_right)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct opt_spec spec;
        struct opt_error error = { .text = "" };

        cr_expect_eq(opt_spec_parse(refused[i].text, &spec, &error),
                     OPT_INVALID_ARGUMENT, "%s was taken", refused[i].text);
        cr_expect_not_null(strstr(error.text, refused[i].sentence), "%s: \"%s\"",
                           refused[i].text, error.text);
    }
}

Test(spec, a_refused_expression_leaves_the_result_alone)
{
    struct opt_spec spec = { .group_count = 77 };

    cr_assert_neq(opt_spec_parse("adam(lr=2) + decay(x)", &spec, NULL), OPT_OK);
    cr_assert_null(spec.rule);
    cr_assert_eq(spec.group_count, 77);
}

Test(spec, every_beginning_of_an_expression_is_taken_or_refused)
{
    const char *text = "adam(lr=1e-3, beta2=0.98) + decay(0.01, decoupled) + "
                       "clip(global_norm, 1) + layerwise(phi_max=10) + lookahead(6) + "
                       "tensors(\"a\\\"*\", weight_decay=0)";
    char part[256];
    size_t ok = 0;

    for (size_t n = 0; n <= strlen(text); n++) {
        struct opt_spec spec;

        memcpy(part, text, n);
        part[n] = '\0';
        ok += opt_spec_parse(part, &spec, NULL) == OPT_OK ? 1 : 0;
    }
    /* After each complete term, the spaces behind them too, and "layerwise" alone. */
    cr_assert_geq(ok, 6);
    cr_assert_leq(ok, 16);
}

Test(spec, refuses_a_text_past_the_limit)
{
    static char text[2 * TEXT];
    struct opt_spec spec;
    struct opt_error error;

    memset(text, ' ', OPT_EXPRESSION_BYTES);
    memcpy(text, "sgd", 3);
    cr_assert_eq(opt_spec_parse(text, &spec, &error), OPT_OK);
    text[OPT_EXPRESSION_BYTES] = ' ';
    cr_assert_eq(opt_spec_parse(text, &spec, &error), OPT_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(error.text, "262144"));
}

Test(spec, refuses_groups_that_would_not_fit_an_expression)
{
    struct opt_spec spec;
    struct opt_error error;
    char pattern[OPT_NAME_MAX + 1];

    cr_assert_eq(opt_spec_init(&spec, "sgd", &error), OPT_OK);
    for (int i = 0; i < OPT_GROUPS_MAX; i++) {
        struct opt_wire_option scale = { .name = "lr_scale", .number = 2 };
        struct opt_wire_group group = { pattern, &scale, 1 };

        snprintf(pattern, sizeof pattern, "%0250d", i);
        cr_assert_eq(opt_spec_group(&spec, &group, &error), OPT_OK);
    }
    cr_assert_eq(opt_spec_check(&spec, &error), OPT_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(error.text, "262144"));
    opt_spec_fini(&spec);
}

Test(spec, prints_like_snprintf)
{
    struct opt_spec spec;
    char text[8] = "xxxxxxx";

    cr_assert_eq(opt_spec_parse("adam(lr=0.5)", &spec, NULL), OPT_OK);
    cr_assert_eq(opt_spec_print(&spec, NULL, 0), 12);
    cr_assert_eq(opt_spec_print(&spec, text, 6), 12);
    cr_assert_str_eq(text, "adam(");
}

static const struct opt_wire_option lamb_options[] = {
    { .name = "lr", .kind = OPT_VALUE_NUMBER, .number = 0.002 },
    { .name = "decay", .kind = OPT_VALUE_WORD, .word = "update" },
    { .name = "bias_correction", .kind = OPT_VALUE_FLAG, .flag = false },
};

Test(spec, a_message_means_what_the_expression_means)
{
    const struct opt_wire_option zero = { .name = "weight_decay", .number = 0 };
    const struct opt_wire_group group = { "*.bias", &zero, 1 };
    struct opt_wire_spec wire = { "", "lamb", lamb_options, 3, &group, 1 };
    struct opt_spec spec;
    struct opt_error error = { .text = "" };
    char text[TEXT];

    cr_assert_eq(opt_spec_from_wire(&wire, &spec, &error), OPT_OK, "%s", error.text);
    opt_spec_print(&spec, text, sizeof text);
    cr_assert_str_eq(text, "adam(lr=0.002, eps=1e-06, bias_correction=false) + "
                           "decay(0.01, update) + layerwise(update) + "
                           "tensors(\"*.bias\", weight_decay=0)");
    opt_spec_fini(&spec);
    wire = (struct opt_wire_spec){ .expression = "lamb", .rule = "" };
    cr_assert_eq(opt_spec_from_wire(&wire, &spec, &error), OPT_OK);
}

static void refuse_message(struct opt_wire_spec wire, const char *sentence)
{
    struct opt_spec spec;
    struct opt_error error = { .text = "" };

    cr_expect_eq(opt_spec_from_wire(&wire, &spec, &error), OPT_INVALID_ARGUMENT);
    cr_expect_not_null(strstr(error.text, sentence), "\"%s\", not \"%s\"", error.text,
                       sentence);
}

Test(spec, refuses_messages_as_it_refuses_expressions)
{
    const struct opt_wire_option twice[] = { { .name = "lr", .number = 1 },
                                             { .name = "lr", .number = 1 } };
    const struct opt_wire_option nan[] = { { .name = "lr", .number = (double)NAN } };
    const struct opt_wire_option unknown[] = { { .name = "lrr", .number = 1 } };
    const struct opt_wire_option none[] = { { .name = "", .number = 1 } };
    const struct opt_wire_option flag[] = { { .name = "lr", .kind = OPT_VALUE_FLAG } };

    refuse_message((struct opt_wire_spec){ "sgd", "sgd", NULL, 0, NULL, 0 },
                   "not both");
    refuse_message((struct opt_wire_spec){ "", "", NULL, 0, NULL, 0 },
                   "unknown optimizer ''");
    refuse_message((struct opt_wire_spec){ "", "sgd", twice, 2, NULL, 0 },
                   "lr is given twice");
    refuse_message((struct opt_wire_spec){ "", "sgd", nan, 1, NULL, 0 },
                   "out of range");
    refuse_message((struct opt_wire_spec){ "", "sgd", unknown, 1, NULL, 0 },
                   "did you mean 'lr'?");
    refuse_message((struct opt_wire_spec){ "", "sgd", none, 1, NULL, 0 },
                   "sgd has no option ''");
    refuse_message((struct opt_wire_spec){ "", "sgd", flag, 1, NULL, 0 },
                   "lr must be a number");
}

Test(spec, every_option_of_a_rule_is_in_the_table)
{
    size_t rule_count, option_count;
    const struct opt_rule *const *rules = opt_rules(&rule_count);
    const struct opt_option *options = opt_options_table(&option_count);

    cr_assert_leq(option_count, 64, "options given are kept as bits");
    for (size_t r = 0; r < rule_count; r++) {
        for (const struct opt_rule_option *own = rules[r]->options; own->name != NULL;
             own++) {
            const struct opt_option *option =
                opt_option_find(own->name, strlen(own->name));

            cr_assert_not_null(option, "%s of %s is not in the table", own->name,
                               rules[r]->name);
            cr_assert(option->of_rules);
        }
        cr_assert_str_eq(rules[r]->options[0].name, "lr");
    }
    for (size_t i = 0; i < option_count; i++) {
        cr_assert_eq(opt_option_index(&options[i]), i);
        if (options[i].needs != NULL) {
            cr_assert_not_null(
                opt_option_find(options[i].needs, strlen(options[i].needs)));
        }
    }
}

/* Options at random from the table; whatever the checks let pass prints back. */
Test(spec, random_specifications_print_back)
{
    size_t rule_count, option_count, passed = 0;
    const struct opt_rule *const *rules = opt_rules(&rule_count);
    const struct opt_option *table = opt_options_table(&option_count);
    uint64_t seed = 88172645463325252u;

    for (int round = 0; round < 20000; round++) {
        struct opt_spec spec, again;
        struct opt_error error = { .text = "" };
        char text[TEXT], back[TEXT];

        opt_spec_init(&spec, rules[round % (int)rule_count]->name, NULL);
        for (int k = 0; k < 4; k++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            const struct opt_option *option = &table[seed % option_count];
            double number = (double)(seed >> 40) * 0x1p-24;
            struct opt_wire_option value = { .name = option->name, .number = number };

            if (option->kind == OPT_KIND_COUNT) {
                value.number = (double)(seed >> 50) + 1;
            } else if (option->kind == OPT_KIND_WORD) {
                value.kind = OPT_VALUE_WORD;
                value.word = option->words[(seed >> 45) % 2];
            } else if (option->kind == OPT_KIND_FLAG) {
                value.kind = OPT_VALUE_FLAG;
                value.flag = (seed >> 45) % 2 != 0;
            }
            opt_option_set(&spec, option, &value, NULL);
        }
        if (opt_spec_check(&spec, NULL) != OPT_OK) {
            continue;
        }
        passed++;
        opt_spec_print(&spec, text, sizeof text);
        cr_assert_eq(opt_spec_parse(text, &again, &error), OPT_OK, "%s: %s", text,
                     error.text);
        opt_spec_print(&again, back, sizeof back);
        cr_assert_str_eq(back, text);
        cr_assert(same_options(&spec, &again), "%s", text);
    }
    cr_assert_gt(passed, 4000);
}

Test(spec, slots_are_those_of_the_composition_and_have_their_start)
{
    const char *names[OPT_SLOTS_MAX];
    struct opt_spec spec;
    bool copy;

    opt_spec_parse("rmsprop(centered=true, momentum=0.5) + lookahead(5, "
                   "momentum=pullback)",
                   &spec, NULL);
    cr_assert_eq(opt_spec_slots(&spec, names), 5);
    cr_assert_str_eq(names[0], "square_avg");
    cr_assert_str_eq(names[1], "grad_avg");
    cr_assert_str_eq(names[2], "momentum_buffer");
    cr_assert_str_eq(names[3], "slow_param");
    cr_assert_str_eq(names[4], "slow_momentum");
    for (size_t s = 0; s < 5; s++) {
        cr_assert_eq(opt_spec_slot_start(&spec, s, &copy), 0.0f);
        cr_assert_eq(copy, s == 3);
    }
    opt_spec_parse("rmsprop + lookahead(5, momentum=pullback)", &spec, NULL);
    cr_assert_eq(opt_spec_slots(&spec, names), 2, "there is no momentum to pull back");
    cr_assert_str_eq(names[1], "slow_param");
    opt_spec_parse("adagrad(initial_accumulator=0.5)", &spec, NULL);
    cr_assert_eq(opt_spec_slots(&spec, names), 1);
    cr_assert_eq(opt_spec_slot_start(&spec, 0, &copy), 0.5f);
    opt_spec_parse("sgd", &spec, NULL);
    cr_assert_eq(opt_spec_slots(&spec, names), 0);
}

Test(spec, numbers_read_and_print_the_same_in_every_locale)
{
    char text[OPT_NUMBER_TEXT];
    double value;

    /* Programs that link the library set what they like; C.UTF-8 always exists, and one
     * with a decimal comma is tried where it is installed. */
    if (setlocale(LC_ALL, "de_DE.UTF-8") == NULL) {
        setlocale(LC_ALL, "C.UTF-8");
    }
    cr_assert(opt_number_parse("0.5", 3, &value));
    cr_assert_eq(value, 0.5);
    opt_number_print(0.1, text);
    cr_assert_str_eq(text, "0.1");
    opt_number_print(123456789, text);
    cr_assert_str_eq(text, "123456789");
    opt_number_print(0.1 + 0.2, text);
    cr_assert_str_eq(text, "0.30000000000000004");
    cr_assert_not(opt_number_parse("0,5", 3, &value));
}
