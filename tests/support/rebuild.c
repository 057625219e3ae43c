/* rebuild — see rebuild.h. */
#include "tests/support/rebuild.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/team.h"
#include "server/base/version.h"
#include "server/engine/state.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/update/update.h"
#include "server/workers/worker.h"
#include "tests/support/written.h"

/* What of a member has to be known again. */
struct known {
    bool joined, resting, lost;
    uint64_t lost_step, last_step, clock, since, session, passed;
};

/* One commit, with memory of its own. */
struct note {
    struct note *next;
    enum commit_kind kind;
    char model[64], worker[64];
    char *spec;
    struct opt_consistency consistency;
    struct opt_tensor_entry *tensors;
    size_t tensor_count;
    struct opt_segment segment;
    enum opt_dtype dtype;
    void *values;
    uint64_t step;
    struct written *update;
    uint64_t session, incarnation;
    bool lost;
    struct known known;
    struct opt_settled settled;
};

static void *copy_of(const void *from, size_t size)
{
    void *copy = malloc(size + 1);
    cr_assert_not_null(copy);
    memcpy(copy, from, size);
    return copy;
}

/* ---------------------------------------------------------------- noting */

static void note_model(struct note *note, const struct model *model)
{
    note->spec = strdup(model->canonical);
    note->consistency = model->consistency;
    note->tensor_count = model->tensor_count;
    note->tensors = calloc(model->tensor_count, sizeof *note->tensors);
    cr_assert(note->spec != NULL && note->tensors != NULL);
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct tensor *tensor = &model->tensors[i];
        note->tensors[i] = (struct opt_tensor_entry){
            .name = strdup(tensor->name),
            .rank = tensor->rank,
            .elements = tensor->n,
            .sparse = tensor->width > 0,
        };
        if (tensor->shape != NULL) {
            note->tensors[i].shape =
                copy_of(tensor->shape, tensor->rank * sizeof *tensor->shape);
        }
    }
}

/* The bytes of an update are kept as somebody would who writes them to a disk: for a
 * while, so that the next updates need others. */
static struct written *note_update(struct rebuild *rebuild, const struct model *model)
{
    struct written *written = written_take(model);
    if (written == NULL) {
        return NULL;
    }
    struct written *copy = written_copy(written);
    struct written **held = &rebuild->held[rebuild->taken++ % REBUILD_HELD];
    written_free(rebuild->engine, *held);
    *held = written;
    return copy;
}

/* All models' updates are written down. */
static bool writes(void *context, const struct model *model)
{
    (void)context;
    (void)model;
    return true;
}

static struct known known_of(const struct member *member)
{
    return (struct known){
        .joined = member->joined,
        .resting = member->joined && member->resting,
        .lost = member->lost,
        .lost_step = member->lost_step,
        .last_step = member->last_step,
        .clock = member->clock,
        .since = member->since,
        .session = member->arrival.passed > 0 ? member->arrival.session : 0,
        .passed = member->arrival.passed,
    };
}

static void on_note(void *context, const struct commit *commit)
{
    struct rebuild *rebuild = context;
    struct note *note = calloc(1, sizeof *note);
    cr_assert_not_null(note);
    note->kind = commit->kind;
    if (commit->model != NULL) {
        snprintf(note->model, sizeof note->model, "%s", commit->model->name);
        note->step = commit->model->step;
    }
    if (commit->worker != NULL) {
        snprintf(note->worker, sizeof note->worker, "%s", commit->worker->name);
        note->session = commit->worker->session;
        note->incarnation = commit->worker->incarnation;
        note->lost = commit->worker->lost;
    }
    if (commit->member != NULL) {
        note->known = known_of(commit->member);
    }
    switch (commit->kind) {
    case COMMIT_MODEL:
        note_model(note, commit->model);
        break;
    case COMMIT_WEIGHTS:
        note->segment = *commit->segment;
        note->dtype = commit->dtype;
        note->values = copy_of(commit->values, (size_t)commit->segment->count *
                                                   opt_dtype_size(commit->dtype));
        break;
    case COMMIT_OPTIONS:
        note->spec = strdup(commit->model->canonical);
        break;
    case COMMIT_STATED:
        note->spec = strdup(commit->stated->after);
        note->step = commit->stated->step;
        break;
    case COMMIT_STEP:
        note->update = note_update(rebuild, commit->model);
        break;
    case COMMIT_PUSH:
        note->settled = *commit->settled;
        break;
    default:
        break;
    }
    uv_mutex_lock(&rebuild->lock);
    if (rebuild->first == NULL) {
        rebuild->first = note;
    } else {
        rebuild->last->next = note;
    }
    rebuild->last = note;
    if (rebuild->open == NULL) {
        rebuild->open = note;
    }
    uv_mutex_unlock(&rebuild->lock);
}

static void on_turn(void *context)
{
    struct rebuild *rebuild = context;
    uv_mutex_lock(&rebuild->lock);
    rebuild->open = NULL;
    uv_mutex_unlock(&rebuild->lock);
}

