/* options — see options.h. */
#include "common/optim/options.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/optim/number.h"

static const char *const momentum_forms[] = { "velocity", "heavy_ball", "ema", NULL };
static const char *const nesterov_forms[] = { "classical", "reformulated", NULL };
static const char *const eps_modes[] = { "inside_sqrt", "outside_sqrt", "epsilon_hat",
                                         "zero_safe",   "in_max",       "outside",
                                         NULL };
static const char *const max_ofs[] = { "raw", "corrected", NULL };
static const char *const nadam_forms[] = { "same_step", "next_step", "scheduled",
                                           NULL };
static const char *const fallbacks[] = { "momentum", "skip", NULL };
static const char *const flags[] = { "false", "true", NULL };
static const char *const decays[] = { "coupled", "decoupled", "update", NULL };
static const char *const decay_lrs[] = { "lr", "schedule", NULL };
static const char *const schedules[] = { "constant",   "step",   "exponential",
                                         "polynomial", "cosine", NULL };
static const char *const clips[] = { "none", "value", "tensor_norm", "global_norm",
                                     NULL };
static const char *const layerwises[] = { "none", "update", "gradient", NULL };
static const char *const phis[] = { "identity", "clip", NULL };
static const char *const lookahead_momenta[] = { "keep", "reset", "pullback", NULL };
static const char *const aggregates[] = { "weighted_mean", "mean", "sum", NULL };
static const char *const nonfinites[] = { "reject", "skip", "propagate", NULL };

/* Values are multiplied into float tensors, steps are counted in doubles. */
#define LARGEST 1e30
#define MOST_STEPS 1e15

#define AT(field) offsetof(struct opt_options, field)
#define LIMIT(low, high, low_open, high_open) low, high, low_open, high_open
#define FROM_ZERO LIMIT(0, LARGEST, false, false)
#define ABOVE_ZERO LIMIT(0, LARGEST, true, false)
#define BELOW_ONE LIMIT(0, 1, false, true)
#define ANY LIMIT(0, 0, false, false)

enum {
    ANY_CLIP =
        1u << OPT_CLIP_VALUE | 1u << OPT_CLIP_TENSOR_NORM | 1u << OPT_CLIP_GLOBAL_NORM,
    ANY_LAYERWISE = 1u << OPT_LAYERWISE_UPDATE | 1u << OPT_LAYERWISE_GRADIENT,
    TIMED = 1u << OPT_STEP | 1u << OPT_EXPONENTIAL | 1u << OPT_POLYNOMIAL |
            1u << OPT_COSINE,
    GEOMETRIC = 1u << OPT_STEP | 1u << OPT_EXPONENTIAL,
    ENDING = 1u << OPT_POLYNOMIAL | 1u << OPT_COSINE
};

#define NUMBER OPT_KIND_NUMBER
#define COUNT OPT_KIND_COUNT
#define WORD OPT_KIND_WORD
#define FLAG OPT_KIND_FLAG

