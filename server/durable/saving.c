/* saving — see saving.h. */
#include "server/durable/saving.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "server/durable/checkpointing.h"
#include "server/durable/durable.h"
#include "server/durable/forgetting.h"
#include "server/durable/gate.h"
#include "server/durable/journaling.h"
#include "server/durable/wishes.h"
#include "server/engine/answer.h"
#include "server/engine/state.h"
#include "server/engine/work.h"
#include "server/model/model.h"
#include "server/rounds/members.h"
#include "server/workers/worker.h"

enum { RETRY_MS = 1000, RETRY_MOST_MS = 60000 };
enum { NO_RECORD = 0 };
enum { JOURNAL_LEAST = 256 << 20, LIMIT_NS = 1000000000 };

/* What is known of a model's checkpoints. */
struct keep {
    struct keep *next; /* of all */
    struct durable *durable;
    struct model *model;
    struct alarm alarm;    /* when it is due, or tried again */
    struct keep *next_due; /* in the order in which they became so */
    bool is_due;
    bool changed;      /* something is not in the newest cut */
    bool is_last;      /* the daemon stops, and has still to save it */
    uint32_t retry_ms; /* it has failed; 0: it has not */
    uint64_t cuts;     /* so far, */
    uint64_t cut_step; /* the newest is of that step */
    uint64_t needs;    /* the first record that is needed to recover it; NO_RECORD: it
                          has none */
    /* The newest checkpoint; "" as name if there is none. */
    struct granted newest;
    char name[CHECKPOINT_NAME];
    struct wishes wishes;
};

struct saver {
    struct keep *keeps;
    struct keep *due_first, *due_last;
    struct checkpointing *saving; /* the checkpoint in progress, or NULL, */
    struct keep *saved;           /* and whose it is; NULL: its model is gone */
    struct folders folders;       /* of models that are gone */
    uint64_t limited_ns;          /* when the journal's size was looked at */
    size_t failing;               /* models whose last attempt failed */
    bool holds;                   /* some of those that are due begin no round */
    bool stopping;                /* nothing is tried again */
    bool forgot; /* there was no memory to note what a model needs: nothing of the
                    journal is dropped any more */
};

/* ---------------------------------------------------------------- open, close */

enum opt_status saving_open(struct durable *durable, struct opt_error *error)
{
    durable->saver = calloc(1, sizeof *durable->saver);
    return durable->saver == NULL
               ? opt_fail_as(error, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                             "no memory for checkpoints")
               : OPT_OK;
}

void saving_end(struct durable *durable)
{
    checkpointing_free(durable->saver->saving);
    durable->saver->saving = NULL;
}

void saving_close(struct durable *durable)
{
    struct saver *saver = durable->saver;
    if (saver == NULL) {
        return;
    }
    while (saver->keeps != NULL) {
        struct keep *keep = saver->keeps;
        saver->keeps = keep->next;
        free(keep);
    }
    forgetting_close(&saver->folders);
    free(saver);
    durable->saver = NULL;
}

/* ---------------------------------------------------------------- who is due */

static void make_due(struct keep *keep)
{
    struct saver *saver = keep->durable->saver;
    if (keep->is_due) {
        return;
    }
    alarm_cancel(&keep->durable->engine->alarms, &keep->alarm);
    keep->is_due = true;
    keep->next_due = NULL;
    if (saver->due_first == NULL) {
        saver->due_first = keep;
    } else {
        saver->due_last->next_due = keep;
    }
    saver->due_last = keep;
    durable_rouse(keep->durable); /* a loop may have the turn */
}

static void drop_due(struct keep *keep)
{
    struct saver *saver = keep->durable->saver;
    struct keep *before = NULL;
    if (!keep->is_due) {
        return;
    }
    for (struct keep *at = saver->due_first; at != keep; at = at->next_due) {
        before = at;
    }
    if (before == NULL) {
        saver->due_first = keep->next_due;
    } else {
        before->next_due = keep->next_due;
    }
    if (saver->due_last == keep) {
        saver->due_last = before;
    }
    keep->is_due = false;
}

