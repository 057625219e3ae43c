/* spec_fit — see spec_fit.h. */
#include "server/model/spec_fit.h"

#include <stdlib.h>

#include "common/optim/groups.h"
#include "common/optim/spec.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/weights/grouping.h"

enum opt_status spec_fit_sparse(struct engine *engine, const struct model *model,
                                const struct opt_spec *spec,
                                const struct grouping *grouping, size_t *checked,
                                struct opt_error *error)
{
    enum { CHECKED = 16384, COST = 16 };
    enum opt_status status = OPT_OK;
    size_t rest = model->tensor_count - *checked;
    size_t end = *checked + (rest < CHECKED ? rest : CHECKED);
    work_done(engine, COST * (uint64_t)(end - *checked));
    for (; status == OPT_OK && *checked < end; ++*checked) {
        const struct tensor *tensor = &model->tensors[*checked];
        struct opt_tensor_options options;
        if (tensor->width > 0) {
            opt_group_options(spec, grouping->of[*checked], tensor->rank, &options);
            status = opt_spec_check_sparse(spec, tensor->name, &options, error);
        }
    }
    return status;
}

char *spec_fit_text(const struct opt_spec *spec)
{
    size_t size = opt_spec_print(spec, NULL, 0) + 1;
    char *text = malloc(size);
    if (text != NULL) {
        opt_spec_print(spec, text, size);
    }
    return text;
}