/* clang-format off */
static const struct opt_option table[] = {
    /* name               kind    place                  default  range       words            of_rules  needs
      what it does */
    { "lr",               NUMBER, AT(lr),                0,       FROM_ZERO,  NULL,            true,  NULL, 0,
      "learning rate, before schedule and lr_scale" },
    { "momentum",         NUMBER, AT(momentum),          0,       BELOW_ONE,  NULL,            true,  NULL, 0,
      "share of the buffer that an update keeps" },
    { "momentum_form",    WORD,   AT(momentum_form),     0,       ANY,        momentum_forms,  true,  NULL, 0,
      "what the buffer holds: whole steps, sums of gradients, or their average" },
    { "nesterov_form",    WORD,   AT(nesterov_form),     0,       ANY,        nesterov_forms,  true,  NULL, 0,
      "gradients at the point ahead, or at the weights with the step rearranged" },
    { "rho",              NUMBER, AT(rho),               0,       BELOW_ONE,  NULL,            true,  NULL, 0,
      "share of the average of squares that an update keeps" },
    { "centered",         FLAG,   AT(centered),          0,       ANY,        flags,           true,  NULL, 0,
      "subtract the squared average of the gradients from that of their squares" },
    { "initial_accumulator", NUMBER, AT(initial_accumulator), 0,  FROM_ZERO,  NULL,            true,  NULL, 0,
      "what the sum of squares starts from" },
    { "beta1",            NUMBER, AT(beta1),             0,       BELOW_ONE,  NULL,            true,  NULL, 0,
      "share of the first moment that an update keeps" },
    { "beta2",            NUMBER, AT(beta2),             0,       BELOW_ONE,  NULL,            true,  NULL, 0,
      "share of the second moment that an update keeps" },
    { "eps",              NUMBER, AT(eps),               0,       FROM_ZERO,  NULL,            true,  NULL, 0,
      "keeps the denominator away from 0" },
    { "eps_mode",         WORD,   AT(eps_mode),          0,       ANY,        eps_modes,       true,  NULL, 0,
      "where eps is added: to the square, to its root, or to the root before its bias is corrected; for adamax "
      "nowhere (zero_safe: eps has no effect), to |g| in the maximum, or to the maximum" },
    { "bias_correction",  FLAG,   AT(bias_correction),   0,       ANY,        flags,           true,  NULL, 0,
      "divide the moments by 1 - beta^t" },
    { "max_of",           WORD,   AT(max_of),            0,       ANY,        max_ofs,         true,  NULL, 0,
      "whether the maximum is of second moments as they are, or bias-corrected" },
    { "nadam_form",       WORD,   AT(nadam_form),        0,       ANY,        nadam_forms,     true,  NULL, 0,
      "which correction the look-ahead momentum has" },
    { "momentum_decay",   NUMBER, AT(momentum_decay),    0,       FROM_ZERO,  NULL,            true,  "nadam_form", 1u << OPT_SCHEDULED,
      "how fast the scheduled momentum approaches beta1" },
    { "rectify_threshold", NUMBER, AT(rectify_threshold), 0, LIMIT(4, LARGEST, false, false), NULL, true, NULL, 0,
      "length of the average above which the step is rectified" },
    { "rectify_fallback", WORD,   AT(rectify_fallback),  0,       ANY,        fallbacks,       true,  NULL, 0,
      "what happens below it: the bare momentum, or nothing" },
    { "final_lr",         NUMBER, AT(final_lr),          0,       ABOVE_ZERO, NULL,            true,  NULL, 0,
      "learning rate that the bounds close in on" },
    { "gamma",            NUMBER, AT(gamma),             0,       ABOVE_ZERO, NULL,            true,  NULL, 0,
      "how fast the bounds close in" },
    { "weight_decay",     NUMBER, AT(weight_decay),      0,       FROM_ZERO,  NULL,            false, NULL, 0,
      "share of the weights that is taken away, or added to the gradient" },
    { "decay",            WORD,   AT(decay),             0,       ANY,        decays,          false, NULL, 0,
      "where: in the gradient, beside the step, or in the direction" },
    { "decay_lr",         WORD,   AT(decay_lr),          0,       ANY,        decay_lrs,       false, "decay", 1u << OPT_DECAY_DECOUPLED,
      "what decoupled decay is multiplied with: the rate, or its share of lr" },
    { "clip",             WORD,   AT(clip),              0,       ANY,        clips,           false, NULL, 0,
      "what is bounded: each value, each tensor's norm, or that of all tensors" },
    { "clip_max",         NUMBER, AT(clip_max),          1,       ABOVE_ZERO, NULL,            false, "clip", ANY_CLIP,
      "the bound" },
    { "layerwise",        WORD,   AT(layerwise),         0,       ANY,        layerwises,      false, NULL, 0,
      "which norm the trust ratio divides by: of the direction, or of the gradient" },
    { "layerwise_phi",    WORD,   AT(layerwise_phi),     0,       ANY,        phis,            false, "layerwise", ANY_LAYERWISE,
      "whether the norm of the weights is bounded" },
    { "phi_min",          NUMBER, AT(phi_min),           0,       FROM_ZERO,  NULL,            false, "layerwise_phi", 1u << OPT_PHI_CLIP,
      "its lower bound" },
    { "phi_max",          NUMBER, AT(phi_max),           10,      ABOVE_ZERO, NULL,            false, "layerwise_phi", 1u << OPT_PHI_CLIP,
      "its upper bound" },
    { "trust_coefficient", NUMBER, AT(trust_coefficient), 1,      ABOVE_ZERO, NULL,            false, "layerwise", ANY_LAYERWISE,
      "factor of the trust ratio" },
    { "trust_max",        NUMBER, AT(trust_max),         0,       FROM_ZERO,  NULL,            false, "layerwise", ANY_LAYERWISE,
      "largest trust ratio; 0: any" },
    { "layerwise_eps",    NUMBER, AT(layerwise_eps),     0,       FROM_ZERO,  NULL,            false, "layerwise", ANY_LAYERWISE,
      "added to the norm that is divided by" },
    { "layerwise_min_ndim", COUNT, AT(layerwise_min_ndim), 0, LIMIT(0, OPT_RANK_MAX, false, false), NULL, false, "layerwise", ANY_LAYERWISE,
      "tensors of fewer dimensions have no trust ratio" },
    { "lookahead_k",      COUNT,  AT(lookahead_k),       0, LIMIT(0, MOST_STEPS, false, false), NULL, false, NULL, 0,
      "updates between synchronisations; 0: no Lookahead" },
    { "lookahead_alpha",  NUMBER, AT(lookahead_alpha),   0.5,     LIMIT(0, 1, true, false), NULL, false, "lookahead_k", 0,
      "share of the way to the fast weights that the slow ones go" },
    { "lookahead_momentum", WORD, AT(lookahead_momentum), 0,      ANY,        lookahead_momenta, false, "lookahead_k", 0,
      "what becomes of first moments, where there are any, at a synchronisation" },
    { "warmup_steps",     COUNT,  AT(warmup_steps),      0, LIMIT(0, MOST_STEPS, false, false), NULL, false, NULL, 0,
      "updates in which the rate rises linearly to lr" },
    { "schedule",         WORD,   AT(schedule),          0,       ANY,        schedules,       false, NULL, 0,
      "how the rate falls afterwards" },
    { "schedule_steps",   COUNT,  AT(schedule_steps),    1, LIMIT(1, MOST_STEPS, false, false), NULL, false, "schedule", TIMED,
      "updates until the next stage, or until the end" },
    { "schedule_gamma",   NUMBER, AT(schedule_gamma),    0.1,     FROM_ZERO,  NULL,            false, "schedule", GEOMETRIC,
      "factor of the rate for every schedule_steps" },
    { "schedule_power",   NUMBER, AT(schedule_power),    1,       FROM_ZERO,  NULL,            false, "schedule", 1u << OPT_POLYNOMIAL,
      "power of the remaining share" },
    { "lr_end",           NUMBER, AT(lr_end),            0,       FROM_ZERO,  NULL,            false, "schedule", ENDING,
      "rate at the end" },
    { "aggregate",        WORD,   AT(aggregate),         0,       ANY,        aggregates,      false, NULL, 0,
      "how the workers' gradients become one" },
    { "nonfinite",        WORD,   AT(nonfinite),         0,       ANY,        nonfinites,      false, NULL, 0,
      "what NaN and infinity in a gradient do: refuse it, drop it, or pass" },
};