static void on_alarm(struct engine *engine, struct alarm *alarm)
{
    (void)engine;
    make_due((struct keep *)(void *)((char *)alarm - offsetof(struct keep, alarm)));
}

static void make_due_in(struct keep *keep, uint64_t ms)
{
    struct engine *engine = keep->durable->engine;
    if (!keep->is_due && keep->alarm.place == 0 &&
        !alarm_set(&engine->alarms, &keep->alarm, uv_hrtime() + ms * 1000000,
                   on_alarm)) {
        make_due(keep); /* no memory to wait */
    }
}

/* ---------------------------------------------------------------- what models need */

static bool has_records(const struct model *model)
{
    return model->durability.mode != OPT_DURABILITY_CHECKPOINT;
}

/* Whose checkpoint is the oldest of those that have records; NULL: there is none. */
static struct keep *oldest(const struct saver *saver)
{
    struct keep *oldest = NULL;
    for (struct keep *keep = saver->keeps; keep != NULL; keep = keep->next) {
        if (keep->needs != NO_RECORD &&
            (oldest == NULL || keep->needs < oldest->needs)) {
            oldest = keep;
        }
    }
    return oldest;
}

/* Checkpoints have all that records before some one say: the journal may drop it. */
static void drop_records(struct durable *durable)
{
    const struct saver *saver = durable->saver;
    const struct keep *keep = oldest(saver);
    uint64_t before = forgetting_needs(&saver->folders);
    before = before < durable->recorded + 1 ? before : durable->recorded + 1;
    before = keep == NULL || before < keep->needs ? before : keep->needs;
    if (!saver->forgot) {
        journaling_drop(durable, before);
    }
}

/* A model that rests holds back the journal of those that do not: it is saved again,
 * though nothing of it has changed, when the journal has grown by as much as that
 * writes. */
static void limit_journal(struct durable *durable)
{
    struct saver *saver = durable->saver;
    uint64_t now = uv_hrtime();
    if (now - saver->limited_ns < LIMIT_NS) {
        return;
    }
    saver->limited_ns = now;
    struct keep *keep = oldest(saver);
    if (keep == NULL || keep->retry_ms > 0 || keep->is_due || !keep->model->ready) {
        return;
    }
    uint64_t bytes =
        (1 + keep->model->slot_count) * (uint64_t)keep->model->floats * sizeof(float);
    if (journaling_counts(durable).held_bytes > JOURNAL_LEAST + bytes) {
        make_due(keep);
    }
}

static struct keep *keep_of(struct durable *durable, struct model *model)
{
    struct saver *saver = durable->saver;
    if (model->keep != NULL) {
        return model->keep;
    }
    struct keep *keep = calloc(1, sizeof *keep);
    if (keep == NULL) {
        saver->forgot = true;
        return NULL;
    }
    keep->durable = durable;
    keep->model = model;
    keep->newest = (struct granted){ .identity = model->identity, .name = keep->name };
    keep->next = saver->keeps;
    saver->keeps = keep;
    model->keep = keep;
    return keep;
}

static void keep_free(struct keep *keep)
{
    struct keep **link = &keep->durable->saver->keeps;
    while (*link != keep) {
        link = &(*link)->next;
    }
    *link = keep->next;
    free(keep);
}

/* Something of the model has become true. */
static void change(struct durable *durable, struct model *model)
{
    if (model->deleted) { /* its members are forgotten with it */
        return;
    }
    struct keep *keep = keep_of(durable, model);
    if (keep == NULL) {
        return;
    }
    if (has_records(model) && keep->needs == NO_RECORD) {
        keep->needs = durable->recorded + 1;
    }
    keep->changed = true;
    if (durable->settings.checkpoint_ms > 0) {
        make_due_in(keep, durable->settings.checkpoint_ms);
    }
}