void rebuild_init(struct rebuild *rebuild)
{
    *rebuild = (struct rebuild){
        .recorder = { .note = on_note,
                      .turn = on_turn,
                      .writes = writes,
                      .context = rebuild },
    };
    cr_assert_eq(uv_mutex_init(&rebuild->lock), 0);
}

void rebuild_free(struct rebuild *rebuild)
{
    for (struct note *note = rebuild->first; note != NULL;) {
        struct note *next = note->next;
        for (size_t i = 0; i < note->tensor_count; i++) {
            free((void *)(uintptr_t)note->tensors[i].name);
            free((void *)(uintptr_t)note->tensors[i].shape);
        }
        written_copy_free(note->update);
        free(note->values);
        free(note->tensors);
        free(note->spec);
        free(note);
        note = next;
    }
    uv_mutex_destroy(&rebuild->lock);
}

bool rebuild_knows(struct rebuild *rebuild, const char *worker, uint64_t sequence)
{
    bool knows = false;
    uv_mutex_lock(&rebuild->lock);
    for (const struct note *note = rebuild->first; note != rebuild->open;
         note = note->next) {
        knows =
            knows || (note->kind == COMMIT_PUSH && strcmp(note->worker, worker) == 0 &&
                      note->settled.sequence == sequence);
    }
    uv_mutex_unlock(&rebuild->lock);
    return knows;
}

size_t rebuild_count(struct rebuild *rebuild, enum commit_kind kind)
{
    size_t count = 0;
    uv_mutex_lock(&rebuild->lock);
    for (const struct note *note = rebuild->first; note != NULL; note = note->next) {
        count += note->kind == kind;
    }
    uv_mutex_unlock(&rebuild->lock);
    return count;
}

/* ---------------------------------------------------------------- models again */

static struct model *find(struct engine *engine, const char *name)
{
    return names_find(&engine->models, name);
}

static void make_model(struct harness *harness, const struct caller *caller,
                       const struct note *note)
{
    struct letter *letter = letter_ask(
        caller, create_letter(caller, note->model, note->spec, note->consistency,
                              note->tensors, note->tensor_count, false, false));
    cr_assert_eq(reply_status(letter), OPT_OK, "%s", reply_text(letter));
    harness_free(letter);
    cr_assert_not_null(find(harness->engine, note->model));
}

static void set_options(struct engine *engine, struct model *model,
                        const struct note *note)
{
    struct opt_error error;
    uint64_t epoch = model_epoch(model);
    size_t had = opt_spec_bytes(&model->spec);
    opt_spec_fini(&model->spec);
    budget_give(&engine->budget, had);
    cr_assert_eq(opt_spec_parse(note->spec, &model->spec, &error), OPT_OK, "%s",
                 error.text);
    cr_assert(budget_take(&engine->budget, opt_spec_bytes(&model->spec)));
    model->reserved = model->reserved - had + opt_spec_bytes(&model->spec);
    model->epochs_before = epoch;
    model->epochs_from = opt_lookahead_epochs(&model->spec, model->step);
}

static void make_models(struct rebuild *rebuild, struct harness *harness,
                        const struct caller *caller)
{
    struct engine *engine = harness->engine;
    for (const struct note *note = rebuild->first; note != NULL; note = note->next) {
        struct model *model = find(engine, note->model);
        if (note->kind == COMMIT_MODEL) {
            make_model(harness, caller, note);
        } else if (note->kind == COMMIT_GONE && model != NULL) {
            struct letter *letter = letter_start(caller, OPT_MESSAGE_DELETE);
            letter->request.body.delete_ = letter_text(letter, note->model);
            harness_free(letter_ask(caller, letter));
        } else if (model != NULL) {
            uv_mutex_lock(&engine->turn);
            if (note->kind == COMMIT_WEIGHTS) {
                model_assign(model, &note->segment, note->dtype, note->values);
            } else if (note->kind == COMMIT_OPTIONS) {
                set_options(engine, model, note);
            } else if (note->kind == COMMIT_STEP) {
                cr_assert_not_null(note->update);
                written_replay(engine, model, note->update);
                cr_assert_eq(model->step, note->step);
            }
            uv_mutex_unlock(&engine->turn);
        }
    }
}

static void expect_values(const struct caller *was, const struct model *a,
                          const struct caller *is, const struct model *b,
                          enum opt_view view, const char *slot)
{
    size_t n = (size_t)a->parameters;
    float *of_a = malloc(n * sizeof *of_a), *of_b = malloc(n * sizeof *of_b);
    cr_assert(of_a != NULL && of_b != NULL);
    uint64_t step = model_pull(was, a->number, view, slot, of_a, n);
    cr_assert_eq(model_pull(is, b->number, view, slot, of_b, n), step);
    cr_assert(same_bits(of_a, of_b, n), "%s of \"%s\"", slot[0] ? slot : "weights",
              a->name);
    free(of_a);
    free(of_b);
}