static const struct opt_term terms[] = {
    { "decay", "weight decay", NULL, 0, { { "weight_decay", "weight_decay" }, { "decay", "mode" }, { "decay_lr", "lr" } }, 2, 1 },
    { "clip", "bounds the aggregated gradient", NULL, 0, { { "clip", "mode" }, { "clip_max", "max" } }, 2, 2 },
    { "layerwise", "trust ratio per tensor (LAMB, LARS)", "layerwise", OPT_LAYERWISE_UPDATE,
      { { "layerwise", "mode" }, { "layerwise_phi", "phi" }, { "phi_min", "phi_min" },
        { "phi_max", "phi_max" }, { "trust_coefficient", "trust_coefficient" },
        { "trust_max", "trust_max" }, { "layerwise_eps", "eps" },
        { "layerwise_min_ndim", "min_ndim" } }, 1, 0 },
    { "lookahead", "slow weights; slow_param is 4 bytes a parameter more", NULL, 0, { { "lookahead_k", "k" }, { "lookahead_alpha", "alpha" },
                              { "lookahead_momentum", "momentum" } }, 1, 1 },
    { "warmup", "the learning rate rises linearly", NULL, 0, { { "warmup_steps", "steps" } }, 1, 1 },
    { "constant", "the learning rate stays", "schedule", OPT_CONSTANT, { { NULL, NULL } }, 0, 0 },
    { "step", "the learning rate falls in steps", "schedule", OPT_STEP,
      { { "schedule_steps", "steps" }, { "schedule_gamma", "gamma" } }, 1, 1 },
    { "exponential", "the learning rate falls by a factor", "schedule", OPT_EXPONENTIAL,
      { { "schedule_steps", "steps" }, { "schedule_gamma", "gamma" } }, 1, 1 },
    { "polynomial", "the learning rate falls to its end by a power", "schedule", OPT_POLYNOMIAL,
      { { "schedule_steps", "steps" }, { "schedule_power", "power" },
        { "lr_end", "end" } }, 1, 1 },
    { "cosine", "the learning rate falls to its end along half a cosine", "schedule", OPT_COSINE,
      { { "schedule_steps", "steps" }, { "lr_end", "end" } }, 1, 1 },
    { "aggregate", "how the workers' gradients become one", NULL, 0, { { "aggregate", "mode" } }, 1, 1 },
    { "nonfinite", "what NaN and infinity do", NULL, 0, { { "nonfinite", "mode" } }, 1, 1 },
};
/* clang-format on */

