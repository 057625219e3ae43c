/* list — all models in a table. */
#include <stdlib.h>
#include <string.h>

#include "server/access/access.h"
#include "server/durable/recovery_view.h"
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/messages/serve.h"
#include "server/model/model.h"

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
        .durability = model->durability.mode,
    };
}

enum { TEXT_BYTES = 1024, MODEL_COST = 512 };

/* The beginning of a text that is too long for a list, in whole characters. */
static const char *shorten(const char *text, char out[TEXT_BYTES + 1])
{
    if (strnlen(text, TEXT_BYTES + 1) <= TEXT_BYTES) {
        return text;
    }
    size_t size = TEXT_BYTES;
    while (((unsigned char)text[size] & 0xc0) == 0x80) {
        size--;
    }
    memcpy(out, text, size);
    out[size] = '\0';
    return out;
}

/* What is put together for the table and not kept. */
struct row {
    char text[TEXT_BYTES + 1];
};

static size_t fill(const struct engine *engine, const struct visitor *visitor,
                   struct opt_model_entry *models, struct row *rows)
{
    size_t count = 0, missing = recovery_missing(engine);
    for (size_t i = 0; i < engine->model_count; i++) {
        const struct model *model = engine->numbered[i];
        if (!model->making && access_model(visitor, model->name)) {
            models[count] = serve_summary(model);
            models[count].specification = shorten(model->canonical, rows[count].text);
            count++;
        }
    }
    for (size_t i = 0; i < missing; i++) {
        models[count] = recovery_missing_model(engine, i);
        count += access_model(visitor, models[count].name);
    }
    if (recovery_is_on(engine)) {
        for (size_t i = 0; i < count; i++) {
            models[i].recovering = true;
            models[i].percent = recovery_percent(engine->durable);
        }
    }
    return count;
}

/* False: the letter has been given its error. */
static bool make_table(struct engine *engine, struct letter *letter)
{
    size_t count = engine->model_count + recovery_missing(engine);
    struct opt_model_entry *models = NULL;
    struct row *rows = NULL;
    size_t passing = (count + 1) * (sizeof *models + sizeof *rows);
    if (!letter_pay_or_fail(letter, passing)) {
        return false;
    }
    models = calloc(count + 1, sizeof *models);
    rows = malloc((count + 1) * sizeof *rows);
    bool made = models != NULL && rows != NULL;
    if (made) {
        count = fill(engine, &letter->peer->visitor, models, rows);
        size_t size = opt_model_table_pack(models, count, NULL, 0);
        made = letter_pay_or_fail(letter, size + 1) && letter_table(letter, size);
        if (made) {
            opt_model_table_pack(models, count, letter->table, size);
        }
        work_done(engine, count * MODEL_COST + size / 4);
    } else {
        letter_fail(letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for a table of %zu models", count);
    }
    free(models);
    free(rows);
    letter_refund(letter, passing);
    return made;
}

void serve_list(struct engine *engine, struct letter *letter)
{
    if (make_table(engine, letter)) {
        answer_start(letter, OPT_MESSAGE_LIST);
        answer_send(engine, letter);
    } else {
        answer_failed(engine, letter);
    }
}