/* An update is over. */
static void count_step(struct keep *keep, const struct model *model)
{
    uint64_t steps = model->durability.checkpoint_steps;
    if (keep != NULL && keep->retry_ms == 0 && steps > 0 &&
        model->step - keep->cut_step >= steps) {
        make_due(keep);
    }
}

/* The model is deleted: its checkpoints go when that cannot be lost any more. */
static void go(struct durable *durable, struct model *model)
{
    struct saver *saver = durable->saver;
    struct keep *keep = model->keep;
    if (keep == NULL) {
        return;
    }
    drop_due(keep);
    alarm_cancel(&durable->engine->alarms, &keep->alarm);
    wishes_refuse(durable->engine, &keep->wishes, OPT_ABORTED, OPT_DETAIL_MODEL_GONE,
                  "the model was deleted");
    if (saver->saved == keep) {
        checkpointing_lose(saver->saving);
        saver->saved = NULL;
    }
    if ((has_records(model) || keep->cuts > 0) &&
        !forgetting_add(durable, &saver->folders, model->identity,
                        has_records(model) ? durable->recorded + 1 : NO_RECORD,
                        keep->needs)) {
        saver->forgot = true;
    }
    saver->failing -= keep->retry_ms > 0;
    model->keep = NULL;
    keep_free(keep);
}

void saving_note(struct durable *durable, const struct commit *commit)
{
    struct model *model = (struct model *)(uintptr_t)commit->model;
    if (commit->kind == COMMIT_GONE) {
        go(durable, model);
    } else if (model != NULL) {
        change(durable, model);
        if (commit->kind == COMMIT_STEP) {
            count_step(model->keep, model);
        }
        if (model->held) { /* it may be cut now */
            durable_rouse(durable);
        }
    } else { /* a worker, of which models' manifests tell */
        for (struct member *member = commit->worker->members; member != NULL;
             member = member->next_of_worker) {
            change(durable, member->model);
        }
    }
}

void saving_take_up(struct durable *durable, struct model *model,
                    const struct granted *newest)
{
    struct keep *keep = keep_of(durable, model);
    if (keep == NULL) {
        return;
    }
    if (newest != NULL) {
        snprintf(keep->name, sizeof keep->name, "%s", newest->name);
        keep->newest.step = newest->step;
        keep->newest.record = newest->record;
        keep->cut_step = newest->step;
        keep->cuts = 1;
    }
    if (has_records(model)) {
        keep->needs = newest != NULL ? newest->record + 1 : 1;
    }
    keep->changed =
        newest == NULL || model->durability.recorded > model->durability.saved;
    if (keep->changed && durable->settings.checkpoint_ms > 0) {
        make_due_in(keep, durable->settings.checkpoint_ms);
    }
}

void saving_all(struct durable *durable)
{
    for (struct keep *keep = durable->saver->keeps; keep != NULL; keep = keep->next) {
        make_due(keep);
    }
}

void saving_want(struct durable *durable, const struct model *model)
{
    for (struct keep *keep = durable->saver->keeps; keep != NULL; keep = keep->next) {
        if (keep->model == model) {
            make_due(keep);
        }
    }
}

void saving_demand(struct durable *durable)
{
    for (struct keep *keep = durable->saver->keeps; keep != NULL; keep = keep->next) {
        const struct model_durability *of = &keep->model->durability;
        if (of->lost > of->saved) {
            make_due(keep);
        }
    }
}

/* ---------------------------------------------------------------- one after another */

static void let_go(struct durable *durable, struct model *model)
{
    if (model->held) {
        model->held = false;
        work_settle(durable->engine, model);
    }
}

/* Those that are due begin no round until one of them can be cut, or go on. */
static void hold(struct durable *durable, bool holds)
{
    struct saver *saver = durable->saver;
    for (struct keep *keep = saver->due_first; keep != NULL && saver->holds != holds;
         keep = keep->next_due) {
        if (holds) {
            keep->model->held = keep->model->ready;
        } else {
            let_go(durable, keep->model);
        }
    }
    saver->holds = holds;
}

