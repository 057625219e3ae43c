/* last_pull — see last_pull.h. */
#include "server/weights/last_pull.h"

#include <string.h>

#include "server/base/letter.h"
#include "server/base/memory.h"
#include "server/model/model.h"

enum { NOTE_ELEMENTS = 1 << 20 /* copied at a time: about a millisecond */ };

static bool is_needed(const struct model *model)
{
    return model->consistency.delay_compensation > 0;
}

size_t last_pull_bytes(const struct model *model)
{
    return is_needed(model)
               ? model->floats * sizeof(float) + model->blocks * sizeof(uint64_t)
               : 0;
}

bool last_pull_open(const struct model *model, struct last_pull *recall)
{
    if (!is_needed(model) || recall->values != NULL) {
        return true;
    }
    recall->values = memory_new(model->floats * sizeof(float));
    recall->steps = memory_new(model->blocks * sizeof(uint64_t));
    if (recall->values == NULL || recall->steps == NULL) {
        last_pull_close(model, recall);
        return false;
    }
    for (size_t i = 0; i < model->blocks; i++) {
        recall->steps[i] = UINT64_MAX;
    }
    return true;
}

void last_pull_close(const struct model *model, struct last_pull *recall)
{
    memory_free(recall->values, model->floats * sizeof(float));
    memory_free(recall->steps, model->blocks * sizeof(uint64_t));
    *recall = (struct last_pull){ 0 };
}

bool last_pull_note(const struct model *model, struct last_pull *recall,
                    struct letter *letter)
{
    size_t copied = 0;
    if (recall->values == NULL) {
        return true;
    }
    for (; letter->noted < letter->piece_count; letter->noted++) {
        const struct piece *piece = &letter->pieces[letter->noted];
        const struct tensor *tensor = &model->tensors[piece->segment.tensor];
        size_t first = (size_t)piece->segment.offset / OPT_BLOCK;
        size_t count = (size_t)piece->segment.count;
        if (copied >= NOTE_ELEMENTS) {
            return false;
        }
        memcpy(recall->values + tensor->at + piece->segment.offset, piece->values,
               count * sizeof(float));
        for (size_t i = 0; i * OPT_BLOCK < count; i++) {
            recall->steps[tensor->first_block + first + i] = model->step;
        }
        copied += count;
    }
    return true;
}

const float *last_pull_of(const struct last_pull *recall, size_t block, size_t at,
                          uint64_t step)
{
    return recall->values != NULL && recall->steps[block] == step ? recall->values + at
                                                                  : NULL;
}
