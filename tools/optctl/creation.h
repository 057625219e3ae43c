/* creation — what commands that create a model are told of it, beside its tensors. */
#ifndef OPTIMD_TOOLS_OPTCTL_CREATION_H
#define OPTIMD_TOOLS_OPTCTL_CREATION_H

#include "common/optim/spec_yaml.h"
#include "tools/optctl/ctl.h"

struct creation {
    const char *specification;
    char from_file[OPT_YAML_BYTES]; /* the same, if it was read from one */
    struct optclient_policy policy;
};

/* Read --spec or --spec-file, --policy, --async and --min-workers. An exit status: not
 * EXIT_SUCCESS after it has said what is wrong. */
int creation_read(struct ctl *ctl, struct creation *creation);

#endif