/* The attempt has failed: another follows. */
static void fail(struct keep *keep, const struct opt_error *error)
{
    struct durable *durable = keep->durable;
    struct saver *saver = durable->saver;
    durable->engine->counters.checkpoint_failures++;
    bool first = keep->retry_ms == 0;
    keep->retry_ms = first                                ? RETRY_MS
                     : 2 * keep->retry_ms < RETRY_MOST_MS ? 2 * keep->retry_ms
                                                          : RETRY_MOST_MS;
    if (first || saver->stopping) {
        opt_log(OPT_LOG_WARN, "checkpoint_failed",
                "model=%s step=%" PRIu64 " why=%s again_ms=%u", keep->model->name,
                keep->model->step, error->text,
                saver->stopping ? 0u : (unsigned)keep->retry_ms);
    }
    saver->failing += first;
    keep->changed = true;
    wishes_fail(durable->engine, &keep->wishes, keep->cuts, keep->retry_ms, error);
    if (!saver->stopping) {
        alarm_cancel(&durable->engine->alarms, &keep->alarm);
        make_due_in(keep, keep->retry_ms);
    }
}

static void succeed(struct keep *keep, const struct checkpoint_outcome *outcome)
{
    struct durable *durable = keep->durable;
    struct engine_counters *counters = &durable->engine->counters;
    struct model *model = keep->model;
    counters->checkpoints++;
    counters->checkpoint_bytes += outcome->bytes;
    counters->checkpoint_ns += outcome->ns;
    opt_log(OPT_LOG_INFO, "checkpoint",
            "model=%s step=%" PRIu64 " bytes=%" PRIu64 " ms=%" PRIu64
            " folder=models/%016" PRIx64 "/%s",
            model->name, outcome->step, outcome->bytes, outcome->ns / 1000000,
            model->identity, outcome->name);
    if (outcome->prune.status != OPT_OK) {
        opt_log(OPT_LOG_WARN, "checkpoints_stay", "model=%s why=%s", model->name,
                outcome->prune.text);
    }
    durable->saver->failing -= keep->retry_ms > 0;
    keep->retry_ms = 0;
    memcpy(keep->name, outcome->name, sizeof keep->name);
    keep->newest.step = outcome->step;
    keep->newest.record = outcome->record;
    keep->needs = has_records(model) ? outcome->record + 1 : NO_RECORD;
    model->durability.saved = outcome->record;
    model->durability.saved_step = outcome->step;
    wishes_grant(durable->engine, &keep->wishes, keep->cuts, &keep->newest);
    gate_saved(durable, model);
    drop_records(durable);
    if (model->durability.lost > outcome->record) {
        make_due_in(keep, RETRY_MS);
    }
}

/* Who is saved next: the first of those that are due and are between two updates. If
 * none is they begin no other round until one can be. */
static bool choose(struct durable *durable)
{
    struct saver *saver = durable->saver;
    struct opt_error error;
    struct keep *keep = saver->due_first;
    while (keep != NULL && !checkpointing_can_cut(keep->model)) {
        keep = keep->next_due;
    }
    if (keep == NULL) {
        saver->holds = false; /* others may have become due */
        hold(durable, true);
        return false;
    }
    drop_due(keep);
    hold(durable, false);
    keep->cuts++;
    keep->is_last = false;
    saver->saving = checkpointing_new(durable, keep->model, &error);
    if (saver->saving == NULL) {
        let_go(durable, keep->model);
        fail(keep, &error);
        return true;
    }
    saver->saved = keep;
    keep->model->held = true;
    return true;
}

/* The cut has been made. */
static void note_cut(struct durable *durable, struct keep *keep)
{
    keep->changed = false;
    keep->cut_step = keep->model->step;
    drop_due(keep);
    alarm_cancel(&durable->engine->alarms, &keep->alarm);
    let_go(durable, keep->model);
}

