/* spec — specifications from files and in each of their forms. No daemon is asked. */
#ifndef OPTIMD_TOOLS_OPTCTL_SPEC_H
#define OPTIMD_TOOLS_OPTCTL_SPEC_H

#include <stdbool.h>

#include "common/optim/spec.h"
#include "common/status.h"

/* A specification from a YAML file, or one sentence. */
enum opt_status spec_read(const char *path, struct opt_spec *out,
                          struct opt_error *error);

/* An expression as YAML; false with a sentence if it is none. */
bool spec_print_yaml(const char *expression, struct opt_error *error);

#endif
