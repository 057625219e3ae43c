/* list — all models in a table. */
#include <stdlib.h>

#include "server/engine/answers.h"
#include "server/engine/inside.h"
#include "server/engine/model.h"
#include "server/messages/serve.h"

struct opt_model_entry serve_summary(const struct model *model)
{
    return (struct opt_model_entry){
        .name = model->name,
        .model = model->number,
        .step = model->step,
        .tensors = model->tensor_count,
        .parameters = model->parameters,
        .workers = (uint32_t)model->joined,
        .specification = model->canonical,
        .identity = model->identity,
    };
}

/* False: the letter has been given its error. */
static bool make_table(const struct engine *engine, struct letter *letter)
{
    size_t count = engine->model_count;
    struct opt_model_entry *models = NULL;
    size_t passing = (count + 1) * sizeof *models;
    if (!letter_pay_or_fail(letter, passing)) {
        return false;
    }
    models = calloc(count + 1, sizeof *models);
    bool made = models != NULL;
    if (made) {
        count = 0;
        for (size_t i = 0; i < engine->model_count; i++) {
            if (!engine->numbered[i]->making) {
                models[count++] = serve_summary(engine->numbered[i]);
            }
        }
        size_t size = opt_model_table_pack(models, count, NULL, 0);
        made = letter_pay_or_fail(letter, size + 1) && letter_table(letter, size);
        if (made) {
            opt_model_table_pack(models, count, letter->table, size);
        }
    } else {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for a table of %zu models", count);
    }
    free(models);
    letter_refund(letter, passing);
    return made;
}

void serve_list(struct engine *engine, struct letter *letter)
{
    if (make_table(engine, letter)) {
        engine_reply(letter, OPT_MESSAGE_LIST);
        engine_return(engine, letter);
    } else {
        engine_failed(engine, letter);
    }
}