/* It is over, one way or the other. */
static void end(struct durable *durable)
{
    struct saver *saver = durable->saver;
    struct checkpointing *saving = saver->saving;
    struct keep *keep = saver->saved;
    const struct checkpoint_outcome *outcome = checkpointing_outcome(saving);
    saver->saving = NULL;
    saver->saved = NULL;
    if (keep != NULL) {
        let_go(durable, keep->model);
        if (outcome->error.status == OPT_OK) {
            succeed(keep, outcome);
        } else {
            fail(keep, &outcome->error);
        }
    }
    checkpointing_free(saving);
}

/* Go on with the checkpoint in progress. */
static bool save_some(struct durable *durable)
{
    struct saver *saver = durable->saver;
    bool was_cut = checkpointing_is_cut(saver->saving);
    enum checkpointing_progress progress = checkpointing_go_on(saver->saving);
    if (progress == CHECKPOINTING_OVER) {
        end(durable);
    } else if (!was_cut && checkpointing_is_cut(saver->saving)) {
        note_cut(durable, saver->saved);
    }
    return progress != CHECKPOINTING_WAITS;
}

bool saving_go_on(struct durable *durable)
{
    struct saver *saver = durable->saver;
    forgetting_go_on(durable, &saver->folders);
    if (saver->saving != NULL) {
        return save_some(durable);
    }
    limit_journal(durable);
    return saver->due_first != NULL && choose(durable);
}

/* ---------------------------------------------------------------- letters, the end */

void saving_ask(struct engine *engine, struct model *model, struct letter *letter)
{
    struct durable *durable = engine->durable;
    struct saver *saver = durable->saver;
    struct keep *keep = keep_of(durable, model);
    if (keep == NULL) {
        answer_fail(engine, letter, OPT_RESOURCE_EXHAUSTED, OPT_DETAIL_NO_MEMORY,
                    "no memory for a checkpoint of model \"%s\"", model->name);
        return;
    }
    bool saves = saver->saved == keep;
    bool fresh = !keep->changed && saves && checkpointing_is_cut(saver->saving);
    if (!keep->changed && !saves && keep->name[0] != '\0') {
        wish_grant(engine, letter, &keep->newest);
        return;
    }
    if (!fresh && !(saves && !checkpointing_is_cut(saver->saving))) {
        make_due(keep);
    }
    if (letter->request.body.checkpoint.wait) {
        bool ahead = saves && (fresh || !checkpointing_is_cut(saver->saving));
        wishes_add(engine, &keep->wishes, letter, keep->cuts + !ahead);
    } else {
        wish_grant(engine, letter,
                   &(struct granted){ .identity = model->identity,
                                      .step = model->step,
                                      .record = durable->recorded,
                                      .name = "" });
    }
}

void saving_closed(struct engine *engine, const struct peer *peer)
{
    for (struct keep *keep = engine->durable == NULL ? NULL
                                                     : engine->durable->saver->keeps;
         keep != NULL; keep = keep->next) {
        wishes_closed(engine, &keep->wishes, peer);
    }
}

void saving_refuse(struct engine *engine)
{
    for (struct keep *keep = engine->durable == NULL ? NULL
                                                     : engine->durable->saver->keeps;
         keep != NULL; keep = keep->next) {
        wishes_refuse(engine, &keep->wishes, OPT_UNAVAILABLE, OPT_DETAIL_STOPPING,
                      "the daemon is stopping");
    }
}

size_t saving_failing(const struct durable *durable)
{
    return durable->saver->failing;
}

bool saving_finish(struct durable *durable)
{
    struct saver *saver = durable->saver;
    bool is_over = saver->saving == NULL;
    for (struct keep *keep = saver->keeps; keep != NULL; keep = keep->next) {
        if (!saver->stopping) {
            keep->is_last = keep->changed && keep->model->ready;
        }
        if (keep->is_last) {
            make_due(keep);
            is_over = false;
        }
    }
    saver->stopping = true;
    return is_over && !forgetting_is_busy(durable, &saver->folders);
}
