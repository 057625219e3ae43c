/* spec_yaml — specifications in YAML files.
 *
 *   rule: radam                       # a rule, a preset or a profile's rule
 *   lr: 1e-3                          # options by their names
 *   layerwise: {mode: update, phi: clip, phi_max: 10}
 *   lookahead: {k: 6, alpha: 0.5}     # terms by theirs, what is in them by name
 *   clip: [global_norm, 1]            # or by position
 *   warmup: 500                       # or a single value
 *   cosine: {steps: 20000, end: 1e-5}
 *   tensors:
 *     - {pattern: "*.bias", weight_decay: 0, layerwise: none}
 *
 * One mapping. A key is an option with its value, or a term of the expression's grammar
 * with its arguments; where a name is both, as decay and clip are, a single value is
 * the option's. Names, ranges and sentences are those of expressions. Quotes make no
 * difference. Only tools that read files link this room, and with it libyaml: the
 * client library and the daemon do not. Any thread.
 */
#ifndef OPTIMD_COMMON_OPTIM_SPEC_YAML_H
#define OPTIMD_COMMON_OPTIM_SPEC_YAML_H

#include <stddef.h>

#include "common/optim/spec.h"
#include "common/status.h"

/* Read a text of size bytes, at most OPT_YAML_BYTES. Sentences call it name and give
 * the line. *out is written on success; OPT_INVALID_ARGUMENT, or OPT_RESOURCE_EXHAUSTED
 * if there is no memory. */
enum opt_status opt_spec_read_yaml(const char *text, size_t size, const char *name,
                                   struct opt_spec *out, struct opt_error *error);

#endif