enum { OPTION_COUNT = sizeof table / sizeof table[0] };

const struct opt_option *opt_options_table(size_t *count)
{
    *count = OPTION_COUNT;
    return table;
}

const struct opt_term *opt_terms(size_t *count)
{
    *count = sizeof terms / sizeof terms[0];
    return terms;
}

const struct opt_term *opt_term_find(const char *name)
{
    for (size_t i = 0; i < sizeof terms / sizeof terms[0]; i++) {
        if (strcmp(terms[i].name, name) == 0) {
            return &terms[i];
        }
    }
    return NULL;
}

const struct opt_option *opt_option_find(const char *name, size_t size)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (strlen(table[i].name) == size && memcmp(table[i].name, name, size) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

size_t opt_option_index(const struct opt_option *option)
{
    return (size_t)(option - table);
}

double opt_option_get(const struct opt_option *option,
                      const struct opt_options *options)
{
    const char *place = (const char *)options + option->offset;

    switch (option->kind) {
    case OPT_KIND_WORD:
        return *(const int *)(const void *)place;
    case OPT_KIND_FLAG:
        return *(const bool *)place ? 1.0 : 0.0;
    default:
        return *(const double *)(const void *)place;
    }
}

void opt_option_put(const struct opt_option *option, struct opt_options *options,
                    double value)
{
    char *place = (char *)options + option->offset;

    switch (option->kind) {
    case OPT_KIND_WORD:
        *(int *)(void *)place = (int)value;
        break;
    case OPT_KIND_FLAG:
        *(bool *)place = value != 0.0;
        break;
    default:
        *(double *)(void *)place = value;
        break;
    }
}

static const struct opt_rule_option *of_rule(const struct opt_option *option,
                                             const struct opt_rule *rule)
{
    for (const struct opt_rule_option *o = rule->options; o->name != NULL; o++) {
        if (strcmp(o->name, option->name) == 0) {
            return o;
        }
    }
    return NULL;
}

bool opt_option_applies(const struct opt_option *option, const struct opt_rule *rule)
{
    return !option->of_rules || of_rule(option, rule) != NULL;
}

double opt_option_default(const struct opt_option *option, const struct opt_rule *rule)
{
    const struct opt_rule_option *own = of_rule(option, rule);

    return own != NULL ? own->value : option->value;
}

unsigned opt_option_words(const struct opt_option *option, const struct opt_rule *rule)
{
    const struct opt_rule_option *own = of_rule(option, rule);

    return own != NULL && own->words != 0 ? own->words : ~0u;
}

const char *opt_option_needs(const struct opt_option *option,
                             const struct opt_rule *rule, unsigned *words)
{
    const struct opt_rule_option *own = of_rule(option, rule);

    if (own != NULL && own->needs != NULL) {
        *words = own->needs_words;
        return own->needs;
    }
    *words = option->needs_words;
    return option->needs;
}

bool opt_option_active(const struct opt_option *option, const struct opt_spec *spec)
{
    unsigned words;
    const char *needs = opt_option_needs(option, spec->rule, &words);

    if (needs == NULL) {
        return true;
    }
    double value =
        opt_option_get(opt_option_find(needs, strlen(needs)), &spec->options);
    return words == 0 ? value > 0.0 : (words >> (int)value & 1u) != 0;
}

void opt_option_print(const struct opt_option *option, double value, char *out,
                      size_t capacity)
{
    char number[OPT_NUMBER_TEXT];

    if (option->words != NULL) {
        snprintf(out, capacity, "%s", option->words[(int)value]);
    } else {
        opt_number_print(value, number);
        snprintf(out, capacity, "%s", number);
    }
}

void opt_option_range(const struct opt_option *option, unsigned words, char *out,
                      size_t capacity)
{
    char low[OPT_NUMBER_TEXT], high[OPT_NUMBER_TEXT];
    size_t used = 0;

    if (option->words == NULL) {
        opt_number_print(option->low, low);
        opt_number_print(option->high, high);
        snprintf(out, capacity, "%s%c%s, %s%c",
                 option->kind == OPT_KIND_COUNT ? "an integer in " : "",
                 option->low_open ? '(' : '[', low, high,
                 option->high_open ? ')' : ']');
        return;
    }
    out[0] = '\0';
    for (int i = 0; option->words[i] != NULL; i++) {
        if ((words >> i & 1u) != 0 && used < capacity) {
            used += (size_t)snprintf(out + used, capacity - used, "%s%s",
                                     used > 0 ? ", " : "", option->words[i]);
        }
    }
}

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* Levenshtein, one row; capitals are no difference. */
static size_t distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
    enum { LONGEST = 40 };
    size_t row[LONGEST + 1];

    if (a_size > LONGEST || b_size > LONGEST) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= b_size; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            size_t above = row[j];
            size_t best = diagonal + (lower(a[i - 1]) != lower(b[j - 1]) ? 1 : 0);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[b_size];
}

const char *opt_nearest(const char *word, size_t size, size_t count,
                        const char *(*name)(size_t i, const void *context),
                        const void *context)
{
    const char *best = NULL;
    size_t smallest = SIZE_MAX;

    for (size_t i = 0; i < count; i++) {
        const char *candidate = name(i, context);
        size_t d = candidate != NULL
                       ? distance(word, size, candidate, strlen(candidate))
                       : SIZE_MAX;
        if (d < smallest && d <= (strlen(candidate) + 2) / 3) {
            smallest = d;
            best = candidate;
        }
    }
    return best;
}
