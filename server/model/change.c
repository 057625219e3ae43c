/* change — see change.h. */
#include "server/model/change.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/groups.h"
#include "server/engine/answer.h"
#include "server/engine/commit.h"
#include "server/engine/errand.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/model/spec_fit.h"
#include "server/rounds/consistency.h"
#include "server/rounds/shard_schedule.h"
#include "server/update/update_memory.h"
#include "server/weights/shards.h"

enum {
    CHANGE_PIECE = 1 << 18 /* steps of matching at a time */
};

/* What the budget is charged for what it makes of the model, */
static size_t bytes_made(const struct change *change)
{
    return strlen(change->before) + strlen(change->after) + 2 +
           opt_spec_bytes(&change->spec);
}

/* for what was asked for, */
static size_t bytes_asked(const struct opt_change *what, const char *asked)
{
    return opt_spec_bytes(&what->values) + strlen(asked) + 1;
}

/* and for all of it. */
static size_t bytes_of(const struct change *change)
{
    return bytes_made(change) + bytes_asked(&change->what, change->asked);
}

static void change_free(struct engine *engine, struct change *change)
{
    budget_give(&engine->budget, bytes_of(change));
    grouping_unref(engine, change->grouping);
    opt_change_fini(&change->what);
    free(change->asked);
    opt_spec_fini(&change->spec);
    free(change->before);
    free(change->after);
    free(change);
}

void change_free_all(struct engine *engine, struct model *model)
{
    for (size_t i = 0; i < model->changes.count; i++) {
        change_free(engine, model->changes.list[i]);
    }
    model->changes.count = 0;
}

/* ---------------------------------------------------------------- stating */

/* What the model will be from one change on. */
struct leg {
    char *text;
    struct opt_spec spec;
    struct grouping *grouping; /* a reference */
};

/* A change on its way into the list: what the model will be with it and, anew, after
 * each of those that follow it. All of that is known, and paid for, before anything
 * changes. */
struct course {
    struct errand errand;
    size_t charged; /* to the budget */
    void (*answer)(struct engine *engine, struct letter *letter,
                   const struct stated *stated);
    struct opt_change what;
    char *asked;    /* its text */
    uint64_t first; /* update with it */
    size_t place;   /* of the new one in the list */
    const char *before;
    struct grouping *grouping; /* before the leg in hand, borrowed */
    struct opt_spec spec;      /* the same */
    struct leg legs[CHANGES_COMING + 1];
    size_t count;         /* of legs that are over */
    bool merged, begun;   /* the leg in hand: */
    struct opt_spec next; /* after it */
    char *text;
    struct grouping *made; /* NULL: no tensor comes into another group */
    struct opt_matching matching;
    bool matched;
    size_t checked; /* tensors */
    enum opt_status status;
    struct opt_error error;
};

static void course_free(struct engine *engine, struct course *course)
{
    for (size_t i = 0; i < course->count; i++) {
        free(course->legs[i].text);
        opt_spec_fini(&course->legs[i].spec);
        grouping_unref(engine, course->legs[i].grouping);
    }
    budget_give(&engine->budget, course->charged);
    grouping_unref(engine, course->made);
    free(course->text);
    free(course->asked);
    opt_change_fini(&course->what);
    opt_spec_fini(&course->spec);
    opt_spec_fini(&course->next);
    free(course);
}

static enum opt_status charge(struct engine *engine, struct course *course, size_t size,
                              struct opt_error *error)
{
    if (!budget_take(&engine->budget, size)) {
        return opt_fail_as(
            error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
            "texts and groups of the change take %zu bytes more, but %zu "
            "of the %zu that --memory allows are left",
            size, budget_left(&engine->budget), engine->budget.limit);
    }
    course->charged += size;
    return OPT_OK;
}

static void discharge(struct engine *engine, struct course *course, size_t size)
{
    budget_give(&engine->budget, size);
    course->charged -= size;
}

/* The specification after the leg in hand, */
static enum opt_status merge_next(struct engine *engine, struct course *course,
                                  const struct opt_change *what,
                                  struct opt_error *error)
{
    size_t most = opt_spec_bytes(&course->spec) + opt_spec_bytes(&what->values);
    enum opt_status status = charge(engine, course, most, error);
    if (status != OPT_OK) {
        return status;
    }
    opt_spec_share(&course->next, &course->spec);
    status = opt_change_apply(what, &course->next, error);
    if (status != OPT_OK) {
        return status;
    }
    discharge(engine, course, most - opt_spec_bytes(&course->next));
    course->merged = true;
    work_done(engine, SPEC_MERGE_COST * (uint64_t)opt_spec_bytes(&course->next));
    return OPT_OK;
}

