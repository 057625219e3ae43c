/* change — see change.h. */
#include "server/engine/change.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/engine/inside.h"
#include "server/engine/model.h"
#include "server/engine/update.h"

static void change_free(struct change *change)
{
    if (change != NULL) {
        free(change->before);
        free(change->after);
        free(change);
    }
}

void change_free_all(struct model *model)
{
    for (size_t i = 0; i < model->changes.count; i++) {
        change_free(model->changes.list[i]);
    }
}

/* ---------------------------------------------------------------- stating */

/* What the model will be from one change to the next, if a new one is put in. */
struct course {
    size_t place;               /* of the new one in the list */
    char *texts[CHANGES_MAX];   /* after the new one, and after each that follows */
    size_t count;               /* of texts */
    struct opt_spec spec, next; /* at present and after one more change */
};

static void course_fini(struct course *course)
{
    for (size_t i = 0; i < course->count; i++) {
        free(course->texts[i]);
    }
}

/* One change further. */
static enum opt_status advance(struct engine *engine, struct model *model,
                               struct course *course, const struct opt_change *what,
                               struct opt_error *error)
{
    course->next = course->spec;
    enum opt_status status = opt_change_apply(what, &course->next, error);
    if (status == OPT_OK) {
        status = opt_change_fits(&course->spec, &course->next, error);
    }
    if (status == OPT_OK && stream_is_policy(model)) {
        status = stream_check(&course->next, error);
    }
    for (size_t i = 0; status == OPT_OK && i < model->tensor_count; i++) {
        const struct tensor *tensor = &model->tensors[i];
        if (tensor->width > 0) {
            status =
                opt_spec_check_sparse(&course->next, tensor->name, tensor->rank, error);
        }
    }
    if (status == OPT_OK && !update_reserve(engine, model, &course->next)) {
        status = opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                          "the scratch memory that layerwise needs does not fit the "
                          "%zu bytes that are left of the %zu that --memory allows",
                          budget_left(&engine->budget), engine->budget.limit);
    }
    if (status != OPT_OK) {
        return status;
    }
    char *text = model_print_spec(&course->next);
    if (text == NULL) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for a change");
    }
    course->texts[course->count++] = text;
    course->spec = course->next;
    return OPT_OK;
}

/* The changes that were stated for later must still be possible. */
static enum opt_status follow(struct engine *engine, struct model *model,
                              struct course *course, struct opt_error *error)
{
    for (size_t i = course->place; i < model->changes.count; i++) {
        const struct change *later = model->changes.list[i];
        struct opt_error reason;
        enum opt_status status = advance(engine, model, course, &later->what, &reason);
        if (status != OPT_OK) {
            return opt_fail(error, status,
                            "the change that was stated for update %" PRIu64
                            " could not follow: %.400s",
                            later->step, reason.text);
        }
    }
    return OPT_OK;
}

/* Put the change into the list; the texts of the course become the list's. */
static void insert(struct model *model, struct course *course, struct change *change,
                   char *before)
{
    struct changes *changes = &model->changes;
    memmove(changes->list + course->place + 1, changes->list + course->place,
            (changes->count - course->place) * sizeof(struct change *));
    changes->list[course->place] = change;
    changes->count++;
    change->before = before;
    for (size_t i = 0; i < course->count; i++) {
        struct change *one = changes->list[course->place + i];
        free(one->after);
        one->after = course->texts[i];
    }
    course->count = 0;
}

/* Texts before the changes that follow a new one: copies of those after the one in
 * front. False, and nothing changed, without memory. */
static bool renew_before(struct model *model, const struct course *course)
{
    char *texts[CHANGES_MAX];
    size_t count = 0;
    bool all = true;
    for (size_t i = 0; all && i + 1 < course->count; i++) {
        texts[i] = strdup(course->texts[i]);
        all = texts[i] != NULL;
        count += all;
    }
    for (size_t i = 0; i < count; i++) {
        struct change *later = model->changes.list[course->place + i];
        if (all) {
            free(later->before);
            later->before = texts[i];
        } else {
            free(texts[i]);
        }
    }
    return all;
}

