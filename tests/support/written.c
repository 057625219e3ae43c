/* written — see written.h. */
#include "tests/support/written.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "server/model/model.h"
#include "server/update/replay.h"

static void *copy_of(const void *from, size_t size)
{
    void *copy = malloc(size + 1);
    cr_assert_not_null(copy);
    if (size > 0) {
        memcpy(copy, from, size);
    }
    return copy;
}

static struct written_rows *copy_rows(const struct written *from)
{
    struct written_rows *copy =
        copy_of(from->rows, from->rows_count * sizeof *from->rows);
    for (size_t i = 0; i < from->rows_count; i++) {
        const struct written_rows *rows = &from->rows[i];
        copy[i].rows = copy_of(rows->rows, rows->count * sizeof *rows->rows);
        copy[i].values = copy_of(rows->values, rows->value_bytes);
    }
    return copy;
}

static struct written *copy_one(const struct written *from)
{
    struct written *copy = copy_of(from, sizeof *from);
    copy->next = NULL;
    copy->slabs[0] = NULL;
    copy->slabs[1] = NULL;
    copy->spans = copy_of(from->spans, from->span_count * sizeof *from->spans);
    copy->tensors = copy_of(from->tensors, from->tensor_runs * sizeof *from->tensors);
    copy->blocks = copy_of(from->blocks, from->block_runs * sizeof *from->blocks);
    copy->values = copy_of(from->values, from->value_bytes);
    copy->rows = copy_rows(from);
    return copy;
}

struct written *written_copy(const struct written *from)
{
    struct written *first = NULL, **link = &first;
    for (; from != NULL; from = from->next) {
        *link = copy_one(from);
        link = &(*link)->next;
    }
    return first;
}

static void let_go(const void *memory)
{
    free((void *)(uintptr_t)memory);
}

void written_copy_free(struct written *copy)
{
    while (copy != NULL) {
        struct written *next = copy->next;
        for (size_t i = 0; i < copy->rows_count; i++) {
            let_go(copy->rows[i].rows);
            let_go(copy->rows[i].values);
        }
        let_go(copy->rows);
        let_go(copy->values);
        let_go(copy->blocks);
        let_go(copy->tensors);
        let_go(copy->spans);
        free(copy);
        copy = next;
    }
}

void written_replay(struct engine *engine, struct model *model,
                    const struct written *first)
{
    struct opt_error error;
    uint64_t step = model->step;
    struct replay *replay = replay_new(engine, model);
    cr_assert_not_null(replay);
    for (const struct written *one = first; one != NULL; one = one->next) {
        enum update_progress progress = UPDATE_MORE;
        cr_assert_eq(replay_begin(replay, one, &error), OPT_OK, "%s", error.text);
        while (progress == UPDATE_MORE || progress == UPDATE_SHARDS) {
            progress = replay_run(replay, &error);
        }
        cr_assert_eq(progress, one->last ? UPDATE_DONE : UPDATE_PARTLY, "%s",
                     progress == UPDATE_OVERFLOW ? error.text : "stalled");
        cr_assert_eq(one->last, one->next == NULL);
    }
    cr_assert_eq(model->step, step + 1);
    replay_free(replay);
}