/* and its text beside a copy of the one before. */
static enum opt_status print_next(struct engine *engine, struct course *course,
                                  struct opt_error *error)
{
    size_t before = course->count > 0 ? strlen(course->legs[course->count - 1].text)
                                      : strlen(course->before);
    size_t after = opt_spec_print(&course->next, NULL, 0);
    enum opt_status status = charge(engine, course, before + after + 2, error);
    if (status == OPT_OK && (course->text = spec_fit_text(&course->next)) == NULL) {
        status = opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                             "no memory for a change");
    }
    return status;
}

/* One change further, which has been merged: all but the tensors. */
static enum opt_status begin_leg(struct engine *engine, struct model *model,
                                 struct course *course, struct opt_error *error)
{
    enum opt_status status = print_next(engine, course, error);
    if (status == OPT_OK) {
        status = opt_change_fits(&course->spec, &course->next, error);
    }
    if (status == OPT_OK && shard_schedule_is_policy(model)) {
        status = consistency_check_atomic(&course->next, error);
    }
    if (status == OPT_OK && !update_memory_reserve(engine, model, &course->next)) {
        status = opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                             "the scratch memory that layerwise needs does not fit the "
                             "%zu bytes that are left of the %zu that --memory allows",
                             budget_left(&engine->budget), engine->budget.limit);
    }
    if (status != OPT_OK) {
        return status;
    }
    bool moves = course->next.group_count != course->spec.group_count;
    course->made = moves ? grouping_new(engine, model->tensor_count) : NULL;
    if (moves && course->made == NULL) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for a change");
    }
    if (moves) {
        opt_matching_begin(&course->matching, &course->next, &model->named,
                           course->made->of);
    }
    course->matched = !moves;
    course->checked = 0;
    course->begun = true;
    work_done(engine, SPEC_PRINT_COST * (uint64_t)strlen(course->text));
    return OPT_OK;
}

/* Some tensors further. */
static enum opt_status go_on_leg(struct engine *engine, struct model *model,
                                 struct course *course, struct opt_error *error)
{
    enum opt_status status = OPT_OK;
    uint64_t steps;
    if (!course->matched) {
        status = opt_matching_go_on(&course->matching, CHANGE_PIECE, &course->matched,
                                    &steps, error);
        work_done(engine, steps);
        return status;
    }
    const struct grouping *grouping =
        course->made != NULL ? course->made : course->grouping;
    return spec_fit_sparse(engine, model, &course->next, grouping, &course->checked,
                           error);
}

static void end_leg(struct course *course)
{
    struct leg *leg = &course->legs[course->count++];
    *leg = (struct leg){ .text = course->text,
                         .grouping = course->made != NULL
                                         ? course->made
                                         : grouping_ref(course->grouping) };
    course->text = NULL;
    course->made = NULL;
    course->grouping = leg->grouping;
    opt_spec_share(&leg->spec, &course->next);
    opt_spec_fini(&course->spec);
    course->spec = course->next;
    course->next = (struct opt_spec){ .rule = course->spec.rule };
    course->merged = false;
    course->begun = false;
}

/* Copies of the texts before the changes that follow: those after the one in front.
 * False, and nothing changed, without memory. */
static bool copy_before(const struct course *course, char *texts[CHANGES_COMING + 1])
{
    for (size_t i = 0; i < course->count; i++) {
        const char *text = i == 0 ? course->before : course->legs[i - 1].text;
        texts[i] = strdup(text);
        if (texts[i] == NULL) {
            while (i > 0) {
                free(texts[--i]);
            }
            return false;
        }
    }
    return true;
}

/* Put the change into the list; what the course knows becomes the list's. */
static void insert(struct engine *engine, struct model *model, struct course *course,
                   struct change *change, char *texts[CHANGES_COMING + 1])
{
    struct changes *changes = &model->changes;
    memmove(changes->list + course->place + 1, changes->list + course->place,
            (changes->count - course->place) * sizeof(struct change *));
    changes->list[course->place] = change;
    changes->count++;
    change->step = course->first;
    change->what = course->what;
    change->asked = course->asked;
    course->asked = NULL;
    course->what = (struct opt_change){ .given = 0 };
    for (size_t i = 0; i < course->count; i++) {
        struct change *one = changes->list[course->place + i];
        if (one != change) {
            budget_give(&engine->budget, bytes_made(one));
        }
        free(one->before);
        free(one->after);
        opt_spec_fini(&one->spec);
        grouping_unref(engine, one->grouping);
        one->before = texts[i];
        one->after = course->legs[i].text;
        one->spec = course->legs[i].spec;
        one->grouping = course->legs[i].grouping;
    }
    course->count = 0;
    course->charged = 0; /* it is the list's */
}