static enum opt_status record(struct model *model, struct course *course,
                              const struct opt_change *what, uint64_t step,
                              const char *before, struct opt_error *error)
{
    struct change *change = calloc(1, sizeof *change);
    char *copy = strdup(before);
    if (change == NULL || copy == NULL || !renew_before(model, course)) {
        free(change);
        free(copy);
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED, "no memory for a change");
    }
    change->step = step;
    change->what = *what;
    insert(model, course, change, copy);
    return OPT_OK;
}

/* Whether the step can be the first of a change. */
static enum opt_status check_step(const struct model *model, uint64_t step,
                                  struct opt_error *error)
{
    if (step <= model->step) {
        return opt_fail(error, OPT_FAILED_PRECONDITION,
                        "model \"%.100s\" has had update %" PRIu64
                        " already; a change can take effect from update %" PRIu64 " on",
                        model->name, step, model->step + 1);
    }
    if (model->changes.count - model->changes.done == CHANGES_COMING) {
        return opt_fail(error, OPT_RESOURCE_EXHAUSTED,
                        "%d changes of model \"%.100s\" have been stated and not yet "
                        "taken effect; there cannot be more",
                        CHANGES_COMING, model->name);
    }
    return OPT_OK;
}

enum opt_status change_state(struct engine *engine, struct model *model,
                             const struct opt_set *set, uint64_t *step,
                             const char **text, struct opt_error *error)
{
    const struct changes *changes = &model->changes;
    struct opt_change what;
    struct course course = { .place = changes->done, .spec = model->spec };
    const char *before = model->canonical;
    uint64_t first = set->at_step == 0 ? model->step + 1 : set->at_step;
    enum opt_status status = opt_change_read(model->spec.rule, set, &what, error);
    if (status != OPT_OK) {
        return status;
    }
    while (course.place < changes->count &&
           changes->list[course.place]->step <= first) {
        const struct change *earlier = changes->list[course.place++];
        opt_change_apply(&earlier->what, &course.spec, NULL);
        before = earlier->after;
    }
    status = advance(engine, model, &course, &what, error);
    if (status == OPT_OK && strcmp(before, course.texts[0]) == 0) {
        *step = first;
        *text = before;
        course_fini(&course);
        return OPT_OK;
    }
    if (status == OPT_OK) {
        status = check_step(model, first, error);
    }
    if (status == OPT_OK) {
        status = follow(engine, model, &course, error);
    }
    if (status == OPT_OK) {
        status = record(model, &course, &what, first, before, error);
    }
    course_fini(&course);
    if (status == OPT_OK) {
        *step = first;
        *text = changes->list[course.place]->after;
        change_due(model);
    }
    return status;
}

/* ---------------------------------------------------------------- taking effect */

static void take_effect(struct model *model, const struct change *change)
{
    uint64_t epoch = model_epoch(model);
    opt_change_apply(&change->what, &model->spec, NULL);
    model->canonical = change->after;
    model->epochs_before = epoch;
    model->epochs_from = opt_lookahead_epochs(&model->spec, model->step);
    for (size_t i = 0; i < model->tensor_count; i++) {
        struct tensor *tensor = &model->tensors[i];
        opt_tensor_options_resolve(&model->spec, tensor->name, tensor->rank,
                                   &tensor->options);
    }
    model_outdate_training_view(model);
    model->changed = model->step + 1; /* the view of this step is another one too */
}

void change_due(struct model *model)
{
    struct changes *changes = &model->changes;
    while (changes->done < changes->count &&
           changes->list[changes->done]->step <= model->step + 1) {
        take_effect(model, changes->list[changes->done++]);
        if (changes->done > CHANGES_KEPT) {
            change_free(changes->list[0]);
            changes->done--;
            changes->count--;
            memmove(changes->list, changes->list + 1,
                    changes->count * sizeof(struct change *));
        }
    }
}
