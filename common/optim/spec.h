/* spec — what a model's optimizer is: one checked value, whatever it was written in.
 *
 * Expression, YAML and wire message become a struct opt_spec with every option
 * resolved; it prints back as one canonical expression, and two specifications are the
 * same if and only if their canonical texts are. Everything is driven by two tables:
 * the rules (registry.c) and the options (options.c); nothing here switches on a name.
 * Any thread.
 *
 *   adam(lr=1e-3, beta2=0.98) + decay(0.01, decoupled) + clip(global_norm, 1)
 *     + warmup(500) + cosine(20000, end=1e-5) + lookahead(k=6, alpha=0.5)
 *     + tensors("*.bias", weight_decay=0, layerwise=none)
 */
#ifndef OPTIMD_COMMON_OPTIM_SPEC_H
#define OPTIMD_COMMON_OPTIM_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

struct opt_rule; /* rule.h */

enum opt_momentum_form { OPT_VELOCITY, OPT_HEAVY_BALL, OPT_EMA };
enum opt_nesterov_form { OPT_CLASSICAL, OPT_REFORMULATED };
enum opt_eps_mode {
    OPT_INSIDE_SQRT,
    OPT_OUTSIDE_SQRT,
    OPT_EPSILON_HAT,
    OPT_ZERO_SAFE,
    OPT_IN_MAX,
    OPT_OUTSIDE
};
enum opt_max_of { OPT_MAX_RAW, OPT_MAX_CORRECTED };
enum opt_nadam_form { OPT_SAME_STEP, OPT_NEXT_STEP, OPT_SCHEDULED };
enum opt_rectify_fallback { OPT_FALLBACK_MOMENTUM, OPT_FALLBACK_SKIP };
enum opt_decay { OPT_DECAY_COUPLED, OPT_DECAY_DECOUPLED, OPT_DECAY_UPDATE };
enum opt_decay_lr { OPT_DECAY_LR, OPT_DECAY_SCHEDULE };
enum opt_schedule {
    OPT_CONSTANT,
    OPT_STEP,
    OPT_EXPONENTIAL,
    OPT_POLYNOMIAL,
    OPT_COSINE
};
enum opt_clip {
    OPT_CLIP_NONE,
    OPT_CLIP_VALUE,
    OPT_CLIP_TENSOR_NORM,
    OPT_CLIP_GLOBAL_NORM
};
enum opt_layerwise { OPT_LAYERWISE_NONE, OPT_LAYERWISE_UPDATE, OPT_LAYERWISE_GRADIENT };
enum opt_phi { OPT_PHI_IDENTITY, OPT_PHI_CLIP };
enum opt_lookahead_momentum { OPT_KEEP, OPT_RESET, OPT_PULLBACK };
enum opt_aggregate { OPT_WEIGHTED_MEAN, OPT_MEAN, OPT_SUM };
enum opt_nonfinite { OPT_REJECT, OPT_SKIP, OPT_PROPAGATE };

/* The options of optimizer rules and wrappers, names as users write them. Enumerations
 * are int here so that one table can describe every field. */
struct opt_options {
    double lr, momentum, rho, initial_accumulator, beta1, beta2, eps, momentum_decay;
    double rectify_threshold, final_lr, gamma;
    int momentum_form, nesterov_form, eps_mode, max_of, nadam_form, rectify_fallback;
    bool centered, bias_correction;
    double weight_decay;
    int decay, decay_lr;
    int schedule;
    double schedule_steps, schedule_gamma, schedule_power, lr_end, warmup_steps;
    int clip;
    double clip_max;
    int layerwise, layerwise_phi;
    double phi_min, phi_max, trust_coefficient, trust_max, layerwise_eps;
    double layerwise_min_ndim;
    double lookahead_k, lookahead_alpha;
    int lookahead_momentum;
    int aggregate, nonfinite;
};

/* What a tensor may have of its own. */
struct opt_group {
    char *pattern; /* * and ?, first match wins */
    uint64_t hash; /* of it */
    bool has_weight_decay, has_lr_scale, layerwise_none;
    bool may_miss; /* no tensor need match */
    double weight_decay, lr_scale;
};

enum { OPT_GROUPS_MAX = 1024 };

/* A plain copy borrows the groups of the original. */
struct opt_spec {
    const struct opt_rule *rule;
    struct opt_options options;
    struct opt_group *groups; /* counted references; NULL if there are none */
    size_t group_count;
};

/* A copy with a reference of its own. */
void opt_spec_share(struct opt_spec *to, const struct opt_spec *from);
/* Give up the reference. A specification without groups has nothing to give up. */
void opt_spec_fini(struct opt_spec *spec);
/* Bytes of memory that its groups take. */
size_t opt_spec_bytes(const struct opt_spec *spec);

/* From an expression; *out is the caller's to give up. OPT_INVALID_ARGUMENT with a
 * sentence that names the word or value, the position, and the nearest valid name or
 * the range. */
enum opt_status opt_spec_parse(const char *text, struct opt_spec *out,
                               struct opt_error *error);

/* From a message. */
enum opt_status opt_spec_from_wire(const struct opt_wire_spec *wire,
                                   struct opt_spec *out, struct opt_error *error);

/* Canonical expression; returns its length like snprintf and always terminates. */
size_t opt_spec_print(const struct opt_spec *spec, char *out, size_t capacity);

/* The same as YAML, which spec_yaml.h reads, without a line's end after the last line.
 */
size_t opt_spec_print_yaml(const struct opt_spec *spec, char *out, size_t capacity);
enum {
    OPT_YAML_BYTES = 1 << 20
}; /* that a YAML text may have; none is printed longer */

/* The same as a message's parts, in storage of its own; names borrowed from spec. */
enum { OPT_GROUP_OPTIONS = 4 };
struct opt_spec_parts {
    struct opt_wire_spec wire;
    struct opt_wire_option options[OPT_OPTIONS_MAX];
    struct opt_wire_group groups[OPT_GROUPS_MAX];
    struct opt_wire_option group_options[OPT_GROUPS_MAX][OPT_GROUP_OPTIONS];
};
void opt_spec_to_wire(const struct opt_spec *spec, struct opt_spec_parts *out);

/* Start from the name of a rule, a preset or a profile's rule, every option at its
 * default. */
enum opt_status opt_spec_init(struct opt_spec *spec, const char *rule,
                              struct opt_error *error);
/* Append one group of tensors, with its options. */
enum opt_status opt_spec_group(struct opt_spec *spec, const struct opt_wire_group *wire,
                               struct opt_error *error);
/* What can only be judged when all options are known. */
enum opt_status opt_spec_check(const struct opt_spec *spec, struct opt_error *error);
/* Whether a sparse tensor with these options (update.h) can be updated row by row. */
struct opt_tensor_options;
enum opt_status opt_spec_check_sparse(const struct opt_spec *spec, const char *tensor,
                                      const struct opt_tensor_options *options,
                                      struct opt_error *error);

/* Names of the state arrays in the order in which updates take them: the rule's, then
 * slow_param and slow_momentum if Lookahead wants them. Returns the count, at most
 * OPT_SLOTS_MAX. Static strings. */
enum { OPT_SLOTS_MAX = 5 };
size_t opt_spec_slots(const struct opt_spec *spec, const char *names[OPT_SLOTS_MAX]);

/* Value that all elements of a slot start with (`sum`: initial_accumulator; else 0).
 * slow_param starts as the weights: *copy_of_weights tells. */
float opt_spec_slot_start(const struct opt_spec *spec, size_t slot,
                          bool *copy_of_weights);

#endif