static enum opt_status record(struct engine *engine, struct model *model,
                              struct course *course, struct opt_error *error)
{
    char *texts[CHANGES_COMING + 1];
    struct change *change = calloc(1, sizeof *change);
    if (change == NULL || !copy_before(course, texts)) {
        free(change);
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for a change");
    }
    insert(engine, model, course, change, texts);
    return OPT_OK;
}

/* Whether the step can be the first of a change. */
static enum opt_status check_step(const struct model *model, uint64_t step,
                                  struct opt_error *error)
{
    if (step <= model->step) {
        return opt_fail_as(error, OPT_FAILED_PRECONDITION, OPT_DETAIL_PASSED,
                           "model \"%.100s\" has had update %" PRIu64
                           " already; a change can take effect from update %" PRIu64
                           " on",
                           model->name, step, model->step + 1);
    }
    size_t bytes = 0;
    for (size_t i = model->changes.done; i < model->changes.count; i++) {
        bytes += bytes_of(model->changes.list[i]);
    }
    if (bytes > CHANGES_COMING_BYTES) {
        return opt_fail_as(
            error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
            "the changes of model \"%.100s\" that have been stated and not "
            "yet taken effect take %zu bytes; there cannot be more",
            model->name, bytes);
    }
    if (model->changes.count - model->changes.done == CHANGES_COMING) {
        return opt_fail_as(
            error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_TOO_MANY,
            "%d changes of model \"%.100s\" have been stated and not yet "
            "taken effect; there cannot be more",
            CHANGES_COMING, model->name);
    }
    return OPT_OK;
}

/* The next piece of a course. The changes that were stated for later must still be
 * possible. */
static bool go_on(struct engine *engine, struct model *model, struct errand *errand)
{
    struct course *course = (struct course *)(void *)errand;
    const struct changes *changes = &model->changes;
    size_t later = course->place + course->count - 1; /* if it is not the new one */
    bool own = course->count == 0;
    struct opt_error error;
    if (course->begun) {
        course->status = go_on_leg(engine, model, course, &error);
    } else if (course->merged) {
        course->status = begin_leg(engine, model, course, &error);
    } else {
        course->status = merge_next(
            engine, course, own ? &course->what : &changes->list[later]->what, &error);
    }
    if (course->status != OPT_OK && own) {
        course->error = error;
    } else if (course->status != OPT_OK) {
        opt_fail_as(&course->error, course->status, error.detail,
                    "the change that was stated for update %" PRIu64
                    " could not follow: %.400s",
                    changes->list[later]->step, error.text);
    }
    if (course->status != OPT_OK || !course->begun || !course->matched ||
        course->checked < model->tensor_count) {
        return course->status != OPT_OK;
    }
    end_leg(course);
    if (own && strcmp(course->before, course->legs[0].text) != 0) {
        course->status = check_step(model, course->first, &course->error);
    }
    return course->status != OPT_OK ||
           strcmp(course->before, course->legs[0].text) == 0 ||
           course->place + course->count > changes->count;
}

static void end(struct engine *engine, struct model *model, struct errand *errand)
{
    struct course *course = (struct course *)(void *)errand;
    struct letter *letter = errand->letter;
    bool same =
        course->status == OPT_OK && strcmp(course->before, course->legs[0].text) == 0;
    if (course->status == OPT_OK && !same) {
        course->status = record(engine, model, course, &course->error);
    }
    if (course->status != OPT_OK) {
        answer_refuse(engine, letter, &course->error);
    } else {
        struct stated stated = {
            .step = course->first,
            .text = same ? course->before : model->changes.list[course->place]->after
        };
        if (!same) {
            commit_stated(engine, model, model->changes.list[course->place]);
        }
        course->answer(engine, letter, &stated);
        change_due(engine, model);
    }
    course_free(engine, course);
}

/* The text of what is asked for. */
static enum opt_status print_asked(struct course *course, struct opt_error *error)
{
    size_t size = opt_change_print(&course->what, NULL, 0) + 1;
    course->asked = malloc(size);
    if (course->asked == NULL) {
        return opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                           "no memory for a change");
    }
    opt_change_print(&course->what, course->asked, size);
    return OPT_OK;
}