static void expect_models(struct harness *harness, const struct caller *was,
                          struct harness *other, const struct caller *is)
{
    cr_assert_eq(harness->engine->model_count, other->engine->model_count);
    for (size_t i = 0; i < harness->engine->model_count; i++) {
        const struct model *a = harness->engine->numbered[i];
        const struct model *b = find(other->engine, a->name);
        cr_assert_not_null(b, "%s", a->name);
        cr_assert_eq(a->step, b->step, "%s", a->name);
        cr_assert_eq(model_epoch(a), model_epoch(b), "%s", a->name);
        char of_a[1024], of_b[1024];
        opt_spec_print(&a->spec, of_a, sizeof of_a);
        opt_spec_print(&b->spec, of_b, sizeof of_b);
        cr_assert_str_eq(of_a, of_b);
        expect_values(was, a, is, b, OPT_VIEW_TRAIN, "");
        for (size_t k = 0; k < a->slot_count; k++) {
            expect_values(was, a, is, b, OPT_VIEW_SLOT, a->slot_names[k]);
        }
    }
}

/* ---------------------------------------------------------------- workers again */

/* What the notes say of a member: its last state, and its window in *window. */
static bool member_again(const struct rebuild *rebuild, const char *model,
                         const char *worker, struct known *known, struct window *window)
{
    bool there = false;
    for (const struct note *note = rebuild->first; note != NULL; note = note->next) {
        bool of = strcmp(note->model, model) == 0 && strcmp(note->worker, worker) == 0;
        if ((note->kind == COMMIT_GONE && strcmp(note->model, model) == 0) ||
            (of && note->kind == COMMIT_FORGOTTEN)) {
            there = false;
        } else if (of && (note->kind == COMMIT_MEMBER || note->kind == COMMIT_PUSH)) {
            if (!there) {
                *window = (struct window){ 0 };
            }
            there = true;
            *known = note->known;
            if (note->kind == COMMIT_PUSH) {
                window_settle(window, &note->settled);
            }
        }
    }
    return there;
}

static void expect_member(const struct rebuild *rebuild, const struct member *member)
{
    struct known known, now = known_of(member);
    struct window *window = malloc(sizeof *window);
    const char *name = member->worker->name;
    cr_assert_not_null(window);
    cr_assert(member_again(rebuild, member->model->name, name, &known, window));
    cr_assert_eq(known.joined, now.joined, "%s", name);
    cr_assert_eq(known.resting, now.resting, "%s", name);
    cr_assert_eq(known.lost, now.lost, "%s", name);
    cr_assert_eq(known.lost_step, now.lost_step, "%s", name);
    cr_assert_eq(known.last_step, now.last_step, "%s", name);
    cr_assert_eq(known.clock, now.clock, "%s: %zu, not %zu", name, (size_t)known.clock,
                 (size_t)now.clock);
    cr_assert_eq(known.since, now.since, "%s", name);
    cr_assert_eq(known.passed, now.passed, "%s", name);
    cr_assert_eq(known.session, now.session, "%s", name);
    cr_assert_eq(memcmp(window, &member->window, sizeof *window), 0, "%s", name);
    free(window);
}

static void expect_worker(const struct rebuild *rebuild, const struct worker *worker)
{
    const struct note *known = NULL;
    for (const struct note *note = rebuild->first; note != NULL; note = note->next) {
        if (note->kind == COMMIT_WORKER && strcmp(note->worker, worker->name) == 0) {
            known = note;
        }
    }
    cr_assert_not_null(known, "%s", worker->name);
    cr_assert_eq(known->session, worker->session, "%s", worker->name);
    cr_assert_eq(known->incarnation, worker->incarnation, "%s", worker->name);
    cr_assert_eq(known->lost, worker->lost, "%s", worker->name);
}

void rebuild_let_go(struct rebuild *rebuild)
{
    uv_mutex_lock(&rebuild->engine->turn);
    for (size_t i = 0; i < REBUILD_HELD; i++) {
        written_free(rebuild->engine, rebuild->held[i]);
        rebuild->held[i] = NULL;
    }
    uv_mutex_unlock(&rebuild->engine->turn);
}

void rebuild_expect(struct rebuild *rebuild, struct harness *harness)
{
    struct harness other;
    harness_open(&other, harness_settings());
    struct caller was = caller_new(harness, "", 0), is = caller_new(&other, "", 0);
    make_models(rebuild, &other, &is);
    expect_models(harness, &was, &other, &is);
    uv_mutex_lock(&harness->engine->turn);
    for (size_t i = 0; i < harness->engine->model_count; i++) {
        const struct model *model = harness->engine->numbered[i];
        for (size_t k = 0; k < model->member_count; k++) {
            expect_member(rebuild, model->members[k]);
        }
    }
    for (size_t i = 0; i < harness->engine->workers.capacity; i++) {
        if (harness->engine->workers.slots[i].thing != NULL) {
            expect_worker(rebuild, harness->engine->workers.slots[i].thing);
        }
    }
    uv_mutex_unlock(&harness->engine->turn);
    caller_gone(&was, false);
    caller_gone(&is, false);
    harness_close(&other);
}