bool change_restore(struct engine *engine, struct model *model, uint64_t step,
                    const char *before, const char *after)
{
    struct changes *changes = &model->changes;
    struct change *change = calloc(1, sizeof *change);
    if (change == NULL || changes->count == CHANGES_MAX ||
        changes->done != changes->count) {
        free(change);
        return false;
    }
    change->step = step;
    change->what.values.rule = model->spec.rule;
    change->spec.rule = model->spec.rule;
    change->before = strdup(before);
    change->after = strdup(after);
    change->asked = strdup("");
    bool kept = change->before != NULL && change->after != NULL &&
                change->asked != NULL && budget_take(&engine->budget, bytes_of(change));
    if (!kept) {
        free(change->before);
        free(change->after);
        free(change->asked);
        free(change);
        return false;
    }
    change->grouping = grouping_ref(model->grouping);
    changes->list[changes->count++] = change;
    changes->done++;
    model->canonical = change->after;
    return true;
}

void change_state(struct engine *engine, struct model *model, struct letter *letter,
                  void (*answer)(struct engine *engine, struct letter *letter,
                                 const struct stated *stated))
{
    const struct opt_set *set = &letter->request.body.set;
    const struct changes *changes = &model->changes;
    struct opt_error error;
    struct course *course = calloc(1, sizeof *course);
    enum opt_status status =
        course == NULL ? opt_fail_as(&error, OPT_RESOURCE_EXHAUSTED,
                                     OPT_DETAIL_NO_MEMORY, "no memory for a change")
                       : opt_change_read(model->spec.rule, set, &course->what, &error);
    if (status == OPT_OK) {
        status = print_asked(course, &error);
    }
    if (status == OPT_OK) {
        status =
            charge(engine, course, bytes_asked(&course->what, course->asked), &error);
    }
    if (status != OPT_OK) {
        if (course != NULL) {
            course_free(engine, course);
        }
        answer_refuse(engine, letter, &error);
        return;
    }
    course->errand = (struct errand){ .go_on = go_on, .end = end, .letter = letter };
    course->answer = answer;
    course->first = set->at_step == 0 ? model->step + 1 : set->at_step;
    course->place = changes->done;
    course->before = model->canonical;
    course->grouping = model->grouping;
    const struct opt_spec *spec = &model->spec;
    while (course->place < changes->count &&
           changes->list[course->place]->step <= course->first) {
        const struct change *earlier = changes->list[course->place++];
        spec = &earlier->spec;
        course->before = earlier->after;
        course->grouping = earlier->grouping;
    }
    opt_spec_share(&course->spec, spec);
    work_done(engine, SPEC_READ_COST * (uint64_t)strlen(set->change));
    errand_begin(engine, model, &course->errand);
}

/* ---------------------------------------------------------------- taking effect */

static void take_effect(struct engine *engine, struct model *model,
                        struct change *change)
{
    uint64_t epoch = model_epoch(model);
    size_t had = opt_spec_bytes(&model->spec);
    opt_spec_fini(&model->spec);
    budget_give(&engine->budget, had);
    model->spec = change->spec; /* and what it has been charged for it */
    change->spec = (struct opt_spec){ .rule = model->spec.rule };
    model->reserved = model->reserved - had + opt_spec_bytes(&model->spec);
    model->canonical = change->after;
    model->epochs_before = epoch;
    model->epochs_from = opt_lookahead_epochs(&model->spec, model->step);
    struct grouping *before = model->grouping;
    model->grouping = grouping_ref(change->grouping);
    grouping_unref(engine, before);
    shards_outdate_view(model, MIRROR_TRAIN);
    model->changed = model->step + 1; /* the view of this step is another one too */
    commit_model(engine, COMMIT_OPTIONS, model);
}

/* Whether the oldest record goes: there are too many, or their texts are too long. The
 * last one stays, whose text is in force. */
static bool is_to_go(const struct changes *changes)
{
    size_t bytes = 0;
    for (size_t i = 0; i < changes->done; i++) {
        bytes += bytes_of(changes->list[i]);
    }
    return changes->done > CHANGES_KEPT ||
           (changes->done > 1 && bytes > CHANGES_KEPT_BYTES);
}

void change_due(struct engine *engine, struct model *model)
{
    struct changes *changes = &model->changes;
    while (changes->done < changes->count &&
           changes->list[changes->done]->step <= model->step + 1) {
        take_effect(engine, model, changes->list[changes->done++]);
        while (is_to_go(changes)) {
            change_free(engine, changes->list[0]);
            changes->done--;
            changes->count--;
            memmove(changes->list, changes->list + 1,
                    changes->count * sizeof(struct change *));
        }
    }
}
